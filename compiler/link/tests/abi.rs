//! The code generator and the runtime agree on the layouts that both write down.

use lapidary_codegen::kernel::{self, MathFn};
use lapidary_runtime::abi;

#[test]
fn the_worker_has_the_same_layout_on_both_sides() {
    let pairs = [
        (kernel::WORKER_SCRATCH, abi::WORKER_SCRATCH),
        (kernel::WORKER_SCRATCH_BYTES, abi::WORKER_SCRATCH_BYTES),
        (kernel::WORKER_FAULT_KIND, abi::WORKER_FAULT_KIND),
        (kernel::WORKER_FAULT_OPERAND, abi::WORKER_FAULT_OPERAND),
        (kernel::WORKER_FAULT_VALUE, abi::WORKER_FAULT_VALUE),
        (kernel::WORKER_FAULT_LIMIT, abi::WORKER_FAULT_LIMIT),
        (kernel::WORKER_RT, abi::WORKER_RT),
    ];
    for (i, (ours, theirs)) in pairs.into_iter().enumerate() {
        assert_eq!(ours, theirs, "field {i}");
    }
}

#[test]
fn functions_of_the_c_library_have_the_same_place_in_the_table() {
    for (func, offset) in [
        (MathFn::Exp, abi::RT_EXP),
        (MathFn::Log, abi::RT_LOG),
        (MathFn::Pow, abi::RT_POW),
        (MathFn::Sin, abi::RT_SIN),
        (MathFn::Cos, abi::RT_COS),
        (MathFn::Tan, abi::RT_TAN),
        (MathFn::Asin, abi::RT_ASIN),
        (MathFn::Acos, abi::RT_ACOS),
        (MathFn::Atan, abi::RT_ATAN),
        (MathFn::Sinh, abi::RT_SINH),
        (MathFn::Cosh, abi::RT_COSH),
        (MathFn::Tanh, abi::RT_TANH),
        (MathFn::Asinh, abi::RT_ASINH),
        (MathFn::Acosh, abi::RT_ACOSH),
        (MathFn::Atanh, abi::RT_ATANH),
        (MathFn::Erf, abi::RT_ERF),
        (MathFn::Fmod, abi::RT_FMOD),
    ] {
        assert_eq!(kernel::math_fn_offset(func), offset, "{func:?}");
    }
}
