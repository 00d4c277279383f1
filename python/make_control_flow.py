"""Makes tests/control_flow: small models with If, Loop, Scan, sequences and optionals, nested in ways
that the ONNX backend suite does not have, each with inputs and onnxruntime's outputs (its optimisations off).

    python python/make_control_flow.py [NAME…]

Each case is a folder as the suite has it: model.onnx and test_data_set_<k>/{input,output}_<n>.pb. A
later data set has other shapes or takes another way than the one before it, so that what a context
keeps between runs is tested as well.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnx.parser import parse_model

ROOT = Path(__file__).resolve().parent.parent / "tests" / "control_flow"
HEAD = '<ir_version: 8, opset_import: ["" : %d]>\n'


def f32(*dims, seed=0):
    return np.random.default_rng(seed).standard_normal(dims).astype(np.float32)


def i64(*values):
    return np.array(values, dtype=np.int64)


def scalar(value, dtype=np.int64):
    return np.array(value, dtype=dtype)


def flag(value):
    return np.array(value, dtype=np.bool_)


CASES = {}


def case(name, text, sets, opset=17):
    CASES[name] = (HEAD % opset + text, sets)


# A Loop in an If in a Loop; the inner body reads values of all graphs around it.
case(
    "nested",
    """
nested (int64 outer, int64 inner, float[n, 3] x, float[3] w) => (float[n, 3] y, float[k, n, 3] all)
<float[3] c = {0.5, 0.25, -0.125}>
{
  always = Constant <value: tensor = bool {1}> ()
  scale = Constant <value: tensor = float {0.5}> ()
  y, all = Loop (outer, , x) <body: graph = outer_body (int64 i, bool go, float[n, 3] a) => (bool go_out, float[n, 3] a_out, float[n, 3] a_scan) {
    go_out = Identity (go)
    two = Constant <value: tensor = int64 {2}> ()
    rest = Mod (i, two)
    zero = Constant <value: tensor = int64 {0}> ()
    even = Equal (rest, zero)
    shifted = Add (a, c)
    a_out = If (even) <
      then_branch: graph = even_branch () => (float[n, 3] r) {
        r = Loop (inner, , shifted) <body: graph = inner_body (int64 j, bool go2, float[n, 3] b) => (bool go2_out, float[n, 3] b_out) {
          go2_out = Identity (go2)
          scaled = Mul (b, scale)
          fi = Cast <to: int = 1> (i)
          fj = Cast <to: int = 1> (j)
          sum = Add (fi, fj)
          more = Mul (w, sum)
          b1 = Add (scaled, more)
          b_out = Add (b1, c)
        }>
      },
      else_branch: graph = odd_branch () => (float[n, 3] r2) {
        r2 = Sub (shifted, x)
      }>
    a_scan = Mul (a_out, w)
  }>
}""",
    [
        [scalar(4), scalar(3), f32(2, 3), f32(3, seed=1)],
        [scalar(1), scalar(0), f32(5, 3, seed=2), f32(3, seed=3)],
        [scalar(3), scalar(2), f32(1, 3, seed=4), f32(3, seed=5)],
    ],
)

# A carried value grows, its length feeds the next step, and the loop ends before its trip count.
case(
    "growing",
    """
growing (int64 trips, float[n] x, float limit) => (float[m] y, float[k] sums, int64 last)
{
  always = Constant <value: tensor = bool {1}> ()
  minus = Constant <value: tensor = int64 {-1}> ()
  y, last, sums = Loop (trips, always, x, minus) <body: graph = step (int64 i, bool go, float[s] a, int64 before) => (bool go_out, float[t] a_out, int64 at, float total) {
    at = Identity (i)
    half = Constant <value: tensor = float {0.5}> ()
    smaller = Mul (a, half)
    a_out = Concat <axis: int = 0> (a, smaller)
    total = ReduceSum <keepdims: int = 0> (a_out)
    go_out = Less (total, limit)
  }>
}""",
    [
        [scalar(3), np.ones(2, np.float32), scalar(1e9, np.float32)],
        [scalar(20), np.ones(3, np.float32), scalar(30, np.float32)],
        [scalar(0), np.ones(4, np.float32), scalar(30, np.float32)],
        [scalar(2), np.ones(1, np.float32), scalar(0, np.float32)],
    ],
)

# No trip count: Collatz steps until 1, with the numbers met.
case(
    "while",
    """
whiles (int64 start) => (int64 end, int64[k] path)
{
  one = Constant <value: tensor = int64 {1}> ()
  first = Greater (start, one)
  end, path = Loop (, first, start) <body: graph = step (int64 i, bool go, int64 v) => (bool go_out, int64 next, int64 seen) {
    two = Constant <value: tensor = int64 {2}> ()
    three = Constant <value: tensor = int64 {3}> ()
    zero = Constant <value: tensor = int64 {0}> ()
    r = Mod (v, two)
    even = Equal (r, zero)
    next = If (even) <
      then_branch: graph = halve () => (int64 h) { h = Div (v, two) },
      else_branch: graph = triple () => (int64 t) { u = Mul (v, three) t = Add (u, one) }>
    seen = Identity (v)
    go_out = Greater (next, one)
  }>
}""",
    [[scalar(6)], [scalar(27)], [scalar(1)], [scalar(2)]],
)

# Branches of different rank; what reads the result must take any.
case(
    "ranks",
    """
ranks (bool c, float[n, 3] x) => (float[m] flat, int64[r] shape, float[q] twice)
{
  y = If (c) <
    then_branch: graph = matrix () => (float[n, 3] a) { a = Relu (x) },
    else_branch: graph = vector () => (float[3] b) { axes = Constant <value_ints: ints = [0]> () b = ReduceSum <keepdims: int = 0> (x, axes) }>
  all = Constant <value_ints: ints = [-1]> ()
  flat = Reshape (y, all)
  shape = Shape (y)
  twice = Add (flat, flat)
}""",
    [
        [flag(True), f32(2, 3)],
        [flag(False), f32(4, 3, seed=1)],
        [flag(True), f32(1, 3, seed=2)],
    ],
)

# A branch gives a value of the graph around as it is, and one that the other branch computes.
case(
    "plain_branches",
    """
plain (bool c, float[n, 4] x, float[n, 4] z) => (float[n, 4] y, float[n, 4] v, float s)
{
  half = Constant <value: tensor = float {0.5}> ()
  hidden = Mul (x, half)
  y, v, s = If (c) <
    then_branch: graph = yes () => (float[n, 4] a, float[n, 4] b, float c1) { a = Identity (hidden) b = Identity (z) c1 = Constant <value: tensor = float {1}> () },
    else_branch: graph = no () => (float[n, 4] d, float[n, 4] e, float c2) { d = Add (hidden, z) e = Identity (d) c2 = ReduceMax <keepdims: int = 0> (z) }>
}""",
    [
        [flag(True), f32(2, 4), f32(2, 4, seed=1)],
        [flag(False), f32(3, 4, seed=2), f32(3, 4, seed=3)],
        [flag(True), f32(3, 4, seed=4), f32(3, 4, seed=5)],
    ],
)

# Both branches multiply by the same weights.
rng = np.random.default_rng(7)
case(
    "shared_weights",
    """
shared (bool c, float[n, 48] x) => (float[n, 40] y)
{
  w = Constant <value: tensor = float[48, 40] {%s}> ()
  y = If (c) <
    then_branch: graph = yes () => (float[n, 40] a) { p = MatMul (x, w) a = Relu (p) },
    else_branch: graph = no () => (float[n, 40] b) { q = MatMul (x, w) r = Neg (q) b = Tanh (r) }>
}"""
    % ", ".join(str(round(float(v), 2)) for v in rng.standard_normal(48 * 40)),
    [[flag(True), f32(3, 48)], [flag(False), f32(17, 48, seed=1)]],
)

# Sizes known by their formulas are used inside: a body reshapes by a shape of the graph around.
case(
    "captured_shape",
    """
captured (int64 trips, float[b, s, 8] x) => (float[b, s, 8] y, int64[d] dims)
{
  shape = Shape (x)
  first = Constant <value_ints: ints = [0]> ()
  batch = Gather (shape, first)
  rest = Constant <value_ints: ints = [-1]> ()
  flat = Concat <axis: int = 0> (batch, rest)
  y = Loop (trips, , x) <body: graph = step (int64 i, bool go, float[b, s, 8] a) => (bool go_out, float[b, s, 8] a_out) {
    go_out = Identity (go)
    rows = Reshape (a, flat)
    axes = Constant <value_ints: ints = [1]> ()
    mean = ReduceMean <axes: ints = [1], keepdims: int = 1> (rows)
    centred = Sub (rows, mean)
    a_out = Reshape (centred, shape)
  }>
  dims = Shape (y)
}""",
    [[scalar(2), f32(2, 3, 8)], [scalar(1), f32(1, 5, 8, seed=1)]],
)

# Slices of two inputs along different axes, one backwards; results stacked along the last axis, and
# one in front.
case(
    "scan_axes",
    """
scan_axes (float[3] s, float[n, 3] p, float[2, n, 3] q) => (float[3] last, float[2, 3, n] all, float[n, 3] sums)
{
  last, all, sums = Scan <num_scan_inputs: int = 2, scan_input_axes: ints = [0, 1], scan_input_directions: ints = [0, 1], scan_output_axes: ints = [-1, 0], scan_output_directions: ints = [0, 1], body: graph = step (float[3] a, float[3] b, float[2, 3] c) => (float[3] a_out, float[2, 3] r, float[3] t) {
    half = Constant <value: tensor = float {0.5}> ()
    d = Mul (a, half)
    a_out = Add (d, b)
    r = Mul (c, a_out)
    t = Identity (a_out)
  }> (s, p, q)
}""",
    [
        [f32(3), f32(4, 3, seed=1), f32(2, 4, 3, seed=2)],
        [f32(3, seed=3), f32(1, 3, seed=4), f32(2, 1, 3, seed=5)],
    ],
)

# A recurrent cell by Scan, its weights captured; a Scan inside a Loop.
case(
    "scan_in_loop",
    """
cells (int64 layers, float[t, 2, 4] x, float[4, 4] w, float[4, 4] u) => (float[t, 2, 4] y, float[2, 4] h)
{
  zero = Constant <value: tensor = float[2, 4] {0, 0, 0, 0, 0, 0, 0, 0}> ()
  h, y = Loop (layers, , zero, x) <body: graph = layer (int64 i, bool go, float[2, 4] hidden, float[t, 2, 4] seq) => (bool go_out, float[2, 4] hidden_out, float[t, 2, 4] seq_out) {
    go_out = Identity (go)
    hidden_out, seq_out = Scan <num_scan_inputs: int = 1, body: graph = cell (float[2, 4] hp, float[2, 4] xt) => (float[2, 4] hn, float[2, 4] out) {
      a = MatMul (xt, w)
      b = MatMul (hp, u)
      c = Add (a, b)
      hn = Tanh (c)
      out = Identity (hn)
    }> (hidden, seq)
  }>
}""",
    [
        [scalar(2), f32(3, 2, 4), f32(4, 4, seed=1), f32(4, 4, seed=2)],
        [scalar(3), f32(1, 2, 4, seed=3), f32(4, 4, seed=4), f32(4, 4, seed=5)],
    ],
)

# A sequence of tensors of different sizes is made in a loop, read backwards, and mapped.
case(
    "sequences",
    """
sequences (int64 n, float[m] x) => (float[k] joined, float[l] mapped, int64 count)
{
  empty = SequenceEmpty <dtype: int = 1> ()
  seq = Loop (n, , empty) <body: graph = make (int64 i, bool go, seq(float[p]) s) => (bool go_out, seq(float[p]) s_out) {
    go_out = Identity (go)
    zero = Constant <value_ints: ints = [0]> ()
    one = Constant <value_ints: ints = [1]> ()
    at = Unsqueeze (i, zero)
    to = Add (at, one)
    part = Slice (x, zero, to, zero)
    s_out = SequenceInsert (s, part)
  }>
  count = SequenceLength (seq)
  back = Constant <value: tensor = int64 {-1}> ()
  last = SequenceAt (seq, back)
  joined0 = ConcatFromSequence <axis: int = 0> (seq)
  joined = Concat <axis: int = 0> (joined0, last)
  twice = SequenceMap <body: graph = each (float[p] e, float[m] whole) => (float[q] r) {
    total = ReduceSum <keepdims: int = 1> (whole)
    r0 = Mul (e, total)
    r = Concat <axis: int = 0> (r0, e)
  }> (seq, x)
  rest = SequenceErase (twice, back)
  mapped = ConcatFromSequence <axis: int = 0> (rest)
}""",
    [[scalar(3), f32(4)], [scalar(2), f32(2, seed=1)], [scalar(5), f32(5, seed=2)]],
)

# Parts of a split are read at constant places: no sequence is left.
case(
    "split_parts",
    """
parts (float[4, n] x) => (float[n] y, float[2, n] z)
{
  s = SplitToSequence <axis: int = 0, keepdims: int = 0> (x)
  one = Constant <value: tensor = int64 {1}> ()
  back = Constant <value: tensor = int64 {-1}> ()
  a = SequenceAt (s, one)
  b = SequenceAt (s, back)
  y = Add (a, b)
  c = SequenceConstruct (a, b)
  z = ConcatFromSequence <axis: int = 0, new_axis: int = 1> (c)
}""",
    [[f32(4, 3)], [f32(4, 1, seed=1)]],
)

# A sequence out of a branch; the other branch makes it of other pieces.
case(
    "sequence_of_branch",
    """
branch (bool c, float[n, 2] x, int64 at) => (float[a, b] y, int64 count)
{
  s = If (c) <
    then_branch: graph = rows () => (seq(float[1, 2]) p) { p = SplitToSequence <axis: int = 0, keepdims: int = 1> (x) },
    else_branch: graph = two () => (seq(float[n, 2]) q) { neg = Neg (x) q = SequenceConstruct (x, neg, x) }>
  y0 = SequenceAt (s, at)
  y = Mul (y0, y0)
  count = SequenceLength (s)
}""",
    [
        [flag(True), f32(4, 2), scalar(2)],
        [flag(False), f32(3, 2, seed=1), scalar(1)],
        [flag(True), f32(2, 2, seed=2), scalar(-1)],
    ],
)

# What is handed on unchanged, results that nobody reads, a carried value that is two results.
case(
    "unchanged",
    """
unchanged (int64 trips, float[n] x, float[n] k) => (float[n] y, float[n] same)
{
  y, same, extra = Loop (trips, , x, k) <body: graph = step (int64 i, bool go, float[n] a, float[n] b) => (bool go_out, float[n] a_out, float[n] b_out, float[n] unread) {
    go_out = Identity (go)
    a_out = Add (a, b)
    b_out = Identity (b)
    unread = Exp (a_out)
  }>
}""",
    [[scalar(3), f32(4), f32(4, seed=1)], [scalar(0), f32(2, seed=2), f32(2, seed=3)]],
)

# Image networks in branches: each body has the layout that its own convolutions want.
def weights(*dims, seed):
    values = np.random.default_rng(seed).standard_normal(dims) / np.sqrt(np.prod(dims[1:]))
    size = ", ".join(str(d) for d in dims)
    return f"float[{size}] {{" + ", ".join(str(round(float(v), 3)) for v in values.reshape(-1)) + "}"


case(
    "convolutions",
    """
images (int64 trips, float[n, 4, h, w] x) => (float[n, 8, p, q] y)
{
  k0 = Constant <value: tensor = %s> ()
  k1 = Constant <value: tensor = %s> ()
  k2 = Constant <value: tensor = %s> ()
  a = Conv <pads: ints = [1, 1, 1, 1]> (x, k0)
  y = Loop (trips, , a) <body: graph = block (int64 i, bool go, float[n, 8, h, w] u) => (bool go_out, float[n, 8, h, w] v) {
    go_out = Identity (go)
    two = Constant <value: tensor = int64 {2}> ()
    rest = Mod (i, two)
    odd = Cast <to: int = 9> (rest)
    r = If (odd) <
      then_branch: graph = small () => (float[n, 8, h, w] b) { b = Conv (u, k2) },
      else_branch: graph = large () => (float[n, 8, h, w] c) {
        c0 = Conv <pads: ints = [1, 1, 1, 1]> (u, k1)
        c1 = Relu (c0)
        c = Conv (c1, k2)
      }>
    sum = Add (r, u)
    v = Relu (sum)
  }>
}"""
    % (weights(8, 4, 3, 3, seed=11), weights(8, 8, 3, 3, seed=12), weights(8, 8, 1, 1, seed=13)),
    [
        [scalar(3), f32(1, 4, 6, 5)],
        [scalar(2), f32(2, 4, 3, 7, seed=1)],
    ],
)

# Two values exchange their places each time.
case(
    "exchange",
    """
exchange (int64 trips, float[n] x, float[m] z) => (float[a] y, float[b] v)
{
  y, v = Loop (trips, , x, z) <body: graph = step (int64 i, bool go, float[a] p, float[b] q) => (bool go_out, float[b] p_out, float[a] q_out) {
    go_out = Identity (go)
    p_out = Identity (q)
    q_out = Identity (p)
  }>
}""",
    [
        [scalar(3), f32(2), f32(4, seed=1)],
        [scalar(2), f32(3, seed=2), f32(1, seed=3)],
    ],
)

# A loop inside of a branch inside of a mapped body.
case(
    "map_of_loops",
    """
maps (float[a, 2] x, float[b, 2] z, int64 trips) => (float[c, 2] y)
{
  s = SequenceConstruct (x, z)
  m = SequenceMap <body: graph = each (float[p, 2] e) => (float[q, 2] r) {
    total = ReduceSum <keepdims: int = 0> (e)
    zero = Constant <value: tensor = float {0}> ()
    positive = Greater (total, zero)
    r = If (positive) <
      then_branch: graph = grow () => (float[q, 2] g) {
        g = Loop (trips, , e) <body: graph = more (int64 i, bool go, float[u, 2] a) => (bool go_out, float[v, 2] a_out) {
          go_out = Identity (go)
          a_out = Concat <axis: int = 0> (a, e)
        }>
      },
      else_branch: graph = keep () => (float[q, 2] k) { k = Neg (e) }>
  }> (s)
  y = ConcatFromSequence <axis: int = 0> (m)
}""",
    [
        [np.abs(f32(2, 2)), -np.abs(f32(1, 2, seed=1)), scalar(2)],
        [-np.abs(f32(3, 2)), np.abs(f32(2, 2, seed=1)), scalar(1)],
    ],
)

# Sizes inside come from data outside.
case(
    "sizes_from_data",
    """
data (int64 trips, float[n] x) => (float[k, m] rows, float[p] kept)
{
  zero = Constant <value: tensor = float {0}> ()
  positive = Greater (x, zero)
  kept = Compress <axis: int = 0> (x, positive)
  always = Constant <value: tensor = bool {1}> ()
  rows = Loop (trips, always) <body: graph = step (int64 i, bool go) => (bool go_out, float[m] row) {
    go_out = Identity (go)
    fi = Cast <to: int = 1> (i)
    row = Add (kept, fi)
  }>
}""",
    [
        [scalar(2), f32(6)],
        [scalar(3), f32(9, seed=1)],
    ],
)

# A Loop inside of a function, whose bodies read the function's input and attribute.
case(
    "in_function",
    """
calls (int64 trips, float[n] x) => (float[n] y, float[n] z)
{
  y = local.steps <slope: float = 0.5> (trips, x)
  z = local.steps <slope: float = -2.0> (trips, y)
}
<domain: "local", opset_import: ["" : 17]>
steps <slope> (count, v) => (out)
{
  out = Loop (count, , v) <body: graph = step (int64 i, bool go, float[n] a) => (bool go_out, float[n] a_out) {
    go_out = Identity (go)
    k = Constant <value_float: float = @slope> ()
    b = Mul (a, k)
    a_out = Add (b, v)
  }>
}""",
    [[scalar(2), f32(3)], [scalar(4), f32(1, seed=1)]],
)


def write(name):
    text, sets = CASES[name]
    if name == "in_function":
        text = text.replace('["" : 17]>', '["" : 17, "local" : 1]>', 1)
    model = parse_model(text)
    onnx.checker.check_model(model)
    folder = ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [i.name for i in model.graph.input]
    for k, inputs in enumerate(sets):
        outputs = session.run(None, dict(zip(names, inputs)))
        data = folder / f"test_data_set_{k}"
        data.mkdir(exist_ok=True)
        for kind, values, infos in (("input", inputs, model.graph.input), ("output", outputs, model.graph.output)):
            for i, (value, info) in enumerate(zip(values, infos)):
                value = np.asarray(value)
                path = data / f"{kind}_{i}.pb"
                path.write_bytes(numpy_helper.from_array(value, info.name).SerializeToString())


def main():
    for name in sys.argv[1:] or CASES:
        write(name)
        print(name)


main()
