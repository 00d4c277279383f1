//! What mutations draw from, and how they find places in a model.

use lapidary::random::Random;
use lapidary_onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto, type_proto,
};
use lapidary_onnx::schema::{self, Lookup, Schema};

/// What a mutation draws from.
pub struct Source<'a> {
    pub random: &'a mut Random,
    /// Operators with what their nodes look like: domain, name, numbers of inputs and outputs.
    pub operators: &'a [(String, String, usize, usize)],
}

impl Source<'_> {
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.random.below(n as u64) as usize
    }
    pub(super) fn chance(&mut self, one_in: u64) -> bool {
        self.random.below(one_in) == 0
    }
    pub(super) fn choose<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
    /// An index into a list, unless it is empty.
    pub(super) fn index(&mut self, length: usize) -> Option<usize> {
        (length > 0).then(|| self.below(length))
    }
    pub(super) fn int(&mut self) -> i64 {
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
    pub(super) fn float(&mut self) -> f32 {
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
    pub(super) fn dim(&mut self, before: i64) -> i64 {
        match self.below(4) {
            0 => self.choose(&[0, 1, 2, 3]),
            1 => before.saturating_add(self.choose(&[1, -1])),
            2 => self.choose(&[5, 8, 17, 33, 64]),
            _ => self.choose(&[0, -1, -5, 1 << 20, 1 << 31, 1 << 40, 1 << 62, i64::MAX]),
        }
    }
    pub(super) fn element_type(&mut self) -> i32 {
        match self.below(5) {
            0 => self.random.below(28) as i32,
            1 => self.choose(&[-1, 0, 99, i32::MAX]),
            _ => self.choose(&[1, 10, 11, 16, 6, 7, 2, 3, 9, 12, 13]),
        }
    }
    pub(super) fn word(&mut self) -> &'static [u8] {
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
pub(super) fn any_node<'m>(
    source: &mut Source<'_>,
    model: &'m mut ModelProto,
) -> Option<&'m mut NodeProto> {
    let mut found = Vec::new();
    visit(model.graph.as_mut()?, &mut found);
    let at = source.index(found.len())?;
    Some(found.swap_remove(at))
}

pub(super) fn any_attribute<'m>(
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
pub(super) fn value_names(graph: &GraphProto) -> Vec<String> {
    let inputs = graph.input.iter().map(|v| v.name.clone());
    let constants = graph.initializer.iter().map(|t| t.name.clone());
    let made = graph.node.iter().flat_map(|n| n.output.clone());
    let all = inputs.chain(constants).chain(made);
    all.filter(|name| !name.is_empty()).collect()
}

pub(super) fn fresh(graph: &GraphProto, stem: &str) -> String {
    let taken = value_names(graph);
    (0..)
        .map(|n| format!("{stem}_{n}"))
        .find(|name| !taken.contains(name))
        .expect("numbers do not end")
}

pub(super) fn tensor_of(info: &mut ValueInfoProto) -> Option<&mut type_proto::Tensor> {
    match info.r#type.as_mut()?.value.as_mut()? {
        type_proto::Value::TensorType(tensor) => Some(tensor),
        _ => None,
    }
}

/// A tensor type among the inputs and outputs.
pub(super) fn any_tensor<'m>(
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

pub(super) fn signature(model: &ModelProto, node: &NodeProto) -> Option<Schema> {
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
