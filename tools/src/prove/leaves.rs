//! The leaves of one segment, hashed in batches as the writer hashes them.

use super::{Goal, ProveError};
use crate::trail::scan::{self, How};
use crate::trail::{SegmentFile, TrailDir};
use graven_format::consts::FRAME_RECORDS_MAX;
use graven_format::merkle::{Hash, Hashing as _, Scratch};
use graven_format::proof::Gather;
use graven_format::record::Record;
use graven_format::scan::{Event, Expect};
use graven_format::trailer::Trailer;
use graven_writer::hash::Lanes;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SendError, SyncSender, channel, sync_channel};
use std::thread::{Builder, Scope};

/// Bytes of records that are hashed at once: enough for every lane, and little memory.
const BATCH_BYTES: usize = 256 * 1024;

/// Batches that wait to be hashed: enough that neither thread waits for the other's last step.
const WAITING_MAX: usize = 2;

/// Reads leaves into a [`Gather`] and keeps the record that is proven.
pub(super) struct Leaves {
    pub(super) gather: Gather,
    /// The record as stored; empty until it was met.
    pub(super) record: Vec<u8>,
    wanted: Option<u64>,
    scratch: Scratch,
    lanes: Lanes,
}

/// Records as stored, one behind the other, and the hashes of their leaves.
#[derive(Default)]
struct Batch {
    records: Vec<u8>,
    count: usize,
    hashes: Vec<Hash>,
}

impl Batch {
    fn hash(&mut self, lanes: &mut Lanes) {
        lanes.leaves(&self.records, &mut self.hashes);
    }

    fn is_full(&self) -> bool {
        self.records.len() >= BATCH_BYTES || self.count == FRAME_RECORDS_MAX
    }
}

/// The thread that hashes records, and those of its batches that are used again.
struct Hasher {
    to: SyncSender<Batch>,
    back: Receiver<Batch>,
    spare: Vec<Batch>,
}

impl Hasher {
    /// Half of the time goes into the records' hashes, so they have a thread of their own.
    fn start<'scope>(scope: &'scope Scope<'scope, '_>) -> Self {
        let (to, batches) = sync_channel::<Batch>(WAITING_MAX);
        let (done, back) = channel();
        let work = move || {
            let mut lanes = Lanes::new();
            for mut batch in batches {
                batch.hash(&mut lanes);
                if done.send(batch).is_err() {
                    return;
                }
            }
        };
        // Without another thread nobody takes a batch, and whoever sends one gets it back.
        let _ = Builder::new().spawn_scoped(scope, work);
        Self { to, back, spare: Vec::new() }
    }
}

impl Leaves {
    pub(super) fn new(gather: Gather, goal: Goal) -> Self {
        let wanted = match goal {
            Goal::Inclusion(seq) => Some(seq),
            Goal::Consistency(_) => None,
        };
        let (scratch, lanes) = (Scratch::new(FRAME_RECORDS_MAX), Lanes::new());
        Self { gather, record: Vec::new(), wanted, scratch, lanes }
    }

    /// Takes a sealed segment up to seq `until`: each hash in its trailer that is a part of the
    /// proof, and between them the leaves.
    pub(super) fn sealed(
        &mut self,
        dir: &TrailDir,
        file: &SegmentFile,
        trailer: &Trailer,
        until: u64,
    ) -> Result<(), ProveError> {
        let until = until.min(trailer.end_seq());
        let known = trailer.subtrees();
        loop {
            let at = self.gather.end();
            if at >= until {
                return Ok(());
            }
            // Several may begin here: larger ones stand in front.
            let ahead = &known[known.partition_point(|(start, ..)| *start < at)..];
            let here = ahead.iter().take_while(|(start, ..)| *start == at);
            if !here.into_iter().any(|(_, level, node)| self.subtree(*level, node)) {
                let next = ahead.iter().map(|(start, ..)| *start).find(|start| *start > at);
                self.read(dir, file, next.map_or(until, |next| next.min(until)))?;
            }
        }
    }

    /// Takes a subtree that begins at the next leaf, if it is a part of the proof. The record that is
    /// proven is needed itself.
    fn subtree(&mut self, level: u32, node: &Hash) -> bool {
        self.wanted != Some(self.gather.end()) && self.gather.subtree(level, node)
    }

    /// Reads the segment's records from the next leaf up to seq `until`. What is before and after them is not
    /// looked at, as far as the segment's index tells where they are.
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
        let scanned = std::thread::scope(|scope| {
            let mut hasher = Hasher::start(scope);
            let mut batch = Batch::default();
            let scanned = scan::scan_from(&opened, expect, next, How::default(), &mut |event| {
                match event {
                    Event::Record { seq, record, .. } if seq == next && seq < until => {
                        self.add(&mut batch, seq, &record);
                        if batch.is_full() {
                            let empty = hasher.spare.pop().unwrap_or_default();
                            self.send(&mut hasher, std::mem::replace(&mut batch, empty));
                        }
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
            self.send(&mut hasher, batch);
            let Hasher { to, back, .. } = hasher;
            // The thread ends with its batches.
            drop(to);
            back.iter().for_each(|batch| self.take(&batch));
            scanned
        });
        scanned.map_err(ProveError::io(file))?;
        match wrong {
            Some(why) => Err(why),
            None if next < until => {
                let what = format!("the segment has no record of seq {next}");
                Err(ProveError::damage(file, 0, what))
            }
            None => Ok(()),
        }
    }

    fn add(&mut self, batch: &mut Batch, seq: u64, record: &Record<'_>) {
        let start = batch.records.len();
        batch.records.extend_from_slice(&record.header());
        batch.records.extend_from_slice(record.bytes);
        batch.count += 1;
        if self.wanted == Some(seq) {
            self.record = batch.records[start..].to_vec();
        }
    }

    /// Gives a batch to be hashed and takes those that were, in their order.
    fn send(&mut self, hasher: &mut Hasher, batch: Batch) {
        if let Err(SendError(mut batch)) = hasher.to.send(batch) {
            batch.hash(&mut self.lanes);
            self.take(&batch);
        }
        while let Ok(mut batch) = hasher.back.try_recv() {
            self.take(&batch);
            batch.records.clear();
            batch.hashes.clear();
            batch.count = 0;
            hasher.spare.push(batch);
        }
    }

    fn take(&mut self, batch: &Batch) {
        self.gather.leaves(&batch.hashes, &mut self.scratch, &mut self.lanes);
    }
}
