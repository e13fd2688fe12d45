//! One daemon, several processes: the registered one may be dead while others go on over its socket.
//!
//! Audit exempts the registered process only from being audited, and from waiting when its queue is full. Others of
//! ours are exempted by rules of their own.

use super::super::control::{AuditSocket, Control, ControlError};
use super::super::last_status::LastStatus;
use super::super::nlmsg::{
    self, MASK_WORDS, Rule, RuleAction, RuleField, RuleList, Status, StatusChange,
};
use super::Daemon;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// The key of the rules that exempt our own processes.
pub const EXEMPT_KEY: &str = "graven-exempt";

/// What one process tells another that goes on in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    /// The process that is registered, which may be dead.
    pub registered: u32,
    /// How audit was found.
    pub before: Status,
    /// What was changed.
    pub ours: StatusChange,
}

impl Daemon {
    /// A daemon that another process has registered, over the same socket. Dropping it gives nothing
    /// back: who ends it for all calls [`Daemon::give_back_for`].
    ///
    /// # Errors
    /// No further socket can be opened.
    pub fn inherit(data: OwnedFd, handed: &Handed) -> Result<Self, ControlError> {
        Ok(Self {
            data: AuditSocket::from(data),
            mapped: None,
            control: Mutex::new(Control::open()?),
            rules: Mutex::new(Vec::new()),
            before: handed.before,
            ours: Mutex::new(handed.ours),
            loaded: Mutex::new(None),
            notes: None,
            pid: handed.registered,
            receive_buffer_bytes: 0,
            given_back: true,
            last: LastStatus::default(),
        })
    }

    /// What another process has to know to go on in place of this one.
    #[must_use]
    pub fn handed(&self) -> Handed {
        let ours = *self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        Handed { registered: self.pid, before: self.before, ours }
    }

    /// The socket that records come from, for a process that inherits it.
    #[must_use]
    pub fn data(&self) -> BorrowedFd<'_> {
        self.data.as_fd()
    }

    /// How many sends to that socket failed for want of room; `None` where the kernel does not count.
    #[must_use]
    pub fn failed_sends(&self) -> Option<u32> {
        self.data.failed_sends()
    }

    /// Exempts a process of ours from being audited, as the registered one is, by rules in front of all others.
    /// Else what it does to record an event would be the next event.
    ///
    /// Says how many rules that are.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn exempt(&self, pid: u32) -> Result<u32, ControlError> {
        let mut count = 0;
        for rule in exempting(pid, RuleAction::NeverFirst) {
            match self.ask_rule("add rule", nlmsg::ADD_RULE, &rule) {
                // Kernels before 5.16 know no rules for submission rings.
                Err(error) if error.errno == Errno::INVAL && rule.list == RuleList::UringExit => {}
                Err(error) if error.errno != Errno::EXIST => return Err(error),
                _ => count += 1,
            }
        }
        Ok(count)
    }

    /// Ends [`Daemon::exempt`]. Rules that are gone are no error.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn unexempt(&self, pid: u32) -> Result<(), ControlError> {
        let refused = exempting(pid, RuleAction::Never).filter_map(|rule| {
            self.ask_rule("delete rule", nlmsg::DEL_RULE, &rule)
                .err()
                .filter(|error| !matches!(error.errno, Errno::NOENT | Errno::INVAL))
        });
        refused.last().map_or(Ok(()), Err)
    }

    /// Removes the exemptions that processes of ours have left which were all killed: their numbers will
    /// be those of others.
    pub(super) fn forget_exempt(&self) -> Result<(), ControlError> {
        let rules = self.control().list("list rules", nlmsg::LIST_RULES)?;
        let mut left: Vec<u32> =
            rules.iter().filter_map(|rule| nlmsg::pid_of_rule(rule, EXEMPT_KEY)).collect();
        left.sort_unstable();
        left.dedup();
        left.into_iter().try_for_each(|pid| self.unexempt(pid))
    }

    fn ask_rule(
        &self,
        operation: &'static str,
        kind: u16,
        rule: &Rule,
    ) -> Result<(), ControlError> {
        let payload = rule.encode().unwrap_or_default();
        self.control().call(operation, kind, &payload, false).map(drop)
    }

    /// Ends the registration of a process that is dead, and gives everything back as it was, for it. No
    /// other process may hold the socket any more.
    ///
    /// The kernel lets nobody else unregister it, but it probes the socket first, with `AUDIT_REPLACE`: one that nobody
    /// holds refuses, and is forgotten. If another daemon has the place meanwhile, all but the rules is that one's.
    ///
    /// # Errors
    /// The first request that failed; the others were made all the same.
    pub fn give_back_for(mut self) -> Result<(), ControlError> {
        let rules = self.remove_rules();
        if self.is_anothers(&self.status()?) {
            return rules;
        }
        let enabled = self.restore_enabled();
        let reopened = AuditSocket::open().map_err(|errno| ControlError::new("open", errno));
        let closed = reopened.map(|socket| drop(std::mem::replace(&mut self.data, socket)));
        let change = StatusChange { pid: Some(0), ..StatusChange::default() };
        let unregistered = self.set("unregister", &change);
        let limits = self.status().and_then(|now| self.restore_limits(&now));
        rules.and(enabled.map(drop)).and(closed).and(unregistered).and(limits)
    }
}

/// The rules that exempt a process.
fn exempting(pid: u32, action: RuleAction) -> impl Iterator<Item = Rule> {
    [RuleList::Exit, RuleList::UringExit].into_iter().map(move |list| Rule {
        list,
        action,
        fields: vec![RuleField::Pid(pid)],
        mask: [u32::MAX; MASK_WORDS],
        key: EXEMPT_KEY.into(),
    })
}
