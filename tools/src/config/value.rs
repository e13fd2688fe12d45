//! The kinds of value that a key can have: how each is read, what is said when it is not one, and how it is
//! written into the sample.

use crate::recording::open::{parse_bytes, parse_time};
use clap::ValueEnum;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

/// Why a value is none of its kind: what is wrong with it. What the key takes is said beside.
pub type Problem = String;

/// A kind of value.
pub trait Value: Sized {
    /// What a key of this kind takes, in words.
    fn takes() -> String;

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    fn read(value: &DeValue<'_>) -> Result<Self, Problem>;

    /// The value as it stands in a file; `None` for one that is not set.
    fn write(&self) -> Option<String>;
}

/// Bytes between two limits, both included: a number, or a text with K, M or G of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes<const MIN: u64, const MAX: u64>(pub u64);

/// A time between two limits in milliseconds, both included: a text with ms, s, m, h or d.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time<const MIN_MS: u64, const MAX_MS: u64>(pub Duration);

/// A time between two limits in milliseconds, both included, or none at all: `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every<const MIN_MS: u64, const MAX_MS: u64>(pub Option<Duration>);

/// A whole number between two limits, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number<const MIN: i64, const MAX: i64>(pub i64);

fn wrong_kind<T>(value: &DeValue<'_>) -> Result<T, Problem> {
    let kind = value.type_str();
    let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
    Err(format!("it is {article} {kind}"))
}

fn integer(value: &DeValue<'_>) -> Result<i64, Problem> {
    match value.as_integer() {
        Some(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| format!("{number} is out of range")),
        None => wrong_kind(value),
    }
}

fn text<'a>(value: &'a DeValue<'_>) -> Result<&'a str, Problem> {
    value.as_str().map_or_else(|| wrong_kind(value), Ok)
}

/// A text as a basic string of TOML.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A number and the largest unit that says it without a rest.
fn in_units(number: u64, units: &[(u64, &str)]) -> String {
    let unit = units.iter().find(|(factor, _)| number >= *factor && number.is_multiple_of(*factor));
    unit.map_or_else(|| number.to_string(), |(factor, unit)| format!("{}{unit}", number / factor))
}

impl Value for bool {
    fn takes() -> String {
        "true or false".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        value.as_bool().map_or_else(|| wrong_kind(value), Ok)
    }

    fn write(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl<const MIN: i64, const MAX: i64> Value for Number<MIN, MAX> {
    fn takes() -> String {
        format!("a whole number, {MIN} to {MAX}")
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        match integer(value)? {
            number if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            number => Err(format!("{number} is out of range")),
        }
    }

    fn write(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

fn bytes_text(bytes: u64) -> String {
    in_units(bytes, &[(1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")])
}

impl<const MIN: u64, const MAX: u64> Value for Bytes<MIN, MAX> {
    fn takes() -> String {
        let (min, max) = (bytes_text(MIN), bytes_text(MAX));
        format!("bytes as a number, or as a text with K, M or G, \"{min}\" to \"{max}\"")
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let bytes = if value.is_integer() {
            let number = integer(value)?;
            u64::try_from(number).map_err(|_| format!("{number} is less than 0"))?
        } else {
            text(value).and_then(parse_bytes)?
        };
        let is_in = (MIN..=MAX).contains(&bytes);
        if is_in { Ok(Self(bytes)) } else { Err(format!("{bytes} is out of range")) }
    }

    fn write(&self) -> Option<String> {
        let text = bytes_text(self.0);
        Some(if text.ends_with(|c: char| c.is_ascii_digit()) { text } else { quoted(&text) })
    }
}

fn time_text(time: Duration) -> String {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    if ms == 0 { "0s".to_owned() } else { in_units(ms, &units) }
}

fn check_time<const MIN_MS: u64, const MAX_MS: u64>(time: Duration) -> Result<Duration, Problem> {
    let is_in = (Duration::from_millis(MIN_MS)..=Duration::from_millis(MAX_MS)).contains(&time);
    if is_in { Ok(time) } else { Err(format!("{} is out of range", time_text(time))) }
}

impl<const MIN_MS: u64, const MAX_MS: u64> Value for Time<MIN_MS, MAX_MS> {
    fn takes() -> String {
        let [min, max] = [MIN_MS, MAX_MS].map(|ms| time_text(Duration::from_millis(ms)));
        format!("a time as a text with ms, s, m, h or d, \"{min}\" to \"{max}\"")
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        text(value).and_then(parse_time).and_then(check_time::<MIN_MS, MAX_MS>).map(Self)
    }

    fn write(&self) -> Option<String> {
        Some(quoted(&time_text(self.0)))
    }
}

impl<const MIN_MS: u64, const MAX_MS: u64> Value for Every<MIN_MS, MAX_MS> {
    fn takes() -> String {
        format!("{}, or \"off\"", Time::<MIN_MS, MAX_MS>::takes())
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        match text(value)? {
            "off" => Ok(Self(None)),
            _ => Time::<MIN_MS, MAX_MS>::read(value).map(|time| Self(Some(time.0))),
        }
    }

    fn write(&self) -> Option<String> {
        Some(quoted(&self.0.map_or_else(|| "off".to_owned(), time_text)))
    }
}

impl Value for String {
    fn takes() -> String {
        "a text".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        text(value).map(str::to_owned)
    }

    fn write(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Value for PathBuf {
    fn takes() -> String {
        "an absolute path".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let path = Self::from(text(value)?);
        // Who starts a daemon has another working directory than who writes its file.
        if path.is_absolute() { Ok(path) } else { Err("it does not begin with /".to_owned()) }
    }

    fn write(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
}

impl<V: Value> Value for Option<V> {
    fn takes() -> String {
        V::takes()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        V::read(value).map(Some)
    }

    fn write(&self) -> Option<String> {
        self.as_ref().and_then(V::write)
    }
}

impl<V: Value> Value for Vec<V> {
    fn takes() -> String {
        format!("a list in brackets, each of it {}", V::takes())
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        match value.as_array() {
            Some(array) => array.iter().map(|value| V::read(value.get_ref())).collect(),
            None => wrong_kind(value),
        }
    }

    fn write(&self) -> Option<String> {
        Some(format!("[{}]", self.iter().filter_map(V::write).collect::<Vec<_>>().join(", ")))
    }
}

/// One of the words that the command line takes for the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<E>(pub E);

impl<E: ValueEnum> Value for Word<E> {
    fn takes() -> String {
        let words: Vec<_> = E::value_variants()
            .iter()
            .filter_map(ValueEnum::to_possible_value)
            .map(|word| quoted(word.get_name()))
            .collect();
        format!("one of {}", words.join(", "))
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let text = text(value)?;
        E::from_str(text, false).map(Self).map_err(|_| format!("{} is none", quoted(text)))
    }

    fn write(&self) -> Option<String> {
        self.0.to_possible_value().map(|word| quoted(word.get_name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<V: Value>(text: &str) -> Result<V, Problem> {
        let value = DeValue::parse(text).expect("it is TOML");
        V::read(value.get_ref())
    }

    #[test]
    fn each_kind_is_read_as_it_is_written() {
        for text in ["\"64M\"", "\"1G\"", "1000", "\"3K\"", "0"] {
            assert_eq!(
                read::<Bytes<0, { 1 << 40 }>>(text).expect(text).write().as_deref(),
                Some(text)
            );
        }
        for text in ["\"500ms\"", "\"90s\"", "\"15m\"", "\"7d\"", "\"0s\""] {
            assert_eq!(
                read::<Time<0, 1_000_000_000>>(text).expect(text).write().as_deref(),
                Some(text)
            );
        }
        assert_eq!(
            read::<Every<0, 1>>("\"off\"").expect("off").write().as_deref(),
            Some("\"off\"")
        );
        let text = r#"["a\"b", "c\\d"]"#;
        assert_eq!(read::<Vec<String>>(text).expect(text).write().as_deref(), Some(text));
    }

    #[test]
    fn what_is_none_of_its_kind_is_said() {
        assert_eq!(read::<Number<0, 2>>("3"), Err("3 is out of range".to_owned()));
        assert_eq!(
            read::<Number<0, 2>>("99999999999999999999"),
            Err("99999999999999999999 is out of range".to_owned())
        );
        assert_eq!(read::<Number<0, 2>>("\"1\""), Err("it is a string".to_owned()));
        assert_eq!(read::<bool>("1"), Err("it is an integer".to_owned()));
        assert_eq!(read::<Bytes<0, 9>>("-1"), Err("-1 is less than 0".to_owned()));
        assert_eq!(read::<Bytes<0, 9>>("\"1K\""), Err("1024 is out of range".to_owned()));
        assert_eq!(read::<Time<0, 9>>("\"1s\""), Err("1s is out of range".to_owned()));
        assert!(read::<Time<0, 9>>("\"1 week\"").is_err());
        assert_eq!(read::<PathBuf>("\"a\""), Err("it does not begin with /".to_owned()));
    }
}
