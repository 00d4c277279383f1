//! What can go wrong anywhere: the layers' own errors, and the few of this crate.
//!
//! An error is rendered once, by its `Display`, which names the ONNX node or value where there is one. Its
//! [`Class`] is what a caller decides by, and the exit code of the command.

use std::path::{Path, PathBuf};

use lapidary_import::ImportErrors;
use lapidary_link::LinkError;
use lapidary_lower::LowerError;
use lapidary_onnx::OnnxError;
use lapidary_onnx::checker::{Fault, FaultKind};
use lapidary_runtime::{ErrorCode, RuntimeError};

/// What an error means for the caller. The numbers are the command's exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// A result differs from the expected one.
    Wrong = 1,
    /// The call itself is at fault.
    Usage = 2,
    /// The model may be sound, but is of a kind that is not compiled here.
    Unsupported = 3,
    /// The model or its data is at fault.
    Invalid = 4,
    /// Anything else: files, memory, a defect of the compiler.
    Other = 5,
}

impl Class {
    /// The exit code of the command.
    pub fn exit_code(self) -> u8 {
        self as u8
    }
}

/// Everything that is wrong with a model, one line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct Faults(pub Vec<Fault>);

fn lines(faults: &[Fault]) -> String {
    let lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
    lines.join("\n")
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model or value file cannot be read.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// The model breaks rules of ONNX, or is of a version that is not read.
    #[error(transparent)]
    Faults(#[from] Faults),
    /// Operators, attributes or types stand in the way.
    #[error(transparent)]
    Import(#[from] ImportErrors),
    /// A stage of the compiler failed: a defect of it, unless its text says otherwise.
    #[error("the compiler failed in {stage}: {message}")]
    Compiler {
        /// The stage.
        stage: &'static str,
        /// What it says.
        message: String,
    },
    /// An operator could not be lowered.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// Code could not be made or written.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A context could not be made, or a run ended early.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A file cannot be read or written.
    #[error("cannot {action} '{}': {message}", path.display())]
    File {
        /// `read`, `write`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        message: String,
        /// Whose fault it is.
        class: Class,
    },
    /// The call is at fault.
    #[error("{0}")]
    Usage(String),
    /// Something is not compiled here.
    #[error("{0}")]
    Unsupported(String),
    /// The model or its data is at fault.
    #[error("{0}")]
    Invalid(String),
    /// A result differs from the expected one.
    #[error("{0}")]
    Wrong(String),
    /// A tool or a system call failed.
    #[error("{0}")]
    Other(String),
}

/// What lowering does not know is not supported; the rest breaks rules that the stages before keep.
fn of_lowering(error: &LowerError) -> Class {
    match error {
        LowerError::Unranked { .. } | LowerError::Type(_) | LowerError::Unsupported { .. } => {
            Class::Unsupported
        }
        LowerError::At { source, .. } => of_lowering(source),
        _ => Class::Other,
    }
}

/// A file that is not there is the caller's mistake.
fn of_io(error: &std::io::Error) -> Class {
    match error.kind() {
        std::io::ErrorKind::NotFound => Class::Usage,
        _ => Class::Other,
    }
}

fn of_code(code: ErrorCode) -> Class {
    match code {
        ErrorCode::Input | ErrorCode::Check | ErrorCode::Index | ErrorCode::Weights => {
            Class::Invalid
        }
        ErrorCode::Argument | ErrorCode::Output => Class::Usage,
        ErrorCode::Cpu | ErrorCode::Abi => Class::Unsupported,
        _ => Class::Other,
    }
}

impl Error {
    /// What the error means for the caller.
    pub fn class(&self) -> Class {
        match self {
            Error::Onnx(OnnxError::Io { source, .. }) => of_io(source),
            Error::Onnx(OnnxError::NotAFile { .. }) => Class::Usage,
            Error::Onnx(_) | Error::Invalid(_) => Class::Invalid,
            Error::Faults(Faults(faults)) => {
                if faults.iter().all(|f| f.kind == FaultKind::Unsupported) {
                    Class::Unsupported
                } else {
                    Class::Invalid
                }
            }
            Error::Import(errors) if errors.is_unsupported() => Class::Unsupported,
            Error::Import(errors) if errors.is_setting() => Class::Usage,
            Error::Import(errors) if errors.is_internal() => Class::Other,
            Error::Import(_) => Class::Invalid,
            Error::Runtime(RuntimeError::Open { .. }) => Class::Invalid,
            Error::Runtime(error) | Error::Link(LinkError::Runtime(error)) => of_code(error.code()),
            Error::Link(LinkError::MissingKernel { .. } | LinkError::Unsupported { .. }) => {
                Class::Unsupported
            }
            Error::Lower(error) => of_lowering(error),
            Error::Link(LinkError::Name(_)) => Class::Usage,
            Error::Link(LinkError::File { source, .. }) => of_io(source),
            Error::Link(_) => Class::Other,
            Error::File { class, .. } => *class,
            Error::Usage(_) => Class::Usage,
            Error::Unsupported(_) => Class::Unsupported,
            Error::Wrong(_) => Class::Wrong,
            Error::Compiler { .. } | Error::Other(_) => Class::Other,
        }
    }

    /// The operating system refused; a file that is not there is the caller's mistake.
    pub fn io(action: &'static str, path: &Path, error: &std::io::Error) -> Error {
        Error::File {
            action,
            path: path.to_path_buf(),
            message: error.to_string(),
            class: of_io(error),
        }
    }

    /// A file's content is not what it should be.
    pub fn content(path: &Path, message: impl Into<String>) -> Error {
        Error::File {
            action: "read",
            path: path.to_path_buf(),
            message: message.into(),
            class: Class::Invalid,
        }
    }

    /// A stage of the compiler failed.
    pub(crate) fn stage(stage: &'static str, error: &dyn std::fmt::Display) -> Error {
        Error::Compiler {
            stage,
            message: error.to_string(),
        }
    }
}
