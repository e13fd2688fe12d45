//! What a daemon asks of the kernel module, at its start and when it is configured anew.

use super::records;
use super::reload::Part;
use crate::config::{Config, ShimSection};
use crate::diag::Diagnostic;
use crate::exit::Exit;
use crate::recording::Failure;
use crate::recording::module::{self, Choice, Loading};
use crate::recording::shim::{RulesFile, Shim};
use graven_writer::source::Sink;
use graven_writer::source::shim::DEVICE;
use graven_writer::{Asker, Trail};
use std::path::Path;

/// Rules, and what else is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    rules: RulesFile,
    choice: Choice,
    loading: Loading,
}

impl Wanted {
    /// What the configuration asks for. Nothing is changed by asking.
    ///
    /// # Errors
    /// [`Failure`] with [`Exit::CannotCheck`]: there are no rules, they cannot be read, or one is wrong.
    pub fn read(section: &ShimSection) -> Result<Self, Failure> {
        let Some(file) = &section.rules else {
            let title =
                "the source shim needs --shim-rules FILE, or shim.rules in the configuration";
            return Err(Failure::new(Exit::CannotCheck, title)
                .help("`-a always,exit` on a line of its own is everything"));
        };
        let rules = RulesFile::read(file)?;
        Ok(Self { rules, choice: section.choice(), loading: section.loading() })
    }

    /// Loads the module, if it is not there.
    ///
    /// # Errors
    /// [`Failure`]: there is none for this kernel, or the kernel refuses it.
    pub fn load_module(&self) -> Result<(), Failure> {
        if Path::new(DEVICE).exists() { Ok(()) } else { module::load(&self.loading) }
    }

    /// Puts all of it in force: what else is asked for before the rules, under which the first call may wait.
    ///
    /// # Errors
    /// [`Failure`] with [`Exit::KernelAudit`].
    pub fn begin(&self, shim: &Shim, trail: &Trail) -> Result<(), Failure> {
        self.say_geometry(shim);
        self.choice.apply(&shim.device)?;
        load_rules(shim, &self.rules, 0, trail)
    }

    /// A module that was loaded otherwise goes on as it is.
    fn say_geometry(&self, shim: &Shim) {
        let control = shim.memory().control();
        let Loading { rings, slots, .. } = self.loading;
        let is = |wanted: Option<u32>, found| wanted.is_none_or(|wanted| wanted == found);
        if !is(rings, control.ring_count) || !is(slots, control.slots) {
            let (rings, slots) = (control.ring_count, control.slots);
            let title = format!("the module is loaded with {rings} rings of {slots} slots");
            Diagnostic::warning(title)
                .help("shim.rings and shim.slots count when it is loaded: `graven shim unload` before the next start")
                .emit();
        }
    }
}

/// Puts rules in force in place of so many, and records it.
fn load_rules(shim: &Shim, file: &RulesFile, removed: u32, sink: &dyn Sink) -> Result<(), Failure> {
    let loaded = shim.change_rules(&file.rules);
    let counts = match loaded {
        Ok(()) => (file.rules.count as usize, removed as usize),
        Err(_) => (0, 0),
    };
    let _ = records::rules(&file.path, file.text.as_bytes(), counts, loaded.is_ok()).append(sink);
    loaded
}

/// The module's rules, and what else there is to choose, when the configuration is read again.
pub struct Module<'a> {
    shim: &'a Shim,
    asker: Asker,
    in_force: Wanted,
    next: Option<Wanted>,
}

impl<'a> Module<'a> {
    /// As `wanted` has begun.
    #[must_use]
    pub fn new(shim: &'a Shim, asker: Asker, wanted: Wanted) -> Self {
        Self { shim, asker, in_force: wanted, next: None }
    }
}

impl Part for Module<'_> {
    fn check(&mut self, newer: &Config) -> Result<(), Failure> {
        self.next = None;
        let read = Wanted::read(&newer.shim);
        self.next = Some(read.map_err(|failure| failure.note("the rules in force stay"))?);
        Ok(())
    }

    fn apply(&mut self, _: &Config) -> Result<Vec<&'static str>, Failure> {
        let mut behind = Vec::new();
        let Some(next) = self.next.take() else { return Ok(behind) };
        if next.choice != self.in_force.choice {
            next.choice.apply(&self.shim.device)?;
            self.in_force.choice = next.choice;
        }
        if next.rules != self.in_force.rules {
            let removed = self.in_force.rules.rules.count;
            load_rules(self.shim, &next.rules, removed, &self.asker)?;
            self.in_force.rules = next.rules;
            behind.push("shim.rules");
        }
        Ok(behind)
    }
}
