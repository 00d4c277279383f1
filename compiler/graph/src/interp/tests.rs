//! Hand-computed cases, written in the text form over constants.

use super::{InterpError, Options, fold_node, run, run_with};
use crate::text::{data_text, parse};
use crate::{DType, Graph, NodeId, PwOp, Scalar, TensorData};

fn graph(symbols: &str, body: &str) -> Graph {
    let text = format!("graph \"t\" [{symbols}] {{\n{body}\n  output \"y\" %y\n}}\n");
    parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The result `%y` as text, or the error.
fn eval(body: &str) -> String {
    let graph = graph("", body);
    match run(&graph, &[]) {
        Ok(r) => r.iter().map(data_text).collect::<Vec<_>>().join("; "),
        Err(e) => e.to_string(),
    }
}

/// Each case: constants `@a`, `@b`, … , the node's text, the result.
fn check(cases: &[(&[&str], &str, &str)]) {
    let mut wrong = Vec::new();
    for (constants, node, expected) in cases {
        let mut body = String::new();
        for (i, c) in constants.iter().enumerate() {
            body.push_str(&format!("  const @{}: {c}\n", (b'a' + i as u8) as char));
        }
        body.push_str(&format!("  {node}"));
        let found = eval(&body);
        if found != *expected {
            wrong.push(format!(
                "{constants:?} {node}\n  expected {expected}\n  found    {found}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pointwise_operations_follow_onnx() {
    let f = "f32[4] = [-1.5, 0.0, 2.5, nan]";
    let i = "i32[4] = [-7, 7, -7, 7]";
    let j = "i32[4] = [2, -2, 0, 3]";
    check(&[
        (
            &[f],
            "%y: f32[4] = pointwise (a = @a) => max(a, 0.0)",
            "f32[4] [0.0, 0.0, 2.5, nan]",
        ),
        (
            &[f],
            "%y: f32[4] = pointwise (a = @a) => min(max(a, -1.0), 1.0)",
            "f32[4] [-1.0, 0.0, 1.0, nan]",
        ),
        (
            &[f],
            "%y: f32[4] = pointwise (a = @a) => round(a)",
            "f32[4] [-2.0, 0.0, 2.0, nan]",
        ),
        (
            &[f],
            "%y: f32[4] = pointwise (a = @a) => sign(a)",
            "f32[4] [-1.0, 0.0, 1.0, nan]",
        ),
        (
            &[f],
            "%y: bool[4] = pointwise (a = @a) => a < 1.0 | isnan(a)",
            "bool[4] [true, true, false, true]",
        ),
        (
            &[f],
            "%y: i32[4] = pointwise (a = @a) => i32(a)",
            "i32[4] [-1, 0, 2, 0]",
        ),
        (
            &[f],
            "%y: u8[4] = pointwise (a = @a) => u8(a * 1000.0)",
            "u8[4] [0, 0, 255, 0]",
        ),
        (
            &[f],
            "%y: bool[4] = pointwise (a = @a) => bool(a)",
            "bool[4] [true, false, true, true]",
        ),
        (
            &[i, j],
            "%y: i32[4] = pointwise (a = @a, b = @b) => a / b",
            "i32[4] [-3, -3, 0, 2]",
        ),
        (
            &[i, j],
            "%y: i32[4] = pointwise (a = @a, b = @b) => mod(a, b)",
            "i32[4] [1, -1, 0, 1]",
        ),
        (
            &[i, j],
            "%y: i32[4] = pointwise (a = @a, b = @b) => fmod(a, b)",
            "i32[4] [-1, 1, 0, 1]",
        ),
        (
            &[i, j],
            "%y: i32[4] = pointwise (a = @a, b = @b) => pow(a, b)",
            "i32[4] [49, 0, 1, 343]",
        ),
        (
            &["f32[2] = [-7.0, 7.0]"],
            "%y: f32[2] = pointwise (a = @a) => mod(a, 3.0)",
            "f32[2] [2.0, 1.0]",
        ),
        (
            &["f32[2] = [-7.0, 7.0]"],
            "%y: f32[2] = pointwise (a = @a) => fmod(a, 3.0)",
            "f32[2] [-1.0, 1.0]",
        ),
        (
            &["u8[3] = [1, 255, 3]"],
            "%y: u8[3] = pointwise (a = @a) => a + 2:u8",
            "u8[3] [3, 1, 5]",
        ),
        (
            &["i8[2] = [-128, 127]"],
            "%y: i8[2] = pointwise (a = @a) => -a",
            "i8[2] [-128, -127]",
        ),
        (
            &["i8[2] = [-128, 1]"],
            "%y: i8[2] = pointwise (a = @a) => a / -1:i8",
            "i8[2] [-128, -1]",
        ),
        (
            &["u16[3] = [1, 15, 16]"],
            "%y: u16[3] = pointwise (a = @a) => 1:u16 << a",
            "u16[3] [2, 32768, 0]",
        ),
        (
            &["i64[2] = [300, -1]"],
            "%y: u8[2] = pointwise (a = @a) => u8(a)",
            "u8[2] [44, 255]",
        ),
        (
            &["f32[1] = [1.0]"],
            "%y: u32[1] = pointwise (a = @a) => bits_u32(a)",
            "u32[1] [1065353216]",
        ),
        (
            &["f16[2] = [2048.0, 1.0]"],
            "%y: f16[2] = pointwise (a = @a) => a + 1.0:f16",
            "f16[2] [2048.0, 2.0]",
        ),
        (
            &["bf16[1] = [1.0]"],
            "%y: bf16[1] = pointwise (a = @a) => a + 0.001:bf16",
            "bf16[1] [1.0]",
        ),
        (
            &["f32[2, 1] = [1.0, 2.0]", "f32[3] = [10.0, 20.0, 30.0]"],
            "%y: f32[2, 3] = pointwise (a = @a, b = @b) => a + b",
            "f32[2, 3] [11.0, 21.0, 31.0, 12.0, 22.0, 32.0]",
        ),
        (
            &[],
            "%y: i64[2, 2] = pointwise {shape: [2, 2]} () => index(0) * 10 + index(1) + dim(7)",
            "i64[2, 2] [7, 8, 17, 18]",
        ),
        (
            &["f32[0] = []", "f32[1] = [1.0]"],
            "%y: f32[0] = pointwise (a = @a, b = @b) => a + b",
            "f32[0] []",
        ),
        (
            &["f32[3] = [0.0, 1.0, -2.0]"],
            "%y: f32[3] = pointwise (a = @a) => erf(a)",
            "f32[3] [0.0, 0.8427008, -0.9953223]",
        ),
        (
            &["f32[2] = [0.0, -100.0]"],
            "%y: f32[2] = pointwise (a = @a) => sigmoid(a)",
            "f32[2] [0.5, 3.8e-44]",
        ),
    ]);
}

#[test]
fn erf_is_exact_to_a_few_units() {
    // Values of the error function to 17 digits.
    for (x, y) in [
        (0.1, 0.112_462_916_018_284_9),
        (0.5, 0.520_499_877_813_046_5),
        (1.0, 0.842_700_792_949_714_9),
        (2.0, 0.995_322_265_018_952_7),
        (3.0, 0.999_977_909_503_001_4),
        (4.0, 0.999_999_984_582_742_1),
    ] {
        let found = super::erf(x);
        assert!((found - y).abs() <= 4e-16, "erf({x}) = {found}, not {y}");
        assert_eq!(super::erf(-x), -found);
        assert!((super::math::erf_inv(y) - x).abs() < 0.01 * x);
    }
}

#[test]
fn every_scalar_operation_has_a_value_for_every_type_it_takes() {
    let ops = [
        PwOp::Neg,
        PwOp::Abs,
        PwOp::Sign,
        PwOp::Sqrt,
        PwOp::Exp,
        PwOp::Erf,
        PwOp::IsNan,
        PwOp::Not,
        PwOp::Add,
        PwOp::Div,
        PwOp::Mod,
        PwOp::Fmod,
        PwOp::Pow,
        PwOp::Min,
        PwOp::And,
        PwOp::Xor,
        PwOp::Shl,
        PwOp::Shr,
        PwOp::Eq,
        PwOp::Lt,
        PwOp::Select,
        PwOp::Cast,
    ];
    for t in DType::ALL.into_iter().filter(|t| *t != DType::String) {
        for op in &ops {
            let mut args = vec![Scalar::of(t, 1.0); op.arity()];
            if *op == PwOp::Select {
                args[0] = Scalar::bool(true);
            }
            for result in DType::ALL {
                let nodes = (0..args.len() as u32)
                    .map(|i| crate::PwNode {
                        op: PwOp::Input(i),
                        args: vec![],
                        dtype: args[i as usize].dtype,
                    })
                    .chain([crate::PwNode {
                        op: op.clone(),
                        args: (0..args.len() as u32).map(crate::PwRef).collect(),
                        dtype: result,
                    }]);
                let body = crate::Pointwise {
                    nodes: nodes.collect(),
                    inputs: args.len() as u32,
                };
                if crate::infer::check_body(&body, None).is_ok() {
                    assert!(
                        super::eval_scalar(op, &args, result).is_some(),
                        "{op:?} {t} {result}"
                    );
                }
            }
        }
    }
}

#[test]
fn contractions_and_windows_are_sums_of_products() {
    let m = "f32[2, 2] = [1.0, 2.0, 3.0, 4.0]";
    let img = "f32[1, 1, 3, 3] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]";
    let ones = "f32[1, 1, 2, 2] = [1.0, 1.0, 1.0, 1.0]";
    let conv = "%y: f32[*] = conv";
    check(&[
        (
            &[m, m],
            "%y: f32[2, 2] = contract \"ab,bc->ac\" @a, @b",
            "f32[2, 2] [7.0, 10.0, 15.0, 22.0]",
        ),
        (
            &[m, m],
            "%y: f32[2, 2] = contract \"ab,cb->ca\" @a, @b",
            "f32[2, 2] [5.0, 11.0, 11.0, 25.0]",
        ),
        (
            &[m, m],
            "%y: f32[] = contract \"aa,bb->\" @a, @b",
            "f32[] [25.0]",
        ),
        (
            &["i8[2] = [100, 100]", "i8[2] = [2, 1]"],
            "%y: i8[] = contract \"a,a->\" @a, @b",
            "i8[] [44]",
        ),
        (
            &[
                "f32[1, 2] = [1.0, 2.0]",
                "f32[3, 2] = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]",
            ],
            "%y: f32[3] = contract \"ab,ab->a\" @a, @b",
            "f32[3] [3.0, 6.0, 9.0]",
        ),
        (
            &[img, ones],
            &format!("{conv} {{kernel: [2, 2]}} @a, @b"),
            "f32[1, 1, 2, 2] [12.0, 16.0, 24.0, 28.0]",
        ),
        (
            &[img, ones, "f32[1] = [0.5]"],
            &format!(
                "{conv} {{kernel: [2, 2], strides: [2, 2], pads_begin: [1, 1], pads_end: [0, 0]}} @a, @b, @c"
            ),
            "f32[1, 1, 2, 2] [1.5, 5.5, 11.5, 28.5]",
        ),
        (
            &[img, ones],
            &format!("{conv} {{kernel: [2, 2], dilations: [2, 2]}} @a, @b"),
            "f32[1, 1, 1, 1] [20.0]",
        ),
        (
            &[
                "f32[1, 2, 2] = [1.0, 2.0, 3.0, 4.0]",
                "f32[2, 1, 1] = [10.0, 100.0]",
            ],
            &format!("{conv} {{kernel: [1], groups: 2}} @a, @b"),
            "f32[1, 2, 2] [10.0, 20.0, 300.0, 400.0]",
        ),
        (
            &[
                "f32[1, 2, 2] = [1.0, 2.0, 3.0, 4.0]",
                "f32[1, 2, 1] = [10.0, 100.0]",
            ],
            &format!("{conv} {{kernel: [1], layout: channels_last}} @a, @b"),
            "f32[1, 2, 1] [210.0, 430.0]",
        ),
        (
            &[
                "f32[1, 1, 2] = [1.0, 2.0]",
                "f32[1, 1, 3] = [1.0, 10.0, 100.0]",
            ],
            "%y: f32[*] = conv_transpose {kernel: [3], strides: [2]} @a, @b",
            "f32[1, 1, 5] [1.0, 10.0, 102.0, 20.0, 200.0]",
        ),
        (
            &[
                "f32[1, 1, 2] = [1.0, 2.0]",
                "f32[1, 1, 3] = [1.0, 10.0, 100.0]",
            ],
            "%y: f32[*] = conv_transpose {kernel: [3], strides: [2], pads_begin: [1], pads_end: [1], output_padding: [1]} @a, @b",
            "f32[1, 1, 4] [10.0, 102.0, 20.0, 200.0]",
        ),
        (
            &[img],
            "%y: f32[*] = pool {kind: max, kernel: [2, 2], strides: [2, 2], pads_end: [1, 1], out: [2, 2]} @a",
            "f32[1, 1, 2, 2] [5.0, 6.0, 8.0, 9.0]",
        ),
        (
            &[img],
            "%y: f32[*] = pool {kind: average, kernel: [2, 2], strides: [2, 2], out: [2, 2]} @a",
            "f32[1, 1, 2, 2] [3.0, 4.5, 7.5, 9.0]",
        ),
        (
            &[img],
            "%y: f32[*] = pool {kind: average, count_padding: true, kernel: [2, 2], strides: [2, 2], pads_end: [1, 1], out: [2, 2]} @a",
            "f32[1, 1, 2, 2] [3.0, 2.25, 3.75, 2.25]",
        ),
        (
            &["f32[1, 1, 3] = [3.0, 6.0, 9.0]"],
            "%y: f32[*] = pool {kind: average, kernel: [2], dilations: [2], pads_begin: [2], pads_end: [1], out: [3]} @a",
            "f32[1, 1, 3] [3.0, 6.0, 6.0]",
        ),
        // Far more taps than elements.
        (
            &["f32[1, 1, 2] = [1.0, 2.0]"],
            "%y: f32[*] = pool {kind: average, count_padding: true, kernel: [1000000000001], pads_begin: [500000000000], pads_end: [500000000000], out: [2]} @a",
            "f32[1, 1, 2] [3e-12, 3e-12]",
        ),
        (
            &["f32[1, 1, 2] = [3.0, 4.0]"],
            "%y: f32[*] = pool {kind: lp, p: 2, kernel: [2], out: [1]} @a",
            "f32[1, 1, 1] [5.0]",
        ),
        (
            &["i8[1, 1, 2] = [-3, -4]"],
            "%y: i8[*] = pool {kind: max, kernel: [2], pads_begin: [1], out: [2]} @a",
            "i8[1, 1, 2] [-3, -3]",
        ),
    ]);
}

#[test]
fn attention_mixes_values_by_softmax() {
    let q = "f32[1, 2, 1, 1] = [0.0, 0.0]";
    let k = "f32[1, 1, 2, 1] = [1.0, 2.0]";
    let v = "f32[1, 1, 2, 1] = [10.0, 30.0]";
    check(&[
        (
            &[q, k, v],
            "%y: f32[*] = attention {scale: 1.0} @a, @b, @c",
            "f32[1, 2, 1, 1] [20.0, 20.0]",
        ),
        (
            &["f32[1, 1, 2, 1] = [0.0, 0.0]", k, v],
            "%y: f32[*] = attention {scale: 1.0, causal: true} @a, @b, @c",
            "f32[1, 1, 2, 1] [10.0, 20.0]",
        ),
        (
            &[q, k, v, "f32[1, 2] = [0.0, -inf]"],
            "%y: f32[*] = attention {scale: 1.0, mask: true} @a, @b, @c, @d",
            "f32[1, 2, 1, 1] [10.0, 10.0]",
        ),
    ]);
}

#[test]
fn attention_has_a_window_a_cap_and_a_sink() {
    let (q, k) = (
        "f32[1, 1, 1, 1] = [0.0]",
        "f32[1, 1, 4, 1] = [0.0, 0.0, 0.0, 0.0]",
    );
    let v = "f32[1, 1, 4, 1] = [10.0, 20.0, 30.0, 40.0]";
    check(&[
        (
            &[q, k, v, "i32[1] = [2]"],
            "%y: f32[*] = attention {scale: 1.0, causal: true, first: true} @a, @b, @c, @d",
            "f32[1, 1, 1, 1] [20.0]",
        ),
        (
            &[q, k, v, "i32[1] = [2]"],
            "%y: f32[*] = attention {scale: 1.0, causal: true, window: 2, first: true} @a, @b, @c, @d",
            "f32[1, 1, 1, 1] [25.0]",
        ),
        (
            &[q, k, v, "f32[1] = [0.0]"],
            "%y: f32[*] = attention {scale: 1.0, sink: true} @a, @b, @c, @d",
            "f32[1, 1, 1, 1] [20.0]",
        ),
        (
            &[
                "f32[1, 1, 1, 1] = [1000.0]",
                "f32[1, 1, 2, 1] = [1.0, 2.0]",
                "f32[1, 1, 2, 1] = [10.0, 30.0]",
            ],
            "%y: f32[*] = attention {scale: 1.0, softcap: 1.0} @a, @b, @c",
            "f32[1, 1, 1, 1] [20.0]",
        ),
    ]);
}

#[test]
fn reductions_and_rows() {
    let x = "f32[2, 2] = [1.0, 2.0, 3.0, 4.0]";
    let reduce = |kind: &str| format!("%y: f32[*] = reduce {{kind: {kind}, axes: [1]}} @a");
    let i = "i32[2, 2] = [-3, 4, 5, 7]";
    let reduce_int = |kind: &str| format!("%y: i32[*] = reduce {{kind: {kind}, axes: [1]}} @a");
    check(&[
        (&[x], &reduce("sum"), "f32[2] [3.0, 7.0]"),
        (&[x], &reduce("mean"), "f32[2] [1.5, 3.5]"),
        (&[x], &reduce("prod"), "f32[2] [2.0, 12.0]"),
        (&[x], &reduce("sum_square"), "f32[2] [5.0, 25.0]"),
        (&[x], &reduce("l2"), "f32[2] [2.236068, 5.0]"),
        (&[x], &reduce("log_sum"), "f32[2] [1.0986123, 1.9459101]"),
        (
            &[x],
            &reduce("log_sum_exp"),
            "f32[2] [2.3132617, 4.3132615]",
        ),
        (&["f32[1, 2] = [1.0, nan]"], &reduce("max"), "f32[1] [nan]"),
        (&["f32[2, 0] = []"], &reduce("max"), "f32[2] [-inf, -inf]"),
        (&["f32[2, 0] = []"], &reduce("sum"), "f32[2] [0.0, 0.0]"),
        (&["f32[1, 0] = []"], &reduce("mean"), "f32[1] [nan]"),
        (
            &["i32[1, 0] = []"],
            &reduce_int("min"),
            "i32[1] [2147483647]",
        ),
        (&[i], &reduce_int("mean"), "i32[2] [0, 6]"),
        (&[i], &reduce_int("l1"), "i32[2] [7, 12]"),
        (
            &["bool[1, 2] = [true, false]"],
            "%y: bool[*] = reduce {kind: and, axes: [0, 1], keep: true} @a",
            "bool[1, 1] [false]",
        ),
        (
            &[x],
            "%y: f32[*] = reduce {kind: sum, axes: []} @a",
            "f32[2, 2] [1.0, 2.0, 3.0, 4.0]",
        ),
        (
            &["f32[3] = [2.0, 5.0, 5.0]"],
            "%y: i64[*] = arg_reduce {kind: max, axis: 0} @a",
            "i64[] [1]",
        ),
        (
            &["f32[3] = [2.0, 5.0, 5.0]"],
            "%y: i64[*] = arg_reduce {kind: max, axis: 0, keep: true, last: true} @a",
            "i64[1] [2]",
        ),
        (
            &["f32[3] = [1.0, 2.0, 3.0]"],
            "%y: f32[3] = cumsum {axis: 0} @a",
            "f32[3] [1.0, 3.0, 6.0]",
        ),
        (
            &["f32[3] = [1.0, 2.0, 3.0]"],
            "%y: f32[3] = cumsum {axis: 0, exclusive: true, reverse: true} @a",
            "f32[3] [5.0, 3.0, 0.0]",
        ),
        (
            &["f32[2] = [0.0, 0.6931472]"],
            "%y: f32[2] = softmax {axis: 0} @a",
            "f32[2] [0.33333334, 0.6666667]",
        ),
        (
            &["f32[2] = [1000.0, 1000.0]"],
            "%y: f32[2] = softmax {axis: 0, log: true} @a",
            "f32[2] [-0.6931472, -0.6931472]",
        ),
        (
            &[
                "f32[1, 2] = [1.0, 3.0]",
                "f32[2] = [10.0, 100.0]",
                "f32[1] = [0.5]",
            ],
            "%y: f32[1, 2] = normalize {kind: layer, axis: 1, epsilon: 0.0} @a, @b, @c",
            "f32[1, 2] [-9.5, 100.5]",
        ),
        (
            &["f32[1, 2] = [1.0, 7.0]"],
            "%y: f32[1, 2] = normalize {kind: rms, axis: 1, epsilon: 0.0} @a",
            "f32[1, 2] [0.2, 1.4]",
        ),
    ]);
}

#[test]
fn views_move_elements() {
    let x = "i64[2, 3] = [1, 2, 3, 4, 5, 6]";
    let r = "i64[3] = [1, 2, 3]";
    let pad = |mode: &str| format!("%y: i64[*] = pad {{before: [2], after: [4], mode: {mode}}} @a");
    check(&[
        (
            &[x],
            "%y: i64[3, 2] = transpose {perm: [1, 0]} @a",
            "i64[3, 2] [1, 4, 2, 5, 3, 6]",
        ),
        (
            &[x],
            "%y: i64[6] = reshape {shape: [6]} @a",
            "i64[6] [1, 2, 3, 4, 5, 6]",
        ),
        (
            &["i64[2, 1] = [1, 2]"],
            "%y: i64[*] = broadcast {shape: [2, 2, 2]} @a",
            "i64[2, 2, 2] [1, 1, 2, 2, 1, 1, 2, 2]",
        ),
        (
            &[x],
            "%y: i64[*] = slice {start: [1, 2], step: [1, -2], size: [1, 2]} @a",
            "i64[1, 2] [6, 4]",
        ),
        (
            &[x, "i64[2, 1] = [7, 8]"],
            "%y: i64[*] = concat {axis: 1} @a, @b",
            "i64[2, 4] [1, 2, 3, 7, 4, 5, 6, 8]",
        ),
        (
            &[r, "i64[] = [9]"],
            "%y: i64[*] = pad {before: [1], after: [-1]} @a, @b",
            "i64[3] [9, 1, 2]",
        ),
        (&[r], &pad("edge"), "i64[9] [1, 1, 1, 2, 3, 3, 3, 3, 3]"),
        (&[r], &pad("wrap"), "i64[9] [2, 3, 1, 2, 3, 1, 2, 3, 1]"),
        (&[r], &pad("reflect"), "i64[9] [3, 2, 1, 2, 3, 2, 1, 2, 3]"),
        (
            &["string[2] = [\"a\", \"b\"]", "i64[2] = [1, 0]"],
            "%y: string[*] = gather {axis: 0} @a, @b",
            "string[2] [\"b\", \"a\"]",
        ),
    ]);
}

#[test]
fn gathers_and_scatters_check_their_indices() {
    let x = "i64[2, 3] = [1, 2, 3, 4, 5, 6]";
    check(&[
        (
            &[x, "i64[2] = [2, -3]"],
            "%y: i64[*] = gather {axis: 1} @a, @b",
            "i64[2, 2] [3, 1, 6, 4]",
        ),
        (
            &[x, "i64[] = [-1]"],
            "%y: i64[*] = gather {axis: 0} @a, @b",
            "i64[3] [4, 5, 6]",
        ),
        (
            &[x, "i64[] = [2]"],
            "%y: i64[*] = gather {axis: 0} @a, @b ; /g",
            "node n0 '/g': index 2 is out of range for axis 0 of size 2",
        ),
        (
            &[x, "i32[2, 1] = [2, -3]"],
            "%y: i64[*] = gather_elements {axis: 1} @a, @b",
            "i64[2, 1] [3, 4]",
        ),
        (
            &[x, "i64[2, 2] = [0, 1, 1, -1]"],
            "%y: i64[*] = gather_nd @a, @b",
            "i64[2] [2, 6]",
        ),
        (
            &[x, "i64[2, 1] = [0, 2]"],
            "%y: i64[*] = gather_nd {batch: 1} @a, @b",
            "i64[2] [1, 6]",
        ),
        (
            &[x, "i64[1, 1] = [-2]"],
            "%y: i64[*] = gather_nd @a, @b",
            "i64[1, 3] [1, 2, 3]",
        ),
        (
            &["i64[3] = [1, 2, 3]", "i64[2] = [1, 1]", "i64[2] = [10, 20]"],
            "%y: i64[*] = scatter_elements {axis: 0, reduce: add} @a, @b, @c",
            "i64[3] [1, 32, 3]",
        ),
        (
            &["i64[3] = [1, 2, 3]", "i64[2] = [1, 1]", "i64[2] = [10, 20]"],
            "%y: i64[*] = scatter_elements {axis: 0} @a, @b, @c",
            "i64[3] [1, 20, 3]",
        ),
        (
            &[x, "i64[1, 1] = [1]", "i64[1, 3] = [0, 9, 5]"],
            "%y: i64[*] = scatter_nd {reduce: max} @a, @b, @c",
            "i64[2, 3] [1, 2, 3, 4, 9, 6]",
        ),
        (
            &[x, "i64[1, 1] = [-3]", "i64[1, 3] = [0, 9, 5]"],
            "%y: i64[*] = scatter_nd @a, @b, @c ; /s",
            "node n0 '/s': index -3 is out of range for axis 0 of size 2",
        ),
    ]);
}

#[test]
fn trees_add_their_leaves() {
    let stump = "nodes: [branch(0, le, 0.5, 1, 2, missing), leaf(0, 1), leaf(1, 1)]";
    let regressor = format!(
        "%y: f32[*] = trees {{targets: 1, aggregate: sum, post: none, base: [0.5], roots: [0, 0], weights: [(0, 1.0), (0, 2.0)], {stump}}} @a"
    );
    let classifier = format!(
        "%y: i64[*], %s: f32[*] = trees {{targets: 2, aggregate: sum, post: softmax, labels: [7, 8], roots: [0], weights: [(0, 1.0), (1, 1.0)], {stump}}} @a"
    );
    check(&[
        (
            &["f32[3, 1] = [0.5, 0.6, nan]"],
            &regressor,
            "f32[3, 1] [2.5, 4.5, 2.5]",
        ),
        (&["f32[2, 1] = [0.0, 1.0]"], &classifier, "i64[2] [7, 8]"),
    ]);
}

#[test]
fn symbols_are_bound_by_the_inputs_and_by_results() {
    let g = graph(
        "n, found",
        "  input %x: f32[n, 2]\n  %i: i64[found] = library \"find\" %x\n  %y: f32[found, 2] = gather {axis: 0} %x, %i",
    );
    let x = TensorData::from_f32(vec![2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let hook = |call: &crate::op::LibraryCall, _: &[Option<&TensorData>]| {
        (call.name == "find").then(|| Ok(vec![TensorData::from_i64(vec![1], &[1])]))
    };
    let options = Options {
        library: Some(&hook),
        ..Options::default()
    };
    let y = run_with(&g, std::slice::from_ref(&x), &options).map(|r| data_text(&r[0]));
    assert_eq!(y.as_deref(), Ok("f32[1, 2] [3.0, 4.0]"));
    assert!(matches!(
        run(&g, &[x]),
        Err(InterpError::Unsupported { .. })
    ));
    let wrong = TensorData::from_f32(vec![2, 1], &[1.0, 2.0]);
    let e = run(&g, &[wrong]).unwrap_err().to_string();
    assert_eq!(
        e,
        "input 'x': expected f32[n, 2], found f32[2, 1] with 8 bytes"
    );
}

#[test]
fn what_was_not_proved_is_checked() {
    let g = graph(
        "n, m",
        "  input %a: f32[n]\n  input %b: f32[m]\n  %y: f32[broadcast(n, m)] = pointwise (a = %a, b = %b) => a + b   ; /Add",
    );
    let v = |n: usize| TensorData::from_f32(vec![n as i64], &vec![1.0; n]);
    assert_eq!(
        run(&g, &[v(1), v(3)]).map(|r| r[0].dims.clone()),
        Ok(vec![3])
    );
    assert_eq!(
        run(&g, &[v(0), v(1)]).map(|r| r[0].dims.clone()),
        Ok(vec![0])
    );
    let e = run(&g, &[v(2), v(3)]).unwrap_err().to_string();
    assert_eq!(
        e,
        "node n0 '/Add': pointwise: input 1, axis 0: dimensions 2 and 3 cannot be broadcast to each other"
    );
}

#[test]
fn a_limit_ends_a_run_with_an_error_of_its_own() {
    let g = graph(
        "",
        "  const @a: f32[100] = splat(1.0)\n  %b: f32[100, 100] = broadcast {shape: [100, 100]} @a\n  %y: f32[] = contract \"ab,ab->\" %b, %b",
    );
    let with = |most_elements, most_work| {
        let options = Options {
            most_elements,
            most_work,
            ..Options::default()
        };
        run_with(&g, &[], &options)
    };
    assert!(with(10_000, 30_000).is_ok());
    assert!(matches!(
        with(9_999, 30_000),
        Err(InterpError::Elements { limit: 9_999, .. })
    ));
    assert!(matches!(
        with(10_000, 10_000),
        Err(InterpError::Work { limit: 10_000, .. })
    ));
}

#[test]
fn only_small_constant_nodes_are_folded() {
    let fold = |symbols: &str, body: &str| {
        let g = graph(symbols, body);
        fold_node(&g, NodeId(0)).map(|r| data_text(&r[0]))
    };
    assert_eq!(
        fold(
            "",
            "  const @a: i64[2] = [1, 2]\n  %y: i64[2] = pointwise (a = @a) => a * 2"
        )
        .as_deref(),
        Some("i64[2] [2, 4]")
    );
    assert_eq!(
        fold("n", "  input %x: f32[n]\n  %y: i64[1] = shape {dims: [n]}"),
        None
    );
    assert_eq!(
        fold(
            "n",
            "  input %x: f32[n]\n  %y: f32[n] = pointwise (a = %x) => a"
        ),
        None
    );
    assert_eq!(
        fold(
            "",
            "  const @a: f32[] = [1.0]\n  %y: f32[1000000] = broadcast {shape: [1000000]} @a"
        ),
        None
    );
}
