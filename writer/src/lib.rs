//! The writer of a Graven audit trail: sources feed a bounded ring, one engine thread turns it
//! into frames, the disk makes them durable, and the watermark says up to where.

pub mod clock;
pub mod codec;
pub mod dir;
pub mod disk;
pub mod engine;
pub mod error;
pub mod hash;
pub mod keeper;
pub mod keys;
pub mod losses;
pub mod own;
pub mod policy;
pub mod retention;
pub mod rewrite;
pub mod ring;
mod room;
pub mod source;
mod trail;

pub use engine::checkpoints::{Checkpoints, Ended, Published};
pub use engine::durability::{WaitError, Watermark};
pub use engine::metrics::{Counts, Latencies, SegmentInUse, Totals};
pub use engine::{Compress, OnFull};
pub use error::{OpenError, WriteError};
pub use room::{Room, RoomChange};
pub use trail::{
    Asker, CHECKPOINT_DEFAULT, CheckpointError, EPOCH_DEFAULT, EPOCH_SEGMENTS_DEFAULT, Exempt,
    IN_FLIGHT_DEFAULT, Observer, Opened, Options, RING_BYTES_DEFAULT, RING_BYTES_MAX,
    RING_BYTES_MIN, Summary, Ticket, Trail,
};
