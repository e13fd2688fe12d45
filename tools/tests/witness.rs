//! Checkpoints that witnesses cosign: while recording, on demand, and what is verified of them. The witness is
//! the tests' own, see `common/witness.rs`.

mod common;
#[path = "common/witness.rs"]
mod server;

use common::{Ran, on};
use graven_format::cosignature::{Cosigned, WitnessKey};
use graven_format::note::Note;
use server::{Mood, Witness};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for what a thread beside the test does.
const PATIENCE: Duration = Duration::from_secs(60);

fn graven() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graven"));
    // The machine's proxy, if it has one, is not for loopback.
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    {
        command.env_remove(name);
    }
    command
}

/// A recorder that signs a checkpoint soon after each record.
fn recorder(trail: &Path, args: &[&str]) -> Child {
    started(trail, "20ms", args)
}

fn started(trail: &Path, interval: &str, args: &[&str]) -> Child {
    graven()
        .args(["record", "--source", "stdin", "--trail"])
        .arg(trail)
        .args(["--segment-bytes", "1M", "--ring-bytes", "2M", "--checkpoint-interval", interval])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs")
}

/// Runs `graven record` on these lines to its end, where the only checkpoint is.
fn record(trail: &Path, args: &[&str], input: &str) -> Ran {
    let mut child = started(trail, "off", args);
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    common::ran(&child.wait_with_output().expect("it ends"))
}

fn checkpoint(trail: &Path, args: &[&str]) -> Ran {
    common::ran(&graven().arg("checkpoint").arg(trail).args(args).output().expect("it runs"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A trail of some records that this witness knows.
fn known(dir: &Path, witness: &Witness, lines: &str) -> PathBuf {
    let trail = dir.join("trail");
    let ran = record(&trail, &[], lines);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let first = checkpoint(&trail, &["--witness", &witness.option()]);
    assert_eq!(first.code, 2, "it does not know it yet: {}", first.stderr);
    assert!(first.stderr.contains("does not know this trail"), "{}", first.stderr);
    let key = first.stderr.lines().find_map(|line| line.split_once("by the key ")).expect("a key");
    let name = key.1.split('+').next().expect("a name");
    witness.knows(name, key.1);
    trail
}

/// The sizes of the notes in a file that this witness has cosigned.
fn cosigned_sizes(file: &Path, witness: &Witness) -> Vec<u64> {
    let bytes = std::fs::read(file).unwrap_or_default();
    let key = WitnessKey::parse(&witness.vkey()).expect("a key");
    let (mut left, mut sizes) = (&bytes[..], Vec::new());
    while !left.is_empty() {
        let (note, rest, _) = Note::parse_first(left).expect("a note");
        if let Cosigned::At(_) = note.cosigned(&key) {
            sizes.push(note.checkpoint.head.size);
        }
        left = rest;
    }
    sizes
}

fn copy_trail(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a trail") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a copy");
    }
}

#[test]
fn what_is_recorded_is_cosigned_step_by_step_and_verified() {
    let dir = tempfile::tempdir().expect("a directory");
    let witness = Witness::start("w.example/one", 1);
    let trail = known(dir.path(), &witness, "one\ntwo\n");
    let to = dir.path().join("to");
    let option = witness.option();
    // The trail's own key changes with each segment; the witness knows one.
    let args = ["--witness", &option, "--checkpoint-to", text(&to), "--epoch-segments", "1"];
    let mut child = recorder(&trail, &args);
    let mut input = child.stdin.take().expect("a pipe");
    let line = "x".repeat(900);
    for round in 0..6_u64 {
        let before = witness.any_seen().size;
        // More than a segment now and then.
        for _ in 0..500 {
            writeln!(input, "{line}").expect("it reads");
        }
        until("the witness sees what is recorded", || witness.any_seen().size > before + 400);
        assert!(witness.any_seen().size >= 2 + 500 * round);
    }
    drop(input);
    let ran = common::ran(&child.wait_with_output().expect("it ends"));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(on("keys", &trail, &[]).text().lines().count() > 1, "several keys have signed");
    // Step by step: after the first question each one begins where the last ended.
    let (answered, asked) = (witness.answered(), witness.asked_from());
    assert!(answered.iter().filter(|status| **status == 200).count() >= 6, "{answered:?}");
    assert!(answered[1..].iter().all(|status| matches!(status, 200 | 409)), "{answered:?}");
    assert!(asked[2..].iter().all(|from| *from > 0), "{asked:?}");
    // Connections are kept open.
    assert!(witness.connections() < answered.len() as u64 / 2, "{}", witness.connections());
    // The last checkpoint is that of the trail's end.
    let seen = witness.any_seen();
    let report = on("verify", &trail, &["--json"]).json();
    assert_eq!(report["records"]["end_seq"], seen.size);
    let sizes = cosigned_sizes(&to, &witness);
    assert_eq!(sizes.last(), Some(&seen.size));
    assert!(sizes.len() >= 6);
    assert_eq!(cosigned_sizes(&trail.join("cosigned"), &witness), [seen.size]);
    // Every one is an anchor that fits.
    let args = ["--checkpoint", text(&to), "--witness-key", &witness.vkey()];
    let ran = on("verify", &trail, &[&args[..], &["--json"]].concat());
    assert_eq!(ran.code, 0, "{}{}", ran.text(), ran.stderr);
    let report = ran.json();
    let reported = &report["anchors"]["witnesses"][0];
    assert_eq!(reported["size"], seen.size);
    assert_eq!(reported["checkpoints"], sizes.len());
    assert!(reported["time"].as_str().is_some_and(|time| time.starts_with("20")), "{reported}");
    let shown = on("verify", &trail, &args).text();
    let saw = format!("witness   w.example/one saw {} records at 20", seen.size);
    assert!(shown.contains(&saw), "{shown}");
    // The copy that the witness hands out has no signature of the trail's own key.
    let last = dir.path().join("last");
    std::fs::write(&last, &seen.note).expect("a file");
    let args = ["--checkpoint", text(&last), "--witness-key", &witness.vkey()];
    assert_eq!(on("verify", &trail, &args).code, 0);
    assert_eq!(
        on("verify", &trail, &args[..2]).code,
        1,
        "without the witness's key it proves nothing"
    );
}

#[test]
fn a_checkpoint_is_cosigned_by_all_and_proofs_end_with_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let witnesses = [1, 2].map(|seed| Witness::start(&format!("w.example/{seed}"), seed));
    let trail = known(dir.path(), &witnesses[0], "one\ntwo\nthree\n");
    witnesses[1].knows_trail(&trail);
    let options = [witnesses[0].option(), witnesses[1].option()];
    let kept = dir.path().join("kept");
    let args = ["--witness", &options[0], "--witness", &options[1], "--to", text(&kept)];
    let ran = checkpoint(&trail, &args);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(std::fs::read(&kept).expect("a copy"), ran.stdout);
    for witness in &witnesses {
        assert_eq!(cosigned_sizes(&kept, witness), [3]);
    }
    // Again: the witness takes the same size without a proof.
    assert_eq!(checkpoint(&trail, &args[..4]).code, 0);
    assert_eq!(witnesses[1].answered(), [200, 409, 200]);
    let keys = witnesses.each_ref().map(Witness::vkey);
    let of_both = ["--witness-key", &keys[0], "--witness-key", &keys[1], "--witnesses", "2"];
    let args = [&["--checkpoint", text(&kept)], &of_both[..]].concat();
    let ran = on("verify", &trail, &[&args[..], &["--json"]].concat());
    assert_eq!((ran.code, &ran.json()["anchors"]["witnessed"]), (0, &3.into()), "{}", ran.text());
    let shown = on("verify", &trail, &args).text();
    assert!(shown.contains("witnessed the first 3 records by as many as must"), "{shown}");
    // One whose key is not given is unknown, and does not count.
    let args = ["--checkpoint", text(&kept), "--witness-key", &keys[0], "--witnesses", "2"];
    let ran = on("verify", &trail, &[&args[..], &["--json"]].concat());
    assert_eq!(ran.code, 2);
    let report = ran.json();
    assert_eq!(report["problems"][0]["kind"], "witnesses");
    assert_eq!(report["anchors"]["checked"][0]["unknown"], serde_json::json!(["w.example/2"]));
    let shown = on("verify", &trail, &args[..2]).text();
    assert!(
        shown.contains("w.example/1, w.example/2: cosigners whose keys were not given"),
        "{shown}"
    );
    assert_eq!(on("verify", &trail, &["--witness-key", &keys[0]]).code, 2, "of what checkpoint?");
    // A proof that ends with it.
    let proof = on("prove", &trail, &["--seq", "1", "--checkpoint", text(&kept)]);
    assert_eq!(proof.code, 0, "{}", proof.stderr);
    let file = dir.path().join("record.tlog-proof");
    std::fs::write(&file, &proof.stdout).expect("a file");
    let checked = on("check-proof", &file, &of_both);
    assert_eq!(checked.code, 0, "{}", checked.stderr);
    assert!(checked.text().contains("witness   w.example/2 at 20"), "{}", checked.text());
    let json = on("check-proof", &file, &[&of_both[..2], &["--json"]].concat()).json();
    assert_eq!(json["witnessed"][0]["name"], "w.example/1");
    let stranger = Witness::start("w.example/3", 3).vkey();
    let checked = on("check-proof", &file, &["--witness-key", &stranger]);
    assert_eq!(checked.code, 1);
    assert!(checked.stderr.contains("0 of the witnesses"), "{}", checked.stderr);
    let plain = on("prove", &trail, &["--seq", "1"]);
    std::fs::write(&file, &plain.stdout).expect("a file");
    assert_eq!(on("check-proof", &file, &of_both[..2]).code, 1, "without cosignatures");
}

#[test]
fn a_witness_that_knows_another_size_is_followed() {
    let dir = tempfile::tempdir().expect("a directory");
    let witness = Witness::start("w", 1);
    let trail = known(dir.path(), &witness, "one\ntwo\n");
    let option = witness.option();
    assert_eq!(checkpoint(&trail, &["--witness", &option]).code, 0);
    // Ahead of who asks: each process begins without knowing what it has seen.
    let ran = record(&trail, &["--witness", &option], "three\n");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.stderr, "", "all is as it should be");
    assert_eq!(witness.any_seen().size, 3);
    assert!(witness.answered().contains(&409));
    // Behind, as one that lost what it knew: then it is told anew, from nothing on.
    witness.forget();
    let ran = record(&trail, &["--witness", &option], "four\n");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(witness.any_seen().size, 4);
}

#[test]
fn a_witness_that_forgets_while_recording_is_told_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let witness = Witness::start("w", 1);
    let trail = known(dir.path(), &witness, "one\ntwo\n");
    let mut child = recorder(&trail, &["--witness", &witness.option()]);
    let mut input = child.stdin.take().expect("a pipe");
    for size in 3..6 {
        writeln!(input, "line").expect("it reads");
        until("it is cosigned", || witness.any_seen().size >= size);
        witness.forget();
    }
    drop(input);
    let ran = common::ran(&child.wait_with_output().expect("it ends"));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

#[test]
fn a_forked_trail_is_refused_and_said_loudly() {
    let dir = tempfile::tempdir().expect("a directory");
    let witness = Witness::start("w", 1);
    let trail = known(dir.path(), &witness, "one\ntwo\n");
    let option = witness.option();
    let other = dir.path().join("other");
    // Everything is copied, every key too.
    copy_trail(&trail, &other);
    let to = dir.path().join("to");
    let args = ["--witness", &option, "--checkpoint-to", text(&to)];
    assert_eq!(record(&trail, &args, "three\nfour\n").code, 0);
    // The copy is shorter than what the witness has seen.
    let ran = checkpoint(&other, &["--witness", &option]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("cut or rolled back"), "{}", ran.stderr);
    assert!(!ran.stdout.is_empty(), "it is printed all the same");
    // As long, longer.
    for line in ["drei\nvier\n", "fünf\n"] {
        let ran = record(&other, &["--witness", &option], line);
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert!(
            ran.stderr.contains("it has seen other records under this trail's name"),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains("everything that was recorded is durable"), "{}", ran.stderr);
        let ran = checkpoint(&other, &["--witness", &option]);
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert_eq!(on("verify", &other, &[]).code, 0, "it is well signed");
    }
    assert_eq!(witness.any_seen().size, 4, "it signed nothing of the copy");
    // What was kept of the one shows the other: by the trail's key, and by the witness's alone.
    let seen = dir.path().join("seen");
    std::fs::write(&seen, witness.any_seen().note).expect("a file");
    for (file, kind) in [(&to, "fork"), (&seen, "fork")] {
        let args = ["--checkpoint", text(file), "--witness-key", &witness.vkey(), "--json"];
        let ran = on("verify", &other, &args);
        assert_eq!(ran.code, 1, "{}{}", ran.text(), ran.stderr);
        let report = ran.json();
        let kinds: Vec<_> = report["problems"].as_array().expect("a list").iter().collect();
        assert!(kinds.iter().any(|it| it["kind"] == kind), "{report:#}");
    }
}

#[test]
fn a_rollback_is_found_by_the_witness_and_by_its_checkpoint() {
    let dir = tempfile::tempdir().expect("a directory");
    let witness = Witness::start("w", 1);
    let trail = known(dir.path(), &witness, "one\ntwo\n");
    let option = witness.option();
    let old = dir.path().join("old");
    copy_trail(&trail, &old);
    assert_eq!(record(&trail, &["--witness", &option], "three\nfour\nfive\n").code, 0);
    let cosigned = trail.join("cosigned");
    let vkey = witness.vkey();
    let args = ["--checkpoint", text(&cosigned), "--witness-key", &vkey, "--json"];
    assert_eq!(on("verify", &trail, &args).code, 0);
    let ran = on("verify", &old, &args);
    assert_eq!(ran.code, 1);
    let report = ran.json();
    let problems = report["problems"].as_array().expect("a list");
    assert!(problems.iter().any(|it| it["kind"] == "rolled-back" && it["seq"] == 2), "{report:#}");
    // That is one that fits, but none that this trail has: nobody has seen it.
    assert_eq!(report["anchors"]["witnesses"][0]["size"], serde_json::Value::Null);
    // Recording on the old state is durable, says so in the trail, and ends with it.
    let mut child = recorder(&old, &["--witness", &option]);
    let mut input = child.stdin.take().expect("a pipe");
    writeln!(input, "drei").expect("it reads");
    let own = "op=witness-disagrees witness=\"w\" seen=5 cause=rolled-back res=failed";
    until("the trail says so", || on("show", &old, &[]).text().contains(own));
    drop(input);
    let ran = common::ran(&child.wait_with_output().expect("it ends"));
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("it has seen 5 records of this trail"), "{}", ran.stderr);
    let exported = on("export", &old, &[]).text();
    assert!(exported.contains("one\ntwo\n") && exported.contains("drei\n"), "{exported}");
    assert_eq!(exported.matches(own).count(), 1, "{exported}");
}

/// What each of these answers is called, once, and that it stops nothing.
#[test]
fn answers_that_are_none_are_said_and_stop_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let witness = Witness::start("w", 1);
    let trail = known(dir.path(), &witness, "one\n");
    let option = witness.option();
    let before = checkpoint(&trail, &[]).stdout;
    for (mood, said) in [
        (Mood::Says(500, "out of order"), "it answers with status 500: out of order"),
        (Mood::Says(503, ""), "it answers with status 503"),
        (Mood::Says(400, "\x1b[2Jbad"), "status 400: \\x1b[2Jbad"),
        (Mood::Says(403, ""), "does not accept this trail's key"),
        (Mood::Says(404, ""), "does not know this trail"),
        (Mood::Says(422, ""), "it answers with status 422"),
        (Mood::Says(302, ""), "it answers with status 302"),
        (Mood::Says(409, ""), "409 without a tree's size"),
        (Mood::Says(409, "seven\n"), "409 without a tree's size"),
        (Mood::Says(409, "0\n"), "it wants a proof from size 0, and had one"),
        (Mood::Says(200, ""), "its answer is none of a witness"),
        (Mood::Says(200, "hello\n"), "its answer is none of a witness"),
        (Mood::Says(200, "\u{2014} w AAAA\n"), "its answer is none of a witness"),
        (Mood::Garbage, "cosign: it"),
        (Mood::Endless, "it is longer than 131072 bytes"),
        (Mood::EndlessHeader, "cosign: it"),
        (Mood::Closes, "it does not answer"),
        (Mood::WrongKey, "the cosignature in its answer is forged"),
        (Mood::WrongTime, "the cosignature in its answer is forged"),
        (Mood::NoTime, "the cosignature in its answer is forged"),
        (Mood::OtherName, "it has no signature of the key w+"),
    ] {
        witness.forget();
        witness.is(mood);
        let ran = checkpoint(&trail, &["--witness", &option]);
        assert_eq!(ran.code, 2, "{mood:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{mood:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, before, "nothing that was not verified is printed");
    }
    // With a stranger's signature in front, which is left out.
    witness.forget();
    witness.is(Mood::Stranger);
    let ran = checkpoint(&trail, &["--witness", &option]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!ran.text().contains("pq.example"));
}

#[test]
fn a_witness_that_is_not_there_costs_nothing_and_is_said_once_and_when_it_is_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let [well, ill] = [1, 2].map(|seed| Witness::start(&format!("w{seed}"), seed));
    let trail = known(dir.path(), &well, "one\n");
    ill.knows_trail(&trail);
    ill.is(Mood::Hangs(Duration::from_secs(30)));
    let options = [well.option(), ill.option()];
    let to = dir.path().join("to");
    let args = ["--witness", &options[0], "--witness", &options[1], "--witness-timeout", "1s"];
    let mut child =
        recorder(&trail, &[&args[..], &["--checkpoint-to", text(&to), "--ack"]].concat());
    let mut input = child.stdin.take().expect("a pipe");
    // Records become durable while one hangs, and the other signs.
    for size in [200, 400, 600] {
        for _ in 0..200 {
            writeln!(input, "line").expect("it reads");
        }
        until("the other one cosigns", || well.any_seen().size > size);
    }
    assert_eq!(ill.any_seen().size, 0);
    ill.is(Mood::Well);
    until("it is back", || ill.any_seen().size > 600);
    writeln!(input, "last").expect("it reads");
    drop(input);
    let ran = common::ran(&child.wait_with_output().expect("it ends"));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("the witness w2 does not cosign: it does not answer").count(), 1);
    assert_eq!(ran.stderr.matches("the witness w2 cosigns again").count(), 1, "{}", ran.stderr);
    assert!(!ran.stderr.contains("the witness w1"), "{}", ran.stderr);
    let report = on("verify", &trail, &["--json"]).json();
    let end = report["records"]["end_seq"].as_u64().expect("a number");
    for witness in [&well, &ill] {
        assert_eq!(witness.any_seen().size, end);
        assert_eq!(cosigned_sizes(&trail.join("cosigned"), witness), [end]);
    }
}

#[test]
fn the_end_of_recording_waits_for_a_witness_no_longer_than_was_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let witness = Witness::start("w", 1);
    let trail = known(dir.path(), &witness, "one\n");
    for mood in [Mood::Hangs(Duration::from_secs(60)), Mood::Drips(Duration::from_millis(200))] {
        witness.is(mood);
        let start = Instant::now();
        let ran =
            record(&trail, &["--witness", &witness.option(), "--witness-timeout", "1s"], "line\n");
        assert_eq!(ran.code, 0, "a witness that is not there is no failure: {}", ran.stderr);
        assert!(
            ran.stderr.contains("the witness w has not cosigned the last checkpoint"),
            "{}",
            ran.stderr
        );
        // One answer that was begun before the end, and one after it; the rest is this machine.
        assert!(start.elapsed() < Duration::from_secs(15), "{mood:?}: {:?}", start.elapsed());
    }
    // One that nobody listens for.
    let nobody = witness.option().replace(&format!(":{}", witness.port), ":1");
    let ran = record(&trail, &["--witness", &nobody, "--witness-timeout", "1s"], "line\n");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("it does not answer"), "{}", ran.stderr);
    assert_eq!(on("verify", &trail, &[]).code, 0);
}

#[test]
fn a_forged_cosignature_is_located_in_its_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let witness = Witness::start("w", 1);
    let trail = known(dir.path(), &witness, "one\ntwo\n");
    let note = checkpoint(&trail, &["--witness", &witness.option()]).text();
    let (body, lines) = note.split_once("\n\n").expect("two parts");
    let own = lines.lines().next().expect("a line");
    let signed = format!("{body}\n");
    let vkey = witness.vkey();
    let file = dir.path().join("kept");
    let report = |line: &str| {
        // Behind another note, and an empty line.
        std::fs::write(&file, format!("{note}\n{body}\n\n{own}\n{line}")).expect("a file");
        let args = ["--checkpoint", text(&file), "--witness-key", &vkey, "--json"];
        let ran = on("verify", &trail, &args);
        (ran.code, ran.json())
    };
    assert_eq!(report(&witness.cosign(&signed, Mood::Well)).0, 0);
    let first = note.lines().count() + 2;
    for mood in [Mood::WrongKey, Mood::WrongTime, Mood::NoTime] {
        let (code, report) = report(&witness.cosign(&signed, mood));
        assert_eq!(code, 1, "{mood:?}");
        let problem = &report["problems"][0];
        assert_eq!(problem["kind"], "cosignature", "{report:#}");
        let notes = problem["notes"].to_string();
        let line = first + body.lines().count() + 2;
        assert!(notes.contains(&format!("{}, line {first}", text(&file))), "{notes}");
        assert!(notes.contains(&format!("the cosignature is in line {line}")), "{notes}");
        assert_eq!(report["anchors"]["checked"][1]["status"], "cosignature-forged");
        // The good one before it still counts.
        assert_eq!(report["anchors"]["witnesses"][0]["size"], 2);
    }
    // Of another name it is a stranger's.
    let (code, report) = report(&witness.cosign(&signed, Mood::OtherName));
    assert_eq!(code, 0);
    assert_eq!(report["anchors"]["checked"][1]["unknown"], serde_json::json!(["somebody.example"]));
}

#[test]
fn what_cannot_be_a_witness_is_refused_before_anything_is_done() {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    let witness = Witness::start("w", 1);
    for wrong in ["w", "http://127.0.0.1:1", &witness.vkey(), "@/no/such/file"] {
        let ran = record(&trail, &["--witness", wrong], "");
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(!trail.exists());
    }
    // What is in the place of the key is no key: nobody is asked, and nothing is recorded.
    std::fs::create_dir(&trail).expect("a directory");
    assert_eq!(record(&trail, &[], "").code, 0);
    for garbage in ["not a key\n", "PRIVATE+KEY+other+00000000+AAAA\n"] {
        std::fs::write(trail.join("key.witness"), garbage).expect("a file");
        let ran = record(&trail, &["--witness", &witness.option()], "line\n");
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(ran.stderr.contains("key.witness holds no key"), "{}", ran.stderr);
        assert!(ran.stderr.contains("no record was taken"), "{}", ran.stderr);
        assert_eq!(std::fs::read(trail.join("key.witness")).expect("it stays"), garbage.as_bytes());
    }
    assert_eq!(witness.connections(), 0);
    let trail = dir.path().join("unsigned");
    let ran = record(&trail, &["--witness", &witness.option(), "--no-key"], "");
    assert_eq!(ran.code, 2, "nothing of an unsigned trail can be cosigned: {}", ran.stderr);
    assert!(!trail.exists());
}
