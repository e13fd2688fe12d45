//! What `graven` says to people when something is wrong: what, where, what is still good, and
//! what to do next.
//!
//! ```text
//! error: frame checksum mismatch: stored 00c0ffee, computed deadbeef
//!   --> /var/lib/graven/0000000000000007-00000000000e02cf.seg: offset 0x41000, seq 918223..918287
//!   note: all 918223 records before it are intact
//!   help: keep the directory as it is
//! ```

use crate::aside;
use anstyle::{AnsiColor, Style};
use std::io::{self, Write};

/// How grave it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something is wrong.
    Error,
    /// Something may be wrong, or soon.
    Warning,
    /// Nothing is wrong; it is worth knowing.
    Note,
}

/// One thing to say.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    level: Level,
    title: String,
    place: Option<String>,
    notes: Vec<String>,
    help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic of one line. Text from outside has been escaped by the caller.
    #[must_use]
    pub fn new(level: Level, title: impl Into<String>) -> Self {
        Self { level, title: title.into(), place: None, notes: Vec::new(), help: None }
    }

    /// An error of one line.
    #[must_use]
    pub fn error(title: impl Into<String>) -> Self {
        Self::new(Level::Error, title)
    }

    /// A warning of one line.
    #[must_use]
    pub fn warning(title: impl Into<String>) -> Self {
        Self::new(Level::Warning, title)
    }

    /// Where it is.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// What else is known: what is still good above all.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// What to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Writes it with colours; `out` takes them away where they do not belong.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let (word, color) = match self.level {
            Level::Error => ("error", AnsiColor::Red),
            Level::Warning => ("warning", AnsiColor::Yellow),
            Level::Note => ("note", AnsiColor::Cyan),
        };
        let strong = Style::new().bold();
        let label = color.on_default().bold();
        let dim = AnsiColor::Blue.on_default().bold();
        writeln!(out, "{label}{word}{label:#}{strong}: {}{strong:#}", self.title)?;
        if let Some(place) = &self.place {
            writeln!(out, "  {dim}-->{dim:#} {place}")?;
        }
        for note in &self.notes {
            writeln!(out, "  {dim}note{dim:#}: {note}")?;
        }
        if let Some(help) = &self.help {
            let help_label = AnsiColor::Green.on_default().bold();
            writeln!(out, "  {help_label}help{help_label:#}: {help}")?;
        }
        Ok(())
    }

    /// Writes it to standard error. That nobody listens there is no reason to fail.
    pub fn emit(&self) {
        aside::say(|out| self.write(out));
    }
}
