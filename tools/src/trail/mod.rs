//! A trail as the tools see it: a directory that is read, and never written or locked.

pub mod dir;
pub mod ends;
pub mod live;
pub mod notes;
pub mod scan;
pub mod segment;
pub mod stream;
pub mod tail;
mod tiles;

pub use dir::{OpenError, SegmentFile, TrailDir};
pub use live::Writer;
