//! Functions on f32, compiled, against the same functions in f64.

use super::{Target, code, table, ulp_f32};
use crate::support::Mapped;
use lapidary_codegen::kernel::eval::Args;
use lapidary_codegen::kernel::{Mem, WORKER_RT};
use lapidary_codegen::loops::*;

/// `z[i] = f(x[i], …)` for a number of elements given when it is called.
pub struct Function {
    code: Mapped,
    table: Vec<usize>,
    /// Whether its code has wide vectors.
    pub wide: bool,
}

impl Function {
    fn new(
        inputs: u32,
        target: Target,
        make: impl FnOnce(&mut LoopKernel, &[ExprId]) -> ExprId,
    ) -> Function {
        let mut k = LoopKernel::new("function");
        let n = k.sym(SymKind::Param(0));
        let var = k.sym(SymKind::Loop);
        let args: Vec<ExprId> = (0..inputs)
            .map(|i| {
                let buf = k.buffer(format!("x{i}"), Mem::F32, BufferKind::Input(i));
                k.expr(Expr::Load {
                    buf,
                    at: Dim::from(var),
                })
            })
            .collect();
        let value = make(&mut k, &args);
        let buf = k.buffer("z", Mem::F32, BufferKind::Output(inputs));
        let store = Stmt::Store {
            buf,
            at: Dim::from(var),
            value,
        };
        k.body = vec![Stmt::For {
            var,
            from: Dim::Const(0),
            to: Dim::from(n),
            body: vec![store],
        }];
        let schedule = schedule::automatic(&k);
        let (bytes, wide) = code(&k, &schedule, target);
        Function {
            code: Mapped::new(&bytes),
            table: table(),
            wide,
        }
    }
    pub fn binary(op: BinOp, target: Target) -> Function {
        Function::new(2, target, |k, x| {
            k.expr(Expr::Bin {
                op,
                a: x[0],
                b: x[1],
            })
        })
    }
    /// The function of every element.
    pub fn run(&self, inputs: &[&[f32]]) -> Vec<f32> {
        let n = inputs[0].len();
        assert!(inputs.iter().all(|x| x.len() == n));
        let mut out = vec![0f32; n];
        let mut buffers: Vec<*mut u8> = inputs.iter().map(|x| x.as_ptr() as *mut u8).collect();
        buffers.push(out.as_mut_ptr().cast());
        let mut worker = [0u64; 16];
        worker[WORKER_RT as usize / 8] = self.table.as_ptr() as u64;
        // SAFETY: the kernel reads and writes `n` elements of each buffer.
        unsafe {
            self.code.call(Args {
                buffers: buffers.as_ptr(),
                dims: [n as i64].as_ptr(),
                task_begin: 0,
                task_end: 1,
                worker: worker.as_mut_ptr().cast(),
            });
        }
        out
    }
}

/// A function of one operand with its f64 counterpart.
pub struct Unary {
    function: Function,
    op: UnOp,
}

impl Unary {
    pub fn new(op: UnOp, target: Target) -> Unary {
        Unary {
            function: Function::new(1, target, |k, x| k.expr(Expr::Un { op, a: x[0] })),
            op,
        }
    }
    pub fn wide(&self) -> bool {
        self.function.wide
    }
    pub fn run(&self, xs: &[f32]) -> Vec<f32> {
        self.function.run(&[xs])
    }
}

mod c {
    unsafe extern "C" {
        pub fn erf(x: f64) -> f64;
    }
}

/// The exact value, as near as f64 has it.
pub fn exact(op: UnOp, x: f64) -> f64 {
    match op {
        UnOp::Exp => x.exp(),
        UnOp::Log => x.ln(),
        UnOp::Sin => x.sin(),
        UnOp::Cos => x.cos(),
        UnOp::Tan => x.tan(),
        UnOp::Asin => x.asin(),
        UnOp::Acos => x.acos(),
        UnOp::Atan => x.atan(),
        UnOp::Sinh => x.sinh(),
        UnOp::Cosh => x.cosh(),
        UnOp::Tanh => x.tanh(),
        UnOp::Asinh => {
            // The library's loses what is small.
            if x.abs() < 1e-4 {
                x - x * x * x / 6.0
            } else {
                x.asinh()
            }
        }
        UnOp::Acosh => x.acosh(),
        UnOp::Atanh => x.atanh(),
        // SAFETY: a pure function of the C library.
        UnOp::Erf => unsafe { c::erf(x) },
        UnOp::Sigmoid if x < 0.0 => x.exp() / (1.0 + x.exp()),
        UnOp::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        _ => f64::NAN,
    }
}

/// Where a function is furthest from exact.
#[derive(Clone, Copy, Debug)]
pub struct Worst {
    /// In units in the last place of the exact value.
    pub ulp: f64,
    pub at: f32,
    pub expected: f64,
    pub found: f32,
}

/// The furthest of some arguments.
pub fn worst(f: &Unary, xs: &[f32]) -> Worst {
    let expected: Vec<f64> = xs.iter().map(|x| exact(f.op, *x as f64)).collect();
    worst_of(f, xs, &expected)
}

/// The furthest of some arguments whose exact values are known. What rounds to infinity or is no
/// number must be just that.
pub fn worst_of(f: &Unary, xs: &[f32], exact: &[f64]) -> Worst {
    let mut most = Worst {
        ulp: 0.0,
        at: 0.0,
        expected: 0.0,
        found: 0.0,
    };
    for ((x, found), expected) in xs.iter().zip(f.run(xs)).zip(exact.iter().copied()) {
        let rounded = expected as f32;
        let same = found == rounded || (found.is_nan() && rounded.is_nan());
        let ulp = if same {
            // Half a unit or less: not what is looked for.
            continue;
        } else if !found.is_finite() || expected.is_nan() {
            // Infinity for a value near the greatest f32 is as far as that value's unit says.
            let past = 2f64.powi(128) - expected.abs();
            if found.is_infinite() && past > 0.0 {
                past / ulp_f32(expected)
            } else {
                f64::INFINITY
            }
        } else {
            (found as f64 - expected).abs() / ulp_f32(expected)
        };
        if ulp > most.ulp {
            most = Worst {
                ulp,
                at: *x,
                expected,
                found,
            };
        }
    }
    most
}
