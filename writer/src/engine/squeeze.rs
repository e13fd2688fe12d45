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

/// For how long batches that were not full must have come in a row, until the device is no longer what is waited for: a limited
/// device takes frames in fits, and one or two are not full behind each.
const EASY_NS: u64 = 25_000_000;

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

/// Judges the device by the time in which batches waited for it. That is counted up to each completion: what comes behind the last
/// one is nobody's wait.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    slow: bool,
    /// Until when what batches waited for is counted, if they do.
    waiting_ns: Option<u64>,
    /// How long they have waited since the device was judged, and the bytes that it completed meanwhile.
    waited_ns: u64,
    done_bytes: u64,
    /// Frames packed since the device was found slow, and how many there may be.
    packed: u32,
    packed_max: u32,
    /// When the first of the batches in a row that were not full was taken.
    easy_since_ns: Option<u64>,
}

impl Pressure {
    /// The write of a frame has completed.
    pub(super) fn completed(&mut self, bytes: u64, now_ns: u64) {
        if self.waiting_ns.is_some() {
            self.done_bytes += bytes;
            self.count_until(now_ns);
        }
    }

    /// A full batch waits, and as many frames are in flight as may be.
    pub(super) fn waiting(&mut self, now_ns: u64) {
        self.easy_since_ns = None;
        self.count_until(now_ns);
        if self.slow || (self.done_bytes < JUDGED_BYTES && self.waited_ns < JUDGED_NS) {
            return;
        }
        let limit = u128::from(SLOW_BYTES_PER_S) * u128::from(self.waited_ns);
        self.slow = u128::from(self.done_bytes) * 1_000_000_000 < limit;
        self.restart();
        if self.slow {
            self.packed = 0;
            self.packed_max = (4 * self.packed_max).clamp(PACKED_MIN, PACKED_MAX);
        } else {
            self.packed_max = 0;
        }
    }

    /// A batch goes to the device; it is not full only if that has nothing else to do.
    pub(super) fn taken(&mut self, full: bool, in_flight: usize, now_ns: u64) {
        self.waiting_ns = self.waiting_ns.filter(|_| in_flight > 0);
        if full {
            self.easy_since_ns = None;
            return;
        }
        let easy_since_ns = *self.easy_since_ns.get_or_insert(now_ns);
        if now_ns.saturating_sub(easy_since_ns) >= EASY_NS {
            *self = Self::default();
        }
    }

    fn count_until(&mut self, now_ns: u64) {
        let from_ns = self.waiting_ns.replace(now_ns).unwrap_or(now_ns);
        self.waited_ns += now_ns.saturating_sub(from_ns);
    }

    fn restart(&mut self) {
        (self.waiting_ns, self.waited_ns, self.done_bytes) = (None, 0, 0);
    }

    fn is_slow(&self) -> bool {
        self.slow
    }

    fn note_packed(&mut self) {
        self.packed += 1;
        if self.packed >= self.packed_max {
            self.slow = false;
            self.restart();
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
        self.squeeze.pressure.taken(full, in_flight, self.now.boottime_ns);
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

    /// A device of this rate has full batches waiting for `ns`, in frames of 256 KiB that it completes `fit` at a time.
    fn saturate(pressure: &mut Pressure, now_ns: &mut u64, bytes_per_s: u64, ns: u64, fit: u64) {
        let fit_ns = fit * FRAME_BYTES_MAX as u64 * 1_000_000_000 / bytes_per_s;
        let end = *now_ns + ns;
        while *now_ns < end && !pressure.is_slow() {
            pressure.waiting(*now_ns);
            *now_ns += fit_ns;
            (0..fit).for_each(|_| pressure.completed(FRAME_BYTES_MAX as u64, *now_ns));
            pressure.taken(true, 3, *now_ns);
        }
    }

    /// A batch that is not full each 200 µs, for `ns`.
    fn ease(pressure: &mut Pressure, now_ns: &mut u64, ns: u64) {
        let end = *now_ns + ns;
        while *now_ns <= end {
            pressure.taken(false, 0, *now_ns);
            *now_ns += 200_000;
            pressure.completed(100_000, *now_ns);
        }
    }

    #[test]
    fn a_slow_device_is_found_and_a_fast_one_is_left_alone() {
        for (bytes_per_s, slow) in [(1_000_000, true), (50_000_000, true), (900_000_000, false)] {
            let (mut pressure, mut now_ns) = (Pressure::default(), 5);
            saturate(&mut pressure, &mut now_ns, bytes_per_s, 2_000_000_000, 1);
            assert_eq!(pressure.is_slow(), slow, "{bytes_per_s}");
        }
    }

    #[test]
    fn a_device_is_slow_also_if_it_takes_frames_in_fits() {
        let (mut pressure, mut now_ns) = (Pressure::default(), 5);
        for _ in 0..40 {
            // All that are in flight at once, and for a moment producers are late.
            saturate(&mut pressure, &mut now_ns, 50_000_000, 1, 4);
            ease(&mut pressure, &mut now_ns, 2_000_000);
        }
        assert!(pressure.is_slow());
        ease(&mut pressure, &mut now_ns, EASY_NS);
        assert!(!pressure.is_slow());
    }

    #[test]
    fn it_is_tried_again_ever_less_often_and_forgotten_when_nothing_waits() {
        let (mut pressure, mut now_ns) = (Pressure::default(), 5);
        let mut frames = Vec::new();
        for _ in 0..5 {
            saturate(&mut pressure, &mut now_ns, 50_000_000, 2_000_000_000, 1);
            let mut count = 0;
            while pressure.is_slow() {
                pressure.note_packed();
                count += 1;
            }
            frames.push(count);
        }
        assert_eq!(frames, [1024, 4096, 16_384, 16_384, 16_384]);
        saturate(&mut pressure, &mut now_ns, 50_000_000, 2_000_000_000, 1);
        assert!(pressure.is_slow());
        ease(&mut pressure, &mut now_ns, EASY_NS);
        assert!(!pressure.is_slow());
    }

    #[test]
    fn neither_a_stall_of_a_fast_device_nor_a_pause_of_producers_is_slowness() {
        let (mut pressure, mut now_ns) = (Pressure::default(), 5);
        for _ in 0..20 {
            saturate(&mut pressure, &mut now_ns, 900_000_000, 50_000_000, 1);
            now_ns += 100_000_000;
            ease(&mut pressure, &mut now_ns, 2 * EASY_NS);
            // 50 ms, in which one frame of each batch in flight is completed.
            saturate(&mut pressure, &mut now_ns, 20_000_000, 1, 4);
            ease(&mut pressure, &mut now_ns, 2 * EASY_NS);
            saturate(&mut pressure, &mut now_ns, 900_000_000, 5_000_000, 1);
            // Nobody had anything to say for a second, and then much.
            now_ns += 1_000_000_000;
            pressure.taken(true, 0, now_ns);
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
