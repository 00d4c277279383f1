//! Small graphs in their text form, compiled at every level that this machine has, against the
//! interpreter: one graph for each way in which generated code and the meaning of a graph could part.

mod common;

use common::{agrees, compiled, f32s, lowered, tensor};
use lapidary_graph::{DType, TensorData, text};
use lapidary_link::{PlanOptions, host_level};

const SHARED_INDEX: &str = r#"
graph "two gathers by one index, of axes of different size" [n] {
  input %i: i64[n]
  input %a: f32[7, 2]
  input %b: f32[5, 2]
  %x: f32[n, 2] = gather {axis: 0} %a, %i   ; /first
  %y: f32[n, 2] = gather {axis: 0} %b, %i   ; /second
  %z: f32[n, 2] = pointwise (a = %x, b = %y) => a + b   ; /add
  output "z" %z
}
"#;

fn two_tables() -> [TensorData; 2] {
    let values: Vec<f32> = (0..14).map(|v| v as f32 * 1.5 - 4.0).collect();
    [f32s(&[7, 2], &values), f32s(&[5, 2], &values[..10])]
}

#[test]
fn a_shared_index_counts_from_the_end_of_each_axis() {
    let [a, b] = two_tables();
    let i = tensor(DType::I64, &[3], &[4, -1i64 as u64, -5i64 as u64]);
    agrees(SHARED_INDEX, &[i, a, b]);
}

#[test]
fn a_shared_index_is_checked_against_each_axis() {
    let [a, b] = two_tables();
    let i = tensor(DType::I64, &[1], &[6]);
    let graph = text::parse(SHARED_INDEX).expect("the graph parses");
    let error = compiled(&graph, &[i, a, b], host_level()).expect_err("6 lies outside of 5");
    assert!(error.contains("index 6"), "{error}");
}

const NEGATIVE_SIZES: &str = r#"
graph "a reshape that no size allows, undone by the next" [n, m] {
  input %a: f32[n, m]
  %x: f32[-n, -m] = reshape {shape: [-n, -m]} %a   ; /first
  %y: f32[1, n*m] = reshape {shape: [1, n*m]} %x   ; /second
  output "y" %y
}
"#;

#[test]
fn sizes_in_the_midst_of_reshapes_are_checked() {
    let graph = text::parse(NEGATIVE_SIZES).expect("the graph parses");
    let a = f32s(&[2, 3], &[0.0; 6]);
    let error = compiled(&graph, &[a], host_level()).expect_err("-2 is no size");
    assert!(error.contains("/first"), "{error}");
}

#[test]
fn computed_indices_are_stored_before_they_are_used() {
    let [table, _] = two_tables();
    let i = tensor(DType::I64, &[2, 1], &[0, 5]);
    agrees(
        r#"
graph "indices from sums and from places" [] {
  input %i: i64[2, 1]
  input %t: f32[7, 2]
  %j: i64[2, 1] = pointwise (a = %i) => a + 1:i64   ; /next
  %v: i64[2] = reshape {shape: [2]} %j   ; /flat
  %x: f32[2, 2] = gather {axis: 0} %t, %v   ; /first
  %k: i64[2] = pointwise {shape: [2]} () => index(0)   ; /place
  %y: f32[2, 2] = gather {axis: 0} %t, %k   ; /second
  %z: f32[2, 2] = pointwise (a = %x, b = %y) => a + b   ; /add
  output "z" %z
}
"#,
        &[i, table],
    );
}

#[test]
fn unsigned_numbers_keep_their_upper_half() {
    let x = [
        u64::MAX,
        1 << 63,
        (1 << 63) + 12_345,
        7,
        0,
        u64::MAX - 1,
        1 << 40,
        3,
    ];
    let y = [3, 1 << 63, 10, 2, 5, u64::MAX, 1, 0];
    agrees(
        r#"
graph "unsigned" [] {
  input %x: u64[8]
  input %y: u64[8]
  %q: u64[8] = pointwise (a = %x, b = %y) => a / b   ; /div
  %r: u64[8] = pointwise (a = %x, b = %y) => mod(a, b)   ; /mod
  %f: f32[8] = pointwise (a = %x) => f32(a)   ; /cast
  %d: f64[8] = pointwise (a = %x) => f64(a)   ; /cast_1
  %b: u64[8] = pointwise (a = %d) => u64(a)   ; /cast_2
  %m: u64[1] = reduce {kind: max, axes: [0], keep: true} %x   ; /max
  %n: u64[1] = reduce {kind: min, axes: [0], keep: true} %x   ; /min
  output "q" %q
  output "r" %r
  output "f" %f
  output "d" %d
  output "b" %b
  output "m" %m
  output "n" %n
}
"#,
        &[tensor(DType::U64, &[8], &x), tensor(DType::U64, &[8], &y)],
    );
}

#[test]
fn rounding_to_half_is_right_at_every_exponent() {
    let mut values = vec![
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        65519.9,
        65520.0,
        1e-40,
    ];
    for exponent in -149..=127 {
        for mantissa in [1.0f32, 1.0004883, 1.0014648, 1.5, 1.9995117, 1.9999999] {
            values.push((mantissa as f64 * 2f64.powi(exponent)) as f32);
            values.push((-mantissa as f64 * 2f64.powi(exponent)) as f32);
        }
    }
    let n = values.len() as i64;
    agrees(
        r#"
graph "halves" [n] {
  input %x: f32[n]
  %h: f16[n] = pointwise (a = %x) => f16(a)   ; /cast
  %y: f32[n] = pointwise (a = %h) => f32(a)   ; /cast_1
  output "h" %h
  output "y" %y
}
"#,
        &[f32s(&[n], &values)],
    );
}

#[test]
fn powers_of_integers_wrap_and_those_of_negative_exponents_are_quotients() {
    let x = [
        3i64,
        -3,
        2,
        10,
        1,
        -1,
        0,
        7,
        -1,
        5,
        i64::MAX,
        i64::MIN,
        12345,
        -2,
    ];
    let y = [39i64, 35, 63, 18, -4, -3, -1, 0, i64::MIN, -2, 3, 2, 9, 31];
    let n = x.len() as i64;
    for dtype in [DType::I64, DType::I32, DType::I8, DType::U64, DType::U8] {
        let bits = |values: &[i64]| -> Vec<u64> { values.iter().map(|v| *v as u64).collect() };
        let source = r#"
graph "powers" [] {
  input %x: T[14]
  input %y: T[14]
  %p: T[14] = pointwise (a = %x, b = %y) => pow(a, b)   ; /pow
  %q: T[14] = pointwise (a = %x) => pow(a, T(5))   ; /fifth
  %r: T[14] = pointwise (a = %x) => pow(a, T(0))   ; /zeroth
  output "p" %p
  output "q" %q
  output "r" %r
}
"#;
        let inputs = [
            tensor(dtype, &[n], &bits(&x)),
            tensor(dtype, &[n], &bits(&y)),
        ];
        agrees(&source.replace('T', &dtype.to_string()), &inputs);
    }
}

#[test]
fn a_chain_of_values_used_twice_is_compiled_in_time_that_does_not_double_with_each() {
    let mut lines = String::from("  %v0: f32[8] = pointwise (a = %x) => a * 0.5   ; /first\n");
    for i in 0..64 {
        let next = i + 1;
        lines.push_str(&format!(
            "  %v{next}: f32[8] = pointwise (a = %v{i}) => a + a   ; /double_{i}\n"
        ));
    }
    let source =
        format!("graph \"doubled\" [] {{\n  input %x: f32[8]\n{lines}  output \"y\" %v64\n}}\n");
    agrees(
        &source,
        &[f32s(&[8], &[1.0, -2.0, 0.0, 3.5, 1e-20, 7.0, -0.0, 1e10])],
    );
}

#[test]
fn windows_that_lie_in_the_padding_as_a_whole_hold_nothing() {
    let x: Vec<f32> = (0..18).map(|v| v as f32 - 7.5).collect();
    agrees(
        r#"
graph "padding longer than the window" [] {
  input %x: f32[1, 2, 9]
  const @w: f32[2, 1, 2] = [1, 2, -1, 3]
  %c: f32[1, 2, 17] = conv {kernel: [2], pads_begin: [4], pads_end: [5], groups: 2} %x, @w, _   ; /conv
  %m: f32[1, 2, 17] = pool {kind: max, kernel: [2], strides: [1], pads_begin: [4], pads_end: [5], out: [17]} %x   ; /max
  %l: f32[1, 2, 17] = pool {kind: lp, p: 1, kernel: [2], strides: [1], pads_begin: [4], pads_end: [5], out: [17]} %x   ; /sum
  output "c" %c
  output "m" %m
  output "l" %l
}
"#,
        &[f32s(&[1, 2, 9], &x)],
    );
}

#[test]
fn sizes_that_data_decides_are_tested_before_what_has_them_is_read() {
    let graph = text::parse(
        r#"
graph "as many values as there were" [u] {
  input %x: f32[2, 3]
  %y: f32[u] = library "unique" {ints: [1, -1]} %x   ; /unique
  %r: f32[2, 3] = reshape {shape: [2, 3]} %y   ; /reshape
  %z: f32[2, 3] = pointwise (a = %r) => -a   ; /neg
  output "z" %z
}
"#,
    )
    .expect("the graph parses");
    let twice = f32s(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 5.0]);
    let error = compiled(&graph, &[twice], host_level()).expect_err("there are five");
    assert!(error.contains("they must be equal"), "{error}");
    let program = lowered(&graph).expect("it lowers");
    let plan = lapidary_link::plan(&program, PlanOptions::FILE).expect("there is a plan");
    let text = plan.text(&program);
    let segments: Vec<&str> = text.split("\nsegment ").skip(1).collect();
    let tested: Vec<&str> = (segments.iter().copied())
        .filter(|s| s.contains("\n  check "))
        .collect();
    // It has step 1, and no other.
    assert!(
        matches!(tested[..], [s] if s.contains("\n   1  ") && !s.contains("\n   0  ") && !s.contains("\n   2  ")),
        "{text}"
    );
}

#[test]
fn a_group_does_not_wait_for_a_size_that_follows_from_it() {
    let graph = text::parse(
        r#"
graph "a size, less what it was made from" [v] {
  input %k: i64[1]
  %m: i64[1] = pointwise (a = %k) => a + 1:i64   ; /more
  %w: f32[v] = library "constant_of_shape" {ints: [1, 1065353216]} %m   ; /fill
  %d: i64[1] = pointwise {shape: [1]} () => dim(v)   ; /size
  %e: i64[1] = pointwise (a = %d, b = %m) => a - b   ; /rest
  output "e" %e
  output "w" %w
}
"#,
    )
    .expect("the graph parses");
    let k = tensor(DType::I64, &[1], &[3]);
    let found = compiled(&graph, &[k], host_level()).expect("it compiles and runs");
    assert_eq!(found[0].as_slice::<i64>().expect("integers"), [0]);
    assert_eq!(found[1].shape(), [4]);
}

/// Rows of none: that many would take hours to walk.
#[test]
fn rows_without_elements_are_not_walked() {
    let nodes = [
        "%y: f32[n, m, 3] = transpose {perm: [1, 0, 2]} %a",
        "%y: f32[m, n, 3] = softmax {axis: 2} %a",
        "%y: f32[m, n, 3] = pointwise (a = %a) => exp(a) + 1.0",
        "%y: f32[m, 3, n] = cumsum {axis: 1} %t",
        "%y: f32[m, n, 6] = concat {axis: 2} %a, %a",
        "%y: f32[m, n] = reduce {kind: sum, axes: [2]} %a",
    ];
    for node in nodes {
        let transposed = "%t: f32[m, 3, n] = transpose {perm: [0, 2, 1]} %a";
        let before = if node.contains("%t") { transposed } else { "" };
        let source = format!(
            "graph \"rows of none\" [m, n] {{\n  input %a: f32[m, n, 3]\n  {before}\n  {node}\n  output \"y\" %y\n}}\n"
        );
        let graph = text::parse(&source).unwrap_or_else(|e| panic!("{e}\n{source}"));
        for dims in [[1 << 45, 0, 3], [0, 1 << 45, 3]] {
            let found = compiled(&graph, &[f32s(&dims, &[])], host_level()).expect("it runs");
            assert!(found[0].bytes().is_empty(), "{node}");
        }
    }
}
