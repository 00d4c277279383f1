//! Lapidary.
