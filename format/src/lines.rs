//! Text in lines, as proofs and notes are: each ends with a line feed, and is what it says or an
//! error that names it.

use crate::consts::HASH_BYTES;
use crate::merkle::Hash;
use crate::segment::TrailId;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use core::fmt;

/// Longest origin.
pub const ORIGIN_BYTES_MAX: usize = 256;

/// Why text is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The first line is of no kind of proof.
    #[error("not a proof: the first line is of no kind of proof")]
    Kind,
    /// It is over a limit.
    #[error("there are at most {max} {what}")]
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

/// A tree: the first three lines of a C2SP checkpoint (<https://c2sp.org/tlog-checkpoint>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which log it is the tree of; see [`origin`].
    pub origin: String,
    /// Leaves of the tree.
    pub size: u64,
    /// Its root.
    pub root: Hash,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, BASE64.encode(self.root))
    }
}

/// The origin of a trail: `graven/` and its id in hexadecimal.
#[must_use]
pub fn origin(trail: TrailId) -> String {
    format!("graven/{trail}")
}

/// The trail of this origin.
#[must_use]
pub fn trail_of(origin: &str) -> Option<TrailId> {
    let digits = origin.strip_prefix("graven/").filter(|digits| digits.len() == 32)?;
    let plain = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let id = u128::from_str_radix(digits, 16).ok().filter(|_| plain)?;
    let mut bytes = id.to_le_bytes();
    // As the text has it: most significant digits first.
    bytes.reverse();
    Some(TrailId(bytes))
}

/// Lines, each with its line feed.
pub(crate) struct Lines<'a> {
    /// What was not read yet.
    pub(crate) left: &'a [u8],
    /// Number of the last line, from 1.
    pub(crate) line: usize,
}

impl<'a> Lines<'a> {
    pub(crate) const fn new(text: &'a [u8]) -> Self {
        Self { left: text, line: 0 }
    }

    /// The next line, or `None` if no line feed follows.
    pub(crate) fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.left.iter().position(|byte| *byte == b'\n')?;
        let (line, rest) = self.left.split_at(end);
        self.left = &rest[1..];
        self.line += 1;
        Some(line)
    }

    pub(crate) const fn error(&self, expected: &'static str) -> TextError {
        TextError::Line { line: self.line, expected }
    }

    /// The line after the last is not what it should be.
    pub(crate) const fn error_next(&self, expected: &'static str) -> TextError {
        TextError::Line { line: self.line + 1, expected }
    }

    /// The next line, which must be there.
    pub(crate) fn needed(&mut self, expected: &'static str) -> Result<&'a [u8], TextError> {
        let line = self.next();
        line.ok_or(self.error_next(expected))
    }

    /// What follows `name` on the next line.
    pub(crate) fn field(
        &mut self,
        name: &str,
        expected: &'static str,
    ) -> Result<&'a [u8], TextError> {
        let line = self.needed(expected)?;
        line.strip_prefix(name.as_bytes()).ok_or(self.error(expected))
    }

    pub(crate) fn number_after(
        &mut self,
        name: &str,
        expected: &'static str,
    ) -> Result<u64, TextError> {
        let digits = self.field(name, expected)?;
        number(digits).ok_or(self.error(expected))
    }

    pub(crate) fn base64(&self, text: &[u8]) -> Result<Vec<u8>, TextError> {
        BASE64.decode(text).map_err(|_| self.error("base64"))
    }

    pub(crate) fn hash(&self, text: &[u8]) -> Result<Hash, TextError> {
        const EXPECTED: &str = "a hash of 32 bytes in base64";
        let bytes = BASE64.decode(text).map_err(|_| self.error(EXPECTED))?;
        bytes.try_into().map_err(|_| self.error(EXPECTED))
    }

    /// Origin, size and root.
    pub(crate) fn head(&mut self) -> Result<Head, TextError> {
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
        Ok(Head { origin, size, root })
    }
}

/// A decimal number without sign or leading zeros.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    let plain = digits.iter().all(u8::is_ascii_digit)
        && (digits.len() == 1 || digits.first() != Some(&b'0'));
    core::str::from_utf8(digits).ok().filter(|_| plain && !digits.is_empty())?.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_names_its_trail_and_only_that_one() {
        let trail = TrailId(*b"\x10\x21\x32\x43\x54\x65\x76\x87\x98\xa9\xba\xcb\xdc\xed\xfe\x0f");
        let text = origin(trail);
        assert_eq!(text, "graven/102132435465768798a9bacbdcedfe0f");
        assert_eq!(trail_of(&text), Some(trail));
        for wrong in ["", "graven/", "graven/1021", &text.to_uppercase(), &text.replace('1', "+")] {
            assert_eq!(trail_of(wrong), None, "{wrong}");
        }
        assert_eq!(trail_of(&text.replace("0f", "0F")), None);
    }
}
