//! Errors of lowering.

use lapidary_graph::{DType, Graph, Group, NodeId, ValueId};
use thiserror::Error;

/// Why a group could not be lowered; each names the ONNX node or value.
#[derive(Debug, Error)]
pub enum LowerError {
    #[error(
        "value `{value}` has a rank that is known at run time only; `{reader}` needs it when compiling"
    )]
    Unranked { value: String, reader: String },
    #[error("elements of type {0} are not taken by generated code")]
    Type(DType),
    #[error("node `{node}` ({op}) lacks its input {input}")]
    Missing {
        node: String,
        op: String,
        input: usize,
    },
    #[error("node `{node}` ({op}) stands where only views of memory can")]
    NotAView { node: String, op: String },
    #[error("an operation has fewer operands than it needs")]
    Arity,
    #[error("node `{node}`: {what} is not supported yet")]
    Unsupported { node: String, what: String },
    #[error("node `{node}`: {source}")]
    At {
        node: String,
        source: Box<LowerError>,
    },
}

impl LowerError {
    pub(crate) fn unranked(g: &Graph, v: ValueId) -> Self {
        LowerError::Unranked {
            value: g.values[v].name.clone(),
            reader: String::new(),
        }
    }
    pub(crate) fn missing(g: &Graph, n: NodeId, input: usize) -> Self {
        let node = &g.nodes[n];
        LowerError::Missing {
            node: node.name().into(),
            op: node.op.name().into(),
            input,
        }
    }
    pub(crate) fn not_a_view(g: &Graph, n: NodeId, op: &str) -> Self {
        LowerError::NotAView {
            node: g.nodes[n].name().into(),
            op: op.into(),
        }
    }
    pub(crate) fn unsupported(g: &Graph, n: NodeId, what: impl Into<String>) -> Self {
        LowerError::Unsupported {
            node: g.nodes[n].name().into(),
            what: what.into(),
        }
    }
    /// Names the group where the error does not name a node itself.
    pub(crate) fn at(self, g: &Graph, group: &Group) -> Self {
        let node = group
            .anchor
            .or(group.nodes.first().copied())
            .map(|n| g.nodes[n].name().to_string())
            .unwrap_or_default();
        match self {
            LowerError::Unranked { value, reader } if reader.is_empty() => LowerError::Unranked {
                value,
                reader: node,
            },
            e @ (LowerError::Type(_) | LowerError::Arity) => LowerError::At {
                node,
                source: Box::new(e),
            },
            e => e,
        }
    }
}
