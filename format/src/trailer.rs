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
//! | 77 | 1 | `level`: a block is 2^`level` records |
//! | 78 | 2 | `note_len` |
//! | 80 | 8 | `realtime_min_ns`: smallest record time |
//! | 88 | 8 | `realtime_max_ns`: largest record time |
//! | 96 | 8 | `record_bytes`: sum of the records' stored lengths |
//! | 104 | 8 | `sealed_realtime_ns` |
//! | 112 | 32 | `root`: RFC 6962 root over all records of the trail up to the end of this segment |
//! | 144 | 4 | `node_count` |
//! | 148 | 4 | `index_count` |
//! | 152 | 4 | `first_crc`: `crc` of the trailer with which a rewritten segment was sealed; else 0 |
//! | 156 | 1 | `rewritten`: 1 if the segment was rewritten since it was sealed, else 0 |
//! | 157 | 3 | zero |
//! | 160 | 4 | `block_count` |
//! | 164 | 4 | zero |
//! | 168 | 32 × `node_count` | the compact range of this segment's records |
//! | … | 32 × `block_count` | the hash of each whole block in the segment |
//! | … | 24 × `index_count` | index: seq, offset, realtime ns of frames, one each 256 KiB |
//! | … | `note_len` | a signed note, over all records up to the end of this segment; nothing if it is not signed |
//! | `trailer_len` − 16 | 8 | footer magic `GRAVENED` |
//! | `trailer_len` − 8 | 4 | `trailer_len` again |
//! | `trailer_len` − 4 | 4 | `crc` again |

use crate::bytes::{get_array, get_u16, get_u32, get_u64, is_zero, put};
use crate::checksum::crc32;
use crate::consts::{
    BLOCKS_MAX, FRAME_BYTES_MAX, HASH_BYTES, INDEX_ENTRY_BYTES, INDEX_STRIDE_BYTES,
    NOTE_STORED_BYTES_MAX, RANGE_NODES_MAX, TRAILER_FIXED_BYTES, TRAILER_FOOTER_BYTES, align_up,
};
use crate::error::FormatError;
use crate::merkle::{CompactRange, Hash, SegmentTree, block_level, whole_blocks};
use crate::segment::{SegmentHeader, TrailId, hashes};
use alloc::vec;
use alloc::vec::Vec;
use sha2::{Digest as _, Sha256};

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
    /// CRC-32 as stored.
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
    /// The hash of each whole block, from left to right; see [`SegmentTree::blocks`].
    pub blocks: Vec<Hash>,
    /// CRC of the trailer with which the segment was sealed, if it was rewritten since.
    pub first_crc: Option<u32>,
    /// The signed note over all records up to the end of this segment, at most
    /// [`NOTE_STORED_BYTES_MAX`] bytes; none if it is not signed.
    pub note: Vec<u8>,
}

impl Trailer {
    /// The trailer of a segment with these frames and records, not signed; `crc` and `trailer_len`
    /// are 0 as long as it is not [encoded](Trailer::encode).
    #[must_use]
    pub fn new(
        header: &SegmentHeader,
        tally: Tally,
        tree: &SegmentTree,
        reason: SealReason,
        sealed_realtime_ns: u64,
    ) -> Self {
        let range = tree.range();
        let mut whole = header.before.clone();
        whole.extend(&range);
        Self {
            crc: 0,
            trailer_len: 0,
            trail_id: header.trail_id,
            segment: header.segment,
            first_seq: header.first_seq,
            tally,
            reason,
            sealed_realtime_ns,
            // A header's range begins at 0, so it has a root.
            root: whole.root().unwrap_or_default(),
            range,
            blocks: tree.blocks().1,
            first_crc: None,
            note: Vec::new(),
        }
    }

    /// SHA-256 of all that a sealed segment says beside its records and what follows from them: its
    /// `header` as stored, one byte for why it was sealed, eight for when.
    #[must_use]
    pub fn seal_hash(&self, header: &SegmentHeader) -> Hash {
        let (bytes, _) = header.encode();
        let when = self.sealed_realtime_ns.to_le_bytes();
        let hash =
            Sha256::new_with_prefix(bytes).chain_update([self.reason as u8]).chain_update(when);
        hash.finalize().into()
    }

    /// The next segment header's `prev_crc`: it stays what it was when this one is rewritten.
    #[must_use]
    pub fn chain_crc(&self) -> u32 {
        self.first_crc.unwrap_or(self.crc)
    }

    /// A block's records, as a power of two.
    #[must_use]
    pub fn block_level(&self) -> u32 {
        block_level(self.first_seq, self.end_seq())
    }

    /// The first leaf, the level and the hash of every subtree that the trailer has the hash of: the
    /// nodes of its range and its blocks, in the order of the first leaf, larger ones in front.
    #[must_use]
    pub fn subtrees(&self) -> Vec<(u64, u32, Hash)> {
        let level = self.block_level();
        let blocks = whole_blocks(self.first_seq, self.end_seq(), level);
        let blocks = blocks.map(|block| (block << level, level)).zip(&self.blocks);
        let blocks = blocks.map(|((start, level), hash)| (start, level, *hash));
        let nodes = self.range.subtrees().map(|(start, level, node)| (start, level, *node));
        let mut all: Vec<_> = nodes.chain(blocks).collect();
        all.sort_by_key(|(start, level, _)| (*start, core::cmp::Reverse(*level)));
        all.dedup_by_key(|(start, level, _)| (*start, *level));
        all
    }

    /// Seq of the first record after this segment.
    #[must_use]
    pub const fn end_seq(&self) -> u64 {
        self.first_seq + self.tally.record_count
    }

    /// Bytes of a trailer with so many hashes (nodes and blocks) and index entries, and a note of
    /// this length.
    #[must_use]
    pub fn stored_len(
        hash_count: usize,
        index_count: usize,
        note_len: usize,
        align_bytes: u32,
    ) -> usize {
        let bytes = TRAILER_FIXED_BYTES
            + hash_count * HASH_BYTES
            + index_count * INDEX_ENTRY_BYTES
            + note_len
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
        assert!(self.note.len() <= NOTE_STORED_BYTES_MAX);
        let (nodes, index_count) = (self.range.nodes(), self.tally.index.len());
        let hash_count = nodes.len() + self.blocks.len();
        let hashes_end = TRAILER_FIXED_BYTES + hash_count * HASH_BYTES;
        let index_end = hashes_end + index_count * INDEX_ENTRY_BYTES;
        let trailer_len = Self::stored_len(hash_count, index_count, self.note.len(), align_bytes);
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
        bytes[77] = self.block_level() as u8;
        put(&mut bytes, 78, &(self.note.len() as u16).to_le_bytes());
        put(&mut bytes, 80, &self.tally.realtime_min_ns.to_le_bytes());
        put(&mut bytes, 88, &self.tally.realtime_max_ns.to_le_bytes());
        put(&mut bytes, 96, &self.tally.record_bytes.to_le_bytes());
        put(&mut bytes, 104, &self.sealed_realtime_ns.to_le_bytes());
        put(&mut bytes, 112, &self.root);
        put(&mut bytes, 144, &(nodes.len() as u32).to_le_bytes());
        put(&mut bytes, 148, &(index_count as u32).to_le_bytes());
        put(&mut bytes, 152, &self.first_crc.unwrap_or(0).to_le_bytes());
        bytes[156] = self.first_crc.is_some().into();
        put(&mut bytes, 160, &(self.blocks.len() as u32).to_le_bytes());
        let hashes = nodes.iter().chain(&self.blocks);
        for (hash, at) in hashes.zip((TRAILER_FIXED_BYTES..).step_by(HASH_BYTES)) {
            put(&mut bytes, at, hash);
        }
        for (entry, at) in self.tally.index.iter().zip((hashes_end..).step_by(INDEX_ENTRY_BYTES)) {
            put(&mut bytes, at, &entry.seq.to_le_bytes());
            put(&mut bytes, at + 8, &entry.offset.to_le_bytes());
            put(&mut bytes, at + 16, &entry.realtime_ns.to_le_bytes());
        }
        put(&mut bytes, index_end, &self.note);
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
        let lens = Lens::decode(bytes, footer)?;
        let zeros = [157..160, 164..168, lens.note_end..footer];
        if zeros.into_iter().any(|zeros| !is_zero(&bytes[zeros])) {
            return field("padding", 1);
        }
        let Some(reason) = SealReason::from_number(bytes[76]) else {
            return field("reason", bytes[76].into());
        };
        let first_crc = match (bytes[156], get_u32(bytes, 152)) {
            (0, 0) => None,
            (1, crc) => Some(crc),
            (rewritten, _) => return field("rewritten", rewritten.into()),
        };
        let (first_seq, record_count) = (get_u64(bytes, 40), get_u64(bytes, 48));
        let nodes = hashes(&bytes[TRAILER_FIXED_BYTES..lens.nodes_end]);
        let blocks = hashes(&bytes[lens.nodes_end..lens.blocks_end]);
        let end_seq = first_seq.checked_add(record_count);
        let range =
            end_seq.and_then(|end_seq| CompactRange::from_nodes(first_seq, end_seq, &nodes));
        let Some(range) = range else {
            return field("node_count", nodes.len() as u64);
        };
        let level = block_level(first_seq, range.end());
        if u32::from(bytes[77]) != level {
            return field("level", bytes[77].into());
        }
        let whole = whole_blocks(first_seq, range.end(), level);
        if whole.end - whole.start != blocks.len() as u64 {
            return field("block_count", blocks.len() as u64);
        }
        Ok(Self {
            crc: stored,
            trailer_len,
            trail_id: TrailId(get_array(bytes, 16)),
            segment: get_u64(bytes, 32),
            first_seq,
            tally: decode_tally(bytes, record_count, &bytes[lens.blocks_end..lens.index_end]),
            reason,
            sealed_realtime_ns: get_u64(bytes, 104),
            root: get_array(bytes, 112),
            range,
            blocks,
            first_crc,
            note: bytes[lens.index_end..lens.note_end].to_vec(),
        })
    }
}

/// Where the parts of a trailer end.
struct Lens {
    nodes_end: usize,
    blocks_end: usize,
    index_end: usize,
    note_end: usize,
}

impl Lens {
    /// The ends that a trailer states, each within its limit and before the footer.
    fn decode(bytes: &[u8], footer: usize) -> Result<Self, FormatError> {
        let part = |field, start: usize, count: usize, size: usize, max: usize| {
            count
                .checked_mul(size)
                .and_then(|len| start.checked_add(len))
                .filter(|end| count <= max && *end <= footer)
                .ok_or(FormatError::Field { what: WHAT, field, value: count as u64 })
        };
        let count = |at| get_u32(bytes, at) as usize;
        let start = TRAILER_FIXED_BYTES;
        let nodes_end = part("node_count", start, count(144), HASH_BYTES, RANGE_NODES_MAX)?;
        let blocks_end = part("block_count", nodes_end, count(160), HASH_BYTES, BLOCKS_MAX)?;
        let index_end =
            part("index_count", blocks_end, count(148), INDEX_ENTRY_BYTES, FRAME_BYTES_MAX)?;
        let note_len = usize::from(get_u16(bytes, 78));
        let note_end = part("note_len", index_end, note_len, 1, NOTE_STORED_BYTES_MAX)?;
        Ok(Self { nodes_end, blocks_end, index_end, note_end })
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
