//! The receiving thread of the audit netlink.
//!
//! # Two threads
//! The kernel makes whoever sends it an audit message wait while its queue is full, also for a
//! mere question. So the receiving thread never sends anything. A second one, the pulse, asks
//! for the kernel's counters, writes heartbeats and removes the rules, and may be made to wait.
//!
//! # Many at a time
//! In a storm the receiver shares the processors with the producers that it empties the queue for.
//! One call takes many datagrams, their records go to the sink under one lock, and a socket that
//! was busy until it was empty is left alone for a millisecond, so that no record wakes anybody.
//!
//! # The beginning
//! Attaching ends with an opening marker, a `TRUSTED_APP` record. From its serial on, every serial
//! is owed to us: also those of rules added before this thread runs. What arrives earlier is
//! kept, not judged.
//!
//! # Heartbeats
//! A loss shows at the next record only. When records came and then no more, the pulse writes one
//! heartbeat, so that a loss at the tail shows within two [`BEAT`]s and the window's patience. It
//! also wakes the kernel's queue thread, which can sleep while a producer waits for it. An idle
//! system stays idle.
//!
//! # The end
//! 1. The rules of ours are removed: no new event of ours begins.
//! 2. The pulse writes the closing marker. Everything that took its serial before it is owed.
//! 3. It is received until the marker is back, every serial below it is here and every event
//!    among them is whole. A marker that does not come back is written again; what does
//!    not come within [`DRAIN_TIME`] is stated as lost.
//! 4. If auditing was off before, it is turned off, and its last record is received.
//! 5. The caller detaches; there is nothing left in the socket that is owed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use rustix::io::Errno;

use super::control::Received;
pub use super::intake::Summary;
use super::intake::{CLOSING, Intake, Moment, OPENING, Seen};
use super::kaudit::Daemon;
use super::past::Past;
use super::{AppendError, Sink};
use crate::keeper::{Kept, MemoryError, Progress, SharedFeed};
use feed::{Feed, SocketFeed};
use pulse::{Command, Pulse, Report};
pub use stop::Stop;

pub(crate) mod feed;
mod pulse;
mod stop;

/// How often the pulse looks.
pub const BEAT: Duration = Duration::from_millis(500);
/// How long the opening marker may take, and how long the drain may take without progress.
pub const DRAIN_TIME: Duration = Duration::from_secs(10);
/// How long to wait for events below the closing marker that are still open.
const OPEN_TIME: Duration = Duration::from_secs(5);
/// How long the closing marker may take before it is written again.
const MARKER_TIME: Duration = Duration::from_secs(2);
/// How long the record that says that auditing is off may take.
const DISABLED_TIME: Duration = Duration::from_millis(500);
/// Records between two moments without any that make a socket a busy one.
const PAUSE_RECORDS_MIN: u64 = 64;
/// What is taken between two looks at everything else.
const BATCH_CALLS: usize = 16;
/// Reports of the pulse that wait for a receiver which waits for the disk. A status that finds no room
/// is left out: the next one says more.
const REPORTS_MAX: usize = 8;

/// Why receiving ended before it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetlinkError {
    /// The trail did not take a record.
    #[error("the trail does not take audit records any more: {0}")]
    Sink(#[from] AppendError),
    /// The socket failed.
    #[error("receiving audit records failed: {0}")]
    Socket(Errno),
    /// The memory that the keeper shares with this process cannot be read, or the keeper cannot go on.
    #[error(transparent)]
    Kept(#[from] MemoryError),
    /// The opening marker, which attaching wrote, did not come back.
    #[error(
        "the opening marker did not come back within {} s, so that no loss could be found; help: \
         look for rules of `auditctl -l` on the lists user or exclude that discard TRUSTED_APP",
        DRAIN_TIME.as_secs()
    )]
    NoMarker,
    /// The second thread could not be started: nothing was received.
    #[error("cannot start a thread: {0}")]
    Thread(Errno),
}

/// Receives until asked to stop, then drains; see the module's text for the order.
///
/// `past` is what the trail says of earlier sessions: what was owed to them is owed still.
/// `now` gives the realtime (nanoseconds since 1970) and the time since boot (nanoseconds); it is
/// read after each call to the socket. A `daemon` is received from once: detach after this returned.
///
/// # Errors
/// [`NetlinkError`]. Records that the socket still holds are then not in the sink.
pub fn receive(
    daemon: &Daemon,
    sink: &dyn Sink,
    past: Past,
    stop: &Stop,
    now: impl Fn() -> (u64, u64),
) -> Result<Summary, NetlinkError> {
    receive_through(daemon, sink, past, stop, now, |_| true)
}

/// [`receive`] with a tap that sees every datagram first and may make it disappear: for tests of
/// what a loss looks like.
///
/// # Errors
/// See [`receive`].
#[doc(hidden)]
pub fn receive_through(
    daemon: &Daemon,
    sink: &dyn Sink,
    past: Past,
    stop: &Stop,
    now: impl Fn() -> (u64, u64),
    tap: impl FnMut(&[u8]) -> bool,
) -> Result<Summary, NetlinkError> {
    let feed = SocketFeed::new(daemon, now, tap);
    let intake = Intake::new(sink, daemon.terms(), past, feed.now());
    receive_from(feed, daemon, stop, intake)
}

/// Receives what the keeper took from the socket of `daemon` and holds in its shared memory, and tells it what is
/// durable; see [`receive`].
///
/// # Errors
/// See [`receive`].
pub fn receive_kept<P: Progress>(
    daemon: &Daemon,
    progress: &P,
    past: Past,
    kept: Kept<'_>,
    stop: &Stop,
) -> Result<Summary, NetlinkError> {
    let trouble = OnceLock::new();
    let mut terms = daemon.terms();
    if past.taken_up {
        // The session has accounted for what the counter had risen by.
        terms.lost = daemon.status().map_or(past.lost, |status| status.lost);
    }
    let feed = SharedFeed::new(kept, progress, past.netlink_records(), &trouble)?;
    let intake = Intake::new(progress, terms, past, feed.now());
    let received = receive_from(feed, daemon, stop, intake);
    received.map_err(|error| trouble.get().map_or(error, |why| why.clone().into()))
}

/// Receives from `feed` what `daemon` is owed until asked to stop, then drains.
pub(crate) fn receive_from(
    feed: impl Feed,
    daemon: &Daemon,
    stop: &Stop,
    intake: Intake<'_>,
) -> Result<Summary, NetlinkError> {
    let traffic = AtomicU64::new(0);
    let (commands, inbox) = mpsc::channel();
    let (outbox, reports) = mpsc::sync_channel(REPORTS_MAX);
    std::thread::scope(|scope| {
        let pulse = Pulse { daemon, stop, traffic: &traffic, outbox };
        std::thread::Builder::new()
            .name("graven-pulse".to_owned())
            .spawn_scoped(scope, move || pulse.run(&inbox))
            .map_err(|why| {
                NetlinkError::Thread(Errno::from_io_error(&why).unwrap_or(Errno::AGAIN))
            })?;
        // The commands end with the receiver, and with them the pulse.
        let now = feed.now();
        let intake_opened = intake.is_opened();
        Receiver {
            feed,
            stop,
            traffic: &traffic,
            commands,
            reports,
            intake,
            now,
            stage: if intake_opened { Stage::Running } else { Stage::Starting },
            stage_since_ns: now.active_ns,
            progress_ns: now.active_ns,
            marked_ns: now.active_ns,
            overruns_ns: now.active_ns,
        }
        .run()
    })
}

/// How far the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Waiting for the opening marker.
    Starting,
    Running,
    RemovingRules,
    /// Waiting for the closing marker.
    Closing,
    /// Waiting for what lies below the closing marker of this serial.
    Draining(u32),
    /// Waiting for the answer to the request to turn auditing off.
    Disabling(u32),
    /// Waiting for the record that says so.
    LastRecord(u32),
    /// Nothing more is awaited: the serial to which records are owed, and whether all were waited
    /// for.
    Done(u32, bool),
}

/// What a look at the feed has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    /// There may be more.
    More,
    /// The socket was empty.
    Empty,
    /// Nothing is known to be there, or not to be there.
    Later,
}

struct Receiver<'a, F> {
    feed: F,
    stop: &'a Stop,
    traffic: &'a AtomicU64,
    commands: mpsc::Sender<Command>,
    reports: mpsc::Receiver<Report>,
    intake: Intake<'a>,
    now: Moment,
    stage: Stage,
    stage_since_ns: u64,
    /// When the last datagram came.
    progress_ns: u64,
    /// When the closing marker was asked for.
    marked_ns: u64,
    /// When the socket was last asked for its overruns.
    overruns_ns: u64,
}

impl<F: Feed> Receiver<'_, F> {
    fn run(mut self) -> Result<Summary, NetlinkError> {
        let mut traffic_when_empty = 0;
        loop {
            let looked = self.take_batch()?;
            let empty = looked == Looked::Empty;
            self.traffic.store(self.intake.traffic(), Ordering::Relaxed);
            while let Ok(report) = self.reports.try_recv() {
                self.report(report);
            }
            if empty {
                self.look_at_overruns();
                self.intake.tick()?;
            }
            if let Some(settled) = self.intake.settled()? {
                self.feed.settled(&settled);
            }
            self.step(empty)?;
            if let Stage::Done(last, drained) = self.stage {
                self.overruns_ns = 0;
                self.look_at_overruns();
                self.intake.makes_more(self.feed.own_events());
                return Ok(self.intake.finish(last, drained)?);
            }
            if looked != Looked::More {
                let traffic = self.intake.traffic();
                let gained = traffic - std::mem::replace(&mut traffic_when_empty, traffic);
                let busy = gained >= PAUSE_RECORDS_MIN;
                self.feed.wait(self.stop, busy).map_err(NetlinkError::Socket)?;
            }
        }
    }

    fn look_at_the_clock(&mut self) {
        self.now = self.feed.now();
        self.intake.set_now(self.now);
    }

    /// Asks the feed how often the kernel found the socket full, once a beat.
    fn look_at_overruns(&mut self) {
        let since_ns = self.now.active_ns - self.overruns_ns;
        if u128::from(since_ns) < BEAT.as_nanos() {
            return;
        }
        self.overruns_ns = self.now.active_ns;
        if let Some(count) = self.feed.failed_sends() {
            self.intake.failed_sends(count);
        }
    }

    /// Takes what is there, at most a batch.
    fn take_batch(&mut self) -> Result<Looked, NetlinkError> {
        for _ in 0..BATCH_CALLS {
            let received = self.feed.take().map_err(NetlinkError::Socket)?;
            self.look_at_the_clock();
            match received {
                Received::Some => {
                    self.progress_ns = self.now.active_ns;
                    for seen in self.intake.datagrams(self.feed.datagrams())? {
                        self.seen(seen)?;
                    }
                }
                Received::Overrun => self.intake.overrun(),
                Received::Empty => return Ok(Looked::Empty),
                Received::Later => return Ok(Looked::Later),
            }
        }
        Ok(Looked::More)
    }

    fn seen(&mut self, seen: Seen) -> Result<(), AppendError> {
        match (self.stage, seen) {
            (Stage::Starting, Seen::Heartbeat { number: OPENING, serial }) => {
                self.intake.start(serial)?;
                self.enter(Stage::Running);
            }
            (Stage::Closing, Seen::Heartbeat { number: CLOSING, serial }) => {
                self.enter(Stage::Draining(serial));
            }
            (Stage::LastRecord(last), Seen::Disabled) => self.enter(Stage::Done(last, true)),
            // It may overtake the report that announces it.
            (Stage::Disabling(last), Seen::Disabled) => self.enter(Stage::Done(last, true)),
            _ => {}
        }
        Ok(())
    }

    fn report(&mut self, report: Report) {
        match (self.stage, report) {
            (_, Report::Status(status)) => self.intake.status(&status),
            (Stage::RemovingRules, Report::RulesRemoved) => {
                self.command(Command::Close);
                self.marked_ns = self.now.active_ns;
                self.enter(Stage::Closing);
            }
            (Stage::Disabling(last), Report::Disabled(true)) => self.enter(Stage::LastRecord(last)),
            (Stage::Disabling(last), Report::Disabled(false)) => {
                self.enter(Stage::Done(last, true))
            }
            _ => {}
        }
    }

    /// Goes on where time or the window says so. `empty` says that the socket is.
    fn step(&mut self, empty: bool) -> Result<(), NetlinkError> {
        let in_stage_ns = self.now.active_ns - self.stage_since_ns;
        let idle_ns = self.now.active_ns - self.progress_ns.max(self.stage_since_ns);
        let past = |ns: u64, limit: Duration| u128::from(ns) >= limit.as_nanos();
        match self.stage {
            Stage::Starting if past(idle_ns, DRAIN_TIME) => return Err(NetlinkError::NoMarker),
            Stage::Running if self.stop.is_requested() => {
                self.command(Command::RemoveRules);
                self.enter(Stage::RemovingRules);
            }
            Stage::RemovingRules | Stage::Closing if past(idle_ns, DRAIN_TIME) => {
                let last = self.intake.window().head().wrapping_sub(1);
                self.enter(Stage::Done(last, false));
            }
            Stage::Closing if empty && past(self.now.active_ns - self.marked_ns, MARKER_TIME) => {
                self.command(Command::Close);
                self.marked_ns = self.now.active_ns;
            }
            Stage::Draining(last)
                if empty
                    && (self.intake.window().is_complete_to(last)
                        || past(in_stage_ns, OPEN_TIME)) =>
            {
                self.command(Command::Disable);
                self.enter(Stage::Disabling(last));
            }
            Stage::Disabling(last) if past(in_stage_ns, DRAIN_TIME) => {
                self.enter(Stage::Done(last, true));
            }
            Stage::LastRecord(last) if past(in_stage_ns, DISABLED_TIME) => {
                self.enter(Stage::Done(last, true));
            }
            _ => {}
        }
        Ok(())
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.stage_since_ns = self.now.active_ns;
    }

    fn command(&self, command: Command) {
        // The pulse lives until the commands end.
        let _ = self.commands.send(command);
    }
}
