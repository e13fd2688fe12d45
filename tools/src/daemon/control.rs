//! What the daemon is told while it records, by signals: to configure itself anew, to seal, to go on.
//!
//! Signals arrive on a thread of their own, which never waits: it ends recording itself, and hands all else to a second
//! one. That one may have to wait for room in the trail, for the record of what it did.

use super::reload::{self, Part, Reloaded};
use super::who::Who;
use super::{notify, records};
use crate::config::Config;
use crate::config::read::ConfigError;
use crate::daemon::rules::said_but_the_last;
use crate::diag::{Diagnostic, Level};
use crate::recording::Failure;
use graven_writer::Asker;
use graven_writer::own::Own;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

/// What somebody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGHUP: configure anew.
    Reload,
    /// SIGUSR1: seal the segment in use.
    Seal,
    /// SIGUSR2: go on, if something was suspended.
    Resume,
}

/// Where signals hand requests in.
#[derive(Clone, Debug)]
pub struct Desk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// None once it is closed.
    requests: Option<Sender<(Request, Who)>>,
    /// Who ended recording: the first that did.
    ended_by: Option<Who>,
}

impl Desk {
    /// A desk, and what is handed in there.
    #[must_use]
    pub fn new() -> (Self, Receiver<(Request, Who)>) {
        let (requests, handed_in) = channel();
        let state = State { requests: Some(requests), ended_by: None };
        (Self { state: Arc::new(Mutex::new(state)) }, handed_in)
    }

    /// Hands a request in. A desk that is closed takes none: recording has ended.
    pub fn hand_in(&self, request: Request, who: Who) {
        if let Some(requests) = &self.lock().requests {
            let _ = requests.send((request, who));
        }
    }

    /// Takes no more requests once what is returned is gone.
    #[must_use]
    pub fn open_until(&self) -> Closing<'_> {
        Closing(self)
    }

    /// Somebody has ended recording.
    pub fn set_ended_by(&self, who: Who) {
        self.lock().ended_by = Some(who);
    }

    /// Whoever has.
    #[must_use]
    pub fn ended_by(&self) -> Who {
        self.lock().ended_by.clone().unwrap_or_else(Who::nobody)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes a desk when it goes.
#[derive(Debug)]
pub struct Closing<'a>(&'a Desk);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.lock().requests = None;
    }
}

/// Reads the configuration, with what was given on the command line in it.
pub type Load<'a> = Box<dyn Fn() -> Result<Config, Vec<ConfigError>> + Send + 'a>;

/// What can be configured anew, and from where.
pub struct Reloading<'a> {
    /// The file.
    pub file: PathBuf,
    /// The configuration in force.
    pub config: Config,
    /// Reads it again.
    pub load: Load<'a>,
    /// What it is about.
    pub parts: Vec<Box<dyn Part + 'a>>,
}

/// Whoever does what is handed in.
pub struct Clerk<'a> {
    /// The trail.
    pub asker: Asker,
    /// Nothing can be configured anew without.
    pub reloading: Option<Reloading<'a>>,
    /// Has what was suspended go on; false if it cannot.
    pub resume: Box<dyn FnMut() -> bool + Send + 'a>,
    /// What the service manager is told that recording does.
    pub status: String,
    /// Whether to say only what goes wrong.
    pub quiet: bool,
}

impl<'a> Clerk<'a> {
    /// Starts the thread; it ends when the [`Desk`] is closed.
    ///
    /// # Errors
    /// There is none.
    pub fn start<'scope>(
        mut self,
        scope: &'scope Scope<'scope, '_>,
        handed_in: Receiver<(Request, Who)>,
    ) -> io::Result<()>
    where
        'a: 'scope,
    {
        let work = move || {
            for (request, who) in handed_in {
                match request {
                    Request::Reload => self.reload(&who),
                    Request::Seal => self.seal(&who),
                    Request::Resume => self.resume(&who),
                }
            }
        };
        std::thread::Builder::new()
            .name("graven-control".to_owned())
            .spawn_scoped(scope, work)
            .map(drop)
    }

    fn say(&self, text: String) {
        if !self.quiet {
            Diagnostic::new(Level::Note, text).emit();
        }
    }

    /// A trail that has ended takes no more records, and nobody asks it for any.
    fn record(&self, own: &Own) {
        let _ = own.append(&self.asker);
    }

    fn seal(&mut self, who: &Who) {
        // First, so that it stands in what it is about.
        self.record(&records::rotated(who));
        let seq = self.asker.seal_now();
        self.say(format!("sealing the segment in use: the next begins with seq {seq}"));
    }

    fn resume(&mut self, who: &Who) {
        let resumed = (self.resume)();
        self.record(&records::resumed(who, resumed));
    }

    fn reload(&mut self, who: &Who) {
        let Some(reloading) = &mut self.reloading else { return };
        notify::reloading();
        let reloaded = match (reloading.load)() {
            Ok(newer) => reload::reload(&mut reloading.config, newer, &mut reloading.parts),
            Err(errors) => {
                let failures = vec![said_but_the_last(&reloading.file, errors)];
                Reloaded { failures, ..Reloaded::default() }
            }
        };
        notify::ready(&self.status);
        let Reloaded { changed, waits, failures } = reloaded;
        let success = failures.is_empty();
        for failure in failures {
            let Failure { diagnostic, .. } = failure;
            let rest = if changed.is_empty() {
                "the configuration in force stays as it is"
            } else {
                "what else was changed is in force"
            };
            diagnostic.note(rest).emit();
        }
        if success && changed.is_empty() && waits.is_empty() {
            self.say("the configuration was read again: nothing in it has changed".to_owned());
        }
        if !changed.is_empty() {
            self.say(format!(
                "the configuration was read again: in force now: {}",
                changed.join(", ")
            ));
        }
        if !waits.is_empty() {
            Diagnostic::warning(format!(
                "these take effect at the next start: {}",
                waits.join(", ")
            ))
            .emit();
        }
        self.record(&records::reconfigured(who, &changed, &waits, success));
    }
}
