//! Mappings of values to values, by keys: label encoders, category mappers, one-hot encoders, and the
//! labels of classifiers.
//!
//! A mapping is a search for the key's position (kernel `find`) and a gather from the values, with the
//! default behind the last; few keys that are numbers are an expression instead.

use bytes::Bytes;
use lapidary_graph::{DType, Op, PwOp, Scalar, TensorData, ValueId};

use crate::builder::f64s;
use crate::context::{Ctx, Outs, one};
use crate::error::{Fail, invalid};
use crate::strings::Keys;

/// Keys up to which numbers are mapped by an expression.
const FEW_KEYS: usize = 16;

/// A vector of strings.
pub(crate) fn string_vector(strings: Vec<Bytes>) -> TensorData {
    TensorData {
        dtype: DType::String,
        dims: vec![strings.len() as i64],
        bytes: Bytes::new(),
        strings,
    }
}

/// The keys or values of a mapping; `None` where no attribute has them.
fn side(cx: &Ctx, name: &str) -> Result<Option<TensorData>, Fail> {
    let named = |kind: &str| format!("{name}_{kind}");
    if let Some(v) = cx.floats(&named("floats"))?.filter(|v| !v.is_empty()) {
        return Ok(Some(TensorData::from_f32(vec![v.len() as i64], v)));
    }
    if let Some(v) = cx.ints(&named("int64s"))?.filter(|v| !v.is_empty()) {
        return Ok(Some(TensorData::from_i64(vec![v.len() as i64], v)));
    }
    if let Some(v) = cx.strings(&named("strings"))?.filter(|v| !v.is_empty()) {
        return Ok(Some(string_vector(v.to_vec())));
    }
    cx.tensor(&named("tensor"))
}

/// What a mapping makes of values that are no keys, in the type of its values.
fn default(cx: &Ctx, values: &TensorData) -> Result<TensorData, Fail> {
    let one = match cx.tensor("default_tensor")? {
        Some(t) if t.len() == 1 && t.dtype == values.dtype => t,
        Some(t) => {
            return Err(invalid(format!(
                "attribute 'default_tensor' has {} elements of type {}, expected one of type {}",
                t.len(),
                t.dtype,
                values.dtype
            )));
        }
        None if values.dtype == DType::String => {
            let s = cx.string("default_string", "_Unused")?;
            string_vector(vec![Bytes::copy_from_slice(s.as_bytes())])
        }
        None if values.dtype.is_float() => {
            let v = cx.float("default_float", -0.0)? as f64;
            crate::builder::data_of(values.dtype, vec![1], &[v])
        }
        None => {
            let v = cx.int("default_int64", -1)?;
            crate::builder::int_data(values.dtype, vec![1], &[v])
        }
    };
    Ok(TensorData {
        dims: vec![1],
        ..one
    })
}

fn keys_of(t: &TensorData) -> Result<Keys, Fail> {
    let bad = || invalid(format!("keys of type {}", t.dtype));
    Ok(match t.dtype {
        DType::String => Keys::Strings(t.strings.clone()),
        t2 if t2.is_float() => Keys::Floats(f64s(t).ok_or_else(bad)?),
        _ => Keys::Ints(t.to_i64s().ok_or_else(bad)?),
    })
}

/// Two vectors behind each other.
fn joined(a: &TensorData, b: &TensorData) -> TensorData {
    TensorData {
        dtype: a.dtype,
        dims: vec![(a.len() + b.len()) as i64],
        bytes: [&a.bytes[..], &b.bytes[..]].concat().into(),
        strings: a.strings.iter().chain(&b.strings).cloned().collect(),
    }
}

/// `values[i]` where x is `keys[i]` (the last of equal keys), else the default.
fn map(
    cx: &mut Ctx,
    x: ValueId,
    keys: TensorData,
    values: TensorData,
    default: TensorData,
) -> Result<ValueId, Fail> {
    let n = keys.len();
    if n != values.len() {
        return Err(invalid(format!("{n} keys, {} values", values.len())));
    }
    let t = cx.dtype(x);
    if t != keys.dtype {
        return Err(invalid(format!(
            "input 0 is {t}, the keys are {}",
            keys.dtype
        )));
    }
    let keys = keys_of(&keys)?;
    if n <= FEW_KEYS
        && values.dtype != DType::String
        && let (Some(v), Some(d)) = (scalars(&values), scalars(&default))
        && let Some(k) = match &keys {
            Keys::Ints(k) => Some(k.iter().map(|k| int_scalar(t, *k)).collect::<Vec<_>>()),
            Keys::Floats(k) => Some(k.iter().map(|k| Scalar::of(t, *k)).collect()),
            Keys::Strings(_) => None,
        }
    {
        return cx.pw(&[x], |p, r| {
            let mut y = p.constant(d[0]);
            for (k, v) in k.iter().zip(&v) {
                let hit = if t.is_float() && k.to_f64().is_nan() {
                    p.test(PwOp::IsNan, vec![r[0]])
                } else {
                    let k = p.constant(*k);
                    p.test(PwOp::Eq, vec![r[0], k])
                };
                let v = p.constant(*v);
                y = p.select(hit, v, y);
            }
            y
        });
    }
    let numbers: Vec<i64> = (0..n as i64).collect();
    let at = cx.find(x, &keys, &numbers, n as i64, false)?;
    let all = cx.constant(joined(&values, &default));
    cx.emit1(Op::Gather { axis: 0 }, &[all, at])
}

fn int_scalar(t: DType, v: i64) -> Scalar {
    match t {
        DType::I64 => Scalar::i64(v),
        _ => Scalar::of(t, v as f64),
    }
}

/// The elements of a numeric tensor.
fn scalars(t: &TensorData) -> Option<Vec<Scalar>> {
    match t.dtype {
        DType::String => None,
        t2 if t2.is_float() => Some(f64s(t)?.iter().map(|v| Scalar::of(t2, *v)).collect()),
        t2 => Some(t.to_i64s()?.iter().map(|v| int_scalar(t2, *v)).collect()),
    }
}

/// LabelEncoder: pairs of lists from version 2 on; before, strings and their positions.
pub(crate) fn label_encoder(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    if cx.opset < 2 {
        let classes = cx.strings("classes_strings")?.unwrap_or(&[]);
        let strings = string_vector(classes.to_vec());
        let numbers: Vec<i64> = (0..classes.len() as i64).collect();
        let numbers = TensorData::from_i64(vec![classes.len() as i64], &numbers);
        return either_way(cx, x, numbers, strings);
    }
    let keys = side(cx, "keys")?.ok_or_else(|| invalid("the keys are missing"))?;
    let values = side(cx, "values")?.ok_or_else(|| invalid("the values are missing"))?;
    let default = default(cx, &values)?;
    one(map(cx, x, keys, values, default)?)
}

/// Strings and integers, mapped to each other.
pub(crate) fn category_mapper(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let ints = cx.ints("cats_int64s")?.unwrap_or(&[]);
    let strings = cx.strings("cats_strings")?.unwrap_or(&[]);
    let ints = TensorData::from_i64(vec![ints.len() as i64], ints);
    let strings = string_vector(strings.to_vec());
    either_way(cx, x, ints, strings)
}

/// Strings to integers, or integers to strings, as the input is.
fn either_way(cx: &mut Ctx, x: ValueId, ints: TensorData, strings: TensorData) -> Outs {
    let (keys, values) = match cx.dtype(x) {
        DType::String => (strings, ints),
        DType::I64 => (ints, strings),
        t => return Err(invalid(format!("input 0 is {t}, expected strings or i64"))),
    };
    let default = default(cx, &values)?;
    one(map(cx, x, keys, values, default)?)
}

/// A row of zeros with a one at the category; what is none fails unless `zeros`.
pub(crate) fn one_hot_encoder(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let zeros = cx.flag("zeros", true)?;
    let keys = match (cx.ints("cats_int64s")?, cx.strings("cats_strings")?) {
        (Some(c), _) if !c.is_empty() => Keys::Ints(c.to_vec()),
        (_, Some(c)) if !c.is_empty() => Keys::Strings(c.to_vec()),
        _ => return Err(invalid("the categories are missing")),
    };
    let n = keys.len() as i64;
    let rank = cx.rank(x)?;
    let (x, places) = match &keys {
        Keys::Ints(c) if zeros => {
            let c = cx.int_vector(c);
            (cx.cast(x, DType::I64)?, c)
        }
        keys => {
            let x = match keys {
                Keys::Strings(_) => super::strings::text(cx, 0)?,
                _ => cx.cast(x, DType::I64)?,
            };
            let numbers: Vec<i64> = (0..n).collect();
            let at = cx.find(x, keys, &numbers, n, !zeros)?;
            let places = cx.int_vector(&numbers);
            (at, places)
        }
    };
    let x = cx.unsqueeze(x, &[rank])?;
    one(cx.pw(&[x, places], |p, r| {
        let hit = p.test(PwOp::Eq, vec![r[0], r[1]]);
        p.cast(hit, DType::F32)
    })?)
}

/// Labels of a classifier: integers or strings.
pub(crate) fn class_labels(cx: &Ctx, ints: &str) -> Result<TensorData, Fail> {
    match (cx.strings("classlabels_strings")?, cx.ints(ints)?) {
        (Some(s), _) if !s.is_empty() => Ok(string_vector(s.to_vec())),
        (_, Some(i)) if !i.is_empty() => Ok(TensorData::from_i64(vec![i.len() as i64], i)),
        _ => Err(invalid("the class labels are missing")),
    }
}

/// The labels at the positions `at`.
pub(crate) fn pick_labels(cx: &mut Ctx, labels: TensorData, at: ValueId) -> Result<ValueId, Fail> {
    let labels = cx.constant(labels);
    cx.emit1(Op::Gather { axis: 0 }, &[labels, at])
}
