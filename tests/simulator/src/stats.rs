//! What has happened in all lives together, so that a test can tell that everything has.

use graven_format::recovery::Label;
use graven_writer::disk::sim::{Fate, OpKind, SimDisk};
use std::collections::BTreeMap;
use std::fmt;

/// Counts of what has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Lives.
    pub seeds: u64,
    /// Records that were announced durable.
    pub records: u64,
    /// Steps of the longest session: how far sessions are from being given up.
    pub steps_max: u64,
    /// All else, by name.
    pub counts: BTreeMap<String, u64>,
}

impl Stats {
    /// Counts one event.
    pub fn note(&mut self, name: &str) {
        self.note_many(name, 1);
    }

    /// Counts an operation that has failed.
    pub fn note_fault(&mut self, kind: OpKind, no_room: bool) {
        self.note(&format!("fault:{kind:?}{}", if no_room { ":no-room" } else { "" }));
    }

    /// Counts what recovery found and did.
    pub fn note_recovery(&mut self, label: Label, removed_orphan: bool) {
        self.note(&format!("recovery:{}", label.name()));
        if removed_orphan {
            self.note("recovery:orphan");
        }
    }

    /// Counts what a power cut did to the sectors at risk.
    pub fn note_power_cut(&mut self, disk: &SimDisk) {
        let Some(report) = disk.report() else { return };
        for fate in report.files.values().flat_map(|file| &file.fates).map(|(_, fate)| *fate) {
            self.note(match fate {
                Fate::Dropped => "sector:dropped",
                Fate::Kept => "sector:kept",
                Fate::Torn => "sector:torn",
            });
        }
        self.note_many("bit flips", report.flips.len() as u64);
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.records += other.records;
        self.steps_max = self.steps_max.max(other.steps_max);
        for (name, count) in &other.counts {
            self.note_many(name, *count);
        }
    }

    /// How often it has happened.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    fn note_many(&mut self, name: &str, count: u64) {
        if count == 0 {
            return;
        }
        match self.counts.get_mut(name) {
            Some(known) => *known += count,
            None => {
                self.counts.insert(name.to_owned(), count);
            }
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, records, steps_max, .. } = self;
        write!(f, "seeds {seeds}, records {records}, most steps of a session {steps_max}")?;
        for (name, count) in &self.counts {
            write!(f, ", {name} {count}")?;
        }
        Ok(())
    }
}
