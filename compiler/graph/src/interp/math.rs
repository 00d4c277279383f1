//! Special functions in f64.

/// The error function, to a few units in the last place.
///
/// Below 3 the series `2/sqrt(pi) e^(-x^2) sum 2^n x^(2n+1) / (1*3*…*(2n+1))`, whose terms are all
/// of one sign; above, 1 minus the continued fraction of `erfc`, which is small there.
pub fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let a = x.abs();
    let scale = 1.0 / std::f64::consts::PI.sqrt();
    let v = if a < 3.0 {
        let (mut term, mut sum, mut n) = (a, a, 0.0);
        while term > sum * 1e-18 {
            n += 1.0;
            term *= 2.0 * a * a / (2.0 * n + 1.0);
            sum += term;
        }
        2.0 * scale * (-a * a).exp() * sum
    } else if a < 6.5 {
        // erfc(a) = e^(-a^2) / sqrt(pi) / (a + (1/2)/(a + 1/(a + (3/2)/(a + …))))
        let mut tail = a;
        for n in (1..=60).rev() {
            tail = a + (n as f64 / 2.0) / tail;
        }
        1.0 - scale * (-a * a).exp() / tail
    } else {
        1.0
    };
    v.min(1.0).copysign(x)
}

/// Inverse of the error function: Newton's steps from a rough start.
pub(super) fn erf_inv(y: f64) -> f64 {
    if y.abs() >= 1.0 || y.is_nan() {
        return match y.abs() == 1.0 {
            true => f64::INFINITY.copysign(y),
            false => f64::NAN,
        };
    }
    let l = (1.0 - y * y).ln();
    let k = 2.0 / (std::f64::consts::PI * 0.147) + l / 2.0;
    let mut x = ((k * k - l / 0.147).sqrt() - k).sqrt().copysign(y);
    for _ in 0..4 {
        let slope = 2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp();
        if slope > 0.0 {
            x -= (erf(x) - y) / slope;
        }
    }
    x
}
