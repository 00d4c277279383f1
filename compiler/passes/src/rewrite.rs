//! The one way in which passes change a graph: a walk in execution order in which a rule looks at
//! each node, builds new nodes before it, and redirects its outputs.
//!
//! When the rule sees a node, the node's inputs are already the rewritten ones. Use counts are
//! never too low: a value that [`Rewriter::sole`] calls single-use is. New nodes get their types
//! by inference; a node that has none is not built, and the rule gives up (`?`). What became dead
//! is dropped at the end of the walk.

use crate::dce;
use crate::remark::Remarks;
use lapidary_graph::infer::output_types;
use lapidary_graph::{DType, Dim, Graph, NodeId, Op, Pointwise, TensorData, TensorType, ValueId};
use std::collections::HashMap;

/// A walk in progress.
pub struct Rewriter<'g> {
    /// The graph that is rewritten.
    pub graph: &'g mut Graph,
    /// Where remarks go.
    pub remarks: &'g mut Remarks,
    forward: HashMap<ValueId, ValueId>,
    uses: Vec<u32>,
    changed: bool,
}

impl<'g> Rewriter<'g> {
    /// Walks over all nodes; true when something changed.
    pub fn run(
        graph: &'g mut Graph,
        remarks: &'g mut Remarks,
        mut rule: impl FnMut(&mut Rewriter, NodeId),
    ) -> bool {
        let mut uses: Vec<u32> = graph.uses().iter().map(|u| u.len() as u32).collect();
        for (_, v) in &graph.outputs {
            uses[v.0 as usize] += 1;
        }
        let order = std::mem::take(&mut graph.order);
        let mut rw = Rewriter {
            graph,
            remarks,
            forward: HashMap::new(),
            uses,
            changed: false,
        };
        for n in order {
            rw.redirect(n);
            rule(&mut rw, n);
            rw.graph.order.push(n);
        }
        for i in 0..rw.graph.outputs.len() {
            rw.graph.outputs[i].1 = rw.resolve(rw.graph.outputs[i].1);
        }
        let changed = rw.changed;
        if changed {
            dce::run(rw.graph, rw.remarks);
        }
        changed
    }
    fn redirect(&mut self, n: NodeId) {
        for i in 0..self.graph.nodes[n].inputs.len() {
            let to = self.graph.nodes[n].inputs[i].map(|v| self.resolve(v));
            self.graph.nodes[n].inputs[i] = to;
        }
    }
    /// What stands for `v` now.
    pub fn resolve(&self, mut v: ValueId) -> ValueId {
        while let Some(w) = self.forward.get(&v) {
            v = *w;
        }
        v
    }
    /// Makes all later readers of `from` read `to`.
    pub fn replace(&mut self, from: ValueId, to: ValueId) {
        if from == to {
            return;
        }
        let more = self.use_count(from);
        *self.count(to) += more;
        self.forward.insert(from, to);
        self.changed = true;
    }
    /// [`Rewriter::replace`] for a node with one output.
    pub fn replace_node(&mut self, n: NodeId, to: ValueId) {
        let from = self.graph.nodes[n].outputs[0];
        self.replace(from, to);
    }
    /// Says that the rule changed a node in place.
    pub fn touch(&mut self) {
        self.changed = true;
    }
    /// Says that a value has one more reader.
    pub fn note_use(&mut self, v: ValueId) {
        *self.count(v) += 1;
    }
    fn count(&mut self, v: ValueId) -> &mut u32 {
        if self.uses.len() < self.graph.values.len() {
            self.uses.resize(self.graph.values.len(), 0);
        }
        &mut self.uses[v.0 as usize]
    }
    /// At least the number of readers, the graph's caller among them.
    pub fn use_count(&self, v: ValueId) -> u32 {
        self.uses.get(v.0 as usize).copied().unwrap_or(0)
    }
    /// Whether at most one node reads `v`, once, and the caller does not.
    pub fn sole(&self, v: ValueId) -> bool {
        self.use_count(v) <= 1
    }
    /// The operator of a node.
    pub fn op(&self, n: NodeId) -> &Op {
        &self.graph.nodes[n].op
    }
    /// Input `i` of a node.
    pub fn input(&self, n: NodeId, i: usize) -> Option<ValueId> {
        self.graph.nodes[n].input(i)
    }
    /// The only output of a node.
    pub fn output(&self, n: NodeId) -> ValueId {
        self.graph.nodes[n].outputs[0]
    }
    /// The node that makes `v`, with its operator.
    pub fn made_by(&self, v: ValueId) -> Option<(NodeId, &Op)> {
        let n = self.graph.producer(v)?;
        Some((n, &self.graph.nodes[n].op))
    }
    /// The dims of a value.
    pub fn dims(&self, v: ValueId) -> &[Dim] {
        self.graph.dims(v)
    }
    /// The element type of a value.
    pub fn dtype(&self, v: ValueId) -> DType {
        self.graph.ty(v).dtype
    }
    /// A new node before the present one, with optional inputs, for the ONNX nodes of `like`.
    pub fn add_with(
        &mut self,
        op: Op,
        inputs: Vec<Option<ValueId>>,
        like: NodeId,
    ) -> Option<ValueId> {
        let types: Vec<Option<&TensorType>> =
            inputs.iter().map(|v| v.map(|v| self.graph.ty(v))).collect();
        let mut types = output_types(&op, &types).ok()?;
        if types.len() != 1 {
            return None;
        }
        let node = &self.graph.nodes[like];
        let origin = node.origin.clone();
        let base = node.outputs.first().map(|v| &self.graph.values[*v].name);
        let name = base.cloned().unwrap_or_default();
        for v in inputs.iter().flatten() {
            self.note_use(*v);
        }
        let n = self
            .graph
            .add_node(op, inputs, vec![(name, types.remove(0))], origin);
        self.changed = true;
        Some(self.output(n))
    }
    /// A new node before the present one, for the ONNX nodes of `like`.
    pub fn add(&mut self, op: Op, inputs: &[ValueId], like: NodeId) -> Option<ValueId> {
        self.add_with(op, inputs.iter().copied().map(Some).collect(), like)
    }
    /// A new pointwise node; `dims` is stated when broadcasting the inputs would not give it.
    pub fn add_pointwise(
        &mut self,
        body: Pointwise,
        inputs: &[ValueId],
        dims: Option<&[Dim]>,
        like: NodeId,
    ) -> Option<ValueId> {
        let shape = dims.and_then(|d| self.stated_shape(inputs, d));
        self.add(Op::Pointwise { body, shape }, inputs, like)
    }
    /// `Some(dims)` where broadcasting the inputs does not by itself give `dims`.
    pub fn stated_shape(&self, inputs: &[ValueId], dims: &[Dim]) -> Option<Vec<Dim>> {
        let mut shape: Option<Vec<Dim>> = Some(Vec::new());
        for v in inputs {
            shape = shape.and_then(|s| broadcast(&s, self.dims(*v)));
        }
        (shape.as_deref() != Some(dims)).then(|| dims.to_vec())
    }
    /// A value in another shape; itself where that is its own.
    pub fn reshape(&mut self, v: ValueId, shape: Vec<Dim>, like: NodeId) -> Option<ValueId> {
        if self.dims(v) == shape {
            return Some(v);
        }
        self.add(Op::Reshape { shape }, &[v], like)
    }
    /// A value with its axes in another order; itself where that is theirs.
    pub fn transpose(&mut self, v: ValueId, perm: Vec<usize>, like: NodeId) -> Option<ValueId> {
        if perm.iter().enumerate().all(|(i, p)| i == *p) {
            return Some(v);
        }
        self.add(Op::Transpose { perm }, &[v], like)
    }
    /// A new constant, named after `like`'s result.
    pub fn constant(&mut self, data: TensorData, like: NodeId) -> ValueId {
        let base = self.graph.nodes[like].outputs.first();
        let name = base.map_or(String::new(), |v| self.graph.values[*v].name.clone());
        self.graph.add_const(name, data)
    }
    /// Adds a remark about a node.
    pub fn remark(&mut self, pass: &'static str, n: NodeId, text: impl Into<String>) {
        let name = self.graph.nodes[n].name().to_string();
        self.remarks.add(pass, &name, text);
    }
    /// Adds the ONNX names of `from` to the node that makes `v`.
    pub fn inherit(&mut self, v: ValueId, from: &[NodeId]) {
        let Some(n) = self.graph.producer(v) else {
            return;
        };
        for m in from {
            for name in self.graph.nodes[*m].origin.clone() {
                if !self.graph.nodes[n].origin.contains(&name) {
                    self.graph.nodes[n].origin.push(name);
                }
            }
        }
    }
}

/// The broadcast of two shapes.
pub fn broadcast(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let one = Dim::Const(1);
    let at = |s: &[Dim], i: usize| match (i + s.len()).checked_sub(rank) {
        Some(j) => s[j].clone(),
        None => one.clone(),
    };
    (0..rank).map(|i| at(a, i).broadcast(&at(b, i))).collect()
}
