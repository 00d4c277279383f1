//! Steps of optimizers (ai.onnx.preview.training): pointwise arithmetic over each of several tensors.

use lapidary_graph::{PwBuilder, PwOp, PwRef, ValueId};

use crate::context::{Ctx, Outs};
use crate::error::{Fail, invalid};

/// The rate, the step count, and the operands in groups: the tensors, then what goes with each.
fn groups(cx: &Ctx, parts: usize) -> Result<(ValueId, ValueId, Vec<Vec<ValueId>>), Fail> {
    let all = cx.all_inputs()?;
    let rest = all.get(2..).unwrap_or(&[]);
    if rest.is_empty() || rest.len() % parts != 0 {
        return Err(invalid(format!(
            "{} inputs, expected 2 and {parts} for each tensor",
            all.len()
        )));
    }
    let n = rest.len() / parts;
    let each = |i: usize| rest.iter().skip(i).step_by(n).copied().collect();
    Ok((all[0], all[1], (0..n).map(each).collect()))
}

/// The results of each group, regrouped by kind.
fn regroup(made: Vec<Vec<ValueId>>) -> Outs {
    let kinds = made.first().map_or(0, Vec::len);
    let of = |k: usize| made.iter().map(move |m| m.get(k).copied());
    Ok((0..kinds).flat_map(of).collect())
}

/// `coefficient * x + gradient`
fn regularised(p: &mut PwBuilder, x: PwRef, gradient: PwRef, coefficient: f64) -> PwRef {
    let w = p.dtype(x);
    let c = p.number(coefficient, w);
    let decay = p.bin(PwOp::Mul, x, c);
    p.bin(PwOp::Add, decay, gradient)
}

fn times(p: &mut PwBuilder, x: PwRef, factor: f64) -> PwRef {
    let w = p.dtype(x);
    let f = p.number(factor, w);
    p.bin(PwOp::Mul, x, f)
}

pub(crate) fn adagrad(cx: &mut Ctx) -> Outs {
    let decay = f64::from(cx.float("decay_factor", 0.0)?);
    let epsilon = f64::from(cx.float("epsilon", 1e-6)?);
    let norm = f64::from(cx.float("norm_coefficient", 0.0)?);
    let (rate, count, all) = groups(cx, 3)?;
    let mut made = Vec::new();
    for g in all {
        let (x, gradient, h) = (g[0], g[1], g[2]);
        let h_new = cx.pw(&[x, gradient, h], |p, r| {
            let g = regularised(p, r[0], r[1], norm);
            let square = p.bin(PwOp::Mul, g, g);
            p.bin(PwOp::Add, r[2], square)
        })?;
        let x_new = cx.pw(&[x, gradient, h_new, rate, count], |p, r| {
            let w = p.dtype(r[0]);
            let g = regularised(p, r[0], r[1], norm);
            let (rate, count) = (p.cast(r[3], w), p.cast(r[4], w));
            let slower = times(p, count, decay);
            let one = p.number(1.0, w);
            let slower = p.bin(PwOp::Add, one, slower);
            let rate = p.bin(PwOp::Div, rate, slower);
            let root = p.un(PwOp::Sqrt, r[2]);
            let epsilon = p.number(epsilon, w);
            let scale = p.bin(PwOp::Add, root, epsilon);
            let step = p.bin(PwOp::Mul, rate, g);
            let step = p.bin(PwOp::Div, step, scale);
            p.bin(PwOp::Sub, r[0], step)
        })?;
        made.push(vec![x_new, h_new]);
    }
    regroup(made)
}

pub(crate) fn adam(cx: &mut Ctx) -> Outs {
    let alpha = f64::from(cx.float("alpha", 0.9)?);
    let beta = f64::from(cx.float("beta", 0.999)?);
    let epsilon = f64::from(cx.float("epsilon", 1e-6)?);
    let norm = f64::from(cx.float("norm_coefficient", 0.0)?);
    let post = f64::from(cx.float("norm_coefficient_post", 0.0)?);
    let (rate, count, all) = groups(cx, 4)?;
    let mut made = Vec::new();
    for g in all {
        let (x, gradient, v, h) = (g[0], g[1], g[2], g[3]);
        let v_new = cx.pw(&[x, gradient, v], |p, r| {
            let g = regularised(p, r[0], r[1], norm);
            let (old, new) = (times(p, r[2], alpha), times(p, g, 1.0 - alpha));
            p.bin(PwOp::Add, old, new)
        })?;
        let h_new = cx.pw(&[x, gradient, h], |p, r| {
            let g = regularised(p, r[0], r[1], norm);
            let square = p.bin(PwOp::Mul, g, g);
            let (old, new) = (times(p, r[2], beta), times(p, square, 1.0 - beta));
            p.bin(PwOp::Add, old, new)
        })?;
        let x_new = cx.pw(&[x, v_new, h_new, rate, count], |p, r| {
            let w = p.dtype(r[0]);
            let (rate, count) = (p.cast(r[3], w), p.cast(r[4], w));
            // Early steps are scaled up, since the running means began at 0.
            let (one, zero) = (p.number(1.0, w), p.number(0.0, w));
            let mut rest = |base: f64| {
                let base = p.number(base, w);
                let power = p.bin(PwOp::Pow, base, count);
                p.bin(PwOp::Sub, one, power)
            };
            let (first, second) = (rest(alpha), rest(beta));
            let second = p.un(PwOp::Sqrt, second);
            let adjusted = p.bin(PwOp::Mul, rate, second);
            let adjusted = p.bin(PwOp::Div, adjusted, first);
            let begun = p.test(PwOp::Gt, vec![count, zero]);
            let rate = p.select(begun, adjusted, rate);
            let root = p.un(PwOp::Sqrt, r[2]);
            let epsilon = p.number(epsilon, w);
            let scale = p.bin(PwOp::Add, root, epsilon);
            let step = p.bin(PwOp::Mul, rate, r[1]);
            let step = p.bin(PwOp::Div, step, scale);
            let y = p.bin(PwOp::Sub, r[0], step);
            times(p, y, 1.0 - post)
        })?;
        made.push(vec![x_new, v_new, h_new]);
    }
    regroup(made)
}

pub(crate) fn momentum(cx: &mut Ctx) -> Outs {
    let alpha = f64::from(cx.float("alpha", 0.0)?);
    let beta = f64::from(cx.float("beta", 0.0)?);
    let norm = f64::from(cx.float("norm_coefficient", 0.0)?);
    let nesterov = cx.choice("mode", "standard", &["standard", "nesterov"])? == 1;
    let (rate, count, all) = groups(cx, 3)?;
    let mut made = Vec::new();
    for g in all {
        let (x, gradient, v) = (g[0], g[1], g[2]);
        let v_new = cx.pw(&[x, gradient, v, count], |p, r| {
            let w = p.dtype(r[0]);
            let g = regularised(p, r[0], r[1], norm);
            let count = p.cast(r[3], w);
            let (one, zero, beta) = (p.number(1.0, w), p.number(0.0, w), p.number(beta, w));
            // The first step takes the whole gradient.
            let begun = p.test(PwOp::Gt, vec![count, zero]);
            let beta = p.select(begun, beta, one);
            let (old, new) = (times(p, r[2], alpha), p.bin(PwOp::Mul, beta, g));
            p.bin(PwOp::Add, old, new)
        })?;
        let x_new = cx.pw(&[x, gradient, v_new, rate], |p, r| {
            let w = p.dtype(r[0]);
            let rate = p.cast(r[3], w);
            let direction = if nesterov {
                let g = regularised(p, r[0], r[1], norm);
                let ahead = times(p, r[2], alpha);
                p.bin(PwOp::Add, g, ahead)
            } else {
                r[2]
            };
            let step = p.bin(PwOp::Mul, rate, direction);
            p.bin(PwOp::Sub, r[0], step)
        })?;
        made.push(vec![x_new, v_new]);
    }
    regroup(made)
}
