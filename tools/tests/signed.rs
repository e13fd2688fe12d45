//! Keys, checkpoints and anchors: what `verify`, `keys`, `prove` and `check-proof` say of signed trails.

mod common;

use common::{Maker, Ran, graven, on};
use graven_format::lines::{Head, origin};
use graven_format::note::{Checkpoint, SecretKey};
use graven_format::proof::text::Document;
use graven_format::trailer::SealReason;
use graven_format::{Flags, Record, Source};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Three keys: the second begins in segment 1, the third in segment 3. Every segment has a
/// checkpoint among its records; the last one is not sealed.
fn three_keys() -> Maker {
    let mut maker = Maker::new();
    maker.key = Some(maker.secret(1));
    for segment in 0..5_u8 {
        maker.frames(2);
        let next = [None, Some(2), None, Some(3), None][usize::from(segment)];
        maker.checkpoint(next.map(|seed| maker.secret(seed)));
        maker.frames(1);
        if segment < 4 {
            maker.seal(SealReason::Full);
        }
    }
    maker
}

/// Records of a segment of [`three_keys`].
const SEGMENT: u64 = 10;

fn key(maker: &Maker, seed: u8) -> String {
    maker.secret(seed).public().to_string()
}

fn verify(maker: &Maker, args: &[&str]) -> (i32, Value) {
    let ran = on("verify", maker.path(), &[args, &["--json"]].concat());
    (ran.code, ran.json())
}

/// The words of what is wrong, after a look at the exit code.
fn words(maker: &Maker, args: &[&str], code: i32) -> Vec<String> {
    let (found, report) = verify(maker, args);
    assert_eq!(found, code, "{report:#}");
    let problems = report["problems"].as_array().expect("a list");
    problems.iter().map(|it| it["kind"].as_str().expect("a word").to_owned()).collect()
}

/// A checkpoint of `size` records of this trail as somebody keeps it.
fn note(maker: &Maker, size: u64, seed: u8) -> String {
    let root = maker.root(size);
    let head = Head { origin: origin(maker.trail_id), size, root };
    maker.secret(seed).sign(&Checkpoint { head, successor: None, sealed: None })
}

fn keep(maker: &Maker, name: &str, text: &str) -> PathBuf {
    let path = maker.path().with_extension(name);
    std::fs::write(&path, text).expect("a file");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn every_signature_is_followed_from_the_key_that_is_given() {
    let maker = three_keys();
    let first = key(&maker, 1);
    let (code, report) = verify(&maker, &["--key", &first]);
    assert_eq!(code, 0, "{report:#}");
    let signatures = &report["signatures"];
    // Five in records, four in trailers.
    assert_eq!(signatures["checked"], 9);
    assert_eq!(signatures["epochs"], serde_json::json!([0, 2]));
    assert_eq!(
        (&signatures["key"], &signatures["key_given"]),
        (&first.as_str().into(), &true.into())
    );
    assert_eq!(signatures["newest"]["size"], 4 * SEGMENT + 6);
    assert_eq!(signatures["newest"]["epoch"], 2);
    assert_eq!(signatures["uncovered"], 4);
    let shown = on("verify", maker.path(), &[]).text();
    assert!(shown.contains("by the trail's own word"), "{shown}");
    assert!(shown.contains("9 checkpoints, the newest of "), "{shown}");
    assert!(shown.contains("4 records after it under no signature"), "{shown}");
    // From a file, as it is kept.
    let file = keep(&maker, "vkey", &format!("{first}\n"));
    assert_eq!(on("verify", maker.path(), &["--key", &format!("@{}", text(&file))]).code, 0);
}

#[test]
fn another_key_than_the_given_one_is_tampering() {
    let maker = three_keys();
    assert_eq!(words(&maker, &["--key", &key(&maker, 2)], 1), ["key"]);
    let unsigned = Maker::sealed(2, 1);
    assert_eq!(words(&unsigned, &["--key", &key(&unsigned, 1)], 1), ["key"]);
    assert!(on("verify", unsigned.path(), &[]).text().contains("not signed"));
    // What is no public key is refused before anything is read.
    let private = maker.secret(1).to_text();
    for wrong in ["abc", private.as_str(), "@/no/such/file"] {
        let ran = on("verify", maker.path(), &["--key", wrong]);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(!ran.stderr.contains(private.as_str()) || wrong == private.as_str());
    }
}

#[test]
fn a_note_of_another_key_than_that_of_its_place_is_located() {
    let mut maker = three_keys();
    let place = maker.next_seq;
    // Somebody who has the second key goes on after the third one has begun.
    let third = maker.key.replace(maker.secret(2));
    maker.checkpoint(None);
    maker.key = third;
    maker.frames(1);
    let (code, report) = verify(&maker, &[]);
    assert_eq!(code, 1);
    let problem = &report["problems"][0];
    assert_eq!((&problem["kind"], &problem["seq"]), (&"signature".into(), &place.into()));
    let frame = maker.segments[4].frames[4];
    let offset = problem["offset"].as_u64().expect("an offset");
    assert!((frame.offset..frame.offset + frame.len).contains(&offset), "{report:#}");
    // What came before it stands.
    assert_eq!(report["signatures"]["newest"]["size"], 4 * SEGMENT + 6);
}

#[test]
fn a_missing_signature_is_tampering() {
    let mut maker = Maker::new();
    maker.key = Some(maker.secret(1));
    maker.frames(1);
    let key = maker.key.take();
    maker.seal(SealReason::Full);
    maker.key = key;
    maker.frames(1);
    maker.seal(SealReason::Full);
    assert_eq!(words(&maker, &[], 1), ["unsigned"]);
    // A key that goes away is one that does not follow.
    let mut maker = Maker::sealed(0, 0);
    maker.key = Some(maker.secret(1));
    maker.frames(1);
    maker.seal(SealReason::Full);
    maker.key = None;
    maker.frames(1);
    maker.seal(SealReason::Full);
    assert_eq!(words(&maker, &[], 1), ["key"]);
}

#[test]
fn a_trail_that_was_signed_again_from_some_segment_on_is_found() {
    // As the one who has the first key would write it after the second has begun.
    for (epoch, seed) in [(1, 9), (0, 1), (2, 2)] {
        let mut maker = Maker::new();
        maker.key = Some(maker.secret(1));
        maker.frames(1);
        maker.checkpoint(Some(maker.secret(2)));
        maker.seal(SealReason::Full);
        (maker.epoch, maker.key) = (epoch, Some(maker.secret(seed)));
        maker.frames(1);
        maker.seal(SealReason::Full);
        let (code, report) = verify(&maker, &[]);
        assert_eq!(code, 1, "epoch {epoch}, key {seed}");
        let problem = &report["problems"][0];
        assert_eq!((&problem["kind"], &problem["seq"]), (&"key".into(), &4.into()));
        assert_eq!(report["signatures"]["newest"]["size"], 4);
        // `keys` goes as far as they follow.
        let ran = on("keys", maker.path(), &[]);
        assert_eq!((ran.code, ran.text().lines().count()), (1, 2), "{}", ran.stderr);
    }
}

#[test]
fn a_successor_that_was_lost_breaks_the_chain_and_says_so() {
    let maker = three_keys();
    // The record that names the second key.
    let frame = maker.segments[1].frames[2];
    maker.flip(1, frame.offset + 300);
    let words = words(&maker, &[], 1);
    assert_eq!(words, ["unreadable", "key"]);
    let (_, report) = verify(&maker, &[]);
    assert_eq!(report["signatures"]["newest"]["size"], SEGMENT);
    assert_eq!(report["signatures"]["unchecked"], 1, "the trailer behind it");
}

#[test]
fn a_checkpoint_that_fits_no_records_is_not_the_newest() {
    let mut maker = three_keys();
    let newest = 4 * SEGMENT + 6;
    let head = Head { origin: origin(maker.trail_id), size: maker.next_seq, root: [7; 32] };
    let note = maker.secret(3).sign(&Checkpoint { head, successor: None, sealed: None });
    let record = Record {
        source: Source::Graven,
        flags: Flags::CHECKPOINT,
        ..common::stdin(0, note.as_bytes())
    };
    maker.frame(&[record]);
    maker.frames(1);
    let (code, report) = verify(&maker, &[]);
    assert_eq!((code, &report["signatures"]["newest"]["size"]), (1, &newest.into()));
}

#[test]
fn a_trail_may_begin_without_a_key() {
    let mut maker = Maker::sealed(2, 2);
    maker.key = Some(maker.secret(4));
    maker.frames(1);
    maker.checkpoint(None);
    maker.seal(SealReason::Stop);
    assert_eq!(words(&maker, &["--key", &key(&maker, 4)], 0), [""; 0]);
    assert_eq!(words(&maker, &["--key", &key(&maker, 1)], 1), ["key"]);
    let ran = on("keys", maker.path(), &[]);
    assert_eq!(ran.text(), format!("0 12 {}\n", key(&maker, 4)), "{}", ran.stderr);
}

#[test]
fn keys_prints_each_key_and_where_it_begins() {
    let maker = three_keys();
    let ran = on("keys", maker.path(), &["--key", &key(&maker, 1)]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let place = |segment| segment * SEGMENT + 6;
    let lines = [(0, 0, 1), (1, place(1), 2), (2, place(3), 3)];
    let expected: String = lines
        .iter()
        .map(|(epoch, from, seed)| format!("{epoch} {from} {}\n", key(&maker, *seed)))
        .collect();
    assert_eq!(ran.text(), expected);
    let json = on("keys", maker.path(), &["--json"]).text();
    let first: Value = serde_json::from_str(json.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["key"], key(&maker, 1));
    let ran = on("keys", maker.path(), &["--key", &key(&maker, 2)]);
    assert_eq!((ran.code, ran.stdout.len()), (1, 0));
    let ran = on("keys", Maker::sealed(1, 1).path(), &[]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("not signed"), "{}", ran.stderr);
}

#[test]
fn anchors_of_every_size_are_compared_with_the_trail() {
    let maker = three_keys();
    // The key that signs over so many records: a successor signs from the record after on.
    let seed = |size| match size {
        0..=16 => 1,
        17..=36 => 2,
        _ => 3,
    };
    let notes: String = (0..=maker.next_seq).map(|size| note(&maker, size, seed(size))).collect();
    let file = keep(&maker, "notes", &notes);
    // A checkpoint that somebody has was in the trail before, and it does not go away.
    let made = [6, 10, 16, 20, 26, 30, 36, 40, 46];
    for threads in ["1", "3"] {
        let args = ["--checkpoint", text(&file), "--threads", threads];
        let (code, report) = verify(&maker, &args);
        assert_eq!(code, 1, "{report:#}");
        let checked = report["anchors"]["checked"].as_array().expect("a list");
        assert_eq!(checked.len() as u64, maker.next_seq + 1);
        for (size, it) in (0..).zip(checked) {
            let status = if made.contains(&size) { "consistent" } else { "gone" };
            assert_eq!((&it["size"], &it["status"]), (&size.into(), &status.into()));
            assert_eq!(it["found"], it["root"]);
        }
        assert_eq!(report["anchors"]["proven"], maker.next_seq);
    }
    let notes: String = made.iter().map(|size| note(&maker, *size, seed(*size))).collect();
    let file = keep(&maker, "notes", &notes);
    let ran = on("verify", maker.path(), &["--checkpoint", text(&file)]);
    assert_eq!(ran.code, 0);
    let shown = ran.text();
    assert!(shown.contains("9 of 9 checkpoints kept elsewhere fit, up to 46 records"), "{shown}");
}

/// Records that are checkpoints in the trails that fork.
const ANCHORS: [u64; 5] = [3, 11, 14, 25, 33];

/// As long as `maker`, signed by the same key, and the same up to and without the record of this seq.
fn forked_at(maker: &Maker, fork: u64) -> Maker {
    let mut other = Maker::new();
    other.key = Some(other.secret(1));
    while other.next_seq < maker.next_seq {
        let seq = other.next_seq;
        if ANCHORS.contains(&seq) {
            other.checkpoint(None);
            continue;
        }
        let payload = if seq < fork { format!("record {seq}") } else { format!("other {seq}") };
        other.frame(&[common::stdin(seq, payload.as_bytes())]);
        if other.next_seq.is_multiple_of(7) {
            other.seal(SealReason::Full);
        }
    }
    other
}

#[test]
fn a_fork_is_located_between_the_anchors() {
    let mut shape = Maker::new();
    shape.next_seq = 40;
    let maker = forked_at(&shape, u64::MAX);
    let notes: String = ANCHORS.iter().rev().map(|size| note(&maker, *size, 1)).collect();
    for (fork, range) in
        [(0, 0..3), (2, 0..3), (3, 3..11), (13, 11..14), (14, 14..25), (32, 25..33)]
    {
        let other = forked_at(&maker, fork);
        // It was signed again with the very key: nothing in it is wrong.
        assert_eq!(words(&other, &["--key", &key(&other, 1)], 0), [""; 0]);
        let file = keep(&other, "notes", &notes);
        let (code, report) = verify(&other, &["--checkpoint", text(&file)]);
        assert_eq!(code, 1);
        let anchors = &report["anchors"];
        assert_eq!(anchors["fork"], serde_json::json!({"start": range.start, "end": range.end}));
        assert_eq!(anchors["proven"], range.start);
        assert_eq!(report["problems"][0]["kind"], "fork");
        let shown = on("verify", other.path(), &["--checkpoint", text(&file)]).text();
        let place = format!("is one of seq {} to {}", range.start, range.end - 1);
        assert!(shown.contains(&place), "{shown}");
    }
    // Behind the last anchor nothing tells.
    let other = forked_at(&maker, 34);
    let file = keep(&other, "notes", &notes);
    assert_eq!(words(&other, &["--checkpoint", text(&file)], 0), [""; 0]);
}

#[test]
fn of_two_anchors_of_one_size_the_one_that_does_not_fit_is_a_fork_before_it() {
    let mut shape = Maker::new();
    shape.next_seq = 40;
    let (maker, other) = (forked_at(&shape, u64::MAX), forked_at(&shape, 13));
    for notes in [[&maker, &other], [&other, &maker]] {
        let both: String = notes.map(|it| note(it, 14, 1)).concat();
        let file = keep(&maker, "notes", &(note(&maker, 11, 1) + &both));
        let (code, report) = verify(&maker, &["--checkpoint", text(&file)]);
        assert_eq!(code, 1);
        let anchors = &report["anchors"];
        assert_eq!(anchors["fork"], serde_json::json!({"start": 11, "end": 14}), "{report:#}");
        assert_eq!(anchors["proven"], 14);
    }
}

#[test]
fn an_anchor_in_a_segment_that_is_gone_is_not_said_to_be_unsigned() {
    let maker = three_keys();
    std::fs::remove_file(&maker.segments[1].path).expect("it is there");
    // The second key begins there, the third signs at the end.
    let file = keep(&maker, "notes", &(note(&maker, 13, 1) + &note(&maker, 18, 2)));
    let (code, report) = verify(&maker, &["--checkpoint", text(&file)]);
    assert_eq!(code, 1);
    for it in report["anchors"]["checked"].as_array().expect("a list") {
        assert_eq!(it["status"], "not-computable", "{report:#}");
    }
    let problems = report["problems"].as_array().expect("a list");
    assert!(problems.iter().all(|it| it["kind"] != "anchor-signature"), "{report:#}");
}

#[test]
fn a_checkpoint_beyond_the_end_that_was_changed_shows_no_rollback() {
    let maker = three_keys();
    let end = maker.next_seq;
    let changed = note(&maker, 46, 3).replace("\n46\n", "\n4600\n");
    let file = keep(&maker, "notes", &changed);
    let words = words(&maker, &["--checkpoint", text(&file)], 1);
    assert_eq!(words, ["anchor-signature"], "the trail has {end}");
}

#[test]
fn a_trail_that_was_rolled_back_is_found() {
    let maker = three_keys();
    let file = keep(&maker, "notes", &(note(&maker, 20, 2) + "\n" + &note(&maker, 46, 3)));
    std::fs::remove_file(&maker.segments[4].path).expect("it is there");
    assert_eq!(words(&maker, &[], 0), [""; 0]);
    let (code, report) = verify(&maker, &["--checkpoint", text(&file)]);
    assert_eq!(code, 1);
    let checked = &report["anchors"]["checked"];
    assert_eq!(
        (&checked[0]["status"], &checked[1]["status"]),
        (&"consistent".into(), &"beyond-end".into())
    );
    let problems = report["problems"].as_array().expect("a list");
    assert!(problems.iter().any(|it| it["kind"] == "rolled-back" && it["seq"] == 40));
    assert_eq!(report["records"]["missing"], 6);
}

#[test]
fn what_an_anchor_covers_and_is_torn_is_damage() {
    let mut maker = Maker::new();
    maker.key = Some(maker.secret(1));
    maker.announced = Some(0);
    maker.frames(3);
    let file = keep(&maker, "notes", &note(&maker, 9, 1));
    maker.flip(0, maker.segments[0].frames[2].offset + 100);
    assert_eq!(words(&maker, &[], 3), ["tail"]);
    let words = words(&maker, &["--checkpoint", text(&file)], 1);
    assert!(words.contains(&"tail".into()) && words.contains(&"rolled-back".into()), "{words:?}");
}

#[test]
fn an_anchor_that_the_key_of_its_place_has_not_signed_proves_nothing() {
    let maker = three_keys();
    let other = "graven/00000000000000000000000000000000";
    let stranger = SecretKey::from_seed(other, &[1; 32]).expect("a key");
    let head = Head { origin: other.to_owned(), size: 3, root: maker.root(3) };
    let foreign = stranger.sign(&Checkpoint { head, successor: None, sealed: None });
    let forged = note(&maker, 20, 2).replace("\n20\n", "\n21\n");
    for (text_of, word) in [
        (note(&maker, 20, 1), "anchor-signature"),
        (note(&maker, 16, 2), "anchor-signature"),
        (note(&maker, 17, 1), "anchor-signature"),
        (forged, "anchor-signature"),
        (foreign, "other-trail"),
    ] {
        let file = keep(&maker, "notes", &text_of);
        assert_eq!(words(&maker, &["--checkpoint", text(&file)], 1), [word], "{text_of}");
    }
    for garbage in ["", "not a note\n", "graven/x\n1\n\n"] {
        let file = keep(&maker, "notes", garbage);
        let ran = on("verify", maker.path(), &["--checkpoint", text(&file)]);
        assert_eq!(ran.code, 2, "{garbage:?}");
    }
    // The line is that of the file.
    let file = keep(&maker, "notes", &(note(&maker, 20, 2) + "x\n"));
    let ran = on("verify", maker.path(), &["--checkpoint", text(&file)]);
    assert!(ran.code == 2 && ran.stderr.contains("line 7"), "{}", ran.stderr);
}

fn prove(maker: &Maker, args: &[&str]) -> (Ran, PathBuf) {
    let ran = on("prove", maker.path(), args);
    let file = maker.path().with_extension("proof");
    std::fs::write(&file, &ran.stdout).expect("a file");
    (ran, file)
}

#[test]
fn proofs_end_with_the_newest_checkpoint_and_its_key_proves_them() {
    let maker = three_keys();
    for seq in 0..maker.next_seq - 4 {
        let (ran, file) = prove(&maker, &["--seq", &seq.to_string()]);
        assert_eq!(ran.code, 0, "{seq}: {}", ran.stderr);
        assert!(ran.stdout.len() <= 3072);
        let document = Document::parse(&ran.stdout).expect("a proof");
        // The last trailer's; what is not sealed needs a record's.
        let size = if seq < 4 * SEGMENT { 4 * SEGMENT } else { 4 * SEGMENT + 6 };
        assert_eq!(document.head().size, size);
        let checked = on("check-proof", &file, &["--key", &key(&maker, 3), "--json"]);
        assert_eq!(checked.code, 0, "{seq}: {}", checked.stderr);
        assert_eq!(checked.json()["signed_by"], key(&maker, 3));
        let checked = on("check-proof", &file, &["--key", &key(&maker, 1)]);
        assert_eq!(checked.code, 1);
        assert!(checked.stderr.contains("`graven keys`"), "{}", checked.stderr);
    }
    // Nothing has signed the last records yet.
    for seq in ["46", "49"] {
        let (ran, _) = prove(&maker, &["--seq", seq]);
        assert_eq!((ran.code, ran.stdout.len()), (2, 0));
        assert!(ran.stderr.contains("no checkpoint of"), "{}", ran.stderr);
    }
}

#[test]
fn proofs_in_a_tree_of_a_size_have_that_checkpoint_or_are_none() {
    let maker = three_keys();
    let places = [(6, 1), (10, 1), (16, 1), (20, 2), (26, 2), (30, 2), (36, 2), (40, 3), (46, 3)];
    for size in 1..=maker.next_seq {
        let (ran, file) = prove(&maker, &["--seq", "0", "--size", &size.to_string()]);
        match places.iter().find(|(place, _)| *place == size) {
            Some((_, seed)) => {
                let checked = on("check-proof", &file, &["--key", &key(&maker, *seed)]);
                assert_eq!(checked.code, 0, "{size}: {}{}", ran.stderr, checked.stderr);
                assert!(checked.text().contains(&format!("size      {size}, as signed")));
            }
            None => assert_eq!(ran.code, 2, "{size}"),
        }
    }
    let (ran, file) = prove(&maker, &["--from", "13", "--to", "36"]);
    assert_eq!(on("check-proof", &file, &["--key", &key(&maker, 2)]).code, 0, "{}", ran.stderr);
}

#[test]
fn a_proof_is_not_signed_by_who_did_not() {
    let maker = three_keys();
    let (ran, _) = prove(&maker, &["--seq", "3", "--size", "40"]);
    let third = key(&maker, 3);
    let check = |text_of: &str| {
        let file = keep(&maker, "proof", text_of);
        on("check-proof", &file, &["--key", &third])
    };
    assert_eq!(check(&ran.text()).code, 0);
    // Without its signature, with another's, with a flipped one.
    let whole = ran.text();
    let (unsigned, _) = whole.rsplit_once("\n\n").expect("a note's empty line");
    assert_eq!(check(&format!("{unsigned}\n")).code, 2, "a line of a note, and no note");
    let (unsigned, _) = unsigned.rsplit_once("\nsealed ").expect("a trailer's note");
    assert_eq!(check(&format!("{unsigned}\n")).code, 1);
    let other = note(&maker, 40, 2);
    let (_, line) = other.rsplit_once("\n\n").expect("a note's empty line");
    assert_eq!(check(&format!("{unsigned}\n\n{line}")).code, 1);
    assert_eq!(check(&format!("{whole}{line}")).code, 0, "others may sign too");
    let flipped = whole.replace("\u{2014} ", "\u{2014} x");
    assert_eq!(check(&flipped).code, 1);
    let stranger = SecretKey::from_seed("x", &[1; 32]).expect("a key").public().to_string();
    let file = keep(&maker, "proof", &whole);
    assert_eq!(on("check-proof", &file, &["--key", &stranger]).code, 1);
    // Without a key it is said that nobody looked.
    assert!(on("check-proof", &file, &[]).text().contains("signed    there, not checked"));
}

#[test]
fn a_checkpoint_of_other_records_is_no_proof() {
    let mut maker = Maker::new();
    maker.key = Some(maker.secret(1));
    maker.frames(2);
    maker.seal(SealReason::Full);
    let mut other = Maker::new();
    other.key = Some(other.secret(1));
    other.frame(&[common::stdin(0, b"another")]);
    other.frames(1);
    let note_of_other = note(&other, 4, 1);
    let record = Record {
        source: Source::Graven,
        flags: Flags::CHECKPOINT,
        ..common::stdin(0, note_of_other.as_bytes())
    };
    maker.frame(&[record]);
    maker.frames(1);
    // Its place says 6 records, the note 4.
    let ran = on("prove", maker.path(), &["--seq", "2", "--size", "6"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert_eq!(graven(["keys", "/dev/null"]).code, 2);
}

#[test]
fn what_record_signs_is_verified_and_proven() {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    for lines in ["one\ntwo\n", "three\n"] {
        let ran = assert_cmd::Command::cargo_bin("graven")
            .expect("the binary")
            .args(["record", "--source", "stdin", "--trail", text(&trail)])
            .write_stdin(lines)
            .output()
            .expect("it runs");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    let keys = on("keys", &trail, &[]);
    assert_eq!(keys.code, 0, "{}", keys.stderr);
    let keys: Vec<String> = keys
        .text()
        .lines()
        .map(|line| line.rsplit(' ').next().expect("a key").to_owned())
        .collect();
    let report = on("verify", &trail, &["--key", &keys[0], "--json"]);
    assert_eq!(report.code, 0, "{}", report.text());
    let proof = on("prove", &trail, &["--seq", "0"]);
    assert_eq!(proof.code, 0, "{}", proof.stderr);
    let file = dir.path().join("proof");
    std::fs::write(&file, &proof.stdout).expect("a file");
    let last = keys.last().expect("a key");
    assert_eq!(on("check-proof", &file, &["--key", last]).code, 0);
}
