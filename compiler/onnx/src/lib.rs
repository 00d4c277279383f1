//! The ONNX wire format: reading, external data, checking.
//!
//! In: a model file (or its bytes), the data files beside it, or a file of one value. Out: the decoded [`proto`]
//! messages, the elements of tensors as [`TensorView`], and the list of everything that is wrong with a model
//! ([`checker::check`]).
//!
//! Nothing here knows what an operator does. Whatever the bytes are, reading ends in a value or in an
//! [`OnnxError`], never in a panic; big tensors are views into mapped files, never copies.

#![warn(missing_docs)]

pub mod checker;
mod dtype;
mod error;
mod external;
mod load;
mod mapped;
pub mod schema;
mod tensor;
mod values;

/// The messages of `proto/onnx.proto`, as generated.
#[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

pub use dtype::DataType;
pub use error::{ExternalProblem, OnnxError, TensorProblem};
pub use load::ModelFile;
pub use mapped::{Source, Stamp, Watch, Watcher, release, watch_mappings};
pub use tensor::{TensorView, pack, tensor_view};
pub use values::{
    read_map_file, read_optional_file, read_sequence_file, read_tensor_file, write_optional_file,
    write_sequence_file, write_tensor_file,
};
