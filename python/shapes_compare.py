"""Compares the shapes that the checker infers with those of onnx.shape_inference, value by value.

    cargo build --release -p lapidary-onnx --example shapes
    python python/shapes_compare.py target/release/examples/shapes SUITE

SUITE: a folder with model.onnx files in it. Both sides see the models without what they state for inner values and outputs.
A contradiction (another rank, or another number for a size) is an error; what only one side knows is counted. Faults that the
checker finds in models which onnx.checker takes with full inference are errors too.

Pinned: onnx 1.23.2.
"""

import argparse
import collections
import glob
import os
import subprocess
import sys
import tempfile

import onnx
from onnx import shape_inference


def bare(model):
    """The model without the types of inner values; types of outputs without their shapes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for output in copy.graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")
    return copy


def theirs(model):
    """Shapes by name: a size is a number or None."""
    try:
        model = shape_inference.infer_shapes(model)
    except Exception:  # noqa: BLE001 it throws many types
        return {}
    shapes = {}
    for info in [*model.graph.input, *model.graph.value_info, *model.graph.output]:
        tensor = info.type.tensor_type
        if info.type.HasField("tensor_type") and tensor.HasField("shape"):
            shapes[info.name] = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    return shapes


def ours(command, paths):
    """For each path: shapes by name, faults, faults under full rules."""
    done = subprocess.run([command, *paths], capture_output=True, text=True, check=True, timeout=600)
    found, current = {}, None
    for line in done.stdout.splitlines():
        kind, _, rest = line.partition("\t")
        if kind == "model":
            current = found[rest] = ({}, [], [])
        elif kind == "value":
            name, _, sizes = rest.rpartition("\t")
            current[0][name] = [None if s == "?" else int(s) for s in sizes.split()]
        else:
            current[1 if kind == "fault" else 2].append(rest)
    return found


def contradict(a, b):
    return len(a) != len(b) or any(x is not None and y is not None and x != y for x, y in zip(a, b))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", help="the example `shapes` of lapidary-onnx")
    parser.add_argument("suite")
    parser.add_argument("--show", type=int, default=20)
    options = parser.parse_args()

    paths = sorted(glob.glob(os.path.join(options.suite, "**", "*.onnx"), recursive=True))
    counts, wrong = collections.Counter(), []
    unknown = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        models = {}
        for number, path in enumerate(paths):
            model = onnx.load(path)
            copy = os.path.join(folder, f"{number}.onnx")
            onnx.save(bare(model), copy)
            models[copy] = (path, model)
        copies = list(models)
        found = {}
        for start in range(0, len(copies), 100):
            found.update(ours(options.command, copies[start : start + 100]))
        full = {}
        for start in range(0, len(paths), 100):
            full.update(ours(options.command, paths[start : start + 100]))
    for copy, (path, model) in models.items():
        shapes, _, _ = found[copy]
        expected = theirs(bare(model))
        producers = {name: node.op_type for node in model.graph.node for name in node.output}
        for name in producers:
            a, b = shapes.get(name), expected.get(name)
            if a is None or b is None:
                counts["neither" if a is b else "onnx only" if a is None else "we only"] += 1
                if a is None and b is not None:
                    unknown[producers[name]] += 1
                continue
            counts["both"] += 1
            counts["sizes that only onnx knows"] += sum(x is None and y is not None for x, y in zip(a, b))
            counts["sizes that only we know"] += sum(y is None and x is not None for x, y in zip(a, b))
            if contradict(a, b):
                wrong.append(f"{path}: '{name}' ({producers[name]}) is {a}, by onnx {b}")
        faults = full[path][1] + full[path][2]
        if faults:
            try:
                onnx.checker.check_model(model, full_check=True)
                wrong.append(f"{path}: onnx takes it, we do not: {faults[0]}")
            except Exception:  # noqa: BLE001 both refuse it
                counts["models refused by both"] += 1
    print(f"models: {len(models)}")
    for what, count in sorted(counts.items()):
        print(f"{what}: {count}")
    print("ranks that only onnx knows, by operator:", dict(unknown.most_common(20)))
    print(f"contradictions: {len(wrong)}")
    for line in wrong[: options.show]:
        print("  " + line)
    return 1 if wrong or not models else 0


if __name__ == "__main__":
    sys.exit(main())
