//! The deterministic crash simulator: lives of a trail on a simulated disk, whose writers die at
//! any moment, and an oracle that knows every record.
//!
//! One seed is one life. From it follow the options, every record's bytes, the order of
//! completions, the moments of crashes, what they leave, and which operations fail. The engine,
//! the ring and recovery are the real ones; the disk, the clock and the producers are not.
//!
//! # A life
//!
//! A life is a few writers, one after the other, on one disk. Each opens what the last one left,
//! appends, and ends: by a power cut, by a kill, by an error of the disk, by a lack of room, or
//! as it was asked. The first two come at any submission, any completion, any step of a producer,
//! also in recovery and in closing: what would be left is put aside at that moment, and the
//! writer goes on without knowing that nobody will see it. Up to three futures of one moment are
//! looked at.
//!
//! # What is judged
//!
//! After every end, before anybody puts it in order: every announced record is there, once, in
//! order, byte for byte; nothing is there that was not accepted; no unannounced tail reads as
//! damage. After every recovery, by the bytes that a power cut would leave: all of that, and every
//! segment is sealed, flawless and linked to the one before it. While a writer lives: the watermark
//! never goes back, a sleep that nothing would end is a failure, so is a session that needs more
//! than fifty steps a record, and a failed writer stays failed. A flipped bit is refused, found,
//! or was where the disk had nothing that it knew to be announced.
//!
//! Three of four lives are signed. Then every checkpoint and every trailer is signed by the key of its
//! place, as the segments' headers and the successors in the trail tell it; what was published is there
//! after every end; and the files of keys, whatever a crash has left of them, hold the key that can go
//! on.
//!
//! # What is not
//!
//! Threads: producers are one, and the ring's own model checks the others. Errors of reads and of
//! listings. A filesystem that goes on after a failed sync of its directory: journals that fail
//! are dead until the next mount, so a power cut follows. A bit that flips in the last announced
//! frame, which nothing later on the disk names: it cannot be told from a write that was cut off,
//! and only a checkpoint kept elsewhere can tell.

mod campaign;
mod clock;
mod content;
mod keys;
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
