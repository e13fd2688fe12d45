//! What was recorded, in a few lines on standard error.

use crate::aside;
use anstyle::Style;
use graven_writer::Summary;
use graven_writer::source::{netlink, shim};
use std::io::{self, Write};
use std::path::Path;

/// Says what was recorded, how long it took, and how to look at it. That nobody listens is no
/// reason to fail.
pub fn say(trail: &Path, received: &netlink::Summary, written: &Summary) {
    aside::say(|out| write(out, trail, received, written));
}

fn write(
    out: &mut dyn Write,
    trail: &Path,
    received: &netlink::Summary,
    written: &Summary,
) -> io::Result<()> {
    let strong = Style::new().bold();
    let mut fact = |name: &str, text: &str| writeln!(out, "{strong}{name:<10}{strong:#}{text}");
    fact("graven", &format!("{} events in {} records", received.events, received.records))?;
    let lost = match (received.lost_events, received.lost_records, received.partial_events) {
        (0, 0, 0) if received.statements == 0 => "nothing".to_owned(),
        (events, records, partial) => format!(
            "{events} events, {records} more records, {partial} events in part: {} loss statements",
            received.statements
        ),
    };
    fact("lost", &lost)?;
    if !received.drained {
        fact("undrained", "the kernel did not give out all that it had; the trail says so")?;
    }
    write_trail(out, trail, written)
}

/// The same of the kernel shim.
pub fn say_shim(trail: &Path, received: &shim::Summary, written: &Summary) {
    aside::say(|out| write_shim(out, trail, received, written));
}

fn write_shim(
    out: &mut dyn Write,
    trail: &Path,
    received: &shim::Summary,
    written: &Summary,
) -> io::Result<()> {
    let strong = Style::new().bold();
    let shim::Summary { calls, parts, passed, lost, .. } = received;
    writeln!(out, "{strong}{:<10}{strong:#}{calls} system calls in {parts} records", "graven")?;
    let missing = match (passed, lost) {
        (0, 0) => "nothing".to_owned(),
        (passed, lost) => format!(
            "{passed} calls went on unrecorded by policy, {lost} records: see the loss statements"
        ),
    };
    writeln!(out, "{strong}{:<10}{strong:#}{missing}", "lost")?;
    write_trail(out, trail, written)
}

/// What of it is durable, and how it went.
fn write_trail(out: &mut dyn Write, trail: &Path, written: &Summary) -> io::Result<()> {
    let strong = Style::new().bold();
    let mut fact = |name: &str, text: &str| writeln!(out, "{strong}{name:<10}{strong:#}{text}");
    let path = crate::escape::path(trail);
    let durable = written.durable.checked_sub(1).map_or("nothing".to_owned(), |last| {
        format!("seq {}..={last}", written.first_seq.min(last))
    });
    fact("durable", &durable)?;
    let latency = &written.totals.latency;
    let quantile = |q| duration(latency.value_at_quantile(q));
    if !latency.is_empty() {
        let text = format!(
            "p50 {}, p99 {}, p99.9 {}, max {}",
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
            duration(latency.max())
        );
        fact("latency", &format!("{text}, from the kernel to behind a barrier"))?;
    }
    fact(
        "waits",
        &format!("{}, the longest {}", written.ring.waits, duration(written.ring.wait_ns_max)),
    )?;
    if let (Some(checkpoint), Some(key)) = (&written.checkpoint, &written.key) {
        fact("signed", &format!("{} records, by {key}", checkpoint.size))?;
    }
    fact("trail", &path)?;
    fact("next", &format!("graven verify {path}"))
}

/// Nanoseconds in a unit that people read.
pub(super) fn duration(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_500, "1.5 µs"),
            (2_000_000, "2.0 ms"),
            (61_000_000_000, "61.00 s"),
        ] {
            assert_eq!(duration(ns), text);
        }
    }
}
