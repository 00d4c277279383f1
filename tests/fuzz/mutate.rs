//! Changes to models: one structural change of a decoded model, or of its bytes, by a table of named mutations.
//!
//! In: a model and a generator of random numbers. Out: whether the model was changed. A mutation knows the messages of
//! ONNX and the table of signatures, so that many of its results are sound models that nobody would write: extreme
//! attributes, other element types, dims of 0, values wired elsewhere.

use lapidary::random::Random;
use lapidary_onnx::proto::attribute_proto::AttributeType;
use lapidary_onnx::proto::tensor_shape_proto::{Dimension, dimension};
use lapidary_onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use lapidary_onnx::schema::{self, Lookup, Schema};

/// A mutation, by the name that reports use.
pub struct Mutation {
    pub name: &'static str,
    /// How often it is chosen, in relation to others.
    weight: u64,
    apply: fn(&mut Source<'_>, &mut ModelProto) -> bool,
}

/// What a mutation draws from.
pub struct Source<'a> {
    pub random: &'a mut Random,
    /// Operators with what their nodes look like: domain, name, numbers of inputs and outputs.
    pub operators: &'a [(String, String, usize, usize)],
}

impl Source<'_> {
    fn below(&mut self, n: usize) -> usize {
        self.random.below(n as u64) as usize
    }
    fn chance(&mut self, one_in: u64) -> bool {
        self.random.below(one_in) == 0
    }
    fn choose<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
    /// An index into a list, unless it is empty.
    fn index(&mut self, length: usize) -> Option<usize> {
        (length > 0).then(|| self.below(length))
    }
    fn int(&mut self) -> i64 {
        match self.below(3) {
            0 => self.choose(&[0, 1, -1, 2, -2, 3, 4, 5]),
            1 => self.choose(&[7, 8, 16, 17, 100, -3, -7, 1000]),
            _ => self.choose(&[
                i64::MAX,
                i64::MIN,
                i64::MAX - 1,
                i64::MIN + 1,
                i64::from(i32::MAX),
                i64::from(i32::MIN),
                1 << 31,
                1 << 32,
                1 << 40,
                1 << 62,
                65536,
                -100,
            ]),
        }
    }
    fn float(&mut self) -> f32 {
        self.choose(&[
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            2.0,
            -3.5,
            1e-30,
            1e30,
            f32::MAX,
            f32::MIN,
            f32::MIN_POSITIVE,
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
        ])
    }
    fn dim(&mut self, before: i64) -> i64 {
        match self.below(4) {
            0 => self.choose(&[0, 1, 2, 3]),
            1 => before.saturating_add(self.choose(&[1, -1])),
            2 => self.choose(&[5, 8, 17, 33, 64]),
            _ => self.choose(&[0, -1, -5, 1 << 20, 1 << 31, 1 << 40, 1 << 62, i64::MAX]),
        }
    }
    fn element_type(&mut self) -> i32 {
        match self.below(5) {
            0 => self.random.below(28) as i32,
            1 => self.choose(&[-1, 0, 99, i32::MAX]),
            _ => self.choose(&[1, 10, 11, 16, 6, 7, 2, 3, 9, 12, 13]),
        }
    }
    fn word(&mut self) -> &'static [u8] {
        self.choose(&[
            &b""[..],
            b"nearest",
            b"linear",
            b"cubic",
            b"constant",
            b"reflect",
            b"edge",
            b"SAME_UPPER",
            b"SAME_LOWER",
            b"VALID",
            b"NOTSET",
            b"sum",
            b"none",
            b"mean",
            b"add",
            b"max",
            b"mul",
            b"ij,jk->ik",
            b"i,i->",
            b"...,...->...",
            b"ii->i",
            b"frobnicate",
            b"\xff\xfe",
            b"reverse",
            b"bidirectional",
            b"Tanh",
            b"align_corners",
            b"tf_crop_and_resize",
        ])
    }
}

/// All mutations of decoded models.
pub const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "attribute-value",
        weight: 12,
        apply: attribute_value,
    },
    Mutation {
        name: "attribute-list",
        weight: 6,
        apply: attribute_list,
    },
    Mutation {
        name: "attribute-dropped",
        weight: 4,
        apply: attribute_dropped,
    },
    Mutation {
        name: "attribute-added",
        weight: 8,
        apply: attribute_added,
    },
    Mutation {
        name: "attribute-retyped",
        weight: 1,
        apply: attribute_retyped,
    },
    Mutation {
        name: "attribute-copied",
        weight: 1,
        apply: attribute_copied,
    },
    Mutation {
        name: "attribute-reference",
        weight: 1,
        apply: attribute_reference,
    },
    Mutation {
        name: "attribute-tensor",
        weight: 3,
        apply: attribute_tensor,
    },
    Mutation {
        name: "types-together",
        weight: 8,
        apply: types_together,
    },
    Mutation {
        name: "type-of-value",
        weight: 3,
        apply: type_of_value,
    },
    Mutation {
        name: "dim",
        weight: 8,
        apply: dim,
    },
    Mutation {
        name: "dim-freed",
        weight: 5,
        apply: dim_freed,
    },
    Mutation {
        name: "rank",
        weight: 3,
        apply: rank,
    },
    Mutation {
        name: "shape-removed",
        weight: 2,
        apply: shape_removed,
    },
    Mutation {
        name: "outputs-free",
        weight: 4,
        apply: outputs_free,
    },
    Mutation {
        name: "dims-together",
        weight: 6,
        apply: dims_together,
    },
    Mutation {
        name: "container",
        weight: 1,
        apply: container,
    },
    Mutation {
        name: "value-info",
        weight: 1,
        apply: value_info,
    },
    Mutation {
        name: "input-rewired",
        weight: 8,
        apply: input_rewired,
    },
    Mutation {
        name: "input-left-out",
        weight: 3,
        apply: input_left_out,
    },
    Mutation {
        name: "input-dropped",
        weight: 3,
        apply: input_dropped,
    },
    Mutation {
        name: "input-added",
        weight: 2,
        apply: input_added,
    },
    Mutation {
        name: "inputs-swapped",
        weight: 4,
        apply: inputs_swapped,
    },
    Mutation {
        name: "output-dropped",
        weight: 2,
        apply: output_dropped,
    },
    Mutation {
        name: "output-added",
        weight: 2,
        apply: output_added,
    },
    Mutation {
        name: "output-twice",
        weight: 1,
        apply: output_twice,
    },
    Mutation {
        name: "graph-output",
        weight: 4,
        apply: graph_output,
    },
    Mutation {
        name: "cycle",
        weight: 1,
        apply: cycle,
    },
    Mutation {
        name: "node-copied",
        weight: 2,
        apply: node_copied,
    },
    Mutation {
        name: "node-removed",
        weight: 2,
        apply: node_removed,
    },
    Mutation {
        name: "nodes-swapped",
        weight: 1,
        apply: nodes_swapped,
    },
    Mutation {
        name: "node-inserted",
        weight: 6,
        apply: node_inserted,
    },
    Mutation {
        name: "operator",
        weight: 8,
        apply: operator,
    },
    Mutation {
        name: "opset",
        weight: 4,
        apply: opset,
    },
    Mutation {
        name: "ir-version",
        weight: 1,
        apply: ir_version,
    },
    Mutation {
        name: "input-to-constant",
        weight: 8,
        apply: input_to_constant,
    },
    Mutation {
        name: "constant-to-input",
        weight: 4,
        apply: constant_to_input,
    },
    Mutation {
        name: "constant-content",
        weight: 8,
        apply: constant_content,
    },
    Mutation {
        name: "constant-shape",
        weight: 2,
        apply: constant_shape,
    },
    Mutation {
        name: "constant-type",
        weight: 1,
        apply: constant_type,
    },
    Mutation {
        name: "in-if",
        weight: 4,
        apply: in_if,
    },
    Mutation {
        name: "in-loop",
        weight: 4,
        apply: in_loop,
    },
    Mutation {
        name: "symbolic-reshape",
        weight: 3,
        apply: shape_arithmetic,
    },
];

/// Applies one mutation that changes the model, and gives its name.
pub fn mutate(source: &mut Source<'_>, model: &mut ModelProto) -> Option<&'static str> {
    let total: u64 = MUTATIONS.iter().map(|m| m.weight).sum();
    for _ in 0..50 {
        let mut at = source.random.below(total);
        let chosen = MUTATIONS.iter().find(|m| {
            let here = at < m.weight;
            at = at.wrapping_sub(m.weight);
            here
        });
        if let Some(mutation) = chosen
            && (mutation.apply)(source, model)
        {
            return Some(mutation.name);
        }
    }
    None
}

/// Changes some bytes of an encoded model.
pub fn corrupt(random: &mut Random, bytes: &mut Vec<u8>) -> &'static str {
    let mut below = |n: usize| random.below(n.max(1) as u64) as usize;
    match below(4) {
        0 => {
            bytes.truncate(below(bytes.len()));
            "bytes-cut"
        }
        1 => {
            let (from, length) = (below(bytes.len()), 1 + below(40));
            let part: Vec<u8> = bytes.iter().skip(from).take(length).copied().collect();
            let to = below(bytes.len());
            bytes.splice(to..to, part);
            "bytes-copied"
        }
        _ => {
            for _ in 0..=below(4) {
                let at = below(bytes.len());
                let value = below(256) as u8;
                let bit = 1u8 << below(8);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = if value & 1 == 0 { value } else { *byte ^ bit };
                }
            }
            "bytes-changed"
        }
    }
}

// ---- finding places ------------------------------------------------------------------------------

fn visit<'g>(graph: &'g mut GraphProto, found: &mut Vec<&'g mut NodeProto>) {
    for node in &mut graph.node {
        // A node is taken, or what is inside of it: both cannot be borrowed at once.
        if node.attribute.iter().any(|a| a.g.is_some()) && !found.len().is_multiple_of(3) {
            for attribute in &mut node.attribute {
                if let Some(inner) = &mut attribute.g {
                    visit(inner, found);
                }
            }
        } else {
            found.push(node);
        }
    }
}

/// A node of the graph or of a graph inside of it.
fn any_node<'m>(source: &mut Source<'_>, model: &'m mut ModelProto) -> Option<&'m mut NodeProto> {
    let mut found = Vec::new();
    visit(model.graph.as_mut()?, &mut found);
    let at = source.index(found.len())?;
    Some(found.swap_remove(at))
}

fn any_attribute<'m>(
    source: &mut Source<'_>,
    model: &'m mut ModelProto,
    wanted: impl Fn(&AttributeProto) -> bool,
) -> Option<&'m mut AttributeProto> {
    let mut found = Vec::new();
    visit(model.graph.as_mut()?, &mut found);
    let mut all: Vec<&mut AttributeProto> = found
        .into_iter()
        .flat_map(|node| &mut node.attribute)
        .filter(|a| wanted(a))
        .collect();
    let at = source.index(all.len())?;
    Some(all.swap_remove(at))
}

/// The names of all values of the outermost graph.
fn value_names(graph: &GraphProto) -> Vec<String> {
    let inputs = graph.input.iter().map(|v| v.name.clone());
    let constants = graph.initializer.iter().map(|t| t.name.clone());
    let made = graph.node.iter().flat_map(|n| n.output.clone());
    let all = inputs.chain(constants).chain(made);
    all.filter(|name| !name.is_empty()).collect()
}

fn fresh(graph: &GraphProto, stem: &str) -> String {
    let taken = value_names(graph);
    (0..)
        .map(|n| format!("{stem}_{n}"))
        .find(|name| !taken.contains(name))
        .expect("numbers do not end")
}

fn tensor_of(info: &mut ValueInfoProto) -> Option<&mut type_proto::Tensor> {
    match info.r#type.as_mut()?.value.as_mut()? {
        type_proto::Value::TensorType(tensor) => Some(tensor),
        _ => None,
    }
}

/// A tensor type among the inputs and outputs.
fn any_tensor<'m>(
    source: &mut Source<'_>,
    model: &'m mut ModelProto,
) -> Option<&'m mut type_proto::Tensor> {
    let graph = model.graph.as_mut()?;
    let list = if source.chance(3) {
        &mut graph.output
    } else {
        &mut graph.input
    };
    let at = source.index(list.len())?;
    tensor_of(&mut list[at])
}

fn signature(model: &ModelProto, node: &NodeProto) -> Option<Schema> {
    let domain = if node.domain == "ai.onnx" {
        ""
    } else {
        &node.domain
    };
    let import = model.opset_import.iter().find(|o| o.domain == domain)?;
    match schema::look_up(domain, &node.op_type, import.version) {
        Lookup::Found(schema) => Some(schema),
        _ => None,
    }
}

// ---- attributes ----------------------------------------------------------------------------------

fn attribute_value(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let plain = |a: &AttributeProto| a.t.is_none() && a.g.is_none();
    let Some(attribute) = any_attribute(source, model, plain) else {
        return false;
    };
    set_value(source, attribute)
}

/// Gives an attribute another value of its type.
fn set_value(source: &mut Source<'_>, attribute: &mut AttributeProto) -> bool {
    match AttributeType::try_from(attribute.r#type) {
        Ok(AttributeType::Int) => attribute.i = source.int(),
        Ok(AttributeType::Float) => attribute.f = source.float(),
        Ok(AttributeType::String) => attribute.s = source.word().to_vec().into(),
        Ok(AttributeType::Ints) => match source.index(attribute.ints.len()) {
            Some(at) => attribute.ints[at] = source.int(),
            None => attribute.ints.push(source.int()),
        },
        Ok(AttributeType::Floats) => match source.index(attribute.floats.len()) {
            Some(at) => attribute.floats[at] = source.float(),
            None => attribute.floats.push(source.float()),
        },
        Ok(AttributeType::Strings) => match source.index(attribute.strings.len()) {
            Some(at) => attribute.strings[at] = source.word().to_vec().into(),
            None => attribute.strings.push(source.word().to_vec().into()),
        },
        _ => return false,
    }
    true
}

fn attribute_list(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let list = |a: &AttributeProto| matches!(a.r#type, 6..=8);
    let Some(a) = any_attribute(source, model, list) else {
        return false;
    };
    let how = source.below(5);
    let many = source.choose(&[3usize, 17, 1000, 70000]);
    let (int, float, word) = (source.int(), source.float(), source.word());
    fn change<T: Clone>(list: &mut Vec<T>, how: usize, many: usize, new: T) {
        match how {
            0 => list.clear(),
            1 => drop(list.pop()),
            2 => list.push(list.last().cloned().unwrap_or(new)),
            3 => list.push(new),
            _ => list.resize(many, new),
        }
    }
    match a.r#type {
        6 => change(&mut a.floats, how, many, float),
        7 => change(&mut a.ints, how, many, int),
        _ => change(&mut a.strings, how, many, word.to_vec().into()),
    }
    true
}

fn attribute_dropped(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(node) = any_node(source, model) else {
        return false;
    };
    match source.index(node.attribute.len()) {
        Some(at) => drop(node.attribute.remove(at)),
        None => return false,
    }
    true
}

/// An attribute that the operator has and the node has not.
fn attribute_added(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let whole = model.clone();
    let Some(node) = any_node(source, model) else {
        return false;
    };
    let Some(schema) = signature(&whole, node) else {
        return false;
    };
    let missing: Vec<_> = schema
        .attributes
        .iter()
        .filter(|a| node.attribute.iter().all(|b| b.name != a.name))
        .collect();
    let Some(at) = source.index(missing.len()) else {
        return false;
    };
    let mut new = AttributeProto {
        name: missing[at].name.to_string(),
        r#type: missing[at].kind as i32,
        ..Default::default()
    };
    for _ in 0..source.below(5) {
        set_value(source, &mut new);
        if matches!(new.r#type, 6..=8) {
            new.ints.extend(new.ints.first().copied());
            new.floats.extend(new.floats.first().copied());
        }
    }
    node.attribute.push(new);
    true
}

fn attribute_retyped(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(a) = any_attribute(source, model, |_| true) else {
        return false;
    };
    let old = a.r#type;
    a.r#type = source.random.below(15) as i32;
    if source.chance(2) {
        a.i = source.int();
        a.f = source.float();
        a.ints = vec![source.int()];
    }
    a.r#type != old
}

fn attribute_copied(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(copy) = any_attribute(source, model, |_| true).cloned() else {
        return false;
    };
    match any_node(source, model) {
        Some(node) => node.attribute.push(copy),
        None => return false,
    }
    true
}

fn attribute_reference(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    match any_attribute(source, model, |_| true) {
        Some(a) => a.ref_attr_name = "alpha".into(),
        None => return false,
    }
    true
}

fn attribute_tensor(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let has = |a: &AttributeProto| a.t.is_some();
    let tensor = any_attribute(source, model, has).and_then(|a| a.t.as_mut());
    match tensor {
        Some(tensor) => change_tensor(source, tensor),
        None => false,
    }
}

// ---- types and dims ------------------------------------------------------------------------------

/// All values of one element type get another.
fn types_together(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let to = source.element_type();
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let types: Vec<i32> = graph
        .input
        .iter_mut()
        .filter_map(tensor_of)
        .map(|t| t.elem_type)
        .collect();
    let Some(at) = source.index(types.len()) else {
        return false;
    };
    let from = types[at];
    if from == to {
        return false;
    }
    for info in [&mut graph.input, &mut graph.output, &mut graph.value_info]
        .into_iter()
        .flatten()
    {
        if let Some(tensor) = tensor_of(info)
            && tensor.elem_type == from
        {
            tensor.elem_type = to;
        }
    }
    for tensor in graph.initializer.iter_mut().filter(|t| t.data_type == from) {
        let count: i64 = tensor.dims.iter().product();
        *tensor = constant(
            source,
            &tensor.name,
            to,
            tensor.dims.clone(),
            count.clamp(0, 4096),
        );
    }
    true
}

fn type_of_value(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let to = source.element_type();
    match any_tensor(source, model) {
        Some(tensor) if tensor.elem_type != to => tensor.elem_type = to,
        _ => return false,
    }
    true
}

fn any_dim<'t>(
    source: &mut Source<'_>,
    tensor: &'t mut type_proto::Tensor,
) -> Option<&'t mut Dimension> {
    let shape = tensor.shape.as_mut()?;
    let at = source.index(shape.dim.len())?;
    shape.dim.get_mut(at)
}

fn number(dim: &Dimension) -> i64 {
    match dim.value {
        Some(dimension::Value::DimValue(v)) => v,
        _ => 4,
    }
}

fn dim(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(tensor) = any_tensor(source, model) else {
        return false;
    };
    let Some(dim) = any_dim(source, tensor) else {
        return false;
    };
    let to = source.dim(number(dim));
    dim.value = Some(dimension::Value::DimValue(to));
    true
}

fn dim_freed(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let name = source.choose(&["N", "M", "batch", ""]);
    let Some(tensor) = any_tensor(source, model) else {
        return false;
    };
    match any_dim(source, tensor) {
        Some(dim) => dim.value = Some(dimension::Value::DimParam(name.into())),
        None => return false,
    }
    true
}

/// A dim's value is another one wherever an input has it; the outputs' dims are left open.
fn dims_together(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(tensor) = any_tensor(source, model) else {
        return false;
    };
    let Some(from) = any_dim(source, tensor).map(|d| number(d)) else {
        return false;
    };
    let to = match source.below(3) {
        0 => Some(dimension::Value::DimParam("N".into())),
        _ => {
            let new = source.choose(&[0, 1, 2, 3, 5, 8, 16, 33]);
            Some(dimension::Value::DimValue(new))
        }
    };
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    for tensor in graph.input.iter_mut().filter_map(tensor_of) {
        for dim in tensor.shape.iter_mut().flat_map(|s| &mut s.dim) {
            if number(dim) == from {
                dim.value = to.clone();
            }
        }
    }
    free_outputs(graph);
    true
}

fn free_outputs(graph: &mut GraphProto) {
    for tensor in graph.output.iter_mut().filter_map(tensor_of) {
        for (i, dim) in tensor.shape.iter_mut().flat_map(|s| &mut s.dim).enumerate() {
            dim.value = Some(dimension::Value::DimParam(format!("out_{i}")));
        }
    }
}

fn outputs_free(_: &mut Source<'_>, model: &mut ModelProto) -> bool {
    match &mut model.graph {
        Some(graph) => free_outputs(graph),
        None => return false,
    }
    true
}

fn rank(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(shape) = any_tensor(source, model).and_then(|t| t.shape.as_mut()) else {
        return false;
    };
    match source.index(shape.dim.len()) {
        Some(at) if source.chance(2) => drop(shape.dim.remove(at)),
        _ => {
            let dim = Dimension {
                value: Some(dimension::Value::DimValue(source.choose(&[1, 2, 3]))),
                ..Default::default()
            };
            let count = source.choose(&[1usize, 1, 1, 5, 17]);
            let at = source.below(shape.dim.len() + 1);
            shape.dim.splice(at..at, vec![dim; count]);
        }
    }
    true
}

fn shape_removed(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    match any_tensor(source, model) {
        Some(tensor) => tensor.shape.take().is_some(),
        None => false,
    }
}

fn container(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let list = if source.chance(2) {
        &mut graph.output
    } else {
        &mut graph.input
    };
    let Some(at) = source.index(list.len()) else {
        return false;
    };
    let inner = list[at].r#type.take().map(Box::new);
    let value = match source.below(3) {
        0 => type_proto::Value::SequenceType(Box::new(type_proto::Sequence { elem_type: inner })),
        1 => type_proto::Value::OptionalType(Box::new(type_proto::Optional { elem_type: inner })),
        _ => type_proto::Value::MapType(Box::new(type_proto::Map {
            key_type: source.choose(&[7, 8, 1]),
            value_type: inner,
        })),
    };
    list[at].r#type = Some(TypeProto {
        value: Some(value),
        ..Default::default()
    });
    true
}

/// A statement about a value inside of the graph, mostly a wrong one.
fn value_info(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let names = value_names(graph);
    let Some(at) = source.index(names.len()) else {
        return false;
    };
    let dims: Vec<i64> = (0..source.below(4)).map(|_| source.dim(3)).collect();
    let info = info(&names[at], source.element_type(), &dims);
    graph.value_info.push(info);
    true
}

/// A value of a tensor type.
fn info(name: &str, dtype: i32, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|d| Dimension {
        value: Some(dimension::Value::DimValue(*d)),
        ..Default::default()
    });
    let tensor = type_proto::Tensor {
        elem_type: dtype,
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

// ---- wiring --------------------------------------------------------------------------------------

fn input_rewired(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(graph) = &model.graph else {
        return false;
    };
    let names = value_names(graph);
    let new = match source.index(names.len()) {
        Some(at) if !source.chance(20) => names[at].clone(),
        _ => "nowhere".to_string(),
    };
    let Some(node) = any_node(source, model) else {
        return false;
    };
    match source.index(node.input.len()) {
        Some(at) if node.input[at] != new => node.input[at] = new,
        _ => return false,
    }
    true
}

fn input_left_out(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(node) = any_node(source, model) else {
        return false;
    };
    match source.index(node.input.len()) {
        Some(at) => node.input[at].clear(),
        None => return false,
    }
    true
}

fn input_dropped(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    any_node(source, model).is_some_and(|node| node.input.pop().is_some())
}

fn input_added(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(node) = any_node(source, model) else {
        return false;
    };
    let Some(at) = source.index(node.input.len()) else {
        return false;
    };
    let copies = source.choose(&[1usize, 1, 2, 20]);
    let more = vec![node.input[at].clone(); copies];
    node.input.extend(more);
    true
}

fn inputs_swapped(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(node) = any_node(source, model) else {
        return false;
    };
    if node.input.len() < 2 {
        return false;
    }
    let (a, b) = (
        source.below(node.input.len()),
        source.below(node.input.len()),
    );
    node.input.swap(a, b);
    node.input[a] != node.input[b]
}

fn output_dropped(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(node) = any_node(source, model) else {
        return false;
    };
    match source.index(node.output.len()) {
        Some(at) if source.chance(2) => node.output[at].clear(),
        _ => return node.output.pop().is_some(),
    }
    true
}

fn output_added(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    match any_node(source, model) {
        Some(node) => node.output.push("one_more".into()),
        None => return false,
    }
    true
}

fn output_twice(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let names = model.graph.as_ref().map(value_names).unwrap_or_default();
    let Some(new) = source.index(names.len()).map(|at| names[at].clone()) else {
        return false;
    };
    let Some(node) = any_node(source, model) else {
        return false;
    };
    match source.index(node.output.len()) {
        Some(at) => node.output[at] = new,
        None => return false,
    }
    true
}

/// Another value, or one more, is an output of the graph.
fn graph_output(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let names = value_names(graph);
    let (Some(from), Some(to)) = (source.index(graph.output.len()), source.index(names.len()))
    else {
        return false;
    };
    let mut new = graph.output[from].clone();
    new.name = names[to].clone();
    if let Some(tensor) = tensor_of(&mut new)
        && source.chance(2)
    {
        tensor.shape = None;
    }
    match source.below(3) {
        0 => graph.output.push(new),
        1 => graph.output[from] = new,
        _ => drop(graph.output.remove(from)),
    }
    true
}

fn cycle(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let Some(late) = source.index(graph.node.len()) else {
        return false;
    };
    let early = source.below(late + 1);
    let Some(name) = graph.node[late].output.first().cloned() else {
        return false;
    };
    match source.index(graph.node[early].input.len()) {
        Some(at) => graph.node[early].input[at] = name,
        None => return false,
    }
    true
}

fn node_copied(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let Some(at) = source.index(graph.node.len()) else {
        return false;
    };
    let mut copy = graph.node[at].clone();
    if !source.chance(8) {
        for output in copy.output.iter_mut().filter(|o| !o.is_empty()) {
            *output = format!("{output}_copy");
        }
    }
    graph.node.insert(at + 1, copy);
    true
}

fn node_removed(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    match source.index(graph.node.len()) {
        Some(at) => drop(graph.node.remove(at)),
        None => return false,
    }
    true
}

fn nodes_swapped(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let n = graph.node.len();
    if n < 2 {
        return false;
    }
    let (a, b) = (source.below(n), source.below(n));
    graph.node.swap(a, b);
    a != b
}

/// A node of one input, where any node reads a value.
fn node_inserted(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let op = source.choose(&[
        "Identity",
        "Neg",
        "Relu",
        "Abs",
        "Sqrt",
        "Exp",
        "Not",
        "Shape",
        "Size",
        "Softmax",
        "Transpose",
        "Flatten",
        "NonZero",
        "Cast",
        "ReduceSum",
        "Tanh",
        "Erf",
        "Unique",
        "CumSum",
    ]);
    let to = source.element_type();
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let Some(at) = source.index(graph.node.len()) else {
        return false;
    };
    let Some(input) = source.index(graph.node[at].input.len()) else {
        return false;
    };
    let read = graph.node[at].input[input].clone();
    if read.is_empty() {
        return false;
    }
    let name = fresh(graph, "inserted");
    graph.node[at].input[input] = name.clone();
    let mut new = NodeProto {
        op_type: op.into(),
        name: format!("/{name}"),
        input: vec![read],
        output: vec![name],
        ..Default::default()
    };
    if op == "Cast" {
        new.attribute.push(AttributeProto {
            name: "to".into(),
            r#type: AttributeType::Int as i32,
            i: i64::from(to),
            ..Default::default()
        });
    }
    graph.node.insert(at, new);
    true
}

/// Another operator that takes as many values and gives as many.
fn operator(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let known = source.operators;
    let keep = source.chance(3);
    let Some(node) = any_node(source, model) else {
        return false;
    };
    let fits: Vec<_> = known
        .iter()
        .filter(|o| o.0 == node.domain && o.1 != node.op_type)
        .filter(|o| o.2 == node.input.len() && o.3 == node.output.len())
        .collect();
    let Some(at) = source.index(fits.len()) else {
        return false;
    };
    node.op_type = fits[at].1.clone();
    if !keep {
        node.attribute.clear();
    }
    true
}

fn opset(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    match source.below(12) {
        0 => model.opset_import.push(OperatorSetIdProto {
            domain: "".into(),
            version: source.int(),
        }),
        1 => drop(model.opset_import.pop()),
        2 => {
            let version = source.int();
            match model.opset_import.first_mut() {
                Some(import) => import.version = version,
                None => return false,
            }
        }
        _ => {
            let version = 7 + source.random.below(22) as i64;
            match model.opset_import.first_mut() {
                Some(import) if import.version != version => import.version = version,
                _ => return false,
            }
        }
    }
    true
}

fn ir_version(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let old = model.ir_version;
    model.ir_version = match source.below(3) {
        0 => source.int(),
        _ => 2 + source.random.below(13) as i64,
    };
    model.ir_version != old
}

// ---- constants -----------------------------------------------------------------------------------

/// A constant of so many elements, in the field that ONNX has for its type or as raw bytes.
fn constant(
    source: &mut Source<'_>,
    name: &str,
    dtype: i32,
    dims: Vec<i64>,
    count: i64,
) -> TensorProto {
    let mut tensor = TensorProto {
        name: name.into(),
        data_type: dtype,
        dims,
        ..Default::default()
    };
    let wild = source.chance(3);
    for _ in 0..count {
        let int = match wild {
            true => source.int(),
            false => source.choose(&[0, 1, 1, 2, 3, -1]),
        };
        let float = match wild {
            true => source.float(),
            false => source.choose(&[0.0, 1.0, -1.0, 0.5, 2.0]),
        };
        match dtype {
            1 => tensor.float_data.push(float),
            11 => tensor.double_data.push(f64::from(float)),
            7 => tensor.int64_data.push(int),
            12 | 13 => tensor.uint64_data.push((int as u64) & 0xffff_ffff),
            8 => tensor.string_data.push(source.word().to_vec().into()),
            9 => tensor.int32_data.push((int & 1) as i32),
            2 | 3 => tensor.int32_data.push((int & 0x7f) as i32),
            _ => tensor.int32_data.push(int as i32 & 0x7fff),
        }
    }
    tensor
}

/// An input has a value of random elements.
fn input_to_constant(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let keep = source.chance(6);
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let Some(at) = source.index(graph.input.len()) else {
        return false;
    };
    let name = graph.input[at].name.clone();
    let Some(tensor) = tensor_of(&mut graph.input[at]) else {
        return false;
    };
    let dims: Vec<i64> = match &tensor.shape {
        Some(shape) => shape.dim.iter().map(number).collect(),
        None => return false,
    };
    let count = dims.iter().fold(1i64, |a, d| a.saturating_mul((*d).max(0)));
    if count > 4096 || graph.initializer.iter().any(|t| t.name == name) {
        return false;
    }
    let dtype = tensor.elem_type;
    let new = constant(source, &name, dtype, dims, count);
    graph.initializer.push(new);
    if !keep {
        graph.input.remove(at);
    }
    true
}

fn constant_to_input(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let remove = !source.chance(6);
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let Some(at) = source.index(graph.initializer.len()) else {
        return false;
    };
    let tensor = &graph.initializer[at];
    let new = info(&tensor.name, tensor.data_type, &tensor.dims);
    if graph.input.iter().any(|v| v.name == tensor.name) {
        return false;
    }
    graph.input.push(new);
    if remove {
        graph.initializer.remove(at);
    }
    true
}

fn any_constant<'m>(
    source: &mut Source<'_>,
    model: &'m mut ModelProto,
) -> Option<&'m mut TensorProto> {
    let list = &mut model.graph.as_mut()?.initializer;
    let at = source.index(list.len())?;
    list.get_mut(at)
}

/// Changes an element, or most of them.
fn change_content(source: &mut Source<'_>, tensor: &mut TensorProto) -> bool {
    let all = source.chance(3);
    let (int, float, word) = (source.int(), source.float(), source.word());
    fn set<T: Clone>(source: &mut Source<'_>, list: &mut [T], all: bool, new: T) -> bool {
        match source.index(list.len()) {
            Some(_) if all => list.fill(new),
            Some(at) => list[at] = new,
            None => return false,
        }
        true
    }
    if !tensor.raw_data.is_empty() {
        let mut raw = tensor.raw_data.to_vec();
        let pattern = match tensor.data_type {
            1 => float.to_le_bytes().to_vec(),
            11 => f64::from(float).to_le_bytes().to_vec(),
            9 => vec![(int & 3) as u8],
            2 | 3 => vec![int as u8],
            4 | 5 | 10 | 16 => (int as u16).to_le_bytes().to_vec(),
            6 | 12 => (int as u32).to_le_bytes().to_vec(),
            _ => int.to_le_bytes().to_vec(),
        };
        let elements = raw.len() / pattern.len();
        let Some(at) = source.index(elements) else {
            return false;
        };
        for (i, element) in raw.chunks_exact_mut(pattern.len()).enumerate() {
            if all || i == at {
                element.copy_from_slice(&pattern);
            }
        }
        tensor.raw_data = raw.into();
        return true;
    }
    set(source, &mut tensor.float_data, all, float)
        || set(source, &mut tensor.double_data, all, f64::from(float))
        || set(source, &mut tensor.int64_data, all, int)
        || set(source, &mut tensor.uint64_data, all, int as u64)
        || set(source, &mut tensor.int32_data, all, int as i32)
        || set(source, &mut tensor.string_data, all, word.to_vec().into())
}

fn constant_content(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    match any_constant(source, model) {
        Some(tensor) => change_content(source, tensor),
        None => false,
    }
}

/// The content stays, its shape or its type does not suit it.
fn change_tensor(source: &mut Source<'_>, tensor: &mut TensorProto) -> bool {
    match source.below(6) {
        0 => match source.index(tensor.dims.len()) {
            Some(at) => tensor.dims[at] = source.dim(tensor.dims[at]),
            None => tensor.dims.push(source.int()),
        },
        1 => tensor.data_type = source.element_type(),
        2 => tensor.dims.push(1),
        3 => {
            let rest = tensor.raw_data.len() / 2;
            tensor.raw_data.truncate(rest);
            tensor.int64_data.pop();
            tensor.float_data.pop();
        }
        _ => return change_content(source, tensor),
    }
    true
}

fn constant_shape(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    match any_constant(source, model) {
        Some(tensor) => change_tensor(source, tensor),
        None => false,
    }
}

fn constant_type(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(tensor) = any_constant(source, model) else {
        return false;
    };
    let dtype = source.element_type();
    let count = tensor.dims.iter().fold(1i64, |a, d| a.saturating_mul(*d));
    let (name, dims) = (tensor.name.clone(), tensor.dims.clone());
    let new = constant(source, &name, dtype, dims, count.clamp(0, 4096));
    match any_constant(source, model) {
        Some(tensor) if tensor.name == name => *tensor = new,
        _ => return false,
    }
    true
}

// ---- control flow --------------------------------------------------------------------------------

fn graph_attribute(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Graph as i32,
        g: Some(graph),
        ..Default::default()
    }
}

/// A value without a stated type.
fn untyped(name: &str) -> ValueInfoProto {
    ValueInfoProto {
        name: name.into(),
        ..Default::default()
    }
}

/// A node runs inside of a branch; the other branch has the same node, or another value.
fn in_if(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let given = source.chance(2);
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let Some(at) = source.index(graph.node.len()) else {
        return false;
    };
    let node = graph.node[at].clone();
    if node.output.iter().any(String::is_empty) || node.output.is_empty() {
        return false;
    }
    let body = |stem: &str| {
        let mut inner = node.clone();
        for output in &mut inner.output {
            *output = format!("{output}_{stem}");
        }
        GraphProto {
            name: stem.into(),
            output: inner.output.iter().map(|o| untyped(o)).collect(),
            node: vec![inner],
            ..Default::default()
        }
    };
    let condition = fresh(graph, "condition");
    if given {
        graph.input.push(info(&condition, 9, &[]));
    } else {
        graph.initializer.push(TensorProto {
            name: condition.clone(),
            data_type: 9,
            int32_data: vec![i32::from(source.chance(2))],
            ..Default::default()
        });
    }
    graph.node[at] = NodeProto {
        op_type: "If".into(),
        name: format!("/{condition}"),
        input: vec![condition],
        output: node.output.clone(),
        attribute: vec![
            graph_attribute("then_branch", body("then")),
            graph_attribute("else_branch", body("else")),
        ],
        ..Default::default()
    };
    true
}

/// A node runs inside of a loop, and its first output is carried or collected.
fn in_loop(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let carried = source.chance(2);
    let trips = source.choose(&[0, 1, 2, 3, 3, -1, i64::MAX]);
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let Some(at) = source.index(graph.node.len()) else {
        return false;
    };
    let mut node = graph.node[at].clone();
    let (Some(input), Some(output)) = (node.input.first().cloned(), node.output.first().cloned())
    else {
        return false;
    };
    if input.is_empty() || output.is_empty() {
        return false;
    }
    let stem = fresh(graph, "loop");
    for name in node.output.iter_mut().filter(|o| !o.is_empty()) {
        *name = format!("{name}_{stem}");
    }
    let made = node.output[0].clone();
    let named = |what: &str| format!("{stem}_{what}");
    let mut body = GraphProto {
        name: stem.clone(),
        input: vec![info(&named("i"), 7, &[]), info(&named("c"), 9, &[])],
        output: vec![untyped(&named("on")), untyped(&made)],
        ..Default::default()
    };
    let mut outer = NodeProto {
        op_type: "Loop".into(),
        name: format!("/{stem}"),
        input: vec![named("trips"), String::new()],
        output: vec![output],
        ..Default::default()
    };
    if carried {
        outer.input.push(input);
        body.input.push(untyped(&named("state")));
        node.input[0] = named("state");
    }
    body.node = vec![
        NodeProto {
            op_type: "Identity".into(),
            input: vec![named("c")],
            output: vec![named("on")],
            ..Default::default()
        },
        node,
    ];
    outer.attribute = vec![graph_attribute("body", body)];
    graph.initializer.push(TensorProto {
        name: named("trips"),
        data_type: 7,
        int64_data: vec![trips],
        ..Default::default()
    });
    graph.node[at] = outer;
    true
}

/// A value is reshaped to a shape that is computed, or expanded to it.
fn shape_arithmetic(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let op = source.choose(&["Reshape", "Expand", "Reshape", "Tile"]);
    let middle = source.choose(&["Identity", "Neg", "Abs"]);
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let names = value_names(graph);
    let (Some(at), Some(of)) = (source.index(graph.node.len()), source.index(names.len())) else {
        return false;
    };
    let Some(input) = source.index(graph.node[at].input.len()) else {
        return false;
    };
    let read = graph.node[at].input[input].clone();
    if read.is_empty() {
        return false;
    }
    let (shape, changed, out) = (
        fresh(graph, "shape"),
        fresh(graph, "changed"),
        fresh(graph, "shaped"),
    );
    graph.node[at].input[input] = out.clone();
    let node = |op: &str, inputs: Vec<String>, output: &str| NodeProto {
        op_type: op.into(),
        name: format!("/{output}"),
        input: inputs,
        output: vec![output.to_string()],
        ..Default::default()
    };
    let of = if source.chance(2) {
        read.clone()
    } else {
        names[of].clone()
    };
    let new = [
        node("Shape", vec![of], &shape),
        node(middle, vec![shape], &changed),
        node(op, vec![read, changed], &out),
    ];
    graph.node.splice(at..at, new);
    true
}
