//! What `graven record` does with each source, from the open trail to the closed one.

use super::{Args, Settled, Source};
use crate::config::read;
use crate::daemon::control::{Clerk, Desk, Reloading};
use crate::daemon::reload::{Checkpoints, Kernel, Part};
use crate::daemon::rules::Wanted;
use crate::daemon::shim;
use crate::daemon::who::Who;
use crate::daemon::{notify, records};
use crate::diag::{Diagnostic, Level};
use crate::exit::Exit;
use crate::kept::writer::Link;
use crate::recording::beside::{self, Beside};
use crate::recording::housekeeping::Told;
use crate::recording::room::Ending;
use crate::recording::shim::Shim;
use crate::recording::signals::{Signals, UntilStopped};
use crate::recording::{Failure, kernel, listen, summary};
use crate::status::Board;
use graven_format::consts::RECORD_PAYLOAD_BYTES_MAX;
use graven_writer::source::stream::{self, Refused, StreamError};
use graven_writer::{Trail, clock};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Refused lines that are said before the rest is only counted.
const REFUSED_SAID_MAX: u64 = 20;

/// Records standard input to its end and closes the trail.
pub(super) fn stdin(
    settled: &Settled,
    trail: Trail,
    signals: Signals,
    ending: Arc<Ending>,
) -> Result<Exit, Failure> {
    let (stopped, stop) = UnixStream::pair()
        .map_err(|why| Failure::new(Exit::CannotCheck, &format!("cannot make a socket: {why}")))?;
    let (desk, handed_in) = Desk::new();
    let board = Arc::clone(&ending.board);
    signals.watch(ending, desk.clone(), || drop(stop)).map_err(no_thread)?;
    let status = "recording standard input";
    std::thread::scope(|scope| {
        let _open = desk.open_until();
        clerk(settled, &trail, &board, None, status).start(scope, handed_in).map_err(no_thread)?;
        told(settled, &trail, status)?;
        read_stdin(trail, UntilStopped::new(Stdin, stopped))
    })
}

/// Records what comes from beside the kernel's own socket until it ends, and closes the trail.
pub(super) fn beside_auditd(
    settled: &Settled,
    source: Beside,
    trail: Trail,
    signals: Signals,
    ending: Arc<Ending>,
) -> Result<Exit, Failure> {
    let (desk, handed_in) = Desk::new();
    let board = Arc::clone(&ending.board);
    let status = "recording";
    std::thread::scope(|scope| {
        let _open = desk.open_until();
        let clerk = clerk(settled, &trail, &board, None, status);
        clerk.start(scope, handed_in).map_err(no_thread)?;
        told(settled, &trail, status)?;
        let Args { beside, trail: args, .. } = &settled.args;
        beside::record(source, beside, args, trail, (signals, desk.clone()), ending)
    })
}

/// Whoever does what signals ask for. `source`: what of the source can be configured anew, and who passes that on.
fn clerk<'a>(
    settled: &'a Settled,
    trail: &Trail,
    board: &Arc<Board>,
    source: Option<(Box<dyn Part + 'a>, Option<&'a Link>)>,
    status: &str,
) -> Clerk<'a> {
    let Settled { args, config, told } = settled;
    let reloading = args.config.as_ref().map(|file| {
        let mut parts: Vec<Box<dyn Part + 'a>> =
            vec![Box::new(Checkpoints::new(trail.asker(), Arc::clone(board), config))];
        let (part, link) = source.unzip();
        parts.extend(part);
        if let Some(told) = told {
            parts.push(Box::new(told.clone()));
        }
        let load = move || {
            let text = read::text(file)?;
            let config = read::parse(&text)?;
            if let Some(Some(link)) = link {
                link.note_config(&text);
            }
            Ok(args.clone().settle(config))
        };
        Reloading { file: file.clone(), config: config.clone(), load: Box::new(load), parts }
    });
    // Nothing is ever suspended: producers wait for room, and go on by themselves. What there is an action for acts anew.
    let told = told.clone();
    let resume = move || {
        told.iter().for_each(Told::resume);
        true
    };
    let (status, quiet) = (status.to_owned(), args.trail.quiet);
    Clerk { asker: trail.asker(), reloading, resume: Box::new(resume), status, quiet }
}

/// Tells the service manager that recording has begun, and from then on that it goes on.
fn told(settled: &Settled, trail: &Trail, status: &str) -> Result<(), Failure> {
    notify::watch(trail.asker()).map_err(no_thread)?;
    notify::ready(status);
    if let (Some(file), Source::Netlink | Source::Shim) =
        (&settled.args.config, settled.args.source)
    {
        let text = std::fs::read(file).unwrap_or_default();
        let _ = records::config(file, &text, &Who::myself()).append(trail);
    }
    Ok(())
}

/// Records this input to its end and closes the trail.
fn read_stdin(trail: Trail, mut input: UntilStopped<Stdin>) -> Result<Exit, Failure> {
    let mut refused_count = 0_u64;
    let mut refused = |it: Refused| {
        refused_count += 1;
        if refused_count <= REFUSED_SAID_MAX {
            let Refused { line, bytes } = it;
            Diagnostic::error(format!("line {line} of {bytes} bytes is too long for a record"))
                .note(format!("a record has at most {RECORD_PAYLOAD_BYTES_MAX} bytes"))
                .note("it was not recorded; a loss statement stands in its place")
                .emit();
        }
    };
    let read = stream::read_lines(&mut input, &trail, &clock::now, &mut refused);
    // What was read becomes durable however the reading ended; a failure of that is the graver one.
    let summary = trail.close().map_err(|error| match &read {
        Err(StreamError::Append { line, .. }) => Failure::from(error)
            .note(format!("of the input, line {line} and what was read after it was not accepted")),
        _ => error.into(),
    })?;
    if let Err(why) = read {
        let failure = Failure::new(Exit::CannotCheck, &why.to_string());
        return Err(match why {
            StreamError::Read { .. } => failure
                .note(format!("all records up to here are durable: seq 0..{}", summary.durable))
                .note("a loss statement says that more may have followed"),
            // Not reached: the trail takes records until it is closed or fails, and it did neither.
            StreamError::Append { .. } => failure,
        });
    }
    if refused_count > REFUSED_SAID_MAX {
        let more = refused_count - REFUSED_SAID_MAX;
        Diagnostic::error(format!("{more} more lines were too long")).emit();
    }
    Ok(if refused_count > 0 { Exit::Refused } else { Exit::Success })
}

/// Records the kernel's audit messages until a signal comes, and closes the trail.
pub(super) fn netlink(
    settled: &Settled,
    (link, wanted): (&Link, Wanted),
    trail: Trail,
    signals: Signals,
    ending: Arc<Ending>,
) -> Result<Exit, Failure> {
    let args = &settled.args.trail;
    let stop = Arc::new(kernel::stop()?);
    let asked = Arc::clone(&stop);
    let (desk, handed_in) = Desk::new();
    if link.is_stopping() {
        stop.request();
        ending.signal();
    }
    signals.watch(Arc::clone(&ending), desk.clone(), move || asked.request()).map_err(no_thread)?;
    let daemon = link.daemon();
    let (kept, past) = link.take_up(args, &trail)?;
    ending.board.tell_kernel(daemon.last_status());
    let pid = link.registered();
    let status = format!("recording kernel audit as pid {pid}");
    let myself = Who::myself();
    let _ = records::start(&myself).append(&trail);
    let received = std::thread::scope(|scope| {
        let _open = desk.open_until();
        if let Some(rules) = &wanted.rules {
            link.load(rules, &trail)?;
        }
        let kernel = Kernel::new(daemon, trail.asker(), wanted);
        clerk(settled, &trail, &ending.board, Some((Box::new(kernel), Some(link))), &status)
            .start(scope, handed_in)
            .map_err(no_thread)?;
        told(settled, &trail, &status)?;
        if !args.quiet {
            Diagnostic::new(Level::Note, status.clone()).emit();
        }
        let listening = settled.args.beside.listening(None);
        let pressed = |full| settled.told.iter().for_each(|it| it.ring(full));
        let received = listen::while_served(listening.as_ref(), &trail, args.quiet, || {
            link.receive(kept, &trail, past, &stop, pressed)
        });
        notify::stopping("making durable what was received");
        received
    });
    last_word(&received, &desk, &myself, &trail);
    // Storage that failed is why receiving failed, if it did.
    let written = trail.close().map_err(|error| kernel::written_less(error, &received))?;
    let received = received?;
    if !args.quiet {
        summary::say(&args.trail, &received, &written);
    }
    Ok(Exit::Success)
}

/// Records what the kernel module gives until a signal comes, and closes the trail.
pub(super) fn shim(
    settled: &Settled,
    wanted: shim::Wanted,
    trail: Trail,
    signals: Signals,
    ending: Arc<Ending>,
) -> Result<Exit, Failure> {
    let args = &settled.args.trail;
    let stop = Arc::new(kernel::stop()?);
    let asked = Arc::clone(&stop);
    let (desk, handed_in) = Desk::new();
    let board = Arc::clone(&ending.board);
    signals.watch(ending, desk.clone(), move || asked.request()).map_err(no_thread)?;
    let mut shim = Shim::open(&args.trail)?;
    shim.prove()?;
    let myself = Who::myself();
    let _ = records::start(&myself).append(&trail);
    let status = "recording from the kernel module";
    let received = std::thread::scope(|scope| {
        let _open = desk.open_until();
        wanted.begin(&shim, &trail)?;
        let module = shim::Module::new(&shim, trail.asker(), wanted);
        clerk(settled, &trail, &board, Some((Box::new(module), None)), status)
            .start(scope, handed_in)
            .map_err(no_thread)?;
        told(settled, &trail, status)?;
        if !args.quiet {
            Diagnostic::new(Level::Note, status.to_owned()).emit();
        }
        let received = shim.receive(&trail, &stop);
        notify::stopping("making durable what was received");
        received
    });
    last_word(&received, &desk, &myself, &trail);
    // Storage that failed is why receiving failed, if it did.
    let written = trail.close()?;
    let received = received?;
    if !args.quiet {
        summary::say_shim(&args.trail, &received, &written);
    }
    Ok(Exit::Success)
}

/// Who has ended recording, or that it could not go on. A trail that has failed takes no more, and says so when it is closed.
fn last_word<T>(received: &Result<T, Failure>, desk: &Desk, myself: &Who, trail: &Trail) {
    let _ = match received {
        Ok(_) => records::ended(&desk.ended_by()).append(trail),
        Err(_) => records::aborted(myself).append(trail),
    };
}

fn no_thread(why: io::Error) -> Failure {
    Failure::thread(Exit::CannotCheck, &why).note("no record was taken")
}

/// Standard input without the buffer of the standard library, which would hide from poll what it
/// has read ahead.
#[derive(Debug)]
struct Stdin;

impl io::Read for Stdin {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self, buf)?)
    }
}

impl AsFd for Stdin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        rustix::stdio::stdin()
    }
}
