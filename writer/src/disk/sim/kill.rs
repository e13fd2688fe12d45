//! The kill of the process: the machine goes on, and with it the kernel.

use super::run::sectors;
use super::{Flying, Op, Rng, SimDisk};

impl SimDisk {
    /// What a kill of the writer now leaves to the next one, drawn from `seed`. Nothing that
    /// reads saw is gone. What was in flight the kernel has done, or not, or in part, and mostly
    /// without the barrier: a power cut can still take it back. Through the page cache, writes
    /// whose barrier has failed are seen on, and nothing says so. This disk is not changed.
    #[must_use]
    pub fn kill_with(&self, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut disk = Self::new(rng.next(), self.options);
        disk.store = self.store.clone();
        disk.open = self.open.clone();
        disk.clock = self.clock;
        disk.trace = self.trace.clone();
        disk.trace.number(!seed);
        for flying in &self.flying {
            disk.let_go(flying, &mut rng);
        }
        // The kernel closes what a dead process had open.
        disk.open.clear();
        if disk.options.geometry.direct {
            // No page cache goes on showing what a failed barrier has lost.
            disk.store.files.values_mut().for_each(super::file::File::drop_clean);
        }
        disk
    }

    /// An operation whose process is gone ends in one way or another.
    fn let_go(&mut self, flying: &Flying, rng: &mut Rng) {
        let fate = rng.below(4);
        let range = sectors(&flying.op);
        let range = range.start + flying.written..range.end;
        match &flying.op {
            // Done after all, barrier included; or found impossible, which nobody is told.
            Op::Write { .. } | Op::Zero { .. } if fate == 0 => {
                let _ = self.perform(flying);
            }
            Op::Write { .. } | Op::Zero { .. } => {
                let now = self.tick();
                let room = self.room();
                let Some(file) = flying.ino.and_then(|ino| self.store.files.get_mut(&ino)) else {
                    return;
                };
                let end = range.end * super::SECTOR_BYTES as u64;
                let fits = end.saturating_sub(file.len()) <= room;
                for number in range {
                    let reached = fate == 1 || (fate == 2 && rng.chance(500_000));
                    if fits && reached {
                        file.make_cached(number..number + 1, flying.stamp, now);
                    } else {
                        file.withdraw(number..number + 1, flying.stamp);
                    }
                }
            }
            _ if fate < 2 => {
                let _ = self.perform(flying);
            }
            _ => {}
        }
    }
}
