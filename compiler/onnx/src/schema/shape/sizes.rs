//! Arithmetic of sizes that may not be known: what follows from one that is not, is not.

use super::apply::{Fault, Node, Operation, Shape};

pub(super) type Found<N> = Result<Option<Shape<<N as Node>::Size>>, Fault>;
pub(super) type Size<N> = Option<<N as Node>::Size>;

pub(super) fn fault<T>(
    subject: String,
    found: impl ToString,
    expected: impl ToString,
) -> Result<T, Fault> {
    Err(Fault {
        subject,
        found: found.to_string(),
        expected: expected.to_string(),
    })
}

pub(super) fn combine<N: Node>(node: &N, op: Operation, a: &Size<N>, b: &Size<N>) -> Size<N> {
    node.combine(op, a.as_ref()?, b.as_ref()?)
}

pub(super) fn add<N: Node>(node: &N, a: &Size<N>, b: &Size<N>) -> Size<N> {
    combine(node, Operation::Add, a, b)
}

pub(super) fn add_number<N: Node>(node: &N, a: &Size<N>, b: i64) -> Size<N> {
    match b {
        0 => a.clone(),
        b => add(node, a, &Some(node.size(b))),
    }
}

pub(super) fn times<N: Node>(node: &N, a: &Size<N>, b: i64) -> Size<N> {
    combine(node, Operation::Multiply, a, &Some(node.size(b)))
}

pub(super) fn ceil_div<N: Node>(node: &N, a: &Size<N>, b: i64) -> Size<N> {
    let up = add_number(node, a, b.checked_sub(1)?);
    combine(node, Operation::Divide, &up, &Some(node.size(b)))
}

pub(super) fn product<N: Node>(node: &N, sizes: &[Size<N>]) -> Size<N> {
    let mut all = Some(node.size(1));
    for size in sizes {
        all = combine(node, Operation::Multiply, &all, size);
    }
    all
}

pub(super) fn number<N: Node>(node: &N, size: &Size<N>) -> Option<i64> {
    node.number(size.as_ref()?)
}

pub(super) fn differ<N: Node>(node: &N, a: &Size<N>, b: &Size<N>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => node.equal(a, b) == Some(false),
        _ => false,
    }
}

/// The size of which more is known.
pub(super) fn either<N: Node>(node: &N, a: &Size<N>, b: &Size<N>) -> Size<N> {
    match number(node, b) {
        Some(_) => b.clone(),
        None => a.clone().or_else(|| b.clone()),
    }
}

/// The size that two broadcast to; `Err` if they do not.
pub(super) fn broadcast<N: Node>(node: &N, a: &Size<N>, b: &Size<N>) -> Result<Size<N>, ()> {
    match (number(node, a), number(node, b)) {
        (Some(1), _) => Ok(b.clone()),
        (_, Some(1)) => Ok(a.clone()),
        (Some(m), Some(n)) if m != n => Err(()),
        // The other is 1 or the same.
        (Some(_), _) => Ok(a.clone()),
        (_, Some(_)) => Ok(b.clone()),
        (None, None) => Ok(combine(node, Operation::Broadcast, a, b)),
    }
}

pub(super) fn broadcast_shapes<N: Node>(
    node: &N,
    a: &[Size<N>],
    b: &[Size<N>],
) -> Result<Shape<N::Size>, ()> {
    let rank = a.len().max(b.len());
    let at = |shape: &[Size<N>], axis: usize| match (axis + shape.len()).checked_sub(rank) {
        Some(axis) => shape.get(axis).cloned().flatten(),
        None => Some(node.size(1)),
    };
    (0..rank)
        .map(|axis| broadcast(node, &at(a, axis), &at(b, axis)))
        .collect()
}
