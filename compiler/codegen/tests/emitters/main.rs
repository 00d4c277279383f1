//! Every instruction through every emitter, against the evaluator.

mod lanes;
mod memory;
mod rows;
mod structure;
#[path = "../support/mod.rs"]
mod support;
