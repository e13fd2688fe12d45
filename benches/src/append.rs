//! What one append costs the thread that makes it, while the ring has room: percentiles of single calls.
//!
//! Each call stands between two readings of the clock, and what the clock itself takes (the median of readings with
//! nothing between) is taken off. The percentiles of those readings stand beside: what is in them is the machine's.

use crate::disk::{Apart, Bench, payload, record};
use crate::stats::print;
use anyhow::{Result, ensure};
use graven_format::consts::FRAME_BYTES_MAX;
use graven_writer::disk::{IoBuf, Wake};
use graven_writer::ring::Ring;
use graven_writer::{Trail, clock};
use std::fs;
use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Appends of a round that are measured, and how many go before.
const APPENDS: usize = 200_000;
const BEFORE: usize = 20_000;

/// Which calls of a thousand, in order, are printed.
const AT: [(&str, usize); 4] = [("p50", 500), ("p99", 990), ("p99.9", 999), ("max", 1000)];

/// What is measured, in this order.
const CASES: [&str; 4] =
    ["the clock, nothing between", "ring, nobody takes", "trail, paced", "trail, bursts"];

/// Nanoseconds of single calls.
struct Times {
    ns: Vec<u64>,
    /// What the clock takes.
    clock_ns: u64,
}

impl Times {
    fn new(clock_ns: u64) -> Self {
        // Its pages are there before anything is measured.
        let mut ns = vec![1; APPENDS];
        ns.clear();
        Self { ns, clock_ns }
    }

    /// Makes one call and notes how long it took.
    fn of<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = call();
        let ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.ns.push(ns.saturating_sub(self.clock_ns));
        result
    }

    /// See [`AT`].
    fn percentiles(mut self) -> [u64; AT.len()] {
        self.ns.sort_unstable();
        AT.map(|(_, part)| self.ns[(self.ns.len() * part / 1000).min(self.ns.len() - 1)])
    }
}

/// Nobody sleeps.
struct Awake;

impl Wake for Awake {
    fn wake(&self) {}
}

/// The ring alone: it has room for all, and nobody takes anything while it is measured.
fn ring(payload: &[u8], mut times: Times) -> Result<Times> {
    let batch_records = FRAME_BYTES_MAX / record(payload, 0, 0).stored_len() - 1;
    let buffers: std::io::Result<Vec<_>> =
        (0..=APPENDS.div_ceil(batch_records)).map(|_| IoBuf::new(FRAME_BYTES_MAX)).collect();
    let ring = Ring::new(buffers?, 0, Arc::new(Awake));
    // As in a writer's ring, every page is there before it is used.
    for _ in 0..APPENDS {
        ring.append(&record(payload, 1, 1))?;
    }
    while let Some(batch) = ring.take(true) {
        ring.recycle(batch);
    }
    for _ in 0..APPENDS {
        let record = record(payload, 2, 2);
        times.of(|| ring.append(black_box(&record)))?;
    }
    ensure!(ring.stats().waits == 0, "the ring had no room");
    Ok(times)
}

impl Bench<'_> {
    /// A trail with its engine and disk at work: an append each `period`, or as fast as they go for half of the ring,
    /// and again when that is durable.
    fn trail(
        &self,
        payload: &[u8],
        period: Option<Duration>,
        generator_cpu: usize,
        mut times: Times,
    ) -> Result<Times> {
        let dir = self.dir.join("trail");
        let cpus = Apart::new(generator_cpu)?;
        let trail = Trail::open(&dir, &self.options)?;
        cpus.enter()?;
        let half = self.options.ring_bytes as usize / 2 / record(payload, 0, 0).stored_len();
        let start = Instant::now();
        for n in 0..BEFORE + APPENDS {
            let due = start + period.unwrap_or_default() * n as u32;
            while Instant::now() < due {
                spin_loop();
            }
            let now = clock::now();
            let record = record(payload, now.realtime_ns, now.boottime_ns);
            let append = || trail.append(black_box(&record));
            let ticket = if n < BEFORE { append()? } else { times.of(append)? };
            if period.is_none() && n % half == half - 1 {
                ticket.wait_durable()?;
            }
        }
        let waits = trail.close()?.ring.waits;
        ensure!(waits == 0, "the ring had no room {waits} times");
        fs::remove_dir_all(&dir)?;
        Ok(times)
    }

    pub(crate) fn append(&self, bytes: usize, rate: u64, generator_cpu: usize) -> Result<()> {
        ensure!((1..=1_000_000_000).contains(&rate), "a rate is from 1 to 1000000000");
        let payload = payload(bytes);
        let period = Duration::from_nanos(1_000_000_000 / rate);
        let mut figures: [[Vec<f64>; AT.len()]; CASES.len()] = Default::default();
        for _ in 0..self.rounds {
            let mut clock = Times::new(0);
            (0..APPENDS).for_each(|_| clock.of(|| ()));
            let clock = clock.percentiles();
            let times = || Times::new(clock[0]);
            let rows = [
                clock,
                ring(&payload, times())?.percentiles(),
                self.trail(&payload, Some(period), generator_cpu, times())?.percentiles(),
                self.trail(&payload, None, generator_cpu, times())?.percentiles(),
            ];
            for (columns, row) in figures.iter_mut().zip(rows) {
                columns.iter_mut().zip(row).for_each(|(column, ns)| column.push(ns as f64));
            }
        }
        println!("one append, one producer, {bytes} bytes; paced: {rate} a second");
        for (case, columns) in CASES.iter().zip(&figures) {
            for ((at, _), column) in AT.iter().zip(columns) {
                print(&format!("{case}: {at}"), column, "ns");
            }
        }
        Ok(())
    }
}
