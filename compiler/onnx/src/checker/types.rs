//! Types of values (not shapes): those that an operator takes, and those that it gives.
//!
//! Most follow from the schema: a type variable stands for one type in a node, whichever input shows it first. What
//! attributes and bodies decide stands in [`stated`]. A type that is not known is not judged; the importer, which knows
//! shapes too, may still find a fault.

use std::collections::HashMap;

use crate::DataType;
use crate::proto::{AttributeProto, NodeProto};
use crate::schema::{Arity, Parameter, ParameterType, Schema, ValueType};

use super::Checker;
use super::place::Place;

/// A type, if it is known.
pub(super) type Known = Option<ValueType>;

/// The types of the outputs of a node's bodies, by attribute.
pub(super) type Bodies<'n> = Vec<(&'n str, Vec<Known>)>;

/// What the inputs of a body must be: as many, of these types. `None` for attributes of other operators.
pub(super) fn body_inputs(
    schema: &Schema,
    attribute: &str,
    inputs: &[Known],
) -> Option<Vec<Known>> {
    if !schema.domain.is_empty() {
        return None;
    }
    match (schema.name, attribute) {
        ("If", "then_branch" | "else_branch") => Some(Vec::new()),
        ("Loop", "body") => {
            let mut given = vec![tensor(DataType::Int64), tensor(DataType::Bool)];
            given.extend(inputs.iter().skip(2).cloned());
            Some(given)
        }
        ("Scan", "body") => {
            let lengths = usize::from(schema.since < 9);
            Some(inputs.iter().skip(lengths).cloned().collect())
        }
        ("SequenceMap", "body") => {
            let items = inputs.iter().map(|ty| match ty {
                Some(ValueType::Sequence(item)) => Some((**item).clone()),
                other => other.clone(),
            });
            Some(items.collect())
        }
        _ => None,
    }
}

/// Judges the types of a node's inputs, and gives those of its outputs.
pub(super) fn infer(
    checker: &mut Checker<'_>,
    schema: &Schema,
    node: &NodeProto,
    inputs: &[Known],
    bodies: &Bodies<'_>,
    place: &Place<'_>,
) -> Vec<Known> {
    let mut bound = Bound::default();
    for (index, ty) in inputs.iter().enumerate() {
        if let (Some(parameter), Some(ty)) = (schema.input(index), ty) {
            judge(
                checker,
                schema,
                parameter,
                ("input", index),
                ty,
                &mut bound,
                place,
            );
        }
    }
    let stated = stated(schema, node, inputs, bodies).unwrap_or_default();
    check_bodies(checker, schema, node, inputs, bodies, place);
    let mut outputs = Vec::with_capacity(node.output.len());
    for index in 0..node.output.len() {
        let Some(parameter) = schema.output(index) else {
            break;
        };
        let ty = match stated.get(index).cloned().flatten() {
            Some(ty) => Some(ty),
            None => schema
                .types(parameter)
                .only()
                .or_else(|| match parameter.ty {
                    ParameterType::Variable(variable) if homogeneous(parameter) => {
                        bound.0.get(&variable).map(|(ty, ..)| ty.clone())
                    }
                    _ => None,
                }),
        };
        if let Some(ty) = &ty {
            judge(
                checker,
                schema,
                parameter,
                ("output", index),
                ty,
                &mut bound,
                place,
            );
        }
        outputs.push(ty);
    }
    outputs
}

/// The types that variables stand for, each with the parameter that showed it.
#[derive(Default)]
struct Bound(HashMap<usize, (ValueType, &'static str, usize)>);

fn homogeneous(parameter: &Parameter) -> bool {
    !matches!(
        parameter.arity,
        Arity::Variadic {
            homogeneous: false,
            ..
        }
    )
}

/// Whether a parameter takes a type, which its variable must agree with.
fn judge(
    checker: &mut Checker<'_>,
    schema: &Schema,
    parameter: &Parameter,
    (kind, index): (&'static str, usize),
    ty: &ValueType,
    bound: &mut Bound,
    place: &Place<'_>,
) {
    let allowed = schema.types(parameter);
    if !allowed.is_empty() && !allowed.contains(ty) {
        checker.invalid(
            place,
            format!(
                "{kind} {index} ('{}') is {ty}, expected {allowed}",
                parameter.name
            ),
            format!(
                "{} of opset {} does not take that type",
                schema.name, schema.since
            ),
        );
        return;
    }
    let ParameterType::Variable(variable) = parameter.ty else {
        return;
    };
    if !homogeneous(parameter) {
        return;
    }
    match bound.0.get(&variable) {
        None => {
            bound.0.insert(variable, (ty.clone(), kind, index));
        }
        Some((other, ..)) if other == ty => {}
        Some((other, other_kind, other_index)) => checker.invalid(
            place,
            format!(
                "{kind} {index} ('{}') is {ty}, but {other_kind} {other_index} is {other}: expected one type",
                parameter.name
            ),
            "insert a Cast",
        ),
    }
}

/// The number of what bodies give must be the number of what the node gives.
fn check_bodies(
    checker: &mut Checker<'_>,
    schema: &Schema,
    node: &NodeProto,
    inputs: &[Known],
    bodies: &Bodies<'_>,
    place: &Place<'_>,
) {
    if !schema.domain.is_empty() {
        return;
    }
    let extra = match schema.name {
        "If" | "Scan" | "SequenceMap" => 0,
        "Loop" => 1,
        _ => return,
    };
    for (name, outputs) in bodies {
        let expected = node.output.len().saturating_add(extra);
        if outputs.len() != expected {
            checker.invalid(
                place,
                format!(
                    "'{name}' has {} outputs, expected {expected} for a node with {}",
                    outputs.len(),
                    node.output.len()
                ),
                "",
            );
        }
    }
    // Both branches, or the carried value and what the body makes of it, must be of one type.
    let pairs: Vec<(String, Known, Known)> = match (schema.name, bodies.as_slice()) {
        ("If", [(one, first), (other, second)]) => first
            .iter()
            .zip(second)
            .enumerate()
            .map(|(at, (a, b))| {
                (
                    format!("output {at} of '{one}' and '{other}'"),
                    a.clone(),
                    b.clone(),
                )
            })
            .collect(),
        ("Loop", [(_, outputs)]) => inputs
            .iter()
            .skip(2)
            .zip(outputs.iter().skip(1))
            .enumerate()
            .map(|(at, (a, b))| {
                (
                    format!("carried value {at} and the body's output for it"),
                    a.clone(),
                    b.clone(),
                )
            })
            .collect(),
        _ => Vec::new(),
    };
    for (what, a, b) in pairs {
        // A carried sequence may begin as an optional one.
        if let (Some(a), Some(b)) = (a, b)
            && a != b
            && (schema.name != "Loop" || a.tensor().is_some() && b.tensor().is_some())
        {
            checker.invalid(
                place,
                format!("{what} differ in type: {a} and {b}"),
                "insert a Cast",
            );
        }
    }
}

fn tensor(dtype: DataType) -> Known {
    Some(ValueType::Tensor(dtype))
}

/// An attribute: `Err` if it is given by a function's attribute, and so not known.
fn attribute<'n>(node: &'n NodeProto, name: &str) -> Result<Option<&'n AttributeProto>, Unknown> {
    match node.attribute.iter().find(|a| a.name == name) {
        Some(a) if !a.ref_attr_name.is_empty() => Err(Unknown),
        found => Ok(found),
    }
}

/// Something that is only known at a function's call.
struct Unknown;

/// The element type that an attribute names; `default` if the attribute is not there.
fn named(node: &NodeProto, name: &str, default: Known) -> Result<Known, Unknown> {
    Ok(match attribute(node, name)? {
        None => default,
        Some(a) => i32::try_from(a.i)
            .ok()
            .and_then(DataType::from_wire)
            .map(ValueType::Tensor),
    })
}

/// The types of outputs that do not follow from type variables.
fn stated(
    schema: &Schema,
    node: &NodeProto,
    inputs: &[Known],
    bodies: &Bodies<'_>,
) -> Option<Vec<Known>> {
    let result = match schema.domain {
        "" => stated_of_onnx(schema, node, inputs, bodies),
        "ai.onnx.ml" => stated_of_ml(schema, node, inputs),
        _ => return None,
    };
    result.ok()
}

fn stated_of_onnx(
    schema: &Schema,
    node: &NodeProto,
    inputs: &[Known],
    bodies: &Bodies<'_>,
) -> Result<Vec<Known>, Unknown> {
    let input = |index: usize| inputs.get(index).cloned().flatten();
    let float = tensor(DataType::Float);
    let one = match schema.name {
        "Cast" if schema.since < 6 => match attribute(node, "to")? {
            Some(a) => std::str::from_utf8(&a.s)
                .ok()
                .and_then(|name| ValueType::parse(&name.to_ascii_lowercase())),
            None => None,
        },
        "Cast" | "BitCast" => named(node, "to", None)?,
        "Constant" => constant(node)?,
        "ConstantOfShape" => match attribute(node, "value")? {
            Some(a) => a.t.as_ref().and_then(|t| element(t.data_type)),
            None => float,
        },
        "EyeLike" | "RandomNormalLike" | "RandomUniformLike" | "Bernoulli" => {
            named(node, "dtype", input(0))?
        }
        "RandomNormal" | "RandomUniform" => named(node, "dtype", float)?,
        "Multinomial" => named(node, "dtype", tensor(DataType::Int32))?,
        "BlackmanWindow" | "HammingWindow" | "HannWindow" | "MelWeightMatrix" => {
            named(node, "output_datatype", float)?
        }
        "QuantizeLinear" => match node.input.get(2).filter(|name| !name.is_empty()) {
            Some(_) => input(2),
            None => match attribute(node, "output_dtype")? {
                Some(a) if a.i != 0 => named(node, "output_dtype", None)?,
                _ => tensor(DataType::Uint8),
            },
        },
        "DequantizeLinear" if schema.since >= 23 => match attribute(node, "output_dtype")? {
            Some(a) if a.i != 0 => named(node, "output_dtype", None)?,
            _ => input(1),
        },
        "LayerNormalization" => {
            let stash = named(node, "stash_type", float)?;
            return Ok(vec![None, stash.clone(), stash]);
        }
        "SequenceEmpty" => sequence(named(node, "dtype", float)?),
        "SequenceConstruct" | "SplitToSequence" => sequence(input(0)),
        "SequenceAt" | "ConcatFromSequence" => match input(0) {
            Some(ValueType::Sequence(inner)) => Some(*inner),
            _ => None,
        },
        "Optional" => match attribute(node, "type")? {
            Some(a) if node.input.is_empty() => a.tp.as_ref().and_then(ValueType::of_proto),
            _ => input(0),
        }
        .map(|inner| ValueType::Optional(Box::new(inner))),
        "OptionalGetElement" => match input(0) {
            Some(ValueType::Optional(inner)) => Some(*inner),
            other => other,
        },
        "If" => {
            return Ok(bodies
                .first()
                .map(|(_, types)| types.clone())
                .unwrap_or_default());
        }
        "Loop" => {
            let body = bodies
                .first()
                .map_or(&[][..], |(_, types)| types.as_slice());
            let carried = inputs.len().saturating_sub(2);
            let from_body = body.iter().skip(1).enumerate();
            return Ok(from_body
                .map(|(at, ty)| match input(at.saturating_add(2)) {
                    Some(given) if at < carried && given.tensor().is_some() => Some(given),
                    _ => ty.clone(),
                })
                .collect());
        }
        "Scan" => {
            return Ok(bodies
                .first()
                .map(|(_, types)| types.clone())
                .unwrap_or_default());
        }
        "SequenceMap" => {
            let items = bodies.first().map(|(_, types)| types.clone());
            return Ok(items.into_iter().flatten().map(sequence).collect());
        }
        _ => None,
    };
    Ok(vec![one])
}

fn element(number: i32) -> Known {
    DataType::from_wire(number).map(ValueType::Tensor)
}

fn sequence(inner: Known) -> Known {
    inner.map(|inner| ValueType::Sequence(Box::new(inner)))
}

fn constant(node: &NodeProto) -> Result<Known, Unknown> {
    if let Some(a) = attribute(node, "value")? {
        return Ok(a.t.as_ref().and_then(|t| element(t.data_type)));
    }
    if let Some(a) = attribute(node, "sparse_value")? {
        let values = a.sparse_tensor.as_ref().and_then(|s| s.values.as_ref());
        let dtype = values.and_then(|v| DataType::from_wire(v.data_type));
        // The output is the dense tensor.
        return Ok(dtype.map(ValueType::Tensor));
    }
    for (name, dtype) in [
        ("value_float", DataType::Float),
        ("value_floats", DataType::Float),
        ("value_int", DataType::Int64),
        ("value_ints", DataType::Int64),
        ("value_string", DataType::String),
        ("value_strings", DataType::String),
    ] {
        if attribute(node, name)?.is_some() {
            return Ok(tensor(dtype));
        }
    }
    Ok(None)
}

fn stated_of_ml(
    schema: &Schema,
    node: &NodeProto,
    inputs: &[Known],
) -> Result<Vec<Known>, Unknown> {
    let labels = |name: &str| -> Result<Known, Unknown> {
        let texts = attribute(node, name)?.is_some_and(|a| !a.strings.is_empty());
        Ok(tensor(if texts {
            DataType::String
        } else {
            DataType::Int64
        }))
    };
    let one = match schema.name {
        "LinearClassifier" => labels("classlabels_strings")?,
        "SVMClassifier" | "TreeEnsembleClassifier" => labels("classlabels_strings")?,
        "ZipMap" => {
            let key = labels("classlabels_strings")?
                .as_ref()
                .and_then(ValueType::tensor);
            sequence(
                key.map(|key| ValueType::Map(key, Box::new(ValueType::Tensor(DataType::Float)))),
            )
        }
        "CategoryMapper" => match inputs.first().cloned().flatten() {
            Some(ValueType::Tensor(DataType::String)) => tensor(DataType::Int64),
            Some(_) => tensor(DataType::String),
            None => None,
        },
        "DictVectorizer" => match inputs.first().cloned().flatten() {
            Some(ValueType::Map(_, value)) => Some(*value),
            _ => None,
        },
        "LabelEncoder" => label_encoder(node)?,
        _ => None,
    };
    Ok(vec![one])
}

/// The type of the values that keys are mapped to.
fn label_encoder(node: &NodeProto) -> Result<Known, Unknown> {
    if let Some(a) = attribute(node, "values_tensor")? {
        return Ok(a.t.as_ref().and_then(|t| element(t.data_type)));
    }
    for (name, dtype) in [
        ("values_strings", DataType::String),
        ("values_int64s", DataType::Int64),
        ("values_floats", DataType::Float),
    ] {
        if attribute(node, name)?.is_some() {
            return Ok(tensor(dtype));
        }
    }
    Ok(None)
}
