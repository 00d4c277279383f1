//! Rewrites of the graph level, and the forming of fusion groups.
//!
//! [`optimize`] takes a verified graph and leaves an equivalent one, by a pipeline that is data
//! ([`PIPELINE`]): stages of passes, some repeated until nothing changes. [`fuse()`] then sorts the
//! nodes into groups that lowering turns into one kernel each. A pass is one function in one file;
//! it rewrites through [`rewrite::Rewriter`], and says in a [`Remark`] what it wanted to do and
//! could not. Nothing here knows loops, buffers or machines. See `docs/passes.md`.

#![warn(missing_docs)]

pub mod attention;
pub mod conv_affine;
pub mod cse;
pub mod dce;
pub mod expand;
pub mod fold;
pub mod fuse;
pub mod layout;
pub mod movement;
pub mod order;
pub mod pipeline;
pub mod pointwise;
pub mod regions;
pub mod remark;
pub mod rewrite;
pub mod siblings;
pub mod states;
pub mod strided;
pub mod views;

pub use fuse::{fuse, groups_text};
pub use pipeline::{
    After, Options, PIPELINE, Pass, PassError, PassRun, Report, Stage, canonicalize, optimize,
};
pub use remark::{Remark, Remarks};
pub use states::StateError;
pub use strided::Strided;
