//! What a model's table says of its inputs, outputs and states.

use std::ffi::{CStr, c_char};
use std::ptr;

use crate::abi;
use crate::error::RuntimeError;
use crate::ffi;
use crate::tensor::DType;
use crate::value::Container;

/// A dim of an input or output, as the model declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dim {
    /// Its symbol's name.
    pub name: Option<String>,
    /// Its value, unless it is free.
    pub value: Option<usize>,
}

/// An input or output, as the model declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueInfo {
    /// The ONNX name.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its dims; `None`: any rank.
    pub dims: Option<Vec<Dim>>,
    /// The containers around it, outermost first; none for a tensor.
    pub containers: Vec<Container>,
    /// Whether it is an input that need not be given.
    pub has_default: bool,
}

/// An output that is an input of the next run, kept by the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateInfo {
    /// The number of the input.
    pub input: usize,
    /// The number of the output among all outputs of the model, states among them.
    pub output: usize,
    /// The axis along which it grows, if that is known. Such a state has no rows at first; another must be given.
    pub axis: Option<usize>,
    /// Whether new rows are written behind the old ones, which stay where they are.
    pub in_place: bool,
    /// The output as the model declares it.
    pub info: ValueInfo,
}

/// Inputs or outputs of a table.
///
/// # Safety
/// `infos` are `count` valid entries of a model's table.
pub(crate) unsafe fn value_infos(
    infos: *const ffi::ValueInfo,
    count: i32,
) -> Result<Vec<ValueInfo>, RuntimeError> {
    // SAFETY: by the contract.
    unsafe {
        let text = |text: *const c_char| CStr::from_ptr(text).to_string_lossy().into_owned();
        (0..count.max(0) as usize)
            .map(|index| {
                let info = &*infos.add(index);
                let dtype =
                    DType::from_onnx(info.dtype).ok_or(RuntimeError::UnknownType(info.dtype))?;
                let dims = (info.rank >= 0).then(|| {
                    (0..info.rank as usize)
                        .map(|axis| {
                            let names = info.dim_names;
                            let name = if names.is_null() {
                                ptr::null()
                            } else {
                                *names.add(axis)
                            };
                            let value = if info.dims.is_null() {
                                -1
                            } else {
                                *info.dims.add(axis)
                            };
                            Dim {
                                name: (!name.is_null()).then(|| text(name)),
                                value: usize::try_from(value).ok(),
                            }
                        })
                        .collect()
                });
                Ok(ValueInfo {
                    name: text(info.name),
                    dtype,
                    dims,
                    containers: containers(info.containers),
                    has_default: false,
                })
            })
            .collect()
    }
}

/// The containers of a type, from the table's list.
///
/// # Safety
/// NULL, or a list as docs/abi.md has it.
unsafe fn containers(list: *const i32) -> Vec<Container> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: the number of kinds, the kinds, and the key type stand there.
    unsafe {
        let n = (*list).max(0) as usize;
        let key = DType::from_onnx(*list.add(1 + n)).unwrap_or(DType::I64);
        let kind = |i: usize| match *list.add(1 + i) {
            abi::kind::SEQUENCE => Container::Sequence,
            abi::kind::OPTIONAL => Container::Optional,
            _ => Container::Map(key),
        };
        (0..n).map(kind).collect()
    }
}

/// The states of a table, whose outputs these are.
///
/// # Safety
/// A valid table.
pub(crate) unsafe fn states(
    table: *const ffi::ModelTable,
    outputs: &[ValueInfo],
) -> Vec<StateInfo> {
    // SAFETY: by the contract.
    unsafe {
        let state = |at: usize| {
            let state = *(*table).states.add(at);
            let output = state.output.max(0) as usize;
            Some(StateInfo {
                input: state.input.max(0) as usize,
                output,
                axis: usize::try_from(state.axis).ok(),
                in_place: state.store >= 0,
                info: outputs.get(output)?.clone(),
            })
        };
        let n = (*table).n_states.max(0) as usize;
        (0..n).filter_map(state).collect()
    }
}
