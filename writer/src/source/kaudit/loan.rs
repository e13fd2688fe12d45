//! The kernel's audit in the hands of somebody who changes it for a while, whoever is its daemon meanwhile.

use super::limits::LOCKED;
use super::{AttachError, ControlError, comm, refused};
use crate::source::control::Control;
use crate::source::nlmsg::{self, Rule, Status, StatusChange};
use rustix::io::Errno;

/// Settings and rules that are put back as they were found, when it is asked for and when this ends.
#[derive(Debug)]
pub struct Loan {
    control: Control,
    before: Status,
    rules: Vec<Rule>,
}

impl Loan {
    /// Takes it, as it is.
    ///
    /// # Errors
    /// Audit is not offered here or not permitted, a daemon is registered and lives, or the configuration is locked.
    pub fn take() -> Result<Self, AttachError> {
        let mut control = Control::open().map_err(refused)?;
        let before = control.status().map_err(refused)?;
        if before.pid != 0
            && let Some(comm) = comm(before.pid)
        {
            return Err(AttachError::Held { pid: before.pid, comm });
        }
        if before.enabled == LOCKED {
            let needs = "it would have to be turned off and on".to_owned();
            return Err(AttachError::Locked { needs });
        }
        Ok(Self { control, before, rules: Vec::new() })
    }

    /// How it was found.
    #[must_use]
    pub const fn before(&self) -> &Status {
        &self.before
    }

    /// How it is.
    ///
    /// # Errors
    /// The request failed or was not answered in time.
    pub fn status(&mut self) -> Result<Status, ControlError> {
        self.control.status()
    }

    /// How many rules are in force, whoever added them.
    ///
    /// # Errors
    /// As [`Loan::status`].
    pub fn rules_in_force(&mut self) -> Result<usize, ControlError> {
        self.control.list("list rules", nlmsg::LIST_RULES).map(|rules| rules.len())
    }

    /// Changes settings.
    ///
    /// # Errors
    /// The kernel refused it.
    pub fn set(&mut self, change: &StatusChange) -> Result<(), ControlError> {
        self.control.set("change settings", change)
    }

    /// Adds a rule. One that someone else added already stays theirs.
    ///
    /// # Errors
    /// The kernel refused it.
    pub fn add_rule(&mut self, rule: Rule) -> Result<(), ControlError> {
        const OPERATION: &str = "add rule";
        let payload = rule.encode().ok_or(ControlError::new(OPERATION, Errno::INVAL))?;
        match self.control.call(OPERATION, nlmsg::ADD_RULE, &payload, false) {
            // Without an answer it may be there all the same.
            Ok(_) | Err(ControlError { errno: Errno::TIMEDOUT, .. }) => self.rules.push(rule),
            Err(error) if error.errno == Errno::EXIST => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether the rules that were added are still there, told by their keys.
    ///
    /// # Errors
    /// As [`Loan::status`].
    pub fn has_its_rules(&mut self) -> Result<bool, ControlError> {
        let listed = self.control.list("list rules", nlmsg::LIST_RULES)?;
        let count = |key: &str| {
            let of_listed = listed.iter().filter(|rule| rule.ends_with(key.as_bytes())).count();
            (of_listed, self.rules.iter().filter(|rule| rule.key == key).count())
        };
        Ok(self.rules.iter().map(|rule| count(&rule.key)).all(|(there, ours)| there >= ours))
    }

    /// Removes the rules that were added.
    ///
    /// # Errors
    /// The kernel refused; what it refused is tried again by the next call.
    pub fn remove_rules(&mut self) -> Result<(), ControlError> {
        while let Some(rule) = self.rules.last() {
            let payload = rule.encode().unwrap_or_default();
            match self.control.call("delete rule", nlmsg::DEL_RULE, &payload, false) {
                Err(error) if error.errno != Errno::NOENT => return Err(error),
                _ => drop(self.rules.pop()),
            }
        }
        Ok(())
    }

    /// Puts everything back as it was found. The loan goes on.
    ///
    /// # Errors
    /// The first request that failed; the others were made all the same.
    pub fn put_back(&mut self) -> Result<(), ControlError> {
        let rules = self.remove_rules();
        let (before, now) = (self.before, self.status()?);
        let other = |before: u32, now: u32| (before != now).then_some(before);
        let back = StatusChange {
            enabled: other(before.enabled, now.enabled),
            failure: other(before.failure, now.failure),
            pid: None,
            rate_limit: other(before.rate_limit, now.rate_limit),
            backlog_limit: other(before.backlog_limit, now.backlog_limit),
            backlog_wait_ticks: before
                .backlog_wait_ticks
                .filter(|ticks| now.backlog_wait_ticks != Some(*ticks)),
        };
        if back != StatusChange::default() {
            self.control.set("put settings back", &back)?;
        }
        rules
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // Whoever wants to know calls `put_back`.
        let _ = self.put_back();
    }
}
