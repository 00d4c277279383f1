//! Arithmetic on lanes: one instruction on a scalar or a vector, or lane by lane.

use super::{Emitter, cast_flags, flags, scalar, scalar_bits};
use crate::kernel::{
    Class, Elem, MathFn, Reg, VBin, VCmp, VCvt, VRed, VUn, WORKER, WORKER_RT, math_fn_offset,
};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{AbiParam, InstBuilder, Signature, Type, Value, types};

impl Emitter<'_, '_> {
    pub fn scalar_constant(&mut self, elem: Elem, bits: u64) -> Value {
        let ins = self.b.ins();
        match elem {
            Elem::F32 => ins.f32const(f32::from_bits(bits as u32)),
            Elem::F64 => ins.f64const(f64::from_bits(bits)),
            Elem::I32 => ins.iconst(types::I32, i64::from(bits as u32)),
            Elem::I64 => ins.iconst(types::I64, bits as i64),
        }
    }
    /// One value in every lane.
    pub fn constant(&mut self, elem: Elem, bits: u64) -> Value {
        let v = self.scalar_constant(elem, bits);
        self.splat(elem, v)
    }
    pub fn splat(&mut self, elem: Elem, v: Value) -> Value {
        if self.wide() {
            let ty = self.vector(elem);
            self.b.ins().splat(ty, v)
        } else {
            v
        }
    }
    fn vector(&self, elem: Elem) -> Type {
        super::type_of(Class::Vec(elem), self.kernel.lanes)
    }
    /// The integer type of a vector's bits.
    fn vector_bits(&self, elem: Elem) -> Type {
        if self.wide() {
            types::I32X4
        } else {
            scalar_bits(elem)
        }
    }
    pub(super) fn cast(&mut self, ty: Type, v: Value) -> Value {
        if self.b.func.dfg.value_type(v) == ty {
            v
        } else {
            self.b.ins().bitcast(ty, cast_flags(), v)
        }
    }

    pub fn spread_gpr(&mut self, elem: Elem, v: Value) -> Value {
        let v = if elem.bytes() == 4 {
            self.b.ins().ireduce(types::I32, v)
        } else {
            v
        };
        self.splat(elem, v)
    }

    pub fn iota(&mut self, dst: Reg, base: Reg, step: i64) {
        let elem = self.elem(dst);
        let v = self.get(base);
        let mut v = self.spread_gpr(elem, v);
        if self.wide() {
            let mut row = self.constant(elem, 0);
            for lane in 1..self.kernel.lanes as u8 {
                let bits = step.wrapping_mul(i64::from(lane)) as u64;
                let x = self.scalar_constant(elem, bits);
                row = self.b.ins().insertlane(row, x, lane);
            }
            v = self.b.ins().iadd(v, row);
        }
        self.def(dst, v);
    }

    pub fn vun(&mut self, op: VUn, dst: Reg, a: Reg) {
        let x = self.get(a);
        let float = self.elem(dst).is_float();
        let ins = self.b.ins();
        let v = match (op, float) {
            (VUn::Neg, true) => ins.fneg(x),
            (VUn::Neg, false) => ins.ineg(x),
            (VUn::Abs, true) => ins.fabs(x),
            (VUn::Abs, false) => ins.iabs(x),
            (VUn::Sqrt, _) => ins.sqrt(x),
            (VUn::Floor, _) => ins.floor(x),
            (VUn::Ceil, _) => ins.ceil(x),
            (VUn::Trunc, _) => ins.trunc(x),
            (VUn::Round, _) => ins.nearest(x),
            (VUn::Not, _) => ins.bnot(x),
        };
        self.def(dst, v);
    }

    pub fn vbin(&mut self, op: VBin, elem: Elem, x: Value, y: Value) -> Value {
        let float = elem.is_float();
        let ins = self.b.ins();
        match (op, float) {
            (VBin::Add, true) => ins.fadd(x, y),
            (VBin::Sub, true) => ins.fsub(x, y),
            (VBin::Mul, true) => ins.fmul(x, y),
            (VBin::Div, true) => ins.fdiv(x, y),
            (VBin::Add, false) => ins.iadd(x, y),
            (VBin::Sub, false) => ins.isub(x, y),
            (VBin::Mul, false) => ins.imul(x, y),
            (VBin::Min, false) => ins.smin(x, y),
            (VBin::Max, false) => ins.smax(x, y),
            (VBin::Min | VBin::Max, true) => {
                let cc = if op == VBin::Min {
                    FloatCC::LessThan
                } else {
                    FloatCC::GreaterThan
                };
                let m = ins.fcmp(cc, x, y);
                self.choose(m, x, y)
            }
            (VBin::And | VBin::Or | VBin::Xor | VBin::AndNot, _) => {
                let ty = self.b.func.dfg.value_type(x);
                let bits = self.vector_bits(elem);
                let (p, q) = (self.cast(bits, x), self.cast(bits, y));
                let ins = self.b.ins();
                let r = match op {
                    VBin::And => ins.band(p, q),
                    VBin::Or => ins.bor(p, q),
                    VBin::Xor => ins.bxor(p, q),
                    _ => ins.band_not(q, p),
                };
                self.cast(ty, r)
            }
            (VBin::Div | VBin::Rem, false) if !self.wide() => {
                let (q, r) = self.divide(scalar(elem), x, y);
                if op == VBin::Div { q } else { r }
            }
            (VBin::Shl | VBin::Shr | VBin::Sar, false) => self.shift(op, elem, x, y),
            _ => {
                self.unsupported(format!("{op:?} on {elem:?}"));
                x
            }
        }
    }

    fn shift(&mut self, op: VBin, elem: Elem, x: Value, y: Value) -> Value {
        if self.wide() {
            let mut r = self.constant(elem, 0);
            for lane in 0..self.kernel.lanes as u8 {
                let p = self.b.ins().extractlane(x, lane);
                let q = self.b.ins().extractlane(y, lane);
                let v = self.shift_scalar(op, elem, p, q);
                r = self.b.ins().insertlane(r, v, lane);
            }
            return r;
        }
        self.shift_scalar(op, elem, x, y)
    }

    fn shift_scalar(&mut self, op: VBin, elem: Elem, x: Value, y: Value) -> Value {
        let ty = scalar(elem);
        let bits = i64::from(elem.bytes() * 8);
        if op == VBin::Sar {
            let most = self.b.ins().iconst(ty, bits - 1);
            let by = self.b.ins().umin(y, most);
            return self.b.ins().sshr(x, by);
        }
        let limit = self.b.ins().iconst(ty, bits);
        let zero = self.b.ins().iconst(ty, 0);
        let fits = self.b.ins().icmp(IntCC::UnsignedLessThan, y, limit);
        let r = if op == VBin::Shl {
            self.b.ins().ishl(x, y)
        } else {
            self.b.ins().ushr(x, y)
        };
        self.b.ins().select(fits, r, zero)
    }

    /// `x` where the mask is on, else `y`.
    pub fn choose(&mut self, mask: Value, x: Value, y: Value) -> Value {
        if !self.wide() {
            return self.b.ins().select(mask, x, y);
        }
        let ty = self.b.func.dfg.value_type(x);
        let m = self.cast(ty, mask);
        self.b.ins().bitselect(m, x, y)
    }

    pub fn vfma(&mut self, negate: bool, dst: Reg, a: Reg, b: Reg, c: Reg) {
        let (x, y, z) = (self.get(a), self.get(b), self.get(c));
        let v = if !self.elem(dst).is_float() {
            let p = self.b.ins().imul(x, y);
            if negate {
                self.b.ins().isub(z, p)
            } else {
                self.b.ins().iadd(z, p)
            }
        } else if self.target.fma {
            let x = if negate { self.b.ins().fneg(x) } else { x };
            self.b.ins().fma(x, y, z)
        } else {
            let p = self.b.ins().fmul(x, y);
            if negate {
                self.b.ins().fsub(z, p)
            } else {
                self.b.ins().fadd(z, p)
            }
        };
        self.def(dst, v);
    }

    pub fn vcmp(&mut self, op: VCmp, dst: Reg, a: Reg, b: Reg) {
        let (x, y) = (self.get(a), self.get(b));
        let v = if self.elem(a).is_float() {
            let cc = match op {
                VCmp::Eq => FloatCC::Equal,
                VCmp::Ne => FloatCC::NotEqual,
                VCmp::Lt => FloatCC::LessThan,
                VCmp::Le => FloatCC::LessThanOrEqual,
                VCmp::Gt => FloatCC::GreaterThan,
                VCmp::Ge => FloatCC::GreaterThanOrEqual,
            };
            self.b.ins().fcmp(cc, x, y)
        } else {
            let cc = match op {
                VCmp::Eq => IntCC::Equal,
                VCmp::Ne => IntCC::NotEqual,
                VCmp::Lt => IntCC::SignedLessThan,
                VCmp::Le => IntCC::SignedLessThanOrEqual,
                VCmp::Gt => IntCC::SignedGreaterThan,
                VCmp::Ge => IntCC::SignedGreaterThanOrEqual,
            };
            self.b.ins().icmp(cc, x, y)
        };
        self.def(dst, v);
    }

    pub fn vcvt(&mut self, how: VCvt, dst: Reg, src: Reg) {
        use Elem::*;
        let (from, to) = (self.elem(src), self.elem(dst));
        let x = self.get(src);
        let ty = self.vector(to);
        if how == VCvt::Bits || from == to {
            let v = self.cast(ty, x);
            return self.def(dst, v);
        }
        let x = if how == VCvt::NearestInRange {
            self.b.ins().nearest(x)
        } else {
            x
        };
        let ins = self.b.ins();
        let v = match (from, to) {
            (F32, F64) => ins.fpromote(ty, x),
            (F64, F32) => ins.fdemote(ty, x),
            (I32, I64) => ins.sextend(ty, x),
            (I64, I32) => ins.ireduce(ty, x),
            (I32 | I64, _) => ins.fcvt_from_sint(ty, x),
            (F32 | F64, _) => ins.fcvt_to_sint_sat(ty, x),
        };
        self.def(dst, v);
    }

    pub fn vreduce(&mut self, op: VRed, dst: Reg, src: Reg) {
        let x = self.get(src);
        if !self.wide() {
            return self.def(dst, x);
        }
        let elem = self.elem(dst);
        let op = match op {
            VRed::Add => VBin::Add,
            VRed::Mul => VBin::Mul,
            VRed::Min => VBin::Min,
            VRed::Max => VBin::Max,
        };
        let l: Vec<Value> = (0..4u8).map(|i| self.b.ins().extractlane(x, i)).collect();
        let [l0, l1, l2, l3] = l[..] else { return };
        let even = self.reduce_pair(op, elem, l0, l2);
        let odd = self.reduce_pair(op, elem, l1, l3);
        let r = self.reduce_pair(op, elem, even, odd);
        let v = self.splat(elem, r);
        self.def(dst, v);
    }

    fn reduce_pair(&mut self, op: VBin, elem: Elem, x: Value, y: Value) -> Value {
        if elem.is_float() && matches!(op, VBin::Min | VBin::Max) {
            let cc = if op == VBin::Min {
                FloatCC::LessThan
            } else {
                FloatCC::GreaterThan
            };
            let m = self.b.ins().fcmp(cc, x, y);
            return self.b.ins().select(m, x, y);
        }
        self.vbin(op, elem, x, y)
    }

    /// A call through the run-time table that the worker points at.
    pub fn vmath(&mut self, func: MathFn, dst: Reg, a: Reg, b: Option<Reg>) {
        if self.wide() {
            return self.unsupported(format!("{func:?} on lanes"));
        }
        let narrow = self.elem(dst) == Elem::F32;
        let mut args = Vec::new();
        for r in [Some(a), b].into_iter().flatten() {
            let v = self.get(r);
            args.push(if narrow {
                self.b.ins().fpromote(types::F64, v)
            } else {
                v
            });
        }
        let mut sig = Signature::new(self.target.config.default_call_conv);
        sig.params = vec![AbiParam::new(types::F64); args.len()];
        sig.returns = vec![AbiParam::new(types::F64)];
        let sig = self.b.import_signature(sig);
        let worker = self.get(WORKER);
        let stable = flags().with_readonly();
        let table = self.b.ins().load(types::I64, stable, worker, WORKER_RT);
        let entry = self
            .b
            .ins()
            .load(types::I64, stable, table, math_fn_offset(func));
        let call = self.b.ins().call_indirect(sig, entry, &args);
        let Some(&v) = self.b.inst_results(call).first() else {
            return;
        };
        let v = if narrow {
            self.b.ins().fdemote(types::F32, v)
        } else {
            v
        };
        self.def(dst, v);
    }

    pub fn mcount(&mut self, dst: Reg, count: Reg) {
        let n = self.get(count);
        let v = if self.wide() {
            // Held to what 32 bits take, then compared with the lanes' numbers.
            let (zero, most) = (self.imm(0), self.imm(i64::from(self.kernel.lanes)));
            let n = self.b.ins().smax(n, zero);
            let n = self.b.ins().smin(n, most);
            let n = self.spread_gpr(Elem::I32, n);
            let mut row = self.constant(Elem::I32, 0);
            for lane in 1..self.kernel.lanes as u8 {
                let x = self.scalar_constant(Elem::I32, u64::from(lane));
                row = self.b.ins().insertlane(row, x, lane);
            }
            self.b.ins().icmp(IntCC::SignedLessThan, row, n)
        } else {
            let zero = self.imm(0);
            self.b.ins().icmp(IntCC::SignedGreaterThan, n, zero)
        };
        self.def(dst, v);
    }
}
