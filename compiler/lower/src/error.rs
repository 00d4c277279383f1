//! Errors of lowering.

use lapidary_graph::{DType, Graph, Group, NodeId, ValueId};
use thiserror::Error;

/// Why a group could not be lowered; each names the ONNX node or value.
#[derive(Debug, Error)]
pub enum LowerError {
    /// A rank that is not known when compiling.
    #[error(
        "value `{value}` has a rank that is known at run time only; `{reader}` needs it when compiling"
    )]
    Unranked {
        /// The value.
        value: String,
        /// The node that must know its rank.
        reader: String,
    },
    /// An element type that no kernel takes.
    #[error("elements of type {0} are not taken by generated code")]
    Type(DType),
    /// An input that the operator must have.
    #[error("node `{node}` ({op}) lacks its input {input}")]
    Missing {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// The number of the input.
        input: usize,
    },
    /// A node among views that is none.
    #[error("node `{node}` ({op}) stands where only views of memory can")]
    NotAView {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
    },
    /// An operation with too few operands.
    #[error("an operation has fewer operands than it needs")]
    Arity,
    /// A form of an operator that is not lowered.
    #[error("node `{node}`: {what} is not supported yet")]
    Unsupported {
        /// The node.
        node: String,
        /// What of it.
        what: String,
    },
    /// An error with the node that it belongs to.
    #[error("node `{node}`: {source}")]
    At {
        /// The node.
        node: String,
        /// What is wrong with it.
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
