//! The marks that a session leaves in the trail, and the places at which it can be taken up.

use super::{Intake, Moment, Terms};
use crate::clock::Now;
use crate::own::{self, Own};
use crate::source::AppendError;
use crate::source::past::Settled;
use graven_format::loss::{Cause, Certainty};
use std::collections::VecDeque;

/// How often the trail itself says up to where everything is settled, in nanoseconds of receiving: who
/// reads it back begins at the last time.
const MARK_TIME: u64 = 5_000_000_000;

/// Places that are remembered until they are settled, and the least time between two.
const PLACES_MAX: usize = 256;
const PLACE_NS: u64 = 100_000_000;

/// Places in the trail with the head of the window there, until everything below it is settled.
pub(super) struct Places {
    waiting: VecDeque<(u64, u32)>,
    /// No record of the session stands before this seq.
    begin_seq: u64,
    /// When one was noted last.
    noted_ns: u64,
    /// When the trail was told last, and which serial.
    told: (u64, Option<u32>),
}

impl Places {
    pub(super) fn new(begin_seq: u64, now_ns: u64) -> Self {
        Self { waiting: VecDeque::new(), begin_seq, noted_ns: now_ns, told: (now_ns, None) }
    }
}

impl Intake<'_> {
    /// The opening marker arrived.
    pub(crate) fn start(&mut self, serial: u32) -> Result<(), AppendError> {
        let held = self.window.start(serial);
        self.opened = true;
        if !self.goes_on {
            // What is missing among records that the kernel had held since it began may be as old as that.
            let since_boot_ns = if held { self.now.boottime_ns } else { 0 };
            self.whole_at_ns = self.now.realtime_ns.saturating_sub(since_boot_ns);
        }
        // What the counter rose by since the last session is explained by what is missing, or is not,
        // once that is known.
        let now_ns = self.now.active_ns;
        self.unsettled.since_ns.iter_mut().for_each(|since_ns| *since_ns = now_ns);
        if let Some(from_ns) = self.other_boot_ns.take() {
            self.state(Cause::NoDaemon, Certainty::AtLeast, 0, None, from_ns)?;
        }
        let goes_on = yes(self.goes_on);
        let mark = self.mark(own::START, "netlink-open", serial, self.places.begin_seq);
        mark.field("goes-on", goes_on).result(true).append(self.sink)?;
        Ok(())
    }

    /// What the kernel's counter has counted and is accounted for.
    fn accounted(&self) -> u32 {
        // The counter is of 32 bits, and what is not accounted for is a part of it.
        self.lost_counter.wrapping_sub(self.unsettled.lost as u32)
    }

    fn mark(&self, kind: u16, op: &str, serial: u32, seq: u64) -> Own {
        let lost = self.accounted();
        let Moment { realtime_ns, boottime_ns, .. } = self.now;
        let mark = Own::new(kind, op, Now { realtime_ns, boottime_ns });
        mark.field("serial", serial).field("seq", seq).field("lost", lost)
    }

    /// The newest place up to which everything is settled, if there is a newer one. The trail is told now
    /// and then. Call it after what is due was stated.
    pub(crate) fn settled(&mut self) -> Result<Option<Settled>, AppendError> {
        let now_ns = self.now.active_ns;
        if !self.opened || self.leave_out > 0 || now_ns < self.places.noted_ns + PLACE_NS {
            return Ok(None);
        }
        self.places.noted_ns = now_ns;
        let Some(serial) = self.window.settled() else { return Ok(None) };
        let (by, head) = (self.sink.next_seq(), self.window.head());
        let waiting = &mut self.places.waiting;
        if waiting.back().is_none_or(|&(_, before)| before != head) {
            if waiting.len() == PLACES_MAX {
                let mut keep = false;
                waiting.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
            waiting.push_back((by, head));
        }
        let below = |head: u32| serial.wrapping_sub(head.wrapping_sub(1)).cast_signed() >= 0;
        let settled = waiting.iter().take_while(|&&(_, head)| below(head)).count();
        let Some((seq, head)) = waiting.drain(..settled).next_back() else { return Ok(None) };
        let (serial, halves, lost) = (head.wrapping_sub(1), self.window.halves(), self.accounted());
        let settled = Settled { seq, serial, halves, lost, by };
        let (told_ns, told) = self.places.told;
        if now_ns >= told_ns + MARK_TIME && told != Some(serial) {
            self.places.told = (now_ns, Some(serial));
            let mark = self.mark(own::CONFIG, "netlink-settled", serial, seq);
            mark.field("halves", yes(halves)).result(true).append(self.sink)?;
        }
        Ok(Some(settled))
    }

    /// The mark of the end.
    pub(super) fn close(&self, last: u32, drained: bool) -> Result<(), AppendError> {
        let Terms { left_on, own, .. } = self.terms;
        let mark = self.mark(own::END, "netlink-close", last, self.places.begin_seq);
        let mark = mark.field("left-on", yes(left_on)).field("own", own);
        mark.field("drained", yes(drained)).result(drained).append(self.sink)?;
        Ok(())
    }
}

fn yes(so: bool) -> &'static str {
    if so { "yes" } else { "no" }
}
