//! Coverage against a plain set of serials.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn at(seq: usize) -> Stamp {
    Stamp { seq: seq as u64, realtime_ns: 0 }
}

fn of(base: u32, serials: &[u32]) -> Coverage {
    let mut coverage = Coverage::default();
    for (seq, serial) in serials.iter().enumerate() {
        coverage.add(base.wrapping_add(*serial), at(seq));
    }
    coverage
}

/// What is missing, as numbers above `base`, up to and with `last`.
fn missing(coverage: &mut Coverage, base: u32, last: u32) -> Vec<u32> {
    let above = |wide: u64| (wide as u32).wrapping_sub(base);
    let holes = coverage.missing_to(base.wrapping_add(last), at(0));
    holes.iter().flat_map(|hole| above(hole.first)..=above(hole.last)).collect()
}

proptest! {
    #[test]
    fn however_it_is_cut_into_pieces_what_is_missing_is_the_same(
        base: u32,
        serials in proptest::collection::vec(1_u32..300, 1..400),
        cuts in proptest::collection::vec(1_usize..100, 0..8),
        said in proptest::collection::vec((1_u32..300, 0_u32..20), 0..5),
        to in 1_u32..320,
    ) {
        let mut whole = Coverage::default();
        whole.begin_behind(base);
        let mut rest = &serials[..];
        for cut in cuts {
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            whole.merge(&of(base, piece));
            rest = behind;
        }
        whole.merge(&of(base, rest));
        let there: BTreeSet<u32> = serials.iter().copied().collect();
        let high = *there.last().expect("one");
        let mut unsaid: BTreeSet<u32> = (1..=to).filter(|it| !there.contains(it)).collect();
        let mut open: BTreeSet<u32> = (1..high).filter(|it| !there.contains(it)).collect();
        for (first, more) in said {
            let range = first..=first + more;
            let count = whole.state(base.wrapping_add(first), base.wrapping_add(first + more));
            let before = open.len();
            open.retain(|it| !range.contains(it));
            unsaid.retain(|it| *it > high || !range.contains(it));
            prop_assert_eq!(count, (before - open.len()) as u64);
        }
        prop_assert_eq!(missing(&mut whole, base, to), unsaid.into_iter().collect::<Vec<_>>());
        prop_assert!(missing(&mut whole, base, to).is_empty(), "said once");
        open.retain(|it| *it > to);
        prop_assert_eq!(missing(&mut whole, base, high.max(to)), open.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn what_is_owed_begins_behind_a_serial_wherever_the_records_begin(
        base: u32, serials in proptest::collection::vec(0_u32..100, 1..60), behind in 0_u32..100,
    ) {
        let mut coverage = of(base, &serials);
        coverage.begin_behind(base.wrapping_add(behind));
        let expected: Vec<u32> = (behind + 1..=120).filter(|it| !serials.contains(it)).collect();
        prop_assert_eq!(missing(&mut coverage, base, 120), expected);
    }
}

#[test]
fn a_segment_with_too_much_is_given_up_and_keeps_little() {
    let mut serials = Serials::default();
    for seq in 0..3 * ROWS_MAX {
        let text = format!("audit(1.000:{}): x", 2 * seq + 1);
        let record = Record {
            source: Source::Netlink,
            kind: 1400,
            flags: graven_format::Flags::NONE,
            realtime_ns: 0,
            boottime_ns: 0,
            source_seq: 2 * seq as u64 + 1,
            bytes: text.as_bytes(),
        };
        serials.take(&record, at(seq));
    }
    assert!(serials.open.coverage.holes() <= ROWS_MAX + 1);
    let serials = serials.end();
    assert!(serials.too_many && serials.pieces.is_empty());
}
