//! `graven doctor`.

use crate::exit::Exit;
use std::path::PathBuf;

/// Arguments of `graven doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A trail's directory, or the place where one is to be
    #[arg(long, value_name = "DIR")]
    pub trail: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Looks and reports.
#[must_use]
pub fn run(_args: &Args) -> Exit {
    Exit::Success
}
