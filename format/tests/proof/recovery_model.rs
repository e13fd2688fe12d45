//! A small model of writer, disk and power cut: whatever part of the writes in flight reached the
//! disk, recovery refuses nothing, keeps every announced record, and ends in a sealed trail, even
//! when it is itself cut off and started again.

use crate::common::{Rec, Scanned, Segment, TRAIL, recs, scan};
use graven_format::consts::SEGMENT_BYTES_MIN;
use graven_format::recovery::{Action, Decision, Found, decide};
use graven_format::scan::{Expect, Prefix};
use graven_format::segment::SegmentHeader;
use graven_format::trailer::{SealReason, Trailer};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// SplitMix64: all choices of a run follow from one seed.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True in `of_100` of 100 cases.
    fn chance(&mut self, of_100: u64) -> bool {
        self.below(100) < of_100
    }
}

/// How a run treats sectors, so that runs differ in kind and not only in detail.
#[derive(Clone, Copy, Debug)]
struct Weather {
    align_bytes: u32,
    in_flight_max: usize,
    frames_per_segment: u64,
    /// Chance that a write in flight is there as a whole, and the chance that it is not at all.
    whole_of_100: u64,
    none_of_100: u64,
    /// Chance that a sector which did not arrive holds something else than before.
    garbage_of_100: u64,
    /// Chance that recovery is cut off too, at each of its operations.
    again_of_100: u64,
}

impl Weather {
    fn new(rng: &mut Rng) -> Self {
        Self {
            align_bytes: [512, 512, 4096][rng.below(3) as usize],
            in_flight_max: 1 + rng.below(5) as usize,
            frames_per_segment: 1 + rng.below(6),
            whole_of_100: [0, 30, 60][rng.below(3) as usize],
            none_of_100: [0, 30, 60][rng.below(3) as usize],
            garbage_of_100: [0, 0, 20][rng.below(3) as usize],
            again_of_100: [0, 30, 60][rng.below(3) as usize],
        }
    }
}

type Key = (u64, u64);

/// The trail directory: segments by number and first seq.
#[derive(Clone, Default)]
struct Disk {
    files: BTreeMap<Key, Vec<u8>>,
}

impl Disk {
    fn write(&mut self, key: Key, offset: usize, data: &[u8]) {
        let file = self.files.get_mut(&key).expect("written after it was created");
        file[offset..offset + data.len()].copy_from_slice(data);
    }

    /// The power goes while `data` is on its way: each sector is new, old, or neither.
    fn write_cut_off(
        &mut self,
        key: Key,
        offset: usize,
        data: &[u8],
        weather: Weather,
        rng: &mut Rng,
    ) {
        let fate = rng.below(100);
        if fate < weather.whole_of_100 {
            return self.write(key, offset, data);
        }
        if fate < weather.whole_of_100 + weather.none_of_100 {
            return;
        }
        for (sector, start) in data.chunks(512).zip((offset..).step_by(512)) {
            if rng.chance(50) {
                self.write(key, start, sector);
            } else if rng.chance(weather.garbage_of_100) {
                let garbage: Vec<u8> = sector.iter().map(|_| rng.next() as u8).collect();
                self.write(key, start, &garbage);
            }
        }
    }

    fn scan(&self, key: Key) -> (Expect, Scanned) {
        let (segment, first_seq) = key;
        let expect = Expect { segment, first_seq, trail_id: Some(TRAIL), merkle: true };
        (expect, scan(&self.files[&key], expect))
    }

    fn found(&self, key: Key) -> Found {
        let (expect, scanned) = self.scan(key);
        scanned.found(&expect)
    }
}

/// A write that the writer has submitted, in the order of the trail.
struct Write {
    key: Key,
    offset: usize,
    data: Vec<u8>,
    /// Records that it makes durable.
    records: u64,
    trailer: bool,
    complete: bool,
}

/// One life of the writer, from recovery to power cut.
struct Life {
    weather: Weather,
    segment: Segment,
    /// The segment before, if its trailer was not submitted yet.
    unsealed_before: Option<Segment>,
    writes: Vec<Write>,
    announced: u64,
    /// Whether it was told to stop: then no successor is created.
    stopping: bool,
    /// Every record that was handed to the disk, by its seq.
    formed: Vec<Rec>,
    disk: Disk,
}

impl Life {
    fn key(segment: &Segment) -> Key {
        (segment.header.segment, segment.header.first_seq)
    }

    /// Creates the file of a segment: durable, header included, before it has its name.
    fn create(&mut self) {
        let key = Self::key(&self.segment);
        assert!(self.disk.files.insert(key, self.segment.unsealed()).is_none());
    }

    fn in_flight(&self) -> usize {
        self.writes.iter().filter(|write| !write.complete).count()
    }

    /// Moves the watermark over the complete prefix. What follows a trailer waits for it, whether
    /// or not it was submitted yet: until then the segment after it may be taken for an orphan.
    fn announce(&mut self) {
        let unsealed = self.unsealed_before.as_ref().map(Self::key);
        let waits = |write: &Write| !write.complete || unsealed.is_some_and(|key| write.key > key);
        let complete = self.writes.iter().position(waits);
        let done = self.writes.drain(..complete.unwrap_or(self.writes.len()));
        self.announced += done.map(|write| write.records).sum::<u64>();
    }

    /// Submits the trailer of the segment before as soon as all of its frames are complete.
    fn submit_trailer(&mut self, reason: SealReason) {
        let Some(before) = &self.unsealed_before else { return };
        let key = Self::key(before);
        if self.writes.iter().any(|write| write.key == key && !write.complete) {
            return;
        }
        let data = before.trailer(reason).encode(self.weather.align_bytes).0;
        let offset = match reason {
            SealReason::Full => SEGMENT_BYTES_MIN as usize - data.len(),
            _ => before.bytes.len(),
        };
        let write = Write { key, offset, data, records: 0, trailer: true, complete: false };
        // Its place in the order is before the frames of the segment after.
        let at = self.writes.iter().position(|write| write.key > key).unwrap_or(self.writes.len());
        self.writes.insert(at, write);
        self.unsealed_before = None;
    }

    /// Whether the trailer of the segment before is not durable yet.
    fn changing(&self) -> bool {
        self.unsealed_before.is_some() || self.writes.iter().any(|write| write.trailer)
    }

    /// Forms a frame and submits it, in a new segment where the present one is full.
    fn submit_frame(&mut self, rng: &mut Rng) {
        if self.segment.frames.len() as u64 >= self.weather.frames_per_segment {
            if self.changing() {
                return;
            }
            let successor = self.segment.successor(&self.segment.trailer(SealReason::Full));
            self.unsealed_before = Some(std::mem::replace(&mut self.segment, successor));
            self.create();
        }
        let records = recs(self.formed.len() as u64, 1 + rng.below(4), rng.below(700) as usize);
        // The watermark does not know of the records behind a trailer in flight.
        let announced = self.announced;
        self.segment.frame(&records, announced);
        let at = *self.segment.frames.last().expect("just added");
        self.writes.push(Write {
            key: Self::key(&self.segment),
            offset: at.offset,
            data: self.segment.bytes[at.offset..at.end()].to_vec(),
            records: records.len() as u64,
            trailer: false,
            complete: false,
        });
        self.formed.extend(records);
    }

    fn complete_one(&mut self, rng: &mut Rng) {
        let in_flight = self.in_flight() as u64;
        if in_flight == 0 {
            return;
        }
        let nth = rng.below(in_flight) as usize;
        let write = self.writes.iter_mut().filter(|write| !write.complete).nth(nth);
        let write = write.expect("one is in flight");
        write.complete = true;
        let (key, offset, data) = (write.key, write.offset, write.data.clone());
        self.disk.write(key, offset, &data);
        self.announce();
    }

    /// Writes until the power goes, and sometimes stops cleanly just before.
    fn run(&mut self, rng: &mut Rng) {
        for _ in 0..rng.below(40) {
            self.submit_trailer(SealReason::Full);
            if self.in_flight() < self.weather.in_flight_max && rng.chance(60) {
                self.submit_frame(rng);
            } else {
                self.complete_one(rng);
            }
        }
        self.submit_trailer(SealReason::Full);
        if rng.chance(25) {
            self.stop(rng);
        }
    }

    /// A clean stop that the power cut may still catch in any of its steps.
    fn stop(&mut self, rng: &mut Rng) {
        self.stopping = true;
        while self.in_flight() > 0 || self.unsealed_before.is_some() {
            self.submit_trailer(SealReason::Full);
            self.complete_one(rng);
        }
        if self.segment.frames.is_empty() {
            return;
        }
        let key = Self::key(&self.segment);
        self.unsealed_before = Some(self.segment.clone());
        self.submit_trailer(SealReason::Stop);
        if rng.chance(70) {
            let end = self.writes[0].offset + self.writes[0].data.len();
            self.complete_one(rng);
            if rng.chance(50) {
                self.disk.files.get_mut(&key).expect("there").truncate(end);
            }
        }
    }

    /// The power goes: what is left on the disk.
    fn power_cut(mut self, rng: &mut Rng) -> (Disk, u64, Vec<Rec>) {
        for write in self.writes.iter().filter(|write| !write.complete) {
            self.disk.write_cut_off(write.key, write.offset, &write.data, self.weather, rng);
        }
        let full = self.segment.frames.len() as u64 >= self.weather.frames_per_segment;
        if full && !self.stopping && !self.changing() && rng.chance(50) {
            // The next segment has its name and its header, and no frame was submitted to it.
            let successor = self.segment.successor(&self.segment.trailer(SealReason::Full));
            self.disk.files.insert(Self::key(&successor), successor.unsealed());
        }
        (self.disk, self.announced, self.formed)
    }
}

/// What recovery does to the directory, one durable step after the other.
enum Step {
    Remove(Key),
    Write(Key, usize, Vec<u8>),
    Truncate(Key, usize),
}

fn steps(disk: &Disk, last: Key, before: Option<Key>, decision: &Decision) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut target = last;
    if decision.remove_orphan {
        steps.push(Step::Remove(last));
        target = before.expect("an orphan has a segment before it");
    }
    match &decision.action {
        Action::None => {}
        Action::Remove => steps.push(Step::Remove(target)),
        Action::Trim(len) => steps.push(Step::Truncate(target, *len as usize)),
        Action::Seal(prefix) => {
            let (offset, bytes) = recovery_trailer(disk, target, prefix);
            let end = offset + bytes.len();
            assert!(end <= disk.files[&target].len(), "the writer kept room for a trailer");
            steps.push(Step::Write(target, offset, bytes));
            steps.push(Step::Truncate(target, end));
        }
    }
    steps
}

fn recovery_trailer(disk: &Disk, key: Key, prefix: &Prefix) -> (usize, Vec<u8>) {
    let header = disk.found(key).outcome.header.expect("a prefix has a header");
    let tree = prefix.tree.as_ref().expect("read with hashes");
    let trailer = Trailer::new(&header, prefix.tally.clone(), tree, SealReason::Recovery, 77);
    (prefix.tally.frames_end as usize, trailer.encode(header.align_bytes).0)
}

/// Recovers, cut off and started again as often as the weather has it, and returns the labels.
fn recover(disk: &mut Disk, weather: Weather, rng: &mut Rng) -> BTreeSet<&'static str> {
    let mut labels = BTreeSet::new();
    for attempt in 0.. {
        assert!(attempt < 100, "recovery does not come to an end");
        let mut keys = disk.files.keys().rev().copied();
        let (last, before) = (keys.next(), keys.next());
        let (last_found, before_found) =
            (last.map(|key| disk.found(key)), before.map(|key| disk.found(key)));
        let decision = decide(before_found.as_ref(), last_found.as_ref())
            .unwrap_or_else(|refusal| panic!("refused after a crash: {refusal:?}"));
        labels.insert(decision.label.name());
        if decision.remove_orphan {
            labels.insert("orphan");
        }
        let Some(last) = last else { break };
        let todo = steps(disk, last, before, &decision);
        if todo.is_empty() {
            break;
        }
        for step in todo {
            let cut_off = attempt < 20 && rng.chance(weather.again_of_100);
            let applied = !cut_off || rng.chance(50);
            match step {
                Step::Write(key, offset, data) if cut_off => {
                    disk.write_cut_off(key, offset, &data, weather, rng);
                }
                Step::Write(key, offset, data) => disk.write(key, offset, &data),
                Step::Remove(key) if applied => drop(disk.files.remove(&key)),
                Step::Truncate(key, len) if applied => {
                    disk.files.get_mut(&key).expect("there").truncate(len);
                }
                Step::Remove(_) | Step::Truncate(..) => {}
            }
            if cut_off {
                break;
            }
        }
    }
    labels
}

/// Asserts that every segment is sealed and follows the one before it, and returns all records
/// and the header that the next segment has.
fn sealed_trail(disk: &Disk) -> (Vec<Rec>, Option<SegmentHeader>) {
    let (mut records, mut next) = (Vec::new(), None::<SegmentHeader>);
    for key in disk.files.keys() {
        let (_, scanned) = disk.scan(*key);
        assert_eq!(scanned.findings, []);
        let header = scanned.outcome.header.expect("intact");
        let trailer = scanned.outcome.trailer.expect("sealed");
        if let Some(next) = next {
            assert_eq!(
                (next.prev_crc, next.segment, next.first_seq, &next.before),
                (header.prev_crc, header.segment, header.first_seq, &header.before)
            );
        }
        for (seq, rec) in scanned.records {
            assert_eq!(seq, records.len() as u64);
            records.push(rec);
        }
        let mut before = header.before.clone();
        before.extend(&trailer.range);
        next = Some(SegmentHeader {
            prev_crc: trailer.crc,
            segment: header.segment + 1,
            first_seq: trailer.end_seq(),
            before,
            ..header
        });
    }
    (records, next)
}

/// Three lives of a writer on one disk, a power cut after each.
fn lives(seed: u64) -> BTreeSet<&'static str> {
    let mut rng = Rng(seed);
    let mut labels = BTreeSet::new();
    let mut disk = Disk::default();
    for _ in 0..3 {
        let weather = Weather::new(&mut rng);
        let (formed, next) = sealed_trail(&disk);
        let segment = match next {
            None => Segment::first(weather.align_bytes),
            Some(next) => Segment::with(SegmentHeader { align_bytes: weather.align_bytes, ..next }),
        };
        let announced = formed.len() as u64;
        let mut life = Life {
            weather,
            segment,
            unsealed_before: None,
            writes: Vec::new(),
            announced,
            stopping: false,
            formed,
            disk,
        };
        life.create();
        life.run(&mut rng);
        let (announced, formed);
        (disk, announced, formed) = life.power_cut(&mut rng);
        labels.extend(recover(&mut disk, weather, &mut rng));
        let (records, _) = sealed_trail(&disk);
        assert!(records.len() as u64 >= announced, "{} of {announced} kept", records.len());
        assert_eq!(records[..], formed[..records.len()], "a prefix, as it was written");
    }
    labels
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_power_cut_is_recovered(seed in any::<u64>()) {
        lives(seed);
    }
}

/// Runs a fixed row of seeds; `GRAVEN_MODEL_SEEDS` says how many where more time can be spent.
#[test]
fn the_model_reaches_every_row_of_the_table() {
    let seeds = std::env::var("GRAVEN_MODEL_SEEDS").ok().and_then(|count| count.parse().ok());
    let mut labels = BTreeSet::new();
    for seed in 0..seeds.unwrap_or(120) {
        labels.extend(lives(seed));
    }
    let every = ["fresh", "sealed", "untrimmed", "unused", "open", "torn", "lost-write", "orphan"];
    assert_eq!(labels, BTreeSet::from(every));
}
