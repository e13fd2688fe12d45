//! `graven status`.

use crate::diag::Diagnostic;
use crate::escape;
use crate::exit::Exit;
use crate::output;
use crate::status::client::{self, AskError};
use crate::status::snapshot::{Grade, SCHEMA};
use crate::status::text;
use crate::time;
use crate::trail::scan::How;
use crate::trail::tail::Tail;
use crate::trail::{TrailDir, Writer, ends, live};
use anstyle::Style;
use serde::Serialize;
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// Arguments of `graven status`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The trail's directory
    pub dir: PathBuf,
    /// Print one object of JSON
    #[arg(long, conflicts_with = "metrics")]
    pub json: bool,
    /// Print the metrics as OpenMetrics text, for a collector that runs this command
    #[arg(long)]
    pub metrics: bool,
}

const AFTER_HELP: &str = "\
Asks the writer that runs on the trail, at the socket `control` in its directory; only its user and root may. If none \
runs, it says so from the trail's lock, and says how the trail ends. The first line says how it is; nothing in the trail \
is read while a writer runs, and nothing is ever changed.

The exit codes are those of checks for Nagios, Icinga and their kin, so that the command is one as it stands:
  0  ok: a writer runs, and nothing stands against it
  1  warning: a writer runs, and somebody should look: losses were stated, producers wait, keys, checkpoints
  2  critical: no writer runs, or it does not make records durable: no room, storage failed; or audit is off
  3  unknown: usage, not a trail, no permission, or a writer runs and does not answer

Conditions:
  disk_error          critical  storage failed, and the writer ends
  disk_full           critical  there is no room for the next segment; what was accepted waits
  audit_off           critical  somebody has switched the kernel's audit off under the writer
  ring_full           warning   producers have waited for a second or more
  upstream_loss       warning   loss statements were written since the writer began
  kernel_backlog      warning   the kernel's queue is nine tenths full or more
  frozen              warning   the keeper has frozen producers until there is room
  keys                warning   the change of keys cannot go on
  checkpoint_overdue  warning   no checkpoint covers new records for ten intervals and ten seconds more

Examples:
  graven status /var/lib/graven/trail
  graven status /var/lib/graven/trail --json | jq .lag
  graven status /var/lib/graven/trail --metrics";

/// How long a lock may outlive its writer before that is taken for one that runs.
const ENDING_TIME: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How the command ended: as checks are expected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// A writer runs, and nothing stands against it.
    Ok = 0,
    /// Somebody should look.
    Warning = 1,
    /// No writer runs, or records do not become durable.
    Critical = 2,
    /// It is not known; usage errors too.
    Unknown = 3,
}

impl Health {
    fn of(grade: Grade) -> Self {
        match grade {
            Grade::Ok => Self::Ok,
            Grade::Warning => Self::Warning,
            Grade::Critical => Self::Critical,
        }
    }
}

/// Prints the status, and returns what the process ends with.
#[must_use]
pub fn run(args: &Args) -> u8 {
    told(args) as u8
}

fn told(args: &Args) -> Health {
    let Some(dir) = super::open(&args.dir) else { return Health::Unknown };
    let Some(writer) = dir.writer else { return at_rest(args, &dir) };
    match running(args) {
        Ok(health) => health,
        Err(why) if has_ended(args, &why) => match super::open(&args.dir) {
            Some(dir) => at_rest(args, &dir),
            None => Health::Unknown,
        },
        Err(why) => {
            say_silent(args, writer, &why);
            Health::Unknown
        }
    }
}

/// Prints what the running writer tells.
fn running(args: &Args) -> Result<Health, AskError> {
    let mut out = output::raw();
    if args.metrics {
        let text = client::metrics(&args.dir)?;
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        return Ok(ended(written, Health::Ok));
    }
    let snapshot = client::status(&args.dir)?;
    let health = Health::of(snapshot.grade);
    let written = if args.json {
        output::json_line(&mut out, &snapshot).and_then(|()| out.flush())
    } else {
        drop(out);
        text::write(&mut anstream::stdout().lock(), &snapshot)
    };
    Ok(ended(written, health))
}

fn ended(written: io::Result<()>, health: Health) -> Health {
    match output::ended(written, Exit::Success) {
        Exit::Success => health,
        _ => Health::Unknown,
    }
}

/// Whether the writer has ended. Its lock may be held for a moment longer by its last writes.
fn has_ended(args: &Args, why: &AskError) -> bool {
    let begun = Instant::now();
    let may_have = matches!(why, AskError::Io(why) if why.kind() != io::ErrorKind::TimedOut);
    loop {
        if live::writer_of(&args.dir).is_none() {
            return true;
        }
        if !may_have || begun.elapsed() > ENDING_TIME {
            return false;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// A writer runs, and does not tell.
fn say_silent(args: &Args, writer: Writer, why: &AskError) {
    let who = writer.pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
    let help = match why {
        AskError::Io(why) if why.kind() == io::ErrorKind::PermissionDenied => {
            "the trail's owner and root may ask: run this as one of them"
        }
        AskError::Io(why) if is_nobody(why) => {
            "it may be just beginning or ending, be of an earlier version, or have said at its start \
             why it cannot be asked"
        }
        _ => "try again; `graven verify` reads the trail itself",
    };
    Diagnostic::error(format!("a writer runs{who}, and does not tell its status: {why}"))
        .at(escape::path(&args.dir))
        .help(help)
        .emit();
}

/// Whether nobody is at the socket.
fn is_nobody(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// A trail that nobody writes to.
#[derive(Debug, Serialize)]
struct AtRest {
    schema: u32,
    running: bool,
    trail: String,
    trail_id: Option<String>,
    /// How the end is, in the words of recovery; none if it cannot be read.
    end: Option<&'static str>,
    /// Why the last segment was sealed, if it is.
    sealed: Option<&'static str>,
    sealed_at: Option<String>,
    /// Records of the trail, if the end could be read.
    records: Option<u64>,
    segments: usize,
    #[serde(skip)]
    text: String,
}

/// Says that no writer runs, and what the trail's end says.
fn at_rest(args: &Args, dir: &TrailDir) -> Health {
    if args.metrics {
        Diagnostic::error("no writer runs, so there are no metrics")
            .at(escape::path(&args.dir))
            .help("start `graven record`")
            .emit();
        return Health::Critical;
    }
    let rest = AtRest::read(dir);
    let written = if args.json {
        output::json_line(&mut output::raw(), &rest)
    } else {
        rest.write(&mut anstream::stdout().lock())
    };
    ended(written, Health::Critical)
}

impl AtRest {
    fn read(dir: &TrailDir) -> Self {
        let mut rest = Self {
            schema: SCHEMA,
            running: false,
            trail: escape::path(&dir.path),
            trail_id: dir.trail_id().map(|id| id.to_string()),
            end: None,
            sealed: None,
            sealed_at: None,
            records: None,
            segments: dir.segments.len(),
            text: "cannot be read: see `graven verify`".to_owned(),
        };
        rest.sealed_end(dir);
        if rest.end.is_none() {
            rest.other_end(dir);
        }
        rest
    }

    /// An end that is sealed says all with its trailer.
    fn sealed_end(&mut self, dir: &TrailDir) {
        let last = dir.segments.last();
        let trailer = last
            .and_then(|last| dir.open_segment(last).ok())
            .and_then(|file| ends::trailer(&file).ok()?.ok());
        let Some((trailer, _)) = trailer else { return };
        let sealed_at = time::rfc3339(trailer.sealed_realtime_ns);
        let records = trailer.first_seq + trailer.tally.record_count;
        let reason = trailer.reason.name();
        self.text = format!("sealed ({reason}) at {sealed_at}, with {records} records");
        (self.end, self.sealed, self.records) = (Some("sealed"), Some(reason), Some(records));
        self.sealed_at = Some(sealed_at);
    }

    /// Any other is what recovery would find.
    fn other_end(&mut self, dir: &TrailDir) {
        let tail = Tail::read(dir, false, How::default());
        match tail.decision {
            None => {}
            Some(Ok(decision)) => {
                let (label, records) = (decision.label.name(), tail.end_seq);
                self.text = if dir.segments.is_empty() {
                    "it has no record yet".to_owned()
                } else {
                    format!(
                        "not sealed ({label}): its writer died, with {records} records; the next start seals it"
                    )
                };
                (self.end, self.records) = (Some(label), Some(records));
            }
            Some(Err(_)) => {
                self.end = Some("damaged");
                self.text =
                    "damaged: see `graven verify`; recovery refuses to write over it".to_owned();
            }
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let (color, strong) = (text::style(Grade::Critical), Style::new().bold());
        writeln!(out, "{color}{:<10}{color:#}no writer runs", "critical")?;
        writeln!(out, "{strong}{:<10}{strong:#}{}", "end", self.text)?;
        writeln!(out, "{strong}{:<10}{strong:#}{}", "segments", self.segments)?;
        writeln!(out, "{strong}{:<10}{strong:#}{}", "trail", self.trail)
    }
}
