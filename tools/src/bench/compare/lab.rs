//! The whole of it: who is there, then everybody in turn, as often as asked.

use super::super::audit::{Logging, Turn, UID, storm};
use super::super::device::{Device, FILE_BYTES, Service};
use super::super::experiment::{Failed, Progress, check_room, floor, in_directory};
use super::super::machine::About;
use super::super::process::Trouble;
use super::super::report::Floor;
use super::super::stats::histogram;
use super::super::units::ns;
use super::super::workload::Sizes;
use super::load::Load;
use super::netlink::Daemon;
use super::records::{Records, Tally};
use super::report::{Asked, Report, Round, Row, SCHEMA_VERSION, State};
use super::rival::{Family, Path as Way, Rival};
use crate::diag::Diagnostic;
use graven_writer::clock;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Bytes a second that a disk may take at most: what must be free for each second of a run.
const BYTES_PER_S_MAX: f64 = 1e9;

/// Why the module is not measured.
const SHIM: &str =
    "its storms beside auditd run in a guest, which this command does not start: docs/testing.md";

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A directory on the filesystem to measure.
    pub dir: PathBuf,
    /// Beside Graven.
    pub families: Vec<Family>,
    /// The ways to it.
    pub paths: Vec<Way>,
    /// How auditd writes.
    pub auditd: Vec<Logging>,
    /// The sizes.
    pub sizes: Sizes,
    /// Threads.
    pub producers: usize,
    /// Records that are acknowledged together.
    pub group: usize,
    /// Of each run.
    pub length: Duration,
    /// How often.
    pub rounds: usize,
}

/// A rival, and what became of it so far.
struct Entry {
    rival: Rival,
    version: Option<String>,
    state: State,
    rounds: Vec<Round>,
}

struct Lab<'a> {
    plan: &'a Plan,
    records: Records,
    dir: &'a Path,
    stop: &'a AtomicBool,
    /// graven itself: a recorder, and the producers of a storm.
    program: PathBuf,
}

/// Does all of it in a directory of its own, which is gone afterwards however it ends.
///
/// # Errors
/// [`Failed`]; that one rival fails is in the report.
pub fn run(plan: &Plan, stop: &AtomicBool, progress: Progress<'_>) -> Result<Report, Failed> {
    let sizes = plan.sizes.read()?;
    let program = std::env::current_exe().map_err(|why| {
        Diagnostic::error(format!("this program cannot be found again: {why}"))
            .help("start it by its path")
    })?;
    in_directory(&plan.dir, |dir| {
        let lab = Lab { plan, records: Records::new(&sizes), dir, stop, program };
        check_room(dir, BYTES_PER_S_MAX * plan.length.as_secs_f64() + FILE_BYTES as f64 * 5.0)?;
        lab.run(progress)
    })
}

impl Lab<'_> {
    fn run(&self, progress: Progress<'_>) -> Result<Report, Failed> {
        let (plan, began) = (self.plan, clock::now());
        let all = Rival::all(&plan.families, &plan.paths, plan.group, &plan.auditd);
        let total = all.len() * plan.rounds;
        progress(0, total, "who is installed");
        let netlink =
            if plan.paths.contains(&Way::Netlink) { self.netlink() } else { State::Measured };
        let entry = |rival| Self::entry(rival, &netlink);
        let mut entries: Vec<Entry> = all.into_iter().map(entry).collect();
        let mut times = histogram();
        let mut done = 0;
        for round in 0..plan.rounds {
            let device = Device::open(self.dir, true, Service::Disk, 0)?;
            floor(&device, &mut times)?;
            drop(device);
            // Who comes behind whom changes from one time to the next.
            let count = entries.len();
            for index in (0..count).map(|it| (it + round) % count) {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Failed::Stopped);
                }
                let it = &mut entries[index];
                if it.state == State::Measured {
                    progress(done, total, &format!("{}, {}", it.rival.name(), it.rival.mode()));
                    match self.one(it.rival, round) {
                        Ok(round) => it.rounds.push(round),
                        Err(Trouble::Stopped) => return Err(Failed::Stopped),
                        Err(why) => it.state = State::Failed(why.to_string()),
                    }
                }
                done += 1;
            }
        }
        Ok(Report {
            about: About::of(SCHEMA_VERSION, began, self.dir),
            asked: self.asked(),
            floor: (!times.is_empty()).then(|| Floor::of(&times)),
            rows: entries.iter().map(|it| row(it, &entries)).collect(),
        })
    }

    fn asked(&self) -> Asked {
        let (plan, sizes) = (self.plan, self.records.sizes());
        Asked {
            sizes: plan.sizes.to_string(),
            mean_bytes: sizes.iter().sum::<usize>() as f64 / sizes.len() as f64,
            producers: plan.producers,
            seconds: plan.length.as_secs_f64(),
            rounds: plan.rounds,
        }
    }

    fn entry(rival: Rival, netlink: &State) -> Entry {
        let (version, state) = match rival.version() {
            Err(why) => (None, State::NotInstalled(why)),
            Ok(version) => {
                let state = match rival.path() {
                    Way::Library => State::Measured,
                    Way::Netlink => netlink.clone(),
                    Way::Shim => State::NotMeasured(SHIM.to_owned()),
                };
                (Some(version), state)
            }
        };
        Entry { rival, version, state, rounds: Vec::new() }
    }

    /// Whether kernel audit may be used here.
    fn netlink(&self) -> State {
        if !rustix::process::geteuid().is_root() {
            return State::NotMeasured("it needs root".to_owned());
        }
        match Turn::take(self.stop) {
            // Who is asked to end is so before the first run.
            Ok(_) | Err(Trouble::Stopped) => State::Measured,
            Err(why) => State::NotMeasured(why.to_string()),
        }
    }

    /// One run in a directory of its own.
    fn one(&self, rival: Rival, index: usize) -> Result<Round, Trouble> {
        let dir = self.dir.join("run");
        DirBuilder::new().mode(0o700).create(&dir).map_err(Trouble::io("a directory"))?;
        let round = match rival {
            Rival::Library(appender, mode) => {
                let load = Load {
                    records: &self.records,
                    producers: self.plan.producers,
                    mode,
                    length: self.plan.length,
                    stop: self.stop,
                };
                appender.run(&dir, &load).and_then(|ran| {
                    let mut tally = Tally::new(&self.records, &ran.pushed.sent);
                    appender.read(&dir, &mut tally)?;
                    let (sent, found) = (ran.pushed.total(), tally.found());
                    let (took_ns, latency) = (ran.pushed.took_ns, ran.pushed.latency);
                    Ok(Round { index, sent, found, took_ns, latency, usage: ran.usage })
                })
            }
            Rival::Netlink(daemon) => self.storm(daemon, &dir, index),
            Rival::Shim => Err(Trouble::said("it is not measured here")),
        };
        // The filesystem does at once what follows from removing it, so that no run pays for another.
        let removed = std::fs::remove_dir_all(&dir)
            .and_then(|()| Ok(rustix::fs::syncfs(File::open(self.dir)?)?));
        let round = round?;
        removed.map_err(Trouble::io("what a run left cannot be removed"))?;
        Ok(round)
    }

    fn storm(&self, daemon: Daemon, dir: &Path, index: usize) -> Result<Round, Trouble> {
        let _turn = Turn::take(self.stop)?;
        let seconds = self.plan.length.as_secs_f64().to_string();
        let producer = || {
            let mut command = Command::new(&self.program);
            command.args(["bench", "openat", "--seconds", &seconds]);
            Ok(command)
        };
        let storm = storm(&producer, self.stop, || daemon.start(&self.program, dir))
            .map_err(|why| self.explained(why))?;
        if storm.kept > storm.made {
            let text = format!("{} events of uid {UID} where {} were made", storm.kept, storm.made);
            return Err(Trouble::Said(text));
        }
        Ok(Round {
            index,
            sent: storm.made,
            found: storm.kept,
            took_ns: ns(storm.took),
            latency: histogram(),
            usage: storm.usage,
        })
    }

    /// A producer of another uid may not reach this program.
    fn explained(&self, why: Trouble) -> Trouble {
        match why {
            Trouble::Io(what, why) if why.kind() == std::io::ErrorKind::PermissionDenied => {
                let place = crate::escape::path(&self.program);
                Trouble::Io(format!("{what}: uid {UID} has to reach {place}"), why)
            }
            why => why,
        }
    }
}

fn row(entry: &Entry, all: &[Entry]) -> Row {
    let ours = all.iter().find(|it| it.rival.is_ours_beside(entry.rival));
    let ours = ours.map_or(&[][..], |it| &it.rounds);
    Row::of(entry.rival, entry.version.clone(), entry.state.clone(), &entry.rounds, ours)
}
