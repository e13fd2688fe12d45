//! What to do with the end of a trail whose writer stopped, as a decision table.
//!
//! Recovery looks at the last two segments: the writer has at most one change of segment in
//! flight, so nothing older can be unfinished. It never appends to what it finds: it seals the
//! intact prefix and the writer goes on in a new segment. That makes every step repeatable: a
//! crash during recovery leaves a state that is again in the table.
//!
//! | label | what was found | which physical event makes it | what is done |
//! |---|---|---|---|
//! | `fresh` | no segment | the trail is new | nothing |
//! | `sealed` | trailer, nothing after it | clean stop, or crash right after a segment was full | nothing |
//! | `untrimmed` | trailer, then bytes | crash between writing a trailer early and cutting the file to it | cut the file |
//! | `unused` | header, first frame not there or not intact | crash between creating a segment and the end of its first commit | remove the file |
//! | `open` | frames, then zeros | kill or crash while no write was in flight | seal |
//! | `torn` | frames, then bytes that are no frame | power cut in the middle of the last write | seal before them |
//! | `lost-write` | frames, a hole, intact frames that were never announced | several writes in flight, a later one reached the disk first | seal before the hole |
//! | `orphan` | an unsealed segment, then one of which nothing was announced | crash while the trailer, or a write before it, was in flight | remove the later one, then as above |
//!
//! The table is complete because the writer keeps this order, and recovery keeps it too:
//!
//! 1. A segment's header is durable before the segment has its name.
//! 2. A trailer is submitted only when every frame of its segment is durable.
//! 3. Nothing of a segment is announced before the trailer of the one before it is durable. A
//!    watermark that went ahead of that trailer would announce what an `orphan` loses.
//! 4. The next change of segment begins only after that.
//! 5. A file with an early trailer is cut, durably, before it has a successor.
//! 6. The steps of a [`Decision`] are each durable before the next one is begun.
//!
//! Anything else contradicts what had been announced and is refused: it is evidence, and recovery
//! must not write over it.

use crate::consts::NOTE_STORED_BYTES_MAX;
use crate::error::FormatError;
use crate::finding::{Class, Finding, FindingKind};
use crate::scan::{Outcome, Prefix};
use crate::trailer::Trailer;
use alloc::vec::Vec;

/// The row of the table that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// No segment: the trail is new.
    Fresh,
    /// The last segment is sealed and exactly as long as it says.
    Sealed,
    /// The last segment is sealed, and its file was not cut yet.
    Untrimmed,
    /// The last segment has no record.
    Unused,
    /// The last segment ends in room that was never written.
    Open,
    /// The last write was cut off.
    Torn,
    /// A later write reached the disk before an earlier one.
    LostWrite,
}

impl Label {
    /// The name used in logs and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Sealed => "sealed",
            Self::Untrimmed => "untrimmed",
            Self::Unused => "unused",
            Self::Open => "open",
            Self::Torn => "torn",
            Self::LostWrite => "lost-write",
        }
    }
}

/// A segment as recovery has read it.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its number, from its name.
    pub segment: u64,
    /// Seq of its first record, from its name.
    pub first_seq: u64,
    /// All that was wrong with it. A reader may keep the first few of made-up millions: one that
    /// is not of [`Class::Tail`] is enough to refuse.
    pub findings: Vec<Finding>,
    /// What is known at its end; read with hashes.
    pub outcome: Outcome,
}

/// What to do before the writer may go on.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The row of the table for the segment that stays last.
    pub label: Label,
    /// Whether the last segment is an orphan: it is removed before all else.
    pub remove_orphan: bool,
    /// What is then done with the segment that is last.
    pub action: Action,
}

/// See [`Decision`].
#[derive(Clone, Debug)]
pub enum Action {
    /// Nothing.
    None,
    /// Cut the file to this length: the end of its trailer.
    Trim(u64),
    /// Remove the file.
    Remove,
    /// Write a trailer after this prefix and cut the file behind it.
    Seal(Prefix),
}

/// Why recovery must not touch the trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The segment's number.
    pub segment: u64,
    /// What contradicts what had been announced.
    pub finding: Finding,
}

/// The decision for a trail whose last segments are `before` (if there are two) and `last`.
///
/// # Errors
/// [`Refusal`] if something that had been announced durable is not what it was.
pub fn decide(before: Option<&Found>, last: Option<&Found>) -> Result<Decision, Refusal> {
    let Some(last) = last else {
        return Ok(Decision { label: Label::Fresh, remove_orphan: false, action: Action::None });
    };
    if let Some(before) = before.filter(|before| before.outcome.trailer.is_none()) {
        // Nothing in the later segment may have been announced before this one was sealed.
        let announced = last.outcome.announced.max(before.outcome.announced);
        let (label, action) = decide_one(before, announced)?;
        return Ok(Decision { label, remove_orphan: true, action });
    }
    let (label, action) = decide_one(last, last.outcome.announced)?;
    Ok(Decision { label, remove_orphan: false, action })
}

/// The row for one segment, when `announced` records are known to have been announced.
fn decide_one(found: &Found, announced: u64) -> Result<(Label, Action), Refusal> {
    let prefix = &found.outcome.prefix;
    let refuse =
        |finding: &Finding| Err(Refusal { segment: found.segment, finding: finding.clone() });
    for finding in &found.findings {
        if finding.class(announced, true) != Class::Tail {
            return refuse(finding);
        }
    }
    if let Some(trailer) = &found.outcome.trailer {
        let Some(after) = found.findings.first() else { return Ok((Label::Sealed, Action::None)) };
        if after.kind != FindingKind::AfterTrailer || announced > trailer.end_seq() {
            return refuse(after);
        }
        return Ok((Label::Untrimmed, Action::Trim(after.offset)));
    }
    if announced > prefix.next_seq {
        // The bytes are gone without a trace: zeros where announced records were.
        return refuse(&Finding {
            kind: FindingKind::Unreadable(FormatError::Magic("frame")),
            offset: prefix.tally.frames_end,
            len: 0,
            seq: prefix.next_seq,
            missing: announced - prefix.next_seq,
        });
    }
    if prefix.tally.record_count == 0 {
        return Ok((Label::Unused, Action::Remove));
    }
    if let Some(finding) = no_room(found, prefix) {
        return refuse(&finding);
    }
    let label = match found.findings.first().map(|finding| &finding.kind) {
        None => Label::Open,
        Some(FindingKind::Unreadable(_)) => Label::LostWrite,
        Some(_) => Label::Torn,
    };
    Ok((label, Action::Seal(prefix.clone())))
}

/// What is wrong if no trailer fits behind the prefix: the writer always keeps room for one.
fn no_room(found: &Found, prefix: &Prefix) -> Option<Finding> {
    let (header, tree) = (found.outcome.header.as_ref()?, prefix.tree.as_ref()?);
    let (index, frames_end) = (prefix.tally.index.len(), prefix.tally.frames_end);
    let hashes = tree.range().nodes().len() + tree.blocks().1.len();
    let trailer_len =
        Trailer::stored_len(hashes, index, NOTE_STORED_BYTES_MAX, header.align_bytes) as u64;
    (frames_end + trailer_len > header.segment_len).then_some(Finding {
        kind: FindingKind::Unreadable(FormatError::Field {
            what: "segment",
            field: "frames_end",
            value: frames_end,
        }),
        offset: frames_end,
        len: 0,
        seq: prefix.next_seq,
        missing: 0,
    })
}
