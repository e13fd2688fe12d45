//! `graven`: see the library for everything but the start.

use clap::Parser as _;
use graven_tools::aside;
use graven_tools::cli::Cli;
use graven_tools::cmd;
use graven_tools::exit::Exit;
use std::process::ExitCode;

fn main() -> ExitCode {
    let code = match Cli::try_parse() {
        Ok(cli) => cli.command.run(),
        Err(error) => {
            let _ = error.print();
            // `run` ends with its command's exit codes, so its own failures are out of their way.
            // `status` ends as checks for monitoring do: what was not checked is unknown.
            let command = std::env::args_os().nth(1).unwrap_or_default();
            match command.to_str() {
                _ if !error.use_stderr() => Exit::Success.code(),
                Some("run") => Exit::RunFailed.code(),
                Some("status") => cmd::status::Health::Unknown as u8,
                _ => Exit::CannotCheck.code(),
            }
        }
    };
    aside::end();
    ExitCode::from(code)
}
