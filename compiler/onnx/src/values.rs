//! Files of one value each, such as the inputs and expected outputs of a test: a tensor, sequence, map or optional.
//!
//! In: a path. Out: the decoded message; [`crate::tensor_view`] gives a tensor's elements.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use prost::Message;

use crate::OnnxError;
use crate::proto::{MapProto, OptionalProto, SequenceProto, TensorProto};

/// Reads a file of one tensor.
pub fn read_tensor_file(path: impl AsRef<Path>) -> Result<TensorProto, OnnxError> {
    let path = path.as_ref();
    let bytes = read(path)?;
    // Every tensor has a type, so that its encoding has a byte at least; an empty sequence or optional may have none.
    if bytes.is_empty() {
        return Err(OnnxError::Empty {
            what: format!("'{}'", path.display()),
        });
    }
    decode(path, bytes, "a file of one tensor")
}

/// Reads a file of one sequence.
pub fn read_sequence_file(path: impl AsRef<Path>) -> Result<SequenceProto, OnnxError> {
    let path = path.as_ref();
    decode(path, read(path)?, "a file of one sequence")
}

/// Reads a file of one map.
pub fn read_map_file(path: impl AsRef<Path>) -> Result<MapProto, OnnxError> {
    let path = path.as_ref();
    decode(path, read(path)?, "a file of one map")
}

/// Reads a file of one optional.
pub fn read_optional_file(path: impl AsRef<Path>) -> Result<OptionalProto, OnnxError> {
    let path = path.as_ref();
    decode(path, read(path)?, "a file of one optional")
}

/// Writes a file of one tensor; [`crate::TensorView::to_proto`] makes one.
pub fn write_tensor_file(path: impl AsRef<Path>, tensor: &TensorProto) -> Result<(), OnnxError> {
    write(path.as_ref(), tensor)
}

/// Writes a file of one sequence.
pub fn write_sequence_file(
    path: impl AsRef<Path>,
    sequence: &SequenceProto,
) -> Result<(), OnnxError> {
    write(path.as_ref(), sequence)
}

/// Writes a file of one optional.
pub fn write_optional_file(
    path: impl AsRef<Path>,
    optional: &OptionalProto,
) -> Result<(), OnnxError> {
    write(path.as_ref(), optional)
}

fn read(path: &Path) -> Result<Bytes, OnnxError> {
    let io = |source| OnnxError::Io {
        action: "read",
        path: path.to_path_buf(),
        source,
    };
    if !fs::metadata(path).map_err(io)?.is_file() {
        return Err(OnnxError::NotAFile {
            path: path.to_path_buf(),
        });
    }
    Ok(fs::read(path).map_err(io)?.into())
}

fn decode<M: Message + Default>(
    path: &Path,
    bytes: Bytes,
    expected: &'static str,
) -> Result<M, OnnxError> {
    M::decode(bytes).map_err(|source| OnnxError::Decode {
        what: format!("'{}'", path.display()),
        expected,
        source,
        hint: "the file may be cut short, or hold a value of another kind",
    })
}

fn write(path: &Path, message: &impl Message) -> Result<(), OnnxError> {
    fs::write(path, message.encode_to_vec()).map_err(|source| OnnxError::Io {
        action: "write",
        path: path.to_path_buf(),
        source,
    })
}
