//! What can go wrong at run time: one type, with the codes of the C interface.

use std::path::PathBuf;

use crate::abi::code;
use crate::tensor::DType;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $value:ident;)*) => {
        /// The kinds of failure (`lapidary_code`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $name,)* }

        impl ErrorCode {
            /// The code with this number; an unknown number is an internal error.
            pub fn from_raw(raw: i32) -> Self {
                match raw {
                    $(code::$value => Self::$name,)*
                    _ => Self::Internal,
                }
            }

            /// The number in C.
            pub fn raw(self) -> i32 {
                match self { $(Self::$name => code::$value,)* }
            }
        }
    };
}

error_codes! {
    /// A bad argument to a function.
    Argument = ARGUMENT;
    /// An input is missing or does not fit.
    Input = INPUT;
    /// A bound output does not fit.
    Output = OUTPUT;
    /// A check of the model failed in the run.
    Check = CHECK;
    /// An index read from data is out of range.
    Index = INDEX;
    /// Out of memory, or above the memory limit.
    Memory = MEMORY;
    /// Cancelled.
    Cancelled = CANCELLED;
    /// Past the deadline.
    Timeout = TIMEOUT;
    /// The processor lacks a feature.
    Cpu = CPU;
    /// Another ABI version.
    Abi = ABI;
    /// The weights file is missing or foreign.
    Weights = WEIGHTS;
    /// Threads could not be started.
    Threads = THREADS;
    /// A broken promise inside.
    Internal = INTERNAL;
    /// The context is running.
    Busy = BUSY;
}

/// Why a call of the runtime failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// The runtime of the model said so.
    #[error("{}{message}", node_prefix(.node))]
    Model {
        /// The kind.
        code: ErrorCode,
        /// The ONNX node to blame.
        node: Option<String>,
        /// What happened.
        message: String,
        /// The two numbers that the message speaks of (for `Memory`: needed and limit).
        numbers: (i64, i64),
    },
    /// A compiled library could not be opened.
    #[error("cannot open the compiled library `{}`: {reason}", path.display())]
    Open {
        /// The library.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The number of tensors is not the model's.
    #[error("the model has {expected} {role}, {found} were given")]
    Arity {
        /// "inputs" or "outputs".
        role: &'static str,
        /// What the model has.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// The data of a tensor does not have the size that its shape says.
    #[error("a {dtype} tensor of shape {shape:?} does not fit data of {found} elements or bytes")]
    TensorSize {
        /// Its element type.
        dtype: DType,
        /// Its shape.
        shape: Vec<usize>,
        /// The length of the data.
        found: usize,
    },
    /// There is no memory for a tensor.
    #[error("there is no memory for a {dtype} tensor of shape {shape:?}")]
    TensorMemory {
        /// Its element type.
        dtype: DType,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Data of one type was asked for as another.
    #[error("the tensor's elements are {found}, not {expected}")]
    TensorType {
        /// What was asked for.
        expected: DType,
        /// What it holds.
        found: DType,
    },
    /// The model speaks of a type that this runtime does not know.
    #[error("unknown element type {0}")]
    UnknownType(i32),
}

fn node_prefix(node: &Option<String>) -> String {
    node.as_ref()
        .map(|name| format!("node `{name}`: "))
        .unwrap_or_default()
}

impl RuntimeError {
    /// The code in C's numbering.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Model { code, .. } => *code,
            Self::Open { .. } | Self::UnknownType(_) => ErrorCode::Abi,
            Self::TensorMemory { .. } => ErrorCode::Memory,
            Self::Arity { .. } | Self::TensorSize { .. } | Self::TensorType { .. } => {
                ErrorCode::Argument
            }
        }
    }

    /// The ONNX node to blame, where there is one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Model { node, .. } => node.as_deref(),
            _ => None,
        }
    }

    pub(crate) fn plain(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Model {
            code,
            node: None,
            message: message.into(),
            numbers: (0, 0),
        }
    }
}
