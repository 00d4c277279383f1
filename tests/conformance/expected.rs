//! The lists of cases that are expected to fail, and what a run may differ in: nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use lapidary::compare::{Tolerance, compare_values};
use lapidary::{Error, OwnedValue};

use crate::suite::Suite;
use crate::workers::Outcome;

const DRAWN: &str = "numbers of NumPy's generator";

/// Why cases of a name are expected to fail, whatever the code does.
const REASONS: &[(&str, &str)] = &[
    ("/test_training_dropout_zero_ratio", ""),
    ("/test_bernoulli", DRAWN),
    ("/test_training_dropout", DRAWN),
    ("/test_image_decoder", "pictures in files"),
    ("/test_gradient", "gradients"),
];

fn reason(name: &str) -> &'static str {
    let known = REASONS.iter().find(|(part, _)| name.contains(part));
    known.map_or("", |(_, reason)| reason)
}

/// The category of a failure in counts and lists.
pub fn category(name: &str, status: &str) -> String {
    match reason(name) {
        "" => status.to_string(),
        reason => format!("{status}, {reason}"),
    }
}

/// Compares what a case gives with what it should. Of drawn numbers only type and shape are looked at, and they are
/// wrong always, even where a few bits agree by chance.
pub fn compare(
    name: &str,
    expected: &OwnedValue,
    found: &OwnedValue,
    tolerance: Tolerance,
) -> Result<(), Error> {
    if let (DRAWN, Some(e), Some(f)) = (reason(name), expected.tensor(), found.tensor()) {
        let same = (e.dtype(), e.shape()) == (f.dtype(), f.shape());
        return Err(match same {
            true => Error::Wrong(DRAWN.to_string()),
            false => Error::Other(format!("drawn: {:?}, expected {:?}", f.shape(), e.shape())),
        });
    }
    let compared = compare_values(expected, found, tolerance);
    compared
        .map(|_| ())
        .map_err(|m| Error::Wrong(m.to_string()))
}

/// A wrong value with the place where it is; other errors stay what they are.
pub fn placed(error: Error, place: &str) -> Error {
    match error {
        Error::Wrong(text) => Error::Wrong(format!("{place}: {text}")),
        other => other,
    }
}

/// The names of a list, and how each fails.
pub fn read(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, how) = line.split_once('#').unwrap_or((line, ""));
            (name.trim().to_string(), how.trim().to_string())
        })
        .collect()
}

/// What is not as the list says: lost passes, passes that the list does not expect, other failures, names of no case.
pub fn surprises(
    suite: &Suite,
    results: &BTreeMap<usize, Outcome>,
    passes: impl Fn(&str) -> bool,
    expected: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, result) in results {
        let Outcome { status, reason } = result;
        let name = &suite.cases[*index].name;
        match (passes(status), expected.get(name)) {
            (true, Some(_)) => lines.push(format!("{name}: passes, but stands in the list")),
            (false, None) => lines.push(format!("{name}: {status}: {reason}")),
            (false, Some(how)) if category(name, status) != *how => {
                lines.push(format!("{name}: {status}, expected {how}: {reason}"));
            }
            _ => {}
        }
    }
    let known: BTreeSet<&str> = suite.cases.iter().map(|c| c.name.as_str()).collect();
    for name in expected.keys().filter(|n| !known.contains(n.as_str())) {
        lines.push(format!("{name}: stands in the list, but not in the suite"));
    }
    lines
}

/// Writes a list. Cases that did not run keep their place in it.
pub fn write(
    path: &Path,
    suite: &Suite,
    results: &BTreeMap<usize, Outcome>,
    passes: impl Fn(&str) -> bool,
    before: &BTreeMap<String, String>,
) {
    let mut lines: BTreeMap<&str, String> = BTreeMap::new();
    for (index, case) in suite.cases.iter().enumerate() {
        match results.get(&index) {
            Some(result) if !passes(&result.status) => {
                lines.insert(&case.name, category(&case.name, &result.status));
            }
            None => {
                let stays = before.get(&case.name);
                lines.extend(stays.map(|how| (case.name.as_str(), how.clone())));
            }
            _ => {}
        }
    }
    let mut text = String::from("# Cases that fail, and how. The list may only shrink.\n");
    for (name, status) in lines {
        text.push_str(&format!("{name}  # {status}\n"));
    }
    std::fs::write(path, text).expect("the list can be written");
}
