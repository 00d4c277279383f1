//! Runs `tests/filetests/graph/*.graph`: input text and expected output in one file.
//!
//! A file is a sequence of cases: a line `; run: COMMAND`, the graph, a line `; check:`, and the
//! expected lines, each behind `; `. Commands: `print` (parsed and printed again), `verify` (the
//! errors, or `ok`), `infer` (each node's types, then the run-time checks), `interp` (the outputs of a
//! graph without inputs). `LAPIDARY_BLESS=1` writes what was found into the files.

use lapidary_graph::text::{data_text, parse};
use lapidary_graph::verify::{check_text, run_time_checks, type_text, verify};
use lapidary_graph::{Graph, infer, interp};
use std::fmt::Write;
use std::path::Path;

fn output(command: &str, text: &str) -> String {
    let graph = match parse(text) {
        Ok(g) => g,
        Err(e) => return e.to_string(),
    };
    match command {
        "print" => graph.to_text(),
        "verify" => match verify(&graph) {
            Ok(()) => "ok".into(),
            Err(errors) => lines(errors.iter().map(|e| e.to_string())),
        },
        "infer" => inferred(&graph),
        "interp" => match interp::run(&graph, &[]) {
            Ok(results) => lines(
                graph
                    .outputs
                    .iter()
                    .zip(&results)
                    .map(|((name, _), t)| format!("{name}: {}", data_text(t))),
            ),
            Err(e) => e.to_string(),
        },
        other => format!("unknown command '{other}'"),
    }
}

fn lines(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join("\n")
}

fn inferred(graph: &Graph) -> String {
    let mut out = String::new();
    for n in &graph.order {
        let node = &graph.nodes[*n];
        let inputs: Vec<_> = node.inputs.iter().map(|v| v.map(|v| graph.ty(v))).collect();
        let types = match infer::output_types(&node.op, &inputs) {
            Ok(types) => lines(types.iter().map(|t| type_text(graph, t))).replace('\n', ", "),
            Err(e) => e.text(graph),
        };
        let _ = writeln!(out, "{n} {}: {types}", node.op.name());
    }
    for c in run_time_checks(graph) {
        let _ = writeln!(out, "check {}", check_text(graph, &c));
    }
    out
}

/// The file with the output that its cases give today.
fn refreshed(text: &str) -> String {
    let mut out = String::new();
    let mut case: Option<(String, String)> = None;
    let mut checking = false;
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("; run: ") {
            case = Some((command.trim().to_string(), String::new()));
            if checking {
                out.push('\n');
            }
            checking = false;
        } else if line.trim() == "; check:" {
            out.push_str("; check:\n");
            if let Some((command, input)) = case.take() {
                for l in output(&command, &input).lines() {
                    let _ = writeln!(out, "; {l}");
                }
            }
            checking = true;
            continue;
        } else if let Some((_, input)) = &mut case {
            input.push_str(line);
            input.push('\n');
        }
        if !checking {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[test]
fn files_give_the_output_that_they_state() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/filetests/graph");
    let bless = std::env::var_os("LAPIDARY_BLESS").is_some();
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "graph"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    let mut wrong = String::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let found = refreshed(&text);
        if found == text {
            continue;
        }
        if bless {
            std::fs::write(&path, found).unwrap();
            continue;
        }
        let _ = writeln!(wrong, "{}:", path.display());
        for (i, (a, b)) in text.lines().zip(found.lines()).enumerate() {
            if a != b {
                let _ = writeln!(wrong, "  line {}: expected {a}\n  found {b}", i + 1);
                break;
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{wrong}LAPIDARY_BLESS=1 refreshes the files"
    );
}
