//! Runs `tests/filetests/passes/*.graph`: a graph, the passes to run on it, and what they leave.
//!
//! The first line is `; run: PASS…`, where `optimize` is the whole pipeline and a last `fuse` prints
//! the groups as well. The expectation stands below a line `; expect`; `LAPIDARY_REFRESH=1`
//! rewrites it. Each rewritten graph must verify.

use lapidary_graph::{Graph, text, verify};
use lapidary_passes::{Options, PIPELINE, Remarks, fuse, groups_text, optimize};
use std::path::{Path, PathBuf};

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/filetests/passes");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|f| f.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "graph"))
        .collect();
    files.sort();
    files
}

fn run(name: &str, graph: &mut Graph, remarks: &mut Remarks) {
    if name == "optimize" {
        let report = optimize(graph, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
        remarks.list.extend(report.remarks);
        return;
    }
    let passes = PIPELINE.iter().flat_map(|s| s.passes);
    let pass = { passes }.find(|p| p.name == name);
    let pass = pass.unwrap_or_else(|| panic!("no pass named {name}"));
    (pass.run)(graph, remarks);
}

/// The groups partition the nodes, and each follows those that it reads from.
fn check_groups(graph: &Graph, groups: &[lapidary_graph::Group]) {
    let mut done = vec![false; graph.nodes.len()];
    for g in groups {
        for v in &g.inputs {
            if let Some(p) = graph.producer(*v) {
                assert!(done[p.0 as usize], "a group reads {v} before it is made");
            }
        }
        for n in &g.nodes {
            assert!(!std::mem::replace(&mut done[n.0 as usize], true), "{n} is in two groups");
        }
    }
    for n in &graph.order {
        assert!(done[n.0 as usize], "{n} is in no group");
    }
}

#[test]
fn every_file_leaves_what_it_expects() {
    let refresh = std::env::var_os("LAPIDARY_REFRESH").is_some();
    let mut failed = Vec::new();
    for path in files() {
        let shown = path.file_name().unwrap().to_string_lossy().to_string();
        let file = std::fs::read_to_string(&path).unwrap();
        let (head, rest) = file.split_once('\n').unwrap();
        let passes = head.strip_prefix("; run:").unwrap_or_else(|| panic!("{shown}: no run line"));
        let (input, expected) = rest.split_once("; expect\n").unwrap_or((rest, ""));
        let mut graph = text::parse(input).unwrap_or_else(|e| panic!("{shown}: {e}"));
        verify::verify(&graph).unwrap_or_else(|e| panic!("{shown}: input: {e:?}"));
        let mut remarks = Remarks::default();
        let mut groups = None;
        for name in passes.split_whitespace() {
            if name == "fuse" {
                let (g, more) = fuse(&graph);
                remarks.list.extend(more);
                check_groups(&graph, &g);
                groups = Some(g);
            } else {
                run(name, &mut graph, &mut remarks);
                verify::verify(&graph).unwrap_or_else(|e| panic!("{shown}: after {name}: {e:?}"));
            }
        }
        let mut found = graph.to_text();
        if let Some(g) = groups {
            found.push_str(&groups_text(&graph, &g));
        }
        for r in &remarks.list {
            found.push_str(&format!("remark {r}\n"));
        }
        if found != expected {
            if refresh {
                let new = format!("{head}\n{input}; expect\n{found}");
                std::fs::write(&path, new).unwrap();
            } else {
                failed.push(format!("{shown}:\n{found}"));
            }
        }
    }
    assert!(failed.is_empty(), "unexpected results:\n{}", failed.join("\n"));
}
