//! Products with weights that a model dequantizes: DequantizeLinear of constants, perhaps a Transpose, then MatMul or Gemm.
//!
//! DequantizeLinear and Transpose note what their result is ([`Weights`]); a product whose right operand is noted, and
//! whose left one is f32, becomes one with weights of a few bits (library `matmul_nbits`, [`super::contrib::nbits`]), so that
//! weights stay as small as the model has them, and are not dequantized in memory in each run. What the notes' nodes
//! computed is dead then, unless others read it.

use lapidary_graph::{DType, Dim, TensorData, ValueId};

use super::contrib::nbits;
use crate::context::{Ctx, same};
use crate::error::Fail;

/// Columns that are packed side by side.
const SIDE: usize = 64;

/// A matrix of constants that is dequantized.
#[derive(Clone, Copy)]
pub(crate) struct Weights {
    data: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
    /// The axis of the constants that scales belong to.
    axis: usize,
    /// Elements along the axis that share a scale; 0: each has its own, or all have one.
    block: i64,
    /// Whether the value has the axes of the constants exchanged.
    turned: bool,
}

impl Weights {
    /// The constants of a DequantizeLinear whose result is `y`, if they are a matrix of few bits.
    pub fn note(
        cx: &mut Ctx,
        y: ValueId,
        (data, scale, zero): (ValueId, ValueId, Option<ValueId>),
    ) -> Result<(), Fail> {
        let constant = |v| cx.g.constant(v);
        let small = constant(data).is_some_and(|t| bits(t.dtype).is_some() && t.dims.len() == 2);
        let all = constant(scale).is_some() && zero.is_none_or(|z| constant(z).is_some());
        if !small || !all || cx.dtype(scale) != DType::F32 || cx.dtype(y) != DType::F32 {
            return Ok(());
        }
        let weights = Weights {
            data,
            scale,
            zero,
            axis: cx.axis("axis", 2)?,
            block: cx.int("block_size", 0)?,
            turned: false,
        };
        cx.quantized.insert(y, weights);
        Ok(())
    }

    /// What is known of `x` holds for `y`, which has its axes exchanged.
    pub fn note_turned(cx: &mut Ctx, y: ValueId, x: ValueId) {
        if let Some(w) = cx.quantized.get(&x).copied() {
            let turned = !w.turned;
            cx.quantized.insert(y, Weights { turned, ..w });
        }
    }
}

fn bits(t: DType) -> Option<i64> {
    match t {
        DType::I2 | DType::U2 => Some(2),
        DType::I4 | DType::U4 => Some(4),
        DType::I8 | DType::U8 => Some(8),
        _ => None,
    }
}

/// Numbers of few bits as those from 0 up.
fn unsigned(t: &TensorData, bits: i64) -> impl Fn(u8) -> u8 + use<> {
    let signed = matches!(t.dtype, DType::I2 | DType::I4 | DType::I8);
    let middle = if signed { 1 << (bits - 1) } else { 0 };
    let mask = ((1u16 << bits) - 1) as u8;
    move |v: u8| v.wrapping_add(middle) & mask
}

/// `a b` (`a b'`: `turned`) with packed weights, if b is noted and the kernel takes it.
pub(crate) fn product(
    cx: &mut Ctx,
    a: ValueId,
    b: ValueId,
    turned: bool,
) -> Result<Option<ValueId>, Fail> {
    let Some(w) = cx.quantized.get(&b).copied() else {
        return Ok(None);
    };
    let dims = match cx.rank(a) {
        Ok(1..) if cx.dtype(a) == DType::F32 => cx.dims(a)?,
        _ => return Ok(None),
    };
    let Some(packed) = pack(cx, &w, w.turned != turned) else {
        return Ok(None);
    };
    let last = dims.last().cloned().unwrap_or_default();
    same("the inner dimensions", &last, &Dim::Const(packed.k))?;
    let data = |dtype, dims: Vec<i64>, bytes: Vec<u8>| TensorData {
        dtype,
        dims,
        bytes: bytes.into(),
        strings: Vec::new(),
    };
    let (n, rows) = (packed.n, packed.bytes.len() as i64 / packed.n.max(1));
    let b = cx.constant(data(DType::U8, vec![n, rows], packed.bytes));
    let scales = packed.scales.iter().flat_map(|s| s.to_le_bytes());
    let shape = vec![n, packed.scales.len() as i64 / n.max(1)];
    let scales = cx.constant(data(DType::F32, shape, scales.collect()));
    let zeros = packed.zeros.map(|zeros| {
        let shape = vec![n, zeros.len() as i64 / n.max(1)];
        cx.constant(data(DType::U8, shape, zeros))
    });
    let call = nbits::Call {
        n,
        k: packed.k,
        bits: packed.bits,
        block: packed.block,
    };
    let operands = [Some(a), Some(b), Some(scales), zeros, None, None];
    call.emit(cx, operands, dims).map(Some)
}

/// Weights in the form of `matmul_nbits`.
struct Packed {
    n: i64,
    k: i64,
    bits: i64,
    block: i64,
    bytes: Vec<u8>,
    scales: Vec<f32>,
    /// `None`: the middle of the numbers.
    zeros: Option<Vec<u8>>,
}

fn pack(cx: &Ctx, w: &Weights, turned: bool) -> Option<Packed> {
    let constant = |v| cx.g.constant(v);
    let (Some(data), Some(scale)) = (constant(w.data), constant(w.scale)) else {
        return None;
    };
    let bits = bits(data.dtype)?;
    // Axis k of the constants is the inner one of the product.
    let inner = usize::from(turned);
    let (k, n) = (data.dims[inner], data.dims[1 - inner]);
    let count = scale.len() as i64;
    if k < 1
        || n < 1
        || k > i32::MAX as i64
        || n > i32::MAX as i64
        || data.bytes.len() != data.len()
    {
        return None;
    }
    let block = match w.block {
        0 => {
            if !(count == 1 || (w.axis != inner && count == n)) {
                return None;
            }
            (k as u64).next_power_of_two().clamp(16, 256) as i64
        }
        size => {
            let shape = match inner {
                0 => [(k + size - 1) / size, n],
                _ => [n, (k + size - 1) / size],
            };
            let power = 1 << size.trailing_zeros().min(8);
            if size < 1 || w.axis != inner || scale.dims != shape || power < 16 {
                return None;
            }
            power
        }
    };
    let blocks = (k + block - 1) / block;
    // The number of a scale for block i of column c.
    let at = |c: i64, i: i64| match (w.block, count, inner) {
        (0, 1, _) => 0,
        (0, ..) => c,
        (size, _, 0) => i * block / size * n + c,
        (size, ..) => c * ((k + size - 1) / size) + i * block / size,
    } as usize;
    let each = || (0..n).flat_map(|c| (0..blocks).map(move |i| (c, i)));
    let numbers: Vec<f32> = scale
        .bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    let scales = each().map(|(c, i)| numbers[at(c, i)]).collect();

    let lift = unsigned(data, bits);
    let zero_row = ((blocks * bits + 7) / 8) as usize;
    let zero = w.zero.and_then(constant);
    if zero.is_some_and(|z| z.dtype != data.dtype || z.len() as i64 != count) {
        return None;
    }
    let zeros = match (zero, lift(0)) {
        // The middle is what there is without zero points.
        (None, 1..) => None,
        (zero, _) => {
            let mut packed = vec![0; n as usize * zero_row];
            for (c, i) in each() {
                let q = zero.map_or(0, |z| lift(z.bytes[at(c, i)]));
                let bit = (i * bits) as usize;
                packed[c as usize * zero_row + bit / 8] |= q << (bit % 8);
            }
            Some(packed)
        }
    };

    let (depth, per) = (k as usize, (8 / bits) as usize);
    let row = (blocks * block * bits / 8) as usize;
    let mut bytes = vec![0; n as usize * row];
    let mut put = |c: usize, i: usize, v: u8| {
        bytes[c * row + i / per] |= lift(v) << (i % per * bits as usize);
    };
    if turned {
        for (c, column) in data.bytes.chunks_exact(depth).enumerate() {
            for (i, v) in column.iter().enumerate() {
                put(c, i, *v);
            }
        }
    } else {
        let width = n as usize;
        for first in (0..width).step_by(SIDE) {
            let end = width.min(first + SIDE);
            for i in 0..depth {
                for c in first..end {
                    put(c, i, data.bytes[i * width + c]);
                }
            }
        }
    }
    Some(Packed {
        n,
        k,
        bits,
        block,
        bytes,
        scales,
        zeros,
    })
}
