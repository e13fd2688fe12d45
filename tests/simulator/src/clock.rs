//! Time, which only the simulator moves.

use crate::rng::Rng;
use graven_writer::clock::Now;

/// One day, in nanoseconds.
const DAY_NS: u64 = 86_400_000_000_000;

/// Both clocks. One of them is set back and forth; the other starts again at every boot.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    now: Now,
    boot: u8,
    jumps: bool,
}

impl Clock {
    /// A clock, whose realtime steps if `jumps`.
    #[must_use]
    pub(crate) fn new(jumps: bool) -> Self {
        let now = Now { realtime_ns: 1_700_000_000_000_000_000, boottime_ns: 1_000_000_000 };
        Self { now, boot: 1, jumps }
    }

    /// The present moment.
    #[must_use]
    pub(crate) fn now(&self) -> Now {
        self.now
    }

    /// The kernel's id of this boot.
    #[must_use]
    pub(crate) fn boot_id(&self) -> [u8; 16] {
        [self.boot; 16]
    }

    /// A little time goes by. Returns whether somebody has set the clock.
    pub(crate) fn tick(&mut self, rng: &mut Rng) -> bool {
        let ns = rng.below(2_000_000);
        self.now.boottime_ns += ns;
        self.now.realtime_ns = self.now.realtime_ns.saturating_add(ns);
        let jumps = self.jumps && rng.one_in(40);
        if jumps {
            let by = rng.below(30 * DAY_NS);
            let back = self.now.realtime_ns.saturating_sub(by);
            let forth = self.now.realtime_ns.saturating_add(by);
            self.now.realtime_ns = if rng.one_in(2) { back } else { forth };
        }
        jumps
    }

    /// Sleeps until this moment, if it is not over.
    pub(crate) fn reach(&mut self, boottime_ns: u64) {
        let ns = boottime_ns.saturating_sub(self.now.boottime_ns);
        self.now.boottime_ns += ns;
        self.now.realtime_ns = self.now.realtime_ns.saturating_add(ns);
    }

    /// The machine starts again.
    pub(crate) fn reboot(&mut self) {
        self.boot = self.boot.wrapping_add(1);
        self.now.boottime_ns = 1_000_000_000;
    }
}
