//! A loaded ONNX model: described, checked, compiled.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lapidary_onnx::ModelFile;
use lapidary_onnx::proto::tensor_shape_proto::dimension;
use lapidary_onnx::proto::{ValueInfoProto, type_proto};
use lapidary_runtime::{Container, DType, Dim, Tensor, ValueInfo};

use crate::files::tensor_of_view;
use crate::operator::Target;
use crate::{Compiled, Error, Options, cache, pipeline};

/// An input or output as the model declares it, or why it is none that can be compiled.
type Declared = (String, Result<ValueInfo, String>);

/// What a compilation into files has made.
#[derive(Clone, Debug)]
pub struct Made {
    /// The files: the library or object, its weights if they are beside it, its header.
    pub files: Vec<PathBuf>,
    /// Whether a program that uses it must be linked with the runtime as well.
    pub needs_runtime: bool,
}

/// A loaded model.
#[derive(Debug)]
pub struct Model {
    file: ModelFile,
    inputs: Vec<Declared>,
    outputs: Vec<Declared>,
    fixed_defaults: bool,
}

impl Model {
    /// Loads a file; its weights are mapped, not read.
    pub fn load(path: impl AsRef<Path>) -> Result<Model, Error> {
        crate::guard::models();
        Ok(Model::from_file(ModelFile::open(path)?))
    }

    /// Decodes a model from memory; external data is looked for in `base_dir`.
    pub fn from_bytes(bytes: impl Into<Bytes>, base_dir: Option<&Path>) -> Result<Model, Error> {
        crate::guard::models();
        let file = ModelFile::from_bytes(bytes.into(), base_dir)?;
        Ok(Model::from_file(file))
    }

    fn from_file(file: ModelFile) -> Model {
        let graph = file.graph();
        let values: HashSet<&str> = graph
            .initializer
            .iter()
            .map(|tensor| tensor.name.as_str())
            .collect();
        // Before version 4 of the format every initializer had to be listed as an input; since then one that is
        // listed is a default.
        let constants = file.model().ir_version < 4;
        let inputs = graph
            .input
            .iter()
            .filter(|info| !constants || !values.contains(info.name.as_str()))
            .map(|info| {
                let (name, mut value) = declared(info);
                if let Ok(value) = &mut value {
                    value.has_default = values.contains(name.as_str());
                }
                (name, value)
            })
            .collect();
        let outputs = graph.output.iter().map(declared).collect();
        Model {
            file,
            inputs,
            outputs,
            fixed_defaults: false,
        }
    }

    /// Makes constants of the inputs that have a default: faster code, and no such inputs.
    pub fn fix_defaults(&mut self) {
        self.fixed_defaults = true;
        self.inputs
            .retain(|(_, value)| !value.as_ref().is_ok_and(|info| info.has_default));
    }

    /// Whether inputs with a default are constants.
    pub(crate) fn has_fixed_defaults(&self) -> bool {
        self.fixed_defaults
    }

    /// The file's stem, made fit for a symbol; `model` for one from memory.
    pub fn name(&self) -> String {
        let stem = self.file.path().and_then(Path::file_stem);
        let stem = stem.and_then(|s| s.to_str()).unwrap_or("model");
        symbol_name(stem)
    }

    /// The inputs that a run takes, as declared (kinds that are not compiled left out).
    pub fn inputs(&self) -> Vec<ValueInfo> {
        tensors(&self.inputs)
    }

    /// The outputs, as declared; their dims are hints, never constraints.
    pub fn outputs(&self) -> Vec<ValueInfo> {
        tensors(&self.outputs)
    }

    /// The names of all inputs that a run takes.
    pub fn input_names(&self) -> Vec<&str> {
        self.inputs.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The names of all outputs.
    pub fn output_names(&self) -> Vec<String> {
        self.outputs.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The value of an input that a run leaves out, if it has one.
    pub fn default_of(&self, input: &str) -> Result<Option<Tensor>, Error> {
        let info = self.inputs.iter().find(|(name, _)| name == input);
        let Some((
            _,
            Ok(ValueInfo {
                has_default: true, ..
            }),
        )) = info
        else {
            return Ok(None);
        };
        let tensors = &self.file.graph().initializer;
        let Some(tensor) = tensors.iter().find(|tensor| tensor.name == input) else {
            return Ok(None);
        };
        let view = self.file.tensor_data(tensor)?;
        let tensor = tensor_of_view(&view);
        self.file.verify_unchanged()?;
        tensor
            .map(Some)
            .map_err(|e| Error::Unsupported(format!("'{input}': {e}")))
    }

    /// Fails if an input or output is of a kind that cannot cross the interface.
    pub fn require_values(&self) -> Result<(), Error> {
        for (role, list) in [("input", &self.inputs), ("output", &self.outputs)] {
            for (name, value) in list {
                if let Err(kind) = value {
                    return Err(Error::Unsupported(format!(
                        "{role} '{name}' is {kind}, which is not supported (hint: split the model before it)"
                    )));
                }
            }
        }
        Ok(())
    }

    /// The decoded file.
    pub fn file(&self) -> &ModelFile {
        &self.file
    }

    /// Everything that stands in the way of compiling: all faults of the file, or all nodes that cannot be imported.
    pub fn check(&self, options: &Options) -> Result<(), Error> {
        pipeline::faultless(self, options, false)?;
        self.require_values()?;
        pipeline::import(self, options, Target::Memory)?;
        Ok(())
    }

    /// As [`Model::check`], and as strict as ONNX's own checker with shape inference: types of inputs and outputs must
    /// have a shape, and shapes that the model states must be those that follow from its nodes.
    pub fn validate(&self, options: &Options) -> Result<(), Error> {
        pipeline::validate(self, options)
    }

    /// Compiles into memory.
    pub fn compile(&self, options: &Options) -> Result<Compiled, Error> {
        if let Some(folder) = &options.cache {
            let code = cache::compile(self, options, folder)?;
            return Compiled::from_code(code, options);
        }
        let program =
            pipeline::warming_up(options, || pipeline::program(self, options, Target::Memory))?;
        let code = pipeline::sound(self, pipeline::jit(program, options))?;
        Compiled::from_code(code, options)
    }

    /// Compiles into a shared library, with its weights inside or in a file.
    pub fn compile_library(
        &self,
        library: &Path,
        weights: Option<&Path>,
        options: &Options,
    ) -> Result<(), Error> {
        let program = pipeline::program(self, options, Target::File)?;
        let name = artifact_name(library);
        let files = pipeline::prepare(&program, &name, library, weights, options);
        pipeline::sound(self, files)?.publish()?;
        Ok(())
    }

    /// Compiles into a file (`.so`, `.a`, `.o`) and writes its C header, beside it if no other place is given. The
    /// model's name is the file's. Where one file cannot be written, none is, and older files of these names stay as they
    /// were.
    pub fn compile_to(
        &self,
        output: &Path,
        weights: Option<&Path>,
        header: Option<&Path>,
        options: &Options,
    ) -> Result<Made, Error> {
        let program = pipeline::program(self, options, Target::File)?;
        let name = artifact_name(output);
        let files = pipeline::prepare(&program, &name, output, weights, options);
        let mut files = pipeline::sound(self, files)?;
        let header = header.map_or_else(|| output.with_extension("h"), Path::to_path_buf);
        let text = lapidary_link::header(&program.graph, &name);
        files.add(&header, text.as_bytes())?;
        let written = files.publish()?;
        let files = [Some(written.path), written.weights, Some(header)];
        Ok(Made {
            files: files.into_iter().flatten().collect(),
            needs_runtime: written.needs_runtime,
        })
    }
}

/// `libresnet.so` holds the model `resnet`.
fn artifact_name(path: &Path) -> String {
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("model");
    symbol_name(
        stem.strip_prefix("lib")
            .filter(|rest| !rest.is_empty())
            .unwrap_or(stem),
    )
}

/// A name that C takes as part of an identifier.
pub fn symbol_name(text: &str) -> String {
    let mut name: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert_str(0, "model_");
    }
    name
}

fn tensors(list: &[Declared]) -> Vec<ValueInfo> {
    list.iter()
        .filter_map(|(_, value)| value.as_ref().ok().cloned())
        .collect()
}

fn declared(info: &ValueInfoProto) -> Declared {
    (info.name.clone(), value_info(info))
}

fn value_info(info: &ValueInfoProto) -> Result<ValueInfo, String> {
    let mut containers = Vec::new();
    let mut at = info.r#type.as_ref();
    let tensor = loop {
        let none = || "of no type".to_string();
        let ty = at.ok_or_else(none)?;
        at = match ty.value.as_ref().ok_or_else(none)? {
            type_proto::Value::TensorType(tensor) => break tensor,
            type_proto::Value::SequenceType(sequence) => {
                containers.push(Container::Sequence);
                sequence.elem_type.as_deref()
            }
            type_proto::Value::OptionalType(optional) => {
                containers.push(Container::Optional);
                optional.elem_type.as_deref()
            }
            type_proto::Value::MapType(map) => {
                let key = DType::from_onnx(map.key_type);
                let key = key.ok_or_else(|| format!("a map with keys of type {}", map.key_type))?;
                containers.push(Container::Map(key));
                map.value_type.as_deref()
            }
            type_proto::Value::SparseTensorType(_) => return Err("a sparse tensor".into()),
            type_proto::Value::OpaqueType(_) => return Err("opaque".into()),
        };
    };
    let Some(dtype) = DType::from_onnx(tensor.elem_type) else {
        return Err(format!("a tensor of element type {}", tensor.elem_type));
    };
    let shape = tensor.shape.as_ref().filter(|_| containers.is_empty());
    let dims = shape.map(|shape| {
        let dims = shape.dim.iter().map(|dim| match &dim.value {
            Some(dimension::Value::DimValue(value)) => Dim {
                name: None,
                value: usize::try_from(*value).ok(),
            },
            Some(dimension::Value::DimParam(name)) => Dim {
                name: Some(name.clone()).filter(|name| !name.is_empty()),
                value: None,
            },
            None => Dim {
                name: None,
                value: None,
            },
        });
        dims.collect()
    });
    Ok(ValueInfo {
        name: info.name.clone(),
        dtype,
        dims,
        containers,
        has_default: false,
    })
}
