//! Constant folding: a node whose inputs are all constants becomes constants.
//!
//! Movement of constants is native ([`crate::movement`]) and has no bound. Everything else goes
//! through the interpreter, which takes small tensors only: weights are never computed here. A Transpose of a large constant that only contractions read is left, since they
//! take it by their labels. `Shape` of constant dimensions is folded as well.

use crate::movement;
use crate::remark::Remarks;
use crate::rewrite::Rewriter;
use lapidary_graph::{DType, Dim, Graph, NodeId, Op, PwOp, TensorData};

/// A Transpose of a constant up to this size is done whoever reads it.
pub const MAX_ELEMENTS: usize = 1 << 16;

/// The pass; whether it changed the graph.
pub fn run(graph: &mut Graph, remarks: &mut Remarks) -> bool {
    let only_contracted: Vec<bool> = graph
        .uses()
        .iter()
        .map(|u| {
            u.iter()
                .all(|n| matches!(graph.nodes[*n].op, Op::Contract { .. }))
        })
        .collect();
    Rewriter::run(graph, remarks, |rw, n| {
        let Some(results) = fold(rw.graph, n, &only_contracted) else {
            return;
        };
        let outputs = rw.graph.nodes[n].outputs.clone();
        for (v, data) in outputs.into_iter().zip(results) {
            let ty = TensorDims(&data);
            if rw.dtype(v) != data.dtype || !ty.fits(rw.dims(v)) {
                return;
            }
            let name = rw.graph.values[v].name.clone();
            let c = rw.graph.add_const(name, data);
            rw.replace(v, c);
        }
    })
}

struct TensorDims<'a>(&'a TensorData);

impl TensorDims<'_> {
    /// Whether a constant may stand where `dims` was inferred.
    fn fits(&self, dims: &[Dim]) -> bool {
        dims.len() == self.0.dims.len()
            && dims
                .iter()
                .zip(&self.0.dims)
                .all(|(d, c)| d.as_const().is_none_or(|d| d == *c))
    }
}

fn consts(dims: &[Dim]) -> Option<Vec<i64>> {
    dims.iter().map(Dim::as_const).collect()
}

fn fold(graph: &Graph, n: NodeId, only_contracted: &[bool]) -> Option<Vec<TensorData>> {
    let node = &graph.nodes[n];
    if let Op::Shape(dims) = &node.op {
        let values = consts(dims)?;
        return Some(vec![TensorData::from_i64(
            vec![values.len() as i64],
            &values,
        )]);
    }
    let inputs: Vec<&TensorData> = node
        .inputs
        .iter()
        .map(|v| v.and_then(|v| graph.constant(v)))
        .collect::<Option<_>>()?;
    let first = inputs.first().copied();
    let moved = match (&node.op, first) {
        (Op::Reshape { shape }, Some(t)) => movement::reshape(t, &consts(shape)?),
        (Op::Transpose { perm }, Some(t)) => {
            let out = node.outputs[0].0 as usize;
            if t.len() > MAX_ELEMENTS && only_contracted.get(out) == Some(&true) {
                return None;
            }
            movement::transpose(t, perm)
        }
        (Op::Slice { start, step, size }, Some(t)) => {
            movement::slice(t, &consts(start)?, step, &consts(size)?)
        }
        (Op::Concat { axis }, Some(_)) => movement::concat(&inputs, *axis),
        (Op::Broadcast { shape }, Some(t)) => {
            let dims = consts(shape)?;
            if dims.iter().product::<i64>() > MAX_ELEMENTS as i64 {
                return None;
            }
            movement::broadcast(t, &dims)
        }
        (Op::Pointwise { body, shape: None }, Some(t)) if is_widening(body) => movement::to_f32(t),
        _ => None,
    };
    if let Some(t) = moved {
        return Some(vec![t]);
    }
    lapidary_graph::interp::fold_node(graph, n)
}

/// A lone Cast to f32 from a shorter float.
fn is_widening(body: &lapidary_graph::Pointwise) -> bool {
    match body.nodes.as_slice() {
        [input, cast] => {
            input.op == PwOp::Input(0)
                && cast.op == PwOp::Cast
                && cast.dtype == DType::F32
                && (matches!(input.dtype, DType::F16 | DType::BF16) || input.dtype.is_minifloat())
        }
        _ => false,
    }
}
