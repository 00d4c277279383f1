//! Integers, loops, faults, and more values than there are registers.

use lapidary_codegen::kernel::*;

use crate::rows::*;
use crate::support::{LANES, Memory, Numbers, agree, bytes_of_f32};

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
