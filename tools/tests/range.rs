//! `graven verify` of a range, of single segments and parts of a trail, and what it says is provable
//! after damage.

mod common;

use common::{Maker, Ran, TIME_NS, graven, loss_payload, on};
use graven_format::loss::LossStatement;
use graven_format::name;
use graven_format::trailer::SealReason;
use graven_tools::time::rfc3339;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::Path;

/// Verifies, as JSON and as text, which end alike.
fn verify(dir: &Path, args: &[&str]) -> (i32, Value) {
    let text = on("verify", dir, args);
    let ran = on("verify", dir, &[args, &["--json"]].concat());
    assert_eq!(text.code, ran.code, "{}", text.text());
    (ran.code, ran.json())
}

fn words(report: &Value) -> Vec<&str> {
    let problems = report["problems"].as_array().expect("a list");
    problems.iter().map(|it| it["kind"].as_str().expect("a word")).collect()
}

/// Segments as files.
fn files(files: &[&Path], args: &[&str]) -> Ran {
    let mut all = vec![OsString::from("verify")];
    all.extend(files.iter().map(OsString::from));
    all.extend(args.iter().map(OsString::from));
    graven(all)
}

/// A copy of these segments in a directory of their own, without an identity.
fn part(maker: &Maker, segments: &[usize]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for segment in segments {
        let path = &maker.segments[*segment].path;
        std::fs::copy(path, dir.path().join(path.file_name().expect("a name"))).expect("a copy");
    }
    dir
}

fn span(first: u64, last: impl Into<Value>, seq: u64, end: impl Into<Value>) -> Value {
    json!({"first_segment": first, "last_segment": last.into(), "seq": seq, "end_seq": end.into()})
}

/// First, end and what states the root of each range that is provable.
fn provable(report: &Value) -> Vec<(u64, u64, &str)> {
    let ranges = report["provable"].as_array().expect("a list").iter();
    let number = |it: &Value| it.as_u64().expect("a number");
    ranges
        .map(|it| (number(&it["seq"]), number(&it["end_seq"]), it["by"].as_str().expect("a word")))
        .collect()
}

#[test]
fn a_range_says_what_was_checked_and_what_not() {
    let maker = Maker::sealed(10, 2);
    let (code, report) = verify(maker.path(), &["--seq", "13..20"]);
    assert_eq!((code, &report["verdict"]), (0, &"intact".into()), "{report:#}");
    let scope = &report["scope"];
    assert_eq!(
        (&scope["kind"], &scope["seqs"]),
        (&"range".into(), &json!({"start": 13, "end": 20}))
    );
    assert_eq!(scope["checked"], json!([span(2, 3, 12, 24)]));
    assert_eq!(
        scope["not_checked"],
        json!([span(0, 1, 0, 12), span(4, Value::Null, 24, Value::Null)])
    );
    let joined = scope["joined"].as_array().expect("a list");
    for (file, segment) in joined.iter().zip([1, 4]) {
        let name = maker.segments[segment].path.to_str().expect("text");
        assert_eq!(file, name);
    }
    assert_eq!((joined.len(), &scope["end_checked"]), (2, &false.into()));
    assert_eq!((&report["root"], &report["recovery"]), (&Value::Null, &Value::Null));
    assert_eq!(
        (&report["records"]["intact"], &report["records"]["end_seq"]),
        (&12.into(), &24.into())
    );
    assert_eq!(report["records"]["intact_prefix"], 0);
    let text = on("verify", maker.path(), &["--seq", "13..20"]).text();
    assert!(text.contains("checked   seq 12..24 (segments 2 to 3)"), "{text}");
    assert!(
        text.contains("unchecked seq 0..12 (segments 0 to 1), seq 24.. (segment 4 and later)"),
        "{text}"
    );
    assert!(
        text.contains("intact: 12 records of seq 12..24; the rest of the trail was not checked"),
        "{text}"
    );
    // Of all of it nothing is said that is not needed.
    let text = on("verify", maker.path(), &[]).text();
    assert!(!text.contains("checked") && !text.contains("provable"), "{text}");
}

#[test]
fn every_range_takes_the_segments_that_hold_it() {
    let maker = Maker::sealed(6, 1);
    for start in 0..18 {
        for end in start + 1..=18 {
            let (code, report) = verify(maker.path(), &["--seq", &format!("{start}..{end}")]);
            assert_eq!(code, 0, "{report:#}");
            let (mut first, mut last) = (start / 3, (end - 1) / 3);
            if last >= 4 {
                // The last two are judged together.
                (first, last) = (first.min(4), 5);
            }
            let expected = span(first, last, 3 * first, 3 * last + 3);
            assert_eq!(report["scope"]["checked"], json!([expected]), "{start}..{end}");
            assert_eq!(report["scope"]["end_checked"], last == 5);
        }
    }
}

#[test]
fn damage_in_the_segments_of_the_range_counts_and_elsewhere_only_at_the_ends() {
    let maker = Maker::sealed(7, 2);
    let frame = maker.segments[0].frames[0].offset + 100;
    // Segments 2 and 3 hold the range, 1 and 4 join them.
    for segment in 0..7 {
        let trailer = maker.segments[segment].trailer_offset.expect("sealed") + 40;
        for (offset, within) in [(40, 2..=4), (frame, 2..=3), (trailer, 1..=3)] {
            // A neighbour's header is read with its trailer.
            let expected = within.contains(&segment) || offset == 40 && segment == 1;
            maker.flip(segment, offset);
            let (code, report) = verify(maker.path(), &["--seq", "12..24"]);
            assert_eq!(code, i32::from(expected), "segment {segment} {offset:#x} {report:#}");
            maker.flip(segment, offset);
        }
    }
}

#[test]
fn a_neighbour_that_is_gone_or_of_another_history_is_damage() {
    for (gone, code) in [(0, 0), (1, 1), (2, 1), (4, 1), (5, 0)] {
        let maker = Maker::sealed(8, 2);
        std::fs::remove_file(&maker.segments[gone].path).expect("removed");
        let (found, report) = verify(maker.path(), &["--seq", "13..24"]);
        assert_eq!(found, code, "{gone} {report:#}");
        if code == 1 {
            assert_eq!(words(&report), ["missing-segment"], "{gone}");
        }
    }
    for other in [1, 4] {
        let maker = Maker::sealed(8, 2);
        let mut forged = Maker::new();
        for _ in 0..8 {
            forged.frames(1);
            forged.frame(&[0, 1, 2].map(|n| common::stdin(n, b"forged")));
            forged.seal(SealReason::Full);
        }
        std::fs::copy(&forged.segments[other].path, &maker.segments[other].path).expect("replaced");
        let (code, report) = verify(maker.path(), &["--seq", "12..24"]);
        assert_eq!((code, words(&report)), (1, vec!["chain", "root"]), "{report:#}");
    }
}

#[test]
fn the_end_of_the_trail_is_judged_where_the_range_touches_it() {
    let mut maker = Maker::sealed(4, 2);
    maker.announced = Some(24);
    maker.frames(2);
    maker.flip(4, maker.segments[4].frames[1].offset + 200);
    for (range, code) in [("0..5", 0), ("0..18", 0), ("20..24", 3), ("24..27", 3), ("..", 3)] {
        assert_eq!(verify(maker.path(), &["--seq", range]).0, code, "{range}");
    }
    // Of what is not there nothing can be said.
    for (range, code) in [("24..28", 2), ("27", 2), ("27..", 3), ("28..", 2), ("99..", 2)] {
        let (found, report) = verify(maker.path(), &["--seq", range]);
        assert_eq!(found, code, "{range} {report:#}");
    }
    // Nor of a number that lies elsewhere.
    assert_eq!(verify(maker.path(), &["--seq", "0..5", "--durable", "3"]).0, 2);
    assert_eq!(verify(maker.path(), &["--seq", "24..27", "--durable", "3"]).0, 3);
    assert_eq!(verify(maker.path(), &["--seq", "24..27", "--durable", "30"]).0, 1);
}

#[test]
fn since_takes_what_is_not_older_and_losses_count_in_the_range() {
    let mut maker = Maker::sealed(4, 2);
    let payload = loss_payload();
    let time = |seq: u64| TIME_NS + seq * 1_000_000;
    maker.frame(&[LossStatement::record(&payload, time(24), 24)]);
    maker.seal(SealReason::Full);
    for _ in 0..3 {
        maker.frames(2);
        maker.seal(SealReason::Full);
    }
    let since = |seq| rfc3339(time(seq));
    for (seq, first, code) in
        [(0, 0, 4), (11, 1, 4), (12, 2, 4), (24, 4, 4), (25, 5, 0), (36, 6, 0)]
    {
        let (found, report) = verify(maker.path(), &["--since", &since(seq)]);
        assert_eq!(found, code, "{seq} {report:#}");
        assert_eq!(report["scope"]["checked"][0]["first_segment"], first, "{seq}");
        assert_eq!(report["scope"]["since"], since(seq));
    }
    // In a segment that is read whole, but not in the range.
    assert_eq!(verify(maker.path(), &["--seq", "24"]).0, 4);
    assert_eq!(verify(maker.path(), &["--seq", "25..31"]).0, 0);
    assert_eq!(verify(maker.path(), &["--seq", "0..30", "--since", &since(20)]).0, 4);
    assert_eq!(verify(maker.path(), &["--since", "2099-01-01"]).0, 0);
    assert_eq!(on("verify", maker.path(), &["--since", "yesterday"]).code, 2);
    // A trailer that cannot be read hides nothing.
    maker.flip(1, maker.segments[1].trailer_offset.expect("sealed") + 40);
    assert_eq!(verify(maker.path(), &["--since", &since(25)]).0, 1);
}

#[test]
fn a_segment_by_itself() {
    let maker = Maker::sealed(5, 2);
    let dir = part(&maker, &[2]);
    let path = dir.path().join(maker.segments[2].path.file_name().expect("a name"));
    let ran = files(&[&path], &["--json"]);
    let report = ran.json();
    assert_eq!((ran.code, &report["verdict"]), (0, &"intact".into()), "{report:#}");
    assert_eq!(report["scope"]["kind"], "part");
    assert_eq!(report["scope"]["checked"], json!([span(2, 2, 12, 18)]));
    assert_eq!(
        report["scope"]["not_checked"],
        json!([span(0, 1, 0, 12), span(3, Value::Null, 18, Value::Null)])
    );
    assert_eq!(report["trail_id"], maker.trail_id.to_string());
    assert_eq!(provable(&report), [(12, 18, "trailer")]);
    assert_eq!(report["provable"][0]["root"], graven_tools::verify::report::hex(&maker.root(18)));
    let text = files(&[&path], &[]).text();
    assert!(text.contains("intact: 6 records of seq 12..18; what is not in this part"), "{text}");
    // Wherever it is damaged: never intact, and never a torn tail, which only a trail's end has.
    let len = std::fs::metadata(&path).expect("a file").len();
    let intact = std::fs::read(&path).expect("its bytes");
    for offset in (0..len).step_by(251) {
        let mut bytes = intact.clone();
        bytes[offset as usize] ^= 4;
        std::fs::write(&path, bytes).expect("written");
        let code = files(&[&path], &["--quiet"]).code;
        assert!(matches!(code, 1 | 2), "{offset:#x}: {code}");
    }
    for cut in [0, 1, 511, 4096, 5000, len - 1] {
        std::fs::write(&path, &intact[..cut as usize]).expect("written");
        let code = files(&[&path], &["--quiet"]).code;
        assert!(matches!(code, 1 | 2), "{cut}: {code}");
    }
}

#[test]
fn files_need_their_names_and_one_directory() {
    let maker = Maker::sealed(3, 2);
    let [zero, one, two] = [0, 1, 2].map(|it| maker.segments[it].path.as_path());
    let ran = files(&[two, one, one], &["--json"]);
    assert_eq!((ran.code, &ran.json()["scope"]["checked"]), (0, &json!([span(1, 2, 6, 18)])));
    let other = part(&maker, &[1]);
    let elsewhere = other.path().join(one.file_name().expect("a name"));
    let ran = files(&[zero, &elsewhere], &[]);
    assert!(ran.code == 2 && ran.stderr.contains("several directories"), "{}", ran.stderr);
    let renamed = other.path().join("evidence.bin");
    std::fs::rename(&elsewhere, &renamed).expect("renamed");
    let ran = files(&[&renamed], &[]);
    assert!(ran.code == 2 && ran.stderr.contains(&name::segment(1, 6)), "{}", ran.stderr);
    let ran = files(&[&other.path().join(name::segment(7, 7))], &[]);
    assert!(ran.code == 2 && ran.stderr.contains("No such file"), "{}", ran.stderr);
    assert_eq!(files(&[maker.path(), zero], &[]).code, 2);
}

#[test]
fn a_part_may_have_gaps_but_no_contradiction() {
    let maker = Maker::sealed(8, 2);
    let dir = part(&maker, &[2, 3, 6]);
    assert_eq!(verify(dir.path(), &[]).0, 1);
    let (code, report) = verify(dir.path(), &["--part"]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["scope"]["checked"], json!([span(2, 3, 12, 24), span(6, 6, 36, 42)]));
    let between = [span(0, 1, 0, 12), span(4, 5, 24, 36), span(7, Value::Null, 42, Value::Null)];
    assert_eq!(report["scope"]["not_checked"], json!(between));
    assert_eq!(provable(&report), [(12, 24, "trailer"), (36, 42, "trailer")]);
    assert_eq!(verify(dir.path(), &["--part", "--seq", "14..20"]).0, 0);
    assert_eq!(verify(dir.path(), &["--part", "--seq", "20..30"]).0, 2);
    // A segment of another trail among them.
    let mut other = Maker::new();
    other.trail_id = graven_format::TrailId([9; 16]);
    for _ in 0..6 {
        other.frames(2);
        other.seal(SealReason::Full);
    }
    let path = &other.segments[5].path;
    std::fs::copy(path, dir.path().join(path.file_name().expect("a name"))).expect("a copy");
    let (code, report) = verify(dir.path(), &["--part"]);
    assert!(code == 1 && words(&report).contains(&"misplaced"), "{report:#}");
}

#[test]
fn keys_of_a_range_follow_from_the_first_and_of_a_part_where_they_can() {
    let mut maker = Maker::new();
    maker.key = Some(maker.secret(1));
    for seed in 2..6 {
        maker.frames(1);
        maker.checkpoint(Some(maker.secret(seed)));
        maker.frames(1);
        maker.seal(SealReason::Full);
    }
    maker.frames(1);
    maker.seal(SealReason::Stop);
    let key = |seed| maker.secret(seed).public().to_string();
    for range in ["0..5", "9..10", "14..20", ".."] {
        let (code, report) = verify(maker.path(), &["--seq", range, "--key", &key(1)]);
        assert_eq!((code, &report["signatures"]["key_given"]), (0, &true.into()), "{report:#}");
        assert_ne!(verify(maker.path(), &["--seq", range, "--key", &key(9)]).0, 0);
    }
    let dir = part(&maker, &[2]);
    // Nothing leads from the first key here: the key of the place is the one to give.
    for (args, code) in [(vec![], 0), (vec![key(3)], 0), (vec![key(1)], 2)] {
        let mut all = vec!["--part"];
        args.iter().for_each(|key: &String| all.extend(["--key", key]));
        let (found, report) = verify(dir.path(), &all);
        assert_eq!(found, code, "{report:#}");
    }
    let dir = part(&maker, &[0, 2]);
    assert_eq!(verify(dir.path(), &["--part"]).0, 2);
    let dir = part(&maker, &[0, 1]);
    assert_eq!(verify(dir.path(), &["--part", "--key", &key(1)]).0, 0);
}

#[test]
fn what_remains_provable_after_damage() {
    let maker = Maker::sealed(5, 4);
    assert_eq!(provable(&verify(maker.path(), &[]).1), [(0, 60, "trailer")]);
    let frame = maker.segments[1].frames[2];
    maker.flip(1, frame.offset + 100);
    let (_, report) = verify(maker.path(), &[]);
    assert_eq!(provable(&report), [(0, 12, "trailer"), (24, 60, "trailer")]);
    for range in report["provable"].as_array().expect("a list") {
        let end = range["end_seq"].as_u64().expect("a number");
        assert_eq!(range["root"], graven_tools::verify::report::hex(&maker.root(end)));
    }
    assert_eq!(report["problems"][0]["segment"], 1);
    let text = on("verify", maker.path(), &[]).text();
    assert!(text.contains("provable  seq 0..12 under root"), "{text}");
    maker.flip(1, frame.offset + 100);
    // Without its trailer the next header covers a segment; the last one has none.
    maker.flip(1, maker.segments[1].trailer_offset.expect("sealed") + 40);
    assert_eq!(provable(&verify(maker.path(), &[]).1), [(0, 60, "trailer")]);
    maker.flip(2, 40);
    assert_eq!(provable(&verify(maker.path(), &[]).1), [(0, 12, "trailer"), (36, 60, "trailer")]);
    std::fs::remove_file(&maker.segments[3].path).expect("removed");
    assert_eq!(provable(&verify(maker.path(), &[]).1), [(0, 12, "trailer"), (48, 60, "trailer")]);
}

#[test]
fn a_signed_checkpoint_covers_what_is_before_it_in_a_damaged_segment() {
    let mut maker = Maker::new();
    maker.key = Some(maker.secret(1));
    for _ in 0..3 {
        maker.frames(2);
        maker.checkpoint(None);
        maker.frames(2);
        maker.seal(SealReason::Full);
    }
    assert_eq!(verify(maker.path(), &[]).1["provable"][0]["signed_until"], 39);
    maker.flip(1, maker.segments[1].frames[4].offset + 90);
    let (code, report) = verify(maker.path(), &[]);
    assert_eq!(code, 1);
    assert_eq!(provable(&report), [(0, 19, "checkpoint"), (26, 39, "trailer")], "{report:#}");
    assert_eq!(report["provable"][0]["signed_until"], 19);
}

#[test]
fn an_anchor_outside_of_the_range_is_not_judged() {
    let mut maker = Maker::new();
    maker.key = Some(maker.secret(1));
    for _ in 0..6 {
        maker.frames(2);
        maker.seal(SealReason::Full);
    }
    let note = |size: u64, root| {
        let origin = graven_format::lines::origin(maker.trail_id);
        let head = graven_format::lines::Head { origin, size, root };
        maker.secret(1).sign(&graven_format::note::Checkpoint {
            head,
            successor: None,
            sealed: None,
        })
    };
    let dir = tempfile::tempdir().expect("a directory");
    let kept = dir.path().join("kept");
    let text = [2, 15, 99].map(|size| note(size, maker.root(size.min(36))));
    std::fs::write(&kept, text.concat()).expect("a file");
    let kept = kept.to_str().expect("text");
    let (code, report) = verify(maker.path(), &["--seq", "13..17", "--checkpoint", kept]);
    let checked = report["anchors"]["checked"].as_array().expect("a list");
    let status: Vec<&str> = checked.iter().filter_map(|it| it["status"].as_str()).collect();
    assert_eq!((code, status), (0, vec!["not-checked", "consistent", "not-checked"]));
    std::fs::write(kept, note(15, [7; 32])).expect("a file");
    assert_eq!(verify(maker.path(), &["--seq", "13..17", "--checkpoint", kept]).0, 1);
    assert_eq!(verify(maker.path(), &["--seq", "0..5", "--checkpoint", kept]).0, 0);
    std::fs::write(kept, note(99, [7; 32])).expect("a file");
    assert_eq!(verify(maker.path(), &["--seq", "30..", "--checkpoint", kept]).0, 1);
}

#[test]
fn who_says_that_records_are_missing() {
    let maker = Maker::sealed(3, 4);
    let frame = maker.segments[1].frames[2];
    maker.flip(1, frame.offset + 100);
    let note = |args: &[&str]| verify(maker.path(), args).1["problems"][0]["notes"].to_string();
    assert!(note(&[]).contains("it goes on with seq 21"), "{}", note(&[]));
    maker.flip(1, frame.offset + 100);
    std::fs::remove_file(&maker.segments[2].path).expect("removed");
    assert!(note(&["--durable", "30"]).contains("--durable says so"));
}
