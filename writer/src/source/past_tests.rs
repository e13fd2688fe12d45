//! Tests of a session that is cut and goes on: whatever the trail has by then, each serial that is missing
//! is stated once, and no other.

use super::super::intake::{Intake, Moment, OPENING, Terms, heartbeat_text};
use super::super::{AppendError, Sink};
use super::*;
use graven_format::kind;
use graven_format::loss::Certainty;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Mutex;

const PID: u32 = 77;
const OTHER: u16 = 1400;
const SEC_NS: u64 = 1_000_000_000;

/// A record in memory.
#[derive(Clone, Debug)]
struct Kept {
    source: Source,
    kind: u16,
    flags: Flags,
    realtime_ns: u64,
    source_seq: u64,
    bytes: Vec<u8>,
}

impl Kept {
    fn record(&self) -> Record<'_> {
        Record {
            source: self.source,
            kind: self.kind,
            flags: self.flags,
            realtime_ns: self.realtime_ns,
            boottime_ns: self.realtime_ns,
            source_seq: self.source_seq,
            bytes: &self.bytes,
        }
    }
}

/// A trail in memory.
#[derive(Default)]
struct List(Mutex<Vec<Kept>>);

impl Sink for List {
    fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        let mut kept = self.0.lock().unwrap();
        kept.push(Kept {
            source: record.source,
            kind: record.kind,
            flags: record.flags,
            realtime_ns: record.realtime_ns,
            source_seq: record.source_seq,
            bytes: record.bytes.to_vec(),
        });
        Ok(kept.len() as u64 - 1)
    }

    fn next_seq(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }
}

/// What the memory of these records, the last of this boot, says; as [`Past::read`] does of files.
fn past(kept: &[Kept], settled: Option<Settled>, count_from: Option<u64>) -> Past {
    let mut base = settled.map(Some);
    for (seq, record) in kept.iter().enumerate().filter(|_| settled.is_none()) {
        if let Some(mark) = Mark::read(&record.record()) {
            base = base_of(seq as u64, &mark, base);
        }
    }
    let mut past = Past { count_from, ..Past::default() };
    let at = base.flatten();
    if let Some(at) = at {
        past.begin(&at);
    }
    for (seq, record) in (0..).zip(kept) {
        past.account(seq, &record.record(), at);
    }
    past
}

/// One record that the kernel makes: its serial above the opening marker, and its type.
type Made = (u32, u16);

/// What comes, when, and what never does.
#[derive(Clone, Debug)]
struct Script {
    marker: u32,
    /// Records in the order of their coming, each with the time since the one before.
    coming: Vec<(Made, u64)>,
    /// Serials of events of which nothing comes.
    lost: BTreeSet<u32>,
    /// How many events lose their end.
    partial: u64,
    /// Serials that were made.
    count: u32,
}

/// Events in groups. Inside a group they come in any order, between groups time passes.
fn script() -> impl Strategy<Value = Script> {
    let event = (0_u8..12, any::<bool>(), 0_u64..u64::MAX);
    let group = (proptest::collection::vec(event, 1..12), 0_u64..9);
    (any::<u32>(), proptest::collection::vec(group, 1..14)).prop_map(|(marker, groups)| {
        let mut script = Script {
            marker,
            // Both types are known from the beginning.
            coming: vec![((1, kind::SYSCALL), 1), ((1, kind::EOE), 1)],
            lost: BTreeSet::new(),
            partial: 0,
            count: 1,
        };
        for (events, pause_s) in groups {
            let mut group = Vec::new();
            for (fate, halves, order) in events {
                script.count += 1;
                let serial = script.count;
                match (fate, halves) {
                    (0 | 1, _) => drop(script.lost.insert(serial)),
                    (2, true) => {
                        script.partial += 1;
                        group.push((order, (serial, kind::SYSCALL)));
                    }
                    (_, true) => {
                        group.push((order, (serial, kind::SYSCALL)));
                        group.push((order.rotate_left(7), (serial, kind::EOE)));
                    }
                    (_, false) => group.push((order, (serial, OTHER))),
                }
            }
            group.sort_by_key(|&(order, _)| order);
            let mut pause_ns = pause_s * SEC_NS;
            for (order, made) in group {
                script.coming.push((made, std::mem::take(&mut pause_ns) + order % 40_000_000));
            }
        }
        script
    })
}

fn text(serial: u32, marker: Option<u64>) -> String {
    match marker {
        None => format!("audit(1.000:{serial}): text"),
        Some(number) => {
            let said = heartbeat_text(number);
            format!("audit(1.000:{serial}): pid={PID} uid=0 ses=1 msg='{said}'")
        }
    }
}

/// Gives one record, and says whether it was the opening marker.
fn give(intake: &mut Intake<'_>, kind: u16, text: &str) {
    let bytes = nlmsg::request(kind, 0, text.as_bytes());
    for seen in intake.datagrams([(&bytes[..], bytes.len())].into_iter()).expect("taken") {
        if let super::super::intake::Seen::Heartbeat { number: OPENING, serial } = seen
            && !intake.is_opened()
        {
            intake.start(serial).expect("taken");
        }
    }
}

fn at(now_ns: u64) -> Moment {
    Moment { realtime_ns: now_ns, boottime_ns: now_ns, active_ns: now_ns }
}

fn terms() -> Terms {
    Terms { pids: [PID; 2], lost: 0, left_on: true, own: 0 }
}

/// The places that a keeper would have been told of, and where the trail was before each record.
#[derive(Default)]
struct Told {
    settled: Vec<Settled>,
    seqs: Vec<u64>,
}

/// Feeds the records from index `from` on; -1 is the opening marker. The socket is empty after each.
fn feed(intake: &mut Intake<'_>, list: &List, script: &Script, from: usize) -> Told {
    let mut told = Told::default();
    let mut now_ns = SEC_NS;
    let marker = ((0, kind::TRUSTED_APP), 0);
    for (index, ((serial, kind), after_ns)) in
        std::iter::once(&marker).chain(&script.coming).copied().enumerate()
    {
        now_ns += after_ns;
        if index < from {
            continue;
        }
        told.seqs.push(list.next_seq());
        intake.set_now(at(now_ns));
        let serial = script.marker.wrapping_add(serial);
        give(intake, kind, &text(serial, (index == 0).then_some(OPENING)));
        intake.tick().expect("taken");
        told.settled.extend(intake.settled().expect("taken"));
    }
    told
}

fn end(mut intake: Intake<'_>, last: u32) {
    give(&mut intake, kind::TRUSTED_APP, &text(last, Some(u64::MAX)));
    intake.finish(last, true).expect("taken");
}

/// Checks each statement against what is in front of it, and returns the serials, above the marker, that are stated
/// missing, and how many events are said to be partial.
fn stated(kept: &[Kept], marker: u32) -> (BTreeSet<u32>, u64) {
    let (mut seen, mut all, mut partial) = (BTreeSet::new(), BTreeSet::new(), 0);
    for record in kept {
        if record.source == Source::Netlink {
            seen.insert((record.source_seq as u32).wrapping_sub(marker));
        }
        if !record.flags.contains(Flags::LOSS) {
            continue;
        }
        let (said, _) = LossStatement::parse(&record.bytes).expect("canonical");
        if said.cause == Cause::PartialEvent {
            partial += said.count;
            continue;
        }
        assert!(matches!(said.cause, Cause::SerialGap | Cause::NoDaemon), "{said:?}");
        assert_eq!(said.certainty, Certainty::Exactly);
        let (first, last) = said.range.expect("a range");
        let above = |serial: u64| (serial as u32).wrapping_sub(marker);
        let before = all.len();
        all.extend((above(first)..=above(last)).filter(|serial| !seen.contains(serial)));
        assert_eq!((all.len() - before) as u64, said.count, "{said:?}");
    }
    (all, partial)
}

proptest! {
    #[test]
    fn a_writer_that_takes_anothers_place_states_what_it_would_have(
        script in script(), cut: prop::sample::Index, again: prop::sample::Index, by_mark: bool,
    ) {
        let list = List::default();
        let mut intake = Intake::new(&list, terms(), Past::default(), at(SEC_NS));
        let told = feed(&mut intake, &list, &script, 0);
        drop(intake);
        // Whatever was durable of it is what the next writer finds.
        let cut = cut.index(list.0.lock().unwrap().len() + 1);
        list.0.lock().unwrap().truncate(cut);
        // The memory still has what is not known to be durable, and perhaps more.
        let known = told.seqs.iter().filter(|&&seq| seq <= cut as u64).count();
        let from = again.index(known);
        let settled = told.settled.iter().rev().find(|it| it.by <= cut as u64 && by_mark).copied();
        let past = past(&list.0.lock().unwrap(), settled, Some(told.seqs[from]));
        let mut intake = Intake::new(&list, terms(), past.taken_up(), at(SEC_NS));
        feed(&mut intake, &list, &script, from);
        end(intake, script.marker.wrapping_add(script.count + 1));
        let kept = list.0.into_inner().unwrap();
        let records = kept.iter().filter(|it| it.source == Source::Netlink).count();
        prop_assert_eq!(records, script.coming.len() + 2, "each once");
        let opened = kept.iter().filter_map(|it| Mark::read(&it.record()));
        let opened = opened.filter(|it| matches!(it.what, What::Open { .. })).count();
        prop_assert_eq!(opened, 1);
        prop_assert_eq!(stated(&kept, script.marker), (script.lost, script.partial));
    }

    #[test]
    fn a_session_after_one_that_was_cut_states_all_that_is_not_there(
        script in script(), cut: prop::sample::Index, late in 0_usize..4, early in 0_usize..4,
    ) {
        let list = List::default();
        let mut intake = Intake::new(&list, terms(), Past::default(), at(SEC_NS));
        feed(&mut intake, &list, &script, 0);
        drop(intake);
        let mut kept = list.0.lock().unwrap();
        let cut = cut.index(kept.len() + 1);
        kept.truncate(cut);
        let have = |kept: &[Kept]| -> BTreeSet<u32> {
            let ours = kept.iter().filter(|it| it.source == Source::Netlink);
            ours.map(|it| (it.source_seq as u32).wrapping_sub(script.marker)).collect()
        };
        let opened = kept.iter().any(|it| Mark::read(&it.record()).is_some());
        let past = past(&kept, None, None);
        let had = have(&kept);
        drop(kept);
        let mut intake = Intake::new(&list, terms(), past, at(SEC_NS));
        let marker = script.count + 2;
        let serial = |above: u32| script.marker.wrapping_add(above);
        let rest: Vec<Made> =
            script.coming.iter().map(|(made, _)| *made).filter(|it| !had.contains(&it.0)).collect();
        let late_ones = &rest[rest.len() - late.min(rest.len())..];
        // What attaching itself makes, in front of the marker, and what came late to the queue.
        let firsts: Vec<u32> = (0..early as u32).map(|back| marker - 1 - back).collect();
        for &above in firsts.iter().rev() {
            give(&mut intake, kind::CONFIG_CHANGE, &text(serial(above), None));
        }
        for &(above, _) in late_ones {
            give(&mut intake, OTHER, &text(serial(above), None));
        }
        give(&mut intake, kind::TRUSTED_APP, &text(serial(marker), Some(OPENING)));
        for (above, second) in (marker + 1..marker + 8).zip(1..) {
            intake.set_now(at(SEC_NS + second * SEC_NS));
            give(&mut intake, OTHER, &text(serial(above), None));
            intake.tick().expect("taken");
        }
        end(intake, serial(marker + 8));
        let kept = list.0.into_inner().unwrap();
        let (said, _) = stated(&kept, script.marker);
        let have = have(&kept);
        // Without a mark in the trail nothing is owed that is below the first that came.
        let before = firsts.iter().copied().chain(late_ones.iter().map(|it| it.0));
        let from = if opened { 1 } else { before.min().unwrap_or(marker) };
        let expected: BTreeSet<u32> = (from..marker).filter(|it| !have.contains(it)).collect();
        prop_assert_eq!(said, expected);
    }
}

/// More than the window spans, and more than half of all serials, may have been made meanwhile.
#[test]
fn a_long_absence_is_stated_exactly() {
    for away in [1 << 20, 3 << 20, 3 << 30] {
        let list = List::default();
        let mut intake = Intake::new(&list, terms(), Past::default(), at(SEC_NS));
        give(&mut intake, kind::TRUSTED_APP, &text(10, Some(OPENING)));
        give(&mut intake, OTHER, &text(12, None));
        drop(intake);
        let past = past(&list.0.lock().unwrap(), None, None);
        let mut intake = Intake::new(&list, terms(), past, at(SEC_NS));
        give(&mut intake, kind::CONFIG_CHANGE, &text(12 + away, None));
        give(&mut intake, kind::TRUSTED_APP, &text(14 + away, Some(OPENING)));
        end(intake, 15 + away);
        let kept = list.0.into_inner().unwrap();
        let said: Vec<_> = kept
            .iter()
            .filter(|it| it.flags.contains(Flags::LOSS))
            .map(|it| LossStatement::parse(&it.bytes).expect("canonical").0)
            .map(|said| (said.cause, said.count, said.range.expect("a range")))
            .collect();
        let gap = |first: u32, last: u32| {
            (Cause::NoDaemon, u64::from(last - first) + 1, (u64::from(first), u64::from(last)))
        };
        assert_eq!(said, [gap(11, 11), gap(13, 11 + away), gap(13 + away, 13 + away)]);
    }
}

#[test]
fn a_session_that_turned_audit_off_owes_nothing() {
    let list = List::default();
    let left_off = Terms { left_on: false, ..terms() };
    for marker in [10, 200] {
        let past = past(&list.0.lock().unwrap(), None, None);
        let mut intake = Intake::new(&list, left_off, past, at(SEC_NS));
        give(&mut intake, kind::TRUSTED_APP, &text(marker, Some(OPENING)));
        end(intake, marker + 1);
    }
    assert_eq!(stated(&list.0.into_inner().unwrap(), 10), (BTreeSet::new(), 0));
}

#[test]
fn what_a_daemon_made_itself_when_it_gave_its_place_back_is_no_loss() {
    for (next, lost) in [(13, 0), (14, 0), (20, 6)] {
        let list = List::default();
        let own = Terms { own: 2, ..terms() };
        for marker in [10, next] {
            let past = past(&list.0.lock().unwrap(), None, None);
            let mut intake = Intake::new(&list, own, past, at(SEC_NS));
            give(&mut intake, kind::TRUSTED_APP, &text(marker, Some(OPENING)));
            end(intake, marker + 1);
        }
        let kept = list.0.into_inner().unwrap();
        let said: Vec<_> = kept
            .iter()
            .filter(|it| it.flags.contains(Flags::LOSS))
            .map(|it| LossStatement::parse(&it.bytes).expect("canonical").0)
            .map(|said| (said.cause, said.count, said.range))
            .collect();
        let expected = (lost > 0).then_some((Cause::NoDaemon, lost, Some((12, 19))));
        let expected: Vec<_> = expected.into_iter().collect();
        assert_eq!(said, expected, "{next}");
    }
}

#[test]
fn what_the_kernel_counted_between_two_sessions_is_stated_beside_what_is_missing() {
    let list = List::default();
    for (marker, lost) in [(10, 3), (20, 15)] {
        let past = past(&list.0.lock().unwrap(), None, None);
        let mut intake = Intake::new(&list, Terms { lost, ..terms() }, past, at(SEC_NS));
        give(&mut intake, kind::TRUSTED_APP, &text(marker, Some(OPENING)));
        end(intake, marker + 1);
    }
    let kept = list.0.into_inner().unwrap();
    let said: Vec<_> = kept
        .iter()
        .filter(|it| it.flags.contains(Flags::LOSS))
        .map(|it| LossStatement::parse(&it.bytes).expect("canonical").0)
        .map(|said| (said.cause, said.certainty, said.count))
        .collect();
    // Twelve records, of which at least one was in each of the eight events.
    let expected =
        [(Cause::NoDaemon, Certainty::Exactly, 8), (Cause::KernelLost, Certainty::AtLeast, 4)];
    assert_eq!(said, expected);
}
