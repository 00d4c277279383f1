//! Models changed at their edges: inputs and outputs renamed, dims of inputs fixed or freed, a part cut out.
//!
//! In: a [`Model`] and an [`Edit`]. Out: a model file that the checker has passed, its weights where they were
//! or in a file beside it. Nodes are never rewritten, only left out; the opset, functions and names inside stay.
//!
//! Names in an edit are those of the model as it is. The part is cut out first, then dims are set, then names change.

mod cut;
pub(crate) mod names;
pub(crate) mod write;

use std::path::{Path, PathBuf};

use lapidary_graph::{Dim, Graph};
use lapidary_import::ImportOptions;
use lapidary_onnx::ModelFile;
use lapidary_onnx::proto::tensor_shape_proto::{Dimension, dimension};
use lapidary_onnx::proto::{GraphProto, ModelProto, TensorShapeProto, TypeProto, type_proto};

use crate::{Error, Model, Options, pipeline};
use write::External;

/// What a dim of an input becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewDim {
    /// This size and no other.
    Fixed(i64),
    /// Free, with a name; dims of one name are equal.
    Named(String),
    /// Free, without a name.
    Free,
}

/// What is to change. The default changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// Values that become the inputs; empty: the inputs as they are, as far as the outputs need them.
    pub from: Vec<String>,
    /// Values that become the outputs; empty: the outputs as they are.
    pub to: Vec<String>,
    /// Dims of inputs, by `input.axis` or by the model's name of a dim.
    pub dims: Vec<(String, NewDim)>,
    /// Inputs and outputs, and what they are called from now on.
    pub names: Vec<(String, String)>,
}

impl Edit {
    /// Adds a dim in the command's words: `NAME=4`, `NAME=batch`, `NAME=?`.
    pub fn set_dim(&mut self, text: &str) -> Result<(), Error> {
        let bad = || {
            Error::Usage(format!(
                "'{text}' is no setting of a dim (hint: INPUT.AXIS=4, INPUT.AXIS=batch or INPUT.AXIS=?)"
            ))
        };
        let (name, value) = text.rsplit_once('=').ok_or_else(bad)?;
        if name.is_empty() || value.is_empty() {
            return Err(bad());
        }
        let dim = match value.parse::<i64>() {
            Ok(size) if size >= 0 => NewDim::Fixed(size),
            Ok(_) => return Err(bad()),
            Err(_) if value == "?" => NewDim::Free,
            Err(_) => NewDim::Named(value.to_string()),
        };
        self.dims.push((name.to_string(), dim));
        Ok(())
    }

    /// Adds a new name in the command's words: `OLD=NEW`.
    pub fn set_name(&mut self, text: &str) -> Result<(), Error> {
        match text.rsplit_once('=') {
            Some((old, new)) if !old.is_empty() && !new.is_empty() => {
                self.names.push((old.to_string(), new.to_string()));
                Ok(())
            }
            _ => Err(Error::Usage(format!(
                "'{text}' renames nothing (hint: OLD=NEW)"
            ))),
        }
    }

    /// Whether it leaves a model as it is.
    pub fn is_empty(&self) -> bool {
        self.from.is_empty() && self.to.is_empty() && self.dims.is_empty() && self.names.is_empty()
    }
}

/// Edits a model and writes it to `path`. Gives the paths of what was written: the model, and the file of its weights
/// if it has one of its own. Weights in files of the model's folder stay there if `path` lies in it too; others go to
/// a file beside `path`. Where something cannot be written, nothing is.
pub fn edit(model: &Model, edit: &Edit, path: &Path) -> Result<Vec<PathBuf>, Error> {
    let options = Options::default();
    pipeline::faultless(model, &options, false)?;
    let mut proto = model.file().model().clone();
    if !edit.from.is_empty() || !edit.to.is_empty() {
        cut::cut(model, &mut proto, &edit.from, &edit.to)?;
    }
    if !edit.dims.is_empty() {
        set_dims(graph(&mut proto)?, &edit.dims)?;
    }
    if !edit.dims.is_empty() || !edit.from.is_empty() {
        // What the model says of values inside, and of its outputs, was true for other inputs.
        forget_shapes(graph(&mut proto)?);
        let file = model.file().with_model(proto.clone());
        let typed = lapidary_import::import(&file, &ImportOptions::default())?;
        set_outputs(graph(&mut proto)?, &typed);
    }
    names::rename(graph(&mut proto)?, &edit.names)?;
    write::write(model.file(), proto, path, External::AsNeeded)
}

fn graph(proto: &mut ModelProto) -> Result<&mut GraphProto, Error> {
    let none = || Error::Invalid("the model has no graph".to_string());
    proto.graph.as_mut().ok_or_else(none)
}

fn set_dims(graph: &mut GraphProto, dims: &[(String, NewDim)]) -> Result<(), Error> {
    for (name, new) in dims {
        let mut found = false;
        for input in &mut graph.input {
            let Some(shape) = input.r#type.as_mut().and_then(shape_mut) else {
                continue;
            };
            for (axis, dim) in shape.dim.iter_mut().enumerate() {
                let named = matches!(&dim.value, Some(dimension::Value::DimParam(p)) if p == name);
                if named || *name == format!("{}.{axis}", input.name) {
                    dim.value = value(new);
                    found = true;
                }
            }
        }
        if !found {
            return Err(Error::Usage(format!(
                "no input has a dim '{name}' (hint: {})",
                dims_of(graph)
            )));
        }
    }
    Ok(())
}

fn value(new: &NewDim) -> Option<dimension::Value> {
    match new {
        NewDim::Fixed(size) => Some(dimension::Value::DimValue(*size)),
        NewDim::Named(name) => Some(dimension::Value::DimParam(name.clone())),
        NewDim::Free => None,
    }
}

/// All dims of the inputs, as an edit may name them.
fn dims_of(graph: &GraphProto) -> String {
    let mut all = Vec::new();
    for input in &graph.input {
        let mut ty = input.r#type.clone();
        let Some(shape) = ty.as_mut().and_then(shape_mut) else {
            continue;
        };
        for (axis, dim) in shape.dim.iter().enumerate() {
            let text = match &dim.value {
                Some(dimension::Value::DimValue(size)) => format!("={size}"),
                Some(dimension::Value::DimParam(name)) if !name.is_empty() => format!("={name}"),
                _ => String::new(),
            };
            all.push(format!("{}.{axis}{text}", input.name));
        }
    }
    match all.is_empty() {
        true => "none has dims".to_string(),
        false => format!("there are {}", all.join(", ")),
    }
}

fn shape_mut(ty: &mut TypeProto) -> Option<&mut TensorShapeProto> {
    match ty.value.as_mut()? {
        type_proto::Value::TensorType(tensor) => tensor.shape.as_mut(),
        _ => None,
    }
}

/// Takes away what is said of values inside of a graph and of the graphs in its nodes.
fn forget_shapes(graph: &mut GraphProto) {
    graph.value_info.clear();
    names::for_each_body(graph, &mut |body| {
        body.value_info.clear();
        for output in &mut body.output {
            if let Some(TypeProto {
                value: Some(type_proto::Value::TensorType(tensor)),
                ..
            }) = &mut output.r#type
            {
                tensor.shape = None;
            }
        }
    });
}

/// States the types of the outputs as they follow from the inputs.
fn set_outputs(graph: &mut GraphProto, typed: &Graph) {
    for (i, output) in graph.output.iter_mut().enumerate() {
        let Some((_, v)) = typed.outputs.get(i) else {
            continue;
        };
        if let Some(ty) = tensor_type(typed, *v, typed.output_dims(i)) {
            output.r#type = Some(ty);
        }
    }
}

/// The ONNX type of a tensor of the importer's graph; `None` for what is no tensor.
pub(crate) fn tensor_type(
    typed: &Graph,
    v: lapidary_graph::ValueId,
    dims: &[Dim],
) -> Option<TypeProto> {
    let ty = typed.ty(v);
    let shape = ty.shape.as_ref().map(|_| TensorShapeProto {
        dim: dims.iter().map(|d| dimension_of(typed, d)).collect(),
    });
    ty.is_tensor().then(|| TypeProto {
        value: Some(type_proto::Value::TensorType(type_proto::Tensor {
            elem_type: ty.dtype as i32,
            shape,
        })),
        ..TypeProto::default()
    })
}

fn dimension_of(typed: &Graph, dim: &Dim) -> Dimension {
    Dimension {
        value: Some(match dim.as_const() {
            Some(size) => dimension::Value::DimValue(size),
            None => dimension::Value::DimParam(typed.dim_text(dim)),
        }),
        ..Dimension::default()
    }
}

/// The types of values of a model, by name: a model whose outputs they are is imported.
fn types_of(file: &ModelFile, names: &[String]) -> Result<Vec<Option<TypeProto>>, Error> {
    let mut proto = file.model().clone();
    let graph = graph(&mut proto)?;
    graph.output = names
        .iter()
        .map(|name| lapidary_onnx::proto::ValueInfoProto {
            name: name.clone(),
            ..Default::default()
        })
        .collect();
    let typed = lapidary_import::import(&file.with_model(proto), &ImportOptions::default())?;
    let types = typed.outputs.iter().enumerate();
    Ok(types
        .map(|(i, (_, v))| tensor_type(&typed, *v, typed.output_dims(i)))
        .collect())
}
