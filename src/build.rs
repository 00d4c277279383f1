//! For build scripts: a model is compiled while an application builds, and linked into it.
//!
//! ```no_run
//! // build.rs
//! fn main() -> Result<(), lapidary::Error> {
//!     lapidary::build::compile("model.onnx").out_name("digits").emit()
//! }
//! ```
//!
//! The application depends on `lapidary` among its build dependencies, and on `lapidary-runtime` alone when it runs.
//! `lapidary_runtime::include_model!("digits");` defines `struct Digits` there, with typed inputs and outputs.
//! docs/book/rust.md shows the whole.

use std::path::{Path, PathBuf};

use crate::model::symbol_name;
use crate::operator::Target;
use crate::{Cpu, Error, Model, Options, pipeline, target};

/// A model to be compiled by a build script.
#[must_use = "nothing is compiled before `emit`"]
pub struct Build {
    model: PathBuf,
    name: Option<String>,
    options: Options,
    settings: Vec<Setting>,
    fix_defaults: bool,
}

/// A setting in the command's words; its error is told when all is.
enum Setting {
    Dim(String),
    State(String),
}

/// Compiles the model at a path; relative to the package's folder.
pub fn compile(model: impl AsRef<Path>) -> Build {
    Build {
        model: model.as_ref().to_path_buf(),
        name: None,
        options: Options {
            cpu: Cpu::Multi,
            ..Options::default()
        },
        settings: Vec::new(),
        fix_defaults: false,
    }
}

impl Build {
    /// The model's name: that of the generated file and, in capitals, of the struct. Without it, the file's.
    pub fn out_name(mut self, name: &str) -> Build {
        self.name = Some(name.to_string());
        self
    }

    /// A dim in the command's words: `NAME=VALUE`, `NAME=?`, `NAME=V1,V2`.
    pub fn dim(mut self, setting: &str) -> Build {
        self.settings.push(Setting::Dim(setting.to_string()));
        self
    }

    /// A state in the command's words: `PAST=PRESENT`.
    pub fn state(mut self, setting: &str) -> Build {
        self.settings.push(Setting::State(setting.to_string()));
        self
    }

    /// The instructions that the code may use. The default is all levels, of which the best that the
    /// machine has is taken when the program runs.
    pub fn cpu(mut self, cpu: Cpu) -> Build {
        self.options.cpu = cpu;
        self
    }

    /// Makes constants of inputs that have a default.
    pub fn fix_defaults(mut self) -> Build {
        self.fix_defaults = true;
        self
    }

    /// Compiles the model into `OUT_DIR`, and tells cargo to link it and when to do so again. What is wrong with the model is
    /// told as errors of cargo, each of which names its node, beside being returned.
    pub fn emit(self) -> Result<(), Error> {
        let result = self.run();
        if let Err(error) = &result {
            for line in error.to_string().lines() {
                println!("cargo::error={line}");
            }
        }
        result
    }

    fn run(mut self) -> Result<(), Error> {
        println!("cargo::rerun-if-changed={}", self.model.display());
        for setting in std::mem::take(&mut self.settings) {
            match setting {
                Setting::Dim(text) => self.options.set_dim(&text)?,
                Setting::State(text) => self.options.set_state(&text)?,
            }
        }
        let folder = variable("OUT_DIR")?;
        let mut model = Model::load(&self.model)?;
        if self.fix_defaults {
            model.fix_defaults();
        }
        for source in model.file().sources().into_iter().flatten() {
            if let Some(path) = &source.path {
                println!("cargo::rerun-if-changed={}", path.display());
            }
        }
        self.options.target = Some(target::parse(&variable("TARGET")?)?);
        let name = match &self.name {
            Some(name) if symbol_name(name) == *name => name.clone(),
            Some(name) => {
                return Err(Error::Usage(format!(
                    "'{name}' is no name for a model (hint: letters, digits and underscores, like {})",
                    symbol_name(name)
                )));
            }
            None => model.name(),
        };
        let program = pipeline::program(&model, &self.options, Target::File)?;
        let graph = &program.graph;
        let outputs = graph.outputs.iter().map(|(_, v)| v);
        let containers = graph.inputs.iter().chain(outputs);
        if !graph.states.is_empty()
            && containers
                .into_iter()
                .any(|v| !graph.ty(*v).containers.is_empty())
        {
            return Err(Error::Unsupported(format!(
                "a binding of '{name}', which has states and takes or gives sequences or optionals (hint: leave out the states)"
            )));
        }
        let library = format!("lapidary_{name}");
        let archive = Path::new(&folder).join(format!("lib{library}.a"));
        let files = pipeline::prepare_alone(&program, &name, &archive, &self.options);
        let mut files = pipeline::sound(&model, files)?;
        // The weights lie beside the archive if they are too big for it.
        let weights = files.weights().map(Path::to_path_buf);
        let binding = lapidary_link::binding(&program.graph, &name, weights.as_deref());
        files.add(
            &Path::new(&folder).join(format!("{name}.rs")),
            binding.as_bytes(),
        )?;
        files.publish()?;
        println!("cargo::rustc-link-search=native={folder}");
        println!("cargo::rustc-link-lib=static={library}");
        Ok(())
    }
}

fn variable(name: &str) -> Result<String, Error> {
    std::env::var(name).map_err(|_| {
        Error::Usage(format!(
            "{name} is not set (hint: this is for build scripts, which cargo runs)"
        ))
    })
}
