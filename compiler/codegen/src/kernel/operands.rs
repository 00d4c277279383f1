//! Which registers an instruction reads and writes.
//!
//! One table for the verifier, the register allocator and the emitters. Nested bodies are not
//! visited: the caller walks the structure. A loop counts as reading its bounds and writing its
//! counter, a fault as reading the worker.

use super::{Addr, Inst, Int, Reg, WORKER};

impl Inst {
    /// Calls `f` with each register that the instruction itself reads, in operand order.
    pub(crate) fn for_each_read(&self, mut f: impl FnMut(Reg)) {
        let addr = |a: &Addr, f: &mut dyn FnMut(Reg)| {
            f(a.base);
            if let Some((index, _)) = a.index {
                f(index);
            }
        };
        let int = |i: &Int, f: &mut dyn FnMut(Reg)| {
            if let Int::Reg(r) = i {
                f(*r);
            }
        };
        match self {
            Inst::GSet { src, .. } => int(src, &mut f),
            Inst::GBin { a, b, .. } => {
                f(*a);
                int(b, &mut f);
            }
            Inst::GLoad { addr: a, .. } | Inst::VSplat { addr: a, .. } => addr(a, &mut f),
            Inst::Prefetch { addr: a, .. } => addr(a, &mut f),
            Inst::GFromLane { src, .. }
            | Inst::VMove { src, .. }
            | Inst::VFromGpr { src, .. }
            | Inst::VCvt { src, .. }
            | Inst::VReduce { src, .. } => f(*src),
            Inst::VConst { .. } => {}
            Inst::VLoad { addr: a, mask, .. } => {
                addr(a, &mut f);
                mask.iter().for_each(|&m| f(m));
            }
            Inst::VGather {
                base, index, mask, ..
            } => {
                f(*base);
                f(*index);
                mask.iter().for_each(|&m| f(m));
            }
            Inst::VStore {
                src, addr: a, mask, ..
            } => {
                f(*src);
                addr(a, &mut f);
                mask.iter().for_each(|&m| f(m));
            }
            Inst::VIota { base, .. } => f(*base),
            Inst::VUn { a, .. } | Inst::MNot { a, .. } => f(*a),
            Inst::VBin { a, b, .. }
            | Inst::VCmp { a, b, .. }
            | Inst::MAnd { a, b, .. }
            | Inst::MOr { a, b, .. } => {
                f(*a);
                f(*b);
            }
            Inst::VFma { a, b, c, .. } | Inst::VFnma { a, b, c, .. } => {
                f(*a);
                f(*b);
                f(*c);
            }
            Inst::VSelect { mask, a, b, .. } => {
                f(*mask);
                f(*a);
                f(*b);
            }
            Inst::VMath { a, b, .. } => {
                f(*a);
                b.iter().for_each(|&b| f(b));
                f(WORKER);
            }
            Inst::MCount { count, .. } => f(*count),
            Inst::Loop { from, to, .. } => {
                int(from, &mut f);
                int(to, &mut f);
            }
            Inst::If { a, b, .. } => {
                f(*a);
                int(b, &mut f);
            }
            Inst::Fault { value, limit, .. } => {
                f(*value);
                int(limit, &mut f);
                f(WORKER);
            }
        }
    }

    /// The register that the instruction itself assigns.
    pub fn written(&self) -> Option<Reg> {
        match self {
            Inst::GSet { dst, .. }
            | Inst::GBin { dst, .. }
            | Inst::GLoad { dst, .. }
            | Inst::GFromLane { dst, .. }
            | Inst::VConst { dst, .. }
            | Inst::VMove { dst, .. }
            | Inst::VLoad { dst, .. }
            | Inst::VSplat { dst, .. }
            | Inst::VGather { dst, .. }
            | Inst::VFromGpr { dst, .. }
            | Inst::VIota { dst, .. }
            | Inst::VUn { dst, .. }
            | Inst::VBin { dst, .. }
            | Inst::VFma { dst, .. }
            | Inst::VFnma { dst, .. }
            | Inst::VCmp { dst, .. }
            | Inst::VSelect { dst, .. }
            | Inst::VCvt { dst, .. }
            | Inst::VReduce { dst, .. }
            | Inst::VMath { dst, .. }
            | Inst::MCount { dst, .. }
            | Inst::MAnd { dst, .. }
            | Inst::MOr { dst, .. }
            | Inst::MNot { dst, .. } => Some(*dst),
            Inst::Loop { var, .. } => Some(*var),
            Inst::VStore { .. } | Inst::If { .. } | Inst::Prefetch { .. } | Inst::Fault { .. } => {
                None
            }
        }
    }

    /// The nested bodies, in order.
    pub fn bodies(&self) -> [&[Inst]; 2] {
        match self {
            Inst::Loop { body, .. } => [body, &[]],
            Inst::If {
                then, otherwise, ..
            } => [then, otherwise],
            _ => [&[], &[]],
        }
    }
}

/// Whether any instruction of a body, at any depth, assigns a register.
pub(crate) fn assigns(body: &[Inst], reg: Reg) -> bool {
    body.iter()
        .any(|i| i.written() == Some(reg) || i.bodies().iter().any(|b| assigns(b, reg)))
}
