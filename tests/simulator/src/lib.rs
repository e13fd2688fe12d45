//! The deterministic crash simulator: lives of a trail on a simulated disk, whose writers die at
//! any moment, and an oracle that knows every record.
//!
//! One seed is one life. From it follow the options, every record's bytes, the order of
//! completions, the moments of crashes, what they leave, and which operations fail. The engine,
//! the ring and recovery are the real ones; the disk, the clock and the producers are not.

mod campaign;
mod clock;
mod content;
mod lies;
mod life;
mod oracle;
mod plan;
mod rng;
mod session;
mod stage;
mod stats;

pub use campaign::{campaign, describe, report};
pub use lies::Lie;
pub use life::{Failure, Summary, live};
pub use plan::Plan;
pub use stats::Stats;
