//! The thread that compresses what a running writer has sealed, when nobody else wants the
//! processor or the disk.

use super::{RewriteError, Rewriter, Rewritten, Segment};
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// How often the trail is looked at for segments that were sealed since.
const LOOK: Duration = Duration::from_secs(2);

/// How long it leaves a segment alone that the system has refused to read or to replace: a full
/// disk may have room again.
const RETRY: Duration = Duration::from_secs(30);

/// How long it waits while producers do.
const YIELD: Duration = Duration::from_millis(20);

/// What there is to tell.
#[derive(Debug)]
pub enum Told {
    /// This segment was rewritten, or was left alone.
    Segment(Segment, Rewritten),
    /// A segment is as it was, because of this. What the system refuses is tried again, and told
    /// again only once something has succeeded; any other segment is left.
    Failed(Segment, RewriteError),
    /// It has ended because of this; segments stay as they are.
    Ended(RewriteError),
}

/// The thread. Dropping it ends it, and leaves no segment half rewritten.
#[derive(Debug)]
pub struct Background {
    /// Dropped to say that it shall end.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts it for the trail in `dir`. `busy` says whether producers wait, which it then does too;
    /// `tell` is called on its thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        dir: PathBuf,
        level: i32,
        busy: impl Fn() -> bool + Send + 'static,
        tell: impl FnMut(Told) + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = Builder::new().name("graven-compress".to_owned()).spawn(move || {
            be_idle();
            let mut work = Work { stopped, busy, tell };
            if let Err(error) = work.run(&dir, level) {
                (work.tell)(Told::Ended(error));
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It has told what there was to tell.
            let _ = thread.join();
        }
    }
}

struct Work<B, T> {
    stopped: Receiver<()>,
    busy: B,
    tell: T,
}

impl<B: Fn() -> bool, T: FnMut(Told)> Work<B, T> {
    fn run(&mut self, dir: &std::path::Path, level: i32) -> Result<(), RewriteError> {
        let mut rewriter = Rewriter::new(dir, level)?;
        // Segments below this one were looked at.
        let mut from = 0;
        let (mut wait, mut refused) = (LOOK, false);
        while !self.stops_within(wait) {
            wait = LOOK;
            let segments = rewriter.segments()?;
            let todo = segments.partition_point(|segment| segment.segment < from);
            for pair in segments[todo..].windows(2) {
                let (segment, next) = (pair[0], pair[1]);
                let stopped = &self.stopped;
                let busy = &self.busy;
                let mut pause = || {
                    while busy() {
                        if stops_within(stopped, YIELD) {
                            return ControlFlow::Break(());
                        }
                    }
                    if stops_within(stopped, Duration::ZERO) {
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                };
                match rewriter.rewrite(&segment, &next, &mut pause) {
                    Ok(Rewritten::Stopped) => return Ok(()),
                    // Its successor may have its name before its own trailer is there to be read.
                    Ok(Rewritten::NotSettled) if segments.last() == Some(&next) => break,
                    Ok(done) => {
                        refused = false;
                        (self.tell)(Told::Segment(segment, done));
                    }
                    Err(error @ RewriteError::Io { .. }) => {
                        if !std::mem::replace(&mut refused, true) {
                            (self.tell)(Told::Failed(segment, error));
                        }
                        wait = RETRY;
                        break;
                    }
                    Err(error) => (self.tell)(Told::Failed(segment, error)),
                }
                from = next.segment;
            }
        }
        Ok(())
    }

    fn stops_within(&self, time: Duration) -> bool {
        stops_within(&self.stopped, time)
    }
}

/// Waits that long, or until it shall end.
fn stops_within(stopped: &Receiver<()>, time: Duration) -> bool {
    !matches!(stopped.recv_timeout(time), Err(RecvTimeoutError::Timeout))
}

/// The processor and the disk only when nobody else wants them. Where the system refuses, it works
/// like any other thread.
fn be_idle() {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_CLASS_IDLE: libc::c_int = 3 << 13;
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: both calls only read their arguments; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const priority) };
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_CLASS_IDLE) };
}
