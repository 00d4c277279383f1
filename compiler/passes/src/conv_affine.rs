//! Convolution followed by a per-channel `x * scale + shift` with constants (a batch normalisation
//! at inference, or a bias added later): the scale goes into the weights, the shift into the bias.
//!
//! The arithmetic over the weights is native. The constants of the pointwise body are worked out in
//! f64 and rounded once.

use crate::remark::Remarks;
use crate::rewrite::Rewriter;
use lapidary_graph::op::Layout;
use lapidary_graph::{DType, Dim, Graph, NodeId, Op, Pointwise, PwOp, TensorData, ValueId};

/// The pass; whether it changed the graph.
pub fn run(graph: &mut Graph, remarks: &mut Remarks) -> bool {
    Rewriter::run(graph, remarks, |rw, n| {
        absorb(rw, n);
    })
}

/// A value of the body, a number for each channel.
#[derive(Clone)]
enum Channel {
    Constant(Vec<f64>),
    /// Times the convolution's result, plus.
    Affine(Vec<f64>, Vec<f64>),
}

fn absorb(rw: &mut Rewriter, n: NodeId) -> Option<()> {
    let Op::Pointwise { body, .. } = rw.op(n).clone() else {
        return None;
    };
    let out = rw.output(n);
    let inputs: Vec<ValueId> = rw.graph.nodes[n]
        .inputs
        .iter()
        .copied()
        .collect::<Option<_>>()?;
    let activations: Vec<usize> = (0..inputs.len())
        .filter(|i| rw.graph.constant(inputs[*i]).is_none())
        .collect();
    let [x] = activations[..] else { return None };
    let product = inputs[x];
    let (conv, Op::Conv { window, groups }) = rw.made_by(product)? else {
        return None;
    };
    let (window, groups) = (window.clone(), groups.clone());
    if !rw.sole(product)
        || window.layout != Layout::ChannelsFirst
        || rw.dtype(product) != DType::F32
        || rw.dtype(out) != DType::F32
        || rw.dims(product) != rw.dims(out)
    {
        return None;
    }
    let weight = rw.graph.constant(rw.input(conv, 1)?)?;
    let channels = *weight.dims.first()? as usize;
    let rank = rw.dims(product).len();
    let (scale, shift) = affine(rw, &body, &inputs, x, channels, rank)?;
    let old_bias = match rw.input(conv, 2) {
        None => vec![0.0; channels],
        Some(b) => rw.graph.constant(b)?.to_f32s()?,
    };
    let bias: Vec<f32> = (0..channels)
        .map(|c| (old_bias[c] as f64 * scale[c] + shift[c]) as f32)
        .collect();
    let scaled = if scale.iter().all(|s| *s == 1.0) {
        None
    } else {
        let mut values = weight.to_f32s()?;
        let per = values.len().checked_div(channels)?;
        for (c, row) in values.chunks_exact_mut(per.max(1)).enumerate() {
            for w in row {
                *w = (*w as f64 * scale[c]) as f32;
            }
        }
        Some(TensorData::from_f32(weight.dims.clone(), &values))
    };
    let input = rw.input(conv, 0)?;
    let weight = match scaled {
        Some(t) => rw.constant(t, conv),
        None => rw.input(conv, 1)?,
    };
    let bias = TensorData::from_f32(vec![channels as i64], &bias);
    let bias = rw.constant(bias, n);
    let v = rw.add(Op::Conv { window, groups }, &[input, weight, bias], conv)?;
    rw.inherit(v, &[n]);
    rw.replace_node(n, v);
    Some(())
}

/// Scale and shift for each channel, when that is all the body does.
fn affine(
    rw: &Rewriter,
    body: &Pointwise,
    inputs: &[ValueId],
    x: usize,
    channels: usize,
    rank: usize,
) -> Option<(Vec<f64>, Vec<f64>)> {
    let mut values: Vec<Channel> = Vec::with_capacity(body.nodes.len());
    for node in &body.nodes {
        if node.dtype != DType::F32 {
            return None;
        }
        let args: Vec<&Channel> = node.args.iter().map(|a| &values[a.0 as usize]).collect();
        let value = match (&node.op, args.as_slice()) {
            (PwOp::Input(i), _) if *i as usize == x => {
                Channel::Affine(vec![1.0; channels], vec![0.0; channels])
            }
            (PwOp::Input(i), _) => {
                let v = inputs[*i as usize];
                let per_channel = per_channel(rw.dims(v), rank, channels);
                let data = rw.graph.constant(v)?.to_f32s()?;
                Channel::Constant(match per_channel? {
                    true => data.iter().map(|v| *v as f64).collect(),
                    false => vec![*data.first()? as f64; channels],
                })
            }
            (PwOp::Const(c), _) => Channel::Constant(vec![c.to_f64(); channels]),
            (op, [a]) => unary(op, a)?,
            (op, [a, b]) => binary(op, a, b)?,
            _ => return None,
        };
        values.push(value);
    }
    match values.pop()? {
        Channel::Affine(scale, shift) => {
            let finite = scale.iter().chain(&shift).all(|v| v.is_finite());
            finite.then_some((scale, shift))
        }
        Channel::Constant(_) => None,
    }
}

/// Whether a constant varies along the channel axis (`Some(true)`), not at all (`Some(false)`), or
/// otherwise.
fn per_channel(dims: &[Dim], rank: usize, channels: usize) -> Option<bool> {
    let mut varies = false;
    for (i, d) in dims.iter().enumerate() {
        let axis = (i + rank).checked_sub(dims.len())?;
        if axis == 1 && d.is_const(channels as i64) {
            varies = channels > 1;
        } else if !d.is_const(1) {
            return None;
        }
    }
    Some(varies)
}

fn each(a: &[f64], f: impl Fn(f64) -> f64) -> Vec<f64> {
    a.iter().map(|v| f(*v)).collect()
}

fn zip(a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| f(*a, *b)).collect()
}

fn unary(op: &PwOp, a: &Channel) -> Option<Channel> {
    Some(match (op, a) {
        (PwOp::Neg, Channel::Constant(v)) => Channel::Constant(each(v, |v| -v)),
        (PwOp::Neg, Channel::Affine(s, t)) => Channel::Affine(each(s, |v| -v), each(t, |v| -v)),
        (PwOp::Sqrt, Channel::Constant(v)) => Channel::Constant(each(v, f64::sqrt)),
        (PwOp::Reciprocal, Channel::Constant(v)) => Channel::Constant(each(v, |v| 1.0 / v)),
        (PwOp::Cast, v) => v.clone(),
        _ => return None,
    })
}

fn binary(op: &PwOp, a: &Channel, b: &Channel) -> Option<Channel> {
    use Channel::{Affine, Constant};
    Some(match (op, a, b) {
        (PwOp::Add, Constant(x), Constant(y)) => Constant(zip(x, y, |x, y| x + y)),
        (PwOp::Sub, Constant(x), Constant(y)) => Constant(zip(x, y, |x, y| x - y)),
        (PwOp::Mul, Constant(x), Constant(y)) => Constant(zip(x, y, |x, y| x * y)),
        (PwOp::Div, Constant(x), Constant(y)) => Constant(zip(x, y, |x, y| x / y)),
        (PwOp::Add, Affine(s, t), Constant(c)) | (PwOp::Add, Constant(c), Affine(s, t)) => {
            Affine(s.clone(), zip(t, c, |t, c| t + c))
        }
        (PwOp::Sub, Affine(s, t), Constant(c)) => Affine(s.clone(), zip(t, c, |t, c| t - c)),
        (PwOp::Sub, Constant(c), Affine(s, t)) => Affine(each(s, |s| -s), zip(t, c, |t, c| c - t)),
        (PwOp::Mul, Affine(s, t), Constant(c)) | (PwOp::Mul, Constant(c), Affine(s, t)) => {
            Affine(zip(s, c, |s, c| s * c), zip(t, c, |t, c| t * c))
        }
        (PwOp::Div, Affine(s, t), Constant(c)) => {
            Affine(zip(s, c, |s, c| s / c), zip(t, c, |t, c| t / c))
        }
        _ => return None,
    })
}
