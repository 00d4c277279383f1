//! Loop nests.
