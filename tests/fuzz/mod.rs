//! Mutated models: seeds, changes, inputs, and what becomes of a case.

pub mod case;
pub mod corpus;
pub mod inputs;
pub mod mutate;
pub mod verdict;
