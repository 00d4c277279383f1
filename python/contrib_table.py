#!/usr/bin/env python3
"""Write the table of onnxruntime's own operators that the compiler carries, from the schemas of the installed
`onnxruntime`.

    pip install onnx==1.23.2 onnxruntime==1.31.1
    python python/contrib_table.py compiler/onnx/src/schema/contrib.txt

The form is that of `operator_table.py`. Only operators that the importer has a rule for are listed; the others of the
domain are taken as they are by the checker, and refused by the importer.
"""

import sys

import onnx
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as runtime
from operator_table import KINDS, default_text, type_text

CONTRIB = """
Attention BiasAdd BiasGelu BiasSoftmax BiasSplitGelu DequantizeLinear DynamicQuantizeMatMul
EmbedLayerNormalization ExpandDims FastGelu FusedConv FusedGemm FusedMatMul FusedMatMulActivation GatherBlockQuantized GatherND
Gelu GroupNorm GroupQueryAttention MatMulIntegerToFloat MatMulNBits MultiHeadAttention NhwcConv NhwcFusedConv NhwcMaxPool Pad QAttention QGemm QLinearAdd
QLinearAveragePool QLinearConcat QLinearConv QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean
QLinearSigmoid QLinearSoftmax QLinearWhere QuantizeLinear QuickGelu Range RotaryEmbedding SkipGroupNorm SkipLayerNormalization
SkipSimplifiedLayerNormalization Tokenizer TransposeMatMul Trilu Unique
""".split()

# What onnxruntime defines in the default domain though ONNX does not, and where else models have these operators.
DEFAULT = ["SimplifiedLayerNormalization"]
ALSO = [("SkipSimplifiedLayerNormalization", ""), ("SimplifiedLayerNormalization", "com.microsoft")]


def schemas():
    """Domain and schema of each listed operator."""
    found = {}
    for s in runtime.get_all_operator_schema():
        if (s.domain == "com.microsoft" and s.name in CONTRIB) or (s.domain == "" and s.name in DEFAULT):
            found[s.name] = s
    missing = set(CONTRIB + DEFAULT) - set(found)
    assert not missing, missing
    listed = [(s.domain, s) for s in found.values()]
    listed += [(domain, found[name]) for name, domain in ALSO]
    return sorted(listed, key=lambda pair: (pair[0], pair[1].name))


def parameter(param):
    mark = ""
    if param.option == param.option.__class__.Optional:
        mark = "?"
    elif param.option == param.option.__class__.Variadic:
        mark = ("*" if param.isHomogeneous else "~") + "1"
    return f"{param.name}{mark} {type_text(param.typeStr)}"


def attribute(name, attr):
    kind = onnx.AttributeProto.AttributeType.Value(str(attr.type).rsplit(".", 1)[1])
    text = f"{name}:{KINDS[kind]}"
    if attr.required:
        return text + "!"
    default = onnx.AttributeProto()
    default.ParseFromString(attr._default_value)
    return text + (f"={default_text(default)}" if default.type else "")


def main(path):
    sets = {}
    body = []
    domain = None
    for where, s in schemas():
        if where != domain:
            domain = where
            body.append(f"domain {domain or 'ai.onnx'} 1")
        variables = []
        for v in s.type_constraints:
            types = " ".join(sorted(map(type_text, v.allowed_type_strs)))
            key = sets.setdefault(types, f"c{len(sets)}")
            variables.append(f"{v.type_param_str}={key}")
        line = [
            f"{s.name} 1",
            ", ".join(map(parameter, s.inputs)),
            ", ".join(map(parameter, s.outputs)),
            " ".join(variables),
            " ".join(attribute(name, a) for name, a in sorted(s.attributes.items())),
        ]
        body.append(" | ".join(line).rstrip(" |"))
    lines = [
        f"# From onnxruntime {onnxruntime.__version__} by python/contrib_table.py; do not edit.",
        "# An operator that stands here is checked as those of ONNX are; one that does not is taken as it is.",
    ]
    lines += [f"set {key} {types}" for types, key in sets.items()]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines + body) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
