//! The leaves of one segment, hashed in batches as the writer hashes them.

use super::{Goal, ProveError};
use crate::trail::scan::{self, How};
use crate::trail::{SegmentFile, TrailDir};
use graven_format::consts::FRAME_RECORDS_MAX;
use graven_format::merkle::{Hash, Hashing as _, Scratch};
use graven_format::proof::Gather;
use graven_format::record::Record;
use graven_format::scan::{Event, Expect};
use graven_writer::hash::Lanes;
use std::ops::ControlFlow;

/// Bytes of records that are hashed at once: enough for every lane, and little memory.
const BATCH_BYTES: usize = 256 * 1024;

/// Reads leaves into a [`Gather`] and keeps the record that is proven.
pub(super) struct Leaves {
    pub(super) gather: Gather,
    /// The record as stored; empty until it was met.
    pub(super) record: Vec<u8>,
    wanted: Option<u64>,
    /// Records as stored, one behind the other, that are not hashed yet, and how many.
    batch: Vec<u8>,
    count: u64,
    hashes: Vec<Hash>,
    scratch: Scratch,
    lanes: Lanes,
}

impl Leaves {
    pub(super) fn new(gather: Gather, goal: Goal) -> Self {
        let wanted = match goal {
            Goal::Inclusion(seq) => Some(seq),
            Goal::Consistency(_) => None,
        };
        Self {
            gather,
            record: Vec::new(),
            wanted,
            batch: Vec::new(),
            count: 0,
            hashes: Vec::new(),
            scratch: Scratch::new(FRAME_RECORDS_MAX),
            lanes: Lanes::new(),
        }
    }

    /// Reads the segment's records up to seq `until`. What is after them is not looked at.
    pub(super) fn read(
        &mut self,
        dir: &TrailDir,
        file: &SegmentFile,
        until: u64,
    ) -> Result<(), ProveError> {
        let opened = dir.open_segment(file).map_err(ProveError::io(file))?;
        let expect = Expect {
            segment: file.segment,
            first_seq: file.first_seq,
            trail_id: dir.trail_id(),
            // The proof's own tree is the check: it must lead to the root that is stated.
            merkle: false,
        };
        let mut next = self.gather.end();
        let mut wrong = None;
        let scanned = scan::scan(&opened, expect, How::default(), &mut |event| {
            match event {
                Event::Record { seq, record, .. } if seq == next && seq < until => {
                    self.add(seq, &record);
                    next += 1;
                }
                Event::Finding(finding) if next < until => {
                    wrong = Some(ProveError::finding(file, &finding));
                }
                _ => {}
            }
            let done = next == until || wrong.is_some();
            if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let scanned = scanned.map_err(ProveError::io(file))?;
        self.flush();
        match wrong {
            Some(why) => Err(why),
            None if next < until => {
                let what = format!("the segment has no record of seq {next}");
                Err(ProveError::damage(file, scanned.extent, what))
            }
            None => Ok(()),
        }
    }

    fn add(&mut self, seq: u64, record: &Record<'_>) {
        let start = self.batch.len();
        self.batch.extend_from_slice(&record.header());
        self.batch.extend_from_slice(record.bytes);
        if self.wanted == Some(seq) {
            self.record = self.batch[start..].to_vec();
        }
        self.count += 1;
        if self.batch.len() >= BATCH_BYTES || self.count == FRAME_RECORDS_MAX as u64 {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.hashes.clear();
        self.lanes.leaves(&self.batch, &mut self.hashes);
        self.gather.leaves(&self.hashes, &mut self.scratch, &mut self.lanes);
        self.batch.clear();
        self.count = 0;
    }
}
