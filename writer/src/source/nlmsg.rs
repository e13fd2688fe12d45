//! Messages of the kernel's audit netlink: taken apart and put together, without any I/O.
//!
//! Nothing that arrives is trusted: every function takes any bytes and answers without a panic.
//!
//! A datagram is a 16-byte header (length, type, flags, sequence, port) and a payload, in the
//! host's byte order. The length field cannot be relied on: in a reply it counts the header, as
//! netlink has it; in an audit record it counts, on most kernels, the payload alone. The
//! datagram's own length says the truth, and the field only tells padding from payload.

#![expect(clippy::host_endian_bytes, reason = "netlink speaks the host's byte order")]

mod rule;

use graven_format::kind;
pub use rule::{MASK_WORDS, Rule, RuleAction, RuleField, RuleList, pid_of_rule};

/// Bytes of a message header.
pub const HEADER_BYTES: usize = 16;
/// Messages start on multiples of this inside a datagram.
const ALIGN_BYTES: usize = 4;

/// `NLMSG_DONE`: the end of a reply of several messages.
const TYPE_DONE: u16 = 3;
/// `NLMSG_ERROR`: an acknowledgement, with 0 or a negative errno.
const TYPE_ERROR: u16 = 2;
/// First type that is a message of a protocol and not of netlink itself.
const TYPE_PROTOCOL_MIN: u16 = 16;

/// `NLM_F_REQUEST`.
const FLAG_REQUEST: u16 = 1;
/// `NLM_F_ACK`.
const FLAG_ACK: u16 = 4;

/// `AUDIT_GET`: asks for the status.
pub const GET: u16 = 1000;
/// `AUDIT_SET`: changes the status.
pub const SET: u16 = 1001;
/// `AUDIT_USER`: the oldest type of a program's own record.
const USER: u16 = 1005;
/// `AUDIT_LOGIN`: a record, although its number lies among the commands.
const LOGIN: u16 = 1006;
/// `AUDIT_SIGNAL_INFO`: asks who signalled the daemon last.
pub const SIGNAL_INFO: u16 = 1010;
/// `AUDIT_ADD_RULE`.
pub const ADD_RULE: u16 = 1011;
/// `AUDIT_DEL_RULE`.
pub const DEL_RULE: u16 = 1012;
/// `AUDIT_LIST_RULES`: answered with a message a rule, and an end.
pub const LIST_RULES: u16 = 1013;
/// First type of the ranges that hold records only.
const RECORD_MIN: u16 = 1100;

/// One datagram, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// An audit record: type and payload, byte for byte.
    Record {
        /// The audit message type.
        kind: u16,
        /// The text, without netlink's header and padding.
        payload: &'a [u8],
    },
    /// The answer to a request that asked for one.
    Ack {
        /// The request's sequence.
        sequence: u32,
        /// 0, or the errno as a positive number.
        errno: i32,
    },
    /// A reply to a request, such as the status.
    Reply {
        /// The request's sequence.
        sequence: u32,
        /// The audit message type.
        kind: u16,
        /// The reply.
        payload: &'a [u8],
    },
    /// The kernel asks whether the registered daemon lives, because another process wants its place. Receiving
    /// it is the answer.
    Replace {
        /// That process, where the kernel says it.
        pid: Option<u32>,
    },
    /// The end of a reply of several messages.
    Done {
        /// The request's sequence.
        sequence: u32,
    },
    /// Netlink's own filler.
    Control,
}

/// Takes a datagram apart; `None` if it is too short for a header or an acknowledgement.
#[must_use]
pub fn parse(datagram: &[u8]) -> Option<Message<'_>> {
    let header = datagram.first_chunk::<HEADER_BYTES>()?;
    let length = u32_at(header, 0)? as usize;
    let kind = u16::from_ne_bytes([header[4], header[5]]);
    let sequence = u32_at(header, 8)?;
    if kind < TYPE_PROTOCOL_MIN {
        if kind == TYPE_DONE {
            return Some(Message::Done { sequence });
        }
        if kind != TYPE_ERROR {
            return Some(Message::Control);
        }
        let code = u32_at(datagram, HEADER_BYTES)? as i32;
        return Some(Message::Ack { sequence, errno: code.checked_neg().unwrap_or(i32::MAX) });
    }
    let payload = payload(datagram, length);
    Some(if kind == kind::REPLACE {
        Message::Replace { pid: u32_at(payload, 0) }
    } else if kind >= RECORD_MIN || kind == USER || kind == LOGIN {
        Message::Record { kind, payload }
    } else {
        Message::Reply { sequence, kind, payload }
    })
}

/// The payload of a datagram whose header claims `length`.
///
/// The claim is believed only where it leaves less than an alignment's worth of padding, counted
/// with or without the header. Otherwise everything behind the header is the payload: too many
/// bytes can be told apart later, missing ones cannot.
fn payload(datagram: &[u8], length: usize) -> &[u8] {
    let rest = datagram.get(HEADER_BYTES..).unwrap_or_default();
    for claimed in [length.checked_sub(HEADER_BYTES), Some(length)].into_iter().flatten() {
        if claimed <= rest.len() && rest.len() - claimed < ALIGN_BYTES {
            return &rest[..claimed];
        }
    }
    rest
}

/// A request that asks for an acknowledgement, ready to send.
#[must_use]
pub fn request(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    message(kind, FLAG_REQUEST | FLAG_ACK, sequence, payload)
}

/// A request that is answered only if it fails, ready to send.
#[must_use]
pub fn request_quiet(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    message(kind, FLAG_REQUEST, sequence, payload)
}

fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = HEADER_BYTES + payload.len();
    let mut message = Vec::with_capacity(length);
    message.extend_from_slice(&(length as u32).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(&sequence.to_ne_bytes());
    message.extend_from_slice(&0_u32.to_ne_bytes());
    message.extend_from_slice(payload);
    message
}

/// When and as what number the kernel made a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Seconds since 1970.
    pub seconds: u64,
    /// Milliseconds of the second.
    pub millis: u16,
    /// The event's serial: u32, it wraps.
    pub serial: u32,
}

/// Reads `audit(SEC.MSEC:SERIAL)` from the start of a payload, strictly: decimal digits, three of
/// them for the milliseconds, and nothing that overflows.
#[must_use]
pub fn stamp(payload: &[u8]) -> Option<Stamp> {
    let rest = payload.strip_prefix(b"audit(")?;
    let (seconds, rest) = digits(rest)?;
    let (&[hundreds, tens, ones], rest) = rest.strip_prefix(b".")?.split_first_chunk::<3>()?;
    let mut millis = 0;
    for digit in [hundreds, tens, ones] {
        millis = millis * 10 + u16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    let (serial, rest) = digits(rest.strip_prefix(b":")?)?;
    rest.starts_with(b")").then_some(())?;
    Some(Stamp { seconds, millis, serial: u32::try_from(serial).ok()? })
}

/// The decimal number at the start, and what follows it.
fn digits(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    let mut used = 0;
    for &byte in text.iter().take_while(|byte| byte.is_ascii_digit()) {
        value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
        used += 1;
    }
    (used > 0).then(|| (value, &text[used..]))
}

/// The state of the kernel's audit system, `struct audit_status`.
///
/// Old kernels know fewer fields; what a kernel did not send is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// 0 off, 1 on, 2 on and locked until the next boot.
    pub enabled: u32,
    /// What the kernel does when it loses a record: 0 nothing, 1 a kernel message, 2 a panic.
    pub failure: u32,
    /// The registered daemon, 0 if there is none.
    pub pid: u32,
    /// Most records a second, 0 for no limit.
    pub rate_limit: u32,
    /// Most records in the kernel's queue before producers wait, 0 for no limit.
    pub backlog_limit: u32,
    /// Records that the kernel knows it lost.
    pub lost: u32,
    /// Records in the kernel's queue.
    pub backlog: u32,
    /// Bits of what the kernel can do.
    pub features: Option<u32>,
    /// How long a producer waits for room in the queue, in the kernel's ticks.
    pub backlog_wait_ticks: Option<u32>,
    /// How long producers waited in all, in the kernel's ticks.
    pub backlog_waited_ticks: Option<u32>,
}

impl Status {
    /// Reads what `AUDIT_GET` is answered with, of any kernel's size.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        // Word 0 is a mask that means something in AUDIT_SET only.
        let word = |index: usize| u32_at(payload, 4 * index);
        Some(Self {
            enabled: word(1)?,
            failure: word(2)?,
            pid: word(3)?,
            rate_limit: word(4)?,
            backlog_limit: word(5)?,
            lost: word(6)?,
            backlog: word(7)?,
            features: word(8),
            backlog_wait_ticks: word(9),
            backlog_waited_ticks: word(10),
        })
    }
}

/// Which parts of the status to change, for `AUDIT_SET`; `None` leaves a part as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusChange {
    /// See [`Status::enabled`].
    pub enabled: Option<u32>,
    /// See [`Status::failure`].
    pub failure: Option<u32>,
    /// See [`Status::pid`].
    pub pid: Option<u32>,
    /// See [`Status::rate_limit`].
    pub rate_limit: Option<u32>,
    /// See [`Status::backlog_limit`].
    pub backlog_limit: Option<u32>,
    /// See [`Status::backlog_wait_ticks`].
    pub backlog_wait_ticks: Option<u32>,
}

impl StatusChange {
    /// What puts back everything that this changed.
    #[must_use]
    pub fn undone(&self, before: &Status) -> Self {
        let back = |ours: Option<u32>, before: u32| ours.map(|_| before);
        Self {
            enabled: back(self.enabled, before.enabled),
            failure: back(self.failure, before.failure),
            pid: back(self.pid, before.pid),
            rate_limit: back(self.rate_limit, before.rate_limit),
            backlog_limit: back(self.backlog_limit, before.backlog_limit),
            backlog_wait_ticks: self.backlog_wait_ticks.and(before.backlog_wait_ticks),
        }
    }

    /// This, and what `other` changes that this does not.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        Self {
            enabled: self.enabled.or(other.enabled),
            failure: self.failure.or(other.failure),
            pid: self.pid.or(other.pid),
            rate_limit: self.rate_limit.or(other.rate_limit),
            backlog_limit: self.backlog_limit.or(other.backlog_limit),
            backlog_wait_ticks: self.backlog_wait_ticks.or(other.backlog_wait_ticks),
        }
    }

    /// The payload of the request.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        /// The size of today's structure; older kernels read as much of it as they know.
        const WORDS: usize = 11;
        let mut words = [0_u32; WORDS];
        for (value, index, bit) in [
            (self.enabled, 1, 0x01),
            (self.failure, 2, 0x02),
            (self.pid, 3, 0x04),
            (self.rate_limit, 4, 0x08),
            (self.backlog_limit, 5, 0x10),
            (self.backlog_wait_ticks, 9, 0x20),
        ] {
            if let Some(value) = value {
                words[index] = value;
                words[0] |= bit;
            }
        }
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }
}

/// Who signalled the daemon, as the kernel saw it: `struct audit_sig_info`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignalInfo {
    /// The login uid, or the uid where there is no login.
    pub uid: u32,
    /// The process.
    pub pid: u32,
    /// Its security context; empty where there is none.
    pub context: Vec<u8>,
}

impl SignalInfo {
    /// Reads what `AUDIT_SIGNAL_INFO` is answered with; `None` also if nobody has signalled yet.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (uid, pid) = (u32_at(payload, 0)?, u32_at(payload, 4)?);
        let context = payload[8..].split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        (pid != 0).then_some(Self { uid, pid, context })
    }
}

/// The word at `at`, if all of it is there.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn datagram(length: u32, kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = request(kind, sequence, payload);
        bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_record_is_whole_whichever_way_the_length_is_counted() {
        let text = b"audit(1.002:3): x";
        for length in [17, 33, 0, 5, u32::MAX] {
            let bytes = datagram(length, 1300, 0, text);
            assert_eq!(parse(&bytes), Some(Message::Record { kind: 1300, payload: text }));
        }
        let padded = datagram(17, 1300, 0, b"audit(1.002:3): x\0\0\0");
        assert_eq!(parse(&padded), Some(Message::Record { kind: 1300, payload: text }));
    }

    #[test]
    fn records_and_answers_are_told_apart() {
        for kind in [1005, 1006, 1100, 1300, 1400, 2000, 2999, 60_000] {
            let bytes = datagram(16, kind, 0, b"");
            assert_eq!(parse(&bytes), Some(Message::Record { kind, payload: b"" }), "{kind}");
        }
        for kind in [GET, 1010, 1013, 1019] {
            let bytes = datagram(20, kind, 9, b"abcd");
            let reply = Message::Reply { sequence: 9, kind, payload: b"abcd" };
            assert_eq!(parse(&bytes), Some(reply));
        }
        assert_eq!(
            parse(&datagram(16, kind::REPLACE, 0, b"")),
            Some(Message::Replace { pid: None })
        );
        let asked = datagram(20, kind::REPLACE, 0, &7_u32.to_ne_bytes());
        assert_eq!(parse(&asked), Some(Message::Replace { pid: Some(7) }));
        assert_eq!(parse(&datagram(16, 3, 5, b"")), Some(Message::Done { sequence: 5 }));
        assert_eq!(parse(&datagram(16, 1, 0, b"")), Some(Message::Control));
        let refused = datagram(36, TYPE_ERROR, 7, &(-1_i32).to_ne_bytes());
        assert_eq!(parse(&refused), Some(Message::Ack { sequence: 7, errno: 1 }));
        assert_eq!(parse(&datagram(16, TYPE_ERROR, 7, b"abc")), None);
        assert_eq!(parse(b"short"), None);
    }

    #[test]
    fn a_stamp_is_read_strictly() {
        let read = stamp(b"audit(1733000000.123:4294967295): a=1");
        assert_eq!(read, Some(Stamp { seconds: 1_733_000_000, millis: 123, serial: u32::MAX }));
        assert!(stamp(b"audit(0.000:0)").is_some());
        for wrong in [
            "",
            "audit(",
            "audit(1.123:4",
            "audit(1.12:4)",
            "audit(1.1234:4)",
            "audit(.123:4)",
            "audit(1.123:)",
            "audit(1.123:4294967296)",
            "audit(99999999999999999999.123:1)",
            " audit(1.123:4)",
            "audit(1.123:4 )",
            "audit(1.-23:4)",
            "audit(+1.123:4)",
        ] {
            assert_eq!(stamp(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_status_of_an_old_kernel_has_fewer_fields() {
        let words: Vec<u8> = (0..11_u32).flat_map(u32::to_ne_bytes).collect();
        let all = Status::parse(&words).expect("all fields");
        assert_eq!((all.enabled, all.pid, all.lost, all.backlog), (1, 3, 6, 7));
        assert_eq!((all.features, all.backlog_wait_ticks), (Some(8), Some(9)));
        assert_eq!(all.backlog_waited_ticks, Some(10));
        let old = Status::parse(&words[..32]).expect("eight fields are enough");
        assert_eq!((old.features, old.backlog_wait_ticks), (None, None));
        assert_eq!(Status::parse(&words[..31]), None);
    }

    #[test]
    fn a_change_sets_the_bits_of_what_it_changes() {
        let change =
            StatusChange { pid: Some(42), backlog_limit: Some(8192), ..Default::default() };
        let bytes = change.encode();
        assert_eq!(bytes.len(), 44);
        assert_eq!(u32_at(&bytes, 0), Some(0x14));
        assert_eq!(u32_at(&bytes, 12), Some(42));
        assert_eq!(u32_at(&bytes, 20), Some(8192));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_apart_without_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
            let _ = stamp(&bytes);
            let _ = Status::parse(&bytes);
        }

        #[test]
        fn any_header_before_any_payload_is_taken_apart(
            length: u32, kind: u16, sequence: u32, payload: Vec<u8>,
        ) {
            if let Some(Message::Record { payload: taken, .. }) =
                parse(&datagram(length, kind, sequence, &payload))
            {
                prop_assert!(payload.starts_with(taken));
                prop_assert!(payload.len() - taken.len() < ALIGN_BYTES);
            }
        }

        #[test]
        fn every_stamp_comes_back(seconds: u64, millis in 0_u16..1000, serial: u32) {
            let text = format!("audit({seconds}.{millis:03}:{serial}): rest");
            prop_assert_eq!(stamp(text.as_bytes()), Some(Stamp { seconds, millis, serial }));
        }
    }
}
