//! `graven verify`.

use crate::cmd::key;
use crate::diag::Diagnostic;
use crate::escape;
use crate::exit::Exit;
use crate::output;
use crate::range::SeqRange;
use crate::time;
use crate::trail::OpenError;
use crate::verify::anchors::{self, ANCHORS_MAX, Anchor, FILE_BYTES_MAX};
use crate::verify::scope::Asked;
use crate::verify::witnesses::Trusted;
use crate::verify::{self, Options, Report, text};
use graven_format::cosignature::WitnessKey;
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
    /// The trail's directory, or segments that are in one directory
    #[arg(required = true, value_name = "DIR|FILE.seg")]
    pub paths: Vec<PathBuf>,
    /// Check only the segments that hold these records: A..B (without B), A..=B, A.., ..B, or A alone
    #[arg(long, value_name = "RANGE")]
    pub seq: Option<SeqRange>,
    /// Check only from this time on: RFC 3339, or a date, or a date and a time, in UTC
    ///
    /// Sealed segments of which the trailer says that all records are older are not checked.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub since: Option<u64>,
    /// The directory holds a part of the trail: what is not in it is said and is no damage
    ///
    /// Copies of some segments, or a trail whose oldest were removed on purpose. Segments given as files are a part always.
    #[arg(long)]
    pub part: bool,
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
    /// The key of a witness whose cosignatures on these checkpoints count, or @FILE that holds it; may be given more than
    /// once
    ///
    /// Written name+id+base64, as the witness publishes it. The report says how many records of this trail each has seen, and
    /// when. A checkpoint that it has cosigned counts even without a signature of the trail's own key: the copy that a
    /// witness hands out has none.
    #[arg(long, value_name = "VKEY", value_parser = key::parse_witness, requires = "checkpoint")]
    pub witness_key: Vec<WitnessKey>,
    /// How many of these witnesses must have seen the trail; default 1
    #[arg(long, value_name = "N", requires = "witness_key")]
    pub witnesses: Option<NonZero<usize>>,
    /// Threads that read; default: one a core, at most 32
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZero<usize>>,
}

const AFTER_HELP: &str = "\
Reads every byte of the trail and checks every checksum, the order and chain of frames and segments, and the \
Merkle tree over all records, and the signatures of all checkpoints. Writes nothing and takes no lock, so it works beside a running writer.

Signatures prove as much as the key that is trusted: give it with --key. Whoever has the machine has the key that signs now, \
and can write a new end of the trail from the last change of keys on; checkpoints kept elsewhere (--checkpoint) show that.

A checkpoint may be cosigned by witnesses (see `graven checkpoint`). With --witness-key their cosignatures are verified, and one that is forged is an error. What a witness has seen last it hands out itself, under the SHA-256 of the trail's origin, which is graven/ and its id: that shows a rollback even if no copy was kept.

With --seq or --since only the segments that hold the range are read, whole, and how the two beside them join: their \
headers and trailers. The report says what was not checked. Damage in these segments counts wherever it is in them; loss statements count \
only in the range. The last two segments are always checked together.

Of a part (--part, or segments as files) it is said whether each segment is intact, has the tree that it states, and joins those that \
are there. That segments are missing before, between or after them cannot be known from it and is no damage; the end of an unsealed one \
that is torn cannot be judged: exit code 2.

The serials of the kernel's audit records are counted: those that are neither in the trail nor stated as lost, between a \
session's first marker and its last, are source gaps.

After damage the report lists which records can still be proven: those whose hashes lead to the root in an intact trailer, checkpoint or \
header.

A file whose name no trail has is reported and changes no exit code, unless it is a segment of this trail under \
another name.

Exit codes (the first that applies):
  1  damage or tampering was found
  2  could not check: usage, I/O, permission, not a trail, a later format version, not in what is there, too few
     witnesses
  4  intact, but loss statements or source gaps are in range
  3  intact, but ends in a torn tail that was never announced durable
  0  complete and intact, or what was asked for is

Examples:
  graven verify /var/lib/graven/trail
  graven verify --key @trail.vkey --checkpoint kept.notes /var/lib/graven/trail
  graven verify --checkpoint cosigned.note --witness-key @w1.vkey --witness-key @w2.vkey --witnesses 2 DIR
  curl https://w.example/$(printf graven/1021…fe0f | sha256sum | cut -c-64)/checkpoint > last.note
  graven verify --since 2026-03-01 /var/lib/graven/trail
  graven verify --seq 918000..=918222 /var/lib/graven/trail
  graven verify 0000000000000007-00000000000e02cf.seg
  graven verify --part /mnt/evidence
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
fn verify_with_progress(args: &Args, anchors: &[Anchor]) -> Result<Report, OpenError> {
    let read_bytes = AtomicU64::new(0);
    let range = (args.seq.is_some() || args.since.is_some())
        .then(|| Asked { seqs: args.seq.clone().unwrap_or(SeqRange::ALL).0, since_ns: args.since });
    let options = Options {
        threads: args.threads,
        range: range.as_ref(),
        part: args.part,
        durable: args.durable,
        key: args.key.as_ref(),
        anchors,
        witnesses: Trusted {
            keys: &args.witness_key,
            needed: match args.witness_key[..] {
                [] => 0,
                _ => args.witnesses.map_or(1, NonZero::get),
            },
        },
        progress: Some(&read_bytes),
    };
    let verify = || match &args.paths[..] {
        [dir] if !is_file(dir) => verify::verify(dir, &options),
        files => verify::verify_files(files, &options),
    };
    // How much of it a range takes is known when it has been read.
    let total_bytes = if range.is_some() { 0 } else { args.paths.iter().map(|it| bytes(it)).sum() };
    if args.quiet || !io::stderr().is_terminal() || total_bytes < PROGRESS_BYTES_MIN {
        return verify();
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
        let report = verify();
        done.store(true, Ordering::Release);
        if let Ok(painter) = painter {
            painter.thread().unpark();
        }
        report
    })
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file())
}

/// Bytes of the file, or of all files in the directory: only for the bar, so what cannot be read counts
/// nothing.
fn bytes(path: &Path) -> u64 {
    if let Ok(meta) = path.metadata()
        && meta.is_file()
    {
        return meta.len();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}
