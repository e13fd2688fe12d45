//! What another crate's test does with the twin: a record in, and out of the reader's mapping.

use graven_shim_abi::decode::{ItemKind, parse};
use graven_shim_abi::{Call, ITEM_CWD, PART_CALL, PART_LAST, PART_NO_RETURN, PART_ORPHAN};
use graven_shim_twin::{NoReader, Reader, Twin, Verdict};

#[test]
fn a_record_goes_in_and_comes_out() {
    let twin = Twin::new(2, 64, 4096).unwrap();
    let reader = Reader::map(&twin.memory().unwrap()).unwrap();
    let mut task = twin.task();
    assert_eq!(task.enter(7, 0), Verdict::Go);
    task.begin(&Call { nr: 257, ..Call::default() });
    task.number();
    assert!(task.item(ITEM_CWD, 0, 0, 0, b"/tmp"));
    assert!(task.push(7, PART_LAST));
    let (bytes, slots) = reader.part(1, 0).unwrap();
    assert_eq!(slots, reader.head(1));
    let part = parse(&bytes).unwrap();
    assert_eq!((part.header.kind, part.header.ring), (PART_CALL, 1));
    assert_eq!((part.call().unwrap().nr, part.call().unwrap().items), (257, 1));
    let item = part.items().next().unwrap();
    assert_eq!((item.kind(), item.bytes), (ItemKind::Cwd, &b"/tmp"[..]));
    assert_eq!(reader.control().order_next, 1);
}

#[test]
fn a_task_that_is_dropped_in_a_call_leaves_an_orphan_that_no_tail_need_move_for() {
    let twin = Twin::new(1, 16, 512).unwrap();
    let reader = Reader::map(&twin.memory().unwrap()).unwrap();
    let mut task = twin.task();
    assert_eq!(task.enter(0, 0), Verdict::Go);
    task.begin(&Call::default());
    drop(task);
    let (bytes, _) = reader.part(0, 0).unwrap();
    let part = parse(&bytes).unwrap();
    assert!(part.is_last() && part.has(PART_ORPHAN) && part.has(PART_NO_RETURN));
    assert_eq!((twin.status().orphans, twin.status().tasks), (0, 0));
    assert_eq!(twin.task().enter(0, 0), Verdict::Go);
}

#[test]
fn rings_that_cannot_be_are_refused() {
    for (rings, slots, part) in [
        (0, 64, 512),
        (1025, 64, 512),
        (1, 63, 512),
        (1, 8, 512),
        (1, 64, 511),
        (1, 64, 4097),
        (1, 0, 512),
    ] {
        let error = Twin::new(rings, slots, part).unwrap_err();
        assert!(error.to_string().contains("cannot be"), "{error}");
    }
}

#[test]
fn every_ring_is_tried_whatever_the_hint_is() {
    let twin = Twin::new(3, 16, 512).unwrap();
    let reader = Reader::map(&twin.memory().unwrap()).unwrap();
    twin.set_policy(NoReader::Block, 0);
    let mut task = twin.task();
    let mut pushed = 0;
    while task.enter(u32::MAX, 0) == Verdict::Go {
        task.begin(&Call::default());
        task.number();
        assert!(task.push(u32::MAX, PART_LAST));
        pushed += 1;
    }
    // The gate shuts when the last one has less than two parts' room.
    assert_eq!([0, 1, 2].map(|ring| reader.head(ring)), [16, 16, 13]);
    assert_eq!(pushed, 16 + 16 + 13);
}

#[test]
fn a_bad_tail_is_counted_though_the_gate_is_shut_and_nobody_pushes() {
    let twin = Twin::new(1, 16, 512).unwrap();
    let reader = Reader::map(&twin.memory().unwrap()).unwrap();
    reader.set_tail(0, 1);
    assert_eq!(twin.task().enter(0, 0), Verdict::Wait);
    twin.drain(0);
    assert_eq!((reader.producer(0).bad_tails, twin.status().bad_tails), (1, 1));
    assert_eq!(reader.producer(0).tail, 0, "what is believed can be learned");
    reader.set_tail(0, 0);
    assert_eq!(twin.task().enter(0, 0), Verdict::Go);
}
