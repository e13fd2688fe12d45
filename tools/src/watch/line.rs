//! A snapshot in one line, for what is no terminal.

use crate::status::Snapshot;
use crate::status::text::{bytes_text, percent, real, time};
use std::fmt::Write as _;

/// The line, without its end.
#[must_use]
pub fn of(s: &Snapshot) -> String {
    let now = crate::time::rfc3339(s.realtime_ns / 1_000_000_000 * 1_000_000_000);
    let seconds = now.split_once('.').map_or(now.as_str(), |(seconds, _)| seconds);
    let rate = s.rates.first().copied().unwrap_or_default();
    let mut line = format!(
        "{seconds}Z {} · {} records/s, {}/s · ring {} % · {} wait · lag {} records, {} · \
         latency p50 {}, p99.9 {} · barrier p50 {}, p99.9 {} · lost {} events, {} records",
        s.grade.name(),
        real(rate.records_per_s),
        bytes_text(rate.bytes_per_s as u64),
        percent(s.ring.batches_used, s.ring.batches),
        s.producers.waiting,
        s.lag.records,
        time(s.lag.oldest_ns),
        time(s.latency.minute.p50_ns),
        time(s.latency.minute.p999_ns),
        time(s.barrier.minute.p50_ns),
        time(s.barrier.minute.p999_ns),
        s.lost.events,
        s.lost.records,
    );
    if let Some(space) = s.space {
        // A string takes everything.
        let _ = write!(line, " · space {}", bytes_text(space.available_bytes));
    }
    line
}
