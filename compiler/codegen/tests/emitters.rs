//! Every instruction through every emitter, against the evaluator.

mod support;

use lapidary_codegen::kernel::*;
use support::{
    ELEMS, Emitter, LANES, Memory, Numbers, agree, agree_in, bytes_of_f32, f32_of_bytes, whole,
};

/// Vectors that a test of one instruction runs over.
const ROWS: i64 = 12;

/// A kernel that walks `ROWS` vectors: buffer 0 and 1 are read, 2 is written.
struct Rows {
    k: Kernel,
    pointers: [Reg; 3],
    i: Reg,
    body: Vec<Inst>,
}

impl Rows {
    fn new(name: &str, lanes: u32) -> Self {
        let mut k = Kernel::new(name, lanes);
        let pointers = [0; 3].map(|_| k.reg(Class::Gpr));
        let i = k.reg(Class::Gpr);
        for (n, &p) in pointers.iter().enumerate() {
            k.body.push(Inst::GLoad {
                dst: p,
                mem: Mem::I64,
                addr: Addr::base(BUFFERS).with_disp(8 * n as i32),
            });
        }
        Rows {
            k,
            pointers,
            i,
            body: Vec::new(),
        }
    }
    fn vec(&mut self, elem: Elem) -> Reg {
        self.k.reg(Class::Vec(elem))
    }
    fn mask(&mut self) -> Reg {
        self.k.reg(Class::Mask)
    }
    fn gpr(&mut self) -> Reg {
        self.k.reg(Class::Gpr)
    }
    /// The address of the present row of a buffer.
    fn row(&mut self, buffer: usize, mem: Mem) -> Addr {
        let bytes = i64::from(self.k.lanes * mem.bytes());
        let offset = self.gpr();
        self.body.push(Inst::GBin {
            op: GOp::Mul,
            dst: offset,
            a: self.i,
            b: Int::Imm(bytes),
        });
        Addr {
            base: self.pointers[buffer],
            index: Some((offset, 1)),
            disp: 0,
        }
    }
    fn load(&mut self, buffer: usize, mem: Mem) -> Reg {
        let addr = self.row(buffer, mem);
        let dst = self.vec(mem.elem());
        self.body.push(Inst::VLoad {
            dst,
            mem,
            addr,
            mask: None,
        });
        dst
    }
    fn store(&mut self, src: Reg, mem: Mem) {
        let addr = self.row(2, mem);
        self.body.push(Inst::VStore {
            src,
            mem,
            addr,
            mask: None,
        });
    }
    /// Ones and zeros of a mask.
    fn store_mask(&mut self, mask: Reg) {
        let (one, zero, r) = (
            self.vec(Elem::I32),
            self.vec(Elem::I32),
            self.vec(Elem::I32),
        );
        self.body.push(Inst::VConst { dst: one, bits: 1 });
        self.body.push(Inst::VConst { dst: zero, bits: 0 });
        self.body.push(Inst::VSelect {
            dst: r,
            mask,
            a: one,
            b: zero,
        });
        self.store(r, Mem::I32);
    }
    fn push(&mut self, inst: Inst) {
        self.body.push(inst);
    }
    fn done(mut self) -> Kernel {
        self.k.body.push(Inst::Loop {
            var: self.i,
            from: Int::Imm(0),
            to: Int::Imm(ROWS),
            step: 1,
            body: self.body,
        });
        self.k
    }
}

/// Interesting values of an element type, cyclic, as bytes.
fn values(mem: Mem, count: usize, seed: u64) -> Vec<u8> {
    let mut n = Numbers(seed);
    let f: [f64; 24] = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        1.5,
        2.5,
        -2.5,
        -3.75,
        7.25,
        100.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        2147483647.0,
        2147483648.0,
        -2147483649.0,
        9.3e18,
        -9.3e18,
        1e-40,
        65519.0,
        65520.0,
        1e-5,
        3.0e-8,
    ];
    let i: [i64; 14] = [
        0,
        1,
        -1,
        2,
        3,
        31,
        32,
        63,
        64,
        -5,
        i32::MAX as i64,
        i32::MIN as i64,
        i64::MAX,
        i64::MIN,
    ];
    (0..count)
        .flat_map(|_| {
            let r = n.next();
            let fv = if r.is_multiple_of(3) {
                f64::from(n.f32()) * 10.0
            } else {
                f[(r >> 8) as usize % f.len()]
            };
            let iv = if r.is_multiple_of(3) {
                (n.next() as i64) >> (r >> 8 & 63)
            } else {
                i[(r >> 8) as usize % i.len()]
            };
            let bytes: Vec<u8> = match mem {
                Mem::F32 => (fv as f32).to_le_bytes().to_vec(),
                Mem::F64 => fv.to_le_bytes().to_vec(),
                Mem::F16 => eval::f32_to_f16(fv as f32).to_le_bytes().to_vec(),
                Mem::BF16 => eval::f32_to_bf16(fv as f32).to_le_bytes().to_vec(),
                _ => iv.to_le_bytes()[..mem.bytes() as usize].to_vec(),
            };
            bytes
        })
        .collect()
}

/// Buffers for a [`Rows`] kernel; the third is filled with a pattern.
fn memory(lanes: u32, a: Mem, b: Mem) -> Memory {
    let n = (lanes * ROWS as u32) as usize;
    Memory::new(
        vec![values(a, n, 1), values(b, n, 2), vec![0xa5; n * 8 + 64]],
        &[],
    )
}

/// Equal bytes, but that one NaN is as good as another.
fn same(mem: Mem) -> impl Fn(&Memory, &Memory) -> bool {
    move |x, y| {
        x.worker == y.worker
            && x.buffers.iter().zip(&y.buffers).all(|(p, q)| {
                let size = mem.bytes() as usize;
                p.chunks(size).zip(q.chunks(size)).all(|(s, t)| {
                    s == t
                        || match mem {
                            Mem::F32 => {
                                let f = |b: &[u8]| f32_of_bytes(b)[0];
                                f(s).is_nan() && f(t).is_nan()
                            }
                            Mem::F64 => {
                                let f = |b: &[u8]| {
                                    b.try_into().is_ok_and(|b| f64::from_le_bytes(b).is_nan())
                                };
                                f(s) && f(t)
                            }
                            Mem::F16 => {
                                let f =
                                    |b: &[u8]| u16::from_le_bytes([b[0], b[1]]) & 0x7fff > 0x7c00;
                                f(s) && f(t)
                            }
                            Mem::BF16 => {
                                let f =
                                    |b: &[u8]| u16::from_le_bytes([b[0], b[1]]) & 0x7fff > 0x7f80;
                                f(s) && f(t)
                            }
                            _ => false,
                        }
                })
            })
    }
}

fn fits(lanes: u32, elem: Elem) -> bool {
    lanes * elem.bytes() <= 64
}

/// All that x64 emitters must have code for, where the vectors fit the set.
fn check(kernel: &Kernel, memory: &Memory, out: Mem) {
    let ran = agree(kernel, memory, same(out));
    let bytes = kernel
        .regs
        .iter()
        .map(|c| match c {
            Class::Vec(e) => kernel.lanes * e.bytes(),
            _ => 0,
        })
        .max()
        .unwrap_or(0);
    let expected = support::emitters()
        .iter()
        .filter(|e| match e {
            Emitter::X64(isa) => kernel.lanes > 1 && bytes * 8 <= isa.vector_bits(),
            _ => lapidary_codegen::clif::supports(kernel),
        })
        .count();
    assert_eq!(ran, expected, "{} at {} lanes", kernel.name, kernel.lanes);
}

#[test]
fn binary_operations_agree() {
    use VBin::*;
    for lanes in LANES {
        for elem in ELEMS.into_iter().filter(|&e| fits(lanes, e)) {
            for op in [
                Add, Sub, Mul, Div, Rem, Min, Max, And, Or, Xor, AndNot, Shl, Shr, Sar,
            ] {
                let ok = match op {
                    Div => elem.is_float() || lanes == 1,
                    Rem => !elem.is_float() && lanes == 1,
                    Shl | Shr | Sar => !elem.is_float(),
                    _ => true,
                };
                if !ok {
                    continue;
                }
                // Operands in registers, in memory, the same, and constant; result over an operand.
                for form in 0..6 {
                    let mut r = Rows::new(&format!("{op:?}_{elem:?}_{form}").to_lowercase(), lanes);
                    let mem = whole(elem);
                    let a = r.load(0, mem);
                    let b = r.load(1, mem);
                    let dst = match form {
                        4 => a,
                        5 => b,
                        _ => r.vec(elem),
                    };
                    let c = r.vec(elem);
                    let bits = if elem.is_float() {
                        if elem == Elem::F32 {
                            u64::from(1.5f32.to_bits())
                        } else {
                            1.5f64.to_bits()
                        }
                    } else {
                        3
                    };
                    r.push(Inst::VConst { dst: c, bits });
                    let (a, b) = match form {
                        1 => (a, c),
                        2 => (c, b),
                        3 => (a, a),
                        _ => (a, b),
                    };
                    r.push(Inst::VBin { op, dst, a, b });
                    r.store(dst, mem);
                    check(&r.done(), &memory(lanes, mem, mem), mem);
                }
            }
        }
    }
}

#[test]
fn unary_operations_agree() {
    use VUn::*;
    for lanes in LANES {
        for elem in ELEMS.into_iter().filter(|&e| fits(lanes, e)) {
            for op in [Neg, Abs, Sqrt, Floor, Ceil, Trunc, Round, Not] {
                let float_only = matches!(op, Sqrt | Floor | Ceil | Trunc | Round);
                if (float_only && !elem.is_float()) || (op == Not && elem.is_float()) {
                    continue;
                }
                let mem = whole(elem);
                let mut r = Rows::new(&format!("{op:?}_{elem:?}").to_lowercase(), lanes);
                let a = r.load(0, mem);
                let dst = r.vec(elem);
                r.push(Inst::VUn { op, dst, a });
                r.push(Inst::VUn {
                    op: Neg,
                    dst,
                    a: dst,
                });
                r.store(dst, mem);
                check(&r.done(), &memory(lanes, mem, mem), mem);
            }
        }
    }
}

#[test]
fn fused_products_agree_in_every_form() {
    for lanes in LANES {
        for elem in ELEMS.into_iter().filter(|&e| fits(lanes, e)) {
            let mem = whole(elem);
            for negate in [false, true] {
                // Which of a, b, c, and two constants each operand is, and the result.
                for form in 0..5 * 5 * 5 * 4 {
                    let mut r = Rows::new("fma", lanes);
                    let x = r.load(0, mem);
                    let y = r.load(1, mem);
                    let z = r.vec(elem);
                    r.push(Inst::VBin {
                        op: VBin::Sub,
                        dst: z,
                        a: x,
                        b: y,
                    });
                    let (c, d) = (r.vec(elem), r.vec(elem));
                    let (one, two) = match elem {
                        Elem::F32 => (u64::from(0.5f32.to_bits()), u64::from(3f32.to_bits())),
                        Elem::F64 => (0.5f64.to_bits(), 3f64.to_bits()),
                        _ => (5, 7),
                    };
                    r.push(Inst::VConst { dst: c, bits: one });
                    r.push(Inst::VConst { dst: d, bits: two });
                    let all = [x, y, z, c, d];
                    let (a, b, e) = (all[form % 5], all[form / 5 % 5], all[form / 25 % 5]);
                    let fresh = r.vec(elem);
                    let dst = [x, y, z, fresh][form / 125];
                    let inst = if negate {
                        Inst::VFnma { dst, a, b, c: e }
                    } else {
                        Inst::VFma { dst, a, b, c: e }
                    };
                    r.push(inst);
                    r.store(dst, mem);
                    if lanes == 4 || form % 7 == 0 || form < 25 {
                        check(&r.done(), &memory(lanes, mem, mem), mem);
                    }
                }
            }
        }
    }
}

#[test]
fn comparisons_and_masks_agree() {
    use VCmp::*;
    for lanes in LANES {
        for elem in ELEMS.into_iter().filter(|&e| fits(lanes, e)) {
            for op in [Eq, Ne, Lt, Le, Gt, Ge] {
                let mem = whole(elem);
                let mut r = Rows::new(&format!("{op:?}_{elem:?}").to_lowercase(), lanes);
                let a = r.load(0, mem);
                let b = r.load(1, mem);
                let (m, n, both, either, not) = (r.mask(), r.mask(), r.mask(), r.mask(), r.mask());
                r.push(Inst::VCmp { op, dst: m, a, b });
                r.push(Inst::VCmp {
                    op: Gt,
                    dst: n,
                    a: b,
                    b: a,
                });
                r.push(Inst::MAnd {
                    dst: both,
                    a: m,
                    b: n,
                });
                r.push(Inst::MOr {
                    dst: either,
                    a: m,
                    b: n,
                });
                r.push(Inst::MNot { dst: not, a: both });
                r.push(Inst::MAnd {
                    dst: not,
                    a: not,
                    b: either,
                });
                let s = r.vec(elem);
                r.push(Inst::VSelect {
                    dst: s,
                    mask: not,
                    a,
                    b,
                });
                let zero = r.vec(elem);
                r.push(Inst::VConst { dst: zero, bits: 0 });
                r.push(Inst::VSelect {
                    dst: s,
                    mask: m,
                    a: s,
                    b: zero,
                });
                r.push(Inst::VSelect {
                    dst: s,
                    mask: n,
                    a: zero,
                    b: s,
                });
                r.store(s, mem);
                check(&r.done(), &memory(lanes, mem, mem), mem);

                let mut r = Rows::new("mask", lanes);
                let a = r.load(0, mem);
                let c = r.vec(elem);
                r.push(Inst::VConst { dst: c, bits: 1 });
                let m = r.mask();
                r.push(Inst::VCmp {
                    op,
                    dst: m,
                    a: c,
                    b: a,
                });
                let moved = r.mask();
                r.push(Inst::VMove { dst: moved, src: m });
                r.store_mask(moved);
                check(&r.done(), &memory(lanes, mem, mem), mem);
            }
        }
    }
}

/// Instructions before AVX want operands in memory at multiples of 16 bytes; buffers are anywhere.
#[test]
fn vectors_are_read_at_any_address_without_avx() {
    use VCmp::*;
    let mem = Mem::F32;
    let baseline = [Emitter::ClifBaseline];
    for op in [Eq, Ne, Lt, Le, Gt, Ge] {
        for loaded_first in [false, true] {
            let mut r = Rows::new(&format!("{op:?}").to_lowercase(), 4);
            let c = r.vec(Elem::F32);
            let bits = u64::from(0.5f32.to_bits());
            r.push(Inst::VConst { dst: c, bits });
            let x = r.load(0, mem);
            let (a, b) = if loaded_first { (x, c) } else { (c, x) };
            let m = r.mask();
            r.push(Inst::VCmp { op, dst: m, a, b });
            r.store_mask(m);
            let memory = memory(4, mem, mem);
            assert_eq!(agree_in(&baseline, &r.done(), &memory, same(mem)), 1);
        }
    }
    for op in [VBin::Add, VBin::Mul, VBin::Min, VBin::Max, VBin::And] {
        let mut r = Rows::new(&format!("{op:?}").to_lowercase(), 4);
        let a = r.load(0, mem);
        let b = r.load(1, mem);
        let dst = r.vec(Elem::F32);
        r.push(Inst::VBin { op, dst, a, b });
        r.store(dst, mem);
        let memory = memory(4, mem, mem);
        assert_eq!(agree_in(&baseline, &r.done(), &memory, same(mem)), 1);
    }
}

#[test]
fn conversions_agree() {
    for lanes in LANES {
        for from in ELEMS.into_iter().filter(|&e| fits(lanes, e)) {
            for to in ELEMS.into_iter().filter(|&e| fits(lanes, e)) {
                for how in [VCvt::Bits, VCvt::Value, VCvt::NearestInRange] {
                    let ok = match how {
                        VCvt::Bits => from.bytes() == to.bytes(),
                        VCvt::Value => true,
                        VCvt::NearestInRange => from.is_float() && !to.is_float(),
                    };
                    if !ok {
                        continue;
                    }
                    let name = format!("{how:?}_{from:?}_{to:?}").to_lowercase();
                    let mut r = Rows::new(&name, lanes);
                    let src = r.load(0, whole(from));
                    let dst = r.vec(to);
                    r.push(Inst::VCvt { how, dst, src });
                    r.store(dst, whole(to));
                    let mut m = memory(lanes, whole(from), whole(from));
                    if how == VCvt::NearestInRange {
                        let mut n = Numbers(9);
                        m.buffers[0] = (0..lanes * ROWS as u32)
                            .flat_map(|_| {
                                let v = n.f32() * 1e6;
                                match from {
                                    Elem::F32 => v.to_le_bytes().to_vec(),
                                    _ => f64::from(v).to_le_bytes().to_vec(),
                                }
                            })
                            .collect();
                    }
                    check(&r.done(), &m, whole(to));
                }
            }
        }
    }
}

const MEMS: [Mem; 11] = [
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

#[test]
fn memory_types_agree() {
    for lanes in LANES {
        for mem in MEMS.into_iter().filter(|m| fits(lanes, m.elem())) {
            let mut r = Rows::new(&format!("load_{mem:?}").to_lowercase(), lanes);
            let v = r.load(0, mem);
            r.store(v, whole(mem.elem()));
            check(&r.done(), &memory(lanes, mem, mem), whole(mem.elem()));

            let mut r = Rows::new(&format!("store_{mem:?}").to_lowercase(), lanes);
            let v = r.load(0, whole(mem.elem()));
            r.store(v, mem);
            let m = memory(lanes, whole(mem.elem()), mem);
            check(&r.done(), &m, mem);

            let mut r = Rows::new(&format!("splat_{mem:?}").to_lowercase(), lanes);
            let addr = r.row(0, mem);
            let v = r.vec(mem.elem());
            r.push(Inst::VSplat {
                dst: v,
                mem,
                addr: addr.with_disp(0),
            });
            r.store(v, whole(mem.elem()));
            check(&r.done(), &memory(lanes, mem, mem), whole(mem.elem()));
        }
    }
}

#[test]
fn masked_memory_stays_within_the_mask() {
    for lanes in LANES {
        for mem in MEMS.into_iter().filter(|m| fits(lanes, m.elem())) {
            // Rows 0..12 have -1, 0, 1, ... lanes on; more than there are for the short ones.
            let mut r = Rows::new(&format!("masked_{mem:?}").to_lowercase(), lanes);
            let (count, mask, v) = (r.gpr(), r.mask(), r.vec(mem.elem()));
            let i = r.i;
            r.push(Inst::GBin {
                op: GOp::Mul,
                dst: count,
                a: i,
                b: Int::Imm(if lanes == 16 { 2 } else { 1 }),
            });
            r.push(Inst::GBin {
                op: GOp::Sub,
                dst: count,
                a: count,
                b: Int::Imm(1),
            });
            r.push(Inst::MCount { dst: mask, count });
            let from = r.row(0, mem);
            r.push(Inst::VLoad {
                dst: v,
                mem,
                addr: from,
                mask: Some(mask),
            });
            r.store(v, whole(mem.elem()));
            check(&r.k_with(), &memory(lanes, mem, mem), whole(mem.elem()));

            let all = r.load(0, mem);
            let to = r.row(2, mem);
            r.push(Inst::VStore {
                src: all,
                mem,
                addr: to,
                mask: Some(mask),
            });
            check(&r.done(), &memory(lanes, mem, mem), mem);
        }
    }
}

impl Rows {
    /// The kernel as it stands.
    fn k_with(&self) -> Kernel {
        let mut k = self.k.clone();
        k.body.push(Inst::Loop {
            var: self.i,
            from: Int::Imm(0),
            to: Int::Imm(ROWS),
            step: 1,
            body: self.body.clone(),
        });
        k
    }
}

#[test]
fn a_masked_load_at_the_end_of_a_page_does_not_fault() {
    for lanes in [8, 16] {
        for mem in [Mem::F32, Mem::U8, Mem::F16, Mem::I32] {
            let mut k = Kernel::new("edge", lanes);
            let (p, q, count) = (k.reg(Class::Gpr), k.reg(Class::Gpr), k.reg(Class::Gpr));
            let (m, v) = (k.reg(Class::Mask), k.reg(Class::Vec(mem.elem())));
            k.body = vec![
                Inst::GLoad {
                    dst: p,
                    mem: Mem::I64,
                    addr: Addr::base(DIMS),
                },
                Inst::GLoad {
                    dst: q,
                    mem: Mem::I64,
                    addr: Addr::base(BUFFERS),
                },
                Inst::GSet {
                    dst: count,
                    src: Int::Imm(3),
                },
                Inst::MCount { dst: m, count },
                Inst::VLoad {
                    dst: v,
                    mem,
                    addr: Addr::base(p),
                    mask: Some(m),
                },
                Inst::VStore {
                    src: v,
                    mem,
                    addr: Addr::base(p),
                    mask: Some(m),
                },
                Inst::VStore {
                    src: v,
                    mem,
                    addr: Addr::base(q),
                    mask: None,
                },
            ];
            // Two pages of a file that has one: touching the second is fatal.
            let path = std::env::temp_dir().join(format!("lapidary-edge-{}", std::process::id()));
            std::fs::write(&path, vec![3u8; 4096]).unwrap();
            let file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .unwrap();
            // SAFETY: nobody else knows the file.
            let mut pages = unsafe {
                memmap2::MmapOptions::new()
                    .len(8192)
                    .map_mut(&file)
                    .unwrap()
            };
            std::fs::remove_file(&path).unwrap();
            let end = pages.as_mut_ptr() as i64 + 4096;
            let start = end - 3 * i64::from(mem.bytes());
            let memory = Memory::new(vec![vec![0; 64]], &[start]);
            agree(&k, &memory, |a, b| a.buffers == b.buffers);
            drop(pages);
        }
    }
}

#[test]
fn gathers_agree() {
    for lanes in LANES {
        for mem in MEMS.into_iter().filter(|m| fits(lanes, m.elem())) {
            for index in [Elem::I32, Elem::I64] {
                if !fits(lanes, index) {
                    continue;
                }
                for masked in [false, true] {
                    let name = format!("gather_{mem:?}_{index:?}_{masked}").to_lowercase();
                    let mut r = Rows::new(&name, lanes);
                    let at = r.load(1, whole(index));
                    let mask = r.mask();
                    let count = r.i;
                    r.push(Inst::MCount { dst: mask, count });
                    let base = r.pointers[0];
                    let v = if mem.elem() == index {
                        at
                    } else {
                        r.vec(mem.elem())
                    };
                    r.push(Inst::VGather {
                        dst: v,
                        mem,
                        base,
                        index: at,
                        mask: masked.then_some(mask),
                    });
                    r.store(v, whole(mem.elem()));
                    let n = lanes * ROWS as u32;
                    let mut m = memory(lanes, mem, mem);
                    let mut numbers = Numbers(4);
                    m.buffers[1] = (0..n)
                        .flat_map(|_| {
                            let i = numbers.next() % u64::from(n);
                            i.to_le_bytes()[..index.bytes() as usize].to_vec()
                        })
                        .collect();
                    check(&r.done(), &m, whole(mem.elem()));
                }
            }
        }
    }
}

#[test]
fn lanes_and_general_registers_exchange() {
    for lanes in LANES {
        for elem in [Elem::I32, Elem::I64]
            .into_iter()
            .filter(|&e| fits(lanes, e))
        {
            let mut r = Rows::new("exchange", lanes);
            let (v, g, w, x) = (r.vec(elem), r.gpr(), r.vec(elem), r.vec(elem));
            let i = r.i;
            r.push(Inst::VIota {
                dst: v,
                base: i,
                step: -3,
            });
            r.push(Inst::GFromLane { dst: g, src: v });
            r.push(Inst::GBin {
                op: GOp::Sub,
                dst: g,
                a: g,
                b: Int::Imm(20),
            });
            r.push(Inst::VFromGpr { dst: w, src: g });
            r.push(Inst::VBin {
                op: VBin::Mul,
                dst: x,
                a: v,
                b: w,
            });
            r.push(Inst::GFromLane { dst: g, src: x });
            r.push(Inst::VFromGpr { dst: w, src: g });
            r.push(Inst::VBin {
                op: VBin::Add,
                dst: x,
                a: x,
                b: w,
            });
            r.store(x, whole(elem));
            check(
                &r.done(),
                &memory(lanes, whole(elem), whole(elem)),
                whole(elem),
            );
        }
    }
}

#[test]
fn reductions_agree() {
    for lanes in LANES {
        for elem in ELEMS.into_iter().filter(|&e| fits(lanes, e)) {
            for op in [VRed::Add, VRed::Mul, VRed::Min, VRed::Max] {
                let mem = whole(elem);
                let mut r = Rows::new(&format!("{op:?}_{elem:?}").to_lowercase(), lanes);
                let src = r.load(0, mem);
                let dst = r.vec(elem);
                r.push(Inst::VReduce { op, dst, src });
                r.store(dst, mem);
                let mut m = memory(lanes, mem, mem);
                if elem.is_float() {
                    // Small whole numbers: sums and products are exact, and there is no NaN.
                    let mut n = Numbers(3);
                    m.buffers[0] = (0..lanes * ROWS as u32)
                        .flat_map(|_| {
                            let v = (n.next() % 5) as f32 - 2.0;
                            match elem {
                                Elem::F32 => v.to_le_bytes().to_vec(),
                                _ => f64::from(v).to_le_bytes().to_vec(),
                            }
                        })
                        .collect();
                }
                check(&r.done(), &m, mem);
            }
        }
    }
}

#[test]
fn integers_agree() {
    use GOp::*;
    let numbers = [
        0,
        1,
        -1,
        2,
        3,
        5,
        7,
        -7,
        9,
        12,
        64,
        100,
        -100,
        1 << 40,
        -(1 << 40),
        i64::MAX,
        i64::MIN,
    ];
    for lanes in [1, 8] {
        for op in [
            Add, Sub, Mul, And, Or, Xor, Shl, Sar, Min, Max, FloorDiv, FloorMod,
        ] {
            // Result in a new register, over the first operand, over the second, by an immediate.
            for form in 0..5 {
                let mut k = Kernel::new("integers", lanes);
                let [out, x, y, r] = [0; 4].map(|_| k.reg(Class::Gpr));
                let v = k.reg(Class::Vec(Elem::I32));
                let mut body = vec![Inst::GLoad {
                    dst: out,
                    mem: Mem::I64,
                    addr: Addr::base(BUFFERS),
                }];
                let mut n = 0;
                for &b in &numbers {
                    for _ in &numbers {
                        let shift = matches!(op, Shl | Sar);
                        let imm = if shift { b & 63 } else { b };
                        if shift && form < 3 {
                            continue;
                        }
                        let source = Addr::base(DIMS).with_disp(8 * n);
                        body.push(Inst::GLoad {
                            dst: x,
                            mem: Mem::I64,
                            addr: source,
                        });
                        body.push(Inst::GLoad {
                            dst: y,
                            mem: Mem::I64,
                            addr: source.with_disp(8 * n + 8),
                        });
                        let (dst, b) = match form {
                            0 => (r, Int::Reg(y)),
                            1 => (x, Int::Reg(y)),
                            2 => (y, Int::Reg(y)),
                            3 => (r, Int::Imm(imm)),
                            _ => (x, Int::Imm(imm)),
                        };
                        body.push(Inst::GBin { op, dst, a: x, b });
                        // Stored through a vector: lane 0 holds the low half, then the high.
                        for half in 0..2 {
                            body.push(Inst::VFromGpr { dst: v, src: dst });
                            body.push(Inst::VStore {
                                src: v,
                                mem: Mem::I32,
                                addr: Addr::base(out).with_disp(64 * n + 32 * half),
                                mask: None,
                            });
                            body.push(Inst::GBin {
                                op: Sar,
                                dst,
                                a: dst,
                                b: Int::Imm(32),
                            });
                        }
                        n += 2;
                    }
                }
                k.body = body;
                let dims: Vec<i64> = numbers
                    .iter()
                    .flat_map(|&b| numbers.iter().flat_map(move |&a| [a, b]))
                    .collect();
                let memory = Memory::new(vec![vec![0; 64 * dims.len() + 64]], &dims);
                agree(&k, &memory, |a, b| a == b);
            }
        }
    }
}

/// `count` vectors loaded, all live at once, then summed in an order that uses each.
fn crowded(lanes: u32, count: usize) -> Kernel {
    let mut r = Rows::new("crowded", lanes);
    let mut all = Vec::new();
    for n in 0..count {
        let v = r.load(n % 2, Mem::F32);
        let w = r.vec(Elem::F32);
        let c = r.vec(Elem::F32);
        r.push(Inst::VConst {
            dst: c,
            bits: u64::from((n as f32 + 0.5).to_bits()),
        });
        r.push(Inst::VBin {
            op: VBin::Mul,
            dst: w,
            a: v,
            b: c,
        });
        all.push(w);
    }
    let sum = r.vec(Elem::F32);
    r.push(Inst::VConst { dst: sum, bits: 0 });
    for n in 0..count {
        let (a, b) = (all[n], all[(n * 7 + 3) % count]);
        r.push(Inst::VFma {
            dst: sum,
            a,
            b,
            c: sum,
        });
        r.push(Inst::VFma {
            dst: a,
            a,
            b: sum,
            c: b,
        });
    }
    for &v in &all {
        r.push(Inst::VBin {
            op: VBin::Add,
            dst: sum,
            a: sum,
            b: v,
        });
    }
    r.store(sum, Mem::F32);
    r.done()
}

#[test]
fn more_live_vectors_than_registers_spill() {
    for lanes in LANES {
        for count in [10, 15, 16, 29, 31, 33, 40, 60] {
            let k = crowded(lanes, count);
            let mut m = memory(lanes, Mem::F32, Mem::F32);
            let mut n = Numbers(5);
            for b in &mut m.buffers[..2] {
                let v: Vec<f32> = (0..b.len() / 4).map(|_| n.f32() * 0.1).collect();
                *b = bytes_of_f32(&v);
            }
            check(&k, &m, Mem::F32);
        }
    }
}

#[test]
fn more_live_integers_and_masks_than_registers_spill() {
    for lanes in LANES {
        let mut r = Rows::new("many", lanes);
        let x = r.load(0, Mem::I32);
        let i = r.i;
        let mut gprs = Vec::new();
        let mut masks = Vec::new();
        for n in 0..24 {
            let g = r.gpr();
            r.push(Inst::GBin {
                op: GOp::Mul,
                dst: g,
                a: i,
                b: Int::Imm(n * n + 7),
            });
            gprs.push(g);
            let v = r.vec(Elem::I32);
            r.push(Inst::VFromGpr { dst: v, src: g });
            let m = r.mask();
            r.push(Inst::VCmp {
                op: VCmp::Lt,
                dst: m,
                a: x,
                b: v,
            });
            masks.push(m);
        }
        let total = r.gpr();
        r.push(Inst::GSet {
            dst: total,
            src: Int::Imm(1),
        });
        for (n, &g) in gprs.iter().enumerate() {
            let op = [
                GOp::Add,
                GOp::Sub,
                GOp::Xor,
                GOp::Max,
                GOp::Mul,
                GOp::FloorMod,
            ][n % 6];
            r.push(Inst::GBin {
                op,
                dst: total,
                a: total,
                b: Int::Reg(g),
            });
            r.push(Inst::GBin {
                op: GOp::Min,
                dst: g,
                a: g,
                b: Int::Reg(total),
            });
            r.push(Inst::GBin {
                op: GOp::Add,
                dst: g,
                a: g,
                b: Int::Imm(1 << 33),
            });
            r.push(Inst::GBin {
                op: GOp::FloorDiv,
                dst: total,
                a: total,
                b: Int::Imm(3),
            });
        }
        for &g in &gprs {
            r.push(Inst::GBin {
                op: GOp::Add,
                dst: total,
                a: total,
                b: Int::Reg(g),
            });
        }
        let sum = r.vec(Elem::I32);
        r.push(Inst::VFromGpr {
            dst: sum,
            src: total,
        });
        for n in 0..24 {
            let m = r.mask();
            r.push(Inst::MOr {
                dst: m,
                a: masks[n],
                b: masks[(n * 5 + 1) % 24],
            });
            r.push(Inst::MAnd {
                dst: m,
                a: m,
                b: masks[(n + 11) % 24],
            });
            r.push(Inst::MNot {
                dst: masks[n],
                a: masks[n],
            });
            r.push(Inst::VSelect {
                dst: sum,
                mask: m,
                a: x,
                b: sum,
            });
            let m2 = masks[(n + 3) % 24];
            r.push(Inst::VBin {
                op: VBin::Add,
                dst: sum,
                a: sum,
                b: x,
            });
            r.push(Inst::VSelect {
                dst: sum,
                mask: m2,
                a: sum,
                b: x,
            });
        }
        r.store(sum, Mem::I32);
        check(&r.done(), &memory(lanes, Mem::I32, Mem::I32), Mem::I32);
    }
}

#[test]
fn nested_loops_carry_accumulators() {
    for lanes in LANES {
        let mut k = Kernel::new("nest", lanes);
        let [a, out, n, i, j, t, turns, row] = [0; 8].map(|_| k.reg(Class::Gpr));
        let (acc, part, x) = (
            k.reg(Class::Vec(Elem::F32)),
            k.reg(Class::Vec(Elem::F32)),
            k.reg(Class::Vec(Elem::F32)),
        );
        let bytes = 4 * i64::from(lanes);
        k.body = vec![
            Inst::GLoad {
                dst: a,
                mem: Mem::I64,
                addr: Addr::base(BUFFERS),
            },
            Inst::GLoad {
                dst: out,
                mem: Mem::I64,
                addr: Addr::base(BUFFERS).with_disp(8),
            },
            Inst::GLoad {
                dst: n,
                mem: Mem::I64,
                addr: Addr::base(DIMS),
            },
            Inst::GSet {
                dst: turns,
                src: Int::Imm(0),
            },
            Inst::Loop {
                var: t,
                from: TASK_BEGIN.into(),
                to: TASK_END.into(),
                step: 1,
                body: vec![
                    Inst::VConst { dst: acc, bits: 0 },
                    Inst::Loop {
                        var: i,
                        from: Int::Imm(0),
                        to: n.into(),
                        step: 2,
                        body: vec![
                            Inst::VConst {
                                dst: part,
                                bits: u64::from(1f32.to_bits()),
                            },
                            Inst::Loop {
                                var: j,
                                from: i.into(),
                                to: n.into(),
                                step: 1,
                                body: vec![
                                    Inst::GBin {
                                        op: GOp::Mul,
                                        dst: row,
                                        a: j,
                                        b: Int::Imm(bytes),
                                    },
                                    Inst::VLoad {
                                        dst: x,
                                        mem: Mem::F32,
                                        addr: Addr {
                                            base: a,
                                            index: Some((row, 1)),
                                            disp: 0,
                                        },
                                        mask: None,
                                    },
                                    Inst::VBin {
                                        op: VBin::Add,
                                        dst: part,
                                        a: part,
                                        b: x,
                                    },
                                    Inst::GBin {
                                        op: GOp::Add,
                                        dst: turns,
                                        a: turns,
                                        b: Int::Imm(1),
                                    },
                                ],
                            },
                            Inst::VFma {
                                dst: acc,
                                a: part,
                                b: part,
                                c: acc,
                            },
                            // The bound changes inside; the loop keeps the one it had.
                            Inst::If {
                                cmp: GCmp::Gt,
                                a: i,
                                b: Int::Imm(2),
                                then: vec![Inst::GBin {
                                    op: GOp::Sub,
                                    dst: n,
                                    a: n,
                                    b: Int::Imm(1),
                                }],
                                otherwise: vec![Inst::GBin {
                                    op: GOp::Add,
                                    dst: n,
                                    a: n,
                                    b: Int::Imm(0),
                                }],
                            },
                        ],
                    },
                    Inst::GBin {
                        op: GOp::Mul,
                        dst: row,
                        a: t,
                        b: Int::Imm(bytes),
                    },
                    Inst::VStore {
                        src: acc,
                        mem: Mem::F32,
                        addr: Addr {
                            base: out,
                            index: Some((row, 1)),
                            disp: 0,
                        },
                        mask: None,
                    },
                ],
            },
        ];
        for tasks in [(0, 3), (1, 2), (2, 2)] {
            let mut numbers = Numbers(6);
            let v: Vec<f32> = (0..16 * lanes)
                .map(|_| (numbers.next() % 7) as f32)
                .collect();
            let mut m = Memory::new(vec![bytes_of_f32(&v), vec![0; 64 * 4]], &[9]);
            m.tasks = tasks;
            assert!(agree(&k, &m, |a, b| a == b) >= 1);
        }
    }
}

#[test]
fn a_fault_is_written_once_and_ends_the_kernel() {
    for lanes in LANES {
        for (held, limit) in [
            (0, Int::Imm(10)),
            (0, Int::Imm(1 << 40)),
            (7, Int::Imm(10)),
            (0, Int::Reg(TASK_END)),
        ] {
            let mut k = Kernel::new("fault", lanes);
            let (out, i, v) = (
                k.reg(Class::Gpr),
                k.reg(Class::Gpr),
                k.reg(Class::Vec(Elem::I32)),
            );
            k.body = vec![
                Inst::GLoad {
                    dst: out,
                    mem: Mem::I64,
                    addr: Addr::base(BUFFERS),
                },
                Inst::Loop {
                    var: i,
                    from: TASK_BEGIN.into(),
                    to: TASK_END.into(),
                    step: 1,
                    body: vec![
                        Inst::If {
                            cmp: GCmp::Ge,
                            a: i,
                            b: Int::Imm(3),
                            then: vec![Inst::Fault {
                                kind: 5,
                                operand: 1,
                                value: i,
                                limit,
                            }],
                            otherwise: vec![],
                        },
                        Inst::VFromGpr { dst: v, src: i },
                        Inst::VStore {
                            src: v,
                            mem: Mem::I32,
                            addr: Addr {
                                base: out,
                                index: Some((i, 4)),
                                disp: 0,
                            },
                            mask: None,
                        },
                    ],
                },
            ];
            let mut m = Memory::new(vec![vec![0xee; 128]], &[]);
            m.tasks = (0, 6);
            m.worker[2] = held;
            assert!(agree(&k, &m, |a, b| a == b) >= 1);
        }
    }
}

#[test]
fn library_functions_are_called_through_the_table() {
    for elem in [Elem::F32, Elem::F64] {
        let mem = whole(elem);
        let mut r = Rows::new("library", 1);
        let a = r.load(0, mem);
        let b = r.load(1, mem);
        let (x, y) = (r.vec(elem), r.vec(elem));
        r.push(Inst::VMath {
            func: MathFn::Exp,
            dst: x,
            a,
            b: None,
        });
        r.push(Inst::VMath {
            func: MathFn::Pow,
            dst: y,
            a: x,
            b: Some(b),
        });
        r.push(Inst::VBin {
            op: VBin::Add,
            dst: y,
            a: y,
            b: a,
        });
        r.store(y, mem);
        check(&r.done(), &memory(1, mem, mem), mem);
    }
}
