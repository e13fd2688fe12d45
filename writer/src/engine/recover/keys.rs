//! Which key signs at the end of what recovery keeps: that of the segment's header, or the last
//! successor that a record behind it names. It is how whoever verifies the trail follows the keys.

use super::{READ_BYTES, Recovery};
use crate::codec::Reading;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::keys::{InForce, KeyTrouble};
use graven_format::Flags;
use graven_format::lines::{Head, origin};
use graven_format::note::{Checkpoint, Note};
use graven_format::scan::{Event, Expect, Scanner};
use graven_format::segment::SegmentHeader;
use graven_format::trailer::Trailer;

impl<D: Disk> Recovery<'_, D> {
    /// The key that signs behind the records up to `end_seq` of this segment; none if nothing is signed.
    pub(super) fn in_force(
        &mut self,
        header: &SegmentHeader,
        file: &str,
        end_seq: u64,
    ) -> Result<Option<InForce>, OpenError> {
        if header.key == [0; 32] {
            return Ok(None);
        }
        let begins = InForce { epoch: header.epoch, key: header.key };
        // While a key is the trail's own and no other is prepared, no successor of it was ever named.
        let current = self.keys.current.as_ref();
        let settled = !self.keys.next_exists
            && current.is_some_and(|file| file.key.public().bytes() == header.key);
        if settled {
            return Ok(Some(begins));
        }
        self.last_successor(begins, header, file, end_seq).map(Some)
    }

    /// The last key that a record below `end_seq` names, or the one that the segment begins with.
    fn last_successor(
        &mut self,
        begins: InForce,
        header: &SegmentHeader,
        file: &str,
        end_seq: u64,
    ) -> Result<InForce, OpenError> {
        let SegmentHeader { segment, first_seq, .. } = *header;
        let trail_id = Some(self.trail_id);
        let expect = Expect { segment, first_seq, trail_id, merkle: false };
        let mut scanner = Scanner::with_hashing(expect, Reading::new());
        let mut in_force = begins;
        let mut buf = vec![0; READ_BYTES];
        let mut offset = 0;
        loop {
            let read = self.read(file, offset, &mut buf)?;
            if read == 0 {
                scanner.end();
            }
            scanner.push(&buf[..read]);
            while let Some(event) = scanner.next_event() {
                let Event::Record { seq, record, .. } = event else { continue };
                if seq >= end_seq || !record.flags.contains(Flags::CHECKPOINT) {
                    continue;
                }
                let note = Note::parse(record.bytes).ok();
                if let Some(next) = note.and_then(|note| note.checkpoint.successor) {
                    in_force = InForce { epoch: in_force.epoch + 1, key: next.bytes() };
                }
            }
            if read == 0 {
                return Ok(in_force);
            }
            offset += read as u64;
        }
    }

    /// The note of a trailer that recovery writes: signed if the key of its place is here.
    pub(super) fn note(
        &mut self,
        header: &SegmentHeader,
        file: &str,
        trailer: &Trailer,
    ) -> Result<Vec<u8>, OpenError> {
        let size = trailer.end_seq();
        let Some(in_force) = self.in_force(header, file, size)? else { return Ok(Vec::new()) };
        let Some(signs) = self.keys.find(&in_force.key) else {
            if self.keys.may_break {
                return Ok(Vec::new());
            }
            // Before anything was written: with the key, recovery may still sign.
            let found = self.keys.unreadable.clone();
            return Err(KeyTrouble::Missing { in_force, found }.into());
        };
        let head = Head { origin: origin(self.trail_id), size, root: trailer.root };
        let sealed = Some(trailer.seal_hash(header));
        let note = signs.key.sign(&Checkpoint { head, successor: None, sealed });
        Ok(note.into_bytes())
    }
}
