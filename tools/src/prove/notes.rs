//! The checkpoint that a proof ends with: the newest one over what is proven, or the one of a size.

use super::{ProveError, Sealed, check_place, trailer};
use crate::trail::scan::{self, How};
use crate::trail::{SegmentFile, TrailDir, ends};
use graven_format::Flags;
use graven_format::lines::Head;
use graven_format::note::Note;
use graven_format::scan::{Event, Expect};
use std::ops::{ControlFlow, Range};

/// A checkpoint and where it stands.
pub(super) struct Found {
    /// The note, whole.
    pub(super) text: Vec<u8>,
    /// What it is over.
    pub(super) head: Head,
    /// The segment.
    pub(super) file: SegmentFile,
    /// Where in its file.
    pub(super) offset: u64,
}

/// What is to be proven, as far as the choice of a checkpoint depends on it.
#[derive(Clone, Copy)]
pub(super) struct Wish {
    /// The leaf at whose segment the walk begins.
    pub(super) pivot: u64,
    /// Records that the tree must have.
    pub(super) needed: u64,
    /// Records that are durable.
    pub(super) end: u64,
    /// Records that the tree is to have, if that was said.
    pub(super) size: Option<u64>,
}

/// The checkpoint of the wanted size; without a size, as a rule that of the last trailer. `None` if
/// the trail is not signed.
pub(super) fn find(
    dir: &TrailDir,
    sealed: &Sealed,
    wish: Wish,
) -> Result<Option<Found>, ProveError> {
    let Wish { pivot, needed, end, size } = wish;
    if sealed.note.is_empty() && !is_signed(dir, pivot)? {
        return Ok(None);
    }
    let found = match size {
        Some(size) => of_size(dir, sealed, size)?,
        None => newest(dir, sealed, needed, end)?,
    };
    let what = match size {
        Some(size) => format!("{size} records"),
        None => format!("{needed} records or more"),
    };
    found.map(Some).ok_or(ProveError::NoCheckpoint(what))
}

/// Whether a key signs where the walk begins.
fn is_signed(dir: &TrailDir, pivot: u64) -> Result<bool, ProveError> {
    let Some(file) = dir.segments.iter().rfind(|file| file.first_seq <= pivot) else {
        return Ok(false);
    };
    let opened = dir.open_segment(file).map_err(ProveError::io(file))?;
    let header = ends::header(&opened).map_err(ProveError::io(file))?;
    let header = header.map_err(|bad| ProveError::format(file, bad.offset, &bad.why))?;
    check_place(dir, file, 0, (header.trail_id, header.segment, header.first_seq))?;
    Ok(header.key != [0; 32])
}

/// From the end of the trail back to the segment with which `needed` records end.
fn newest(
    dir: &TrailDir,
    sealed: &Sealed,
    needed: u64,
    end: u64,
) -> Result<Option<Found>, ProveError> {
    // What is sealed is shown by the last trailer, and costs no look at the end of the trail.
    if needed <= sealed.end
        && !sealed.note.is_empty()
        && let Some(file) = dir.segments.get(sealed.segments.wrapping_sub(1))
    {
        return parse(&sealed.note, file, 0).map(Some);
    }
    for (index, file) in dir.segments.iter().enumerate().rev() {
        if index < sealed.segments
            && let Ok((trailer, offset)) = trailer(dir, file)?
        {
            if trailer.end_seq() < needed {
                break;
            }
            if !trailer.note.is_empty() {
                return parse(&trailer.note, file, offset).map(Some);
            }
        }
        let mut last = None;
        records(dir, file, needed..end, |offset, note| last = Some((offset, note.to_vec())))?;
        if let Some((offset, note)) = last {
            return parse(&note, file, offset).map(Some);
        }
        if file.first_seq < needed {
            break;
        }
    }
    Ok(None)
}

/// The record of this number, if it is a checkpoint, or the trailer before it.
fn of_size(dir: &TrailDir, sealed: &Sealed, size: u64) -> Result<Option<Found>, ProveError> {
    for (index, file) in dir.segments.iter().enumerate().rev() {
        if file.first_seq > size {
            continue;
        }
        let mut found = None;
        records(dir, file, size..size.saturating_add(1), |offset, note| {
            found = Some((offset, note.to_vec()));
        })?;
        if let Some((offset, note)) = found {
            return parse(&note, file, offset).map(Some);
        }
        if index < sealed.segments
            && let Ok((trailer, offset)) = trailer(dir, file)?
            && trailer.end_seq() == size
            && !trailer.note.is_empty()
        {
            return parse(&trailer.note, file, offset).map(Some);
        }
        // Only the segment that begins there has another one in front of it that ends there.
        if file.first_seq < size {
            break;
        }
    }
    Ok(None)
}

/// Shows the checkpoints among the segment's records of these seqs, with their offsets.
fn records(
    dir: &TrailDir,
    file: &SegmentFile,
    seqs: Range<u64>,
    mut visit: impl FnMut(u64, &[u8]),
) -> Result<(), ProveError> {
    let opened = dir.open_segment(file).map_err(ProveError::io(file))?;
    let expect = Expect {
        segment: file.segment,
        first_seq: file.first_seq,
        trail_id: dir.trail_id(),
        merkle: false,
    };
    let mut show = |event: Event<'_>| {
        let Event::Record { seq, offset, record } = event else {
            return ControlFlow::Continue(());
        };
        if seqs.contains(&seq) && record.flags.contains(Flags::CHECKPOINT) {
            visit(offset, record.bytes);
        }
        if seq < seqs.end { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let scanned = scan::scan_from(&opened, expect, seqs.start, How::default(), &mut show);
    scanned.map_err(ProveError::io(file))
}

fn parse(text: &[u8], file: &SegmentFile, offset: u64) -> Result<Found, ProveError> {
    let note = Note::parse(text)
        .map_err(|why| ProveError::damage(file, offset, format!("the checkpoint here: {why}")))?;
    let head = note.checkpoint.head;
    Ok(Found { text: text.to_vec(), head, file: file.clone(), offset })
}
