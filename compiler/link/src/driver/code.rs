//! A function of the driver while it is written.
//!
//! The code is one straight line of blocks; a failed test leaves it to a cold block, so a value made
//! earlier may be used anywhere later. Fields of the context that do not change during a run are
//! loaded once a function.

use super::Request;
use super::pool::Pool;
use crate::error::LinkError;
use crate::plan::Place;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{
    Block, BlockArg, FuncRef, Function, InstBuilder, MemFlagsData, SigRef, Signature, StackSlot,
    StackSlotData, StackSlotKind, Type, Value,
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::Module;
use lapidary_runtime::abi;
use std::collections::HashMap;

/// Signatures of the ABI.
pub(crate) mod signature {
    use cranelift_codegen::ir::types::{I32, I64};
    use cranelift_codegen::ir::{AbiParam, Signature, Type};
    use cranelift_module::Module;

    fn make<M: Module>(module: &M, params: &[Type], result: Option<Type>) -> Signature {
        let mut s = module.make_signature();
        s.params = params.iter().map(|t| AbiParam::new(*t)).collect();
        s.returns = result.into_iter().map(AbiParam::new).collect();
        s
    }
    /// `int32_t f(lap_context *)`.
    pub(crate) fn segment<M: Module>(module: &M) -> Signature {
        make(module, &[I64], Some(I32))
    }
    /// The kernel ABI.
    pub(crate) fn kernel<M: Module>(module: &M) -> Signature {
        make(module, &[I64; 5], None)
    }
    /// The library kernel ABI.
    pub(crate) fn library<M: Module>(module: &M) -> Signature {
        make(module, &[I64, I64, I32, I64, I32, I64, I32], Some(I32))
    }
    /// A function of the runtime's table, by its offset.
    pub(super) fn runtime<M: Module>(module: &M, offset: i32) -> Signature {
        use lapidary_runtime::abi::{RT_CALL_LIBRARY, RT_FAIL, RT_PARALLEL_FOR};
        match offset {
            RT_PARALLEL_FOR => make(module, &[I64, I64, I64, I64, I64, I64, I32, I64], Some(I32)),
            RT_CALL_LIBRARY => make(module, &[I64, I64, I64, I32, I64, I32, I64, I32], Some(I32)),
            RT_FAIL => make(module, &[I64, I32, I32, I64, I64, I64], Some(I32)),
            // memcpy
            _ => make(module, &[I64, I64, I64], Some(I64)),
        }
    }
}

/// The function being written.
pub(super) struct Code<'a, 'b, M: Module> {
    pub module: &'a mut M,
    pub pool: &'a mut Pool,
    pub request: &'a Request<'a>,
    pub b: FunctionBuilder<'b>,
    pub ctx: Value,
    exit: Block,
    /// Sets the error that its parameters tell, if anything in the function fails so.
    fail: Option<Block>,
    consts: u32,
    fields: HashMap<i32, Value>,
    signatures: HashMap<i32, SigRef>,
    /// The table of kernels by level, and the place in it of the context's level.
    pub choices: Option<(Value, Value)>,
    /// How far operations are shifted at the context's level: of contractions, and others.
    pub speeds: [Option<Value>; 2],
}

/// Builds `int32_t f(ctx)`; the body's end returns 0.
pub(super) fn build<'a, M: Module>(
    module: &'a mut M,
    pool: &'a mut Pool,
    request: &'a Request<'_>,
    consts: u32,
    function: &mut Function,
    context: &mut FunctionBuilderContext,
    body: impl FnOnce(&mut Code<'_, '_, M>) -> Result<(), LinkError>,
) -> Result<(), LinkError> {
    let config = module.target_config();
    let mut b = FunctionBuilder::new(function, context);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let ctx = b.block_params(entry).first().copied();
    let Some(ctx) = ctx else {
        return Err(LinkError::code("driver", "the function has no context"));
    };
    let exit = b.create_block();
    b.append_block_param(exit, I32);
    let mut code = Code {
        module,
        pool,
        request,
        b,
        ctx,
        exit,
        fail: None,
        consts,
        fields: HashMap::new(),
        signatures: HashMap::new(),
        choices: None,
        speeds: [None; 2],
    };
    let result = body(&mut code);
    let zero = code.b.ins().iconst(I32, 0);
    code.b.ins().return_(&[zero]);
    code.end_of_failures();
    code.b.switch_to_block(exit);
    code.b.set_cold_block(exit);
    if let Some(status) = code.b.block_params(exit).first().copied() {
        code.b.ins().return_(&[status]);
    }
    code.b.seal_all_blocks();
    code.b.finalize(config);
    result
}

/// Memory that generated code alone writes: aligned, never faulting.
pub(super) fn flags() -> MemFlagsData {
    MemFlagsData::trusted()
}

impl<M: Module> Code<'_, '_, M> {
    pub fn int(&mut self, v: i64) -> Value {
        self.b.ins().iconst(I64, v)
    }
    pub fn int32(&mut self, v: i32) -> Value {
        self.b.ins().iconst(I32, i64::from(v))
    }
    pub fn load(&mut self, ty: Type, base: Value, offset: i32) -> Value {
        self.b.ins().load(ty, flags(), base, offset)
    }
    pub fn store(&mut self, value: Value, base: Value, offset: i32) {
        self.b.ins().store(flags(), value, base, offset);
    }
    pub fn add_const(&mut self, base: Value, offset: i64) -> Value {
        if offset == 0 {
            return base;
        }
        let offset = self.int(offset);
        self.b.ins().iadd(base, offset)
    }
    /// A pointer field of the context (`abi::CTX_…`).
    pub fn field(&mut self, offset: i32) -> Value {
        if let Some(v) = self.fields.get(&offset) {
            return *v;
        }
        let ctx = self.ctx;
        let v = self.load(I64, ctx, offset);
        self.fields.insert(offset, v);
        v
    }
    /// An address in the pool.
    pub fn pool_address(&mut self, at: u32) -> Value {
        let global = self.module.declare_data_in_func(self.pool.id, self.b.func);
        let base = self.b.ins().symbol_value(I64, global);
        self.add_const(base, i64::from(at))
    }
    /// The address of entry `at` of the constant runs.
    pub fn consts_address(&mut self, at: u32) -> Value {
        self.pool_address(self.consts + 8 * at)
    }
    pub fn stack(&mut self, bytes: u32) -> StackSlot {
        self.b.create_sized_stack_slot(StackSlotData::new(
            StackSlotKind::ExplicitSlot,
            bytes.max(8),
            3,
        ))
    }
    pub fn stack_address(&mut self, slot: StackSlot) -> Value {
        self.b.ins().stack_addr(I64, slot, 0)
    }
    /// The address of an operand.
    pub fn place(&mut self, place: &Place) -> Value {
        match place {
            Place::Input(i) => {
                let inputs = self.field(abi::CTX_INPUTS);
                self.load(
                    I64,
                    inputs,
                    *i as i32 * abi::TENSOR_BYTES + abi::TENSOR_DATA,
                )
            }
            Place::Buffer(b) => {
                let buffers = self.field(abi::CTX_BUFFERS);
                self.load(I64, buffers, 8 * b.0 as i32)
            }
            Place::Weights(at) => {
                let weights = self.field(abi::CTX_WEIGHTS);
                self.add_const(weights, *at as i64)
            }
            Place::Pinned(i) => {
                let address = self.request.pinned.get(*i as usize).copied().unwrap_or(0);
                self.int(address as i64)
            }
            Place::Strings(i) => {
                let at = string_tensor(self.pool, self.request, *i);
                self.pool_address(at)
            }
        }
    }
    // ---- calls and tests -----------------------------------------------------------------------

    /// Calls a function of the runtime's table.
    pub fn runtime(&mut self, offset: i32, args: &[Value]) -> Option<Value> {
        let signature = match self.signatures.get(&offset) {
            Some(s) => *s,
            None => {
                let s: Signature = signature::runtime(self.module, offset);
                let s = self.b.import_signature(s);
                self.signatures.insert(offset, s);
                s
            }
        };
        let table = self.field(abi::CTX_RT);
        let callee = self.load(I64, table, offset);
        let call = self.b.ins().call_indirect(signature, callee, args);
        self.b.inst_results(call).first().copied()
    }
    /// Leaves the function with this status unless it is 0.
    pub fn check_status(&mut self, status: Option<Value>) {
        let Some(status) = status else { return };
        let next = self.b.create_block();
        self.b
            .ins()
            .brif(status, self.exit, &[BlockArg::Value(status)], next, &[]);
        self.b.switch_to_block(next);
    }
    /// Calls another function of the driver.
    pub fn call_checked(&mut self, callee: FuncRef) {
        let ctx = self.ctx;
        let call = self.b.ins().call(callee, &[ctx]);
        let status = self.b.inst_results(call).first().copied();
        self.check_status(status);
    }
    /// If `condition` holds: sets the error and leaves.
    pub fn fail_if(
        &mut self,
        condition: Value,
        code: i32,
        node: Option<u32>,
        message: &str,
        a: Value,
        b: Value,
    ) {
        let (bad, next) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(condition, bad, &[], next, &[]);
        self.b.set_cold_block(bad);
        self.b.switch_to_block(bad);
        let fail = *self.fail.get_or_insert_with(|| {
            let block = self.b.create_block();
            for ty in [I32, I32, I64, I64, I64] {
                self.b.append_block_param(block, ty);
            }
            block
        });
        let text = self.pool.string(message);
        let args = [
            self.int32(code),
            self.int32(node.map_or(-1, |n| n as i32)),
            self.int(i64::from(text)),
            a,
            b,
        ];
        self.b.ins().jump(fail, &args.map(BlockArg::Value));
        self.b.switch_to_block(next);
    }
    /// Ends what [`Code::fail_if`] began: one call for all that may fail.
    fn end_of_failures(&mut self) {
        let Some(fail) = self.fail else { return };
        self.b.set_cold_block(fail);
        self.b.switch_to_block(fail);
        // What was loaded on the way does not dominate this block.
        self.fields.clear();
        let [code, node, text, a, b] = *self.b.block_params(fail) else {
            return;
        };
        let strings = self.pool_address(0);
        let text = self.b.ins().iadd(strings, text);
        let ctx = self.ctx;
        let status = self.runtime(abi::RT_FAIL, &[ctx, code, node, text, a, b]);
        if let Some(status) = status {
            self.b.ins().jump(self.exit, &[BlockArg::Value(status)]);
        }
    }
    pub fn is(&mut self, cc: IntCC, a: Value, b: Value) -> Value {
        self.b.ins().icmp(cc, a, b)
    }
    pub fn is_const(&mut self, cc: IntCC, a: Value, b: i64) -> Value {
        let b = self.int(b);
        self.b.ins().icmp(cc, a, b)
    }
}

/// `lapidary_strings` of a constant, in the pool.
pub(super) fn string_tensor(pool: &mut Pool, request: &Request<'_>, i: u32) -> u32 {
    let data = request
        .plan
        .strings
        .get(i as usize)
        .and_then(|v| request.program.graph.constant(*v));
    let (mut offsets, mut bytes) = (vec![0i64], Vec::new());
    for s in data.iter().flat_map(|d| &d.strings) {
        bytes.extend_from_slice(s);
        offsets.push(bytes.len() as i64);
    }
    let offsets = pool.i64s(&offsets);
    let bytes = pool.raw(&bytes);
    pool.pointers(&[Some(offsets), Some(bytes)])
}
