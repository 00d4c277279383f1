//! What AVX-512 does its own way: mask registers, masked and narrowing memory, conversions.

use super::alloc::Place;
use super::asm::gpr::RSP;
use super::asm::{Arg, Base, Index, Mem};
use super::emit::Emitter;
use super::forms as f;
use super::select::wide;
use super::table as t;
use crate::kernel::{Addr, Elem, Mem as Type, Reg, VCmp};

impl Emitter<'_> {
    /// A mask register that holds `r`.
    pub fn kreg(&mut self, r: Reg) -> u8 {
        match self.place(r) {
            Place::Mask(k) => k,
            Place::Slot(at) => {
                let k = self.ktemp();
                let m = Arg::M(Mem::at(RSP, at));
                self.asm.raw(&f::KMOVW_KR_KM16, &[Arg::K(k), m], None, None);
                k
            }
            _ => 1,
        }
    }
    fn kdst(&mut self, r: Reg) -> u8 {
        match self.place(r) {
            Place::Mask(k) => k,
            _ => 1,
        }
    }
    fn kdone(&mut self, r: Reg, k: u8) {
        if let Place::Slot(at) = self.place(r) {
            let m = Arg::M(Mem::at(RSP, at));
            self.asm.raw(&f::KMOVW_M16_KR, &[m, Arg::K(k)], None, None);
        }
    }
    /// Assigns a mask from a mask register.
    pub fn kmove(&mut self, dst: Reg, k: u8) {
        match self.place(dst) {
            Place::Mask(d) if d != k => {
                self.asm
                    .raw(&f::KMOVW_KR_KM16, &[Arg::K(d), Arg::K(k)], None, None);
            }
            _ => self.kdone(dst, k),
        }
    }

    pub fn load_512(&mut self, dst: Reg, mem: Type, addr: Addr, mask: Option<Reg>) {
        let m = self.mem(addr);
        let k = mask.map(|r| self.kreg(r));
        let d = self.vdst(dst);
        self.load_wide(d, mem, m, k);
        self.vdone(dst, d);
    }

    pub fn store_512(&mut self, src: Reg, mem: Type, addr: Addr, mask: Option<Reg>) {
        let m = Arg::M(self.mem(addr));
        let elem = mem.elem();
        let w = self.width(elem);
        let mut s = self.vreg(src);
        let (op, imm) = match mem {
            Type::F32 | Type::I32 => (&t::MOVUPS_ST, None),
            Type::F64 | Type::I64 => (&t::MOVUPD_ST, None),
            Type::I8 | Type::U8 => (&t::PMOVDB, None),
            Type::I16 | Type::U16 => (&t::PMOVDW, None),
            Type::U32 => (&t::PMOVQD, None),
            Type::F16 => (&t::CVTPS2PH, Some(0)),
            Type::BF16 => {
                let bits = self.vtemp();
                self.round_bf16(bits, s);
                let (vb, vs) = (Arg::V(bits, w), Arg::V(s, w));
                // The first temporary, which the store's own mask takes afterwards.
                let nan = self.ktemp();
                self.op_imm(&t::CMPPS_K, w, &[Arg::K(nan), vs, vs], 3);
                let quiet = self.constant(Elem::I32, 0x0040_0000);
                self.op_mask(&t::ORPS, w, &[vb, vs, quiet], nan, false);
                self.op_imm(&t::PSRLD_I, w, &[vb, vb], 16);
                self.release_mask();
                s = bits;
                (&t::PMOVDW, None)
            }
        };
        let k = mask.map(|r| (self.kreg(r), false));
        self.asm.vop(op, w, &[m, Arg::V(s, w)], imm, k);
    }

    pub fn gather_512(&mut self, dst: Reg, mem: Type, base: Reg, index: Reg, mask: Option<Reg>) {
        let rb = self.greg(base);
        let ri = self.vreg(index);
        let index_elem = self.elem(index);
        let elem = mem.elem();
        let w = self.width(elem);
        let iw = self.width(index_elem);
        let d = match self.vdst(dst) {
            same if same == ri => self.vtemp(),
            other => other,
        };
        let k = 1;
        match mask {
            Some(r) => {
                let from = self.kreg(r);
                if from != k {
                    self.asm
                        .raw(&f::KMOVW_KR_KM16, &[Arg::K(k), Arg::K(from)], None, None);
                }
                self.materialize(d, elem, 0);
            }
            None => {
                let args = [Arg::K(k), Arg::K(k), Arg::K(k)];
                self.asm.raw(&f::KXNORW_KR_KR_KR, &args, None, None);
            }
        }
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
        let row = w.max(iw);
        // The mask forces the EVEX form, whose own mask operand it is.
        self.op_mask(op, row, &[Arg::V(d, w), Arg::M(m)], k, false);
        match self.place(dst) {
            Place::Vec(n) => self.copy(w, n, d),
            _ => self.vdone(dst, d),
        }
    }

    pub fn cmp_512(&mut self, op: VCmp, dst: Reg, a: Reg, b: Reg) {
        let elem = self.elem(a);
        let w = self.width(elem);
        let ra = self.vreg(a);
        let rb = if a == b { Arg::V(ra, w) } else { self.vrm(b) };
        let k = self.kdst(dst);
        let (row, imm) = if elem.is_float() {
            (wide(elem, &t::CMPPS_K, &t::CMPPD_K), float_predicate(op))
        } else {
            let imm = match op {
                VCmp::Eq => 0,
                VCmp::Lt => 1,
                VCmp::Le => 2,
                VCmp::Ne => 4,
                VCmp::Ge => 5,
                VCmp::Gt => 6,
            };
            (wide(elem, &t::PCMPD_K, &t::PCMPQ_K), imm)
        };
        self.op_imm(row, w, &[Arg::K(k), Arg::V(ra, w), rb], imm);
        self.kdone(dst, k);
    }

    pub fn select_512(&mut self, dst: Reg, mask: Reg, a: Reg, b: Reg) {
        let elem = self.elem(dst);
        let w = self.width(elem);
        let k = self.kreg(mask);
        if let Place::Constant(bits) = self.place(b)
            && bits << (64 - elem.bytes() * 8) == 0
        {
            let ra = self.vreg(a);
            let d = self.vdst(dst);
            self.op_mask(
                wide(elem, &t::MOVAPS, &t::MOVAPD),
                w,
                &[Arg::V(d, w), Arg::V(ra, w)],
                k,
                true,
            );
            return self.vdone(dst, d);
        }
        let rb = self.vreg(b);
        let ra = self.vrm(a);
        let d = self.vdst(dst);
        let row = wide(elem, &t::BLENDMPS, &t::BLENDMPD);
        self.op_mask(row, w, &[Arg::V(d, w), Arg::V(rb, w), ra], k, false);
        self.vdone(dst, d);
    }

    pub fn cvt_512(&mut self, near: bool, dst: Reg, src: Reg) {
        use Elem::*;
        let (from, to) = (self.elem(src), self.elem(dst));
        let (fw, tw) = (self.width(from), self.width(to));
        let w = fw.max(tw);
        let op = match (from, to, near) {
            (F32, F64, _) => &t::CVTPS2PD,
            (F64, F32, _) => &t::CVTPD2PS,
            (I32, F32, _) => &t::CVTDQ2PS,
            (I32, F64, _) => &t::CVTDQ2PD,
            (I64, F32, _) => &t::CVTQQ2PS,
            (I64, F64, _) => &t::CVTQQ2PD,
            (I32, I64, _) => &t::PMOVSXDQ,
            (I64, I32, _) => &t::PMOVQD,
            (F32, I32, true) => &t::CVTPS2DQ,
            (F64, I32, true) => &t::CVTPD2DQ,
            (F32, I64, true) => &t::CVTPS2QQ,
            (F64, I64, true) => &t::CVTPD2QQ,
            (F32, I32, false) => &t::CVTTPS2DQ,
            (F64, I32, false) => &t::CVTTPD2DQ,
            (F32, I64, false) => &t::CVTTPS2QQ,
            (F64, I64, false) => &t::CVTTPD2QQ,
            _ => return self.unsupported(format!("{from:?} to {to:?}")),
        };
        let s = self.vreg(src);
        let d = self.vdst(dst);
        let (vs, vd) = (Arg::V(s, fw), Arg::V(d, tw));
        if from.is_float() && !to.is_float() && !near {
            // Too large and not-a-number both come out as the minimum; too small is right.
            let r = self.vtemp();
            let vr = Arg::V(r, tw);
            self.op(op, w, &[vr, vs]);
            let limit = float_limit(from, to);
            let k = self.ktemp();
            let limit = self.constant(from, limit);
            let cmp = wide(from, &t::CMPPS_K, &t::CMPPD_K);
            self.op_imm(cmp, fw, &[Arg::K(k), vs, limit], float_predicate(VCmp::Ge));
            let most = self.constant(to, super::vector::sign_bit(to) - 1);
            let blend = wide(to, &t::BLENDMPS, &t::BLENDMPD);
            self.op_mask(blend, tw, &[vr, vr, most], k, false);
            self.op_imm(cmp, fw, &[Arg::K(k), vs, vs], 7);
            self.op_mask(wide(to, &t::MOVAPS, &t::MOVAPD), tw, &[vd, vr], k, true);
        } else {
            self.op(op, w, &[vd, vs]);
        }
        self.vdone(dst, d);
    }

    /// The mask of the first lanes, their number in a general register.
    pub fn count_512(&mut self, dst: Reg, count: u8) {
        let ones = self.row(&u32::MAX.to_le_bytes());
        self.asm.raw(
            &f::BZHI_R32_RM32_R32,
            &[Arg::R32(count), ones, Arg::R32(count)],
            None,
            None,
        );
        let k = self.kdst(dst);
        self.asm
            .raw(&f::KMOVW_KR_R32, &[Arg::K(k), Arg::R32(count)], None, None);
        self.kdone(dst, k);
    }

    pub fn mask_op_512(&mut self, or: bool, dst: Reg, a: Reg, b: Reg) {
        let (ka, kb) = (self.kreg(a), self.kreg(b));
        let d = self.kdst(dst);
        let form = if or {
            &f::KORW_KR_KR_KR
        } else {
            &f::KANDW_KR_KR_KR
        };
        self.asm
            .raw(form, &[Arg::K(d), Arg::K(ka), Arg::K(kb)], None, None);
        self.kdone(dst, d);
    }

    pub fn mask_not_512(&mut self, dst: Reg, a: Reg) {
        let ka = self.kreg(a);
        let d = self.kdst(dst);
        self.asm
            .raw(&f::KNOTW_KR_KR, &[Arg::K(d), Arg::K(ka)], None, None);
        self.kdone(dst, d);
    }
}

/// The predicate of a float comparison that raises no flag on quiet NaNs.
pub(super) fn float_predicate(op: VCmp) -> u8 {
    match op {
        VCmp::Eq => 0x00,
        VCmp::Ne => 0x04,
        VCmp::Lt => 0x11,
        VCmp::Le => 0x12,
        VCmp::Ge => 0x1d,
        VCmp::Gt => 0x1e,
    }
}

/// The first float that is too large for an integer type, as bits.
pub(super) fn float_limit(from: Elem, to: Elem) -> u64 {
    let v = if to == Elem::I32 {
        2_147_483_648.0_f64
    } else {
        9_223_372_036_854_775_808.0
    };
    match from {
        Elem::F32 => u64::from((v as f32).to_bits()),
        _ => v.to_bits(),
    }
}
