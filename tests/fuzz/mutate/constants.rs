//! Mutations of constants, and between constants and inputs.

use lapidary_onnx::proto::{ModelProto, TensorProto};

use super::source::{Source, tensor_of};
use super::types::{info, number};

/// A constant of so many elements, in the field that ONNX has for its type or as raw bytes.
pub(super) fn constant(
    source: &mut Source<'_>,
    name: &str,
    dtype: i32,
    dims: Vec<i64>,
    count: i64,
) -> TensorProto {
    let mut tensor = TensorProto {
        name: name.into(),
        data_type: dtype,
        dims,
        ..Default::default()
    };
    let wild = source.chance(3);
    for _ in 0..count {
        let int = match wild {
            true => source.int(),
            false => source.choose(&[0, 1, 1, 2, 3, -1]),
        };
        let float = match wild {
            true => source.float(),
            false => source.choose(&[0.0, 1.0, -1.0, 0.5, 2.0]),
        };
        match dtype {
            1 => tensor.float_data.push(float),
            11 => tensor.double_data.push(f64::from(float)),
            7 => tensor.int64_data.push(int),
            12 | 13 => tensor.uint64_data.push((int as u64) & 0xffff_ffff),
            8 => tensor.string_data.push(source.word().to_vec().into()),
            9 => tensor.int32_data.push((int & 1) as i32),
            2 | 3 => tensor.int32_data.push((int & 0x7f) as i32),
            _ => tensor.int32_data.push(int as i32 & 0x7fff),
        }
    }
    tensor
}

/// An input has a value of random elements.
pub(super) fn input_to_constant(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let keep = source.chance(6);
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let Some(at) = source.index(graph.input.len()) else {
        return false;
    };
    let name = graph.input[at].name.clone();
    let Some(tensor) = tensor_of(&mut graph.input[at]) else {
        return false;
    };
    let dims: Vec<i64> = match &tensor.shape {
        Some(shape) => shape.dim.iter().map(number).collect(),
        None => return false,
    };
    let count = dims.iter().fold(1i64, |a, d| a.saturating_mul((*d).max(0)));
    if count > 4096 || graph.initializer.iter().any(|t| t.name == name) {
        return false;
    }
    let dtype = tensor.elem_type;
    let new = constant(source, &name, dtype, dims, count);
    graph.initializer.push(new);
    if !keep {
        graph.input.remove(at);
    }
    true
}

pub(super) fn constant_to_input(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let remove = !source.chance(6);
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let Some(at) = source.index(graph.initializer.len()) else {
        return false;
    };
    let tensor = &graph.initializer[at];
    let new = info(&tensor.name, tensor.data_type, &tensor.dims);
    if graph.input.iter().any(|v| v.name == tensor.name) {
        return false;
    }
    graph.input.push(new);
    if remove {
        graph.initializer.remove(at);
    }
    true
}

fn any_constant<'m>(
    source: &mut Source<'_>,
    model: &'m mut ModelProto,
) -> Option<&'m mut TensorProto> {
    let list = &mut model.graph.as_mut()?.initializer;
    let at = source.index(list.len())?;
    list.get_mut(at)
}

/// Changes an element, or most of them.
fn change_content(source: &mut Source<'_>, tensor: &mut TensorProto) -> bool {
    let all = source.chance(3);
    let (int, float, word) = (source.int(), source.float(), source.word());
    fn set<T: Clone>(source: &mut Source<'_>, list: &mut [T], all: bool, new: T) -> bool {
        match source.index(list.len()) {
            Some(_) if all => list.fill(new),
            Some(at) => list[at] = new,
            None => return false,
        }
        true
    }
    if !tensor.raw_data.is_empty() {
        let mut raw = tensor.raw_data.to_vec();
        let pattern = match tensor.data_type {
            1 => float.to_le_bytes().to_vec(),
            11 => f64::from(float).to_le_bytes().to_vec(),
            9 => vec![(int & 3) as u8],
            2 | 3 => vec![int as u8],
            4 | 5 | 10 | 16 => (int as u16).to_le_bytes().to_vec(),
            6 | 12 => (int as u32).to_le_bytes().to_vec(),
            _ => int.to_le_bytes().to_vec(),
        };
        let elements = raw.len() / pattern.len();
        let Some(at) = source.index(elements) else {
            return false;
        };
        for (i, element) in raw.chunks_exact_mut(pattern.len()).enumerate() {
            if all || i == at {
                element.copy_from_slice(&pattern);
            }
        }
        tensor.raw_data = raw.into();
        return true;
    }
    set(source, &mut tensor.float_data, all, float)
        || set(source, &mut tensor.double_data, all, f64::from(float))
        || set(source, &mut tensor.int64_data, all, int)
        || set(source, &mut tensor.uint64_data, all, int as u64)
        || set(source, &mut tensor.int32_data, all, int as i32)
        || set(source, &mut tensor.string_data, all, word.to_vec().into())
}

pub(super) fn constant_content(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    match any_constant(source, model) {
        Some(tensor) => change_content(source, tensor),
        None => false,
    }
}

/// The content stays, its shape or its type does not suit it.
pub(super) fn change_tensor(source: &mut Source<'_>, tensor: &mut TensorProto) -> bool {
    match source.below(6) {
        0 => match source.index(tensor.dims.len()) {
            Some(at) => tensor.dims[at] = source.dim(tensor.dims[at]),
            None => tensor.dims.push(source.int()),
        },
        1 => tensor.data_type = source.element_type(),
        2 => tensor.dims.push(1),
        3 => {
            let rest = tensor.raw_data.len() / 2;
            tensor.raw_data.truncate(rest);
            tensor.int64_data.pop();
            tensor.float_data.pop();
        }
        _ => return change_content(source, tensor),
    }
    true
}

pub(super) fn constant_shape(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    match any_constant(source, model) {
        Some(tensor) => change_tensor(source, tensor),
        None => false,
    }
}

pub(super) fn constant_type(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(tensor) = any_constant(source, model) else {
        return false;
    };
    let dtype = source.element_type();
    let count = tensor.dims.iter().fold(1i64, |a, d| a.saturating_mul(*d));
    let (name, dims) = (tensor.name.clone(), tensor.dims.clone());
    let new = constant(source, &name, dtype, dims, count.clamp(0, 4096));
    match any_constant(source, model) {
        Some(tensor) if tensor.name == name => *tensor = new,
        _ => return false,
    }
    true
}
