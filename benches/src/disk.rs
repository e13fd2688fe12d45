//! The writer on the real disk.

use crate::fio::{dsync_one_by_one, dsync_overwrite};
use crate::stats::{open_loop, print};
use anyhow::{Context, Result, ensure};
use graven_format::{Flags, Record, Source};
use graven_writer::keys::KeyOption;
use graven_writer::{Options, Summary, Trail, clock};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) fn record(bytes: &[u8], realtime_ns: u64, boottime_ns: u64) -> Record<'_> {
    let (source, kind, flags, source_seq) = (Source::Socket, 0, Flags::NONE, 0);
    Record { source, kind, flags, realtime_ns, boottime_ns, source_seq, bytes }
}

/// What every benchmark of the writer has in common.
pub(crate) struct Bench<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) rounds: usize,
    pub(crate) options: Options,
}

/// An open-loop load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Records per second.
    pub(crate) rate: u64,
    pub(crate) bytes: usize,
    pub(crate) seconds: u64,
    /// The processor that the generator has for itself.
    pub(crate) generator_cpu: usize,
}

/// Payload that looks like audit text; its content does not matter to the writer.
pub(crate) fn payload(bytes: usize) -> Vec<u8> {
    let text = b"arch=c000003e syscall=257 success=yes exit=3 a0=ffffff9c a1=7ffd2 items=1 ppid=1 ";
    text.iter().copied().cycle().take(bytes).collect()
}

/// Resident bytes of this process.
fn resident_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).context("no VmRSS value")?.parse()?;
    Ok(kib * 1024)
}

/// Processor seconds of this process so far, all threads, user and system.
fn cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // Fields 14 and 15, counted behind the name, in hundredths of a second (proc(5), USER_HZ).
    let fields = stat.rsplit_once(')').context("no name in /proc/self/stat")?.1;
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

/// A processor for the load generator alone. It spins, and the kernel completes barriers on the
/// processor that serves the disk's interrupts: if they shared one, the scheduler would be
/// measured instead of the writer.
pub(crate) struct Apart {
    all: CpuSet,
    own: Option<CpuSet>,
}

impl Apart {
    /// Leaves all processors but `own` to the threads that the caller starts next.
    pub(crate) fn new(own: usize) -> Result<Self> {
        let all = sched_getaffinity(None)?;
        let mut others = all;
        ensure!(own < CpuSet::MAX_CPU && all.is_set(own), "there is no processor {own} here");
        others.unset(own);
        if others.count() == 0 {
            return Ok(Self { all, own: None });
        }
        sched_setaffinity(None, &others)?;
        let mut only = CpuSet::new();
        only.set(own);
        Ok(Self { all, own: Some(only) })
    }

    /// Moves the calling thread, the generator, to its processor.
    pub(crate) fn enter(&self) -> Result<()> {
        Ok(sched_setaffinity(None, self.own.as_ref().unwrap_or(&self.all))?)
    }

    /// Lets others run if there is no other processor.
    fn pause(&self) {
        if self.own.is_none() {
            std::thread::yield_now();
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // Only this process is concerned, and only its next figures.
        let _ = sched_setaffinity(None, &self.all);
    }
}

/// Milliseconds in each second, in pieces of more than half a millisecond, in which the machine lets a
/// thread run on fewer processors than it has: what others run on them, or the hypervisor takes.
/// Whatever is due meanwhile is late by as much, whoever writes it.
fn machine_pauses() -> f64 {
    const PROBE: Duration = Duration::from_secs(3);
    const PAUSE: Duration = Duration::from_micros(500);
    fn spin() -> Duration {
        let start = Instant::now();
        let (mut last, mut paused) = (start, Duration::ZERO);
        while last - start < PROBE {
            let now = Instant::now();
            if now - last > PAUSE {
                paused += now - last;
            }
            last = now;
        }
        paused
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let paused: Duration = std::thread::scope(|scope| {
        let spinning: Vec<_> = (0..processors).map(|_| scope.spawn(spin)).collect();
        spinning.into_iter().filter_map(|spinner| spinner.join().ok()).sum()
    });
    paused.as_secs_f64() * 1e3 / PROBE.as_secs_f64()
}

/// Lets the device finish what earlier runs left to it, so that no run pays for another.
fn settle() {
    rustix::fs::sync();
    std::thread::sleep(Duration::from_secs(1));
}

impl Bench<'_> {
    /// One run at full speed; returns durable records per second, and processor seconds a record.
    fn saturate(
        &self,
        (dir, options): (&Path, &Options),
        bytes: usize,
        producers: usize,
        seconds: u64,
    ) -> Result<(f64, f64)> {
        let trail = Trail::open(dir, options)?;
        let payload = payload(bytes);
        let cpu_start = cpu_seconds()?;
        let start = Instant::now();
        let until = start + Duration::from_secs(seconds);
        std::thread::scope(|scope| {
            for _ in 0..producers {
                scope.spawn(|| {
                    while Instant::now() < until {
                        let now = clock::now();
                        for _ in 0..64 {
                            let record = record(&payload, now.realtime_ns, now.boottime_ns);
                            if trail.append(&record).is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        let accepted = trail.ring().next_seq;
        let durable = trail.watermark().wait_past(accepted - 1)?;
        let rate = durable as f64 / start.elapsed().as_secs_f64();
        trail.close()?;
        Ok((rate, (cpu_seconds()? - cpu_start) / durable as f64))
    }

    /// `both` also runs without checkpoints in each round, before or behind in turn.
    pub(crate) fn saturation(
        &self,
        bytes: usize,
        producers: usize,
        seconds: u64,
        both: bool,
    ) -> Result<()> {
        let [mut rates, mut costs, mut fios, mut ratios] = [const { Vec::new() }; 4];
        let [mut unsigned_rates, mut kept_rates, mut kept_costs] = [const { Vec::new() }; 3];
        let unsigned = Options { key: KeyOption::Unsigned, ..self.options.clone() };
        let trail = self.dir.join("trail");
        let saturate = |options: &Options| {
            settle();
            let measured = self.saturate((&trail, options), bytes, producers, seconds)?;
            fs::remove_dir_all(&trail)?;
            anyhow::Ok(measured)
        };
        for round in 0..self.rounds {
            let first = if both && round % 2 == 1 { Some(saturate(&unsigned)?) } else { None };
            let (rate, cost) = saturate(&self.options)?;
            let other = if both && first.is_none() { Some(saturate(&unsigned)?) } else { first };
            if let Some((unsigned_rate, unsigned_cost)) = other {
                unsigned_rates.push(unsigned_rate / 1e6);
                kept_rates.push(rate / unsigned_rate);
                kept_costs.push(cost / unsigned_cost);
            }
            let fio = dsync_overwrite(self.dir, 256, 4, seconds)?;
            rates.push(rate / 1e6);
            costs.push(cost * 1e9);
            fios.push(fio.bytes_per_s / 1e9);
            ratios.push(rate * bytes as f64 / fio.bytes_per_s);
        }
        println!(
            "saturation: {producers} producers, {bytes}-byte records, CRC, Merkle and checkpoints on"
        );
        print("durable records", &rates, "M/s");
        print("processor time a record, all threads", &costs, "ns");
        print("fio 256 KiB dsync, 4 in flight", &fios, "GB/s");
        print("payload bandwidth over fio's", &ratios, "");
        if both {
            print("without checkpoints", &unsigned_rates, "M/s");
            print("rate over that without checkpoints", &kept_rates, "");
            print("processor time a record over that without", &kept_costs, "");
        }
        Ok(())
    }

    /// One open-loop run: each record carries the time it was due, so that a late generator or a
    /// stalled disk counts against every record that waited for it.
    fn pace(&self, dir: &Path, load: Load) -> Result<Summary> {
        let Load { rate, bytes, seconds, generator_cpu } = load;
        let cpus = Apart::new(generator_cpu)?;
        let trail = Trail::open(dir, &self.options)?;
        cpus.enter()?;
        settle();
        let payload = payload(bytes);
        let start_ns = clock::now().boottime_ns;
        let total = rate * seconds;
        let mut sent = 0;
        while sent < total {
            let now = clock::now();
            let due = (now.boottime_ns - start_ns) as u128 * u128::from(rate) / 1_000_000_000;
            // Record n is due n periods after the start: the first one at once.
            let due = u64::try_from(due).unwrap_or(u64::MAX).saturating_add(1).min(total);
            while sent < due {
                let due_ns = start_ns + sent * 1_000_000_000 / rate;
                trail.append(&record(&payload, now.realtime_ns, due_ns))?;
                sent += 1;
            }
            cpus.pause();
        }
        Ok(trail.close()?)
    }

    pub(crate) fn latency(&self, load: Load) -> Result<()> {
        const FIGURES: [(&str, &str); 13] = [
            ("p50", "µs"),
            ("p99", "µs"),
            ("p99.9", "µs"),
            ("fio 4 KiB dsync p50", "µs"),
            ("fio 4 KiB dsync p99", "µs"),
            ("open loop over fio's writes p50", "µs"),
            ("open loop over fio's writes p99", "µs"),
            ("p50 over fio's", ""),
            ("p99 over fio's", ""),
            ("p50 over the open loop's", ""),
            ("p99 over the open loop's", ""),
            ("frame bytes a record", "bytes"),
            ("the machine's own pauses a second", "ms"),
        ];
        let mut figures: [Vec<f64>; FIGURES.len()] = Default::default();
        for _ in 0..self.rounds {
            let trail = self.dir.join("trail");
            let summary = self.pace(&trail, load)?;
            fs::remove_dir_all(&trail)?;
            settle();
            let (fio, times_ns) = dsync_one_by_one(self.dir, load.seconds)?;
            let (loop_p50, loop_p99) = open_loop(&times_ns, load.rate);
            let at = |q: f64| summary.totals.latency.value_at_quantile(q) as f64 / 1e3;
            let (p50, p99) = (at(0.5), at(0.99));
            let row = [
                p50,
                p99,
                at(0.999),
                fio.p50_us,
                fio.p99_us,
                loop_p50,
                loop_p99,
                p50 / fio.p50_us,
                p99 / fio.p99_us,
                p50 / loop_p50,
                p99 / loop_p99,
                summary.totals.frame_bytes as f64 / summary.totals.records as f64,
                machine_pauses(),
            ];
            for (column, value) in figures.iter_mut().zip(row) {
                column.push(value);
            }
        }
        println!("latency from due time: {} records/s, {} bytes", load.rate, load.bytes);
        for ((name, unit), column) in FIGURES.iter().zip(&figures) {
            print(name, column, unit);
        }
        Ok(())
    }

    pub(crate) fn growth(&self) -> Result<()> {
        let trail = Trail::open(&self.dir.join("trail"), &self.options)?;
        let payload = payload(300);
        for _ in 0..50 {
            let now = clock::now();
            trail.append(&record(&payload, now.realtime_ns, now.boottime_ns))?;
            std::thread::sleep(Duration::from_millis(100));
        }
        let align = trail.opened().disk.geometry.align_bytes;
        let totals = trail.close()?.totals;
        println!("growth at 10 records/s of 300 bytes, frames aligned to {align} bytes");
        print(
            "frame bytes a record",
            &[totals.frame_bytes as f64 / totals.records as f64],
            "bytes",
        );
        Ok(())
    }

    pub(crate) fn memory(&self, records: u64) -> Result<()> {
        let options = self.options.clone();
        let trail = Trail::open(&self.dir.join("trail"), &options)?;
        let mib = |bytes: u64| bytes as f64 / 1048576.0;
        let start = resident_bytes()?;
        let payload = payload(300);
        for _ in 0..records {
            let now = clock::now();
            trail.append(&record(&payload, now.realtime_ns, now.boottime_ns))?;
        }
        let end = resident_bytes()?;
        trail.close()?;
        println!("memory over {records} records of 300 bytes");
        print("stated for ring and hashes", &[mib(options.memory_bytes())], "MiB");
        print("resident after opening", &[mib(start)], "MiB");
        print("resident after the last record", &[mib(end)], "MiB");
        print("last over stated", &[end as f64 / options.memory_bytes() as f64], "");
        Ok(())
    }

    pub(crate) fn open(&self, mib: u64) -> Result<()> {
        let path = self.dir.join("trail");
        let trail = Trail::open(&path, &self.options)?;
        let payload = payload(300);
        let records = mib * 1048576 / 332;
        for _ in 0..records {
            let now = clock::now();
            trail.append(&record(&payload, now.realtime_ns, now.boottime_ns))?;
        }
        trail.close()?;
        let mut times = Vec::new();
        let mut label = "";
        for _ in 0..self.rounds {
            self.crash_the_end(&path)?;
            let start = Instant::now();
            let trail = Trail::open(&path, &self.options)?;
            times.push(start.elapsed().as_secs_f64());
            label =
                trail.opened().recovered.steps.first().map_or("sealed", |step| step.label.name());
            let now = clock::now();
            trail.append(&record(&payload, now.realtime_ns, now.boottime_ns))?;
            trail.close()?;
        }
        println!(
            "open of a trail of {mib} MiB whose last segment is {label}, first segment zeroed"
        );
        print("open", &times, "s");
        Ok(())
    }

    /// Puts a full segment at the end of the trail into the state that a kill leaves: no trailer.
    fn crash_the_end(&self, path: &Path) -> Result<()> {
        let trail = Trail::open(path, &self.options)?;
        let payload = payload(300);
        for _ in 0..150_000 {
            let now = clock::now();
            trail.append(&record(&payload, now.realtime_ns, now.boottime_ns))?;
        }
        trail.close()?;
        let mut names: Vec<_> = fs::read_dir(path)?
            .map(|entry| Ok(entry?.path()))
            .filter(|path| {
                path.as_ref().is_ok_and(|path| path.extension().is_some_and(|e| e == "seg"))
            })
            .collect::<std::io::Result<_>>()?;
        names.sort();
        let last = names.last().context("a trail has a segment")?;
        let file = fs::OpenOptions::new().write(true).open(last)?;
        let len = file.metadata()?.len();
        // Cut the trailer off and give the file its full size back: frames, then zeros.
        file.set_len(len.saturating_sub(64 * 1024))?;
        file.set_len(self.options.segment_bytes)?;
        Ok(())
    }
}
