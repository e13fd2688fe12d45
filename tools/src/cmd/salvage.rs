//! `graven salvage`.

use crate::escape;
use crate::exit::Exit;
use crate::output;
use crate::recording::open::parse_bytes;
use crate::salvage::{self, Salvaged, Step};
use crate::verify::Verdict;
use crate::verify::report::Root;
use crate::verify::text::count;
use anstyle::Style;
use serde::Serialize;
use std::io::{self, Write};
use std::path::PathBuf;

/// Version of the JSON lines that `salvage --json` prints.
const SCHEMA_VERSION: u32 = 1;

/// Arguments of `graven salvage`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The damaged trail's directory
    pub dir: PathBuf,
    /// The directory of the new trail, which must not exist
    pub dest: PathBuf,
    /// Bytes of a segment of the new trail, 512K to 1G
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "64M")]
    pub segment_bytes: u64,
    /// Print what became of each old seq, as one JSON object a line
    #[arg(long)]
    pub json: bool,
}

const AFTER_HELP: &str = "\
Writes every intact record of DIR to a new trail in DEST, in order, byte for byte as its source gave it, with its times and the \
source's number. Each row of records that is missing or cannot be read becomes a loss statement: how many, and their seqs in DIR. \
The new trail is verified before it gets its name; until then it is called DEST.partial. Nothing in DIR is changed, no writer \
may run on it, and it remains the evidence: quarantine it first.

The new trail is another trail, with an id, seqs, a tree and signatures of its own. Checkpoints of DIR are signed over another \
tree, so they are not copied, but counted; they prove nothing of DEST. That a record is intact means that its checksum fits, not that nobody has \
written it anew: what `verify` says of DIR is said here too, and copying does not make it better.

--json prints objects with a `type`, in the order of DIR:
  copied       first, last, new_first: seq N of DIR is seq N - first + new_first of DEST
  lost         first, last, certainty, new_seq: stated by record new_seq of DEST
  checkpoints  first, last: not copied
  left-out     first, last: intact, but their seqs contradict other records; not copied
  summary      the last line; without it DEST was not made

Exit codes (the first that applies):
  1  intact records were left out because their seqs contradict others
  2  usage, not a trail, a running writer, DEST exists; or a part could not be read or is of a later format version, then DEST \
holds the rest and states the loss
  4  DEST holds every intact record, and states losses for the others
  0  DEST holds every record
  5  storage of DEST failed
  6  no room for DEST

Examples:
  graven salvage /mnt/evidence/trail-2026-11-24 /var/lib/graven/salvaged
  graven salvage --json DIR DEST | jq -c 'select(.type == \"lost\")'";

/// Salvages, and says what became of what.
#[must_use]
pub fn run(args: &Args) -> Exit {
    let mut out = output::raw();
    let mut written = Ok(());
    let salvaged = salvage::salvage(&args.dir, &args.dest, args.segment_bytes, &mut |step| {
        if args.json && written.is_ok() {
            written = output::json_line(&mut out, &Line::of(step));
        }
    });
    let done = match salvaged {
        Ok(done) => done,
        Err(failure) => {
            // What was printed is true of nothing; that there is no summary says so.
            let _ = out.flush();
            return failure.emit();
        }
    };
    let exit = done.exit();
    let written = written.and_then(|()| {
        if args.json {
            output::json_line(&mut out, &Summary::of(&done))?;
            out.flush()
        } else {
            print(args, &done)
        }
    });
    output::ended(written, exit)
}

/// One step as a line of JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Line {
    Copied { first: u64, last: u64, new_first: u64 },
    Lost { first: u64, last: u64, certainty: &'static str, new_seq: u64 },
    Checkpoints { first: u64, last: u64 },
    LeftOut { first: u64, last: u64 },
}

impl Line {
    fn of(step: Step) -> Self {
        // No step is empty.
        let last = |first: u64, count: u64| first + (count - 1);
        match step {
            Step::Copied { first, count, new_first } => {
                Self::Copied { first, last: last(first, count), new_first }
            }
            Step::Lost { first, count, at_least, new_seq } => {
                let certainty = if at_least { "at-least" } else { "exactly" };
                Self::Lost { first, last: last(first, count), certainty, new_seq }
            }
            Step::Checkpoints { first, count } => {
                Self::Checkpoints { first, last: last(first, count) }
            }
            Step::LeftOut { first, count } => Self::LeftOut { first, last: last(first, count) },
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "summary")]
struct Summary<'a> {
    schema_version: u32,
    exit_code: u8,
    trail: &'a str,
    trail_id: Option<&'a str>,
    /// What `verify` says of it.
    verdict: Verdict,
    copied: u64,
    lost: u64,
    loss_statements: u64,
    checkpoints: u64,
    left_out: u64,
    /// Segments and frames that could not be read, or are of a later version.
    unread: u64,
    /// Intact records after the end that were never announced: no part of the trail.
    unannounced: u64,
    dest: &'a str,
    dest_id: Option<&'a str>,
    dest_verdict: Verdict,
    dest_root: Option<&'a Root>,
}

impl<'a> Summary<'a> {
    fn of(done: &'a Salvaged) -> Self {
        let counts = done.counts;
        Self {
            schema_version: SCHEMA_VERSION,
            exit_code: done.exit().code(),
            trail: &done.old.trail,
            trail_id: done.old.trail_id.as_deref(),
            verdict: done.old.verdict,
            copied: counts.copied,
            lost: counts.lost,
            loss_statements: counts.statements,
            checkpoints: counts.checkpoints,
            left_out: counts.left_out,
            unread: counts.unread,
            unannounced: done.old.records.unannounced,
            dest: &done.new.trail,
            dest_id: done.new.trail_id.as_deref(),
            dest_verdict: done.new.verdict,
            dest_root: done.new.root.as_ref(),
        }
    }
}

fn print(args: &Args, done: &Salvaged) -> io::Result<()> {
    let mut out = io::BufWriter::new(anstream::stdout().lock());
    let strong = Style::new().bold();
    let mut fact = |name: &str, text: String| writeln!(out, "{strong}{name:<12}{strong:#}{text}");
    let (counts, old, new) = (done.counts, &done.old, &done.new);
    let id = |id: &Option<String>| id.clone().unwrap_or_else(|| "unknown".to_owned());
    fact("trail", format!("{}, id {}, {}", old.trail, id(&old.trail_id), old.verdict.words()))?;
    fact("copied", count(counts.copied, "record"))?;
    if counts.lost > 0 {
        let statements = count(counts.statements, "loss statement");
        fact("lost", format!("{}, said in {statements}", count(counts.lost, "record")))?;
    }
    if counts.checkpoints > 0 {
        let checkpoints = count(counts.checkpoints, "checkpoint");
        fact("not copied", format!("{checkpoints}: they are signed over the old trail"))?;
    }
    if old.records.unannounced > 0 {
        let records = count(old.records.unannounced, "record");
        fact("in doubt", format!("{records} after the end, never announced: not copied"))?;
    }
    if counts.left_out > 0 {
        let records = count(counts.left_out, "intact record");
        fact("left out", format!("{records}: their seqs contradict others; `--json` lists them"))?;
    }
    if counts.unread > 0 {
        let parts = count(counts.unread, "part");
        fact("not read", format!("{parts}: `graven verify` says which and why"))?;
    }
    fact("new trail", format!("{}, id {}, {}", new.trail, id(&new.trail_id), new.verdict.words()))?;
    if let Some(root) = &new.root {
        fact("root", format!("{} over {}", root.hash, count(root.size, "record")))?;
    }
    fact("next", format!("graven verify {}", escape::path(&args.dest)))?;
    out.flush()
}
