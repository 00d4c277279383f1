//! Test cases: a model with inputs and the outputs that are expected of them.
//!
//! In: a folder as the ONNX backend suite has it (`model.onnx`, `test_data_set_<k>/{input,output}_<n>.pb`, optional
//! `data.json` with `rtol` and `atol`), or the same files as bytes. Out: tensors in the order of the model's inputs
//! and outputs, and [`DataSet::judge`] over what a run gave.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use lapidary_runtime::{OwnedValue, Tensor, ValueInfo};

use crate::compare::{Mismatch, Tolerance, compare_values};
use crate::files::{decode_value, read};
use crate::{Error, Model};

/// One set of inputs and expected outputs.
#[derive(Clone, Debug)]
pub struct DataSet {
    /// What reports call it.
    pub name: String,
    /// In the order of the model's inputs.
    pub inputs: Vec<OwnedValue>,
    /// In the order of the model's outputs.
    pub outputs: Vec<OwnedValue>,
}

/// An output that is wrong.
#[derive(Clone, Debug)]
pub struct WrongOutput {
    /// Its ONNX name.
    pub name: String,
    /// How.
    pub mismatch: Mismatch,
}

impl DataSet {
    /// Decodes value files. Each names its input or stands at its place.
    pub fn decode(
        model: &Model,
        name: &str,
        inputs: &[(Bytes, PathBuf)],
        outputs: &[(Bytes, PathBuf)],
    ) -> Result<DataSet, Error> {
        let names = model.input_names();
        model.require_values()?;
        let (input_infos, output_infos) = (model.inputs(), model.outputs());
        let kind = |infos: &[ValueInfo], index: usize| {
            let info = infos.get(index);
            info.map_or(Vec::new(), |info| info.containers.clone())
        };
        let mut slots: Vec<Option<OwnedValue>> = vec![None; names.len()];
        for (index, (bytes, path)) in inputs.iter().enumerate() {
            let (label, tensor) = decode_value(bytes, path, &kind(&input_infos, index))?;
            let at = names.iter().position(|n| *n == label).unwrap_or(index);
            match slots.get_mut(at) {
                Some(slot) => *slot = Some(tensor),
                None => {
                    return Err(Error::content(
                        path,
                        format!("the model has {} inputs", names.len()),
                    ));
                }
            }
        }
        for (name, slot) in names.iter().zip(&mut slots) {
            if slot.is_none() {
                *slot = model.default_of(name)?.map(OwnedValue::Tensor);
            }
        }
        let missing = names.iter().zip(&slots).find(|(_, slot)| slot.is_none());
        if let Some((input, _)) = missing {
            return Err(Error::Invalid(format!(
                "data set '{name}' has no value for input '{input}'"
            )));
        }
        let outputs = outputs
            .iter()
            .enumerate()
            .map(|(index, (bytes, path))| {
                Ok(decode_value(bytes, path, &kind(&output_infos, index))?.1)
            })
            .collect::<Result<_, Error>>()?;
        Ok(DataSet {
            name: name.to_string(),
            inputs: slots.into_iter().flatten().collect(),
            outputs,
        })
    }

    /// The inputs, if all are tensors.
    pub fn input_tensors(&self) -> Result<Vec<Tensor>, Error> {
        let each = self.inputs.iter().map(|value| {
            value.tensor().cloned().ok_or_else(|| {
                let kind = value.kind_name();
                Error::Unsupported(format!("an input that is a {kind}, where only tensors go"))
            })
        });
        each.collect()
    }

    /// The expected outputs, if all are tensors.
    pub fn output_tensors(&self) -> Option<Vec<Tensor>> {
        self.outputs.iter().map(|v| v.tensor().cloned()).collect()
    }

    /// As [`DataSet::judge`], for a run on tensors.
    pub fn judge_tensors(
        &self,
        found: &[Tensor],
        names: &[String],
        tolerance: Tolerance,
    ) -> Result<f64, Vec<WrongOutput>> {
        let found: Vec<OwnedValue> = found.iter().cloned().map(OwnedValue::Tensor).collect();
        self.judge(&found, names, tolerance)
    }

    /// Compares what a run gave; the greatest absolute difference, or all outputs that are wrong.
    pub fn judge(
        &self,
        found: &[OwnedValue],
        names: &[String],
        tolerance: Tolerance,
    ) -> Result<f64, Vec<WrongOutput>> {
        let mut greatest = 0f64;
        let mut wrong = Vec::new();
        if found.len() != self.outputs.len() {
            wrong.push(WrongOutput {
                name: "outputs".to_string(),
                mismatch: Mismatch::Count {
                    expected: self.outputs.len(),
                    found: found.len(),
                },
            });
        }
        for (index, (expected, found)) in self.outputs.iter().zip(found).enumerate() {
            match compare_values(expected, found, tolerance) {
                Ok(difference) => greatest = greatest.max(difference),
                Err(mismatch) => wrong.push(WrongOutput {
                    name: names.get(index).cloned().unwrap_or_default(),
                    mismatch,
                }),
            }
        }
        if wrong.is_empty() {
            Ok(greatest)
        } else {
            Err(wrong)
        }
    }
}

/// A folder with a model and data sets.
pub struct Case {
    /// The model.
    pub model: Model,
    /// How far results may be from those that are expected.
    pub tolerance: Tolerance,
    /// The folders of the data sets, by number.
    pub sets: Vec<PathBuf>,
}

impl Case {
    /// Whether a path is such a folder.
    pub fn is_case(path: &Path) -> bool {
        path.is_dir() && path.join("model.onnx").exists()
    }

    /// Opens the folder; data sets are read one at a time, with [`Case::read_set`].
    pub fn open(folder: &Path) -> Result<Case, Error> {
        Case::around(Model::load(folder.join("model.onnx"))?, folder)
    }

    /// What else is in the folder of a model.
    pub fn around(model: Model, folder: &Path) -> Result<Case, Error> {
        let tolerance = read_tolerance(&folder.join("data.json"))?;
        let entries = std::fs::read_dir(folder).map_err(|e| Error::io("read", folder, &e))?;
        let mut sets = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| Error::io("read", folder, &e))?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
            if let Some(number) = name.strip_prefix("test_data_set_") {
                sets.push((number.parse().unwrap_or(u64::MAX), path));
            }
        }
        sets.sort();
        Ok(Case {
            model,
            tolerance,
            sets: sets.into_iter().map(|(_, path)| path).collect(),
        })
    }

    /// Reads one data set.
    pub fn read_set(&self, folder: &Path) -> Result<DataSet, Error> {
        let name = folder.file_name().and_then(|n| n.to_str()).unwrap_or("");
        let files = |stem: &str| {
            let mut files = Vec::new();
            loop {
                let path = folder.join(format!("{stem}_{}.pb", files.len()));
                if !path.exists() {
                    return Ok::<_, Error>(files);
                }
                files.push((Bytes::from(read(&path)?), path));
            }
        };
        DataSet::decode(&self.model, name, &files("input")?, &files("output")?)
    }
}

/// The tolerance in a `data.json`; the default where there is none.
fn read_tolerance(path: &Path) -> Result<Tolerance, Error> {
    let mut tolerance = Tolerance::default();
    if !path.exists() {
        return Ok(tolerance);
    }
    let json: serde_json::Value = serde_json::from_slice(&read(path)?)
        .map_err(|error| Error::content(path, error.to_string()))?;
    for (key, value) in [("rtol", &mut tolerance.rtol), ("atol", &mut tolerance.atol)] {
        if let Some(found) = json.get(key) {
            *value = found.as_f64().filter(|v| *v >= 0.0).ok_or_else(|| {
                Error::content(path, format!("'{key}' is {found}, expected a number"))
            })?;
        }
    }
    Ok(tolerance)
}
