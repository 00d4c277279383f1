//! Which registers an instruction reads and writes.
//!
//! One table for the verifier, the register allocator and the emitters. Nested bodies are not
//! visited: the caller walks the structure. A loop counts as reading its bounds and writing its
//! counter, a fault as reading the worker.

use super::{Addr, Inst, Int, Reg, WORKER};

/// The table of registers that are read, for `&Inst` and `&mut Inst` alike: `$f` takes a register, `$addr` and `$int`
/// what has some in it.
macro_rules! reads {
    ($inst:expr, $f:expr, $addr:expr, $int:expr) => {
        match $inst {
            Inst::GSet { src, .. } => $int(src, $f),
            Inst::GBin { a, b, .. } | Inst::If { a, b, .. } => {
                $f(a);
                $int(b, $f);
            }
            Inst::GLoad { addr, .. } | Inst::VSplat { addr, .. } | Inst::Prefetch { addr, .. } => {
                $addr(addr, $f)
            }
            Inst::GFromLane { src, .. }
            | Inst::VMove { src, .. }
            | Inst::VFromGpr { src, .. }
            | Inst::VCvt { src, .. }
            | Inst::VReduce { src, .. } => $f(src),
            Inst::VConst { .. } => {}
            Inst::VLoad { addr, mask, .. } => {
                $addr(addr, $f);
                if let Some(mask) = mask {
                    $f(mask);
                }
            }
            Inst::VGather {
                base, index, mask, ..
            } => {
                $f(base);
                $f(index);
                if let Some(mask) = mask {
                    $f(mask);
                }
            }
            Inst::VStore {
                src, addr, mask, ..
            } => {
                $f(src);
                $addr(addr, $f);
                if let Some(mask) = mask {
                    $f(mask);
                }
            }
            Inst::VIota { base, .. } => $f(base),
            Inst::VUn { a, .. } | Inst::MNot { a, .. } => $f(a),
            Inst::VBin { a, b, .. }
            | Inst::VCmp { a, b, .. }
            | Inst::MAnd { a, b, .. }
            | Inst::MOr { a, b, .. } => {
                $f(a);
                $f(b);
            }
            Inst::VFma { a, b, c, .. } | Inst::VFnma { a, b, c, .. } => {
                $f(a);
                $f(b);
                $f(c);
            }
            Inst::VSelect { mask, a, b, .. } => {
                $f(mask);
                $f(a);
                $f(b);
            }
            Inst::VMath { a, b, .. } => {
                $f(a);
                if let Some(b) = b {
                    $f(b);
                }
            }
            Inst::MCount { count, .. } => $f(count),
            Inst::Loop { from, to, .. } => {
                $int(from, $f);
                $int(to, $f);
            }
            Inst::Fault { value, limit, .. } => {
                $f(value);
                $int(limit, $f);
            }
        }
    };
}

/// The table of the register that is assigned, for `&Inst` and `&mut Inst` alike.
macro_rules! written {
    ($inst:expr) => {
        match $inst {
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
            | Inst::MNot { dst, .. } => Some(dst),
            Inst::Loop { var, .. } => Some(var),
            Inst::VStore { .. } | Inst::If { .. } | Inst::Prefetch { .. } | Inst::Fault { .. } => {
                None
            }
        }
    };
}

impl Inst {
    /// Calls `f` with each register that the instruction itself reads, in operand order.
    pub(crate) fn for_each_read(&self, mut f: impl FnMut(Reg)) {
        let addr = |a: &Addr, f: &mut dyn FnMut(&Reg)| {
            f(&a.base);
            if let Some((index, _)) = &a.index {
                f(index);
            }
        };
        let int = |i: &Int, f: &mut dyn FnMut(&Reg)| {
            if let Int::Reg(r) = i {
                f(r);
            }
        };
        let read = &mut |r: &Reg| f(*r);
        reads!(self, read, addr, int);
        if let Inst::VMath { .. } | Inst::Fault { .. } = self {
            f(WORKER);
        }
    }

    /// Calls `f` with each register that stands as an operand that is read; the worker does not.
    pub(crate) fn for_each_read_mut(&mut self, f: &mut dyn FnMut(&mut Reg)) {
        let addr = |a: &mut Addr, f: &mut dyn FnMut(&mut Reg)| {
            f(&mut a.base);
            if let Some((index, _)) = &mut a.index {
                f(index);
            }
        };
        let int = |i: &mut Int, f: &mut dyn FnMut(&mut Reg)| {
            if let Int::Reg(r) = i {
                f(r);
            }
        };
        reads!(self, f, addr, int);
    }

    /// The register that the instruction itself assigns.
    pub fn written(&self) -> Option<Reg> {
        written!(self).copied()
    }

    /// The same, to be replaced.
    pub(crate) fn written_mut(&mut self) -> Option<&mut Reg> {
        written!(self)
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
