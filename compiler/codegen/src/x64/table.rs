//! The instruction table: vector operations, a row each.
//!
//! A row gives the facts of an operation once, as they stand in Intel's manual, volume 2: prefix, map
//! and opcode, its operands as parts of the vector's width, and in which of five forms it exists (VEX
//! 128 and 256, EVEX 128, 256 and 512). The width of a row that converts is that of its wider operand.
//! Suffixes: `_ST` stores, `_M` and `_R` read memory or a general register, `_I` take an immediate,
//! `_K` write a mask register.

use super::asm::Width;
use super::encode::{Class, Field, Form, Immediate, Map, Masking, Operand, Order, Prefix, Space};
use Map::{M0F, M0F3A, M0F38};
use Part::{Half, Lane, Mask, Quarter, R32, R64, Whole};
use Prefix::{NP, P66, PF2, PF3};
use Width::{X, Y, Z};
use std::fmt;

/// The forms of one operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Op([Option<Form>; 5]);

impl Op {
    pub fn vex(&self, w: Width) -> Option<&Form> {
        match w {
            Width::X => self.0[0].as_ref(),
            Width::Y => self.0[1].as_ref(),
            Width::Z => None,
        }
    }
    pub fn evex(&self, w: Width) -> Option<&Form> {
        self.0[2 + w as usize].as_ref()
    }
    pub fn has_vex(&self) -> bool {
        self.0[0].is_some() || self.0[1].is_some()
    }
}

/// The notation of one of its forms.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.0.iter().flatten().next() {
            Some(form) => form.fmt(f),
            None => Ok(()),
        }
    }
}

/// An operand of a row.
#[derive(Clone, Copy)]
enum Part {
    None,
    /// A vector of the row's width.
    Whole,
    /// One of half the width, at least an xmm register; in memory exactly half.
    Half,
    Quarter,
    /// The low element of an xmm register, of some bytes.
    Lane(u8),
    /// A mask register.
    Mask,
    R32,
    R64,
    /// Elements of some bytes in memory, at a vector of indices of the row's width or half of it.
    Gather {
        whole: bool,
        bytes: u8,
    },
}

impl Part {
    const fn width(self, w: Width) -> Width {
        match (self, w) {
            (Part::Whole | Part::Gather { whole: true, .. }, w) => w,
            (Part::Half | Part::Gather { whole: false, .. }, Z) => Y,
            _ => X,
        }
    }
    const fn class(self, w: Width) -> Class {
        match (self, self.width(w)) {
            (Part::Mask, _) => Class::K,
            (R32, _) => Class::R32,
            (R64, _) => Class::R64,
            (_, X) => Class::X,
            (_, Y) => Class::Y,
            (_, Z) => Class::Z,
        }
    }
    /// Bytes in memory.
    const fn bytes(self, w: Width) -> u8 {
        let whole = 16 << w as u8;
        match self {
            Part::None | Part::Mask => 1,
            Part::Whole => whole,
            Part::Half => whole / 2,
            Part::Quarter => whole / 4,
            Part::Lane(bytes) | Part::Gather { bytes, .. } => bytes,
            R32 => 4,
            R64 => 8,
        }
    }
}

/// What the operand in `ModRM.rm` may be.
#[derive(Clone, Copy)]
enum At {
    Either,
    Memory,
    Register,
}

/// The facts of an operation.
#[derive(Clone, Copy)]
struct Row {
    prefix: Prefix,
    map: Map,
    opcode: u8,
    vex_w: bool,
    evex_w: bool,
    order: Order,
    digit: u8,
    parts: [Part; 4],
    at: At,
    immediate: Immediate,
    masks: bool,
    broadcast: u8,
    narrowest: Width,
    widest: Width,
}

const fn row(prefix: Prefix, map: Map, opcode: u8) -> Row {
    Row {
        prefix,
        map,
        opcode,
        vex_w: false,
        evex_w: false,
        order: Order::None,
        digit: 0,
        parts: [Part::None; 4],
        at: At::Either,
        immediate: Immediate::None,
        masks: true,
        broadcast: 0,
        narrowest: X,
        widest: Z,
    }
}

impl Row {
    const fn operands(mut self, order: Order, parts: [Part; 4]) -> Self {
        self.order = order;
        self.parts = parts;
        self
    }
    const fn rm(self, reg: Part, rm: Part) -> Self {
        self.operands(Order::Rm, [reg, rm, Part::None, Part::None])
    }
    const fn mr(self, rm: Part, reg: Part) -> Self {
        self.operands(Order::Mr, [rm, reg, Part::None, Part::None])
    }
    const fn rvm(self) -> Self {
        self.operands(Order::Rvm, [Whole, Whole, Whole, Part::None])
    }
    /// A comparison into a mask register.
    const fn kvm(self) -> Self {
        self.operands(Order::Rvm, [Mask, Whole, Whole, Part::None])
    }
    /// With the lanes chosen by a fourth register.
    const fn is4(self) -> Self {
        self.operands(Order::RvmIs4, [Whole; 4])
    }
    /// A shift by an immediate.
    const fn shift(mut self, digit: u8) -> Self {
        self.digit = digit;
        self.at = At::Register;
        self.operands(Order::Vm, [Whole, Whole, Part::None, Part::None])
            .i()
    }
    const fn mvr(self) -> Self {
        self.operands(Order::Mvr, [Whole, Whole, Whole, Part::None])
    }
    /// With an immediate.
    const fn i(mut self) -> Self {
        self.immediate = Immediate::Byte;
        self
    }
    /// Elements of 4 bytes, which EVEX can broadcast.
    const fn b4(mut self) -> Self {
        self.broadcast = 4;
        self
    }
    /// The same of 8 bytes, which is EVEX.W1.
    const fn b8(mut self) -> Self {
        self.broadcast = 8;
        self.evex_w = true;
        self
    }
    const fn evex_w1(mut self) -> Self {
        self.evex_w = true;
        self
    }
    const fn vex_w1(mut self) -> Self {
        self.vex_w = true;
        self
    }
    const fn memory(mut self) -> Self {
        self.at = At::Memory;
        self
    }
    const fn register(mut self) -> Self {
        self.at = At::Register;
        self
    }
    /// A move between the low element and a general register: no other width, and no mask.
    const fn scalar(mut self) -> Self {
        self.masks = false;
        self.widths(X, X)
    }
    const fn widths(mut self, narrowest: Width, widest: Width) -> Self {
        self.narrowest = narrowest;
        self.widest = widest;
        self
    }

    const fn form(&self, space: Space, w: Width) -> Option<Form> {
        if (w as u8) < self.narrowest as u8 || w as u8 > self.widest as u8 {
            return None;
        }
        let evex = matches!(space, Space::Evex);
        let fields = self.order.fields();
        let mut operands = [Operand::None; 4];
        let mut memory = 1;
        let mut i = 0;
        while i < fields.len() {
            let part = self.parts[i];
            let class = part.class(w);
            operands[i] = match (fields[i], part, self.at) {
                (_, Part::Gather { .. }, _) => Operand::Gather(part.width(w)),
                (Field::Rm, _, At::Either) => Operand::Either(class),
                (Field::Rm, _, At::Memory) => Operand::Memory,
                _ => Operand::Register(class),
            };
            if matches!(fields[i], Field::Rm) {
                memory = part.bytes(w);
            }
            i += 1;
        }
        let masking = match (self.parts, evex && self.masks) {
            (_, false) => Masking::Never,
            ([_, Part::Gather { .. }, ..], _) => Masking::Always,
            ([Part::Mask, ..], _) => Masking::Merge,
            _ => Masking::Zero,
        };
        Some(Form {
            space,
            prefix: self.prefix,
            map: self.map,
            opcode: self.opcode,
            w: if evex { self.evex_w } else { self.vex_w },
            length: w as u8,
            order: self.order,
            digit: self.digit,
            operands,
            immediate: self.immediate,
            masking,
            memory,
            broadcast: if evex { self.broadcast } else { 0 },
        })
    }
    /// In VEX alone.
    const fn vex(self) -> Op {
        let x = self.form(Space::Vex, X);
        let y = self.form(Space::Vex, Y);
        Op([x, y, None, None, None])
    }
    /// In EVEX alone.
    const fn evex(self) -> Op {
        let x = self.form(Space::Evex, X);
        let y = self.form(Space::Evex, Y);
        let z = self.form(Space::Evex, Z);
        Op([None, None, x, y, z])
    }
    const fn both(self) -> Op {
        let Op([x, y, ..]) = self.vex();
        let Op([.., ex, ey, ez]) = self.evex();
        Op([x, y, ex, ey, ez])
    }
}

/// A gather of elements of some bytes, its indices in a whole vector or half of one. Its mask is a
/// third operand in VEX, and a mask register in EVEX.
const fn gather(opcode: u8, value: Part, whole: bool, bytes: u8) -> Op {
    let index = Part::Gather { whole, bytes };
    let mut row = row(P66, M0F38, opcode);
    row.vex_w = bytes == 8;
    row.evex_w = bytes == 8;
    let Op([x, y, ..]) = row
        .operands(Order::Rmv, [value, index, value, Part::None])
        .vex();
    let Op([.., ex, ey, ez]) = row.rm(value, index).evex();
    Op([x, y, ex, ey, ez])
}

macro_rules! rows {
    ($($name:ident = $row:expr;)*) => {
        $(pub(super) const $name: Op = $row;)*
        /// Every row by its name.
        #[cfg(test)]
        pub(super) const ALL: &[(&str, Op)] = &[$((stringify!($name), $name)),*];
    };
}

rows! {
    ADDPS = row(NP, M0F, 0x58).rvm().b4().both();
    ADDPD = row(P66, M0F, 0x58).rvm().b8().both();
    SUBPS = row(NP, M0F, 0x5c).rvm().b4().both();
    SUBPD = row(P66, M0F, 0x5c).rvm().b8().both();
    MULPS = row(NP, M0F, 0x59).rvm().b4().both();
    MULPD = row(P66, M0F, 0x59).rvm().b8().both();
    DIVPS = row(NP, M0F, 0x5e).rvm().b4().both();
    DIVPD = row(P66, M0F, 0x5e).rvm().b8().both();
    MINPS = row(NP, M0F, 0x5d).rvm().b4().both();
    MINPD = row(P66, M0F, 0x5d).rvm().b8().both();
    MAXPS = row(NP, M0F, 0x5f).rvm().b4().both();
    MAXPD = row(P66, M0F, 0x5f).rvm().b8().both();
    ANDPS = row(NP, M0F, 0x54).rvm().b4().both();
    ANDPD = row(P66, M0F, 0x54).rvm().b8().both();
    ANDNPS = row(NP, M0F, 0x55).rvm().b4().both();
    ANDNPD = row(P66, M0F, 0x55).rvm().b8().both();
    ORPS = row(NP, M0F, 0x56).rvm().b4().both();
    ORPD = row(P66, M0F, 0x56).rvm().b8().both();
    XORPS = row(NP, M0F, 0x57).rvm().b4().both();
    XORPD = row(P66, M0F, 0x57).rvm().b8().both();
    SQRTPS = row(NP, M0F, 0x51).rm(Whole, Whole).b4().both();
    SQRTPD = row(P66, M0F, 0x51).rm(Whole, Whole).b8().both();
    // In EVEX these are VRNDSCALEPS and VRNDSCALEPD.
    ROUNDPS = row(P66, M0F3A, 0x08).rm(Whole, Whole).i().b4().both();
    ROUNDPD = row(P66, M0F3A, 0x09).rm(Whole, Whole).i().b8().both();

    FMADD132PS = row(P66, M0F38, 0x98).rvm().b4().both();
    FMADD132PD = row(P66, M0F38, 0x98).rvm().b8().vex_w1().both();
    FMADD213PS = row(P66, M0F38, 0xa8).rvm().b4().both();
    FMADD213PD = row(P66, M0F38, 0xa8).rvm().b8().vex_w1().both();
    FMADD231PS = row(P66, M0F38, 0xb8).rvm().b4().both();
    FMADD231PD = row(P66, M0F38, 0xb8).rvm().b8().vex_w1().both();
    FNMADD132PS = row(P66, M0F38, 0x9c).rvm().b4().both();
    FNMADD132PD = row(P66, M0F38, 0x9c).rvm().b8().vex_w1().both();
    FNMADD213PS = row(P66, M0F38, 0xac).rvm().b4().both();
    FNMADD213PD = row(P66, M0F38, 0xac).rvm().b8().vex_w1().both();
    FNMADD231PS = row(P66, M0F38, 0xbc).rvm().b4().both();
    FNMADD231PD = row(P66, M0F38, 0xbc).rvm().b8().vex_w1().both();

    PADDD = row(P66, M0F, 0xfe).rvm().b4().both();
    PADDQ = row(P66, M0F, 0xd4).rvm().b8().both();
    PSUBD = row(P66, M0F, 0xfa).rvm().b4().both();
    PSUBQ = row(P66, M0F, 0xfb).rvm().b8().both();
    PMULLD = row(P66, M0F38, 0x40).rvm().b4().both();
    PMULLQ = row(P66, M0F38, 0x40).rvm().b8().evex();
    PMULUDQ = row(P66, M0F, 0xf4).rvm().b8().both();
    PMINSD = row(P66, M0F38, 0x39).rvm().b4().both();
    PMINSQ = row(P66, M0F38, 0x39).rvm().b8().evex();
    PMAXSD = row(P66, M0F38, 0x3d).rvm().b4().both();
    PMAXSQ = row(P66, M0F38, 0x3d).rvm().b8().evex();
    PABSD = row(P66, M0F38, 0x1e).rm(Whole, Whole).b4().both();
    PABSQ = row(P66, M0F38, 0x1f).rm(Whole, Whole).b8().evex();
    PSLLVD = row(P66, M0F38, 0x47).rvm().b4().both();
    PSLLVQ = row(P66, M0F38, 0x47).rvm().b8().vex_w1().both();
    PSRLVD = row(P66, M0F38, 0x45).rvm().b4().both();
    PSRLVQ = row(P66, M0F38, 0x45).rvm().b8().vex_w1().both();
    PSRAVD = row(P66, M0F38, 0x46).rvm().b4().both();
    PSRAVQ = row(P66, M0F38, 0x46).rvm().b8().evex();
    PSLLD_I = row(P66, M0F, 0x72).shift(6).b4().both();
    PSRLD_I = row(P66, M0F, 0x72).shift(2).b4().both();
    PSRAD_I = row(P66, M0F, 0x72).shift(4).b4().both();
    PSLLQ_I = row(P66, M0F, 0x73).shift(6).b8().both();
    PSRLQ_I = row(P66, M0F, 0x73).shift(2).b8().both();
    PSRAQ_I = row(P66, M0F, 0x72).shift(4).b8().evex();

    CMPPS = row(NP, M0F, 0xc2).rvm().i().vex();
    CMPPD = row(P66, M0F, 0xc2).rvm().i().vex();
    CMPPS_K = row(NP, M0F, 0xc2).kvm().i().b4().evex();
    CMPPD_K = row(P66, M0F, 0xc2).kvm().i().b8().evex();
    PCMPEQD = row(P66, M0F, 0x76).rvm().vex();
    PCMPEQQ = row(P66, M0F38, 0x29).rvm().vex();
    PCMPGTD = row(P66, M0F, 0x66).rvm().vex();
    PCMPGTQ = row(P66, M0F38, 0x37).rvm().vex();
    PCMPD_K = row(P66, M0F3A, 0x1f).kvm().i().b4().evex();
    PCMPQ_K = row(P66, M0F3A, 0x1f).kvm().i().b8().evex();
    BLENDVPS = row(P66, M0F3A, 0x4a).is4().vex();
    BLENDVPD = row(P66, M0F3A, 0x4b).is4().vex();
    BLENDMPS = row(P66, M0F38, 0x65).rvm().b4().evex();
    BLENDMPD = row(P66, M0F38, 0x65).rvm().b8().evex();

    SHUFPS = row(NP, M0F, 0xc6).rvm().i().b4().both();
    PERMILPS_I = row(P66, M0F3A, 0x04).rm(Whole, Whole).i().b4().both();
    PERM2F128 = row(P66, M0F3A, 0x06).rvm().i().widths(Y, Y).vex();
    SHUFF64X2 = row(P66, M0F3A, 0x23).rvm().i().b8().widths(Y, Z).evex();
    EXTRACTF128 = row(P66, M0F3A, 0x19).mr(Half, Whole).i().widths(Y, Y).vex();
    PACKUSDW = row(P66, M0F38, 0x2b).rvm().b4().both();
    PACKUSWB = row(P66, M0F, 0x67).rvm().both();

    CVTPS2DQ = row(P66, M0F, 0x5b).rm(Whole, Whole).b4().both();
    CVTTPS2DQ = row(PF3, M0F, 0x5b).rm(Whole, Whole).b4().both();
    CVTDQ2PS = row(NP, M0F, 0x5b).rm(Whole, Whole).b4().both();
    CVTQQ2PD = row(PF3, M0F, 0xe6).rm(Whole, Whole).b8().evex();
    CVTPD2QQ = row(P66, M0F, 0x7b).rm(Whole, Whole).b8().evex();
    CVTTPD2QQ = row(P66, M0F, 0x7a).rm(Whole, Whole).b8().evex();
    CVTPS2PD = row(NP, M0F, 0x5a).rm(Whole, Half).b4().both();
    CVTDQ2PD = row(PF3, M0F, 0xe6).rm(Whole, Half).b4().both();
    CVTPS2QQ = row(P66, M0F, 0x7b).rm(Whole, Half).b4().evex();
    CVTTPS2QQ = row(P66, M0F, 0x7a).rm(Whole, Half).b4().evex();
    CVTPD2PS = row(P66, M0F, 0x5a).rm(Half, Whole).b8().both();
    CVTPD2DQ = row(PF2, M0F, 0xe6).rm(Half, Whole).b8().both();
    CVTTPD2DQ = row(P66, M0F, 0xe6).rm(Half, Whole).b8().both();
    CVTQQ2PS = row(NP, M0F, 0x5b).rm(Half, Whole).b8().evex();
    CVTPH2PS = row(P66, M0F38, 0x13).rm(Whole, Half).both();
    CVTPS2PH = row(P66, M0F3A, 0x1d).mr(Half, Whole).i().both();
    PMOVSXBD = row(P66, M0F38, 0x21).rm(Whole, Quarter).both();
    PMOVZXBD = row(P66, M0F38, 0x31).rm(Whole, Quarter).both();
    PMOVSXWD = row(P66, M0F38, 0x23).rm(Whole, Half).both();
    PMOVZXWD = row(P66, M0F38, 0x33).rm(Whole, Half).both();
    PMOVSXDQ = row(P66, M0F38, 0x25).rm(Whole, Half).both();
    PMOVZXDQ = row(P66, M0F38, 0x35).rm(Whole, Half).both();
    PMOVDB = row(PF3, M0F38, 0x31).mr(Quarter, Whole).evex();
    PMOVDW = row(PF3, M0F38, 0x33).mr(Half, Whole).evex();
    PMOVQD = row(PF3, M0F38, 0x35).mr(Half, Whole).evex();

    MOVUPS = row(NP, M0F, 0x10).rm(Whole, Whole).both();
    MOVUPS_ST = row(NP, M0F, 0x11).mr(Whole, Whole).both();
    MOVAPS = row(NP, M0F, 0x28).rm(Whole, Whole).both();
    MOVUPD = row(P66, M0F, 0x10).rm(Whole, Whole).evex_w1().both();
    MOVUPD_ST = row(P66, M0F, 0x11).mr(Whole, Whole).evex_w1().both();
    MOVAPD = row(P66, M0F, 0x28).rm(Whole, Whole).evex_w1().both();
    MASKMOVPS = row(P66, M0F38, 0x2c).rvm().memory().vex();
    MASKMOVPD = row(P66, M0F38, 0x2d).rvm().memory().vex();
    MASKMOVPS_ST = row(P66, M0F38, 0x2e).mvr().memory().vex();
    MASKMOVPD_ST = row(P66, M0F38, 0x2f).mvr().memory().vex();
    BROADCASTSS_M = row(P66, M0F38, 0x18).rm(Whole, Lane(4)).memory().both();
    BROADCASTSD_M = row(P66, M0F38, 0x19).rm(Whole, Lane(8)).memory().evex_w1().widths(Y, Z).both();
    PBROADCASTW = row(P66, M0F38, 0x79).rm(Whole, Lane(2)).both();
    PBROADCASTD = row(P66, M0F38, 0x58).rm(Whole, Lane(4)).both();
    PBROADCASTQ = row(P66, M0F38, 0x59).rm(Whole, Lane(8)).evex_w1().both();
    PBROADCASTD_R = row(P66, M0F38, 0x7c).rm(Whole, R32).register().evex();
    PBROADCASTQ_R = row(P66, M0F38, 0x7c).rm(Whole, R64).register().evex_w1().evex();
    MOVD = row(P66, M0F, 0x6e).rm(Whole, R32).scalar().both();
    MOVQ = row(P66, M0F, 0x6e).rm(Whole, R64).scalar().vex_w1().evex_w1().both();
    MOVD_ST = row(P66, M0F, 0x7e).mr(R32, Whole).scalar().both();
    MOVQ_ST = row(P66, M0F, 0x7e).mr(R64, Whole).scalar().vex_w1().evex_w1().both();

    GATHERDPS = gather(0x92, Whole, true, 4);
    GATHERDPD = gather(0x92, Whole, false, 8);
    GATHERQPS = gather(0x93, Half, true, 4);
    GATHERQPD = gather(0x93, Whole, true, 8);
}
