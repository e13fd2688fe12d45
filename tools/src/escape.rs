//! Text from the trail, made safe to print.
//!
//! A record may hold any bytes. On a terminal they could move the cursor, change its title or
//! make one line look like another, so every command that prints for people escapes them, and does so
//! on a pipe too: where the output ends up is not known.

use std::fmt;
use std::path::Path;

/// Bytes that print as text without control, format or bidirectional characters. A backslash is doubled, so
/// that an escape cannot be forged; bytes that are no UTF-8 print as `\xNN`.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            let text = chunk.valid();
            let mut plain_from = 0;
            for (at, c) in text.char_indices().filter(|(_, c)| !is_plain(*c)) {
                f.write_str(&text[plain_from..at])?;
                plain_from = at + c.len_utf8();
                match c {
                    '\\' => f.write_str("\\\\")?,
                    '\n' => f.write_str("\\n")?,
                    '\r' => f.write_str("\\r")?,
                    '\t' => f.write_str("\\t")?,
                    c if c.is_ascii() => write!(f, "\\x{:02x}", u32::from(c))?,
                    c => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                }
            }
            f.write_str(&text[plain_from..])?;
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

/// Whether a terminal shows this character as one visible mark in its place.
fn is_plain(c: char) -> bool {
    match c {
        ' '..='~' => c != '\\',
        // C0 and C1 controls.
        '\0'..='\u{9f}' => false,
        // Soft hyphen, Arabic letter mark, zero-width and bidirectional marks, line and
        // paragraph separators, invisible operators, byte order mark, interlinear marks, tags.
        '\u{ad}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' => false,
        _ => true,
    }
}

/// A path for a message.
#[must_use]
pub fn path(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    Escaped(path.as_os_str().as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_and_marks_do_not_reach_the_terminal() {
        for (from, to) in [
            (&b"plain text, \xc3\xa9"[..], "plain text, é"),
            (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            (b"a\\nb\nc\0", "a\\\\nb\\nc\\x00"),
            (b"\xff\xfe ok", "\\xff\\xfe ok"),
            ("\u{9b}31m\u{202e}abc".as_bytes(), "\\u{9b}31m\\u{202e}abc"),
            (b"", ""),
        ] {
            assert_eq!(Escaped(from).to_string(), to);
        }
    }
}
