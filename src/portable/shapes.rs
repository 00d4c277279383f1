//! Views said with constants: shapes of `Reshape` that a model computes from shapes, and views of views.
//!
//! A dim that is a copy of the input's is 0, one that is left over is -1 where that is the whole size over a constant.
//! What computed the shape is then read by nobody. The graph level knows through which views a value is one of an earlier
//! value; `Reshape` and `Transpose` then read that one.

use std::collections::HashMap;

use lapidary_graph::{Dim, Op, TensorData, ValueId};
use lapidary_onnx::proto::AttributeProto;
use lapidary_onnx::proto::attribute_proto::AttributeType;

use super::draft::{Draft, int, is};

pub fn simplify(draft: &mut Draft) {
    // The first name of each value, and the node that makes it.
    let mut first: HashMap<ValueId, (String, Option<usize>)> = HashMap::new();
    let inputs = draft.graph.input.iter().map(|v| &v.name);
    for name in inputs.chain(draft.graph.initializer.iter().map(|t| &t.name)) {
        if let Some(value) = draft.facts.value(name) {
            first.entry(value).or_insert_with(|| (name.clone(), None));
        }
    }
    for (n, node) in draft.graph.node.iter().enumerate() {
        for name in &node.output {
            if let Some(value) = draft.facts.value(name) {
                first
                    .entry(value)
                    .or_insert_with(|| (name.clone(), Some(n)));
            }
        }
    }
    let mut shapes: HashMap<Vec<i64>, String> = HashMap::new();
    for n in 0..draft.graph.node.len() {
        past_views(draft, n, &first);
        constant_shape(draft, n, &mut shapes);
    }
}

/// Lets a view read the value that it is a view of after all.
fn past_views(draft: &mut Draft, n: usize, first: &HashMap<ValueId, (String, Option<usize>)>) {
    let facts = &draft.facts;
    let Some(node) = draft.graph.node.get_mut(n) else {
        return;
    };
    let (Some(input), Some(output)) = (node.input.first(), node.output.first()) else {
        return;
    };
    let source = facts
        .value(output)
        .and_then(|v| facts.producer(v))
        .and_then(|made| Some((&made.op, made.input(0)?)));
    let Some((op, source)) = source else { return };
    let Some((name, at)) = first.get(&source) else {
        return;
    };
    if name == input || at.is_some_and(|at| at >= n) {
        return;
    }
    match op {
        Op::Transpose { perm } if is(node, "Transpose") => {
            let perm = perm.iter().map(|axis| *axis as i64).collect();
            node.attribute = vec![ints("perm", perm)];
            node.input = vec![name.clone()];
        }
        Op::Reshape { shape } if is(node, "Reshape") => {
            let Some(dims) = facts.dims(name) else { return };
            let Some(shape) = wanted(&dims, shape) else {
                return;
            };
            let name = name.clone();
            let data = TensorData::from_i64(vec![shape.len() as i64], &shape);
            let wish = format!("{output}_shape");
            let shape = draft.add_constant(&wish, data);
            if let Some(node) = draft.graph.node.get_mut(n) {
                node.input = vec![name, shape];
                node.attribute.clear();
            }
        }
        _ => {}
    }
}

/// Gives a `Reshape` a constant shape.
fn constant_shape(draft: &mut Draft, n: usize, shapes: &mut HashMap<Vec<i64>, String>) {
    let Some(node) = draft.graph.node.get(n).filter(|n| is(n, "Reshape")) else {
        return;
    };
    let ([input, shape], [output]) = (node.input.as_slice(), node.output.as_slice()) else {
        return;
    };
    let facts = &draft.facts;
    if facts.constant(shape).is_some() || int(node, "allowzero", 0) != 0 {
        return;
    }
    let (Some(from), Some(to)) = (facts.dims(input), facts.dims(output)) else {
        return;
    };
    let Some(shape) = wanted(&from, &to) else {
        return;
    };
    let name = match shapes.get(&shape) {
        Some(name) => name.clone(),
        None => {
            let data = TensorData::from_i64(vec![shape.len() as i64], &shape);
            let wish = format!("{output}_shape");
            let name = draft.add_constant(&wish, data);
            shapes.insert(shape, name.clone());
            name
        }
    };
    if let Some(place) = draft.graph.node.get_mut(n).and_then(|n| n.input.get_mut(1)) {
        *place = name;
    }
}

/// The shape operand that makes dims `to` of dims `from` in every run; `None` if constants do not say it.
fn wanted(from: &[Dim], to: &[Dim]) -> Option<Vec<i64>> {
    let mut shape = Vec::with_capacity(to.len());
    let mut copies = false;
    for (axis, dim) in to.iter().enumerate() {
        shape.push(match dim.as_const() {
            Some(size) if size > 0 => size,
            _ if from.get(axis) == Some(dim) => {
                copies = true;
                0
            }
            // A literal 0 is read as a copy.
            Some(_) => return None,
            None => -1,
        });
    }
    match shape.iter().filter(|size| **size == -1).count() {
        0 => Some(shape),
        // Beside a dim that may be 0 nobody can say what is left over.
        1 if !copies => Some(shape),
        _ => None,
    }
}

pub fn ints(name: &str, values: Vec<i64>) -> AttributeProto {
    AttributeProto {
        name: name.to_string(),
        r#type: AttributeType::Ints as i32,
        ints: values,
        ..AttributeProto::default()
    }
}
