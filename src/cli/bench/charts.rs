//! The pictures of a report: latencies, their distribution, time by layer, the roofline.

use std::fmt::Write;

use super::bandwidth::Bandwidth;
use super::layers::{Bound, Layer, by_node};
use super::report::{Entry, significant};
use super::statistics::quantile;
use crate::cli::html::{colour, escape, label, line, shorten, svg};

const WIDTH: f64 = 1080.0;
/// Bars by layer; what takes less is one bar.
const LAYERS: usize = 40;

/// `lapidary v3 · 2 threads`
pub fn title(entry: &Entry) -> String {
    let threads = if entry.threads == 1 {
        "thread"
    } else {
        "threads"
    };
    format!("{} · {} {threads}", entry.name, entry.threads)
}

/// A horizontal bar a variant, with p90, p99 and the error.
pub fn bars(entries: &[Entry]) -> String {
    const LEFT: f64 = 330.0;
    const RIGHT: f64 = 250.0;
    const ROW: f64 = 30.0;
    let longest = entries
        .iter()
        .map(|e| e.p99_ms.max(e.p50_ms))
        .filter(|ms| ms.is_finite());
    // One wild run must not make all bars short.
    let usual = entries.iter().map(|e| 2.5 * e.p50_ms).fold(0.0, f64::max);
    let most = longest.fold(1e-9, f64::max).min(usual.max(1e-9));
    let x = |ms: f64| LEFT + (ms / most).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT);
    let mut inside = String::new();
    for (at, entry) in entries.iter().enumerate() {
        let top = 10.0 + at as f64 * ROW;
        let middle = top + 10.0;
        inside.push_str(&label(
            LEFT - 8.0,
            middle + 4.0,
            "end",
            "",
            &shorten(&title(entry), 46),
        ));
        let _ = write!(
            inside,
            "<rect class=\"bar\" x=\"{LEFT}\" y=\"{top}\" width=\"{:.1}\" height=\"20\" style=\"fill:{}\"><title>{}</title></rect>",
            x(entry.p50_ms) - LEFT,
            colour(at),
            escape(&format!(
                "{}: p50 {} ms",
                title(entry),
                significant(entry.p50_ms)
            ))
        );
        let end = x(entry.p99_ms);
        inside.push_str(&line((x(entry.p50_ms), middle), (end, middle), "whisker"));
        for tick in [x(entry.p90_ms), end] {
            inside.push_str(&line((tick, middle - 5.0), (tick, middle + 5.0), "whisker"));
        }
        let error = entry
            .max_abs_error
            .map_or("not known".to_string(), |e| format!("{e:.1e}"));
        let text = format!("{} ms · error {error}", significant(entry.p50_ms));
        inside.push_str(&label(end + 10.0, middle + 4.0, "start", "", &text));
        inside.push('\n');
    }
    svg(
        WIDTH,
        entries.len() as f64 * ROW + 20.0,
        "medians, with p90 and p99",
        &inside,
    )
}

/// A logarithmic axis from data.
struct Log {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Log {
    /// Covers the values, from pixel `from` to pixel `to`; at least `decades` long.
    fn over(values: impl Iterator<Item = f64>, decades: f64, from: f64, to: f64) -> Log {
        let logs = values.filter(|v| v.is_finite() && *v > 0.0).map(f64::log10);
        let (mut low, mut high) = logs
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
                (low.min(v), high.max(v))
            });
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let missing = (decades - (high - low)).max(0.0);
        let room = missing / 2.0 + 0.03;
        Log {
            low: low - room,
            high: high + room,
            from,
            to,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let part = (value.max(1e-300).log10() - self.low) / (self.high - self.low);
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Round numbers, not too many: 1, 2 and 5 of each decade, or 1 alone.
    fn ticks(&self) -> Vec<f64> {
        let decades = self.high - self.low;
        let steps: &[f64] = match () {
            () if decades > 2.5 => &[1.0],
            () if decades > 0.9 => &[1.0, 2.0, 5.0],
            () => &[
                1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0,
            ],
        };
        let mut all = Vec::new();
        for decade in self.low.floor() as i32..=self.high.ceil() as i32 {
            for step in steps {
                let tick = step * 10f64.powi(decade);
                let log = tick.log10();
                if log > self.low && log < self.high {
                    all.push(tick);
                }
            }
        }
        all
    }
}

/// A number of an axis: 0.05, 20, 3000.
fn tick_text(value: f64) -> String {
    if value >= 1000.0 {
        format!("{value:.0}")
    } else {
        let text = format!("{value:.5}");
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    }
}

/// Part of the runs over time, a curve a variant.
pub fn distribution(entries: &[Entry]) -> String {
    const LEFT: f64 = 56.0;
    const TOP: f64 = 14.0;
    const BOTTOM: f64 = 314.0;
    let legend = entries.len() as f64 * 18.0;
    let height = BOTTOM + 52.0 + legend;
    let ends = entries.iter().flat_map(|e| {
        let p = |part| quantile(&e.quantiles_ms, part);
        [p(0.0), p(0.99)]
    });
    let axis = Log::over(ends, 0.15, LEFT, WIDTH - 20.0);
    let y = |part: f64| BOTTOM - part * (BOTTOM - TOP);
    let mut inside = String::new();
    for part in [0.0, 0.25, 0.5, 0.75, 0.9, 1.0] {
        inside.push_str(&line((LEFT, y(part)), (WIDTH - 20.0, y(part)), "grid"));
        inside.push_str(&label(
            LEFT - 8.0,
            y(part) + 4.0,
            "end",
            "small",
            &format!("{:.0} %", part * 100.0),
        ));
    }
    let mut last = f64::NEG_INFINITY;
    for tick in axis.ticks() {
        let x = axis.at(tick);
        inside.push_str(&line((x, TOP), (x, BOTTOM), "grid"));
        if x - last > 44.0 {
            inside.push_str(&label(
                x,
                BOTTOM + 16.0,
                "middle",
                "small",
                &tick_text(tick),
            ));
            last = x;
        }
    }
    inside.push_str(&label(
        (LEFT + WIDTH) / 2.0,
        BOTTOM + 34.0,
        "middle",
        "small",
        "ms (logarithmic)",
    ));
    for (at, entry) in entries.iter().enumerate() {
        let mut path = String::new();
        let count = entry.quantiles_ms.len();
        for (index, ms) in entry.quantiles_ms.iter().enumerate() {
            let part = index as f64 / (count.max(2) - 1) as f64;
            let command = if index == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{command}{:.1} {:.1}", axis.at(*ms), y(part));
        }
        let text = format!(
            "{}: p50 {} · p90 {} · p99 {} ms, {} runs",
            title(entry),
            significant(entry.p50_ms),
            significant(entry.p90_ms),
            significant(entry.p99_ms),
            entry.runs
        );
        let _ = write!(
            inside,
            "<path class=\"curve\" d=\"{path}\" style=\"stroke:{}\"><title>{}</title></path>",
            colour(at),
            escape(&text)
        );
        let top = BOTTOM + 48.0 + at as f64 * 18.0;
        let _ = write!(
            inside,
            "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"18\" height=\"4\" style=\"fill:{}\"/>",
            top - 6.0,
            colour(at)
        );
        inside.push_str(&label(LEFT + 26.0, top, "start", "", &text));
    }
    svg(WIDTH, height, "distribution of the latencies", &inside)
}

/// A horizontal bar an ONNX node.
pub fn layer_bars(layers: &[Layer], total: f64) -> String {
    const LEFT: f64 = 390.0;
    const RIGHT: f64 = 140.0;
    const ROW: f64 = 20.0;
    let nodes = by_node(layers);
    let mut rows: Vec<(String, f64)> = nodes
        .iter()
        .take(LAYERS)
        .map(|(name, ms)| (name.to_string(), *ms))
        .collect();
    if nodes.len() > LAYERS {
        let rest = nodes[LAYERS..].iter().map(|(_, ms)| ms).sum();
        rows.push((format!("the other {}", nodes.len() - LAYERS), rest));
    }
    let most = rows.iter().map(|(_, ms)| *ms).fold(1e-12, f64::max);
    let mut inside = String::new();
    for (at, (name, ms)) in rows.iter().enumerate() {
        let top = 8.0 + at as f64 * ROW;
        let width = ms / most * (WIDTH - LEFT - RIGHT);
        let text = format!(
            "{} ms  {:.1} %",
            significant(*ms),
            100.0 * ms / total.max(1e-12)
        );
        let _ = writeln!(
            inside,
            "<g><title>{}</title>{}<rect class=\"bar {}\" x=\"{LEFT}\" y=\"{top}\" width=\"{width:.1}\" \
             height=\"15\"/>{}</g>",
            escape(&format!("{name}: {text}")),
            label(LEFT - 8.0, top + 12.0, "end", "", &shorten(name, 52)),
            if at == LAYERS { "neither" } else { "compute" },
            label(LEFT + width + 8.0, top + 12.0, "start", "small", &text),
        );
    }
    svg(
        WIDTH,
        rows.len() as f64 * ROW + 16.0,
        "time by layer",
        &inside,
    )
}

/// The roofs of the machine, and a dot a call.
pub fn roofline(layers: &[Layer], total: f64, peak: f64, bandwidth: Bandwidth) -> String {
    const LEFT: f64 = 70.0;
    const TOP: f64 = 16.0;
    const BOTTOM: f64 = 400.0;
    let right = WIDTH - 24.0;
    let points: Vec<(f64, f64, &Layer)> = layers
        .iter()
        .filter_map(|layer| {
            let (operations, bytes) = (layer.operations?, layer.bytes.filter(|b| *b > 0.0)?);
            Some((
                operations / bytes,
                operations / layer.ms.max(1e-9) / 1e6,
                layer,
            ))
        })
        .collect();
    let ridge = peak / bandwidth.memory;
    let near = peak / bandwidth.cache;
    let x = Log::over(
        points.iter().map(|p| p.0).chain([ridge / 8.0, ridge * 4.0]),
        1.0,
        LEFT,
        right,
    );
    let y = Log::over(
        points.iter().map(|p| p.1).chain([peak * 1.3, peak / 50.0]),
        1.0,
        BOTTOM,
        TOP,
    );
    let mut inside = String::new();
    for tick in x.ticks() {
        inside.push_str(&line((x.at(tick), TOP), (x.at(tick), BOTTOM), "grid"));
        inside.push_str(&label(
            x.at(tick),
            BOTTOM + 16.0,
            "middle",
            "small",
            &tick_text(tick),
        ));
    }
    for tick in y.ticks() {
        inside.push_str(&line((LEFT, y.at(tick)), (right, y.at(tick)), "grid"));
        inside.push_str(&label(
            LEFT - 8.0,
            y.at(tick) + 4.0,
            "end",
            "small",
            &tick_text(tick),
        ));
    }
    // A slope ends where it leaves the picture below or on the left.
    let slope = |rate: f64| {
        let least = 10f64.powf(x.low).max(10f64.powf(y.low) / rate);
        (x.at(least), y.at(least * rate))
    };
    inside.push_str(&line(
        slope(bandwidth.cache),
        (x.at(near), y.at(peak)),
        "cacheroof",
    ));
    inside.push_str(&line(
        slope(bandwidth.memory),
        (x.at(ridge), y.at(peak)),
        "roof",
    ));
    inside.push_str(&line(
        (x.at(near.min(ridge)), y.at(peak)),
        (right, y.at(peak)),
        "roof",
    ));
    for (intensity, rate, layer) in &points {
        let radius = 3.0 + 16.0 * (layer.ms / total.max(1e-12)).sqrt();
        let text = format!(
            "{}\n{} ms, {:.1} % of the run\n{:.1} GFLOP/s, {} op/byte\nbound by {}{}",
            layer.node,
            significant(layer.ms),
            100.0 * layer.ms / total.max(1e-12),
            rate,
            significant(*intensity),
            layer.bound.name(),
            layer.of_roof.map_or(String::new(), |part| format!(
                ", {:.0} % of its roof",
                100.0 * part
            ))
        );
        let _ = writeln!(
            inside,
            "<circle class=\"dot {}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius:.1}\"><title>{}</title></circle>",
            layer.bound.name(),
            x.at(*intensity),
            y.at(*rate),
            escape(&text)
        );
    }
    let middle = (LEFT + right) / 2.0;
    inside.push_str(&label(
        right,
        y.at(peak) - 6.0,
        "end",
        "",
        &format!("{peak:.0} GFLOP/s"),
    ));
    inside.push_str(&label(
        middle,
        BOTTOM + 34.0,
        "middle",
        "small",
        "operations a byte (logarithmic)",
    ));
    let _ = write!(
        inside,
        "<text class=\"small\" transform=\"rotate(-90 16 {0:.0})\" x=\"16\" y=\"{0:.0}\" text-anchor=\"middle\">GFLOP/s \
         (logarithmic)</text>",
        (TOP + BOTTOM) / 2.0
    );
    let mut left = LEFT;
    let share = |bound: Bound| {
        let own: f64 = layers
            .iter()
            .filter(|l| l.bound == bound)
            .map(|l| l.ms)
            .sum();
        100.0 * own / total.max(1e-12)
    };
    for bound in [Bound::Compute, Bound::Memory, Bound::Neither] {
        let text = format!(
            "bound by {}: {:.0} % of the time",
            bound.name(),
            share(bound)
        );
        let _ = write!(
            inside,
            "<circle class=\"dot {}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"6\"/>",
            bound.name(),
            left + 6.0,
            BOTTOM + 54.0
        );
        inside.push_str(&label(left + 18.0, BOTTOM + 58.0, "start", "", &text));
        left += 260.0;
    }
    let roofs = format!(
        "solid slope: memory, {:.1} GB/s · dashed slope: second-level cache, {:.1} GB/s",
        bandwidth.memory, bandwidth.cache
    );
    inside.push_str(&label(LEFT, BOTTOM + 80.0, "start", "", &roofs));
    svg(WIDTH, BOTTOM + 94.0, "roofline", &inside)
}
