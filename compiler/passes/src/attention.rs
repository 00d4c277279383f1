//! Attention, raised from the small operators that exporters write:
//!
//! ```text
//! contract(softmax(step(… step(contract(q, k)))), v)     step: x * c | x / c | x + mask | where(m, x, low)
//! ```
//!
//! Each value in between has one reader. The operands come in any order of axes (their contraction
//! labels tell which axis is which) and get the Transpose that the operator wants, which fusion
//! folds into addresses. The steps are replayed on zero to give one additive mask; a `where` over a
//! lower triangular constant, sliced to the last S of T positions, becomes the causal flag.
//! A factor on q or k joins the scale; heads repeated by Broadcast and Reshape are read once.
//!
//! `where(m, x, low)` as `x + low` is exact for `low` <= -1e9 unless a row is masked entirely and
//! its scores are huge.

use crate::remark::Remarks;
use crate::rewrite::Rewriter;
use lapidary_graph::op::AttentionAttrs;
use lapidary_graph::{DType, Dim, Graph, NodeId, Op, Pointwise, PwBuilder, PwOp, PwRef, ValueId};

const PASS: &str = "attention";

/// The pass; whether it changed the graph.
pub fn run(graph: &mut Graph, remarks: &mut Remarks) -> bool {
    Rewriter::run(graph, remarks, |rw, n| {
        raise(rw, n);
    })
}

/// What happens to the scores, from the outside in.
enum Step {
    Scale(f64),
    Add(ValueId),
    /// Where the condition is `keep`, the scores; elsewhere the number.
    Where {
        condition: ValueId,
        keep: bool,
        low: f64,
    },
}

/// Axes of an operand, by meaning.
struct Labelled {
    value: ValueId,
    labels: Vec<u8>,
}

fn raise(rw: &mut Rewriter, n: NodeId) -> Option<()> {
    let Op::Contract { a, b, out } = rw.op(n).clone() else {
        return None;
    };
    let (p, v) = (rw.input(n, 0)?, rw.input(n, 1)?);
    let (softmax, Op::Softmax { axis, log: false }) = rw.made_by(p)? else {
        return None;
    };
    let rank = a.len();
    if *axis + 1 != rank || !(rank == 3 || rank == 4) || rw.dtype(p) != DType::F32 {
        return None;
    }
    let mut nodes = vec![n, softmax];
    let miss = |rw: &mut Rewriter, why: &str| {
        rw.remark(PASS, softmax, format!("not raised to attention: {why}"));
        None
    };
    if !rw.sole(p) {
        return miss(rw, "the probabilities have a second use");
    }
    let mut steps = Vec::new();
    let mut at = rw.input(softmax, 0)?;
    let scores = loop {
        if !rw.sole(at) {
            return miss(rw, "the scores have a second use");
        }
        let Some((m, op)) = rw.made_by(at) else {
            return miss(rw, "the scores are no contraction");
        };
        match op {
            Op::Contract { .. } => break m,
            Op::Pointwise { .. } => match step(rw, m) {
                Some((inner, step)) => {
                    steps.push(step);
                    nodes.push(m);
                    at = inner;
                }
                None => return miss(rw, "a step from scores to probabilities is not known"),
            },
            _ => return miss(rw, "the scores are no contraction"),
        }
    };
    nodes.push(scores);
    let Op::Contract {
        a: qa,
        b: kb,
        out: so,
    } = rw.op(scores).clone()
    else {
        return None;
    };
    if so.len() != rank {
        return miss(rw, "the scores have another rank");
    }
    // Labels of the scores: batch.., s, t. Those of the second contraction by position.
    let (s, t) = (so[rank - 2], so[rank - 1]);
    let batch = &so[..rank - 2];
    let d: Vec<u8> = qa.iter().copied().filter(|l| !so.contains(l)).collect();
    let [d] = d[..] else {
        return miss(rw, "the scores contract several axes");
    };
    let mut q = Labelled {
        value: rw.input(scores, 0)?,
        labels: qa,
    };
    let mut k = Labelled {
        value: rw.input(scores, 1)?,
        labels: kb,
    };
    if q.labels.contains(&t) {
        std::mem::swap(&mut q, &mut k);
    }
    let (t2, s2) = (a[rank - 1], a[rank - 2]);
    let e: Vec<u8> = b.iter().copied().filter(|l| !a.contains(l)).collect();
    let [e] = e[..] else {
        return miss(rw, "the values have other axes");
    };
    if out.contains(&t2) {
        return miss(rw, "the values are not contracted along the keys");
    }
    let v = Labelled {
        value: v,
        labels: b,
    };
    let order = |batch: &[u8], rest: [u8; 2]| [batch, &rest].concat();
    let (q_axes, k_axes) = (order(batch, [s, d]), order(batch, [t, d]));
    let (v_axes, o_axes) = (
        order(&a[..rank - 2], [t2, e]),
        order(&a[..rank - 2], [s2, e]),
    );
    let mut scale = 1.0;
    for side in [&mut q, &mut k] {
        if let Some((m, inner, c)) = factor(rw, side.value) {
            side.value = inner;
            scale *= c;
            nodes.push(m);
        }
    }
    let mut operands = Vec::new();
    for (x, axes) in [(&q, &q_axes), (&k, &k_axes), (&v, &v_axes)] {
        let Some(y) = arrange(rw, x, axes, n) else {
            return miss(rw, "an operand has other axes");
        };
        operands.push(y);
    }
    // Attention's sizes must be equal, where a contraction would broadcast.
    let [qd, kd, vd] = [0, 1, 2].map(|i| rw.dims(operands[i]).to_vec());
    if [&qd, &kd, &vd].iter().any(|d| d.len() != rank) {
        return miss(rw, "an operand's rank is not known");
    }
    if qd[..rank - 2] != kd[..rank - 2]
        || kd[..rank - 2] != vd[..rank - 2]
        || qd[rank - 1] != kd[rank - 1]
        || kd[rank - 2] != vd[rank - 2]
    {
        return miss(rw, "the operands' sizes are not surely equal");
    }
    if rank == 3 {
        for x in &mut operands {
            *x = with_heads(rw, *x, n)?;
        }
    } else {
        for x in &mut operands[1..] {
            *x = unrepeated(rw, *x, n).unwrap_or(*x);
        }
        let heads = |rw: &Rewriter, i: usize| rw.dims(operands[i])[1].clone();
        if heads(rw, 1) != heads(rw, 2) {
            return miss(rw, "keys and values have different numbers of heads");
        }
    }
    let (queries, keys) = (&qd[rank - 2], &kd[rank - 2]);
    let causal = take_causal(rw, &mut steps, queries, keys);
    let (factor, mask) = match replay(rw, &steps, n) {
        Some(r) => r,
        None => return miss(rw, "the mask has no type of its own"),
    };
    let mut inputs = operands;
    if let Some(mut m) = mask {
        if rank == 3 && rw.dims(m).len() == 3 {
            m = with_heads(rw, m, n)?;
        }
        inputs.push(m);
    }
    let attrs = AttentionAttrs {
        has_mask: mask.is_some(),
        ..AttentionAttrs::plain((scale * factor) as f32, causal)
    };
    let Some(mut r) = rw.add(Op::Attention(attrs), &inputs, n) else {
        return miss(rw, "the operands do not fit");
    };
    nodes.reverse();
    rw.inherit(r, &nodes);
    if rank == 3 {
        let mut shape = rw.dims(r).to_vec();
        shape.remove(1);
        r = rw.reshape(r, shape, n)?;
    }
    let perm: Option<Vec<usize>> = out
        .iter()
        .map(|l| o_axes.iter().position(|m| m == l))
        .collect();
    let r = rw.transpose(r, perm?, n)?;
    if rw.dims(r) != rw.dims(rw.output(n)) {
        return miss(rw, "the result has another shape");
    }
    rw.replace_node(n, r);
    Some(())
}

/// The body of a pointwise node, when it is one operation: operands are inputs or constants.
fn operation(body: &Pointwise) -> Option<(&PwOp, Vec<&PwOp>)> {
    let last = body.nodes.last()?;
    let args = last.args.iter().map(|a| &body.nodes[a.0 as usize]);
    let args: Vec<&PwOp> = args.map(|n| &n.op).collect();
    let leaf = |op: &&PwOp| matches!(op, PwOp::Input(_) | PwOp::Const(_));
    args.iter().all(leaf).then_some((&last.op, args))
}

/// The step that a pointwise node on the scores is, and the value inside.
fn step(rw: &Rewriter, m: NodeId) -> Option<(ValueId, Step)> {
    let Op::Pointwise { body, .. } = rw.op(m) else {
        return None;
    };
    let dims = rw.dims(rw.output(m));
    let (op, args) = operation(body)?;
    let value = |op: &PwOp| match op {
        PwOp::Input(i) => rw.input(m, *i as usize),
        _ => None,
    };
    // The scores have the full shape; a mask may have it too, and then is told by its producer.
    let scores = |op: &PwOp| {
        let v = value(op)?;
        let mut w = v;
        while let Some((p, Op::Pointwise { .. })) = rw.made_by(w) {
            let node = &rw.graph.nodes[p];
            let full = |v: &ValueId| rw.dims(*v) == dims;
            w = node.inputs.iter().flatten().copied().find(full)?;
        }
        let contracted = matches!(rw.made_by(w), Some((_, Op::Contract { .. })));
        (rw.dims(v) == dims && contracted).then_some(v)
    };
    let number = |op: &PwOp| match op {
        PwOp::Const(c) => Some(c.to_f64()),
        _ => None,
    };
    match (op, args.as_slice()) {
        (PwOp::Mul, [x, y]) => {
            let (x, c) = scores(x).zip(number(y)).or(scores(y).zip(number(x)))?;
            Some((x, Step::Scale(c)))
        }
        (PwOp::Div, [x, y]) => {
            let (x, c) = scores(x).zip(number(y))?;
            Some((x, Step::Scale(1.0 / c)))
        }
        (PwOp::Add, [x, y]) => {
            let (x, m) = scores(x).zip(value(y)).or(scores(y).zip(value(x)))?;
            Some((x, Step::Add(m)))
        }
        (PwOp::Select, [c, x, y]) => {
            let condition = value(c)?;
            let (keep, x, low) = match (scores(x).zip(number(y)), scores(y).zip(number(x))) {
                (Some((x, low)), _) => (true, x, low),
                (None, Some((x, low))) => (false, x, low),
                _ => return None,
            };
            (low <= -1e9).then_some((
                x,
                Step::Where {
                    condition,
                    keep,
                    low,
                },
            ))
        }
        _ => None,
    }
}

/// `x * c` or `x / c` with one reader.
fn factor(rw: &Rewriter, v: ValueId) -> Option<(NodeId, ValueId, f64)> {
    let (m, Op::Pointwise { body, .. }) = rw.made_by(v)? else {
        return None;
    };
    if body.inputs != 1 || !rw.sole(v) {
        return None;
    }
    let (op, args) = operation(body)?;
    let c = match (op, args.as_slice()) {
        (PwOp::Mul, [PwOp::Input(0), PwOp::Const(c)])
        | (PwOp::Mul, [PwOp::Const(c), PwOp::Input(0)]) => c.to_f64(),
        (PwOp::Div, [PwOp::Input(0), PwOp::Const(c)]) => 1.0 / c.to_f64(),
        _ => return None,
    };
    let x = rw.input(m, 0)?;
    (rw.dims(x) == rw.dims(v)).then_some((m, x, c))
}

/// The operand with its axes in the wanted order.
fn arrange(rw: &mut Rewriter, x: &Labelled, axes: &[u8], n: NodeId) -> Option<ValueId> {
    if x.labels.len() != axes.len() {
        return None;
    }
    let perm: Option<Vec<usize>> = axes
        .iter()
        .map(|l| x.labels.iter().position(|m| m == l))
        .collect();
    rw.transpose(x.value, perm?, n)
}

/// `[G, ..]` as `[G, 1, ..]`.
fn with_heads(rw: &mut Rewriter, x: ValueId, n: NodeId) -> Option<ValueId> {
    let mut shape = rw.dims(x).to_vec();
    shape.insert(1, Dim::Const(1));
    rw.reshape(x, shape, n)
}

/// Keys or values before `[B, h, T, D] -> [B, h, 1, T, D] -> [B, h, r, T, D] -> [B, h*r, T, D]`.
fn unrepeated(rw: &mut Rewriter, x: ValueId, n: NodeId) -> Option<ValueId> {
    let (m, Op::Reshape { .. }) = rw.made_by(x)? else {
        return None;
    };
    let repeated = rw.input(m, 0)?;
    let (m, Op::Broadcast { .. }) = rw.made_by(repeated)? else {
        return None;
    };
    let base = rw.input(m, 0)?;
    let [b, h, r, t, d] = rw.dims(repeated) else {
        return None;
    };
    let [b1, h1, one, t1, d1] = rw.dims(base) else {
        return None;
    };
    let same = b == b1 && h == h1 && t == t1 && d == d1 && one.is_const(1);
    let heads = h.mul(r);
    let target = [b.clone(), heads, t.clone(), d.clone()];
    if !same || rw.dims(x) != target {
        return None;
    }
    let shape = vec![b.clone(), h.clone(), t.clone(), d.clone()];
    rw.reshape(base, shape, n)
}

/// Removes the step that hides later positions; true when there was one.
fn take_causal(rw: &Rewriter, steps: &mut Vec<Step>, s: &Dim, t: &Dim) -> bool {
    let at = steps.iter().position(|step| match step {
        Step::Where {
            condition,
            keep: true,
            low,
        } => *low <= -1e30 && is_causal(rw, *condition, s, t) == Some(true),
        _ => false,
    });
    if let Some(i) = at {
        steps.remove(i);
    }
    at.is_some()
}

/// Whether a condition is `j <= i + t - s`: a lower triangle sliced to its last s rows.
fn is_causal(rw: &Rewriter, condition: ValueId, s: &Dim, t: &Dim) -> Option<bool> {
    let (m, Op::Slice { start, step, size }) = rw.made_by(condition)? else {
        return None;
    };
    let triangle = rw.graph.constant(rw.input(m, 0)?)?;
    let rank = size.len();
    if rank < 2 || triangle.dtype != DType::Bool || step.iter().any(|s| *s != 1) {
        return None;
    }
    let (rows, columns) = (&size[rank - 2], &size[rank - 1]);
    let lead = size[..rank - 2].iter().all(|d| d.is_const(1));
    let placed = start[rank - 2] == t.sub(s) && start[rank - 1].is_const(0);
    if !lead || !placed || rows != s || columns != t {
        return Some(false);
    }
    let width = *triangle.dims.last()? as usize;
    if width == 0 || triangle.len() != width * width {
        return Some(false);
    }
    let mut rows = triangle.bytes.chunks_exact(width).enumerate();
    Some(
        rows.all(|(i, row)| {
            row[..=i].iter().all(|b| *b != 0) && row[i + 1..].iter().all(|b| *b == 0)
        }),
    )
}

/// The steps on zero scores: the factor and the additive mask.
fn replay(rw: &mut Rewriter, steps: &[Step], n: NodeId) -> Option<(f64, Option<ValueId>)> {
    let mut scale = 1.0;
    let mut b = PwBuilder::default();
    let mut inputs: Vec<ValueId> = Vec::new();
    let mut mask: Option<PwRef> = None;
    let mut read = |b: &mut PwBuilder, rw: &Rewriter, v: ValueId| {
        let i = inputs.iter().position(|w| *w == v).unwrap_or_else(|| {
            inputs.push(v);
            inputs.len() - 1
        });
        let r = b.input(i as u32, rw.dtype(v));
        b.cast(r, rw.dtype(v))
    };
    for step in steps.iter().rev() {
        match step {
            Step::Scale(c) => {
                scale *= c;
                if let Some(m) = mask {
                    let c = b.number(*c, DType::F32);
                    mask = Some(b.bin(PwOp::Mul, m, c));
                }
            }
            Step::Add(v) => {
                let r = read(&mut b, rw, *v);
                let r = b.cast(r, DType::F32);
                mask = Some(match mask {
                    Some(m) => b.bin(PwOp::Add, m, r),
                    None => r,
                });
            }
            Step::Where {
                condition,
                keep,
                low,
            } => {
                let c = read(&mut b, rw, *condition);
                let x = match mask {
                    Some(m) => m,
                    None => b.number(0.0, DType::F32),
                };
                let low = b.number(*low, DType::F32);
                let (x, y) = if *keep { (x, low) } else { (low, x) };
                mask = Some(b.select(c, x, y));
            }
        }
    }
    let Some(m) = mask else {
        return Some((scale, None));
    };
    let count = inputs.len() as u32;
    let body = b.finish_at(m, count);
    if let ([only], [input]) = (body.nodes.as_slice(), inputs.as_slice())
        && only.op == PwOp::Input(0)
    {
        return Some((scale, Some(*input)));
    }
    let mask = rw.add_pointwise(body, &inputs, None, n)?;
    Some((scale, Some(mask)))
}
