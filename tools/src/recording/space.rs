//! The thread that watches space, storage and sources of a running writer, and has done what the administrator asked
//! for. It touches no record but Graven's own, and never waits for the trail: a record for which there is no room yet is
//! kept and tried again.

use crate::config::value::{Bytes, Number, Time};
use crate::config::{ReserveSize, SpaceSection};
use crate::diag::{Diagnostic, Level};
use crate::escape;
use crate::exit::Exit;
use crate::recording::Failure;
use crate::recording::actions::Actions;
use crate::recording::open::{parse_bytes, parse_time};
use crate::recording::system::System;
use graven_format::loss::{Cause, Certainty, LossStatement};
use graven_format::{Record, Source};
use graven_writer::losses::LossCount;
use graven_writer::own::Own;
use graven_writer::policy::gate::{Dropped, Gate, Mode};
use graven_writer::policy::reserve::Reserve;
use graven_writer::policy::{Action, Alarm, Change, Event, Machine, Order, Settings, Threshold};
use graven_writer::source::AppendError;
use graven_writer::{Checkpoints, Exempt, Room, Trail, clock};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often it looks.
const LOOK: Duration = Duration::from_millis(200);

/// Most records that are kept until there is room for them. A condition acts once, so there are few.
const PENDING_MAX: usize = 1000;

/// How long a record is waited for that must be durable before the kernel panics.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Options for space. Without any of them nothing is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Space, and what is done when it is short")]
pub struct SpaceArgs {
    /// Free room on the trail's filesystem, in MiB or %, below which there is a first alarm [default: 25%]
    #[arg(long, value_name = "ROOM")]
    pub space_left: Option<Threshold>,
    /// What is done then: ignore, log, email, `exec PATH`, block, single, halt or panic [default: log]
    #[arg(long, value_name = "ACTION")]
    pub space_left_action: Option<Action>,
    /// Free room below which there is a second one [default: 5%]
    #[arg(long, value_name = "ROOM")]
    pub admin_space_left: Option<Threshold>,
    /// What is done then [default: log]
    #[arg(long, value_name = "ACTION")]
    pub admin_space_left_action: Option<Action>,
    /// What is done when there is no room for another segment, while producers wait; with `drop` they
    /// do not, and what is dropped is counted [default: block]
    #[arg(long, value_name = "ACTION", conflicts_with = "on_full")]
    pub disk_full_action: Option<Action>,
    /// What is done when storage fails [default: log]
    #[arg(long, value_name = "ACTION")]
    pub disk_error_action: Option<Action>,
    /// What is done, beside what `--ring-full` says, when the memory for the kernel's records is nearly full
    /// [default: log]
    #[arg(long, value_name = "ACTION")]
    pub ring_full_action: Option<Action>,
    /// Bytes kept for what must be recorded when the disk is full; or `off` [default: the ring and two
    /// segments]
    #[arg(long, value_name = "BYTES")]
    pub reserve: Option<ReserveSize>,
    /// Keep so many segments at most: the oldest sealed ones are removed, which is recorded before
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(4..=1_000_000_000))]
    pub keep: Option<i64>,
    /// Keep so many bytes of segments at most, 4M or more
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub max_total: Option<u64>,
    /// Keep records for so long at most, a minute or more
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub max_age: Option<Duration>,
    /// Let an action be `panic`: the kernel crashes at once
    #[arg(long)]
    pub allow_panic: bool,
}

impl SpaceArgs {
    /// Whether anything was asked for.
    #[must_use]
    pub fn is_given(&self) -> bool {
        *self != Self::default()
    }

    /// `section` with what was asked for here in it.
    #[must_use]
    pub fn over(&self, section: &SpaceSection) -> SpaceSection {
        let mut section = section.clone();
        macro_rules! over {
            ($($key:ident),+) => {$(
                if let Some(value) = &self.$key {
                    section.$key = value.clone();
                }
            )+};
        }
        over!(space_left, space_left_action, admin_space_left, admin_space_left_action);
        over!(disk_full_action, disk_error_action, ring_full_action, reserve);
        section.keep = self.keep.map(Number).or(section.keep);
        section.max_total = self.max_total.map(Bytes).or(section.max_total);
        section.max_age = self.max_age.map(Time).or(section.max_age);
        section.allow_panic |= self.allow_panic;
        section
    }
}

/// The thread that watches.
#[derive(Debug)]
pub struct Space {
    control: Arc<Control>,
    thread: JoinHandle<Vec<Own>>,
}

/// What others tell it.
#[derive(Debug, Default)]
pub struct Control {
    asked: Mutex<Asked>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Asked {
    resume: bool,
    reload: Option<(Settings, SpaceSection)>,
    ring: Option<bool>,
    storage_failed: bool,
    over: bool,
}

impl Control {
    /// The administrator says that all is well again (SIGUSR2): what is not acts anew.
    pub fn resume(&self) {
        self.tell(|asked| asked.resume = true);
    }

    /// The memory in which records wait is past its high-water mark, or below its low one.
    pub fn ring(&self, full: bool) {
        self.tell(|asked| asked.ring = Some(full));
    }

    /// Other actions and thresholds from here on; the reserve stays as it is.
    pub fn reload(&self, settings: Settings, section: SpaceSection) {
        self.tell(|asked| asked.reload = Some((settings, section)));
    }

    fn tell(&self, what: impl FnOnce(&mut Asked)) {
        what(&mut self.lock());
        self.changed.notify_all();
    }

    /// A thread that died with this lock held had nothing half done.
    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Space {
    /// Starts to watch the writer of `trail`, whose records are of `source`.
    ///
    /// # Errors
    /// The reserve cannot be made, or there is no thread; nothing was recorded.
    pub fn start(
        section: &SpaceSection,
        settings: Settings,
        dir: &Path,
        source: Source,
        trail: &Trail,
    ) -> Result<Self, Failure> {
        let dir = dir.to_owned();
        let reserve_bytes = settings.reserve_bytes;
        let reserve = match reserve_bytes {
            0 => Reserve::remove(&dir).map(|()| None),
            bytes => Reserve::open(&dir, bytes).map(Some),
        };
        let reserve = reserve.map_err(|why| {
            Failure::new(Exit::CannotCheck, &format!("cannot open the reserve: {why}"))
                .note("no record was taken")
        })?;
        let control = Arc::new(Control::default());
        let (mail, timeout) = (section.action_mail_acct.clone(), section.exec_timeout.0);
        let signed = trail.opened().key.is_some();
        let watch = Watch {
            machine: Machine::new(settings),
            actions: Actions::new(System::of_environment(), dir.clone(), mail, timeout),
            reserve,
            dir,
            source,
            room: trail.room(),
            gate: trail.gate(),
            exempt: trail.exempt(),
            checkpoints: signed.then(|| trail.checkpoints()),
            pending: VecDeque::new(),
            unrecorded: Vec::new(),
            blind: false,
        };
        let shared = Arc::clone(&control);
        let thread = std::thread::Builder::new()
            .name("graven-space".to_owned())
            .spawn(move || watch.run(&shared))
            .map_err(|why| Failure::thread(Exit::CannotCheck, &why).note("no record was taken"))?;
        Ok(Self { control, thread })
    }

    /// For those who have something to tell it.
    #[must_use]
    pub fn control(&self) -> Arc<Control> {
        Arc::clone(&self.control)
    }

    /// Ends it, after the trail has ended; `storage_failed` if that is why. What could not be recorded any more comes back:
    /// it was said, and the trail's next writer may record it.
    #[must_use]
    pub fn end(self, storage_failed: bool) -> Vec<Own> {
        self.control.tell(|asked| (asked.storage_failed, asked.over) = (storage_failed, true));
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// A record that waits for room.
enum Pending {
    Own(Own),
    Loss(Vec<u8>, clock::Now),
}

impl Pending {
    fn record(&self) -> Record<'_> {
        match self {
            Self::Own(own) => own.record(),
            Self::Loss(payload, at) => {
                LossStatement::record(payload, at.realtime_ns, at.boottime_ns)
            }
        }
    }
}

struct Watch {
    machine: Machine,
    actions: Actions,
    reserve: Option<Reserve>,
    dir: PathBuf,
    source: Source,
    room: Arc<Room>,
    gate: Arc<Gate>,
    exempt: Exempt,
    /// If the trail is signed.
    checkpoints: Option<Arc<Checkpoints>>,
    pending: VecDeque<Pending>,
    unrecorded: Vec<Own>,
    /// Whether it was said that free space cannot be seen.
    blind: bool,
}

impl Watch {
    fn run(mut self, control: &Control) -> Vec<Own> {
        let whole = self.reserve.as_ref().is_some_and(Reserve::is_whole);
        self.tell(Event::Reserve { whole });
        self.look();
        self.say_reserve();
        loop {
            let asked = {
                let waits = |asked: &mut Asked| {
                    !(asked.resume || asked.over || asked.ring.is_some() || asked.reload.is_some())
                };
                let locked = control.changed.wait_timeout_while(control.lock(), LOOK, waits);
                let (mut asked, _) = locked.unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *asked)
            };
            if let Some((settings, section)) = asked.reload {
                self.machine.set(settings);
                self.actions.mail_to = section.action_mail_acct;
                self.actions.exec_timeout = section.exec_timeout.0;
            }
            if asked.resume {
                self.tell(Event::Resume);
            }
            if let Some(full) = asked.ring {
                self.tell(Event::Ring { full });
            }
            if asked.over {
                return self.end(asked.storage_failed);
            }
            self.look();
        }
    }

    /// Measures what there is to measure.
    fn look(&mut self) {
        match rustix::fs::statvfs(&self.dir) {
            Ok(stat) => {
                let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
                let (free, total) = (bytes(stat.f_bavail), bytes(stat.f_blocks));
                self.blind = false;
                self.tell(Event::Space { free, total });
            }
            Err(why) if !std::mem::replace(&mut self.blind, true) => {
                Diagnostic::warning(format!("cannot see how much room there is: {why}"))
                    .at(escape::path(&self.dir))
                    .emit();
            }
            Err(_) => {}
        }
        self.tell(Event::Room { missing: self.room.is_missing() });
        // What is dropped here is no news.
        let upstream = |it: &(Cause, LossCount)| it.0 != Cause::Dropped;
        let losses = self.exempt.losses().by_cause();
        let statements = losses.iter().filter(|it| upstream(it)).map(|it| it.1.statements).sum();
        self.tell(Event::Losses { statements });
        if let Some(checkpoints) = &self.checkpoints {
            let covered = checkpoints.newest().map_or(0, |newest| newest.size);
            let durable = self.exempt.watermark().durable();
            self.tell(Event::Checkpoints { durable, covered });
        }
        let ended = self.actions.tick();
        ended.into_iter().for_each(|own| self.push(Pending::Own(own)));
        self.record();
    }

    fn say_reserve(&self) {
        if let Some(reserve) = self.reserve.as_ref().filter(|it| !it.is_whole()) {
            let bytes = self.machine.settings().reserve_bytes;
            Diagnostic::warning(format!("there is no room for the reserve of {bytes} bytes"))
                .at(escape::path(reserve.path()))
                .note("should the disk become full before there is, nothing can be recorded then")
                .help("make room for it: it is taken by itself; or ask for a smaller one by `reserve`")
                .emit();
        }
    }

    fn tell(&mut self, event: Event) {
        for order in self.machine.take(event, clock::now().boottime_ns) {
            match order {
                Order::Gate(mode) => self.set_gate(mode),
                Order::ReleaseReserve => self.release(),
                Order::FillReserve => {
                    let filled = self.reserve.as_ref().map(Reserve::fill);
                    self.tell(Event::Reserve { whole: matches!(filled, Some(Ok(()))) });
                }
                Order::Alarm(alarm) => self.alarm(&alarm),
            }
        }
    }

    fn set_gate(&mut self, mode: Mode) {
        if mode == Mode::Dropping {
            // Whatever happens before it ends: that something may be missing is said.
            let now = clock::now();
            let at = now.realtime_ns;
            let source = self.source;
            self.state(Dropped { source, count: 0, between_ns: (at, at) }, Certainty::AtLeast);
        }
        self.gate.set(mode);
        if let Some(dropped) = self.gate.take_dropped() {
            self.state(dropped, Certainty::Exactly);
        }
    }

    /// States what was dropped.
    fn state(&mut self, dropped: Dropped, certainty: Certainty) {
        let Dropped { source, count, between_ns } = dropped;
        let (cause, range, between_ns) = (Cause::Dropped, None, Some(between_ns));
        let statement = LossStatement { source, cause, certainty, count, range, between_ns };
        let now = clock::now();
        self.push(Pending::Loss(statement.encode(now.realtime_ns), now));
    }

    /// Gives the reserve back, and has the writer ask for it at once.
    fn release(&mut self) {
        if let Some(reserve) = &self.reserve
            && let Err(why) = reserve.release()
        {
            Diagnostic::error(format!("cannot give the reserve back: {why}"))
                .at(escape::path(reserve.path()))
                .emit();
        }
        self.room.ask();
    }

    fn alarm(&mut self, alarm: &Alarm) {
        if alarm.change == Change::Begins && alarm.action == Action::Panic {
            // There is no later.
            let own = Own::new(graven_writer::own::ERR, alarm.condition.op(), clock::now());
            self.push(Pending::Own(own.field("act", "panic")));
            self.last_words();
        }
        let own = self.actions.take(alarm);
        self.push(Pending::Own(own));
        self.record();
    }

    /// Waits a little until what is to be recorded is durable.
    fn last_words(&mut self) {
        let deadline = Instant::now() + LAST_WORDS;
        let mut last = None;
        while Instant::now() < deadline {
            last = self.record().or(last);
            let durable = self.exempt.watermark().durable();
            if self.pending.is_empty() && last.is_none_or(|seq| durable > seq) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn push(&mut self, pending: Pending) {
        if self.pending.len() < PENDING_MAX {
            self.pending.push_back(pending);
        } else {
            self.not_recorded(pending);
        }
    }

    /// Records what there is room for; returns the seq of the last of it.
    fn record(&mut self) -> Option<u64> {
        let mut last = None;
        while let Some(pending) = self.pending.pop_front() {
            match self.exempt.try_append(&pending.record()) {
                Ok(seq) => last = Some(seq),
                Err(AppendError::Full) => {
                    self.pending.push_front(pending);
                    break;
                }
                Err(_) => self.not_recorded(pending),
            }
        }
        last
    }

    /// The trail has ended before this could be recorded.
    fn not_recorded(&mut self, pending: Pending) {
        let text = escape::Escaped(pending.record().bytes).to_string();
        Diagnostic::new(Level::Warning, "an action is not recorded: the trail has ended")
            .note(text)
            .emit();
        if let Pending::Own(own) = pending {
            self.unrecorded.push(own);
        }
    }

    fn end(mut self, storage_failed: bool) -> Vec<Own> {
        if storage_failed {
            self.tell(Event::DiskError);
        }
        // Each has its time, and the process that looks after them ends.
        while self.actions.is_busy() {
            let ended = self.actions.tick();
            ended.into_iter().for_each(|own| self.push(Pending::Own(own)));
            std::thread::sleep(Duration::from_millis(20));
        }
        self.record();
        while let Some(pending) = self.pending.pop_front() {
            self.not_recorded(pending);
        }
        self.unrecorded
    }
}
