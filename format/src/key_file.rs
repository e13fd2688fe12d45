//! The file `key` of a trail: the key that signs, and where its epoch began.
//!
//! ```text
//! graven-key@v1
//! epoch 3                          how many keys have signed before this one
//! since 1733000000000000000        when the epoch began, nanoseconds since 1970
//! segment 48                       the segment that was in use then
//! PRIVATE+KEY+graven/1021…+2f5d7c1e+AVvk…
//! ```
//!
//! Every line ends with a line feed. The key's name is the trail's origin: a key belongs to one trail.

use crate::lines::{Lines, TextError, trail_of};
use crate::note::{KeyError, SecretKey};
use crate::segment::TrailId;
use alloc::format;
use alloc::string::String;
use zeroize::Zeroizing;

/// Longest key file that is read.
pub const KEY_FILE_BYTES_MAX: usize = 1024;

/// The first line.
const FIRST: &str = "graven-key@v1";

/// What a key file says. The key's memory is overwritten when it is let go.
#[derive(Clone, Debug)]
pub struct KeyFile {
    /// How many keys have signed before this one.
    pub epoch: u64,
    /// When the epoch began, nanoseconds since 1970.
    pub since_ns: u64,
    /// The number of the segment that was in use then.
    pub segment: u64,
    /// The key.
    pub key: SecretKey,
    /// The trail that it belongs to, which is its name.
    pub trail_id: TrailId,
}

/// Why a file is no key file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// A line is not what it should be.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The key is none.
    #[error("line 5: {0}")]
    Key(#[from] KeyError),
    /// The key's name is no trail's.
    #[error("line 5: the key's name is not `graven/` and the id of a trail")]
    Name,
    /// It was overwritten with zeros, as an old key is.
    #[error("it holds nothing but zeros: the key was erased")]
    Erased,
}

impl KeyFile {
    /// Reads the file that is all of `bytes`.
    ///
    /// # Errors
    /// [`KeyFileError`] names the line.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyFileError> {
        const KEY: &str = "a private key, and nothing behind it";
        if !bytes.is_empty() && bytes.iter().all(|byte| *byte == 0) {
            return Err(KeyFileError::Erased);
        }
        if bytes.len() > KEY_FILE_BYTES_MAX {
            return Err(TextError::TooLong { what: "bytes", max: KEY_FILE_BYTES_MAX }.into());
        }
        let mut lines = Lines::new(bytes);
        if lines.needed(FIRST_EXPECTED)? != FIRST.as_bytes() {
            return Err(lines.error(FIRST_EXPECTED).into());
        }
        let epoch = lines.number_after("epoch ", "`epoch` and a number")?;
        let since_ns = lines.number_after("since ", "`since` and a number of nanoseconds")?;
        let segment = lines.number_after("segment ", "`segment` and a number")?;
        let line = lines.needed(KEY)?;
        let text = core::str::from_utf8(line).map_err(|_| lines.error(KEY))?;
        if !lines.left.is_empty() {
            return Err(lines.error_next("the end of the file").into());
        }
        let key = SecretKey::parse(text)?;
        let trail_id = trail_of(key.public().name()).ok_or(KeyFileError::Name)?;
        Ok(Self { epoch, since_ns, segment, key, trail_id })
    }

    /// The file's text, which is overwritten when it is let go.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let Self { epoch, since_ns, segment, key, .. } = self;
        let key = key.to_text();
        Zeroizing::new(format!(
            "{FIRST}\nepoch {epoch}\nsince {since_ns}\nsegment {segment}\n{}\n",
            *key
        ))
    }
}

const FIRST_EXPECTED: &str = "`graven-key@v1`";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::origin;

    fn file() -> KeyFile {
        let trail_id = TrailId([7; 16]);
        let key = SecretKey::from_seed(&origin(trail_id), &[3; 32]).expect("a key");
        KeyFile { epoch: 3, since_ns: u64::MAX, segment: 48, key, trail_id }
    }

    #[test]
    fn what_is_written_is_read() {
        let text = file().to_text();
        assert!(text.len() <= KEY_FILE_BYTES_MAX);
        let read = KeyFile::parse(text.as_bytes()).expect("a key file");
        assert_eq!(*read.to_text(), *text);
        assert_eq!(read.trail_id, file().trail_id);
    }

    #[test]
    fn what_is_cut_or_changed_is_refused_or_reads_as_other_numbers() {
        let text = file().to_text();
        for len in 0..text.len() {
            assert!(KeyFile::parse(&text.as_bytes()[..len]).is_err(), "{len}");
        }
        let key_at = text.find(PRIVATE).expect("a key");
        for at in 0..text.len() {
            let mut bytes = text.clone().as_bytes().to_vec();
            bytes[at] ^= 1;
            let read = KeyFile::parse(&bytes);
            assert!(read.is_err() || at < key_at, "{at}");
        }
        assert_eq!(KeyFile::parse(&[0; 200]).err(), Some(KeyFileError::Erased));
        let behind = format!("{}\n", *text);
        assert!(KeyFile::parse(behind.as_bytes()).is_err());
        let other = SecretKey::from_seed("somebody", &[3; 32]).expect("a key");
        let other = KeyFile { key: other, ..file() }.to_text();
        assert_eq!(KeyFile::parse(other.as_bytes()).err(), Some(KeyFileError::Name));
    }

    const PRIVATE: &str = "PRIVATE+KEY+";
}
