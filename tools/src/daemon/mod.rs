//! What makes recording a daemon: what it is told by signals and what it says of itself, what it asks of the kernel,
//! and what it gives up.

pub mod control;
pub mod notify;
pub mod process;
pub mod records;
pub mod reload;
pub mod rules;
pub mod rules_file;
pub mod shim;
pub mod who;
