//! The small models of `tests/models`: the optimized graph computes what the imported one does, and
//! the real architectures keep the number of kernels that fusion is meant to reach.

use lapidary_graph::{DType, Graph, GroupKind, Op, TensorData, interp};
use lapidary_onnx::ModelFile;
use lapidary_passes::{Options, fuse, optimize};
use std::path::{Path, PathBuf};

fn models() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models");
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|f| f.unwrap().path().join("model.onnx"))
        .filter(|p| p.exists())
        .collect();
    found.sort();
    found
}

fn import(path: &Path) -> Graph {
    let model = ModelFile::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    lapidary_import::import(&model, &Default::default())
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Sizes for the free dimensions and inputs of them.
fn inputs(graph: &Graph) -> Vec<TensorData> {
    let mut state = 7u64;
    let mut next = move || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let size = |s: lapidary_graph::Sym| match graph.symbols[s].name.as_str() {
        "batch" | "N" | "n" => Some(2),
        _ => Some(3),
    };
    graph
        .inputs
        .iter()
        .map(|v| {
            let ty = graph.ty(*v);
            let dims: Vec<i64> = ty.dims().iter().map(|d| d.eval(&size).unwrap()).collect();
            let count: i64 = dims.iter().product();
            let values: Vec<f64> = (0..count).map(|_| next()).collect();
            match ty.dtype {
                DType::F32 => {
                    let floats: Vec<f32> = values.iter().map(|v| (*v * 2.0 - 1.0) as f32).collect();
                    TensorData::from_f32(dims, &floats)
                }
                DType::I64 => {
                    let ints: Vec<i64> = values.iter().map(|v| (*v * 2.0) as i64).collect();
                    TensorData::from_i64(dims, &ints)
                }
                t => panic!("no inputs of type {t}"),
            }
        })
        .collect()
}

#[test]
fn optimized_models_compute_the_same() {
    for path in models() {
        let before = import(&path);
        let inputs = inputs(&before);
        let mut after = before.clone();
        optimize(&mut after, &Options::default())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let run = |g: &Graph| {
            interp::run(g, &inputs).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        for (x, y) in run(&before).iter().zip(&run(&after)) {
            assert_eq!((x.dtype, &x.dims), (y.dtype, &y.dims), "{}", path.display());
            let Some((a, b)) = x.to_f32s().zip(y.to_f32s()) else {
                assert_eq!(x, y, "{}", path.display());
                continue;
            };
            let largest = a.iter().fold(1.0f32, |m, v| m.max(v.abs()));
            for (a, b) in a.iter().zip(&b) {
                assert!(
                    (a - b).abs() <= 1e-4 * largest,
                    "{}: {a} became {b}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn transformers_have_one_attention_and_at_most_eight_groups_a_layer() {
    for path in models() {
        let name = path
            .parent()
            .and_then(|p| p.file_name())
            .unwrap()
            .to_string_lossy()
            .to_string();
        if name != "bert" && name != "gpt2" {
            continue;
        }
        let mut graph = import(&path);
        let normalizations = graph
            .order
            .iter()
            .filter(|n| matches!(graph.nodes[**n].op, Op::Normalize { .. }));
        // Two a layer and one more.
        let layers = normalizations.count() / 2;
        optimize(&mut graph, &Options::default()).unwrap();
        let (groups, _) = fuse(&graph);
        let of = |k: GroupKind| groups.iter().filter(|g| g.kind == k).count();
        assert_eq!(of(GroupKind::Attention), layers, "{name}");
        let most = layers * if name == "bert" { 8 } else { 10 } + 8;
        assert!(groups.len() <= most, "{name}: {} groups", groups.len());
    }
}

#[test]
fn convolution_networks_transpose_at_their_edges_only() {
    for path in models() {
        let name = path
            .parent()
            .and_then(|p| p.file_name())
            .unwrap()
            .to_string_lossy()
            .to_string();
        if !["resnet", "mobilenet"].contains(&name.as_str()) {
            continue;
        }
        let mut graph = import(&path);
        optimize(&mut graph, &Options::default()).unwrap();
        let transposes = graph
            .order
            .iter()
            .filter(|n| matches!(graph.nodes[**n].op, Op::Transpose { .. }));
        assert!(transposes.count() <= 1, "{name}");
    }
}
