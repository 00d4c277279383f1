//! Cranelift functions from kernels.
//!
//! In: a verified [`Kernel`] with one lane (scalars of every type) or four (vectors of 128 bits, of
//! F32 and I32 alone). Out: the body of an `ir::Function` of the kernel ABI, for every target that
//! Cranelift has. Registers become variables of the frontend, which makes SSA of them. Nothing
//! emitted traps: division is guarded, conversion saturates. What 128-bit CLIF cannot say (narrow
//! elements, masked memory, gathers, shifts by lanes) is done lane by lane.
//!
//! A mask is an `i8` of 0 or 1 with one lane, a vector of all-ones or zero lanes with four.
//!
//! [`mod@self`] walks the structure and does integers, `lanes` the vectors, `memory` loads,
//! stores and their narrow types.

mod lanes;
mod memory;

use crate::kernel::{
    ARGS, Addr, Class, Elem, GCmp, GOp, Inst, Int, Kernel, Reg, VBin, WORKER, WORKER_FAULT_KIND,
    WORKER_FAULT_LIMIT, WORKER_FAULT_OPERAND, WORKER_FAULT_VALUE,
};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, Block, Endianness, Function, InstBuilder, MemFlagsData, Signature, Type, Value, types,
};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use rustc_hash::FxHashMap as HashMap;

/// What the emitter must know of the target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Pointer width, byte order and calling convention.
    pub config: TargetFrontendConfig,
    /// Whether fused multiply-add is an instruction; else products and sums round apart.
    pub fma: bool,
}

/// Why a kernel has no function here.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EmitError {
    /// A lane count, class or operation that 128-bit CLIF lacks; one lane takes everything.
    #[error("kernel {kernel}: CLIF has no code for {what}")]
    Unsupported {
        /// The kernel's name.
        kernel: String,
        /// What there is no code for.
        what: String,
    },
}

/// The signature of the kernel ABI: five integers of 64 bits (pointers among them).
pub fn signature(call_conv: CallConv) -> Signature {
    let mut sig = Signature::new(call_conv);
    sig.params = vec![AbiParam::new(types::I64); ARGS as usize];
    sig
}

/// Fills an empty function with a kernel, which the caller has verified, and sets its signature.
pub fn emit(
    kernel: &Kernel,
    func: &mut Function,
    context: &mut FunctionBuilderContext,
    target: Target,
) -> Result<(), EmitError> {
    let fail = |what: String| {
        Err(EmitError::Unsupported {
            kernel: kernel.name.clone(),
            what,
        })
    };
    if let Some(what) = lacking(kernel) {
        return fail(what);
    }
    func.signature = signature(target.config.default_call_conv);
    let mut b = FunctionBuilder::new(func, context);
    let entry = b.create_block();
    let exit = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let lanes = kernel.lanes;
    let vars = kernel
        .regs
        .iter()
        .map(|c| b.declare_var(type_of(*c, lanes)))
        .collect();
    let args = b.block_params(entry).to_vec();
    let mut e = Emitter {
        kernel,
        target,
        vars,
        b,
        exit,
        counts: counts(kernel),
        unsupported: None,
    };
    for (i, arg) in args.into_iter().enumerate() {
        e.def(Reg(i as u32), arg);
    }
    e.body(&kernel.body);
    let Emitter {
        mut b, unsupported, ..
    } = e;
    b.ins().jump(exit, &[]);
    b.switch_to_block(exit);
    b.ins().return_(&[]);
    b.seal_all_blocks();
    b.finalize(target.config);
    match unsupported {
        Some(what) => fail(what),
        None => Ok(()),
    }
}

/// What a kernel has that this emitter lacks, as far as lanes and classes tell.
fn lacking(kernel: &Kernel) -> Option<String> {
    match kernel.lanes {
        1 => None,
        4 => kernel
            .regs
            .iter()
            .find(|c| matches!(c, Class::Vec(Elem::F64 | Elem::I64)))
            .map(|wide| format!("4 lanes of {wide:?}")),
        lanes => Some(format!("{lanes} lanes")),
    }
}

/// Whether [`emit`] takes the kernel.
pub fn supports(kernel: &Kernel) -> bool {
    lacking(kernel).is_none() && body_supported(kernel, &kernel.body)
}

fn body_supported(kernel: &Kernel, body: &[Inst]) -> bool {
    body.iter().all(|inst| {
        let own = match inst {
            Inst::VMath { .. } => kernel.lanes == 1,
            Inst::VBin {
                op: VBin::Div | VBin::Rem,
                dst,
                ..
            } => kernel.lanes == 1 || matches!(kernel.class(*dst), Class::Vec(Elem::F32)),
            _ => true,
        };
        own && inst.bodies().iter().all(|b| body_supported(kernel, b))
    })
}

/// The masks of a constant number of lanes.
fn counts(kernel: &Kernel) -> HashMap<Reg, i64> {
    #[derive(Default)]
    struct Found {
        times: Vec<u32>,
        constants: HashMap<Reg, i64>,
        masks: Vec<(Reg, Reg)>,
    }
    fn walk(body: &[Inst], found: &mut Found) {
        for inst in body {
            let times = inst.written();
            if let Some(times) = times.and_then(|r| found.times.get_mut(r.0 as usize)) {
                *times += 1;
            }
            if let Inst::GSet {
                dst,
                src: Int::Imm(n),
            } = inst
            {
                found.constants.insert(*dst, *n);
            }
            if let Inst::MCount { dst, count } = inst {
                found.masks.push((*dst, *count));
            }
            inst.bodies().iter().for_each(|b| walk(b, found));
        }
    }
    let mut found = Found {
        times: vec![0; kernel.regs.len()],
        ..Found::default()
    };
    walk(&kernel.body, &mut found);
    // What is assigned more than once is not constant.
    let once = |r: Reg| found.times.get(r.0 as usize) == Some(&1);
    let masks = found.masks.iter();
    let masks = masks.filter(|(mask, count)| once(*mask) && once(*count));
    masks
        .filter_map(|(mask, count)| Some((*mask, *found.constants.get(count)?)))
        .collect()
}

/// The type of one lane.
fn scalar(elem: Elem) -> Type {
    match elem {
        Elem::F32 => types::F32,
        Elem::F64 => types::F64,
        Elem::I32 => types::I32,
        Elem::I64 => types::I64,
    }
}

/// The integer type as wide as a lane.
fn scalar_bits(elem: Elem) -> Type {
    if elem.bytes() == 4 {
        types::I32
    } else {
        types::I64
    }
}

fn type_of(class: Class, lanes: u32) -> Type {
    match (class, lanes) {
        (Class::Gpr, _) => types::I64,
        (Class::Mask, 1) => types::I8,
        (Class::Mask, _) => types::I32X4,
        (Class::Vec(e), 1) => scalar(e),
        (Class::Vec(Elem::F32), _) => types::F32X4,
        (Class::Vec(_), _) => types::I32X4,
    }
}

/// Memory that does not trap, of any alignment.
fn flags() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

/// The same bits in another type; the order of lanes is the memory's.
fn cast_flags() -> MemFlagsData {
    MemFlagsData::new().with_endianness(Endianness::Little)
}

struct Emitter<'k, 'f> {
    kernel: &'k Kernel,
    target: Target,
    vars: Vec<Variable>,
    b: FunctionBuilder<'f>,
    exit: Block,
    /// Masks whose first lanes, so many, are on.
    counts: HashMap<Reg, i64>,
    unsupported: Option<String>,
}

fn condition(cmp: GCmp) -> IntCC {
    match cmp {
        GCmp::Eq => IntCC::Equal,
        GCmp::Ne => IntCC::NotEqual,
        GCmp::Lt => IntCC::SignedLessThan,
        GCmp::Le => IntCC::SignedLessThanOrEqual,
        GCmp::Gt => IntCC::SignedGreaterThan,
        GCmp::Ge => IntCC::SignedGreaterThanOrEqual,
    }
}

impl Emitter<'_, '_> {
    fn get(&mut self, r: Reg) -> Value {
        match self.vars.get(r.0 as usize) {
            Some(&v) => self.b.use_var(v),
            None => self.b.ins().iconst(types::I64, 0),
        }
    }
    fn def(&mut self, r: Reg, v: Value) {
        if let Some(&var) = self.vars.get(r.0 as usize) {
            self.b.def_var(var, v);
        }
    }
    fn imm(&mut self, v: i64) -> Value {
        self.b.ins().iconst(types::I64, v)
    }
    fn int(&mut self, i: Int) -> Value {
        match i {
            Int::Reg(r) => self.get(r),
            Int::Imm(v) => self.imm(v),
        }
    }
    fn elem(&self, r: Reg) -> Elem {
        match self.kernel.class(r) {
            Class::Vec(e) => e,
            Class::Mask | Class::Gpr => Elem::I32,
        }
    }
    fn unsupported(&mut self, what: String) {
        self.unsupported.get_or_insert(what);
    }
    fn wide(&self) -> bool {
        self.kernel.lanes > 1
    }

    /// Base and index of an address; the displacement goes into the access.
    fn address(&mut self, addr: Addr) -> Value {
        let base = self.get(addr.base);
        match addr.index {
            Some((index, scale)) => {
                let i = self.get(index);
                let by = i64::from(scale.trailing_zeros());
                let i = if by == 0 {
                    i
                } else {
                    let by = self.imm(by);
                    self.b.ins().ishl(i, by)
                };
                self.b.ins().iadd(base, i)
            }
            None => base,
        }
    }

    /// Emits a body; returns whether its end is reached.
    fn body(&mut self, body: &[Inst]) -> bool {
        for inst in body {
            if self.unsupported.is_some() {
                return true;
            }
            if !self.inst(inst) {
                // What follows is dead, but must stand in some block.
                let dead = self.b.create_block();
                self.b.switch_to_block(dead);
                return false;
            }
        }
        true
    }

    fn inst(&mut self, inst: &Inst) -> bool {
        match *inst {
            Inst::GSet { dst, src } => {
                let v = self.int(src);
                self.def(dst, v);
            }
            Inst::GBin { op, dst, a, b } => {
                let v = self.gbin(op, a, b);
                self.def(dst, v);
            }
            Inst::GLoad { dst, mem, addr } => self.gload(dst, mem, addr),
            Inst::GFromLane { dst, src } => {
                let v = self.get(src);
                let v = if self.wide() {
                    self.b.ins().extractlane(v, 0)
                } else {
                    v
                };
                let v = if self.elem(src).bytes() == 4 {
                    self.b.ins().sextend(types::I64, v)
                } else {
                    v
                };
                self.def(dst, v);
            }
            Inst::VConst { dst, bits } => {
                let v = self.constant(self.elem(dst), bits);
                self.def(dst, v);
            }
            Inst::VMove { dst, src } => {
                let v = self.get(src);
                self.def(dst, v);
            }
            Inst::VLoad {
                dst,
                mem,
                addr,
                mask,
            } => self.vload(dst, mem, addr, mask),
            Inst::VSplat { dst, mem, addr } => {
                let at = self.address(addr);
                let v = self.load_lane(mem, at, addr.disp);
                let v = self.splat(mem.elem(), v);
                self.def(dst, v);
            }
            Inst::VGather {
                dst,
                mem,
                base,
                index,
                mask,
            } => self.vgather(dst, mem, base, index, mask),
            Inst::VStore {
                src,
                mem,
                addr,
                mask,
            } => self.vstore(src, mem, addr, mask),
            Inst::VFromGpr { dst, src } => {
                let v = self.get(src);
                let v = self.spread_gpr(self.elem(dst), v);
                self.def(dst, v);
            }
            Inst::VIota { dst, base, step } => self.iota(dst, base, step),
            Inst::VUn { op, dst, a } => self.vun(op, dst, a),
            Inst::VBin { op, dst, a, b } => {
                let (x, y) = (self.get(a), self.get(b));
                let v = self.vbin(op, self.elem(dst), x, y);
                self.def(dst, v);
            }
            Inst::VFma { dst, a, b, c } => self.vfma(false, dst, a, b, c),
            Inst::VFnma { dst, a, b, c } => self.vfma(true, dst, a, b, c),
            Inst::VCmp { op, dst, a, b } => self.vcmp(op, dst, a, b),
            Inst::VSelect { dst, mask, a, b } => {
                let (m, x, y) = (self.get(mask), self.get(a), self.get(b));
                let v = self.choose(m, x, y);
                self.def(dst, v);
            }
            Inst::VCvt { how, dst, src } => self.vcvt(how, dst, src),
            Inst::VReduce { op, dst, src } => self.vreduce(op, dst, src),
            Inst::VMath { func, dst, a, b } => self.vmath(func, dst, a, b),
            Inst::MCount { dst, count } => self.mcount(dst, count),
            Inst::MAnd { dst, a, b } => {
                let (x, y) = (self.get(a), self.get(b));
                let v = self.b.ins().band(x, y);
                self.def(dst, v);
            }
            Inst::MOr { dst, a, b } => {
                let (x, y) = (self.get(a), self.get(b));
                let v = self.b.ins().bor(x, y);
                self.def(dst, v);
            }
            Inst::MNot { dst, a } => {
                let x = self.get(a);
                let v = if self.wide() {
                    self.b.ins().bnot(x)
                } else {
                    let one = self.b.ins().iconst(types::I8, 1);
                    self.b.ins().bxor(x, one)
                };
                self.def(dst, v);
            }
            Inst::Loop {
                var,
                from,
                to,
                step,
                ref body,
            } => self.a_loop(var, from, to, step, body),
            Inst::If {
                cmp,
                a,
                b,
                ref then,
                ref otherwise,
            } => return self.an_if(cmp, a, b, then, otherwise),
            Inst::Prefetch { .. } => {}
            Inst::Fault {
                kind,
                operand,
                value,
                limit,
            } => {
                self.fault(kind, operand, value, limit);
                return false;
            }
        }
        true
    }

    fn gbin(&mut self, op: GOp, a: Reg, b: Int) -> Value {
        let x = self.get(a);
        if let (GOp::FloorDiv | GOp::FloorMod, Int::Imm(v)) = (op, b) {
            return self.floor_by(op, x, v);
        }
        let y = self.int(b);
        let ins = self.b.ins();
        match op {
            GOp::Add => ins.iadd(x, y),
            GOp::Sub => ins.isub(x, y),
            GOp::Mul => ins.imul(x, y),
            GOp::And => ins.band(x, y),
            GOp::Or => ins.bor(x, y),
            GOp::Xor => ins.bxor(x, y),
            GOp::Shl => ins.ishl(x, y),
            GOp::Sar => ins.sshr(x, y),
            GOp::Min => ins.smin(x, y),
            GOp::Max => ins.smax(x, y),
            GOp::FloorDiv | GOp::FloorMod => {
                let (q, r) = self.divide(types::I64, x, y);
                self.floored(op, q, r, y)
            }
        }
    }

    fn floor_by(&mut self, op: GOp, x: Value, v: i64) -> Value {
        let y = self.imm(v);
        match (op, v) {
            (_, 0) => self.imm(0),
            (GOp::FloorDiv, -1) => self.b.ins().ineg(x),
            (_, -1) => self.imm(0),
            (GOp::FloorDiv, _) if v > 0 && v & (v - 1) == 0 => {
                let by = self.imm(i64::from(v.trailing_zeros()));
                self.b.ins().sshr(x, by)
            }
            (_, _) if v > 0 && v & (v - 1) == 0 => {
                let mask = self.imm(v - 1);
                self.b.ins().band(x, mask)
            }
            _ => {
                let q = self.b.ins().sdiv(x, y);
                let r = self.b.ins().srem(x, y);
                self.floored(op, q, r, y)
            }
        }
    }

    /// Quotient or remainder towards minus infinity, from those towards zero.
    fn floored(&mut self, op: GOp, q: Value, r: Value, y: Value) -> Value {
        let zero = self.imm(0);
        let inexact = self.b.ins().icmp(IntCC::NotEqual, r, zero);
        let signs = self.b.ins().bxor(r, y);
        let differ = self.b.ins().icmp(IntCC::SignedLessThan, signs, zero);
        let fix = self.b.ins().band(inexact, differ);
        if op == GOp::FloorDiv {
            let fix = self.b.ins().uextend(types::I64, fix);
            self.b.ins().isub(q, fix)
        } else {
            let by = self.b.ins().select(fix, y, zero);
            self.b.ins().iadd(r, by)
        }
    }

    /// Quotient and remainder towards zero; by zero both are 0, by -1 the quotient wraps.
    fn divide(&mut self, ty: Type, x: Value, y: Value) -> (Value, Value) {
        let zero = self.b.ins().iconst(ty, 0);
        let one = self.b.ins().iconst(ty, 1);
        let minus = self.b.ins().iconst(ty, -1);
        let by_zero = self.b.ins().icmp(IntCC::Equal, y, zero);
        let by_minus = self.b.ins().icmp(IntCC::Equal, y, minus);
        let special = self.b.ins().bor(by_zero, by_minus);
        let safe = self.b.ins().select(special, one, y);
        let q = self.b.ins().sdiv(x, safe);
        let r = self.b.ins().srem(x, safe);
        let negated = self.b.ins().ineg(x);
        let q = self.b.ins().select(by_minus, negated, q);
        let q = self.b.ins().select(by_zero, zero, q);
        // By one (the stand-in) the remainder is 0 already.
        (q, r)
    }

    fn a_loop(&mut self, var: Reg, from: Int, to: Int, step: i64, body: &[Inst]) {
        let first = self.int(from);
        let end = self.int(to);
        self.def(var, first);
        let head = self.b.create_block();
        let inside = self.b.create_block();
        let after = self.b.create_block();
        self.b.ins().jump(head, &[]);
        self.b.switch_to_block(head);
        let i = self.get(var);
        let more = self.b.ins().icmp(IntCC::SignedLessThan, i, end);
        self.b.ins().brif(more, inside, &[], after, &[]);
        self.b.switch_to_block(inside);
        if self.body(body) {
            let i = self.get(var);
            let step = self.imm(step);
            let next = self.b.ins().iadd(i, step);
            self.def(var, next);
        }
        self.b.ins().jump(head, &[]);
        self.b.switch_to_block(after);
    }

    fn an_if(&mut self, cmp: GCmp, a: Reg, b: Int, then: &[Inst], otherwise: &[Inst]) -> bool {
        let x = self.get(a);
        let y = self.int(b);
        let c = self.b.ins().icmp(condition(cmp), x, y);
        let yes = self.b.create_block();
        let no = self.b.create_block();
        let after = self.b.create_block();
        if matches!(then.last(), Some(Inst::Fault { .. })) {
            self.b.set_cold_block(yes);
        }
        self.b.ins().brif(c, yes, &[], no, &[]);
        self.b.switch_to_block(yes);
        let then_ends = self.body(then);
        self.b.ins().jump(after, &[]);
        self.b.switch_to_block(no);
        let otherwise_ends = self.body(otherwise);
        self.b.ins().jump(after, &[]);
        self.b.switch_to_block(after);
        if !then_ends && !otherwise_ends {
            self.b.ins().jump(self.exit, &[]);
            return false;
        }
        true
    }

    fn fault(&mut self, kind: i32, operand: i32, value: Reg, limit: Int) {
        let worker = self.get(WORKER);
        let held = self
            .b
            .ins()
            .load(types::I32, flags(), worker, WORKER_FAULT_KIND);
        let write = self.b.create_block();
        self.b.ins().brif(held, self.exit, &[], write, &[]);
        self.b.switch_to_block(write);
        let kind = self.b.ins().iconst(types::I32, i64::from(kind));
        let operand = self.b.ins().iconst(types::I32, i64::from(operand));
        let value = self.get(value);
        let limit = self.int(limit);
        let fields = [
            (kind, WORKER_FAULT_KIND),
            (operand, WORKER_FAULT_OPERAND),
            (value, WORKER_FAULT_VALUE),
            (limit, WORKER_FAULT_LIMIT),
        ];
        for (v, at) in fields {
            self.b.ins().store(flags(), v, worker, at);
        }
        self.b.ins().jump(self.exit, &[]);
    }
}
