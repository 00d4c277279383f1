//! ONNX's files of one tensor, and the tensors of models as the runtime holds them.
//!
//! The one difference between the two worlds is settled here: on the wire elements of less than a byte are packed,
//! in memory each takes a byte.

use std::path::Path;

use bytes::Bytes;
use lapidary_onnx::proto::{MapProto, OptionalProto, SequenceProto, TensorProto};
use lapidary_onnx::{DataType, TensorView, pack, tensor_view};
use lapidary_runtime::{Container, DType, OwnedValue, Tensor};
use prost::Message;

use crate::Error;

/// Decodes a file of one tensor: its name and itself.
pub fn decode_tensor(bytes: &Bytes, path: &Path) -> Result<(String, Tensor), Error> {
    let proto = TensorProto::decode(bytes.clone())
        .map_err(|error| Error::content(path, format!("it is no file of one tensor: {error}")))?;
    let tensor = tensor_of_view(&tensor_view(&proto)?)
        .map_err(|error| Error::Unsupported(format!("'{}': {error}", path.display())))?;
    Ok((proto.name, tensor))
}

/// Decodes a file of one value: of a tensor, or of what the containers of its type say. Its name and itself.
pub fn decode_value(
    bytes: &Bytes,
    path: &Path,
    containers: &[Container],
) -> Result<(String, OwnedValue), Error> {
    let bad = |error: prost::DecodeError| {
        Error::content(path, format!("it is no file of such a value: {error}"))
    };
    let unsupported = |error: String| Error::Unsupported(format!("'{}': {error}", path.display()));
    Ok(match containers.first() {
        None => {
            let (name, tensor) = decode_tensor(bytes, path)?;
            (name, tensor.into())
        }
        Some(Container::Sequence) => {
            let proto = SequenceProto::decode(bytes.clone()).map_err(bad)?;
            (proto.name.clone(), sequence(&proto).map_err(unsupported)?)
        }
        Some(Container::Optional) => {
            let proto = OptionalProto::decode(bytes.clone()).map_err(bad)?;
            (proto.name.clone(), optional(&proto).map_err(unsupported)?)
        }
        Some(Container::Map(_)) => {
            let proto = MapProto::decode(bytes.clone()).map_err(bad)?;
            (proto.name.clone(), map(&proto).map_err(unsupported)?)
        }
    })
}

fn tensor(proto: &TensorProto) -> Result<OwnedValue, String> {
    let view = tensor_view(proto).map_err(|error| error.to_string())?;
    tensor_of_view(&view).map(OwnedValue::Tensor)
}

fn sequence(proto: &SequenceProto) -> Result<OwnedValue, String> {
    let values: Result<Vec<OwnedValue>, String> = match proto.elem_type {
        3 => proto.sequence_values.iter().map(sequence).collect(),
        4 => proto.map_values.iter().map(map).collect(),
        5 => proto.optional_values.iter().map(optional).collect(),
        2 => Err("a sequence of sparse tensors".into()),
        _ => proto.tensor_values.iter().map(tensor).collect(),
    };
    values.map(OwnedValue::Sequence)
}

fn optional(proto: &OptionalProto) -> Result<OwnedValue, String> {
    let value = match proto.elem_type {
        1 => proto.tensor_value.as_ref().map(tensor),
        3 => proto.sequence_value.as_ref().map(sequence),
        4 => proto.map_value.as_ref().map(map),
        5 => proto.optional_value.as_deref().map(optional),
        2 => Some(Err("an optional of a sparse tensor".into())),
        _ => None,
    };
    Ok(OwnedValue::Optional(value.transpose()?.map(Box::new)))
}

/// A map: the values of tensors of one element become one vector, as they lie in memory.
fn map(proto: &MapProto) -> Result<OwnedValue, String> {
    let text = |error: lapidary_runtime::RuntimeError| error.to_string();
    let keys = if proto.string_keys.is_empty() {
        let dtype = DType::from_onnx(proto.key_type).unwrap_or(DType::I64);
        if dtype != DType::I64 {
            return Err(format!("a map with keys of type {dtype}"));
        }
        Tensor::from_slice(&[proto.keys.len()], &proto.keys).map_err(text)?
    } else {
        let keys = proto
            .string_keys
            .iter()
            .map(|key| String::from_utf8(key.to_vec()));
        let keys: Vec<String> = keys
            .collect::<Result<_, _>>()
            .map_err(|_| "a key is not UTF-8".to_string())?;
        Tensor::from_strings(&[keys.len()], keys).map_err(text)?
    };
    let none = SequenceProto::default();
    let values = sequence(proto.values.as_ref().unwrap_or(&none))?;
    let OwnedValue::Sequence(list) = values else {
        return Err("a map without values".into());
    };
    let tensors: Option<Vec<&Tensor>> = list.iter().map(OwnedValue::tensor).collect();
    let values = match tensors {
        Some(tensors) => {
            let dtype = tensors.first().map_or(DType::F32, |t| t.dtype());
            if tensors.iter().any(|t| t.dtype() != dtype) {
                return Err("a map with values of several types".into());
            }
            let vector = if dtype == DType::String {
                let all = tensors
                    .iter()
                    .flat_map(|t| t.strings().unwrap_or(&[]).to_vec());
                let all: Vec<String> = all.collect();
                Tensor::from_strings(&[all.len()], all)
            } else {
                let all: Vec<u8> = tensors.iter().flat_map(|t| t.bytes().to_vec()).collect();
                Tensor::from_bytes(dtype, &[all.len() / dtype.bytes().max(1)], &all)
            };
            OwnedValue::Tensor(vector.map_err(text)?)
        }
        None => OwnedValue::Sequence(list),
    };
    Ok(OwnedValue::Map {
        keys,
        values: Box::new(values),
    })
}

/// A tensor as the runtime holds it; the error says why it cannot.
pub fn tensor_of_view(view: &TensorView) -> Result<Tensor, String> {
    let dtype = DType::from_onnx(view.dtype.to_wire())
        .ok_or_else(|| format!("elements of type {} are not supported", view.dtype))?;
    let shape: Vec<usize> = view
        .dims
        .iter()
        .map(|dim| usize::try_from(*dim).map_err(|_| format!("dimension {dim}")))
        .collect::<Result<_, _>>()?;
    if let Some(strings) = &view.strings {
        let texts = strings
            .iter()
            .map(|s| String::from_utf8(s.to_vec()).map_err(|_| "a string is not UTF-8".to_string()))
            .collect::<Result<_, _>>()?;
        return Tensor::from_strings(&shape, texts).map_err(|error| error.to_string());
    }
    Tensor::from_bytes(dtype, &shape, &view.unpacked()).map_err(|error| error.to_string())
}

/// The proto of a tensor; `None` for a type that ONNX does not have.
pub fn encode_tensor(name: &str, tensor: &Tensor) -> Option<TensorProto> {
    let dtype = DataType::from_wire(tensor.dtype().onnx())?;
    let view = TensorView {
        dtype,
        dims: tensor.shape().iter().map(|dim| *dim as i64).collect(),
        bytes: pack(dtype, tensor.bytes()),
        strings: tensor.strings().ok().map(|texts| {
            texts
                .iter()
                .map(|t| Bytes::copy_from_slice(t.as_bytes()))
                .collect()
        }),
    };
    Some(view.to_proto(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_below_a_byte_are_unpacked_and_packed_again() {
        let view = TensorView {
            dtype: DataType::Int4,
            dims: vec![3],
            bytes: Bytes::from_static(&[0xf1, 0x07]),
            strings: None,
        };
        let tensor = tensor_of_view(&view).unwrap();
        assert_eq!(tensor.bytes(), [1, 0xff, 7]);
        let proto = encode_tensor("t", &tensor).unwrap();
        assert_eq!(proto.raw_data.as_ref(), [0xf1, 0x07]);
    }
}
