//! The serials of the kernel's audit records in one segment: which are there, which are stated as
//! missing, and the marks of sessions between them.
//!
//! Serials nearly count up, so what is there is kept as two ends and the holes between them. A piece ends
//! where a session begins or ends; inside a piece the order does not matter: serials come out of order, and
//! statements late.

use crate::trail::segment::Stamp;
use graven_format::loss::{Cause, LossStatement};
use graven_format::session::{Mark, What};
use graven_format::{Record, Source};
use graven_writer::source::nlmsg;

/// Most holes, statements and pieces of one segment that are kept. A segment with more cannot be judged.
const ROWS_MAX: usize = 1 << 14;

/// Serials that are not there, both included, widened so that they do not wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The lowest.
    pub first: u64,
    /// The highest.
    pub last: u64,
    /// The record with which it showed.
    pub at: Stamp,
}

impl Hole {
    /// Serials that are not there.
    #[must_use]
    pub fn serials(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// Which serials are there.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// The lowest and the highest.
    ends: Option<(u64, u64)>,
    /// What is missing between them, ascending.
    holes: Vec<Hole>,
    /// The first record.
    first: Option<Stamp>,
    last_serial: Option<u32>,
}

/// The wide number nearest to `head` that ends in this serial.
fn widen(head: u64, serial: u32) -> u64 {
    let ahead = serial.wrapping_sub(head as u32).cast_signed();
    head.wrapping_add_signed(i64::from(ahead))
}

impl Coverage {
    /// Adds the serial of one record.
    pub fn add(&mut self, serial: u32, at: Stamp) {
        // The records of an event follow each other.
        if self.last_serial.replace(serial) == Some(serial) {
            return;
        }
        let Some((low, high)) = self.ends else {
            // One whole turn lies below, so that nothing is ever negative.
            let wide = (1 << 32) | u64::from(serial);
            (self.ends, self.first) = (Some((wide, wide)), Some(at));
            return;
        };
        let wide = widen(high, serial);
        if wide > high {
            if wide > high + 1 {
                self.holes.push(Hole { first: high + 1, last: wide - 1, at });
            }
            self.ends = Some((low, wide));
        } else if wide < low {
            if wide + 1 < low {
                self.holes.insert(0, Hole { first: wide + 1, last: low - 1, at });
            }
            self.ends = Some((wide, high));
        } else {
            self.remove(wide, wide);
        }
    }

    /// Holes that are kept.
    #[must_use]
    pub fn holes(&self) -> usize {
        self.holes.len()
    }

    /// Says that these are not missing; returns how many were.
    fn remove(&mut self, from: u64, to: u64) -> u64 {
        let start = self.holes.partition_point(|hole| hole.last < from);
        let end = self.holes.partition_point(|hole| hole.first <= to);
        if start >= end {
            return 0;
        }
        let (low, high) = (self.holes[start], self.holes[end - 1]);
        let kept = [
            (low.first < from).then(|| Hole { last: from - 1, ..low }),
            (high.last > to).then(|| Hole { first: to + 1, ..high }),
        ];
        let before: u64 = self.holes[start..end].iter().map(Hole::serials).sum();
        let kept = kept.into_iter().flatten();
        let left: u64 = kept.clone().map(|hole| hole.serials()).sum();
        self.holes.splice(start..end, kept);
        before - left
    }

    /// Says that the range of a statement is not missing unsaid; returns how many serials of it were.
    pub fn state(&mut self, first: u32, last: u32) -> u64 {
        let Some((_, high)) = self.ends else { return 0 };
        let to = widen(high, last);
        self.remove(to.saturating_sub(u64::from(last.wrapping_sub(first))), to)
    }

    /// Adds what is there of a later part of the trail.
    pub fn merge(&mut self, other: &Self) {
        let Some((other_low, other_high)) = other.ends else { return };
        let Some((low, high)) = self.ends else {
            *self = other.clone();
            return;
        };
        let shift = widen(high, other_high as u32).wrapping_sub(other_high);
        let shifted = |hole: &Hole| Hole {
            first: hole.first.wrapping_add(shift),
            last: hole.last.wrapping_add(shift),
            at: hole.at,
        };
        let (from, to) = (other_low.wrapping_add(shift), other_high.wrapping_add(shift));
        let mut holes = Vec::with_capacity(self.holes.len() + other.holes.len());
        for hole in &self.holes {
            if hole.last < from || hole.first > to {
                holes.push(*hole);
                continue;
            }
            if hole.first < from {
                holes.push(Hole { last: from - 1, ..*hole });
            }
            let start = other.holes.partition_point(|it| shifted(it).last < hole.first);
            for it in other.holes[start..].iter().map(shifted) {
                if it.first > hole.last {
                    break;
                }
                let (first, last) = (it.first.max(hole.first), it.last.min(hole.last));
                holes.push(Hole { first, last, at: hole.at });
            }
            if hole.last > to {
                holes.push(Hole { first: to + 1, ..*hole });
            }
        }
        if let Some(at) = other.first.filter(|_| from > high + 1) {
            holes.push(Hole { first: high + 1, last: from - 1, at });
        }
        let above = other.holes.iter().map(shifted).filter(|hole| hole.last > high);
        holes.extend(above.map(|hole| Hole { first: hole.first.max(high + 1), ..hole }));
        self.ends = Some((low, high.max(to)));
        self.holes = holes;
    }

    /// Begins behind `serial`: what is at or below it is not owed, all above is.
    pub fn begin_behind(&mut self, serial: u32) {
        let Some((low, high)) = self.ends else {
            let wide = (1 << 32) | u64::from(serial);
            self.ends = Some((wide, wide));
            return;
        };
        let wide = widen(high, serial);
        self.remove(0, wide);
        if let Some(at) = self.first.filter(|_| low > wide + 1) {
            self.holes.insert(0, Hole { first: wide + 1, last: low - 1, at });
        }
        self.ends = Some((wide, high.max(wide)));
    }

    /// Takes out what is missing up to and with `serial`, as is known at a mark.
    pub fn missing_to(&mut self, serial: u32, at: Stamp) -> Vec<Hole> {
        let Some((low, high)) = self.ends else { return Vec::new() };
        let wide = widen(high, serial);
        let mut missing = self.holes.clone();
        missing.retain_mut(|hole| {
            hole.last = hole.last.min(wide);
            hole.first <= wide
        });
        if high < wide {
            missing.push(Hole { first: high + 1, last: wide, at });
        }
        self.remove(0, wide);
        self.ends = Some((low.max(wide), high.max(wide)));
        missing
    }
}

/// A range that a statement covers.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    /// Its first serial.
    pub first: u32,
    /// Its last serial; below the first where serials wrap.
    pub last: u32,
    /// How many of them are said to be missing.
    pub count: u64,
    /// The statement.
    pub at: Stamp,
}

/// A part of a segment up to where a session begins or ends.
#[derive(Clone, Debug, Default)]
pub struct Piece {
    /// The serials that are there.
    pub coverage: Coverage,
    /// Those that are stated.
    pub said: Vec<Said>,
    /// The last mark that says up to where all is settled.
    pub settled: Option<(Mark, Stamp)>,
    /// The mark that it ends with.
    pub end: Option<(Mark, Stamp)>,
}

/// What a segment has of the kernel's audit.
#[derive(Debug, Default)]
pub struct Serials {
    /// Its pieces, in order; the last has no mark at its end.
    pub pieces: Vec<Piece>,
    /// Records are stated to be missing in it that were damaged elsewhere.
    pub damaged: bool,
    /// There was more than is kept.
    pub too_many: bool,
    open: Piece,
    rows: usize,
}

impl Serials {
    /// Takes the next record.
    pub fn take(&mut self, record: &Record<'_>, at: Stamp) {
        match record.source {
            Source::Netlink if !self.too_many => {
                // Records without a stamp are kept with 0, and so is the one event of that number.
                let serial = match record.source_seq as u32 {
                    0 => match nlmsg::stamp(record.bytes) {
                        Some(stamp) => stamp.serial,
                        None => return,
                    },
                    serial => serial,
                };
                self.open.coverage.add(serial, at);
                self.too_many = self.open.coverage.holes() > ROWS_MAX;
            }
            Source::Graven => {
                if let Some(mark) = Mark::read(record) {
                    self.mark(mark, at);
                }
            }
            _ => {}
        }
    }

    /// Takes a statement.
    pub fn state(&mut self, said: &LossStatement, at: Stamp) {
        self.damaged |= said.cause == Cause::Damaged;
        let (Cause::SerialGap | Cause::NoDaemon, Source::Netlink, Some((first, last))) =
            (said.cause, said.source, said.range)
        else {
            return;
        };
        if let (Ok(first), Ok(last)) = (first.try_into(), last.try_into()) {
            self.open.said.push(Said { first, last, count: said.count, at });
            self.row();
        }
    }

    fn mark(&mut self, mark: Mark, at: Stamp) {
        match mark.what {
            What::Settled { .. } => self.open.settled = Some((mark, at)),
            What::Open { .. } | What::Close { .. } => {
                self.open.end = Some((mark, at));
                self.rows += self.open.coverage.holes();
                self.pieces.push(std::mem::take(&mut self.open));
                self.row();
            }
        }
    }

    fn row(&mut self) {
        self.rows += 1;
        if self.rows > ROWS_MAX {
            self.too_many = true;
            (self.pieces, self.open) = (Vec::new(), Piece::default());
            self.rows = 0;
        }
    }

    /// The same, complete.
    #[must_use]
    pub fn end(mut self) -> Self {
        self.pieces.push(std::mem::take(&mut self.open));
        if self.too_many {
            self.pieces = Vec::new();
        }
        self
    }
}

#[cfg(test)]
#[path = "serials_tests.rs"]
mod tests;
