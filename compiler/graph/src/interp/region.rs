//! Regions: bodies are run as graphs, their inputs given and their outputs gathered here.

use super::data::{count, pick, strides};
use super::{InterpError, Run, Value, run_graph};
use crate::op::{Body, BodyArg, Region, RegionKind};
use crate::verify::node_place;
use crate::{DType, Graph, NodeId, Sym, TensorData, TensorType};

struct At<'a> {
    graph: &'a Graph,
    node: NodeId,
    operands: &'a [Option<&'a Value>],
    symbols: &'a [Option<i64>],
    run: &'a Run<'a>,
}

/// The results of a region.
pub(super) fn region(
    region: &Region,
    (graph, node): (&Graph, NodeId),
    operands: &[Option<&Value>],
    symbols: &[Option<i64>],
    run: &Run,
) -> Result<Vec<Value>, InterpError> {
    let at = At {
        graph,
        node,
        operands,
        symbols,
        run,
    };
    let (Some(first), bodies) = (region.bodies.first(), &region.bodies) else {
        return Err(at.error("a region without bodies"));
    };
    match &region.kind {
        RegionKind::If => {
            let chosen = usize::from(!at.flag(0)?.unwrap_or(true));
            let body = bodies.get(chosen).unwrap_or(first);
            at.body(body, Vec::new())
        }
        RegionKind::Loop { carried } => at.repeat(first, *carried),
        RegionKind::Scan {
            states,
            inputs,
            outputs,
        } => at.scan(first, *states, inputs, outputs),
    }
}

impl At<'_> {
    fn error(&self, problem: impl Into<String>) -> InterpError {
        InterpError::Node {
            node: node_place(self.graph, self.node),
            problem: problem.into(),
        }
    }

    fn operand(&self, i: usize) -> Result<&Value, InterpError> {
        let v = self.operands.get(i).copied().flatten();
        v.ok_or_else(|| self.error(format!("operand {i} is absent")))
    }

    /// The number in an operand of one element, if it is there.
    fn number(&self, i: usize) -> Result<Option<i64>, InterpError> {
        let Some(v) = self.operands.get(i).copied().flatten() else {
            return Ok(None);
        };
        let numbers = v.tensor().and_then(TensorData::to_i64s);
        match numbers.as_deref() {
            Some([n]) => Ok(Some(*n)),
            _ => Err(self.error(format!("operand {i} is no single number"))),
        }
    }

    fn flag(&self, i: usize) -> Result<Option<bool>, InterpError> {
        Ok(self.number(i)?.map(|n| n != 0))
    }

    /// One run of a body; `own` are the inputs that the region makes.
    fn body(&self, body: &Body, own: Vec<Value>) -> Result<Vec<Value>, InterpError> {
        let mut own = own.into_iter();
        let mut inputs = Vec::with_capacity(body.args.len());
        for arg in &body.args {
            inputs.push(match arg {
                BodyArg::Operand(i) => self.operand(*i)?.clone(),
                BodyArg::Own => {
                    let made = own.next();
                    made.ok_or_else(|| self.error("a body with too many inputs"))?
                }
            });
        }
        // Nodes of bodies have numbers of their own, so nobody watches there.
        run_graph(&body.graph, &inputs, self.run, None)
    }

    fn repeat(&self, body: &Body, carried: usize) -> Result<Vec<Value>, InterpError> {
        let trip = self.number(0)?;
        // Without a condition that of the body is not looked at.
        let condition = self.flag(1)?;
        let mut go = condition.unwrap_or(true);
        let mut state: Vec<Value> = (0..carried)
            .map(|i| self.operand(2 + i).cloned())
            .collect::<Result<_, _>>()?;
        let scans = body.graph.outputs.len().saturating_sub(1 + carried);
        let mut gathered = vec![Vec::new(); scans];
        let mut i = 0;
        while go && trip.is_none_or(|trip| i < trip) {
            if i >= self.run.options.most_iterations {
                let node = node_place(self.graph, self.node);
                return Err(InterpError::Iterations { node, limit: i });
            }
            let mut own = vec![
                Value::Tensor(TensorData::from_i64(Vec::new(), &[i])),
                Value::Tensor(TensorData {
                    dtype: DType::Bool,
                    dims: Vec::new(),
                    bytes: vec![1u8].into(),
                    strings: Vec::new(),
                }),
            ];
            own.append(&mut state);
            let mut outs = self.body(body, own)?.into_iter();
            let next = outs.next();
            let numbers = next.as_ref().and_then(Value::tensor);
            go = match numbers.and_then(TensorData::to_i64s).as_deref() {
                Some([go]) => *go != 0 || condition.is_none(),
                _ => return Err(self.error("the body's condition is no single flag")),
            };
            state = outs.by_ref().take(carried).collect();
            for (all, v) in gathered.iter_mut().zip(outs) {
                all.push(v);
            }
            i += 1;
        }
        for (k, all) in gathered.into_iter().enumerate() {
            state.push(self.stack(all, 0, carried + k)?);
        }
        Ok(state)
    }

    fn scan(
        &self,
        body: &Body,
        states: usize,
        inputs: &[(usize, bool)],
        outputs: &[(i64, bool)],
    ) -> Result<Vec<Value>, InterpError> {
        let mut state: Vec<Value> = (0..states)
            .map(|i| self.operand(i).cloned())
            .collect::<Result<_, _>>()?;
        let mut length = None;
        for (i, (axis, _)) in inputs.iter().enumerate() {
            let dims = self.operand(states + i)?.tensor().map(|t| &t.dims);
            let found = dims.and_then(|d| d.get(*axis)).copied();
            let found = found.ok_or_else(|| self.error("a scanned input lacks its axis"))?;
            if *length.get_or_insert(found) != found {
                return Err(self.error("scanned inputs are of different lengths"));
            }
        }
        let mut gathered = vec![Vec::new(); outputs.len()];
        let n = length.unwrap_or(0);
        for i in 0..n {
            let mut own = std::mem::take(&mut state);
            for (k, (axis, reverse)) in inputs.iter().enumerate() {
                if let Some(t) = self.operand(states + k)?.tensor() {
                    let at = if *reverse { n - 1 - i } else { i };
                    own.push(Value::Tensor(slice(t, *axis, at)));
                }
            }
            let mut outs = self.body(body, own)?.into_iter();
            state = outs.by_ref().take(states).collect();
            for (all, v) in gathered.iter_mut().zip(outs) {
                all.push(v);
            }
        }
        for (k, (mut all, (axis, reverse))) in gathered.into_iter().zip(outputs).enumerate() {
            if *reverse {
                all.reverse();
            }
            state.push(self.stack(all, *axis, states + k)?);
        }
        Ok(state)
    }

    /// Result `output`: values of one shape along a new axis.
    fn stack(&self, all: Vec<Value>, axis: i64, output: usize) -> Result<Value, InterpError> {
        let outputs = &self.graph.nodes[self.node].outputs;
        let stated = outputs.get(output).map(|v| self.graph.ty(*v));
        let tensors: Option<Vec<&TensorData>> = all.iter().map(Value::tensor).collect();
        let tensors = tensors.ok_or_else(|| self.error("a scan output that is no tensor"))?;
        let Some(first) = tensors.first() else {
            return Ok(Value::Tensor(self.nothing(stated, axis)));
        };
        let rank = first.dims.len() as i64 + 1;
        let at = if axis < 0 { axis + rank } else { axis };
        if !(0..rank).contains(&at) {
            return Err(self.error(format!("axis {axis} of a result of rank {rank}")));
        }
        let at = at as usize;
        let mut whole = TensorData {
            dtype: first.dtype,
            dims: first.dims.clone(),
            bytes: Default::default(),
            strings: Vec::new(),
        };
        let outer = count(&first.dims[..at]);
        let mut bytes = Vec::new();
        for o in 0..outer {
            for t in &tensors {
                if t.dims != first.dims || t.dtype != first.dtype {
                    return Err(self.error(format!(
                        "slices of a scan output are {:?} and {:?}",
                        first.dims, t.dims
                    )));
                }
                let part = t.bytes.len() / outer.max(1);
                bytes.extend_from_slice(&t.bytes[o * part..(o + 1) * part]);
                let part = t.strings.len() / outer.max(1);
                whole
                    .strings
                    .extend_from_slice(&t.strings[o * part..(o + 1) * part]);
            }
        }
        whole.dims.insert(at, tensors.len() as i64);
        let limit = self.run.options.most_elements;
        if count(&whole.dims) > limit {
            return Err(InterpError::Elements {
                node: node_place(self.graph, self.node),
                dims: whole.dims,
                limit,
            });
        }
        whole.bytes = bytes.into();
        Ok(Value::Tensor(whole))
    }

    /// A scan output of no runs: sizes that nothing tells are 0.
    fn nothing(&self, stated: Option<&TensorType>, axis: i64) -> TensorData {
        let value = |s: Sym| self.symbols.get(s.0 as usize).copied().flatten();
        let dims = stated.and_then(|t| t.shape.as_ref());
        let mut dims: Vec<i64> = match dims {
            Some(dims) => dims.iter().map(|d| d.eval(&value).unwrap_or(0)).collect(),
            None => vec![0],
        };
        let rank = dims.len() as i64;
        let at = if axis < 0 { axis + rank } else { axis };
        if let Some(d) = usize::try_from(at).ok().and_then(|at| dims.get_mut(at)) {
            *d = 0;
        }
        TensorData {
            dtype: stated.map_or(DType::F32, |t| t.dtype),
            dims,
            bytes: Default::default(),
            strings: Vec::new(),
        }
    }
}

/// One position of an axis.
fn slice(t: &TensorData, axis: usize, at: i64) -> TensorData {
    let mut dims = t.dims.clone();
    dims.remove(axis);
    let steps = strides(&t.dims);
    let mut inner = steps.clone();
    inner.remove(axis);
    let mut offsets = Vec::with_capacity(count(&dims));
    super::data::each_position(&dims, |p| {
        offsets.push(super::data::offset(p, &inner) + at as usize * steps[axis]);
    });
    pick(t, dims, &offsets)
}
