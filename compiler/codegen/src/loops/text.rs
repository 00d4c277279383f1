//! The text of loops: the printer. [`parse`](super::parse::parse) reads it back; `docs/loops.md` has the
//! grammar.
//!
//! The first letter of a symbol tells what binds it: `d` a parameter, `t` the task, `b` the first
//! task, `v` a loop, `x` a loaded index; the number is its own. Locals are `l0`, `l1`, …. Expressions
//! are written out as formulas; a part that a statement uses twice is named before it, `with e0 = …`.
//! Reading back gives [`LoopKernel::canonical`]: the same kernel, its expressions in order of use.

use super::*;
use crate::kernel::text::{MEMS, name};
use rustc_hash::FxHashMap as HashMap;
use std::collections::HashSet;
use std::fmt::{self, Write};

/// Names of the lane types.
pub(super) const ELEMS: &[(Elem, &str)] = &[
    (Elem::F32, "f32"),
    (Elem::F64, "f64"),
    (Elem::I32, "i32"),
    (Elem::I64, "i64"),
];

/// Names of one-operand primitives.
pub(super) const UNOPS: &[(UnOp, &str)] = &[
    (UnOp::Neg, "neg"),
    (UnOp::Abs, "abs"),
    (UnOp::Sqrt, "sqrt"),
    (UnOp::Floor, "floor"),
    (UnOp::Ceil, "ceil"),
    (UnOp::Trunc, "trunc"),
    (UnOp::Round, "round"),
    (UnOp::Not, "not"),
    (UnOp::Exp, "exp"),
    (UnOp::Log, "log"),
    (UnOp::Sin, "sin"),
    (UnOp::Cos, "cos"),
    (UnOp::Tan, "tan"),
    (UnOp::Asin, "asin"),
    (UnOp::Acos, "acos"),
    (UnOp::Atan, "atan"),
    (UnOp::Sinh, "sinh"),
    (UnOp::Cosh, "cosh"),
    (UnOp::Tanh, "tanh"),
    (UnOp::Asinh, "asinh"),
    (UnOp::Acosh, "acosh"),
    (UnOp::Atanh, "atanh"),
    (UnOp::Erf, "erf"),
    (UnOp::Sigmoid, "sigmoid"),
];

/// Names of two-operand primitives that are written as functions.
pub(super) const BINOPS: &[(BinOp, &str)] = &[
    (BinOp::Min, "min"),
    (BinOp::Max, "max"),
    (BinOp::MinFast, "minfast"),
    (BinOp::MaxFast, "maxfast"),
    (BinOp::Pow, "pow"),
    (BinOp::And, "and"),
    (BinOp::Or, "or"),
    (BinOp::Xor, "xor"),
    (BinOp::Shl, "shl"),
    (BinOp::Shr, "shr"),
    (BinOp::Sar, "sar"),
];

/// Signs of those that are written between their operands, with how tightly they bind.
pub(super) const INFIX: &[(BinOp, &str, u8)] = &[
    (BinOp::Add, "+", 2),
    (BinOp::Sub, "-", 2),
    (BinOp::Mul, "*", 3),
    (BinOp::Div, "/", 3),
    (BinOp::Rem, "%", 3),
];

/// Signs of comparisons.
pub(super) const COMPARE: &[(CmpOp, &str)] = &[
    (CmpOp::Eq, "=="),
    (CmpOp::Ne, "!="),
    (CmpOp::Lt, "<"),
    (CmpOp::Le, "<="),
    (CmpOp::Gt, ">"),
    (CmpOp::Ge, ">="),
];

/// Names of reductions.
pub(super) const REDOPS: &[(RedOp, &str)] = &[
    (RedOp::Sum, "sum"),
    (RedOp::Prod, "prod"),
    (RedOp::Min, "min"),
    (RedOp::Max, "max"),
];

/// The letter of a symbol's name.
pub(super) fn letter(kind: &SymKind) -> char {
    match kind {
        SymKind::Param(_) => 'd',
        SymKind::Task => 't',
        SymKind::TaskBegin => 'b',
        SymKind::Loop => 'v',
        SymKind::Loaded => 'x',
    }
}

fn ty_name(ty: Ty) -> &'static str {
    match ty {
        Ty::Num(e) => name(ELEMS, e),
        Ty::Bool => "bool",
    }
}

/// A constant: a decimal with its type behind it (none for f32 with a point and for i32), or bits.
pub(super) fn constant(elem: Elem, bits: u64) -> String {
    let float = |text: String, finite: bool, exact: bool, suffix: &str| {
        (finite && exact).then(|| format!("{text}{suffix}"))
    };
    let text = match elem {
        Elem::F32 => {
            let v = f32::from_bits(bits as u32);
            float(format!("{v:?}"), v.is_finite(), bits >> 32 == 0, "")
        }
        Elem::F64 => {
            let v = f64::from_bits(bits);
            float(format!("{v:?}"), v.is_finite(), true, "f64")
        }
        Elem::I32 => (bits >> 32 == 0).then(|| (bits as u32 as i32).to_string()),
        Elem::I64 => Some(format!("{}i64", bits as i64)),
    };
    text.unwrap_or_else(|| format!("const.{}({bits:#x})", name(ELEMS, elem)))
}

/// The operands of an expression, in the order in which they are written.
pub(super) fn operands(e: &Expr) -> Vec<ExprId> {
    match e {
        Expr::Load { .. } | Expr::Const { .. } | Expr::Local(_) | Expr::Int { .. } => Vec::new(),
        Expr::Un { a, .. }
        | Expr::Convert { a, .. }
        | Expr::Bits { a, .. }
        | Expr::Narrow { a, .. } => {
            vec![*a]
        }
        Expr::Bin { a, b, .. } | Expr::Cmp { a, b, .. } => vec![*a, *b],
        Expr::Fma { a, b, c } => vec![*a, *b, *c],
        Expr::Select { cond, a, b } => vec![*cond, *a, *b],
    }
}

/// The parts of a formula that are used more than once, each after those that it uses.
fn shared(k: &LoopKernel, root: ExprId) -> Vec<ExprId> {
    fn walk(k: &LoopKernel, e: ExprId, uses: &mut HashMap<ExprId, u32>, order: &mut Vec<ExprId>) {
        let n = uses.entry(e).or_insert(0);
        *n += 1;
        if *n > 1 {
            return;
        }
        let parts = k.exprs.get(e.0 as usize).map(operands).unwrap_or_default();
        for p in &parts {
            walk(k, *p, uses, order);
        }
        if !parts.is_empty() {
            order.push(e);
        }
    }
    let (mut uses, mut order) = (HashMap::default(), Vec::new());
    walk(k, root, &mut uses, &mut order);
    order.retain(|e| *e != root && uses.get(e).is_some_and(|n| *n > 1));
    order
}

struct Printer<'k> {
    k: &'k LoopKernel,
    out: String,
    depth: usize,
    /// Names of the present statement's shared parts.
    named: HashMap<ExprId, usize>,
}

impl Printer<'_> {
    fn sym(&self, s: Sym) -> String {
        let letter = self.k.syms.get(s.0 as usize).map_or('?', letter);
        format!("{letter}{}", s.0)
    }
    fn dim(&self, d: &Dim) -> String {
        d.text(&|s| self.sym(s))
    }
    /// A buffer's name, with its number where it is not the only one of that name.
    fn buf(&self, b: Buf) -> String {
        let Some(buffer) = self.k.buffers.get(b.0 as usize) else {
            return format!("?{}", b.0);
        };
        match self
            .k
            .buffers
            .iter()
            .filter(|o| o.name == buffer.name)
            .count()
        {
            1 => buffer.name.clone(),
            _ => format!("{}#{}", buffer.name, b.0),
        }
    }
    fn local(&self, l: Local) -> String {
        let ty = self.k.locals.get(l.0 as usize).map_or("?", |t| ty_name(*t));
        format!("l{}: {ty}", l.0)
    }
    fn line(&mut self, text: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.out, "{:1$}{text}", "", 2 * self.depth);
    }

    /// The names of a formula's shared parts on lines of their own; then the formula.
    fn formula(&mut self, root: ExprId) -> String {
        self.named.clear();
        for e in shared(self.k, root) {
            let text = self.expr(e, 0);
            let n = self.named.len();
            self.named.insert(e, n);
            self.line(&format!("with e{n} = {text}"));
        }
        let text = self.expr(root, 0);
        self.named.clear();
        text
    }

    /// An expression, in parentheses where it binds less tightly than `at_least`.
    fn expr(&self, id: ExprId, at_least: u8) -> String {
        if let Some(n) = self.named.get(&id) {
            return format!("e{n}");
        }
        let Some(e) = self.k.exprs.get(id.0 as usize) else {
            return format!("?{}", id.0);
        };
        let x = |e: &ExprId| self.expr(*e, 0);
        let (text, binds) = match e {
            Expr::Load { buf, at } => (format!("{}[{}]", self.buf(*buf), self.dim(at)), 4),
            Expr::Const { elem, bits } => (constant(*elem, *bits), 4),
            Expr::Local(l) => (format!("l{}", l.0), 4),
            Expr::Int { value, elem } => (
                format!("index.{}({})", name(ELEMS, *elem), self.dim(value)),
                4,
            ),
            Expr::Un { op, a } => (format!("{}({})", name(UNOPS, *op), x(a)), 4),
            Expr::Bin { op, a, b } => match INFIX.iter().find(|i| i.0 == *op) {
                Some((_, sign, p)) => (
                    format!("{} {sign} {}", self.expr(*a, *p), self.expr(*b, p + 1)),
                    *p,
                ),
                None => (format!("{}({}, {})", name(BINOPS, *op), x(a), x(b)), 4),
            },
            Expr::Fma { a, b, c } => (format!("fma({}, {}, {})", x(a), x(b), x(c)), 4),
            Expr::Cmp { op, a, b } => (
                format!(
                    "{} {} {}",
                    self.expr(*a, 2),
                    name(COMPARE, *op),
                    self.expr(*b, 2)
                ),
                1,
            ),
            Expr::Select { cond, a, b } => (format!("select({}, {}, {})", x(cond), x(a), x(b)), 4),
            Expr::Convert { a, to } => (format!("to.{}({})", name(ELEMS, *to), x(a)), 4),
            Expr::Bits { a, to } => (format!("bits.{}({})", name(ELEMS, *to), x(a)), 4),
            Expr::Narrow { a, to } => (format!("narrow.{}({})", name(MEMS, *to), x(a)), 4),
        };
        if binds < at_least {
            format!("({text})")
        } else {
            text
        }
    }

    fn block(&mut self, body: &[Stmt]) {
        self.depth += 1;
        body.iter().for_each(|s| self.stmt(s));
        self.depth -= 1;
    }

    fn range(&self, var: Sym, from: &Dim, to: &Dim) -> String {
        format!("{} in {}..{}", self.sym(var), self.dim(from), self.dim(to))
    }

    fn stmt(&mut self, s: &Stmt) {
        match s {
            Stmt::For {
                var,
                from,
                to,
                body,
            } => {
                let range = self.range(*var, from, to);
                self.line(&format!("for {range} {{"));
                self.block(body);
                self.line("}");
            }
            Stmt::Reduce {
                var,
                from,
                to,
                body,
                accs,
            } => {
                let range = self.range(*var, from, to);
                self.line(&format!("reduce {range} {{"));
                self.block(body);
                self.depth += 1;
                for a in accs {
                    let value = self.formula(a.value);
                    let local = self.local(a.local);
                    self.line(&format!("{local} {}= {value}", name(REDOPS, a.op)));
                }
                self.depth -= 1;
                self.line("}");
            }
            Stmt::Let { local, value } => {
                let value = self.formula(*value);
                let local = self.local(*local);
                self.line(&format!("let {local} = {value}"));
            }
            Stmt::Store { buf, at, value } => {
                let value = self.formula(*value);
                let place = format!("{}[{}]", self.buf(*buf), self.dim(at));
                self.line(&format!("{place} = {value}"));
            }
            Stmt::If {
                all,
                then,
                otherwise,
            } => {
                let all: Vec<String> = all
                    .iter()
                    .map(|d| format!("{} >= 0", self.dim(d)))
                    .collect();
                self.line(&format!("if {} {{", all.join(" and ")));
                self.block(then);
                if !otherwise.is_empty() {
                    self.line("} else {");
                    self.block(otherwise);
                }
                self.line("}");
            }
            Stmt::Index {
                sym,
                buf,
                at,
                limit,
                operand,
            } => {
                let below = limit.as_ref().map(|l| format!(" below {}", self.dim(l)));
                let text = format!(
                    "index {} = {}[{}]{} operand {operand}",
                    self.sym(*sym),
                    self.buf(*buf),
                    self.dim(at),
                    below.unwrap_or_default()
                );
                self.line(&text);
            }
            Stmt::Contract(c) => self.contract(c),
        }
    }

    fn contract(&mut self, c: &Contract) {
        let head = format!(
            "contract m {}, n {}, k {} {{",
            self.range(c.row, &c.rows.0, &c.rows.1),
            self.range(c.col, &c.cols.0, &c.cols.1),
            self.range(c.k, &Dim::Const(0), &c.depth)
        );
        self.line(&head);
        self.depth += 1;
        let a = format!("a {}[{}]", self.buf(c.a), self.dim(&c.a_at));
        self.line(&a);
        let panel =
            c.b.panel
                .as_ref()
                .map(|(w, step)| format!(" panel {w} step {}", self.dim(step)));
        let b = format!(
            "b {}[{}] row {}{}",
            self.buf(c.b.buf),
            self.dim(&c.b.base),
            self.dim(&c.b.k_stride),
            panel.unwrap_or_default()
        );
        self.line(&b);
        let acc = self.local(c.acc);
        self.line(&format!("epilogue {acc} {{"));
        self.block(&c.epilogue);
        self.line("}");
        self.depth -= 1;
        self.line("}");
    }

    fn kernel(&mut self) {
        let k = self.k;
        let buffers: Vec<String> = (0..k.buffers.len())
            .map(|i| {
                let b = &k.buffers[i];
                let kind = match &b.kind {
                    BufferKind::Input(n) => format!("input {n}"),
                    BufferKind::Output(n) => format!("output {n}"),
                    BufferKind::Scratch { offset } => format!("scratch {}", self.dim(offset)),
                };
                format!("{}: {} {kind}", self.buf(Buf(i as u32)), name(MEMS, b.mem))
            })
            .collect();
        self.line(&format!("kernel {} ({})", k.name, buffers.join(", ")));
        self.depth = 1;
        let numbered = || (0u32..).map(Sym).zip(&k.syms);
        let params: Vec<String> = numbered()
            .filter_map(|(s, kind)| match kind {
                SymKind::Param(p) => Some(format!("{} = {p}", self.sym(s))),
                _ => None,
            })
            .collect();
        if !params.is_empty() {
            self.line(&format!("dims {}", params.join(", ")));
        }
        let mut tasks = format!("tasks {}", self.dim(&k.tasks));
        for (word, wanted) in [("as", SymKind::Task), ("from", SymKind::TaskBegin)] {
            for (s, _) in numbered().filter(|(_, kind)| **kind == wanted) {
                tasks.push_str(&format!(" {word} {}", self.sym(s)));
            }
        }
        self.line(&tasks);
        if !k.scratch_bytes.is_const(0) {
            let bytes = self.dim(&k.scratch_bytes);
            self.line(&format!("scratch {bytes}"));
        }
        let unused = self.unused();
        if !unused.is_empty() {
            self.line(&format!("declare {}", unused.join(", ")));
        }
        self.depth = 0;
        self.line("{");
        self.block(&k.body);
        self.line("}");
    }

    /// Loop variables, loaded indices and locals that no statement binds: without a declaration they
    /// would be lost.
    fn unused(&self) -> Vec<String> {
        let (mut syms, mut locals) = (HashSet::new(), HashSet::new());
        for_each_stmt(&self.k.body, &mut |s| match s {
            Stmt::For { var, .. } => {
                syms.insert(*var);
            }
            Stmt::Reduce { var, accs, .. } => {
                syms.insert(*var);
                locals.extend(accs.iter().map(|a| a.local));
            }
            Stmt::Let { local, .. } => {
                locals.insert(*local);
            }
            Stmt::Index { sym, .. } => {
                syms.insert(*sym);
            }
            Stmt::Contract(c) => {
                syms.extend([c.row, c.col, c.k]);
                locals.insert(c.acc);
            }
            Stmt::Store { .. } | Stmt::If { .. } => {}
        });
        let bound = |kind: &SymKind| matches!(kind, SymKind::Loop | SymKind::Loaded);
        let free = (0u32..).map(Sym).zip(&self.k.syms);
        let free = free.filter(|(s, kind)| bound(kind) && !syms.contains(s));
        let free: Vec<String> = free.map(|(s, _)| self.sym(s)).collect();
        let never = (0..self.k.locals.len() as u32)
            .map(Local)
            .filter(|l| !locals.contains(l));
        free.into_iter()
            .chain(never.map(|l| self.local(l)))
            .collect()
    }
}

/// Calls `f` for every statement, outer ones first.
pub(crate) fn for_each_stmt<'s>(body: &'s [Stmt], f: &mut dyn FnMut(&'s Stmt)) {
    for s in body {
        f(s);
        match s {
            Stmt::For { body, .. } | Stmt::Reduce { body, .. } => for_each_stmt(body, f),
            Stmt::If {
                then, otherwise, ..
            } => {
                for_each_stmt(then, f);
                for_each_stmt(otherwise, f);
            }
            Stmt::Contract(c) => for_each_stmt(&c.epilogue, f),
            Stmt::Let { .. } | Stmt::Store { .. } | Stmt::Index { .. } => {}
        }
    }
}

/// Copies expressions into a new list in the order in which the text has them.
struct Renumber<'k> {
    k: &'k LoopKernel,
    exprs: Vec<Expr>,
    known: HashMap<Expr, ExprId>,
    new: HashMap<ExprId, ExprId>,
}

impl Renumber<'_> {
    fn root(&mut self, id: ExprId) -> ExprId {
        for e in shared(self.k, id) {
            self.expr(e);
        }
        self.expr(id)
    }
    fn expr(&mut self, id: ExprId) -> ExprId {
        if let Some(n) = self.new.get(&id) {
            return *n;
        }
        let Some(mut e) = self.k.exprs.get(id.0 as usize).cloned() else {
            return id;
        };
        match &mut e {
            Expr::Load { .. } | Expr::Const { .. } | Expr::Local(_) | Expr::Int { .. } => {}
            Expr::Un { a, .. }
            | Expr::Convert { a, .. }
            | Expr::Bits { a, .. }
            | Expr::Narrow { a, .. } => *a = self.expr(*a),
            Expr::Bin { a, b, .. } | Expr::Cmp { a, b, .. } => {
                *a = self.expr(*a);
                *b = self.expr(*b);
            }
            Expr::Fma { a, b, c }
            | Expr::Select {
                cond: a,
                a: b,
                b: c,
            } => {
                *a = self.expr(*a);
                *b = self.expr(*b);
                *c = self.expr(*c);
            }
        }
        let new = *self.known.entry(e).or_insert_with_key(|e| {
            self.exprs.push(e.clone());
            ExprId(self.exprs.len() as u32 - 1)
        });
        self.new.insert(id, new);
        new
    }
    fn block(&mut self, body: &mut [Stmt]) {
        for s in body {
            match s {
                Stmt::For { body, .. } => self.block(body),
                Stmt::Reduce { body, accs, .. } => {
                    self.block(body);
                    accs.iter_mut().for_each(|a| a.value = self.root(a.value));
                }
                Stmt::Let { value, .. } | Stmt::Store { value, .. } => *value = self.root(*value),
                Stmt::If {
                    then, otherwise, ..
                } => {
                    self.block(then);
                    self.block(otherwise);
                }
                Stmt::Index { .. } => {}
                Stmt::Contract(c) => self.block(&mut c.epilogue),
            }
        }
    }
}

impl LoopKernel {
    /// The kernel and its schedule as text.
    pub fn to_text(&self, schedule: &Schedule) -> String {
        format!("{self}{schedule}\n")
    }

    /// The same kernel with its expressions in order of use, equal ones merged and unused ones gone.
    pub fn canonical(&self) -> LoopKernel {
        let mut out = self.clone();
        let mut r = Renumber {
            k: self,
            exprs: Vec::new(),
            known: HashMap::default(),
            new: HashMap::default(),
        };
        r.block(&mut out.body);
        out.exprs = r.exprs;
        out
    }
}

impl fmt::Display for LoopKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut p = Printer {
            k: self,
            out: String::new(),
            depth: 0,
            named: HashMap::default(),
        };
        p.kernel();
        f.write_str(&p.out)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("schedule")?;
        if !self.vector.is_empty() {
            let vars: Vec<String> = self.vector.iter().map(|s| format!("v{}", s.0)).collect();
            write!(f, " vector({})", vars.join(", "))?;
        }
        if (self.tile_rows, self.tile_vectors) != (0, 0) {
            write!(f, " tile({}, {})", self.tile_rows, self.tile_vectors)?;
        }
        Ok(())
    }
}
