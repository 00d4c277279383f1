//! Maps of ai.onnx.ml: made of scores (ZipMap), and read into rows of features (DictVectorizer, CastMap).

use bytes::Bytes;
use lapidary_graph::op::LibraryCall;
use lapidary_graph::{Container, DType, Dim, ValueId};

use crate::builder::{LibOut, first};
use crate::containers::Element;
use crate::context::{Ctx, Outs, one, same};
use crate::error::{Fail, invalid};

/// Keys of one type, as an attribute lists them.
enum KeyList<'m> {
    Ints(&'m [i64]),
    Strings(&'m [Bytes]),
}

impl KeyList<'_> {
    fn of<'m>(cx: &Ctx<'_, 'm>, ints: &str, strings: &str) -> Result<KeyList<'m>, Fail> {
        let (i, s) = (cx.ints(ints)?, cx.strings(strings)?);
        match (i.filter(|i| !i.is_empty()), s.filter(|s| !s.is_empty())) {
            (Some(i), None) => Ok(KeyList::Ints(i)),
            (None, Some(s)) => Ok(KeyList::Strings(s)),
            _ => Err(
                invalid("expected keys in exactly one of two attributes, found none or both")
                    .hint(format!("the attributes are '{ints}' and '{strings}'")),
            ),
        }
    }
    fn len(&self) -> i64 {
        match self {
            KeyList::Ints(k) => k.len() as i64,
            KeyList::Strings(k) => k.len() as i64,
        }
    }
    fn dtype(&self) -> DType {
        match self {
            KeyList::Ints(_) => DType::I64,
            KeyList::Strings(_) => DType::String,
        }
    }
    fn ints(&self) -> &[i64] {
        match self {
            KeyList::Ints(k) => k,
            KeyList::Strings(_) => &[],
        }
    }
    fn strings(&self) -> Vec<Bytes> {
        match self {
            KeyList::Ints(_) => Vec::new(),
            KeyList::Strings(k) => k.to_vec(),
        }
    }
}

/// The number by which kernels know the type of keys.
fn kind(key: DType) -> i64 {
    (key != DType::String).into()
}

/// Library `zip_map`. Inputs: scores f32 `[C]` or `[N, C]`. Ints: kind of the keys (0 strings, 1 i64), i64 keys.
/// Strings: string keys. Output: a sequence of maps.
pub(crate) fn zip_map(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    if cx.dtype(x) != DType::F32 {
        return Err(invalid(format!("scores of {}, expected f32", cx.dtype(x))));
    }
    let keys = KeyList::of(cx, "classlabels_int64s", "classlabels_strings")?;
    let n = keys.len();
    if let Some(dims) = cx.g.ty(x).shape.clone() {
        match dims.as_slice() {
            [width] | [_, width] => {
                same("scores of a row and class labels", width, &Dim::Const(n))?
            }
            _ => {
                return Err(invalid(format!(
                    "scores of rank {}, expected 1 or 2",
                    dims.len()
                )));
            }
        }
    }
    let call = LibraryCall {
        name: "zip_map".into(),
        ints: [&[kind(keys.dtype())], keys.ints()].concat(),
        floats: Vec::new(),
        strings: keys.strings(),
    };
    let containers = vec![Container::Sequence, Container::Map(keys.dtype())];
    let out = LibOut::inside(DType::F32, containers, Element::Dims(vec![Some(n)]));
    one(first(&cx.library_call(call, vec![Some(x)], vec![out]))?)
}

/// Library `map_values`. Inputs: a map. Ints: form, number of values, kind of the keys, i64 keys. Strings: string
/// keys, or what fills places without a value (if values are strings). Output: a row of values.
fn values(
    cx: &mut Ctx,
    form: i64,
    width: Option<i64>,
    keys: Option<KeyList>,
    fill: Option<&'static str>,
) -> Result<ValueId, Fail> {
    let map = cx.input(0)?;
    let ty = cx.g.ty(map).clone();
    let [Container::Map(key)] = ty.containers[..] else {
        let ty = lapidary_graph::verify::type_text(&cx.g, &ty);
        return Err(invalid(format!(
            "input 0 is {ty}, expected a map of numbers or strings"
        )));
    };
    if let Some(keys) = &keys
        && keys.dtype() != key
    {
        return Err(invalid(format!(
            "a map with keys of {key}, but a vocabulary of {}",
            keys.dtype()
        )));
    }
    let mut ints = vec![form, width.unwrap_or(0), kind(key)];
    ints.extend(keys.as_ref().map_or(&[][..], KeyList::ints));
    let call = LibraryCall {
        name: "map_values".into(),
        ints,
        floats: Vec::new(),
        strings: match keys {
            Some(keys) => keys.strings(),
            None => fill
                .map(|f| Bytes::from_static(f.as_bytes()))
                .into_iter()
                .collect(),
        },
    };
    let out = LibOut::new(ty.dtype, [Some(Dim::Const(1)), width.map(Dim::Const)]);
    first(&cx.library_call(call, vec![Some(map)], vec![out]))
}

/// The values of the keys of a vocabulary, 0 (or an empty string) for keys that the map lacks.
pub(crate) fn dict_vectorizer(cx: &mut Ctx) -> Outs {
    let keys = KeyList::of(cx, "int64_vocabulary", "string_vocabulary")?;
    let n = keys.len();
    one(values(cx, 1, Some(n), Some(keys), None)?)
}

/// All values in the order of their keys, or each at the position that is its key; as another type.
pub(crate) fn cast_map(cx: &mut Ctx) -> Outs {
    let to = match cx.choice(
        "cast_to",
        "TO_FLOAT",
        &["TO_FLOAT", "TO_STRING", "TO_INT64"],
    )? {
        0 => DType::F32,
        1 => DType::String,
        _ => DType::I64,
    };
    let v = match cx.choice("map_form", "DENSE", &["DENSE", "SPARSE"])? {
        0 => values(cx, 0, None, None, None)?,
        _ => {
            let width = cx.int("max_map", 1)?;
            if width < 1 {
                return Err(invalid(format!(
                    "attribute 'max_map' is {width}, expected 1 or more"
                )));
            }
            if let Some(Container::Map(DType::String)) = cx.g.ty(cx.input(0)?).containers.first() {
                return Err(invalid("keys that are strings are no positions"));
            }
            // A number that is missing is 0, in strings that are read as numbers too.
            let fill = (to != DType::String).then_some("0");
            values(cx, 2, Some(width), None, fill)?
        }
    };
    one(cx.cast(v, to)?)
}
