//! Shapes that are no list of sizes: one function for each word of the table.

use super::apply::{
    Axes, Fault, Given, Node, Operation, Shape, axis, elements, flag, input, int, judge, list,
    shape_text, subject_of_input, word,
};
use super::{Absent, Function};

type Found<N> = Result<Option<Shape<<N as Node>::Size>>, Fault>;
type Size<N> = Option<<N as Node>::Size>;
/// Batch and channels, and the space.
type Image<'s, N> = (&'s [Size<N>], &'s [Size<N>]);

/// The shape of output `output` by a function of inputs.
pub(super) fn shape<N: Node>(
    node: &N,
    function: Function,
    inputs: &[usize],
    output: usize,
) -> Found<N> {
    let x = inputs.first().copied().unwrap_or(0);
    let y = inputs.get(1).copied();
    match function {
        Function::Broadcast => broadcast_all(node, inputs),
        Function::Concat => concat(node, x),
        Function::AxisCount => Ok(axis_count(node, x)),
        Function::Reshape => reshape(node, x, y.unwrap_or(1)),
        Function::Conv => Ok(conv(node, x, y.unwrap_or(1))?),
        Function::Einsum => einsum(node, x),
        _ => {
            let Some(shape) = node.shape(x) else {
                return Ok(None);
            };
            let other = || y.and_then(|y| node.shape(y));
            match function {
                Function::MatMul => other().map_or(Ok(None), |b| matmul(node, &shape, &b, inputs)),
                Function::Reduce => reduce(node, shape),
                Function::Split => split(node, shape, output),
                Function::Slice => slice(node, shape),
                Function::Pad => pad(node, shape),
                Function::Transpose => transpose(node, shape),
                Function::Expand => expand(node, shape, x, y.unwrap_or(1)),
                Function::Tile => tile(node, shape, y.unwrap_or(1)),
                Function::Flatten => flatten(node, &shape),
                Function::Squeeze => squeeze(node, shape, x),
                Function::Unsqueeze => unsqueeze(node, shape),
                Function::Gather => other().map_or(Ok(None), |at| gather(node, shape, at)),
                Function::GatherNd => {
                    other().map_or(Ok(None), |at| gather_nd(node, &shape, &at, inputs))
                }
                Function::OneHot => one_hot(node, shape, y.unwrap_or(1)),
                Function::Pool => pool(node, &shape),
                Function::ConvTranspose => conv_transpose(node, &shape, other()),
                Function::Unpool => unpool(node, &shape),
                Function::Resize => resize(node, shape),
                Function::OnesFrom => ones_from(node, shape),
                Function::CropPad => crop_pad(node, shape, y.unwrap_or(1)),
                _ => Ok(None),
            }
        }
    }
}

fn fault<T>(subject: String, found: impl ToString, expected: impl ToString) -> Result<T, Fault> {
    Err(Fault {
        subject,
        found: found.to_string(),
        expected: expected.to_string(),
    })
}

// ---- arithmetic of sizes that may not be known -----------------------------------------------------

fn combine<N: Node>(node: &N, op: Operation, a: &Size<N>, b: &Size<N>) -> Size<N> {
    node.combine(op, a.as_ref()?, b.as_ref()?)
}

fn add<N: Node>(node: &N, a: &Size<N>, b: &Size<N>) -> Size<N> {
    combine(node, Operation::Add, a, b)
}

fn add_number<N: Node>(node: &N, a: &Size<N>, b: i64) -> Size<N> {
    match b {
        0 => a.clone(),
        b => add(node, a, &Some(node.size(b))),
    }
}

fn times<N: Node>(node: &N, a: &Size<N>, b: i64) -> Size<N> {
    combine(node, Operation::Multiply, a, &Some(node.size(b)))
}

fn ceil_div<N: Node>(node: &N, a: &Size<N>, b: i64) -> Size<N> {
    let up = add_number(node, a, b.checked_sub(1)?);
    combine(node, Operation::Divide, &up, &Some(node.size(b)))
}

fn product<N: Node>(node: &N, sizes: &[Size<N>]) -> Size<N> {
    let mut all = Some(node.size(1));
    for size in sizes {
        all = combine(node, Operation::Multiply, &all, size);
    }
    all
}

fn number<N: Node>(node: &N, size: &Size<N>) -> Option<i64> {
    node.number(size.as_ref()?)
}

fn differ<N: Node>(node: &N, a: &Size<N>, b: &Size<N>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => node.equal(a, b) == Some(false),
        _ => false,
    }
}

/// The size of which more is known.
fn either<N: Node>(node: &N, a: &Size<N>, b: &Size<N>) -> Size<N> {
    match number(node, b) {
        Some(_) => b.clone(),
        None => a.clone().or_else(|| b.clone()),
    }
}

/// The size that two broadcast to; `Err` if they do not.
fn broadcast<N: Node>(node: &N, a: &Size<N>, b: &Size<N>) -> Result<Size<N>, ()> {
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

fn broadcast_shapes<N: Node>(node: &N, a: &[Size<N>], b: &[Size<N>]) -> Result<Shape<N::Size>, ()> {
    let rank = a.len().max(b.len());
    let at = |shape: &[Size<N>], axis: usize| match (axis + shape.len()).checked_sub(rank) {
        Some(axis) => shape.get(axis).cloned().flatten(),
        None => Some(node.size(1)),
    };
    (0..rank)
        .map(|axis| broadcast(node, &at(a, axis), &at(b, axis)))
        .collect()
}

// ---- functions -------------------------------------------------------------------------------------

fn broadcast_all<N: Node>(node: &N, inputs: &[usize]) -> Found<N> {
    // The last parameter may be variadic.
    let last = inputs.last().copied().unwrap_or(0);
    let more = match last + 1 == node.schema().inputs.len() {
        true => last + 1..node.inputs(),
        false => 0..0,
    };
    let mut all: Option<Shape<N::Size>> = None;
    let mut unknown = false;
    for input in inputs.iter().copied().chain(more) {
        if !node.given(input) {
            continue;
        }
        let Some(shape) = node.shape(input) else {
            unknown = true;
            continue;
        };
        all = Some(match all {
            None => shape,
            Some(before) => match broadcast_shapes(node, &before, &shape) {
                Ok(both) => both,
                Err(()) => {
                    let subject = subject_of_input(node, input);
                    let found = format!("of shape {}", shape_text(node, &shape));
                    let before = shape_text(node, &before);
                    return fault(subject, found, format!("one that broadcasts with {before}"));
                }
            },
        });
    }
    Ok(all.filter(|_| !unknown))
}

fn matmul<N: Node>(node: &N, a: &[Size<N>], b: &[Size<N>], inputs: &[usize]) -> Found<N> {
    for (shape, input) in [a, b].into_iter().zip(inputs) {
        if shape.is_empty() {
            return fault(subject_of_input(node, *input), "a scalar", "rank 1 or more");
        }
    }
    let (rows, columns) = (a.len() >= 2, b.len() >= 2);
    let inner = a.last().cloned().flatten();
    let other = match columns {
        true => b.get(b.len() - 2).cloned().flatten(),
        false => b.first().cloned().flatten(),
    };
    let subject = || subject_of_input(node, inputs.get(1).copied().unwrap_or(1));
    if differ(node, &inner, &other) {
        let found = format!("of shape {}", shape_text(node, b));
        let expected = format!("one that {} can be multiplied with", shape_text(node, a));
        return fault(subject(), found, expected);
    }
    let batch = |shape: &[Size<N>]| {
        shape
            .get(..shape.len().saturating_sub(2))
            .unwrap_or_default()
            .to_vec()
    };
    let Ok(mut out) = broadcast_shapes(node, &batch(a), &batch(b)) else {
        let found = format!("of shape {}", shape_text(node, b));
        let expected = format!("batches that broadcast with {}", shape_text(node, a));
        return fault(subject(), found, expected);
    };
    if rows {
        out.push(a.get(a.len() - 2).cloned().flatten());
    }
    if columns {
        out.push(b.last().cloned().flatten());
    }
    Ok(Some(out))
}

fn reduce<N: Node>(node: &N, mut shape: Shape<N::Size>) -> Found<N> {
    let Some(fact) = node.schema().shapes.first_axis() else {
        return Ok(None);
    };
    let rank = shape.len();
    let keep = match int(node, "keepdims") {
        Given::Known(keep) => keep != 0,
        Given::Absent => true,
        Given::Hidden => return Ok(None),
    };
    let mut axes = judge(node, fact, rank)?;
    if matches!(&axes, Axes::Known(list) if list.is_empty()) {
        axes = Axes::Absent(Absent::All);
    }
    match axes {
        Axes::Known(axes) => {
            for axis in &axes {
                if let Some(size) = shape.get_mut(*axis) {
                    *size = Some(node.size(1));
                }
            }
            Ok(Some(match keep {
                true => shape,
                false => without(shape, &axes),
            }))
        }
        Axes::Hidden(_) if keep => Ok(Some(vec![None; rank])),
        Axes::Hidden(Some(count)) if count > 0 => {
            Ok(rank.checked_sub(count).map(|n| vec![None; n]))
        }
        Axes::Hidden(_) => Ok(None),
        Axes::Absent(_) => match flag(node, "noop_with_empty_axes") {
            None => Ok(None),
            Some(true) => Ok(Some(shape)),
            Some(false) if keep => Ok(Some(vec![Some(node.size(1)); rank])),
            Some(false) => Ok(Some(Vec::new())),
        },
    }
}

fn without<S>(shape: Shape<S>, axes: &[usize]) -> Shape<S> {
    let kept = shape.into_iter().enumerate();
    kept.filter(|(axis, _)| !axes.contains(axis))
        .map(|(_, size)| size)
        .collect()
}

fn concat<N: Node>(node: &N, first: usize) -> Found<N> {
    let mut all: Option<Shape<N::Size>> = None;
    let mut unknown = false;
    for input in first..node.inputs() {
        let Some(shape) = node.shape(input) else {
            unknown = true;
            continue;
        };
        let Some(joined) = &mut all else {
            axis(node, "axis", shape.len())?;
            all = Some(shape);
            continue;
        };
        if joined.len() != shape.len() {
            let found = format!("of rank {}", shape.len());
            let subject = subject_of_input(node, input);
            return fault(subject, found, format!("rank {}", joined.len()));
        }
        let along = axis(node, "axis", joined.len())?;
        for (at, (size, found)) in joined.iter_mut().zip(&shape).enumerate() {
            match along {
                Some(along) if at == along => *size = add(node, size, found),
                Some(_) if differ(node, size, found) => {
                    let subject = format!("dimension {at} of {}", subject_of_input(node, input));
                    let text = |size: &Size<N>| shape_text(node, std::slice::from_ref(size));
                    return fault(subject, text(found), text(size));
                }
                Some(_) => *size = either(node, size, found),
                None => *size = None,
            }
        }
    }
    Ok(match (all, unknown) {
        (Some(mut shape), true) => {
            let along = axis(node, "axis", shape.len())?;
            let size = along.and_then(|along| shape.get_mut(along));
            size.into_iter().for_each(|size| *size = None);
            Some(shape)
        }
        (all, _) => all,
    })
}

fn split<N: Node>(node: &N, mut shape: Shape<N::Size>, output: usize) -> Found<N> {
    let parts = node.outputs();
    let Some(at) = axis(node, "axis", shape.len())? else {
        return Ok(Some(vec![None; shape.len()]));
    };
    let whole = shape.get(at).cloned().flatten();
    let part = match list(node, "split") {
        Given::Known(sizes) => {
            if sizes.len() != parts {
                let found = format!("a list of {} sizes", sizes.len());
                return fault(
                    "'split'".into(),
                    found,
                    format!("{parts}, one for each output"),
                );
            }
            let mut sum = Some(node.size(0));
            for size in &sizes {
                sum = add(node, &sum, size);
            }
            if let (Some(sum), Some(whole)) = (number(node, &sum), number(node, &whole))
                && sum != whole
            {
                let found = format!("a list with the sum {sum}");
                return fault(
                    "'split'".into(),
                    found,
                    format!("{whole}, the size of axis {at}"),
                );
            }
            sizes.get(output).cloned().flatten()
        }
        Given::Hidden => None,
        Given::Absent => {
            let size = ceil_div(node, &whole, parts as i64);
            let last = output + 1 == parts;
            match last && node.schema().attribute("num_outputs").is_some() {
                true => {
                    let before = times(node, &size, parts as i64 - 1);
                    combine(node, Operation::Subtract, &whole, &before)
                }
                false => size,
            }
        }
    };
    if let Some(size) = shape.get_mut(at) {
        *size = part;
    }
    Ok(Some(shape))
}

/// Axes that a list of numbers is for; `None` if they are not known.
fn axes_of<N: Node>(node: &N, rank: usize, count: usize) -> Result<Option<Vec<usize>>, Fault> {
    let fact = node.schema().shapes.first_axis();
    let Some(fact) = fact.filter(|fact| fact.list) else {
        return Ok(Some((0..rank).collect()));
    };
    Ok(match judge(node, fact, rank)? {
        Axes::Known(axes) => Some(axes),
        Axes::Absent(Absent::First) => Some((0..count.min(rank)).collect()),
        Axes::Absent(_) => Some((0..rank).collect()),
        Axes::Hidden(_) => None,
    })
}

fn slice<N: Node>(node: &N, mut shape: Shape<N::Size>) -> Found<N> {
    let (starts, ends) = (list(node, "starts"), list(node, "ends"));
    let steps = list(node, "steps");
    let count = match (&starts, &ends) {
        (Given::Known(starts), _) => Some(starts.len()),
        (_, Given::Known(ends)) => Some(ends.len()),
        _ => None,
    };
    if let (Given::Known(starts), Given::Known(ends)) = (&starts, &ends)
        && starts.len() != ends.len()
    {
        let found = format!("a list of {} numbers", ends.len());
        return fault(
            "'ends'".into(),
            found,
            format!("{}, as 'starts'", starts.len()),
        );
    }
    let axes = match count {
        Some(count) => axes_of(node, shape.len(), count)?,
        // Axes that are named are known without the others.
        None => match list(node, "axes") {
            Given::Absent => None,
            _ => axes_of(node, shape.len(), 0)?,
        },
    };
    let Some(axes) = axes else {
        return Ok(Some(vec![None; shape.len()]));
    };
    if let Some(count) = count.filter(|count| *count != axes.len()) {
        let found = format!("a list of {} axes", axes.len());
        return fault("'axes'".into(), found, format!("{count}, as 'starts'"));
    }
    let at = |given: &Given<Shape<N::Size>>, k: usize| match given {
        Given::Known(list) => number(node, &list.get(k).cloned().flatten()),
        _ => None,
    };
    for (k, axis) in axes.into_iter().enumerate() {
        let step = match &steps {
            Given::Absent => Some(1),
            steps => at(steps, k),
        };
        if step == Some(0) {
            return fault("'steps'".into(), "a list with 0", "other numbers");
        }
        if let Some(size) = shape.get_mut(axis) {
            let whole = number(node, size);
            let known = (whole, at(&starts, k), at(&ends, k), step);
            *size = match known {
                (Some(whole), Some(start), Some(end), Some(step)) => {
                    Some(node.size(slice_size(whole, start, end, step)))
                }
                _ => None,
            };
        }
    }
    Ok(Some(shape))
}

/// How many elements a slice takes of `size`.
fn slice_size(size: i64, start: i64, end: i64, step: i64) -> i64 {
    let place = |at: i64, low: i64, high: i64| {
        let at = if at < 0 { at.saturating_add(size) } else { at };
        at.clamp(low, high.max(low))
    };
    let (from, to) = match step > 0 {
        true => (place(start, 0, size), place(end, 0, size)),
        false => (place(start, 0, size - 1), place(end, -1, size - 1)),
    };
    let (length, step) = match step > 0 {
        true => (to.saturating_sub(from), step),
        false => (from.saturating_sub(to), step.saturating_neg()),
    };
    match size <= 0 || length <= 0 {
        true => 0,
        false => (length - 1) / step + 1,
    }
}

fn pad<N: Node>(node: &N, mut shape: Shape<N::Size>) -> Found<N> {
    let unknown = Ok(Some(vec![None; shape.len()]));
    let Given::Known(pads) = list(node, "pads") else {
        return unknown;
    };
    let Some(axes) = axes_of(node, shape.len(), 0)? else {
        return unknown;
    };
    if pads.len() != 2 * axes.len() {
        let found = format!("a list of {} numbers", pads.len());
        let expected = format!("{}, two for each axis", 2 * axes.len());
        return fault("'pads'".into(), found, expected);
    }
    for (k, axis) in axes.iter().enumerate() {
        if let Some(size) = shape.get_mut(*axis) {
            let pad = |k: usize| pads.get(k).cloned().flatten();
            let before = add(node, size, &pad(k));
            *size = add(node, &before, &pad(k + axes.len()));
        }
    }
    Ok(Some(shape))
}

fn transpose<N: Node>(node: &N, shape: Shape<N::Size>) -> Found<N> {
    let rank = shape.len();
    if let Given::Known(perm) = node.ints("perm")
        && perm.len() != rank
    {
        let found = format!("a list of {} axes", perm.len());
        return fault("attribute 'perm'".into(), found, format!("{rank}"));
    }
    let Some(fact) = node.schema().shapes.first_axis() else {
        return Ok(None);
    };
    Ok(Some(match judge(node, fact, rank)? {
        Axes::Known(perm) => perm
            .iter()
            .map(|axis| shape.get(*axis).cloned().flatten())
            .collect(),
        Axes::Absent(_) => shape.into_iter().rev().collect(),
        Axes::Hidden(_) => vec![None; rank],
    }))
}

fn reshape<N: Node>(node: &N, x: usize, to: usize) -> Found<N> {
    let Some(allow_zero) = flag(node, "allowzero") else {
        return Ok(None);
    };
    let Given::Known(to) = elements(node, to) else {
        return Ok(None);
    };
    let from = node.shape(x);
    let mut shape: Shape<N::Size> = Vec::with_capacity(to.len());
    let (mut rest, mut certain) = (None, true);
    for (at, entry) in to.iter().enumerate() {
        let size = match number(node, entry) {
            Some(0) if !allow_zero => match &from {
                Some(from) if at >= from.len() => {
                    let found = format!("a shape that copies axis {at}");
                    return fault(
                        "input 1".into(),
                        found,
                        format!("one of the {} that are there", from.len()),
                    );
                }
                Some(from) => from.get(at).cloned().flatten(),
                None => None,
            },
            Some(-1) if rest.is_some() => {
                return fault("input 1".into(), "a shape with two entries of -1", "one");
            }
            Some(-1) => {
                rest = Some(at);
                Some(node.size(1))
            }
            Some(n) if n < -1 => {
                return fault("input 1".into(), format!("a shape with {n}"), "-1 or more");
            }
            _ => entry.clone(),
        };
        certain &= entry.is_some();
        shape.push(size);
    }
    let total = from.and_then(|from| number(node, &product(node, &from)));
    let others = number(node, &product(node, &shape));
    if let Some(rest) = rest.and_then(|at| shape.get_mut(at)) {
        *rest = None;
        if let (Some(total), Some(others), true) = (total, others, certain) {
            if others > 0 && total % others == 0 {
                *rest = Some(node.size(total / others));
            } else if others > 0 {
                let found = format!("a shape with {others} elements beside -1");
                return fault(
                    "input 1".into(),
                    found,
                    format!("a divisor of {total}, the number of elements"),
                );
            }
        }
    } else if let (Some(total), Some(others), true) = (total, others, certain)
        && total != others
    {
        let found = format!("a shape of {others} elements");
        return fault("input 1".into(), found, total);
    }
    // What is not known may be a -1 or a copy.
    Ok(Some(shape))
}

fn expand<N: Node>(node: &N, shape: Shape<N::Size>, x: usize, to: usize) -> Found<N> {
    let Given::Known(to) = elements(node, to) else {
        return Ok(None);
    };
    match broadcast_shapes(node, &shape, &to) {
        // A size that is broadcast with what is not known is known only if it is not 1.
        Ok(both) => Ok(Some(both)),
        Err(()) => {
            let found = format!("of shape {}", shape_text(node, &shape));
            let expected = format!("one that broadcasts with {}", shape_text(node, &to));
            fault(subject_of_input(node, x), found, expected)
        }
    }
}

fn tile<N: Node>(node: &N, shape: Shape<N::Size>, repeats: usize) -> Found<N> {
    let Given::Known(times) = elements(node, repeats) else {
        return Ok(Some(vec![None; shape.len()]));
    };
    if times.len() != shape.len() {
        let found = format!("a list of {} numbers", times.len());
        return fault(subject_of_input(node, repeats), found, shape.len());
    }
    let pairs = shape.iter().zip(&times);
    Ok(Some(
        pairs
            .map(|(size, n)| combine(node, Operation::Multiply, size, n))
            .collect(),
    ))
}

fn flatten<N: Node>(node: &N, shape: &[Size<N>]) -> Found<N> {
    Ok(Some(match axis(node, "axis", shape.len())? {
        Some(axis) => {
            let (before, after) = shape.split_at_checked(axis).unwrap_or((shape, &[]));
            vec![product(node, before), product(node, after)]
        }
        None => vec![None, None],
    }))
}

fn squeeze<N: Node>(node: &N, shape: Shape<N::Size>, x: usize) -> Found<N> {
    let Some(fact) = node.schema().shapes.first_axis() else {
        return Ok(None);
    };
    let rank = shape.len();
    Ok(match judge(node, fact, rank)? {
        Axes::Known(axes) => {
            for axis in &axes {
                let size = shape.get(*axis).cloned().flatten();
                if let Some(found) = number(node, &size).filter(|n| *n != 1) {
                    let subject = format!("dimension {axis} of {}", subject_of_input(node, x));
                    return fault(subject, found, "1, to be squeezed");
                }
            }
            Some(without(shape, &axes))
        }
        Axes::Hidden(count) => count
            .and_then(|count| rank.checked_sub(count))
            .map(|rank| vec![None; rank]),
        Axes::Absent(_) => {
            let known = shape.iter().all(|size| number(node, size).is_some());
            let one = |size: &Size<N>| number(node, size) == Some(1);
            known.then(|| shape.iter().filter(|size| !one(size)).cloned().collect())
        }
    })
}

fn unsqueeze<N: Node>(node: &N, shape: Shape<N::Size>) -> Found<N> {
    let Some(fact) = node.schema().shapes.first_axis() else {
        return Ok(None);
    };
    let count = match (fact.input, fact.list) {
        (Some(input), _) => elements(node, input).known().map(|list| list.len()),
        (None, true) => node.ints(fact.name).known().map(|list| list.len()),
        (None, false) => Some(1),
    };
    let Some(count) = count else {
        return Ok(None);
    };
    let rank = shape.len() + count;
    let Axes::Known(axes) = judge(node, fact, rank)? else {
        return Ok(Some(vec![None; rank]));
    };
    let mut sizes = shape.into_iter();
    let inserted = |axis: usize| axes.contains(&axis);
    Ok(Some(
        (0..rank)
            .map(|axis| match inserted(axis) {
                true => Some(node.size(1)),
                false => sizes.next().flatten(),
            })
            .collect(),
    ))
}

fn gather<N: Node>(node: &N, data: Shape<N::Size>, indices: Shape<N::Size>) -> Found<N> {
    let name = node
        .schema()
        .shapes
        .first_axis()
        .map_or("axis", |fact| fact.name);
    let rank = (data.len() + indices.len()).saturating_sub(1);
    Ok(Some(match axis(node, name, data.len())? {
        Some(axis) => {
            let (before, after) = data.split_at_checked(axis).unwrap_or((&data, &[]));
            let after = after.get(1..).unwrap_or_default();
            [before, &indices, after].concat()
        }
        None => vec![None; rank],
    }))
}

fn gather_nd<N: Node>(
    node: &N,
    data: &[Size<N>],
    indices: &[Size<N>],
    inputs: &[usize],
) -> Found<N> {
    let batches = match int(node, "batch_dims") {
        Given::Absent => 0,
        Given::Known(n) => n,
        Given::Hidden => return Ok(None),
    };
    for (shape, input) in [data, indices].into_iter().zip(inputs) {
        if shape.is_empty() {
            return fault(subject_of_input(node, *input), "a scalar", "rank 1 or more");
        }
    }
    let Some((last, outer)) = indices.split_last() else {
        return Ok(None);
    };
    let Some(reach) = number(node, last) else {
        return Ok(None);
    };
    let from = batches.saturating_add(reach);
    let Some(rest) = usize::try_from(from).ok().and_then(|from| data.get(from..)) else {
        let subject = subject_of_input(node, inputs.get(1).copied().unwrap_or(1));
        let expected = format!("at most {} with {batches} batch axes", data.len());
        return fault(
            subject,
            format!("a list of indices into {reach} axes"),
            expected,
        );
    };
    Ok(Some([outer, rest].concat()))
}

fn one_hot<N: Node>(node: &N, mut shape: Shape<N::Size>, depth: usize) -> Found<N> {
    let rank = shape.len() + 1;
    let depth = match node.elements(depth).as_deref() {
        Some([depth]) => depth.clone(),
        _ => None,
    };
    Ok(Some(match axis(node, "axis", rank)? {
        Some(axis) => {
            shape.insert(axis.min(shape.len()), depth);
            shape
        }
        None => vec![None; rank],
    }))
}

fn axis_count<N: Node>(node: &N, x: usize) -> Option<Shape<N::Size>> {
    let Some(shape) = node.shape(x) else {
        return Some(vec![None]);
    };
    let rank = shape.len() as i64;
    let place = |given: Given<i64>, default: i64| match given {
        Given::Absent => Some(default),
        Given::Known(at) if at < 0 => Some(at.saturating_add(rank).max(0)),
        Given::Known(at) => Some(at.min(rank)),
        Given::Hidden => None,
    };
    let (start, end) = (place(int(node, "start"), 0), place(int(node, "end"), rank));
    let count = start.zip(end).map(|(start, end)| (end - start).max(0));
    Some(vec![count.map(|count| node.size(count))])
}

// ---- windows ---------------------------------------------------------------------------------------

/// The attributes of a window along one axis.
struct Along {
    stride: i64,
    dilation: i64,
    before: i64,
    after: i64,
}

/// The attributes along each of `n` axes; `None` if they are not known here.
fn along<N: Node>(node: &N, n: usize) -> Result<Option<Vec<Along>>, Fault> {
    let read = |name: &str, length: usize, default: i64| match node.ints(name) {
        Given::Hidden => Ok(None),
        Given::Absent => Ok(Some(vec![default; length])),
        Given::Known(list) if list.len() != length => {
            let found = format!("a list of {} numbers", list.len());
            fault(format!("attribute '{name}'"), found, length)
        }
        Given::Known(list) => Ok(Some(list)),
    };
    let (strides, dilations) = (read("strides", n, 1)?, read("dilations", n, 1)?);
    let pads = read("pads", 2 * n, 0)?;
    let (Some(strides), Some(dilations), Some(pads)) = (strides, dilations, pads) else {
        return Ok(None);
    };
    for (name, list) in [("strides", &strides), ("dilations", &dilations)] {
        if let Some(bad) = list.iter().find(|n| **n < 1) {
            return fault(
                format!("attribute '{name}'"),
                format!("a list with {bad}"),
                "1 or more",
            );
        }
    }
    let (before, after) = pads.split_at_checked(n).unwrap_or((&pads, &[]));
    let all = strides.iter().zip(&dilations).zip(before.iter().zip(after));
    Ok(Some(
        all.map(|((stride, dilation), (before, after))| Along {
            stride: *stride,
            dilation: *dilation,
            before: *before,
            after: *after,
        })
        .collect(),
    ))
}

/// What a dilated kernel covers.
fn reach<N: Node>(node: &N, kernel: &Size<N>, along: &Along) -> Size<N> {
    let steps = add_number(node, kernel, -1);
    add_number(node, &times(node, &steps, along.dilation), 1)
}

/// The sizes of windows over a space.
fn windows<N: Node>(node: &N, space: &[Size<N>], kernel: &[Size<N>]) -> Found<N> {
    let Some(all) = along(node, space.len())? else {
        return Ok(Some(vec![None; space.len()]));
    };
    let (Given::Known(auto), Some(ceil)) = (word(node, "auto_pad"), flag(node, "ceil_mode")) else {
        return Ok(Some(vec![None; space.len()]));
    };
    let explicit = auto.is_empty() || auto == "NOTSET";
    let sizes = space.iter().zip(kernel).zip(&all);
    let sizes = sizes.map(|((size, kernel), along)| {
        if auto.starts_with("SAME") {
            return ceil_div(node, size, along.stride);
        }
        let (before, after) = match explicit {
            true => (along.before, along.after),
            false => (0, 0),
        };
        let padded = add_number(node, size, before.checked_add(after)?);
        let reach = reach(node, kernel, along);
        let room = combine(node, Operation::Subtract, &padded, &reach);
        if ceil && explicit {
            let places = add_number(node, &ceil_div(node, &room, along.stride), 1);
            // The last window must begin inside.
            let inside = ceil_div(node, &add_number(node, size, before), along.stride);
            return combine(node, Operation::Least, &places, &inside);
        }
        let stride = Some(node.size(along.stride));
        add_number(node, &combine(node, Operation::Divide, &room, &stride), 1)
    });
    Ok(Some(sizes.collect()))
}

/// The kernel that an attribute gives, or else the weights.
fn kernel<N: Node>(
    node: &N,
    n: usize,
    weights: Option<&[Size<N>]>,
) -> Result<Shape<N::Size>, Fault> {
    match node.ints("kernel_shape") {
        Given::Known(list) if list.len() != n => {
            let found = format!("a list of {} numbers", list.len());
            fault("attribute 'kernel_shape'".into(), found, n)
        }
        Given::Known(list) => {
            if let Some(bad) = list.iter().find(|k| **k < 1) {
                let found = format!("a list with {bad}");
                return fault("attribute 'kernel_shape'".into(), found, "1 or more");
            }
            Ok(list.iter().map(|k| Some(node.size(*k))).collect())
        }
        Given::Hidden => Ok(vec![None; n]),
        Given::Absent => Ok(match weights.and_then(|w| w.get(2..)) {
            Some(kernel) => kernel.to_vec(),
            None => vec![None; n],
        }),
    }
}

fn image<'s, N: Node>(node: &N, shape: &'s [Size<N>], input: usize) -> Result<Image<'s, N>, Fault> {
    match shape.split_at_checked(2) {
        Some((outer, space)) if !space.is_empty() => Ok((outer, space)),
        _ => {
            let found = format!("of rank {}", shape.len());
            fault(subject_of_input(node, input), found, "rank 3 or more")
        }
    }
}

fn conv<N: Node>(node: &N, x: usize, w: usize) -> Found<N> {
    let (Some(shape), weights) = (node.shape(x), node.shape(w)) else {
        return Ok(None);
    };
    let (outer, space) = image(node, &shape, x)?;
    if let Some(weights) = weights.as_ref().filter(|w| w.len() != shape.len()) {
        let found = format!("of rank {}", weights.len());
        return fault(
            subject_of_input(node, w),
            found,
            format!("rank {}", shape.len()),
        );
    }
    let kernel = kernel(node, space.len(), weights.as_deref())?;
    let maps = weights.as_ref().and_then(|w| w.first().cloned().flatten());
    let space = windows(node, space, &kernel)?.unwrap_or_default();
    let mut out = vec![outer.first().cloned().flatten(), maps];
    out.extend(space);
    Ok(Some(out))
}

fn pool<N: Node>(node: &N, shape: &[Size<N>]) -> Found<N> {
    let (outer, space) = image(node, shape, 0)?;
    let kernel = kernel(node, space.len(), None)?;
    let space = windows(node, space, &kernel)?.unwrap_or_default();
    Ok(Some([outer, &space].concat()))
}

fn conv_transpose<N: Node>(
    node: &N,
    shape: &[Size<N>],
    weights: Option<Shape<N::Size>>,
) -> Found<N> {
    let (outer, space) = image(node, shape, 0)?;
    let n = space.len();
    let kernel = kernel(node, n, weights.as_deref())?;
    let groups = int(node, "group").known();
    let maps = weights.and_then(|w| w.get(1).cloned().flatten());
    let maps = groups.and_then(|groups| times(node, &maps, groups));
    let mut out = vec![outer.first().cloned().flatten(), maps];
    let (Some(all), Given::Known(auto)) = (along(node, n)?, word(node, "auto_pad")) else {
        out.extend(vec![None; n]);
        return Ok(Some(out));
    };
    match node.ints("output_shape") {
        Given::Known(list) => {
            if list.len() < n {
                let found = format!("a list of {} sizes", list.len());
                return fault("attribute 'output_shape'".into(), found, n);
            }
            // Some exporters give the batch and the channels too.
            let list = list.get(list.len().saturating_sub(n)..).unwrap_or_default();
            out.extend(list.iter().map(|n| Some(node.size(*n))));
            return Ok(Some(out));
        }
        Given::Hidden => {
            out.extend(vec![None; n]);
            return Ok(Some(out));
        }
        Given::Absent => {}
    }
    let more = match node.ints("output_padding") {
        Given::Known(list) => list,
        Given::Absent => vec![0; n],
        Given::Hidden => return Ok(None),
    };
    let explicit = auto.is_empty() || auto == "NOTSET";
    for (at, ((size, kernel), along)) in space.iter().zip(&kernel).zip(&all).enumerate() {
        if auto.starts_with("SAME") {
            out.push(times(node, size, along.stride));
            continue;
        }
        let pads = match explicit {
            true => along.before.checked_add(along.after),
            false => Some(0),
        };
        let more = more.get(at).copied().unwrap_or(0);
        let extra = pads.and_then(|pads| more.checked_sub(pads));
        let steps = times(node, &add_number(node, size, -1), along.stride);
        let full = add(node, &steps, &reach(node, kernel, along));
        out.push(extra.and_then(|extra| add_number(node, &full, extra)));
    }
    Ok(Some(out))
}

fn unpool<N: Node>(node: &N, shape: &[Size<N>]) -> Found<N> {
    if let Some(given) = input(node, "output_shape") {
        return Ok(elements(node, given).known());
    }
    let (outer, space) = image(node, shape, 0)?;
    let kernel = kernel(node, space.len(), None)?;
    let Some(all) = along(node, space.len())? else {
        return Ok(Some(vec![None; shape.len()]));
    };
    let space = space.iter().zip(&kernel).zip(&all);
    let space = space.map(|((size, kernel), along)| {
        let steps = times(node, &add_number(node, size, -1), along.stride);
        let pads = along.before.checked_add(along.after)?;
        add_number(node, &add(node, &steps, kernel), pads.checked_neg()?)
    });
    Ok(Some(outer.iter().cloned().chain(space).collect()))
}

/// Axes get new sizes, those that are listed or all.
fn replace<N: Node>(
    node: &N,
    mut shape: Shape<N::Size>,
    sizes: Option<Shape<N::Size>>,
    subject: impl Fn() -> String,
) -> Found<N> {
    let Some(axes) = axes_of(node, shape.len(), 0)? else {
        return Ok(Some(vec![None; shape.len()]));
    };
    if let Some(sizes) = sizes.as_ref().filter(|sizes| sizes.len() != axes.len()) {
        let found = format!("a list of {} sizes", sizes.len());
        return fault(
            subject(),
            found,
            format!("{}, one for each axis", axes.len()),
        );
    }
    for (k, axis) in axes.into_iter().enumerate() {
        if let Some(size) = shape.get_mut(axis) {
            *size = sizes
                .as_ref()
                .and_then(|sizes| sizes.get(k).cloned().flatten());
        }
    }
    Ok(Some(shape))
}

fn resize<N: Node>(node: &N, shape: Shape<N::Size>) -> Found<N> {
    let stretch = match word(node, "keep_aspect_ratio_policy") {
        Given::Known(policy) => policy == "stretch",
        Given::Absent => true,
        Given::Hidden => false,
    };
    // An empty list stands for an absent one.
    let sizes = input(node, "sizes").and_then(|sizes| elements(node, sizes).known());
    let sizes = sizes.filter(|sizes| stretch && !sizes.is_empty());
    replace(node, shape, sizes, || "'sizes'".into())
}

fn crop_pad<N: Node>(node: &N, shape: Shape<N::Size>, to: usize) -> Found<N> {
    let sizes = elements(node, to).known();
    replace(node, shape, sizes, || subject_of_input(node, to))
}

fn ones_from<N: Node>(node: &N, mut shape: Shape<N::Size>) -> Found<N> {
    let rank = shape.len();
    Ok(Some(match axis(node, "axis", rank)? {
        Some(axis) => {
            let normalised = shape.iter_mut().skip(axis);
            normalised.for_each(|size| *size = Some(node.size(1)));
            shape
        }
        None => vec![None; rank],
    }))
}

fn einsum<N: Node>(node: &N, first: usize) -> Found<N> {
    let Given::Known(equation) = word(node, "equation") else {
        return Ok(None);
    };
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    /// More letters than that stand for no axes.
    const MOST: usize = 1024;
    if equation.contains('.') || equation.len() > MOST {
        return Ok(None);
    }
    let (terms, result) = match equation.split_once("->") {
        Some((terms, result)) => (terms, Some(result)),
        None => (equation.as_str(), None),
    };
    let mut sizes: Vec<(char, Size<N>, usize)> = Vec::new();
    for (input, term) in (first..).zip(terms.split(',')) {
        let shape = node.shape(input);
        let letters: Vec<char> = term.chars().collect();
        if let Some(shape) = shape.as_ref().filter(|s| s.len() != letters.len()) {
            let found = format!("of rank {}", shape.len());
            let expected = format!("rank {} for '{term}'", letters.len());
            return fault(subject_of_input(node, input), found, expected);
        }
        for (at, letter) in letters.iter().enumerate() {
            let found = shape.as_ref().and_then(|s| s.get(at).cloned().flatten());
            match sizes.iter_mut().find(|(known, ..)| known == letter) {
                None => sizes.push((*letter, found, 1)),
                Some((_, size, uses)) => {
                    *uses += 1;
                    *size = broadcast(node, size, &found).unwrap_or(None);
                }
            }
        }
    }
    let result: Vec<char> = match result {
        Some(result) => result.chars().collect(),
        None => {
            let once = sizes.iter().filter(|(.., uses)| *uses == 1);
            let mut letters: Vec<char> = once.map(|(letter, ..)| *letter).collect();
            letters.sort_unstable();
            letters
        }
    };
    let size = |letter: &char| {
        let known = sizes.iter().find(|(known, ..)| known == letter)?;
        known.1.clone()
    };
    Ok(Some(result.iter().map(size).collect()))
}
