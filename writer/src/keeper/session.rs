//! What a successor has to know beside the entries, in the session area of the shared memory.
//!
//! Each word has one writer at a time and means something by itself, so that a kill between two of them leaves nothing
//! half said.

use super::Memory;
use super::vault::Item;
use crate::source::kaudit::Handed;
use crate::source::nlmsg::{Status, StatusChange};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const KEEPER: usize = 0;
const WRITER: usize = 1;
const KEEPER_EXIT: usize = 2;
const WRITER_EXIT: usize = 3;
const FLAGS: usize = 4;
const KEEPER_RULE: usize = 5;
const WRITER_RULE: usize = 6;
const FIRST_SEQ: usize = 7;
const REGISTERED: usize = 8;
/// Six words.
const BEFORE: usize = 9;
/// Four words.
const OURS: usize = 16;
const GUARD: usize = 24;
const HIGH: usize = 25;
const SIGNALLER: usize = 27;
const RULES: usize = 28;
/// Two words.
const VAULT: usize = 29;
const MAPPED_BYTES: usize = 31;

/// Recording has begun once: from now on a failure is no usage error.
const OPENED: u64 = 1;
/// Recording was asked to end.
const STOPPING: u64 = 2;

/// One of the two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes datagrams from the socket.
    Keeper,
    /// It writes the trail.
    Writer,
}

impl Role {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keeper => "keeper",
            Self::Writer => "writer",
        }
    }

    const fn pid(self) -> usize {
        match self {
            Self::Keeper => KEEPER,
            Self::Writer => WRITER,
        }
    }

    const fn exit(self) -> usize {
        match self {
            Self::Keeper => KEEPER_EXIT,
            Self::Writer => WRITER_EXIT,
        }
    }

    const fn rule(self) -> usize {
        match self {
            Self::Keeper => KEEPER_RULE,
            Self::Writer => WRITER_RULE,
        }
    }
}

/// The session area.
#[derive(Clone, Debug)]
pub struct Session {
    memory: Arc<Memory>,
}

impl Session {
    /// That of this memory.
    #[must_use]
    pub fn of(memory: &Arc<Memory>) -> Self {
        Self { memory: Arc::clone(memory) }
    }

    fn load(&self, index: usize) -> u64 {
        self.memory.session(index).load(Ordering::Acquire)
    }

    fn store(&self, index: usize, value: u64) {
        self.memory.session(index).store(value, Ordering::Release);
    }

    fn pid_at(&self, index: usize) -> Option<u32> {
        u32::try_from(self.load(index)).ok().filter(|pid| *pid != 0)
    }

    /// Bytes of the ring in which the kernel leaves records, 0 if it leaves none.
    #[must_use]
    pub fn mapped_bytes(&self) -> usize {
        usize::try_from(self.load(MAPPED_BYTES)).unwrap_or(0)
    }

    /// Says so, once.
    pub fn set_mapped_bytes(&self, bytes: usize) {
        self.store(MAPPED_BYTES, bytes as u64);
    }

    /// The process that last took this role.
    #[must_use]
    pub fn pid(&self, role: Role) -> Option<u32> {
        self.pid_at(role.pid())
    }

    /// This process takes the role; how the last one ended is forgotten.
    pub fn take(&self, role: Role) {
        self.store(role.exit(), 0);
        self.store(role.pid(), u64::from(std::process::id()));
    }

    /// The exit code that the process in this role is about to end with, if it has said so.
    #[must_use]
    pub fn exit(&self, role: Role) -> Option<u8> {
        self.load(role.exit()).checked_sub(1).and_then(|code| u8::try_from(code).ok())
    }

    /// Says what this process is about to end with.
    pub fn set_exit(&self, role: Role, code: u8) {
        self.store(role.exit(), u64::from(code) + 1);
    }

    /// The process that rules of ours exempt from being audited in this role, if any does, and how many
    /// rules that are.
    #[must_use]
    pub fn exempt(&self, role: Role) -> (Option<u32>, u64) {
        let word = self.load(role.rule());
        (Some(word as u32).filter(|pid| *pid != 0), word >> 32)
    }

    /// Says which process rules exempt; before they are added, and after, when it is known how many they are.
    pub fn set_exempt(&self, role: Role, pid: Option<u32>, rules: u32) {
        self.store(role.rule(), pid.map_or(0, |pid| u64::from(rules) << 32 | u64::from(pid)));
    }

    /// Whether some writer has opened the trail and begun to record.
    #[must_use]
    pub fn is_opened(&self) -> bool {
        self.load(FLAGS) & OPENED != 0
    }

    /// A writer has.
    pub fn set_opened(&self) {
        self.memory.session(FLAGS).fetch_or(OPENED, Ordering::AcqRel);
    }

    /// The seq from which on the trail can have records of this session.
    #[must_use]
    pub fn first_seq(&self) -> u64 {
        self.load(FIRST_SEQ)
    }

    /// The first writer has opened the trail, and goes on behind its end.
    pub fn set_first_seq(&self, seq: u64) {
        self.store(FIRST_SEQ, seq);
    }

    /// Which rules are loaded: a number that is another if they are others.
    #[must_use]
    pub fn rules(&self) -> u64 {
        self.load(RULES)
    }

    /// Says so, when they are.
    pub fn set_rules(&self, number: u64) {
        self.store(RULES, number);
    }

    /// Whether recording was asked to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.load(FLAGS) & STOPPING != 0
    }

    /// Recording is asked to end.
    pub fn set_stopping(&self) {
        self.memory.session(FLAGS).fetch_or(STOPPING, Ordering::AcqRel);
    }

    /// Who has sent the signal that the keeper passes on: process and user.
    #[must_use]
    pub fn signaller(&self) -> Option<(u32, u32)> {
        let word = self.load(SIGNALLER);
        Some((word as u32, (word >> 32) as u32)).filter(|(pid, _)| *pid != 0)
    }

    /// Says who, before the signal is passed on.
    pub fn set_signaller(&self, (pid, uid): (u32, u32)) {
        self.store(SIGNALLER, u64::from(uid) << 32 | u64::from(pid));
    }

    /// In which half of its place in the vault something is, and how long that is.
    pub(super) fn kept_in(&self, item: Item) -> Option<(bool, u64)> {
        let word = self.load(VAULT + item as usize);
        let len = (word & !(1 << 63)).checked_sub(1)?;
        Some((word >> 63 == 1, len))
    }

    pub(super) fn set_kept_in(&self, item: Item, at: Option<(bool, u64)>) {
        let word = VAULT + item as usize;
        self.store(word, at.map_or(0, |(second, len)| u64::from(second) << 63 | (len + 1)));
    }

    /// The process that undoes what was done to others if both die.
    #[must_use]
    pub fn guard(&self) -> Option<u32> {
        self.pid_at(GUARD)
    }

    /// It was started.
    pub fn set_guard(&self, pid: u32) {
        self.store(GUARD, u64::from(pid));
    }

    /// Whether the memory is so full that something is done about it, which is to be undone.
    #[must_use]
    pub fn is_high(&self) -> bool {
        self.load(HIGH) != 0
    }

    /// Says so, before it is done, and takes it back after it was undone.
    pub fn set_high(&self, high: bool) {
        self.store(HIGH, u64::from(high));
    }

    /// How the kernel's audit was found, and what was changed.
    #[must_use]
    pub fn handed(&self) -> Handed {
        let word = |index| self.load(index) as u32;
        let option = |index| self.load(index).checked_sub(1).map(|value| value as u32);
        Handed {
            registered: word(REGISTERED),
            before: Status {
                enabled: word(BEFORE),
                failure: word(BEFORE + 1),
                rate_limit: word(BEFORE + 2),
                backlog_limit: word(BEFORE + 3),
                lost: word(BEFORE + 4),
                backlog_wait_ticks: option(BEFORE + 5),
                ..Status::default()
            },
            ours: StatusChange {
                rate_limit: option(OURS),
                backlog_limit: option(OURS + 1),
                backlog_wait_ticks: option(OURS + 2),
                failure: option(OURS + 3),
                ..StatusChange::default()
            },
        }
    }

    /// Says how the kernel's audit was found, and what was changed.
    pub fn set_handed(&self, handed: &Handed) {
        let Handed { registered, before, ours } = handed;
        let option = |value: Option<u32>| value.map_or(0, |value| u64::from(value) + 1);
        self.store(REGISTERED, u64::from(*registered));
        let plain =
            [before.enabled, before.failure, before.rate_limit, before.backlog_limit, before.lost];
        for (index, value) in plain.into_iter().enumerate() {
            self.store(BEFORE + index, u64::from(value));
        }
        self.store(BEFORE + 5, option(before.backlog_wait_ticks));
        self.set_ours(ours);
    }

    /// Says what is changed now of the kernel's limits.
    pub(super) fn set_ours(&self, ours: &StatusChange) {
        let option = |value: Option<u32>| value.map_or(0, |value| u64::from(value) + 1);
        let ours = [ours.rate_limit, ours.backlog_limit, ours.backlog_wait_ticks, ours.failure];
        for (index, value) in ours.into_iter().enumerate() {
            self.store(OURS + index, option(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_reads_what_was_said() {
        let memory = Arc::new(Memory::create(0).expect("memory"));
        let session = Session::of(&memory);
        let handed = Handed {
            registered: 7,
            before: Status {
                enabled: 1,
                lost: 9,
                backlog_wait_ticks: Some(0),
                ..Status::default()
            },
            ours: StatusChange { backlog_limit: Some(8192), ..StatusChange::default() },
        };
        session.set_handed(&handed);
        assert_eq!(session.handed(), handed);
        assert_eq!((session.pid(Role::Keeper), session.exit(Role::Keeper)), (None, None));
        session.take(Role::Keeper);
        session.set_exit(Role::Keeper, 0);
        assert_eq!(session.pid(Role::Keeper), Some(std::process::id()));
        assert_eq!((session.exit(Role::Keeper), session.exit(Role::Writer)), (Some(0), None));
        session.set_stopping();
        assert!(session.is_stopping() && !session.is_opened());
    }
}
