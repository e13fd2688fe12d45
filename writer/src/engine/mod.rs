//! The engine: one thread's state machine from batch to watermark. It performs no I/O itself:
//! time comes in as an argument, operations go out to a [`Disk`], completions come back.
//!
//! # What is in flight
//!
//! Everything that must become durable in order is a `Commit` in one queue: a frame, the
//! trailer of a full segment, the activation of the next one. Their operations overlap and may
//! complete in any order, but a commit counts only when all before it count, and only then does
//! the watermark move. A crash therefore always leaves a prefix of the queue, plus pieces that
//! were never announced.
//!
//! # Change of segment
//!
//! The next segment is prepared one ahead (created, allocated, zeroed, synced) under a temporary
//! name. When a frame does not fit any more:
//! 1. the trailer is formed, and submitted once every frame before it is durable, so that a
//!    trailer on disk proves its segment complete;
//! 2. the next segment's header is written behind a barrier, then the file gets its name, then
//!    the directory is synced; its frames are already on their way meanwhile.
//!
//! At most one change is in flight, which is why recovery needs to look at two segments only.

use crate::clock::Now;
use crate::disk::{Completion, Disk, FileId, IoBuf, Op, OpId};
use crate::error::WriteError;
use crate::ring::{Batch, Ring, WakeOn};
use checkpoints::Checkpoints;
use closing::Closing;
use commit::{Commit, Commits, Given, Place};
use durability::{Durable, Watermark};
use graven_format::consts::{ALIGN_BYTES_MAX, FRAME_HEADER_BYTES, align_up, trailer_bytes_max};
use graven_format::frame::{self, FrameFields};
use graven_format::merkle::CompactRange;
use graven_format::{Record, TrailId};
use metrics::Metrics;
use recover::Recovered;
use requests::Requests;
use segment::Active;
use signer::Signer;
pub use signer::{Cadence, Signing};
use spare::Spare;
pub use squeeze::Compress;
pub(crate) use squeeze::SQUEEZE_BYTES;
use squeeze::Squeeze;
use std::io;
use std::sync::Arc;
pub(crate) use tree::TREE_BYTES;
use tree::Tree;

mod change;
pub mod checkpoints;
mod closing;
mod commit;
pub mod durability;
pub mod metrics;
pub mod recover;
pub mod requests;
mod room;
mod segment;
mod signer;
mod spare;
mod squeeze;
#[cfg(test)]
mod tests;
mod tree;

/// What to do when there is no room for another segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// Wait: producers wait too, and all goes on when room returns.
    #[default]
    Wait,
    /// Fail as on any other storage error.
    End,
}

/// What the engine is told at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of a segment, see [`graven_format::consts::SEGMENT_BYTES_DEFAULT`].
    pub segment_bytes: u64,
    /// Frames in flight at most; more than one only while batches are full.
    pub in_flight_max: usize,
    /// Whether segments are overwritten with zeros ahead of use.
    pub zero_ahead: bool,
    /// What to do when there is no room for another segment.
    pub on_full: OnFull,
    /// Whether frames are compressed.
    pub compress: Compress,
    /// The kernel's id of this boot.
    pub boot_id: [u8; 16],
    /// The node name, at most [`graven_format::consts::HOST_BYTES_MAX`] bytes.
    pub host: Vec<u8>,
}

/// What the engine's thread does next.
#[derive(Debug)]
pub enum Turn {
    /// Call [`Engine::turn`] again now.
    Again,
    /// Sleep in [`Disk::wait`], at most until this boottime.
    Sleep {
        /// Nanoseconds since boot.
        until_ns: Option<u64>,
    },
    /// The ring is closed and everything is durable and sealed.
    Finished,
    /// Storage has failed. Ring and watermark are poisoned; there is nothing more to do.
    Failed(WriteError),
}

/// See the module's documentation.
pub struct Engine<D> {
    disk: D,
    ring: Arc<Ring<IoBuf>>,
    watermark: Arc<Watermark>,
    metrics: Arc<Metrics>,
    settings: Settings,
    trail_id: TrailId,
    align_bytes: u32,
    next_op: u64,
    commits: Commits,
    spare: Spare,
    /// The segment that frames go to.
    active: Option<Active>,
    /// The compact range of all records before the active segment.
    before: CompactRange,
    tree: Tree,
    /// CRC of the trailer before the active segment; 0 if there is none.
    prev_trailer_crc: u32,
    /// A batch that waits for the next segment.
    held: Option<Batch<IoBuf>>,
    /// A batch that was packed while as many frames were in flight as may be.
    ahead: Option<Batch<IoBuf>>,
    squeeze: Squeeze,
    /// Whether that wait is given up, if it is for room.
    giving_up: bool,
    /// For the one header and the one trailer that can be in flight.
    header_buf: Option<IoBuf>,
    trailer_buf: Option<IoBuf>,
    /// Files of sealed segments that are being closed: their numbers are not free yet.
    closes: Vec<(OpId, FileId)>,
    closing: Option<Closing>,
    /// Nothing is signed without.
    signer: Option<Signer>,
    checkpoints: Arc<Checkpoints>,
    requests: Arc<Requests>,
    completions: Vec<Completion>,
    /// Batches that are durable and announced, and not counted yet.
    settled: Vec<Batch<IoBuf>>,
    /// What ended it. It stays ended: a barrier that completes later must not be announced by an
    /// engine that has lost an earlier one.
    failed: Option<WriteError>,
    /// Since when there has been nothing to do, in nanoseconds since boot.
    rests_since_ns: Option<u64>,
    now: Now,
}

impl<D: Disk> Engine<D> {
    /// An engine that goes on after what recovery found. `ring` starts at its `next_seq`.
    ///
    /// # Errors
    /// There is no memory for the buffers of headers and trailers.
    ///
    /// # Panics
    /// If the settings are out of the format's limits: whoever takes them from a user checks.
    pub fn new(
        disk: D,
        ring: Arc<Ring<IoBuf>>,
        watermark: Arc<Watermark>,
        metrics: Arc<Metrics>,
        settings: Settings,
        recovered: Recovered,
    ) -> io::Result<Self> {
        let align_bytes = disk.geometry().align_bytes;
        assert!(settings.in_flight_max > 0);
        assert!(settings.segment_bytes.is_multiple_of(align_bytes.into()));
        let trailer_len = trailer_bytes_max(settings.segment_bytes, align_bytes);
        Ok(Self {
            disk,
            ring,
            watermark,
            metrics,
            trail_id: recovered.trail_id,
            align_bytes,
            next_op: recovered.next_op,
            commits: Commits::default(),
            spare: Spare::new(recovered.next_segment, settings.segment_bytes, settings.zero_ahead),
            active: None,
            before: recovered.before,
            tree: Tree::new(),
            prev_trailer_crc: recovered.prev_trailer_crc,
            held: None,
            ahead: None,
            squeeze: Squeeze::new(settings.compress),
            giving_up: false,
            header_buf: Some(IoBuf::new(ALIGN_BYTES_MAX as usize)?),
            trailer_buf: Some(IoBuf::new(trailer_len as usize)?),
            closes: Vec::new(),
            closing: None,
            signer: None,
            checkpoints: Arc::new(Checkpoints::new(&recovered.note)),
            requests: Arc::default(),
            completions: Vec::new(),
            settled: Vec::new(),
            failed: None,
            rests_since_ns: None,
            now: Now::default(),
            settings,
        })
    }

    /// The same engine, which signs: its ring keeps room for checkpoints.
    #[must_use]
    pub fn with_signing(mut self, signing: Signing) -> Self {
        self.signer = Some(Signer::new(signing, Arc::clone(&self.checkpoints)));
        self
    }

    /// The checkpoints that are durable.
    #[must_use]
    pub fn checkpoints(&self) -> Arc<Checkpoints> {
        Arc::clone(&self.checkpoints)
    }

    /// What it can be asked for.
    #[must_use]
    pub fn requests(&self) -> Arc<Requests> {
        Arc::clone(&self.requests)
    }

    /// Takes what has completed, moves the watermark, submits what can be. After the first
    /// [`Turn::Failed`] it does nothing any more and says the same again.
    pub fn turn(&mut self, now: Now) -> Turn {
        if let Some(fault) = &self.failed {
            return Turn::Failed(fault.clone());
        }
        self.now = now;
        match self.work() {
            Ok(turn) => turn,
            Err(mut fault) => {
                self.ring.poison(fault.to_string().into());
                // From here on nothing is accepted any more.
                fault.accepted = self.ring.stats().next_seq;
                self.failed = Some(fault.clone());
                self.watermark.fail(fault.clone());
                self.checkpoints.end();
                Turn::Failed(fault)
            }
        }
    }

    /// The driver, for the thread that sleeps in it.
    pub fn disk(&mut self) -> &mut D {
        &mut self.disk
    }

    /// Ends the engine and gives the driver back.
    #[must_use]
    pub fn into_disk(self) -> D {
        self.disk
    }

    /// Whether a segment is there for the next record.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.active.is_some() || self.spare.is_ready()
    }

    /// Whether no operation of the preparation of the next segment is in flight.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.spare.is_busy() && self.spare.retry_at_ns().is_some()
    }

    /// How many records are durable.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.watermark.durable()
    }

    /// Ends the zeroing of the next segment early: it is needed now.
    pub fn hurry(&mut self) {
        self.spare.hurry();
    }

    fn work(&mut self) -> Result<Turn, WriteError> {
        if let Some(since_ns) = self.rests_since_ns.take() {
            self.ring.rest(self.now.boottime_ns.saturating_sub(since_ns));
        }
        let mut completions = std::mem::take(&mut self.completions);
        self.disk.poll(&mut completions);
        let mut went_on = !completions.is_empty();
        for completion in completions.drain(..) {
            self.complete(completion)?;
        }
        self.completions = completions;
        self.advance();
        self.take_interval();
        self.drive_signer();
        if self.closing.is_none() {
            // What was asked for before these records came does not wait for them.
            went_on |= self.seal_if_asked();
            went_on |= self.submit_batches();
            went_on |= self.seal_if_asked();
            self.settle();
            // After the batches: one that waits for the next segment hurries its preparation, and
            // if nothing else is in flight no completion would come to go on with it.
            self.drive_spare();
            self.check_room()?;
        }
        if went_on {
            return Ok(Turn::Again);
        }
        Ok(self.idle())
    }

    /// Nothing can be done at once: sleep, or close down if the ring is.
    fn idle(&mut self) -> Turn {
        let in_flight = self.commits.frames_in_flight();
        if self.closing.is_some() || self.ring.is_closed() {
            let queued = self.ring.stats().queued_records;
            if self.held.is_none() && self.ahead.is_none() && queued == 0 && self.commits.is_empty()
            {
                return self.close_down();
            }
        }
        let cannot_take = self.held.is_some() || in_flight >= self.settings.in_flight_max;
        let on = if in_flight == 0 { WakeOn::Record } else { WakeOn::FullBatch };
        if cannot_take || self.ring.prepare_sleep(on) {
            let rests = !cannot_take && self.commits.is_empty();
            self.rests_since_ns = rests.then_some(self.now.boottime_ns);
            let signs_ns = self.signer.as_ref().and_then(Signer::deadline_ns);
            let until_ns = self.spare.retry_at_ns().into_iter().chain(signs_ns).min();
            return Turn::Sleep { until_ns };
        }
        Turn::Again
    }

    fn submit(&mut self, op: Op) -> OpId {
        let id = OpId(self.next_op);
        self.next_op += 1;
        self.disk.submit(id, op);
        id
    }

    /// One operation has ended.
    fn complete(&mut self, completion: Completion) -> Result<(), WriteError> {
        let Completion { id, result, buf } = completion;
        if self.spare.owns(id) {
            let (operation, file, offset) = self.spare.describe();
            return self
                .spare
                .completed(result)
                .map_err(|error| self.fault(operation, file, offset, error));
        }
        if let Some(is_close) = self.closing.as_mut().and_then(|closing| closing.completed(id)) {
            // Every byte of a file is durable before it is closed: nothing depends on that.
            let result = if is_close { Ok(()) } else { result };
            let trail = "the trail".to_owned();
            return result.map_err(|error| self.fault("closing", trail, None, error));
        }
        let Some(commit) = self.commits.find(id) else {
            // It is closed, whatever close says, and nothing depends on how it went.
            self.closes.retain(|(close, _)| *close != id);
            return Ok(());
        };
        if let Err(error) = result {
            let (operation, file, offset) = commit.describe();
            return Err(self.fault(operation, file, offset, error));
        }
        if let Some((took_ns, unused_ns)) = commit.took(self.now.boottime_ns) {
            self.metrics.note_barrier(took_ns);
            self.ring.rest_beside(unused_ns);
        }
        self.squeeze.pressure.completed(commit.frame_bytes(), self.now.boottime_ns);
        if let Some(op) = self.commits.succeeded(id, buf) {
            let next = self.submit(op);
            self.commits.continue_with(next);
        }
        Ok(())
    }

    fn fault(
        &self,
        operation: &'static str,
        file: String,
        offset: Option<u64>,
        error: io::Error,
    ) -> WriteError {
        let (durable, no_room) = (self.watermark.durable(), false);
        let (accepted, source) = (durable, Arc::new(error));
        WriteError { operation, file, offset, durable, accepted, no_room, source }
    }

    /// Pops the complete prefix of the queue and moves the watermark over it.
    fn advance(&mut self) {
        let (mut durable, mut sealed) = (None, None);
        while let Some(given) = self.commits.pop_done() {
            match given {
                Given::Batch(batch) => {
                    durable = Some(batch.first_seq + u64::from(batch.count));
                    self.settled.push(batch);
                }
                Given::Header(buf) => self.header_buf = Some(buf),
                Given::Trailer(buf, segment) => {
                    self.trailer_buf = Some(buf);
                    sealed = Some(segment);
                    // Closing down does more with the last one than close it.
                    let is_active = |it: &Active| it.header.segment == segment;
                    if self.closing.is_none() && !self.active.as_ref().is_some_and(is_active) {
                        let file = Spare::file(segment);
                        let id = self.submit(Op::Close { file });
                        self.closes.push((id, file));
                    }
                }
            }
        }
        if let Some(durable) = durable {
            self.watermark.publish(Durable::behind_barrier(durable));
        }
        if let Some(signer) = &mut self.signer {
            signer.publish(self.watermark.durable(), sealed, self.now);
        }
        // Every frame of a segment is durable before its trailer is submitted.
        if let Some(op) = self.commits.seal_due() {
            let id = self.submit(op);
            self.commits.seal_submitted(id);
        }
    }

    /// Counts the batches that have become durable and gives their room back: after the device
    /// has been given its next frame, because nothing that is announced waits for this.
    fn settle(&mut self) {
        for batch in self.settled.drain(..) {
            self.metrics.note_durable(&batch, self.now);
            self.ring.recycle(batch);
        }
    }

    fn drive_spare(&mut self) {
        // A filesystem may take longer to close a file than to fill three segments.
        if self.closes.iter().any(|(_, file)| *file == self.spare.file_in_use()) {
            return;
        }
        // Before the first record there is nobody whom zeroing could delay.
        let filled = self.active.as_ref().map_or(u64::MAX, |active| active.tally.frames_end);
        if let Some(op) = self.spare.next_op(self.now.boottime_ns, filled) {
            let id = self.submit(op);
            self.spare.submitted(id);
        }
    }

    /// Takes batches while the disk is free for them: a partial one only when nothing else is in
    /// flight, so that a slow stream does not pay a padded frame for every record.
    fn submit_batches(&mut self) -> bool {
        let mut went_on = false;
        loop {
            let in_flight = self.commits.frames_in_flight();
            if in_flight >= self.settings.in_flight_max {
                // The device has all that it may have: its bandwidth is what lacks, not its latency.
                self.spare.hurry();
                self.pack_ahead();
                return went_on;
            }
            let Some(batch) = self.next_batch(in_flight) else { return went_on };
            if let Some(batch) = self.place(batch) {
                self.held = Some(batch);
                return went_on;
            }
            went_on = true;
        }
    }

    /// Submits a batch as the next frame; gives it back if it must wait for a segment.
    fn place(&mut self, batch: Batch<IoBuf>) -> Option<Batch<IoBuf>> {
        let frame_len = align_up(batch.end_max() as u64, self.align_bytes);
        let fits =
            self.active.as_ref().is_some_and(|active| active.has_room(frame_len, batch.count + 1));
        if !fits && !self.change_segment() {
            return Some(batch);
        }
        let mut batch = batch;
        let hashed = self.add_checkpoint(&mut batch);
        let Some(active) = &self.active else { return Some(batch) };
        let (mut buf, batch) = batch.split();
        let fields = FrameFields {
            record_count: batch.count,
            prev_crc: active.tally.last_crc,
            trail_id: self.trail_id,
            segment: active.header.segment,
            first_seq: batch.first_seq,
            announced: self.watermark.durable(),
        };
        let (file, offset) = (active.file(), active.tally.frames_end);
        let place = Place { segment: fields.segment, first_seq: active.header.first_seq, offset };
        let (len, crc, realtime_first_ns) = self.seal_frame(&mut buf, &batch, &fields);
        let records = buf.share();
        let id = self.submit(Op::Write { file, offset, buf, len });
        // Start the device before the records are hashed: it takes as long for a large frame as the write of it.
        // Completions wait for the next turn.
        self.disk.poll(&mut self.completions);
        // Producers fill what is given back meanwhile.
        self.settle();
        if batch.packed().is_none() {
            self.tree.hash(&records[hashed.end..batch.end], batch.count - hashed.count);
        }
        if let Some(active) = &mut self.active {
            active.add_frame(&mut self.tree, &batch, len as u64, crc, realtime_first_ns);
            self.metrics.note_frame(len as u64, active.in_use());
        }
        self.commits.push(Commit::frame(id, place, batch, self.now.boottime_ns));
        None
    }

    /// Makes a frame of a batch. Returns its length, its CRC and the time of its first record.
    fn seal_frame(
        &self,
        buf: &mut IoBuf,
        batch: &Batch<()>,
        fields: &FrameFields,
    ) -> (usize, u32, u64) {
        if let Some(packed) = batch.packed() {
            let raw_len = batch.records_len();
            let (len, crc) = frame::seal_zstd(buf, packed.end, self.align_bytes, fields, raw_len);
            return (len, crc, packed.realtime_first_ns);
        }
        let realtime_first_ns = Record::decode(&buf[FRAME_HEADER_BYTES..batch.end])
            .map_or(0, |(record, _)| record.realtime_ns);
        let (len, crc) = frame::seal(buf, batch.end, self.align_bytes, fields);
        (len, crc, realtime_first_ns)
    }
}
