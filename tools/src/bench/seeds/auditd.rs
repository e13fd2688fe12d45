//! Debian's auditd with a configuration of its own.

use graven_writer::source::kaudit;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait until it is the daemon.
const PATIENCE: Duration = Duration::from_secs(10);

/// As fast as it writes with a promise to write at all.
pub const RAW_ASYNC: &str = "log_format = RAW\nflush = INCREMENTAL_ASYNC\nfreq = 50\n";
/// Each record's data before the next record.
pub const RAW_DATA: &str = "log_format = RAW\nflush = DATA\n";
/// The same with metadata.
pub const RAW_SYNC: &str = "log_format = RAW\nflush = SYNC\n";
/// Debian 12's auditd.conf, as far as it concerns writing.
pub const SHIPPED: &str = "log_format = ENRICHED\nflush = INCREMENTAL_ASYNC\nfreq = 50\n";

/// Whether it is installed.
#[must_use]
pub fn is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join("auditd").is_file())
}

/// The daemon. It is ended when this is dropped.
#[derive(Debug)]
pub struct Auditd {
    /// Its process.
    pub child: Child,
    /// Where it writes.
    pub log: PathBuf,
}

impl Auditd {
    /// Starts it with its files in `dir`, and waits until it is the kernel's audit daemon, with audit on.
    ///
    /// # Errors
    /// It is not installed, does not start, or does not come so far.
    pub fn start(dir: &Path, format: &str) -> io::Result<Self> {
        let log = dir.join("audit.log");
        let plugins = dir.join("plugins");
        fs::create_dir_all(&plugins)?;
        let config = format!(
            "local_events = yes\nwrite_logs = yes\nlog_file = {}\nlog_group = root\n{format}\
             max_log_file = 4000\nmax_log_file_action = IGNORE\nnum_logs = 5\npriority_boost = 4\n\
             name_format = NONE\nspace_left = 75\nspace_left_action = IGNORE\n\
             admin_space_left = 50\nadmin_space_left_action = IGNORE\ndisk_full_action = SUSPEND\n\
             disk_error_action = SUSPEND\nplugin_dir = {}\n",
            log.display(),
            plugins.display(),
        );
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o640);
        options.open(dir.join("auditd.conf"))?.write_all(config.as_bytes())?;
        let child = Command::new("auditd")
            .args(["-n", "-s", "enable", "-c"])
            .arg(dir)
            // What interrupts us does not end it: we do.
            .process_group(0)
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let mut this = Self { child, log };
        let deadline = Instant::now() + PATIENCE;
        while kaudit::status().map_err(io::Error::other)?.pid != this.child.id() {
            if let Some(status) = this.child.try_wait()? {
                return Err(io::Error::other(format!("it ended at once ({status})")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("it did not register"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(this)
    }

    /// Ends it as a system does, and waits for that.
    ///
    /// # Errors
    /// What the system says.
    pub fn end(&mut self) -> io::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        self.child.wait().map(drop)
    }
}

impl Drop for Auditd {
    fn drop(&mut self) {
        // After a failure; else it has ended. Signals that are not its own it ignores.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.end();
        }
    }
}
