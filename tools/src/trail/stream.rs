//! Records in the order of their seq, for `show` and `export`: what is intact is given out, and
//! what is not is said.

use crate::trail::dir::{SegmentFile, TrailDir};
use crate::trail::scan::{self, How};
use crate::trail::tail::Tail;
use graven_format::scan::{Event, Expect};
use graven_format::{Class, Finding, Record};
use graven_writer::retention::Statement;
use std::io;
use std::ops::{ControlFlow, Range};

/// What a trail gives next.
#[derive(Debug)]
pub enum Item<'a> {
    /// A record in range.
    Record {
        /// The segment.
        file: &'a SegmentFile,
        /// Its seq.
        seq: u64,
        /// The record.
        record: Record<'a>,
    },
    /// Something that had been announced is not what it was, or a later version wrote it.
    Finding {
        /// The segment.
        file: &'a SegmentFile,
        /// What is wrong.
        finding: &'a Finding,
        /// What it means.
        class: Class,
    },
    /// Records that were announced and of which nothing is left in the directory.
    Missing {
        /// Their seqs.
        seqs: Range<u64>,
    },
    /// A segment could not be read.
    Unreadable {
        /// The segment.
        file: &'a SegmentFile,
        /// What the system said.
        why: &'a io::Error,
    },
}

/// Gives the records of `range` to `visit`, which may end it. Only the segments that hold some of
/// them are read, and the end of the trail: it says which records belong to the trail at all, and
/// which were written but never announced.
pub fn stream(
    dir: &TrailDir,
    range: &Range<u64>,
    visit: &mut dyn FnMut(Item<'_>) -> ControlFlow<()>,
) {
    let tail = Tail::read(dir, false, How::default());
    let range = range.start..range.end.min(tail.end_seq);
    let announced = (tail.segments.iter().flat_map(|(_, read)| read))
        .map(|read| read.outcome.announced)
        .max()
        .unwrap_or(0);
    let mut head = Head::new(dir, &range);
    // The segments that may hold a record of the range, and what is missing before each of them.
    let mut end_seq = 0;
    for (index, file) in dir.segments.iter().enumerate() {
        let missing = end_seq.max(range.start)..file.first_seq.min(range.end);
        if index == 0 && head.missing.is_some() {
            // What comes says whether it is.
        } else if !missing.is_empty() && visit(Item::Missing { seqs: missing }).is_break() {
            return;
        }
        let next_first_seq = dir.segments.get(index + 1).map_or(u64::MAX, |next| next.first_seq);
        end_seq = next_first_seq;
        if file.first_seq.max(range.start) >= next_first_seq.min(range.end) {
            continue;
        }
        let at_end = index + tail.at_end >= dir.segments.len();
        let mut segment =
            Segment { file, announced, at_end, range: &range, end_seq: file.first_seq };
        match segment.read(dir, &mut head, visit) {
            Ok(ControlFlow::Break(())) => return,
            Ok(ControlFlow::Continue(())) => end_seq = segment.end_seq,
            Err(why) => {
                if visit(Item::Unreadable { file, why: &why }).is_break() {
                    return;
                }
            }
        }
    }
    if let Some(seqs) = head.missing {
        let _ = visit(Item::Missing { seqs });
    }
}

/// The beginning of a trail, if it is not there.
struct Head {
    /// The number of the first segment that is there.
    first: u64,
    /// The seqs before it, unless a record says that they were removed.
    missing: Option<Range<u64>>,
}

impl Head {
    fn new(dir: &TrailDir, range: &Range<u64>) -> Self {
        let first = dir.segments.first().filter(|first| first.segment > 0 && range.start == 0);
        let missing = first.map(|first| 0..first.first_seq.min(range.end));
        let missing = missing.filter(|missing| !missing.is_empty());
        Self { first: first.map_or(0, |first| first.segment), missing }
    }

    fn take(&mut self, record: &Record<'_>) {
        let says = self.missing.as_ref().and_then(|_| Statement::parse(record));
        if says.is_some_and(|says| says.last_segment.saturating_add(1) >= self.first) {
            self.missing = None;
        }
    }
}

/// One segment that is being given out.
struct Segment<'a> {
    file: &'a SegmentFile,
    announced: u64,
    at_end: bool,
    range: &'a Range<u64>,
    /// After the last record that was read.
    end_seq: u64,
}

impl Segment<'_> {
    /// Breaks if the visitor did.
    fn read(
        &mut self,
        dir: &TrailDir,
        head: &mut Head,
        visit: &mut dyn FnMut(Item<'_>) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        let opened = dir.open_segment(self.file)?;
        let expect = Expect {
            segment: self.file.segment,
            first_seq: self.file.first_seq,
            trail_id: dir.trail_id(),
            merkle: false,
        };
        let mut ended = ControlFlow::Continue(());
        scan::scan_from(
            &opened,
            expect,
            self.range.start,
            How::default(),
            &mut |event| match event {
                Event::Record { seq, .. } if seq >= self.range.end => {
                    self.end_seq = seq;
                    ControlFlow::Break(())
                }
                Event::Record { seq, record, .. } => {
                    self.end_seq = seq + 1;
                    head.take(&record);
                    if seq >= self.range.start {
                        ended = visit(Item::Record { file: self.file, seq, record });
                    }
                    ended
                }
                Event::Finding(finding) => {
                    let class = finding.class(self.announced, self.at_end);
                    if class != Class::Tail {
                        ended = visit(Item::Finding { file: self.file, finding: &finding, class });
                    }
                    ended
                }
                Event::Header(_) | Event::Frame { .. } | Event::Trailer(_) => {
                    ControlFlow::Continue(())
                }
            },
        )?;
        Ok(ended)
    }
}
