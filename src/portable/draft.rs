//! The model while steps change it.

use std::collections::{HashMap, HashSet};

use lapidary_graph::TensorData;
use lapidary_onnx::checker::domain;
use lapidary_onnx::proto::{
    GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, type_proto,
};
use lapidary_onnx::{DataType, pack};

use super::facts::Facts;
use crate::Error;
use crate::edit::names::{defined, for_each_body, read_by};

/// What the wire format had to be for initializers that are no inputs.
const IR_WITH_CONSTANTS: i64 = 4;

pub struct Draft {
    pub graph: GraphProto,
    pub facts: Facts,
    pub opset: i64,
    /// Names that may not be given to new values.
    taken: HashSet<String>,
    /// Names that graphs inside of nodes give.
    pub inside: HashSet<String>,
    /// Whether the model has functions of its own.
    pub has_functions: bool,
}

impl Draft {
    pub fn of(model: &ModelProto, facts: Facts) -> Result<Draft, Error> {
        let none = || Error::Invalid("the model has no graph".to_string());
        let mut graph = model.graph.clone().ok_or_else(none)?;
        if model.ir_version < IR_WITH_CONSTANTS {
            // Weights had to be listed as inputs; in what is written that would make them defaults of inputs.
            let weights: HashSet<&String> = graph.initializer.iter().map(|t| &t.name).collect();
            graph.input.retain(|v| !weights.contains(&v.name));
        }
        for output in &mut graph.output {
            // An output must have a shape; where the source states none, the one that follows.
            if !has_shape(output)
                && let Some(ty) = facts.tensor_type(&output.name)
            {
                output.r#type = Some(ty);
            }
        }
        let mut inside = HashSet::new();
        for_each_body(&mut graph, &mut |body| inside.extend(defined(body)));
        let mut taken = defined(&graph);
        taken.extend(inside.iter().cloned());
        Ok(Draft {
            graph,
            facts,
            opset: super::opset(model),
            taken,
            inside,
            has_functions: !model.functions.is_empty(),
        })
    }

    /// The model with the draft as its graph.
    pub fn finish(mut self, source: &ModelProto) -> ModelProto {
        let left = defined(&self.graph);
        self.graph
            .quantization_annotation
            .retain(|note| left.contains(&note.tensor_name));
        let outputs: HashSet<&String> = self.graph.output.iter().map(|v| &v.name).collect();
        let mut met = HashSet::new();
        self.graph.value_info.retain(|v| {
            left.contains(&v.name) && !outputs.contains(&v.name) && met.insert(v.name.clone())
        });
        let mut model = source.clone();
        model.graph = Some(self.graph);
        // It speaks of nodes and weights that may be gone.
        model.training_info.clear();
        if self.opset != super::opset(source) {
            for import in &mut model.opset_import {
                if domain(&import.domain).is_empty() {
                    import.version = self.opset;
                }
            }
        }
        let needed = match self.opset {
            ..=14 => IR_WITH_CONSTANTS,
            15..=18 => 8,
            19..=20 => 9,
            21..=22 => 10,
            _ => 11,
        };
        let raised = self.opset != super::opset(source);
        let least = if raised { needed } else { IR_WITH_CONSTANTS };
        model.ir_version = model.ir_version.max(least);
        model
    }

    /// A name for a new value.
    pub fn fresh(&mut self, wish: &str) -> String {
        let mut name = wish.to_string();
        let mut number = 1;
        while !self.taken.insert(name.clone()) {
            number += 1;
            name = format!("{wish}_{number}");
        }
        name
    }

    /// A new weight; its name.
    pub fn add_constant(&mut self, wish: &str, data: TensorData) -> String {
        let name = self.fresh(wish);
        self.graph.initializer.push(tensor(&name, &data));
        self.facts.add(&name, data);
        name
    }

    /// The number of the node that makes each value.
    pub fn producers(&self) -> HashMap<String, usize> {
        let nodes = self.graph.node.iter().enumerate();
        nodes
            .flat_map(|(n, node)| node.output.iter().map(move |v| (v.clone(), n)))
            .filter(|(name, _)| !name.is_empty())
            .collect()
    }

    /// How often each value is read; as an output once more.
    pub fn uses(&self) -> HashMap<String, usize> {
        let mut uses = HashMap::new();
        for node in &self.graph.node {
            let captured = read_by(node);
            let direct = node.input.iter().cloned();
            let own: HashSet<&String> = node.input.iter().collect();
            let others = captured.iter().filter(|name| !own.contains(name)).cloned();
            for name in direct.chain(others) {
                *uses.entry(name).or_insert(0) += 1;
            }
        }
        for output in &self.graph.output {
            *uses.entry(output.name.clone()).or_insert(0) += 1;
        }
        uses
    }

    /// The names of the outputs.
    pub fn outputs(&self) -> HashSet<String> {
        self.graph.output.iter().map(|v| v.name.clone()).collect()
    }

    /// Drops nodes and weights that no output needs.
    pub fn drop_unread(&mut self) {
        let producers = self.producers();
        let mut needed: HashSet<String> = HashSet::new();
        let mut kept = vec![false; self.graph.node.len()];
        let mut open: Vec<String> = self.outputs().into_iter().collect();
        while let Some(name) = open.pop() {
            if !needed.insert(name.clone()) {
                continue;
            }
            let Some(n) = producers.get(&name).copied() else {
                continue;
            };
            if let (Some(kept), Some(node)) = (kept.get_mut(n), self.graph.node.get(n))
                && !std::mem::replace(kept, true)
            {
                open.extend(read_by(node));
            }
        }
        let mut kept = kept.into_iter();
        self.graph.node.retain(|_| kept.next().unwrap_or(true));
        let inputs: HashSet<String> = self.graph.input.iter().map(|v| v.name.clone()).collect();
        // The default of an input belongs to the interface.
        let stays = |name: &String| needed.contains(name) || inputs.contains(name);
        self.graph.initializer.retain(|t| stays(&t.name));
        self.graph
            .sparse_initializer
            .retain(|t| t.values.as_ref().is_some_and(|v| stays(&v.name)));
        let left = defined(&self.graph);
        self.graph.value_info.retain(|v| left.contains(&v.name));
    }
}

fn has_shape(value: &ValueInfoProto) -> bool {
    match value.r#type.as_ref().and_then(|ty| ty.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => tensor.shape.is_some(),
        // What is no tensor has none to state.
        Some(_) => true,
        None => false,
    }
}

/// Makes readers of some names read others, in nodes and in the graphs inside of them.
pub fn redirect(nodes: &mut [NodeProto], to: &HashMap<String, String>) {
    if to.is_empty() {
        return;
    }
    for node in nodes {
        for name in &mut node.input {
            if let Some(new) = to.get(name) {
                name.clone_from(new);
            }
        }
        for attribute in &mut node.attribute {
            for body in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                // A name that the body gives to a value of its own is another value.
                let own = defined(body);
                let outer: HashMap<_, _> = to
                    .iter()
                    .filter(|(old, _)| !own.contains(*old))
                    .map(|(old, new)| (old.clone(), new.clone()))
                    .collect();
                redirect(&mut body.node, &outer);
                for output in &mut body.output {
                    if let Some(new) = outer.get(&output.name) {
                        output.name.clone_from(new);
                    }
                }
            }
        }
    }
}

/// A constant as a weight.
pub fn tensor(name: &str, data: &TensorData) -> TensorProto {
    let number = data.dtype as i32;
    let bytes = match DataType::from_wire(number) {
        Some(ty) => pack(ty, &data.bytes),
        None => data.bytes.clone(),
    };
    TensorProto {
        name: name.to_string(),
        data_type: number,
        dims: data.dims.clone(),
        raw_data: bytes,
        string_data: data.strings.clone(),
        ..TensorProto::default()
    }
}

/// Whether a node is an operator of ONNX's own domain.
pub fn is(node: &NodeProto, name: &str) -> bool {
    node.op_type == name && domain(&node.domain).is_empty()
}

/// An attribute's integer, or its default.
pub fn int(node: &NodeProto, name: &str, default: i64) -> i64 {
    let found = node.attribute.iter().find(|a| a.name == name);
    found.map_or(default, |a| a.i)
}

/// An attribute's float, or its default.
pub fn float(node: &NodeProto, name: &str, default: f32) -> f32 {
    let found = node.attribute.iter().find(|a| a.name == name);
    found.map_or(default, |a| a.f)
}
