//! Runs kernels: in the evaluator, and as machine code from each emitter that this machine can run.
#![allow(dead_code)]

use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{Function, UserFuncName};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::FunctionBuilderContext;
use lapidary_codegen::clif;
use lapidary_codegen::kernel::eval::{self, Args};
use lapidary_codegen::kernel::{Elem, Kernel, MathFn, Mem, WORKER_RT, math_fn_offset, verify};
use lapidary_codegen::x64::{self, Isa};

pub const LANES: [u32; 4] = [1, 4, 8, 16];
pub const ELEMS: [Elem; 4] = [Elem::F32, Elem::F64, Elem::I32, Elem::I64];

/// Every type in memory.
pub const MEMS: [Mem; 11] = [
    Mem::F32,
    Mem::F64,
    Mem::I8,
    Mem::U8,
    Mem::I16,
    Mem::U16,
    Mem::I32,
    Mem::U32,
    Mem::I64,
    Mem::F16,
    Mem::BF16,
];

/// The memory type that holds an element type as it is.
pub fn whole(elem: Elem) -> Mem {
    match elem {
        Elem::F32 => Mem::F32,
        Elem::F64 => Mem::F64,
        Elem::I32 => Mem::I32,
        Elem::I64 => Mem::I64,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Emitter {
    X64(Isa),
    Clif,
    /// The same for processors without AVX.
    ClifBaseline,
}

/// The emitters whose code this machine runs.
pub fn emitters() -> Vec<Emitter> {
    let mut all = vec![Emitter::Clif];
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("bmi2");
    if avx2 {
        all.push(Emitter::X64(Isa::Avx2));
    } else {
        println!("skipped: no AVX2");
    }
    if avx2
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
    {
        all.push(Emitter::X64(Isa::Avx512));
    } else {
        println!("skipped: no AVX-512");
    }
    all
}

/// Machine code, or `None` where the emitter has none for the kernel.
pub fn code(kernel: &Kernel, emitter: Emitter) -> Option<Vec<u8>> {
    match emitter {
        Emitter::X64(isa) => match x64::emit(kernel, isa) {
            Ok(code) => Some(code.bytes),
            Err(x64::EmitError::Unsupported { .. }) => None,
            Err(e) => panic!("{e}"),
        },
        Emitter::Clif | Emitter::ClifBaseline => {
            clif::supports(kernel).then(|| clif_code(kernel, emitter == Emitter::Clif))
        }
    }
}

/// Cranelift's code of a kernel that it supports: with all that this machine has, or what processors without AVX run, whose
/// fused products round twice.
pub fn clif_code(kernel: &Kernel, native: bool) -> Vec<u8> {
    let mut flags = settings::builder();
    flags.set("opt_level", "speed").unwrap();
    let mut isa = cranelift_native::builder_with_options(native).unwrap();
    if !native && cfg!(target_arch = "x86_64") {
        isa.enable("x86-64-v2").unwrap();
    }
    let isa = isa.finish(settings::Flags::new(flags)).unwrap();
    let mut func = Function::new();
    func.name = UserFuncName::user(0, 0);
    let target = clif::Target {
        config: isa.frontend_config(),
        fma: native,
    };
    let mut context = FunctionBuilderContext::new();
    clif::emit(kernel, &mut func, &mut context, target).unwrap();
    let mut ctx = cranelift_codegen::Context::for_function(func);
    let compiled = ctx
        .compile(&*isa, &mut ControlPlane::default())
        .unwrap_or_else(|e| panic!("{e:?}"));
    assert!(compiled.buffer.relocs().is_empty());
    compiled.code_buffer().to_vec()
}

/// A function in executable memory.
pub struct Mapped(memmap2::Mmap);

impl Mapped {
    pub fn new(code: &[u8]) -> Self {
        let mut map = memmap2::MmapMut::map_anon(code.len()).unwrap();
        map.copy_from_slice(code);
        Mapped(map.make_exec().unwrap())
    }
    /// # Safety
    /// The arguments must be what the kernel expects.
    pub unsafe fn call(&self, args: Args) {
        // SAFETY: the bytes are a function of the kernel ABI; the rest is the caller's.
        unsafe {
            let f: extern "C" fn(*const *mut u8, *const i64, i64, i64, *mut u8) =
                std::mem::transmute(self.0.as_ptr());
            f(
                args.buffers,
                args.dims,
                args.task_begin,
                args.task_end,
                args.worker,
            );
        }
    }
}

extern "C" fn exp(x: f64) -> f64 {
    x.exp()
}
extern "C" fn pow(x: f64, y: f64) -> f64 {
    x.powf(y)
}

/// Memory of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    pub buffers: Vec<Vec<u8>>,
    pub dims: Vec<i64>,
    pub tasks: (i64, i64),
    /// The worker record, as words of 64 bits.
    pub worker: [u64; 8],
}

impl Memory {
    pub fn new(buffers: Vec<Vec<u8>>, dims: &[i64]) -> Self {
        Memory {
            buffers,
            dims: dims.to_vec(),
            tasks: (0, 1),
            worker: [0; 8],
        }
    }
    /// Runs a function on a copy; returns the copy as it was left. Buffers are no further aligned than their elements.
    pub fn run(&self, f: impl FnOnce(Args)) -> Memory {
        let mut m = self.clone();
        let mut moved: Vec<(Vec<u8>, usize)> = Vec::new();
        for buffer in &m.buffers {
            let mut bytes = vec![0; buffer.len() + 32];
            let first = 24 - bytes.as_ptr().addr() % 16;
            bytes[first..first + buffer.len()].copy_from_slice(buffer);
            moved.push((bytes, first));
        }
        let mut table = vec![0usize; 64];
        table[math_fn_offset(MathFn::Exp) as usize / 8] = exp as *const () as usize;
        table[math_fn_offset(MathFn::Pow) as usize / 8] = pow as *const () as usize;
        m.worker[WORKER_RT as usize / 8] = table.as_ptr() as u64;
        let pointers: Vec<*mut u8> = moved
            .iter_mut()
            .map(|(bytes, first)| bytes[*first..].as_mut_ptr())
            .collect();
        f(Args {
            buffers: pointers.as_ptr(),
            dims: m.dims.as_ptr(),
            task_begin: m.tasks.0,
            task_end: m.tasks.1,
            worker: m.worker.as_mut_ptr().cast(),
        });
        for (buffer, (bytes, first)) in m.buffers.iter_mut().zip(&moved) {
            let end = first + buffer.len();
            buffer.copy_from_slice(&bytes[*first..end]);
        }
        m.worker[WORKER_RT as usize / 8] = 0;
        m
    }
}

/// Runs a kernel in the evaluator and in every emitter; `same` compares two results. Returns how
/// many emitters had code.
pub fn agree(kernel: &Kernel, memory: &Memory, same: impl Fn(&Memory, &Memory) -> bool) -> usize {
    agree_in(&emitters(), kernel, memory, same)
}

/// The same in some emitters.
pub fn agree_in(
    emitters: &[Emitter],
    kernel: &Kernel,
    memory: &Memory,
    same: impl Fn(&Memory, &Memory) -> bool,
) -> usize {
    verify::verify(kernel).unwrap_or_else(|e| panic!("{e}"));
    // SAFETY: the kernel is verified, and its test gives it buffers of the right sizes.
    let expected = memory.run(|args| unsafe { eval::run(kernel, args) });
    let mut ran = 0;
    for &emitter in emitters {
        let Some(code) = code(kernel, emitter) else {
            continue;
        };
        ran += 1;
        let mapped = Mapped::new(&code);
        // SAFETY: as above.
        let found = memory.run(|args| unsafe { mapped.call(args) });
        if !same(&expected, &found) {
            let listing = x64::disassemble(&code);
            panic!(
                "{}, {} lanes: {emitter:?} differs\nexpected {:x?}\nfound    {:x?}\n{kernel:?}\n{listing}",
                kernel.name,
                kernel.lanes,
                diff(&expected, &found),
                diff(&found, &expected),
            );
        }
    }
    ran
}

/// Bytes of the first buffer that differs, else the worker.
fn diff(a: &Memory, b: &Memory) -> Vec<u8> {
    a.buffers
        .iter()
        .zip(&b.buffers)
        .find(|(x, y)| x != y)
        .map_or_else(
            || a.worker.iter().flat_map(|w| w.to_le_bytes()).collect(),
            |(x, _)| x.clone(),
        )
}

pub fn bytes_of_f32(v: &[f32]) -> Vec<u8> {
    v.iter().flat_map(|x| x.to_le_bytes()).collect()
}
pub fn f32_of_bytes(b: &[u8]) -> Vec<f32> {
    b.chunks_exact(4)
        .map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]))
        .collect()
}

/// A small generator of numbers, the same on every run.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// In -1..1.
    pub fn f32(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}
