//! What was done to the kernel's rules, for a successor that has to take it back: too long for the session area.
//!
//! A file in memory with two halves. What is new is written to the half that is not in use; one store in the session
//! area then says where it is, and how long.

use super::{MemoryError, Session};
use crate::source::kaudit::{RuleChange, RuleNotes};
use crate::source::nlmsg::StatusChange;
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

/// Where the second half begins.
const HALF_BYTES: u64 = 1 << 32;
/// More than any kernel has rules for.
const BYTES_MAX: u64 = 256 << 20;

/// The file.
#[derive(Debug)]
pub struct Vault {
    file: File,
    session: Session,
}

impl Vault {
    /// A new one, with nothing in it.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(session: &Session) -> Result<Self, MemoryError> {
        let fd = memfd_create("graven-rules", MemfdFlags::CLOEXEC).map_err(|errno| {
            MemoryError::System { operation: "making the file of rules", errno }
        })?;
        Ok(Self::of(fd, session))
    }

    /// That of another process.
    #[must_use]
    pub fn of(fd: OwnedFd, session: &Session) -> Self {
        Self { file: fd.into(), session: session.clone() }
    }

    /// The same, for another holder.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, session: self.session.clone() })
    }

    /// What is to be taken back, if anything is.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`].
    pub fn read(&self) -> Result<Option<RuleChange>, MemoryError> {
        let Some((second, len)) = self.session.vault() else { return Ok(None) };
        let wrong = MemoryError::Corrupted("what was done to the rules cannot be read");
        let len = usize::try_from(len).ok().filter(|_| len <= BYTES_MAX).ok_or(wrong.clone())?;
        let mut bytes = vec![0; len];
        let from = if second { HALF_BYTES } else { 0 };
        self.file.read_exact_at(&mut bytes, from).map_err(|_| wrong.clone())?;
        RuleChange::decode(&bytes).map(Some).ok_or(wrong)
    }
}

impl RuleNotes for Vault {
    fn note(&self, change: Option<&RuleChange>) {
        let Some(change) = change else { return self.session.set_vault(None) };
        let bytes = change.encode();
        let second = self.session.vault().is_some_and(|(second, _)| !second);
        let to = if second { HALF_BYTES } else { 0 };
        // Memory that is not to be had leaves what was there: a successor takes less back, and says nothing wrong.
        let written = bytes.len() as u64 <= BYTES_MAX && self.file.write_all_at(&bytes, to).is_ok();
        if written {
            self.session.set_vault(Some((second, bytes.len() as u64)));
        }
    }

    fn note_limits(&self, ours: &StatusChange) {
        self.session.set_ours(ours);
    }
}

impl AsFd for Vault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::Memory;
    use std::sync::Arc;

    #[test]
    fn a_successor_finds_what_was_noted_last() {
        let memory = Arc::new(Memory::create(0).expect("memory"));
        let session = Session::of(&memory);
        let vault = Vault::create(&session).expect("a file");
        assert_eq!(vault.read(), Ok(None));
        let changes = [RuleChange::default(), RuleChange::decode(&[0; 16]).expect("one")];
        for change in &changes {
            vault.note(Some(change));
            assert_eq!(vault.try_clone().expect("a descriptor").read(), Ok(Some(change.clone())));
        }
        let mut bytes = changes[0].encode();
        bytes.push(0);
        assert_eq!(RuleChange::decode(&bytes), None);
        assert_eq!(RuleChange::decode(&[255; 16]), None);
        session.set_vault(Some((true, 99)));
        assert!(vault.read().is_err());
        vault.note(None);
        assert_eq!(vault.read(), Ok(None));
    }
}
