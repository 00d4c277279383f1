//! Programs in memory: every kind of operand and output, shapes known late, errors, memory.

mod common;

use common::*;
use lapidary_graph::{Dim, TensorData};
use lapidary_link::{CodeOptions, Level, LinkError, PlanOptions, host_level, jit, plan};
use lapidary_lower::program::Operand;
use lapidary_runtime::{ErrorCode, RuntimeError, Tensor};

fn levels() -> Vec<Level> {
    [Level::Baseline, Level::V3, Level::V4]
        .into_iter()
        .filter(|l| *l <= host_level())
        .collect()
}

fn options() -> CodeOptions<'static> {
    CodeOptions {
        kernels: Some(kernels),
        ..CodeOptions::host()
    }
}

#[test]
fn outputs_may_be_results_views_inputs_constants_and_twice_the_same() {
    for level in levels() {
        let options = CodeOptions { level, ..options() };
        let model = jit(every_kind_of_output(), &options).unwrap();
        for threads in [1, 2] {
            let mut context = model.context(threads).unwrap();
            for batch in [1, 3, 0, 500, 3] {
                let (x, expected) = kinds_example(batch);
                assert_eq!(run(&mut context, &x), expected, "{level:?}, batch {batch}");
            }
        }
    }
}

#[test]
fn contexts_outlive_the_model() {
    let mut context = {
        let model = jit(every_kind_of_output(), &options()).unwrap();
        model.context(1).unwrap()
    };
    let (x, expected) = kinds_example(2);
    assert_eq!(run(&mut context, &x), expected);
}

#[test]
fn sizes_that_come_from_data_begin_a_new_segment() {
    let program = two_segments();
    let planned = plan(&program, PlanOptions::FILE).unwrap().text(&program);
    assert!(planned.contains(", 2 segments,"), "{planned}");
    let model = jit(program, &options()).unwrap();
    let mut context = model.context(1).unwrap();
    for x in [
        vec![1.0f32, -2.0, 3.0],
        vec![-1.0],
        vec![5.0; 100],
        vec![],
        vec![2.0],
    ] {
        let t = Tensor::from_slice(&[x.len()], &x).unwrap();
        let kept: Vec<f32> = x.iter().copied().filter(|v| *v > 0.0).collect();
        let squares: Vec<f32> = kept.iter().map(|v| v * v).collect();
        let expected = vec![
            Tensor::from_slice(&[kept.len()], &kept).unwrap(),
            Tensor::from_slice(&[kept.len()], &squares).unwrap(),
        ];
        assert_eq!(run(&mut context, &t), expected);
    }
}

#[test]
fn strings_and_values_of_any_rank_are_copied_by_a_library_kernel() {
    let model = jit(copies(), &options()).unwrap();
    check_copies(&mut model.context(1).unwrap());
}

#[test]
fn a_missing_library_kernel_names_its_node() {
    let error = jit(two_segments(), &CodeOptions::host()).err().unwrap();
    assert!(matches!(error, LinkError::MissingKernel { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "node `/test_positive` needs the library kernel `lap_lib_test_positive`, \
         which this runtime does not have"
    );
}

#[test]
fn a_size_that_overflows_is_an_error_of_its_node() {
    let mut m = Maker::new("overflow");
    let n = m.input_symbol("n", 0, 0);
    let ty = m.f32(std::slice::from_ref(&n));
    let x = m.program.graph.add_input("x", ty);
    let big = m.f32(&[n.clone(), n.clone(), n.clone(), n.clone()]);
    let (node, y) = m.node("power", &[x], big);
    let k = m.kernel(square());
    let v = Operand::Value;
    m.call(k, node, vec![v(x), v(y)], vec![n], Dim::Const(1));
    m.output("y", y);
    let model = jit(m.program, &options()).unwrap();
    let mut context = model.context(1).unwrap();
    let x = Tensor::from_slice(&[100_000], &vec![1.0f32; 100_000]).unwrap();
    match context.run(&[x.view()]).unwrap_err() {
        RuntimeError::Model {
            code,
            node,
            message,
            ..
        } => {
            assert_eq!(code, ErrorCode::Check);
            assert_eq!(node.as_deref(), Some("/power"), "{message}");
            assert!(message.contains("too large"), "{message}");
        }
        other => panic!("{other}"),
    }
}

/// The driver's arithmetic against `Dim::eval`, through a kernel that copies its dims.
#[test]
fn dims_are_computed_as_the_graph_evaluates_them() {
    use lapidary_codegen::loops::{BufferKind, Elem, Expr, LoopKernel, Mem, Stmt, SymKind};
    let mut m = Maker::new("dims");
    let (a, b) = (m.input_symbol("a", 0, 0), m.input_symbol("b", 0, 1));
    let ty = m.f32(&[a.clone(), b.clone()]);
    let x = m.program.graph.add_input("x", ty);
    let (c, diff) = (Dim::Const, a.sub(&b));
    let dims = vec![
        a.clone(),
        a.mul(&b).mul(&c(3)).add(&c(-7)),
        diff.floor_div(&c(4)),
        diff.floor_div(&c(-3)),
        diff.floor_div(&c(5)),
        diff.ceil_div(&c(3)),
        diff.ceil_div(&b.add(&c(1))),
        diff.modulo(&c(4)),
        diff.modulo(&c(-3)),
        diff.modulo(&b.add(&c(1))),
        diff.floor_div(&b.sub(&c(100))),
        diff.modulo(&b.sub(&c(100))),
        a.minimum(&b),
        a.maximum(&b),
        a.broadcast(&a.add(&Dim::Const(0))).unwrap(),
        c(42),
    ];
    let n = dims.len();
    let mut k = LoopKernel::new("dims");
    let y = k.buffer("y", Mem::I64, BufferKind::Output(0));
    for i in 0..n {
        let p = k.sym(SymKind::Param(i as u32));
        let value = k.expr(Expr::Int {
            value: Dim::from(p),
            elem: Elem::I64,
        });
        k.body.push(Stmt::Store {
            buf: y,
            at: Dim::from(i),
            value,
        });
    }
    let k = m.kernel(k);
    let out = lapidary_graph::TensorType::new(lapidary_graph::DType::I64, [Dim::from(n)]);
    let (node, y) = m.node("dims", &[x], out);
    m.call(k, node, vec![Operand::Value(y)], dims.clone(), c(1));
    m.output("y", y);
    let model = jit(m.program, &options()).unwrap();
    let mut context = model.context(1).unwrap();
    for (av, bv) in [(1i64, 1i64), (7, 2), (2, 7), (13, 99), (50, 101), (6, 6)] {
        let x = Tensor::from_slice(&[av as usize, bv as usize], &vec![0f32; (av * bv) as usize])
            .unwrap();
        let expected: Vec<i64> = dims
            .iter()
            .map(|d| d.eval(&|s| Some(if s.0 == 0 { av } else { bv })).unwrap())
            .collect();
        let y = run(&mut context, &x);
        assert_eq!(y[0].as_slice::<i64>().unwrap(), expected, "a {av}, b {bv}");
    }
}

#[test]
fn a_plan_of_many_steps_is_cut_into_several_functions() {
    let mut m = Maker::new("long");
    let n = m.input_symbol("n", 0, 0);
    let ty = m.f32(std::slice::from_ref(&n));
    let mut at = m.program.graph.add_input("x", ty.clone());
    let k = m.kernel(square());
    for i in 0..300 {
        let (node, next) = m.node(&format!("square{i}"), &[at], ty.clone());
        let v = Operand::Value;
        m.call(
            k,
            node,
            vec![v(at), v(next)],
            vec![n.clone()],
            Dim::Const(1),
        );
        at = next;
    }
    m.output("y", at);
    let model = jit(m.program, &options()).unwrap();
    let mut context = model.context(1).unwrap();
    let x = Tensor::from_slice(&[3], &[1.0f32, -1.0, 0.5]).unwrap();
    let expected = Tensor::from_slice(&[3], &[1.0f32, 1.0, 0.0]).unwrap();
    assert_eq!(run(&mut context, &x), vec![expected]);
    // Two buffers are alive at a time.
    assert!(context.memory_used() < 4096, "{}", context.memory_used());
}

#[test]
fn equal_constants_are_stored_once_and_big_ones_stay_where_they_are() {
    let mut m = Maker::new("constants");
    let c = Dim::Const;
    let ty = m.f32(&[c(1), c(2048)]);
    let x = m.program.graph.add_input("x", ty.clone());
    let k = m.kernel(scale_rows());
    let mut at = x;
    let values: Vec<f32> = (0..2048).map(|i| (i % 3) as f32).collect();
    for i in 0..3 {
        let w = TensorData::from_f32(vec![2048], &values);
        let w = m.program.graph.add_const(format!("w{i}"), w);
        let (node, next) = m.node(&format!("scale{i}"), &[at], ty.clone());
        let v = Operand::Value;
        m.call(k, node, vec![v(at), v(w), v(next)], vec![c(2048)], c(1));
        at = next;
    }
    m.output("y", at);
    let text = |options| plan(&m.program, options).unwrap().text(&m.program);
    let copied = text(PlanOptions::FILE);
    assert!(
        copied.contains("weights 8192 bytes in 1 entries, 0 pinned"),
        "{copied}"
    );
    let pinned = text(PlanOptions { pin_from: Some(64) });
    assert!(
        pinned.contains("weights 0 bytes in 0 entries, 3 pinned"),
        "{pinned}"
    );
    let model = jit(m.program, &options()).unwrap();
    assert_eq!(model.weight_bytes, 0);
    let mut context = model.context(1).unwrap();
    let x = Tensor::from_slice(&[1, 2048], &vec![1.0f32; 2048]).unwrap();
    let step = |x: f32, w: f32| x * w + w;
    let expected: Vec<f32> = values
        .iter()
        .map(|w| step(step(step(1.0, *w), *w), *w))
        .collect();
    assert_eq!(
        run(&mut context, &x)[0].as_slice::<f32>().unwrap(),
        expected
    );
}

#[test]
fn compiled_models_give_their_memory_back() {
    let resident = || -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        text.split(' ')
            .nth(1)
            .and_then(|t| t.parse().ok())
            .unwrap_or(0)
    };
    let (x, expected) = kinds_example(4);
    let once = || {
        let options = CodeOptions {
            threads: 1,
            ..options()
        };
        let model = jit(every_kind_of_output(), &options).unwrap();
        assert_eq!(run(&mut model.context(1).unwrap(), &x), expected);
    };
    for _ in 0..20 {
        once();
    }
    let before = resident();
    for _ in 0..200 {
        once();
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 256, "{grown} pages more after 200 models");
}
