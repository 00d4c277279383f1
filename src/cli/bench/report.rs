//! What a measurement looks like: JSON, a table, a profile.

use std::collections::BTreeMap;

use serde_json::Value;

use super::profile::Call;

/// A row.
pub struct Entry {
    pub name: String,
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
}

/// One JSON object; keys in the order of a reader's interest.
pub fn json(model: &str, entries: &[Entry]) -> String {
    let object = |pairs: &[(&str, Value)]| {
        let pairs: Vec<String> = pairs
            .iter()
            .map(|(key, value)| format!("{}: {value}", Value::from(*key)))
            .collect();
        format!("{{{}}}", pairs.join(", "))
    };
    let entries: Vec<String> = entries
        .iter()
        .map(|e| {
            object(&[
                ("name", e.name.as_str().into()),
                ("threads", e.threads.into()),
                ("p50_ms", e.p50_ms.into()),
                ("p90_ms", e.p90_ms.into()),
                ("p99_ms", e.p99_ms.into()),
                ("cold_ms", e.cold_ms.into()),
                ("peak_rss_mb", e.peak_rss_mb.into()),
                ("gflops", e.gflops.into()),
                ("percent_of_peak", e.percent_of_peak.into()),
                ("max_abs_error", e.max_abs_error.into()),
            ])
        })
        .collect();
    format!(
        "{{\"model\": {}, \"machine\": {}, \"entries\": [{}]}}",
        Value::from(model),
        Value::from(machine()),
        entries.join(", ")
    )
}

/// A table for people.
pub fn table(model: &str, entries: &[Entry], peaks: &BTreeMap<usize, f64>) -> String {
    let head = [
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
    ];
    let number = |value: Option<f64>| value.map_or("-".to_string(), significant);
    let mut rows = vec![head.map(str::to_string).to_vec()];
    for e in entries {
        rows.push(vec![
            e.name.clone(),
            e.threads.to_string(),
            significant(e.p50_ms),
            significant(e.p90_ms),
            significant(e.p99_ms),
            number(e.cold_ms),
            e.peak_rss_mb
                .map_or("-".to_string(), |mb| format!("{mb:.1}")),
            e.gflops.map_or("-".to_string(), |g| format!("{g:.1}")),
            e.percent_of_peak
                .map_or("-".to_string(), |p| format!("{p:.0} %")),
            e.max_abs_error
                .map_or("-".to_string(), |e| format!("{e:.1e}")),
        ]);
    }
    let mut text = format!("{model}\n{}\n", machine());
    for (threads, peak) in peaks {
        text.push_str(&format!("peak with {threads} threads: {peak:.0} GFLOP/s\n"));
    }
    text.push_str(&aligned(&rows, 1));
    text
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
fn significant(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_string();
    }
    let digits = (3 - value.abs().max(1e-9).log10().floor() as i32).clamp(0, 6);
    format!("{value:.*}", digits as usize)
}

/// The processor's name and how many there are.
pub fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .and_then(|rest| rest.split_once(':'))
        .map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{name}, {processors} processors")
}
