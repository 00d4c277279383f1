//! What several test programs share.

#[allow(dead_code)] // not all programs that share these read all of them
pub mod fixture;
pub mod workers;
