//! What came of a guest.

use std::time::Duration;

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The script ended with this code and the guest was powered off.
    Script(i32),
    /// The kernel panicked, with these words.
    Panic(String),
    /// The guest halted or was powered off by something other than the end of the script.
    PoweredOff,
    /// The test cut the power.
    PowerCut,
    /// It did not end in time, and was killed.
    TooLong,
}

/// What a guest has done and said.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// How it ended.
    pub end: End,
    /// The kernel's log, from the level of warnings on.
    pub kernel_log: String,
    /// What the script printed.
    pub output: String,
    /// What the script gave to the host over `/dev/ttyS2`.
    pub data: Vec<u8>,
    /// From the start of QEMU to its end.
    pub took: Duration,
}

/// What the script's last line begins with; its exit code follows.
pub(crate) const END_MARK: &str = "guest: end ";

/// What the kernel begins its last words with.
const PANIC_MARK: &str = "Kernel panic - not syncing: ";

/// What a sound kernel does not say.
const COMPLAINTS: [&str; 7] = [
    "BUG:",
    "WARNING:",
    "Oops",
    "Call Trace",
    "general protection fault",
    "blocked for more than",
    "kernel BUG at",
];

impl Verdict {
    /// How a guest ended by itself, as its words tell it.
    pub(crate) fn end_of(kernel_log: &str, output: &str) -> End {
        if let Some((_, words)) = kernel_log.split_once(PANIC_MARK) {
            return End::Panic(words.lines().next().unwrap_or_default().trim().to_owned());
        }
        let mark = output.lines().rev().find_map(|line| line.strip_prefix(END_MARK));
        let code = mark.and_then(|code| code.trim().parse().ok());
        code.map_or(End::PoweredOff, End::Script)
    }

    /// Lines in which the kernel complains of itself, up to a panic, which has its own trace.
    #[must_use]
    pub fn complaints(&self) -> Vec<&str> {
        let log = self.kernel_log.split(PANIC_MARK).next().unwrap_or_default();
        let complains = |line: &&str| COMPLAINTS.iter().any(|mark| line.contains(mark));
        log.lines().filter(complains).collect()
    }

    /// Asserts how it ended and that the kernel did not complain, and shows everything otherwise.
    ///
    /// # Panics
    /// If it is not so.
    #[track_caller]
    pub fn expect(self, end: &End) -> Self {
        assert!(
            self.end == *end && self.complaints().is_empty(),
            "expected {end:?}: {}",
            self.told()
        );
        self
    }

    /// Everything, for the message of a test that fails.
    #[must_use]
    pub fn told(&self) -> String {
        format!(
            "{:?} after {:?}\n== complaints: {:?}\n== kernel\n{}\n== script\n{}\n== {} bytes of data",
            self.end,
            self.took,
            self.complaints(),
            self.kernel_log,
            self.output,
            self.data.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(kernel_log: &str, output: &str) -> Verdict {
        Verdict {
            end: Verdict::end_of(kernel_log, output),
            kernel_log: kernel_log.to_owned(),
            output: output.to_owned(),
            data: Vec::new(),
            took: Duration::ZERO,
        }
    }

    #[test]
    fn the_end_is_told_by_what_was_said() {
        assert_eq!(verdict("", "x\nguest: end 3\n").end, End::Script(3));
        assert_eq!(verdict("", "guest: end ").end, End::PoweredOff, "no code, no end");
        assert_eq!(verdict("", "").end, End::PoweredOff);
        let panicked =
            verdict("[1] Kernel panic - not syncing: audit: full\r\nCall Trace:\n", "guest: end 0");
        assert_eq!(panicked.end, End::Panic("audit: full".to_owned()));
        assert!(panicked.complaints().is_empty(), "a panic's own trace");
    }

    #[test]
    fn a_kernel_that_complains_is_no_success() {
        let complaining = verdict("[1] WARNING: CPU: 0\n[2] all is well\n", "guest: end 0\n");
        assert_eq!(complaining.complaints(), ["[1] WARNING: CPU: 0"]);
        let judged = std::panic::catch_unwind(|| complaining.expect(&End::Script(0)));
        assert!(judged.is_err());
    }
}
