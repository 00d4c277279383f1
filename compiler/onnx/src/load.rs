//! A model: its file mapped and decoded, with the data files beside it.
//!
//! In: a path, or bytes and a folder. Out: a [`ModelFile`], whose graph is there for certain and whose tensors' bytes
//! are views of the mapped file. What else is wrong with the model is for [`crate::checker`] to say.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use crate::external::DataFiles;
use crate::mapped::MappedFile;
use crate::mapped::Source;
use crate::proto::tensor_proto::DataLocation;
use crate::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use crate::tensor;
use crate::{OnnxError, TensorView};

/// A decoded model and its files.
///
/// It can be shared between threads; data files are mapped when a tensor first asks for them, each once.
#[derive(Debug)]
pub struct ModelFile {
    path: Option<PathBuf>,
    mapped: Option<MappedFile>,
    /// The bytes of a model that was given as such.
    given: Option<Bytes>,
    model: ModelProto,
    files: DataFiles,
}

impl ModelFile {
    /// Maps and decodes the model at `path`. External data is looked for in its folder.
    pub fn open(path: impl AsRef<Path>) -> Result<ModelFile, OnnxError> {
        let path = path.as_ref();
        let mapped = MappedFile::open(path)?;
        let model = decode(mapped.bytes().clone(), &|| format!("'{}'", path.display()));
        // What is wrong with a model that was cut short under the decoder is that.
        mapped.verify_unchanged()?;
        let model = model?;
        Ok(ModelFile {
            path: Some(path.to_path_buf()),
            mapped: Some(mapped),
            given: None,
            model,
            files: DataFiles::of_model(path),
        })
    }

    /// Decodes a model from memory. External data is looked for in `base_dir`.
    pub fn from_bytes(bytes: Bytes, base_dir: Option<&Path>) -> Result<ModelFile, OnnxError> {
        Ok(ModelFile {
            path: None,
            mapped: None,
            given: Some(bytes.clone()),
            model: decode(bytes, &|| "the model".to_string())?,
            files: DataFiles::in_folder(base_dir),
        })
    }

    /// Another model over the same files: one made from this. Its own file is not watched, since it has none.
    pub fn with_model(&self, model: ModelProto) -> ModelFile {
        ModelFile {
            path: self.path.clone(),
            mapped: None,
            given: None,
            model,
            files: self.files.again(),
        }
    }

    /// The model's path, if it was opened from one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The decoded model.
    pub fn model(&self) -> &ModelProto {
        &self.model
    }

    /// The model's graph.
    pub fn graph(&self) -> &GraphProto {
        self.model.graph.as_ref().expect(
            "`decode` lets no model without a graph pass, and `model` is never lent mutably",
        )
    }

    /// The elements of a tensor of this model: an initializer's, or an attribute's.
    ///
    /// Raw and external bytes are not copied; see [`TensorView`] for their form.
    pub fn tensor_data(&self, tensor: &TensorProto) -> Result<TensorView, OnnxError> {
        tensor::read(tensor, Some(&self.files))
    }

    /// Whether [`ModelFile::tensor_data`] would succeed, without reading a big tensor's bytes.
    pub fn validate_tensor(&self, tensor: &TensorProto) -> Result<(), OnnxError> {
        tensor::validate(tensor, Some(&self.files))
    }

    /// All files that the model is read from: its own first, then those of its tensors, by location. `None` for a model that
    /// was made from another ([`ModelFile::with_model`]), and where a data file cannot be opened.
    pub fn sources(&self) -> Option<Vec<Source>> {
        let own = match (&self.mapped, &self.given) {
            (Some(mapped), _) => mapped.source(None),
            (None, Some(bytes)) => Source {
                path: None,
                location: None,
                bytes: bytes.clone(),
                stamp: None,
            },
            (None, None) => return None,
        };
        let mut locations = BTreeSet::new();
        locations_of(self.graph(), &mut locations);
        for node in self.model.functions.iter().flat_map(|f| &f.node) {
            locations_in(node, &mut locations);
        }
        let mut all = vec![own];
        for location in locations {
            all.push(self.files.open(location).ok()?.source(Some(location)));
        }
        Some(all)
    }

    /// Fails if the model's file or a data file that is in use has another length than when it was mapped, or part
    /// of it was gone when it was read.
    ///
    /// To be called before much is read (past the end of a file that was cut short are zeros, or, without
    /// [`crate::watch_mappings`], a signal) and after, before what was made of it is used.
    pub fn verify_unchanged(&self) -> Result<(), OnnxError> {
        if let Some(mapped) = &self.mapped {
            mapped.verify_unchanged()?;
        }
        self.files.verify_unchanged()
    }
}

/// The data files that a graph's tensors lie in.
fn locations_of<'m>(graph: &'m GraphProto, into: &mut BTreeSet<&'m str>) {
    let sparse = graph.sparse_initializer.iter();
    let sparse = sparse.flat_map(|s| s.values.iter().chain(&s.indices));
    for tensor in graph.initializer.iter().chain(sparse) {
        location_of(tensor, into);
    }
    for node in &graph.node {
        locations_in(node, into);
    }
}

fn locations_in<'m>(node: &'m NodeProto, into: &mut BTreeSet<&'m str>) {
    for attribute in &node.attribute {
        for tensor in attribute.t.iter().chain(&attribute.tensors) {
            location_of(tensor, into);
        }
        let sparse = attribute
            .sparse_tensor
            .iter()
            .chain(&attribute.sparse_tensors);
        for tensor in sparse.flat_map(|s| s.values.iter().chain(&s.indices)) {
            location_of(tensor, into);
        }
        for body in attribute.g.iter().chain(&attribute.graphs) {
            locations_of(body, into);
        }
    }
}

fn location_of<'m>(tensor: &'m TensorProto, into: &mut BTreeSet<&'m str>) {
    if tensor.data_location == DataLocation::External as i32 {
        let entries = tensor.external_data.iter();
        let named = entries.filter(|entry| entry.key == "location");
        into.extend(named.map(|entry| entry.value.as_str()));
    }
}

fn decode(bytes: Bytes, what: &dyn Fn() -> String) -> Result<ModelProto, OnnxError> {
    if bytes.is_empty() {
        return Err(OnnxError::Empty { what: what() });
    }
    let hint = hint(&bytes);
    let model = ModelProto::decode(bytes).map_err(|source| OnnxError::Decode {
        what: what(),
        expected: "an ONNX model",
        source,
        hint,
    })?;
    if model.graph.is_none() {
        return Err(OnnxError::NoGraph { what: what(), hint });
    }
    Ok(model)
}

/// What a file that is no model most likely is.
fn hint(bytes: &[u8]) -> &'static str {
    if bytes.starts_with(b"version https://git-lfs") {
        "this is a Git LFS pointer: run `git lfs pull` to get the model"
    } else if bytes.get(4..8) == Some(b"ORTM") {
        "this is a model in the ORT format: use the .onnx file it was made from"
    } else if bytes.starts_with(b"PK\x03\x04") {
        "this is a zip archive, perhaps a PyTorch checkpoint: export it to ONNX"
    } else if bytes.starts_with(b"<") || bytes.starts_with(b"{") {
        "this is text, perhaps an error page saved by a download"
    } else {
        "the file may be cut short, damaged or of another format"
    }
}
