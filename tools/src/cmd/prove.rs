//! `graven prove`.

use crate::diag::Diagnostic;
use crate::escape;
use crate::exit::Exit;
use crate::output;
use crate::prove::{self, Goal, ProveError};
use crate::trail::TrailDir;
use crate::verify::anchors::{self, Anchor, FILE_BYTES_MAX};
use graven_format::proof::text::Document;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Arguments of `graven prove`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The trail's directory
    pub dir: PathBuf,
    /// Prove that the record of this seq is in the trail
    #[arg(long, value_name = "SEQ", required_unless_present = "from")]
    pub seq: Option<u64>,
    /// Prove it in the tree over so many records
    ///
    /// In a signed trail there must be a checkpoint of exactly so many. Without it: the newest checkpoint of the sealed
    /// segments, or of all if those do not reach the record; in a trail that is not signed, all records
    /// of the sealed segments, or all that are durable.
    #[arg(long, value_name = "RECORDS", requires = "seq", conflicts_with = "from")]
    pub size: Option<u64>,
    /// Prove that the tree over so many records is the beginning of a later one: records were only added
    #[arg(long, value_name = "RECORDS", conflicts_with = "seq", value_parser = clap::value_parser!(u64).range(1..))]
    pub from: Option<u64>,
    /// The later tree's number of records; by default as for --size
    #[arg(long, value_name = "RECORDS", requires = "from", conflicts_with = "seq")]
    pub to: Option<u64>,
    /// End the proof with the last checkpoint in this file, with all its cosignatures
    ///
    /// A file of one or more checkpoints of this trail, as `graven checkpoint` or a witness gave them: the proof is in the
    /// tree of the last one.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["size", "to"])]
    pub checkpoint: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Writes the proof to standard output as text. A proof of a record holds the record itself, and `graven check-proof` \
checks it without the trail. It is a C2SP tlog-proof that ends with a checkpoint of the trail, a signed note. Who has \
the key that signed it needs nothing else: `graven keys` prints the keys. The proof of a trail that is not signed ends with the size and root alone; whoever checks \
it must know both from elsewhere, for instance as `graven verify` printed them when the trail was that long.

Reads the block of records that holds the record, and the trailers from its segment on. If the tree does not end \
with a segment, the block in which it ends is read too. Whether the rest of the trail is intact, and whether the \
note's signature is right, is not looked at: that is for `graven verify` and `graven check-proof` to say.

Exit codes:
  0  the proof was written
  1  something that the proof needs is damaged or missing
  2  usage, out of range, not a trail, or a part could not be read or is of a later format version

Examples:
  graven prove /var/lib/graven/trail --seq 918222 > record.tlog-proof
  graven prove /var/lib/graven/trail --seq 918222 --size 1000000 > record.tlog-proof
  graven prove /var/lib/graven/trail --seq 918222 --checkpoint cosigned.note > record.tlog-proof
  graven prove /var/lib/graven/trail --from 1000000 > grown.proof
  graven prove /var/lib/graven/trail --from 1000000 --to 2000000 > grown.proof";

/// Makes the proof and writes it.
#[must_use]
pub fn run(args: &Args) -> Exit {
    let (goal, size) = match (args.seq, args.from) {
        (Some(seq), _) => (Goal::Inclusion(seq), args.size),
        (None, Some(from)) => (Goal::Consistency(from), args.to),
        // Not reached: the command line asks for one of them.
        (None, None) => return Exit::CannotCheck,
    };
    let end = match args.checkpoint.as_deref().map(last_checkpoint).transpose() {
        Ok(end) => end,
        Err(why) => {
            why.emit();
            return Exit::CannotCheck;
        }
    };
    let size = end.as_ref().map(|end| end.head.size).or(size);
    let Some(dir) = super::open(&args.dir) else { return Exit::CannotCheck };
    if !matches!(dir.identity, Some(Ok(_))) {
        Diagnostic::warning(
            "the trail has no intact identity; the proof names the segments' trail",
        )
        .at(escape::path(&dir.path.join(graven_format::name::IDENTITY)))
        .emit();
    }
    let proven = prove::prove(&dir, goal, size).and_then(|document| match end {
        Some(end) if end.head != *document.head() => Err(ProveError::Elsewhere(end.head.size)),
        Some(end) => Ok(document.with_note(end.text)),
        None => Ok(document),
    });
    match proven {
        Ok(document) => output::ended(write(&document), Exit::Success),
        Err(why) => refuse(&dir, &why),
    }
}

/// The last of the checkpoints in a file.
fn last_checkpoint(path: &Path) -> Result<Anchor, Diagnostic> {
    let name = escape::path(path);
    let wrong = |what: String| Diagnostic::error(what).at(name.clone());
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|why| wrong(format!("cannot read the checkpoints: {why}")))?;
    let mut found = anchors::parse(&name, &bytes)
        .map_err(|why| wrong(format!("not a row of checkpoints: {why}")))?;
    found.pop().ok_or_else(|| wrong("there is no checkpoint in it".to_owned()))
}

fn write(document: &Document) -> io::Result<()> {
    let mut out = output::raw();
    write!(out, "{document}")?;
    out.flush()
}

fn refuse(dir: &TrailDir, why: &ProveError) -> Exit {
    let error = Diagnostic::error(why.to_string());
    let path = |file: &crate::trail::SegmentFile| escape::path(&dir.path.join(file.name()));
    let (error, exit) = match why {
        ProveError::OutOfRange { .. } => {
            let error = match dir.writer {
                Some(_) => error.note("a writer is running: what it adds can be proven later"),
                None => error,
            };
            (error.help("`graven verify` says how long the trail is"), Exit::CannotCheck)
        }
        ProveError::NoCheckpoint(_) => {
            let error = error.note("the trail is signed: a proof without a signature proves less");
            let help =
                "the next checkpoint will cover it; without --size or --to the newest one is taken";
            (error.help(help), Exit::CannotCheck)
        }
        ProveError::Damage { file, offset, unsupported, .. } => {
            let error = error
                .at(format!("{}: offset {offset:#x}", path(file)))
                .note("a proof needs this place; others may still be made")
                .help(
                    "`graven verify` lists what is damaged; --size or --to proves in a tree \
                     that ends before it",
                );
            (error, if *unsupported { Exit::CannotCheck } else { Exit::Damage })
        }
        ProveError::Elsewhere(_) => (error, Exit::Damage),
        ProveError::Unreadable { file, why } => {
            // As in `show`: what is no file at all where a segment should be is damage.
            let grave = why.kind() == io::ErrorKind::InvalidInput;
            (error.at(path(file)), if grave { Exit::Damage } else { Exit::CannotCheck })
        }
    };
    error.emit();
    exit
}
