//! Shapes of values, as far as the file tells them: those that a node's operator takes, and those that it gives.
//!
//! What is known comes from the model's inputs, initializers, constants, and the rows of the table
//! ([`crate::schema::shape`]), node after node; symbols are sizes that are not known. What the model states for inner
//! values is a hint that exporters leave stale: it counts under full rules alone, and so do the bodies of subgraphs, of
//! which a branch may never run.

use crate::proto::tensor_shape_proto::dimension;
use crate::proto::{AttributeProto, NodeProto, TensorProto, TypeProto, type_proto};
use crate::schema::Schema;
use crate::schema::shape::{self, Given, Node, Operation};

use super::Checker;
use super::place::Place;

/// Sizes, as far as they are known.
type Shape = shape::Shape<i64>;

/// What is known of a value beside its type.
#[derive(Clone, Debug, Default)]
pub(super) struct Extent {
    /// Its shape, if its rank is known.
    pub shape: Option<Shape>,
    /// The elements of a short list of integers.
    elements: Option<Shape>,
}

/// Lists of axes and sizes are no longer.
const MOST_ELEMENTS: i64 = 64;

/// Shapes of more axes are not looked at: no operator is made for them, and a file can state millions.
const MOST_AXES: usize = 256;

impl Extent {
    /// What a type says.
    pub(super) fn of_type(ty: &TypeProto, freed: bool) -> Extent {
        let Some(type_proto::Value::TensorType(tensor)) = &ty.value else {
            return Extent::default();
        };
        let shape = tensor.shape.as_ref();
        let shape = shape.filter(|shape| shape.dim.len() <= MOST_AXES);
        let shape = shape.map(|shape| {
            let sizes = shape.dim.iter().map(|dim| match dim.value {
                Some(dimension::Value::DimValue(size)) if size >= 0 && !freed => Some(size),
                _ => None,
            });
            sizes.collect()
        });
        Extent {
            shape,
            elements: None,
        }
    }

    /// What a tensor of the file says.
    pub(super) fn of_tensor(checker: &Checker<'_>, tensor: &TensorProto) -> Extent {
        let dims = &tensor.dims;
        if dims.iter().any(|dim| *dim < 0) {
            return Extent::default();
        }
        let count = dims.iter().try_fold(1i64, |n, dim| n.checked_mul(*dim));
        let short = dims.len() <= 1 && count.is_some_and(|n| n <= MOST_ELEMENTS);
        let view = short
            .then(|| checker.file.tensor_data(tensor).ok())
            .flatten();
        let elements = view.and_then(|view| view.to_i64s());
        Extent {
            shape: Some(known(dims)).filter(|shape| shape.len() <= MOST_AXES),
            elements: elements.map(|list| known(&list)),
        }
    }
}

fn known(list: &[i64]) -> Shape {
    list.iter().copied().map(Some).collect()
}

/// Judges the shapes of a node's inputs, and gives what is known of its outputs.
pub(super) fn infer(
    checker: &mut Checker<'_>,
    schema: &Schema,
    node: &NodeProto,
    inputs: &[Extent],
    place: &Place<'_>,
) -> Vec<Extent> {
    if schema.name == "Constant" && schema.domain.is_empty() {
        return vec![constant(checker, node)];
    }
    let at = At {
        schema,
        node,
        inputs,
    };
    match shape::infer(&at) {
        Ok(shapes) => shapes
            .into_iter()
            .map(|shape| Extent {
                shape: shape.filter(|shape| shape.len() <= MOST_AXES),
                elements: None,
            })
            .collect(),
        Err(fault) => {
            let hint = format!(
                "{} of opset {} does not take that",
                schema.name, schema.since
            );
            checker.invalid(place, fault.to_string(), hint);
            Vec::new()
        }
    }
}

/// What is known of a value that is found and declared. They must agree.
pub(super) fn settle(
    checker: &mut Checker<'_>,
    found: Extent,
    declared: Option<&TypeProto>,
    name: &str,
    place: &Place<'_>,
) -> Extent {
    let declared = declared.map(|ty| Extent::of_type(ty, false));
    let Some(stated) = declared.and_then(|extent| extent.shape) else {
        return found;
    };
    let Some(shape) = &found.shape else {
        return Extent {
            shape: Some(stated),
            ..found
        };
    };
    let differ =
        |(a, b): (&Option<i64>, &Option<i64>)| matches!((a, b), (Some(a), Some(b)) if a != b);
    if shape.len() != stated.len() || shape.iter().zip(&stated).any(differ) {
        checker.invalid(
            place,
            format!(
                "'{name}' has the shape {}, but is declared as {}",
                text(shape),
                text(&stated)
            ),
            "correct the declaration, or leave it out",
        );
        return found;
    }
    let sizes = shape.iter().zip(&stated).map(|(a, b)| a.or(*b)).collect();
    Extent {
        shape: Some(sizes),
        ..found
    }
}

fn text(shape: &[Option<i64>]) -> String {
    let sizes = shape
        .iter()
        .map(|size| size.map_or("?".to_string(), |size| size.to_string()));
    format!("[{}]", sizes.collect::<Vec<_>>().join(", "))
}

fn constant(checker: &Checker<'_>, node: &NodeProto) -> Extent {
    let Some(attribute) = node
        .attribute
        .first()
        .filter(|a| a.ref_attr_name.is_empty())
    else {
        return Extent::default();
    };
    let list = |length: usize| Some(vec![i64::try_from(length).ok()]);
    let (shape, elements) = match attribute.name.as_str() {
        "value" => {
            return match &attribute.t {
                Some(tensor) => Extent::of_tensor(checker, tensor),
                None => Extent::default(),
            };
        }
        "value_int" => (Some(Vec::new()), Some(vec![Some(attribute.i)])),
        "value_ints" => {
            let short = attribute.ints.len() <= MOST_ELEMENTS as usize;
            let elements = short.then(|| known(&attribute.ints));
            (list(attribute.ints.len()), elements)
        }
        "value_float" | "value_string" => (Some(Vec::new()), None),
        "value_floats" => (list(attribute.floats.len()), None),
        "value_strings" => (list(attribute.strings.len()), None),
        _ => (None, None),
    };
    Extent { shape, elements }
}

/// A node among values of which this much is known.
struct At<'n> {
    schema: &'n Schema,
    node: &'n NodeProto,
    inputs: &'n [Extent],
}

impl At<'_> {
    fn attribute<T>(&self, name: &str, read: impl Fn(&AttributeProto) -> Option<T>) -> Given<T> {
        match self.node.attribute.iter().find(|a| a.name == name) {
            None => Given::Absent,
            Some(a) if !a.ref_attr_name.is_empty() => Given::Hidden,
            // One of another type is a fault of its own.
            Some(a) => match read(a).filter(|_| self.of_its_type(a)) {
                Some(value) => Given::Known(value),
                None => Given::Hidden,
            },
        }
    }

    fn of_its_type(&self, attribute: &AttributeProto) -> bool {
        let schema = self.schema.attribute(&attribute.name);
        schema.is_some_and(|schema| schema.kind as i32 == attribute.r#type)
    }
}

impl Node for At<'_> {
    type Size = i64;

    fn schema(&self) -> &Schema {
        self.schema
    }

    fn size(&self, number: i64) -> i64 {
        number
    }

    fn number(&self, size: &i64) -> Option<i64> {
        Some(*size)
    }

    fn combine(&self, operation: Operation, a: &i64, b: &i64) -> Option<i64> {
        match operation {
            Operation::Add => a.checked_add(*b),
            Operation::Subtract => a.checked_sub(*b),
            Operation::Multiply => a.checked_mul(*b),
            Operation::Divide if *b > 0 => Some(a.div_euclid(*b)),
            Operation::Divide => None,
            Operation::Least => Some(*a.min(b)),
            Operation::Broadcast => match (*a, *b) {
                (1, size) | (size, 1) => Some(size),
                (a, b) => (a == b).then_some(a),
            },
        }
    }

    fn equal(&self, a: &i64, b: &i64) -> Option<bool> {
        Some(a == b)
    }

    fn text(&self, size: &i64) -> String {
        size.to_string()
    }

    fn inputs(&self) -> usize {
        self.node.input.len()
    }

    fn outputs(&self) -> usize {
        self.node.output.len()
    }

    fn given(&self, input: usize) -> bool {
        self.node
            .input
            .get(input)
            .is_some_and(|name| !name.is_empty())
    }

    fn shape(&self, input: usize) -> Option<Shape> {
        self.inputs.get(input)?.shape.clone()
    }

    fn elements(&self, input: usize) -> Option<Shape> {
        self.inputs.get(input)?.elements.clone()
    }

    fn int(&self, name: &str) -> Given<i64> {
        self.attribute(name, |a| Some(a.i))
    }

    fn ints(&self, name: &str) -> Given<Vec<i64>> {
        self.attribute(name, |a| Some(a.ints.clone()))
    }

    fn word(&self, name: &str) -> Given<String> {
        self.attribute(name, |a| String::from_utf8(a.s.to_vec()).ok())
    }
}
