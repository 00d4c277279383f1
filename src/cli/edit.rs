//! `lapidary edit`: a model with other names, other dims of its inputs, or a part of one, as an ONNX file.

use std::path::PathBuf;

use clap::Args;
use lapidary::edit::{self, Edit as Changes};
use lapidary::{Error, Model};

use super::common::{print, require_file};

/// Renames inputs and outputs, fixes or frees dims, cuts out a part
#[derive(Args)]
pub struct Edit {
    /// The model (.onnx)
    model: PathBuf,
    /// The model to write (.onnx)
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Gives an input or output another name
    #[arg(long, value_name = "OLD=NEW")]
    rename: Vec<String>,
    /// Sets a dim of an input (INPUT.AXIS, or the model's name of a dim): a size, a name, or ? for a free one
    #[arg(long, value_name = "NAME=VALUE")]
    dim: Vec<String>,
    /// Cuts out what lies behind this value, which becomes an input
    #[arg(long, value_name = "VALUE")]
    from: Vec<String>,
    /// Cuts out what this value needs, which becomes an output
    #[arg(long, value_name = "VALUE")]
    to: Vec<String>,
}

impl Edit {
    pub fn run(self) -> Result<(), Error> {
        require_file(&self.model)?;
        let mut changes = Changes {
            from: self.from,
            to: self.to,
            ..Changes::default()
        };
        for text in &self.dim {
            changes.set_dim(text)?;
        }
        for text in &self.rename {
            changes.set_name(text)?;
        }
        if changes.is_empty() {
            return Err(Error::Usage(
                "nothing is to change (hint: --rename, --dim, --from, --to)".to_string(),
            ));
        }
        let model = Model::load(&self.model)?;
        for path in edit::edit(&model, &changes, &self.output)? {
            let bytes = std::fs::metadata(&path).map_or(0, |m| m.len());
            print(&format!("{} ({bytes} bytes)\n", path.display()))?;
        }
        Ok(())
    }
}
