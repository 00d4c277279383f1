//! Tensors, contexts and compiled models, without a compiler.

pub mod abi;
pub mod ffi;
