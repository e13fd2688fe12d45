//! The trail's identity: who this directory is, before it holds a single record.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `GRAVENID` |
//! | 8 | 4 | CRC-32 of the bytes after it |
//! | 12 | 2 | format version |
//! | 14 | 2 | zero |
//! | 16 | 16 | trail id, random |
//! | 32 | 8 | creation time, nanoseconds since 1970 |

use crate::bytes::{get_array, get_u16, get_u32, get_u64, put};
use crate::checksum::crc32;
use crate::consts::FORMAT_VERSION;
use crate::error::FormatError;
use crate::segment::TrailId;

const MAGIC: [u8; 8] = *b"GRAVENID";
const WHAT: &str = "trail identity";

/// Bytes of the identity file.
pub const IDENTITY_BYTES: usize = 40;

/// The content of the identity file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The trail's id, stored in every segment header and frame too.
    pub trail_id: TrailId,
    /// When the trail was created, nanoseconds since 1970.
    pub created_realtime_ns: u64,
}

impl Identity {
    /// The bytes of the file.
    #[must_use]
    pub fn encode(&self) -> [u8; IDENTITY_BYTES] {
        let mut bytes = [0; IDENTITY_BYTES];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 12, &FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, 16, &self.trail_id.0);
        put(&mut bytes, 32, &self.created_realtime_ns.to_le_bytes());
        let crc = crc32(&bytes[12..]);
        put(&mut bytes, 8, &crc.to_le_bytes());
        bytes
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// [`FormatError`] says what is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() != IDENTITY_BYTES {
            let (needed, have) = (IDENTITY_BYTES as u64, bytes.len() as u64);
            return Err(FormatError::Short { what: WHAT, needed, have });
        }
        if bytes[..8] != MAGIC {
            return Err(FormatError::Magic(WHAT));
        }
        let (stored, computed) = (get_u32(bytes, 8), crc32(&bytes[12..]));
        if stored != computed {
            return Err(FormatError::Checksum { what: WHAT, stored, computed });
        }
        match get_u16(bytes, 12) {
            FORMAT_VERSION => Ok(Self {
                trail_id: TrailId(get_array(bytes, 16)),
                created_realtime_ns: get_u64(bytes, 32),
            }),
            other => Err(FormatError::UnknownVersion(other)),
        }
    }
}
