//! Ranges and parts of trails that were changed say what the whole says, and what is called provable is
//! what was written.

mod common;

use common::{Maker, Random, on};
use graven_format::name;
use graven_tools::trail::TrailDir;
use graven_tools::trail::stream::{Item, stream};
use graven_tools::verify::report::hex;
use graven_tools::verify::scope::Asked;
use graven_tools::verify::{Options, Report, Verdict, verify, verify_files};
use std::num::NonZero;
use std::ops::{ControlFlow, Range};

const SEGMENTS: u64 = 7;
/// Records of a segment.
const RECORDS: u64 = 12;

/// Zeroes, overwrites, cuts or flips something of the file.
fn mutate(random: &mut Random, original: &[u8]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let at = random.next(bytes.len() as u64) as usize;
    let len = (1 + random.next(5000) as usize).min(bytes.len() - at);
    match random.next(4) {
        0 => bytes.truncate(at),
        1 => bytes[at..at + len].fill(0),
        2 => bytes[at..at + len].iter_mut().for_each(|byte| *byte = random.next(256) as u8),
        _ => bytes[at] ^= 1 << random.next(8),
    }
    bytes
}

/// What is called provable are the records that were written, under the root that they had.
fn check_provable(maker: &Maker, report: &Report) -> u64 {
    let dir = TrailDir::open(maker.path()).expect("a trail");
    let mut proven = 0;
    for it in &report.provable {
        assert_eq!(it.root, hex(&maker.root(it.size)));
        let mut next = it.seq;
        stream(&dir, &(it.seq..it.end_seq), &mut |item| {
            if let Item::Record { seq, record, .. } = item {
                assert_eq!((seq, record.bytes), (next, format!("record number {seq}").as_bytes()));
                next += 1;
            }
            ControlFlow::Continue(())
        });
        assert_eq!(next, it.end_seq);
        proven += it.end_seq - it.seq;
    }
    proven
}

/// The segments whose bytes a range looks at: those that are read, and the two beside them.
fn looked_at(report: &Report) -> (Range<u64>, Range<u64>) {
    let span = &report.scope.checked[0];
    let last = report.scope.checked.last().and_then(|it| it.last_segment).expect("it was read");
    let read = span.first_segment..last + 1;
    (read.clone(), read.start.saturating_sub(1)..read.end + 1)
}

#[test]
fn ranges_and_parts_of_mutated_trails() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let maker = Maker::sealed(SEGMENTS as usize, RECORDS as usize / 3);
    let originals: Vec<Vec<u8>> =
        maker.segments.iter().map(|it| std::fs::read(&it.path).expect("a segment")).collect();
    let one = Options { threads: NonZero::new(1), ..Options::default() };
    let (mut proven, mut elsewhere) = (0, 0);
    for round in 0..400 {
        let index = random.next(SEGMENTS) as usize;
        let (path, original) = (&maker.segments[index].path, &originals[index]);
        let bytes = mutate(&mut random, original);
        if bytes == *original {
            continue;
        }
        std::fs::write(path, &bytes).expect("written");
        let whole = verify(maker.path(), &one).expect("a trail");
        proven += check_provable(&maker, &whole);

        let start = random.next(SEGMENTS * RECORDS);
        let seqs = start..start + 1 + random.next(SEGMENTS * RECORDS - start);
        let asked = Asked { seqs, since_ns: None };
        let options = Options { range: Some(&asked), ..one };
        let range = verify(maker.path(), &options).expect("a trail");
        if index as u64 + 1 < SEGMENTS && !range.scope.checked.is_empty() {
            let (read, near) = looked_at(&range);
            let index = index as u64;
            if read.contains(&index) {
                assert_ne!(range.verdict, Verdict::Intact, "round {round} {range:#?}");
            } else if !near.contains(&index) {
                assert_eq!(range.verdict, Verdict::Intact, "round {round} {range:#?}");
                elsewhere += 1;
            }
        }
        if range.verdict == Verdict::Damaged {
            assert_eq!(whole.verdict, Verdict::Damaged, "round {round}");
        }

        let part = verify_files(std::slice::from_ref(path), &one).expect("a segment");
        let verdict = part.verdict;
        assert!(matches!(verdict, Verdict::Damaged | Verdict::Unchecked), "{round} {part:#?}");
        std::fs::write(path, original).expect("written");
    }
    assert!(elsewhere > 50, "{elsewhere} ranges did not touch what was changed");
    assert!(proven > 400 * (SEGMENTS - 2) * RECORDS, "{proven} records were still provable");
}

#[test]
fn rubbish_does_no_harm_to_ranges_and_parts() {
    let mut random = Random(99);
    let dir = tempfile::tempdir().expect("a directory");
    let maker = Maker::sealed(2, 2);
    let real = std::fs::read(&maker.segments[1].path).expect("a segment");
    for round in 0..40 {
        let first_seq = [0, 6, u64::MAX / 2, u64::MAX][random.next(4) as usize];
        let number = [0, 1, random.next(u64::MAX), u64::MAX][random.next(4) as usize];
        let bytes = match random.next(2) {
            0 => (0..random.next(200_000)).map(|_| random.next(4) as u8).collect(),
            _ => mutate(&mut random, &real),
        };
        std::fs::write(dir.path().join(name::segment(number, first_seq)), bytes).expect("written");
        let seqs = ["0", "5..9", "7..", "18446744073709551614..", "..=18446744073709551615"];
        for seq in seqs {
            for args in [vec!["--seq", seq], vec!["--part", "--seq", seq, "--since", "1970-01-01"]]
            {
                let ran = on("verify", dir.path(), &args);
                assert!([1, 2].contains(&ran.code), "round {round}: {args:?} {}", ran.text());
            }
        }
        assert!([1, 2].contains(&on("verify", dir.path(), &["--part"]).code), "round {round}");
    }
}
