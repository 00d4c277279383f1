//! Runs `tests/filetests/passes/*.graph`: a graph, the passes to run on it, and what they leave.
//!
//! The first line is `; run: PASS…`, where `optimize` is the whole pipeline and a last `fuse` prints
//! the groups as well. The expectation stands below a line `; expect`; `LAPIDARY_BLESS=1`
//! rewrites it. Each rewritten graph must verify, and give what the input graph gives.

use lapidary_graph::{DType, EntityRef, Graph, TensorData, interp, text, verify};
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
            assert!(
                !std::mem::replace(&mut done[n.0 as usize], true),
                "{n} is in two groups"
            );
        }
    }
    for n in &graph.order {
        assert!(done[n.0 as usize], "{n} is in no group");
    }
}

/// Inputs for small sizes of the symbols, by a linear congruential generator.
fn inputs(graph: &Graph) -> Vec<TensorData> {
    const SIZES: [i64; 4] = [2, 3, 1, 2];
    let mut state = 1u64;
    let mut next = move || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let mut all = Vec::new();
    for v in &graph.inputs {
        let ty = graph.ty(*v);
        let size = |s: lapidary_graph::Sym| Some(SIZES[s.index() % SIZES.len()]);
        let dims: Vec<i64> = ty.dims().iter().map(|d| d.eval(&size).unwrap()).collect();
        let count: i64 = dims.iter().product();
        let values: Vec<f64> = (0..count).map(|_| next()).collect();
        let floats: Vec<f32> = values.iter().map(|v| (*v * 2.0 - 1.0) as f32).collect();
        let halves = floats
            .iter()
            .flat_map(|v| half::f16::from_f32(*v).to_le_bytes());
        all.push(match ty.dtype {
            DType::F32 => TensorData::from_f32(dims, &floats),
            DType::F16 => TensorData {
                dtype: DType::F16,
                dims,
                bytes: halves.collect::<Vec<u8>>().into(),
                strings: Vec::new(),
            },
            DType::I64 => {
                let ints: Vec<i64> = values.iter().map(|v| (*v * 2.0) as i64).collect();
                TensorData::from_i64(dims, &ints)
            }
            DType::Bool => TensorData {
                dtype: DType::Bool,
                dims,
                bytes: values.iter().map(|v| u8::from(*v < 0.5)).collect(),
                strings: Vec::new(),
            },
            t => panic!("no inputs of type {t}"),
        });
    }
    all
}

fn numbers(t: &TensorData) -> Vec<f64> {
    let halves = |b: &[u8]| half::f16::from_le_bytes([b[0], b[1]]).to_f64();
    match t.dtype {
        DType::F32 => t.to_f32s().unwrap().iter().map(|v| *v as f64).collect(),
        DType::F16 => t.bytes.chunks(2).map(halves).collect(),
        _ => t.to_i64s().unwrap().iter().map(|v| *v as f64).collect(),
    }
}

/// Both graphs on the same inputs: the results agree to a few units in the last place of f32.
fn check_equal(shown: &str, before: &Graph, after: &Graph) {
    let inputs = inputs(before);
    let run = |g: &Graph| interp::run(g, &inputs).unwrap_or_else(|e| panic!("{shown}: {e}"));
    for (i, (x, y)) in run(before).iter().zip(&run(after)).enumerate() {
        let name = &before.outputs[i].0;
        assert_eq!((x.dtype, &x.dims), (y.dtype, &y.dims), "{shown}: {name}");
        let scale = if x.dtype == DType::F16 { 2e-3 } else { 2e-5 };
        for (a, b) in numbers(x).iter().zip(numbers(y)) {
            let close = (a - b).abs() <= scale * a.abs().max(1.0);
            assert!(
                close || a.is_nan() && b.is_nan(),
                "{shown}: {name}: {a} became {b}"
            );
        }
    }
}

#[test]
fn every_file_leaves_what_it_expects() {
    let refresh = std::env::var_os("LAPIDARY_BLESS").is_some();
    let mut failed = Vec::new();
    for path in files() {
        let shown = path.file_name().unwrap().to_string_lossy().to_string();
        let file = std::fs::read_to_string(&path).unwrap();
        let (head, rest) = file.split_once('\n').unwrap();
        let passes = head
            .strip_prefix("; run:")
            .unwrap_or_else(|| panic!("{shown}: no run line"));
        let (input, expected) = rest.split_once("; expect\n").unwrap_or((rest, ""));
        let mut graph = text::parse(input).unwrap_or_else(|e| panic!("{shown}: {e}"));
        verify::verify(&graph).unwrap_or_else(|e| panic!("{shown}: input: {e:?}"));
        let original = graph.clone();
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
        check_equal(&shown, &original, &graph);
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
    assert!(
        failed.is_empty(),
        "unexpected results:\n{}",
        failed.join("\n")
    );
}
