//! The library path: producers of this program hand records to an appender that is to make them durable.

use super::super::process::{Trouble, Usage};
use super::load::{Load, Mode, Pushed};
use super::python::Engine;
use super::records::Tally;
use super::rival::{Durability, Promise};
use super::{graven, python, redis, syslog};
use std::path::Path;

/// A run, before what it left is read back.
#[derive(Debug)]
pub struct Ran {
    /// What producers have done.
    pub pushed: Pushed,
    /// What producers and rival have used.
    pub usage: Usage,
}

/// Who appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appender {
    /// Graven's library.
    Graven,
    /// SQLite or RocksDB.
    Database(Engine),
    /// Redis.
    Redis,
    /// rsyslog with a barrier behind each batch.
    RsyslogSync,
    /// rsyslog without, as it comes.
    Rsyslog,
    /// systemd's journal.
    Journald,
}

impl Appender {
    /// As people read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Graven => "graven",
            Self::Database(Engine::Sqlite) => "sqlite",
            Self::Database(Engine::Rocksdb) => "rocksdb",
            Self::Redis => "redis",
            Self::RsyslogSync => "rsyslog sync=on",
            Self::Rsyslog => "rsyslog",
            Self::Journald => "journald",
        }
    }

    /// What its producers can wait for, with groups of so many.
    #[must_use]
    pub fn modes(self, group: usize) -> Vec<Mode> {
        match self {
            Self::Graven => vec![Mode::Each, Mode::Group(group), Mode::Stream],
            Self::Database(_) | Self::Redis => vec![Mode::Each, Mode::Group(group)],
            Self::RsyslogSync | Self::Rsyslog | Self::Journald => vec![Mode::Stream],
        }
    }

    /// What it promises.
    #[must_use]
    pub fn promise(self) -> Promise {
        let (durability, barrier) = match self {
            Self::Graven => (
                Durability::Acknowledged,
                "RWF_DSYNC or fdatasync of each frame; producers that wait together share it",
            ),
            Self::Database(Engine::Sqlite) => (
                Durability::Acknowledged,
                "fdatasync of the write-ahead log at each commit (synchronous=FULL); one commit at a time",
            ),
            Self::Database(Engine::Rocksdb) => (
                Durability::Acknowledged,
                "fdatasync of the write-ahead log (sync=true); writers that wait together share it",
            ),
            Self::Redis => (
                Durability::Acknowledged,
                "fdatasync of the append-only file before replies (appendfsync always); clients share it",
            ),
            Self::RsyslogSync => (
                Durability::Untold,
                "fdatasync behind each batch of its queue (omfile sync=on); what waits in the queue is memory",
            ),
            Self::Rsyslog => (Durability::Weaker, "none: left to the kernel (omfile as it comes)"),
            Self::Journald => (
                Durability::Weaker,
                "every 5 minutes, and at the end of a run, where nobody waits for it",
            ),
        };
        Promise { durability, barrier }
    }

    /// What of its figures is not its own.
    #[must_use]
    pub fn handicap(self) -> Option<&'static str> {
        match self {
            Self::Database(_) => Some("driven from Python, whose interpreter is in its figures"),
            Self::Redis => {
                Some("another process behind a Unix socket, with the records in memory too")
            }
            Self::RsyslogSync | Self::Rsyslog | Self::Journald => {
                Some("another process behind a datagram socket, a datagram a record")
            }
            Self::Graven => {
                Some("in this process; it would compress on a slow disk, and does not here")
            }
        }
    }

    /// What it says of itself, if it is installed.
    ///
    /// # Errors
    /// Why not.
    pub fn version(self) -> Result<String, String> {
        match self {
            Self::Graven => Ok(env!("CARGO_PKG_VERSION").to_owned()),
            Self::Database(engine) => engine.version(),
            Self::Redis => redis::version(),
            Self::RsyslogSync | Self::Rsyslog => syslog::rsyslog_version(),
            Self::Journald => syslog::journald_version(),
        }
    }

    /// Runs it in an empty directory.
    ///
    /// # Errors
    /// [`Trouble`]
    pub fn run(self, dir: &Path, load: &Load<'_>) -> Result<Ran, Trouble> {
        match self {
            Self::Graven => graven::run(dir, load),
            Self::Database(engine) => python::run(engine, dir, load),
            Self::Redis => redis::run(dir, load),
            Self::RsyslogSync => syslog::run_rsyslog(dir, true, load),
            Self::Rsyslog => syslog::run_rsyslog(dir, false, load),
            Self::Journald => syslog::run_journald(dir, load),
        }
    }

    /// Reads back what it has.
    ///
    /// # Errors
    /// It cannot be read, or is not what was sent.
    pub fn read(self, dir: &Path, tally: &mut Tally<'_>) -> Result<(), Trouble> {
        match self {
            Self::Graven => graven::read(dir, tally),
            Self::Database(engine) => python::read(engine, dir, tally),
            Self::Redis => redis::read(dir, tally),
            Self::RsyslogSync | Self::Rsyslog => syslog::read_rsyslog(dir, tally),
            Self::Journald => syslog::read_journald(dir, tally),
        }
    }
}
