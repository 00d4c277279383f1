//! What a measurement looks like: JSON, a table, a profile.

use std::collections::BTreeMap;

use serde_json::Value;

use super::bandwidth::Bandwidth;
use super::layers::Layer;
use super::machine::{Noise, System};
use super::saved::Difference;
use crate::cli::profile::Call;

/// All that one call measured.
pub struct Report {
    pub model: String,
    pub system: System,
    pub noise: Option<Noise>,
    /// GFLOP/s by threads.
    pub peaks: BTreeMap<usize, f64>,
    /// By threads; empty unless layers are asked for.
    pub bandwidths: BTreeMap<usize, Bandwidth>,
    pub entries: Vec<Entry>,
    pub comparison: Option<Comparison>,
}

/// Against a saved report.
pub struct Comparison {
    pub with: String,
    pub differences: Vec<Difference>,
    pub warnings: Vec<String>,
}

/// Who runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Own,
    /// A peer that is called as a library.
    Peer,
    /// A whole process each time.
    Process,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Own => "lapidary",
            Kind::Peer => "peer",
            Kind::Process => "process",
        }
    }
}

/// A row.
pub struct Entry {
    pub name: String,
    pub kind: Kind,
    pub threads: usize,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    /// Load, compile and first run in a fresh process.
    pub cold_ms: Option<f64>,
    pub peak_rss_mb: Option<f64>,
    pub gflops: Option<f64>,
    pub percent_of_peak: Option<f64>,
    /// Against the expected outputs, or (of a peer, where there are none) against ours.
    pub max_abs_error: Option<f64>,
    /// How many runs were timed.
    pub runs: usize,
    /// The median of each round.
    pub rounds_ms: Vec<f64>,
    /// How far rounds scatter; see [`super::statistics::spread`].
    pub spread: Option<f64>,
    /// The times at 0, 1, … 100 percent.
    pub quantiles_ms: Vec<f64>,
    /// Where time goes, if that was asked for, or why it cannot be told.
    pub layers: Option<Result<Vec<Layer>, String>>,
}

/// An object with its keys in this order; values are JSON already.
fn object(pairs: &[(&str, String)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{}: {value}", Value::from(*key)))
        .collect();
    format!("{{{}}}", pairs.join(", "))
}

fn array(values: impl Iterator<Item = String>) -> String {
    let values: Vec<String> = values.collect();
    format!("[{}]", values.join(", "))
}

fn value(value: impl Into<Value>) -> String {
    value.into().to_string()
}

impl Report {
    /// One JSON object; keys in the order of a reader's interest.
    pub fn json(&self) -> String {
        let mut pairs = vec![
            ("model", value(self.model.as_str())),
            ("machine", value(self.system.short())),
            ("entries", array(self.entries.iter().map(entry))),
        ];
        let facts: Vec<(&str, String)> = self
            .system
            .facts()
            .into_iter()
            .map(|(name, fact)| (name, value(fact)))
            .collect();
        pairs.push(("system", object(&facts)));
        let noise = self.noise.map(|noise| {
            object(&[
                ("steal_percent", value(noise.steal_percent)),
                ("other_percent", value(noise.other_percent)),
                ("load_average", value(noise.load_average)),
            ])
        });
        pairs.push(("noise", noise.unwrap_or_else(|| value(Value::Null))));
        let peaks = self.peaks.iter().map(|(threads, peak)| {
            let bandwidth = self.bandwidths.get(threads);
            object(&[
                ("threads", value(*threads)),
                ("gflops", value(*peak)),
                ("memory_gb_per_s", value(bandwidth.map(|b| b.memory))),
                ("cache_gb_per_s", value(bandwidth.map(|b| b.cache))),
            ])
        });
        pairs.push(("peaks", array(peaks)));
        if let Some(comparison) = &self.comparison {
            pairs.push(("comparison", comparison.json()));
        }
        object(&pairs)
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut rows = vec![HEAD.map(str::to_string).to_vec()];
        rows.extend(self.entries.iter().map(Entry::cells));
        let mut text = format!("{}\n{}\n", self.model, self.system.short());
        for (threads, peak) in &self.peaks {
            text.push_str(&format!("peak with {threads} threads: {peak:.0} GFLOP/s\n"));
        }
        text.push_str(&aligned(&rows, 1));
        if let Some(comparison) = &self.comparison {
            text.push('\n');
            text.push_str(&comparison.text());
        }
        text
    }
}

fn entry(e: &Entry) -> String {
    let mut pairs = vec![
        ("name", value(e.name.as_str())),
        ("threads", value(e.threads)),
        ("p50_ms", value(e.p50_ms)),
        ("p90_ms", value(e.p90_ms)),
        ("p99_ms", value(e.p99_ms)),
        ("cold_ms", value(e.cold_ms)),
        ("peak_rss_mb", value(e.peak_rss_mb)),
        ("gflops", value(e.gflops)),
        ("percent_of_peak", value(e.percent_of_peak)),
        ("max_abs_error", value(e.max_abs_error)),
        ("kind", value(e.kind.name())),
        ("runs", value(e.runs)),
        ("spread_percent", value(e.spread.map(|s| 100.0 * s))),
        ("rounds_ms", array(e.rounds_ms.iter().map(|v| value(*v)))),
        (
            "quantiles_ms",
            array(e.quantiles_ms.iter().map(|v| value(*v))),
        ),
    ];
    match &e.layers {
        None => {}
        Some(Err(reason)) => pairs.push(("layers_missing", value(reason.as_str()))),
        Some(Ok(layers)) => pairs.push(("layers", array(layers.iter().map(layer)))),
    }
    object(&pairs)
}

fn layer(layer: &Layer) -> String {
    object(&[
        ("node", value(layer.node.as_str())),
        (
            "kind",
            value(if layer.library { "library" } else { "kernel" }),
        ),
        ("ms", value(layer.ms)),
        ("operations", value(layer.operations)),
        ("bytes", value(layer.bytes)),
        ("bound", value(layer.bound.name())),
        (
            "percent_of_roof",
            value(layer.of_roof.map(|part| 100.0 * part)),
        ),
    ])
}

impl Comparison {
    fn json(&self) -> String {
        let differences = self.differences.iter().map(|d| {
            object(&[
                ("name", value(d.name.as_str())),
                ("threads", value(d.threads)),
                ("old_p50_ms", value(d.old_ms)),
                ("new_p50_ms", value(d.new_ms)),
                ("ratio", value(d.ratio)),
                ("verdict", value(d.verdict.name())),
            ])
        });
        object(&[
            ("with", value(self.with.as_str())),
            (
                "warnings",
                array(self.warnings.iter().map(|w| value(w.as_str()))),
            ),
            ("differences", array(differences)),
        ])
    }

    /// The cells of each difference.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let row = |d: &Difference| {
            vec![
                d.name.clone(),
                d.threads.to_string(),
                significant(d.old_ms),
                significant(d.new_ms),
                format!("{:.3}", d.ratio),
                d.verdict.name().to_string(),
            ]
        };
        self.differences.iter().map(row).collect()
    }

    fn text(&self) -> String {
        let mut rows = vec![COMPARISON_HEAD.map(str::to_string).to_vec()];
        rows.extend(self.rows());
        let mut text = format!("compared with {}\n", self.with);
        for warning in &self.warnings {
            text.push_str(&format!("note: {warning}\n"));
        }
        if self.differences.is_empty() {
            text.push_str("no variant has the name and threads of one there\n");
            return text;
        }
        text.push_str(&aligned(&rows, 1));
        text
    }
}

pub const COMPARISON_HEAD: [&str; 6] = [
    "name",
    "threads",
    "old p50 ms",
    "new p50 ms",
    "new / old",
    "verdict",
];

pub const HEAD: [&str; 11] = [
    "name",
    "threads",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "cold ms",
    "peak MB",
    "GFLOP/s",
    "of peak",
    "max error",
    "noise",
];

impl Entry {
    /// The cells under [`HEAD`].
    pub fn cells(&self) -> Vec<String> {
        let shown =
            |value: Option<f64>, text: fn(f64) -> String| value.map_or("-".to_string(), text);
        vec![
            self.name.clone(),
            self.threads.to_string(),
            significant(self.p50_ms),
            significant(self.p90_ms),
            significant(self.p99_ms),
            shown(self.cold_ms, significant),
            shown(self.peak_rss_mb, |mb| format!("{mb:.1}")),
            shown(self.gflops, |g| format!("{g:.1}")),
            shown(self.percent_of_peak, |p| format!("{p:.0} %")),
            shown(self.max_abs_error, |e| format!("{e:.1e}")),
            shown(self.spread, |s| format!("{:.1} %", 100.0 * s)),
        ]
    }
}

/// Calls of a run with their share of the time.
pub fn profile(
    calls: &[Call],
    runs: usize,
    threads: usize,
    flops: Option<&[Option<f64>]>,
) -> String {
    let ms = |call: &Call| call.time.as_secs_f64() * 1e3 / runs.max(1) as f64;
    let total: f64 = calls.iter().map(ms).sum();
    // Steps and calls agree one to one, unless a step is a plain copy or part of a loop.
    let flops = flops.filter(|flops| flops.len() == calls.len());
    let mut rows = vec![
        ["share", "ms", "GFLOP/s", "kind", "node"]
            .map(str::to_string)
            .to_vec(),
    ];
    for (index, call) in calls.iter().enumerate() {
        let rate = flops
            .and_then(|flops| flops.get(index).copied().flatten())
            .filter(|flops| *flops > 0.0)
            .map(|flops| flops / ms(call) / 1e6);
        rows.push(vec![
            format!("{:.1} %", 100.0 * ms(call) / total.max(1e-12)),
            format!("{:.4}", ms(call)),
            rate.map_or("-".to_string(), |rate| format!("{rate:.1}")),
            if call.library { "library" } else { "kernel" }.to_string(),
            call.node.clone(),
        ]);
    }
    format!(
        "profile: {} calls, {total:.3} ms a run, {threads} threads, {runs} runs\n{}",
        calls.len(),
        aligned(&rows, 0)
    )
}

/// Columns; the first `left` ones and the last of a profile are flush left, numbers flush right.
fn aligned(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|c| {
            rows.iter()
                .filter_map(|r| r.get(c))
                .map(|t| t.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(c, (cell, width))| {
                let last_of_profile = left == 0 && c + 1 == columns;
                if c < left || last_of_profile {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Four significant digits.
pub fn significant(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_string();
    }
    let digits = (3 - value.abs().max(1e-9).log10().floor() as i32).clamp(0, 6);
    format!("{value:.*}", digits as usize)
}
