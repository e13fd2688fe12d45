//! A slow disk: what compressing on the way to it gives.

use crate::disk::Bench;
use crate::stats::{median, print};
use anyhow::{Context, Result, ensure};
use graven_format::{Flags, Record, Source};
use graven_workloads::text;
use graven_writer::{Compress, Options, Trail, clock};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Audit text, one line a record without the type in front.
pub(crate) struct Text(Vec<Vec<u8>>);

impl Text {
    /// The lines of a log of auditd's, or events made up.
    pub(crate) fn new(log: Option<&Path>) -> Result<Self> {
        let Some(path) = log else {
            return Ok(Self(text::events(40_000).into_iter().map(|line| line.text).collect()));
        };
        let log = fs::read(path).with_context(|| path.display().to_string())?;
        let message = |line: &[u8]| {
            let at = line.windows(4).position(|word| word == b"msg=").map_or(0, |at| at + 4);
            line[at..].to_vec()
        };
        let lines: Vec<_> = log.split(|byte| *byte == b'\n').map(message).collect();
        ensure!(lines.len() > 1, "{} holds no lines", path.display());
        Ok(Self(lines))
    }

    /// Mean bytes of a line.
    fn mean_bytes(&self) -> f64 {
        self.0.iter().map(Vec::len).sum::<usize>() as f64 / self.0.len() as f64
    }
}

/// This process in a control group whose writes to the device are limited; on drop it is back.
struct Limited {
    group: PathBuf,
    parent: PathBuf,
}

impl Limited {
    fn new(dir: &Path, bytes_per_s: u64) -> Result<Self> {
        let device = whole_device(fs::metadata(dir)?.dev())?;
        let v1 = Path::new("/sys/fs/cgroup/blkio");
        let (root, file, limit) = if v1.is_dir() {
            (v1, "blkio.throttle.write_bps_device", format!("{device} {bytes_per_s}"))
        } else {
            (Path::new("/sys/fs/cgroup"), "io.max", format!("{device} wbps={bytes_per_s}"))
        };
        let group = root.join(format!("graven-bench-{}", std::process::id()));
        fs::create_dir(&group).context("a control group, which needs root")?;
        let limited = Self { group, parent: root.to_owned() };
        fs::write(limited.group.join(file), limit).context("the limit of the control group")?;
        fs::write(limited.group.join("cgroup.procs"), std::process::id().to_string())?;
        Ok(limited)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // What cannot be put back is gone with this process.
        let _ = fs::write(self.parent.join("cgroup.procs"), std::process::id().to_string());
        for _ in 0..100 {
            if fs::remove_dir(&self.group).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} could not be removed", self.group.display());
    }
}

/// Number of the disk that the device is a part of, as control groups want it.
fn whole_device(dev: u64) -> Result<String> {
    let number = format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
    let sys = fs::canonicalize(format!("/sys/dev/block/{number}"))
        .with_context(|| format!("no block device {number}: a filesystem on a disk is needed"))?;
    if !sys.join("partition").exists() {
        return Ok(number);
    }
    let disk = sys.parent().context("a partition without a disk")?.join("dev");
    Ok(fs::read_to_string(disk)?.trim().to_owned())
}

/// What one run gave.
struct Ran {
    records_per_s: f64,
    frame_bytes_per_record: f64,
}

impl Bench<'_> {
    /// Producers that never pause, for so long; returns what became durable.
    fn replay(&self, compress: Compress, text: &Text, seconds: u64) -> Result<Ran> {
        let dir = self.dir.join("trail");
        let trail = Trail::open(&dir, &Options { compress, ..self.options.clone() })?;
        let start = Instant::now();
        let until = start + Duration::from_secs(seconds);
        std::thread::scope(|scope| {
            for producer in 0..2 {
                let trail = &trail;
                scope.spawn(move || {
                    let mut lines = text.0.iter().cycle().skip(producer * text.0.len() / 2);
                    while Instant::now() < until {
                        for line in lines.by_ref().take(64) {
                            let now = clock::now();
                            let record = Record {
                                source: Source::Netlink,
                                kind: 1300,
                                flags: Flags::NONE,
                                realtime_ns: now.realtime_ns,
                                boottime_ns: now.boottime_ns,
                                source_seq: 0,
                                bytes: line,
                            };
                            if trail.append(&record).is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        let durable = trail.durable() as f64;
        let records_per_s = durable / start.elapsed().as_secs_f64();
        let summary = trail.close()?;
        fs::remove_dir_all(&dir)?;
        let frame_bytes_per_record =
            summary.totals.frame_bytes as f64 / summary.totals.records as f64;
        Ok(Ran { records_per_s, frame_bytes_per_record })
    }

    /// Interleaves runs with and without compressing, limited to `limit` bytes a second if there is
    /// one.
    pub(crate) fn slow_disk(
        &self,
        limit: Option<u64>,
        log: Option<&Path>,
        seconds: u64,
    ) -> Result<()> {
        let text = Text::new(log)?;
        let _limited = limit.map(|limit| Limited::new(self.dir, limit)).transpose()?;
        let [mut never, mut auto, mut ratios, mut sizes] = [const { Vec::new() }; 4];
        for _ in 0..self.rounds {
            let without = self.replay(Compress::Never, &text, seconds)?;
            let with = self.replay(Compress::Auto, &text, seconds)?;
            never.push(without.records_per_s / 1e6);
            auto.push(with.records_per_s / 1e6);
            ratios.push(with.records_per_s / without.records_per_s);
            sizes.push(without.frame_bytes_per_record / with.frame_bytes_per_record);
        }
        let limit = limit.map_or("not limited".to_owned(), |limit| format!("{limit} bytes/s"));
        println!("slow disk: {limit}, audit text of {:.0} bytes a record", text.mean_bytes());
        print("durable records, never compressed", &never, "M/s");
        print("durable records, compressed when slow", &auto, "M/s");
        print("ratio of these", &ratios, "");
        println!("{:<44} {:>10.3}", "ratio of their medians", median(auto) / median(never));
        print("bytes written, raw over compressed", &sizes, "");
        Ok(())
    }
}
