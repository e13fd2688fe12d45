use super::gate::{Gate, Mode};
use super::*;
use crate::source::AppendError;
use graven_format::{Flags, Record, Source};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const TOTAL: u64 = 1000 * MIB;
const SECOND: u64 = 1_000_000_000;

fn settings() -> Settings {
    let limit = |mib, action| Some(Limit { below: Threshold::Mib(mib), action });
    Settings {
        space_left: limit(75, Action::Email),
        admin_space_left: limit(50, Action::Single),
        disk_full: Action::Block,
        disk_error: Action::Halt,
        ring_full: Action::Block,
        upstream_loss: Action::Log,
        checkpoint_overdue: Some((60 * SECOND, Action::Log)),
        reserve_bytes: 0,
        segment_bytes: MIB,
    }
}

fn space(free_mib: u64) -> Event {
    Event::Space { free: free_mib * MIB, total: TOTAL }
}

/// The orders in short: conditions that begin and end, and what else is to be done.
fn short(orders: &[Order]) -> Vec<String> {
    let one = |order: &Order| match order {
        Order::Alarm(Alarm { condition, change: Change::Begins, action, .. }) => {
            format!("{} {action}", condition.name())
        }
        Order::Alarm(Alarm { condition, change: Change::Ends, .. }) => {
            format!("{} over", condition.name())
        }
        Order::Gate(mode) => format!("{mode:?}"),
        Order::ReleaseReserve => "release".to_owned(),
        Order::FillReserve => "fill".to_owned(),
    };
    orders.iter().map(one).collect()
}

#[test]
fn each_threshold_acts_once_and_again_only_after_room_has_returned() {
    let mut machine = Machine::new(settings());
    let mut at = |event| short(&machine.take(event, 0));
    assert!(at(space(75)).is_empty(), "as much is left as is asked for");
    assert_eq!(at(space(74)), ["space_left email"]);
    assert!(at(space(60)).is_empty());
    assert_eq!(at(space(49)), ["admin_space_left single"]);
    assert!(at(space(51)).is_empty(), "it hovers");
    assert!(at(space(49)).is_empty(), "it hovers");
    assert_eq!(at(space(57)), ["admin_space_left over"]);
    assert_eq!(at(space(49)), ["admin_space_left single"]);
    assert_eq!(at(space(900)), ["space_left over", "admin_space_left over"]);
    assert_eq!(at(space(1)), ["space_left email", "admin_space_left single"]);
    // The administrator says that all is well, and it is not.
    assert_eq!(at(Event::Resume), ["space_left over", "admin_space_left over"]);
    assert_eq!(at(space(1)), ["space_left email", "admin_space_left single"]);
}

#[test]
fn a_full_memory_acts_once_and_gates_nobody() {
    for (action, told) in [
        (Action::Single, "ring_full single"),
        (Action::Halt, "ring_full halt"),
        (Action::Exec("/bin/true".into()), "ring_full exec /bin/true"),
        (Action::Block, "ring_full block"),
    ] {
        let mut machine = Machine::new(Settings { ring_full: action, ..settings() });
        let mut at = |full| short(&machine.take(Event::Ring { full }, 0));
        assert_eq!(at(true), [told]);
        assert!(at(true).is_empty());
        assert_eq!(at(false), ["ring_full over"]);
        assert_eq!(at(true), [told]);
    }
    // What happens to the kernel's records is the keeper's to say.
    assert!(Condition::RingFull.refuses(&Action::Drop).is_some());
    assert!(Condition::DiskFull.refuses(&Action::Drop).is_none());
}

#[test]
fn a_full_disk_with_a_reserve_closes_the_gate_before_it_gives_it_back() {
    let settings = Settings {
        reserve_bytes: 10 * MIB,
        space_left: None,
        admin_space_left: None,
        ..settings()
    };
    let mut machine = Machine::new(settings);
    let mut at = |event| short(&machine.take(event, 0));
    assert_eq!(at(space(100)), ["fill"]);
    assert!(at(Event::Reserve { whole: false }).is_empty(), "it is tried again with the next look");
    assert_eq!(at(space(100)), ["fill"]);
    assert!(at(Event::Reserve { whole: true }).is_empty());
    assert!(at(space(100)).is_empty());
    assert_eq!(at(Event::Room { missing: true }), ["Closed", "disk_full block", "release"]);
    assert!(at(Event::Room { missing: false }).is_empty(), "that room is the reserve's");
    assert!(at(space(11)).is_empty(), "too little for a reserve and a segment");
    assert!(at(Event::Room { missing: true }).is_empty(), "the reserve is used up too");
    assert!(at(space(100)).is_empty(), "first the writer");
    assert!(at(Event::Room { missing: false }).is_empty());
    assert_eq!(at(space(100)), ["fill"]);
    assert_eq!(at(Event::Reserve { whole: true }), ["disk_full over", "Open"]);
}

#[test]
fn what_the_reserve_gave_back_does_not_count_as_free() {
    let mut machine = Machine::new(Settings { reserve_bytes: 100 * MIB, ..settings() });
    let _ = machine.take(Event::Reserve { whole: true }, 0);
    assert_eq!(short(&machine.take(space(1), 0)), ["space_left email", "admin_space_left single"]);
    assert_eq!(short(&machine.take(Event::Room { missing: true }, 0)).len(), 3);
    assert!(machine.take(space(101), 0).is_empty(), "it would end both, and begin them again");
}

#[test]
fn a_full_disk_without_a_reserve_is_over_when_room_has_stayed() {
    let mut machine = Machine::new(settings());
    let mut at = |event, s: u64| short(&machine.take(event, s * SECOND));
    assert_eq!(at(Event::Room { missing: true }, 1), ["disk_full block"]);
    assert!(at(Event::Room { missing: false }, 2).is_empty());
    assert!(at(Event::Room { missing: true }, 3).is_empty(), "the same");
    assert!(at(Event::Room { missing: false }, 4).is_empty());
    assert!(at(Event::Room { missing: false }, 8).is_empty());
    assert_eq!(at(Event::Room { missing: false }, 9), ["disk_full over"]);
}

#[test]
fn dropping_is_asked_for_and_ends_with_the_condition() {
    let mut machine = Machine::new(Settings { disk_full: Action::Drop, ..settings() });
    let mut at = |event, s: u64| short(&machine.take(event, s * SECOND));
    assert_eq!(at(Event::Room { missing: true }, 1), ["Dropping", "disk_full drop"]);
    let _ = at(Event::Room { missing: false }, 2);
    assert_eq!(at(Event::Room { missing: false }, 7), ["disk_full over", "Open"]);
}

#[test]
fn losses_and_checkpoints_are_told_once_an_episode() {
    let mut machine = Machine::new(settings());
    let mut at = |event, s: u64| short(&machine.take(event, s * SECOND));
    assert!(at(Event::Losses { statements: 0 }, 1).is_empty());
    assert_eq!(at(Event::Losses { statements: 1 }, 2), ["upstream_loss log"]);
    assert!(at(Event::Losses { statements: 9 }, 50).is_empty());
    assert!(at(Event::Losses { statements: 9 }, 109).is_empty());
    assert_eq!(at(Event::Losses { statements: 9 }, 110), ["upstream_loss over"]);
    let seen = |durable, covered| Event::Checkpoints { durable, covered };
    assert!(at(seen(10, 10), 200).is_empty());
    assert!(at(seen(20, 10), 201).is_empty());
    assert!(at(seen(30, 20), 260).is_empty(), "it goes on, behind the writer");
    assert!(at(seen(40, 29), 319).is_empty());
    assert_eq!(at(seen(40, 29), 320), ["checkpoint_overdue log"]);
    assert_eq!(at(seen(40, 40), 321), ["checkpoint_overdue over"]);
}

#[test]
fn words_are_auditds_where_it_has_them() {
    for (text, action) in [
        ("SYSLOG", Action::Log),
        ("log", Action::Log),
        ("suspend", Action::Block),
        (" exec  /bin/x y", Action::Exec("/bin/x y".into())),
        ("Halt", Action::Halt),
    ] {
        assert_eq!(text.parse(), Ok(action), "{text}");
    }
    for text in ["", "exec", "exec x", "halt now", "rotate", "sysl0g"] {
        assert!(text.parse::<Action>().is_err(), "{text}");
    }
    for (text, bytes) in
        [("75", 75 * MIB), ("75M", 75 * MIB), ("25%", 250 * MIB), ("1%", 10 * MIB), ("0", 0)]
    {
        assert_eq!(text.parse::<Threshold>().expect("a threshold").bytes(TOTAL), bytes, "{text}");
    }
    for text in ["", "%", "0%", "100%", "-1", "+1", "1.5", "75G", "M", "17592186044416"] {
        assert!(text.parse::<Threshold>().is_err(), "{text}");
    }
    assert!(Condition::SpaceLeft.refuses(&Action::Drop).is_some());
    assert!(Condition::DiskError.refuses(&Action::Block).is_some());
    assert!(Condition::DiskFull.refuses(&Action::Drop).is_none());
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..2 * TOTAL, 1..=2 * TOTAL).prop_map(|(free, total)| Event::Space { free: free.min(total), total }),
        2 => any::<bool>().prop_map(|missing| Event::Room { missing }),
        2 => any::<bool>().prop_map(|whole| Event::Reserve { whole }),
        1 => Just(Event::DiskError),
        1 => any::<bool>().prop_map(|full| Event::Ring { full }),
        1 => any::<u64>().prop_map(|statements| Event::Losses { statements }),
        1 => any::<(u64, u64)>().prop_map(|(durable, covered)| Event::Checkpoints { durable, covered }),
        1 => Just(Event::Resume),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![Just(Action::Log), Just(Action::Block), Just(Action::Drop), Just(Action::Ignore)]
}

proptest! {
    #[test]
    fn conditions_begin_and_end_in_turn_and_the_gate_follows_them(
        events in prop::collection::vec((event(), 0..30 * SECOND), 0..200),
        disk_full in action(),
        space_left in action(),
        reserve_mib in prop_oneof![Just(0_u64), 1..2000_u64],
        below in prop_oneof![(0..2000_u64).prop_map(Threshold::Mib), (1..=99_u8).prop_map(Threshold::Percent)],
    ) {
        let settings = Settings {
            disk_full: disk_full.clone(),
            space_left: Some(Limit { below, action: space_left.clone() }),
            reserve_bytes: reserve_mib * MIB,
            ..settings()
        };
        let mut machine = Machine::new(settings);
        let (mut active, mut gate, mut now) = ([false; 7], Mode::Open, 0);
        let (mut told_whole, mut released) = (false, false);
        for (event, pause_ns) in events {
            now += pause_ns;
            if let Event::Reserve { whole } = event {
                (told_whole, released) = (whole, false);
            }
            for order in machine.take(event, now) {
                match order {
                    Order::Alarm(alarm) => {
                        let was = std::mem::replace(&mut active[alarm.condition as usize], alarm.change == Change::Begins);
                        prop_assert_eq!(was, alarm.change == Change::Ends, "in turn: {:?}", alarm);
                        if let (Change::Begins, Some(free), Some(limit)) = (alarm.change, alarm.free, alarm.limit) {
                            prop_assert!(free < limit);
                        }
                    }
                    Order::Gate(mode) => gate = mode,
                    Order::ReleaseReserve => {
                        prop_assert!(told_whole && !released && reserve_mib > 0, "only what is there");
                        prop_assert!(gate != Mode::Open, "producers wait before it is given back");
                        released = true;
                        told_whole = false;
                    }
                    Order::FillReserve => prop_assert!(!told_whole && reserve_mib > 0),
                }
            }
            let full = active[Condition::DiskFull as usize];
            let expected = if full && disk_full == Action::Drop {
                Mode::Dropping
            } else if active[0] && space_left == Action::Block || full && reserve_mib > 0 {
                Mode::Closed
            } else {
                Mode::Open
            };
            prop_assert_eq!(gate, expected);
        }
    }

    #[test]
    fn a_filesystem_that_hovers_around_a_threshold_alarms_once(
        limit_mib in 1..10_000_u64,
        hover in prop::collection::vec(-1.0..0.12_f64, 1..100),
    ) {
        let limit = Limit { below: Threshold::Mib(limit_mib), action: Action::Log };
        let settings = Settings { space_left: Some(limit), admin_space_left: None, ..settings() };
        let mut machine = Machine::new(settings);
        let mut alarms = 0;
        for part in hover {
            let free = ((limit_mib * MIB) as f64 * (1.0 + part)) as u64;
            let orders = machine.take(Event::Space { free, total: u64::MAX }, 0);
            alarms += orders.len();
        }
        prop_assert!(alarms <= 1, "{alarms}");
    }

    #[test]
    fn percents_are_of_the_filesystem_and_overflow_nothing(percent in 1..=99_u8, total in any::<u64>()) {
        let bytes = Threshold::Percent(percent).bytes(total);
        prop_assert!(bytes <= total);
        prop_assert_eq!(u128::from(bytes), u128::from(total) * u128::from(percent) / 100);
        let text = Threshold::Percent(percent).to_string();
        prop_assert_eq!(text.parse(), Ok(Threshold::Percent(percent)));
    }

    #[test]
    fn a_number_of_mib_is_read_back(mib in 0..(1_u64 << 44)) {
        prop_assert_eq!(Threshold::Mib(mib).to_string().parse(), Ok(Threshold::Mib(mib)));
    }
}

fn record(source: Source) -> Record<'static> {
    let (flags, bytes) = (Flags::NONE, b"x");
    Record { source, kind: 0, flags, realtime_ns: 7, boottime_ns: 0, source_seq: 0, bytes }
}

#[test]
fn a_closed_gate_holds_producers_and_lets_our_own_records_pass() {
    let gate = Arc::new(Gate::default());
    gate.set(Mode::Closed);
    assert_eq!(gate.pass(&record(Source::Graven)), Ok(()));
    assert_eq!(gate.try_pass(&record(Source::Stdin)), Err(AppendError::Full));
    let producer = std::thread::spawn({
        let gate = Arc::clone(&gate);
        move || gate.pass(&record(Source::Stdin))
    });
    while gate.waiting() == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(!producer.is_finished());
    gate.set(Mode::Open);
    assert_eq!(producer.join().expect("no panic"), Ok(()));
    assert_eq!(gate.waiting(), 0);
}

#[test]
fn what_is_dropped_is_counted_and_the_end_opens_for_good() {
    let gate = Gate::default();
    gate.set(Mode::Dropping);
    for at in [9, 5, 7] {
        let record = Record { realtime_ns: at, ..record(Source::Socket) };
        assert_eq!(gate.pass(&record), Err(AppendError::Dropped));
    }
    let dropped = gate.take_dropped().expect("three");
    assert_eq!((dropped.source, dropped.count, dropped.between_ns), (Source::Socket, 3, (5, 9)));
    assert_eq!(gate.take_dropped(), None);
    gate.end();
    gate.set(Mode::Closed);
    assert_eq!(gate.pass(&record(Source::Stdin)), Ok(()));
}
