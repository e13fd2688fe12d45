//! Why bytes are not the structure they should be.

use crate::consts::{FEATURES_KNOWN, FORMAT_VERSION};
use alloc::string::String;
use core::fmt::Write as _;

/// Why a header, frame or trailer was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// There are fewer bytes than the structure needs.
    #[error("{what} needs {needed} bytes, {have} are there")]
    Short {
        /// The structure.
        what: &'static str,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that are there.
        have: u64,
    },
    /// The first bytes are not those of the structure.
    #[error("no {0} starts here")]
    Magic(&'static str),
    /// The checksum does not match.
    #[error("{what} checksum mismatch: stored {stored:08x}, computed {computed:08x}")]
    Checksum {
        /// The structure.
        what: &'static str,
        /// As stored.
        stored: u32,
        /// As computed over the bytes.
        computed: u32,
    },
    /// A field has a value that version 1 never writes.
    #[error("{what} field {field} has the impossible value {value}")]
    Field {
        /// The structure.
        what: &'static str,
        /// The field, by its name in `docs/format.md`.
        field: &'static str,
        /// The value.
        value: u64,
    },
    /// Intact, but of a version that this program does not know.
    #[error(
        "format version {0} is not known to this program, which reads version {FORMAT_VERSION}"
    )]
    UnknownVersion(u16),
    /// Intact, but needs features that this program does not know.
    #[error("needs {}, which this program does not know", feature_names(*.0))]
    UnknownFeatures(u32),
    /// Intact, but encoded with a codec that this program does not know.
    #[error("codec {0} is not known to this program")]
    UnknownCodec(u8),
}

impl FormatError {
    /// Whether the bytes are intact and only newer than this program.
    #[must_use]
    pub const fn is_unsupported(&self) -> bool {
        matches!(self, Self::UnknownVersion(_) | Self::UnknownFeatures(_) | Self::UnknownCodec(_))
    }
}

/// The unknown bits of `features`, as text.
fn feature_names(features: u32) -> String {
    let mut text = String::new();
    for bit in (0..u32::BITS).filter(|bit| (features & !FEATURES_KNOWN) >> bit & 1 == 1) {
        let separator = if text.is_empty() { "feature bit " } else { ", feature bit " };
        // Writing to a String does not fail.
        let _ = write!(text, "{separator}{bit}");
    }
    text
}
