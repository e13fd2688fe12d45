//! Whether the writer waits for room on the disk, for whoever tells people.
//!
//! A wait begins when a record needs the next segment and the disk has no room for it, and ends when
//! that segment is there. That the disk is asked again meanwhile does not end it.

use crate::disk::Wake;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// One thing to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomChange {
    /// There is no room for the next segment: what was accepted waits in the ring, and once that is
    /// full producers wait.
    Missing,
    /// There is room, and recording goes on.
    Returned {
        /// Nanoseconds from the beginning of the wait to its end.
        waited_ns: u64,
    },
}

/// The writer's waits for room; it outlives the trail.
pub struct Room {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether the disk shall be asked for room now.
    asked: AtomicBool,
    /// Ends the engine's sleep.
    wake: Arc<dyn Wake>,
    /// The records that are accepted and not durable.
    unsettled: Box<dyn Fn() -> Range<u64> + Send + Sync>,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    /// Beginnings and ends of waits so far: odd while one lasts.
    changes: u64,
    /// When the last wait began, in nanoseconds since boot.
    since_ns: u64,
    /// How long the last wait that has ended took.
    waited_ns: u64,
    /// Whether the wait that lasts is given up.
    given_up: bool,
    /// Whether the writer has ended.
    over: bool,
}

impl State {
    fn waits(&self) -> bool {
        !self.changes.is_multiple_of(2)
    }
}

impl Room {
    pub(crate) fn new(
        wake: Arc<dyn Wake>,
        unsettled: impl Fn() -> Range<u64> + Send + Sync + 'static,
    ) -> Self {
        let (state, changed, asked) = (Mutex::default(), Condvar::new(), AtomicBool::new(false));
        Self { state, changed, asked, wake, unsettled: Box::new(unsettled) }
    }

    /// Whether the writer waits for room now.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        let state = self.lock();
        state.waits() && !state.over
    }

    /// The sequences of the records that were accepted and are not durable.
    #[must_use]
    pub fn unsettled(&self) -> Range<u64> {
        (self.unsettled)()
    }

    /// Gives up the wait that lasts now, and with it what was accepted and is not durable: the trail
    /// fails, as with [`OnFull::End`](crate::OnFull::End), once everything in flight is durable, and
    /// [`WriteError::unannounced`](crate::WriteError::unannounced) says what is gone. If no wait
    /// lasts, or room returns first, nothing is given up.
    pub fn give_up(&self) {
        let mut state = self.lock();
        state.given_up = state.waits() && !state.over;
        drop(state);
        self.wake.wake();
    }

    /// Has the disk asked for room at once: somebody has just made some.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.wake.wake();
    }

    pub(crate) fn take_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed) && self.asked.swap(false, Ordering::Acquire)
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.lock().given_up
    }

    /// Waits for the change after the `seen` first ones, and counts it there; `None` once the writer
    /// has ended and there is none. Who is late by more than a whole wait is told of the last only.
    pub fn next(&self, seen: &mut u64) -> Option<RoomChange> {
        let mut state = self.lock();
        while state.changes <= *seen && !state.over {
            state = self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        let late = state.changes.checked_sub(*seen).filter(|late| *late > 0)?;
        // Whole waits are passed over; what is left is one change or a wait that has ended.
        *seen += (late - 1) / 2 * 2 + 1;
        if seen.is_multiple_of(2) {
            return Some(RoomChange::Returned { waited_ns: state.waited_ns });
        }
        // A writer that ended while it waited says itself why.
        Some(RoomChange::Missing)
    }

    /// The engine's word on whether it waits.
    pub(crate) fn set(&self, waits: bool, boottime_ns: u64) {
        let mut state = self.lock();
        if state.waits() == waits {
            return;
        }
        state.changes += 1;
        // It was meant for that wait, of which somebody had been told.
        state.given_up = false;
        if waits {
            state.since_ns = boottime_ns;
        } else {
            state.waited_ns = boottime_ns.saturating_sub(state.since_ns);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The writer has ended.
    pub(crate) fn end(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }

    /// A thread that died with this lock held had nothing half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Wake for Nobody {
        fn wake(&self) {}
    }

    fn room() -> Room {
        Room::new(Arc::new(Nobody), || 3..5)
    }

    #[test]
    fn only_a_wait_that_lasts_can_be_given_up() {
        let room = room();
        room.give_up();
        assert!(!room.is_given_up(), "there is none");
        room.set(true, 1);
        assert!(!room.is_given_up(), "not this one");
        room.give_up();
        assert!(room.is_given_up());
        room.set(true, 2);
        assert!(room.is_given_up(), "it is the same");
        room.set(false, 3);
        room.set(true, 4);
        assert!(!room.is_given_up(), "it is another");
        assert_eq!(room.unsettled(), 3..5);
    }

    #[test]
    fn each_wait_is_told_once() {
        let (room, mut seen) = (room(), 0);
        room.set(false, 5);
        for round in 1..4 {
            room.set(true, round * 100);
            room.set(true, round * 100 + 1);
            assert!(room.is_missing());
            assert_eq!(room.next(&mut seen), Some(RoomChange::Missing));
            room.set(false, round * 100 + 7 * round);
            room.set(false, round * 100 + 90);
            assert!(!room.is_missing());
            let waited_ns = 7 * round;
            assert_eq!(room.next(&mut seen), Some(RoomChange::Returned { waited_ns }));
        }
        room.end();
        assert_eq!(room.next(&mut seen), None);
    }

    #[test]
    fn who_is_late_is_told_of_the_last_wait() {
        let (room, mut seen) = (room(), 0);
        for at_ns in 0..9 {
            room.set(at_ns % 2 == 0, at_ns * at_ns);
        }
        // Four waits have ended and the fifth lasts.
        assert_eq!(room.next(&mut seen), Some(RoomChange::Missing));
        room.set(false, 1064);
        room.end();
        assert_eq!(room.next(&mut seen), Some(RoomChange::Returned { waited_ns: 1000 }));
        assert_eq!(room.next(&mut seen), None);
        // Also one that has been told nothing: the wait, then its end.
        let mut seen = 0;
        assert_eq!(room.next(&mut seen), Some(RoomChange::Missing));
        assert_eq!(room.next(&mut seen), Some(RoomChange::Returned { waited_ns: 1000 }));
        assert_eq!(room.next(&mut seen), None);
    }

    #[test]
    fn a_writer_that_ends_lets_go_of_who_waits() {
        let room = room();
        std::thread::scope(|scope| {
            let told = scope.spawn(|| room.next(&mut 0));
            room.end();
            assert_eq!(told.join().expect("no panic"), None);
        });
        assert!(!room.is_missing());
    }
}
