//! How a trail is written.

use crate::disk::DiskChoice;
use crate::engine::{Compress, OnFull, SQUEEZE_BYTES, TREE_BYTES};
use crate::error::OpenError;
use crate::keys::KeyOption;
use graven_format::consts::{
    ALIGN_BYTES_MAX, FRAME_BYTES_MAX, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
};
use std::time::Duration;

/// Bytes of the ring unless told otherwise: at 300 MB/s of records a fifth of a second.
pub const RING_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

/// Smallest ring: one buffer is filled while others are written.
pub const RING_BYTES_MIN: u64 = 4 * FRAME_BYTES_MAX as u64;

/// Largest ring: io_uring registers at most 16,384 buffers.
pub const RING_BYTES_MAX: u64 = 16_384 * FRAME_BYTES_MAX as u64;

/// Frames in flight unless told otherwise. Bandwidth saturates at four.
pub const IN_FLIGHT_DEFAULT: usize = 4;

/// How old a record grows before a checkpoint covers it, unless told otherwise.
pub const CHECKPOINT_DEFAULT: Duration = Duration::from_secs(1);

/// How long a key signs unless told otherwise: what was recorded longer ago cannot be signed anew by
/// whoever takes the machine.
pub const EPOCH_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// In how many segments a key signs unless told otherwise: a GiB of them.
pub const EPOCH_SEGMENTS_DEFAULT: u64 = 16;

/// How a trail is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a segment, 512 KiB to 1 GiB, a multiple of 4096.
    pub segment_bytes: u64,
    /// Bytes of the ring, 1 MiB to 4 GiB: the memory that producers fill before they wait.
    pub ring_bytes: u64,
    /// Frames in flight at most.
    pub in_flight_max: usize,
    /// The driver.
    pub disk: DiskChoice,
    /// What to do when there is no room for another segment.
    pub on_full: OnFull,
    /// Whether segments are zeroed ahead of use; by default where that makes commits faster.
    pub zero_ahead: Option<bool>,
    /// Whether frames are compressed on their way to the disk.
    pub compress: Compress,
    /// Where the first key comes from.
    pub key: KeyOption,
    /// How old a record grows before a checkpoint covers it, 10 ms to a day; without, only what ends a
    /// segment or is asked for is signed.
    pub checkpoint: Option<Duration>,
    /// How long a key signs, 1 s to a year.
    pub epoch: Duration,
    /// In how many segments a key signs, at least 1.
    pub epoch_segments: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            ring_bytes: RING_BYTES_DEFAULT,
            in_flight_max: IN_FLIGHT_DEFAULT,
            disk: DiskChoice::Auto,
            on_full: OnFull::Wait,
            zero_ahead: None,
            compress: Compress::Auto,
            key: KeyOption::Auto,
            checkpoint: Some(CHECKPOINT_DEFAULT),
            epoch: EPOCH_DEFAULT,
            epoch_segments: EPOCH_SEGMENTS_DEFAULT,
        }
    }
}

impl Options {
    /// Memory that a writer with these options has fixed at start, in bytes: the buffers, the
    /// hashes of the batch that is being added to the tree, and what compressing takes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let squeeze_bytes = if self.compress == Compress::Never { 0 } else { SQUEEZE_BYTES };
        self.ring_buffers() as u64 * FRAME_BYTES_MAX as u64 + (TREE_BYTES + squeeze_bytes) as u64
    }

    pub(super) fn ring_buffers(&self) -> usize {
        (self.ring_bytes / FRAME_BYTES_MAX as u64) as usize
    }

    pub(super) fn check(&self) -> Result<(), OpenError> {
        let option = |option, value, range: String| Err(OpenError::Option { option, value, range });
        let (min, max) = (SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        if !(min..=max).contains(&self.segment_bytes)
            || !self.segment_bytes.is_multiple_of(ALIGN_BYTES_MAX.into())
        {
            let range = format!("a multiple of {ALIGN_BYTES_MAX} from {min} to {max}");
            return option("segment_bytes", self.segment_bytes, range);
        }
        let (min, max) = (RING_BYTES_MIN, RING_BYTES_MAX);
        if !(min..=max).contains(&self.ring_bytes) {
            return option("ring_bytes", self.ring_bytes, format!("from {min} to {max}"));
        }
        if !(1..=64).contains(&self.in_flight_max) {
            return option("in_flight_max", self.in_flight_max as u64, "from 1 to 64".to_owned());
        }
        let (min, max) = (Duration::from_millis(10), Duration::from_secs(86_400));
        if let Some(interval) = self.checkpoint.filter(|it| !(min..=max).contains(it)) {
            let ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
            return option("checkpoint", ms, "from 10 to 86400000 milliseconds".to_owned());
        }
        let (min, max) = (Duration::from_secs(1), Duration::from_secs(365 * 86_400));
        if !(min..=max).contains(&self.epoch) {
            let range = "from 1 to 31536000 seconds".to_owned();
            return option("epoch", self.epoch.as_secs(), range);
        }
        if self.epoch_segments == 0 {
            return option("epoch_segments", 0, "at least 1".to_owned());
        }
        Ok(())
    }
}
