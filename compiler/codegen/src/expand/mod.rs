//! From loops to the kernel level: lanes, tails, tiles and addresses are settled here, once.
//!
//! The input is a [`LoopKernel`] with its [`Schedule`]; the output a [`Kernel`] for one number of
//! lanes. A value is always a whole vector register; outside vectorised loops all its lanes are
//! equal ("uniform"), and a store writes lane 0.
//!
//! Two mechanisms do the work of an optimiser. *Hoisting*: an operation is appended to the
//! outermost open scope in which everything that it reads is known (integers and addresses past
//! conditions too, since they cannot fault; loads from memory never past a condition). *Value
//! numbering*: every scope remembers its operations by operands, so that equal ones are made once.
//! Both rest on the invariant that registers made here are assigned at one place, but for
//! accumulators and locals that a condition assigns.

pub use contract::TILE_SCRATCH;
pub(crate) use ints::left_operand;
pub use ints::{factor, for_each_sym};

mod contract;
mod ints;
mod math;
mod reduce;
mod values;

use crate::kernel::{self, Class, Elem, Inst, Int, Kernel, Reg, VBin, VRed};
use crate::loops::*;
use rustc_hash::FxHashMap as HashMap;
use thiserror::Error;

/// How much code a kernel may become.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Size {
    /// As much as makes it faster.
    Fast,
    /// Without what makes it faster by a few percent only: less unrolled, and fewer sizes of tiles for what is left over.
    Lean,
    /// As little as can be, fast or not: small tiles, and loops over single elements.
    Least,
}

/// The machine as this stage sees it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Lanes of every vector register.
    pub lanes: u32,
    /// Architectural vector registers.
    pub vector_registers: u32,
    /// Whether masked loads and stores are cheap, so that tails use them.
    pub masks: bool,
    /// How much code it may become.
    pub size: Size,
}

/// The kernel cannot be expressed at this number of lanes.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct ExpandError(pub String);

type Result<T> = std::result::Result<T, ExpandError>;

/// What an operation is, without its destination: the key of value numbering.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Int(Dim),
    BufferBase(Buf),
    ScratchBase,
    Pointer(Buf, Dim),
    Const(Elem, u64),
    Load {
        buf: Buf,
        at: Dim,
        lanes: LaneAccess,
        mask: Option<Reg>,
    },
    Un(kernel::VUn, Reg),
    Bin(VBin, Reg, Reg),
    Fma(Reg, Reg, Reg),
    Cmp(kernel::VCmp, Reg, Reg),
    Select(Reg, Reg, Reg),
    Cvt(kernel::VCvt, Elem, Reg),
    FromInt(Dim, Elem, i64),
    GatherIndex(i64),
    Mask(u8, Reg, Option<Reg>),
    Count(Dim),
}

/// How the lanes of a load lie in memory.
#[derive(Clone, PartialEq, Eq, Hash)]
enum LaneAccess {
    Uniform,
    Contiguous,
    /// Elements between neighbouring lanes.
    Strided(Dim),
}

#[derive(Default)]
struct Scope {
    insts: Vec<Inst>,
    known: HashMap<Key, Reg>,
    /// Loads do not move out of this scope.
    guarded: bool,
    /// Runs under a condition: what is wanted only here is computed here, unless that takes it out
    /// of a loop.
    conditional: bool,
}

/// What a symbol stands for while its scope is open.
#[derive(Clone)]
enum Bound {
    Reg(Reg, usize),
    /// Another expression, for constants and for unrolled rows and columns.
    Alias(Dim),
}

/// The loop that runs over lanes.
#[derive(Clone)]
struct VectorLoop {
    var: Sym,
    mask: Option<Reg>,
}

struct Expander<'a> {
    loops: &'a LoopKernel,
    schedule: &'a Schedule,
    target: Target,
    out: Kernel,
    scopes: Vec<Scope>,
    syms: Vec<Option<Bound>>,
    /// Register and scope of each local.
    locals: Vec<Option<(Reg, usize)>>,
    /// Locals that several statements assign: what is computed from one stays where it is read.
    reassigned: Vec<bool>,
    /// Scope in which a vector register's value is known.
    depths: HashMap<Reg, usize>,
    vector: Option<VectorLoop>,
    /// Registers of what the present statement's expression is made of.
    parts: HashMap<ExprId, Reg>,
}

/// Expands a kernel for a target.
pub fn expand(loops: &LoopKernel, schedule: &Schedule, target: Target) -> Result<Kernel> {
    let mut e = Expander {
        loops,
        schedule,
        target,
        out: Kernel::new(loops.name.clone(), target.lanes),
        scopes: vec![Scope::default()],
        syms: vec![None; loops.syms.len()],
        locals: vec![None; loops.locals.len()],
        reassigned: reassigned(loops),
        depths: HashMap::default(),
        vector: None,
        parts: HashMap::default(),
    };
    for (i, kind) in loops.syms.iter().enumerate() {
        match kind {
            SymKind::Param(p) => {
                let r = e.out.reg(Class::Gpr);
                let addr = kernel::Addr::base(kernel::DIMS).with_disp(*p as i32 * 8);
                e.push(
                    0,
                    Inst::GLoad {
                        dst: r,
                        mem: Mem::I64,
                        addr,
                    },
                );
                e.syms[i] = Some(Bound::Reg(r, 0));
            }
            SymKind::TaskBegin => e.syms[i] = Some(Bound::Reg(kernel::TASK_BEGIN, 0)),
            _ => {}
        }
    }
    let task = loops.syms.iter().position(|k| *k == SymKind::Task);
    let var = e.out.reg(Class::Gpr);
    e.scopes.push(Scope::default());
    if let Some(t) = task {
        e.syms[t] = Some(Bound::Reg(var, 1));
    }
    e.block(&loops.body)?;
    let body = e.close();
    e.push(
        0,
        Inst::Loop {
            var,
            from: Int::Reg(kernel::TASK_BEGIN),
            to: Int::Reg(kernel::TASK_END),
            step: 1,
            body,
        },
    );
    e.out.body = e.close();
    Ok(e.out)
}

/// Which locals more than one statement assigns.
fn reassigned(loops: &LoopKernel) -> Vec<bool> {
    let mut times = vec![0u32; loops.locals.len()];
    text::for_each_stmt(&loops.body, &mut |s| {
        if let Stmt::Let { local, .. } = s {
            times[local.0 as usize] += 1;
        }
    });
    times.into_iter().map(|n| n > 1).collect()
}

impl Key {
    /// Whether the operation reads a register.
    fn reads(&self, r: Reg) -> bool {
        match self {
            Key::Int(_)
            | Key::BufferBase(_)
            | Key::ScratchBase
            | Key::Pointer(..)
            | Key::Const(..)
            | Key::FromInt(..)
            | Key::GatherIndex(_)
            | Key::Count(_) => false,
            Key::Load { mask, .. } => *mask == Some(r),
            Key::Un(_, a) | Key::Cvt(_, _, a) => *a == r,
            Key::Bin(_, a, b) | Key::Cmp(_, a, b) => *a == r || *b == r,
            Key::Fma(a, b, c) | Key::Select(a, b, c) => [a, b, c].contains(&&r),
            Key::Mask(_, a, b) => *a == r || *b == Some(r),
        }
    }
}

impl Expander<'_> {
    fn depth(&self) -> usize {
        self.scopes.len() - 1
    }
    fn lanes(&self) -> i64 {
        self.target.lanes as i64
    }
    fn push(&mut self, depth: usize, inst: Inst) {
        self.scopes[depth].insts.push(inst);
    }
    fn emit(&mut self, inst: Inst) {
        let d = self.depth();
        self.push(d, inst);
    }
    fn open(&mut self, guarded: bool) {
        self.scopes.push(Scope {
            guarded,
            conditional: guarded,
            ..Scope::default()
        });
    }
    /// Ends the innermost scope and forgets what was bound in it.
    fn close(&mut self) -> Vec<Inst> {
        let scope = self.scopes.pop().unwrap_or_default();
        let depth = self.scopes.len();
        for s in &mut self.syms {
            if matches!(s, Some(Bound::Reg(_, d)) if *d >= depth && depth > 0) {
                *s = None;
            }
        }
        for l in &mut self.locals {
            if matches!(l, Some((_, d)) if *d >= depth) {
                *l = None;
            }
        }
        scope.insts
    }
    /// The register of an equal operation, or a new one whose operation `make` appends at `depth`.
    fn number(
        &mut self,
        depth: usize,
        key: Key,
        class: Class,
        make: impl FnOnce(Reg) -> Inst,
    ) -> Reg {
        if let Some(r) = self.scopes[depth].known.get(&key) {
            return *r;
        }
        let r = self.out.reg(class);
        let inst = make(r);
        self.push(depth, inst);
        self.scopes[depth].known.insert(key, r);
        self.depths.insert(r, depth);
        r
    }
    /// Where to compute an integer that is known from `depth` on: inside the conditions that follow
    /// directly, since hoisting out of them alone would only add work.
    fn placed(&self, depth: usize) -> usize {
        let mut d = depth;
        while self.scopes.get(d + 1).is_some_and(|s| s.conditional) {
            d += 1;
        }
        d
    }
    /// The register that holds a key's value in a scope from which this one can see it.
    fn known(&self, depth: usize, key: &Key) -> Option<Reg> {
        let seen = self.scopes.get(depth..=self.placed(depth))?;
        seen.iter().find_map(|s| s.known.get(key).copied())
    }
    fn reg_depth(&self, r: Reg) -> usize {
        self.depths.get(&r).copied().unwrap_or(0).min(self.depth())
    }

    fn block(&mut self, stmts: &[Stmt]) -> Result<()> {
        stmts.iter().try_for_each(|s| self.stmt(s))
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<()> {
        match stmt {
            Stmt::For {
                var,
                from,
                to,
                body,
            } if self.is_vector(*var) => self.vector_for(*var, from, to, body),
            Stmt::For {
                var,
                from,
                to,
                body,
            } => self.serial(*var, from, to, 1, |e| e.block(body)),
            Stmt::Reduce {
                var,
                from,
                to,
                body,
                accs,
            } => self.reduce(*var, from, to, body, accs),
            Stmt::Let { local, value } => {
                let r = self.value(*value)?;
                match self.locals[local.0 as usize] {
                    Some((dst, depth)) if depth < self.depth() => {
                        self.emit(move_inst(&self.out, dst, r));
                        self.changed(dst);
                    }
                    _ => {
                        // A fresh register: a condition may assign it again.
                        let dst = self.out.reg(self.out.class(r));
                        let depth = self.depth();
                        self.emit(move_inst(&self.out, dst, r));
                        self.depths.insert(dst, depth);
                        self.locals[local.0 as usize] = Some((dst, depth));
                    }
                }
                Ok(())
            }
            Stmt::Store { buf, at, value } => self.store(*buf, at, *value),
            Stmt::If {
                all,
                then,
                otherwise,
            } => self.condition(all, then, otherwise),
            Stmt::Index {
                sym,
                buf,
                at,
                limit,
                operand,
            } => self.index(*sym, *buf, at, limit.as_ref(), *operand),
            Stmt::Contract(c) => self.contract(c),
        }
    }

    /// Forgets what was computed from a register that has a new value now.
    fn changed(&mut self, r: Reg) {
        for s in &mut self.scopes {
            s.known.retain(|key, _| !key.reads(r));
        }
    }

    fn is_vector(&self, var: Sym) -> bool {
        self.lanes() > 1
            && self.target.size != Size::Least
            && self.vector.is_none()
            && self.schedule.vector.contains(&var)
    }

    /// A loop over `from..to` with the variable in a general register; without code for no trip,
    /// without a loop for one.
    fn serial(
        &mut self,
        var: Sym,
        from: &Dim,
        to: &Dim,
        step: i64,
        body: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        self.uniform(from)?;
        self.uniform(to)?;
        let (from, to) = (self.resolve(from), self.resolve(to));
        if let Some(n) = to.sub(&from).as_const() {
            if n <= 0 {
                return Ok(());
            }
            if n <= step {
                return self.once(var, from, body);
            }
        }
        let (f, t) = (self.int(&from)?, self.int(&to)?);
        let reg = self.out.reg(Class::Gpr);
        self.open(false);
        self.syms[var.0 as usize] = Some(Bound::Reg(reg, self.depth()));
        body(self)?;
        let body = self.close();
        self.emit(Inst::Loop {
            var: reg,
            from: f,
            to: t,
            step,
            body,
        });
        Ok(())
    }

    /// What decides which statements run is the same in every lane.
    fn uniform(&self, d: &Dim) -> Result<()> {
        let Some(v) = &self.vector else {
            return Ok(());
        };
        let mut differs = false;
        for_each_sym(d, &mut |s| differs |= s == v.var);
        if differs {
            return Err(ExpandError(format!(
                "lanes of `{}` go different ways",
                self.loops.name
            )));
        }
        Ok(())
    }

    /// A trip of a loop in the present scope, its variable a name for `value`. What the trip assigns
    /// first is its own, as it is in a scope.
    fn once(
        &mut self,
        var: Sym,
        value: Dim,
        body: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let before: Vec<bool> = self.locals.iter().map(Option::is_some).collect();
        let old = self.syms[var.0 as usize].replace(Bound::Alias(value));
        let done = body(self);
        self.syms[var.0 as usize] = old;
        for (local, before) in self.locals.iter_mut().zip(before) {
            if !before {
                *local = None;
            }
        }
        done
    }

    /// Whole vectors in a loop, then the rest: under a mask where masks are cheap, else one by one.
    fn vector_for(&mut self, var: Sym, from: &Dim, to: &Dim, body: &[Stmt]) -> Result<()> {
        self.vector_loop(var, from, to, &mut |e| e.block(body))
    }

    fn vector_loop(
        &mut self,
        var: Sym,
        from: &Dim,
        to: &Dim,
        body: &mut dyn FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let lanes = Dim::Const(self.lanes());
        let (from, to) = (self.resolve(from), self.resolve(to));
        let length = to.sub(&from);
        let whole = from.add(&length.floor_div(&lanes).mul(&lanes));
        self.vector = Some(VectorLoop { var, mask: None });
        let main = self.serial(var, &from, &whole, self.lanes(), &mut *body);
        self.vector = None;
        main?;
        let rest = to.sub(&whole);
        if rest.is_const(0) {
            return Ok(());
        }
        if !self.target.masks {
            return self.serial(var, &whole, &to, 1, body);
        }
        let guarded = rest.as_const().is_none();
        if guarded {
            self.open(true);
        }
        let mask = self.count_mask(&rest)?;
        self.vector = Some(VectorLoop {
            var,
            mask: Some(mask),
        });
        let done = self.once(var, whole, body);
        self.vector = None;
        done?;
        if guarded {
            let then = self.close();
            let a = self.int_reg(&rest)?;
            self.emit(Inst::If {
                cmp: kernel::GCmp::Gt,
                a,
                b: Int::Imm(0),
                then,
                otherwise: Vec::new(),
            });
        }
        Ok(())
    }

    fn condition(&mut self, all: &[Dim], then: &[Stmt], otherwise: &[Stmt]) -> Result<()> {
        let mut open = Vec::new();
        for c in all {
            self.uniform(c)?;
            let c = self.resolve(c);
            match c.is_ge(0).filter(|_| c.as_const().is_some()) {
                Some(true) => {}
                Some(false) => return self.block(otherwise),
                None => open.push(c),
            }
        }
        if open.is_empty() {
            return self.block(then);
        }
        if !otherwise.is_empty() && open.len() > 1 {
            return Err(ExpandError(
                "a condition with an alternative has one term".into(),
            ));
        }
        self.conjunction(&open, then, otherwise)
    }

    fn conjunction(&mut self, conds: &[Dim], then: &[Stmt], otherwise: &[Stmt]) -> Result<()> {
        let Some((first, rest)) = conds.split_first() else {
            return self.block(then);
        };
        let a = self.int_reg(first)?;
        self.open(true);
        self.conjunction(rest, then, &[])?;
        let then = self.close();
        self.open(true);
        self.block(otherwise)?;
        let otherwise = self.close();
        self.emit(Inst::If {
            cmp: kernel::GCmp::Ge,
            a,
            b: Int::Imm(0),
            then,
            otherwise,
        });
        Ok(())
    }

    fn index(
        &mut self,
        sym: Sym,
        buf: Buf,
        at: &Dim,
        limit: Option<&Dim>,
        operand: i32,
    ) -> Result<()> {
        self.uniform(at)?;
        let mem = self.loops.buffers[buf.0 as usize].mem;
        let addr = self.address(buf, at)?;
        let r = self.out.reg(Class::Gpr);
        let depth = self.depth();
        self.emit(Inst::GLoad { dst: r, mem, addr });
        if let Some(limit) = limit {
            let l = self.int(limit)?;
            let wrapped = Inst::GBin {
                op: kernel::GOp::Add,
                dst: r,
                a: r,
                b: l,
            };
            self.emit(Inst::If {
                cmp: kernel::GCmp::Lt,
                a: r,
                b: Int::Imm(0),
                then: vec![wrapped],
                otherwise: Vec::new(),
            });
            for cmp in [kernel::GCmp::Lt, kernel::GCmp::Ge] {
                let b = if cmp == kernel::GCmp::Lt {
                    Int::Imm(0)
                } else {
                    l
                };
                // What is reported is the index as it was read.
                let mut then = Vec::new();
                let mut value = r;
                if cmp == kernel::GCmp::Lt {
                    value = self.out.reg(Class::Gpr);
                    then.push(Inst::GBin {
                        op: kernel::GOp::Sub,
                        dst: value,
                        a: r,
                        b: l,
                    });
                }
                then.push(Inst::Fault {
                    kind: FAULT_INDEX,
                    operand,
                    value,
                    limit: l,
                });
                self.emit(Inst::If {
                    cmp,
                    a: r,
                    b,
                    then,
                    otherwise: Vec::new(),
                });
            }
        }
        // A symbol of its own each time: an unrolled epilogue binds `sym` once a row in one scope, and
        // what was computed from an earlier row's must not be found again.
        let own = self.fresh_sym();
        self.syms[own.0 as usize] = Some(Bound::Reg(r, depth));
        self.syms[sym.0 as usize] = Some(Bound::Alias(Dim::from(own)));
        Ok(())
    }
}

/// The fault kind of an index that lies outside its axis.
pub(crate) const FAULT_INDEX: i32 = 1;

fn move_inst(kernel: &Kernel, dst: Reg, src: Reg) -> Inst {
    match kernel.class(dst) {
        Class::Mask => Inst::MAnd {
            dst,
            a: src,
            b: src,
        },
        _ => Inst::VMove { dst, src },
    }
}

fn one_bits(elem: Elem) -> u64 {
    match elem {
        Elem::F32 => 1f32.to_bits() as u64,
        Elem::F64 => 1f64.to_bits(),
        Elem::I32 | Elem::I64 => 1,
    }
}
