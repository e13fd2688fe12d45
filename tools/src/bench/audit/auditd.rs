//! The distribution's auditd with a configuration of its own.

use super::super::process::{Process, Trouble, Usage};
use super::Seen;
use super::storm::Consumer;
use graven_writer::source::kaudit;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

/// `log_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As the kernel gave them.
    Raw,
    /// With names beside numbers, as Debian ships it.
    Enriched,
}

/// `flush`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Left to the kernel.
    None,
    /// Every 50 records a thread is asked for a barrier; nobody waits for it. As Debian ships it.
    IncrementalAsync,
    /// The log is opened with O_DSYNC.
    Data,
    /// The log is opened with O_SYNC.
    Sync,
}

/// How auditd writes its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logging {
    /// Of a line.
    pub format: Format,
    /// When it is durable.
    pub flush: Flush,
}

impl Logging {
    /// Faster than what Debian ships, and the usual peer.
    pub const RAW_ASYNC: Self = Self { format: Format::Raw, flush: Flush::IncrementalAsync };
    /// As Debian ships it.
    pub const SHIPPED: Self = Self { format: Format::Enriched, flush: Flush::IncrementalAsync };
    /// Each record behind a barrier.
    pub const RAW_DATA: Self = Self { format: Format::Raw, flush: Flush::Data };
}

impl FromStr for Logging {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no FORMAT:FLUSH: raw or enriched, none, incremental_async, data or sync"
            )
        };
        let (format, flush) = text.split_once(':').ok_or_else(wrong)?;
        let format = match format {
            "raw" => Format::Raw,
            "enriched" => Format::Enriched,
            _ => return Err(wrong()),
        };
        let flush = match flush {
            "none" => Flush::None,
            "incremental_async" => Flush::IncrementalAsync,
            "data" => Flush::Data,
            "sync" => Flush::Sync,
            _ => return Err(wrong()),
        };
        Ok(Self { format, flush })
    }
}

impl fmt::Display for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.format {
            Format::Raw => "raw:",
            Format::Enriched => "enriched:",
        })?;
        f.write_str(match self.flush {
            Flush::None => "none",
            Flush::IncrementalAsync => "incremental_async",
            Flush::Data => "data",
            Flush::Sync => "sync",
        })
    }
}

/// Who keeps what auditd receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// auditd, in its log.
    Log(Logging),
    /// LAUREL behind it; auditd writes nothing.
    Laurel,
}

/// auditd, registered with the kernel.
#[derive(Debug)]
pub struct Auditd {
    /// The daemon.
    pub process: Process,
    log: PathBuf,
    keeps: Keeps,
}

impl Auditd {
    /// Starts it with a configuration and a log in `dir`. A log that is there goes on.
    ///
    /// # Errors
    /// It is not installed, or does not register with the kernel.
    pub fn start(dir: &Path, keeps: Keeps) -> Result<Self, Trouble> {
        let log = dir.join("audit.log");
        configure(dir, &log, keeps).map_err(Trouble::io("auditd's configuration"))?;
        let mut command = Command::new("auditd");
        command.args(["-n", "-s", "enable", "-c"]).arg(dir);
        let mut process =
            Process::start("auditd", command.stdin(Stdio::null()).stdout(Stdio::null()))?;
        let pid = process.id();
        process.wait_until(|_| match kaudit::status() {
            Ok(status) => Ok(status.pid == pid),
            Err(why) => Err(Trouble::Said(why.to_string())),
        })?;
        Ok(Self { process, log, keeps })
    }

    /// Takes the serials of the events in the log.
    ///
    /// # Errors
    /// It cannot be read, or an event is there twice.
    pub fn read(log: &Path, keeps: Keeps, seen: &mut Seen) -> Result<(), Trouble> {
        let file = File::open(log).map_err(Trouble::io("a log cannot be opened"))?;
        let lines = BufReader::new(file);
        match keeps {
            Keeps::Log(_) => seen.read_log(lines),
            Keeps::Laurel => seen.read_laurel(lines),
        }
    }
}

impl Consumer for Auditd {
    fn progress(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |metadata| metadata.len())
    }

    fn usage(&self) -> Usage {
        self.process.usage()
    }

    fn events(self: Box<Self>) -> Result<u64, Trouble> {
        self.process.end()?;
        let mut seen = Seen::default();
        Self::read(&self.log, self.keeps, &mut seen)?;
        Ok(seen.count())
    }
}

fn configure(dir: &Path, log: &Path, keeps: Keeps) -> io::Result<()> {
    let plugins = dir.join("plugins");
    fs::create_dir_all(&plugins)?;
    let log_lines = match keeps {
        Keeps::Log(Logging { format, flush }) => {
            let format = if format == Format::Raw { "RAW" } else { "ENRICHED" };
            let flush = match flush {
                Flush::None => "NONE",
                Flush::IncrementalAsync => "INCREMENTAL_ASYNC\nfreq = 50",
                Flush::Data => "DATA",
                Flush::Sync => "SYNC",
            };
            format!("write_logs = yes\nlog_format = {format}\nflush = {flush}\n")
        }
        Keeps::Laurel => {
            let (place, laurel) = (dir.display(), dir.join("laurel.toml"));
            let config = format!(
                "directory = \"{place}\"\nstatusreport-period = 0\n\n\
                 [auditlog]\nfile = \"audit.log\"\nsize = 4000000000\ngenerations = 1\n"
            );
            write(&laurel, &config)?;
            let plugin = format!(
                "active = yes\ndirection = out\ntype = always\nformat = string\npath = {LAUREL}\n\
                 args = --config {}\n",
                laurel.display()
            );
            write(&plugins.join("laurel.conf"), &plugin)?;
            "write_logs = no\nlog_format = RAW\n".to_owned()
        }
    };
    let config = format!(
        "local_events = yes\nlog_file = {}\nlog_group = root\n{log_lines}\
         max_log_file = 4000\nmax_log_file_action = IGNORE\nnum_logs = 5\npriority_boost = 4\n\
         name_format = NONE\nspace_left = 75\nspace_left_action = IGNORE\n\
         admin_space_left = 50\nadmin_space_left_action = IGNORE\ndisk_full_action = SUSPEND\n\
         disk_error_action = SUSPEND\nplugin_dir = {}\n",
        log.display(),
        plugins.display(),
    );
    write(&dir.join("auditd.conf"), &config)
}

/// Where auditd may start it from.
pub const LAUREL: &str = "/usr/sbin/laurel";

/// auditd reads no configuration that others may write to.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o640).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_to_log_is_read_as_it_is_shown() {
        for text in ["raw:none", "raw:incremental_async", "enriched:data", "enriched:sync"] {
            assert_eq!(text.parse::<Logging>().expect(text).to_string(), text);
        }
        for text in ["", "raw", "raw:", "plain:data", "raw:incremental"] {
            assert!(text.parse::<Logging>().is_err(), "{text}");
        }
    }
}
