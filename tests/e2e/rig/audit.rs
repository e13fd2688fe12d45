//! This machine's kernel audit, one test at a time, and put back as it was.

use super::kept::kill_what_is_left;
use super::{Running, has, is_root, record_from, skip, temp_dir};
use graven_writer::source::kaudit;
use graven_writer::source::nlmsg::Status;
use rustix::process::Signal;
use std::path::Path;
use std::process::{Command, Stdio};

#[path = "../../kernel_turn.rs"]
mod kernel_turn;

/// Held while a test may be the audit daemon.
pub(crate) struct Turn {
    before: Status,
    _turn: kernel_turn::Turn,
}

impl Turn {
    /// Waits for the turn; says so if this machine cannot run such a test.
    pub(crate) fn take() -> Option<Self> {
        if !is_root() || !has("auditctl") {
            return None;
        }
        let turn = kernel_turn::take().expect("the turn");
        forget_the_dead();
        match kaudit::status() {
            Ok(before @ Status { pid: 0, enabled: 0 | 1, .. }) => {
                return Some(Self { before, _turn: turn });
            }
            Ok(status) => skip(&format!("pid {} is the audit daemon", status.pid)),
            Err(why) => skip(&why.to_string()),
        }
        None
    }
}

impl Turn {
    /// Puts back what whoever was killed has not.
    pub(crate) fn put_back(&self) {
        forget_the_dead();
        auditctl(&["-D", "-k", kaudit::EXEMPT_KEY]);
        auditctl(&["-f", &self.before.failure.to_string()]);
        auditctl(&["-b", &self.before.backlog_limit.to_string()]);
        if let Some(ticks) = self.before.backlog_wait_ticks {
            auditctl(&["--backlog_wait_time", &ticks.to_string()]);
        }
        auditctl(&["-e", &self.before.enabled.to_string()]);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let limits = |it: &Status| (it.backlog_limit, it.backlog_wait_ticks);
        let settings = |it: &Status| (it.pid, it.enabled, it.failure, limits(it));
        if std::thread::panicking() {
            self.put_back();
            return;
        }
        let after = kaudit::status().expect("the status");
        assert_eq!(settings(&after), settings(&self.before), "everything is given back");
    }
}

/// What a process that was killed as the audit daemon has left, its registration and its rules, goes when the next
/// daemon has come and gone.
fn forget_the_dead() {
    let Ok(Status { pid, .. }) = kaudit::status() else { return };
    if pid == 0 {
        return;
    }
    kill_what_is_left();
    if Path::new("/proc").join(pid.to_string()).exists() {
        return;
    }
    eprintln!("pid {pid}, which is no more, was left as the audit daemon");
    let dir = temp_dir();
    let mut next = record_from("netlink", &dir.path().join("trail"));
    let mut next = Running::start(&mut next, Stdio::null());
    next.wait_until("the opening marker", |it| it.acknowledged().is_some());
    next.signal(Signal::TERM);
    // It says itself what goes wrong.
    eprintln!("{}", next.end().stderr);
    // It found it on, and left it so.
    auditctl(&["-e", "0"]);
}

pub(crate) fn auditctl(args: &[&str]) -> bool {
    Command::new("auditctl").args(args).output().is_ok_and(|output| output.status.success())
}

/// The rules that the kernel has, as auditctl lists them.
pub(crate) fn rules() -> String {
    let listed = Command::new("auditctl").arg("-l").output().expect("auditctl");
    String::from_utf8(listed.stdout).expect("text")
}

/// A rule that is gone on drop.
pub(crate) struct Rule(String);

impl Rule {
    /// Every openat of this user makes an event; says so if the kernel does not take the rule.
    pub(crate) fn opens_by(uid: u32) -> Option<Self> {
        let rule = format!("always,exit -F arch=b64 -S openat -F uid={uid} -k e2e-storm");
        let rule = Self(rule);
        if rule.tell("-a") {
            return Some(rule);
        }
        skip("auditctl cannot add a rule");
        std::mem::forget(rule);
        None
    }

    fn tell(&self, action: &str) -> bool {
        let args: Vec<&str> = std::iter::once(action).chain(self.0.split(' ')).collect();
        auditctl(&args)
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        if !self.tell("-d") {
            eprintln!("the rule {:?} could not be removed", self.0);
        }
    }
}
