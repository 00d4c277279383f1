//! Kernels that walk rows of vectors, the values that they walk, and the comparison of what they leave.

use lapidary_codegen::kernel::*;

use crate::support::{self, Emitter, Memory, Numbers, agree, f32_of_bytes};

/// Vectors that a test of one instruction runs over.
pub const ROWS: i64 = 12;

/// A kernel that walks `ROWS` vectors: buffer 0 and 1 are read, 2 is written.
pub struct Rows {
    k: Kernel,
    pub pointers: [Reg; 3],
    /// The present row.
    pub i: Reg,
    body: Vec<Inst>,
}

impl Rows {
    pub fn new(name: &str, lanes: u32) -> Self {
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
    pub fn vec(&mut self, elem: Elem) -> Reg {
        self.k.reg(Class::Vec(elem))
    }
    pub fn mask(&mut self) -> Reg {
        self.k.reg(Class::Mask)
    }
    pub fn gpr(&mut self) -> Reg {
        self.k.reg(Class::Gpr)
    }
    /// The address of the present row of a buffer.
    pub fn row(&mut self, buffer: usize, mem: Mem) -> Addr {
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
    pub fn load(&mut self, buffer: usize, mem: Mem) -> Reg {
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
    pub fn store(&mut self, src: Reg, mem: Mem) {
        let addr = self.row(2, mem);
        self.body.push(Inst::VStore {
            src,
            mem,
            addr,
            mask: None,
        });
    }
    /// Ones and zeros of a mask.
    pub fn store_mask(&mut self, mask: Reg) {
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
    pub fn push(&mut self, inst: Inst) {
        self.body.push(inst);
    }
    pub fn done(mut self) -> Kernel {
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
pub fn values(mem: Mem, count: usize, seed: u64) -> Vec<u8> {
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
pub fn memory(lanes: u32, a: Mem, b: Mem) -> Memory {
    let n = (lanes * ROWS as u32) as usize;
    Memory::new(
        vec![values(a, n, 1), values(b, n, 2), vec![0xa5; n * 8 + 64]],
        &[],
    )
}

/// Equal bytes, but that one NaN is as good as another.
pub fn same(mem: Mem) -> impl Fn(&Memory, &Memory) -> bool {
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

pub fn fits(lanes: u32, elem: Elem) -> bool {
    lanes * elem.bytes() <= 64
}

/// All that x64 emitters must have code for, where the vectors fit the set.
pub fn check(kernel: &Kernel, memory: &Memory, out: Mem) {
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

impl Rows {
    /// The kernel as it stands.
    pub fn k_with(&self) -> Kernel {
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
