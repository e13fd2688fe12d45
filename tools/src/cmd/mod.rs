//! One module a subcommand: its arguments, its help, and `run`.

pub mod bench;
pub mod check_proof;
pub mod checkpoint;
pub mod completions;
pub mod compress;
pub mod config;
pub mod doctor;
pub mod export;
mod key;
pub mod keygen;
pub mod keys;
pub mod man;
pub mod prove;
pub mod quarantine;
mod reading;
pub mod record;
pub mod run;
pub mod salvage;
pub mod shim;
pub mod show;
pub mod status;
pub mod verify;
pub mod watch;

use crate::diag::Diagnostic;
use crate::trail::TrailDir;
use std::path::Path;

/// The trail in `path`; why there is none was said.
fn open(path: &Path) -> Option<TrailDir> {
    TrailDir::open(path)
        .map_err(|why| Diagnostic::error(why.to_string()).help(why.help()).emit())
        .ok()
}
