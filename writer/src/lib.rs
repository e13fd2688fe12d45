//! The writer of a Graven audit trail: sources feed a bounded ring, one engine thread turns it
//! into frames, the disk makes them durable, and the watermark says up to where.

pub mod clock;
pub mod dir;
pub mod disk;
pub mod engine;
pub mod error;
pub mod ring;
pub mod source;
