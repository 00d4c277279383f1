//! Gives each use of a temporary its own register.
//!
//! A kernel may use one register for many short-lived values. Its live interval would span them all,
//! and so hold a machine register over loops that do not need it. Where each block that mentions a
//! register first assigns it, without reading it, and no such block stands inside another, no value
//! of it passes from block to block; then every assignment that does not read it starts a register of
//! its own.

use crate::kernel::{Inst, Kernel, Reg};

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
        inst.for_each_read_mut(&mut |r| *r = now.get(r.0 as usize).copied().unwrap_or(*r));
        if let Some(dst) = written
            && splits.get(dst.0 as usize) == Some(&true)
        {
            if !reads_own {
                regs.push(regs[dst.0 as usize]);
                now[dst.0 as usize] = Reg(regs.len() as u32 - 1);
            }
            if let Some(to) = inst.written_mut() {
                *to = now[dst.0 as usize];
            }
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
