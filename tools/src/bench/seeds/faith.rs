//! What Rik Faith wrote on 2 March 2004. Nothing here is computed, and what he did not give is not here.

use super::{Condition, Flush};

/// Where all figures of this module are from.
pub const SOURCE: &str = "Rik Faith to linux-kernel, 2 March 2004, \"Re: [PATCH][RFC] Light-weight Auditing Framework\", \
    Message-ID <16453.354.904646.836231@neuro.alephnull.com>: lmbench 2.0.4 on Linux 2.6.3 at 2004 MHz (first without the \
    patch, then with it and audit=1), and `make` of a kernel, the best of three";

/// lmbench's null call, null I/O, stat, open and close, fork, exec and sh, in microseconds.
#[must_use]
pub const fn calls_us(condition: Condition) -> Option<[f64; 7]> {
    match condition {
        // Of a kernel without the patch: no audit at all.
        Condition::Off => Some([0.08, 0.26, 14.7, 16.4, 143.0, 443.0, 1804.0]),
        Condition::On => Some([0.21, 0.40, 14.5, 16.7, 136.0, 441.0, 1717.0]),
        _ => None,
    }
}

/// The elapsed seconds of a kernel's compilation, and his factor: the speed of one without audit is 1.
#[must_use]
pub const fn build(condition: Condition) -> Option<(f64, f64)> {
    match condition {
        Condition::Off => Some((240.76, 1.000)),
        Condition::On => Some((241.02, 0.999)),
        Condition::Rules => Some((247.48, 0.97)),
        // "The user-space daemon sent all messages to /dev/null."
        Condition::Discard => Some((306.40, 0.79)),
        // "The user-space daemon sent all messages to a file (which grew to 1.4GB on an IDE drive)."
        Condition::Auditd(Flush::Async) => Some((431.51, 0.56)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// He rounded the last three; a figure that was copied wrongly would not fit its factor.
    #[test]
    fn his_factors_are_those_of_his_seconds() {
        let (alone, _) = build(Condition::Off).expect("his first line");
        let given = Condition::ALL.into_iter().filter_map(build);
        let mut count = 0;
        for (seconds, factor) in given {
            assert!((alone / seconds - factor).abs() < 0.0051, "{seconds}");
            count += 1;
        }
        assert_eq!(count, 5, "his table has five lines");
    }

    #[test]
    fn nothing_durable_was_measured_then() {
        for condition in ["auditd-data", "auditd-sync", "graven", "shim-rules", "shim"] {
            let condition = condition.parse().expect("a condition");
            assert_eq!((calls_us(condition), build(condition)), (None, None));
        }
    }
}
