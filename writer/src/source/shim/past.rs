//! What the end of a trail says of the shim: up to which number of each ring it has all parts.
//!
//! A session says where it stands ([`Mark`]). From the last one of these on, the parts themselves tell. Without one nothing is known, and a part may be taken twice, never left out.

use super::super::past::{scan, segments};
use super::mark::{Mark, State};
use crate::error::OpenError;
use graven_format::Source;
use graven_format::scan::Event;
use graven_shim_abi::Part;
use std::collections::BTreeMap;
use std::path::Path;

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// The load of the module that the last session read, if any did.
    instance: Option<u64>,
    next: BTreeMap<u32, u64>,
    /// Whether that session ended as it should.
    ended: bool,
    /// When the last record of it was, nanoseconds since 1970.
    last_ns: u64,
    /// What the module's own test took since, first and last.
    pub(super) tested: BTreeMap<u32, (u64, u64)>,
}

impl Past {
    /// Reads the end of the trail in `dir`, which is open for writing, back to the last mark.
    ///
    /// # Errors
    /// [`OpenError`] if the system does not let it read.
    pub fn read(dir: &Path) -> Result<Self, OpenError> {
        let mut newer = BTreeMap::new();
        let mut last_ns = 0;
        for segment in segments(dir)?.iter().rev() {
            let (mut mark, mut since) = (None, BTreeMap::new());
            scan(dir, segment, &mut |event| {
                let Event::Record { record, .. } = event else { return };
                if let Some(said) = Mark::read(&record) {
                    mark = Some(said);
                    since.clear();
                    last_ns = last_ns.max(record.realtime_ns);
                } else if record.source == Source::Shim
                    && let Some(part) = Part::read(record.bytes)
                {
                    since.insert(part.ring, part.ring_seq.saturating_add(1));
                    last_ns = last_ns.max(record.realtime_ns);
                }
            })?;
            for (ring, next) in since {
                newer.entry(ring).or_insert(next);
            }
            if let Some(Mark { state, instance, mut next, tested }) = mark {
                for (ring, (_, last)) in tested {
                    next.insert(ring, last + 1);
                }
                next.append(&mut newer);
                let ended = state == State::End;
                return Ok(Self {
                    instance: Some(instance),
                    next,
                    ended,
                    last_ns,
                    ..Self::default()
                });
            }
        }
        Ok(Self::default())
    }

    /// The number that the next part of a ring must have, if this load of the module was read before.
    #[must_use]
    pub fn next(&self, instance: u64, ring: u32) -> Option<u64> {
        if self.instance == Some(instance) { self.next.get(&ring).copied() } else { None }
    }

    /// Says which numbers of rings the module's own test took, the first and the last of each: they are in no trail.
    pub fn set_tested(&mut self, tested: BTreeMap<u32, (u64, u64)>) {
        self.tested = tested;
    }

    /// When the last record of another load was that nobody has read to its end.
    #[must_use]
    pub fn left_open(&self, instance: u64) -> Option<u64> {
        let other = self.instance.is_some_and(|it| it != instance);
        (other && !self.ended).then_some(self.last_ns)
    }
}
