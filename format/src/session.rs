//! Marks of a session of receiving from the kernel's audit, said inside the trail itself: from which
//! serial on everything was owed to the writer, up to which it was settled, and where it ended.
//!
//! A mark is an ordinary record of [`Source::Graven`] whose payload is text in audit's own form, one
//! line. No process but the writer makes records of this source, so that nobody else begins or ends a
//! session:
//!
//! ```text
//! audit(1733000000.123:0): op=netlink-open serial=104 seq=12 lost=0 goes-on=no res=success
//! audit(1733000030.004:0): op=netlink-settled serial=2210 seq=9120 lost=0 halves=yes res=success
//! audit(1733000099.000:0): op=netlink-close serial=9000 seq=40110 lost=0 left-on=yes own=1 drained=yes res=success
//! ```
//!
//! `serial` is the opening marker's, the last that is settled, or the closing marker's. No record of the
//! session with a higher serial stands before `seq`. `lost` is the kernel's counter of lost records as
//! far as it has been accounted for.

use crate::record::{Record, Source};

/// What a mark says beside its serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A session began: every serial above this one is owed to it.
    Open {
        /// What was owed to the session before is owed still: it was cut off, or left audit on.
        goes_on: bool,
    },
    /// Every serial of the session up to this one is in the trail or stated as lost.
    Settled {
        /// Whether both the beginnings and the ends of events had been seen.
        halves: bool,
    },
    /// The session ended: no serial above this one is owed to it.
    Close {
        /// Whether audit stays on behind it.
        left_on: bool,
        /// Events that giving back what was taken makes behind it.
        own: u64,
    },
}

/// A mark of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What it says.
    pub what: What,
    /// The serial that it says it of.
    pub serial: u32,
    /// No record of a higher serial stands before this seq.
    pub seq: u64,
    /// The kernel's counter of lost records.
    pub lost: u32,
}

impl Mark {
    /// Reads a record; `None` if it is no mark.
    #[must_use]
    pub fn read(record: &Record<'_>) -> Option<Self> {
        if record.source != Source::Graven {
            return None;
        }
        let text = core::str::from_utf8(record.bytes).ok()?;
        let (_, text) = text.strip_prefix("audit(")?.split_once(":0): op=netlink-")?;
        let (word, text) = text.split_once(' ')?;
        let yes = |name| match value(text, name)? {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        };
        let what = match word {
            "open" => What::Open { goes_on: yes("goes-on")? },
            "settled" => What::Settled { halves: yes("halves")? },
            "close" => What::Close { left_on: yes("left-on")?, own: number(text, "own")? },
            _ => return None,
        };
        let narrow = |name| u32::try_from(number(text, name)?).ok();
        let (serial, seq, lost) = (narrow("serial")?, number(text, "seq")?, narrow("lost")?);
        Some(Self { what, serial, seq, lost })
    }
}

/// The value of the field of this name.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
}

fn number(text: &str, name: &str) -> Option<u64> {
    value(text, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Flags;

    fn read(source: Source, text: &str) -> Option<Mark> {
        Mark::read(&Record {
            source,
            kind: 1200,
            flags: Flags::NONE,
            realtime_ns: 0,
            boottime_ns: 0,
            source_seq: 0,
            bytes: text.as_bytes(),
        })
    }

    #[test]
    fn the_examples_of_the_documentation_are_read() {
        let mark = |what, serial, seq| Some(Mark { what, serial, seq, lost: 0 });
        let text =
            "audit(1.123:0): op=netlink-open serial=104 seq=12 lost=0 goes-on=no res=success";
        assert_eq!(read(Source::Graven, text), mark(What::Open { goes_on: false }, 104, 12));
        let text =
            "audit(1.004:0): op=netlink-settled serial=2210 seq=9120 lost=0 halves=yes res=success";
        assert_eq!(read(Source::Graven, text), mark(What::Settled { halves: true }, 2210, 9120));
        let text = "audit(1.000:0): op=netlink-close serial=9000 seq=40110 lost=0 left-on=yes own=1 \
                    drained=yes res=success";
        let close = What::Close { left_on: true, own: 1 };
        assert_eq!(read(Source::Graven, text), mark(close, 9000, 40110));
    }

    #[test]
    fn nothing_else_is_a_mark() {
        let good = "audit(1.0:0): op=netlink-settled serial=1 seq=2 lost=3 halves=no res=success";
        assert!(read(Source::Graven, good).is_some());
        assert_eq!(read(Source::Netlink, good), None, "the kernel's, and so anybody's");
        for (from, to) in [
            ("audit(", "audit["),
            (":0)", ":7)"),
            ("settled", "open"),
            ("settled", "unsettled"),
            ("serial=1", "serial=4294967296"),
            ("serial=1", "serial=-1"),
            ("seq=2", "seq="),
            ("lost=3", "gain=3"),
            ("halves=no", "halves=maybe"),
        ] {
            assert_eq!(read(Source::Graven, &good.replace(from, to)), None, "{from} {to}");
        }
    }
}
