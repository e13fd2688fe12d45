//! What is done about trouble with space, storage and sources, under auditd's names.
//!
//! A [`Condition`] begins and ends; each time the administrator's [`Action`] is due once. [`Machine`] says
//! when, from what it is told: free bytes, waits for room, loss statements, checkpoints, time. It does
//! nothing itself. [`gate::Gate`] is what makes producers wait, and [`reserve::Reserve`] what keeps room for
//! those that need not.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

pub mod gate;
mod machine;
pub mod reserve;
#[cfg(test)]
mod tests;

pub use machine::{Alarm, Change, Event, Limit, Machine, Order, Settings};

/// Something that an administrator should know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Condition {
    /// Fewer bytes are free than the first threshold.
    SpaceLeft,
    /// Fewer bytes are free than the second one: what is left is for the administrator's own work.
    AdminSpaceLeft,
    /// There is no room for the next segment.
    DiskFull,
    /// A write or a barrier failed, and the writer has ended.
    DiskError,
    /// The memory in which records wait for the disk is filled past its high-water mark.
    RingFull,
    /// Records were lost before they reached the trail: a loss statement was made.
    UpstreamLoss,
    /// Durable records are under no checkpoint for too long.
    CheckpointOverdue,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::SpaceLeft,
        Self::AdminSpaceLeft,
        Self::DiskFull,
        Self::DiskError,
        Self::RingFull,
        Self::UpstreamLoss,
        Self::CheckpointOverdue,
    ];

    /// Its name, as auditd.conf has it where it has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SpaceLeft => "space_left",
            Self::AdminSpaceLeft => "admin_space_left",
            Self::DiskFull => "disk_full",
            Self::DiskError => "disk_error",
            Self::RingFull => "ring_full",
            Self::UpstreamLoss => "upstream_loss",
            Self::CheckpointOverdue => "checkpoint_overdue",
        }
    }

    /// The same as the `op` of a record.
    #[must_use]
    pub const fn op(self) -> &'static str {
        match self {
            Self::SpaceLeft => "space-left",
            Self::AdminSpaceLeft => "admin-space-left",
            Self::DiskFull => "disk-full",
            Self::DiskError => "disk-error",
            Self::RingFull => "ring-full",
            Self::UpstreamLoss => "upstream-loss",
            Self::CheckpointOverdue => "checkpoint-overdue",
        }
    }

    /// What an alarm is titled with.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::SpaceLeft => "the trail's filesystem is running out of space",
            Self::AdminSpaceLeft => {
                "the trail's filesystem has only the space left that is meant for the administrator"
            }
            Self::DiskFull => "the trail's filesystem has no room for another segment",
            Self::DiskError => "the trail's storage failed",
            Self::RingFull => "the memory in which records wait for the disk is nearly full",
            Self::UpstreamLoss => "records were lost before they reached the trail",
            Self::CheckpointOverdue => "durable records are under no checkpoint for too long",
        }
    }

    /// Why this action makes no sense for it; `None` if it does.
    #[must_use]
    pub fn refuses(self, action: &Action) -> Option<&'static str> {
        match (action, self) {
            (Action::Block, Self::DiskError) => {
                Some("a writer whose storage failed has ended, and producers wait already")
            }
            (Action::Block, Self::UpstreamLoss | Self::CheckpointOverdue) => {
                Some("making producers wait does not end it")
            }
            (Action::Drop, Self::DiskFull) => None,
            (Action::Drop, Self::RingFull) => {
                Some("what finds no room there is for netlink.ring_full to say")
            }
            (Action::Drop, _) => Some("only disk_full may drop records"),
            _ => None,
        }
    }
}

/// What is done once when a condition begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Nothing but a record in the trail.
    Ignore,
    /// A line for syslog and for standard error.
    Log,
    /// The same, and a mail.
    Email,
    /// The same, and this program is run, without a shell and for a bounded time.
    Exec(PathBuf),
    /// The same, and producers wait until the condition has ended. auditd's `suspend`, without its loss.
    Block,
    /// The same, and the machine goes to single user mode.
    Single,
    /// The same, and the machine is halted.
    Halt,
    /// The same, and the kernel panics.
    Panic,
    /// The same, and records are dropped and counted until the condition has ended; then a loss statement
    /// says how many.
    Drop,
}

impl Action {
    /// The word for it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::Log => "log",
            Self::Email => "email",
            Self::Exec(_) => "exec",
            Self::Block => "block",
            Self::Single => "single",
            Self::Halt => "halt",
            Self::Panic => "panic",
            Self::Drop => "drop",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if let Self::Exec(path) = self { write!(f, " {}", path.display()) } else { Ok(()) }
    }
}

/// The text is no action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// There is none of this name.
    #[error(
        "expected ignore, log, email, exec PATH, block, single, halt, panic or drop (auditd's syslog is \
         log, its suspend is block)"
    )]
    Unknown,
    /// A program is named by a path from the root.
    #[error("exec needs the program's path, from / on")]
    Path,
}

impl FromStr for Action {
    type Err = ActionError;

    fn from_str(text: &str) -> Result<Self, ActionError> {
        let text = text.trim();
        let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        let path = rest.trim();
        let action = match word.to_ascii_lowercase().as_str() {
            "exec" if path.starts_with('/') => return Ok(Self::Exec(path.into())),
            "exec" => return Err(ActionError::Path),
            "ignore" => Self::Ignore,
            "log" | "syslog" => Self::Log,
            "email" => Self::Email,
            "block" | "suspend" => Self::Block,
            "single" => Self::Single,
            "halt" => Self::Halt,
            "panic" => Self::Panic,
            "drop" => Self::Drop,
            _ => return Err(ActionError::Unknown),
        };
        if path.is_empty() { Ok(action) } else { Err(ActionError::Unknown) }
    }
}

/// So much of a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Threshold {
    /// So many MiB.
    Mib(u64),
    /// So many hundredths of the filesystem.
    Percent(u8),
}

impl Threshold {
    /// In bytes, on a filesystem of `total` bytes.
    #[must_use]
    pub fn bytes(self, total: u64) -> u64 {
        match self {
            Self::Mib(mib) => mib.saturating_mul(1 << 20),
            // Never more than `total`.
            Self::Percent(percent) => (u128::from(total) * u128::from(percent) / 100) as u64,
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mib(mib) => write!(f, "{mib}M"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// The text is no threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected MiB as in 75 or 75M, or percent as in 25%, from 1% to 99%")]
pub struct ThresholdError;

impl FromStr for Threshold {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        let (digits, percent) = match text.strip_suffix('%') {
            Some(digits) => (digits, true),
            None => (text.strip_suffix(['M', 'm']).unwrap_or(text), false),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ThresholdError);
        }
        if percent {
            let percent = digits.parse().map_err(|_| ThresholdError)?;
            return if (1..=99).contains(&percent) {
                Ok(Self::Percent(percent))
            } else {
                Err(ThresholdError)
            };
        }
        // What is more than 16 EiB in bytes is no number of MiB.
        let mib = digits.parse::<u64>().map_err(|_| ThresholdError)?;
        if mib.checked_mul(1 << 20).is_some() { Ok(Self::Mib(mib)) } else { Err(ThresholdError) }
    }
}
