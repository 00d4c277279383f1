//! What the picture of a graph shows: boxes and edges, with repeated blocks drawn once.
//!
//! In: a graph, alone (a box a node) or with its groups (a box a group). Out: boxes in an order in which they can run.
//! Constants are no boxes: they stand among the details of those that read them.
//!
//! Networks repeat blocks; a block that follows itself with the same operators and shapes is drawn once, and the
//! others are one box that says how many they are.

use std::collections::HashMap;

use lapidary_graph::{Graph, Groups, NodeData, NodeId, Op, TensorType, ValueId};

/// Fewer boxes than this are not worth leaving out.
const WORTH: usize = 4;
/// The longest block that is sought.
const LONGEST_BLOCK: usize = 400;

/// What a box stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Input,
    Output,
    /// Contractions, convolutions and attention: what computes most.
    Heavy,
    /// Reductions, normalisations, pools.
    Row,
    /// Pointwise operators and views.
    Light,
    /// Calls of library functions and regions.
    Call,
    /// Blocks that are left out.
    Repeat,
}

/// A box.
#[derive(Clone, Debug)]
pub struct Block {
    pub kind: Kind,
    /// Lines of text: what it does, the ONNX name, the shape.
    pub lines: Vec<String>,
    /// All that there is to say.
    pub details: String,
    /// ONNX names that it stands for, for the index.
    pub names: Vec<String>,
    /// The nodes of the graph that it stands for.
    pub nodes: Vec<NodeId>,
}

/// Boxes, and edges as pairs of their numbers.
pub struct Picture {
    pub blocks: Vec<Block>,
    pub edges: Vec<(usize, usize)>,
}

/// A box a node, or a box a group.
pub fn picture(graph: &Graph, groups: Option<&Groups>, fold: bool) -> Picture {
    let units: Vec<(String, Vec<NodeId>)> = match groups {
        None => graph
            .order
            .iter()
            .map(|n| (graph.nodes[*n].op.name().to_string(), vec![*n]))
            .collect(),
        Some(groups) => groups
            .iter()
            .map(|g| (operators(graph, &g.nodes), g.nodes.clone()))
            .collect(),
    };
    let mut blocks = Vec::new();
    let mut of_value: HashMap<ValueId, usize> = HashMap::new();
    for &v in &graph.inputs {
        of_value.insert(v, blocks.len());
        blocks.push(end(graph, Kind::Input, "input", &graph.values[v].name, v));
    }
    let first = blocks.len();
    for (what, nodes) in units {
        for v in nodes.iter().flat_map(|n| &graph.nodes[*n].outputs) {
            of_value.insert(*v, blocks.len());
        }
        blocks.push(unit(graph, &what, nodes));
    }
    let last = blocks.len();
    let mut edges = Vec::new();
    for (at, block) in blocks.iter().enumerate() {
        for v in reads(graph, &block.nodes) {
            if let Some(&from) = of_value.get(&v)
                && from != at
            {
                edges.push((from, at));
            }
        }
    }
    for (name, v) in &graph.outputs {
        if let Some(&from) = of_value.get(v) {
            edges.push((from, blocks.len()));
        }
        blocks.push(end(graph, Kind::Output, "output", name, *v));
    }
    edges.sort_unstable();
    edges.dedup();
    let mut picture = Picture { blocks, edges };
    if fold {
        picture.fold(first, last);
    }
    picture
}

/// An input or output of the graph.
fn end(graph: &Graph, kind: Kind, role: &str, name: &str, v: ValueId) -> Block {
    let ty = type_text(graph, graph.ty(v));
    Block {
        kind,
        lines: vec![format!("{role} {name}"), ty.clone()],
        details: format!("{role} {name}: {ty}"),
        names: vec![name.to_string()],
        nodes: Vec::new(),
    }
}

/// A node or group.
fn unit(graph: &Graph, what: &str, nodes: Vec<NodeId>) -> Block {
    let data: Vec<&NodeData> = nodes.iter().map(|n| &graph.nodes[*n]).collect();
    let mut names: Vec<String> = Vec::new();
    for name in data.iter().flat_map(|n| &n.origin) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let inside: Vec<ValueId> = data.iter().flat_map(|n| n.outputs.clone()).collect();
    let results: Vec<String> = data
        .last()
        .map(|n| {
            n.outputs
                .iter()
                .map(|v| type_text(graph, graph.ty(*v)))
                .collect()
        })
        .unwrap_or_default();
    let mut details = format!("{what}\n");
    for node in &data {
        details.push_str(&format!(
            "{}   {}\n",
            node.op.name(),
            node.origin.join(" | ")
        ));
    }
    for v in reads(graph, &nodes) {
        let role = match graph.constant(v) {
            Some(_) => "constant",
            None => "reads",
        };
        let value = &graph.values[v];
        details.push_str(&format!(
            "{role} {}: {}\n",
            value.name,
            type_text(graph, &value.ty)
        ));
    }
    for v in inside {
        let value = &graph.values[v];
        details.push_str(&format!(
            "makes {}: {}\n",
            value.name,
            type_text(graph, &value.ty)
        ));
    }
    let mut lines = vec![what.to_string()];
    lines.extend(names.first().cloned());
    lines.push(results.join(", "));
    Block {
        kind: data
            .iter()
            .map(|n| kind(&n.op))
            .max_by_key(|k| weight(*k))
            .unwrap_or(Kind::Light),
        lines,
        details,
        names,
        nodes,
    }
}

/// The values that some nodes read from outside of them, each once.
fn reads(graph: &Graph, nodes: &[NodeId]) -> Vec<ValueId> {
    let mut all = Vec::new();
    for v in nodes
        .iter()
        .flat_map(|n| graph.nodes[*n].inputs.iter().flatten())
    {
        let own = graph.producer(*v).is_some_and(|p| nodes.contains(&p));
        if !own && !all.contains(v) {
            all.push(*v);
        }
    }
    all
}

/// `attention, reshape ×2`: what computes most first.
fn operators(graph: &Graph, nodes: &[NodeId]) -> String {
    let mut counts: Vec<(&Op, usize)> = Vec::new();
    for n in nodes {
        let op = &graph.nodes[*n].op;
        match counts
            .iter_mut()
            .find(|(known, _)| known.name() == op.name())
        {
            Some((_, count)) => *count += 1,
            None => counts.push((op, 1)),
        }
    }
    counts.sort_by_key(|(op, _)| std::cmp::Reverse(weight(kind(op))));
    let parts: Vec<String> = counts
        .iter()
        .map(|(op, count)| match count {
            1 => op.name().to_string(),
            _ => format!("{} ×{count}", op.name()),
        })
        .collect();
    parts.join(", ")
}

fn kind(op: &Op) -> Kind {
    match op {
        Op::Contract { .. }
        | Op::Conv { .. }
        | Op::ConvTranspose { .. }
        | Op::Attention(_)
        | Op::Trees(_) => Kind::Heavy,
        Op::Reduce { .. }
        | Op::ArgReduce { .. }
        | Op::CumSum { .. }
        | Op::Softmax { .. }
        | Op::Normalize { .. }
        | Op::Pool { .. } => Kind::Row,
        Op::Library(_) | Op::Region(_) => Kind::Call,
        _ => Kind::Light,
    }
}

fn weight(kind: Kind) -> u8 {
    match kind {
        Kind::Call => 3,
        Kind::Heavy => 2,
        Kind::Row => 1,
        _ => 0,
    }
}

/// `f32[batch, 64, 56, 56]`
pub fn type_text(graph: &Graph, ty: &TensorType) -> String {
    if !ty.is_tensor() {
        return format!("{:?} of {}", ty.containers, ty.dtype);
    }
    match &ty.shape {
        None => format!("{}[…]", ty.dtype),
        Some(dims) => {
            let dims: Vec<String> = dims.iter().map(|d| graph.dim_text(d)).collect();
            format!("{}[{}]", ty.dtype, dims.join(", "))
        }
    }
}

/// Blocks that follow each other: where the first begins, the boxes of one, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Repetition {
    start: usize,
    period: usize,
    times: usize,
}

impl Repetition {
    fn saved(&self) -> usize {
        (self.times - 1) * self.period
    }
}

impl Picture {
    /// Folds repetitions among the boxes from `first` to `last`.
    fn fold(&mut self, first: usize, last: usize) {
        let mut known: HashMap<(&str, &str), u32> = HashMap::new();
        let signs: Vec<u32> = self.blocks[first..last]
            .iter()
            .map(|b| {
                let what = b.lines.first().map_or("", String::as_str);
                let shape = b.lines.last().map_or("", String::as_str);
                let next = known.len() as u32;
                *known.entry((what, shape)).or_insert(next)
            })
            .collect();
        let mut found = Vec::new();
        repetitions(&signs, first, &mut found);
        found.sort_by_key(|r| r.start);

        // Where each box goes.
        let mut target = Vec::with_capacity(self.blocks.len());
        let mut blocks = Vec::new();
        let mut at = 0;
        for r in found {
            let rest = r.start + r.period;
            while at < rest {
                target.push(blocks.len());
                blocks.push(self.blocks[at].clone());
                at += 1;
            }
            let end = r.start + r.period * r.times;
            let mut repeat = Block {
                kind: Kind::Repeat,
                lines: vec![
                    match r.times - 1 {
                        1 => "once more the same".to_string(),
                        n => format!("{n} times more the same"),
                    },
                    format!("{} boxes each", r.period),
                ],
                details: format!(
                    "the {} boxes before, {} times more:\n",
                    r.period,
                    r.times - 1
                ),
                names: Vec::new(),
                nodes: Vec::new(),
            };
            for block in &self.blocks[rest..end] {
                target.push(blocks.len());
                let name = block.names.first().map_or("", String::as_str);
                let what = block.lines.first().map_or("", String::as_str);
                repeat.details.push_str(&format!("{what}   {name}\n"));
                repeat.names.extend(block.names.iter().cloned());
                repeat.nodes.extend(&block.nodes);
            }
            blocks.push(repeat);
            at = end;
        }
        for block in &self.blocks[at..] {
            target.push(blocks.len());
            blocks.push(block.clone());
        }
        let moved = self.edges.iter().map(|(a, b)| (target[*a], target[*b]));
        let mut edges: Vec<(usize, usize)> = moved.filter(|(a, b)| a != b).collect();
        edges.sort_unstable();
        edges.dedup();
        *self = Picture { blocks, edges };
    }
}

/// The repetition that saves most, and those to both sides of it.
fn repetitions(signs: &[u32], offset: usize, found: &mut Vec<Repetition>) {
    let mut best: Option<Repetition> = None;
    for period in 1..=(signs.len() / 2).min(LONGEST_BLOCK) {
        let mut run = 0;
        for at in period..=signs.len() {
            if at < signs.len() && signs[at] == signs[at - period] {
                run += 1;
                continue;
            }
            if run >= period {
                let candidate = Repetition {
                    start: at - run - period,
                    period,
                    times: run / period + 1,
                };
                if best.is_none_or(|b| candidate.saved() > b.saved()) {
                    best = Some(candidate);
                }
            }
            run = 0;
        }
    }
    let Some(best) = best.filter(|b| b.saved() >= WORTH) else {
        return;
    };
    let end = best.start + best.period * best.times;
    repetitions(&signs[..best.start], offset, found);
    repetitions(&signs[end..], offset + end, found);
    found.push(Repetition {
        start: best.start + offset,
        ..best
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_follow_themselves_are_found_and_what_is_around_is_left() {
        let mut found = Vec::new();
        repetitions(
            &[9, 1, 2, 3, 1, 2, 3, 1, 2, 3, 7, 5, 6, 4, 5, 6, 4, 5],
            2,
            &mut found,
        );
        found.sort_by_key(|r| r.start);
        let first = Repetition {
            start: 3,
            period: 3,
            times: 3,
        };
        assert_eq!(found, [first]);
        found.clear();
        repetitions(&[1, 2, 1, 2], 0, &mut found);
        assert!(found.is_empty(), "two boxes are not worth it");
    }
}
