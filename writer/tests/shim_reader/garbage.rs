//! Whatever lies in the memory, a reader says what is wrong and where, or takes it; it neither panics nor runs on for ever.

use crate::rig::{Side, ring_at};
use graven_shim_abi::{Control, PAGE_BYTES, PART_CALL, PART_PAD, Part, SLOT_BYTES};
use graven_shim_twin::Twin;
use graven_writer::source::shim::{Memory, ShimError};
use proptest::prelude::*;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

const SLOTS: u32 = 16;

fn memory() -> (Twin, File) {
    let twin = Twin::new(2, SLOTS, 512).unwrap();
    let file = twin.memory().unwrap();
    (twin, file)
}

/// All parts of a ring up to its head, as a reader takes them.
fn walk(memory: &Memory, ring: u32) -> Result<Vec<Vec<u8>>, ShimError> {
    let (mut position, head) = (memory.tail(ring), memory.head(ring));
    let mut parts = Vec::new();
    while position != head {
        let mut bytes = Vec::new();
        let next = memory.part(ring, position, head, &mut bytes)?;
        assert!(next > position && next <= head, "it goes on, and not too far");
        position = next;
        parts.push(bytes);
    }
    Ok(parts)
}

/// A header that is likely to be nearly right.
fn header() -> impl Strategy<Value = Part> {
    let bytes = prop_oneof![any::<u32>(), 0..600u32, (0..20u32).prop_map(|slots| slots * 256)];
    let kind = prop_oneof![Just(PART_PAD), Just(PART_CALL), any::<u16>()];
    (bytes, kind, 0..3u32, any::<u64>(), any::<u64>()).prop_map(
        |(bytes, kind, ring, ring_seq, order)| Part {
            bytes,
            kind,
            ring,
            ring_seq,
            order,
            ..Part::default()
        },
    )
}

/// A position that is likely to be nearly right.
fn position() -> impl Strategy<Value = u64> {
    prop_oneof![0..40u64, any::<u64>(), (0..40u64).prop_map(|less| u64::MAX - less)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn parts_that_cannot_be_are_errors_that_name_their_place(
        headers in proptest::collection::vec(header(), SLOTS as usize),
        head in position(),
        tail in position(),
    ) {
        let (_twin, file) = memory();
        let mapped = Memory::map(&file).unwrap();
        let at = ring_at(1, SLOTS);
        for (slot, header) in headers.iter().enumerate() {
            let place = at + 2 * PAGE_BYTES + slot * SLOT_BYTES;
            file.write_all_at(&header.to_bytes(), place as u64).unwrap();
        }
        file.write_all_at(&head.to_le_bytes(), at as u64).unwrap();
        file.write_all_at(&tail.to_le_bytes(), (at + PAGE_BYTES) as u64).unwrap();
        match walk(&mapped, 1) {
            Ok(parts) => prop_assert!(parts.iter().all(|bytes| bytes.len() <= 512)),
            Err(ShimError::Ring { ring: 1, position, .. }) => {
                prop_assert!(position == tail || (tail..head).contains(&position));
            }
            Err(why) => prop_assert!(false, "{why}"),
        }
        prop_assert!(walk(&mapped, 0).unwrap().is_empty());
    }
}

#[test]
fn a_session_over_garbage_ends_with_what_is_wrong_and_gives_no_room_back() {
    let dir = crate::temp_dir();
    let side = Side::new(2, SLOTS, 512);
    let file = side.twin.memory().unwrap();
    side.call(&mut side.twin.task(), 1, 0, 1);
    let at = ring_at(1, SLOTS);
    // As small as the smallest, so that what is wrong is not that it goes past the head.
    let good = Part { bytes: 224, kind: PART_CALL, ring: 1, ..Part::default() };
    for (wrong, said) in [
        (Part { bytes: 0, ..good }, "impossible length"),
        (Part { bytes: 513, ..good }, "impossible length"),
        (Part { ring: 0, ..good }, "another ring"),
        (Part { bytes: 256, kind: PART_PAD, ..good }, "a pad does not end"),
    ] {
        file.write_all_at(&wrong.to_bytes(), (at + 2 * PAGE_BYTES) as u64).unwrap();
        let stop = graven_writer::source::netlink::Stop::new().unwrap();
        stop.request();
        let why = crate::session(dir.path(), &side, crate::Plan::WHOLE, &stop).unwrap_err();
        let text = why.to_string();
        assert!(text.starts_with("ring 1, position 0: ") && text.contains(said), "{text}");
        assert_eq!(Memory::look(&file).unwrap().tail(1), 0);
    }
    assert!(crate::read(dir.path()).parts.is_empty());
}

#[test]
fn memory_that_is_no_shims_is_refused_and_says_why() {
    let (_twin, file) = memory();
    let good = *Memory::look(&file).unwrap().control();
    for (wrong, said) in [
        (Control { magic: 1, ..good }, "magic"),
        (Control { version: 7, ..good }, "version 7"),
        (Control { ring_count: 0, ..good }, "geometry"),
        (Control { ring_count: 1025, ..good }, "geometry"),
        (Control { slots: 15, ..good }, "geometry"),
        (Control { slots: 0, ..good }, "geometry"),
        (Control { slot_bytes: 128, ..good }, "geometry"),
        (Control { part_bytes_max: 0, ..good }, "geometry"),
        (Control { part_bytes_max: 2048, ..good }, "geometry"),
        (Control { rings_offset: 0, ..good }, "geometry"),
        (Control { ring_stride: u64::MAX, ..good }, "geometry"),
        (Control { ring_count: 3, ..good }, "where its layout has"),
    ] {
        file.write_all_at(&wrong.to_bytes(), 0).unwrap();
        let text = Memory::map(&file).unwrap_err().to_string();
        assert!(text.contains(said), "{text}");
    }
    let short = tempfile::tempfile().unwrap();
    assert!(Memory::map(&short).unwrap_err().to_string().contains("0 bytes"));
}
