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

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::control::Received;
use super::datagrams::Datagrams;
pub use super::intake::Summary;
use super::intake::{CLOSING, Intake, Moment, OPENING, Seen};
use super::kaudit::Daemon;
use super::nlmsg::Status;
use super::{AppendError, Sink};

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
/// How long a receiver that has just emptied a busy socket leaves it alone. Else it is woken for
/// every record, on a core that the producers want.
const PAUSE_TIME: Duration = Duration::from_millis(1);
/// Records between two moments without any that make a socket a busy one.
const PAUSE_RECORDS_MIN: u64 = 64;
/// Longest wait for the socket.
const POLL_TIME: Duration = Duration::from_millis(100);
/// Time between two looks that counts as waiting; what is longer was time in which this
/// thread was kept from running.
const ACTIVE_NS_MAX: u64 = 200_000_000;
/// Calls to the socket between two looks at everything else.
const BATCH_CALLS: usize = 16;
/// Reports of the pulse that wait for a receiver which waits for the disk. A status that finds no room
/// is left out: the next one says more.
const REPORTS_MAX: usize = 8;
/// Longest datagram taken whole. The kernel's longest audit text is below 9 KiB.
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;

const _: () = assert!(POLL_TIME.as_nanos() < ACTIVE_NS_MAX as u128);
const _: () = assert!(DATAGRAM_BYTES_MAX <= graven_format::consts::RECORD_PAYLOAD_BYTES_MAX);

/// Asks a receiving thread to drain and return. It may be asked from a signal handler.
#[derive(Debug)]
pub struct Stop {
    requested: AtomicBool,
    wake: OwnedFd,
}

impl Stop {
    /// A stop that nobody has asked for.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn new() -> std::io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { requested: AtomicBool::new(false), wake })
    }

    /// Asks to stop; more than once is the same as once.
    pub fn request(&self) {
        self.requested.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// Ends the receiver's present wait. A counter that is full wakes it as well.
    fn wake(&self) {
        // Any number does.
        let _ = rustix::io::write(&self.wake, &[1; 8]);
    }

    fn clear(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }
}

/// Why receiving ended before it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetlinkError {
    /// The trail did not take a record.
    #[error("the trail does not take audit records any more: {0}")]
    Sink(#[from] AppendError),
    /// The socket failed.
    #[error("receiving audit records failed: {0}")]
    Socket(Errno),
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
/// `now` gives the realtime (nanoseconds since 1970) and the time since boot (nanoseconds); it is
/// read after each call to the socket. A `daemon` is received from once: detach after this returned.
///
/// # Errors
/// [`NetlinkError`]. Records that the socket still holds are then not in the sink.
pub fn receive(
    daemon: &Daemon,
    sink: &dyn Sink,
    stop: &Stop,
    now: impl Fn() -> (u64, u64),
) -> Result<Summary, NetlinkError> {
    receive_through(daemon, sink, stop, now, |_| true)
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
    stop: &Stop,
    now: impl Fn() -> (u64, u64),
    tap: impl FnMut(&[u8]) -> bool,
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
        let (realtime_ns, boottime_ns) = now();
        let first = Moment { realtime_ns, boottime_ns, active_ns: 0 };
        let intake = Intake::new(sink, std::process::id(), daemon.before().lost, first);
        Receiver {
            daemon,
            stop,
            traffic: &traffic,
            commands,
            reports,
            intake,
            now: first,
            stage: Stage::Starting,
            stage_since_ns: 0,
            progress_ns: 0,
            marked_ns: 0,
            overruns_ns: 0,
        }
        .run(now, tap)
    })
}

/// What the receiver asks of the pulse.
enum Command {
    /// Write the closing marker.
    Close,
    RemoveRules,
    /// Turn auditing off if it was off before.
    Disable,
}

/// What the pulse says.
enum Report {
    Status(Status),
    RulesRemoved,
    /// Whether auditing was turned off.
    Disabled(bool),
}

/// The thread that may be made to wait.
struct Pulse<'a> {
    daemon: &'a Daemon,
    stop: &'a Stop,
    traffic: &'a AtomicU64,
    outbox: mpsc::SyncSender<Report>,
}

impl Pulse<'_> {
    fn run(self, inbox: &mpsc::Receiver<Command>) {
        let mut heartbeats = OPENING;
        let mut seen = 0;
        let mut covered = 0;
        loop {
            let report = match inbox.recv_timeout(BEAT) {
                Ok(Command::Close) => {
                    // One that fails is written again when it does not come back.
                    let _ = self.daemon.write_heartbeat(CLOSING);
                    continue;
                }
                Ok(Command::RemoveRules) => {
                    // A rule that stays makes records that are beyond the closing marker; the
                    // caller's detach tries again and tells.
                    let _ = self.daemon.remove_rules();
                    Report::RulesRemoved
                }
                Ok(Command::Disable) => {
                    if let Some(status) = self.status() {
                        self.tell(status);
                    }
                    Report::Disabled(self.daemon.restore_enabled().unwrap_or(false))
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let traffic = self.traffic.load(Ordering::Relaxed);
                    if traffic == seen && traffic != covered {
                        covered = traffic;
                        heartbeats += 1;
                        // Without it a loss at the tail shows later, but it shows.
                        let _ = self.daemon.write_heartbeat(heartbeats);
                    }
                    seen = traffic;
                    if let Some(status) = self.status() {
                        let _ = self.outbox.try_send(status);
                        self.stop.wake();
                    }
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            self.tell(report);
        }
    }

    /// The counter is a hint beside the window: a question that fails is asked again.
    fn status(&self) -> Option<Report> {
        self.daemon.status().ok().map(Report::Status)
    }

    fn tell(&self, report: Report) {
        // The receiver is gone only when this thread is about to end as well.
        let _ = self.outbox.send(report);
        self.stop.wake();
    }
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

struct Receiver<'a> {
    daemon: &'a Daemon,
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

impl Receiver<'_> {
    fn run(
        mut self,
        now: impl Fn() -> (u64, u64),
        mut tap: impl FnMut(&[u8]) -> bool,
    ) -> Result<Summary, NetlinkError> {
        let mut datagrams = Datagrams::new(DATAGRAM_BYTES_MAX);
        let mut traffic_when_empty = 0;
        loop {
            self.look_at_the_clock(now());
            let empty = self.take_batch(&mut datagrams, &now, &mut tap)?;
            self.traffic.store(self.intake.traffic(), Ordering::Relaxed);
            while let Ok(report) = self.reports.try_recv() {
                self.report(report);
            }
            if empty {
                self.look_at_overruns();
                self.intake.tick()?;
            }
            self.step(empty)?;
            if let Stage::Done(last, drained) = self.stage {
                self.overruns_ns = 0;
                self.look_at_overruns();
                return Ok(self.intake.finish(last, drained)?);
            }
            if empty {
                let traffic = self.intake.traffic();
                if traffic - std::mem::replace(&mut traffic_when_empty, traffic)
                    >= PAUSE_RECORDS_MIN
                {
                    self.wait(PAUSE_TIME, PollFlags::empty())?;
                } else {
                    self.wait(POLL_TIME, PollFlags::IN)?;
                }
            }
        }
    }

    fn look_at_the_clock(&mut self, (realtime_ns, boottime_ns): (u64, u64)) {
        let passed_ns = boottime_ns.saturating_sub(self.now.boottime_ns).min(ACTIVE_NS_MAX);
        let active_ns = self.now.active_ns + passed_ns;
        self.now = Moment { realtime_ns, boottime_ns, active_ns };
        self.intake.set_now(self.now);
    }

    /// Asks the socket how often the kernel found it full, once a beat.
    fn look_at_overruns(&mut self) {
        let since_ns = self.now.active_ns - self.overruns_ns;
        if u128::from(since_ns) < BEAT.as_nanos() {
            return;
        }
        self.overruns_ns = self.now.active_ns;
        if let Some(count) = self.daemon.socket().failed_sends() {
            self.intake.failed_sends(count);
        }
    }

    /// Takes what is there, at most a batch; true if the socket is empty.
    fn take_batch(
        &mut self,
        datagrams: &mut Datagrams,
        now: &impl Fn() -> (u64, u64),
        tap: &mut impl FnMut(&[u8]) -> bool,
    ) -> Result<bool, NetlinkError> {
        for _ in 0..BATCH_CALLS {
            match self.daemon.socket().receive(datagrams).map_err(NetlinkError::Socket)? {
                Received::Some => {
                    // After the receiving: the time before it may be before the kernel's own.
                    self.look_at_the_clock(now());
                    self.progress_ns = self.now.active_ns;
                    let passed = datagrams.iter().filter(|&(bytes, _)| tap(bytes));
                    for seen in self.intake.datagrams(passed)? {
                        self.seen(seen);
                    }
                }
                Received::Overrun => self.intake.overrun(),
                Received::Empty => return Ok(true),
            }
        }
        Ok(false)
    }

    fn seen(&mut self, seen: Seen) {
        match (self.stage, seen) {
            (Stage::Starting, Seen::Heartbeat { number: OPENING, serial }) => {
                self.intake.start(serial);
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

    /// Waits for this on the socket, for a stop or report, or until the time is over.
    fn wait(&self, limit: Duration, socket: PollFlags) -> Result<(), NetlinkError> {
        let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(limit.subsec_nanos()) };
        let mut fds = [
            PollFd::new(self.daemon.socket(), socket),
            PollFd::new(&self.stop.wake, PollFlags::IN),
        ];
        match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(NetlinkError::Socket(errno)),
        }
        if !fds[1].revents().is_empty() {
            self.stop.clear();
        }
        Ok(())
    }
}
