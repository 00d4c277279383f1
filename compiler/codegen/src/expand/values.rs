//! Scalar expressions, loads, stores and masks.

use super::ints::factor;
use super::*;
use crate::kernel::{VBin as B, VCvt, VUn as U};

impl Expander<'_> {
    /// A constant in every lane.
    pub(super) fn constant(&mut self, elem: Elem, bits: u64) -> Reg {
        self.number(0, Key::Const(elem, bits), Class::Vec(elem), |dst| {
            Inst::VConst { dst, bits }
        })
    }
    pub(super) fn f32c(&mut self, v: f32) -> Reg {
        self.constant(Elem::F32, v.to_bits() as u64)
    }

    /// The mask of lanes `l < count`.
    pub(super) fn count_mask(&mut self, count: &Dim) -> Result<Reg> {
        let count = self.resolve(count);
        let r = self.int_reg(&count)?;
        let depth = self.placed(self.dim_depth(&count)?);
        Ok(
            self.number(depth, Key::Count(count), Class::Mask, |dst| Inst::MCount {
                dst,
                count: r,
            }),
        )
    }

    pub(super) fn un(&mut self, op: U, a: Reg) -> Reg {
        let d = self.reg_depth(a);
        let class = self.out.class(a);
        self.number(d, Key::Un(op, a), class, |dst| Inst::VUn { op, dst, a })
    }
    pub(super) fn bin(&mut self, op: B, a: Reg, b: Reg) -> Reg {
        let d = self.reg_depth(a).max(self.reg_depth(b));
        let class = self.out.class(a);
        self.number(d, Key::Bin(op, a, b), class, |dst| Inst::VBin {
            op,
            dst,
            a,
            b,
        })
    }
    pub(super) fn fma(&mut self, a: Reg, b: Reg, c: Reg) -> Reg {
        let d = self
            .reg_depth(a)
            .max(self.reg_depth(b))
            .max(self.reg_depth(c));
        let class = self.out.class(a);
        self.number(d, Key::Fma(a, b, c), class, |dst| Inst::VFma {
            dst,
            a,
            b,
            c,
        })
    }
    pub(super) fn cmp(&mut self, op: kernel::VCmp, a: Reg, b: Reg) -> Reg {
        let d = self.reg_depth(a).max(self.reg_depth(b));
        self.number(d, Key::Cmp(op, a, b), Class::Mask, |dst| Inst::VCmp {
            op,
            dst,
            a,
            b,
        })
    }
    pub(super) fn select(&mut self, mask: Reg, a: Reg, b: Reg) -> Reg {
        let d = self
            .reg_depth(a)
            .max(self.reg_depth(b))
            .max(self.reg_depth(mask));
        let class = self.out.class(a);
        self.number(d, Key::Select(mask, a, b), class, |dst| Inst::VSelect {
            dst,
            mask,
            a,
            b,
        })
    }
    pub(super) fn cvt(&mut self, how: VCvt, to: Elem, src: Reg) -> Reg {
        let d = self.reg_depth(src);
        self.number(d, Key::Cvt(how, to, src), Class::Vec(to), |dst| {
            Inst::VCvt { how, dst, src }
        })
    }
    fn mask_op(&mut self, op: u8, a: Reg, b: Option<Reg>) -> Reg {
        let d = self.reg_depth(a).max(b.map_or(0, |b| self.reg_depth(b)));
        self.number(d, Key::Mask(op, a, b), Class::Mask, |dst| match (op, b) {
            (0, Some(b)) => Inst::MAnd { dst, a, b },
            (1, Some(b)) => Inst::MOr { dst, a, b },
            _ => Inst::MNot { dst, a },
        })
    }

    fn elem(&self, r: Reg) -> Elem {
        match self.out.class(r) {
            Class::Vec(e) => e,
            _ => Elem::I32,
        }
    }

    /// The factor of the vector variable in an index expression.
    fn lane_step(&self, at: &Dim) -> Result<Dim> {
        match &self.vector {
            None => Ok(Dim::Const(0)),
            Some(v) => factor(at, v.var).map(|f| self.resolve(&f)).ok_or_else(|| {
                ExpandError(format!(
                    "an index of `{}` is not linear in the vectorised loop",
                    self.loops.name
                ))
            }),
        }
    }

    fn load(&mut self, buf: Buf, at: &Dim) -> Result<Reg> {
        let Buffer { mem, kind, .. } = self.loops.buffers[buf.0 as usize].clone();
        let step = self.lane_step(at)?;
        let mask = self.vector.as_ref().and_then(|v| v.mask);
        let (lanes, mask) = match step.as_const() {
            Some(0) => (LaneAccess::Uniform, None),
            Some(1) => (LaneAccess::Contiguous, mask),
            _ => (LaneAccess::Strided(step.clone()), mask),
        };
        let at = self.resolve(at);
        let guard = self.scopes.iter().rposition(|s| s.guarded).unwrap_or(0);
        let read_only = matches!(kind, BufferKind::Input(_));
        let masked = mask.map_or(0, |m| self.reg_depth(m));
        let depth = if read_only {
            self.dim_depth(&at)?.max(guard).max(masked)
        } else {
            self.depth()
        };
        let key = Key::Load {
            buf,
            at: at.clone(),
            lanes: lanes.clone(),
            mask,
        };
        if read_only && let Some(r) = self.scopes[depth].known.get(&key) {
            return Ok(*r);
        }
        let dst = self.out.reg(Class::Vec(mem.elem()));
        let inst = match lanes {
            LaneAccess::Uniform => Inst::VSplat {
                dst,
                mem,
                addr: self.address(buf, &at)?,
            },
            LaneAccess::Contiguous => Inst::VLoad {
                dst,
                mem,
                addr: self.address(buf, &at)?,
                mask,
            },
            LaneAccess::Strided(step) => {
                let base = self.address_reg(buf, &at, depth)?;
                let index = self.gather_index(&step)?;
                Inst::VGather {
                    dst,
                    mem,
                    base,
                    index,
                    mask,
                }
            }
        };
        self.push(depth, inst);
        self.depths.insert(dst, depth);
        if read_only {
            self.scopes[depth].known.insert(key, dst);
        }
        Ok(dst)
    }

    /// An address in one register.
    fn address_reg(&mut self, buf: Buf, at: &Dim, depth: usize) -> Result<Reg> {
        let a = self.address(buf, at)?;
        let mut r = a.base;
        if let Some((i, scale)) = a.index {
            let scaled = self.out.reg(Class::Gpr);
            self.push(
                depth,
                Inst::GBin {
                    op: kernel::GOp::Mul,
                    dst: scaled,
                    a: i,
                    b: Int::Imm(scale as i64),
                },
            );
            let sum = self.out.reg(Class::Gpr);
            self.push(
                depth,
                Inst::GBin {
                    op: kernel::GOp::Add,
                    dst: sum,
                    a: r,
                    b: Int::Reg(scaled),
                },
            );
            r = sum;
        }
        if a.disp != 0 {
            let sum = self.out.reg(Class::Gpr);
            self.push(
                depth,
                Inst::GBin {
                    op: kernel::GOp::Add,
                    dst: sum,
                    a: r,
                    b: Int::Imm(a.disp as i64),
                },
            );
            r = sum;
        }
        Ok(r)
    }

    /// `lane * step` in 32-bit lanes; the schedule gathers with small constant steps only.
    fn gather_index(&mut self, step: &Dim) -> Result<Reg> {
        let Some(step) = step
            .as_const()
            .filter(|s| i32::try_from(s.saturating_mul(self.lanes())).is_ok())
        else {
            return Err(ExpandError(format!(
                "a gather of `{}` steps too far",
                self.loops.name
            )));
        };
        let zero = self.int_reg(&Dim::Const(0))?;
        Ok(
            self.number(0, Key::GatherIndex(step), Class::Vec(Elem::I32), |dst| {
                Inst::VIota {
                    dst,
                    base: zero,
                    step,
                }
            }),
        )
    }

    pub(super) fn store(&mut self, buf: Buf, at: &Dim, value: ExprId) -> Result<()> {
        let mem = self.loops.buffers[buf.0 as usize].mem;
        let mut src = self.value(value)?;
        if self.out.class(src) == Class::Mask {
            let (one, zero) = (self.constant(Elem::I32, 1), self.constant(Elem::I32, 0));
            src = self.select(src, one, zero);
        }
        let step = self.lane_step(at)?;
        let mask = match (&self.vector, step.as_const()) {
            (Some(v), Some(1)) => v.mask,
            (Some(_), _) => {
                return Err(ExpandError(format!(
                    "a store of `{}` is not contiguous",
                    self.loops.name
                )));
            }
            (None, _) if self.lanes() == 1 => None,
            (None, _) => Some(self.count_mask(&Dim::Const(1))?),
        };
        let addr = self.address(buf, at)?;
        self.emit(Inst::VStore {
            src,
            mem,
            addr,
            mask,
        });
        Ok(())
    }

    /// The register that holds an expression's value in the present scope. Its parts are computed once each, a part's
    /// operands from the first to the last before it; by a list, since a model decides how deep an expression is.
    pub(super) fn value(&mut self, id: ExprId) -> Result<Reg> {
        self.parts.clear();
        let mut todo = vec![id];
        while let Some(&next) = todo.last() {
            let operands = self.loops.operands(next);
            if let Some(first) = operands.iter().find(|o| !self.parts.contains_key(o)) {
                todo.push(*first);
                continue;
            }
            todo.pop();
            if !self.parts.contains_key(&next) {
                let r = self.compute(next)?;
                self.parts.insert(next, r);
            }
        }
        self.part(id)
    }

    /// A part of the statement's expression, which is computed already.
    fn part(&self, id: ExprId) -> Result<Reg> {
        self.parts.get(&id).copied().ok_or_else(|| {
            ExpandError(format!(
                "expression {} of `{}` is used before it is computed",
                id.0, self.loops.name
            ))
        })
    }

    /// An expression whose operands are computed.
    fn compute(&mut self, id: ExprId) -> Result<Reg> {
        let loops = self.loops;
        Ok(match &loops.exprs[id.0 as usize] {
            Expr::Load { buf, at } => self.load(*buf, at)?,
            Expr::Const { elem, bits } => self.constant(*elem, *bits),
            Expr::Local(l) => match self.locals[l.0 as usize] {
                Some((r, _)) => {
                    if self.reassigned[l.0 as usize] {
                        self.depths.insert(r, self.depth());
                    }
                    r
                }
                None => {
                    return Err(ExpandError(format!(
                        "local {} of `{}` is read before it is assigned",
                        l.0, loops.name
                    )));
                }
            },
            Expr::Int { value, elem } => self.int_value(value, *elem)?,
            Expr::Un { op, a } => {
                let a = self.part(*a)?;
                self.unary(*op, a)?
            }
            Expr::Bin { op, a, b } => {
                let (a, b) = (self.part(*a)?, self.part(*b)?);
                self.binary(*op, a, b)?
            }
            Expr::Fma { a, b, c } => {
                let (a, b, c) = (self.part(*a)?, self.part(*b)?, self.part(*c)?);
                self.fma(a, b, c)
            }
            Expr::Cmp { op, a, b } => {
                let (a, b) = (self.part(*a)?, self.part(*b)?);
                match (self.out.class(a), op) {
                    (Class::Mask, _) => {
                        // Truth values compare as equal or not.
                        let (n_a, n_b) = (self.mask_op(2, a, None), self.mask_op(2, b, None));
                        let (both, none) =
                            (self.mask_op(0, a, Some(b)), self.mask_op(0, n_a, Some(n_b)));
                        let same = self.mask_op(1, both, Some(none));
                        if *op == CmpOp::Eq {
                            same
                        } else {
                            self.mask_op(2, same, None)
                        }
                    }
                    _ => self.cmp(*op, a, b),
                }
            }
            Expr::Select { cond, a, b } => {
                let (c, a, b) = (self.part(*cond)?, self.part(*a)?, self.part(*b)?);
                if self.out.class(a) == Class::Mask {
                    let not = self.mask_op(2, c, None);
                    let (x, y) = (self.mask_op(0, c, Some(a)), self.mask_op(0, not, Some(b)));
                    self.mask_op(1, x, Some(y))
                } else {
                    self.select(c, a, b)
                }
            }
            Expr::Convert { a, to } => {
                let a = self.part(*a)?;
                if self.out.class(a) == Class::Mask {
                    let (one, zero) = (self.constant(*to, one_bits(*to)), self.constant(*to, 0));
                    self.select(a, one, zero)
                } else if self.elem(a) == *to {
                    a
                } else {
                    self.cvt(VCvt::Value, *to, a)
                }
            }
            Expr::Bits { a, to } => {
                let a = self.part(*a)?;
                if self.elem(a) == *to {
                    a
                } else {
                    self.cvt(VCvt::Bits, *to, a)
                }
            }
            Expr::Narrow { a, to } => {
                let a = self.part(*a)?;
                self.narrow(a, *to)?
            }
        })
    }

    fn int_value(&mut self, value: &Dim, elem: Elem) -> Result<Reg> {
        let step = match &self.vector {
            Some(v) => factor(value, v.var)
                .and_then(|f| f.as_const())
                .ok_or_else(|| {
                    ExpandError(format!(
                        "an integer of `{}` is not linear in the vectorised loop",
                        self.loops.name
                    ))
                })?,
            None => 0,
        };
        let whole = match elem {
            Elem::F32 | Elem::I32 => Elem::I32,
            Elem::F64 | Elem::I64 => Elem::I64,
        };
        let value = self.resolve(value);
        let depth = self.placed(self.dim_depth(&value)?);
        let base = self.int_reg(&value)?;
        let ints = self.number(
            depth,
            Key::FromInt(value, whole, step),
            Class::Vec(whole),
            |dst| match step {
                0 => Inst::VFromGpr { dst, src: base },
                step => Inst::VIota { dst, base, step },
            },
        );
        Ok(if whole == elem {
            ints
        } else {
            self.cvt(VCvt::Value, elem, ints)
        })
    }

    fn unary(&mut self, op: UnOp, a: Reg) -> Result<Reg> {
        if self.out.class(a) == Class::Mask {
            return match op {
                UnOp::Not => Ok(self.mask_op(2, a, None)),
                _ => Err(ExpandError(format!("{op:?} of a truth value"))),
            };
        }
        Ok(match op {
            UnOp::Neg => self.un(U::Neg, a),
            UnOp::Abs => self.un(U::Abs, a),
            UnOp::Sqrt => self.un(U::Sqrt, a),
            UnOp::Floor => self.un(U::Floor, a),
            UnOp::Ceil => self.un(U::Ceil, a),
            UnOp::Trunc => self.un(U::Trunc, a),
            UnOp::Round => self.un(U::Round, a),
            UnOp::Not => self.un(U::Not, a),
            _ => self.function(op, a)?,
        })
    }

    fn binary(&mut self, op: BinOp, a: Reg, b: Reg) -> Result<Reg> {
        if self.out.class(a) == Class::Mask {
            return Ok(match op {
                BinOp::And | BinOp::Mul | BinOp::Min => self.mask_op(0, a, Some(b)),
                BinOp::Or | BinOp::Add | BinOp::Max => self.mask_op(1, a, Some(b)),
                BinOp::Xor => {
                    let both = self.mask_op(0, a, Some(b));
                    let (any, not) = (self.mask_op(1, a, Some(b)), self.mask_op(2, both, None));
                    self.mask_op(0, any, Some(not))
                }
                _ => return Err(ExpandError(format!("{op:?} of truth values"))),
            });
        }
        let float = self.elem(a).is_float();
        Ok(match op {
            BinOp::Add => self.bin(B::Add, a, b),
            BinOp::Sub => self.bin(B::Sub, a, b),
            BinOp::Mul => self.bin(B::Mul, a, b),
            BinOp::Div => self.bin(B::Div, a, b),
            BinOp::Rem if float => self.call(kernel::MathFn::Fmod, a, Some(b))?,
            BinOp::Rem => self.bin(B::Rem, a, b),
            BinOp::MinFast => self.bin(B::Min, a, b),
            BinOp::MaxFast => self.bin(B::Max, a, b),
            BinOp::Min | BinOp::Max => {
                let least = self.bin(if op == BinOp::Min { B::Min } else { B::Max }, a, b);
                if !float {
                    return Ok(least);
                }
                let nan = self.cmp(CmpOp::Ne, a, a);
                self.select(nan, a, least)
            }
            BinOp::Pow => self.call(kernel::MathFn::Pow, a, Some(b))?,
            BinOp::And => self.bin(B::And, a, b),
            BinOp::Or => self.bin(B::Or, a, b),
            BinOp::Xor => self.bin(B::Xor, a, b),
            BinOp::Shl => self.bin(B::Shl, a, b),
            BinOp::Shr => self.bin(B::Shr, a, b),
            BinOp::Sar => self.bin(B::Sar, a, b),
        })
    }

    /// A function of the C library; only with one lane.
    pub(super) fn call(&mut self, func: kernel::MathFn, a: Reg, b: Option<Reg>) -> Result<Reg> {
        if self.lanes() > 1 {
            return Err(ExpandError(format!("{func:?} has no vector form")));
        }
        let dst = self.out.reg(self.out.class(a));
        let depth = self.depth();
        self.emit(Inst::VMath { func, dst, a, b });
        self.depths.insert(dst, depth);
        Ok(dst)
    }

    /// Rounds a lane to a narrower type and widens it again.
    fn narrow(&mut self, a: Reg, to: Mem) -> Result<Reg> {
        Ok(match to {
            Mem::F32 | Mem::F64 | Mem::I32 | Mem::I64 => a,
            Mem::I8 | Mem::I16 | Mem::U8 | Mem::U16 => {
                let wide = if self.elem(a) == Elem::I64 {
                    self.cvt(VCvt::Value, Elem::I32, a)
                } else {
                    a
                };
                let unused = 32 - 8 * to.bytes() as u64;
                if matches!(to, Mem::I8 | Mem::I16) {
                    let n = self.constant(Elem::I32, unused);
                    let up = self.bin(B::Shl, wide, n);
                    self.bin(B::Sar, up, n)
                } else {
                    let m = self.constant(Elem::I32, u32::MAX as u64 >> unused);
                    self.bin(B::And, wide, m)
                }
            }
            Mem::U32 => {
                let m = self.constant(Elem::I64, u32::MAX as u64);
                self.bin(B::And, a, m)
            }
            Mem::BF16 => {
                // Round to nearest even on the upper half; a NaN keeps a bit of its own.
                let bits = self.cvt(VCvt::Bits, Elem::I32, a);
                let (n, one) = (self.constant(Elem::I32, 16), self.constant(Elem::I32, 1));
                let (bias, high) = (
                    self.constant(Elem::I32, 0x7fff),
                    self.constant(Elem::I32, 0xffff_0000),
                );
                let upper = self.bin(B::Shr, bits, n);
                let odd = self.bin(B::And, upper, one);
                let t = self.bin(B::Add, bits, bias);
                let t = self.bin(B::Add, t, odd);
                let t = self.bin(B::And, t, high);
                let rounded = self.cvt(VCvt::Bits, Elem::F32, t);
                let nan = self.cmp(CmpOp::Ne, a, a);
                self.select(nan, a, rounded)
            }
            Mem::F16 => self.round_f16(a),
        })
    }

    /// f32 rounded to the nearest half, ties to even, kept as f32.
    fn round_f16(&mut self, a: Reg) -> Reg {
        // Adding and subtracting a power of two that puts a half's last place at f32's last place
        // rounds to nearest even. The power follows the exponent, held at a half's least normal.
        let (sign, exp) = (
            self.constant(Elem::I32, 0x8000_0000),
            self.constant(Elem::I32, 0x7f80_0000),
        );
        let bits = self.cvt(VCvt::Bits, Elem::I32, a);
        let s = self.bin(B::And, bits, sign);
        let e = self.bin(B::And, bits, exp);
        let least = self.constant(Elem::I32, (127 - 14) << 23);
        let e = self.bin(B::Max, e, least);
        let shift = self.constant(Elem::I32, 13 << 23);
        let magic = self.bin(B::Add, e, shift);
        let magic = self.bin(B::Or, magic, s);
        let magic = self.cvt(VCvt::Bits, Elem::F32, magic);
        let r = self.bin(B::Add, a, magic);
        let r = self.bin(B::Sub, r, magic);
        // From halfway past the greatest half on: infinity. Infinities and NaN: as they are.
        let abs = self.un(U::Abs, a);
        let (limit, inf) = (self.f32c(65520.0), self.constant(Elem::F32, 0x7f80_0000));
        let over = self.cmp(CmpOp::Ge, abs, limit);
        let inf_bits = self.cvt(VCvt::Bits, Elem::I32, inf);
        let signed = self.bin(B::Or, inf_bits, s);
        let signed = self.cvt(VCvt::Bits, Elem::F32, signed);
        let r = self.select(over, signed, r);
        // Keep the sign of zero, and what is not finite.
        let rb = self.cvt(VCvt::Bits, Elem::I32, r);
        let rb = self.bin(B::Or, rb, s);
        let r = self.cvt(VCvt::Bits, Elem::F32, rb);
        let not_finite = {
            let finite = self.cmp(CmpOp::Lt, abs, inf);
            self.mask_op(2, finite, None)
        };
        self.select(not_finite, a, r)
    }
}
