//! Text form of loops.
