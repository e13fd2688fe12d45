//! Changes that somebody may make to a trail, from one bit to all of it made anew and signed again,
//! and a verifier that has to say so.
//!
//! Every change comes from a seed. What must be found without help, with the trail's first key, or
//! only with a checkpoint that was kept elsewhere, is said beforehand by [`needs`]: a change that is
//! found with less is no failure, one that is not found with what it needs is.

pub mod change;
pub mod made;
pub mod model;

use anyhow::{Context as _, bail, ensure};
use change::{Changed, Original, Who};
use graven_format::note::SecretKey;
use graven_tools::verify::report::Report;
use graven_tools::verify::{Options, Verdict, anchors, verify};
use made::Kind;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZero;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a verifier must hold to find a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Nothing but the trail.
    Nothing,
    /// The first key.
    Key,
    /// A checkpoint from before the change, kept elsewhere.
    Anchor,
    /// Nothing helps: the trail is not signed, and was made anew.
    Signature,
}

/// What must be known to find this change, by theory.
#[must_use]
pub fn needs(original: &Original, changed: &Changed) -> Needs {
    let signed = !original.keys.is_empty();
    let segments = original.image.segments();
    // What the end of a trail looks like after a crash is for nobody to tell who was told nothing.
    let at_end = changed.place.as_ref().is_some_and(|place| Some(&place.file) == segments.last());
    match changed.who {
        _ if changed.rolled_back || at_end => Needs::Anchor,
        Who::Bytes | Who::Checksum => Needs::Nothing,
        Who::Remade | Who::Stripped | Who::Resealed if !signed => Needs::Signature,
        Who::Remade => Needs::Nothing,
        Who::Stripped => Needs::Key,
        Who::Resealed if changed.first_seq < original.last_epoch_from() => Needs::Key,
        Who::Resealed => Needs::Anchor,
    }
}

/// How often what was found, and with what.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Changes.
    pub changes: u64,
    /// By who, level and what.
    pub kinds: BTreeMap<(Who, &'static str, &'static str), u64>,
    /// By the least that was needed, as it turned out.
    pub found_with: BTreeMap<Needs, u64>,
}

impl Stats {
    fn add(&mut self, other: &Self) {
        self.changes += other.changes;
        for (kind, count) in &other.kinds {
            *self.kinds.entry(*kind).or_default() += count;
        }
        for (needs, count) in &other.found_with {
            *self.found_with.entry(*needs).or_default() += count;
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} changes", self.changes)?;
        for ((who, level, what), count) in &self.kinds {
            writeln!(f, "{count:>10}  {who:?}: {level}: {what}")?;
        }
        for (needs, count) in &self.found_with {
            let with = match needs {
                Needs::Nothing => "found with the trail alone",
                Needs::Key => "found with the first key",
                Needs::Anchor => "found with a checkpoint kept elsewhere",
                Needs::Signature => "an unsigned trail made anew: not to be found",
            };
            writeln!(f, "{count:>10}  {with}")?;
        }
        Ok(())
    }
}

/// Changes of these seeds, on `threads` threads.
///
/// # Errors
/// The first change that was not found, or was called what it is not.
pub fn campaign(seeds: Range<u64>, threads: usize) -> anyhow::Result<Stats> {
    let (next, total) = (AtomicU64::new(seeds.start), Mutex::new(Stats::default()));
    std::thread::scope(|scope| {
        let work = || -> anyhow::Result<()> {
            let scratch = made::scratch()?;
            let mut stats = Stats::default();
            loop {
                // A trail takes longer to make than to change.
                let first = next.fetch_add(ROUND, Ordering::Relaxed);
                if first >= seeds.end {
                    break;
                }
                let round = first..seeds.end.min(first + ROUND);
                if let Err(why) = run(scratch.path(), round, &mut stats) {
                    next.store(u64::MAX - ROUND * threads as u64, Ordering::Relaxed);
                    return Err(why);
                }
            }
            total.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).add(&stats);
            Ok(())
        };
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        anyhow::Ok(())
    })?;
    Ok(total.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

/// Changes of one trail.
const ROUND: u64 = 250;

fn run(scratch: &Path, seeds: Range<u64>, stats: &mut Stats) -> anyhow::Result<()> {
    let kind = Kind::ALL[(seeds.start / ROUND % Kind::ALL.len() as u64) as usize];
    let original = made::original(kind, seeds.start)?;
    let dir = scratch.join("trail");
    let mut written = original.image.clone();
    made::write(&dir, &written, None)?;
    let intact = verdict(&dir, &original, Needs::Anchor)?;
    ensure!(intact.verdict == Verdict::Intact, "seed {}: {intact:#?}", seeds.start);
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let Some(changed) = original.change(&mut random) else { continue };
        made::write(&dir, &changed.image, Some(&written))?;
        written.clone_from(&changed.image);
        let with = check(&dir, &original, &changed)
            .with_context(|| format!("seed {seed}, {kind:?}: {changed}"))?;
        stats.changes += 1;
        *stats.kinds.entry((changed.who, changed.level, changed.what)).or_default() += 1;
        *stats.found_with.entry(with).or_default() += 1;
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Looks for the change with more and more in hand; says what was needed.
fn check(dir: &Path, original: &Original, changed: &Changed) -> anyhow::Result<Needs> {
    let expected = needs(original, changed);
    if expected == Needs::Signature {
        return Ok(expected);
    }
    for with in [Needs::Nothing, Needs::Key, Needs::Anchor] {
        let report = verdict(dir, original, with)?;
        // A version, feature or codec that is intact in itself and unknown is not called damage.
        let unknown = changed.who == Who::Checksum && report.verdict == Verdict::Unchecked;
        if unknown || report.verdict == Verdict::Damaged {
            locate(&report, original, changed)?;
            return Ok(with);
        }
        if with >= expected {
            bail!("not found with {with:?}: {report:#?}");
        }
    }
    bail!("not found")
}

/// What `verify` says to somebody who holds so much.
fn verdict(dir: &Path, original: &Original, with: Needs) -> anyhow::Result<Report> {
    let anchors = anchors::parse("kept", &original.anchors().concat())?;
    let mut options = Options { threads: NonZero::new(1), ..Options::default() };
    if with >= Needs::Key {
        options.key = original.keys.first().map(SecretKey::public);
    }
    if with >= Needs::Anchor {
        options.durable = Some(original.model.records().count() as u64 - 1);
        options.anchors = &anchors;
    }
    Ok(verify(dir, &options)?)
}

/// A change of the bytes of one place must be found there, and no wider.
fn locate(report: &Report, original: &Original, changed: &Changed) -> anyhow::Result<()> {
    let Some(place) = &changed.place else { return Ok(()) };
    let (name, _) = &original.image.files[place.file];
    let (start, end) = (place.bytes.start as u64, place.bytes.end as u64);
    let in_file = |file: &String| file.ends_with(name.as_str());
    let here = report.problems.iter().filter(|it| it.file.as_ref().is_some_and(in_file));
    let found = here.filter_map(|problem| {
        let offset = problem.offset?;
        Some(offset..offset + problem.len.unwrap_or(0))
    });
    let found: Vec<Range<u64>> = found.collect();
    // A trailer that is intact in itself is missed by the segment behind it, which names it.
    let next = original.image.files.get(place.file + 1).map_or("", |(name, _)| name);
    let by_next = report
        .problems
        .iter()
        .any(|it| it.kind == "chain" && it.file.as_ref().is_some_and(|file| file.ends_with(next)));
    if changed.who == Who::Checksum && by_next {
        return Ok(());
    }
    let inside = |range: &Range<u64>| match changed.who {
        // It is intact in itself, and what stands behind it says that it was another one.
        Who::Checksum => (start..=end).contains(&range.start),
        // What is cut off or moved is missed at the latest where it ended.
        _ if changed.shifts => (start..=end).contains(&range.start),
        _ => start <= range.start && range.end <= end,
    };
    ensure!(found.iter().any(inside), "found elsewhere than at {place:?}: {found:?}\n{report:#?}");
    Ok(())
}
