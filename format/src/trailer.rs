//! A sealed segment's trailer: the last blocks of its file.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `GRAVENTR` |
//! | 8 | 4 | `crc`: CRC-32 of the bytes after this field, up to the footer |
//! | 12 | 4 | `trailer_len`: bytes of the trailer, a multiple of the segment's alignment |
//! | 16 | 16 | `trail_id` |
//! | 32 | 8 | `segment`: its number |
//! | 40 | 8 | `first_seq`: seq of its first record |
//! | 48 | 8 | `record_count` |
//! | 56 | 8 | `frame_count` |
//! | 64 | 8 | `frames_end`: offset of the first byte after the last frame; zeros follow |
//! | 72 | 4 | `last_crc`: the last frame's `crc`; the segment header's if there is none |
//! | 76 | 1 | `reason`: 0 full, 1 clean stop, 2 recovery after a crash |
//! | 77 | 3 | zero |
//! | 80 | 8 | `realtime_min_ns`: smallest record time |
//! | 88 | 8 | `realtime_max_ns`: largest record time |
//! | 96 | 8 | `record_bytes`: sum of the records' stored lengths |
//! | 104 | 8 | `sealed_realtime_ns` |
//! | 112 | 32 | `root`: RFC 6962 root over all records of the trail up to the end of this segment |
//! | 144 | 4 | `node_count` |
//! | 148 | 4 | `index_count` |
//! | 152 | 32 × `node_count` | the compact range of this segment's records |
//! | … | 24 × `index_count` | index: seq, offset, realtime ns of frames, one each 256 KiB |
//! | `trailer_len` − 16 | 8 | footer magic `GRAVENED` |
//! | `trailer_len` − 8 | 4 | `trailer_len` again |
//! | `trailer_len` − 4 | 4 | `crc` again |

use crate::bytes::{get_array, get_u32, get_u64, is_zero, put};
use crate::checksum::crc32;
use crate::consts::{
    FRAME_BYTES_MAX, HASH_BYTES, INDEX_ENTRY_BYTES, INDEX_STRIDE_BYTES, RANGE_NODES_MAX,
    TRAILER_FIXED_BYTES, TRAILER_FOOTER_BYTES, align_up,
};
use crate::error::FormatError;
use crate::merkle::{CompactRange, Hash};
use crate::segment::{TrailId, hashes};
use alloc::vec;
use alloc::vec::Vec;

const MAGIC: [u8; 8] = *b"GRAVENTR";
const FOOTER_MAGIC: [u8; 8] = *b"GRAVENED";
const WHAT: &str = "segment trailer";

/// Why a segment was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SealReason {
    /// The next frame did not fit.
    Full = 0,
    /// The writer stopped, or was told to seal.
    Stop = 1,
    /// The writer before this one died; recovery sealed what it left.
    Recovery = 2,
}

impl SealReason {
    /// The word for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Stop => "stop",
            Self::Recovery => "recovery",
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::Full, Self::Stop, Self::Recovery].into_iter().find(|reason| *reason as u8 == number)
    }
}

/// One entry of the sparse index: a frame and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Seq of the frame's first record.
    pub seq: u64,
    /// Offset of the frame in the segment.
    pub offset: u64,
    /// Time of the frame's first record, nanoseconds since 1970.
    pub realtime_ns: u64,
}

/// Counts what a trailer states, frame by frame: the writer and every reader use the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Records so far.
    pub record_count: u64,
    /// Frames so far.
    pub frame_count: u64,
    /// Offset after the last frame.
    pub frames_end: u64,
    /// CRC of the last frame, or of the segment header.
    pub last_crc: u32,
    /// Smallest record time; 0 if there is no record.
    pub realtime_min_ns: u64,
    /// Largest record time; 0 if there is no record.
    pub realtime_max_ns: u64,
    /// Sum of the records' stored lengths.
    pub record_bytes: u64,
    /// Index entries.
    pub index: Vec<IndexEntry>,
    next_index_offset: u64,
}

/// What [`Tally::add`] needs of one frame.
#[derive(Clone, Copy, Debug)]
pub struct TallyFrame {
    /// Seq of its first record.
    pub first_seq: u64,
    /// Its offset.
    pub offset: u64,
    /// Its length.
    pub frame_len: u64,
    /// Its CRC.
    pub crc: u32,
    /// Its records.
    pub record_count: u64,
    /// Its records' stored lengths.
    pub record_bytes: u64,
    /// The first record's time.
    pub realtime_first_ns: u64,
    /// The smallest of its records' times.
    pub realtime_min_ns: u64,
    /// The largest of its records' times.
    pub realtime_max_ns: u64,
}

impl Tally {
    /// A segment without frames, whose header of `header_len` bytes has this CRC.
    #[must_use]
    pub fn new(header_len: u64, header_crc: u32) -> Self {
        Self {
            record_count: 0,
            frame_count: 0,
            frames_end: header_len,
            last_crc: header_crc,
            realtime_min_ns: 0,
            realtime_max_ns: 0,
            record_bytes: 0,
            index: Vec::new(),
            next_index_offset: 0,
        }
    }

    /// Counts one frame.
    pub fn add(&mut self, frame: &TallyFrame) {
        if frame.offset >= self.next_index_offset {
            let TallyFrame { first_seq: seq, offset, realtime_first_ns: realtime_ns, .. } = *frame;
            self.index.push(IndexEntry { seq, offset, realtime_ns });
            self.next_index_offset = offset + INDEX_STRIDE_BYTES;
        }
        let first = self.frame_count == 0;
        let min = if first { u64::MAX } else { self.realtime_min_ns };
        self.realtime_min_ns = min.min(frame.realtime_min_ns);
        self.realtime_max_ns = self.realtime_max_ns.max(frame.realtime_max_ns);
        self.record_count += frame.record_count;
        self.record_bytes += frame.record_bytes;
        self.frame_count += 1;
        self.frames_end = frame.offset + frame.frame_len;
        self.last_crc = frame.crc;
    }
}

/// The trailer of a sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// CRC-32 as stored; the next segment header's `prev_crc`.
    pub crc: u32,
    /// Bytes of the trailer.
    pub trailer_len: u32,
    /// The trail.
    pub trail_id: TrailId,
    /// The segment's number.
    pub segment: u64,
    /// Seq of its first record.
    pub first_seq: u64,
    /// Counts, times and index.
    pub tally: Tally,
    /// Why it was sealed.
    pub reason: SealReason,
    /// When it was sealed, nanoseconds since 1970.
    pub sealed_realtime_ns: u64,
    /// Root over all records of the trail up to the end of this segment.
    pub root: Hash,
    /// The compact range of this segment's records.
    pub range: CompactRange,
}

impl Trailer {
    /// Seq of the first record after this segment.
    #[must_use]
    pub const fn end_seq(&self) -> u64 {
        self.first_seq + self.tally.record_count
    }

    /// Bytes of a trailer with so many nodes and index entries.
    #[must_use]
    pub fn stored_len(node_count: usize, index_count: usize, align_bytes: u32) -> usize {
        let bytes = TRAILER_FIXED_BYTES
            + node_count * HASH_BYTES
            + index_count * INDEX_ENTRY_BYTES
            + TRAILER_FOOTER_BYTES;
        align_up(bytes as u64, align_bytes) as usize
    }

    /// The bytes as stored and their CRC; `crc` and `trailer_len` are computed, not taken.
    ///
    /// # Panics
    /// If the range is not the segment's: they both come from the writer itself.
    #[must_use]
    pub fn encode(&self, align_bytes: u32) -> (Vec<u8>, u32) {
        assert_eq!((self.range.begin(), self.range.end()), (self.first_seq, self.end_seq()));
        let nodes_end = TRAILER_FIXED_BYTES + self.range.nodes().len() * HASH_BYTES;
        let (node_count, index_count) = (self.range.nodes().len(), self.tally.index.len());
        let trailer_len = Self::stored_len(node_count, index_count, align_bytes);
        let footer = trailer_len - TRAILER_FOOTER_BYTES;
        let mut bytes = vec![0; trailer_len];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 12, &(trailer_len as u32).to_le_bytes());
        put(&mut bytes, 16, &self.trail_id.0);
        put(&mut bytes, 32, &self.segment.to_le_bytes());
        put(&mut bytes, 40, &self.first_seq.to_le_bytes());
        put(&mut bytes, 48, &self.tally.record_count.to_le_bytes());
        put(&mut bytes, 56, &self.tally.frame_count.to_le_bytes());
        put(&mut bytes, 64, &self.tally.frames_end.to_le_bytes());
        put(&mut bytes, 72, &self.tally.last_crc.to_le_bytes());
        bytes[76] = self.reason as u8;
        put(&mut bytes, 80, &self.tally.realtime_min_ns.to_le_bytes());
        put(&mut bytes, 88, &self.tally.realtime_max_ns.to_le_bytes());
        put(&mut bytes, 96, &self.tally.record_bytes.to_le_bytes());
        put(&mut bytes, 104, &self.sealed_realtime_ns.to_le_bytes());
        put(&mut bytes, 112, &self.root);
        put(&mut bytes, 144, &(self.range.nodes().len() as u32).to_le_bytes());
        put(&mut bytes, 148, &(self.tally.index.len() as u32).to_le_bytes());
        for (node, at) in self.range.nodes().iter().zip((TRAILER_FIXED_BYTES..).step_by(HASH_BYTES))
        {
            put(&mut bytes, at, node);
        }
        for (entry, at) in self.tally.index.iter().zip((nodes_end..).step_by(INDEX_ENTRY_BYTES)) {
            put(&mut bytes, at, &entry.seq.to_le_bytes());
            put(&mut bytes, at + 8, &entry.offset.to_le_bytes());
            put(&mut bytes, at + 16, &entry.realtime_ns.to_le_bytes());
        }
        let crc = crc32(&bytes[12..footer]);
        put(&mut bytes, 8, &crc.to_le_bytes());
        put(&mut bytes, footer, &FOOTER_MAGIC);
        put(&mut bytes, footer + 8, &(trailer_len as u32).to_le_bytes());
        put(&mut bytes, footer + 12, &crc.to_le_bytes());
        (bytes, crc)
    }

    /// Whether a trailer may start here.
    #[must_use]
    pub fn starts(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }

    /// Bytes of the trailer that starts `bytes`, of which at least
    /// [`TRAILER_FIXED_BYTES`] are there.
    ///
    /// # Errors
    /// [`FormatError`] if no trailer starts here.
    pub fn trailer_len(bytes: &[u8], align_bytes: u32) -> Result<usize, FormatError> {
        if bytes.len() < TRAILER_FIXED_BYTES {
            let (needed, have) = (TRAILER_FIXED_BYTES as u64, bytes.len() as u64);
            return Err(FormatError::Short { what: WHAT, needed, have });
        }
        if !Self::starts(bytes) {
            return Err(FormatError::Magic(WHAT));
        }
        checked_len(get_u32(bytes, 12), align_bytes)
    }

    /// Trail and segment that the trailer names; nothing of it has been checked but its length.
    pub(crate) fn place(bytes: &[u8]) -> (TrailId, u64) {
        (TrailId(get_array(bytes, 16)), get_u64(bytes, 32))
    }

    /// Bytes of the trailer whose footer is at the end of `tail`, the last bytes of a file.
    #[must_use]
    pub fn footer_len(tail: &[u8]) -> Option<usize> {
        let footer = tail.last_chunk::<TRAILER_FOOTER_BYTES>()?;
        let len = checked_len(get_u32(footer, 8), crate::consts::ALIGN_BYTES_MIN).ok()?;
        footer.starts_with(&FOOTER_MAGIC).then_some(len)
    }

    /// Reads the trailer of which `bytes` is every byte.
    ///
    /// # Errors
    /// [`FormatError`] if one bit is not as it was written.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let short = |needed: usize| {
            let (needed, have) = (needed as u64, bytes.len() as u64);
            Err(FormatError::Short { what: WHAT, needed, have })
        };
        if bytes.len() < TRAILER_FIXED_BYTES + TRAILER_FOOTER_BYTES {
            return short(TRAILER_FIXED_BYTES + TRAILER_FOOTER_BYTES);
        }
        if !Self::starts(bytes) {
            return Err(FormatError::Magic(WHAT));
        }
        let footer = bytes.len() - TRAILER_FOOTER_BYTES;
        let (stored, computed) = (get_u32(bytes, 8), crc32(&bytes[12..footer]));
        if stored != computed {
            return Err(FormatError::Checksum { what: WHAT, stored, computed });
        }
        let field = |field, value| Err(FormatError::Field { what: WHAT, field, value });
        let trailer_len = get_u32(bytes, 12);
        if trailer_len as usize != bytes.len() {
            return field("trailer_len", trailer_len.into());
        }
        if bytes[footer..footer + 8] != FOOTER_MAGIC
            || get_u32(bytes, footer + 8) != trailer_len
            || get_u32(bytes, footer + 12) != stored
        {
            return field("footer", get_u64(bytes, footer));
        }
        let (node_count, index_count) =
            (get_u32(bytes, 144) as usize, get_u32(bytes, 148) as usize);
        if node_count > RANGE_NODES_MAX {
            return field("node_count", node_count as u64);
        }
        let nodes_end = TRAILER_FIXED_BYTES + node_count * HASH_BYTES;
        let index_end = index_count
            .checked_mul(INDEX_ENTRY_BYTES)
            .map(|bytes| nodes_end + bytes)
            .filter(|end| *end <= footer);
        let Some(index_end) = index_end else {
            return field("index_count", index_count as u64);
        };
        if !is_zero(&bytes[77..80]) || !is_zero(&bytes[index_end..footer]) {
            return field("padding", 1);
        }
        let Some(reason) = SealReason::from_number(bytes[76]) else {
            return field("reason", bytes[76].into());
        };
        let (first_seq, record_count) = (get_u64(bytes, 40), get_u64(bytes, 48));
        let nodes = hashes(&bytes[TRAILER_FIXED_BYTES..nodes_end]);
        let range = first_seq
            .checked_add(record_count)
            .and_then(|end_seq| CompactRange::from_nodes(first_seq, end_seq, &nodes));
        let Some(range) = range else {
            return field("node_count", node_count as u64);
        };
        Ok(Self {
            crc: stored,
            trailer_len,
            trail_id: TrailId(get_array(bytes, 16)),
            segment: get_u64(bytes, 32),
            first_seq,
            tally: decode_tally(bytes, record_count, &bytes[nodes_end..index_end]),
            reason,
            sealed_realtime_ns: get_u64(bytes, 104),
            root: get_array(bytes, 112),
            range,
        })
    }
}

fn decode_tally(bytes: &[u8], record_count: u64, index: &[u8]) -> Tally {
    let index: Vec<IndexEntry> = index
        .as_chunks::<INDEX_ENTRY_BYTES>()
        .0
        .iter()
        .map(|entry| IndexEntry {
            seq: get_u64(entry, 0),
            offset: get_u64(entry, 8),
            realtime_ns: get_u64(entry, 16),
        })
        .collect();
    let next_index_offset =
        index.last().map_or(0, |entry| entry.offset.saturating_add(INDEX_STRIDE_BYTES));
    Tally {
        record_count,
        frame_count: get_u64(bytes, 56),
        frames_end: get_u64(bytes, 64),
        last_crc: get_u32(bytes, 72),
        realtime_min_ns: get_u64(bytes, 80),
        realtime_max_ns: get_u64(bytes, 88),
        record_bytes: get_u64(bytes, 96),
        index,
        next_index_offset,
    }
}

fn checked_len(trailer_len: u32, align_bytes: u32) -> Result<usize, FormatError> {
    let len = trailer_len as usize;
    if !(TRAILER_FIXED_BYTES + TRAILER_FOOTER_BYTES..=FRAME_BYTES_MAX).contains(&len)
        || !trailer_len.is_multiple_of(align_bytes)
    {
        let value = trailer_len.into();
        return Err(FormatError::Field { what: WHAT, field: "trailer_len", value });
    }
    Ok(len)
}
