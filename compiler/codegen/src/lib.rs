//! Loops, kernels and their emitters.
