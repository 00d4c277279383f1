#!/usr/bin/env python3
"""Compare the verdicts of `lapidary check` with those of `onnx.checker` on models that are broken on purpose.

    pip install onnx==1.23.2 numpy
    python python/checker_compare.py --lapidary target/debug/lapidary --number 5000 [--suite FOLDER] [--seed 1]

The models are those of the backend tests (of the installed `onnx`, or from a folder with model.onnx files below it).
Each mutant has one structural change. With --models the mutants are files instead, as `fuzz_models --write` makes them
(docs/fuzzing.md): NUMBER@SEED@CHANGE+CHANGE.onnx, counted by the first change. The table says, for each kind of change, how often both accept, both refuse, only
one refuses, and how often we call the model unsupported. What onnx refuses, and we take or call unsupported, is listed
by kind, operator and message; so is what we refuse alone. The exit code is 1 if we take anything that onnx refuses.
"""

import argparse
import collections
import concurrent.futures
import glob
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading

import onnx
from onnx import AttributeProto, TensorProto, helper

# ---- changes: each takes a model and a random generator, and says whether it changed anything ----

MUTATIONS = {}


def mutation(function):
    MUTATIONS[function.__name__] = function
    return function


def all_nodes(model):
    """Nodes of the graph and its subgraphs."""
    found = []
    work = [model.graph]
    while work:
        graph = work.pop()
        for node in graph.node:
            found.append(node)
            for attr in node.attribute:
                if attr.HasField("g"):
                    work.append(attr.g)
    return found


def pick_node(model, rng):
    nodes = all_nodes(model)
    return rng.choice(nodes) if nodes else None


def pick_attribute(model, rng, kinds=None):
    nodes = [n for n in all_nodes(model) if n.attribute]
    if not nodes:
        return None, None
    node = rng.choice(nodes)
    attrs = [a for a in node.attribute if kinds is None or a.type in kinds]
    return (node, rng.choice(attrs)) if attrs else (None, None)


@mutation
def attribute_removed(model, rng):
    node, attr = pick_attribute(model, rng)
    if attr is None:
        return False
    node.attribute.remove(attr)
    return True


@mutation
def attribute_renamed(model, rng):
    _, attr = pick_attribute(model, rng)
    if attr is None:
        return False
    attr.name = rng.choice([attr.name + "s", "axis", "perm", "to", "frobnicate"])
    return True


@mutation
def attribute_added(model, rng):
    node = pick_node(model, rng)
    if node is None:
        return False
    name = rng.choice(["axis", "keepdims", "perm", "alpha", "frobnicate", "__private"])
    if any(a.name == name for a in node.attribute):
        return False
    value = rng.choice([1, 0.5, [0, 1], "text"])
    node.attribute.append(helper.make_attribute(name, value))
    return True


@mutation
def attribute_twice(model, rng):
    node, attr = pick_attribute(model, rng)
    if attr is None:
        return False
    node.attribute.add().CopyFrom(attr)
    return True


@mutation
def attribute_retyped(model, rng):
    node, attr = pick_attribute(model, rng)
    if attr is None:
        return False
    name = attr.name
    old = attr.type
    values = {1: 0.5, 2: 1, 3: "text", 6: [0.5, 0.25], 7: [1, 0], 8: ["a", "b"]}
    values.pop(old, None)
    new = helper.make_attribute(name, values[rng.choice(sorted(values))])
    node.attribute.remove(attr)
    node.attribute.add().CopyFrom(new)
    return True


@mutation
def attribute_type_and_value_differ(model, rng):
    _, attr = pick_attribute(model, rng)
    if attr is None:
        return False
    attr.type = rng.choice([k for k in range(0, 12) if k != attr.type])
    return True


@mutation
def attribute_out_of_range(model, rng):
    _, attr = pick_attribute(
        model, rng, [AttributeProto.INT, AttributeProto.INTS, AttributeProto.STRING, AttributeProto.FLOAT]
    )
    if attr is None:
        return False
    bad = rng.choice([-1, -2, -7, 0, 1, 2, 3, 7, 100, 2**31, 2**62, -(2**63)])
    if attr.type == AttributeProto.INT:
        attr.i = bad
    elif attr.type == AttributeProto.INTS and attr.ints:
        attr.ints[rng.randrange(len(attr.ints))] = bad
    elif attr.type == AttributeProto.STRING:
        attr.s = rng.choice([b"", b"frobnicate", b"\xff\xfe"])
    elif attr.type == AttributeProto.FLOAT:
        attr.f = rng.choice([float("nan"), float("inf"), -1.0, 0.0])
    else:
        return False
    return True


@mutation
def attribute_list_length(model, rng):
    _, attr = pick_attribute(model, rng, [AttributeProto.INTS, AttributeProto.FLOATS, AttributeProto.STRINGS])
    if attr is None:
        return False
    for field in (attr.ints, attr.floats, attr.strings):
        if len(field):
            if rng.random() < 0.5:
                del field[-1]
            else:
                field.append(field[-1])
            return True
    return False


@mutation
def input_dropped(model, rng):
    node = pick_node(model, rng)
    if node is None or not node.input:
        return False
    del node.input[-1]
    return True


@mutation
def input_left_out(model, rng):
    node = pick_node(model, rng)
    if node is None or not node.input:
        return False
    node.input[rng.randrange(len(node.input))] = ""
    return True


@mutation
def input_added(model, rng):
    node = pick_node(model, rng)
    if node is None or not node.input:
        return False
    node.input.append(rng.choice(list(node.input)))
    return True


@mutation
def inputs_swapped(model, rng):
    node = pick_node(model, rng)
    if node is None or len(node.input) < 2:
        return False
    i, j = rng.sample(range(len(node.input)), 2)
    a, b = node.input[i], node.input[j]
    if a == b:
        return False
    node.input[i], node.input[j] = b, a
    return True


@mutation
def input_rewired(model, rng):
    node = pick_node(model, rng)
    names = [v.name for v in model.graph.input] + [o for n in model.graph.node for o in n.output if o]
    if node is None or not node.input or not names:
        return False
    i = rng.randrange(len(node.input))
    new = rng.choice(names)
    if node.input[i] == new:
        return False
    node.input[i] = new
    return True


@mutation
def input_undefined(model, rng):
    node = pick_node(model, rng)
    if node is None or not node.input:
        return False
    node.input[rng.randrange(len(node.input))] = "nowhere"
    return True


@mutation
def output_dropped(model, rng):
    node = pick_node(model, rng)
    if node is None or not node.output:
        return False
    del node.output[-1]
    return True


@mutation
def output_added(model, rng):
    node = pick_node(model, rng)
    if node is None:
        return False
    node.output.append("one_more")
    return True


@mutation
def output_twice(model, rng):
    node = pick_node(model, rng)
    names = [v.name for v in model.graph.input] + [o for n in model.graph.node for o in n.output if o]
    if node is None or not node.output or not names:
        return False
    node.output[rng.randrange(len(node.output))] = rng.choice(names)
    return True


@mutation
def node_twice(model, rng):
    if not model.graph.node:
        return False
    model.graph.node.add().CopyFrom(rng.choice(list(model.graph.node)))
    return True


@mutation
def node_removed(model, rng):
    if not model.graph.node:
        return False
    del model.graph.node[rng.randrange(len(model.graph.node))]
    return True


@mutation
def nodes_out_of_order(model, rng):
    if len(model.graph.node) < 2:
        return False
    nodes = list(model.graph.node)
    rng.shuffle(nodes)
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return True


@mutation
def cycle(model, rng):
    nodes = [n for n in model.graph.node if n.input and n.output and n.output[0]]
    if not nodes:
        return False
    early, late = sorted([rng.randrange(len(nodes)), rng.randrange(len(nodes))])
    nodes[early].input[rng.randrange(len(nodes[early].input))] = nodes[late].output[0]
    return True


@mutation
def node_inserted(model, rng):
    """A sound node where it may be: both must accept it unless types forbid it."""
    node = rng.choice(list(model.graph.node)) if model.graph.node else None
    if node is None or not node.input or not node.input[0]:
        return False
    at = list(model.graph.node).index(node)
    op = rng.choice(["Identity", "Neg", "Relu", "Not", "Shape", "Floor", "Sqrt"])
    new = helper.make_node(op, [node.input[0]], ["inserted"])
    node.input[0] = "inserted"
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in model.graph.node]
    nodes.insert(at, new)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return True


@mutation
def operator_renamed(model, rng):
    node = pick_node(model, rng)
    if node is None:
        return False
    names = ["Frobnicate", "relu", "Add", "Concat", "Upsample", "Scatter", "Gelu", "Not", "Reshape", "Flatten"]
    names += ["ReduceMean", "Softmax", "Transpose", "MatMul", "Split", "Conv", "Gemm", "Where", "Slice", "Pad"]
    node.op_type = rng.choice(names)
    return True


@mutation
def domain_changed(model, rng):
    node = pick_node(model, rng)
    if node is None:
        return False
    node.domain = rng.choice(["ai.onnx", "ai.onnx.ml", "com.example", ""])
    return True


@mutation
def opset_changed(model, rng):
    if not model.opset_import:
        return False
    rng.choice(list(model.opset_import)).version = rng.choice(list(range(1, 29)))
    return True


@mutation
def opset_strange(model, rng):
    if not model.opset_import:
        return False
    rng.choice(list(model.opset_import)).version = rng.choice([0, -1, 29, 1000, 2**40])
    return True


@mutation
def opset_removed(model, rng):
    if not model.opset_import:
        return False
    del model.opset_import[rng.randrange(len(model.opset_import))]
    return True


@mutation
def ir_version_changed(model, rng):
    model.ir_version = rng.choice([0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13, 14, 15, 100])
    return True


def pick_tensor(infos, rng):
    tensors = [v.type.tensor_type for v in infos if v.type.WhichOneof("value") == "tensor_type"]
    return rng.choice(tensors) if tensors else None


def change_type(tensor, rng):
    tensor.elem_type = rng.choice([k for k in range(0, 30) if k != tensor.elem_type])


def change_dim(tensor, rng):
    if not tensor.shape.dim:
        return False
    dim = rng.choice(list(tensor.shape.dim))
    old = dim.dim_value
    dim.dim_value = rng.choice([0, 1, old + 1, max(old - 1, 0), old * 2, 1000003])
    return dim.dim_value != old


def change_rank(tensor, rng):
    if rng.random() < 0.5 and tensor.shape.dim:
        del tensor.shape.dim[rng.randrange(len(tensor.shape.dim))]
    else:
        tensor.shape.dim.add().dim_value = rng.choice([1, 2, 3])


for place in ("input", "output"):

    def make(place):
        def of(model):
            return model.graph.input if place == "input" else model.graph.output

        def retyped(model, rng):
            tensor = pick_tensor(of(model), rng)
            return tensor is not None and (change_type(tensor, rng) or True)

        def dim(model, rng):
            tensor = pick_tensor(of(model), rng)
            return tensor is not None and change_dim(tensor, rng)

        def rank(model, rng):
            tensor = pick_tensor(of(model), rng)
            return tensor is not None and (change_rank(tensor, rng) or True)

        def strange_dim(model, rng):
            tensor = pick_tensor(of(model), rng)
            if tensor is None or not tensor.shape.dim:
                return False
            rng.choice(list(tensor.shape.dim)).dim_value = rng.choice([-1, -5, 2**40, 2**62])
            return True

        def free_dim(model, rng):
            tensor = pick_tensor(of(model), rng)
            if tensor is None or not tensor.shape.dim:
                return False
            rng.choice(list(tensor.shape.dim)).dim_param = rng.choice(["N", "M"])
            return True

        def untyped(model, rng):
            if not of(model):
                return False
            info = rng.choice(list(of(model)))
            if rng.random() < 0.5:
                info.ClearField("type")
            elif info.type.WhichOneof("value") == "tensor_type":
                info.type.tensor_type.ClearField("shape")
            else:
                info.type.ClearField("value")
            return True

        def container(model, rng):
            if not of(model):
                return False
            info = rng.choice(list(of(model)))
            inner = onnx.TypeProto.FromString(info.type.SerializeToString())
            made = rng.choice([helper.make_sequence_type_proto, helper.make_optional_type_proto])(inner)
            info.type.CopyFrom(made)
            return True

        def twice(model, rng):
            if not of(model):
                return False
            of(model).add().CopyFrom(rng.choice(list(of(model))))
            return True

        def renamed(model, rng):
            if not of(model):
                return False
            rng.choice(list(of(model))).name = rng.choice(["nowhere", ""])
            return True

        for function in (retyped, dim, rank, strange_dim, free_dim, untyped, container, twice, renamed):
            MUTATIONS[f"graph_{place}_{function.__name__}"] = function

    make(place)


@mutation
def inputs_become_initializers(model, rng):
    """Sound, if the values suit: shapes that nodes compute with become known."""
    tensors = [v for v in model.graph.input if v.type.WhichOneof("value") == "tensor_type"]
    done = False
    for info in tensors:
        tensor = info.type.tensor_type
        dims = [d.dim_value for d in tensor.shape.dim]
        count = 1
        for d in dims:
            count *= max(d, 0)
        kinds = (TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
        if tensor.elem_type not in kinds or count > 10000:
            continue
        values = [rng.choice([0, 1, 1, 2, 3, -1]) for _ in range(count)]
        if tensor.elem_type == TensorProto.BOOL:
            values = [v & 1 for v in values]
        model.graph.initializer.append(helper.make_tensor(info.name, tensor.elem_type, dims, values))
        model.graph.input.remove(info)
        done = True
    model.ir_version = max(model.ir_version, 4)
    return done


def with_initializer(model, rng):
    return inputs_become_initializers(model, rng) or len(model.graph.initializer) > 0


@mutation
def initializer_dims(model, rng):
    if not with_initializer(model, rng):
        return False
    tensor = rng.choice(list(model.graph.initializer))
    bad = rng.choice([-1, 0, 2, 5, 2**40, 2**62])
    if tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = bad
    else:
        tensor.dims.append(bad)
    return True


@mutation
def initializer_type(model, rng):
    if not with_initializer(model, rng):
        return False
    tensor = rng.choice(list(model.graph.initializer))
    tensor.data_type = rng.choice([k for k in range(0, 30) if k != tensor.data_type])
    return True


@mutation
def initializer_cut(model, rng):
    if not with_initializer(model, rng):
        return False
    tensor = rng.choice(list(model.graph.initializer))
    for field in ("float_data", "int32_data", "int64_data"):
        data = getattr(tensor, field)
        if len(data):
            del data[-1]
            return True
    if tensor.raw_data:
        tensor.raw_data = tensor.raw_data[:-1]
        return True
    return False


@mutation
def initializer_twice(model, rng):
    if not with_initializer(model, rng):
        return False
    model.graph.initializer.add().CopyFrom(rng.choice(list(model.graph.initializer)))
    return True


@mutation
def value_info_wrong(model, rng):
    names = [o for n in model.graph.node for o in n.output if o]
    if not names:
        return False
    shape = [rng.choice([1, 2, 3]) for _ in range(rng.randrange(4))]
    info = helper.make_tensor_value_info(rng.choice(names), rng.choice([1, 7]), shape)
    model.graph.value_info.append(info)
    return True


@mutation
def function_added(model, rng):
    """A function for a node, which may call itself, or import another opset."""
    nodes = [n for n in model.graph.node if n.input and n.output and all(n.input) and all(n.output)]
    nodes = [n for n in nodes if len(set(n.input)) == len(n.input)]
    if not nodes or not model.opset_import:
        return False
    node = rng.choice(nodes)
    body = onnx.NodeProto.FromString(node.SerializeToString())
    imports = [helper.make_opsetid(o.domain, o.version) for o in model.opset_import]
    kind = rng.choice(["sound", "itself", "other", "outside"])
    if kind == "itself":
        body.op_type, body.domain = "Called", "local"
        imports.append(helper.make_opsetid("local", 1))
        del body.attribute[:]
    elif kind == "other":
        imports[0].version = rng.choice(range(7, 29))
    inputs = list(body.input)
    if kind == "outside":
        inputs = inputs[1:]
    model.functions.append(helper.make_function("local", "Called", inputs, list(body.output), [body], imports))
    node.op_type, node.domain = "Called", "local"
    del node.attribute[:]
    if kind == "outside":
        del node.input[0]
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.ir_version = max(model.ir_version, 8)
    return True


@mutation
def graph_without_name(model, rng):
    model.graph.name = ""
    return True


@mutation
def metadata_twice(model, rng):
    for _ in range(2):
        model.metadata_props.add(key="author", value="someone")
    return True


# ---- verdicts ----

# What onnx refuses and we take on purpose: its message, and why.
EXCEPTIONS = [
    (r"Attribute 'value_(float|int|string)' expect", "a value of 0 that a proto3 writer leaves out; the type says that it is there"),
    (r"op_type:Attention.*differ in dimension 2: \(0\) vs", "the hidden size is not known, and onnx takes it for 0"),
    (r"op_type:Attention.*differ in dimension 3: \(\d+\) vs", "the length of the past is free, and onnx takes it for 0"),
    (
        r"op_type:MeanVarianceNormalization.*One and only one of the attributes 'value'",
        "onnx expands the operator's own function in a branch, and loses the attribute that it left at its default",
    ),
    (
        r"op_type:Resize.*differ in dimension \d: \((0|-?\d{8,})\) vs",
        "the aspect ratio of an image without pixels, a division by 0",
    ),
    (
        r"No Op registered for (Skip)?SimplifiedLayerNormalization with domain_version",
        "onnxruntime's models have the operator in the default domain",
    ),
    (
        r"Loop 'body' subgraph outputs should all be tensors or sequences or optionals, but output \d+ was 0",
        "onnx does not know what operators of com.microsoft give, and takes it for no type",
    ),
]


def exception(said):
    return next((why for pattern, why in EXCEPTIONS if re.search(pattern, said)), None)



def onnx_verdict(data):
    try:
        model = onnx.ModelProto.FromString(data)
        onnx.checker.check_model(model, full_check=True)
        return True, ""
    except Exception as error:  # noqa: BLE001 the checker throws many types
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return False, " ".join(lines)[:300]


class OnnxWorker:
    """`onnx_verdict` in a process of its own: some models kill it. Then the verdict is none."""

    def __init__(self):
        self.process = None

    def verdict(self, data):
        if self.process is None:
            ours, theirs = multiprocessing.Pipe()
            self.process = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
            self.process.start()
            theirs.close()
            self.pipe = ours
        self.pipe.send_bytes(data)
        try:
            if self.pipe.poll(60):
                return self.pipe.recv()
        except EOFError:
            pass
        self.process.kill()
        self.process = None
        return None, "the checker died"


def serve(pipe):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    while True:
        pipe.send(onnx_verdict(pipe.recv_bytes()))


def our_verdict(command, path):
    done = subprocess.run([command, "check", path], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr.strip().replace("\n", " ")[:300]


def operator(data):
    try:
        return onnx.ModelProto.FromString(data).graph.node[0].op_type
    except Exception:  # noqa: BLE001 damaged, or without nodes
        return "-"


def suite_models(folder):
    if folder:
        paths = sorted(glob.glob(os.path.join(folder, "**", "model.onnx"), recursive=True))
        return [(os.path.basename(os.path.dirname(p)), onnx.load(p)) for p in paths]
    from onnx.backend.test.case.node import collect_testcases

    return [(case.name, case.model) for case in collect_testcases(None)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lapidary", required=True, help="the command")
    parser.add_argument("--suite", help="a folder with model.onnx files in it")
    parser.add_argument("--models", help="a folder with mutants to judge")
    parser.add_argument("--number", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="a regular expression for kinds of change")
    parser.add_argument("--keep", help="a folder for the mutants that only we take")
    parser.add_argument("--show", type=int, default=10, help="models to list for each kind of change")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()

    models = [] if options.models else suite_models(options.suite)
    models = [(name, m) for name, m in models if m.ByteSize() < 1_000_000]
    files = sorted(glob.glob(os.path.join(options.models, "*.onnx"))) if options.models else []
    kinds = [k for k in MUTATIONS if not options.only or re.search(options.only, k)]
    rng = random.Random(options.seed)
    counts = collections.defaultdict(collections.Counter)
    local = threading.local()
    excused = collections.Counter()
    missed, alone = collections.defaultdict(list), collections.defaultdict(list)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:

        def mutants():
            made = 0
            while made < options.number:
                kind = kinds[made % len(kinds)]
                name, model = rng.choice(models)
                mutant = onnx.ModelProto.FromString(model.SerializeToString())
                if not MUTATIONS[kind](mutant, rng):
                    continue
                made += 1
                yield made, kind, name, mutant.SerializeToString()

        def given():
            for path in files:
                number, seed, changes = os.path.basename(path).removesuffix(".onnx").split("@")
                with open(path, "rb") as file:
                    yield number, changes.split("+")[0], f"{number} {seed} {changes}", file.read()

        def judge(item):
            number, kind, name, mutant = item
            path = os.path.join(folder, f"{number}.onnx")
            with open(path, "wb") as file:
                file.write(mutant)
            if not hasattr(local, "worker"):
                local.worker = OnnxWorker()
            ok, said = local.worker.verdict(mutant)
            code, ours = our_verdict(options.lapidary, path)
            if ok is False and code in (0, 3) and options.keep:
                os.makedirs(options.keep, exist_ok=True)
                shutil.move(path, os.path.join(options.keep, f"{number}-{kind}-{name.replace(' ', '-')}.onnx"))
            else:
                os.remove(path)
            return kind, name, mutant, ok, said, code, ours

        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            for kind, name, mutant, ok, said, code, ours in pool.map(judge, given() if files else mutants()):
                op = operator(mutant)
                why = exception(said) if ok is False and code == 0 else None
                counts[kind][("exception" if why else ok, code)] += 1
                if why:
                    excused[why] += 1
                elif ok is False and code in (0, 3):
                    missed[(kind, code)].append(f"{name} ({op}): {said}" + (f" || {ours}" if code else ""))
                if ok and code not in (0, 3):
                    alone[(kind, code)].append(f"{name} ({op}): {ours}")

    columns = [
        ("both accept", lambda ok, c: ok is True and c == 0),
        ("both refuse", lambda ok, c: ok is False and c == 4),
        ("unsupported, onnx accepts", lambda ok, c: ok is True and c == 3),
        ("unsupported, onnx refuses", lambda ok, c: ok is False and c == 3),
        ("only we refuse", lambda ok, c: ok is True and c == 4),
        ("only onnx refuses", lambda ok, c: ok is False and c == 0),
        ("named exceptions", lambda ok, c: ok == "exception"),
        ("other", lambda ok, c: ok is None or c not in (0, 3, 4)),
    ]
    print("| change | " + " | ".join(c for c, _ in columns) + " |")
    print("|---|" + "--:|" * len(columns))
    total = collections.Counter()
    for kind in sorted(counts) + ["all"]:
        row = total if kind == "all" else collections.Counter()
        if kind != "all":
            for (ok, code), n in counts[kind].items():
                for label, holds in columns:
                    if holds(ok, code):
                        row[label] += n
            total.update(row)
        print(f"| {kind} | " + " | ".join(str(row[c]) for c, _ in columns) + " |")
    for why, n in excused.items():
        print(f"\nexception, {n}: {why}")
    for title, table in (("onnx refuses, we do not", missed), ("we refuse, onnx does not", alone)):
        print(f"\n## {title}\n")
        for (kind, code), lines in sorted(table.items()):
            print(f"{kind}, exit {code}: {len(lines)}")
            for line in lines[: options.show]:
                print(f"  {line}")
    return 1 if any(code == 0 for _, code in missed) else 0


if __name__ == "__main__":
    sys.exit(main())
