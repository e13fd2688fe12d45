//! `graven bench`. `seeds` is [`seeds`]; all else is `queue`: the disk as the server of a queue, and how long records wait in it.
//!
//! ```text
//! arrivals ─▶ drive: open loop ─▶ an appender ─▶ device ─▶ log of writes ─▶ analyse ─▶ report
//!   seeded      due times           graven, or     disk,      start, end,      histograms   table, JSON, CSV,
//!   schedule                        a reference    throttled  records          intervals    HTML, SVG
//!                                                  or model                    theory
//! ```
//!
//! Nothing is computed while a run is under way: appenders log when each write started and ended and which records were in it,
//! producers log when each record was due. All else follows from these two afterwards, exactly.
//!
//! [`compare`] sets the same machine's other appenders and audit daemons beside Graven.

pub mod analyse;
pub mod appender;
pub mod arrivals;
pub mod audit;
pub mod chart;
pub mod compare;
pub mod device;
pub mod drive;
pub mod experiment;
pub mod export;
pub mod figures;
pub mod graven;
pub mod machine;
pub mod process;
pub mod queue;
pub mod report;
pub mod seeds;
pub mod stats;
pub mod table;
pub mod theory;
pub mod units;
pub mod workload;
