//! A full disk: whether the engine waits for room, and when it ends instead.

use super::{Engine, OnFull};
use crate::disk::Disk;
use crate::error::WriteError;
use std::io;

impl<D: Disk> Engine<D> {
    /// Whether the disk has no room for the next segment.
    #[must_use]
    pub fn waits_for_room(&self) -> bool {
        self.spare.waits_for_room()
    }

    /// Whether a record waits for a segment for which the disk has no room, and waiting is what was
    /// asked for. It stays so while the disk is asked again.
    #[must_use]
    pub fn is_held_up(&self) -> bool {
        self.settings.on_full == OnFull::Wait && self.held.is_some() && self.spare.lacks_room()
    }

    /// The next turn ends as with [`OnFull::End`] if it finds the engine waiting for room and nothing
    /// in flight; otherwise this is forgotten.
    pub fn give_up(&mut self) {
        self.giving_up = true;
    }

    /// The next turn asks the disk for room again, if that is what is waited for.
    pub fn ask_for_room(&mut self) {
        self.spare.ask_again();
    }

    /// Whether the disk is full and the writer was told to end then, or to wait no longer.
    pub(super) fn check_room(&mut self) -> Result<(), WriteError> {
        let given_up = std::mem::take(&mut self.giving_up);
        // What is in flight becomes durable first: what is given up is not on the disk then.
        let waits = self.held.is_some() && self.spare.waits_for_room();
        if !waits || !self.commits.is_empty() {
            return Ok(());
        }
        let error = match self.settings.on_full {
            OnFull::End => io::Error::from(rustix::io::Errno::NOSPC),
            OnFull::Wait if given_up => {
                io::Error::new(io::ErrorKind::StorageFull, "no room, and the wait was given up")
            }
            OnFull::Wait => return Ok(()),
        };
        let (_, file, _) = self.spare.describe();
        Err(WriteError { no_room: true, ..self.fault("preparation", file, None, error) })
    }
}
