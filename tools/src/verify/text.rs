//! The report for people: what is wrong, one after the other; then what is certain; then the verdict.

use crate::diag::{Diagnostic, Level};
use crate::verify::gaps::SourceGap;
use crate::verify::report::{Class, Loss, Problem, Report, Verdict};
use crate::verify::scope::Kind;
use crate::verify::{extent, signing};
use anstyle::{AnsiColor, Style};
use std::io::{self, Write};

/// Problems and loss statements that are printed before the rest is only counted: who needs them
/// all asks for JSON.
const LISTED_MAX: usize = 100;

/// Writes the report with colours; `out` takes them away where they do not belong.
///
/// # Errors
/// What `out` says.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    for problem in report.problems.iter().take(LISTED_MAX) {
        diagnostic(problem).write(out)?;
        writeln!(out)?;
    }
    let unlisted =
        report.problems.len().saturating_sub(LISTED_MAX) as u64 + report.problems_left_out;
    if unlisted > 0 {
        writeln!(out, "… and {unlisted} more problems; `--json` lists them\n")?;
    }
    for loss in report.losses.statements.iter().take(LISTED_MAX) {
        loss_diagnostic(loss).write(out)?;
        writeln!(out)?;
    }
    let unlisted = report.losses.count.saturating_sub(LISTED_MAX as u64);
    if unlisted > 0 {
        writeln!(out, "… and {unlisted} more loss statements; `--json` lists them\n")?;
    }
    for gap in report.source_gaps.gaps.iter().take(LISTED_MAX) {
        gap_diagnostic(gap).write(out)?;
        writeln!(out)?;
    }
    let unlisted = report.source_gaps.count.saturating_sub(LISTED_MAX as u64);
    if unlisted > 0 {
        writeln!(out, "… and {unlisted} more source gaps; `--json` lists them\n")?;
    }
    facts(report, out)?;
    verdict(report, out)
}

fn diagnostic(problem: &Problem) -> Diagnostic {
    let level = match problem.class {
        Class::Damage | Class::Unsupported | Class::Unchecked => Level::Error,
        Class::Tail => Level::Warning,
        Class::ForeignFile => Level::Warning,
    };
    let mut diagnostic = Diagnostic::new(level, problem.message.clone());
    let mut place = Vec::new();
    if let Some(offset) = problem.offset {
        place.push(format!("offset {offset:#x}"));
    }
    if let Some(len) = problem.len.filter(|len| *len > 0) {
        place.push(format!("{len} bytes"));
    }
    if let Some(seq) = problem.seq {
        place.push(match problem.missing {
            0 => format!("seq {seq}"),
            missing => format!("seq {seq}..{}", seq.saturating_add(missing)),
        });
    }
    let place = place.join(", ");
    match &problem.file {
        Some(file) if place.is_empty() => diagnostic = diagnostic.at(file.clone()),
        Some(file) => diagnostic = diagnostic.at(format!("{file}: {place}")),
        None if place.is_empty() => {}
        None => diagnostic = diagnostic.at(place),
    }
    if problem.missing > 0 {
        diagnostic = diagnostic.note(format!("{} missing here", count(problem.missing, "record")));
    }
    match (&problem.before, &problem.after) {
        (Some(before), Some(after)) => {
            let text = format!(
                "between seq {} of {} and seq {} of {}",
                before.seq, before.time, after.seq, after.time
            );
            diagnostic = diagnostic.note(text);
        }
        (Some(before), None) => {
            let text = format!(
                "the last intact record before it is seq {} of {}",
                before.seq, before.time
            );
            diagnostic = diagnostic.note(text);
        }
        (None, Some(after)) => {
            let text =
                format!("the first intact record after it is seq {} of {}", after.seq, after.time);
            diagnostic = diagnostic.note(text);
        }
        (None, None) => {}
    }
    if problem.class == Class::Tail {
        diagnostic = diagnostic.note(
            "nothing in it was announced durable: a write was cut off, which the next start of the \
             writer cleans up",
        );
    }
    for note in &problem.notes {
        diagnostic = diagnostic.note(note.clone());
    }
    match problem.help {
        Some(help) => diagnostic.help(help),
        None => diagnostic,
    }
}

fn loss_diagnostic(loss: &Loss) -> Diagnostic {
    let Some(it) = &loss.statement else {
        return Diagnostic::warning("a loss statement that cannot be read")
            .at(format!("seq {}, stated {}", loss.seq, loss.time));
    };
    let certainty = if it.certainty == "exactly" { "" } else { "at least " };
    let amount = match (it.count, it.certainty) {
        (0, "at-least") => format!("{} may be missing", it.unit),
        (1, _) => format!("{certainty}1 {} is missing", it.unit.trim_end_matches('s')),
        (count, _) => format!("{certainty}{count} {} are missing", it.unit),
    };
    let mut diagnostic =
        Diagnostic::warning(format!("{amount} from source {}: {}", it.source, it.cause))
            .at(format!("seq {}, stated {}", loss.seq, loss.time));
    if let Some((first, last)) = it.range {
        diagnostic = diagnostic.note(format!("the source's own numbers {first} to {last}"));
    }
    if let Some((from, to)) = &it.between {
        diagnostic = diagnostic.note(format!("between {from} and {to}"));
    }
    diagnostic
}

fn gap_diagnostic(gap: &SourceGap) -> Diagnostic {
    let SourceGap { source, ring, first, last, events, seq, time } = gap;
    let are = if *events == 1 { "is" } else { "are" };
    let missing = count(*events, if ring.is_some() { "part" } else { "event" });
    let of_ring = ring.map_or(String::new(), |ring| format!(" of ring {ring}"));
    Diagnostic::warning(format!("{missing} {are} missing from source {source} and not stated"))
        .at(format!("it shows at seq {seq} of {time}"))
        .note(format!("the source's own numbers {first} to {last}{of_ring} say so"))
        .help("the writer did not see it, or did not say so: look at what else was recorded then")
}

/// What is certain, one fact a line.
fn facts(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let mut fact = |name: &str, text: String| {
        let strong = Style::new().bold();
        writeln!(out, "{strong}{name:<10}{strong:#}{text}")
    };
    let id = report.trail_id.as_deref().unwrap_or("unknown");
    fact("trail", format!("{}, id {id}", report.trail))?;
    extent::facts(report, &mut fact)?;
    if let Some(created) = &report.created {
        fact("created", created.clone())?;
    }
    if let Some(writer) = &report.writer {
        let pid = writer.pid.map_or(String::new(), |pid| format!(", pid {pid}"));
        fact("writer", format!("running{pid}; what it has in flight is not judged"))?;
    } else if let Some(label) = report.recovery {
        let text = match label {
            "fresh" => "no segment was ever made",
            "sealed" => "sealed: the writer stopped cleanly",
            "refused" => "a writer would refuse to go on here: this is evidence",
            _ => "the writer did not stop cleanly; the next start puts this in order",
        };
        let text = if matches!(label, "sealed" | "refused") {
            text.to_owned()
        } else {
            format!("{label}: {text}")
        };
        fact("end", text)?;
    }
    let segments = report.segments;
    let text = format!("{}, {} sealed, {}", segments.count, segments.sealed, bytes(segments.bytes));
    fact("segments", text)?;
    let records = &report.records;
    let start = report.scope.seqs_checked().filter(|_| report.scope.kind != Kind::Trail);
    let start = start.map_or(begin(report), |seqs| seqs.start);
    fact("records", format!("{} intact of seq {start}..{}", records.intact, records.end_seq))?;
    if records.best_effort > 0 {
        let text = count(records.best_effort, "record");
        fact("imported", format!("{text}, best effort: auditd and multicast may drop unsaid"))?;
    }
    if let (Some(first), Some(last)) = (&records.time_first, &records.time_last) {
        fact("time", format!("{first} to {last}"))?;
    }
    if let Some(root) = &report.root {
        fact("root", format!("{} over {}", root.hash, count(root.size, "record")))?;
    }
    signing::facts(report, &mut fact)?;
    extent::provable(report, &mut fact)?;
    if records.missing > 0 {
        fact("missing", count(records.missing, "record"))?;
    }
    if records.unannounced > 0 {
        let text = count(records.unannounced, "intact record");
        fact("in doubt", format!("{text} after the end, never announced durable"))?;
    }
    if report.losses.count > 0 {
        fact("losses", count(report.losses.count, "loss statement"))?;
    }
    sources(report, &mut fact)?;
    if report.clock.boots.len() > 1 {
        let boots = report.clock.boots.len() as u64 + report.clock.boots_left_out;
        fact("boots", format!("{boots}; `--json` lists them"))?;
    }
    for step in report.clock.steps.iter().take(LISTED_MAX) {
        let way = if step.step_ns < 0 { "back" } else { "forwards" };
        let seconds = step.step_ns.unsigned_abs() as f64 / 1e9;
        let text = format!("set {way} by {seconds:.3} s before seq {} of {}", step.seq, step.time);
        fact("clock", text)?;
    }
    let unlisted =
        report.clock.steps.len().saturating_sub(LISTED_MAX) as u64 + report.clock.steps_left_out;
    if unlisted > 0 {
        fact("clock", format!("{} more; `--json` lists them", count(unlisted, "step")))?;
    }
    for temporary in &report.temporary_files {
        fact("temporary", format!("{temporary}: holds nothing that was announced"))?;
    }
    Ok(())
}

/// What the numbers of the sources say.
fn sources(
    report: &Report,
    fact: &mut dyn FnMut(&str, String) -> io::Result<()>,
) -> io::Result<()> {
    let gaps = &report.source_gaps;
    let judged = [
        (gaps.sessions, "of kernel audit by serials"),
        (gaps.shim_sessions, "of the kernel shim by the numbers of its rings"),
    ];
    let judged: Vec<String> = judged
        .iter()
        .filter(|(sessions, _)| *sessions > 0)
        .map(|(sessions, what)| format!("{} {what}", count(*sessions, "session")))
        .collect();
    if judged.is_empty() {
        return Ok(());
    }
    let mut text = judged.join(", ") + ": ";
    text += &match gaps.count {
        0 => "nothing is missing that is not stated".to_owned(),
        _ => format!("{} missing and not stated", count(gaps.events, "event")),
    };
    let without_end = gaps.without_end + gaps.shim_without_end;
    if without_end > 0 {
        text += &format!("; {without_end} without an end, not judged behind the last mark");
    }
    if gaps.not_judged > 0 {
        text += "; not judged around what was not read";
    }
    fact("sources", text)
}

fn verdict(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let records = &report.records;
    let part = extent::verdict(report);
    let all = count(records.intact, "record");
    let (complete, prefix, help) = match &part {
        Some((records, rest)) => {
            (format!("{records}; {rest}"), format!("{records} are intact"), *rest)
        }
        None => (
            format!("{all}, complete from seq {} on{}", begin(report), extent::removed(report)),
            format!("seq {}..{} is intact", begin(report), records.intact_prefix),
            "`graven export` writes every record that is",
        ),
    };
    let (color, text) = match report.verdict {
        Verdict::Intact => (AnsiColor::Green, format!("intact: {complete}")),
        Verdict::Damaged => (AnsiColor::Red, format!("DAMAGED: {prefix}; {help}")),
        Verdict::Unchecked => {
            let text = "no damage was found in what could be read";
            (AnsiColor::Yellow, format!("NOT CHECKED in full: {prefix}; {text}"))
        }
        Verdict::Losses => {
            let losses = count(report.losses.count, "loss statement");
            let unsaid = count(report.source_gaps.events, "event");
            let text = match (report.losses.count, report.source_gaps.count) {
                (_, 0) => format!("{all} as written; what never arrived is said in {losses}"),
                (0, _) => format!("{all} as written; {unsaid} never arrived, and nothing says so"),
                _ => format!(
                    "{all} as written; what never arrived is said in {losses}, but for {unsaid}"
                ),
            };
            let rest =
                part.map_or_else(|| extent::removed(report), |(_, rest)| format!("; {rest}"));
            (AnsiColor::Yellow, format!("intact, with losses: {text}{rest}"))
        }
        Verdict::TornTail => {
            let text = "what follows was never announced";
            (AnsiColor::Yellow, format!("intact, with a torn tail: {complete}; {text}"))
        }
    };
    let style = color.on_default().bold();
    writeln!(out, "{style}verdict   {text} (exit code {}){style:#}", report.exit_code)
}

/// The seq that the trail begins with.
fn begin(report: &Report) -> u64 {
    report.scope.removed.as_ref().map_or(0, |removed| removed.end_seq)
}

/// `1 record`, `2 records`.
pub(crate) fn count(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// Bytes for people.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut text = format!("{bytes} bytes");
    for unit in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        text = format!("{value:.1} {unit}");
    }
    text
}
