//! The graph level: typed SSA over tensors whose dimensions are expressions over symbols.
//!
//! A [`Graph`] is what the importer makes of an ONNX file and what the passes rewrite: nodes of
//! opset-free core operators ([`Op`]) over values ([`ValueData`]), ids dense `u32`s in tables.
//! ONNX names survive in [`NodeData::origin`] and [`ValueData::name`].
//!
//! This crate knows neither ONNX files nor loops, buffers or machines.
//!
//! A graph from its text form, verified and run by the interpreter:
//!
//! ```
//! use lapidary_graph::{TensorData, interp, text, verify};
//!
//! let graph = text::parse(r#"
//! graph "row" [batch] {
//!   input %x: f32[batch, 2]
//!   const @w: f32[2, 1] = [3.0, 4.0]
//!   %h: f32[batch, 1] = contract "ab,bc->ac" %x, @w                    ; /fc/MatMul
//!   %y: f32[batch, 1] = pointwise (a = %h) => max(a, 0.0)              ; /fc/Relu
//!   output "y" %y
//! }"#)?;
//! verify::verify(&graph).expect("every invariant holds");
//!
//! // `batch` is 2 in this run.
//! let x = TensorData::from_f32(vec![2, 2], &[1.0, 2.0, -1.0, 0.5]);
//! let y = interp::run(&graph, &[x])?;
//! assert_eq!(y[0].to_f32s(), Some(vec![11.0, 0.0]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

pub mod dim;
pub mod dtype;
pub mod entity;
pub mod graph;
pub mod group;
pub mod infer;
pub mod interp;
pub mod minifloat;
pub mod op;
pub mod pointwise;
pub mod region;
pub mod state;
pub mod tensor;
pub mod text;
pub mod tree;
pub mod verify;

pub use dim::{Atom, Dim, Sym};
pub use dtype::DType;
pub use entity::{EntityMap, EntityRef};
pub use graph::{
    Container, Def, Graph, NodeData, NodeId, SymbolData, SymbolOrigin, TensorType, ValueData,
    ValueId,
};
pub use group::{Group, GroupKind, Groups};
pub use op::Op;
pub use pointwise::{Pointwise, PwBuilder, PwNode, PwOp, PwRef, Scalar};
pub use state::{State, Store};
pub use tensor::TensorData;
