//! Random ensembles of trees: the records that lowering makes of them, walked by the library kernel `trees` at every level
//! of the processor, built with the address and undefined-behaviour sanitizers, each part in memory of exactly its size
//! (`kernels/tests/fuzz.c`). Scores and labels are the interpreter's.
//!
//! Votes and base values are multiples of 1/8, so that no order of adding them rounds, and labels are decided.

mod common;

use std::process::Command;
use std::sync::Arc;

use common::{lowered, tensor};
use lapidary::random::Random;
use lapidary_graph::tree::{
    Labels, PostTransform, TreeAggregate, TreeEnsemble, TreeNode, TreeTest,
};
use lapidary_graph::{DType, Dim, Graph, Op, TensorData, TensorType, infer, interp};
use lapidary_lower::{LibraryStep, Step};

const ENSEMBLES: u64 = 300;

/// What the trees of an ensemble are made of.
struct Shape {
    features: u64,
    targets: u64,
    depth: u64,
    /// Whether a test may be of equality, which has no fast form.
    equality: bool,
    /// Whether both children of a branch may be one node.
    shared: bool,
}

fn chance(random: &mut Random, of: u64) -> bool {
    random.below(of) == 0
}

fn pick<T: Copy>(random: &mut Random, all: &[T]) -> T {
    all[random.below(all.len() as u64) as usize]
}

/// A multiple of 1/8 around 0.
fn eighths(random: &mut Random) -> f64 {
    random.below(33) as f64 / 8.0 - 2.0
}

/// Adds a tree below a node that is added first; gives its place.
fn grow(random: &mut Random, shape: &Shape, depth: u64, trees: &mut TreeEnsemble) -> u32 {
    let at = trees.nodes.len() as u32;
    if depth == 0 || chance(random, 6) {
        let count = pick(random, &[0, 1, 1, 1, 1, 2, 3]);
        let first = trees.weights.len() as u32;
        for _ in 0..count {
            let target = random.below(shape.targets) as u32;
            trees.weights.push((target, eighths(random)));
        }
        trees.nodes.push(TreeNode::Leaf { first, count });
        return at;
    }
    trees.nodes.push(TreeNode::Leaf { first: 0, count: 0 });
    use TreeTest::*;
    let tests = [Le, Le, Lt, Ge, Gt, Eq, Ne];
    let tests = &tests[..if shape.equality { 7 } else { 5 }];
    // A chain on one side now and then.
    let depths = match random.below(4) {
        0 => (0, depth - 1),
        1 => (depth - 1, 0),
        _ => (depth - 1, depth - 1),
    };
    let yes = grow(random, shape, depths.0, trees);
    let no = match shape.shared && chance(random, 3) {
        true => yes,
        false => grow(random, shape, depths.1, trees),
    };
    let odd = [f64::NEG_INFINITY, f64::INFINITY, f64::NAN, 1e300, -0.0];
    trees.nodes[at as usize] = TreeNode::Branch {
        feature: random.below(shape.features) as u32,
        test: pick(random, tests),
        threshold: match chance(random, 12) {
            true => pick(random, &odd),
            false => eighths(random) / 3.0,
        },
        yes,
        no,
        missing_yes: chance(random, 2),
    };
    at
}

fn ensemble(random: &mut Random) -> TreeEnsemble {
    // More features need wider links in a node.
    let features = pick(random, &[1, 3, 8, 40, 251, 300, 20_000]);
    let small = chance(random, 2);
    let shape = Shape {
        features,
        targets: pick(random, &[1, 1, 2, 3, 10]),
        depth: if small { 4 } else { 1 + random.below(9) },
        equality: chance(random, 6),
        shared: chance(random, 8),
    };
    use TreeAggregate::*;
    let mut trees = TreeEnsemble {
        nodes: Vec::new(),
        roots: Vec::new(),
        weights: Vec::new(),
        targets: shape.targets as u32,
        aggregate: pick(random, &[Sum, Sum, Sum, Average, Min, Max]),
        base_values: Vec::new(),
        post: PostTransform::None,
        labels: None,
    };
    for _ in 0..1 + random.below(if small { 30 } else { 12 }) {
        let root = grow(random, &shape, shape.depth, &mut trees);
        trees.roots.push(root);
    }
    if chance(random, 2) {
        trees.base_values = (0..shape.targets).map(|_| eighths(random)).collect();
    }
    trees.post = pick(
        random,
        &[
            PostTransform::None,
            PostTransform::None,
            PostTransform::Softmax,
            PostTransform::Logistic,
            PostTransform::SoftmaxZero,
        ],
    );
    let targets = 0..shape.targets as i64;
    trees.labels = match random.below(3) {
        0 => None,
        1 => Some(Labels::I64(targets.map(|t| 7 * t - 3).collect())),
        _ => Some(Labels::Strings(
            targets.map(|t| format!("c{t}").into()).collect(),
        )),
    };
    trees
}

fn features(random: &mut Random, trees: &TreeEnsemble) -> TensorData {
    let used = trees.nodes.iter().map(|n| match n {
        TreeNode::Branch { feature, .. } => *feature as u64 + 1,
        TreeNode::Leaf { .. } => 0,
    });
    let used = used.max().unwrap_or(0);
    let length = used + pick(random, &[0, 0, 1, 5]);
    let rows = match used {
        1000.. => random.below(20),
        _ => random.below(50),
    };
    let (wide, missing) = (chance(random, 3), chance(random, 2));
    let value = |random: &mut Random| match missing && chance(random, 20) {
        true => f64::NAN,
        false => match chance(random, 40) {
            true => pick(random, &[f64::INFINITY, f64::NEG_INFINITY, 1e30]),
            false => eighths(random) / 3.0,
        },
    };
    let values: Vec<u64> = (0..rows * length)
        .map(|_| match wide {
            true => value(random).to_bits(),
            false => u64::from((value(random) as f32).to_bits()),
        })
        .collect();
    let dtype = if wide { DType::F64 } else { DType::F32 };
    tensor(dtype, &[rows as i64, length as i64], &values)
}

/// A graph of this one operator.
fn graph(trees: &TreeEnsemble, x: &TensorData) -> Graph {
    let mut graph = Graph::new("trees");
    let ty = TensorType::new(x.dtype, x.dims.iter().map(|d| Dim::Const(*d)));
    let op = Op::Trees(Arc::new(trees.clone()));
    let types = infer::output_types(&op, &[Some(&ty)]).expect("the ensemble is sound");
    let input = graph.add_input("x", ty);
    let outputs = types.into_iter().enumerate();
    let outputs = outputs.map(|(i, ty)| (format!("y{i}"), ty)).collect();
    let node = graph.add_node(op, vec![Some(input)], outputs, vec!["trees".into()]);
    let outputs = graph.nodes[node].outputs.clone();
    graph.outputs = outputs.iter().map(|v| (format!("{v}"), *v)).collect();
    graph
}

fn record(graph: &Graph) -> LibraryStep {
    let program = lowered(graph).expect("the graph is lowered");
    let calls = program.steps.into_iter().filter_map(|step| match step {
        Step::Library(call) if call.function == "trees" => Some(call),
        _ => None,
    });
    calls.last().expect("a call of the kernel")
}

/// The kernel's call as `fuzz.c` reads it.
fn write(file: &mut Vec<u8>, trees: &TreeEnsemble, call: &LibraryStep, x: &TensorData) {
    let labels = match trees.labels {
        None => 0,
        Some(Labels::I64(_)) => 1,
        Some(Labels::Strings(_)) => 2,
    };
    let counts = [call.ints.len(), call.floats.len(), call.strings.len()].map(|n| n as i64);
    let head = [x.dtype as i64, x.dims[0], x.dims[1], labels];
    let words = head.into_iter().chain(counts).chain(call.ints.clone());
    file.extend(words.flat_map(i64::to_le_bytes));
    file.extend(call.floats.iter().flat_map(|v| v.to_le_bytes()));
    for s in &call.strings {
        file.extend((s.len() as i64).to_le_bytes());
        file.extend(s);
    }
    file.extend(&x.bytes);
}

/// Scores, and then labels as text.
fn expected(graph: &Graph, x: &TensorData) -> (Vec<f64>, Vec<String>) {
    let outputs = interp::run(graph, std::slice::from_ref(x)).expect("the interpreter takes it");
    let numbers = |t: &TensorData| -> Vec<f64> {
        let elements = t.bytes.chunks_exact(t.dtype.bytes());
        let number = |b: &[u8]| match b.try_into() {
            Ok(wide) => f64::from_le_bytes(wide),
            Err(_) => f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into(),
        };
        elements.map(number).collect()
    };
    match outputs.as_slice() {
        [scores] => (numbers(scores), Vec::new()),
        [labels, scores] => {
            let ints = labels.to_i64s().unwrap_or_default().into_iter();
            let texts = labels.strings.iter();
            let texts = texts.map(|s| String::from_utf8_lossy(s).into_owned());
            let labels = ints.map(|i| i.to_string()).chain(texts).collect();
            (numbers(scores), labels)
        }
        _ => panic!("{} outputs", outputs.len()),
    }
}

#[test]
fn the_kernel_of_trees_stays_inside_the_records_that_lowering_makes() {
    let (mut file, mut all) = (Vec::new(), Vec::new());
    let mut forms = [0; 5];
    let mut flat = 0;
    for seed in 0..ENSEMBLES {
        let random = &mut Random::new(seed);
        let trees = ensemble(random);
        let x = features(random, &trees);
        let graph = graph(&trees, &x);
        let call = record(&graph);
        forms[call.ints[0] as usize] += 1;
        flat += usize::from(call.ints[8] > 0 && x.dims[0] >= call.ints[8]);
        write(&mut file, &trees, &call, &x);
        all.push(expected(&graph, &x));
    }
    assert!(
        forms.iter().all(|n| *n >= 5) && flat >= 5,
        "{forms:?}, {flat}"
    );
    let path = std::env::temp_dir().join(format!("lapidary-trees-{}", std::process::id()));
    std::fs::write(&path, &file).expect("the folder can be written");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/tests/fuzz.sh");
    let mut command = Command::new("sh");
    let output = command.arg(script).arg("--trees").arg(&path).output();
    let _ = std::fs::remove_file(&path);
    let output = output.expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout);
    if text.starts_with("skipped:") {
        print!("{text}");
        return;
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    let lines: Vec<&str> = text.lines().collect();
    let Some(("ok", lines)) = lines.split_last().map(|(last, rest)| (*last, rest)) else {
        panic!("{text}\n{errors}");
    };
    // A line a level.
    let levels = lines.len() / all.len();
    assert!(levels >= 1 && levels * all.len() == lines.len());
    for (at, line) in lines.iter().enumerate() {
        let (scores, labels) = &all[at / levels];
        let mut words = line.split_whitespace();
        for (i, expected) in scores.iter().enumerate() {
            let found: f64 = words.next().expect("a score").parse().expect("a number");
            let near = (found - expected).abs() <= 1e-6 * expected.abs().max(1.0);
            assert!(
                near || found.is_nan() && expected.is_nan(),
                "ensemble {}, level {}, score {i}: {found}, expected {expected}",
                at / levels,
                at % levels
            );
        }
        assert!(words.eq(labels.iter().map(String::as_str)), "{at}: {line}");
    }
}
