//! Imports every model below a folder and counts: imported, unsupported (by operator and reason),
//! invalid. `cargo run -p lapidary-import --example suite -- DIR [-v]`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lapidary_graph::Op;
use lapidary_import::{ImportOptions, import};
use lapidary_onnx::ModelFile;

fn models(dir: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    let mut entries: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    entries.sort();
    for e in entries {
        if e.is_dir() {
            models(&e, into);
        } else if e.extension().is_some_and(|x| x == "onnx") {
            into.push(e);
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let verbose = args.iter().any(|a| a == "-v");
    let mut paths = Vec::new();
    for dir in args.iter().filter(|a| !a.starts_with('-')) {
        match Path::new(dir) {
            p if p.is_file() => paths.push(p.to_path_buf()),
            p => models(p, &mut paths),
        }
    }
    let options = ImportOptions {
        symbolic: args.iter().any(|a| a == "--symbolic"),
        dims: Vec::new(),
    };
    let (mut good, mut unsupported, mut invalid) = (0, 0, 0);
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut library: BTreeMap<String, usize> = BTreeMap::new();
    for path in &paths {
        let shown = path.parent().unwrap_or(path).display();
        let model = match ModelFile::open(path) {
            Ok(m) => m,
            Err(e) => {
                invalid += 1;
                println!("{shown}: {e}");
                continue;
            }
        };
        match import(&model, &options) {
            Ok(g) => {
                good += 1;
                let mut calls: Vec<&str> = Vec::new();
                for n in &g.order {
                    if let Op::Library(c) = &g.nodes[*n].op {
                        calls.push(&c.name);
                    }
                }
                if verbose {
                    println!("{shown}: {} nodes, library {calls:?}", g.order.len());
                }
                calls.sort_unstable();
                calls.dedup();
                for c in calls {
                    *library.entry(c.to_string()).or_default() += 1;
                }
            }
            Err(e) => {
                if e.is_unsupported() {
                    unsupported += 1;
                } else {
                    invalid += 1;
                    println!("{shown}: {e}");
                }
                let mut own: Vec<String> = e
                    .errors
                    .iter()
                    .map(|e| format!("{} {}: {}", e.domain, e.op, e.found))
                    .collect();
                own.sort();
                own.dedup();
                for r in own {
                    *reasons.entry(r).or_default() += 1;
                }
            }
        }
    }
    println!("imported {good}, unsupported {unsupported}, invalid {invalid}");
    for (title, counts) in [("unsupported", reasons), ("library calls", library)] {
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1));
        println!("-- {title} (models)");
        for (r, n) in counts {
            println!("{n:5}  {r}");
        }
    }
}
