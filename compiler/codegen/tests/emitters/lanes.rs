//! Operations on lanes and masks.

use lapidary_codegen::kernel::*;

use crate::rows::*;
use crate::support::{ELEMS, LANES, Numbers, whole};

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
