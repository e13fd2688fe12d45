//! Every limit and size of format version 1, with its unit in its name, a reason beside it,
//! and its relation to the others asserted at compile time.

/// Format version that this crate writes and reads.
pub const FORMAT_VERSION: u16 = 1;

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

/// Most records in one frame: bounds the memory for their leaf hashes whatever their size.
pub const FRAME_RECORDS_MAX: usize = 2048;

/// Smallest and largest alignment of frames: what STATX_DIOALIGN asks of 512-byte sectors, and
/// what 4 KiB sectors and every page size of today accept.
pub const ALIGN_BYTES_MIN: u32 = 512;
/// See [`ALIGN_BYTES_MIN`].
pub const ALIGN_BYTES_MAX: u32 = 4096;

const _: () = assert!(RECORD_PAYLOAD_BYTES_MAX >= 64 * 1024, "the promised limit of a record");
const _: () = assert!(
    FRAME_HEADER_BYTES + RECORD_HEADER_BYTES + RECORD_PAYLOAD_BYTES_MAX <= FRAME_BYTES_MAX,
    "the longest record fits an empty frame"
);
const _: () = assert!(FRAME_BYTES_MAX.is_multiple_of(ALIGN_BYTES_MAX as usize));
const _: () = assert!(ALIGN_BYTES_MIN.is_power_of_two() && ALIGN_BYTES_MAX.is_power_of_two());
const _: () = assert!(FRAME_HEADER_BYTES + RECORD_HEADER_BYTES < ALIGN_BYTES_MIN as usize);
