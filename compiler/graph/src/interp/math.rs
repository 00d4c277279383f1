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

/// Inverse of the error function, by the approximation that runtimes of classical models share
/// (Winitzki; some 3 digits), 0 at the ends.
pub(super) fn erf_inv(y: f64) -> f64 {
    let a = 0.147;
    let t = (1.0 - y) * (1.0 + y);
    if t == 0.0 {
        return 0.0;
    }
    let l = t.ln();
    let v = 2.0 / (std::f64::consts::PI * a) + l / 2.0;
    ((v * v - l / a).sqrt() - v).sqrt().copysign(y)
}
