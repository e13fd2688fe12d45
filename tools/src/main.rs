//! `graven`: see the library for everything but the start.

use clap::Parser as _;
use graven_tools::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(Cli::parse().command.run())
}
