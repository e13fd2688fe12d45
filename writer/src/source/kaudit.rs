//! Being the kernel's audit daemon: taking the place, and giving it back as it was found.
//!
//! # Order
//! Attaching registers first and enables auditing later, so that the first record already has where
//! to go, and ends with the marker from which on every record is owed to us. Detaching goes the
//! other way: rules first, then auditing as it was, then the registration, then the queue's limits.
//! The receiving thread stands between: it removes the rules and drains the socket before it
//! returns (see [`super::netlink::receive`]), so detaching finds nothing left to lose.

use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use graven_format::kind;
use rustix::io::Errno;

use super::calls::{ARCH_I386, ARCH_X86_64, CallSet};
pub use super::control::ControlError;
use super::control::{AuditSocket, Control};
use super::intake::{OPENING, Terms, heartbeat_text};
use super::last_status::LastStatus;
pub use super::mapped::Mapped;
use super::mapped::Taker;
use super::nlmsg::{
    self, MASK_WORDS, Message, Rule, RuleAction, RuleField, RuleList, SignalInfo, Status,
    StatusChange,
};

pub use heir::{EXEMPT_KEY, Handed};
use limits::{LOCKED, needs, wanted};
pub use limits::{ticks, time_of};
pub use loan::Loan;
pub use ruleset::{RuleChange, RuleNotes};

mod heir;
mod limits;
mod loan;
mod ruleset;

/// The key in every record that a rule of ours makes.
pub const RULE_KEY: &str = "graven";

/// How to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Least length of the kernel's queue before producers wait, in records. A longer one is left
    /// alone, and so is no limit at all.
    pub backlog_limit: u32,
    /// How long a producer waits for room in that queue before the kernel drops its record.
    /// At most ten minutes, which is the kernel's own limit.
    pub backlog_wait: Duration,
    /// What the kernel does when it loses a record: 0 nothing, 1 a message, 2 a panic; as it is without.
    pub failure: Option<u32>,
    /// Receive memory of the socket, in bytes: it bridges the time in which the receiver is kept
    /// from running. A queued record takes about 900 bytes.
    pub receive_buffer_bytes: usize,
    /// Memory in which the kernel leaves records where they need not be received, in bytes: a power of two
    /// and of pages, or 0 to receive each. What finds no room in it goes into the socket. Each is received
    /// as well if audit was on before.
    pub mapped_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backlog_limit: 8192,
            backlog_wait: Duration::from_secs(60),
            failure: None,
            receive_buffer_bytes: 64 << 20,
            mapped_bytes: 4 << 20,
        }
    }
}

/// Why this process is not the audit daemon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The kernel was built without audit, or this is a container.
    #[error(
        "the kernel does not offer audit here; help: it needs CONFIG_AUDIT and the initial user \
         namespace, which a container does not have"
    )]
    Unsupported,
    /// A capability is missing.
    #[error(
        "not permitted to control kernel audit; help: run as root in the initial pid namespace, \
         or grant CAP_AUDIT_CONTROL, CAP_AUDIT_WRITE and CAP_NET_ADMIN"
    )]
    NotPermitted,
    /// Another daemon is registered and lives.
    #[error(
        "process {pid} ({comm}) is the audit daemon; help: the kernel serves one at a time, stop \
         it first (for auditd: `systemctl stop auditd` or `service auditd stop`)"
    )]
    Held {
        /// Its process id.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// The registered daemon is dead, but some process still holds its socket.
    #[error(
        "the audit daemon (process {pid}) is gone, but another process still holds its socket; \
         help: end that process, the registration ends with the socket"
    )]
    HeldByHeir {
        /// The process id that is still registered.
        pid: u32,
    },
    /// The configuration is locked until the next boot, and is not as it would have to be.
    #[error(
        "the audit configuration is locked (enabled 2), and {needs}; help: only a reboot unlocks it: let the rules that \
         lock it set this before, or ask for what there is"
    )]
    Locked {
        /// What would have to be changed.
        needs: String,
    },
    /// A request failed otherwise.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// Why a rule is not in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Call numbers are known for x86-64 only.
    #[error("rules for system calls are supported on x86-64 only")]
    Architecture,
    /// The kernel refused it.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// Whose calls a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The processes of one audit session.
    Session(u32),
    /// The processes of one real uid.
    Uid(u32),
}

/// What came of adding rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RulesAdded {
    /// Whether operations done by submission rings are audited too; kernels before 5.16 cannot.
    pub ring_operations: bool,
}

/// The kernel's audit status, without attaching.
///
/// # Errors
/// Audit is not offered here or not permitted, or the request failed.
pub fn status() -> Result<Status, AttachError> {
    Control::open().and_then(|mut control| control.status()).map_err(refused)
}

/// The socket that records will come from, before anything does: it takes a capability to have as much memory as
/// it needs, which can be given up afterwards.
#[derive(Debug)]
pub struct DataSocket {
    socket: AuditSocket,
    /// See [`Daemon`].
    mapped: Option<Result<Arc<Mapped>, Errno>>,
    receive_buffer_bytes: usize,
}

impl DataSocket {
    /// Opens it with as much receive memory as is asked for, or is granted, and with mapped memory.
    ///
    /// # Errors
    /// Audit is not offered here, or the request failed.
    pub fn open(options: &Options) -> Result<Self, AttachError> {
        let failed = |operation| move |errno| refused(ControlError::new(operation, errno));
        let socket = AuditSocket::open().map_err(failed("open"))?;
        let granted = socket.enlarge(options.receive_buffer_bytes);
        let granted = granted.map_err(failed("enlarge socket"))?;
        socket.stay_open_after_overrun().map_err(failed("set socket option"))?;
        // While audit is on, that a filter was loaded is an event itself: with nobody registered yet, it would be
        // lost, and so would be that it ends.
        let is_off = Control::open().and_then(|mut it| it.status()).map_err(refused)?.enabled == 0;
        let wanted = is_off && options.mapped_bytes > 0;
        let mapped = wanted.then(|| Mapped::attach(&socket, options.mapped_bytes).map(Arc::new));
        Ok(Self { socket, mapped, receive_buffer_bytes: granted })
    }
}

/// Whether records can be left in mapped memory here, tried on a socket of our own.
///
/// # Errors
/// Why bpf(2) was refused: each record will be received by a system call.
pub fn try_mapping() -> Result<(), Errno> {
    let (socket, _other) = std::os::unix::net::UnixDatagram::pair()
        .map_err(|why| Errno::from_io_error(&why).unwrap_or(Errno::IO))?;
    Mapped::attach(&socket, rustix::param::page_size()).map(drop)
}

/// This process as the kernel's audit daemon. Dropping it gives everything back.
#[derive(Debug)]
pub struct Daemon {
    data: AuditSocket,
    /// None if it was not asked for; else it, or why there is none.
    mapped: Option<Result<Arc<Mapped>, Errno>>,
    control: Mutex<Control>,
    rules: Mutex<Vec<Rule>>,
    before: Status,
    ours: Mutex<StatusChange>,
    loaded: Mutex<Option<RuleChange>>,
    notes: Option<Box<dyn RuleNotes>>,
    pid: u32,
    receive_buffer_bytes: usize,
    given_back: bool,
    last: LastStatus,
}

impl Daemon {
    /// Takes the place of the audit daemon and turns auditing on.
    ///
    /// # Errors
    /// [`AttachError`]; the kernel is then as it was.
    pub fn attach(options: &Options) -> Result<Self, AttachError> {
        Self::attach_over(DataSocket::open(options)?, options)
    }

    /// The same over a socket that was opened before.
    ///
    /// # Errors
    /// As [`Daemon::attach`].
    pub fn attach_over(data: DataSocket, options: &Options) -> Result<Self, AttachError> {
        let DataSocket { socket: data, mapped, receive_buffer_bytes } = data;
        let mut control = Control::open().map_err(refused)?;
        let before = control.status().map_err(refused)?;
        let pid = std::process::id();
        if before.pid != 0
            && let Some(comm) = comm(before.pid)
        {
            return Err(AttachError::Held { pid: before.pid, comm });
        }
        let ours = wanted(&before, options);
        if before.enabled == LOCKED
            && let Some(needs) = needs(&before, &ours)
        {
            return Err(AttachError::Locked { needs });
        }
        // From here on, dropping gives back.
        let daemon = Self {
            data,
            mapped,
            control: Mutex::new(control),
            rules: Mutex::new(Vec::new()),
            before,
            ours: Mutex::new(ours),
            loaded: Mutex::new(None),
            notes: None,
            pid,
            receive_buffer_bytes,
            given_back: false,
            last: LastStatus::default(),
        };
        // The records of all other changes have somebody to go to.
        daemon.register()?;
        daemon.set("set queue limits", &ours)?;
        if before.enabled != LOCKED {
            daemon.forget_exempt()?;
            let enable = StatusChange { enabled: Some(1), ..StatusChange::default() };
            daemon.set("enable", &enable)?;
            // Whoever only looks sees it on from the beginning.
            daemon.status()?;
        }
        daemon.write_heartbeat(OPENING).map_err(refused)?;
        Ok(daemon)
    }

    /// Registers the data socket. The acknowledgement is not asked for, because it would arrive
    /// among the records; whether it worked is asked over the other socket.
    fn register(&self) -> Result<(), AttachError> {
        let change = StatusChange { pid: Some(self.pid), ..StatusChange::default() };
        self.data
            .send(&nlmsg::request_quiet(nlmsg::SET, 1, &change.encode()))
            .map_err(|errno| ControlError::new("register", errno))?;
        let holder = self.status()?.pid;
        if holder == self.pid {
            return Ok(());
        }
        let mut answers = Taker::new(self.data.as_fd(), self.mapped(), 4096);
        let _ = answers.take();
        let errno = match answers.iter().next().and_then(|(bytes, _)| nlmsg::parse(bytes)) {
            Some(Message::Ack { errno, .. }) => Errno::from_raw_os_error(errno),
            _ => Errno::BADMSG,
        };
        match (errno, comm(holder)) {
            (Errno::EXIST, Some(comm)) => Err(AttachError::Held { pid: holder, comm }),
            (Errno::EXIST, None) => Err(AttachError::HeldByHeir { pid: holder }),
            _ => Err(refused(ControlError::new("register", errno))),
        }
    }

    /// The kernel's audit status now. It may wait while the kernel's queue is full.
    ///
    /// # Errors
    /// The request failed or was not answered in time.
    pub fn status(&self) -> Result<Status, ControlError> {
        let status = self.control().status()?;
        self.last.set(status);
        Ok(status)
    }

    /// The status as it was last asked for, to look at without asking the kernel; it outlives this.
    #[must_use]
    pub fn last_status(&self) -> LastStatus {
        self.last.clone()
    }

    /// The kernel's audit status before this process attached.
    #[must_use]
    pub fn before(&self) -> &Status {
        &self.before
    }

    /// What a session of receiving has to know. Giving the place back makes one event while audit is on,
    /// and each limit that is restored another; all come behind the closing marker, to nobody.
    pub(crate) fn terms(&self) -> Terms {
        let left_on = self.before.enabled != 0;
        let ours = *self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = [ours.rate_limit, ours.failure, ours.backlog_limit, ours.backlog_wait_ticks];
        let own = 1 + limits.iter().flatten().count() as u64;
        let own = if left_on { own } else { 0 };
        Terms { pids: [self.pid, std::process::id()], lost: self.before.lost, left_on, own }
    }

    /// Receive memory that the kernel granted, in bytes; less than asked for without CAP_NET_ADMIN.
    #[must_use]
    pub fn receive_buffer_bytes(&self) -> usize {
        self.receive_buffer_bytes
    }

    /// Why each record has to be received by a system call, if that is so and was not asked for: bpf(2)
    /// was refused. Slower, and no less safe.
    #[must_use]
    pub fn mapping_refused(&self) -> Option<Errno> {
        self.mapped.as_ref().and_then(|mapped| mapped.as_ref().err().copied())
    }

    pub(crate) fn mapped(&self) -> Option<&Mapped> {
        self.shared_mapped().map(|mapped| &**mapped)
    }

    /// Where the kernel leaves records, if it does.
    #[must_use]
    pub fn shared_mapped(&self) -> Option<&Arc<Mapped>> {
        self.mapped.as_ref().and_then(|mapped| mapped.as_ref().ok())
    }

    /// Audits these calls of these processes, in both ABIs, and everything that they have
    /// submission rings do.
    ///
    /// # Errors
    /// The kernel refused a rule; those added by this call are removed again.
    pub fn audit(&self, scope: Scope, calls: &CallSet) -> Result<RulesAdded, RuleError> {
        if !cfg!(target_arch = "x86_64") {
            return Err(RuleError::Architecture);
        }
        let who = match scope {
            Scope::Session(session) => RuleField::Session(session),
            Scope::Uid(uid) => RuleField::Uid(uid),
        };
        let rule = |list, fields, mask| {
            let (action, key) = (RuleAction::Always, RULE_KEY.into());
            Rule { list, action, fields, mask, key }
        };
        let before = self.rules().len();
        for (arch, mask) in [(ARCH_X86_64, calls.x86_64), (ARCH_I386, calls.i386)] {
            let fields = vec![RuleField::Arch(arch), who];
            if let Err(error) = self.add_rule(rule(RuleList::Exit, fields, mask)) {
                self.remove_rules_past(before)?;
                return Err(error);
            }
        }
        let ring = rule(RuleList::UringExit, vec![who], [u32::MAX; MASK_WORDS]);
        match self.add_rule(ring) {
            Ok(()) => Ok(RulesAdded { ring_operations: true }),
            Err(RuleError::Control(ControlError { errno: Errno::INVAL, .. })) => {
                Ok(RulesAdded { ring_operations: false })
            }
            Err(error) => {
                self.remove_rules_past(before)?;
                Err(error)
            }
        }
    }

    /// Adds a rule, which is removed again when the daemon ends. A rule that someone else added
    /// already stays theirs.
    ///
    /// # Errors
    /// The kernel refused it.
    pub fn add_rule(&self, rule: Rule) -> Result<(), RuleError> {
        const OPERATION: &str = "add rule";
        let payload = rule.encode().ok_or(ControlError::new(OPERATION, Errno::INVAL))?;
        match self.control().call(OPERATION, nlmsg::ADD_RULE, &payload, false) {
            Ok(_) => {
                self.rules().push(rule);
                Ok(())
            }
            Err(error) if error.errno == Errno::EXIST => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes every rule that this daemon added or had loaded, and puts back what loading removed. Rules that are
    /// gone already are no error.
    ///
    /// # Errors
    /// The kernel refused; what it refused is tried again by the next call.
    pub fn remove_rules(&self) -> Result<(), ControlError> {
        let removed = self.remove_rules_past(0);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(change) = &*loaded {
            change.undo(&mut self.control())?;
            *loaded = None;
            self.note(None);
        }
        removed
    }

    fn remove_rules_past(&self, keep: usize) -> Result<(), ControlError> {
        const OPERATION: &str = "delete rule";
        let mut rules = self.rules();
        let mut first_error = None;
        for index in (keep..rules.len()).rev() {
            let payload = rules[index].encode().unwrap_or_default();
            match self.control().call(OPERATION, nlmsg::DEL_RULE, &payload, false) {
                Ok(_) => drop(rules.remove(index)),
                Err(error) if error.errno == Errno::NOENT => drop(rules.remove(index)),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Writes the heartbeat of this number into the kernel's audit stream, of which it becomes a
    /// record like any other.
    pub(crate) fn write_heartbeat(&self, number: u64) -> Result<(), ControlError> {
        // The kernel takes the text for a C string and leaves its last byte out.
        let text = heartbeat_text(number) + "\0";
        self.control().call("write heartbeat", kind::TRUSTED_APP, text.as_bytes(), false).map(drop)
    }

    /// Turns auditing off again if it was off before, so that nothing more is made. Not under somebody else: the kernel gives
    /// the place of a daemon that stood still to the next one that asks.
    pub(crate) fn restore_enabled(&self) -> Result<bool, ControlError> {
        if self.before.enabled != 0 || self.is_anothers(&self.status()?) {
            return Ok(false);
        }
        let disable = StatusChange { enabled: Some(0), ..StatusChange::default() };
        self.set("disable", &disable).map(|()| true)
    }

    pub(crate) fn socket(&self) -> &AuditSocket {
        &self.data
    }

    /// Ends being the audit daemon and gives everything back as it was.
    ///
    /// # Errors
    /// The first request that failed; the others were made all the same.
    pub fn detach(mut self) -> Result<(), ControlError> {
        self.give_back()
    }

    /// Undoes what attaching did. Values that someone changed meanwhile are left to them.
    fn give_back(&mut self) -> Result<(), ControlError> {
        // A forked child has a copy of this object, but not the place.
        if self.given_back || std::process::id() != self.pid {
            return Ok(());
        }
        self.given_back = true;
        let rules = self.remove_rules();
        let now = self.status()?;
        let enabled = self.restore_enabled();
        let unregistered = if now.pid == self.pid {
            let change = StatusChange { pid: Some(0), ..StatusChange::default() };
            self.set("unregister", &change)
        } else {
            Ok(())
        };
        let limits = if self.is_anothers(&now) { Ok(()) } else { self.restore_limits(&now) };
        rules.and(enabled.map(drop)).and(unregistered).and(limits)
    }

    /// Whether another daemon has the place, and with it everything but the rules.
    fn is_anothers(&self, now: &Status) -> bool {
        now.pid != 0 && now.pid != self.pid
    }

    /// Puts back the limits that are still as they were set.
    fn restore_limits(&self, now: &Status) -> Result<(), ControlError> {
        let same = |now: Option<u32>, ours: Option<u32>, before: Option<u32>| {
            (ours.is_some() && now == ours).then_some(before).flatten()
        };
        let before = &self.before;
        let ours = *self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = StatusChange {
            failure: same(Some(now.failure), ours.failure, Some(before.failure)),
            rate_limit: same(Some(now.rate_limit), ours.rate_limit, Some(before.rate_limit)),
            backlog_limit: same(
                Some(now.backlog_limit),
                ours.backlog_limit,
                Some(before.backlog_limit),
            ),
            backlog_wait_ticks: same(
                now.backlog_wait_ticks,
                ours.backlog_wait_ticks,
                before.backlog_wait_ticks,
            ),
            ..StatusChange::default()
        };
        self.set("restore queue limits", &limits)
    }

    fn set(&self, operation: &'static str, change: &StatusChange) -> Result<(), ControlError> {
        if *change == StatusChange::default() {
            return Ok(());
        }
        self.control().set(operation, change)
    }

    fn control(&self) -> std::sync::MutexGuard<'_, Control> {
        // A panic while the lock was held leaves at worst an answer unread, which the next
        // request skips by its sequence.
        self.control.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn rules(&self) -> std::sync::MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Whoever wants to know calls `detach`; the socket's end unregisters in any case.
        let _ = self.give_back();
    }
}

/// Who signalled the daemon last, and the last of its signals only: the kernel keeps no more.
///
/// # Errors
/// The request failed, or nobody has.
pub fn signal_info() -> Result<SignalInfo, ControlError> {
    const OPERATION: &str = "get signal info";
    let reply = Control::open()?.call(OPERATION, nlmsg::SIGNAL_INFO, &[], true)?;
    SignalInfo::parse(&reply).ok_or(ControlError::new(OPERATION, Errno::SRCH))
}

/// The name of a living process.
fn comm(pid: u32) -> Option<String> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&stat);
    let (name, rest) = text.split_once('(')?.1.rsplit_once(')')?;
    // A zombie has let go of its sockets: it registers nothing any more.
    (!rest.trim_start().starts_with(['Z', 'X'])).then(|| name.to_owned())
}

/// What a refusal of the first requests means.
fn refused(error: ControlError) -> AttachError {
    match error.errno {
        Errno::PERM | Errno::ACCESS => AttachError::NotPermitted,
        Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT | Errno::CONNREFUSED => AttachError::Unsupported,
        _ => AttachError::Control(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_has_a_name() {
        assert!(comm(std::process::id()).is_some());
        assert_eq!(comm(u32::MAX), None);
    }
}
