//! The elementary functions on f32 stay within 4 units in the last place of the exact value, at
//! every level. A sample of all f32 and what is special; `examples/math_accuracy.rs` takes all.

mod loops_support;
mod support;

use lapidary_codegen::loops::{BinOp, UnOp, interp};
use loops_support::accuracy::{Function, Unary, exact, worst};
use loops_support::{Target, targets, ulp_f32};
use support::Numbers;

const LIMIT: f64 = 4.0;

/// Specials, the edges of ranges, and every 40,961st f32.
fn sample() -> Vec<f32> {
    let mut all = vec![
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MIN_POSITIVE,
        -f32::MIN_POSITIVE,
        f32::MAX,
        f32::MIN,
        f32::from_bits(1),
        f32::from_bits(0x8000_0001),
        f32::from_bits(0x007f_ffff),
        1.0,
        -1.0,
    ];
    // Where results overflow, vanish, or one polynomial takes over from another.
    for edge in [
        88.72283f32,
        -87.33654,
        -103.97208,
        -103.27893,
        0.625,
        9.0,
        9.010913,
        0.927_734_4,
        3.919,
        4.0,
        std::f32::consts::FRAC_1_SQRT_2,
        std::f32::consts::SQRT_2,
        16.6355,
        88.02969,
        104.0,
        89.0,
    ] {
        for at in [edge, -edge] {
            let bits = at.to_bits();
            all.extend((bits - 200..bits + 200).map(f32::from_bits));
        }
    }
    all.extend((0..=u32::MAX).step_by(40_961).map(f32::from_bits));
    let mut numbers = Numbers(1);
    for scale in [1.0f32, 4.0, 20.0, 100.0] {
        all.extend((0..5000).map(|_| numbers.f32() * scale));
    }
    all
}

fn check(op: UnOp, functions: &[Target]) {
    let xs = sample();
    for target in functions {
        let f = Unary::new(op, *target);
        let found = worst(&f, &xs);
        assert!(
            found.ulp <= LIMIT,
            "{op:?} at {target:?}: {} units off at {:?} ({:#010x}): expected {:e}, found {:e}",
            found.ulp,
            found.at,
            found.at.to_bits(),
            found.expected,
            found.found
        );
    }
}

macro_rules! functions {
    ($($name:ident: $op:ident,)*) => {
        $(#[test]
        fn $name() {
            check(UnOp::$op, &targets());
        })*
    };
}

functions! {
    exp_is_accurate: Exp,
    log_is_accurate: Log,
    tanh_is_accurate: Tanh,
    erf_is_accurate: Erf,
    sigmoid_is_accurate: Sigmoid,
    sin_is_accurate: Sin,
    cos_is_accurate: Cos,
    tan_is_accurate: Tan,
    asin_is_accurate: Asin,
    acos_is_accurate: Acos,
    atan_is_accurate: Atan,
    sinh_is_accurate: Sinh,
    cosh_is_accurate: Cosh,
    asinh_is_accurate: Asinh,
    acosh_is_accurate: Acosh,
    atanh_is_accurate: Atanh,
}

#[test]
fn pow_is_accurate() {
    let mut numbers = Numbers(3);
    let mut pairs: Vec<(f32, f32)> = Vec::new();
    let specials = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        2.0,
        -2.0,
        0.5,
        3.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MAX,
        1e-40,
    ];
    for a in specials {
        pairs.extend(specials.map(|b| (a, b)));
    }
    for _ in 0..20_000 {
        pairs.push((numbers.f32().abs() * 30.0, numbers.f32() * 20.0));
        pairs.push((
            f32::from_bits(numbers.next() as u32),
            (numbers.next() % 9) as f32 - 4.0,
        ));
    }
    for target in targets() {
        let f = Function::binary(BinOp::Pow, target);
        let (xs, ys): (Vec<f32>, Vec<f32>) = pairs.iter().copied().unzip();
        for ((x, y), found) in pairs.iter().zip(f.run(&[&xs, &ys])) {
            let expected = (*x as f64).powf(*y as f64);
            let rounded = expected as f32;
            let fits = match rounded.is_finite() {
                true => (found as f64 - expected).abs() <= LIMIT * ulp_f32(expected),
                false => found == rounded || (found.is_nan() && rounded.is_nan()),
            };
            assert!(
                fits,
                "{target:?}: {x:e}^{y:e} is {expected:e}, found {found:e}"
            );
        }
    }
}

#[test]
fn zeros_keep_their_sign_and_nan_stays() {
    for target in targets() {
        for op in [
            UnOp::Tanh,
            UnOp::Erf,
            UnOp::Sin,
            UnOp::Tan,
            UnOp::Asin,
            UnOp::Atan,
            UnOp::Sinh,
            UnOp::Asinh,
            UnOp::Atanh,
        ] {
            let found = Unary::new(op, target).run(&[-0.0, 0.0, f32::NAN]);
            assert_eq!(
                found[0].to_bits(),
                (-0.0f32).to_bits(),
                "{op:?} of -0 at {target:?}"
            );
            assert_eq!(found[1].to_bits(), 0, "{op:?} of 0 at {target:?}");
            assert!(found[2].is_nan(), "{op:?} of NaN at {target:?}");
        }
        for op in [UnOp::Exp, UnOp::Log, UnOp::Sigmoid, UnOp::Cos] {
            assert!(
                Unary::new(op, target).run(&[f32::NAN])[0].is_nan(),
                "{op:?} of NaN at {target:?}"
            );
        }
    }
}

#[test]
fn the_interpreters_erf_is_near_the_librarys() {
    for i in -70_000..70_000 {
        let x = i as f64 / 10_000.0;
        let (found, expected) = (interp::erf(x), exact(UnOp::Erf, x));
        assert!(
            (found - expected).abs() <= 8.0 * f64::EPSILON * expected.abs(),
            "{x}"
        );
    }
}
