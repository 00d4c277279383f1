//! Random graphs through the whole pipeline: the result verifies, computes the same, and its groups
//! are a partition in an order that can run. Deterministic; a failure prints the graph.

use lapidary_graph::infer::output_types;
use lapidary_graph::op::{Layout, NormKind, PadMode, PoolKind, ReduceKind, Window};
use lapidary_graph::{
    DType, Dim, EntityRef, Graph, Op, Pointwise, PwBuilder, PwOp, Scalar, SymbolOrigin, TensorData,
    TensorType, ValueId, interp, verify,
};
use lapidary_passes::{Options, fuse, optimize};

struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n.max(1)
    }
    fn unit(&mut self) -> f32 {
        self.below(2001) as f32 / 1000.0 - 1.0
    }
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
    fn tensor(&mut self, dims: &[i64]) -> TensorData {
        let count: i64 = dims.iter().product();
        let values: Vec<f32> = (0..count).map(|_| self.unit()).collect();
        TensorData::from_f32(dims.to_vec(), &values)
    }
}

/// Adds a node if it has a type.
fn add(g: &mut Graph, op: Op, inputs: &[ValueId]) -> Option<ValueId> {
    let types: Vec<_> = inputs.iter().map(|v| Some(g.ty(*v))).collect();
    let ty = output_types(&op, &types).ok()?.pop()?;
    let name = format!("v{}", g.values.len());
    let inputs = inputs.iter().copied().map(Some).collect();
    let n = g.add_node(op, inputs, vec![(name.clone(), ty)], vec![name]);
    Some(g.nodes[n].outputs[0])
}

/// A value or constant that broadcasts with `x` without making it larger.
fn partner(g: &mut Graph, r: &mut Lcg, x: ValueId) -> ValueId {
    let dims = g.dims(x).to_vec();
    let same: Vec<ValueId> = g.values.keys().filter(|v| g.dims(*v) == dims).collect();
    if r.below(2) == 0 {
        return r.pick(&same);
    }
    let fixed = dims.iter().map(|d| d.as_const().unwrap_or(1));
    let shape: Vec<i64> = fixed.map(|d| if r.below(2) == 0 { 1 } else { d }).collect();
    let shape = shape[r.below(shape.len() + 1)..].to_vec();
    let t = match r.below(4) {
        0 => TensorData::from_f32(vec![1; shape.len()], &[r.pick(&[0.0, 1.0, 2.0, 0.5, -1.0])]),
        _ => r.tensor(&shape),
    };
    g.add_const("c", t)
}

fn step(g: &mut Graph, r: &mut Lcg) -> Option<ValueId> {
    let all: Vec<ValueId> = g
        .values
        .keys()
        .filter(|v| g.constant(*v).is_none())
        .collect();
    let recent = all[all.len().saturating_sub(6)..].to_vec();
    let x = if r.below(3) == 0 {
        r.pick(&all)
    } else {
        r.pick(&recent)
    };
    let dims = g.dims(x).to_vec();
    let rank = dims.len();
    let f = DType::F32;
    if rank == 0 {
        return None;
    }
    match r.below(15) {
        0..=2 => {
            let op = r.pick(&[PwOp::Add, PwOp::Mul, PwOp::Sub, PwOp::Max]);
            let y = partner(g, r, x);
            let pair = if r.below(2) == 0 { [x, y] } else { [y, x] };
            add(
                g,
                Op::Pointwise {
                    body: Pointwise::binary(op, f, f),
                    shape: None,
                },
                &pair,
            )
        }
        3 => {
            let op = r.pick(&[PwOp::Neg, PwOp::Abs, PwOp::Tanh, PwOp::Erf, PwOp::Sigmoid]);
            add(
                g,
                Op::Pointwise {
                    body: Pointwise::unary(op, f, f),
                    shape: None,
                },
                &[x],
            )
        }
        4 => {
            let mut b = PwBuilder::default();
            let v = b.input(0, f);
            let c = b.constant(Scalar::f32(r.pick(&[1.0, 2.0, 3.0, 0.0])));
            let p = b.push(r.pick(&[PwOp::Pow, PwOp::Mul, PwOp::Add]), vec![v, c], f);
            add(
                g,
                Op::Pointwise {
                    body: b.finish_at(p, 1),
                    shape: None,
                },
                &[x],
            )
        }
        5 => {
            let mut perm: Vec<usize> = (0..rank).collect();
            for i in (1..rank).rev() {
                perm.swap(i, r.below(i + 1));
            }
            add(g, Op::Transpose { perm }, &[x])
        }
        6 => {
            let mut shape = dims.clone();
            match r.below(3) {
                0 if rank > 1 => {
                    let i = r.below(rank - 1);
                    let d = shape.remove(i + 1);
                    shape[i] = shape[i].mul(&d);
                }
                1 => shape.insert(r.below(rank + 1), Dim::Const(1)),
                _ => {
                    let i = r.below(rank);
                    let d = shape[i].as_const().filter(|d| d % 2 == 0)?;
                    shape[i] = Dim::Const(2);
                    shape.insert(i + 1, Dim::Const(d / 2));
                }
            }
            add(g, Op::Reshape { shape }, &[x])
        }
        7 => {
            let i = r.below(rank);
            let d = dims[i].as_const().filter(|d| *d > 1)?;
            let (mut start, mut size) = (vec![Dim::Const(0); rank], dims.clone());
            let from = r.below(d as usize) as i64;
            start[i] = Dim::Const(from);
            size[i] = Dim::Const(d - from);
            add(
                g,
                Op::Slice {
                    start,
                    step: vec![1; rank],
                    size,
                },
                &[x],
            )
        }
        8 => {
            let axes: Vec<usize> = match r.below(3) {
                0 => vec![r.below(rank)],
                1 => vec![rank - 1],
                _ => (r.below(rank)..rank).collect(),
            };
            let kinds = [
                ReduceKind::Mean,
                ReduceKind::Max,
                ReduceKind::Sum,
                ReduceKind::L2,
            ];
            let (kind, keep) = (r.pick(&kinds), r.below(3) > 0);
            add(g, Op::Reduce { kind, axes, keep }, &[x])
        }
        9 => add(
            g,
            Op::Softmax {
                axis: r.below(rank),
                log: r.below(3) == 0,
            },
            &[x],
        ),
        10 => {
            let d = dims.last()?.as_const()?;
            let (s, b) = (r.tensor(&[d]), r.tensor(&[d]));
            let (s, b) = (g.add_const("s", s), g.add_const("b", b));
            let op = Op::Normalize {
                kind: NormKind::Layer,
                axis: rank - 1,
                epsilon: 1e-3,
            };
            add(g, op, &[x, s, b])
        }
        11 => {
            let k = dims.last()?.as_const()?;
            let n = 1 + r.below(6) as i64;
            let a: Vec<u8> = (0..rank as u8).collect();
            let (k_label, n_label) = (rank as u8 - 1, rank as u8);
            let transposed = r.below(2) == 0;
            let (shape, b) = match transposed {
                true => ([n, k], vec![n_label, k_label]),
                false => ([k, n], vec![k_label, n_label]),
            };
            let w = r.tensor(&shape);
            let w = g.add_const("w", w);
            let mut out = a.clone();
            *out.last_mut()? = n_label;
            add(g, Op::Contract { a, b, out }, &[x, w])
        }
        12 => {
            let y = partner(g, r, x);
            let axis = r.below(rank);
            (g.dims(y) == dims).then(|| add(g, Op::Concat { axis }, &[x, y]))?
        }
        _ if rank == 4 => {
            let c = dims[1].as_const()?;
            let k = r.pick(&[1, 3]);
            let window = Window {
                kernel: vec![Dim::Const(k), Dim::Const(k)],
                strides: vec![1 + r.below(2) as i64; 2],
                dilations: vec![1, 1],
                pads_begin: vec![Dim::Const(k / 2); 2],
                pads_end: vec![Dim::Const(k / 2); 2],
                layout: Layout::ChannelsFirst,
            };
            if r.below(4) == 0 {
                let s = &window.strides;
                let one = Dim::Const(1);
                let size = |i: usize| dims[i + 2].sub(&one).floor_div(&s[i].into()).add(&one);
                let out = (0..2).map(size).collect();
                return add(
                    g,
                    Op::Pool {
                        kind: PoolKind::Max,
                        window,
                        out,
                    },
                    &[x],
                );
            }
            let (m, groups) = if r.below(3) == 0 {
                (c, c)
            } else {
                (1 + r.below(5) as i64, 1)
            };
            let (w, b) = (r.tensor(&[m, c / groups, k, k]), r.tensor(&[m]));
            let (w, b) = (g.add_const("w", w), g.add_const("b", b));
            let groups = Dim::Const(groups);
            add(g, Op::Conv { window, groups }, &[x, w, b])
        }
        13 => {
            let mut before = vec![Dim::Const(0); rank];
            before[r.below(rank)] = Dim::Const(1);
            let after = vec![Dim::Const(0); rank];
            add(
                g,
                Op::Pad {
                    before,
                    after,
                    mode: PadMode::Constant,
                },
                &[x],
            )
        }
        _ => None,
    }
}

fn graph(r: &mut Lcg) -> (Graph, Vec<TensorData>) {
    let mut g = Graph::new("random");
    let n = g.add_symbol("n", SymbolOrigin::Input { input: 0, axis: 0 });
    let shapes: [&[i64]; 3] = [&[4, 6], &[2, 4, 4], &[8]];
    let shape = r.pick(&shapes);
    let mut inputs = Vec::new();
    for i in 0..2 {
        let dims = [Dim::from(n)]
            .into_iter()
            .chain(shape.iter().map(|d| Dim::Const(*d)));
        g.add_input(format!("x{i}"), TensorType::new(DType::F32, dims));
        let dims: Vec<i64> = [3].iter().chain(shape).copied().collect();
        inputs.push(r.tensor(&dims));
    }
    let mut made = Vec::new();
    for _ in 0..60 {
        if made.len() < 14 {
            made.extend(step(&mut g, r).filter(|v| g.dims(*v).len() <= 6));
        }
    }
    let mut outputs = vec![*made.last().unwrap_or(&g.inputs[0])];
    for _ in 0..r.below(3) {
        outputs.push(r.pick(&made));
    }
    for (i, v) in outputs.iter().enumerate() {
        g.outputs.push((format!("y{i}"), *v));
    }
    (g, inputs)
}

fn check_groups(g: &Graph) {
    let (groups, _) = fuse(g);
    let mut done = vec![false; g.nodes.len()];
    for group in groups.iter() {
        for v in &group.inputs {
            assert!(
                g.producer(*v).is_none_or(|p| done[p.index()]),
                "{v} is read too early"
            );
        }
        for n in &group.nodes {
            assert!(
                !std::mem::replace(&mut done[n.index()], true),
                "{n} is in two groups"
            );
        }
        assert!(!group.outputs.is_empty());
    }
    assert!(
        g.order.iter().all(|n| done[n.index()]),
        "a node is in no group"
    );
}

#[test]
fn random_graphs_keep_their_meaning() {
    let count = std::env::var("LAPIDARY_SEEDS").ok();
    let count = count.and_then(|c| c.parse().ok()).unwrap_or(300);
    for seed in 0..count {
        let (before, inputs) = graph(&mut Lcg(seed * 7919 + 1));
        if verify::verify(&before).is_err() {
            panic!(
                "seed {seed}: the test's graph: {:?}",
                verify::verify(&before)
            );
        }
        let Ok(expected) = interp::run(&before, &inputs) else {
            continue;
        };
        let mut after = before.clone();
        if let Err(e) = optimize(&mut after, &Options::default()) {
            panic!(
                "seed {seed}: {e}\n{}\n{}",
                before.to_text(),
                after.to_text()
            );
        }
        let found = interp::run(&after, &inputs).unwrap_or_else(|e| panic!("{e}"));
        for (x, y) in expected.iter().zip(&found) {
            let shown = || format!("seed {seed}\n{}\n{}", before.to_text(), after.to_text());
            assert_eq!(x.dims, y.dims, "{}", shown());
            let (a, b) = (x.to_f32s().unwrap(), y.to_f32s().unwrap());
            let largest = a.iter().fold(1.0f32, |m, v| m.max(v.abs()));
            for (a, b) in a.iter().zip(&b) {
                let close =
                    (a - b).abs() <= 1e-3 * largest || a.is_nan() == b.is_nan() && !a.is_finite();
                assert!(close, "{a} became {b}\n{}", shown());
            }
        }
        check_groups(&after);
    }
}
