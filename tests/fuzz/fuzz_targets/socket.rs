//! What an application sends over the socket, any bytes: each record is answered once, in its order, and both
//! are the same however the bytes are cut.
#![no_main]

use graven_format::{Record, Source};
use graven_writer::source::socket::served;
use graven_writer::source::{AppendError, Sink};
use std::cell::RefCell;

#[derive(Default)]
struct List(RefCell<Vec<(u64, Vec<u8>)>>);

impl Sink for List {
    fn next_seq(&self) -> u64 {
        0
    }

    fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        if record.source == Source::Socket {
            self.0.borrow_mut().push((record.source_seq, record.bytes.to_vec()));
        }
        Ok(0)
    }
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [piece, sent @ ..] = input else { return };
    let (one, other) = (List::default(), List::default());
    let answers = served(sent, usize::from(*piece), &one);
    assert_eq!(served(sent, usize::MAX, &other), answers);
    assert_eq!(one.0, other.0);
    // A greeting, and an answer a record; one more if one was refused.
    let answered = answers.len().saturating_sub(40) / 16;
    assert!(answered == one.0.borrow().len() || answered == one.0.borrow().len() + 1);
});
