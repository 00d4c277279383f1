#!/usr/bin/env python3
"""Write the table of ONNX operators that the compiler carries, from the schemas of the installed `onnx`.

    pip install onnx==1.23.2
    python python/operator_table.py compiler/onnx/src/schema/operators.txt

A line an operator and version (the versions at which something changed), sorted:

    Name since [flags] | inputs | outputs | type variables | attributes

    flags       deprecated; unchecked (takes attributes that are not listed); outputs=1,3 (only so many)
    inputs      NAME TYPE, comma separated; NAME? optional, NAME*N variadic with at least N values, NAME~N variadic
                whose values may differ in type
    TYPE        a type variable or a type; a tensor is written as its element type
    variables   NAME=SET, where `set SET TYPE…` stands at the top
    attributes  NAME:TYPE, with ! if required or =DEFAULT; a list is written [A,B]

`compiler/onnx/src/schema` reads it; `contrib.txt` beside it has the same form and is written by hand.
"""

import sys

import onnx
from onnx import AttributeProto, defs, helper

DOMAINS = ["", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training"]

KINDS = {
    AttributeProto.FLOAT: "float",
    AttributeProto.INT: "int",
    AttributeProto.STRING: "string",
    AttributeProto.TENSOR: "tensor",
    AttributeProto.GRAPH: "graph",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "type",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
    AttributeProto.TENSORS: "tensors",
    AttributeProto.GRAPHS: "graphs",
}


def type_text(text):
    """`seq(tensor(float))` as `seq(float)`."""
    text = text.replace(" ", "")
    while (at := text.find("tensor(")) >= 0 and not text[:at].endswith("sparse_"):
        end = text.index(")", at)
        text = text[:at] + text[at + 7 : end] + text[end + 1 :]
    return text


def number(value):
    """The shortest text that gives the same 32-bit float."""
    import numpy as np

    return str(np.float32(value)).replace("e+", "e")


def default_text(value):
    if value.type == AttributeProto.FLOAT:
        return number(value.f)
    if value.type == AttributeProto.INT:
        return str(value.i)
    if value.type == AttributeProto.STRING:
        return quoted(value.s)
    if value.type == AttributeProto.INTS:
        return "[" + ",".join(map(str, value.ints)) + "]"
    if value.type == AttributeProto.STRINGS:
        return "[" + ",".join(map(quoted, value.strings)) + "]"
    raise SystemExit(f"a default of type {value.type} has no text form")


def quoted(data):
    text = data.decode()
    assert not set(text) & set(' "|,;\n'), text
    return f'"{text}"'


def parameter(param):
    option = param.option
    mark = ""
    if option == defs.OpSchema.FormalParameterOption.Optional:
        mark = "?"
    elif option == defs.OpSchema.FormalParameterOption.Variadic:
        mark = ("*" if param.is_homogeneous else "~") + str(param.min_arity)
    return f"{param.name}{mark} {type_text(param.type_str)}"


def attribute(attr):
    text = f"{attr.name}:{KINDS[AttributeProto.AttributeType.Value(attr.type.name)]}"
    if attr.required:
        return text + "!"
    return text + (f"={default_text(attr.default_value)}" if attr.default_value.type else "")


def flags(schema):
    """What no field of a schema tells: found by asking the checker."""
    if schema.deprecated:
        return ["deprecated"]
    found = []
    context = onnx.checker.DEFAULT_CONTEXT
    context.opset_imports = {schema.domain: schema.since_version}

    def verdict(outputs, **extra):
        inputs = [f"i{k}" for k in range(schema.min_input)]
        node = helper.make_node(schema.name, inputs, outputs, domain=schema.domain)
        for attr in schema.attributes.values():
            if attr.required:
                kind = AttributeProto.AttributeType.Value(attr.type.name)
                made = node.attribute.add(name=attr.name, type=kind)
                if kind == AttributeProto.GRAPH:
                    made.g.name = "g"
                elif kind == AttributeProto.TENSOR:
                    made.t.CopyFrom(helper.make_tensor("t", 1, [1], [1.0]))
                elif kind == AttributeProto.TYPE_PROTO:
                    made.tp.CopyFrom(helper.make_tensor_type_proto(1, [1]))
        for name, value in extra.items():
            node.attribute.append(helper.make_attribute(name, value))
        try:
            onnx.checker.check_node(node, context)
        except onnx.checker.ValidationError as error:
            return str(error)
        return ""

    counts = range(schema.min_output, min(schema.max_output, 8) + 1)
    said = {n: verdict([f"o{k}" for k in range(n)]) for n in counts}
    allowed = [n for n in counts if "allowed output sizes" not in said[n]]
    if len(allowed) < len(counts):
        found.append("outputs=" + ",".join(map(str, allowed)))
    some = [f"o{k}" for k in range(max(1, schema.min_output))]
    if "Unrecognized" not in verdict(some, frobnicate=1) and not verdict(some):
        found.append("unchecked")
    return found


def main(path):
    schemas = [s for s in defs.get_all_schemas_with_history() if s.domain in DOMAINS]
    schemas.sort(key=lambda s: (DOMAINS.index(s.domain), s.name, s.since_version))
    sets = {}
    body = []
    domain = None
    for s in schemas:
        if s.domain != domain:
            domain = s.domain
            newest = max(x.since_version for x in schemas if x.domain == domain)
            if domain == "":
                newest = defs.onnx_opset_version()
            body.append(f"domain {domain or 'ai.onnx'} {newest}")
        variables = []
        for v in s.type_constraints:
            types = " ".join(sorted(map(type_text, v.allowed_type_strs)))
            key = sets.setdefault(types, f"s{len(sets)}")
            variables.append(f"{v.type_param_str}={key}")
        line = [
            " ".join([s.name, str(s.since_version)] + flags(s)),
            ", ".join(map(parameter, s.inputs)),
            ", ".join(map(parameter, s.outputs)),
            " ".join(variables),
            " ".join(map(attribute, sorted(s.attributes.values(), key=lambda a: a.name))),
        ]
        body.append(" | ".join(line).rstrip(" |"))
    lines = [f"# From onnx {onnx.__version__} by python/operator_table.py; do not edit."]
    lines += [f"set {key} {types}" for types, key in sets.items()]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines + body) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
