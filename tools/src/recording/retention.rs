//! The thread that removes old segments beside a recording: what is to go is recorded, durably and under a checkpoint,
//! before it goes.

use crate::diag::Diagnostic;
use crate::escape;
use crate::exit::Exit;
use crate::recording::Failure;
use graven_writer::own::{ERR, Own};
use graven_writer::retention::{Keep, Removal, Retention};
use graven_writer::{Asker, Exempt, Trail, WaitError, clock};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it looks for what is to be removed.
const LOOK: Duration = Duration::from_secs(1);

/// The thread.
#[derive(Debug)]
pub struct Removing {
    stop: Sender<()>,
    thread: JoinHandle<()>,
    kept: Arc<Kept>,
}

/// What is to be kept, which may change while recording goes on.
#[derive(Debug, Default)]
pub struct Kept(Mutex<Keep>);

impl Kept {
    /// Changes it.
    pub fn set(&self, keep: Keep) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = keep;
    }

    fn get(&self) -> Keep {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Work {
    retention: Retention,
    kept: Arc<Kept>,
    exempt: Exempt,
    /// If the trail is signed.
    asker: Option<Asker>,
    /// Whether it was said that something is refused.
    refused: bool,
}

impl Removing {
    /// Starts it for the trail in `dir`.
    ///
    /// # Errors
    /// The directory cannot be opened, or there is no thread; nothing was recorded.
    pub fn start(dir: &Path, keep: Keep, trail: &Trail) -> Result<Self, Failure> {
        let retention = Retention::new(dir).map_err(|why| {
            Failure::new(Exit::CannotCheck, &format!("cannot open the trail's directory: {why}"))
        })?;
        let asker = trail.opened().key.is_some().then(|| trail.asker());
        let kept = Arc::new(Kept(Mutex::new(keep)));
        let shared = Arc::clone(&kept);
        let exempt = trail.exempt();
        let mut work = Work { retention, kept: shared, exempt, asker, refused: false };
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("graven-retention".to_owned())
            .spawn(move || {
                while matches!(stopped.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)) {
                    work.look();
                }
            })
            .map_err(|why| Failure::thread(Exit::CannotCheck, &why).note("no record was taken"))?;
        Ok(Self { stop, thread, kept })
    }

    /// What is to be kept.
    #[must_use]
    pub fn kept(&self) -> Arc<Kept> {
        Arc::clone(&self.kept)
    }

    /// Ends it, once the trail has ended.
    pub fn end(self) {
        drop(self.stop);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

impl Work {
    fn look(&mut self) {
        let keep = self.kept.get();
        if !keep.removes() {
            return;
        }
        let due = self.retention.due(&keep, clock::now().realtime_ns);
        let removed = due.and_then(|due| {
            let Some(due) = due else { return Ok(()) };
            match self.announce(&due) {
                Ok(()) => self.retention.remove(&due).map(drop),
                // The trail has ended; the next writer goes on.
                Err(_) => Ok(()),
            }
        });
        match removed {
            Ok(()) => self.refused = false,
            Err(why) if !std::mem::replace(&mut self.refused, true) => {
                let text = why.to_string();
                Diagnostic::error(format!(
                    "old segments stay: {}",
                    escape::Escaped(text.as_bytes())
                ))
                .note("recording goes on; it is tried again")
                .emit();
                let own = Own::new(ERR, "retention", clock::now()).text("why", text.as_bytes());
                // What ends the trail is told by others.
                let _ = self.exempt.try_append(&own.result(false).record());
            }
            Err(_) => {}
        }
    }

    /// Records what is to go, and waits until nobody can make that unsaid.
    fn announce(&self, due: &Removal) -> Result<(), WaitError> {
        let own = due.statement(clock::now());
        let seq = own.append(&self.exempt).map_err(|_| WaitError::Closed)?;
        self.exempt.watermark().wait_past(seq)?;
        match &self.asker {
            Some(asker) => asker.checkpoint().map(drop).map_err(|_| WaitError::Closed),
            None => Ok(()),
        }
    }
}
