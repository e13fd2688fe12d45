//! One batch: the records of one group commit, in the buffer that goes to the disk.

use graven_format::consts::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_RECORDS_MAX, RECORD_HEADER_BYTES,
};
use graven_format::{Record, record};
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
    /// Set once the records in `buf` have given way to their compressed form.
    packed: Option<Packed>,
}

/// What `buf` of a packed batch holds, and what is known of the records that are not in it.
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    /// Offset of the first byte behind the compressed records, which begin at
    /// [`FRAME_HEADER_BYTES`].
    pub end: usize,
    /// Time of the first record.
    pub realtime_first_ns: u64,
    /// Offset of the records' boot times, 8 bytes each.
    times_at: usize,
}

impl<B> Batch<B> {
    /// Stored bytes of the records.
    #[must_use]
    pub fn records_len(&self) -> usize {
        self.end - FRAME_HEADER_BYTES
    }

    /// The buffer on its own, for as long as the disk has it, and all else.
    pub fn split(self) -> (B, Batch<()>) {
        self.exchange(())
    }

    /// The same batch with another buffer, and the one that it had.
    fn exchange<C>(self, buf: C) -> (B, Batch<C>) {
        let Self { buf: had, first_seq, count, end, .. } = self;
        let Self { realtime_ns_min, realtime_ns_max, checkpoint, limit, reserve, packed, .. } =
            self;
        let batch = Batch {
            buf,
            first_seq,
            count,
            end,
            realtime_ns_min,
            realtime_ns_max,
            checkpoint,
            limit,
            reserve,
            packed,
        };
        (had, batch)
    }

    /// The share of `ns` nanoseconds of writing it in which as many more records could have been written as it had room for.
    #[must_use]
    pub fn unused_of(&self, ns: u64) -> u64 {
        let share = |unused: usize, of: usize| ns.saturating_mul(unused as u64) / of.max(1) as u64;
        let records_left = FRAME_RECORDS_MAX.saturating_sub(self.count as usize);
        share(self.limit.saturating_sub(self.end), self.limit - FRAME_HEADER_BYTES)
            .min(share(records_left, FRAME_RECORDS_MAX))
    }

    /// Offset behind what goes into the frame, at most: a checkpoint that is still to come takes no
    /// more than what is kept for it.
    #[must_use]
    pub fn end_max(&self) -> usize {
        let end = self.packed.map_or(self.end, |packed| packed.end);
        if self.checkpoint { end + self.reserve } else { end }
    }

    /// What [`Batch::pack`] made of it, if it did.
    #[must_use]
    pub fn packed(&self) -> Option<Packed> {
        self.packed
    }
}

impl Batch<()> {
    /// What [`Batch::split`] took apart.
    pub fn join<B>(self, buf: B) -> Batch<B> {
        self.exchange(buf).1
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
            packed: None,
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
        self.packed = None;
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
        let end = self.end + RECORD_HEADER_BYTES + record.bytes.len();
        assert!(end <= self.limit && (self.count as usize) < FRAME_RECORDS_MAX, "asked before");
        let (stored_header, payload) = self.buf[self.end..end].split_at_mut(RECORD_HEADER_BYTES);
        stored_header.copy_from_slice(header);
        payload.copy_from_slice(record.bytes);
        let seq = self.first_seq + u64::from(self.count);
        self.end = end;
        self.count += 1;
        self.realtime_ns_min = self.realtime_ns_min.min(record.realtime_ns);
        self.realtime_ns_max = self.realtime_ns_max.max(record.realtime_ns);
        seq
    }

    /// Puts the compressed records where the records are, and their boot times at `times_at`, which
    /// is behind the frame. All else that is known of the records stays.
    ///
    /// # Panics
    /// If that does not fit, or if a time is missing: whoever compresses has seen to both.
    pub fn pack(&mut self, stored: &[u8], realtime_first_ns: u64, times: &[u64], times_at: usize) {
        let end = FRAME_HEADER_BYTES + stored.len();
        assert!(end <= times_at && times.len() == self.count as usize && self.packed.is_none());
        self.buf[FRAME_HEADER_BYTES..end].copy_from_slice(stored);
        let (places, _) = self.buf[times_at..].as_chunks_mut::<8>();
        assert!(places.len() >= times.len(), "asked before");
        for (place, time) in places.iter_mut().zip(times) {
            *place = time.to_le_bytes();
        }
        self.packed = Some(Packed { end, realtime_first_ns, times_at });
    }

    /// `boottime_ns` of each record.
    pub fn boottimes(&self) -> impl Iterator<Item = u64> {
        let time = |bytes: &[u8]| bytes.first_chunk().map_or(0, |time| u64::from_le_bytes(*time));
        let times_at = self.packed.map(|packed| packed.times_at);
        let records = if times_at.is_some() { &[][..] } else { self.records() };
        let times = times_at.map_or(&[][..], |at| &self.buf[at..at + 8 * self.count as usize]);
        let from_records = record::split(records).map(move |stored| time(&stored[16..]));
        from_records.chain(times.chunks_exact(8).map(time))
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

    /// The records as stored, one after the other, without the room in front; nothing that means
    /// anything once they are packed.
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
