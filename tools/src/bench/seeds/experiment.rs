//! All conditions in turn, in every round.

use super::build;
use super::calls::{FILE, NAMES};
use super::consumer::{Consumer, Discard, Logged, Recorded};
use super::kernel::{Kernel, RULES};
use super::report::{Asked, Report, Round, Rounds, Row, SCHEMA_VERSION};
use super::{Condition, Flush, LabError, faith, io, workload};
use crate::bench::audit::{Flush as Flushes, Format, From, Logging};
use crate::bench::experiment::{Failed, Progress, check_room, in_directory};
use crate::bench::machine::About;
use crate::bench::process;
use crate::diag::Diagnostic;
use crate::escape;
use graven_writer::clock;
use graven_writer::source::shim::DEVICE;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A build that has come to a step's end after so long is given up.
const BUILD_LIMIT: Duration = Duration::from_secs(5);

/// A daemon without progress for so long has everything, if nothing waits in the kernel.
const QUIET: Duration = Duration::from_millis(400);

/// Longest wait for a daemon that is behind.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Free bytes below which nothing is begun: what daemons allocate ahead, what every call of a second may come to, and of a build.
const ROOM_BYTES: f64 = 128e6;
const ROOM_BYTES_A_SECOND: f64 = 200e6;
const ROOM_BYTES_BUILD: f64 = 512e6;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A directory on the filesystem to measure.
    pub dir: PathBuf,
    /// In this order; `off`, with which all are compared, is always measured.
    pub conditions: Vec<Condition>,
    /// How long each call is made for.
    pub seconds: Duration,
    /// Rounds.
    pub repetitions: usize,
    /// The test user.
    pub uid: u32,
    /// Files of the build; 0 for none.
    pub files: usize,
}

struct Lab<'a> {
    plan: &'a Plan,
    dir: &'a Path,
    stop: &'a AtomicBool,
    /// None without root: then the workload is the user's own.
    uid: Option<u32>,
    kernel: Result<Kernel, String>,
    no_build: Option<&'static str>,
}

/// Does all of it in a directory of its own, which is gone afterwards however it ends.
///
/// # Errors
/// [`Failed`]
pub fn run(plan: &Plan, stop: &AtomicBool, progress: Progress<'_>) -> Result<Report, Failed> {
    in_directory(&plan.dir, |dir| run_in(dir, plan, stop, progress))
}

fn run_in(
    dir: &Path,
    plan: &Plan,
    stop: &AtomicBool,
    progress: Progress<'_>,
) -> Result<Report, Failed> {
    let no_build = match plan.files {
        0 => Some("left out"),
        _ if build::has_compiler() => None,
        _ => Some("no C compiler here (cc)"),
    };
    let calls = plan.seconds.as_secs_f64() * (NAMES.len() + 1) as f64 * ROOM_BYTES_A_SECOND;
    check_room(dir, ROOM_BYTES + calls + if no_build.is_none() { ROOM_BYTES_BUILD } else { 0.0 })?;
    let is_root = rustix::process::geteuid().is_root();
    progress(0, 1, "waiting for the turn at kernel audit");
    let kernel = if is_root {
        match Kernel::take(plan.uid, stop) {
            Err(LabError::Stopped) => return Err(Failed::Stopped),
            other => other.map_err(|why| why.to_string()),
        }
    } else {
        Err("it takes root to set kernel audit and to be its daemon".to_owned())
    };
    let uid = is_root.then_some(plan.uid);
    let mut lab = Lab { plan, dir, stop, uid, kernel, no_build };
    let report = lab.run(progress);
    if let Ok(kernel) = &mut lab.kernel
        && let Err(why) = kernel.put_back()
    {
        let text = format!("kernel audit is not as it was: {why}");
        return Err(Diagnostic::error(text).help("look at `auditctl -s` and `auditctl -l`").into());
    }
    report
}

impl Lab<'_> {
    fn run(&mut self, progress: Progress<'_>) -> Result<Report, Failed> {
        let (plan, began) = (self.plan, clock::now());
        self.prepare().map_err(failed)?;
        let mut conditions = vec![Condition::Off];
        conditions.extend(plan.conditions.iter().filter(|it| **it != Condition::Off));
        let mut all: Vec<Rounds> =
            conditions.iter().map(|it| self.hurdle(*it).map_or(Ok(Vec::new()), Err)).collect();
        let (count, mut done) = (conditions.len(), 0);
        for repetition in 0..plan.repetitions {
            // Who comes behind whom changes from one round to the next.
            for index in (0..count).map(|it| (it + repetition) % count) {
                let condition = conditions[index];
                progress(done, plan.repetitions * count, condition.words());
                done += 1;
                let Ok(rounds) = &mut all[index] else { continue };
                match self.one(condition) {
                    Ok(round) => rounds.push(round),
                    Err(_) if self.stop.load(Ordering::Relaxed) => return Err(Failed::Stopped),
                    // Without it there is nothing to compare with.
                    Err(why) if condition == Condition::Off => return Err(failed(why)),
                    Err(why) => all[index] = Err(why.to_string()),
                }
                self.put_back().map_err(failed)?;
            }
        }
        let off = all[0].clone().unwrap_or_default();
        let rows = conditions.iter().zip(&all);
        Ok(Report {
            about: About::of(SCHEMA_VERSION, began, self.dir),
            asked: Asked {
                seconds: plan.seconds.as_secs_f64(),
                repetitions: plan.repetitions,
                uid: self.uid,
                files: plan.files,
                build_limit_s: BUILD_LIMIT.as_secs_f64(),
            },
            kernel_audit_as_found: self.kernel.as_ref().err().cloned(),
            source_of_2004: faith::SOURCE,
            rows: rows.map(|(it, rounds)| Row::of(*it, rounds, &off, self.no_build)).collect(),
        })
    }

    fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// The workload's folder, which is its user's. It comes there by no other right.
    fn prepare(&self) -> Result<(), LabError> {
        let (work, make) = (self.work(), "make the workload's folder");
        DirBuilder::new().mode(0o700).create(&work).map_err(io(make))?;
        fs::write(work.join(FILE), "x").map_err(io(make))?;
        if self.no_build.is_none() {
            build::write_sources(&work, self.plan.files).map_err(io("write the sources"))?;
        }
        let Some(uid) = self.uid else { return Ok(()) };
        let entries = fs::read_dir(&work).map_err(io(make))?.flatten().map(|it| it.path());
        for path in entries.chain([work.clone()]) {
            std::os::unix::fs::chown(path, Some(uid), Some(uid)).map_err(io(make))?;
        }
        Ok(())
    }

    /// Why a condition cannot be had here.
    fn hurdle(&self, condition: Condition) -> Option<String> {
        if condition == Condition::Off {
            return None;
        }
        if condition.is_shim() {
            return match self.uid {
                _ if !Path::new(DEVICE).exists() => {
                    Some(format!("no module here: there is no {DEVICE} (graven shim load)"))
                }
                None => Some("it takes root to read from the kernel module".to_owned()),
                Some(_) => None,
            };
        }
        let kernel = self.kernel.as_ref().err().cloned();
        kernel.or_else(|| {
            let needs_auditd = matches!(condition, Condition::Auditd(_));
            let text = "auditd is not installed (package auditd)";
            (needs_auditd && !process::is_installed("auditd")).then(|| text.to_owned())
        })
    }

    /// One round of one condition.
    fn one(&mut self, condition: Condition) -> Result<Round, LabError> {
        let scratch = self.dir.join("daemon");
        DirBuilder::new().mode(0o700).create(&scratch).map_err(io("make a daemon's folder"))?;
        let round = self.measure(condition, &scratch);
        // What a run has written is no burden of the next one's.
        let removed = fs::remove_dir_all(&scratch)
            .and_then(|()| Ok(rustix::fs::syncfs(fs::File::open(self.dir)?)?));
        let round = round?;
        removed.map_err(io("remove a daemon's folder"))?;
        Ok(round)
    }

    fn measure(&mut self, condition: Condition, scratch: &Path) -> Result<Round, LabError> {
        let mut lost_before = 0;
        if let Ok(kernel) = &mut self.kernel {
            kernel.set(condition)?;
            lost_before = kernel.lost()?;
        }
        let consumer = self.consumer(condition, scratch)?;
        if let Ok(kernel) = &mut self.kernel {
            kernel.add_rules(condition)?;
        }
        let (plan, work) = (self.plan, self.work());
        let costs = workload::calls(&work, self.uid, plan.seconds, self.stop)?;
        let behind_s = self.drain(consumer.as_deref())?;
        let mut built = None;
        if self.no_build.is_none() {
            let files = plan.files;
            built = Some(workload::build(&work, self.uid, BUILD_LIMIT, files, self.stop)?);
            self.drain(consumer.as_deref())?;
        }
        if let Ok(kernel) = &mut self.kernel {
            kernel.check(condition)?;
            kernel.remove_rules()?;
        }
        let kept = consumer.map(Consumer::end).transpose()?;
        let mut lost = 0;
        if let Ok(kernel) = &mut self.kernel {
            lost = u64::from(kernel.lost()?.wrapping_sub(lost_before));
        }
        Ok(Round { costs, built, behind_s, kept, lost })
    }

    fn consumer(
        &self,
        condition: Condition,
        scratch: &Path,
    ) -> Result<Option<Box<dyn Consumer>>, LabError> {
        let uid = self.uid.unwrap_or(self.plan.uid);
        Ok(Some(match condition {
            Condition::Off => return Ok(None),
            Condition::On | Condition::Rules | Condition::Discard => Box::new(Discard::start()?),
            Condition::Auditd(flush) => {
                let flush = match flush {
                    Flush::Async => Flushes::IncrementalAsync,
                    Flush::Data => Flushes::Data,
                    Flush::Sync => Flushes::Sync,
                };
                Box::new(Logged::start(scratch, Logging { format: Format::Raw, flush })?)
            }
            Condition::Graven => Box::new(Recorded::start(scratch, From::Netlink)?),
            Condition::ShimRules => {
                let rules = (1..=RULES).fold(String::new(), |mut rules, at| {
                    let _ = writeln!(rules, "-a always,exit -F arch=b64 -F uid={}", uid + at);
                    rules
                });
                Box::new(Recorded::start(scratch, From::Shim(&rules))?)
            }
            Condition::Shim => {
                let rules = format!("-a always,exit -F uid={uid}\n");
                Box::new(Recorded::start(scratch, From::Shim(&rules))?)
            }
        }))
    }

    /// Waits until a daemon has everything; how long it was behind, in seconds.
    fn drain(&mut self, consumer: Option<&dyn Consumer>) -> Result<Option<f64>, LabError> {
        let Some(consumer) = consumer else { return Ok(None) };
        let begin = Instant::now();
        let (mut last, mut seen) = (begin, consumer.progress());
        // A slow daemon ended with records in the kernel's queue would be one that lost them.
        while last.elapsed() < QUIET || self.queued()? {
            if self.stop.load(Ordering::Relaxed) {
                return Err(LabError::Stopped);
            }
            if begin.elapsed() > DRAIN_LIMIT {
                let text = format!("the daemon was behind for {} s", DRAIN_LIMIT.as_secs());
                return Err(LabError::Said(text));
            }
            std::thread::sleep(Duration::from_millis(2));
            let now = consumer.progress();
            if now != seen {
                (last, seen) = (Instant::now(), now);
            }
        }
        Ok(Some((last - begin).as_secs_f64()))
    }

    fn queued(&mut self) -> Result<bool, LabError> {
        self.kernel.as_mut().map_or(Ok(false), Kernel::has_queued)
    }

    fn put_back(&mut self) -> Result<(), LabError> {
        self.kernel.as_mut().map_or(Ok(()), Kernel::put_back)
    }
}

fn failed(why: LabError) -> Failed {
    match why {
        LabError::Stopped => Failed::Stopped,
        why => {
            let text = escape::Escaped(why.to_string().as_bytes()).to_string();
            Diagnostic::error(format!("the rounds cannot go on: {text}"))
                .note("kernel audit is put back as it was found")
                .into()
        }
    }
}
