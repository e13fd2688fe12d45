//! A snapshot for people.

use super::snapshot::{Checkpoint, Grade, Lost, Quantiles, Rate, Snapshot};
use anstyle::{AnsiColor, Style};
use std::io::{self, Write};

/// Writes it, a fact a line; the first one says how the writer is.
///
/// # Errors
/// What `out` says.
pub fn write(out: &mut dyn Write, snapshot: &Snapshot) -> io::Result<()> {
    let strong = Style::new().bold();
    let color = style(snapshot.grade);
    let head = headline(snapshot);
    writeln!(out, "{color}{:<10}{color:#}{head}", snapshot.grade.name())?;
    for condition in &snapshot.conditions {
        let color = style(condition.grade);
        let (grade, name, text) = (condition.grade.name(), &condition.name, &condition.text);
        writeln!(out, "{color}{grade:<10}{color:#}{name}: {text}")?;
    }
    for (name, text) in facts(snapshot) {
        writeln!(out, "{strong}{name:<10}{strong:#}{text}")?;
    }
    Ok(())
}

/// The colour of a grade.
#[must_use]
pub fn style(grade: Grade) -> Style {
    let color = match grade {
        Grade::Ok => AnsiColor::Green,
        Grade::Warning => AnsiColor::Yellow,
        Grade::Critical => AnsiColor::Red,
    };
    color.on_default().bold()
}

/// Who records what, in one line.
#[must_use]
pub fn headline(snapshot: &Snapshot) -> String {
    let Snapshot { source, pid, uptime_ns, .. } = snapshot;
    format!("recording {source} as pid {pid}, for {}", long_time(*uptime_ns))
}

fn facts(s: &Snapshot) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("rate", rates(s)),
        ("durable", durable(s)),
        ("ring", format!("{}; {} records wait in it", ring(s), grouped(s.ring.queued_records))),
        ("waits", waits(s)),
    ];
    for (name, it) in [("latency", &s.latency), ("barrier", &s.barrier)] {
        facts.push((name, quantiles(&it.minute, "within a minute")));
        if it.minute.count < it.start.count {
            facts.push(("", quantiles(&it.start, "since the start")));
        }
    }
    facts.push(("lost", lost(&s.lost)));
    if let Some(kernel) = kernel(s) {
        facts.push(("kernel", kernel));
    }
    if let Some(keeper) = keeper(s) {
        facts.push(("keeper", keeper));
    }
    if let Some(space) = space(s) {
        facts.push(("space", space));
    }
    if let Some(segment) = segment(s) {
        facts.push(("segment", segment));
    }
    facts.push(("signed", signed(s)));
    if let Some(past) = &s.last_condition {
        let ended = time((s.realtime_ns.saturating_sub(past.ended_realtime_ns)).max(1));
        facts.push(("before", format!("{}, over for {ended}", past.condition.name)));
    }
    facts.push(("trail", s.trail.clone()));
    facts
}

/// The rates over times that the writer has run for, and the shortest in any case.
pub fn rates_so_far(s: &Snapshot) -> impl Iterator<Item = &Rate> {
    let ran_s = s.uptime_ns / 1_000_000_000;
    let whole = move |rate: &&Rate| rate.over_s <= 1 || u64::from(rate.over_s) <= ran_s;
    s.rates.iter().filter(whole)
}

fn rates(s: &Snapshot) -> String {
    let text = |rate: &Rate| {
        let (records, bytes) = (real(rate.records_per_s), bytes_text(rate.bytes_per_s as u64));
        format!("{records} records/s, {bytes}/s over {} s", rate.over_s)
    };
    rates_so_far(s).map(text).collect::<Vec<_>>().join(" · ")
}

fn durable(s: &Snapshot) -> String {
    let up_to = match s.records.durable.checked_sub(1) {
        None => "nothing yet".to_owned(),
        Some(last) => format!("seq 0..={last}"),
    };
    match s.lag.records {
        0 => format!("{up_to}, all that was accepted"),
        more => format!("{up_to}, {}", lag_of(more, s.lag.oldest_ns)),
    }
}

fn lag_of(records: u64, oldest_ns: u64) -> String {
    let age =
        if oldest_ns > 0 { format!(", the oldest {} old", time(oldest_ns)) } else { String::new() };
    format!("{} more are not{age}", grouped(records))
}

/// How full the ring is.
#[must_use]
pub fn ring(s: &Snapshot) -> String {
    let (used, all, most) = (s.ring.batches_used, s.ring.batches, s.ring.batches_used_max);
    format!("{used} of {all} batches ({} %), {most} at most", percent(used, all))
}

/// How producers fare.
#[must_use]
pub fn waits(s: &Snapshot) -> String {
    let it = &s.producers;
    let now = match it.waiting {
        0 => "nobody now".to_owned(),
        waiting => format!("{waiting} producers now, for {}", time(it.waiting_ns)),
    };
    match it.waits {
        0 => format!("{now}, nor before"),
        waits => format!(
            "{now}; {} in all, the longest {}, together {}",
            grouped(waits),
            time(it.wait_ns_max),
            time(it.wait_ns_total)
        ),
    }
}

fn quantiles(it: &Quantiles, over: &str) -> String {
    if it.count == 0 {
        return format!("nothing {over}");
    }
    let [p50, p99, p999, max] = [it.p50_ns, it.p99_ns, it.p999_ns, it.max_ns].map(time);
    format!("p50 {p50}, p99 {p99}, p99.9 {p999}, max {max} {over}")
}

/// What was lost.
#[must_use]
pub fn lost(lost: &Lost) -> String {
    if lost.statements == 0 {
        return "nothing".to_owned();
    }
    let at_least = if lost.at_least > 0 { "at least " } else { "" };
    format!(
        "{at_least}{} events and {} more records, in {} loss statements",
        grouped(lost.events),
        grouped(lost.records),
        grouped(lost.statements)
    )
}

/// The kernel's queue.
#[must_use]
pub fn kernel(s: &Snapshot) -> Option<String> {
    let it = s.kernel?;
    let limit = match it.backlog_limit {
        0 => "without limit".to_owned(),
        limit => format!("of {}", grouped(limit.into())),
    };
    let waited = it.waited_ns.map_or(String::new(), |ns| {
        if ns == 0 { String::new() } else { format!(", producers waited {} since boot", time(ns)) }
    });
    let backlog = grouped(it.backlog.into());
    Some(format!("{backlog} records {limit} in its queue, {} lost since boot{waited}", it.lost))
}

/// The keeper's memory.
#[must_use]
pub fn keeper(s: &Snapshot) -> Option<String> {
    let it = s.keeper?;
    let frozen = if it.is_frozen { ", producers are frozen" } else { "" };
    Some(format!(
        "{} of {} ({} %), {} at most; {} of {} blocks compressed{frozen}",
        bytes_text(it.used_bytes),
        bytes_text(it.capacity_bytes),
        percent(it.used_bytes, it.capacity_bytes),
        bytes_text(it.used_bytes_max),
        it.blocks_compressed,
        it.blocks
    ))
}

/// The room on the filesystem.
#[must_use]
pub fn space(s: &Snapshot) -> Option<String> {
    let it = s.space?;
    let (available, total) = (it.available_bytes, it.total_bytes);
    let part = percent(available, total);
    Some(format!("{} of {} available ({part} %)", bytes_text(available), bytes_text(total)))
}

/// The segment in use.
#[must_use]
pub fn segment(s: &Snapshot) -> Option<String> {
    let it = s.segment?;
    let (used, total) = (bytes_text(it.used_bytes), bytes_text(it.total_bytes));
    Some(format!("number {}, {used} of {total}", it.number))
}

/// The newest checkpoint.
#[must_use]
pub fn signed(s: &Snapshot) -> String {
    let Some(epoch) = s.epoch else { return "no: the trail has no key".to_owned() };
    let Some(Checkpoint { size, age_ns, uncovered_records }) = s.checkpoint else {
        return format!("no checkpoint yet, epoch {epoch}");
    };
    let age = age_ns.map_or("before the start".to_owned(), |ns| format!("{} ago", time(ns)));
    let more = match uncovered_records {
        0 => String::new(),
        more => format!(", {} more are not yet", grouped(more)),
    };
    format!("{} records, {age}, epoch {epoch}{more}", grouped(size))
}

/// A part of a whole in percent, rounded down; 0 of nothing.
#[must_use]
pub fn percent(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}

/// A number with its thousands apart.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A rate: small ones with a decimal place.
#[must_use]
pub fn real(number: f64) -> String {
    if number > 0.0 && number < 10.0 {
        format!("{number:.1}")
    } else {
        grouped(number.round() as u64)
    }
}

/// Bytes in units of 1024.
#[must_use]
pub fn bytes_text(bytes: u64) -> String {
    let mut number = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if number < 1000.0 {
            return if unit == "B" || number >= 100.0 {
                format!("{number:.0} {unit}")
            } else {
                format!("{number:.1} {unit}")
            };
        }
        number /= 1024.0;
    }
    format!("{number:.1} PiB")
}

/// Nanoseconds in a unit that people read, three digits.
#[must_use]
pub fn time(ns: u64) -> String {
    let short = |number: f64, unit: &str| {
        if number < 9.95 { format!("{number:.1} {unit}") } else { format!("{number:.0} {unit}") }
    };
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..999_500 => short(ns as f64 / 1e3, "µs"),
        999_500..999_500_000 => short(ns as f64 / 1e6, "ms"),
        999_500_000..120_000_000_000 => short(ns as f64 / 1e9, "s"),
        _ => long_time(ns),
    }
}

/// Nanoseconds as days, hours, minutes and seconds: the two largest.
#[must_use]
pub fn long_time(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_have_units() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345_678, "12,345,678")]
        {
            assert_eq!(grouped(number), text);
        }
        for (number, text) in [(0.0, "0"), (0.25, "0.2"), (9.96, "10.0"), (1234.6, "1,235")] {
            assert_eq!(real(number), text);
        }
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KiB"),
            (64 << 20, "64.0 MiB"),
            (150 << 20, "150 MiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(bytes_text(bytes), text);
        }
        for (ns, text) in [
            (0, "0 ns"),
            (1_500, "1.5 µs"),
            (86_000, "86 µs"),
            (999_600, "1.0 ms"),
            (9_960_000, "10 ms"),
            (1_200_000_000, "1.2 s"),
            (119_000_000_000, "119 s"),
            (121_000_000_000, "2 min 1 s"),
            (2 * 3_600_000_000_000, "2 h 0 min"),
            (49 * 3_600_000_000_000, "2 d 1 h"),
        ] {
            assert_eq!(time(ns), text);
        }
        assert_eq!(percent(1, 0), 100);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
    }

    #[test]
    fn the_least_snapshot_can_be_shown() {
        let mut out = Vec::new();
        write(&mut out, &Snapshot::default()).expect("a vector");
        let text = String::from_utf8(out).expect("text");
        assert!(text.contains("nothing yet"), "{text}");
        assert!(text.contains("nothing within a minute"), "{text}");
    }
}
