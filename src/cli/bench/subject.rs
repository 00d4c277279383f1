//! What is measured: a model and its inputs.

use std::path::PathBuf;

use lapidary::case::{Case, DataSet};
use lapidary::operator::Target;
use lapidary::pipeline::{self, Work};
use lapidary::{Compiled, Error, Model, Options, Tensor};

use super::Bench;
use super::vary::Mode;
use crate::cli::check::TemporaryFolder;
use crate::cli::common::{is_library, random_inputs, require_cpu, require_file};

/// A model, or a compiled library, and the data set that gives its inputs.
pub struct Subject {
    /// The model or library.
    pub file: PathBuf,
    pub model: Option<Model>,
    pub set: Option<DataSet>,
}

/// Code that is ready, and what is known of its work.
pub struct Ready {
    pub compiled: Compiled,
    pub work: Option<Work>,
    /// The library that it was opened from, while it is needed.
    pub library: Option<(TemporaryFolder, PathBuf)>,
}

impl Subject {
    pub fn open(bench: &Bench) -> Result<Subject, Error> {
        Subject::load(bench)?.with_set(bench)
    }

    /// The model or library, and not yet a data set.
    pub fn load(bench: &Bench) -> Result<Subject, Error> {
        require_file(&bench.path)?;
        let file = if Case::is_case(&bench.path) {
            bench.path.join("model.onnx")
        } else {
            bench.path.clone()
        };
        let model = if is_library(&file) {
            None
        } else {
            Some(bench.compile.load(&file)?)
        };
        Ok(Subject {
            file,
            model,
            set: None,
        })
    }

    /// Reads the data set that is asked for, where the path is a folder with such.
    pub fn with_set(self, bench: &Bench) -> Result<Subject, Error> {
        let (file, model) = match self.model {
            Some(model) if Case::is_case(&bench.path) => (self.file, model),
            _ => return Ok(self),
        };
        let case = Case::around(model, &bench.path)?;
        let set = match (case.sets.get(bench.set), bench.set) {
            _ if bench.random => None,
            (Some(folder), _) => Some(case.read_set(folder)?),
            (None, 0) => None,
            (None, k) => {
                return Err(Error::Usage(format!(
                    "there is no data set {k}, '{}' has {}",
                    bench.path.display(),
                    case.sets.len()
                )));
            }
        };
        Ok(Subject {
            file,
            model: Some(case.model),
            set,
        })
    }

    /// Compiles into memory, or opens the library that the subject is.
    pub fn compile(&self, options: &Options) -> Result<Compiled, Error> {
        match &self.model {
            Some(model) => {
                require_cpu(options)?;
                model.compile(options)
            }
            None => Compiled::open_library(&self.file, options),
        }
    }

    /// As [`Subject::compile`], in this way and with what is known of the work.
    pub fn ready(&self, options: &Options, mode: Mode) -> Result<Ready, Error> {
        let Some(model) = &self.model else {
            return Ok(Ready {
                compiled: self.compile(options)?,
                work: None,
                library: None,
            });
        };
        require_cpu(options)?;
        let program = pipeline::program(model, options, Target::Memory)?;
        let work = Some(Work::of(&program));
        if mode == Mode::Jit {
            let code = pipeline::sound(model, pipeline::jit(program, options))?;
            return Ok(Ready {
                compiled: Compiled::from_code(code, options)?,
                work,
                library: None,
            });
        }
        drop(program);
        let folder = TemporaryFolder::new()?;
        let library = folder.path().join("libmodel.so");
        model.compile_library(&library, None, options)?;
        Ok(Ready {
            compiled: Compiled::open_library(&library, options)?,
            work,
            library: Some((folder, library)),
        })
    }

    /// The data set's inputs, or random ones in these dims.
    pub fn inputs(&self, compiled: &Compiled, dims: &[String]) -> Result<Vec<Tensor>, Error> {
        match &self.set {
            Some(set) => set.input_tensors(),
            None => random_inputs(self.model.as_ref(), compiled.inputs(), dims),
        }
    }
}
