//! What has been stated as lost since the trail was opened, counted as the statements go into it: so it
//! is the same whichever source they come from.

use graven_format::loss::{Cause, Certainty, LossStatement};
use graven_format::{Flags, Record};
use std::sync::{Mutex, PoisonError};

/// What has been stated as lost for one cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossCount {
    /// Loss statements.
    pub statements: u64,
    /// The sum of what they count, in [`Cause::unit`].
    pub count: u64,
    /// How many of them say that it may be more.
    pub at_least: u64,
}

/// Counts loss statements.
#[derive(Debug, Default)]
pub struct Losses {
    causes: Mutex<[LossCount; Cause::ALL.len()]>,
}

impl Losses {
    /// Counts the record if it is a loss statement.
    pub(crate) fn note(&self, record: &Record<'_>) {
        if !record.flags.contains(Flags::LOSS) {
            return;
        }
        let Ok((statement, _)) = LossStatement::parse(record.bytes) else { return };
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let own = Cause::ALL.iter().zip(causes.iter_mut()).find(|it| *it.0 == statement.cause);
        if let Some((_, own)) = own {
            own.statements += 1;
            own.count = own.count.saturating_add(statement.count);
            own.at_least += u64::from(statement.certainty == Certainty::AtLeast);
        }
    }

    /// The counts of every cause.
    #[must_use]
    pub fn by_cause(&self) -> [(Cause, LossCount); Cause::ALL.len()] {
        let causes = *self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        std::array::from_fn(|at| (Cause::ALL[at], causes[at]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graven_format::Source;

    #[test]
    fn each_statement_counts_for_its_cause() {
        let losses = Losses::default();
        let state = |cause, certainty, count| {
            let (source, range, between_ns) = (Source::Netlink, None, None);
            let statement = LossStatement { source, cause, certainty, count, range, between_ns };
            let payload = statement.encode(1);
            losses.note(&LossStatement::record(&payload, 1, 1));
            // The same bytes from a source are an ordinary record.
            losses.note(&Record { flags: Flags::NONE, ..LossStatement::record(&payload, 1, 1) });
        };
        state(Cause::SerialGap, Certainty::Exactly, 5);
        state(Cause::SerialGap, Certainty::Exactly, u64::MAX);
        state(Cause::Enobufs, Certainty::AtLeast, 0);
        for (cause, count) in losses.by_cause() {
            let expected = match cause {
                Cause::SerialGap => LossCount { statements: 2, count: u64::MAX, at_least: 0 },
                Cause::Enobufs => LossCount { statements: 1, count: 0, at_least: 1 },
                _ => LossCount::default(),
            };
            assert_eq!(count, expected, "{cause:?}");
        }
    }
}
