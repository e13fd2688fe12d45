//! The kernel shim's numbers: parts of a ring count up without a gap, whoever reads them, so what is missing shows.
//!
//! Of a segment it is kept which runs of numbers each ring has, and what sessions and statements say between them; the judge puts
//! segments one behind the other. A session says where it stands in each ring; from there on every number is owed until
//! the module is loaded anew.

use crate::trail::segment::Stamp;
use graven_format::loss::{Cause, LossStatement};
use graven_format::{Record, Source};
use graven_shim_abi::Part;
use graven_writer::source::shim::{Mark, State};
use std::collections::BTreeMap;

/// Most steps of one segment that are kept. A segment with more cannot be judged.
const STEPS_MAX: usize = 1 << 14;

/// Most statements that may wait for the part with which the gap shows.
const SAID_MAX: usize = 1 << 12;

/// What happens to a ring's numbers, in the order of the trail.
#[derive(Clone, Debug)]
enum Step {
    /// Parts with these numbers, both included, the first of which is at `at`.
    Run { ring: u32, first: u64, last: u64, at: Stamp },
    /// These are stated as lost, in whatever ring.
    Said { first: u64, last: u64 },
    /// What a session says of itself.
    Mark { mark: Box<Mark>, at: Stamp },
}

/// What one segment has of the shim's.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    steps: Vec<Step>,
    /// The run of each ring that may go on.
    open: BTreeMap<u32, (u64, u64, Stamp)>,
    /// There was more than is kept.
    pub too_many: bool,
}

impl Parts {
    /// Takes the next record.
    pub fn take(&mut self, record: &Record<'_>, at: Stamp) {
        match record.source {
            Source::Shim => {
                let Some(part) = Part::read(record.bytes) else { return };
                let Part { ring, ring_seq: number, .. } = part;
                match self.open.get_mut(&ring) {
                    Some((_, last, _)) if last.checked_add(1) == Some(number) => *last = number,
                    _ => {
                        if let Some((first, last, at)) =
                            self.open.insert(ring, (number, number, at))
                        {
                            self.step(Step::Run { ring, first, last, at });
                        }
                    }
                }
            }
            Source::Graven => {
                if let Some(mark) = Mark::read(record) {
                    self.flush();
                    self.step(Step::Mark { mark: Box::new(mark), at });
                }
            }
            _ => {}
        }
    }

    /// Takes a statement.
    pub fn state(&mut self, said: &LossStatement) {
        if let (Cause::SerialGap, Source::Shim, Some((first, last))) =
            (said.cause, said.source, said.range)
        {
            self.step(Step::Said { first, last });
        }
    }

    /// The same, complete.
    #[must_use]
    pub fn end(mut self) -> Self {
        self.flush();
        self
    }

    fn flush(&mut self) {
        for (ring, (first, last, at)) in std::mem::take(&mut self.open) {
            self.step(Step::Run { ring, first, last, at });
        }
    }

    fn step(&mut self, step: Step) {
        self.too_many |= self.steps.len() == STEPS_MAX;
        if self.too_many {
            self.steps = Vec::new();
        } else {
            self.steps.push(step);
        }
    }
}

/// Numbers of a ring that are neither in the trail nor stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) ring: u32,
    pub(super) first: u64,
    pub(super) last: u64,
    /// The record with which it shows.
    pub(super) at: Stamp,
}

/// The rings, as far as the trail was judged.
#[derive(Debug, Default)]
pub(super) struct Rings {
    /// The load of the module, and of each of its rings the number that is owed next.
    owed: Option<(u64, BTreeMap<u32, u64>)>,
    /// Stated, and not shown yet.
    said: Vec<(u64, u64)>,
    in_session: bool,
    pub(super) sessions: u64,
    pub(super) without_end: u64,
}

impl Rings {
    /// The next segment. What is missing and not stated is told to `report`.
    pub(super) fn segment(&mut self, parts: &Parts, report: &mut dyn FnMut(Missing)) {
        for step in &parts.steps {
            match step {
                Step::Run { ring, first, last, at } => {
                    self.owe(*ring, *first, *at, report);
                    self.has(*ring, *last);
                }
                Step::Said { first, last } => {
                    if self.said.len() < SAID_MAX {
                        self.said.push((*first, *last));
                    }
                }
                Step::Mark { mark, at } => self.mark(mark, *at, report),
            }
        }
    }

    /// Records may be missing for another reason: what is owed is not known until the next mark.
    pub(super) fn blind(&mut self) {
        self.owed = None;
        self.said.clear();
    }

    /// What was found is complete.
    pub(super) fn end(&mut self) {
        self.without_end += u64::from(std::mem::take(&mut self.in_session));
    }

    fn mark(&mut self, mark: &Mark, at: Stamp, report: &mut dyn FnMut(Missing)) {
        if self.owed.as_ref().is_none_or(|(instance, _)| *instance != mark.instance) {
            self.owed = Some((mark.instance, mark.next.clone()));
            self.said.clear();
        }
        for (ring, next) in &mark.next {
            self.owe(*ring, *next, at, report);
        }
        // What the module's own test took is in no trail; what came before it is.
        for (ring, (first, last)) in &mark.tested {
            self.owe(*ring, *first, at, report);
            self.has(*ring, *last);
        }
        match mark.state {
            State::Begin => {
                self.end();
                self.sessions += 1;
                self.in_session = true;
            }
            State::End | State::Left => self.in_session = false,
            State::Mark => {}
        }
    }

    /// Everything below `number` is owed.
    fn owe(&mut self, ring: u32, number: u64, at: Stamp, report: &mut dyn FnMut(Missing)) {
        let Some((_, owed)) = &mut self.owed else { return };
        let next = owed.entry(ring).or_insert(number);
        let first = std::mem::replace(next, number.max(*next));
        if first >= number {
            return;
        }
        let last = number - 1;
        match self.said.iter().position(|said| *said == (first, last)) {
            Some(at) => drop(self.said.swap_remove(at)),
            None => report(Missing { ring, first, last, at }),
        }
    }

    fn has(&mut self, ring: u32, last: u64) {
        if let Some((_, owed)) = &mut self.owed {
            let next = owed.entry(ring).or_insert(0);
            *next = (*next).max(last.saturating_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graven_format::loss::Certainty;
    use graven_shim_abi::encode::PartBuilder;

    /// Judges parts (ring and number), marks and statements, each a record of the same segment or, at `Next`, of the next one.
    enum Of {
        Part(u32, u64),
        Mark(State, u64, &'static [(u32, u64)], &'static [(u32, u64, u64)]),
        Said(u64, u64),
        Next,
        Blind,
    }
    use Of::{Blind, Next, Part as P, Said};

    fn judged(all: &[Of]) -> (Vec<(u32, u64, u64)>, u64, u64) {
        let (mut rings, mut parts, mut found) = (Rings::default(), Parts::default(), Vec::new());
        for (seq, of) in (0..).zip(all) {
            let at = Stamp { seq, realtime_ns: 0 };
            match of {
                P(ring, number) => {
                    let bytes = PartBuilder::more(9, 1).ring(*ring, *number).build();
                    let record = graven_format::Record {
                        source: Source::Shim,
                        kind: 2,
                        flags: graven_format::Flags::NONE,
                        realtime_ns: 0,
                        boottime_ns: 0,
                        source_seq: 9,
                        bytes: &bytes,
                    };
                    parts.take(&record, at);
                }
                Of::Mark(state, instance, next, tested) => {
                    let next: Vec<String> = (0..3)
                        .map(|ring| next.iter().find(|it| it.0 == ring))
                        .map(|it| it.map_or("?".to_owned(), |it| it.1.to_string()))
                        .collect();
                    let tested: Vec<String> = tested
                        .iter()
                        .map(|(ring, from, to)| format!("{ring}:{from}-{to}"))
                        .collect();
                    let own = graven_writer::own::Own::new(
                        1203,
                        "shim-session",
                        graven_writer::clock::now(),
                    )
                    .field("state", format!("{state:?}").to_lowercase())
                    .field("instance", format_args!("{instance:016x}"))
                    .field("next", next.join(","))
                    .field(
                        "tested",
                        if tested.is_empty() { "none".to_owned() } else { tested.join(",") },
                    );
                    parts.take(&own.record(), at);
                }
                Said(first, last) => parts.state(&LossStatement {
                    source: Source::Shim,
                    cause: Cause::SerialGap,
                    certainty: Certainty::Exactly,
                    count: last - first + 1,
                    range: Some((*first, *last)),
                    between_ns: None,
                }),
                Next | Blind => {
                    let whole = std::mem::take(&mut parts).end();
                    rings.segment(&whole, &mut |it| found.push((it.ring, it.first, it.last)));
                    if matches!(of, Blind) {
                        rings.blind();
                    }
                }
            }
        }
        rings.segment(&parts.end(), &mut |it| found.push((it.ring, it.first, it.last)));
        rings.end();
        (found, rings.sessions, rings.without_end)
    }

    #[test]
    fn what_is_missing_in_a_ring_shows_at_the_next_part_of_it() {
        let begin = |next| Of::Mark(State::Begin, 1, next, &[]);
        let none = Vec::new;
        // In several rings, over segments, to the end.
        let whole = [
            begin(&[(0, 5)]),
            P(0, 5),
            P(1, 0),
            Next,
            P(0, 6),
            P(1, 1),
            Of::Mark(State::End, 1, &[(0, 7), (1, 2)], &[]),
        ];
        assert_eq!(judged(&whole), (none(), 1, 0));
        assert_eq!(
            judged(&[begin(&[]), P(0, 3), P(1, 8), P(0, 5), Next, P(0, 9)]),
            (vec![(0, 4, 4), (0, 6, 8)], 1, 1)
        );
        // The first part is owed if the session said where it stands.
        assert_eq!(judged(&[begin(&[(0, 2)]), P(0, 4)]).0, [(0, 2, 3)]);
        // The last ones are, by what a mark says behind them.
        let cut = [begin(&[(0, 0)]), P(0, 0), Of::Mark(State::End, 1, &[(0, 3)], &[])];
        assert_eq!(judged(&cut), (vec![(0, 1, 2)], 1, 0));
    }

    #[test]
    fn what_is_stated_or_was_the_modules_own_test_is_not_missing() {
        let begin = Of::Mark(State::Begin, 1, &[(0, 0)], &[]);
        assert_eq!(judged(&[begin, Said(0, 1), P(0, 2), Next, Said(3, 3), Next, P(0, 4)]).0, []);
        let other = [Of::Mark(State::Begin, 1, &[(0, 0)], &[]), Said(0, 0), P(0, 2)];
        assert_eq!(judged(&other).0, [(0, 0, 1)], "another range");
        let tested = [
            Of::Mark(State::Begin, 1, &[(0, 0)], &[]),
            P(0, 0),
            Of::Mark(State::End, 1, &[(0, 1)], &[]),
            Of::Mark(State::Begin, 1, &[(0, 1)], &[(0, 1, 30), (1, 0, 7)]),
            P(0, 31),
            P(1, 8),
        ];
        assert_eq!(judged(&tested), (Vec::new(), 2, 1));
        let before = [
            Of::Mark(State::Begin, 1, &[(0, 0)], &[]),
            Of::Mark(State::Begin, 1, &[(0, 0)], &[(0, 4, 9)]),
        ];
        assert_eq!(judged(&before).0, [(0, 0, 3)], "somebody else took them");
    }

    #[test]
    fn another_load_and_what_cannot_be_read_owe_nothing() {
        let begin = |instance| Of::Mark(State::Begin, instance, &[(0, 0)], &[]);
        assert_eq!(judged(&[begin(1), P(0, 0), begin(2), P(0, 0), P(0, 1)]), (Vec::new(), 2, 2));
        assert_eq!(judged(&[P(0, 7), P(0, 9)]), (Vec::new(), 0, 0), "no session has said anything");
        assert_eq!(
            judged(&[
                begin(1),
                P(0, 0),
                Blind,
                P(0, 5),
                Of::Mark(State::Mark, 1, &[(0, 9)], &[]),
                P(0, 10)
            ])
            .0,
            [(0, 9, 9)]
        );
    }
}
