//! `graven export`.

use crate::cmd::reading;
use crate::diag::Diagnostic;
use crate::exit::Exit;
use crate::output;
use crate::range::SeqRange;
use crate::shim::audit;
use crate::shim::gather::Gatherer;
use graven_format::kind::{self, Kind};
use graven_format::{Flags, Record, Source};
use graven_shim_abi::decode::{self, Body};
use std::io::{self, Write};
use std::path::PathBuf;

/// Arguments of `graven export`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The trail's directory
    pub dir: PathBuf,
    /// How to write the records
    #[arg(long, value_enum, default_value_t = Format::Raw)]
    pub format: Format,
    /// Which records: A..B (without B), A..=B, A.., ..B, or A alone
    #[arg(long, value_name = "RANGE", default_value = "..", hide_default_value = true)]
    pub seq: SeqRange,
}

/// How to write the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// As the source gave them: lines for ausearch and aureport, or the lines of standard input
    Raw,
}

const AFTER_HELP: &str = "\
What came from the kernel is written as auditd writes it, `type=NAME msg=audit(…): …`, without the EOE records \
that auditd leaves out too; so is what came through auditd or by multicast, whose lines are as auditd made them. What \
came from standard input is written byte for byte, with the line feeds it had. The parts of a record of the kernel \
shim are written together, as the SYSCALL, EXECVE, SOCKADDR, CWD, PATH and PROCTITLE lines of one event. \
Graven's own records, such as loss statements, are lines of type DAEMON_ERR; checkpoints, which no source \
gave, are left out.

Exit codes:
  0  every record of the range was written
  1  damage was met; every intact record of the range was written
  2  usage, not a trail, or a part could not be read or is of a later format version

Examples:
  graven export /var/lib/graven/trail | ausearch -i -sc execve
  graven export /var/lib/graven/trail --seq 1000..2000 > part.log";

/// Writes the records.
#[must_use]
pub fn run(args: &Args) -> Exit {
    let Format::Raw = args.format;
    let mut raw = Raw::default();
    let exit = reading::run(&args.dir, &args.seq, &mut output::raw(), &mut raw);
    if raw.unreadable > 0 && matches!(exit, Exit::Success) {
        Diagnostic::error(format!(
            "{} records of source shim are no parts of records",
            raw.unreadable
        ))
        .note("each stands in the output as a DAEMON_ERR line, op=shim-unreadable, with its seq")
        .help("`graven show --json --seq SEQ` gives its bytes; a later version may read it")
        .emit();
        return Exit::CannotCheck;
    }
    exit
}

/// Records as their sources gave them; those of the shim, as audit would have.
#[derive(Default)]
struct Raw {
    gatherer: Gatherer,
    unreadable: u64,
}

impl reading::Printer for Raw {
    fn record(&mut self, out: &mut dyn Write, seq: u64, record: &Record<'_>) -> io::Result<()> {
        if record.source != Source::Shim {
            return write_raw(out, record);
        }
        match decode::parse(record.bytes) {
            Ok(part) if !matches!(part.body, Body::Unknown(_)) => {
                self.gatherer.take(record, &part, &mut |event| audit::write(out, event))
            }
            read => {
                self.unreadable += 1;
                audit::write_unreadable(out, seq, record, read.err())
            }
        }
    }

    fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.gatherer.end(&mut |event| audit::write(out, event))
    }
}

/// One record as its source gave it. Those of the shim, which are no text, are rendered and do not come here.
///
/// # Errors
/// What `out` says.
fn write_raw(out: &mut dyn Write, record: &Record<'_>) -> io::Result<()> {
    if record.flags.contains(Flags::CHECKPOINT) {
        return Ok(());
    }
    match record.source {
        Source::Netlink | Source::Shim | Source::Bpf | Source::Graven => {
            // The end of an event is said by the kernel and never written by auditd.
            if record.kind == kind::EOE {
                return Ok(());
            }
            write!(out, "type={} msg=", Kind(record.kind))?;
            out.write_all(record.bytes)?;
            out.write_all(b"\n")
        }
        // auditd gives it to its plugins, and leaves it out of its log as well.
        Source::Import if record.kind == kind::EOE => Ok(()),
        Source::Stdin | Source::Socket | Source::Import => {
            out.write_all(record.bytes)?;
            if record.flags.contains(Flags::UNTERMINATED) { Ok(()) } else { out.write_all(b"\n") }
        }
    }
}
