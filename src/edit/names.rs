//! Names of values in a graph and in the graphs of its nodes.

use std::collections::{HashMap, HashSet};

use lapidary_onnx::proto::{GraphProto, NodeProto};

use crate::Error;

/// Calls `f` with each graph inside of a graph's nodes, outermost first.
pub fn for_each_body(graph: &mut GraphProto, f: &mut dyn FnMut(&mut GraphProto)) {
    for node in &mut graph.node {
        for attribute in &mut node.attribute {
            for body in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                f(body);
                for_each_body(body, f);
            }
        }
    }
}

/// The names that a graph gives to values of its own.
pub fn defined(graph: &GraphProto) -> HashSet<String> {
    let inputs = graph.input.iter().map(|v| &v.name);
    let dense = graph.initializer.iter().map(|t| &t.name);
    let sparse = graph.sparse_initializer.iter();
    let sparse = sparse.filter_map(|t| Some(&t.values.as_ref()?.name));
    let made = graph.node.iter().flat_map(|n| &n.output);
    inputs
        .chain(dense)
        .chain(sparse)
        .chain(made)
        .filter(|name| !name.is_empty())
        .cloned()
        .collect()
}

/// The values that a node reads: its inputs, and what the graphs in it read from around them.
pub fn read_by(node: &NodeProto) -> HashSet<String> {
    let mut all: HashSet<String> = node.input.iter().cloned().collect();
    for attribute in &node.attribute {
        for body in attribute.g.iter().chain(&attribute.graphs) {
            let own = defined(body);
            let read = body.node.iter().flat_map(read_by);
            let handed = body.output.iter().map(|v| v.name.clone());
            all.extend(read.chain(handed).filter(|name| !own.contains(name)));
        }
    }
    all.remove("");
    all
}

/// Renames inputs and outputs, and all uses of them.
pub fn rename(graph: &mut GraphProto, names: &[(String, String)]) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let edges = graph.input.iter().chain(&graph.output);
    let edges: HashSet<String> = edges.map(|v| v.name.clone()).collect();
    let mut taken = defined(graph);
    let mut inside = HashSet::new();
    for_each_body(graph, &mut |body| inside.extend(defined(body)));
    let mut new_names = HashMap::new();
    for (old, new) in names {
        if !edges.contains(old) {
            let mut all: Vec<_> = edges.iter().map(String::as_str).collect();
            all.sort_unstable();
            return Err(Error::Usage(format!(
                "no input or output is named '{old}' (hint: there are {})",
                all.join(", ")
            )));
        }
        if new_names.insert(old.clone(), new.clone()).is_some() {
            return Err(Error::Usage(format!("'{old}' is renamed twice")));
        }
    }
    // Names may be exchanged: what is renamed frees its own, but for values of graphs inside.
    taken.retain(|name| !new_names.contains_key(name));
    taken.extend(inside);
    for (old, new) in names {
        if !taken.insert(new.clone()) {
            return Err(Error::Usage(format!(
                "'{old}' cannot be renamed to '{new}': another value has that name"
            )));
        }
    }
    apply(graph, &new_names);
    Ok(())
}

fn apply(graph: &mut GraphProto, names: &HashMap<String, String>) {
    let change = |name: &mut String| {
        if let Some(new) = names.get(name.as_str()) {
            name.clone_from(new);
        }
    };
    let infos = graph.input.iter_mut().chain(&mut graph.output);
    infos
        .chain(&mut graph.value_info)
        .for_each(|v| change(&mut v.name));
    graph
        .initializer
        .iter_mut()
        .for_each(|t| change(&mut t.name));
    let sparse = graph.sparse_initializer.iter_mut();
    sparse
        .filter_map(|t| t.values.as_mut())
        .for_each(|t| change(&mut t.name));
    for note in &mut graph.quantization_annotation {
        change(&mut note.tensor_name);
        note.quant_parameter_tensor_names
            .iter_mut()
            .for_each(|entry| change(&mut entry.value));
    }
    for node in &mut graph.node {
        let values = node.input.iter_mut().chain(&mut node.output);
        values.for_each(&change);
        for attribute in &mut node.attribute {
            for body in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                // A name that the body gives to a value of its own is another value.
                let own = defined(body);
                let outer: HashMap<_, _> = names
                    .iter()
                    .filter(|(old, _)| !own.contains(*old))
                    .map(|(old, new)| (old.clone(), new.clone()))
                    .collect();
                apply(body, &outer);
            }
        }
    }
}
