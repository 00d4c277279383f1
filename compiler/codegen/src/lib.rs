//! Code generation: loop nests, the kernels they become, and the emitters of machine code.
//!
//! * [`loops`]: nests over buffers, with a schedule beside them; what lowering from the graph writes.
//! * [`kernel`]: linear operations over virtual registers with a lane count; what the emitters read.
//! * [`x64`]: AVX2 and AVX-512 machine code from a kernel.
//! * [`clif`]: Cranelift functions (128-bit vectors or scalars, every target) from a kernel.
//!
//! The emitters know kernels only; nothing here knows ONNX.
//!
//! A loop nest from its text form, interpreted, scheduled, and compiled for AVX2:
//!
//! ```
//! use lapidary_codegen::loops::{interp, parse, schedule, verify};
//! use lapidary_codegen::{Level, MachineKernel, Size, compile, x64};
//!
//! // `d0` is the entry 0 of the kernel's `dims`, `v1` a loop variable.
//! let (kernel, _) = parse::parse("
//! kernel relu (x: f32 input 0, y: f32 output 1)
//!   dims d0 = 0
//!   tasks 1
//! {
//!   for v1 in 0..d0 {
//!     y[v1] = max(x[v1], 0.0)
//!   }
//! }")?;
//! verify::verify(&kernel)?;
//!
//! let bytes = |values: [f32; 3]| values.map(f32::to_le_bytes).concat();
//! let mut memory = interp::Memory {
//!     buffers: vec![bytes([1.5, -2.0, 3.0]), bytes([0.0; 3])],
//!     dims: vec![3],
//!     scratch: Vec::new(),
//! };
//! assert_eq!(interp::run(&kernel, &mut memory, 0..1)?, None);
//! assert_eq!(memory.buffers[1], bytes([1.5, 0.0, 3.0]));
//!
//! let schedule = schedule::automatic(&kernel);
//! assert_eq!(schedule.vector.len(), 1);
//! let MachineKernel::Wide(code) = compile(&kernel, &schedule, Level::V3, Size::Fast)? else {
//!     panic!("AVX2 has all that it takes");
//! };
//! assert!(x64::disassemble(&code).contains("%ymm"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

pub mod clif;
pub mod expand;
pub mod kernel;
pub mod loops;
pub mod x64;

mod compile;
pub use compile::{CompileError, Level, MachineKernel, compile, warm_up};
pub use expand::Size;
