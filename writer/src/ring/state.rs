//! What the ring's lock guards, and what is done under it in one go.

use super::AppendError;
use super::batch::Batch;
use super::bounded::WakeOn;
use super::sync::{PASSES_MAX, monotonic_ns};
use graven_format::Record;
use graven_format::consts::RECORD_HEADER_BYTES;
use std::collections::VecDeque;
use std::ops::DerefMut;
use std::sync::Arc;

/// Rest of the device after which a burst may fill the whole ring: what a burst took comes back as the device rests.
pub(super) const REST_NS: u64 = 1_000_000_000;

/// How much of its price a batch gives back that was written while more than may stand were in use.
pub(super) const KEPT_PERCENT: u64 = 75;

/// Everything that changes.
pub(super) struct State<B> {
    pub(super) life: Life,
    /// The batch being filled, possibly still empty.
    pub(super) open: Option<Batch<B>>,
    /// Batches that are full, oldest first.
    pub(super) full: VecDeque<Batch<B>>,
    /// Empty batches; the one used last is the first to be used again, for the caches' sake.
    pub(super) free: Vec<Batch<B>>,
    /// The fewest that have been there.
    pub(super) free_min: usize,
    pub(super) batches_total: usize,
    /// How many of them may be in use without end.
    pub(super) standing: usize,
    /// Rest of the device that is not spent yet on more than those, in nanoseconds.
    pub(super) rested_ns: u64,
    /// The first record of each batch that has not come back yet, by age.
    pub(super) births: VecDeque<Birth>,
    pub(super) next_seq: u64,
    /// Whether the batch that is closed next ends with a checkpoint.
    pub(super) checkpoint_asked: bool,
    /// The seq that was kept for a checkpoint last.
    pub(super) checkpoint_last: Option<u64>,
    /// What the engine announced that it sleeps for.
    pub(super) asleep: Option<WakeOn>,
    /// Producers that wait, in the order of their tickets.
    pub(super) waiting: VecDeque<Waiting>,
    /// The ticket of `waiting`'s front.
    pub(super) head_ticket: u64,
    /// Stored bytes of all that wait.
    pub(super) waiting_bytes: usize,
    /// Records that have passed the present head.
    pub(super) passes: u32,
    pub(super) waits: u64,
    pub(super) wait_ns_max: u64,
    /// How long all that are over took.
    pub(super) wait_ns_total: u64,
}

/// The first record of a batch.
#[derive(Clone, Copy)]
pub(super) struct Birth {
    pub(super) first_seq: u64,
    pub(super) boottime_ns: u64,
}

/// One producer that waits.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    pub(super) len: usize,
    pub(super) since_ns: u64,
}

/// Whether records are accepted. It only ever moves down this list.
pub(super) enum Life {
    Open,
    Closed,
    Poisoned(Arc<str>),
}

/// A record made ready to be copied.
pub(super) struct Prepared<'a> {
    pub(super) record: &'a Record<'a>,
    pub(super) header: [u8; RECORD_HEADER_BYTES],
    pub(super) len: usize,
}

impl<'a> Prepared<'a> {
    pub(super) fn new(record: &'a Record<'a>) -> Self {
        Self { record, header: record.header(), len: record.stored_len() }
    }
}

impl<B> State<B>
where
    B: DerefMut<Target = [u8]>,
{
    /// Whether a newcomer with `len` stored bytes may append now; makes the room if so.
    pub(super) fn admit(&mut self, len: usize) -> bool {
        if self.waiting.is_empty() {
            return self.make_room(len);
        }
        let everybody_fits = self.open.as_ref().is_some_and(|open| {
            // Lengths cannot overflow: each is under the limit and a thread waits for each.
            open.fits(1 + self.waiting.len(), len + self.waiting_bytes)
        });
        let passes = everybody_fits && self.passes < PASSES_MAX;
        self.passes += u32::from(passes);
        passes
    }

    /// Sees to it that the batch being filled has room for one record of `len` stored bytes, or
    /// returns `false`. A batch without that room is full, even if no other can be opened now:
    /// the engine must be able to take it, or nothing would ever make room again.
    pub(super) fn make_room(&mut self, len: usize) -> bool {
        if self.open.as_ref().is_some_and(|open| open.fits(1, len)) {
            return true;
        }
        let closed = self.open.take().map(|batch| self.close(batch));
        self.full.extend(closed);
        let Some(mut batch) = self.take_free() else { return false };
        batch.restart(self.next_seq);
        self.open = Some(batch);
        true
    }

    /// What each batch more than may stand costs of rest.
    fn price_ns(&self) -> u64 {
        REST_NS / (self.batches_total - self.standing).max(1) as u64
    }

    /// What the next batch costs; `None` if it cannot be paid.
    fn next_price_ns(&self) -> Option<u64> {
        let stands = self.batches_total - self.free.len() < self.standing;
        let price_ns = if stands { 0 } else { self.price_ns() };
        (price_ns <= self.rested_ns).then_some(price_ns)
    }

    fn take_free(&mut self) -> Option<Batch<B>> {
        let price_ns = self.next_price_ns()?;
        let batch = self.free.pop()?;
        self.rested_ns -= price_ns;
        self.free_min = self.free_min.min(self.free.len());
        Some(batch)
    }

    /// The device was not needed for so long.
    pub(super) fn rest(&mut self, ns: u64) {
        self.rested_ns = self.rested_ns.saturating_add(ns).min(REST_NS);
    }

    /// A batch has come back: its records are durable. If more than may stand are in use, most of its price is given back.
    pub(super) fn put_free(&mut self, batch: Batch<B>) {
        // Batches come back in any order, but most often the oldest does.
        if let Some(at) = self.births.iter().position(|it| it.first_seq == batch.first_seq) {
            self.births.remove(at);
        }
        if self.batches_total - self.free.len() > self.standing {
            self.rest(self.price_ns() * KEPT_PERCENT / 100);
        }
        self.free.push(batch);
        assert!(self.free.len() <= self.batches_total, "a batch returns to its own ring");
    }

    /// A batch that takes no more records: if a checkpoint was asked for, it ends with its seq.
    pub(super) fn close(&mut self, mut batch: Batch<B>) -> Batch<B> {
        if std::mem::take(&mut self.checkpoint_asked) {
            batch.checkpoint = true;
            self.checkpoint_last = Some(self.next_seq);
            self.next_seq += 1;
        }
        batch
    }

    /// The batch being filled, if it holds records or will hold a checkpoint; one without records
    /// is taken for a checkpoint alone.
    pub(super) fn close_partial(&mut self) -> Option<Batch<B>> {
        if !self.has_work(WakeOn::Record) {
            return None;
        }
        let next_seq = self.next_seq;
        let batch = self.open.take().or_else(|| {
            let mut batch = self.take_free()?;
            batch.restart(next_seq);
            Some(batch)
        })?;
        Some(self.close(batch))
    }

    /// Appends to the batch being filled, which has room, and returns the record's `seq`.
    pub(super) fn push(&mut self, prepared: &Prepared<'_>) -> u64 {
        let open = self.open.as_mut().expect("room was made under this lock");
        if open.is_empty() {
            let boottime_ns = prepared.record.boottime_ns;
            self.births.push_back(Birth { first_seq: self.next_seq, boottime_ns });
        }
        let seq = open.push(&prepared.header, prepared.record);
        assert_eq!(seq, self.next_seq, "sequences are dense");
        self.next_seq += 1;
        seq
    }

    /// Takes the next ticket.
    pub(super) fn enqueue(&mut self, len: usize) -> u64 {
        let ticket = self.head_ticket + self.waiting.len() as u64;
        self.waiting.push_back(Waiting { len, since_ns: monotonic_ns() });
        self.waiting_bytes += len;
        self.waits += 1;
        ticket
    }

    /// Removes the head of the queue, which has been served.
    pub(super) fn dequeue(&mut self) {
        let head = self.waiting.pop_front().expect("the head is in the queue");
        self.head_ticket += 1;
        self.waiting_bytes -= head.len;
        self.passes = 0;
        self.note_wait(head);
    }

    /// Empties the queue when the ring has ended.
    pub(super) fn leave_all(&mut self) {
        while let Some(waiting) = self.waiting.pop_front() {
            self.note_wait(waiting);
        }
        self.waiting_bytes = 0;
    }

    /// Counts a wait that is over.
    pub(super) fn note_wait(&mut self, waiting: Waiting) {
        let waited_ns = monotonic_ns().saturating_sub(waiting.since_ns);
        self.wait_ns_max = self.wait_ns_max.max(waited_ns);
        self.wait_ns_total = self.wait_ns_total.saturating_add(waited_ns);
    }

    /// Whether there is what the engine sleeps for.
    pub(super) fn has_work(&self, on: WakeOn) -> bool {
        let partial = || match &self.open {
            Some(open) => self.checkpoint_asked || !open.is_empty(),
            None => {
                self.checkpoint_asked && !self.free.is_empty() && self.next_price_ns().is_some()
            }
        };
        !self.full.is_empty() || (on == WakeOn::Record && partial())
    }

    /// Whether the engine sleeps and must be woken; asks for it once.
    pub(super) fn wakes_engine(&mut self) -> bool {
        let wakes = self.asleep.is_some_and(|on| self.has_work(on));
        if wakes {
            self.asleep = None;
        }
        wakes
    }
}

impl Life {
    /// Whether records are accepted.
    pub(super) fn check(&self) -> Result<(), AppendError> {
        match self {
            Self::Open => Ok(()),
            Self::Closed => Err(AppendError::Closed),
            Self::Poisoned(why) => Err(AppendError::Poisoned(Arc::clone(why))),
        }
    }
}
