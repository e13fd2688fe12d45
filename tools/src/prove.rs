//! Proofs about a trail's tree, made from headers, trailers and the leaves of one segment.
//!
//! [`graven_format::proof`] says why that is enough. What is read of a trail:
//!
//! - the names of its segments, and the trailer of the last sealed one: where the sealed part ends;
//! - of the segment that holds the record (or the earlier tree's end): header and trailer, and the
//!   frames of the one block that holds it;
//! - of each later segment up to the size of the tree: the trailer;
//! - of the segment in which the tree ends, if it does not end with a segment: the frames of the block
//!   in which it ends;
//! - the end of the trail, only if the tree reaches into the segments that are not sealed;
//! - the checkpoint over the tree ([`notes`]), in a trailer as a rule.

use crate::trail::scan::How;
use crate::trail::tail::Tail;
use crate::trail::{SegmentFile, TrailDir, ends, segment};
use graven_format::finding::Class;
use graven_format::lines::{Head, origin};
use graven_format::merkle::Hash;
use graven_format::proof::text::Document;
use graven_format::proof::{Gather, Gathered};
use graven_format::trailer::Trailer;
use graven_format::{Finding, FormatError, TrailId};
use std::io;

mod leaves;
mod notes;

use leaves::Leaves;
use notes::Wish;

/// What is to be proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// That the record of this seq is in the tree.
    Inclusion(u64),
    /// That the tree begins with the tree of this size.
    Consistency(u64),
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The trail does not reach so far.
    #[error("{what} {asked} is out of range: {reach} {end} records")]
    OutOfRange {
        /// What was asked for.
        what: &'static str,
        /// Its number.
        asked: u64,
        /// What has so many records.
        reach: &'static str,
        /// How many.
        end: u64,
    },
    /// What the proof needs is not what the writer wrote.
    #[error("{what}")]
    Damage {
        /// The segment.
        file: SegmentFile,
        /// Where in its file.
        offset: u64,
        /// What is wrong.
        what: String,
        /// It is intact and of a later version: no damage.
        unsupported: bool,
    },
    /// The trail is signed, and no checkpoint covers what is to be proven.
    #[error("no checkpoint of {0} is in the trail")]
    NoCheckpoint(String),
    /// The trail's records do not lead to the tree that a checkpoint states.
    #[error("the trail's records do not lead to the checkpoint of {0} records")]
    Elsewhere(u64),
    /// A segment cannot be read.
    #[error("cannot read the segment: {why}")]
    Unreadable {
        /// The segment.
        file: SegmentFile,
        /// What the system said.
        why: io::Error,
    },
}

impl ProveError {
    fn damage(file: &SegmentFile, offset: u64, what: impl Into<String>) -> Self {
        Self::Damage { file: file.clone(), offset, what: what.into(), unsupported: false }
    }

    fn format(file: &SegmentFile, offset: u64, why: &FormatError) -> Self {
        let unsupported = why.is_unsupported();
        Self::Damage { file: file.clone(), offset, what: why.to_string(), unsupported }
    }

    fn finding(file: &SegmentFile, finding: &Finding) -> Self {
        let unsupported = finding.class(0, false) == Class::Unsupported;
        let (offset, what) = (finding.offset, finding.to_string());
        Self::Damage { file: file.clone(), offset, what, unsupported }
    }

    fn io(file: &SegmentFile) -> impl FnOnce(io::Error) -> Self {
        let file = file.clone();
        move |why| Self::Unreadable { file, why }
    }
}

/// Proves `goal` in the tree of `size` records. `None`: in that of the newest checkpoint; in a trail
/// that is not signed, of the sealed segments, or of all that is durable if those do not reach so far.
///
/// # Errors
/// [`ProveError`] says what stands in the way.
pub fn prove(dir: &TrailDir, goal: Goal, size: Option<u64>) -> Result<Document, ProveError> {
    let sealed = Sealed::find(dir)?;
    // Records that the tree must have, and the leaf at whose segment the walk begins.
    let (what, asked, needed, pivot) = match goal {
        Goal::Inclusion(seq) => ("seq", seq, seq.saturating_add(1), seq),
        Goal::Consistency(from) => ("size", from, from, from),
    };
    let reach = needed.max(size.unwrap_or(0));
    let end = if reach > sealed.end { durable_end(dir, &sealed)? } else { sealed.end };
    // A running writer's newest records are durable before a frame says so.
    let trail = match dir.writer {
        Some(_) => "stated durable in the trail so far are",
        None => "the trail has",
    };
    let out = |what, asked, reach, end| Err(ProveError::OutOfRange { what, asked, reach, end });
    if needed > end {
        return out(what, asked, trail, end);
    }
    if let Some(size) = size.filter(|size| *size > end) {
        return out("size", size, trail, end);
    }
    let note = notes::find(dir, &sealed, Wish { pivot, needed, end, size })?;
    let size = note.as_ref().map(|note| note.head.size).or(size).unwrap_or(end);
    let gather = match goal {
        Goal::Inclusion(seq) => Gather::inclusion(seq, size),
        Goal::Consistency(from) => Gather::consistency(from, size),
    };
    let Some(gather) = gather else {
        return out(what, asked, "the tree that was asked for has", size);
    };
    let mut walk = Walk::new(dir, size, &sealed, Leaves::new(gather, goal));
    walk.note = note;
    walk.run(pivot)
}

/// The hashes that lead from the tree of the first `from` records, at least one, to `head`: a tree of which the
/// caller knows that the trail has it, and that all of it is durable.
///
/// # Errors
/// [`ProveError`] says what stands in the way, or that the trail's records do not lead to `head`.
pub fn growth(dir: &TrailDir, from: u64, head: &Head) -> Result<Vec<Hash>, ProveError> {
    if from == head.size {
        return Ok(Vec::new());
    }
    let sealed = Sealed::find(dir)?;
    let Some(gather) = Gather::consistency(from, head.size) else {
        let (asked, end) = (from, head.size);
        return Err(ProveError::OutOfRange { what: "size", asked, reach: "the tree has", end });
    };
    let walk = Walk::new(dir, head.size, &sealed, Leaves::new(gather, Goal::Consistency(from)));
    match walk.run(from)? {
        Document::Consistency { proof, head: found, .. } if found == *head => Ok(proof.path),
        _ => Err(ProveError::Elsewhere(head.size)),
    }
}

/// How many records the trail has that are durable.
///
/// # Errors
/// [`ProveError`] says what stands in the way.
pub fn end(dir: &TrailDir) -> Result<u64, ProveError> {
    durable_end(dir, &Sealed::find(dir)?)
}

/// The part of a trail that is sealed.
struct Sealed {
    /// After its last record.
    end: u64,
    /// How many segments it has; the others are at the end of the trail.
    segments: usize,
    /// The note in the last trailer; empty if there is none.
    note: Vec<u8>,
}

impl Sealed {
    /// Looks at the last trailers. A writer leaves at most two segments without one.
    fn find(dir: &TrailDir) -> Result<Self, ProveError> {
        for (index, file) in dir.segments.iter().enumerate().rev() {
            match trailer(dir, file)? {
                Ok((trailer, _)) => {
                    let (end, segments) = (trailer.end_seq(), index + 1);
                    return Ok(Self { end, segments, note: trailer.note });
                }
                Err(bad) if dir.segments.len() - index > 2 => {
                    return Err(ProveError::format(file, bad.offset, &bad.why));
                }
                Err(_) => {}
            }
        }
        let end = dir.segments.first().map_or(0, |file| file.first_seq);
        Ok(Self { end, segments: 0, note: Vec::new() })
    }
}

/// A segment's trailer, if it has one and it is where it belongs.
fn trailer(
    dir: &TrailDir,
    file: &SegmentFile,
) -> Result<Result<(Trailer, u64), ends::Bad>, ProveError> {
    let opened = dir.open_segment(file).map_err(ProveError::io(file))?;
    let read = ends::trailer(&opened).map_err(ProveError::io(file))?;
    if let Ok((trailer, offset)) = &read {
        let found = (trailer.trail_id, trailer.segment, trailer.first_seq);
        check_place(dir, file, *offset, found)?;
    }
    Ok(read)
}

fn check_place(
    dir: &TrailDir,
    file: &SegmentFile,
    offset: u64,
    (trail_id, segment, first_seq): (TrailId, u64, u64),
) -> Result<(), ProveError> {
    let fits = dir.trail_id().is_none_or(|id| id == trail_id)
        && (segment, first_seq) == (file.segment, file.first_seq);
    let what = "this is of another trail or of another segment than the name says";
    if fits { Ok(()) } else { Err(ProveError::damage(file, offset, what)) }
}

/// After the last record that is durable. The first segment without a trailer decides: nothing of
/// one after it was announced before that one was sealed. What is intact there is what recovery
/// keeps; while a writer runs, only what its frames say was announced counts.
fn durable_end(dir: &TrailDir, sealed: &Sealed) -> Result<u64, ProveError> {
    let Some(file) = dir.segments.get(sealed.segments) else { return Ok(sealed.end) };
    if sealed.segments + 1 < dir.segments.len() {
        // Two segments without a trailer: recovery's table says whether a crash leaves that.
        if let Some(Err(refusal)) = Tail::read(dir, false, How::default()).decision {
            let refused = dir.segments.iter().find(|it| it.segment == refusal.segment);
            return Err(ProveError::finding(refused.unwrap_or(file), &refusal.finding));
        }
    }
    let read = segment::read_settled(dir, file, false, How::default());
    let read = read.map_err(ProveError::io(file))?;
    let (prefix, announced) = (&read.outcome.prefix, read.outcome.announced);
    let damage = (read.findings.iter().map(|placed| &placed.finding))
        .find(|finding| finding.class(announced, true) != Class::Tail);
    if let Some(finding) = damage {
        return Err(ProveError::finding(file, finding));
    }
    if announced > prefix.next_seq {
        let what = format!("{announced} records were announced durable, and the trail ends here");
        return Err(ProveError::damage(file, prefix.tally.frames_end, what));
    }
    let live = announced.max(file.first_seq);
    Ok(if dir.writer.is_some() { live } else { prefix.next_seq })
}

/// One walk from the segment that a proof begins in to the end of its tree.
struct Walk<'a> {
    dir: &'a TrailDir,
    size: u64,
    sealed: &'a Sealed,
    leaves: Leaves,
    /// The checkpoint over the tree.
    note: Option<notes::Found>,
    /// The root that the trailer of the segment with which the tree ends states, and where.
    stated: Option<(Hash, SegmentFile, u64)>,
}

impl<'a> Walk<'a> {
    fn new(dir: &'a TrailDir, size: u64, sealed: &'a Sealed, leaves: Leaves) -> Self {
        Self { dir, size, sealed, leaves, note: None, stated: None }
    }

    fn run(mut self, pivot: u64) -> Result<Document, ProveError> {
        let (dir, size) = (self.dir, self.size);
        let Some(first) = dir.segments.iter().rposition(|file| file.first_seq <= pivot) else {
            // The oldest segments are gone: `size` is above 0, so there are others.
            let Some(oldest) = dir.segments.first() else {
                return Err(ProveError::Elsewhere(size));
            };
            let what = format!("records before seq {} are missing", oldest.first_seq);
            return Err(ProveError::damage(oldest, 0, what));
        };
        let trail_id = self.header(&dir.segments[first])?;
        for (index, file) in dir.segments.iter().enumerate().skip(first) {
            let end = self.leaves.gather.end();
            if end == size {
                break;
            }
            if index > first && file.first_seq != end {
                let what = format!("records from seq {end} on are missing before this segment");
                return Err(ProveError::damage(file, 0, what));
            }
            self.segment(index, file)?;
        }
        let last = &dir.segments[dir.segments.len() - 1];
        let finished = self.leaves.gather.finish();
        let gathered = finished.map_err(|why| ProveError::damage(last, 0, why.to_string()))?;
        let (Gathered::Inclusion { root, .. } | Gathered::Consistency { root, .. }) = gathered;
        if let Some((_, file, offset)) = self.stated.filter(|(stated, ..)| *stated != root) {
            let what = "the trail's records and trailers do not lead to the root stated here";
            return Err(ProveError::damage(&file, offset, what));
        }
        let head = Head { origin: origin(trail_id), size, root };
        if let Some(found) = self.note.as_ref().filter(|found| found.head != head) {
            let what = "the checkpoint here is not over the trail's records";
            return Err(ProveError::damage(&found.file, found.offset, what));
        }
        let note = self.note.map(|found| found.text);
        Ok(match gathered {
            Gathered::Inclusion { proof, .. } => {
                Document::Inclusion { record: self.leaves.record, proof, head, note }
            }
            Gathered::Consistency { proof, from_root, .. } => {
                Document::Consistency { from_root, proof, head, note }
            }
        })
    }

    /// Takes all that is before the first segment from its header.
    fn header(&mut self, file: &SegmentFile) -> Result<TrailId, ProveError> {
        let opened = self.dir.open_segment(file).map_err(ProveError::io(file))?;
        let header = ends::header(&opened).map_err(ProveError::io(file))?;
        let header = header.map_err(|bad| ProveError::format(file, bad.offset, &bad.why))?;
        let place = (header.trail_id, header.segment, header.first_seq);
        check_place(self.dir, file, 0, place)?;
        let taken = self.leaves.gather.range(&header.before);
        taken.map_err(|why| ProveError::damage(file, 0, why.to_string()))?;
        Ok(header.trail_id)
    }

    /// Takes one segment: the hashes in its trailer, and leaves where the proof needs them.
    fn segment(&mut self, index: usize, file: &SegmentFile) -> Result<(), ProveError> {
        if index >= self.sealed.segments {
            return self.leaves.read(self.dir, file, self.size);
        }
        let (trailer, offset) = trailer(self.dir, file)?
            .map_err(|bad| ProveError::format(file, bad.offset, &bad.why))?;
        if trailer.end_seq() == self.size {
            self.stated = Some((trailer.root, file.clone(), offset));
        }
        self.leaves.sealed(self.dir, file, &trailer, self.size)
    }
}
