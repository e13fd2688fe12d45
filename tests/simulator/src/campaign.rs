//! Many lives, one after the other and side by side.

use crate::lies::Lie;
use crate::life::{Failure, live};
use crate::stats::Stats;
use std::fmt::Write;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Operations before its end that the report of a failure shows.
const LAST_OPS: usize = 40;

/// Lives the lives of these seeds on so many threads, until all are over, one fails, or it is
/// `until`.
///
/// # Errors
/// The [`report`] of a life that failed.
pub fn campaign(
    seeds: Range<u64>,
    threads: usize,
    until: Option<Instant>,
) -> Result<Stats, String> {
    let next = AtomicU64::new(seeds.start);
    let whole = Mutex::new(Ok(Stats::default()));
    let work = || {
        let mut stats = Stats::default();
        let failed = || whole.lock().is_ok_and(|whole| whole.is_err());
        while !failed() && until.is_none_or(|until| Instant::now() < until) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            match live(seed, None, false) {
                Ok(summary) => stats.add(&summary.stats),
                Err(_) => {
                    let report = report(seed, None);
                    if let Ok(mut whole) = whole.lock() {
                        *whole = Err(report);
                    }
                    return;
                }
            }
        }
        if let Ok(mut whole) = whole.lock()
            && let Ok(whole) = &mut *whole
        {
            whole.add(&stats);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    whole.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// What is to be known of a life that failed: it is lived again to see its last operations.
#[must_use]
pub fn report(seed: u64, lie: Option<Lie>) -> String {
    match live(seed, lie, true) {
        Ok(_) => format!("seed {seed} failed once and not again: something is not deterministic"),
        Err(failure) => describe(&failure),
    }
}

/// A failure in words: what, the options, the last operations, and how to see it again.
#[must_use]
pub fn describe(failure: &Failure) -> String {
    let Failure { plan, lie, what, trace } = failure;
    let mut text = format!("seed {}: {what}\noptions: {plan:?}\n", plan.seed);
    for line in &trace[trace.len().saturating_sub(LAST_OPS)..] {
        // Writing to a string does not fail.
        let _ = writeln!(text, "    {line}");
    }
    let seed = plan.seed;
    let lie = lie.map(|lie| format!(" --lie {lie:?}")).unwrap_or_default();
    let again = "cargo run -p graven-simulator --bin graven-sim -- --verbose --seed";
    let _ = write!(text, "again: {again} {seed}{lie}");
    text
}
