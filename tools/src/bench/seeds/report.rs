//! What the rounds have shown: what `--json` writes and the table is made of.

use super::build::Built;
use super::calls::{Costs, NAMES};
use super::consumer::Kept;
use super::{Condition, faith};
use crate::bench::machine::About;
use serde::Serialize;

/// Version of the JSON.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// By whom, when and where.
    #[serde(flatten)]
    pub about: About,
    /// What was asked for.
    pub asked: Asked,
    /// Why kernel audit could not be set: then `off` is the machine as it was found. Absent if it could.
    pub kernel_audit_as_found: Option<String>,
    /// Where the figures of 2004 are from.
    pub source_of_2004: &'static str,
    /// One for each condition.
    pub rows: Vec<Row>,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// Seconds that each call is made for, a round.
    pub seconds: f64,
    /// Rounds.
    pub repetitions: usize,
    /// The test user; absent without root.
    pub uid: Option<u32>,
    /// Files of the build.
    pub files: usize,
    /// Seconds after which a build is given up.
    pub build_limit_s: f64,
}

/// A figure, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Cell {
    /// Measured.
    Figure {
        /// The median of the rounds.
        median: f64,
        /// The least.
        least: f64,
        /// The most.
        most: f64,
        /// The median of its ratios to `off`, each within a round; absent in `off` itself.
        ratio: Option<f64>,
    },
    /// Not measured.
    Not {
        /// Why.
        reason: String,
    },
}

impl Cell {
    /// The median, if there is one.
    #[must_use]
    pub const fn median(&self) -> Option<f64> {
        match self {
            Self::Figure { median, .. } => Some(*median),
            Self::Not { .. } => None,
        }
    }

    /// Its ratio to `off`.
    #[must_use]
    pub const fn ratio(&self) -> Option<f64> {
        match self {
            Self::Figure { ratio, .. } => *ratio,
            Self::Not { .. } => None,
        }
    }

    /// Of values, each beside that of `off` in the same round.
    fn of(values: &[(f64, Option<f64>)], is_off: bool) -> Self {
        let mut figures: Vec<f64> = values.iter().map(|(value, _)| *value).collect();
        figures.sort_by(f64::total_cmp);
        let mut ratios: Vec<f64> =
            values.iter().filter_map(|(value, off)| off.map(|off| value / off)).collect();
        ratios.sort_by(f64::total_cmp);
        match (figures.first(), figures.last()) {
            (Some(least), Some(most)) => Self::Figure {
                median: figures[figures.len() / 2],
                least: *least,
                most: *most,
                ratio: ratios.get(ratios.len() / 2).copied().filter(|_| !is_off),
            },
            _ => Self::Not { reason: "no round came to an end".to_owned() },
        }
    }
}

/// A call under a condition.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Which.
    pub name: &'static str,
    /// Microseconds.
    pub us: Cell,
    /// Microseconds in 2004; absent where the source has no figure.
    pub us_2004: Option<f64>,
}

/// The build under a condition.
#[derive(Clone, Debug, Serialize)]
pub struct Build {
    /// Seconds of all steps.
    pub seconds: Cell,
    /// Of the speed of `off`, as he computed it: its time by this one's; absent in `off` itself.
    pub speed: Option<f64>,
    /// The fewest steps that a round came to; fewer than `steps` means that seconds are extrapolated.
    pub done: Option<usize>,
    /// All steps.
    pub steps: Option<usize>,
    /// His seconds, for a kernel; absent where the source has no figure.
    pub seconds_2004: Option<f64>,
    /// His factor.
    pub speed_2004: Option<f64>,
}

/// Whether what was to be recorded is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recorded {
    /// Null calls that were made, over all rounds.
    pub null_calls: u64,
    /// Those of them that were recorded.
    pub recorded: u64,
    /// By how much the kernel's own counter of losses rose.
    pub lost: u64,
    /// The exit codes of `graven verify`, one a trail.
    pub verified: Vec<i32>,
}

/// One condition.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub condition: &'static str,
    /// What it is.
    pub words: &'static str,
    /// Costs.
    pub calls: Vec<Call>,
    /// The build.
    pub build: Build,
    /// Seconds from the end of the calls until the daemon had everything: its queue is not in the costs.
    pub behind_s: Option<Cell>,
    /// Absent where no daemon ran.
    pub recorded: Option<Recorded>,
}

/// One round of a condition.
#[derive(Clone, Debug)]
pub struct Round {
    /// The calls.
    pub costs: Costs,
    /// The build, if it is measured.
    pub built: Option<Built>,
    /// See [`Row::behind_s`].
    pub behind_s: Option<f64>,
    /// What is there.
    pub kept: Option<Kept>,
    /// See [`Recorded::lost`].
    pub lost: u64,
}

/// All rounds of a condition, or why there are none.
pub type Rounds = Result<Vec<Round>, String>;

impl Row {
    /// Of its rounds, beside those of `off`. Why there is no build, if there is none.
    #[must_use]
    pub fn of(
        condition: Condition,
        rounds: &Rounds,
        off: &[Round],
        no_build: Option<&str>,
    ) -> Self {
        let is_off = condition == Condition::Off;
        let cell = |value: &dyn Fn(&Round) -> Option<f64>| match rounds {
            Err(reason) => Cell::Not { reason: reason.clone() },
            Ok(rounds) => {
                let pairs = rounds
                    .iter()
                    .enumerate()
                    .filter_map(|(at, round)| Some((value(round)?, off.get(at).and_then(value))));
                Cell::of(&pairs.collect::<Vec<_>>(), is_off)
            }
        };
        let then = faith::calls_us(condition);
        let calls = NAMES.iter().enumerate().map(|(at, name)| Call {
            name,
            us: cell(&|it| Some(it.costs.us[at])),
            us_2004: then.map(|it| it[at]),
        });
        let seconds = match (rounds, no_build) {
            (Ok(_), Some(reason)) => Cell::Not { reason: reason.to_owned() },
            _ => cell(&|it| it.built.map(|it| it.all_s())),
        };
        let rounds = rounds.as_deref().unwrap_or_default();
        let then = faith::build(condition);
        let built = || rounds.iter().filter_map(|it| it.built);
        let has_daemon = rounds.iter().any(|it| it.kept.is_some());
        Self {
            condition: condition.name(),
            words: condition.words(),
            calls: calls.collect(),
            build: Build {
                speed: seconds.ratio().map(f64::recip),
                seconds,
                done: built().map(|it| it.done).min(),
                steps: built().map(|it| it.steps).max(),
                seconds_2004: then.map(|it| it.0),
                speed_2004: then.map(|it| it.1),
            },
            behind_s: has_daemon.then(|| {
                let behind = rounds.iter().filter_map(|it| Some((it.behind_s?, None)));
                Cell::of(&behind.collect::<Vec<_>>(), true)
            }),
            recorded: has_daemon.then(|| Recorded {
                null_calls: rounds.iter().map(|it| it.costs.null_calls).sum(),
                recorded: rounds.iter().filter_map(|it| Some(it.kept.as_ref()?.null_calls)).sum(),
                lost: rounds.iter().map(|it| it.lost).sum(),
                verified: rounds.iter().filter_map(|it| it.kept.as_ref()?.verified).collect(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(scale: f64) -> Round {
        Round {
            costs: Costs { us: std::array::from_fn(|at| (at + 1) as f64 * scale), null_calls: 10 },
            built: Some(Built { seconds: scale, done: 2, steps: 4 }),
            behind_s: Some(0.1),
            kept: Some(Kept { null_calls: 9, verified: Some(0) }),
            lost: 1,
        }
    }

    #[test]
    fn a_ratio_is_taken_inside_a_round() {
        // The machine is ten times slower in the second round, for both.
        let off = [round(1.0), round(10.0), round(2.0)];
        let rounds = Ok(vec![round(3.0), round(30.0), round(6.0)]);
        let row = Row::of(Condition::Discard, &rounds, &off, None);
        assert_eq!(row.calls.len(), NAMES.len());
        let Cell::Figure { median, least, most, ratio } = row.calls[0].us else {
            panic!("{row:?}");
        };
        assert_eq!((median, least, most, ratio), (6.0, 3.0, 30.0, Some(3.0)));
        assert_eq!(row.build.seconds.median(), Some(12.0), "half of the steps were done");
        assert_eq!((row.build.speed, row.build.speed_2004), (Some(1.0 / 3.0), Some(0.79)));
        assert_eq!((row.build.done, row.build.steps), (Some(2), Some(4)));
        let recorded = row.recorded.expect("a daemon ran");
        assert_eq!((recorded.null_calls, recorded.recorded, recorded.lost), (30, 27, 3));
        assert_eq!(recorded.verified, [0, 0, 0]);
    }

    #[test]
    fn off_is_beside_itself_and_beside_2004() {
        let off = vec![round(1.0)];
        let row = Row::of(Condition::Off, &Ok(off.clone()), &off, Some("no compiler"));
        assert!(row.calls.iter().all(|it| it.us.ratio().is_none() && it.us_2004.is_some()));
        assert_eq!(row.build.seconds, Cell::Not { reason: "no compiler".to_owned() });
        assert_eq!(row.build.speed_2004, Some(1.0));
    }

    #[test]
    fn what_cannot_be_had_says_why_in_every_cell() {
        let row = Row::of(Condition::Shim, &Err("no module here".to_owned()), &[], None);
        let cells = row.calls.iter().map(|it| &it.us).chain([&row.build.seconds]);
        for cell in cells {
            assert_eq!(*cell, Cell::Not { reason: "no module here".to_owned() });
        }
        assert_eq!((row.recorded, row.behind_s), (None, None));
        let none = Row::of(Condition::Graven, &Ok(Vec::new()), &[], None);
        assert!(matches!(none.calls[0].us, Cell::Not { .. }));
    }
}
