//! Whoever produces records: writes lines at its own speed and notes what was acknowledged.

use super::Running;
use super::lines::Lines;
use super::random::Random;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How fast lines come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Speed {
    /// As fast as they are taken.
    Full,
    /// Bursts, and pauses of at most so many microseconds.
    Bursts(u64),
}

/// What a feeder is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) lines: Lines,
    /// The first line.
    pub(crate) from: u64,
    /// The line after the last.
    pub(crate) to: u64,
    pub(crate) speed: Speed,
    pub(crate) seed: u64,
}

/// A writer of lines on another thread.
pub(crate) struct Feeder {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    /// The line after the last that was written whole.
    written: Arc<AtomicU64>,
}

impl Feeder {
    /// Starts the command, and feeds it.
    pub(crate) fn start(command: &mut Command, plan: Plan) -> (Running, Self) {
        let mut running = Running::start(command, Stdio::piped());
        let feeder = Self::feed(running.stdin(), plan);
        (running, feeder)
    }

    fn feed(mut stdin: std::process::ChildStdin, plan: Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(plan.from));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = std::thread::spawn(move || {
            let mut random = Random::new(plan.seed);
            let mut number = plan.from;
            let mut bytes = Vec::new();
            while number < plan.to && !stopped.load(Ordering::Relaxed) {
                let end = plan.to.min(number + 1 + random.below(64));
                bytes.clear();
                (number..end).for_each(|number| plan.lines.write(number, &mut bytes));
                // The reader has ended: what it took is for the trail to say.
                if stdin.write_all(&bytes).is_err() {
                    return;
                }
                number = end;
                count.store(number, Ordering::Release);
                if let Speed::Bursts(pause_us) = plan.speed {
                    std::thread::sleep(Duration::from_micros(random.below(pause_us)));
                }
            }
        });
        Self { thread, stop, written }
    }

    /// The line after the last that has been written whole.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Writes no more lines and closes the pipe, unless it is stuck in a pipe that nobody empties.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for its end, and returns the line after the last that was written whole.
    pub(crate) fn join(self) -> u64 {
        self.thread.join().expect("a feeder does not panic");
        self.written.load(Ordering::Acquire)
    }
}
