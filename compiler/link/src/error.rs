//! What can go wrong between a lowered program and its code.

use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a program could not be planned, compiled or linked.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The program breaks a rule of the plan: a defect of the compiler, never of a model.
    #[error("plan of `{model}`: {problem}")]
    Plan {
        /// The graph's name.
        model: String,
        /// The rule, and the step or buffer that breaks it.
        problem: String,
    },
    /// A kernel could not be compiled.
    #[error(transparent)]
    Kernel(#[from] lapidary_codegen::CompileError),
    /// Cranelift refused a function or a data object.
    #[error("code of `{what}` could not be made: {reason}")]
    Code {
        /// The function or object, by its symbol.
        what: String,
        /// What Cranelift says.
        reason: String,
    },
    /// A node needs a C kernel that this runtime does not have.
    #[error(
        "node `{node}` needs the library kernel `{function}`, which this runtime does not have"
    )]
    MissingKernel {
        /// The ONNX name of the node.
        node: String,
        /// The symbol of the kernel, `lap_lib_…`.
        function: String,
    },
    /// The target or the processor cannot take this.
    #[error("{what} is not supported: {hint}")]
    Unsupported {
        /// What was asked for: a level, a target, an artifact.
        what: String,
        /// What can be had instead.
        hint: String,
    },
    /// The name cannot be part of a C symbol.
    #[error("model name `{0}` is not a C identifier (letters, digits and `_`, no digit first)")]
    Name(String),
    /// A file could not be written or read.
    #[error("cannot {action} `{}`: {source}", path.display())]
    File {
        /// `write`, `read` or `run`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// No memory for code or weights.
    #[error("no memory for {bytes} bytes of {what}: {source}")]
    Memory {
        /// What the memory was for.
        what: &'static str,
        /// How much was asked for.
        bytes: usize,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The tool is not there.
    #[error("`{tool}` was not found: {hint}")]
    ToolMissing {
        /// The program, as it was called.
        tool: String,
        /// Where it can be got, or the option that names another.
        hint: String,
    },
    /// The tool answered with an error.
    #[error("`{tool}` failed ({status}):\n{stderr}")]
    ToolFailed {
        /// The program, as it was called.
        tool: String,
        /// How it ended.
        status: String,
        /// What it wrote to its standard error.
        stderr: String,
    },
    /// The runtime refused to make a context.
    #[error(transparent)]
    Runtime(#[from] lapidary_runtime::RuntimeError),
}

impl LinkError {
    pub(crate) fn file(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        LinkError::File {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
    pub(crate) fn code(what: impl Into<String>, reason: impl ToString) -> Self {
        LinkError::Code {
            what: what.into(),
            reason: reason.to_string(),
        }
    }
}
