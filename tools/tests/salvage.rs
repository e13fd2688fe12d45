//! `graven salvage`: every intact record of a damaged trail, and a statement for each hole.

mod common;

use common::{Maker, TIME_NS, graven, kernel, loss_payload, on, stdin};
use graven_format::consts::RECORD_PAYLOAD_BYTES_MAX;
use graven_format::loss::LossStatement;
use graven_format::trailer::SealReason;
use graven_format::{Flags, Record, Source, name};
use graven_tools::trail::TrailDir;
use graven_tools::trail::stream::{self, Item};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

/// A record's stored bytes: header and payload.
type Stored = Vec<u8>;

/// Every record that can be read, by its seq.
fn records(dir: &Path) -> BTreeMap<u64, Stored> {
    let dir = TrailDir::open(dir).expect("a trail");
    let mut all = BTreeMap::new();
    stream::stream(&dir, &(0..u64::MAX), &mut |item| {
        if let Item::Record { seq, record, .. } = item {
            let mut stored = vec![0; record.stored_len()];
            record.encode(&mut stored);
            all.entry(seq).or_insert(stored);
        }
        ControlFlow::Continue(())
    });
    all
}

fn decode(stored: &Stored) -> Record<'_> {
    Record::decode(stored).expect("a record").0
}

fn is_checkpoint(stored: &Stored) -> bool {
    decode(stored).flags.contains(Flags::CHECKPOINT)
}

/// What a salvage gave.
struct Salvage {
    code: i32,
    /// The objects of each type.
    lines: Vec<serde_json::Value>,
    new: BTreeMap<u64, Stored>,
}

impl Salvage {
    /// Pairs of numbers of the lines of one type.
    fn spans(&self, kind: &str) -> Vec<(u64, u64)> {
        let of_kind = self.lines.iter().filter(|line| line["type"] == kind);
        let number = |value: &serde_json::Value| value.as_u64().expect("a number");
        of_kind.map(|line| (number(&line["first"]), number(&line["last"]))).collect()
    }

    fn summary(&self) -> &serde_json::Value {
        self.lines.last().expect("a summary")
    }
}

fn run(dir: &Path, dest: &Path) -> common::Ran {
    let dest = dest.to_str().expect("a name of letters");
    on("salvage", dir, &[dest, "--json", "--segment-bytes", "512K"])
}

/// Salvages, and checks what holds of every salvage.
fn salvage(dir: &Path) -> Salvage {
    let room = tempfile::tempdir().expect("a directory");
    let dest = room.path().join("new");
    let old = records(dir);
    let ran = run(dir, &dest);
    assert!(matches!(ran.code, 0 | 1 | 2 | 4), "{}{}", ran.text(), ran.stderr);
    assert_eq!(std::fs::read_dir(room.path()).expect("it is there").count(), 1);
    let parse = |line: &str| serde_json::from_str(line).expect("JSON");
    let lines: Vec<serde_json::Value> = ran.text().lines().map(parse).collect();
    let new = records(&dest);
    let verified = on("verify", &dest, &["--json"]);
    let losses = new.values().any(|stored| decode(stored).flags.contains(Flags::LOSS));
    assert_eq!(verified.code, if losses { 4 } else { 0 }, "{}", verified.text());

    // The map is a bijection of the old records and of the new ones that are no statement of it.
    let mut left = new.clone();
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    let of_kind = lines.iter().filter(|line| line["type"] == "left-out");
    let out: Vec<_> = of_kind.map(|it| (number(&it["first"]), number(&it["last"]))).collect();
    let mut next = 0;
    for line in lines.iter().filter(|line| line["type"] != "summary") {
        let (first, last) = (number(&line["first"]), number(&line["last"]));
        if line["type"] == "left-out" {
            continue;
        }
        assert_eq!(first, next, "every old seq is accounted for, in order: {line}");
        next = last + 1;
        let mut there = old.range(first..=last);
        match line["type"].as_str() {
            Some("copied") => {
                for seq in first..=last {
                    let moved = left.remove(&(seq - first + number(&line["new_first"])));
                    assert_eq!(moved.as_ref(), old.get(&seq), "{line}: byte for byte");
                }
            }
            Some("checkpoints") => assert!(there.all(|(_, stored)| is_checkpoint(stored))),
            Some("lost") => {
                let left_out =
                    |seq: &u64| out.iter().any(|(first, last)| (first..=last).contains(&seq));
                assert!(there.all(|(seq, _)| left_out(seq)), "{line}");
            }
            _ => panic!("{line}"),
        }
        if line["type"] == "lost" {
            let stored = left.remove(&number(&line["new_seq"])).expect("a statement");
            let (it, _) = LossStatement::parse(decode(&stored).bytes).expect("it is one");
            assert_eq!((it.count, it.range), (last + 1 - first, Some((first, last))));
            assert_eq!((it.cause.name(), it.source), ("damaged", Source::Graven));
            assert_eq!(it.certainty.name(), line["certainty"]);
        }
    }
    assert!(left.values().all(is_checkpoint), "nothing else is in the new trail");
    assert_eq!(lines.last().expect("a line")["exit_code"], ran.code);
    Salvage { code: ran.code, lines, new }
}

#[test]
fn an_intact_trail_is_copied_whole() {
    let mut maker = Maker::sealed(3, 2);
    // All that is in a record: bytes, numbers, flags, a statement of its own.
    let long = vec![0xFF; RECORD_PAYLOAD_BYTES_MAX];
    maker.frame(&[kernel(1300, 7, b"audit(1.000:7): a=\xff"), stdin(9, b"")]);
    maker.frame(&[stdin(10, &long)]);
    let payload = loss_payload();
    maker.frame(&[LossStatement::record(&payload, 5, 6)]);
    maker.frame(&[Record { flags: Flags::UNTERMINATED, ..stdin(11, b"end") }]);
    maker.seal(SealReason::Stop);
    let ran = salvage(maker.path());
    assert_eq!((ran.code, ran.spans("copied")), (0, vec![(0, 22)]));
    assert_eq!(ran.new, records(maker.path()));
    assert_eq!(ran.summary()["dest_verdict"], "losses", "what it stated stays stated");
    // Without a record there is nothing to copy.
    let empty = salvage(Maker::new().path());
    assert_eq!((empty.code, empty.new.len()), (0, 0));
}

#[test]
fn a_hole_becomes_a_statement() {
    let maker = Maker::sealed(3, 4);
    let frame = maker.segments[1].frames[1];
    maker.flip(1, frame.offset + 99);
    let ran = salvage(maker.path());
    assert_eq!((ran.code, ran.spans("lost")), (4, vec![(15, 17)]));
    assert_eq!(ran.spans("copied"), [(0, 14), (18, 35)]);
    assert_eq!((&ran.summary()["copied"], &ran.summary()["lost"]), (&33.into(), &3.into()));
    let (it, _) = LossStatement::parse(decode(&ran.new[&15]).bytes).expect("a statement");
    let time = |seq: u64| TIME_NS + seq * 1_000_000;
    assert_eq!(it.between_ns, Some((time(14), time(18))));
}

#[test]
fn damage_of_every_kind_is_survived() {
    // The header, the first frame, a frame in the middle, the last one, the trailer.
    let maker = Maker::sealed(4, 3);
    let it = &maker.segments[1];
    let trailer = it.trailer_offset.expect("sealed");
    for (offset, lost) in [
        (20, vec![]),
        (it.frames[0].offset + 20, vec![(9, 11)]),
        (it.frames[1].offset + 20, vec![(12, 14)]),
        (it.frames[2].offset + 20, vec![(15, 17)]),
        (trailer + 20, vec![]),
    ] {
        maker.flip(1, offset);
        let ran = salvage(maker.path());
        assert_eq!(ran.spans("lost"), lost, "{offset:#x}");
        assert_eq!(ran.code, if lost.is_empty() { 0 } else { 4 });
        assert_eq!(ran.summary()["verdict"], "damaged");
        maker.flip(1, offset);
    }
    // Several at once, in several segments.
    for segment in [0, 2] {
        maker.flip(segment, maker.segments[segment].frames[1].offset + 70);
    }
    assert_eq!(salvage(maker.path()).spans("lost"), [(3, 5), (21, 23)]);
    // No identity, and then a broken one.
    std::fs::remove_file(maker.path().join(name::IDENTITY)).expect("removed");
    assert_eq!(salvage(maker.path()).spans("lost"), [(3, 5), (21, 23)]);
    std::fs::write(maker.path().join(name::IDENTITY), "no").expect("written");
    assert_eq!(salvage(maker.path()).spans("lost"), [(3, 5), (21, 23)]);
}

#[test]
fn segments_that_are_gone_are_stated() {
    for (gone, lost) in [(0, (0, 8)), (1, (9, 17)), (2, (18, 26))] {
        let maker = Maker::sealed(4, 3);
        std::fs::remove_file(&maker.segments[gone].path).expect("removed");
        let ran = salvage(maker.path());
        assert_eq!((ran.code, ran.spans("lost")), (4, vec![lost]));
        // Emptied, or no file, it is the same.
        std::fs::write(&maker.segments[gone].path, "").expect("emptied");
        assert_eq!(salvage(maker.path()).spans("lost"), [lost]);
        std::fs::remove_file(&maker.segments[gone].path).expect("removed");
        std::os::unix::fs::symlink("/dev/zero", &maker.segments[gone].path).expect("a link");
        let ran = salvage(maker.path());
        assert_eq!((ran.code, ran.spans("lost")), (4, vec![lost]));
    }
}

#[test]
fn an_end_that_is_gone_is_stated_as_far_as_it_is_known() {
    // The trailer counts what is not there.
    let maker = Maker::sealed(2, 3);
    let frame = maker.segments[1].frames[1];
    maker.write(1, frame.offset, &vec![0; 2 * frame.len as usize]);
    let ran = salvage(maker.path());
    assert_eq!((ran.code, ran.spans("lost")), (4, vec![(12, 17)]));
    assert_eq!(ran.lines[1]["certainty"], "at-least");
    // Without a trace nobody knows.
    let maker = Maker::sealed(3, 3);
    std::fs::remove_file(&maker.segments[2].path).expect("removed");
    assert_eq!(salvage(maker.path()).code, 0);
}

#[test]
fn what_was_never_announced_is_no_part_of_the_trail() {
    let mut maker = Maker::sealed(1, 2);
    maker.announced = Some(6);
    maker.frames(3);
    let frame = maker.segments[1].frames[1];
    maker.write(1, frame.offset, &vec![0; frame.len as usize]);
    let ran = salvage(maker.path());
    assert_eq!((ran.code, ran.spans("copied")), (0, vec![(0, 8)]));
    assert_eq!(ran.summary()["unannounced"], 3);
}

#[test]
fn a_segment_that_is_there_twice_is_copied_once() {
    let maker = Maker::sealed(3, 2);
    std::fs::copy(&maker.segments[1].path, maker.path().join(name::segment(1, 7))).expect("copy");
    let ran = salvage(maker.path());
    assert_eq!((ran.code, ran.spans("copied")), (1, vec![(0, 11), (12, 17)]));
    assert_eq!(ran.spans("left-out"), [(6, 11)]);
}

#[test]
fn one_frame_far_ahead_does_not_hide_what_follows() {
    let mut maker = Maker::sealed(1, 2);
    maker.frames(1);
    let seq = std::mem::replace(&mut maker.next_seq, 1 << 40);
    maker.frames(1);
    maker.next_seq = seq + 3;
    maker.frames(1);
    maker.abandon();
    maker.frames(2);
    maker.seal(SealReason::Stop);
    let ran = salvage(maker.path());
    assert_eq!((ran.code, ran.spans("left-out")), (1, vec![(1 << 40, (1 << 40) + 2)]));
    // That frame is intact and says what was announced, as `verify` says too.
    assert_eq!(ran.spans("lost"), [(9, 11), (21, (1 << 40) - 1)]);
    assert_eq!(ran.spans("copied"), [(0, 8), (12, 20)]);
}

#[test]
fn checkpoints_are_counted_and_not_copied() {
    let mut maker = Maker::new();
    maker.key = Some(maker.secret(1));
    maker.frames(2);
    maker.checkpoint(None);
    maker.frames(1);
    let next = maker.secret(2);
    maker.checkpoint(Some(next));
    maker.seal(SealReason::Full);
    maker.frames(2);
    maker.seal(SealReason::Stop);
    assert_eq!(on("verify", maker.path(), &[]).code, 0);
    let ran = salvage(maker.path());
    assert_eq!((ran.code, ran.spans("checkpoints")), (0, vec![(6, 6), (10, 10)]));
    assert_eq!(ran.spans("copied"), [(0, 5), (7, 9), (11, 16)]);
    assert_eq!(ran.summary()["checkpoints"], 2);
}

#[test]
fn a_later_version_is_not_called_lost_for_good() {
    let maker = Maker::sealed(3, 2);
    let path = &maker.segments[1].path;
    let mut bytes = std::fs::read(path).expect("a segment");
    bytes[12..14].copy_from_slice(&9_u16.to_le_bytes());
    let crc = graven_format::checksum::crc32(&bytes[12..common::ALIGN_BYTES as usize]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(path, bytes).expect("changed");
    let ran = salvage(maker.path());
    assert_eq!((ran.code, ran.spans("lost")), (2, vec![(6, 11)]));
    assert_eq!(ran.summary()["unread"], 1);
}

#[test]
fn every_flipped_byte_leaves_a_trail_that_can_be_salvaged() {
    let maker = Maker::sealed(2, 2);
    let len = std::fs::metadata(&maker.segments[0].path).expect("a file").len();
    for offset in (0..len).step_by(1499) {
        maker.flip(0, offset);
        let ran = salvage(maker.path());
        // A frame holds three records.
        let copied = ran.summary()["copied"].as_u64().expect("a number");
        assert!(copied >= 9 && matches!(ran.code, 0 | 4), "{offset:#x}: {:?}", ran.lines);
        maker.flip(0, offset);
    }
}

#[test]
fn the_original_is_left_as_it_is_and_the_text_says_what_was_done() {
    let maker = Maker::sealed(2, 2);
    maker.flip(0, maker.segments[0].frames[1].offset + 99);
    let read = || {
        let entries = std::fs::read_dir(maker.path()).expect("a directory").flatten();
        let file = |it: std::fs::DirEntry| (it.file_name(), std::fs::read(it.path()).expect("it"));
        entries.map(file).collect::<BTreeMap<_, _>>()
    };
    let before = read();
    let room = tempfile::tempdir().expect("a directory");
    let dest = room.path().join("new");
    let ran = on("salvage", maker.path(), &[dest.to_str().expect("letters")]);
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    for text in ["9 records", "3 records, said in 1 loss statement", "DAMAGED", "graven verify"] {
        assert!(ran.text().contains(text), "{text}: {}", ran.text());
    }
    assert_eq!(read(), before);
    let text = on("verify", &dest, &[]).text();
    assert!(text.contains("3 records are missing from source graven: damaged"), "{text}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let maker = Maker::sealed(1, 2);
    let room = tempfile::tempdir().expect("a directory");
    let dest = room.path().join("new");
    let refused = |dest: &Path, what: &str| {
        let ran = run(maker.path(), dest);
        assert_eq!((ran.code, ran.stdout.len()), (2, 0), "{}", ran.stderr);
        assert!(ran.stderr.contains(what), "{what}: {}", ran.stderr);
    };
    std::fs::write(&dest, "mine").expect("a file");
    refused(&dest, "new exists");
    assert_eq!(std::fs::read(&dest).expect("it is there"), b"mine");
    refused(&maker.path().join("inside"), "is in");
    let lock = std::fs::File::create(maker.path().join(name::LOCK)).expect("a lock");
    lock.lock().expect("locked");
    refused(&room.path().join("other"), "is writing to it");
    drop(lock);
    assert_eq!(run(room.path(), &room.path().join("other")).code, 2, "no trail");
    assert_eq!(graven(["salvage", "x"]).code, 2);
    assert_eq!(std::fs::read_dir(room.path()).expect("it is there").count(), 1);
}
