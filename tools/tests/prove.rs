//! `graven prove` and `graven check-proof`: what is proven, what is refused, and what is read.

mod common;

use common::{ALIGN_BYTES, Maker, Ran, graven, on};
use graven_format::merkle::{CompactRange, Hash, leaf_hash};
use graven_format::name;
use graven_format::proof::text::Document;
use graven_format::trailer::SealReason;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The root over the first `size` records of a [`Maker`]'s own frames, made of the records alone.
fn root(size: u64) -> Hash {
    let mut range = CompactRange::new(0);
    for seq in 0..size {
        let payload = format!("record number {seq}");
        range.append(leaf_hash(&common::stdin(seq, payload.as_bytes())));
    }
    range.root().expect("from 0 on")
}

fn hex(hash: Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse(ran: &Ran) -> Document {
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    Document::parse(&ran.stdout).expect("a proof")
}

/// Writes the proof beside the trail, where `check-proof` reads it.
fn keep(maker: &Maker, text: &[u8]) -> PathBuf {
    let path = maker.path().with_extension("proof");
    std::fs::write(&path, text).expect("a file");
    path
}

fn check(file: &Path, args: &[&str]) -> Ran {
    on("check-proof", file, args)
}

/// Sealed segments of different lengths, one of them empty, and an end that is not sealed.
fn many() -> Maker {
    let mut maker = Maker::new();
    for frames in [1, 4, 2, 0, 7, 1, 1, 3, 5, 2, 6, 1] {
        maker.frames(frames);
        maker.seal(SealReason::Full);
    }
    maker.frames(3);
    maker
}

#[test]
fn every_record_is_proven_in_the_tree_of_the_sealed_segments() {
    let maker = many();
    let sealed = maker.next_seq - 9;
    let root = hex(root(sealed));
    for seq in 0..sealed {
        let ran = on("prove", maker.path(), &["--seq", &seq.to_string()]);
        assert_eq!(parse(&ran).head().size, sealed);
        let file = keep(&maker, &ran.stdout);
        // Needs no trail: the proof is checked from anywhere.
        let size = sealed.to_string();
        let checked = check(&file, &["--root", &root, "--size", &size, "--json"]);
        assert_eq!(checked.code, 0, "{seq}: {}", checked.stderr);
        let report = checked.json();
        assert_eq!((&report["proven"], &report["seq"]), (&true.into(), &seq.into()));
        let text = report["record"]["payload"]["text"].as_str().expect("its text");
        assert_eq!(text, format!("record number {seq}"));
    }
}

#[test]
fn records_and_growth_are_proven_in_trees_of_any_size() {
    let maker = many();
    let end = maker.next_seq;
    for step in 0..60_u64 {
        let size = 1 + step * 31 % end;
        let (seq, from) = (step * 17 % size, 1 + step * 13 % size);
        let [seq, from_text, size_text] = [seq, from, size].map(|number| number.to_string());
        let ran = on("prove", maker.path(), &["--seq", &seq, "--size", &size_text]);
        assert_eq!(parse(&ran).head().root, root(size), "{seq} of {size}");
        let file = keep(&maker, &ran.stdout);
        assert_eq!(check(&file, &["--root", &hex(root(size)), "--size", &size_text]).code, 0);

        let ran = on("prove", maker.path(), &["--from", &from_text, "--to", &size_text]);
        assert_eq!(parse(&ran).head().root, root(size), "{from} to {size}");
        let file = keep(&maker, &ran.stdout);
        let (earlier, later) = (hex(root(from)), hex(root(size)));
        let roots = ["--from-root", &earlier, "--from", &from_text, "--root", &later];
        let checked = check(&file, &roots);
        assert_eq!(checked.code, 0, "{from} to {size}: {}", checked.stderr);
        assert!(checked.text().contains(&format!("from size {from}, as given")));
    }
}

#[test]
fn the_root_is_shown_to_be_compared_if_none_is_given() {
    let maker = Maker::sealed(2, 2);
    let ran = on("prove", maker.path(), &["--seq", "7"]);
    let checked = check(&keep(&maker, &ran.stdout), &[]);
    assert_eq!(checked.code, 0);
    let text = checked.text();
    assert!(text.starts_with("proven    record 7 is in the tree below\n"), "{text}");
    let shown = format!("root      {}, to be compared with a copy kept elsewhere\n", hex(root(12)));
    assert!(text.contains(&shown), "{text}");
    assert!(text.contains("size      12, to be compared with a copy kept elsewhere\n"), "{text}");
    assert!(text.contains(" stdin - record number 7\n"), "{text}");
}

#[test]
fn what_verify_prints_is_the_root_to_give() {
    let maker = Maker::sealed(3, 2);
    let verified = on("verify", maker.path(), &["--json"]).json();
    let root = verified["root"]["hash"].as_str().expect("the root").to_owned();
    let ran = on("prove", maker.path(), &["--seq", "3"]);
    assert_eq!(check(&keep(&maker, &ran.stdout), &["--root", &root, "--size", "18"]).code, 0);
}

#[test]
fn wrong_roots_and_sizes_are_refused() {
    let maker = Maker::sealed(3, 2);
    let inclusion = keep(&maker, &on("prove", maker.path(), &["--seq", "3"]).stdout);
    let right = hex(root(18));
    for args in [["--root", &hex(root(17))], ["--size", "17"], ["--root", &"00".repeat(32)]] {
        let checked = check(&inclusion, &args);
        assert_eq!((checked.code, checked.stdout.len()), (1, 0), "{args:?}");
        assert!(checked.stderr.contains("error: not proven"), "{}", checked.stderr);
        let report = check(&inclusion, &[&args[..], &["--json"]].concat()).json();
        assert_eq!((&report["proven"], &report["record"]), (&false.into(), &().into()));
    }
    assert_eq!(check(&inclusion, &["--from-root", &right]).code, 2);
    assert_eq!(check(&inclusion, &["--root", "abc"]).code, 2);
    let growth = keep(&maker, &on("prove", maker.path(), &["--from", "7"]).stdout);
    assert_eq!(check(&growth, &["--from-root", &hex(root(7)), "--root", &right]).code, 0);
    for args in [["--from-root", &hex(root(8))], ["--from", "8"], ["--root", &hex(root(7))]] {
        assert_eq!(check(&growth, &args).code, 1, "{args:?}");
    }
}

#[test]
fn altered_proofs_are_refused() {
    let maker = Maker::sealed(4, 3);
    let root = hex(root(36));
    for args in [["--seq", "17"], ["--from", "17"]] {
        let ran = on("prove", maker.path(), &args);
        let text = ran.text();
        let lines: Vec<&str> = text.lines().collect();
        let origin = lines.len() - 3;
        for at in (0..lines.len()).filter(|at| *at != origin) {
            // One character of the line is another one; or the line is gone, or there twice.
            let mut other = lines[at].to_owned().into_bytes();
            let last = other.len().saturating_sub(3);
            if let Some(byte) = other.get_mut(last) {
                *byte = if *byte == b'1' { b'2' } else { b'1' };
            }
            let other = String::from_utf8(other).expect("text");
            let without = [&lines[..at], &lines[at + 1..]].concat();
            let twice = [&lines[..=at], &lines[at..]].concat();
            let altered = [&lines[..at], &[other.as_str()], &lines[at + 1..]].concat();
            for lines in [without, twice, altered] {
                let changed = lines.join("\n") + "\n";
                if changed == text {
                    continue;
                }
                let checked =
                    check(&keep(&maker, changed.as_bytes()), &["--root", &root, "--size", "36"]);
                assert!([1, 2].contains(&checked.code), "{args:?} line {at}: {changed}");
                assert!(checked.stdout.is_empty());
            }
        }
    }
    let other = check(&keep(&maker, b"not a proof\n"), &[]);
    assert_eq!(other.code, 2, "{}", other.stderr);
    assert_eq!(check(&maker.path().join("nothing here"), &[]).code, 2);
}

#[test]
fn what_is_out_of_range_is_refused() {
    let maker = many();
    let end = maker.next_seq.to_string();
    let over = (maker.next_seq + 1).to_string();
    for args in [
        &["--seq", &end][..],
        &["--seq", "18446744073709551615"],
        &["--seq", "3", "--size", &over],
        &["--seq", "3", "--size", "3"],
        &["--seq", "3", "--size", "0"],
        &["--from", &over],
        &["--from", "5", "--to", &over],
        &["--from", "5", "--to", "4"],
        &["--from", "0"],
        &["--from", "3", "--size", "9"],
        &["--seq", "3", "--from", "3"],
        &["--seq", "3", "--to", "9"],
        &[],
    ] {
        let ran = on("prove", maker.path(), args);
        assert_eq!((ran.code, ran.stdout.len()), (2, 0), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("error"), "{}", ran.stderr);
    }
    let empty = Maker::new();
    let ran = on("prove", empty.path(), &["--seq", "0"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("seq 0 is out of range"), "{}", ran.stderr);
    assert_eq!(graven(["prove", "/dev/null", "--seq", "0"]).code, 2);
}

#[test]
fn records_that_are_not_sealed_yet_are_proven_up_to_the_torn_end() {
    let mut maker = Maker::sealed(2, 2);
    maker.frames(3);
    let torn = maker.segments[2].frames[2];
    maker.flip(2, torn.offset + 100);
    for seq in ["2", "12", "17"] {
        let ran = on("prove", maker.path(), &["--seq", seq, "--size", "18"]);
        let file = keep(&maker, &ran.stdout);
        assert_eq!(check(&file, &["--root", &hex(root(18))]).code, 0, "{seq}: {}", ran.stderr);
    }
    let ran = on("prove", maker.path(), &["--seq", "14"]);
    assert_eq!(parse(&ran).head().size, 18);
    assert_eq!(on("prove", maker.path(), &["--seq", "18"]).code, 2);

    // Two segments without a trailer: the later one was never announced.
    let mut maker = Maker::sealed(1, 2);
    maker.announced = Some(6);
    maker.frames(2);
    maker.abandon();
    maker.frames(1);
    let ran = on("prove", maker.path(), &["--seq", "8"]);
    assert_eq!(parse(&ran).head().size, 12, "{}", ran.stderr);
    assert_eq!(on("prove", maker.path(), &["--seq", "12"]).code, 2);
}

#[test]
fn damage_that_a_proof_needs_is_named_with_its_place() {
    // In the frames of the record's segment.
    let maker = Maker::sealed(5, 3);
    let frame = maker.segments[2].frames[1];
    maker.flip(2, frame.offset + 200);
    for args in
        [&["--seq", "26"][..], &["--seq", "22"], &["--from", "23"], &["--from", "3", "--to", "23"]]
    {
        let ran = on("prove", maker.path(), args);
        assert_eq!((ran.code, ran.stdout.len()), (1, 0), "{args:?}: {}", ran.stderr);
        let place = format!("{}: offset {:#x}", name::segment(2, 18), frame.offset);
        assert!(ran.stderr.contains(&place), "{args:?}: {}", ran.stderr);
    }
    // Others are still proven, in the segment itself where the trailer has the hashes, and so is growth
    // over whole segments.
    let whole = ["--from", "18", "--to", "27"];
    for args in [&["--seq", "17"][..], &["--seq", "27"], &["--seq", "18"], &whole] {
        assert_eq!(on("prove", maker.path(), args).code, 0, "{args:?}");
    }

    // In a later trailer, in the header, and a segment that is not there.
    let maker = Maker::sealed(5, 3);
    let trailer = maker.segments[3].trailer_offset.expect("it is sealed");
    maker.flip(3, trailer + 160);
    let ran = on("prove", maker.path(), &["--seq", "5"]);
    let place = format!("{}: offset {trailer:#x}", name::segment(3, 27));
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains(&place), "{}", ran.stderr);
    assert_eq!(on("prove", maker.path(), &["--seq", "5", "--size", "27"]).code, 0);
    maker.flip(1, 60);
    let ran = on("prove", maker.path(), &["--seq", "10", "--size", "27"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains(&format!("{}: offset 0x0", name::segment(1, 9))), "{}", ran.stderr);
    std::fs::remove_file(&maker.segments[1].path).expect("it is there");
    let ran = on("prove", maker.path(), &["--seq", "5", "--size", "27"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("from seq 9 on are missing"), "{}", ran.stderr);
    std::fs::remove_file(&maker.segments[0].path).expect("it is there");
    let ran = on("prove", maker.path(), &["--seq", "5", "--size", "27"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("records before seq 18 are missing"), "{}", ran.stderr);
}

#[test]
fn a_trail_whose_trailer_states_another_root_is_damaged() {
    let mut maker = Maker::sealed(2, 2);
    // A record is replaced by one who knows how to write frames, and who leaves the tree as it was.
    let mut other = Maker::new();
    other.frames(2);
    other.seal(SealReason::Full);
    let payloads = [&b"record number 6"[..], b"something else", b"record number 8"];
    let records = [6, 7, 8].map(|seq| common::stdin(seq, payloads[seq as usize - 6]));
    other.frame(&records);
    let forged = std::fs::read(&other.segments[1].path).expect("a segment");
    let frame = other.segments[1].frames[0];
    let (start, end) = (frame.offset as usize, (frame.offset + frame.len) as usize);
    maker.write(1, frame.offset, &forged[start..end]);
    let ran = on("prove", maker.path(), &["--seq", "7"]);
    // The frame after it names the one that was there.
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    // Where it is the last one, only the root tells.
    maker = Maker::new();
    maker.frames(2);
    maker.seal(SealReason::Full);
    maker.frames(1);
    maker.seal(SealReason::Full);
    maker.write(1, frame.offset, &forged[start..end]);
    let ran = on("prove", maker.path(), &["--seq", "7"]);
    assert_eq!((ran.code, ran.stdout.len()), (1, 0), "{}", ran.stderr);
    assert!(ran.stderr.contains("do not lead to the root"), "{}", ran.stderr);
}

#[test]
fn nothing_but_trailers_and_the_frames_of_one_segment_is_read() {
    let maker = Maker::sealed(9, 4);
    let ask: [(&[&str], &[usize]); 5] = [
        (&["--seq", "50"], &[4]),
        (&["--seq", "50", "--size", "72"], &[4]),
        // The second segment: which of its leaves are in the tree is written nowhere else.
        (&["--seq", "50", "--size", "75"], &[4, 6]),
        (&["--from", "50"], &[4]),
        (&["--from", "48"], &[]),
    ];
    let before: Vec<Vec<u8>> =
        ask.iter().map(|(args, _)| on("prove", maker.path(), args).stdout).collect();
    for ((args, needed), expected) in ask.iter().zip(before) {
        let maker = Maker::sealed(9, 4);
        for (index, segment) in maker.segments.iter().enumerate() {
            let trailer = segment.trailer_offset.expect("it is sealed");
            // The walk begins in segment 4, with its header.
            let from = if index == 4 { u64::from(ALIGN_BYTES) } else { 0 };
            if !needed.contains(&index) {
                maker.write(index, from, &vec![0xa5; (trailer - from) as usize]);
            }
            if index < 4 {
                let file = std::fs::File::options().write(true).open(&segment.path);
                file.and_then(|file| file.set_len(0)).expect("a segment");
            }
        }
        let ran = on("prove", maker.path(), args);
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.stderr);
        assert!(!expected.is_empty() && ran.stdout == expected, "{args:?}");
        // What is said to be needed is.
        for index in *needed {
            let trailer = maker.segments[*index].trailer_offset.expect("it is sealed");
            let from = u64::from(ALIGN_BYTES);
            maker.write(*index, from, &vec![0xa5; (trailer - from) as usize]);
            assert_eq!(on("prove", maker.path(), args).code, 1, "{args:?} {index}");
        }
    }
}

#[test]
fn segments_of_many_batches_are_hashed_in_their_order() {
    let mut maker = Maker::new();
    for _ in 0..2 {
        for _ in 0..2 {
            let seqs = maker.next_seq..maker.next_seq + 2000;
            let payloads: Vec<String> = seqs.map(|seq| format!("record number {seq}")).collect();
            let records: Vec<_> = (maker.next_seq..)
                .zip(&payloads)
                .map(|(seq, payload)| common::stdin(seq, payload.as_bytes()))
                .collect();
            maker.frame(&records);
        }
        maker.seal(SealReason::Full);
    }
    for (seq, size) in [(0, 8000), (3999, 8000), (4000, 8000), (2047, 4000), (2048, 7001)] {
        let args = ["--seq", &seq.to_string(), "--size", &size.to_string()];
        let document = parse(&on("prove", maker.path(), &args));
        assert_eq!(document.head().root, root(size), "{seq} of {size}");
        assert!(document.holds());
    }
}

#[test]
fn a_proof_of_a_small_record_is_small() {
    let mut maker = Maker::sealed(60, 1);
    maker.frames(200);
    maker.seal(SealReason::Stop);
    let ran = on("prove", maker.path(), &["--seq", "77"]);
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.len() < 1024, "{}", ran.stdout.len());
}

#[test]
fn a_running_writer_is_no_obstacle() {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    let mut writer = Command::new(assert_cmd::cargo::cargo_bin("graven"))
        .args(["record", "--no-key", "--source", "stdin", "--ack", "--trail"])
        .arg(&trail)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let mut lines = writer.stdin.take().expect("its input");
    let mut acks = BufReader::new(writer.stdout.take().expect("its output")).lines();
    for n in 0..4 {
        writeln!(lines, "line {n}").expect("it reads");
        let ack = acks.next().expect("an answer").expect("text");
        assert_eq!(ack, format!("durable {n}"));
    }
    // Each frame says that those before it are durable.
    let ran = on("prove", &trail, &["--seq", "1"]);
    assert_eq!(parse(&ran).head().size, 3, "{}", ran.stderr);
    let ran = on("prove", &trail, &["--seq", "3"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("a writer is running"), "{}", ran.stderr);
    drop(lines);
    assert!(writer.wait().expect("it ends").success());
    let document = parse(&on("prove", &trail, &["--seq", "3"]));
    assert_eq!(document.head().size, 4);
    assert!(document.holds());
}
