//! The keys that sign: which of those at hand signs at the trail's end, and how one takes the place
//! of the last.
//!
//! The engine performs no I/O of its own, with key files neither: it asks a [`KeyStore`] for the next
//! key and says when the last one may go. The order of a change, each step durable before the next:
//!
//! 1. [`KeyOp::Prepare`]: the next key is made and stands in `key.next`;
//! 2. a checkpoint that names it as successor, signed by the last key, is a record of the trail; what is
//!    signed after it is signed by the next key;
//! 3. [`KeyOp::Install`]: `key` is overwritten, and `key.next` takes its name.
//!
//! Wherever that is cut off, the trail's end says which key signs there: that of the last segment's header,
//! or the last successor named behind it. Opening takes that one from `key` or `key.next` ([`choose`]).

use graven_format::TrailId;
use graven_format::key_file::{KeyFile, KeyFileError};
use std::io;
use std::path::PathBuf;

pub mod files;

/// What a key store is asked to do, one thing at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOp {
    /// Make the key of this epoch and keep it durably beside the one that signs.
    Prepare {
        /// How many keys have signed before it.
        epoch: u64,
        /// Now, nanoseconds since 1970.
        since_ns: u64,
        /// The segment in use.
        segment: u64,
    },
    /// Erase the key that signed last and put the prepared one in its place, durably.
    Install,
}

/// What a key store has done.
#[derive(Debug)]
pub enum KeyDone {
    /// The next key, which is durable.
    Prepared(Box<KeyFile>),
    /// The last key is gone.
    Installed,
}

/// Keeps the keys of one trail. It works on its own time: nothing here waits for a disk.
pub trait KeyStore {
    /// Begins an operation; the one before it has ended.
    fn submit(&mut self, op: KeyOp);

    /// How the operation ended, once it has. Whoever sleeps in the disk's driver is woken then.
    fn poll(&mut self) -> Option<io::Result<KeyDone>>;
}

/// The keys that were found beside a trail.
#[derive(Clone, Debug, Default)]
pub struct LocalKeys {
    /// That in `key`.
    pub current: Option<KeyFile>,
    /// Why there is none in it, if there is such a file.
    pub unreadable: Option<KeyFileError>,
    /// That in `key.next`; none if it was not written to its end.
    pub next: Option<KeyFile>,
    /// Whether there is a file `key.next`.
    pub next_exists: bool,
    /// Whether the trail goes on with a new key if the one that signs at its end is not here.
    pub may_break: bool,
}

impl LocalKeys {
    /// The one whose public half this is.
    #[must_use]
    pub fn find(&self, public: &[u8; 32]) -> Option<&KeyFile> {
        self.current.iter().chain(&self.next).find(|file| file.key.public().bytes() == *public)
    }
}

/// The key that signs at the end of a trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// How many keys have signed before it.
    pub epoch: u64,
    /// The public key.
    pub key: [u8; 32],
}

/// What is to be done with the keys that were found.
#[derive(Clone, Debug)]
pub enum Choice {
    /// Nothing is signed.
    Unsigned,
    /// This key signs, and what is in `key.next` was never used.
    Current(KeyFile),
    /// The last epoch has ended: the key in `key.next` signs and is to be installed.
    Next(KeyFile),
}

/// Which key goes on at the end of a trail, of which `in_force` is what the trail itself says.
///
/// # Errors
/// [`KeyTrouble::Missing`] if it is not at hand.
pub fn choose(local: &LocalKeys, in_force: Option<InForce>) -> Result<Choice, KeyTrouble> {
    let Some(in_force) = in_force else {
        // Nothing is signed yet: whatever key is here may begin.
        return match (&local.current, &local.unreadable) {
            (Some(current), _) => Ok(Choice::Current(current.clone())),
            (None, Some(why)) => Err(KeyTrouble::Unreadable(why.clone())),
            (None, None) => Ok(Choice::Unsigned),
        };
    };
    let is_it = |file: &&KeyFile| file.key.public().bytes() == in_force.key;
    if let Some(current) = local.current.as_ref().filter(is_it) {
        return Ok(Choice::Current(current.clone()));
    }
    if let Some(next) = local.next.as_ref().filter(is_it) {
        return Ok(Choice::Next(next.clone()));
    }
    Err(KeyTrouble::Missing { in_force, found: local.unreadable.clone() })
}

/// Where the first key of a trail comes from, and what becomes of a trail whose key is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeyOption {
    /// A new trail gets a key; one that exists goes on with its own, or unsigned if it has none.
    #[default]
    Auto,
    /// A new trail gets no key.
    Unsigned,
    /// The first key is in this file, which is erased once the trail has it: a new trail takes its id
    /// from it too.
    Given(PathBuf),
    /// As `Auto`; but if the key that signs at the trail's end is gone, or if there never was one, a new
    /// first key signs from here on. Who verifies the trail sees the break.
    Restart,
}

/// Why a trail cannot be signed as it must be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KeyTrouble {
    /// The key that signs at its end is not there.
    #[error(
        "the key that signs this trail (epoch {}) is not in its files `key` and `key.next`{}",
        in_force.epoch, found.as_ref().map(|why| format!(": {why}")).unwrap_or_default()
    )]
    Missing {
        /// The key.
        in_force: InForce,
        /// What is wrong with the file `key`, if there is one.
        found: Option<KeyFileError>,
    },
    /// The file `key` is none.
    #[error("the file `key`: {0}")]
    Unreadable(KeyFileError),
    /// The key that was given is none.
    #[error("{path}: {source}")]
    Given {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyFileError,
    },
    /// The key is another trail's.
    #[error("{path} is the key of trail {key}; this is trail {trail}")]
    OtherTrail {
        /// The key's file.
        path: PathBuf,
        /// Its trail.
        key: TrailId,
        /// The trail that was to be opened.
        trail: TrailId,
    },
    /// The trail has a key already.
    #[error("the trail has a key already, and {path} is another one")]
    HasAnother {
        /// The key's file.
        path: PathBuf,
    },
}
