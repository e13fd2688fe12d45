//! The report as tables for people.

use super::calls::NAMES;
use super::report::{Cell, Report, Row};
use std::io::{self, Write};

/// Writes them.
///
/// # Errors
/// What `out` says.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let (asked, machine) = (&report.asked, &report.about.machine);
    writeln!(
        out,
        "{}, {} processors, Linux {}, {}; medians of {} rounds, {} s a call",
        machine.processor.as_deref().unwrap_or(&machine.architecture),
        machine.processors,
        machine.kernel,
        machine.filesystem.as_deref().unwrap_or("a filesystem that is not known"),
        asked.repetitions,
        asked.seconds,
    )?;
    if let Some(why) = &report.kernel_audit_as_found {
        writeln!(out, "kernel audit cannot be set, `off` is the machine as it is: {why}")?;
    }
    write!(out, "\n{:<26}", "µs a call")?;
    for name in NAMES {
        write!(out, " {name:>10}")?;
    }
    writeln!(out, " {:>10}", "behind, s")?;
    for row in &report.rows {
        calls(row, out)?;
    }
    writeln!(out, "\n{:<26} {:>10} {:>10} {:>10}", "build", "seconds", "speed", "2004")?;
    for row in &report.rows {
        build(row, out)?;
    }
    writeln!(
        out,
        "\n{:<26} {:>10} {:>10} {:>10}  trails",
        "null calls", "made", "recorded", "lost"
    )?;
    for row in &report.rows {
        recorded(row, out)?;
    }
    writeln!(
        out,
        "\nof off, speed: medians of the rounds' ratios. behind: from the end of the calls until the daemon had everything.\n\
         seconds: of {} C files, one after the other, {} s at most; ~ is extrapolated from the steps done by then. lost: by the\n\
         kernel's count. 2004: {}. Where it has no figure there is none here.",
        asked.files, asked.build_limit_s, report.source_of_2004
    )
}

fn calls(row: &Row, out: &mut dyn Write) -> io::Result<()> {
    if let Some(Cell::Not { reason }) = row.calls.first().map(|it| &it.us) {
        writeln!(out, "{:<26} not measured: {reason}", row.condition)?;
    } else {
        let behind = row.behind_s.as_ref().and_then(Cell::median);
        let figures = row.calls.iter().map(|it| it.us.median());
        line(row.condition, figures.chain([behind]), out)?;
        if row.calls.iter().any(|it| it.us.ratio().is_some()) {
            line("  of off", row.calls.iter().map(|it| it.us.ratio()), out)?;
        }
    }
    if row.calls.iter().any(|it| it.us_2004.is_some()) {
        line("  2004", row.calls.iter().map(|it| it.us_2004), out)?;
    }
    Ok(())
}

fn line(
    name: &str,
    figures: impl Iterator<Item = Option<f64>>,
    out: &mut dyn Write,
) -> io::Result<()> {
    write!(out, "{name:<26}")?;
    for figure in figures {
        write!(out, " {:>10}", figure.map_or(String::new(), digits))?;
    }
    writeln!(out)
}

fn build(row: &Row, out: &mut dyn Write) -> io::Result<()> {
    let it = &row.build;
    let factor = |of: Option<f64>| of.map_or(String::new(), |it| format!("{it:.3}"));
    let then = factor(it.speed_2004);
    match &it.seconds {
        Cell::Not { reason } => {
            writeln!(
                out,
                "{:<26} {:>10} {:>10} {then:>10}  not measured: {reason}",
                row.condition, "", ""
            )
        }
        Cell::Figure { median, .. } => {
            let mark = if it.done < it.steps { "~" } else { "" };
            let seconds = format!("{mark}{median:.2}");
            writeln!(out, "{:<26} {seconds:>10} {:>10} {then:>10}", row.condition, factor(it.speed))
        }
    }
}

fn recorded(row: &Row, out: &mut dyn Write) -> io::Result<()> {
    let Some(it) = &row.recorded else { return Ok(()) };
    let trails = match &it.verified[..] {
        [] => "",
        codes if codes.iter().all(|code| *code == 0) => "complete and intact",
        _ => "NOT complete and intact",
    };
    let (condition, made) = (row.condition, it.null_calls);
    writeln!(out, "{condition:<26} {made:>10} {:>10} {:>10}  {trails}", it.recorded, it.lost)
}

/// Three digits.
fn digits(it: f64) -> String {
    match it {
        it if it < 10.0 => format!("{it:.2}"),
        it if it < 100.0 => format!("{it:.1}"),
        it => format!("{it:.0}"),
    }
}
