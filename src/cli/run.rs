//! `lapidary run`: one run of a model or a compiled library.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use lapidary::files::{read_npz, read_tensor, write_file, write_npz};
use lapidary::random::Random;
use lapidary::{Error, Tensor, Value, ValueInfo};

use super::common::{CompileOptions, named, open, print, random_input, shape_for, summary};

/// Runs a model once: prints its outputs, or writes them to a file
#[derive(Args)]
pub struct Run {
    /// A model (.onnx), compiled into memory, or a compiled library (.so)
    model: PathBuf,
    /// An input from a file (.npy, .npz, .pb), or random; a .npz without NAME gives all inputs by their names
    #[arg(long = "input", short, value_name = "NAME=FILE|random")]
    inputs: Vec<String>,
    /// Writes the outputs: to one .npz, or to a .npy if there is one output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Seed of random inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Random integers are below this
    #[arg(long, default_value_t = 2, value_name = "BOUND")]
    random_below: u8,
    /// Threads; 0 is one for each processor
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Bytes that the run may hold, beside weights
    #[arg(long, value_name = "BYTES")]
    memory_limit: Option<u64>,
    /// Milliseconds that the run may take
    #[arg(long, value_name = "MS")]
    timeout: Option<u64>,
    /// Weights file of a compiled library, if it is not beside it
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    compile: CompileOptions,
}

impl Run {
    pub fn run(self) -> Result<(), Error> {
        let mut options = self.compile.options(self.threads)?;
        options.memory_limit = self.memory_limit;
        options.timeout = self.timeout.map(Duration::from_millis);
        options.weights = self.weights.clone();
        // Random inputs of a free dim take its `--dim` value; the code stays free to take any.
        let compiled = open(&self.model, &self.compile, &options)?;
        let inputs = self.values(compiled.inputs())?;
        let given = inputs
            .iter()
            .map(|(name, tensor)| (name.as_str(), Value::from(tensor)));
        let outputs = compiled.run(given)?;
        let named: Vec<(&str, &Tensor)> = outputs
            .iter()
            .map(|o| (o.name.as_str(), &o.tensor))
            .collect();
        match &self.output {
            Some(path) => write_outputs(path, &named),
            None => {
                for (name, tensor) in named {
                    print(&format!("{}\n", summary(name, tensor)))?;
                }
                Ok(())
            }
        }
    }

    fn values(&self, infos: &[ValueInfo]) -> Result<Vec<(String, Tensor)>, Error> {
        let mut values: Vec<(String, Tensor)> = Vec::new();
        let mut random = Random::new(self.seed);
        for text in &self.inputs {
            if text.ends_with(".npz") && !text.contains('=') {
                values.extend(read_npz(Path::new(text))?);
                continue;
            }
            let (name, source) = named(text, "NAME=FILE, NAME=random or FILE.npz")?;
            let info = infos.iter().find(|info| info.name == name).ok_or_else(|| {
                let names: Vec<&str> = infos.iter().map(|info| info.name.as_str()).collect();
                Error::Usage(format!(
                    "the model has no input '{name}' (hint: its inputs are {})",
                    names.join(", ")
                ))
            })?;
            let tensor = if source.as_os_str() == "random" {
                let shape = shape_for(info, &self.compile.dims)?;
                random_input(&mut random, info, &shape, self.random_below)?
            } else {
                read_tensor(&source, &name)?
            };
            values.push((name, tensor));
        }
        Ok(values)
    }
}

fn write_outputs(path: &Path, outputs: &[(&str, &Tensor)]) -> Result<(), Error> {
    match (path.extension().and_then(|e| e.to_str()), outputs) {
        (Some("npz"), _) => write_npz(path, outputs.iter().copied()),
        (Some("npy"), [(_, tensor)]) => {
            let bytes = lapidary::files::write_npy(tensor);
            write_file(path, |file| std::io::Write::write_all(file, &bytes))
        }
        (Some("npy"), _) => Err(Error::Usage(format!(
            "the model has {} outputs, a .npy file holds one (hint: use .npz)",
            outputs.len()
        ))),
        _ => Err(Error::Usage(format!(
            "'{}' is of no known format (hint: use .npz, or .npy for one output)",
            path.display()
        ))),
    }
}
