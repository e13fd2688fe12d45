//! Proofs as text: what `graven prove` writes and `graven check-proof` reads, without the trail.
//!
//! An inclusion proof is a C2SP tlog-proof (<https://c2sp.org/tlog-proof>), with the record as it is
//! stored ([`crate::record`]) in the line `extra`:
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <the stored record, header and payload, base64>
//! index <seq>
//! <hash, base64>              the leaf's sibling first
//! …
//!                             an empty line
//! <origin>
//! <size>
//! <root, base64>
//! ```
//!
//! A consistency proof has another first line, and the earlier tree where the record was. C2SP knows
//! no file for it; `old`, the hashes and what follows are those of a tlog-witness request:
//!
//! ```text
//! graven/consistency-proof@v1
//! old <size of the earlier tree>
//! root <root of the earlier tree, base64>
//! <hash, base64>
//! …
//!                             an empty line
//! <origin>
//! <size>
//! <root, base64>
//! ```
//!
//! The last three lines are the text of a C2SP checkpoint. It is not signed in this version: a
//! reader is told by somebody else which root and size to trust, and C2SP's own verifiers, which
//! want a signature, refuse the file. Every line ends with a line feed. Numbers have no sign and no
//! leading zeros, base64 is the standard one with padding.

use crate::consts::{HASH_BYTES, RECORD_HEADER_BYTES, RECORD_PAYLOAD_BYTES_MAX};
use crate::merkle::{Hash, leaf_hash_stored};
use crate::proof::{Consistency, Inclusion, PATH_HASHES_MAX};
use crate::segment::TrailId;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use core::fmt;

/// First line of an inclusion proof.
const INCLUSION: &str = "c2sp.org/tlog-proof@v1";
/// First line of a consistency proof.
const CONSISTENCY: &str = "graven/consistency-proof@v1";

/// Longest origin.
pub const ORIGIN_BYTES_MAX: usize = 256;

/// Longest stored record.
const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + RECORD_PAYLOAD_BYTES_MAX;

/// Longest proof: the longest record, the longest path, and a kilobyte for the other lines.
pub const TEXT_BYTES_MAX: usize =
    base64_len(RECORD_BYTES_MAX) + PATH_HASHES_MAX * (base64_len(HASH_BYTES) + 1) + 1024;

const _: () = assert!(ORIGIN_BYTES_MAX + 4 * 64 < 1024, "the other lines fit");

const fn base64_len(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// The tree that a proof leads to: the text of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which log it is the tree of; see [`origin`]. Not checked by the proof.
    pub origin: String,
    /// Leaves of the tree.
    pub size: u64,
    /// Its root.
    pub root: Hash,
}

/// The origin of a trail: `graven/` and its id in hexadecimal.
#[must_use]
pub fn origin(trail: TrailId) -> String {
    format!("graven/{trail}")
}

/// A proof that needs no trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// That a record is in a tree.
    Inclusion {
        /// The record as stored.
        record: Vec<u8>,
        /// Its place and path.
        proof: Inclusion,
        /// The tree; its size is the proof's.
        head: Head,
    },
    /// That a tree contains an earlier one.
    Consistency {
        /// Root of the earlier tree.
        from_root: Hash,
        /// Sizes and path.
        proof: Consistency,
        /// The later tree; its size is the proof's.
        head: Head,
    },
}

/// Why text is not a proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The first line is of no kind of proof.
    #[error("not a proof: the first line is neither `{INCLUSION}` nor `{CONSISTENCY}`")]
    Kind,
    /// It is over a limit.
    #[error("a proof has at most {max} {what}")]
    TooLong {
        /// Of what.
        what: &'static str,
        /// How many.
        max: usize,
    },
    /// A line is not what it should be.
    #[error("line {line}: not {expected}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What should be there.
        expected: &'static str,
    },
}

impl Document {
    /// Reads a proof. Nothing of it is proven yet: see [`Document::holds`].
    ///
    /// # Errors
    /// [`TextError`] if it is not written as this module says. At most [`TEXT_BYTES_MAX`] bytes are
    /// looked at.
    pub fn parse(text: &[u8]) -> Result<Self, TextError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TextError::TooLong { what: "bytes", max: TEXT_BYTES_MAX });
        }
        let mut lines = Lines { left: text, line: 0 };
        match lines.next() {
            Some(kind) if kind == INCLUSION.as_bytes() => {
                let extra = lines.field("extra ", "`extra`, a space, a record in base64")?;
                let record = lines.base64(extra)?;
                let seq = lines.number_after("index ", "`index`, a space, a number")?;
                let path = lines.path()?;
                let head = lines.head()?;
                let proof = Inclusion { seq, size: head.size, path };
                Ok(Self::Inclusion { record, proof, head })
            }
            Some(kind) if kind == CONSISTENCY.as_bytes() => {
                let from = lines.number_after("old ", "`old`, a space, a number")?;
                let root = lines.field("root ", "`root`, a space, a hash in base64")?;
                let from_root = lines.hash(root)?;
                let path = lines.path()?;
                let head = lines.head()?;
                let proof = Consistency { from, size: head.size, path };
                Ok(Self::Consistency { from_root, proof, head })
            }
            _ => Err(TextError::Kind),
        }
    }

    /// The tree that the proof leads to.
    #[must_use]
    pub const fn head(&self) -> &Head {
        match self {
            Self::Inclusion { head, .. } | Self::Consistency { head, .. } => head,
        }
    }

    /// Whether the path leads to the root that the document states, from the record or the earlier
    /// root that it states. That these are the right ones is for who trusts them to say.
    #[must_use]
    pub fn holds(&self) -> bool {
        let (root, head) = match self {
            Self::Inclusion { record, proof, head } => {
                (proof.root(&leaf_hash_stored(record)), head)
            }
            Self::Consistency { from_root, proof, head } => (proof.root(from_root), head),
        };
        root == Some(head.root)
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, head) = match self {
            Self::Inclusion { record, proof, head } => {
                writeln!(f, "{INCLUSION}\nextra {}", BASE64.encode(record))?;
                writeln!(f, "index {}", proof.seq)?;
                (&proof.path, head)
            }
            Self::Consistency { from_root, proof, head } => {
                writeln!(f, "{CONSISTENCY}\nold {}", proof.from)?;
                writeln!(f, "root {}", BASE64.encode(from_root))?;
                (&proof.path, head)
            }
        };
        path.iter().try_for_each(|hash| writeln!(f, "{}", BASE64.encode(hash)))?;
        writeln!(f, "\n{}\n{}\n{}", head.origin, head.size, BASE64.encode(head.root))
    }
}

/// A hash as people keep it: 64 hexadecimal digits, or base64 as in a checkpoint.
#[must_use]
pub fn parse_hash(text: &str) -> Option<Hash> {
    if text.len() != 2 * HASH_BYTES {
        return BASE64.decode(text).ok()?.try_into().ok();
    }
    let mut hash = [0; HASH_BYTES];
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        *byte = (digit(0)? * 16 + digit(1)?) as u8;
    }
    Some(hash)
}

/// The lines of a proof, each with its line feed.
struct Lines<'a> {
    left: &'a [u8],
    /// Number of the last line, from 1.
    line: usize,
}

impl<'a> Lines<'a> {
    /// The next line, or `None` if no line feed follows.
    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.left.iter().position(|byte| *byte == b'\n')?;
        let (line, rest) = self.left.split_at(end);
        self.left = &rest[1..];
        self.line += 1;
        Some(line)
    }

    const fn error(&self, expected: &'static str) -> TextError {
        TextError::Line { line: self.line, expected }
    }

    /// The next line, which must be there.
    fn needed(&mut self, expected: &'static str) -> Result<&'a [u8], TextError> {
        let line = self.next();
        line.ok_or(TextError::Line { line: self.line + 1, expected })
    }

    /// What follows `name` on the next line.
    fn field(&mut self, name: &str, expected: &'static str) -> Result<&'a [u8], TextError> {
        let line = self.needed(expected)?;
        line.strip_prefix(name.as_bytes()).ok_or(self.error(expected))
    }

    fn number_after(&mut self, name: &str, expected: &'static str) -> Result<u64, TextError> {
        let digits = self.field(name, expected)?;
        number(digits).ok_or(self.error(expected))
    }

    fn base64(&self, text: &[u8]) -> Result<Vec<u8>, TextError> {
        BASE64.decode(text).map_err(|_| self.error("base64"))
    }

    fn hash(&self, text: &[u8]) -> Result<Hash, TextError> {
        const EXPECTED: &str = "a hash of 32 bytes in base64";
        let bytes = BASE64.decode(text).map_err(|_| self.error(EXPECTED))?;
        bytes.try_into().map_err(|_| self.error(EXPECTED))
    }

    /// Hashes up to an empty line.
    fn path(&mut self) -> Result<Vec<Hash>, TextError> {
        let mut path = Vec::new();
        loop {
            let line = self.needed("a hash, or an empty line after the last one")?;
            if line.is_empty() {
                return Ok(path);
            }
            if path.len() == PATH_HASHES_MAX {
                return Err(TextError::TooLong { what: "hashes", max: PATH_HASHES_MAX });
            }
            path.push(self.hash(line)?);
        }
    }

    /// The text of a checkpoint, and nothing after it.
    fn head(&mut self) -> Result<Head, TextError> {
        const ORIGIN: &str = "an origin of 1 to 256 bytes of UTF-8 without control characters";
        const SIZE: &str = "the tree's size";
        let line = self.needed(ORIGIN)?;
        let origin = core::str::from_utf8(line)
            .ok()
            .filter(|it| !it.is_empty() && it.len() <= ORIGIN_BYTES_MAX)
            .filter(|it| !it.chars().any(char::is_control))
            .ok_or(self.error(ORIGIN))?
            .to_string();
        let digits = self.needed(SIZE)?;
        let size = number(digits).ok_or(self.error(SIZE))?;
        let line = self.needed("the tree's root")?;
        let root = self.hash(line)?;
        if !self.left.is_empty() {
            let line = self.line + 1;
            return Err(TextError::Line {
                line,
                expected: "the end: this version has no signatures",
            });
        }
        Ok(Head { origin, size, root })
    }
}

/// A decimal number without sign or leading zeros.
fn number(digits: &[u8]) -> Option<u64> {
    let plain = digits.iter().all(u8::is_ascii_digit)
        && (digits.len() == 1 || digits.first() != Some(&b'0'));
    core::str::from_utf8(digits).ok().filter(|_| plain && !digits.is_empty())?.parse().ok()
}
