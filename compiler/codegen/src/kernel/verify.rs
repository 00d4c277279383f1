//! The verifier of kernels.
