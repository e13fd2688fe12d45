//! What the service manager is told, if there is one: that recording has begun, goes on, is configured anew, ends.

use graven_writer::Asker;
use sd_notify::NotifyState;
use std::io;
use std::thread;
use std::time::Duration;

/// Without a service manager, or if it does not listen, nothing is said: recording does not depend on it.
fn say(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

/// Recording has begun.
pub fn ready(status: &str) {
    say(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// This process took the place of the one that the service manager looks at.
pub fn main_process() {
    say(&[NotifyState::MainPid(std::process::id())]);
}

/// The configuration is read again; [`ready`] ends it.
pub fn reloading() {
    // Newer managers insist on the time, older ones do not know it.
    if let Ok(time) = NotifyState::monotonic_usec_now() {
        say(&[NotifyState::Reloading, time]);
    }
}

/// Recording ends.
pub fn stopping(status: &str) {
    say(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Starts the thread that feeds the service manager's watchdog while records become durable, if there is such a
/// watchdog. It is not joined: it has no end of its own.
///
/// # Errors
/// There is no thread.
pub fn watch(asker: Asker) -> io::Result<()> {
    // Whichever of our processes is asked: the manager hears all of them.
    let interval = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
    let Some(interval) = interval.map(Duration::from_micros).filter(|it| !it.is_zero()) else {
        return Ok(());
    };
    let feed = move || {
        let mut progress = Progress::default();
        loop {
            if progress.goes_on(asker.progress(), asker.waits_for_room()) {
                say(&[NotifyState::Watchdog]);
            }
            thread::sleep(interval / 3);
        }
    };
    thread::Builder::new().name("graven-watchdog".to_owned()).spawn(feed).map(drop)
}

/// Whether records become durable.
#[derive(Debug, Default)]
struct Progress {
    durable_last: Option<u64>,
}

impl Progress {
    /// Whether the writer has brought something to the disk since the last look, or has nothing to bring there, or
    /// waits for room, which somebody has to make and nobody is helped with by a kill.
    fn goes_on(&mut self, (accepted, durable): (u64, u64), waits_for_room: bool) -> bool {
        let moved = self.durable_last.replace(durable) != Some(durable);
        moved || accepted <= durable || waits_for_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_while_records_become_durable() {
        let mut progress = Progress::default();
        assert!(progress.goes_on((0, 0), false), "nothing to do");
        assert!(progress.goes_on((9, 4), false), "something was done");
        assert!(!progress.goes_on((9, 4), false), "nothing was done, and there is something to do");
        assert!(!progress.goes_on((12, 4), false));
        assert!(progress.goes_on((12, 4), true), "the disk is full");
        assert!(progress.goes_on((12, 5), false));
        assert!(progress.goes_on((12, 12), false) && progress.goes_on((12, 12), false));
    }
}
