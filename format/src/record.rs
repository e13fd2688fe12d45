//! One record: its bytes exactly as the source gave them, plus what Graven knows of them.
//!
//! A record on disk is [`RECORD_HEADER_BYTES`] of header, then the payload, with no padding:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | `payload_len`: bytes of payload, at most [`RECORD_PAYLOAD_BYTES_MAX`] |
//! | 4 | 2 | `kind`: the audit message type number; of source `socket`, the number of the connection |
//! | 6 | 1 | `source`: see [`Source`] |
//! | 7 | 1 | `flags`: see [`Flags`] |
//! | 8 | 8 | `realtime_ns`: nanoseconds since 1970 when the record was taken from its source |
//! | 16 | 8 | `boottime_ns`: nanoseconds since boot at the same moment |
//! | 24 | 8 | `source_seq`: the source's own counter, 0 if it has none |
//!
//! These bytes are also the record's Merkle leaf. The sequence number is not among them: it is
//! the record's position, first sequence of the frame plus index, and so cannot be wrong alone.

use crate::bytes::{get_u16, get_u32, get_u64};
use crate::consts::{RECORD_HEADER_BYTES, RECORD_PAYLOAD_BYTES_MAX};

/// Where a record came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Source {
    /// Graven itself: loss statements and what it did.
    Graven = 0,
    /// The kernel's audit netlink.
    Netlink = 1,
    /// The kernel module.
    Shim = 2,
    /// The eBPF collector.
    Bpf = 3,
    /// A line of standard input.
    Stdin = 4,
    /// The Unix socket for applications.
    Socket = 5,
    /// What another daemon, or the kernel's multicast, handed on as lines of a log, best effort.
    Import = 6,
}

impl Source {
    /// Every source, in the order of its number.
    pub const ALL: [Self; 7] = [
        Self::Graven,
        Self::Netlink,
        Self::Shim,
        Self::Bpf,
        Self::Stdin,
        Self::Socket,
        Self::Import,
    ];

    /// The name used in every command and report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Graven => "graven",
            Self::Netlink => "netlink",
            Self::Shim => "shim",
            Self::Bpf => "bpf",
            Self::Stdin => "stdin",
            Self::Socket => "socket",
            Self::Import => "import",
        }
    }

    /// The source with this number, if format version 1 knows it.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The source of this name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.name() == name)
    }
}

/// Properties of one record, as a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// No property.
    pub const NONE: Self = Self(0);
    /// The record states a loss: see [`crate::loss`].
    pub const LOSS: Self = Self(1);
    /// The source ended without a line feed after this record, so `export` prints none.
    pub const UNTERMINATED: Self = Self(1 << 1);

    /// The record is a checkpoint: its payload is a signed note over all records before it, see
    /// [`crate::note`].
    pub const CHECKPOINT: Self = Self(1 << 2);

    const KNOWN: u8 = Self::LOSS.0 | Self::UNTERMINATED.0 | Self::CHECKPOINT.0;

    /// The bits as stored.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The flags of these bits, or `None` if format version 1 does not know one of them.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits & !Self::KNOWN == 0 { Some(Self(bits)) } else { None }
    }

    /// Whether every bit of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl core::ops::BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One audit message: borrowed bytes and what is stored beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it came from.
    pub source: Source,
    /// The audit message type number; 0 where the source has none. Of [`Source::Socket`] it is the number
    /// of the connection, 1 to 999, which the newest `DAEMON_ACCEPT` record before says more of.
    pub kind: u16,
    /// Its properties.
    pub flags: Flags,
    /// Nanoseconds since 1970-01-01T00:00:00Z when it was taken from its source.
    pub realtime_ns: u64,
    /// Nanoseconds since boot, suspend included, at the same moment.
    pub boottime_ns: u64,
    /// The source's own counter (kernel audit serial, line number), 0 if it has none.
    pub source_seq: u64,
    /// The payload, byte for byte; at most [`RECORD_PAYLOAD_BYTES_MAX`] bytes.
    pub bytes: &'a [u8],
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end before the record does.
    #[error("record needs {needed} bytes, {have} are left in the frame")]
    Short {
        /// Bytes that the record claims.
        needed: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// The payload is over the limit.
    #[error("record payload of {0} bytes is over the limit of {RECORD_PAYLOAD_BYTES_MAX}")]
    TooLong(usize),
    /// The source number is not of this version.
    #[error("unknown source number {0}")]
    UnknownSource(u8),
    /// A flag bit is not of this version.
    #[error("unknown record flags {0:#04x}")]
    UnknownFlags(u8),
}

impl<'a> Record<'a> {
    /// Bytes that this record takes in a frame: header and payload.
    #[must_use]
    pub const fn stored_len(&self) -> usize {
        RECORD_HEADER_BYTES + self.bytes.len()
    }

    /// The header as stored.
    ///
    /// # Panics
    /// If the payload is over [`RECORD_PAYLOAD_BYTES_MAX`]: callers check their input first.
    #[must_use]
    pub fn header(&self) -> [u8; RECORD_HEADER_BYTES] {
        assert!(self.bytes.len() <= RECORD_PAYLOAD_BYTES_MAX, "record checked before it is stored");
        let mut header = [0; RECORD_HEADER_BYTES];
        let payload_len = self.bytes.len() as u32;
        header[0..4].copy_from_slice(&payload_len.to_le_bytes());
        header[4..6].copy_from_slice(&self.kind.to_le_bytes());
        header[6] = self.source as u8;
        header[7] = self.flags.bits();
        header[8..16].copy_from_slice(&self.realtime_ns.to_le_bytes());
        header[16..24].copy_from_slice(&self.boottime_ns.to_le_bytes());
        header[24..32].copy_from_slice(&self.source_seq.to_le_bytes());
        header
    }

    /// Writes header and payload to the start of `to` and returns the bytes used.
    ///
    /// # Panics
    /// If `to` is shorter than [`Record::stored_len`].
    pub fn encode(&self, to: &mut [u8]) -> usize {
        let (header, rest) = to.split_at_mut(RECORD_HEADER_BYTES);
        header.copy_from_slice(&self.header());
        rest[..self.bytes.len()].copy_from_slice(self.bytes);
        self.stored_len()
    }

    /// Reads the record at the start of `from`; the second value is what follows it.
    ///
    /// # Errors
    /// [`RecordError`] says what is wrong; nothing is assumed of `from`.
    pub fn decode(from: &'a [u8]) -> Result<(Self, &'a [u8]), RecordError> {
        let Some((header, rest)) = from.split_first_chunk::<RECORD_HEADER_BYTES>() else {
            return Err(RecordError::Short { needed: RECORD_HEADER_BYTES, have: from.len() });
        };
        let payload_len = get_u32(header, 0) as usize;
        if payload_len > RECORD_PAYLOAD_BYTES_MAX {
            return Err(RecordError::TooLong(payload_len));
        }
        if payload_len > rest.len() {
            return Err(RecordError::Short {
                needed: RECORD_HEADER_BYTES + payload_len,
                have: from.len(),
            });
        }
        let source = Source::from_number(header[6]).ok_or(RecordError::UnknownSource(header[6]))?;
        let flags = Flags::from_bits(header[7]).ok_or(RecordError::UnknownFlags(header[7]))?;
        let (bytes, rest) = rest.split_at(payload_len);
        let record = Record {
            source,
            kind: get_u16(header, 4),
            flags,
            realtime_ns: get_u64(header, 8),
            boottime_ns: get_u64(header, 16),
            source_seq: get_u64(header, 24),
            bytes,
        };
        Ok((record, rest))
    }
}

/// Whether what starts `stored` says that it is a checkpoint, if it is a record.
pub(crate) fn is_checkpoint(stored: &[u8]) -> bool {
    stored.get(7).is_some_and(|flags| flags & Flags::CHECKPOINT.bits() != 0)
}

/// The records that stand back to back in `records`, each as it is stored.
///
/// For bytes that the caller has laid out: only lengths are looked at. It ends with the bytes,
/// or where a length points behind them.
pub fn split(records: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut left = records;
    core::iter::from_fn(move || {
        let payload_len = get_u32(left.first_chunk::<RECORD_HEADER_BYTES>()?, 0) as usize;
        let (stored, rest) = left.split_at_checked(RECORD_HEADER_BYTES + payload_len)?;
        left = rest;
        Some(stored)
    })
}
