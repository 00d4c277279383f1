//! The table of shapes and axes against what the importer makes: every fixture, with the sizes that its model states and
//! with all of them free. `docs/shapes.md` tells what the table is.

#[path = "conformance/suite.rs"]
#[allow(dead_code)] // other programs read all of a case
mod suite;

use std::collections::BTreeSet;
use std::path::PathBuf;

use lapidary_import::{ErrorKind, ImportOptions, import};
use lapidary_onnx::ModelFile;
use lapidary_onnx::schema;
use suite::Suite;

/// The fixtures of all tests.
fn fixtures() -> Vec<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let inside = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = inside(root.join("tests"));
    let mut all: Vec<PathBuf> = folders
        .flat_map(|folder| inside(folder.path()))
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|e| e == "bin"))
        .collect();
    all.sort();
    all
}

#[test]
fn rows_say_what_the_importer_makes_of_every_fixture() {
    let suite = Suite::load(&fixtures());
    let mut seen = BTreeSet::new();
    let mut contradictions = Vec::new();
    let mut imported = 0;
    for case in suite.cases.iter().filter(|case| seen.insert(case.model)) {
        let Ok(model) = ModelFile::from_bytes(suite.bytes(case), None) else {
            continue;
        };
        for symbolic in [false, true] {
            let options = ImportOptions {
                symbolic,
                audit: true,
                ..ImportOptions::default()
            };
            match import(&model, &options) {
                Ok(_) => imported += 1,
                Err(errors) => {
                    let errors = errors.errors.iter();
                    let internal = errors.filter(|e| e.kind == ErrorKind::Internal);
                    contradictions.extend(internal.map(|e| format!("{}: {e}", case.name)));
                }
            }
        }
    }
    assert!(imported > 4000, "{imported} imports");
    let found = contradictions.len();
    assert!(found == 0, "{found}:\n{}", contradictions.join("\n"));
}

#[test]
fn every_operator_that_is_taken_has_a_row_at_every_version() {
    for operator in lapidary_import::operators() {
        let taken = |since: i64| (operator.first..=operator.last).contains(&since);
        let at_first = match schema::look_up(operator.domain, operator.name, operator.first) {
            schema::Lookup::Found(schema) => Some(schema),
            _ => None,
        };
        let later = schema::versions(operator.domain, operator.name).filter(|s| taken(s.since));
        for schema in at_first.into_iter().chain(later) {
            let (name, since) = (schema.name, schema.since);
            assert!(!schema.shapes.cases.is_empty(), "{name} {since} has no row");
        }
    }
}
