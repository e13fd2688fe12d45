//! Who is compared, on which path, in which way.

use super::super::audit::{Flush, Format, Logging};
use super::library::Appender;
use super::load::Mode;
use super::netlink::Daemon;
use super::python::Engine;
use serde::Serialize;

/// The way that records take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// Producers hand records to an appender
    Library,
    /// The kernel hands its audit to a daemon
    Netlink,
    /// The kernel module hands system calls to a reader: in a guest, see docs/testing.md
    Shim,
}

impl Path {
    /// As people read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Netlink => "netlink",
            Self::Shim => "shim",
        }
    }
}

/// Whom to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Family {
    /// SQLite: library
    Sqlite,
    /// RocksDB: library
    Rocksdb,
    /// Redis: library
    Redis,
    /// rsyslog: library
    Rsyslog,
    /// systemd's journal: library
    Journald,
    /// auditd: netlink
    Auditd,
    /// LAUREL behind auditd: netlink
    Laurel,
}

/// How far what it has is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Durable when it is acknowledged.
    Acknowledged,
    /// Each record gets a barrier, and nobody is told when.
    Untold,
    /// A record may have been taken, and seen in the file, and be gone after a power cut.
    Weaker,
}

impl Durability {
    /// As people read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Untold => "not told",
            Self::Weaker => "WEAKER",
        }
    }
}

/// What a rival promises.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Promise {
    /// In a word.
    pub durability: Durability,
    /// Which barrier, and when.
    pub barrier: &'static str,
}

/// One row: somebody, in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// An appender, and what its producers wait for.
    Library(Appender, Mode),
    /// A daemon.
    Netlink(Daemon),
    /// Graven's own module: not measured here.
    Shim,
}

impl Rival {
    /// All of them that are asked for; Graven first, to whom the others are set in relation.
    #[must_use]
    pub fn all(families: &[Family], paths: &[Path], group: usize, auditd: &[Logging]) -> Vec<Self> {
        let mut appenders = vec![Appender::Graven];
        let mut daemons = vec![Daemon::Graven];
        for family in families {
            match family {
                Family::Sqlite => appenders.push(Appender::Database(Engine::Sqlite)),
                Family::Rocksdb => appenders.push(Appender::Database(Engine::Rocksdb)),
                Family::Redis => appenders.push(Appender::Redis),
                Family::Rsyslog => appenders.extend([Appender::RsyslogSync, Appender::Rsyslog]),
                Family::Journald => appenders.push(Appender::Journald),
                Family::Auditd => daemons.extend(auditd.iter().copied().map(Daemon::Auditd)),
                Family::Laurel => daemons.push(Daemon::Laurel),
            }
        }
        let mut all = Vec::new();
        if paths.contains(&Path::Library) {
            for mode in Appender::Graven.modes(group) {
                let can = appenders.iter().filter(|it| it.modes(group).contains(&mode));
                all.extend(can.map(|it| Self::Library(*it, mode)));
            }
        }
        if paths.contains(&Path::Netlink) {
            all.extend(daemons.into_iter().map(Self::Netlink));
        }
        if paths.contains(&Path::Shim) {
            all.push(Self::Shim);
        }
        all
    }

    /// Every way of auditd's.
    #[must_use]
    pub fn auditd_all() -> Vec<Logging> {
        let flushes = [Flush::None, Flush::IncrementalAsync, Flush::Data, Flush::Sync];
        let ways = |format| flushes.map(|flush| Logging { format, flush });
        [Format::Raw, Format::Enriched].into_iter().flat_map(ways).collect()
    }

    /// The way that records take to it.
    #[must_use]
    pub fn path(self) -> Path {
        match self {
            Self::Library(..) => Path::Library,
            Self::Netlink(_) => Path::Netlink,
            Self::Shim => Path::Shim,
        }
    }

    /// As people read it.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Library(appender, _) => appender.name().to_owned(),
            Self::Netlink(daemon) => daemon.name(),
            Self::Shim => "graven record".to_owned(),
        }
    }

    /// What producers wait for: in the kernel, room.
    #[must_use]
    pub fn mode(self) -> Mode {
        match self {
            Self::Library(_, mode) => mode,
            Self::Netlink(_) | Self::Shim => Mode::Stream,
        }
    }

    /// Whether it is Graven, in the same way as `other` or not at all.
    #[must_use]
    pub fn is_ours_beside(self, other: Self) -> bool {
        let ours =
            matches!(self, Self::Library(Appender::Graven, _) | Self::Netlink(Daemon::Graven));
        ours && self.path() == other.path() && self.mode() == other.mode()
    }

    /// What it promises.
    #[must_use]
    pub fn promise(self) -> Promise {
        match self {
            Self::Library(appender, _) => appender.promise(),
            Self::Netlink(daemon) => daemon.promise(),
            Self::Shim => Daemon::Graven.promise(),
        }
    }

    /// What of its figures is not its own.
    #[must_use]
    pub fn handicap(self) -> Option<&'static str> {
        match self {
            Self::Library(appender, _) => appender.handicap(),
            Self::Netlink(daemon) => daemon.handicap(),
            Self::Shim => None,
        }
    }

    /// What it says of itself, if it is installed.
    ///
    /// # Errors
    /// Why not.
    pub fn version(self) -> Result<String, String> {
        match self {
            Self::Library(appender, _) => appender.version(),
            Self::Netlink(daemon) => daemon.version(),
            Self::Shim => Ok(env!("CARGO_PKG_VERSION").to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_graven_beside_in_the_same_way() {
        use clap::ValueEnum as _;
        let paths = [Path::Library, Path::Netlink];
        let all = Rival::all(Family::value_variants(), &paths, 100, &Rival::auditd_all());
        // Three ways of Graven, three of two, one of three; graven record, eight of auditd, LAUREL.
        assert_eq!(all.len(), 3 + 3 * 2 + 3 + 1 + 8 + 1);
        for it in &all {
            assert_eq!(all.iter().filter(|ours| ours.is_ours_beside(*it)).count(), 1, "{it:?}");
        }
        let one = Rival::all(&[Family::Redis], &[Path::Library], 100, &[]);
        let names: Vec<_> = one.iter().map(|it| format!("{} {}", it.name(), it.mode())).collect();
        assert_eq!(
            names,
            ["graven each", "redis each", "graven group:100", "redis group:100", "graven stream"]
        );
    }
}
