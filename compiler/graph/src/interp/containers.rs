//! Values that are no tensors, and the library calls on them.

use super::views;
use crate::op::LibraryCall;
use crate::{Container, DType, TensorData, TensorType};

/// A value at run time.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Every value of a graph without containers.
    Tensor(TensorData),
    /// Values of one type.
    Sequence(Vec<Value>),
    /// One value or none.
    Optional(Option<Box<Value>>),
    /// Keys are a vector; the values a tensor, or a sequence.
    Map {
        /// i64 or strings, of rank 1.
        keys: TensorData,
        /// One for each key, in their order.
        values: Box<Value>,
    },
}

impl Value {
    /// The data, unless it is in a container.
    pub fn tensor(&self) -> Option<&TensorData> {
        match self {
            Value::Tensor(t) => Some(t),
            _ => None,
        }
    }
    /// The value as the text of a test has it: a tensor as in a constant, `seq(…)`, `opt(…)`.
    pub fn text(&self) -> String {
        match self {
            Value::Tensor(t) => crate::text::data_text(t),
            Value::Sequence(all) => {
                let all: Vec<String> = all.iter().map(Value::text).collect();
                format!("seq({})", all.join("; "))
            }
            Value::Optional(None) => "opt()".into(),
            Value::Optional(Some(v)) => format!("opt({})", v.text()),
            Value::Map { keys, values } => {
                format!("map({}; {})", crate::text::data_text(keys), values.text())
            }
        }
    }
    /// Whether it is of this type, as far as containers and element types go.
    pub(super) fn is_of(&self, ty: &TensorType) -> bool {
        match (self, ty.containers.first()) {
            (Value::Tensor(t), None) => t.dtype == ty.dtype,
            (Value::Sequence(all), Some(Container::Sequence)) => {
                let element = ty.element();
                all.iter().all(|v| v.is_of(&element))
            }
            (Value::Optional(inside), Some(Container::Optional)) => {
                let element = ty.element();
                inside.as_ref().is_none_or(|v| v.is_of(&element))
            }
            (Value::Map { keys, .. }, Some(Container::Map(key))) => keys.dtype == *key,
            _ => false,
        }
    }
}

impl From<TensorData> for Value {
    fn from(t: TensorData) -> Self {
        Value::Tensor(t)
    }
}

type Results = Result<Vec<Value>, String>;

/// The results of a call on containers; `None` for any other call.
pub(super) fn call(call: &LibraryCall, operands: &[Option<&Value>]) -> Option<Results> {
    let c = Call { call, operands };
    let one = |v: Result<Value, String>| Some(v.map(|v| vec![v]));
    match call.name.as_str() {
        "sequence_construct" => {
            let all: Option<Vec<Value>> = operands.iter().map(|v| v.cloned()).collect();
            one(all
                .map(Value::Sequence)
                .ok_or("an element is absent".into()))
        }
        "sequence_empty" => one(Ok(Value::Sequence(Vec::new()))),
        "sequence_insert" => one(c.insert()),
        "sequence_erase" => one(c.erase()),
        "sequence_at" => one(c.at()),
        "sequence_length" => one(c.sequence(0).map(|s| number(s.len() as i64))),
        "split_to_sequence" => one(c.split()),
        "concat_from_sequence" => one(c.concat()),
        "optional" => {
            let inside = operands.first().copied().flatten();
            one(Ok(Value::Optional(inside.cloned().map(Box::new))))
        }
        "optional_has" => {
            let there = !matches!(
                operands.first().copied().flatten(),
                None | Some(Value::Optional(None))
            );
            one(Ok(Value::Tensor(TensorData {
                dtype: DType::Bool,
                dims: Vec::new(),
                bytes: vec![u8::from(there)].into(),
                strings: Vec::new(),
            })))
        }
        "optional_get" => match operands.first().copied().flatten() {
            Some(Value::Optional(Some(v))) => one(Ok((**v).clone())),
            Some(Value::Optional(None)) | None => one(Err("there is nothing in it".into())),
            Some(v) => one(Ok(v.clone())),
        },
        "zip_map" => one(c.zip_map()),
        "map_values" => one(c.map_values()),
        "copy" => match operands.first().copied().flatten() {
            Some(v) => one(Ok(v.clone())),
            None => one(Err("nothing to copy".into())),
        },
        _ => None,
    }
}

fn number(n: i64) -> Value {
    Value::Tensor(TensorData::from_i64(Vec::new(), &[n]))
}

struct Call<'a> {
    call: &'a LibraryCall,
    operands: &'a [Option<&'a Value>],
}

impl Call<'_> {
    fn opt(&self, i: usize) -> Option<&Value> {
        self.operands.get(i).copied().flatten()
    }
    fn sequence(&self, i: usize) -> Result<&[Value], String> {
        match self.opt(i) {
            Some(Value::Sequence(all)) => Ok(all),
            _ => Err(format!("operand {i} is no sequence")),
        }
    }
    fn int(&self, i: usize) -> i64 {
        self.call.ints.get(i).copied().unwrap_or(0)
    }
    /// A position out of `0..n`, counted from the end if negative.
    fn position(&self, i: usize, n: usize, default: i64) -> Result<usize, String> {
        let at = match self.opt(i) {
            None => default,
            Some(v) => match v.tensor().and_then(TensorData::to_i64s).as_deref() {
                Some([at]) => *at,
                _ => return Err(format!("operand {i} is no single number")),
            },
        };
        let from_front = if at < 0 { at + n as i64 } else { at };
        match usize::try_from(from_front) {
            Ok(p) if p < n => Ok(p),
            _ => Err(format!("position {at} out of {n}")),
        }
    }
    fn insert(&self) -> Result<Value, String> {
        let mut all = self.sequence(0)?.to_vec();
        let v = self.opt(1).ok_or("no element")?.clone();
        let n = all.len();
        // Positions count from the end of the old sequence, and its end is one of them.
        let at = match self.opt(2) {
            None => n,
            Some(p) => match p.tensor().and_then(TensorData::to_i64s).as_deref() {
                Some([at]) if (-(n as i64)..=n as i64).contains(at) => {
                    (if *at < 0 { at + n as i64 } else { *at }) as usize
                }
                _ => return Err(format!("a position out of {n}")),
            },
        };
        all.insert(at, v);
        Ok(Value::Sequence(all))
    }
    fn erase(&self) -> Result<Value, String> {
        let mut all = self.sequence(0)?.to_vec();
        let at = self.position(1, all.len(), -1)?;
        all.remove(at);
        Ok(Value::Sequence(all))
    }
    fn at(&self) -> Result<Value, String> {
        let all = self.sequence(0)?;
        let at = self.position(1, all.len(), 0)?;
        Ok(all[at].clone())
    }
    fn axis(&self, rank: usize) -> Result<usize, String> {
        let a = self.int(0);
        let from_front = if a < 0 { a + rank as i64 } else { a };
        match usize::try_from(from_front) {
            Ok(p) if p < rank => Ok(p),
            _ => Err(format!("axis {a} of rank {rank}")),
        }
    }
    fn split(&self) -> Result<Value, String> {
        let x = self.opt(0).and_then(Value::tensor).ok_or("no tensor")?;
        let axis = self.axis(x.dims.len())?;
        let n = x.dims[axis];
        let split = self.opt(1).and_then(Value::tensor);
        let sizes = match split {
            None => vec![1; n as usize],
            Some(t) => {
                let sizes = t.to_i64s().ok_or("sizes are no integers")?;
                match (t.dims.as_slice(), sizes.as_slice()) {
                    ([], [size]) if *size > 0 => {
                        let starts = (0..n).step_by(*size as usize);
                        starts.map(|at| (*size).min(n - at)).collect()
                    }
                    ([_], _) if sizes.iter().sum::<i64>() == n && sizes.iter().all(|s| *s >= 0) => {
                        sizes
                    }
                    _ => return Err(format!("sizes {sizes:?} of {n}")),
                }
            }
        };
        let keep = self.int(1) != 0 || split.is_some();
        let (mut start, step) = (vec![0; x.dims.len()], vec![1; x.dims.len()]);
        let mut parts = Vec::with_capacity(sizes.len());
        for size in sizes {
            let mut dims = x.dims.clone();
            dims[axis] = size;
            let part = views::slice(&start, &step, x, dims);
            let mut part = part.map_err(|_| "a part out of range".to_string())?;
            if !keep {
                part.dims.remove(axis);
            }
            parts.push(Value::Tensor(part));
            start[axis] += size;
        }
        Ok(Value::Sequence(parts))
    }
    fn concat(&self) -> Result<Value, String> {
        let all = self.sequence(0)?;
        let parts: Option<Vec<&TensorData>> = all.iter().map(Value::tensor).collect();
        let parts = parts.ok_or("elements are no tensors")?;
        let mut parts: Vec<TensorData> = parts.into_iter().cloned().collect();
        let rank = parts.first().ok_or("nothing to concatenate")?.dims.len();
        let new = self.int(1) != 0;
        let axis = self.axis(rank + usize::from(new))?;
        for t in &mut parts {
            if t.dims.len() != rank {
                return Err("elements of different ranks".into());
            }
            if new {
                t.dims.insert(axis, 1);
            }
        }
        let mut dims = parts.first().map(|t| t.dims.clone()).unwrap_or_default();
        dims[axis] = 0;
        for t in &parts {
            let fits = t.dims.iter().zip(&dims).enumerate();
            if !fits.into_iter().all(|(i, (a, b))| i == axis || a == b) {
                return Err("elements of different shapes".into());
            }
            dims[axis] += t.dims[axis];
        }
        let parts: Vec<&TensorData> = parts.iter().collect();
        Ok(Value::Tensor(views::concat(axis, &parts, dims)))
    }
    /// Keys of the record: `skip` numbers stand before those that are numbers.
    fn keys(&self, strings: bool, skip: usize) -> TensorData {
        if strings {
            let strings = self.call.strings.clone();
            return TensorData {
                dtype: DType::String,
                dims: vec![strings.len() as i64],
                bytes: Default::default(),
                strings,
            };
        }
        let keys = self.call.ints.get(skip..).unwrap_or(&[]);
        TensorData::from_i64(vec![keys.len() as i64], keys)
    }
    fn zip_map(&self) -> Result<Value, String> {
        let x = self.opt(0).and_then(Value::tensor).ok_or("no tensor")?;
        let keys = self.keys(self.int(0) == 0, 1);
        let n = keys.len();
        if x.dims.last() != Some(&(n as i64)) || x.dims.len() > 2 || x.dtype != DType::F32 {
            return Err(format!("scores {}{:?} for {n} keys", x.dtype, x.dims));
        }
        let rows = match x.dims.as_slice() {
            [rows, _] => *rows as usize,
            _ => 1,
        };
        let map = |r: usize| Value::Map {
            keys: keys.clone(),
            values: Box::new(Value::Tensor(TensorData {
                dtype: DType::F32,
                dims: vec![n as i64],
                bytes: x.bytes.slice(r * 4 * n..(r + 1) * 4 * n),
                strings: Vec::new(),
            })),
        };
        Ok(Value::Sequence((0..rows).map(map).collect()))
    }
    fn map_values(&self) -> Result<Value, String> {
        let Some(Value::Map { keys, values }) = self.opt(0) else {
            return Err("operand 0 is no map".into());
        };
        let values = values.tensor().ok_or("a map of containers")?;
        if values.len() != keys.len() {
            return Err(format!("{} keys, {} values", keys.len(), values.len()));
        }
        let (n, mut places) = (keys.len(), Vec::new());
        // Keys in one form: text, then number.
        let forms = |t: &TensorData| -> Result<Vec<(bytes::Bytes, i64)>, String> {
            Ok(match t.dtype {
                DType::String => t.strings.iter().map(|s| (s.clone(), 0)).collect(),
                _ => {
                    let all = t.to_i64s().ok_or("keys are no integers")?;
                    all.into_iter().map(|i| (bytes::Bytes::new(), i)).collect()
                }
            })
        };
        let found = forms(keys)?;
        match self.int(0) {
            0 => {
                let mut order: Vec<usize> = (0..n).collect();
                order.sort_by(|a, b| found[*a].cmp(&found[*b]));
                places.extend(order.into_iter().map(Some));
            }
            1 => {
                let wanted = forms(&self.keys(self.int(2) == 0, 3))?;
                places.extend(wanted.iter().map(|w| found.iter().position(|f| f == w)));
            }
            _ => {
                let width = usize::try_from(self.int(1)).unwrap_or(0);
                places.resize(width, None);
                for (i, (_, key)) in found.iter().enumerate() {
                    let place = usize::try_from(*key).ok().and_then(|k| places.get_mut(k));
                    *place.ok_or_else(|| format!("key {key} out of {width}"))? = Some(i);
                }
            }
        }
        let size = values.dtype.bytes();
        let (mut bytes, mut strings) = (Vec::new(), Vec::new());
        for place in &places {
            match (place, values.dtype) {
                (Some(i), DType::String) => strings.push(values.strings[*i].clone()),
                (None, DType::String) => strings.push(match self.int(0) {
                    2 => self.call.strings.first().cloned().unwrap_or_default(),
                    _ => bytes::Bytes::new(),
                }),
                (Some(i), _) => bytes.extend(&values.bytes[i * size..(i + 1) * size]),
                (None, _) => bytes.resize(bytes.len() + size, 0),
            }
        }
        Ok(Value::Tensor(TensorData {
            dtype: values.dtype,
            dims: vec![1, places.len() as i64],
            bytes: bytes.into(),
            strings,
        }))
    }
}
