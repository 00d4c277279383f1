//! States: an output of one run is an input of the next (docs/states.md).
//!
//! In: an optimised graph and pairs of an input and an output. Out: [`Graph::states`], and for each state
//! that grows by `present = concat(past, new, …)` the graph rewritten so that the new rows are written behind
//! the old ones:
//!
//! ```text
//! past    = slice(store, 0 .. p)                       p: rows so far; store: p <= capacity rows
//! store'  = concat(past, new, slice(store, q ..))      q: rows afterwards
//! present = slice(store', 0 .. q)
//! ```
//!
//! `store` is a new input whose memory `store'` takes over. Lowering leaves out the parts of the
//! concatenation that lie there already, so what is left of it is the writing of `new`, and readers of `past`
//! and `present` read the store through their slices. Stores whose rows are counted by one symbol share
//! one capacity. Any other state keeps two memories, which change places.

use lapidary_graph::verify::type_text;
use lapidary_graph::{
    DType, Dim, Graph, NodeId, Op, State, Store, Sym, SymbolOrigin, TensorType, ValueId,
};
use std::collections::{BTreeSet, HashMap};

/// Why an input and an output cannot be a state.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StateError {
    /// One of them is no tensor of a fixed width.
    #[error("'{name}' is {found}: a state is a tensor, not of strings")]
    Kind {
        /// The input or output.
        name: String,
        /// Its type.
        found: String,
    },
    /// What a run makes is not what the next takes.
    #[error(
        "output '{output}' is {found}, but input '{input}', which it shall become, is {expected}"
    )]
    Type {
        /// The input's name.
        input: String,
        /// The output's name.
        output: String,
        /// The input's type.
        expected: String,
        /// The output's type.
        found: String,
    },
}

/// Makes states of pairs of an input's and an output's number; each is in one pair at most.
pub fn keep(graph: &mut Graph, pairs: &[(usize, usize)]) -> Result<(), StateError> {
    let mut capacities = HashMap::new();
    for (input, output) in pairs {
        let axis = growing_axis(graph, *input, *output)?;
        graph.states.push(State {
            input: *input as u32,
            output: *output as u32,
            axis: axis.map(|a| a as u32),
            store: None,
        });
    }
    for at in 0..graph.states.len() {
        if let Some(found) = appended(graph, &graph.states[at]) {
            append(graph, at, found, &mut capacities);
        }
    }
    Ok(())
}

/// The one axis on which the two may differ.
fn growing_axis(graph: &Graph, input: usize, output: usize) -> Result<Option<usize>, StateError> {
    let (Some(past), Some((name, present))) = (graph.inputs.get(input), graph.outputs.get(output))
    else {
        return Ok(None);
    };
    let (from, to) = (graph.ty(*past), graph.ty(*present));
    let past_name = &graph.values[*past].name;
    for (name, ty) in [(past_name, from), (name, to)] {
        if !ty.is_tensor() || ty.dtype == DType::String {
            return Err(StateError::Kind {
                name: name.clone(),
                found: type_text(graph, ty),
            });
        }
    }
    let mismatch = || {
        Err(StateError::Type {
            input: past_name.clone(),
            output: name.clone(),
            expected: type_text(graph, from),
            found: type_text(graph, to),
        })
    };
    if from.dtype != to.dtype {
        return mismatch();
    }
    let (Some(from), Some(to)) = (&from.shape, &to.shape) else {
        return Ok(None);
    };
    if from.len() != to.len() {
        return mismatch();
    }
    let fixed = |a: &Dim, b: &Dim| a.as_const().zip(b.as_const()).is_some_and(|(a, b)| a != b);
    if from.iter().zip(to).any(|(a, b)| fixed(a, b)) {
        return mismatch();
    }
    let differ: Vec<usize> = (0..from.len()).filter(|i| from[*i] != to[*i]).collect();
    Ok(match differ[..] {
        [axis] if from[axis].as_const().is_none() => Some(axis),
        _ => None,
    })
}

/// A concatenation that makes a state's next value, and what it needs.
struct Appended {
    concat: NodeId,
    past: ValueId,
    present: ValueId,
    axis: usize,
    /// The rows of `past`.
    rows: Sym,
}

/// The state's concatenation, if that is all its output is made by, and sizes are known before a run.
fn appended(graph: &Graph, state: &State) -> Option<Appended> {
    let past = *graph.inputs.get(state.input as usize)?;
    let present = graph.outputs.get(state.output as usize)?.1;
    let axis = state.axis? as usize;
    let concat = graph.producer(present)?;
    let node = &graph.nodes[concat];
    let rows = graph.dims(past)[axis].as_sym()?;
    let mut symbols = BTreeSet::new();
    for d in graph.dims(present) {
        d.collect_symbols(&mut symbols);
    }
    let known = |s: &Sym| {
        let data = graph.symbols.get(*s);
        data.is_some_and(|d| matches!(d.origin, SymbolOrigin::Input { .. }))
    };
    let single = graph.outputs.iter().filter(|(_, v)| *v == present).count() == 1;
    let has_default = graph.defaults.iter().any(|(i, _)| *i == state.input);
    let fits = node.op == (Op::Concat { axis })
        && node.inputs.iter().all(Option::is_some)
        && node.input(0) == Some(past)
        && !node.inputs[1..].contains(&Some(past))
        && single
        // As an output it would be copied whole, and the store has room between its rows.
        && graph.outputs.iter().all(|(_, v)| *v != past)
        && !has_default
        // A complex number of 16 bytes is two elements of a kernel.
        && graph.ty(past).dtype != DType::C128
        && symbols.iter().all(known);
    fits.then_some(Appended {
        concat,
        past,
        present,
        axis,
        rows,
    })
}

/// Rewrites the graph for one state.
fn append(graph: &mut Graph, at: usize, found: Appended, capacities: &mut HashMap<Sym, Sym>) {
    let Appended {
        concat,
        past,
        present,
        axis,
        rows,
    } = found;
    let (dtype, name) = (graph.ty(past).dtype, graph.values[past].name.clone());
    let number = graph.inputs.len() as u32;
    let capacity = *capacities.entry(rows).or_insert_with(|| {
        let text = format!("{}_capacity", graph.symbols[rows].name);
        let origin = SymbolOrigin::Input {
            input: number,
            axis: axis as u32,
        };
        graph.add_symbol(text, origin)
    });
    let (old, new) = (graph.dims(past).to_vec(), graph.dims(present).to_vec());
    let mut whole = new.clone();
    whole[axis] = Dim::from(capacity);
    let store = graph.add_input(
        format!("{name}.store"),
        TensorType::new(dtype, whole.clone()),
    );

    // Each reader sees its own slice, so that fusion can take it into the reader's group.
    let order = std::mem::take(&mut graph.order);
    let origin = graph.nodes[concat].origin.clone();
    let rest = new[axis].clone();
    let mut next = None;
    for n in order {
        if n == concat {
            let head = slice(graph, store, axis, &Dim::Const(0), &old[axis], &origin);
            let left = whole[axis].sub(&rest);
            let tail = slice(graph, store, axis, &rest, &left, &origin);
            let mut parts = graph.nodes[concat].inputs.clone();
            parts[0] = Some(head);
            parts.push(Some(tail));
            let ty = TensorType::new(dtype, whole.clone());
            let made = (graph.values[present].name.clone(), ty);
            let node = graph.add_node(Op::Concat { axis }, parts, vec![made], origin.clone());
            next = graph.nodes[node].outputs.first().copied();
            continue;
        }
        for (value, source, rows) in [(past, Some(store), &old[axis]), (present, next, &rest)] {
            if let Some(source) = source
                && graph.nodes[n].inputs.contains(&Some(value))
            {
                let seen = slice(graph, source, axis, &Dim::Const(0), rows, &origin);
                for v in graph.nodes[n].inputs.iter_mut().flatten() {
                    if *v == value {
                        *v = seen;
                    }
                }
            }
        }
        graph.order.push(n);
    }
    if let Some(next) = next {
        for (_, v) in graph.outputs.iter_mut().filter(|(_, v)| *v == present) {
            *v = next;
        }
    }
    graph.states[at].store = Some(Store {
        input: number,
        dims: new,
    });
}

/// `size` rows of `x` along an axis, from `start` on.
fn slice(
    graph: &mut Graph,
    x: ValueId,
    axis: usize,
    start: &Dim,
    size: &Dim,
    origin: &[String],
) -> ValueId {
    let dims = graph.dims(x).to_vec();
    let mut from = vec![Dim::Const(0); dims.len()];
    from[axis] = start.clone();
    let mut shape = dims;
    shape[axis] = size.clone();
    let op = Op::Slice {
        start: from,
        step: vec![1; shape.len()],
        size: shape.clone(),
    };
    let ty = TensorType::new(graph.ty(x).dtype, shape);
    let name = format!("{}.rows", graph.values[x].name);
    let node = graph.add_node(op, vec![Some(x)], vec![(name, ty)], origin.to_vec());
    graph.nodes[node].outputs[0]
}
