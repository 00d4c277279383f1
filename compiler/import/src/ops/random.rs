//! Random numbers, and dropout, which uses them.
//!
//! Library `random` gives numbers, uniform or normal; `multinomial` draws classes; the rest is written around them. A
//! node with a seed gives the same numbers in every fresh context (and others each time it runs there); one without
//! gives others in every context.

use lapidary_graph::{DType, Dim, PwOp, Scalar, ValueId};

use crate::builder::{LibOut, first};
use crate::context::{Ctx, Outs, one};
use crate::error::{Fail, invalid};

/// What the record says of a seed: whether there is one, and its bits.
fn seed(cx: &Ctx) -> Result<[i64; 2], Fail> {
    Ok(match cx.has("seed") {
        true => [1, cx.float("seed", 0.0)?.to_bits() as i64],
        false => [0, 0],
    })
}

/// Which numbers, and what makes them from those that the kernel has: `a + u * b`.
enum Numbers {
    /// From a to a + b.
    Uniform(f64, f64),
    /// Mean, standard deviation.
    Normal(f64, f64),
}

/// Library `random`. Inputs: x or none, whose dims the result has. Ints: kind (0 uniform, 1 normal), whether there is a seed,
/// the seed. Floats: a, b.
fn numbers(
    cx: &mut Ctx,
    which: Numbers,
    [seeded, seed]: [i64; 2],
    out: LibOut,
    like: Option<ValueId>,
) -> Result<ValueId, Fail> {
    let (kind, a, b) = match which {
        Numbers::Uniform(a, b) => (0, a, b),
        Numbers::Normal(a, b) => (1, a, b),
    };
    let ints = vec![kind, seeded, seed];
    let inputs = like.map(Some).into_iter().collect();
    first(&cx.library("random", ints, vec![a, b], inputs, vec![out]))
}

/// The result of a node: dims of the attribute `shape` or of the input, in the type of the attribute or of the input.
fn result(cx: &mut Ctx) -> Result<(LibOut, Option<ValueId>), Fail> {
    let (t, dims, like) = if cx.op.ends_with("Like") {
        let x = cx.input(0)?;
        let t = cx.dtype_attr("dtype", cx.dtype(x))?;
        (t, cx.g.ty(x).shape.clone(), x)
    } else {
        let dims = cx
            .ints("shape")?
            .ok_or_else(|| invalid("attribute 'shape' is missing"))?;
        let out = LibOut::fixed(
            cx.dtype_attr("dtype", DType::F32)?,
            dims.iter().map(|d| Dim::Const(*d)),
        );
        if dims.iter().any(|d| *d < 0) {
            return Err(invalid(format!("attribute 'shape' is {dims:?}")));
        }
        return floats(out).map(|out| (out, None));
    };
    // Dims that are known need no operand, whose elements nobody reads.
    match dims {
        Some(dims) => Ok((floats(LibOut::fixed(t, dims))?, None)),
        None => Ok((floats(LibOut::unranked(t))?, Some(like))),
    }
}

fn floats(out: LibOut) -> Result<LibOut, Fail> {
    if !out.dtype.is_float() {
        return Err(invalid(format!(
            "random numbers of type {}, expected floats",
            out.dtype
        ))
        .hint("give the attribute 'dtype'"));
    }
    Ok(out)
}

/// RandomNormal, RandomNormalLike.
pub(crate) fn normal(cx: &mut Ctx) -> Outs {
    let (out, like) = result(cx)?;
    let (mean, scale) = (cx.float("mean", 0.0)?, cx.float("scale", 1.0)?);
    let which = Numbers::Normal(mean as f64, scale as f64);
    let seed = seed(cx)?;
    one(numbers(cx, which, seed, out, like)?)
}

/// RandomUniform, RandomUniformLike.
pub(crate) fn uniform(cx: &mut Ctx) -> Outs {
    let (out, like) = result(cx)?;
    let (low, high) = (cx.float("low", 0.0)? as f64, cx.float("high", 1.0)? as f64);
    let seed = seed(cx)?;
    one(numbers(
        cx,
        Numbers::Uniform(low, high - low),
        seed,
        out,
        like,
    )?)
}

/// Numbers in [0, 1), one for each element of x, f64 if x is.
fn chances(cx: &mut Ctx, x: ValueId, seed: [i64; 2]) -> Result<ValueId, Fail> {
    let t = match cx.dtype(x) {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    let (out, like) = match cx.g.ty(x).shape.clone() {
        Some(dims) => (LibOut::fixed(t, dims), None),
        None => (LibOut::unranked(t), Some(x)),
    };
    numbers(cx, Numbers::Uniform(0.0, 1.0), seed, out, like)
}

/// 1 with the probability that the element says.
pub(crate) fn bernoulli(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let t = cx.dtype_attr("dtype", cx.dtype(x))?;
    let seed = seed(cx)?;
    let u = chances(cx, x, seed)?;
    one(cx.pw(&[u, x], |p, r| {
        let w = p.dtype(r[0]);
        let x = p.cast(r[1], w);
        let hit = p.test(PwOp::Lt, vec![r[0], x]);
        p.cast(hit, t)
    })?)
}

/// Library `multinomial`. Inputs: x `[batch, classes]`, logarithms of what probabilities are proportional to. Ints: whether there is a
/// seed, the seed. Output: classes `[batch, samples]`, i32 or i64.
pub(crate) fn multinomial(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let t = cx.dtype_attr("dtype", DType::I32)?;
    if !matches!(t, DType::I32 | DType::I64) {
        return Err(invalid(format!("classes of type {t}, expected i32 or i64")));
    }
    let samples = cx.int("sample_size", 1)?;
    let dims = cx.dims(x)?;
    let ([batch, _], 0..) = (dims.as_slice(), samples) else {
        return Err(invalid(format!(
            "{samples} samples of an input of rank {}, expected rank 2",
            dims.len()
        )));
    };
    let out = LibOut::fixed(t, [batch.clone(), Dim::Const(samples)]);
    let ints = seed(cx)?.to_vec();
    one(first(&cx.library(
        "multinomial",
        ints,
        vec![],
        vec![Some(x)],
        vec![out],
    ))?)
}

/// Whether a dropout drops: what is known of it, else the flag.
enum Training {
    No,
    Yes,
    If(ValueId),
}

/// Dropout: the input, and a mask of ones; or, in training, elements taken away with the probability of the ratio, the
/// others made greater by what is missing.
pub(crate) fn dropout(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let training = match cx.opset {
        ..7 => match cx.flag("is_test", false)? {
            true => Training::No,
            false => Training::Yes,
        },
        7..12 => Training::No,
        _ => match cx.opt(2) {
            None => Training::No,
            Some(mode) => match cx.known_scalar(mode).and_then(|d| d.as_const()) {
                Some(0) => Training::No,
                Some(_) => Training::Yes,
                None => Training::If(mode),
            },
        },
    };
    // Before opset 10 the mask is of the input's type.
    let mask_type = match cx.opset {
        ..10 => cx.dtype(x),
        _ => DType::Bool,
    };
    let ratio = match cx.opt(1) {
        Some(r) if cx.opset >= 12 => r,
        _ => {
            let ratio = match cx.opset {
                ..12 => cx.float("ratio", 0.5)?,
                _ => 0.5,
            };
            cx.scalar(DType::F32, ratio as f64)
        }
    };
    let never = cx.const_f64s(ratio).is_some_and(|r| r == [0.0]);
    let flag = match training {
        Training::No => None,
        _ if never => None,
        Training::Yes => Some(cx.scalar(DType::Bool, 1.0)),
        Training::If(mode) => Some(mode),
    };
    let Some(flag) = flag else {
        let mut outs = vec![Some(x)];
        if cx.wants(1) {
            let dims = cx.dims(x)?;
            outs.push(Some(cx.fill(dims, Scalar::of(mask_type, 1.0))?));
        }
        return Ok(outs);
    };
    let seed = match cx.opset {
        12.. if cx.has("seed") => [1, cx.int("seed", 0)?],
        _ => [0, 0],
    };
    let u = chances(cx, x, seed)?;
    // A flag or ratio of one element, whatever its rank.
    let mut scalars = [flag, ratio];
    for v in &mut scalars {
        *v = cx.reshape(*v, vec![])?;
    }
    let [flag, ratio] = scalars;
    let mask = cx.pw(&[u, flag, ratio], |p, r| {
        let w = p.dtype(r[0]);
        let ratio = p.cast(r[2], w);
        let kept = p.test(PwOp::Ge, vec![r[0], ratio]);
        let off = p.un(PwOp::Not, r[1]);
        p.bin(PwOp::Or, off, kept)
    })?;
    let y = cx.pw(&[x, mask, flag, ratio], |p, r| {
        let t = p.dtype(r[0]);
        let w = match t {
            DType::F64 => t,
            _ => DType::F32,
        };
        let (x, ratio) = (p.cast(r[0], w), p.cast(r[3], w));
        let (one, zero) = (p.number(1.0, w), p.number(0.0, w));
        let rest = p.bin(PwOp::Sub, one, ratio);
        let scaled = p.bin(PwOp::Div, x, rest);
        let dropped = p.select(r[1], scaled, zero);
        let y = p.select(r[2], dropped, x);
        p.cast(y, t)
    })?;
    let mask = match mask_type {
        DType::Bool => mask,
        t => cx.cast(mask, t)?,
    };
    Ok(vec![Some(y), Some(mask)])
}
