//! Checkpoints: when one is due, who signs it, and when the key that signs is followed by another.
//!
//! A checkpoint is a record in a place that the ring has kept for it at the end of a batch, or stands in
//! a trailer. It is published when it is durable, and not before: what nobody has seen, nobody can hold
//! against a trail that lost it.

use super::checkpoints::Checkpoints;
use super::{Engine, IoBuf};
use crate::clock::Now;
use crate::disk::Disk;
use crate::keys::{KeyDone, KeyOp, KeyStore};
use crate::ring::Batch;
use graven_format::consts::FRAME_HEADER_BYTES;
use graven_format::key_file::KeyFile;
use graven_format::lines::{Head, origin};
use graven_format::merkle::{CompactRange, Hash};
use graven_format::note::Checkpoint;
use graven_format::{Flags, Record, Source, kind};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

/// How long after a failure the key store is asked again.
const RETRY_NS: u64 = 10_000_000_000;

/// When checkpoints are made and keys change.
#[derive(Clone, Copy, Debug)]
pub struct Cadence {
    /// How long the oldest record that no checkpoint covers waits for one; none is made for its age
    /// without.
    pub interval_ns: Option<u64>,
    /// How long a key signs.
    pub epoch_ns: u64,
    /// In how many segments a key signs.
    pub epoch_segments: u64,
}

/// What an engine signs with.
pub struct Signing {
    /// The key that signs at the trail's end.
    pub key: KeyFile,
    /// Whether it has signed something already.
    pub signed: bool,
    /// Where the next ones come from.
    pub store: Box<dyn KeyStore>,
    /// When.
    pub cadence: Cadence,
}

/// How far the change to the next key has come. What is durable of it: [`crate::keys`].
enum Change {
    /// The key signs.
    None,
    /// The store makes the next one.
    Preparing,
    /// The next one signs from the next checkpoint on.
    Prepared(Box<KeyFile>),
    /// It signs, and the record of this seq says so.
    Recorded(u64),
    /// The store erases the last one.
    Installing,
    /// The store has failed at that; it is asked again at this boottime.
    InstallAt(u64),
}

/// What must be durable before a note is published.
enum Awaited {
    Record(u64),
    Trailer(u64),
}

/// See the module's documentation.
pub(super) struct Signer {
    key: KeyFile,
    signed: bool,
    store: Box<dyn KeyStore>,
    cadence: Cadence,
    checkpoints: Arc<Checkpoints>,
    /// When the oldest record that no checkpoint covers was placed.
    uncovered_since_ns: Option<u64>,
    /// Whether the ring has been asked for a checkpoint that it has not handed over yet.
    asked: bool,
    /// The boottime at which the epoch ends.
    epoch_end_ns: Option<u64>,
    change: Change,
    /// Not published yet, in the order in which they become durable.
    pending: VecDeque<(Awaited, u64, String)>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Signer {
    pub(super) fn new(signing: Signing, checkpoints: Arc<Checkpoints>) -> Self {
        let Signing { key, signed, store, cadence } = signing;
        checkpoints.set_epoch(key.epoch);
        Self {
            key,
            signed,
            store,
            cadence,
            checkpoints,
            uncovered_since_ns: None,
            asked: false,
            epoch_end_ns: None,
            change: Change::None,
            pending: VecDeque::new(),
        }
    }

    /// Epoch and public key, as a segment's header has them.
    pub(super) fn in_force(&self) -> (u64, [u8; 32]) {
        (self.key.epoch, self.key.key.public().bytes())
    }

    /// Checkpoints come at another interval from now on.
    pub(super) fn set_interval_ns(&mut self, interval_ns: Option<u64>) {
        self.cadence.interval_ns = interval_ns;
    }

    /// Records were placed that no checkpoint covers.
    fn note_uncovered(&mut self, now: Now) {
        self.uncovered_since_ns.get_or_insert(now.boottime_ns);
    }

    /// Signs the tree of `whole` with the key of this place.
    fn sign(
        &mut self,
        whole: &CompactRange,
        successor: Option<&KeyFile>,
        sealed: Option<Hash>,
    ) -> String {
        let size = whole.end();
        // It begins at 0, so it has a root.
        let root = whole.root().unwrap_or_default();
        let head = Head { origin: origin(self.key.trail_id), size, root };
        let successor = successor.map(|next| next.key.public().clone());
        self.signed = true;
        self.uncovered_since_ns = None;
        self.key.key.sign(&Checkpoint { head, successor, sealed })
    }

    /// The note of the record that has the seq behind `whole`.
    fn sign_record(&mut self, whole: &CompactRange) -> String {
        self.asked = false;
        let seq = whole.end();
        let change = std::mem::replace(&mut self.change, Change::None);
        let note = if let Change::Prepared(next) = change {
            let note = self.sign(whole, Some(&next), None);
            // The last key's memory is overwritten here.
            self.key = *next;
            self.checkpoints.set_epoch(self.key.epoch);
            self.signed = false;
            self.epoch_end_ns = None;
            self.change = Change::Recorded(seq);
            note
        } else {
            self.change = change;
            self.sign(whole, None, None)
        };
        self.pending.push_back((Awaited::Record(seq), seq, note.clone()));
        note
    }

    /// The note of the trailer of this segment, which ends behind `whole`.
    pub(super) fn sign_trailer(
        &mut self,
        segment: u64,
        whole: &CompactRange,
        sealed: Hash,
    ) -> String {
        let note = self.sign(whole, None, Some(sealed));
        self.pending.push_back((Awaited::Trailer(segment), whole.end(), note.clone()));
        note
    }

    /// Publishes what is durable: records below `durable`, and trailers up to this segment's.
    pub(super) fn publish(&mut self, durable: u64, trailer: Option<u64>, now: Now) {
        let is_durable = |awaited: &Awaited| match awaited {
            Awaited::Record(seq) => *seq < durable,
            Awaited::Trailer(segment) => trailer.is_some_and(|done| *segment <= done),
        };
        while self.pending.front().is_some_and(|next| is_durable(&next.0)) {
            let Some((_, size, note)) = self.pending.pop_front() else { return };
            self.checkpoints.publish(size, note, Some(now.boottime_ns));
        }
    }

    /// The boottime at which there is something to do, if nothing happens before.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        let covers = self.checkpoint_due_ns();
        let change = match &self.change {
            Change::None => self.epoch_end_ns.filter(|_| self.signed),
            Change::InstallAt(at_ns) => Some(*at_ns),
            _ => None,
        };
        covers.into_iter().chain(change).min()
    }

    fn checkpoint_due_ns(&self) -> Option<u64> {
        let interval_ns = self.cadence.interval_ns.filter(|_| !self.asked)?;
        Some(self.uncovered_since_ns?.saturating_add(interval_ns))
    }

    /// Whether the last key is being erased.
    pub(super) fn is_installing(&self) -> bool {
        matches!(self.change, Change::Installing)
    }

    /// Goes on with the change of keys as far as it can; returns whether a checkpoint is wanted from
    /// the ring. `segment` is the one in use, and none once the engine closes down.
    fn go_on(&mut self, now: Now, durable: u64, segment: Option<u64>) -> bool {
        if let Some(done) = self.store.poll() {
            self.store_ended(done, now);
        }
        let since_ns = self.key.since_ns;
        let epoch_ns = self.cadence.epoch_ns;
        let age_ns = now.realtime_ns.saturating_sub(since_ns).min(epoch_ns);
        let epoch_end_ns =
            *self.epoch_end_ns.get_or_insert(now.boottime_ns.saturating_add(epoch_ns - age_ns));
        match self.change {
            Change::None => {
                // Who closes down begins nothing new.
                let Some(segment) = segment else { return false };
                let segments = segment.saturating_sub(self.key.segment);
                let over = segments >= self.cadence.epoch_segments && !self.is_put_off(now);
                if self.signed && (over || now.boottime_ns >= epoch_end_ns) {
                    let (epoch, since_ns) = (self.key.epoch + 1, now.realtime_ns);
                    self.change = Change::Preparing;
                    self.store.submit(KeyOp::Prepare { epoch, since_ns, segment });
                }
            }
            Change::Recorded(seq) if seq < durable => self.install(),
            Change::InstallAt(at_ns) if now.boottime_ns >= at_ns => self.install(),
            _ => {}
        }
        let due = self.checkpoint_due_ns().is_some_and(|due_ns| now.boottime_ns >= due_ns);
        let changes = matches!(self.change, Change::Prepared(_));
        let wanted = (due || changes) && !self.asked;
        self.asked |= wanted;
        wanted
    }

    /// Whether the store has failed a moment ago: then the epoch's end is put off.
    fn is_put_off(&self, now: Now) -> bool {
        self.checkpoints.trouble().is_some()
            && self.epoch_end_ns.is_some_and(|at_ns| now.boottime_ns < at_ns)
    }

    fn install(&mut self) {
        self.change = Change::Installing;
        self.store.submit(KeyOp::Install);
    }

    fn store_ended(&mut self, done: std::io::Result<KeyDone>, now: Now) {
        let again_ns = now.boottime_ns.saturating_add(RETRY_NS);
        match done {
            Ok(KeyDone::Prepared(next)) => {
                self.checkpoints.set_trouble(None);
                self.change = Change::Prepared(next);
            }
            Ok(KeyDone::Installed) => {
                self.checkpoints.set_trouble(None);
                self.change = Change::None;
            }
            Err(error) if matches!(self.change, Change::Installing) => {
                let text = format!("the last key cannot be erased: {error}");
                self.checkpoints.set_trouble(Some(text));
                self.change = Change::InstallAt(again_ns);
            }
            Err(error) => {
                let text = format!("the next key cannot be written: {error}");
                self.checkpoints.set_trouble(Some(text));
                self.change = Change::None;
                self.epoch_end_ns = Some(again_ns);
            }
        }
    }
}

/// The part of a batch that is in the tree before its frame is submitted.
#[derive(Clone, Copy)]
pub(super) struct Hashed {
    /// Offset in the buffer of the first record that is not.
    pub(super) end: usize,
    /// Records that are.
    pub(super) count: u32,
}

impl<D: Disk> Engine<D> {
    /// Puts the checkpoint into a batch that keeps a place for one: hashes the records before it,
    /// which goes into the tree, and signs.
    ///
    /// # Panics
    /// If the ring has kept a place and there is no key: whoever made the ring knew of it.
    pub(super) fn add_checkpoint(&mut self, batch: &mut Batch<IoBuf>) -> Hashed {
        let mut hashed = Hashed { end: FRAME_HEADER_BYTES, count: 0 };
        if !batch.checkpoint {
            if let Some(signer) = &mut self.signer {
                signer.note_uncovered(self.now);
            }
            return hashed;
        }
        let (signer, active) = (self.signer.as_mut(), self.active.as_mut());
        let signer = signer.expect("a ring with checkpoints has an engine that signs");
        let active = active.expect("a batch is placed in a segment");
        if batch.count > 0 {
            self.tree.hash(batch.records(), batch.count);
            self.tree.append_to(&mut active.tree);
            hashed = Hashed { end: batch.end, count: batch.count };
        }
        let mut whole = self.before.clone();
        whole.extend(&active.tree.range());
        let note = signer.sign_record(&whole);
        let record = Record {
            source: Source::Graven,
            kind: kind::TRUSTED_APP,
            flags: Flags::CHECKPOINT,
            realtime_ns: self.now.realtime_ns,
            boottime_ns: self.now.boottime_ns,
            source_seq: 0,
            bytes: note.as_bytes(),
        };
        let seq = batch.push_checkpoint(&record);
        assert_eq!(seq, whole.end(), "a checkpoint covers exactly the records before it");
        hashed
    }

    /// Goes on with what is to be signed and with the change of keys.
    pub(super) fn drive_signer(&mut self) {
        let segment = self.active.as_ref().map_or(self.spare.segment(), |it| it.header.segment);
        let segment = Some(segment).filter(|_| self.closing.is_none());
        let durable = self.watermark.durable();
        if let Some(signer) = &mut self.signer
            && signer.go_on(self.now, durable, segment)
        {
            self.ring.request_checkpoint();
        }
    }
}
