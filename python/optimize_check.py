"""Optimised models against onnxruntime: `python optimize_check.py LAPIDARY FOLDER…`.

Each folder has a model.onnx and data sets, as those of the ONNX backend suite. The model is written by `lapidary
optimize`; ONNX's checker must pass it in full, its names of inputs and outputs must be those of the source, and
onnxruntime must give the same with both, as far as the source's own rounding goes (data.json, or 1e-3 and 1e-5).
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper


def load_value(path):
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor)


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def equal(a, b, rtol, atol):
    if isinstance(a, (list, dict)) or a is None:
        return repr(a) == repr(b) if not isinstance(a, list) else all(
            equal(x, y, rtol, atol) for x, y in zip(a, b, strict=True))
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind in "fc":
        return np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
    return bool((a == b).all())


def edges(model):
    dims = lambda v: [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim]
    return [(v.name, dims(v)) for v in list(model.graph.input) + list(model.graph.output)]


def check(lapidary, folder, work):
    source, target = folder / "model.onnx", Path(work) / f"{folder.name}.onnx"
    run = subprocess.run([lapidary, "optimize", source, "-o", target], capture_output=True, text=True)
    if run.returncode != 0:
        return f"FAILED: {run.stderr.strip()}"
    onnx.checker.check_model(str(target), full_check=True)
    before = onnx.load(str(source), load_external_data=False)
    after = onnx.load(str(target), load_external_data=False)
    constants = {t.name for t in before.graph.initializer} if before.ir_version < 4 else set()
    if [e for e in edges(before) if e[0] not in constants] != edges(after):
        return f"FAILED: other inputs and outputs: {edges(after)}"
    limits = {"rtol": 1e-3, "atol": 1e-5}
    if (folder / "data.json").exists():
        limits.update({k: v for k, v in json.loads((folder / "data.json").read_text()).items() if k in limits})
    first, second = session(source), session(target)
    worst, sets = 0.0, 0
    for data in sorted(folder.glob("test_data_set_*")):
        names = [i.name for i in first.get_inputs()]
        files = sorted(data.glob("input_*.pb"), key=lambda p: int(p.stem.split("_")[1]))
        feed = dict(zip(names, map(load_value, files)))
        a, b = first.run(None, feed), second.run(None, feed)
        for x, y in zip(a, b, strict=True):
            if not equal(x, y, **limits):
                return f"FAILED: {data.name}: results differ"
            if getattr(x, "dtype", np.dtype("O")).kind == "f" and x.size:
                worst = max(worst, float(np.max(np.abs(x - y))))
        sets += 1
    text = run.stdout.splitlines()[0]
    left = Counter(n.op_type for n in after.graph.node).most_common(6)
    return f"{text}; {sets} sets equal, greatest difference {worst:.2g}; {dict(left)}"


def main():
    lapidary, failed = sys.argv[1], 0
    with tempfile.TemporaryDirectory() as work:
        for folder in map(Path, sys.argv[2:]):
            try:
                text = check(lapidary, folder, work)
            except Exception as error:  # a model that onnxruntime or the checker refuses
                text = f"FAILED: {error}"
            failed += text.startswith("FAILED")
            print(f"{folder.name}: {text}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
