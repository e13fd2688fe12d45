//! Checkpoints cosigned by witnesses while recording goes on: on a thread that touches no record, at least the
//! newest one each time. A witness that does not answer costs the others no more than its time for an answer.

use crate::deliver::Target;
use crate::diag::{Diagnostic, Level};
use crate::escape;
use crate::exit::Exit;
use crate::recording::{Failure, TrailArgs};
use crate::witness::{Cosignature, Session, Witness, WitnessError, log_key};
use graven_format::lines::origin;
use graven_format::name;
use graven_format::note::SecretKey;
use graven_format::segment::TrailId;
use graven_writer::own::{self, Own};
use graven_writer::{Asker, Published, clock};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::mem::{Discriminant, discriminant};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

/// Shortest and longest wait before a witness is asked again that did not sign.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Of so many parts of time at most one goes into proofs and waiting for a witness: a proof reads what may be
/// a whole segment.
const PARTS: u32 = 10;

/// How often it is looked whether something is to be done while a witness is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// Whether a witness has seen another trail than this one, now.
#[derive(Clone, Debug, Default)]
pub struct Disagreement(Arc<AtomicBool>);

impl Disagreement {
    /// What the command ends with then, instead of `exit`, everything being durable all the same.
    #[must_use]
    pub fn failure(&self, exit: Exit) -> Option<Failure> {
        let failure = || {
            Failure::new(exit, "a witness has seen another trail than this one")
                .note("everything that was recorded is durable")
                .help("compare the trail with the witness's last checkpoint: `graven verify --checkpoint`")
        };
        self.0.load(Ordering::Relaxed).then(failure)
    }
}

/// Starts the thread, if there is a witness.
///
/// # Errors
/// [`Failure`] with `exit` if there is no thread, or no key for witnesses: no record was taken.
pub fn follow<'scope>(
    scope: &'scope Scope<'scope, '_>,
    args: &TrailArgs,
    trail_id: TrailId,
    asker: Asker,
    exit: Exit,
) -> Result<Disagreement, Failure> {
    let disagreement = Disagreement::default();
    if args.witness.is_empty() {
        return Ok(disagreement);
    }
    let (key, made) = log_key::open(&args.trail, &origin(trail_id)).map_err(|why| {
        Failure::new(exit, &format!("there is no key by which witnesses know the trail: {why}"))
            .note("no record was taken")
    })?;
    if made && !args.quiet {
        say_key(&args.trail, &key);
    }
    let copies = (args.checkpoint_to.iter().cloned().map(Target::File))
        .chain(args.checkpoint_exec.iter().cloned().map(Target::Command));
    let keeper = Keeper { dir: args.trail.clone(), copies: copies.collect(), failing: false };
    let links = args.witness.iter().cloned().map(Link::new).collect();
    let work = Work {
        links,
        key,
        keeper,
        timeout: args.witness_timeout,
        disagreement: disagreement.clone(),
    };
    thread::Builder::new()
        .name("graven-witness".to_owned())
        .spawn_scoped(scope, move || work.run(&asker))
        .map_err(|why| Failure::thread(exit, &why).note("no record was taken"))?;
    Ok(disagreement)
}

/// Who runs a witness must be told the key.
pub fn say_key(dir: &Path, key: &SecretKey) {
    Diagnostic::new(Level::Note, "a key by which witnesses know this trail was made")
        .at(escape::path(&dir.join(log_key::KEY_WITNESS)))
        .note(format!("its public key is {}", key.public()))
        .help("tell it to who runs the witness; whoever verifies the trail does not need it")
        .emit();
}

/// Says that a witness has not signed.
#[must_use]
pub fn diagnostic(witness: &Witness, why: &WitnessError, key: &SecretKey) -> Diagnostic {
    let name = escape::Escaped(witness.key.name().as_bytes());
    let text = format!("the witness {name} does not cosign: {why}");
    let level = if why.is_disagreement() { Level::Error } else { Level::Warning };
    let said = Diagnostic::new(level, text).at(escape::Escaped(witness.url.as_bytes()).to_string());
    match why.help(key) {
        Some(help) => said.help(help),
        None => said,
    }
}

/// A witness and how far it is.
struct Link {
    session: Session,
    /// The number of the newest checkpoint that it has cosigned, and its line.
    cosigned: Option<(u64, String)>,
    /// It is left alone until then.
    next: Instant,
    wait: Duration,
    /// What was said of it and still is so.
    failing: Option<Discriminant<WitnessError>>,
    /// Whether the trail says that it has seen another one.
    recorded: bool,
}

impl Link {
    fn new(witness: Witness) -> Self {
        let (session, next) = (Session::new(witness), Instant::now());
        Self { session, cosigned: None, next, wait: BACKOFF.0, failing: None, recorded: false }
    }

    fn has(&self, number: u64) -> bool {
        self.cosigned.as_ref().is_some_and(|(cosigned, _)| *cosigned == number)
    }

    /// Asks, and keeps what it says.
    fn ask(&mut self, work: &Asking<'_>) -> Result<(), WitnessError> {
        let (begun, newest) = (Instant::now(), &work.newest);
        // Should this thread die of it, the witness is left alone for a while.
        self.next = begun + self.wait;
        let answer = self.session.cosign(work.dir, work.key, &newest.note, work.timeout);
        match answer {
            Ok(Cosignature { line, .. }) => {
                self.cosigned = Some((newest.number, line));
                self.wait = BACKOFF.0;
                self.next = Instant::now() + begun.elapsed() * (PARTS - 1);
                Ok(())
            }
            Err(why) => {
                self.next = Instant::now() + self.wait;
                self.wait = (self.wait * 2).min(BACKOFF.1);
                Err(why)
            }
        }
    }
}

/// What a witness is asked.
struct Asking<'a> {
    dir: &'a Path,
    key: &'a SecretKey,
    newest: Arc<Published>,
    timeout: Duration,
}

/// The thread.
struct Work {
    links: Vec<Link>,
    key: SecretKey,
    keeper: Keeper,
    timeout: Duration,
    disagreement: Disagreement,
}

impl Work {
    /// Until the writer has ended and the last checkpoint is cosigned, or was tried for the time of one answer.
    fn run(mut self, asker: &Asker) {
        let checkpoints = asker.checkpoints();
        let mut given_up_at = None;
        loop {
            // Looked at before the newest: then nothing comes after it.
            let ended = checkpoints.has_ended();
            let Some(newest) = checkpoints.newest() else {
                if checkpoints.wait_after(None).is_err() {
                    return;
                }
                continue;
            };
            if self.links.iter().all(|link| link.has(newest.number)) {
                if ended {
                    return;
                }
                // Its end is looked at above.
                let _ = checkpoints.wait_after(Some(newest.number));
                continue;
            }
            let now = Instant::now();
            if ended && given_up_at.is_none() {
                given_up_at = Some(now + self.timeout);
                // What was left alone is asked once more at once.
                self.links.iter_mut().for_each(|link| (link.next, link.wait) = (now, BACKOFF.0));
            }
            if given_up_at.is_some_and(|at| now >= at) {
                return self.give_up(&newest);
            }
            let until_end = given_up_at.map_or(self.timeout, |at| at - now);
            let timeout = self.timeout.min(until_end);
            if !self.ask(newest, timeout, asker) {
                thread::sleep(LOOK.min(until_end));
            }
        }
    }

    /// Asks those that are due, at once, and keeps what they have signed. Whether there was one.
    fn ask(&mut self, newest: Arc<Published>, timeout: Duration, asker: &Asker) -> bool {
        let (now, number) = (Instant::now(), newest.number);
        let asking = Asking { dir: &self.keeper.dir, key: &self.key, newest, timeout };
        let due = |link: &&mut Link| link.next <= now && !link.has(number);
        let answers: Vec<_> = thread::scope(|scope| {
            let asked = self.links.iter_mut().filter(due).map(|link| {
                let asking = &asking;
                let name = "graven-witness".to_owned();
                // Without a thread it is asked later.
                (thread::Builder::new().name(name))
                    .spawn_scoped(scope, move || (link.ask(asking), link))
            });
            let asked: Vec<_> = asked.collect();
            asked.into_iter().flatten().filter_map(|thread| thread.join().ok()).collect()
        });
        let any = !answers.is_empty();
        let mut cosigned = false;
        for (answer, link) in answers {
            cosigned |= answer.is_ok();
            say(link, answer, &self.key, asker);
        }
        if cosigned {
            let lines = self.links.iter().filter(|link| link.has(number));
            let lines = lines.filter_map(|link| Some(link.cosigned.as_ref()?.1.as_str()));
            let note = lines.fold(asking.newest.note.clone(), |note, line| note + line);
            self.keeper.keep(&note);
        }
        let disagrees = self.links.iter().any(Link::disagrees);
        self.disagreement.0.store(disagrees, Ordering::Relaxed);
        any
    }

    /// The last checkpoint is not cosigned by all.
    fn give_up(&self, newest: &Published) {
        for link in self.links.iter().filter(|link| !link.has(newest.number)) {
            let witness = link.session.witness();
            let name = escape::Escaped(witness.key.name().as_bytes());
            Diagnostic::error(format!("the witness {name} has not cosigned the last checkpoint"))
                .note(format!("it covers {} records, and the trail ends with it", newest.size))
                .help("`graven checkpoint DIR --witness …` tries again")
                .emit();
        }
    }
}

impl Link {
    fn disagrees(&self) -> bool {
        let any = [WitnessError::Forked { size: 0 }, WitnessError::Ahead { seen: 0, size: 0 }];
        self.failing.is_some_and(|failing| any.iter().any(|it| discriminant(it) == failing))
    }
}

/// Says once that a witness does not sign, and once that it does again. That it has seen another trail is said in
/// the trail too.
fn say(link: &mut Link, answer: Result<(), WitnessError>, key: &SecretKey, asker: &Asker) {
    let witness = link.session.witness();
    match answer {
        Ok(()) => {
            if link.failing.take().is_some() {
                let name = escape::Escaped(witness.key.name().as_bytes());
                Diagnostic::new(Level::Note, format!("the witness {name} cosigns again")).emit();
            }
        }
        // Another process had a newer one of this very trail cosigned.
        Err(WitnessError::Ahead { seen, .. })
            if asker.checkpoints().newest().is_some_and(|newest| newest.size >= seen) =>
        {
            link.next = Instant::now();
        }
        Err(why) => {
            if link.failing != Some(discriminant(&why)) {
                let said = diagnostic(witness, &why, key);
                said.note("recording goes on, and the newest checkpoint is tried again").emit();
            }
            if !link.recorded
                && let Some(own) = own(witness, &why)
            {
                // A full ring has no room for it now: it is tried again with the next answer.
                link.recorded = asker.try_append(&own.record()).is_ok();
            }
            link.failing = Some(discriminant(&why));
        }
    }
}

/// What the trail says of a witness that has seen another one.
fn own(witness: &Witness, why: &WitnessError) -> Option<Own> {
    let (seen, word) = match why {
        WitnessError::Forked { size } => (size, "forked"),
        WitnessError::Ahead { seen, .. } => (seen, "rolled-back"),
        _ => return None,
    };
    let own = Own::new(own::ERR, "witness-disagrees", clock::now());
    let own = own.text("witness", witness.key.name().as_bytes()).field("seen", seen);
    Some(own.field("cause", word).result(false))
}

/// Where cosigned checkpoints are kept: the newest in the trail's directory, and all where copies go.
struct Keeper {
    dir: PathBuf,
    copies: Vec<Target>,
    failing: bool,
}

impl Keeper {
    fn keep(&mut self, note: &str) {
        let path = self.dir.join(name::COSIGNED);
        let here = (escape::path(&path), replace(&path, &self.dir.join(name::COSIGNED_TMP), note));
        let copies = self.copies.iter().map(|copy| (copy.name(), copy.deliver(note)));
        let failed =
            std::iter::once(here).chain(copies).filter_map(|(to, done)| Some((to, done.err()?)));
        let failed: Vec<_> = failed.collect();
        if !self.failing {
            for (to, why) in &failed {
                Diagnostic::warning(format!("no cosigned checkpoint goes to {to}: {why}"))
                    .note("recording goes on, and the next one is tried again")
                    .emit();
            }
        }
        self.failing = !failed.is_empty();
    }
}

/// Puts a note in the place of another.
fn replace(path: &Path, temporary: &Path, note: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
    file.write_all(note.as_bytes())?;
    file.sync_data()?;
    fs::rename(temporary, path)
}
