//! Model-local functions: their names, opset imports and bodies, and that none calls itself, directly or through
//! others (calls are inlined).

use std::collections::{HashMap, HashSet};

use crate::proto::{AttributeProto, FunctionProto, NodeProto};
use crate::schema::Lookup;

use super::graph::{Body, check_body};
use super::place::{Part, Place};
use super::{Checker, attr, cycle, domain};

/// Domain, name and overload: what a call finds its function by.
pub(super) type Key<'a> = (&'a str, &'a str, &'a str);

/// The key of a function.
pub(super) fn key(function: &FunctionProto) -> Key<'_> {
    (
        domain(&function.domain),
        function.name.as_str(),
        function.overload.as_str(),
    )
}

/// Checks all functions of a model.
pub(super) fn check_functions<'a>(
    checker: &mut Checker<'a>,
    functions: &'a [FunctionProto],
    opsets: &HashMap<&'a str, i64>,
    root: &Place<'_>,
) {
    let mut by_key: HashMap<Key<'a>, usize> = HashMap::new();
    for (index, function) in functions.iter().enumerate() {
        let place = &root.inside(Part::Function(&function.domain, &function.name));
        let key = key(function);
        if function.name.is_empty() {
            checker.invalid(place, "the function has no name", "name the function");
        } else if by_key.insert(key, index).is_some() {
            checker.invalid(
                place,
                "the function is defined twice",
                "give functions of one name distinct overloads",
            );
        }
        check_function(checker, function, place);
        check_versions(checker, function, opsets, place);
    }
    check_recursion(checker, functions, &by_key, root);
}

fn check_function<'a>(checker: &mut Checker<'a>, function: &'a FunctionProto, place: &Place<'_>) {
    if function.opset_import.is_empty() && !function.node.is_empty() {
        checker.invalid(
            place,
            "opset_import is missing: expected the version of each operator set used",
            "the exporter must write the function's opset_import",
        );
    }
    checker.import_opsets(&function.opset_import, place);

    attr::check_attributes(checker, &function.attribute_proto, place);
    let with_default = function.attribute_proto.iter().map(|a| a.name.as_str());
    let parameters: HashSet<&str> = function
        .attribute
        .iter()
        .map(String::as_str)
        .chain(with_default)
        .collect();
    // Names twice among the defaults are reported as such already.
    let mut names: HashSet<&str> = function
        .attribute_proto
        .iter()
        .map(|a| a.name.as_str())
        .collect();
    for name in &function.attribute {
        if !names.insert(name) {
            checker.invalid(
                &place.inside(Part::Attribute(name)),
                "the function declares the attribute twice",
                "declare each attribute once",
            );
        }
    }
    checker.parameters = Some(parameters);
    check_body(
        checker,
        &Body::of_function(function),
        None,
        &mut Vec::new(),
        place,
    );
    checker.parameters = None;
}

/// A function may import other versions than the model, as long as its operators mean the same in both.
fn check_versions<'a>(
    checker: &mut Checker<'a>,
    function: &'a FunctionProto,
    opsets: &HashMap<&'a str, i64>,
    place: &Place<'_>,
) {
    for (index, node) in function.node.iter().enumerate() {
        let name = domain(&node.domain);
        let (Some(&outer), Some(&inner)) = (opsets.get(name), checker.opsets.get(name)) else {
            continue;
        };
        let since = |lookup: &Lookup| match lookup {
            Lookup::Found(schema) => Some(schema.since),
            Lookup::Deprecated(since) => Some(*since),
            _ => None,
        };
        let [outer_since, inner_since] =
            [outer, inner].map(|version| since(&checker.schema(name, &node.op_type, version)));
        if outer_since != inner_since {
            let shown = if name.is_empty() { "ai.onnx" } else { name };
            checker.invalid(
                &place.inside(Part::Node(node, index)),
                format!(
                    "the function imports opset {inner} of '{shown}', the model opset {outer}, and {} is not the same in both",
                    node.op_type
                ),
                "import the same version in the function",
            );
        }
    }
}

/// Faults for each group of functions that call one another in a circle.
fn check_recursion(
    checker: &mut Checker<'_>,
    functions: &[FunctionProto],
    by_key: &HashMap<Key<'_>, usize>,
    root: &Place<'_>,
) {
    let mut calls: Vec<Vec<usize>> = vec![Vec::new(); functions.len()];
    for (function, calls) in functions.iter().zip(&mut calls) {
        collect_calls(&function.node, by_key, calls);
        collect_calls_of_attributes(&function.attribute_proto, by_key, calls);
    }
    let component = cycle::components(&calls);
    let mut reported = HashSet::new();
    for (caller, targets) in calls.iter().enumerate() {
        for &callee in targets {
            if component.get(caller) != component.get(callee)
                || !reported.insert(component.get(caller))
            {
                continue;
            }
            let name = |index: usize| {
                functions
                    .get(index)
                    .map(|f| Part::Function(&f.domain, &f.name).to_string())
            };
            let way: Vec<String> = std::iter::once(caller)
                .chain(cycle::path(&calls, callee, caller).unwrap_or_default())
                .filter_map(name)
                .collect();
            let Some(function) = functions.get(caller) else {
                continue;
            };
            checker.invalid(
                &root.inside(Part::Function(&function.domain, &function.name)),
                format!(
                    "functions call one another in a circle: {}",
                    way.join(" → ")
                ),
                "ONNX functions must not be recursive",
            );
        }
    }
}

fn collect_calls(nodes: &[NodeProto], by_key: &HashMap<Key<'_>, usize>, calls: &mut Vec<usize>) {
    for node in nodes {
        let key = (
            domain(&node.domain),
            node.op_type.as_str(),
            node.overload.as_str(),
        );
        if let Some(&callee) = by_key.get(&key) {
            calls.push(callee);
        }
        collect_calls_of_attributes(&node.attribute, by_key, calls);
    }
}

fn collect_calls_of_attributes(
    attributes: &[AttributeProto],
    by_key: &HashMap<Key<'_>, usize>,
    calls: &mut Vec<usize>,
) {
    for attribute in attributes {
        for graph in attribute.g.iter().chain(&attribute.graphs) {
            collect_calls(&graph.node, by_key, calls);
        }
    }
}
