//! Reductions: accumulators over a loop, and across the lanes where the loop is vectorised.

use super::*;

impl Expander<'_> {
    pub(super) fn reduce(
        &mut self,
        var: Sym,
        from: &Dim,
        to: &Dim,
        body: &[Stmt],
        accs: &[Acc],
    ) -> Result<()> {
        let mut regs = Vec::new();
        for a in accs {
            let Ty::Num(elem) = self.loops.locals[a.local.0 as usize] else {
                return Err(ExpandError("an accumulator holds numbers".into()));
            };
            let start = self.constant(elem, neutral(a.op, elem));
            let acc = self.out.reg(Class::Vec(elem));
            self.emit(Inst::VMove {
                dst: acc,
                src: start,
            });
            regs.push((acc, elem));
        }
        let across = self.is_vector(var);
        {
            let regs = &regs;
            let mut step = |e: &mut Self| -> Result<()> {
                e.block(body)?;
                for (a, (acc, elem)) in accs.iter().zip(regs) {
                    let v = e.value(a.value)?;
                    let mask = match &e.vector {
                        Some(v) if across => v.mask,
                        // The rest, one by one: all lanes hold the element, and it counts once.
                        None if across => Some(e.count_mask(&Dim::Const(1))?),
                        _ => None,
                    };
                    let sum = e.combine(a.op, *elem, *acc, v);
                    match mask {
                        Some(m) => e.emit(Inst::VSelect {
                            dst: *acc,
                            mask: m,
                            a: sum,
                            b: *acc,
                        }),
                        None => e.emit(Inst::VMove {
                            dst: *acc,
                            src: sum,
                        }),
                    }
                }
                Ok(())
            };
            if across {
                self.vector_loop(var, from, to, &mut step)?;
            } else {
                self.serial(var, from, to, 1, step)?;
            }
        }
        let depth = self.depth();
        for (a, (acc, elem)) in accs.iter().zip(regs) {
            let r = if across {
                self.across_lanes(a.op, elem, acc)
            } else {
                acc
            };
            self.depths.insert(r, depth);
            self.locals[a.local.0 as usize] = Some((r, depth));
        }
        Ok(())
    }

    /// One step of an accumulation, in a new register (never value-numbered: `acc` changes).
    fn combine(&mut self, op: RedOp, elem: Elem, acc: Reg, v: Reg) -> Reg {
        let dst = self.out.reg(Class::Vec(elem));
        let bin = match op {
            RedOp::Sum => VBin::Add,
            RedOp::Prod => VBin::Mul,
            RedOp::Min => VBin::Min,
            RedOp::Max => VBin::Max,
        };
        self.emit(Inst::VBin {
            op: bin,
            dst,
            a: acc,
            b: v,
        });
        if elem.is_float() && matches!(op, RedOp::Min | RedOp::Max) {
            // The machine's minimum gives `v` when either is NaN: keep a NaN that `acc` holds.
            let nan = self.out.reg(Class::Mask);
            self.emit(Inst::VCmp {
                op: CmpOp::Ne,
                dst: nan,
                a: acc,
                b: acc,
            });
            let kept = self.out.reg(Class::Vec(elem));
            self.emit(Inst::VSelect {
                dst: kept,
                mask: nan,
                a: acc,
                b: dst,
            });
            return kept;
        }
        dst
    }

    /// The reduction of an accumulator's lanes, in every lane.
    fn across_lanes(&mut self, op: RedOp, elem: Elem, acc: Reg) -> Reg {
        let red = match op {
            RedOp::Sum => VRed::Add,
            RedOp::Prod => VRed::Mul,
            RedOp::Min => VRed::Min,
            RedOp::Max => VRed::Max,
        };
        let dst = self.out.reg(Class::Vec(elem));
        self.emit(Inst::VReduce {
            op: red,
            dst,
            src: acc,
        });
        if !elem.is_float() || matches!(op, RedOp::Sum | RedOp::Prod) {
            return dst;
        }
        // A NaN in any lane must win: count the lanes that hold one.
        let (one, zero) = (self.constant(elem, one_bits(elem)), self.constant(elem, 0));
        let nan_bits = if elem == Elem::F32 {
            f32::NAN.to_bits() as u64
        } else {
            f64::NAN.to_bits()
        };
        let nan = self.constant(elem, nan_bits);
        let is = self.out.reg(Class::Mask);
        self.emit(Inst::VCmp {
            op: CmpOp::Ne,
            dst: is,
            a: acc,
            b: acc,
        });
        let ones = self.out.reg(Class::Vec(elem));
        self.emit(Inst::VSelect {
            dst: ones,
            mask: is,
            a: one,
            b: zero,
        });
        let count = self.out.reg(Class::Vec(elem));
        self.emit(Inst::VReduce {
            op: VRed::Add,
            dst: count,
            src: ones,
        });
        let any = self.out.reg(Class::Mask);
        self.emit(Inst::VCmp {
            op: CmpOp::Gt,
            dst: any,
            a: count,
            b: zero,
        });
        let result = self.out.reg(Class::Vec(elem));
        self.emit(Inst::VSelect {
            dst: result,
            mask: any,
            a: nan,
            b: dst,
        });
        result
    }
}

/// Bits of the value that a reduction starts from.
fn neutral(op: RedOp, elem: Elem) -> u64 {
    match (op, elem) {
        (RedOp::Sum, _) => 0,
        (RedOp::Prod, e) => one_bits(e),
        (RedOp::Min, Elem::F32) => f32::INFINITY.to_bits() as u64,
        (RedOp::Min, Elem::F64) => f64::INFINITY.to_bits(),
        (RedOp::Min, Elem::I32) => i32::MAX as u32 as u64,
        (RedOp::Min, Elem::I64) => i64::MAX as u64,
        (RedOp::Max, Elem::F32) => f32::NEG_INFINITY.to_bits() as u64,
        (RedOp::Max, Elem::F64) => f64::NEG_INFINITY.to_bits(),
        (RedOp::Max, Elem::I32) => i32::MIN as u32 as u64,
        (RedOp::Max, Elem::I64) => i64::MIN as u64,
    }
}
