use super::schema::section;
use super::value::{Number, Problem, Time, Value, Word};
use crate::recording::module::{Choice, IoUring, Loading, NoReader};
use graven_shim_abi::{RINGS_MAX, SLOTS_MAX};
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

section! {
    /// The kernel module, for the source `shim`: docs/kernel-shim.md. It is loaded when recording begins, unless it is
    /// there already, and stays loaded: who waits without a reader waits for the next one.
    pub struct ShimSection in "shim" {
        /// A file of rules, which the source needs: one a line, such as `-a always,exit -F arch=b64 -S execve`. They are in
        /// force while recording goes on. Read again on SIGHUP; with an error in it, those in force stay.
        [reload] rules: Option<PathBuf> = None, like "\"/etc/graven/shim.rules\"";
        /// The module's file. Unless set, modprobe looks for it where the kernel's modules are.
        [restart] module: Option<PathBuf> = None, like "\"/usr/lib/graven/graven_shim.ko\"";
        /// Rings, when it is loaded; as many as there can be processors unless set.
        [restart] rings: Option<Number<1, { RINGS_MAX as i64 }>> = None, like "8";
        /// Slots of 256 bytes in each ring, when it is loaded: how much waits for the disk before calls do. 4096 unless set.
        [restart] slots: Option<Slots> = None, like "65536";
        /// What a task does that has waited for no_reader_time for room while nobody reads: wait on, stop the machine, or
        /// go on unrecorded, which is counted and stated. Left as it is unless set: `graven shim load` sets it too.
        [reload] no_reader: Option<Word<NoReader>> = None, like "\"block\"";
        /// How long it waits before that. It counts with no_reader only.
        [reload] no_reader_time: Time<0, 2_592_000_000> = Time(Duration::from_secs(60));
        /// What becomes of calls of io_uring, whose operations are not seen, where they are recorded: they fail with EPERM, or
        /// succeed, and their record says so. Left as it is unless set.
        [reload] io_uring: Option<Word<IoUring>> = None, like "\"refuse\"";
        /// Never let the module be unloaded, until the next boot.
        [reload] pin: bool = false;
    }
}

impl ShimSection {
    /// How the module is loaded.
    #[must_use]
    pub fn loading(&self) -> Loading {
        Loading {
            file: self.module.clone(),
            rings: self.rings.and_then(|rings| u32::try_from(rings.0).ok()),
            slots: self.slots.map(|slots| slots.0),
        }
    }

    /// What is asked of it.
    #[must_use]
    pub fn choice(&self) -> Choice {
        let ms = u32::try_from(self.no_reader_time.0.as_millis()).unwrap_or(u32::MAX);
        Choice {
            no_reader: self.no_reader.map(|action| (action.0, ms)),
            io_uring: self.io_uring.map(|action| action.0),
            pin: self.pin,
        }
    }
}

/// Slots of a ring, which the module can have with the parts that it makes unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots(pub u32);

impl Slots {
    /// A part of 12 KiB takes a quarter at most.
    const MIN: u32 = 256;
}

impl Value for Slots {
    fn takes() -> String {
        format!("a power of two, {} to {SLOTS_MAX}", Self::MIN)
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let Number(number) = Number::<{ Self::MIN as i64 }, { SLOTS_MAX as i64 }>::read(value)?;
        match u32::try_from(number) {
            Ok(slots) if slots.is_power_of_two() => Ok(Self(slots)),
            _ => Err(format!("{number} is no power of two")),
        }
    }

    fn write(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read::parse;

    #[test]
    fn what_is_asked_for_is_what_the_file_says() {
        let text = "[shim]\nrules = \"/r\"\nmodule = \"/m.ko\"\nrings = 3\nslots = 1024\nno_reader = \"pass\"\n\
                    no_reader_time = \"5s\"\nio_uring = \"unseen\"\npin = true\n";
        let shim = parse(text).expect("it is right").shim;
        let file = Some(PathBuf::from("/m.ko"));
        assert_eq!(shim.loading(), Loading { file, rings: Some(3), slots: Some(1024) });
        let no_reader = Some((NoReader::Pass, 5000));
        let io_uring = Some(IoUring::Unseen);
        assert_eq!(shim.choice(), Choice { no_reader, io_uring, pin: true });
        assert_eq!(ShimSection::default().loading(), Loading::default());
        assert_eq!(ShimSection::default().choice(), Choice::default(), "nothing changes");
    }

    #[test]
    fn what_is_wrong_is_said_with_line_and_key() {
        for (line, what, help) in [
            ("rules = \"shim.rules\"", "it does not begin with /", "an absolute path"),
            ("slots = 1000", "1000 is no power of two", "a power of two, 256 to 1048576"),
            ("slots = 128", "128 is out of range", "a power of two, 256 to 1048576"),
            ("rings = 0", "0 is out of range", "1 to 1024"),
            ("no_reader = \"drop\"", "\"drop\" is none", "\"block\", \"panic\", \"pass\""),
            ("io_uring = \"allow\"", "\"allow\" is none", "\"refuse\", \"unseen\""),
            ("slot = 1024", "unknown key `shim.slot`", "did you mean `slots`?"),
        ] {
            let errors = parse(&format!("[trail]\n[shim]\n{line}\n")).expect_err(line);
            assert_eq!(errors.len(), 1, "{line}");
            let error = &errors[0];
            assert_eq!(error.at.map(|(line, _)| line), Some(3), "{line}");
            assert_eq!(
                error.key.as_deref(),
                line.split(' ').next().map(|key| format!("shim.{key}")).as_deref()
            );
            assert!(error.what.ends_with(what), "{line}: {}", error.what);
            assert!(error.help.contains(help), "{line}: {}", error.help);
        }
    }
}
