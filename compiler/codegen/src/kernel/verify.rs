//! The verifier of kernels: what the emitters rely on.
//!
//! Checked: registers exist; classes and element types of operands agree; a register is assigned
//! before it is read on every path (a loop may run no turn, so what it assigns does not count behind
//! it); loop counters are assigned by their loop alone; 64-bit elements fit the widest vector; and
//! what the operations say of their operands.

use super::{Addr, Class, Elem, GOp, Inst, Int, Kernel, MathFn, Reg, VBin, VCvt, VUn, operands};

/// The first thing wrong with a kernel.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("kernel {kernel}: {what}, in `{inst}`")]
pub struct VerifyError {
    /// The kernel's name.
    pub kernel: String,
    /// The instruction, as text; empty for the kernel itself.
    pub inst: String,
    /// The rule that it breaks.
    pub what: String,
}

/// Checks a kernel.
pub fn verify(kernel: &Kernel) -> Result<(), VerifyError> {
    let mut v = Verifier {
        kernel,
        assigned: vec![false; kernel.regs.len()],
        counters: Vec::new(),
    };
    v.header().map_err(|what| v.error(None, what))?;
    for a in v.assigned.iter_mut().take(super::ARGS as usize) {
        *a = true;
    }
    v.body(&kernel.body)?;
    Ok(())
}

struct Verifier<'k> {
    kernel: &'k Kernel,
    assigned: Vec<bool>,
    /// Counters of the loops around.
    counters: Vec<Reg>,
}

type Check = Result<(), String>;

fn ensure(ok: bool, what: impl FnOnce() -> String) -> Check {
    if ok { Ok(()) } else { Err(what()) }
}

impl Verifier<'_> {
    fn error(&self, inst: Option<&Inst>, what: String) -> VerifyError {
        let text = inst.map(|i| self.kernel.show(i, 0)).unwrap_or_default();
        VerifyError {
            kernel: self.kernel.name.clone(),
            inst: text.lines().next().unwrap_or_default().to_string(),
            what,
        }
    }

    fn header(&self) -> Check {
        let k = self.kernel;
        let name_ok = !k.name.is_empty()
            && !k.name.starts_with(|c: char| c.is_ascii_digit())
            && k.name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_');
        ensure(name_ok, || format!("`{}` is no C identifier", k.name))?;
        ensure(matches!(k.lanes, 1 | 4 | 8 | 16), || {
            format!("{} lanes; 1, 4, 8 or 16 expected", k.lanes)
        })?;
        let args = k.regs.get(..super::ARGS as usize);
        ensure(
            args.is_some_and(|a| a.iter().all(|c| *c == Class::Gpr)),
            || "the first registers are not the arguments".into(),
        )?;
        let wide = |c: &Class| matches!(c, Class::Vec(e) if e.bytes() * k.lanes > 64);
        ensure(!k.regs.iter().any(wide), || {
            format!("64-bit elements in {} lanes", k.lanes)
        })
    }

    /// Returns whether the end of the body can be reached.
    fn body(&mut self, body: &[Inst]) -> Result<bool, VerifyError> {
        let mut reached = true;
        for inst in body {
            self.inst(inst).map_err(|w| self.error(Some(inst), w))?;
            match inst {
                Inst::Loop { var, body, .. } => {
                    let before = self.assigned.clone();
                    self.set(*var);
                    self.counters.push(*var);
                    self.body(body)?;
                    self.counters.pop();
                    self.assigned = before;
                    // The counter has no value behind its loop.
                    if let Some(a) = self.assigned.get_mut(var.0 as usize) {
                        *a = false;
                    }
                }
                Inst::If {
                    then, otherwise, ..
                } => {
                    let before = self.assigned.clone();
                    let then_ends = self.body(then)?;
                    let after_then = std::mem::replace(&mut self.assigned, before);
                    let otherwise_ends = self.body(otherwise)?;
                    match (then_ends, otherwise_ends) {
                        (true, true) => {
                            for (a, t) in self.assigned.iter_mut().zip(after_then) {
                                *a &= t;
                            }
                        }
                        (true, false) => self.assigned = after_then,
                        (false, true) => {}
                        (false, false) => reached = false,
                    }
                }
                Inst::Fault { .. } => reached = false,
                _ => {
                    if let Some(dst) = inst.written() {
                        self.set(dst);
                    }
                }
            }
        }
        Ok(reached)
    }

    fn set(&mut self, r: Reg) {
        if let Some(a) = self.assigned.get_mut(r.0 as usize) {
            *a = true;
        }
    }

    fn is(&self, r: Reg, class: Class) -> Check {
        let found = self.kernel.class(r);
        ensure(found == class, || {
            format!("{r:?} is {found:?}; {class:?} expected")
        })
    }
    fn gpr(&self, r: Reg) -> Check {
        self.is(r, Class::Gpr)
    }
    fn mask(&self, r: Reg) -> Check {
        self.is(r, Class::Mask)
    }
    fn some_mask(&self, r: Option<Reg>) -> Check {
        r.map_or(Ok(()), |r| self.mask(r))
    }
    fn int(&self, i: Int) -> Check {
        match i {
            Int::Reg(r) => self.gpr(r),
            Int::Imm(_) => Ok(()),
        }
    }
    fn vec(&self, r: Reg) -> Result<Elem, String> {
        match self.kernel.class(r) {
            Class::Vec(e) => Ok(e),
            found => Err(format!("{r:?} is {found:?}; a vector expected")),
        }
    }
    fn integers(&self, r: Reg) -> Result<Elem, String> {
        let e = self.vec(r)?;
        ensure(!e.is_float(), || {
            format!("{r:?} is {e:?}; integers expected")
        })?;
        Ok(e)
    }
    fn addr(&self, a: Addr) -> Check {
        self.gpr(a.base)?;
        match a.index {
            Some((r, scale)) => {
                self.gpr(r)?;
                ensure(matches!(scale, 1 | 2 | 4 | 8), || format!("scale {scale}"))
            }
            None => Ok(()),
        }
    }
    fn all(&self, elem: Elem, regs: &[Reg]) -> Check {
        regs.iter().try_for_each(|&r| self.is(r, Class::Vec(elem)))
    }

    /// The instruction itself, without its bodies.
    fn inst(&self, inst: &Inst) -> Check {
        let mut unassigned = None;
        inst.for_each_read(|r| {
            if self.assigned.get(r.0 as usize) != Some(&true) {
                unassigned.get_or_insert(r);
            }
        });
        if let Some(r) = unassigned {
            let exists = (r.0 as usize) < self.assigned.len();
            return Err(if exists {
                format!("{r:?} is read, and not assigned on every path before")
            } else {
                format!("{r:?} does not exist")
            });
        }
        if let Some(dst) = inst.written() {
            ensure((dst.0 as usize) < self.assigned.len(), || {
                format!("{dst:?} does not exist")
            })?;
            ensure(!self.counters.contains(&dst), || {
                format!("{dst:?} is the counter of a loop around")
            })?;
        }
        self.types(inst)
    }

    fn types(&self, inst: &Inst) -> Check {
        let one_lane = self.kernel.lanes == 1;
        match *inst {
            Inst::GSet { dst, src } => {
                self.gpr(dst)?;
                self.int(src)
            }
            Inst::GBin { op, dst, a, b } => {
                self.gpr(dst)?;
                self.gpr(a)?;
                self.int(b)?;
                let shift = matches!(op, GOp::Shl | GOp::Sar);
                ensure(!shift || matches!(b, Int::Imm(0..64)), || {
                    "a shift takes an immediate in 0..64".into()
                })
            }
            Inst::GLoad { dst, mem, addr } => {
                self.gpr(dst)?;
                self.addr(addr)?;
                ensure(!mem.elem().is_float(), || format!("an integer of {mem:?}"))
            }
            Inst::GFromLane { dst, src } => {
                self.gpr(dst)?;
                self.integers(src).map(drop)
            }
            Inst::VConst { dst, .. } => self.vec(dst).map(drop),
            Inst::VMove { dst, src } => {
                ensure(self.kernel.class(dst) != Class::Gpr, || {
                    "a move of a general register".into()
                })?;
                self.is(src, self.kernel.class(dst))
            }
            Inst::VLoad {
                dst,
                mem,
                addr,
                mask,
            }
            | Inst::VStore {
                src: dst,
                mem,
                addr,
                mask,
            } => {
                self.is(dst, Class::Vec(mem.elem()))?;
                self.addr(addr)?;
                self.some_mask(mask)
            }
            Inst::VSplat { dst, mem, addr } => {
                self.is(dst, Class::Vec(mem.elem()))?;
                self.addr(addr)
            }
            Inst::VGather {
                dst,
                mem,
                base,
                index,
                mask,
            } => {
                self.is(dst, Class::Vec(mem.elem()))?;
                self.gpr(base)?;
                self.integers(index)?;
                self.some_mask(mask)
            }
            Inst::VFromGpr { dst, src: g } | Inst::VIota { dst, base: g, .. } => {
                self.integers(dst)?;
                self.gpr(g)
            }
            Inst::VUn { op, dst, a } => {
                let e = self.vec(dst)?;
                let ok = match op {
                    VUn::Neg | VUn::Abs => true,
                    VUn::Not => !e.is_float(),
                    _ => e.is_float(),
                };
                ensure(ok, || format!("{op:?} on {e:?}"))?;
                self.all(e, &[a])
            }
            Inst::VBin { op, dst, a, b } => {
                let e = self.vec(dst)?;
                let ok = match op {
                    VBin::Div => e.is_float() || one_lane,
                    VBin::Rem => !e.is_float() && one_lane,
                    VBin::Shl | VBin::Shr | VBin::Sar => !e.is_float(),
                    _ => true,
                };
                ensure(ok, || format!("{op:?} on {} of {e:?}", self.kernel.lanes))?;
                self.all(e, &[a, b])
            }
            Inst::VFma { dst, a, b, c } | Inst::VFnma { dst, a, b, c } => {
                self.all(self.vec(dst)?, &[a, b, c])
            }
            Inst::VCmp { dst, a, b, .. } => {
                self.mask(dst)?;
                self.all(self.vec(a)?, &[b])
            }
            Inst::VSelect { dst, mask, a, b } => {
                self.mask(mask)?;
                self.all(self.vec(dst)?, &[a, b])
            }
            Inst::VCvt { how, dst, src } => {
                let (from, to) = (self.vec(src)?, self.vec(dst)?);
                let ok = match how {
                    VCvt::Bits => from.bytes() == to.bytes(),
                    VCvt::Value => true,
                    VCvt::NearestInRange => from.is_float() && !to.is_float(),
                };
                ensure(ok, || format!("{how:?} from {from:?} to {to:?}"))
            }
            Inst::VReduce { dst, src, .. } => self.all(self.vec(dst)?, &[src]),
            Inst::VMath { func, dst, a, b } => {
                let e = self.vec(dst)?;
                ensure(one_lane && e.is_float(), || {
                    format!("{func:?} on {} of {e:?}", self.kernel.lanes)
                })?;
                let two = matches!(func, MathFn::Pow | MathFn::Fmod);
                ensure(b.is_some() == two, || {
                    format!("{func:?} has the wrong number of operands")
                })?;
                self.all(e, &[a])?;
                b.map_or(Ok(()), |b| self.all(e, &[b]))
            }
            Inst::MCount { dst, count } => {
                self.mask(dst)?;
                self.gpr(count)
            }
            Inst::MAnd { dst, a, b } | Inst::MOr { dst, a, b } => {
                [dst, a, b].into_iter().try_for_each(|r| self.mask(r))
            }
            Inst::MNot { dst, a } => {
                self.mask(dst)?;
                self.mask(a)
            }
            Inst::Loop {
                var,
                from,
                to,
                step,
                ref body,
            } => {
                self.gpr(var)?;
                self.int(from)?;
                self.int(to)?;
                ensure(step > 0, || format!("a step of {step}"))?;
                ensure(to != Int::Reg(var), || {
                    "the counter is its own bound".into()
                })?;
                ensure(!operands::assigns(body, var), || {
                    format!("{var:?} is a counter, and assigned in its loop")
                })
            }
            Inst::If { a, b, .. } => {
                self.gpr(a)?;
                self.int(b)
            }
            Inst::Prefetch { addr, .. } => self.addr(addr),
            Inst::Fault { value, limit, .. } => {
                self.gpr(value)?;
                self.int(limit)
            }
        }
    }
}
