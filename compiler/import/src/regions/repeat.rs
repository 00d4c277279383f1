//! `Loop`: what is carried from run to run, and what is gathered of all runs.

use lapidary_graph::op::RegionKind;
use lapidary_graph::{Container, DType, Dim, ValueId};
use lapidary_onnx::proto::GraphProto;

use super::{Made, RegionNode, declared_rank, scalar_of, stacked, stated, yes};
use crate::builder::{Builder, LibOut};
use crate::dims::at_least_0;
use crate::driver::Import;
use crate::error::{Fail, invalid};
use crate::ops::optional;
use crate::scope::{Scope, Slot};

impl<'m> Import<'m> {
    pub(super) fn repeat(
        &mut self,
        at: &RegionNode<'m, '_>,
        scope: &mut Scope<'m>,
    ) -> Result<Vec<Slot>, Fail> {
        let graph = at.graph("body")?;
        let (trip, cond) = (at.opt(0), at.opt(1));
        if let Some(trip) = trip {
            scalar_of(&self.b, trip, DType::I64, "the trip count")?;
        }
        if let Some(cond) = cond {
            scalar_of(&self.b, cond, DType::Bool, "the condition")?;
        }
        let carried = at.inputs.len().saturating_sub(2);
        let initial: Vec<ValueId> = (0..carried)
            .map(|i| at.input(2 + i))
            .collect::<Result<_, _>>()?;
        if graph.input.len() != 2 + carried || graph.output.len() < 1 + carried {
            return Err(invalid(format!(
                "{carried} carried values, but a body of {} inputs and {} outputs",
                graph.input.len(),
                graph.output.len()
            )));
        }
        let places: Vec<LibOut> = initial.iter().map(|v| stated(&self.b, *v)).collect();
        let mut unwrapped = vec![false; carried];
        let body = (at.name, graph);
        let made = self.widened(body, places, carried, (2, 1), |im, places| {
            im.loop_body(graph, at.name, places, &mut unwrapped, scope)
        })?;
        let Some((made, places)) = made else {
            return Ok(Vec::new());
        };
        let mut made = made;
        let goes_on = made.outs.first().copied();
        if let Some(v) = goes_on {
            scalar_of(&made.b, v, DType::Bool, "the body's condition")?;
        }
        // Whether it ends at the trip count and not before. Without a condition that of the body is
        // not looked at.
        let always = |b: &mut Builder, v: Option<ValueId>| {
            v.is_none_or(|v| b.known_scalar(v).is_some_and(|d| d.is_const(1)))
        };
        let counted = cond.is_none() || (always(&mut self.b, cond) && always(&mut made.b, goes_on));
        let trips = trip.filter(|_| counted);
        let trips = trips.and_then(|t| self.b.known_scalar(t));
        let trips = trips.map(|t| at_least_0(&t));
        let mut outs = places;
        for o in 1 + carried..made.outs.len() {
            outs.push(stacked(made.out(o), trips.clone(), 0)?);
        }
        let mut operands = vec![trip, cond];
        operands.extend(initial.iter().map(|v| Some(*v)));
        let names = vec![graph.output.iter().map(|o| o.name.clone()).collect()];
        let kind = RegionKind::Loop { carried };
        let mut made = self.region_node(kind, vec![made], &names, operands, outs);
        for (v, unwrap) in made.iter_mut().zip(unwrapped) {
            if unwrap {
                *v = optional::unwrap(&mut self.b, *v)?;
            }
        }
        Ok(made.into_iter().map(Some).collect())
    }

    /// One attempt at the body of a Loop.
    fn loop_body(
        &mut self,
        graph: &'m GraphProto,
        prefix: &str,
        places: &[LibOut],
        unwrapped: &mut [bool],
        scope: &mut Scope<'m>,
    ) -> Option<Made> {
        self.open(&graph.name);
        let mut inner = scope.subgraph(format!("{prefix}/"), self.around.len());
        let mut formals = graph.input.iter();
        // The iteration and the condition are scalars; a body may speak of them as vectors of one.
        for dtype in [DType::I64, DType::Bool] {
            let Some(info) = formals.next() else {
                continue;
            };
            let mut v = self.own_input(&info.name, &LibOut::fixed(dtype, []));
            let dims = match declared_rank(info) {
                Some(1) => vec![1],
                _ => vec![],
            };
            self.b.start(prefix.to_string(), info.name.clone());
            if dtype == DType::Bool {
                // Where the body runs, it is true.
                v = self.b.constant(yes(dims));
            } else if !dims.is_empty() {
                match self.b.reshape(v, vec![Dim::Const(1)]) {
                    Ok(made) => v = made,
                    Err(f) => self.fail_value(&info.name, f),
                }
            }
            inner.values.insert(&info.name, Some(v));
        }
        for (info, place) in formals.zip(places) {
            let v = self.own_input(&info.name, place);
            inner.values.insert(&info.name, Some(v));
        }
        let mut outs = self.inside(scope, inner, |im, scope| im.subgraph(graph, scope));
        // A body may take an optional and give what is in one; it is handed on as an optional.
        self.b.start(prefix.to_string(), prefix.to_string());
        let carried = outs.iter_mut().flatten().skip(1);
        for ((v, place), unwrapped) in carried.zip(places).zip(unwrapped) {
            let ty = self.b.g.ty(*v);
            *unwrapped = place.containers.first() == Some(&Container::Optional)
                && place.containers.get(1..) == Some(ty.containers.as_slice());
            if *unwrapped {
                match optional::wrap(&mut self.b, *v) {
                    Ok(wrapped) => *v = wrapped,
                    Err(f) => self.fail_value(prefix, f),
                }
            }
        }
        let made = self.close(outs.clone().unwrap_or_default());
        outs.map(|_| made)
    }
}
