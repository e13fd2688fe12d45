//! The pieces of the command `graven`: reading and judging trails ([`trail`], [`verify`]), proofs
//! about them ([`prove`]), and one module a subcommand ([`cmd`]).
//!
//! The command itself is a thin shell around this library, so that tests use the pieces directly.

pub mod aside;
pub mod bench;
pub mod cli;
pub mod cmd;
pub mod config;
pub mod daemon;
pub mod deliver;
pub mod diag;
pub mod doctor;
pub mod escape;
pub mod exit;
pub mod fresh;
pub mod kept;
pub mod keys;
pub mod output;
pub mod prove;
pub mod quarantine;
pub mod range;
pub mod recording;
pub mod salvage;
pub mod shim;
pub mod status;
pub mod time;
pub mod trail;
pub mod verify;
pub mod watch;
pub mod witness;
