//! What is known of each value of a model, by its ONNX name.
//!
//! The model is imported with every value of its graph as an output, and the canonical passes run over that. They keep
//! outputs, so afterwards each name still has its value: names of one value are equal in every run, and a constant's
//! name is that constant.

use std::collections::{HashMap, HashSet};

use lapidary_graph::{DType, Dim, Graph, NodeData, TensorData, ValueId};
use lapidary_import::ImportOptions;
use lapidary_onnx::proto::{TypeProto, ValueInfoProto};

use crate::edit::tensor_type;
use crate::{Error, Model};

pub struct Facts {
    pub graph: Graph,
    values: HashMap<String, ValueId>,
    /// Constants that steps have made.
    made: HashMap<String, TensorData>,
}

impl Facts {
    pub fn of(model: &Model) -> Result<Facts, Error> {
        let mut proto = model.file().model().clone();
        let none = || Error::Invalid("the model has no graph".to_string());
        let graph = proto.graph.as_mut().ok_or_else(none)?;
        let inputs = graph.input.iter().map(|v| v.name.clone());
        let weights = graph.initializer.iter().map(|t| t.name.clone());
        let results = graph.node.iter().flat_map(|n| n.output.iter().cloned());
        let mut met = HashSet::new();
        let names: Vec<String> = inputs
            .chain(weights)
            .chain(results)
            .filter(|name| !name.is_empty() && met.insert(name.clone()))
            .collect();
        graph.output = names
            .into_iter()
            .map(|name| ValueInfoProto {
                name,
                ..ValueInfoProto::default()
            })
            .collect();
        // What the model says of its values are hints, and may be wrong where its outputs are not read.
        graph.value_info.clear();
        let file = model.file().with_model(proto);
        let mut graph = lapidary_import::import(&file, &ImportOptions::default())?;
        lapidary_passes::canonicalize(&mut graph).map_err(|e| Error::stage("passes", &e))?;
        let values = graph.outputs.iter().cloned().collect();
        Ok(Facts {
            graph,
            values,
            made: HashMap::new(),
        })
    }

    pub fn value(&self, name: &str) -> Option<ValueId> {
        self.values.get(name).copied()
    }

    /// The constant of a name.
    pub fn constant(&self, name: &str) -> Option<&TensorData> {
        self.made
            .get(name)
            .or_else(|| self.graph.constant(self.value(name)?))
    }

    /// The node that makes a value.
    pub fn producer(&self, value: ValueId) -> Option<&NodeData> {
        Some(&self.graph.nodes[self.graph.producer(value)?])
    }

    /// The dims of a tensor whose rank is known.
    pub fn dims(&self, name: &str) -> Option<Vec<Dim>> {
        if let Some(made) = self.made.get(name) {
            return Some(made.dims.iter().map(|d| Dim::Const(*d)).collect());
        }
        let ty = self.graph.ty(self.value(name)?);
        ty.shape.clone().filter(|_| ty.is_tensor())
    }

    /// The element type of a tensor.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        if let Some(made) = self.made.get(name) {
            return Some(made.dtype);
        }
        let ty = self.graph.ty(self.value(name)?);
        ty.is_tensor().then_some(ty.dtype)
    }

    /// The type of a tensor as ONNX states it.
    pub fn tensor_type(&self, name: &str) -> Option<TypeProto> {
        let at = self.graph.outputs.iter().position(|(own, _)| own == name)?;
        let (_, value) = self.graph.outputs.get(at)?;
        tensor_type(&self.graph, *value, self.graph.output_dims(at))
    }

    /// Notes a new constant.
    pub fn add(&mut self, name: &str, data: TensorData) {
        self.made.insert(name.to_string(), data);
    }
}
