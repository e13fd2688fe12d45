//! Compressing what was sealed: what there is to say of it, and the thread beside a recording.

use crate::diag::Diagnostic;
use crate::escape;
use graven_writer::Trail;
use graven_writer::rewrite::{Background, RewriteError, Told};
use std::path::Path;

/// What a person should know about a segment that was not compressed.
#[must_use]
pub fn diagnostic(error: &RewriteError) -> Diagnostic {
    let left = "the segment is as it was";
    match error {
        RewriteError::Io { operation, path, source } => {
            Diagnostic::error(format!("cannot {operation} {}: {source}", escape::path(path)))
                .note("no segment was changed by this")
                .help("compressing needs room for one segment more, and to own the trail")
        }
        RewriteError::Damaged { path, finding } => {
            Diagnostic::error(format!("cannot compress a damaged segment: {finding}"))
                .at(format!(
                    "{}: offset {:#x}, seq {}",
                    escape::path(path),
                    finding.offset,
                    finding.seq
                ))
                .note(left)
                .help("run `graven verify` to learn what is still good")
        }
        RewriteError::Format { path, source } => {
            Diagnostic::error(format!("cannot compress a damaged segment: {source}"))
                .at(escape::path(path))
                .note(left)
                .help("run `graven verify` to learn what is still good")
        }
        RewriteError::Differs { path, what } => {
            Diagnostic::error(format!("the compressed copy does not read back: its {what} differs"))
                .at(escape::path(path))
                .note("the copy was removed; the segment is as it was")
                .help("check the memory and the disk of this machine")
        }
        RewriteError::Busy(path) => {
            Diagnostic::error("another process compresses this trail").at(escape::path(path))
        }
    }
}

/// Starts to compress, in the background, what the writer of the trail in `dir` seals. Without
/// a thread segments stay as they are, and it is said.
#[must_use]
pub fn in_background(dir: &Path, trail: &Trail, level: i32) -> Option<Background> {
    let tell = |told: Told| match told {
        Told::Segment(..) => {}
        Told::Failed(_, error) | Told::Ended(error) => {
            diagnostic(&error).note("recording goes on, and is not touched by this").emit();
        }
    };
    let started = Background::start(dir.to_owned(), level, trail.producers_wait(), tell);
    started
        .inspect_err(|why| {
            Diagnostic::warning(format!("sealed segments are not compressed: no thread: {why}"))
                .help("run `graven compress` later")
                .emit();
        })
        .ok()
}
