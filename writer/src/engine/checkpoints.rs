//! The checkpoints that are durable: what may be shown to others.

use graven_format::note::Note;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use tokio::sync::watch;

/// A checkpoint behind a barrier, with all that it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// How many checkpoints this writer has published before it: later ones have higher numbers.
    pub number: u64,
    /// Records that it covers: seq 0 up to, without, this.
    pub size: u64,
    /// The signed note.
    pub note: String,
    /// When it was published, in nanoseconds since boot; `None` for the one that was found at the
    /// trail's end.
    pub boottime_ns: Option<u64>,
}

/// Waiting was in vain: the writer has ended, or failed, and publishes nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the writer has ended without another checkpoint")]
pub struct Ended;

/// The newest durable checkpoint, to look at and to wait for.
#[derive(Debug)]
pub struct Checkpoints {
    state: Mutex<State>,
    moved: Condvar,
    watch: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    newest: Option<Arc<Published>>,
    count: u64,
    /// The epoch of the key that signs now.
    epoch: Option<u64>,
    ended: bool,
    /// What the key store could not do, until it can.
    trouble: Option<Arc<str>>,
}

impl Checkpoints {
    /// Begins with the note that the trail ends with, if it does.
    #[must_use]
    pub fn new(note: &[u8]) -> Self {
        let state = Mutex::new(State::default());
        let new = Self { state, moved: Condvar::new(), watch: watch::Sender::new(0) };
        let text = std::str::from_utf8(note).ok();
        if let (Ok(parsed), Some(text)) = (Note::parse(note), text) {
            new.publish(parsed.checkpoint.head.size, text.to_owned(), None);
        }
        new
    }

    /// The newest one.
    #[must_use]
    pub fn newest(&self) -> Option<Arc<Published>> {
        self.lock().newest.clone()
    }

    /// The epoch of the key that signs now; `None` if the trail is not signed.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.lock().epoch
    }

    /// What cannot be done about keys now; it is tried again.
    #[must_use]
    pub fn trouble(&self) -> Option<Arc<str>> {
        self.lock().trouble.clone()
    }

    /// Whether nothing more will be published.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// Waits for one that is newer than the one of this number, or for any.
    ///
    /// # Errors
    /// [`Ended`], and there is none.
    pub fn wait_after(&self, number: Option<u64>) -> Result<Arc<Published>, Ended> {
        self.wait_until(|it| number.is_none_or(|number| it.number > number))
    }

    /// Waits for one that covers `size` records.
    ///
    /// # Errors
    /// [`Ended`], and there is none.
    pub fn wait_covering(&self, size: u64) -> Result<Arc<Published>, Ended> {
        self.wait_until(|it| it.size >= size)
    }

    /// The same, without blocking the thread.
    ///
    /// # Errors
    /// As [`Checkpoints::wait_covering`].
    pub async fn covering(&self, size: u64) -> Result<Arc<Published>, Ended> {
        let mut receiver = self.watch.subscribe();
        loop {
            {
                let state = self.lock();
                match &state.newest {
                    Some(newest) if newest.size >= size => return Ok(Arc::clone(newest)),
                    _ if state.ended => return Err(Ended),
                    _ => {}
                }
            }
            // The sender lives as long as `self`: this only fails to fail.
            let _ = receiver.changed().await;
        }
    }

    fn wait_until(&self, is_it: impl Fn(&Published) -> bool) -> Result<Arc<Published>, Ended> {
        let mut state = self.lock();
        loop {
            match &state.newest {
                Some(newest) if is_it(newest) => return Ok(Arc::clone(newest)),
                _ if state.ended => return Err(Ended),
                _ => {}
            }
            state = self.moved.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    pub(super) fn publish(&self, size: u64, note: String, boottime_ns: Option<u64>) {
        let mut state = self.lock();
        let number = state.count;
        state.count += 1;
        state.newest = Some(Arc::new(Published { number, size, note, boottime_ns }));
        drop(state);
        self.tell();
    }

    pub(super) fn set_epoch(&self, epoch: u64) {
        self.lock().epoch = Some(epoch);
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        self.lock().trouble = trouble.map(Into::into);
    }

    /// Nothing more will be published.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.tell();
    }

    fn tell(&self) {
        self.moved.notify_all();
        self.watch.send_modify(|changes| *changes += 1);
    }

    /// A thread that died with this lock held changed nothing under it that others rely on.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
