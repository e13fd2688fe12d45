//! Checkpoints beside recording: copies of each to where they were asked for, answers to
//! `graven checkpoint`, and what is wrong with keys. None of it touches a record, or makes one wait.

use crate::deliver::Target;
use crate::diag::{Diagnostic, Level};
use crate::escape;
use crate::exit::Exit;
use crate::recording::{Failure, TrailArgs};
use graven_format::name;
use graven_writer::{Asker, Checkpoints};
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, Scope};
use std::time::Duration;

/// Shortest and longest wait before a failed copy is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How often the last checkpoint is tried once recording has ended.
const LAST_TRIES: u32 = 3;

/// The signal by which `graven checkpoint` asks a running writer for one.
#[must_use]
pub fn request_signal() -> i32 {
    libc::SIGRTMIN() + 1
}

/// Starts a thread for each place that checkpoints are copied to, and one that answers requests. What the last
/// writer left was copied then, unless `recovered`: nobody else has seen what recovery has signed.
///
/// # Errors
/// [`Failure`] with `exit` if there is no thread: no record was taken.
pub fn follow<'scope>(
    scope: &'scope Scope<'scope, '_>,
    args: &TrailArgs,
    asker: Asker,
    recovered: bool,
    exit: Exit,
) -> Result<(), Failure> {
    let no_thread = |why: io::Error| Failure::thread(exit, &why).note("no record was taken");
    let targets = args
        .checkpoint_to
        .iter()
        .cloned()
        .map(Target::File)
        .chain(args.checkpoint_exec.iter().cloned().map(Target::Command));
    for target in targets {
        let checkpoints = asker.checkpoints();
        let done = checkpoints.newest().filter(|_| !recovered).map(|newest| newest.number);
        thread::Builder::new()
            .name("graven-copies".to_owned())
            .spawn_scoped(scope, move || copy_all(&target, &checkpoints, done))
            .map_err(no_thread)?;
    }
    let (mut arrived, sender) = UnixStream::pair().map_err(no_thread)?;
    signal_hook::low_level::pipe::register(request_signal(), sender).map_err(no_thread)?;
    let dir = args.trail.clone();
    // Not joined: no request may ever come.
    thread::Builder::new()
        .name("graven-requests".to_owned())
        .spawn(move || {
            while arrived.read_exact(&mut [0]).is_ok() {
                answer(&dir, &asker);
            }
        })
        .map(drop)
        .map_err(no_thread)
}

/// Copies each checkpoint after that of the number `done` to `target`, or at least the newest after a failure,
/// until the writer has ended.
fn copy_all(target: &Target, checkpoints: &Checkpoints, mut done: Option<u64>) {
    let (mut wait, mut failing) = (BACKOFF.0, false);
    let mut tries_left = LAST_TRIES;
    while let Ok(newest) = checkpoints.wait_after(done) {
        match target.deliver(&newest.note) {
            Ok(()) => {
                if failing {
                    let text = format!("checkpoints go to {} again", target.name());
                    Diagnostic::new(Level::Note, text).emit();
                }
                (done, wait, failing) = (Some(newest.number), BACKOFF.0, false);
            }
            Err(why) => {
                if !failing {
                    Diagnostic::warning(format!("no checkpoint goes to {}: {why}", target.name()))
                        .note("recording goes on, and the newest checkpoint is tried again")
                        .emit();
                }
                failing = true;
                if checkpoints.has_ended() {
                    tries_left -= 1;
                    if tries_left == 0 {
                        return lost(target, newest.size);
                    }
                    wait = BACKOFF.0;
                }
                thread::sleep(wait);
                wait = (wait * 2).min(BACKOFF.1);
            }
        }
    }
}

/// The last checkpoint did not get there.
fn lost(target: &Target, size: u64) {
    Diagnostic::error(format!("the last checkpoint did not go to {}", target.name()))
        .note(format!("it covers {size} records, and the trail ends with it"))
        .help("`graven checkpoint DIR` prints it")
        .emit();
}

/// Writes a checkpoint over all that was accepted where `graven checkpoint` looks for it. Who asks an
/// unsigned trail, or one that has ended, reads that from the trail.
fn answer(dir: &Path, asker: &Asker) {
    let Ok(checkpoint) = asker.checkpoint() else { return };
    let (path, temporary) = (dir.join(name::CHECKPOINT), dir.join(name::CHECKPOINT_TMP));
    let write = || {
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(checkpoint.note.as_bytes())?;
        fs::rename(&temporary, &path)
    };
    if let Err(why) = write() {
        Diagnostic::warning(format!("cannot answer `graven checkpoint`: {why}"))
            .at(escape::path(&path))
            .emit();
    }
}

/// What cannot be done about keys, if that is so at the end.
pub fn say_trouble(checkpoints: &Arc<Checkpoints>) {
    if let Some(trouble) = checkpoints.trouble() {
        Diagnostic::warning(escape::Escaped(trouble.as_bytes()).to_string())
            .note(
                "the trail is complete and signed; the next start goes on with the change of keys",
            )
            .emit();
    }
}
