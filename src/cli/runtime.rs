//! `lapidary runtime`: what objects without a runtime inside are linked with.

use std::path::PathBuf;

use clap::Args;
use lapidary::Error;
use lapidary::target::{self, Triple};

use super::common::{TargetOptions, print};

/// Writes the C runtime: compiled into an archive (.a) for a target, or its sources into a folder
#[derive(Args)]
pub struct Runtime {
    /// An archive (.a), or a folder for the sources and a script that compiles them
    #[arg(long, short, value_name = "FILE|FOLDER")]
    output: PathBuf,
    #[command(flatten)]
    target: TargetOptions,
}

impl Runtime {
    pub fn run(self) -> Result<(), Error> {
        let triple = self.target.triple()?;
        if self.output.extension().is_some_and(|e| e == "a") {
            let triple = triple.unwrap_or_else(Triple::host);
            target::write_runtime(&triple, self.target.cc.as_deref(), &self.output)?;
        } else if triple.is_some() || self.target.cc.is_some() {
            return Err(Error::Usage(format!(
                "sources are the same for every target, so '{}' takes neither --target nor --cc (hint: name an archive, \
                 .a, to have them compiled)",
                self.output.display()
            )));
        } else {
            target::write_runtime_sources(&self.output)?;
        }
        print(&format!("{}\n", self.output.display()))
    }
}
