//! The default schedule: which loops run over vector lanes.
//!
//! A loop qualifies when every store in it steps by one element a trip, every load by none or one
//! (or, at second choice, by any fixed step: a gather), and nothing else in it depends on the loop
//! variable in a way that lanes cannot share (conditions, indices that are loaded, nested bounds).
//! Inner loops come first; a loop whose body is reductions is tried before those reductions.

use super::*;
use crate::expand::{factor, for_each_sym};

/// Trips below which lanes are not worth it.
const FEW_TRIPS: i64 = 4;

/// Greatest step of a gather, in elements: 16 lanes of it count in 32 bits.
const FARTHEST: i64 = 1 << 26;

/// A schedule that vectorises what can be.
pub fn automatic(kernel: &LoopKernel) -> Schedule {
    let mut s = Schedule::default();
    for stmt in &kernel.body {
        visit(kernel, stmt, &mut s);
    }
    s
}

/// Returns whether something inside was vectorised (or must not be enclosed).
fn visit(k: &LoopKernel, stmt: &Stmt, s: &mut Schedule) -> bool {
    match stmt {
        Stmt::For {
            var,
            from,
            to,
            body,
        } => {
            let many = to.sub(from).as_const().is_none_or(|n| n >= FEW_TRIPS);
            let nested = contains(body, &|s| matches!(s, Stmt::For { .. }));
            let reduces = contains(body, &|s| matches!(s, Stmt::Reduce { .. }));
            let many = many && super::verify::carried(k, body).is_none();
            let strict = many && block_fits(k, body, *var, false);
            if reduces && !nested && strict {
                s.vector.push(*var);
                return true;
            }
            let inner = body.iter().fold(false, |any, b| visit(k, b, s) | any);
            if inner {
                return true;
            }
            let fits = strict || (many && !nested && !reduces && block_fits(k, body, *var, true));
            if fits {
                s.vector.push(*var);
            }
            fits
        }
        Stmt::Reduce {
            var,
            from,
            to,
            body,
            accs,
        } => {
            let inner = body.iter().fold(false, |any, b| visit(k, b, s) | any);
            let many = to.sub(from).as_const().is_none_or(|n| n >= FEW_TRIPS);
            if inner || !many || super::verify::carried(k, body).is_some() {
                return inner;
            }
            let fits = block_fits(k, body, *var, false)
                && accs.iter().all(|a| expr_fits(k, a.value, *var, false));
            if fits {
                s.vector.push(*var);
            }
            fits
        }
        Stmt::If {
            then, otherwise, ..
        } => then
            .iter()
            .chain(otherwise)
            .fold(false, |any, b| visit(k, b, s) | any),
        Stmt::Contract(_) => true,
        _ => false,
    }
}

fn contains(body: &[Stmt], f: &dyn Fn(&Stmt) -> bool) -> bool {
    body.iter().any(|s| {
        f(s) || match s {
            Stmt::For { body, .. } | Stmt::Reduce { body, .. } => contains(body, f),
            Stmt::If {
                then, otherwise, ..
            } => contains(then, f) || contains(otherwise, f),
            _ => false,
        }
    })
}

fn mentions(d: &Dim, var: Sym) -> bool {
    let mut found = false;
    for_each_sym(d, &mut |s| found |= s == var);
    found
}

/// Whether statements can run with `var` over lanes.
fn block_fits(k: &LoopKernel, body: &[Stmt], var: Sym, gather: bool) -> bool {
    body.iter().all(|s| match s {
        Stmt::For { from, to, body, .. } => {
            !mentions(from, var) && !mentions(to, var) && block_fits(k, body, var, gather)
        }
        Stmt::Reduce {
            from,
            to,
            body,
            accs,
            ..
        } => {
            !mentions(from, var)
                && !mentions(to, var)
                && block_fits(k, body, var, gather)
                && accs.iter().all(|a| expr_fits(k, a.value, var, gather))
        }
        Stmt::Let { value, .. } => expr_fits(k, *value, var, gather),
        Stmt::Store { at, value, .. } => {
            factor(at, var).is_some_and(|f| f.is_const(1)) && expr_fits(k, *value, var, gather)
        }
        Stmt::If {
            all,
            then,
            otherwise,
        } => {
            !all.iter().any(|c| mentions(c, var))
                && block_fits(k, then, var, gather)
                && block_fits(k, otherwise, var, gather)
        }
        Stmt::Index { .. } | Stmt::Contract(_) => false,
    })
}

fn expr_fits(k: &LoopKernel, e: ExprId, var: Sym, gather: bool) -> bool {
    k.parts(e).into_iter().all(|e| match e {
        Expr::Load { at, .. } => match factor(at, var) {
            Some(f) => {
                f.is_const(0)
                    || f.is_const(1)
                    || (gather && f.as_const().is_some_and(|f| f.abs() <= FARTHEST))
            }
            None => false,
        },
        Expr::Int { value, .. } => factor(value, var).is_some_and(|f| f.as_const().is_some()),
        _ => true,
    })
}
