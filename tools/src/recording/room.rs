//! A full disk, said while it lasts, because recording that waits in silence looks like recording that
//! hangs; and what signals mean meanwhile.
//!
//! The first signal ends the source and gives nothing up. A signal that comes after it was said how
//! many records wait gives them up. See `docs/decisions/0007-two-signals-give-up.md`.

use crate::diag::{Diagnostic, Level};
use crate::escape;
use crate::exit::Exit;
use crate::recording::{Failure, TrailArgs, checkpoints, summary, witnesses};
use crate::status::{self, Board};
use graven_writer::policy::gate::Gate;
use graven_writer::{Room, RoomChange, Trail};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// What a command has to say about a full disk.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// What a wait means for those who make records.
    pub producers: &'static str,
    /// Where records come from.
    pub source: &'static str,
    /// How the command ends when no thread can be started.
    pub no_thread: Exit,
    /// How it ends when waiting is given up.
    pub given_up: Exit,
    /// How it ends when all is well but a witness has seen another trail; as it would otherwise if `None`.
    pub disagreed: Option<Exit>,
}

/// How far the end of recording is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No signal has come.
    Recording,
    /// One has, and records became durable or still do.
    Ending,
    /// One has, and it was said since that another gives up what waits for room.
    Warned,
}

/// Recording, for the signals that end it.
#[derive(Debug)]
pub struct Ending {
    /// Where its status is told.
    pub board: Arc<Board>,
    room: Arc<Room>,
    gate: Arc<Gate>,
    stage: Mutex<Stage>,
    trail: PathBuf,
    segment_bytes: u64,
    words: Words,
}

/// Runs `record` on the trail while another thread says when it begins to wait for room and when it
/// goes on. `record` closes the trail.
///
/// # Errors
/// What `record` says, or that there is no thread: then no record was taken.
pub fn while_told<T>(
    args: &TrailArgs,
    trail: Trail,
    words: Words,
    record: impl FnOnce(Trail, Arc<Ending>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (observer, interval) = (trail.observer(), args.checkpoint_interval.0);
    let board = Arc::new(Board::new(observer, &args.trail, words.source, interval));
    let ending = Arc::new(Ending {
        board: Arc::clone(&board),
        room: trail.room(),
        gate: trail.gate(),
        stage: Mutex::new(Stage::Recording),
        trail: args.trail.clone(),
        segment_bytes: args.segment_bytes,
        words,
    });
    let followed = thread::scope(|scope| {
        let teller = Arc::clone(&ending);
        thread::Builder::new()
            .name("graven-room".to_owned())
            .spawn_scoped(scope, move || teller.tell())
            .map_err(|why| Failure::thread(words.no_thread, &why).note("no record was taken"))?;
        let checkpoints = trail.checkpoints();
        let recovered = !trail.opened().recovered.steps.is_empty();
        checkpoints::follow(scope, args, trail.asker(), recovered, words.no_thread)?;
        let trail_id = trail.opened().trail_id;
        let (asker, exit) = (trail.asker(), words.no_thread);
        let disagreement = witnesses::follow(scope, args, trail_id, asker, exit)?;
        let _telling = status::tell(args, &board);
        let recorded = record(trail, ending);
        checkpoints::say_trouble(&checkpoints);
        recorded.map(|recorded| (recorded, disagreement))
    });
    // The scope has waited for the witnesses.
    let (recorded, disagreement) = followed?;
    match words.disagreed.and_then(|exit| disagreement.failure(exit)) {
        Some(failure) => Err(failure),
        None => Ok(recorded),
    }
}

impl Ending {
    /// A signal has come that means the recording.
    pub fn signal(&self) {
        // What was read is accepted, whoever was to wait: nothing more comes.
        self.gate.end();
        let before = std::mem::replace(&mut *self.stage(), Stage::Ending);
        match (self.room.is_missing(), before) {
            (true, Stage::Warned) => self.room.give_up(),
            (true, _) => self.warn(),
            // It ends by itself; should room be missing later, that is said, and asked, then.
            (false, _) => {}
        }
    }

    /// Says each wait once when it begins and once when it ends, until the writer has ended.
    fn tell(&self) {
        let mut seen = 0;
        while let Some(change) = self.room.next(&mut seen) {
            self.diagnostic(change).emit();
            let stage = *self.stage();
            if change == RoomChange::Missing && stage != Stage::Recording {
                self.warn();
            }
        }
    }

    /// Says what waits and how to give it up: only who has been told so can.
    fn warn(&self) {
        let waiting = self.room.unsettled();
        let count = waiting.end.saturating_sub(waiting.start);
        Diagnostic::warning(format!("cannot end yet: {count} records wait for room"))
            .at(escape::path(&self.trail))
            .note("once there is room they become durable and recording ends")
            .help(format!(
                "make room; or send another signal to end without them, with exit code {}",
                self.words.given_up.code()
            ))
            .emit();
        *self.stage() = Stage::Warned;
    }

    fn diagnostic(&self, change: RoomChange) -> Diagnostic {
        let diagnostic = match change {
            RoomChange::Missing => {
                Diagnostic::warning("the trail's filesystem has no room: recording waits")
                    .note(self.words.producers)
                    .help(format!(
                        "make room for a segment of {} bytes there, or raise the quota: recording \
                         goes on by itself",
                        self.segment_bytes
                    ))
            }
            // That room is the reserve's.
            RoomChange::Returned { .. } if self.gate.is_closed() => Diagnostic::new(
                Level::Note,
                "the reserve was given back: what was accepted becomes durable, and producers wait",
            ),
            RoomChange::Returned { waited_ns } => {
                let waited = summary::duration(waited_ns);
                let title = format!("there is room again after {waited}: recording goes on");
                Diagnostic::new(Level::Note, title)
            }
        };
        diagnostic.at(escape::path(&self.trail))
    }

    /// A thread that died with this lock held had nothing half done.
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
