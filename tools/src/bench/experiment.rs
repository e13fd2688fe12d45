//! The whole of it: saturation first, then every discipline at every load, in turn, as often as asked.

use super::analyse::{Measured, analyse};
use super::appender::{Appender, Discipline, RunError};
use super::arrivals::Arrivals;
use super::device::{Device, FILE_BYTES, Service};
use super::drive::{Apart, Producers, drive, saturate};
use super::graven::Graven;
use super::machine::About;
use super::queue::{Queued, SyncPerRecord};
use super::report::{Asked, Floor, Point, Report, SCHEMA_VERSION, Saturation};
use super::stats::histogram;
use super::units::{now_ns, ns};
use super::workload::{Sizes, Workload};
use crate::diag::Diagnostic;
use crate::escape;
use graven_writer::disk::IoBuf;
use graven_writer::{Options, clock};
use hdrhistogram::Histogram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Records of one run at most: what is logged of each is in memory.
const RUN_RECORDS_MAX: f64 = 50e6;

/// How long a run at full speed takes.
const SATURATION: Duration = Duration::from_millis(400);

/// How long the floor is measured in each repetition.
const FLOOR: Duration = Duration::from_millis(300);

/// Bytes of a write of the floor.
const FLOOR_BYTES: usize = 4096;

/// At which rates.
#[derive(Clone, Debug)]
pub enum Rates {
    /// Shares of a saturation: that of one discipline, or each one's own.
    Loads(Vec<f64>, Option<Discipline>),
    /// Records a second, the same for all.
    Given(Vec<f64>),
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A directory on the filesystem to measure.
    pub dir: PathBuf,
    /// Side by side.
    pub disciplines: Vec<Discipline>,
    /// At which rates.
    pub rates: Rates,
    /// The process.
    pub arrivals: Arrivals,
    /// The sizes.
    pub sizes: Sizes,
    /// The server.
    pub service: Service,
    /// Threads.
    pub producers: usize,
    /// The processor of a single producer.
    pub producer_cpu: usize,
    /// Threads beside, which never pause.
    pub hogs: usize,
    /// Before the part that counts.
    pub warm_up: Duration,
    /// The part that counts.
    pub seconds: Duration,
    /// Of each point.
    pub repetitions: usize,
    /// Of the first repetition.
    pub seed: u64,
    /// Of the writer.
    pub options: Options,
}

/// How an experiment ended without a report.
#[derive(Debug)]
pub enum Failed {
    /// It was interrupted.
    Stopped,
    /// With this to say.
    With(Diagnostic),
}

impl From<Diagnostic> for Failed {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::With(diagnostic)
    }
}

impl From<RunError> for Failed {
    fn from(why: RunError) -> Self {
        let text = escape::Escaped(why.to_string().as_bytes()).to_string();
        let help = "look at the directory and the device below it, or name another one with --dir";
        Self::With(Diagnostic::error(format!("the run cannot go on: {text}")).help(help))
    }
}

/// Who is told of progress: runs done, runs in all, what runs now.
pub type Progress<'a> = &'a dyn Fn(usize, usize, &str);

struct Lab<'a> {
    plan: &'a Plan,
    workload: Workload,
    dir: &'a Path,
    stop: &'a AtomicBool,
}

/// Does all of it in a directory of its own, which is gone afterwards however it ends.
///
/// # Errors
/// [`Failed`]
pub fn run(plan: &Plan, stop: &AtomicBool, progress: Progress<'_>) -> Result<Report, Failed> {
    let workload = Workload::new(&plan.arrivals, &plan.sizes)?;
    in_directory(&plan.dir, |dir| {
        let lab = Lab { plan, workload, dir, stop };
        lab.check_room(FILE_BYTES as f64 * 5.0)?;
        lab.run(progress)
    })
}

/// Runs what is given with a directory of its own on the filesystem to measure, which is gone afterwards however it ends.
///
/// # Errors
/// [`Failed`]: what `work` says, or that the directory cannot be made or removed.
pub fn in_directory<T>(
    place: &Path,
    work: impl FnOnce(&Path) -> Result<T, Failed>,
) -> Result<T, Failed> {
    let dir =
        tempfile::Builder::new().prefix("graven-bench-").tempdir_in(place).map_err(|why| {
            Diagnostic::error(format!("cannot make a directory for the runs: {why}"))
                .at(escape::path(place))
                .help("name a directory that this user may write to with --dir")
        })?;
    let result = work(dir.path());
    match dir.close() {
        Err(why) if result.is_ok() => Err(Failed::With(
            Diagnostic::error(format!("the directory of the runs cannot be removed: {why}"))
                .help("remove graven-bench-* there"),
        )),
        _ => result,
    }
}

/// Refuses to begin what may write so much.
///
/// # Errors
/// [`Failed`]: there is less room.
pub fn check_room(dir: &Path, needed: f64) -> Result<(), Failed> {
    let Ok(stat) = rustix::fs::statvfs(dir) else { return Ok(()) };
    let free = stat.f_bavail as f64 * stat.f_frsize as f64;
    if free >= needed {
        return Ok(());
    }
    let text = format!(
        "a run may write {:.0} MiB and there are {:.0} free",
        needed / 1048576.0,
        free / 1048576.0
    );
    let help = "make room, ask for fewer --seconds, or name another filesystem with --dir";
    Err(Diagnostic::error(text).at(escape::path(dir)).help(help).into())
}

/// Writes of 4 KiB, one after the other, each a barrier.
///
/// # Errors
/// [`RunError`]
pub fn floor(device: &Device, times: &mut Histogram<u64>) -> Result<(), RunError> {
    let buf = IoBuf::new(FLOOR_BYTES).map_err(|why| RunError::Io("memory", why))?;
    let until_ns = now_ns() + ns(FLOOR);
    while now_ns() < until_ns {
        let start_ns = now_ns();
        device.write_dsync(&buf, FLOOR_BYTES).map_err(|why| RunError::Io("a write failed", why))?;
        times.saturating_record(now_ns() - start_ns);
    }
    Ok(())
}

impl Lab<'_> {
    fn run(&self, progress: Progress<'_>) -> Result<Report, Failed> {
        let (plan, began) = (self.plan, clock::now());
        let loads = match &plan.rates {
            Rates::Loads(loads, _) => loads.len(),
            Rates::Given(rates) => rates.len(),
        };
        let total = plan.disciplines.len() * (1 + loads * plan.repetitions);
        let mut done = 0;
        let mut saturation = Vec::new();
        for discipline in &plan.disciplines {
            progress(done, total, &format!("saturation of {discipline}"));
            saturation.push(self.saturation(*discipline)?);
            done += 1;
        }
        let rates = self.rates(&saturation)?;
        let mut times = histogram();
        // Indexed as points are: load, then discipline.
        let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); loads * plan.disciplines.len()];
        for repetition in 0..plan.repetitions {
            if !plan.service.is_model() {
                let device = Device::open(self.dir, true, plan.service, plan.seed)?;
                floor(&device, &mut times)?;
            }
            for (at, of_load) in rates.iter().enumerate() {
                // Who comes behind whom changes from one time to the next.
                let count = plan.disciplines.len();
                for index in (0..count).map(|it| (it + repetition + at) % count) {
                    let discipline = plan.disciplines[index];
                    progress(
                        done,
                        total,
                        &format!("{discipline} at {:.0} records/s", of_load[index]),
                    );
                    let seed = plan.seed.wrapping_add(repetition as u64);
                    let one = self.one(discipline, of_load[index], seed)?;
                    measured[at * count + index].push(one);
                    done += 1;
                }
            }
        }
        let mut points = Vec::new();
        for (at, each) in measured.iter().enumerate() {
            let (load, index) = (at / plan.disciplines.len(), at % plan.disciplines.len());
            points.push(Point::of(
                plan.disciplines[index],
                rates[load][index],
                saturation[index],
                each,
            ));
        }
        let names = plan.disciplines.iter().zip(&saturation);
        Ok(Report {
            about: About::of(SCHEMA_VERSION, began, self.dir),
            asked: self.asked(),
            floor: (!times.is_empty()).then(|| Floor::of(&times)),
            saturation: names
                .map(|(it, rate)| Saturation { discipline: it.to_string(), records_per_s: *rate })
                .collect(),
            points,
        })
    }

    fn asked(&self) -> Asked {
        let plan = self.plan;
        let load_of = match &plan.rates {
            Rates::Loads(_, of) => of.map(|it| it.to_string()),
            Rates::Given(_) => None,
        };
        Asked {
            arrivals: plan.arrivals.to_string(),
            sizes: plan.sizes.to_string(),
            mean_bytes: self.workload.mean_bytes(),
            service: plan.service.to_string(),
            producers: plan.producers,
            hogs: plan.hogs,
            warm_up_s: plan.warm_up.as_secs_f64(),
            seconds: plan.seconds.as_secs_f64(),
            repetitions: plan.repetitions,
            seed: plan.seed,
            load_of,
            recorded_rate: self.workload.recorded_rate,
        }
    }

    /// Rates by load, then by discipline.
    fn rates(&self, saturation: &[f64]) -> Result<Vec<Vec<f64>>, Failed> {
        let plan = self.plan;
        let rates: Vec<Vec<f64>> = match &plan.rates {
            Rates::Given(rates) => rates.iter().map(|rate| vec![*rate; saturation.len()]).collect(),
            Rates::Loads(loads, of) => {
                let of = of.and_then(|of| plan.disciplines.iter().position(|it| *it == of));
                let base: Vec<f64> =
                    saturation.iter().map(|own| of.map_or(*own, |of| saturation[of])).collect();
                loads.iter().map(|load| base.iter().map(|base| load * base).collect()).collect()
            }
        };
        let most = rates.iter().flatten().copied().fold(0.0, f64::max);
        let seconds = (plan.warm_up + plan.seconds).as_secs_f64();
        if most * seconds > RUN_RECORDS_MAX {
            let text = format!(
                "{most:.0} records/s for {seconds} s are more than the {RUN_RECORDS_MAX:.0} of a run"
            );
            return Err(Diagnostic::error(text)
                .help("ask for fewer --seconds or a lower rate")
                .into());
        }
        let longest = self.workload.mean_bytes() + 64.0;
        self.check_room(most * seconds * longest * 1.5 + FILE_BYTES as f64 * 5.0)?;
        Ok(rates)
    }

    fn check_room(&self, needed: f64) -> Result<(), Failed> {
        if self.plan.service.is_model() { Ok(()) } else { check_room(self.dir, needed) }
    }

    fn check_stop(&self) -> Result<(), Failed> {
        if self.stop.load(Ordering::Relaxed) { Err(Failed::Stopped) } else { Ok(()) }
    }

    fn producers(&self) -> Producers<'_> {
        let (count, cpu, hogs) = (self.plan.producers, self.plan.producer_cpu, self.plan.hogs);
        Producers { count, cpu, hogs, stop: self.stop }
    }

    /// An appender over a trail, or a file, of its own. `lossless` is for saturation: what serves is asked, not what drops.
    fn appender(
        &self,
        discipline: Discipline,
        seed: u64,
        lossless: bool,
    ) -> Result<Box<dyn Appender>, RunError> {
        let device = |direct| Device::open(self.dir, direct, self.plan.service, seed);
        Ok(match discipline {
            Discipline::Graven => {
                let (dir, options) = (self.dir.join("trail"), &self.plan.options);
                Box::new(Graven::open(&dir, options, self.plan.service, seed)?)
            }
            Discipline::Sync => Box::new(SyncPerRecord::new(device(false)?)),
            queued => Box::new(Queued::start(queued, device(true)?, lossless)?),
        })
    }

    /// Removes the trail, and has the filesystem do at once what follows from that, so that no run pays for another.
    fn clean(&self) -> Result<(), Failed> {
        let trail = self.dir.join("trail");
        if !trail.exists() {
            return Ok(());
        }
        let cleaned = std::fs::remove_dir_all(trail)
            .and_then(|()| Ok(rustix::fs::syncfs(std::fs::File::open(self.dir)?)?));
        Ok(cleaned.map_err(|why| RunError::Io("a trail cannot be removed", why))?)
    }

    fn saturation(&self, discipline: Discipline) -> Result<f64, Failed> {
        self.check_stop()?;
        let apart = Apart::new(&self.producers());
        let appender = self.appender(discipline, self.plan.seed, true)?;
        let rate = saturate(appender, &self.workload, SATURATION, self.producers(), &apart)?;
        drop(apart);
        self.clean()?;
        self.check_stop()?;
        Ok(rate)
    }

    fn one(&self, discipline: Discipline, rate: f64, seed: u64) -> Result<Measured, Failed> {
        self.check_stop()?;
        let plan = self.plan;
        let length = plan.warm_up + plan.seconds;
        let offsets_ns = plan.arrivals.due_ns(rate, length, seed, &self.workload.gaps);
        let apart = Apart::new(&self.producers());
        let appender = self.appender(discipline, seed, false)?;
        // What was due last may be late by a stall of the disk; who is late by more does not keep up.
        let grace = length / 4;
        let ran = drive(
            appender,
            (&self.workload, &offsets_ns),
            (length, grace),
            self.producers(),
            &apart,
        )?;
        drop(apart);
        self.clean()?;
        self.check_stop()?;
        Ok(analyse(&ran, ns(plan.warm_up), ns(length)))
    }
}
