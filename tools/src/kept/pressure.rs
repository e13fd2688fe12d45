//! What is done while the shared memory is nearly full, and undone when it is not any more.
//!
//! This is the one place that acts: an action begins at the high water mark and ends at the low one. Each
//! beginning and each end is told as a record of ours.

use super::freeze::{Cgroup, Spared};
use crate::diag::{Diagnostic, Level};
use crate::escape;
use graven_writer::clock::Now;
use graven_writer::own::{self, Own};
use std::path::Path;

/// In use when the action begins, in permille of the memory.
const HIGH_PERMILLE: u64 = 900;
/// In use when it ends.
const LOW_PERMILLE: u64 = 500;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum RingFull {
    /// Take nothing more from the kernel until there is room: its queue fills, and the producers wait for as long
    /// as the kernel lets them
    Block,
    /// Freeze the cgroups named with --freeze-cgroup before that, and thaw them when half of the memory is free
    Freeze,
    /// Throw away what the kernel sends while there is no room: producers go on, and what is missing is stated
    Drop,
}

impl RingFull {
    const fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Freeze => "freeze",
            Self::Drop => "drop",
        }
    }
}

/// How full the memory is, as far as it has consequences.
#[derive(Debug)]
pub(super) struct Pressure {
    action: RingFull,
    cgroups: Vec<Cgroup>,
    /// Users whose processes are never frozen.
    exempt: Vec<u32>,
    high: bool,
    /// Records that were thrown away since the action began.
    dropped: u64,
}

impl Pressure {
    /// `high` says that the keeper before this one had begun the action.
    pub(super) fn new(
        action: RingFull,
        cgroups: Vec<Cgroup>,
        exempt: Vec<u32>,
        high: bool,
    ) -> Self {
        Self { action, cgroups, exempt, high, dropped: 0 }
    }

    /// Whether the action has begun and not ended.
    pub(super) fn is_high(&self) -> bool {
        self.high
    }

    /// Whether the action is about to begin.
    pub(super) fn is_near(&self, used_permille: u64) -> bool {
        used_permille >= HIGH_PERMILLE
    }

    /// What it acts on.
    pub(super) fn paths(&self) -> Vec<&Path> {
        self.cgroups.iter().map(Cgroup::path).collect()
    }

    /// Whether it stops others, who have to go on if we die.
    pub(super) fn freezes(&self) -> bool {
        self.action == RingFull::Freeze
    }

    /// Whether what finds no room is thrown away.
    pub(super) fn drops(&self) -> bool {
        self.action == RingFull::Drop
    }

    /// So many records were.
    pub(super) fn note_dropped(&mut self, count: usize) {
        self.dropped += count as u64;
    }

    /// Acts on how much is in use. `spared` are processes of ours. What was done is to be recorded.
    pub(super) fn look(&mut self, used_permille: u64, spared: &[u32], at: Now) -> Vec<Own> {
        if !self.high && used_permille >= HIGH_PERMILLE {
            self.high = true;
            Diagnostic::warning("the memory for what the kernel sends is nearly full")
                .note(match self.action {
                    RingFull::Block => "when it is full, nothing more is taken: producers wait",
                    RingFull::Freeze => "the cgroups named are frozen until there is room",
                    RingFull::Drop => {
                        "when it is full, what the kernel sends is thrown away, and stated"
                    }
                })
                .help("look why the trail does not take more: its disk, its room")
                .emit();
            return self.begin(used_permille, spared, at);
        }
        if self.high && used_permille <= LOW_PERMILLE {
            Diagnostic::new(Level::Note, "the memory for what the kernel sends has room again")
                .emit();
            return self.end(used_permille, at);
        }
        Vec::new()
    }

    fn begin(&self, used_permille: u64, spared: &[u32], at: Now) -> Vec<Own> {
        let own = || self.own(own::ERR, "ring-full", used_permille, at);
        match self.action {
            RingFull::Block | RingFull::Drop => vec![own().result(true)],
            RingFull::Freeze => {
                let spared = Spared { pids: spared, uids: &self.exempt };
                self.each(own, |cgroup| cgroup.freeze(spared))
            }
        }
    }

    /// Undoes what was done, also because recording ends.
    pub(super) fn end(&mut self, used_permille: u64, at: Now) -> Vec<Own> {
        self.high = false;
        let dropped = std::mem::take(&mut self.dropped);
        let own = || self.own(own::RESUME, "ring-room", used_permille, at);
        match self.action {
            RingFull::Block => vec![own().result(true)],
            // For people: what is owed is stated from the serials.
            RingFull::Drop => vec![own().field("dropped", dropped).result(true)],
            RingFull::Freeze => self.each(own, Cgroup::thaw),
        }
    }

    fn own(&self, kind: u16, op: &str, used_permille: u64, at: Now) -> Own {
        Own::new(kind, op, at)
            .field("action", self.action.name())
            .field("used", format_args!("{}%", used_permille / 10))
    }

    fn each(
        &self,
        own: impl Fn() -> Own,
        act: impl Fn(&Cgroup) -> Result<(), super::freeze::FreezeError>,
    ) -> Vec<Own> {
        let done = |cgroup: &Cgroup| {
            let acted = act(cgroup);
            if let Err(why) = &acted {
                Diagnostic::error(format!("cgroup: {why}")).at(escape::path(cgroup.path())).emit();
            }
            let path = cgroup.path().as_os_str().as_encoded_bytes();
            own().text("path", path).result(acted.is_ok())
        };
        self.cgroups.iter().map(done).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_acts_at_the_high_mark_and_undoes_at_the_low_one_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("freezer.state");
        std::fs::write(&file, "").expect("a file");
        std::fs::write(dir.path().join("cgroup.procs"), "77\n").expect("a file");
        let state = || std::fs::read_to_string(&file).expect("a file");
        let cgroup = Cgroup::open(dir.path()).expect("it looks like one");
        let mut pressure = Pressure::new(RingFull::Freeze, vec![cgroup], Vec::new(), false);
        let mut look = |used| {
            let made = pressure.look(used, &[5], Now::default());
            made.iter()
                .map(|own| String::from_utf8_lossy(own.record().bytes).into_owned())
                .collect()
        };
        let none: Vec<String> = Vec::new();
        assert_eq!((look(899), state().as_str()), (none.clone(), ""));
        let made: Vec<String> = look(950);
        assert!(made[0].contains("op=ring-full action=freeze used=95% path="), "{made:?}");
        assert!(made[0].ends_with("res=success"), "{made:?}");
        assert_eq!(
            (look(960), look(600), state().as_str()),
            (none.clone(), none.clone(), "FROZEN")
        );
        let made: Vec<String> = look(500);
        assert!(made[0].contains("op=ring-room action=freeze used=50%"), "{made:?}");
        assert_eq!((look(400), state().as_str()), (none, "THAWED"));
    }

    #[test]
    fn a_cgroup_that_holds_one_of_ours_is_left_alone_and_it_is_recorded() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("cgroup.freeze"), "").expect("a file");
        std::fs::write(dir.path().join("cgroup.procs"), "5\n").expect("a file");
        let cgroup = Cgroup::open(dir.path()).expect("it looks like one");
        let mut pressure = Pressure::new(RingFull::Freeze, vec![cgroup], Vec::new(), false);
        let made = pressure.look(1000, &[5], Now::default());
        assert!(String::from_utf8_lossy(made[0].record().bytes).ends_with("res=failed"));
        assert_eq!(std::fs::read(dir.path().join("cgroup.freeze")).expect("a file"), b"");
    }
}
