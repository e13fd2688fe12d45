use super::*;
use crate::source::AppendError;
use graven_client::wire::{
    ANSWER_BYTES, Answer, Hello, REFUSED, RecordHeader, WELCOME_BYTES, Welcome,
};
use graven_format::loss::LossStatement;
use graven_format::{Flags, Record, Source};
use proptest::prelude::*;
use std::cell::RefCell;

/// Source, kind, source sequence, bytes of a record.
type Kept = (Source, u16, u64, Vec<u8>);

#[derive(Default)]
struct List(RefCell<Vec<Kept>>);

impl Sink for List {
    fn next_seq(&self) -> u64 {
        self.0.borrow().len() as u64
    }

    fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        let mut list = self.0.borrow_mut();
        list.push((record.source, record.kind, record.source_seq, record.bytes.to_vec()));
        assert_eq!(record.flags.contains(Flags::LOSS), LossStatement::parse(record.bytes).is_ok());
        Ok(list.len() as u64 - 1)
    }
}

fn text(list: &List, at: usize) -> String {
    String::from_utf8(list.0.borrow()[at].3.clone()).expect("our own are text")
}

fn sent(records: &[(u64, &[u8])]) -> Vec<u8> {
    let mut sent = Hello { version: 1 }.encode().to_vec();
    for (id, bytes) in records {
        let len = u32::try_from(bytes.len()).expect("short");
        sent.extend_from_slice(&RecordHeader { id: *id, len }.encode());
        sent.extend_from_slice(bytes);
    }
    sent
}

fn answers(answered: &[u8]) -> Vec<Answer> {
    let answers = answered[WELCOME_BYTES..].as_chunks::<ANSWER_BYTES>();
    assert_eq!(answers.1, [0_u8; 0]);
    answers.0.iter().map(Answer::decode).collect()
}

#[test]
fn a_client_is_named_before_its_records_and_they_are_its_bytes() {
    let list = List::default();
    let answered = served(&sent(&[(7, b"one\n\xff"), (7, b""), (1, b"three")]), 5, &list);
    let welcome = Welcome::decode(answered.first_chunk().expect("a welcome")).expect("ours");
    assert_eq!((welcome.version, welcome.client, welcome.trail_id), (1, 42, [7; 16]));
    let expected = [(7, 1), (7, 2), (1, 3)].map(|(id, seq)| Answer { id, seq });
    assert_eq!(answers(&answered), expected);
    assert!(
        text(&list, 0)
            .ends_with("op=socket-connect client=42 pid=1 uid=2 gid=3 auid=4 ses=5 res=success")
    );
    for (at, (id, bytes)) in
        [(7, &b"one\n\xff"[..]), (7, b""), (1, b"three")].into_iter().enumerate()
    {
        assert_eq!(list.0.borrow()[at + 1], (Source::Socket, 42, id, bytes.to_vec()));
    }
    assert!(text(&list, 4).contains("op=socket-close client=42"), "{}", text(&list, 4));
    assert!(
        text(&list, 4).ends_with(
            "reason=eof records=3 refused=0 unanswered=0 unfinished-bytes=0 res=success"
        )
    );
    assert_eq!(list.0.borrow().len(), 5);
}

#[test]
fn what_is_too_long_is_refused_and_stated_and_ends_it() {
    let list = List::default();
    let mut bytes = sent(&[(1, b"one")]);
    bytes.extend_from_slice(&RecordHeader { id: 2, len: u32::MAX }.encode());
    bytes.extend_from_slice(&sent(&[(3, b"three")])[16..]);
    let answered = served(&bytes, 1000, &list);
    assert_eq!(answers(&answered), [Answer { id: 1, seq: 1 }, Answer { id: 2, seq: REFUSED }]);
    let (statement, _) = LossStatement::parse(text(&list, 2).as_bytes()).expect("a statement");
    assert_eq!((statement.source, statement.range), (Source::Socket, Some((2, 2))));
    assert!(text(&list, 3).contains("reason=too-long records=1 refused=1"));
    assert_eq!(list.0.borrow().len(), 4);
}

#[test]
fn strangers_and_later_versions_are_said_and_told() {
    let list = List::default();
    assert_eq!(served(b"GET / HTTP/1.1\r\n\r\n", 100, &list), b"");
    assert!(text(&list, 0).contains("op=socket-refuse client=42 pid=1"));
    assert!(text(&list, 0).contains("reason=stranger records=0"));
    let mut hello = Hello { version: 2 }.encode().to_vec();
    hello.extend_from_slice(&sent(&[(1, b"x")])[16..]);
    let answered = served(&hello, 1000, &list);
    let welcome = Welcome::decode(answered.first_chunk().expect("a welcome")).expect("ours");
    assert_eq!((welcome.version, answered.len()), (1, WELCOME_BYTES));
    assert!(text(&list, 1).contains("reason=version records=0"), "{}", text(&list, 1));
    assert_eq!(list.0.borrow().len(), 2);
}

#[test]
fn a_record_that_is_cut_off_was_none() {
    let list = List::default();
    let bytes = sent(&[(1, b"one"), (2, b"two")]);
    let answered = served(&bytes[..bytes.len() - 1], 1, &list);
    assert_eq!(answers(&answered), [Answer { id: 1, seq: 1 }]);
    assert!(text(&list, 2).contains("records=1 refused=0 unanswered=0 unfinished-bytes=14"));
}

proptest! {
    #[test]
    fn any_bytes_are_served_the_same_however_they_are_cut(
        greet: bool,
        bytes in proptest::collection::vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>()], 0..300),
        piece in 1_usize..64,
    ) {
        let mut all = if greet { sent(&[(3, b"three")]) } else { Vec::new() };
        all.extend_from_slice(&bytes);
        let (one, other) = (List::default(), List::default());
        let answered = served(&all, piece, &one);
        prop_assert_eq!(served(&all, usize::MAX, &other), answered);
        let (one, other) = (one.0.into_inner(), other.0.into_inner());
        let own = |it: &&Kept| it.0 == Source::Socket;
        prop_assert!(one.iter().filter(own).eq(other.iter().filter(own)));
        prop_assert_eq!(one.len(), other.len());
    }
}
