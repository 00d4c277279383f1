//! `lapidary compile`: a model to a library, an archive or an object file, with its C header.

use std::path::{Path, PathBuf};

use clap::Args;
use lapidary::Error;

use super::common::{CompileOptions, CpuChoice, TargetOptions, print, require_file};

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
    /// Links an object or archive into the shared library: the kernels of --operators
    #[arg(long, value_name = "FILE")]
    link: Vec<PathBuf>,
    /// The runtime's archive for the target, as `lapidary runtime` makes it; it is compiled here if not given
    #[arg(long, value_name = "FILE")]
    runtime: Option<PathBuf>,
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    compile: CompileOptions,
}

impl Compile {
    pub fn run(mut self) -> Result<(), Error> {
        // What is shipped meets machines that are not this one.
        self.compile.cpu.get_or_insert(CpuChoice::Multi);
        require_file(&self.model)?;
        self.require_distinct()?;
        if self.compile.cache.is_some() {
            return Err(Error::Usage(
                "--cache keeps code that runs in memory; `compile` writes a file of its own"
                    .to_string(),
            ));
        }
        let mut options = self.compile.options(0)?;
        options.link = self.link.clone();
        options.target = self.target.triple()?;
        options.compiler = self.target.cc.clone();
        options.runtime = self.runtime.clone();
        for file in options.link.iter().chain(&options.runtime) {
            require_file(file)?;
        }
        let model = self.compile.load(&self.model)?;
        let made = model.compile_to(
            &self.output,
            self.weights.as_deref(),
            self.header.as_deref(),
            &options,
        )?;
        for path in made.files {
            let bytes = std::fs::metadata(&path).map_or(0, |m| m.len());
            print(&format!("{} ({} bytes)\n", path.display(), bytes))?;
        }
        if made.needs_runtime {
            eprintln!(
                "note: {} has no runtime inside: link it with the archive that `lapidary runtime` makes",
                self.output.display()
            );
        }
        Ok(())
    }

    /// One file must not be written over another of the same call, least of all over the model.
    fn require_distinct(&self) -> Result<(), Error> {
        let header = self.header.clone();
        let header = header.unwrap_or_else(|| self.output.with_extension("h"));
        let mut files = vec![("the model", place(&self.model))];
        if let Ok(target) = self.model.canonicalize() {
            // A link is read, what it leads to would be overwritten.
            files.push(("the model", target));
        }
        let outputs = [
            ("--output", Some(self.output.as_path())),
            ("--weights", self.weights.as_deref()),
            ("--header", Some(header.as_path())),
        ];
        for (role, path) in outputs {
            let Some(path) = path else { continue };
            let at = place(path);
            if let Some((other, _)) = files.iter().find(|(_, p)| *p == at) {
                return Err(Error::Usage(format!(
                    "{role} and {other} are the same file '{}' (hint: give each a path of its own)",
                    path.display()
                )));
            }
            files.push((role, at));
        }
        Ok(())
    }
}

/// The folder as it really is, and the name in it: equal for all ways to write a path.
fn place(path: &Path) -> PathBuf {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = parent.canonicalize().unwrap_or_else(|_| parent.into());
    folder.join(path.file_name().unwrap_or_default())
}
