//! `graven bench`.

mod compare;
mod seeds;

use crate::bench::appender::Discipline;
use crate::bench::arrivals::Arrivals;
use crate::bench::audit::openat;
use crate::bench::device::Service;
use crate::bench::experiment::{self, Failed, Plan, Progress, Rates};
use crate::bench::report::Report;
use crate::bench::seeds::workload::{self, Work};
use crate::bench::workload::Sizes;
use crate::bench::{export, figures, table, units};
use crate::diag::Diagnostic;
use crate::escape;
use crate::exit::Exit;
use crate::output;
use graven_writer::Options;
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

pub use compare::Compare;

/// What is measured.
#[derive(Debug, clap::Subcommand)]
pub enum Bench {
    /// How long records wait until they are durable, under a load that does not wait for them
    Queue(Box<Queue>),
    /// The same workload through what else is installed: auditd, databases, loggers
    Compare(Box<Compare>),
    /// The producer of a storm, for `compare`
    #[command(hide = true)]
    Openat {
        /// How long
        #[arg(long)]
        seconds: f64,
    },
    /// What system calls and a build cost under kernel audit, beside the figures of March 2004
    Seeds(seeds::Seeds),
    /// The process that `seeds` measures
    #[command(hide = true)]
    Work(Work),
}

/// What every benchmark is told.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// A directory on the filesystem to measure; one is made in it and removed
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Write everything as one JSON object
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Arguments of `graven bench queue`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Queue {
    /// Where, and into which file.
    #[command(flatten)]
    pub common: Common,
    /// Disciplines side by side: graven, sync, timer:INTERVAL, greedy:DEPTH, drop:RECORDS, block:RECORDS
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        default_value = "graven,sync,timer:2ms,greedy:1,greedy:4,drop:8192,block:8192"
    )]
    pub discipline: Vec<Discipline>,
    /// Loads, as shares of each discipline's saturation, which is measured first
    #[arg(long, value_name = "SHARE,...", value_delimiter = ',', default_value = "0.1,0.3,0.5,0.7,0.9",
          value_parser = share)]
    pub load: Vec<f64>,
    /// Take loads as shares of this discipline's saturation, so that all get the very same arrivals
    #[arg(long, value_name = "NAME")]
    pub load_of: Option<Discipline>,
    /// Records a second in place of loads: all disciplines get the very same arrivals
    #[arg(long, value_name = "RATE,...", value_delimiter = ',', value_parser = rate, conflicts_with_all = ["load", "load_of"])]
    pub rate: Vec<f64>,
    /// When records are due: constant, poisson, onoff:ON:OFF:FACTOR, mmpp:ON:OFF:FACTOR, replay:DIR
    ///
    /// onoff and mmpp are Poisson with FACTOR times the mean rate for ON and what is left for OFF, in turn: exactly so long, or
    /// in the mean. replay takes the distances between a trail's records, scaled to each rate.
    #[arg(long, value_name = "PROCESS", default_value = "poisson")]
    pub arrivals: Arrivals,
    /// Bytes of a record, or trail:DIR for the sizes of a trail's records
    #[arg(long, value_name = "BYTES", default_value = "300")]
    pub size: Sizes,
    /// Who serves: disk, throttled:TIME, model:fixed:TIME, model:exp:TIME
    ///
    /// throttled adds so much to each write. A model writes nothing and sleeps as long as its distribution says; writes in flight
    /// together sleep side by side.
    #[arg(long, value_name = "SERVER", default_value = "disk")]
    pub service: Service,
    /// Threads that produce, to which records are dealt in turn
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub producers: u16,
    /// Threads beside them that never pause, and are not measured: what a greedy producer does to the others
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=64))]
    pub hogs: u16,
    /// The processor that a single producer has for itself: one that does not serve the disk's interrupts
    #[arg(long, value_name = "CPU", default_value_t = 0)]
    pub producer_cpu: usize,
    /// How long each run counts
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = units::duration)]
    pub seconds: Duration,
    /// How long each run goes on before it counts
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = units::duration)]
    pub warm_up: Duration,
    /// Runs of each discipline at each load
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub repetitions: u16,
    /// Seed of the first repetition; each later one takes the next
    #[arg(long, value_name = "N", default_value_t = 2004)]
    pub seed: u64,
    /// Memory of Graven's ring in bytes
    #[arg(long, value_name = "BYTES", default_value_t = graven_writer::RING_BYTES_DEFAULT)]
    pub ring_bytes: u64,
    /// Write a line a point
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write one page with all charts, which needs nothing else
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write each chart into this directory, which is made
    #[arg(long, value_name = "DIR")]
    pub svg: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Each record is offered when it is due, whatever became of the ones before it, and its latency counts from that moment to its \
barrier. `graven` is the writer itself with its checkpoints and keys; the others are reference appenders on the same filesystem: \
sync writes each record and waits for fdatasync; timer writes what has come once each interval; greedy has DEPTH threads that write what \
waits as soon as they are free; block and drop have a queue of so many records before one such thread, and make producers wait or \
lose records when it is full.

With the defaults it takes less than two minutes. The directory of the runs is removed at the end, on SIGINT, SIGTERM and \
SIGHUP too. See docs/queueing.md for what the figures say.

Exit codes:
  0    measured, and everything that was asked for is written
  2    usage, I/O, no room, or a trail to take sizes or times from cannot be read
  130, 143, 129   interrupted by SIGINT, SIGTERM or SIGHUP

Examples:
  graven bench queue --html queue.html
  graven bench queue --discipline graven,drop,block --load-of graven --load 0.3 --arrivals onoff:100ms:1900ms:10 --seconds 4s
  graven bench queue --discipline sync --service model:exp:200us --load 0.3,0.6,0.9 --seconds 5s
  graven bench queue --discipline graven --rate 4000 --producers 4 --hogs 1
  graven bench queue --arrivals replay:/var/lib/graven/trail --size trail:/var/lib/graven/trail --rate 5000";

fn share(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|it| (0.001..=10.0).contains(it));
    value.ok_or_else(|| format!("`{text}` is no share from 0.001 to 10"))
}

fn rate(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|it| (1.0..=1e8).contains(it));
    value.ok_or_else(|| format!("`{text}` is no number of records a second from 1 to 100000000"))
}

/// Measures and writes what was asked for.
#[must_use]
pub fn run(bench: &Bench) -> Exit {
    let done = match bench {
        Bench::Queue(args) => queue(args),
        Bench::Compare(args) => compare::run(args),
        Bench::Openat { seconds } => openat(*seconds)
            .map(|()| Exit::Success)
            .map_err(|why| Diagnostic::error(format!("the storm: {why}"))),
        Bench::Seeds(args) => seeds::run(args),
        Bench::Work(args) => workload::work(args)
            .map(|()| Exit::Success)
            .map_err(|why| Diagnostic::error(why.to_string())),
    };
    done.unwrap_or_else(|diagnostic| {
        diagnostic.emit();
        Exit::CannotCheck
    })
}

fn queue(args: &Queue) -> Result<Exit, Diagnostic> {
    let plan = plan(args)?;
    let report = watched(|stop, progress| experiment::run(&plan, stop, progress))?;
    write_files(args, &report)?;
    let mut out = BufWriter::new(anstream::stdout().lock());
    let written = table::write(&report, &mut out).and_then(|()| out.flush());
    Ok(output::ended(written, Exit::Success))
}

/// Does something long with a bar, which SIGINT, SIGTERM and SIGHUP end early: then this process ends by that signal.
fn watched<T>(
    work: impl FnOnce(&AtomicBool, Progress<'_>) -> Result<T, Failed>,
) -> Result<T, Diagnostic> {
    let stop = Arc::new(AtomicBool::new(false));
    let signal = Arc::new(AtomicUsize::new(0));
    for number in [SIGINT, SIGTERM, SIGHUP] {
        let registered =
            signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)
                .and_then(|_| signal_hook::flag::register(number, Arc::clone(&stop)));
        registered.map_err(|why| Diagnostic::error(format!("cannot watch for signals: {why}")))?;
    }
    let bar = bar();
    let progress = |done: usize, total: usize, what: &str| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        bar.set_message(what.to_owned());
    };
    let done = work(&stop, &progress);
    bar.finish_and_clear();
    match done {
        Ok(done) => Ok(done),
        Err(Failed::With(diagnostic)) => Err(diagnostic),
        Err(Failed::Stopped) => {
            let interrupted = Diagnostic::error(
                "interrupted: nothing was written, and the directory of the runs is removed",
            );
            interrupted.emit();
            // Whoever waits for this process learns how it ended.
            let number = signal.load(Ordering::Relaxed) as i32;
            let _ = signal_hook::low_level::emulate_default_handler(number);
            Err(interrupted)
        }
    }
}

fn plan(args: &Queue) -> Result<Plan, Diagnostic> {
    let mut disciplines: Vec<Discipline> = Vec::new();
    for it in &args.discipline {
        if disciplines.contains(it) {
            return Err(Diagnostic::error(format!("the discipline {it} is there twice"))
                .help("name each once"));
        }
        disciplines.push(*it);
    }
    if let Some(of) = args.load_of.filter(|of| !disciplines.contains(of)) {
        let text = format!("loads cannot be shares of {of}: it is not measured");
        return Err(Diagnostic::error(text).help(format!("add {of} to --discipline")));
    }
    let rates = match args.rate[..] {
        [] => Rates::Loads(args.load.clone(), args.load_of),
        ref rates => Rates::Given(rates.to_vec()),
    };
    Ok(Plan {
        dir: args.common.dir.clone(),
        disciplines,
        rates,
        arrivals: args.arrivals.clone(),
        sizes: args.size.clone(),
        service: args.service,
        producers: args.producers.into(),
        producer_cpu: args.producer_cpu,
        hogs: args.hogs.into(),
        warm_up: args.warm_up,
        seconds: args.seconds,
        repetitions: args.repetitions.into(),
        seed: args.seed,
        options: Options { ring_bytes: args.ring_bytes, ..Options::default() },
    })
}

/// On a terminal; it is painted between runs, never in one.
fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(1);
    if let Ok(style) = ProgressStyle::with_template("bench {bar:30} {pos}/{len} {eta} {msg}") {
        bar.set_style(style);
    }
    bar
}

fn write_files(args: &Queue, report: &Report) -> Result<(), Diagnostic> {
    write_file(args.common.json.as_deref(), |out| output::json_line(out, report))?;
    write_file(args.csv.as_deref(), |out| export::csv(report, out))?;
    write_file(args.html.as_deref(), |out| export::html(report, out))?;
    if let Some(dir) = &args.svg {
        std::fs::create_dir_all(dir).map_err(|why| failed("make", dir, &why))?;
        for chart in figures::charts(report) {
            let path = dir.join(format!("{}.svg", chart.name));
            write_file(Some(&path), |out| out.write_all(chart.svg(true).as_bytes()))?;
        }
    }
    Ok(())
}

fn write_file(
    path: Option<&Path>,
    write: impl Fn(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Diagnostic> {
    let Some(path) = path else { return Ok(()) };
    let written = File::create(path).and_then(|file| {
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        out.flush()
    });
    written.map_err(|why| failed("write", path, &why))
}

fn failed(operation: &str, path: &Path, why: &io::Error) -> Diagnostic {
    Diagnostic::error(format!("cannot {operation} a file: {why}"))
        .at(escape::path(path))
        .help("name a place that this user may write to")
}
