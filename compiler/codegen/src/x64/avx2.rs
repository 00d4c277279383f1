//! What AVX2 does its own way: masks are vectors of 32-bit lanes (all ones or zero), widened where
//! the elements have 64 bits; narrow stores pack; 64-bit integers take sequences.

use super::alloc::Place;
use super::asm::{Arg, Base, Index, Mem, Width};
use super::avx512::{float_limit, float_predicate};
use super::emit::Emitter;
use super::forms as f;
use super::select::wide;
use super::table as t;
use super::vector::BUFFER;
use crate::kernel::{Addr, Elem, Mem as Type, Reg, VBin, VCmp};

const X: Width = Width::X;
const Y: Width = Width::Y;

impl Emitter<'_> {
    /// A mask as a vector with lanes of the element's width.
    fn mask_for(&mut self, mask: Reg, elem: Elem) -> u8 {
        if elem.bytes() == 4 {
            return self.vreg(mask);
        }
        let m = self.vrm(mask);
        let wide = self.vtemp();
        self.op(&t::PMOVSXDQ, Y, &[Arg::V(wide, Y), m]);
        wide
    }

    /// Lanes of 64 bits to their low halves: `d` (128 bits) from `s` (256).
    fn pack_qd(&mut self, d: u8, s: u8) {
        let high = self.vtemp();
        self.op_imm(&t::EXTRACTF128, Y, &[Arg::V(high, X), Arg::V(s, Y)], 1);
        let args = [Arg::V(d, X), Arg::V(s, X), Arg::V(high, X)];
        self.op_imm(&t::SHUFPS, X, &args, 0x88);
    }

    pub fn load_avx2(&mut self, dst: Reg, mem: Type, addr: Addr, mask: Option<Reg>) {
        let m = self.mem(addr);
        let elem = mem.elem();
        let w = self.width(elem);
        let Some(mask) = mask else {
            let d = self.vdst(dst);
            self.load_wide(d, mem, m, None);
            return self.vdone(dst, d);
        };
        if mem.bytes() == elem.bytes() {
            let k = self.mask_for(mask, elem);
            let d = self.vdst(dst);
            let row = wide(elem, &t::MASKMOVPS, &t::MASKMOVPD);
            self.op(row, w, &[Arg::V(d, w), Arg::V(k, w), Arg::M(m)]);
            return self.vdone(dst, d);
        }
        // Lane by lane into a cleared buffer, then as if from memory.
        self.mask_to_bits(mask);
        let d = self.vdst(dst);
        self.materialize(d, elem, 0);
        self.op(&t::MOVUPS_ST, Y, &[Arg::M(BUFFER), Arg::V(d, Y)]);
        self.copy_lanes(m, BUFFER, mem.bytes());
        self.load_wide(d, mem, BUFFER, None);
        self.vdone(dst, d);
    }

    pub fn store_avx2(&mut self, src: Reg, mem: Type, addr: Addr, mask: Option<Reg>) {
        let m = self.mem(addr);
        let elem = mem.elem();
        let w = self.width(elem);
        let s = self.vreg(src);
        match mask {
            None => self.store_narrow(s, mem, m),
            Some(mask) if mem.bytes() == elem.bytes() => {
                let k = self.mask_for(mask, elem);
                let row = wide(elem, &t::MASKMOVPS_ST, &t::MASKMOVPD_ST);
                self.op(row, w, &[Arg::M(m), Arg::V(k, w), Arg::V(s, w)]);
            }
            Some(mask) => {
                self.mask_to_bits(mask);
                self.store_narrow(s, mem, BUFFER);
                self.copy_lanes(BUFFER, m, mem.bytes());
            }
        }
    }

    fn store_narrow(&mut self, s: u8, mem: Type, m: Mem) {
        let w = self.width(mem.elem());
        let vs = Arg::V(s, w);
        match mem {
            Type::F32 | Type::I32 => self.op(&t::MOVUPS_ST, w, &[Arg::M(m), vs]),
            Type::F64 | Type::I64 => self.op(&t::MOVUPD_ST, w, &[Arg::M(m), vs]),
            Type::F16 => self.op_imm(&t::CVTPS2PH, w, &[Arg::M(m), vs], 0),
            Type::U32 => {
                let p = self.vtemp();
                self.pack_qd(p, s);
                self.op(&t::MOVUPS_ST, X, &[Arg::M(m), Arg::V(p, X)]);
            }
            Type::I8 | Type::U8 => {
                let p = self.vtemp();
                let low = self.constant(Elem::I32, 0xff);
                self.op(&t::ANDPS, w, &[Arg::V(p, w), vs, low]);
                self.pack_dw(p);
                let vp = Arg::V(p, X);
                self.op(&t::PACKUSWB, X, &[vp, vp, vp]);
                self.store_packed(p, self.kernel.lanes, m);
            }
            Type::I16 | Type::U16 => {
                let p = self.vtemp();
                let low = self.constant(Elem::I32, 0xffff);
                self.op(&t::ANDPS, w, &[Arg::V(p, w), vs, low]);
                self.pack_dw(p);
                self.store_packed(p, self.kernel.lanes * 2, m);
            }
            Type::BF16 => {
                let p = self.vtemp();
                self.round_bf16(p, s);
                let (vp, nan, quiet) = (Arg::V(p, w), self.vtemp(), self.vtemp());
                let (vn, vq) = (Arg::V(nan, w), Arg::V(quiet, w));
                self.op_imm(&t::CMPPS, w, &[vn, vs, vs], 3);
                let bit = self.constant(Elem::I32, 0x0040_0000);
                self.op(&t::ORPS, w, &[vq, vs, bit]);
                self.asm.vop(&t::BLENDVPS, w, &[vp, vp, vq, vn], None, None);
                self.op_imm(&t::PSRLD_I, w, &[vp, vp], 16);
                // No further temporary: the blend's are free.
                self.pack_dw_with(p, nan);
                self.store_packed(p, self.kernel.lanes * 2, m);
            }
        }
    }

    /// Lanes of 32 bits, none above 65535, to 16 bits in the low 128.
    fn pack_dw(&mut self, p: u8) {
        if self.width(Elem::I32) == Y {
            let high = self.vtemp();
            self.pack_dw_with(p, high);
        } else {
            self.pack_dw_with(p, p);
        }
    }
    fn pack_dw_with(&mut self, p: u8, high: u8) {
        let second = if self.width(Elem::I32) == Y {
            self.op_imm(&t::EXTRACTF128, Y, &[Arg::V(high, X), Arg::V(p, Y)], 1);
            high
        } else {
            p
        };
        let args = [Arg::V(p, X), Arg::V(p, X), Arg::V(second, X)];
        self.op(&t::PACKUSDW, X, &args);
    }

    /// The low 4, 8 or 16 bytes of a register.
    fn store_packed(&mut self, p: u8, bytes: u32, m: Mem) {
        let args = [Arg::M(m), Arg::V(p, X)];
        match bytes {
            4 => self.op(&t::MOVD_ST, X, &args),
            8 => self.op(&t::MOVQ_ST, X, &args),
            _ => self.op(&t::MOVUPS_ST, X, &args),
        }
    }

    pub fn gather_avx2(&mut self, dst: Reg, mem: Type, base: Reg, index: Reg, mask: Option<Reg>) {
        let rb = self.greg(base);
        let ri = self.vreg(index);
        let index_elem = self.elem(index);
        let elem = mem.elem();
        let (w, iw) = (self.width(elem), self.width(index_elem));
        // The instruction clears its mask, and its three registers must differ.
        let k = self.vtemp();
        let vk = Arg::V(k, w);
        match mask {
            Some(r) => {
                if elem.bytes() == 4 {
                    self.vcopy_to(k, r);
                } else {
                    let m = self.vrm(r);
                    self.op(&t::PMOVSXDQ, Y, &[vk, m]);
                }
            }
            None => self.op(&t::PCMPEQD, w, &[vk, vk, vk]),
        }
        let d = match self.vdst(dst) {
            same if same == ri => self.vtemp(),
            other => other,
        };
        self.materialize(d, elem, 0);
        let m = Mem {
            base: Base::Gpr(rb),
            index: Some((Index::Vec(ri, iw), mem.bytes() as u8)),
            disp: 0,
            broadcast: false,
        };
        let op = match (index_elem.bytes(), elem.bytes()) {
            (4, 4) => &t::GATHERDPS,
            (4, _) => &t::GATHERDPD,
            (_, 4) => &t::GATHERQPS,
            _ => &t::GATHERQPD,
        };
        self.op(op, w.max(iw), &[Arg::V(d, w), Arg::M(m), vk]);
        match self.place(dst) {
            Place::Vec(n) => self.copy(w, n, d),
            _ => self.vdone(dst, d),
        }
    }

    pub fn cmp_avx2(&mut self, op: VCmp, dst: Reg, a: Reg, b: Reg) {
        let elem = self.elem(a);
        let w = self.width(elem);
        let ra = self.vreg(a);
        let d = self.vdst(dst);
        let result = if elem.bytes() == 8 { self.vtemp() } else { d };
        let (va, vr) = (Arg::V(ra, w), Arg::V(result, w));
        if elem.is_float() {
            let rb = self.vrm(b);
            let row = wide(elem, &t::CMPPS, &t::CMPPD);
            self.op_imm(row, w, &[vr, va, rb], float_predicate(op));
        } else {
            // Equal and greater exist; the rest swap or complement.
            let greater = wide(elem, &t::PCMPGTD, &t::PCMPGTQ);
            let equal = wide(elem, &t::PCMPEQD, &t::PCMPEQQ);
            match op {
                VCmp::Eq | VCmp::Ne | VCmp::Gt | VCmp::Le => {
                    let rb = self.vrm(b);
                    let row = if matches!(op, VCmp::Eq | VCmp::Ne) {
                        equal
                    } else {
                        greater
                    };
                    self.op(row, w, &[vr, va, rb]);
                }
                VCmp::Lt | VCmp::Ge => {
                    let rb = self.vreg(b);
                    self.op(greater, w, &[vr, Arg::V(rb, w), va]);
                }
            }
            if matches!(op, VCmp::Ne | VCmp::Le | VCmp::Ge) {
                let ones = self.constant(elem, u64::MAX);
                self.op(&t::XORPS, w, &[vr, vr, ones]);
            }
        }
        if elem.bytes() == 8 {
            self.pack_qd(d, result);
        }
        self.vdone(dst, d);
    }

    pub fn select_avx2(&mut self, dst: Reg, mask: Reg, a: Reg, b: Reg) {
        let elem = self.elem(dst);
        let w = self.width(elem);
        let k = self.mask_for(mask, elem);
        let rb = self.vreg(b);
        let ra = self.vrm(a);
        let d = self.vdst(dst);
        let row = wide(elem, &t::BLENDVPS, &t::BLENDVPD);
        self.op(row, w, &[Arg::V(d, w), Arg::V(rb, w), ra, Arg::V(k, w)]);
        self.vdone(dst, d);
    }

    /// The mask of the first lanes, their number in a general register.
    pub fn count_avx2(&mut self, dst: Reg, count: u8) {
        let d = self.vdst(dst);
        self.spread(d, Elem::I32, count);
        let w = self.width(Elem::I32);
        let row: Vec<u8> = (0..self.kernel.lanes)
            .flat_map(|l| l.to_le_bytes())
            .collect();
        let row = self.row(&row);
        let v = Arg::V(d, w);
        self.op(&t::PCMPGTD, w, &[v, v, row]);
        self.vdone(dst, d);
    }

    pub fn cvt_avx2(&mut self, near: bool, dst: Reg, src: Reg) {
        use Elem::*;
        let (from, to) = (self.elem(src), self.elem(dst));
        let (fw, tw) = (self.width(from), self.width(to));
        let s = self.vreg(src);
        let d = self.vdst(dst);
        let (vs, vd) = (Arg::V(s, fw), Arg::V(d, tw));
        match (from, to, near) {
            (F32, F64, _) => self.op(&t::CVTPS2PD, tw, &[vd, vs]),
            (F64, F32, _) => self.op(&t::CVTPD2PS, fw, &[vd, vs]),
            (I32, F32, _) => self.op(&t::CVTDQ2PS, tw, &[vd, vs]),
            (I32, F64, _) => self.op(&t::CVTDQ2PD, tw, &[vd, vs]),
            (I32, I64, _) => self.op(&t::PMOVSXDQ, tw, &[vd, vs]),
            (I64, I32, _) => self.pack_qd(d, s),
            (F32, I32, true) => self.op(&t::CVTPS2DQ, tw, &[vd, vs]),
            (F64, I32, true) => self.op(&t::CVTPD2DQ, fw, &[vd, vs]),
            (F32, I32, false) => {
                // Too large gives the minimum, whose complement is the maximum.
                let r = self.vtemp();
                let over = self.vtemp();
                let (vr, vo) = (Arg::V(r, tw), Arg::V(over, tw));
                self.op(&t::CVTTPS2DQ, tw, &[vr, vs]);
                let limit = self.constant(F32, float_limit(F32, I32));
                self.op_imm(&t::CMPPS, tw, &[vo, vs, limit], float_predicate(VCmp::Ge));
                self.op(&t::XORPS, tw, &[vr, vr, vo]);
                self.op_imm(&t::CMPPS, tw, &[vo, vs, vs], 7);
                self.op(&t::ANDPS, tw, &[vd, vr, vo]);
            }
            (F64, I32, false) => {
                let r = self.vtemp();
                let vr = Arg::V(r, fw);
                self.op_imm(&t::CMPPD, fw, &[vr, vs, vs], 7);
                self.op(&t::ANDPD, fw, &[vr, vr, vs]);
                let least = self.constant(F64, f64::from(i32::MIN).to_bits());
                self.op(&t::MAXPD, fw, &[vr, vr, least]);
                let most = self.constant(F64, f64::from(i32::MAX).to_bits());
                self.op(&t::MINPD, fw, &[vr, vr, most]);
                self.op(&t::CVTTPD2DQ, fw, &[vd, vr]);
            }
            (F64 | F32, I64, _) => self.floats_to_i64(near, d, s, from),
            (I64, F64 | F32, _) => self.i64_to_floats(d, s, to),
            _ => self.unsupported(format!("{from:?} to {to:?}")),
        }
        self.vdone(dst, d);
    }

    /// Four floats to 64-bit integers, a lane at a time.
    fn floats_to_i64(&mut self, near: bool, d: u8, s: u8, from: Elem) {
        let mut x = s;
        if from == Elem::F32 {
            x = self.vtemp();
            self.op(&t::CVTPS2PD, Y, &[Arg::V(x, Y), Arg::V(s, X)]);
        }
        let vx = Arg::V(x, Y);
        self.op(&t::MOVUPD_ST, Y, &[Arg::M(BUFFER), vx]);
        let g = self.gtemp();
        let form = if near {
            &f::VCVTSD2SI_R64_XMMM64
        } else {
            &f::VCVTTSD2SI_R64_XMMM64
        };
        for lane in 0..4 {
            let m = BUFFER.plus(8 * lane);
            self.asm.raw(form, &[Arg::R64(g), Arg::M(m)], None, None);
            self.asm.store(m, g);
        }
        if near {
            return self.op(&t::MOVUPD, Y, &[Arg::V(d, Y), Arg::M(BUFFER)]);
        }
        let over = self.vtemp();
        let vo = Arg::V(over, Y);
        let known = self.vtemp();
        let vk = Arg::V(known, Y);
        let limit = self.constant(Elem::F64, float_limit(Elem::F64, Elem::I64));
        self.op_imm(&t::CMPPD, Y, &[vo, vx, limit], float_predicate(VCmp::Ge));
        self.op_imm(&t::CMPPD, Y, &[vk, vx, vx], 7);
        self.op(&t::XORPD, Y, &[vo, vo, Arg::M(BUFFER)]);
        self.op(&t::ANDPD, Y, &[Arg::V(d, Y), vo, vk]);
    }

    fn i64_to_floats(&mut self, d: u8, s: u8, to: Elem) {
        self.op(&t::MOVUPD_ST, Y, &[Arg::M(BUFFER), Arg::V(s, Y)]);
        let x = self.vtemp();
        let vx = Arg::V(x, X);
        let bytes = to.bytes() as i32;
        for lane in 0..4 {
            let m = Arg::M(BUFFER.plus(8 * lane));
            let form = if to == Elem::F64 {
                &f::VCVTSI2SD_XMM_XMM_RM64
            } else {
                &f::VCVTSI2SS_XMM_XMM_RM64
            };
            self.op(&t::XORPS, X, &[vx, vx, vx]);
            self.asm.raw(form, &[vx, vx, m], None, None);
            // Behind what is still to be read: results are no wider than sources.
            let at = Arg::M(BUFFER.plus(bytes * lane));
            let row = wide(to, &t::MOVD_ST, &t::MOVQ_ST);
            self.op(row, X, &[at, vx]);
        }
        self.load_whole(d, to, BUFFER);
    }

    /// `|a|` of 64-bit integers.
    pub fn abs_i64(&mut self, d: u8, a: u8) {
        let sign = self.vtemp();
        let flipped = self.vtemp();
        let (vs, vf, va) = (Arg::V(sign, Y), Arg::V(flipped, Y), Arg::V(a, Y));
        self.op(&t::XORPD, Y, &[vs, vs, vs]);
        self.op(&t::PCMPGTQ, Y, &[vs, vs, va]);
        self.op(&t::XORPD, Y, &[vf, va, vs]);
        self.op(&t::PSUBQ, Y, &[Arg::V(d, Y), vf, vs]);
    }

    /// Operations on 64-bit integers that take several instructions.
    pub fn i64_op(&mut self, op: VBin, d: u8, a: u8, b: Arg) {
        let vb = match b {
            Arg::V(..) => b,
            memory => {
                let v = Arg::V(self.vtemp(), Y);
                self.op(&t::MOVUPD, Y, &[v, memory]);
                v
            }
        };
        let (va, vd) = (Arg::V(a, Y), Arg::V(d, Y));
        match op {
            VBin::Mul => {
                let (x, y) = (Arg::V(self.vtemp(), Y), Arg::V(self.vtemp(), Y));
                self.op_imm(&t::PSRLQ_I, Y, &[x, va], 32);
                self.op(&t::PMULUDQ, Y, &[x, x, vb]);
                self.op_imm(&t::PSRLQ_I, Y, &[y, vb], 32);
                self.op(&t::PMULUDQ, Y, &[y, y, va]);
                self.op(&t::PADDQ, Y, &[x, x, y]);
                self.op_imm(&t::PSLLQ_I, Y, &[x, x], 32);
                self.op(&t::PMULUDQ, Y, &[y, va, vb]);
                self.op(&t::PADDQ, Y, &[vd, x, y]);
            }
            VBin::Min | VBin::Max => {
                let x = Arg::V(self.vtemp(), Y);
                self.op(&t::PCMPGTQ, Y, &[x, va, vb]);
                let (first, second) = if op == VBin::Min { (va, vb) } else { (vb, va) };
                self.op(&t::BLENDVPD, Y, &[vd, first, second, x]);
            }
            VBin::Sar => {
                let (sign, x) = (Arg::V(self.vtemp(), Y), Arg::V(self.vtemp(), Y));
                self.op(&t::XORPD, Y, &[sign, sign, sign]);
                self.op(&t::PCMPGTQ, Y, &[sign, sign, va]);
                self.op(&t::XORPD, Y, &[x, va, sign]);
                self.op(&t::PSRLVQ, Y, &[x, x, vb]);
                self.op(&t::XORPD, Y, &[vd, x, sign]);
            }
            _ => self.unsupported(format!("{op:?} on I64")),
        }
    }
}
