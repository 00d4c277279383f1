//! How far the elementary functions are from exact, over all f32: for each function and level the
//! largest error in units in the last place, and where it is.
//!
//! `cargo run --release -p lapidary-codegen --example math_accuracy [-- FUNCTION…] [step=N]`; with a
//! step only every N-th f32 is taken.

#[path = "../tests/loops_support/mod.rs"]
mod loops_support;
#[path = "../tests/support/mod.rs"]
mod support;

use lapidary_codegen::loops::UnOp;
use loops_support::accuracy::{Unary, Worst, exact, worst_of};
use loops_support::targets;

fn main() {
    let (mut names, mut step) = (Vec::new(), 1u64);
    for arg in std::env::args().skip(1) {
        match arg.strip_prefix("step=").and_then(|n| n.parse().ok()) {
            Some(n) => step = n,
            None => names.push(arg),
        }
    }
    let all = [
        ("exp", UnOp::Exp),
        ("log", UnOp::Log),
        ("tanh", UnOp::Tanh),
        ("erf", UnOp::Erf),
        ("sigmoid", UnOp::Sigmoid),
        ("sin", UnOp::Sin),
        ("cos", UnOp::Cos),
    ];
    println!("function  target            code  worst ulp  at");
    for (name, op) in all {
        if !names.is_empty() && !names.iter().any(|n| n == name) {
            continue;
        }
        let functions: Vec<Unary> = targets().into_iter().map(|t| Unary::new(op, t)).collect();
        let mut most: Vec<Option<Worst>> = vec![None; functions.len()];
        let (mut xs, mut next) = (Vec::with_capacity(1 << 16), 0u64);
        while next <= u32::MAX as u64 {
            xs.clear();
            while xs.len() < 1 << 16 && next <= u32::MAX as u64 {
                xs.push(f32::from_bits(next as u32));
                next += step.max(1);
            }
            let values: Vec<f64> = xs.iter().map(|x| exact(op, *x as f64)).collect();
            for (f, most) in functions.iter().zip(&mut most) {
                let w = worst_of(f, &xs, &values);
                if most.is_none_or(|m| w.ulp > m.ulp) {
                    *most = Some(w);
                }
            }
        }
        for ((target, f), w) in targets().iter().zip(&functions).zip(most) {
            let Some(w) = w else { continue };
            println!(
                "{name:8}  {:16}  {:4}  {:9.3}  {:e} ({:#010x}): {:e}, exact {:e}",
                format!("{target:?}"),
                if f.wide() { "wide" } else { "clif" },
                w.ulp,
                w.at,
                w.at.to_bits(),
                w.found,
                w.expected
            );
        }
    }
}
