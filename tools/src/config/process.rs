use super::schema::section;
use super::value::{Number, Problem, Value, quoted};
use rustix::thread::CapabilitySet;
use toml::de::DeValue;

section! {
    /// The process itself: what the system does to it when memory or time is short, and what it may do.
    pub struct ProcessSection in "process" {
        /// What is added to its chance of being killed when memory runs out; -1000: never. The audit daemon has
        /// fixed memory, so that killing it gains little.
        [restart] oom_score: Number<-1000, 1000> = Number(-1000);
        /// Niceness: less is more of the processor. auditd's priority_boost = 4 is -4.
        [restart] priority: Number<-20, 19> = Number(-4);
        /// Keep its memory out of swap, from when it is first used. Not done, and said, where the limit on locked
        /// memory is too small for it.
        [restart] mlock: bool = true;
        /// Give up every capability that recording does not need. Commands that it runs (`checkpoint.exec`) do not
        /// have them either.
        [restart] drop_capabilities: bool = true;
        /// Capabilities to keep beside those, for the commands that it runs.
        [restart] keep_capabilities: Vec<Capability> = Vec::new();
    }
}

/// One capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability(pub CapabilitySet);

impl Value for Capability {
    fn takes() -> String {
        "a capability such as \"CAP_NET_BIND_SERVICE\"".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let text = String::read(value)?;
        let name = text.strip_prefix("CAP_").unwrap_or(&text);
        let known = CapabilitySet::from_name(name).filter(|set| set.bits().count_ones() == 1);
        known.map(Self).ok_or_else(|| format!("{} is none", quoted(&text)))
    }

    fn write(&self) -> Option<String> {
        self.0.iter_names().next().map(|(name, _)| quoted(&format!("CAP_{name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read::parse;

    #[test]
    fn capabilities_are_read_by_their_names() {
        let config = parse("[process]\nkeep_capabilities = [\"CAP_SYS_BOOT\", \"KILL\"]\n");
        let kept = config.expect("they are known").process.keep_capabilities;
        assert_eq!(kept, [Capability(CapabilitySet::SYS_BOOT), Capability(CapabilitySet::KILL)]);
        assert_eq!(kept.write().as_deref(), Some("[\"CAP_SYS_BOOT\", \"CAP_KILL\"]"));
        assert!(parse("[process]\nkeep_capabilities = [\"CAP_EVERYTHING\"]\n").is_err());
    }
}
