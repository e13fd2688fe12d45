//! How a frame's records are stored, and who decodes them.
//!
//! This crate decompresses nothing: whoever reads gives the reader a [`Decoding`], as it gives it a
//! [`Hashing`](crate::merkle::Hashing). Without one a compressed frame is an intact frame of an
//! unknown codec.

use crate::merkle::OneByOne;

/// Codec of records stored as they are.
pub const CODEC_NONE: u8 = 0;

/// Codec of records stored as one Zstandard frame (RFC 8878) without a dictionary.
pub const CODEC_ZSTD: u8 = 1;

/// Why a payload gave no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// This program has no decoder for the codec.
    #[error("codec {0} is not known to this program")]
    UnknownCodec(u8),
    /// The payload is not one compressed frame of exactly the length that is stated.
    #[error("what is compressed in it does not decode to the stated {0} bytes")]
    Payload(u32),
}

/// Turns the payload of a compressed frame into its records.
pub trait Decoding {
    /// Decodes `stored`, all of it, into `raw`, all of it. Its memory may not depend on what
    /// `stored` says.
    ///
    /// # Errors
    /// [`DecodeError`] if the codec is not known, or if `stored` is anything but one whole
    /// compressed frame of `raw.len()` bytes. What `raw` holds then means nothing.
    fn decode(&mut self, codec: u8, stored: &[u8], raw: &mut [u8]) -> Result<(), DecodeError> {
        let _ = (stored, raw);
        Err(DecodeError::UnknownCodec(codec))
    }
}

/// It knows no codec.
impl Decoding for OneByOne {}
