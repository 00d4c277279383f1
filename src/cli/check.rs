//! `lapidary check`: is a model sound, and are its results right?

use std::path::{Path, PathBuf};

use clap::Args;
use lapidary::case::{Case, DataSet, WrongOutput};
use lapidary::{Compiled, Error, Model, Options, OwnedValue, bisect};

use super::common::{CompileOptions, CpuChoice, print, require_cpu, require_file};

/// Checks a model, or the results of a folder with a model and data sets
#[derive(Args)]
pub struct Check {
    /// A model (.onnx), or a folder with model.onnx and test_data_set_*/{input,output}_N.pb
    path: PathBuf,
    /// Compiles to a library, loads it and runs that
    #[arg(long)]
    aot: bool,
    /// Frees every dim of every input
    #[arg(long)]
    symbolic: bool,
    /// On a wrong result, names the first node whose value is wrong
    #[arg(long)]
    bisect: bool,
    /// Threads; 0 is one for each processor
    #[arg(long, default_value_t = 0)]
    threads: usize,
    #[command(flatten)]
    compile: CompileOptions,
}

impl Check {
    pub fn run(mut self) -> Result<(), Error> {
        require_file(&self.path)?;
        if self.aot {
            // As `compile` does.
            self.compile.cpu.get_or_insert(CpuChoice::Multi);
        }
        let mut options = self.compile.options(self.threads)?;
        options.symbolic = self.symbolic;
        if Case::is_case(&self.path) {
            require_cpu(&options)?;
            return self.case(&options);
        }
        if self.path.is_dir() {
            return Err(Error::Usage(format!(
                "'{}' has no model.onnx in it",
                self.path.display()
            )));
        }
        let model = self.compile.load(&self.path)?;
        model.validate(&options)?;
        print(&format!("{}: sound\n", self.path.display()))
    }

    fn case(&self, options: &Options) -> Result<(), Error> {
        let case = self.compile.open_case(&self.path)?;
        case.model.check(options)?;
        let compiled = self.compiled(&case.model, options)?;
        let mut context = compiled.context()?;
        let names = case.model.output_names();
        if case.sets.is_empty() {
            print(&format!(
                "{}: compiled; no data sets\n",
                self.path.display()
            ))?;
        }
        let mut wrong = Vec::new();
        for folder in &case.sets {
            let set = case.read_set(folder)?;
            let mut found = context.run_values(&set.inputs)?;
            // A data set gives states their value before the run, and expects the one after it.
            let mut states: Vec<(usize, usize)> = context
                .states()
                .iter()
                .map(|state| (state.output, state.input))
                .collect();
            states.sort_unstable();
            for (output, input) in states {
                let name = context.inputs()[input].name.clone();
                let value = context.state(&name)?;
                found.insert(output.min(found.len()), OwnedValue::Tensor(value));
            }
            match set.judge(&found, &names, case.tolerance) {
                Ok(greatest) => print(&format!(
                    "{}: right, greatest difference {greatest:.3e}\n",
                    set.name
                ))?,
                Err(outputs) => {
                    wrong.push(describe(&set, &outputs));
                    if self.bisect {
                        // That the result is wrong stands, whether its cause is found or not.
                        let line = bisect::bisect(&case.model, &set, case.tolerance, options);
                        wrong.push(line.unwrap_or_else(|error| error.to_string()));
                    }
                }
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Error::Wrong(wrong.join("\n")))
        }
    }

    fn compiled(&self, model: &Model, options: &Options) -> Result<Compiled, Error> {
        if !self.aot {
            return model.compile(options);
        }
        let folder = TemporaryFolder::new()?;
        let library = folder.path().join("libmodel.so");
        model.compile_library(&library, None, options)?;
        // An open library needs its file no more (nor its weights, once a context has mapped them).
        Compiled::open_library(&library, options)
    }
}

fn describe(set: &DataSet, outputs: &[WrongOutput]) -> String {
    let lines: Vec<String> = outputs
        .iter()
        .map(|o| format!("{}: output '{}': {}", set.name, o.name, o.mismatch))
        .collect();
    lines.join("\n")
}

/// A folder that is removed when it is dropped.
pub struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    pub fn new() -> Result<Self, Error> {
        let base = std::env::temp_dir();
        for attempt in 0..1000 {
            let path = base.join(format!("lapidary-{}-{attempt}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(TemporaryFolder(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create", &path, &error)),
            }
        }
        Err(Error::Other(format!(
            "no temporary folder could be made in '{}'",
            base.display()
        )))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // What is left behind lies among temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
