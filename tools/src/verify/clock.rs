//! Boots, and steps of the real-time clock between records of one boot. A step is no failure.
//!
//! A record has both clocks, read at the same moment, and the time since boot is never set. What
//! the real-time clock gained on it between two records was set or slewed: the kernel slews by at
//! most [`SLEW_PPM`], so that more than this and [`STEP_NS`] is a step.

use crate::time::rfc3339;
use crate::verify::report::hex;
use serde::Serialize;

/// Nanoseconds that are no step yet.
pub const STEP_NS: u64 = 1_000_000_000;
/// How fast the kernel slews the clock at most, in millionths.
const SLEW_PPM: u64 = 500;
/// Most steps that are kept of a segment, and listed of a trail.
const STEPS_MAX: usize = 1000;
/// Most boots of a trail that are listed.
const BOOTS_MAX: usize = 10_000;

/// Both clocks of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Its seq.
    pub seq: u64,
    /// Nanoseconds since 1970.
    pub realtime_ns: u64,
    /// Nanoseconds since boot.
    pub boottime_ns: u64,
}

/// Where the clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    /// The first record after it.
    after: Times,
    /// Nanoseconds forwards, or backwards if negative.
    step_ns: i64,
}

/// The clocks of one segment, in memory for [`STEPS_MAX`] steps.
#[derive(Clone, Debug, Default)]
pub struct Clocks {
    ends: Option<(Times, Times)>,
    steps: Vec<Step>,
    left_out: u64,
}

impl Clocks {
    /// Takes the next intact record.
    pub fn take(&mut self, times: Times) {
        let (first, last) = self.ends.unwrap_or((times, times));
        self.ends = Some((first, times));
        if let Some(step) = step(last, times) {
            if self.steps.len() < STEPS_MAX {
                self.steps.push(step);
            } else {
                self.left_out += 1;
            }
        }
    }
}

/// The step between two records of one boot, if there is one.
fn step(before: Times, after: Times) -> Option<Step> {
    let difference = |to: u64, from: u64| i128::from(to) - i128::from(from);
    let passed = difference(after.boottime_ns, before.boottime_ns);
    let gained = difference(after.realtime_ns, before.realtime_ns) - passed;
    let slewed = passed.unsigned_abs() * u128::from(SLEW_PPM) / 1_000_000;
    let clamped = gained.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
    (gained.unsigned_abs() > u128::from(STEP_NS) + slewed)
        .then_some(Step { after, step_ns: clamped })
}

/// The clocks of a trail.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Clock {
    /// The boots in which segments were made, in the order of the trail.
    pub boots: Vec<Boot>,
    /// Boots that are not listed.
    pub boots_left_out: u64,
    /// Steps of more than [`STEP_NS`] within a boot.
    pub steps: Vec<StepReport>,
    /// Steps that are not listed.
    pub steps_left_out: u64,
    #[serde(skip)]
    last: Option<([u8; 16], Times)>,
}

/// A boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Boot {
    /// The kernel's random id of it, in hexadecimal.
    pub boot_id: String,
    /// The first intact record of it.
    pub seq: u64,
    /// The time of that record.
    pub time: String,
}

/// A step of the real-time clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepReport {
    /// The first intact record after it.
    pub seq: u64,
    /// The time of that record.
    pub time: String,
    /// Nanoseconds forwards, or backwards if negative.
    pub step_ns: i64,
}

impl Clock {
    /// Takes the next segment. Without its header nothing says of which boot it is. Records from
    /// `end_seq` on are not part of the trail.
    pub fn segment(&mut self, boot_id: Option<[u8; 16]>, clocks: &Clocks, end_seq: u64) {
        let (Some((first, last)), Some(boot_id)) = (clocks.ends, boot_id) else {
            self.last = None;
            return;
        };
        if first.seq >= end_seq {
            return;
        }
        match self.last {
            Some((before_id, before)) if before_id == boot_id => {
                if let Some(step) = step(before, first) {
                    self.add(&step);
                }
            }
            _ => self.boot(&boot_id, first),
        }
        clocks.steps.iter().filter(|it| it.after.seq < end_seq).for_each(|it| self.add(it));
        self.steps_left_out += clocks.left_out;
        self.last = Some((boot_id, last));
    }

    fn boot(&mut self, boot_id: &[u8; 16], first: Times) {
        let boot_id = hex(boot_id);
        if self.boots.last().is_some_and(|boot| boot.boot_id == boot_id) {
            return;
        }
        if self.boots.len() == BOOTS_MAX {
            self.boots_left_out += 1;
            return;
        }
        self.boots.push(Boot { boot_id, seq: first.seq, time: rfc3339(first.realtime_ns) });
    }

    fn add(&mut self, step: &Step) {
        if self.steps.len() == STEPS_MAX {
            self.steps_left_out += 1;
            return;
        }
        let Times { seq, realtime_ns, .. } = step.after;
        let time = rfc3339(realtime_ns);
        self.steps.push(StepReport { seq, time, step_ns: step.step_ns });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn times(seq: u64, realtime_s: u64, boottime_s: u64) -> Times {
        Times { seq, realtime_ns: realtime_s * SECOND, boottime_ns: boottime_s * SECOND }
    }

    fn clocks(all: &[Times]) -> Clocks {
        let mut clocks = Clocks::default();
        all.iter().for_each(|it| clocks.take(*it));
        clocks
    }

    fn steps(clock: &Clock) -> Vec<(u64, i64)> {
        clock.steps.iter().map(|it| (it.seq, it.step_ns / SECOND as i64)).collect()
    }

    #[test]
    fn steps_both_ways_are_found_and_a_slew_is_none() {
        let mut clock = Clock::default();
        let hour = 3600;
        let one = clocks(&[
            times(0, 1000, 10),
            times(1, 1001, 10),              // exactly the threshold
            times(2, 1003, 10),              // two seconds
            times(3, 993, 10),               // ten back
            times(4, 995 + hour, 10 + hour), // two in an hour: slewed
        ]);
        clock.segment(Some([1; 16]), &one, u64::MAX);
        assert_eq!(steps(&clock), [(2, 2), (3, -10)]);
    }

    #[test]
    fn segments_of_one_boot_are_compared_and_those_of_two_are_not() {
        let mut clock = Clock::default();
        clock.segment(Some([1; 16]), &clocks(&[times(0, 1000, 10)]), u64::MAX);
        clock.segment(Some([1; 16]), &clocks(&[times(1, 2000, 11)]), u64::MAX);
        clock.segment(Some([2; 16]), &clocks(&[times(2, 9000, 1)]), u64::MAX);
        // Without a header nobody knows; what follows is of the boot that was.
        clock.segment(None, &clocks(&[times(3, 1, 1)]), u64::MAX);
        clock.segment(Some([2; 16]), &clocks(&[times(4, 9001, 2), times(5, 1, 2)]), 5);
        assert_eq!(steps(&clock), [(1, 999)]);
        let boots: Vec<u64> = clock.boots.iter().map(|boot| boot.seq).collect();
        assert_eq!(boots, [0, 2]);
    }

    #[test]
    fn any_numbers_and_any_count_of_steps_are_taken() {
        let mut all = Clocks::default();
        for seq in 0..3000 {
            let realtime_ns = if seq % 2 == 0 { 0 } else { u64::MAX };
            all.take(Times { seq, realtime_ns, boottime_ns: u64::MAX - realtime_ns });
        }
        let mut clock = Clock::default();
        clock.segment(Some([1; 16]), &all, u64::MAX);
        assert_eq!((clock.steps.len(), clock.steps_left_out), (STEPS_MAX, 1999));
        assert_eq!(clock.steps[0].step_ns, i64::MAX);
    }
}
