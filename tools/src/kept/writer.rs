//! The writer: all that `graven record` does with the kernel's records, only that it takes them from the shared
//! memory. It starts a keeper in place of one that died.

use super::again::Again;
use super::inherited::{Shared, arguments};
use super::{call_it, memory_failure, myself, no_process};
use crate::daemon::rules::{self, Rules};
use crate::diag::Diagnostic;
use crate::exit::Exit;
use crate::recording::{Failure, TrailArgs, kernel};
use graven_writer::Trail;
use graven_writer::keeper::{Consumer, Kept, MemoryError, Role, Session, settled_of, spawn};
use graven_writer::source::kaudit::Daemon;
use graven_writer::source::netlink::{self, NetlinkError, Stop, Summary};
use graven_writer::source::past::Past;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often the thread that watches the keeper looks whether it is still wanted.
const WATCH_TIME: Duration = Duration::from_millis(200);

/// What the writer holds together with the keeper.
#[derive(Debug)]
pub struct Link {
    daemon: Daemon,
    session: Session,
    shared: Shared,
    keeper: OwnedFd,
    own_pidfd: OwnedFd,
}

impl Link {
    /// Takes up the place of the writer.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn new((shared, keeper): (Shared, OwnedFd)) -> Result<Self, Failure> {
        call_it(Role::Writer);
        let own_pidfd = spawn::own_pidfd().map_err(|why| no_process("keeper", &why.into()))?;
        let session = Session::of(&shared.memory);
        session.take(Role::Writer);
        let data = shared.data.try_clone().map_err(|why| no_process("writer", &why))?;
        let notes = shared.vault.try_clone().map_err(|why| no_process("writer", &why))?;
        let daemon = Daemon::inherit(data, &session.handed())
            .map_err(|why| kernel::failure(&why.to_string()))?
            .with_notes(Box::new(notes));
        exempt(&daemon, &session, Role::Writer, std::process::id());
        Ok(Self { daemon, session, shared, keeper, own_pidfd })
    }

    /// The process that is registered as the audit daemon.
    #[must_use]
    pub fn registered(&self) -> u32 {
        self.session.handed().registered
    }

    /// Whether recording was asked to end before this writer began.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.session.is_stopping()
    }

    /// What both know of each other.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// A configuration was read that is right: whoever takes up a place goes by it.
    pub fn note_config(&self, text: &str) {
        self.shared.vault.set_config(text);
    }

    /// Whether another writer has recorded in this session.
    #[must_use]
    pub fn is_opened(&self) -> bool {
        self.session.is_opened()
    }

    /// The kernel's audit.
    #[must_use]
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// Loads rules, unless the writer before this one has: taking them back for a moment would be a gap.
    ///
    /// # Errors
    /// [`Failure`]; the rules are as they were.
    pub fn load(&self, rules: &Rules, trail: &Trail) -> Result<(), Failure> {
        let mut hasher = DefaultHasher::new();
        rules.text.hash(&mut hasher);
        let number = hasher.finish() | 1;
        if self.session.rules() == number && self.daemon.loaded().is_some() {
            return Ok(());
        }
        self.session.set_rules(0);
        rules::load(&self.daemon, rules, trail)?;
        self.session.set_rules(number);
        Ok(())
    }

    /// Where a writer goes on that has opened the trail.
    ///
    /// # Errors
    /// [`Failure`]: the memory, the trail's end or the kernel's rules cannot be read.
    pub fn take_up(&self, args: &TrailArgs, trail: &Trail) -> Result<(TakenUp, Past), Failure> {
        let failed = |why: MemoryError| memory_failure(&why);
        if let Some(change) = self.shared.vault.rules().map_err(failed)? {
            let taken = self.daemon.take_up(change);
            taken.map_err(|why| kernel::failure(&format!("looking at the rules: {why}")))?;
        }
        let mut consumer = Consumer::go_on(&self.shared.memory).map_err(failed)?;
        let (opened, boot_id) = (trail.opened(), trail.opened().boot_id);
        let mut told = Vec::new();
        let past = if self.session.is_opened() {
            let done = consumer.done();
            let past = Past::read(&args.trail, boot_id, settled_of(&done), Some(done.seq))?;
            told = past.told().to_vec();
            if past.is_in_session_since(self.session.first_seq()) { past.taken_up() } else { past }
        } else {
            // What is in the trail is of others.
            consumer.begin(opened.next_seq);
            self.session.set_first_seq(opened.next_seq);
            Past::read(&args.trail, boot_id, None, None)?
        };
        Ok((TakenUp { consumer, told }, past))
    }

    /// Receives into `trail` until asked to stop.
    ///
    /// # Errors
    /// [`Failure`]. If the trail does not take records any more, closing it tells why.
    pub fn receive(
        &self,
        taken_up: TakenUp,
        trail: &Trail,
        past: Past,
        stop: &Stop,
        pressed: impl Fn(bool) + Sync,
    ) -> Result<Summary, Failure> {
        self.session.set_opened();
        let TakenUp { consumer, told } = taken_up;
        let over = AtomicBool::new(false);
        let ended = AtomicBool::new(false);
        let session = self.session.clone();
        let kept = Kept { consumer, session, told, wake: &self.shared.wake, over: &over };
        thread::scope(|scope| {
            let pressed = &pressed;
            let watcher = Watcher { link: self, over: &over, ended: &ended, pressed };
            thread::Builder::new()
                .name("graven-watch".to_owned())
                .spawn_scoped(scope, move || watcher.watch())
                .map_err(|why| Failure::thread(Exit::CannotCheck, &why))?;
            let received = netlink::receive_kept(&self.daemon, trail, past, kept, stop);
            ended.store(true, Ordering::Release);
            received.map_err(|why: NetlinkError| match why {
                NetlinkError::Thread(errno) => Failure::thread(Exit::CannotCheck, &errno.into()),
                why => kernel::failure(&why.to_string())
                    .note("what was received before is in the trail"),
            })
        })
    }

    /// Says to the keeper what this process is about to end with.
    pub fn end(&self, exit: Exit) {
        self.session.set_exit(Role::Writer, exit.code());
    }
}

/// Where a writer goes on.
#[derive(Debug)]
pub struct TakenUp {
    consumer: Consumer,
    /// What the keeper told that is in the trail already.
    told: Vec<Vec<u8>>,
}

/// Exempts a process of ours from being audited, and its predecessor no more.
fn exempt(daemon: &Daemon, session: &Session, role: Role, pid: u32) {
    if let Some(before) = session.exempt(role).0 {
        let _ = daemon.unexempt(before);
    }
    session.set_exempt(role, Some(pid), 0);
    match daemon.exempt(pid) {
        Ok(rules) => session.set_exempt(role, Some(pid), rules),
        Err(why) => {
            Diagnostic::warning(format!("the {} is audited itself: {why}", role.name()))
                .note("with rules that match it, recording an event makes another one")
                .emit();
        }
    }
}

/// The thread that watches the keeper.
struct Watcher<'a> {
    link: &'a Link,
    over: &'a AtomicBool,
    ended: &'a AtomicBool,
    /// Told when the memory becomes nearly full, and when it has room again.
    pressed: &'a (dyn Fn(bool) + Sync),
}

impl Watcher<'_> {
    /// Starts a keeper in place of each that dies, until this writer has received all.
    fn watch(&self) {
        let mut child: Option<(OwnedFd, Child)> = None;
        let mut again = Again::started();
        let mut high = false;
        let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(WATCH_TIME.subsec_nanos()) };
        loop {
            let keeper = child.as_ref().map_or(&self.link.keeper, |(pidfd, _)| pidfd);
            let died = poll(&mut [PollFd::new(keeper, PollFlags::IN)], Some(&limit));
            if self.ended.load(Ordering::Acquire) {
                return;
            }
            let was = std::mem::replace(&mut high, self.link.session.is_high());
            if was != high {
                (self.pressed)(high);
            }
            if !died.is_ok_and(|count| count > 0) {
                continue;
            }
            // One of ours may have ended before it took the place.
            let mut pid = self.link.session.pid(Role::Keeper).unwrap_or(0);
            if let Some((_, mut child)) = child.take() {
                pid = child.id();
                // It has ended: this waits for nothing.
                let _ = child.wait();
            }
            if let Some(code) = self.link.session.exit(Role::Keeper) {
                Diagnostic::error(format!("the keeper ended with exit code {code}")).emit();
                self.over.store(true, Ordering::Release);
                return;
            }
            let wait = again.died(Instant::now());
            Diagnostic::warning(format!(
                "the keeper (pid {pid}) was killed: another takes its place"
            ))
            .note("nothing is lost: the kernel's socket is open still")
            .note(format!("start {} in a row, after {} ms", again.deaths(), wait.as_millis()))
            .emit();
            thread::sleep(wait);
            child = self.start(&mut again);
        }
    }

    fn start(&self, again: &mut Again) -> Option<(OwnedFd, Child)> {
        let link = self.link;
        let fds = link.shared.fds(&link.own_pidfd);
        let mut command = myself();
        command.args(arguments(Role::Keeper, &fds, true));
        let started = spawn::spawn(&mut command, &fds)
            .and_then(|child| Ok((spawn::pidfd_of(&child)?, child)));
        again.started_again(Instant::now());
        match started {
            Ok((pidfd, child)) => {
                exempt(&link.daemon, &link.session, Role::Keeper, child.id());
                Some((pidfd, child))
            }
            // The dead one is found dead again, and it is tried again.
            Err(why) => {
                Diagnostic::warning(format!("cannot start the keeper: {why}: it is tried again"))
                    .emit();
                None
            }
        }
    }
}
