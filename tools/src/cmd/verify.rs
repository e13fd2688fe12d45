//! `graven verify`.

use crate::cmd::key;
use crate::diag::Diagnostic;
use crate::escape;
use crate::exit::Exit;
use crate::output;
use crate::verify::anchors::{self, ANCHORS_MAX, Anchor, FILE_BYTES_MAX};
use crate::verify::{self, Options, Report, text};
use graven_format::note::PublicKey;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A trail that is smaller is checked before a bar could be read.
const PROGRESS_BYTES_MIN: u64 = 512 * 1024 * 1024;

/// Arguments of `graven verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The trail's directory
    pub dir: PathBuf,
    /// Print the report as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Print nothing; the exit code tells
    #[arg(long, short, conflicts_with = "json")]
    pub quiet: bool,
    /// A seq that is known to have been announced durable: the trail must reach it
    ///
    /// A trail whose last segments were removed as whole files looks like a shorter trail. Who has kept a number that
    /// `graven record --ack` printed can find that out.
    #[arg(long, value_name = "SEQ")]
    pub durable: Option<u64>,
    /// The key that the trail must begin with, or @FILE that holds it
    ///
    /// Later keys follow from it. Without it the trail's own first key is used, which whoever can write to the disk can replace
    /// with everything that it has signed.
    #[arg(long, value_name = "KEY", value_parser = key::parse)]
    pub key: Option<PublicKey>,
    /// A file of checkpoints of this trail that was kept elsewhere; may be given more than once
    ///
    /// Any number of notes, one behind the other. The trail must be the one that they were made of: what was removed from its end, or
    /// replaced, is found even if the whole trail was signed again.
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Vec<PathBuf>,
    /// Threads that read; default: one a core, at most 32
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZero<usize>>,
}

const AFTER_HELP: &str = "\
Reads every byte of the trail and checks every checksum, the order and chain of frames and segments, and the \
Merkle tree over all records, and the signatures of all checkpoints. Writes nothing and takes no lock, so it works beside a running writer.

Signatures prove as much as the key that is trusted: give it with --key. Whoever has the machine has the key that signs now, \
and can write a new end of the trail from the last change of keys on; checkpoints kept elsewhere (--checkpoint) show that.

A file whose name no trail has is reported and changes no exit code, unless it is a segment of this trail under \
another name.

Exit codes (the first that applies):
  1  damage or tampering was found
  2  could not check: usage, I/O, permission, not a trail, a later format version
  4  intact, but loss statements are in range
  3  intact, but ends in a torn tail that was never announced durable
  0  complete and intact

Examples:
  graven verify /var/lib/graven/trail
  graven verify --key @trail.vkey --checkpoint kept.notes /var/lib/graven/trail
  graven verify --json /var/lib/graven/trail | jq .verdict
  graven verify --quiet --durable 918222 /var/lib/graven/trail || page-someone";

/// Verifies, prints the report, and returns what it says.
#[must_use]
pub fn run(args: &Args) -> Exit {
    let anchors = match read_anchors(&args.checkpoint) {
        Ok(anchors) => anchors,
        Err(why) => {
            why.emit();
            return Exit::CannotCheck;
        }
    };
    match verify_with_progress(args, &anchors) {
        Ok(report) => output::ended(print(args, &report), report.verdict.exit()),
        Err(why) => {
            Diagnostic::error(why.to_string()).help(why.help()).emit();
            Exit::CannotCheck
        }
    }
}

/// The checkpoints in these files.
fn read_anchors(files: &[PathBuf]) -> Result<Vec<Anchor>, Diagnostic> {
    let mut all = Vec::new();
    for path in files {
        let name = escape::path(path);
        let wrong = |what: String| Err(Diagnostic::error(what).at(name.clone()));
        let mut bytes = Vec::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        if let Err(why) = read {
            return wrong(format!("cannot read the checkpoints: {why}"));
        }
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return wrong(format!("a file of checkpoints is at most {FILE_BYTES_MAX} bytes long"));
        }
        match anchors::parse(&name, &bytes) {
            Ok(found) if found.is_empty() => return wrong("there is no checkpoint in it".into()),
            Ok(found) if all.len() + found.len() > ANCHORS_MAX => {
                return wrong(format!("there are at most {ANCHORS_MAX} checkpoints at once"));
            }
            Ok(found) => all.extend(found),
            Err(why) => return wrong(format!("not a row of checkpoints: {why}")),
        }
    }
    Ok(all)
}

fn print(args: &Args, report: &Report) -> io::Result<()> {
    if args.quiet {
        return Ok(());
    }
    if args.json {
        let mut out = output::raw();
        output::json_line(&mut out, report)?;
        return out.flush();
    }
    let mut out = io::BufWriter::new(anstream::stdout().lock());
    text::write(report, &mut out)?;
    out.flush()
}

/// Verifies, with a bar on standard error if that is a terminal and the trail is large.
fn verify_with_progress(
    args: &Args,
    anchors: &[Anchor],
) -> Result<Report, crate::trail::OpenError> {
    let read_bytes = AtomicU64::new(0);
    let options = Options {
        threads: args.threads,
        durable: args.durable,
        key: args.key.as_ref(),
        anchors,
        progress: Some(&read_bytes),
    };
    let total_bytes = trail_bytes(&args.dir);
    if args.quiet || !io::stderr().is_terminal() || total_bytes < PROGRESS_BYTES_MIN {
        return verify::verify(&args.dir, &options);
    }
    let done = AtomicBool::new(false);
    let bar = ProgressBar::new(total_bytes);
    if let Ok(style) =
        ProgressStyle::with_template("verify {bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
    {
        bar.set_style(style);
    }
    std::thread::scope(|scope| {
        let paint = || {
            while !done.load(Ordering::Acquire) {
                bar.set_position(read_bytes.load(Ordering::Relaxed));
                std::thread::park_timeout(Duration::from_millis(100));
            }
            bar.finish_and_clear();
        };
        // Without another thread there is no bar, and nothing else.
        let painter = std::thread::Builder::new().spawn_scoped(scope, paint);
        let report = verify::verify(&args.dir, &options);
        done.store(true, Ordering::Release);
        if let Ok(painter) = painter {
            painter.thread().unpark();
        }
        report
    })
}

/// Bytes of all files in the directory: only for the bar, so what cannot be read counts nothing.
fn trail_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}
