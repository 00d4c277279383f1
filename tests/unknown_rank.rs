//! Values whose rank is known at run time only: operators that take them, at several ranks with one compilation.

mod build;

use build::*;
use lapidary::{Compiled, DType, Error, Options, Tensor};
use lapidary_onnx::proto::NodeProto;

/// Inputs a and b of f32 and of no stated shape, output y.
fn compiled(nodes: Vec<NodeProto>, inputs: &[&str], output: i32) -> Compiled {
    let inputs = inputs.iter().map(|name| value(name, F32, None)).collect();
    let model = model(18, nodes, inputs, vec![value("y", output, None)]);
    model.compile(&Options::default()).expect("it compiles")
}

/// 1, 2, 3, ….
fn counted(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (1..=n).map(|i| i as f32).collect();
    Tensor::from_slice(shape, &values).unwrap()
}

fn run(compiled: &Compiled, inputs: &[Tensor]) -> Result<Tensor, Error> {
    let mut outputs = compiled.context()?.run_tensors(inputs)?;
    Ok(outputs.remove(0))
}

#[track_caller]
fn check(compiled: &Compiled, inputs: &[Tensor], shape: &[usize], expected: &[f32]) {
    let found = run(compiled, inputs).expect("it runs");
    assert_eq!(found.shape(), shape);
    assert_eq!(found.as_slice::<f32>().unwrap(), expected);
}

#[test]
fn expressions_broadcast_at_every_rank() {
    let nodes = vec![
        node("Mul", &["a", "b"], &["p"], vec![]),
        node("Neg", &["p"], &["n"], vec![]),
        node("Add", &["n", "a"], &["y"], vec![]),
    ];
    let code = compiled(nodes, &["a", "b"], F32);
    check(&code, &[counted(&[]), counted(&[])], &[], &[0.0]);
    check(&code, &[counted(&[2]), counted(&[2])], &[2], &[0.0, -2.0]);
    check(
        &code,
        &[counted(&[2, 1]), counted(&[3])],
        &[2, 3],
        &[0.0, -1.0, -2.0, 0.0, -2.0, -4.0],
    );
    check(&code, &[counted(&[0, 2]), counted(&[1])], &[0, 2], &[]);
    let error = run(&code, &[counted(&[2]), counted(&[3])]).unwrap_err();
    assert!(error.to_string().contains("broadcast"), "{error}");
}

#[test]
fn choices_and_conversions_are_expressions_too() {
    let nodes = vec![
        node("Greater", &["a", "b"], &["c"], vec![]),
        node("Where", &["c", "a", "b"], &["w"], vec![]),
        node("Identity", &["w"], &["i"], vec![]),
        node("Cast", &["i"], &["y"], vec![int("to", I64.into())]),
    ];
    let code = compiled(nodes, &["a", "b"], I64);
    let b = Tensor::scalar(2.0f32);
    let found = run(&code, &[counted(&[1, 3, 1]), b]).unwrap();
    assert_eq!((found.dtype(), found.shape()), (DType::I64, &[1, 3, 1][..]));
    assert_eq!(found.as_slice::<i64>().unwrap(), [2, 2, 3]);
}

#[test]
fn reductions_over_stated_axes_and_over_all() {
    let axes = node("Constant", &[], &["axes"], vec![ints("value_ints", &[-1])]);
    let over = |keep| {
        let attributes = vec![int("keepdims", keep)];
        let sum = node("ReduceSum", &["a", "axes"], &["y"], attributes);
        // ReduceSum takes its axes as an input from opset 13 on.
        compiled(vec![axes.clone(), sum], &["a"], F32)
    };
    check(&over(1), &[counted(&[2, 3])], &[2, 1], &[6.0, 15.0]);
    check(&over(0), &[counted(&[2, 3])], &[2], &[6.0, 15.0]);
    check(&over(0), &[counted(&[3])], &[], &[6.0]);
    let all = |keep| {
        let max = node("ReduceMax", &["a"], &["y"], vec![int("keepdims", keep)]);
        compiled(vec![max], &["a"], F32)
    };
    check(&all(0), &[counted(&[2, 2])], &[], &[4.0]);
    check(&all(1), &[counted(&[2, 2, 1])], &[1, 1, 1], &[4.0]);
    let error = run(&over(0), &[counted(&[])]).unwrap_err();
    assert!(error.to_string().contains("axis"), "{error}");
}

#[test]
fn products_of_vectors_matrices_and_batches() {
    let code = compiled(
        vec![node("MatMul", &["a", "b"], &["y"], vec![])],
        &["a", "b"],
        F32,
    );
    check(&code, &[counted(&[2]), counted(&[2])], &[], &[5.0]);
    check(
        &code,
        &[counted(&[2, 2]), counted(&[2])],
        &[2],
        &[5.0, 11.0],
    );
    check(
        &code,
        &[counted(&[2]), counted(&[2, 2])],
        &[2],
        &[7.0, 10.0],
    );
    check(
        &code,
        &[counted(&[2, 1, 2]), counted(&[2, 1])],
        &[2, 1, 1],
        &[5.0, 11.0],
    );
    check(
        &code,
        &[counted(&[1, 2]), counted(&[2, 2, 1])],
        &[2, 1, 1],
        &[5.0, 11.0],
    );
    let error = run(&code, &[counted(&[2, 3]), counted(&[2])]).unwrap_err();
    assert!(error.to_string().contains("inner"), "{error}");
}

#[test]
fn axes_are_taken_away_and_put_in() {
    let axes = node("Constant", &[], &["axes"], vec![ints("value_ints", &[0])]);
    let nodes = vec![
        axes,
        node("Unsqueeze", &["a", "axes"], &["u"], vec![]),
        node("Neg", &["u"], &["n"], vec![]),
        node("Squeeze", &["n", "axes"], &["y"], vec![]),
    ];
    let code = compiled(nodes, &["a"], F32);
    check(&code, &[counted(&[])], &[], &[-1.0]);
    check(&code, &[counted(&[1, 2])], &[1, 2], &[-1.0, -2.0]);
    let all = compiled(vec![node("Squeeze", &["a"], &["y"], vec![])], &["a"], F32);
    check(&all, &[counted(&[1, 2, 1])], &[2], &[1.0, 2.0]);
    check(&all, &[counted(&[1])], &[], &[1.0]);
}

#[test]
fn an_operator_that_has_a_rank_of_its_own_takes_a_value_of_that_rank() {
    let nodes = vec![
        node("Transpose", &["a"], &["t"], vec![ints("perm", &[1, 0])]),
        node("Gemm", &["t", "b"], &["y"], vec![]),
    ];
    let code = compiled(nodes, &["a", "b"], F32);
    check(
        &code,
        &[counted(&[2, 1]), counted(&[2, 1])],
        &[1, 1],
        &[5.0],
    );
    let error = run(&code, &[counted(&[2]), counted(&[2, 1])]).unwrap_err();
    assert!(error.to_string().contains("rank"), "{error}");

    let pool = node("MaxPool", &["a"], &["y"], vec![ints("kernel_shape", &[2])]);
    let code = compiled(vec![pool], &["a"], F32);
    check(&code, &[counted(&[1, 1, 3])], &[1, 1, 2], &[2.0, 3.0]);
}

#[test]
fn values_are_joined_along_an_axis_from_the_end() {
    let join = node("Concat", &["a", "b"], &["y"], vec![int("axis", -1)]);
    let code = compiled(vec![join], &["a", "b"], F32);
    check(
        &code,
        &[counted(&[2]), counted(&[1])],
        &[3],
        &[1.0, 2.0, 1.0],
    );
    check(
        &code,
        &[counted(&[2, 1]), counted(&[2, 2])],
        &[2, 3],
        &[1.0, 1.0, 2.0, 2.0, 3.0, 4.0],
    );
    check(&code, &[counted(&[0, 2]), counted(&[0, 1])], &[0, 3], &[]);
    let error = run(&code, &[counted(&[2, 1]), counted(&[3, 1])]).unwrap_err();
    assert!(error.to_string().contains("sizes"), "{error}");
}

#[test]
fn parts_are_cut_out() {
    let list = |name: &str, v: &[i64]| node("Constant", &[], &[name], vec![ints("value_ints", v)]);
    let nodes = vec![
        list("starts", &[1]),
        list("ends", &[9]),
        list("axes", &[-1]),
        node("Slice", &["a", "starts", "ends", "axes"], &["s"], vec![]),
        node(
            "Split",
            &["s"],
            &["p", "q"],
            vec![int("axis", -1), int("num_outputs", 2)],
        ),
        node("Sub", &["q", "p"], &["y"], vec![]),
    ];
    let code = compiled(nodes, &["a"], F32);
    check(&code, &[counted(&[5])], &[2], &[2.0, 2.0]);
    check(&code, &[counted(&[2, 3])], &[2, 1], &[1.0, 1.0]);
    let error = run(&code, &[counted(&[])]).unwrap_err();
    assert!(error.to_string().contains("axis"), "{error}");
}
