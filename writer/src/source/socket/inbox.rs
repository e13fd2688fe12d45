//! What one client has sent and was not looked at yet: any bytes, cut anywhere.

use graven_client::wire::{HELLO_BYTES, Hello, RECORD_HEADER_BYTES, RecordHeader};
use graven_format::consts::RECORD_PAYLOAD_BYTES_MAX;
use std::io::{self, Read};

/// Bytes that a client's buffer begins with, and goes back to.
const BUFFER_BYTES: usize = 32 * 1024;

/// Bytes that a client's buffer takes at most: the longest record.
pub(super) const BUFFER_BYTES_MAX: usize = RECORD_HEADER_BYTES + RECORD_PAYLOAD_BYTES_MAX;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// What a client begins with.
    Hello(Hello),
    /// It does not begin like a client.
    Stranger,
    /// A record.
    Record { id: u64, bytes: &'a [u8] },
    /// The header of a record that is too long: nothing behind it is looked at.
    TooLong { id: u64, len: u32 },
}

/// How far a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Greeting,
    Records,
    /// It has sent what cannot be read on from.
    Over,
}

#[derive(Debug)]
pub(super) struct Inbox {
    buf: Vec<u8>,
    start: usize,
    end: usize,
    stage: Stage,
}

impl Inbox {
    pub(super) const fn new() -> Self {
        Self { buf: Vec::new(), start: 0, end: 0, stage: Stage::Greeting }
    }

    /// Bytes that belong to no whole piece yet.
    pub(super) const fn left(&self) -> usize {
        self.end - self.start
    }

    /// Reads once. Take every piece before: then there is room.
    pub(super) fn read(&mut self, from: &mut impl Read) -> io::Result<usize> {
        self.make_room();
        let read = from.read(&mut self.buf[self.end..])?;
        self.end += read;
        Ok(read)
    }

    /// The next piece, if all of it is there.
    pub(super) fn take(&mut self) -> Option<Piece<'_>> {
        let sent = &self.buf[self.start..self.end];
        let (used, piece) = match self.stage {
            Stage::Over => return None,
            Stage::Greeting => {
                // What begins otherwise may never be as long as a hello.
                let hello = Hello { version: 0 }.encode();
                let magic = &hello[..sent.len().min(8)];
                if sent.get(..magic.len()) != Some(magic) {
                    self.stage = Stage::Over;
                    return Some(Piece::Stranger);
                }
                match Hello::decode(sent.first_chunk::<HELLO_BYTES>()?) {
                    Some(hello) => {
                        self.stage = Stage::Records;
                        (HELLO_BYTES, Piece::Hello(hello))
                    }
                    None => {
                        self.stage = Stage::Over;
                        return Some(Piece::Stranger);
                    }
                }
            }
            Stage::Records => {
                let (header, rest) = sent.split_first_chunk::<RECORD_HEADER_BYTES>()?;
                let RecordHeader { id, len } = RecordHeader::decode(header);
                if len as usize > RECORD_PAYLOAD_BYTES_MAX {
                    self.stage = Stage::Over;
                    return Some(Piece::TooLong { id, len });
                }
                let bytes = rest.get(..len as usize)?;
                (RECORD_HEADER_BYTES + bytes.len(), Piece::Record { id, bytes })
            }
        };
        self.start += used;
        Some(piece)
    }

    /// Moves what is left to the front, and sees to it that it can be completed.
    fn make_room(&mut self) {
        self.buf.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let needed = match self.stage {
            Stage::Records => self.buf[..self.end].first_chunk().map(RecordHeader::decode),
            Stage::Greeting | Stage::Over => None,
        };
        let needed = needed.map_or(0, |header| RECORD_HEADER_BYTES + header.len as usize);
        let wanted = needed.clamp(BUFFER_BYTES, BUFFER_BYTES_MAX).max(self.end);
        if self.buf.len() != wanted {
            self.buf.resize(wanted, 0);
            self.buf.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Owned {
        Hello(u32),
        Stranger,
        Record(u64, Vec<u8>),
        TooLong(u64, u32),
    }

    /// Everything that is made of these bytes when they come in such pieces.
    fn taken(bytes: &[u8], sizes: &[usize]) -> (Vec<Owned>, usize) {
        let mut inbox = Inbox::new();
        let (mut left, mut all, mut turn) = (bytes, Vec::new(), 0);
        loop {
            while let Some(piece) = inbox.take() {
                all.push(match piece {
                    Piece::Hello(Hello { version }) => Owned::Hello(version),
                    Piece::Stranger => Owned::Stranger,
                    Piece::Record { id, bytes } => Owned::Record(id, bytes.to_vec()),
                    Piece::TooLong { id, len } => Owned::TooLong(id, len),
                });
            }
            if inbox.stage == Stage::Over {
                // How much came with it is a matter of the pieces.
                return (all, 0);
            }
            if left.is_empty() {
                return (all, inbox.left());
            }
            let size = sizes.get(turn % sizes.len().max(1)).copied().unwrap_or(usize::MAX);
            turn += 1;
            let mut piece = &left[..size.clamp(1, left.len())];
            let read = inbox.read(&mut piece).expect("memory can be read");
            assert!(read > 0, "there is always room for more");
            assert!(inbox.buf.len() <= BUFFER_BYTES_MAX);
            left = &left[read..];
        }
    }

    fn sent(records: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Hello { version: 1 }.encode().to_vec();
        for (id, record) in records {
            let len = u32::try_from(record.len()).expect("short");
            bytes.extend_from_slice(&RecordHeader { id: *id, len }.encode());
            bytes.extend_from_slice(record);
        }
        bytes
    }

    #[test]
    fn the_longest_record_fits_and_a_longer_one_ends_it() {
        let max = RECORD_PAYLOAD_BYTES_MAX;
        let records = [(1, vec![7; max]), (2, vec![]), (3, vec![8; max])];
        let (all, left) = taken(&sent(&records), &[max + 3, 11, 1000]);
        assert_eq!(all.len(), 4);
        assert!(
            all[1..]
                .iter()
                .zip(&records)
                .all(|(got, (id, bytes))| { *got == Owned::Record(*id, bytes.clone()) })
        );
        assert_eq!(left, 0);
        let mut bytes = sent(&records[1..2]);
        bytes.extend_from_slice(&RecordHeader { id: 9, len: max as u32 + 1 }.encode());
        bytes.extend_from_slice(b"more");
        let (all, _) = taken(&bytes, &[usize::MAX]);
        assert_eq!(all[1..], [Owned::Record(2, vec![]), Owned::TooLong(9, max as u32 + 1)]);
    }

    #[test]
    fn every_cut_gives_the_same() {
        let bytes = sent(&[(1, b"one".to_vec()), (u64::MAX, vec![]), (3, b"\0\xff\n".to_vec())]);
        let whole = taken(&bytes, &[usize::MAX]);
        for cut in 1..bytes.len() {
            assert_eq!(taken(&bytes, &[cut, usize::MAX]), whole);
            let (all, left) = taken(&bytes[..cut], &[1]);
            assert!(whole.0.starts_with(&all), "{cut}");
            assert!(left < 16, "{cut}");
        }
        assert_eq!(taken(&bytes, &[1]), whole);
    }

    #[test]
    fn a_stranger_is_told_at_its_first_wrong_byte() {
        for bytes in [&b"G"[..], b"GRAVEN"] {
            assert_eq!(taken(bytes, &[1]), (vec![], bytes.len()));
        }
        for bytes in
            [&b"x"[..], b"GET / HTTP/1.1\r\n", b"GRAVENSG", b"GRAVENSK\x01\0\0\0\0\0\0\x01"]
        {
            assert_eq!(taken(bytes, &[1]).0, [Owned::Stranger]);
            assert_eq!(taken(bytes, &[usize::MAX]).0, [Owned::Stranger]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_read_the_same(
            hello: bool,
            bytes in proptest::collection::vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>()], 0..400),
            sizes in proptest::collection::vec(1_usize..50, 1..8),
        ) {
            let mut all = if hello { sent(&[]) } else { Vec::new() };
            all.extend_from_slice(&bytes);
            prop_assert_eq!(taken(&all, &sizes), taken(&all, &[usize::MAX]));
        }
    }
}
