//! Up to where the trail is durable. This module alone can make a [`Durable`].

use crate::error::WriteError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use tokio::sync::watch;

/// A number of records, from the first, that are behind a completed barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Durable(u64);

impl Durable {
    /// The engine's word that a barrier has completed for all of them.
    pub(super) const fn behind_barrier(count: u64) -> Self {
        Self(count)
    }

    /// What recovery read back from the disk and sealed.
    pub(super) const fn recovered(count: u64) -> Self {
        Self(count)
    }
}

/// How a trail stopped moving its watermark.
#[derive(Clone, Debug)]
enum End {
    Closed,
    Failed(WriteError),
}

/// Why a record will not become durable.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WaitError {
    /// Storage failed before it was.
    #[error(transparent)]
    Failed(WriteError),
    /// The trail was closed and has no such record.
    #[error("the trail is closed and has no record with this seq")]
    Closed,
}

/// The durable watermark: how many records, from the first, survive whatever happens next.
#[derive(Debug)]
pub struct Watermark {
    count: AtomicU64,
    /// Threads in [`Watermark::wait_past`]: nobody is woken while there are none.
    waiters: AtomicUsize,
    end: Mutex<Option<End>>,
    moved: Condvar,
    watch: watch::Sender<u64>,
}

impl Watermark {
    pub(super) fn new(durable: Durable) -> Self {
        Self {
            count: AtomicU64::new(durable.0),
            waiters: AtomicUsize::new(0),
            end: Mutex::new(None),
            moved: Condvar::new(),
            watch: watch::Sender::new(durable.0),
        }
    }

    /// How many records are durable.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until more than `count` records are durable and returns how many are.
    ///
    /// # Errors
    /// [`WaitError`] if that will not happen any more.
    pub fn wait_past(&self, count: u64) -> Result<u64, WaitError> {
        let durable = self.durable();
        if durable > count {
            return Ok(durable);
        }
        let mut end = self.lock();
        // Counted before the last look: whoever publishes after it sees the count and takes the
        // lock, which is free only once this thread sleeps.
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let result = loop {
            let durable = self.count.load(Ordering::SeqCst);
            if durable > count {
                break Ok(durable);
            }
            if let Some(end) = &*end {
                break Err(end.error());
            }
            end = self.moved.wait(end).unwrap_or_else(|poisoned| poisoned.into_inner());
        };
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        result
    }

    /// The same, without blocking the thread.
    ///
    /// # Errors
    /// As [`Watermark::wait_past`].
    pub async fn past(&self, count: u64) -> Result<u64, WaitError> {
        let mut receiver = self.watch.subscribe();
        loop {
            let durable = self.durable();
            if durable > count {
                return Ok(durable);
            }
            if let Some(end) = &*self.lock() {
                return Err(end.error());
            }
            // The sender lives as long as `self`: this only fails to fail.
            let _ = receiver.changed().await;
        }
    }

    /// How storage failed, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<WriteError> {
        match &*self.lock() {
            Some(End::Failed(error)) => Some(error.clone()),
            Some(End::Closed) | None => None,
        }
    }

    pub(super) fn publish(&self, durable: Durable) {
        let before = self.count.swap(durable.0, Ordering::SeqCst);
        assert!(before <= durable.0, "the watermark never moves back");
        self.notify();
    }

    pub(crate) fn fail(&self, error: WriteError) {
        self.finish(End::Failed(error));
    }

    pub(super) fn close(&self) {
        self.finish(End::Closed);
    }

    fn finish(&self, how: End) {
        self.lock().get_or_insert(how);
        self.moved.notify_all();
        self.watch.send_replace(self.durable());
    }

    fn notify(&self) {
        if self.waiters.load(Ordering::SeqCst) > 0 {
            drop(self.lock());
            self.moved.notify_all();
        }
        self.watch.send_replace(self.durable());
    }

    /// A thread that died with this lock held changed nothing under it that others rely on.
    fn lock(&self) -> MutexGuard<'_, Option<End>> {
        self.end.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl End {
    fn error(&self) -> WaitError {
        match self {
            Self::Closed => WaitError::Closed,
            Self::Failed(error) => WaitError::Failed(error.clone()),
        }
    }
}
