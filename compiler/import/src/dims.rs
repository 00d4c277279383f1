//! Arithmetic on dimensions where ONNX clamps, wraps or divides.

use lapidary_graph::Dim;

/// The lesser, with one more look at signs than [`Dim::minimum`].
pub(crate) fn dmin(a: &Dim, b: &Dim) -> Dim {
    if b.sub(a).is_ge(0) == Some(true) {
        a.clone()
    } else if a.sub(b).is_ge(0) == Some(true) {
        b.clone()
    } else {
        a.minimum(b)
    }
}

/// The greater.
pub(crate) fn dmax(a: &Dim, b: &Dim) -> Dim {
    if a.sub(b).is_ge(0) == Some(true) {
        a.clone()
    } else if b.sub(a).is_ge(0) == Some(true) {
        b.clone()
    } else {
        a.maximum(b)
    }
}

/// `max(0, d)`.
pub(crate) fn at_least_0(d: &Dim) -> Dim {
    if d.is_ge(0) == Some(true) {
        d.clone()
    } else {
        dmax(&Dim::Const(0), d)
    }
}

/// One axis of ONNX Slice over a dimension `d`: (start, size), or `None` where the sign of a bound
/// is not known.
///
/// A symbolic end over a *constant* dimension is taken to lie inside it (tables of positions are
/// sliced so); lowering checks `start + size <= d` where it cannot be proved.
pub(crate) fn slice(d: &Dim, start: &Dim, end: &Dim, step: i64) -> Option<(Dim, Dim)> {
    let zero = Dim::Const(0);
    // A negative bound counts from the end.
    let place = |b: &Dim| -> Option<Dim> {
        match b.as_const() {
            Some(c) if c >= 0 => Some(b.clone()),
            Some(c) if c <= -(i32::MAX as i64) => Some(Dim::Const(-1)),
            Some(_) => Some(d.add(b)),
            None if b.is_ge(0) == Some(true) => Some(b.clone()),
            None if b.is_ge(0) == Some(false) => Some(d.add(b)),
            // `n - k` with both symbolic: sizes subtracted from sizes; taken as a position.
            None => None,
        }
    };
    let (s, e) = (place(start)?, place(end)?);
    if step > 0 {
        let e = match (e.as_const(), d.as_const()) {
            (Some(c), _) if c >= i32::MAX as i64 => d.clone(),
            (None, Some(_)) => e,
            _ => at_least_0(&dmin(&e, d)),
        };
        // Forms in which `start + size` is the end without a doubt.
        let s = match start.as_const() {
            Some(c) if c < 0 && e == *d && d.as_const().is_none() => {
                d.sub(&dmin(&Dim::Const(c.checked_neg()?), d))
            }
            _ => dmin(&at_least_0(&s), &e),
        };
        let size = e.sub(&s).ceil_div(&Dim::Const(step));
        Some((s, size))
    } else {
        let last = d.sub(&Dim::Const(1));
        let big = |x: &Dim| x.as_const().is_some_and(|c| c >= i32::MAX as i64);
        let s = if big(&s) {
            last.clone()
        } else {
            dmin(&s, &last)
        };
        let e = if big(&e) {
            last
        } else {
            dmax(&Dim::Const(-1), &e)
        };
        let size = at_least_0(&s.sub(&e).ceil_div(&Dim::Const(step.checked_neg()?)));
        let s = if size.is_const(0) { zero } else { s };
        Some((s, size))
    }
}

/// Common shape of several by the ONNX rule; `None` where two constant dimensions disagree.
pub(crate) fn broadcast(shapes: &[&[Dim]]) -> Option<Vec<Dim>> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut out = vec![Dim::Const(1); rank];
    for s in shapes {
        let skip = rank - s.len();
        for (o, d) in out.iter_mut().skip(skip).zip(*s) {
            *o = o.broadcast(d)?;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapidary_graph::Sym;

    #[test]
    fn slices_clamp_as_python_does() {
        let c = Dim::Const;
        for (d, s, e, step, start, size) in [
            (10, 2, 5, 1, 2, 3),
            (10, -3, i64::MAX, 1, 7, 3),
            (10, 0, -1, 1, 0, 9),
            (10, 20, 30, 1, 10, 0),
            (10, 5, 2, 1, 2, 0),
            (10, 1, 8, 3, 1, 3),
            (10, -1, i64::MIN, -1, 9, 10),
            (10, 9, 2, -3, 9, 3),
            (10, -20, 3, 1, 0, 3),
        ] {
            assert_eq!(
                slice(&c(d), &c(s), &c(e), step),
                Some((c(start), c(size))),
                "{d} {s} {e} {step}"
            );
        }
    }

    #[test]
    fn slices_of_symbols_stay_small() {
        let n = Dim::from(Sym(0));
        let c = Dim::Const;
        assert_eq!(slice(&c(512), &c(0), &n, 1), Some((c(0), n.clone())));
        assert_eq!(slice(&n, &c(0), &c(i64::MAX), 1), Some((c(0), n.clone())));
        let total = n.add(&Dim::from(Sym(1)));
        assert_eq!(slice(&c(1024), &n, &total, 1), Some((n, Dim::from(Sym(1)))));
    }
}
