//! Tensors made from numbers, sizes and indices rather than from data.

use lapidary_graph::{DType, Dim, PwBuilder, PwOp, PwRef, Scalar, TensorData, ValueId};

use crate::builder::first;
use crate::context::{Ctx, Outs, all, one};
use crate::dims::at_least_0;
use crate::error::{Fail, invalid, unsupported};
use crate::known::range_len;

/// A constant in one of the forms that the attributes have.
pub(crate) fn constant(cx: &mut Ctx) -> Outs {
    let data = if let Some(t) = cx.tensor("value")? {
        t
    } else if cx.has("value_int") {
        TensorData::from_i64(vec![], &[cx.int("value_int", 0)?])
    } else if let Some(v) = cx.ints("value_ints")? {
        TensorData::from_i64(vec![v.len() as i64], v)
    } else if cx.has("value_float") {
        TensorData::from_f32(vec![], &[cx.float("value_float", 0.0)?])
    } else if let Some(v) = cx.floats("value_floats")? {
        TensorData::from_f32(vec![v.len() as i64], v)
    } else if cx.has("value_string") {
        let s = cx.string("value_string", "")?;
        strings(vec![], vec![bytes::Bytes::copy_from_slice(s.as_bytes())])
    } else if let Some(v) = cx.strings("value_strings")? {
        strings(vec![v.len() as i64], v.to_vec())
    } else if cx.has("sparse_value") {
        return Err(unsupported("a sparse constant"));
    } else {
        return Err(invalid("no attribute gives the value"));
    };
    one(cx.constant(data))
}

fn strings(dims: Vec<i64>, strings: Vec<bytes::Bytes>) -> TensorData {
    TensorData {
        dtype: DType::String,
        dims,
        bytes: bytes::Bytes::new(),
        strings,
    }
}

/// Library `shape` of an unranked value (a ranked one is known). Inputs: x. Ints: start, end.
/// The kernel sets the length.
pub(crate) fn shape(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let ints = vec![cx.int("start", 0)?, cx.int("end", i64::MAX)?];
    let outs = cx.outputs(&[DType::I64])?;
    all(cx.library("shape", ints, vec![], vec![Some(x)], outs))
}

/// Library `size` of an unranked value. Inputs: x. The output is a scalar.
pub(crate) fn size(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let outs = cx.outputs(&[DType::I64])?;
    all(cx.library("size", vec![], vec![], vec![Some(x)], outs))
}

/// One number everywhere.
///
/// Library `constant_of_shape`, where the shape is known at run time only. Inputs: shape (i64).
/// Ints: the element type by ONNX number, the value's bits.
pub(crate) fn constant_of_shape(cx: &mut Ctx) -> Outs {
    let shape = cx.list_input(0)?;
    let value = match cx.tensor("value")? {
        None => Scalar::f32(0.0),
        Some(t) if t.dtype != DType::String && t.dtype != DType::C128 && t.len() == 1 => {
            let mut bits = [0u8; 8];
            for (b, v) in bits.iter_mut().zip(t.bytes.iter()) {
                *b = *v;
            }
            Scalar {
                dtype: t.dtype,
                bits: u64::from_le_bytes(bits),
            }
        }
        Some(t) => {
            return Err(invalid(format!(
                "attribute 'value' has {} elements of type {}, expected one number",
                t.len(),
                t.dtype
            )));
        }
    };
    if let Some(dims) = cx.known(shape) {
        return one(cx.fill(dims.to_vec(), value)?);
    }
    let ints = vec![value.dtype as i64, value.bits as i64];
    let outs = cx.outputs(&[value.dtype])?;
    all(cx.library("constant_of_shape", ints, vec![], vec![Some(shape)], outs))
}

/// 1 on a diagonal, 0 elsewhere.
pub(crate) fn eye_like(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let t = cx.dtype_attr("dtype", cx.dtype(x))?;
    let k = cx.int("k", 0)?;
    let dims = cx.dims(x)?;
    if dims.len() != 2 {
        return Err(invalid(format!(
            "an input of rank {}, expected 2",
            dims.len()
        )));
    }
    one(cx.pw_shaped(&[], Some(dims), |p, _| {
        let i = p.push(PwOp::Index(0), vec![], DType::I64);
        let j = p.push(PwOp::Index(1), vec![], DType::I64);
        let k = p.constant(Scalar::i64(k));
        let d = p.bin(PwOp::Add, i, k);
        let hit = p.test(PwOp::Eq, vec![j, d]);
        let (one, zero) = (p.number(1.0, t), p.number(0.0, t));
        p.select(hit, one, zero)
    })?)
}

/// The upper or lower triangle of the last two axes; `k` may be known at run time only.
pub(crate) fn trilu(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let upper = cx.flag("upper", true)?;
    let rank = cx.rank(x)?;
    if rank < 2 {
        return Err(invalid(format!(
            "an input of rank {rank}, expected 2 or more"
        )));
    }
    let t = cx.dtype(x);
    let dims = cx.dims(x)?;
    let mut inputs = vec![x];
    if let Some(k) = cx.opt(1) {
        let k = cx.cast(k, DType::I64)?;
        inputs.push(cx.reshape(k, vec![])?);
    }
    one(cx.pw_shaped(&inputs, Some(dims), |p, r| {
        let i = p.push(PwOp::Index(rank as u32 - 2), vec![], DType::I64);
        let j = p.push(PwOp::Index(rank as u32 - 1), vec![], DType::I64);
        let k = match r.get(1) {
            Some(k) => *k,
            None => p.constant(Scalar::i64(0)),
        };
        let d = p.bin(PwOp::Add, i, k);
        let op = if upper { PwOp::Ge } else { PwOp::Le };
        let inside = p.test(op, vec![j, d]);
        let zero = p.number(0.0, t);
        p.select(inside, r[0], zero)
    })?)
}

/// `start + i * delta`.
///
/// Library `range`, where the length is known at run time only. Inputs: start, limit, delta.
pub(crate) fn range(cx: &mut Ctx) -> Outs {
    let (a, b, c) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let t = cx.dtype(a);
    let Some(n) = range_size(cx, a, b, c) else {
        let outs = cx.outputs(&[t])?;
        let inputs = vec![Some(a), Some(b), Some(c)];
        return all(cx.library("range", vec![], vec![], inputs, outs));
    };
    let (start, delta) = (cx.reshape(a, vec![])?, cx.reshape(c, vec![])?);
    let work = match t {
        DType::F16 | DType::BF16 => DType::F32,
        _ => t,
    };
    one(cx.pw_shaped(&[start, delta], Some(vec![n]), |p, r| {
        let i = p.push(PwOp::Index(0), vec![], DType::I64);
        let i = p.cast(i, work);
        let (a, c) = (p.cast(r[0], work), p.cast(r[1], work));
        // Integers that count by 1 from 0 are the index itself.
        let is = |p: &PwBuilder, r: PwRef, v: f64| {
            work.is_int()
                && matches!(p.nodes.get(r.0 as usize).map(|n| &n.op),
                    Some(PwOp::Const(s)) if s.to_f64() == v)
        };
        let mut y = i;
        if !is(p, c, 1.0) {
            y = p.bin(PwOp::Mul, y, c);
        }
        if !is(p, a, 0.0) {
            y = p.bin(PwOp::Add, a, y);
        }
        p.cast(y, t)
    })?)
}

fn range_size(cx: &mut Ctx, a: ValueId, b: ValueId, c: ValueId) -> Option<Dim> {
    if let (Some(a), Some(b), Some(c)) =
        (cx.known_scalar(a), cx.known_scalar(b), cx.known_scalar(c))
    {
        let step = c.as_const().filter(|c| *c != 0)?;
        if let (Some(a), Some(b)) = (a.as_const(), b.as_const()) {
            return range_len(a, b, step).map(Dim::Const);
        }
        return Some(at_least_0(&b.sub(&a).ceil_div(&c)));
    }
    let get = |v| cx.const_f64s(v).and_then(|v| v.first().copied());
    let (a, b, c) = (get(a)?, get(b)?, get(c)?);
    let n = ((b - a) / c).ceil();
    (n.is_finite() && n < 1e12).then_some(Dim::Const(n.max(0.0) as i64))
}

/// `values[1]` where the index along the new axis is the given one, `values[0]` elsewhere.
///
/// Library `one_hot`, where the depth is known at run time only. Inputs: indices, depth, values.
/// Ints: axis (from the front, of the output).
pub(crate) fn one_hot(cx: &mut Ctx) -> Outs {
    let (indices, depth, values) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let mut dims = cx.dims(indices)?;
    let ax = cx.axis("axis", dims.len() + 1)?;
    let t = cx.dtype(values);
    for (what, v, n) in [("depth", depth, 1), ("values", values, 2)] {
        let elements = cx.g.ty(v).const_dims().map(|d| d.iter().product::<i64>());
        if elements.is_some_and(|found| found != n) {
            return Err(invalid(format!(
                "'{what}' has {} elements, expected {n}",
                elements.unwrap_or(0)
            )));
        }
    }
    let known = match cx.known_scalar(depth) {
        Some(d) => Some(d),
        None => cx
            .const_f64s(depth)
            .and_then(|v| v.first().map(|v| Dim::Const(*v as i64))),
    };
    let Some(depth_dim) = known else {
        let inputs = vec![Some(indices), Some(depth), Some(values)];
        let outs = cx.outputs(&[t])?;
        let v = cx.library("one_hot", vec![ax as i64], vec![], inputs, outs);
        return one(first(&v)?);
    };
    dims.insert(ax, depth_dim.clone());
    let index = cx.cast(indices, DType::I64)?;
    let index = cx.unsqueeze(index, &[ax])?;
    let scalar = |cx: &mut Ctx, i: i64| -> Result<ValueId, Fail> {
        let v = cx.slice_axis(values, 0, Dim::Const(i), 1, Dim::Const(1))?;
        cx.reshape(v, vec![])
    };
    let (off, on) = match cx.g.constant(values).and_then(crate::builder::f64s) {
        Some(v) if v.len() == 2 && t.is_float() => (cx.scalar(t, v[0]), cx.scalar(t, v[1])),
        _ => (scalar(cx, 0)?, scalar(cx, 1)?),
    };
    one(cx.pw_shaped(&[index, off, on], Some(dims), |p, r| {
        let j = p.push(PwOp::Index(ax as u32), vec![], DType::I64);
        let n = p.push(PwOp::Dim(depth_dim), vec![], DType::I64);
        let zero = p.constant(Scalar::i64(0));
        let wrapped = p.bin(PwOp::Add, r[0], n);
        let negative = p.test(PwOp::Lt, vec![r[0], zero]);
        let i = p.select(negative, wrapped, r[0]);
        let hit = p.test(PwOp::Eq, vec![i, j]);
        p.select(hit, r[2], r[1])
    })?)
}

/// Hann, Hamming and Blackman windows: sums of cosines of the index.
pub(crate) fn window(cx: &mut Ctx) -> Outs {
    let size = cx.input(0)?;
    let t = cx.dtype_attr("output_datatype", DType::F32)?;
    let periodic = cx.flag("periodic", true)?;
    let terms: [f64; 3] = match cx.op {
        "HannWindow" => [0.5, -0.5, 0.0],
        "HammingWindow" => [25.0 / 46.0, -(1.0 - 25.0 / 46.0), 0.0],
        _ => [0.42, -0.5, 0.08],
    };
    let Some(n) = cx.known_scalar(size) else {
        // Library `window`. Inputs: size. Ints: element type, periodic. Floats: the weights of
        // cos(0), cos(1 x), cos(2 x).
        let ints = vec![t as i64, periodic as i64];
        let outs = cx.outputs(&[t])?;
        return all(cx.library("window", ints, terms.to_vec(), vec![Some(size)], outs));
    };
    let period = if periodic {
        n.clone()
    } else {
        n.sub(&Dim::Const(1))
    };
    let work = if t == DType::F64 { t } else { DType::F32 };
    one(cx.pw_shaped(&[], Some(vec![n]), |p, _| {
        let i = p.push(PwOp::Index(0), vec![], DType::I64);
        let i = p.cast(i, work);
        let d = p.push(PwOp::Dim(period), vec![], DType::I64);
        let d = p.cast(d, work);
        let tau = p.number(2.0 * std::f64::consts::PI, work);
        let x = p.bin(PwOp::Mul, i, tau);
        let x = p.bin(PwOp::Div, x, d);
        let mut y = p.number(terms[0], work);
        for (k, w) in terms.iter().enumerate().skip(1).filter(|(_, w)| **w != 0.0) {
            let k = p.number(k as f64, work);
            let a = p.bin(PwOp::Mul, x, k);
            let c = p.un(PwOp::Cos, a);
            let w = p.number(*w, work);
            let c = p.bin(PwOp::Mul, c, w);
            y = p.bin(PwOp::Add, y, c);
        }
        p.cast(y, t)
    })?)
}
