//! Where registers are live.
//!
//! Instructions are numbered in program order, two positions each: `p` where they read, `p + 1`
//! where they write; a loop takes one more pair at its end, where counter and bound are read. The
//! interval of a register spans all its accesses. One that is accessed before a loop and in it is
//! live to the loop's end, for it may be read on the next turn. (The verifier has proved that a
//! register first accessed inside a loop is assigned anew on every turn.)
//!
//! Two kinds of register get no interval: constants assigned once, which live in the pool, and loads
//! whose only reader is the next instruction and can take them as its memory operand.

use super::Isa;
use crate::kernel::{Addr, Class, Elem, GOp, Inst, Int, Kernel, Mem, Reg, VCvt, operands};
use rustc_hash::FxHashMap as HashMap;

/// The live range of one register.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval {
    pub start: u32,
    pub end: u32,
    /// Number of accesses, those in loops weighing more.
    pub weight: f32,
    /// A register whose place would spare a move.
    pub hint: Option<Reg>,
}

/// Why a register has no interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Special {
    None,
    Constant(u64),
    /// A load that its reader performs; `true`: one element, broadcast.
    Folded(Addr, bool),
}

/// The result of the analysis; all vectors are indexed by register.
pub(super) struct Liveness {
    pub intervals: Vec<Option<Interval>>,
    pub special: Vec<Special>,
    /// Intervals of constants, should a register be free for them.
    pub constants: Vec<Option<Interval>>,
    /// Loops whose bound changes in their body, by position: the extra register that keeps it.
    pub kept_bounds: HashMap<u32, Reg>,
}

/// Positions that an instruction takes, with its bodies.
pub(super) fn extent(inst: &Inst) -> u32 {
    let nested: u32 = inst.bodies().iter().map(|b| extent_of(b)).sum();
    match inst {
        Inst::Loop { .. } => nested + 4,
        _ => nested + 2,
    }
}

pub(super) fn extent_of(body: &[Inst]) -> u32 {
    body.iter().map(extent).sum()
}

struct Walk<'k> {
    kernel: &'k Kernel,
    live: Liveness,
    pos: u32,
    weight: f32,
    /// Registers touched in each open loop, and the loop's number.
    touched: Vec<(u32, Vec<Reg>)>,
    /// The last loop, by its number, whose list a register joined; 0 for none.
    joined: Vec<u32>,
    loops: u32,
}

pub(super) fn analyse(kernel: &Kernel, isa: Isa) -> Liveness {
    let n = kernel.regs.len();
    let mut live = Liveness {
        intervals: vec![None; n],
        special: vec![Special::None; n],
        constants: vec![None; n],
        kept_bounds: HashMap::default(),
    };
    let mut counts = vec![(0u32, 0u32); n];
    count(&kernel.body, &mut counts);
    mark_special(kernel, isa, &kernel.body, &counts, &mut live.special);
    for i in 0..crate::kernel::ARGS as usize {
        if counts.get(i).is_some_and(|&(reads, _)| reads > 0) {
            live.intervals[i] = Some(Interval {
                start: 0,
                end: 0,
                weight: 1.0,
                hint: None,
            });
        }
    }
    let mut walk = Walk {
        kernel,
        live,
        pos: 2,
        weight: 1.0,
        touched: Vec::new(),
        joined: vec![0; n],
        loops: 0,
    };
    walk.body(&kernel.body);
    walk.live
}

fn count(body: &[Inst], counts: &mut [(u32, u32)]) {
    for inst in body {
        inst.for_each_read(|r| {
            if let Some(c) = counts.get_mut(r.0 as usize) {
                c.0 += 1;
            }
        });
        if let Some(c) = inst.written().and_then(|r| counts.get_mut(r.0 as usize)) {
            c.1 += 1;
        }
        inst.bodies().iter().for_each(|b| count(b, counts));
    }
}

/// The load that an instruction performs, if a reader could perform it instead.
fn foldable(kernel: &Kernel, isa: Isa, inst: &Inst) -> Option<(Reg, Addr, bool)> {
    let whole = |dst: Reg, mem: Mem| {
        kernel.class(dst) == Class::Vec(mem.elem()) && mem.bytes() == mem.elem().bytes()
    };
    match *inst {
        Inst::VLoad {
            dst,
            mem,
            addr,
            mask: None,
        } if whole(dst, mem) => Some((dst, addr, false)),
        Inst::VSplat { dst, mem, addr } if isa == Isa::Avx512 && whole(dst, mem) => {
            Some((dst, addr, true))
        }
        _ => None,
    }
}

/// Whether an instruction can read a register from memory.
fn takes_memory(kernel: &Kernel, inst: &Inst, reg: Reg) -> bool {
    match inst {
        Inst::VBin { op, a, b, .. } => {
            use crate::kernel::VBin::*;
            let Class::Vec(elem) = kernel.class(reg) else {
                return false;
            };
            let swaps = match op {
                Add | Mul | And | Or | Xor => true,
                Min | Max => !elem.is_float(),
                _ => false,
            };
            let direct = elem.is_float() || elem == Elem::I32;
            direct && (*b == reg || (swaps && *a == reg)) && a != b
        }
        Inst::VFma { .. } | Inst::VFnma { .. } => true,
        _ => false,
    }
}

fn mark_special(
    kernel: &Kernel,
    isa: Isa,
    body: &[Inst],
    counts: &[(u32, u32)],
    special: &mut [Special],
) {
    for (i, inst) in body.iter().enumerate() {
        if let Inst::VConst { dst, bits } = *inst
            && counts.get(dst.0 as usize).is_some_and(|c| c.1 == 1)
        {
            special[dst.0 as usize] = Special::Constant(bits);
        }
        if let Some((dst, addr, splat)) = foldable(kernel, isa, inst)
            && counts.get(dst.0 as usize) == Some(&(1, 1))
            && let Some(next) = body.get(i + 1)
            && takes_memory(kernel, next, dst)
        {
            let mut others = 0;
            next.for_each_read(|r| {
                if r != dst
                    && special
                        .get(r.0 as usize)
                        .is_some_and(|s| *s != Special::None)
                {
                    others += 1;
                }
            });
            if others == 0 {
                special[dst.0 as usize] = Special::Folded(addr, splat);
            }
        }
        for b in inst.bodies() {
            mark_special(kernel, isa, b, counts, special);
        }
    }
}

/// Whether the instruction may write its result before it has read all operands.
fn writes_early(inst: &Inst) -> bool {
    match inst {
        Inst::GBin { op, .. } => !matches!(
            op,
            GOp::Add | GOp::Sub | GOp::And | GOp::Or | GOp::Xor | GOp::Shl | GOp::Sar
        ),
        Inst::GSet { .. }
        | Inst::GLoad { .. }
        | Inst::VMove { .. }
        | Inst::VLoad { .. }
        | Inst::VSplat { .. }
        | Inst::VBin { .. }
        | Inst::VFma { .. }
        | Inst::VFnma { .. }
        | Inst::VUn { .. }
        | Inst::VSelect { .. }
        | Inst::Loop { .. } => false,
        Inst::VCvt { how, .. } => *how == VCvt::Value,
        _ => true,
    }
}

impl Walk<'_> {
    fn touch(&mut self, reg: Reg, at: u32) {
        let Some(special) = self.live.special.get(reg.0 as usize) else {
            return;
        };
        let slot = match special {
            Special::None => self.live.intervals.get_mut(reg.0 as usize),
            Special::Constant(_) => self.live.constants.get_mut(reg.0 as usize),
            Special::Folded(addr, _) => {
                let addr = *addr;
                self.touch(addr.base, at);
                if let Some((index, _)) = addr.index {
                    self.touch(index, at);
                }
                return;
            }
        };
        let start = match special {
            Special::Constant(_) => 0,
            _ => at,
        };
        if let Some(slot) = slot {
            let i = slot.get_or_insert(Interval {
                start,
                end: at,
                weight: 0.0,
                hint: None,
            });
            i.end = i.end.max(at);
            i.start = i.start.min(start);
            i.weight += self.weight;
        }
        self.join(reg);
    }

    /// Adds a register to the innermost loop's list, where it may stand twice but not once for each access.
    fn join(&mut self, reg: Reg) {
        if let Some((number, list)) = self.touched.last_mut()
            && let Some(joined) = self.joined.get_mut(reg.0 as usize)
            && *joined != *number
        {
            *joined = *number;
            list.push(reg);
        }
    }

    fn body(&mut self, body: &[Inst]) {
        for inst in body {
            self.inst(inst);
        }
    }

    fn inst(&mut self, inst: &Inst) {
        let p = self.pos;
        self.pos += 2;
        let folded = inst.written().is_some_and(|d| {
            matches!(
                self.live.special.get(d.0 as usize),
                Some(Special::Folded(..))
            )
        });
        if folded {
            return;
        }
        inst.for_each_read(|r| self.touch(r, p));
        if let Some(dst) = inst.written()
            && !matches!(inst, Inst::VConst { .. } if self.is_constant(dst))
        {
            if writes_early(inst) {
                self.touch(dst, p);
            }
            self.touch(dst, p + 1);
            self.hint(inst, dst, p);
        }
        match inst {
            Inst::Loop { var, to, body, .. } => self.a_loop(p, *var, *to, body),
            Inst::If {
                then, otherwise, ..
            } => {
                self.body(then);
                self.body(otherwise);
            }
            _ => {}
        }
    }

    fn is_constant(&self, reg: Reg) -> bool {
        matches!(
            self.live.special.get(reg.0 as usize),
            Some(Special::Constant(_))
        )
    }

    fn hint(&mut self, inst: &Inst, dst: Reg, p: u32) {
        let class = self.kernel.class(dst);
        let mut hint = None;
        if let Inst::VFma { c, .. } | Inst::VFnma { c, .. } = inst {
            hint = Some(*c);
        } else {
            inst.for_each_read(|r| {
                if hint.is_none() && r != dst && self.kernel.class(r) == class {
                    hint = Some(r);
                }
            });
        }
        if let Some(Some(i)) = self.live.intervals.get_mut(dst.0 as usize)
            && i.start >= p
            && i.hint.is_none()
        {
            i.hint = hint;
        }
    }

    fn a_loop(&mut self, p: u32, var: Reg, to: Int, body: &[Inst]) {
        let mut bound = match to {
            Int::Reg(r) => Some(r),
            Int::Imm(_) => None,
        };
        if let Some(r) = bound
            && operands::assigns(body, r)
        {
            let kept = Reg(self.live.intervals.len() as u32);
            self.live.intervals.push(None);
            self.live.special.push(Special::None);
            self.live.constants.push(None);
            self.joined.push(0);
            self.live.kept_bounds.insert(p, kept);
            self.touch(kept, p + 1);
            bound = Some(kept);
        }
        self.loops += 1;
        self.touched.push((self.loops, Vec::new()));
        self.weight *= 8.0;
        self.body(body);
        let q = self.pos;
        self.pos += 2;
        self.touch(var, q);
        if let Some(r) = bound {
            self.touch(r, q);
        }
        self.weight /= 8.0;
        let (_, inside) = self.touched.pop().unwrap_or_default();
        for &r in &inside {
            let slot = if self.is_constant(r) {
                self.live.constants.get_mut(r.0 as usize)
            } else {
                self.live.intervals.get_mut(r.0 as usize)
            };
            // A loop's reads are at `p`, so one that is written at `p + 1` starts before the body.
            if let Some(Some(i)) = slot
                && i.start <= p + 1
            {
                i.end = i.end.max(q);
            }
        }
        inside.into_iter().for_each(|r| self.join(r));
    }
}
