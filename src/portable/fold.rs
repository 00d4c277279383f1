//! Constants become weights, and readers of equal values read the first of them.
//!
//! One walk in the order of the nodes. A name whose value an earlier name has already is read under that name; its node
//! goes if nobody else wants it. That is folding, common subexpressions, and whatever the canonical passes know to be
//! the identity, in one. An output of the model keeps its name: the earlier value takes it over, or the node stays.

use std::collections::{HashMap, HashSet};

use lapidary_graph::{TensorData, ValueId};
use lapidary_onnx::proto::NodeProto;

use super::draft::{Draft, is, redirect, tensor};

/// A constant of up to this many bytes may be larger than what it is computed from.
const SMALL: usize = 64 << 10;

pub fn fold(draft: &mut Draft) {
    let mut first: HashMap<ValueId, String> = HashMap::new();
    let mut to: HashMap<String, String> = HashMap::new();
    // Values that nodes make, under names that may still change.
    let mut made: HashSet<String> = HashSet::new();
    let outputs = draft.outputs();
    let mut constants: Vec<(String, TensorData)> = Vec::new();
    let mut swaps: HashMap<String, String> = HashMap::new();
    let mut orphans: HashSet<String> = HashSet::new();

    let inputs: HashSet<String> = draft.graph.input.iter().map(|v| v.name.clone()).collect();
    for name in &inputs {
        if let Some(value) = draft.facts.value(name) {
            first.entry(value).or_insert_with(|| name.clone());
        }
    }
    for weight in draft.graph.initializer.iter().map(|t| &t.name) {
        let value = draft.facts.value(weight);
        let Some(value) = value.filter(|_| !inputs.contains(weight)) else {
            continue;
        };
        match first.get(&value) {
            Some(same) if !outputs.contains(weight) => {
                to.insert(weight.clone(), same.clone());
            }
            Some(_) => {}
            None => {
                first.insert(value, weight.clone());
            }
        }
    }
    for node in &draft.graph.node {
        let budget = budget(draft, node);
        for name in node.output.iter().filter(|n| !n.is_empty()) {
            let Some(value) = draft.facts.value(name) else {
                continue;
            };
            let known = first.get(&value);
            let known = known.filter(|name| !draft.inside.contains(*name)).cloned();
            match known {
                Some(same) if !outputs.contains(name) => {
                    to.insert(name.clone(), same);
                }
                Some(same) if made.contains(&same) && !outputs.contains(&same) => {
                    made.remove(&same);
                    orphans.insert(name.clone());
                    swaps.insert(same, name.clone());
                    first.insert(value, name.clone());
                }
                Some(_) => {}
                None => {
                    let constant = draft.facts.graph.constant(value);
                    let constant = constant.filter(|data| size(data) <= budget);
                    match constant {
                        Some(data) => {
                            constants.push((name.clone(), data.clone()));
                            orphans.insert(name.clone());
                        }
                        None => {
                            made.insert(name.clone());
                        }
                    }
                    first.insert(value, name.clone());
                }
            }
        }
    }

    // Names that went to other values: the nodes that bore them bear others, which nobody reads.
    let mut renamed = HashMap::new();
    for orphan in orphans {
        let name = draft.fresh(&format!("{orphan}_unread"));
        renamed.insert(orphan, name);
    }
    for node in &mut draft.graph.node {
        for name in &mut node.output {
            let new = renamed.get(name).or_else(|| swaps.get(name));
            if let Some(new) = new {
                name.clone_from(new);
            }
        }
    }
    // A name may lead to one that has changed hands since.
    for new in to.values_mut() {
        if let Some(swapped) = swaps.get(new) {
            new.clone_from(swapped);
        }
    }
    to.extend(swaps);
    redirect(&mut draft.graph.node, &to);
    for (name, data) in constants {
        draft.graph.initializer.push(tensor(&name, &data));
    }
}

/// The bytes that constants made of a node may have: no more than those it is computed from, unless they are few.
fn budget(draft: &Draft, node: &NodeProto) -> usize {
    if is(node, "Constant") && node.attribute.iter().all(|a| a.name != "sparse_value") {
        return usize::MAX;
    }
    let inputs = node.input.iter();
    let constants = inputs.filter_map(|name| draft.facts.constant(name));
    constants.map(size).sum::<usize>().max(SMALL)
}

fn size(data: &TensorData) -> usize {
    data.bytes.len() + data.strings.iter().map(|s| s.len() + 8).sum::<usize>()
}
