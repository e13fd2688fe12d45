//! What the last release took, and the judgement of what is taken now.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Instructions of each workload.
pub(crate) type Counts = BTreeMap<String, u64>;

/// More of the last release's instructions than this are refused, in percent; so much less is said, because until
/// the baseline follows what was gained can be lost again unseen.
const LIMIT_PERCENT: u128 = 5;

/// All that a count depends on beside the source.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tools {
    pub(crate) rustc: String,
    pub(crate) cc: String,
    pub(crate) libc: String,
    pub(crate) valgrind: String,
    /// What code that chooses by it sees, which is valgrind's own.
    pub(crate) processor: String,
}

impl Tools {
    fn named(&self) -> [(&'static str, &str); 5] {
        let Self { rustc, cc, libc, valgrind, processor } = self;
        [
            ("rustc", rustc),
            ("cc", cc),
            ("libc", libc),
            ("valgrind", valgrind),
            ("processor", processor),
        ]
    }
}

/// `benches/instructions.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Baseline {
    pub(crate) release: String,
    pub(crate) tools: Tools,
    pub(crate) instructions: Counts,
}

impl Baseline {
    pub(crate) fn to_text(&self) -> String {
        let mut text = "# Instructions of the workloads in the last release; see docs/testing.md. \
                        Not to be edited to make a test pass.\n\n"
            .to_owned();
        let mut line = |line: std::fmt::Arguments<'_>| {
            text.write_fmt(line).expect("a string takes all");
            text.push('\n');
        };
        // None of these has a quote or a backslash in it; reading it back would fail if one had.
        line(format_args!("release = \"{}\"\n\n[tools]", self.release));
        for (name, tool) in self.tools.named() {
            line(format_args!("{name} = \"{tool}\""));
        }
        line(format_args!("\n[instructions]"));
        for (name, count) in &self.instructions {
            line(format_args!("\"{name}\" = {count}"));
        }
        text
    }
}

/// What there is to say.
#[derive(Debug)]
pub(crate) struct Judgement {
    /// A line for each workload.
    pub(crate) lines: Vec<String>,
    /// What must not be.
    pub(crate) refused: Vec<String>,
    /// Which tools are others than those of the baseline. If one is, a workload that changed says nothing of the source.
    pub(crate) other_tools: Vec<String>,
}

/// Compares counts with those of the last release.
pub(crate) fn judge(baseline: &Baseline, tools: &Tools, counts: &Counts) -> Judgement {
    let pairs = baseline.tools.named().into_iter().zip(tools.named());
    let other_tools = (pairs.filter(|(was, now)| was != now))
        .map(|((name, was), (_, now))| format!("{name}: {now}, not {was}"))
        .collect();
    let (mut lines, mut refused) = (Vec::new(), Vec::new());
    for (name, &now) in counts {
        let Some(&was) = baseline.instructions.get(name) else {
            lines.push(format!("{name:<20} {now:>12}  new"));
            refused.push(format!(
                "{name} has no count of the last release: add \"{name}\" = {now} to benches/instructions.toml"
            ));
            continue;
        };
        let percent = (now as f64 / was as f64 - 1.0) * 100.0;
        let parts = |of: u64, percent| u128::from(of) * percent;
        let mut line =
            format!("{name:<20} {now:>12}  {percent:+.2} % of release {}", baseline.release);
        if parts(now, 100) > parts(was, 100 + LIMIT_PERCENT) {
            refused.push(format!("{line}: more than {LIMIT_PERCENT} % more, {was} before"));
        } else if parts(now, 100) < parts(was, 100 - LIMIT_PERCENT) {
            line.push_str(": GAINED, to be kept by the next release's baseline");
        }
        lines.push(line);
    }
    for name in baseline.instructions.keys().filter(|name| !counts.contains_key(*name)) {
        refused.push(format!(
            "{name} is no workload any more: take it out of benches/instructions.toml"
        ));
    }
    Judgement { lines, refused, other_tools }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(count: u64) -> Baseline {
        let tools = Tools {
            rustc: "rustc 1.95.0".to_owned(),
            cc: "cc (Debian 12.2.0-14) 12.2.0".to_owned(),
            libc: "glibc 2.36".to_owned(),
            valgrind: "valgrind-3.19.0".to_owned(),
            processor: "x86_64 avx2".to_owned(),
        };
        let instructions = Counts::from([("ring/append".to_owned(), count)]);
        Baseline { release: "0.1.0".to_owned(), tools, instructions }
    }

    fn now(count: u64) -> Judgement {
        let was = baseline(1000);
        judge(&was, &was.tools, &baseline(count).instructions)
    }

    #[test]
    fn five_percent_more_pass_and_one_more_does_not() {
        for count in [0, 950, 1000, 1050] {
            assert!(now(count).refused.is_empty(), "{count}");
        }
        for count in [1051, 2000, u64::MAX] {
            assert!(now(count).refused[0].contains("more than 5 % more, 1000 before"), "{count}");
        }
    }

    #[test]
    fn a_gain_is_said() {
        assert!(now(949).lines[0].contains("-5.10 %") && now(949).lines[0].contains("GAINED"));
        assert!(!now(950).lines[0].contains("GAINED"));
    }

    #[test]
    fn a_workload_without_a_count_and_a_count_without_a_workload_are_refused() {
        let was = baseline(1000);
        let other = Counts::from([("ring/take".to_owned(), 7)]);
        let refused = judge(&was, &was.tools, &other).refused;
        assert_eq!(refused.len(), 2);
        assert!(refused[0].contains("add \"ring/take\" = 7 to"), "{refused:?}");
        assert!(refused[1].contains("ring/append is no workload any more"), "{refused:?}");
    }

    #[test]
    fn each_other_tool_is_named() {
        let was = baseline(1000);
        let counts = &was.instructions;
        assert!(judge(&was, &was.tools, counts).other_tools.is_empty());
        let valgrind = "valgrind-3.24.0".to_owned();
        let tools = Tools { processor: "x86_64".to_owned(), valgrind, ..was.tools.clone() };
        let said = judge(&was, &tools, counts).other_tools;
        let expected = [
            "valgrind: valgrind-3.24.0, not valgrind-3.19.0",
            "processor: x86_64, not x86_64 avx2",
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn what_is_written_is_read() {
        let was = baseline(1000);
        assert_eq!(toml::from_str::<Baseline>(&was.to_text()), Ok(was));
    }
}
