//! Witnesses (<https://c2sp.org/tlog-witness>): servers that sign a checkpoint once they have seen, by a proof,
//! that it continues the last one that they signed of the same trail.
//!
//! What is sent names the size that the witness has signed last, the hashes that lead from there to the
//! checkpoint, and the checkpoint. A witness knows a log by a key that stays the same, and a trail's keys
//! change; so the copy that it gets has one signature more, of a key that signs nothing else ([`log_key`]).
//! Nobody who verifies a trail relies on that key.

use crate::escape::Escaped;
use crate::prove::{self, ProveError};
use crate::trail::{OpenError, TrailDir};
use client::Client;
use graven_format::cosignature::{Cosigned, WitnessKey};
use graven_format::note::{Note, SecretKey};
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

mod client;
pub mod log_key;

/// How often one checkpoint is sent, each time from the size that the witness has just named: others may send
/// it checkpoints of the same trail meanwhile.
const ROUNDS_MAX: u32 = 4;

/// Longest file that is read for a witness.
const FILE_BYTES_MAX: u64 = 4096;

/// A witness: the key that it signs with, and where it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Its key.
    pub key: WitnessKey,
    /// The prefix of what it serves, without a slash at the end.
    pub url: String,
}

/// Reads `VKEY@URL`, or with an `@` in front the file that holds it on a line of its own.
///
/// # Errors
/// What is wrong, for the command line to say.
pub fn parse(text: &str) -> Result<Witness, String> {
    let Some(path) = text.strip_prefix('@') else { return of_text(text) };
    let mut held = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut held));
    read.map_err(|why| format!("cannot read {path}: {why}"))?;
    of_text(held.trim_end()).map_err(|why| format!("{path}: {why}"))
}

fn of_text(text: &str) -> Result<Witness, String> {
    // The name may have an `@`, the base64 behind the second `+` has none.
    let key_start = text.match_indices('+').nth(1).map(|(at, _)| at);
    let split = key_start.and_then(|from| Some(from + text[from..].find('@')?));
    let Some(at) = split else {
        return Err("a witness is written VKEY@URL: its key name+id+base64, and where it is".into());
    };
    let (key, url) = (&text[..at], &text[at + 1..]);
    let key = WitnessKey::parse(key).map_err(|why| format!("the witness's key: {why}"))?;
    Ok(Witness { key, url: client::prefix(url)? })
}

/// How long a witness may take to answer.
///
/// # Errors
/// What is wrong, for the command line to say.
pub fn parse_timeout(text: &str) -> Result<Duration, String> {
    let allowed = Duration::from_secs(1)..=Duration::from_secs(3600);
    let time = crate::recording::open::parse_time(text)?;
    if allowed.contains(&time) { Ok(time) } else { Err("expected 1s to 1h".to_owned()) }
}

/// What a witness has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosignature {
    /// The signature line, which has been verified.
    pub line: String,
    /// When, in seconds since 1970, as the witness says.
    pub time_s: u64,
}

/// Why a witness has signed nothing.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// There is no answer.
    #[error("it does not answer: {0}")]
    Unreachable(String),
    /// It answers that it cannot, or will not.
    #[error("it answers with status {status}{}", said(body))]
    Status {
        /// Of HTTP.
        status: u16,
        /// What it says.
        body: Vec<u8>,
    },
    /// The answer is not one of a witness.
    #[error("its answer is none of a witness: {0}")]
    Answer(String),
    /// The signature in its answer is not of its key.
    #[error("the cosignature in its answer is forged: its key did not make it")]
    Forged,
    /// It does not know the trail's origin.
    #[error("it does not know this trail")]
    UnknownLog,
    /// It does not take the key by which it should know the trail.
    #[error("it does not accept this trail's key")]
    UnknownKey,
    /// It has signed a checkpoint over other records.
    #[error(
        "it has seen other records under this trail's name: its last checkpoint, of {size}, is not of this trail"
    )]
    Forked {
        /// How many records that checkpoint covers.
        size: u64,
    },
    /// It has signed a checkpoint over more records.
    #[error(
        "it has seen {seen} records of this trail, and the trail's newest checkpoint covers {size}"
    )]
    Ahead {
        /// How many it has seen.
        seen: u64,
        /// How many there are.
        size: u64,
    },
    /// The trail cannot be read.
    #[error("what it asks for cannot be proven: {0}")]
    Unproven(#[from] ProveError),
    /// The trail's directory cannot be read.
    #[error("what it asks for cannot be proven: {0}")]
    NoTrail(#[from] OpenError),
    /// The checkpoint is none.
    #[error("the checkpoint cannot be read: {0}")]
    NoCheckpoint(#[from] graven_format::lines::TextError),
}

impl WitnessError {
    /// Whether it shows that this trail is not the one that the witness has seen: it was forked, or cut
    /// off at its end.
    #[must_use]
    pub const fn is_disagreement(&self) -> bool {
        matches!(self, Self::Forked { .. } | Self::Ahead { .. })
    }

    /// What to do; `key` is the one by which witnesses know the trail.
    #[must_use]
    pub fn help(&self, key: &SecretKey) -> Option<String> {
        match self {
            Self::UnknownLog | Self::UnknownKey => {
                Some(format!("ask who runs it to add this trail, by the key {}", key.public()))
            }
            Self::Forked { .. } | Self::Ahead { .. } => Some(
                "keep the trail as it is; ask the witness for its last checkpoint, and give that to \
                 `graven verify --checkpoint`"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// The first words of what a witness says, for a message.
fn said(body: &[u8]) -> String {
    let line = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = &line[..line.len().min(100)];
    if line.is_empty() { String::new() } else { format!(": {}", Escaped(line)) }
}

/// One witness over time.
#[derive(Debug)]
pub struct Session {
    client: Client,
    witness: Witness,
    /// How many records the checkpoint that it has signed last covers, as far as that is known.
    size: u64,
}

impl Session {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(witness: Witness) -> Self {
        Self { client: Client::new(&witness.url), witness, size: 0 }
    }

    /// The witness.
    #[must_use]
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Has the checkpoint in `note`, which is durable in the trail in `dir`, cosigned. Each question may take
    /// `timeout`.
    ///
    /// # Errors
    /// [`WitnessError`] says why it is not.
    pub fn cosign(
        &mut self,
        dir: &Path,
        key: &SecretKey,
        note: &str,
        timeout: Duration,
    ) -> Result<Cosignature, WitnessError> {
        let parsed = Note::parse(note.as_bytes())?;
        let head = &parsed.checkpoint.head;
        // Not knowing what it has signed, one may ask from 0 on.
        let mut old = if self.size <= head.size { self.size } else { 0 };
        for _ in 0..ROUNDS_MAX {
            let path = match old {
                0 => Vec::new(),
                old => prove::growth(&TrailDir::open(dir)?, old, head)?,
            };
            let body = client::request(old, &path, note, &key.countersign(&parsed));
            let (status, answer) = self.client.add_checkpoint(&body, timeout)?;
            match status {
                200 => {
                    let cosignature = self.verified(note, &answer)?;
                    self.size = head.size;
                    return Ok(cosignature);
                }
                409 => {
                    let size = client::size(&answer)?;
                    self.size = size;
                    if size > head.size {
                        return Err(WitnessError::Ahead { seen: size, size: head.size });
                    }
                    if size == old && size == head.size {
                        // As witnesses of before 2026 say that the roots differ.
                        return Err(WitnessError::Forked { size });
                    }
                    if size == old {
                        let text = format!("it wants a proof from size {size}, and had one");
                        return Err(WitnessError::Answer(text));
                    }
                    old = size;
                }
                403 => return Err(WitnessError::UnknownKey),
                404 => return Err(WitnessError::UnknownLog),
                // The proof leads to its root from the trail's own at that size: the witness has another there.
                422 if old > 0 => return Err(WitnessError::Forked { size: old }),
                _ => return Err(WitnessError::Status { status, body: answer }),
            }
        }
        Err(WitnessError::Answer("the size that it has seen changes with every question".into()))
    }

    /// The cosignature in an answer, if it is one of the witness's key over this note.
    fn verified(&self, note: &str, answer: &[u8]) -> Result<Cosignature, WitnessError> {
        let lines = std::str::from_utf8(answer)
            .map_err(|_| WitnessError::Answer("it is no text".into()))?;
        let text = note.split_once("\n\n").map_or(note, |(text, _)| text);
        let with_answer = format!("{text}\n\n{lines}");
        let parsed = Note::parse(with_answer.as_bytes())
            .map_err(|why| WitnessError::Answer(format!("behind the checkpoint, {why}")))?;
        match parsed.cosigned(&self.witness.key) {
            Cosigned::At(time_s) => {
                let line = parsed.cosignatures(&self.witness.key).next().unwrap_or_default();
                Ok(Cosignature { line, time_s })
            }
            Cosigned::Forged(_) => Err(WitnessError::Forged),
            Cosigned::No => Err(WitnessError::Answer(format!(
                "it has no signature of the key {}",
                self.witness.key
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";

    #[test]
    fn a_witness_is_a_key_and_where_it_is() {
        let expected = WitnessKey::parse(KEY).expect("a key");
        for url in
            ["http://127.0.0.1:8080", "https://w.example/a/b", "http://[::1]:1/", "http://u@h/"]
        {
            let witness = parse(&format!("{KEY}@{url}")).expect("a witness");
            assert_eq!(witness.key, expected);
            assert_eq!(witness.url, url.trim_end_matches('/'));
        }
        for wrong in
            ["", KEY, "x@http://h", "ftp://h", "http://", "http://h?q", "http://h#f", "h", "//h"]
        {
            assert!(parse(&format!("{KEY}@{wrong}")).is_err() || wrong == KEY, "{wrong}");
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let log = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k@http://h";
        assert!(parse(log).expect_err("a log's key").contains("the witness's key"));
    }

    #[test]
    fn a_witness_may_stand_in_a_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("w1");
        std::fs::write(&path, format!("{KEY}@https://w.example\n")).expect("a file");
        let witness = parse(&format!("@{}", path.display())).expect("a witness");
        assert_eq!(witness.url, "https://w.example");
        assert!(parse("@/no/such/file").is_err());
    }
}
