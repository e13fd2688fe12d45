//! What stands after a segment's header: frames and their records, a trailer, and bytes that are
//! neither.

use super::{Bad, Current, Scanner, State, Step};
use crate::bytes::is_zero;
use crate::codec::{CODEC_NONE, DecodeError, Decoding};
use crate::consts::{FRAME_HEADER_BYTES, RECORD_HEADER_BYTES};
use crate::error::FormatError;
use crate::finding::{CheckpointError, FindingKind};
use crate::frame::{FrameHeader, RAW_BYTES_MAX};
use crate::merkle::Hashing;
use crate::record::{self, Record, Source};
use crate::trailer::{TallyFrame, Trailer};
use core::ops::Range;

impl<H: Hashing + Decoding> Scanner<H> {
    /// Looks at the next aligned offset: a frame, a trailer, or neither. Returns false when it
    /// needs more bytes.
    pub(super) fn step_body(&mut self) -> bool {
        let left = self.left();
        if left.len() < self.step_bytes && !self.ended {
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
            self.skip_bad(why);
        }
        true
    }

    /// Adds the block at the present offset to the bytes that are nothing.
    fn skip_bad(&mut self, why: FormatError) {
        let block = &self.left()[..self.step_bytes.min(self.left().len())];
        let (len, zero, start) = (block.len(), is_zero(block), self.offset);
        let end = start + len as u64;
        let bad = self.bad.get_or_insert(Bad { start, why: why.clone(), dirty: None });
        if !zero {
            match &mut bad.dirty {
                Some(dirty) => dirty.end = end,
                None => {
                    // The zeros before it are only room that was not used.
                    bad.why = why;
                    bad.dirty = Some(start..end);
                }
            }
        }
        self.skip(len);
    }

    /// The frame at the present offset, accepted, or why not; `None` when it needs more bytes.
    fn read_frame(&mut self) -> Option<Result<(), FormatError>> {
        let left = self.left();
        let len = match &self.header {
            Some(header) => FrameHeader::frame_len(left, header.align_bytes),
            None => FrameHeader::frame_len_any(left),
        };
        let len = match len {
            Ok(len) => len,
            Err(FormatError::Short { .. }) if !self.ended => return None,
            Err(why) => return Some(Err(why)),
        };
        let refuse = |field, value| Some(Err(FormatError::Field { what: "frame", field, value }));
        if self.offset + len as u64 > self.limit {
            return refuse("frame_len", len as u64);
        }
        if self.bad.is_some() && !self.expects(&FrameHeader::place(left)) {
            // Without this, bytes full of made-up headers would cost a checksum of a whole frame
            // for each block.
            return refuse("trail_id", 0);
        }
        let Some(frame) = left.get(..len) else {
            let (needed, have) = (len as u64, left.len() as u64);
            return self.ended.then_some(Err(FormatError::Short { what: "frame", needed, have }));
        };
        let header = match FrameHeader::decode_any_codec(frame) {
            Ok(decoded) => decoded,
            Err(why) => return Some(Err(why)),
        };
        if self.expect.trail_id.is_some_and(|id| id != header.trail_id) {
            return refuse("trail_id", 0);
        }
        if self.expect.segment != header.segment {
            return refuse("segment", header.segment);
        }
        self.accept_frame(header);
        Some(Ok(()))
    }

    /// Whether something of this trail and segment may stand here.
    fn expects(&self, (trail_id, segment): &(crate::TrailId, u64)) -> bool {
        self.expect.trail_id.is_none_or(|id| id == *trail_id) && self.expect.segment == *segment
    }

    fn accept_frame(&mut self, header: FrameHeader) {
        let (offset, frame_len) = (self.offset, u64::from(header.frame_len));
        self.expect.trail_id = Some(header.trail_id);
        self.place_frame(&header);
        if header.first_seq != self.next_seq {
            // Leaves are missing or doubled: the tree cannot be computed any more.
            self.tree.stop();
        }
        self.next_seq = header.first_seq;
        self.announced = self.announced.max(header.announced);
        self.chain = Some(header.crc);
        if let Err(why) = self.decode(&header) {
            // Its place and count are known, only its records are not.
            let kind = match why {
                DecodeError::UnknownCodec(codec) => {
                    FindingKind::Unreadable(FormatError::UnknownCodec(codec))
                }
                DecodeError::Payload(_) => FindingKind::Decode(why),
            };
            self.report(kind, offset, frame_len, header.record_count.into());
            self.tree.stop();
            self.next_seq += u64::from(header.record_count);
            self.skip(header.frame_len as usize);
            return;
        }
        self.current = Some(Current {
            header,
            offset,
            decoded: header.codec != CODEC_NONE,
            at: FRAME_HEADER_BYTES,
            end: FRAME_HEADER_BYTES + header.raw_len as usize,
            hashed: (FRAME_HEADER_BYTES, 0),
            index: 0,
            realtime_first_ns: 0,
            realtime_min_ns: u64::MAX,
            realtime_max_ns: 0,
        });
        self.state = State::Records;
        self.pending.push_back(Step::Frame);
    }

    /// Decodes the records of the intact frame at the present offset, if they are compressed.
    fn decode(&mut self, header: &FrameHeader) -> Result<(), DecodeError> {
        if header.codec == CODEC_NONE {
            return Ok(());
        }
        let end = FRAME_HEADER_BYTES + header.payload_len as usize;
        let stored = &self.buf[self.used + FRAME_HEADER_BYTES..self.used + end];
        // Of an unknown codec nothing is known, its length neither.
        let raw_len = (header.raw_len as usize).min(RAW_BYTES_MAX);
        self.raw.resize(FRAME_HEADER_BYTES + raw_len, 0);
        self.tree.hashing().decode(header.codec, stored, &mut self.raw[FRAME_HEADER_BYTES..])
    }

    /// Reports how an intact frame does not follow what was read before it.
    fn place_frame(&mut self, header: &FrameHeader) {
        let (offset, frame_len) = (self.offset, u64::from(header.frame_len));
        let (expected, found) = (self.next_seq, header.first_seq);
        let missing = found.saturating_sub(expected);
        let mut explained = false;
        match self.bad.take() {
            Some(bad) => {
                if missing > 0 || !self.is_rest_of_header(&bad) {
                    let kind = FindingKind::Unreadable(bad.why);
                    self.report(kind, bad.start, offset - bad.start, missing);
                }
                explained = missing > 0;
            }
            None => {
                if let Some(expected) = self.chain.filter(|crc| *crc != header.prev_crc) {
                    let kind = FindingKind::Chain { expected, found: header.prev_crc };
                    self.report(kind, offset, frame_len, 0);
                }
            }
        }
        if expected != found && !explained {
            let kind = FindingKind::Sequence { expected, found };
            self.report(kind, offset, frame_len, missing);
        }
    }

    /// Whether `bad` is only the rest of a header that was reported already.
    fn is_rest_of_header(&self, bad: &Bad) -> bool {
        self.bad_header_end == Some(bad.start)
    }

    /// The next record of the current frame; `None` at its end.
    pub(super) fn step_record(&mut self) -> Option<Step> {
        if self.wanted.last().is_some_and(|size| *size <= self.next_seq) {
            self.note_root();
        }
        let current = self.current.as_ref()?;
        if current.at == current.end || current.index == current.header.record_count {
            self.end_frame();
            return None;
        }
        let (start, end) = (current.at, current.end);
        let (offset, rest_len) = current.place();
        let stored = &self.current_bytes()[start..end];
        if record::is_checkpoint(stored)
            && let Ok((record, _)) = Record::decode(stored)
        {
            let note = start + RECORD_HEADER_BYTES..start + record.stored_len();
            let source = record.source;
            self.check_checkpoint(offset, source, note);
        }
        let current = self.current.as_mut()?;
        let frame = if current.decoded { &self.raw } else { &self.buf[self.used..] };
        match Record::decode(&frame[start..end]) {
            Ok((record, _)) => {
                let stored = start..start + record.stored_len();
                if current.index == 0 {
                    current.realtime_first_ns = record.realtime_ns;
                }
                current.realtime_min_ns = current.realtime_min_ns.min(record.realtime_ns);
                current.realtime_max_ns = current.realtime_max_ns.max(record.realtime_ns);
                current.index += 1;
                current.at += stored.len();
                let seq = self.next_seq;
                self.next_seq += 1;
                Some(Step::Record { seq, offset, stored })
            }
            Err(why) => {
                current.at = current.end;
                self.report(FindingKind::Record(why), offset, rest_len, 0);
                self.tree.stop();
                None
            }
        }
    }

    /// A record says that it is a checkpoint: it covers all records before it.
    fn check_checkpoint(&mut self, offset: u64, source: Source, note: Range<usize>) {
        self.append_frame();
        let checked = if source == Source::Graven {
            self.check_note(&self.current_bytes()[note.clone()], self.next_seq, self.root(), None)
        } else {
            Err(CheckpointError::Source(source))
        };
        if let Err(why) = checked {
            let (_, rest_len) = self.current.as_ref().map_or((0, 0), Current::place);
            let is_decoded = self.current.as_ref().is_some_and(|current| current.decoded);
            let stored_len = (RECORD_HEADER_BYTES + note.len()) as u64;
            let len = if is_decoded { rest_len } else { stored_len };
            self.report(FindingKind::Checkpoint(why), offset, len, 0);
        }
    }

    fn end_frame(&mut self) {
        self.state = State::Body;
        let Some(current) = self.current.as_ref() else { return };
        let (header, offset) = (current.header, current.offset);
        let surplus = count_records(&self.current_bytes()[current.at..current.end]);
        let (stated, found) = (header.record_count, current.index + surplus);
        let frame = TallyFrame {
            first_seq: header.first_seq,
            offset,
            frame_len: header.frame_len.into(),
            crc: header.crc,
            record_count: stated.into(),
            record_bytes: header.raw_len.into(),
            realtime_first_ns: current.realtime_first_ns,
            realtime_min_ns: current.realtime_min_ns,
            realtime_max_ns: current.realtime_max_ns,
        };
        if stated != found {
            let kind = FindingKind::RecordCount { stated, found };
            let missing = stated.saturating_sub(found).into();
            self.report(kind, offset, header.frame_len.into(), missing);
            self.tree.stop();
            // The header's count is what the next frame's seq follows from.
            self.next_seq = header.first_seq + u64::from(stated);
        }
        self.append_frame();
        self.current = None;
        self.tally.add(&frame);
        self.skip(header.frame_len as usize);
    }

    /// The trailer at the present offset, accepted, or why not; `None` when it needs more bytes.
    fn read_trailer(&mut self) -> Option<Result<(), FormatError>> {
        let left = self.left();
        let len = match Trailer::trailer_len(left, self.step_bytes as u32) {
            Ok(len) => len,
            Err(FormatError::Short { .. }) if !self.ended => return None,
            Err(why) => return Some(Err(why)),
        };
        let what = "segment trailer";
        let refuse = |field, value| Some(Err(FormatError::Field { what, field, value }));
        if self.offset + len as u64 > self.limit {
            return refuse("trailer_len", len as u64);
        }
        if self.bad.is_some() && !self.expects(&Trailer::place(left)) {
            return refuse("trail_id", 0);
        }
        let Some(bytes) = left.get(..len) else {
            let (needed, have) = (len as u64, left.len() as u64);
            return self.ended.then_some(Err(FormatError::Short { what, needed, have }));
        };
        let trailer = match Trailer::decode(bytes) {
            Ok(trailer) => trailer,
            Err(why) => return Some(Err(why)),
        };
        if self.expect.trail_id.is_some_and(|id| id != trailer.trail_id) {
            return refuse("trail_id", 0);
        }
        if self.expect.segment != trailer.segment {
            return refuse("segment", trailer.segment);
        }
        self.accept_trailer(trailer);
        self.skip(len);
        Some(Ok(()))
    }

    fn accept_trailer(&mut self, trailer: Trailer) {
        let (offset, len) = (self.offset, u64::from(trailer.trailer_len));
        self.place_trailer(&trailer);
        // Once something is missing the counts cannot agree, and it has been said.
        if self.cut.is_none() {
            if let Some(field) = self.trailer_difference(&trailer) {
                self.report(FindingKind::Trailer { field }, offset, len, 0);
            }
            if !self.root_matches(&trailer) {
                self.report(FindingKind::Root, offset, len, 0);
            }
        }
        if !trailer.note.is_empty()
            && let Err(why) = self.check_note(
                &trailer.note,
                trailer.end_seq(),
                Some(trailer.root),
                Some(&trailer),
            )
        {
            self.report(FindingKind::Checkpoint(why), offset, len, 0);
        }
        self.announced = self.announced.max(trailer.end_seq());
        self.trailer = Some(trailer);
        self.state = State::AfterTrailer;
        self.pending.push_back(Step::Trailer);
    }

    /// Reports records that the trailer counts and the frames before it do not have, and bytes
    /// between them that should be zero.
    fn place_trailer(&mut self, trailer: &Trailer) {
        let (offset, len) = (self.offset, u64::from(trailer.trailer_len));
        let missing = trailer.end_seq().saturating_sub(self.next_seq);
        match self.bad.take() {
            Some(bad) if missing > 0 => {
                let kind = FindingKind::Unreadable(bad.why);
                self.report(kind, bad.start, offset - bad.start, missing);
            }
            Some(bad) if !self.is_rest_of_header(&bad) => {
                if let Some(dirty) = bad.dirty {
                    self.report(FindingKind::Gap, dirty.start, dirty.end - dirty.start, 0);
                }
            }
            _ if trailer.end_seq() != self.next_seq => {
                let kind = FindingKind::Trailer { field: "record_count" };
                self.report(kind, offset, len, missing);
            }
            _ => {}
        }
    }

    fn root_matches(&self, trailer: &Trailer) -> bool {
        let Some(so_far) = self.tree.so_far() else { return true };
        if so_far.range() != trailer.range || so_far.blocks().1 != trailer.blocks {
            return false;
        }
        self.root().is_none_or(|root| root == trailer.root)
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

    /// Counts what follows the trailer. Returns false when it needs more bytes.
    pub(super) fn step_after_trailer(&mut self) -> bool {
        let len = self.left().len();
        self.after_trailer += len as u64;
        self.skip(len);
        if !self.ended {
            return false;
        }
        if self.after_trailer > 0 {
            let start = self.offset - self.after_trailer;
            let uncut = self.offset == self.limit;
            let kind = if uncut { FindingKind::AfterTrailer } else { FindingKind::Added };
            self.report(kind, start, self.after_trailer, 0);
        }
        self.state = State::Done;
        true
    }

    /// The file has ended without a trailer.
    fn finish(&mut self) {
        self.state = State::Done;
        let file_len = self.offset;
        if let Some(bad) = self.bad.take()
            && let Some(dirty) = bad.dirty
        {
            self.report(FindingKind::Tail(bad.why), dirty.start, dirty.end - dirty.start, 0);
        }
        let reserved = self.header.as_ref().map(|header| header.segment_len);
        if let Some(reserved) = reserved.filter(|reserved| *reserved != file_len) {
            self.report(FindingKind::Truncated { reserved }, file_len, 0, 0);
        }
    }
}

impl Current {
    /// Offset in the file of the next record, and bytes from there to the end of the records; the
    /// whole frame's if it is compressed.
    fn place(&self) -> (u64, u64) {
        if self.decoded {
            return (self.offset, self.header.frame_len.into());
        }
        (self.offset + self.at as u64, (self.end - self.at) as u64)
    }
}

/// How many records stand in `bytes`, counting what is none as one.
fn count_records(mut bytes: &[u8]) -> u32 {
    let mut count = 0;
    while !bytes.is_empty() {
        count += 1;
        match Record::decode(bytes) {
            Ok((_, rest)) => bytes = rest,
            Err(_) => break,
        }
    }
    count
}
