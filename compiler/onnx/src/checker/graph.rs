//! The body of a graph or function: every value is defined once and before it is used.
//!
//! Bodies are walked with a stack of [`Scope`]s, the outermost first. A name is looked for among the values that are
//! visible so far, from the inside out. If it is not there but some node later in one of the scopes defines it, the
//! use is *late*: a dependence of the node at hand in that scope (perhaps through a subgraph) on a later node. When a
//! scope is done its late uses are sorted out: those on a cycle are a cycle's fault, the rest are mere disorder.
//!
//! A node output must not have the name of a value visible around it. A subgraph's inputs and initializers may, and
//! hide it.

use std::collections::{HashMap, HashSet};

use crate::DataType;
use crate::proto::{
    FunctionProto, GraphProto, NodeProto, SparseTensorProto, TensorProto, TypeProto, ValueInfoProto,
};

use crate::schema::{Lookup, ValueType};

use super::place::{Part, Place};
use super::shapes::{self, Extent};
use super::types::{Bodies, Known};
use super::{Checker, attr, cycle, operator, types};

/// How many nodes of a cycle are named.
const NAMED: usize = 12;

/// What graphs and functions have in common.
pub(super) struct Body<'a> {
    inputs: Vec<&'a str>,
    outputs: Vec<&'a str>,
    nodes: &'a [NodeProto],
    initializers: &'a [TensorProto],
    sparse_initializers: &'a [SparseTensorProto],
    input_infos: &'a [ValueInfoProto],
    output_infos: &'a [ValueInfoProto],
    value_infos: &'a [ValueInfoProto],
    /// The model's graph: its inputs need types, its outputs distinct names.
    main: bool,
    function: bool,
}

impl<'a> Body<'a> {
    pub(super) fn of_graph(graph: &'a GraphProto, main: bool) -> Body<'a> {
        Body {
            inputs: graph.input.iter().map(|v| v.name.as_str()).collect(),
            outputs: graph.output.iter().map(|v| v.name.as_str()).collect(),
            nodes: &graph.node,
            initializers: &graph.initializer,
            sparse_initializers: &graph.sparse_initializer,
            input_infos: &graph.input,
            output_infos: &graph.output,
            value_infos: &graph.value_info,
            main,
            function: false,
        }
    }

    pub(super) fn of_function(function: &'a FunctionProto) -> Body<'a> {
        Body {
            inputs: function.input.iter().map(String::as_str).collect(),
            outputs: function.output.iter().map(String::as_str).collect(),
            nodes: &function.node,
            initializers: &[],
            sparse_initializers: &[],
            input_infos: &[],
            output_infos: &[],
            value_infos: &function.value_info,
            main: false,
            function: true,
        }
    }
}

/// A body that is being walked.
pub(super) struct Scope<'a> {
    /// Values defined so far.
    visible: HashMap<&'a str, Known>,
    /// The types that the body states for its values.
    declared: HashMap<&'a str, ValueType>,
    /// What is known of the shapes of the visible ones; nothing where shapes are not judged.
    extents: HashMap<&'a str, Extent>,
    /// The types that the body states, with their shapes, where they count.
    stated: HashMap<&'a str, &'a TypeProto>,
    /// The first node that defines each output, the later ones included.
    producers: HashMap<&'a str, usize>,
    /// The node at hand; the number of nodes while outputs are looked up.
    current: usize,
    /// Which nodes use a value of each node.
    edges: Vec<Vec<usize>>,
    /// In the order found, each once.
    late: Vec<Late<'a>>,
    late_seen: HashSet<Late<'a>>,
}

/// A use of a value before its definition.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Late<'a> {
    user: usize,
    producer: usize,
    name: &'a str,
}

/// Checks a body inside the scopes around it. `given`: the types of the inputs that it is run with. Gives the types of
/// its outputs.
pub(super) fn check_body<'a>(
    checker: &mut Checker<'a>,
    body: &Body<'a>,
    given: Option<&[Known]>,
    scopes: &mut Vec<Scope<'a>>,
    place: &Place<'_>,
) -> Vec<Known> {
    let mut producers = HashMap::new();
    for (index, node) in body.nodes.iter().enumerate() {
        for name in &node.output {
            producers.entry(name.as_str()).or_insert(index);
        }
    }
    let declared = declared(checker, body, place);
    check_given(checker, body, given, place);
    scopes.push(Scope {
        visible: define_inputs(checker, body, given, &declared, place),
        declared,
        extents: extents(checker, body),
        stated: stated(checker, body),
        producers,
        current: 0,
        edges: vec![Vec::new(); body.nodes.len()],
        late: Vec::new(),
        late_seen: HashSet::new(),
    });
    check_types(checker, body, place);
    for (index, node) in body.nodes.iter().enumerate() {
        if let Some(scope) = scopes.last_mut() {
            scope.current = index;
        }
        check_node(
            checker,
            node,
            scopes,
            &place.inside(Part::Node(node, index)),
        );
    }
    check_outputs(checker, body, scopes, place);
    let Some(scope) = scopes.pop() else {
        return Vec::new();
    };
    report_late(checker, body, &scope, place);
    if body.main {
        let extents = scope.extents.iter();
        let shapes =
            extents.filter_map(|(name, extent)| Some((name.to_string(), extent.shape.clone()?)));
        checker.shapes = shapes.collect();
    }
    let outputs = body.outputs.iter();
    outputs
        .map(|name| scope.visible.get(name).cloned().flatten())
        .collect()
}

/// The types that a body states for its values; one value must not have two.
fn declared<'a>(
    checker: &mut Checker<'_>,
    body: &Body<'a>,
    place: &Place<'_>,
) -> HashMap<&'a str, ValueType> {
    let mut declared: HashMap<&str, ValueType> = HashMap::new();
    let lists = [body.input_infos, body.output_infos, body.value_infos];
    for info in lists.into_iter().flatten() {
        let Some(ty) = info.r#type.as_ref().and_then(ValueType::of_proto) else {
            continue;
        };
        match declared.get(info.name.as_str()) {
            Some(other) if *other != ty => checker.invalid(
                &place.inside(Part::Value("value", &info.name)),
                format!("the value is declared as {other} and as {ty}"),
                "declare each value once",
            ),
            Some(_) => {}
            None => {
                declared.insert(&info.name, ty);
            }
        }
    }
    declared
}

/// What is known of the shapes of the values before the first node.
fn extents<'a>(checker: &Checker<'a>, body: &Body<'a>) -> HashMap<&'a str, Extent> {
    let mut extents = HashMap::new();
    if body.main {
        for info in body.input_infos {
            if let Some(ty) = &info.r#type {
                extents.insert(info.name.as_str(), Extent::of_type(ty, checker.rules.freed));
            }
        }
    }
    if body.main || checker.rules.full {
        // An initializer that is an input too is only a default, but before version 4 of the format.
        let default = |name: &str| checker.ir_version >= 4 && body.inputs.contains(&name);
        for tensor in body.initializers {
            if !(body.main && default(&tensor.name)) {
                extents.insert(&tensor.name, Extent::of_tensor(checker, tensor));
            }
        }
    }
    extents
}

/// The types that a body states for what its nodes give, where they count.
fn stated<'a>(checker: &Checker<'_>, body: &Body<'a>) -> HashMap<&'a str, &'a TypeProto> {
    let count = checker.rules.full && !checker.rules.freed && !body.function;
    let infos = body.value_infos.iter().chain(body.output_infos);
    let infos = infos.filter(|_| count);
    infos
        .filter_map(|info| Some((info.name.as_str(), info.r#type.as_ref()?)))
        .collect()
}

/// A body must take what it is run with.
fn check_given(
    checker: &mut Checker<'_>,
    body: &Body<'_>,
    given: Option<&[Known]>,
    place: &Place<'_>,
) {
    let Some(given) = given else {
        return;
    };
    // Before version 4 initializers were inputs too.
    let required = match checker.ir_version {
        ..4 => {
            let initialized = |name: &&&str| body.initializers.iter().any(|t| t.name == ***name);
            body.inputs.iter().filter(|name| !initialized(name)).count()
        }
        _ => body.inputs.len(),
    };
    if given.len() < required || given.len() > body.inputs.len() {
        checker.invalid(
            place,
            format!(
                "the graph has {required} inputs, but its node runs it with {}",
                given.len()
            ),
            "give the graph as many inputs as the node asks for",
        );
    }
}

/// The type of a value that is defined: as found, which must be as declared, or else as declared.
fn settle(
    checker: &mut Checker<'_>,
    found: Known,
    declared: Option<&ValueType>,
    name: &str,
    place: &Place<'_>,
) -> Known {
    if let (Some(found), Some(declared)) = (&found, declared)
        && found != declared
    {
        checker.invalid(
            place,
            format!("'{name}' is {found}, but is declared as {declared}"),
            "correct the declaration, or insert a Cast",
        );
    }
    found.or_else(|| declared.cloned())
}

/// The values that are there before the first node.
fn define_inputs<'a>(
    checker: &mut Checker<'a>,
    body: &Body<'a>,
    given: Option<&[Known]>,
    declared: &HashMap<&'a str, ValueType>,
    place: &Place<'_>,
) -> HashMap<&'a str, Known> {
    let mut inputs = HashMap::new();
    for (index, name) in body.inputs.iter().enumerate() {
        let place = &place.inside(Part::Value("input", name));
        let found = given.and_then(|given| given.get(index).cloned().flatten());
        let ty = settle(checker, found, declared.get(name), name, place);
        if name.is_empty() {
            checker.invalid(place, "an input has no name", "name the input");
        } else if inputs.insert(*name, ty).is_some() {
            checker.invalid(
                place,
                "the input is listed twice",
                "give inputs distinct names",
            );
        }
    }
    let mut initializers = HashMap::new();
    let sparse = body.sparse_initializers.iter().map(|sparse| {
        let name = sparse.values.as_ref().map_or("", |v| v.name.as_str());
        (name, None, Some(sparse))
    });
    let dense = body
        .initializers
        .iter()
        .map(|t| (t.name.as_str(), Some(t), None));
    for (name, dense, sparse) in dense.chain(sparse) {
        let place = &place.inside(Part::Value("initializer", name));
        // A sparse initializer stands for the dense tensor.
        let values = dense.or(sparse.and_then(|s: &SparseTensorProto| s.values.as_ref()));
        let found = values.and_then(|t| DataType::from_wire(t.data_type).map(ValueType::Tensor));
        let ty = settle(checker, found, declared.get(name), name, place);
        if name.is_empty() {
            checker.invalid(place, "an initializer has no name", "name the initializer");
        } else if initializers.insert(name, ty).is_some() {
            let message = "the initializer is given twice";
            checker.invalid(place, message, "give initializers distinct names");
        } else if given.is_some() && checker.ir_version >= 4 && inputs.contains_key(name) {
            let message = "the initializer is an input of the subgraph too";
            checker.invalid(place, message, "give it another name");
        } else if checker.ir_version == 3 && body.main && !inputs.contains_key(name) {
            checker.invalid(
                place,
                "the initializer is no graph input, as ir_version 3 asks for",
                "set ir_version to 4, or list the initializer as an input",
            );
        }
        if let Some(tensor) = dense {
            checker.tensor(tensor, place);
        }
        if let Some(sparse) = sparse {
            checker.sparse_tensor(sparse, place);
        }
    }
    inputs.extend(initializers);
    inputs
}

/// Types of inputs, outputs and inner values, where they are given; the model's inputs need one.
fn check_types<'a>(checker: &mut Checker<'a>, body: &Body<'a>, place: &Place<'_>) {
    for (kind, infos) in [
        ("input", body.input_infos),
        ("output", body.output_infos),
        ("value", body.value_infos),
    ] {
        for info in infos {
            let place = &place.inside(Part::Value(kind, &info.name));
            match &info.r#type {
                // Inner types are hints, and often left half empty.
                Some(r#type) if r#type.value.is_some() && body.main && kind != "value" => {
                    attr::check_type(checker, r#type, place);
                    if checker.rules.full {
                        attr::check_has_shape(checker, r#type, place);
                    }
                }
                Some(r#type) if r#type.value.is_some() => {}
                _ if body.main && (kind == "input" || checker.rules.full && kind == "output") => {
                    checker.invalid(
                        place,
                        format!("the {kind} has no type"),
                        format!("give the {kind} a type"),
                    );
                }
                _ => {}
            }
        }
    }
}

fn check_node<'a>(
    checker: &mut Checker<'a>,
    node: &'a NodeProto,
    scopes: &mut Vec<Scope<'a>>,
    place: &Place<'_>,
) {
    checker.node(node, place);
    for name in node.input.iter().filter(|name| !name.is_empty()) {
        check_use(checker, name, scopes, place);
    }
    let lookup = operator::check_operator(checker, node, place);
    let schema = match lookup.as_deref() {
        Some(Lookup::Found(schema)) => Some(schema),
        _ => None,
    };
    let inputs: Vec<Known> = node
        .input
        .iter()
        .map(|name| type_of(scopes, name))
        .collect();
    let mut bodies: Bodies<'_> = Vec::new();
    for attribute in &node.attribute {
        let place = &place.inside(Part::Attribute(&attribute.name));
        for graph in attribute.g.iter().chain(&attribute.graphs) {
            let place = if attribute.graphs.is_empty() {
                place
            } else {
                &place.inside(Part::Graph(&graph.name))
            };
            let given = schema.and_then(|s| types::body_inputs(s, &attribute.name, &inputs));
            let body = Body::of_graph(graph, false);
            let outputs = check_body(checker, &body, given.as_deref(), scopes, place);
            bodies.push((&attribute.name, outputs));
        }
    }
    let outputs = match schema {
        Some(schema) => types::infer(checker, schema, node, &inputs, &bodies, place),
        None => Vec::new(),
    };
    let judged = checker.rules.full || scopes.len() == 1 && checker.parameters.is_none();
    let extents = match schema.filter(|_| judged) {
        Some(schema) => {
            let inputs = node.input.iter().map(|name| extent_of(scopes, name));
            let inputs: Vec<Extent> = inputs.collect();
            shapes::infer(checker, schema, node, &inputs, place)
        }
        None => Vec::new(),
    };
    let mut extents = extents.into_iter();
    for (index, name) in node.output.iter().enumerate() {
        let extent = extents.next().unwrap_or_default();
        if name.is_empty() {
            continue;
        }
        let Some((scope, around)) = scopes.split_last_mut() else {
            return;
        };
        let found = outputs.get(index).cloned().flatten();
        let ty = settle(
            checker,
            found,
            scope.declared.get(name.as_str()),
            name,
            place,
        );
        let stated = scope.stated.get(name.as_str()).copied();
        let extent = shapes::settle(checker, extent, stated, name, place);
        scope.extents.insert(name, extent);
        if around
            .iter()
            .any(|outer| outer.visible.contains_key(name.as_str()))
        {
            checker.invalid(
                place,
                format!("output '{name}' has the name of a value of a surrounding graph"),
                "give every value a name of its own",
            );
        }
        if scope.visible.insert(name, ty).is_some() {
            checker.invalid(
                place,
                format!("output '{name}' is defined a second time"),
                "every value must be defined once: by an input, an initializer or one node",
            );
        }
    }
}

/// The type of a name, from the inside out.
fn type_of(scopes: &[Scope<'_>], name: &str) -> Known {
    let mut scopes = scopes.iter().rev();
    scopes.find_map(|scope| scope.visible.get(name))?.clone()
}

/// What is known of the shape of a name.
fn extent_of(scopes: &[Scope<'_>], name: &str) -> Extent {
    let mut scopes = scopes.iter().rev();
    let scope = scopes.find(|scope| scope.visible.contains_key(name));
    let extent = scope.and_then(|scope| scope.extents.get(name));
    extent.cloned().unwrap_or_default()
}

/// Looks a used name up; a fault if it is nowhere.
fn check_use<'a>(
    checker: &mut Checker<'a>,
    name: &'a str,
    scopes: &mut [Scope<'a>],
    place: &Place<'_>,
) {
    let visible = scopes
        .iter()
        .rposition(|scope| scope.visible.contains_key(name));
    if let Some(scope) = visible.and_then(|at| scopes.get_mut(at)) {
        if let Some(&producer) = scope.producers.get(name)
            && let Some(users) = scope.edges.get_mut(producer)
        {
            users.push(scope.current);
        }
        return;
    }
    let later = scopes.iter_mut().rev().find_map(|scope| {
        let producer = *scope.producers.get(name)?;
        Some((scope, producer))
    });
    let Some((scope, producer)) = later else {
        checker.invalid(
            place,
            format!("input '{name}' is not defined"),
            "it must be a graph input, an initializer or the output of an earlier node",
        );
        return;
    };
    let user = scope.current;
    if let Some(users) = scope.edges.get_mut(producer) {
        users.push(user);
    }
    let late = Late {
        user,
        producer,
        name,
    };
    if scope.late_seen.insert(late) {
        scope.late.push(late);
    }
}

fn check_outputs<'a>(
    checker: &mut Checker<'a>,
    body: &Body<'a>,
    scopes: &mut [Scope<'a>],
    place: &Place<'_>,
) {
    let mut names = HashSet::new();
    for name in &body.outputs {
        let place = &place.inside(Part::Value("output", name));
        if name.is_empty() {
            checker.invalid(place, "an output has no name", "name the output");
            continue;
        }
        // A subgraph's outputs go by position, and may give one value twice.
        if !names.insert(*name) && (body.main || body.function) {
            let message = "the output is listed twice";
            checker.invalid(
                place,
                message,
                "give outputs distinct names (an Identity node helps)",
            );
        }
        let Some((scope, around)) = scopes.split_last() else {
            return;
        };
        if scope.visible.contains_key(name) {
            continue;
        }
        if around.iter().any(|outer| outer.visible.contains_key(name)) {
            checker.invalid(
                place,
                "the output is a value of a surrounding graph",
                "insert an Identity node",
            );
        } else {
            checker.invalid(
                place,
                "the output is not defined: no input, initializer or node gives it",
                "list only values that exist as outputs",
            );
        }
    }
}

/// Tells cycles from disorder, once the whole body is known.
fn report_late(checker: &mut Checker<'_>, body: &Body<'_>, scope: &Scope<'_>, place: &Place<'_>) {
    if scope.late.is_empty() {
        return;
    }
    let label = |index: usize| {
        let node = body.nodes.get(index)?;
        Some(Part::Node(node, index).to_string())
    };
    let component = cycle::components(&scope.edges);
    let mut reported = HashSet::new();
    for late in &scope.late {
        let Some(user) = body.nodes.get(late.user) else {
            continue;
        };
        let place = &place.inside(Part::Node(user, late.user));
        if component.get(late.user) != component.get(late.producer) {
            let producer = label(late.producer).unwrap_or_default();
            checker.invalid(
                place,
                format!("input '{}' is used before {producer} defines it", late.name),
                "sort the nodes so that each stands after those it depends on",
            );
            continue;
        }
        if !reported.insert(component.get(late.user)) {
            continue;
        }
        let way = cycle::path(&scope.edges, late.user, late.producer).unwrap_or_default();
        let mut names: Vec<String> = way.iter().take(NAMED).filter_map(|at| label(*at)).collect();
        if way.len() > NAMED {
            names.push(format!("… {} more", way.len() - NAMED));
        }
        names.extend(label(late.user));
        checker.invalid(
            place,
            format!("the nodes form a cycle: {}", names.join(" → ")),
            "a graph must not depend on its own results; use Loop or Scan to repeat",
        );
    }
}
