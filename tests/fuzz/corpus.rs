//! The models that mutants are made of: the cases of the ONNX backend suite, those of onnxruntime's operators and of
//! ai.onnx.ml, the small graphs of everyday architectures and the models with control flow.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use lapidary::case::Case;
use lapidary::compare::Tolerance;
use lapidary::random::Random;
use lapidary_onnx::proto::ModelProto;
use prost::Message;

use super::inputs::Named;
use crate::suite::Suite;

/// Larger models are not mutated.
const MOST_BYTES: usize = 1 << 18;

/// A model with inputs for it.
pub struct Seed {
    pub name: String,
    pub bytes: Bytes,
    pub tolerance: Tolerance,
    origin: Origin,
}

enum Origin {
    Suite { case: usize },
    Folder(PathBuf),
}

/// All seeds.
pub struct Corpus {
    suite: Suite,
    /// Cases of the suite, then folders.
    seeds: Vec<Seed>,
    /// How many are cases of the suite.
    cases: usize,
    /// Domain, name, numbers of inputs and outputs of the nodes in all seeds.
    pub operators: Vec<(String, String, usize, usize)>,
}

impl Corpus {
    /// Reads the seeds from the repository.
    pub fn load() -> Corpus {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let fixtures = [
            "conformance/suite.bin",
            "conformance/old_forms.bin",
            "contrib/suite.bin",
            "ml/suite.bin",
        ];
        let suite = Suite::load(&fixtures.map(|name| tests.join(name)));
        let mut seeds: Vec<Seed> = Vec::new();
        for (case, entry) in suite.cases.iter().enumerate() {
            let bytes = suite.bytes(entry);
            if bytes.len() <= MOST_BYTES {
                seeds.push(Seed {
                    name: entry.name.clone(),
                    bytes,
                    tolerance: entry.tolerance,
                    origin: Origin::Suite { case },
                });
            }
        }
        let cases = seeds.len();
        let mut folders = Vec::new();
        for kind in ["models", "control_flow"] {
            let entries = std::fs::read_dir(tests.join(kind)).expect("the folder is there");
            folders.extend(entries.map(|e| e.expect("an entry").path()));
        }
        folders.sort();
        for folder in folders {
            let bytes = std::fs::read(folder.join("model.onnx")).expect("a model");
            if bytes.len() <= MOST_BYTES {
                seeds.push(Seed {
                    name: folder
                        .file_name()
                        .map_or(String::new(), |n| n.display().to_string()),
                    bytes: bytes.into(),
                    tolerance: Tolerance::default(),
                    origin: Origin::Folder(folder),
                });
            }
        }
        let mut operators = Vec::new();
        for seed in &seeds {
            let model = ModelProto::decode(seed.bytes.clone()).expect("a seed is a model");
            for node in model.graph.iter().flat_map(|g| &g.node) {
                let (domain, name) = (node.domain.clone(), node.op_type.clone());
                operators.push((domain, name, node.input.len(), node.output.len()));
            }
        }
        operators.sort();
        operators.dedup();
        Corpus {
            suite,
            seeds,
            cases,
            operators,
        }
    }

    /// One of them: mostly a case of the suite.
    pub fn choose(&self, random: &mut Random) -> &Seed {
        let others = self.seeds.len() - self.cases;
        let at = match random.below(6) {
            0 => self.cases + random.below(others as u64) as usize,
            _ => random.below(self.cases as u64) as usize,
        };
        &self.seeds[at]
    }

    /// Inputs of a seed, by name.
    pub fn inputs(&self, seed: &Seed) -> Named {
        let (model, set) = match &seed.origin {
            Origin::Suite { case } => {
                let case = &self.suite.cases[*case];
                let model = self.suite.model(case).expect("a seed is a model");
                let sets = self.suite.sets(case, &model).unwrap_or_default();
                (model, sets.into_iter().next())
            }
            Origin::Folder(folder) => {
                let case = Case::open(folder).expect("a seed is a case");
                let set = case.sets.first().and_then(|s| case.read_set(s).ok());
                (case.model, set)
            }
        };
        let names = model.input_names().into_iter().map(str::to_string);
        names
            .zip(set.map(|s| s.inputs).unwrap_or_default())
            .collect()
    }
}
