//! Source gaps in the report of `graven verify`: what the kernel's serials say, whatever the writer says.

mod common;

use common::{Maker, TIME_NS, graven, kernel, on, stdin};
use graven_format::loss::{Cause, Certainty, LossStatement};
use graven_format::trailer::SealReason;
use graven_format::{Record, Source, kind};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeSet;

/// What a trail is made of.
#[derive(Clone, Debug)]
enum Item {
    /// An event of the kernel with this serial, of two records.
    Event(u32),
    /// A statement: first and last serial, how many of them.
    Loss(Cause, u32, u32, u64),
    /// A session begins behind this serial.
    Open(u32, bool),
    Settled(u32),
    Close(u32),
    /// A record of another source.
    Other,
    /// The next segment.
    Next,
    /// The next segment, of another boot.
    Boot,
}
use Item::{Boot, Close, Event, Loss, Next, Open, Other, Settled};

/// These events, one after the other.
fn events(serials: impl IntoIterator<Item = u32>) -> Vec<Item> {
    serials.into_iter().map(Event).collect()
}

fn own(kind: u16, text: &str) -> (Source, u16, u64, Vec<u8>) {
    (Source::Graven, kind, 0, format!("audit(1.000:0): op=netlink-{text} res=success").into_bytes())
}

/// The records of one item, the next of which has this seq.
fn records(item: &Item, seq: u64) -> Vec<(Source, u16, u64, Vec<u8>)> {
    match *item {
        Event(serial) => {
            let of = |kind| {
                let text = format!("audit(1.000:{serial}): text");
                (Source::Netlink, kind, u64::from(serial), text.into_bytes())
            };
            vec![of(kind::SYSCALL), of(kind::EOE)]
        }
        Loss(cause, first, last, count) => {
            let said = LossStatement {
                source: Source::Netlink,
                cause,
                certainty: Certainty::Exactly,
                count,
                range: Some((first.into(), last.into())),
                between_ns: None,
            };
            vec![(Source::Graven, kind::DAEMON_ERR, 0, said.encode(TIME_NS))]
        }
        Open(serial, goes_on) => {
            let goes_on = if goes_on { "yes" } else { "no" };
            let text = format!("open serial={serial} seq={seq} lost=0 goes-on={goes_on}");
            vec![own(1200, &text)]
        }
        Settled(serial) => {
            vec![own(1203, &format!("settled serial={serial} seq={seq} lost=0 halves=yes"))]
        }
        Close(serial) => {
            let text =
                format!("close serial={serial} seq={seq} lost=0 left-on=yes own=1 drained=yes");
            vec![own(1201, &text)]
        }
        Other => vec![(Source::Stdin, 0, 1, b"text".to_vec())],
        Next | Boot => Vec::new(),
    }
}

fn trail(items: &[Item]) -> Maker {
    let mut maker = Maker::new();
    maker.begin();
    for item in items {
        if matches!(item, Next | Boot) {
            maker.seal(SealReason::Full);
            if matches!(item, Boot) {
                maker.boot_id[0] += 1;
            }
            maker.begin();
            continue;
        }
        let made = records(item, maker.next_seq);
        let frame: Vec<Record<'_>> = made
            .iter()
            .zip(maker.next_seq..)
            .map(|((source, kind, serial, bytes), seq)| {
                let record = kernel(*kind, *serial, bytes);
                let loss = *kind == kind::DAEMON_ERR && *source == Source::Graven;
                let flags = if loss { graven_format::Flags::LOSS } else { record.flags };
                Record {
                    source: *source,
                    flags,
                    realtime_ns: stdin(seq, b"").realtime_ns,
                    ..record
                }
            })
            .collect();
        maker.frame(&frame);
    }
    maker.seal(SealReason::Full);
    maker
}

/// Verifies with one thread and with more, as JSON and as text, which must agree.
fn verify(maker: &Maker, args: &[&str]) -> (i32, Value) {
    let one = on("verify", maker.path(), &[args, &["--json", "--threads", "1"]].concat());
    let more = on("verify", maker.path(), &[args, &["--json", "--threads", "3"]].concat());
    assert_eq!(one.text(), more.text());
    let text = on("verify", maker.path(), args);
    assert_eq!(text.code, one.code, "{}", text.text());
    (one.code, one.json()["source_gaps"].clone())
}

/// First, last and events of the gaps.
fn gaps(report: &Value) -> Vec<(u64, u64, u64)> {
    let number = |gap: &Value, name: &str| gap[name].as_u64().expect("a number");
    let list = report["gaps"].as_array().expect("a list").iter();
    list.map(|gap| (number(gap, "first"), number(gap, "last"), number(gap, "events"))).collect()
}

#[track_caller]
fn expect(items: &[Item], code: i32, found: &[(u64, u64, u64)]) -> Value {
    let (ended, report) = verify(&trail(items), &[]);
    assert_eq!((ended, &gaps(&report)[..]), (code, found), "{report:#}");
    report
}

fn session(inner: Vec<Item>, last: u32) -> Vec<Item> {
    [vec![Event(10), Open(10, false)], inner, vec![Event(last), Close(last)]].concat()
}

#[test]
fn a_serial_that_is_neither_there_nor_stated_is_a_gap() {
    let whole = session(events(11..40), 40);
    let report = expect(&whole, 0, &[]);
    assert_eq!((&report["sessions"], &report["without_end"]), (&1.into(), &0.into()));
    let holed = session([events(11..14), events(16..40)].concat(), 40);
    let report = expect(&holed, 4, &[(14, 15, 2)]);
    assert_eq!(report["events"], 2);
    let maker = trail(&holed);
    let text = on("verify", maker.path(), &[]).text();
    // The record that shows it: two of each event, and the mark.
    for part in ["2 events are missing from source netlink", "seq 9 of 2025-11-21", "14 to 15"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("2 events never arrived, and nothing says so (exit code 4)"), "{text}");
}

#[test]
fn what_is_lost_at_either_end_of_a_session_is_a_gap() {
    expect(&session(events(12..40), 40), 4, &[(11, 11, 1)]);
    expect(&session(events(11..38), 40), 4, &[(38, 39, 2)]);
    // Even the closing marker.
    let items = [vec![Event(10), Open(10, false)], events(11..30), vec![Close(40)]].concat();
    expect(&items, 4, &[(30, 40, 11)]);
}

#[test]
fn what_is_stated_is_no_gap_wherever_it_stands() {
    let said = |cause| {
        let late = vec![Next, Other, Loss(cause, 14, 15, 2), Next];
        session([events(11..14), events(16..30), late, events(30..40)].concat(), 40)
    };
    expect(&said(Cause::SerialGap), 4, &[]);
    expect(&said(Cause::NoDaemon), 4, &[]);
    // Such a statement says nothing of whole events.
    expect(&said(Cause::PartialEvent), 4, &[(14, 15, 2)]);
}

#[test]
fn a_statement_may_be_wider_than_its_count_but_not_narrower() {
    let some = || (11..40).filter(|serial| !matches!(serial, 14 | 20 | 21));
    let said =
        |count| session([events(some()), vec![Loss(Cause::SerialGap, 14, 21, count)]].concat(), 40);
    expect(&said(3), 4, &[]);
    expect(&said(2), 4, &[(14, 21, 1)]);
}

#[test]
fn serials_come_out_of_order_late_and_wrap() {
    let base = u32::MAX - 5;
    let serial = |above: u32| base.wrapping_add(above);
    // What came before the opening marker and lies above it, and what comes in a later segment.
    let mut items = vec![Event(serial(2)), Event(serial(0)), Open(serial(0), false), Next];
    items.extend(events([3, 1, 5, 9, 7].map(serial)));
    items.extend([Next, Event(serial(6)), Event(serial(4)), Event(serial(8)), Close(serial(9))]);
    expect(&items, 0, &[]);
    let without = |gone: u32| {
        let mut items = items.clone();
        items.retain(|item| !matches!(item, Event(it) if *it == serial(gone)));
        items
    };
    expect(&without(8), 4, &[(2, 2, 1)]);
    expect(&without(2), 4, &[(u64::from(u32::MAX) - 3, u64::from(u32::MAX) - 3, 1)]);
    // Serial 0, which an event may have.
    expect(&without(6), 4, &[(0, 0, 1)]);
}

#[test]
fn a_session_without_an_end_is_judged_up_to_its_last_mark() {
    let mut items = vec![Event(10), Open(10, false)];
    items.extend(events([11, 13, 14, 16]));
    let report = expect(&items, 0, &[]);
    assert_eq!(report["without_end"], 1);
    items.insert(5, Settled(13));
    expect(&items, 4, &[(12, 12, 1)]);
}

#[test]
fn between_sessions_nothing_is_owed_unless_the_first_was_cut_off() {
    let first = || session(events(11..20), 20);
    let second = |goes_on| {
        [vec![Event(30), Open(30, goes_on)], events(31..40), vec![Event(40), Close(40)]].concat()
    };
    let report = expect(&[first(), second(false)].concat(), 0, &[]);
    assert_eq!((&report["sessions"], &report["without_end"]), (&2.into(), &0.into()));
    // What the daemon itself did to give its place back stands nowhere.
    expect(&[first(), second(true)].concat(), 0, &[]);
    let cut = || {
        let mut items = first();
        items.pop();
        items
    };
    let report = expect(&[cut(), second(false)].concat(), 0, &[]);
    assert_eq!(report["without_end"], 1);
    expect(&[cut(), second(true)].concat(), 4, &[(21, 29, 9)]);
    let said = vec![Loss(Cause::NoDaemon, 21, 29, 9)];
    expect(&[cut(), vec![Event(30), Open(30, true)], said, second(true)].concat(), 4, &[]);
}

#[test]
fn another_boot_counts_anew() {
    let mut items = vec![Event(1000), Open(1000, false)];
    items.extend(events([1001, 1003]));
    items.push(Boot);
    items.extend(session(events((11..20).filter(|it| *it != 15)), 20));
    let report = expect(&items, 4, &[(15, 15, 1)]);
    assert_eq!((&report["sessions"], &report["without_end"]), (&2.into(), &1.into()));
}

#[test]
fn records_without_sessions_are_not_judged() {
    let report = expect(&events([1, 5, 9]), 0, &[]);
    assert_eq!(report["sessions"], 0);
}

#[test]
fn only_what_is_asked_for_is_judged() {
    let mut items = vec![Event(10), Open(10, false)];
    // Four segments, each with a hole in the middle and a mark at the end.
    for round in 0..4 {
        let base = 10 + 20 * round;
        items.extend(events((base + 1..=base + 20).filter(|it| *it != base + 8)));
        items.extend([Settled(base + 20), Next]);
    }
    items.push(Close(90));
    let maker = trail(&items);
    let (code, report) = verify(&maker, &[]);
    assert_eq!((code, gaps(&report).len()), (4, 4));
    let starts: Vec<u64> = maker.segments.iter().map(|it| it.frames[0].first_seq).collect();
    let range = |from: u64, to: u64| format!("{from}..{to}");
    // Of the second segment alone nothing can be said before its mark.
    let (code, report) = verify(&maker, &["--seq", &range(starts[1], starts[2])]);
    assert_eq!((code, gaps(&report)), (0, vec![]), "{report:#}");
    let (code, report) = verify(&maker, &["--seq", &range(starts[1], starts[3])]);
    assert_eq!((code, gaps(&report)), (4, vec![(58, 58, 1)]), "{report:#}");
    // The hole shows before the records that are asked for.
    let late = starts[2] + 30;
    let (code, report) = verify(&maker, &["--seq", &range(late, starts[3])]);
    assert_eq!((code, gaps(&report)), (0, vec![]), "{report:#}");
    let (code, report) = verify(&maker, &["--seq", &range(0, starts[1])]);
    assert_eq!((code, gaps(&report)), (4, vec![(18, 18, 1)]), "{report:#}");
    let part = maker.segments[2].path.to_str().expect("a name");
    let more = maker.segments[3].path.to_str().expect("a name");
    let ran = graven(["verify", "--json", part, more]);
    assert_eq!(gaps(&ran.json()["source_gaps"]), [(78, 78, 1)]);
}

#[test]
fn what_damage_hides_is_no_source_gap() {
    let mut items = vec![Event(10), Open(10, false)];
    for round in 0..4 {
        let base = 10 + 20 * round;
        items.extend(events(base + 1..=base + 20));
        items.extend([Settled(base + 20), Next]);
    }
    items.push(Close(90));
    for broken in 0..4 {
        let maker = trail(&items);
        let frame = maker.segments[broken].frames[5];
        maker.flip(broken, frame.offset + 200);
        let (code, report) = verify(&maker, &[]);
        assert_eq!((code, gaps(&report)), (1, vec![]), "{broken}");
        assert_eq!(report["not_judged"], 1);
        // Nor is it one in the trail that is salvaged from it, which says what was damaged.
        let salvaged = maker.path().with_extension("salvaged");
        let to = salvaged.to_str().expect("a name");
        assert_eq!(on("salvage", maker.path(), &[to]).code, 4);
        let ran = on("verify", &salvaged, &["--json"]);
        std::fs::remove_dir_all(&salvaged).expect("it was made");
        assert_eq!((ran.code, gaps(&ran.json()["source_gaps"])), (4, vec![]), "{broken}");
        let maker = trail(&items);
        std::fs::remove_file(&maker.segments[broken].path).expect("it was there");
        let (code, report) = verify(&maker, &[]);
        assert_eq!((code, gaps(&report)), (1, vec![]), "{broken} removed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A writer that lies leaves out some of its statements: their serials are found, and no other.
    #[test]
    fn a_lying_writer_is_found_out(
        marker: u32,
        lost in proptest::collection::btree_set(1_u32..150, 0..20),
        unsaid in proptest::collection::btree_set(1_u32..150, 0..100),
        disorder in 1_usize..12,
        segment in 5_usize..60,
        seed: u64,
    ) {
        let serial = |above: u32| marker.wrapping_add(above);
        let mut there: Vec<u32> = (1..150).filter(|it| !lost.contains(it)).collect();
        for (index, chunk) in there.chunks_mut(disorder).enumerate() {
            chunk.rotate_left(seed.rotate_left(index as u32) as usize % chunk.len());
        }
        let mut items = vec![Event(serial(0)), Open(serial(0), false)];
        items.extend(there.iter().map(|above| Event(serial(*above))));
        items.push(Event(serial(150)));
        let said = lost.iter().filter(|it| !unsaid.contains(it));
        items.extend(said.map(|it| Loss(Cause::SerialGap, serial(*it), serial(*it), 1)));
        items.push(Close(serial(150)));
        let mut cut: Vec<Item> = Vec::new();
        for chunk in items.chunks(segment) {
            cut.extend_from_slice(chunk);
            cut.push(Next);
        }
        let (code, report) = verify(&trail(&cut), &[]);
        let found: BTreeSet<u32> = gaps(&report)
            .into_iter()
            .flat_map(|(first, last, _)| {
                let above = |serial: u64| (serial as u32).wrapping_sub(marker);
                above(first)..=above(last)
            })
            .collect();
        let expected: BTreeSet<u32> = lost.intersection(&unsaid).copied().collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(code, if lost.is_empty() { 0 } else { 4 });
    }
}
