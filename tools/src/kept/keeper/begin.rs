//! How a keeper begins: started by the user, or by a writer in place of one that died.

use super::super::freeze::Cgroup;
use super::super::inherited::Shared;
use super::super::pressure::{Pressure, RingFull};
use super::super::{call_it, memory_failure, no_process};
use super::{Keeper, Writer};
use crate::config::{Config, NetlinkSection};
use crate::daemon::rules::Wanted;
use crate::daemon::{notify, process};
use crate::exit::Exit;
use crate::recording::signals::Signals;
use crate::recording::{Failure, kernel};
use graven_writer::clock;
use graven_writer::keeper::{Memory, Role, Session, Vault};
use graven_writer::own::{self, Own};
use graven_writer::source::kaudit::{Daemon, Mapped};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

/// What the keeper has to know.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The configuration in force.
    pub config: &'a Config,
    /// What was read of it, if it was: SIGHUP has it read again, and it is a daemon then.
    pub text: Option<&'a str>,
    /// Memory that the writer has beside.
    pub memory_bytes: u64,
}

impl Options<'_> {
    fn cgroups(&self) -> Result<Vec<Cgroup>, Failure> {
        let NetlinkSection { ring_full, freeze_cgroups, .. } = &self.config.netlink;
        if freeze_cgroups.is_empty() != (ring_full.0 != RingFull::Freeze) {
            let title = "to freeze takes cgroups to freeze, and they are for nothing else";
            return Err(Failure::new(Exit::CannotCheck, title)
                .help("give both `--ring-full freeze` and `--freeze-cgroup`, or neither"));
        }
        let open = |path: &PathBuf| {
            Cgroup::open(path).map_err(|why| {
                Failure::new(Exit::CannotCheck, &format!("{}: {why}", path.display()))
                    .help("name a directory below /sys/fs/cgroup, not the root of it")
            })
        };
        freeze_cgroups.iter().map(open).collect()
    }

    fn pressure(&self, cgroups: Vec<Cgroup>, high: bool) -> Pressure {
        let NetlinkSection { ring_full, freeze_exempt, .. } = &self.config.netlink;
        // Their limits are those of a user id.
        let exempt = freeze_exempt.iter().filter_map(|uid| u32::try_from(uid.0).ok()).collect();
        Pressure::new(ring_full.0, cgroups, exempt, high)
    }

    fn settle(&self) {
        if self.text.is_some() {
            process::settle(self.config, self.memory_bytes + self.config.netlink.keeper_ring.0);
        }
    }
}

/// Runs the keeper that the user started: it becomes the audit daemon.
///
/// # Errors
/// [`Failure`]; the kernel is then as it was.
pub fn begin(options: &Options<'_>) -> Result<Exit, Failure> {
    let cgroups = options.cgroups()?;
    let wanted = Wanted::read(&options.config.netlink)?;
    let signals = caught(Signals::catch(options.text.is_some()))?;
    let ring_bytes = options.config.netlink.keeper_ring.0;
    let memory = Arc::new(Memory::create(ring_bytes).map_err(|why| memory_failure(&why))?);
    let session = Session::of(&memory);
    let failed = |why: Errno| no_process("keeper", &why.into());
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?;
    let (end, alive) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    let vault = Vault::create(&session).map_err(|why| memory_failure(&why))?;
    if let Some(text) = options.text {
        vault.set_config(text);
    }
    let socket = kernel::open(&wanted.options)?;
    options.settle();
    let daemon = kernel::become_daemon(socket, &wanted.options)?;
    let mapped = daemon.shared_mapped().cloned();
    let data = daemon.data().try_clone_to_owned().map_err(|why| no_process("keeper", &why))?;
    let fds = mapped.as_ref().map(|mapped| -> io::Result<_> {
        let [ring, state] = mapped.fds().map(|fd| fd.try_clone_to_owned());
        Ok([ring?, state?])
    });
    let fds = fds.transpose().map_err(|why| no_process("keeper", &why))?;
    session.set_mapped_bytes(mapped.as_ref().map_or(0, |mapped| mapped.bytes()));
    let shared = Shared { data, memory, wake, end, alive, vault, mapped: fds };
    session.set_handed(&daemon.handed());
    session.take(Role::Keeper);
    let pressure = options.pressure(cgroups, false);
    Keeper::new(daemon, shared, mapped, session, signals, None, pressure)?.run()
}

/// Runs the keeper that a writer has started in place of one that died.
///
/// # Errors
/// [`Failure`].
pub fn go_on(options: &Options<'_>, (shared, pidfd): (Shared, OwnedFd)) -> Result<Exit, Failure> {
    call_it(Role::Keeper);
    let signals = caught(Signals::catch_those_that_waited(options.text.is_some()))?;
    options.settle();
    let session = Session::of(&shared.memory);
    let died = session.pid(Role::Keeper).unwrap_or(0);
    let data = shared.data.try_clone().map_err(|why| no_process("keeper", &why))?;
    let daemon = Daemon::inherit(data, &session.handed())
        .map_err(|why| kernel::failure(&why.to_string()))?;
    let fds = shared.mapped.as_ref().map(|fds| -> io::Result<_> {
        let [ring, state] = fds.each_ref().map(OwnedFd::try_clone);
        Ok(Mapped::inherit([ring?, state?], session.mapped_bytes())?)
    });
    let mapped = fds.transpose().map_err(|why| no_process("keeper", &why))?.map(Arc::new);
    // One that is gone cannot be frozen, and need not be thawed.
    let cgroups = options
        .config
        .netlink
        .freeze_cgroups
        .iter()
        .filter_map(|path| Cgroup::open(path).ok())
        .collect();
    let pressure = options.pressure(cgroups, session.is_high());
    let writer = Some(Writer { pidfd, child: None });
    let mut keeper = Keeper::new(daemon, shared, mapped, session, signals, writer, pressure)?;
    // First of all: whoever is killed before has not taken the place, and the next one says it.
    let by = std::process::id();
    let own = Own::new(own::ABORT, "keeper-died", clock::now()).field("pid", died).field("by", by);
    keeper.notes.push_back(own.result(true));
    keeper.tell()?;
    keeper.session.take(Role::Keeper);
    // A service manager that hangs is nobody to wait for either.
    let _ = thread::Builder::new().name("graven-notify".to_owned()).spawn(notify::main_process);
    keeper.run()
}

fn caught(signals: io::Result<Signals>) -> Result<Signals, Failure> {
    signals.map_err(|why| Failure::new(Exit::CannotCheck, &format!("cannot catch signals: {why}")))
}
