//! What the bytes of a Graven audit trail mean.
//!
//! This crate turns bytes into records and findings, and records into bytes. It performs no
//! I/O, reads no clock and holds no `unsafe` code, so that recovery, verification, search,
//! export and fuzzing all use the one reader in it: [`scan`].
//!
//! A trail is a directory of segments ([`name`]). A segment is a header ([`segment`]), frames
//! ([`frame`]) of records ([`record`]), and once it is sealed a trailer ([`trailer`]). Records
//! are the leaves of one Merkle tree ([`merkle`]), whose roots are signed ([`note`]), and are proven
//! by it ([`proof`]). What a crash leaves is put in order by a decision table ([`recovery`]).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bytes;
pub mod checksum;
pub mod codec;
pub mod consts;
pub mod cosignature;
pub mod error;
pub mod finding;
pub mod frame;
pub mod identity;
pub mod key_file;
pub mod kind;
pub mod lines;
pub mod loss;
pub mod merkle;
pub mod name;
pub mod note;
pub mod proof;
pub mod record;
pub mod recovery;
pub mod scan;
pub mod segment;
pub mod session;
mod sha256;
pub mod signer;
pub mod trailer;

pub use error::FormatError;
pub use finding::{Class, Finding, FindingKind};
pub use record::{Flags, Record, Source};
pub use segment::TrailId;
