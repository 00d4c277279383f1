#!/usr/bin/env python3
"""Pack operators in the forms that they had at opsets 7 to 13 into the second fixture of `tests/conformance`.

    pip install onnx==1.23.2 onnxruntime==1.31.1 numpy
    python python/pack_old_forms.py tests/conformance/old_forms.bin

The backend suite has each operator at its newest version. Here are small models of one node at older ones: attributes
that became inputs, defaults and broadcasting that changed. What is expected is what onnxruntime computes. The file is
of the format that `pack_suite.py` describes.
"""

import argparse
import warnings

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import pack_suite

warnings.filterwarnings("ignore")
RNG = np.random.default_rng(11)
CASES = []


def data(*shape, low=-2.0, high=2.0, dtype=np.float32):
    values = RNG.uniform(low, high, shape)
    return np.asarray(values, np.float64).astype(dtype)


def ints(*values):
    return np.array(values, np.int64)


def case(op, opset, inputs, outputs=1, **attributes):
    """One node. Inputs are arrays (inputs of the model), `const(array)` (initializers) or None (absent)."""
    CASES.append((op, opset, inputs, outputs, attributes))


class const:
    def __init__(self, array):
        self.array = np.asarray(array)


def cases():
    x, positive = data(2, 3, 4), data(2, 3, low=0.1, high=0.9)
    for op in ("Abs Ceil Elu Exp Floor HardSigmoid Identity LeakyRelu Neg Relu Selu Sigmoid Softplus "
               "Softsign Tanh Cos Sin Tan Atan Reciprocal").split():
        case(op, 7, [x])
    for op in "Sqrt Log Acos Asin".split():
        case(op, 7, [positive])
    for op in "Sinh Cosh Asinh Erf Sign IsNaN Shrink".split():
        case(op, 9, [x])
    case("Shrink", 9, [x], bias=0.5, lambd=1.0)
    case("Atanh", 9, [positive])
    case("Acosh", 9, [positive + 1])
    case("IsInf", 10, [np.array([1, np.inf, -np.inf], np.float32)], detect_negative=0)
    case("ThresholdedRelu", 10, [x], alpha=0.7)
    case("Round", 11, [np.array([0.5, 1.5, -2.5, 0.3], np.float32)])
    case("Celu", 12, [x], alpha=0.5)
    for op in "Add Sub Mul Div".split():
        case(op, 7, [x, data(3, 1, low=1)])
    case("Pow", 7, [positive, data(3)])
    case("Pow", 12, [positive, ints(2, 3, 1)])
    for op in "And Or Xor".split():
        case(op, 7, [x > 0, data(3, 1) > 0])
    case("Not", 7, [x > 0])
    for op, opset in [("Equal", 7), ("Less", 7), ("Greater", 7), ("Less", 9), ("Greater", 9), ("Equal", 11)]:
        dtype = np.int64 if op == "Equal" or opset == 9 else np.float32
        case(op, opset, [data(2, 3, dtype=dtype), data(3, dtype=dtype)])
    for op in "Max Min Sum Mean".split():
        case(op, 7, [x, x[::-1].copy(), -x])
        case(op, 8, [x, data(3, 1)])
        case(op, 8, [x])
    case("Max", 12, [data(2, 3, dtype=np.int64), data(3, dtype=np.int64)])
    case("Clip", 7, [x], min=-0.5, max=0.75)
    case("Clip", 7, [x], min=-0.5)
    case("Clip", 7, [x])
    case("Clip", 11, [x, np.float32(-1), np.float32(1)])
    case("Clip", 12, [data(4, low=-9, high=9, dtype=np.int64), None, np.int64(3)])
    case("Mod", 10, [ints(-7, 7, 5), ints(3, -3, 4)])
    case("Mod", 10, [x, data(3, 4, low=1)], fmod=1)
    case("BitShift", 11, [np.array([1, 200, 16], np.uint8), np.array([1, 2, 9], np.uint8)], direction="LEFT")
    case("PRelu", 7, [x, data(3, 1)])
    case("PRelu", 9, [x, data(4)])
    case("Cast", 7, [x], to=TensorProto.INT32)
    case("Cast", 9, [x], to=TensorProto.FLOAT16)
    # What the mask holds when nothing is dropped is stated from opset 12 on.
    case("Dropout", 7, [x], ratio=0.9)
    case("Dropout", 10, [x], ratio=0.9)
    case("Dropout", 12, [x, np.float32(0.9)], outputs=2)
    case("Where", 9, [x > 0, x, data(4)])
    # Sizes and moves.
    case("Slice", 7, [x], starts=[0, 1], ends=[1, -1], axes=[0, 2])
    case("Slice", 7, [x], starts=[1, -2], ends=[100, 3])
    case("Slice", 10, [x, ints(3), ints(-100), ints(2), ints(-2)])
    case("Slice", 11, [x, const(ints(0, -1)), const(ints(2, -9)), const(ints(-1, -2)), const(ints(1, -1))])
    case("Squeeze", 7, [data(1, 3, 1, 2)], axes=[0, 2])
    case("Squeeze", 7, [data(1, 3, 1, 2)])
    case("Squeeze", 11, [data(1, 3, 1)], axes=[-1])
    case("Unsqueeze", 7, [x], axes=[0, 4])
    case("Unsqueeze", 11, [x], axes=[-1, 1])
    case("Split", 7, [data(2, 6)], outputs=2, axis=1, split=[2, 4])
    case("Split", 7, [data(4, 3)], outputs=2)
    case("Split", 11, [data(2, 6)], outputs=3, axis=-1)
    case("Split", 13, [data(2, 6), const(ints(1, 5))], outputs=2, axis=1)
    case("Concat", 7, [x, data(2, 1, 4)], axis=1)
    case("Concat", 11, [x, data(2, 3, 1)], axis=-1)
    case("Flatten", 7, [x], axis=2)
    case("Flatten", 9, [x], axis=0)
    case("Flatten", 11, [x], axis=-1)
    case("Reshape", 7, [x, const(ints(0, -1, 2))])
    case("Transpose", 7, [x])
    case("Transpose", 7, [x], perm=[1, 2, 0])
    case("Expand", 8, [data(3, 1), const(ints(2, 1, 4))])
    case("Tile", 7, [data(2, 3), const(ints(2, 1))])
    case("Gather", 7, [x, const(np.array([[2, 0], [1, 1]], np.int32))], axis=1)
    case("Gather", 11, [x, ints(-1, 0)], axis=-2)
    case("GatherElements", 11, [data(3, 2), const(ints(0, 2).reshape(1, 2))])
    case("GatherND", 11, [x, const(np.array([[0, 2], [1, -1]], np.int64))])
    case("GatherND", 12, [x, const(np.array([[1], [2]], np.int64))], batch_dims=1)
    case("Scatter", 9, [data(3, 3), const(np.array([[1, 0, 2]], np.int64)), data(1, 3)])
    case("ScatterElements", 11, [data(3, 3), const(np.array([[-1, 0]], np.int64)), data(1, 2)], axis=-1)
    case("ScatterND", 11, [data(4, 2), const(np.array([[3], [0]], np.int64)), data(2, 2)])
    for mode in ("constant", "edge", "reflect"):
        case("Pad", 7, [x], mode=mode, pads=[0, 1, 2, 0, 1, 1], value=1.5)
        case("Pad", 11, [x, const(ints(0, 1, 2, 0, 1, 1)), np.float32(-1)], mode=mode)
    case("Pad", 7, [x], pads=[0, -1, 0, 0, 0, -2])
    case("DepthToSpace", 7, [data(1, 8, 2, 3)], blocksize=2)
    case("DepthToSpace", 11, [data(1, 8, 2, 3)], blocksize=2, mode="CRD")
    case("SpaceToDepth", 7, [data(1, 2, 4, 6)], blocksize=2)
    case("Shape", 7, [x])
    case("Size", 7, [x])
    case("ConstantOfShape", 9, [const(ints(2, 3))], value=numpy_helper.from_array(np.array([7], np.int32)))
    case("EyeLike", 9, [data(3, 4)], k=1, dtype=TensorProto.INT64)
    case("OneHot", 9, [ints(0, 2, 1), np.array([3], np.float32), np.array([-1, 4], np.int32)])
    case("OneHot", 11, [ints(0, -2, 1), np.array([3], np.float32), np.array([-1, 4], np.int32)], axis=0)
    case("Range", 11, [np.float32(1), np.float32(4), np.float32(0.5)])
    case("NonZero", 9, [x > 0])
    case("Compress", 9, [x, np.array([True, False, True])], axis=1)
    case("Compress", 11, [x, np.array([False, True])], axis=-3)
    case("Unique", 11, [ints(3, 1, 3, 2)], outputs=4)
    case("ReverseSequence", 10, [data(4, 3), const(ints(1, 4, 2))])
    case("CumSum", 11, [x, const(np.int32(1))], reverse=1)
    # Reductions.
    for op in "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare".split():
        values = data(2, 3, 4, low=0.1) if op == "LogSum" else x
        case("Reduce" + op, 7, [values], axes=[0, 2])
        case("Reduce" + op, 7, [values], axes=[1], keepdims=0)
        case("Reduce" + op, 7, [values])
        case("Reduce" + op, 11, [values], axes=[-2], keepdims=0)
        if op != "Sum":
            case("Reduce" + op, 13, [values], axes=[-1, 0])
    for op in "ArgMax ArgMin".split():
        case(op, 7, [x], axis=1)
        case(op, 11, [x], axis=-1, keepdims=0)
        case(op, 12, [np.array([[1, 2, 2], [0, 0, 3]], np.float32)], axis=1, select_last_index=1)
    for op in "Softmax LogSoftmax Hardmax".split():
        case(op, 7, [x])
        case(op, 7, [x], axis=2)
        case(op, 7, [x], axis=0)
        case(op, 11, [x], axis=-2)
        case(op, 13, [x], axis=1)
    case("TopK", 7, [data(3, 5)], outputs=2, k=2, axis=1)
    case("TopK", 10, [data(3, 5), const(ints(3))], outputs=2)
    case("TopK", 11, [data(3, 5), const(ints(3))], outputs=2, axis=0, largest=0)
    # Products.
    case("Gemm", 7, [data(2, 3), data(3, 4), data(4)], alpha=0.5, beta=2.0)
    case("Gemm", 7, [data(3, 2), data(4, 3), data(2, 1)], transA=1, transB=1)
    case("Gemm", 11, [data(2, 3), data(3, 4)])
    case("MatMul", 7, [data(2, 3, 4), data(4, 5)])
    case("MatMul", 9, [data(2, 3, dtype=np.int32), data(3, dtype=np.int32)])
    case("Einsum", 12, [data(2, 3), data(3, 4)], equation="ij,jk->ki")
    # Windows.
    image = data(1, 2, 7, 6)
    case("Conv", 7, [image, const(data(3, 2, 3, 2)), const(data(3))], kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 1])
    case("Conv", 7, [image, const(data(4, 1, 3, 3))], group=2, dilations=[2, 1])
    case("Conv", 7, [image, const(data(3, 2, 3, 3))], auto_pad="SAME_LOWER", strides=[2, 2])
    case("Conv", 11, [data(1, 2, 9), const(data(3, 2, 4))], auto_pad="SAME_UPPER")
    case("ConvTranspose", 7, [data(1, 2, 3, 3), const(data(2, 3, 3, 3))], strides=[2, 2], output_padding=[1, 1], pads=[1, 1, 1, 1])
    case("ConvTranspose", 7, [data(1, 2, 3, 3), const(data(2, 3, 3, 3))], strides=[3, 2], output_shape=[10, 8])
    case("ConvTranspose", 11, [data(1, 2, 4), const(data(2, 1, 3))], auto_pad="SAME_UPPER", strides=[2])
    case("MaxPool", 7, [image], kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1])
    case("MaxPool", 8, [image], outputs=2, kernel_shape=[2, 2])
    case("MaxPool", 10, [image], outputs=2, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, dilations=[1, 2])
    case("MaxPool", 11, [data(1, 1, 8)], kernel_shape=[3], auto_pad="SAME_UPPER", strides=[2])
    case("MaxPool", 11, [data(1, 2, 8)], outputs=2, kernel_shape=[3], auto_pad="SAME_LOWER", strides=[3])
    case("MaxPool", 12, [data(1, 2, 5, 5, low=-9, high=9, dtype=np.int8)], kernel_shape=[2, 2])
    case("AveragePool", 7, [image], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    case("AveragePool", 7, [image], kernel_shape=[3, 3], auto_pad="SAME_LOWER", strides=[2, 2])
    case("AveragePool", 10, [image], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    case("AveragePool", 11, [image], kernel_shape=[3, 2], pads=[1, 0, 0, 1])
    case("LpPool", 7, [image], kernel_shape=[2, 2], p=1)
    case("LpPool", 11, [image], kernel_shape=[2, 3], p=3, strides=[2, 1])
    for op in "GlobalAveragePool GlobalMaxPool GlobalLpPool".split():
        case(op, 7, [image])
    case("MaxUnpool", 9, [data(1, 1, 2, 2), const(np.array([[[[5, 7], [13, 15]]]], np.int64))], kernel_shape=[2, 2], strides=[2, 2])
    case("LRN", 7, [data(1, 6, 2, 2)], size=3, alpha=0.01, beta=0.6, bias=1.5)
    case("MaxRoiPool", 7, [image, const(np.array([[0, 0, 0, 4, 5]], np.float32))], pooled_shape=[2, 2])
    rois = const(np.array([[0.5, 1, 4, 5]], np.float32))
    case("RoiAlign", 10, [image, rois, const(ints(0))], output_height=2, output_width=3, sampling_ratio=2)
    for mode in ("nearest", "linear"):
        scales = [1.0, 1.0, 2.0, 1.5]
        case("Upsample", 7, [image], mode=mode, scales=scales)
        case("Upsample", 9, [image, const(np.array(scales, np.float32))], mode=mode)
        # Which of two pixels is the nearest of a smaller image is stated from opset 11 on.
        case("Resize", 10, [image, const(np.array([1, 1, 0.6 if mode == "linear" else 3, 1.7], np.float32))], mode=mode)
        case("Resize", 11, [image, const(np.zeros(0, np.float32)), const(np.array(scales, np.float32))], mode=mode)
        case("Resize", 11, [image, const(np.zeros(0, np.float32)), const(np.zeros(0, np.float32)), const(ints(1, 2, 5, 9))],
             mode=mode, coordinate_transformation_mode="align_corners")
        case("Resize", 13, [image, None, None, const(ints(1, 2, 10, 3))], mode=mode,
             coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    # Normalisation.
    four = [const(data(2, low=0.5)), const(data(2)), const(data(2)), const(data(2, low=0.5))]
    case("BatchNormalization", 7, [image, *four], epsilon=1e-3)
    case("BatchNormalization", 9, [image, *four])
    case("BatchNormalization", 9, [data(3, 2), *four])
    case("InstanceNormalization", 7, [image, const(data(2)), const(data(2))])
    case("LpNormalization", 7, [x], axis=1, p=1)
    case("LpNormalization", 7, [x])
    case("MeanVarianceNormalization", 9, [image])
    case("MeanVarianceNormalization", 9, [image], axes=[2, 3])
    # Recurrent.
    steps, size, hidden = data(3, 2, 4), 4, 5
    for op, gates, outputs in [("RNN", 1, 2), ("GRU", 3, 2), ("LSTM", 4, 3)]:
        weights = lambda n: [const(data(n, gates * hidden, size, low=-0.5, high=0.5)),
                             const(data(n, gates * hidden, hidden, low=-0.5, high=0.5)),
                             const(data(n, 2 * gates * hidden, low=-0.5, high=0.5))]
        case(op, 7, [steps, *weights(1)], outputs=outputs, hidden_size=hidden)
        case(op, 7, [steps, *weights(2), const(np.array([3, 2], np.int32))], outputs=outputs,
             hidden_size=hidden, direction="bidirectional")
    # Quantised.
    u8 = lambda *shape: data(*shape, low=0, high=255, dtype=np.uint8)
    case("QuantizeLinear", 10, [x * 9, np.float32(0.2), np.uint8(100)])
    case("DequantizeLinear", 10, [u8(2, 3), np.float32(0.2), np.uint8(100)])
    case("QuantizeLinear", 13, [x * 9, data(3, low=0.1, high=0.5), const(np.array([3, 4, 5], np.int8))], axis=-2)
    case("DequantizeLinear", 13, [u8(2, 3), data(3, low=0.1, high=0.5), const(np.array([3, 4, 5], np.uint8))], axis=1)
    case("DynamicQuantizeLinear", 11, [x], outputs=3)
    case("MatMulInteger", 10, [u8(2, 3), u8(3, 2), np.uint8(7)])
    case("ConvInteger", 10, [u8(1, 2, 4, 4), u8(1, 2, 2, 2), np.uint8(3)])
    case("QLinearMatMul", 10, [u8(2, 3), np.float32(0.1), np.uint8(3), const(u8(3, 2)), const(np.float32(0.05)), const(np.uint8(9)),
                               np.float32(0.3), np.uint8(120)])
    case("QLinearConv", 10, [u8(1, 1, 4, 4), np.float32(0.1), np.uint8(3), const(u8(1, 1, 2, 2)), const(np.float32(0.05)),
                             const(np.uint8(9)), np.float32(0.3), np.uint8(120)])
    # Selection, losses, counts of words.
    boxes = np.array([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, 5, 1, 6]]], np.float32)
    case("NonMaxSuppression", 10, [boxes, data(1, 1, 3, low=0.1, high=1), const(ints(3)), const(np.float32([0.5])), const(np.float32([0.0]))])
    case("Det", 11, [data(2, 3, 3)])
    case("NegativeLogLikelihoodLoss", 12, [data(2, 3), const(ints(1, 0))], reduction="sum")
    case("SoftmaxCrossEntropyLoss", 12, [data(2, 3), const(ints(1, 2))])
    case("TfIdfVectorizer", 9, [ints(1, 2, 3, 1)], mode="TF", min_gram_length=1, max_gram_length=2, max_skip_count=0,
         ngram_counts=[0, 2], ngram_indexes=[0, 1, 2], pool_int64s=[1, 3, 1, 2])
    # Control flow: bodies at old opsets.
    for opset in (7, 11):
        branch = lambda op: helper.make_graph([helper.make_node(op, ["x"], ["b"])], op, [],
                                              [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)])
        CASES.append(("If", opset, [np.array(True), x], 1, {"then_branch": branch("Neg"), "else_branch": branch("Abs")}))


def build(op, opset, inputs, outputs, attributes):
    infos, arrays, initializers, names = [], [], [], []
    for i, value in enumerate(inputs):
        name = "x" if op == "If" and i == 1 else f"i{i}"
        names.append("" if value is None else name)
        if isinstance(value, const):
            initializers.append(numpy_helper.from_array(value.array, name))
        elif value is not None:
            value = np.asarray(value, dtype=object if np.asarray(value).dtype.kind == "U" else None)
            kind = TensorProto.STRING if value.dtype == object else helper.np_dtype_to_tensor_dtype(value.dtype)
            infos.append(helper.make_tensor_value_info(name, kind, value.shape))
            arrays.append(value)
    reads = names[:1] if op == "If" else names
    node = helper.make_node(op, reads, [f"o{i}" for i in range(outputs)], **attributes)
    results = [helper.make_tensor_value_info(n, 0, None) for n in node.output]
    for info in results:
        info.type.Clear()
    graph = helper.make_graph([node], op, infos, results, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
    inferred = onnx.shape_inference.infer_shapes(model)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(inferred.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(None, dict(zip([i.name for i in infos], arrays)))
    for info, array in zip(model.graph.output, found):
        array = np.asarray(array)
        kind = TensorProto.STRING if array.dtype == object else helper.np_dtype_to_tensor_dtype(array.dtype)
        info.CopyFrom(helper.make_tensor_value_info(info.name, kind, array.shape))
    onnx.checker.check_model(model, full_check=True)
    inputs = [pack_suite.file_of(a, i) for a, i in zip(arrays, infos)]
    return model.SerializeToString(), [(inputs, [pack_suite.file_of(np.asarray(a), i) for a, i in zip(found, model.graph.output)])]


def collect():
    cases()
    count = {}
    for op, opset, *rest in CASES:
        name = f"{op}_{opset}"
        count[name] = count.get(name, 0) + 1
        try:
            model, sets = build(op, opset, *rest)
        except Exception as error:
            print(f"left out: {name} {count[name]}: {str(error).splitlines()[0][:200]}")
            continue
        yield "old", f"test_{name}_{count[name]}", 1e-3, 1e-5, model, sets


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    producer = f"onnxruntime {ort.__version__}"
    pack_suite.write(parser.parse_args().out, producer, collect())


if __name__ == "__main__":
    main()
