//! What a successor has to know that is too long for the session area: what was done to the kernel's rules, which it has to
//! take back, and the configuration, whose file may be gone or wrong by then.
//!
//! A file in memory with two halves for each. What is new is written to the half that is not in use; one store in the session
//! area then says where it is, and how long.

use super::{MemoryError, Session};
use crate::source::kaudit::{RuleChange, RuleNotes};
use crate::source::nlmsg::StatusChange;
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

/// Bytes of a half.
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
        let fd = memfd_create("graven-vault", MemfdFlags::CLOEXEC)
            .map_err(|errno| MemoryError::System { operation: "making the vault", errno })?;
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

    /// What is to be taken back of the kernel's rules, if anything is.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`].
    pub fn rules(&self) -> Result<Option<RuleChange>, MemoryError> {
        let wrong = MemoryError::Corrupted("what was done to the rules cannot be read");
        let Some(bytes) = self.get(Item::Rules)? else { return Ok(None) };
        RuleChange::decode(&bytes).map(Some).ok_or(wrong)
    }

    /// The configuration that is in force, as text.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`].
    pub fn config(&self) -> Result<Option<String>, MemoryError> {
        let wrong = MemoryError::Corrupted("the configuration cannot be read");
        let Some(bytes) = self.get(Item::Config)? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).map_err(|_| wrong)
    }

    /// A configuration is in force: whoever takes up a place goes by it, whatever its file says by then.
    pub fn set_config(&self, text: &str) {
        self.put(Item::Config, text.as_bytes());
    }

    fn get(&self, item: Item) -> Result<Option<Vec<u8>>, MemoryError> {
        let Some((second, len)) = self.session.kept_in(item) else { return Ok(None) };
        let wrong = MemoryError::Corrupted("something is longer than anything can be");
        let len = usize::try_from(len).ok().filter(|_| len <= BYTES_MAX).ok_or(wrong.clone())?;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, place(item, second)).map_err(|_| wrong)?;
        Ok(Some(bytes))
    }

    /// Memory that is not to be had leaves what was there.
    fn put(&self, item: Item, bytes: &[u8]) {
        let second = self.session.kept_in(item).is_some_and(|(second, _)| !second);
        let len = bytes.len() as u64;
        if len <= BYTES_MAX && self.file.write_all_at(bytes, place(item, second)).is_ok() {
            self.session.set_kept_in(item, Some((second, len)));
        }
    }
}

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Rules,
    Config,
}

/// Where a half of an item begins.
fn place(item: Item, second: bool) -> u64 {
    HALF_BYTES * (2 * item as u64 + u64::from(second))
}

impl RuleNotes for Vault {
    fn note(&self, change: Option<&RuleChange>) {
        match change {
            Some(change) => self.put(Item::Rules, &change.encode()),
            None => self.session.set_kept_in(Item::Rules, None),
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
        assert_eq!(vault.rules(), Ok(None));
        let changes = [RuleChange::default(), RuleChange::decode(&[0; 16]).expect("one")];
        for change in &changes {
            vault.note(Some(change));
            assert_eq!(vault.try_clone().expect("a descriptor").rules(), Ok(Some(change.clone())));
        }
        let mut bytes = changes[0].encode();
        bytes.push(0);
        assert_eq!(RuleChange::decode(&bytes), None);
        assert_eq!(RuleChange::decode(&[255; 16]), None);
        session.set_kept_in(Item::Rules, Some((true, BYTES_MAX + 1)));
        assert!(vault.rules().is_err());
        vault.note(None);
        assert_eq!((vault.rules(), vault.config()), (Ok(None), Ok(None)));
        for text in ["a", "bc", ""] {
            vault.set_config(text);
            assert_eq!(vault.config(), Ok(Some(text.to_owned())));
        }
    }
}
