//! What the memory could do: bytes read per second by a loop that adds them up.
//!
//! Once over more than the caches hold, and over and over through half of the second-level cache of each thread.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::machine::cache_bytes;

/// Bytes per nanosecond, which are GB/s, of all threads together.
#[derive(Clone, Copy, Debug)]
pub struct Bandwidth {
    pub memory: f64,
    pub cache: f64,
}

/// Reads of one place; the greatest of these counts.
const TRIES: usize = 4;
/// Time for reads through a cache.
const CACHE_TIME: Duration = Duration::from_millis(5);

/// With so many threads at once; `None` where there is no memory for it.
pub fn measure(threads: usize) -> Option<Bandwidth> {
    let threads = threads.max(1);
    let last = cache_bytes(3).or(cache_bytes(2)).unwrap_or(32 << 20);
    let each = (4 * last).clamp(64 << 20, 512 << 20) / threads / 8;
    let each = each.max(1024);
    let mut words: Vec<u64> = Vec::new();
    words.try_reserve_exact(each * threads).ok()?;
    words.resize(each * threads, 1);
    let near = (cache_bytes(2).unwrap_or(512 << 10) / 2 / 8)
        .max(1024)
        .min(each);
    let best = |piece: usize, time: Duration| {
        let rates = (0..TRIES).map(|_| attempt(&words, each, piece, time));
        rates.fold(0.0, f64::max)
    };
    Some(Bandwidth {
        memory: best(each, Duration::ZERO),
        cache: best(near, CACHE_TIME),
    })
}

/// Each thread reads the first `piece` words of its share, at least once and for the time given.
fn attempt(words: &[u64], each: usize, piece: usize, time: Duration) -> f64 {
    let shares: Vec<&[u64]> = words
        .chunks_exact(each)
        .map(|share| &share[..piece])
        .collect();
    let barrier = Barrier::new(shares.len());
    std::thread::scope(|scope| {
        let barrier = &barrier;
        let workers: Vec<_> = shares
            .iter()
            .map(|share| {
                scope.spawn(move || {
                    barrier.wait();
                    let begin = Instant::now();
                    let mut read = 0usize;
                    loop {
                        black_box(sum(black_box(share)));
                        read += size_of_val(*share);
                        if begin.elapsed() >= time {
                            break;
                        }
                    }
                    read as f64 / begin.elapsed().as_nanos().max(1) as f64
                })
            })
            .collect();
        let rates = workers.into_iter().map(|w| w.join().unwrap_or(0.0));
        rates.sum()
    })
}

fn sum(words: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512 F.
            return unsafe { sum_avx512(words) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { sum_avx2(words) };
        }
    }
    lanes(words)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn sum_avx512(words: &[u64]) -> u64 {
    lanes(words)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(words: &[u64]) -> u64 {
    lanes(words)
}

/// Independent sums, of which the compiler makes vectors.
#[inline(always)]
fn lanes(words: &[u64]) -> u64 {
    let mut sums = [0u64; 64];
    for chunk in words.chunks_exact(64) {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}
