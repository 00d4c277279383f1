//! The graph level: typed SSA over tensors with symbolic shapes.
