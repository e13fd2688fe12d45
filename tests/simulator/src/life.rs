//! A life of a trail: one writer after the other, each but the last ending in some way, and the
//! oracle after each of them.

use crate::clock::Clock;
use crate::keys::SimKeys;
use crate::lies::Lie;
use crate::oracle::{Oracle, Violation, violated};
use crate::plan::{Plan, ROOM_BYTES};
use crate::rng::Rng;
use crate::session::{Ended, Session};
use crate::stage::{Fuse, Remains, Stage, Sudden, Trace};
use crate::stats::Stats;
use graven_format::TrailId;
use graven_format::recovery::Label;
use graven_writer::OpenError;
use graven_writer::disk::Geometry;
use graven_writer::disk::sim::{SimDisk, SimFaults};
use graven_writer::engine::recover::{Recovered, recover};
use graven_writer::keys::{Choice, LocalKeys, choose};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// The trail of all lives.
const TRAIL: TrailId = TrailId(*b"a simulated life");

/// Times that a trail is opened with faults before they are turned off.
const ATTEMPTS_MAX: u32 = 6;

/// A life that went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What it was like.
    pub plan: Plan,
    /// How the disk lied.
    pub lie: Option<Lie>,
    /// What was not as it must be.
    pub what: String,
    /// Every operation, if they were asked for.
    pub trace: Vec<String>,
}

/// A life that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// A hash of all that happened.
    pub trace_hash: u64,
    /// What happened.
    pub stats: Stats,
    /// Every operation, if they were asked for.
    pub trace: Vec<String>,
}

/// Lives the life of this seed, on a disk that lies if it is told to.
///
/// # Errors
/// [`Failure`], if something is not as it must be. The same seed fails again in the same way.
pub fn live(seed: u64, lie: Option<Lie>, verbose: bool) -> Result<Summary, Box<Failure>> {
    let mut life = Life::new(Plan::new(seed), lie, verbose);
    // An assertion of the engine is a finding like any other, and needs its seed.
    let result = catch_unwind(AssertUnwindSafe(|| life.run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
        Err(Violation(format!("panic: {text}")))
    });
    let trace = life.trace.take().map(|trace| trace.take()).unwrap_or_default();
    match result {
        Ok(trace_hash) => Ok(Summary { trace_hash, stats: life.stats, trace }),
        Err(Violation(what)) => Err(Box::new(Failure { plan: life.plan, lie, what, trace })),
    }
}

/// What becomes of a trail after a step.
enum Then {
    /// It goes on.
    On(Box<(Recovered, SimDisk, SimKeys)>),
    /// Its media were damaged, that was seen, and nobody goes on with it.
    End,
}

struct Life {
    plan: Plan,
    rng: Rng,
    clock: Clock,
    oracle: Oracle,
    lie: Option<Lie>,
    stats: Stats,
    /// Whether the last writer was closed and nothing happened since.
    clean: bool,
    trace: Trace,
    hash: u64,
}

impl Life {
    fn new(plan: Plan, lie: Option<Lie>, verbose: bool) -> Self {
        Self {
            rng: Rng::new(plan.seed, 3),
            clock: Clock::new(plan.clock_jumps),
            oracle: Oracle::new(plan.seed, TRAIL),
            lie,
            stats: Stats { seeds: 1, ..Stats::default() },
            clean: false,
            trace: verbose.then(Rc::default),
            hash: plan.seed,
            plan,
        }
    }

    fn run(&mut self) -> Result<u64, Violation> {
        let mut disk = SimDisk::new(self.rng.next(), self.plan.disk());
        let mut keys = SimKeys::new(self.plan.seed, TRAIL, self.plan.key_faults);
        self.oracle.trust(self.plan.cadence.and(keys.local().current));
        for generation in 0..self.plan.generations {
            let is_last = generation + 1 == self.plan.generations;
            if is_last {
                disk.set_capacity(ROOM_BYTES);
                disk.set_faults(SimFaults::none());
            }
            if self.plan.moves && self.rng.one_in(2) {
                self.stats.note("moves");
                let geometry =
                    Geometry { align_bytes: self.rng.pick(&[512, 4096]), ..self.plan.geometry };
                disk.set_geometry(geometry);
            }
            let Then::On(opened) = self.open(disk, keys)? else { return Ok(self.hash) };
            let Some(left) = self.session(*opened, generation, is_last)? else {
                return Ok(self.hash);
            };
            (disk, keys) = left;
        }
        // What the last one left is put in order once more.
        self.open(disk, keys)?;
        self.stats.records += self.oracle.announced();
        Ok(self.hash)
    }

    /// Opens the trail, however often that takes.
    fn open(&mut self, mut disk: SimDisk, mut keys: SimKeys) -> Result<Then, Violation> {
        for attempt in 0.. {
            let seed = self.rng.next();
            let local = self.local(&keys);
            let mut stage = self.stage((disk, keys), seed);
            if attempt >= ATTEMPTS_MAX {
                stage.set_faults(SimFaults::none());
            } else if self.rng.one_in(4) {
                let how = self.sudden();
                stage.light(Fuse::in_recovery(&mut self.rng, how));
            }
            stage.say(|| "recovery".to_owned());
            let result = recover(&mut stage, TRAIL, &local, self.clock.now());
            stage.say(|| format!("{result:?}").chars().take(2000).collect());
            self.stats.add(&stage.take_stats());
            blame(&stage)?;
            let remains = stage.take_remains();
            if !remains.is_empty() {
                self.stats.note("ends in recovery");
                match self.take_over(remains)? {
                    Some(left) => (disk, keys) = left,
                    None => return Ok(Then::End),
                }
                continue;
            }
            match result {
                Ok(recovered) => {
                    self.note_recovered(&recovered)?;
                    self.oracle.check_recovered(stage.sim(), &recovered, seed)?;
                    let left = stage.end_now(Sudden::Kill, seed);
                    (disk, keys) = (left.disk, left.keys);
                    if self.settle(&mut keys, &recovered)? {
                        return Ok(Then::On(Box::new((recovered, disk, keys))));
                    }
                    self.stats.note("ends in settling keys");
                }
                Err(error @ (OpenError::Io { .. } | OpenError::Write(_))) if stage.faults() > 0 => {
                    self.stats.note("recoveries that failed");
                    stage.say(|| format!("recovery failed: {error}"));
                    let remains = stage.end_now(self.sudden(), seed);
                    match self.take_over(vec![remains])? {
                        Some(left) => (disk, keys) = left,
                        None => return Ok(Then::End),
                    }
                }
                Err(error) => violated!("recovery refuses: {error}"),
            }
        }
        unreachable!("the last attempt has no faults")
    }

    /// The keys as recovery is given them.
    fn local(&self, keys: &SimKeys) -> LocalKeys {
        self.plan.cadence.map_or_else(LocalKeys::default, |_| keys.local())
    }

    /// Ends or undoes a change of keys; false if that is cut off.
    fn settle(&mut self, keys: &mut SimKeys, recovered: &Recovered) -> Result<bool, Violation> {
        let local = self.local(keys);
        let choice = choose(&local, recovered.in_force)
            .map_err(|trouble| Violation(format!("nobody can go on signing: {trouble}")))?;
        match &choice {
            Choice::Next(_) => self.stats.note("keys: ended by opening"),
            Choice::Current(_) if local.next_exists => {
                self.stats.note("keys: undone by opening");
            }
            _ => {}
        }
        Ok(keys.settle(&choice, self.rng.one_in(3)))
    }

    fn note_recovered(&mut self, recovered: &Recovered) -> Result<(), Violation> {
        note_steps(&mut self.stats, recovered);
        if self.clean && !recovered.steps.is_empty() {
            violated!("a clean stop left something to recover: {:?}", recovered.steps);
        }
        self.clean = false;
        Ok(())
    }

    /// One writer's life, from what was recovered. Returns what it leaves, or nothing if the
    /// media were damaged.
    fn session(
        &mut self,
        (recovered, disk, keys): (Recovered, SimDisk, SimKeys),
        generation: u32,
        is_last: bool,
    ) -> Result<Option<(SimDisk, SimKeys)>, Violation> {
        let seed = self.rng.next();
        let mut stage = self.stage((disk, keys), seed);
        if self.plan.close_late {
            stage.close_late();
        }
        let sudden = self.sudden();
        if !is_last && !self.rng.one_in(6) {
            stage.light(Fuse::draw(&mut self.rng, sudden));
        }
        let parts = (&mut self.rng, &mut self.clock, &mut self.oracle);
        let mut session = Session::new(&self.plan, parts, stage, generation, recovered)?;
        let ended = session.run();
        session.stage().say(|| format!("{ended:?}"));
        let mut stage = session.into_stage();
        self.stats.add(&stage.take_stats());
        blame(&stage)?;
        let ended = ended?;
        self.stats.note(match &ended {
            Ended::Suddenly => "sudden ends",
            Ended::Failed(error) if error.no_room => "ends by no room",
            Ended::Failed(_) => "ends by failure",
            Ended::NoRoom => "ends by no room at start",
            Ended::Closed => "clean stops",
        });
        self.clean = matches!(ended, Ended::Closed);
        let mut remains = stage.take_remains();
        if remains.is_empty() {
            remains.push(stage.end_now(sudden, seed));
        }
        self.take_over(remains)
    }

    /// Takes over what a writer has left, and looks at it before anybody puts it in order. Of
    /// several futures the first is gone on with, the others are only judged. Nothing is returned
    /// if the media were damaged.
    fn take_over(
        &mut self,
        futures: Vec<Remains>,
    ) -> Result<Option<(SimDisk, SimKeys)>, Violation> {
        let mut futures = futures.into_iter();
        let Some(Remains { how, mut disk, announced, published, keys }) = futures.next() else {
            violated!("an end without a future")
        };
        self.oracle.announce(announced)?;
        self.oracle.publish(published.as_deref())?;
        for other in futures {
            self.judge(other.disk, &other.keys)?;
        }
        self.hash = self.hash.rotate_left(5) ^ disk.trace_hash() ^ announced;
        match how {
            Sudden::Kill => self.stats.note("kills"),
            Sudden::PowerCut => {
                self.stats.note("power cuts");
                self.clock.reboot();
            }
        }
        self.stats.note_power_cut(&disk);
        if has_flips(&disk) {
            self.judge_flips(disk, &keys)?;
            return Ok(None);
        }
        self.oracle.check_remains(&mut disk)?;
        Ok(Some((disk, keys)))
    }

    /// Looks at a future that is not gone on with: what is left, and what recovery makes of it.
    fn judge(&mut self, mut disk: SimDisk, keys: &SimKeys) -> Result<(), Violation> {
        self.stats.note("other futures");
        self.stats.note_power_cut(&disk);
        if has_flips(&disk) {
            return self.judge_flips(disk, keys);
        }
        let mut oracle = self.oracle.clone();
        oracle.check_remains(&mut disk)?;
        disk.set_faults(SimFaults::none());
        match recover(&mut disk, TRAIL, &self.local(keys), self.clock.now()) {
            Ok(recovered) => {
                note_steps(&mut self.stats, &recovered);
                if let Err(trouble) = choose(&self.local(keys), recovered.in_force) {
                    violated!("nobody can go on signing: {trouble}");
                }
                oracle.check_recovered(&disk, &recovered, self.hash)
            }
            Err(error) => violated!("recovery refuses another future: {error}"),
        }
    }

    /// A bit has flipped on the media: recovery refuses, or a reader finds it, or it was where
    /// nothing had been announced. It is never passed over in silence.
    fn judge_flips(&mut self, mut disk: SimDisk, keys: &SimKeys) -> Result<(), Violation> {
        let flips = disk.report().map(|report| report.flips.clone()).unwrap_or_default();
        let mut before = disk.kill_with(0);
        for flip in &flips {
            before.flip_bit(&flip.name, flip.offset, flip.bit);
        }
        let stated = self.oracle.stated(&mut before);
        disk.set_faults(SimFaults::none());
        match recover(&mut disk, TRAIL, &self.local(keys), self.clock.now()) {
            // Without the record that names it, the key that is there is not the one that is missed.
            Err(OpenError::Damaged(_) | OpenError::Format { .. } | OpenError::Key(_)) => {
                self.stats.note("flips refused");
            }
            Err(error) => violated!("a flipped bit makes recovery say: {error}"),
            Ok(recovered) => {
                let next_seq = recovered.next_seq();
                let found = self.oracle.clone().check_flipped(&mut disk, next_seq, stated)?;
                self.stats.note(if found { "flips found" } else { "flips of no account" });
            }
        }
        Ok(())
    }

    fn stage(&self, parts: (SimDisk, SimKeys), seed: u64) -> Stage {
        Stage::new(parts, self.oracle.announced(), self.lie, self.trace.clone(), seed)
    }

    fn sudden(&mut self) -> Sudden {
        if self.rng.one_in(3) { Sudden::Kill } else { Sudden::PowerCut }
    }
}

/// Counts what recovery found and did.
fn note_steps(stats: &mut Stats, recovered: &Recovered) {
    for step in &recovered.steps {
        stats.note_recovery(step.label, step.removed_orphan);
    }
    if recovered.steps.is_empty() {
        let fresh = recovered.next_segment == 0;
        stats.note_recovery(if fresh { Label::Fresh } else { Label::Sealed }, false);
    }
}

/// Whether the engine or recovery asked the disk for something that makes no sense.
fn blame(stage: &Stage) -> Result<(), Violation> {
    stage.misuse().map_or(Ok(()), |misuse| Err(Violation(format!("misuse of the disk: {misuse}"))))
}

fn has_flips(disk: &SimDisk) -> bool {
    disk.report().is_some_and(|report| !report.flips.is_empty())
}
