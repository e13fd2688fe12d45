//! The keys of a simulated trail: two files, each change of which can be cut off between any of its
//! steps, and of which a power cut leaves what was there before or after what no barrier covers.

use crate::rng::Rng;
use graven_format::TrailId;
use graven_format::key_file::{KeyFile, KeyFileError};
use graven_format::lines::origin;
use graven_format::note::SecretKey;
use graven_writer::disk::Wake;
use graven_writer::keys::{Choice, KeyDone, KeyOp, KeyStore, LocalKeys};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

/// What a file holds.
#[derive(Clone, Debug)]
enum Content {
    Missing,
    /// A part of what was written.
    Torn,
    Zeros,
    Key(Box<KeyFile>),
}

/// Both files, and what is being done to them.
#[derive(Clone, Debug)]
pub(crate) struct SimKeys {
    rng: Rng,
    trail_id: TrailId,
    /// Whether operations fail at times.
    faults: bool,
    key: Content,
    next: Content,
    doing: Option<(KeyOp, u32)>,
    done: Option<Result<(), ()>>,
}

/// A store that the engine and the stage share.
pub(crate) type SharedKeys = Rc<RefCell<SimKeys>>;

impl SimKeys {
    /// The files of a new trail, with its first key.
    pub(crate) fn new(seed: u64, trail_id: TrailId, faults: bool) -> Self {
        let (key, next) = (Content::Missing, Content::Missing);
        let rng = Rng::new(seed, 5);
        let mut new = Self { rng, trail_id, faults, key, next, doing: None, done: None };
        new.key = Content::Key(Box::new(new.make(0, 0, 0)));
        new
    }

    fn make(&mut self, epoch: u64, since_ns: u64, segment: u64) -> KeyFile {
        let mut seed = [0; 32];
        for piece in seed.as_chunks_mut::<8>().0 {
            *piece = self.rng.next().to_le_bytes();
        }
        let trail_id = self.trail_id;
        let key = SecretKey::from_seed(&origin(trail_id), &seed).expect("a name");
        KeyFile { epoch, since_ns, segment, key, trail_id }
    }

    /// Whether an operation has not ended.
    pub(crate) fn is_busy(&self) -> bool {
        self.doing.is_some()
    }

    /// Goes one step on with what is being done; returns whether that ends it.
    pub(crate) fn step(&mut self) -> bool {
        let Some((op, step)) = self.doing else { return false };
        if self.faults && self.rng.one_in(8) {
            (self.doing, self.done) = (None, Some(Err(())));
            return true;
        }
        let more = match (op, step) {
            (KeyOp::Prepare { .. }, 0) => {
                self.next = Content::Torn;
                true
            }
            (KeyOp::Prepare { epoch, since_ns, segment }, 1) => {
                self.next = Content::Key(Box::new(self.make(epoch, since_ns, segment)));
                true
            }
            // The name was changed before: only the barrier of the directory is missing.
            (KeyOp::Install, 0) if matches!(self.next, Content::Missing) => {
                self.doing = Some((op, 2));
                true
            }
            (KeyOp::Install, 0) => {
                self.key = Content::Zeros;
                true
            }
            (KeyOp::Install, 1) => true,
            (KeyOp::Install, 2) => {
                self.key = std::mem::replace(&mut self.next, Content::Missing);
                true
            }
            _ => false,
        };
        if more {
            let step = self.doing.map_or(step, |(_, step)| step);
            self.doing = Some((op, step + 1));
        } else {
            (self.doing, self.done) = (None, Some(Ok(())));
        }
        !more
    }

    /// What a sudden end leaves.
    pub(crate) fn after(&self, power_cut: bool, seed: u64) -> Self {
        let mut left = self.clone();
        let mut rng = Rng::new(seed, 6);
        (left.doing, left.done) = (None, None);
        // What failed may have been left without its barrier too.
        let doing = self.doing.filter(|_| power_cut);
        match doing {
            Some((KeyOp::Prepare { .. }, 1 | 2)) => match rng.below(3) {
                0 => left.next = Content::Missing,
                1 => left.next = Content::Torn,
                _ => {}
            },
            Some((KeyOp::Install, 1)) if rng.one_in(2) => left.key = Content::Torn,
            Some((KeyOp::Install, 3)) if rng.one_in(2) => {
                left.next = std::mem::replace(&mut left.key, Content::Zeros);
            }
            _ => {}
        }
        left
    }

    /// The keys as opening reads them.
    pub(crate) fn local(&self) -> LocalKeys {
        let mut local = LocalKeys::default();
        match &self.key {
            Content::Missing => {}
            Content::Torn => local.unreadable = KeyFile::parse(b"graven-key@v1\n").err(),
            Content::Zeros => local.unreadable = Some(KeyFileError::Erased),
            Content::Key(file) => local.current = Some((**file).clone()),
        }
        local.next_exists = !matches!(self.next, Content::Missing);
        if let Content::Key(file) = &self.next {
            local.next = Some((**file).clone());
        }
        local
    }

    /// Does what opening does with its choice; returns false if it was cut off.
    pub(crate) fn settle(&mut self, choice: &Choice, cut: bool) -> bool {
        match choice {
            Choice::Next(_) if cut => {
                self.key = Content::Zeros;
                return false;
            }
            Choice::Next(_) => self.key = std::mem::replace(&mut self.next, Content::Missing),
            Choice::Current(_) => self.next = Content::Missing,
            Choice::Unsigned => {}
        }
        true
    }
}

/// The store of one writer.
pub(crate) struct SimStore {
    pub(crate) keys: SharedKeys,
}

impl KeyStore for SimStore {
    fn submit(&mut self, op: KeyOp) {
        let mut keys = self.keys.borrow_mut();
        assert!(keys.doing.is_none() && keys.done.is_none(), "one operation at a time");
        keys.doing = Some((op, 0));
    }

    fn poll(&mut self) -> Option<io::Result<KeyDone>> {
        let mut keys = self.keys.borrow_mut();
        let done = keys.done.take()?;
        Some(match (done, &keys.next) {
            (Err(()), _) => Err(io::Error::other("a simulated failure")),
            (Ok(()), Content::Key(next)) => Ok(KeyDone::Prepared(next.clone())),
            (Ok(()), _) => Ok(KeyDone::Installed),
        })
    }
}

/// Goes on with the store, which works on its own time, and wakes the engine when it has ended.
/// Returns how that went.
pub(crate) fn go_on(keys: &SharedKeys, wake: &Arc<dyn Wake>) -> Option<&'static str> {
    let mut keys = keys.borrow_mut();
    if !keys.step() {
        return None;
    }
    wake.wake();
    Some(match (&keys.done, &keys.next) {
        (Some(Err(())), _) => "keys: failed",
        (_, Content::Key(_)) => "keys: prepared",
        _ => "keys: installed",
    })
}
