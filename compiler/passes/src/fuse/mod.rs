//! Fusion: sorts the live nodes into groups, each of which lowering turns into one kernel.
//!
//! The order of forming decides who gets a node that two groups could take:
//! 1. anchors (`anchor`): a contraction, convolution, pool or attention takes the pointwise nodes
//!    on its result, and views of its operands;
//! 2. rows (`row`): reductions over trailing axes, with the pointwise nodes around them;
//! 3. pointwise (`point`): chains of pointwise nodes, views and gathers, from their ends backwards;
//! 4. every other node by itself.
//!
//! Invariants: the groups partition the live nodes; a value that only its own group reads is in no
//! `outputs`; no two groups wait for each other, and each follows those that it reads from.

mod anchor;
mod point;
mod row;

use crate::order;
use crate::remark::{Remark, Remarks};
use lapidary_graph::{
    DType, Dim, Graph, Group, GroupKind, Groups, NodeId, Op, PwNode, PwOp, Sym, SymbolOrigin,
    ValueId,
};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};
use std::collections::BTreeSet;

/// Members of a group at most, and scalar operations that they may come to. A model decides how long its chains are; a
/// kernel takes memory, stack and more than linear time to compile, and saves nothing by being longer than this.
const MOST_NODES: usize = 256;
const MOST_WORK: usize = 4096;
/// Nodes that are asked at most whether they lead from a group back into it; what is farther is taken to.
const FAR: usize = 2048;

/// Forms the groups, in an order in which they can run; those of bodies as well.
pub fn fuse(graph: &Graph) -> (Groups, Vec<Remark>) {
    let mut former = Former::new(graph);
    anchor::form(&mut former);
    row::form(&mut former);
    point::form(&mut former);
    let (list, mut remarks) = former.finish();
    let mut groups = Groups {
        list,
        ..Default::default()
    };
    for n in &graph.order {
        let Op::Region(region) = &graph.nodes[*n].op else {
            continue;
        };
        let mut bodies = Vec::with_capacity(region.bodies.len());
        for body in &region.bodies {
            let (inside, more) = fuse(&body.graph);
            bodies.push(inside);
            remarks.extend(more);
        }
        groups.bodies.insert(*n, bodies);
    }
    (groups, remarks)
}

/// The groups as text: kind, the values that leave, the nodes' operators and ONNX names.
pub fn groups_text(graph: &Graph, groups: &Groups) -> String {
    let mut text = String::new();
    write_groups(graph, groups, "", &mut text);
    text
}

fn write_groups(graph: &Graph, groups: &Groups, indent: &str, text: &mut String) {
    for g in groups.iter() {
        let outputs: Vec<&str> = g
            .outputs
            .iter()
            .map(|v| graph.values[*v].name.as_str())
            .collect();
        let nodes = g.nodes.iter().map(|n| &graph.nodes[*n]);
        let ops: Vec<&str> = nodes.clone().map(|n| n.op.name()).collect();
        let mut names: Vec<&str> = Vec::new();
        for name in nodes.flat_map(|n| &n.origin) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        text.push_str(&format!(
            "{indent}{:?} [{}] -> {}",
            g.kind,
            ops.join(" "),
            outputs.join(", ")
        ));
        if !names.is_empty() {
            text.push_str(&format!("   ; {}", names.join(" | ")));
        }
        text.push('\n');
        for n in &g.nodes {
            let Op::Region(region) = &graph.nodes[*n].op else {
                continue;
            };
            let inside = groups.bodies.get(n).into_iter().flatten();
            for (body, groups) in region.bodies.iter().zip(inside) {
                text.push_str(&format!("{indent}  body \"{}\"\n", body.graph.name));
                write_groups(&body.graph, groups, &format!("{indent}    "), text);
            }
        }
    }
}

/// For each node that speaks of sizes which data decides, in its operator or its results, the nodes that make them.
fn makers(graph: &Graph) -> HashMap<NodeId, Vec<NodeId>> {
    let made: HashMap<Sym, NodeId> = graph
        .symbols
        .iter()
        .filter_map(|(s, data)| match data.origin {
            SymbolOrigin::Node { node, .. } => Some((s, node)),
            _ => None,
        })
        .collect();
    let mut makers: HashMap<NodeId, Vec<NodeId>> = HashMap::default();
    if made.is_empty() {
        return makers;
    }
    let live: HashSet<NodeId> = graph.order.iter().copied().collect();
    for n in &graph.order {
        let node = &graph.nodes[*n];
        let mut symbols = BTreeSet::new();
        let dims = node.op.dims();
        let outputs = node
            .outputs
            .iter()
            .filter_map(|v| graph.ty(*v).shape.as_ref());
        for d in dims.iter().chain(outputs.flatten()) {
            d.collect_symbols(&mut symbols);
        }
        let of = symbols.iter().filter_map(|s| made.get(s));
        let of: Vec<NodeId> = of.copied().filter(|m| m != n && live.contains(m)).collect();
        if !of.is_empty() {
            makers.insert(*n, of);
        }
    }
    makers
}

struct Draft {
    kind: GroupKind,
    anchor: Option<NodeId>,
    nodes: Vec<NodeId>,
}

/// Groups in the making.
struct Former<'g> {
    graph: &'g Graph,
    /// Readers of each value.
    uses: Vec<Vec<NodeId>>,
    is_output: Vec<bool>,
    /// For nodes that speak of sizes which data decides: the nodes that make those.
    makers: HashMap<NodeId, Vec<NodeId>>,
    /// Place in the order of each live node.
    position: Vec<usize>,
    /// For each place, how many groups have members before it and members at or behind it.
    spanned: Vec<u32>,
    group: Vec<Option<usize>>,
    drafts: Vec<Draft>,
    remarks: Remarks,
}

impl<'g> Former<'g> {
    fn new(graph: &'g Graph) -> Self {
        let mut position = vec![usize::MAX; graph.nodes.len()];
        for (i, n) in graph.order.iter().enumerate() {
            position[n.0 as usize] = i;
        }
        let mut is_output = vec![false; graph.values.len()];
        for (_, v) in &graph.outputs {
            is_output[v.0 as usize] = true;
        }
        Former {
            graph,
            uses: graph.uses(),
            is_output,
            makers: makers(graph),
            position,
            spanned: vec![0; graph.order.len()],
            group: vec![None; graph.nodes.len()],
            drafts: Vec::new(),
            remarks: Remarks::default(),
        }
    }
    fn op(&self, n: NodeId) -> &'g Op {
        &self.graph.nodes[n].op
    }
    fn is_pointwise(&self, n: NodeId) -> bool {
        matches!(self.op(n), Op::Pointwise { .. }) && self.ranked(n)
    }
    /// Whether all types of a node have a rank and a fixed width: fusion passes the others by.
    fn ranked(&self, n: NodeId) -> bool {
        let node = &self.graph.nodes[n];
        let values = node.inputs.iter().flatten().chain(&node.outputs);
        values
            .into_iter()
            .all(|v| self.graph.ty(*v).shape.is_some() && self.graph.ty(*v).dtype != DType::String)
    }
    fn free(&self, n: NodeId) -> bool {
        self.group[n.0 as usize].is_none()
    }
    fn out(&self, n: NodeId) -> ValueId {
        self.graph.nodes[n].outputs[0]
    }
    fn out_dims(&self, n: NodeId) -> &'g [Dim] {
        self.graph.dims(self.out(n))
    }
    fn readers(&self, v: ValueId) -> &[NodeId] {
        &self.uses[v.0 as usize]
    }
    fn name(&self, n: NodeId) -> &'g str {
        self.graph.nodes[n].name()
    }
    /// Whether a value is read outside `nodes`.
    fn escapes(&self, v: ValueId, nodes: &[NodeId]) -> bool {
        self.is_output[v.0 as usize] || self.readers(v).iter().any(|r| !nodes.contains(r))
    }
    /// The values of `nodes` that are read outside.
    fn exits(&self, nodes: &[NodeId]) -> Vec<ValueId> {
        let made = nodes.iter().flat_map(|n| &self.graph.nodes[*n].outputs);
        made.copied().filter(|v| self.escapes(*v, nodes)).collect()
    }
    /// Whether a group of `nodes` may take one more.
    fn room(&self, nodes: &[NodeId], more: NodeId) -> bool {
        nodes.len() < MOST_NODES
            && nodes.iter().map(|n| self.work(*n)).sum::<usize>() + self.work(more) <= MOST_WORK
    }
    /// About how many scalar operations a node comes to.
    fn work(&self, n: NodeId) -> usize {
        let Op::Pointwise { body, .. } = self.op(n) else {
            return 1;
        };
        let one = |p: &PwNode| match p.op {
            // A step for each bit of the exponent.
            PwOp::Pow if p.dtype.is_int() => 8 * p.dtype.bits(),
            PwOp::Div | PwOp::Mod | PwOp::Fmod if p.dtype.is_int() => 16,
            PwOp::Cast if p.dtype.is_minifloat() => 32,
            _ => 1,
        };
        body.nodes.iter().map(one).sum()
    }
    /// Whether a group of `nodes` would wait for itself: some input of it is computed, through
    /// other nodes or groups, from one of its own values.
    fn waits_for_itself(&self, nodes: &[NodeId]) -> bool {
        // What stands before the group, at a place that no other group spans, does not lead back.
        let first = nodes.iter().map(|n| self.position[n.0 as usize]).min();
        let mut first = first.unwrap_or(0);
        while self.spanned.get(first).is_some_and(|groups| *groups > 0) {
            first -= 1;
        }
        let inside: HashSet<NodeId> = nodes.iter().copied().collect();
        let (mut met, mut met_group) = (HashSet::default(), HashSet::default());
        let near = |n: &NodeId| self.position[n.0 as usize] >= first;
        let sources = |n: NodeId| self.sources(n).filter(near);
        let mut stack: Vec<NodeId> = nodes
            .iter()
            .flat_map(|n| sources(*n))
            .filter(|p| !inside.contains(p))
            .collect();
        while let Some(n) = stack.pop() {
            if inside.contains(&n) || met.len() > FAR {
                return true;
            }
            if !met.insert(n) {
                continue;
            }
            match self.group[n.0 as usize] {
                Some(g) => {
                    if met_group.insert(g) {
                        for m in &self.drafts[g].nodes {
                            met.insert(*m);
                            stack.extend(sources(*m).filter(|p| !met.contains(p)));
                        }
                    }
                }
                None => stack.extend(sources(n).filter(|p| !met.contains(p))),
            }
        }
        false
    }
    /// The nodes that make a node's inputs, and the sizes that it speaks of.
    fn sources(&self, n: NodeId) -> impl Iterator<Item = NodeId> + use<'_, 'g> {
        let graph = self.graph;
        let inputs = graph.nodes[n].inputs.iter().flatten();
        let sizes = self.makers.get(&n).into_iter().flatten().copied();
        inputs.filter_map(move |v| graph.producer(*v)).chain(sizes)
    }
    fn add(&mut self, kind: GroupKind, anchor: Option<NodeId>, mut nodes: Vec<NodeId>) {
        nodes.sort_by_key(|n| self.position[n.0 as usize]);
        for n in &nodes {
            self.group[n.0 as usize] = Some(self.drafts.len());
        }
        if let (Some(first), Some(last)) = (nodes.first(), nodes.last()) {
            let span = self.position[first.0 as usize] + 1..=self.position[last.0 as usize];
            self.spanned[span].iter_mut().for_each(|n| *n += 1);
        }
        self.drafts.push(Draft {
            kind,
            anchor,
            nodes,
        });
    }
    fn finish(mut self) -> (Vec<Group>, Vec<Remark>) {
        for n in &self.graph.order {
            if self.free(*n) {
                self.add(GroupKind::Single, None, vec![*n]);
            }
        }
        // By the place of the last node, so that the result stays near the graph's order.
        let last = |d: &Draft| d.nodes.iter().map(|n| self.position[n.0 as usize]).max();
        let mut by_place: Vec<usize> = (0..self.drafts.len()).collect();
        by_place.sort_by_key(|g| last(&self.drafts[*g]));
        let mut place = vec![0; self.drafts.len()];
        for (i, g) in by_place.iter().enumerate() {
            place[*g] = i;
        }
        let before: Vec<Vec<usize>> = by_place
            .iter()
            .map(|g| {
                let sources = self.drafts[*g].nodes.iter().flat_map(|n| self.sources(*n));
                let groups = sources.filter_map(|p| self.group[p.0 as usize]);
                groups.filter(|h| h != g).map(|h| place[h]).collect()
            })
            .collect();
        let groups: Vec<Group> = order::topological(&before)
            .into_iter()
            .map(|i| self.group_of(&self.drafts[by_place[i]]))
            .collect();
        debug_assert_eq!(
            groups.len(),
            self.drafts.len(),
            "groups wait for each other"
        );
        (groups, self.remarks.list)
    }
    fn group_of(&self, d: &Draft) -> Group {
        let mut inputs = Vec::new();
        for n in &d.nodes {
            for v in self.graph.nodes[*n].inputs.iter().flatten() {
                let made_inside = self
                    .graph
                    .producer(*v)
                    .is_some_and(|p| d.nodes.contains(&p));
                if !made_inside && !inputs.contains(v) {
                    inputs.push(*v);
                }
            }
        }
        Group {
            kind: d.kind,
            nodes: d.nodes.clone(),
            anchor: d.anchor,
            inputs,
            outputs: self.exits(&d.nodes),
        }
    }
}
