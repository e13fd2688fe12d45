//! The documentation of the configuration: all of it comes from the doc comments of the sections.

use super::Config;
use super::schema::Key;
use std::fmt::Write as _;

const HEAD: &str = "\
# The configuration of `graven record --config FILE`. Every key stands here with its default, so that a file
# with nothing in it does the same. Options on the command line count before what a file says.
# `graven config check FILE` says what is wrong with a file, `graven config explain KEY` what a key means.
";

/// A complete file in which every key stands with its default and what it means.
#[must_use]
pub fn sample() -> String {
    let defaults = Config::default();
    let mut out = HEAD.to_owned();
    for (section, about, keys) in Config::sections() {
        out.push('\n');
        comment(&mut out, about);
        let _ = writeln!(out, "[{section}]");
        for key in keys {
            out.push('\n');
            comment(&mut out, key.about);
            let _ = writeln!(
                out,
                "# Takes {}. A change takes effect {}.",
                key.takes,
                key.effect.text()
            );
            let value = defaults.get(section, key.name);
            let _ = match (value, key.example) {
                (Some(value), _) => writeln!(out, "{} = {value}", key.name),
                (None, example) => {
                    writeln!(out, "#{} = {}", key.name, example.unwrap_or_default())
                }
            };
        }
    }
    out
}

fn comment(out: &mut String, lines: &[&str]) {
    for line in lines {
        let _ = writeln!(out, "#{}{line}", if line.starts_with(' ') { "" } else { " " });
    }
}

/// What is to be said of each key of this name: `section.key`, a section, or a key of any section.
#[must_use]
pub fn explain(name: &str) -> Option<String> {
    let (section_name, key_name) = match name.split_once('.') {
        Some((section, key)) => (Some(section), Some(key)),
        None => (None, None),
    };
    let mut out = String::new();
    for (section, about, keys) in Config::sections() {
        if section_name.is_some_and(|name| name != section) {
            continue;
        }
        if key_name.is_none() && name == section {
            let _ = writeln!(out, "[{section}]{}", joined(about));
            keys.iter().for_each(|key| explain_key(&mut out, section, key));
            continue;
        }
        let wanted = key_name.unwrap_or(name);
        keys.iter().filter(|key| key.name == wanted).for_each(|key| {
            explain_key(&mut out, section, key);
        });
    }
    (!out.is_empty()).then_some(out)
}

fn explain_key(out: &mut String, section: &str, key: &Key) {
    let default = Config::default().get(section, key.name);
    if !out.is_empty() {
        out.push('\n');
    }
    let _ = writeln!(out, "{section}.{}", key.name);
    let _ = writeln!(out, " {}", joined(key.about));
    let _ = writeln!(out, "  takes    {}", key.takes);
    let _ = writeln!(out, "  default  {}", default.as_deref().unwrap_or("not set"));
    if let Some(example) = key.example {
        let _ = writeln!(out, "  example  {example}");
    }
    let _ = writeln!(out, "  changes  take effect {}", key.effect.text());
}

fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| format!(" {}", line.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::read::parse;
    use super::*;

    #[test]
    fn the_sample_is_the_defaults() {
        assert_eq!(parse(&sample()), Ok(Config::default()));
    }

    /// Also with every example in force, each key is in the sample, once, and is documented.
    #[test]
    fn every_key_is_in_the_sample() {
        let sample = sample();
        let lines: Vec<_> = sample.lines().collect();
        let mut everything = String::new();
        for line in &lines {
            let is_example =
                line.strip_prefix('#').is_some_and(|it| it.contains(" = ") && !it.starts_with(' '));
            everything += if is_example { &line[1..] } else { line };
            everything.push('\n');
        }
        let config = parse(&everything).expect("examples are right");
        for (section, about, keys) in Config::sections() {
            assert!(about.iter().all(|line| line.len() > 3), "{section}");
            for key in keys {
                let name = key.name;
                assert!(config.get(section, name).is_some(), "{section}.{name} is in the sample");
                assert!(key.about.join("").len() > 20, "{section}.{name} is documented");
                let unset = Config::default().get(section, name).is_none();
                assert_eq!(unset, key.example.is_some(), "{section}.{name}");
            }
        }
    }

    #[test]
    fn a_key_is_explained_by_its_name() {
        let explained = explain("netlink.failure").expect("it is a key");
        assert!(explained.contains("a panic") && explained.contains("not set"), "{explained}");
        assert_eq!(explain("failure"), Some(explained));
        assert!(explain("process").expect("a section").contains("process.mlock"));
        assert_eq!(explain("nothing"), None);
    }
}
