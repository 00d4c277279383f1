//! Runs loops: in the reference interpreter, and compiled for every level that this machine has,
//! each buffer next to a page that must not be touched.
#![allow(dead_code)]

pub mod accuracy;

use crate::support::{Emitter, Mapped, clif_code, emitters};
use lapidary_codegen::expand::{self, TILE_SCRATCH};
use lapidary_codegen::kernel::eval::Args;
use lapidary_codegen::kernel::{self, Elem, MathFn, Mem, math_fn_offset};
use lapidary_codegen::loops::interp::{self, Fault};
use lapidary_codegen::loops::{LoopKernel, Schedule, parse, verify};
use lapidary_codegen::x64::Isa;
use lapidary_codegen::{Level, MachineKernel, Size, compile};

/// How a kernel is compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    Level(Level, Size),
    /// One lane, by Cranelift: what takes everything.
    Scalar,
}

/// What this machine can run.
pub fn targets() -> Vec<Target> {
    let mut all = vec![
        Target::Scalar,
        Target::Level(Level::Baseline, Size::Fast),
        Target::Level(Level::Baseline, Size::Least),
    ];
    for e in emitters() {
        match e {
            Emitter::X64(Isa::Avx2) => {
                all.push(Target::Level(Level::V3, Size::Fast));
                all.push(Target::Level(Level::V3, Size::Lean));
            }
            Emitter::X64(Isa::Avx512) => {
                all.push(Target::Level(Level::V4, Size::Fast));
                all.push(Target::Level(Level::V4, Size::Lean));
            }
            Emitter::Clif | Emitter::ClifBaseline => {}
        }
    }
    all
}

/// Machine code of a kernel, and whether it is from an emitter of wide vectors.
pub fn code(k: &LoopKernel, s: &Schedule, target: Target) -> (Vec<u8>, bool) {
    match target {
        Target::Scalar => {
            let one = expand::Target {
                lanes: 1,
                vector_registers: 16,
                masks: false,
                size: Size::Fast,
            };
            let k = expand::expand(k, s, one).unwrap_or_else(|e| panic!("{e}"));
            (portable(&k, true), false)
        }
        Target::Level(level, size) => {
            match compile(k, s, level, size).unwrap_or_else(|e| panic!("{e}")) {
                MachineKernel::Wide(bytes) => (bytes, true),
                MachineKernel::Portable(k) => (portable(&k, level != Level::Baseline), false),
            }
        }
    }
}

fn portable(k: &kernel::Kernel, native: bool) -> Vec<u8> {
    kernel::verify::verify(k).unwrap_or_else(|e| panic!("{e}"));
    clif_code(k, native)
}

macro_rules! c_functions {
    ($($name:ident),*) => {
        mod c {
            unsafe extern "C" { $(pub fn $name(x: f64) -> f64;)* }
        }
        $(extern "C" fn $name(x: f64) -> f64 {
            // SAFETY: a pure function of the C library.
            unsafe { c::$name(x) }
        })*
    };
}
c_functions!(
    exp, log, sin, cos, tan, asin, acos, atan, sinh, cosh, tanh, asinh, acosh, atanh, erf
);
extern "C" fn pow(x: f64, y: f64) -> f64 {
    x.powf(y)
}
extern "C" fn fmod(x: f64, y: f64) -> f64 {
    x % y
}

/// The run-time table, as far as kernels use it.
pub fn table() -> Vec<usize> {
    use MathFn as M;
    let mut table = vec![0usize; 64];
    let one: [(MathFn, extern "C" fn(f64) -> f64); 15] = [
        (M::Exp, exp),
        (M::Log, log),
        (M::Sin, sin),
        (M::Cos, cos),
        (M::Tan, tan),
        (M::Asin, asin),
        (M::Acos, acos),
        (M::Atan, atan),
        (M::Sinh, sinh),
        (M::Cosh, cosh),
        (M::Tanh, tanh),
        (M::Asinh, asinh),
        (M::Acosh, acosh),
        (M::Atanh, atanh),
        (M::Erf, erf),
    ];
    for (f, pointer) in one {
        table[math_fn_offset(f) as usize / 8] = pointer as *const () as usize;
    }
    table[math_fn_offset(M::Pow) as usize / 8] = pow as *const () as usize;
    table[math_fn_offset(M::Fmod) as usize / 8] = fmod as *const () as usize;
    table
}

/// A kernel with the memory of a call.
#[derive(Clone, Debug)]
pub struct Case {
    pub kernel: LoopKernel,
    pub schedule: Schedule,
    pub memory: interp::Memory,
    pub tasks: (i64, i64),
}

/// What a compiled kernel left.
pub struct Found {
    pub memory: interp::Memory,
    pub fault: Option<Fault>,
}

impl Case {
    /// What the kernel must leave behind.
    pub fn expected(&self) -> Found {
        let mut memory = self.memory.clone();
        let fault = interp::run(&self.kernel, &mut memory, self.tasks.0..self.tasks.1);
        let fault = fault.unwrap_or_else(|e| panic!("{e}\n{}", self.text()));
        Found { memory, fault }
    }
    pub fn text(&self) -> String {
        format!(
            "{}dims {:?} tasks {:?}",
            self.kernel.to_text(&self.schedule),
            self.memory.dims,
            self.tasks
        )
    }

    /// Runs code with buffers that end (or begin) at a page's edge.
    pub fn run(&self, code: &[u8], at_end: bool) -> Found {
        let mapped = Mapped::new(code);
        let mut buffers: Vec<Guarded> = self
            .memory
            .buffers
            .iter()
            .map(|b| Guarded::new(b, at_end))
            .collect();
        // The worker's scratch memory begins at a multiple of 64.
        let rounded = self.memory.scratch.len().next_multiple_of(64);
        let mut scratch_bytes = self.memory.scratch.clone();
        scratch_bytes.resize(rounded + TILE_SCRATCH as usize, 0xA5);
        let mut scratch = Guarded::new(&scratch_bytes, at_end);
        let table = table();
        let mut worker = [0u64; 16];
        worker[kernel::WORKER_SCRATCH as usize / 8] = scratch.pointer() as u64;
        worker[kernel::WORKER_SCRATCH_BYTES as usize / 8] = scratch_bytes.len() as u64;
        worker[kernel::WORKER_RT as usize / 8] = table.as_ptr() as u64;
        let pointers: Vec<*mut u8> = buffers.iter_mut().map(Guarded::pointer).collect();
        note(&self.text());
        // SAFETY: the interpreter ran the same kernel on memory of the same sizes.
        unsafe {
            mapped.call(Args {
                buffers: pointers.as_ptr(),
                dims: self.memory.dims.as_ptr(),
                task_begin: self.tasks.0,
                task_end: self.tasks.1,
                worker: worker.as_mut_ptr().cast(),
            });
        }
        let kind = worker[kernel::WORKER_FAULT_KIND as usize / 8];
        let fault = (kind as u32 != 0).then(|| Fault {
            operand: (kind >> 32) as i32,
            value: worker[kernel::WORKER_FAULT_VALUE as usize / 8] as i64,
            limit: worker[kernel::WORKER_FAULT_LIMIT as usize / 8] as i64,
        });
        let memory = interp::Memory {
            buffers: buffers.iter().map(Guarded::bytes).collect(),
            dims: self.memory.dims.clone(),
            scratch: scratch.bytes()[..self.memory.scratch.len()].to_vec(),
        };
        Found { memory, fault }
    }

    /// Compiled for every target the kernel does what the interpreter does, up to `tolerance` units
    /// in the last place; gives how many targets had wide vectors. Its text reads back.
    pub fn check(&self, tolerance: f64) -> usize {
        let k = &self.kernel;
        verify::verify(k).unwrap_or_else(|e| panic!("{e}\n{}", self.text()));
        verify::verify_schedule(k, &self.schedule)
            .unwrap_or_else(|e| panic!("{e}\n{}", self.text()));
        let (read, schedule) = parse::parse(&k.to_text(&self.schedule))
            .unwrap_or_else(|e| panic!("{e}\n{}", self.text()));
        assert_eq!(
            (&read, &schedule),
            (&k.canonical(), &self.schedule),
            "{}",
            self.text()
        );

        let expected = self.expected();
        let mut wide = 0;
        for target in targets() {
            let (code, is_wide) = code(k, &self.schedule, target);
            wide += usize::from(is_wide);
            for at_end in [true, false] {
                let found = self.run(&code, at_end);
                assert_eq!(
                    found.fault,
                    expected.fault,
                    "{target:?}: the fault\n{}",
                    self.text()
                );
                if expected.fault.is_some() {
                    continue;
                }
                for (i, b) in k.buffers.iter().enumerate() {
                    use lapidary_codegen::loops::BufferKind::*;
                    let n = match b.kind {
                        Input(n) | Output(n) => n as usize,
                        Scratch { .. } => continue,
                    };
                    let (e, f) = (&expected.memory.buffers[n], &found.memory.buffers[n]);
                    if let Some((at, e, f)) = differ(b.mem, e, f, tolerance) {
                        panic!(
                            "{target:?}: buffer {i} `{}` at {at}: expected {e}, found {f}\n{}",
                            b.name,
                            self.text()
                        );
                    }
                }
            }
        }
        wide
    }
}

/// Where two buffers first differ by more than `tolerance` units in the last place.
pub fn differ(mem: Mem, a: &[u8], b: &[u8], tolerance: f64) -> Option<(usize, f64, f64)> {
    let size = mem.bytes() as usize;
    a.chunks_exact(size)
        .zip(b.chunks_exact(size))
        .enumerate()
        .find_map(|(i, (x, y))| {
            if x == y {
                return None;
            }
            let (p, q) = (number(mem, x), number(mem, y));
            let close = mem.elem().is_float()
                && (p == q || (p.is_nan() && q.is_nan()) || {
                    let ulp = match mem {
                        Mem::F32 => ulp_f32(p),
                        Mem::F64 => p.abs() * f64::EPSILON,
                        Mem::F16 => (p.abs() * 2f64.powi(-10)).max(2f64.powi(-24)),
                        _ => p.abs() * 2f64.powi(-7),
                    };
                    tolerance > 0.0 && (p - q).abs() <= tolerance * ulp
                });
            (!close).then_some((i, p, q))
        })
}

/// Distance of neighbouring f32 at a magnitude.
pub fn ulp_f32(v: f64) -> f64 {
    let bits = v.abs().max(f32::MIN_POSITIVE as f64).to_bits();
    f64::from_bits(bits & (0x7ffu64 << 52)) * 2f64.powi(-23)
}

fn number(mem: Mem, raw: &[u8]) -> f64 {
    let mut bytes = [0u8; 8];
    bytes[..raw.len()].copy_from_slice(raw);
    let bits = u64::from_le_bytes(bytes);
    match mem {
        Mem::F32 => f32::from_bits(bits as u32) as f64,
        Mem::F64 => f64::from_bits(bits),
        Mem::BF16 => f32::from_bits((bits as u32) << 16) as f64,
        Mem::F16 => {
            let m = match (bits >> 10) & 31 {
                0 => (bits & 0x3ff) as f64 * 2f64.powi(-24),
                31 if bits & 0x3ff == 0 => f64::INFINITY,
                31 => f64::NAN,
                e => (1024 + (bits & 0x3ff)) as f64 * 2f64.powi(e as i32 - 25),
            };
            if bits & 0x8000 != 0 { -m } else { m }
        }
        Mem::I8 => bits as i8 as f64,
        Mem::I16 => bits as i16 as f64,
        Mem::I32 => bits as i32 as f64,
        Mem::U8 | Mem::U16 | Mem::U32 => bits as f64,
        Mem::I64 => bits as i64 as f64,
    }
}

/// Bytes of a number in memory.
pub fn raw(mem: Mem, v: f64) -> Vec<u8> {
    match mem {
        Mem::F32 => (v as f32).to_le_bytes().to_vec(),
        Mem::F64 => v.to_le_bytes().to_vec(),
        Mem::BF16 => ((v as f32).to_bits() >> 16).to_le_bytes()[..2].to_vec(),
        Mem::F16 => {
            // Exact for the few values that tests use: whole numbers below 2048 and specials.
            let sign = if v.is_sign_negative() { 0x8000u16 } else { 0 };
            let a = v.abs();
            let bits = if a == 0.0 {
                0
            } else if a.is_nan() {
                0x7e00
            } else if a > 65504.0 {
                0x7c00
            } else if a < 2f64.powi(-14) {
                1
            } else {
                let e = a.log2().floor() as i32;
                (((e + 15) as u16) << 10) | ((a / 2f64.powi(e) - 1.0) * 1024.0) as u16
            };
            (sign | bits).to_le_bytes().to_vec()
        }
        _ => (v as i64).to_le_bytes()[..mem.bytes() as usize].to_vec(),
    }
}

pub fn elem_bits(elem: Elem, v: f64) -> u64 {
    match elem {
        Elem::F32 => (v as f32).to_bits() as u64,
        Elem::F64 => v.to_bits(),
        Elem::I32 => v as i32 as u32 as u64,
        Elem::I64 => v as i64 as u64,
    }
}

const PAGE: usize = 4096;

mod os {
    unsafe extern "C" {
        pub fn mmap(
            at: *mut u8,
            len: usize,
            prot: i32,
            flags: i32,
            fd: i32,
            offset: i64,
        ) -> *mut u8;
        pub fn munmap(at: *mut u8, len: usize) -> i32;
        pub fn mprotect(at: *mut u8, len: usize, prot: i32) -> i32;
        pub fn signal(number: i32, handler: usize) -> usize;
        pub fn write(fd: i32, from: *const u8, len: usize) -> isize;
        pub fn _exit(code: i32) -> !;
    }
}

/// Bytes between two pages that cannot be accessed; what is left of their own pages is checked when
/// they are read back.
pub struct Guarded {
    map: *mut u8,
    pages: usize,
    start: usize,
    len: usize,
}

const FILL: u8 = 0xA5;

impl Guarded {
    pub fn new(bytes: &[u8], at_end: bool) -> Guarded {
        let pages = bytes.len().div_ceil(PAGE).max(1);
        let start = if at_end {
            pages * PAGE - bytes.len()
        } else {
            0
        };
        // SAFETY: a fresh private mapping, its outer pages taken away, its inner ones filled.
        unsafe {
            let map = os::mmap(std::ptr::null_mut(), (pages + 2) * PAGE, 3, 0x22, -1, 0);
            assert!(map as isize != -1);
            assert_eq!(os::mprotect(map, PAGE, 0), 0);
            assert_eq!(os::mprotect(map.add((pages + 1) * PAGE), PAGE, 0), 0);
            let inner = map.add(PAGE);
            std::ptr::write_bytes(inner, FILL, pages * PAGE);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), inner.add(start), bytes.len());
            Guarded {
                map,
                pages,
                start,
                len: bytes.len(),
            }
        }
    }
    pub fn pointer(&mut self) -> *mut u8 {
        // SAFETY: inside the mapping.
        unsafe { self.map.add(PAGE + self.start) }
    }
    pub fn bytes(&self) -> Vec<u8> {
        // SAFETY: the inner pages are mapped and filled.
        let inner = unsafe { std::slice::from_raw_parts(self.map.add(PAGE), self.pages * PAGE) };
        let end = self.start + self.len;
        let untouched = |b: &[u8]| b.iter().all(|b| *b == FILL);
        assert!(
            untouched(&inner[..self.start]) && untouched(&inner[end..]),
            "bytes around a buffer are overwritten"
        );
        inner[self.start..end].to_vec()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping is its own.
        unsafe { os::munmap(self.map, (self.pages + 2) * PAGE) };
    }
}

/// The case that runs on each thread, for the handler of a fault in generated code.
#[allow(clippy::declare_interior_mutable_const)]
fn note(text: &str) {
    use std::cell::RefCell;
    thread_local! {
        static CASE: RefCell<String> = const { RefCell::new(String::new()) };
    }
    extern "C" fn handler(_: i32) {
        // SAFETY: the process ends here; writing and ending are allowed in a handler.
        unsafe {
            let _ = CASE.try_with(|c| {
                if let Ok(c) = c.try_borrow() {
                    os::write(2, c.as_ptr(), c.len());
                }
            });
            os::_exit(101)
        }
    }
    CASE.with(|c| {
        *c.borrow_mut() = format!("\ngenerated code touched memory that is not its own:\n{text}\n")
    });
    // SAFETY: the handler does what a handler may.
    unsafe { os::signal(11, handler as *const () as usize) };
}
