//! `lapidary compile`: a model to a library, an archive or an object file, with its C header.

use std::path::PathBuf;

use clap::Args;
use lapidary::Error;

use super::common::{CompileOptions, print, require_file};

/// Compiles a model to a file
#[derive(Args)]
pub struct Compile {
    /// The model (.onnx)
    model: PathBuf,
    /// What to write: a shared library (.so), an archive (.a) or an object file (.o)
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Puts the weights into a file of their own; it must lie beside the library when that is used
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Where to write the C header; beside the output if not given
    #[arg(long, value_name = "FILE")]
    header: Option<PathBuf>,
    #[command(flatten)]
    compile: CompileOptions,
}

impl Compile {
    pub fn run(self) -> Result<(), Error> {
        require_file(&self.model)?;
        let options = self.compile.options(0)?;
        let model = self.compile.load(&self.model)?;
        let made = model.compile_to(
            &self.output,
            self.weights.as_deref(),
            self.header.as_deref(),
            &options,
        )?;
        for path in made {
            let bytes = std::fs::metadata(&path).map_or(0, |m| m.len());
            print(&format!("{} ({} bytes)\n", path.display(), bytes))?;
        }
        Ok(())
    }
}
