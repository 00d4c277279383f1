//! Cases as libraries: compiled here, loaded and run by a C program that has no compiler in it.

use lapidary::{Error, Options, target};

use crate::loader::{self, Loader};
use crate::suite::{Case, Suite};
use crate::workers::Outcome;

/// Of one worker.
pub struct Libraries {
    machine: loader::Machine,
    options: Options,
    loader: Option<Loader>,
    number: usize,
}

impl Libraries {
    /// Libraries for this machine.
    pub fn here() -> Libraries {
        Libraries {
            machine: loader::HERE,
            options: crate::options(false),
            loader: None,
            number: 0,
        }
    }

    /// Libraries for AArch64, run by an emulator.
    pub fn aarch64() -> Libraries {
        let mut options = crate::options(false);
        options.target = target::parse("aarch64-linux").ok();
        Libraries {
            machine: loader::AARCH64,
            options,
            ..Libraries::here()
        }
    }

    fn start(&mut self) -> Result<Loader, Error> {
        let name = format!("lapidary-conformance-{}", std::process::id());
        let loader = Loader::start(&self.machine, std::env::temp_dir().join(name))?;
        if let Some(target) = &self.options.target {
            // Once, not for each case.
            let runtime = loader.folder.join("runtime.a");
            target::write_runtime(target, None, &runtime)?;
            self.options.runtime = Some(runtime);
        }
        Ok(loader)
    }

    pub fn run(&mut self, suite: &Suite, case: &Case) -> Result<Outcome, Error> {
        let model = suite.model(case)?;
        let mut loader = match self.loader.take() {
            Some(loader) => loader,
            None => self.start()?,
        };
        self.number += 1;
        // A name of its own: a library that could not be unloaded must not stand for the next.
        let name = format!("case{}", self.number);
        let path = loader.folder.join(format!("lib{name}.so"));
        let compiled = model.compile_library(&path, None, &self.options);
        let result = compiled.and_then(|()| {
            for set in suite.sets(case, &model)? {
                let found = loader
                    .run(&path, &name, &set.inputs, &model.outputs())
                    .map_err(Error::Other)?;
                crate::judge(case, &set, &found, &model.output_names())?;
            }
            Ok(Outcome::new("pass", "-"))
        });
        let _ = std::fs::remove_file(&path);
        if !loader.is_gone() {
            // One that crashed is not asked again.
            self.loader = Some(loader);
        }
        result
    }
}
