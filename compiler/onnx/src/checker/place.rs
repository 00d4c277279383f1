//! The place of a fault, in words: a chain of parts on the stack, written out only when a fault is found.

use std::fmt;

use crate::proto::NodeProto;

/// A place: a part inside another place.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    outer: Option<&'p Place<'p>>,
    part: Part<'p>,
}

/// One step of the way to a place.
#[derive(Clone, Copy)]
pub(super) enum Part<'p> {
    Model,
    Graph(&'p str),
    /// Domain and name.
    Function(&'p str, &'p str),
    /// A node, and its position for those without a name.
    Node(&'p NodeProto, usize),
    Attribute(&'p str),
    /// What kind of value (`input`, `initializer`, …), and its name.
    Value(&'static str, &'p str),
    Word(&'static str),
}

impl<'p> Place<'p> {
    pub(super) fn root() -> Place<'static> {
        Place {
            outer: None,
            part: Part::Model,
        }
    }

    pub(super) fn inside(&'p self, part: Part<'p>) -> Place<'p> {
        Place {
            outer: Some(self),
            part,
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(outer) = self.outer
            && !matches!(outer.part, Part::Model)
        {
            write!(out, "{outer} / ")?;
        }
        write!(out, "{}", self.part)
    }
}

impl fmt::Display for Part<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Part::Model => out.write_str("model"),
            Part::Graph("") => out.write_str("graph"),
            Part::Graph(name) => write!(out, "graph '{name}'"),
            Part::Function("", name) => write!(out, "function '{name}'"),
            Part::Function(domain, name) => write!(out, "function '{domain}.{name}'"),
            Part::Node(node, at) if node.name.is_empty() => {
                write!(out, "node #{at} ({})", node.op_type)
            }
            Part::Node(node, _) => write!(out, "node '{}' ({})", node.name, node.op_type),
            Part::Attribute(name) => write!(out, "attribute '{name}'"),
            Part::Value(kind, name) => write!(out, "{kind} '{name}'"),
            Part::Word(word) => out.write_str(word),
        }
    }
}
