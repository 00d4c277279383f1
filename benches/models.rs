//! `cargo bench`: the small models, kernel by kernel, with rates and the share of the measured peak.
//!
//! Nothing is asserted: timing is for people. Other words are parts of the names of models.

use std::path::Path;
use std::process::Command;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let mut folders = vec![root.join("examples/digits")];
    for entry in std::fs::read_dir(root.join("tests/models"))
        .into_iter()
        .flatten()
        .flatten()
    {
        folders.push(entry.path());
    }
    folders.sort();
    for folder in folders {
        let text = folder.display().to_string();
        if !filters.is_empty() && !filters.iter().any(|f| text.contains(f.as_str())) {
            continue;
        }
        let status = Command::new(env!("CARGO_BIN_EXE_lapidary"))
            .args(["bench", "--threads", "1,2", "--profile"])
            .arg(&folder)
            .status();
        if !status.is_ok_and(|status| status.success()) {
            println!("{text}: failed");
        }
    }
}
