//! From the graph level to loops: each fusion group becomes one kernel, a view of memory, or a call
//! of the library.
//!
//! What comes out is a [`Program`]: steps in order over the values of the graph, the loop kernels
//! (equal ones once), and the constants as kernels want them (packed, transposed). Memory, time of
//! life and machine code are the business of later stages.

pub mod program;

pub use program::{ConstId, KernelDef, KernelId, LibraryStep, Operand, Program, Step};
