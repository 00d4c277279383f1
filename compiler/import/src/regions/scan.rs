//! `Scan`: slices of several inputs in step; in the oldest version for each element of a batch.

use lapidary_graph::ValueId;
use lapidary_graph::op::RegionKind;
use lapidary_graph::verify::type_text;
use lapidary_onnx::proto::GraphProto;

use super::{Own, RegionNode, stacked, stated};
use crate::builder::{Builder, LibOut};
use crate::context::axis;
use crate::driver::Import;
use crate::error::{Fail, invalid, unsupported};
use crate::scope::{Scope, Slot};

/// A Scan as the newer opsets have it.
struct ScanSpec<'m, 'a> {
    graph: &'m GraphProto,
    prefix: &'a str,
    states: usize,
    in_axes: Vec<i64>,
    in_reverse: Vec<bool>,
    out_axes: Vec<i64>,
    out_reverse: Vec<bool>,
}

impl<'m> Import<'m> {
    pub(super) fn scan(
        &mut self,
        at: &RegionNode<'m, '_>,
        scope: &mut Scope<'m>,
    ) -> Result<Vec<Slot>, Fail> {
        let graph = at.graph("body")?;
        let scanned = at.attr("num_scan_inputs").map_or(0, |a| a.i);
        let lengths = usize::from(at.opset < 9);
        let n = at.inputs.len().saturating_sub(lengths);
        let scanned = usize::try_from(scanned)
            .ok()
            .filter(|s| (1..=n).contains(s));
        let scanned = scanned.ok_or_else(|| invalid("attribute 'num_scan_inputs' is wrong"))?;
        let states = n - scanned;
        if graph.input.len() != n || graph.output.len() < states {
            return Err(invalid(format!(
                "{n} operands, but a body of {} inputs and {} outputs",
                graph.input.len(),
                graph.output.len()
            )));
        }
        let operands: Vec<ValueId> = (0..n)
            .map(|i| at.input(lengths + i))
            .collect::<Result<_, _>>()?;
        let outputs = graph.output.len() - states;
        let flags = |list: Vec<i64>| -> Vec<bool> { list.iter().map(|v| *v != 0).collect() };
        if lengths == 0 {
            let spec = ScanSpec {
                graph,
                prefix: at.name,
                states,
                in_axes: at.ints("scan_input_axes", scanned, 0)?,
                in_reverse: flags(at.ints("scan_input_directions", scanned, 0)?),
                out_axes: at.ints("scan_output_axes", outputs, 0)?,
                out_reverse: flags(at.ints("scan_output_directions", outputs, 0)?),
            };
            let made = self.scan_region(&spec, &operands, scope)?;
            return Ok(made.into_iter().map(Some).collect());
        }
        // The first version scans each element of a batch (the first axis of all operands).
        if at.opt(0).is_some() {
            return Err(unsupported("sequences of different lengths in a batch")
                .hint("opset 9 has no batch axis and no lengths"));
        }
        let spec = ScanSpec {
            graph,
            prefix: at.name,
            states,
            in_axes: vec![0; scanned],
            in_reverse: flags(at.ints("directions", scanned, 0)?),
            out_axes: vec![0; outputs],
            out_reverse: vec![false; outputs],
        };
        let mut slices = Vec::with_capacity(n);
        for (i, v) in operands.iter().enumerate() {
            slices.push((format!("batch.{i}"), slice_of(&self.b, *v, 0)?));
        }
        self.open(at.name);
        let slices: Vec<ValueId> = slices
            .iter()
            .map(|(name, ty)| self.own_input(name, ty))
            .collect();
        self.b.start(at.name.to_string(), at.name.to_string());
        let inner = self.scan_region(&spec, &slices, scope);
        let made = self.close(inner.as_ref().cloned().unwrap_or_default());
        if inner?.is_empty() {
            return Ok(Vec::new());
        }
        let batch = operands.first().map(|v| self.b.g.dims(*v));
        let batch = batch.and_then(|dims| dims.first().cloned());
        let mut outs = Vec::new();
        for o in 0..made.outs.len() {
            outs.push(stacked(made.out(o), batch.clone(), 0)?);
        }
        let kind = RegionKind::Scan {
            states: 0,
            inputs: vec![(0, false); n],
            outputs: vec![(0, false); made.outs.len()],
        };
        let names = vec![graph.output.iter().map(|o| o.name.clone()).collect()];
        let operands = operands.into_iter().map(Some).collect();
        let made = self.region_node(kind, vec![made], &names, operands, outs);
        Ok(made.into_iter().map(Some).collect())
    }

    /// A Scan over operands of the graph being made; empty if its body is broken.
    fn scan_region(
        &mut self,
        spec: &ScanSpec<'m, '_>,
        operands: &[ValueId],
        scope: &mut Scope<'m>,
    ) -> Result<Vec<ValueId>, Fail> {
        let (initial, scanned) = operands.split_at(spec.states.min(operands.len()));
        let mut places: Vec<LibOut> = initial.iter().map(|v| stated(&self.b, *v)).collect();
        let (mut inputs, mut length) = (Vec::new(), None);
        for ((v, a), reverse) in scanned.iter().zip(&spec.in_axes).zip(&spec.in_reverse) {
            let a = match self.b.g.ty(*v).rank() {
                Some(rank) => axis(*a, rank)?,
                None => usize::try_from(*a).map_err(|_| {
                    unsupported("an axis from the end of a value whose rank is not known")
                })?,
            };
            length = length.or(self.b.g.dims(*v).get(a).cloned());
            places.push(slice_of(&self.b, *v, a)?);
            inputs.push((a, *reverse));
        }
        let body = (spec.prefix, spec.graph);
        let made = self.widened(body, places, spec.states, (0, 0), |im, places| {
            let own: Vec<Own<'m>> = spec
                .graph
                .input
                .iter()
                .zip(places)
                .map(|(info, ty)| Own {
                    info: Some(info),
                    name: info.name.clone(),
                    ty: ty.clone(),
                })
                .collect();
            im.body(spec.graph, spec.prefix, &own, scope)
        })?;
        let Some((made, mut outs)) = made else {
            return Ok(Vec::new());
        };
        let mut outputs = Vec::new();
        let scans = spec.out_axes.iter().zip(&spec.out_reverse);
        for (o, (a, reverse)) in (spec.states..made.outs.len()).zip(scans) {
            outs.push(stacked(made.out(o), length.clone(), *a)?);
            outputs.push((*a, *reverse));
        }
        let kind = RegionKind::Scan {
            states: spec.states,
            inputs,
            outputs,
        };
        let names = vec![spec.graph.output.iter().map(|o| o.name.clone()).collect()];
        let operands = operands.iter().map(|v| Some(*v)).collect();
        Ok(self.region_node(kind, vec![made], &names, operands, outs))
    }
}

/// What one run of a body reads of a value that is scanned along an axis.
fn slice_of(b: &Builder, v: ValueId, axis: usize) -> Result<LibOut, Fail> {
    let mut ty = stated(b, v);
    if !ty.containers.is_empty() {
        let found = type_text(&b.g, b.g.ty(v));
        return Err(invalid(format!(
            "a scanned input is {found}, expected a tensor"
        )));
    }
    if let Some(dims) = &mut ty.dims {
        if axis >= dims.len() {
            return Err(invalid(format!(
                "axis {axis} is out of range for rank {}",
                dims.len()
            )));
        }
        dims.remove(axis);
    }
    Ok(ty)
}
