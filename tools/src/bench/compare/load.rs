//! The closed loop: producers that hand over a group of records, wait for what their mode waits for, and go on, for a time.

use super::super::process::Trouble;
use super::super::stats::histogram;
use super::super::units::{self, now_ns};
use super::records::Records;
use hdrhistogram::Histogram;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Records that a producer makes at once where nobody waits for them.
const STREAM_GROUP: usize = 64;

/// What a producer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each record is acknowledged before its producer makes the next.
    Each,
    /// So many records are handed over, and acknowledged, together.
    Group(usize),
    /// Nothing but room.
    Stream,
}

impl Mode {
    /// Records that are handed over together.
    #[must_use]
    pub fn group(self) -> usize {
        match self {
            Self::Each => 1,
            Self::Group(records) => records,
            Self::Stream => STREAM_GROUP,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Each => f.write_str("each"),
            Self::Group(records) => write!(f, "group:{records}"),
            Self::Stream => f.write_str("stream"),
        }
    }
}

/// What is offered.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// The records.
    pub records: &'a Records,
    /// Threads.
    pub producers: usize,
    /// What they wait for.
    pub mode: Mode,
    /// How long they go on.
    pub length: Duration,
    /// Ends them early.
    pub stop: &'a AtomicBool,
}

/// Records in a row.
#[derive(Debug, Default)]
pub struct Group {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Group {
    fn fill(&mut self, records: &Records, producer: usize, first: u64, count: usize) {
        self.bytes.clear();
        self.ends.clear();
        for n in first..first + count as u64 {
            records.write(producer, n, &mut self.bytes);
            self.ends.push(self.bytes.len());
        }
    }

    /// Each record.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// A producer's way to a rival.
pub trait Client: Send {
    /// Hands records over, and waits until they are acknowledged if that is what its mode waits for.
    ///
    /// # Errors
    /// [`Trouble`]: the run is void.
    fn push(&mut self, group: &Group) -> Result<(), Trouble>;
}

/// What producers have done.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// Records that each producer has sent.
    pub sent: Vec<u64>,
    /// From handing over to the acknowledgement, a record each; empty in a stream.
    pub latency: Histogram<u64>,
    /// From the first record on; up to the last acknowledgement unless who called counts longer.
    pub took_ns: u64,
}

impl Pushed {
    /// Records of all producers.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.sent.iter().sum()
    }
}

/// Lets one thread a client produce.
///
/// # Errors
/// What a client says; [`Trouble::Stopped`].
pub fn push(load: &Load<'_>, clients: Vec<Box<dyn Client + '_>>) -> Result<Pushed, Trouble> {
    let start_ns = now_ns();
    let end_ns = start_ns + units::ns(load.length);
    let produce = |producer: usize, mut client: Box<dyn Client + '_>| {
        let (mut group, mut latency, mut sent) = (Group::default(), histogram(), 0);
        while now_ns() < end_ns && !load.stop.load(Ordering::Relaxed) {
            group.fill(load.records, producer, sent, load.mode.group());
            let handed_ns = now_ns();
            client.push(&group)?;
            if load.mode != Mode::Stream {
                latency.saturating_record_n(now_ns() - handed_ns, group.len() as u64);
            }
            sent += group.len() as u64;
        }
        Ok((sent, latency))
    };
    let produce = &produce;
    let done: Vec<(u64, Histogram<u64>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (clients.into_iter().enumerate())
            .map(|(producer, client)| scope.spawn(move || produce(producer, client)))
            .collect();
        let ends = threads
            .into_iter()
            .map(|it| it.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        ends.collect::<Result<_, Trouble>>()
    })?;
    let took_ns = now_ns() - start_ns;
    if load.stop.load(Ordering::Relaxed) {
        return Err(Trouble::Stopped);
    }
    let mut all = histogram();
    for (_, latency) in &done {
        // Not reached: all are made with the same bounds.
        all.add(latency).expect("histograms of the same bounds");
    }
    Ok(Pushed { sent: done.iter().map(|(sent, _)| *sent).collect(), latency: all, took_ns })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    struct Keep<'a>(&'a Mutex<Vec<Vec<u8>>>);

    impl Client for Keep<'_> {
        fn push(&mut self, group: &Group) -> Result<(), Trouble> {
            std::thread::sleep(Duration::from_millis(1));
            self.0.lock().expect("no panic").extend(group.records().map(<[u8]>::to_vec));
            Ok(())
        }
    }

    #[test]
    fn every_record_that_counts_as_sent_was_handed_over_once() {
        let (records, stop) = (Records::new(&[20, 50]), AtomicBool::new(false));
        for mode in [Mode::Each, Mode::Group(7), Mode::Stream] {
            let kept = Mutex::default();
            let length = Duration::from_millis(30);
            let load = Load { records: &records, producers: 3, mode, length, stop: &stop };
            let clients = (0..3).map(|_| Box::new(Keep(&kept)) as Box<dyn Client>).collect();
            let pushed = push(&load, clients).expect("no failure");
            let mut tally = super::super::records::Tally::new(&records, &pushed.sent);
            let kept = kept.lock().expect("no panic");
            kept.iter().try_for_each(|it| tally.see(it)).expect("all were sent");
            assert_eq!(tally.found(), pushed.total(), "{mode}");
            // On a busy machine not each of them has its turn in time.
            assert!(pushed.total() > 0, "{mode}");
            assert!(pushed.sent.iter().all(|it| it % mode.group() as u64 == 0), "{mode}");
            let told = if mode == Mode::Stream { 0 } else { pushed.total() };
            assert_eq!(pushed.latency.len(), told, "{mode}");
            assert!(mode == Mode::Stream || pushed.latency.min() >= 1_000_000, "{mode}");
        }
    }

    #[test]
    fn who_is_asked_to_end_has_measured_nothing() {
        let (records, stop, kept) = (Records::new(&[20]), AtomicBool::new(true), Mutex::default());
        let (length, mode) = (Duration::from_secs(60), Mode::Each);
        let load = Load { records: &records, producers: 1, mode, length, stop: &stop };
        let ended = push(&load, vec![Box::new(Keep(&kept))]);
        assert!(matches!(ended, Err(Trouble::Stopped)));
    }
}
