//! A window over the kernel's event serials: what never arrived becomes an exact range.
//!
//! # Why a gap is a loss
//! The kernel takes a serial only after it has a buffer for the event's first record, and queues
//! that record unless its rate limit refuses it. The filters that discard whole types are asked
//! before a serial is taken. So while one daemon is registered and no rate limit is set, every
//! serial brings it at least one record; the kernel tests in `tests/kernel_audit.rs` run every
//! control operation that Graven uses and hundreds of thousands of events past the window and find
//! no gap. A missing serial is therefore one missing event, exactly; how many records it had is
//! unknown.
//!
//! # Why it waits
//! A task takes its serial first and queues its record later, and in between it may be
//! preempted: serials arrive out of order. A serial is given up when a higher one has been here for
//! [`Tolerance::time_ns`], or at once when it lies [`SPAN`] serials back.
//!
//! # Where it starts and ends
//! What is owed begins at the serial of a marker record that Graven itself sends, and ends at that of another, so
//! that nothing at the edges goes unnoticed. Of what came before the first the lowest serial is where
//! judging begins. See [`Window::start`].
//!
//! # Where it goes on
//! A window can be built again from the records and statements of a trail, behind a place up to which
//! everything was settled: [`Window::at`]. What is missing then waits anew. A session that follows one
//! which was cut off goes on with its window: what is at or below the new opening marker was lost while
//! nobody was registered, or with whoever was, and is told apart ([`Missing::absent`]).
//!
//! # Half events
//! `SYSCALL` opens a system call's event and `EOE` ends it. An event that has one without the other
//! is partial. A producer may sleep for long between the two, so an open event is set aside and
//! given up only after [`Tolerance::event_time_ns`]. Rules may discard either type, so that nothing
//! is called partial before both have been seen. A record lost from the middle of an event does not
//! show. An event whose first records are lost and whose producer then sleeps for longer than the window waits
//! has been stated as missing when its last ones come: they are recorded, and it is not stated again.

use std::collections::{BTreeMap, VecDeque};

use graven_format::kind;

mod again;

/// Serials that the window holds: two seconds of half a million events a second.
pub const SPAN: u64 = 1 << 20;
/// Serials below the first one seen that may still arrive while the start is not known.
const SLACK: u64 = 1 << 12;
/// Open events set aside at most; past it the oldest is judged at once.
const OPEN_MAX: usize = 1 << 12;
/// Coarseness of the waiting time: bounds the list of marks.
const MARK_NS: u64 = 10_000_000;

/// Bits kept for a serial.
const SEEN: u8 = 1;
const OPENED: u8 = 2;
const ENDED: u8 = 4;
const RING: u8 = 8;
/// Nothing came, or not all of it, and a statement says so.
const STATED: u8 = 16;

const _: () = assert!(SPAN.is_power_of_two() && SLACK < SPAN);

/// How long the window waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// Nanoseconds that a serial may come after a higher one.
    pub time_ns: u64,
    /// Nanoseconds between an event's first record and its last.
    pub event_time_ns: u64,
}

/// Serials that never came: all between first and last, both included; never across the wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The lowest missing serial.
    pub first: u32,
    /// The highest missing serial.
    pub last: u32,
}

impl Gap {
    /// Events that are missing.
    #[must_use]
    pub fn events(&self) -> u64 {
        u64::from(self.last - self.first) + 1
    }
}

/// What the window gave up on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Whole events from before the opening marker, in order of their serials.
    pub absent: Vec<Gap>,
    /// Whole events, in order of their serials.
    pub gaps: Vec<Gap>,
    /// Events that have a beginning or an end, but not both.
    pub partial: Vec<u32>,
}

impl Missing {
    /// Whether nothing is missing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.absent.is_empty() && self.gaps.is_empty() && self.partial.is_empty()
    }
}

/// The window. Serials are widened to u64 inside, so that the wrap needs no thought.
pub struct Window {
    tolerance: Tolerance,
    /// What is known of the serials from `next` to `head`, at their number modulo the span.
    states: Box<[u8]>,
    /// The lowest serial not yet passed.
    next: u64,
    /// One past the highest serial seen.
    head: u64,
    /// Where the head was when; ascending in both.
    marks: VecDeque<(u64, u64)>,
    /// Events passed while open, with what is known of them and when to give up.
    open: BTreeMap<u64, (u8, u64)>,
    missing: Missing,
    started: bool,
    primed: bool,
    /// The opening marker of a session that goes on with the window of another: gaps at or below it
    /// are from before.
    opening: u64,
    /// The next serial is the first of such a session.
    rejoining: bool,
    /// It is being built again from a trail.
    rebuilding: bool,
    kinds_seen: u8,
    events: u64,
    now_ns: u64,
}

impl Window {
    /// A window that has seen nothing.
    #[must_use]
    pub fn new(tolerance: Tolerance) -> Self {
        Self {
            tolerance,
            states: vec![0; SPAN as usize].into_boxed_slice(),
            next: 0,
            head: 0,
            marks: VecDeque::new(),
            open: BTreeMap::new(),
            missing: Missing::default(),
            started: false,
            primed: false,
            opening: 0,
            rejoining: false,
            rebuilding: false,
            kinds_seen: 0,
            events: 0,
            now_ns: 0,
        }
    }

    /// Notes a record of type `kind` with this serial.
    pub fn note(&mut self, serial: u32, kind: u16) {
        if !self.primed {
            self.primed = true;
            // One whole turn of serials lies below, so that nothing is ever negative.
            self.head = (1 << 32) | u64::from(serial);
            self.next = self.head - SLACK;
        }
        let mut full = self.widen(serial);
        if std::mem::take(&mut self.rejoining) && full + SPAN < self.head {
            // Not far behind but more than half a turn ahead.
            full += 1 << 32;
            self.pass_to(full);
            self.head = full;
        }
        let bits = match kind {
            kind::SYSCALL => SEEN | OPENED,
            // An operation done inside a system call shares its event, and the call's own
            // records may follow much later: it ends with an EOE but does not demand one.
            kind::URINGOP => SEEN | RING,
            kind::EOE => SEEN | ENDED,
            _ => SEEN,
        };
        self.kinds_seen |= bits;
        if full < self.next {
            if let Some((state, _)) = self.open.get_mut(&full) {
                *state |= bits;
            }
            return;
        }
        if full >= self.head {
            if full - self.next >= SPAN {
                self.pass_to(full + 1 - SPAN);
            }
            self.head = full + 1;
        }
        let state = &mut self.states[(full % SPAN) as usize];
        self.events += u64::from(*state == 0 && full > self.opening);
        *state |= bits;
    }

    /// Says that `serial` is the marker that was sent once registration had settled: what is above it is
    /// owed to us, and what came before it begins somewhere: what is missing from there on was lost with no
    /// daemon, for instance by a kernel that held records since its boot and had no room. Returns whether
    /// anything is missing there so far. Events at or below the marker may have begun before anybody took
    /// records: they are not called partial.
    ///
    /// Until then nothing is given up, because events
    /// above the marker may arrive before it. Started once more, it goes on as it does.
    pub fn start(&mut self, serial: u32) -> bool {
        if self.opening == u64::MAX {
            self.note(serial, kind::TRUSTED_APP);
            self.opening = self.widen(serial);
            let since = self.next.max(self.opening + 1)..self.head;
            self.events = since.map(|full| u64::from(self.state(full) & !STATED != 0)).sum();
            return false;
        }
        if self.started {
            return false;
        }
        if !self.primed || self.widen(serial) >= self.head {
            self.note(serial, kind::TRUSTED_APP);
        }
        let marker = self.widen(serial);
        while self.next < marker && self.state(self.next) == 0 {
            self.next += 1;
        }
        let mut missing = false;
        for full in self.next..=marker {
            match &mut self.states[(full % SPAN) as usize] {
                0 => missing = true,
                state => *state |= STATED,
            }
        }
        self.opening = marker;
        self.events = (marker + 1..self.head).map(|full| u64::from(self.state(full) != 0)).sum();
        self.open.clear();
        self.missing = Missing::default();
        self.started = true;
        missing
    }

    /// Tells the time and takes what has been given up by now.
    ///
    /// `now_ns` is a steady clock that must not run while the receiver itself was kept from
    /// receiving, and the call belongs after the socket was found empty: else a serial is
    /// given up that lies in the socket.
    pub fn tick(&mut self, now_ns: u64) -> Missing {
        if !self.started {
            return Missing::default();
        }
        self.now_ns = now_ns;
        let newest = self.marks.back();
        if newest.is_none_or(|&(at, head)| head < self.head && now_ns >= at + MARK_NS) {
            self.marks.push_back((now_ns, self.head));
        }
        let mut due = self.next;
        while let Some(&(at, head)) = self.marks.front() {
            if now_ns < at.saturating_add(self.tolerance.time_ns) {
                break;
            }
            due = due.max(head);
            self.marks.pop_front();
        }
        self.pass_to(due);
        self.pass_complete();
        self.judge_open(now_ns);
        std::mem::take(&mut self.missing)
    }

    /// Whether every serial up to and with `serial` has come and every event among them is whole.
    #[must_use]
    pub fn is_complete_to(&self, serial: u32) -> bool {
        let full = self.widen(serial);
        if full < self.next {
            return self.open.range(..=full).next().is_none_or(|_| !self.judges_events());
        }
        full < self.head
            && (self.next..=full).all(|at| self.is_whole(self.state(at)))
            && (self.open.is_empty() || !self.judges_events())
    }

    /// Gives up on everything that is still missing up to and with `last`, in order to end.
    /// What is above is no longer owed.
    pub fn finish(&mut self, last: u32) -> Missing {
        if !self.started {
            return Missing::default();
        }
        let end = (self.widen(last) + 1).min(self.head);
        self.pass_to(end);
        drop(self.open.split_off(&end));
        self.judge_open(u64::MAX);
        std::mem::take(&mut self.missing)
    }

    /// The serial up to and with which everything is settled: whole, or given up on and told.
    /// `None` before the start.
    #[must_use]
    pub fn settled(&mut self) -> Option<u32> {
        if !self.started || self.rejoining || !self.missing.is_empty() {
            return None;
        }
        self.pass_complete();
        let halves = self.judges_events();
        self.open.retain(|_, (state, _)| !is_whole(*state, halves));
        let end = self.open.first_key_value().map_or(self.next, |(&at, _)| at.min(self.next));
        Some((end - 1) as u32)
    }

    /// Whether half events can be told so far.
    #[must_use]
    pub fn halves(&self) -> bool {
        self.judges_events()
    }

    /// Whether nothing is being waited for: every serial up to the highest one seen has come, and
    /// every event among them is whole.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.next == self.head && self.open.is_empty()
    }

    /// One past the highest serial seen.
    #[must_use]
    pub fn head(&self) -> u32 {
        self.head as u32
    }

    /// Different events seen since the start.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    fn state(&self, full: u64) -> u8 {
        self.states[(full % SPAN) as usize]
    }

    /// The wide number nearest to the head that ends in this serial.
    fn widen(&self, serial: u32) -> u64 {
        widen(self.head, serial)
    }

    /// Whether half events can be told: rules may discard one of the two types.
    fn judges_events(&self) -> bool {
        self.kinds_seen & (OPENED | ENDED) == OPENED | ENDED
    }

    fn is_whole(&self, state: u8) -> bool {
        is_whole(state, self.judges_events())
    }

    /// Passes what needs no waiting.
    fn pass_complete(&mut self) {
        while self.next < self.head && self.is_whole(self.state(self.next)) {
            self.states[(self.next % SPAN) as usize] = 0;
            self.next += 1;
        }
    }

    /// Passes everything below `target`: what never came is a gap, what is open is set aside.
    fn pass_to(&mut self, target: u64) {
        let mut gap_from = None;
        while self.next < target.min(self.head) {
            let state = std::mem::take(&mut self.states[(self.next % SPAN) as usize]);
            if state == 0 {
                gap_from.get_or_insert(self.next);
            } else {
                if let Some(from) = gap_from.take() {
                    self.add_gap(from, self.next - 1);
                }
                if !self.is_whole(state) {
                    self.set_aside(self.next, state);
                }
            }
            self.next += 1;
        }
        // Past the head nothing was ever seen, however far it is.
        let from = gap_from.unwrap_or(self.next);
        self.next = self.next.max(target);
        if from < self.next {
            self.add_gap(from, self.next - 1);
        }
    }

    /// Adds a gap, joined to the one before it where they touch and split where serials wrap.
    fn add_gap(&mut self, from: u64, to: u64) {
        if !self.started {
            return;
        }
        let turn_end = from | u64::from(u32::MAX);
        if to > turn_end {
            self.add_gap(from, turn_end);
            self.add_gap(turn_end + 1, to);
            return;
        }
        if from <= self.opening && self.opening < to && !self.rebuilding {
            self.add_gap(from, self.opening);
            self.add_gap(self.opening + 1, to);
            return;
        }
        // While it is being built again, it is told at the end which are.
        let gaps = if to <= self.opening && !self.rebuilding {
            &mut self.missing.absent
        } else {
            &mut self.missing.gaps
        };
        let (first, last) = (from as u32, to as u32);
        match gaps.last_mut() {
            Some(before) if before.last.checked_add(1) == Some(first) => before.last = last,
            _ => gaps.push(Gap { first, last }),
        }
    }

    fn set_aside(&mut self, full: u64, state: u8) {
        if self.open.len() == OPEN_MAX
            && let Some((oldest, _)) = self.open.pop_first()
        {
            self.missing.partial.push(oldest as u32);
        }
        let until_ns = self.now_ns.saturating_add(self.tolerance.event_time_ns);
        self.open.insert(full, (state, until_ns));
    }

    /// Forgets events that have become whole and gives up on those whose time is over.
    fn judge_open(&mut self, now_ns: u64) {
        let mut open = std::mem::take(&mut self.open);
        open.retain(|&full, &mut (state, until_ns)| {
            if self.is_whole(state) {
                return false;
            }
            if now_ns >= until_ns {
                self.missing.partial.push(full as u32);
            }
            now_ns < until_ns
        });
        self.open = open;
    }
}

/// The wide number nearest to `head` that ends in this serial.
fn widen(head: u64, serial: u32) -> u64 {
    let ahead = serial.wrapping_sub(head as u32) as i32;
    head.wrapping_add_signed(i64::from(ahead))
}

/// Whether nothing of an event is missing, as far as it can be told. `halves` says that rules discard
/// neither its beginning nor its end.
fn is_whole(state: u8, halves: bool) -> bool {
    let opened = state & OPENED != 0;
    let ended = state & ENDED != 0;
    let balanced = opened == ended || ended && state & RING != 0;
    state != 0 && (balanced || state & STATED != 0 || !halves)
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
