//! Configuring anew while recording goes on: what may change is checked as a whole before any of it is changed.

use super::rules::{self, Wanted};
use crate::config::Config;
use crate::config::schema::Effect;
use crate::recording::Failure;
use graven_writer::Asker;
use graven_writer::source::kaudit::Daemon;

/// A part of the daemon that can be configured anew.
pub trait Part: Send {
    /// Looks whether `newer` can be had, and changes nothing.
    ///
    /// # Errors
    /// Why it cannot.
    fn check(&mut self, newer: &Config) -> Result<(), Failure>;

    /// Changes to what was checked last, and names the keys behind which something changed although they say the same:
    /// the content of a file.
    ///
    /// # Errors
    /// What could not be changed, and how things are now.
    fn apply(&mut self, newer: &Config) -> Result<Vec<&'static str>, Failure>;
}

/// What came of configuring anew.
#[derive(Debug, Default)]
pub struct Reloaded {
    /// Keys that are in force as they are now, `section.key`.
    pub changed: Vec<String>,
    /// Keys that wait for the next start.
    pub waits: Vec<String>,
    /// What failed.
    pub failures: Vec<Failure>,
}

/// Changes from `config` to `newer`, which becomes the configuration in force: but for the keys that wait for the next
/// start, and not at all if any part refuses it.
pub fn reload(config: &mut Config, newer: Config, parts: &mut [Box<dyn Part + '_>]) -> Reloaded {
    let mut reloaded = Reloaded::default();
    for change in config.changed(&newer) {
        match change.effect {
            Effect::Reload => reloaded.changed.push(change.name),
            Effect::Restart => reloaded.waits.push(change.name),
        }
    }
    let checked = parts.iter_mut().filter_map(|part| part.check(&newer).err());
    reloaded.failures = checked.collect();
    if !reloaded.failures.is_empty() {
        reloaded.changed.clear();
        reloaded.waits.clear();
        return reloaded;
    }
    for part in parts {
        match part.apply(&newer) {
            Ok(behind) => {
                let is_new = |key: &&str| !reloaded.changed.iter().any(|it| it == key);
                let new: Vec<_> = behind.into_iter().filter(is_new).map(str::to_owned).collect();
                reloaded.changed.extend(new);
            }
            Err(failure) => reloaded.failures.push(failure),
        }
    }
    *config = newer;
    reloaded
}

/// The interval between checkpoints.
pub struct Checkpoints {
    asker: Asker,
    in_force: Config,
}

impl Checkpoints {
    /// As `config` has it now.
    #[must_use]
    pub fn new(asker: Asker, config: &Config) -> Self {
        Self { asker, in_force: config.clone() }
    }
}

impl Part for Checkpoints {
    fn check(&mut self, _: &Config) -> Result<(), Failure> {
        Ok(())
    }

    fn apply(&mut self, newer: &Config) -> Result<Vec<&'static str>, Failure> {
        if newer.checkpoint.interval != self.in_force.checkpoint.interval {
            self.asker.set_checkpoint_interval(newer.checkpoint.interval.0);
        }
        self.in_force = newer.clone();
        Ok(Vec::new())
    }
}

/// The kernel's limits and rules.
pub struct Kernel<'a> {
    daemon: &'a Daemon,
    asker: Asker,
    in_force: Wanted,
    next: Option<Wanted>,
}

impl<'a> Kernel<'a> {
    /// As `wanted` has set it.
    #[must_use]
    pub fn new(daemon: &'a Daemon, asker: Asker, wanted: Wanted) -> Self {
        Self { daemon, asker, in_force: wanted, next: None }
    }
}

impl Part for Kernel<'_> {
    fn check(&mut self, newer: &Config) -> Result<(), Failure> {
        self.next = Some(Wanted::read(&newer.netlink)?);
        Ok(())
    }

    fn apply(&mut self, _: &Config) -> Result<Vec<&'static str>, Failure> {
        let mut behind = Vec::new();
        let Some(next) = self.next.take() else { return Ok(behind) };
        if next.options != self.in_force.options {
            rules::set_limits(self.daemon, &next.options)?;
            self.in_force.options = next.options;
        }
        // The same rules stay where they are: taking them back for a moment would be a gap.
        if next.rules != self.in_force.rules {
            match &next.rules {
                Some(rules) => rules::load(self.daemon, rules, &self.asker)?,
                None => rules::unload(self.daemon)?,
            }
            self.in_force.rules = next.rules;
            behind.push("netlink.rules");
        }
        Ok(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Number;
    use crate::exit::Exit;
    use std::sync::{Arc, Mutex};

    /// A part that refuses, or fails, or does it.
    struct Pretended {
        refuses: bool,
        fails: bool,
        applied: Arc<Mutex<u32>>,
    }

    impl Part for Pretended {
        fn check(&mut self, _: &Config) -> Result<(), Failure> {
            if self.refuses { Err(Failure::new(Exit::CannotCheck, "no")) } else { Ok(()) }
        }

        fn apply(&mut self, _: &Config) -> Result<Vec<&'static str>, Failure> {
            *self.applied.lock().expect("a lock") += 1;
            if self.fails {
                return Err(Failure::new(Exit::KernelAudit, "no"));
            }
            Ok(vec!["netlink.rules", "netlink.failure"])
        }
    }

    fn newer() -> Config {
        let mut newer = Config::default();
        newer.netlink.failure = Some(Number(0));
        newer.process.mlock = false;
        newer
    }

    #[test]
    fn what_one_part_refuses_no_part_changes() {
        let applied = Arc::new(Mutex::new(0));
        let part = |refuses, fails| -> Box<dyn Part> {
            Box::new(Pretended { refuses, fails, applied: Arc::clone(&applied) })
        };
        let mut config = Config::default();
        let reloaded = reload(
            &mut config,
            newer(),
            &mut [part(false, false), part(true, false), part(true, false)],
        );
        assert_eq!((reloaded.failures.len(), *applied.lock().expect("a lock")), (2, 0));
        assert!(reloaded.changed.is_empty() && reloaded.waits.is_empty());
        assert_eq!(config, Config::default());

        let reloaded = reload(&mut config, newer(), &mut [part(false, true), part(false, false)]);
        assert_eq!((reloaded.failures.len(), *applied.lock().expect("a lock")), (1, 2));
        assert_eq!(reloaded.changed, ["netlink.failure", "netlink.rules"]);
        assert_eq!(reloaded.waits, ["process.mlock"]);
        assert_eq!(config, newer());
    }
}
