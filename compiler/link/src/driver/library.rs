//! Library steps: descriptors, the call, and the dimensions that come out of it.

use super::code::{Code, signature};
use super::dims::Env;
use super::pool::Record;
use crate::error::LinkError;
use crate::plan::{Place, PlanStep, Tensor};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{InstBuilder, StackSlot, Value};
use cranelift_module::{Linkage, Module};
use lapidary_graph::{Container, Dim, Sym, SymbolOrigin};
use lapidary_lower::program::LibraryStep;
use lapidary_runtime::abi;
use std::collections::BTreeSet;

/// What the names of the runtime's library kernels begin with.
const PREFIX: &str = "lap_lib_";

/// The link name of a library kernel: the runtime's own have a prefix; one that begins with `$` is
/// the application's, and stands for itself.
pub(crate) fn symbol(function: &str) -> String {
    match function.strip_prefix('$') {
        Some(own) => own.to_string(),
        None => format!("{PREFIX}{function}"),
    }
}

impl<M: Module> Code<'_, '_, M> {
    pub(super) fn library_step(
        &mut self,
        step: &PlanStep,
        call: &LibraryStep,
        inputs: &[Option<Tensor>],
        outputs: &[Tensor],
        stack: StackSlot,
    ) -> Result<(), LinkError> {
        for (i, t) in inputs.iter().enumerate() {
            let desc = match t {
                Some(t) => self.input_desc(t),
                None => self.int(0),
            };
            self.b.ins().stack_store(I64, desc, stack, 8 * i as i32);
        }
        let fresh = self.fresh(call, outputs);
        for (i, t) in outputs.iter().enumerate() {
            let desc = self.output_desc(t, &fresh);
            let at = 8 * (inputs.len() + i) as i32;
            self.b.ins().stack_store(I64, desc, stack, at);
        }
        let name = symbol(&call.function);
        let signature = signature::library(self.module);
        let function = self
            .module
            .declare_function(&name, Linkage::Import, &signature)
            .map_err(|e| LinkError::code(&name, e))?;
        let function = self.module.declare_func_in_func(function, self.b.func);
        let function = self.b.ins().func_addr(I64, function);
        let attrs = self.attrs(call);
        let attrs = self.pool_address(attrs);
        let ins = self.stack_address(stack);
        let outs = self.add_const(ins, 8 * inputs.len() as i64);
        let n_in = self.int32(inputs.len() as i32);
        let n_out = self.int32(outputs.len() as i32);
        let node = self.int32(step.node.map_or(-1, |n| n as i32));
        let ctx = self.ctx;
        let status = self.runtime(
            abi::RT_CALL_LIBRARY,
            &[ctx, function, ins, n_in, outs, n_out, attrs, node],
        );
        self.check_status(status);
        self.take_dims(step, outputs, fresh);
        Ok(())
    }

    /// `lap_attrs` (kernels/lap_attrs.h) in the pool.
    fn attrs(&mut self, call: &LibraryStep) -> u32 {
        let ints = self.pool.i64s(&call.ints);
        let mut floats = Record::default();
        for f in &call.floats {
            floats.f64(*f);
        }
        let floats = self.pool.record(floats);
        let mut strings = Record::default();
        for s in &call.strings {
            let at = self.pool.blob(s);
            strings.pool(Some(at));
            strings.i64(s.len() as i64);
        }
        let strings = self.pool.record(strings);
        let mut record = Record::default();
        record.pool(Some(ints));
        record.pool(Some(floats));
        record.pool(Some(strings));
        record.i32(call.ints.len() as i32);
        record.i32(call.floats.len() as i32);
        record.i32(call.strings.len() as i32);
        record.i32(call.bodies.len() as i32);
        let bodies = (!call.bodies.is_empty()).then(|| self.bodies(call));
        record.pool(bodies);
        self.pool.record(record)
    }

    /// An array of `lap_body`.
    fn bodies(&mut self, call: &LibraryStep) -> u32 {
        let request = self.request;
        let mut record = Record::default();
        for b in &call.bodies {
            let mut args = Record::default();
            let all = request.program.bodies.get(*b).map_or(&[][..], |b| &b.args);
            for a in all {
                args.i32(*a);
            }
            let args = self.pool.record(args);
            record.data(request.bodies.get(*b).copied());
            record.pool(Some(args));
            record.i32(all.len() as i32);
            record.i32(0);
        }
        self.pool.record(record)
    }

    fn desc_address(&mut self, t: &Tensor) -> Value {
        let (base, i) = match (t.desc, &t.place) {
            (Some(d), _) => (abi::CTX_DESCS, d),
            (None, Place::Input(i)) => (abi::CTX_INPUTS, *i),
            (None, _) => (abi::CTX_DESCS, 0),
        };
        let base = self.field(base);
        self.add_const(base, i64::from(i) * i64::from(abi::TENSOR_BYTES))
    }

    fn input_desc(&mut self, t: &Tensor) -> Value {
        let desc = self.desc_address(t);
        let (Some(_), Some(shape)) = (t.desc, &t.shape) else {
            // The input's own descriptor, or one that the producer of the value has filled.
            return desc;
        };
        let data = self.place(&t.place);
        self.store(data, desc, abi::TENSOR_DATA);
        let dtype = self.int32(t.dtype as i32);
        self.store(dtype, desc, abi::TENSOR_DTYPE);
        let tensor = self.int32(abi::kind::TENSOR);
        self.store(tensor, desc, abi::TENSOR_KIND);
        let rank = self.int32(shape.len() as i32);
        self.store(rank, desc, abi::TENSOR_RANK);
        for (axis, d) in shape.iter().enumerate() {
            let value = self.known(d);
            self.store(value, desc, abi::TENSOR_DIMS + 8 * axis as i32);
        }
        desc
    }

    fn is_dynamic(&self, t: &Tensor) -> bool {
        match t.place {
            Place::Buffer(b) => self
                .request
                .plan
                .buffers
                .get(b)
                .is_none_or(|b| b.bytes.is_none()),
            _ => true,
        }
    }

    /// Symbols that the call sets.
    fn fresh(&self, call: &LibraryStep, outputs: &[Tensor]) -> BTreeSet<Sym> {
        let symbols = &self.request.program.graph.symbols;
        outputs
            .iter()
            .filter(|t| self.is_dynamic(t))
            .flat_map(|t| t.shape.iter().flatten())
            .filter_map(Dim::as_sym)
            .filter(|s| {
                matches!(symbols.get(*s).map(|d| &d.origin),
                    Some(SymbolOrigin::Node { node, .. }) if *node == call.node)
            })
            .collect()
    }

    fn output_desc(&mut self, t: &Tensor, fresh: &BTreeSet<Sym>) -> Value {
        let desc = self.desc_address(t);
        let dynamic = self.is_dynamic(t);
        let data = if dynamic {
            self.int(0)
        } else {
            self.place(&t.place)
        };
        self.store(data, desc, abi::TENSOR_DATA);
        let dtype = self.int32(t.dtype as i32);
        self.store(dtype, desc, abi::TENSOR_DTYPE);
        let buffer = match t.place {
            Place::Buffer(b) => b.0 as i32,
            _ => -1,
        };
        let buffer = self.int32(buffer);
        self.store(buffer, desc, abi::TENSOR_BUFFER);
        let kind = self.int32(kind(t.container));
        self.store(kind, desc, abi::TENSOR_KIND);
        let shape = t.shape.as_deref().unwrap_or(&[]);
        let rank = self.int32(if dynamic { -1 } else { shape.len() as i32 });
        self.store(rank, desc, abi::TENSOR_RANK);
        for (axis, d) in shape.iter().enumerate() {
            let value = if mentions(d, fresh) {
                self.int(-1)
            } else {
                self.known(d)
            };
            self.store(value, desc, abi::TENSOR_DIMS + 8 * axis as i32);
        }
        desc
    }

    /// Reads the dimensions that the kernel has decided, and tests those that were known.
    fn take_dims(&mut self, step: &PlanStep, outputs: &[Tensor], mut fresh: BTreeSet<Sym>) {
        let mut env = Env::default();
        for (i, t) in outputs.iter().enumerate() {
            if !self.is_dynamic(t) {
                continue;
            }
            let desc = self.desc_address(t);
            let data = self.load(I64, desc, abi::TENSOR_DATA);
            let missing = self.is_const(IntCC::Equal, data, 0);
            let zero = self.int(i as i64);
            let message = "output {a} of the library kernel was not made";
            self.fail_if(missing, abi::code::INTERNAL, step.node, message, zero, zero);
            let Some(shape) = &t.shape else { continue };
            let rank = self.load(I32, desc, abi::TENSOR_RANK);
            let rank = self.b.ins().sextend(I64, rank);
            let expected = self.int(shape.len() as i64);
            let wrong = self.is(IntCC::NotEqual, rank, expected);
            let message = "an output has rank {a}, expected {b}";
            self.fail_if(wrong, abi::code::CHECK, step.node, message, rank, expected);
            for (axis, d) in shape.iter().enumerate() {
                let found = self.load(I64, desc, abi::TENSOR_DIMS + 8 * axis as i32);
                if let Some(s) = d.as_sym()
                    && fresh.remove(&s)
                {
                    let dims = self.field(abi::CTX_DIMS);
                    self.store(found, dims, 8 * s.0 as i32);
                    continue;
                }
                if !fresh.is_empty() && mentions(d, &fresh) {
                    continue;
                }
                let expected = match self.request.plan.slots.slot(d) {
                    Some(_) => self.known(d),
                    None => env.dim(self, d),
                };
                let wrong = self.is(IntCC::NotEqual, found, expected);
                env.flag(wrong);
                let message = format!("axis {axis} of an output is {{a}}, expected {{b}}");
                if let Some(wrong) = env.take_flags(self) {
                    self.fail_if(
                        wrong,
                        abi::code::CHECK,
                        step.node,
                        &message,
                        found,
                        expected,
                    );
                }
            }
        }
    }
}

/// `lap_tensor.kind` of a value in this container.
fn kind(container: Option<Container>) -> i32 {
    match container {
        None => abi::kind::TENSOR,
        Some(Container::Sequence) => abi::kind::SEQUENCE,
        Some(Container::Optional) => abi::kind::OPTIONAL,
        Some(Container::Map(_)) => abi::kind::MAP,
    }
}

fn mentions(d: &Dim, symbols: &BTreeSet<Sym>) -> bool {
    let mut all = BTreeSet::new();
    d.collect_symbols(&mut all);
    !all.is_disjoint(symbols)
}
