//! Shapes of windows over images: convolutions and pools, and what puts their windows back.

use super::apply::{
    Fault, Given, Node, Operation, Shape, elements, flag, input, int, subject_of_input, word,
};
use super::sizes::{Found, Size, add, add_number, ceil_div, combine, fault, times};

/// Batch and channels, and the space.
type Image<'s, N> = (&'s [Size<N>], &'s [Size<N>]);

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

pub(super) fn conv<N: Node>(node: &N, x: usize, w: usize) -> Found<N> {
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

pub(super) fn pool<N: Node>(node: &N, shape: &[Size<N>]) -> Found<N> {
    let (outer, space) = image(node, shape, 0)?;
    let kernel = kernel(node, space.len(), None)?;
    let space = windows(node, space, &kernel)?.unwrap_or_default();
    Ok(Some([outer, &space].concat()))
}

pub(super) fn conv_transpose<N: Node>(
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

pub(super) fn unpool<N: Node>(node: &N, shape: &[Size<N>]) -> Found<N> {
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
