//! The report as a table for people.

use super::report::{Report, Row, Spread, State};
use crate::escape::Escaped;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Writes it.
///
/// # Errors
/// What `out` says.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let asked = &report.asked;
    writeln!(
        out,
        "{} rounds of {} s, in turn; library: {}, {} producers",
        asked.rounds, asked.seconds, asked.sizes, asked.producers
    )?;
    if let Some(floor) = &report.floor {
        writeln!(out, "{floor}")?;
    }
    let mut before = None;
    for row in &report.rows {
        let group = (row.path, row.mode.as_str());
        if before != Some(group) {
            writeln!(
                out,
                "\n{:<36} {:>10} {:>23} {:>6} {:>17} {:>8} {:>8} {:>8} {:>9} {:>8} {:>8}  durable",
                format!("{}, {}: {}", row.path.name(), row.mode, row.unit),
                "per second",
                "(range)",
                "ratio",
                "(range)",
                "p50",
                "p99",
                "p99.9",
                "lost",
                "cpu",
                "bytes"
            )?;
            before = Some(group);
        }
        line(row, out)?;
    }
    writeln!(
        out,
        "\nratio: over Graven's in the same round. p50 to p99.9: µs from handing over to the acknowledgement; `not told` where there is none.\n\
         lost: not there, or not whole, when it was read back, in all rounds. cpu: µs a record, of producers and rival. bytes: given to\n\
         storage a record. What is WEAKER may be gone after a power cut though it was taken."
    )?;
    notes(report, out)
}

fn line(row: &Row, out: &mut dyn Write) -> io::Result<()> {
    let name = format!("  {}", row.rival);
    let why = match &row.state {
        State::Measured => None,
        State::NotInstalled(why) => Some(format!("not installed: {}", shown(why))),
        State::NotMeasured(why) => Some(format!("not measured: {}", shown(why))),
        State::Failed(why) => Some(format!("FAILED: {}", shown(why))),
    };
    if let Some(why) = why {
        return writeln!(out, "{name:<36} {why}");
    }
    let per_s = row.per_s.map_or(("-".to_owned(), String::new()), |it| {
        (format!("{:.0}", it.median), format!("({:.0} to {:.0})", it.min, it.max))
    });
    let ratio = row.over_graven.map_or(("-".to_owned(), String::new()), |it| {
        (significant(it.median), format!("({} to {})", significant(it.min), significant(it.max)))
    });
    let told = |at: Option<f64>| at.map_or("-".to_owned(), |us| format!("{us:.0}"));
    let median = |it: Option<Spread>| it.map_or("-".to_owned(), |it| significant(it.median));
    let latency = row.latency.as_ref();
    writeln!(
        out,
        "{name:<36} {:>10} {:>23} {:>6} {:>17} {:>8} {:>8} {:>8} {:>9} {:>8} {:>8}  {}",
        per_s.0,
        per_s.1,
        ratio.0,
        ratio.1,
        told(latency.map(|it| it.p50_us)),
        told(latency.map(|it| it.p99_us)),
        told(latency.map(|it| it.p999_us)),
        row.lost,
        median(row.cpu_us),
        median(row.written_bytes),
        row.durability.name()
    )
}

/// Each rival once: its version, its barrier, and what of its figures is not its own.
fn notes(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out)?;
    let mut said: Vec<&str> = Vec::new();
    for row in report.rows.iter().filter(|row| row.state == State::Measured) {
        if said.contains(&row.rival.as_str()) {
            continue;
        }
        said.push(&row.rival);
        let mut text = row.rival.clone();
        if let Some(version) = &row.version {
            let _ = write!(text, " ({})", shown(version));
        }
        let _ = write!(text, ": {}", row.barrier);
        if let Some(handicap) = row.handicap {
            let _ = write!(text, "; {handicap}");
        }
        writeln!(out, "{text}")?;
    }
    Ok(())
}

/// What programs say may hold anything.
fn shown(text: &str) -> String {
    Escaped(text.as_bytes()).to_string()
}

/// A number with about three digits.
fn significant(value: f64) -> String {
    match value {
        it if it >= 100.0 => format!("{it:.0}"),
        it if it >= 10.0 => format!("{it:.1}"),
        it if it >= 0.1 => format!("{it:.2}"),
        it => format!("{it:.4}"),
    }
}
