//! The bytes on the socket, version 1. Numbers are little-endian and unsigned.
//!
//! | who | what | bytes |
//! |---|---|---|
//! | client | [`Hello`], once | 16 |
//! | graven | [`Welcome`], once | 40 |
//! | client | [`RecordHeader`] and the record's bytes, any number of times | 12 and `len` |
//! | graven | [`Answer`], one for each record, in their order | 16 |

/// What both sides begin with.
pub const MAGIC: [u8; 8] = *b"GRAVENSK";

/// The version of the protocol that this crate speaks.
pub const VERSION: u32 = 1;

/// Bytes of a [`Hello`].
pub const HELLO_BYTES: usize = 16;
/// Bytes of a [`Welcome`].
pub const WELCOME_BYTES: usize = 40;
/// Bytes of a [`RecordHeader`].
pub const RECORD_HEADER_BYTES: usize = 12;
/// Bytes of an [`Answer`].
pub const ANSWER_BYTES: usize = 16;

/// In an answer in place of a seq: the record was refused, and the connection ends.
pub const REFUSED: u64 = u64::MAX;

/// What a client begins with: magic, version, and four bytes of zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version that the client speaks.
    pub version: u32,
}

impl Hello {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes
    }

    /// What was sent; `None` if it is none.
    #[must_use]
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        let zero = bytes[12..] == [0; 4];
        (bytes[..8] == MAGIC && zero).then(|| Self { version: u32_at(bytes, 8) })
    }
}

/// What graven answers to a hello, also to one of another version, and then closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version that graven speaks.
    pub version: u32,
    /// Longest record that the trail takes.
    pub record_bytes_max: u32,
    /// The trail.
    pub trail_id: [u8; 16],
    /// The number of this connection, 1 to 999: the trail keeps it beside each record, and who it was
    /// in a record of its own.
    pub client: u32,
    /// How many records may be unanswered without risk that both sides wait for each other.
    pub unanswered_max: u32,
}

impl Welcome {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> [u8; WELCOME_BYTES] {
        let mut bytes = [0; WELCOME_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.record_bytes_max.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.trail_id);
        bytes[32..36].copy_from_slice(&self.client.to_le_bytes());
        bytes[36..].copy_from_slice(&self.unanswered_max.to_le_bytes());
        bytes
    }

    /// What was sent; `None` if it is none.
    #[must_use]
    pub fn decode(bytes: &[u8; WELCOME_BYTES]) -> Option<Self> {
        let mut trail_id = [0; 16];
        trail_id.copy_from_slice(&bytes[16..32]);
        (bytes[..8] == MAGIC).then(|| Self {
            version: u32_at(bytes, 8),
            record_bytes_max: u32_at(bytes, 12),
            trail_id,
            client: u32_at(bytes, 32),
            unanswered_max: u32_at(bytes, 36),
        })
    }
}

/// What stands in front of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The client's own number for it, whatever it likes.
    pub id: u64,
    /// Bytes of the record.
    pub len: u32,
}

impl RecordHeader {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// What was sent.
    #[must_use]
    pub fn decode(bytes: &[u8; RECORD_HEADER_BYTES]) -> Self {
        Self { id: u64_at(bytes, 0), len: u32_at(bytes, 8) }
    }
}

/// A record and every one that was sent before it are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The client's own number for the record.
    pub id: u64,
    /// Its seq in the trail, or [`REFUSED`].
    pub seq: u64,
}

impl Answer {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> [u8; ANSWER_BYTES] {
        let mut bytes = [0; ANSWER_BYTES];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..].copy_from_slice(&self.seq.to_le_bytes());
        bytes
    }

    /// What was sent.
    #[must_use]
    pub fn decode(bytes: &[u8; ANSWER_BYTES]) -> Self {
        Self { id: u64_at(bytes, 0), seq: u64_at(bytes, 8) }
    }

    /// Whether it says that the record was refused.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        self.seq == REFUSED
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_le_bytes(*word))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The tables of `docs/socket.md`, byte for byte.
    #[test]
    fn the_layout_is_the_documented_one() {
        assert_eq!(&Hello { version: 1 }.encode(), b"GRAVENSK\x01\0\0\0\0\0\0\0");
        let welcome = Welcome {
            version: 1,
            record_bytes_max: 131_072,
            trail_id: *b"0123456789abcdef",
            client: 5,
            unanswered_max: 1024,
        };
        let bytes = welcome.encode();
        assert_eq!(&bytes, b"GRAVENSK\x01\0\0\0\0\0\x02\x000123456789abcdef\x05\0\0\0\0\x04\0\0");
        assert_eq!(&RecordHeader { id: 258, len: 3 }.encode(), b"\x02\x01\0\0\0\0\0\0\x03\0\0\0");
        assert_eq!(&Answer { id: 1, seq: 2 }.encode(), b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_was_meant(
            a: u64, b: u64, c: u32, trail_id: [u8; 16], d: u32, e: u32, f: u32,
        ) {
            prop_assert_eq!(Hello::decode(&Hello { version: c }.encode()), Some(Hello { version: c }));
            let welcome = Welcome {
                version: c, record_bytes_max: d, trail_id, client: e, unanswered_max: f,
            };
            prop_assert_eq!(Welcome::decode(&welcome.encode()), Some(welcome));
            let header = RecordHeader { id: a, len: c };
            prop_assert_eq!(RecordHeader::decode(&header.encode()), header);
            let answer = Answer { id: a, seq: b };
            prop_assert_eq!(Answer::decode(&answer.encode()), answer);
        }

        #[test]
        fn any_bytes_are_read(hello: [u8; HELLO_BYTES], welcome: [u8; 32]) {
            prop_assume!(hello[..8] != MAGIC);
            prop_assert_eq!(Hello::decode(&hello), None);
            let mut bytes = [0; WELCOME_BYTES];
            bytes[..32].copy_from_slice(&welcome);
            let _ = Welcome::decode(&bytes);
        }
    }
}
