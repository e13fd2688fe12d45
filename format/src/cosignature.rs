//! Cosignatures (<https://c2sp.org/tlog-cosignature>): what witnesses sign of a checkpoint that they have
//! found to continue the last one that they saw of the same log.
//!
//! A cosignature is one more signature line of the note. Its bytes are the key's id, the time in seconds since 1970
//! (8 bytes, the most significant first), and an Ed25519 signature of
//!
//! ```text
//! cosignature/v1
//! time 1679315147
//! graven/102132435465768798a9bacbdcedfe0f         and all else that the note's own signature signs
//! ```
//!
//! The other algorithm, ML-DSA-44, is not read: its lines are of a key that nobody here can have given.

use crate::note::{Line, Note, VerifierKey, line_text};
use alloc::format;
use alloc::string::String;
use ed25519_dalek::Signature;

/// The first byte of the key of a witness, and of what its id is made of.
const COSIGNATURE: u8 = 4;

/// Latest time of a cosignature, in seconds since 1970.
pub const TIME_S_MAX: u64 = i64::MAX as u64;

/// The public key of a witness, written `name+id+base64` as those of logs are.
pub type WitnessKey = VerifierKey<COSIGNATURE>;

impl WitnessKey {
    /// The time of the cosignature that `line` holds, if this key has made it over `text`.
    fn time_of(&self, line: &Line<'_>, text: &[u8]) -> Option<u64> {
        let (time, signature) = line.signature.split_first_chunk::<8>()?;
        let time_s = time.iter().fold(0, |time_s: u64, byte| time_s << 8 | u64::from(*byte));
        let signature = Signature::from_slice(signature).ok()?;
        let mut signed = format!("cosignature/v1\ntime {time_s}\n").into_bytes();
        signed.extend_from_slice(text);
        let valid = self.key.verify_strict(&signed, &signature).is_ok();
        // Only the other algorithm may leave the time out.
        (valid && (1..=TIME_S_MAX).contains(&time_s)).then_some(time_s)
    }
}

/// What a note's signatures say of a witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cosigned {
    /// It has cosigned the checkpoint, at this time in seconds since 1970; at the first one if it has
    /// several times.
    At(u64),
    /// A cosignature claims to be this witness's and is not, in this line of the note, from 1.
    Forged(usize),
    /// No cosignature claims to be this witness's.
    No,
}

impl Note<'_> {
    /// Whether the witness of `key` has cosigned it.
    #[must_use]
    pub fn cosigned(&self, key: &WitnessKey) -> Cosigned {
        let mut cosigned = Cosigned::No;
        for (line, at) in self.of(key) {
            match (key.time_of(line, self.text), cosigned) {
                (None, _) => return Cosigned::Forged(at),
                (Some(time_s), Cosigned::At(first_s)) => {
                    cosigned = Cosigned::At(time_s.min(first_s));
                }
                (Some(time_s), _) => cosigned = Cosigned::At(time_s),
            }
        }
        cosigned
    }

    /// The lines that claim to be of the witness of `key`, each with its line feed.
    pub fn cosignatures(&self, key: &WitnessKey) -> impl Iterator<Item = String> {
        self.of(key).map(|(line, _)| line_text(line.name, line.key_id, &line.signature))
    }

    /// Those lines, and their numbers in the note.
    fn of(&self, key: &WitnessKey) -> impl Iterator<Item = (&Line<'_>, usize)> {
        let (id, before) = (key.id(), self.text.iter().filter(|byte| **byte == b'\n').count() + 1);
        (self.signatures.iter().zip(before + 1..))
            .filter(move |(line, _)| line.name == key.name() && line.key_id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::KeyError;
    use alloc::string::ToString as _;
    use alloc::vec::Vec;

    /// A checkpoint that a public log (a test log of static-ct) had cosigned by public witnesses in 2026.
    const PUBLIC: &str = include_str!("../tests/public-witnesses.note");

    /// As these witnesses publish them, in the order of the lines.
    const KEYS: [&str; 4] = [
        "transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
        "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
        "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
        "witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
    ];
    const PUBLIC_TIME_S: u64 = 1_779_573_024;

    fn keys() -> [WitnessKey; 4] {
        KEYS.map(|key| WitnessKey::parse(key).expect("a key"))
    }

    #[test]
    fn public_witnesses_have_cosigned_a_public_checkpoint() {
        let note = Note::parse(PUBLIC.as_bytes()).expect("a note");
        for (key, text) in keys().iter().zip(KEYS) {
            assert_eq!(note.cosigned(key), Cosigned::At(PUBLIC_TIME_S), "{key}");
            assert_eq!(key.to_string(), text);
            let line = note.cosignatures(key).next().expect("its line");
            assert!(PUBLIC.contains(&line) && line.contains(key.name()));
        }
    }

    #[test]
    fn every_flipped_bit_of_what_a_witness_signs_is_noticed() {
        let until = |line| PUBLIC.split_inclusive('\n').take(line).map(str::len).sum::<usize>();
        let (text_end, start, end) = (until(3), until(8), until(9));
        let key = &keys()[2];
        for bit in (0..text_end * 8).chain(start * 8..end * 8) {
            let mut bytes = PUBLIC.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(note) = Note::parse(&bytes) else { continue };
            let expected = match note.cosigned(key) {
                Cosigned::Forged(line) => line == 9,
                // The name, or the id, is another's now.
                Cosigned::No => bit >= start * 8,
                Cosigned::At(_) => false,
            };
            assert!(expected, "bit {bit}");
        }
    }

    #[test]
    fn the_first_of_several_times_counts_and_one_forged_line_spoils_all() {
        let secret = ed25519_dalek::SigningKey::from_bytes(&[5; 32]);
        let key = WitnessKey::new("w", secret.verifying_key().as_bytes()).expect("a key");
        let text = PUBLIC.split_inclusive('\n').take(3).collect::<String>();
        let line = |time_s: u64| {
            use ed25519_dalek::Signer as _;
            let signature =
                secret.sign(format!("cosignature/v1\ntime {time_s}\n{text}").as_bytes());
            let bytes: Vec<u8> = (0..8).rev().map(|byte| (time_s >> (8 * byte)) as u8).collect();
            line_text("w", key.id(), &[&bytes[..], &signature.to_bytes()].concat())
        };
        let cosigned = |lines: &[String]| {
            let note = format!("{text}\n{}", lines.concat());
            Note::parse(note.as_bytes()).expect("a note").cosigned(&key)
        };
        assert_eq!(cosigned(&[line(7), line(5), line(9)]), Cosigned::At(5));
        assert_eq!(cosigned(&[line(TIME_S_MAX)]), Cosigned::At(TIME_S_MAX));
        for wrong in [0, TIME_S_MAX + 1, u64::MAX] {
            assert_eq!(cosigned(&[line(7), line(wrong)]), Cosigned::Forged(6));
        }
        let short = line_text("w", key.id(), &[1; 71]);
        assert_eq!(cosigned(&[short]), Cosigned::Forged(5));
        assert_eq!(cosigned(&[line_text("w", key.id(), &[1; 73])]), Cosigned::Forged(5));
        assert_eq!(cosigned(&[line_text("other", key.id(), &[1; 72])]), Cosigned::No);
    }

    #[test]
    fn keys_of_logs_and_of_other_algorithms_are_none_of_a_witness() {
        let log = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        assert_eq!(WitnessKey::parse(log), Err(KeyError::Algorithm));
        assert!(crate::note::PublicKey::parse(log).is_ok(), "the specification's example");
        assert_eq!(crate::note::PublicKey::parse(KEYS[0]), Err(KeyError::Algorithm));
        for at in 0..KEYS[2].len() {
            let mut wrong = KEYS[2].as_bytes().to_vec();
            wrong[at] = if wrong[at] == b'x' { b'y' } else { b'x' };
            assert!(WitnessKey::parse(core::str::from_utf8(&wrong).expect("ASCII")).is_err());
        }
        assert_eq!(WitnessKey::parse("w+00000000+BAAA"), Err(KeyError::Algorithm));
    }
}
