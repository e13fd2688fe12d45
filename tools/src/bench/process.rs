//! Programs that are measured: started, looked at, ended, and never left behind.

use rustix::process::{Pid, Signal, kill_process};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for a program to begin or to end.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long a program that is dropped has to end by itself.
const PATIENCE_DROPPED: Duration = Duration::from_secs(5);

/// Bytes of what a program says last that are cited.
const SAID_BYTES_MAX: usize = 400;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The system refused something.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    /// What a program did or said.
    #[error("{0}")]
    Said(String),
    /// Somebody asked to end.
    #[error("interrupted")]
    Stopped,
}

impl Trouble {
    /// What was being done when the system refused it, for `map_err`.
    pub fn io(what: impl fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |why| Self::Io(what.to_string(), why)
    }

    /// Something that is not as it should be.
    pub fn said(what: impl Into<String>) -> Self {
        Self::Said(what.into())
    }
}

/// Whether there is such a program in `PATH`.
#[must_use]
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// What processes have used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor nanoseconds; of other processes in the kernel's ticks of 10 ms.
    pub cpu_ns: u64,
    /// Bytes that they gave to storage: written through the page cache when a page becomes dirty, or directly.
    pub written_bytes: u64,
}

impl Usage {
    /// What this process has used.
    #[must_use]
    pub fn own() -> Self {
        Self { cpu_ns: super::units::process_cpu_ns(), written_bytes: written_bytes("self") }
    }

    /// What a process and those that it started have used.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let mut pids = vec![pid];
        let all: Vec<(u32, Stat)> = processes().collect();
        let mut at = 0;
        while let Some(parent) = pids.get(at).copied() {
            pids.extend(all.iter().filter(|(_, it)| it.parent == parent).map(|(pid, _)| *pid));
            at += 1;
        }
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        let known = all.iter().filter(|(pid, _)| pids.contains(pid));
        known.fold(Self::default(), |sum, (pid, stat)| {
            let cpu_ns = stat.cpu_ticks * tick_ns;
            sum.and(Self { cpu_ns, written_bytes: written_bytes(&pid.to_string()) })
        })
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns + other.cpu_ns,
            written_bytes: self.written_bytes + other.written_bytes,
        }
    }

    /// What came since.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}

/// What `/proc/PID/stat` says, see proc(5).
struct Stat {
    parent: u32,
    /// Of it and of its children that have ended.
    cpu_ticks: u64,
}

impl Stat {
    fn read(text: &str) -> Option<Self> {
        // The name stands in parentheses, and may hold any.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let cpu_ticks = number(11)? + number(12)? + number(13)? + number(14)?;
        Some(Self { parent: fields.get(1)?.parse().ok()?, cpu_ticks })
    }
}

fn processes() -> impl Iterator<Item = (u32, Stat)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let text = fs::read_to_string(entry.path().join("stat")).ok()?;
        Some((pid, Stat::read(&text)?))
    })
}

/// 0 where the kernel does not count, or does not tell.
fn written_bytes(pid: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes:"));
    line.and_then(|it| it.trim().parse().ok()).unwrap_or(0)
}

/// A program that runs, in a process group of its own: an interrupt from the terminal is for whoever started it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    said: File,
}

impl Process {
    /// Starts it. What it says on standard error is kept for [`Process::failed`].
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Result<Self, Trouble> {
        let said = tempfile::tempfile().map_err(Trouble::io("a file for what is said"))?;
        let stderr = said.try_clone().map_err(Trouble::io("a file for what is said"))?;
        let child = command.process_group(0).stderr(Stdio::from(stderr)).spawn();
        let child = child.map_err(Trouble::io(format_args!("{name} does not start")))?;
        Ok(Self { name: name.to_owned(), child, said })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The process itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// What it and its children have used.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage::of(self.child.id())
    }

    /// What it has said on standard error so far. The program's own place in the file does not move.
    fn said(&self) -> Vec<u8> {
        let bytes = self.said.metadata().map_or(0, |it| it.len());
        let mut said = vec![0; usize::try_from(bytes).unwrap_or(0)];
        let read = self.said.read_exact_at(&mut said, 0);
        read.map(|()| said).unwrap_or_default()
    }

    /// Whether these words were among that.
    #[must_use]
    pub fn has_said(&self, words: &str) -> bool {
        memchr::memmem::find(&self.said(), words.as_bytes()).is_some()
    }

    /// An error that cites what it said last.
    #[must_use]
    pub fn failed(&self, what: &str) -> Trouble {
        let said = self.said();
        let said = &said[said.len().saturating_sub(SAID_BYTES_MAX)..];
        let last = said.trim_ascii().split(|byte| *byte == b'\n').next_back().unwrap_or_default();
        let (name, last) = (&self.name, String::from_utf8_lossy(last));
        let why = if last.is_empty() { String::new() } else { format!(": {last}") };
        Trouble::Said(format!("{name} {what}{why}"))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// There is no such process any more.
    pub fn signal(&self, signal: Signal) -> Result<(), Trouble> {
        kill_process(Pid::from_child(&self.child), signal)
            .map_err(|why| Trouble::Io(format!("{} cannot be signalled", self.name), why.into()))
    }

    /// Waits until `is_ready` says so.
    ///
    /// # Errors
    /// It ended instead, it takes too long, or what `is_ready` says.
    pub fn wait_until(
        &mut self,
        mut is_ready: impl FnMut(&Self) -> Result<bool, Trouble>,
    ) -> Result<(), Trouble> {
        let deadline = Instant::now() + PATIENCE;
        while !is_ready(self)? {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.failed(&format!("ended before it began ({status})")));
            }
            if Instant::now() >= deadline {
                return Err(self.failed("does not begin"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// It does not end in time, or not well.
    pub fn end(self) -> Result<(), Trouble> {
        self.signal(Signal::TERM)?;
        self.ended()
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It does not, or not well.
    pub fn ended(mut self) -> Result<(), Trouble> {
        match self.wait(PATIENCE) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.failed(&format!("failed ({status})"))),
            None => Err(self.failed("does not end")),
        }
    }

    /// Ends it at once, as a crash does.
    ///
    /// # Errors
    /// It had ended before.
    pub fn kill(mut self) -> Result<(), Trouble> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(self.failed(&format!("ended by itself ({status})")));
        }
        self.signal(Signal::KILL)?;
        self.child.wait().map_err(Trouble::io("a process cannot be waited for"))?;
        Ok(())
    }

    /// Waits until it has ended, however.
    ///
    /// # Errors
    /// It does not.
    pub fn gone(mut self) -> Result<(), Trouble> {
        self.wait(PATIENCE).map(drop).ok_or_else(|| self.failed("does not end"))
    }

    fn wait(&mut self, patience: Duration) -> Option<std::process::ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                _ => return None,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After a failure, or an interrupt; else it has ended.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.signal(Signal::TERM);
            if self.wait(PATIENCE_DROPPED).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_stat_is_read_whatever_the_name() {
        let text = "71 (a) b (c)) S 7 71 71 0 -1 4194304 1 2 3 4 100 20 3 4 20 0 1 0 5";
        let stat = Stat::read(text).expect("it is one");
        assert_eq!((stat.parent, stat.cpu_ticks), (7, 127));
        assert!(Stat::read("71 (a) S 7").is_none());
    }

    #[test]
    fn what_a_process_and_its_children_compute_and_write_is_seen() {
        let dir = tempfile::tempdir_in(".").expect("a directory");
        let script = "(i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; head -c 100000 /dev/zero >f; sync f; echo done; read x); true";
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(&dir);
        let mut it = Process::start("sh", command.stdin(Stdio::piped()).stdout(Stdio::piped()))
            .expect("it starts");
        let mut done = [0; 5];
        let out = it.child().stdout.as_mut().expect("a pipe");
        out.read_exact(&mut done).expect("it says so");
        let usage = it.usage();
        assert!(usage.cpu_ns >= 10_000_000, "{usage:?}");
        // What it gave to a child of its own that has ended is there too, where the kernel counts.
        assert!(usage.written_bytes == 0 || usage.written_bytes >= 100_000, "{usage:?}");
        it.end().expect_err("a signal ends it");
    }

    #[test]
    fn who_ends_before_it_begins_is_cited() {
        let mut it =
            Process::start("sh", Command::new("sh").args(["-c", "echo no room >&2; exit 3"]))
                .expect("it starts");
        let why = it.wait_until(|_| Ok(false)).expect_err("it ended").to_string();
        assert!(why.contains("ended before it began") && why.ends_with(": no room"), "{why}");
    }

    #[test]
    fn who_is_dropped_is_gone() {
        let it = Process::start("sleep", Command::new("sleep").arg("1000")).expect("it starts");
        let path = format!("/proc/{}", it.id());
        assert!(fs::exists(&path).expect("proc"));
        drop(it);
        assert!(!fs::exists(&path).expect("proc"));
    }
}
