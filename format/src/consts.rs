//! Every limit and size of format version 1, with its unit in its name, a reason beside it,
//! and its relation to the others asserted at compile time.

/// Format version that this crate writes and reads.
pub const FORMAT_VERSION: u16 = 1;

/// Feature bits that this crate knows. Version 1 begins with none.
pub const FEATURES_KNOWN: u32 = 0;

/// Bytes of a record's header, in front of its payload. See [`crate::record`].
pub const RECORD_HEADER_BYTES: usize = 32;

/// Longest payload of one record. Kernel audit text ends at 8,970 bytes; 128 KiB leaves room
/// for what applications send and still fits a frame with room to spare.
pub const RECORD_PAYLOAD_BYTES_MAX: usize = 128 * 1024;

/// Bytes of a frame's header, in front of its records. See [`crate::frame`].
pub const FRAME_HEADER_BYTES: usize = 72;

/// Largest frame, header and padding included: one group commit, one write to the device.
/// 256 KiB is where bandwidth saturates with four in flight.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

/// Most records in one frame: bounds the memory for the leaf hashes of the frame being written,
/// and the time to compute them, whatever the records' size.
pub const FRAME_RECORDS_MAX: usize = 2048;

/// Smallest alignment of frames: what STATX_DIOALIGN asks of 512-byte sectors.
pub const ALIGN_BYTES_MIN: u32 = 512;

/// Largest alignment of frames: 4 KiB sectors, and the page size of x86-64.
pub const ALIGN_BYTES_MAX: u32 = 4096;

/// Bytes of a segment header before the Merkle nodes. See [`crate::segment`].
pub const SEGMENT_HEADER_FIXED_BYTES: usize = 216;

/// Longest host name kept in a segment header: the kernel's own limit (`__NEW_UTS_LEN`).
pub const HOST_BYTES_MAX: usize = 64;

/// Most nodes of a compact range that starts at 0: one per bit of a u64 size.
pub const PEAKS_MAX: usize = 64;

/// Most nodes of a compact range anywhere: an ascending and a descending run of sizes.
pub const RANGE_NODES_MAX: usize = 2 * PEAKS_MAX;

/// Bytes of a trailer before its nodes and index. See [`crate::trailer`].
pub const TRAILER_FIXED_BYTES: usize = 168;

/// Records of a block, as a power of two: a segment's trailer has the hash of every whole block,
/// so that a proof is made by hashing one of them.
pub const BLOCK_LEVEL: u32 = 10;

/// Most block hashes in a trailer; where there would be more, each is of twice as many records.
pub const BLOCKS_MAX: usize = 2048;

/// Bytes that end a trailer and so a sealed file: magic, length, checksum.
pub const TRAILER_FOOTER_BYTES: usize = 16;

/// Bytes of one index entry: sequence, offset, time.
pub const INDEX_ENTRY_BYTES: usize = 24;

/// Distance in a segment between frames that get an index entry: one read of this size finds
/// any record.
pub const INDEX_STRIDE_BYTES: u64 = 256 * 1024;

/// Longest signed note in a trailer or a record: a head, a successor's key, one signature.
pub const NOTE_STORED_BYTES_MAX: usize = 768;

/// Longest checkpoint as a record: what a writer keeps free in each frame.
pub const CHECKPOINT_STORED_BYTES_MAX: usize = RECORD_HEADER_BYTES + NOTE_STORED_BYTES_MAX;

/// Bytes of a Merkle hash (SHA-256).
pub const HASH_BYTES: usize = 32;

/// Smallest segment: header, one frame of the largest size, trailer.
pub const SEGMENT_BYTES_MIN: u64 = 512 * 1024;

/// Largest segment: bounds what recovery reads and the index in a trailer.
pub const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Size of a segment unless told otherwise. Recovery reads one; at 2 M records/s one lasts a
/// tenth of a second, which is ten directory barriers a second.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

/// Most bytes that a trailer can take in a segment of `segment_bytes`, whatever is in it.
#[must_use]
pub const fn trailer_bytes_max(segment_bytes: u64, align_bytes: u32) -> u64 {
    let entries = segment_bytes / INDEX_STRIDE_BYTES + 1;
    // Compressed records may be as short as a frame's smallest length allows.
    let blocks = (segment_bytes / align_bytes as u64 * FRAME_RECORDS_MAX as u64) >> BLOCK_LEVEL;
    let blocks = if blocks < BLOCKS_MAX as u64 { blocks as usize } else { BLOCKS_MAX };
    let bytes = TRAILER_FIXED_BYTES
        + RANGE_NODES_MAX * HASH_BYTES
        + blocks * HASH_BYTES
        + NOTE_STORED_BYTES_MAX
        + entries as usize * INDEX_ENTRY_BYTES
        + TRAILER_FOOTER_BYTES;
    align_up(bytes as u64, align_bytes)
}

/// The smallest multiple of `align_bytes` that is at least `value`.
#[must_use]
pub const fn align_up(value: u64, align_bytes: u32) -> u64 {
    value.next_multiple_of(align_bytes as u64)
}

const _: () = assert!(RECORD_PAYLOAD_BYTES_MAX >= 64 * 1024, "the promised limit of a record");
const _: () = assert!(
    FRAME_HEADER_BYTES
        + RECORD_HEADER_BYTES
        + RECORD_PAYLOAD_BYTES_MAX
        + CHECKPOINT_STORED_BYTES_MAX
        <= FRAME_BYTES_MAX,
    "the longest record fits an empty frame, with a checkpoint behind it"
);
const _: () = assert!(FRAME_BYTES_MAX.is_multiple_of(ALIGN_BYTES_MAX as usize));
const _: () = assert!(ALIGN_BYTES_MIN.is_power_of_two() && ALIGN_BYTES_MAX.is_power_of_two());
const _: () = assert!(FRAME_HEADER_BYTES + RECORD_HEADER_BYTES < ALIGN_BYTES_MIN as usize);
const _: () = assert!(
    SEGMENT_HEADER_FIXED_BYTES + PEAKS_MAX * HASH_BYTES <= ALIGN_BYTES_MAX as usize,
    "a segment header is at most one page"
);
const _: () = assert!(SEGMENT_HEADER_FIXED_BYTES <= ALIGN_BYTES_MIN as usize);
const _: () = assert!(
    trailer_bytes_max(SEGMENT_BYTES_MAX, ALIGN_BYTES_MAX) <= FRAME_BYTES_MAX as u64,
    "a trailer fits a frame buffer"
);
const _: () = assert!(
    ALIGN_BYTES_MAX as u64
        + FRAME_BYTES_MAX as u64
        + trailer_bytes_max(SEGMENT_BYTES_MIN, ALIGN_BYTES_MAX)
        <= SEGMENT_BYTES_MIN,
    "the smallest segment takes the largest frame"
);
const _: () = assert!(SEGMENT_BYTES_DEFAULT.is_multiple_of(ALIGN_BYTES_MAX as u64));
