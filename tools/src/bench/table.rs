//! The report as a table for people.

use super::report::{Point, Report};
use std::io::{self, Write};

const COLUMNS: &str = "discipline      load   records/s      p50      p99    p99.9      max     wait    model  ratio  exposed     lost  blocked      cpu    bytes  regime";

/// Writes it.
///
/// # Errors
/// What `out` says.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let asked = &report.asked;
    writeln!(
        out,
        "arrivals {}, {}, {} producers{}, service {}, {} × {} s after {} s",
        asked.arrivals,
        asked.sizes,
        asked.producers,
        if asked.hogs > 0 {
            format!(" beside {} that never pause", asked.hogs)
        } else {
            String::new()
        },
        asked.service,
        asked.repetitions,
        asked.seconds,
        asked.warm_up_s
    )?;
    if let Some(rate) = asked.recorded_rate {
        writeln!(out, "the trail that is replayed was recorded at {rate:.1} records/s")?;
    }
    if let Some(floor) = &report.floor {
        writeln!(out, "{floor}")?;
    }
    writeln!(out, "\nsaturation, durable records/s")?;
    for it in &report.saturation {
        writeln!(out, "  {:<12} {:>12.0}", it.discipline, it.records_per_s)?;
    }
    writeln!(out, "\n{COLUMNS}")?;
    let mut before = None;
    for point in &report.points {
        // A blank line between loads.
        let key = report
            .points
            .iter()
            .position(|it| std::ptr::eq(it, point))
            .map(|at| at / report.saturation.len().max(1));
        if before.is_some() && before != key {
            writeln!(out)?;
        }
        before = key;
        row(point, out)?;
        if asked.hogs > 0 {
            writeln!(
                out,
                "{:<20} {:>11.0} records/s of those that never pause",
                "", point.hogs_per_s.mean
            )?;
        }
    }
    writeln!(
        out,
        "\np50 to max: µs from due to durable. wait: µs from due to the start of the write, its mean; model: what theory says of it.\n\
         exposed: µs, p99.99 over time of the age of the oldest record not durable. lost: records. blocked: the longest wait\n\
         of a producer. cpu: µs a record. bytes: written a record. Models hold where the regime is `open`, and of graven where it is\n\
         `overlapping`."
    )
}

fn row(it: &Point, out: &mut dyn Write) -> io::Result<()> {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), us);
    let theory = it.theory.as_ref();
    let ratio = theory.and_then(|it| it.ratio).map_or("-".to_owned(), |it| format!("{it:.2}"));
    writeln!(
        out,
        "{:<12} {:>7.2} {:>11.0} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6} {:>8} {:>8} {:>8} {:>8.2} {:>8.0}  {}",
        it.discipline,
        it.load,
        it.rate,
        us(it.latency.p50_us),
        us(it.latency.p99_us),
        us(it.latency.p999_us),
        us(it.latency.max_us),
        us(it.wait.mean_us.mean),
        number(theory.and_then(|it| it.wait_us)),
        ratio,
        us(it.exposure.p9999_us),
        it.lost,
        us(it.blocked_max_us),
        it.cpu_us_per_record.mean,
        it.bytes_per_record.mean,
        it.regime.name(),
    )
}

/// Microseconds in eight places.
fn us(value: f64) -> String {
    match value {
        it if it < 10.0 => format!("{it:.2}"),
        it if it < 99_999.5 => format!("{it:.0}"),
        it if it < 99_999_500.0 => format!("{:.0}ms", it / 1e3),
        it => format!("{:.0}s", it / 1e6),
    }
}
