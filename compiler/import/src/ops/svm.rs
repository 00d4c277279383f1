//! Support vector machines: values of the kernel function by contractions, a product with the
//! coefficients, and (for classes) a library kernel that counts votes and makes probabilities.

use lapidary_graph::op::{LibraryCall, ReduceKind};
use lapidary_graph::{DType, Dim, PwOp, Scalar, TensorData, ValueId};

use super::labels::{class_labels, pick_labels};
use super::linear::{POST, features, plus, product};
use crate::builder::LibOut;
use crate::context::{Ctx, Outs, one};
use crate::error::{Fail, invalid, unsupported};

/// `gamma * |v|²` up to which the squares of distances are taken apart: beyond, the difference of
/// large numbers would lose the digits that the exponential shows.
const APART: f32 = 16.0;

/// Values of the kernel function between each row of x and each of `n` support vectors.
fn kernel_values(cx: &mut Ctx, x: ValueId, vectors: &[f32], n: usize) -> Result<ValueId, Fail> {
    let params = cx.floats("kernel_params")?.unwrap_or(&[]);
    let (gamma, coef, degree) = match params {
        [g, c, d, ..] => (*g, *c, *d),
        [] => (0.0, 0.0, 0.0),
        _ => return Err(invalid("attribute 'kernel_params' is not three numbers")),
    };
    let kind = cx.choice(
        "kernel_type",
        "LINEAR",
        &["LINEAR", "POLY", "RBF", "SIGMOID"],
    )?;
    if vectors.is_empty() || !vectors.len().is_multiple_of(n) {
        return Err(invalid(format!(
            "{n} support vectors of {} numbers",
            vectors.len()
        )));
    }
    if kind == 2 {
        return rbf(cx, x, vectors, n, gamma);
    }
    let dot = product(cx, x, vectors, n as i64)?;
    if kind == 0 {
        return Ok(dot);
    }
    cx.pw(&[dot], |p, r| {
        let number = |p: &mut lapidary_graph::PwBuilder, v: f32| p.constant(Scalar::f32(v));
        let (g, c) = (number(p, gamma), number(p, coef));
        let y = p.bin(PwOp::Mul, r[0], g);
        let y = p.bin(PwOp::Add, y, c);
        if kind == 3 {
            return p.un(PwOp::Tanh, y);
        }
        match degree as i64 {
            d @ 1..=4 if d as f32 == degree => (1..d).fold(y, |z, _| p.bin(PwOp::Mul, z, y)),
            _ => {
                let d = number(p, degree);
                p.bin(PwOp::Pow, y, d)
            }
        }
    })
}

/// `exp(-gamma |x - v|²)`. Distances do not change when all points are moved, so they are taken from the
/// middle of the support vectors: `|x|² + |v|² - 2 x v` then subtracts no large numbers.
fn rbf(cx: &mut Ctx, x: ValueId, vectors: &[f32], n: usize, gamma: f32) -> Result<ValueId, Fail> {
    let width = vectors.len() / n;
    let mut middle = vec![0.0f64; width];
    for v in vectors.chunks_exact(width) {
        for (m, v) in middle.iter_mut().zip(v) {
            *m += *v as f64 / n as f64;
        }
    }
    let middle: Vec<f32> = middle.iter().map(|m| *m as f32).collect();
    let moved: Vec<f32> = vectors
        .chunks_exact(width)
        .flat_map(|v| v.iter().zip(&middle).map(|(v, m)| v - m))
        .collect();
    let squares: Vec<f32> = moved
        .chunks_exact(width)
        .map(|v| v.iter().map(|v| *v as f64 * *v as f64).sum::<f64>() as f32)
        .collect();
    let minus: Vec<f32> = middle.iter().map(|m| -m).collect();
    let x = plus(cx, x, &minus)?;
    let most = squares.iter().copied().fold(0.0, f32::max);
    let distance = if most * gamma.abs() <= APART {
        let own = cx.reduce(ReduceKind::SumSquare, x, vec![1], true)?;
        let dot = product(cx, x, &moved, n as i64)?;
        let squares = cx.constant(TensorData::from_f32(vec![n as i64], &squares));
        cx.pw(&[own, squares, dot], |p, r| {
            let (zero, two) = (p.constant(Scalar::f32(0.0)), p.constant(Scalar::f32(2.0)));
            let both = p.bin(PwOp::Add, r[0], r[1]);
            let dot = p.bin(PwOp::Mul, r[2], two);
            let d = p.bin(PwOp::Sub, both, dot);
            p.bin(PwOp::Max, d, zero)
        })?
    } else {
        let x = cx.unsqueeze(x, &[1])?;
        let v = cx.constant(TensorData::from_f32(vec![n as i64, width as i64], &moved));
        let d = cx.bin(PwOp::Sub, x, v)?;
        cx.reduce(ReduceKind::SumSquare, d, vec![2], false)?
    };
    cx.pw(&[distance], |p, r| {
        let g = p.constant(Scalar::f32(-gamma));
        let y = p.bin(PwOp::Mul, r[0], g);
        p.un(PwOp::Exp, y)
    })
}

fn rho(cx: &Ctx) -> Result<Vec<f32>, Fail> {
    match cx.floats("rho")? {
        Some(r) if !r.is_empty() => Ok(r.to_vec()),
        _ => Err(invalid("attribute 'rho' is missing")),
    }
}

/// One score a row; of a one-class machine its sign.
pub(crate) fn regressor(cx: &mut Ctx) -> Outs {
    if cx.choice("post_transform", "NONE", &POST)? != 0 {
        return Err(unsupported(
            "a 'post_transform' of a support vector regressor",
        ));
    }
    let x = features(cx)?;
    let coefficients = cx.floats("coefficients")?.unwrap_or(&[]);
    let n = usize::try_from(cx.int("n_supports", 0)?)
        .map_err(|_| invalid("attribute 'n_supports' is negative"))?;
    let y = match n {
        0 => product(cx, x, coefficients, 1)?,
        n if coefficients.len() < n => {
            return Err(invalid(format!(
                "{} coefficients for {n} support vectors",
                coefficients.len()
            )));
        }
        n => {
            let vectors = cx.floats("support_vectors")?.unwrap_or(&[]);
            let k = kernel_values(cx, x, vectors, n)?;
            product(cx, k, &coefficients[..n], 1)?
        }
    };
    let rho = rho(cx)?;
    let y = plus(cx, y, &rho[..1])?;
    if !cx.flag("one_class", false)? {
        return one(y);
    }
    one(cx.pw(&[y], |p, r| {
        let [zero, a, b] = [0.0, 1.0, -1.0].map(|v| p.constant(Scalar::f32(v)));
        let inside = p.test(PwOp::Gt, vec![r[0], zero]);
        p.select(inside, a, b)
    })?)
}

/// Library `svm_classes`. Inputs: decisions f32 `[N, pairs]` (or scores `[N, classes]`). Ints: classes,
/// whether the input is scores, post transform, whether all coefficients are positive. Floats: the
/// numbers a, then b of the pairs' probabilities, or none. Outputs: position of the class (i64),
/// scores.
pub(crate) fn classifier(cx: &mut Ctx) -> Outs {
    let labels = class_labels(cx, "classlabels_ints")?;
    let classes = labels.len();
    let post = cx.choice("post_transform", "NONE", &POST)?;
    let x = features(cx)?;
    let coefficients = cx.floats("coefficients")?.unwrap_or(&[]);
    let rho = rho(cx)?;
    let (a, b) = (
        cx.floats("prob_a")?.unwrap_or(&[]),
        cx.floats("prob_b")?.unwrap_or(&[]),
    );
    let mut counts = Vec::new();
    for c in cx.ints("vectors_per_class")?.unwrap_or(&[]) {
        counts.push(usize::try_from(*c).map_err(|_| invalid("a negative number of vectors"))?);
    }
    let n: usize = counts.iter().fold(0, |a, c| a.saturating_add(*c));
    let linear = n == 0;
    let pairs = classes * classes.saturating_sub(1) / 2;
    let (decisions, width) = if linear {
        let y = product(cx, x, coefficients, classes as i64)?;
        let offset = vec![rho[0]; classes];
        (plus(cx, y, &offset)?, classes)
    } else {
        let proba = !a.is_empty();
        if classes < 2 || counts.len() != classes || rho.len() < pairs {
            return Err(invalid(format!(
                "{classes} classes, {} numbers of vectors, {} offsets",
                counts.len(),
                rho.len()
            )));
        }
        if a.len() != b.len() || (proba && a.len() < pairs) {
            return Err(invalid(format!(
                "{} and {} numbers for {pairs} pairs",
                a.len(),
                b.len()
            )));
        }
        let vectors = cx.floats("support_vectors")?.unwrap_or(&[]);
        // Each class has n numbers but for itself.
        let table = pair_coefficients(coefficients, &counts, n)?;
        let k = kernel_values(cx, x, vectors, n)?;
        let y = product(cx, k, &table, pairs as i64)?;
        let width = match (proba, classes) {
            (true, _) => classes,
            (false, 2) => 2,
            _ => pairs,
        };
        (plus(cx, y, &rho[..pairs])?, width)
    };
    let rows = cx.dims(decisions)?[0].clone();
    let floats = match linear || a.is_empty() {
        true => vec![],
        false => a[..pairs]
            .iter()
            .chain(&b[..pairs])
            .map(|v| *v as f64)
            .collect(),
    };
    let call = LibraryCall {
        name: "svm_classes".into(),
        ints: vec![
            classes as i64,
            linear as i64,
            post as i64,
            coefficients.iter().all(|c| *c >= 0.0) as i64,
        ],
        floats,
        strings: vec![],
    };
    let outs = vec![
        LibOut::fixed(DType::I64, [rows.clone()]),
        LibOut::fixed(DType::F32, [rows, Dim::from(width)]),
    ];
    let out = cx.library_call(call, vec![Some(decisions)], outs);
    let [at, scores] = out[..] else {
        return Err(invalid("a kernel without outputs"));
    };
    Ok(vec![Some(pick_labels(cx, labels, at)?), Some(scores)])
}

/// A row of coefficients for each pair of classes: those of the first class's vectors against the second,
/// and the reverse; zero for all other vectors.
fn pair_coefficients(coefficients: &[f32], counts: &[usize], n: usize) -> Result<Vec<f32>, Fail> {
    let classes = counts.len();
    let needed = n.checked_mul(classes - 1);
    if needed.is_none_or(|m| coefficients.len() < m) {
        return Err(invalid(format!(
            "{} coefficients for {n} support vectors of {classes} classes",
            coefficients.len()
        )));
    }
    let mut starts = vec![0];
    for c in counts {
        starts.push(starts[starts.len() - 1] + c);
    }
    let mut table = Vec::with_capacity(n * classes * (classes - 1) / 2);
    for i in 0..classes {
        for j in i + 1..classes {
            let mut row = vec![0.0; n];
            for (class, other) in [(i, j - 1), (j, i)] {
                let range = starts[class]..starts[class + 1];
                let from = &coefficients[other * n..(other + 1) * n];
                row[range.clone()].copy_from_slice(&from[range]);
            }
            table.extend(row);
        }
    }
    Ok(table)
}
