#!/usr/bin/env python3
"""Write the small models of `tests/models` and `examples/digits`.

    pip install torch 'transformers<5' onnx onnxruntime scikit-learn skl2onnx numpy
    python python/make_small_models.py [NAME ...]

Each is an architecture of everyday use at a width that makes its file small, with seeded weights
(the two `digits` models are trained), as `FOLDER/{model.onnx, data.json, test_data_set_<k>/}`. The
expected outputs are onnxruntime's with all optimisations off; `data.json` allows four times what
that differs by from its optimised self and from PyTorch, and at least 1e-5.
"""

import argparse
import json
import os
import shutil
import warnings

warnings.filterwarnings("ignore")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn as nn
from onnx import numpy_helper

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SEED = 20261121


def settle_batch_norm(module, x):
    """Statistics from a few batches, so that random weights give sane activations."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
            nn.init.uniform_(layer.weight, 0.7, 1.3)
            nn.init.uniform_(layer.bias, -0.1, 0.1)
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(x + 0.1 * torch.randn_like(x))
    return module.eval()


# ---- convolution networks ----------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        width = c_out // 2
        self.body = nn.Sequential(
            nn.Conv2d(c_in, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, c_out, 1, bias=False), nn.BatchNorm2d(c_out),
        )
        self.skip = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.skip = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        return torch.relu(self.body(x) + self.skip(x))


def resnet():
    model = nn.Sequential(
        nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        Residual(16, 48, 1), Residual(48, 48, 1), Residual(48, 80, 2), Residual(80, 80, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(80, 10),
    )
    settle_batch_norm(model, torch.randn(4, 3, 56, 56))
    return dict(
        module=model, inputs=["image"], outputs=["scores"], opset=17,
        dynamic={"image": {0: "batch"}, "scores": {0: "batch"}},
        sets=[(torch.randn(1, 3, 56, 56),), (torch.randn(3, 3, 56, 56),)],
    )


class Inverted(nn.Module):
    def __init__(self, c_in, c_out, stride, expand):
        super().__init__()
        mid = c_in * expand
        self.add = stride == 1 and c_in == c_out
        self.body = nn.Sequential(
            nn.Conv2d(c_in, mid, 1, bias=False), nn.BatchNorm2d(mid), nn.ReLU6(),
            nn.Conv2d(mid, mid, 3, stride, 1, groups=mid, bias=False), nn.BatchNorm2d(mid), nn.ReLU6(),
            nn.Conv2d(mid, c_out, 1, bias=False), nn.BatchNorm2d(c_out),
        )

    def forward(self, x):
        return x + self.body(x) if self.add else self.body(x)


class SqueezeExcite(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c // 4, 1), nn.SiLU(), nn.Conv2d(c // 4, c, 1), nn.Sigmoid()
        )

    def forward(self, x):
        return x * self.gate(x)


def mobilenet():
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish(),
        Inverted(16, 24, 2, 4), Inverted(24, 24, 1, 4), SqueezeExcite(24), Inverted(24, 40, 2, 4),
        Inverted(40, 40, 1, 4), nn.Conv2d(40, 120, 1, bias=False), nn.BatchNorm2d(120), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(120, 10), nn.Softmax(1),
    )
    settle_batch_norm(model, torch.randn(4, 3, 48, 48))
    return dict(
        module=model, inputs=["image"], outputs=["probabilities"], opset=15,
        dynamic={"image": {0: "batch"}, "probabilities": {0: "batch"}},
        sets=[(torch.randn(1, 3, 48, 48),), (torch.randn(2, 3, 48, 48),)],
    )


def super_resolution():
    model = nn.Sequential(
        nn.Conv2d(1, 24, 5, 1, 2), nn.ReLU(), nn.Conv2d(24, 24, 3, 1, 1), nn.ReLU(), nn.Conv2d(24, 9, 3, 1, 1),
        nn.PixelShuffle(3),
    )
    axes = {0: "batch", 2: "height", 3: "width"}
    return dict(
        module=model, inputs=["image"], outputs=["large"], opset=13,
        dynamic={"image": axes, "large": {0: "batch", 2: "tall", 3: "wide"}},
        sets=[(torch.randn(1, 1, 20, 24),), (torch.randn(2, 1, 13, 9),)],
    )


# ---- transformers ------------------------------------------------------------------------------


def bert():
    import transformers

    config = transformers.BertConfig(
        vocab_size=48, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=104,
        max_position_embeddings=40, attn_implementation="eager",
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    def data(batch, length):
        mask = torch.ones(batch, length, dtype=torch.int64)
        if batch > 1:
            mask[0, length - length // 4 :] = 0
        return torch.randint(1, 48, (batch, length)), mask

    axes = {0: "batch", 1: "seq"}
    names = ["input_ids", "attention_mask", "last_hidden_state"]
    return dict(
        module=Wrapped(), inputs=names[:2], outputs=names[2:], opset=17, dynamic={name: axes for name in names},
        sets=[data(1, 16), data(2, 33), data(1, 1)],
    )


def gpt2():
    import transformers
    from transformers.cache_utils import DynamicCache

    config = transformers.GPT2Config(
        vocab_size=64, n_positions=48, n_embd=48, n_layer=2, n_head=4, n_inner=128, attn_implementation="eager",
        bos_token_id=0, eos_token_id=0,
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    layers, heads, size = 2, 4, 12

    class Wrapped(nn.Module):
        """A step of decoding: the mask is made from the positions, the cache goes in and out."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, position_ids, *past):
            cache = DynamicCache.from_legacy_cache(tuple((past[2 * i], past[2 * i + 1]) for i in range(layers)))
            total = past[0].shape[2] + input_ids.shape[1]
            columns = torch.arange(total)[None, None, :]
            mask = torch.where(columns <= position_ids[:1, :, None], 0.0, -1e9)[:, None]
            out = self.model(
                input_ids=input_ids, position_ids=position_ids, past_key_values=cache, attention_mask=mask,
                use_cache=True,
            )
            kept = out.past_key_values
            if hasattr(kept, "layers"):
                return (out.logits, *[t for layer in kept.layers for t in (layer.keys, layer.values)])
            return (out.logits, *[t for pair in kept for t in pair])

    def data(new, past):
        cache = tuple(torch.randn(1, heads, past, size) * 0.5 for _ in range(2 * layers))
        return (torch.randint(0, 64, (1, new)), torch.arange(past, past + new)[None], *cache)

    pasts = [f"past.{i}.{part}" for i in range(layers) for part in ("key", "value")]
    presents = [name.replace("past", "present") for name in pasts]
    dynamic = {name: {0: "batch", 1: "seq"} for name in ("input_ids", "position_ids", "logits")}
    dynamic |= {name: {0: "batch", 2: "past"} for name in pasts}
    dynamic |= {name: {0: "batch", 2: "total"} for name in presents}
    return dict(
        module=Wrapped(), inputs=["input_ids", "position_ids", *pasts], outputs=["logits", *presents], opset=17,
        dynamic=dynamic, trace=data(3, 5), sets=[data(1, 7), data(4, 9), data(5, 0)],
    )


# ---- the trained ones --------------------------------------------------------------------------


def digits_data():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    pixels = pixels.astype("float32")
    return train_test_split(pixels, labels, test_size=0.25, random_state=0, stratify=labels)


def digits():
    """Pictures of 8x8 pixels, from 0 to 1."""
    train, test, train_labels, test_labels = digits_data()
    train = torch.tensor(train / 16).reshape(-1, 1, 8, 8)
    test = torch.tensor(test / 16).reshape(-1, 1, 8, 8)
    labels = torch.tensor(train_labels)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(),
        nn.Dropout(0.2), nn.Linear(64, 10), nn.Softmax(1),
    )
    torch.set_num_threads(1)  # sums in one order, whatever the machine
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(30):
        for rows in torch.randperm(len(train)).split(64):
            optimizer.zero_grad()
            nn.functional.nll_loss(torch.log(model(train[rows]) + 1e-9), labels[rows]).backward()
            optimizer.step()
    model.eval()
    right = (model(test).argmax(1).numpy() == test_labels).mean()
    print(f"digits: {100 * right:.1f} % of {len(test)} pictures right")
    folder = os.path.join(ROOT, "examples", "digits")
    os.makedirs(folder, exist_ok=True)
    seven = int(np.flatnonzero(test_labels == 7)[0])
    np.save(os.path.join(folder, "seven.npy"), test[seven : seven + 1].numpy())
    return dict(
        module=model, inputs=["pixels"], outputs=["probabilities"], opset=13, folder=folder,
        dynamic={"pixels": {0: "batch"}, "probabilities": {0: "batch"}}, sets=[(test[:1],), (test[:50],)],
    )


def forest():
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test, train_labels, _ = digits_data()
    pipeline = make_pipeline(StandardScaler(), RandomForestClassifier(12, max_depth=6, random_state=0))
    pipeline.fit(train, train_labels)
    model = to_onnx(
        pipeline, initial_types=[("X", FloatTensorType([None, 64]))], target_opset={"": 17, "ai.onnx.ml": 3},
        options={id(pipeline): {"zipmap": False}},
    )
    return dict(onnx=model, feeds=[{"X": test[:1]}, {"X": test[:37]}])


# ---- writing -----------------------------------------------------------------------------------


def export(spec, path):
    """Writes the ONNX file; returns the feeds and PyTorch's outputs."""
    if "onnx" in spec:
        onnx.save(spec["onnx"], path)
        return spec["feeds"], None
    module = spec["module"].eval()
    with torch.no_grad():
        torch.onnx.export(
            module, spec.get("trace") or spec["sets"][0], path, input_names=spec["inputs"],
            output_names=spec["outputs"], opset_version=spec["opset"], dynamic_axes=spec["dynamic"], dynamo=False,
        )
        results = [module(*values) for values in spec["sets"]]
    outputs = [[t.numpy() for t in (r if isinstance(r, tuple) else (r,))] for r in results]
    return [{n: t.numpy() for n, t in zip(spec["inputs"], values)} for values in spec["sets"]], outputs


def session(path, optimised):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def difference(a, b):
    floats = [(x, y) for x, y in zip(a, b) if x.dtype.kind == "f" and x.size]
    return max((float(np.abs(x.astype("f8") - y.astype("f8")).max()) for x, y in floats), default=0.0)


def make(name):
    torch.manual_seed(SEED)
    np.random.seed(SEED)
    spec = MODELS[name]()
    folder = spec.get("folder") or os.path.join(ROOT, "tests", "models", name)
    os.makedirs(folder, exist_ok=True)
    for entry in os.listdir(folder):
        if entry.startswith("test_data_set_"):
            shutil.rmtree(os.path.join(folder, entry))
    path = os.path.join(folder, "model.onnx")
    feeds, torch_outputs = export(spec, path)

    model = onnx.load(path)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(model)
    onnx.save(model, path)

    plain, fast = session(path, False), session(path, True)
    wanted = {value.name for value in plain.get_inputs()}
    worst = 0.0
    for number, feed in enumerate(feeds):
        feed = {key: value for key, value in feed.items() if key in wanted}
        outputs = plain.run(None, feed)
        worst = max(worst, difference(outputs, fast.run(None, feed)))
        if torch_outputs:
            worst = max(worst, difference(outputs, torch_outputs[number]))
        data = os.path.join(folder, f"test_data_set_{number}")
        os.makedirs(data)
        # In the order of the model's own inputs.
        ordered = [(value.name, feed[value.name]) for value in plain.get_inputs()]
        made = list(zip((value.name for value in plain.get_outputs()), outputs))
        for stem, values in (("input", ordered), ("output", made)):
            for index, (key, value) in enumerate(values):
                proto = numpy_helper.from_array(np.ascontiguousarray(value), key)
                with open(os.path.join(data, f"{stem}_{index}.pb"), "wb") as file:
                    file.write(proto.SerializeToString(deterministic=True))
    with open(os.path.join(folder, "data.json"), "w") as file:
        json.dump({"rtol": 1e-3, "atol": max(1e-5, 4 * worst)}, file)
        file.write("\n")
    print(f"{name}: {os.path.getsize(path)} bytes, engines differ by {worst:.2e}")


MODELS = {
    "resnet": resnet,
    "mobilenet": mobilenet,
    "super_resolution": super_resolution,
    "bert": bert,
    "gpt2": gpt2,
    "digits": digits,
    "forest": forest,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *MODELS], help="all of them, if none is named")
    for name in parser.parse_args().names or MODELS:
        make(name)


if __name__ == "__main__":
    main()
