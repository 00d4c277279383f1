//! Loops that can be one are made one, and the outermost becomes the tasks.
//!
//! Two perfectly nested loops `i in 0..I { j in 0..J { … } }` are one loop over `0..I*J` when every
//! index in them knows them only as `c * (i * J + j)`.

use lapidary_codegen::expand::{factor, for_each_sym};
use lapidary_codegen::loops::*;

/// Elements of work that a task should have, about.
const TASK_ELEMENTS: i64 = 16_384;

/// Every integer expression in a statement.
fn dims_of(k: &LoopKernel, s: &Stmt, f: &mut dyn FnMut(&Dim)) {
    match s {
        Stmt::For { from, to, body, .. } => {
            f(from);
            f(to);
            body.iter().for_each(|s| dims_of(k, s, f));
        }
        Stmt::Reduce {
            from,
            to,
            body,
            accs,
            ..
        } => {
            f(from);
            f(to);
            body.iter().for_each(|s| dims_of(k, s, f));
            accs.iter().for_each(|a| dims_of_expr(k, a.value, f));
        }
        Stmt::Let { value, .. } => dims_of_expr(k, *value, f),
        Stmt::Store { at, value, .. } => {
            f(at);
            dims_of_expr(k, *value, f);
        }
        Stmt::If {
            all,
            then,
            otherwise,
        } => {
            all.iter().for_each(&mut *f);
            then.iter().chain(otherwise).for_each(|s| dims_of(k, s, f));
        }
        Stmt::Index { at, limit, .. } => {
            f(at);
            limit.iter().for_each(f);
        }
        Stmt::Contract(c) => {
            for d in [
                &c.rows.0,
                &c.rows.1,
                &c.cols.0,
                &c.cols.1,
                &c.depth,
                &c.a_at,
                &c.b.base,
                &c.b.k_stride,
            ] {
                f(d);
            }
            c.epilogue.iter().for_each(|s| dims_of(k, s, f));
        }
    }
}

fn dims_of_expr(k: &LoopKernel, e: ExprId, f: &mut dyn FnMut(&Dim)) {
    for part in k.parts(e) {
        match part {
            Expr::Load { at, .. } => f(at),
            Expr::Int { value, .. } => f(value),
            _ => {}
        }
    }
}

/// Whether a contraction stands anywhere in these statements.
pub(crate) fn has_contract(body: &[Stmt]) -> bool {
    body.iter().any(|s| match s {
        Stmt::Contract(_) => true,
        Stmt::For { body, .. } | Stmt::Reduce { body, .. } => has_contract(body),
        Stmt::If {
            then, otherwise, ..
        } => has_contract(then) || has_contract(otherwise),
        _ => false,
    })
}

fn mentions(d: &Dim, var: Sym) -> bool {
    let mut found = false;
    for_each_sym(d, &mut |s| found |= s == var);
    found
}

/// Replaces a symbol in every expression of the kernel (the arena is shared; `i` occurs nowhere else).
fn substitute(k: &mut LoopKernel, body: &mut [Stmt], var: Sym, by: &Dim) {
    let change = |d: &mut Dim| {
        if mentions(d, var) {
            *d = d.substitute(&|s| (s == var).then(|| by.clone()));
        }
    };
    for e in &mut k.exprs {
        match e {
            Expr::Load { at, .. } => change(at),
            Expr::Int { value, .. } => change(value),
            _ => {}
        }
    }
    substitute_stmts(body, &change);
}

fn substitute_stmts(body: &mut [Stmt], change: &dyn Fn(&mut Dim)) {
    for s in body {
        match s {
            Stmt::For { from, to, body, .. } => {
                change(from);
                change(to);
                substitute_stmts(body, change);
            }
            Stmt::Reduce { from, to, body, .. } => {
                change(from);
                change(to);
                substitute_stmts(body, change);
            }
            Stmt::Let { .. } => {}
            Stmt::Store { at, .. } => change(at),
            Stmt::If {
                all,
                then,
                otherwise,
            } => {
                all.iter_mut().for_each(change);
                substitute_stmts(then, change);
                substitute_stmts(otherwise, change);
            }
            Stmt::Index { at, limit, .. } => {
                change(at);
                if let Some(l) = limit {
                    change(l);
                }
            }
            Stmt::Contract(_) => {}
        }
    }
}

/// Joins perfectly nested loops where that is possible, innermost first.
pub(crate) fn collapse(k: &mut LoopKernel) {
    let mut body = std::mem::take(&mut k.body);
    for s in &mut body {
        collapse_stmt(k, s);
    }
    k.body = body;
}

fn collapse_stmt(k: &mut LoopKernel, s: &mut Stmt) {
    let Stmt::For {
        var,
        from,
        to,
        body,
    } = s
    else {
        if let Stmt::If {
            then, otherwise, ..
        } = s
        {
            then.iter_mut()
                .chain(otherwise)
                .for_each(|s| collapse_stmt(k, s));
        }
        return;
    };
    for inner in body.iter_mut() {
        collapse_stmt(k, inner);
    }
    let joined = match &body[..] {
        [
            Stmt::For {
                var: j,
                from: zero,
                to: n,
                body: inner,
            },
        ] if from.is_const(0) && zero.is_const(0) && !mentions(n, *var) => {
            let (i, j) = (*var, *j);
            let mut fits = true;
            for s in inner {
                dims_of(k, s, &mut |d| {
                    if mentions(d, i) || mentions(d, j) {
                        fits &= match (factor(d, i), factor(d, j)) {
                            (Some(a), Some(b)) => a == b.mul(n),
                            _ => false,
                        };
                    }
                });
            }
            let contains_contract = has_contract(inner);
            if fits && !contains_contract {
                Some((j, to.mul(n), inner.clone()))
            } else {
                None
            }
        }
        _ => None,
    };
    if let Some((j, extent, mut inner)) = joined {
        substitute(k, &mut inner, *var, &Dim::Const(0));
        *var = j;
        *to = extent;
        *body = inner;
    }
}

/// Makes the outermost loop of a body that is one loop the task loop: each task takes a run of its
/// iterations, long enough to be worth a call. `inner` is the work of one iteration.
pub(crate) fn into_tasks(k: &mut LoopKernel, inner: i64) {
    let [
        Stmt::For {
            var,
            from,
            to,
            body,
        },
    ] = &k.body[..]
    else {
        return;
    };
    if !from.is_const(0) {
        return;
    }
    let (var, to, body) = (*var, to.clone(), body.clone());
    let leaf = !body.iter().any(|s| {
        matches!(
            s,
            Stmt::For { .. } | Stmt::Reduce { .. } | Stmt::If { .. } | Stmt::Contract(_)
        )
    });
    let mut chunk = (TASK_ELEMENTS / inner.max(1)).max(1);
    if leaf {
        chunk = chunk.max(64) / 64 * 64;
    }
    let chunk = Dim::Const(chunk);
    let count = to.ceil_div(&chunk);
    if count.is_const(1) || count.is_const(0) {
        return;
    }
    let task = k.sym(SymKind::Task);
    let first = Dim::from(task).mul(&chunk);
    let last = first.add(&chunk).minimum(&to);
    k.tasks = count;
    k.body = vec![Stmt::For {
        var,
        from: first,
        to: last,
        body,
    }];
}
