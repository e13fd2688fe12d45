//! Loss statements: what is known to be missing, said inside the trail itself.
//!
//! A loss statement is an ordinary record of [`Source::Graven`], type [`kind::DAEMON_ERR`] and
//! flag [`Flags::LOSS`]. Its payload is text in audit's own form, one line, fields in this order:
//!
//! ```text
//! audit(1733000000.123:0): op=loss source=netlink cause=serial-gap certainty=exactly count=5 unit=events first=100 last=104 from=1733000000.100000000 to=1733000000.120000000
//! ```
//!
//! `first` and `last` are the source's own sequence numbers and stand together or not at all, as do
//! `from` and `to`, the realtime between which it was lost, in seconds. The text is canonical: a
//! statement has one encoding, and [`LossStatement::parse`] takes no other.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use crate::kind;
use crate::record::{Flags, Record, Source};

/// What made records disappear before they reached the trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// Numbers of the source's own sequence never arrived. Counts events.
    SerialGap,
    /// The kernel's `lost` counter rose: it refused or dropped records. Counts records.
    KernelLost,
    /// The socket overran (ENOBUFS); nothing tells how much is gone. Counts records.
    Enobufs,
    /// Nothing was attached to the source, or what was attached ended before what it had was durable.
    /// Counts events.
    NoDaemon,
    /// An event began and its end never arrived. Counts events.
    PartialEvent,
    /// A message was longer than a record may be and was not taken. Counts records.
    InputTooLong,
    /// The source was left before all that it had was received. Counts records.
    Undrained,
    /// A policy that was asked for dropped them. Counts records.
    Dropped,
    /// They were in another trail, of which this one was salvaged, and could not be read there.
    /// Counts records; the source is [`Source::Graven`], and its numbers are the other trail's.
    Damaged,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 9] = [
        Self::SerialGap,
        Self::KernelLost,
        Self::Enobufs,
        Self::NoDaemon,
        Self::PartialEvent,
        Self::InputTooLong,
        Self::Undrained,
        Self::Dropped,
        Self::Damaged,
    ];

    /// The name in the text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SerialGap => "serial-gap",
            Self::KernelLost => "kernel-lost",
            Self::Enobufs => "enobufs",
            Self::NoDaemon => "no-daemon",
            Self::PartialEvent => "partial-event",
            Self::InputTooLong => "input-too-long",
            Self::Undrained => "undrained",
            Self::Dropped => "dropped",
            Self::Damaged => "damaged",
        }
    }

    /// What `count` counts: `events` (one number of the source's sequence, one or more
    /// records) or `records`.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::SerialGap | Self::NoDaemon | Self::PartialEvent => "events",
            _ => "records",
        }
    }
}

/// How sure the count is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Certainty {
    /// Neither more nor fewer.
    Exactly,
    /// Possibly more. With a count of 0: something may be missing.
    AtLeast,
}

impl Certainty {
    /// The name in the text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exactly => "exactly",
            Self::AtLeast => "at-least",
        }
    }
}

/// What is known to be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LossStatement {
    /// The source that it is missing from.
    pub source: Source,
    /// Why it is missing.
    pub cause: Cause,
    /// How sure `count` is.
    pub certainty: Certainty,
    /// How much is missing, in [`Cause::unit`].
    pub count: u64,
    /// First and last of the source's own sequence numbers that it lies within, both included.
    /// The range may be wider than `count` when several gaps are stated as one.
    pub range: Option<(u64, u64)>,
    /// Nanoseconds since 1970 between which it was lost.
    pub between_ns: Option<(u64, u64)>,
}

/// Why bytes are no loss statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LossError {
    /// The bytes are not UTF-8.
    #[error("loss statement is not UTF-8")]
    NotText,
    /// The stamp `audit(SEC.MSEC:0): ` is not at the start.
    #[error("loss statement does not start with its stamp")]
    Stamp,
    /// This field is missing, out of order or has a value that is not canonical.
    #[error("loss statement: field `{0}` is missing, misplaced or malformed")]
    Field(&'static str),
    /// Something follows the last field.
    #[error("loss statement: text after the last field")]
    Trailing,
}

const NANOS_PER_SEC: u64 = 1_000_000_000;
const NANOS_PER_MSEC: u64 = 1_000_000;

impl LossStatement {
    /// The payload of the record that makes this statement at `at_ns` (nanoseconds since 1970,
    /// kept to the millisecond).
    #[must_use]
    pub fn encode(&self, at_ns: u64) -> Vec<u8> {
        let mut text = format!(
            "audit({}.{:03}:0): op=loss source={} cause={} certainty={} count={} unit={}",
            at_ns / NANOS_PER_SEC,
            at_ns % NANOS_PER_SEC / NANOS_PER_MSEC,
            self.source.name(),
            self.cause.name(),
            self.certainty.name(),
            self.count,
            self.cause.unit(),
        );
        if let Some((first, last)) = self.range {
            push(&mut text, format_args!(" first={first} last={last}"));
        }
        if let Some((from, to)) = self.between_ns {
            let (from_s, from_ns) = (from / NANOS_PER_SEC, from % NANOS_PER_SEC);
            let (to_s, to_ns) = (to / NANOS_PER_SEC, to % NANOS_PER_SEC);
            push(&mut text, format_args!(" from={from_s}.{from_ns:09} to={to_s}.{to_ns:09}"));
        }
        text.into_bytes()
    }

    /// The record that carries `payload`, which [`LossStatement::encode`] made.
    #[must_use]
    pub fn record(payload: &[u8], realtime_ns: u64, boottime_ns: u64) -> Record<'_> {
        Record {
            source: Source::Graven,
            kind: kind::DAEMON_ERR,
            flags: Flags::LOSS,
            realtime_ns,
            boottime_ns,
            source_seq: 0,
            bytes: payload,
        }
    }

    /// Reads a payload. The second value is when it was stated, in nanoseconds since 1970, to the
    /// millisecond.
    ///
    /// # Errors
    /// [`LossError`] says which part is not canonical.
    pub fn parse(payload: &[u8]) -> Result<(Self, u64), LossError> {
        let text = core::str::from_utf8(payload).map_err(|_| LossError::NotText)?;
        let stamp = text.strip_prefix("audit(").ok_or(LossError::Stamp)?;
        let (stamp, text) = stamp.split_once(":0): ").ok_or(LossError::Stamp)?;
        let at_ns = seconds(stamp, 3).ok_or(LossError::Stamp)?;
        let mut fields = Fields { rest: text };

        fields.expect("op", |value| (value == "loss").then_some(()))?;
        let source = fields.expect("source", Source::from_name)?;
        let cause = fields
            .expect("cause", |value| Cause::ALL.into_iter().find(|cause| cause.name() == value))?;
        let certainty = fields.expect("certainty", |value| match value {
            "exactly" => Some(Certainty::Exactly),
            "at-least" => Some(Certainty::AtLeast),
            _ => None,
        })?;
        let count = fields.expect("count", number)?;
        fields.expect("unit", |value| (value == cause.unit()).then_some(()))?;
        let range = match fields.take("first") {
            None => None,
            Some(first) => {
                let first = number(first).ok_or(LossError::Field("first"))?;
                Some((first, fields.expect("last", number)?))
            }
        };
        let between_ns = match fields.take("from") {
            None => None,
            Some(from) => {
                let from = seconds(from, 9).ok_or(LossError::Field("from"))?;
                Some((from, fields.expect("to", |value| seconds(value, 9))?))
            }
        };
        if !fields.rest.is_empty() {
            return Err(LossError::Trailing);
        }
        let statement = Self { source, cause, certainty, count, range, between_ns };
        // What is not looked at above, such as a doubled space, shows here.
        if statement.encode(at_ns) != payload {
            Err(LossError::Trailing)
        } else {
            Ok((statement, at_ns))
        }
    }
}

/// Appends to a string, which cannot fail.
fn push(text: &mut String, what: core::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes what fits in memory");
}

/// What is left of the statement's fields.
struct Fields<'a> {
    rest: &'a str,
}

impl<'a> Fields<'a> {
    /// The value of the next field if it is called `name`.
    fn take(&mut self, name: &str) -> Option<&'a str> {
        let value = self.rest.strip_prefix(name)?.strip_prefix('=')?;
        let (value, rest) = value.split_once(' ').unwrap_or((value, ""));
        self.rest = rest;
        Some(value)
    }

    /// The next field, which must be called `name` and have a value that `read` takes.
    fn expect<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, LossError> {
        self.take(name).and_then(read).ok_or(LossError::Field(name))
    }
}

/// A decimal number without sign or needless zeros.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    (digits && canonical).then(|| text.parse().ok()).flatten()
}

/// Seconds with exactly `places` decimal places, at most nine, in nanoseconds.
fn seconds(text: &str, places: usize) -> Option<u64> {
    let (whole, part) = text.split_once('.')?;
    if part.len() != places || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let scale = 10_u64.pow(9 - places as u32);
    let part_ns = part.parse::<u64>().ok()? * scale;
    number(whole)?.checked_mul(NANOS_PER_SEC)?.checked_add(part_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: LossStatement = LossStatement {
        source: Source::Netlink,
        cause: Cause::SerialGap,
        certainty: Certainty::Exactly,
        count: 5,
        range: Some((100, 104)),
        between_ns: Some((1_733_000_000_100_000_000, 1_733_000_000_120_000_000)),
    };

    #[test]
    fn the_example_of_the_documentation_is_what_is_written() {
        let text = "audit(1733000000.123:0): op=loss source=netlink cause=serial-gap \
                    certainty=exactly count=5 unit=events first=100 last=104 \
                    from=1733000000.100000000 to=1733000000.120000000";
        let at_ns = 1_733_000_000_123_000_000;
        assert_eq!(EXAMPLE.encode(at_ns), text.as_bytes());
        assert_eq!(LossStatement::parse(text.as_bytes()), Ok((EXAMPLE, at_ns)));
    }

    #[test]
    fn the_record_is_gravens_own_and_flagged() {
        let payload = EXAMPLE.encode(0);
        let record = LossStatement::record(&payload, 7, 8);
        assert_eq!(record.source, Source::Graven);
        assert_eq!(record.kind, 1209);
        assert!(record.flags.contains(Flags::LOSS));
        assert_eq!(record.bytes, payload);
    }

    #[test]
    fn what_is_not_canonical_is_refused_by_the_field_at_fault() {
        let good = "audit(1.000:0): op=loss source=netlink cause=enobufs certainty=at-least count=0 unit=records";
        assert!(LossStatement::parse(good.as_bytes()).is_ok());
        for (from, to, error) in [
            ("audit(", "Audit(", LossError::Stamp),
            ("1.000", "1.0", LossError::Stamp),
            ("1.000:0", "1.000:7", LossError::Stamp),
            ("op=loss", "op=gain", LossError::Field("op")),
            ("netlink", "carrier-pigeon", LossError::Field("source")),
            ("enobufs", "rain", LossError::Field("cause")),
            ("at-least", "perhaps", LossError::Field("certainty")),
            ("count=0", "count=+0", LossError::Field("count")),
            ("count=0", "count=00", LossError::Field("count")),
            ("unit=records", "unit=events", LossError::Field("unit")),
            ("unit=records", "unit=records first=1", LossError::Field("last")),
            ("unit=records", "unit=records last=1", LossError::Trailing),
            ("unit=records", "unit=records ", LossError::Trailing),
            ("unit=records", "unit=records x=1", LossError::Trailing),
        ] {
            let bad = good.replace(from, to);
            assert_eq!(LossStatement::parse(bad.as_bytes()), Err(error), "{bad}");
        }
        assert_eq!(LossStatement::parse(b"\xff"), Err(LossError::NotText));
    }

    proptest! {
        #[test]
        fn every_statement_comes_back(
            source in proptest::sample::select(&Source::ALL[..]),
            cause in proptest::sample::select(&Cause::ALL[..]),
            exactly: bool,
            count: u64,
            range: Option<(u64, u64)>,
            between_ns: Option<(u64, u64)>,
            at_ms in 0..u64::MAX / NANOS_PER_MSEC,
        ) {
            let certainty = if exactly { Certainty::Exactly } else { Certainty::AtLeast };
            let statement = LossStatement { source, cause, certainty, count, range, between_ns };
            let at_ns = at_ms * NANOS_PER_MSEC;
            prop_assert_eq!(LossStatement::parse(&statement.encode(at_ns)), Ok((statement, at_ns)));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = LossStatement::parse(&bytes);
        }

        #[test]
        fn one_changed_byte_is_refused_or_another_statement(at in 0_usize..180, to: u8) {
            let mut payload = EXAMPLE.encode(1_733_000_000_123_000_000);
            let at = at % payload.len();
            let before = payload[at];
            payload[at] = to;
            let same = LossStatement::parse(&payload) == Ok((EXAMPLE, 1_733_000_000_123_000_000));
            prop_assert_eq!(same, before == to);
        }
    }
}
