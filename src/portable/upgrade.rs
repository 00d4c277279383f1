//! A graph of an older opset as one of a newer.
//!
//! Most versions of an operator only take more types than the one before, and a node stays as it is. Where a form or a
//! meaning changed, [`adapt`] rewrites the node; what it cannot rewrite refuses the whole, and the graph stays as it was.
//! Known from opset 7 to 20.

use lapidary_graph::{DType, TensorData};
use lapidary_onnx::checker::domain;
use lapidary_onnx::proto::{GraphProto, NodeProto};
use lapidary_onnx::schema::{self, Lookup};

use super::draft::{Draft, int, tensor};
use super::raise::{integer, text};

const OLDEST: i64 = 7;
const NEWEST: i64 = 20;

/// Lifts a draft to opset `to`, or says why not.
pub fn upgrade(draft: &mut Draft, to: i64) -> Result<(), String> {
    let from = draft.opset;
    if from >= to {
        return Ok(());
    }
    if from < OLDEST || to > NEWEST {
        return Err(format!("a model of opset {from} cannot be lifted to it"));
    }
    if draft.has_functions {
        return Err(
            "the model has functions of its own, which would stay at its opset".to_string(),
        );
    }
    let before = draft.graph.clone();
    let mut step = Step { draft, from, to };
    let mut nodes = std::mem::take(&mut step.draft.graph.node);
    let mut made = Vec::new();
    let result = nodes
        .iter_mut()
        .try_for_each(|node| step.node(node, &mut made, true));
    draft.graph.node = nodes;
    draft
        .graph
        .initializer
        .extend(made.iter().map(|(name, data)| tensor(name, data)));
    match result {
        Ok(()) => {
            for (name, data) in made {
                draft.facts.add(&name, data);
            }
            draft.opset = to;
            Ok(())
        }
        Err(reason) => {
            draft.graph = before;
            Err(reason)
        }
    }
}

struct Step<'a> {
    draft: &'a mut Draft,
    from: i64,
    to: i64,
}

/// Weights that a graph gets.
type Made = Vec<(String, TensorData)>;

impl Step<'_> {
    fn body(&mut self, body: &mut GraphProto) -> Result<(), String> {
        let mut made = Vec::new();
        for node in &mut body.node {
            self.node(node, &mut made, false)?;
        }
        let weights = made.iter().map(|(name, data)| tensor(name, data));
        body.initializer.extend(weights);
        Ok(())
    }

    /// `outer`: the node is one of the model's own graph, whose values are known.
    fn node(&mut self, node: &mut NodeProto, made: &mut Made, outer: bool) -> Result<(), String> {
        for attribute in &mut node.attribute {
            for body in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                self.body(body)?;
            }
        }
        if !domain(&node.domain).is_empty() {
            return Ok(());
        }
        let named = |reason: &str| {
            let name = match node.name.is_empty() {
                true => node.output.first().cloned().unwrap_or_default(),
                false => node.name.clone(),
            };
            format!("node '{name}' ({}) {reason}", node.op_type)
        };
        let refused = named("keeps the model's opset: it has changed its meaning since");
        let unknown = named("is not an operator of that opset");
        self.adapt(node, made, outer).ok_or(refused)?;
        fits(node, self.to).then_some(()).ok_or(unknown)
    }

    fn crosses(&self, version: i64) -> bool {
        self.from < version && version <= self.to
    }

    /// Rewrites one node; `None` if that cannot be done.
    fn adapt(&mut self, node: &mut NodeProto, made: &mut Made, outer: bool) -> Option<()> {
        match node.op_type.as_str() {
            "Squeeze" | "Unsqueeze" | "ReduceSum" if self.crosses(13) => {
                self.ints_to_input(node, made, "axes", 1);
            }
            "ReduceMax" | "ReduceMin" | "ReduceMean" | "ReduceProd" | "ReduceL1" | "ReduceL2"
            | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceSumSquare"
                if self.crosses(18) =>
            {
                self.ints_to_input(node, made, "axes", 1);
            }
            "Split" => {
                if self.crosses(13) {
                    self.ints_to_input(node, made, "split", 1);
                }
                let sized = node.input.get(1).is_some_and(|name| !name.is_empty());
                if self.crosses(18) && !sized {
                    let parts = node.output.len() as i64;
                    node.attribute.push(integer("num_outputs", parts));
                }
            }
            "Clip" if self.crosses(11) => {
                for (place, name) in ["min", "max"].iter().enumerate() {
                    self.float_to_input(node, made, outer, name, place + 1)?;
                }
            }
            "Pad" if self.crosses(11) => {
                self.ints_to_input(node, made, "pads", 1);
                self.float_to_input(node, made, outer, "value", 2)?;
            }
            "Slice" if self.crosses(10) => {
                for (place, name) in ["starts", "ends", "axes"].iter().enumerate() {
                    self.ints_to_input(node, made, name, place + 1);
                }
            }
            "TopK" if self.crosses(10) => {
                let k = take(node, "k")?.i;
                self.input(node, made, "k", 1, TensorData::from_i64(vec![1], &[k]));
            }
            // In inference the ratio plays no part.
            "Dropout" if self.crosses(12) => {
                take(node, "ratio");
            }
            "Softmax" | "LogSoftmax" | "Hardmax" if self.crosses(13) => {
                // It went over all axes from this one on; over the last alone it means the same.
                let axis = int(node, "axis", 1);
                let rank = outer.then(|| self.draft.facts.dims(node.input.first()?))?;
                let last = axis == -1 || rank.is_some_and(|dims| axis + 1 == dims.len() as i64);
                last.then_some(())?;
                take(node, "axis");
                node.attribute.push(integer("axis", -1));
            }
            "BatchNormalization" => {
                let spatial = take(node, "spatial").is_none_or(|a| a.i == 1);
                let plain = node.output.iter().skip(1).all(String::is_empty);
                (spatial && (plain || !self.crosses(14))).then_some(())?;
                node.output
                    .truncate(if plain { 1 } else { node.output.len() });
            }
            "Upsample" if self.crosses(10) => {
                if let Some(scales) = take(node, "scales") {
                    let dims = vec![scales.floats.len() as i64];
                    let data = TensorData::from_f32(dims, &scales.floats);
                    self.input(node, made, "scales", 1, data);
                }
                resize(node);
            }
            "Resize" if self.crosses(11) => resize(node),
            "Scatter" if self.crosses(11) => node.op_type = "ScatterElements".to_string(),
            "RoiAlign" if self.crosses(16) && !has(node, "coordinate_transformation_mode") => {
                let mode = text("coordinate_transformation_mode", "output_half_pixel");
                node.attribute.push(mode);
            }
            "GridSample" if self.crosses(20) => {
                for attribute in node.attribute.iter_mut().filter(|a| a.name == "mode") {
                    match &attribute.s[..] {
                        b"bilinear" => attribute.s = b"linear".to_vec().into(),
                        b"bicubic" => attribute.s = b"cubic".to_vec().into(),
                        _ => {}
                    }
                }
            }
            "Scan" if self.crosses(9) => return None,
            "DFT" if self.crosses(20) => return None,
            _ => {}
        }
        Some(())
    }

    /// Makes an input of an attribute that is a list of integers.
    fn ints_to_input(&mut self, node: &mut NodeProto, made: &mut Made, name: &str, place: usize) {
        if let Some(attribute) = take(node, name) {
            let data = TensorData::from_i64(vec![attribute.ints.len() as i64], &attribute.ints);
            self.input(node, made, name, place, data);
        }
    }

    /// Makes an input of the node's type of an attribute that is a float.
    fn float_to_input(
        &mut self,
        node: &mut NodeProto,
        made: &mut Made,
        outer: bool,
        name: &str,
        place: usize,
    ) -> Option<()> {
        let Some(attribute) = take(node, name) else {
            return Some(());
        };
        let dtype = self.draft.facts.dtype(node.input.first()?);
        (outer && dtype == Some(DType::F32)).then_some(())?;
        let data = TensorData::from_f32(Vec::new(), &[attribute.f]);
        self.input(node, made, name, place, data);
        Some(())
    }

    fn input(
        &mut self,
        node: &mut NodeProto,
        made: &mut Made,
        name: &str,
        place: usize,
        data: TensorData,
    ) {
        let owner = node.output.first().cloned().unwrap_or_default();
        let name = self.draft.fresh(&format!("{owner}_{name}"));
        if node.input.len() <= place {
            node.input.resize(place + 1, String::new());
        }
        if let Some(slot) = node.input.get_mut(place) {
            slot.clone_from(&name);
        }
        made.push((name, data));
    }
}

/// A node of opset 10 and before that scales an image.
fn resize(node: &mut NodeProto) {
    node.op_type = "Resize".to_string();
    node.input.insert(1.min(node.input.len()), String::new());
    node.attribute
        .push(text("coordinate_transformation_mode", "asymmetric"));
    node.attribute.push(text("nearest_mode", "floor"));
}

fn has(node: &NodeProto, name: &str) -> bool {
    node.attribute.iter().any(|a| a.name == name)
}

/// Takes an attribute away.
fn take(node: &mut NodeProto, name: &str) -> Option<lapidary_onnx::proto::AttributeProto> {
    let at = node.attribute.iter().position(|a| a.name == name)?;
    Some(node.attribute.remove(at))
}

/// Whether a node has the form of its operator at a version.
fn fits(node: &NodeProto, version: i64) -> bool {
    let Lookup::Found(schema) = schema::look_up("", &node.op_type, version) else {
        return false;
    };
    let (least, most) = schema::counts(&schema.inputs);
    let known = |name: &str| schema.open || schema.attribute(name).is_some();
    (least..=most).contains(&node.input.len()) && node.attribute.iter().all(|a| known(&a.name))
}
