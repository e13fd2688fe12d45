//! `graven config`.

use crate::config::{import, read, text};
use crate::diag::Diagnostic;
use crate::escape;
use crate::exit::Exit;
use crate::output;
use std::io::Write as _;
use std::path::PathBuf;

/// Arguments of `graven config`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What `graven config` can do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Say what is wrong with a configuration
    Check {
        /// The file
        file: PathBuf,
    },
    /// Say what a key means, what it takes, its default, and when a change takes effect
    Explain {
        /// A key, with its section or without, or a section
        key: String,
    },
    /// Print a complete configuration in which every key stands with its default and what it means
    ShowDefault,
    /// Print the configuration that does what an auditd.conf says, and say what cannot be done
    ImportAuditd {
        /// auditd's configuration, as of auditd 3.0 to 4.2
        file: PathBuf,
    },
}

const AFTER_HELP: &str = "\
Exit codes:
  0  the file is right, or what was asked for was printed; for import-auditd also if some options have no \
counterpart, which is said
  2  usage, the file cannot be read, something in it is wrong (all of it is said, with file, line, key and what to \
do), or there is no such key

Examples:
  graven config show-default > /etc/graven/graven.toml
  graven config check /etc/graven/graven.toml
  graven config explain netlink.rules
  graven config import-auditd /etc/audit/auditd.conf > /etc/graven/graven.toml";

/// Does it.
#[must_use]
pub fn run(args: &Args) -> Exit {
    match &args.command {
        Command::Check { file } => match read::load(file) {
            Ok(_) => Exit::Success,
            Err(errors) => {
                errors.iter().for_each(|error| error.diagnostic(file).emit());
                Exit::CannotCheck
            }
        },
        Command::Explain { key } => {
            text::explain(key).map_or_else(|| unknown(key), |it| print(&it))
        }
        Command::ShowDefault => print(&text::sample()),
        Command::ImportAuditd { file } => import::run(file),
    }
}

fn unknown(key: &str) -> Exit {
    let sections = crate::config::Config::sections();
    let names: Vec<_> = match key.split_once('.') {
        Some((section, _)) if sections.iter().any(|(name, ..)| *name == section) => {
            let mut keys = Vec::new();
            for (name, _, of) in &sections {
                keys.extend(of.iter().filter(|_| *name == section).map(|key| key.name));
            }
            keys
        }
        Some(_) => sections.iter().map(|(name, ..)| *name).collect(),
        None => sections.iter().flat_map(|(.., keys)| keys.iter().map(|key| key.name)).collect(),
    };
    let last = key
        .split_once('.')
        .filter(|(section, _)| sections.iter().any(|(name, ..)| name == section));
    let wanted = last.map_or_else(|| key.split('.').next().unwrap_or(key), |(_, key)| key);
    Diagnostic::error(format!("there is no key `{}`", escape::Escaped(key.as_bytes())))
        .help(read::did_you_mean(wanted, &names))
        .emit();
    Exit::CannotCheck
}

/// Prints a text.
pub(crate) fn print(text: &str) -> Exit {
    let mut out = output::raw();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    output::ended(written, Exit::Success)
}
