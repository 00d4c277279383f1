//! From fusion groups of the graph level to loops.
