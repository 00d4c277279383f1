//! Where a wrong result comes from: the importer, a pass, or a kernel.
//!
//! In: a model, inputs and expected outputs that its code does not give. Out: one line that names the place. The
//! reference interpreter runs the graph as imported, then after each pass; if all that is right, the code is compiled
//! again with every value that leaves a fusion group as an output (which changes no kernel), and the first kernel
//! whose value differs from the interpreter's is the one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use lapidary_graph::{Graph, Groups, NodeId, TensorData, ValueId, interp};
use lapidary_runtime::OwnedValue;

use crate::case::DataSet;
use crate::compare::{Tolerance, compare};
use crate::operator::Target;
use crate::reference::{data_of, tensor_of};
use crate::{Compiled, Error, Model, Options, pipeline};

/// Names what makes the result of this data set wrong.
pub fn bisect(
    model: &Model,
    set: &DataSet,
    tolerance: Tolerance,
    options: &Options,
) -> Result<String, Error> {
    let tensors = set.input_tensors()?;
    let inputs: Vec<TensorData> = tensors.iter().map(data_of).collect::<Result<_, _>>()?;
    let names = model.output_names();
    let judge = |graph: &Graph| -> Result<Option<String>, Error> {
        let found = interpret(graph, &inputs)?;
        let found = found.iter().map(|t| tensor_of(t).map(OwnedValue::Tensor));
        let found = found.collect::<Result<Vec<_>, _>>()?;
        let wrong = set.judge(&found, &names, tolerance).err();
        Ok(wrong.and_then(|w| w.first().map(|o| format!("'{}': {}", o.name, o.mismatch))))
    };

    let graph = pipeline::import(model, options, Target::Memory)?;
    if let Some(wrong) = judge(&graph)? {
        return Ok(format!(
            "bisect: the graph is wrong as imported, before any pass: output {wrong}"
        ));
    }
    if let Some(line) = wrong_pass(graph.clone(), options, &judge)? {
        return Ok(line);
    }
    let mut optimised = graph;
    pipeline::optimize(&mut optimised, options)?;
    let (groups, _) = pipeline::groups(&optimised);
    let kernel = wrong_kernel(optimised, &groups, set, &inputs, tolerance, options)?;
    Ok(kernel.unwrap_or_else(|| {
        "bisect: every kernel is right by itself when all values are kept: the plan is at fault"
            .to_string()
    }))
}

/// The first pass after which the interpreter's result is wrong.
fn wrong_pass(
    mut graph: Graph,
    options: &Options,
    judge: &dyn Fn(&Graph) -> Result<Option<String>, Error>,
) -> Result<Option<String>, Error> {
    // The callback must own what it holds: graphs are kept, and judged afterwards.
    let kept: Rc<RefCell<Vec<(String, Graph)>>> = Rc::default();
    let keep = kept.clone();
    let passes = lapidary_passes::Options {
        skip: options.skip_passes.clone(),
        after: Some(Box::new(move |name: &str, graph: &Graph| {
            keep.borrow_mut().push((name.to_string(), graph.clone()));
        })),
        ..Default::default()
    };
    lapidary_passes::optimize(&mut graph, &passes).map_err(|e| Error::stage("passes", &e))?;
    for (name, graph) in kept.borrow().iter() {
        if let Some(wrong) = judge(graph)? {
            return Ok(Some(format!(
                "bisect: pass `{name}` makes the graph wrong: output {wrong}"
            )));
        }
    }
    Ok(None)
}

/// The first kernel, in the order of a run, whose value is wrong.
fn wrong_kernel(
    mut graph: Graph,
    groups: &Groups,
    set: &DataSet,
    inputs: &[TensorData],
    tolerance: Tolerance,
    options: &Options,
) -> Result<Option<String>, Error> {
    let mut values: Vec<(ValueId, Vec<NodeId>)> = Vec::new();
    for group in groups.iter() {
        // Containers are not compared by themselves, but by what is taken out of them.
        let tensors = group.outputs.iter().filter(|v| graph.ty(**v).is_tensor());
        for value in tensors {
            values.push((*value, group.nodes.clone()));
        }
    }
    let references = observe(&graph, inputs, &values)?;
    let first = graph.outputs.len();
    for (value, _) in &values {
        let name = format!("bisect.{}", value.0);
        graph.outputs.push((name, *value));
    }
    let origins: Vec<String> = values
        .iter()
        .map(|(_, nodes)| origin(&graph, nodes))
        .collect();
    let program = pipeline::lower(graph, groups)?;
    let compiled = Compiled::from_code(pipeline::jit(program, options)?, options)?;
    let found = compiled.context()?.run_tensors(&set.input_tensors()?)?;
    for (((value, _), origin), found) in values.iter().zip(origins).zip(found.iter().skip(first)) {
        let Some(reference) = references.get(value) else {
            continue;
        };
        if let Err(mismatch) = compare(&tensor_of(reference)?, found, tolerance) {
            return Ok(Some(format!(
                "bisect: the first wrong kernel is that of {origin}: {mismatch}"
            )));
        }
    }
    Ok(None)
}

/// The ONNX names of nodes.
fn origin(graph: &Graph, nodes: &[NodeId]) -> String {
    let mut names: Vec<String> = Vec::new();
    for node in nodes {
        for name in graph.nodes.get(*node).map_or(&[][..], |n| &n.origin) {
            let quoted = format!("'{name}'");
            if !names.contains(&quoted) {
                names.push(quoted);
            }
        }
    }
    names.join(", ")
}

fn interpret(graph: &Graph, inputs: &[TensorData]) -> Result<Vec<TensorData>, Error> {
    interp::run(graph, inputs).map_err(|e| Error::Other(format!("bisect: the interpreter: {e}")))
}

/// The interpreter's results for these values.
fn observe(
    graph: &Graph,
    inputs: &[TensorData],
    values: &[(ValueId, Vec<NodeId>)],
) -> Result<HashMap<ValueId, TensorData>, Error> {
    let seen: RefCell<HashMap<ValueId, TensorData>> = RefCell::default();
    let record = |node: NodeId, results: &[interp::Value]| {
        let outputs = graph.nodes.get(node).map_or(&[][..], |n| &n.outputs);
        for (value, data) in outputs.iter().zip(results) {
            if let Some(data) = data.tensor()
                && values.iter().any(|(wanted, _)| wanted == value)
            {
                seen.borrow_mut().insert(*value, data.clone());
            }
        }
    };
    let options = interp::Options {
        observe: Some(&record),
        ..Default::default()
    };
    interp::run_with(graph, inputs, &options)
        .map_err(|e| Error::Other(format!("bisect: the interpreter: {e}")))?;
    Ok(seen.into_inner())
}
