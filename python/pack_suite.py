#!/usr/bin/env python3
"""Pack the backend tests of the installed `onnx` into the fixture of `tests/conformance`.

    pip install onnx==1.23.2 numpy ml_dtypes
    python python/pack_suite.py tests/conformance/suite.bin

The node tests are Python code in `onnx`: running it gives the models and their data. The simple
tests are files in the wheel and a few models made by code. The fixture is a zip archive of one
entry, `suite`; numbers are little-endian, u32 unless stated, a text is its length and its UTF-8:

    magic     "LAPSUITE" and the format's version, 1
    producer  text, such as "onnx 1.23.2"
    blobs     count, then each: length, bytes       (files; equal ones stand once)
    cases     count, then each:
                kind text, name text, rtol f64, atol f64, model blob number,
                data sets: count, then each: inputs (count, blob numbers), outputs (count, blob numbers)
"""

import argparse
import os
import struct
import warnings
import zipfile

import numpy as np

warnings.filterwarnings("ignore")
np.random.seed(0)

import onnx
from onnx import numpy_helper
from onnx.backend.test.case import model as model_cases
from onnx.backend.test.loader import load_model_tests

NAMED = (onnx.TensorProto, onnx.SequenceProto, onnx.OptionalProto)


def file_of(value, info):
    """The bytes of a value file, as the suite's own tools would write it."""
    if isinstance(value, NAMED):
        proto = value
    else:
        kind = info.type.WhichOneof("value")
        if kind == "sequence_type":
            proto = numpy_helper.from_list([np.asarray(item) for item in value], info.name)
        elif kind == "optional_type":
            proto = numpy_helper.from_optional(value, info.name)
        elif kind == "map_type":
            proto = numpy_helper.from_dict(value, info.name)
        else:
            proto = numpy_helper.from_array(np.asarray(value), info.name)
    return proto.SerializeToString(deterministic=True)


def computed(case):
    """A case that is Python objects."""
    graph = case.model.graph
    sets = [
        (
            [file_of(value, info) for value, info in zip(inputs, graph.input)],
            [file_of(value, info) for value, info in zip(outputs, graph.output)],
        )
        for inputs, outputs in case.data_sets
    ]
    return case.model.SerializeToString(deterministic=True), sets


def stored(case):
    """A case that is a folder of files."""

    def read(*parts):
        with open(os.path.join(case.model_dir, *parts), "rb") as file:
            return file.read()

    def values(folder, stem):
        names = [name for name in os.listdir(os.path.join(case.model_dir, folder)) if name.startswith(stem)]
        return [read(folder, f"{stem}_{i}.pb") for i in range(len(names))]

    folders = sorted(name for name in os.listdir(case.model_dir) if name.startswith("test_data_set_"))
    return read("model.onnx"), [(values(folder, "input"), values(folder, "output")) for folder in folders]


def collect():
    """All cases, as (kind, name, rtol, atol, model, data sets)."""
    seen = set()
    cases = load_model_tests(kind="node") + load_model_tests(kind="simple")
    cases += [case for case in model_cases.collect_testcases() if case.kind == "simple"]
    for case in sorted(cases, key=lambda case: (case.kind, case.name)):
        if (case.kind, case.name) in seen:
            continue
        seen.add((case.kind, case.name))
        model, sets = stored(case) if case.model_dir else computed(case)
        yield case.kind, case.name, case.rtol, case.atol, model, sets


class Writer:
    def __init__(self):
        self.bytes = bytearray()

    def number(self, value):
        self.bytes += struct.pack("<I", value)

    def real(self, value):
        self.bytes += struct.pack("<d", value)

    def blob(self, value):
        self.number(len(value))
        self.bytes += value

    def text(self, value):
        self.blob(value.encode())


def pack(producer, cases):
    blobs, numbers = [], {}

    def number_of(blob):
        if blob not in numbers:
            numbers[blob] = len(blobs)
            blobs.append(blob)
        return numbers[blob]

    table = Writer()
    count = 0
    for kind, name, rtol, atol, model, sets in cases:
        table.text(kind)
        table.text(name)
        table.real(rtol)
        table.real(atol)
        table.number(number_of(model))
        table.number(len(sets))
        for inputs, outputs in sets:
            for files in (inputs, outputs):
                table.number(len(files))
                for blob in files:
                    table.number(number_of(blob))
        count += 1

    suite = Writer()
    suite.bytes += b"LAPSUITE"
    suite.number(1)
    suite.text(producer)
    suite.number(len(blobs))
    for blob in blobs:
        suite.blob(blob)
    suite.number(count)
    suite.bytes += table.bytes
    return bytes(suite.bytes), count, len(blobs)


def write(out, producer, cases):
    """Writes a fixture of these cases."""
    suite, cases, blobs = pack(producer, cases)
    entry = zipfile.ZipInfo("suite", (1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(out, "w", compresslevel=9) as archive:
        archive.writestr(entry, suite, compresslevel=9)
    print(f"{cases} cases, {blobs} files, {len(suite)} bytes, {os.path.getsize(out)} packed")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    write(parser.parse_args().out, f"onnx {onnx.__version__}", collect())


if __name__ == "__main__":
    main()
