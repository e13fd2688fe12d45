//! The kernel's audit as the conditions need it, and as it was before in between.

use super::{Condition, Flush, LabError, io};
use crate::bench::audit::kernel_turn;
use graven_writer::source::calls::ARCH_X86_64;
use graven_writer::source::kaudit::{Loan, ticks};
use graven_writer::source::nlmsg::{
    MASK_WORDS, Rule, RuleAction, RuleField, RuleList, StatusChange,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The key of the rules.
const KEY: &str = "graven-seeds";
/// The same as records have it.
pub const KEY_FIELD: &str = " key=\"graven-seeds\"";

/// Rules of the condition without records.
pub const RULES: u32 = 10;

/// Records that the kernel queues before producers wait, and for how long they do: as `graven record` has it, for everybody.
const BACKLOG_LIMIT: u32 = 8192;
/// The same for auditd where it waits for the disk: the kernel wakes producers when its queue is empty, and that takes a daemon
/// of some hundred records a second a quarter of a minute with the longer one. What it lets through does not depend on it.
const BACKLOG_LIMIT_SLOW: u32 = 512;
const BACKLOG_WAIT: Duration = Duration::from_secs(60);

/// Kernel audit, ours alone.
#[derive(Debug)]
pub struct Kernel {
    loan: Loan,
    uid: u32,
    _turn: kernel_turn::Turn,
}

impl Kernel {
    /// Waits for the turn and takes it.
    ///
    /// # Errors
    /// It cannot be had here, or now; or somebody wants this to end.
    pub fn take(uid: u32, stop: &AtomicBool) -> Result<Self, LabError> {
        if !cfg!(target_arch = "x86_64") {
            let text = "rules for system calls are supported on x86-64 only";
            return Err(LabError::Said(text.to_owned()));
        }
        let turn = loop {
            if let Some(turn) = kernel_turn::try_take().map_err(io("take the turn"))? {
                break turn;
            }
            if stop.load(Ordering::Relaxed) {
                return Err(LabError::Stopped);
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut loan = Loan::take()?;
        let rules = loan.rules_in_force()?;
        if rules > 0 {
            let text = format!(
                "{rules} rules are in force in kernel audit, which would change every figure; help: `auditctl -D`, and load \
                 them again afterwards"
            );
            return Err(LabError::Said(text));
        }
        Ok(Self { loan, uid, _turn: turn })
    }

    /// Settings of a condition, and for those without a daemon of ours its rules.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set(&mut self, condition: Condition) -> Result<(), LabError> {
        match condition {
            Condition::Off | Condition::ShimRules | Condition::Shim => {
                self.loan.set(&StatusChange { enabled: Some(0), ..StatusChange::default() })?;
                // Once audit has been on, every task has a context until the next boot, whether it is on or not. This is the
                // way to have none.
                self.loan.add_rule(self.rule(RuleList::Task, RuleAction::Never, self.uid))?;
            }
            _ => {
                let limit = match condition {
                    Condition::Auditd(Flush::Data | Flush::Sync) => BACKLOG_LIMIT_SLOW,
                    _ => BACKLOG_LIMIT,
                };
                let limits = StatusChange {
                    backlog_limit: Some(limit),
                    backlog_wait_ticks: Some(ticks(BACKLOG_WAIT)),
                    ..StatusChange::default()
                };
                self.loan.set(&limits)?;
            }
        }
        Ok(())
    }

    /// Rules of a condition, when its daemon is there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_rules(&mut self, condition: Condition) -> Result<(), LabError> {
        // Our test user is none of those whom the ten are for: each is looked at, to the end.
        let uids = match condition {
            Condition::Rules => self.uid + 1..=self.uid + RULES,
            Condition::Discard | Condition::Auditd(_) | Condition::Graven => self.uid..=self.uid,
            _ => return Ok(()),
        };
        for uid in uids {
            self.loan.add_rule(self.rule(RuleList::Exit, RuleAction::Always, uid))?;
        }
        Ok(())
    }

    /// Sees to it that all is still as it was set.
    ///
    /// # Errors
    /// Somebody else has changed it: what was measured is not what it should be.
    pub fn check(&mut self, condition: Condition) -> Result<(), LabError> {
        let is_off = matches!(condition, Condition::Off | Condition::ShimRules | Condition::Shim);
        if self.loan.status()?.enabled == u32::from(!is_off) && self.loan.has_its_rules()? {
            return Ok(());
        }
        let text = "somebody else changed kernel audit meanwhile, so there is no figure";
        Err(LabError::Said(text.to_owned()))
    }

    /// Removes what [`Kernel::add_rules`] has added.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_rules(&mut self) -> Result<(), LabError> {
        Ok(self.loan.remove_rules()?)
    }

    /// Puts everything back, between two runs.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn put_back(&mut self) -> Result<(), LabError> {
        Ok(self.loan.put_back()?)
    }

    /// The kernel's counter of losses.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn lost(&mut self) -> Result<u32, LabError> {
        Ok(self.loan.status()?.lost)
    }

    /// Whether records wait in the kernel's queue.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn has_queued(&mut self) -> Result<bool, LabError> {
        Ok(self.loan.status()?.backlog > 0)
    }

    fn rule(&self, list: RuleList, action: RuleAction, uid: u32) -> Rule {
        let who = RuleField::Uid(uid);
        let (fields, mask) = match list {
            RuleList::Exit => (vec![RuleField::Arch(ARCH_X86_64), who], [u32::MAX; MASK_WORDS]),
            // There is no call yet.
            _ => (vec![who], [0; MASK_WORDS]),
        };
        Rule { list, action, fields, mask, key: KEY.to_owned() }
    }
}
