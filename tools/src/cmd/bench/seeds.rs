//! `graven bench seeds`.

use super::{Common, watched, write_file};
use crate::bench::seeds::Condition;
use crate::bench::seeds::experiment::{self, Plan};
use crate::bench::seeds::table;
use crate::bench::units;
use crate::diag::Diagnostic;
use crate::exit::Exit;
use crate::output;
use std::io::{BufWriter, Write as _};
use std::time::Duration;

/// Arguments of `graven bench seeds`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Seeds {
    /// Where, and into which file.
    #[command(flatten)]
    pub common: Common,
    /// Conditions: off, on, rules, discard, auditd, auditd-data, auditd-sync, graven, shim-rules, shim
    ///
    /// off is always measured: the others are compared with it.
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        default_value = "off,on,rules,discard,auditd,auditd-data,graven,shim-rules,shim"
    )]
    pub condition: Vec<Condition>,
    /// How long each call is made for, in each round
    #[arg(long, value_name = "TIME", default_value = "150ms", value_parser = units::duration)]
    pub seconds: Duration,
    /// Rounds, in each of which all conditions take turns
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub repetitions: u16,
    /// C files that the build compiles; 0 leaves the build out
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub files: u16,
    /// Whose calls are audited: a user id that nobody has, and no rule but ours is for. Ten rules are for the ten ids behind it
    #[arg(long, value_name = "UID", default_value_t = 64_123, value_parser = clap::value_parser!(u32).range(1..=4_294_967_200))]
    pub uid: u32,
}

const AFTER_HELP: &str = "\
Each round runs the workload under every condition, as a process of a test user for whom alone the rules are: system calls as lmbench \
measures them (getppid; the mean of a read from /dev/zero and a write to /dev/null, a byte each; stat; open and close; fork, fork and exec, \
fork and sh -c), then the compilation of a C project that is made up. Beside the figures stand those of Rik Faith's mail of 2 March 2004, \
where it has any.

  off          kernel audit off: tasks have no audit context
  on           kernel audit on, a daemon, no rules
  rules        ten rules that are looked at for each call and fit none
  discard      every call recorded, received and thrown away
  auditd       every call recorded, auditd RAW, INCREMENTAL_ASYNC: to a file, not durable
  auditd-data  every call durable: flush=DATA
  auditd-sync  every call durable: flush=SYNC
  graven       every call durable: graven record --source netlink
  shim-rules   ten rules of Graven's kernel module that fit no call
  shim         every call durable: graven record --source shim

It needs root, a kernel whose audit is not locked, and that neither a daemon nor a rule is there. What cannot be had is named with the \
reason in place of figures: without root there is `off` alone, and it is the machine as it is. Kernel audit is put back as it was found \
after each run, and on SIGINT, SIGTERM and SIGHUP; SIGKILL leaves it as it is then. With the defaults it takes less than three minutes.

Exit codes:
  0    measured: each cell is a figure, or says why there is none
  2    usage, I/O, no room, or kernel audit could not be put back
  130, 143, 129   interrupted by SIGINT, SIGTERM or SIGHUP

Examples:
  graven bench seeds
  graven bench seeds --dir /var/lib/graven --json seeds.json
  graven bench seeds --condition graven,auditd-sync --repetitions 9 --seconds 500ms
  graven bench seeds --files 0 --condition shim-rules,shim";

/// Measures and writes what was asked for.
///
/// # Errors
/// What to say.
pub(super) fn run(args: &Seeds) -> Result<Exit, Diagnostic> {
    let plan = Plan {
        dir: args.common.dir.clone(),
        conditions: args.condition.clone(),
        seconds: args.seconds,
        repetitions: args.repetitions.into(),
        uid: args.uid,
        files: args.files.into(),
    };
    for (at, condition) in plan.conditions.iter().enumerate() {
        if plan.conditions[..at].contains(condition) {
            return Err(Diagnostic::error(format!("the condition {condition} is there twice"))
                .help("name each once"));
        }
    }
    let report = watched(|stop, progress| experiment::run(&plan, stop, progress))?;
    write_file(args.common.json.as_deref(), |out| output::json_line(out, &report))?;
    let mut out = BufWriter::new(anstream::stdout().lock());
    let written = table::write(&report, &mut out).and_then(|()| out.flush());
    Ok(output::ended(written, Exit::Success))
}
