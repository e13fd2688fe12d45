//! The thread that answers: it waits for the watermark, so that a record which is durable is answered also
//! while the thread that reads waits for room.
//!
//! It is woken for every move of the watermark, and looks at the clients only if one of them awaits what has
//! become durable. None is missed: who awaits says so before it looks at the watermark, and the watermark moves
//! before this thread looks at who awaits.

use super::line::Line;
use crate::engine::durability::Watermark;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Nothing is awaited.
const NOTHING: u64 = u64::MAX;

/// Between the two threads.
#[derive(Debug)]
pub(super) struct Answers {
    watermark: Arc<Watermark>,
    lines: Mutex<Vec<Arc<Line<UnixStream>>>>,
    /// Can be read when something was answered, or the watermark has ended.
    event: OwnedFd,
    /// The lowest seq that an answer waits for.
    awaited: AtomicU64,
    watermark_ended: AtomicBool,
    /// Nobody is served any more.
    done: AtomicBool,
}

impl Answers {
    pub(super) fn new(watermark: &Arc<Watermark>) -> Result<Self, Errno> {
        Ok(Self {
            watermark: Arc::clone(watermark),
            lines: Mutex::default(),
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            awaited: AtomicU64::new(NOTHING),
            watermark_ended: AtomicBool::new(false),
            done: AtomicBool::new(false),
        })
    }

    /// Starts the thread. It is not joined: it sleeps until the watermark moves again, which may be long
    /// after everybody was served.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<()> {
        let answers = Arc::clone(self);
        let run = move || answers.run();
        std::thread::Builder::new().name("graven-answers".to_owned()).spawn(run).map(drop)
    }

    fn run(&self) {
        let mut durable = self.watermark.durable();
        while !self.done.load(Ordering::Relaxed) {
            let Ok(moved) = self.watermark.wait_past(durable) else {
                self.watermark_ended.store(true, Ordering::SeqCst);
                self.wake();
                return;
            };
            durable = moved;
            if durable > self.awaited.load(Ordering::SeqCst) {
                self.awaited.store(NOTHING, Ordering::SeqCst);
                let lines = self.lock().clone();
                for awaited in lines.iter().filter_map(|line| line.answer(durable)) {
                    self.awaited.fetch_min(awaited, Ordering::SeqCst);
                }
                self.wake();
            }
        }
    }

    /// The record of this seq, which is on the line, awaits its answer.
    pub(super) fn awaits(&self, line: &Line<UnixStream>, seq: u64) {
        self.awaited.fetch_min(seq, Ordering::SeqCst);
        let durable = self.watermark.durable();
        if durable > seq {
            line.answer(durable);
        }
    }

    /// How many records are durable.
    pub(super) fn durable(&self) -> u64 {
        self.watermark.durable()
    }

    /// Whether nothing more becomes durable.
    pub(super) fn have_ended(&self) -> bool {
        self.watermark_ended.load(Ordering::SeqCst)
    }

    pub(super) fn event(&self) -> &OwnedFd {
        &self.event
    }

    pub(super) fn clear(&self) {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }

    /// A counter that is full wakes as well.
    fn wake(&self) {
        // Any number does.
        let _ = rustix::io::write(&self.event, &[1; 8]);
    }

    pub(super) fn add(&self, line: &Arc<Line<UnixStream>>) {
        self.lock().push(Arc::clone(line));
    }

    pub(super) fn remove(&self, line: &Arc<Line<UnixStream>>) {
        self.lock().retain(|it| !Arc::ptr_eq(it, line));
    }

    /// Nobody is served any more.
    pub(super) fn end(&self) {
        self.done.store(true, Ordering::Relaxed);
        self.lock().clear();
    }

    /// A thread that died with this lock held had nothing half done.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Line<UnixStream>>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
