//! `graven run`.

mod shim;

use crate::diag::Diagnostic;
use crate::escape::Escaped;
use crate::exit::Exit;
use crate::recording::child::{self, StartError};
use crate::recording::descendants::{self, Ended};
use crate::recording::forward::Forwarder;
use crate::recording::room::{self, Words};
use crate::recording::{Failure, TrailArgs, kernel, summary};
use crate::status::Board;
use graven_writer::source::calls::CallSet;
use graven_writer::source::kaudit::{Daemon, Scope};
use graven_writer::source::netlink::{self, Stop};
use graven_writer::source::past::Past;
use graven_writer::{Trail, WriteError};
use rustix::process::Pid;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

/// Arguments of `graven run`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    trail: TrailArgs,
    /// Who records: the kernel's audit, or Graven's kernel module
    #[arg(long, value_enum, default_value_t = Source::Netlink)]
    source: Source,
    /// System calls to record: names with commas between, or `all`; default: those that change or
    /// reach something
    #[arg(long, value_name = "LIST")]
    syscalls: Option<String>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Who records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// The kernel's audit
    Netlink,
    /// Graven's kernel module, in whose calls CMD waits while there is no room
    Shim,
}

const AFTER_HELP: &str = "\
Records what CMD and everything that it starts do, in an audit session of its own, so that nothing else is \
recorded beside it. Needs root, and that no other audit daemon is running. Standard input, output and error, and \
Ctrl-C, go to CMD; recording ends when its last descendant has. SIGTERM and SIGHUP are passed on to CMD; once CMD \
has ended, they or Ctrl-C end recording while descendants still run. While the disk has no room, which is said, the \
end waits: it is said how many records wait, and only another signal after that ends without them.

Exit codes:
  that of CMD; 128+n if signal n killed it
  125  graven itself failed: usage, trail, kernel audit, storage, no thread to be had
  126  CMD cannot be executed
  127  CMD was not found

Examples:
  graven run --trail /var/lib/graven/make -- make install
  graven run --trail DIR --syscalls execve,openat,connect -- ./installer.sh
  graven run --trail DIR --syscalls all -- sh -c 'date; id'
  graven run --trail DIR --source shim -- make check";

/// Runs the command and records it.
#[must_use]
pub fn run(args: &Args) -> u8 {
    match record(args) {
        Ok(code) => code,
        Err(failure) => {
            let _ = failure.emit();
            Exit::RunFailed.code()
        }
    }
}

fn record(args: &Args) -> Result<u8, Failure> {
    let calls = calls(args.syscalls.as_deref())?;
    let system = |what: &'static str| {
        move |why: io::Error| Failure::new(Exit::RunFailed, &format!("cannot {what}: {why}"))
    };
    // From here on a signal does not end this process before the kernel is put back.
    let forwarder = Forwarder::catch().map_err(|why| match why.kind() {
        io::ErrorKind::WouldBlock => Failure::thread(Exit::RunFailed, &why),
        _ => system("catch signals")(why),
    })?;
    descendants::adopt().map_err(system("adopt descendants"))?;
    let trail = args.trail.open()?;
    let words = Words {
        producers: match args.source {
            Source::Netlink => kernel::PRODUCERS_WITHOUT_ROOM,
            Source::Shim => crate::recording::shim::PRODUCERS_WITHOUT_ROOM,
        },
        source: match args.source {
            Source::Netlink => "netlink",
            Source::Shim => "shim",
        },
        no_thread: Exit::RunFailed,
        given_up: Exit::RunFailed,
        // The exit code is the command's.
        disagreed: None,
    };
    room::while_told(&args.trail, trail, words, |trail, ending| {
        let board = Arc::clone(&ending.board);
        forwarder.then(ending);
        match args.source {
            Source::Netlink => attached(args, &calls, trail, &forwarder, &board),
            Source::Shim => shim::recorded(args, &calls, trail, &forwarder),
        }
    })
}

/// Runs the command as the audit daemon, and says what was recorded.
fn attached(
    args: &Args,
    calls: &CallSet,
    trail: Trail,
    forwarder: &Forwarder,
    board: &Board,
) -> Result<u8, Failure> {
    let attached = match kernel::attach(&args.trail.trail, &trail) {
        Ok(attached) => attached,
        Err(failure) => {
            // Nothing was recorded; why not is what matters now.
            let _ = trail.close();
            return Err(failure);
        }
    };
    board.tell_kernel(attached.0.last_status());
    let (ran, received, closed) = recorded(args, calls, trail, attached, forwarder)?;
    let written = closed.map_err(|error| kernel::written_less(error, &received));
    let code = code_of(ran)?;
    let written = written?;
    let received = received?;
    if !args.trail.quiet {
        summary::say(&args.trail.trail, &received, &written);
    }
    Ok(code)
}

/// What to end with when the command has ended so.
fn code_of(ran: Result<Ended, Unstarted>) -> Result<u8, Failure> {
    match ran {
        Ok(ended) => Ok(ended.code()),
        Err(Unstarted::Failed(failure)) => Err(failure),
        Err(Unstarted::Command(exit, failure)) => {
            let _ = failure.emit();
            Ok(exit.code())
        }
    }
}

/// Why the command did not run.
enum Unstarted {
    /// Graven's own failure.
    Failed(Failure),
    /// The command's.
    Command(Exit, Failure),
}

/// How the command ended, what was received, and how the trail was closed.
type Recorded = (
    Result<Ended, Unstarted>,
    Result<netlink::Summary, Failure>,
    Result<graven_writer::Summary, WriteError>,
);

/// Receives while the command runs, then puts everything back.
fn recorded(
    args: &Args,
    calls: &CallSet,
    trail: Trail,
    (daemon, past): (Daemon, Past),
    forwarder: &Forwarder,
) -> Result<Recorded, Failure> {
    let stop = kernel::stop()?;
    let (ran, received) = beside(
        &stop,
        || kernel::receive(&daemon, &trail, past, &stop),
        || {
            let _ = daemon.remove_rules();
        },
        || run_command(args, forwarder, None, |session| audit(&daemon, calls, session)),
    );
    let received = kernel::detach(daemon, received);
    Ok((ran, received, trail.close()))
}

/// Receives beside the command that `run` runs, until that has ended. If receiving fails, the rules are removed: or the
/// command's calls would wait for a receiver that is gone.
fn beside<T: Send>(
    stop: &Stop,
    receive: impl FnOnce() -> Result<T, Failure> + Send,
    remove_rules: impl FnOnce() + Send,
    run: impl FnOnce() -> Result<Ended, Unstarted>,
) -> (Result<Ended, Unstarted>, Result<T, Failure>) {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("graven-receive".to_owned());
        let receiver = builder.spawn_scoped(scope, move || {
            let received = receive();
            if received.is_err() {
                let text =
                    "recording has failed: what the command does from now on is not recorded";
                Diagnostic::warning(text).emit();
                remove_rules();
            }
            received
        });
        let receiver = match receiver {
            Ok(receiver) => receiver,
            Err(why) => {
                // The kernel has been asked for its records, and must be given back.
                let failure = || Failure::thread(Exit::RunFailed, &why);
                return (Err(Unstarted::Failed(failure())), Err(failure()));
            }
        };
        let ran = run();
        stop.request();
        (ran, receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Adds the rules for the command's session.
fn audit(daemon: &Daemon, calls: &CallSet, session: u32) -> Result<(), Failure> {
    let added = daemon
        .audit(Scope::Session(session), calls)
        .map_err(|why| kernel::failure(&format!("cannot add audit rules: {why}")))?;
    if !added.ring_operations {
        Diagnostic::warning("this kernel does not audit what io_uring does for a process")
            .help("Linux 5.16 does")
            .emit();
    }
    Ok(())
}

/// Starts the command once `prepare` has done what is to be done for its session, and waits for it and all its
/// descendants.
fn run_command(
    args: &Args,
    forwarder: &Forwarder,
    follow: Option<OwnedFd>,
    prepare: impl FnOnce(u32) -> Result<(), Failure>,
) -> Result<Ended, Unstarted> {
    let mut refused = None;
    let started = child::start(&args.command, follow, |session| match prepare(session) {
        Ok(()) => true,
        Err(failure) => {
            refused = Some(failure);
            false
        }
    });
    let child = match started {
        Ok(child) => child,
        Err(StartError::Held) => {
            let failure = refused.unwrap_or_else(|| kernel::failure("cannot add audit rules"));
            return Err(Unstarted::Failed(failure));
        }
        Err(StartError::Exec(why)) => {
            let name = args.command.first().map(|name| Escaped(name.as_bytes()).to_string());
            let (exit, what) = match why.kind() {
                io::ErrorKind::NotFound => (Exit::NotFound, "command not found"),
                _ => (Exit::NotExecutable, "cannot execute"),
            };
            let text = format!("{what}: {}: {why}", name.unwrap_or_default());
            return Err(Unstarted::Command(exit, Failure::new(exit, &text)));
        }
        Err(StartError::Thread(why)) => {
            return Err(Unstarted::Failed(Failure::thread(Exit::RunFailed, &why)));
        }
        Err(why @ (StartError::Session(_) | StartError::Fork(_))) => {
            return Err(Unstarted::Failed(kernel::failure(&why.to_string())));
        }
    };
    let pid = Pid::from_child(&child);
    forwarder.to(pid);
    let ended =
        descendants::wait_for_all(pid, || forwarder.command_ended(), &|| forwarder.gave_up());
    if forwarder.gave_up() {
        Diagnostic::warning(
            "descendants of the command are still running and not recorded any more",
        )
        .emit();
    }
    // Somebody else cannot have waited for it.
    ended
        .ok_or_else(|| Unstarted::Failed(Failure::new(Exit::RunFailed, "the command has vanished")))
}

fn calls(list: Option<&str>) -> Result<CallSet, Failure> {
    match list {
        None => Ok(CallSet::default_calls()),
        Some("all") => Ok(CallSet::all()),
        Some(list) => {
            let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
            CallSet::from_names(names)
                .map_err(|why| Failure::new(Exit::RunFailed, &why.to_string()))
        }
    }
}
