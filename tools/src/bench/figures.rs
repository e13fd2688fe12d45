//! Which charts a report has.

use super::chart::{Axis, Chart, Scale, Series, Style};
use super::report::{Point, Regime, Report};

/// Latencies at the load nearest to this one come first.
const LOAD_SHOWN: f64 = 0.7;

/// All of them, in the order of the page.
#[must_use]
pub fn charts(report: &Report) -> Vec<Chart> {
    let mut charts = vec![throughput(report)];
    type Quantile = (&'static str, &'static str, fn(&Point) -> f64);
    let quantiles: [Quantile; 3] = [
        ("p50", "Median latency", |it| it.latency.p50_us),
        ("p99", "99th percentile of latency", |it| it.latency.p99_us),
        ("p999", "99.9th percentile of latency", |it| it.latency.p999_us),
    ];
    for (name, title, value) in quantiles {
        charts.push(by_load(
            report,
            &format!("{name}-load"),
            title,
            "from due to durable, µs",
            Scale::Log,
            value,
        ));
    }
    charts.push(wait(report));
    charts.push(by_load(
        report,
        "loss-load",
        "Records lost",
        "lost, % of what was due",
        Scale::Linear,
        |it| it.lost as f64 * 100.0 / it.offered.max(1) as f64,
    ));
    charts.push(by_load(
        report,
        "exposure-load",
        "Exposure window: age of the oldest record not durable, p99.99 over time",
        "exposure, µs",
        Scale::Log,
        |it| it.exposure.p9999_us,
    ));
    let groups = groups(report);
    charts.extend(groups.iter().map(|group| tail(group)));
    if let Some(group) = groups.last() {
        charts.push(depth(group));
    }
    charts
}

/// Points by load, the one that is looked at first in front.
fn groups(report: &Report) -> Vec<&[Point]> {
    let mut groups: Vec<&[Point]> = report.points.chunks(report.saturation.len().max(1)).collect();
    let distance = |group: &&[Point]| group.first().map_or(0.0, |it| (it.load - LOAD_SHOWN).abs());
    let nearest =
        (0..groups.len()).min_by(|a, b| distance(&groups[*a]).total_cmp(&distance(&groups[*b])));
    if let Some(nearest) = nearest {
        groups[..=nearest].rotate_right(1);
    }
    groups
}

/// One series a discipline.
fn series(
    report: &Report,
    style: Style,
    of: impl Fn(&Point) -> Option<(f64, f64, f64)>,
) -> Vec<Series> {
    let made = report.saturation.iter().enumerate().map(|(colour, it)| {
        let own = report.points.iter().filter(|point| point.discipline == it.discipline);
        Series { name: it.discipline.clone(), colour, style, points: own.filter_map(&of).collect() }
    });
    made.filter(|it| !it.points.is_empty()).collect()
}

const LOAD_LABEL: &str = "load: offered over the discipline's own saturation";

fn by_load(
    report: &Report,
    name: &str,
    title: &str,
    label: &str,
    scale: Scale,
    value: impl Fn(&Point) -> f64,
) -> Chart {
    let x = Axis::new(LOAD_LABEL, load_scale(report));
    let series = series(report, Style::Marked, |it| Some((it.load, value(it), 0.0)));
    Chart { name: name.to_owned(), title: title.to_owned(), x, y: Axis::new(label, scale), series }
}

/// Loads of disciplines that differ by orders of magnitude are spread.
fn load_scale(report: &Report) -> Scale {
    let most = report.points.iter().map(|it| it.load).fold(0.0, f64::max);
    if most > 3.0 { Scale::Log } else { Scale::Linear }
}

fn throughput(report: &Report) -> Chart {
    Chart {
        name: "throughput-latency".to_owned(),
        title: "Throughput and latency (99th percentile)".to_owned(),
        x: Axis::new("durable records a second", Scale::Log),
        y: Axis::new("from due to durable, p99, µs", Scale::Log),
        series: series(report, Style::Marked, |it| {
            Some((it.throughput.mean, it.latency.p99_us, 0.0))
        }),
    }
}

/// Measured with its interval, and what theory says.
fn wait(report: &Report) -> Chart {
    let measured = series(report, Style::Marked, |it| {
        let wait = it.wait.mean_us;
        it.theory.as_ref().map(|_| (it.load, wait.mean, wait.plus_minus.unwrap_or(0.0)))
    });
    let open = |it: &Point| matches!(it.regime, Regime::Open | Regime::Overlapping);
    let model = series(report, Style::Dashed, |it| {
        open(it).then(|| it.theory.as_ref()?.wait_us).flatten().map(|us| (it.load, us, 0.0))
    });
    let kingman = series(report, Style::Dashed, |it| {
        open(it).then(|| it.theory.as_ref()?.kingman_us).flatten().map(|us| (it.load, us, 0.0))
    });
    let mut all = measured;
    for mut it in model {
        it.name = format!("{}: model", it.name);
        all.push(it);
    }
    for mut it in kingman {
        it.name = format!("{}: Kingman", it.name);
        it.colour = 7;
        all.push(it);
    }
    Chart {
        name: "wait-model".to_owned(),
        title: "Mean wait, measured (with 95 % intervals) and predicted from the service times"
            .to_owned(),
        x: Axis::new(LOAD_LABEL, load_scale(report)),
        y: Axis::new("from due to the start of the write, mean, µs", Scale::Log),
        series: all,
    }
}

fn at_load(group: &[Point]) -> String {
    match group {
        [first, rest @ ..] if rest.iter().all(|it| (it.load / first.load - 1.0).abs() < 1e-6) => {
            format!("load {:.2}", first.load)
        }
        [first, ..] => format!("{:.0} records/s", first.rate),
        [] => String::new(),
    }
}

fn tail(group: &[Point]) -> Chart {
    let series = group.iter().enumerate().map(|(colour, it)| Series {
        name: it.discipline.clone(),
        colour,
        style: Style::Line,
        points: it.tail.iter().map(|(us, share)| (*us, *share, 0.0)).collect(),
    });
    let load = at_load(group);
    Chart {
        name: format!("latency-cdf-{}", load.replace([' ', '/'], "-")),
        title: format!("Latency at {load}"),
        x: Axis::new("from due to durable, µs", Scale::Log),
        y: Axis::new("percentile", Scale::Percentile),
        series: series.collect(),
    }
}

fn depth(group: &[Point]) -> Chart {
    let series = group.iter().enumerate().map(|(colour, it)| Series {
        name: it.discipline.clone(),
        colour,
        style: Style::Line,
        // A log axis has no place for an empty queue: half a record is drawn.
        points: it.depth.iter().map(|(at, depth)| (*at, (*depth as f64).max(0.5), 0.0)).collect(),
    });
    Chart {
        name: "depth-time".to_owned(),
        title: format!(
            "Queue depth over time at {} (first repetition; 0.5 is empty)",
            at_load(group)
        ),
        x: Axis::new("time since the start of the schedule, s", Scale::Linear),
        y: Axis::new("records due and not durable", Scale::Log),
        series: series.collect(),
    }
}
