//! The one reader: push the bytes of a segment in, get its records and what is wrong with it out.
//!
//! A [`Scanner`] never fails and never stops at damage: it reports a [`Finding`], looks for the
//! next intact frame or trailer at the following aligned offset, and goes on. Recovery, verify,
//! show, export and fuzzing all read through it.
//!
//! ```text
//! header │ frame │ frame │ … │ zeros │ trailer        sealed
//! header │ frame │ frame │ … │ zeros                  being written
//! header │ frame │ unreadable │ frame │ …             damage, or writes that were cut off
//! ```

use crate::bytes::is_zero;
use crate::consts::{ALIGN_BYTES_MIN, FRAME_HEADER_BYTES};
use crate::error::FormatError;
use crate::finding::{Finding, FindingKind};
use crate::frame::FrameHeader;
use crate::merkle::{CompactRange, leaf_hash_stored};
use crate::record::Record;
use crate::segment::{SegmentHeader, TrailId};
use crate::trailer::{Tally, TallyFrame, Trailer};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

/// What the reader knows of a segment before it reads it.
#[derive(Clone, Copy, Debug)]
pub struct Expect {
    /// The segment's number, from its name.
    pub segment: u64,
    /// Seq of its first record, from its name.
    pub first_seq: u64,
    /// The trail, if known.
    pub trail_id: Option<TrailId>,
    /// Whether to hash every record and check the trailer's Merkle tree.
    pub merkle: bool,
}

/// What the scanner came to next.
#[derive(Debug)]
pub enum Event<'a> {
    /// The segment's header, intact.
    Header(&'a SegmentHeader),
    /// A frame, intact; its records follow.
    Frame {
        /// Its header.
        header: &'a FrameHeader,
        /// Its offset in the file.
        offset: u64,
    },
    /// A record of an intact frame.
    Record {
        /// Its sequence.
        seq: u64,
        /// Its offset in the file.
        offset: u64,
        /// The record.
        record: Record<'a>,
    },
    /// The segment's trailer, intact.
    Trailer(&'a Trailer),
    /// Something is wrong.
    Finding(Finding),
}

/// The longest intact prefix of a segment: what recovery keeps.
#[derive(Clone, Debug)]
pub struct Prefix {
    /// Seq that follows it.
    pub next_seq: u64,
    /// Its frames.
    pub tally: Tally,
    /// The compact range of its records, if the scanner was told to hash them.
    pub range: Option<CompactRange>,
}

/// What is known at the end of a segment.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The header, if it was readable.
    pub header: Option<SegmentHeader>,
    /// The trailer, if there is an intact one.
    pub trailer: Option<Trailer>,
    /// What is intact and without a hole from the start.
    pub prefix: Prefix,
    /// Most records that anything intact in the segment says were announced durable.
    pub announced: u64,
    /// Seq after the last intact record, whatever is missing before it.
    pub end_seq: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Body,
    Records,
    AfterTrailer,
    Done,
}

/// The frame whose records are being given out.
#[derive(Debug)]
struct Current {
    header: FrameHeader,
    offset: u64,
    /// Where the next record starts, from the frame's start.
    at: usize,
    /// Where its records end, from the frame's start.
    end: usize,
    index: u32,
    realtime_first_ns: u64,
    realtime_min_ns: u64,
    realtime_max_ns: u64,
}

/// Bytes that are no frame, until something intact follows or the file ends.
#[derive(Debug)]
struct Bad {
    start: u64,
    why: FormatError,
    zero: bool,
}

#[derive(Debug)]
enum Step {
    Header,
    Frame,
    Record { seq: u64, offset: u64, stored: Range<usize> },
    Trailer,
    Finding(Finding),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Scanner {
    expect: Expect,
    state: State,
    buf: Vec<u8>,
    /// Bytes of `buf` that have been read.
    used: usize,
    /// Offset in the file of `buf[used]`.
    offset: u64,
    ended: bool,
    align_bytes: u32,
    header: Option<SegmentHeader>,
    current: Option<Current>,
    bad: Option<Bad>,
    next_seq: u64,
    announced: u64,
    tally: Tally,
    range: Option<CompactRange>,
    /// The prefix as it was at the first finding.
    cut: Option<Prefix>,
    trailer: Option<Trailer>,
    after_trailer: u64,
    /// What is to be said next; one push of bytes adds few.
    pending: VecDeque<Step>,
}

impl Scanner {
    /// A scanner for one segment.
    #[must_use]
    pub fn new(expect: Expect) -> Self {
        Self {
            state: State::Header,
            buf: Vec::new(),
            used: 0,
            offset: 0,
            ended: false,
            align_bytes: ALIGN_BYTES_MIN,
            header: None,
            current: None,
            bad: None,
            next_seq: expect.first_seq,
            announced: 0,
            tally: Tally::new(0, 0),
            range: expect.merkle.then(|| CompactRange::new(expect.first_seq)),
            cut: None,
            trailer: None,
            after_trailer: 0,
            pending: VecDeque::new(),
            expect,
        }
    }

    /// Adds the next bytes of the file. Call [`Scanner::next_event`] until it returns `None`
    /// before pushing more, so that memory stays at one push and one frame.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.drain(..self.used);
        self.used = 0;
        self.buf.extend_from_slice(bytes);
    }

    /// Says that the file has no more bytes.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The next event, or `None` when more bytes are needed or all has been said.
    pub fn next_event(&mut self) -> Option<Event<'_>> {
        let step = self.step()?;
        Some(match step {
            Step::Header => Event::Header(self.header.as_ref()?),
            Step::Frame => {
                let current = self.current.as_ref()?;
                Event::Frame { header: &current.header, offset: current.offset }
            }
            Step::Record { seq, offset, stored } => {
                let (record, _) = Record::decode(&self.buf[stored]).ok()?;
                Event::Record { seq, offset, record }
            }
            Step::Trailer => Event::Trailer(self.trailer.as_ref()?),
            Step::Finding(finding) => Event::Finding(finding),
        })
    }

    /// What is known at the end; complete once [`Scanner::end`] was called and
    /// [`Scanner::next_event`] has returned `None`.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        let now = Prefix { next_seq: self.next_seq, tally: self.tally, range: self.range };
        Outcome {
            header: self.header,
            trailer: self.trailer,
            prefix: self.cut.unwrap_or(now),
            announced: self.announced,
            end_seq: self.next_seq,
        }
    }

    fn left(&self) -> &[u8] {
        &self.buf[self.used..]
    }

    fn skip(&mut self, bytes: usize) {
        self.used += bytes;
        self.offset += bytes as u64;
    }

    /// Notes a finding and where the intact prefix ended when it was the first.
    fn report(&mut self, kind: FindingKind, offset: u64, len: u64, missing: u64) {
        self.cut.get_or_insert_with(|| Prefix {
            next_seq: self.next_seq,
            tally: self.tally.clone(),
            range: self.range.clone(),
        });
        let finding = Finding { kind, offset, len, seq: self.next_seq, missing };
        self.pending.push_back(Step::Finding(finding));
    }

    fn step(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.pending.pop_front() {
                return Some(step);
            }
            let went_on = match self.state {
                State::Header => self.step_header(),
                State::Body => self.step_body(),
                State::Records => match self.step_record() {
                    Some(step) => return Some(step),
                    None => true,
                },
                State::AfterTrailer => self.step_after_trailer(),
                State::Done => {
                    self.skip(self.left().len());
                    false
                }
            };
            if !went_on && self.pending.is_empty() {
                return None;
            }
        }
    }

    /// Reads the header. Like the other steps, returns false when it needs more bytes.
    fn step_header(&mut self) -> bool {
        let decoded = match SegmentHeader::header_len(self.left()) {
            Err(FormatError::Short { .. }) if !self.ended => return false,
            Ok(len) if self.left().len() < len && !self.ended => return false,
            Ok(len) => match self.left().get(..len) {
                Some(bytes) => SegmentHeader::decode(bytes).map(|header| (header, len)),
                None => {
                    let (needed, have) = (len as u64, self.left().len() as u64);
                    Err(FormatError::Short { what: "segment header", needed, have })
                }
            },
            Err(why) => Err(why),
        };
        self.state = State::Body;
        match decoded {
            Ok((header, len)) => self.accept_header(header, len),
            Err(_) if self.left().is_empty() => {
                self.report(FindingKind::EmptyFile, 0, 0, 0);
                self.state = State::Done;
            }
            Err(why) => {
                // Go on with what the name says; frames are found by their own checksums.
                let len = self.left().len().min(ALIGN_BYTES_MIN as usize);
                if why.is_unsupported() {
                    self.state = State::Done;
                }
                self.report(FindingKind::Header(why), 0, len as u64, 0);
                self.skip(len);
                self.tally = Tally::new(len as u64, 0);
            }
        }
        true
    }

    fn accept_header(&mut self, header: SegmentHeader, len: usize) {
        let misplaced = [
            ("segment", self.expect.segment, header.segment),
            ("first_seq", self.expect.first_seq, header.first_seq),
        ];
        for (field, expected, found) in misplaced {
            if expected != found {
                self.report(FindingKind::Misplaced { field, expected, found }, 0, len as u64, 0);
            }
        }
        if let Some(expected) = self.expect.trail_id.filter(|id| *id != header.trail_id) {
            let high = |id: TrailId| crate::bytes::get_u64(&id.0, 0);
            let (expected, found) = (high(expected), high(header.trail_id));
            let kind = FindingKind::Misplaced { field: "trail_id", expected, found };
            self.report(kind, 0, len as u64, 0);
        }
        self.align_bytes = header.align_bytes;
        self.tally = Tally::new(len as u64, header.crc);
        self.expect.trail_id = Some(header.trail_id);
        self.expect.segment = header.segment;
        self.header = Some(header);
        self.skip(len);
        self.pending.push_back(Step::Header);
    }

    /// Looks at the next aligned offset: a frame, a trailer, or neither.
    fn step_body(&mut self) -> bool {
        let align = self.align_bytes as usize;
        let left = self.left();
        if left.len() < align && !self.ended {
            return false;
        }
        if left.is_empty() {
            self.finish();
            return true;
        }
        let outcome = if FrameHeader::starts(left) {
            match self.read_frame() {
                Some(outcome) => outcome,
                None => return false,
            }
        } else if Trailer::starts(left) {
            match self.read_trailer() {
                Some(outcome) => outcome,
                None => return false,
            }
        } else {
            Err(FormatError::Magic("frame"))
        };
        if let Err(why) = outcome {
            let block = &self.left()[..align.min(self.left().len())];
            let (len, zero) = (block.len(), is_zero(block));
            let start = self.offset;
            let bad = self.bad.get_or_insert(Bad { start, why: why.clone(), zero: true });
            if bad.zero && !zero {
                // The zeros before it are only room that was not used.
                bad.why = why;
                bad.zero = false;
            }
            self.skip(len);
        }
        true
    }

    /// The frame at the present offset, accepted, or why not; `None` when it needs more bytes.
    fn read_frame(&mut self) -> Option<Result<(), FormatError>> {
        let left = self.left();
        let len = match FrameHeader::frame_len(left, self.align_bytes) {
            Ok(len) => len,
            Err(FormatError::Short { .. }) if !self.ended => return None,
            Err(why) => return Some(Err(why)),
        };
        let Some(frame) = left.get(..len) else {
            let (needed, have) = (len as u64, left.len() as u64);
            return self.ended.then_some(Err(FormatError::Short { what: "frame", needed, have }));
        };
        let header = match FrameHeader::decode(frame) {
            Ok((header, _)) => header,
            Err(why) => return Some(Err(why)),
        };
        let foreign = |field, value| Some(Err(FormatError::Field { what: "frame", field, value }));
        if self.expect.trail_id.is_some_and(|id| id != header.trail_id) {
            return foreign("trail_id", 0);
        }
        if self.expect.segment != header.segment {
            return foreign("segment", header.segment);
        }
        self.accept_frame(header);
        Some(Ok(()))
    }

    fn accept_frame(&mut self, header: FrameHeader) {
        let offset = self.offset;
        let frame_len = u64::from(header.frame_len);
        self.expect.trail_id = Some(header.trail_id);
        if let Some(bad) = self.bad.take() {
            let missing = header.first_seq.saturating_sub(self.next_seq);
            self.report(FindingKind::Unreadable(bad.why), bad.start, offset - bad.start, missing);
        } else {
            let (expected, found) = (self.tally.last_crc, header.prev_crc);
            if expected != found && self.header.is_some() {
                self.report(FindingKind::Chain { expected, found }, offset, frame_len, 0);
            }
            let (expected, found) = (self.next_seq, header.first_seq);
            if expected < found {
                let kind = FindingKind::Sequence { expected, found };
                self.report(kind, offset, frame_len, found - expected);
            }
        }
        let (expected, found) = (self.next_seq, header.first_seq);
        if found < expected {
            self.report(FindingKind::Sequence { expected, found }, offset, frame_len, 0);
        }
        if header.first_seq != self.next_seq {
            // Leaves are missing or doubled: the tree cannot be computed any more.
            self.range = None;
        }
        self.next_seq = header.first_seq;
        self.announced = self.announced.max(header.announced);
        self.current = Some(Current {
            header,
            offset,
            at: FRAME_HEADER_BYTES,
            end: FRAME_HEADER_BYTES + header.payload_len as usize,
            index: 0,
            realtime_first_ns: 0,
            realtime_min_ns: u64::MAX,
            realtime_max_ns: 0,
        });
        self.state = State::Records;
        self.pending.push_back(Step::Frame);
    }

    /// The next record of the current frame; `None` at its end.
    fn step_record(&mut self) -> Option<Step> {
        let current = self.current.as_mut()?;
        if current.at == current.end {
            self.end_frame();
            return None;
        }
        let (start, end) = (self.used + current.at, self.used + current.end);
        let offset = current.offset + current.at as u64;
        match Record::decode(&self.buf[start..end]) {
            Ok((record, _)) => {
                let stored = start..start + record.stored_len();
                if current.index == 0 {
                    current.realtime_first_ns = record.realtime_ns;
                }
                current.realtime_min_ns = current.realtime_min_ns.min(record.realtime_ns);
                current.realtime_max_ns = current.realtime_max_ns.max(record.realtime_ns);
                current.index += 1;
                current.at += stored.len();
                if let Some(range) = &mut self.range {
                    range.append(leaf_hash_stored(&self.buf[stored.clone()]));
                }
                let seq = self.next_seq;
                self.next_seq = self.next_seq.saturating_add(1);
                Some(Step::Record { seq, offset, stored })
            }
            Err(why) => {
                let len = (current.end - current.at) as u64;
                current.at = current.end;
                self.report(FindingKind::Record(why), offset, len, 0);
                None
            }
        }
    }

    fn end_frame(&mut self) {
        self.state = State::Body;
        let Some(current) = self.current.take() else { return };
        let (stated, found) = (current.header.record_count, current.index);
        if stated != found {
            let kind = FindingKind::RecordCount { stated, found };
            self.report(kind, current.offset, current.header.frame_len.into(), 0);
        }
        self.tally.add(&TallyFrame {
            first_seq: current.header.first_seq,
            offset: current.offset,
            frame_len: current.header.frame_len.into(),
            crc: current.header.crc,
            record_count: found.into(),
            record_bytes: current.header.payload_len.into(),
            realtime_first_ns: current.realtime_first_ns,
            realtime_min_ns: current.realtime_min_ns,
            realtime_max_ns: current.realtime_max_ns,
        });
        self.skip(current.header.frame_len as usize);
    }

    /// The trailer at the present offset, accepted, or why not; `None` when it needs more bytes.
    fn read_trailer(&mut self) -> Option<Result<(), FormatError>> {
        let left = self.left();
        let len = match Trailer::trailer_len(left, self.align_bytes) {
            Ok(len) => len,
            Err(FormatError::Short { .. }) if !self.ended => return None,
            Err(why) => return Some(Err(why)),
        };
        let Some(bytes) = left.get(..len) else {
            let (needed, have) = (len as u64, left.len() as u64);
            let what = "segment trailer";
            return self.ended.then_some(Err(FormatError::Short { what, needed, have }));
        };
        let trailer = match Trailer::decode(bytes) {
            Ok(trailer) => trailer,
            Err(why) => return Some(Err(why)),
        };
        let foreign =
            |field, value| Some(Err(FormatError::Field { what: "segment trailer", field, value }));
        if self.expect.trail_id.is_some_and(|id| id != trailer.trail_id) {
            return foreign("trail_id", 0);
        }
        if self.expect.segment != trailer.segment {
            return foreign("segment", trailer.segment);
        }
        self.accept_trailer(trailer);
        self.skip(len);
        Some(Ok(()))
    }

    fn accept_trailer(&mut self, trailer: Trailer) {
        let (offset, len) = (self.offset, u64::from(trailer.trailer_len));
        let missing = trailer.end_seq().saturating_sub(self.next_seq);
        match self.bad.take() {
            Some(bad) if missing > 0 => {
                self.report(
                    FindingKind::Unreadable(bad.why),
                    bad.start,
                    offset - bad.start,
                    missing,
                );
            }
            Some(bad) if !bad.zero => {
                self.report(FindingKind::Gap, bad.start, offset - bad.start, 0);
            }
            _ => {}
        }
        // Once something is missing the counts cannot agree, and it has been said.
        if self.cut.is_none() {
            if let Some(field) = self.trailer_difference(&trailer) {
                self.report(FindingKind::Trailer { field }, offset, len, missing);
            }
            let root_matches = match (&self.range, &self.header) {
                (Some(range), Some(header)) if *range == trailer.range => {
                    let mut whole = header.before.clone();
                    whole.extend(range);
                    whole.root() == Some(trailer.root)
                }
                (Some(_), Some(_)) => false,
                _ => true,
            };
            if !root_matches {
                self.report(FindingKind::Root, offset, len, 0);
            }
        }
        self.announced = self.announced.max(trailer.end_seq());
        self.trailer = Some(trailer);
        self.state = State::AfterTrailer;
        self.pending.push_back(Step::Trailer);
    }

    /// The first field of the trailer that is not what was read.
    fn trailer_difference(&self, trailer: &Trailer) -> Option<&'static str> {
        let (found, stated) = (&self.tally, &trailer.tally);
        [
            ("first_seq", self.expect.first_seq == trailer.first_seq),
            ("record_count", found.record_count == stated.record_count),
            ("frame_count", found.frame_count == stated.frame_count),
            ("frames_end", found.frames_end == stated.frames_end),
            ("last_crc", found.last_crc == stated.last_crc),
            ("realtime_min_ns", found.realtime_min_ns == stated.realtime_min_ns),
            ("realtime_max_ns", found.realtime_max_ns == stated.realtime_max_ns),
            ("record_bytes", found.record_bytes == stated.record_bytes),
            ("index", found.index == stated.index),
        ]
        .into_iter()
        .find_map(|(field, same)| (!same).then_some(field))
    }

    /// Counts what follows the trailer.
    fn step_after_trailer(&mut self) -> bool {
        let len = self.left().len();
        self.after_trailer += len as u64;
        self.skip(len);
        if !self.ended {
            return false;
        }
        if self.after_trailer > 0 {
            let start = self.offset - self.after_trailer;
            self.report(FindingKind::AfterTrailer, start, self.after_trailer, 0);
        }
        self.state = State::Done;
        true
    }

    /// The file has ended without a trailer.
    fn finish(&mut self) {
        self.state = State::Done;
        let file_len = self.offset;
        if let Some(bad) = self.bad.take_if(|bad| !bad.zero) {
            self.report(FindingKind::Tail(bad.why), bad.start, file_len - bad.start, 0);
        }
        let reserved = self.header.as_ref().map(|header| header.segment_len);
        if let Some(reserved) = reserved.filter(|reserved| *reserved != file_len) {
            self.report(FindingKind::Truncated { reserved }, file_len, 0, 0);
        }
    }
}
