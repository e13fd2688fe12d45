//! What `record` and `run` share: opening a trail for writing, saying what went wrong, signals, and
//! acknowledgements.

pub mod ack;
pub mod checkpoints;
pub mod child;
pub mod descendants;
pub mod failure;
pub mod forward;
pub mod kernel;
pub mod open;
pub mod room;
pub mod sealed;
pub mod signals;
pub mod summary;
pub mod witnesses;

pub use failure::Failure;
pub use open::TrailArgs;
