//! Tensors, contexts and compiled models, without a compiler.
