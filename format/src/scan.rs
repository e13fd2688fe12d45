//! The one reader: push the bytes of a segment in, get its records and what is wrong with it out.
//!
//! A [`Scanner`] never fails and never stops at damage: it reports a [`Finding`], looks for the
//! next intact frame or trailer at the following aligned offset, and goes on. Recovery, verify,
//! show, export and fuzzing all read through it.
//!
//! While it looks for what is intact it accepts only what names this trail and this segment:
//! the trail id is random and in no record, so that no record's payload can pass for a frame.
//!
//! ```text
//! header │ frame │ frame │ … │ zeros │ trailer        sealed
//! header │ frame │ frame │ … │ zeros                  being written
//! header │ frame │ unreadable │ frame │ …             damage, or writes that were cut off
//! ```

use crate::codec::Decoding;
use crate::consts::{ALIGN_BYTES_MIN, SEGMENT_BYTES_MAX};
use crate::error::FormatError;
use crate::finding::{Finding, FindingKind};
use crate::frame::FrameHeader;
use crate::merkle::{Hash, Hashing, OneByOne, SegmentTree};
use crate::record::Record;
use crate::segment::{SegmentHeader, TrailId};
use crate::trailer::{IndexEntry, Tally, Trailer};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

mod body;
mod tree;

use tree::Tree;

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
        /// Its offset in the file; its frame's if that is compressed.
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
    /// The tree of its records, if the scanner was told to hash them and the prefix does not end
    /// at a frame whose content is no records.
    pub tree: Option<SegmentTree>,
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
    /// Whether its records stand in [`Scanner::raw`] and not in what was pushed.
    decoded: bool,
    /// Where the next record starts, from the frame's start.
    at: usize,
    /// Where its records end, from the frame's start.
    end: usize,
    /// Up to where its records are in the tree, from the frame's start, and how many.
    hashed: (usize, u32),
    index: u32,
    realtime_first_ns: u64,
    realtime_min_ns: u64,
    realtime_max_ns: u64,
}

/// Bytes that are no frame, until something intact follows or the file ends.
#[derive(Debug)]
struct Bad {
    start: u64,
    /// Why the first block of it is nothing, preferring blocks that are not zero.
    why: FormatError,
    /// From the first block that is not zero to the end of the last one.
    dirty: Option<Range<u64>>,
}

#[derive(Debug)]
enum Step {
    Header,
    Frame,
    /// `stored` is from the frame's start.
    Record {
        seq: u64,
        offset: u64,
        stored: Range<usize>,
    },
    Trailer,
    Finding(Finding),
}

/// See the module's documentation. What it finds is the same whatever `H` is; a faster one only
/// costs less time.
#[derive(Debug)]
pub struct Scanner<H = OneByOne> {
    expect: Expect,
    state: State,
    buf: Vec<u8>,
    /// A compressed frame's records, where they would stand if it were not compressed.
    raw: Vec<u8>,
    /// Bytes of `buf` that have been read.
    used: usize,
    /// Offset in the file of `buf[used]`.
    offset: u64,
    ended: bool,
    /// Distance between offsets at which something may start.
    step_bytes: usize,
    /// No frame and no trailer goes past this offset: what was reserved for the segment.
    limit: u64,
    /// Where the block of a header that is not readable ended.
    bad_header_end: Option<u64>,
    header: Option<SegmentHeader>,
    current: Option<Current>,
    bad: Option<Bad>,
    next_seq: u64,
    announced: u64,
    /// What the next frame must name as `prev_crc`, if that is known.
    chain: Option<u32>,
    tally: Tally,
    tree: Tree<H>,
    /// The prefix as it was at the first finding.
    cut: Option<Prefix>,
    trailer: Option<Trailer>,
    after_trailer: u64,
    /// Sizes of trees whose roots are wanted, the smallest last, and the roots so far.
    wanted: Vec<u64>,
    roots: Vec<(u64, Hash)>,
    /// What is to be said next; one push of bytes adds few.
    pending: VecDeque<Step>,
}

impl Scanner {
    /// A scanner for one segment, that computes one hash after the other.
    #[must_use]
    pub fn new(expect: Expect) -> Self {
        Self::with_hashing(expect, OneByOne)
    }
}

impl<H: Hashing + Decoding> Scanner<H> {
    /// A scanner for one segment, that gives the records of each frame to `hashing` in one call,
    /// and decodes those that are compressed with what it knows.
    #[must_use]
    pub fn with_hashing(expect: Expect, hashing: H) -> Self {
        let mut tree = Tree::new(hashing);
        if expect.merkle {
            tree.begin(expect.first_seq);
        }
        Self {
            state: State::Header,
            buf: Vec::new(),
            raw: Vec::new(),
            used: 0,
            offset: 0,
            ended: false,
            step_bytes: ALIGN_BYTES_MIN as usize,
            limit: SEGMENT_BYTES_MAX,
            bad_header_end: None,
            header: None,
            current: None,
            bad: None,
            next_seq: expect.first_seq,
            announced: 0,
            chain: None,
            tally: Tally::new(0, 0),
            tree,
            cut: None,
            trailer: None,
            after_trailer: 0,
            wanted: Vec::new(),
            roots: Vec::new(),
            pending: VecDeque::new(),
            expect,
        }
    }

    /// Asks for the roots of the trees of so many records as `sizes` says, in rising order. See
    /// [`Scanner::roots`].
    pub fn want_roots(&mut self, sizes: &[u64]) {
        self.wanted = sizes.iter().rev().copied().collect();
    }

    /// Adds the next bytes of the file. Call [`Scanner::next_event`] until it returns `None`
    /// before pushing more, so that memory stays at one push and one frame.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.drain(..self.used);
        self.used = 0;
        self.buf.extend_from_slice(bytes);
    }

    /// Bytes of memory held for bytes that were pushed, and for the records of a compressed frame.
    /// Whatever the bytes are, at most twice the sum of the longest push and
    /// [`FRAME_BYTES_MAX`](crate::consts::FRAME_BYTES_MAX), if [`Scanner::next_event`] is called as
    /// [`Scanner::push`] says, and [`FRAME_BYTES_MAX`](crate::consts::FRAME_BYTES_MAX) more once a
    /// frame was compressed.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.buf.capacity() + self.raw.capacity()
    }

    /// Says that the file has no more bytes.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Goes on at an entry of the segment's index: the bytes that are pushed next are those at its
    /// offset. Call it once the header has been read; what was pushed beyond the header is let
    /// go. What lies between is not checked, and neither is what the trailer says of it.
    pub fn skip_to(&mut self, entry: &IndexEntry) {
        self.cut.get_or_insert_with(|| Prefix {
            next_seq: self.next_seq,
            tally: self.tally.clone(),
            tree: self.tree.so_far().cloned(),
        });
        self.used = self.buf.len();
        self.offset = entry.offset;
        self.next_seq = entry.seq;
        self.chain = None;
        self.tree.stop();
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
                let (record, _) = Record::decode(&self.current_bytes()[stored]).ok()?;
                Event::Record { seq, offset, record }
            }
            Step::Trailer => Event::Trailer(self.trailer.as_ref()?),
            Step::Finding(finding) => Event::Finding(finding),
        })
    }

    /// The sizes that were asked for and that lie in this segment, both ends included, and their
    /// roots as far as they can be computed. Complete when [`Scanner::outcome`] would be.
    pub fn roots(&mut self) -> Vec<(u64, Hash)> {
        self.append_frame();
        self.note_root();
        core::mem::take(&mut self.roots)
    }

    /// What is known at the end; complete once [`Scanner::end`] was called and
    /// [`Scanner::next_event`] has returned `None`.
    #[must_use]
    pub fn outcome(mut self) -> Outcome {
        // A frame's records are hashed at its end: who stops before it gets those that were read.
        self.append_frame();
        let tree = self.tree.so_far().cloned();
        let now = Prefix { next_seq: self.next_seq, tally: self.tally, tree };
        Outcome {
            header: self.header,
            trailer: self.trailer,
            prefix: self.cut.unwrap_or(now),
            announced: self.announced,
            end_seq: self.next_seq,
        }
    }

    /// The current frame from its start on; of its header only the room if it is compressed.
    fn current_bytes(&self) -> &[u8] {
        match &self.current {
            Some(current) if current.decoded => &self.raw,
            _ => self.left(),
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
            // A prefix is whole frames: the tally does not have the one being read.
            next_seq: self.current.as_ref().map_or(self.next_seq, |now| now.header.first_seq),
            tally: self.tally.clone(),
            tree: self.tree.so_far().filter(|_| self.current.is_none()).cloned(),
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
            // Skip one whole block, so that what follows is looked for at aligned offsets.
            Err(_) if self.left().len() < ALIGN_BYTES_MIN as usize && !self.ended => return false,
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
                self.bad_header_end = Some(self.offset);
                self.tally = Tally::new(self.offset, 0);
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
        if self.expect.first_seq != header.first_seq {
            // The header has a checksum and the name has none: go on with the header.
            self.next_seq = header.first_seq;
            if self.expect.merkle {
                self.tree.begin(header.first_seq);
            }
        }
        self.expect.first_seq = header.first_seq;
        self.expect.segment = header.segment;
        self.expect.trail_id = Some(header.trail_id);
        self.step_bytes = header.align_bytes as usize;
        self.limit = header.segment_len;
        self.chain = Some(header.crc);
        self.tally = Tally::new(len as u64, header.crc);
        self.header = Some(header);
        self.skip(len);
        self.pending.push_back(Step::Header);
    }
}
