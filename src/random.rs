//! Seeded random inputs, the same on every machine.
//!
//! Floats are drawn evenly from -1 to 1; integers from 0 up to a small bound, since most integer inputs are indices
//! (of tokens, positions, types) that must be in range; bools are even chances.

use half::{bf16, f16};
use lapidary_graph::minifloat;
use lapidary_runtime::{DType, RuntimeError, Tensor};

/// A generator of 64-bit numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Equal seeds give equal numbers.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to a bound, without it (0 for a bound of 0).
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// From -1 to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 40) as f64 / (1u64 << 23) as f64 - 1.0
    }

    /// A tensor; integers are below `bound`.
    pub fn tensor(
        &mut self,
        dtype: DType,
        shape: &[usize],
        bound: u8,
    ) -> Result<Tensor, RuntimeError> {
        let mut tensor = Tensor::zeros(dtype, shape)?;
        let bound = u64::from(bound.max(1));
        let width = dtype.bytes();
        if width == 0 {
            return Ok(tensor);
        }
        let small = lapidary_graph::DType::from_onnx(dtype.onnx()).filter(|t| t.is_minifloat());
        for element in tensor.bytes_mut().chunks_exact_mut(width) {
            match dtype {
                DType::F32 => element.copy_from_slice(&(self.unit() as f32).to_le_bytes()),
                DType::F64 => element.copy_from_slice(&self.unit().to_le_bytes()),
                DType::F16 => element.copy_from_slice(&f16::from_f64(self.unit()).to_le_bytes()),
                DType::BF16 => element.copy_from_slice(&bf16::from_f64(self.unit()).to_le_bytes()),
                DType::Bool => element.fill((self.next() >> 63) as u8),

                DType::C64 | DType::C128 => {}
                _ if small.is_some() => {
                    let code = small.map(|t| minifloat::encode(t, self.unit()));
                    element.fill(code.unwrap_or(0));
                }
                // The lowest byte of an integer; types of less than a byte hold 0 or 1 all.
                _ => {
                    let small = matches!(dtype, DType::I4 | DType::U4 | DType::I2 | DType::U2);
                    let value = (self.next() >> 33) % if small { 2 } else { bound };
                    if let Some(lowest) = element.first_mut() {
                        *lowest = value as u8;
                    }
                }
            }
        }
        Ok(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_tensors_and_values_in_range() {
        let make = |seed| Random::new(seed).tensor(DType::F32, &[1000], 1).unwrap();
        assert_eq!(make(7), make(7));
        assert_ne!(make(7), make(8));
        let tensor = make(7);
        let values = tensor.as_slice::<f32>().unwrap();
        assert!(values.iter().all(|v| (-1.0..=1.0).contains(v)));
        assert!(values.iter().sum::<f32>().abs() < 100.0);
    }
}
