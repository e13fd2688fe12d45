//! What must be true of a trail, judged by its bytes alone and by what the ring accepted and the
//! watermark announced. It knows nothing of the engine's state.

use crate::content::{Accepted, Content};
use graven_format::finding::{Class, Finding};
use graven_format::key_file::KeyFile;
use graven_format::lines::origin;
use graven_format::merkle::CompactRange;
use graven_format::name::{self, Name};
use graven_format::note::{Note, PublicKey, Signed};
use graven_format::scan::{Event, Expect, Outcome, Scanner};
use graven_format::segment::SegmentHeader;
use graven_format::{Flags, TrailId};
use graven_writer::Published;
use graven_writer::codec::Reading;
use graven_writer::disk::Disk;
use graven_writer::disk::sim::{SimDisk, SimFaults};
use graven_writer::engine::recover::Recovered;
use graven_writer::keys::InForce;
use std::collections::{BTreeMap, BTreeSet};

/// What is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) String);

/// Ends a check.
macro_rules! violated {
    ($($arg:tt)*) => { return Err(Violation(format!($($arg)*))) };
}
pub(crate) use violated;

/// A segment as its file is.
struct Segment {
    number: u64,
    first_seq: u64,
    name: String,
    bytes: Vec<u8>,
}

/// A sealed segment that was found flawless: it need not be read again while its bytes are the
/// same.
#[derive(Clone, Debug)]
struct Proven {
    checksum: u32,
    end_seq: u64,
    outcome: Outcome,
    signed: Signatures,
}

/// What the notes of a segment say, all of them signed by the keys of their places.
#[derive(Clone, Debug, Default)]
struct Signatures {
    /// The key that signs at the end, if the segment is signed.
    in_force: Option<InForce>,
    notes: Vec<String>,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    trail_id: TrailId,
    content: Content,
    /// Every record of the trail, by its seq; none for a seq that the ring has kept for a checkpoint.
    accepted: Vec<Option<Accepted>>,
    /// Records that were offered.
    offered: u64,
    /// The key that signs when the trail begins, if it is signed.
    first: Option<InForce>,
    /// The checkpoints that somebody may have seen.
    published: BTreeSet<String>,
    /// Records that were announced durable.
    announced: u64,
    proven: BTreeMap<String, Proven>,
}

impl Oracle {
    /// The oracle of an empty trail.
    #[must_use]
    pub(crate) fn new(seed: u64, trail_id: TrailId) -> Self {
        Self {
            trail_id,
            content: Content::new(seed),
            accepted: Vec::new(),
            offered: 0,
            first: None,
            published: BTreeSet::new(),
            announced: 0,
            proven: BTreeMap::new(),
        }
    }

    /// Records that the ring has accepted.
    #[must_use]
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.len() as u64
    }

    /// Records that were announced durable.
    #[must_use]
    pub(crate) fn announced(&self) -> u64 {
        self.announced
    }

    /// The trail begins with this key.
    pub(crate) fn trust(&mut self, first: Option<KeyFile>) {
        self.first = first.map(|file| InForce { epoch: 0, key: file.key.public().bytes() });
    }

    /// Offers the next record, and keeps it in mind if it is taken: if it is given a seq.
    pub(crate) fn offer(
        &mut self,
        next: Accepted,
        offer: impl FnOnce(graven_format::Record<'_>) -> Result<Option<u64>, Violation>,
    ) -> Result<Option<u64>, Violation> {
        let next = Accepted { nth: self.offered, ..next };
        let Some(seq) = offer(self.content.record(&next))? else { return Ok(None) };
        self.offered += 1;
        self.reserve(seq)?;
        if seq != self.accepted() {
            violated!("seq {seq} was given to {}", self.accepted());
        }
        self.accepted.push(Some(next));
        Ok(Some(seq))
    }

    /// The seqs below `next_seq` that no record was given are checkpoints'.
    pub(crate) fn reserve(&mut self, next_seq: u64) -> Result<(), Violation> {
        let kept = next_seq.saturating_sub(self.accepted());
        // One for each batch that is closed; a ring that keeps more makes holes.
        if kept > 1 || (kept == 1 && self.first.is_none()) {
            violated!("{kept} seqs are kept for checkpoints at {next_seq}");
        }
        self.accepted.extend((0..kept).map(|_| None));
        Ok(())
    }

    /// This checkpoint can be seen. Returns whether it is a new one.
    pub(crate) fn publish(&mut self, newest: Option<&Published>) -> Result<bool, Violation> {
        let Some(Published { size, note, .. }) = newest else { return Ok(false) };
        if *size > self.announced {
            violated!("a checkpoint over {size} is published, {} are announced", self.announced);
        }
        let new = !self.published.contains(note);
        if new {
            self.published.insert(note.clone());
        }
        Ok(new)
    }

    /// The watermark has been seen at `durable`.
    pub(crate) fn announce(&mut self, durable: u64) -> Result<(), Violation> {
        if durable < self.announced {
            violated!("the watermark went back from {} to {durable}", self.announced);
        }
        if durable > self.accepted() {
            violated!("the watermark is at {durable}, {} were accepted", self.accepted());
        }
        self.announced = durable;
        Ok(())
    }

    /// What a sudden end has left, before anybody puts it in order: all that was announced is
    /// there, nothing that was not accepted is, and no unannounced tail looks like damage.
    pub(crate) fn check_remains(&mut self, disk: &mut SimDisk) -> Result<(), Violation> {
        let segments = segments(disk);
        let mut next = 0;
        for (index, segment) in segments.iter().enumerate() {
            if let Some(proven) = self.proven(segment) {
                next = proven.end_seq;
                continue;
            }
            let (_, findings, _) = self.read(segment, &mut next)?;
            let later = segments.get(index + 1).map(|later| later.first_seq);
            let at_end = later.is_none_or(|first_seq| first_seq >= self.announced);
            for finding in findings {
                if finding.class(self.announced, at_end) != Class::Tail {
                    violated!(
                        "{}: a crash left what reads as damage, {} announced: {finding}, {finding:?}",
                        segment.name,
                        self.announced
                    );
                }
            }
        }
        if next < self.announced {
            violated!("{} records were announced, {next} are left", self.announced);
        }
        Ok(())
    }

    /// What recovery went on from: the trail is sealed, whole and flawless, holds all that was
    /// announced and nothing that was not accepted, and survives a power cut as it is.
    pub(crate) fn check_recovered(
        &mut self,
        sim: &SimDisk,
        recovered: &Recovered,
        seed: u64,
    ) -> Result<(), Violation> {
        let next_seq = recovered.next_seq();
        if next_seq < self.announced {
            violated!("recovery kept {next_seq} of {} announced records", self.announced);
        }
        if next_seq > self.accepted() {
            violated!("recovery found {next_seq} of {} accepted records", self.accepted());
        }
        // Nothing is in flight: only what no barrier covers is at risk, and no bit is to flip here.
        let mut quiet = sim.kill_with(seed);
        quiet.set_faults(SimFaults::none());
        let mut left = quiet.crash_with(seed);
        let whole = self.check_sealed(&mut left)?;
        if whole.range != recovered.before {
            violated!("recovery goes on from another tree than the trail's");
        }
        if (whole.next_segment, whole.prev_crc)
            != (recovered.next_segment, recovered.prev_trailer_crc)
        {
            violated!("recovery goes on from another segment than the trail's last");
        }
        self.accepted.truncate(next_seq as usize);
        self.announce(next_seq)
    }

    /// A trail that no writer has: every segment sealed, no finding, all linked.
    pub(crate) fn check_sealed(&mut self, disk: &mut SimDisk) -> Result<Whole, Violation> {
        for listed in disk.list().expect("a simulated list") {
            if !matches!(Name::parse(&listed.name), Some(Name::Segment { .. })) {
                violated!("{} was left behind", listed.name);
            }
        }
        let mut whole =
            Whole { range: CompactRange::new(0), next_segment: 0, prev_crc: 0, next_seq: 0 };
        let (mut in_force, mut seen) = (self.first, BTreeSet::new());
        for segment in segments(disk) {
            let known = self.proven(&segment).cloned();
            let (outcome, signed) = match known {
                Some(proven) => {
                    whole.next_seq = proven.end_seq;
                    (proven.outcome, proven.signed)
                }
                None => {
                    let (outcome, findings, signed) = self.read(&segment, &mut whole.next_seq)?;
                    if let Some(finding) = findings.first() {
                        violated!("{}: {finding}, {finding:?}", segment.name);
                    }
                    self.prove(&segment, &outcome, whole.next_seq, &signed);
                    (outcome, signed)
                }
            };
            whole.link(&segment, &outcome)?;
            let begins = outcome.header.as_ref().and_then(begins_with);
            if begins != in_force {
                violated!("{}: {begins:?} signs where {in_force:?} should", segment.name);
            }
            in_force = signed.in_force;
            seen.extend(signed.notes);
        }
        if let Some(lost) = self.published.iter().find(|note| !seen.contains(*note)) {
            violated!("a published checkpoint is not in the trail: {lost}");
        }
        Ok(whole)
    }

    /// How many records the segments of a disk say were announced durable.
    #[must_use]
    pub(crate) fn stated(&self, disk: &mut SimDisk) -> u64 {
        let stated = |segment: &Segment| {
            let mut scanner = self.scanner(segment);
            while scanner.next_event().is_some() {}
            scanner.outcome().announced
        };
        segments(disk).iter().map(stated).max().unwrap_or(0)
    }

    /// A trail with a flipped bit that recovery did not refuse, of which `next_seq` records are
    /// left. Returns whether a reader finds something wrong with it. What was known to be
    /// announced from the disk itself must be there, or else be missed.
    pub(crate) fn check_flipped(
        &mut self,
        disk: &mut SimDisk,
        next_seq: u64,
        stated: u64,
    ) -> Result<bool, Violation> {
        let mut found = false;
        // Nothing but findings can excuse a hole.
        self.announced = 0;
        let mut next = 0;
        for segment in segments(disk) {
            let (_, findings, _) = self.read(&segment, &mut next)?;
            found |= !findings.is_empty();
        }
        if !found && (next != next_seq || next < stated) {
            violated!("a flipped bit took records from {next} on: {next_seq} said, {stated} known");
        }
        Ok(found)
    }

    fn scanner(&self, segment: &Segment) -> Scanner<Reading> {
        let Segment { number, first_seq, .. } = *segment;
        let trail_id = Some(self.trail_id);
        let mut scanner = Scanner::with_hashing(
            Expect { segment: number, first_seq, trail_id, merkle: true },
            Reading::new(),
        );
        scanner.push(&segment.bytes);
        scanner.end();
        scanner
    }

    /// Reads a segment and compares every record. `next` is the seq that must follow.
    fn read(
        &mut self,
        segment: &Segment,
        next: &mut u64,
    ) -> Result<(Outcome, Vec<Finding>, Signatures), Violation> {
        let name = &segment.name;
        let mut scanner = self.scanner(segment);
        let (mut findings, mut signed) = (Vec::new(), Signatures::default());
        while let Some(event) = scanner.next_event() {
            let (seq, found) = match event {
                Event::Header(header) => {
                    signed.in_force = begins_with(header);
                    continue;
                }
                Event::Finding(finding) => {
                    findings.push(finding);
                    // What is missing may have named the next key.
                    signed.in_force = None;
                    continue;
                }
                Event::Record { seq, record, .. } => (seq, record),
                _ => continue,
            };
            let Some(accepted) = self.accepted.get(seq as usize) else {
                violated!("{name}: seq {seq} is there and was never accepted");
            };
            match accepted {
                Some(accepted) if self.content.record(accepted) != found => {
                    violated!("{name}: seq {seq} is not what was accepted");
                }
                None if !found.flags.contains(Flags::CHECKPOINT) => {
                    violated!("{name}: seq {seq} is no checkpoint");
                }
                None if signed.in_force.is_some() => signed.add(found.bytes, seq, self.trail_id)?,
                _ => {}
            }
            // A hole is a matter for the findings, but nothing announced may be in it.
            if seq < *next || (seq > *next && *next < self.announced) {
                violated!("{name}: seq {seq} is where {next} should be");
            }
            *next = if seq == *next { seq + 1 } else { *next };
        }
        let outcome = scanner.outcome();
        if let Some(trailer) = outcome.trailer.as_ref().filter(|_| signed.in_force.is_some()) {
            signed.add(&trailer.note, trailer.end_seq(), self.trail_id)?;
        }
        Ok((outcome, findings, signed))
    }

    fn proven(&self, segment: &Segment) -> Option<&Proven> {
        let checksum = graven_format::checksum::crc32(&segment.bytes);
        self.proven.get(&segment.name).filter(|proven| proven.checksum == checksum)
    }

    fn prove(&mut self, segment: &Segment, outcome: &Outcome, end_seq: u64, signed: &Signatures) {
        let checksum = graven_format::checksum::crc32(&segment.bytes);
        let signed = signed.clone();
        let proven = Proven { checksum, end_seq, outcome: outcome.clone(), signed };
        self.proven.insert(segment.name.clone(), proven);
    }
}

/// The key that signs when a segment begins, if one does.
fn begins_with(header: &SegmentHeader) -> Option<InForce> {
    let in_force = InForce { epoch: header.epoch, key: header.key };
    (in_force.key != [0; 32]).then_some(in_force)
}

impl Signatures {
    /// The next note, over `size` records: the key of its place must have signed it.
    fn add(&mut self, note: &[u8], size: u64, trail_id: TrailId) -> Result<(), Violation> {
        let Some(in_force) = &mut self.in_force else { return Ok(()) };
        let key = PublicKey::new(&origin(trail_id), &in_force.key);
        let (Ok(parsed), Ok(key)) = (Note::parse(note), key) else {
            violated!("no note over {size}: {}", String::from_utf8_lossy(note));
        };
        if parsed.verify(&key) != Signed::Yes || parsed.checkpoint.head.size != size {
            violated!("the note over {size} is not signed by the key of its place: {parsed:?}");
        }
        if let Some(next) = parsed.checkpoint.successor {
            *in_force = InForce { epoch: in_force.epoch + 1, key: next.bytes() };
        }
        self.notes.push(String::from_utf8_lossy(note).into_owned());
        Ok(())
    }
}

/// A sealed trail as far as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Whole {
    range: CompactRange,
    next_segment: u64,
    prev_crc: u32,
    next_seq: u64,
}

impl Whole {
    /// The next segment names what is before it, and its trailer all up to its end.
    fn link(&mut self, segment: &Segment, outcome: &Outcome) -> Result<(), Violation> {
        let (Some(header), Some(trailer)) = (&outcome.header, &outcome.trailer) else {
            violated!("{} is not sealed", segment.name);
        };
        if segment.number != self.next_segment {
            violated!("{} should be segment {}", segment.name, self.next_segment);
        }
        if header.before != self.range {
            violated!("{}: its header's tree is not that of what is before it", segment.name);
        }
        if header.prev_crc != self.prev_crc {
            violated!("{}: its header does not name the trailer before it", segment.name);
        }
        self.range.extend(&trailer.range);
        if self.range.root() != Some(trailer.root) || self.range.end() != self.next_seq {
            violated!("{}: its trailer does not state the tree of its records", segment.name);
        }
        self.prev_crc = trailer.chain_crc();
        self.next_segment += 1;
        Ok(())
    }
}

/// The segments of a disk, oldest first.
fn segments(disk: &mut SimDisk) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for listed in disk.list().expect("a simulated list") {
        let Some(Name::Segment { segment, first_seq }) = Name::parse(&listed.name) else {
            continue;
        };
        let bytes = disk.content(&listed.name).expect("a listed file");
        segments.push(Segment { number: segment, first_seq, name: listed.name, bytes });
    }
    debug_assert!(segments.is_sorted_by_key(|s| name::segment(s.number, s.first_seq)));
    segments
}
