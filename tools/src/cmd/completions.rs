//! `graven completions`.

use crate::cli::Cli;
use crate::exit::Exit;
use crate::output;
use clap::CommandFactory as _;
use std::io::Write as _;

/// Arguments of `graven completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The shell
    pub shell: clap_complete::Shell,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  the script was printed
  2  usage

Examples:
  graven completions bash > /usr/share/bash-completion/completions/graven
  graven completions fish > ~/.config/fish/completions/graven.fish";

/// Prints the script.
#[must_use]
pub fn run(args: &Args) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "graven", &mut script);
    let mut out = output::raw();
    let written = out.write_all(&script).and_then(|()| out.flush());
    output::ended(written, Exit::Success)
}
