//! ONNX's files of one tensor, and the tensors of models as the runtime holds them.
//!
//! The one difference between the two worlds is settled here: on the wire elements of less than a byte are packed,
//! in memory each takes a byte.

use std::path::Path;

use bytes::Bytes;
use lapidary_onnx::proto::TensorProto;
use lapidary_onnx::{DataType, TensorView, tensor_view};
use lapidary_runtime::{DType, Tensor};
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
    let bits = view.dtype.bits();
    if bits >= 8 {
        return Tensor::from_bytes(dtype, &shape, &view.bytes).map_err(|error| error.to_string());
    }
    let signed = matches!(view.dtype, DataType::Int4 | DataType::Int2);
    let unpacked: Vec<u8> = (0..view.elements())
        .map(|i| {
            let byte = view.bytes.get(i * bits / 8).copied().unwrap_or(0);
            let value = byte >> (i * bits % 8) & ((1 << bits) - 1);
            if signed && value >> (bits - 1) == 1 {
                value | (0xff << bits)
            } else {
                value
            }
        })
        .collect();
    Tensor::from_bytes(dtype, &shape, &unpacked).map_err(|error| error.to_string())
}

/// The proto of a tensor; `None` for a type that ONNX does not have.
pub fn encode_tensor(name: &str, tensor: &Tensor) -> Option<TensorProto> {
    let dtype = DataType::from_wire(tensor.dtype().onnx())?;
    let bits = dtype.bits();
    let bytes: Bytes = if bits > 0 && bits < 8 {
        let per_byte = 8 / bits;
        let pack = |chunk: &[u8]| {
            let parts = chunk.iter().enumerate();
            parts.fold(0u8, |sum, (i, v)| {
                sum | (v & ((1 << bits) - 1)) << (i * bits)
            })
        };
        tensor.bytes().chunks(per_byte).map(pack).collect()
    } else {
        Bytes::copy_from_slice(tensor.bytes())
    };
    let view = TensorView {
        dtype,
        dims: tensor.shape().iter().map(|dim| *dim as i64).collect(),
        bytes,
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
