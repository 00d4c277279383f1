//! `run_fn`: the calls of a segment, step after step.

use super::code::{Code, flags};
use super::{Callee, Maker};
use crate::error::LinkError;
use crate::plan::{Action, DimsRef, PlanStep};
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, StackSlot, Value};
use cranelift_module::{FuncId, Module};
use lapidary_codegen::Level;
use lapidary_graph::Dim;
use lapidary_lower::program::KernelId;
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
        let function = self.kernel_address(*kernel)?;
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
        let contraction = !flops.is_const(0);
        let cost = match (cost.as_const(), self.request.levels) {
            (Some(c), [level]) => self.int(c >> speed(*level, contraction)),
            _ => {
                let cost = self.known(cost);
                let shift = self.speed(contraction);
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

    /// The address of a kernel's code: of the level that the context has, if there are several.
    fn kernel_address(&mut self, kernel: KernelId) -> Result<Value, LinkError> {
        match (self.request.kernels.get(kernel), self.request.choices) {
            (Some(Callee::Function(id)), _) => {
                let function = self.module.declare_func_in_func(*id, self.b.func);
                Ok(self.b.ins().func_addr(I64, function))
            }
            (Some(Callee::Choice(row)), Some(table)) => {
                let width = 4 * self.request.levels.len() as i32;
                let (table, column) = self.choices(table);
                let distance = self.b.ins().sload32(flags(), column, *row as i32 * width);
                Ok(self.b.ins().iadd(table, distance))
            }
            _ => Err(LinkError::code(format!("{kernel}"), "it was not declared")),
        }
    }

    /// The table of kernels by level, and where the distances of the context's level begin in it.
    fn choices(&mut self, table: FuncId) -> (Value, Value) {
        if let Some(known) = self.choices {
            return known;
        }
        let table = self.module.declare_func_in_func(table, self.b.func);
        let table = self.b.ins().func_addr(I64, table);
        let level = self.level();
        let offset = self.b.ins().ishl_imm_u(level, 2);
        let column = self.b.ins().iadd(table, offset);
        self.choices = Some((table, column));
        (table, column)
    }

    /// The context's level.
    fn level(&mut self) -> Value {
        let ctx = self.ctx;
        self.b.ins().uload32(flags(), ctx, abi::CTX_LEVEL)
    }

    /// How far the operations of a step are shifted to be nanoseconds.
    fn speed(&mut self, contraction: bool) -> Value {
        let levels = self.request.levels;
        if let [level] = levels {
            return self.int(speed(*level, contraction));
        }
        if let Some(known) = self.speeds[usize::from(contraction)] {
            return known;
        }
        let all: Vec<i64> = levels.iter().map(|l| speed(*l, contraction)).collect();
        let at = self.pool.i64s(&all);
        let base = self.pool_address(at);
        let level = self.level();
        let offset = self.b.ins().ishl_imm_u(level, 3);
        let at = self.b.ins().iadd(base, offset);
        let value = self.load(I64, at, 0);
        self.speeds[usize::from(contraction)] = Some(value);
        value
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

/// Operations in a nanosecond, as a power of two: those of a contraction run near the machine's peak, others are bound by
/// memory.
pub(crate) fn speed(level: Level, contraction: bool) -> i64 {
    match (level, contraction) {
        (Level::Baseline, false) => 1,
        (Level::Baseline, true) => 3,
        (_, false) => 3,
        (Level::V3, true) => 6,
        (Level::V4, true) => 7,
    }
}
