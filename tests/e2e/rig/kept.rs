//! The two processes of `graven record --source netlink`, of which each starts the other again.

use super::HANG;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The keeper and the writer of a trail, which do not outlive the test.
pub(crate) struct Kept {
    trail: PathBuf,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Keeper,
    Writer,
}

impl Kept {
    pub(crate) fn of(trail: &Path) -> Self {
        Self { trail: trail.to_owned() }
    }

    /// Those of a configuration, which names the trail.
    pub(crate) fn by(config: &Path) -> Self {
        Self::of(config)
    }

    /// The processes that record to the trail, with their roles.
    pub(crate) fn processes(&self) -> Vec<(Role, u32)> {
        let trail = self.trail.to_str().expect("a name");
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("it is there").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // One that has just ended, or only waits to be waited for, has none.
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<_> =
                line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            if words.get(1).is_none_or(|word| word != "record")
                || words.iter().all(|it| it != trail)
            {
                continue;
            }
            if words.iter().any(|word| word.starts_with("guard:")) {
                continue;
            }
            let writer = words.iter().any(|word| word.starts_with("writer:"));
            found.push((if writer { Role::Writer } else { Role::Keeper }, pid));
        }
        found
    }

    /// The process of this role, once there is one.
    pub(crate) fn pid(&self, role: Role) -> u32 {
        self.successor(role, 0, String::new)
    }

    /// The process that has taken the place of this one, which was killed, once there is one; `said` is what they have said.
    pub(crate) fn successor(&self, role: Role, of: u32, said: impl FnOnce() -> String) -> u32 {
        let deadline = Instant::now() + HANG;
        loop {
            let found = self.processes();
            if let Some((_, pid)) = found.iter().find(|(it, pid)| *it == role && *pid != of) {
                return *pid;
            }
            if Instant::now() >= deadline {
                panic!("there is no {role:?} (before: {of}), only {found:?}\n{}", said());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal to the process of this role, and says which that was.
    pub(crate) fn signal(&self, role: Role, signal: Signal) -> u32 {
        let pid = self.pid(role);
        send(pid, signal);
        pid
    }

    /// Waits until both have ended.
    #[track_caller]
    pub(crate) fn wait_for_end(&self) {
        let deadline = Instant::now() + HANG;
        while !self.processes().is_empty() {
            assert!(Instant::now() < deadline, "{:?} do not end", self.processes());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills both, so that neither starts the other, and waits until nothing is left of them.
    pub(crate) fn kill_both(&self) {
        let pids: Vec<u32> = self.processes().into_iter().map(|(_, pid)| pid).collect();
        kill_all(&pids);
    }
}

/// Kills what earlier tests have left of keepers and writers, which start each other again for ever.
pub(crate) fn kill_what_is_left() {
    // A program that was built anew meanwhile is the same one, deleted.
    let ours = env!("CARGO_BIN_EXE_graven");
    let is_one = |pid: &u32| {
        let process = Path::new("/proc").join(pid.to_string());
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        std::fs::read_link(process.join("exe"))
            .is_ok_and(|exe| exe.to_string_lossy().trim_end_matches(" (deleted)") == ours)
            && line.split(|byte| *byte == 0).any(|word| word == b"--inherited")
    };
    loop {
        let entries = std::fs::read_dir("/proc").expect("it is there").flatten();
        let names = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let pids: Vec<u32> = names.filter(is_one).collect();
        if pids.is_empty() {
            return;
        }
        kill_all(&pids);
    }
}

/// Stops all before it kills the first, and waits for the end: their descriptors are closed when the last of their
/// threads has ended.
fn kill_all(pids: &[u32]) {
    let ends: Vec<_> = pids
        .iter()
        .filter_map(|pid| pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok())
        .collect();
    for signal in [Signal::STOP, Signal::KILL] {
        pids.iter().for_each(|pid| send(*pid, signal));
    }
    for end in ends {
        let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
        // One that hangs shows in what follows.
        let _ = poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&limit));
    }
}

fn send(pid: u32, signal: Signal) {
    // One that has just ended needs none.
    let _ = Pid::from_raw(pid.cast_signed()).map(|pid| kill_process(pid, signal));
}

impl Drop for Kept {
    fn drop(&mut self) {
        let deadline = Instant::now() + HANG;
        while !self.processes().is_empty() && Instant::now() < deadline {
            self.kill_both();
        }
    }
}
