//! auditd.conf as our configuration: what it says in our words on standard output, and what cannot be said in them,
//! each option by name, on standard error.

mod options;

use super::Config;
use super::read::did_you_mean;
use crate::cmd::config::print;
use crate::diag::Diagnostic;
use crate::escape;
use crate::exit::Exit;
use options::Outcome;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use toml::de::DeValue;

/// Longest auditd.conf that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One option as it stands in auditd.conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its line, from 1.
    pub line: usize,
    /// Its value as it is written.
    pub value: String,
    /// What stands behind the value: the program of an `exec`.
    pub option: Option<String>,
}

/// Something that is wrong with an auditd.conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: String,
}

/// An option that our configuration has no counterpart for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untranslated {
    /// Its line, from 1.
    pub line: usize,
    /// `option = value`.
    pub said: String,
    /// Why there is none.
    pub why: String,
    /// What to do instead.
    pub instead: String,
}

/// What became of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Our configuration.
    pub text: String,
    /// What is not in it.
    pub untranslated: Vec<Untranslated>,
}

/// Reads the file and prints what became of it.
#[must_use]
pub fn run(file: &Path) -> Exit {
    let shown = escape::path(file);
    let bytes = match super::read::read_bounded(file, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(why) => {
            Diagnostic::error(format!("cannot read it: {why}")).at(shown.to_string()).emit();
            return Exit::CannotCheck;
        }
    };
    match import(&String::from_utf8_lossy(&bytes), &shown.to_string()) {
        Ok(imported) => {
            for Untranslated { line, said, why, instead } in &imported.untranslated {
                let said = escape::Escaped(said.as_bytes());
                Diagnostic::warning(format!("`{said}` has no counterpart: {why}"))
                    .at(format!("{shown}:{line}"))
                    .help(instead.as_str())
                    .emit();
            }
            print(&imported.text)
        }
        Err(wrong) => {
            for Wrong { line, what, help } in &wrong {
                let escaped = |text: &str| escape::Escaped(text.as_bytes()).to_string();
                Diagnostic::error(escaped(what))
                    .at(format!("{shown}:{line}"))
                    .help(escaped(help))
                    .emit();
            }
            Exit::CannotCheck
        }
    }
}

/// Says in our words what `text` says; `name` is the file's.
///
/// # Errors
/// Lines that auditd would refuse too.
pub fn import(text: &str, name: &str) -> Result<Imported, Vec<Wrong>> {
    let given = parse(text)?;
    let mut imported = Imported::default();
    let mut wrong = Vec::new();
    let mut sections: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut in_order: Vec<_> = given.iter().collect();
    in_order.sort_by_key(|(_, it)| it.line);
    for (option, it) in in_order {
        let said = match &it.option {
            Some(more) => format!("{option} = {} {more}", it.value),
            None => format!("{option} = {}", it.value),
        };
        let mut untranslated = |why: &str, instead: &str| {
            let (why, instead) = (why.to_owned(), instead.to_owned());
            let line = it.line;
            imported.untranslated.push(Untranslated { line, said: said.clone(), why, instead });
        };
        match options::outcome(option, it, &given) {
            Outcome::Same => {}
            Outcome::Cannot(why, instead) => untranslated(why, instead),
            Outcome::Wrong(what) => {
                let help = "auditd refuses this line too: see auditd.conf(5)".to_owned();
                wrong.push(Wrong { line: it.line, what, help });
            }
            Outcome::Set { section, key, value, otherwise: (why, instead) } => {
                match place(section, key, &value) {
                    Some(index) => {
                        let line = format!("# {said}\n{key} = {value}\n");
                        sections.entry(index).or_default().push(line);
                    }
                    None => untranslated(why, instead),
                }
            }
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let _ = writeln!(imported.text, "# From {name}. `graven config show-default` has every key.");
    let names = Config::sections();
    for (index, lines) in sections {
        let _ = write!(imported.text, "\n[{}]\n{}", names[index].0, lines.concat());
    }
    Ok(imported)
}

/// The place of the section, if it has this key and the key takes this value.
fn place(section: &str, key: &str, value: &str) -> Option<usize> {
    let value = DeValue::parse(value).ok()?;
    Config::default().set(section, key, value.get_ref())?.ok()?;
    Config::sections().iter().position(|(name, ..)| *name == section)
}

/// The options, each once: auditd takes the last of several.
fn parse(text: &str) -> Result<BTreeMap<&'static str, Given>, Vec<Wrong>> {
    let mut given = BTreeMap::new();
    let mut wrong = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let line = index + 1;
        let mut words = text.split_whitespace();
        let Some(name) = words.next().filter(|word| !word.starts_with('#')) else { continue };
        let mut refuse = |what: String, help: String| wrong.push(Wrong { line, what, help });
        let form = "a line is `option = value`, with spaces around the equal sign";
        let Some(option) = options::known(name) else {
            let help = did_you_mean(&name.to_lowercase(), &options::names());
            refuse(format!("auditd has no option `{name}`"), help);
            continue;
        };
        let (equal, value, more) = (words.next(), words.next(), words.next());
        let (Some("="), Some(value), None) = (equal, value, words.next()) else {
            refuse(format!("the line of `{name}` has another form"), form.to_owned());
            continue;
        };
        if more.is_some() && !options::takes_a_program(option) {
            refuse(format!("`{name}` takes one value"), form.to_owned());
            continue;
        }
        let (value, option_of) = (value.to_owned(), more.map(str::to_owned));
        given.insert(option, Given { line, value, option: option_of });
    }
    if wrong.is_empty() { Ok(given) } else { Err(wrong) }
}

#[cfg(test)]
mod tests;
