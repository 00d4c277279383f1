//! The verifier of loops: what [`expand`](crate::expand) relies on.
//!
//! In goes a kernel that lowering, a test or a text made; out comes the first rule that it breaks.
//! The rules are those of the module comment of [`super`], and: operands of an expression have the
//! types that its operation takes; tasks, scratch sizes and offsets speak of parameters alone; a
//! vectorised loop hands no local from one trip to the next (sums go through [`Stmt::Reduce`]);
//! the left operand of a contraction is linear in its row and, with a constant factor, in its depth, where both
//! may be cut into runs of equal length (rows in runs, lines, begin and end with one).
//! Whether an index stays inside its buffer is not known here; the interpreter checks that.

use super::text::{for_each_stmt, operands};
use super::*;
use crate::expand::{for_each_sym, left_operand};
use std::collections::HashSet;
use thiserror::Error;

/// A rule that a kernel breaks: a defect of whoever made it.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("loops of `{kernel}`: {what}")]
pub struct VerifyError {
    /// The kernel's name.
    pub kernel: String,
    /// The rule that it breaks.
    pub what: String,
}

type Result<T> = std::result::Result<T, String>;

/// Most vectors of sums in a tile: what its scratch memory holds.
const MOST_SUMS: u32 = (crate::expand::TILE_SCRATCH / 64) as u32;

/// Elements below which the rows of a left operand in lines lie apart: displacements of one pointer reach them.
const MOST_OF_A_LINE: i64 = 1 << 24;

/// Checks a kernel.
pub fn verify(kernel: &LoopKernel) -> std::result::Result<(), VerifyError> {
    let name = |what| VerifyError {
        kernel: kernel.name.clone(),
        what,
    };
    Verifier::new(kernel).kernel().map_err(name)
}

/// Checks that a schedule speaks of loops that the kernel has.
pub fn verify_schedule(
    kernel: &LoopKernel,
    schedule: &Schedule,
) -> std::result::Result<(), VerifyError> {
    let mut wrong = None;
    let mut loops = HashSet::new();
    for_each_stmt(&kernel.body, &mut |s| {
        if let Stmt::For { var, body, .. } | Stmt::Reduce { var, body, .. } = s {
            loops.insert(*var);
            if schedule.vector.contains(var)
                && let Some(l) = carried(kernel, body)
            {
                wrong = Some(format!("v{} is vectorised and hands l{} on", var.0, l.0));
            }
        }
    });
    if let Some(v) = schedule.vector.iter().find(|v| !loops.contains(v)) {
        wrong = Some(format!(
            "the schedule vectorises v{}, which is no loop",
            v.0
        ));
    }
    if schedule.tile_rows.saturating_mul(schedule.tile_vectors) > MOST_SUMS {
        wrong = Some(format!("a tile has more than {MOST_SUMS} vectors of sums"));
    }
    match wrong {
        None => Ok(()),
        Some(what) => Err(VerifyError {
            kernel: kernel.name.clone(),
            what,
        }),
    }
}

/// A local that a loop's body reads before it assigns it, and assigns: it carries a value from one
/// trip to the next.
pub(super) fn carried(k: &LoopKernel, body: &[Stmt]) -> Option<Local> {
    /// Goes through statements in order; `done` are the locals assigned on every path to here.
    fn walk(k: &LoopKernel, body: &[Stmt], done: &mut HashSet<Local>, early: &mut HashSet<Local>) {
        let read = |root: ExprId, done: &HashSet<Local>, early: &mut HashSet<Local>| {
            let (mut seen, mut todo) = (HashSet::new(), vec![root]);
            while let Some(e) = todo.pop().filter(|e| (e.0 as usize) < k.exprs.len()) {
                if seen.insert(e) {
                    let e = &k.exprs[e.0 as usize];
                    todo.extend(operands(e));
                    early.extend(match e {
                        Expr::Local(l) if !done.contains(l) => Some(*l),
                        _ => None,
                    });
                }
            }
        };
        for s in body {
            match s {
                Stmt::Let { local, value } => {
                    read(*value, done, early);
                    done.insert(*local);
                }
                Stmt::Store { value, .. } => read(*value, done, early),
                Stmt::For { body, .. } => walk(k, body, &mut done.clone(), early),
                Stmt::Reduce { body, accs, .. } => {
                    let mut inner = done.clone();
                    walk(k, body, &mut inner, early);
                    accs.iter().for_each(|a| read(a.value, &inner, early));
                    done.extend(accs.iter().map(|a| a.local));
                }
                Stmt::If {
                    then, otherwise, ..
                } => {
                    walk(k, then, &mut done.clone(), early);
                    walk(k, otherwise, &mut done.clone(), early);
                }
                Stmt::Index { .. } | Stmt::Contract(_) => {}
            }
        }
    }
    let (mut early, mut assigned) = (HashSet::new(), HashSet::new());
    walk(k, body, &mut HashSet::new(), &mut early);
    for_each_stmt(body, &mut |s| match s {
        Stmt::Let { local, .. } => {
            assigned.insert(*local);
        }
        Stmt::Reduce { accs, .. } => assigned.extend(accs.iter().map(|a| a.local)),
        _ => {}
    });
    early.intersection(&assigned).min().copied()
}

struct Verifier<'k> {
    k: &'k LoopKernel,
    bound: Vec<bool>,
    assigned: Vec<bool>,
    types: Vec<Ty>,
}

impl<'k> Verifier<'k> {
    fn new(k: &'k LoopKernel) -> Self {
        Verifier {
            k,
            bound: vec![false; k.syms.len()],
            assigned: vec![false; k.locals.len()],
            types: Vec::with_capacity(k.exprs.len()),
        }
    }

    fn kernel(&mut self) -> Result<()> {
        let k = self.k;
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let identifier =
            |n: &str| n.chars().all(word) && !n.starts_with(|c: char| c.is_ascii_digit());
        if k.name.is_empty() || !identifier(&k.name) {
            return Err("its name is not an identifier of C".into());
        }
        for kind in [SymKind::Task, SymKind::TaskBegin] {
            if k.syms.iter().filter(|s| **s == kind).count() > 1 {
                return Err(format!("two symbols are {kind:?}"));
            }
        }
        for (i, s) in k.syms.iter().enumerate() {
            if let SymKind::Param(p) = s {
                self.bound[i] = true;
                if *p > i32::MAX as u32 / 8 {
                    return Err(format!("d{i} is entry {p} of the dims: too far"));
                }
            }
        }
        self.dim(&k.tasks, "the number of tasks")?;
        self.dim(&k.scratch_bytes, "the size of scratch memory")?;
        let mut entries = HashSet::new();
        for b in &k.buffers {
            if b.name.is_empty() || !identifier(&b.name) {
                return Err(format!(
                    "the buffer's name `{}` is not an identifier",
                    b.name
                ));
            }
            match &b.kind {
                BufferKind::Input(n) | BufferKind::Output(n) if *n > i32::MAX as u32 / 8 => {
                    return Err(format!("buffer `{}` is entry {n}: too far", b.name));
                }
                BufferKind::Input(_) => {}
                BufferKind::Output(n) => {
                    if !entries.insert(*n) {
                        return Err(format!("two outputs are entry {n} of the buffers"));
                    }
                }
                BufferKind::Scratch { offset } => {
                    self.dim(offset, "the place of a scratch buffer")?;
                    let whole = match offset {
                        Dim::Const(c) => c % 64 == 0,
                        Dim::Sum(s) => {
                            s.constant % 64 == 0 && s.terms.iter().all(|t| t.1 % 64 == 0)
                        }
                    };
                    if !whole {
                        return Err(format!(
                            "scratch `{}` is not at a multiple of 64 bytes",
                            b.name
                        ));
                    }
                }
            }
        }
        for (i, s) in k.syms.iter().enumerate() {
            self.bound[i] |= matches!(s, SymKind::Task | SymKind::TaskBegin);
        }
        for (i, e) in k.exprs.iter().enumerate() {
            if operands(e).iter().any(|o| o.0 as usize >= i) {
                return Err(format!("expression {i} does not come after its operands"));
            }
            let ty = self
                .typed(e)
                .map_err(|what| format!("expression {i}: {what}"))?;
            self.types.push(ty);
        }
        self.block(&k.body)?;
        self.written_and_read(&k.body)
    }

    fn buffer(&self, b: Buf) -> Result<&'k Buffer> {
        self.k
            .buffers
            .get(b.0 as usize)
            .ok_or_else(|| format!("there is no buffer {}", b.0))
    }
    fn ty(&self, e: ExprId) -> Result<Ty> {
        self.types
            .get(e.0 as usize)
            .copied()
            .ok_or_else(|| format!("there is no expression {}", e.0))
    }
    fn elem(&self, e: ExprId) -> Result<Elem> {
        match self.ty(e)? {
            Ty::Num(e) => Ok(e),
            Ty::Bool => Err("a truth value where a number is wanted".into()),
        }
    }

    /// The type of an expression whose operands have theirs.
    fn typed(&self, e: &Expr) -> Result<Ty> {
        let same = |a: ExprId, b: ExprId| match (self.ty(a)?, self.ty(b)?) {
            (a, b) if a == b => Ok(a),
            (a, b) => Err(format!("operands of types {a:?} and {b:?}")),
        };
        Ok(match e {
            Expr::Load { buf, .. } => Ty::Num(self.buffer(*buf)?.mem.elem()),
            Expr::Const { elem, .. } | Expr::Int { elem, .. } => Ty::Num(*elem),
            Expr::Local(l) => *self
                .k
                .locals
                .get(l.0 as usize)
                .ok_or_else(|| format!("there is no local {}", l.0))?,
            Expr::Un { op, a } => {
                let ty = self.ty(*a)?;
                let fits = match (op, ty) {
                    (UnOp::Not, Ty::Bool) => true,
                    (_, Ty::Bool) => false,
                    (UnOp::Neg | UnOp::Abs, _) => true,
                    (UnOp::Not, Ty::Num(e)) => !e.is_float(),
                    (_, Ty::Num(e)) => e.is_float(),
                };
                if !fits {
                    return Err(format!("{op:?} of {ty:?}"));
                }
                ty
            }
            Expr::Bin { op, a, b } => {
                use BinOp as B;
                let ty = same(*a, *b)?;
                let fits = match (op, ty) {
                    (B::And | B::Or | B::Xor | B::Add | B::Mul | B::Min | B::Max, Ty::Bool) => true,
                    (_, Ty::Bool) => false,
                    (B::Pow | B::MinFast | B::MaxFast, Ty::Num(e)) => e.is_float(),
                    (B::And | B::Or | B::Xor | B::Shl | B::Shr | B::Sar, Ty::Num(e)) => {
                        !e.is_float()
                    }
                    _ => true,
                };
                if !fits {
                    return Err(format!("{op:?} of {ty:?}"));
                }
                ty
            }
            Expr::Fma { a, b, c } => match (same(*a, *b)?, same(*b, *c)?) {
                (Ty::Num(e), _) if e.is_float() => Ty::Num(e),
                (ty, _) => return Err(format!("fma of {ty:?}")),
            },
            Expr::Cmp { op, a, b } => {
                if same(*a, *b)? == Ty::Bool && !matches!(op, CmpOp::Eq | CmpOp::Ne) {
                    return Err(format!("{op:?} of truth values"));
                }
                Ty::Bool
            }
            Expr::Select { cond, a, b } => {
                if self.ty(*cond)? != Ty::Bool {
                    return Err("the condition of a select is a number".into());
                }
                same(*a, *b)?
            }
            Expr::Convert { a, to } => {
                self.ty(*a)?;
                Ty::Num(*to)
            }
            Expr::Bits { a, to } => {
                let from = self.elem(*a)?;
                if from.bytes() != to.bytes() {
                    return Err(format!("the bits of {from:?} as {to:?}"));
                }
                Ty::Num(*to)
            }
            Expr::Narrow { a, to } => {
                let from = self.elem(*a)?;
                if from != to.elem() {
                    return Err(format!("{from:?} narrowed to {to:?}"));
                }
                Ty::Num(from)
            }
        })
    }

    /// All symbols of an integer expression have values here.
    fn dim(&self, d: &Dim, what: &str) -> Result<()> {
        let mut free = None;
        for_each_sym(d, &mut |s| {
            if !self.bound.get(s.0 as usize).copied().unwrap_or(false) {
                free = Some(s);
            }
        });
        match free {
            None => Ok(()),
            Some(s) => Err(format!("{what} uses symbol {} where nothing binds it", s.0)),
        }
    }

    /// A root expression: every index in it has its symbols, every local is assigned.
    fn expr(&self, root: ExprId) -> Result<()> {
        self.ty(root)?;
        let (mut seen, mut todo) = (HashSet::new(), vec![root]);
        while let Some(id) = todo.pop() {
            if !seen.insert(id) {
                continue;
            }
            let e = &self.k.exprs[id.0 as usize];
            match e {
                Expr::Load { at, buf } => {
                    self.dim(at, &format!("an index of `{}`", self.buffer(*buf)?.name))?
                }
                Expr::Int { value, .. } => self.dim(value, "an integer")?,
                Expr::Local(l) if !self.assigned[l.0 as usize] => {
                    return Err(format!("l{} is read before it is assigned", l.0));
                }
                _ => todo.extend(operands(e)),
            }
        }
        Ok(())
    }

    fn assign(&mut self, l: Local, ty: Ty) -> Result<()> {
        let i = l.0 as usize;
        match self.k.locals.get(i) {
            None => return Err(format!("there is no local {}", l.0)),
            Some(own) if *own != ty => {
                return Err(format!("l{i} of type {own:?} is assigned {ty:?}"));
            }
            Some(_) => {}
        }
        self.assigned[i] = true;
        Ok(())
    }

    fn bind(&mut self, s: Sym, kind: SymKind) -> Result<()> {
        let i = s.0 as usize;
        match self.k.syms.get(i) {
            Some(own) if *own == kind => {}
            own => return Err(format!("symbol {i} is {own:?} and bound as {kind:?}")),
        }
        if self.bound[i] {
            return Err(format!("symbol {i} is bound inside its own range"));
        }
        self.bound[i] = true;
        Ok(())
    }

    /// Statements, and what they bind forgotten behind them.
    fn inside<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let (bound, assigned) = (self.bound.clone(), self.assigned.clone());
        let done = f(self);
        (self.bound, self.assigned) = (bound, assigned);
        done
    }

    fn block(&mut self, body: &[Stmt]) -> Result<()> {
        body.iter().try_for_each(|s| self.stmt(s))
    }

    fn stmt(&mut self, s: &Stmt) -> Result<()> {
        match s {
            Stmt::For {
                var,
                from,
                to,
                body,
            } => {
                self.dim(from, "a loop's start")?;
                self.dim(to, "a loop's end")?;
                self.inside(|v| {
                    v.bind(*var, SymKind::Loop)?;
                    v.block(body)?;
                    Ok(())
                })
            }
            Stmt::Reduce {
                var,
                from,
                to,
                body,
                accs,
            } => {
                self.dim(from, "a reduction's start")?;
                self.dim(to, "a reduction's end")?;
                self.inside(|v| {
                    v.bind(*var, SymKind::Loop)?;
                    for a in accs {
                        // An accumulator has no value that its own loop may read.
                        if let Some(l) = v.assigned.get_mut(a.local.0 as usize) {
                            *l = false;
                        }
                    }
                    v.block(body)?;
                    for a in accs {
                        v.expr(a.value)?;
                        v.elem(a.value)?;
                    }
                    Ok(())
                })?;
                for a in accs {
                    self.assign(a.local, self.ty(a.value)?)?;
                }
                Ok(())
            }
            Stmt::Let { local, value } => {
                self.expr(*value)?;
                self.assign(*local, self.ty(*value)?)
            }
            Stmt::Store { buf, at, value } => {
                let buffer = self.buffer(*buf)?;
                self.dim(at, &format!("a place in `{}`", buffer.name))?;
                self.expr(*value)?;
                if matches!(buffer.kind, BufferKind::Input(_)) {
                    return Err(format!("`{}` is an input and is stored to", buffer.name));
                }
                match self.ty(*value)? {
                    Ty::Num(e) if e == buffer.mem.elem() => Ok(()),
                    Ty::Bool if buffer.mem.elem() == Elem::I32 => Ok(()),
                    ty => Err(format!(
                        "{ty:?} is stored to `{}` of {:?}",
                        buffer.name, buffer.mem
                    )),
                }
            }
            Stmt::If {
                all,
                then,
                otherwise,
            } => {
                all.iter().try_for_each(|c| self.dim(c, "a condition"))?;
                if !otherwise.is_empty() && all.len() > 1 {
                    return Err("a condition with an alternative has more than one term".into());
                }
                self.inside(|v| v.block(then))?;
                self.inside(|v| v.block(otherwise))
            }
            Stmt::Index {
                sym,
                buf,
                at,
                limit,
                ..
            } => {
                let buffer = self.buffer(*buf)?;
                self.dim(at, &format!("an index of `{}`", buffer.name))?;
                limit.iter().try_for_each(|l| self.dim(l, "a limit"))?;
                if buffer.mem.elem().is_float() {
                    return Err(format!(
                        "an index is loaded from `{}` of {:?}",
                        buffer.name, buffer.mem
                    ));
                }
                self.bind(*sym, SymKind::Loaded)
            }
            Stmt::Contract(c) => self.contract(c),
        }
    }

    fn contract(&mut self, c: &Contract) -> Result<()> {
        for d in [
            &c.rows.0,
            &c.rows.1,
            &c.cols.0,
            &c.cols.1,
            &c.depth,
            &c.b.base,
            &c.b.k_stride,
        ] {
            self.dim(d, "a contraction")?;
        }
        if let Some((width, stride)) = &c.b.panel {
            self.dim(stride, "a contraction's panels")?;
            let aligned = c.cols.0.modulo(&Dim::Const((*width).max(1)));
            if *width <= 0 || aligned.as_const().is_some_and(|r| r != 0) {
                return Err(format!("columns from {} on in panels of {width}", c.cols.0));
            }
        }
        for b in [c.a, c.b.buf] {
            let buffer = self.buffer(b)?;
            if buffer.mem != Mem::F32 {
                return Err(format!(
                    "a contraction reads `{}` of {:?}",
                    buffer.name, buffer.mem
                ));
            }
        }
        self.inside(|v| {
            v.bind(c.row, SymKind::Loop)?;
            v.inside(|v| {
                v.bind(c.k, SymKind::Loop)?;
                v.dim(&c.a_at, "the left operand")
            })?;
            let Some(left) = left_operand(&c.a_at, c.row, c.k) else {
                return Err("the left operand is not linear in its row and its depth".into());
            };
            if let Some(runs) = &left.runs
                && c.depth.as_const().is_none_or(|d| d % runs.length != 0)
            {
                return Err(format!("a depth of {} in runs of {}", c.depth, runs.length));
            }
            if let Some(lines) = &left.lines {
                let whole = |d: &Dim| d.modulo(&Dim::Const(lines.length)).is_const(0);
                let near = |d: &Dim| d.as_const().is_some_and(|d| d.abs() < MOST_OF_A_LINE);
                if !whole(&c.rows.0) || !whole(&c.rows.1) {
                    return Err(format!(
                        "rows {} to {} in lines of {}",
                        c.rows.0, c.rows.1, lines.length
                    ));
                }
                if !near(&left.row_stride) || !near(&lines.jump) {
                    return Err(format!(
                        "lines of a left operand with rows {} and a jump of {}",
                        left.row_stride, lines.jump
                    ));
                }
            }
            v.bind(c.col, SymKind::Loop)?;
            v.assign(c.acc, Ty::Num(Elem::F32))?;
            let mut nested = false;
            for_each_stmt(&c.epilogue, &mut |s| {
                nested |= matches!(s, Stmt::Contract(_))
            });
            if nested {
                return Err("a contraction inside an epilogue".into());
            }
            v.block(&c.epilogue)?;
            Ok(())
        })
    }

    /// What an innermost loop writes it does not read at another index.
    fn written_and_read(&self, body: &[Stmt]) -> Result<()> {
        for s in body {
            let (Stmt::For { body, .. } | Stmt::Reduce { body, .. }) = s else {
                if let Stmt::If {
                    then, otherwise, ..
                } = s
                {
                    self.written_and_read(then)?;
                    self.written_and_read(otherwise)?;
                }
                continue;
            };
            let (mut inner, mut stores, mut roots) = (false, Vec::new(), Vec::new());
            if let Stmt::Reduce { accs, .. } = s {
                roots.extend(accs.iter().map(|a| a.value));
            }
            for_each_stmt(body, &mut |s| match s {
                Stmt::For { .. } | Stmt::Reduce { .. } | Stmt::Contract(_) => inner = true,
                Stmt::Let { value, .. } => roots.push(*value),
                Stmt::Store { buf, at, value } => {
                    stores.push((*buf, at));
                    roots.push(*value);
                }
                Stmt::If { .. } | Stmt::Index { .. } => {}
            });
            if inner {
                self.written_and_read(body)?;
                continue;
            }
            let mut seen = HashSet::new();
            while let Some(e) = roots.pop() {
                if !seen.insert(e) {
                    continue;
                }
                let e = &self.k.exprs[e.0 as usize];
                roots.extend(operands(e));
                if let Expr::Load { buf, at } = e
                    && stores.iter().any(|(b, place)| b == buf && *place != at)
                {
                    let name = &self.buffer(*buf)?.name;
                    return Err(format!(
                        "`{name}` is read at another index in the loop that writes it"
                    ));
                }
            }
        }
        Ok(())
    }
}
