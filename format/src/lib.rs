//! What the bytes of a Graven audit trail mean.
//!
//! This crate turns bytes into records and findings, and records into bytes. It performs no
//! I/O, reads no clock and holds no `unsafe` code, so that recovery, verification, search,
//! export and fuzzing all use the one reader in it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod consts;
pub mod kind;
pub mod loss;
pub mod record;

pub use record::{Flags, Record, Source};
