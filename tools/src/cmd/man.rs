//! `graven man`.

use crate::cli::Cli;
use crate::diag::Diagnostic;
use crate::exit::Exit;
use crate::output;
use clap::CommandFactory as _;
use clap_mangen::Man;
use std::io::Write as _;
use std::path::PathBuf;

/// Arguments of `graven man`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Write one page a command into this directory instead
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  the pages were written
  2  usage, or a page cannot be written

Examples:
  graven man | man -l -
  graven man --out /usr/share/man/man1";

/// Prints or writes the pages.
#[must_use]
pub fn run(args: &Args) -> Exit {
    let Some(dir) = &args.out else {
        let mut command = Cli::command();
        // Gives the subcommands their full names.
        command.build();
        let mut out = output::raw();
        let written = Man::new(command).render(&mut out).and_then(|()| out.flush());
        return output::ended(written, Exit::Success);
    };
    match clap_mangen::generate_to(Cli::command(), dir) {
        Ok(()) => Exit::Success,
        Err(why) => {
            let dir = crate::escape::path(dir);
            Diagnostic::error(format!("cannot write to {dir}: {why}")).emit();
            Exit::CannotCheck
        }
    }
}
