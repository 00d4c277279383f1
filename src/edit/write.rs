//! A model and its weights as files.
//!
//! Weights that lie in files beside the model stay there when the new model lies beside them too. Else they are copied
//! to one file beside the new model, as are weights inside of the model where it would pass the 2 GiB that the wire
//! format allows.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use lapidary_onnx::ModelFile;
use lapidary_onnx::proto::tensor_proto::DataLocation;
use lapidary_onnx::proto::{GraphProto, ModelProto, StringStringEntryProto, TensorProto};
use prost::Message;

use super::names::for_each_body;
use crate::files::temporary_beside;
use crate::{Error, Model, Options};

/// Offsets of weights are multiples of it, so that a reader can map them; ONNX's own tools do the same.
const ALIGNMENT: u64 = 4096;
/// Weights of fewer bytes stay in the model.
const SMALL: usize = 1024;
/// What the wire format allows, with room for the rest.
const MOST_INSIDE: usize = i32::MAX as usize - (1 << 20);

/// Which weights go into a file beside the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum External {
    /// Those that were in one, and more only where the model would be too big.
    AsNeeded,
    /// All but small ones.
    All,
}

/// A temporary file, removed if it is not published.
struct Temporary {
    at: PathBuf,
    published: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.at);
        }
    }
}

impl Temporary {
    fn beside(path: &Path) -> Temporary {
        Temporary {
            at: temporary_beside(path),
            published: false,
        }
    }

    fn publish(mut self, path: &Path) -> Result<(), Error> {
        fs::rename(&self.at, path).map_err(|error| Error::io("write", path, &error))?;
        self.published = true;
        Ok(())
    }
}

/// Writes a model that was made from `file`, and checks what was written before it takes its place.
pub fn write(
    file: &ModelFile,
    mut proto: ModelProto,
    path: &Path,
    external: External,
) -> Result<Vec<PathBuf>, Error> {
    let name = path
        .file_name()
        .and_then(|n| n.to_str())
        .ok_or_else(|| Error::Usage(format!("'{}' names no file", path.display())))?;
    let beside = path.with_file_name(format!("{name}.data"));
    let moves = !same_folder(file.path(), path);
    let out = external == External::All || proto.encoded_len() > MOST_INSIDE;
    let mut weights = None;
    let mut written = 0u64;
    let mut failed = None;
    let mut move_tensor = |tensor: &mut TensorProto| {
        let external = tensor.data_location == DataLocation::External as i32;
        let big = out && tensor.raw_data.len() >= SMALL;
        if failed.is_some() || !(big || (external && moves)) {
            return;
        }
        let mut go = || -> Result<(), Error> {
            let view = file.tensor_data(tensor)?;
            if external && view.bytes.len() < SMALL {
                tensor.raw_data = view.bytes.clone();
                tensor.external_data.clear();
                tensor.data_location = DataLocation::Default as i32;
                return Ok(());
            }
            if weights.is_none() {
                let temporary = Temporary::beside(&beside);
                let out = fs::File::create(&temporary.at);
                let out = out.map_err(|error| Error::io("write", &beside, &error))?;
                weights = Some((temporary, BufWriter::new(out)));
            }
            let Some((_, out)) = &mut weights else {
                return Ok(());
            };
            let padding = written.next_multiple_of(ALIGNMENT) - written;
            let zeros = vec![0; padding as usize];
            let put = out
                .write_all(&zeros)
                .and_then(|()| out.write_all(&view.bytes));
            put.map_err(|error| Error::io("write", &beside, &error))?;
            let offset = written + padding;
            written = offset + view.bytes.len() as u64;
            let entry = |key: &str, value: String| StringStringEntryProto {
                key: key.to_string(),
                value,
            };
            tensor.external_data = vec![
                entry("location", format!("{name}.data")),
                entry("offset", offset.to_string()),
                entry("length", view.bytes.len().to_string()),
            ];
            tensor.raw_data = Default::default();
            tensor.data_location = DataLocation::External as i32;
            Ok(())
        };
        if let Err(error) = go() {
            failed = Some(error);
        }
    };
    if let Some(graph) = &mut proto.graph {
        for_each_tensor(graph, &mut move_tensor);
    }
    if let Some(error) = failed {
        return Err(error);
    }
    file.verify_unchanged()?;

    // The model looks for its weights under their final name, so they take their place first; where the model then
    // fails, they are taken back.
    let mut made = Vec::new();
    if let Some((temporary, mut out)) = weights {
        out.flush()
            .map_err(|error| Error::io("write", &beside, &error))?;
        if beside.exists() {
            return Err(Error::Usage(format!(
                "'{}' would be overwritten by the model's weights (hint: another --output)",
                beside.display()
            )));
        }
        temporary.publish(&beside)?;
        made.push(beside.clone());
    }
    let finished = (|| {
        let temporary = Temporary::beside(path);
        fs::write(&temporary.at, proto.encode_to_vec())
            .map_err(|error| Error::io("write", path, &error))?;
        Model::load(&temporary.at)?.validate(&Options::default())?;
        temporary.publish(path)
    })();
    if let Err(error) = finished {
        for path in made {
            let _ = fs::remove_file(path);
        }
        return Err(error);
    }
    made.insert(0, path.to_path_buf());
    Ok(made)
}

fn same_folder(a: Option<&Path>, b: &Path) -> bool {
    let folder = |path: &Path| {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        parent.unwrap_or(Path::new(".")).canonicalize().ok()
    };
    a.and_then(folder).is_some_and(|a| folder(b) == Some(a))
}

/// Calls `f` with each tensor of a graph, of its nodes, and of the graphs in them.
fn for_each_tensor(graph: &mut GraphProto, f: &mut dyn FnMut(&mut TensorProto)) {
    fn own(graph: &mut GraphProto, f: &mut dyn FnMut(&mut TensorProto)) {
        graph.initializer.iter_mut().for_each(&mut *f);
        for sparse in &mut graph.sparse_initializer {
            let parts = sparse.values.iter_mut().chain(&mut sparse.indices);
            parts.for_each(&mut *f);
        }
        for attribute in graph.node.iter_mut().flat_map(|n| &mut n.attribute) {
            let tensors = attribute.t.iter_mut().chain(&mut attribute.tensors);
            tensors.for_each(&mut *f);
        }
    }
    own(graph, f);
    for_each_body(graph, &mut |body| own(body, f));
}
