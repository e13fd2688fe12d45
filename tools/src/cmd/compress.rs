//! `graven compress`.

use crate::diag::{Diagnostic, Level};
use crate::escape;
use crate::exit::Exit;
use crate::recording::sealed;
use graven_writer::codec::LEVELS;
use graven_writer::rewrite::{LEVEL_DEFAULT, RewriteError, Rewriter, Rewritten};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Arguments of `graven compress`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The trail's directory
    pub dir: PathBuf,
    /// Zstandard level, 1 to 19: higher is smaller and slower
    #[arg(long, value_name = "LEVEL", default_value_t = LEVEL_DEFAULT, value_parser = level_range())]
    pub level: i32,
    /// Say only what goes wrong
    #[arg(long, short)]
    pub quiet: bool,
}

const AFTER_HELP: &str = "\
Rewrites each sealed segment compressed. Records, sequences, hashes and roots stay what they are, so every proof and \
every checkpoint still holds. A segment is verified first, written to a temporary, read back, compared, and only then \
replaced; a crash leaves one file or the other, whole. What is damaged is left as it is and said.

The last segment of a trail is never touched, so this works beside a running writer. `graven record` does the same by \
itself. A segment that was rewritten, or would not become smaller, is left alone. Needs room for one segment more.

Exit codes:
  0  every sealed segment but the last is compressed, or would not become smaller
  1  a segment is damaged, or did not read back as it was written; it is as it was, the others were compressed
  2  it could not be done: usage, I/O, permission, not a trail, another process compresses this trail

Examples:
  graven compress /var/lib/graven/trail
  graven compress --level 19 /archive/2026-11";

fn level_range() -> clap::builder::RangedI64ValueParser<i32> {
    clap::value_parser!(i32).range(i64::from(*LEVELS.start())..=i64::from(*LEVELS.end()))
}

/// What a run has done.
#[derive(Default)]
struct Done {
    rewritten: u64,
    before: u64,
    after: u64,
}

/// Compresses a trail's sealed segments.
#[must_use]
pub fn run(args: &Args) -> Exit {
    let mut done = Done::default();
    let exit = match compress(args, &mut done) {
        Ok(exit) => exit,
        Err(error) => {
            sealed::diagnostic(&error).emit();
            Exit::CannotCheck
        }
    };
    if !args.quiet {
        let Done { rewritten, before, after } = done;
        let title = format!("{rewritten} segments compressed: {before} bytes became {after}");
        Diagnostic::new(Level::Note, title).at(escape::path(&args.dir)).emit();
    }
    exit
}

fn compress(args: &Args, done: &mut Done) -> Result<Exit, RewriteError> {
    if let Err(why) = crate::trail::TrailDir::open(&args.dir) {
        Diagnostic::error(why.to_string()).help(why.help()).emit();
        return Ok(Exit::CannotCheck);
    }
    let mut rewriter = Rewriter::new(&args.dir, args.level)?;
    let segments = rewriter.segments()?;
    let mut exit = Exit::Success;
    for pair in segments.windows(2) {
        match rewriter.rewrite(&pair[0], &pair[1], &mut || ControlFlow::Continue(())) {
            Ok(Rewritten::Smaller { before, after }) => {
                done.rewritten += 1;
                done.before += before;
                done.after += after;
            }
            Ok(Rewritten::NotSettled) => {
                let file = escape::path(&args.dir.join(pair[0].name()));
                Diagnostic::warning("a segment was left alone: what follows does not name its end")
                    .at(file)
                    .help("run `graven verify` to learn whether the trail is damaged")
                    .emit();
            }
            Ok(_) => {}
            // The system's refusal would meet the next segment too.
            Err(error @ (RewriteError::Io { .. } | RewriteError::Busy(_))) => return Err(error),
            Err(error) => {
                sealed::diagnostic(&error).emit();
                exit = Exit::Damage;
            }
        }
    }
    Ok(exit)
}
