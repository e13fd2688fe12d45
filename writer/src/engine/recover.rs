//! Puts the end of a trail in order before the writer goes on, by the table in
//! [`graven_format::recovery`].
//!
//! Recovery repeats until there is nothing left to do: each round reads the disk again, so a
//! crash in the middle is only another first round, and what the writer goes on from is always
//! what the disk says.

use super::durability::{Durable, Watermark};
use crate::clock::Now;
use crate::codec::Reading;
use crate::disk::{Disk, Geometry, Op};
use crate::error::OpenError;
use crate::keys::{InForce, LocalKeys};
use files::RECOVERY_FILE;
use graven_format::consts::{FRAME_BYTES_MAX, SEGMENT_HEADER_FIXED_BYTES, TRAILER_FOOTER_BYTES};
use graven_format::merkle::CompactRange;
use graven_format::name::{self, Name};
use graven_format::recovery::{Action, Decision, Found, Label, decide};
use graven_format::scan::{Event, Expect, Outcome, Prefix, Scanner};
use graven_format::segment::SegmentHeader;
use graven_format::trailer::{SealReason, Trailer};
use graven_format::{FormatError, TrailId};
use std::io;
use std::ops::Range;
use std::path::PathBuf;

mod files;
mod keys;

/// Rounds that recovery may need: an orphan and a temporary, a seal, an unused segment, and the
/// last look that finds nothing to do.
const ROUNDS_MAX: usize = 8;

/// Findings that are kept of one segment. The decision needs the first that is damage, and an
/// accident leaves one or two; a file made up to have millions must not take the memory.
const FINDINGS_MAX: usize = 4096;

/// Bytes read at a time.
const READ_BYTES: usize = 1024 * 1024;

/// The trail as recovery leaves it.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The trail.
    pub trail_id: TrailId,
    /// The number of the next segment.
    pub next_segment: u64,
    /// The compact range of all records.
    pub before: CompactRange,
    /// CRC of the last trailer; 0 if there is none.
    pub prev_trailer_crc: u32,
    /// The first operation number that was not used.
    pub next_op: u64,
    /// What was found and done, in order; empty after a clean stop.
    pub steps: Vec<Step>,
    /// Files that no trail has.
    pub foreign: Vec<String>,
    /// The key that signs at the trail's end, by what the trail says; none if it is not signed.
    pub in_force: Option<InForce>,
    /// The signed note that the trail ends with; nothing if it does not.
    pub note: Vec<u8>,
}

impl Recovered {
    /// Seq of the next record.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.before.end()
    }

    /// A watermark over what is on disk: all of it is sealed behind barriers.
    #[must_use]
    pub fn watermark(&self) -> Watermark {
        Watermark::new(Durable::recovered(self.next_seq()))
    }
}

/// One thing that recovery found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The row of the table.
    pub label: Label,
    /// The file.
    pub file: String,
    /// Offset at which the file was cut, if it was.
    pub cut_at: Option<u64>,
    /// Seq after the last record that was kept.
    pub next_seq: u64,
    /// Whether a later segment, of which nothing had been announced, was removed.
    pub removed_orphan: bool,
}

/// A segment file of the directory.
#[derive(Clone, Debug)]
struct Entry {
    segment: u64,
    first_seq: u64,
    len: u64,
}

impl Entry {
    fn name(&self) -> String {
        name::segment(self.segment, self.first_seq)
    }
}

/// Puts the end of the trail in order.
///
/// A segment that it seals is signed by the key of its place, if that is one of `keys`.
///
/// # Errors
/// [`OpenError`]; nothing that had been announced was changed.
pub fn recover(
    disk: &mut impl Disk,
    trail_id: TrailId,
    keys: &LocalKeys,
    now: Now,
) -> Result<Recovered, OpenError> {
    let mut recovery = Recovery { disk, next_op: 0, trail_id, keys, now };
    let mut steps = Vec::new();
    recovery.make_durable()?;
    let foreign = recovery.remove_temporaries()?;
    for _ in 0..ROUNDS_MAX {
        let (before, last) = recovery.read_end()?;
        let decision =
            decide(before.as_ref(), last.as_ref()).map_err(|r| OpenError::Damaged(Box::new(r)))?;
        let settled = matches!(decision.action, Action::None) && !decision.remove_orphan;
        let target = if decision.remove_orphan { before.as_ref() } else { last.as_ref() };
        if !settled {
            let target = target.expect("an action has a segment");
            steps.push(recovery.act(&decision, target, last.as_ref())?);
            continue;
        }
        let mut recovered = Recovered {
            trail_id,
            next_segment: 0,
            before: CompactRange::new(0),
            prev_trailer_crc: 0,
            next_op: recovery.next_op,
            steps,
            foreign,
            in_force: None,
            note: Vec::new(),
        };
        if let Some(last) = last {
            let (header, trailer) = sealed_parts(&last.outcome)
                .ok_or_else(|| damaged_tree(&last, "a sealed segment has header and trailer"))?;
            recovered.next_segment = last.segment + 1;
            recovered.prev_trailer_crc = trailer.chain_crc();
            recovered.before = header.before.clone();
            recovered.before.extend(&trailer.range);
            recovered.note = trailer.note.clone();
            recovered.in_force =
                recovery.in_force(header, &last_name(&last), recovered.next_seq())?;
        }
        recovered.next_op = recovery.next_op;
        return Ok(recovered);
    }
    Err(OpenError::Io {
        operation: "recovery of",
        path: PathBuf::from("the trail"),
        source: io::Error::other(
            "the end of the trail does not settle: does something else write?",
        ),
    })
}

fn sealed_parts(outcome: &Outcome) -> Option<(&SegmentHeader, &Trailer)> {
    Some((outcome.header.as_ref()?, outcome.trailer.as_ref()?))
}

fn last_name(found: &Found) -> String {
    name::segment(found.segment, found.first_seq)
}

fn damaged_tree(found: &Found, what: &'static str) -> OpenError {
    let file = name::segment(found.segment, found.first_seq);
    OpenError::Format { file, source: FormatError::Magic(what) }
}

struct Recovery<'a, D> {
    disk: &'a mut D,
    next_op: u64,
    trail_id: TrailId,
    keys: &'a LocalKeys,
    now: Now,
}

impl<D: Disk> Recovery<'_, D> {
    /// Makes what can be read durable before anything relies on it. A writer that was killed has
    /// left writes without their barriers, and perhaps a name without its directory's: they can
    /// be read now and would still be gone after a power cut.
    fn make_durable(&mut self) -> Result<(), OpenError> {
        for entry in self.entries()?.iter().rev().take(2) {
            let name = entry.name();
            self.open(&name)?;
            self.run("sync", &name, Op::Sync { file: RECOVERY_FILE })?;
            self.run("closing", &name, Op::Close { file: RECOVERY_FILE })?;
        }
        self.run("sync of the directory", "", Op::SyncDir)
    }

    /// Removes segments that were being prepared; returns the names that no trail has.
    fn remove_temporaries(&mut self) -> Result<Vec<String>, OpenError> {
        let mut foreign = Vec::new();
        let mut removed = false;
        for listed in self.list()? {
            match Name::parse(&listed.name) {
                Some(Name::Temporary { .. }) => {
                    self.run("removal", &listed.name, Op::Remove { name: listed.name.clone() })?;
                    removed = true;
                }
                Some(_) => {}
                None => foreign.push(listed.name),
            }
        }
        if removed {
            self.run("sync of the directory", "", Op::SyncDir)?;
        }
        Ok(foreign)
    }

    fn list(&mut self) -> Result<Vec<crate::disk::Listed>, OpenError> {
        self.disk.list().map_err(|source| OpenError::Io {
            operation: "listing of",
            path: PathBuf::from("the trail"),
            source,
        })
    }

    /// The segments, oldest first.
    fn entries(&mut self) -> Result<Vec<Entry>, OpenError> {
        let mut entries: Vec<Entry> = self
            .list()?
            .into_iter()
            .filter_map(|listed| match Name::parse(&listed.name)? {
                Name::Segment { segment, first_seq } => {
                    Some(Entry { segment, first_seq, len: listed.len })
                }
                _ => None,
            })
            .collect();
        entries.sort_by_key(|entry| (entry.segment, entry.first_seq));
        Ok(entries)
    }

    /// The last two segments, if they are neighbours.
    fn read_end(&mut self) -> Result<(Option<Found>, Option<Found>), OpenError> {
        let mut entries = self.entries()?;
        let last = entries.pop();
        let before = entries
            .pop()
            .filter(|before| last.as_ref().is_some_and(|last| before.segment + 1 == last.segment));
        Ok((
            before.map(|entry| self.read_segment(&entry)).transpose()?,
            last.map(|entry| self.read_segment(&entry)).transpose()?,
        ))
    }

    /// A segment: by its header and trailer if it is sealed, whole otherwise.
    fn read_segment(&mut self, entry: &Entry) -> Result<Found, OpenError> {
        let (segment, first_seq) = (entry.segment, entry.first_seq);
        if let Some(outcome) = self.read_sealed(entry)? {
            return Ok(Found { segment, first_seq, findings: Vec::new(), outcome });
        }
        let name = entry.name();
        let expect = Expect { segment, first_seq, trail_id: Some(self.trail_id), merkle: true };
        let mut scanner = Scanner::with_hashing(expect, Reading::new());
        let mut findings = Vec::new();
        let mut buf = vec![0; READ_BYTES];
        let mut offset = 0;
        loop {
            let read = self.read(&name, offset, &mut buf)?;
            if read == 0 {
                scanner.end();
            }
            scanner.push(&buf[..read]);
            while let Some(event) = scanner.next_event() {
                if let Event::Finding(finding) = event
                    && findings.len() < FINDINGS_MAX
                {
                    findings.push(finding);
                }
            }
            if read == 0 {
                return Ok(Found { segment, first_seq, findings, outcome: scanner.outcome() });
            }
            offset += read as u64;
        }
    }

    /// Header and trailer of a segment whose file ends in an intact trailer that fits it. What
    /// is between them was durable before the trailer was written and is `verify`'s to check.
    fn read_sealed(&mut self, entry: &Entry) -> Result<Option<Outcome>, OpenError> {
        let name = entry.name();
        let mut footer = [0; TRAILER_FOOTER_BYTES];
        let Some(footer_at) = entry.len.checked_sub(footer.len() as u64) else { return Ok(None) };
        self.read_exact(&name, footer_at, &mut footer)?;
        let Some(trailer_len) = Trailer::footer_len(&footer) else { return Ok(None) };
        let Some(trailer_at) = entry.len.checked_sub(trailer_len as u64) else { return Ok(None) };
        let mut bytes = vec![0; trailer_len];
        self.read_exact(&name, trailer_at, &mut bytes)?;
        let Ok(trailer) = Trailer::decode(&bytes) else { return Ok(None) };
        let Some(header) = self.read_header(&name, entry.len)? else { return Ok(None) };
        let mut whole = header.before.clone();
        let agrees = trailer.trail_id == self.trail_id
            && header.trail_id == self.trail_id
            && trailer.segment == entry.segment
            && header.segment == entry.segment
            && header.first_seq == entry.first_seq
            && trailer.first_seq == entry.first_seq
            && trailer.tally.frames_end <= trailer_at;
        if !agrees {
            return Ok(None);
        }
        whole.extend(&trailer.range);
        if whole.root() != Some(trailer.root) {
            return Ok(None);
        }
        let end_seq = trailer.end_seq();
        let prefix = Prefix {
            next_seq: end_seq,
            tally: trailer.tally.clone(),
            // Only what is not sealed needs it, to be sealed.
            tree: None,
        };
        self.settle_trailer(&name, trailer_at..entry.len)?;
        Ok(Some(Outcome {
            header: Some(header),
            trailer: Some(trailer),
            prefix,
            announced: end_seq,
            end_seq,
        }))
    }

    fn read_header(&mut self, name: &str, len: u64) -> Result<Option<SegmentHeader>, OpenError> {
        let mut fixed = [0; SEGMENT_HEADER_FIXED_BYTES];
        if len < fixed.len() as u64 {
            return Ok(None);
        }
        self.read_exact(name, 0, &mut fixed)?;
        let Ok(header_len) = SegmentHeader::header_len(&fixed) else { return Ok(None) };
        if len < header_len as u64 {
            return Ok(None);
        }
        let mut bytes = vec![0; header_len];
        self.read_exact(name, 0, &mut bytes)?;
        Ok(SegmentHeader::decode(&bytes).ok())
    }

    /// Carries a decision out.
    fn act(
        &mut self,
        decision: &Decision,
        target: &Found,
        last: Option<&Found>,
    ) -> Result<Step, OpenError> {
        if let Some(orphan) = last.filter(|_| decision.remove_orphan) {
            self.remove(&name::segment(orphan.segment, orphan.first_seq))?;
        }
        let file = name::segment(target.segment, target.first_seq);
        let mut cut_at = None;
        match &decision.action {
            Action::None => {}
            Action::Remove => self.remove(&file)?,
            Action::Trim(len) => {
                self.open(&file)?;
                // A file is cut only behind a trailer that is there: one that was read and lost
                // would leave a file that is too short and says nothing of why.
                if let Some(trailer) = &target.outcome.trailer {
                    self.settle(&file, len - u64::from(trailer.trailer_len)..*len)?;
                }
                self.cut(&file, *len)?;
            }
            Action::Seal(prefix) => {
                cut_at = Some(prefix.tally.frames_end);
                self.seal(&file, target, prefix)?;
            }
        }
        Ok(Step {
            label: decision.label,
            file,
            cut_at,
            next_seq: target.outcome.prefix.next_seq,
            removed_orphan: decision.remove_orphan,
        })
    }

    /// Writes a trailer after the prefix, which is durable already, and cuts the file behind it.
    fn seal(&mut self, file: &str, target: &Found, prefix: &Prefix) -> Result<(), OpenError> {
        let (Some(header), Some(tree)) = (&target.outcome.header, &prefix.tree) else {
            return Err(damaged_tree(target, "an unsealed segment has a header and its tree"));
        };
        let offset = prefix.tally.frames_end;
        let (reason, sealed_ns) = (SealReason::Recovery, self.now.realtime_ns);
        let mut trailer = Trailer::new(header, prefix.tally.clone(), tree, reason, sealed_ns);
        trailer.note = self.note(header, file, &trailer)?;
        let (bytes, _) = trailer.encode(header.align_bytes);
        debug_assert!(bytes.len() <= FRAME_BYTES_MAX);
        self.open(file)?;
        self.run("sync", file, Op::Sync { file: RECOVERY_FILE })?;
        self.settle_frames(file, prefix, target.outcome.announced)?;
        self.write("write of the trailer", file, offset, &bytes)?;
        self.cut(file, offset + bytes.len() as u64)
    }

    /// Writes the frames of the open file that are not known to have been announced once more.
    fn settle_frames(
        &mut self,
        file: &str,
        prefix: &Prefix,
        announced: u64,
    ) -> Result<(), OpenError> {
        let index = &prefix.tally.index;
        // The first entry if nothing is known: an index begins with the first frame.
        let known = index.iter().rev().find(|entry| entry.seq <= announced).or(index.first());
        let Some(offset) = known.map(|entry| entry.offset) else { return Ok(()) };
        self.settle(file, offset..prefix.tally.frames_end)
    }

    /// The same for the trailer of a file that ends with it. Only in its place: on larger blocks
    /// than its segment was made for it is a copy, and no barrier of a copy has failed.
    fn settle_trailer(&mut self, file: &str, range: Range<u64>) -> Result<(), OpenError> {
        let Geometry { direct, align_bytes } = self.disk.geometry();
        let in_place = |at: u64| at.is_multiple_of(align_bytes.into());
        if direct || !in_place(range.start) || !in_place(range.end) {
            return Ok(());
        }
        self.open(file)?;
        self.settle(file, range)?;
        self.run("closing", file, Op::Close { file: RECOVERY_FILE })
    }

    /// Writes these bytes of the open file once more, as they are read, behind a barrier.
    ///
    /// Through the page cache a write whose barrier failed can still be read, and the kernel,
    /// which has reported it once, calls it clean: the next fsync says nothing of it. So what can
    /// be read is no proof of what is durable; only a barrier of our own is. Without the page
    /// cache, what is read comes from the device.
    fn settle(&mut self, file: &str, range: Range<u64>) -> Result<(), OpenError> {
        if self.disk.geometry().direct {
            return Ok(());
        }
        let mut bytes = vec![0; (range.end - range.start).min(FRAME_BYTES_MAX as u64) as usize];
        let mut offset = range.start;
        while offset < range.end {
            let piece = (range.end - offset).min(bytes.len() as u64) as usize;
            self.read_exact(file, offset, &mut bytes[..piece])?;
            self.write("second write", file, offset, &bytes[..piece])?;
            offset += piece as u64;
        }
        Ok(())
    }
}
