//! Graphs in their text form, compiled at every level that this machine has, against the interpreter.
#![allow(dead_code)]

use lapidary_codegen::Level;
use lapidary_graph::{DType, Graph, TensorData, interp, text};
use lapidary_link::{CodeOptions, host_level, jit};
use lapidary_lower::Program;
use lapidary_runtime::{Tensor, TensorView};

pub fn tensor(dtype: DType, dims: &[i64], values: &[u64]) -> TensorData {
    let bytes = values
        .iter()
        .flat_map(|v| v.to_le_bytes()[..dtype.bytes()].to_vec())
        .collect::<Vec<u8>>();
    TensorData {
        dtype,
        dims: dims.to_vec(),
        bytes: bytes.into(),
        strings: Vec::new(),
    }
}

pub fn f32s(dims: &[i64], values: &[f32]) -> TensorData {
    let bits: Vec<u64> = values.iter().map(|v| v.to_bits() as u64).collect();
    tensor(DType::F32, dims, &bits)
}

/// The program that a graph becomes.
pub fn lowered(graph: &Graph) -> Result<Program, String> {
    let mut graph = graph.clone();
    lapidary_passes::optimize(&mut graph, &Default::default()).map_err(|e| e.to_string())?;
    let (groups, _) = lapidary_passes::fuse(&graph);
    lapidary_lower::lower(graph, &groups).map_err(|e| e.to_string())
}

/// The graph's outputs as compiled code gives them.
pub fn compiled(graph: &Graph, inputs: &[TensorData], level: Level) -> Result<Vec<Tensor>, String> {
    let program = lowered(graph)?;
    let options = CodeOptions {
        level,
        ..CodeOptions::host()
    };
    let model = jit(program, &options).map_err(|e| e.to_string())?;
    let mut context = model.context(1).map_err(|e| e.to_string())?;
    let shapes: Vec<Vec<usize>> = inputs
        .iter()
        .map(|t| t.dims.iter().map(|d| *d as usize).collect())
        .collect();
    let views: Vec<TensorView> = inputs
        .iter()
        .zip(&shapes)
        .map(|(t, shape)| {
            let dtype = lapidary_runtime::DType::from_onnx(t.dtype as i32).expect("a type");
            TensorView::from_bytes(dtype, shape, &t.bytes).expect("sizes agree")
        })
        .collect();
    context.run(&views).map_err(|e| e.to_string())
}

/// Every output bit for bit, at every level.
pub fn agrees(source: &str, inputs: &[TensorData]) {
    let graph = text::parse(source).expect("the graph parses");
    let expected = interp::run(&graph, inputs).expect("the interpreter takes it");
    for level in [Level::Baseline, Level::V3, Level::V4] {
        if level > host_level() {
            continue;
        }
        let found = compiled(&graph, inputs, level).expect("it compiles and runs");
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(&expected) {
            assert_eq!(f.bytes(), &e.bytes[..], "{} at {level:?}", graph.name);
        }
    }
}
