//! Values of any kind: tensors, and the sequences, optionals and maps that hold them.
//!
//! In: [`OwnedValue`] trees. Out: the `lapidary_value` trees of the C interface, which borrow them, and back.

use std::ffi::c_void;

use crate::abi::kind;
use crate::dlpack::{CStrings, dims, dl_tensor, read_strings, shape_of};
use crate::error::{ErrorCode, RuntimeError};
use crate::ffi::{DlTensor, Value};
use crate::tensor::{DType, Tensor, ViewData, count};

/// What holds tensors, in the type of an input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// Any number of values of one type.
    Sequence,
    /// A value or none.
    Optional,
    /// Values by keys of this type.
    Map(DType),
}

/// A value of any kind.
#[derive(Debug, Clone, PartialEq)]
pub enum OwnedValue {
    /// A tensor.
    Tensor(Tensor),
    /// Values in order.
    Sequence(Vec<OwnedValue>),
    /// A value or none.
    Optional(Option<Box<OwnedValue>>),
    /// Keys, a vector, and as many values: a vector, or a sequence of what is no tensor.
    Map {
        /// The keys.
        keys: Tensor,
        /// What they lead to.
        values: Box<OwnedValue>,
    },
}

impl From<Tensor> for OwnedValue {
    fn from(tensor: Tensor) -> Self {
        OwnedValue::Tensor(tensor)
    }
}

impl OwnedValue {
    /// The tensor, if it is one.
    pub fn tensor(&self) -> Option<&Tensor> {
        match self {
            OwnedValue::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }
    /// `tensor`, `sequence`, `optional` or `map`.
    pub fn kind_name(&self) -> &'static str {
        match self {
            OwnedValue::Tensor(_) => "tensor",
            OwnedValue::Sequence(_) => "sequence",
            OwnedValue::Optional(_) => "optional",
            OwnedValue::Map { .. } => "map",
        }
    }
}

/// What a tree of C values points to.
#[derive(Default)]
#[allow(clippy::vec_box)] // addresses of the elements are given out, and must not change as the lists grow
pub(crate) struct Lent {
    items: Vec<Box<[Value]>>,
    tensors: Vec<Box<DlTensor>>,
    shapes: Vec<Vec<i64>>,
    strings: Vec<Box<CStrings>>,
}

impl Lent {
    fn tensor(&mut self, tensor: &Tensor) -> *const DlTensor {
        let view = tensor.view();
        let data = match view.data {
            ViewData::Bytes(bytes) => bytes.as_ptr().cast::<c_void>().cast_mut(),
            ViewData::Strings(elements) => {
                let strings = Box::new(CStrings::new(elements));
                let raw = strings.raw();
                self.strings.push(strings);
                raw
            }
        };
        let mut shape = dims(&view.shape);
        // A vector's elements stay where they are when it moves.
        let made = Box::new(dl_tensor(data, view.dtype, &mut shape, None));
        let at: *const DlTensor = &*made;
        self.shapes.push(shape);
        self.tensors.push(made);
        at
    }

    fn list(&mut self, values: Vec<Value>) -> *const Value {
        let values = values.into_boxed_slice();
        let at = values.as_ptr();
        self.items.push(values);
        at
    }

    /// A C value that borrows `value` and `self`.
    pub(crate) fn value(&mut self, value: &OwnedValue) -> Value {
        let (kind, present, length, at) = match value {
            OwnedValue::Tensor(tensor) => (kind::TENSOR, 1, 1, self.tensor(tensor).cast()),
            OwnedValue::Sequence(values) => {
                let items: Vec<Value> = values.iter().map(|v| self.value(v)).collect();
                let n = items.len();
                (kind::SEQUENCE, 1, n as i64, self.list(items).cast())
            }
            OwnedValue::Optional(value) => {
                let items: Vec<Value> = value.iter().map(|v| self.value(v)).collect();
                let n = items.len();
                (kind::OPTIONAL, n as i32, n as i64, self.list(items).cast())
            }
            OwnedValue::Map { keys, values } => {
                let keys = Value {
                    kind: kind::TENSOR,
                    present: 1,
                    length: 1,
                    at: self.tensor(keys).cast(),
                };
                let values = self.value(values);
                (kind::MAP, 1, 2, self.list(vec![keys, values]).cast())
            }
        };
        Value {
            kind,
            present,
            length,
            at,
        }
    }
}

/// Copies a C value.
///
/// # Safety
/// The tree is one that the runtime gives for an output, and is valid through the call.
pub(crate) unsafe fn read(value: *const Value) -> Result<OwnedValue, RuntimeError> {
    let wrong = |what: &str| RuntimeError::plain(ErrorCode::Internal, what.to_string());
    if value.is_null() {
        return Err(wrong("an output has no value"));
    }
    // SAFETY: the caller's promise.
    let value = unsafe { &*value };
    let n = usize::try_from(value.length).map_err(|_| wrong("a value of negative length"))?;
    let items = || {
        let at: *const Value = value.at.cast();
        // SAFETY: so many values stand there.
        let each = (0..n).map(|i| unsafe { read(at.add(i)) });
        each.collect::<Result<Vec<_>, _>>()
    };
    Ok(match value.kind {
        kind::TENSOR => OwnedValue::Tensor(
            // SAFETY: a tensor's tree points to its description.
            unsafe { read_tensor(value.at.cast()) }?,
        ),
        kind::SEQUENCE => OwnedValue::Sequence(items()?),
        kind::OPTIONAL => OwnedValue::Optional(items()?.into_iter().next().map(Box::new)),
        kind::MAP => {
            let mut parts = items()?.into_iter();
            match (parts.next(), parts.next()) {
                (Some(OwnedValue::Tensor(keys)), Some(values)) => OwnedValue::Map {
                    keys,
                    values: Box::new(values),
                },
                _ => return Err(wrong("a map without keys or values")),
            }
        }
        _ => return Err(wrong("a value of no known kind")),
    })
}

/// # Safety
/// As [`read`].
unsafe fn read_tensor(tensor: *const DlTensor) -> Result<Tensor, RuntimeError> {
    // SAFETY: the caller's promise; an output is contiguous, and its data is as big as its shape says.
    unsafe {
        let view = &*tensor;
        let dtype = DType::ALL
            .iter()
            .copied()
            .find(|d| d.dlpack() == view.dtype)
            .ok_or_else(|| {
                RuntimeError::plain(ErrorCode::Internal, "an output of no known type")
            })?;
        let shape = shape_of(view);
        let n = count(&shape).unwrap_or(0);
        if dtype == DType::String {
            return Tensor::from_strings(&shape, read_strings(view.data, n)?);
        }
        let bytes = n * dtype.bytes();
        let data: &[u8] = match bytes {
            0 => &[],
            _ => std::slice::from_raw_parts(view.data.cast::<u8>(), bytes),
        };
        Tensor::from_bytes(dtype, &shape, data)
    }
}
