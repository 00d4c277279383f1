//! Tensors, contexts and compiled models, without a compiler.
//!
//! The C runtime in `c/` does the work (see `docs/abi.md`); this crate compiles it, mirrors its layouts for
//! the compiler ([`abi`], [`ffi`]) and wraps it safely: a [`Tensor`] goes into a [`Context`], which runs the code
//! of a [`CompiledLibrary`] or of any other [`ModelCode`], such as code just compiled into memory. Nothing here
//! knows ONNX or the compiler.
//!
//! ```
//! use lapidary_runtime::{Tensor, TensorView};
//!
//! let rows = [1f32, 2.0, 3.0, 4.0, 5.0, 6.0];
//! // Columns of rows of three: a view, without a copy.
//! let view = TensorView::with_strides(&[3, 2], &[1, 3], &rows)?;
//! let columns: Tensor = view.to_tensor()?;
//! assert_eq!(columns.as_slice::<f32>()?, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
//! # Ok::<(), lapidary_runtime::RuntimeError>(())
//! ```

#![warn(missing_docs)]

pub mod abi;
mod context;
mod cpu;
mod dlpack;
mod error;
pub mod ffi;
pub mod guard;
mod info;
pub mod kernel;
mod library;
pub mod linked;
mod pool;
mod tensor;
mod value;
mod weights;

pub use context::{Canceller, Context, ModelCode, Options, OutputView};
pub use cpu::CpuLevel;
pub use error::{ErrorCode, RuntimeError};
pub use half;
pub use info::{Dim, StateInfo, ValueInfo};
pub use library::CompiledLibrary;
pub use linked::{Input, Output, StaticModel, StaticTable};
pub use pool::ThreadPool;
pub use tensor::{DType, Element, Tensor, TensorView};
pub use value::{Container, OwnedValue};
pub use weights::Weights;
