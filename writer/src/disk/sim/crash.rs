//! The power cut: what is left, and what the oracle may know of it.

use super::file::{Fate, Luck};
use super::run::sectors;
use super::{Flying, Op, Rng, SECTOR_BYTES, SimDisk, Store};
use std::collections::BTreeMap;

/// What a crash did, for the oracle only: nothing under test may look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrashReport {
    /// The files that were left, by the name that they have now.
    pub files: BTreeMap<String, FileReport>,
    /// Files that had a name, durable or not, and are gone.
    pub lost_names: Vec<String>,
    /// Bits that were flipped on the media, which no disk that honours its flushes does.
    pub flips: Vec<Flip>,
}

/// What a crash did to one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileReport {
    /// What was durable before the crash, whole: each byte of it outside the sectors in `fates`
    /// and not in a flip is there still, unless a truncation was under way.
    pub pristine: Vec<u8>,
    /// The size after the crash.
    pub len: u64,
    /// The sectors that were under no barrier, by number, and what became of them.
    pub fates: Vec<(u64, Fate)>,
}

/// One flipped bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flip {
    /// The file's name after the crash.
    pub name: String,
    /// The byte.
    pub offset: u64,
    /// The bit, 0 to 7.
    pub bit: u8,
}

impl SimDisk {
    /// What a power cut now would leave, drawn from `seed`. Operations in flight have begun or
    /// not, sectors under no barrier are kept, dropped or torn, names under no barrier are old
    /// or new, and everything volatile is gone. This disk is not changed.
    #[must_use]
    pub fn crash_with(&self, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut store = self.store.clone();
        let clock = self.clock + 1;
        for flying in &self.flying {
            // A barrier under way has covered nothing yet: what it would cover is at risk.
            if rng.chance(500_000) {
                begin(&mut store, flying, clock);
            }
        }
        let mut report = CrashReport::default();
        let names_before: Vec<String> =
            store.listing().chain(store.durable_listing()).map(|(name, ..)| name.clone()).collect();
        store.crash_names(&mut rng);
        let mut luck = Luck::new(&mut rng, &self.options.faults, true).with_mood();
        let names: Vec<_> = store.listing().map(|(name, ino, _)| (name.clone(), ino)).collect();
        for (name, ino) in names {
            let Some(file) = store.files.get_mut(&ino) else { continue };
            let pristine = file.durable_content();
            let (left, fates) = file.crash(&mut luck);
            *file = left;
            report.files.insert(name, FileReport { pristine, len: file.len(), fates });
        }
        report.lost_names =
            names_before.into_iter().filter(|name| store.lookup(name).is_none()).collect();
        report.lost_names.sort_unstable();
        report.lost_names.dedup();

        let mut disk = Self::new(rng.next(), self.options);
        disk.store = store;
        disk.clock = clock;
        disk.trace = self.trace.clone();
        disk.trace.number(seed);
        disk.flip_by_chance(&mut report);
        disk.report = Some(report);
        disk
    }

    /// Flips a bit of some written sector, if chance wants it, and says so.
    fn flip_by_chance(&mut self, report: &mut CrashReport) {
        if !self.rng.chance(self.options.faults.bit_flip_ppm) {
            return;
        }
        let names: Vec<_> =
            self.store.listing().map(|(name, ino, _)| (name.clone(), ino)).collect();
        if names.is_empty() {
            return;
        }
        let (name, ino) = names[self.rng.index(names.len())].clone();
        let Some(file) = self.store.files.get(&ino) else { return };
        let Some(sector) = file.any_durable_sector(&mut self.rng) else { return };
        let offset = sector + self.rng.below(SECTOR_BYTES as u64);
        let bit = self.rng.below(8) as u8;
        if self.flip_bit(&name, offset, bit) {
            report.flips.push(Flip { name, offset, bit });
        }
    }
}

/// An operation in flight has had its effect on names and sizes, which no barrier covers; the
/// sectors of writes have been at risk since their submission.
fn begin(store: &mut Store, flying: &Flying, now: u64) {
    match &flying.op {
        Op::Create { name, .. } if store.lookup(name).is_none() => {
            store.create(name, now);
        }
        Op::Rename { from, to } if store.lookup(to).is_none() => store.rename(from, to, now),
        Op::Remove { name } => store.remove(name, now),
        _ => {}
    }
    let Some(file) = flying.ino.and_then(|ino| store.files.get_mut(&ino)) else { return };
    match &flying.op {
        Op::Truncate { len, .. } => file.resize(*len, now),
        Op::Allocate { len, .. } => file.reach(*len, now),
        op @ (Op::Write { .. } | Op::Zero { .. }) => {
            file.reach(sectors(op).end * SECTOR_BYTES as u64, now);
        }
        _ => {}
    }
}
