//! What `record` and `run` share: opening a trail for writing, saying what went wrong, signals, and
//! acknowledgements.

pub mod ack;
pub mod failure;
pub mod open;
pub mod signals;

pub use failure::Failure;
pub use open::TrailArgs;
