//! `graven`: see the library for everything but the start.

use clap::Parser as _;
use graven_tools::cli::Cli;
use graven_tools::exit::Exit;
use std::process::ExitCode;

fn main() -> ExitCode {
    let code = match Cli::try_parse() {
        Ok(cli) => cli.command.run(),
        Err(error) => {
            let _ = error.print();
            // `run` ends with its command's exit codes, so its own failures are out of their way.
            let runs = std::env::args_os().nth(1).is_some_and(|command| command == "run");
            match (error.use_stderr(), runs) {
                (false, _) => Exit::Success.code(),
                (true, true) => Exit::RunFailed.code(),
                (true, false) => Exit::CannotCheck.code(),
            }
        }
    };
    ExitCode::from(code)
}
