//! Shape arithmetic: small integer tensors evaluated as dimension expressions.
//!
//! [`evaluate`] takes a node whose inputs are all known (see `Builder::known`) and computes its
//! result as [`Dim`]s; the value is then made from those, and whatever computed it before is dead.
//! [`attach`] does the same for floats that hold sizes (`Cast(Shape(x)) * 2.0`), but keeps the
//! computed value: rounding is then ONNX's own, and the expression serves as a size only.
//! Views (Reshape, Squeeze, Cast, …) need nothing here: the builder passes knowledge through them.

use std::rc::Rc;

use lapidary_graph::{DType, Dim, ValueId};

use crate::builder::KNOWN_LIMIT;
use crate::context::{Ctx, axis};
use crate::dims::{dmax, dmin, slice};
use crate::error::Fail;

/// A small tensor with known elements.
struct Small {
    dtype: DType,
    shape: Vec<usize>,
    e: Rc<[Dim]>,
}

impl Small {
    fn new(dtype: DType, shape: Vec<usize>, e: Vec<Dim>) -> Small {
        Small {
            dtype,
            shape,
            e: e.into(),
        }
    }
    fn consts(&self) -> Option<Vec<i64>> {
        self.e.iter().map(Dim::as_const).collect()
    }
}

/// The results of a node, if they are known.
pub(crate) fn evaluate(cx: &mut Ctx) -> Result<Option<Vec<Option<ValueId>>>, Fail> {
    let results = match cx.op {
        "Shape" | "Size" => shape(cx)?.map(|s| vec![s]),
        _ => operands(cx, false).and_then(|ops| compute(cx, &ops)),
    };
    let Some(results) = results else {
        return Ok(None);
    };
    let mut out = Vec::new();
    for s in results {
        // What gets too large for a formula is computed as any tensor is.
        let heavy = s.e.iter().any(|d| d.weight() > Dim::MOST_WEIGHT);
        if heavy || s.e.len() > KNOWN_LIMIT || s.e.len() != s.shape.iter().product::<usize>() {
            return Ok(None);
        }
        let shape: Vec<i64> = s.shape.iter().map(|d| *d as i64).collect();
        out.push(Some(cx.materialise(s.e.to_vec(), &shape, s.dtype)?));
    }
    Ok(Some(out))
}

/// Notes what float results hold, where their inputs hold sizes.
pub(crate) fn attach(cx: &mut Ctx, outs: &[Option<ValueId>]) {
    let [Some(out)] = outs else {
        return;
    };
    let arithmetic = matches!(
        cx.op,
        "Add" | "Sub" | "Mul" | "Div" | "Gather" | "Slice" | "Concat" | "Floor" | "Ceil"
    );
    if !arithmetic || !cx.dtype(*out).is_float() {
        return;
    }
    let Some(ops) = operands(cx, true) else {
        return;
    };
    if ops.iter().all(|o| o.consts().is_some()) {
        return;
    }
    if let Some(mut r) = compute(cx, &ops)
        && let Some(s) = r.pop()
    {
        cx.set_known(*out, s.e.to_vec());
    }
}

fn shape(cx: &Ctx) -> Result<Option<Small>, Fail> {
    let v = cx.input(0)?;
    let Some(dims) = cx.g.ty(v).shape.clone() else {
        return Ok(None);
    };
    if cx.op == "Size" {
        return Ok(Some(Small::new(
            DType::I64,
            vec![],
            vec![Dim::product(&dims)],
        )));
    }
    let r = dims.len() as i64;
    let clamp = |v: i64| (if v < 0 { v.saturating_add(r) } else { v }).clamp(0, r) as usize;
    let (start, end) = (clamp(cx.int("start", 0)?), clamp(cx.int("end", r)?));
    let part = dims.get(start..end.max(start)).unwrap_or(&[]).to_vec();
    Ok(Some(Small::new(DType::I64, vec![part.len()], part)))
}

/// The inputs, if all are known; floats only where asked for.
fn operands(cx: &mut Ctx, floats: bool) -> Option<Vec<Small>> {
    if cx.inputs.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    for v in cx.inputs.clone() {
        let v = v?;
        let t = cx.g.ty(v);
        let dtype = t.dtype;
        let shape = t.const_dims()?;
        let mut e = match dtype {
            DType::I64 | DType::I32 | DType::Bool => cx.known(v),
            _ if floats && dtype.is_float() => cx.known(v),
            _ => return None,
        };
        // A float constant of whole numbers is as good.
        if e.is_none()
            && dtype.is_float()
            && shape.iter().try_fold(1i64, |a, d| a.checked_mul(*d))? <= 64
        {
            let whole = |x: &f64| x.fract() == 0.0 && x.abs() < 1e9;
            let values = cx.const_f64s(v)?;
            e = values
                .iter()
                .all(whole)
                .then(|| values.iter().map(|x| Dim::Const(*x as i64)).collect());
        }
        out.push(Small {
            dtype,
            shape: shape.iter().map(|d| *d as usize).collect(),
            e: e?,
        });
    }
    Some(out)
}

fn compute(cx: &mut Ctx, ops: &[Small]) -> Option<Vec<Small>> {
    let first = ops.first()?;
    let one = |s: Small| Some(vec![s]);
    match cx.op {
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Min" | "Max" => {
            if first.dtype == DType::Bool {
                return None;
            }
            let fmod = cx.int("fmod", 0).ok()? != 0;
            let t = first.dtype;
            let mut acc = Small::new(t, first.shape.clone(), first.e.to_vec());
            for o in ops.get(1..)? {
                acc = zip(&acc, o, t, |a, b| arith(cx.op, a, b, t, fmod))?;
            }
            one(acc)
        }
        "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" => {
            let second = ops.get(1)?;
            one(zip(first, second, DType::Bool, |a, b| {
                compare(cx.op, a, b).map(|v| Dim::Const(v as i64))
            })?)
        }
        "And" | "Or" | "Xor" => one(zip(first, ops.get(1)?, DType::Bool, |a, b| {
            let (a, b) = (a.as_const()?, b.as_const()?);
            Some(Dim::Const(match cx.op {
                "And" => a & b,
                "Or" => a | b,
                _ => a ^ b,
            }))
        })?),
        "Not" | "Neg" | "Floor" | "Ceil" => {
            let e: Option<Vec<Dim>> = first
                .e
                .iter()
                .map(|d| match cx.op {
                    "Not" => d.as_const().map(|v| Dim::Const((v == 0) as i64)),
                    "Neg" => Some(d.neg()),
                    _ => Some(d.clone()),
                })
                .collect();
            one(Small::new(first.dtype, first.shape.clone(), e?))
        }
        "Where" => {
            let [c, x, y] = ops else { return None };
            // Pair the two, then choose.
            let shape = broadcast_shape(&broadcast_shape(&c.shape, &x.shape)?, &y.shape)?;
            let mut e = Vec::new();
            for i in 0..count(&shape)? {
                let pick = if at(c, &shape, i)?.as_const()? != 0 {
                    x
                } else {
                    y
                };
                e.push(at(pick, &shape, i)?.clone());
            }
            one(Small::new(x.dtype, shape, e))
        }
        "Gather" => gather(cx, first, ops.get(1)?).and_then(one),
        "Slice" => slice_op(cx, ops).and_then(one),
        "Concat" => concat(cx, ops).and_then(one),
        "Expand" => {
            let to: Vec<usize> = ops
                .get(1)?
                .consts()?
                .iter()
                .map(|d| usize::try_from(*d).ok())
                .collect::<Option<_>>()?;
            let shape = broadcast_shape(&first.shape, &to)?;
            let n = count(&shape)?;
            let e: Option<Vec<Dim>> = (0..n).map(|i| at(first, &shape, i).cloned()).collect();
            one(Small::new(first.dtype, shape, e?))
        }
        "ReduceProd" | "ReduceSum" | "ReduceMax" | "ReduceMin" => reduce(cx, ops).and_then(one),
        "Range" => {
            let [a, b, c] = ops else { return None };
            let get = |s: &Small| s.e.first().and_then(Dim::as_const);
            let (start, limit, delta) = (get(a)?, get(b)?, get(c)?);
            let n = range_len(start, limit, delta)?;
            if n > KNOWN_LIMIT as i64 {
                return None;
            }
            let e = (0..n).map(|i| Dim::Const(start.wrapping_add(i.wrapping_mul(delta))));
            one(Small::new(first.dtype, vec![n as usize], e.collect()))
        }
        "Split" => {
            let [n] = first.shape.as_slice() else {
                return None;
            };
            let parts = cx.wanted.len();
            let sizes: Vec<usize> = match ops.get(1) {
                Some(s) => s.consts()?,
                None => match cx.ints("split").ok()? {
                    Some(s) => s.to_vec(),
                    None => {
                        let size = n.div_ceil(parts.max(1));
                        (0..parts)
                            .map(|i| n.saturating_sub(i * size).min(size) as i64)
                            .collect()
                    }
                },
            }
            .into_iter()
            .map(|s| usize::try_from(s).ok())
            .collect::<Option<_>>()?;
            let mut from = 0usize;
            let mut out = Vec::new();
            for s in sizes {
                let to = from.checked_add(s)?;
                let part = first.e.get(from..to)?.to_vec();
                out.push(Small::new(first.dtype, vec![s], part));
                from = to;
            }
            (out.len() == parts).then_some(out)
        }
        "NonZero" => {
            let e = first.consts()?;
            let r = first.shape.len();
            let found: Vec<usize> = (0..e.len())
                .filter(|i| e.get(*i).is_some_and(|v| *v != 0))
                .collect();
            let mut out = Vec::new();
            for k in 0..r {
                let inner: usize = first.shape.get(k + 1..)?.iter().product();
                let n = *first.shape.get(k)?;
                out.extend(found.iter().map(|i| Dim::from(i / inner.max(1) % n.max(1))));
            }
            one(Small::new(DType::I64, vec![r, found.len()], out))
        }
        _ => None,
    }
}

/// Number of elements of a Range; `None` for a step of 0.
pub(crate) fn range_len(start: i64, limit: i64, delta: i64) -> Option<i64> {
    let span = limit.checked_sub(start)?;
    let n = Dim::Const(span).ceil_div(&Dim::Const(delta)).as_const()?;
    Some(n.max(0))
}

fn count(shape: &[usize]) -> Option<usize> {
    let n = shape
        .iter()
        .try_fold(1usize, |a, d| a.checked_mul(*d))
        .unwrap_or(usize::MAX);
    (n <= KNOWN_LIMIT).then_some(n)
}

fn broadcast_shape(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let get = |s: &[usize], i: usize| {
        (i + s.len())
            .checked_sub(rank)
            .and_then(|k| s.get(k).copied())
            .unwrap_or(1)
    };
    (0..rank)
        .map(|i| match (get(a, i), get(b, i)) {
            (1, y) => Some(y),
            (x, 1) => Some(x),
            (x, y) => (x == y).then_some(x),
        })
        .collect()
}

/// The element of `s` that element `i` of a broadcast to `shape` reads.
fn at<'s>(s: &'s Small, shape: &[usize], i: usize) -> Option<&'s Dim> {
    let mut rest = i;
    let mut index = 0;
    let mut stride = 1;
    for (k, d) in shape.iter().enumerate().rev() {
        let pos = rest % d;
        rest /= d;
        if let Some(own) = (k + s.shape.len()).checked_sub(shape.len()) {
            let n = *s.shape.get(own)?;
            if n != 1 {
                index += pos * stride;
            }
            stride *= n;
        }
    }
    s.e.get(index)
}

fn zip(a: &Small, b: &Small, dtype: DType, f: impl Fn(&Dim, &Dim) -> Option<Dim>) -> Option<Small> {
    let shape = broadcast_shape(&a.shape, &b.shape)?;
    let e: Option<Vec<Dim>> = (0..count(&shape)?)
        .map(|i| f(at(a, &shape, i)?, at(b, &shape, i)?))
        .collect();
    Some(Small::new(dtype, shape, e?))
}

fn arith(op: &str, a: &Dim, b: &Dim, t: DType, fmod: bool) -> Option<Dim> {
    if let (Some(x), Some(y)) = (a.as_const(), b.as_const()) {
        let v = match op {
            "Add" => x.wrapping_add(y),
            "Sub" => x.wrapping_sub(y),
            "Mul" => x.wrapping_mul(y),
            "Div" if y == 0 || (t.is_float() && x % y != 0) => return None,
            "Div" => x.wrapping_div(y),
            "Mod" if y == 0 || t.is_float() => return None,
            "Mod" if fmod => x.wrapping_rem(y),
            "Mod" => return Some(a.modulo(b)),
            "Min" => x.min(y),
            "Max" => x.max(y),
            _ => return None,
        };
        return Some(Dim::Const(if t == DType::I32 {
            v as i32 as i64
        } else {
            v
        }));
    }
    let sizes = || a.is_ge(0) == Some(true) && b.is_ge(0) == Some(true);
    Some(match op {
        "Add" => a.add(b),
        "Sub" => a.sub(b),
        "Mul" => a.mul(b),
        "Div" => match a.exact_div(b) {
            Some(d) => d,
            None if !t.is_float() && sizes() => a.floor_div(b),
            None => return None,
        },
        "Mod" if sizes() && !t.is_float() => a.modulo(b),
        "Min" => dmin(a, b),
        "Max" => dmax(a, b),
        _ => return None,
    })
}

fn compare(op: &str, a: &Dim, b: &Dim) -> Option<bool> {
    let less = |a: &Dim, b: &Dim| match (b.sub(a).is_ge(1), a.sub(b).is_ge(0)) {
        (Some(v), _) => Some(v),
        (_, Some(true)) => Some(false),
        _ => None,
    };
    match op {
        "Equal" => a.equals(b),
        "Less" => less(a, b),
        "Greater" => less(b, a),
        "LessOrEqual" => less(b, a).map(|v| !v),
        _ => less(a, b).map(|v| !v),
    }
}

fn gather(cx: &Ctx, data: &Small, indices: &Small) -> Option<Small> {
    let ax = axis(cx.int("axis", 0).ok()?, data.shape.len()).ok()?;
    let n = *data.shape.get(ax)?;
    let (before, after) = (data.shape.get(..ax)?, data.shape.get(ax + 1..)?);
    let (outer, inner) = (count(before)?, count(after)?);
    let index = indices.consts()?;
    let mut e = Vec::new();
    for o in 0..outer {
        for i in &index {
            let i = axis(*i, n).ok()?;
            let from = (o * n + i) * inner;
            e.extend_from_slice(data.e.get(from..from + inner)?);
        }
    }
    let shape = before.iter().chain(&indices.shape).chain(after);
    Some(Small::new(data.dtype, shape.copied().collect(), e))
}

/// Slice of a vector with constant bounds.
fn slice_op(cx: &Ctx, ops: &[Small]) -> Option<Small> {
    let data = ops.first()?;
    let [n] = data.shape.as_slice() else {
        return None;
    };
    let (start, end, step);
    if cx.opset < 10 {
        let get = |name| match cx.ints(name) {
            Ok(Some([v])) => Some(*v),
            _ => None,
        };
        (start, end, step) = (get("starts")?, get("ends")?, 1);
    } else {
        let get = |i: usize| ops.get(i).and_then(|s| s.e.first()?.as_const());
        start = get(1)?;
        end = get(2)?;
        step = if ops.len() > 4 { get(4)? } else { 1 };
    }
    if step == 0 {
        return None;
    }
    let (s, size) = slice(&Dim::from(*n), &Dim::Const(start), &Dim::Const(end), step)?;
    let (s, size) = (s.as_const()?, size.as_const()?);
    let e: Option<Vec<Dim>> = (0..size)
        .map(|i| data.e.get(usize::try_from(s + i * step).ok()?).cloned())
        .collect();
    Some(Small::new(data.dtype, vec![size as usize], e?))
}

fn concat(cx: &Ctx, ops: &[Small]) -> Option<Small> {
    let first = ops.first()?;
    let ax = axis(cx.int("axis", 0).ok()?, first.shape.len()).ok()?;
    let outer = count(first.shape.get(..ax)?)?;
    let mut shape = first.shape.clone();
    let mut n = 0usize;
    for o in ops {
        let same = o.shape.len() == shape.len()
            && o.dtype == first.dtype
            && (0..shape.len()).all(|k| k == ax || o.shape.get(k) == shape.get(k));
        if !same {
            return None;
        }
        n += o.shape.get(ax)?;
    }
    *shape.get_mut(ax)? = n;
    let mut e = Vec::new();
    for k in 0..outer {
        for o in ops {
            let part: usize = o.shape.get(ax..)?.iter().product();
            e.extend_from_slice(o.e.get(k * part..(k + 1) * part)?);
        }
    }
    Some(Small::new(first.dtype, shape, e))
}

/// A reduction of a vector, or of all axes.
fn reduce(cx: &mut Ctx, ops: &[Small]) -> Option<Small> {
    let data = ops.first()?;
    let rank = data.shape.len();
    let listed = match ops.get(1) {
        Some(a) => Some(a.consts()?),
        None => cx.ints("axes").ok()?.map(<[i64]>::to_vec),
    };
    let listed = listed.unwrap_or_default();
    if listed.is_empty() && cx.int("noop_with_empty_axes", 0).ok()? != 0 {
        return None;
    }
    if data.dtype == DType::Bool || !(listed.is_empty() || listed.len() == rank) {
        return None;
    }
    let keep = cx.int("keepdims", 1).ok()? != 0;
    let op = match cx.op {
        "ReduceProd" => "Mul",
        "ReduceSum" => "Add",
        "ReduceMax" => "Max",
        _ => "Min",
    };
    let mut items = data.e.iter();
    let mut acc = match (op, items.len()) {
        ("Mul", 0) => Dim::Const(1),
        ("Add", 0) => Dim::Const(0),
        (_, 0) => return None,
        _ => items.next()?.clone(),
    };
    for d in items {
        acc = arith(op, &acc, d, data.dtype, false)?;
    }
    let shape = if keep { vec![1; rank] } else { vec![] };
    Some(Small::new(data.dtype, shape, vec![acc]))
}
