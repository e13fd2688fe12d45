//! Whatever is in a directory: no command panics, and nothing that was changed is called intact.

mod common;

use common::{Maker, Random, loss_payload, on, stdin};
use graven_format::checksum::crc32;
use graven_format::codec::Decoding;
use graven_format::consts::{FRAME_HEADER_BYTES, RECORD_HEADER_BYTES};
use graven_format::merkle::Hashing;
use graven_format::scan::{Expect, Scanner};
use graven_format::trailer::SealReason;
use graven_format::{Flags, Record, Source, name};
use graven_tools::prove::{Goal, prove};
use graven_tools::trail::TrailDir;
use graven_tools::trail::stream::{Item, stream};
use graven_tools::verify::{Options, Verdict, text, verify};
use graven_writer::codec::Reading;
use std::fs::OpenOptions;
use std::num::NonZero;
use std::ops::ControlFlow;

#[test]
fn mutated_trails_are_never_called_intact_and_never_panic() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let maker = Maker::sealed(3, 3);
    let originals: Vec<Vec<u8>> =
        maker.segments.iter().map(|it| std::fs::read(&it.path).expect("a segment")).collect();
    let intact = TrailDir::open(maker.path()).expect("a trail");
    let roots: Vec<_> = (1..=27)
        .map(|size| prove(&intact, Goal::Inclusion(0), Some(size)).expect("it is intact"))
        .map(|document| document.head().root)
        .collect();
    let mut proven = 0;
    for round in 0..600 {
        let index = random.next(3) as usize;
        let (path, original) = (&maker.segments[index].path, &originals[index]);
        let mut bytes = original.clone();
        let at = random.next(bytes.len() as u64) as usize;
        let len = (1 + random.next(5000) as usize).min(bytes.len() - at);
        match random.next(5) {
            0 => bytes.truncate(at),
            1 => bytes[at..at + len].fill(0),
            2 => bytes[at..at + len].iter_mut().for_each(|byte| *byte = random.next(256) as u8),
            3 => drop(bytes.splice(at..at, vec![random.next(256) as u8; len])),
            _ => {
                let from = random.next((original.len() - len) as u64 + 1) as usize;
                bytes[at..at + len].copy_from_slice(&original[from..from + len]);
            }
        }
        std::fs::write(path, &bytes).expect("written");
        let report = verify(maker.path(), &Options::default()).expect("a trail");
        assert_eq!(
            report.verdict == Verdict::Intact,
            bytes == *original,
            "round {round}, segment {index}, offset {at:#x}, {len} bytes: {report:#?}"
        );
        let dir = TrailDir::open(maker.path()).expect("a trail");
        let start = random.next(30);
        let mut records = 0;
        stream(&dir, &(start..start + random.next(10)), &mut |item| {
            records += u64::from(matches!(item, Item::Record { .. }));
            ControlFlow::Continue(())
        });
        assert!(records <= 10);
        // What can still be proven is what was proven before.
        let size = 1 + random.next(27);
        let (seq, from) = (random.next(size), 1 + random.next(size));
        for goal in [Goal::Inclusion(seq), Goal::Consistency(from)] {
            if let Ok(document) = prove(&dir, goal, Some(size)) {
                assert_eq!(document.head().root, roots[size as usize - 1], "round {round}");
                assert!(document.holds());
                proven += 1;
            }
        }
        std::fs::write(path, original).expect("written");
    }
    assert_eq!(on("verify", maker.path(), &[]).code, 0);
    assert!((100..1100).contains(&proven), "{proven} of 1200 proofs were still made");
}

#[test]
fn directories_of_rubbish_do_no_harm() {
    let mut random = Random(7);
    let dir = tempfile::tempdir().expect("a directory");
    for round in 0..60 {
        let first_seq = [0, 7, u64::MAX / 2, u64::MAX][random.next(4) as usize];
        let number = [0, 1, random.next(u64::MAX), u64::MAX][random.next(4) as usize];
        let len = random.next(700_000) as usize;
        let bytes: Vec<u8> = (0..len).map(|_| random.next(4) as u8).collect();
        std::fs::write(dir.path().join(name::segment(number, first_seq)), bytes).expect("written");
        for command in ["verify", "show", "export"] {
            let ran = on(command, dir.path(), &[]);
            assert!([1, 2].contains(&ran.code), "round {round}: {}", ran.stderr);
        }
        for args in [["--seq", "0"], ["--seq", "18446744073709551615"], ["--from", "8"]] {
            let ran = on("prove", dir.path(), &args);
            assert!([1, 2].contains(&ran.code), "round {round}: {}", ran.stderr);
        }
    }
}

/// The report as JSON and as text: whatever can be seen of it.
fn report_with(threads: usize, maker: &Maker) -> String {
    let options = Options { threads: NonZero::new(threads), ..Options::default() };
    let report = verify(maker.path(), &options).expect("a trail");
    let mut text = Vec::new();
    text::write(&report, &mut text).expect("memory");
    let json = serde_json::to_string(&report).expect("JSON");
    format!("{json}\n{}", String::from_utf8(text).expect("text"))
}

#[test]
fn reports_are_the_same_for_any_number_of_threads() {
    let check = |maker: &Maker, what: &str| {
        let one = report_with(1, maker);
        for threads in [2, 7, 40] {
            assert_eq!(report_with(threads, maker), one, "{what}, {threads} threads");
        }
        one
    };
    let mut maker = Maker::sealed(12, 3);
    let loss = loss_payload();
    maker.frame(&[Record { flags: Flags::LOSS, source: Source::Graven, ..stdin(1, &loss) }]);
    maker.seal(SealReason::Full);
    maker.frames(2);
    assert!(check(&maker, "sound").contains("\"verdict\":\"losses\""));

    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut worst = 0;
    for round in 0..12 {
        for _ in 0..4 {
            let segment = random.next(13) as usize;
            let Ok(meta) = std::fs::metadata(&maker.segments[segment].path) else { continue };
            match random.next(4) {
                0 => drop(std::fs::remove_file(&maker.segments[segment].path)),
                1 => {
                    let file = OpenOptions::new().write(true).open(&maker.segments[segment].path);
                    file.expect("a segment").set_len(random.next(meta.len())).expect("cut");
                }
                _ if meta.len() > 0 => maker.flip(segment, random.next(meta.len())),
                _ => {}
            }
        }
        let report = check(&maker, &format!("round {round}"));
        assert!(report.contains("\"verdict\":\"damaged\""), "{report}");
        worst = worst.max(report.matches("\"class\":\"damage\"").count());
    }
    assert!(worst >= 8, "problems in many segments at once: {worst}");
    let options: Vec<Vec<u8>> = ["1", "2", "7"]
        .iter()
        .map(|threads| on("verify", maker.path(), &["--json", "--threads", threads]).stdout)
        .collect();
    assert!(!options[0].is_empty() && options.iter().all(|it| *it == options[0]));
}

/// Every event of a segment as text, read with lanes as the tools do and one hash at a time.
fn both_ways(bytes: &[u8], expect: Expect) -> [String; 2] {
    fn read<H: Hashing + Decoding>(mut scanner: Scanner<H>, bytes: &[u8]) -> String {
        let mut text = String::new();
        for chunk in bytes.chunks(100_000) {
            scanner.push(chunk);
            while let Some(event) = scanner.next_event() {
                text += &format!("{event:?}\n");
            }
        }
        scanner.end();
        while let Some(event) = scanner.next_event() {
            text += &format!("{event:?}\n");
        }
        format!("{text}{:?}", scanner.outcome())
    }
    [read(Scanner::new(expect), bytes), read(Scanner::with_hashing(expect, Reading::new()), bytes)]
}

#[test]
fn lanes_find_what_one_hash_at_a_time_finds() {
    let mut maker = Maker::new();
    let payload = [b'x'; 900];
    // More records than there are lanes, fewer than make lanes worth it, and all lengths of rests.
    for (from, count) in [(0, 40), (40, 3), (43, 333), (376, 17)] {
        let records: Vec<Record<'_>> =
            (from..from + count).map(|n| stdin(n, &payload[..(n * 37 % 900) as usize])).collect();
        maker.frame(&records);
    }
    maker.seal(SealReason::Full);
    let sound = std::fs::read(&maker.segments[0].path).expect("a segment");
    let expect = Expect { segment: 0, first_seq: 0, trail_id: Some(maker.trail_id), merkle: true };
    let [one, lanes] = both_ways(&sound, expect);
    assert!(!one.contains("Finding"), "a sound segment");
    assert!(one == lanes);
    let mut random = Random(99);
    let mut found = 0;
    for round in 0..150 {
        let mut bytes = sound.clone();
        let at = random.next(bytes.len() as u64) as usize;
        match random.next(3) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << random.next(8),
            _ => {
                // As somebody who knows the format does it: the frame's checksum fits again, and only
                // the tree tells.
                let frame = maker.segments[0].frames[random.next(4) as usize];
                let frame = &mut bytes[frame.offset as usize..][..frame.len as usize];
                frame[FRAME_HEADER_BYTES + RECORD_HEADER_BYTES - 1] ^= 1;
                let crc = crc32(&frame[8..]);
                frame[4..8].copy_from_slice(&crc.to_le_bytes());
            }
        }
        let [one, lanes] = both_ways(&bytes, expect);
        assert!(one == lanes, "round {round}, byte {at:#x}");
        found += usize::from(one.contains("Finding"));
    }
    assert_eq!(found, 150);
}
