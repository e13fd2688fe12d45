//! Compressing on the way to a disk that is too slow, and only then.
//!
//! A batch is *packed* when its records are compressed in its own buffer: before the disk gets it,
//! and while it waits for that. Whether to pack is decided by what the engine sees anyway: full
//! batches that wait while as many frames are in flight as may be, and how many bytes a second the
//! device completes meanwhile. On a device that is fast enough nothing is packed, because
//! processor time is then what is short.

use super::{Engine, tree::Tree};
use crate::codec::Compressor;
use crate::disk::{Disk, IoBuf};
use crate::ring::Batch;
use graven_format::Record;
use graven_format::consts::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_RECORDS_MAX, align_up};

/// Zstandard level on the way to the disk: 1.8 GB/s, and a sixth more bytes than level 6.
const LEVEL: i32 = 1;

/// What a [`Squeeze`] takes of memory at most, unless it never compresses: the library's context,
/// one frame, and the times of its records.
pub(crate) const SQUEEZE_BYTES: usize = 768 * 1024 + FRAME_BYTES_MAX + 8 * FRAME_RECORDS_MAX;

/// A device that completes fewer bytes a second while batches wait for it is slow. Packing and
/// hashing together reach some three times this on one processor.
const SLOW_BYTES_PER_S: u64 = 150_000_000;

/// How much a device has to complete, or how long it may take, until it is judged: a stall of some
/// tens of milliseconds, of the device or of processors that others use, is not slowness.
const JUDGED_BYTES: u64 = 32 * 1024 * 1024;
/// See [`JUDGED_BYTES`].
const JUDGED_NS: u64 = 250_000_000;

/// Frames that are packed before the device is tried again without: four times as many each time
/// that it is found slow again.
const PACKED_MIN: u32 = 1024;
/// See [`PACKED_MIN`].
const PACKED_MAX: u32 = 16_384;

/// Batches in a row that were not full, after which the device is no longer what is waited for.
const EASY_MAX: u32 = 8;

/// Batches that are left as they are after one that did not become shorter.
const USELESS_SKIPPED: u32 = 63;

/// Whether frames are compressed on their way to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compress {
    /// While the disk is too slow for what is to be written.
    #[default]
    Auto,
    /// Never.
    Never,
    /// Each frame that becomes shorter by it.
    Always,
}

/// Judges the device.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    slow: bool,
    /// Bytes of frames that have completed.
    done_bytes: u64,
    /// Since when, and from how many bytes on, batches have been waiting without a break.
    since: Option<(u64, u64)>,
    /// Frames packed since the device was found slow, and how many there may be.
    packed: u32,
    packed_max: u32,
    /// Batches in a row that were not full.
    easy: u32,
}

impl Pressure {
    /// The write of a frame has completed.
    pub(super) fn completed(&mut self, bytes: u64) {
        self.done_bytes += bytes;
    }

    /// A full batch waits, and as many frames are in flight as may be.
    pub(super) fn waiting(&mut self, now_ns: u64) {
        self.easy = 0;
        let (since_ns, since_bytes) = *self.since.get_or_insert((now_ns, self.done_bytes));
        let ns = now_ns.saturating_sub(since_ns);
        let bytes = self.done_bytes - since_bytes;
        if self.slow || (bytes < JUDGED_BYTES && ns < JUDGED_NS) {
            return;
        }
        self.since = None;
        let limit = u128::from(SLOW_BYTES_PER_S) * u128::from(ns);
        self.slow = u128::from(bytes) * 1_000_000_000 < limit;
        if self.slow {
            self.packed = 0;
            self.packed_max = (4 * self.packed_max).clamp(PACKED_MIN, PACKED_MAX);
        } else {
            self.packed_max = 0;
        }
    }

    /// A batch goes to the device. It is not full if the device had nothing else to do.
    pub(super) fn taken(&mut self, full: bool) {
        self.since = self.since.filter(|_| full);
        self.easy = if full { 0 } else { self.easy + 1 };
        if self.easy >= EASY_MAX {
            *self = Self { done_bytes: self.done_bytes, ..Self::default() };
        }
    }

    fn is_slow(&self) -> bool {
        self.slow
    }

    fn note_packed(&mut self) {
        self.packed += 1;
        if self.packed >= self.packed_max {
            self.slow = false;
            self.since = None;
        }
    }
}

/// Packs batches, with memory that is fixed at start.
#[derive(Debug)]
pub(super) struct Squeeze {
    mode: Compress,
    /// None if nothing is ever packed.
    compressor: Option<Compressor>,
    times: Vec<u64>,
    skip: u32,
    pub(super) pressure: Pressure,
}

impl Squeeze {
    pub(super) fn new(mode: Compress) -> Self {
        let compressor = (mode != Compress::Never).then(|| Compressor::new(LEVEL));
        let times = if compressor.is_some() { FRAME_RECORDS_MAX } else { 0 };
        let (times, pressure) = (Vec::with_capacity(times), Pressure::default());
        Self { mode, compressor, times, skip: 0, pressure }
    }

    /// Whether the next full batch is to be packed.
    fn is_wanted(&self) -> bool {
        match self.mode {
            Compress::Auto => self.pressure.is_slow(),
            Compress::Never => false,
            Compress::Always => true,
        }
    }

    /// Packs a batch if that makes its frame shorter; its records go into the tree before. Not one that
    /// still waits for its checkpoint, which is made from the tree when the batch is placed.
    fn pack(&mut self, batch: &mut Batch<IoBuf>, align_bytes: u32, tree: &mut Tree) {
        if batch.checkpoint {
            return;
        }
        if self.skip > 0 && self.mode == Compress::Auto {
            self.skip -= 1;
            return;
        }
        let Some(compressor) = &mut self.compressor else { return };
        let raw_frame_len = align_up(batch.end as u64, align_bytes) as usize;
        // A whole block less, and room for the times behind the frame.
        let times_len = 8 * batch.count as usize;
        let frame_len_max =
            (raw_frame_len - align_bytes as usize).min(batch.buf.len().saturating_sub(times_len));
        // What is left when the frame is padded to whole blocks.
        let frame_len_max = frame_len_max - frame_len_max % align_bytes as usize;
        let Some(room) = frame_len_max.checked_sub(FRAME_HEADER_BYTES) else { return };
        let Some(stored) = compressor.compress(batch.records(), room) else {
            self.skip = USELESS_SKIPPED;
            return;
        };
        tree.hash(batch.records(), batch.count);
        let realtime_first_ns =
            Record::decode(batch.records()).map_or(0, |(record, _)| record.realtime_ns);
        self.times.clear();
        self.times.extend(batch.boottimes());
        let frame_end = FRAME_HEADER_BYTES + stored.len();
        let times_at = align_up(frame_end as u64, align_bytes) as usize;
        batch.pack(stored, realtime_first_ns, &self.times, times_at);
        self.pressure.note_packed();
    }

    /// Bytes of memory that it holds.
    #[cfg(test)]
    fn memory_bytes(&self) -> usize {
        self.compressor.as_ref().map_or(0, Compressor::memory_bytes) + 8 * self.times.capacity()
    }
}

impl<D: Disk> Engine<D> {
    /// As many frames are in flight as may be: packs the next full batch meanwhile, if the device is
    /// slow.
    pub(super) fn pack_ahead(&mut self) {
        if self.squeeze.mode == Compress::Never || self.held.is_some() || self.ahead.is_some() {
            return;
        }
        if !self.ring.has_full() {
            return;
        }
        self.squeeze.pressure.waiting(self.now.boottime_ns);
        if self.squeeze.is_wanted() {
            self.ahead = self.ring.take(false).map(|batch| self.packed(batch));
        }
    }

    /// The next batch, packed if that is wanted.
    pub(super) fn next_batch(&mut self, in_flight: usize) -> Option<Batch<IoBuf>> {
        if let Some(batch) = self.held.take().or_else(|| self.ahead.take()) {
            return Some(batch);
        }
        let full = self.ring.has_full();
        let batch = self.ring.take(in_flight == 0)?;
        self.squeeze.pressure.taken(full);
        let wanted = self.squeeze.is_wanted() && (full || self.squeeze.mode == Compress::Always);
        Some(if wanted { self.packed(batch) } else { batch })
    }

    fn packed(&mut self, mut batch: Batch<IoBuf>) -> Batch<IoBuf> {
        self.squeeze.pack(&mut batch, self.align_bytes, &mut self.tree);
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device of this rate that has full batches waiting for `ns`, in frames of 256 KiB.
    fn saturate(pressure: &mut Pressure, now_ns: &mut u64, bytes_per_s: u64, ns: u64) {
        let frame_ns = FRAME_BYTES_MAX as u64 * 1_000_000_000 / bytes_per_s;
        let end = *now_ns + ns;
        while *now_ns < end && !pressure.is_slow() {
            pressure.waiting(*now_ns);
            *now_ns += frame_ns;
            pressure.completed(FRAME_BYTES_MAX as u64);
            pressure.taken(true);
        }
    }

    #[test]
    fn a_slow_device_is_found_and_a_fast_one_is_left_alone() {
        for (bytes_per_s, slow) in [(1_000_000, true), (50_000_000, true), (900_000_000, false)] {
            let (mut pressure, mut now_ns) = (Pressure::default(), 5);
            saturate(&mut pressure, &mut now_ns, bytes_per_s, 2_000_000_000);
            assert_eq!(pressure.is_slow(), slow, "{bytes_per_s}");
        }
    }

    #[test]
    fn it_is_tried_again_ever_less_often_and_forgotten_when_nothing_waits() {
        let (mut pressure, mut now_ns) = (Pressure::default(), 5);
        let mut frames = Vec::new();
        for _ in 0..5 {
            saturate(&mut pressure, &mut now_ns, 50_000_000, 2_000_000_000);
            let mut count = 0;
            while pressure.is_slow() {
                pressure.note_packed();
                count += 1;
            }
            frames.push(count);
        }
        assert_eq!(frames, [1024, 4096, 16_384, 16_384, 16_384]);
        saturate(&mut pressure, &mut now_ns, 50_000_000, 2_000_000_000);
        assert!(pressure.is_slow());
        (0..EASY_MAX).for_each(|_| pressure.taken(false));
        assert!(!pressure.is_slow());
    }

    #[test]
    fn a_stall_of_a_fast_device_is_not_slowness() {
        let (mut pressure, mut now_ns) = (Pressure::default(), 5);
        for _ in 0..20 {
            saturate(&mut pressure, &mut now_ns, 900_000_000, 50_000_000);
            now_ns += 100_000_000;
        }
        assert!(!pressure.is_slow());
    }

    #[test]
    fn memory_is_what_is_stated() {
        let held = Squeeze::new(Compress::Always).memory_bytes();
        assert!(held <= SQUEEZE_BYTES, "{held} bytes");
        assert_eq!(Squeeze::new(Compress::Never).memory_bytes(), 0);
    }
}
