//! A storm of `openat` by a test uid, and who consumes it.

use super::super::process::{Trouble, Usage};
use super::super::units;
use super::auditctl;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The uid of the producers: no account of a machine.
pub const UID: u32 = 64_123;

/// Processes that produce.
const PRODUCERS: usize = 2;

/// A consumer that has made no progress for this long is done.
const QUIET: Duration = Duration::from_millis(500);

/// `openat` until the time is over; prints how many there were, and the processor time that they took in nanoseconds.
/// Runs as [`UID`].
///
/// # Errors
/// The file cannot be opened, or nobody reads.
pub fn openat(seconds: f64) -> io::Result<()> {
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut events = 0_u64;
    while Instant::now() < until {
        for _ in 0..100 {
            drop(File::open("/dev/null")?);
        }
        events += 100;
    }
    writeln!(io::stdout(), "{events} {}", units::process_cpu_ns())
}

/// A consumer under test, which runs.
pub trait Consumer {
    /// How much it has consumed so far, in whatever unit.
    fn progress(&self) -> u64;
    /// What its processes have used so far, if it has any of its own.
    fn usage(&self) -> Usage {
        Usage::default()
    }
    /// Ends it; returns how many events it has kept.
    ///
    /// # Errors
    /// It fails, or what it kept cannot be read.
    fn events(self: Box<Self>) -> Result<u64, Trouble>;
}

/// What a storm has shown.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    /// Events that were made.
    pub made: u64,
    /// Events that the consumer has kept.
    pub kept: u64,
    /// From the first event to the consumer's last progress: who falls behind pays for its queue.
    pub took: Duration,
    /// What consumer and producers have used.
    pub usage: Usage,
}

/// A process that makes events, as [`UID`]. It ends with us.
#[derive(Debug)]
pub struct Producer(Child);

impl Producer {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        command.uid(UID).gid(UID).process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
        command.spawn().map(Self)
    }

    /// What it says at its end: two numbers, of which the first is how many events there were.
    ///
    /// # Errors
    /// It fails, or [`Trouble::Stopped`].
    pub fn said(mut self, stop: &AtomicBool) -> Result<(u64, u64), Trouble> {
        let status = loop {
            match self.0.try_wait().map_err(Trouble::io("a producer cannot be waited for"))? {
                Some(status) => break status,
                None => std::thread::sleep(Duration::from_millis(1)),
            }
            check(stop)?;
        };
        let mut text = String::new();
        if let Some(out) = &mut self.0.stdout {
            out.read_to_string(&mut text).map_err(Trouble::io("a producer"))?;
        }
        let mut words = text.split_whitespace().map(str::parse);
        match (status.success(), words.next(), words.next()) {
            (true, Some(Ok(events)), Some(Ok(figure))) => Ok((events, figure)),
            _ => Err(Trouble::Said(format!("a producer failed ({status})"))),
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // After a failure; else it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a consumer and lets two processes of `producer` make events, which run as [`UID`] and call [`openat`].
///
/// # Errors
/// [`Trouble`]
pub fn storm(
    producer: &dyn Fn() -> io::Result<Command>,
    stop: &AtomicBool,
    start: impl FnOnce() -> Result<Box<dyn Consumer>, Trouble>,
) -> Result<Storm, Trouble> {
    auditctl(&["-D"])?;
    auditctl(&["-e", "0"])?;
    let consumer = start()?;
    auditctl(&["-b", "8192"])?;
    watch()?;
    let before = consumer.usage();
    let begin = Instant::now();
    let started = (0..PRODUCERS).map(|_| Producer::start(&mut producer()?));
    let producers = started.collect::<io::Result<Vec<_>>>();
    let (mut made, mut cpu_ns) = (0, 0);
    for producer in producers.map_err(Trouble::io("a producer does not start"))? {
        let (events, ns) = producer.said(stop)?;
        made += events;
        cpu_ns += ns;
    }
    let (mut last, mut seen) = (Instant::now(), consumer.progress());
    while last.elapsed() < QUIET {
        std::thread::sleep(Duration::from_millis(2));
        let now = consumer.progress();
        if now != seen {
            (last, seen) = (Instant::now(), now);
        }
        check(stop)?;
    }
    let took = last - begin;
    let usage = consumer.usage().since(before).and(Usage { cpu_ns, written_bytes: 0 });
    auditctl(&["-D"])?;
    let kept = consumer.events()?;
    Ok(Storm { made, kept, took, usage })
}

/// Sets the rule that makes the producers' calls events.
///
/// # Errors
/// auditctl says so.
pub fn watch() -> Result<(), Trouble> {
    let uid = format!("uid={UID}");
    let rule =
        ["-a", "always,exit", "-F", "arch=b64", "-S", "openat", "-F", &uid, "-k", "graven-bench"];
    auditctl(&rule).map(drop)
}

fn check(stop: &AtomicBool) -> Result<(), Trouble> {
    if stop.load(Ordering::Relaxed) { Err(Trouble::Stopped) } else { Ok(()) }
}
