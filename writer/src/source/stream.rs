//! Lines of a stream: one record a line, whatever bytes are in it.
//!
//! A line ends at a line feed, which is not part of the record; a carriage return before it is. The
//! last line may end without one, and its record says so ([`Flags::UNTERMINATED`]), so that an
//! export gives back exactly the bytes that came in. The record's source sequence is the
//! line's number, from 1.
//!
//! A line that is longer than a record may be is neither cut nor passed over in silence: a loss
//! statement stands in its place, and the caller is told.

use crate::clock::Now;
use crate::source::{AppendError, Sink};
use graven_format::consts::RECORD_PAYLOAD_BYTES_MAX;
use graven_format::loss::{Cause, Certainty, LossStatement};
use graven_format::{Flags, Record, Source};
use memchr::memchr_iter;
use std::io::{self, Read};

/// Bytes of the buffer: what one read takes at most, and more than the longest line that is kept.
const BUFFER_BYTES: usize = 1024 * 1024;

const _: () = assert!(BUFFER_BYTES > 2 * RECORD_PAYLOAD_BYTES_MAX, "a read always has room");

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines, those that were refused included.
    pub lines: u64,
    /// Of these, lines that were too long.
    pub refused: u64,
    /// Bytes, line feeds included.
    pub bytes: u64,
}

/// A line that was too long to be a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its number, from 1.
    pub line: u64,
    /// Its bytes, without the line feed.
    pub bytes: u64,
}

/// Why a stream was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It could not be read; every line before has been appended, and so has a statement that
    /// more may have followed.
    #[error("cannot read the input after line {line}: {source}")]
    Read {
        /// Lines read before.
        line: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The trail did not take the line.
    #[error("line {line} was not taken: {source}")]
    Append {
        /// Its number, from 1.
        line: u64,
        /// Why.
        #[source]
        source: AppendError,
    },
}

/// Reads `input` to its end and appends every line to `sink`. `now` is asked once a read, because
/// that is when its lines were taken; `refused` is told of every line that is too long.
///
/// # Errors
/// [`StreamError`]; what was appended before stays appended.
pub fn read_lines(
    input: &mut dyn Read,
    sink: &dyn Sink,
    now: &dyn Fn() -> Now,
    refused: &mut dyn FnMut(Refused),
) -> Result<Summary, StreamError> {
    let mut lines =
        Lines { sink, refused, now: now(), summary: Summary::default(), too_long: None };
    let mut buf = vec![0; BUFFER_BYTES];
    // The beginning of a line whose end has not come yet stands at the start of the buffer.
    let mut held = 0;
    loop {
        let len = match input.read(&mut buf[held..]) {
            Ok(len) => len,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => {
                lines.now = now();
                lines.end(&buf[..held])?;
                lines.undrained()?;
                return Err(StreamError::Read { line: lines.summary.lines, source });
            }
        };
        lines.now = now();
        if len == 0 {
            lines.end(&buf[..held])?;
            return Ok(lines.summary);
        }
        lines.summary.bytes += len as u64;
        let filled = held + len;
        let mut start = 0;
        for feed in memchr_iter(b'\n', &buf[held..filled]) {
            let end = held + feed;
            lines.line(&buf[start..end], Flags::NONE)?;
            start = end + 1;
        }
        held = lines.hold(filled - start);
        buf.copy_within(start..start + held, 0);
    }
}

/// The state between reads.
struct Lines<'a> {
    sink: &'a dyn Sink,
    refused: &'a mut dyn FnMut(Refused),
    now: Now,
    summary: Summary,
    /// Bytes that have been let go of the present line, because it is too long.
    too_long: Option<u64>,
}

impl Lines<'_> {
    /// A line has come to its end.
    fn line(&mut self, rest: &[u8], flags: Flags) -> Result<(), StreamError> {
        self.summary.lines += 1;
        let bytes = self.too_long.take().unwrap_or(0) + rest.len() as u64;
        if bytes > RECORD_PAYLOAD_BYTES_MAX as u64 {
            return self.refuse(bytes);
        }
        self.append(&Record {
            source: Source::Stdin,
            kind: 0,
            flags,
            realtime_ns: self.now.realtime_ns,
            boottime_ns: self.now.boottime_ns,
            source_seq: self.summary.lines,
            bytes: rest,
        })
    }

    /// How many of the `rest` bytes of a line without an end are kept in the buffer.
    fn hold(&mut self, rest: usize) -> usize {
        if self.too_long.is_some() || rest > RECORD_PAYLOAD_BYTES_MAX {
            self.too_long = Some(self.too_long.unwrap_or(0) + rest as u64);
            return 0;
        }
        rest
    }

    /// The stream has come to its end.
    fn end(&mut self, rest: &[u8]) -> Result<(), StreamError> {
        if rest.is_empty() && self.too_long.is_none() {
            return Ok(());
        }
        self.line(rest, Flags::UNTERMINATED)
    }

    fn refuse(&mut self, bytes: u64) -> Result<(), StreamError> {
        let line = self.summary.lines;
        self.summary.refused += 1;
        self.state(Cause::InputTooLong, Certainty::Exactly, 1, Some((line, line)))?;
        (self.refused)(Refused { line, bytes });
        Ok(())
    }

    /// Whether more would have come is not known.
    fn undrained(&mut self) -> Result<(), StreamError> {
        self.state(Cause::Undrained, Certainty::AtLeast, 0, None)
    }

    fn state(
        &self,
        cause: Cause,
        certainty: Certainty,
        count: u64,
        range: Option<(u64, u64)>,
    ) -> Result<(), StreamError> {
        let source = Source::Stdin;
        let statement = LossStatement { source, cause, certainty, count, range, between_ns: None };
        let payload = statement.encode(self.now.realtime_ns);
        let Now { realtime_ns, boottime_ns } = self.now;
        self.append(&LossStatement::record(&payload, realtime_ns, boottime_ns))
    }

    fn append(&self, record: &Record<'_>) -> Result<(), StreamError> {
        let line = self.summary.lines;
        self.sink.append(record).map(drop).map_err(|source| StreamError::Append { line, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;

    /// What was appended: flags, source sequence, bytes.
    type Appended = (Flags, u64, Vec<u8>);

    /// A sink that keeps what it takes, until it is full.
    #[derive(Default)]
    struct List {
        records: RefCell<Vec<Appended>>,
        room: Option<usize>,
    }

    impl Sink for List {
        fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
            let mut records = self.records.borrow_mut();
            if self.room.is_some_and(|room| records.len() >= room) {
                return Err(AppendError::Closed);
            }
            records.push((record.flags, record.source_seq, record.bytes.to_vec()));
            Ok(records.len() as u64 - 1)
        }

        fn next_seq(&self) -> u64 {
            self.records.borrow().len() as u64
        }
    }

    /// Gives its bytes in pieces of these sizes, then the error.
    struct Pieces<'a> {
        bytes: &'a [u8],
        sizes: Vec<usize>,
        then: Option<io::ErrorKind>,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            assert!(!buf.is_empty(), "a read always has room");
            if self.bytes.is_empty() {
                return self.then.take().map_or(Ok(0), |kind| Err(kind.into()));
            }
            let size = self.sizes.pop().unwrap_or(usize::MAX).max(1);
            let len = size.min(self.bytes.len()).min(buf.len());
            buf[..len].copy_from_slice(&self.bytes[..len]);
            self.bytes = &self.bytes[len..];
            Ok(len)
        }
    }

    fn read(bytes: &[u8], sizes: Vec<usize>) -> (Vec<Appended>, Summary, Vec<Refused>) {
        let list = List::default();
        let mut all_refused = Vec::new();
        let mut input = Pieces { bytes, sizes, then: None };
        let summary = read_lines(&mut input, &list, &Now::default, &mut |it| all_refused.push(it))
            .expect("nothing fails");
        (list.records.into_inner(), summary, all_refused)
    }

    /// What `export` makes of it.
    fn joined(records: &[Appended]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (flags, _, line) in records {
            bytes.extend_from_slice(line);
            if !flags.contains(Flags::UNTERMINATED) {
                bytes.push(b'\n');
            }
        }
        bytes
    }

    #[test]
    fn lines_are_kept_byte_for_byte() {
        for input in
            [&b""[..], b"\n", b"\n\n", b"a", b"a\n", b"a\nb", b"\r\n\0\xff\n\r", b"a\n\nb\n\n"]
        {
            let (records, summary, _) = read(input, Vec::new());
            assert_eq!(joined(&records), input);
            assert_eq!(summary.lines, records.len() as u64);
            assert_eq!(summary.bytes, input.len() as u64);
            for (number, record) in (1..).zip(&records) {
                assert_eq!(record.1, number);
            }
        }
    }

    #[test]
    fn a_line_that_is_too_long_leaves_a_statement_in_its_place() {
        let max = RECORD_PAYLOAD_BYTES_MAX;
        for (len, kept) in [(max - 1, true), (max, true), (max + 1, false), (5 * max, false)] {
            for end in [&b"\nafter\n"[..], b"\nafter", b"\n", b""] {
                let mut input = b"before\n".to_vec();
                input.resize(input.len() + len, b'x');
                input.extend_from_slice(end);
                let (records, summary, refused) = read(&input, vec![max, 10, 1, max / 2]);
                if kept {
                    assert_eq!(joined(&records), input);
                    assert_eq!(refused, []);
                    continue;
                }
                let line = Refused { line: 2, bytes: len as u64 };
                assert_eq!((summary.refused, &refused[..]), (1, &[line][..]));
                assert_eq!(records[0].2, b"before");
                assert!(records[1].0.contains(Flags::LOSS));
                let (statement, _) = LossStatement::parse(&records[1].2).expect("canonical");
                assert_eq!(statement.cause, Cause::InputTooLong);
                assert_eq!(statement.certainty, Certainty::Exactly);
                assert_eq!((statement.count, statement.range), (1, Some((2, 2))));
                if let Some(after) = records.get(2) {
                    assert_eq!((after.1, &after.2[..]), (3, &b"after"[..]));
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_in_the_trail() {
        let list = List::default();
        let mut input =
            Pieces { bytes: b"one\ntwo", sizes: Vec::new(), then: Some(io::ErrorKind::Other) };
        let result = read_lines(&mut input, &list, &Now::default, &mut |_| {});
        assert!(matches!(result, Err(StreamError::Read { line: 2, .. })), "{result:?}");
        let records = list.records.into_inner();
        assert_eq!(records.len(), 3);
        assert_eq!(records[1], (Flags::UNTERMINATED, 2, b"two".to_vec()));
        let (statement, _) = LossStatement::parse(&records[2].2).expect("canonical");
        assert_eq!((statement.cause, statement.count), (Cause::Undrained, 0));
        // An interruption is none of this.
        let mut input =
            Pieces { then: Some(io::ErrorKind::Interrupted), bytes: b"", sizes: vec![] };
        let summary = read_lines(&mut input, &List::default(), &Now::default, &mut |_| {});
        assert_eq!(summary.expect("nothing fails"), Summary::default());
    }

    #[test]
    fn a_trail_that_takes_no_more_ends_the_reading() {
        let list = List { room: Some(2), ..List::default() };
        let mut input = Pieces { bytes: b"1\n2\n3\n4\n", sizes: Vec::new(), then: None };
        let result = read_lines(&mut input, &list, &Now::default, &mut |_| {});
        assert!(matches!(result, Err(StreamError::Append { line: 3, .. })), "{result:?}");
    }

    proptest! {
        #[test]
        fn how_it_is_cut_into_reads_does_not_matter(
            bytes in proptest::collection::vec(
                prop_oneof![4 => any::<u8>(), 1 => Just(b'\n')], 0..2000),
            sizes in proptest::collection::vec(1_usize..300, 0..40),
        ) {
            let (records, _, _) = read(&bytes, sizes);
            prop_assert_eq!(joined(&records), &bytes[..]);
            prop_assert_eq!(&records, &read(&bytes, Vec::new()).0);
            prop_assert!(records.iter().all(|record| !record.2.contains(&b'\n')));
        }
    }
}
