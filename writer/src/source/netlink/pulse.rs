//! The second thread of a session: it asks the kernel, and may be made to wait.

use super::super::intake::{CLOSING, OPENING};
use super::super::kaudit::Daemon;
use super::super::nlmsg::Status;
use super::{BEAT, Stop};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

/// What the receiver asks of the pulse.
pub(super) enum Command {
    /// Write the closing marker.
    Close,
    RemoveRules,
    /// Turn auditing off if it was off before.
    Disable,
}

/// What the pulse says.
pub(super) enum Report {
    Status(Status),
    RulesRemoved,
    /// Whether auditing was turned off.
    Disabled(bool),
}

/// The thread that may be made to wait.
pub(super) struct Pulse<'a> {
    pub(super) daemon: &'a Daemon,
    pub(super) stop: &'a Stop,
    pub(super) traffic: &'a AtomicU64,
    pub(super) outbox: mpsc::SyncSender<Report>,
}

impl Pulse<'_> {
    pub(super) fn run(self, inbox: &mpsc::Receiver<Command>) {
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
