//! What takes records and makes them durable, and the log that it keeps of its writes.

use super::units;
use graven_writer::{OpenError, WriteError};
use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

/// Records that may wait before `drop` and `block` act, unless told otherwise: the `backlog_limit` that Graven sets.
pub const CAPACITY_DEFAULT: usize = 8192;

/// How records are queued and written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Discipline {
    /// Graven's own writer.
    Graven,
    /// The producer writes each record and waits for fdatasync.
    Sync,
    /// A thread writes what has come, once each interval.
    Timer(Duration),
    /// As many threads, each of which writes whatever waits as soon as it is free.
    Greedy(usize),
    /// A queue of so many records before one greedy thread; what finds it full is lost.
    Drop(usize),
    /// The same; who finds it full waits.
    Block(usize),
}

impl FromStr for Discipline {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) =
            text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let number = |default: usize, max: usize| match rest.map(str::parse) {
            None => Ok(default),
            Some(Ok(n)) if (1..=max).contains(&n) => Ok(n),
            Some(_) => Err(format!("`{text}`: the number is from 1 to {max}")),
        };
        match (name, rest) {
            ("graven", None) => Ok(Self::Graven),
            ("sync", None) => Ok(Self::Sync),
            ("timer", Some(rest)) => units::duration(rest).map(Self::Timer),
            ("greedy", _) => number(1, 64).map(Self::Greedy),
            ("drop", _) => number(CAPACITY_DEFAULT, 100_000_000).map(Self::Drop),
            ("block", _) => number(CAPACITY_DEFAULT, 100_000_000).map(Self::Block),
            _ => Err(format!(
                "`{text}` is none of graven, sync, timer:INTERVAL, greedy[:DEPTH], drop[:RECORDS], block[:RECORDS]"
            )),
        }
    }
}

impl fmt::Display for Discipline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Graven => f.write_str("graven"),
            Self::Sync => f.write_str("sync"),
            Self::Timer(interval) => write!(f, "timer:{}", units::show(*interval)),
            Self::Greedy(depth) => write!(f, "greedy:{depth}"),
            Self::Drop(records) => write!(f, "drop:{records}"),
            Self::Block(records) => write!(f, "block:{records}"),
        }
    }
}

/// One write that is a barrier for records in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Seq of the first record.
    pub first_seq: u64,
    /// Records.
    pub count: u64,
    /// When the device was given it.
    pub start_ns: u64,
    /// When it was durable.
    pub end_ns: u64,
    /// Whether it is the first of those that the server turned to at once: each one, but for what a tick of a timer has
    /// beyond one write.
    pub leads: bool,
}

/// A move of the watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// When.
    pub at_ns: u64,
    /// Records durable from then on.
    pub durable: u64,
}

/// How producers waited for room, or for their own write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocked {
    /// How often.
    pub count: u64,
    /// How long together.
    pub total_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl Blocked {
    /// Counts one wait.
    pub fn add(&mut self, ns: u64) {
        self.count += 1;
        self.total_ns += ns;
        self.max_ns = self.max_ns.max(ns);
    }
}

/// What an appender has done.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    /// Writes that held records, by seq.
    pub served: Vec<Served>,
    /// Moves of the watermark, in order.
    pub moves: Vec<Move>,
    /// Waits of producers.
    pub blocked: Blocked,
    /// Bytes of all writes, padding and what is not records included.
    pub written_bytes: u64,
    /// Bytes of zeros written ahead of use.
    pub zeroed_bytes: u64,
    /// Processor time of producers inside their waits, if they work there.
    pub waiting_cpu_ns: u64,
}

impl Logs {
    /// Sorts the writes, and finds how the watermark moved over their complete prefix from them alone.
    pub fn settle(&mut self, first_seq: u64) {
        self.served.sort_by_key(|it| it.first_seq);
        let mut at_ns = 0;
        let mut durable = first_seq;
        for write in &self.served {
            at_ns = at_ns.max(write.end_ns);
            durable += write.count;
            self.moves.push(Move { at_ns, durable });
        }
    }
}

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The disk, or another thing of the system's.
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
    /// The trail could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Storage failed below Graven.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The trail was refused a record.
    #[error("a record was not taken: {0}")]
    Append(String),
}

/// Takes records from several threads.
pub trait Appender: Send + Sync {
    /// Offers a record that was due then; `None` if it was dropped, or else its seq.
    ///
    /// # Errors
    /// [`RunError`]: the run is void.
    fn append(&self, due_ns: u64, bytes: &[u8]) -> Result<Option<u64>, RunError>;

    /// Seq of the first record of this run.
    fn first_seq(&self) -> u64;

    /// Waits until all that was taken is durable.
    ///
    /// # Errors
    /// [`RunError`]: the run is void.
    fn drain(&self) -> Result<(), RunError>;

    /// Ends it.
    ///
    /// # Errors
    /// [`RunError`]: the run is void.
    fn finish(self: Box<Self>) -> Result<Logs, RunError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disciplines_are_read_as_they_are_shown() {
        for text in ["graven", "sync", "timer:5ms", "greedy:4", "drop:100", "block:8192"] {
            assert_eq!(text.parse::<Discipline>().expect(text).to_string(), text);
        }
        assert_eq!("drop".parse(), Ok(Discipline::Drop(CAPACITY_DEFAULT)));
        for text in ["", "greedy:0", "greedy:65", "drop:x", "timer", "sync:1", "fifo"] {
            assert!(text.parse::<Discipline>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_watermark_moves_over_a_complete_prefix_only() {
        let write = |first_seq, count, end_ns| Served {
            first_seq,
            count,
            start_ns: 0,
            end_ns,
            leads: true,
        };
        let mut logs = Logs {
            served: vec![write(12, 1, 50), write(10, 2, 70), write(13, 4, 60)],
            ..Logs::default()
        };
        logs.settle(10);
        let moves: Vec<_> = logs.moves.iter().map(|it| (it.at_ns, it.durable)).collect();
        assert_eq!(moves, [(70, 12), (70, 13), (70, 17)]);
    }
}
