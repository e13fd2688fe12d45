//! Values as the kernel's audit writes them.

use std::fmt;

/// Bytes in capital hexadecimal digits.
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

/// Whether audit writes these bytes in hexadecimal digits: one of them could end or forge a field.
pub(super) fn needs_hex(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| !(0x21..0x7f).contains(byte) || *byte == b'"')
}

/// What somebody else chose: in quotes, or in hexadecimal digits.
pub(super) struct Untrusted<'a>(pub(super) &'a [u8]);

impl fmt::Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if needs_hex(self.0) {
            return Hex(self.0).fmt(f);
        }
        f.write_str("\"")?;
        self.0.iter().try_for_each(|byte| write!(f, "{}", char::from(*byte)))?;
        f.write_str("\"")
    }
}

/// The bytes before the first zero: none of what is printed so can hold one.
pub(super) fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_quoted_or_in_digits_and_never_both() {
        for (bytes, text) in [
            (&b"/bin/x"[..], "\"/bin/x\""),
            (b"", "\"\""),
            (b"a b", "612062"),
            (b"\"", "22"),
            (b"\xff\x7f~!", "FF7F7E21"),
            (b"~!", "\"~!\""),
        ] {
            assert_eq!(Untrusted(bytes).to_string(), text);
        }
    }
}
