//! Signed notes (<https://c2sp.org/signed-note>) with Ed25519, and the checkpoints in them
//! (<https://c2sp.org/tlog-checkpoint>):
//!
//! ```text
//! graven/102132435465768798a9bacbdcedfe0f         the origin, see [`origin`](crate::lines::origin)
//! 20852332                                        the records that it covers: seq 0 up to, without, this
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=    the RFC 6962 root over them
//! successor graven/1021…+2f5d7c1e+AVvk…           only where a key's epoch ends: the next key
//! sealed 2zKrYTrv0nH5Xb7S…                         only in a trailer: what its segment says beside its records
//!                                                 an empty line
//! — graven/102132435465768798a9bacbdcedfe0f Az3grl…    a signature: key id and Ed25519, base64
//! ```
//!
//! What is signed is the text up to, without, the empty line. A note made elsewhere, by a witness
//! for instance ([`cosignature`](crate::cosignature)), may have more signatures. Keys are written as Go's
//! `sumdb/note` does: `name+id+base64`, private ones with `PRIVATE+KEY+` in front.

use crate::lines::{Head, Lines, TextError};
use crate::merkle::Hash;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use core::fmt;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Longest note that is read: one with all the signatures that a reader must take, each of the longest
/// algorithm that others sign with, near 5 kB before base64.
pub const NOTE_BYTES_MAX: usize = 128 * 1024;

/// Most signatures of a note that are read.
pub const SIGNATURES_MAX: usize = 16;

/// What a signature line begins with: an em dash and a space.
const DASH: &str = "\u{2014} ";
/// In front of a private key.
const PRIVATE: &str = "PRIVATE+KEY+";
/// In front of a successor's key.
const SUCCESSOR: &str = "successor ";
/// In front of the hash of what a sealed segment says beside its records.
const SEALED: &str = "sealed ";
/// The first byte of an Ed25519 key and of what its id is made of.
const ED25519: u8 = 1;

/// A key that verifies signatures of one kind: a name and an Ed25519 public key. The kind is the first byte of the key
/// as it is written, and of what its id is made of, so that a key of one kind is none of another.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey<const KIND: u8> {
    name: String,
    pub(crate) key: VerifyingKey,
}

/// A key that verifies notes.
pub type PublicKey = VerifierKey<ED25519>;

/// Why text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It does not have the parts of a key.
    #[error("a key is written `name+id+base64`, a private one with `{PRIVATE}` in front")]
    Form,
    /// The id is not that of this name and key.
    #[error("the key's id is not that of its name and bytes: it was copied wrong")]
    Id,
    /// It is of another algorithm, or no point of the curve.
    #[error("not an Ed25519 key of the kind that belongs here")]
    Algorithm,
}

impl<const KIND: u8> VerifierKey<KIND> {
    /// The key of these bytes.
    ///
    /// # Errors
    /// [`KeyError::Algorithm`] if they are no public key, or one that verifies anything, and
    /// [`KeyError::Form`] if no key can have this name.
    pub fn new(name: &str, bytes: &[u8; 32]) -> Result<Self, KeyError> {
        Ok(Self { name: named(name)?, key: point(bytes)? })
    }

    /// Reads a key as [`VerifierKey`] prints it.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong; [`KeyError::Algorithm`] if it is of another kind.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, id, bytes) = parts(text, KIND)?;
        let key = Self::new(name, &bytes)?;
        if key.id() == id { Ok(key) } else { Err(KeyError::Id) }
    }

    /// Whose key it is: a trail's origin, or a witness's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public key's bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// The number by which a note's signature names its key.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        id_of(&self.name, KIND, &self.key)
    }
}

impl<const KIND: u8> fmt::Display for VerifierKey<KIND> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&key_text(&self.name, self.id(), KIND, self.key.as_bytes()))
    }
}

impl<const KIND: u8> fmt::Debug for VerifierKey<KIND> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

/// A key that signs notes. Its memory is overwritten when it is let go.
#[derive(Clone)]
pub struct SecretKey {
    public: PublicKey,
    signing: SigningKey,
}

impl SecretKey {
    /// The key of this name that follows from 32 random bytes.
    ///
    /// # Errors
    /// [`KeyError::Form`] if no key can have this name.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let signing = SigningKey::from_bytes(seed);
        let public = PublicKey::new(name, signing.verifying_key().as_bytes())?;
        Ok(Self { public, signing })
    }

    /// Reads a key as [`SecretKey::to_text`] writes it.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, id, seed) = parts(text.strip_prefix(PRIVATE).ok_or(KeyError::Form)?, ED25519)?;
        let key = Self::from_seed(name, &Zeroizing::new(seed))?;
        if key.public.id() == id { Ok(key) } else { Err(KeyError::Id) }
    }

    /// The key as text, which is overwritten when it is let go.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let seed = Zeroizing::new(self.signing.to_bytes());
        let text = Zeroizing::new(key_text(self.public.name(), self.public.id(), ED25519, &seed));
        Zeroizing::new(format!("{PRIVATE}{}", *text))
    }

    /// The key that verifies what this one signs.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a checkpoint: the bytes of a note.
    #[must_use]
    pub fn sign(&self, checkpoint: &Checkpoint) -> String {
        let text = checkpoint.to_string();
        let line = self.line(text.as_bytes());
        format!("{text}\n{line}")
    }

    /// A signature line of this key for a note that others have signed.
    #[must_use]
    pub fn countersign(&self, note: &Note<'_>) -> String {
        self.line(note.text)
    }

    fn line(&self, text: &[u8]) -> String {
        let signature = self.signing.sign(text).to_bytes();
        line_text(&self.public.name, self.public.id(), &signature)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public)
    }
}

/// What a note says: which tree, and which key signs from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The tree.
    pub head: Head,
    /// The key of the next epoch, if this note ends one.
    pub successor: Option<PublicKey>,
    /// Of a trailer's note: what [`Trailer::seal_hash`](crate::trailer::Trailer::seal_hash) makes of all
    /// that the segment says beside its records.
    pub sealed: Option<Hash>,
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.head)?;
        if let Some(key) = &self.successor {
            writeln!(f, "{SUCCESSOR}{key}")?;
        }
        if let Some(hash) = &self.sealed {
            writeln!(f, "{SEALED}{}", BASE64.encode(hash))?;
        }
        Ok(())
    }
}

/// A note that was read. Nothing of it is known to be true before [`Note::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note<'a> {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// What is signed.
    pub(crate) text: &'a [u8],
    pub(crate) signatures: Vec<Line<'a>>,
}

/// A signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Whose it claims to be.
    pub(crate) name: &'a str,
    pub(crate) key_id: [u8; 4],
    /// Of any length: other algorithms have others.
    pub(crate) signature: Vec<u8>,
}

/// What a note's signatures say of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// The key has signed it.
    Yes,
    /// A signature claims to be this key's and is not.
    Forged,
    /// No signature claims to be this key's.
    No,
}

impl<'a> Note<'a> {
    /// Reads the note that is all of `bytes`.
    ///
    /// # Errors
    /// [`TextError`] names the line.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TextError> {
        let (note, rest, line) = Self::parse_first(bytes)?;
        if rest.is_empty() { Ok(note) } else { Err(TextError::Line { line, expected: SIGNATURE }) }
    }

    /// Reads the note that `bytes` begins with. Notes may stand one behind the other: the second
    /// value is what follows this one, the third the number of the line that it begins with.
    ///
    /// # Errors
    /// [`TextError`] names the line.
    pub fn parse_first(bytes: &'a [u8]) -> Result<(Self, &'a [u8], usize), TextError> {
        let mut lines = Lines::new(&bytes[..bytes.len().min(NOTE_BYTES_MAX)]);
        let head = lines.head()?;
        let (mut successor, mut sealed) = (None, None);
        loop {
            let text_end = bytes.len().min(NOTE_BYTES_MAX) - lines.left.len();
            let line = lines.needed("an empty line after the checkpoint")?;
            if line.is_empty() {
                let checkpoint = Checkpoint { head, successor, sealed };
                let signatures = signatures(&mut lines)?;
                let used = bytes.len().min(NOTE_BYTES_MAX) - lines.left.len();
                let note = Self { checkpoint, text: &bytes[..text_end], signatures };
                return Ok((note, &bytes[used..], lines.line + 1));
            }
            if let Some(hash) = line.strip_prefix(SEALED.as_bytes()) {
                if sealed.is_some() {
                    return Err(lines.error("one hash of a sealed segment"));
                }
                sealed = Some(lines.hash(hash)?);
            }
            // Other lines between the root and the empty line are extensions that others define.
            if let Some(key) = line.strip_prefix(SUCCESSOR.as_bytes()) {
                let key = core::str::from_utf8(key).ok().and_then(|key| PublicKey::parse(key).ok());
                match key.filter(|_| successor.is_none()) {
                    Some(key) => successor = Some(key),
                    None => return Err(lines.error("one successor, which is a key")),
                }
            }
        }
    }

    /// Whether `key` has signed it.
    #[must_use]
    pub fn verify(&self, key: &PublicKey) -> Signed {
        let id = key.id();
        let mut claims = self
            .signatures
            .iter()
            .filter(|line| line.name == key.name && line.key_id == id)
            .map(|line| &line.signature);
        let Some(signature) = claims.next() else { return Signed::No };
        let valid = Signature::from_slice(signature)
            .is_ok_and(|signature| key.key.verify_strict(self.text, &signature).is_ok());
        // Two signatures of one key are one too many: they are not what it made.
        if valid && claims.next().is_none() { Signed::Yes } else { Signed::Forged }
    }

    /// The names and ids of the keys that it claims to be signed by.
    pub fn signers(&self) -> impl Iterator<Item = (&'a str, [u8; 4])> + '_ {
        self.signatures.iter().map(|line| (line.name, line.key_id))
    }
}

const SIGNATURE: &str = "a signature: an em dash, a name, and base64";

/// The signature lines; at least one.
fn signatures<'a>(lines: &mut Lines<'a>) -> Result<Vec<Line<'a>>, TextError> {
    let mut signatures = Vec::new();
    while lines.left.starts_with(DASH.as_bytes()) {
        let text = lines.needed(SIGNATURE)?;
        if signatures.len() == SIGNATURES_MAX {
            return Err(TextError::TooLong { what: "signatures", max: SIGNATURES_MAX });
        }
        signatures.push(signature(text).ok_or(lines.error(SIGNATURE))?);
    }
    if signatures.is_empty() { Err(lines.error_next(SIGNATURE)) } else { Ok(signatures) }
}

fn signature(line: &[u8]) -> Option<Line<'_>> {
    let line = core::str::from_utf8(line).ok()?.strip_prefix(DASH)?;
    let (name, base64) = line.split_once(' ')?;
    if !is_name(name) {
        return None;
    }
    let bytes = BASE64.decode(base64).ok()?;
    let (key_id, signature) = bytes.split_first_chunk::<4>()?;
    Some(Line { name, key_id: *key_id, signature: signature.to_vec() })
}

/// Whether a key can have this name: the note's format takes spaces, `+` and control characters from it.
fn is_name(name: &str) -> bool {
    let cannot = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    !name.is_empty() && !name.contains(cannot)
}

fn named(name: &str) -> Result<String, KeyError> {
    if is_name(name) { Ok(name.to_string()) } else { Err(KeyError::Form) }
}

/// A public key, and none that verifies anything.
fn point(bytes: &[u8; 32]) -> Result<VerifyingKey, KeyError> {
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Algorithm)?;
    if key.is_weak() { Err(KeyError::Algorithm) } else { Ok(key) }
}

/// By which number a note's signature names a key; `kind` is the type of its signatures.
fn id_of(name: &str, kind: u8, key: &VerifyingKey) -> [u8; 4] {
    let hash = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', kind])
        .chain_update(key.as_bytes())
        .finalize();
    [hash[0], hash[1], hash[2], hash[3]]
}

/// A signature line.
pub(crate) fn line_text(name: &str, id: [u8; 4], signature: &[u8]) -> String {
    let bytes = [&id, signature].concat();
    format!("{DASH}{name} {}\n", BASE64.encode(bytes))
}

fn key_text(name: &str, id: [u8; 4], kind: u8, key: &[u8; 32]) -> String {
    let mut bytes = Zeroizing::new([kind; 33]);
    bytes[1..].copy_from_slice(key);
    let [a, b, c, d] = id;
    format!("{name}+{a:02x}{b:02x}{c:02x}{d:02x}+{}", BASE64.encode(*bytes))
}

/// Name, id and bytes of a key whose signatures are of type `kind`; base64 may have a `+` too.
fn parts(text: &str, kind: u8) -> Result<(&str, [u8; 4], [u8; 32]), KeyError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(bytes)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(KeyError::Form);
    };
    let id = key_id(id).ok_or(KeyError::Form)?;
    let bytes = Zeroizing::new(BASE64.decode(bytes).map_err(|_| KeyError::Form)?);
    match bytes.split_first() {
        Some((found, key)) if *found == kind => {
            let key = key.try_into().map_err(|_| KeyError::Algorithm)?;
            Ok((name, id, key))
        }
        _ => Err(KeyError::Algorithm),
    }
}

/// The key id of 8 hexadecimal digits.
fn key_id(text: &str) -> Option<[u8; 4]> {
    let digits: Vec<u8> =
        text.chars().map_while(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    let ([a, b, c, d], []) = digits.as_chunks::<2>() else { return None };
    let pair = |[high, low]: [u8; 2]| high << 4 | low;
    (text.len() == 8).then_some([pair(*a), pair(*b), pair(*c), pair(*d)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consts::NOTE_STORED_BYTES_MAX;
    use crate::lines::origin;
    use crate::segment::TrailId;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed(&origin(TrailId([7; 16])), &[seed; 32]).expect("a key")
    }

    fn checkpoint(size: u64, successor: Option<&SecretKey>) -> Checkpoint {
        let head = Head { origin: origin(TrailId([7; 16])), size, root: [size as u8; 32] };
        Checkpoint {
            head,
            successor: successor.map(|key| key.public().clone()),
            sealed: Some([9; 32]),
        }
    }

    #[test]
    fn what_is_signed_is_read_and_verified_and_by_no_other_key() {
        for checkpoint in [checkpoint(0, None), checkpoint(u64::MAX, Some(&key(2)))] {
            let text = key(1).sign(&checkpoint);
            assert!(text.len() <= NOTE_STORED_BYTES_MAX, "{}", text.len());
            let note = Note::parse(text.as_bytes()).expect("a note");
            assert_eq!(note.checkpoint, checkpoint);
            assert_eq!(note.verify(key(1).public()), Signed::Yes);
            assert_eq!(note.verify(key(2).public()), Signed::No);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_note_is_an_error_or_unsigned() {
        let text = key(1).sign(&checkpoint(123, Some(&key(2))));
        for bit in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let signed = Note::parse(&bytes).map(|note| note.verify(key(1).public()));
            assert_ne!(signed, Ok(Signed::Yes), "bit {bit}");
        }
    }

    #[test]
    fn keys_are_what_they_print_and_miscopied_ones_are_refused() {
        let key = key(9);
        let (public, private) = (key.public().to_string(), key.to_text());
        assert_eq!(PublicKey::parse(&public).as_ref(), Ok(key.public()));
        assert_eq!(
            SecretKey::parse(&private).map(|key| key.public().clone()),
            Ok(key.public().clone())
        );
        for at in 0..public.len() {
            let mut wrong = public.clone().into_bytes();
            wrong[at] = if wrong[at] == b'x' { b'y' } else { b'x' };
            let wrong = String::from_utf8(wrong).expect("ASCII");
            assert!(PublicKey::parse(&wrong).is_err(), "{wrong}");
        }
        // The identity: every message has a signature that verifies with it.
        let mut weak = [0; 32];
        weak[0] = 1;
        assert_eq!(PublicKey::new("x", &weak), Err(KeyError::Algorithm));
    }

    /// From the package golang.org/x/mod/sumdb/note: its example's key and note.
    #[test]
    fn a_note_of_the_go_package_verifies() {
        let skey = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
        let vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key = SecretKey::parse(skey).expect("a key");
        assert_eq!(key.public().to_string(), vkey);
    }

    #[test]
    fn notes_stand_one_behind_the_other() {
        let texts = [key(1).sign(&checkpoint(1, None)), key(1).sign(&checkpoint(2, None))];
        let both = texts.concat();
        let (first, rest, line) = Note::parse_first(both.as_bytes()).expect("a note");
        assert_eq!((first.checkpoint.head.size, line), (1, 7));
        assert_eq!(rest, texts[1].as_bytes());
        assert!(Note::parse(both.as_bytes()).is_err());
    }

    #[test]
    fn a_note_without_signature_or_with_two_successors_is_refused() {
        let text = key(1).sign(&checkpoint(1, Some(&key(2))));
        let (body, _) = text.split_once("\n\n").expect("two parts");
        assert!(Note::parse(format!("{body}\n\n").as_bytes()).is_err());
        let twice = text.replace("successor", &format!("successor {}\nsuccessor", key(3).public()));
        assert!(Note::parse(twice.as_bytes()).is_err());
    }
}
