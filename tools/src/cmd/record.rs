//! `graven record`.

use crate::diag::{Diagnostic, Level};
use crate::exit::Exit;
use crate::recording::room::{self, Ending, Words};
use crate::recording::signals::{Signals, UntilStopped};
use crate::recording::{Failure, TrailArgs, ack, kernel, sealed, summary};
use graven_format::consts::RECORD_PAYLOAD_BYTES_MAX;
use graven_writer::rewrite::LEVEL_DEFAULT;
use graven_writer::source::stream::{self, Refused, StreamError};
use graven_writer::{Trail, clock};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Refused lines that are said before the rest is only counted.
const REFUSED_SAID_MAX: u64 = 20;

/// Arguments of `graven record`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    trail: TrailArgs,
    /// Where records come from
    #[arg(long, value_enum)]
    source: Source,
    /// Print `durable N` whenever every record up to seq N is behind a barrier
    #[arg(long)]
    ack: bool,
    /// Zstandard level, 1 to 19, at which sealed segments are compressed in the background; 0 leaves
    /// them as they are
    #[arg(long, value_name = "LEVEL", default_value_t = LEVEL_DEFAULT,
          value_parser = clap::value_parser!(i32).range(0..=19))]
    compress_sealed: i32,
}

/// Where records come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// Lines of standard input, one record each, until it ends
    Stdin,
    /// The kernel's audit messages, as its one audit daemon, until a signal comes
    Netlink,
}

const AFTER_HELP: &str = "\
From netlink, graven takes the place of auditd: it needs root and that no other audit daemon is \
running, records every message byte for byte, turns auditing on, and gives everything back as it was \
when SIGTERM, SIGINT or SIGHUP ends it. Rules are left to auditctl. What the kernel lost becomes a \
loss statement.

From standard input, each line is one record, whatever bytes are in it. A line over 131072 bytes is refused: its \
number is said, and a loss statement stands in its place. At the end of input, or on SIGTERM, SIGINT or SIGHUP, what \
was read is made durable and the trail is sealed. While there is no room, which is said, that has to wait, and so does the end: it is \
said how many records wait, and only another signal after that ends without them. What was acknowledged \
is never among them. kill -9 costs nothing that was acknowledged either.

`durable N` on standard output means that the records 0 to N survive whatever happens next. Lines may be coalesced; \
the last one is always printed. If nobody reads them any more, recording goes on and the exit code is 2.

Exit codes:
  0  everything that was read is durable
  1  the trail is damaged, and recovery refuses to write over it; or everything that was read is durable, and a
     witness has seen another trail than this one
  2  usage, or the trail cannot be opened (permission, no directory, locked, foreign), or standard input cannot be read,
     or a thread cannot be started
  5  storage failed; the last `durable N` holds
  6  no room: for the first segment, or later if `--on-full end` was given or a second signal gave up the wait; the
     last `durable N` holds, and what was accepted and not made durable is counted
  7  some input was refused; everything else is durable
  8  kernel audit is not available, or another daemon holds it

Sealed segments are compressed in the background, when nothing else wants the processor or the disk. Frames are \
compressed on their way to the disk while that is too slow: see --compress.

Examples:
  graven record --trail /var/lib/graven/trail --source netlink
  graven record --trail /mnt/usb/trail --source netlink --compress always
  graven record --trail DIR --source netlink --checkpoint-to /mnt/elsewhere/checkpoints --witness @/etc/graven/w1
  tail -F app.log | graven record --trail /var/lib/graven/app --source stdin
  producer | graven record --trail DIR --source stdin --ack | while read _ seq; do release $seq; done";

/// Records until the source ends or a signal comes.
#[must_use]
pub fn run(args: &Args) -> Exit {
    match record(args) {
        Ok(exit) => exit,
        Err(failure) => failure.emit(),
    }
}

fn record(args: &Args) -> Result<Exit, Failure> {
    let signals = Signals::catch()
        .map_err(|why| Failure::new(Exit::CannotCheck, &format!("cannot catch signals: {why}")))?;
    let trail = args.trail.open()?;
    let level = Some(args.compress_sealed).filter(|level| *level > 0);
    // It ends after the trail was closed, at its next frame.
    let _compressing =
        level.and_then(|level| sealed::in_background(&args.trail.trail, &trail, level));
    let (source, producers) = match args.source {
        Source::Stdin => ("stdin", "whoever writes the input waits; nothing is dropped"),
        Source::Netlink => ("netlink", kernel::PRODUCERS_WITHOUT_ROOM),
    };
    let words = Words {
        producers,
        source,
        no_thread: Exit::CannotCheck,
        given_up: Exit::NoRoom,
        disagreed: Some(Exit::Damage),
    };
    room::while_told(&args.trail, trail, words, |trail, ending| {
        acknowledged(args, trail, signals, ending)
    })
}

/// Records beside the thread that acknowledges, if one was asked for.
fn acknowledged(
    args: &Args,
    trail: Trail,
    signals: Signals,
    ending: Arc<Ending>,
) -> Result<Exit, Failure> {
    let watermark = trail.watermark();
    std::thread::scope(|scope| {
        let acknowledger = if args.ack {
            let watermark = &watermark;
            let acknowledge = move || ack::acknowledge(watermark, &mut io::stdout().lock());
            let builder = std::thread::Builder::new().name("graven-ack".to_owned());
            Some(builder.spawn_scoped(scope, acknowledge).map_err(|why| {
                Failure::thread(Exit::CannotCheck, &why).note("no record was taken")
            })?)
        } else {
            None
        };
        let recorded = match args.source {
            Source::Stdin => stdin(trail, signals, ending),
            Source::Netlink => netlink(&args.trail, trail, signals, ending),
        };
        // The watermark has ended with the trail, so this thread has too, or will at once.
        let acknowledged = acknowledger.map_or(Ok(()), |thread| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let exit = recorded?;
        acknowledged.map_err(|why| {
            Failure::new(Exit::CannotCheck, &format!("cannot write acknowledgements: {why}"))
                .note("every record that was read is durable all the same")
        })?;
        Ok(exit)
    })
}

/// Records standard input to its end and closes the trail.
fn stdin(trail: Trail, signals: Signals, ending: Arc<Ending>) -> Result<Exit, Failure> {
    let (stopped, stop) = UnixStream::pair()
        .map_err(|why| Failure::new(Exit::CannotCheck, &format!("cannot make a socket: {why}")))?;
    signals.watch(ending, || drop(stop)).map_err(no_thread)?;
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
    let mut input = UntilStopped::new(Stdin, stopped);
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
fn netlink(
    args: &TrailArgs,
    trail: Trail,
    signals: Signals,
    ending: Arc<Ending>,
) -> Result<Exit, Failure> {
    let stop = Arc::new(kernel::stop()?);
    let asked = Arc::clone(&stop);
    signals.watch(Arc::clone(&ending), move || asked.request()).map_err(no_thread)?;
    let (daemon, past) = match kernel::attach(&args.trail, &trail) {
        Ok(attached) => attached,
        Err(failure) => {
            // Nothing was recorded; why not is what matters now.
            let _ = trail.close();
            return Err(failure);
        }
    };
    ending.board.tell_kernel(daemon.last_status());
    if !args.quiet {
        let pid = std::process::id();
        Diagnostic::new(Level::Note, format!("recording kernel audit as pid {pid}")).emit();
    }
    let received = kernel::receive(&daemon, &trail, past, &stop);
    let received = kernel::detach(daemon, received);
    // Storage that failed is why receiving failed, if it did.
    let written = trail.close().map_err(|error| kernel::written_less(error, &received))?;
    let received = received?;
    if !args.quiet {
        summary::say(&args.trail, &received, &written);
    }
    Ok(Exit::Success)
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
