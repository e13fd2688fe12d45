//! `--seq`: which records are asked for.

use std::ops::Range;
use std::str::FromStr;

/// A half-open range of sequence numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeqRange(pub Range<u64>);

impl SeqRange {
    /// Every record.
    pub const ALL: Self = Self(0..u64::MAX);
}

impl FromStr for SeqRange {
    type Err = String;

    /// Reads `A..B` (without B), `A..=B` (with B), `A..`, `..B`, `..=B`, `..` or `A`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            // `parse` would also take a sign.
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = if digits { text.parse::<u64>().ok() } else { None };
            number.ok_or_else(|| format!("`{text}` is no sequence number"))
        };
        let range = match text.split_once("..") {
            None => {
                let seq = number(text)?;
                seq..seq.saturating_add(1)
            }
            Some((start, end)) => {
                let start = if start.is_empty() { 0 } else { number(start)? };
                let end = match end.strip_prefix('=') {
                    Some(last) => number(last)?.saturating_add(1),
                    None if end.is_empty() => u64::MAX,
                    None => number(end)?,
                };
                start..end
            }
        };
        if range.is_empty() {
            return Err("the range is empty".to_owned());
        }
        Ok(Self(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_nothing_else() {
        for (text, range) in [
            ("3..7", 3..7),
            ("3..=7", 3..8),
            ("3..", 3..u64::MAX),
            ("..7", 0..7),
            ("..=7", 0..8),
            ("..", 0..u64::MAX),
            ("7", 7..8),
            ("0..=18446744073709551615", 0..u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(SeqRange(range)), "{text}");
        }
        for text in ["", "x", "7..3", "7..7", "-1", "+1", "1...2", "1..2..3", "..=", "= 3"] {
            assert!(text.parse::<SeqRange>().is_err(), "{text}");
        }
    }
}
