//! Trails whose oldest segments retention has removed: what every command says of them, and what is still found when
//! more is missing than the trail says.

mod common;

use common::{Maker, graven, on};
use graven_format::lines::{Head, origin};
use graven_format::note::Checkpoint;
use graven_format::trailer::SealReason;
use graven_format::{Record, Source};
use graven_writer::clock::Now;
use graven_writer::retention::{Keep, Removal, Retention};
use graven_writer::{Options, Trail};
use serde_json::Value;
use std::fs;

/// Records of a sealed segment of [`made`].
const SEGMENT: u64 = 7;

/// Six sealed segments, signed by the second key from segment 1 on, and one that is not sealed: its first record says that
/// segments 0 and 1 go. They are still there.
fn made(signed: bool) -> (Maker, Removal) {
    let mut maker = Maker::new();
    maker.key = signed.then(|| maker.secret(1));
    for segment in 0..6 {
        maker.frames(2);
        if signed {
            let next = (segment == 0).then(|| maker.secret(2));
            maker.checkpoint(next);
        } else {
            maker.frame(&[record(b"instead of a checkpoint")]);
        }
        maker.seal(SealReason::Full);
    }
    let keep = Keep { segments: Some(4), ..Keep::default() };
    let due = retention(&maker).due(&keep, 0).expect("it is read").expect("two are too many");
    assert_eq!(due.segments.len(), 2);
    (maker, due)
}

/// The statement, and a checkpoint over it if the trail is signed.
fn stated(maker: &mut Maker, due: &Removal, covered: bool) {
    let own = due.statement(Now { realtime_ns: common::TIME_NS, boottime_ns: 1 });
    maker.frame(&[own.record()]);
    if covered && maker.key.is_some() {
        maker.checkpoint(None);
    }
    maker.frames(1);
}

fn retention(maker: &Maker) -> Retention {
    Retention::new(maker.path()).expect("it is there")
}

fn record(bytes: &[u8]) -> Record<'_> {
    let flags = graven_format::Flags::NONE;
    let (realtime_ns, boottime_ns) = (common::TIME_NS, 1);
    Record { source: Source::Stdin, kind: 0, flags, realtime_ns, boottime_ns, source_seq: 0, bytes }
}

fn removed(signed: bool) -> Maker {
    let (mut maker, due) = made(signed);
    stated(&mut maker, &due, true);
    assert_eq!(retention(&maker).remove(&due).expect("they are removed"), 2);
    maker
}

#[track_caller]
fn verify(maker: &Maker, args: &[&str], code: i32) -> Value {
    let ran = on("verify", maker.path(), &[args, &["--json"]].concat());
    assert_eq!(ran.code, code, "{:#}", ran.json());
    ran.json()
}

#[track_caller]
fn problem(report: &Value) -> String {
    let problem = &report["problems"][0];
    format!("{} {} {}", problem["class"], problem["kind"], problem["notes"])
}

#[test]
fn what_the_trail_says_was_removed_is_no_damage() {
    for signed in [true, false] {
        let maker = removed(signed);
        let report = verify(&maker, &[], 0);
        let scope = &report["scope"]["removed"];
        assert_eq!(scope["first_segment"], 0);
        assert_eq!(scope["last_segment"], 1);
        assert_eq!(scope["end_seq"], 2 * SEGMENT);
        assert_eq!(scope["stated_by"], 6 * SEGMENT);
        // The tree is that of all records, also of those that are gone.
        assert_eq!(report["root"]["size"], maker.next_seq);
        let hex: String =
            maker.root(maker.next_seq).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(report["root"]["hash"], hex);
        let text = on("verify", maker.path(), &[]).text();
        let words = format!(
            "complete from seq {} on; segments 0 to 1 were removed by retention at ",
            2 * SEGMENT
        );
        assert!(
            text.contains(&words) && text.contains(&format!(", as seq {} says", 6 * SEGMENT)),
            "{text}"
        );
    }
}

#[test]
fn more_than_the_trail_says_is_damage() {
    for signed in [true, false] {
        let maker = removed(signed);
        // The next one too.
        fs::remove_file(&maker.segments[2].path).expect("it is there");
        let said = problem(&verify(&maker, &[], 1));
        assert!(
            said.starts_with("\"damage\" \"missing-segment\"") && said.contains("does not explain"),
            "{said}"
        );
        // Nothing that says so.
        let (maker, due) = made(signed);
        retention(&maker).remove(&due).expect("they are removed");
        let said = problem(&verify(&maker, &[], 1));
        assert!(said.starts_with("\"damage\" \"missing-segment\""), "{said}");
        // One in the middle.
        let maker = removed(signed);
        fs::remove_file(&maker.segments[4].path).expect("it is there");
        verify(&maker, &[], 1);
    }
}

#[test]
fn a_removal_that_was_cut_off_leaves_less_missing_than_is_said() {
    for left in 0..=2 {
        let (mut maker, due) = made(true);
        stated(&mut maker, &due, true);
        for segment in &maker.segments[..left] {
            fs::remove_file(&segment.path).expect("it is there");
        }
        let report = verify(&maker, &[], 0);
        let seq = left as u64 * SEGMENT;
        assert_eq!(report["scope"]["removed"]["end_seq"].as_u64().unwrap_or(0), seq);
        // And the next time it is ended.
        let keep = Keep { segments: Some(5), ..Keep::default() };
        let again = retention(&maker).due(&keep, 0).expect("it is read");
        assert_eq!(again.map_or(0, |it| it.segments.len()), 2 - left);
    }
}

#[test]
fn a_statement_counts_once_it_is_signed_and_only_if_its_tree_goes_on() {
    let (mut maker, due) = made(true);
    stated(&mut maker, &due, false);
    retention(&maker).remove(&due).expect("they are removed");
    let said = problem(&verify(&maker, &[], 1));
    assert!(said.contains("no checkpoint covers that"), "{said}");
    // A text of somebody else's, and another tree.
    let (mut maker, due) = made(false);
    let own = due.statement(Now::default());
    maker.frame(&[record(own.record().bytes)]);
    let mut other = due.clone();
    other.says.root[0] ^= 1;
    let own = other.statement(Now::default());
    maker.frame(&[own.record()]);
    retention(&maker).remove(&due).expect("they are removed");
    assert!(problem(&verify(&maker, &[], 1)).contains("does not explain"));
}

#[test]
fn keys_and_anchors_are_judged_from_what_is_left() {
    let maker = removed(true);
    let key = |seed| maker.secret(seed).public().to_string();
    // The key that the rest begins with is one that somebody has followed before; the first one leads nowhere any more.
    verify(&maker, &["--key", &key(2)], 0);
    let report = verify(&maker, &["--key", &key(1)], 2);
    assert!(report["problems"].to_string().contains("cannot be shown here"), "{report:#}");
    let anchor = |size: u64| {
        let head = Head { origin: origin(maker.trail_id), size, root: maker.root(size) };
        maker.secret(2).sign(&Checkpoint { head, successor: None, sealed: None })
    };
    let statuses = |anchors: String, code| {
        let file = maker.path().with_extension("anchors");
        fs::write(&file, anchors).expect("a file");
        let report = verify(&maker, &["--checkpoint", file.to_str().expect("letters")], code);
        let all = report["anchors"]["checked"].as_array().expect("a list").clone();
        all.iter().map(|it| it["status"].as_str().expect("a word").to_owned()).collect::<Vec<_>>()
    };
    let (gone, edge, there) = (SEGMENT + 1, 2 * SEGMENT, 3 * SEGMENT);
    let found = statuses([anchor(gone), anchor(edge), anchor(there)].concat(), 0);
    assert_eq!(found, ["not-checked", "consistent", "consistent"]);
    let root = [7; 32];
    let head = Head { origin: origin(maker.trail_id), size: there, root };
    let forged = maker.secret(2).sign(&Checkpoint { head, successor: None, sealed: None });
    assert_eq!(statuses(forged, 1), ["forked"]);
}

#[test]
fn every_other_command_works_on_what_is_left() {
    let maker = removed(true);
    let path = maker.path();
    let first = 2 * SEGMENT;
    let ran = on("verify", path, &["--seq", &format!("{first}..{}", first + 3)]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    assert_eq!(on("verify", path, &["--seq", "1..3"]).code, 2, "they are not there to be checked");
    let exported = on("export", path, &[]);
    assert_eq!(exported.code, 0, "{}", exported.stderr);
    assert_eq!(on("export", path, &["--seq", "1..3"]).code, 1, "they were asked for");
    assert_eq!(on("show", path, &[]).code, 0);
    let proven = on("prove", path, &["--seq", &(first + 1).to_string()]);
    assert_eq!(proven.code, 0, "{}", proven.text());
    assert_ne!(on("prove", path, &["--seq", "1"]).code, 0, "its leaf is gone");
    let from_gone =
        on("prove", path, &["--from", &first.to_string(), "--to", &(3 * SEGMENT).to_string()]);
    assert_eq!(from_gone.code, 0, "{}", from_gone.text());
    let keys = on("keys", path, &["--key", &maker.secret(2).public().to_string()]);
    assert_eq!(keys.code, 0, "{}", keys.text());
    assert_eq!(on("compress", path, &[]).code, 0);
    verify(&maker, &[], 0);
    let to = tempfile::tempdir().expect("a directory");
    for command in ["salvage", "quarantine"] {
        let dest = to.path().join(command);
        let ran =
            graven(&[command, path.to_str().expect("letters"), dest.to_str().expect("letters")]);
        assert_eq!(ran.code, 0, "{command}: {} {}", ran.text(), ran.stderr);
    }
}

/// A real writer: it opens what is left, goes on, removes again, and all of it verifies.
#[test]
fn a_writer_goes_on_and_removes_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("trail");
    let options = Options { segment_bytes: 512 << 10, ring_bytes: 2 << 20, ..Options::default() };
    let keep = Keep { bytes: Some(4 << 20), ..Keep::default() };
    let payload: Vec<u8> =
        (0..4000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut first_left = 0;
    for _ in 0..3 {
        let trail = Trail::open(&path, &options).expect("it opens");
        for _ in 0..1500 {
            trail.append(&record(&payload)).expect("it is taken");
        }
        trail.checkpoint().expect("it is signed");
        let retention = Retention::new(&path).expect("it is there");
        let due = retention.due(&keep, 0).expect("it is read").expect("there is too much");
        let own = due.statement(graven_writer::clock::now());
        own.append(&trail.exempt()).expect("it is taken");
        trail.checkpoint().expect("it is signed");
        retention.remove(&due).expect("they are removed");
        assert!(due.says.last_segment >= first_left, "{due:?}");
        first_left = due.says.last_segment + 1;
        trail.close().expect("it is closed");
        let ran = on("verify", &path, &["--json"]);
        assert_eq!(ran.code, 0, "{:#}", ran.json());
        assert_eq!(ran.json()["scope"]["removed"]["last_segment"], first_left - 1);
    }
    let bytes: u64 = fs::read_dir(&path)
        .expect("it is there")
        .flatten()
        .filter(|it| it.path().extension().is_some_and(|it| it == "seg"))
        .map(|it| it.metadata().expect("it is there").len())
        .sum();
    assert!(bytes <= (4 << 20) + (1 << 20), "{bytes}");
}
