//! The driver: Cranelift functions that run a plan, the same in memory and in files.
//!
//! In: a plan and its program, and the functions of the kernels, declared in a [`Module`]. Out: CLIF
//! functions, not yet compiled, and the model table with all it points to, declared but not defined.
//!
//! For each segment there are two functions of the context. `dims_fn` tests relations between
//! dimensions, fills the segment's slots, and computes buffer sizes and output shapes, with every
//! overflow and every division by zero caught. `run_fn` makes the calls, in parts of 64 steps. All
//! functions of the runtime are reached through its table; no instruction that could trap is
//! emitted unguarded. The driver knows no operators: only steps, places and dimensions.

mod code;
mod dims;
pub(crate) mod library;
mod pool;
mod run;
mod segment;
mod table;

pub(crate) use code::signature;
pub(crate) use run::speed;
pub(crate) use table::WeightsAt;

use crate::error::LinkError;
use crate::plan::{LIVE, Plan, Segment};
use cranelift_codegen::ir::Function;
use cranelift_frontend::FunctionBuilderContext;
use cranelift_module::{DataDescription, DataId, FuncId, Linkage, Module};
use lapidary_codegen::Level;
use lapidary_graph::EntityMap;
use lapidary_lower::program::{KernelId, Program};
use pool::Pool;

/// Steps in one function.
const STEPS_PER_FUNCTION: usize = 64;

/// How the driver reaches a kernel.
#[derive(Clone, Copy)]
pub(crate) enum Callee {
    /// No step calls it.
    Unused,
    Function(FuncId),
    /// A row of the table of kernels by level.
    Choice(u32),
}

/// What the driver is made from.
pub(crate) struct Request<'a> {
    pub program: &'a Program,
    pub plan: &'a Plan,
    /// A C identifier: the prefix of symbols.
    pub name: &'a str,
    pub kernels: &'a EntityMap<KernelId, Callee>,
    /// The levels that kernels are there for, the lowest first.
    pub levels: &'a [Level],
    /// The table of kernels by level, if there are several: a distance for each kernel and level.
    pub choices: Option<FuncId>,
    /// Processor features that the code needs.
    pub cpu_features: u64,
    /// Addresses of the plan's pinned constants.
    pub pinned: &'a [u64],
    pub weights: WeightsAt,
    /// Whether it is a region's body: then its table is not exported.
    pub body: bool,
    /// The tables of the program's own bodies.
    pub bodies: &'a [DataId],
}

/// What it has made.
pub(crate) struct Driver {
    /// To be compiled and defined.
    pub functions: Vec<(FuncId, Function)>,
    /// To be defined: the constants and the model table.
    pub data: Vec<(DataId, DataDescription)>,
    /// The model table.
    pub table: DataId,
}

/// The functions of a segment.
#[derive(Clone, Copy, Default)]
struct SegmentFunctions {
    dims: Option<FuncId>,
    run: Option<FuncId>,
}

/// Makes the driver of a plan.
pub(crate) fn build<M: Module>(module: &mut M, request: &Request<'_>) -> Result<Driver, LinkError> {
    let pool = Pool::new(module, request.name)?;
    let mut maker = Maker {
        module,
        request,
        pool,
        consts: 0,
        functions: Vec::new(),
        builder: FunctionBuilderContext::new(),
    };
    maker.consts = maker.pool.i64s(&request.plan.slots.consts);
    let mut segments = Vec::with_capacity(request.plan.segments.len());
    for (s, segment) in request.plan.segments.iter().enumerate() {
        segments.push(maker.segment(s, segment)?);
    }
    let (table, description) = maker.table(&segments)?;
    let Maker {
        module,
        pool,
        functions,
        ..
    } = maker;
    Ok(Driver {
        functions,
        data: vec![pool.finish(module), (table, description)],
        table,
    })
}

/// State of the construction.
struct Maker<'a, 'r, M: Module> {
    module: &'a mut M,
    request: &'a Request<'r>,
    pool: Pool,
    /// The constant runs, as an offset in the pool.
    consts: u32,
    functions: Vec<(FuncId, Function)>,
    builder: FunctionBuilderContext,
}

impl<M: Module> Maker<'_, '_, M> {
    fn segment(&mut self, s: usize, segment: &Segment) -> Result<SegmentFunctions, LinkError> {
        let dims = self.dims_functions(s, segment)?;
        let mut run = Vec::new();
        let steps: Vec<u32> = (segment.first..segment.end).collect();
        for (i, part) in steps.chunks(STEPS_PER_FUNCTION).enumerate() {
            run.push(self.run_part(&format!("seg{s}_run{i}"), part)?);
        }
        Ok(SegmentFunctions {
            dims: self.sequence(&format!("seg{s}_dims"), &dims)?,
            run: self.sequence(&format!("seg{s}_run"), &run)?,
        })
    }

    /// One function that calls all, when there are several.
    fn sequence(&mut self, name: &str, parts: &[FuncId]) -> Result<Option<FuncId>, LinkError> {
        match parts {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            many => {
                let many = many.to_vec();
                self.function(name, |code| {
                    for f in many {
                        let callee = code.module.declare_func_in_func(f, code.b.func);
                        code.call_checked(callee);
                    }
                    Ok(())
                })
                .map(Some)
            }
        }
    }

    /// Declares a function `int32_t name(lap_context *)` and builds it.
    fn function(
        &mut self,
        name: &str,
        body: impl FnOnce(&mut code::Code<'_, '_, M>) -> Result<(), LinkError>,
    ) -> Result<FuncId, LinkError> {
        let full = format!("{}_{name}", self.request.name);
        let signature = signature::segment(self.module);
        let id = self
            .module
            .declare_function(&full, Linkage::Local, &signature)
            .map_err(|e| LinkError::code(&full, e))?;
        let mut function = Function::with_name_signature(
            cranelift_codegen::ir::UserFuncName::user(0, id.as_u32()),
            signature,
        );
        code::build(
            self.module,
            &mut self.pool,
            self.request,
            self.consts,
            &mut function,
            &mut self.builder,
            body,
        )?;
        self.functions.push((id, function));
        Ok(id)
    }
}

/// `last` of a buffer as the runtime reads it.
fn last(step: u32) -> i32 {
    if step >= LIVE {
        lapidary_runtime::abi::LIVE_TO_END
    } else {
        step as i32
    }
}
