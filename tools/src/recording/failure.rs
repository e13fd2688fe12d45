//! Why recording ended, as an exit code and what to say.

use crate::diag::Diagnostic;
use crate::escape;
use crate::exit::Exit;
use graven_writer::keys::KeyTrouble;
use graven_writer::{OpenError, WriteError};
use rustix::io::Errno;
use std::io;

/// What to do when a thread cannot be started.
const THREADS_HELP: &str = "raise the limit on processes and threads: `ulimit -u`, TasksMax= of the \
    service, pids.max of the cgroup";

/// An end that is not well.
#[derive(Debug)]
pub struct Failure {
    /// What the process ends with.
    pub exit: Exit,
    /// What to say.
    pub diagnostic: Diagnostic,
}

impl Failure {
    /// A failure of one sentence, which is escaped here.
    #[must_use]
    pub fn new(exit: Exit, title: &str) -> Self {
        let title = escape::Escaped(title.as_bytes()).to_string();
        Self { exit, diagnostic: Diagnostic::error(title) }
    }

    /// A thread that could not be started, because of a limit on threads most likely.
    #[must_use]
    pub fn thread(exit: Exit, why: &io::Error) -> Self {
        Self::new(exit, &format!("cannot start a thread: {why}")).help(THREADS_HELP)
    }

    /// The same with where it is.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.diagnostic = self.diagnostic.at(place);
        self
    }

    /// The same with what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.diagnostic = self.diagnostic.help(help);
        self
    }

    /// The same with what else is known.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.diagnostic = self.diagnostic.note(note);
        self
    }

    /// Says it and returns the exit code.
    #[must_use]
    pub fn emit(self) -> Exit {
        self.diagnostic.emit();
        self.exit
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let text = error.to_string();
        match error {
            OpenError::Write(error) => error.into(),
            OpenError::Damaged(refusal) => Self::new(Exit::Damage, &text)
                .note(format!(
                    "what had been announced durable is not what it was, in segment {}",
                    refusal.segment
                ))
                .help(
                    "keep the directory as evidence and record to a new one; `graven verify` says what \
                     is damaged, `graven export` writes what is intact",
                ),
            OpenError::Format { source, .. } if source.is_unsupported() => {
                Self::new(Exit::CannotCheck, &text).help("use the version of graven that wrote it")
            }
            OpenError::Format { .. } => Self::new(Exit::Damage, &text)
                .help("keep the directory as evidence and record to a new one"),
            OpenError::Locked { .. } => Self::new(Exit::CannotCheck, &text)
                .note("a trail has one writer")
                .help("stop the other one, or record to another directory"),
            OpenError::Ending { .. } => Self::new(Exit::CannotCheck, &text)
                .note("what it has begun to write may still reach the disk")
                .help("look at the device; start again once it answers"),
            OpenError::Foreign { .. } => Self::new(Exit::CannotCheck, &text)
                .note("nothing in it was changed")
                .help("name an empty directory, or one that does not exist"),
            OpenError::Key(KeyTrouble::Missing { in_force, .. }) => {
                Self::new(Exit::CannotCheck, &text)
                    .note("nothing was recorded; without the key nobody can sign what follows")
                    .note(format!("its public key begins with {}", public_start(&in_force.key)))
                    .help(
                        "put its file `key` back; or go on with `--restart-key`: a new first key, and a \
                         break that `graven verify` shows",
                    )
            }
            OpenError::Key(_) => Self::new(Exit::CannotCheck, &text)
                .note("nothing was recorded")
                .help("name the key that `graven keygen` made for this trail, or no key"),
            OpenError::NotADirectory(_) | OpenError::Option { .. } => {
                Self::new(Exit::CannotCheck, &text)
            }
            OpenError::Io { source, .. } if is_no_room(&source) => {
                Self::new(Exit::NoRoom, &text).note("no record was taken").help("make room and start again")
            }
            // Only threads are refused in this way.
            OpenError::Io { source, .. } if source.kind() == io::ErrorKind::WouldBlock => {
                Self::new(Exit::CannotCheck, &text).note("no record was taken").help(THREADS_HELP)
            }
            OpenError::Io { .. } => Self::new(Exit::CannotCheck, &text)
                .note("no record was taken")
                .help("`graven doctor --trail DIR` says what stands in the way"),
        }
    }
}

/// Enough of a public key to tell it from others.
fn public_start(key: &[u8; 32]) -> String {
    key[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the disk, or the user's share of it, is full.
fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let text = error.to_string();
        let unannounced = error.unannounced();
        let count = unannounced.end - unannounced.start;
        let which = format!("{count} accepted records, seq {unannounced:?}");
        if error.no_room {
            // Only a wait that was given up is no answer of the system; who did so knows of waiting.
            let help = match error.source.raw_os_error() {
                Some(_) => "make room and start again, or use `--on-full wait`",
                None => "make room and start again",
            };
            let failure = Self::new(Exit::NoRoom, &text)
                .note("the trail is as it should be; only room is missing")
                .help(help);
            return match count {
                0 => failure,
                _ => failure.note(format!("{which}, were never made durable and are gone")),
            };
        }
        let failure = Self::new(Exit::Storage, &text);
        let failure = match count {
            0 => failure,
            _ => failure
                .note(format!("{which}, were not announced durable; some may be on the disk")),
        };
        if error.source.raw_os_error() == Some(Errno::CANCELED.raw_os_error()) {
            return failure
                .note(
                    "the kernel cancels what it has no thread for: io_uring needs some of its own",
                )
                .help(format!("{THREADS_HELP}; or use `--disk sync`"));
        }
        failure
            .note("a failed write is never tried again: what it left on the disk is not known")
            .help("look at the device first; the next start reads the truth from the disk and goes on")
    }
}
