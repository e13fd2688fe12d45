//! Half of what it can take, for a long time: nothing is lost, and memory does not grow.

use super::daemon::{Daemon, Kind};
use super::{said, spawn};
use crate::kernel::Turn;
use crate::stats::median;
use anyhow::{Result, ensure};
use graven_tools::bench::audit::{UID, auditctl, watch};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest time between two looks at memory; a short run is looked at forty times.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// What memory may have grown by from the first quarter to the last.
const GROWTH_MAX: f64 = 1.1;

/// Runs two producers, each at half of `rate` events a second, for so many minutes.
pub(crate) fn soak(dir: &Path, rate: u64, minutes: f64) -> Result<()> {
    let turn = Turn::take()?;
    auditctl(&["-D"])?;
    auditctl(&["-e", "0"])?;
    let home = dir.join("home");
    DirBuilder::new().mode(0o700).create(&home)?;
    let mut daemon = Daemon::start(Kind::Writer, &home, "16M")?;
    watch()?;
    let lasts = Duration::from_secs_f64(minutes * 60.0);
    let seconds = lasts.as_secs_f64().to_string();
    let each = (rate / 2).to_string();
    let producer = || spawn(&["paced", "--rate", &each, "--seconds", &seconds]);
    let producers = [producer()?, producer()?];
    let until = Instant::now() + lasts;
    let look = LOOK_MAX.min(lasts / 40);
    let mut resident: [Vec<f64>; 2] = Default::default();
    while Instant::now() + look < until {
        std::thread::sleep(look);
        turn.go_on()?;
        // Without it there are no events, and none would be missing.
        ensure!(
            auditctl(&["-l"])?.contains(&format!("uid={UID}")),
            "somebody has removed the rule of the run"
        );
        for (kind, samples) in [Kind::Keeper, Kind::Writer].into_iter().zip(&mut resident) {
            samples.push(daemon.resident_mib(kind)?);
        }
    }
    let made = said(producers, &turn)?.made;
    auditctl(&["-D"])?;
    std::thread::sleep(Duration::from_secs(2));
    daemon.end()?;
    let (there, verified) = (daemon.events()?, daemon.verified()?);
    let due = (rate / 2 * 2) as f64 * lasts.as_secs_f64();
    println!(
        "soak: {minutes} minutes at {rate} events/s: {made} made of {due:.0}, {there} there, each once, {} stated as lost",
        verified.stated
    );
    let mut grown = Vec::new();
    for (name, samples) in ["keeper", "writer"].into_iter().zip(&resident) {
        let quarter = samples.len() / 4;
        let of = |part: &[f64]| median(part.to_vec());
        let (first, last) = (of(&samples[..quarter]), of(&samples[samples.len() - quarter..]));
        let most = samples.iter().copied().fold(f64::NAN, f64::max);
        println!(
            "{name}: resident {first:.1} MiB in the first quarter, {last:.1} in the last, {most:.1} at most"
        );
        if last.is_nan() || last > first * GROWTH_MAX {
            grown.push(name);
        }
    }
    ensure!(made == there, "{} events are missing or too many", made.abs_diff(there));
    ensure!(verified.complete, "the trail states a loss");
    ensure!(grown.is_empty(), "memory grew: {}", grown.join(", "));
    Ok(())
}
