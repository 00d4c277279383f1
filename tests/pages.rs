//! Pages that tell how things are done are true: the code that they show stands in the files that they name, and the
//! files that they speak of are there.

use std::path::{Path, PathBuf};

const PAGES: [&str; 2] = ["docs/adding-an-operator.md", "docs/adding-a-pass.md"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Fenced blocks whose opening names a file: the file, and the lines.
fn blocks(page: &str) -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    let mut open: Option<(Option<String>, Vec<String>)> = None;
    for line in page.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some((file, lines))) => {
                if let Some(file) = file.take() {
                    all.push((file, std::mem::take(lines)));
                }
                open = None;
            }
            (Some(info), None) => {
                let file = info.split_whitespace().nth(1).map(str::to_string);
                open = Some((file, Vec::new()));
            }
            (None, Some((_, lines))) => lines.push(line.trim().to_string()),
            (None, None) => {}
        }
    }
    all
}

#[test]
fn code_on_the_pages_stands_in_the_files_that_they_name() {
    let mut found = 0;
    for page in PAGES {
        for (file, lines) in blocks(&read(page)) {
            let text: Vec<String> = read(&file).lines().map(|l| l.trim().to_string()).collect();
            let there = text.windows(lines.len()).any(|window| window == lines);
            assert!(there, "{page}: {file} does not have\n{}", lines.join("\n"));
            found += 1;
        }
    }
    assert!(found >= 5, "{found} blocks");
}

/// What stands between backticks and looks like a file of the repository.
fn files(page: &str) -> Vec<&str> {
    let words = page.split('`').skip(1).step_by(2);
    let plain = |w: &&str| !w.contains(['<', '*', '…', ' ', '{']) && w.contains('/');
    let ends = [".rs", ".py", ".md", ".c", ".h", ".txt", ".bin", "/"];
    words
        .filter(plain)
        .filter(|w| ends.iter().any(|e| w.ends_with(e)))
        .collect()
}

#[test]
fn files_that_the_pages_speak_of_are_there() {
    for page in PAGES {
        let text = read(page);
        // Code has backticks of its own only as fences, three at a time.
        let prose: String = text.split("```").step_by(2).collect();
        for file in files(&prose) {
            assert!(root().join(file).exists(), "{page}: `{file}`");
        }
        let targets = prose
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|t| !t.contains("://")) {
            let target = Path::new("docs").join(target);
            assert!(root().join(&target).exists(), "{page}: {target:?}");
        }
    }
}

#[test]
fn the_operator_that_the_page_adds_is_in_the_table_and_on_the_page_of_operators() {
    let operator = lapidary_import::operators().find(|o| o.name == "Binarizer");
    assert_eq!(
        operator.map(|o| (o.domain, o.first)),
        Some(("ai.onnx.ml", 1))
    );
    let row = "| Binarizer | 1 to 5 |";
    assert!(
        read("docs/operators.md")
            .lines()
            .any(|l| l.starts_with(row))
    );
}
