//! The graph level: typed SSA over tensors whose dimensions are expressions over symbols.
//!
//! A [`Graph`] is what the importer makes of an ONNX file and what the passes rewrite: nodes of
//! opset-free core operators ([`Op`]) over values ([`ValueData`]), ids dense `u32`s in tables.
//! ONNX names survive in [`NodeData::origin`] and [`ValueData::name`].
//!
//! This crate knows neither ONNX files nor loops, buffers or machines.

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
