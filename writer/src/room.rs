//! Whether the writer waits for room on the disk, for whoever tells people.
//!
//! A wait begins when a record needs the next segment and the disk has no room for it, and ends when
//! that segment is there. That the disk is asked again meanwhile does not end it.

use std::sync::{Condvar, Mutex, MutexGuard};

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
#[derive(Debug, Default)]
pub struct Room {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Beginnings and ends of waits so far: odd while one lasts.
    changes: u64,
    /// When the last wait began, in nanoseconds since boot.
    since_ns: u64,
    /// How long the last wait that has ended took.
    waited_ns: u64,
    /// Whether the writer has ended.
    over: bool,
}

impl State {
    fn waits(&self) -> bool {
        !self.changes.is_multiple_of(2)
    }
}

impl Room {
    /// Whether the writer waits for room now.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        let state = self.lock();
        state.waits() && !state.over
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

    #[test]
    fn each_wait_is_told_once() {
        let (room, mut seen) = (Room::default(), 0);
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
        let (room, mut seen) = (Room::default(), 0);
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
        let room = Room::default();
        std::thread::scope(|scope| {
            let told = scope.spawn(|| room.next(&mut 0));
            room.end();
            assert_eq!(told.join().expect("no panic"), None);
        });
        assert!(!room.is_missing());
    }
}
