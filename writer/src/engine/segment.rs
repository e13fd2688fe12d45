//! The segment that frames go to.

use super::Settings;
use super::metrics::SegmentInUse;
use super::spare::Spare;
use super::tree::Tree;
use crate::clock::Now;
use crate::disk::FileId;
use crate::ring::Batch;
use graven_format::TrailId;
use graven_format::consts::{BLOCK_LEVEL, BLOCKS_MAX, NOTE_STORED_BYTES_MAX, RANGE_NODES_MAX};
use graven_format::merkle::{CompactRange, Hash, SegmentTree};
use graven_format::name;
use graven_format::segment::SegmentHeader;
use graven_format::trailer::{SealReason, Tally, TallyFrame, Trailer};

/// The segment that frames go to, as it will be on disk.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) header: SegmentHeader,
    pub(super) tally: Tally,
    /// The tree of its own records.
    pub(super) tree: SegmentTree,
}

/// What every segment of a writer's life has in common.
pub(super) struct Surroundings<'a> {
    pub(super) trail_id: TrailId,
    pub(super) align_bytes: u32,
    pub(super) prev_trailer_crc: u32,
    /// Epoch and public key of the key that signs; 0 and zeros if none does.
    pub(super) in_force: (u64, [u8; 32]),
    pub(super) settings: &'a Settings,
    pub(super) now: Now,
}

impl Active {
    /// A segment that follows the records in `before`, and its header's bytes.
    pub(super) fn new(
        segment: u64,
        before: &CompactRange,
        around: &Surroundings<'_>,
    ) -> (Self, Vec<u8>) {
        let mut header = SegmentHeader {
            crc: 0,
            align_bytes: around.align_bytes,
            prev_crc: around.prev_trailer_crc,
            trail_id: around.trail_id,
            segment,
            first_seq: before.end(),
            segment_len: around.settings.segment_bytes,
            created_realtime_ns: around.now.realtime_ns,
            created_boottime_ns: around.now.boottime_ns,
            boot_id: around.settings.boot_id,
            host: around.settings.host.clone(),
            epoch: around.in_force.0,
            key: around.in_force.1,
            before: before.clone(),
        };
        let (bytes, crc) = header.encode();
        header.crc = crc;
        let active = Self {
            tally: Tally::new(bytes.len() as u64, crc),
            tree: SegmentTree::new(header.first_seq),
            header,
        };
        (active, bytes)
    }

    pub(super) fn file(&self) -> FileId {
        Spare::file(self.header.segment)
    }

    pub(super) fn name(&self) -> String {
        name::segment(self.header.segment, self.header.first_seq)
    }

    /// How much of it is in use.
    pub(super) fn in_use(&self) -> SegmentInUse {
        SegmentInUse {
            segment: self.header.segment,
            first_seq: self.header.first_seq,
            used_bytes: self.tally.frames_end,
            total_bytes: self.header.segment_len,
        }
    }

    /// Whether a frame of this length, with so many records, leaves room for the trailer behind it.
    /// Compressed records may be many: the trailer has a hash for each block of them.
    pub(super) fn has_room(&self, frame_len: u64, records: u32) -> bool {
        let records = self.tally.record_count + u64::from(records);
        let blocks = (records >> BLOCK_LEVEL).min(BLOCKS_MAX as u64) as usize;
        let (hashes, entries) = (RANGE_NODES_MAX + blocks, self.tally.index.len() + 1);
        let align_bytes = self.header.align_bytes;
        let trailer_len = Trailer::stored_len(hashes, entries, NOTE_STORED_BYTES_MAX, align_bytes);
        self.tally.frames_end + frame_len + trailer_len as u64 <= self.header.segment_len
    }

    /// Counts a frame that was placed at the end, and adds the records whose hashes `tree` has to the tree.
    pub(super) fn add_frame(
        &mut self,
        tree: &mut Tree,
        batch: &Batch<()>,
        frame_len: u64,
        crc: u32,
        realtime_first_ns: u64,
    ) {
        tree.append_to(&mut self.tree);
        self.tally.add(&TallyFrame {
            first_seq: batch.first_seq,
            offset: self.tally.frames_end,
            frame_len,
            crc,
            record_count: batch.count.into(),
            record_bytes: batch.records_len() as u64,
            realtime_first_ns,
            realtime_min_ns: batch.realtime_ns_min,
            realtime_max_ns: batch.realtime_ns_max,
        });
    }

    /// The trailer that ends this segment with a note, its CRC, and where it goes. `sign` makes the
    /// note, of the hash of what the segment says beside its records.
    pub(super) fn trailer(
        self,
        reason: SealReason,
        now: Now,
        sign: impl FnOnce(Hash) -> Option<String>,
    ) -> (Vec<u8>, u32, u64) {
        let (align_bytes, frames_end) = (self.header.align_bytes, self.tally.frames_end);
        let segment_len = self.header.segment_len;
        let mut trailer =
            Trailer::new(&self.header, self.tally, &self.tree, reason, now.realtime_ns);
        trailer.note = sign(trailer.seal_hash(&self.header)).unwrap_or_default().into_bytes();
        let (bytes, crc) = trailer.encode(align_bytes);
        let offset = match reason {
            // The file keeps its size: a trailer is always the end of its file.
            SealReason::Full => segment_len - bytes.len() as u64,
            // The file is cut to its trailer.
            SealReason::Stop | SealReason::Recovery => frames_end,
        };
        (bytes, crc, offset)
    }
}
