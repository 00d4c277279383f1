//! What can go wrong while reading: one error type, which names the file or the tensor, what was expected and what
//! was found.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::DataType;

/// Why a model, a value file or a tensor cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The operating system refused.
    #[error("cannot {action} '{}': {source}", path.display())]
    Io {
        /// What was tried: `open`, `map`, `write`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A folder, a pipe or a device stands where a file is needed.
    #[error("'{}' is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// There are no bytes.
    #[error("{what} is empty (0 bytes): was its download or export cut short?")]
    Empty {
        /// The file, or what stands for it.
        what: String,
    },
    /// The bytes are no message of the type expected.
    #[error("{what} is not {expected}: {source} (hint: {hint})")]
    Decode {
        /// The file, or what stands for it.
        what: String,
        /// The message type expected, with its article.
        expected: &'static str,
        /// The decoder's reason.
        source: prost::DecodeError,
        /// A likely cause.
        hint: &'static str,
    },
    /// The bytes decode, but hold no graph.
    #[error("{what} holds no graph: expected an ONNX ModelProto with a graph (hint: {hint})")]
    NoGraph {
        /// The file, or what stands for it.
        what: String,
        /// A likely cause.
        hint: &'static str,
    },
    /// A tensor contradicts itself.
    #[error("tensor '{tensor}': {problem}")]
    Tensor {
        /// The tensor's name; empty if it has none.
        tensor: String,
        /// What is wrong.
        problem: TensorProblem,
    },
    /// A tensor's data file cannot be used.
    #[error("tensor '{tensor}', external data '{file}': {problem}")]
    External {
        /// The tensor's name; empty if it has none.
        tensor: String,
        /// The file, as the model names it.
        file: String,
        /// What is wrong.
        problem: ExternalProblem,
    },
    /// Part of a mapped file was gone when it was read: what was read in its place are zeros.
    #[error(
        "file shrank while in use: '{}' (hint: load the model again, and replace files by renaming)",
        path.display()
    )]
    Shrank {
        /// The file.
        path: PathBuf,
    },
    /// A mapped file has another length than when it was mapped.
    #[error(
        "'{}' changed while in use: {expected} bytes were mapped, now it has {found} (hint: load the model again, and replace files by renaming)",
        path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Bytes mapped.
        expected: u64,
        /// Bytes now.
        found: u64,
    },
}

impl OnnxError {
    /// What to do about a tensor that cannot be read.
    pub fn hint(&self) -> &'static str {
        match self {
            OnnxError::External { problem, .. } => match problem {
                ExternalProblem::NoFolder => "give base_dir",
                ExternalProblem::Missing { .. } => "keep data files beside the model",
                ExternalProblem::TooShort { .. } => "was the file's download cut short?",
                ExternalProblem::LeavesFolder { .. } => {
                    "keep data files beside the model, without links"
                }
                _ => "export the model again",
            },
            _ => "export the model again",
        }
    }
}

/// How a tensor contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TensorProblem {
    /// The element type is undefined or unknown.
    #[error("data_type {found} is not an ONNX element type (expected 1 to 28)")]
    UnknownType {
        /// The number on the wire.
        found: i32,
    },
    /// A dimension is below zero.
    #[error("dimension {axis} is {found}, expected 0 or more")]
    NegativeDim {
        /// Which dimension.
        axis: usize,
        /// Its value.
        found: i64,
    },
    /// The size in bytes does not fit the address space.
    #[error("{dtype} of dimensions {dims:?} is larger than memory can hold")]
    TooLarge {
        /// Element type.
        dtype: DataType,
        /// Dimensions.
        dims: Vec<i64>,
    },
    /// The tensor is one of several segments.
    #[error("tensors stored in segments are not supported")]
    Segment,
    /// Two fields hold elements.
    #[error("elements are stored both in {first} and in {second}, expected one of them")]
    TwoFields {
        /// A field.
        first: &'static str,
        /// Another field.
        second: &'static str,
    },
    /// A field holds elements that cannot hold them for this type.
    #[error("elements of type {dtype} are stored in {found}, expected {expected}")]
    WrongField {
        /// Element type.
        dtype: DataType,
        /// The field that holds elements.
        found: &'static str,
        /// The field that should.
        expected: &'static str,
    },
    /// Too few or too many bytes or entries.
    #[error("{dtype} of dimensions {dims:?} takes {expected} {unit} in {field}, found {found}")]
    WrongSize {
        /// Element type.
        dtype: DataType,
        /// Dimensions.
        dims: Vec<i64>,
        /// The field.
        field: &'static str,
        /// `bytes` or `entries`.
        unit: &'static str,
        /// As the dimensions say.
        expected: usize,
        /// As stored.
        found: usize,
    },
    /// An entry of a typed field does not fit the element type.
    #[error("entry {index} of {field} is {found}, which does not fit {dtype}")]
    OutOfRange {
        /// Element type.
        dtype: DataType,
        /// The field.
        field: &'static str,
        /// Which entry.
        index: usize,
        /// Its value.
        found: i128,
    },
    /// A string is not UTF-8.
    #[error("entry {index} of string_data is not UTF-8")]
    NotUtf8 {
        /// Which entry.
        index: usize,
    },
    /// The bytes stand in a file, but this tensor has no model and so no folder.
    #[error("its elements are external data, which only a tensor of a model file can have")]
    ExternalAlone,
}

/// Why a data file beside the model cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExternalProblem {
    /// No `location` entry.
    #[error("no location is given (expected an external_data entry with the key 'location')")]
    NoLocation,
    /// A key occurs twice.
    #[error("the key '{key}' is given twice")]
    RepeatedKey {
        /// The key.
        key: String,
    },
    /// `offset` or `length` is no number of bytes.
    #[error("{key} is '{found}', expected a number of bytes")]
    BadNumber {
        /// `offset` or `length`.
        key: &'static str,
        /// What stands there.
        found: String,
    },
    /// The model came from memory without a folder.
    #[error("the model was read from memory, without a folder to look in")]
    NoFolder,
    /// The file lies, or leads by symbolic links, outside the model's folder.
    #[error(
        "it leaves the model's folder '{}' (expected a relative path inside it, without '..')",
        folder.display()
    )]
    LeavesFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// It does not exist.
    #[error("not found in '{}'", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder, a pipe or a device.
    #[error("not a regular file")]
    NotAFile,
    /// The operating system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The stated length is not the tensor's.
    #[error("length is {found} bytes, but {dtype} of dimensions {dims:?} takes {expected}")]
    WrongLength {
        /// Element type.
        dtype: DataType,
        /// Dimensions.
        dims: Vec<i64>,
        /// As the dimensions say.
        expected: u64,
        /// As stated.
        found: u64,
    },
    /// The file ends before the tensor does.
    #[error(
        "too short: the tensor takes {expected} bytes from offset {offset}, the file has {found} bytes"
    )]
    TooShort {
        /// Where the tensor begins.
        offset: u64,
        /// How many bytes it takes.
        expected: u64,
        /// How many bytes the file has.
        found: u64,
    },
    /// Strings have no fixed width.
    #[error("a tensor of strings cannot be external data")]
    Strings,
}
