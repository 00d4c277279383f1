//! Shapes that are no list of sizes: one function for each word of the table.

use super::apply::{
    Axes, Fault, Given, Node, Operation, Shape, axis, elements, flag, input, int, judge, list,
    shape_text, subject_of_input, word,
};
use super::sizes::{
    Found, Size, add, broadcast, broadcast_shapes, ceil_div, combine, differ, either, fault,
    number, product, times,
};
use super::windows::{conv, conv_transpose, pool, unpool};
use super::{Absent, Function};

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
