//! A frame: one group commit, one write to the device.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `GRVF` |
//! | 4 | 4 | `crc`: CRC-32 of every byte of the frame after this field, padding included |
//! | 8 | 4 | `frame_len`: bytes of the frame, a multiple of the segment's alignment |
//! | 12 | 4 | `payload_len`: bytes of records as stored; the rest of the frame is zero |
//! | 16 | 4 | `raw_len`: bytes of records decoded; equal to `payload_len` for codec 0 |
//! | 20 | 4 | `record_count`: at least 1 |
//! | 24 | 1 | `codec`: 0, as they are; 1, compressed with Zstandard |
//! | 25 | 3 | zero |
//! | 28 | 4 | `prev_crc`: the previous frame's `crc`; the segment header's for the first |
//! | 32 | 16 | `trail_id` |
//! | 48 | 8 | `segment`: its number |
//! | 56 | 8 | `first_seq`: the first record's seq; the others follow without a gap |
//! | 64 | 8 | `announced`: how many records of the trail were durable when the frame was formed |
//!
//! `announced` is what lets a reader tell damage from an accident: bytes that are missing below
//! it had been promised; bytes above it at the end of a trail may be a write that was cut off.

use crate::bytes::{get_array, get_u32, get_u64, is_zero, put};
use crate::checksum::crc32;
use crate::codec::{CODEC_NONE, CODEC_ZSTD};
use crate::consts::{
    ALIGN_BYTES_MAX, ALIGN_BYTES_MIN, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_RECORDS_MAX,
    RECORD_HEADER_BYTES, align_up,
};
use crate::error::FormatError;
use crate::segment::TrailId;

const MAGIC: [u8; 4] = *b"GRVF";
const WHAT: &str = "frame";

/// Most bytes of records in a frame, decoded: what a frame holds that is not compressed.
pub const RAW_BYTES_MAX: usize = FRAME_BYTES_MAX - FRAME_HEADER_BYTES;

/// The header of a frame, without what is computed when it is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// CRC-32 of every byte after the field itself.
    pub crc: u32,
    /// Bytes of the frame.
    pub frame_len: u32,
    /// Bytes of records as stored.
    pub payload_len: u32,
    /// Bytes of records decoded.
    pub raw_len: u32,
    /// How they are stored, see [`crate::codec`].
    pub codec: u8,
    /// Records in it.
    pub record_count: u32,
    /// The previous frame's CRC; the segment header's for the first frame.
    pub prev_crc: u32,
    /// The trail.
    pub trail_id: TrailId,
    /// The segment's number.
    pub segment: u64,
    /// Seq of the first record.
    pub first_seq: u64,
    /// Records of the trail that were durable when the frame was formed.
    pub announced: u64,
}

/// What the writer knows of a frame when it forms it.
#[derive(Clone, Copy, Debug)]
pub struct FrameFields {
    /// See [`FrameHeader::record_count`].
    pub record_count: u32,
    /// See [`FrameHeader::prev_crc`].
    pub prev_crc: u32,
    /// See [`FrameHeader::trail_id`].
    pub trail_id: TrailId,
    /// See [`FrameHeader::segment`].
    pub segment: u64,
    /// See [`FrameHeader::first_seq`].
    pub first_seq: u64,
    /// See [`FrameHeader::announced`].
    pub announced: u64,
}

/// Writes header and padding around records that stand as they are at [`FRAME_HEADER_BYTES`] of `buf` and
/// end at `end`. Returns the frame's length and CRC.
///
/// # Panics
/// If the records do not fit: the ring that filled the buffer has already checked.
pub fn seal(buf: &mut [u8], end: usize, align_bytes: u32, fields: &FrameFields) -> (usize, u32) {
    assert!((FRAME_HEADER_BYTES + RECORD_HEADER_BYTES..=FRAME_BYTES_MAX).contains(&end));
    let raw_len = (end - FRAME_HEADER_BYTES) as u32;
    seal_as(buf, end, align_bytes, fields, CODEC_NONE, raw_len)
}

/// The same around a Zstandard frame that decodes to `raw_len` bytes of records.
///
/// # Panics
/// If it does not fit: whoever has compressed records has seen that they are fewer bytes now.
pub fn seal_zstd(
    buf: &mut [u8],
    end: usize,
    align_bytes: u32,
    fields: &FrameFields,
    raw_len: usize,
) -> (usize, u32) {
    assert!((FRAME_HEADER_BYTES + 1..=FRAME_BYTES_MAX).contains(&end));
    assert!((RECORD_HEADER_BYTES..=RAW_BYTES_MAX).contains(&raw_len));
    seal_as(buf, end, align_bytes, fields, CODEC_ZSTD, raw_len as u32)
}

fn seal_as(
    buf: &mut [u8],
    end: usize,
    align_bytes: u32,
    fields: &FrameFields,
    codec: u8,
    raw_len: u32,
) -> (usize, u32) {
    assert!(fields.record_count > 0 && fields.record_count as usize <= FRAME_RECORDS_MAX);
    let frame_len = align_up(end as u64, align_bytes) as usize;
    let payload_len = (end - FRAME_HEADER_BYTES) as u32;
    buf[end..frame_len].fill(0);
    buf[..FRAME_HEADER_BYTES].fill(0);
    put(buf, 0, &MAGIC);
    put(buf, 8, &(frame_len as u32).to_le_bytes());
    put(buf, 12, &payload_len.to_le_bytes());
    put(buf, 16, &raw_len.to_le_bytes());
    put(buf, 20, &fields.record_count.to_le_bytes());
    buf[24] = codec;
    put(buf, 28, &fields.prev_crc.to_le_bytes());
    put(buf, 32, &fields.trail_id.0);
    put(buf, 48, &fields.segment.to_le_bytes());
    put(buf, 56, &fields.first_seq.to_le_bytes());
    put(buf, 64, &fields.announced.to_le_bytes());
    let crc = crc32(&buf[8..frame_len]);
    put(buf, 4, &crc.to_le_bytes());
    (frame_len, crc)
}

impl FrameHeader {
    /// Whether a frame may start here.
    #[must_use]
    pub fn starts(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }

    /// Length of the frame that may start here, if its header is plausible in itself: what a
    /// reader needs to have before [`FrameHeader::decode`].
    ///
    /// # Errors
    /// [`FormatError`] if it is no frame, or one that version 1 never writes.
    pub fn frame_len(bytes: &[u8], align_bytes: u32) -> Result<usize, FormatError> {
        let (frame_len, payload_len) = stated_lens(bytes)?;
        if !fits_align(frame_len, payload_len, align_bytes) {
            return Err(impossible("payload_len", payload_len.into()));
        }
        Ok(frame_len as usize)
    }

    /// The seqs that the header of a frame names, if one starts here; nothing of it has been checked. For whoever sees
    /// frames pass on their way to the disk.
    #[must_use]
    pub fn seqs(bytes: &[u8]) -> Option<core::ops::Range<u64>> {
        if !Self::starts(bytes) || bytes.len() < FRAME_HEADER_BYTES {
            return None;
        }
        let first_seq = get_u64(bytes, 56);
        Some(first_seq..first_seq.saturating_add(get_u32(bytes, 20).into()))
    }

    /// The same where the alignment is not known, because the segment's header is not readable.
    pub(crate) fn frame_len_any(bytes: &[u8]) -> Result<usize, FormatError> {
        let (frame_len, payload_len) = stated_lens(bytes)?;
        let mut aligns = (0..)
            .map(|shift| ALIGN_BYTES_MIN << shift)
            .take_while(|align_bytes| *align_bytes <= ALIGN_BYTES_MAX);
        if !aligns.any(|align_bytes| fits_align(frame_len, payload_len, align_bytes)) {
            return Err(impossible("payload_len", payload_len.into()));
        }
        Ok(frame_len as usize)
    }

    /// Trail and segment that the frame's header names; nothing of it has been checked but its
    /// length.
    pub(crate) fn place(bytes: &[u8]) -> (TrailId, u64) {
        (TrailId(get_array(bytes, 32)), get_u64(bytes, 48))
    }

    /// Reads the frame of which `frame` is every byte, see [`FrameHeader::frame_len`]. The second
    /// value is its records' bytes.
    ///
    /// # Errors
    /// [`FormatError`] if one bit of it is not as it was written.
    pub fn decode(frame: &[u8]) -> Result<(Self, &[u8]), FormatError> {
        let header = Self::decode_any_codec(frame)?;
        if header.codec != CODEC_NONE {
            return Err(FormatError::UnknownCodec(header.codec));
        }
        Ok((header, &frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.payload_len as usize]))
    }

    /// The header of an intact frame, whether or not its records can be read.
    pub(crate) fn decode_any_codec(frame: &[u8]) -> Result<Self, FormatError> {
        let frame_len = Self::frame_len_any(frame)?;
        if frame_len != frame.len() {
            let (needed, have) = (frame_len as u64, frame.len() as u64);
            return Err(FormatError::Short { what: WHAT, needed, have });
        }
        let (stored, computed) = (get_u32(frame, 4), crc32(&frame[8..]));
        if stored != computed {
            return Err(FormatError::Checksum { what: WHAT, stored, computed });
        }
        let header = Self {
            crc: stored,
            frame_len: get_u32(frame, 8),
            payload_len: get_u32(frame, 12),
            raw_len: get_u32(frame, 16),
            codec: frame[24],
            record_count: get_u32(frame, 20),
            prev_crc: get_u32(frame, 28),
            trail_id: TrailId(get_array(frame, 32)),
            segment: get_u64(frame, 48),
            first_seq: get_u64(frame, 56),
            announced: get_u64(frame, 64),
        };
        let raw_len_fits = match header.codec {
            CODEC_NONE => header.raw_len == header.payload_len,
            CODEC_ZSTD => {
                (RECORD_HEADER_BYTES..=RAW_BYTES_MAX).contains(&(header.raw_len as usize))
            }
            // Whoever knows the codec knows what it allows.
            _ => true,
        };
        if !raw_len_fits {
            return Err(impossible("raw_len", header.raw_len.into()));
        }
        if header.record_count == 0 || header.record_count as usize > FRAME_RECORDS_MAX {
            return Err(impossible("record_count", header.record_count.into()));
        }
        if header.announced > header.first_seq {
            return Err(impossible("announced", header.announced));
        }
        if header.first_seq.checked_add(header.record_count.into()).is_none() {
            return Err(impossible("first_seq", header.first_seq));
        }
        let end = FRAME_HEADER_BYTES + header.payload_len as usize;
        if !is_zero(&frame[25..28]) || !is_zero(&frame[end..]) {
            return Err(impossible("padding", 1));
        }
        Ok(header)
    }
}

/// `frame_len` and `payload_len` of the frame that may start here, each within its limits.
fn stated_lens(bytes: &[u8]) -> Result<(u32, u32), FormatError> {
    if bytes.len() < FRAME_HEADER_BYTES {
        let (needed, have) = (FRAME_HEADER_BYTES as u64, bytes.len() as u64);
        return Err(FormatError::Short { what: WHAT, needed, have });
    }
    if !FrameHeader::starts(bytes) {
        return Err(FormatError::Magic(WHAT));
    }
    let (frame_len, payload_len) = (get_u32(bytes, 8), get_u32(bytes, 12));
    if frame_len as usize > FRAME_BYTES_MAX {
        return Err(impossible("frame_len", frame_len.into()));
    }
    let payload_len_min = if bytes[24] == CODEC_NONE { RECORD_HEADER_BYTES } else { 1 };
    if (payload_len as usize) < payload_len_min {
        return Err(impossible("payload_len", payload_len.into()));
    }
    Ok((frame_len, payload_len))
}

/// Whether a frame of `frame_len` bytes is what this payload takes at this alignment.
fn fits_align(frame_len: u32, payload_len: u32, align_bytes: u32) -> bool {
    align_up(FRAME_HEADER_BYTES as u64 + u64::from(payload_len), align_bytes)
        == u64::from(frame_len)
}

fn impossible(field: &'static str, value: u64) -> FormatError {
    FormatError::Field { what: WHAT, field, value }
}
