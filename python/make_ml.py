#!/usr/bin/env python3
"""Make the fixture of `tests/ml.rs`: small models of ai.onnx.ml with inputs and expected outputs.

    pip install onnx==1.23.2 onnxruntime==1.31.1 numpy scikit-learn==1.9.1 skl2onnx==1.20.0 pandas
    python python/make_ml.py tests/ml/suite.bin

Two kinds of cases. `operator`: one node, in each form of its attributes, inputs and opsets; expected is what onnxruntime
computes, or `onnx.reference` where onnxruntime lacks the operator for a type (the script says which). `sklearn`: models
that skl2onnx made of trained estimators (`sklearn_check.py` has them); expected is what scikit-learn predicts.
The form of the file is that of `pack_suite.py`.
"""

import argparse
import itertools
import os
import sys
import warnings

warnings.filterwarnings("ignore")

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import pack_suite

onnxruntime.set_default_logger_severity(4)
ML = "ai.onnx.ml"
H, F, D, I, L, S = TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64, TensorProto.STRING
RNG = np.random.default_rng(20261130)
POST = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"]
NUMPY = {H: np.float16, F: np.float32, D: np.float64, I: np.int32, L: np.int64}
SHORT = {H: "f16", F: "f32", D: "f64", I: "i32", L: "i64", S: "string"}

CASES = []


def tensor_type(dtype, rank):
    return helper.make_tensor_type_proto(dtype, [None] * rank)


def map_type(key, value):
    return helper.make_map_type_proto(key, helper.make_tensor_type_proto(value, []))


def case(name, op, inputs, outputs, opset=5, expected=None, after=None, expected_as={}, expected_at=None, reference=False, domain=ML, rtol=1e-5, atol=1e-6, **attributes):
    """Adds a case. `inputs`: (type, value) pairs; `outputs`: types; `expected`: a list that stands above the runtimes;
    `expected_as`: attributes for onnxruntime that differ, `expected_at` another opset, and `after`: what is done to its
    outputs; `reference`: not by onnxruntime, which departs from the specification."""
    attributes = {k: v for k, v in attributes.items() if v is not None}
    names = [f"x{i}" for i in range(len(inputs))], [f"y{i}" for i in range(len(outputs))]
    node = helper.make_node(op, *names, domain=domain, name="node", **attributes)
    graph = helper.make_graph(
        [node], "g",
        [onnx.ValueInfoProto(name=n, type=t) for n, (t, _) in zip(names[0], inputs)],
        [onnx.ValueInfoProto(name=n, type=t) for n, t in zip(names[1], outputs)],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid(domain, opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    onnx.checker.check_model(model)
    feed = {n: v for n, (_, v) in zip(names[0], inputs)}
    if expected is None:
        other = onnx.ModelProto.FromString(model.SerializeToString())
        for key, value in expected_as.items():
            next(a for a in other.graph.node[0].attribute if a.name == key).i = value
        other.opset_import[1].version = expected_at or opset
        expected = None if reference else by_onnxruntime(name, other, feed)
        if expected is None:
            expected = by_onnxruntime(name, *in_f32(model, feed)) if op.endswith("Regressor") else None
        if expected is None:
            print(f"{name}: by onnx.reference")
            expected = ReferenceEvaluator(model).run(None, feed)
        expected = after(expected) if after else expected
    values = [value_file(v, t, n) for n, (t, v) in zip(names[0], inputs)]
    results = [value_file(v, t, n) for n, v, t in zip(names[1], expected, outputs)]
    CASES.append(("operator", name, rtol, atol, model.SerializeToString(deterministic=True), [(values, results)]))


def by_onnxruntime(name, model, feed):
    """None: it has no implementation for these types."""
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, feed)
    except Exception as error:
        text = str(error).splitlines()[0]
        if not any(sign in text for sign in ("NOT_IMPLEMENTED", "Could not find an implementation", "must have same type as input")):
            raise SystemExit(f"{name}: {text}") from error
        return None


def in_f32(model, feed):
    """The same with features of f32; `onnx.reference` would give whole numbers for whole features."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    model.graph.input[0].type.tensor_type.elem_type = F
    return model, {name: value.astype(np.float32) for name, value in feed.items()}


def value_file(value, ty, name):
    if ty.HasField("map_type"):
        return map_proto(value, ty.map_type, name).SerializeToString(deterministic=True)
    if ty.HasField("sequence_type"):
        sequence = onnx.SequenceProto(name=name, elem_type=onnx.SequenceProto.MAP)
        sequence.map_values.extend(map_proto(v, ty.sequence_type.elem_type.map_type, "") for v in value)
        return sequence.SerializeToString(deterministic=True)
    dtype = ty.tensor_type.elem_type
    value = np.asarray(value, NUMPY.get(dtype)) if dtype != S else np.asarray(value, object)
    return numpy_helper.from_array(value, name).SerializeToString(deterministic=True)


def map_proto(value, ty, name):
    proto = onnx.MapProto(name=name, key_type=ty.key_type)
    proto.values.elem_type = onnx.SequenceProto.TENSOR
    inner = ty.value_type.tensor_type.elem_type
    for k, v in value.items():
        if ty.key_type == S:
            proto.string_keys.append(k.encode())
        else:
            proto.keys.append(k)
        v = np.asarray(v, object) if inner == S else NUMPY[inner](v)
        proto.values.tensor_values.append(numpy_helper.from_array(v))
    return proto


def matrix(dtype, rows, columns, whole=False):
    x = RNG.normal(0, 2, (rows, columns))
    return (tensor_type(dtype, 2), (np.round(x) if whole or dtype in (I, L) else x).astype(NUMPY[dtype]))


def strings(values, *shape):
    return np.array(RNG.choice(values, shape), dtype=object)


# ---- features ------------------------------------------------------------------------------------


def features():
    f32 = tensor_type(F, 2)
    for dtype in (F, D, L, I):
        case(f"array_feature_extractor_{SHORT[dtype]}", "ArrayFeatureExtractor",
             [matrix(dtype, 3, 5), (tensor_type(L, 1), np.array([4, 0, 0, 2]))], [tensor_type(dtype, 2)], opset=1)
        case(f"binarizer_{SHORT[dtype]}", "Binarizer", [matrix(dtype, 3, 4)], [tensor_type(dtype, 2)], opset=1, threshold=0.5)
        case(f"normalizer_l2_{SHORT[dtype]}", "Normalizer", [matrix(dtype, 4, 3)], [f32], opset=1, norm="L2")
        case(f"scaler_{SHORT[dtype]}", "Scaler", [matrix(dtype, 4, 3)], [f32], opset=1, offset=[1.0, -2.0, 0.5], scale=[0.5, 2.0, 3.0])
        case(f"feature_vectorizer_{SHORT[dtype]}", "FeatureVectorizer", [matrix(dtype, 3, 2), matrix(dtype, 3, 1)], [f32],
             opset=1, inputdimensions=[2, 1])
    words = (tensor_type(S, 2), strings(["a", "bb", ""], 2, 4))
    case("array_feature_extractor_string", "ArrayFeatureExtractor", [words, (tensor_type(L, 1), np.array([3, 1]))], [words[0]], opset=1)
    case("array_feature_extractor_rank_1", "ArrayFeatureExtractor",
         [(tensor_type(F, 1), np.arange(4, dtype=np.float32)), (tensor_type(L, 1), np.array([2]))], [f32], opset=1)
    case("scaler_one_number", "Scaler", [matrix(F, 2, 3)], [f32], opset=1, offset=[1.0], scale=[2.0])
    for norm in ("MAX", "L1"):
        x = np.array([[1, -2, 3], [0, 0, 0], [4, 4, 2], [0.5, 0, 0]], np.float32)
        case(f"normalizer_{norm.lower()}", "Normalizer", [(f32, x)], [f32], opset=1, norm=norm)
    gaps = matrix(F, 4, 3)[1]
    gaps[RNG.random(gaps.shape) < 0.4] = np.nan
    case("imputer_nan_a_feature", "Imputer", [(f32, gaps)], [f32], opset=1, imputed_value_floats=[1.0, 2.0, 3.0], replaced_value_float=float("nan"))
    case("imputer_nan_one", "Imputer", [(f32, gaps)], [f32], opset=1, imputed_value_floats=[7.0], replaced_value_float=float("nan"))
    case("imputer_number", "Imputer", [(f32, np.round(matrix(F, 4, 3)[1]))], [f32], opset=1, imputed_value_floats=[9.0], replaced_value_float=1.0)
    case("imputer_i64", "Imputer", [(tensor_type(L, 2), RNG.integers(-1, 2, (4, 3)))], [tensor_type(L, 2)], opset=1,
         imputed_value_int64s=[10, 20, 30], replaced_value_int64=-1)


# ---- labels and categories -----------------------------------------------------------------------


def labels():
    names = ["red", "green", "blue"]
    seen = strings(names + ["gr\u00fcn", ""], 2, 4)
    text, whole = tensor_type(S, 2), tensor_type(L, 2)
    numbers = RNG.integers(0, 5, (2, 4))
    case("category_mapper_to_int", "CategoryMapper", [(text, seen)], [whole], opset=1, cats_int64s=[4, 5, 6], cats_strings=names, default_int64=-7)
    case("category_mapper_to_string", "CategoryMapper", [(whole, numbers)], [text], opset=1, cats_int64s=[1, 2, 3], cats_strings=names, default_string="?")
    case("label_encoder_1_to_int", "LabelEncoder", [(text, seen)], [whole], opset=1, classes_strings=names)
    case("label_encoder_1_to_string", "LabelEncoder", [(whole, numbers)], [text], opset=1, classes_strings=names, default_string="none")
    sides = {
        S: ("strings", names + ["again"], seen),
        L: ("int64s", [3, 1, 2, 0], numbers),
        F: ("floats", [0.5, 1.0, float("nan"), -1.0], np.array([[0.5, np.nan, -1, 7], [1, 0, -0.0, 2]], np.float32)),
    }
    for key, value in itertools.product(sides, sides):
        (k, keys, x), (v, values, _) = sides[key], sides[value]
        for opset in (2, 4):
            case(f"label_encoder_{opset}_{SHORT[key]}_to_{SHORT[value]}", "LabelEncoder", [(tensor_type(key, 2), x)], [tensor_type(value, 2)],
                 opset=opset, default_string="other", default_int64=-5, default_float=2.5,
                 # NaN is a key like others, which onnxruntime knows from opset 4 on.
                 expected_at=4, **{f"keys_{k}": keys, f"values_{v}": values})
    many = RNG.permutation(60)
    case("label_encoder_many_keys", "LabelEncoder", [(tensor_type(L, 1), RNG.integers(0, 80, 40))], [tensor_type(F, 1)], opset=2,
         keys_int64s=many[:40].tolist(), values_floats=RNG.normal(size=40).astype(np.float32).tolist())
    vector = lambda t, v: helper.make_tensor("t", t, [len(v)], v)
    case("label_encoder_tensors_f64", "LabelEncoder", [(tensor_type(D, 1), np.array([0.1, 0.2, 0.3]))], [tensor_type(D, 1)], opset=4,
         keys_tensor=vector(D, [0.1, 0.3]), values_tensor=vector(D, [1.5, 2.5]), default_tensor=vector(D, [-1.0]))
    case("label_encoder_tensors_string_to_i16", "LabelEncoder", [(text, seen)], [tensor_type(TensorProto.INT16, 2)], opset=4,
         keys_tensor=vector(S, [n.encode() for n in names]), values_tensor=vector(TensorProto.INT16, [7, 8, 9]),
         default_tensor=vector(TensorProto.INT16, [-1]))
    for zeros in (0, 1):
        x = strings(names, 3) if not zeros else seen
        case(f"one_hot_encoder_string_{zeros}", "OneHotEncoder", [(tensor_type(S, x.ndim), x)], [tensor_type(F, x.ndim + 1)], opset=1, cats_strings=names, zeros=zeros)
    for dtype in (F, D, L, I):
        x = RNG.integers(0, 4, (3, 2)).astype(NUMPY[dtype])
        case(f"one_hot_encoder_{SHORT[dtype]}", "OneHotEncoder", [(tensor_type(dtype, 2), x)], [tensor_type(F, 3)], opset=1, cats_int64s=[2, 0, 1], zeros=1)


def maps():
    scores = matrix(F, 3, 4)
    pairs = lambda key: helper.make_sequence_type_proto(map_type(key, F))
    case("zip_map_int", "ZipMap", [scores], [pairs(L)], opset=1, classlabels_int64s=[10, 5, 7, 0])
    case("zip_map_string", "ZipMap", [scores], [pairs(S)], opset=1, classlabels_strings=["b", "a", "", "gr\u00fcn"])
    case("zip_map_vector", "ZipMap", [(tensor_type(F, 1), np.array([0.25, 0.75], np.float32))], [pairs(L)], opset=1, classlabels_int64s=[0, 1])
    for key, value in [(S, F), (S, D), (S, L), (L, F), (L, D), (L, S)]:
        keys, words = (["b", "x", "a"], ["a", "b", "c", "d"]) if key == S else ([7, 100, -3], [-3, 0, 7, 8])
        values = ["one", "", "two"] if value == S else [1.5, 2, -3] if value != L else [1, 2, -3]
        row = [dict(zip(keys, values)).get(k, "" if value == S else 0) for k in words]
        # The Python interface of onnxruntime knows few kinds of maps.
        case(f"dict_vectorizer_{SHORT[key]}_{SHORT[value]}", "DictVectorizer", [(map_type(key, value), dict(zip(keys, values)))],
             [tensor_type(value, 2)], opset=1, expected=None if value == F else [[row]], **{"string_vocabulary" if key == S else "int64_vocabulary": words})
    # Maps to strings cannot be given to onnxruntime in Python.
    numbers, words = {5: 1.0, 0: 2.5, 2: -3.0}, {5: "1", 0: "2.5", 2: "-3"}
    whole = {5: "1", 0: "25", 2: "-3"}
    read = lambda m, dtype, form: [[[NUMPY[dtype](float(m[k])) if k in m else 0 for k in (sorted(m) if form == "DENSE" else range(7))]]]
    for form in ("DENSE", "SPARSE"):
        for to, dtype in (("TO_FLOAT", F), ("TO_INT64", L)):
            case(f"cast_map_{form}_{to}".lower(), "CastMap", [(map_type(L, F), numbers)], [tensor_type(dtype, 2)], opset=1,
                 cast_to=to, map_form=form, max_map=7)
            case(f"cast_map_string_{form}_{to}".lower(), "CastMap", [(map_type(L, S), whole if dtype == L else words)], [tensor_type(dtype, 2)],
                 opset=1, cast_to=to, map_form=form, max_map=7, expected=read(whole if dtype == L else words, dtype, form))
    case("cast_map_to_string", "CastMap", [(map_type(L, S), words)], [tensor_type(S, 2)], opset=1, cast_to="TO_STRING", expected=[[["2.5", "-3", "1"]]])


def tokens():
    """Tokenizer of onnxruntime, which vectorisers of text need."""
    texts = np.array(["The quick-brown fox", "", "gr\u00fcn\u20ac a1_b\n2", "  "], dtype=object)
    ways = {
        "words": {"tokenexp": "[a-zA-Z0-9_]+"},
        "any": {"tokenexp": "."},
        "longest": {"tokenexp": "q|quick|[a-z]+-"},
        "characters": {"separators": [""]},
        "spaces": {"separators": [" "]},
        "separators": {"separators": ["-", "[ ]+"]},
    }
    for (name, way), least, mark in itertools.product(ways.items(), (1, 3), (0, 1)):
        if least > 1 and name in ("any", "characters"):
            continue
        for shape in ([4], [2, 2]) if least == 1 else ([4],):
            case(f"tokenizer_{name}_{least}_{mark}_{len(shape)}", "Tokenizer", [(tensor_type(S, len(shape)), texts.reshape(shape))],
                 [tensor_type(S, len(shape) + 1)], opset=1, domain="com.microsoft", mark=mark, mincharnum=least, pad_value="#", **way)


# ---- linear models and support vectors -----------------------------------------------------------


def floats(*shape):
    return RNG.normal(0, 1, shape).astype(np.float32).ravel().tolist()


def linear():
    scores = tensor_type(F, 2)
    for dtype in (F, D, L, I):
        case(f"linear_regressor_{SHORT[dtype]}", "LinearRegressor", [matrix(dtype, 3, 4)], [scores], opset=1,
             coefficients=floats(2, 4), intercepts=floats(2), targets=2)
        case(f"linear_classifier_{SHORT[dtype]}", "LinearClassifier", [matrix(dtype, 5, 4)], [tensor_type(L, 1), scores], opset=1,
             coefficients=floats(3, 4), intercepts=floats(3), classlabels_ints=[3, 1, 2])
    case("linear_regressor_no_intercept", "LinearRegressor", [matrix(F, 3, 4)], [scores], opset=1, coefficients=floats(1, 4))
    for post in POST:
        limit = post == "PROBIT"
        x = matrix(F, 6, 3) if not limit else (tensor_type(F, 2), RNG.random((6, 3)).astype(np.float32) * 0.3 + 0.02)
        weights = [1.0, 0.5, 0.25, 0.5, 0.1, 0.2, 0.3, 0.3, 0.3]
        case(f"linear_classifier_{post.lower()}", "LinearClassifier", [x], [tensor_type(S, 1), scores], opset=1, post_transform=post,
             coefficients=weights if limit else floats(3, 3), intercepts=[0.05, 0.02, 0.01] if limit else floats(3),
             classlabels_strings=["x", "y", "z"])
        case(f"linear_classifier_binary_{post.lower()}", "LinearClassifier", [x], [tensor_type(L, 1), scores], opset=1, post_transform=post,
             coefficients=(weights[:3] + [0.3, 0.1, 0.2]) if limit else floats(2, 3), intercepts=[0.05, 0.1] if limit else floats(2),
             classlabels_ints=[7, 9])


def support_vectors():
    scores = tensor_type(F, 2)
    kernels = ("LINEAR", "POLY", "RBF", "SIGMOID")
    for kernel in kernels:
        params = [0.3, 0.5, 3.0]
        case(f"svm_regressor_{kernel.lower()}", "SVMRegressor", [matrix(F, 4, 3)], [scores], opset=1, kernel_type=kernel, kernel_params=params,
             n_supports=5, support_vectors=floats(5, 3), coefficients=floats(5), rho=[0.7])
        for classes, proba in itertools.product((2, 3, 4), (False, True)):
            pairs, n = classes * (classes - 1) // 2, 6
            counts = [2, 4] if classes == 2 else [1, 2, 3] if classes == 3 else [1, 1, 2, 2]
            case(f"svm_classifier_{kernel.lower()}_{classes}{'_proba' if proba else ''}", "SVMClassifier", [matrix(F, 5, 3)],
                 [tensor_type(L, 1), scores], opset=1, kernel_type=kernel, kernel_params=params, vectors_per_class=counts,
                 support_vectors=floats(n, 3), coefficients=floats(classes - 1, n), rho=floats(pairs),
                 prob_a=[-abs(v) for v in floats(pairs)] if proba else None, prob_b=floats(pairs) if proba else None,
                 classlabels_ints=[10 * c for c in range(classes)], rtol=1e-4, atol=1e-5)
    case("svm_regressor_linear_model", "SVMRegressor", [matrix(F, 4, 3)], [scores], opset=1, kernel_type="LINEAR", kernel_params=[0.0, 0.0, 0.0], coefficients=floats(3), rho=[0.2])
    case("svm_one_class", "SVMRegressor", [matrix(F, 8, 2)], [scores], opset=1, kernel_type="RBF", kernel_params=[0.5, 0.0, 3.0], n_supports=3,
         support_vectors=floats(3, 2), coefficients=[0.5, 0.4, 0.3], rho=[-0.4], one_class=1)
    for dtype in (D, L, I):
        case(f"svm_regressor_{SHORT[dtype]}", "SVMRegressor", [matrix(dtype, 4, 3)], [scores], opset=1, kernel_type="RBF",
             kernel_params=[0.3, 0.0, 3.0], n_supports=4, support_vectors=floats(4, 3), coefficients=floats(4), rho=[0.1])
        case(f"svm_classifier_{SHORT[dtype]}", "SVMClassifier", [matrix(dtype, 4, 3)], [tensor_type(S, 1), scores], opset=1, kernel_type="RBF",
             kernel_params=[0.3, 0.0, 3.0], vectors_per_class=[2, 2], support_vectors=floats(4, 3), coefficients=floats(1, 4), rho=[0.1],
             classlabels_strings=["no", "yes"])
    for post in POST[1:4]:
        case(f"svm_classifier_linear_model_{post.lower()}", "SVMClassifier", [matrix(F, 4, 3)], [tensor_type(L, 1), scores], opset=1,
             kernel_type="LINEAR", kernel_params=[0.0, 0.0, 0.0], coefficients=floats(3, 3), rho=[0.25], classlabels_ints=[0, 1, 2], post_transform=post)


# ---- trees ---------------------------------------------------------------------------------------

MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]


class Tree:
    """A random tree as lists, parents first; a leaf has no children."""

    def __init__(self, depth, features, modes, dtype):
        self.nodes = []
        self.grow(depth, features, modes, dtype)

    def grow(self, depth, features, modes, dtype):
        at = len(self.nodes)
        if depth == 0 or (at > 0 and RNG.random() < 0.2):
            self.nodes.append(None)
            return at
        mode = modes[RNG.integers(len(modes))]
        split = RNG.normal(0, 2)
        if mode in ("BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER") or RNG.random() < 0.3:
            split = np.round(split)
        node = [mode, int(RNG.integers(features)), float(NUMPY[dtype](split)), None, None, int(RNG.integers(2))]
        self.nodes.append(node)
        node[3] = self.grow(depth - 1, features, modes, dtype)
        node[4] = self.grow(depth - 1, features, modes, dtype)
        return at


def rows(dtype, n, features, gaps):
    x = RNG.normal(0, 2, (n, features))
    whole = RNG.random(x.shape) < 0.5
    x[whole] = np.round(x[whole])
    if gaps and dtype in (H, F, D):
        x[RNG.random(x.shape) < 0.25] = np.nan
    if dtype in (I, L):
        x = np.round(x)
    return tensor_type(dtype, 2), x.astype(NUMPY[dtype])


def old_trees(prefix, trees, targets, votes, tensor, missing):
    """Attributes of the two old operators."""
    a = {k: [] for k in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids", "missing_value_tracks_true", "hitrates")}
    v = {k: [] for k in ("treeids", "nodeids", "ids", "weights")}
    for t, tree in enumerate(trees):
        for i, node in enumerate(tree.nodes):
            mode, feature, split, yes, no, track = node or ("LEAF", 0, 0.0, 0, 0, 0)
            for key, value in zip(a, (t, i, feature, mode, split, yes, no, track, 1.0)):
                a[key].append(value)
            if node is None:
                for target in votes(targets):
                    weight = float(np.float32(RNG.normal()))
                    for key, value in zip(v, (t, i, target, weight)):
                        v[key].append(value)
    out = {f"nodes_{k}": x for k, x in a.items() if k != "missing_value_tracks_true" or missing}
    out |= {f"{prefix}_{k}": x for k, x in v.items()}
    if tensor is not None:
        for key in ("nodes_values", "nodes_hitrates", f"{prefix}_weights"):
            values = out.pop(key)
            out[f"{key}_as_tensor"] = helper.make_tensor(key, tensor, [len(values)], values)
    return out


def one_vote(targets):
    return [int(RNG.integers(targets))]


def all_votes(targets):
    return list(range(targets))


def forest(n, modes=MODES[:1], features=4, dtype=F, depth=4):
    return [Tree(depth, features, modes, dtype) for _ in range(n)]


def trees():
    scores = tensor_type(F, 2)
    aggregates = ("SUM", "AVERAGE", "MIN", "MAX")
    regress = lambda name, x, trees, targets=1, votes=one_vote, tensor=None, missing=False, opset=3, **more: case(
        f"tree_regressor_{name}", "TreeEnsembleRegressor", [x], [scores], opset=opset, n_targets=targets,
        **old_trees("target", trees, targets, votes, tensor, missing), **more)
    classify = lambda name, x, trees, classes=3, votes=all_votes, tensor=None, missing=False, opset=3, words=False, **more: case(
        f"tree_classifier_{name}", "TreeEnsembleClassifier", [x], [tensor_type(S if words else L, 1), scores], opset=opset,
        classlabels_strings=[f"c{i}" for i in range(classes)] if words else None,
        classlabels_int64s=None if words else [5 * i for i in range(classes)],
        **old_trees("class", trees, classes, votes, tensor, missing), **more)
    for mode in MODES:
        regress(f"mode_{mode[7:].lower()}", rows(F, 8, 4, False), forest(3, [mode]))
        regress(f"mode_{mode[7:].lower()}_missing", rows(F, 8, 4, True), forest(3, [mode]), missing=True)
    regress("all_modes", rows(F, 12, 4, True), forest(10, MODES), missing=True)
    for aggregate, targets in itertools.product(aggregates, (1, 2)):
        regress(f"{aggregate.lower()}_{targets}", rows(F, 6, 4, False), forest(9), targets, all_votes, aggregate_function=aggregate,
                base_values=floats(targets))
    for post in POST[:4]:
        regress(f"{post.lower()}", rows(F, 6, 4, False), forest(3), 3, all_votes, post_transform=post)
    for dtype in (D, L, I):
        regress(f"{SHORT[dtype]}", rows(dtype, 8, 4, dtype == D), forest(9, dtype=F), opset=1)
        classify(f"{SHORT[dtype]}", rows(dtype, 8, 4, dtype == D), forest(9, dtype=F), opset=1)
    near = rows(D, 12, 3, False)
    deep = forest(4, features=3, dtype=D)
    for node in itertools.chain(*(t.nodes for t in deep)):
        # Thresholds that f32 does not tell from a feature.
        if node and RNG.random() < 0.7:
            node[2] = float(near[1][RNG.integers(12), node[1]] * (1 + RNG.choice([-1, 1]) * 1e-10))
    regress("f64_as_tensor", near, deep, tensor=D)
    classify("f64_as_tensor", near, deep, tensor=D)
    regress("f32_as_tensor", rows(F, 6, 4, False), forest(3), tensor=F)
    regress("wide", rows(F, 3, 300, False), forest(5, features=300))
    regress("single_leaf", rows(F, 3, 2, False), forest(2, depth=0))
    regress("many_rows", rows(F, 70, 4, True), forest(20, depth=6), missing=True)
    for words, post in itertools.product((False, True), POST[:4]):
        name = f"{post.lower()}{'_strings' if words else ''}"
        classify(name, rows(F, 6, 4, False), forest(5), words=words, post_transform=post, opset=1 if words else 3)
        # Where both classes have votes onnxruntime does not take the greater score, and gives 0 or 1 whatever the labels.
        classify(f"binary_{name}", rows(F, 6, 4, False), forest(5), 2, words=words, post_transform=post, opset=1 if words else 3, reference=True)
        classify(f"binary_one_{name}", rows(F, 6, 4, False), forest(5), 2, lambda n: [0], words=words, post_transform=post)
    classify("base", rows(F, 6, 4, False), forest(5), base_values=floats(3))
    classify("one_vote", rows(F, 9, 4, True), forest(9, MODES), votes=one_vote, missing=True)
    classify("many_classes", rows(F, 6, 4, False), forest(30), 12, one_vote)
    new_trees()


def transformed(post):
    """SOFTMAX (1) or LOGISTIC (2) of raw scores."""

    def of(outputs):
        scores = outputs[0].astype(np.float64)
        if post == 2:
            return [(1 / (1 + np.exp(-scores))).astype(np.float32)]
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        return [(e / e.sum(axis=1, keepdims=True)).astype(np.float32)]

    return of


def new_trees():
    """TreeEnsemble: leaves of their own, sets of members, aggregates by number."""
    aggregates = ("AVERAGE", "SUM", "MIN", "MAX")
    modes = MODES + ["BRANCH_MEMBER"]
    for dtype, aggregate, targets, post in [
        (F, 1, 1, 0), (D, 1, 2, 0), (F, 0, 2, 0), (F, 2, 1, 0), (D, 3, 2, 0), (F, 1, 3, 1), (F, 1, 2, 2), (F, 1, 3, 3), (F, 1, 1, 9), (D, 1, 1, 9), (H, 1, 2, 0),
    ]:
        member = post == 9
        made = forest(5, modes if member else MODES[:4], dtype=dtype)
        nodes = {k: [] for k in ("featureids", "splits", "modes", "truenodeids", "trueleafs", "falsenodeids", "falseleafs", "missing_value_tracks_true")}
        targetids, weights, roots, members = [], [], [], []

        def leaf():
            targetids.append(int(RNG.integers(targets)))
            weights.append(float(np.float32(RNG.normal())))
            return len(weights) - 1

        for tree in made:
            branches = [i for i, n in enumerate(tree.nodes) if n]
            if not branches:
                continue
            numbers = {i: len(nodes["modes"]) + k for k, i in enumerate(branches)}
            roots.append(numbers[0])
            for i in branches:
                mode, feature, split, yes, no, track = tree.nodes[i]
                ends = []
                for child in (yes, no):
                    ends += [numbers[child], 0] if child in numbers else [leaf(), 1]
                if mode == "BRANCH_MEMBER":
                    # A 0 would end the set for onnx.reference.
                    members += [v for v in (split, split + 1, split + 3) if v != 0] + [float("nan")]
                for key, value in zip(nodes, (feature, split, modes.index(mode), *ends, track)):
                    nodes[key].append(value)
        tensor = lambda v: helper.make_tensor("t", dtype, [len(v)], v)
        case(f"tree_ensemble_{SHORT[dtype]}_{aggregates[aggregate].lower()}_{targets}_{'member' if member else POST[post].lower()}",
             "TreeEnsemble", [rows(dtype, 8, 4, True)], [tensor_type(dtype, 2)], n_targets=targets,
             aggregate_function=aggregate, post_transform=0 if member else post, tree_roots=roots, reference=member,
             # onnxruntime reads the numbers of SOFTMAX and LOGISTIC as those of the other; its sets take 0.5 for 0.
             after=transformed(post) if post in (1, 2) else None, expected_as={"post_transform": 0} if post in (1, 2) else {}, rtol=2e-3 if dtype == H else 1e-5, atol=2e-3 if dtype == H else 1e-6,
             leaf_targetids=targetids, leaf_weights=tensor(weights), membership_values=tensor(members) if members else None,
             nodes_splits=tensor(nodes.pop("splits")), nodes_modes=helper.make_tensor("m", TensorProto.UINT8, [len(nodes["modes"])], nodes.pop("modes")),
             **{f"nodes_{k}": v for k, v in nodes.items()})


# ---- models of scikit-learn ----------------------------------------------------------------------

TAKEN = [
    "logistic_regression", "logistic_regression_strings", "logistic_regression_zipmap", "ridge_classifier", "linear_regression", "poisson_regressor", "lda",
    "svc_rbf", "svc_labels", "svr", "one_class_svm", "gaussian_nb", "multinomial_nb", "bernoulli_nb", "knn_classifier", "decision_tree",
    "random_forest", "gradient_boosting", "gradient_boosting_regressor", "hist_gradient_boosting", "ada_boost", "isolation_forest", "mlp_classifier",
    "calibrated", "k_means", "gaussian_mixture", "standard_scaler", "polynomial_features", "k_bins", "pca", "simple_imputer",
    "one_hot_encoder", "ordinal_encoder", "label_binarizer", "column_transformer", "tfidf_vectorizer", "count_vectorizer_chars", "text_classifier",
]


def sklearn_models():
    import sklearn_check

    made = {case.name: case for case in sklearn_check.cases()}
    for name in TAKEN:
        model, inputs, outputs, atol = sklearn_check.files(made[name])
        CASES.append(("sklearn", name, 0.0, atol, model, [(inputs, outputs)]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--operators", action="store_true", help="without the models of scikit-learn")
    args = parser.parse_args()
    for part in (features, labels, maps, tokens, linear, support_vectors, trees):
        part()
    if not args.operators:
        sklearn_models()
    pack_suite.write(args.out, f"onnxruntime {onnxruntime.__version__}", CASES)


if __name__ == "__main__":
    main()
