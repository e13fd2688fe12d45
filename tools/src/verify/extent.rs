//! What the report for people says of what was checked, what not, and what can still be proven.

use crate::verify::provable::{By, Provable};
use crate::verify::report::{Report, Verdict};
use crate::verify::scope::{Kind, Removed, Span};
use crate::verify::text::count;
use std::io;

/// Rows and ranges that are printed before the rest is only counted.
const LISTED_MAX: usize = 20;

/// What was checked, one fact a line; nothing of a whole trail.
pub(crate) fn facts(
    report: &Report,
    fact: &mut impl FnMut(&str, String) -> io::Result<()>,
) -> io::Result<()> {
    let scope = &report.scope;
    if scope.kind == Kind::Trail {
        return Ok(());
    }
    fact("checked", rows(&scope.checked, scope.left_out))?;
    if !scope.joined.is_empty() {
        let names: Vec<&str> = scope.joined.iter().map(|file| name(file)).collect();
        fact("beside", format!("header and trailer of {}", names.join(" and ")))?;
    }
    if !scope.not_checked.is_empty() {
        fact("unchecked", rows(&scope.not_checked, 0))?;
    }
    Ok(())
}

/// What can still be proven, where that is not everything or not of everything.
pub(crate) fn provable(
    report: &Report,
    fact: &mut impl FnMut(&str, String) -> io::Result<()>,
) -> io::Result<()> {
    let wrong = matches!(report.verdict, Verdict::Damaged | Verdict::Unchecked);
    if report.scope.kind == Kind::Trail && !wrong {
        return Ok(());
    }
    if report.provable.is_empty() {
        return fact("provable", "nothing: no intact root covers intact records".into());
    }
    for range in report.provable.iter().take(LISTED_MAX) {
        fact("provable", one(range))?;
    }
    let more = report.provable.len().saturating_sub(LISTED_MAX) as u64 + report.provable_left_out;
    if more > 0 {
        fact("provable", format!("… and {}; `--json` lists them", count(more, "more range")))?;
    }
    Ok(())
}

fn one(range: &Provable) -> String {
    let Provable { seq, end_seq, size, root, by, file, signed_until } = range;
    let by = match by {
        By::Trailer => "the trailer of",
        By::Checkpoint => "a checkpoint in",
        By::NextHeader => "the header of",
    };
    let signed = match signed_until {
        None => String::new(),
        Some(until) if until == end_seq => ", signed".into(),
        Some(until) => format!(", signed up to seq {until}"),
    };
    let records = count(*size, "record");
    format!("seq {seq}..{end_seq} under root {root} over {records} in {by} {}{signed}", name(file))
}

/// How many records are intact of how much, and what that leaves out; `None` of a whole trail.
pub(crate) fn verdict(report: &Report) -> Option<(String, &'static str)> {
    let scope = &report.scope;
    let rest = match scope.kind {
        Kind::Trail => return None,
        Kind::Range if scope.not_checked.is_empty() => "which is all of the trail",
        Kind::Range => "the rest of the trail was not checked",
        Kind::Part => "what is not in this part of the trail was not checked",
    };
    let seqs = scope.seqs_checked().unwrap_or_default();
    let records = count(report.records.intact, "record");
    Some((format!("{records} of seq {}..{}", seqs.start, seqs.end), rest))
}

/// What retention has removed, for the verdict.
pub(crate) fn removed(report: &Report) -> String {
    let Some(it) = &report.scope.removed else { return String::new() };
    let Removed { first_segment, last_segment, end_seq: _, stated_by, time } = it;
    let segments = match last_segment {
        0 => "segment 0 was".to_owned(),
        last => format!("segments {first_segment} to {last} were"),
    };
    format!("; {segments} removed by retention at {time}, as seq {stated_by} says")
}

fn rows(spans: &[Span], left_out: u64) -> String {
    let mut texts: Vec<String> = spans.iter().take(LISTED_MAX).map(row).collect();
    let more = spans.len().saturating_sub(LISTED_MAX) as u64 + left_out;
    if more > 0 {
        texts.push(format!("{more} more"));
    }
    if texts.is_empty() { "nothing".into() } else { texts.join(", ") }
}

fn row(span: &Span) -> String {
    let first = span.first_segment;
    let segments = match span.last_segment {
        None => format!("segment {first} and later"),
        Some(last) if last == first => format!("segment {first}"),
        Some(last) => format!("segments {first} to {last}"),
    };
    match span.end_seq {
        Some(end) => format!("seq {}..{end} ({segments})", span.seq),
        None => format!("seq {}.. ({segments})", span.seq),
    }
}

fn name(file: &str) -> &str {
    file.rsplit_once('/').map_or(file, |(_, name)| name)
}
