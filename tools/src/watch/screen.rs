//! The view: a snapshot, what came before it, and the size of a terminal in; lines of text out.

use crate::status::Snapshot;
use crate::status::snapshot::{Grade, Quantiles};
use crate::status::text::{self, bytes_text, grouped, real, time};
use std::collections::VecDeque;
use std::fmt::Write as _;

/// Rates kept: the widest terminal's worth.
const RATES_MAX: usize = 512;
/// Column at which facts begin.
const LABEL_WIDTH: usize = 10;
/// Columns of a bar.
const BAR_WIDTH: usize = 24;
/// From this part of something bounded on its bar is yellow, and red from the second on, in percent.
const FILL_PERCENT: [u64; 2] = [60, 90];
/// Lines of the chart of rates.
const CHART_ROWS: usize = 2;
/// A piece of a column of that chart, from nothing to all.
const COLUMNS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What is shown.
#[derive(Debug)]
pub struct View {
    snapshot: Option<Box<Snapshot>>,
    /// Why nothing newer is there.
    silent: Option<String>,
    /// Records a second at each snapshot, the newest last.
    rates: VecDeque<f64>,
    /// When and where the last one was.
    last: Option<(u64, u64, u32)>,
    /// Whether what comes is not shown.
    pub paused: bool,
    colors: bool,
}

/// How a piece of text looks.
#[derive(Clone, Copy)]
enum Look {
    Plain,
    Strong,
    Faint,
    Good,
    Uneasy,
    Bad,
    Drawn,
}

impl Look {
    fn of(grade: Grade) -> Self {
        match grade {
            Grade::Ok => Self::Good,
            Grade::Warning => Self::Uneasy,
            Grade::Critical => Self::Bad,
        }
    }

    /// Of a part of something bounded, in percent.
    fn of_fill(percent: u64) -> Self {
        let [uneasy, bad] = FILL_PERCENT;
        match percent {
            _ if percent >= bad => Self::Bad,
            _ if percent >= uneasy => Self::Uneasy,
            _ => Self::Drawn,
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "\x1b[1m",
            Self::Faint => "\x1b[2m",
            Self::Good => "\x1b[1;32m",
            Self::Uneasy => "\x1b[1;33m",
            Self::Bad => "\x1b[1;31m",
            Self::Drawn => "\x1b[36m",
        }
    }
}

/// A line that is being put together, never wider than the terminal.
struct Line {
    text: String,
    left: usize,
    colors: bool,
}

impl Line {
    fn new(width: usize, colors: bool) -> Self {
        Self { text: String::new(), left: width, colors }
    }

    /// Adds text, of which each character takes one column.
    fn add(mut self, look: Look, text: &str) -> Self {
        let code = if self.colors { look.code() } else { "" };
        self.text.push_str(code);
        for c in text.chars().take(self.left) {
            self.text.push(c);
            self.left -= 1;
        }
        if !code.is_empty() {
            self.text.push_str("\x1b[0m");
        }
        self
    }

    fn plain(self, text: &str) -> Self {
        self.add(Look::Plain, text)
    }
}

impl View {
    /// A view of nothing yet.
    #[must_use]
    pub fn new(colors: bool) -> Self {
        Self {
            snapshot: None,
            silent: None,
            rates: VecDeque::new(),
            last: None,
            paused: false,
            colors,
        }
    }

    /// The writer has told how it is.
    pub fn told(&mut self, snapshot: Box<Snapshot>) {
        let (now_ns, records, pid) = (snapshot.uptime_ns, snapshot.records.written, snapshot.pid);
        // Another writer begins again.
        let before = self.last.filter(|last| last.2 == pid && last.0 < now_ns);
        if let Some((before_ns, before, _)) = before {
            let seconds = (now_ns - before_ns) as f64 / 1e9;
            if self.rates.len() == RATES_MAX {
                self.rates.pop_front();
            }
            self.rates.push_back(records.saturating_sub(before) as f64 / seconds);
        }
        self.last = Some((now_ns, records, pid));
        self.silent = None;
        if !self.paused || self.snapshot.is_none() {
            self.snapshot = Some(snapshot);
        }
    }

    /// It does not.
    pub fn is_silent(&mut self, why: String) {
        self.silent = Some(why);
        self.last = None;
    }

    /// The screen, at most so many columns and rows.
    #[must_use]
    pub fn lines(&self, trail: &str, (width, height): (usize, usize)) -> Vec<String> {
        let Some(s) = &self.snapshot else {
            let why = self.silent.as_deref().unwrap_or("asking the writer");
            let look = if self.silent.is_some() { Look::Bad } else { Look::Faint };
            let first = self.line(width).add(Look::Strong, "graven  ").plain(trail);
            let lines = [first, self.line(width), self.line(width).add(look, why)];
            return lines.into_iter().map(|line| line.text).take(height).collect();
        };
        let mut lines = self.head(s, width);
        // What matters less goes first where there is no room.
        let parts = [
            self.flow(s, width),
            self.matters(s, width),
            self.bounded(s, width),
            self.times(s, width),
            self.rest(s, width),
        ];
        for part in parts {
            if lines.len() + 1 < height {
                lines.push(String::new());
            }
            lines.extend(part);
        }
        lines.truncate(height.saturating_sub(1));
        if height > lines.len() + 1 {
            lines.push(String::new());
        }
        lines.push(self.line(width).add(Look::Faint, "q quits · space stops and goes on").text);
        lines.truncate(height);
        lines
    }

    fn line(&self, width: usize) -> Line {
        Line::new(width, self.colors)
    }

    fn fact(&self, width: usize, label: &str) -> Line {
        self.line(width).add(Look::Faint, &format!("{label:<LABEL_WIDTH$}"))
    }

    /// Who, and how it is.
    fn head(&self, s: &Snapshot, width: usize) -> Vec<String> {
        let time = crate::time::rfc3339(s.realtime_ns);
        let time = time.get(..19).unwrap_or(&time).replace('T', " ");
        let first = self
            .line(width)
            .add(Look::Strong, &s.trail)
            .plain(&format!("  {}", text::headline(s)))
            .add(Look::Faint, &format!("  {time} UTC"));
        let mut lines = vec![first.text];
        if let Some(why) = &self.silent {
            lines.push(self.line(width).add(Look::Bad, why).plain("; it is asked again").text);
        } else if s.conditions.is_empty() {
            let paused = if self.paused { "  stopped here" } else { "" };
            let line = self.line(width).add(Look::Good, "ok").add(Look::Uneasy, paused);
            lines.push(line.text);
        }
        for condition in &s.conditions {
            let line = self
                .line(width)
                .add(
                    Look::of(condition.grade),
                    &format!("{:<LABEL_WIDTH$}", condition.grade.name()),
                )
                .plain(&format!("{}: {}", condition.name, condition.text));
            lines.push(line.text);
        }
        lines
    }

    /// Rates.
    fn flow(&self, s: &Snapshot, width: usize) -> Vec<String> {
        let mut line = self.fact(width, "rate");
        for (at, rate) in text::rates_so_far(s).enumerate() {
            let (records, bytes) = (real(rate.records_per_s), bytes_text(rate.bytes_per_s as u64));
            line = if at == 0 {
                line.add(Look::Strong, &format!("{records} records/s"))
                    .plain(&format!("  {bytes}/s"))
            } else {
                line.add(Look::Faint, &format!("   {} s ", rate.over_s)).plain(&records)
            };
        }
        let columns = width.saturating_sub(LABEL_WIDTH).min(self.rates.len());
        let shown = self.rates.iter().skip(self.rates.len() - columns);
        let most = shown.clone().copied().fold(0.0, f64::max);
        let mut lines = vec![line.text];
        for row in (0..CHART_ROWS).rev() {
            let bars: String = shown.clone().map(|rate| column(*rate, most, row)).collect();
            let label = if row + 1 == CHART_ROWS { real(most) } else { String::new() };
            lines.push(self.fact(width, &label).add(Look::Drawn, &bars).text);
        }
        lines
    }

    /// What nobody wants to see.
    fn matters(&self, s: &Snapshot, width: usize) -> Vec<String> {
        let lag = match s.lag.records {
            0 => "all that was accepted is durable".to_owned(),
            more => {
                format!("{} records, the oldest {} old", grouped(more), time(s.lag.oldest_ns))
            }
        };
        let uneasy = |is_it| if is_it { Look::Uneasy } else { Look::Plain };
        let lost = uneasy(s.lost.statements > 0);
        let waits = uneasy(s.producers.waiting > 0);
        vec![
            self.fact(width, "lost").add(lost, &text::lost(&s.lost)).text,
            self.fact(width, "waits").add(waits, &text::waits(s)).text,
            self.fact(width, "lag").plain(&lag).text,
        ]
    }

    /// What has an end: ring, queue, keeper, space, segment.
    fn bounded(&self, s: &Snapshot, width: usize) -> Vec<String> {
        let bar = |label: &str, used: u64, all: u64, judged: bool, text: &str| {
            let percent = text::percent(used, all);
            let look = if judged { Look::of_fill(percent) } else { Look::Drawn };
            let full = (percent as usize * BAR_WIDTH).div_ceil(100).min(BAR_WIDTH);
            self.fact(width, label)
                .add(look, &"█".repeat(full))
                .add(Look::Faint, &"░".repeat(BAR_WIDTH - full))
                .plain(&format!("  {text}"))
                .text
        };
        let mut lines =
            vec![bar("ring", s.ring.batches_used, s.ring.batches, true, &text::ring(s))];
        if let (Some(it), Some(text)) = (&s.kernel, text::kernel(s)) {
            lines.push(bar("kernel", it.backlog.into(), it.backlog_limit.into(), true, &text));
        }
        if let (Some(it), Some(text)) = (&s.keeper, text::keeper(s)) {
            lines.push(bar("keeper", it.used_bytes, it.capacity_bytes, true, &text));
        }
        if let (Some(it), Some(text)) = (&s.space, text::space(s)) {
            let used = it.total_bytes.saturating_sub(it.available_bytes);
            lines.push(bar("space", used, it.total_bytes, true, &text));
        }
        if let (Some(it), Some(text)) = (&s.segment, text::segment(s)) {
            lines.push(bar("segment", it.used_bytes, it.total_bytes, false, &text));
        }
        lines
    }

    /// How long things take.
    fn times(&self, s: &Snapshot, width: usize) -> Vec<String> {
        let mut head = format!("{:24}", "");
        for name in ["p50", "p99", "p99.9", "max"] {
            let _ = write!(head, "{name:>10}");
        }
        let row = |label: &str, over: &str, it: &Quantiles| {
            let mut cells = String::new();
            for ns in [it.p50_ns, it.p99_ns, it.p999_ns, it.max_ns] {
                let cell = if it.count == 0 { "–".to_owned() } else { time(ns) };
                let _ = write!(cells, "{cell:>10}");
            }
            self.fact(width, label).plain(&format!("{over:<14}{cells}")).text
        };
        vec![
            self.line(width).add(Look::Faint, &head).text,
            row("durable", "1 minute", &s.latency.minute),
            row("", "all", &s.latency.start),
            row("barrier", "1 minute", &s.barrier.minute),
            row("", "all", &s.barrier.start),
        ]
    }

    /// What there is.
    fn rest(&self, s: &Snapshot, width: usize) -> Vec<String> {
        let records = format!(
            "{} of the trail, {} of this writer in {} frames",
            grouped(s.records.durable),
            grouped(s.records.written),
            grouped(s.records.frames)
        );
        vec![
            self.fact(width, "records").plain(&records).text,
            self.fact(width, "signed").plain(&text::signed(s)).text,
        ]
    }
}

/// The part of a column for a value that is in this row from the bottom. What is not nothing is seen.
fn column(value: f64, most: f64, row: usize) -> char {
    let steps = COLUMNS.len() - 1;
    if value <= 0.0 || most <= 0.0 {
        return COLUMNS[0];
    }
    let high = (value / most * (steps * CHART_ROWS) as f64).ceil() as usize;
    COLUMNS[high.saturating_sub(steps * row).min(steps)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::snapshot::{Condition, Kernel, Rate, Segment, Space};

    fn snapshot(uptime_s: u64, records: u64) -> Box<Snapshot> {
        let mut snapshot = Snapshot {
            trail: "/var/lib/graven/trail".to_owned(),
            source: "netlink".to_owned(),
            pid: 7,
            uptime_ns: uptime_s * 1_000_000_000,
            rates: vec![Rate { over_s: 1, records_per_s: 100.0, ..Rate::default() }],
            kernel: Some(Kernel { backlog: 8000, backlog_limit: 8192, ..Kernel::default() }),
            space: Some(Space { total_bytes: 100, available_bytes: 30, age_ns: 0 }),
            segment: Some(Segment { used_bytes: 95, total_bytes: 100, ..Segment::default() }),
            ..Snapshot::default()
        };
        snapshot.records.written = records;
        snapshot.ring.batches = 4;
        Box::new(snapshot)
    }

    #[test]
    fn columns_grow_with_what_they_show() {
        let of = |value| [column(value, 16.0, 1), column(value, 16.0, 0)];
        assert_eq!(of(0.0), [' ', ' ']);
        assert_eq!(of(0.001), [' ', '▁']);
        assert_eq!(of(8.0), [' ', '█']);
        assert_eq!(of(9.0), ['▁', '█']);
        assert_eq!(of(16.0), ['█', '█']);
        assert_eq!(column(1.0, 0.0, 0), ' ');
    }

    #[test]
    fn it_fits_every_terminal_and_ends_every_colour() {
        let mut view = View::new(true);
        for second in 0..700 {
            view.told(snapshot(second, second * 100));
        }
        assert_eq!(view.rates.len(), RATES_MAX);
        for width in [0, 1, 9, 40, 80, 1000] {
            for height in [0, 1, 2, 5, 24, 100] {
                let lines = view.lines("trail", (width, height));
                assert!(lines.len() <= height, "{height}");
                for line in lines {
                    let (mut shown, mut rest, mut open) = (0, line.as_str(), false);
                    while let Some((text, behind)) = rest.split_once("\x1b[") {
                        shown += text.chars().count();
                        let (code, behind) = behind.split_once('m').expect("a colour");
                        open = code != "0";
                        rest = behind;
                    }
                    assert!(shown + rest.chars().count() <= width && !open, "{line:?}");
                }
            }
        }
    }

    #[test]
    fn without_colours_there_is_no_escape_sequence() {
        let mut view = View::new(false);
        view.told(snapshot(1, 0));
        view.told(snapshot(2, 50));
        let text = view.lines("trail", (100, 40)).join("\n");
        assert!(!text.contains('\x1b'), "{text:?}");
        for part in ["netlink", "8,000 records of 8,192", "30 B of 100 B", "50 of this writer"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn what_has_happened_is_said_first() {
        let mut view = View::new(false);
        assert_eq!(view.lines("t", (80, 9))[2], "asking the writer");
        let mut told = snapshot(1, 0);
        let (name, text) = ("disk_full".to_owned(), "no room".to_owned());
        told.conditions = vec![Condition { name, grade: Grade::Critical, text }];
        view.told(told);
        assert_eq!(view.lines("t", (80, 9))[1], "critical  disk_full: no room");
        view.paused = true;
        view.told(snapshot(2, 0));
        assert_eq!(view.lines("t", (80, 9))[1], "critical  disk_full: no room", "it is stopped");
        view.paused = false;
        view.told(snapshot(3, 0));
        assert_eq!(view.lines("t", (80, 9))[1], "ok");
        view.is_silent("no writer runs".to_owned());
        assert_eq!(view.lines("t", (80, 9))[1], "no writer runs; it is asked again");
        // Another writer, which begins again, is no negative rate.
        view.told(snapshot(1, 0));
        view.told(snapshot(2, 10));
        assert_eq!(view.rates.back(), Some(&10.0));
    }
}
