//! A model made smaller and written back as ONNX: what the passes find out that holds on every machine.
//!
//! In: a [`Model`] and [`Settings`]. Out: a model file that the checker has passed, and [`Outcome`]: what became of it.
//! Nodes are changed one by one and otherwise stay as they are in the source, so that whatever the importer
//! understands can be written back; names of inputs, outputs, values and nodes survive as far as their bearers do.
//! docs/export.md tells what each step relies on.
//!
//! ```
//! use lapidary::{Model, portable};
//!
//! let model = Model::load("tests/models/gpt2/model.onnx")?;
//! let (small, outcome) = portable::optimized(&model, &portable::Settings::default())?;
//! let (before, after) = outcome.nodes;
//! assert!(after * 4 < before);
//! # Ok::<(), lapidary::Error>(())
//! ```
//!
//! Layout, fusion groups and everything else that depends on this compiler or on a machine has no place here.

mod affine;
mod draft;
mod facts;
mod fold;
mod pattern;
mod raise;
mod shapes;
mod upgrade;

use std::path::{Path, PathBuf};

use lapidary_onnx::checker::domain;
use lapidary_onnx::proto::ModelProto;
use prost::Message;

use crate::edit::write::{self, External};
use crate::{Error, Model, Options, pipeline};
use draft::Draft;
use facts::Facts;

/// How a model is written.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Puts weights into a file beside the model, also where the model is small enough to hold them.
    pub external: bool,
    /// What becomes of the model's opset.
    pub opset: Opset,
}

/// What becomes of a model's opset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opset {
    /// It rises where an operator of a newer one stands for several nodes, as far as that needs.
    #[default]
    AsNeeded,
    /// It stays, and no operator of a newer one is used.
    Keep,
    /// It rises to this one, if it is not there yet; a model of which a node cannot is refused.
    AtLeast(i64),
}

/// What became of a model.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Nodes before and after, those of graphs inside of nodes not counted.
    pub nodes: (usize, usize),
    /// The model's opset before and after.
    pub opset: (i64, i64),
    /// Bytes of the model without weights in files of their own, before and after.
    pub bytes: (u64, u64),
    /// Operators that stand for several nodes now, with the name of the first of each.
    pub raised: Vec<(&'static str, String)>,
    /// Why something was left as it was.
    pub remarks: Vec<String>,
}

/// Optimises a model and writes it to `path`. Gives the paths of what was written, the model first, and what became of it.
/// Where something cannot be written, nothing is.
pub fn optimize(
    model: &Model,
    settings: &Settings,
    path: &Path,
) -> Result<(Vec<PathBuf>, Outcome), Error> {
    let (proto, outcome) = optimized(model, settings)?;
    let external = match settings.external {
        true => External::All,
        false => External::AsNeeded,
    };
    Ok((write::write(model.file(), proto, path, external)?, outcome))
}

/// The optimised model, not written; its external data is that of the source.
pub fn optimized(model: &Model, settings: &Settings) -> Result<(ModelProto, Outcome), Error> {
    pipeline::faultless(model, &Options::default(), false)?;
    let source = model.file().model();
    let mut outcome = Outcome {
        bytes: (source.encoded_len() as u64, 0),
        ..Outcome::default()
    };
    let facts = pipeline::sound(model, Facts::of(model))?;
    let mut draft = Draft::of(source, facts)?;
    outcome.nodes.0 = draft.graph.node.len();
    outcome.opset.0 = draft.opset;
    if let Opset::AtLeast(wanted) = settings.opset {
        upgrade::upgrade(&mut draft, wanted).map_err(|reason| {
            Error::Unsupported(format!("opset {wanted} is out of reach: {reason}"))
        })?;
    }
    fold::fold(&mut draft);
    draft.drop_unread();
    shapes::simplify(&mut draft);
    draft.drop_unread();
    affine::into_convolutions(&mut draft);
    draft.drop_unread();
    raise::raise(&mut draft, settings, &mut outcome);
    draft.drop_unread();
    outcome.nodes.1 = draft.graph.node.len();
    outcome.opset.1 = draft.opset;
    let proto = draft.finish(source);
    outcome.bytes.1 = proto.encoded_len() as u64;
    model.file().verify_unchanged()?;
    Ok((proto, outcome))
}

/// The version of ONNX's own operators that a model imports.
fn opset(model: &ModelProto) -> i64 {
    let own = |o: &&lapidary_onnx::proto::OperatorSetIdProto| domain(&o.domain).is_empty();
    model.opset_import.iter().find(own).map_or(0, |o| o.version)
}
