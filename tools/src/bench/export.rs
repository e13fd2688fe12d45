//! The report as CSV and as one page.

use super::chart::{escaped, style};
use super::figures::charts;
use super::report::{Point, Report};
use super::table;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Columns of the CSV: their names, and what is in them.
type Column = (&'static str, fn(&Point) -> String);

const COLUMNS: [Column; 33] = [
    ("discipline", |it| it.discipline.clone()),
    ("load", |it| it.load.to_string()),
    ("rate_per_s", |it| it.rate.to_string()),
    ("offered", |it| it.offered.to_string()),
    ("durable", |it| it.durable.to_string()),
    ("lost", |it| it.lost.to_string()),
    ("unsent", |it| it.unsent.to_string()),
    ("throughput_per_s", |it| it.throughput.mean.to_string()),
    ("regime", |it| it.regime.name().to_owned()),
    ("latency_mean_us", |it| it.latency.mean_us.mean.to_string()),
    ("latency_p50_us", |it| it.latency.p50_us.to_string()),
    ("latency_p90_us", |it| it.latency.p90_us.to_string()),
    ("latency_p99_us", |it| it.latency.p99_us.to_string()),
    ("latency_p99_9_us", |it| it.latency.p999_us.to_string()),
    ("latency_p99_99_us", |it| it.latency.p9999_us.to_string()),
    ("latency_max_us", |it| it.latency.max_us.to_string()),
    ("wait_mean_us", |it| it.wait.mean_us.mean.to_string()),
    ("wait_mean_plus_minus_us", |it| option(it.wait.mean_us.plus_minus)),
    ("service_mean_us", |it| it.service.mean_us.mean.to_string()),
    ("service_p99_us", |it| it.service.p99_us.to_string()),
    ("exposure_p99_us", |it| it.exposure.p99_us.to_string()),
    ("exposure_p99_99_us", |it| it.exposure.p9999_us.to_string()),
    ("exposure_max_us", |it| it.exposure.max_us.to_string()),
    ("blocked_count", |it| it.blocked_count.to_string()),
    ("blocked_s", |it| it.blocked_s.to_string()),
    ("blocked_max_us", |it| it.blocked_max_us.to_string()),
    ("cpu_us_per_record", |it| it.cpu_us_per_record.mean.to_string()),
    ("bytes_per_record", |it| it.bytes_per_record.mean.to_string()),
    ("records_per_write", |it| it.records_per_write.to_string()),
    ("generator_late_p99_us", |it| it.generator_late_p99_us.to_string()),
    ("model", |it| {
        it.theory.as_ref().map_or(String::new(), |it| it.model.name().replace(',', ";"))
    }),
    ("model_wait_us", |it| option(it.theory.as_ref().and_then(|it| it.wait_us))),
    ("kingman_wait_us", |it| option(it.theory.as_ref().and_then(|it| it.kingman_us))),
];

fn option(value: Option<f64>) -> String {
    value.map_or(String::new(), |it| it.to_string())
}

/// One line a point, behind one of names. No value has a comma.
///
/// # Errors
/// What `out` says.
pub fn csv(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", COLUMNS.map(|(name, _)| name).join(","))?;
    for point in &report.points {
        writeln!(out, "{}", COLUMNS.map(|(_, value)| value(point)).join(","))?;
    }
    Ok(())
}

const PAGE_STYLE: &str = "\
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;\
background:#fff;color:#222}pre{overflow-x:auto;font-size:12px;line-height:1.35}.chart{width:100%;max-width:900px;display:block;\
margin:1rem 0;border:1px solid #ddd;border-radius:6px}dt{font-weight:600}dl{display:grid;grid-template-columns:max-content 1fr;\
gap:.2rem 1rem}dd{margin:0}@media(prefers-color-scheme:dark){body{background:#16181c;color:#e4e4e4}.chart{border-color:#34373d}}";

const READING: &str = "\
Each record is offered when it is due, whatever became of those before it, and its latency counts from then on: who is late is not \
spared. Intervals are 95 %, by Student's t over the repetitions. The exposure window is the age of the oldest record that is not \
durable, over time. Models take the measured service times: M/G/1 (Pollaczek and Khinchine) and Kingman's bound where each record is \
a write, M/G[1,n]/1 (Bailey 1954, Neuts 1967) for greedy group commit, with a fluid for what waits behind a long write, the residual \
interval for a timer. They assume Poisson arrivals and one server, and hold where the regime is “open”, of Graven also where it is \
“overlapping”, because only full writes start beside others: a full queue makes producers wait or loses records, and so closes the \
loop; an overloaded queue has no mean.";

/// One page that needs nothing else.
///
/// # Errors
/// What `out` says.
pub fn html(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let mut page =
        String::from("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width\">\n<title>graven bench queue</title>\n");
    let _ = writeln!(page, "<style>{PAGE_STYLE}{}</style></head><body>", style());
    let _ = writeln!(page, "<h1>How long records wait until they are durable</h1>\n<dl>");
    for (name, value) in facts(report) {
        let _ = writeln!(page, "<dt>{name}</dt><dd>{}</dd>", escaped(&value));
    }
    let _ = writeln!(page, "</dl>\n<p>{READING}</p>");
    for chart in charts(report) {
        let _ =
            write!(page, "<figure id=\"{}\">{}</figure>", escaped(&chart.name), chart.svg(false));
    }
    let mut text = Vec::new();
    table::write(report, &mut text)?;
    let _ = writeln!(
        page,
        "<h2>All figures</h2>\n<pre>{}</pre>",
        escaped(&String::from_utf8_lossy(&text))
    );
    page.push_str("</body></html>\n");
    out.write_all(page.as_bytes())
}

fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let (about, asked) = (&report.about, &report.asked);
    let machine = &about.machine;
    let known = |it: &Option<String>| it.clone().unwrap_or_else(|| "unknown".to_owned());
    let memory = machine.memory_bytes.map_or(0.0, |it| it as f64 / 1073741824.0);
    vec![
        (
            "measured",
            format!("{}, in {:.0} s, by graven {}", about.started, about.took_s, about.graven),
        ),
        ("arrivals", format!("{}, {}, seed {}", asked.arrivals, asked.sizes, asked.seed)),
        (
            "runs",
            format!(
                "{} of {} s each, after {} s",
                asked.repetitions, asked.seconds, asked.warm_up_s
            ),
        ),
        ("service", asked.service.clone()),
        (
            "processor",
            format!(
                "{}, {} to use, {memory:.0} GiB",
                known(&machine.processor),
                machine.processors
            ),
        ),
        ("kernel", format!("{} on {}", machine.kernel, machine.architecture)),
        (
            "filesystem",
            format!(
                "{} on {}, mounted at {} ({})",
                known(&machine.filesystem),
                known(&machine.device),
                known(&machine.mount_point),
                known(&machine.mount_options)
            ),
        ),
        ("driver", known(&machine.driver)),
    ]
}
