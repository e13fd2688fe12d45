//! `graven bench compare`.

use super::{Common, watched, write_file};
use crate::bench::audit::Logging;
use crate::bench::compare::lab::{self, Plan};
use crate::bench::compare::records::{NUMBER_BYTES, PRODUCERS_MAX};
use crate::bench::compare::report::State;
use crate::bench::compare::rival::{Family, Path as Way, Rival};
use crate::bench::compare::table;
use crate::bench::units;
use crate::bench::workload::Sizes;
use crate::diag::Diagnostic;
use crate::exit::Exit;
use crate::output;
use std::io::{BufWriter, Write as _};
use std::time::Duration;

/// Records that are acknowledged together at most: one transaction's.
const GROUP_MAX: i64 = 100_000;

/// Arguments of `graven bench compare`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Compare {
    /// Where, and into which file.
    #[command(flatten)]
    pub common: Common,
    /// Whom to set beside Graven
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        default_value = "sqlite,rocksdb,redis,rsyslog,journald,auditd,laurel"
    )]
    pub rival: Vec<Family>,
    /// The ways that records take
    #[arg(
        long,
        value_name = "PATH,...",
        value_delimiter = ',',
        default_value = "library,netlink,shim"
    )]
    pub path: Vec<Way>,
    /// How auditd writes, as FORMAT:FLUSH; all eight by default
    #[arg(long, value_name = "FORMAT:FLUSH,...", value_delimiter = ',')]
    pub auditd: Vec<Logging>,
    /// Bytes of a record on the library path, or trail:DIR for the sizes of a trail's records
    #[arg(long, value_name = "BYTES", default_value = "300", value_parser = size)]
    pub size: Sizes,
    /// Threads that produce on the library path
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=i64::from(PRODUCERS_MAX)))]
    pub producers: u16,
    /// Records that a producer hands over, and that are acknowledged, together, beside one by one
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(2..=GROUP_MAX))]
    pub group: u32,
    /// How long each run goes on
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration)]
    pub seconds: Duration,
    /// Rounds: in each, all run in turn
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rounds: u16,
}

const AFTER_HELP: &str = "\
On the path `library`, producers hand records over in a closed loop: each waits for its record (each), or for a group (group:N), or \
for nothing but room (stream). On the path `netlink`, two processes of a test uid open a file as fast as they can, and the kernel's audit \
hands the events to its daemon; that takes root, and a machine without audit daemon and rules. Of each it is said what it promises, \
and which barrier is behind it. Afterwards what it has is read back, and every record is compared with the one that was sent.

Rivals are programs that are installed: python3 with its module sqlite3 and librocksdb.so, redis-server, rsyslogd, systemd-journald, \
auditd, laurel. Each runs with a configuration and files of its own and is ended; what runs on this machine is not touched. One that is \
not installed is reported as such. With all of them and the defaults it takes about five minutes. The directory of the runs is removed \
at the end, and kernel audit put back, on SIGINT, SIGTERM and SIGHUP too. See docs/comparison.md for what the figures say.

Exit codes:
  0    measured what is installed, and everything that was asked for is written
  2    usage, I/O, no room, or a rival failed, or had what was not sent
  130, 143, 129   interrupted by SIGINT, SIGTERM or SIGHUP

Examples:
  graven bench compare
  graven bench compare --path library --rival sqlite,redis --seconds 5s --rounds 5 --json compare.json
  graven bench compare --path library --size trail:/var/lib/graven/trail --producers 1
  graven bench compare --path netlink --rival auditd --auditd raw:incremental_async,enriched:sync";

/// Records carry their number.
fn size(text: &str) -> Result<Sizes, String> {
    match text.parse()? {
        Sizes::Fixed(bytes) if bytes < NUMBER_BYTES => {
            Err(format!("a record has {NUMBER_BYTES} bytes at least: it carries its number"))
        }
        sizes => Ok(sizes),
    }
}

pub(super) fn run(args: &Compare) -> Result<Exit, Diagnostic> {
    let plan = Plan {
        dir: args.common.dir.clone(),
        families: once(&args.rival),
        paths: once(&args.path),
        auditd: if args.auditd.is_empty() { Rival::auditd_all() } else { once(&args.auditd) },
        sizes: args.size.clone(),
        producers: args.producers.into(),
        group: args.group as usize,
        length: args.seconds,
        rounds: args.rounds.into(),
    };
    let report = watched(|stop, progress| lab::run(&plan, stop, progress))?;
    write_file(args.common.json.as_deref(), |out| output::json_line(out, &report))?;
    let mut out = BufWriter::new(anstream::stdout().lock());
    let written = table::write(&report, &mut out).and_then(|()| out.flush());
    let failed = report.rows.iter().any(|it| matches!(it.state, State::Failed(_)));
    Ok(output::ended(written, if failed { Exit::CannotCheck } else { Exit::Success }))
}

/// Each once, in the order in which they are there.
fn once<T: Copy + PartialEq>(all: &[T]) -> Vec<T> {
    let mut out = Vec::new();
    for it in all {
        if !out.contains(it) {
            out.push(*it);
        }
    }
    out
}
