//! Vector operations that both instruction sets have, or do by the same steps.
//!
//! Sequences write their result last, since it may stand in the register of an operand. Whole vectors
//! pass through memory below the stack pointer (a leaf owns 128 bytes there) where a lane must be
//! touched alone.

use super::Isa;
use super::alloc::Place;
use super::asm::gpr::*;
use super::asm::{Alu, Arg, Cond, Mem, Shift, Width};
use super::emit::Emitter;
use super::forms as f;
use super::select::{self, wide};
use super::table as t;
use crate::kernel::{Addr, Class, Elem, Mem as Type, Reg, VBin, VCmp, VRed, VUn};

/// Sixty-four bytes below the stack pointer for one vector.
pub(super) const BUFFER: Mem = Mem {
    base: super::asm::Base::Gpr(RSP),
    index: None,
    disp: -64,
    broadcast: false,
};
/// Below it, a mask as bits.
pub(super) const MASK_BITS: Mem = Mem {
    base: super::asm::Base::Gpr(RSP),
    index: None,
    disp: -72,
    broadcast: false,
};

/// Sign bit of an element.
pub(super) fn sign_bit(elem: Elem) -> u64 {
    match elem.bytes() {
        4 => 0x8000_0000,
        _ => 1 << 63,
    }
}

impl Emitter<'_> {
    pub fn vmove(&mut self, dst: Reg, src: Reg) {
        match (self.place(dst), self.place(src)) {
            (Place::Vec(d), _) => self.vcopy_to(d, src),
            (Place::Mask(d), Place::Mask(s)) => {
                if d != s {
                    self.asm
                        .raw(&f::KMOVW_KR_KM16, &[Arg::K(d), Arg::K(s)], None, None);
                }
            }
            _ if self.isa == Isa::Avx512 && self.kernel.class(dst) == Class::Mask => {
                let k = self.kreg(src);
                self.kmove(dst, k);
            }
            (Place::None, _) => {}
            _ => {
                let v = self.vreg(src);
                self.vdone(dst, v);
            }
        }
    }

    pub fn vload(&mut self, dst: Reg, mem: Type, addr: Addr, mask: Option<Reg>) {
        match self.isa {
            Isa::Avx512 => self.load_512(dst, mem, addr, mask),
            Isa::Avx2 => self.load_avx2(dst, mem, addr, mask),
        }
    }

    pub fn vstore(&mut self, src: Reg, mem: Type, addr: Addr, mask: Option<Reg>) {
        match self.isa {
            Isa::Avx512 => self.store_512(src, mem, addr, mask),
            Isa::Avx2 => self.store_avx2(src, mem, addr, mask),
        }
    }

    /// Widening loads without a mask, which differ between the sets in their encodings alone.
    /// Returns whether the type is one of those.
    pub fn load_wide(&mut self, d: u8, mem: Type, m: Mem, mask: Option<u8>) {
        let w = self.width(mem.elem());
        let (op, w) = match mem {
            Type::F32 | Type::I32 => (&t::MOVUPS, w),
            Type::F64 | Type::I64 => (&t::MOVUPD, w),
            Type::I8 => (&t::PMOVSXBD, w),
            Type::U8 => (&t::PMOVZXBD, w),
            Type::I16 => (&t::PMOVSXWD, w),
            Type::U16 | Type::BF16 => (&t::PMOVZXWD, w),
            Type::U32 => (&t::PMOVZXDQ, w),
            Type::F16 => (&t::CVTPH2PS, w),
        };
        let args = [Arg::V(d, w), Arg::M(m)];
        match mask {
            Some(k) => self.op_mask(op, w, &args, k, true),
            None => self.op(op, w, &args),
        }
        if mem == Type::BF16 {
            self.op_imm(&t::PSLLD_I, w, &[Arg::V(d, w), Arg::V(d, w)], 16);
        }
    }

    pub fn vsplat(&mut self, dst: Reg, mem: Type, addr: Addr) {
        let m = self.mem(addr);
        let d = self.vdst(dst);
        let elem = mem.elem();
        let w = self.width(elem);
        match mem {
            Type::F32 | Type::F64 | Type::I32 | Type::I64 => self.broadcast_from(d, elem, m),
            Type::F16 => {
                let half = if w == Width::Z { Width::Y } else { Width::X };
                self.op(&t::PBROADCASTW, half, &[Arg::V(d, half), Arg::M(m)]);
                self.op(&t::CVTPH2PS, w, &[Arg::V(d, w), Arg::V(d, half)]);
            }
            Type::I8 | Type::U8 | Type::I16 | Type::U16 | Type::BF16 | Type::U32 => {
                let g = self.gtemp();
                self.load_int(g, mem, Arg::M(m));
                if mem == Type::BF16 {
                    self.asm.shift(Shift::Shl, g, 16);
                }
                self.spread(d, elem, g);
            }
        }
        self.vdone(dst, d);
    }

    /// A general register to every lane.
    pub fn spread(&mut self, d: u8, elem: Elem, g: u8) {
        let w = self.width(elem);
        let v = Arg::V(d, w);
        match (self.isa, elem.bytes()) {
            (Isa::Avx512, 4) => self.op(&t::PBROADCASTD_R, w, &[v, Arg::R32(g)]),
            (Isa::Avx512, _) => self.op(&t::PBROADCASTQ_R, w, &[v, Arg::R64(g)]),
            (Isa::Avx2, 4) => {
                let x = Arg::V(d, Width::X);
                self.op(&t::MOVD, Width::X, &[x, Arg::R32(g)]);
                self.op(&t::PBROADCASTD, w, &[v, x]);
            }
            (Isa::Avx2, _) => {
                let x = Arg::V(d, Width::X);
                self.op(&t::MOVQ, Width::X, &[x, Arg::R64(g)]);
                self.op(&t::PBROADCASTQ, w, &[v, x]);
            }
        }
    }

    pub fn spread_gpr(&mut self, dst: Reg, src: Reg) {
        let g = self.greg(src);
        let d = self.vdst(dst);
        self.spread(d, self.elem(dst), g);
        self.vdone(dst, d);
    }

    pub fn iota(&mut self, dst: Reg, base: Reg, step: i64) {
        let g = self.greg(base);
        let d = self.vdst(dst);
        let elem = self.elem(dst);
        self.spread(d, elem, g);
        let n = elem.bytes() as usize;
        let row: Vec<u8> = (0..i64::from(self.kernel.lanes))
            .flat_map(|l| l.wrapping_mul(step).to_le_bytes().into_iter().take(n))
            .collect();
        let row = self.row(&row);
        let w = self.width(elem);
        let v = Arg::V(d, w);
        self.op(wide(elem, &t::PADDD, &t::PADDQ), w, &[v, v, row]);
        self.vdone(dst, d);
    }

    pub fn vun(&mut self, op: VUn, dst: Reg, a: Reg) {
        let elem = self.elem(dst);
        let w = self.width(elem);
        let float = elem.is_float();
        let round = |imm: u8| Some((wide(elem, &t::ROUNDPS, &t::ROUNDPD), imm));
        let rounding = match op {
            VUn::Floor => round(9),
            VUn::Ceil => round(10),
            VUn::Trunc => round(11),
            VUn::Round => round(8),
            _ => None,
        };
        if let Some((row, imm)) = rounding {
            let a = self.vrm(a);
            let d = self.vdst(dst);
            self.op_imm(row, w, &[Arg::V(d, w), a], imm);
            return self.vdone(dst, d);
        }
        let ra = self.vreg(a);
        let d = self.vdst(dst);
        let (va, vd) = (Arg::V(ra, w), Arg::V(d, w));
        match (op, float) {
            (VUn::Neg, true) => {
                let c = self.constant(elem, sign_bit(elem));
                self.op(wide(elem, &t::XORPS, &t::XORPD), w, &[vd, va, c]);
            }
            (VUn::Abs, true) => {
                let c = self.constant(elem, sign_bit(elem) - 1);
                self.op(wide(elem, &t::ANDPS, &t::ANDPD), w, &[vd, va, c]);
            }
            (VUn::Sqrt, true) => self.op(wide(elem, &t::SQRTPS, &t::SQRTPD), w, &[vd, va]),
            (VUn::Neg, false) => {
                let zero = self.vtemp();
                self.materialize(zero, elem, 0);
                let row = wide(elem, &t::PSUBD, &t::PSUBQ);
                self.op(row, w, &[vd, Arg::V(zero, w), va]);
            }
            (VUn::Abs, false) if elem == Elem::I32 => self.op(&t::PABSD, w, &[vd, va]),
            (VUn::Abs, false) if self.isa == Isa::Avx512 => self.op(&t::PABSQ, w, &[vd, va]),
            (VUn::Abs, false) => self.abs_i64(d, ra),
            (VUn::Not, false) => {
                let c = self.constant(elem, u64::MAX);
                self.op(&t::XORPS, w, &[vd, va, c]);
            }
            _ => self.unsupported(format!("{op:?} on {elem:?}")),
        }
        self.vdone(dst, d);
    }

    pub fn vbin(&mut self, op: VBin, dst: Reg, a: Reg, b: Reg) {
        let elem = self.elem(dst);
        let w = self.width(elem);
        if let (VBin::Shl | VBin::Shr | VBin::Sar, Place::Constant(by)) = (op, self.place(b)) {
            let bits = u64::from(elem.bytes() * 8);
            let by = if elem.bytes() == 4 {
                by & 0xffff_ffff
            } else {
                by
            };
            if let Some(row) = select::shift_imm(op, elem, self.isa)
                && by < bits
            {
                let ra = self.vreg(a);
                let d = self.vdst(dst);
                self.op_imm(row, w, &[Arg::V(d, w), Arg::V(ra, w)], by as u8);
                return self.vdone(dst, d);
            }
        }
        let swaps = select::bin(op, elem, self.isa).is_some_and(|(_, s)| s);
        let (a, b) = if swaps && self.in_memory(a) && !self.in_memory(b) {
            (b, a)
        } else {
            (a, b)
        };
        let ra = self.vreg(a);
        let rb = if a == b { Arg::V(ra, w) } else { self.vrm(b) };
        let d = self.vdst(dst);
        self.lanes_op(op, elem, d, ra, rb);
        self.vdone(dst, d);
    }

    /// `d = a op b` on machine registers.
    pub fn lanes_op(&mut self, op: VBin, elem: Elem, d: u8, a: u8, b: Arg) {
        let w = self.width(elem);
        match select::bin(op, elem, self.isa) {
            Some((row, _)) => self.op(row, w, &[Arg::V(d, w), Arg::V(a, w), b]),
            None if self.isa == Isa::Avx2 && elem == Elem::I64 => self.i64_op(op, d, a, b),
            None => self.unsupported(format!("{op:?} on {elem:?}")),
        }
    }

    pub fn vfma(&mut self, negate: bool, dst: Reg, a: Reg, b: Reg, c: Reg) {
        let elem = self.elem(dst);
        let w = self.width(elem);
        let Some(forms) = select::fma(negate, elem) else {
            return self.integer_fma(negate, dst, a, b, c);
        };
        let d = self.vdst(dst);
        let vd = Arg::V(d, w);
        // Which operand already stands in the destination; else which one goes there.
        let at = |e: &Self, r: Reg| e.place(r) == Place::Vec(d);
        let (a_there, b_there, c_there) = (at(self, a), at(self, b), at(self, c));
        let memories = [a, b, c].map(|r| self.in_memory(r));
        let in_registers = !memories.contains(&true);
        if c_there || (in_registers && !a_there && !b_there) {
            if !c_there {
                self.vcopy_to(d, c);
            }
            let (a, b) = if memories[0] && !memories[1] {
                (b, a)
            } else {
                (a, b)
            };
            let (ra, rb) = (self.vreg(a), self.vrm(b));
            self.op(forms.f231, w, &[vd, Arg::V(ra, w), rb]);
        } else {
            // One factor in the destination; the other and the addend, at most one in memory.
            let factor_first = a_there || (!b_there && memories[0]) || (!b_there && !memories[1]);
            let (first, other) = if factor_first { (a, b) } else { (b, a) };
            let first_there = if factor_first { a_there } else { b_there };
            if !first_there {
                self.vcopy_to(d, first);
            }
            if self.in_memory(c) {
                let ro = if other == first { d } else { self.vreg(other) };
                let rc = self.vrm(c);
                self.op(forms.f213, w, &[vd, Arg::V(ro, w), rc]);
            } else {
                let rc = self.vreg(c);
                let ro = if other == first { vd } else { self.vrm(other) };
                self.op(forms.f132, w, &[vd, Arg::V(rc, w), ro]);
            }
        }
        self.vdone(dst, d);
    }

    fn integer_fma(&mut self, negate: bool, dst: Reg, a: Reg, b: Reg, c: Reg) {
        let elem = self.elem(dst);
        let w = self.width(elem);
        let (a, b) = if self.in_memory(a) { (b, a) } else { (a, b) };
        let (ra, rb) = (self.vreg(a), self.vrm(b));
        let product = self.vtemp();
        self.lanes_op(VBin::Mul, elem, product, ra, rb);
        let rc = self.vreg(c);
        let d = self.vdst(dst);
        let op = if negate { VBin::Sub } else { VBin::Add };
        self.lanes_op(op, elem, d, rc, Arg::V(product, w));
        self.vdone(dst, d);
    }

    pub fn vcmp(&mut self, op: VCmp, dst: Reg, a: Reg, b: Reg) {
        // A constant is better on the right.
        let (op, a, b) = if self.in_memory(a) && !self.in_memory(b) {
            let mirrored = match op {
                VCmp::Lt => VCmp::Gt,
                VCmp::Le => VCmp::Ge,
                VCmp::Gt => VCmp::Lt,
                VCmp::Ge => VCmp::Le,
                other => other,
            };
            (mirrored, b, a)
        } else {
            (op, a, b)
        };
        match self.isa {
            Isa::Avx512 => self.cmp_512(op, dst, a, b),
            Isa::Avx2 => self.cmp_avx2(op, dst, a, b),
        }
    }

    pub fn vselect(&mut self, dst: Reg, mask: Reg, a: Reg, b: Reg) {
        match self.isa {
            Isa::Avx512 => self.select_512(dst, mask, a, b),
            Isa::Avx2 => self.select_avx2(dst, mask, a, b),
        }
    }

    pub fn vcvt(&mut self, how: crate::kernel::VCvt, dst: Reg, src: Reg) {
        use crate::kernel::VCvt;
        let (from, to) = (self.elem(src), self.elem(dst));
        if how == VCvt::Bits || from == to {
            return self.vmove(dst, src);
        }
        let near = how == VCvt::NearestInRange;
        match self.isa {
            Isa::Avx512 => self.cvt_512(near, dst, src),
            Isa::Avx2 => self.cvt_avx2(near, dst, src),
        }
    }

    pub fn vreduce(&mut self, op: VRed, dst: Reg, src: Reg) {
        let elem = self.elem(dst);
        let w = self.width(elem);
        let op = match op {
            VRed::Add => VBin::Add,
            VRed::Mul => VBin::Mul,
            VRed::Min => VBin::Min,
            VRed::Max => VBin::Max,
        };
        let mut x = self.vreg(src);
        let d = self.vdst(dst);
        let swapped = self.vtemp();
        let y = Arg::V(swapped, w);
        // Each step pairs a lane with its mirror at half the distance, so all lanes end equal.
        let mut steps: Vec<(&t::Op, bool, u8)> = Vec::new();
        match (w, self.isa) {
            (Width::Z, _) => {
                steps.push((&t::SHUFF64X2, true, 0x4e));
                steps.push((&t::SHUFF64X2, true, 0xb1));
            }
            (Width::Y, Isa::Avx512) => steps.push((&t::SHUFF64X2, true, 1)),
            (Width::Y, Isa::Avx2) => steps.push((&t::PERM2F128, true, 1)),
            (Width::X, _) => {}
        }
        steps.push((&t::PERMILPS_I, false, 0x4e));
        if elem.bytes() == 4 {
            steps.push((&t::PERMILPS_I, false, 0xb1));
        }
        for (shuffle, two, imm) in steps {
            let v = Arg::V(x, w);
            if two {
                self.op_imm(shuffle, w, &[y, v, v], imm);
            } else {
                self.op_imm(shuffle, w, &[y, v], imm);
            }
            self.lanes_op(op, elem, d, x, y);
            x = d;
        }
        if elem.is_float() && matches!(op, VBin::Min | VBin::Max) {
            // These do not commute (NaN, zeros): the first lane speaks for all.
            let row = wide(elem, &t::PBROADCASTD, &t::PBROADCASTQ);
            self.op(row, w, &[Arg::V(d, w), Arg::V(d, Width::X)]);
        }
        self.vdone(dst, d);
    }

    // Masks.

    pub fn mcount(&mut self, dst: Reg, count: Reg) {
        // The count, held between 0 and the number of lanes.
        let lanes = self.kernel.lanes as i32;
        let g = self.gtemp();
        let c = self.greg(count);
        self.asm.mov(g, c);
        self.asm.shift(Shift::Sar, g, 63);
        self.asm.raw(
            &f::ANDN_R64_R64_RM64,
            &[Arg::R64(g), Arg::R64(g), Arg::R64(c)],
            None,
            None,
        );
        let fits = self.asm.label();
        self.asm.alu_imm(Alu::Cmp, g, lanes);
        self.asm.jcc(Cond::Le, fits);
        self.asm.set(g, i64::from(lanes));
        self.asm.bind(fits);
        match self.isa {
            Isa::Avx512 => self.count_512(dst, g),
            Isa::Avx2 => self.count_avx2(dst, g),
        }
    }

    pub fn mask_op(&mut self, or: bool, dst: Reg, a: Reg, b: Reg) {
        match self.isa {
            Isa::Avx512 => self.mask_op_512(or, dst, a, b),
            Isa::Avx2 => {
                let (ra, rb) = (self.vreg(a), self.vrm(b));
                let d = self.vdst(dst);
                let op = if or { VBin::Or } else { VBin::And };
                self.lanes_op(op, Elem::I32, d, ra, rb);
                self.vdone(dst, d);
            }
        }
    }

    pub fn mask_not(&mut self, dst: Reg, a: Reg) {
        match self.isa {
            Isa::Avx512 => self.mask_not_512(dst, a),
            Isa::Avx2 => {
                let ra = self.vreg(a);
                let d = self.vdst(dst);
                let ones = self.constant(Elem::I32, u64::MAX);
                self.lanes_op(VBin::Xor, Elem::I32, d, ra, ones);
                self.vdone(dst, d);
            }
        }
    }

    /// Writes a mask as bits below the stack pointer.
    pub fn mask_to_bits(&mut self, mask: Reg) {
        match self.isa {
            Isa::Avx512 => {
                let k = self.kreg(mask);
                self.asm.raw(
                    &f::KMOVW_M16_KR,
                    &[Arg::M(MASK_BITS), Arg::K(k)],
                    None,
                    None,
                );
            }
            Isa::Avx2 => {
                let v = self.vreg(mask);
                let w = self.width(Elem::I32);
                let form = if w == Width::X {
                    &f::VMOVMSKPS_R32_XMM
                } else {
                    &f::VMOVMSKPS_R32_YMM
                };
                let g = self.gtemp();
                self.asm.raw(form, &[Arg::R32(g), Arg::V(v, w)], None, None);
                self.asm.store(MASK_BITS, g);
            }
        }
    }

    /// Jumps if a lane is off in the bits written by [`Emitter::mask_to_bits`].
    fn unless_lane(&mut self, lane: u32, to: super::asm::Label) {
        let byte = MASK_BITS.plus(lane as i32 / 8);
        self.asm.mem_imm(&f::TEST_RM8_IMM8, byte, 1 << (lane % 8));
        self.asm.jcc(Cond::E, to);
    }

    /// Copies elements of some bytes lane by lane, those that the bits allow.
    pub fn copy_lanes(&mut self, from: Mem, to: Mem, bytes: u32) {
        let g = self.gtemp();
        for lane in 0..self.kernel.lanes {
            let skip = self.asm.label();
            self.unless_lane(lane, skip);
            let at = (lane * bytes) as i32;
            let (load, arg) = match bytes {
                1 => (&f::MOVZX_R32_RM8, Arg::R32(g)),
                2 => (&f::MOVZX_R32_RM16, Arg::R32(g)),
                4 => (&f::MOV_R32_RM32, Arg::R32(g)),
                _ => (&f::MOV_R64_RM64, Arg::R64(g)),
            };
            self.asm
                .raw(load, &[arg, Arg::M(from.plus(at))], None, None);
            self.asm.store_part(bytes, to.plus(at), g);
            self.asm.bind(skip);
        }
    }

    /// A gather by single loads: narrow elements, and what a set's own gathers do not do.
    pub fn gather_lanes(&mut self, dst: Reg, mem: Type, base: Reg, index: Reg, mask: Option<Reg>) {
        let rb = self.greg(base);
        let ri = self.vreg(index);
        let index_elem = self.elem(index);
        if let Some(m) = mask {
            self.mask_to_bits(m);
        }
        self.store_whole(ri, index_elem, BUFFER);
        let g = self.gtemp();
        // Halves are packed, to be converted together; the rest take a lane each.
        let stride = if mem == Type::F16 {
            2
        } else {
            mem.elem().bytes()
        } as i32;
        let index_stride = index_elem.bytes() as i32;
        let lanes = self.kernel.lanes as i32;
        // Results overwrite indices that were read: upwards if they are no wider, else downwards.
        let order: Vec<i32> = if stride <= index_stride {
            (0..lanes).collect()
        } else {
            (0..lanes).rev().collect()
        };
        for lane in order {
            let (skip, done) = (self.asm.label(), self.asm.label());
            if mask.is_some() {
                self.unless_lane(lane as u32, skip);
            }
            let from = Arg::M(BUFFER.plus(lane * index_stride));
            let int = if index_stride == 4 {
                Type::I32
            } else {
                Type::I64
            };
            self.load_int(g, int, from);
            let at = Emitter::lane_address(rb, g, mem.bytes() as u8);
            self.load_int(g, mem, Arg::M(at));
            if mem == Type::BF16 {
                self.asm.shift(Shift::Shl, g, 16);
            }
            if mask.is_some() {
                self.asm.jmp(done);
                self.asm.bind(skip);
                self.asm.set(g, 0);
                self.asm.bind(done);
            }
            let at = BUFFER.plus(lane * stride);
            self.asm.store_part(stride as u32, at, g);
        }
        let d = self.vdst(dst);
        if mem == Type::F16 {
            self.load_wide(d, Type::F16, BUFFER, None);
        } else {
            self.load_whole(d, mem.elem(), BUFFER);
        }
        self.vdone(dst, d);
    }

    pub fn vgather(&mut self, dst: Reg, mem: Type, base: Reg, index: Reg, mask: Option<Reg>) {
        let whole = mem.bytes() == mem.elem().bytes();
        match self.isa {
            Isa::Avx512 if whole => self.gather_512(dst, mem, base, index, mask),
            Isa::Avx2 if whole => self.gather_avx2(dst, mem, base, index, mask),
            _ => self.gather_lanes(dst, mem, base, index, mask),
        }
    }

    /// The bits of floats rounded to bfloat16, in the low half of each lane of `d`.
    /// `nan` selects, per set, the lanes that are not a number.
    pub fn round_bf16(&mut self, d: u8, x: u8) {
        // x + 0x7fff + (bit 16 of x), then the high half.
        let w = self.width(Elem::F32);
        let (vd, vx) = (Arg::V(d, w), Arg::V(x, w));
        self.op_imm(&t::PSRLD_I, w, &[vd, vx], 16);
        let one = self.constant(Elem::I32, 1);
        self.op(&t::ANDPS, w, &[vd, vd, one]);
        self.op(&t::PADDD, w, &[vd, vd, vx]);
        let half = self.constant(Elem::I32, 0x7fff);
        self.op(&t::PADDD, w, &[vd, vd, half]);
    }
}
