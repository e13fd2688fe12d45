//! Reading a file: every error of it at once, each with line, key and what to do.

use super::Config;
use crate::diag::Diagnostic;
use crate::escape;
use std::ops::Range;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Longest file that is read: a thousand times the sample.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Line and column from 1; none if the file could not be read.
    pub at: Option<(usize, usize)>,
    /// `section.key`, as far as it is known.
    pub key: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: String,
}

impl ConfigError {
    /// The error for people.
    #[must_use]
    pub fn diagnostic(&self, file: &Path) -> Diagnostic {
        let file = escape::path(file);
        let escaped = |text: &str| escape::Escaped(text.as_bytes()).to_string();
        let key = self.key.as_deref().map(|key| format!(", key {}", escaped(key)));
        let place = match self.at {
            Some((line, column)) => format!("{file}:{line}:{column}{}", key.unwrap_or_default()),
            None => file.to_string(),
        };
        Diagnostic::error(escaped(&self.what)).at(place).help(escaped(&self.help))
    }
}

/// Reads a file.
///
/// # Errors
/// All that is wrong with it, in the order of its lines.
pub fn load(file: &Path) -> Result<Config, Vec<ConfigError>> {
    parse(&text(file)?)
}

/// The text of a file that may be a configuration.
///
/// # Errors
/// It cannot be read, is too long, or no text.
pub fn text(file: &Path) -> Result<String, Vec<ConfigError>> {
    let unreadable = |what: String, help: &str| {
        vec![ConfigError { at: None, key: None, what, help: help.to_owned() }]
    };
    let sample = "`graven config show-default` prints a file to begin with";
    let bytes = read_bounded(file, FILE_BYTES_MAX)
        .map_err(|why| unreadable(format!("cannot read the configuration: {why}"), sample))?;
    String::from_utf8(bytes).map_err(|why| {
        let at = why.utf8_error().valid_up_to();
        let what = format!("the configuration is no UTF-8 from byte {at} on");
        unreadable(what, "write it in UTF-8, as TOML has it")
    })
}

/// A file that is no longer than `max` bytes.
///
/// # Errors
/// It is longer, or cannot be read.
pub fn read_bounded(file: &Path, max: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        let text = format!("it is longer than {max} bytes");
        return Err(std::io::Error::other(text));
    }
    Ok(bytes)
}

/// Reads a text.
///
/// # Errors
/// All that is wrong with it, in the order of its lines.
pub fn parse(text: &str) -> Result<Config, Vec<ConfigError>> {
    let place = |span: Range<usize>| Some(line_column(text, span.start));
    let (table, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        let error = |why: &toml::de::Error| ConfigError {
            at: why.span().and_then(place),
            key: None,
            what: format!("this is no TOML: {}", why.message()),
            help: "a key is written `name = value`, texts in quotes, below its `[section]`"
                .to_owned(),
        };
        return Err(syntax.iter().map(error).collect());
    }
    let mut config = Config::default();
    let mut errors = Vec::new();
    for (name, value) in table.get_ref() {
        let section: &str = name.get_ref();
        let Some(keys) = keys_of(section) else {
            errors.push(unknown_section(section, place(name.span()), value.get_ref()));
            continue;
        };
        let Some(entries) = value.get_ref().as_table() else {
            errors.push(ConfigError {
                at: place(name.span()),
                key: Some(section.to_owned()),
                what: format!("`{section}` is a section and no key"),
                help: format!("write its keys below a line `[{section}]`"),
            });
            continue;
        };
        for (name, value) in entries {
            let key: &str = name.get_ref();
            let full = format!("{section}.{key}");
            let error = |at, what, help| ConfigError { at, key: Some(full.clone()), what, help };
            match config.set(section, key, value.get_ref()) {
                Some(Ok(())) => {}
                Some(Err(problem)) => {
                    let takes = keys.iter().find(|it| it.name == key).map(|it| it.takes.clone());
                    let help = format!("it takes {}", takes.unwrap_or_default());
                    let what = format!("wrong value for `{full}`: {problem}");
                    errors.push(error(place(value.span()), what, help));
                }
                None => {
                    let names: Vec<_> = keys.iter().map(|key| key.name).collect();
                    let what = format!("unknown key `{full}`");
                    errors.push(error(place(name.span()), what, did_you_mean(key, &names)));
                }
            }
        }
    }
    errors.sort_by_key(|error| error.at);
    if errors.is_empty() { Ok(config) } else { Err(errors) }
}

fn keys_of(section: &str) -> Option<Vec<super::schema::Key>> {
    Config::sections().into_iter().find(|(name, ..)| *name == section).map(|(.., keys)| keys)
}

fn unknown_section(name: &str, at: Option<(usize, usize)>, value: &DeValue<'_>) -> ConfigError {
    let sections = Config::sections();
    let kind = if value.is_table() { "section" } else { "key" };
    // A key that stands above every section has lost it.
    let home = sections.iter().find(|(.., keys)| keys.iter().any(|key| key.name == name));
    let help = match home {
        Some((section, ..)) if !value.is_table() => format!("write it below a line `[{section}]`"),
        _ => did_you_mean(name, &sections.iter().map(|(name, ..)| *name).collect::<Vec<_>>()),
    };
    ConfigError { at, key: Some(name.to_owned()), what: format!("unknown {kind} `{name}`"), help }
}

/// The nearest of the known names, or all of them.
#[must_use]
pub fn did_you_mean(name: &str, known: &[&str]) -> String {
    let near = known.iter().filter(|known| {
        let shorter = name.len().min(known.len());
        shorter >= 3
            && (known.contains(name) || name.contains(**known) || distance(name, known) <= 2)
    });
    let near: Vec<_> = near.map(|name| format!("`{name}`")).collect();
    if near.is_empty() {
        return format!("there is {}", known.join(", "));
    }
    format!("did you mean {}?", near.join(" or "))
}

/// How many letters must be put in, taken out or changed; names are short, and longer ones are not compared.
fn distance(left: &str, right: &str) -> usize {
    const NAME_BYTES_MAX: usize = 64;
    if left.len() > NAME_BYTES_MAX {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (at, to) in right.bytes().enumerate() {
            let changed = diagonal + usize::from(from != to);
            diagonal = row[at + 1];
            row[at + 1] = changed.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[right.len()]
}

fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line and column, what is wrong, and what to do.
    type Said = (Option<(usize, usize)>, String, String);

    fn errors(text: &str) -> Vec<Said> {
        let errors = parse(text).expect_err("it is wrong");
        errors.into_iter().map(|error| (error.at, error.what, error.help)).collect()
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(parse(""), Ok(Config::default()));
        assert_eq!(parse("[trail]\n[process]\n# nothing\n"), Ok(Config::default()));
    }

    #[test]
    fn every_error_of_a_file_is_said_with_its_place() {
        let text = "\
[netlink]
backlog_limt = 3
failure = 7
  rules = \"audit.rules\"
[tail]
[process]
mlock = 'yes'
";
        let errors = errors(text);
        let places: Vec<_> = errors.iter().map(|(at, ..)| *at).collect();
        assert_eq!(
            places,
            [Some((2, 1)), Some((3, 11)), Some((4, 11)), Some((5, 2)), Some((7, 9))]
        );
        assert_eq!(errors[0].1, "unknown key `netlink.backlog_limt`");
        assert_eq!(errors[0].2, "did you mean `backlog_limit`?");
        assert_eq!(errors[1].1, "wrong value for `netlink.failure`: 7 is out of range");
        assert_eq!(errors[1].2, "it takes a whole number, 0 to 2");
        assert!(errors[2].1.ends_with("it does not begin with /"));
        assert_eq!(
            (errors[3].1.as_str(), errors[3].2.as_str()),
            ("unknown section `tail`", "did you mean `trail`?")
        );
        assert!(errors[4].2.contains("true or false"));
    }

    #[test]
    fn a_key_that_has_lost_its_section_is_told_where_it_belongs() {
        let errors = errors("dir = '/x'\ntrail = 3\n");
        assert_eq!(errors[0].2, "write it below a line `[trail]`");
        assert_eq!(errors[1].1, "`trail` is a section and no key");
    }

    #[test]
    fn what_is_no_toml_is_said_with_its_line() {
        let errors = errors("[trail]\ndir = /var\n");
        assert_eq!(errors[0].0.map(|(line, _)| line), Some(2));
        assert!(errors[0].1.starts_with("this is no TOML"), "{}", errors[0].1);
        assert!(parse("[trail]\ndir = '/a'\ndir = '/b'\n").is_err(), "no key twice");
    }

    #[test]
    fn no_text_makes_it_panic() {
        let mut random = fastrand_like(7);
        let pieces = [
            "[", "]", "trail", "=", "\"", "'", "\n", "dir", ".", "{", "}", "é", "\u{0}", "9", "-",
            "#",
        ];
        for _ in 0..20_000 {
            let text: String =
                (0..random(24)).map(|_| pieces[random(pieces.len() as u64) as usize]).collect();
            let _ = parse(&text);
        }
    }

    /// Numbers below a limit, the same ones for the same seed.
    fn fastrand_like(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed;
        move |limit| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % limit
        }
    }
}
