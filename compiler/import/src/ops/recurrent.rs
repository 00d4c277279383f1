//! RNN, GRU, LSTM: library kernels over whole sequences.

use lapidary_graph::Dim;

use crate::context::{Ctx, Outs, all};
use crate::error::{invalid, unsupported};

const ACTIVATIONS: [&str; 11] = [
    "Affine",
    "Elu",
    "HardSigmoid",
    "LeakyRelu",
    "Relu",
    "ScaledTanh",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Tanh",
    "ThresholdedRelu",
];

/// Libraries `rnn`, `gru`, `lstm`. Inputs as ONNX lists them (X, W, R, B, sequence_lens, initial_h,
/// for LSTM initial_c, P; all but the first three may be none). Ints: direction (0 forward,
/// 1 reverse, 2 both), hidden size, layout, flag (linear_before_reset or input_forget), number of
/// activations, the activations (by the order Affine, Elu, HardSigmoid, LeakyRelu, Relu, ScaledTanh,
/// Sigmoid, Softplus, Softsign, Tanh, ThresholdedRelu). Floats: clip (infinity for none), then
/// alpha and beta of each activation. Outputs: Y, Y_h, for LSTM Y_c.
pub(crate) fn recurrent(cx: &mut Ctx) -> Outs {
    let (x, r) = (cx.input(0)?, cx.input(2)?);
    let (name, gates, defaults): (_, _, &[usize]) = match cx.op {
        "RNN" => ("rnn", 6, &[9]),
        "GRU" => ("gru", 6, &[6, 9]),
        _ => ("lstm", 8, &[6, 9, 9]),
    };
    let direction = cx.choice(
        "direction",
        "forward",
        &["forward", "reverse", "bidirectional"],
    )?;
    let directions = if direction == 2 { 2 } else { 1 };
    let layout = cx.int("layout", 0)?;
    let hidden = match cx.has("hidden_size") {
        true => Dim::Const(cx.int("hidden_size", 0)?),
        false => cx
            .dims(r)?
            .last()
            .cloned()
            .ok_or_else(|| invalid("R is a scalar"))?,
    };
    let Some(size) = hidden.as_const() else {
        return Err(unsupported("a hidden size that is known at run time only"));
    };
    let flag = match cx.op {
        "GRU" => cx.int("linear_before_reset", 0)?,
        "LSTM" => cx.int("input_forget", 0)?,
        _ => 0,
    };
    let mut acts = Vec::new();
    match cx.strings("activations")? {
        Some(list) => {
            for a in list {
                let known = ACTIVATIONS
                    .iter()
                    .position(|k| k.as_bytes().eq_ignore_ascii_case(a));
                acts.push(known.ok_or_else(|| {
                    invalid(format!("activation '{}'", String::from_utf8_lossy(a)))
                })?);
            }
        }
        None => (0..directions).for_each(|_| acts.extend(defaults)),
    }
    if acts.len() != defaults.len() * directions {
        return Err(invalid(format!(
            "{} activations, expected {}",
            acts.len(),
            defaults.len() * directions
        )));
    }
    let mut floats = vec![match cx.has("clip") {
        true => cx.float("clip", 0.0)? as f64,
        false => f64::INFINITY,
    }];
    // Parameters are listed for the activations that take them, in order.
    let (mut alphas, mut betas) = (
        cx.floats("activation_alpha")?.unwrap_or(&[]).iter(),
        cx.floats("activation_beta")?.unwrap_or(&[]).iter(),
    );
    for a in &acts {
        let (alpha, beta) = match a {
            0 => (Some(1.0), Some(0.0)),
            1 | 10 => (Some(1.0), None),
            2 => (Some(0.2), Some(0.5)),
            3 => (Some(0.01), None),
            5 => (Some(1.0), Some(1.0)),
            _ => (None, None),
        };
        let next = |list: &mut std::slice::Iter<f32>, default: Option<f64>| match default {
            Some(d) => list.next().map_or(d, |v| *v as f64),
            None => 0.0,
        };
        let alpha = next(&mut alphas, alpha);
        floats.extend([alpha, next(&mut betas, beta)]);
    }
    cx.rank(x)?;
    let t = cx.dtype(x);
    let outs = match cx.op {
        "LSTM" => cx.outputs(&[t, t, t])?,
        _ => cx.outputs(&[t, t])?,
    };
    let mut ints = vec![direction as i64, size, layout, flag, acts.len() as i64];
    ints.extend(acts.iter().map(|a| *a as i64));
    let inputs = (0..gates).map(|i| cx.opt(i)).collect();
    all(cx.library(name, ints, floats, inputs, outs))
}
