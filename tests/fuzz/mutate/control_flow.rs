//! Mutations that put a node into a branch or a loop, or a computed shape before it.

use lapidary_onnx::proto::attribute_proto::AttributeType;
use lapidary_onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};

use super::source::{Source, fresh, value_names};
use super::types::info;

fn graph_attribute(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Graph as i32,
        g: Some(graph),
        ..Default::default()
    }
}

/// A value without a stated type.
fn untyped(name: &str) -> ValueInfoProto {
    ValueInfoProto {
        name: name.into(),
        ..Default::default()
    }
}

/// A node runs inside of a branch; the other branch has the same node, or another value.
pub(super) fn in_if(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let given = source.chance(2);
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let Some(at) = source.index(graph.node.len()) else {
        return false;
    };
    let node = graph.node[at].clone();
    if node.output.iter().any(String::is_empty) || node.output.is_empty() {
        return false;
    }
    let body = |stem: &str| {
        let mut inner = node.clone();
        for output in &mut inner.output {
            *output = format!("{output}_{stem}");
        }
        GraphProto {
            name: stem.into(),
            output: inner.output.iter().map(|o| untyped(o)).collect(),
            node: vec![inner],
            ..Default::default()
        }
    };
    let condition = fresh(graph, "condition");
    if given {
        graph.input.push(info(&condition, 9, &[]));
    } else {
        graph.initializer.push(TensorProto {
            name: condition.clone(),
            data_type: 9,
            int32_data: vec![i32::from(source.chance(2))],
            ..Default::default()
        });
    }
    graph.node[at] = NodeProto {
        op_type: "If".into(),
        name: format!("/{condition}"),
        input: vec![condition],
        output: node.output.clone(),
        attribute: vec![
            graph_attribute("then_branch", body("then")),
            graph_attribute("else_branch", body("else")),
        ],
        ..Default::default()
    };
    true
}

/// A node runs inside of a loop, and its first output is carried or collected.
pub(super) fn in_loop(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let carried = source.chance(2);
    let trips = source.choose(&[0, 1, 2, 3, 3, -1, i64::MAX]);
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let Some(at) = source.index(graph.node.len()) else {
        return false;
    };
    let mut node = graph.node[at].clone();
    let (Some(input), Some(output)) = (node.input.first().cloned(), node.output.first().cloned())
    else {
        return false;
    };
    if input.is_empty() || output.is_empty() {
        return false;
    }
    let stem = fresh(graph, "loop");
    for name in node.output.iter_mut().filter(|o| !o.is_empty()) {
        *name = format!("{name}_{stem}");
    }
    let made = node.output[0].clone();
    let named = |what: &str| format!("{stem}_{what}");
    let mut body = GraphProto {
        name: stem.clone(),
        input: vec![info(&named("i"), 7, &[]), info(&named("c"), 9, &[])],
        output: vec![untyped(&named("on")), untyped(&made)],
        ..Default::default()
    };
    let mut outer = NodeProto {
        op_type: "Loop".into(),
        name: format!("/{stem}"),
        input: vec![named("trips"), String::new()],
        output: vec![output],
        ..Default::default()
    };
    if carried {
        outer.input.push(input);
        body.input.push(untyped(&named("state")));
        node.input[0] = named("state");
    }
    body.node = vec![
        NodeProto {
            op_type: "Identity".into(),
            input: vec![named("c")],
            output: vec![named("on")],
            ..Default::default()
        },
        node,
    ];
    outer.attribute = vec![graph_attribute("body", body)];
    graph.initializer.push(TensorProto {
        name: named("trips"),
        data_type: 7,
        int64_data: vec![trips],
        ..Default::default()
    });
    graph.node[at] = outer;
    true
}

/// A value is reshaped to a shape that is computed, or expanded to it.
pub(super) fn shape_arithmetic(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let op = source.choose(&["Reshape", "Expand", "Reshape", "Tile"]);
    let middle = source.choose(&["Identity", "Neg", "Abs"]);
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let names = value_names(graph);
    let (Some(at), Some(of)) = (source.index(graph.node.len()), source.index(names.len())) else {
        return false;
    };
    let Some(input) = source.index(graph.node[at].input.len()) else {
        return false;
    };
    let read = graph.node[at].input[input].clone();
    if read.is_empty() {
        return false;
    }
    let (shape, changed, out) = (
        fresh(graph, "shape"),
        fresh(graph, "changed"),
        fresh(graph, "shaped"),
    );
    graph.node[at].input[input] = out.clone();
    let node = |op: &str, inputs: Vec<String>, output: &str| NodeProto {
        op_type: op.into(),
        name: format!("/{output}"),
        input: inputs,
        output: vec![output.to_string()],
        ..Default::default()
    };
    let of = if source.chance(2) {
        read.clone()
    } else {
        names[of].clone()
    };
    let new = [
        node("Shape", vec![of], &shape),
        node(middle, vec![shape], &changed),
        node(op, vec![read, changed], &out),
    ];
    graph.node.splice(at..at, new);
    true
}
