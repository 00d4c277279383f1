//! The walk over a kernel: prologue, instructions in order, epilogue.
//!
//! An [`Emitter`] hands out operands. Reading a register that is not in a machine register loads it
//! into a temporary; writing one gives a temporary that [`Emitter::vdone`] (or its like) stores.
//! Temporaries are free again at the next instruction. When they do not suffice, the walk ends with
//! an [`Outcome`] that asks for more.

use super::alloc::{ARG_REGS, GPR_TEMPS, MASK_TEMPS, Place, Plan, vec_temp};
use super::asm::gpr::*;
use super::asm::{Alu, Arg, Asm, Base, Index, Label, Mem, Width};
use super::forms as f;
use super::live::{Liveness, Special, extent};
use super::table as t;
use super::{EmitError, Isa};
use crate::kernel::{Addr, Class, Elem, Inst, Kernel, Reg};

/// How a walk ended.
pub(super) enum Outcome {
    Done(Vec<u8>),
    /// One more vector temporary is needed.
    MoreVec,
    MoreGpr,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Short {
    Vec,
    Gpr,
}

/// A body emitted behind the rest, since it is hardly ever run.
struct Cold<'k> {
    label: Label,
    body: &'k [Inst],
    pos: u32,
}

pub(super) struct Emitter<'k> {
    pub kernel: &'k Kernel,
    pub isa: Isa,
    pub asm: Asm,
    pub live: &'k Liveness,
    pub plan: &'k Plan,
    /// Position of the instruction at hand, numbered as in `live`.
    pub pos: u32,
    pub epilogue: Label,
    vec_temps: usize,
    gpr_temps: usize,
    mask_temps: usize,
    short: Option<Short>,
    unsupported: Option<String>,
    cold: Vec<Cold<'k>>,
}

pub(super) fn emit(
    kernel: &Kernel,
    isa: Isa,
    live: &Liveness,
    plan: &Plan,
) -> Result<Outcome, EmitError> {
    let mut asm = Asm::new();
    let epilogue = asm.label();
    let mut e = Emitter {
        kernel,
        isa,
        asm,
        live,
        plan,
        pos: 2,
        epilogue,
        vec_temps: 0,
        gpr_temps: 0,
        mask_temps: 0,
        short: None,
        unsupported: None,
        cold: Vec::new(),
    };
    e.prologue();
    e.body(&kernel.body);
    e.finish()
}

impl<'k> Emitter<'k> {
    fn finish(mut self) -> Result<Outcome, EmitError> {
        self.epilogue();
        let mut next = 0;
        while next < self.cold.len() {
            let Cold { label, body, pos } = self.cold[next];
            self.asm.bind(label);
            self.pos = pos;
            self.body(body);
            next += 1;
        }
        if let Some(what) = self.unsupported {
            return Err(EmitError::Unsupported {
                kernel: self.kernel.name.clone(),
                isa: self.isa,
                what,
            });
        }
        match self.short {
            Some(Short::Vec) => Ok(Outcome::MoreVec),
            Some(Short::Gpr) => Ok(Outcome::MoreGpr),
            None => Ok(Outcome::Done(self.asm.finish()?)),
        }
    }

    fn prologue(&mut self) {
        let plan = self.plan;
        if plan.reserve.frame {
            self.asm.raw(&f::PUSH_R64, &[Arg::R64(RBP)], None, None);
            self.asm.mov(RBP, RSP);
        }
        for &r in &plan.saved {
            self.asm.raw(&f::PUSH_R64, &[Arg::R64(r)], None, None);
        }
        if plan.reserve.frame {
            self.asm.alu_imm(Alu::Sub, RSP, plan.frame_bytes);
            self.asm.alu_imm(Alu::And, RSP, -64);
        }
        self.arguments();
        for &(reg, machine, bits) in &plan.preloaded {
            if let Class::Vec(elem) = self.kernel.class(reg) {
                self.materialize(machine, elem, bits);
            }
        }
    }

    /// Moves the arguments from where the ABI puts them to where the plan does.
    fn arguments(&mut self) {
        let mut moves: Vec<(u8, u8)> = Vec::new();
        for (i, &from) in ARG_REGS.iter().enumerate() {
            match self.plan.places.get(i) {
                Some(Place::Gpr(to)) if *to != from => moves.push((*to, from)),
                Some(Place::Slot(at)) => self.asm.store(Mem::at(RSP, *at), from),
                _ => {}
            }
        }
        while let Some(&(first_to, first_from)) = moves.first() {
            let ready = moves
                .iter()
                .position(|&(to, _)| moves.iter().all(|&(_, from)| from != to));
            match ready {
                Some(i) => {
                    let (to, from) = moves.remove(i);
                    self.asm.mov(to, from);
                }
                None => {
                    // A cycle: its first source waits in the temporary.
                    self.asm.mov(RAX, first_from);
                    moves[0] = (first_to, RAX);
                }
            }
        }
    }

    fn epilogue(&mut self) {
        let plan = self.plan;
        self.asm.bind(self.epilogue);
        if plan.reserve.frame {
            self.asm
                .lea(RSP, Mem::at(RBP, -8 * plan.saved.len() as i32));
        }
        for &r in plan.saved.iter().rev() {
            self.asm.raw(&f::POP_R64, &[Arg::R64(r)], None, None);
        }
        if plan.reserve.frame {
            self.asm.raw(&f::POP_R64, &[Arg::R64(RBP)], None, None);
        }
        self.asm.plain(&f::VZEROUPPER);
        self.asm.plain(&f::RETNQ);
    }

    /// Emits a body; the position moves past it.
    pub fn body(&mut self, body: &'k [Inst]) {
        for inst in body {
            if self.short.is_some() || self.unsupported.is_some() {
                return;
            }
            self.release();
            self.inst(inst);
        }
    }

    /// Emits a body behind the epilogue; it must not fall out of its end.
    pub fn later(&mut self, body: &'k [Inst], extent: u32) -> Label {
        let label = self.asm.label();
        self.cold.push(Cold {
            label,
            body,
            pos: self.pos,
        });
        self.pos += extent;
        label
    }

    fn inst(&mut self, inst: &'k Inst) {
        match inst {
            Inst::Loop {
                var,
                from,
                to,
                step,
                body,
            } => return self.a_loop(*var, *from, *to, *step, body),
            Inst::If {
                cmp,
                a,
                b,
                then,
                otherwise,
            } => return self.an_if(*cmp, *a, *b, then, otherwise),
            _ => self.pos += extent(inst),
        }
        let special = |r: Reg| {
            self.live
                .special
                .get(r.0 as usize)
                .copied()
                .unwrap_or(Special::None)
        };
        if let Some(dst) = inst.written() {
            match special(dst) {
                Special::Folded(..) => return,
                Special::Constant(_) if matches!(inst, Inst::VConst { .. }) => return,
                _ => {}
            }
        }
        match *inst {
            Inst::GSet { dst, src } => self.gset(dst, src),
            Inst::GBin { op, dst, a, b } => self.gbin(op, dst, a, b),
            Inst::GLoad { dst, mem, addr } => self.gload(dst, mem, addr),
            Inst::GFromLane { dst, src } => self.first_lane(dst, src),
            Inst::VConst { dst, bits } => {
                let Class::Vec(elem) = self.kernel.class(dst) else {
                    return;
                };
                let d = self.vdst(dst);
                self.materialize(d, elem, bits);
                self.vdone(dst, d);
            }
            Inst::VMove { dst, src } => self.vmove(dst, src),
            Inst::VLoad {
                dst,
                mem,
                addr,
                mask,
            } => self.vload(dst, mem, addr, mask),
            Inst::VSplat { dst, mem, addr } => self.vsplat(dst, mem, addr),
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
            Inst::VFromGpr { dst, src } => self.spread_gpr(dst, src),
            Inst::VIota { dst, base, step } => self.iota(dst, base, step),
            Inst::VUn { op, dst, a } => self.vun(op, dst, a),
            Inst::VBin { op, dst, a, b } => self.vbin(op, dst, a, b),
            Inst::VFma { dst, a, b, c } => self.vfma(false, dst, a, b, c),
            Inst::VFnma { dst, a, b, c } => self.vfma(true, dst, a, b, c),
            Inst::VCmp { op, dst, a, b } => self.vcmp(op, dst, a, b),
            Inst::VSelect { dst, mask, a, b } => self.vselect(dst, mask, a, b),
            Inst::VCvt { how, dst, src } => self.vcvt(how, dst, src),
            Inst::VReduce { op, dst, src } => self.vreduce(op, dst, src),
            Inst::VMath { func, .. } => self.unsupported(format!("{func:?}")),
            Inst::MCount { dst, count } => self.mcount(dst, count),
            Inst::MAnd { dst, a, b } => self.mask_op(false, dst, a, b),
            Inst::MOr { dst, a, b } => self.mask_op(true, dst, a, b),
            Inst::MNot { dst, a } => self.mask_not(dst, a),
            Inst::Prefetch { addr, level } => self.prefetch(addr, level),
            Inst::Fault {
                kind,
                operand,
                value,
                limit,
            } => self.fault(kind, operand, value, limit),
            Inst::Loop { .. } | Inst::If { .. } => {}
        }
    }

    /// Ends the walk: this instruction set cannot do that.
    pub fn unsupported(&mut self, what: impl Into<String>) {
        self.unsupported.get_or_insert(what.into());
    }

    /// All temporaries are free again.
    pub fn release(&mut self) {
        self.vec_temps = 0;
        self.gpr_temps = 0;
        self.mask_temps = 0;
    }

    // Places and temporaries.

    pub fn place(&self, r: Reg) -> Place {
        self.plan
            .places
            .get(r.0 as usize)
            .copied()
            .unwrap_or(Place::None)
    }

    /// The width of a vector of such elements.
    pub fn width(&self, elem: Elem) -> Width {
        match self.kernel.lanes * elem.bytes() {
            64 => Width::Z,
            32 => Width::Y,
            _ => Width::X,
        }
    }

    pub fn elem(&self, r: Reg) -> Elem {
        match self.kernel.class(r) {
            Class::Vec(e) => e,
            // Masks of AVX2 are vectors of 32-bit lanes.
            Class::Mask | Class::Gpr => Elem::I32,
        }
    }

    pub fn vtemp(&mut self) -> u8 {
        if self.vec_temps >= self.plan.reserve.vec {
            self.short.get_or_insert(Short::Vec);
            return 0;
        }
        self.vec_temps += 1;
        vec_temp(self.isa, self.vec_temps - 1)
    }

    pub fn gtemp(&mut self) -> u8 {
        if self.gpr_temps >= self.plan.reserve.gpr {
            self.short.get_or_insert(Short::Gpr);
            return RAX;
        }
        self.gpr_temps += 1;
        GPR_TEMPS[self.gpr_temps - 1]
    }

    pub fn ktemp(&mut self) -> u8 {
        let k = MASK_TEMPS[self.mask_temps.min(1)];
        self.mask_temps += 1;
        k
    }

    pub fn release_mask(&mut self) {
        self.mask_temps = 0;
    }

    // General registers.

    pub fn greg(&mut self, r: Reg) -> u8 {
        match self.place(r) {
            Place::Gpr(n) => n,
            Place::Slot(at) => {
                let temp = self.gtemp();
                self.asm.load(temp, Mem::at(RSP, at));
                temp
            }
            _ => RAX,
        }
    }
    /// A register, or its slot as an operand.
    pub fn grm(&mut self, r: Reg) -> Arg {
        match self.place(r) {
            Place::Slot(at) => Arg::M(Mem::at(RSP, at)),
            _ => Arg::R64(self.greg(r)),
        }
    }
    pub fn gdst(&mut self, r: Reg) -> u8 {
        match self.place(r) {
            Place::Gpr(n) => n,
            Place::Slot(_) => self.gtemp(),
            _ => RAX,
        }
    }
    pub fn gdone(&mut self, r: Reg, n: u8) {
        if let Place::Slot(at) = self.place(r) {
            self.asm.store(Mem::at(RSP, at), n);
        }
    }
    pub fn mem(&mut self, addr: Addr) -> Mem {
        let base = self.greg(addr.base);
        let index = addr
            .index
            .map(|(r, scale)| (Index::Gpr(self.greg(r)), scale));
        Mem {
            base: Base::Gpr(base),
            index,
            disp: addr.disp,
            broadcast: false,
        }
    }

    // Vector registers.

    /// A machine register that holds `r`.
    pub fn vreg(&mut self, r: Reg) -> u8 {
        match self.place(r) {
            Place::Vec(n) => n,
            Place::None => 0,
            _ => {
                let temp = self.vtemp();
                self.vcopy_to(temp, r);
                temp
            }
        }
    }
    /// Puts the value of `r` into a machine register.
    pub fn vcopy_to(&mut self, to: u8, r: Reg) {
        let elem = self.elem(r);
        let w = self.width(elem);
        match self.place(r) {
            Place::Vec(n) => self.copy(w, to, n),
            Place::Slot(at) => self.load_whole(to, elem, Mem::at(RSP, at)),
            Place::Constant(bits) => self.materialize(to, elem, bits),
            Place::Folded(addr, splat) => {
                let m = self.mem(addr);
                if splat {
                    self.broadcast_from(to, elem, m);
                } else {
                    self.load_whole(to, elem, m);
                }
            }
            _ => {}
        }
    }
    /// Whether the value of `r` can only be had from memory.
    pub fn in_memory(&self, r: Reg) -> bool {
        matches!(
            self.place(r),
            Place::Slot(_) | Place::Constant(_) | Place::Folded(..)
        )
    }
    /// A register, or a memory operand.
    pub fn vrm(&mut self, r: Reg) -> Arg {
        let elem = self.elem(r);
        let w = self.width(elem);
        match self.place(r) {
            Place::Vec(n) => Arg::V(n, w),
            Place::Slot(at) => Arg::M(Mem::at(RSP, at)),
            Place::Constant(bits) => self.constant(elem, bits),
            Place::Folded(addr, splat) => {
                let m = self.mem(addr);
                Arg::M(Mem {
                    broadcast: splat,
                    ..m
                })
            }
            _ => Arg::V(0, w),
        }
    }
    pub fn vdst(&mut self, r: Reg) -> u8 {
        match self.place(r) {
            Place::Vec(n) => n,
            Place::Slot(_) => self.vtemp(),
            // A result that nobody reads.
            _ => self.vtemp(),
        }
    }
    pub fn vdone(&mut self, r: Reg, n: u8) {
        if let Place::Slot(at) = self.place(r) {
            let elem = self.elem(r);
            self.store_whole(n, elem, Mem::at(RSP, at));
        }
    }

    /// One value in every lane, as an operand.
    pub fn constant(&mut self, elem: Elem, bits: u64) -> Arg {
        let all = bits.to_le_bytes();
        let one = &all[..elem.bytes() as usize];
        let (c, broadcast) = match self.isa {
            Isa::Avx512 => (self.asm.constant(one), true),
            Isa::Avx2 => {
                let row = one.repeat(self.kernel.lanes as usize);
                (self.asm.constant(&row), false)
            }
        };
        Arg::M(Mem {
            base: Base::Pool(c),
            index: None,
            disp: 0,
            broadcast,
        })
    }

    /// A constant row of lanes, as a memory operand.
    pub fn row(&mut self, bytes: &[u8]) -> Arg {
        let c = self.asm.constant(bytes);
        Arg::M(Mem {
            base: Base::Pool(c),
            index: None,
            disp: 0,
            broadcast: false,
        })
    }

    /// One value in every lane, into a machine register.
    pub fn materialize(&mut self, to: u8, elem: Elem, bits: u64) {
        let all = bits.to_le_bytes();
        let one = &all[..elem.bytes() as usize];
        if one.iter().all(|&b| b == 0) {
            // The 128-bit form clears the rest as well.
            let v = Arg::V(to, Width::X);
            self.op(&t::XORPS, Width::X, &[v, v, v]);
            return;
        }
        let c = self.asm.constant(one);
        let m = Mem {
            base: Base::Pool(c),
            index: None,
            disp: 0,
            broadcast: false,
        };
        self.broadcast_from(to, elem, m);
    }

    pub fn broadcast_from(&mut self, to: u8, elem: Elem, m: Mem) {
        let w = self.width(elem);
        let op = if elem.bytes() == 4 {
            &t::BROADCASTSS_M
        } else {
            &t::BROADCASTSD_M
        };
        self.op(op, w, &[Arg::V(to, w), Arg::M(m)]);
    }

    pub fn copy(&mut self, w: Width, to: u8, from: u8) {
        if to != from {
            self.op(&t::MOVAPS, w, &[Arg::V(to, w), Arg::V(from, w)]);
        }
    }
    pub fn load_whole(&mut self, to: u8, elem: Elem, m: Mem) {
        let w = self.width(elem);
        self.op(&t::MOVUPS, w, &[Arg::V(to, w), Arg::M(m)]);
    }
    pub fn store_whole(&mut self, from: u8, elem: Elem, m: Mem) {
        let w = self.width(elem);
        self.op(&t::MOVUPS_ST, w, &[Arg::M(m), Arg::V(from, w)]);
    }

    // Shorthands of the assembler.

    pub fn op(&mut self, op: &t::Op, w: Width, args: &[Arg]) {
        self.asm.vop(op, w, args, None, None);
    }
    pub fn op_imm(&mut self, op: &t::Op, w: Width, args: &[Arg], imm: u8) {
        self.asm.vop(op, w, args, Some(imm), None);
    }
    /// Under a mask; `zero`: lanes off become 0.
    pub fn op_mask(&mut self, op: &t::Op, w: Width, args: &[Arg], k: u8, zero: bool) {
        self.asm.vop(op, w, args, None, Some((k, zero)));
    }
}
