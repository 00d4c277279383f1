//! Code generation: loop nests, the kernels they become, and the emitters of machine code.
//!
//! * [`loops`]: nests over buffers, with a schedule beside them; what lowering from the graph writes.
//! * [`kernel`]: linear operations over virtual registers with a lane count; what the emitters read.
//! * [`x64`]: AVX2 and AVX-512 machine code from a kernel.
//! * [`clif`]: Cranelift functions (128-bit vectors or scalars, every target) from a kernel.
//!
//! The emitters know kernels only; nothing here knows ONNX.

pub mod clif;
pub mod expand;
pub mod kernel;
pub mod loops;
pub mod x64;

mod compile;
pub use compile::{CompileError, Level, MachineKernel, compile, warm_up};
pub use expand::Size;
