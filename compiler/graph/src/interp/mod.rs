//! The reference interpreter: slow and obvious, the oracle of the tests.
//!
//! In: a graph and its inputs' data. Out: the outputs' data. Symbols get their values from the
//! inputs; before each node its dimensions become numbers, and its types are inferred once more
//! with them, which tests everything that could not be proved. What a value means at the edges (NaN,
//! division by zero, casts out of range, bad indices) stands in `docs/semantics.md`.
//!
//! f32 and f64 are computed in their own width, f16 and bf16 in f32 with a rounding an operation,
//! integers wrap in their own width. Sums of f32 products are accumulated in f64. Asked to, a run
//! rounds a little beside the nearest what generated code may have otherwise ([`Rounding`]).
//! Library calls are left to a hook, but for those on sequences and optionals. Bodies of regions are run
//! like graphs. Never used to fold or pack big constants: [`fold_node`] is for
//! shape arithmetic.

mod containers;
mod contract;
mod data;
mod index;
mod math;
mod pointwise;
mod region;
mod rounding;
mod rows;
mod scalar;
mod trees;
mod views;
mod work;

use crate::infer::{self, InferError};
use crate::op::LibraryCall;
use crate::verify::node_place;
use crate::{
    DType, Def, Dim, EntityRef, Graph, NodeId, Op, Sym, SymbolOrigin, TensorData, TensorType,
    ValueId,
};
pub use containers::Value;
pub use math::erf;
use rounding::Rounder;
pub use rounding::Rounding;
pub use scalar::eval_scalar;
use std::cell::Cell;
use std::collections::HashMap;

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InterpError {
    /// The caller gave too few or too many values.
    #[error("expected {expected} inputs, found {found}")]
    InputCount {
        /// How many inputs the graph has.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// A value that the graph's input does not take.
    #[error("input '{input}': expected {expected}, found {found}")]
    Input {
        /// The ONNX name of the input.
        input: String,
        /// Its type.
        expected: String,
        /// The type and size of what was given.
        found: String,
    },
    /// The sizes of this run break a rule that could not be decided before.
    #[error("{node}: {source}")]
    Infer {
        /// The node, as `node n3 '/layer.0/MatMul'`.
        node: String,
        /// The rule.
        source: InferError,
    },
    /// A dimension without a value.
    #[error(
        "{node}: dimension {dim} has no value (a division by zero, or sizes that cannot be broadcast)"
    )]
    Dim {
        /// The node that needs it.
        node: String,
        /// The expression.
        dim: String,
    },
    /// A result is not of the type that the graph states for it.
    #[error("{node}: output {output}: expected {expected}, found {found}")]
    Output {
        /// The node.
        node: String,
        /// The output's number.
        output: usize,
        /// The stated type.
        expected: String,
        /// The type and size of the result.
        found: String,
    },
    /// An index from data that lies outside of its axis.
    #[error("{node}: index {index} is out of range for axis {axis} of size {size}")]
    Index {
        /// The node.
        node: String,
        /// As the data have it.
        index: i64,
        /// The axis that it indexes.
        axis: usize,
        /// That axis's extent; `-size..size` is taken.
        size: i64,
    },
    /// Any other rule of the operator's that the data break.
    #[error("{node}: {problem}")]
    Node {
        /// The node.
        node: String,
        /// The rule.
        problem: String,
    },
    /// A loop that goes on for too long.
    #[error("{node}: more than {limit} iterations")]
    Iterations {
        /// The loop.
        node: String,
        /// [`Options::most_iterations`].
        limit: i64,
    },
    /// A result that is too large, before it is made.
    #[error("{node}: a result of shape {dims:?} has more than {limit} elements")]
    Elements {
        /// The node.
        node: String,
        /// The result's sizes.
        dims: Vec<i64>,
        /// [`Options::most_elements`].
        limit: usize,
    },
    /// A run that takes too long, before the work that is too much.
    #[error("{node}: more than {limit} steps of the interpreter")]
    Work {
        /// The node that would exceed it.
        node: String,
        /// [`Options::most_work`].
        limit: u64,
    },
    /// The hook does not know a kernel, or there is no hook.
    #[error("{node}: library call '{library}' is not available to the interpreter")]
    Unsupported {
        /// The node that calls it.
        node: String,
        /// The kernel's name, without `lap_lib_`.
        library: String,
    },
}

/// What evaluates library calls: `None` for a name that it does not know.
pub type LibraryHook<'a> =
    &'a dyn Fn(&LibraryCall, &[Option<&TensorData>]) -> Option<Result<Vec<TensorData>, String>>;

/// What is told of each node's results.
pub type Observer<'a> = &'a dyn Fn(NodeId, &[Value]);

/// How to run.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Evaluates library calls other than those on sequences and optionals.
    pub library: Option<LibraryHook<'a>>,
    /// Called with each node's results, in order: to find the first that differs from another run.
    pub observe: Option<Observer<'a>>,
    /// Results may not have more elements than this.
    pub most_elements: usize,
    /// A loop may not have more iterations than this.
    pub most_iterations: i64,
    /// A run may not take more scalar operations than this, roughly.
    pub most_work: u64,
    /// How what generated code may round otherwise is rounded.
    pub rounding: Rounding,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            library: None,
            observe: None,
            most_elements: 1 << 31,
            most_iterations: i64::MAX,
            most_work: u64::MAX,
            rounding: Rounding::Nearest,
        }
    }
}

/// Results of at most this many elements are folded.
const FOLD_ELEMENTS: usize = 1 << 16;
/// Inputs of at most this many elements, all together, are folded.
const FOLD_INPUTS: usize = 1 << 18;
/// Scalar operations that folding a node may take.
const FOLD_WORK: u64 = 1 << 20;

/// Why one operator has no result; the caller adds the node.
enum Fault {
    Index { index: i64, axis: usize, size: i64 },
    Other(String),
}

impl From<String> for Fault {
    fn from(s: String) -> Self {
        Fault::Other(s)
    }
}
impl From<&str> for Fault {
    fn from(s: &str) -> Self {
        Fault::Other(s.to_string())
    }
}

/// Runs the graph without a library.
pub fn run(graph: &Graph, inputs: &[TensorData]) -> Result<Vec<TensorData>, InterpError> {
    run_with(graph, inputs, &Options::default())
}

/// Runs a graph whose inputs and outputs are tensors.
pub fn run_with(
    graph: &Graph,
    inputs: &[TensorData],
    options: &Options,
) -> Result<Vec<TensorData>, InterpError> {
    let inputs: Vec<Value> = inputs.iter().cloned().map(Value::Tensor).collect();
    let outputs = run_values(graph, &inputs, options)?;
    let tensors = outputs.into_iter().zip(&graph.outputs);
    let tensor = |(v, (name, _)): (Value, &(String, ValueId))| match v {
        Value::Tensor(t) => Ok(t),
        _ => Err(InterpError::Node {
            node: format!("output '{name}'"),
            problem: "it is no tensor".into(),
        }),
    };
    tensors.map(tensor).collect()
}

/// Runs the graph. Expects a verified one.
pub fn run_values(
    graph: &Graph,
    inputs: &[Value],
    options: &Options,
) -> Result<Vec<Value>, InterpError> {
    let run = Run {
        options,
        rounder: Rounder::new(options.rounding),
        worked: Cell::new(0),
    };
    run_graph(graph, inputs, &run, options.observe)
}

/// What the graph and its bodies share in a run.
struct Run<'a> {
    options: &'a Options<'a>,
    rounder: Rounder,
    /// Scalar operations so far, roughly.
    worked: Cell<u64>,
}

fn run_graph(
    graph: &Graph,
    inputs: &[Value],
    run: &Run,
    observe: Option<Observer>,
) -> Result<Vec<Value>, InterpError> {
    let mut symbols = bind_inputs(graph, inputs)?;
    let mut remaining: HashMap<ValueId, usize> = HashMap::new();
    for n in &graph.order {
        for v in graph.nodes[*n].inputs.iter().flatten() {
            *remaining.entry(*v).or_default() += 1;
        }
    }
    for (_, v) in &graph.outputs {
        *remaining.entry(*v).or_default() += 1;
    }
    let mut env: HashMap<ValueId, Value> = HashMap::new();
    for (v, data) in graph.values.iter() {
        if let Def::Const(t) = &data.def
            && remaining.contains_key(&v)
        {
            env.insert(v, Value::Tensor(t.clone()));
        }
    }
    for (v, data) in graph.inputs.iter().zip(inputs) {
        env.insert(*v, data.clone());
    }
    for n in &graph.order {
        let node = &graph.nodes[*n];
        let mut operands = Vec::with_capacity(node.inputs.len());
        for v in &node.inputs {
            operands.push(match v {
                Some(v) => Some(read(graph, &env, *n, *v)?),
                None => None,
            });
        }
        let results = node_results(graph, *n, &operands, &symbols, run)?;
        bind_outputs(graph, *n, &results, &mut symbols)?;
        if let Some(observe) = observe {
            observe(*n, &results);
        }
        for v in node.inputs.iter().flatten() {
            if let Some(count) = remaining.get_mut(v) {
                *count -= 1;
                if *count == 0 {
                    env.remove(v);
                }
            }
        }
        for (v, data) in node.outputs.iter().zip(results) {
            if remaining.get(v).is_some_and(|c| *c > 0) {
                env.insert(*v, data);
            }
        }
    }
    let last = graph.order.last().copied().unwrap_or(NodeId(0));
    graph
        .outputs
        .iter()
        .map(|(_, v)| read(graph, &env, last, *v).cloned())
        .collect()
}

fn read<'a>(
    graph: &Graph,
    env: &'a HashMap<ValueId, Value>,
    n: NodeId,
    v: ValueId,
) -> Result<&'a Value, InterpError> {
    env.get(&v).ok_or_else(|| InterpError::Node {
        node: node_place(graph, n),
        problem: format!("value {v} is read before it is defined"),
    })
}

fn shape_text(v: &Value) -> String {
    match v {
        Value::Tensor(t) => format!("{}{:?} with {} bytes", t.dtype, t.dims, t.bytes.len()),
        Value::Sequence(all) => format!("a sequence of {}", all.len()),
        Value::Optional(_) => "an optional".into(),
        Value::Map { keys, .. } => format!("a map of {}", keys.len()),
    }
}

/// Whether a value is of a type, with these sizes of the symbols.
fn fits(ty: &TensorType, v: &Value, symbols: &[Option<i64>]) -> bool {
    let value = |s: Sym| symbols.get(s.index()).copied().flatten();
    let Value::Tensor(t) = v else {
        return v.is_of(ty);
    };
    let shape = match &ty.shape {
        None => true,
        Some(dims) => {
            let mut pairs = dims.iter().zip(&t.dims);
            dims.len() == t.dims.len() && pairs.all(|(d, found)| d.eval(&value) == Some(*found))
        }
    };
    v.is_of(ty) && shape && well_formed(t)
}

/// The size of an axis of a value.
fn size(v: Option<&Value>, axis: u32) -> Option<i64> {
    v?.tensor()?.dims.get(axis as usize).copied()
}

/// Whether the bytes fit the shape.
fn well_formed(t: &TensorData) -> bool {
    let count = match t.dims.contains(&0) {
        true => Some(0),
        false => t.dims.iter().try_fold(1usize, |n, d| {
            usize::try_from(*d).ok().and_then(|d| n.checked_mul(d))
        }),
    };
    match t.dtype {
        DType::String => count == Some(t.strings.len()),
        d => count.and_then(|n| n.checked_mul(d.bytes())) == Some(t.bytes.len()),
    }
}

fn bind_inputs(graph: &Graph, inputs: &[Value]) -> Result<Vec<Option<i64>>, InterpError> {
    if inputs.len() != graph.inputs.len() {
        return Err(InterpError::InputCount {
            expected: graph.inputs.len(),
            found: inputs.len(),
        });
    }
    let mut symbols = vec![None; graph.symbols.len()];
    for (s, data) in graph.symbols.iter() {
        if let SymbolOrigin::Input { input, axis } = data.origin {
            symbols[s.index()] = size(inputs.get(input as usize), axis);
        }
    }
    for (v, data) in graph.inputs.iter().zip(inputs) {
        if !fits(graph.ty(*v), data, &symbols) {
            return Err(InterpError::Input {
                input: graph.values[*v].name.clone(),
                expected: crate::verify::type_text(graph, graph.ty(*v)),
                found: shape_text(data),
            });
        }
    }
    Ok(symbols)
}

/// Gives the symbols that this node's outputs bear their values, and holds the results against the
/// stated types.
fn bind_outputs(
    graph: &Graph,
    n: NodeId,
    results: &[Value],
    symbols: &mut [Option<i64>],
) -> Result<(), InterpError> {
    for (s, data) in graph.symbols.iter() {
        if let SymbolOrigin::Node { node, output, axis } = data.origin
            && node == n
        {
            symbols[s.index()] = size(results.get(output as usize), axis);
        }
    }
    let outputs = &graph.nodes[n].outputs;
    if outputs.len() != results.len() {
        return Err(InterpError::Node {
            node: node_place(graph, n),
            problem: format!(
                "expected {} results, found {}",
                outputs.len(),
                results.len()
            ),
        });
    }
    for (output, (v, t)) in outputs.iter().zip(results).enumerate() {
        if !fits(graph.ty(*v), t, symbols) {
            return Err(InterpError::Output {
                node: node_place(graph, n),
                output,
                expected: crate::verify::type_text(graph, graph.ty(*v)),
                found: shape_text(t),
            });
        }
    }
    Ok(())
}

/// One node: its dimensions become numbers, its types are inferred, its results computed.
fn node_results(
    graph: &Graph,
    n: NodeId,
    operands: &[Option<&Value>],
    symbols: &[Option<i64>],
    run: &Run,
) -> Result<Vec<Value>, InterpError> {
    let node = || node_place(graph, n);
    let value = |s: Sym| symbols.get(s.index()).copied().flatten();
    let mut unknown = None;
    let op = graph.nodes[n].op.map_dims(&mut |d| match d.eval(&value) {
        Some(v) => Dim::Const(v),
        None => {
            unknown.get_or_insert_with(|| graph.dim_text(d));
            Dim::Const(0)
        }
    });
    if let Some(dim) = unknown {
        return Err(InterpError::Dim { node: node(), dim });
    }
    if let Op::Region(inside) = &op {
        return region::region(inside, (graph, n), operands, symbols, run);
    }
    let tensors: Option<Vec<Option<&TensorData>>> = operands
        .iter()
        .map(|v| match v {
            None => Some(None),
            Some(v) => v.tensor().map(Some),
        })
        .collect();
    let all = |t: Vec<TensorData>| t.into_iter().map(Value::Tensor).collect();
    if let Op::Library(call) = &op {
        let hook = || {
            let results = run.options.library?(call, tensors.as_deref()?)?;
            Some(results.map(all))
        };
        return match containers::call(call, operands).or_else(hook) {
            Some(Ok(results)) => Ok(results),
            Some(Err(problem)) => Err(InterpError::Node {
                node: node(),
                problem,
            }),
            None => Err(InterpError::Unsupported {
                node: node(),
                library: call.name.clone(),
            }),
        };
    }
    let Some(operands) = tensors else {
        return Err(InterpError::Node {
            node: node(),
            problem: "an operand is no tensor".into(),
        });
    };
    let results = eval_op(&op, &operands, run);
    results.map(all).map_err(|e| match e {
        OpError::Elements { dims, limit } => InterpError::Elements {
            node: node(),
            dims,
            limit,
        },
        OpError::Work { limit } => InterpError::Work {
            node: node(),
            limit,
        },
        OpError::Infer(source) => InterpError::Infer {
            node: node(),
            source,
        },
        OpError::Fault(Fault::Index { index, axis, size }) => InterpError::Index {
            node: node(),
            index,
            axis,
            size,
        },
        OpError::Fault(Fault::Other(problem)) => InterpError::Node {
            node: node(),
            problem,
        },
    })
}

enum OpError {
    Infer(InferError),
    Elements { dims: Vec<i64>, limit: usize },
    Work { limit: u64 },
    Fault(Fault),
}

/// Evaluates an operator whose dimensions are all numbers.
fn eval_op(
    op: &Op,
    operands: &[Option<&TensorData>],
    run: &Run,
) -> Result<Vec<TensorData>, OpError> {
    let types: Vec<Option<TensorType>> = operands
        .iter()
        .map(|t| t.map(|t| TensorType::new(t.dtype, t.dims.iter().map(|d| Dim::Const(*d)))))
        .collect();
    let types: Vec<Option<&TensorType>> = types.iter().map(Option::as_ref).collect();
    let outputs = infer::output_types(op, &types).map_err(OpError::Infer)?;
    let mut shapes = Vec::with_capacity(outputs.len());
    for t in &outputs {
        let dims = t
            .const_dims()
            .ok_or_else(|| OpError::Fault("the result has no shape".into()))?;
        let count = dims.iter().try_fold(1usize, |n, d| {
            usize::try_from(*d).ok().and_then(|d| n.checked_mul(d))
        });
        let limit = run.options.most_elements;
        if count.is_none_or(|c| c > limit) {
            return Err(OpError::Elements { dims, limit });
        }
        shapes.push(dims);
    }
    let dims = shapes.into_iter().next().unwrap_or_default();
    let worked = run.worked.get();
    let worked = worked.saturating_add(work::work(op, operands, &dims));
    run.worked.set(worked);
    let limit = run.options.most_work;
    if worked > limit {
        return Err(OpError::Work { limit });
    }
    dispatch(op, operands, dims, &run.rounder).map_err(OpError::Fault)
}

/// The rule of each operator; shapes and types are known to fit.
fn dispatch(
    op: &Op,
    operands: &[Option<&TensorData>],
    dims: Vec<i64>,
    rounder: &Rounder,
) -> Result<Vec<TensorData>, Fault> {
    let input = |i: usize| -> Result<&TensorData, Fault> {
        operands
            .get(i)
            .copied()
            .flatten()
            .ok_or_else(|| Fault::Other(format!("input {i} is absent")))
    };
    let optional = |i: usize| operands.get(i).copied().flatten();
    let one = |t: TensorData| Ok(vec![t]);
    match op {
        Op::Pointwise { body, .. } => {
            let mut inputs = Vec::new();
            for i in 0..body.inputs as usize {
                inputs.push(input(i)?);
            }
            one(pointwise::pointwise(body, &inputs, dims, rounder)?)
        }
        Op::Shape(d) => {
            let values: Vec<i64> = d.iter().filter_map(Dim::as_const).collect();
            one(TensorData::from_i64(dims, &values))
        }
        Op::Contract { a, b, out } => {
            let (x, y) = (input(0)?, input(1)?);
            one(contract::contract(a, b, out, x, y, dims, rounder))
        }
        Op::Conv { window, groups } => one(contract::conv(
            window,
            // A number when an operator runs.
            groups.as_const().unwrap_or(1),
            input(0)?,
            input(1)?,
            optional(2),
            dims,
            rounder,
        )),
        Op::ConvTranspose { window, groups, .. } => one(contract::conv_transpose(
            window,
            *groups,
            input(0)?,
            input(1)?,
            optional(2),
            dims,
            rounder,
        )),
        Op::Pool { kind, window, .. } => {
            one(contract::pool(*kind, window, input(0)?, dims, rounder))
        }
        Op::Attention(attrs) => one(contract::attention(
            attrs,
            [input(0)?, input(1)?, input(2)?],
            [attrs.mask(), attrs.first(), attrs.sink()].map(|i| i.and_then(optional)),
            dims,
            rounder,
        )),
        Op::Reduce { kind, axes, .. } => one(rows::reduce(*kind, axes, input(0)?, dims, rounder)),
        Op::ArgReduce {
            max, axis, last, ..
        } => one(rows::arg_reduce(*max, *axis, *last, input(0)?, dims)),
        Op::CumSum {
            axis,
            exclusive,
            reverse,
        } => one(rows::cumsum(
            *axis,
            *exclusive,
            *reverse,
            input(0)?,
            rounder,
        )),
        Op::Softmax { axis, log } => one(rows::softmax(*axis, *log, input(0)?, rounder)),
        Op::Normalize {
            kind,
            axis,
            epsilon,
        } => one(rows::normalize(
            *kind,
            *axis,
            *epsilon,
            input(0)?,
            optional(1),
            optional(2),
            rounder,
        )),
        Op::Reshape { .. } => {
            let mut t = input(0)?.clone();
            t.dims = dims;
            one(t)
        }
        Op::Transpose { perm } => one(views::transpose(perm, input(0)?, dims)),
        Op::Broadcast { .. } => one(views::broadcast(input(0)?, dims)),
        Op::Slice { start, step, .. } => {
            let start: Vec<i64> = start.iter().filter_map(Dim::as_const).collect();
            one(views::slice(&start, step, input(0)?, dims)?)
        }
        Op::Concat { axis } => {
            let mut parts = Vec::new();
            for i in 0..operands.len() {
                parts.push(input(i)?);
            }
            one(views::concat(*axis, &parts, dims))
        }
        Op::Pad { before, mode, .. } => {
            let before: Vec<i64> = before.iter().filter_map(Dim::as_const).collect();
            one(views::pad(&before, *mode, input(0)?, optional(1), dims)?)
        }
        Op::Gather { axis } => one(index::gather(*axis, input(0)?, input(1)?, dims)?),
        Op::GatherElements { axis } => {
            one(index::gather_elements(*axis, input(0)?, input(1)?, dims)?)
        }
        Op::GatherNd { batch } => one(index::gather_nd(*batch, input(0)?, input(1)?, dims)?),
        Op::ScatterElements { axis, reduce } => one(index::scatter_elements(
            *axis,
            *reduce,
            input(0)?,
            input(1)?,
            input(2)?,
        )?),
        Op::ScatterNd { reduce } => {
            one(index::scatter_nd(*reduce, input(0)?, input(1)?, input(2)?)?)
        }
        Op::Trees(t) => trees::trees(t, input(0)?, rounder),
        Op::Library(_) => Err("library calls are evaluated by the hook".into()),
        Op::Region(_) => Err("regions are evaluated with their graph".into()),
    }
}

/// The results of a node whose inputs are all constants, when its dimensions are numbers and the
/// work is small; `None` otherwise, or when the node would fail.
pub fn fold_node(graph: &Graph, node: NodeId) -> Option<Vec<TensorData>> {
    let data = graph.nodes.get(node)?;
    if matches!(data.op, Op::Library(_) | Op::Region(_)) {
        return None;
    }
    let mut operands = Vec::with_capacity(data.inputs.len());
    for v in &data.inputs {
        operands.push(match v {
            Some(v) => Some(graph.constant(*v)?),
            None => None,
        });
    }
    if operands.iter().flatten().map(|t| t.len()).sum::<usize>() > FOLD_INPUTS {
        return None;
    }
    if data.op.dims().iter().any(|d| d.as_const().is_none()) {
        return None;
    }
    let options = Options {
        most_elements: FOLD_ELEMENTS,
        most_work: FOLD_WORK,
        ..Options::default()
    };
    let run = Run {
        options: &options,
        rounder: Rounder::NEAREST,
        worked: Cell::new(0),
    };
    eval_op(&data.op, &operands, &run).ok()
}

#[cfg(test)]
mod tests;
