//! The new file of a segment: the same header, the same records in full frames, a trailer.

use super::append;
use crate::codec::Compressor;
use graven_format::Record;
use graven_format::consts::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_RECORDS_MAX, RECORD_HEADER_BYTES, align_up,
};
use graven_format::frame::{self, FrameFields};
use graven_format::scan::Event;
use graven_format::segment::SegmentHeader;
use graven_format::trailer::{Tally, TallyFrame, Trailer};
use std::fs::File;
use std::io;

pub(super) struct Draft<'a> {
    file: &'a File,
    compressor: &'a mut Compressor,
    header: Option<SegmentHeader>,
    tally: Tally,
    /// The frame being filled: room for its header, then records.
    buf: Vec<u8>,
    end: usize,
    count: u32,
    first_seq: u64,
    /// What the old frame that is read says.
    pub(super) announced: u64,
    /// What the old frame said in which the frame being filled begins: never more than its first seq.
    frame_announced: u64,
    /// Times of the records in it: the first, the smallest, the largest.
    times: [u64; 3],
}

impl<'a> Draft<'a> {
    pub(super) fn new(file: &'a File, compressor: &'a mut Compressor) -> Self {
        Self {
            file,
            compressor,
            header: None,
            tally: Tally::new(0, 0),
            buf: vec![0; FRAME_BYTES_MAX],
            end: FRAME_HEADER_BYTES,
            count: 0,
            first_seq: 0,
            announced: 0,
            frame_announced: 0,
            times: [0; 3],
        }
    }

    pub(super) fn take(&mut self, event: Event<'_>) -> io::Result<()> {
        match event {
            Event::Header(header) => {
                let (bytes, crc) = header.encode();
                debug_assert_eq!(crc, header.crc, "a header has one encoding");
                self.tally = Tally::new(bytes.len() as u64, crc);
                self.header = Some(header.clone());
                append(self.file, &bytes)
            }
            Event::Record { seq, record, .. } => self.add(seq, &record),
            Event::Frame { .. } | Event::Trailer(_) | Event::Finding(_) => Ok(()),
        }
    }

    fn add(&mut self, seq: u64, record: &Record<'_>) -> io::Result<()> {
        if self.count as usize == FRAME_RECORDS_MAX
            || self.end + record.stored_len() > FRAME_BYTES_MAX
        {
            self.flush()?;
        }
        let at = record.realtime_ns;
        if self.count == 0 {
            self.first_seq = seq;
            self.frame_announced = self.announced;
            self.times = [at; 3];
        }
        let payload_at = self.end + RECORD_HEADER_BYTES;
        self.buf[self.end..payload_at].copy_from_slice(&record.header());
        self.buf[payload_at..payload_at + record.bytes.len()].copy_from_slice(record.bytes);
        self.end += record.stored_len();
        self.count += 1;
        let [first, min, max] = self.times;
        self.times = [first, min.min(at), max.max(at)];
        Ok(())
    }

    /// Writes the frame, compressed if that makes it shorter.
    fn flush(&mut self) -> io::Result<()> {
        let Some(header) = self.header.as_ref().filter(|_| self.count > 0) else { return Ok(()) };
        let align_bytes = header.align_bytes;
        let fields = FrameFields {
            record_count: self.count,
            prev_crc: self.tally.last_crc,
            trail_id: header.trail_id,
            segment: header.segment,
            first_seq: self.first_seq,
            announced: self.frame_announced,
        };
        let raw_len = self.end - FRAME_HEADER_BYTES;
        let shorter = align_up(self.end as u64, align_bytes) as usize - align_bytes as usize;
        let room = shorter.saturating_sub(FRAME_HEADER_BYTES);
        let records = &self.buf[FRAME_HEADER_BYTES..self.end];
        let (len, crc) = match self.compressor.compress(records, room) {
            Some(stored) => {
                let end = FRAME_HEADER_BYTES + stored.len();
                self.buf[FRAME_HEADER_BYTES..end].copy_from_slice(stored);
                frame::seal_zstd(&mut self.buf, end, align_bytes, &fields, raw_len)
            }
            None => frame::seal(&mut self.buf, self.end, align_bytes, &fields),
        };
        append(self.file, &self.buf[..len])?;
        let [realtime_first_ns, realtime_min_ns, realtime_max_ns] = self.times;
        self.tally.add(&TallyFrame {
            first_seq: self.first_seq,
            offset: self.tally.frames_end,
            frame_len: len as u64,
            crc,
            record_count: self.count.into(),
            record_bytes: raw_len as u64,
            realtime_first_ns,
            realtime_min_ns,
            realtime_max_ns,
        });
        self.end = FRAME_HEADER_BYTES;
        self.count = 0;
        Ok(())
    }

    /// Writes the last frame and the trailer, which is `old` but for what says where frames are.
    /// Returns it and the length of the file.
    pub(super) fn finish(mut self, old: &Trailer) -> io::Result<(Trailer, u64)> {
        self.flush()?;
        let align_bytes = self.header.as_ref().map_or(0, |header| header.align_bytes);
        let frames_end = self.tally.frames_end;
        let trailer =
            Trailer { tally: self.tally, first_crc: Some(old.chain_crc()), ..old.clone() };
        let (bytes, _) = trailer.encode(align_bytes);
        append(self.file, &bytes)?;
        Ok((trailer, frames_end + bytes.len() as u64))
    }
}
