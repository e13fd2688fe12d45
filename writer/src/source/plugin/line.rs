//! One record as auditd writes it: `[node=NAME ]type=TYPE msg=audit(SEC.MSEC:SERIAL): …`.

use crate::source::nlmsg;
use graven_format::kind::{self, Kind};
use memchr::memmem;
use std::collections::HashMap;
use std::io::Write as _;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

/// Bytes that auditd 4.2 and 4.2.1 cut from the end of every record of the kernel that they hand to plugins.
pub(crate) const CUT_BYTES: usize = 16;

/// Types of programs' own records: their text ends with a quote.
const USER: [RangeInclusive<u16>; 2] = [1100..=1199, 2100..=2999];

/// What a line says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The type; 0 if no header known here has this name.
    pub(crate) kind: u16,
    /// The event's serial; `None` if its stamp is cut off.
    pub(crate) serial: Option<u32>,
    /// Whether it says on which machine it was made.
    pub(crate) node: bool,
    /// Whether its end is missing for certain.
    pub(crate) cut: bool,
}

/// Reads a line; `None` if it is none of auditd's.
pub(crate) fn read(line: &[u8]) -> Option<Seen> {
    let (node, rest) = match line.strip_prefix(b"node=") {
        Some(rest) => (true, &rest[memchr::memchr(b' ', rest)? + 1..]),
        None => (false, line),
    };
    let rest = rest.strip_prefix(b"type=")?;
    let (name, rest) = rest.split_at(memchr::memchr(b' ', rest)?);
    let kind = number(name)?;
    let body = rest.strip_prefix(b" msg=")?;
    let serial = nlmsg::stamp(body).map(|stamp| stamp.serial);
    let cut = match serial {
        Some(_) => {
            USER.iter().any(|range| range.contains(&kind)) && ends_in_quotes(body) == Some(false)
        }
        None if is_stamp_start(body) => true,
        None => return None,
    };
    Some(Seen { kind, serial, node, cut })
}

/// The number of a type's name; 0 if it looks like a name and is not known, `None` if it is none.
fn number(name: &[u8]) -> Option<u16> {
    static NUMBERS: LazyLock<HashMap<&'static str, u16>> =
        LazyLock::new(|| kind::all().map(|(number, name)| (name, number)).collect());
    let name = std::str::from_utf8(name).ok()?;
    if let Some(number) = NUMBERS.get(name) {
        return Some(*number);
    }
    let unknown = || {
        name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    kind::from_name(name).or((!name.is_empty() && unknown()).then_some(0))
}

/// Whether a text that is quoted as programs' own are ends with its quote; `None` if it is not.
fn ends_in_quotes(body: &[u8]) -> Option<bool> {
    let text = &body[memmem::find(body, b"msg='")? + 5..];
    // What follows the separator explains the text, and is not cut with it.
    let text = memchr::memchr(0x1d, text).map_or(text, |end| &text[..end]);
    Some(text.trim_ascii_end().ends_with(b"'"))
}

/// Whether this is the beginning of a stamp without its end.
fn is_stamp_start(body: &[u8]) -> bool {
    const START: &[u8] = b"audit(";
    let len = body.len().min(START.len());
    let digits = &body[len..];
    body[..len] == START[..len]
        && digits.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b':'))
}

/// Writes the line that auditd makes of a payload without one: of the kernel's text and its type.
pub(crate) fn compose(kind: u16, payload: &[u8], line: &mut Vec<u8>) {
    line.clear();
    // Writing to memory does not fail.
    let _ = write!(line, "type={} msg=", Kind(kind));
    line.extend_from_slice(payload);
    one_line(line);
}

/// As auditd does, so that a record is one line.
pub(crate) fn one_line(line: &mut [u8]) {
    line.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(line: &str) -> Option<(u16, Option<u32>, bool, bool)> {
        read(line.as_bytes()).map(|it| (it.kind, it.serial, it.node, it.cut))
    }

    #[test]
    fn lines_of_auditd_are_read() {
        for (line, expected) in [
            ("type=SYSCALL msg=audit(1.002:3): arch=c000003e", (1300, Some(3), false, false)),
            (
                "node=web-1 type=CWD msg=audit(1.002:4294967295): cwd=\"/\"",
                (1307, Some(u32::MAX), true, false),
            ),
            ("type=UNKNOWN[1999] msg=audit(1.002:3): x", (1999, Some(3), false, false)),
            ("type=BRAND_NEW2 msg=audit(1.002:3): x", (0, Some(3), false, false)),
            ("type=EOE msg=audit(1.002:3): ", (1320, Some(3), false, false)),
            ("type=AVC msg=audit(1.002:3) avc: old", (1400, Some(3), false, false)),
            (
                "type=USER_CMD msg=audit(1.002:3): pid=1 msg='cwd=\"/\" res=success'",
                (1123, Some(3), false, false),
            ),
            (
                "type=USER_CMD msg=audit(1.002:3): pid=1 msg='res=success'\x1dUID=\"root\"",
                (1123, Some(3), false, false),
            ),
        ] {
            assert_eq!(seen(line), Some(expected), "{line}");
        }
    }

    #[test]
    fn what_is_cut_off_shows_where_it_can() {
        let user = "type=USER_CMD msg=audit(1.002:3): pid=1 msg='cwd=\"/\" terminal=? res=success'";
        assert_eq!(seen(&user[..user.len() - CUT_BYTES]), Some((1123, Some(3), false, true)));
        let end = "type=EOE msg=audit(1733000000.123:456): ";
        assert_eq!(seen(&end[..end.len() - CUT_BYTES]), Some((1320, None, false, true)));
        assert_eq!(seen("type=EOE msg=aud"), Some((1320, None, false, true)));
    }

    #[test]
    fn other_lines_are_none() {
        for line in [
            "",
            "type=",
            "type=SYSCALL",
            "type= msg=audit(1.002:3): ",
            "type=sys call msg=audit(1.002:3)",
            "node=x",
            "node= type=EOE",
            "type=DAEMON_ERR op=format-raw msg=NULL res=failed",
            "type=UNKNOWN[1329] msg=?",
            "type=UNKNOWN[99999] msg=audit(1.002:3): ",
            "Nov 25 host audit",
            "type=EOE msg=audit(1.02:3): x",
        ] {
            assert_eq!(seen(line), None, "{line}");
        }
        assert_eq!(read(b"type=\xff msg=audit(1.002:3): "), None);
    }

    #[test]
    fn a_kernels_text_becomes_auditds_line() {
        let mut line = b"old".to_vec();
        compose(1300, b"audit(1.002:3): a\nb", &mut line);
        assert_eq!(line, b"type=SYSCALL msg=audit(1.002:3): a b");
        compose(60_000, b"", &mut line);
        assert_eq!(line, b"type=UNKNOWN[60000] msg=");
    }

    proptest! {
        #[test]
        fn any_line_is_read(line: Vec<u8>, tail: Vec<u8>) {
            let _ = read(&line);
            let _ = read(&[&b"type=USER_CMD msg=audit(1.002:3): msg='"[..], &tail].concat());
            let _ = read(&[&b"node=x type=EOE msg="[..], &tail].concat());
        }
    }
}
