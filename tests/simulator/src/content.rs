//! Records whose every byte follows from the seed, so that the oracle can tell any record from
//! any other without keeping them.

use crate::rng::Rng;
use graven_format::consts::RECORD_PAYLOAD_BYTES_MAX;
use graven_format::{Flags, Record, Source};

/// What the oracle keeps of a record that the ring has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// How many were offered before it. Its seq is known only once it is accepted, because the ring
    /// gives some to checkpoints.
    pub(crate) nth: u64,
    /// The generation that appended it: after a crash another record can get the same `seq`, and
    /// must not be mistaken for this one.
    pub(crate) generation: u32,
    /// Bytes of its payload.
    pub(crate) len: u32,
    /// The clock of that moment, which may have stepped back.
    pub(crate) realtime_ns: u64,
    /// The other clock.
    pub(crate) boottime_ns: u64,
}

/// Makes records, one at a time, in a buffer of its own.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    seed: u64,
    /// One record in so many is noise, of which no byte can be saved; the others compress well.
    noise: u64,
    buf: Vec<u8>,
}

impl Content {
    /// The records of one life.
    #[must_use]
    pub(crate) fn new(seed: u64) -> Self {
        let noise = Rng::new(seed, u64::MAX).pick(&[1, 2, 20]);
        Self { seed, noise, buf: Vec::with_capacity(RECORD_PAYLOAD_BYTES_MAX) }
    }

    /// The record that was accepted so.
    pub(crate) fn record(&mut self, accepted: &Accepted) -> Record<'_> {
        let mut rng =
            Rng::new(self.seed ^ accepted.nth.rotate_left(32), u64::from(accepted.generation) + 1);
        let (drawn, source_seq) = (rng.next(), rng.next());
        self.buf.clear();
        while self.buf.len() < accepted.len as usize {
            let word = if source_seq % self.noise == 0 { rng.next() } else { drawn };
            self.buf.extend_from_slice(&word.to_le_bytes());
        }
        self.buf.truncate(accepted.len as usize);
        Record {
            source: Source::ALL[(drawn % Source::ALL.len() as u64) as usize],
            kind: (drawn >> 16) as u16,
            flags: if drawn & 0x100 == 0 { Flags::NONE } else { Flags::UNTERMINATED },
            realtime_ns: accepted.realtime_ns,
            boottime_ns: accepted.boottime_ns,
            source_seq,
            bytes: &self.buf,
        }
    }
}
