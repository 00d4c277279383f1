//! Lapidary compiles ONNX models to native code.
//!
//! ```
//! use lapidary::{Model, Options};
//! use ndarray::Array4;
//!
//! let model = Model::load("examples/digits/model.onnx")?.compile(&Options::default())?;
//! let image = Array4::<f32>::zeros((1, 1, 8, 8));
//! let outputs = model.run([("pixels", &image)])?;
//! let scores = outputs[0].view::<f32>()?;
//! assert_eq!(scores.shape(), [1, 10]);
//! # Ok::<(), lapidary::Error>(())
//! ```
//!
//! This crate is the face of the others: it carries a model through the stages ([`pipeline`]), and holds what the
//! command and the tests need beside that: value files ([`files`]), comparison ([`compare`]), test cases ([`case`]).
//! What a stage does is known to its crate alone.

#![warn(missing_docs)]

pub mod bisect;
pub mod build;
mod cache;
pub mod case;
pub mod compare;
mod compiled;
pub mod edit;
mod error;
pub mod files;
mod guard;
mod model;
pub mod operator;
mod options;
pub mod pipeline;
pub mod portable;
pub mod random;
pub mod reference;
mod states;
pub mod target;
mod value;
mod variants;

pub use cache::Cache;
pub use compiled::{Compiled, Context};
pub use error::{Class, Error, Faults};
pub use lapidary_codegen::Level;
pub use lapidary_runtime::{
    Container, CpuLevel, DType, Dim, Element, OwnedValue, StateInfo, Tensor, TensorView, ValueInfo,
    Weights,
};
pub use model::{Made, Model};
pub use options::{Cpu, DimSetting, Options};
pub use value::{Output, Value};

/// The Rust code of the book, as tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/rust.md")]
mod book {}
