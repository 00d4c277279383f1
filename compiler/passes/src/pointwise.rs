//! Pointwise bodies made simple: one-element constants move into the body, an input that is read
//! twice is read once, a `Broadcast` before a pointwise node is left to the node's own broadcast,
//! and the algebra of [`simplify`] is applied. A body that is then just an input goes away.
//!
//! What is rewritten keeps IEEE results, but for three deliberate cases: the sign of a zero in
//! `x + 0`, `x^0.5` of -0 and -inf, and the last bit of `x^3` (see `docs/passes.md`).

use crate::remark::Remarks;
use crate::rewrite::Rewriter;
use lapidary_graph::interp::eval_scalar;
use lapidary_graph::{
    DType, Graph, NodeId, Op, Pointwise, PwBuilder, PwOp, PwRef, Scalar, TensorData, ValueId,
};

/// The pass; whether it changed the graph.
pub fn run(graph: &mut Graph, remarks: &mut Remarks) -> bool {
    Rewriter::run(graph, remarks, |rw, n| {
        clean(rw, n);
    })
}

/// The only element of a constant.
pub fn scalar(t: &TensorData) -> Option<Scalar> {
    if t.len() != 1 || t.dtype == DType::String {
        return None;
    }
    let mut bits = [0u8; 8];
    let n = t.dtype.bytes();
    bits[..n].copy_from_slice(t.bytes.get(..n)?);
    Some(Scalar {
        dtype: t.dtype,
        bits: u64::from_le_bytes(bits),
    })
}

fn clean(rw: &mut Rewriter, n: NodeId) -> Option<()> {
    let Op::Pointwise { body, shape } = rw.op(n).clone() else {
        return None;
    };
    let out = rw.output(n);
    let dims = rw.graph.ty(out).shape.clone()?;
    let inputs: Vec<ValueId> = rw.graph.nodes[n]
        .inputs
        .iter()
        .copied()
        .collect::<Option<_>>()?;
    let mut kept: Vec<ValueId> = Vec::new();
    let mut b = PwBuilder::default();
    let mut refs = Vec::new();
    for v in &inputs {
        if let Some(s) = rw.graph.constant(*v).and_then(scalar) {
            refs.push(b.constant(s));
            continue;
        }
        let mut v = *v;
        while let Some((m, Op::Broadcast { .. })) = rw.made_by(v) {
            v = rw.input(m, 0)?;
        }
        let i = kept.iter().position(|k| *k == v).unwrap_or_else(|| {
            kept.push(v);
            kept.len() - 1
        });
        refs.push(b.input(i as u32, rw.dtype(v)));
    }
    let result = inline(&mut b, &body, &refs);
    let mut new = b.finish_at(result, kept.len() as u32);
    // Inputs that no longer count.
    let mut read = vec![false; kept.len()];
    for node in &new.nodes {
        if let PwOp::Input(i) = node.op {
            read[i as usize] = true;
        }
    }
    let mut place = vec![0u32; kept.len()];
    let mut inputs_left = Vec::new();
    for (i, v) in kept.iter().enumerate() {
        if read[i] {
            place[i] = inputs_left.len() as u32;
            inputs_left.push(*v);
        }
    }
    for node in &mut new.nodes {
        if let PwOp::Input(i) = &mut node.op {
            *i = place[*i as usize];
        }
    }
    new.inputs = inputs_left.len() as u32;
    if let [only] = new.nodes.as_slice()
        && only.op == PwOp::Input(0)
        && rw.dims(inputs_left[0]) == dims.as_slice()
    {
        rw.replace_node(n, inputs_left[0]);
        return Some(());
    }
    let stated = rw.stated_shape(&inputs_left, &dims);
    if new == body && inputs_left == inputs && stated == shape {
        return None;
    }
    if new == body && inputs_left == inputs && shape.is_some() {
        return None;
    }
    let v = rw.add(
        Op::Pointwise {
            body: new,
            shape: stated,
        },
        &inputs_left,
        n,
    )?;
    rw.replace_node(n, v);
    Some(())
}

/// Copies `body` in, each node simplified.
pub fn inline(b: &mut PwBuilder, body: &Pointwise, inputs: &[PwRef]) -> PwRef {
    let mut map: Vec<PwRef> = Vec::with_capacity(body.nodes.len());
    for node in &body.nodes {
        let r = match node.op {
            PwOp::Input(i) if (i as usize) < inputs.len() => inputs[i as usize],
            _ => {
                let args: Vec<PwRef> = node.args.iter().map(|a| map[a.0 as usize]).collect();
                simplify(b, &node.op, &args, node.dtype)
            }
        };
        map.push(r);
    }
    map.last().copied().unwrap_or(PwRef(0))
}

fn constant(b: &PwBuilder, r: PwRef) -> Option<Scalar> {
    match &b.nodes[r.0 as usize].op {
        PwOp::Const(s) => Some(*s),
        PwOp::Dim(d) => d.as_const().map(Scalar::i64),
        _ => None,
    }
}

/// Whether `1 / v` is exact: a power of two whose reciprocal is a normal number.
fn exact_reciprocal(v: f64, dtype: DType) -> bool {
    let normal = match dtype {
        DType::F32 => (v as f32).is_normal() && (1.0 / v as f32).is_normal(),
        DType::F64 => v.is_normal() && (1.0 / v).is_normal(),
        _ => false,
    };
    normal && v.to_bits() & ((1 << 52) - 1) == 0
}

/// One operation on nodes of `b`, in its simplest form.
pub fn simplify(b: &mut PwBuilder, op: &PwOp, args: &[PwRef], dtype: DType) -> PwRef {
    let consts: Vec<Option<Scalar>> = args.iter().map(|a| constant(b, *a)).collect();
    if let Some(s) = evaluate(op, &consts, dtype) {
        return b.constant(s);
    }
    let number = |i: usize| consts.get(i).copied().flatten().map(Scalar::to_f64);
    let is = |i: usize, v: f64| number(i) == Some(v);
    let made = |b: &PwBuilder, r: PwRef, op: PwOp| -> Option<PwRef> {
        let node = &b.nodes[r.0 as usize];
        (node.op == op).then(|| node.args[0])
    };
    match (op, args) {
        (PwOp::Add, [x, y]) => {
            if is(1, 0.0) {
                return *x;
            }
            if is(0, 0.0) {
                return *y;
            }
            if dtype.is_float() || dtype.is_int() {
                if let Some(z) = made(b, *y, PwOp::Neg) {
                    return simplify(b, &PwOp::Sub, &[*x, z], dtype);
                }
                if let Some(z) = made(b, *x, PwOp::Neg) {
                    return simplify(b, &PwOp::Sub, &[*y, z], dtype);
                }
            }
        }
        (PwOp::Sub, [x, y]) => {
            if is(1, 0.0) {
                return *x;
            }
            if let Some(z) = made(b, *y, PwOp::Neg) {
                return simplify(b, &PwOp::Add, &[*x, z], dtype);
            }
        }
        (PwOp::Mul, [x, y]) => {
            for (i, v) in [(1, *x), (0, *y)] {
                if is(i, 1.0) {
                    return v;
                }
                if is(i, -1.0) && dtype.is_float() {
                    return simplify(b, &PwOp::Neg, &[v], dtype);
                }
            }
        }
        (PwOp::Div, [x, _]) => {
            if is(1, 1.0) {
                return *x;
            }
            if let Some(v) = number(1)
                && exact_reciprocal(v, dtype)
            {
                let r = b.number(1.0 / v, dtype);
                return simplify(b, &PwOp::Mul, &[*x, r], dtype);
            }
            if is(0, 1.0) && dtype.is_float() {
                return b.push(PwOp::Reciprocal, vec![args[1]], dtype);
            }
        }
        (PwOp::Pow, [x, _]) if dtype.is_float() && b.dtype(*x) == dtype => {
            let exponent = number(1);
            let x = *x;
            match exponent {
                Some(1.0) => return x,
                Some(2.0) => return b.push(PwOp::Mul, vec![x, x], dtype),
                Some(3.0) => {
                    let square = b.push(PwOp::Mul, vec![x, x], dtype);
                    return b.push(PwOp::Mul, vec![square, x], dtype);
                }
                Some(0.5) => return b.push(PwOp::Sqrt, vec![x], dtype),
                Some(-1.0) => return b.push(PwOp::Reciprocal, vec![x], dtype),
                _ => {}
            }
        }
        (PwOp::Neg, [x]) => {
            if let Some(z) = made(b, *x, PwOp::Neg) {
                return z;
            }
        }
        (PwOp::Not, [x]) => {
            if let Some(z) = made(b, *x, PwOp::Not) {
                return z;
            }
        }
        (PwOp::Cast, [x]) => {
            let from = b.dtype(*x);
            if from == dtype {
                return *x;
            }
            // A cast through a wider type and back, or on to a third, that loses nothing on the way.
            if let Some(z) = made(b, *x, PwOp::Cast)
                && lossless(b.dtype(z), from)
            {
                return simplify(b, &PwOp::Cast, &[z], dtype);
            }
        }
        (PwOp::Select, [_, x, y]) => {
            if x == y {
                return *x;
            }
            if let Some(c) = consts[0] {
                return if c.bits != 0 { *x } else { *y };
            }
        }
        (PwOp::Min | PwOp::Max | PwOp::And | PwOp::Or, [x, y]) if x == y => return *x,
        _ => {}
    }
    b.push(op.clone(), args.to_vec(), dtype)
}

/// Whether every value of `from` is one of `to`.
fn lossless(from: DType, to: DType) -> bool {
    use DType::*;
    if from.is_minifloat() {
        return matches!(to, F32 | F64);
    }
    matches!(
        (from, to),
        (F16 | BF16, F32 | F64)
            | (F32, F64)
            | (Bool, F32 | F64 | I32 | I64 | U8 | I8)
            | (
                U4 | I4 | U2 | I2,
                F16 | BF16 | F32 | F64 | I8 | I16 | I32 | I64
            )
            | (U4 | U2, U8)
            | (U8 | I8 | U16 | I16, F32 | F64 | I32 | I64)
            | (I32 | U32, F64 | I64)
    )
}

/// The value of an operation on constants, where it is surely the one that generated code gives:
/// everything but the functions that generated code approximates.
fn evaluate(op: &PwOp, args: &[Option<Scalar>], dtype: DType) -> Option<Scalar> {
    let args: Vec<Scalar> = args.iter().copied().collect::<Option<_>>()?;
    let exact = match op {
        PwOp::Pow => args.get(1)?.to_f64() == 0.5,
        PwOp::Exp | PwOp::Log | PwOp::Sin | PwOp::Cos | PwOp::Tan => false,
        PwOp::Asin | PwOp::Acos | PwOp::Atan | PwOp::Sinh | PwOp::Cosh | PwOp::Tanh => false,
        PwOp::Asinh | PwOp::Acosh | PwOp::Atanh | PwOp::Erf | PwOp::Sigmoid => false,
        _ => true,
    };
    if !exact || args.is_empty() {
        return None;
    }
    eval_scalar(op, &args, dtype)
}
