//! Whatever is in a directory: no command panics, and nothing that was changed is called intact.

mod common;

use common::{Maker, on};
use graven_format::name;
use graven_tools::prove::{Goal, prove};
use graven_tools::trail::TrailDir;
use graven_tools::trail::stream::{Item, stream};
use graven_tools::verify::{Options, Verdict, verify};
use std::ops::ControlFlow;

/// A small generator: the same mutations in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below.max(1)
    }
}

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
