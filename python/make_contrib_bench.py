#!/usr/bin/env python3
"""Write a folder of models of one operator of onnxruntime's own domain each, at the size that it has in a model of today,
for `lapidary bench FOLDER --against onnxruntime` (docs/contrib.md has the table).

    pip install onnx==1.23.2 onnxruntime==1.31.1
    python python/make_contrib_bench.py FOLDER [NAME…]

Operators that onnxruntime has no CPU kernel for are left out: there is no time to compare with.
"""

import pathlib
import sys

import ml_dtypes
import numpy as np
import onnx
from make_contrib import F, MS, Random, angles, names, node, quantized_weights
from onnx import helper, numpy_helper

ROOT = pathlib.Path()
WANTED = []


def model(name, body, inputs, weights=None, outputs=("y",), opset=17):
    """A model of one node, or of several, and the data set that it is measured with."""
    if WANTED and name not in WANTED:
        return
    info = lambda key, v: helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
    graph = helper.make_graph(
        body if isinstance(body, list) else [body],
        name,
        [info(key, v) for key, v in inputs.items()],
        [helper.make_empty_tensor_value_info(o) for o in outputs],
        [numpy_helper.from_array(v, key) for key, v in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1)]
    made = helper.make_model(graph, opset_imports=imports, ir_version=10, producer_name="make_contrib_bench")
    data = ROOT / name / "test_data_set_0"
    data.mkdir(parents=True, exist_ok=True)
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(list(outputs), inputs)
    for output, value in zip(graph.output, found):
        output.CopyFrom(info(output.name, value))
    made.graph.CopyFrom(graph)
    onnx.save(made, ROOT / name / "model.onnx")
    for kind, tensors in (("input", inputs.items()), ("output", zip(outputs, found))):
        for i, (key, value) in enumerate(tensors):
            (data / f"{kind}_{i}.pb").write_bytes(numpy_helper.from_array(value, key).SerializeToString())


def products():
    r = Random("products")
    for bits in (4, 8, 2):
        k = n = 4096 if bits == 4 else 2048
        w = quantized_weights(r, n, k, bits, 32, "packed")
        for m in (1, 4, 128):
            body = node("MatMulNBits", "x b s z", bits=bits, block_size=32, N=n, K=k)
            model(f"matmul_{bits}bits_{m}", body, {"x": r.f(m, k)}, w)
    # Its weights may be multiplied with activations of 8 bits there.
    w = quantized_weights(r, 4096, 4096, 4, 32, "packed")
    for m in (1, 128):
        model(f"matmul_4bits_{m}_accuracy_4", node("MatMulNBits", "x b s z", bits=4, block_size=32, N=4096, K=4096, accuracy_level=4), {"x": r.f(m, 4096)}, w)
    # As exporters of ONNX's own domain write such weights.
    for bits, block in ((4, 32), (8, 0)):
        t, low = (ml_dtypes.int4, -8) if bits == 4 else (np.int8, -128)
        w = {"w": r.u(low, -low, 4096, 4096, dtype=np.int8).astype(t), "s": np.abs(r.f(*((128, 4096) if block else (4096,)), scale=0.02))}
        where = dict(axis=0, block_size=block) if block else dict(axis=1)
        body = [node("DequantizeLinear", "w s", ["d"], domain="", **where), node("MatMul", "x d", domain="")]
        for m in (1, 128):
            model(f"dequantized_{bits}bits_{m}", body, {"x": r.f(m, 4096)}, w, opset=21)
    a, b = r.f(1, 128, 768), r.f(768, 3072)
    model("fused_matmul", node("FusedMatMul", "a b", alpha=0.125, transB=1), {"a": a}, {"b": b.T.copy()})
    model("fused_gemm", node("FusedGemm", "a b c", activation="Relu"), {"a": a[0]}, {"b": b, "c": r.f(3072)})
    image = {"x": r.f(1, 64, 56, 56)}
    model("fused_conv", node("FusedConv", "x w b", activation="Relu", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), image, {"w": r.f(64, 64, 3, 3), "b": r.f(64)})
    u8, s = r.u(0, 256, 768, 3072), np.array(0.02, F)
    i8 = (u8.astype(np.int16) - 128).astype(np.int8)
    zero = np.array(128, np.uint8)
    model("dynamic_quantize_matmul", node("DynamicQuantizeMatMul", "a b s"), {"a": a}, {"b": i8, "s": s})
    q = {"a": r.u(0, 256, 1, 128, 768)}
    model("matmul_integer_to_float", node("MatMulIntegerToFloat", "a b s s2 z"), q, {"b": i8, "s": s, "s2": s, "z": zero})
    model("qgemm", node("QGemm", names("a s z b s zb - sy z")), {"a": q["a"][0]}, {"s": s, "z": zero, "b": i8, "zb": np.array(0, np.int8), "sy": np.array(9.0, F)})


def pointwise():
    r = Random("pointwise")
    x, b = {"x": r.f(1, 128, 3072)}, {"b": r.f(3072)}
    model("gelu", node("Gelu", "x"), x)
    model("fast_gelu", node("FastGelu", "x b"), x, b)
    model("bias_gelu", node("BiasGelu", "x b"), x, b)
    model("quick_gelu", node("QuickGelu", "x"), x)
    x = {"x": r.f(1, 128, 4096), "s": r.f(1, 128, 4096)}
    w = {"g": r.f(4096), "b": r.f(4096), "c": r.f(4096)}
    model("simplified_layer_norm", node("SimplifiedLayerNormalization", "x g", domain=""), {"x": x["x"]}, {"g": w["g"]})
    model("skip_simplified_layer_norm", node("SkipSimplifiedLayerNormalization", "x s g", names("y - - t")), x, {"g": w["g"]}, ("y", "t"))
    small = {key: v[..., :768].copy() for key, v in x.items()}
    model("skip_layer_norm", node("SkipLayerNormalization", "x s g b c"), small, {key: v[:768].copy() for key, v in w.items()})
    words = {"word": r.f(30522, 768), "pos": r.f(512, 768), "seg": r.f(2, 768), "g": r.f(768), "b": r.f(768)}
    ids = {"ids": r.u(0, 30522, 1, 128, dtype=np.int32), "segs": r.u(0, 2, 1, 128, dtype=np.int32)}
    model("embed_layer_norm", node("EmbedLayerNormalization", "ids segs word pos seg g b", ["y", "m"]), ids, words, ("y", "m"))
    table = {"t": r.u(0, 256, 32000, 2048), "s": r.f(32000, 128), "z": r.u(0, 256, 32000, 64)}
    body = node("GatherBlockQuantized", "t i s z", bits=4, block_size=32, gather_axis=0, quantize_axis=1)
    model("gather_block_quantized", body, {"i": r.u(0, 32000, 1, 128, dtype=np.int64)}, table)
    at = {"at": np.arange(128, dtype=np.int64)[None]}
    model("rotary_embedding", node("RotaryEmbedding", "x at cos sin"), {"x": r.f(1, 128, 4096)} | at, angles(2048, 64, 1e4))
    one = {"at": np.array([[512]], np.int64)}
    model("rotary_embedding_decode", node("RotaryEmbedding", "x at cos sin"), {"x": r.f(1, 1, 4096)} | one, angles(2048, 64, 1e4))


def attention():
    r = Random("attention")
    d = 768
    qkv = {key: r.f(1, 128, d) for key in "qkv"}
    model("multi_head_attention", node("MultiHeadAttention", "q k v", num_heads=12), qkv)
    model("multi_head_attention_mask", node("MultiHeadAttention", names("q k v - m"), num_heads=12), qkv | {"m": np.ones((1, 128), np.int32)})
    w = {"w": r.f(d, 3 * d, scale=0.05), "b": r.f(3 * d)}
    model("attention", node("Attention", "x w b", num_heads=12), {"x": r.f(1, 128, d)}, w)
    s = lambda v: np.array(v, F)
    w = {"w": r.u(-128, 128, d, 3 * d, dtype=np.int8), "b": r.f(3 * d), "sx": s(0.02), "sw": s(0.002), "zx": np.array(128, np.uint8)}
    model("qattention", node("QAttention", names("x w b sx sw - zx"), num_heads=12), {"x": r.u(0, 256, 1, 128, d)}, w)
    heads, kv, size = 32, 8, 128
    for name, steps, past in [("decode", 1, 1024), ("prefill", 256, 0)]:
        given = {"q": r.f(1, steps, heads * size), "k": r.f(1, steps, kv * size), "v": r.f(1, steps, kv * size)}
        given |= {"pk": r.f(1, kv, past, size), "pv": r.f(1, kv, past, size)}
        given |= {"n": np.array([past + steps - 1], np.int32), "t": np.array([past + steps], np.int32)}
        body = node("GroupQueryAttention", "q k v pk pv n t cos sin", ["y", "nk", "nv"], num_heads=heads, kv_num_heads=kv, do_rotary=1)
        model(f"group_query_attention_{name}", body, given, angles(2048, size // 2, 1e4), ("y", "nk", "nv"))


def integers():
    r = Random("integers")
    s, u = lambda v: np.array(v, F), lambda v: np.array(v, np.uint8)
    image = r.u(0, 256, 1, 64, 56, 56)
    x = {"x": image}
    two = {"sa": s(0.05), "za": u(110), "sb": s(0.03), "zb": u(140), "sc": s(0.07), "zc": u(100)}
    for op in ("QLinearAdd", "QLinearMul"):
        model(op.lower(), node(op, "x sa za b sb zb sc zc"), x | {"b": r.u(0, 256, 1, 64, 56, 56)}, two)
    one = {"sx": s(0.05), "zx": u(120), "sy": s(0.04), "zy": u(110)}
    model("qlinearsigmoid", node("QLinearSigmoid", "x sx zx sy zy"), x, one)
    model("qlinearleakyrelu", node("QLinearLeakyRelu", "x sx zx sy zy"), x, one)
    model("qlinearsoftmax", node("QLinearSoftmax", "x sx zx sy zy", opset=13), {"x": r.u(0, 256, 1, 12, 128, 128)}, one | {"sy": s(1 / 256), "zy": u(0)})
    parts = {"sy": s(0.05), "zy": u(100), "s0": s(0.04), "z0": u(90), "s1": s(0.07), "z1": u(120)}
    model("qlinearconcat", node("QLinearConcat", "sy zy x s0 z0 b s1 z1", axis=1), x | {"b": r.u(0, 256, 1, 64, 56, 56)}, parts)
    model("qlinearaveragepool", node("QLinearAveragePool", "x sx zx sy zy", kernel_shape=[3, 3], strides=[2, 2]), x, one)
    model("qlinearglobalaveragepool", node("QLinearGlobalAveragePool", "x sx zx sy zy"), x, one)
    model("qlinearwhere", node("QLinearWhere", "c x sa za b sb zb sc zc"), {"c": r.u(0, 2, 1, 64, 56, 56, dtype=np.bool_)} | x | {"b": r.u(0, 256, 1, 64, 56, 56)}, two)
    w = one | {"w": r.u(-128, 128, 64, 64, 3, 3, dtype=np.int8), "sw": s(0.02), "zw": np.array(0, np.int8)}
    conv = lambda **k: node("QLinearConv", "x sx zx w sw zw sy zy", kernel_shape=[3, 3], pads=[1, 1, 1, 1], **k)
    model("qlinearconv", conv(), x, w)
    model("qlinearconv_last", conv(channels_last=1), {"x": image.transpose(0, 2, 3, 1).copy()}, w)
    pool = node("NhwcMaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    model("nhwcmaxpool", pool, {"x": r.u(0, 256, 1, 112, 112, 64)})
    model("quantizelinear", node("QuantizeLinear", "x sx zx"), {"x": r.f(1, 64, 56, 56)}, {"sx": s(0.02), "zx": u(128)})
    model("dequantizelinear", node("DequantizeLinear", "x sx zx"), x, {"sx": s(0.02), "zx": u(128)})


def main(folder, *wanted):
    global ROOT
    ROOT = pathlib.Path(folder)
    WANTED.extend(wanted)
    for make in (products, pointwise, attention, integers):
        make()


if __name__ == "__main__":
    main(*sys.argv[1:])
