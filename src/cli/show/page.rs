//! The page of a graph: its pictures before and after the passes, an index of names, and remarks.

use std::collections::HashMap;
use std::fmt::Write;

use lapidary_graph::{Graph, Groups, NodeId, Op};

use super::layout::layout;
use super::picture::{Block, Kind, Picture, picture};
use crate::cli::html::{escape, label, page, shorten, svg, table};

/// Characters of a line in a box.
const LINE: usize = 40;
const LINE_HEIGHT: f64 = 15.0;
/// The width of a character of a box's font.
const CHARACTER: f64 = 6.7;

const STYLE: &str = "
svg.graph text{font:11px ui-monospace,monospace}svg .box{stroke-width:1.2;rx:5}
svg .edge{fill:none;stroke:var(--edge);stroke-width:1.1}
.input,.output{fill:var(--back);stroke:var(--c7);stroke-dasharray:4 2}
.heavy{fill:color-mix(in srgb,var(--c0) 16%,var(--back));stroke:var(--c0)}
.row{fill:color-mix(in srgb,var(--c2) 16%,var(--back));stroke:var(--c2)}
.light{fill:var(--back);stroke:var(--edge)}
.call{fill:color-mix(in srgb,var(--c3) 16%,var(--back));stroke:var(--c3)}
.repeat{fill:color-mix(in srgb,var(--c4) 18%,var(--back));stroke:var(--c4);stroke-dasharray:6 3}
svg .time{fill:var(--heat)}svg.graph .first{font-weight:700}
ul.legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;font-size:.87rem}
ul.legend svg{display:inline-block;vertical-align:-2px}";

/// The time of each node's step in milliseconds.
pub type Times = HashMap<NodeId, f64>;

/// What the page tells.
pub struct Shown<'a> {
    pub name: &'a str,
    pub before: &'a Graph,
    pub after: &'a Graph,
    pub groups: &'a Groups,
    /// Passes that changed the graph and how many nodes each left.
    pub passes: Vec<(String, usize)>,
    pub remarks: Vec<String>,
    pub times: Option<Times>,
    /// The inputs that the times are of.
    pub timed: String,
    /// Whether repeated blocks are drawn once.
    pub fold: bool,
}

/// The page as HTML.
pub fn html(shown: &Shown<'_>) -> String {
    let mut body = format!("<h1>{}</h1>\n", escape(shown.name));
    let total = shown
        .times
        .as_ref()
        .map(|times| times.values().sum::<f64>());
    let _ = write!(
        body,
        "<p>{} nodes as imported, {} after the passes, in {} groups.{} \
         <a href=\"#before\">Before</a> · <a href=\"#after\">After</a> · <a href=\"#names\">Names</a> · \
         <a href=\"#passes\">Passes and remarks</a></p>",
        shown.before.order.len(),
        shown.after.order.len(),
        shown.groups.len(),
        total.map_or(String::new(), |ms| {
            let inputs = escape(&shown.timed);
            format!(" {ms:.3} ms a run in its steps, on one thread, inputs: {inputs}.")
        }),
    );
    body.push_str(
        "<p class=\"note\">Data flows from top to bottom. Hold the pointer over a box for its operators, names and \
         shapes. Constants are listed there. A block that follows itself unchanged is drawn once.</p>",
    );
    body.push_str(&legend());
    let mut names = Vec::new();
    body.push_str(
        "<h2 id=\"after\">After the passes: fusion groups, each a kernel or a call</h2>\n",
    );
    graphs(
        shown.after,
        Some(shown.groups),
        shown,
        "a",
        &mut body,
        &mut names,
    );
    body.push_str("<h2 id=\"before\">Before the passes: nodes as imported</h2>\n");
    graphs(shown.before, None, shown, "b", &mut body, &mut Vec::new());

    body.push_str("<h2 id=\"names\">ONNX names and where they went</h2>\n<table><tbody>\n");
    for (name, anchor, what) in names {
        let _ = writeln!(
            body,
            "<tr><td class=\"left\"><a href=\"#{anchor}\">{}</a></td><td class=\"left\">{}</td></tr>",
            escape(&name),
            escape(&what)
        );
    }
    body.push_str("</tbody></table>\n<h2 id=\"passes\">Passes that changed the graph</h2>\n");
    let rows: Vec<Vec<String>> = shown
        .passes
        .iter()
        .map(|(name, nodes)| vec![name.clone(), nodes.to_string()])
        .collect();
    body.push_str(&table(&["pass", "nodes after it"], &rows, 1));
    if !shown.remarks.is_empty() {
        body.push_str("<h2>Remarks</h2>\n<ul>\n");
        for remark in &shown.remarks {
            let _ = writeln!(body, "<li>{}</li>", escape(remark));
        }
        body.push_str("</ul>\n");
    }
    page(&format!("{} - lapidary show", shown.name), STYLE, &body)
}

/// The picture of a graph, and those of the bodies of its regions.
fn graphs(
    graph: &Graph,
    groups: Option<&Groups>,
    shown: &Shown<'_>,
    prefix: &str,
    body: &mut String,
    names: &mut Vec<(String, String, String)>,
) {
    let picture = picture(graph, groups, shown.fold);
    // Times are those of the steps of the model itself.
    let times = shown.times.as_ref().filter(|_| prefix == "a");
    let _ = writeln!(
        body,
        "<div class=\"scroll\">{}</div>",
        draw(&picture, times, prefix)
    );
    for (at, block) in picture.blocks.iter().enumerate() {
        for name in &block.names {
            let what = block.lines.first().cloned().unwrap_or_default();
            names.push((name.clone(), format!("{prefix}{at}"), what));
        }
    }
    for n in &graph.order {
        let Op::Region(region) = &graph.nodes[*n].op else {
            continue;
        };
        for (at, inner) in region.bodies.iter().enumerate() {
            let inside = groups.and_then(|g| g.bodies.get(n)?.get(at));
            let _ = writeln!(
                body,
                "<h3>Body {} of {}</h3>",
                at + 1,
                escape(graph.nodes[*n].name())
            );
            let prefix = format!("{prefix}{}-{at}-", n.0);
            graphs(&inner.graph, inside, shown, &prefix, body, names);
        }
    }
}

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Input => "input",
        Kind::Output => "output",
        Kind::Heavy => "heavy",
        Kind::Row => "row",
        Kind::Light => "light",
        Kind::Call => "call",
        Kind::Repeat => "repeat",
    }
}

fn legend() -> String {
    let kinds = [
        (Kind::Heavy, "contractions, convolutions, attention"),
        (Kind::Row, "reductions, normalisations, pools"),
        (Kind::Light, "pointwise operators, views"),
        (Kind::Call, "library calls, regions"),
        (Kind::Repeat, "repeated blocks"),
        (Kind::Input, "inputs and outputs"),
    ];
    let mut out = String::from("<ul class=\"legend\">");
    for (kind, text) in kinds {
        let _ = write!(
            out,
            "<li><svg xmlns=\"http://www.w3.org/2000/svg\" width=\"22\" height=\"14\"><rect class=\"box {}\" x=\"1\" \
             y=\"1\" width=\"20\" height=\"12\"/></svg> {text}</li>",
            class(kind)
        );
    }
    out.push_str("</ul>\n");
    out
}

/// A box's lines, cut to its width.
fn lines(block: &Block) -> Vec<String> {
    let lines = block.lines.iter().filter(|line| !line.is_empty());
    lines.map(|line| shorten(line, LINE)).collect()
}

fn draw(picture: &Picture, times: Option<&Times>, prefix: &str) -> String {
    let time_of = |block: &Block| {
        let times = times?;
        let known: Vec<f64> = block
            .nodes
            .iter()
            .filter_map(|n| times.get(n).copied())
            .collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>())
    };
    let total: f64 = times.map_or(0.0, |times| times.values().sum());
    let texts: Vec<(Vec<String>, Option<f64>)> = picture
        .blocks
        .iter()
        .map(|block| {
            let time = time_of(block);
            let mut lines = lines(block);
            lines.extend(
                time.map(|ms| format!("{ms:.3} ms  {:.1} %", 100.0 * ms / total.max(1e-12))),
            );
            (lines, time)
        })
        .collect();
    let sizes: Vec<(f64, f64)> = texts
        .iter()
        .map(|(lines, _)| {
            let longest = lines.iter().map(|l| l.chars().count()).max().unwrap_or(0);
            (
                longest as f64 * CHARACTER + 20.0,
                lines.len() as f64 * LINE_HEIGHT + 10.0,
            )
        })
        .collect();
    let placed = layout(&sizes, &picture.edges);
    let mut inside = String::new();
    for points in &placed.edges {
        let _ = writeln!(inside, "<path class=\"edge\" d=\"{}\"/>", path(points));
    }
    for (at, block) in picture.blocks.iter().enumerate() {
        let ((x, y), (width, height)) = (placed.centres[at], sizes[at]);
        let (left, top) = (x - width / 2.0, y - height / 2.0);
        let (lines, time) = &texts[at];
        let _ = write!(
            inside,
            "<g id=\"{prefix}{at}\"><title>{}</title><rect class=\"box {}\" x=\"{left:.1}\" y=\"{top:.1}\" \
             width=\"{width:.1}\" height=\"{height:.1}\"/>",
            escape(block.details.trim_end()),
            class(block.kind)
        );
        if let Some(ms) = time {
            let part = (ms / total.max(1e-12)).clamp(0.0, 1.0);
            let _ = write!(
                inside,
                "<rect class=\"time\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"4\"/>",
                left + 3.0,
                top + height - 5.0,
                part * (width - 6.0)
            );
        }
        for (row, text) in lines.iter().enumerate() {
            let class = if row == 0 { "first" } else { "" };
            let y = top + 15.0 + row as f64 * LINE_HEIGHT;
            inside.push_str(&label(x, y, "middle", class, text));
        }
        inside.push_str("</g>\n");
    }
    svg(placed.width, placed.height, "the graph", &inside).replacen(
        "<svg ",
        "<svg class=\"graph\" ",
        1,
    )
}

/// A curve through points that lead downwards.
fn path(points: &[(f64, f64)]) -> String {
    let mut out = String::new();
    let mut last: Option<(f64, f64)> = None;
    for &(x, y) in points {
        match last {
            None => {
                let _ = write!(out, "M{x:.1} {y:.1}");
            }
            Some((a, _)) if (a - x).abs() < 0.05 => {
                let _ = write!(out, "V{y:.1}");
            }
            Some((a, b)) => {
                let middle = (b + y) / 2.0;
                let _ = write!(out, "C{a:.1} {middle:.1} {x:.1} {middle:.1} {x:.1} {y:.1}");
            }
        }
        last = Some((x, y));
    }
    out
}
