//! What the processor could do: multiply-adds per second in a loop of nothing else.
//!
//! Twelve independent chains (24 with AVX-512) keep every FMA unit of today's cores busy. All threads run at once,
//! since clocks depend on how many do.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// GFLOP/s of f32 with so many threads: the greatest of a few tries.
pub fn measure(threads: usize) -> f64 {
    (0..5).map(|_| attempt(threads)).fold(0.0, f64::max)
}

fn attempt(threads: usize) -> f64 {
    let barrier = Barrier::new(threads);
    let rates: Vec<f64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    rate(Duration::from_millis(15))
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|w| w.join().unwrap_or(0.0))
            .collect()
    });
    rates.iter().sum()
}

/// GFLOP/s of this thread.
fn rate(time: Duration) -> f64 {
    let begin = Instant::now();
    let mut flops = 0u64;
    while begin.elapsed() < time {
        flops += burst();
    }
    flops as f64 / begin.elapsed().as_secs_f64() / 1e9
}

const ROUNDS: u64 = 20_000;

/// A burst of multiply-adds; how many operations it did.
fn burst() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512 F.
            unsafe { burst_avx512() };
            return ROUNDS * 24 * 16 * 2;
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
        {
            // SAFETY: the processor has AVX2 and FMA.
            unsafe { burst_avx2() };
            return ROUNDS * 12 * 8 * 2;
        }
    }
    burst_portable()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn burst_avx512() {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_set1_ps};
    let a = _mm512_set1_ps(black_box(0.999));
    let b = _mm512_set1_ps(black_box(0.001));
    let mut c = [_mm512_set1_ps(black_box(1.0)); 24];
    for _ in 0..ROUNDS {
        for each in &mut c {
            *each = _mm512_fmadd_ps(*each, a, b);
        }
    }
    black_box(&c);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn burst_avx2() {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps};
    let a = _mm256_set1_ps(black_box(0.999));
    let b = _mm256_set1_ps(black_box(0.001));
    let mut c = [_mm256_set1_ps(black_box(1.0)); 12];
    for _ in 0..ROUNDS {
        for each in &mut c {
            *each = _mm256_fmadd_ps(*each, a, b);
        }
    }
    black_box(&c);
}

/// Left to the compiler to make vectors of: 12 of 4 lanes.
fn burst_portable() -> u64 {
    let (a, b) = (black_box(0.999f32), black_box(0.001f32));
    let mut c = [[black_box(1.0f32); 4]; 12];
    for _ in 0..ROUNDS {
        for each in c.iter_mut().flatten() {
            *each = *each * a + b;
        }
    }
    black_box(&c);
    ROUNDS * 12 * 4 * 2
}
