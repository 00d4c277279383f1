//! `run_fn`: the calls of a segment, step after step.

use super::Maker;
use super::code::Code;
use crate::error::LinkError;
use crate::plan::{Action, DimsRef, PlanStep};
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, StackSlot, Value};
use cranelift_module::{FuncId, Module};
use lapidary_codegen::Level;
use lapidary_graph::Dim;
use lapidary_runtime::abi;

impl<M: Module> Maker<'_, '_, M> {
    /// A function of some steps.
    pub(super) fn run_part(&mut self, name: &str, steps: &[u32]) -> Result<FuncId, LinkError> {
        let plan = self.request.plan;
        let steps: Vec<&PlanStep> = steps
            .iter()
            .filter_map(|i| plan.steps.get(*i as usize))
            .collect();
        let operands = steps.iter().map(|s| match &s.action {
            Action::Kernel { operands, .. } => operands.len(),
            Action::Library {
                inputs, outputs, ..
            } => inputs.len() + outputs.len(),
            Action::Copy { .. } => 0,
        });
        let room = 8 * operands.max().unwrap_or(0) as u32;
        self.function(name, |code| {
            let stack = code.stack(room);
            for step in steps {
                code.step(step, stack)?;
            }
            Ok(())
        })
    }
}

impl<M: Module> Code<'_, '_, M> {
    fn step(&mut self, step: &PlanStep, stack: StackSlot) -> Result<(), LinkError> {
        match &step.action {
            Action::Kernel { .. } => self.kernel_step(step, stack),
            Action::Library {
                call,
                inputs,
                outputs,
            } => self.library_step(step, call, inputs, outputs, stack),
            Action::Copy { from, to, bytes } => {
                let to = self.place(&crate::plan::Place::Buffer(*to));
                let from = self.place(from);
                let bytes = self.known(bytes);
                self.runtime(abi::RT_MEMCPY, &[to, from, bytes]);
                Ok(())
            }
        }
    }

    fn kernel_step(&mut self, step: &PlanStep, stack: StackSlot) -> Result<(), LinkError> {
        let Action::Kernel {
            kernel,
            operands,
            dims,
            tasks,
            scratch_bytes,
            cost,
            flops,
            ..
        } = &step.action
        else {
            return Ok(());
        };
        for (i, place) in operands.iter().enumerate() {
            let address = self.place(place);
            self.b.ins().stack_store(I64, address, stack, 8 * i as i32);
        }
        let Some(function) = self.request.kernels.get(*kernel).copied() else {
            return Err(LinkError::code(format!("{kernel}"), "it was not declared"));
        };
        let function = self.module.declare_func_in_func(function, self.b.func);
        let function = self.b.ins().func_addr(I64, function);
        let operands = self.stack_address(stack);
        let dims = match self.request.plan.slots.find(dims) {
            DimsRef::Slots(at) => {
                let base = self.field(abi::CTX_DIMS);
                self.add_const(base, 8 * i64::from(at))
            }
            DimsRef::Consts(at) => self.consts_address(at),
            DimsRef::Empty => self.field(abi::CTX_DIMS),
        };
        let tasks = self.known(tasks);
        let scratch = self.known(scratch_bytes);
        let node = self.int32(step.node.map_or(-1, |n| n as i32));
        // Operations of a contraction run near the machine's peak, others are bound by memory.
        let shift = match (self.request.level, flops.is_const(0)) {
            (Level::Baseline, true) => 1,
            (Level::Baseline, false) => 3,
            (_, true) => 3,
            (Level::V3, false) => 6,
            (Level::V4, false) => 7,
        };
        let cost = match cost.as_const() {
            Some(c) => self.int(c >> shift),
            None => {
                let cost = self.known(cost);
                let shift = self.int(shift);
                self.b.ins().sshr(cost, shift)
            }
        };
        let ctx = self.ctx;
        let status = self.runtime(
            abi::RT_PARALLEL_FOR,
            &[ctx, function, operands, dims, tasks, scratch, node, cost],
        );
        self.check_status(status);
        Ok(())
    }

    /// The value of an expression that is constant or has a slot.
    pub(super) fn known(&mut self, d: &Dim) -> Value {
        if let Some(c) = d.as_const() {
            return self.int(c);
        }
        match self.request.plan.slots.slot(d) {
            Some(slot) => {
                let dims = self.field(abi::CTX_DIMS);
                self.load(I64, dims, 8 * slot as i32)
            }
            // The plan's verifier has seen to it that this is not reached.
            None => self.int(0),
        }
    }
}
