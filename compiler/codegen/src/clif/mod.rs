//! Cranelift functions from kernels.
