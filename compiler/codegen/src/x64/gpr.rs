//! Integers, addresses and control.

use super::alloc::Place;
use super::asm::gpr::*;
use super::asm::{Alu, Arg, Base, Cond, Index, Mem, Shift, Width};
use super::emit::Emitter;
use super::forms as f;
use super::live::extent_of;
use super::table as t;
use crate::kernel::{
    Addr, GCmp, GOp, Inst, Int, Mem as Type, Reg, WORKER, WORKER_FAULT_KIND, WORKER_FAULT_LIMIT,
    WORKER_FAULT_OPERAND, WORKER_FAULT_VALUE,
};

/// Slots below the stack pointer, which a leaf may use.
const SAVED_RDX: i32 = -8;
const DIVISOR: i32 = -16;

fn cond(cmp: GCmp) -> Cond {
    match cmp {
        GCmp::Eq => Cond::E,
        GCmp::Ne => Cond::Ne,
        GCmp::Lt => Cond::L,
        GCmp::Le => Cond::Le,
        GCmp::Gt => Cond::G,
        GCmp::Ge => Cond::Ge,
    }
}

/// The exponent, if the value is a power of two.
fn log2(v: i64) -> Option<u8> {
    (v > 0 && v & (v - 1) == 0).then(|| v.trailing_zeros() as u8)
}

impl<'k> Emitter<'k> {
    pub fn gset(&mut self, dst: Reg, src: Int) {
        match (self.place(dst), src) {
            (Place::None, _) => {}
            (Place::Slot(at), Int::Imm(v)) if i32::try_from(v).is_ok() => {
                self.asm
                    .mem_imm(&f::MOV_RM64_IMM32, Mem::at(RSP, at), v as i32);
            }
            (_, Int::Imm(v)) => {
                let d = self.gdst(dst);
                self.asm.set(d, v);
                self.gdone(dst, d);
            }
            (Place::Gpr(d), Int::Reg(r)) => self.gcopy_to(d, r),
            (_, Int::Reg(r)) => {
                let s = self.greg(r);
                self.gdone(dst, s);
            }
        }
    }

    /// Puts the value of `r` into a machine register.
    fn gcopy_to(&mut self, to: u8, r: Reg) {
        match self.place(r) {
            Place::Slot(at) => self.asm.load(to, Mem::at(RSP, at)),
            Place::Gpr(n) => self.asm.mov(to, n),
            _ => {}
        }
    }

    pub fn gload(&mut self, dst: Reg, mem: Type, addr: Addr) {
        let m = Arg::M(self.mem(addr));
        let d = self.gdst(dst);
        self.load_int(d, mem, m);
        self.gdone(dst, d);
    }

    /// Loads an integer of some memory type, widened to 64 bits.
    pub fn load_int(&mut self, d: u8, mem: Type, m: Arg) {
        let (form, arg) = match mem {
            Type::I8 => (&f::MOVSX_R64_RM8, Arg::R64(d)),
            Type::U8 => (&f::MOVZX_R32_RM8, Arg::R32(d)),
            Type::I16 => (&f::MOVSX_R64_RM16, Arg::R64(d)),
            Type::U16 | Type::F16 | Type::BF16 => (&f::MOVZX_R32_RM16, Arg::R32(d)),
            Type::I32 => (&f::MOVSXD_R64_RM32, Arg::R64(d)),
            Type::U32 | Type::F32 => (&f::MOV_R32_RM32, Arg::R32(d)),
            Type::I64 | Type::F64 => (&f::MOV_R64_RM64, Arg::R64(d)),
        };
        self.asm.raw(form, &[arg, m], None, None);
    }

    pub fn first_lane(&mut self, dst: Reg, src: Reg) {
        let v = Arg::V(self.vreg(src), Width::X);
        let d = self.gdst(dst);
        if self.elem(src).bytes() == 4 {
            self.op(&t::MOVD_ST, Width::X, &[Arg::R32(d), v]);
            self.asm
                .raw(&f::MOVSXD_R64_RM32, &[Arg::R64(d), Arg::R32(d)], None, None);
        } else {
            self.op(&t::MOVQ_ST, Width::X, &[Arg::R64(d), v]);
        }
        self.gdone(dst, d);
    }

    pub fn gbin(&mut self, op: GOp, dst: Reg, a: Reg, b: Int) {
        match (op, b) {
            (GOp::FloorDiv | GOp::FloorMod, Int::Imm(v)) => self.floor_by(op, dst, a, v),
            (GOp::FloorDiv | GOp::FloorMod, Int::Reg(_)) => self.floor(op, dst, a, b),
            (_, Int::Imm(v)) => self.gbin_imm(op, dst, a, v),
            (_, Int::Reg(b)) => self.gbin_reg(op, dst, a, b),
        }
    }

    fn gbin_imm(&mut self, op: GOp, dst: Reg, a: Reg, v: i64) {
        let small = i32::try_from(v);
        match (op, small) {
            (GOp::Shl | GOp::Sar, _) => {
                let d = self.gdst(dst);
                self.gcopy_to(d, a);
                let shift = if op == GOp::Shl {
                    Shift::Shl
                } else {
                    Shift::Sar
                };
                if v & 63 != 0 {
                    self.asm.shift(shift, d, (v & 63) as u8);
                }
                self.gdone(dst, d);
            }
            (GOp::Add, Ok(v)) => self.add_imm(dst, a, v),
            (GOp::Sub, Ok(v)) if v != i32::MIN => self.add_imm(dst, a, -v),
            (GOp::Mul, Ok(v)) => self.mul_imm(dst, a, v),
            (GOp::And | GOp::Or | GOp::Xor, Ok(v)) => {
                let d = self.gdst(dst);
                self.gcopy_to(d, a);
                let alu = match op {
                    GOp::And => Alu::And,
                    GOp::Or => Alu::Or,
                    _ => Alu::Xor,
                };
                self.asm.alu_imm(alu, d, v);
                self.gdone(dst, d);
            }
            _ => {
                let t = self.gtemp();
                self.asm.set(t, v);
                self.gbin_machine(op, dst, a, t);
            }
        }
    }

    fn add_imm(&mut self, dst: Reg, a: Reg, v: i32) {
        if let (true, Place::Slot(at)) = (dst == a, self.place(dst)) {
            let form = if i8::try_from(v).is_ok() {
                &f::ADD_RM64_IMM8
            } else {
                &f::ADD_RM64_IMM32
            };
            self.asm.mem_imm(form, Mem::at(RSP, at), v);
            return;
        }
        let ra = self.greg(a);
        let d = self.gdst(dst);
        if v == 0 {
            self.asm.mov(d, ra);
        } else if d == ra {
            self.asm.alu_imm(Alu::Add, d, v);
        } else {
            self.asm.lea(d, Mem::at(ra, v));
        }
        self.gdone(dst, d);
    }

    fn mul_imm(&mut self, dst: Reg, a: Reg, v: i32) {
        let ra = self.greg(a);
        let d = self.gdst(dst);
        match v {
            0 => self.asm.set(d, 0),
            3 | 5 | 9 => {
                let m = Mem {
                    index: Some((Index::Gpr(ra), (v - 1) as u8)),
                    ..Mem::at(ra, 0)
                };
                self.asm.lea(d, m);
            }
            _ => match log2(i64::from(v)) {
                Some(by) => {
                    self.asm.mov(d, ra);
                    if by > 0 {
                        self.asm.shift(Shift::Shl, d, by);
                    }
                }
                None => self.asm.imul_imm(d, ra, v),
            },
        }
        self.gdone(dst, d);
    }

    fn gbin_reg(&mut self, op: GOp, dst: Reg, a: Reg, b: Reg) {
        let rb = self.greg(b);
        self.gbin_machine(op, dst, a, rb);
    }

    fn gbin_machine(&mut self, op: GOp, dst: Reg, a: Reg, rb: u8) {
        let ra = self.greg(a);
        let d = self.gdst(dst);
        match op {
            GOp::Add if d != ra && d != rb => {
                let m = Mem {
                    index: Some((Index::Gpr(rb), 1)),
                    ..Mem::at(ra, 0)
                };
                self.asm.lea(d, m);
            }
            GOp::Sub if d == rb && d != ra => {
                self.asm.neg(d);
                self.asm.alu(Alu::Add, d, Arg::R64(ra));
            }
            GOp::Min | GOp::Max => {
                let (first, second) = if d == rb { (rb, ra) } else { (ra, rb) };
                self.asm.mov(d, first);
                self.asm.alu(Alu::Cmp, d, Arg::R64(second));
                self.asm.cmov(op == GOp::Min, d, second);
            }
            _ => {
                let (first, second) = if d == rb { (rb, ra) } else { (ra, rb) };
                self.asm.mov(d, first);
                let second = Arg::R64(second);
                match op {
                    GOp::Add => self.asm.alu(Alu::Add, d, second),
                    GOp::Sub => self.asm.alu(Alu::Sub, d, second),
                    GOp::And => self.asm.alu(Alu::And, d, second),
                    GOp::Or => self.asm.alu(Alu::Or, d, second),
                    GOp::Xor => self.asm.alu(Alu::Xor, d, second),
                    GOp::Mul => self.asm.imul(d, second),
                    _ => self.unsupported("a shift by a register"),
                }
            }
        }
        self.gdone(dst, d);
    }

    /// Division by a constant.
    fn floor_by(&mut self, op: GOp, dst: Reg, a: Reg, v: i64) {
        match (op, v) {
            (_, 0) | (GOp::FloorMod, 1 | -1) => self.gset(dst, Int::Imm(0)),
            (_, 1) => self.gset(dst, Int::Reg(a)),
            _ => match log2(v) {
                Some(by) if op == GOp::FloorDiv => {
                    self.gbin_imm(GOp::Sar, dst, a, i64::from(by));
                }
                Some(_) => self.gbin_imm(GOp::And, dst, a, v - 1),
                None if op == GOp::FloorDiv && v > 2 => self.floor_by_product(dst, a, v),
                None => self.floor(op, dst, a, Int::Imm(v)),
            },
        }
    }

    /// Quotient by a constant `v > 2` that is no power of two, as the high half of a product.
    ///
    /// For `0 <= n < 2^63` and `s = ceil(log2 v)`, `floor(n / v) = (n * m) >> (63 + s)` with
    /// `m = floor(2^(63 + s) / v) + 1` (Granlund and Montgomery, 1994); negative `n` goes through
    /// its complement, since `floor(n / v) = !floor(!n / v)`.
    fn floor_by_product(&mut self, dst: Reg, a: Reg, v: i64) {
        let bits = 64 - (v - 1).leading_zeros();
        let m = ((1u128 << (63 + bits)) / v as u128 + 1) as u64;
        let sign = Mem::at(RSP, DIVISOR);
        self.gcopy_to(RAX, a);
        let keep = self.place(dst) != Place::Gpr(RDX);
        if keep {
            self.asm.store(Mem::at(RSP, SAVED_RDX), RDX);
        }
        self.asm.mov(RDX, RAX);
        self.asm.shift(Shift::Sar, RDX, 63);
        self.asm.store(sign, RDX);
        self.asm.alu(Alu::Xor, RAX, Arg::R64(RDX));
        self.asm.set(RDX, m as i64);
        self.asm.raw(&f::MUL_RM64, &[Arg::R64(RDX)], None, None);
        self.asm.shift(Shift::Shr, RDX, bits as u8 - 1);
        self.asm.alu(Alu::Xor, RDX, Arg::M(sign));
        self.asm.mov(RAX, RDX);
        if keep {
            self.asm.load(RDX, Mem::at(RSP, SAVED_RDX));
        }
        match self.place(dst) {
            Place::Gpr(d) => self.asm.mov(d, RAX),
            _ => self.gdone(dst, RAX),
        }
    }

    /// The general division. `idiv` wants rax and rdx: the former is a temporary, the latter is kept
    /// below the stack pointer, as is the divisor.
    fn floor(&mut self, op: GOp, dst: Reg, a: Reg, b: Int) {
        let divisor = Mem::at(RSP, DIVISOR);
        let guarded = matches!(b, Int::Reg(_) | Int::Imm(-1 | 0));
        match b {
            Int::Reg(r) => self.gcopy_to(RAX, r),
            Int::Imm(v) => self.asm.set(RAX, v),
        }
        self.asm.store(divisor, RAX);
        self.gcopy_to(RAX, a);
        let keep = self.place(dst) != Place::Gpr(RDX);
        if keep {
            self.asm.store(Mem::at(RSP, SAVED_RDX), RDX);
        }
        let (zero, minus, end) = (self.asm.label(), self.asm.label(), self.asm.label());
        if guarded {
            self.asm.mem_imm(&f::CMP_RM64_IMM8, divisor, 0);
            self.asm.jcc(Cond::E, zero);
            self.asm.mem_imm(&f::CMP_RM64_IMM8, divisor, -1);
            self.asm.jcc(Cond::E, minus);
        }
        self.asm.plain(&f::CQO);
        self.asm.raw(&f::IDIV_RM64, &[Arg::M(divisor)], None, None);
        let exact = self.asm.label();
        if op == GOp::FloorDiv {
            // One less where the remainder is not zero and its sign is not the divisor's.
            self.asm.alu_imm(Alu::Cmp, RDX, 0);
            self.asm.jcc(Cond::E, end);
            self.asm.alu(Alu::Xor, RDX, Arg::M(divisor));
            self.asm.shift(Shift::Sar, RDX, 63);
            self.asm.alu(Alu::Add, RAX, Arg::R64(RDX));
        } else {
            self.asm.mov(RAX, RDX);
            self.asm.alu_imm(Alu::Cmp, RAX, 0);
            self.asm.jcc(Cond::E, end);
            self.asm.alu(Alu::Xor, RDX, Arg::M(divisor));
            self.asm.jcc(Cond::Ns, exact);
            self.asm.alu(Alu::Add, RAX, Arg::M(divisor));
            self.asm.bind(exact);
        }
        if guarded {
            self.asm.jmp(end);
            self.asm.bind(minus);
            if op == GOp::FloorDiv {
                self.asm.neg(RAX);
                self.asm.jmp(end);
            }
            self.asm.bind(zero);
            self.asm.set(RAX, 0);
        }
        self.asm.bind(end);
        if keep {
            self.asm.load(RDX, Mem::at(RSP, SAVED_RDX));
        }
        match self.place(dst) {
            Place::Gpr(d) => self.asm.mov(d, RAX),
            _ => self.gdone(dst, RAX),
        }
    }

    /// Compares a register with an integer and sets the flags.
    fn compare(&mut self, a: Reg, b: Int) {
        match (self.place(a), b) {
            (Place::Slot(at), Int::Imm(v)) if i32::try_from(v).is_ok() => {
                let form = if i8::try_from(v).is_ok() {
                    &f::CMP_RM64_IMM8
                } else {
                    &f::CMP_RM64_IMM32
                };
                self.asm.mem_imm(form, Mem::at(RSP, at), v as i32);
            }
            (_, Int::Imm(v)) => {
                let ra = self.greg(a);
                match i32::try_from(v) {
                    Ok(v) => self.asm.alu_imm(Alu::Cmp, ra, v),
                    Err(_) => {
                        let t = self.gtemp();
                        self.asm.set(t, v);
                        self.asm.alu(Alu::Cmp, ra, Arg::R64(t));
                    }
                }
            }
            (_, Int::Reg(b)) => {
                let ra = self.greg(a);
                let rb = self.grm(b);
                self.asm.alu(Alu::Cmp, ra, rb);
            }
        }
    }

    pub fn a_loop(&mut self, var: Reg, from: Int, to: Int, step: i64, body: &'k [Inst]) {
        let mut bound = to;
        if let (Some(&kept), Int::Reg(_)) = (self.live.kept_bounds.get(&self.pos), to) {
            self.gset(kept, to);
            self.release();
            bound = Int::Reg(kept);
        }
        self.pos += 2;
        let end = self.asm.label();
        self.gset(var, from);
        self.release();
        let turns = match (from, to) {
            (Int::Imm(f), Int::Imm(t)) => Some(
                (i128::from(t) - i128::from(f))
                    .max(0)
                    .div_euclid(i128::from(step.max(1)))
                    + i128::from(
                        (i128::from(t) - i128::from(f)).max(0) % i128::from(step.max(1)) != 0,
                    ),
            ),
            _ => None,
        };
        match turns {
            Some(0) => self.asm.jmp(end),
            Some(_) => {}
            None => {
                self.compare(var, bound);
                self.release();
                self.asm.jcc(Cond::Ge, end);
            }
        }
        let innermost = !body
            .iter()
            .any(|i| matches!(i, Inst::Loop { .. } | Inst::If { .. }));
        if innermost && turns != Some(1) {
            self.asm.align(32);
        }
        let top = self.asm.label();
        self.asm.bind(top);
        self.body(body);
        self.release();
        if turns != Some(1) {
            self.gbin(GOp::Add, var, var, Int::Imm(step));
            self.release();
            self.compare(var, bound);
            self.release();
            self.asm.jcc(Cond::L, top);
        }
        self.asm.bind(end);
        self.pos += 2;
    }

    pub fn an_if(&mut self, cmp: GCmp, a: Reg, b: Int, then: &'k [Inst], otherwise: &'k [Inst]) {
        self.pos += 2;
        self.compare(a, b);
        self.release();
        let leaves = matches!(then.last(), Some(Inst::Fault { .. }));
        if leaves {
            let cold = self.later(then, extent_of(then));
            self.asm.jcc(cond(cmp), cold);
            self.body(otherwise);
            return;
        }
        let (other, end) = (self.asm.label(), self.asm.label());
        self.asm.jcc(cond(cmp).not(), other);
        self.body(then);
        if !otherwise.is_empty() {
            self.asm.jmp(end);
        }
        self.asm.bind(other);
        self.body(otherwise);
        self.asm.bind(end);
    }

    pub fn prefetch(&mut self, addr: Addr, level: u8) {
        let m = Arg::M(self.mem(addr));
        let form = if level == 0 {
            &f::PREFETCHT0_M8
        } else {
            &f::PREFETCHT1_M8
        };
        self.asm.raw(form, &[m], None, None);
    }

    pub fn fault(&mut self, kind: i32, operand: i32, value: Reg, limit: Int) {
        let worker = self.greg(WORKER);
        let field = |offset| Mem::at(worker, offset);
        self.asm
            .mem_imm(&f::CMP_RM32_IMM8, field(WORKER_FAULT_KIND), 0);
        self.asm.jcc(Cond::Ne, self.epilogue);
        self.asm
            .mem_imm(&f::MOV_RM32_IMM32, field(WORKER_FAULT_KIND), kind);
        self.asm
            .mem_imm(&f::MOV_RM32_IMM32, field(WORKER_FAULT_OPERAND), operand);
        let v = self.greg(value);
        self.asm.store(field(WORKER_FAULT_VALUE), v);
        match limit {
            Int::Imm(v) if i32::try_from(v).is_ok() => {
                self.asm
                    .mem_imm(&f::MOV_RM64_IMM32, field(WORKER_FAULT_LIMIT), v as i32);
            }
            Int::Imm(v) => {
                let t = self.gtemp();
                self.asm.set(t, v);
                self.asm.store(field(WORKER_FAULT_LIMIT), t);
            }
            Int::Reg(r) => {
                let l = self.greg(r);
                self.asm.store(field(WORKER_FAULT_LIMIT), l);
            }
        }
        self.asm.jmp(self.epilogue);
    }

    /// The address of one lane's bytes.
    pub fn lane_address(base: u8, index: u8, scale: u8) -> Mem {
        Mem {
            base: Base::Gpr(base),
            index: Some((Index::Gpr(index), scale)),
            disp: 0,
            broadcast: false,
        }
    }
}
