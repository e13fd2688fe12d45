//! What the report for people says of keys, checkpoints and anchors.

use crate::escape::Escaped;
use crate::verify::anchors::Status;
use crate::verify::report::Report;
use crate::verify::text::count;
use std::io;

/// Unknown cosigners that are named.
const NAMES_MAX: usize = 16;

/// Each fact has a name and a text.
pub(crate) fn facts(
    report: &Report,
    fact: &mut impl FnMut(&str, String) -> io::Result<()>,
) -> io::Result<()> {
    let signatures = &report.signatures;
    match &signatures.key {
        None => fact("signed", "not signed: nothing says who wrote it".into())?,
        Some(key) => {
            let word = if signatures.key_given { "as given" } else { "by the trail's own word" };
            fact("key", format!("{key}, {word}"))?;
            if let Some((first, last)) = signatures.epochs.filter(|(first, last)| first != last) {
                fact("keys", format!("epochs {first} to {last}, each signed by the one before"))?;
            }
            fact("signed", signed(report))?;
        }
    }
    anchors(report, fact)
}

fn signed(report: &Report) -> String {
    let signatures = &report.signatures;
    let mut text = count(signatures.checked, "checkpoint");
    match &signatures.newest {
        Some(newest) => {
            let records = count(newest.size, "record");
            text += &format!(", the newest of {} over {records}", newest.time);
        }
        None => text += ", none of which can be relied on",
    }
    if signatures.uncovered > 0 {
        text += &format!("; {} after it under no signature", count(signatures.uncovered, "record"));
    }
    if signatures.unchecked > 0 {
        text += &format!("; {} not judged", signatures.unchecked);
    }
    text
}

fn anchors(
    report: &Report,
    fact: &mut impl FnMut(&str, String) -> io::Result<()>,
) -> io::Result<()> {
    let anchors = &report.anchors;
    if anchors.checked.is_empty() {
        return Ok(());
    }
    let good = anchors.checked.iter().filter(|it| it.status == Status::Consistent).count();
    let all = count(anchors.checked.len() as u64, "checkpoint");
    let unchecked = anchors.checked.iter().filter(|it| it.status == Status::NotChecked).count();
    let proven = count(anchors.proven, "record");
    let mut text = format!("{good} of {all} kept elsewhere fit, up to {proven}");
    if unchecked > 0 {
        text += &format!("; {unchecked} end outside of what was checked");
    }
    fact("anchors", text)?;
    if let Some(fork) = &anchors.fork {
        let (start, last) = (fork.start, fork.end.saturating_sub(1));
        fact(
            "fork",
            format!("the first record that was replaced is one of seq {start} to {last}"),
        )?;
    }
    witnesses(report, fact)
}

fn witnesses(
    report: &Report,
    fact: &mut impl FnMut(&str, String) -> io::Result<()>,
) -> io::Result<()> {
    let anchors = &report.anchors;
    for witness in &anchors.witnesses {
        let name = Escaped(witness.name.as_bytes());
        let text = match (witness.size, &witness.time) {
            (Some(size), Some(time)) => {
                let of = count(witness.checkpoints, "checkpoint");
                format!("{name} saw {} at {time}; {of} cosigned", count(size, "record"))
            }
            _ => format!("{name} has cosigned none of the checkpoints that fit"),
        };
        fact("witness", text)?;
    }
    if let (Some(size), true) = (anchors.witnessed, anchors.witnesses.len() > 1) {
        fact("witnessed", format!("the first {} by as many as must", count(size, "record")))?;
    }
    let mut unknown: Vec<&str> =
        anchors.checked.iter().flat_map(|it| &it.unknown).map(String::as_str).collect();
    unknown.sort_unstable();
    unknown.dedup();
    if !unknown.is_empty() {
        let names: Vec<String> =
            unknown.iter().take(NAMES_MAX).map(|it| Escaped(it.as_bytes()).to_string()).collect();
        let more = if unknown.len() > NAMES_MAX { ", …" } else { "" };
        let text = format!("{}{more}: cosigners whose keys were not given", names.join(", "));
        fact("unknown", text)?;
    }
    Ok(())
}
