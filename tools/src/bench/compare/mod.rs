//! `graven bench compare`: the same workload through Graven and through what else is installed, in turn, in one run.
//!
//! ```text
//! library  producers ─▶ Graven · SQLite · RocksDB · Redis · rsyslog · journal ─▶ read back, record by record ─▶ report
//! netlink  a storm of openat ─▶ the kernel ─▶ graven record · auditd · auditd with LAUREL ─▶ events by serial ─┘
//! ```
//!
//! Rivals are programs that this one starts on files of its own and ends. In each round all of them run one after the other on the
//! same filesystem, so that ratios hold while the machine's speed drifts.

pub mod graven;
pub mod lab;
pub mod library;
pub mod load;
pub mod netlink;
pub mod python;
pub mod records;
pub mod redis;
pub mod report;
pub mod rival;
pub mod syslog;
pub mod table;
