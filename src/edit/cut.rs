//! A part of a model as a model: the nodes between some values and others.

use std::collections::{HashMap, HashSet};

use lapidary_onnx::proto::{ModelProto, ValueInfoProto};

use super::names::{defined, read_by};
use super::{graph, types_of};
use crate::{Error, Model};

/// Leaves what `to` (or the outputs) needs of `from` (or the inputs).
pub fn cut(
    model: &Model,
    proto: &mut ModelProto,
    from: &[String],
    to: &[String],
) -> Result<(), Error> {
    let ir_version = proto.ir_version;
    let graph = graph(proto)?;
    let known = defined(graph);
    for name in from.iter().chain(to) {
        if !known.contains(name) {
            return Err(Error::Usage(format!(
                "the model has no value '{name}' (hint: `lapidary show MODEL --stage onnx` lists its nodes with their outputs)"
            )));
        }
    }
    if let Some((i, name)) = (from.iter().enumerate()).find(|(i, n)| from[..*i].contains(n)) {
        return Err(Error::Usage(format!(
            "'{name}' is named as input {i} again"
        )));
    }

    let outputs: Vec<String> = match to.is_empty() {
        true => graph.output.iter().map(|v| v.name.clone()).collect(),
        false => to.to_vec(),
    };
    let producer: HashMap<String, usize> = (graph.node.iter().enumerate())
        .flat_map(|(n, node)| node.output.iter().map(move |v| (v.clone(), n)))
        .collect();
    let weights: HashSet<String> = {
        let dense = graph.initializer.iter().map(|t| t.name.clone());
        let sparse = graph.sparse_initializer.iter();
        dense
            .chain(sparse.filter_map(|t| Some(t.values.as_ref()?.name.clone())))
            .collect()
    };
    // Backwards from the outputs, up to the new inputs.
    let (mut kept, mut needed) = (HashSet::new(), HashSet::new());
    let mut open: Vec<String> = outputs.clone();
    while let Some(name) = open.pop() {
        if !needed.insert(name.clone()) || from.contains(&name) {
            continue;
        }
        if let Some(n) = producer.get(&name).copied() {
            if kept.insert(n) {
                open.extend(read_by(&graph.node[n]));
            }
        } else if !from.is_empty() && !weights.contains(&name) {
            return Err(Error::Usage(format!(
                "what is cut out needs the input '{name}' as well (hint: add --from {name}, or a value between)"
            )));
        }
    }
    if let Some(idle) = from.iter().find(|name| !needed.contains(*name)) {
        return Err(Error::Usage(format!(
            "no output of what is cut out needs '{idle}' (hint: leave out --from {idle})"
        )));
    }
    if let Some(name) = outputs.iter().find(|name| from.contains(name)) {
        return Err(Error::Usage(format!(
            "'{name}' is input and output at once"
        )));
    }

    let asked: Vec<String> = from.iter().chain(to).cloned().collect();
    let types = types_of(model.file(), &asked)?;
    let stated = |name: &str| {
        let all = graph.input.iter().chain(&graph.output);
        all.chain(&graph.value_info)
            .find(|v| v.name == name && v.r#type.is_some())
            .cloned()
    };
    let mut info = HashMap::new();
    for (name, ty) in asked.iter().zip(types) {
        let value = match (ty, stated(name)) {
            (_, Some(stated)) => stated,
            (Some(ty), None) => ValueInfoProto {
                name: name.clone(),
                r#type: Some(ty),
                ..ValueInfoProto::default()
            },
            (None, None) => {
                return Err(Error::Unsupported(format!(
                    "'{name}' is no tensor and the model does not state its type (hint: cut at another value)"
                )));
            }
        };
        info.insert(name.clone(), value);
    }
    let values = |names: &[String]| names.iter().filter_map(|n| info.get(n).cloned()).collect();
    if from.is_empty() {
        graph.input.retain(|v| needed.contains(&v.name));
    } else {
        // Before version 4 of the format weights are listed as inputs too.
        let listed = graph
            .input
            .iter()
            .filter(|v| ir_version < 4 && needed.contains(&v.name) && weights.contains(&v.name));
        let listed: Vec<_> = listed
            .filter(|v| !from.contains(&v.name))
            .cloned()
            .collect();
        graph.input = values(from);
        graph.input.extend(listed);
    }
    if !to.is_empty() {
        graph.output = values(to);
    }
    let mut number = 0;
    graph.node.retain(|_| {
        number += 1;
        kept.contains(&(number - 1))
    });
    // A weight that became an input is none any more.
    let is_weight = |name: &str| needed.contains(name) && !from.iter().any(|f| f == name);
    graph.initializer.retain(|t| is_weight(&t.name));
    graph
        .sparse_initializer
        .retain(|t| t.values.as_ref().is_some_and(|v| is_weight(&v.name)));
    let left = defined(graph);
    graph.value_info.retain(|v| left.contains(&v.name));
    graph
        .quantization_annotation
        .retain(|note| left.contains(&note.tensor_name));
    // It trains the whole.
    proto.training_info.clear();
    Ok(())
}
