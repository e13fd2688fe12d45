//! Where chance comes from, and how often it is unkind.

/// Denominator of every chance here.
const PPM: u32 = 1_000_000;

/// How often each fault happens, in parts per million of its occasions. All zero is a perfect
/// disk that still loses at a crash what no barrier covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimFaults {
    /// A `Write` fails with EIO; each of its sectors may have reached the media or not.
    pub write_error_ppm: u32,
    /// A `Sync` fails with EIO once: what it should have covered is called clean and may be
    /// lost, and the next `Sync` succeeds without it.
    pub sync_error_ppm: u32,
    /// A `SyncDir` fails with EIO in the same manner.
    pub sync_dir_error_ppm: u32,
    /// A `Rename` or `Remove` fails with EIO, done or not done.
    pub rename_error_ppm: u32,
    /// A `Create` or `Allocate` fails with ENOSPC although there is room.
    pub no_space_ppm: u32,
    /// An `Open`, `Zero`, `Truncate` or `Close` fails with EIO and does nothing.
    pub other_error_ppm: u32,
    /// An operation in flight is passed over by a poll, so that others complete before it.
    pub linger_ppm: u32,
    /// Part of a write reaches the media while the rest stays in flight.
    pub split_ppm: u32,
    /// At a crash, a sector under no barrier holds two versions, split at some byte.
    pub torn_sector_ppm: u32,
    /// At a crash, a sector under no barrier has reached the media all the same.
    pub survive_ppm: u32,
    /// A crash flips one bit of what was durable; the report says which.
    pub bit_flip_ppm: u32,
}

impl SimFaults {
    /// No faults but those of the order in which things happen and of the crash itself.
    #[must_use]
    pub fn none() -> Self {
        Self {
            linger_ppm: PPM / 2,
            split_ppm: PPM / 10,
            torn_sector_ppm: PPM / 10,
            survive_ppm: PPM / 2,
            ..Self::default()
        }
    }

    /// A choice of faults by seed, swarm style: each is off or has a weight of its own, from
    /// rare to most of the time, so that a set of seeds reaches states that no one mixture does.
    #[must_use]
    pub fn swarm(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut rare = || match rng.below(8) {
            0 => 100_000,
            1 => 10_000,
            2 => 1_000,
            _ => 0,
        };
        let errors = [rare(), rare(), rare(), rare(), rare(), rare(), rare()];
        let mut any = || match rng.below(4) {
            0 => 0,
            1 => PPM - PPM / 10,
            _ => rng.below(u64::from(PPM)) as u32,
        };
        Self {
            write_error_ppm: errors[0],
            sync_error_ppm: errors[1],
            sync_dir_error_ppm: errors[2],
            rename_error_ppm: errors[3],
            no_space_ppm: errors[4],
            other_error_ppm: errors[5],
            bit_flip_ppm: errors[6],
            linger_ppm: any(),
            split_ppm: any(),
            torn_sector_ppm: any(),
            survive_ppm: any(),
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): ten lines whose output is the same for ever, which no
/// crate promises, so that a seed in a bug report keeps its meaning.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, 0 if `end` is 0. The bias of a remainder is of no account here.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// The same for indices.
    pub(super) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// Whether something of this chance happens. Draws exactly once, so that to change one
    /// chance does not shift all later draws.
    pub(super) fn chance(&mut self, ppm: u32) -> bool {
        self.below(u64::from(PPM)) < u64::from(ppm)
    }
}

/// A running FNV-1a hash of everything that happened: equal traces mean equal runs.
#[derive(Clone, Debug)]
pub(super) struct Trace(u64);

impl Trace {
    pub(super) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(super) fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    pub(super) fn value(&self) -> u64 {
        self.0
    }
}
