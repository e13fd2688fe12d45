//! What `record` and `run` share: opening a trail for writing, saying what went wrong, signals, and
//! acknowledgements.

pub mod ack;
pub mod actions;
pub mod beside;
pub mod checkpoints;
pub mod child;
pub mod descendants;
pub mod failure;
pub mod forward;
pub mod housekeeping;
pub mod kernel;
pub mod listen;
pub mod module;
pub mod open;
pub mod retention;
pub mod room;
pub mod sealed;
pub mod self_test;
pub mod shim;
pub mod signals;
pub mod space;
pub mod summary;
pub mod system;
pub mod witnesses;

pub use failure::Failure;
pub use open::TrailArgs;
pub use space::SpaceArgs;
