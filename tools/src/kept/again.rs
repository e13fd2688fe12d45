//! How soon a process that died is started again: at once, unless it keeps dying.

use std::time::{Duration, Instant};

/// A process that ran for so long did not die of being started.
const WELL_TIME: Duration = Duration::from_secs(10);
/// The first wait, which doubles.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Counts deaths.
#[derive(Debug)]
pub(super) struct Again {
    started: Instant,
    /// Deaths in a row, each soon after a start.
    deaths: u32,
}

impl Again {
    /// A process was started just now.
    #[must_use]
    pub(super) fn started() -> Self {
        Self { started: Instant::now(), deaths: 0 }
    }

    /// It died: how long to wait before it is started again.
    pub(super) fn died(&mut self, now: Instant) -> Duration {
        if now.duration_since(self.started) >= WELL_TIME {
            self.deaths = 0;
        }
        let wait = match self.deaths {
            0 => Duration::ZERO,
            deaths => WAIT_MIN.saturating_mul(1 << (deaths - 1).min(16)).min(WAIT_MAX),
        };
        self.deaths = self.deaths.saturating_add(1);
        wait
    }

    /// It was started again.
    pub(super) fn started_again(&mut self, now: Instant) {
        self.started = now;
    }

    /// How many deaths in a row there were.
    #[must_use]
    pub(super) fn deaths(&self) -> u32 {
        self.deaths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_dying_is_started_less_and_less_often() {
        let mut again = Again::started();
        let now = again.started;
        let ms: Vec<u128> = (0..12).map(|_| again.died(now).as_millis()).collect();
        assert_eq!(ms, [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000, 10_000]);
        again.started_again(now);
        assert_eq!(again.died(now + WELL_TIME), Duration::ZERO, "it was well");
        assert_eq!(again.deaths(), 1);
    }
}
