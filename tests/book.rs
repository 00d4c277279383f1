//! The commands of the book (`docs/book/*.md`) and of `docs/comparing-latency.md` do what they say.
//!
//! Blocks of kind `sh` are run line by line, all of a page in one folder that has `examples/` and `tests/models/` in it. A line that ends in
//! `# exit N` must end with that code, any other with 0. A block of kind `text` behind them is what the last of them
//! prints, on stdout and stderr; `…` stands for anything, and alone on a line for any number of lines.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A block of a page: its kind, its lines, and where it begins.
struct Block {
    kind: String,
    lines: Vec<String>,
    at: usize,
}

fn blocks(text: &str) -> Vec<Block> {
    let (mut all, mut open): (Vec<Block>, Option<Block>) = (Vec::new(), None);
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(kind), None) => {
                let kind = kind.to_string();
                let (lines, at) = (Vec::new(), number + 1);
                open = Some(Block { kind, lines, at });
            }
            (Some(_), Some(_)) => all.extend(open.take()),
            (None, Some(block)) => block.lines.push(line.to_string()),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    all
}

/// Whether a text has these pieces in this order, from its beginning to its end.
fn fits(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('…');
    let first = pieces.next().unwrap_or("");
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for piece in pieces {
        last = Some(piece);
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    match last {
        None => rest.is_empty(),
        Some(piece) => piece.is_empty() || rest.is_empty() || text.ends_with(piece),
    }
}

/// Whether lines are as a block has them.
fn agree(pattern: &[String], found: &[&str]) -> bool {
    match (pattern.split_first(), found.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((p, more)), _) if p == "…" => {
            (0..=found.len()).any(|skipped| agree(more, &found[skipped..]))
        }
        (Some((p, more)), Some((line, rest))) => fits(p, line) && agree(more, rest),
        (Some(_), None) => false,
    }
}

/// Runs a line in a folder; its exit code and what it printed.
fn shell(line: &str, folder: &Path) -> (i32, String) {
    let program = Path::new(env!("CARGO_BIN_EXE_lapidary"));
    let mut path = program
        .parent()
        .expect("a folder")
        .as_os_str()
        .to_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .args(["-c", &format!("{line} 2>&1")])
        .current_dir(folder)
        .env("PATH", path)
        .output()
        .expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

fn page(path: &Path) -> usize {
    let name = path.file_stem().and_then(|s| s.to_str()).expect("a name");
    let folder = std::env::temp_dir().join(format!("lapidary-book-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::create_dir_all(folder.join("tests")).expect("a folder");
    for part in ["examples", "tests/models"] {
        std::os::unix::fs::symlink(root.join(part), folder.join(part)).expect("a link");
    }
    let (mut count, mut printed) = (0, String::new());
    for block in blocks(&std::fs::read_to_string(path).expect("a page")) {
        match block.kind.as_str() {
            "sh" => {
                for line in &block.lines {
                    let (command, code) = match line.rsplit_once(" # exit ") {
                        Some((command, code)) => (command, code.parse().expect("a number")),
                        None => (line.as_str(), 0),
                    };
                    let (found, text) = shell(command, &folder);
                    assert_eq!(found, code, "{name}:{}: {command}\n{text}", block.at);
                    (printed, count) = (text, count + 1);
                }
            }
            "text" => {
                let found: Vec<&str> = printed.lines().collect();
                let right = agree(&block.lines, &found);
                assert!(right, "{name}:{}: it prints\n{printed}", block.at);
            }
            _ => {}
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
    count
}

#[test]
fn every_command_of_the_book_does_what_the_book_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/book");
    let entries = std::fs::read_dir(folder).expect("the book is there");
    let mut pages: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    pages.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/comparing-latency.md"));
    pages.sort();
    let count: usize = pages.iter().map(|p| page(p)).sum();
    println!("{count} commands of {} pages", pages.len());
    assert!(count > 20, "the book has commands");
}

/// The part of a message by which one looks for it: its longest piece without names and numbers.
fn telling(message: &str) -> String {
    let (mut pieces, mut rest) = (vec![String::new()], message);
    while let Some(c) = rest.chars().next() {
        let skipped = match c {
            '{' => rest.find('}').map_or(rest.len(), |end| end + 1),
            '%' => rest
                .find(|c: char| c.is_ascii_lowercase() && c != 'l' && c != 'z')
                .map_or(rest.len(), |end| end + 1),
            '`' | '\'' => 1,
            _ => 0,
        };
        match (skipped, pieces.last_mut()) {
            (0, Some(piece)) => piece.push(c),
            _ => pieces.push(String::new()),
        }
        rest = &rest[skipped.max(c.len_utf8())..];
    }
    let trimmed = pieces
        .iter()
        .map(|p| p.trim_matches(|c: char| " :,;.()[]-".contains(c)));
    trimmed.max_by_key(|p| p.len()).unwrap_or("").to_string()
}

/// The strings that stand first behind `opening`, where `taken` takes what lies between.
fn messages(source: &str, opening: &str, taken: impl Fn(&str) -> bool) -> Vec<String> {
    let behind = source.split(opening).skip(1);
    let string = |text: &str| {
        let (between, rest) = text.split_once('"')?;
        let end = rest.find('"')?;
        (!between.contains(';') && taken(between)).then(|| rest[..end].to_string())
    };
    behind.filter_map(string).collect()
}

#[test]
fn every_error_is_found_in_the_book_by_its_message() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect("a source");
    let mut all = Vec::new();
    for path in [
        "src/error.rs",
        "compiler/onnx/src/error.rs",
        "compiler/lower/src/error.rs",
        "compiler/link/src/error.rs",
        "compiler/passes/src/pipeline.rs",
        "compiler/passes/src/states.rs",
        "runtime/src/error.rs",
    ] {
        all.extend(messages(&read(path), "#[error(", |between| {
            between.trim().is_empty()
        }));
    }
    for name in ["border", "context", "rt", "states", "values"] {
        let source = read(&format!("runtime/c/{name}.c"));
        // What a broken promise inside of the runtime says is no user's to look up.
        let of_users = |between: &str| !between.contains("INTERNAL");
        all.extend(messages(&source, "lap_error(", of_users));
    }
    assert!(all.len() > 100, "the sources have their errors there");
    let page = read("docs/book/trouble.md").replace(['`', '\''], "");
    let missing: Vec<&String> = (all.iter())
        .filter(|m| !page.contains(&telling(m)))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/book/trouble.md lacks {missing:#?}"
    );
}

#[test]
fn patterns_are_matched_whole() {
    assert!(fits("a…b…", "a 1 b 2"));
    assert!(fits("…b", "ab b"));
    assert!(!fits("a", "ab"));
    assert!(!fits("a…b", "a b c"));
    let lines = |all: &[&str]| all.iter().map(|s| s.to_string()).collect::<Vec<_>>();
    assert!(agree(&lines(&["…", "x", "…"]), &["a", "x"]));
    assert!(!agree(&lines(&["x"]), &["x", "y"]));
    assert!(!agree(&lines(&["…", "y"]), &["x"]));
}
