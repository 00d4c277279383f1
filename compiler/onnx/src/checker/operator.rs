//! Whether a node suits its operator: the operator exists at the version imported, and counts of inputs and outputs,
//! presence of required ones, and names and types of attributes are those of its schema.
//!
//! An operator that the table does not know (a domain of someone else's, a model-local function, an operator of the
//! application) is taken as it is. Types of values are for `types`.

use std::rc::Rc;

use crate::proto::attribute_proto::AttributeType;
use crate::proto::{AttributeProto, NodeProto};
use crate::schema::{self, Arity, Lookup, Parameter, Schema};

use super::place::{Part, Place};
use super::{Checker, domain};

/// Checks a node against its schema; gives the schema if there is one that it may be judged by.
pub(super) fn check_operator<'a>(
    checker: &mut Checker<'a>,
    node: &'a NodeProto,
    place: &Place<'_>,
) -> Option<Rc<Lookup>> {
    if node.input.is_empty() && node.output.is_empty() {
        let hint = "remove the node, or connect it";
        checker.invalid(place, "the node has neither inputs nor outputs", hint);
    }
    let name = domain(&node.domain);
    let function = (name, node.op_type.as_str(), node.overload.as_str());
    if checker.functions.contains(&function) || (checker.rules.own)(name, &node.op_type) {
        return None;
    }
    let version = *checker.opsets.get(name).filter(|version| **version >= 1)?;
    let lookup = checker.schema(name, &node.op_type, version);
    let shown = if name.is_empty() { "ai.onnx" } else { name };
    let convert = "convert the model with onnx.version_converter";
    match &*lookup {
        Lookup::Found(schema) => {
            check_counts(checker, schema, node, place);
            check_attributes(checker, schema, node, place);
            check_constant(checker, schema, node, place);
            return Some(lookup);
        }
        Lookup::Deprecated(since) => checker.invalid(
            place,
            format!(
                "{} must not be used since opset {since} of '{shown}' (the model imports {version})",
                node.op_type
            ),
            convert,
        ),
        Lookup::Later(since) => checker.invalid(
            place,
            format!(
                "{} is not defined at opset {version} of '{shown}': it came with opset {since}",
                node.op_type
            ),
            convert,
        ),
        Lookup::NoOperator if node.op_type.is_empty() => {}
        Lookup::NoOperator => checker.invalid(
            place,
            format!("'{shown}' defines no operator '{}'", node.op_type),
            "is it a custom operator without a domain?",
        ),
        Lookup::NoDomain => {}
    }
    None
}

fn check_counts(checker: &mut Checker<'_>, schema: &Schema, node: &NodeProto, place: &Place<'_>) {
    for (kind, names, parameters) in [
        ("input", &node.input, &schema.inputs),
        ("output", &node.output, &schema.outputs),
    ] {
        let (least, most) = schema::counts(parameters);
        let found = names.len();
        if found < least || found > most {
            let expected = match (least, most) {
                (least, usize::MAX) => format!("{least} or more"),
                (least, most) if least == most => format!("{least}"),
                (least, most) => format!("{least} to {most}"),
            };
            checker.invalid(
                place,
                format!(
                    "{} takes {expected} {kind}s ({}), found {found}",
                    schema.name,
                    listed(parameters)
                ),
                "",
            );
            continue;
        }
        for (index, name) in names.iter().enumerate() {
            let Some(parameter) = parameters.get(index) else {
                break;
            };
            if name.is_empty() && parameter.arity == Arity::Single {
                checker.invalid(
                    place,
                    format!(
                        "{kind} {index} ('{}') has no name, but is required",
                        parameter.name
                    ),
                    "only optional ones can be left out",
                );
            }
        }
    }
    let found = node.output.len();
    if !schema.output_counts.is_empty() && !schema.output_counts.contains(&found) {
        let counts: Vec<String> = schema.output_counts.iter().map(usize::to_string).collect();
        let message = format!(
            "{} has {} outputs, found {found}",
            schema.name,
            counts.join(" or ")
        );
        checker.invalid(place, message, "");
    }
}

/// The names of parameters, optional ones in brackets.
fn listed(parameters: &[Parameter]) -> String {
    let names = parameters.iter().map(|p| match p.arity {
        Arity::Single => p.name.to_string(),
        Arity::Optional => format!("[{}]", p.name),
        Arity::Variadic { .. } => format!("{}…", p.name),
    });
    let names: Vec<String> = names.collect();
    names.join(", ")
}

fn check_attributes(
    checker: &mut Checker<'_>,
    schema: &Schema,
    node: &NodeProto,
    place: &Place<'_>,
) {
    for attribute in &node.attribute {
        let place = &place.inside(Part::Attribute(&attribute.name));
        let Some(expected) = schema.attribute(&attribute.name) else {
            // Two underscores mark what is internal to a producer.
            if !schema.open && !attribute.name.starts_with("__") && !attribute.name.is_empty() {
                checker.invalid(
                    place,
                    format!(
                        "{} has no such attribute at opset {}",
                        schema.name, schema.since
                    ),
                    known_attributes(schema),
                );
            }
            continue;
        };
        // No type at all is reported where values are looked at.
        if attribute.r#type != expected.kind as i32
            && attribute.r#type != AttributeType::Undefined as i32
        {
            checker.invalid(
                place,
                format!(
                    "the attribute is of type {}, expected {}",
                    kind_name(attribute),
                    expected.kind.as_str_name()
                ),
                "export the model again",
            );
        }
    }
    for expected in schema.attributes.iter().filter(|a| a.required) {
        if !node.attribute.iter().any(|a| a.name == expected.name) {
            checker.invalid(
                place,
                format!(
                    "the attribute '{}' is missing, which is required",
                    expected.name
                ),
                format!("{} needs it", schema.name),
            );
        }
    }
}

/// A constant has one value, whatever the attribute that states it.
fn check_constant(checker: &mut Checker<'_>, schema: &Schema, node: &NodeProto, place: &Place<'_>) {
    if (schema.domain, schema.name) != ("", "Constant") {
        return;
    }
    let values = node
        .attribute
        .iter()
        .filter(|a| schema.attribute(&a.name).is_some());
    let found: Vec<String> = values.map(|a| format!("'{}'", a.name)).collect();
    if found.len() != 1 {
        checker.invalid(
            place,
            match found.is_empty() {
                true => "the constant has no value".to_string(),
                false => format!(
                    "the constant has {} values: {}",
                    found.len(),
                    found.join(", ")
                ),
            },
            "give one of the attributes that state a value",
        );
    }
}

fn known_attributes(schema: &Schema) -> String {
    if schema.attributes.is_empty() {
        return format!("{} has no attributes", schema.name);
    }
    let names: Vec<&str> = schema.attributes.iter().map(|a| a.name).collect();
    format!("it has {}", names.join(", "))
}

fn kind_name(attribute: &AttributeProto) -> String {
    match AttributeType::try_from(attribute.r#type) {
        Ok(kind) => kind.as_str_name().to_string(),
        Err(_) => attribute.r#type.to_string(),
    }
}
