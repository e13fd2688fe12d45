//! Tests of the serial window.

use proptest::prelude::*;

use super::*;

const TOLERANCE: Tolerance = Tolerance { time_ns: 2_000_000_000, event_time_ns: 9_000_000_000 };
const SEC_NS: u64 = 1_000_000_000;
const OTHER: u16 = 1400;

/// A window that starts behind the marker `marker`.
fn started(marker: u32) -> Window {
    let mut window = Window::new(TOLERANCE);
    window.note(marker, kind::TRUSTED_APP);
    window.start(marker);
    window
}

/// The missing serials, one by one.
fn serials(missing: &Missing) -> Vec<u32> {
    missing.gaps.iter().flat_map(|gap| gap.first..=gap.last).collect()
}

/// Ends the window at the highest serial seen.
fn finish(window: &mut Window) -> Missing {
    window.finish(window.head().wrapping_sub(1))
}

#[test]
fn what_is_above_the_closing_marker_is_no_longer_owed() {
    let mut window = started(10);
    for serial in [11, 12, 14, 15, 20] {
        window.note(serial, OTHER);
    }
    assert!(!window.is_complete_to(15));
    assert_eq!(serials(&window.finish(15)), [13]);
}

#[test]
fn a_gap_is_given_up_after_its_time_and_not_before() {
    let mut window = started(10);
    for serial in [11, 12, 15, 16] {
        window.note(serial, OTHER);
    }
    assert!(window.tick(0).is_empty());
    assert!(!window.is_settled());
    assert!(window.tick(TOLERANCE.time_ns - 1).is_empty());
    let missing = window.tick(TOLERANCE.time_ns);
    assert_eq!(missing.gaps, [Gap { first: 13, last: 14 }]);
    assert!(window.is_settled());
    assert!(window.tick(100 * SEC_NS).is_empty(), "said once");
    assert_eq!(window.events(), 4);
}

#[test]
fn a_late_serial_fills_its_hole() {
    let mut window = started(10);
    window.note(12, OTHER);
    assert!(window.tick(0).is_empty());
    window.note(11, OTHER);
    assert!(window.tick(10 * SEC_NS).is_empty());
    assert!(window.is_complete_to(12));
}

#[test]
fn what_is_missing_between_the_first_serial_and_the_marker_was_lost_without_a_daemon() {
    let mut window = Window::new(TOLERANCE);
    // Above the marker (20), yet before it: 22 and 21 must not be forgotten. Of 15 and below nobody knows.
    for serial in [22, 16, 18, 21, 20] {
        window.note(serial, OTHER);
    }
    assert!(window.start(20), "17 and 19 are not here yet");
    window.note(23, OTHER);
    assert!(window.tick(0).is_empty(), "they may still come");
    window.note(17, OTHER);
    let missing = finish(&mut window);
    assert_eq!((missing.absent, missing.gaps), (vec![Gap { first: 19, last: 19 }], vec![]));
    assert_eq!(window.events(), 3, "those above the marker");
}

#[test]
fn an_event_that_began_before_the_marker_is_not_partial() {
    let mut window = Window::new(TOLERANCE);
    // Nobody took the beginning of 18, nor of 19, whose end comes behind the marker.
    for (serial, kind) in [(18, kind::EOE), (19, OTHER), (20, kind::TRUSTED_APP)] {
        window.note(serial, kind);
    }
    assert!(!window.start(20));
    for (serial, kind) in [(19, kind::EOE), (21, kind::SYSCALL), (21, kind::EOE)] {
        window.note(serial, kind);
    }
    assert!(window.is_complete_to(21));
    assert!(finish(&mut window).is_empty());
}

#[test]
fn a_serial_lost_just_behind_the_marker_is_missed() {
    let mut window = Window::new(TOLERANCE);
    for serial in [22, 20] {
        window.note(serial, OTHER);
    }
    window.start(20);
    assert_eq!(serials(&finish(&mut window)), [21]);
}

#[test]
fn ranges_are_split_where_serials_wrap() {
    let mut window = started(u32::MAX - 2);
    window.note(3, OTHER);
    let gaps = finish(&mut window).gaps;
    let expected = [Gap { first: u32::MAX - 1, last: u32::MAX }, Gap { first: 0, last: 2 }];
    assert_eq!(gaps, expected);
}

#[test]
fn a_jump_past_the_span_is_one_exact_gap() {
    let mut window = started(100);
    window.note(105, OTHER);
    let far = 100 + 3 * SPAN as u32;
    window.note(far, OTHER);
    let gaps = finish(&mut window).gaps;
    assert_eq!(gaps, [Gap { first: 101, last: 104 }, Gap { first: 106, last: far - 1 }]);
}

#[test]
fn an_event_without_its_end_is_partial_once_ends_are_known_to_come() {
    let mut window = started(10);
    for (serial, kind) in [(11, kind::SYSCALL), (12, kind::SYSCALL), (12, kind::EOE)] {
        window.note(serial, kind);
    }
    assert!(!window.is_complete_to(12));
    assert!(window.tick(0).is_empty());
    assert!(window.tick(3 * SEC_NS).is_empty(), "set aside, not given up");
    assert!(!window.is_complete_to(12));
    assert_eq!(window.tick(30 * SEC_NS).partial, [11]);
    assert!(window.is_complete_to(12));
}

#[test]
fn an_open_event_may_end_much_later() {
    let mut window = started(10);
    for (serial, kind) in [(11, kind::SYSCALL), (12, kind::SYSCALL), (12, kind::EOE)] {
        window.note(serial, kind);
    }
    window.tick(0);
    window.tick(3 * SEC_NS);
    window.note(11, kind::EOE);
    assert!(window.tick(30 * SEC_NS).is_empty());
    assert!(finish(&mut window).is_empty());
}

#[test]
fn events_are_not_judged_where_rules_discard_their_ends() {
    let mut window = started(10);
    for serial in 11..20 {
        window.note(serial, kind::SYSCALL);
    }
    assert!(window.is_complete_to(19));
    window.tick(0);
    assert!(window.tick(100 * SEC_NS).is_empty());
    assert!(finish(&mut window).is_empty());
}

#[test]
fn a_ring_operation_ends_with_or_without_its_own_end() {
    let mut window = started(10);
    for (serial, kind) in [
        (11, kind::URINGOP),
        (11, kind::EOE),
        (12, kind::URINGOP),
        (13, kind::SYSCALL),
        (13, kind::EOE),
    ] {
        window.note(serial, kind);
    }
    assert!(finish(&mut window).is_empty());
}

#[test]
fn a_statement_about_whole_events_says_nothing_of_one_that_is_open_among_them() {
    let mut window = Window::at(TOLERANCE, 10, true);
    for (serial, kind) in [(12, kind::SYSCALL), (14, OTHER)] {
        window.note_again(serial, kind);
    }
    assert_eq!(window.stated(11, 13, false), 2);
    window.resume(0, false);
    assert_eq!(finish(&mut window), Missing { partial: vec![12], ..Missing::default() });
}

#[test]
fn open_events_set_aside_are_bounded() {
    let mut window = started(0);
    window.note(1, kind::SYSCALL);
    window.note(1, kind::EOE);
    let count = OPEN_MAX as u32 + 10;
    for serial in 2..2 + count {
        window.note(serial, kind::SYSCALL);
    }
    window.tick(0);
    let partial = window.tick(3 * SEC_NS).partial;
    assert_eq!(partial, (2..12).collect::<Vec<_>>());
    assert_eq!(finish(&mut window).partial.len(), OPEN_MAX);
}

/// Serials shuffled by at most `distance` places, from a seed.
fn shuffled(count: u32, distance: u32, seed: u64) -> Vec<u32> {
    let mut order: Vec<(u64, u32)> = (0..count)
        .map(|index| {
            let noise = (u64::from(index) ^ seed)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_right(29)
                .wrapping_mul(0xbf58_476d_1ce4_e5b9)
                >> 33;
            (u64::from(index) + noise % (u64::from(distance) + 1), index)
        })
        .collect();
    order.sort();
    order.into_iter().map(|(_, index)| index).collect()
}

proptest! {
    #[test]
    fn disorder_within_the_tolerance_is_no_gap(
        marker: u32, count in 1_u32..3000, distance in 0_u32..500, seed: u64, pace_ns in 0_u64..3_000_000,
    ) {
        let mut window = started(marker);
        let mut now_ns = 0;
        for index in shuffled(count, distance, seed) {
            window.note(marker.wrapping_add(1 + index), OTHER);
            now_ns += pace_ns;
            prop_assert!(window.tick(now_ns).is_empty());
        }
        prop_assert!(window.is_complete_to(marker.wrapping_add(count)));
        prop_assert!(finish(&mut window).is_empty());
        prop_assert_eq!(window.events(), u64::from(count));
    }

    #[test]
    fn every_serial_left_out_is_reported_once_and_no_other(
        marker: u32,
        count in 2_u32..3000,
        distance in 0_u32..300,
        seed: u64,
        pace_ns in 0_u64..3_000_000,
        left_out in proptest::collection::btree_set(0_u32..3000, 0..40),
    ) {
        let mut window = started(marker);
        let mut now_ns = 0;
        let mut reported = Vec::new();
        for index in shuffled(count, distance, seed) {
            // The last one stands for the closing marker, which is awaited and so never lost.
            if index + 1 == count || !left_out.contains(&index) {
                window.note(marker.wrapping_add(1 + index), OTHER);
            }
            now_ns += pace_ns;
            reported.extend(serials(&window.tick(now_ns)));
        }
        reported.extend(serials(&finish(&mut window)));
        let expected: Vec<u32> = left_out
            .into_iter()
            .filter(|&index| index + 1 < count)
            .map(|index| marker.wrapping_add(1 + index))
            .collect();
        prop_assert_eq!(reported, expected);
    }

    #[test]
    fn any_order_of_any_calls_is_taken(
        base: u32,
        far: u32,
        calls in proptest::collection::vec((0_u32..6000, 1300_u16..1340, 0_u8..9, any::<u32>()), 0..100),
    ) {
        let mut window = Window::new(TOLERANCE);
        let mut now_ns = 0;
        for (index, (offset, kind, call, pause_ns)) in calls.into_iter().enumerate() {
            // One far jump in the middle: each costs a walk over the span.
            let serial = if index == 50 { far } else { base.wrapping_add(offset) };
            now_ns += u64::from(pause_ns);
            match call {
                0 => drop(window.tick(now_ns)),
                1 => drop(window.start(serial)),
                2 => {
                    let _ = window.is_complete_to(serial);
                }
                _ => window.note(serial, kind),
            }
        }
        finish(&mut window);
    }
}
