//! Benchmarks of Graven beside its peers. Every figure is the median over rounds; in each round
//! Graven and its peer run one after the other on the same filesystem, so that their ratio holds
//! while the machine's speed drifts.

use anyhow::Result;
use clap::{Parser, Subcommand};
use graven_writer::Options;
use graven_writer::disk::DiskChoice;
use graven_writer::source::kaudit::Options as Attach;
use std::path::PathBuf;

mod append;
mod disk;
mod fio;
mod kernel;
mod loss;
mod netlink;
mod prove;
mod slow;
mod stats;

#[derive(Debug, Parser)]
#[command(about = "Benchmarks of Graven beside its peers, interleaved in one run")]
struct Cli {
    /// Directory on the filesystem to measure; a fresh one is made in it and removed.
    #[arg(long, default_value = ".", global = true)]
    dir: PathBuf,
    /// Rounds; the median of each figure is printed.
    #[arg(long, default_value_t = 5, global = true)]
    rounds: usize,
    /// Whether segments are zeroed ahead of use; by default as the writer chooses.
    #[arg(long, global = true)]
    zero_ahead: Option<bool>,
    /// Frames in flight at most.
    #[arg(long, default_value_t = graven_writer::IN_FLIGHT_DEFAULT, global = true)]
    in_flight: usize,
    /// Use pwrite and fdatasync instead of io_uring.
    #[arg(long, global = true)]
    sync: bool,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Records per second with producers that never pause, beside fio's 256 KiB writes, four in
    /// flight, each with a barrier.
    Saturation {
        /// Bytes of a record's payload.
        #[arg(long, default_value_t = 300)]
        bytes: usize,
        /// Producer threads.
        #[arg(long, default_value_t = 2)]
        producers: usize,
        /// Seconds of each run.
        #[arg(long, default_value_t = 4)]
        seconds: u64,
        /// Run also without checkpoints and keys in each round, for the ratio.
        #[arg(long)]
        no_checkpoints: bool,
    },
    /// Latency from the moment a record is due to its barrier, beside fio's 4 KiB writes, one in
    /// flight, each with a barrier.
    Latency {
        /// Records per second.
        #[arg(long, default_value_t = 100_000)]
        rate: u64,
        /// Bytes of a record's payload.
        #[arg(long, default_value_t = 300)]
        bytes: usize,
        /// Seconds of each run.
        #[arg(long, default_value_t = 4)]
        seconds: u64,
        /// Processor that the generator has for itself: one that does not serve the disk's
        /// interrupts, see /proc/interrupts.
        #[arg(long, default_value_t = 0)]
        generator_cpu: usize,
    },
    /// What one append costs the thread that makes it, while the ring has room: percentiles of single calls, into the
    /// ring alone and into a trail whose engine and disk work.
    Append {
        /// Bytes of a record's payload.
        #[arg(long, default_value_t = 256)]
        bytes: usize,
        /// Records per second where they are paced.
        #[arg(long, default_value_t = 100_000)]
        rate: u64,
        /// Processor that the appending thread has for itself, as in `latency`.
        #[arg(long, default_value_t = 0)]
        generator_cpu: usize,
    },
    /// Events per second of the kernel's audit through netlink, beside a receiver that discards and
    /// beside auditd. Needs root and a machine without an audit daemon.
    Netlink {
        /// Seconds of each storm.
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// Graven alone, for a profiler.
        #[arg(long)]
        only_graven: bool,
        /// Memory in which the kernel leaves records for Graven; 0 to receive each.
        #[arg(long, default_value_t = 4 << 20)]
        mapped_bytes: usize,
    },
    /// The producer of `netlink`.
    #[command(hide = true)]
    Storm {
        /// How long.
        #[arg(long)]
        seconds: f64,
    },
    /// Events that are in the log or trail, of those that were made, while a daemon is stopped, killed or ended, and while
    /// its disk stalls or is full: beside auditd. Needs root and a machine without an audit daemon.
    Loss {
        /// Only this case.
        #[arg(long)]
        case: Option<loss::Case>,
    },
    /// Two producers for a long time: that nothing is lost, and memory before and after. Needs what `loss` needs.
    Soak {
        /// Events per second: half of what `netlink` says.
        #[arg(long, default_value_t = 30_000)]
        rate: u64,
        /// How long.
        #[arg(long, default_value_t = 20.0)]
        minutes: f64,
    },
    /// The producer of `loss`: `openat` at a rate; prints how many, and the median nanoseconds of one.
    #[command(hide = true)]
    Paced {
        /// Events per second.
        #[arg(long)]
        rate: u64,
        /// How long.
        #[arg(long)]
        seconds: f64,
    },
    /// Records of audit text per second with and without compressing on the way to the disk, in a
    /// control group whose writes are limited. Needs root, unless nothing is limited.
    SlowDisk {
        /// Bytes that the disk takes in a second; 0 for as many as it does.
        #[arg(long, default_value_t = 50_000_000)]
        limit: u64,
        /// A log of auditd's to replay; made up by default.
        #[arg(long)]
        log: Option<PathBuf>,
        /// Seconds of each run.
        #[arg(long, default_value_t = 6)]
        seconds: u64,
    },
    /// Bytes by which the trail grows for each record at ten records a second.
    Growth,
    /// Memory after ten million records, beside what was fixed at start.
    Memory {
        /// Records.
        #[arg(long, default_value_t = 10_000_000)]
        records: u64,
    },
    /// Time of `graven prove`, and of opening for append, in a trail of many small records. It is made once and stays
    /// in the directory.
    Prove {
        /// Records; a hundred million take 5 GB.
        #[arg(long, default_value_t = 100_000_000)]
        records: u64,
    },
    /// Time to open a large trail after a crash.
    Open {
        /// Size of the trail in MiB.
        #[arg(long, default_value_t = 10 * 1024)]
        mib: u64,
    },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.bench {
        Bench::Storm { seconds } => return Ok(graven_tools::bench::audit::openat(seconds)?),
        Bench::Paced { rate, seconds } => return loss::paced(rate, seconds),
        _ => {}
    }
    let dir = tempfile::Builder::new().prefix("graven-bench-").tempdir_in(&cli.dir)?;
    let options = Options {
        zero_ahead: cli.zero_ahead,
        in_flight_max: cli.in_flight,
        disk: if cli.sync { DiskChoice::Sync } else { DiskChoice::Auto },
        ..Options::default()
    };
    let bench = disk::Bench { dir: dir.path(), rounds: cli.rounds, options };
    match cli.bench {
        Bench::Saturation { bytes, producers, seconds, no_checkpoints } => {
            bench.saturation(bytes, producers, seconds, no_checkpoints)
        }
        Bench::Latency { rate, bytes, seconds, generator_cpu } => {
            bench.latency(disk::Load { rate, bytes, seconds, generator_cpu })
        }
        Bench::Append { bytes, rate, generator_cpu } => bench.append(bytes, rate, generator_cpu),
        Bench::Netlink { seconds, only_graven, mapped_bytes } => {
            let attach = Attach { mapped_bytes, ..Attach::default() };
            let rounds = cli.rounds;
            netlink::netlink(bench.dir, rounds, seconds, only_graven, &attach, &bench.options)
        }
        Bench::Loss { case } => loss::loss(bench.dir, cli.rounds, case),
        Bench::Soak { rate, minutes } => loss::soak(bench.dir, rate, minutes),
        Bench::Storm { .. } | Bench::Paced { .. } => Ok(()),
        Bench::SlowDisk { limit, log, seconds } => {
            bench.slow_disk((limit > 0).then_some(limit), log.as_deref(), seconds)
        }
        Bench::Growth => bench.growth(),
        Bench::Memory { records } => bench.memory(records),
        Bench::Prove { records } => prove::prove(&cli.dir, cli.rounds, records, &bench.options),
        Bench::Open { mib } => bench.open(mib),
    }
}
