//! Which key signs at a place of a trail: the one in the segment's header, and after each note that
//! names a successor that one.

use crate::lines::origin;
use crate::note::{Checkpoint, Note, PublicKey, Signed};
use crate::segment::SegmentHeader;

/// Why a checkpoint does not have the signature that belongs to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The header's key is no key.
    #[error("the header's key is no Ed25519 key")]
    Key,
    /// A trailer without a note, where there is a key.
    #[error("it is not signed, and the trail has a key")]
    Missing,
    /// A note where there is no key.
    #[error("it is signed, and the segment's header names no key")]
    Unkeyed,
    /// It has no signature of the key that signs here.
    #[error("it is signed by another key than the one that signs here")]
    Other,
    /// A signature claims to be of the key that signs here, and is not.
    #[error("its signature is forged: the key that it names did not make it")]
    Forged,
    /// It names a successor of another name, or where none may be named.
    #[error("it names a successor that cannot be one")]
    Successor,
}

/// The key that signs at one place of a trail, and how many came before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// How many keys came before it.
    pub epoch: u64,
    /// The key; `None` if nothing is signed.
    pub key: Option<PublicKey>,
}

impl Signer {
    /// The one that signs when a segment begins.
    ///
    /// # Errors
    /// [`SignatureError::Key`] if the header has bytes that are no key.
    pub fn of(header: &SegmentHeader) -> Result<Self, SignatureError> {
        let key = match header.key {
            bytes if bytes == [0; 32] => None,
            bytes => {
                let key = PublicKey::new(&origin(header.trail_id), &bytes);
                Some(key.map_err(|_| SignatureError::Key)?)
            }
        };
        Ok(Self { epoch: header.epoch, key })
    }

    /// Whether `note` has the signature that belongs here.
    ///
    /// # Errors
    /// [`SignatureError`] says why not.
    pub fn check(&self, note: &Note<'_>) -> Result<(), SignatureError> {
        let key = self.key.as_ref().ok_or(SignatureError::Unkeyed)?;
        match note.verify(key) {
            Signed::Yes => Ok(()),
            Signed::Forged => Err(SignatureError::Forged),
            Signed::No => Err(SignatureError::Other),
        }
    }

    /// Goes on behind the checkpoint of a record, which [`Signer::check`] has accepted.
    ///
    /// # Errors
    /// [`SignatureError::Successor`] if the key that it names has another name; the signer then
    /// stays the one that it was.
    pub fn follow(&mut self, checkpoint: Checkpoint) -> Result<(), SignatureError> {
        let Some(next) = checkpoint.successor else { return Ok(()) };
        let same = self.key.as_ref().is_some_and(|key| key.name() == next.name());
        let epoch = self.epoch.checked_add(1).filter(|_| same).ok_or(SignatureError::Successor)?;
        *self = Self { epoch, key: Some(next) };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::Head;
    use crate::note::SecretKey;

    const NAME: &str = "graven/30313233343536373839616263646566";

    fn key(name: &str, seed: u8) -> SecretKey {
        SecretKey::from_seed(name, &[seed; 32]).expect("a key")
    }

    fn checkpoint(next: Option<&SecretKey>) -> Checkpoint {
        let head = Head { origin: NAME.into(), size: 7, root: [1; 32] };
        Checkpoint { head, successor: next.map(|key| key.public().clone()), sealed: None }
    }

    #[test]
    fn a_successor_takes_over_and_the_last_one_signs_no_more() {
        let (first, second) = (key(NAME, 1), key(NAME, 2));
        let mut signer = Signer { epoch: 0, key: Some(first.public().clone()) };
        let last = checkpoint(Some(&second));
        let text = first.sign(&last);
        assert_eq!(signer.check(&Note::parse(text.as_bytes()).expect("a note")), Ok(()));
        assert_eq!(signer.follow(last), Ok(()));
        assert_eq!(signer, Signer { epoch: 1, key: Some(second.public().clone()) });
        for (by, expected) in [(&second, Ok(())), (&first, Err(SignatureError::Other))] {
            let text = by.sign(&checkpoint(None));
            assert_eq!(signer.check(&Note::parse(text.as_bytes()).expect("a note")), expected);
        }
    }

    #[test]
    fn a_successor_of_another_name_and_a_forged_signature_are_refused() {
        let mut signer = Signer { epoch: 4, key: Some(key(NAME, 1).public().clone()) };
        let before = signer.clone();
        let stranger = checkpoint(Some(&key("another", 2)));
        assert_eq!(signer.follow(stranger), Err(SignatureError::Successor));
        assert_eq!(signer, before);
        let text = key(NAME, 1).sign(&checkpoint(None)).replace("\n7\n", "\n8\n");
        let note = Note::parse(text.as_bytes()).expect("a note");
        assert_eq!(signer.check(&note), Err(SignatureError::Forged));
        let none = Signer { epoch: 0, key: None };
        assert_eq!(none.check(&note), Err(SignatureError::Unkeyed));
    }
}
