//! Random kernels through every emitter, against the evaluator: register allocation above all.
//! `LAPIDARY_SEEDS` sets how many.

mod support;

use lapidary_codegen::kernel::*;
use support::{ELEMS, LANES, Memory, Numbers, agree, f32_of_bytes, whole};

/// Random kernels: registers of every class, initialised, then random code over them with nested
/// loops and branches, then all of them stored.
struct Random {
    k: Kernel,
    n: Numbers,
    out: Reg,
    gprs: Vec<Reg>,
    /// By class: F32, I32, and one that is only used where it fits, F64 and I64.
    vecs: Vec<(Elem, Vec<Reg>)>,
    masks: Vec<Reg>,
}

impl Random {
    fn pick(&mut self, from: &[Reg]) -> Reg {
        from[self.n.next() as usize % from.len()]
    }
    fn gpr(&mut self) -> Reg {
        let all = self.gprs.clone();
        self.pick(&all)
    }
    fn mask(&mut self) -> Reg {
        let all = self.masks.clone();
        self.pick(&all)
    }
    fn some_elem(&mut self) -> Elem {
        let i = self.n.next() as usize % self.vecs.len();
        self.vecs[i].0
    }
    fn vec(&mut self, elem: Elem) -> Reg {
        let all = self
            .vecs
            .iter()
            .find(|(e, _)| *e == elem)
            .unwrap()
            .1
            .clone();
        self.pick(&all)
    }
    fn below(&mut self, n: u64) -> usize {
        (self.n.next() % n) as usize
    }

    fn inst(&mut self, depth: usize) -> Inst {
        use VBin::*;
        let elem = self.some_elem();
        let integers = if self.vecs.len() > 2 && self.below(3) == 0 {
            Elem::I64
        } else {
            Elem::I32
        };
        let (dst, a, b, c) = (
            self.vec(elem),
            self.vec(elem),
            self.vec(elem),
            self.vec(elem),
        );
        match self.below(20) {
            0 if depth < 3 => {
                let var = self.k.reg(Class::Gpr);
                let bound = self.gpr();
                // A bound of 0 to 3, from a register that the body may change.
                let body = self.block(depth + 1, 6);
                let to = if self.below(2) == 0 {
                    Int::Imm(self.below(4) as i64)
                } else {
                    Int::Reg(bound)
                };
                let limit = Inst::GBin {
                    op: GOp::And,
                    dst: bound,
                    a: bound,
                    b: Int::Imm(3),
                };
                let a_loop = Inst::Loop {
                    var,
                    from: Int::Imm(0),
                    to,
                    step: 1 + self.below(2) as i64,
                    body,
                };
                // Always taken; it keeps the two together.
                Inst::If {
                    cmp: GCmp::Eq,
                    a: TASK_BEGIN,
                    b: TASK_BEGIN.into(),
                    then: vec![limit, a_loop],
                    otherwise: vec![],
                }
            }
            1 if depth < 3 => {
                let (a, b) = (self.gpr(), self.gpr());
                let then = self.block(depth + 1, 5);
                let otherwise = if self.below(2) == 0 {
                    self.block(depth + 1, 5)
                } else {
                    vec![]
                };
                let cmp =
                    [GCmp::Eq, GCmp::Ne, GCmp::Lt, GCmp::Le, GCmp::Gt, GCmp::Ge][self.below(6)];
                let b = if self.below(2) == 0 {
                    Int::Reg(b)
                } else {
                    Int::Imm(self.below(40) as i64 - 20)
                };
                Inst::If {
                    cmp,
                    a,
                    b,
                    then,
                    otherwise,
                }
            }
            0..=4 => {
                let ops = [
                    GOp::Add,
                    GOp::Sub,
                    GOp::Mul,
                    GOp::And,
                    GOp::Or,
                    GOp::Xor,
                    GOp::Min,
                    GOp::Max,
                    GOp::FloorDiv,
                    GOp::FloorMod,
                    GOp::Shl,
                    GOp::Sar,
                ];
                let op = ops[self.below(12)];
                let (dst, a, b) = (self.gpr(), self.gpr(), self.gpr());
                let shift = matches!(op, GOp::Shl | GOp::Sar);
                let b = if shift {
                    Int::Imm(self.below(64) as i64)
                } else if self.below(2) == 0 {
                    Int::Reg(b)
                } else {
                    Int::Imm((self.n.next() as i64) >> self.below(64))
                };
                Inst::GBin { op, dst, a, b }
            }
            5 => {
                let dst = self.gpr();
                let src = if self.below(2) == 0 {
                    Int::Reg(self.gpr())
                } else {
                    Int::Imm((self.n.next() as i64) >> self.below(64))
                };
                Inst::GSet { dst, src }
            }
            6 => Inst::GFromLane {
                dst: self.gpr(),
                src: self.vec(integers),
            },
            7 => Inst::VFromGpr {
                dst: self.vec(integers),
                src: self.gpr(),
            },
            8 => Inst::VIota {
                dst: self.vec(integers),
                base: self.gpr(),
                step: self.below(9) as i64 - 4,
            },
            9 => {
                let bits = if elem.is_float() {
                    u64::from((self.below(9) as f32 - 4.0).to_bits())
                        << if elem == Elem::F64 { 32 } else { 0 }
                } else {
                    self.n.next() >> self.below(64)
                };
                Inst::VConst { dst, bits }
            }
            10 => Inst::VMove { dst, src: a },
            11 => Inst::VFma { dst, a, b, c },
            12 => Inst::VFnma { dst, a, b, c },
            13 => {
                let op =
                    [VCmp::Eq, VCmp::Ne, VCmp::Lt, VCmp::Le, VCmp::Gt, VCmp::Ge][self.below(6)];
                Inst::VCmp {
                    op,
                    dst: self.mask(),
                    a,
                    b,
                }
            }
            14 => Inst::VSelect {
                dst,
                mask: self.mask(),
                a,
                b,
            },
            15 => {
                let (dst, a, b) = (self.mask(), self.mask(), self.mask());
                match self.below(5) {
                    0 => Inst::MAnd { dst, a, b },
                    1 => Inst::MOr { dst, a, b },
                    2 => Inst::MNot { dst, a },
                    3 => Inst::VMove { dst, src: a },
                    _ => Inst::MCount {
                        dst,
                        count: self.gpr(),
                    },
                }
            }
            16 => {
                let other = self.some_elem();
                let src = self.vec(other);
                Inst::VCvt {
                    how: VCvt::Value,
                    dst,
                    src,
                }
            }
            17 => {
                let mem = whole(elem);
                // Into the middle of the output, where nothing else is kept.
                let addr = Addr::base(self.out).with_disp(self.below(32) as i32 * 8);
                let mask = if self.below(2) == 0 {
                    Some(self.mask())
                } else {
                    None
                };
                match self.below(3) {
                    0 => Inst::VStore {
                        src: a,
                        mem,
                        addr,
                        mask,
                    },
                    1 => Inst::VLoad {
                        dst,
                        mem,
                        addr,
                        mask,
                    },
                    _ => Inst::VSplat { dst, mem, addr },
                }
            }
            _ => {
                let ops: &[VBin] = if elem.is_float() {
                    &[Add, Sub, Mul, Min, Max]
                } else {
                    &[Add, Sub, Mul, Min, Max, And, Or, Xor, AndNot, Shl, Shr, Sar]
                };
                let op = ops[self.below(ops.len() as u64)];
                Inst::VBin { op, dst, a, b }
            }
        }
    }

    fn block(&mut self, depth: usize, most: u64) -> Vec<Inst> {
        let count = 1 + self.below(most);
        let mut body = Vec::new();
        for _ in 0..count {
            body.push(self.inst(depth));
            // A short-lived value now and then: loaded, used, gone.
            if self.below(4) == 0 {
                let t = self.k.reg(Class::Vec(Elem::F32));
                let dst = self.vec(Elem::F32);
                let a = self.vec(Elem::F32);
                let addr = Addr::base(self.out).with_disp(self.below(32) as i32 * 8);
                body.push(if self.below(2) == 0 {
                    Inst::VLoad {
                        dst: t,
                        mem: Mem::F32,
                        addr,
                        mask: None,
                    }
                } else {
                    Inst::VSplat {
                        dst: t,
                        mem: Mem::F32,
                        addr,
                    }
                });
                body.push(if self.below(2) == 0 {
                    Inst::VBin {
                        op: VBin::Mul,
                        dst,
                        a: t,
                        b: a,
                    }
                } else {
                    Inst::VFma {
                        dst,
                        a,
                        b: t,
                        c: dst,
                    }
                });
            }
        }
        body
    }
}

fn random(seed: u64, lanes: u32) -> Kernel {
    let mut k = Kernel::new("random", lanes);
    let out = k.reg(Class::Gpr);
    let mut n = Numbers(seed);
    let gprs: Vec<Reg> = (0..3 + n.next() % 16).map(|_| k.reg(Class::Gpr)).collect();
    let wide = lanes <= 8 && n.next().is_multiple_of(2);
    let elems: &[Elem] = if wide {
        &ELEMS
    } else {
        &[Elem::F32, Elem::I32]
    };
    let per = 2 + n.next() % 14;
    let vecs = elems
        .iter()
        .map(|&e| (e, (0..per).map(|_| k.reg(Class::Vec(e))).collect()))
        .collect();
    let masks = (0..1 + n.next() % 9).map(|_| k.reg(Class::Mask)).collect();
    k.body.push(Inst::GLoad {
        dst: out,
        mem: Mem::I64,
        addr: Addr::base(BUFFERS),
    });
    let mut r = Random {
        k,
        n,
        out,
        gprs,
        vecs,
        masks,
    };
    for g in r.gprs.clone() {
        let v = (r.n.next() as i64) >> r.below(64);
        r.k.body.push(Inst::GSet {
            dst: g,
            src: Int::Imm(v),
        });
    }
    for (e, all) in r.vecs.clone() {
        for v in all {
            let x = r.below(100) as f64 - 50.0;
            let bits = match e {
                Elem::F32 => u64::from((x as f32).to_bits()),
                Elem::F64 => x.to_bits(),
                _ => x as i64 as u64,
            };
            r.k.body.push(Inst::VConst { dst: v, bits });
        }
    }
    for m in r.masks.clone() {
        let count = r.gpr();
        r.k.body.push(Inst::MCount { dst: m, count });
    }
    let body = r.block(0, 60);
    r.k.body.extend(body);
    // Everything out: vectors, integers through vectors, masks through selections.
    let mut at = 512;
    let mut stores = Vec::new();
    for (e, all) in r.vecs.clone() {
        for v in all {
            stores.push(Inst::VStore {
                src: v,
                mem: whole(e),
                addr: Addr::base(out).with_disp(at),
                mask: None,
            });
            at += 64;
        }
    }
    let (i, one, zero) = (
        r.k.reg(Class::Vec(Elem::I32)),
        r.k.reg(Class::Vec(Elem::I32)),
        r.k.reg(Class::Vec(Elem::I32)),
    );
    for g in r.gprs.clone() {
        for half in 0..2 {
            stores.push(Inst::GBin {
                op: GOp::Sar,
                dst: g,
                a: g,
                b: Int::Imm(half * 32),
            });
            stores.push(Inst::VFromGpr { dst: i, src: g });
            stores.push(Inst::VStore {
                src: i,
                mem: Mem::I32,
                addr: Addr::base(out).with_disp(at),
                mask: None,
            });
            at += 64;
        }
    }
    stores.push(Inst::VConst { dst: one, bits: 1 });
    stores.push(Inst::VConst { dst: zero, bits: 0 });
    for m in r.masks.clone() {
        stores.push(Inst::VSelect {
            dst: i,
            mask: m,
            a: one,
            b: zero,
        });
        stores.push(Inst::VStore {
            src: i,
            mem: Mem::I32,
            addr: Addr::base(out).with_disp(at),
            mask: None,
        });
        at += 64;
    }
    r.k.body.extend(stores);
    r.k
}

#[test]
fn random_kernels_agree() {
    let seeds = std::env::var("LAPIDARY_SEEDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(150);
    for seed in 0..seeds {
        for lanes in LANES {
            let k = random(seed, lanes);
            let m = Memory::new(vec![vec![0; 16384]], &[]);
            // One NaN is as good as another, in either width.
            agree(&k, &m, |a, b| {
                let plain = |m: &Memory| m.buffers[0].clone();
                let (x, y) = (plain(a), plain(b));
                x.chunks(8).zip(y.chunks(8)).all(|(s, t)| {
                    let d = |v: &[u8]| f64::from_le_bytes(v.try_into().unwrap()).is_nan();
                    s == t
                        || (d(s) && d(t))
                        || s.chunks(4).zip(t.chunks(4)).all(|(p, q)| {
                            p == q || (f32_of_bytes(p)[0].is_nan() && f32_of_bytes(q)[0].is_nan())
                        })
                })
            });
            let again = text::parse(&k.to_string()).unwrap_or_else(|e| panic!("{e}\n{k}"));
            assert_eq!(again, k, "a kernel reads back as it was printed");
        }
    }
}
