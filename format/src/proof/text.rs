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
//! The last three lines are the text of a C2SP checkpoint. In a signed trail they are followed by the
//! rest of the signed note ([`crate::note`]): its other lines, an empty line, its signatures. Without
//! it a reader is told by somebody else which root and size to trust, and C2SP's own verifiers, which
//! want a signature, refuse the file. Every line ends with a line feed. Numbers have no sign and no
//! leading zeros, base64 is the standard one with padding.

use crate::consts::{HASH_BYTES, RECORD_HEADER_BYTES, RECORD_PAYLOAD_BYTES_MAX};
use crate::lines::{Head, Lines, ORIGIN_BYTES_MAX, TextError};
use crate::merkle::{Hash, leaf_hash_stored};
use crate::note::{NOTE_BYTES_MAX, Note};
use crate::proof::{Consistency, Inclusion, PATH_HASHES_MAX};
use alloc::vec::Vec;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use core::fmt;

/// First line of an inclusion proof.
const INCLUSION: &str = "c2sp.org/tlog-proof@v1";
/// First line of a consistency proof.
const CONSISTENCY: &str = "graven/consistency-proof@v1";

/// Longest stored record.
const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + RECORD_PAYLOAD_BYTES_MAX;

/// Longest proof: the longest record, the longest path, the longest note, and what stands in front.
pub const TEXT_BYTES_MAX: usize = base64_len(RECORD_BYTES_MAX)
    + PATH_HASHES_MAX * (base64_len(HASH_BYTES) + 1)
    + NOTE_BYTES_MAX
    + 1024;

const _: () = assert!(ORIGIN_BYTES_MAX + 4 * 64 < 1024, "the other lines fit");

const fn base64_len(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
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
        /// The signed note that says so, whole; `None` of a trail that is not signed.
        note: Option<Vec<u8>>,
    },
    /// That a tree contains an earlier one.
    Consistency {
        /// Root of the earlier tree.
        from_root: Hash,
        /// Sizes and path.
        proof: Consistency,
        /// The later tree; its size is the proof's.
        head: Head,
        /// The signed note that says so, whole; `None` of a trail that is not signed.
        note: Option<Vec<u8>>,
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
        let mut lines = Lines::new(text);
        match lines.next() {
            Some(kind) if kind == INCLUSION.as_bytes() => {
                let extra = lines.field("extra ", "`extra`, a space, a record in base64")?;
                let record = lines.base64(extra)?;
                let seq = lines.number_after("index ", "`index`, a space, a number")?;
                let path = path(&mut lines)?;
                let (head, note) = last(&mut lines)?;
                let proof = Inclusion { seq, size: head.size, path };
                Ok(Self::Inclusion { record, proof, head, note })
            }
            Some(kind) if kind == CONSISTENCY.as_bytes() => {
                let from = lines.number_after("old ", "`old`, a space, a number")?;
                let root = lines.field("root ", "`root`, a space, a hash in base64")?;
                let from_root = lines.hash(root)?;
                let path = path(&mut lines)?;
                let (head, note) = last(&mut lines)?;
                let proof = Consistency { from, size: head.size, path };
                Ok(Self::Consistency { from_root, proof, head, note })
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

    /// The signed note over that tree, if there is one.
    #[must_use]
    pub fn note(&self) -> Option<&[u8]> {
        match self {
            Self::Inclusion { note, .. } | Self::Consistency { note, .. } => note.as_deref(),
        }
    }

    /// The same with another note over that tree: one that more have signed.
    #[must_use]
    pub fn with_note(mut self, text: Vec<u8>) -> Self {
        match &mut self {
            Self::Inclusion { note, .. } | Self::Consistency { note, .. } => *note = Some(text),
        }
        self
    }

    /// Whether the path leads to the root that the document states, from the record or the earlier
    /// root that it states. That these are the right ones is for who trusts them to say.
    #[must_use]
    pub fn holds(&self) -> bool {
        let (root, head) = match self {
            Self::Inclusion { record, proof, head, .. } => {
                (proof.root(&leaf_hash_stored(record)), head)
            }
            Self::Consistency { from_root, proof, head, .. } => (proof.root(from_root), head),
        };
        root == Some(head.root)
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, head) = match self {
            Self::Inclusion { record, proof, head, .. } => {
                writeln!(f, "{INCLUSION}\nextra {}", BASE64.encode(record))?;
                writeln!(f, "index {}", proof.seq)?;
                (&proof.path, head)
            }
            Self::Consistency { from_root, proof, head, .. } => {
                writeln!(f, "{CONSISTENCY}\nold {}", proof.from)?;
                writeln!(f, "root {}", BASE64.encode(from_root))?;
                (&proof.path, head)
            }
        };
        path.iter().try_for_each(|hash| writeln!(f, "{}", BASE64.encode(hash)))?;
        match self.note().map(core::str::from_utf8) {
            Some(Ok(note)) => write!(f, "\n{note}"),
            Some(Err(_)) => Err(fmt::Error),
            None => write!(f, "\n{head}"),
        }
    }
}

/// Hashes up to an empty line.
fn path(lines: &mut Lines<'_>) -> Result<Vec<Hash>, TextError> {
    let mut path = Vec::new();
    loop {
        let line = lines.needed("a hash, or an empty line after the last one")?;
        if line.is_empty() {
            return Ok(path);
        }
        if path.len() == PATH_HASHES_MAX {
            return Err(TextError::TooLong { what: "hashes", max: PATH_HASHES_MAX });
        }
        path.push(lines.hash(line)?);
    }
}

/// The tree, and the note that it is the beginning of if anything follows.
fn last(lines: &mut Lines<'_>) -> Result<(Head, Option<Vec<u8>>), TextError> {
    let (text, line) = (lines.left, lines.line);
    let head = lines.head()?;
    if lines.left.is_empty() {
        return Ok((head, None));
    }
    let note = Note::parse(text).map_err(|why| match why {
        TextError::Line { line: of_note, expected } => {
            TextError::Line { line: line + of_note, expected }
        }
        why => why,
    })?;
    // The rest of a note may hold any bytes, which a proof as text does not.
    if core::str::from_utf8(text).is_err() {
        return Err(lines.error_next("UTF-8"));
    }
    Ok((note.checkpoint.head, Some(text.to_vec())))
}
