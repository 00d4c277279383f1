//! Which row of the table does an operation on an element type.

use super::Isa;
use super::table::{self as t, Op};
use crate::kernel::{Elem, VBin};

/// The row for four element types: F32, F64, I32, I64.
fn by(elem: Elem, rows: [Option<&'static Op>; 4]) -> Option<&'static Op> {
    rows[elem as usize]
}

/// One instruction for a lane operation, and whether its operands may be swapped.
pub(super) fn bin(op: VBin, elem: Elem, isa: Isa) -> Option<(&'static Op, bool)> {
    let float = elem.is_float();
    let (row, swaps) = match op {
        VBin::Add => (
            by(
                elem,
                [
                    Some(&t::ADDPS),
                    Some(&t::ADDPD),
                    Some(&t::PADDD),
                    Some(&t::PADDQ),
                ],
            ),
            true,
        ),
        VBin::Sub => (
            by(
                elem,
                [
                    Some(&t::SUBPS),
                    Some(&t::SUBPD),
                    Some(&t::PSUBD),
                    Some(&t::PSUBQ),
                ],
            ),
            false,
        ),
        VBin::Mul => (
            by(
                elem,
                [
                    Some(&t::MULPS),
                    Some(&t::MULPD),
                    Some(&t::PMULLD),
                    Some(&t::PMULLQ),
                ],
            ),
            true,
        ),
        VBin::Div => (
            by(elem, [Some(&t::DIVPS), Some(&t::DIVPD), None, None]),
            false,
        ),
        VBin::Rem => (None, false),
        VBin::Min => (
            by(
                elem,
                [
                    Some(&t::MINPS),
                    Some(&t::MINPD),
                    Some(&t::PMINSD),
                    Some(&t::PMINSQ),
                ],
            ),
            !float,
        ),
        VBin::Max => (
            by(
                elem,
                [
                    Some(&t::MAXPS),
                    Some(&t::MAXPD),
                    Some(&t::PMAXSD),
                    Some(&t::PMAXSQ),
                ],
            ),
            !float,
        ),
        VBin::And => (Some(wide(elem, &t::ANDPS, &t::ANDPD)), true),
        VBin::Or => (Some(wide(elem, &t::ORPS, &t::ORPD)), true),
        VBin::Xor => (Some(wide(elem, &t::XORPS, &t::XORPD)), true),
        VBin::AndNot => (Some(wide(elem, &t::ANDNPS, &t::ANDNPD)), false),
        VBin::Shl => (
            by(elem, [None, None, Some(&t::PSLLVD), Some(&t::PSLLVQ)]),
            false,
        ),
        VBin::Shr => (
            by(elem, [None, None, Some(&t::PSRLVD), Some(&t::PSRLVQ)]),
            false,
        ),
        VBin::Sar => (
            by(elem, [None, None, Some(&t::PSRAVD), Some(&t::PSRAVQ)]),
            false,
        ),
    };
    row.filter(|row| exists(row, isa)).map(|row| (row, swaps))
}

/// Whether an instruction set has the row.
pub(super) fn exists(row: &Op, isa: Isa) -> bool {
    isa == Isa::Avx512 || row.has_vex()
}

/// By the width of an element alone.
pub(super) fn wide(elem: Elem, four: &'static Op, eight: &'static Op) -> &'static Op {
    if elem.bytes() == 4 { four } else { eight }
}

/// A shift by an immediate.
pub(super) fn shift_imm(op: VBin, elem: Elem, isa: Isa) -> Option<&'static Op> {
    let row = match (op, elem) {
        (VBin::Shl, Elem::I32) => &t::PSLLD_I,
        (VBin::Shl, Elem::I64) => &t::PSLLQ_I,
        (VBin::Shr, Elem::I32) => &t::PSRLD_I,
        (VBin::Shr, Elem::I64) => &t::PSRLQ_I,
        (VBin::Sar, Elem::I32) => &t::PSRAD_I,
        (VBin::Sar, Elem::I64) => &t::PSRAQ_I,
        _ => return None,
    };
    exists(row, isa).then_some(row)
}

/// Forms of a fused multiply-add: the first operand is the destination; the digits tell which two
/// are multiplied (the first two digits) and which is added.
pub(super) struct Fma {
    pub f132: &'static Op,
    pub f213: &'static Op,
    pub f231: &'static Op,
}

pub(super) fn fma(negate: bool, elem: Elem) -> Option<Fma> {
    Some(match (negate, elem) {
        (false, Elem::F32) => Fma {
            f132: &t::FMADD132PS,
            f213: &t::FMADD213PS,
            f231: &t::FMADD231PS,
        },
        (false, Elem::F64) => Fma {
            f132: &t::FMADD132PD,
            f213: &t::FMADD213PD,
            f231: &t::FMADD231PD,
        },
        (true, Elem::F32) => Fma {
            f132: &t::FNMADD132PS,
            f213: &t::FNMADD213PS,
            f231: &t::FNMADD231PS,
        },
        (true, Elem::F64) => Fma {
            f132: &t::FNMADD132PD,
            f213: &t::FNMADD213PD,
            f231: &t::FNMADD231PD,
        },
        _ => return None,
    })
}
