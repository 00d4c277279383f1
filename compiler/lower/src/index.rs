//! Index arithmetic: divisions that ranges decide, and the index of a reshaped tensor.

use lapidary_codegen::loops::Sym;
use lapidary_graph::{Atom, Dim};
use std::collections::HashMap;

/// Least and greatest value of an index expression, as far as loop extents tell.
fn bounds(d: &Dim, extents: &HashMap<Sym, Dim>) -> Option<(Dim, Dim)> {
    let Dim::Sum(s) = d else {
        return Some((d.clone(), d.clone()));
    };
    let (mut low, mut high) = (Dim::Const(s.constant), Dim::Const(s.constant));
    for (atoms, c) in &s.terms {
        // At most one factor may vary; the others are parameters, at least 0.
        let mut factor = Dim::Const(*c);
        let mut range: Option<(Dim, Dim)> = None;
        for a in atoms {
            let this = match a {
                Atom::Sym(s) => extents
                    .get(s)
                    .map(|e| (Dim::Const(0), e.sub(&Dim::Const(1)))),
                Atom::Mod(_, m) if m.is_ge(1) == Some(true) || m.as_const().is_none() => {
                    Some((Dim::Const(0), m.sub(&Dim::Const(1))))
                }
                _ => None,
            };
            match (this, &range) {
                (Some(r), None) => range = Some(r),
                (Some(_), Some(_)) => return None,
                (None, _) => match a {
                    Atom::Sym(s) => factor = factor.mul(&Dim::from(*s)),
                    _ => return None,
                },
            }
        }
        match range {
            None => {
                low = low.add(&factor);
                high = high.add(&factor);
            }
            Some((a, b)) if *c > 0 => {
                low = low.add(&factor.mul(&a));
                high = high.add(&factor.mul(&b));
            }
            Some((a, b)) => {
                low = low.add(&factor.mul(&b));
                high = high.add(&factor.mul(&a));
            }
        }
    }
    Some((low, high))
}

/// Whether `0 <= d < limit` for certain.
fn within(d: &Dim, limit: &Dim, extents: &HashMap<Sym, Dim>) -> bool {
    bounds(d, extents).is_some_and(|(low, high)| {
        low.is_ge(0) == Some(true) && limit.sub(&high).is_ge(1) == Some(true)
    })
}

/// Splits a sum into a part divisible by `by` (already divided) and the rest.
fn split(d: &Dim, by: &Dim) -> (Dim, Dim) {
    let Dim::Sum(s) = d else {
        return match (d.as_const(), by.as_const()) {
            (Some(c), Some(b)) if b > 0 => {
                (Dim::Const(c.div_euclid(b)), Dim::Const(c.rem_euclid(b)))
            }
            _ => (Dim::Const(0), d.clone()),
        };
    };
    let (mut whole, mut rest) = (Dim::Const(0), Dim::Const(0));
    for (atoms, c) in &s.terms {
        let term = atoms
            .iter()
            .fold(Dim::Const(*c), |t, a| t.mul(&Dim::atom(a.clone())));
        match term.exact_div(by) {
            Some(q) => whole = whole.add(&q),
            None => rest = rest.add(&term),
        }
    }
    let (q, r) = split(&Dim::Const(s.constant), by);
    (whole.add(&q), rest.add(&r))
}

/// `d floordiv by`, decided where ranges allow.
pub(crate) fn floor_div(d: &Dim, by: &Dim, extents: &HashMap<Sym, Dim>) -> Dim {
    let (whole, rest) = split(d, by);
    if within(&rest, by, extents) {
        whole
    } else {
        whole.add(&rest.floor_div(by))
    }
}

/// `d mod by`, decided where ranges allow.
pub(crate) fn modulo(d: &Dim, by: &Dim, extents: &HashMap<Sym, Dim>) -> Dim {
    let (_, rest) = split(d, by);
    if within(&rest, by, extents) {
        rest
    } else {
        rest.modulo(by)
    }
}

/// Rejoins `c*n*(x floordiv n) + c*(x mod n)` to `c*x`.
pub(crate) fn simplify(d: &Dim) -> Dim {
    let Dim::Sum(s) = d else {
        return d.clone();
    };
    for (atoms, c) in &s.terms {
        for (i, a) in atoms.iter().enumerate() {
            let Atom::Mod(x, n) = a else {
                continue;
            };
            let mut others = atoms.clone();
            others.remove(i);
            let factor = others
                .into_iter()
                .fold(Dim::Const(*c), |t, a| t.mul(&Dim::atom(a)));
            let quotient = x.floor_div(n);
            let partner = factor.mul(n).mul(&quotient);
            let own = factor.mul(&Dim::atom(a.clone()));
            let rest = d.sub(&own).sub(&partner);
            let terms = |d: &Dim| {
                if let Dim::Sum(s) = d {
                    s.terms.len()
                } else {
                    0
                }
            };
            if terms(&rest) + 2 == s.terms.len() {
                return simplify(&rest.add(&factor.mul(x)));
            }
        }
    }
    d.clone()
}

/// The index into a tensor of shape `input` of the element at `index` of shape `out`, when both hold
/// the same elements in the same order. Axes are matched in runs of equal products first, so that
/// what a reshape leaves alone stays a plain variable.
pub(crate) fn reshape(
    input: &[Dim],
    out: &[Dim],
    index: &[Dim],
    extents: &HashMap<Sym, Dim>,
) -> Vec<Dim> {
    let mut result = Vec::with_capacity(input.len());
    let (mut i, mut o) = (0, 0);
    while i < input.len() {
        // Extend the two runs until their products agree.
        let (mut pi, mut po) = (input[i].clone(), Dim::Const(1));
        let (start_i, start_o) = (i, o);
        i += 1;
        loop {
            if pi == po {
                break;
            }
            let smaller_out = match (pi.as_const(), po.as_const()) {
                (Some(a), Some(b)) => b < a,
                _ => po.exact_div(&pi).is_none(),
            };
            if smaller_out && o < out.len() {
                po = po.mul(&out[o]);
                o += 1;
            } else if i < input.len() {
                pi = pi.mul(&input[i]);
                i += 1;
            } else if o < out.len() {
                po = po.mul(&out[o]);
                o += 1;
            } else {
                break;
            }
        }
        let mut at = Dim::Const(0);
        for (d, x) in out[start_o..o].iter().zip(&index[start_o..o]) {
            at = at.mul(d).add(x);
        }
        at = simplify(&at);
        // Take the run apart from its last axis on.
        let run = &input[start_i..i];
        let mut parts = Vec::new();
        for (n, d) in run.iter().enumerate().rev() {
            if n == 0 {
                parts.push(at.clone());
            } else {
                parts.push(modulo(&at, d, extents));
                at = floor_div(&at, d, extents);
            }
        }
        parts.reverse();
        result.extend(parts);
    }
    result
}
