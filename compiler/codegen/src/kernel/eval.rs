//! The evaluator of kernels: slow, obvious, the oracle of the emitters' tests.
//!
//! It runs a kernel on real memory, through the same arguments as machine code, so that one set of
//! buffers serves both. A lane is 64 bits that hold an element's bits in their low part.

use super::{
    Addr, BUFFERS, Class, DIMS, Elem, GCmp, GOp, Inst, Int, Kernel, MathFn, Mem, Reg, TASK_BEGIN,
    TASK_END, VBin, VCmp, VCvt, VRed, VUn, WORKER, WORKER_FAULT_KIND, WORKER_FAULT_LIMIT,
    WORKER_FAULT_OPERAND, WORKER_FAULT_VALUE, WORKER_RT, math_fn_offset,
};

/// Arguments of the kernel ABI.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// The table of operands, each at least as large as the kernel's indices reach.
    pub buffers: *const *mut u8,
    /// Sizes that the kernel reads as parameters.
    pub dims: *const i64,
    /// First task to run.
    pub task_begin: i64,
    /// One past the last.
    pub task_end: i64,
    /// Scratch memory and the fault record, as [`super::WORKER_SCRATCH`] and the offsets behind it say.
    pub worker: *mut u8,
}

/// Runs a kernel.
///
/// # Safety
/// The kernel must have passed [`super::verify::verify`], and every address that it forms from the
/// arguments must be valid for what it does there.
pub unsafe fn run(kernel: &Kernel, args: Args) {
    let mut m = Machine {
        kernel,
        gprs: vec![0; kernel.regs.len()],
        vecs: vec![vec![0; kernel.lanes as usize]; kernel.regs.len()],
    };
    m.gprs[BUFFERS.0 as usize] = args.buffers as i64;
    m.gprs[DIMS.0 as usize] = args.dims as i64;
    m.gprs[TASK_BEGIN.0 as usize] = args.task_begin;
    m.gprs[TASK_END.0 as usize] = args.task_end;
    m.gprs[WORKER.0 as usize] = args.worker as i64;
    // SAFETY: the caller's.
    unsafe { m.body(&kernel.body) };
}

/// Whether the kernel goes on.
#[derive(PartialEq)]
enum Flow {
    On,
    Return,
}

struct Machine<'k> {
    kernel: &'k Kernel,
    gprs: Vec<i64>,
    /// Lanes of vectors; of masks, 0 or 1.
    vecs: Vec<Vec<u64>>,
}

fn f32_of(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}
fn f64_of(bits: u64) -> f64 {
    f64::from_bits(bits)
}
fn i_of(elem: Elem, bits: u64) -> i64 {
    if elem.bytes() == 4 {
        i64::from(bits as i32)
    } else {
        bits as i64
    }
}
fn cut(elem: Elem, v: i64) -> u64 {
    if elem.bytes() == 4 {
        v as u64 & 0xffff_ffff
    } else {
        v as u64
    }
}
fn of_f32(v: f32) -> u64 {
    u64::from(v.to_bits())
}

/// IEEE half to single.
pub fn f16_to_f32(h: u16) -> f32 {
    let sign = u32::from(h & 0x8000) << 16;
    let (exp, man) = (u32::from(h >> 10 & 31), u32::from(h & 0x3ff));
    let bits = match (exp, man) {
        (0, m) => (m as f32 * 2f32.powi(-24)).to_bits(),
        (31, 0) => 0x7f80_0000,
        (31, m) => 0x7fc0_0000 | m << 13,
        (e, m) => (e + 112) << 23 | m << 13,
    };
    f32::from_bits(sign | bits)
}

/// Single to IEEE half, to nearest even.
pub fn f32_to_f16(v: f32) -> u16 {
    let bits = v.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let mag = bits & 0x7fff_ffff;
    let h = if mag > 0x7f80_0000 {
        0x7e00 | (mag >> 13 & 0x3ff)
    } else if mag >= 0x477f_f000 {
        0x7c00
    } else if mag < 0x3880_0000 {
        // The sum's last place is the smallest half.
        (f32::from_bits(mag) + 0.5).to_bits() - 0x3f00_0000
    } else {
        (mag + 0xfff + (mag >> 13 & 1) - 0x3800_0000) >> 13
    };
    sign | h as u16
}

/// Single to bfloat16, to nearest even.
pub fn f32_to_bf16(v: f32) -> u16 {
    let bits = v.to_bits();
    if v.is_nan() {
        return ((bits | 0x0040_0000) >> 16) as u16;
    }
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// # Safety
/// The address must be valid for a read of that size.
unsafe fn load(mem: Mem, at: i64) -> u64 {
    let p = at as *const u8;
    // SAFETY: the caller's; all reads are unaligned.
    unsafe {
        match mem {
            Mem::I8 => cut(Elem::I32, i64::from(p.cast::<i8>().read())),
            Mem::U8 => u64::from(p.read()),
            Mem::I16 => cut(Elem::I32, i64::from(p.cast::<i16>().read_unaligned())),
            Mem::U16 => u64::from(p.cast::<u16>().read_unaligned()),
            Mem::F32 | Mem::I32 | Mem::U32 => u64::from(p.cast::<u32>().read_unaligned()),
            Mem::F64 | Mem::I64 => p.cast::<u64>().read_unaligned(),
            Mem::F16 => of_f32(f16_to_f32(p.cast::<u16>().read_unaligned())),
            Mem::BF16 => u64::from(p.cast::<u16>().read_unaligned()) << 16,
        }
    }
}

/// # Safety
/// The address must be valid for a write of that size.
unsafe fn store(mem: Mem, at: i64, v: u64) {
    let p = at as *mut u8;
    // SAFETY: the caller's; all writes are unaligned.
    unsafe {
        match mem {
            Mem::I8 | Mem::U8 => p.write(v as u8),
            Mem::I16 | Mem::U16 => p.cast::<u16>().write_unaligned(v as u16),
            Mem::F32 | Mem::I32 | Mem::U32 => p.cast::<u32>().write_unaligned(v as u32),
            Mem::F64 | Mem::I64 => p.cast::<u64>().write_unaligned(v),
            Mem::F16 => p.cast::<u16>().write_unaligned(f32_to_f16(f32_of(v))),
            Mem::BF16 => p.cast::<u16>().write_unaligned(f32_to_bf16(f32_of(v))),
        }
    }
}

fn gcmp(cmp: GCmp, a: i64, b: i64) -> bool {
    match cmp {
        GCmp::Eq => a == b,
        GCmp::Ne => a != b,
        GCmp::Lt => a < b,
        GCmp::Le => a <= b,
        GCmp::Gt => a > b,
        GCmp::Ge => a >= b,
    }
}

fn gbin(op: GOp, a: i64, b: i64) -> i64 {
    match op {
        GOp::Add => a.wrapping_add(b),
        GOp::Sub => a.wrapping_sub(b),
        GOp::Mul => a.wrapping_mul(b),
        GOp::And => a & b,
        GOp::Or => a | b,
        GOp::Xor => a ^ b,
        GOp::Shl => a << (b & 63),
        GOp::Sar => a >> (b & 63),
        GOp::Min => a.min(b),
        GOp::Max => a.max(b),
        GOp::FloorDiv if b == 0 => 0,
        GOp::FloorMod if b == 0 => 0,
        GOp::FloorDiv => {
            let q = a.wrapping_div(b);
            let r = a.wrapping_rem(b);
            if r != 0 && (r < 0) != (b < 0) {
                q - 1
            } else {
                q
            }
        }
        GOp::FloorMod => {
            let r = a.wrapping_rem(b);
            if r != 0 && (r < 0) != (b < 0) {
                r + b
            } else {
                r
            }
        }
    }
}

macro_rules! float_bin {
    ($op:expr, $a:expr, $b:expr) => {{
        let (a, b) = ($a, $b);
        match $op {
            VBin::Add => a + b,
            VBin::Sub => a - b,
            VBin::Mul => a * b,
            VBin::Div => a / b,
            VBin::Min => {
                if a < b {
                    a
                } else {
                    b
                }
            }
            _ => {
                if a > b {
                    a
                } else {
                    b
                }
            }
        }
    }};
}

fn bin(op: VBin, elem: Elem, a: u64, b: u64) -> u64 {
    match op {
        VBin::And => return a & b,
        VBin::Or => return a | b,
        VBin::Xor => return a ^ b,
        VBin::AndNot => return cut(elem, (!a & b) as i64),
        _ => {}
    }
    match elem {
        Elem::F32 => of_f32(float_bin!(op, f32_of(a), f32_of(b))),
        Elem::F64 => float_bin!(op, f64_of(a), f64_of(b)).to_bits(),
        Elem::I32 | Elem::I64 => {
            let bits = elem.bytes() * 8;
            let (x, y) = (i_of(elem, a), i_of(elem, b));
            let in_range = (0..i64::from(bits)).contains(&y);
            let v = match op {
                VBin::Add => x.wrapping_add(y),
                VBin::Sub => x.wrapping_sub(y),
                VBin::Mul => x.wrapping_mul(y),
                VBin::Div if y == 0 => 0,
                VBin::Rem if y == 0 => 0,
                VBin::Div => x.wrapping_div(y),
                VBin::Rem => x.wrapping_rem(y),
                VBin::Min => x.min(y),
                VBin::Max => x.max(y),
                VBin::Shl if in_range => x << y,
                VBin::Shr if in_range => (cut(elem, x) >> y) as i64,
                VBin::Sar if in_range => x >> y,
                VBin::Sar => x >> 63,
                _ => 0,
            };
            cut(elem, v)
        }
    }
}

fn un(op: VUn, elem: Elem, a: u64) -> u64 {
    macro_rules! float {
        ($v:expr) => {
            match op {
                VUn::Neg => -$v,
                VUn::Abs => $v.abs(),
                VUn::Sqrt => $v.sqrt(),
                VUn::Floor => $v.floor(),
                VUn::Ceil => $v.ceil(),
                VUn::Trunc => $v.trunc(),
                _ => $v.round_ties_even(),
            }
        };
    }
    match elem {
        Elem::F32 => of_f32(float!(f32_of(a))),
        Elem::F64 => float!(f64_of(a)).to_bits(),
        _ => {
            let v = i_of(elem, a);
            let r = match op {
                VUn::Neg => v.wrapping_neg(),
                VUn::Abs => v.wrapping_abs(),
                _ => !v,
            };
            cut(elem, r)
        }
    }
}

fn cmp(op: VCmp, elem: Elem, a: u64, b: u64) -> bool {
    macro_rules! order {
        ($a:expr, $b:expr) => {
            match op {
                VCmp::Eq => $a == $b,
                VCmp::Ne => $a != $b,
                VCmp::Lt => $a < $b,
                VCmp::Le => $a <= $b,
                VCmp::Gt => $a > $b,
                VCmp::Ge => $a >= $b,
            }
        };
    }
    match elem {
        Elem::F32 => order!(f32_of(a), f32_of(b)),
        Elem::F64 => order!(f64_of(a), f64_of(b)),
        _ => order!(i_of(elem, a), i_of(elem, b)),
    }
}

fn convert(how: VCvt, from: Elem, to: Elem, v: u64) -> u64 {
    let float = match from {
        Elem::F32 => f64::from(f32_of(v)),
        _ => f64_of(v),
    };
    let float = if how == VCvt::NearestInRange {
        float.round_ties_even()
    } else {
        float
    };
    match (from.is_float(), to) {
        _ if how == VCvt::Bits || from == to => v,
        (true, Elem::F32) => of_f32(float as f32),
        (true, Elem::F64) => float.to_bits(),
        (true, Elem::I32) => cut(to, i64::from(float as i32)),
        (true, Elem::I64) => float as i64 as u64,
        (false, Elem::F32) => of_f32(i_of(from, v) as f32),
        (false, Elem::F64) => (i_of(from, v) as f64).to_bits(),
        (false, _) => cut(to, i_of(from, v)),
    }
}

impl Machine<'_> {
    fn g(&self, r: Reg) -> i64 {
        self.gprs[r.0 as usize]
    }
    fn int(&self, i: Int) -> i64 {
        match i {
            Int::Reg(r) => self.g(r),
            Int::Imm(v) => v,
        }
    }
    fn addr(&self, a: Addr) -> i64 {
        let index = a
            .index
            .map_or(0, |(r, s)| self.g(r).wrapping_mul(i64::from(s)));
        self.g(a.base)
            .wrapping_add(index)
            .wrapping_add(i64::from(a.disp))
    }
    fn v(&self, r: Reg, lane: usize) -> u64 {
        self.vecs[r.0 as usize][lane]
    }
    fn on(&self, mask: Option<Reg>, lane: usize) -> bool {
        mask.is_none_or(|m| self.v(m, lane) != 0)
    }
    fn elem(&self, r: Reg) -> Elem {
        match self.kernel.class(r) {
            Class::Vec(e) => e,
            _ => Elem::I32,
        }
    }
    fn set(&mut self, dst: Reg, f: impl Fn(&Self, usize) -> u64) {
        let lanes = (0..self.kernel.lanes as usize)
            .map(|l| f(self, l))
            .collect();
        self.vecs[dst.0 as usize] = lanes;
    }

    unsafe fn body(&mut self, body: &[Inst]) -> Flow {
        for inst in body {
            // SAFETY: the caller's.
            if unsafe { self.inst(inst) } == Flow::Return {
                return Flow::Return;
            }
        }
        Flow::On
    }

    unsafe fn inst(&mut self, inst: &Inst) -> Flow {
        match *inst {
            Inst::GSet { dst, src } => self.gprs[dst.0 as usize] = self.int(src),
            Inst::GBin { op, dst, a, b } => {
                self.gprs[dst.0 as usize] = gbin(op, self.g(a), self.int(b));
            }
            Inst::GLoad { dst, mem, addr } => {
                // SAFETY: the caller's.
                let bits = unsafe { load(mem, self.addr(addr)) };
                self.gprs[dst.0 as usize] = match mem {
                    Mem::U32 => bits as i64,
                    _ => i_of(mem.elem(), bits),
                };
            }
            Inst::GFromLane { dst, src } => {
                self.gprs[dst.0 as usize] = i_of(self.elem(src), self.v(src, 0));
            }
            Inst::VConst { dst, bits } => {
                let bits = cut(self.elem(dst), bits as i64);
                self.set(dst, |_, _| bits);
            }
            Inst::VMove { dst, src } => self.set(dst, |m, l| m.v(src, l)),
            Inst::VLoad {
                dst,
                mem,
                addr,
                mask,
            } => {
                let at = self.addr(addr);
                self.set(dst, |m, l| {
                    if m.on(mask, l) {
                        // SAFETY: the caller's.
                        unsafe { load(mem, at + l as i64 * i64::from(mem.bytes())) }
                    } else {
                        0
                    }
                });
            }
            Inst::VSplat { dst, mem, addr } => {
                // SAFETY: the caller's.
                let bits = unsafe { load(mem, self.addr(addr)) };
                self.set(dst, |_, _| bits);
            }
            Inst::VGather {
                dst,
                mem,
                base,
                index,
                mask,
            } => {
                let (base, elem) = (self.g(base), self.elem(index));
                self.set(dst, |m, l| {
                    if m.on(mask, l) {
                        let i = i_of(elem, m.v(index, l));
                        // SAFETY: the caller's.
                        unsafe { load(mem, base + i * i64::from(mem.bytes())) }
                    } else {
                        0
                    }
                });
            }
            Inst::VStore {
                src,
                mem,
                addr,
                mask,
            } => {
                let at = self.addr(addr);
                for l in 0..self.kernel.lanes as usize {
                    if self.on(mask, l) {
                        let to = at + l as i64 * i64::from(mem.bytes());
                        // SAFETY: the caller's.
                        unsafe { store(mem, to, self.v(src, l)) };
                    }
                }
            }
            Inst::VFromGpr { dst, src } => {
                let (v, elem) = (self.g(src), self.elem(dst));
                self.set(dst, |_, _| cut(elem, v));
            }
            Inst::VIota { dst, base, step } => {
                let (v, elem) = (self.g(base), self.elem(dst));
                self.set(dst, |_, l| {
                    cut(elem, v.wrapping_add((l as i64).wrapping_mul(step)))
                });
            }
            Inst::VUn { op, dst, a } => {
                let elem = self.elem(dst);
                self.set(dst, |m, l| un(op, elem, m.v(a, l)));
            }
            Inst::VBin { op, dst, a, b } => {
                let elem = self.elem(dst);
                self.set(dst, |m, l| bin(op, elem, m.v(a, l), m.v(b, l)));
            }
            Inst::VFma { dst, a, b, c } => self.fma(false, dst, a, b, c),
            Inst::VFnma { dst, a, b, c } => self.fma(true, dst, a, b, c),
            Inst::VCmp { op, dst, a, b } => {
                let elem = self.elem(a);
                self.set(dst, |m, l| u64::from(cmp(op, elem, m.v(a, l), m.v(b, l))));
            }
            Inst::VSelect { dst, mask, a, b } => self.set(dst, |m, l| {
                if m.v(mask, l) != 0 {
                    m.v(a, l)
                } else {
                    m.v(b, l)
                }
            }),
            Inst::VCvt { how, dst, src } => {
                let (from, to) = (self.elem(src), self.elem(dst));
                self.set(dst, |m, l| convert(how, from, to, m.v(src, l)));
            }
            Inst::VReduce { op, dst, src } => self.reduce(op, dst, src),
            Inst::VMath { func, dst, a, b } => {
                // SAFETY: the caller's.
                unsafe { self.math(func, dst, a, b) }
            }
            Inst::MCount { dst, count } => {
                let n = self.g(count);
                self.set(dst, |_, l| u64::from((l as i64) < n));
            }
            Inst::MAnd { dst, a, b } => self.set(dst, |m, l| m.v(a, l) & m.v(b, l)),
            Inst::MOr { dst, a, b } => self.set(dst, |m, l| m.v(a, l) | m.v(b, l)),
            Inst::MNot { dst, a } => self.set(dst, |m, l| 1 - m.v(a, l)),
            Inst::Loop {
                var,
                from,
                to,
                step,
                ref body,
            } => {
                let (mut i, end) = (self.int(from), self.int(to));
                while i < end {
                    self.gprs[var.0 as usize] = i;
                    // SAFETY: the caller's.
                    if unsafe { self.body(body) } == Flow::Return {
                        return Flow::Return;
                    }
                    i += step;
                }
            }
            Inst::If {
                cmp,
                a,
                b,
                ref then,
                ref otherwise,
            } => {
                let taken = if gcmp(cmp, self.g(a), self.int(b)) {
                    then
                } else {
                    otherwise
                };
                // SAFETY: the caller's.
                return unsafe { self.body(taken) };
            }
            Inst::Prefetch { .. } => {}
            Inst::Fault {
                kind,
                operand,
                value,
                limit,
            } => {
                let w = self.g(WORKER);
                // SAFETY: the caller's.
                unsafe {
                    if load(Mem::I32, w + i64::from(WORKER_FAULT_KIND)) == 0 {
                        let put = |mem, field: i32, v: i64| {
                            store(mem, w + i64::from(field), v as u64);
                        };
                        put(Mem::I32, WORKER_FAULT_KIND, i64::from(kind));
                        put(Mem::I32, WORKER_FAULT_OPERAND, i64::from(operand));
                        put(Mem::I64, WORKER_FAULT_VALUE, self.g(value));
                        put(Mem::I64, WORKER_FAULT_LIMIT, self.int(limit));
                    }
                }
                return Flow::Return;
            }
        }
        Flow::On
    }

    fn fma(&mut self, negate: bool, dst: Reg, a: Reg, b: Reg, c: Reg) {
        let elem = self.elem(dst);
        self.set(dst, |m, l| {
            let (x, y, z) = (m.v(a, l), m.v(b, l), m.v(c, l));
            match elem {
                Elem::F32 => {
                    let x = if negate { -f32_of(x) } else { f32_of(x) };
                    of_f32(x.mul_add(f32_of(y), f32_of(z)))
                }
                Elem::F64 => {
                    let x = if negate { -f64_of(x) } else { f64_of(x) };
                    x.mul_add(f64_of(y), f64_of(z)).to_bits()
                }
                _ => {
                    let p = bin(VBin::Mul, elem, x, y);
                    let op = if negate { VBin::Sub } else { VBin::Add };
                    bin(op, elem, z, p)
                }
            }
        });
    }

    /// Pairs lanes at half the distance each time, as the emitters do.
    fn reduce(&mut self, op: VRed, dst: Reg, src: Reg) {
        let elem = self.elem(dst);
        let op = match op {
            VRed::Add => VBin::Add,
            VRed::Mul => VBin::Mul,
            VRed::Min => VBin::Min,
            VRed::Max => VBin::Max,
        };
        let mut x = self.vecs[src.0 as usize].clone();
        let mut half = x.len() / 2;
        while half > 0 {
            x = (0..x.len())
                .map(|l| bin(op, elem, x[l], x[l ^ half]))
                .collect();
            half /= 2;
        }
        // Minimum and maximum of floats do not commute: the first lane speaks for all.
        let first = x.first().copied().unwrap_or(0);
        self.vecs[dst.0 as usize] = vec![first; x.len()];
    }

    unsafe fn math(&mut self, func: MathFn, dst: Reg, a: Reg, b: Option<Reg>) {
        let elem = self.elem(dst);
        let wide = |v: u64| match elem {
            Elem::F32 => f64::from(f32_of(v)),
            _ => f64_of(v),
        };
        let x = wide(self.v(a, 0));
        // SAFETY: the worker points at a table of such functions.
        let r = unsafe {
            let table = load(Mem::I64, self.g(WORKER) + i64::from(WORKER_RT)) as i64;
            let entry = load(Mem::I64, table + i64::from(math_fn_offset(func)));
            match b {
                Some(b) => {
                    let f: extern "C" fn(f64, f64) -> f64 = std::mem::transmute(entry as usize);
                    f(x, wide(self.v(b, 0)))
                }
                None => {
                    let f: extern "C" fn(f64) -> f64 = std::mem::transmute(entry as usize);
                    f(x)
                }
            }
        };
        let bits = match elem {
            Elem::F32 => of_f32(r as f32),
            _ => r.to_bits(),
        };
        self.set(dst, |_, _| bits);
    }
}
