//! The text form of a graph: [`crate::Graph::to_text`] and [`parse`].
//!
//! ```text
//! graph "ffn" [batch, seq] {
//!   input %x: f32[batch, seq, 768]
//!   const @w: f32[768, 3072] = #91f3c06a7d1e22b4
//!   const @b: f32[3072] = splat(0.5)
//!   %h: f32[batch, seq, 3072] = contract "abc,cd->abd" %x, @w          ; /ffn/MatMul
//!   %y: f32[batch, seq, 3072] = pointwise (a = %h, b = @b) => max(a + b, 0.0)   ; /ffn/Add | /ffn/Relu
//!   output "y" %y
//! }
//! ```
//!
//! The symbols stand in the header; a symbol is bound where it first is a whole dimension (of an
//! input, else of a node's output). Attributes at their usual value are left out. `_` is an absent
//! input, `[*]` an unranked shape. A constant of up to 16 elements is printed whole, a larger one as
//! `splat(v)` or `#hash`. The parser also takes `random(seed)`, and reads `#hash` as
//! `random(hash)`: the text form carries no weights. A comment after a node names its origins;
//! a comment on its own line is skipped.
//!
//! Containers are `seq(f32[*])`, `opt(…)`, `map(string, …)`. The bodies of a region stand behind its
//! operands, each with names and symbols of its own; in parentheses, where each input comes from:
//! an operand by its number, or `own` for what the region makes.
//!
//! ```text
//!   %y: f32[3] = loop {carried: 1} %count, _, %x, %w {
//!     body "step" (own, own, own, 3) [] {
//!       input %i: i64[]
//!       input %go: bool[]
//!       input %a: f32[3]
//!       input %b: f32[3]
//!       %c: f32[3] = pointwise (a = %a, b = %b) => a + b
//!       output "go" %go
//!       output "c" %c
//!     }
//!   }   ; /loop
//! ```
//!
//! Behind the outputs stand states: `state %past "present" axis 1 store %memory [batch, past + 1]`, without axis or store
//! where there is none.
//!
//! Names that are no plain words are quoted; a second value of the same name gets `#2`, and so on.
//! Printing what was parsed gives the same text (but for `#hash`); ids are not kept.

mod attrs;
mod formula;
mod lexer;
mod literal;
mod parse;
mod print;

pub use parse::parse;

/// A tensor as text: `f32[2] [1.0, 2.0]`; the elements as in a constant.
pub fn data_text(t: &crate::TensorData) -> String {
    format!("{}{:?} {}", t.dtype, t.dims, literal::data(t))
}

/// Where and why a text is no graph.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What was expected and what is there.
    pub problem: String,
}

impl crate::Graph {
    /// The graph as text; [`parse`] reads it.
    pub fn to_text(&self) -> String {
        print::graph(self)
    }
}

impl std::fmt::Display for crate::Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_text())
    }
}

#[cfg(test)]
mod tests;
