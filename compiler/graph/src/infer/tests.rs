//! Inference as a table: symbols, inputs, the node, its type and what is left to check.

use super::CheckKind;
use super::output_types_and_requirements;
use crate::Graph;
use crate::text::parse;
use crate::verify::type_text;

fn infer(symbols: &str, inputs: &str, node: &str) -> String {
    let mut text = format!("graph \"t\" [{symbols}] {{\n");
    for (i, t) in inputs.split("; ").filter(|t| !t.is_empty()).enumerate() {
        text.push_str(&format!("input %{}: {t}\n", (b'a' + i as u8) as char));
    }
    text.push_str(&format!("%y: f32[*] = {node}\n}}\n"));
    let g: Graph = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let n = &g.nodes[g.order[0]];
    let types: Vec<_> = n.inputs.iter().map(|v| v.map(|v| g.ty(v))).collect();
    match output_types_and_requirements(&n.op, &types) {
        Err(e) => e.text(&g),
        Ok((types, needs)) => {
            let types = types.iter().map(|t| type_text(&g, t));
            let needs = needs.iter().map(|r| {
                let mark = match r.kind {
                    CheckKind::Equal => "==",
                    CheckKind::Broadcastable => "~",
                    CheckKind::BroadcastsTo => "~>",
                    CheckKind::AtMost => "<=",
                };
                format!("{} {mark} {}", g.dim_text(&r.left), g.dim_text(&r.right))
            });
            types.chain(needs).collect::<Vec<_>>().join("; ")
        }
    }
}

fn check(cases: &[(&str, &str, &str, &str)]) {
    let mut wrong = String::new();
    for (symbols, inputs, node, expected) in cases {
        let found = infer(symbols, inputs, node);
        if found != *expected {
            wrong.push_str(&format!(
                "{inputs} | {node}\n  expected {expected}\n  found    {found}\n"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn pointwise_shapes_broadcast() {
    let add = "pointwise (a = %a, b = %b) => a + b";
    check(&[
        ("", "f32[2, 1]; f32[3]", add, "f32[2, 3]"),
        ("n", "f32[n, 3]; f32[]", add, "f32[n, 3]"),
        ("n", "f32[n]; f32[n]", add, "f32[n]"),
        ("n", "f32[n]; f32[4]", add, "f32[4]; n ~ 4"),
        ("n, m", "f32[n]; f32[m]", add, "f32[broadcast(n, m)]; n ~ m"),
        (
            "n, m",
            "f32[broadcast(n, m)]; f32[m]",
            add,
            "f32[broadcast(n, m)]",
        ),
        (
            "",
            "f32[2]; f32[3]",
            add,
            "pointwise: input 1, axis 0: dimensions 2 and 3 cannot be broadcast to each other",
        ),
        ("", "f32[*]; f32[3]", add, "f32[*]"),
        (
            "",
            "f32[2]; f16[2]",
            add,
            "pointwise: expression node 2: operands of types f32 and f16",
        ),
        ("n", "f32[n]", "pointwise (a = %a) => a < 1.0", "bool[n]"),
        (
            "n",
            "f32[1]",
            "pointwise {shape: [n, 4]} (a = %a) => a",
            "f32[n, 4]",
        ),
        (
            "n",
            "f32[n]",
            "pointwise {shape: [4]} (a = %a) => a",
            "f32[4]; n ~> 4",
        ),
        (
            "n",
            "f32[n]",
            "pointwise (a = %a) => index(1)",
            "pointwise: expression node 0: index of axis 1, but the rank is 1",
        ),
        (
            "n",
            "i64[n]",
            "pointwise (a = %a) => sqrt(a)",
            "pointwise: expression node 1: expected type float, found i64",
        ),
    ]);
}

#[test]
fn contractions_take_their_extents_from_labels() {
    check(&[
        (
            "n, s",
            "f32[n, s, 8]; f32[8, 4]",
            "contract \"abc,cd->abd\" %a, %b",
            "f32[n, s, 4]",
        ),
        (
            "n",
            "f32[n, 1]; f32[n, 3]",
            "contract \"ab,ab->b\" %a, %b",
            "f32[3]",
        ),
        (
            "n, m",
            "f32[n]; f32[m]",
            "contract \"a,a->\" %a, %b",
            "f32[]; n ~ m",
        ),
        (
            "",
            "f32[2, 3]; f32[4, 2]",
            "contract \"ab,bc->ac\" %a, %b",
            "contract: b, axis 0: dimensions 3 and 4 cannot be broadcast to each other",
        ),
        (
            "",
            "f32[2]; f32[2]",
            "contract \"ab,b->a\" %a, %b",
            "contract: a: expected rank 2, found 1",
        ),
        (
            "",
            "f32[2]; i32[2]",
            "contract \"a,a->a\" %a, %b",
            "contract: b: expected type f32, found i32",
        ),
        (
            "",
            "f32[2]; f32[2]",
            "contract \"a,a->b\" %a, %b",
            "contract: attribute out: expected labels of a or b, found 1",
        ),
    ]);
}

#[test]
fn windows_do_their_arithmetic_with_symbols() {
    check(&[
        (
            "n, h",
            "f32[n, 3, h, 224]; f32[8, 3, 3, 3]",
            "conv {kernel: [3, 3], strides: [2, 2], pads_begin: [1, 1], pads_end: [1, 1]} %a, %b",
            "f32[n, 8, floordiv(h + 1, 2), 112]; 3 <= h + 2",
        ),
        (
            "n, h",
            "f32[n, 2*h, 4]; f32[8, 4, 3]",
            "conv {kernel: [3], pads_begin: [1], pads_end: [1], layout: channels_last} %a, %b",
            "f32[n, 2*h, 8]; 3 <= 2*h + 2",
        ),
        (
            "n",
            "f32[n, 3, 5]; f32[8, 4, 3]",
            "conv {kernel: [3]} %a, %b",
            "conv: x (the channels), axis 1: expected dimension 4, found 3",
        ),
        (
            "n",
            "f32[n, 3, 2]; f32[8, 3, 3]",
            "conv {kernel: [3]} %a, %b",
            "conv: padded x, spatial axis 0, is smaller than the kernel: expected dimension 3, found 2",
        ),
        (
            "n",
            "f32[n, 4, 5]; f32[6, 2, 1]; f32[6]",
            "conv {kernel: [1], groups: 2} %a, %b, %c",
            "f32[n, 6, 5]",
        ),
        (
            "n",
            "f32[n, 4, 5]; f32[6, 2, 1]; f32[5]",
            "conv {kernel: [1], groups: 2} %a, %b, %c",
            "conv: bias, axis 0: expected dimension 6, found 5",
        ),
        (
            "n, h",
            "f32[n, 4, h]; f32[4, 3, 4]",
            "conv_transpose {kernel: [4], strides: [2], pads_begin: [1], pads_end: [1], groups: 2} %a, %b",
            "f32[n, 6, 2*h]",
        ),
        (
            "n, h",
            "f32[n, 4, h]",
            "pool {kind: max, kernel: [2], strides: [2], out: [ceildiv(h, 2)]} %a",
            "f32[n, 4, floordiv(h + 1, 2)]",
        ),
        (
            "n",
            "i32[n, 4, 4]",
            "pool {kind: average, kernel: [2], out: [3]} %a",
            "pool: x: expected type float, found i32",
        ),
        (
            "n",
            "f32[n, 4, 4]",
            "pool {kind: max, kernel: [2], strides: [0], out: [3]} %a",
            "pool: attribute strides: expected numbers >= 1, found [0]",
        ),
        (
            "b, s, t",
            "f32[b, 8, s, 64]; f32[b, 2, t, 64]; f32[b, 2, t, 32]; f32[s, t]",
            "attention {scale: 0.125, mask: true} %a, %b, %c, %d",
            "f32[b, 8, s, 32]",
        ),
        (
            "b",
            "f32[b, 8, 1, 64]; f32[b, 3, 1, 64]; f32[b, 3, 1, 64]",
            "attention {scale: 1.0} %a, %b, %c",
            "attention: k, axis 1: the query heads are no multiple of the key heads: expected dimension 8, found 3",
        ),
    ]);
}

#[test]
fn rows_keep_or_drop_axes() {
    check(&[
        (
            "n",
            "f32[n, 3, 4]",
            "reduce {kind: mean, axes: [1, 2], keep: true} %a",
            "f32[n, 1, 1]",
        ),
        (
            "n",
            "f32[n, 3, 4]",
            "reduce {kind: sum, axes: [0]} %a",
            "f32[3, 4]",
        ),
        (
            "n",
            "f32[n, 3]",
            "reduce {kind: sum, axes: [2]} %a",
            "reduce: attribute axis: expected less than the rank 2, found 2",
        ),
        (
            "n",
            "f32[n, 3]",
            "reduce {kind: and, axes: [0]} %a",
            "reduce: x: expected type bool or integer, found f32",
        ),
        (
            "n",
            "f32[n, 3]",
            "arg_reduce {kind: max, axis: 0} %a",
            "i64[3]; 1 <= n",
        ),
        ("n", "f32[n, 3]", "softmax {axis: 1} %a", "f32[n, 3]"),
        (
            "n",
            "f32[n, 3]; f32[3]; f32[1]",
            "normalize {kind: layer, axis: 1, epsilon: 1e-5} %a, %b, %c",
            "f32[n, 3]",
        ),
        (
            "n",
            "f32[n, 3]; f32[4]",
            "normalize {kind: rms, axis: 1, epsilon: 1e-5} %a, %b",
            "normalize: scale, axis 1: dimensions 4 and 3 cannot be broadcast to each other",
        ),
        (
            "n",
            "f32[n, 3]",
            "trees {targets: 2, aggregate: sum, post: none, labels: [\"a\", \"b\"], roots: [0], weights: [(1, 0.5)], nodes: [leaf(0, 1)]} %a",
            "string[n]; f32[n, 2]",
        ),
    ]);
}

#[test]
fn views_carry_symbols_through() {
    check(&[
        (
            "n, s",
            "f32[n, s, 768]",
            "reshape {shape: [n, s, 12, 64]} %a",
            "f32[n, s, 12, 64]",
        ),
        ("n, s", "f32[n, s]", "reshape {shape: [n*s]} %a", "f32[n*s]"),
        (
            "n",
            "f32[n, 3]",
            "reshape {shape: [4]} %a",
            "f32[4]; 4 == 3*n",
        ),
        (
            "",
            "f32[2, 3]",
            "reshape {shape: [4]} %a",
            "reshape: number of elements, axis 0: expected dimension 6, found 4",
        ),
        (
            "n",
            "f32[*]",
            "reshape {shape: [n]} %a",
            "reshape: attribute shape: expected an input of known rank, found None",
        ),
        ("n", "f32[n, 3]", "transpose {perm: [1, 0]} %a", "f32[3, n]"),
        (
            "n",
            "f32[n, 3]",
            "transpose {perm: [1, 1]} %a",
            "transpose: attribute perm: expected a permutation, found [1, 1]",
        ),
        (
            "n",
            "f32[1, 3]",
            "broadcast {shape: [n, 3]} %a",
            "f32[n, 3]",
        ),
        (
            "n",
            "f32[n, 3]",
            "slice {start: [0, 1], size: [n, 2]} %a",
            "f32[n, 2]",
        ),
        (
            "n",
            "f32[n]",
            "slice {start: [0], size: [min(n, 4)]} %a",
            "f32[min(4, n)]; min(4, n) <= n",
        ),
        (
            "n",
            "f32[n, 3]",
            "slice {start: [0, 2], size: [n, 2]} %a",
            "slice: attribute start + size, axis 1: expected at most 3, found 4",
        ),
        (
            "",
            "f32[5]",
            "slice {start: [4], step: [-2], size: [3]} %a",
            "f32[3]",
        ),
        (
            "n, m",
            "f32[n, 3]; f32[m, 3]; f32[1, 3]",
            "concat {axis: 0} %a, %b, %c",
            "f32[n + m + 1, 3]",
        ),
        (
            "n, m",
            "f32[2, n]; f32[2, m]",
            "concat {axis: 0} %a, %b",
            "f32[4, n]; m == n",
        ),
        (
            "n",
            "f32[n, 3]; f32[n, 4]",
            "concat {axis: 0} %a, %b",
            "concat: input 1, axis 1: expected dimension 3, found 4",
        ),
        (
            "n",
            "f32[n]",
            "pad {before: [1], after: [2], mode: edge} %a",
            "f32[n + 3]; 1 <= n",
        ),
    ]);
}

#[test]
fn indices_shape_what_they_choose() {
    check(&[
        (
            "n, s",
            "f32[100, 8]; i64[n, s]",
            "gather {axis: 0} %a, %b",
            "f32[n, s, 8]",
        ),
        ("n", "f32[n, 8]; i64[]", "gather {axis: 1} %a, %b", "f32[n]"),
        (
            "n",
            "f32[n]; f32[2]",
            "gather {axis: 0} %a, %b",
            "gather: indices: expected type i32 or i64, found f32",
        ),
        (
            "n",
            "f32[n, 8]; i64[n, 2]",
            "gather_elements {axis: 1} %a, %b",
            "f32[n, 2]",
        ),
        (
            "n",
            "f32[4, 8]; i64[5, 2]",
            "gather_elements {axis: 1} %a, %b",
            "gather_elements: attribute indices, axis 0: expected at most 4, found 5",
        ),
        (
            "n",
            "f32[n, 4, 5]; i64[n, 6, 1]",
            "gather_nd {batch: 1} %a, %b",
            "f32[n, 6, 5]",
        ),
        ("n", "f32[4, 5]; i64[6, n]", "gather_nd %a, %b", "f32[*]"),
        (
            "n",
            "f32[n, 5]; i64[3, 1]; f32[3, 5]",
            "scatter_nd {reduce: add} %a, %b, %c",
            "f32[n, 5]",
        ),
        (
            "n",
            "f32[n, 5]; i64[3, 1]; f32[3, 4]",
            "scatter_nd %a, %b, %c",
            "scatter_nd: updates, axis 1: expected dimension 5, found 4",
        ),
        (
            "n",
            "f32[n, 5]; i64[2, 5]; f32[2, 5]",
            "scatter_elements {axis: 0} %a, %b, %c",
            "f32[n, 5]",
        ),
        ("n", "f32[n]", "shape {dims: [n, 2*n]}", "i64[2]"),
        (
            "n",
            "f32[n]",
            "library \"x\" %a",
            "library x: types are stated by the importer",
        ),
        (
            "n",
            "f32[n]",
            "softmax {axis: 0} _",
            "softmax: input 0 (x) is absent, but needed",
        ),
        (
            "n",
            "f32[n]",
            "softmax {axis: 0} %a, %a",
            "softmax: expected 1 inputs, found 2",
        ),
    ]);
}
