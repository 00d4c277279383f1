//! Mutations of nodes, of what they read and make, and of the versions that a model names.

use lapidary_onnx::proto::attribute_proto::AttributeType;
use lapidary_onnx::proto::{AttributeProto, ModelProto, NodeProto, OperatorSetIdProto};

use super::source::{Source, any_node, fresh, tensor_of, value_names};

pub(super) fn input_rewired(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(graph) = &model.graph else {
        return false;
    };
    let names = value_names(graph);
    let new = match source.index(names.len()) {
        Some(at) if !source.chance(20) => names[at].clone(),
        _ => "nowhere".to_string(),
    };
    let Some(node) = any_node(source, model) else {
        return false;
    };
    match source.index(node.input.len()) {
        Some(at) if node.input[at] != new => node.input[at] = new,
        _ => return false,
    }
    true
}

pub(super) fn input_left_out(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(node) = any_node(source, model) else {
        return false;
    };
    match source.index(node.input.len()) {
        Some(at) => node.input[at].clear(),
        None => return false,
    }
    true
}

pub(super) fn input_dropped(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    any_node(source, model).is_some_and(|node| node.input.pop().is_some())
}

pub(super) fn input_added(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(node) = any_node(source, model) else {
        return false;
    };
    let Some(at) = source.index(node.input.len()) else {
        return false;
    };
    let copies = source.choose(&[1usize, 1, 2, 20]);
    let more = vec![node.input[at].clone(); copies];
    node.input.extend(more);
    true
}

pub(super) fn inputs_swapped(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(node) = any_node(source, model) else {
        return false;
    };
    if node.input.len() < 2 {
        return false;
    }
    let (a, b) = (
        source.below(node.input.len()),
        source.below(node.input.len()),
    );
    node.input.swap(a, b);
    node.input[a] != node.input[b]
}

pub(super) fn output_dropped(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(node) = any_node(source, model) else {
        return false;
    };
    match source.index(node.output.len()) {
        Some(at) if source.chance(2) => node.output[at].clear(),
        _ => return node.output.pop().is_some(),
    }
    true
}

pub(super) fn output_added(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    match any_node(source, model) {
        Some(node) => node.output.push("one_more".into()),
        None => return false,
    }
    true
}

pub(super) fn output_twice(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let names = model.graph.as_ref().map(value_names).unwrap_or_default();
    let Some(new) = source.index(names.len()).map(|at| names[at].clone()) else {
        return false;
    };
    let Some(node) = any_node(source, model) else {
        return false;
    };
    match source.index(node.output.len()) {
        Some(at) => node.output[at] = new,
        None => return false,
    }
    true
}

/// Another value, or one more, is an output of the graph.
pub(super) fn graph_output(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let names = value_names(graph);
    let (Some(from), Some(to)) = (source.index(graph.output.len()), source.index(names.len()))
    else {
        return false;
    };
    let mut new = graph.output[from].clone();
    new.name = names[to].clone();
    if let Some(tensor) = tensor_of(&mut new)
        && source.chance(2)
    {
        tensor.shape = None;
    }
    match source.below(3) {
        0 => graph.output.push(new),
        1 => graph.output[from] = new,
        _ => drop(graph.output.remove(from)),
    }
    true
}

pub(super) fn cycle(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let Some(late) = source.index(graph.node.len()) else {
        return false;
    };
    let early = source.below(late + 1);
    let Some(name) = graph.node[late].output.first().cloned() else {
        return false;
    };
    match source.index(graph.node[early].input.len()) {
        Some(at) => graph.node[early].input[at] = name,
        None => return false,
    }
    true
}

pub(super) fn node_copied(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let Some(at) = source.index(graph.node.len()) else {
        return false;
    };
    let mut copy = graph.node[at].clone();
    if !source.chance(8) {
        for output in copy.output.iter_mut().filter(|o| !o.is_empty()) {
            *output = format!("{output}_copy");
        }
    }
    graph.node.insert(at + 1, copy);
    true
}

pub(super) fn node_removed(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    match source.index(graph.node.len()) {
        Some(at) => drop(graph.node.remove(at)),
        None => return false,
    }
    true
}

pub(super) fn nodes_swapped(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let n = graph.node.len();
    if n < 2 {
        return false;
    }
    let (a, b) = (source.below(n), source.below(n));
    graph.node.swap(a, b);
    a != b
}

/// A node of one input, where any node reads a value.
pub(super) fn node_inserted(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let op = source.choose(&[
        "Identity",
        "Neg",
        "Relu",
        "Abs",
        "Sqrt",
        "Exp",
        "Not",
        "Shape",
        "Size",
        "Softmax",
        "Transpose",
        "Flatten",
        "NonZero",
        "Cast",
        "ReduceSum",
        "Tanh",
        "Erf",
        "Unique",
        "CumSum",
    ]);
    let to = source.element_type();
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let Some(at) = source.index(graph.node.len()) else {
        return false;
    };
    let Some(input) = source.index(graph.node[at].input.len()) else {
        return false;
    };
    let read = graph.node[at].input[input].clone();
    if read.is_empty() {
        return false;
    }
    let name = fresh(graph, "inserted");
    graph.node[at].input[input] = name.clone();
    let mut new = NodeProto {
        op_type: op.into(),
        name: format!("/{name}"),
        input: vec![read],
        output: vec![name],
        ..Default::default()
    };
    if op == "Cast" {
        new.attribute.push(AttributeProto {
            name: "to".into(),
            r#type: AttributeType::Int as i32,
            i: i64::from(to),
            ..Default::default()
        });
    }
    graph.node.insert(at, new);
    true
}

/// Another operator that takes as many values and gives as many.
pub(super) fn operator(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let known = source.operators;
    let keep = source.chance(3);
    let Some(node) = any_node(source, model) else {
        return false;
    };
    let fits: Vec<_> = known
        .iter()
        .filter(|o| o.0 == node.domain && o.1 != node.op_type)
        .filter(|o| o.2 == node.input.len() && o.3 == node.output.len())
        .collect();
    let Some(at) = source.index(fits.len()) else {
        return false;
    };
    node.op_type = fits[at].1.clone();
    if !keep {
        node.attribute.clear();
    }
    true
}

pub(super) fn opset(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    match source.below(12) {
        0 => model.opset_import.push(OperatorSetIdProto {
            domain: "".into(),
            version: source.int(),
        }),
        1 => drop(model.opset_import.pop()),
        2 => {
            let version = source.int();
            match model.opset_import.first_mut() {
                Some(import) => import.version = version,
                None => return false,
            }
        }
        _ => {
            let version = 7 + source.random.below(22) as i64;
            match model.opset_import.first_mut() {
                Some(import) if import.version != version => import.version = version,
                _ => return false,
            }
        }
    }
    true
}

pub(super) fn ir_version(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let old = model.ir_version;
    model.ir_version = match source.below(3) {
        0 => source.int(),
        _ => 2 + source.random.below(13) as i64,
    };
    model.ir_version != old
}
