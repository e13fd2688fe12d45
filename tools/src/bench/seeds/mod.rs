//! `graven bench seeds`: what Rik Faith measured in March 2004, here and now.
//!
//! ```text
//! experiment: rounds ─▶ kernel: settings, rules ─▶ consumer: who takes the records ─▶ report ─▶ table, JSON
//!    │                                                                                  ▲
//!    └─▶ workload, a process of a test uid: calls, build ───────── figures ─────────────┘
//! ```
//!
//! All conditions take turns in every round, so that their ratios hold while the machine's speed drifts. Rules are for the
//! test uid alone, and what was found of kernel audit's settings is put back after each run.

pub mod build;
pub mod calls;
pub mod consumer;
pub mod experiment;
pub mod faith;
pub mod kernel;
pub mod report;
pub mod table;
pub mod workload;

use super::process::Trouble;
use std::fmt;
use std::str::FromStr;

/// Under which the workload runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Tasks have no audit context.
    Off,
    /// Every task has one; there is no rule.
    On,
    /// Ten rules that are looked at for each call, and fit none.
    Rules,
    /// Every call recorded, received and thrown away.
    Discard,
    /// Every call recorded, by auditd to a file.
    Auditd(Flush),
    /// Every call recorded, by `graven record` behind barriers.
    Graven,
    /// Ten rules of the kernel module that fit no call.
    ShimRules,
    /// Every call recorded by the kernel module, and by `graven record` behind barriers.
    Shim,
}

/// How auditd writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Asks for a write every 50 records and does not wait for it: fast, and not durable.
    Async,
    /// Each record's data is on the disk before the next is taken.
    Data,
    /// The same with the file's metadata.
    Sync,
}

impl Condition {
    /// All, in the order of the tables.
    pub const ALL: [Self; 10] = [
        Self::Off,
        Self::On,
        Self::Rules,
        Self::Discard,
        Self::Auditd(Flush::Async),
        Self::Auditd(Flush::Data),
        Self::Auditd(Flush::Sync),
        Self::Graven,
        Self::ShimRules,
        Self::Shim,
    ];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Rules => "rules",
            Self::Discard => "discard",
            Self::Auditd(Flush::Async) => "auditd",
            Self::Auditd(Flush::Data) => "auditd-data",
            Self::Auditd(Flush::Sync) => "auditd-sync",
            Self::Graven => "graven",
            Self::ShimRules => "shim-rules",
            Self::Shim => "shim",
        }
    }

    /// What it is, in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Off => "kernel audit off, no audit context",
            Self::On => "kernel audit on, without rules",
            Self::Rules => "kernel audit, 10 rules, no records",
            Self::Discard => "every call, received and thrown away",
            Self::Auditd(Flush::Async) => "every call, auditd RAW to a file, not synced",
            Self::Auditd(Flush::Data) => "every call durable, auditd RAW flush=DATA",
            Self::Auditd(Flush::Sync) => "every call durable, auditd RAW flush=SYNC",
            Self::Graven => "every call durable, netlink and graven record",
            Self::ShimRules => "kernel module, 10 rules, no records",
            Self::Shim => "every call durable, kernel module and graven record",
        }
    }

    /// Whether every call is recorded.
    #[must_use]
    pub const fn records(self) -> bool {
        !matches!(self, Self::Off | Self::On | Self::Rules | Self::ShimRules)
    }

    /// Whether it is the kernel module's.
    #[must_use]
    pub const fn is_shim(self) -> bool {
        matches!(self, Self::ShimRules | Self::Shim)
    }
}

impl FromStr for Condition {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|it| it.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is none of {names}")
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a condition cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// What the system says.
    #[error("{0}: {1}")]
    Io(&'static str, std::io::Error),
    /// What kernel audit says.
    #[error(transparent)]
    Attach(#[from] graven_writer::source::kaudit::AttachError),
    /// The same, later.
    #[error(transparent)]
    Control(#[from] graven_writer::source::kaudit::ControlError),
    /// What a process of ours said before it ended, or that it did not come to an end.
    #[error("{0}")]
    Said(String),
    /// Somebody wants this to end.
    #[error("interrupted")]
    Stopped,
}

impl From<Trouble> for LabError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Stopped => Self::Stopped,
            other => Self::Said(other.to_string()),
        }
    }
}

/// For `map_err`: what was tried.
pub(crate) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> LabError {
    move |why| LabError::Io(what, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_as_they_are_shown() {
        for condition in Condition::ALL {
            assert_eq!(condition.to_string().parse(), Ok(condition));
        }
        let why = "auditd-none".parse::<Condition>().expect_err("no such thing");
        assert!(why.contains("auditd-data"), "{why}");
    }
}
