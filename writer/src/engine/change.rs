//! The change of segment: a trailer ends one, a header begins the next.

use super::commit::{Commit, Place};
use super::segment::{Active, Surroundings};
use super::signer::Signer;
use super::spare::Spare;
use super::{Engine, IoBuf};
use crate::disk::{Disk, FileId, Op};
use graven_format::name;
use graven_format::trailer::SealReason;

impl<D: Disk> Engine<D> {
    /// Seals the active segment and activates the spare; false if that cannot begin now.
    pub(super) fn change_segment(&mut self) -> bool {
        if self.commits.changes_segment() {
            return false;
        }
        self.spare.hurry();
        let Some(segment) = self.spare.take_ready() else { return false };
        self.seal(SealReason::Full);
        let around = Surroundings {
            trail_id: self.trail_id,
            align_bytes: self.align_bytes,
            prev_trailer_crc: self.prev_trailer_crc,
            in_force: self.signer.as_ref().map_or((0, [0; 32]), Signer::in_force),
            settings: &self.settings,
            now: self.now,
        };
        let (active, header) = Active::new(segment, &self.before, &around);
        let buf = self.header_buf.take().expect("one change of segment at a time");
        let op = write_op(Spare::file(segment), 0, buf, &header);
        let id = self.submit(op);
        self.commits.push(Commit::activation(id, name::temporary(segment), active.name()));
        self.active = Some(active);
        self.drive_spare();
        true
    }

    /// Forms the active segment's trailer; it is submitted when it comes to the front.
    pub(super) fn seal(&mut self, reason: SealReason) {
        let Some(active) = self.active.take() else { return };
        self.before.extend(&active.tree.range());
        let (file, header) = (active.file(), &active.header);
        let (segment, first_seq) = (header.segment, header.first_seq);
        let signer = self.signer.as_mut();
        let sign = |sealed| signer.map(|it| it.sign_trailer(segment, &self.before, sealed));
        let (trailer, crc, offset) = active.trailer(reason, self.now, sign);
        self.prev_trailer_crc = crc;
        let buf = self.trailer_buf.take().expect("one change of segment at a time");
        let op = write_op(file, offset, buf, &trailer);
        self.commits.push(Commit::seal(Place { segment, first_seq, offset }, op));
    }
}

/// A write of `bytes`, which is a whole number of blocks, from a buffer that is large enough.
fn write_op(file: FileId, offset: u64, mut buf: IoBuf, bytes: &[u8]) -> Op {
    let len = bytes.len();
    buf[..len].copy_from_slice(bytes);
    Op::Write { file, offset, buf, len }
}
