//! Graven's own records: what the audit functions themselves did, in the trail like all else
//! (FAU_GEN.1 start-up and shutdown, FAU_STG actions taken).
//!
//! Such a record is of [`Source::Graven`], has one of the daemon types 1200 to 1209, and is text in
//! audit's own form, one line, so that whoever reads auditd's `DAEMON_START` reads ours:
//!
//! ```text
//! audit(1733000000.123:0): op=start ver=0.1.0 kernel=6.1.0 pid=412 uid=0 res=success
//! ```

use crate::clock::Now;
use crate::source::{AppendError, Sink};
use graven_format::{Flags, Record, Source};
use std::fmt::{Display, Write as _};

/// `DAEMON_START`: recording began.
pub const START: u16 = 1200;
/// `DAEMON_END`: recording ended as it was told to.
pub const END: u16 = 1201;
/// `DAEMON_ABORT`: recording ended because it could not go on, or a process of ours died.
pub const ABORT: u16 = 1202;
/// `DAEMON_CONFIG`: the configuration in force, what was loaded by it, and that it was read again.
pub const CONFIG: u16 = 1203;
/// `DAEMON_ROTATE`: a segment was sealed by request, or sealed segments were removed.
pub const ROTATE: u16 = 1205;
/// `DAEMON_RESUME`: recording goes on after it waited.
pub const RESUME: u16 = 1206;
/// `DAEMON_ACCEPT`: somebody connected to a socket of ours.
pub const ACCEPT: u16 = 1207;
/// `DAEMON_CLOSE`: such a connection ended.
pub const CLOSE: u16 = 1208;
/// `DAEMON_ERR`: a condition of storage or of a source, and the action taken.
pub const ERR: u16 = 1209;

/// A record about Graven itself that is being put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    kind: u16,
    at: Now,
    text: String,
}

impl Own {
    /// A record of this daemon type about `op`, a word of audit's alphabet such as `space-left`.
    #[must_use]
    pub fn new(kind: u16, op: &str, at: Now) -> Self {
        let (s, ms) = (at.realtime_ns / 1_000_000_000, at.realtime_ns / 1_000_000 % 1000);
        Self { kind, at, text: format!("audit({s}.{ms:03}:0): op={op}") }
    }

    /// Adds a field whose value is a number or a word of ours.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Display) -> Self {
        push(&mut self.text, format_args!(" {name}={value}"));
        self
    }

    /// Adds a field whose value comes from elsewhere: in quotes if it is printable and without spaces and
    /// quotes, in hexadecimal digits otherwise, as the kernel writes it.
    #[must_use]
    pub fn text(mut self, name: &str, value: &[u8]) -> Self {
        if value.iter().all(|byte| (0x21..0x7f).contains(byte) && *byte != b'"') {
            push(&mut self.text, format_args!(" {name}=\"{}\"", String::from_utf8_lossy(value)));
        } else {
            push(&mut self.text, format_args!(" {name}="));
            value.iter().for_each(|byte| push(&mut self.text, format_args!("{byte:02X}")));
        }
        self
    }

    /// Ends it with how it went.
    #[must_use]
    pub fn result(self, success: bool) -> Self {
        self.field("res", if success { "success" } else { "failed" })
    }

    /// The record.
    #[must_use]
    pub fn record(&self) -> Record<'_> {
        Record {
            source: Source::Graven,
            kind: self.kind,
            flags: Flags::NONE,
            realtime_ns: self.at.realtime_ns,
            boottime_ns: self.at.boottime_ns,
            source_seq: 0,
            bytes: self.text.as_bytes(),
        }
    }

    /// Appends it, waiting while there is no room, and returns its `seq`.
    ///
    /// # Errors
    /// As [`Sink::append`].
    pub fn append(&self, sink: &dyn Sink) -> Result<u64, AppendError> {
        sink.append(&self.record())
    }
}

/// Appends to a string, which cannot fail.
fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Now = Now { realtime_ns: 1_733_000_000_123_456_789, boottime_ns: 5 };

    #[test]
    fn it_reads_like_a_record_of_the_audit_daemon() {
        let own = Own::new(START, "start", AT).field("pid", 412).result(true);
        let record = own.record();
        assert_eq!(record.bytes, b"audit(1733000000.123:0): op=start pid=412 res=success");
        assert_eq!((record.kind, record.source), (START, Source::Graven));
        assert_eq!((record.realtime_ns, record.boottime_ns), (AT.realtime_ns, 5));
        assert_eq!(graven_format::kind::name(START), Some("DAEMON_START"));
    }

    #[test]
    fn what_comes_from_elsewhere_cannot_forge_a_field() {
        let own = |value: &[u8]| Own::new(ERR, "exec", AT).text("path", value).text;
        assert!(own(b"/sbin/x").ends_with(r#" path="/sbin/x""#));
        assert!(own(b"x\" res=success").ends_with(" path=7822207265733D73756363657373"));
        assert!(own(b"a\n\xff").ends_with(" path=610AFF"));
        assert!(own(b"").ends_with(r#" path="""#));
    }
}
