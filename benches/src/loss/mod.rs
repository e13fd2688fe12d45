//! What is lost of the kernel's audit while a daemon is stopped, killed or ended, and while its disk stalls or is
//! full: auditd and `graven record` in turn, by the same hand, counted event by event.
//!
//! The producers are processes of a test uid that open `/dev/null` and say how often. An event is there if its PATH
//! record is in the log or the trail; of Graven's, what is missing has to be stated, with its number.

mod daemon;
mod disk;
mod soak;

use crate::kernel::Turn;
use crate::stats::{self, median};
use anyhow::{Context, Result, ensure};
use daemon::{Daemon, Kind};
use disk::Disk;
use graven_tools::bench::audit::{Producer, auditctl, watch};
use rustix::process::Signal;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

pub(crate) use soak::soak;

/// Events of which a producer remembers what they cost.
const TIMES_MAX: usize = 1 << 16;

/// What is done to a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Case {
    /// Stopped for 3 s at 1,000 events a second
    Stopped,
    /// Killed half a second into a storm of 1.5 s; auditd is started again a second later
    Killed,
    /// Asked to end when it is behind by a burst
    Ended,
    /// Its filesystem is frozen for 10 s at 1,000 events a second
    Stalled,
    /// Its filesystem is full for 30 s at 1,000 events a second
    Full,
    /// Nothing: what an event costs its producer, at 1,000 a second
    Cost,
}

impl Case {
    const ALL: [Self; 6] =
        [Self::Stopped, Self::Killed, Self::Ended, Self::Stalled, Self::Full, Self::Cost];

    const fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped for 3 s at 1,000/s",
            Self::Killed => "killed in a storm",
            Self::Ended => "SIGTERM while behind",
            Self::Stalled => "disk stalled for 10 s at 1,000/s",
            Self::Full => "disk full for 30 s at 1,000/s",
            Self::Cost => "alive at 1,000/s",
        }
    }

    /// On whom it is tried: of Graven both processes where it makes a difference.
    const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Stopped | Self::Killed => &[Kind::Auditd, Kind::Writer, Kind::Keeper],
            _ => &[Kind::Auditd, Kind::Writer],
        }
    }
}

/// What one round showed.
struct Outcome {
    made: u64,
    there: u64,
    stated: u64,
    /// Median nanoseconds of one event for its producer.
    cost_ns: f64,
}

/// `openat` at a rate until the time is over; prints how many there were, and the median nanoseconds of one. Runs as the
/// test uid.
pub(crate) fn paced(rate: u64, seconds: f64) -> Result<()> {
    let start = Instant::now();
    let until = Duration::from_secs_f64(seconds);
    let (mut made, mut times_ns) = (0_u128, Vec::new());
    while start.elapsed() < until {
        let due = start.elapsed().as_nanos() * u128::from(rate) / 1_000_000_000;
        while made < due {
            let begin = Instant::now();
            let file = File::open("/dev/null")?;
            if times_ns.len() < TIMES_MAX {
                times_ns.push(begin.elapsed().as_nanos() as f64);
            }
            drop(file);
            made += 1;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    println!("{made} {}", median(times_ns));
    Ok(())
}

/// Tries the cases on both, interleaved, and prints a table.
pub(crate) fn loss(dir: &Path, rounds: usize, only: Option<Case>) -> Result<()> {
    let turn = Turn::take()?;
    println!(
        "{:<34} {:<16} {:>9} {:>9} {:>9} {:>9}",
        "case", "who", "made", "missing", "stated", "ns/event"
    );
    for case in Case::ALL.into_iter().filter(|it| only.is_none_or(|only| only == *it)) {
        let mut outcomes: Vec<Vec<Outcome>> = case.kinds().iter().map(|_| Vec::new()).collect();
        for round in 0..rounds {
            for (kind, outcomes) in case.kinds().iter().zip(&mut outcomes) {
                turn.go_on()?;
                let scratch = dir.join(format!("loss-{round}-{}", kind.name()));
                fs::DirBuilder::new().mode(0o700).create(&scratch)?;
                let outcome = one(case, *kind, &scratch, &turn)
                    .with_context(|| format!("{}, {}", case.name(), kind.name()))?;
                fs::remove_dir_all(&scratch)?;
                outcomes.push(outcome);
            }
        }
        for (kind, outcomes) in case.kinds().iter().zip(&outcomes) {
            print(case, *kind, outcomes);
        }
        if let (Case::Cost, [auditd, graven]) = (case, &outcomes[..]) {
            let rounds = graven.iter().zip(auditd);
            let ratios: Vec<_> =
                rounds.map(|(ours, theirs)| ours.cost_ns / theirs.cost_ns).collect();
            stats::print("one event's cost, graven over auditd", &ratios, "");
        }
    }
    Ok(())
}

/// Sums over all rounds; the cost is a median.
fn print(case: Case, kind: Kind, outcomes: &[Outcome]) {
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let (made, there) = (sum(|it| it.made), sum(|it| it.there));
    let cost = median(outcomes.iter().map(|it| it.cost_ns).collect());
    let stated =
        if kind == Kind::Auditd { "-".to_owned() } else { sum(|it| it.stated).to_string() };
    let cost = if cost.is_nan() { "-".to_owned() } else { format!("{cost:.0}") };
    let (name, who, missing) = (case.name(), kind.name(), made.saturating_sub(there));
    println!("{name:<34} {who:<16} {made:>9} {missing:>9} {stated:>9} {cost:>9}");
}

fn one(case: Case, kind: Kind, scratch: &Path, turn: &Turn) -> Result<Outcome> {
    auditctl(&["-D"])?;
    auditctl(&["-e", "0"])?;
    let disk = match case {
        Case::Stalled => Some(Disk::new(scratch, 512)?),
        Case::Full => Some(Disk::new(scratch, 96)?),
        _ => None,
    };
    let home = disk.as_ref().map_or_else(|| scratch.join("home"), |disk| disk.path().join("home"));
    fs::DirBuilder::new().mode(0o700).create(&home)?;
    let mut daemon = Daemon::start(kind, &home, if case == Case::Full { "1M" } else { "16M" })?;
    auditctl(&["-b", "8192"])?;
    watch()?;
    let producers = act(case, &mut daemon, disk.as_ref(), turn)?;
    // The queues empty before the daemon is asked to end, but for the case that is about that.
    if case != Case::Ended {
        std::thread::sleep(Duration::from_secs(2));
        daemon.end()?;
    }
    auditctl(&["-D"])?;
    if case == Case::Full {
        ensure!(daemon.has_said("has no room: recording waits")?, "the disk was not full for it");
    }
    let there = daemon.events()?;
    ensure!(there <= producers.made, "{there} events of {}: some are there twice", producers.made);
    Ok(Outcome {
        made: producers.made,
        there,
        stated: daemon.verified()?.stated,
        cost_ns: producers.cost_ns,
    })
}

/// What producers have said.
struct Produced {
    made: u64,
    cost_ns: f64,
}

fn act(case: Case, daemon: &mut Daemon, disk: Option<&Disk>, turn: &Turn) -> Result<Produced> {
    let second = Duration::from_secs(1);
    let steady =
        |seconds: f64| spawn(&["paced", "--rate", "1000", "--seconds", &seconds.to_string()]);
    match case {
        Case::Stopped => {
            let producer = steady(6.0)?;
            std::thread::sleep(second);
            daemon.signal(Signal::STOP)?;
            std::thread::sleep(3 * second);
            daemon.signal(Signal::CONT)?;
            said([producer], turn)
        }
        Case::Killed => {
            let storm = || spawn(&["storm", "--seconds", "1.5"]);
            let storms = [storm()?, storm()?];
            std::thread::sleep(second / 2);
            daemon.signal(Signal::KILL)?;
            daemon.start_again(second)?;
            storm_said(storms, turn)
        }
        Case::Ended => {
            daemon.signal(Signal::STOP)?;
            let made = storm_said([spawn(&["storm", "--seconds", "0.05"])?], turn);
            daemon.signal(Signal::CONT)?;
            daemon.end()?;
            made
        }
        Case::Stalled => {
            let producer = steady(12.0)?;
            std::thread::sleep(second);
            disk.context("a disk")?.freeze(10)?;
            said([producer], turn)
        }
        Case::Full => {
            let disk = disk.context("a disk")?;
            disk.fill()?;
            let producer = steady(34.0)?;
            std::thread::sleep(30 * second);
            disk.make_room()?;
            said([producer], turn)
        }
        Case::Cost => said([steady(4.0)?], turn),
    }
}

fn spawn(args: &[&str]) -> Result<Producer> {
    Producer::start(Command::new(std::env::current_exe()?).args(args))
        .context("the producer does not start")
}

/// Of a storm nobody looks at what one event costs.
fn storm_said(producers: impl IntoIterator<Item = Producer>, turn: &Turn) -> Result<Produced> {
    Ok(Produced { cost_ns: f64::NAN, ..said(producers, turn)? })
}

fn said(producers: impl IntoIterator<Item = Producer>, turn: &Turn) -> Result<Produced> {
    let mut produced = Produced { made: 0, cost_ns: f64::NAN };
    for producer in producers {
        let (events, cost_ns) = producer.said(turn.interrupted())?;
        produced.made += events;
        produced.cost_ns = cost_ns as f64;
    }
    Ok(produced)
}
