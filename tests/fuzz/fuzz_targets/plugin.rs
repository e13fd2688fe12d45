//! What auditd gives a plugin, any bytes: every one of them is in a record or stated, and the records are
//! the same however the bytes are cut.
#![no_main]

use graven_format::{Record, Source};
use graven_writer::source::plugin::{Format, fed};
use graven_writer::source::{AppendError, Sink};
use std::cell::RefCell;

#[derive(Default)]
struct List(RefCell<Vec<(u16, u64, Vec<u8>)>>);

impl Sink for List {
    fn next_seq(&self) -> u64 {
        0
    }

    fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        if record.source == Source::Import {
            let record = (record.kind, record.source_seq, record.bytes.to_vec());
            self.0.borrow_mut().push(record);
        }
        Ok(0)
    }
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [format, piece, sent @ ..] = input else { return };
    let format = [Format::Auto, Format::String, Format::Binary][usize::from(format % 3)];
    let (one, other) = (List::default(), List::default());
    let summary = fed(sent, usize::from(*piece), format, &one).expect("the list takes everything");
    assert_eq!(fed(sent, usize::MAX, format, &other), Ok(summary));
    assert_eq!(one.0, other.0);
    assert_eq!(summary.records, one.0.borrow().len() as u64);
});
