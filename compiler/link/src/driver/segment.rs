//! `dims_fn`: what must be known before a segment's memory can be found.
//!
//! In order: the relations that the graph could not prove, the slots, the sizes of the segment's buffers,
//! the shapes of outputs. Whatever is out of range ends the run with an error that names the node.

use super::Maker;
use super::code::Code;
use super::dims::Env;
use crate::error::LinkError;
use crate::plan::{BufferId, Segment};
use cranelift_codegen::ir::InstBuilder;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_module::{FuncId, Module};
use lapidary_graph::Dim;
use lapidary_graph::infer::CheckKind;
use lapidary_graph::verify::DimCheck;
use lapidary_runtime::abi;

/// Things computed in one function.
const ITEMS_PER_FUNCTION: usize = 128;

enum Item<'p> {
    /// Axis `axis` of input `input` must have this size.
    InputAxis {
        input: usize,
        axis: usize,
        dim: Dim,
    },
    Check(&'p DimCheck),
    Slot(u32),
    Size(BufferId),
    Output(u32),
}

impl<M: Module> Maker<'_, '_, M> {
    /// The functions that together are a segment's `dims_fn`.
    pub(super) fn dims_functions(
        &mut self,
        s: usize,
        segment: &Segment,
    ) -> Result<Vec<FuncId>, LinkError> {
        let graph = &self.request.program.graph;
        let mut items = Vec::new();
        if s == 0 {
            for (input, v) in graph.open_inputs().iter().enumerate() {
                for (axis, dim) in graph.dims(*v).iter().enumerate() {
                    if dim.as_const().is_none() && dim.as_sym().is_none() {
                        let dim = dim.clone();
                        items.push(Item::InputAxis { input, axis, dim });
                    }
                }
            }
        }
        items.extend(segment.checks.iter().map(Item::Check));
        items.extend(segment.slots.iter().copied().map(Item::Slot));
        items.extend(segment.outputs.iter().copied().map(Item::Output));
        items.extend(segment.buffers.iter().copied().map(Item::Size));
        let mut parts = Vec::new();
        for (i, part) in items.chunks(ITEMS_PER_FUNCTION).enumerate() {
            parts.push(self.function(&format!("seg{s}_dims{i}"), |code| {
                let mut env = Env::default();
                for item in part {
                    code.item(&mut env, item);
                }
                Ok(())
            })?);
        }
        Ok(parts)
    }
}

impl<M: Module> Code<'_, '_, M> {
    fn item(&mut self, env: &mut Env, item: &Item<'_>) {
        match item {
            Item::InputAxis { input, axis, dim } => self.input_axis(env, *input, *axis, dim),
            Item::Check(check) => self.check(env, check),
            Item::Slot(slot) => self.slot(env, *slot),
            Item::Size(buffer) => self.size(env, *buffer),
            Item::Output(output) => self.output(env, *output),
        }
    }

    fn input_axis(&mut self, env: &mut Env, input: usize, axis: usize, dim: &Dim) {
        let inputs = self.field(abi::CTX_INPUTS);
        let offset = input as i32 * abi::TENSOR_BYTES + abi::TENSOR_DIMS + 8 * axis as i32;
        let found = self.load(I64, inputs, offset);
        let expected = env.dim(self, dim);
        let differ = self.is(IntCC::NotEqual, found, expected);
        env.flag(differ);
        let graph = &self.request.program.graph;
        let name = graph
            .inputs
            .get(input)
            .map_or("", |v| graph.values[*v].name.as_str());
        let message = format!(
            "input `{name}`: axis {axis} is {{a}}, but `{}` is {{b}}",
            graph.dim_text(dim)
        );
        if let Some(bad) = env.take_flags(self) {
            self.fail_if(bad, abi::code::INPUT, None, &message, found, expected);
        }
    }

    fn check(&mut self, env: &mut Env, check: &DimCheck) {
        let (left, right) = (env.dim(self, &check.left), env.dim(self, &check.right));
        let differ = self.is(IntCC::NotEqual, left, right);
        let bad = match check.kind {
            CheckKind::Equal => differ,
            CheckKind::AtMost => self.is(IntCC::SignedGreaterThan, left, right),
            CheckKind::BroadcastsTo => {
                let not_one = self.is_const(IntCC::NotEqual, left, 1);
                self.b.ins().band(differ, not_one)
            }
            CheckKind::Broadcastable => {
                let left_not = self.is_const(IntCC::NotEqual, left, 1);
                let right_not = self.is_const(IntCC::NotEqual, right, 1);
                let neither = self.b.ins().band(left_not, right_not);
                self.b.ins().band(differ, neither)
            }
        };
        env.flag(bad);
        let graph = &self.request.program.graph;
        let (l, r) = (graph.dim_text(&check.left), graph.dim_text(&check.right));
        let expected = match check.kind {
            CheckKind::Equal => "they must be equal",
            CheckKind::AtMost => "it must not be greater",
            CheckKind::BroadcastsTo => "it must be 1 or equal",
            CheckKind::Broadcastable => "they must be equal, or one of them 1",
        };
        let side = |text: &str, letter: char, d: &Dim| match d.as_const() {
            Some(_) => format!("{{{letter}}}"),
            None => format!("`{text}` = {{{letter}}}"),
        };
        let message = format!(
            "axis {}: {} against {}: {expected}",
            check.axis,
            side(&l, 'a', &check.left),
            side(&r, 'b', &check.right)
        );
        let node = self.node_number(check.node);
        if let Some(bad) = env.take_flags(self) {
            self.fail_if(bad, abi::code::CHECK, node, &message, left, right);
        }
    }

    fn node_number(&self, node: lapidary_graph::NodeId) -> Option<u32> {
        let nodes = &self.request.plan.nodes;
        nodes.iter().position(|n| *n == node).map(|i| i as u32)
    }

    fn slot(&mut self, env: &mut Env, slot: u32) {
        let slots = &self.request.plan.slots;
        let Some(data) = slots.derived.get((slot - slots.symbols) as usize) else {
            return;
        };
        let value = env.dim(self, &data.dim);
        if let Some(bad) = env.take_flags(self) {
            let text = self.request.program.graph.dim_text(&data.dim);
            let message =
                format!("the dimension `{text}` has no value (it overflows or divides by 0)");
            self.fail_if(bad, abi::code::CHECK, data.node, &message, value, value);
        }
        let dims = self.field(abi::CTX_DIMS);
        self.store(value, dims, 8 * slot as i32);
    }

    /// Flags negative dimensions.
    fn not_negative(&mut self, env: &mut Env, dims: &[Dim]) {
        for d in dims {
            if d.is_ge(0) != Some(true) {
                let value = env.dim(self, d);
                let negative = self.is_const(IntCC::SignedLessThan, value, 0);
                env.flag(negative);
            }
        }
    }

    fn size(&mut self, env: &mut Env, id: BufferId) {
        let (plan, graph) = (self.request.plan, &self.request.program.graph);
        let buffer = &plan.buffers[id];
        let sizes = self.field(abi::CTX_SIZES);
        let Some(bytes) = &buffer.bytes else {
            let dynamic = self.int(abi::SIZE_DYNAMIC);
            return self.store(dynamic, sizes, 8 * id.0 as i32);
        };
        self.not_negative(env, graph.dims(buffer.value));
        let value = env.dim(self, bytes);
        if let Some(bad) = env.take_flags(self) {
            let dims: Vec<String> = graph
                .dims(buffer.value)
                .iter()
                .map(|d| graph.dim_text(d))
                .collect();
            let message = format!(
                "the shape [{}] of `{}` is negative or too large",
                dims.join(", "),
                graph.values[buffer.value].name
            );
            let node = plan.steps.get(buffer.first as usize).and_then(|s| s.node);
            self.fail_if(bad, abi::code::CHECK, node, &message, value, value);
        }
        self.store(value, sizes, 8 * id.0 as i32);
    }

    fn output(&mut self, env: &mut Env, output: u32) {
        let graph = &self.request.program.graph;
        let Some((name, v)) = graph.outputs.get(output as usize) else {
            return;
        };
        let dims = graph.output_dims(output as usize);
        let outputs = self.field(abi::CTX_OUTPUTS);
        let base = output as i32 * abi::TENSOR_BYTES;
        self.not_negative(env, dims);
        for (axis, d) in dims.iter().enumerate() {
            let value = env.dim(self, d);
            self.store(value, outputs, base + abi::TENSOR_DIMS + 8 * axis as i32);
        }
        if let Some(bad) = env.take_flags(self) {
            let zero = self.int(0);
            let node = graph.producer(*v).and_then(|n| self.node_number(n));
            let message = format!("the shape of output `{name}` is negative or too large");
            self.fail_if(bad, abi::code::CHECK, node, &message, zero, zero);
        }
        let rank = self.int32(dims.len() as i32);
        self.store(rank, outputs, base + abi::TENSOR_RANK);
    }
}
