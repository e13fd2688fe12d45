//! One writer from start to end, driven step by step as its own thread and its producers would.

use crate::clock::Clock;
use crate::content::Accepted;
use crate::keys::{self, SimStore};
use crate::oracle::{Oracle, Violation, violated};
use crate::plan::{Plan, ROOM_BYTES};
use crate::rng::Rng;
use crate::stage::Stage;
use graven_format::consts::{
    CHECKPOINT_STORED_BYTES_MAX, FRAME_HEADER_BYTES, RECORD_HEADER_BYTES, RECORD_PAYLOAD_BYTES_MAX,
    SEGMENT_BYTES_MIN,
};
use graven_writer::disk::sim::{SECTOR_BYTES, SimWake};
use graven_writer::disk::{Disk, IoBuf, Wake};
use graven_writer::engine::metrics::Metrics;
use graven_writer::engine::recover::Recovered;
use graven_writer::engine::{Engine, Settings, Signing, Turn};
use graven_writer::ring::Ring;
use graven_writer::source::AppendError;
use graven_writer::{Watermark, WriteError};
use std::sync::Arc;

/// Steps after which a writer that has not come to its end never will: fifty for each record of
/// the longest session. No life that was seen needed a tenth of it.
const STEPS_MAX: u64 = 50 * RECORDS_MAX;

/// Most records of one generation: hashing is what a life spends its time on.
const RECORDS_MAX: u64 = 400;

/// How a session came to its end.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The stage has remains.
    Suddenly,
    /// Storage failed, or there was no room and the writer was told to end then.
    Failed(WriteError),
    /// There was no room for the first segment.
    NoRoom,
    /// It was closed: all is durable and sealed.
    Closed,
}

/// A writer and its producers.
pub(crate) struct Session<'a> {
    plan: &'a Plan,
    rng: &'a mut Rng,
    clock: &'a mut Clock,
    oracle: &'a mut Oracle,
    generation: u32,
    engine: Engine<Stage>,
    ring: Arc<Ring<IoBuf>>,
    watermark: Arc<Watermark>,
    wake: Arc<SimWake>,
    waker: Arc<dyn Wake>,
    /// Wake-ups that sleeps have ended with.
    wakes_seen: u64,
    /// Whether the engine sleeps, and until when at most.
    asleep: Option<Option<u64>>,
    /// Records still to be appended.
    left: u64,
    payload_bytes_max: u64,
    /// Whether the first segment is awaited, as the opening of a trail does.
    opening: bool,
    /// Whether closing waits until all is durable.
    drains: bool,
    closed: bool,
    steps: u64,
}

impl<'a> Session<'a> {
    /// A writer that goes on from what was recovered.
    pub(crate) fn new(
        plan: &'a Plan,
        (rng, clock, oracle): (&'a mut Rng, &'a mut Clock, &'a mut Oracle),
        mut stage: Stage,
        generation: u32,
        recovered: Recovered,
    ) -> Result<Self, Violation> {
        let settings = Settings {
            segment_bytes: plan.segment_bytes(rng),
            in_flight_max: plan.in_flight_max,
            zero_ahead: plan.zero_ahead,
            on_full: plan.on_full,
            compress: plan.compress,
            boot_id: clock.boot_id(),
            host: b"simulator".to_vec(),
        };
        let (buffers, buffer_bytes) = plan.ring;
        let buffers = (0..buffers).map(|_| IoBuf::new(buffer_bytes).expect("memory")).collect();
        let watermark = Arc::new(recovered.watermark());
        if watermark.durable() != oracle.announced() {
            violated!("the watermark starts at {}", watermark.durable());
        }
        stage.watch(Arc::clone(&watermark));
        stage.limit_frames(settings.in_flight_max);
        narrow(plan, rng, &mut stage, settings.segment_bytes);
        let wake = stage.sim().sim_waker();
        let waker = stage.waker();
        let ring = Ring::new(buffers, recovered.next_seq(), stage.waker());
        let mut ring = ring.with_standing(plan.standing);
        let mut reserve = 0;
        let signing = signing(plan, &stage, &recovered);
        if signing.is_some() {
            reserve = CHECKPOINT_STORED_BYTES_MAX;
            ring = ring.with_checkpoints(reserve);
        }
        let ring = Arc::new(ring);
        let (ring_too, watermark_too) = (Arc::clone(&ring), Arc::clone(&watermark));
        let metrics = Arc::new(Metrics::default());
        let mut engine = Engine::new(stage, ring_too, watermark_too, metrics, settings, recovered)
            .expect("memory");
        if let Some(signing) = signing {
            engine = engine.with_signing(signing);
        }
        let checkpoints = engine.checkpoints();
        engine.disk().watch_checkpoints(checkpoints);
        let fits = (buffer_bytes - FRAME_HEADER_BYTES - RECORD_HEADER_BYTES - reserve) as u64;
        let payload_bytes_max = fits.min(RECORD_PAYLOAD_BYTES_MAX as u64);
        let usual = plan.payload_bytes.min(payload_bytes_max) / 2 + RECORD_HEADER_BYTES as u64;
        Ok(Self {
            left: rng.below((plan.generation_bytes / usual).clamp(2, RECORDS_MAX)),
            opening: rng.one_in(2),
            drains: rng.one_in(2),
            wakes_seen: wake.count(),
            waker,
            plan,
            rng,
            clock,
            oracle,
            generation,
            engine,
            ring,
            watermark,
            wake,
            asleep: None,
            payload_bytes_max,
            closed: false,
            steps: 0,
        })
    }

    /// The stage, for what is done around the session.
    pub(crate) fn stage(&mut self) -> &mut Stage {
        self.engine.disk()
    }

    /// Ends the session.
    #[must_use]
    pub(crate) fn into_stage(self) -> Stage {
        self.engine.into_disk()
    }

    /// Goes on to the end, whichever it is.
    pub(crate) fn run(&mut self) -> Result<Ended, Violation> {
        let ended = self.live()?;
        // Also what the last turn has kept for a checkpoint may be on the disk.
        self.oracle.reserve(self.ring.stats().next_seq)?;
        Ok(ended)
    }

    fn live(&mut self) -> Result<Ended, Violation> {
        loop {
            self.steps += 1;
            self.engine.disk().note_steps(self.steps);
            if self.steps > STEPS_MAX {
                violated!("the engine does not come to an end");
            }
            if self.clock.tick(self.rng) {
                self.engine.disk().note("clock jumps");
            }
            let keys = self.engine.disk().keys();
            if keys.borrow().is_busy() && self.rng.one_in(3) {
                if let Some(how) = keys::go_on(&keys, &self.waker) {
                    self.engine.disk().note(how);
                }
                self.engine.disk().moment();
            }
            if self.rng.below(8) < 3 && !self.opening {
                self.produce()?;
            } else if let Some(ended) = self.go_on()? {
                return Ok(ended);
            }
            self.engine.disk().moment();
            if self.engine.disk().is_over() {
                return Ok(Ended::Suddenly);
            }
        }
    }

    /// Producers append what they can, and in the end the trail is closed.
    fn produce(&mut self) -> Result<(), Violation> {
        let mut burst = self.rng.between(1, 20).min(self.left);
        let mut blocked = false;
        while burst > 0 && !blocked {
            let usual = self.plan.payload_bytes.min(self.payload_bytes_max);
            let max = if self.rng.one_in(100) { self.payload_bytes_max } else { usual };
            let next = Accepted {
                nth: 0,
                generation: self.generation,
                len: self.rng.between(0, max) as u32,
                realtime_ns: self.clock.now().realtime_ns,
                boottime_ns: self.clock.now().boottime_ns,
            };
            let ring = &self.ring;
            let offered = self.oracle.offer(next, |record| match ring.try_append(&record) {
                Ok(given) => Ok(Some(given)),
                Err(AppendError::Full) => Ok(None),
                Err(error) => Err(Violation(format!("an open ring said: {error}"))),
            })?;
            blocked = offered.is_none();
            burst -= 1;
            self.left -= u64::from(!blocked);
        }
        self.oracle.reserve(self.ring.stats().next_seq)?;
        if self.left > 0 && self.rng.one_in(40) {
            self.ring.cover();
        }
        if self.plan.seals && self.left > 0 && self.rng.one_in(30) {
            self.engine.requests().seal(self.ring.stats().next_seq);
            self.ring.nudge();
            self.engine.disk().note("seals by request");
        }
        let settled = self.watermark.durable() == self.oracle.accepted();
        if self.left == 0 && !self.closed && (settled || !self.drains) && self.rng.one_in(4) {
            self.closed = true;
            self.ring.close();
            self.engine.disk().hasten();
        }
        if self.rng.one_in(50) {
            self.engine.hurry();
        }
        Ok(())
    }

    /// The engine's thread goes on, if it does not sleep.
    fn go_on(&mut self) -> Result<Option<Ended>, Violation> {
        if let Some(until_ns) = self.asleep {
            if !self.wakes(until_ns)? {
                return Ok(None);
            }
            self.asleep = None;
            self.wakes_seen = self.wake.count();
        }
        let turn = self.engine.turn(self.clock.now());
        if self.engine.disk().is_over() {
            return Ok(Some(Ended::Suddenly));
        }
        self.oracle.reserve(self.ring.stats().next_seq)?;
        self.oracle.announce(self.watermark.durable())?;
        if self.oracle.publish(self.engine.checkpoints().newest().as_deref())? {
            self.engine.disk().note("checkpoints published");
        }
        if self.opening {
            if self.engine.is_ready() {
                self.opening = false;
            } else if self.engine.waits_for_room() && self.engine.is_settled() {
                return Ok(Some(Ended::NoRoom));
            }
        }
        match turn {
            Turn::Again => Ok(None),
            Turn::Sleep { until_ns } => {
                self.asleep = Some(until_ns);
                Ok(None)
            }
            Turn::Finished => self.finished().map(Some),
            Turn::Failed(error) => self.failed(error).map(Some),
        }
    }

    /// Whether something ends the engine's sleep now. If nothing ever will, and there is
    /// something left to do, that is a wake-up that was lost.
    fn wakes(&mut self, until_ns: Option<u64>) -> Result<bool, Violation> {
        if self.wake.count() > self.wakes_seen || self.rng.one_in(50) {
            return Ok(true);
        }
        if self.engine.disk().outstanding() > 0 {
            if self.rng.one_in(2) {
                self.engine.disk().wait(None);
                return Ok(true);
            }
            return Ok(false);
        }
        if self.engine.disk().keys().borrow().is_busy() {
            return Ok(false);
        }
        let Some(until_ns) = until_ns else {
            let undone = self.watermark.durable() < self.oracle.accepted();
            if undone || self.closed || self.opening {
                violated!("the engine sleeps for ever with work to do");
            }
            return Ok(false);
        };
        if self.engine.waits_for_room() && self.rng.one_in(3) {
            self.engine.disk().note("waits for room");
            self.engine.disk().set_capacity(ROOM_BYTES);
        } else if self.engine.is_held_up() && self.rng.one_in(20) {
            self.engine.disk().note("gives up waiting for room");
            self.engine.give_up();
        }
        self.clock.reach(until_ns);
        Ok(true)
    }

    /// The engine has come to its end as it was asked.
    fn finished(&mut self) -> Result<Ended, Violation> {
        let (durable, accepted) = (self.watermark.durable(), self.oracle.accepted());
        if !self.closed || durable != accepted {
            violated!("closed with {durable} of {accepted} records durable");
        }
        if self.watermark.wait_past(accepted).is_ok() {
            violated!("a closed trail promises more records");
        }
        Ok(Ended::Closed)
    }

    /// The engine has failed: for a reason, and for good.
    fn failed(&mut self, error: WriteError) -> Result<Ended, Violation> {
        if self.engine.disk().faults() == 0 && !error.no_room {
            violated!("the engine failed and the disk did not: {error}");
        }
        let durable = self.watermark.durable();
        if error.durable != durable {
            violated!("{durable} records were announced, the failure says {}", error.durable);
        }
        if error.accepted != self.oracle.accepted() {
            let accepted = self.oracle.accepted();
            violated!("{accepted} records were accepted, the failure says {}", error.accepted);
        }
        for _ in 0..self.rng.below(20) {
            self.engine.disk().wait(None);
            if !matches!(self.engine.turn(self.clock.now()), Turn::Failed(_)) {
                violated!("a failed engine goes on");
            }
        }
        if self.watermark.durable() != durable {
            violated!("a failed engine announces records");
        }
        if self.watermark.wait_past(durable).is_ok() {
            violated!("a failed trail promises more records");
        }
        let (nth, generation) = (0, self.generation);
        let next = Accepted { nth, generation, len: 1, realtime_ns: 0, boottime_ns: 0 };
        let ring = &self.ring;
        self.oracle.offer(next, |record| match ring.try_append(&record) {
            Err(AppendError::Poisoned(_)) => Ok(None),
            other => Err(Violation(format!("a failed trail answers {other:?}"))),
        })?;
        Ok(Ended::Failed(error))
    }
}

/// The key that goes on, and where the next ones come from; none if the life is not signed.
fn signing(plan: &Plan, stage: &Stage, recovered: &Recovered) -> Option<Signing> {
    let (cadence, keys) = (plan.cadence?, stage.keys());
    let key = keys.borrow().local().current?;
    let signed = !recovered.note.is_empty();
    Some(Signing { key, signed, store: Box::new(SimStore { keys }), cadence })
}

/// In some generations the disk has room for little more than there is.
fn narrow(plan: &Plan, rng: &mut Rng, stage: &mut Stage, segment_bytes: u64) {
    let mut room = ROOM_BYTES;
    if plan.narrow && rng.one_in(2) {
        let used: u64 = stage.list().expect("a simulated list").iter().map(|file| file.len).sum();
        let more = rng.below(2 * segment_bytes + SEGMENT_BYTES_MIN) / SECTOR_BYTES as u64;
        room = used + more * SECTOR_BYTES as u64;
    }
    stage.set_capacity(room);
}
