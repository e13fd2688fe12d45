//! What a life is like: every option drawn from the seed, swarm style. Each is fully off or has a
//! weight of its own, so that a set of seeds reaches states that no one mixture reaches.

use crate::rng::Rng;
use graven_format::consts::{FRAME_BYTES_MAX, SEGMENT_BYTES_MIN};
use graven_writer::disk::Geometry;
use graven_writer::disk::sim::{SimFaults, SimOptions};
use graven_writer::engine::Cadence;
use graven_writer::{Compress, OnFull};

/// The whole room of a disk that never fills up.
pub(crate) const ROOM_BYTES: u64 = 1 << 40;

/// Longest payload of most records, in bytes; a few are as long as fits.
const PAYLOAD_BYTES: [u64; 6] = [0, 60, 400, 4000, 20_000, 60_000];

/// The options of one life.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed that all of it came from.
    pub seed: u64,
    /// Writers, one after the other, of which each but the last ends in some way.
    pub generations: u32,
    /// What the disk asks of writes.
    pub geometry: Geometry,
    /// Whether the trail is copied to disks that ask for something else.
    pub moves: bool,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Whether each generation draws its own.
    pub segment_bytes_vary: bool,
    /// Frames in flight.
    pub in_flight_max: usize,
    /// Whether files take for ever to be closed.
    pub close_late: bool,
    /// Whether segments are zeroed ahead.
    pub zero_ahead: bool,
    /// What a full disk does.
    pub on_full: OnFull,
    /// Whether frames are compressed.
    pub compress: Compress,
    /// Buffers of the ring, and bytes of each.
    pub ring: (usize, usize),
    /// Buffers of it that may be in use without end.
    pub standing: usize,
    /// Longest payload of most records.
    pub payload_bytes: u64,
    /// Stored bytes that a generation appends, about.
    pub generation_bytes: u64,
    /// Whether the disk is nearly full in some generations.
    pub narrow: bool,
    /// Whether realtime steps.
    pub clock_jumps: bool,
    /// How the disk fails.
    pub faults: SimFaults,
    /// How the trail is signed, if it is.
    pub cadence: Option<Cadence>,
    /// Whether the store of keys fails at times.
    pub key_faults: bool,
    /// Whether segments are sealed by request.
    pub seals: bool,
}

impl Plan {
    /// The options that belong to a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 1);
        let direct = !rng.one_in(4);
        let align_bytes = rng.pick(&[512, 4096]);
        let buffer_bytes = rng.pick(&[4096, 8192, 32_768, 65_536, FRAME_BYTES_MAX]);
        Self {
            seed,
            generations: rng.between(2, 6) as u32,
            geometry: Geometry { align_bytes, direct },
            moves: rng.one_in(6),
            segment_bytes: rng.pick(&[SEGMENT_BYTES_MIN, SEGMENT_BYTES_MIN + 4096, 1 << 20]),
            segment_bytes_vary: rng.one_in(4),
            in_flight_max: rng.between(1, 8) as usize,
            close_late: rng.one_in(8),
            zero_ahead: rng.one_in(2),
            on_full: if rng.one_in(3) { OnFull::End } else { OnFull::Wait },
            ring: (rng.between(2, 8) as usize, buffer_bytes),
            payload_bytes: rng.pick(&PAYLOAD_BYTES),
            generation_bytes: rng.pick(&[100 << 10, 1200 << 10, 2400 << 10, 3600 << 10]),
            narrow: rng.one_in(3),
            clock_jumps: rng.one_in(2),
            faults: faults(&mut rng, seed),
            // Drawn last: what a seed meant before stays what it means.
            compress: rng.pick(&[Compress::Never, Compress::Auto, Compress::Always]),
            cadence: cadence(&mut rng),
            key_faults: rng.one_in(3),
            seals: rng.one_in(3),
            standing: rng.between(2, 8) as usize,
        }
    }

    /// The disk that the life begins on.
    #[must_use]
    pub fn disk(&self) -> SimOptions {
        let Self { geometry, faults, .. } = *self;
        SimOptions { geometry, capacity_bytes: ROOM_BYTES, faults }
    }

    /// The size of a segment for one generation.
    #[must_use]
    pub(crate) fn segment_bytes(&self, rng: &mut Rng) -> u64 {
        let other = SEGMENT_BYTES_MIN + 4096 * rng.below(64);
        if self.segment_bytes_vary { other } else { self.segment_bytes }
    }
}

/// Three of four lives are signed, some of them without checkpoints at intervals, some with a key
/// that hardly signs more than one.
fn cadence(rng: &mut Rng) -> Option<Cadence> {
    let interval_ns = rng.pick(&[None, Some(1_000_000), Some(20_000_000), Some(1_000_000_000)]);
    let epoch_ns = rng.pick(&[1_000_000, 50_000_000, 900_000_000_000]);
    let epoch_segments = rng.pick(&[1, 2, 16]);
    (!rng.one_in(4)).then_some(Cadence { interval_ns, epoch_ns, epoch_segments })
}

/// In half of all lives nothing goes wrong but crashes, so that whatever is missed then cannot
/// be blamed on a fault.
fn faults(rng: &mut Rng, seed: u64) -> SimFaults {
    let swarm = SimFaults::swarm(seed);
    let SimFaults { linger_ppm, split_ppm, torn_sector_ppm, survive_ppm, .. } = swarm;
    if rng.one_in(2) {
        SimFaults { linger_ppm, split_ppm, torn_sector_ppm, survive_ppm, ..SimFaults::default() }
    } else {
        swarm
    }
}
