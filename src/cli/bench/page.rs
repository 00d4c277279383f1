//! A report as a page: the machine, latencies beside errors, distributions, time by layer, rooflines.

use std::fmt::Write;

use super::charts::{bars, distribution, layer_bars, roofline, title};
use super::layers::Layer;
use super::report::{COMPARISON_HEAD, Entry, HEAD, Kind, Report, significant};
use crate::cli::html::{escape, page, table};

const STYLE: &str = "
.bar{opacity:.85}.whisker{stroke:var(--text);stroke-width:1.4}
.curve{fill:none;stroke-width:2}.roof{stroke:var(--text);stroke-width:1.6}
.cacheroof{stroke:var(--dim);stroke-width:1.2;stroke-dasharray:5 4}
.compute{fill:var(--c0)}.memory{fill:var(--c1)}.neither{fill:var(--c7)}.unknown{fill:var(--line)}
.dot{fill-opacity:.65;stroke:var(--back);stroke-width:.7}";

/// The page.
pub fn html(report: &Report) -> String {
    let mut body = format!("<h1>Latency of {}</h1>\n", escape(&report.model));
    let rows: Vec<Vec<String>> = report.entries.iter().map(Entry::cells).collect();
    let _ = writeln!(
        body,
        "<div class=\"scroll\">{}</div>",
        table(&HEAD, &rows, 1)
    );
    body.push_str(
        "<p class=\"note\">p50, p90, p99: half, nine tenths, 99 hundredths of the runs took at most this. cold: load, \
         compile and first run in a fresh process. max error: the greatest difference from the expected outputs, or, \
         where there are none, of a peer from ours. noise: how far the medians of the rounds scatter.</p>",
    );
    if report.entries.iter().any(|e| e.kind == Kind::Process) {
        body.push_str(
            "<p class=\"note\">Rows named <b>process</b> are whole processes: each run starts the program, which reads \
             the model again. They do not compare with the other rows, but with their cold times.</p>",
        );
    }
    if let Some(comparison) = &report.comparison {
        let _ = writeln!(body, "<h2>Compared with {}</h2>", escape(&comparison.with));
        for warning in &comparison.warnings {
            let _ = writeln!(body, "<p class=\"note\">Note: {}</p>", escape(warning));
        }
        body.push_str(&table(&COMPARISON_HEAD, &comparison.rows(), 1));
        body.push_str(
            "<p class=\"note\">A difference counts where it is more than twice what the rounds of both runs scatter, \
             and more than 1 %.</p>",
        );
    }
    body.push_str("<h2>Latency and error</h2>\n");
    picture(&mut body, bars(&report.entries));
    body.push_str(
        "<p class=\"note\">Bars are medians; the line goes on to p90 (first tick) and p99 (second).</p>\n\
         <h2>Distribution</h2>\n",
    );
    picture(&mut body, distribution(&report.entries));
    body.push_str("<p class=\"note\">How many of the runs took at most so long.</p>\n");
    let own = report.entries.iter().filter(|e| e.layers.is_some());
    for (at, entry) in own.enumerate() {
        layers(&mut body, report, entry, at == 0);
    }
    machine(&mut body, report);
    page(&format!("{} - lapidary bench", report.model), STYLE, &body)
}

fn picture(body: &mut String, svg: String) {
    let _ = writeln!(body, "<div class=\"scroll\">{svg}</div>");
}

/// Bars by ONNX node, the roofline and a table of one variant.
fn layers(body: &mut String, report: &Report, entry: &Entry, open: bool) {
    let _ = writeln!(body, "<h2>Time by layer: {}</h2>", escape(&title(entry)));
    let layers = match &entry.layers {
        Some(Ok(layers)) if !layers.is_empty() => layers,
        Some(Err(reason)) => {
            let _ = writeln!(body, "<p class=\"note\">Not known: {}</p>", escape(reason));
            return;
        }
        _ => {
            body.push_str("<p class=\"note\">A run makes no calls.</p>\n");
            return;
        }
    };
    if !open {
        body.push_str("<details><summary>Layers and roofline of this variant</summary>\n");
    }
    let total: f64 = layers.iter().map(|l| l.ms).sum();
    let _ = writeln!(
        body,
        "<p class=\"note\">{} calls, {} ms a run, each under the ONNX node it came from (a kernel of several nodes \
         under its first). Calls are timed one by one, which adds to short ones.</p>",
        layers.len(),
        significant(total)
    );
    picture(body, layer_bars(layers, total));
    let peak = report.peaks.get(&entry.threads).copied();
    let bandwidth = report.bandwidths.get(&entry.threads).copied();
    if let (Some(peak), Some(bandwidth)) = (peak, bandwidth)
        && layers.iter().any(|l| l.of_roof.is_some())
    {
        body.push_str("<h3>Roofline</h3>\n");
        picture(body, roofline(layers, total, peak, bandwidth));
        body.push_str(
            "<p class=\"note\">Each dot is a call, its area the time it takes. Operations are those of the plan \
             (multiplications and additions; where there are none, scalar operations), bytes are the sizes of all \
             operands. The roof is what the processor and the memory reached in this run. Operands that an earlier call \
             left in a cache come faster than from memory: dots above the slope are such. Less than a fifth of its roof: \
             bound by neither.</p>\n",
        );
    }
    let rows: Vec<Vec<String>> = layers.iter().map(|layer| row(layer, total)).collect();
    let head = [
        "node", "bound by", "kind", "ms", "share", "Mop", "MB", "op/byte", "GFLOP/s", "of roof",
    ];
    let _ = writeln!(
        body,
        "<details><summary>All {} calls in order</summary>\n<div class=\"scroll\">{}</div></details>",
        layers.len(),
        table(&head, &rows, 2)
    );
    if !open {
        body.push_str("</details>\n");
    }
}

fn row(layer: &Layer, total: f64) -> Vec<String> {
    let shown = |value: Option<f64>| value.map_or("-".to_string(), significant);
    let (operations, bytes) = (layer.operations, layer.bytes);
    vec![
        layer.node.clone(),
        layer.bound.name().to_string(),
        if layer.library { "library" } else { "kernel" }.to_string(),
        format!("{:.4}", layer.ms),
        format!("{:.1} %", 100.0 * layer.ms / total.max(1e-12)),
        shown(operations.map(|n| n / 1e6)),
        shown(bytes.map(|n| n / 1e6)),
        shown(operations.zip(bytes).map(|(n, bytes)| n / bytes)),
        shown(operations.map(|n| n / layer.ms / 1e6)),
        layer
            .of_roof
            .map_or("-".to_string(), |part| format!("{:.0} %", 100.0 * part)),
    ]
}

/// What it was measured on, and how.
fn machine(body: &mut String, report: &Report) {
    body.push_str("<h2>Machine and noise</h2>\n");
    let mut rows: Vec<Vec<String>> = report
        .system
        .facts()
        .into_iter()
        .map(|(name, fact)| vec![name.to_string(), fact])
        .collect();
    for (threads, peak) in &report.peaks {
        let bandwidth = report.bandwidths.get(threads).map_or(String::new(), |b| {
            format!(
                ", memory {:.1} GB/s, second-level cache {:.1} GB/s",
                b.memory, b.cache
            )
        });
        rows.push(vec![
            format!("peak, threads: {threads}"),
            format!("{peak:.0} GFLOP/s (f32){bandwidth}"),
        ]);
    }
    if let Some(noise) = &report.noise {
        rows.push(vec![
            "taken by the host".to_string(),
            format!(
                "{:.1} % of all processor time while measuring",
                noise.steal_percent
            ),
        ]);
        rows.push(vec![
            "other processes".to_string(),
            format!(
                "{:.1} % of all processor time while measuring",
                noise.other_percent
            ),
        ]);
        rows.push(vec![
            "load average".to_string(),
            format!("{:.2} at the end", noise.load_average),
        ]);
    }
    body.push_str(&table(&["", ""], &rows, 2));
    body.push_str(
        "<p class=\"note\">All variants took turns in short rounds, so that what else the machine did hit them alike. \
         Peers ran at their defaults and stood still while others were measured. Start and memory are of fresh \
         processes.</p>\n",
    );
}
