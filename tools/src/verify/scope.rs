//! What of a trail is checked: all of it, the segments that hold a range, or a part that is all there is.
//!
//! A range is asked for; the trail is there, and what is missing from it is damage. A part is what
//! somebody has of a trail: single segments, or a directory without some of them. What is not in it
//! is said, and is no damage.

use crate::time::rfc3339;
use crate::trail::segment::{self, SegmentRead};
use crate::trail::tail::Tail;
use crate::trail::{SegmentFile, TrailDir, ends};
use crate::verify::problems::Problems;
use crate::verify::report::{Class, Problem};
use crate::verify::{Options, Read};
use serde::Serialize;
use std::ops::Range;

/// Most spans of segments that are listed.
const SPANS_MAX: usize = 10_000;

/// The records that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Their seqs; `0..u64::MAX` for all.
    pub seqs: Range<u64>,
    /// Only those of this time and later, nanoseconds since 1970.
    pub since_ns: Option<u64>,
}

impl Asked {
    /// Whether a record is asked for.
    #[must_use]
    pub fn contains(&self, seq: u64, realtime_ns: u64) -> bool {
        self.seqs.contains(&seq) && self.since_ns.is_none_or(|since| realtime_ns >= since)
    }
}

/// What a report is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The whole trail.
    #[default]
    Trail,
    /// The segments that hold what was asked for, and how their neighbours join them.
    Range,
    /// The segments that are there; the rest of the trail is elsewhere.
    Part,
}

/// What was checked, and what was not.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Scope {
    /// What the report is about.
    pub kind: Kind,
    /// The seqs that were asked for: from the first up to, without, the second; `null` for all.
    pub seqs: Option<Range<u64>>,
    /// The time from which on records were asked for.
    pub since: Option<String>,
    /// Segments that were read whole, in rows without a gap.
    pub checked: Vec<Span>,
    /// Neighbours of these, of which only header and trailer were read.
    pub joined: Vec<String>,
    /// What was not checked. In a whole trail nothing: what is missing there is a problem.
    pub not_checked: Vec<Span>,
    /// The trail's beginning, if retention has removed it as a record in the trail says: no problem.
    pub removed: Option<Removed>,
    /// Whether the end of the trail was checked. That of a part cannot be: more may follow.
    pub end_checked: bool,
    /// Rows of segments that are not listed.
    pub left_out: u64,
}

/// The beginning of a trail, which is not there any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// The number of its first segment.
    pub first_segment: u64,
    /// The number of its last segment.
    pub last_segment: u64,
    /// One past the seq of its last record: the first that is there.
    pub end_seq: u64,
    /// The seq of the record that says so.
    pub stated_by: u64,
    /// When that was recorded.
    pub time: String,
}

/// A row of segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// The number of its first segment.
    pub first_segment: u64,
    /// The number of its last segment; `null` if that is not known.
    pub last_segment: Option<u64>,
    /// The seq of its first record.
    pub seq: u64,
    /// One past the seq of its last record; `null` if that is not known.
    pub end_seq: Option<u64>,
}

/// Which segments are read, and how.
pub(crate) struct Plan {
    /// Those that are read before the end, by their place in the directory's list.
    pub(crate) older: Range<usize>,
    /// Whether the end of what is there is read.
    pub(crate) tail: bool,
    /// The segment before the first that is read, and the one after the last: their ends only.
    pub(crate) before: Option<Read>,
    pub(crate) after: Option<Read>,
}

impl Plan {
    /// The plan for what `options` ask of `dir`.
    pub(crate) fn new(dir: &TrailDir, options: &Options<'_>) -> Self {
        let count = dir.segments.len();
        let tail_from = count - Tail::len(dir);
        let chosen = options.range.filter(|_| count > 0).map_or(0..count, |it| choose(dir, it));
        // The last two are judged together, as recovery does.
        let tail = chosen.end > tail_from || count == 0;
        let (start, end) = if tail {
            (chosen.start.min(tail_from), tail_from)
        } else {
            (chosen.start, chosen.end)
        };
        let ends = |index: usize| {
            let file = dir.segments[index].clone();
            let read = segment::read_ends(dir, &file);
            (file, read)
        };
        Self {
            older: start..end,
            tail,
            before: start.checked_sub(1).map(ends),
            after: (!tail).then(|| ends(end)),
        }
    }
}

/// The segments that hold what is asked for, at least one.
fn choose(dir: &TrailDir, asked: &Asked) -> Range<usize> {
    let end_of = |index: usize| dir.segments.get(index + 1).map_or(u64::MAX, |next| next.first_seq);
    let holds = |index: &usize| {
        let (first, end) = (dir.segments[*index].first_seq, end_of(*index));
        first.max(asked.seqs.start) < end.min(asked.seqs.end)
    };
    let count = dir.segments.len();
    let mut start = (0..count).find(holds).unwrap_or(0);
    let end = (start..count).rev().find(holds).map_or(start + 1, |last| last + 1);
    if let Some(since) = asked.since_ns {
        // A clock may have been set back: nothing after the first that is not older is left out.
        while start + 1 < end && is_older(dir, &dir.segments[start], since) {
            start += 1;
        }
    }
    start..end
}

/// Whether the segment's trailer says that all its records are older than this.
fn is_older(dir: &TrailDir, file: &SegmentFile, since_ns: u64) -> bool {
    let trailer = dir.open_segment(file).and_then(|file| ends::trailer(&file));
    trailer.is_ok_and(|trailer| {
        trailer.is_ok_and(|(trailer, _)| {
            trailer.segment == file.segment && trailer.tally.realtime_max_ns < since_ns
        })
    })
}

impl Scope {
    /// Of nothing that was read yet.
    pub(crate) fn new(options: &Options<'_>, plan: &Plan) -> Self {
        let asked = options.range;
        let seqs = asked.map(|asked| asked.seqs.clone()).filter(|seqs| *seqs != (0..u64::MAX));
        Self {
            kind: match asked {
                _ if options.part => Kind::Part,
                Some(_) => Kind::Range,
                None => Kind::Trail,
            },
            since: asked.and_then(|asked| asked.since_ns).map(rfc3339),
            end_checked: plan.tail && !options.part,
            seqs,
            ..Self::default()
        }
    }

    /// Adds a segment that was read whole and ends before `end_seq`.
    pub(crate) fn read(&mut self, read: &SegmentRead, end_seq: u64) {
        let (number, first_seq) = (read.file.segment, read.file.first_seq);
        if let Some(span) = self.checked.last_mut()
            && span.last_segment.and_then(|last| last.checked_add(1)) == Some(number)
            && span.end_seq == Some(first_seq)
        {
            (span.last_segment, span.end_seq) = (Some(number), Some(end_seq));
        } else if self.checked.len() < SPANS_MAX {
            let (last_segment, end_seq) = (Some(number), Some(end_seq));
            self.checked.push(Span {
                first_segment: number,
                last_segment,
                seq: first_seq,
                end_seq,
            });
        } else {
            self.left_out += 1;
        }
    }

    /// Says what was not checked, once everything has been read of which `end_seq` is the end; a
    /// range that was asked for and is not there is a problem.
    pub(crate) fn end(&mut self, options: &Options<'_>, end_seq: u64, problems: &mut Problems) {
        if let Some(asked) = options.range.filter(|_| !problems.has(Class::Damage)) {
            self.missing(asked, end_seq).into_iter().for_each(|it| problems.push(it));
        }
        if let Some(seq) = options.durable.filter(|_| !self.end_checked) {
            let message = format!("whether the trail reaches seq {seq} was not checked");
            let problem = Problem::new(Class::Unchecked, "durable", message).at(end_seq, 0);
            problems.push(problem.help("verify the whole trail with --durable"));
        }
        if self.kind == Kind::Trail {
            return;
        }
        let (mut segment, mut seq) = (Some(0), 0);
        for span in &self.checked {
            if let Some(first) = segment.filter(|first| *first < span.first_segment) {
                self.not_checked.push(Span {
                    first_segment: first,
                    last_segment: Some(span.first_segment - 1),
                    seq,
                    end_seq: Some(span.seq),
                });
            }
            segment = span.last_segment.and_then(|last| last.checked_add(1));
            seq = span.end_seq.unwrap_or(seq);
        }
        if let Some(first_segment) = segment.filter(|_| !self.end_checked) {
            self.not_checked.push(Span { first_segment, last_segment: None, seq, end_seq: None });
        }
    }

    /// The first seq that was asked for and is not among those that were read.
    fn missing(&self, asked: &Asked, end_seq: u64) -> Option<Problem> {
        let Range { start, end } = asked.seqs;
        let mut at = start;
        if let (Some(_), Some(first)) = (asked.since_ns, self.checked.first()) {
            at = at.max(first.seq);
        }
        for span in &self.checked {
            if span.seq <= at {
                at = at.max(span.end_seq.unwrap_or(0));
            }
        }
        // Who asks for all from a seq on asks for no end.
        let short = if end == u64::MAX { at > end_seq && start > end_seq } else { at < end };
        short.then(|| {
            let message = match self.kind {
                Kind::Part => {
                    format!("seq {at} was asked for and is not in this part of the trail")
                }
                _ => format!("seq {at} was asked for, and the trail ends at seq {end_seq}"),
            };
            Problem::new(Class::Unchecked, "range", message).at(at, 0).help(
                "ask for a range that is there; `graven verify` of all of it says where it ends",
            )
        })
    }

    /// Whether a tree of so many records ends in what was checked, or after the end of the trail.
    #[must_use]
    pub fn covers(&self, size: u64) -> bool {
        if self.removed.as_ref().is_some_and(|removed| size < removed.end_seq) {
            return false;
        }
        let within = |span: &Span| (span.seq..=span.end_seq.unwrap_or(u64::MAX)).contains(&size);
        let after =
            self.checked.last().is_none_or(|last| last.end_seq.is_some_and(|end| end < size));
        self.kind == Kind::Trail || self.checked.iter().any(within) || self.end_checked && after
    }

    /// Whether the places of a checkpoint over so many records were read: that over what is before a row of
    /// segments may stand in the trailer before them.
    #[must_use]
    pub fn has_note_place(&self, size: u64) -> bool {
        let begins = self.removed.as_ref().is_some_and(|removed| removed.end_seq == size);
        self.kind == Kind::Trail && !begins || self.checked.iter().all(|span| span.seq != size)
    }

    /// The seq from which on records were read, and where they end.
    #[must_use]
    pub fn seqs_checked(&self) -> Option<Range<u64>> {
        let (first, last) = (self.checked.first()?, self.checked.last()?);
        Some(first.seq..last.end_seq?)
    }
}
