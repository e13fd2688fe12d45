//! The window over the kernel's serials for readers that stand beside the audit daemon: they have no marker of
//! their own, and are told nothing of the kernel's counters.
//!
//! Nothing before the first serial is owed to such a reader, and at the end only what it was given time
//! for. Every event that is missing in between is stated, exactly.

use super::window::{Gap, Missing, Tolerance, Window};
use super::{AppendError, Sink};
use crate::clock::Now;
use graven_format::Source;
use graven_format::loss::{Cause, Certainty, LossStatement};

/// How long a serial, and the end of an event, may come late.
pub(crate) const TOLERANCE: Tolerance =
    Tolerance { time_ns: 2_000_000_000, event_time_ns: 70_000_000_000 };

/// Time between two looks that counts as waiting; what is longer was time in which the reader was
/// kept from reading.
const ACTIVE_NS_MAX: u64 = 200_000_000;

/// A serial so far from the others is of another boot or machine: counting what lies between would
/// be no statement.
const JUMP_MAX: u32 = 1 << 16;

/// More gaps than this found at once are stated as one.
const STATEMENTS_AT_ONCE_MAX: usize = 64;

/// What is known to be missing between the serials of one source.
pub(crate) struct Serials {
    source: Source,
    window: Window,
    started: bool,
    now: Now,
    active_ns: u64,
    /// When the window was last whole, nanoseconds since 1970.
    whole_at_ns: u64,
    pub(crate) statements: u64,
    pub(crate) lost_events: u64,
}

impl Serials {
    pub(crate) fn new(source: Source, now: Now) -> Self {
        Self {
            source,
            window: Window::new(TOLERANCE),
            started: false,
            now,
            active_ns: 0,
            whole_at_ns: now.realtime_ns,
            statements: 0,
            lost_events: 0,
        }
    }

    /// One past the highest serial.
    pub(crate) fn head(&self) -> u32 {
        self.window.head()
    }

    /// Whether every event up to this serial is here.
    pub(crate) fn is_complete_to(&self, serial: u32) -> bool {
        !self.started || self.window.is_complete_to(serial)
    }

    /// Whether nothing is being waited for.
    pub(crate) fn is_settled(&self) -> bool {
        !self.started || self.window.is_settled()
    }

    pub(crate) fn set_now(&mut self, now: Now) {
        let passed_ns = now.boottime_ns.saturating_sub(self.now.boottime_ns);
        self.active_ns += passed_ns.min(ACTIVE_NS_MAX);
        self.now = now;
    }

    /// Notes a record of this type and serial.
    pub(crate) fn note(
        &mut self,
        serial: u32,
        kind: u16,
        sink: &dyn Sink,
    ) -> Result<(), AppendError> {
        if !self.started {
            self.started = true;
            self.window.start(serial);
            self.whole_at_ns = self.now.realtime_ns;
        }
        let ahead = serial.wrapping_sub(self.window.head().wrapping_sub(1)).cast_signed();
        if ahead.unsigned_abs() > JUMP_MAX {
            self.finish(sink)?;
            self.state(Certainty::AtLeast, Cause::SerialGap, 0, None, sink)?;
            self.window = Window::new(TOLERANCE);
            self.window.start(serial);
        }
        self.window.note(serial, kind);
        Ok(())
    }

    /// States what has been given up by now. Call it when nothing was there to be read.
    pub(crate) fn tick(&mut self, sink: &dyn Sink) -> Result<(), AppendError> {
        let missing = self.window.tick(self.active_ns);
        let whole = self.window.is_settled();
        self.state_missing(&missing, sink)?;
        if whole {
            self.whole_at_ns = self.now.realtime_ns;
        }
        Ok(())
    }

    /// States everything that is still missing.
    pub(crate) fn finish(&mut self, sink: &dyn Sink) -> Result<(), AppendError> {
        let missing = self.window.finish(self.window.head().wrapping_sub(1));
        self.state_missing(&missing, sink)
    }

    fn state_missing(&mut self, missing: &Missing, sink: &dyn Sink) -> Result<(), AppendError> {
        let events: u64 = missing.gaps.iter().map(Gap::events).sum();
        self.lost_events += events;
        let range = |first: u32, last: u32| Some((u64::from(first), u64::from(last)));
        match &missing.gaps[..] {
            gaps if gaps.len() <= STATEMENTS_AT_ONCE_MAX => {
                for gap in gaps {
                    let range = range(gap.first, gap.last);
                    self.state(Certainty::Exactly, Cause::SerialGap, gap.events(), range, sink)?;
                }
            }
            [first, .., last] => {
                let range = range(first.first, last.last);
                self.state(Certainty::Exactly, Cause::SerialGap, events, range, sink)?;
            }
            _ => {}
        }
        if let (Some(first), Some(last)) = (missing.partial.first(), missing.partial.last()) {
            let count = missing.partial.len() as u64;
            let range = range(*first, *last);
            self.state(Certainty::AtLeast, Cause::PartialEvent, count, range, sink)?;
        }
        Ok(())
    }

    /// States a loss between the last moment without one and now.
    pub(crate) fn state(
        &mut self,
        certainty: Certainty,
        cause: Cause,
        count: u64,
        range: Option<(u64, u64)>,
        sink: &dyn Sink,
    ) -> Result<(), AppendError> {
        let Now { realtime_ns, boottime_ns } = self.now;
        let from_ns = self.whole_at_ns.saturating_sub(TOLERANCE.time_ns);
        let between_ns = Some((from_ns.min(realtime_ns), realtime_ns));
        let source = self.source;
        let statement = LossStatement { source, cause, certainty, count, range, between_ns };
        let payload = statement.encode(realtime_ns);
        sink.append(&LossStatement::record(&payload, realtime_ns, boottime_ns))?;
        self.statements += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graven_format::{Flags, Record};
    use std::cell::RefCell;

    const SERVICE_START: u16 = 1130;

    #[derive(Default)]
    struct List(RefCell<Vec<LossStatement>>);

    impl Sink for List {
        fn next_seq(&self) -> u64 {
            self.0.borrow().len() as u64
        }

        fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
            assert!(record.flags.contains(Flags::LOSS));
            self.0.borrow_mut().push(LossStatement::parse(record.bytes).expect("a statement").0);
            Ok(0)
        }
    }

    fn at(ms: u64) -> Now {
        Now { realtime_ns: (1_000_000 + ms) * 1_000_000, boottime_ns: ms * 1_000_000 }
    }

    #[test]
    fn what_never_comes_is_stated_after_its_time_and_what_comes_late_is_not() {
        let list = List::default();
        let mut serials = Serials::new(Source::Import, at(0));
        for serial in [100, 101, 104, 103, 107] {
            serials.note(serial, SERVICE_START, &list).expect("taken");
        }
        // What is before the first one is not owed.
        serials.note(99, SERVICE_START, &list).expect("taken");
        for ms in (0..1900).step_by(100) {
            serials.set_now(at(ms));
            serials.tick(&list).expect("taken");
        }
        assert!(list.0.borrow().is_empty());
        serials.note(105, SERVICE_START, &list).expect("taken");
        for ms in (1900..2200).step_by(100) {
            serials.set_now(at(ms));
            serials.tick(&list).expect("taken");
        }
        let ranges: Vec<_> = list.0.borrow().iter().map(|it| (it.count, it.range)).collect();
        assert_eq!(ranges, [(1, Some((102, 102))), (1, Some((106, 106)))]);
        assert_eq!((serials.statements, serials.lost_events), (2, 2));
        serials.finish(&list).expect("taken");
        assert_eq!(list.0.borrow().len(), 2, "nothing is stated twice");
    }

    #[test]
    fn time_in_which_nobody_could_read_does_not_count() {
        let list = List::default();
        let mut serials = Serials::new(Source::Import, at(0));
        for serial in [1, 3] {
            serials.note(serial, SERVICE_START, &list).expect("taken");
        }
        serials.tick(&list).expect("taken");
        serials.set_now(at(60_000));
        serials.tick(&list).expect("taken");
        assert!(list.0.borrow().is_empty(), "the reader was kept from reading");
        serials.finish(&list).expect("taken");
        assert_eq!(list.0.borrow().len(), 1, "at the end it is");
    }

    #[test]
    fn another_machines_serials_are_not_counted_against_ours() {
        let list = List::default();
        let mut serials = Serials::new(Source::Import, at(0));
        for serial in [5, 6, 900_000, 900_001, 900_003] {
            serials.note(serial, SERVICE_START, &list).expect("taken");
        }
        serials.finish(&list).expect("taken");
        let list = list.0.borrow();
        assert_eq!((list[0].certainty, list[0].count), (Certainty::AtLeast, 0));
        assert_eq!(
            (list[1].certainty, list[1].range),
            (Certainty::Exactly, Some((900_002, 900_002)))
        );
        assert_eq!(list.len(), 2);
    }
}
