//! From ONNX to the graph level.
//!
//! In: a [`ModelFile`] and [`ImportOptions`]. Out: a [`Graph`] of core operators, or an
//! [`ImportErrors`] that lists everything in the way at once. The only stage that knows opsets.
//!
//! `driver` walks the nodes (inlining model-local functions and decided branches) and asks `table`
//! for the rule of each; `regions` makes the bodies of `If`, `Loop` and `Scan`, in which `scope` finds
//! names of the graphs around; `containers` knows what sequences and optionals hold; `ops/` has the rules, one family a file; `builder` makes typed nodes;
//! `custom` lets an application bring operators of its own;
//! `row` applies what the table of ONNX says of shapes and axes;
//! `known` evaluates shape arithmetic, so that sizes become dimension expressions.
//! See `docs/import.md`.

#![warn(missing_docs)]

mod builder;
mod containers;
mod context;
pub mod custom;
mod declared;
mod dims;
mod driver;
mod error;
mod known;
mod ops;
mod regex;
mod regions;
mod row;
mod scope;
mod strings;
mod table;
mod unranked;

pub use error::{ErrorKind, ImportError, ImportErrors};
use lapidary_graph::Graph;
use lapidary_onnx::ModelFile;
use std::sync::Arc;
pub use table::{Operator, operators};

/// What to do with one input dimension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DimSetting {
    /// Symbolic, whatever the model declares.
    Free,
    /// This number.
    Fixed(i64),
}

/// How to read a model.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Free every input dimension; a named one keeps its name, and so what it shares.
    pub symbolic: bool,
    /// Settings by the model's name for a dimension, or by `input.axis`; the last that fits wins.
    pub dims: Vec<(String, DimSetting)>,
    /// Initializers that are inputs too are constants, not defaults of those inputs.
    pub fix_defaults: bool,
    /// Refuses a model whose outputs and inner values are not of the shapes that it states for them.
    pub strict: bool,
    /// Holds the shape of every output against the table of ONNX's operators: a test of this compiler, not of the
    /// model. A build with debug assertions does so always.
    pub audit: bool,
    /// Operators of the application; they come before those that are known here.
    pub operators: Vec<Arc<dyn custom::CustomOperator>>,
}

/// Imports a model.
pub fn import(model: &ModelFile, options: &ImportOptions) -> Result<Graph, ImportErrors> {
    driver::import(model, options)
}
