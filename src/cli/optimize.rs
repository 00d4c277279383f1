//! `lapidary optimize`: a model made smaller, as an ONNX file that any runtime takes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use lapidary::portable::{self, Opset, Outcome, Settings};
use lapidary::{Error, Model};

use super::common::{print, require_file};

/// Writes a smaller model that computes the same, as ONNX
#[derive(Args)]
pub struct Optimize {
    /// The model (.onnx)
    model: PathBuf,
    /// The model to write (.onnx)
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Puts the weights into a file beside the model
    #[arg(long)]
    external: bool,
    /// Keeps the model's opset (keep), or lifts it to this one; without, it rises where a newer operator helps
    #[arg(long, value_name = "N|keep")]
    opset: Option<String>,
}

impl Optimize {
    pub fn run(self) -> Result<(), Error> {
        require_file(&self.model)?;
        let settings = Settings {
            external: self.external,
            opset: self.opset()?,
        };
        let model = Model::load(&self.model)?;
        let (paths, outcome) = portable::optimize(&model, &settings, &self.output)?;
        print(&text(&outcome))?;
        for path in paths {
            let bytes = std::fs::metadata(&path).map_or(0, |m| m.len());
            print(&format!("{} ({bytes} bytes)\n", path.display()))?;
        }
        Ok(())
    }

    fn opset(&self) -> Result<Opset, Error> {
        match self.opset.as_deref() {
            None => Ok(Opset::AsNeeded),
            Some("keep") => Ok(Opset::Keep),
            Some(text) => text.parse().map(Opset::AtLeast).map_err(|_| {
                Error::Usage(format!(
                    "'{text}' is no opset (hint: --opset 20, or --opset keep)"
                ))
            }),
        }
    }
}

fn text(outcome: &Outcome) -> String {
    let (before, after) = outcome.nodes;
    let mut text = format!("nodes: {before} before, {after} after\n");
    let (before, after) = outcome.bytes;
    text += &format!("bytes of the model: {before} before, {after} after\n");
    let (before, after) = outcome.opset;
    if before != after {
        text += &format!("opset: {before} before, {after} after\n");
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (operator, _) in &outcome.raised {
        *counts.entry(operator).or_default() += 1;
    }
    for (operator, count) in counts {
        text += &format!("raised: {count} {operator}\n");
    }
    for remark in &outcome.remarks {
        text += &format!("remark: {remark}\n");
    }
    text
}
