//! A saved report, and how a run differs from it.

use std::path::Path;

use lapidary::{Error, files};
use serde_json::Value;

use super::report::Entry;
use super::statistics::{Verdict, spread, verdict};

/// A report that `--format json` or `--report FILE.json` wrote.
pub struct Saved {
    pub path: String,
    pub machine: String,
    pub model: String,
    entries: Vec<Old>,
}

struct Old {
    name: String,
    threads: u64,
    p50_ms: f64,
    spread: Option<f64>,
}

/// A variant of this run beside the saved one.
#[derive(Clone, Debug)]
pub struct Difference {
    pub name: String,
    pub threads: usize,
    pub old_ms: f64,
    pub new_ms: f64,
    /// New to old.
    pub ratio: f64,
    pub verdict: Verdict,
}

impl Saved {
    pub fn read(path: &Path) -> Result<Saved, Error> {
        let wrong = |what: &str| {
            Error::content(
                path,
                format!(
                    "{what}: no report of `lapidary bench` (hint: --report FILE.json writes one)"
                ),
            )
        };
        let json: Value = serde_json::from_slice(&files::read(path)?)
            .map_err(|error| wrong(&error.to_string()))?;
        let text = |key: &str| json[key].as_str().unwrap_or("").to_string();
        let list = json["entries"]
            .as_array()
            .ok_or_else(|| wrong("it has no entries"))?;
        let mut entries = Vec::new();
        for entry in list {
            let (Some(name), Some(threads), Some(p50_ms)) = (
                entry["name"].as_str(),
                entry["threads"].as_u64(),
                entry["p50_ms"].as_f64(),
            ) else {
                return Err(wrong("an entry lacks name, threads or p50_ms"));
            };
            let rounds = entry["rounds_ms"].as_array();
            let rounds: Option<Vec<f64>> =
                rounds.map(|r| r.iter().filter_map(Value::as_f64).collect());
            entries.push(Old {
                name: name.to_string(),
                threads,
                p50_ms,
                spread: rounds.and_then(|r| spread(&r)),
            });
        }
        Ok(Saved {
            path: path.display().to_string(),
            machine: text("machine"),
            model: text("model"),
            entries,
        })
    }

    /// Variants that both have.
    pub fn differences(&self, entries: &[Entry]) -> Vec<Difference> {
        let mut all = Vec::new();
        for new in entries {
            let same = |old: &&Old| old.name == new.name && old.threads == new.threads as u64;
            if let Some(old) = self.entries.iter().find(same) {
                let ratio = new.p50_ms / old.p50_ms;
                all.push(Difference {
                    name: new.name.clone(),
                    threads: new.threads,
                    old_ms: old.p50_ms,
                    new_ms: new.p50_ms,
                    ratio,
                    verdict: verdict(ratio, old.spread, new.spread),
                });
            }
        }
        all
    }

    /// What makes a comparison doubtful.
    pub fn warnings(&self, model: &str, machine: &str) -> Vec<String> {
        let mut all = Vec::new();
        if self.machine != machine {
            all.push(format!(
                "the saved report is of another machine: {}",
                self.machine
            ));
        }
        if self.model != model {
            all.push(format!(
                "the saved report is of another path: {}",
                self.model
            ));
        }
        all
    }
}
