//! What can stand in the way of an import: one record a node, all of a model at once.

use std::fmt;
use thiserror::Error;

/// Whether the model is at fault, this compiler, or what was asked of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// Valid ONNX that is not handled.
    Unsupported,
    /// Not valid ONNX.
    Invalid,
    /// An option that does not suit the model.
    Setting,
    /// This compiler contradicts itself.
    Internal,
}

/// One node (or value) that cannot be imported.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub struct ImportError {
    /// What stands in the way.
    pub kind: ErrorKind,
    /// The ONNX node's name (or a made one), or the value's.
    pub node: String,
    /// Operator type; empty when the fault lies with a graph input, output or initializer.
    pub op: String,
    /// The domain of its operator.
    pub domain: String,
    /// Version of the domain that the model (or function) imports.
    pub opset: i64,
    /// What was found, and what was expected.
    pub found: String,
    /// What the user can do; may be empty.
    pub hint: String,
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Invalid => "invalid",
            ErrorKind::Setting => "option",
            ErrorKind::Internal => "internal error",
        };
        if self.op.is_empty() {
            write!(f, "{kind}: '{}': {}", self.node, self.found)?;
        } else {
            let domain = if self.domain.is_empty() {
                "ai.onnx"
            } else {
                &self.domain
            };
            write!(
                f,
                "{kind}: node '{}' ({domain}.{}, opset {}): {}",
                self.node, self.op, self.opset, self.found
            )?;
        }
        if !self.hint.is_empty() {
            write!(f, " (hint: {})", self.hint)?;
        }
        Ok(())
    }
}

/// Everything that stands in the way, in the order of the nodes; at least one entry.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub struct ImportErrors {
    /// One for each node or value.
    pub errors: Vec<ImportError>,
}

impl ImportErrors {
    /// Whether the model is valid as far as is known: all entries are [`ErrorKind::Unsupported`].
    pub fn is_unsupported(&self) -> bool {
        self.errors.iter().all(|e| e.kind == ErrorKind::Unsupported)
    }
    /// Whether this compiler contradicts itself: an entry is [`ErrorKind::Internal`].
    pub fn is_internal(&self) -> bool {
        self.errors.iter().any(|e| e.kind == ErrorKind::Internal)
    }
    /// Whether nothing is wrong but the options: all entries are [`ErrorKind::Setting`].
    pub fn is_setting(&self) -> bool {
        self.errors.iter().all(|e| e.kind == ErrorKind::Setting)
    }
}

impl fmt::Display for ImportErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, e) in self.errors.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{e}")?;
        }
        Ok(())
    }
}

/// Why one rule gave up; the driver adds the node.
#[derive(Clone, Debug)]
pub(crate) struct Fail {
    pub kind: ErrorKind,
    pub found: String,
    pub hint: String,
}

impl Fail {
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

pub(crate) fn unsupported(found: impl Into<String>) -> Fail {
    Fail {
        kind: ErrorKind::Unsupported,
        found: found.into(),
        hint: String::new(),
    }
}

pub(crate) fn invalid(found: impl Into<String>) -> Fail {
    Fail {
        kind: ErrorKind::Invalid,
        found: found.into(),
        hint: String::new(),
    }
}
