//! Gives each use of a temporary its own register.
//!
//! A kernel may use one register for many short-lived values. Its live interval would span them all,
//! and so hold a machine register over loops that do not need it. Where each block that mentions a
//! register first assigns it, without reading it, and no such block stands inside another, no value
//! of it passes from block to block; then every assignment that does not read it starts a register of
//! its own.

use crate::kernel::{Addr, Inst, Int, Kernel, Reg};

/// What is known of a register while blocks are visited.
#[derive(Clone, Copy, Default)]
struct Use {
    /// Assignments that do not read the register.
    fresh: u32,
    /// Some block reads it first, or nests, or it is a counter.
    shared: bool,
    /// The innermost open block that mentions it.
    block: u32,
    mentioned: bool,
}

struct Walk {
    uses: Vec<Use>,
    /// Open blocks, the innermost last.
    open: Vec<u32>,
    blocks: u32,
}

/// The kernel with such registers split.
pub(super) fn split(kernel: &Kernel) -> Kernel {
    let mut walk = Walk {
        uses: vec![Use::default(); kernel.regs.len()],
        open: Vec::new(),
        blocks: 0,
    };
    for a in walk.uses.iter_mut().take(crate::kernel::ARGS as usize) {
        a.shared = true;
    }
    walk.body(&kernel.body);
    let splits: Vec<bool> = walk.uses.iter().map(|u| !u.shared && u.fresh > 1).collect();
    let mut out = kernel.clone();
    if splits.contains(&true) {
        let mut now: Vec<Reg> = (0..kernel.regs.len() as u32).map(Reg).collect();
        let mut regs = kernel.regs.clone();
        rename(&mut out.body, &splits, &mut now, &mut regs);
        out.regs = regs;
    }
    out
}

impl Walk {
    fn body(&mut self, body: &[Inst]) {
        self.blocks += 1;
        self.open.push(self.blocks);
        for inst in body {
            let written = inst.written();
            let mut fresh = true;
            inst.for_each_read(|r| {
                fresh &= Some(r) != written;
                self.mention(r, false);
            });
            if let Some(dst) = written {
                self.mention(dst, fresh);
                if matches!(inst, Inst::Loop { .. })
                    && let Some(u) = self.uses.get_mut(dst.0 as usize)
                {
                    u.shared = true;
                }
            }
            for nested in inst.bodies() {
                if !nested.is_empty() {
                    self.body(nested);
                }
            }
        }
        self.open.pop();
    }

    fn mention(&mut self, r: Reg, fresh: bool) {
        let here = self.open.last().copied().unwrap_or(0);
        let Some(u) = self.uses.get_mut(r.0 as usize) else {
            return;
        };
        if u.block != here {
            // A new block for it: it must assign, and neither stand in another's nor hold one's.
            let inside_other = u.mentioned && self.open.contains(&u.block);
            let around_other = u.mentioned && u.block > here;
            u.shared |= !fresh || inside_other || around_other;
            u.block = here;
        }
        u.mentioned = true;
        u.fresh += u32::from(fresh);
    }
}

fn rename(
    body: &mut [Inst],
    splits: &[bool],
    now: &mut [Reg],
    regs: &mut Vec<crate::kernel::Class>,
) {
    for inst in body {
        let mut reads_own = false;
        let written = inst.written();
        inst.for_each_read(|r| reads_own |= Some(r) == written);
        map_reads(inst, &mut |r| now.get(r.0 as usize).copied().unwrap_or(r));
        if let Some(dst) = written
            && splits.get(dst.0 as usize) == Some(&true)
        {
            if !reads_own {
                regs.push(regs[dst.0 as usize]);
                now[dst.0 as usize] = Reg(regs.len() as u32 - 1);
            }
            set_written(inst, now[dst.0 as usize]);
        }
        match inst {
            Inst::Loop { body, .. } => rename(body, splits, now, regs),
            Inst::If {
                then, otherwise, ..
            } => {
                rename(then, splits, now, regs);
                rename(otherwise, splits, now, regs);
            }
            _ => {}
        }
    }
}

fn map_reads(inst: &mut Inst, f: &mut dyn FnMut(Reg) -> Reg) {
    fn addr(a: &mut Addr, f: &mut dyn FnMut(Reg) -> Reg) {
        a.base = f(a.base);
        if let Some((index, _)) = &mut a.index {
            *index = f(*index);
        }
    }
    fn int(i: &mut Int, f: &mut dyn FnMut(Reg) -> Reg) {
        if let Int::Reg(r) = i {
            *r = f(*r);
        }
    }
    fn option(r: &mut Option<Reg>, f: &mut dyn FnMut(Reg) -> Reg) {
        if let Some(r) = r {
            *r = f(*r);
        }
    }
    match inst {
        Inst::GSet { src, .. } => int(src, f),
        Inst::GBin { a, b, .. } => {
            *a = f(*a);
            int(b, f);
        }
        Inst::GLoad { addr: a, .. }
        | Inst::VSplat { addr: a, .. }
        | Inst::Prefetch { addr: a, .. } => {
            addr(a, f);
        }
        Inst::GFromLane { src, .. }
        | Inst::VMove { src, .. }
        | Inst::VFromGpr { src, .. }
        | Inst::VCvt { src, .. }
        | Inst::VReduce { src, .. } => *src = f(*src),
        Inst::VConst { .. } => {}
        Inst::VLoad { addr: a, mask, .. } => {
            addr(a, f);
            option(mask, f);
        }
        Inst::VGather {
            base, index, mask, ..
        } => {
            *base = f(*base);
            *index = f(*index);
            option(mask, f);
        }
        Inst::VStore {
            src, addr: a, mask, ..
        } => {
            *src = f(*src);
            addr(a, f);
            option(mask, f);
        }
        Inst::VIota { base, .. } => *base = f(*base),
        Inst::VUn { a, .. } | Inst::MNot { a, .. } => *a = f(*a),
        Inst::VBin { a, b, .. }
        | Inst::VCmp { a, b, .. }
        | Inst::MAnd { a, b, .. }
        | Inst::MOr { a, b, .. } => {
            *a = f(*a);
            *b = f(*b);
        }
        Inst::VFma { a, b, c, .. } | Inst::VFnma { a, b, c, .. } => {
            *a = f(*a);
            *b = f(*b);
            *c = f(*c);
        }
        Inst::VSelect { mask, a, b, .. } => {
            *mask = f(*mask);
            *a = f(*a);
            *b = f(*b);
        }
        Inst::VMath { a, b, .. } => {
            *a = f(*a);
            option(b, f);
        }
        Inst::MCount { count, .. } => *count = f(*count),
        Inst::Loop { from, to, .. } => {
            int(from, f);
            int(to, f);
        }
        Inst::If { a, b, .. } => {
            *a = f(*a);
            int(b, f);
        }
        Inst::Fault { value, limit, .. } => {
            *value = f(*value);
            int(limit, f);
        }
    }
}

fn set_written(inst: &mut Inst, reg: Reg) {
    match inst {
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
        | Inst::MNot { dst, .. } => *dst = reg,
        Inst::Loop { .. }
        | Inst::VStore { .. }
        | Inst::If { .. }
        | Inst::Prefetch { .. }
        | Inst::Fault { .. } => {}
    }
}
