//! One batch: the records of one group commit, in the buffer that goes to the disk.

use graven_format::Record;
use graven_format::consts::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_RECORDS_MAX, RECORD_HEADER_BYTES,
};
use std::ops::DerefMut;

/// Records on their way to the disk, and what the engine needs to know to make a frame of them.
#[derive(Debug)]
pub struct Batch<B> {
    /// The buffer: room for the frame header, then the records from [`FRAME_HEADER_BYTES`] to
    /// [`Batch::end`]. What follows is left over from earlier use.
    pub buf: B,
    /// The `seq` of the first record.
    pub first_seq: u64,
    /// Records in it, at most [`FRAME_RECORDS_MAX`].
    pub count: u32,
    /// Offset in `buf` of the first byte behind the last record.
    pub end: usize,
    /// Smallest `realtime_ns` of the records; `u64::MAX` while there is none.
    pub realtime_ns_min: u64,
    /// Largest `realtime_ns` of the records; 0 while there is none.
    pub realtime_ns_max: u64,
    /// Whether the seq behind the last record is kept for a checkpoint, which whoever takes the
    /// batch puts there: see [`Batch::push_checkpoint`].
    pub checkpoint: bool,
    /// Offset behind which no record may end.
    limit: usize,
    /// Bytes in front of `limit` that are kept free for a checkpoint; 0 if there will be none.
    reserve: usize,
}

impl<B> Batch<B> {
    /// Stored bytes of the records.
    #[must_use]
    pub fn records_len(&self) -> usize {
        self.end - FRAME_HEADER_BYTES
    }

    /// The buffer on its own, for as long as the disk has it, and all else.
    pub fn split(self) -> (B, Batch<()>) {
        let Self { buf, first_seq, count, end, .. } = self;
        let Self { realtime_ns_min, realtime_ns_max, checkpoint, limit, reserve, .. } = self;
        let rest = Batch {
            buf: (),
            first_seq,
            count,
            end,
            realtime_ns_min,
            realtime_ns_max,
            checkpoint,
            limit,
            reserve,
        };
        (buf, rest)
    }
}

impl Batch<()> {
    /// What [`Batch::split`] took apart.
    pub fn join<B>(self, buf: B) -> Batch<B> {
        let Self { buf: (), first_seq, count, end, .. } = self;
        let Self { realtime_ns_min, realtime_ns_max, checkpoint, limit, reserve, .. } = self;
        Batch {
            buf,
            first_seq,
            count,
            end,
            realtime_ns_min,
            realtime_ns_max,
            checkpoint,
            limit,
            reserve,
        }
    }
}

impl<B> Batch<B>
where
    B: DerefMut<Target = [u8]>,
{
    /// An empty batch that fills `buf` up to [`FRAME_BYTES_MAX`].
    ///
    /// # Panics
    /// If `buf` has no room for one record without payload: sizes are chosen at start.
    pub(super) fn new(buf: B) -> Self {
        let limit = buf.len().min(FRAME_BYTES_MAX);
        assert!(limit >= FRAME_HEADER_BYTES + RECORD_HEADER_BYTES, "a batch holds a record");
        Self {
            buf,
            first_seq: 0,
            count: 0,
            end: FRAME_HEADER_BYTES,
            realtime_ns_min: u64::MAX,
            realtime_ns_max: 0,
            checkpoint: false,
            limit,
            reserve: 0,
        }
    }

    /// Keeps so many bytes, and one record of the batch's, for a checkpoint.
    pub(super) fn reserve(&mut self, bytes: usize) {
        assert!(
            self.limit >= FRAME_HEADER_BYTES + RECORD_HEADER_BYTES + bytes,
            "a batch holds a record beside its checkpoint"
        );
        self.reserve = bytes;
    }

    /// Forgets the records and starts again at `first_seq`, keeping all memory.
    pub(super) fn restart(&mut self, first_seq: u64) {
        self.first_seq = first_seq;
        self.count = 0;
        self.end = FRAME_HEADER_BYTES;
        self.realtime_ns_min = u64::MAX;
        self.realtime_ns_max = 0;
        self.checkpoint = false;
    }

    /// Bytes of records that an empty batch holds.
    pub(super) fn room_when_empty(&self) -> usize {
        self.limit - self.reserve - FRAME_HEADER_BYTES
    }

    /// Whether `records` more records of `len` stored bytes together fit.
    pub(super) fn fits(&self, records: usize, len: usize) -> bool {
        let records_max = FRAME_RECORDS_MAX - usize::from(self.reserve > 0);
        len <= self.limit - self.reserve - self.end && records <= records_max - self.count as usize
    }

    /// Copies one record behind the last and returns its `seq`.
    ///
    /// # Panics
    /// If it does not fit: the caller has asked [`Batch::fits`].
    pub(super) fn push(&mut self, header: &[u8; RECORD_HEADER_BYTES], record: &Record<'_>) -> u64 {
        let payload_at = self.end + RECORD_HEADER_BYTES;
        let end = payload_at + record.bytes.len();
        assert!(end <= self.limit && (self.count as usize) < FRAME_RECORDS_MAX, "asked before");
        self.buf[self.end..payload_at].copy_from_slice(header);
        self.buf[payload_at..end].copy_from_slice(record.bytes);
        let seq = self.first_seq + u64::from(self.count);
        self.end = end;
        self.count += 1;
        self.realtime_ns_min = self.realtime_ns_min.min(record.realtime_ns);
        self.realtime_ns_max = self.realtime_ns_max.max(record.realtime_ns);
        seq
    }

    /// Puts the checkpoint where the batch keeps its seq, behind the last record, and returns
    /// that seq. From then on it is a record like the others.
    ///
    /// # Panics
    /// If the batch keeps none, or has no room for one of this length.
    pub fn push_checkpoint(&mut self, record: &Record<'_>) -> u64 {
        assert!(self.checkpoint, "the ring has kept a seq for it");
        self.checkpoint = false;
        self.push(&record.header(), record)
    }

    /// Offset behind the last record once the checkpoint is there, at most.
    #[must_use]
    pub fn end_max(&self) -> usize {
        if self.checkpoint { self.end + self.reserve } else { self.end }
    }

    /// The records as stored, one after the other, without the room in front.
    #[must_use]
    pub fn records(&self) -> &[u8] {
        &self.buf[FRAME_HEADER_BYTES..self.end]
    }

    /// Whether no record is in it, and none will be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0 && !self.checkpoint
    }
}
