//! Charts as SVG, whole in themselves: light and dark by the reader's choice, no script, nothing from elsewhere.

use std::fmt::Write as _;

/// Width and height of a chart, and what is around the plot.
const SIZE: (f64, f64) = (760.0, 440.0);
const LEFT: f64 = 74.0;
const RIGHT: f64 = 168.0;
const TOP: f64 = 42.0;
const BOTTOM: f64 = 58.0;

/// Colours of series in turn, light and dark: those of Okabe and Ito, which colour-blind readers tell apart.
const COLOURS: [(&str, &str); 8] = [
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff8c42"),
    ("#009e73", "#2fd6a5"),
    ("#a8478b", "#e69ac6"),
    ("#8a6d00", "#e6c619"),
    ("#3a3a3a", "#d0d0d0"),
    ("#c22f2f", "#ff7a7a"),
    ("#7a4b2a", "#c79a78"),
];

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By the logarithm; values of 0 and less have no place.
    Log,
    /// By the logarithm, downwards, marked as percentiles: the value is the share of what is more.
    Percentile,
}

/// One axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it is, with its unit.
    pub label: String,
    /// How.
    pub scale: Scale,
}

impl Axis {
    /// An axis.
    #[must_use]
    pub fn new(label: &str, scale: Scale) -> Self {
        Self { label: label.to_owned(), scale }
    }
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A line with marks at its points.
    Marked,
    /// A line.
    Line,
    /// A dashed line: what is computed and not measured.
    Dashed,
}

/// Points that belong together.
#[derive(Clone, Debug)]
pub struct Series {
    /// In the legend; an empty one is not.
    pub name: String,
    /// Series of one number have one colour.
    pub colour: usize,
    /// How.
    pub style: Style,
    /// Places: x, y, half of an interval in y.
    pub points: Vec<(f64, f64, f64)>,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The name of its file.
    pub name: String,
    /// Above it.
    pub title: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// What is drawn.
    pub series: Vec<Series>,
}

/// An axis with its range.
struct Placed {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Placed {
    fn new(scale: Scale, values: impl Iterator<Item = f64>, (from, to): (f64, f64)) -> Self {
        let usable = |it: &f64| it.is_finite() && (scale == Scale::Linear || *it > 0.0);
        let (mut low, mut high) =
            values.filter(usable).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), it| {
                (low.min(it), high.max(it))
            });
        if low > high {
            (low, high) = (1.0, 1.0);
        }
        if scale == Scale::Linear {
            low = low.min(0.0);
            high = if high > low { high * 1.04 } else { low + 1.0 };
        } else {
            // Whole decades would leave much empty: a margin is enough.
            (low, high) = (low / 1.15, high * 1.15);
            if scale == Scale::Percentile {
                high = 1.0;
                low = low.min(0.1);
            }
        }
        Self { scale, low, high, from, to }
    }

    fn share(&self, value: f64) -> Option<f64> {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            _ if value <= 0.0 => return None,
            Scale::Log => (value / self.low).ln() / (self.high / self.low).ln(),
            Scale::Percentile => (self.high / value).ln() / (self.high / self.low).ln(),
        };
        share.is_finite().then_some(share)
    }

    fn at(&self, value: f64) -> Option<f64> {
        Some(self.from + self.share(value)? * (self.to - self.from))
    }

    /// Where marks are, and what stands there.
    fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => {
                let raw = (self.high - self.low) / 6.0;
                let decade = 10_f64.powf(raw.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0]
                    .map(|it| it * decade)
                    .into_iter()
                    .find(|it| *it >= raw)
                    .unwrap_or(raw);
                let count = ((self.high - self.low) / step) as usize;
                (0..=count)
                    .map(|n| (self.low / step).ceil() * step + n as f64 * step)
                    .filter(|it| *it <= self.high)
                    .map(|it| (it, short(it)))
                    .collect()
            }
            Scale::Log | Scale::Percentile => {
                let decades = (self.high / self.low).log10();
                let steps: &[f64] = if decades < 2.0 && self.scale == Scale::Log {
                    &[1.0, 2.0, 5.0]
                } else {
                    &[1.0]
                };
                let (first, last) =
                    (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
                let every = ((last - first) / 9 + 1) as usize;
                let mut ticks = Vec::new();
                for exponent in (first..=last).step_by(every) {
                    for step in steps {
                        let value = step * 10_f64.powi(exponent);
                        if value >= self.low && value <= self.high * 1.000_001 {
                            let text = if self.scale == Scale::Log {
                                short(value)
                            } else {
                                percentile(value)
                            };
                            ticks.push((value, text));
                        }
                    }
                }
                ticks
            }
        }
    }
}

/// A number in few characters.
fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        it if it >= 1e9 => (value / 1e9, "G"),
        it if it >= 1e6 => (value / 1e6, "M"),
        it if it >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{scaled:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

/// The percentile above which this share is.
fn percentile(share: f64) -> String {
    if share >= 1.0 {
        return "0".to_owned();
    }
    let places = (-share.log10() - 2.0).max(0.0).round() as usize;
    format!("{:.places$}", (1.0 - share) * 100.0)
}

/// Text as XML has it.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The styles of all charts, for a file of its own or a page.
#[must_use]
pub fn style() -> String {
    let mut style = String::from(
        ".chart{font:13px system-ui,sans-serif}.chart .bg{fill:#fff}.chart text{fill:#222}.chart .grid{stroke:#ddd}\
         .chart .frame{stroke:#666;fill:none}.chart .line{fill:none;stroke-width:1.8}.chart .dash{stroke-dasharray:6 4}",
    );
    let colours = |style: &mut String, pick: fn(&(&'static str, &'static str)) -> &'static str| {
        for (index, colour) in COLOURS.iter().enumerate() {
            let colour = pick(colour);
            let _ = write!(
                style,
                ".chart .c{index}{{stroke:{colour}}}.chart .f{index}{{fill:{colour}}}"
            );
        }
    };
    colours(&mut style, |it| it.0);
    style.push_str(
        "@media(prefers-color-scheme:dark){.chart .bg{fill:#16181c}.chart text{fill:#e4e4e4}.chart .grid{stroke:#34373d}\
         .chart .frame{stroke:#999}",
    );
    colours(&mut style, |it| it.1);
    style.push('}');
    style
}

impl Chart {
    /// The chart as one element; in a file of its own it brings its styles.
    #[must_use]
    pub fn svg(&self, whole: bool) -> String {
        let (width, height) = SIZE;
        let plot = ((LEFT, width - RIGHT), (height - BOTTOM, TOP));
        let points = || self.series.iter().flat_map(|it| &it.points);
        let x = Placed::new(self.x.scale, points().map(|it| it.0), plot.0);
        let ys = points().flat_map(|it| [it.1, it.1 + it.2]);
        let y = Placed::new(self.y.scale, ys, plot.1);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-label=\"{}\">\n",
            escaped(&self.title)
        );
        if whole {
            let _ = writeln!(svg, "<style>{}</style>", style());
        }
        let _ = writeln!(svg, "<rect class=\"bg\" width=\"{width}\" height=\"{height}\"/>");
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"24\" font-weight=\"600\">{}</text>",
            escaped(&self.title)
        );
        self.axes(&mut svg, &x, &y, plot);
        for series in &self.series {
            draw(&mut svg, series, &x, &y);
        }
        self.legend(&mut svg, plot.0.1);
        svg.push_str("</svg>\n");
        svg
    }

    fn axes(
        &self,
        svg: &mut String,
        x: &Placed,
        y: &Placed,
        ((left, right), (bottom, top)): ((f64, f64), (f64, f64)),
    ) {
        for (value, text) in x.ticks() {
            let Some(at) = x.at(value) else { continue };
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>"
            );
            let below = bottom + 18.0;
            let _ = writeln!(
                svg,
                "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{text}</text>"
            );
        }
        for (value, text) in y.ticks() {
            let Some(at) = y.at(value) else { continue };
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
            );
            let (beside, middle) = (left - 8.0, at + 4.0);
            let _ = writeln!(
                svg,
                "<text x=\"{beside}\" y=\"{middle:.1}\" text-anchor=\"end\">{text}</text>"
            );
        }
        let (width, height) = (right - left, bottom - top);
        let _ = writeln!(
            svg,
            "<rect class=\"frame\" x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\"/>"
        );
        let (middle, low) = ((left + right) / 2.0, bottom + 42.0);
        let label = escaped(&self.x.label);
        let _ =
            writeln!(svg, "<text x=\"{middle}\" y=\"{low}\" text-anchor=\"middle\">{label}</text>");
        let (middle, label) = ((top + bottom) / 2.0, escaped(&self.y.label));
        let _ = writeln!(
            svg,
            "<text transform=\"translate(18 {middle}) rotate(-90)\" text-anchor=\"middle\">{label}</text>"
        );
    }

    fn legend(&self, svg: &mut String, right: f64) {
        let named = self.series.iter().filter(|it| !it.name.is_empty());
        for (row, series) in named.enumerate() {
            let (at, y) = (right + 12.0, TOP + 12.0 + row as f64 * 19.0);
            let (end, text, middle) = (at + 22.0, at + 28.0, y - 4.0);
            let (class, name) = (class(series), escaped(&series.name));
            let _ = writeln!(
                svg,
                "<line class=\"{class}\" x1=\"{at}\" x2=\"{end}\" y1=\"{middle}\" y2=\"{middle}\"/>"
            );
            let _ = writeln!(svg, "<text x=\"{text}\" y=\"{y}\">{name}</text>");
        }
    }
}

fn class(series: &Series) -> String {
    let dash = if series.style == Style::Dashed { " dash" } else { "" };
    format!("line c{}{dash}", series.colour % COLOURS.len())
}

fn draw(svg: &mut String, series: &Series, x: &Placed, y: &Placed) {
    let colour = series.colour % COLOURS.len();
    let mut path = String::new();
    let mut marks = String::new();
    for (px, py, half) in &series.points {
        let (Some(ax), Some(ay)) = (x.at(*px), y.at(*py)) else { continue };
        let letter = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(path, "{letter}{ax:.1} {ay:.1}");
        if series.style == Style::Marked {
            let _ = write!(
                marks,
                "<circle class=\"f{colour}\" cx=\"{ax:.1}\" cy=\"{ay:.1}\" r=\"3\"/>"
            );
        }
        if let (true, Some(low), Some(high)) =
            (*half > 0.0, y.at((py - half).max(y.low)), y.at(py + half))
        {
            let _ = write!(
                marks,
                "<line class=\"line c{colour}\" x1=\"{ax:.1}\" x2=\"{ax:.1}\" y1=\"{low:.1}\" y2=\"{high:.1}\"/>"
            );
        }
    }
    if !path.is_empty() {
        let _ = writeln!(svg, "<path class=\"{}\" d=\"{path}\"/>{marks}", class(series));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_mark_what_people_expect() {
        let labels = |scale, values: [f64; 2]| -> Vec<String> {
            let axis = Placed::new(scale, values.into_iter(), (0.0, 100.0));
            axis.ticks().into_iter().map(|(_, text)| text).collect()
        };
        assert_eq!(labels(Scale::Linear, [0.0, 1.0]), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(labels(Scale::Log, [1.0, 100_000.0]), ["1", "10", "100", "1k", "10k", "100k"]);
        assert_eq!(labels(Scale::Log, [20.0, 90.0]), ["20", "50", "100"]);
        assert_eq!(labels(Scale::Percentile, [0.0001, 1.0]), ["99.99", "99.9", "99", "90", "0"]);
    }

    #[test]
    fn places_are_in_order_and_zero_has_none_on_a_log_axis() {
        let axis = Placed::new(Scale::Log, [1.0, 1000.0].into_iter(), (0.0, 100.0));
        assert!(axis.at(1.0) < axis.at(10.0) && axis.at(10.0) < axis.at(1000.0));
        assert_eq!(axis.at(0.0), None);
        let axis = Placed::new(Scale::Percentile, [0.001, 1.0].into_iter(), (0.0, 100.0));
        assert!(axis.at(1.0) < axis.at(0.5) && axis.at(0.5) < axis.at(0.001));
        let nothing = Placed::new(Scale::Log, std::iter::empty(), (0.0, 100.0));
        assert!(nothing.at(1.0).is_some_and(f64::is_finite));
    }
}
