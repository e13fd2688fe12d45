//! CRC-32 (IEEE 802.3), the checksum of every structure on disk.
//!
//! It finds accidents. Tampering is found by the Merkle tree: see [`crate::merkle`].

/// The checksum of `bytes`.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}
