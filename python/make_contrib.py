#!/usr/bin/env python3
"""Make the fixture of `tests/contrib.rs`: small models of operators of onnxruntime's own domain, with the outputs that
onnxruntime's CPU provider gives.

    pip install onnx==1.23.2 onnxruntime==1.31.1 numpy
    python python/make_contrib.py tests/contrib/suite.bin

Operators that onnxruntime has no CPU kernel for have their outputs computed by other operators there, or here, by the
operator's text.
"""

import math
import sys

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from pack_suite import write

MS = "com.microsoft"
CASES = []
F, H = np.float32, np.float16


class Random:
    """Numbers that follow from the case's name."""

    def __init__(self, name):
        self.rng = np.random.default_rng(list(name.encode()))

    def f(self, *shape, scale=1.0):
        return (self.rng.standard_normal(shape) * scale).astype(F)

    def u(self, low, high, *shape, dtype=np.uint8):
        return self.rng.integers(low, high, shape).astype(dtype)


def case(name, nodes, sets, weights=None, free=None, outputs=None, dtypes=None, rtol=1e-3, atol=1e-4, reference=None, instead=None, opset=17):
    """One model. `sets`: inputs by name, several times. `free`: dimension names by input. `outputs`: names, or all of
    the last node's. `instead`: nodes and weights that onnxruntime runs in place of these."""
    nodes = nodes if isinstance(nodes, list) else [nodes]
    weights = weights or {}
    free = free or {}
    outputs = outputs or [o for o in nodes[-1].output if o]
    sets = sets if isinstance(sets, list) else [sets]

    def info(key, value):
        dims = list(value.shape)
        for axis, label in enumerate(free.get(key, ())):
            if label:
                dims[axis] = label
        return helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(value.dtype), dims)

    names = list(sets[0])
    graph = helper.make_graph(
        nodes,
        name,
        [info(key, sets[0][key]) for key in names],
        [helper.make_empty_tensor_value_info(o) for o in outputs],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1)]
    # Types of 4 bits need opset 21.
    made = lambda g: helper.make_model(g, opset_imports=imports, ir_version=9 if opset < 21 else 10, producer_name="make_contrib")
    model = made(graph)
    expected = []
    if reference is None:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        runs = model
        if instead:
            body = [numpy_helper.from_array(value, key) for key, value in instead[1].items()]
            runs = made(helper.make_graph(instead[0], name, graph.input, [helper.make_empty_tensor_value_info(o) for o in outputs], body))
        session = ort.InferenceSession(runs.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for inputs in sets:
            expected.append(session.run(outputs, inputs))
    else:
        expected = [reference(inputs) for inputs in sets]
    for index, output in enumerate(model.graph.output):
        first = expected[0][index]
        kind = helper.np_dtype_to_tensor_dtype(first.dtype)
        output.CopyFrom(helper.make_tensor_value_info(output.name, kind, [None] * first.ndim))
    files = []
    for inputs, found in zip(sets, expected):
        given = [numpy_helper.from_array(inputs[key], key).SerializeToString() for key in names]
        wanted = [numpy_helper.from_array(v, o).SerializeToString() for v, o in zip(found, outputs)]
        files.append((given, wanted))
    op = nodes[-1].op_type if len(nodes) == 1 else "model"
    CASES.append((op, name, rtol, atol, model.SerializeToString(), files))


def node(op, inputs, outputs=("y",), domain=MS, **attributes):
    return helper.make_node(op, inputs.split() if isinstance(inputs, str) else inputs, list(outputs), domain=domain, **attributes)


def names(text):
    """`"a - b"` as ["a", "", "b"]."""
    return ["" if n == "-" else n for n in text.split()]


# ---- activations ---------------------------------------------------------------------------------


def activations():
    for name, op, attributes, bias in [
        ("gelu", "Gelu", {}, False),
        ("fast_gelu", "FastGelu", {}, False),
        ("fast_gelu_bias", "FastGelu", {}, True),
        ("bias_gelu", "BiasGelu", {}, True),
        ("quick_gelu", "QuickGelu", {}, False),
        ("quick_gelu_alpha", "QuickGelu", {"alpha": 0.7}, False),
    ]:
        r = Random(name)
        given = lambda n: {"x": r.f(2, n, 7, scale=2.0)}
        case(
            name,
            node(op, "x b" if bias else "x", **attributes),
            [given(3), given(5)],
            {"b": r.f(7)} if bias else {},
            {"x": ["", "n"]},
        )


# ---- normalisations ------------------------------------------------------------------------------


def norms():
    r = Random("norms")
    x = lambda n: {"x": r.f(2, n, 10)}
    skip = lambda n: {"x": r.f(2, n, 10), "s": r.f(2, n, 10)}
    free = {"x": ["", "n"], "s": ["", "n"]}
    w = {"g": r.f(10), "b": r.f(10), "c": r.f(10)}
    for epsilon in (1e-5, 1e-2):
        case(f"simplified_{epsilon}", node("SimplifiedLayerNormalization", "x g", domain="", epsilon=epsilon), [x(3), x(4)], {"g": w["g"]}, free)
    case("simplified_inverse", node("SimplifiedLayerNormalization", "x g", ["y", "i"], domain="", axis=-1), x(3), {"g": w["g"]}, free)
    case("simplified_axis", node("SimplifiedLayerNormalization", "x g", domain="", axis=1), x(3), {"g": r.f(3, 10)})
    case("skip_simplified", node("SkipSimplifiedLayerNormalization", "x s g"), [skip(3), skip(1)], {"g": w["g"]}, free)
    case("skip_simplified_sum", node("SkipSimplifiedLayerNormalization", "x s g c", names("y - - t"), epsilon=1e-6), skip(3), {"g": w["g"], "c": w["c"]}, free)
    half = {key: v.astype(H) for key, v in (skip(3) | {"g": w["g"], "c": w["c"]}).items()}
    case("skip_simplified_half", node("SkipSimplifiedLayerNormalization", "x s g c", names("y - - t")), {key: half[key] for key in "xs"}, {key: half[key] for key in "gc"}, free, rtol=1e-2, atol=1e-2)
    case("skip_layer", node("SkipLayerNormalization", "x s g b"), [skip(3), skip(5)], {"g": w["g"], "b": w["b"]}, free)
    case("skip_layer_no_beta", node("SkipLayerNormalization", "x s g"), skip(3), {"g": w["g"]}, free)
    case("skip_layer_all", node("SkipLayerNormalization", "x s g b c", names("y - - t"), epsilon=1e-5), skip(3), w, free)
    case("skip_layer_broadcast", node("SkipLayerNormalization", "x s g b"), {"x": r.f(2, 3, 10), "s": r.f(3, 10)}, {"g": w["g"], "b": w["b"]})
    case("skip_layer_two_axes", node("SkipSimplifiedLayerNormalization", "x s g"), {"x": r.f(4, 10), "s": r.f(4, 10)}, {"g": w["g"]})

    # Models have these in the other domain too, where onnxruntime has them not.
    rms = lambda x, g, e: (x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + e) * g).astype(F)
    case("simplified_contrib", node("SimplifiedLayerNormalization", "x g"), x(3), {"g": w["g"]}, free, reference=lambda i: [rms(i["x"], w["g"], 1e-5)])
    case("skip_simplified_default", node("SkipSimplifiedLayerNormalization", "x s g", domain=""), skip(3), {"g": w["g"]}, free, reference=lambda i: [rms(i["x"] + i["s"], w["g"], 1e-12)])

    def group(last, silu, groups, skip=None, bias=None, g=None, b=None):
        def run(inputs):
            x = inputs["x"].astype(np.float64)
            if skip is not None:
                s = inputs["s"].astype(np.float64)
                x = x + (s.reshape(s.shape[0], 1, 1, -1) if s.ndim == 2 else s) + bias
            total = x
            if last:
                x = np.moveaxis(x, -1, 1)
            n, c = x.shape[:2]
            v = x.reshape(n, groups, -1)
            v = (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-5)
            v = v.reshape(x.shape) * g.reshape(1, c, 1, 1) + b.reshape(1, c, 1, 1)
            if silu:
                v = v / (1 + np.exp(-v))
            if last:
                v = np.moveaxis(v, 1, -1)
            return [v.astype(F)] + ([total.astype(F)] if skip is not None else [])

        return run

    g, b, c = r.f(6), r.f(6), r.f(6)
    for last, silu, groups in [(1, 1, 3), (0, 0, 2), (1, 0, 6)]:
        shape = (2, 4, 5, 6) if last else (2, 6, 4, 5)
        case(
            f"group_norm_{last}_{silu}_{groups}",
            node("GroupNorm", "x g b", activation=silu, channels_last=last, groups=groups),
            {"x": r.f(*shape)},
            {"g": g, "b": b},
            {"x": ["n", "a", "b", ""] if last else ["n", "", "h", "w"]},
            reference=group(last, silu, groups, g=g, b=b),
        )
    case(
        "skip_group_norm",
        node("SkipGroupNorm", "x g b s c", ["y", "t"], activation=1, groups=2),
        {"x": r.f(2, 3, 2, 6), "s": r.f(2, 6)},
        {"g": g, "b": b, "c": c},
        reference=group(1, 1, 2, skip=True, bias=c, g=g, b=b),
    )


# ---- fused products ------------------------------------------------------------------------------


def fused():
    r = Random("fused")
    matmul = lambda *a, **k: node("FusedMatMul", "a b", **k)
    case("fused_matmul", matmul(alpha=0.5), [{"a": r.f(2, n, 4), "b": r.f(4, 5)} for n in (3, 1)], free={"a": ["", "n"]})
    case("fused_matmul_turned", matmul(alpha=-2.0, transA=1, transB=1), {"a": r.f(2, 4, 3), "b": r.f(2, 5, 4)})
    case("fused_matmul_batch", matmul(transBatchA=1, transBatchB=1), {"a": r.f(3, 2, 4), "b": r.f(4, 2, 5)})
    case("fused_matmul_batch_turned", matmul(transBatchA=1, transA=1, transB=1), {"a": r.f(4, 2, 3), "b": r.f(2, 5, 4)})
    case("fused_matmul_vector", matmul(alpha=0.25), {"a": r.f(4), "b": r.f(4, 5)})
    case("transpose_matmul", node("TransposeMatMul", "a b", transA=1, alpha=2.0), {"a": r.f(4, 3), "b": r.f(4, 5)})
    leaky = lambda v: np.where(v < 0, 0.2 * v, v).astype(F)
    activated = node("FusedMatMulActivation", "a b", alpha=0.5, transB=1, activation="LeakyRelu", activation_alpha=0.2)
    case("fused_matmul_activation", activated, {"a": r.f(2, 3, 4), "b": r.f(5, 4)}, free={"a": ["", "n"]}, reference=lambda i: [leaky(0.5 * (i["a"] @ i["b"].T))])
    for kind, extra in [
        ("Relu", {}),
        ("LeakyRelu", {"activation_alpha": 0.2}),
        ("Tanh", {}),
        ("Sigmoid", {}),
        ("HardSigmoid", {"activation_alpha": 0.3, "activation_beta": 0.4}),
    ]:
        case(
            f"fused_gemm_{kind}",
            node("FusedGemm", "a b c", activation=kind, alpha=0.5, beta=2.0, transB=1, **extra),
            {"a": r.f(3, 4)},
            {"b": r.f(5, 4), "c": r.f(5)},
            {"a": ["n"]},
        )
    for kind, extra in [("Relu", {}), ("LeakyRelu", {"activation_params": [0.2]}), ("Clip", {"activation_params": [-0.5, 0.5]}), ("Tanh", {}), ("HardSigmoid", {"activation_params": [0.3, 0.4]})]:
        case(
            f"fused_conv_{kind}",
            node("FusedConv", "x w b", activation=kind, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 1], **extra),
            {"x": r.f(1, 3, 7, 6)},
            {"w": r.f(4, 3, 3, 3), "b": r.f(4)},
            {"x": ["n", "", "h", "w"]},
        )
    case(
        "fused_conv_sum",
        node("FusedConv", "x w b z", activation="Relu", kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=2),
        {"x": r.f(1, 4, 5, 5), "z": r.f(1, 4, 5, 5)},
        {"w": r.f(4, 2, 3, 3), "b": r.f(4)},
    )

    # There is no kernel for half floats there: the same in f32, rounded once.
    half = lambda *shape, **k: r.f(*shape, **k).astype(H)
    x, z, w, b = half(1, 3, 7, 6), half(1, 4, 7, 6), half(4, 3, 3, 3), half(4)
    wide = lambda key: node("Cast", key, [key + "_f32"], domain="", to=TensorProto.FLOAT)
    once = lambda *body: [*body, node("Cast", [body[-1].output[0]], ["y"], domain="", to=TensorProto.FLOAT16)]
    # The least difference of f16 around the greatest of these numbers.
    step = dict(rtol=2**-10, atol=2**-13)
    case(
        "fused_conv_half",
        node("FusedConv", "x w b z", activation="Relu", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        {"x": x, "z": z},
        {"w": w, "b": b},
        {"x": ["n", "", "h", "w"]},
        instead=(once(*map(wide, "xwbz"), node("Conv", "x_f32 w_f32 b_f32", ["conv"], domain="", pads=[1, 1, 1, 1]), node("Add", "conv z_f32", ["sum"], domain=""), node("Relu", "sum", ["act"], domain="")), {"w": w, "b": b}),
        **step,
    )
    a, b, c = half(3, 40), half(40, 5), half(5)
    case(
        "fused_gemm_half",
        node("FusedGemm", "a b c", activation="Tanh", alpha=0.1, beta=0.5),
        {"a": a},
        {"b": b, "c": c},
        {"a": ["n"]},
        instead=(once(*map(wide, "abc"), node("Gemm", "a_f32 b_f32 c_f32", ["gemm"], domain="", alpha=0.1, beta=0.5), node("Tanh", "gemm", ["act"], domain="")), {"b": b, "c": c}),
        **step,
    )
    images()

    def soft(axis):
        def run(inputs):
            x = (inputs["x"] + inputs["b"]).astype(np.float64)
            flat = x.reshape(int(np.prod(x.shape[:axis])), -1)
            e = np.exp(flat - flat.max(1, keepdims=True))
            return [(e / e.sum(1, keepdims=True)).reshape(x.shape).astype(F)]

        return run

    case("bias_softmax", node("BiasSoftmax", "x b", axis=3, is_inner_broadcast=0), {"x": r.f(2, 3, 4, 5), "b": r.f(1, 1, 4, 5)}, reference=soft(3))
    case("bias_softmax_inner", node("BiasSoftmax", "x b", axis=2, is_inner_broadcast=1), {"x": r.f(2, 3, 4, 5), "b": r.f(2, 1, 4, 5)}, reference=soft(2))


def images():
    """Images with their channels last. The CPU has no kernels of the convolutions there: transpositions around Conv."""
    r = Random("images")

    def conv(name, x, w, bias=True, z=None, op="NhwcConv", act=None, dtype=F, **attributes):
        """`w`: [O, I, k, …], and `z` the shape of the sum."""
        rank = len(x)
        back, forth = [0, *range(2, rank), 1], [0, rank - 1, *range(1, rank - 1)]
        given = {"x": r.f(*x).astype(dtype)} | ({"z": r.f(*z).astype(dtype)} if z else {})
        plain = {"w": r.f(*w, scale=0.3).astype(dtype)} | ({"b": r.f(w[0]).astype(dtype)} if bias else {})
        own = plain | ({"w": plain["w"].transpose(back)} if op == "NhwcConv" else {})
        # The kernel of Conv there is for f32 alone.
        t = lambda key: key + "_f32"
        body = [node("Cast", key, [t(key)], domain="", to=TensorProto.FLOAT) for key in [*given, *plain]]
        body += [
            node("Transpose", t("x"), ["first"], domain="", perm=forth),
            node("Conv", ["first", t("w")] + ([t("b")] if bias else []), ["conv"], domain="", **attributes),
            node("Transpose", "conv", ["last"], domain="", perm=back),
        ]
        if z:
            body.append(node("Add", ["last", t("z")], ["sum"], domain=""))
        if act:
            body.append(node(act[0], [body[-1].output[0]], ["act"], domain="", **act[2]))
        body.append(node("Cast", [body[-1].output[0]], ["y"], domain="", to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))
        fused = {"activation": act[0]} | ({"activation_params": act[1]} if act[1] else {}) if act else {}
        inputs = names("x w " + ("b" if bias else "-" if z else "") + (" z" if z else ""))
        free = {key: ["n", *[f"s{i}" for i in range(rank - 2)]] for key in "x"}
        tolerance = dict(rtol=1e-2, atol=1e-2) if dtype == H else {}
        case(name, node(op, inputs, **attributes, **fused), given, own, free, instead=(body, plain), **tolerance)

    conv("nhwc_conv", (2, 6, 7, 5), (4, 5, 3, 2), pads=[1, 0, 1, 1], strides=[2, 1])
    conv("nhwc_conv_plain", (1, 5, 5, 3), (6, 3, 3, 3), bias=False, kernel_shape=[3, 3])
    conv("nhwc_conv_point", (1, 5, 4, 8), (7, 8, 1, 1))
    conv("nhwc_conv_groups", (1, 6, 6, 6), (4, 3, 3, 3), group=2, dilations=[1, 2], pads=[1, 1, 1, 1])
    conv("nhwc_conv_depthwise", (2, 6, 6, 5), (5, 1, 3, 3), group=5, auto_pad="SAME_UPPER", strides=[2, 2])
    conv("nhwc_conv_line", (2, 9, 4), (3, 4, 3), pads=[2, 0])
    conv("nhwc_conv_space", (1, 4, 5, 3, 2), (3, 2, 2, 3, 2), auto_pad="SAME_LOWER")
    conv("nhwc_conv_double", (1, 6, 5, 3), (4, 3, 3, 3), dtype=np.float64)
    conv("nhwc_conv_half", (1, 6, 5, 3), (4, 3, 3, 3), dtype=H)
    summed = dict(op="NhwcFusedConv", z=(1, 6, 5, 4), pads=[1, 1, 1, 1])
    conv("nhwc_fused_conv", (1, 6, 5, 3), (4, 3, 3, 3), act=("Relu", [], {}), **summed)
    conv("nhwc_fused_conv_no_bias", (1, 6, 5, 3), (4, 3, 3, 3), bias=False, **summed)
    conv("nhwc_fused_conv_leaky", (2, 6, 5, 3), (4, 3, 3, 3), op="NhwcFusedConv", act=("LeakyRelu", [0.2], {"alpha": 0.2}))
    conv("nhwc_fused_conv_half", (1, 6, 5, 3), (4, 3, 3, 3), act=("Tanh", [], {}), dtype=H, **summed)

    for kind, low, dtype in [("u8", 0, np.uint8), ("i8", -128, np.int8)]:
        x = lambda *shape: {"x": r.u(low, low + 256, *shape, dtype=dtype)}
        case(f"nhwc_pool_{kind}", node("NhwcMaxPool", "x", kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 1]), x(2, 6, 7, 5), free={"x": ["n", "h", "w"]}, atol=0, rtol=0)
    case("nhwc_pool_ceil", node("NhwcMaxPool", "x", kernel_shape=[3, 3], ceil_mode=1, strides=[2, 2], dilations=[1, 2]), x(1, 8, 10, 3), free={"x": ["n", "h", "w"]}, atol=0, rtol=0)
    case("nhwc_pool_line", node("NhwcMaxPool", "x", kernel_shape=[3], auto_pad="SAME_LOWER", strides=[2]), x(2, 8, 3), free={"x": ["n", "s"]}, atol=0, rtol=0)


# ---- embeddings ----------------------------------------------------------------------------------


def embeddings():
    r = Random("embed")
    w = {"word": r.f(20, 8), "pos": r.f(12, 8), "seg": r.f(2, 8), "g": r.f(8), "b": r.f(8)}
    ids = lambda n: {"ids": r.u(0, 20, 2, n, dtype=np.int32), "segs": r.u(0, 2, 2, n, dtype=np.int32)}
    masked = ids(5) | {"mask": np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], np.int32)}
    free = {key: ["n", "s"] for key in ("ids", "segs", "mask", "at")}
    case("embed", node("EmbedLayerNormalization", "ids segs word pos seg g b", ["y", "m"]), [ids(5), ids(3)], w, free)
    case("embed_mask", node("EmbedLayerNormalization", "ids segs word pos seg g b mask", ["y", "m"], epsilon=1e-5), masked, w, free)
    no = {k: v for k, v in w.items() if k != "seg"}
    case("embed_no_segment", node("EmbedLayerNormalization", names("ids - word pos - g b"), ["y", "m"]), {"ids": ids(4)["ids"]}, no, free)
    at = {"at": np.array([[3, 1, 0, 7, 2], [0, 1, 2, 3, 4]], np.int32)}
    case("embed_positions", node("EmbedLayerNormalization", "ids segs word pos seg g b mask at", ["y", "m", "t"]), masked | at, w, free)


# ---- rotary embeddings ---------------------------------------------------------------------------


def angles(rows, half, base=100.0):
    a = np.arange(rows)[:, None] / base ** (np.arange(half)[None] / half)
    return {"cos": np.cos(a).astype(F), "sin": np.sin(a).astype(F)}


def rotary():
    r = Random("rotary")
    rope = lambda **k: node("RotaryEmbedding", "x at cos sin", **k)
    free = {"x": ["b", "s"], "at": ["b", "s"]}
    grid = lambda b, s: r.u(0, 9, b, s, dtype=np.int64)
    for interleaved in (0, 1):
        case(f"rotary_grid_{interleaved}", rope(interleaved=interleaved), [{"x": r.f(2, n, 24), "at": grid(2, n)} for n in (3, 1)], angles(9, 4), free)
        case(f"rotary_offset_{interleaved}", rope(interleaved=interleaved), [{"x": r.f(2, 3, 24), "at": np.array([n], np.int64)} for n in (0, 5)], angles(9, 4), {"x": ["b", "s"]})
        case(
            f"rotary_part_{interleaved}",
            rope(interleaved=interleaved, num_heads=3, rotary_embedding_dim=4),
            {"x": r.f(2, 3, 24), "at": grid(2, 3)},
            angles(9, 2),
            free,
        )
    case("rotary_heads", rope(), {"x": r.f(2, 3, 4, 8), "at": grid(2, 4)}, angles(9, 4))
    case("rotary_heads_part", rope(num_heads=3, rotary_embedding_dim=4), {"x": r.f(2, 3, 4, 8), "at": grid(2, 4)}, angles(9, 2))
    case("rotary_packed_batching", rope(is_packed_batching=1), {"x": r.f(1, 12, 16), "at": grid(1, 12)}, angles(9, 4))


# ---- attention -----------------------------------------------------------------------------------


def multi_head():
    heads, size, vsize = 3, 4, 5
    d, e = heads * size, heads * vsize
    tol = dict(rtol=1e-3, atol=1e-4)

    def mha(name, inputs, sets, free, outputs=("y",), weights=None, **attributes):
        case(name, node("MultiHeadAttention", names(inputs), outputs, num_heads=heads, **attributes), sets, weights, free, **tol)

    r = Random("mha")
    qkv = lambda s, t, b=2, v=d: {"q": r.f(b, s, d), "k": r.f(b, t, d), "v": r.f(b, t, v)}
    free = {"q": ["b", "s"], "k": ["b", "t"], "v": ["b", "t"]}
    mha("mha", "q k v", [qkv(3, 5), qkv(1, 4, 1)], free)
    mha("mha_wide_values", "q k v", qkv(3, 5, v=e), free)
    mha("mha_scale", "q k v", qkv(3, 5), free, scale=0.3)
    mha("mha_bias", "q k v c", qkv(3, 5), free, weights={"c": r.f(3 * d)})
    mha("mha_bias_wide", "q k v c", qkv(3, 5, v=e), free, weights={"c": r.f(2 * d + e)})
    mha("mha_unidirectional", "q k v", [qkv(4, 4), qkv(1, 1)], {"q": ["b", "s"], "k": ["b", "s"], "v": ["b", "s"]}, unidirectional=1)
    mha("mha_unidirectional_fixed", "q k v", qkv(33, 33), {}, unidirectional=1)
    m = np.array([3, 5], np.int32)
    mha("mha_lengths", "q k v - m", qkv(3, 5) | {"m": m}, free | {"m": ["b"]})
    m2 = np.array([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]], np.int32)
    mha("mha_mask", "q k v - m", qkv(3, 5) | {"m": m2}, free | {"m": ["b", "t"]})
    mha("mha_mask_value", "q k v - m", qkv(3, 5) | {"m": m2}, free | {"m": ["b", "t"]}, mask_filter_value=-2.0)
    m3 = r.u(0, 2, 2, 3, 5, dtype=np.int32)
    mha("mha_mask_three", "q k v - m", qkv(3, 5) | {"m": m3}, free | {"m": ["b", "s", "t"]})
    # Numbers beside -10000 have an accuracy of 1e-3.
    case(
        "mha_mask_all",
        node("MultiHeadAttention", names("q k v - m"), num_heads=heads),
        qkv(3, 5) | {"m": np.zeros((2, 5), np.int32)},
        free=free | {"m": ["b", "t"]},
        rtol=1e-3,
        atol=2e-3,
    )
    mha("mha_added", "q k v - - a", qkv(3, 5) | {"a": r.f(2, 3, 3, 5)}, free | {"a": ["b", "", "s", "t"]})
    mha("mha_added_broadcast", "q k v - m a", qkv(3, 5) | {"m": m2, "a": r.f(1, 1, 3, 5)}, free | {"m": ["b", "t"]})
    past = lambda p, b=2: {"pk": r.f(b, heads, p, size), "pv": r.f(b, heads, p, size)}
    caches = {"pk": ["b", "", "p"], "pv": ["b", "", "p"]}
    same = {"q": ["b", "s"], "k": ["b", "s"], "v": ["b", "s"]}
    three = ("y", "nk", "nv")
    mha("mha_past", "q k v - - - pk pv", [qkv(2, 2) | past(4), qkv(1, 1) | past(6), qkv(3, 3) | past(0)], same | caches, three)
    mha("mha_past_unidirectional", "q k v - - - pk pv", [qkv(3, 3) | past(4), qkv(1, 1) | past(2)], same | caches, three, unidirectional=1)
    mha("mha_present", "q k v", qkv(3, 3), same, three)
    mha("mha_past_mask", "q k v - m - pk pv", qkv(2, 2) | past(3) | {"m": m2}, same | caches | {"m": ["b", "t"]}, three)
    mha("mha_cross", "q k v", {"q": r.f(2, 3, d), "k": r.f(2, heads, 5, size), "v": r.f(2, heads, 5, size)}, {"q": ["b", "s"], "k": ["b", "", "t"], "v": ["b", "", "t"]})

    # Packed operands have no kernel there: the same as apart.
    def apart(split):
        def run(inputs):
            q, k, v = split(inputs)
            q, k, v = (x.astype(np.float64).transpose(0, 2, 1, 3) for x in (q, k, v))
            s = q @ k.transpose(0, 1, 3, 2) / np.sqrt(size)
            p = np.exp(s - s.max(-1, keepdims=True))
            y = p / p.sum(-1, keepdims=True) @ v
            return [y.transpose(0, 2, 1, 3).reshape(y.shape[0], y.shape[2], -1).astype(F)]

        return run

    case(
        "mha_packed",
        node("MultiHeadAttention", "x", num_heads=heads),
        {"x": r.f(2, 4, heads, 3, size)},
        free={"x": ["b", "s"]},
        reference=apart(lambda i: [i["x"][:, :, :, n] for n in range(3)]),
    )
    case(
        "mha_packed_keys",
        node("MultiHeadAttention", "q k", num_heads=heads),
        {"q": r.f(2, 3, d), "k": r.f(2, 4, heads, 2, size)},
        free={"q": ["b", "s"], "k": ["b", "t"]},
        reference=apart(lambda i: [i["q"].reshape(2, 3, heads, size), i["k"][:, :, :, 0], i["k"][:, :, :, 1]]),
    )


def attention():
    heads, size, wide = 2, 3, 7
    d = heads * size
    r = Random("attention")

    def att(name, inputs, sets, free, outputs=("y",), weights=None, **attributes):
        w = {"w": r.f(wide, 3 * d), "b": r.f(3 * d)} if weights is None else weights
        case(name, node("Attention", names(inputs), outputs, num_heads=heads, **attributes), sets, w, free)

    x = lambda s, b=2: {"x": r.f(b, s, wide)}
    free = {"x": ["b", "s"]}
    att("attention", "x w b", [x(4), x(1, 3)], free)
    att("attention_sizes", "x w b", x(4), free, qkv_hidden_sizes=[4, 4, 6], weights={"w": r.f(wide, 14), "b": r.f(14)})
    att("attention_unidirectional", "x w b", [x(4), x(1)], free, unidirectional=1)
    att("attention_lengths", "x w b m", x(4) | {"m": np.array([2, 4], np.int32)}, free | {"m": ["b"]})
    att("attention_ends_starts", "x w b m", x(4) | {"m": np.array([3, 4, 1, 2], np.int32)}, free)
    for name, m in [("rows", [[0], [1]]), ("one", [[0]])]:
        # Such a mask stands for none.
        att(f"attention_dummy_mask_{name}", "x w b m", [x(4) | {"m": np.array(m, np.int32)}, x(1) | {"m": np.array(m, np.int32)}], free)
    att("attention_dummy_mask_past", "x w b m p", x(2) | {"m": np.zeros((2, 1), np.int32), "p": r.f(2, 2, heads, 3, size)}, free, ("y", "n"), unidirectional=1)
    m2 = np.array([[1, 1, 0, 1], [0, 1, 1, 1]], np.int32)
    att("attention_mask", "x w b m", x(4) | {"m": m2}, free | {"m": ["b", "s"]})
    att("attention_mask_unidirectional", "x w b m", x(4) | {"m": m2}, free | {"m": ["b", "s"]}, unidirectional=1, mask_filter_value=-5000.0)
    att("attention_mask_three", "x w b m", x(4) | {"m": r.u(0, 2, 2, 4, 4, dtype=np.int32)}, free | {"m": ["b", "s", "s"]})
    past = lambda p: {"p": r.f(2, 2, heads, p, size)}
    att("attention_past", "x w b - p", [x(2) | past(3), x(1) | past(4)], free | {"p": ["", "b", "", "p"]}, ("y", "n"))
    att("attention_past_unidirectional", "x w b - p", x(3) | past(2), free | {"p": ["", "b", "", "p"]}, ("y", "n"), unidirectional=1)
    att("attention_added", "x w b - - a", x(4) | {"a": r.f(2, heads, 4, 4)}, free | {"a": ["b", "", "s", "s"]}, scale=0.4)
    att("attention_present", "x w b", x(3), free, ("y", "n"))

    q = lambda s: {"x": r.u(0, 256, 2, s, wide)}
    for name, low, dtype, columns in [("u8", 0, np.uint8, False), ("i8", -128, np.int8, True)]:
        w = {
            "w": r.u(low, low + 256, wide, 3 * d, dtype=dtype),
            "b": r.f(3 * d),
            "sx": np.array(0.02, F),
            "sw": (0.01 + 0.001 * r.rng.random(3 * d)).astype(F) if columns else np.array(0.01, F),
            "zx": np.array(120, np.uint8),
            "zw": np.zeros(3 * d, dtype) if columns else np.array(low + 130, dtype),
        }
        case(f"qattention_{name}", node("QAttention", names("x w b sx sw - zx zw"), num_heads=heads), q(4), w, free)
        case(f"qattention_past_{name}", node("QAttention", names("x w b sx sw - zx zw p"), ["y", "n"], num_heads=heads, unidirectional=1), q(3) | past(2), w, free | {"p": ["", "b", "", "p"]})
    case("qattention_dummy_mask", node("QAttention", names("x w b sx sw m zx zw"), num_heads=heads), q(4) | {"m": np.zeros((2, 1), np.int32)}, w, free)
    case("qattention_mask", node("QAttention", names("x w b sx sw m zx zw"), num_heads=heads), q(4) | {"m": np.array([2, 4], np.int32)}, w, free | {"m": ["b"]})


def group_query():
    r = Random("gqa")

    def gqa(name, sets, heads=4, kv=2, packed=False, rotary=False, known=False, keep=False, extra=(), weights=None, rtol=1e-3, atol=1e-4, **attributes):
        inputs = ["q", "", ""] if packed else ["q", "k", "v"]
        inputs += ["pk", "pv", "lengths", "total"]
        w = dict(weights or {})
        if rotary:
            inputs += ["cos", "sin"]
            w |= angles(32, sets[0]["pk"].shape[3] // 2)
        for index, key in extra:
            inputs += [""] * (index + 1 - len(inputs))
            inputs[index] = key
        free = {"q": ["b", "s"], "k": ["b", "s"], "v": ["b", "s"], "pk": ["b", "", "p"], "pv": ["b", "", "p"], "lengths": ["b"], "at": ["b", "s"]}
        free |= {"a": ["", "", "s", "t"], "mask": ["b", "t"], "keep": ["b", "s"]}
        given = [{key: v for key, v in s.items()} for s in sets]
        body = node("GroupQueryAttention", inputs, ["y", "nk", "nv"], num_heads=heads, kv_num_heads=kv, do_rotary=int(rotary), **attributes)
        nodes = [body]
        if known:
            # As exporters write it: lengths and total come from the attention mask.
            w |= {"one": np.array([1], np.int64), "axis": np.array([1], np.int64), "at1": np.array(1, np.int64)}
            nodes = [
                node("ReduceSum", "mask axis", ["sums"], domain="", keepdims=0),
                node("Sub", "sums one", ["less"], domain=""),
                node("Cast", "less", ["lengths"], domain="", to=TensorProto.INT32),
                node("Shape", "mask", ["shape"], domain=""),
                node("Gather", "shape at1", ["wide"], domain="", axis=0),
                node("Cast", "wide", ["total"], domain="", to=TensorProto.INT32),
                body,
            ]
        out = ["y", "nk", "nv"]
        if keep:
            # What stands in rows of padding is nobody's business.
            w["zero"] = np.array(0, F)
            nodes.append(node("Where", "keep y zero", ["z"], domain=""))
            out[0] = "z"
        case(name, nodes, given, w, free, outputs=out, rtol=rtol, atol=atol)

    def step(s, p, b=1, heads=4, kv=2, packed=False, cache=None, lengths=None, known=False, size=8):
        """`s` new positions behind `p`, in a cache of `cache`."""
        d = (heads + 2 * kv) * size if packed else heads * size
        out = {"q": r.f(b, s, d)}
        if not packed:
            out |= {"k": r.f(b, s, kv * size), "v": r.f(b, s, kv * size)}
        room = p if cache is None else cache
        out |= {"pk": r.f(b, kv, room, size), "pv": r.f(b, kv, room, size)}
        lengths = [p + s] * b if lengths is None else lengths
        if known:
            mask = np.zeros((b, p + s), np.int64)
            for i, n in enumerate(lengths):
                mask[i, :n] = 1
            return out | {"mask": mask}
        return out | {"lengths": np.array(lengths, np.int32) - 1, "total": np.array([max(lengths)], np.int32)}

    plain = lambda **k: [step(5, 0, **k), step(1, 5, **k), step(1, 7, **k)]
    gqa("gqa", plain())
    gqa("gqa_batch", [step(4, 0, b=2), step(1, 4, b=2)])
    gqa("gqa_known", plain(known=True), known=True)
    gqa("gqa_packed", plain(packed=True), packed=True)
    gqa("gqa_one_group", plain(heads=3, kv=1), heads=3, kv=1)
    gqa("gqa_equal_heads", plain(heads=2, kv=2), heads=2, kv=2)
    turned = lambda **k: plain(size=16, **k)
    gqa("gqa_rotary", turned(), rotary=True)
    gqa("gqa_rotary_interleaved", turned(), rotary=True, rotary_interleaved=1)
    gqa("gqa_rotary_packed_known", turned(packed=True, known=True), packed=True, rotary=True, known=True)
    gqa("gqa_window", plain() + [step(1, 20), step(6, 0)], local_window_size=3)
    gqa("gqa_softcap", plain(), softcap=2.0, scale=1.0)
    gqa("gqa_smooth", plain(), smooth_softmax=1)
    gqa("gqa_sink", plain(), extra=[(11, "sink")], weights={"sink": r.f(4)})
    gqa("gqa_continued", [step(3, 4, size=16), step(2, 6, size=16)], rotary=True)
    gqa("gqa_buffer", [step(4, 0, cache=12, size=16), step(1, 4, cache=12, size=16), step(1, 9, cache=12, size=16)], rotary=True)
    prompts = lambda lengths, **k: step(max(lengths), 0, b=len(lengths), lengths=lengths, size=16, **k) | {"keep": np.arange(max(lengths))[None, :, None] < np.array(lengths)[:, None, None]}
    gqa("gqa_ragged_prompts", [prompts([2, 5]), prompts([4, 1, 3])], rotary=True, keep=True)
    gqa("gqa_ragged_prompts_buffer", [prompts([3, 5], cache=9), prompts([6, 2], cache=9)], rotary=True, keep=True)
    gqa("gqa_ragged_prompts_window", [prompts([3, 7])], rotary=True, keep=True, local_window_size=2)
    gqa("gqa_ragged", [step(1, 6, b=2, lengths=[4, 7], size=16)], rotary=True)
    halves = [{key: v.astype(H) if v.dtype == F else v for key, v in s.items()} for s in plain()]
    gqa("gqa_half", halves, rtol=1e-2, atol=1e-2)
    gqa("gqa_bidirectional", [step(5, 0)], causal=0)
    added = [s | {"a": r.f(1, 1, s["q"].shape[1], int(s["total"][0]))} for s in plain()]
    gqa("gqa_added", added, extra=[(10, "a")])
    at = [s | {"at": (np.arange(s["q"].shape[1]) + 3 * (i + 1))[None].astype(np.int64)} for i, s in enumerate(turned())]
    gqa("gqa_positions", at, rotary=True, extra=[(9, "at")])


# ---- weights of few bits -------------------------------------------------------------------------


def quantized_weights(r, n, k, bits, block, zeros):
    """Random weights in MatMulNBits' form."""
    blocks = -(-k // block)
    w = {"b": r.u(0, 256, n, blocks, block * bits // 8), "s": (0.02 + 0.1 * r.rng.random((n, blocks))).astype(F)}
    if zeros == "packed":
        w["z"] = r.u(0, 256, n, -(-blocks * bits // 8))
    elif zeros == "float":
        w["z"] = (r.rng.random((n, blocks)) * (1 << bits)).astype(F)
    return w


def few_bits():
    """Rows up to four take another way through the kernel than more; k is walked in parts of 1,024."""
    for bits, block, n, k, zeros, bias, *groups in [
        (4, 32, 9, 64, None, False),
        (4, 32, 6, 70, "packed", True),
        (4, 16, 5, 48, "packed", False),
        (4, 16, 5, 40, None, True),
        (4, 64, 7, 128, "float", False),
        (4, 128, 17, 256, "packed", False),
        (4, 256, 3, 300, "packed", True),
        (8, 32, 6, 64, None, False),
        (8, 16, 5, 36, "packed", True),
        (8, 64, 7, 100, "float", False),
        (2, 16, 5, 48, None, False),
        (2, 32, 6, 64, "packed", False),
        (2, 64, 7, 130, "packed", True),
        (2, 128, 4, 128, None, False),
        # Deep ones, whose last block is a part of one.
        (4, 32, 9, 2075, "packed", True),
        (4, 16, 6, 1100, None, False),
        (4, 256, 5, 1537, "float", False),
        (8, 32, 6, 1055, "packed", False),
        (8, 16, 5, 1041, None, True),
        (8, 128, 9, 2200, None, False),
        (2, 32, 7, 1100, "packed", True),
        (2, 64, 5, 2100, None, False),
        (2, 16, 6, 1030, "packed", False),
        # Rows of the weights in groups of their own.
        (4, 32, 6, 70, "packed", True, "k"),
        (4, 16, 5, 1100, None, False, "k"),
        (4, 64, 9, 200, "packed", False, "blocks"),
        (8, 32, 6, 100, "packed", False, "k"),
        (2, 32, 7, 1100, None, True, "k"),
    ]:
        name = "_".join(str(v) for v in ("nbits", bits, block, n, k, zeros, bias, *groups)).lower()
        r = Random(name)
        w = quantized_weights(r, n, k, bits, block, zeros)
        inputs = ["x", "b", "s", "z" if zeros else "", "g" if groups else "", "c" if bias else ""]
        if bias:
            w["c"] = r.f(n)
        count = w["s"].shape[1]
        if groups:
            # Of so many rows, those behind k do not matter.
            w["g"] = r.u(0, count, k if groups == ["k"] else count * block, dtype=np.int32)
        while not inputs[-1]:
            inputs.pop()

        def dense(i, w=w, n=n, k=k, bits=bits, block=block, zeros=zeros, bias=bias):
            """For what the CPU kernel does not take."""
            blocks = w["s"].shape[1]
            fields = lambda a: np.stack([a >> (bits * j) & ((1 << bits) - 1) for j in range(8 // bits)], -1).reshape(n, -1)
            q = fields(w["b"].reshape(n, -1)).astype(np.float64)[:, : blocks * block]
            z = np.full((n, blocks), 1 << (bits - 1), np.float64)
            if zeros == "packed":
                z = fields(w["z"])[:, :blocks].astype(np.float64)
            elif zeros == "float":
                z = w["z"].astype(np.float64)
            of = np.arange(blocks).repeat(block)
            if "g" in w:
                of[:k] = w["g"][:k]
            full = (q - z[:, of]) * w["s"].astype(np.float64)[:, of]
            y = i["x"].astype(np.float64) @ full[:, :k].T
            return [(y + (w["c"] if bias else 0)).astype(F)]

        deep = k > 1000
        rows = [(1, 1), (2, 1), (1, 7)] if not deep else [(1, 1), (1, 4), (5, 1)] + [(2, 32)] * (k <= 1100)
        # Few different numbers pack well.
        sets = [{"x": (r.u(-9, 10, b, m, k, dtype=np.int8) / F(4)).astype(F) if deep else r.f(b, m, k)} for b, m in rows]
        body = node("MatMulNBits", inputs, bits=bits, block_size=block, N=n, K=k)
        free = {"x": ["b", "m"]}
        # The CPU kernel takes zero points that are floats, and groups, for weights of four bits alone, and drops zero
        # points where there are groups.
        lacking = (zeros == "float" or groups) and bits != 4 or zeros and groups
        case(name, body, sets, w, free, rtol=1e-3, atol=2e-3, reference=dense if lacking else None)
    r = Random("nbits_accuracy")
    w = quantized_weights(r, 8, 64, 4, 32, "packed")
    case("nbits_half", node("MatMulNBits", "x b s z", bits=4, block_size=32, N=8, K=64), {"x": r.f(3, 64).astype(H)}, w | {"s": w["s"].astype(H)}, {"x": ["m"]}, rtol=1e-2, atol=2e-2)


def dequantized():
    """Weights as exporters of ONNX's own domain write them: DequantizeLinear before a product. Names end in whether they stay
    packed."""
    TYPES = {"i4": ml_dtypes.int4, "u4": ml_dtypes.uint4, "i8": np.int8, "u8": np.uint8}
    LOW = {"i4": -8, "u4": 0, "i8": -128, "u8": 0}
    for kind, n, k, axis, block, zero, turned, op, packed in [
        ("i4", 6, 64, 0, 32, False, False, "MatMul", True),
        ("u4", 37, 96, 0, 16, True, False, "MatMul", True),
        ("u4", 5, 64, 0, 32, False, False, "MatMul", True),
        ("i4", 6, 70, 1, 32, True, True, "MatMul", True),
        ("i4", 40, 300, 1, 128, True, True, "Gemm", True),
        ("u4", 7, 96, 1, 48, True, True, "Gemm", True),
        ("i8", 5, 600, 0, 512, True, False, "MatMul", True),
        ("u8", 6, 100, 1, 32, False, True, "MatMul", True),
        ("i8", 6, 70, 1, 0, False, False, "MatMul", True),
        ("u8", 6, 70, 0, 0, True, True, "Gemm", True),
        ("u8", 4, 20, None, 0, True, False, "MatMul", True),
        # Scales along the columns of the product, and blocks of few rows.
        ("i4", 32, 9, 1, 16, True, False, "MatMul", False),
        ("i8", 6, 32, 0, 8, True, False, "MatMul", False),
        ("i8", 6, 20, 0, 0, True, False, "MatMul", False),
    ]:
        name = f"dq_{kind}_{axis}_{block}_{zero}_{turned}_{op}_{'packed' if packed else 'f32'}".lower()
        r = Random(name)
        few = lambda *shape: r.u(LOW[kind], LOW[kind] + (16 if "4" in kind else 256), *shape, dtype=np.int16).astype(TYPES[kind])
        shape = (n, k) if turned else (k, n)
        own = () if axis is None else list(shape) if block else (shape[axis],)
        if block:
            own[axis] = -(-shape[axis] // block)
        w = {"w": few(*shape), "s": np.array(0.02 + 0.1 * r.rng.random(own), F)} | ({"z": few(*own)} if zero else {})
        attributes = ({} if axis is None else {"axis": axis}) | ({"block_size": block} if block else {})
        nodes = [node("DequantizeLinear", names("w s" + (" z" if zero else "")), ["d"], domain="", **attributes)]
        if op == "Gemm":
            w["c"] = r.f(n)
            nodes.append(node("Gemm", "x d c", domain="", transB=int(turned), alpha=0.5))
        else:
            if turned:
                nodes.append(node("Transpose", "d", ["t"], domain="", perm=[1, 0]))
            nodes.append(node("MatMul", ["x", "t" if turned else "d"], domain=""))
        lead = (lambda m: (m,)) if op == "Gemm" else (lambda m: (2, m))
        sets = [{"x": r.f(*lead(m), k)} for m in (1, 3, 9)]
        case(name, nodes, sets, w, {"x": ["m"] if op == "Gemm" else ["", "m"]}, atol=1e-3, opset=21)


# ---- integers ------------------------------------------------------------------------------------


def integers():
    r = Random("integers")
    s = lambda v: np.array(v, F)
    u, i = lambda v: np.array(v, np.uint8), lambda v: np.array(v, np.int8)
    # To the bit: scales are such that no result is halfway between two numbers, where the order of operations decides.
    exact = dict(rtol=0, atol=0)
    for name, op in [("add", "QLinearAdd"), ("mul", "QLinearMul")]:
        for kind, low, dtype in [("u8", 0, np.uint8), ("i8", -128, np.int8)]:
            w = {"sa": s(0.05), "za": dtype(low + 110), "sb": s(0.03), "zb": dtype(low + 140), "sc": s(0.07), "zc": dtype(low + 100)}
            w = {key: np.array(v) for key, v in w.items()}
            given = {"a": r.u(low, low + 256, 2, 3, 5, dtype=dtype), "b": r.u(low, low + 256, 3, 1, dtype=dtype)}
            case(f"q{name}_{kind}", node(op, "a sa za b sb zb sc zc"), given, w, {"a": ["n"]}, **exact)
        case(f"q{name}_no_zero", node(op, "a sa za b sb zb sc"), {"a": r.u(0, 256, 4), "b": r.u(0, 256, 4)}, {"sa": s(0.05), "za": u(9), "sb": s(0.03), "zb": u(7), "sc": s(9.0)}, **exact)
    one = {"sx": s(0.06), "zx": u(128), "sy": s(0.01), "zy": u(3)}
    case("qsigmoid", node("QLinearSigmoid", "x sx zx sy zy"), {"x": r.u(0, 256, 2, 20)}, one, {"x": ["n"]}, **exact)
    case("qleaky", node("QLinearLeakyRelu", "x sx zx sy zy", alpha=0.2), {"x": r.u(0, 256, 2, 20)}, one | {"sy": s(0.05), "zy": u(60)}, {"x": ["n"]}, **exact)
    probability = {"sx": s(0.06), "zx": u(128), "sy": s(1 / 256), "zy": u(0)}
    case("qsoftmax", node("QLinearSoftmax", "x sx zx sy zy", axis=-1, opset=13), {"x": r.u(0, 256, 2, 3, 9)}, probability, {"x": ["n"]}, **exact)
    case("qsoftmax_axis", node("QLinearSoftmax", "x sx zx sy zy", axis=1, opset=13), {"x": r.u(0, 256, 2, 3, 9)}, probability, {"x": ["n"]}, **exact)
    case("qsoftmax_flat", node("QLinearSoftmax", "x sx zx sy zy", axis=1, opset=11), {"x": r.u(0, 256, 2, 3, 9)}, probability, {"x": ["n"]}, **exact)
    parts = {"sy": s(0.05), "zy": u(100), "s0": s(0.04), "z0": u(90), "s1": s(0.07), "z1": u(120)}
    case("qconcat", node("QLinearConcat", "sy zy a s0 z0 b s1 z1", axis=1), {"a": r.u(0, 256, 2, 3), "b": r.u(0, 256, 2, 4)}, parts, {"a": ["n"], "b": ["n"]}, **exact)
    pool = {"sx": s(0.05), "zx": u(120), "sy": s(0.043), "zy": u(110)}
    image = lambda last: {"x": r.u(0, 256, *((2, 6, 5, 3) if last else (2, 3, 6, 5)))}
    for last in (0, 1):
        case(f"qpool_{last}", node("QLinearAveragePool", "x sx zx sy zy", kernel_shape=[3, 2], pads=[1, 0, 1, 0], strides=[2, 1], channels_last=last), image(last), pool, {"x": ["n"]}, **exact)
        case(f"qglobal_{last}", node("QLinearGlobalAveragePool", "x sx zx sy zy", channels_last=last), image(last), pool, {"x": ["n"]}, **exact)
    case("qpool_padding", node("QLinearAveragePool", "x sx zx sy zy", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1), image(0), pool, {"x": ["n"]}, **exact)
    conv = pool | {"w": r.u(0, 256, 4, 3, 3, 3), "sw": s(0.02), "zw": u(125), "b": r.u(-500, 500, 4, dtype=np.int32)}
    case("qconv_last", node("QLinearConv", "x sx zx w sw zw sy zy b", kernel_shape=[3, 3], pads=[1, 1, 1, 1], channels_last=1), image(1), conv, {"x": ["n"]}, **exact)

    for kind, low, dtype in [("u8", 0, np.uint8), ("i8", -128, np.int8)]:
        b = r.u(low, low + 256, 6, 5, dtype=dtype)
        columns = {"b": b, "sb": (0.01 + 0.02 * r.rng.random(5)).astype(F), "zb": r.u(low, low + 256, 5, dtype=dtype), "c": r.f(5)}
        case(f"dynamic_{kind}", node("DynamicQuantizeMatMul", "a b sb"), [{"a": r.f(2, n, 6)} for n in (3, 1)], {"b": b, "sb": s(0.02)}, {"a": ["", "n"]})
        case(f"dynamic_columns_{kind}", node("DynamicQuantizeMatMul", "a b sb zb c"), {"a": r.f(3, 6)}, columns, {"a": ["n"]})
        w = columns | {"sa": s(0.03), "za": u(117)}
        case(f"to_float_{kind}", node("MatMulIntegerToFloat", names("a b sa sb za zb c")), {"a": r.u(0, 256, 2, 3, 6)}, w, {"a": ["", "n"]})
        case(f"to_float_plain_{kind}", node("MatMulIntegerToFloat", "a b sa s1"), {"a": r.u(0, 256, 3, 6)}, {"b": b, "sa": s(0.03), "s1": s(0.02)}, {"a": ["n"]})
    # Constants of several panels and depths; rows of several tiles.
    for kind, weights, m, k, n, columns in [("u8", "i8", 1, 64, 16, False), ("u8", "u8", 5, 70, 33, True), ("i8", "i8", 13, 31, 40, True), ("u8", "i8", 110, 130, 50, True), ("u8", "u8", 26, 9, 17, False), ("i8", "i8", 100, 1027, 8, False)]:
        low, dtype = (0, np.uint8) if kind == "u8" else (-128, np.int8)
        wlow, wtype = (0, np.uint8) if weights == "u8" else (-128, np.int8)
        wide = (n,) if columns else ()
        w = {"b": r.u(wlow, wlow + 256, k, n, dtype=wtype), "sa": s(0.003), "sb": np.array(0.001 + 0.002 * r.rng.random(wide), F)}
        w |= {"za": np.array(low + 100, dtype), "zb": np.array(r.u(wlow, wlow + 256, *wide, dtype=wtype))}
        a = {"a": r.u(low, low + 256, m, k, dtype=dtype)}
        case(f"to_float_deep_{kind}_{weights}_{m}_{k}_{n}", node("MatMulIntegerToFloat", "a b sa sb za zb"), a, w, {"a": ["m"]})
        q = {key: w[key] for key in ("b", "za", "zb")}
        case(f"integer_deep_{kind}_{weights}_{m}_{k}_{n}", node("MatMulInteger", "a b za zb", domain=""), a, q, {"a": ["m"]}, **exact)
    for name, x, w, last, attributes in [
        ("", (2, 9, 8, 5), (20, 5, 3, 3), 0, dict(pads=[1, 1, 1, 1])),
        ("_strides", (1, 11, 9, 8), (33, 8, 3, 2), 0, dict(strides=[2, 1], pads=[0, 1, 2, 0])),
        ("_dilations", (1, 11, 12, 3), (16, 3, 3, 3), 1, dict(dilations=[2, 3], pads=[2, 3, 2, 3])),
        ("_point", (1, 13, 10, 20), (40, 20, 1, 1), 1, {}),
        ("_same", (1, 12, 10, 4), (5, 4, 5, 3), 0, dict(auto_pad="SAME_UPPER", strides=[2, 2])),
        ("_groups", (1, 8, 7, 8), (6, 4, 3, 3), 0, dict(group=2)),
    ]:
        for kind, low, dtype in [("i8", -128, np.int8), ("u8", 0, np.uint8)]:
            image = r.u(0, 256, *x)
            image = {"x": image if last else image.transpose(0, 3, 1, 2).copy()}
            each = (w[0],) if kind == "i8" else ()
            given = pool | {"w": r.u(low, low + 256, *w, dtype=dtype), "sw": np.array(0.003 + 0.002 * r.rng.random(each), F), "sy": s(0.3137), "b": r.u(-500, 500, w[0], dtype=np.int32)}
            given |= {"zw": np.zeros(each, dtype) if kind == "i8" else u(131)}
            extra = dict(channels_last=1) if last else {}
            case(f"qconv_deep{name}_{kind}", node("QLinearConv", "x sx zx w sw zw sy zy b", domain=MS if last else "", **attributes, **extra), image, given, {"x": ["n", "h", "w", ""] if last else ["n", "", "h", "w"]}, **exact)
            if not last:
                case(f"integer_conv{name}_{kind}", node("ConvInteger", "x w zx" + (" zw" if kind == "u8" else ""), domain="", **attributes), image, {key: given[key] for key in (["w", "zx"] + (["zw"] if kind == "u8" else []))}, {"x": ["n", "", "h", "w"]}, **exact)
    gemm = {"sa": s(0.03), "za": u(117), "b": r.u(0, 256, 6, 5), "sb": s(0.02), "zb": u(130), "c": r.u(-900, 900, 5, dtype=np.int32), "sy": s(0.2), "zy": u(128)}
    case("qwhere", node("QLinearWhere", "k a sa za b sb zb sc zc"), {"k": r.u(0, 2, 2, 5, dtype=np.bool_), "a": r.u(0, 256, 2, 5), "b": r.u(0, 256, 5)}, {"sa": s(0.05), "za": u(110), "sb": s(0.03), "zb": u(140), "sc": s(0.06), "zc": u(100)}, {"k": ["n"], "a": ["n"]}, **exact)
    # That one has no kernel there.
    mean = lambda keep: lambda i: [np.clip(np.rint(((i["x"].astype(F) - 120) * F(0.05)).mean((1, 3), keepdims=bool(keep)) / F(0.0213)) + 110, 0, 255).astype(np.uint8)]
    for keep in (0, 1):
        case(f"qmean_{keep}", node("QLinearReduceMean", "x sx zx sy zy", axes=[1, -1], keepdims=keep), {"x": r.u(0, 256, 2, 3, 4, 5)}, {"sx": s(0.05), "zx": u(120), "sy": s(0.0213), "zy": u(110)}, {"x": ["n"]}, reference=mean(keep), **exact)
    case("qgemm", node("QGemm", "a sa za b sb zb c sy zy"), {"a": r.u(0, 256, 3, 6)}, gemm, {"a": ["n"]}, **exact)
    floats = {k: v for k, v in gemm.items() if k not in ("sy", "zy")}
    case("qgemm_float", node("QGemm", "a sa za b sb zb c", alpha=0.5), {"a": r.u(0, 256, 3, 6)}, floats, {"a": ["n"]})
    turned = gemm | {"b": r.u(-128, 128, 5, 6, dtype=np.int8), "sb": (0.01 + 0.02 * r.rng.random(5)).astype(F), "zb": r.u(-9, 9, 5, dtype=np.int8)}
    case("qgemm_columns", node("QGemm", "a sa za b sb zb c sy zy", transA=1, transB=1), {"a": r.u(0, 256, 6, 3)}, turned, {"a": ["", "n"]}, **exact)
    case("quantize_u16", node("QuantizeLinear", "x s z"), {"x": r.f(2, 9)}, {"s": s(0.0001), "z": np.array(30000, np.uint16)}, {"x": ["n"]}, **exact)
    case("quantize_i16_axis", node("QuantizeLinear", "x s z", axis=1), {"x": r.f(2, 3)}, {"s": np.array([0.001, 0.01, 0.1], F), "z": np.array([0, 5, -7], np.int16)}, {"x": ["n"]}, **exact)
    case("dequantize_u16", node("DequantizeLinear", "x s z"), {"x": r.u(0, 65536, 2, 9, dtype=np.uint16)}, {"s": s(0.0001), "z": np.array(30000, np.uint16)}, {"x": ["n"]})
    case("dequantize_i8_axis", node("DequantizeLinear", "x s z", axis=1), {"x": r.u(-128, 128, 2, 3, dtype=np.int8)}, {"s": np.array([0.001, 0.01, 0.1], F), "z": np.array([0, 5, -7], np.int8)}, {"x": ["n"]})
    case("trilu", node("Trilu", "x k", upper=0), {"x": r.f(2, 4, 4)}, {"k": np.array(1, np.int64)}, {"x": ["n"]})
    case("gather_nd", node("GatherND", "x i"), {"x": r.f(3, 4, 2)}, {"i": np.array([[0, 1], [2, 3]], np.int64)})


# ---- tables and views ----------------------------------------------------------------------------


def tables():
    r = Random("tables")
    for bits, block, zeros in [(4, 16, True), (4, 32, False), (8, 16, True), (2, 16, True)]:
        rows, width = 9, 48
        w = {"t": r.u(0, 256, rows, width * bits // 8), "s": (0.02 + 0.1 * r.rng.random((rows, -(-width // block)))).astype(F)}
        if zeros:
            w["z"] = r.u(0, 256, rows, -(-w["s"].shape[1] * bits // 8))
        case(
            f"gather_blocks_{bits}_{block}_{zeros}".lower(),
            node("GatherBlockQuantized", names("t i s z" if zeros else "t i s"), bits=bits, block_size=block, gather_axis=0, quantize_axis=1),
            [{"i": r.u(0, rows, 2, n, dtype=np.int64)} for n in (3, 1)],
            w,
            {"i": ["b", "n"]},
        )
    for name, t in [("i4", ml_dtypes.int4), ("u4", ml_dtypes.uint4)]:
        few = lambda *shape: r.u(-8, 8, *shape, dtype=np.int8).astype(t) if name == "i4" else r.u(0, 16, *shape).astype(t)
        at = lambda n, rows: {"i": r.u(0, rows, 2, n, dtype=np.int64)}
        body = lambda inputs, **k: node("GatherBlockQuantized", inputs, block_size=16, **k)
        case(f"gather_blocks_{name}", body("t i s z", gather_axis=0, quantize_axis=1), [at(3, 9), at(1, 9)], {"t": few(9, 48), "s": r.f(9, 3), "z": few(9, 3)}, {"i": ["b", "n"]}, opset=21)
        case(f"gather_blocks_{name}_plain", body("t i s", gather_axis=0, quantize_axis=2), at(3, 5), {"t": few(5, 3, 40), "s": r.f(5, 3, 3)}, {"i": ["b", "n"]}, opset=21)
        case(f"gather_blocks_{name}_inner", body("t i s z", gather_axis=1, quantize_axis=0), at(3, 6), {"t": few(35, 6, 4), "s": r.f(3, 6, 4), "z": few(3, 6, 4)}, {"i": ["b", "n"]}, opset=21)
        case(f"gather_blocks_{name}_last", body("t i s z", gather_axis=2, quantize_axis=1), at(3, 6), {"t": few(2, 35, 6), "s": r.f(2, 3, 6), "z": few(2, 3, 6)}, {"i": ["b", "n"]}, opset=21)
        case(f"gather_blocks_{name}_half", body("t i s", gather_axis=0, quantize_axis=1), at(3, 9), {"t": few(9, 48), "s": r.f(9, 3).astype(H)}, {"i": ["b", "n"]}, opset=21, rtol=2e-3)
    case("expand_dims", node("ExpandDims", "x a"), {"x": r.f(2, 3)}, {"a": np.array(-1, np.int32)}, {"x": ["n"]})
    case("pad", node("Pad", "x p v"), {"x": r.f(2, 3)}, {"p": np.array([0, 2, 1, 0], np.int64), "v": np.array([1.5], F)}, {"x": ["n"]})
    case("range", node("Range", "a b"), [{"a": np.array(2, np.int64), "b": np.array(n, np.int64)} for n in (7, 2)])
    case("range_step", node("Range", "a b c"), {"a": np.array([2.0], F), "b": np.array([7.0], F), "c": np.array([1.5], F)})
    case("unique", node("Unique", "x", ["y", "i", "n"]), {"x": np.array([2, 1, 1, 3, 4, 3], F)}, free={"x": ["n"]})
    gelu = lambda v: v * 0.5 * (1 + np.vectorize(math.erf)(v / np.sqrt(2)))
    b = r.f(8)
    half = lambda i: np.split((i["x"] + b).astype(np.float64), 2, -1)
    case("bias_split_gelu", node("BiasSplitGelu", "x b"), {"x": r.f(2, 3, 8)}, {"b": b}, {"x": ["n"]}, reference=lambda i: [(half(i)[0] * gelu(half(i)[1])).astype(F)])
    case("bias_add", node("BiasAdd", "x b s"), {"x": r.f(2, 3, 8), "s": r.f(2, 3, 8)}, {"b": b}, {"x": ["n"], "s": ["n"]}, reference=lambda i: [i["x"] + b + i["s"]])


# ---- a decoder -----------------------------------------------------------------------------------


def decoder():
    """Two layers as exporters of language models write them: prefill, then steps that each take the last one's cache."""
    r = Random("decoder")
    heads, kv, size, inner, words, layers = 4, 2, 16, 48, 40, 2
    d = heads * size
    w = {"embed": r.f(words, d), "axis": np.array([1], np.int64), "one": np.array([1], np.int64), "at1": np.array(1, np.int64)} | angles(32, size // 2)
    nodes = [
        node("Gather", "embed ids", ["h0"], domain=""),
        node("ReduceSum", "mask axis", ["sums"], domain="", keepdims=0),
        node("Sub", "sums one", ["less"], domain=""),
        node("Cast", "less", ["lengths"], domain="", to=TensorProto.INT32),
        node("Shape", "mask", ["shape"], domain=""),
        node("Gather", "shape at1", ["wide"], domain="", axis=0),
        node("Cast", "wide", ["total"], domain="", to=TensorProto.INT32),
    ]

    def product(x, y, n, k):
        for key, v in quantized_weights(r, n, k, 4, 16 if k < 32 else 32, "packed").items():
            w[f"{y}_{key}"] = v * F(0.3) if key == "s" else v
        nodes.append(node("MatMulNBits", [x, f"{y}_b", f"{y}_s", f"{y}_z"], [y], bits=4, block_size=16 if k < 32 else 32, N=n, K=k, accuracy_level=1))

    w["g0"] = 1 + r.f(d, scale=0.1)
    nodes.append(node("SimplifiedLayerNormalization", "h0 g0", ["x0"], domain="", epsilon=1e-5))
    hidden, out = "h0", ["logits"]
    for i in range(layers):
        product(f"x{i}", f"q{i}", d, d)
        product(f"x{i}", f"k{i}", kv * size, d)
        product(f"x{i}", f"v{i}", kv * size, d)
        q, k = f"q{i}", f"k{i}"
        nodes.append(
            node(
                "GroupQueryAttention",
                [q, k, f"v{i}", f"past{i}k", f"past{i}v", "lengths", "total", "cos", "sin"],
                [f"a{i}", f"present{i}k", f"present{i}v"],
                num_heads=heads,
                kv_num_heads=kv,
                do_rotary=1,
                scale=0.3,
            )
        )
        out += [f"present{i}k", f"present{i}v"]
        product(f"a{i}", f"o{i}", d, d)
        w[f"g{i}a"] = 1 + r.f(d, scale=0.1)
        nodes.append(node("SkipSimplifiedLayerNormalization", f"{hidden} o{i} g{i}a", [f"m{i}", "", "", f"s{i}"], epsilon=1e-5))
        product(f"m{i}", f"gate{i}", inner, d)
        product(f"m{i}", f"up{i}", inner, d)
        nodes.append(node("Sigmoid", f"gate{i}", [f"sig{i}"], domain=""))
        nodes.append(node("Mul", f"gate{i} sig{i}", [f"act{i}"], domain=""))
        nodes.append(node("Mul", f"act{i} up{i}", [f"mlp{i}"], domain=""))
        product(f"mlp{i}", f"down{i}", d, inner)
        w[f"g{i + 1}"] = 1 + r.f(d, scale=0.1)
        nodes.append(node("SkipSimplifiedLayerNormalization", f"s{i} down{i} g{i + 1}", [f"x{i + 1}", "", "", f"h{i + 1}"], epsilon=1e-5))
        hidden = f"h{i + 1}"
    product(f"x{layers}", "logits", words, d)

    # Each step is fed with the caches of the one before.
    graph_sets = []
    caches = {f"past{i}{s}": np.zeros((1, kv, 0, size), F) for i in range(layers) for s in "kv"}
    ids, length = r.u(0, words, 1, 6, dtype=np.int64), 0

    free = {"ids": ["batch", "sequence"], "mask": ["batch", "total"]} | {key: ["batch", "", "past"] for key in caches}

    def run(inputs):
        from onnx import helper as h

        def info(key, value):
            return h.make_tensor_value_info(key, h.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim)

        graph = h.make_graph(nodes, "decoder", [info(k, v) for k, v in inputs.items()], [h.make_empty_tensor_value_info(o) for o in out], [numpy_helper.from_array(v, k) for k, v in w.items()])
        model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17), h.make_opsetid(MS, 1)], ir_version=9)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(out, inputs)

    for _ in range(4):
        length += ids.shape[1]
        inputs = {"ids": ids, "mask": np.ones((1, length), np.int64)} | caches
        graph_sets.append(inputs)
        found = run(inputs)
        caches = dict(zip(caches, found[1:]))
        ids = found[0][:, -1:].argmax(-1).astype(np.int64)
    case("decoder", nodes, graph_sets, w, free, outputs=out, rtol=1e-3, atol=1e-3)


def main(path):
    for make in (activations, norms, fused, embeddings, rotary, multi_head, attention, group_query, few_bits, dequantized, integers, tables, decoder):
        make()
    write(path, f"onnxruntime {ort.__version__}", CASES)


if __name__ == "__main__":
    main(sys.argv[1])
