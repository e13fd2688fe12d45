//! The command line, defined once: help, man pages and completions all come from here.

use crate::cmd;
use clap::builder::styling::{AnsiColor, Styles};
use clap::{Parser, Subcommand};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// An audit trail written straight to disk, that cannot lose a record without saying so
#[derive(Debug, Parser)]
#[command(name = "graven", version, styles = STYLES, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Data goes to standard output, everything else to standard error. Colours are used on a terminal only, and not at \
all if NO_COLOR is set. Each command's help ends with its exit codes.

Examples:
  graven run --trail /var/lib/graven/try -- make install
  graven verify /var/lib/graven/try
  graven show /var/lib/graven/try --seq 0..20";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Record what one command and everything that it starts do
    Run(cmd::run::Args),
    /// Record until the source ends: the daemon
    Record(Box<cmd::record::Args>),
    /// Check that a trail is complete and intact
    Verify(cmd::verify::Args),
    /// Print records for people, or as JSON lines
    Show(cmd::show::Args),
    /// Write records out exactly as their source gave them
    Export(cmd::export::Args),
    /// Write a proof that a record is in the trail, or that the trail only grew
    Prove(cmd::prove::Args),
    /// Check a proof, without the trail
    CheckProof(cmd::check_proof::Args),
    /// Print the keys that have signed a trail, each proven from the first
    Keys(cmd::keys::Args),
    /// Copy a damaged trail byte for byte, and compare the copy
    Quarantine(cmd::quarantine::Args),
    /// Write what is intact in a damaged trail as a new trail
    Salvage(cmd::salvage::Args),
    /// Compress a trail's sealed segments
    Compress(cmd::compress::Args),
    /// Load, look at and unload the kernel module
    Shim(cmd::shim::Args),
    /// Check, explain or make the configuration of the daemon
    Config(cmd::config::Args),
    /// Print a signed checkpoint of a trail, to be kept elsewhere
    Checkpoint(cmd::checkpoint::Args),
    /// Make the first key of a trail, and print the public key
    Keygen(cmd::keygen::Args),
    /// Say how the writer of a trail is; the exit codes are those of a check for monitoring
    Status(cmd::status::Args),
    /// Show the writer of a trail as it works
    Watch(cmd::watch::Args),
    /// Say what this machine offers for recording, and what stands in the way
    Doctor(cmd::doctor::Args),
    /// Measure how long records wait until they are durable, on this machine's disk
    #[command(subcommand)]
    Bench(cmd::bench::Bench),
    /// Print a completion script for a shell
    Completions(cmd::completions::Args),
    /// Print the manual, or write one page a command
    Man(cmd::man::Args),
}

impl Command {
    /// Runs it. What it returns is what the process ends with.
    #[must_use]
    pub fn run(self) -> u8 {
        match self {
            Self::Run(args) => cmd::run::run(&args),
            Self::Record(args) => cmd::record::run(&args).code(),
            Self::Verify(args) => cmd::verify::run(&args).code(),
            Self::Show(args) => cmd::show::run(&args).code(),
            Self::Export(args) => cmd::export::run(&args).code(),
            Self::Prove(args) => cmd::prove::run(&args).code(),
            Self::CheckProof(args) => cmd::check_proof::run(&args).code(),
            Self::Keys(args) => cmd::keys::run(&args).code(),
            Self::Quarantine(args) => cmd::quarantine::run(&args).code(),
            Self::Salvage(args) => cmd::salvage::run(&args).code(),
            Self::Compress(args) => cmd::compress::run(&args).code(),
            Self::Shim(args) => cmd::shim::run(&args).code(),
            Self::Config(args) => cmd::config::run(&args).code(),
            Self::Checkpoint(args) => cmd::checkpoint::run(&args).code(),
            Self::Keygen(args) => cmd::keygen::run(&args).code(),
            Self::Status(args) => cmd::status::run(&args),
            Self::Watch(args) => cmd::watch::run(&args).code(),
            Self::Doctor(args) => cmd::doctor::run(&args).code(),
            Self::Bench(bench) => cmd::bench::run(&bench).code(),
            Self::Completions(args) => cmd::completions::run(&args).code(),
            Self::Man(args) => cmd::man::run(&args).code(),
        }
    }
}
