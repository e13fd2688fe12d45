//! What a session says of itself in the trail: which load of the module it reads, and where it stands in each ring.
//!
//! A record of Graven's own, `op=shim-session`, at the beginning, every so many parts, and at the end:
//!
//! | field | is |
//! |---|---|
//! | `state` | `begin`, `mark`, `end`; `left` for an end at which tasks still waited |
//! | `instance` | the load of the module, 16 hexadecimal digits |
//! | `next` | of each ring the number that its next part has, or `?`, with commas between |
//! | `tested` | `ring:first-last`, with commas between: numbers that the module's own test took before this session, and that are in no trail; or `none` |

use crate::clock;
use crate::own::{self, Own};
use graven_format::{Record, Source};
use std::collections::BTreeMap;

/// What a session says with a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It begins.
    Begin,
    /// It goes on.
    Mark,
    /// It has read everything that had its number.
    End,
    /// It ends, and tasks wait with records for whoever reads next.
    Left,
}

impl State {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Begin, "begin"), (Self::Mark, "mark"), (Self::End, "end"), (Self::Left, "left")];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, name)| name)
    }
}

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What it says.
    pub state: State,
    /// The load of the module.
    pub instance: u64,
    /// Of each ring the number that its next part has, where that is known.
    pub next: BTreeMap<u32, u64>,
    /// Of rings, the first and the last number that the module's own test took.
    pub tested: BTreeMap<u32, (u64, u64)>,
}

impl Mark {
    /// The record of a mark for so many rings.
    pub(super) fn record(&self, rings: u32) -> Own {
        let next = (0..rings).map(|ring| match self.next.get(&ring) {
            Some(next) => next.to_string(),
            None => "?".to_owned(),
        });
        let tested =
            self.tested.iter().map(|(ring, (first, last))| format!("{ring}:{first}-{last}"));
        let tested = tested.collect::<Vec<_>>().join(",");
        Own::new(own::CONFIG, "shim-session", clock::now())
            .field("state", self.state.name())
            .field("instance", format_args!("{:016x}", self.instance))
            .field("next", next.collect::<Vec<_>>().join(","))
            .field("tested", if tested.is_empty() { "none" } else { &tested })
            .result(true)
    }

    /// The mark that a record is, if it is one.
    #[must_use]
    pub fn read(record: &Record<'_>) -> Option<Self> {
        if record.source != Source::Graven || record.kind != own::CONFIG {
            return None;
        }
        let text = std::str::from_utf8(record.bytes).ok()?;
        let (_, fields) = text.split_once("): op=shim-session ")?;
        let field = |name: &str| {
            fields.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        };
        let state = field("state")?;
        let state = State::ALL.iter().find(|(_, name)| *name == state)?.0;
        let mut next = BTreeMap::new();
        for (ring, number) in (0..).zip(field("next")?.split(',')) {
            if number != "?" {
                next.insert(ring, number.parse().ok()?);
            }
        }
        let mut tested = BTreeMap::new();
        for one in field("tested")?.split(',').filter(|one| *one != "none") {
            let (ring, range) = one.split_once(':')?;
            let (first, last) = range.split_once('-')?;
            tested.insert(ring.parse().ok()?, (first.parse().ok()?, last.parse().ok()?));
        }
        let instance = u64::from_str_radix(field("instance")?, 16).ok()?;
        Some(Self { state, instance, next, tested })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        for (state, _) in State::ALL {
            let mark = Mark {
                state,
                instance: 0xfedc_ba98_7654_3210,
                next: BTreeMap::from([(0, 7), (2, u64::MAX)]),
                tested: BTreeMap::from([(0, (7, 19)), (2, (0, 1))]),
            };
            let own = mark.record(3);
            assert_eq!(Mark::read(&own.record()), Some(mark.clone()));
            let none = Mark { next: BTreeMap::new(), tested: BTreeMap::new(), ..mark };
            assert_eq!(Mark::read(&none.record(3).record()), Some(none));
        }
        let other = Own::new(own::CONFIG, "reconfigure", clock::now()).result(true);
        assert_eq!(Mark::read(&other.record()), None);
    }
}
