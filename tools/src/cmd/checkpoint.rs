//! `graven checkpoint`.

use crate::deliver::Target;
use crate::diag::Diagnostic;
use crate::escape;
use crate::exit::Exit;
use crate::output;
use crate::recording::checkpoints::request_signal;
use crate::trail::live::{self, Writer};
use crate::trail::{TrailDir, ends};
use crate::witness::{self, Witness};
use graven_format::consts::NOTE_STORED_BYTES_MAX;
use graven_format::name;
use graven_format::note::Note;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::Metadata;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

mod cosign;

/// Arguments of `graven checkpoint`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The trail's directory
    pub dir: PathBuf,
    /// Append the checkpoint to this file too, behind a barrier
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// Give the checkpoint to this command of the shell too, on standard input
    #[arg(long, value_name = "CMD")]
    pub exec: Option<String>,
    /// Have it cosigned by this C2SP witness; may be given more than once
    ///
    /// VKEY is the witness's key, name+id+base64, and URL what its operator calls the submission prefix. @FILE is a file
    /// that holds both. The witness must know the trail, by the key that is said when it is made.
    #[arg(long, value_name = "VKEY@URL", value_parser = witness::parse)]
    pub witness: Vec<Witness>,
    /// How long a witness may take to answer, 1s to 1h
    #[arg(long, value_name = "TIME", value_parser = witness::parse_timeout, default_value = "10s")]
    pub witness_timeout: Duration,
    /// Seconds to wait for a running writer
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u64,
}

const AFTER_HELP: &str = "\
Prints a checkpoint of the trail: a signed note that says how many records it has and what the root of their tree is. \
Kept elsewhere, it shows later whether anything before it was changed or cut off.

If a writer runs on the trail, it is asked for a checkpoint over all that it has accepted, which is printed once it \
is durable. If none runs, the newest note at the end of a sealed segment is printed; what a writer that died has left \
behind it is sealed and signed by the next one.

With --witness the checkpoint is printed and copied with the cosignatures of the witnesses that have given theirs, each of which was verified with its key. A witness signs only what continues the last checkpoint that it has seen of this trail: `graven verify --witness-key` shows later who saw how many records, and when. HTTPS_PROXY, HTTP_PROXY and NO_PROXY are followed.

Exit codes:
  0  the checkpoint was printed, and copied and cosigned as it was asked for
  1  a witness has seen another trail than this one: it was forked, or rolled back; the checkpoint was printed
  2  usage, not a trail, not signed, the writer does not answer, or a copy or a cosignature is missing

Examples:
  graven checkpoint /var/lib/graven/trail > last.checkpoint
  graven checkpoint /var/lib/graven/trail --to /mnt/elsewhere/checkpoints
  graven checkpoint /var/lib/graven/trail --exec 'ssh vault tee -a checkpoints'
  graven checkpoint /var/lib/graven/trail --witness 'w.example/w1+1a2b3c4d+BOv…@https://w.example' > cosigned.note
  graven checkpoint /var/lib/graven/trail --witness @/etc/graven/w1 --witness @/etc/graven/w2";

/// How often an answer is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Gets the checkpoint, prints it and copies it.
#[must_use]
pub fn run(args: &Args) -> Exit {
    let Some(dir) = super::open(&args.dir) else { return Exit::CannotCheck };
    let get = || match dir.writer {
        Some(writer) => ask(&dir.path, writer, Duration::from_secs(args.timeout)),
        None => newest_sealed(&dir),
    };
    let note = match get() {
        Ok(note) => note,
        Err(failed) => {
            failed.at(escape::path(&dir.path)).emit();
            return Exit::CannotCheck;
        }
    };
    let (note, cosigned) = match &args.witness[..] {
        [] => (note, Exit::Success),
        witnesses => cosign::all(&dir, note, witnesses, args.witness_timeout, get),
    };
    let mut out = output::raw();
    let written = out.write_all(note.as_bytes()).and_then(|()| out.flush());
    let mut exit = output::ended(written, cosigned);
    let to = args.to.iter().cloned().map(Target::File);
    for target in to.chain(args.exec.iter().cloned().map(Target::Command)) {
        if let Err(why) = target.deliver(&note) {
            Diagnostic::error(format!("the checkpoint did not go to {}: {why}", target.name()))
                .emit();
            // That a witness disagrees is graver.
            exit = if exit == Exit::Damage { exit } else { Exit::CannotCheck };
        }
    }
    exit
}

/// Asks the running writer, and waits for its answer.
fn ask(dir: &Path, writer: Writer, timeout: Duration) -> Result<String, Diagnostic> {
    let not_asked = |why: &str| {
        Diagnostic::error(format!("the writer of this trail cannot be asked: {why}"))
            .help("its checkpoints are in the trail, and where `--checkpoint-to` says")
    };
    let pid = writer.pid.and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    let pid = pid.ok_or_else(|| not_asked("its pid is not known"))?;
    // From here on the descriptor is that process, or one that took its place before the next look.
    let process =
        pidfd_open(pid, PidfdFlags::empty()).map_err(|why| not_asked(&why.to_string()))?;
    if live::writer_of(dir).is_none_or(|now| now != writer) {
        return Err(not_asked("it has just ended"));
    }
    if !catches(pid, request_signal()) {
        return Err(not_asked("it is not a `graven record` or `graven run` that answers"));
    }
    if !is_signed(dir) {
        return Err(unsigned());
    }
    let path = dir.join(name::CHECKPOINT);
    let before = stamp(&path);
    // SAFETY: the number is one that the C library leaves to programs.
    let signal = unsafe { Signal::from_raw_unchecked(request_signal()) };
    pidfd_send_signal(&process, signal).map_err(|why| not_asked(&why.to_string()))?;
    let start = Instant::now();
    while stamp(&path) == before {
        if start.elapsed() > timeout {
            return Err(not_asked("it does not answer; it may wait for the disk"));
        }
        if live::writer_of(dir).is_none() {
            return Err(not_asked("it has ended before it answered"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    read_note(&path).map_err(|why| not_asked(&format!("its answer cannot be read: {why}")))
}

/// Whether the process has a handler for this signal: it would end others.
fn catches(pid: Pid, signal: i32) -> bool {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// What tells one file from the next that takes its name.
fn stamp(path: &Path) -> Option<(u64, i64, i64)> {
    let of = |it: Metadata| (it.ino(), it.ctime(), it.ctime_nsec());
    path.symlink_metadata().ok().map(of)
}

fn read_note(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = crate::trail::dir::open_regular(path)?;
    file.take(NOTE_STORED_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    Note::parse(text.as_bytes()).map_err(io::Error::other)?;
    Ok(text)
}

/// Whether the newest segment begins with a key.
fn is_signed(dir: &Path) -> bool {
    let Ok(dir) = TrailDir::open(dir) else { return false };
    // A writer that has no record yet has no segment: it will have a key if the directory has one.
    let Some(last) = dir.segments.last() else { return dir.path.join(name::KEY).exists() };
    let header = dir.open_segment(last).and_then(|file| ends::header(&file));
    header.is_ok_and(|header| header.is_ok_and(|header| header.key != [0; 32]))
}

/// The note of the newest sealed segment.
fn newest_sealed(dir: &TrailDir) -> Result<String, Diagnostic> {
    for segment in dir.segments.iter().rev() {
        let read = dir.open_segment(segment).and_then(|file| ends::trailer(&file));
        let trailer =
            read.map_err(|why| Diagnostic::error(format!("{}: {why}", segment.name())))?;
        // The last one may not be sealed.
        let Ok((trailer, _)) = trailer else { continue };
        if trailer.note.is_empty() {
            return Err(unsigned());
        }
        let text = String::from_utf8_lossy(&trailer.note).into_owned();
        return match Note::parse(&trailer.note) {
            Ok(_) => Ok(text),
            Err(why) => {
                Err(Diagnostic::error(format!("{}: its checkpoint: {why}", segment.name())))
            }
        };
    }
    Err(Diagnostic::error("the trail has no sealed segment, and so no checkpoint at an end"))
}

fn unsigned() -> Diagnostic {
    Diagnostic::error("the trail is not signed: it has no key")
        .help("`--restart-key` gives it one when recording goes on")
}
