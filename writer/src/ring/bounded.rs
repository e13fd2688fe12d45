//! The ring itself: one short lock, a pool of batches, and a first-come queue of producers.
//!
//! # Who waits for whom
//!
//! A producer that finds no room takes the next ticket and sleeps. Only the head of that queue
//! may use room that comes back, so no producer waits longer than those before it and no size
//! of record starves. A newcomer passes the queue only while everybody in it still fits the
//! batch being filled; without that, a queue once formed would cost a context switch for every
//! record. [`PASSES_MAX`] bounds even this, because the engine may take a half-full batch away
//! from a head that was told of its room and has not run yet.
//!
//! # Why no wake-up is lost
//!
//! All state is under one lock. *Producers*: whenever the queue has a head and there is room
//! for it, the head has been notified since: room comes only from [`Ring::recycle`] and [`Ring::rest`], a new head
//! only from the service of the last, and both notify under the lock that the head sleeps by.
//! *Engine*: [`Ring::prepare_sleep`] looks for work and announces the sleep in one critical
//! section; an append after it sees the announcement and uses the [`Wake`], which by contract
//! ends the next sleep if none is under way; an append before it is seen as work.
//!
//! # Bursts
//!
//! What stands in front of a record is how long it waits. A ring that is large enough for bursts would be full for as
//! long as one producer is faster than the device, which is then no faster for it, and everybody else would wait for a
//! whole ring. So a few batches, enough to keep the device busy, may be in use without end, and each more costs
//! rest: time in which the device had nothing to do, and the share of it that its frames did not fill, of which [`REST_NS`]
//! pays for the whole ring. While the device stands still nothing is given back, so that what was saved is there for that.
//! As it writes what is over, most of the price comes back: a burst sinks by a quarter of what is written, and
//! producers go on at three quarters of its speed instead of waiting until it is all gone.
//!
//! # Checkpoints
//!
//! A checkpoint that was asked for gets the seq behind the last record of the batch that is closed
//! next, under the lock, and in room that every batch keeps for it. So its place is settled in order
//! with all producers, and the engine fills it in without the lock when it has hashed what is before.
//! If nothing is queued, a batch is taken for it alone. That needs one that is free: a ring whose
//! batches are all taken has records in flight, and [`Ring::recycle`] is the engine's own next step.

use super::batch::Batch;
use super::state::{Life, Prepared, REST_NS, State, Waiting};
use super::sync::{Condvar, LOTS, Mutex, MutexGuard, monotonic_ns};
use super::{AppendError, Wake};
use graven_format::Record;
use graven_format::consts::{RECORD_HEADER_BYTES, RECORD_PAYLOAD_BYTES_MAX};
use std::collections::VecDeque;
use std::ops::DerefMut;
use std::sync::Arc;

/// What the engine sleeps for; see [`Ring::prepare_sleep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeOn {
    /// Any record: the device is idle.
    Record,
    /// A full batch: a partial one is not worth a write while others are in flight.
    FullBatch,
}

/// What the ring holds now and how its producers have fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// The `seq` that the next accepted record gets.
    pub next_seq: u64,
    /// Records accepted and not yet taken by the engine.
    pub queued_records: u64,
    /// Their stored bytes, headers included.
    pub queued_bytes: u64,
    /// Batches without records, ready to be filled.
    pub batches_free: usize,
    /// Batches that the engine holds: taken and not yet durable.
    pub batches_taken: usize,
    /// All batches.
    pub batches_total: usize,
    /// Producers waiting now.
    pub producers_waiting: usize,
    /// How long the first of them has waited, in nanoseconds.
    pub waiting_ns: u64,
    /// Waits since the start, those of now included.
    pub waits: u64,
    /// The longest of them in nanoseconds, those of now included.
    pub wait_ns_max: u64,
    /// How long all of them took together in nanoseconds, those of now included.
    pub wait_ns_total: u64,
    /// The most batches that have been in use at once: filled, or taken and not yet durable.
    pub batches_used_max: usize,
}

/// The bounded, blocking queue of records. `B` is the kind of buffer.
///
/// Producers call [`Ring::append`] from any thread; one engine calls [`Ring::take`],
/// [`Ring::recycle`] and [`Ring::prepare_sleep`].
pub struct Ring<B> {
    state: Mutex<State<B>>,
    lots: Box<[Condvar]>,
    wake: Arc<dyn Wake>,
    /// Longest payload that fits an empty batch and the format.
    payload_bytes_max: usize,
    /// Whether batches keep room for checkpoints.
    checkpoints: bool,
}

impl<B> Ring<B>
where
    B: DerefMut<Target = [u8]>,
{
    /// A ring over these buffers, each of them one frame long, whose first record gets
    /// `first_seq`. `wake` ends the engine's sleep.
    ///
    /// # Panics
    /// If there are fewer than two buffers, if their lengths differ, or if they cannot hold a
    /// record: the caller has just allocated them.
    #[must_use]
    pub fn new(buffers: Vec<B>, first_seq: u64, wake: Arc<dyn Wake>) -> Self {
        let mut free: Vec<_> = buffers.into_iter().map(Batch::new).collect();
        assert!(free.len() >= 2, "one batch is filled while another is written");
        free.reverse();
        let room = free[0].room_when_empty();
        assert!(free.iter().all(|batch| batch.room_when_empty() == room), "buffers are alike");
        let batches_total = free.len();
        let state = State {
            life: Life::Open,
            open: None,
            full: VecDeque::with_capacity(batches_total),
            free,
            free_min: batches_total,
            batches_total,
            standing: batches_total,
            rested_ns: REST_NS,
            births: VecDeque::with_capacity(batches_total),
            next_seq: first_seq,
            checkpoint_asked: false,
            checkpoint_last: None,
            asleep: None,
            waiting: VecDeque::new(),
            head_ticket: 0,
            waiting_bytes: 0,
            passes: 0,
            waits: 0,
            wait_ns_max: 0,
            wait_ns_total: 0,
        };
        Self {
            state: Mutex::new(state),
            lots: (0..LOTS).map(|_| Condvar::new()).collect(),
            wake,
            payload_bytes_max: RECORD_PAYLOAD_BYTES_MAX.min(room - RECORD_HEADER_BYTES),
            checkpoints: false,
        }
    }

    /// The same ring with room in each batch for a checkpoint of `bytes` stored bytes: only such a
    /// ring answers [`Ring::request_checkpoint`].
    ///
    /// # Panics
    /// If a batch has no room for a record beside it, or if the ring is in use.
    #[must_use]
    pub fn with_checkpoints(mut self, bytes: usize) -> Self {
        let mut state = self.lock();
        assert_eq!(state.free.len(), state.batches_total, "no batch is in use");
        state.free.iter_mut().for_each(|batch| batch.reserve(bytes));
        let room = state.free[0].room_when_empty();
        drop(state);
        self.payload_bytes_max = RECORD_PAYLOAD_BYTES_MAX.min(room - RECORD_HEADER_BYTES);
        self.checkpoints = true;
        self
    }

    /// The same ring with so many batches that may be in use without end, of those that it has. The others are for
    /// bursts: see the module's documentation.
    ///
    /// # Panics
    /// If it is fewer than two: one is filled while another is written.
    #[must_use]
    pub fn with_standing(self, batches: usize) -> Self {
        assert!(batches >= 2, "one batch is filled while another is written");
        let mut state = self.lock();
        state.standing = batches.min(state.batches_total);
        drop(state);
        self
    }

    /// Appends one record, waiting without limit while there is no room, and returns its `seq`.
    ///
    /// # Errors
    /// The record is too long, or the ring is closed or poisoned, possibly while waiting; the
    /// record was not taken.
    pub fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        self.check_len(record)?;
        let prepared = Prepared::new(record);
        let (state, seq) = self.append_locked(self.lock(), &prepared)?;
        self.unlock_and_wake(state);
        Ok(seq)
    }

    /// Appends records in their order under one lock and with one wake-up, waiting without limit
    /// while there is no room. Records of other producers may come between them.
    ///
    /// # Errors
    /// A record is too long, and none was taken; or the ring is closed or poisoned, possibly
    /// while waiting, and some at the start were taken.
    pub fn append_all(&self, records: &[Record<'_>]) -> Result<(), AppendError> {
        records.iter().try_for_each(|record| self.check_len(record))?;
        let mut state = self.lock();
        for record in records {
            // Whoever closes or poisons the ring wakes the engine, also for what is left here.
            (state, _) = self.append_locked(state, &Prepared::new(record))?;
        }
        self.unlock_and_wake(state);
        Ok(())
    }

    /// Appends one record if there is room for it now, and returns its `seq`.
    ///
    /// # Errors
    /// As [`Ring::append`], and [`AppendError::Full`] instead of a wait; the record was not
    /// taken and is still the caller's to keep.
    pub fn try_append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        self.check_len(record)?;
        let prepared = Prepared::new(record);
        let mut state = self.lock();
        state.life.check()?;
        let admitted = state.admit(prepared.len);
        let result = if admitted { Ok(state.push(&prepared)) } else { Err(AppendError::Full) };
        // Also when full: the attempt may have closed a batch that the engine sleeps for.
        self.unlock_and_wake(state);
        result
    }

    /// The oldest full batch if there is one; else, if `partial`, the one being filled unless
    /// it is empty. Batches come in the order of their sequences. Whoever takes a batch must
    /// [recycle](Ring::recycle) it.
    pub fn take(&self, partial: bool) -> Option<Batch<B>> {
        let mut state = self.lock();
        // Whoever takes is awake, however its sleep ended.
        state.asleep = None;
        match state.full.pop_front() {
            Some(batch) => Some(batch),
            None if partial => state.close_partial(),
            None => None,
        }
    }

    /// Whether a full batch waits to be taken.
    #[must_use]
    pub fn has_full(&self) -> bool {
        !self.lock().full.is_empty()
    }

    /// Sees to it that the next batch that is closed ends with a seq kept for a checkpoint, also if
    /// it holds nothing else. Asked again before that, it is the same checkpoint.
    pub fn request_checkpoint(&self) {
        let mut state = self.lock();
        state.checkpoint_asked = self.checkpoints;
        self.unlock_and_wake(state);
    }

    /// Asks for a checkpoint unless no record was appended since the last one that was asked for.
    /// Returns how many records a checkpoint must cover to cover all that had been accepted.
    pub fn cover(&self) -> u64 {
        let mut state = self.lock();
        match state.checkpoint_last.filter(|last| last + 1 == state.next_seq) {
            Some(last) => last,
            None => {
                let size = state.next_seq;
                state.checkpoint_asked = self.checkpoints;
                self.unlock_and_wake(state);
                size
            }
        }
    }

    /// Ends the engine's sleep, for what it is asked beside records.
    pub fn nudge(&self) {
        self.wake.wake();
    }

    /// Returns a batch whose records are durable: its room goes to the producer that has waited
    /// longest. Batches may return in any order.
    pub fn recycle(&self, batch: Batch<B>) {
        let mut state = self.lock();
        state.put_free(batch);
        self.notify_head(&mut state);
    }

    /// The device had nothing to do for `ns` nanoseconds, nor had the ring: as much of a burst may stand in it again.
    pub fn rest(&self, ns: u64) {
        let mut state = self.lock();
        state.rest(ns);
        self.notify_head(&mut state);
    }

    /// A frame was in flight in which as much more could have been written in `ns` nanoseconds. That is rest too, unless a
    /// full batch waits by now: then the device was not fast enough, whatever it had.
    pub fn rest_beside(&self, ns: u64) {
        let mut state = self.lock();
        if state.full.is_empty() {
            state.rest(ns);
            self.notify_head(&mut state);
        }
    }

    /// The engine announces that it is about to sleep. Returns whether it may: `false` means
    /// that the ring already has what it would sleep for. After `true`, the next thing of that
    /// kind uses the waker once; until then appends cost no wake-up.
    #[must_use]
    pub fn prepare_sleep(&self, on: WakeOn) -> bool {
        let mut state = self.lock();
        let has_work = state.has_work(on);
        state.asleep = if has_work { None } else { Some(on) };
        !has_work
    }

    /// Accepts nothing more. Producers that wait get [`AppendError::Closed`]; what was accepted
    /// stays to be taken. The engine is woken.
    pub fn close(&self) {
        self.end(Life::Closed);
    }

    /// Storage has failed for good: every producer that waits or comes later gets
    /// [`AppendError::Poisoned`] with this text. The engine is woken.
    pub fn poison(&self, why: Arc<str>) {
        self.end(Life::Poisoned(why));
    }

    /// Whether the ring accepts nothing more, by [`Ring::close`] or [`Ring::poison`].
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().life.check().is_err()
    }

    /// What the ring holds now.
    #[must_use]
    pub fn stats(&self) -> RingStats {
        let state = self.lock();
        let queued = || state.full.iter().chain(&state.open);
        let batches_queued = queued().count();
        let now_ns = monotonic_ns();
        let waited = |it: &Waiting| now_ns.saturating_sub(it.since_ns);
        let waits_now = state.waiting.front().map_or(0, waited);
        let waits_now_total: u64 = state.waiting.iter().map(waited).sum();
        RingStats {
            next_seq: state.next_seq,
            queued_records: queued().map(|batch| u64::from(batch.count)).sum(),
            queued_bytes: queued().map(|batch| batch.records().len() as u64).sum(),
            batches_free: state.free.len(),
            batches_taken: state.batches_total - state.free.len() - batches_queued,
            batches_total: state.batches_total,
            producers_waiting: state.waiting.len(),
            waiting_ns: waits_now,
            waits: state.waits,
            wait_ns_max: state.wait_ns_max.max(waits_now),
            wait_ns_total: state.wait_ns_total.saturating_add(waits_now_total),
            batches_used_max: state.batches_total - state.free_min,
        }
    }

    /// The `boottime_ns` of the record of `seq`, or of the first batch behind it, among those that
    /// have not come back yet: how long the disk owes something. Batches are durable as a whole, so
    /// with the durable watermark for `seq` it is exact.
    #[must_use]
    pub fn taken_ns_from(&self, seq: u64) -> Option<u64> {
        let state = self.lock();
        let birth = state.births.iter().find(|birth| birth.first_seq >= seq);
        birth.map(|birth| birth.boottime_ns)
    }

    /// Refuses a record that no batch can hold.
    fn check_len(&self, record: &Record<'_>) -> Result<(), AppendError> {
        let (len, max) = (record.bytes.len(), self.payload_bytes_max);
        if len > max { Err(AppendError::TooLong { len, max }) } else { Ok(()) }
    }

    /// Appends one record as soon as there is room, and returns the lock and its `seq`.
    fn append_locked<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<B>>,
        prepared: &Prepared<'_>,
    ) -> Result<(MutexGuard<'a, State<B>>, u64), AppendError> {
        state.life.check()?;
        let waited = !state.admit(prepared.len);
        if waited {
            state = self.wait_for_room(state, prepared.len)?;
        }
        let seq = state.push(prepared);
        if waited {
            self.notify_head(&mut state);
        }
        Ok((state, seq))
    }

    /// Sleeps in the queue until there is room for `len` bytes, and leaves the queue.
    fn wait_for_room<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<B>>,
        len: usize,
    ) -> Result<MutexGuard<'a, State<B>>, AppendError> {
        let ticket = state.enqueue(len);
        loop {
            if state.wakes_engine() {
                // The engine may sleep for the very batch that this producer has just closed.
                // The place in the queue is taken, so the lock can be let go and had again.
                drop(state);
                self.wake.wake();
                state = self.lock();
            } else {
                let lot = &self.lots[lot_of(ticket)];
                // A poisoned lock means that a thread died elsewhere; see `lock`.
                state = lot.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            state.life.check()?;
            if state.head_ticket == ticket && state.make_room(len) {
                state.dequeue();
                return Ok(state);
            }
        }
    }

    /// Tells the head of the queue if there is room for it.
    fn notify_head(&self, state: &mut State<B>) {
        let Some(head) = state.waiting.front().copied() else { return };
        if state.make_room(head.len) {
            self.lots[lot_of(state.head_ticket)].notify_all();
        }
    }

    /// Ends the life of the ring, but never brings it back from poisoned to closed.
    fn end(&self, life: Life) {
        let mut state = self.lock();
        if !matches!(state.life, Life::Poisoned(_)) {
            state.life = life;
        }
        state.leave_all();
        for lot in &self.lots {
            lot.notify_all();
        }
        state.asleep = None;
        drop(state);
        // Without asking whether it sleeps: it may be between its last look and its sleep.
        self.wake.wake();
    }

    /// Lets the lock go, then wakes the engine if it sleeps for what has happened.
    fn unlock_and_wake(&self, mut state: MutexGuard<'_, State<B>>) {
        let wakes = state.wakes_engine();
        drop(state);
        if wakes {
            self.wake.wake();
        }
    }

    /// The state. A thread that died with the lock held can only have done so by an assertion,
    /// before it changed anything that the others read; they go on, and it is missed elsewhere.
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The condition variable that the producer with this ticket sleeps on.
fn lot_of(ticket: u64) -> usize {
    (ticket % LOTS) as usize
}
