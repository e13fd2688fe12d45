//! A segment's header: the first block, or blocks, of its file.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `GRAVENSG` |
//! | 8 | 4 | `crc`: CRC-32 of the `header_len - 12` bytes after this field |
//! | 12 | 2 | `version`: 1 |
//! | 14 | 2 | zero |
//! | 16 | 4 | `features`: bits without which the segment cannot be read; none in version 1 |
//! | 20 | 4 | `header_len`: bytes of the header, a multiple of `align` |
//! | 24 | 4 | `align`: bytes to which frames are aligned, 512 to 4096 |
//! | 28 | 4 | `prev_crc`: `crc` of the previous segment's first trailer; 0 for segment 0 |
//! | 32 | 16 | `trail_id` |
//! | 48 | 8 | `segment`: its number, dense from 0 |
//! | 56 | 8 | `first_seq`: seq of its first record |
//! | 64 | 8 | `segment_len`: bytes reserved for the file; it is shorter only once it is sealed |
//! | 72 | 8 | `created_realtime_ns` |
//! | 80 | 8 | `created_boottime_ns` |
//! | 88 | 16 | `boot_id`: the kernel's random id of this boot |
//! | 104 | 1 | `host_len` |
//! | 105 | 1 | `peak_count` |
//! | 106 | 6 | zero |
//! | 112 | 64 | `host`: the node name, then zeros |
//! | 176 | 8 | `epoch`: how many keys have signed before the one that signs now; 0 if none does |
//! | 184 | 32 | `key`: the Ed25519 public key that signs when the segment begins; zeros if none does |
//! | 216 | 32 × `peak_count` | the compact range of all records before this segment |
//!
//! The place of magic, `crc`, `version`, `features` and `header_len`, and what `crc` covers, are
//! the same in every version, so that an old reader can name what it does not know.

use crate::bytes::{get_array, get_u16, get_u32, get_u64, is_zero, put};
use crate::checksum::crc32;
use crate::consts::{
    ALIGN_BYTES_MAX, ALIGN_BYTES_MIN, FEATURES_KNOWN, FORMAT_VERSION, HASH_BYTES, HOST_BYTES_MAX,
    PEAKS_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENT_HEADER_FIXED_BYTES, align_up,
};
use crate::error::FormatError;
use crate::merkle::{CompactRange, Hash};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

const MAGIC: [u8; 8] = *b"GRAVENSG";
const WHAT: &str = "segment header";

/// Random number of a trail, the same in all that belongs to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrailId(pub [u8; 16]);

impl fmt::Display for TrailId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TrailId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrailId({self})")
    }
}

/// The header of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// CRC-32 as stored; filled by [`SegmentHeader::decode`], the first frame's `prev_crc`.
    pub crc: u32,
    /// Bytes to which frames are aligned.
    pub align_bytes: u32,
    /// CRC of the previous segment's trailer; 0 for segment 0.
    pub prev_crc: u32,
    /// The trail.
    pub trail_id: TrailId,
    /// Its number.
    pub segment: u64,
    /// Seq of its first record.
    pub first_seq: u64,
    /// Bytes reserved for the file.
    pub segment_len: u64,
    /// When it was created, nanoseconds since 1970.
    pub created_realtime_ns: u64,
    /// When it was created, nanoseconds since boot.
    pub created_boottime_ns: u64,
    /// The kernel's random id of this boot.
    pub boot_id: [u8; 16],
    /// The node name, at most 64 bytes.
    pub host: Vec<u8>,
    /// How many keys have signed before `key`; 0 if there is none.
    pub epoch: u64,
    /// The public key that signs when the segment begins; zeros if none does.
    pub key: [u8; 32],
    /// The compact range of all records before this segment.
    pub before: CompactRange,
}

impl SegmentHeader {
    /// Bytes of this header on disk.
    #[must_use]
    pub fn stored_len(&self) -> usize {
        let bytes = SEGMENT_HEADER_FIXED_BYTES + self.before.nodes().len() * HASH_BYTES;
        align_up(bytes as u64, self.align_bytes) as usize
    }

    /// The bytes as stored and their CRC.
    ///
    /// # Panics
    /// If a field is out of its range: they all come from the writer itself.
    #[must_use]
    pub fn encode(&self) -> (Vec<u8>, u32) {
        assert!(self.host.len() <= HOST_BYTES_MAX);
        assert_eq!((self.before.begin(), self.before.end()), (0, self.first_seq));
        let header_len = self.stored_len();
        let mut bytes = vec![0; header_len];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 12, &FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, 20, &(header_len as u32).to_le_bytes());
        put(&mut bytes, 24, &self.align_bytes.to_le_bytes());
        put(&mut bytes, 28, &self.prev_crc.to_le_bytes());
        put(&mut bytes, 32, &self.trail_id.0);
        put(&mut bytes, 48, &self.segment.to_le_bytes());
        put(&mut bytes, 56, &self.first_seq.to_le_bytes());
        put(&mut bytes, 64, &self.segment_len.to_le_bytes());
        put(&mut bytes, 72, &self.created_realtime_ns.to_le_bytes());
        put(&mut bytes, 80, &self.created_boottime_ns.to_le_bytes());
        put(&mut bytes, 88, &self.boot_id);
        bytes[104] = self.host.len() as u8;
        bytes[105] = self.before.nodes().len() as u8;
        put(&mut bytes, 112, &self.host);
        put(&mut bytes, 176, &self.epoch.to_le_bytes());
        put(&mut bytes, 184, &self.key);
        for (node, at) in
            self.before.nodes().iter().zip((SEGMENT_HEADER_FIXED_BYTES..).step_by(HASH_BYTES))
        {
            put(&mut bytes, at, node);
        }
        let crc = crc32(&bytes[12..]);
        put(&mut bytes, 8, &crc.to_le_bytes());
        (bytes, crc)
    }

    /// Bytes of the header that starts `bytes`: what a reader needs before
    /// [`SegmentHeader::decode`].
    ///
    /// # Errors
    /// [`FormatError`] if no header starts here.
    pub fn header_len(bytes: &[u8]) -> Result<usize, FormatError> {
        let have = bytes.len() as u64;
        let needed = SEGMENT_HEADER_FIXED_BYTES as u64;
        if have < needed {
            return Err(FormatError::Short { what: WHAT, needed, have });
        }
        if bytes[..8] != MAGIC {
            return Err(FormatError::Magic(WHAT));
        }
        let header_len = get_u32(bytes, 20);
        // Any version's header is a whole number of the smallest blocks and at most 64 KiB.
        if header_len == 0 || header_len > 64 * 1024 || !header_len.is_multiple_of(ALIGN_BYTES_MIN)
        {
            return Err(FormatError::Field {
                what: WHAT,
                field: "header_len",
                value: header_len.into(),
            });
        }
        Ok(header_len as usize)
    }

    /// Reads the header of which `bytes` is every byte, see [`SegmentHeader::header_len`].
    ///
    /// # Errors
    /// [`FormatError`] if one bit is not as it was written, or if it is of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (needed, have) = (Self::header_len(bytes)? as u64, bytes.len() as u64);
        if needed != have {
            return Err(FormatError::Short { what: WHAT, needed, have });
        }
        let (stored, computed) = (get_u32(bytes, 8), crc32(&bytes[12..]));
        if stored != computed {
            return Err(FormatError::Checksum { what: WHAT, stored, computed });
        }
        match (get_u16(bytes, 12), get_u32(bytes, 16)) {
            (FORMAT_VERSION, features) if features & !FEATURES_KNOWN == 0 => {}
            (FORMAT_VERSION, features) => return Err(FormatError::UnknownFeatures(features)),
            (version, _) => return Err(FormatError::UnknownVersion(version)),
        }
        let field = |field, value| Err(FormatError::Field { what: WHAT, field, value });
        let align_bytes = get_u32(bytes, 24);
        let segment_len = get_u64(bytes, 64);
        let host_len = usize::from(bytes[104]);
        let peak_count = usize::from(bytes[105]);
        let nodes_end = SEGMENT_HEADER_FIXED_BYTES + peak_count * HASH_BYTES;
        if !align_bytes.is_power_of_two()
            || !(ALIGN_BYTES_MIN..=ALIGN_BYTES_MAX).contains(&align_bytes)
        {
            return field("align", align_bytes.into());
        }
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_len)
            || !segment_len.is_multiple_of(align_bytes.into())
        {
            return field("segment_len", segment_len);
        }
        if host_len > HOST_BYTES_MAX {
            return field("host_len", host_len as u64);
        }
        if peak_count > PEAKS_MAX || align_up(nodes_end as u64, align_bytes) != bytes.len() as u64 {
            return field("peak_count", peak_count as u64);
        }
        if !is_zero(&bytes[14..16])
            || !is_zero(&bytes[106..112])
            || !is_zero(&bytes[112 + host_len..112 + HOST_BYTES_MAX])
            || !is_zero(&bytes[nodes_end..])
        {
            return field("padding", 1);
        }
        let (epoch, key) = (get_u64(bytes, 176), get_array(bytes, 184));
        if key == [0; 32] && epoch != 0 {
            return field("epoch", epoch);
        }
        let first_seq = get_u64(bytes, 56);
        let nodes: Vec<Hash> = hashes(&bytes[SEGMENT_HEADER_FIXED_BYTES..nodes_end]);
        let Some(before) = CompactRange::from_nodes(0, first_seq, &nodes) else {
            return field("peak_count", peak_count as u64);
        };
        Ok(Self {
            crc: stored,
            align_bytes,
            prev_crc: get_u32(bytes, 28),
            trail_id: TrailId(get_array(bytes, 32)),
            segment: get_u64(bytes, 48),
            first_seq,
            segment_len,
            created_realtime_ns: get_u64(bytes, 72),
            created_boottime_ns: get_u64(bytes, 80),
            boot_id: get_array(bytes, 88),
            host: bytes[112..112 + host_len].to_vec(),
            epoch,
            key,
            before,
        })
    }
}

/// The hashes that stand one after the other in `bytes`.
pub(crate) fn hashes(bytes: &[u8]) -> Vec<Hash> {
    bytes.as_chunks::<HASH_BYTES>().0.to_vec()
}
