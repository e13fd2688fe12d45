//! The end of a trail, judged as recovery judges it.
//!
//! Recovery looks at the last segment, and at the one before it while that is not sealed. Every
//! command that reads a trail uses the same table, so that what is shown or exported is what stays when
//! the writer starts again.

use crate::trail::dir::{SegmentFile, TrailDir};
use crate::trail::scan::How;
use crate::trail::segment::{self, SegmentRead};
use graven_format::recovery::{self, Decision, Found, Refusal};
use std::io;

/// The end of a trail.
#[derive(Debug)]
pub struct Tail {
    /// The last segment, and before it the one before that if it was read.
    pub segments: Vec<(SegmentFile, io::Result<SegmentRead>)>,
    /// How many of the last segments are at the end: not sealed, or with none after them.
    pub at_end: usize,
    /// What recovery would do; `None` if a segment at the end could not be read.
    pub decision: Option<Result<Decision, Refusal>>,
    /// Records from this seq on are not part of the trail: they were never announced, and recovery
    /// removes them. All are part of it if recovery refuses.
    pub end_seq: u64,
}

impl Tail {
    /// How many segments [`Tail::read`] reads.
    #[must_use]
    pub fn len(dir: &TrailDir) -> usize {
        Self::files(dir).map_or(0, |(before, _)| 1 + usize::from(before.is_some()))
    }

    /// An end that is not looked at: nothing is known of it.
    #[must_use]
    pub fn not_read() -> Self {
        Self { segments: Vec::new(), at_end: 0, decision: None, end_seq: u64::MAX }
    }

    /// The last segment, and the one before it if no number is missing between them.
    fn files(dir: &TrailDir) -> Option<(Option<&SegmentFile>, &SegmentFile)> {
        let (last, older) = dir.segments.split_last()?;
        let before = older.last().filter(|file| file.segment.checked_add(1) == Some(last.segment));
        Some((before, last))
    }

    /// Reads the end of the trail. The last segment is read first: all that it says was announced
    /// is then on disk when the one before it is read.
    #[must_use]
    pub fn read(dir: &TrailDir, merkle: bool, how: How<'_>) -> Self {
        let Some((before_file, last_file)) = Self::files(dir) else {
            let decision = Some(recovery::decide(None, None));
            return Self { segments: Vec::new(), at_end: 0, decision, end_seq: 0 };
        };
        let last = segment::read_settled(dir, last_file, merkle, how);
        let before =
            before_file.map(|file| (file.clone(), segment::read_settled(dir, file, merkle, how)));

        let found = |read: &io::Result<SegmentRead>| read.as_ref().ok().map(SegmentRead::found);
        let (before_found, last_found): (Option<Found>, Option<Found>) =
            (before.as_ref().and_then(|(_, read)| found(read)), found(&last));
        let decision = match (&before, &before_found, &last_found) {
            (Some(_), None, _) | (_, _, None) => None,
            (_, before, last) => Some(recovery::decide(before.as_ref(), last.as_ref())),
        };
        // If recovery refuses, the segment before the last is one in the middle, and damaged.
        let orphan = matches!(&decision, Some(Ok(decision)) if decision.remove_orphan);
        let at_end = 1 + usize::from(orphan);
        let kept = if orphan { &before_found } else { &last_found };
        let end_seq = match (&decision, kept) {
            (Some(Ok(_)), Some(kept)) => kept.outcome.prefix.next_seq,
            _ => u64::MAX,
        };
        let mut segments: Vec<_> = before.into_iter().collect();
        segments.push((last_file.clone(), last));
        Self { segments, at_end, decision, end_seq }
    }
}
