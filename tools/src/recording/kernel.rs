//! Being the kernel's audit daemon, as `record` and `run` are: errors in words, one thread that
//! receives, and the end in the right order.

use crate::exit::Exit;
use crate::recording::Failure;
use graven_writer::source::kaudit::{AttachError, ControlError, Daemon, DataSocket, Options};
use graven_writer::source::netlink::{self, NetlinkError, Stop, Summary};
use graven_writer::source::past::Past;
use graven_writer::{Trail, WriteError, clock};
use std::path::Path;

/// What it means for those who make records that the disk has no room.
pub const PRODUCERS_WITHOUT_ROOM: &str = "processes wait in the system calls that are audited; nothing \
    is dropped here, and what the kernel drops once it has waited too long becomes a loss statement";

/// Opens the socket that records will come from.
///
/// # Errors
/// [`Failure`] with [`Exit::KernelAudit`].
pub fn open(options: &Options) -> Result<DataSocket, Failure> {
    DataSocket::open(options).map_err(|why| failure(&why.to_string()))
}

/// Takes the place of the audit daemon, and says what the trail in `dir`, which is open, has of earlier
/// sessions. It is read before, so that no record waits for that.
///
/// # Errors
/// [`Failure`] with [`Exit::KernelAudit`], and the kernel is then as it was; or the end of the trail cannot be
/// read.
pub fn attach(dir: &Path, trail: &Trail) -> Result<(Daemon, Past), Failure> {
    let options = Options::default();
    attach_over(open(&options)?, &options, dir, trail)
}

/// The same over a socket that was opened before.
///
/// # Errors
/// As [`attach`].
pub fn attach_over(
    data: DataSocket,
    options: &Options,
    dir: &Path,
    trail: &Trail,
) -> Result<(Daemon, Past), Failure> {
    let past = Past::read(dir, trail.opened().boot_id, None, None)?;
    become_daemon(data, options).map(|daemon| (daemon, past))
}

/// Takes the place of the audit daemon.
///
/// # Errors
/// [`Failure`] with [`Exit::KernelAudit`]; the kernel is then as it was.
pub fn become_daemon(data: DataSocket, options: &Options) -> Result<Daemon, Failure> {
    Daemon::attach_over(data, options).map_err(|why: AttachError| failure(&why.to_string()))
}

/// A failure of kernel audit. Its text may end with what to do.
#[must_use]
pub fn failure(text: &str) -> Failure {
    match text.split_once("; help: ") {
        Some((title, help)) => Failure::new(Exit::KernelAudit, title).help(help),
        None => Failure::new(Exit::KernelAudit, text),
    }
}

/// A stop, to be asked for.
///
/// # Errors
/// [`Failure`] if there is no descriptor left.
pub fn stop() -> Result<Stop, Failure> {
    Stop::new()
        .map_err(|why| Failure::new(Exit::CannotCheck, &format!("cannot make an event: {why}")))
}

/// Receives into `trail` until asked to stop.
///
/// # Errors
/// [`Failure`]. If the trail does not take records any more, closing it tells why.
pub fn receive(
    daemon: &Daemon,
    trail: &Trail,
    past: Past,
    stop: &Stop,
) -> Result<Summary, Failure> {
    let now = || {
        let now = clock::now();
        (now.realtime_ns, now.boottime_ns)
    };
    netlink::receive(daemon, trail, past, stop, now).map_err(|why: NetlinkError| match why {
        NetlinkError::Thread(errno) => Failure::thread(Exit::CannotCheck, &errno.into()),
        why => failure(&why.to_string()).note("what was received before is in the trail"),
    })
}

/// A trail that failed, and with it the receiving if that `received` an error.
#[must_use]
pub fn written_less(error: WriteError, received: &Result<Summary, Failure>) -> Failure {
    let failure = Failure::from(error);
    match received {
        Ok(_) => failure,
        Err(_) => failure.note("what the kernel had not handed over then is not counted"),
    }
}

/// Gives the place back, after receiving has ended as `received` says.
///
/// # Errors
/// [`Failure`] of the receiving or of this, the former first.
pub fn detach(daemon: Daemon, received: Result<Summary, Failure>) -> Result<Summary, Failure> {
    let detached = daemon.detach();
    let summary = received?;
    detached.map_err(|why| not_given_back(&why))?;
    Ok(summary)
}

/// The kernel is not as it was found.
#[must_use]
pub fn not_given_back(why: &ControlError) -> Failure {
    failure(&format!("giving kernel audit back: {why}"))
        .note("everything that was received is in the trail")
        .help("`graven doctor` shows the state that the kernel is in")
}
