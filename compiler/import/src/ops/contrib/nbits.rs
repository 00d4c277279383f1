//! MatMulNBits: a product with weights of 2, 4 or 8 bits, which stay packed and are unpacked inside the kernel.

use lapidary_graph::{DType, Dim, ValueId};

use crate::builder::{LibOut, first};
use crate::context::{Ctx, Outs, broadcasts_to, one, same};
use crate::error::{Fail, invalid, unsupported};

/// Fails unless input `i` surely may have so many elements.
fn sized(cx: &Ctx, i: usize, name: &str, expected: i64) -> Result<(), Fail> {
    let Some(v) = cx.opt(i) else { return Ok(()) };
    let found = Dim::product(&cx.dims(v)?);
    if found.equals(&Dim::Const(expected)) == Some(false) {
        return Err(invalid(format!(
            "input {i} ('{name}') has {found} elements, expected {expected}"
        )));
    }
    Ok(())
}

/// Library `matmul_nbits`.
pub(crate) struct Call {
    pub n: i64,
    pub k: i64,
    pub bits: i64,
    pub block: i64,
}

impl Call {
    /// Inputs: a `[.., K]` (f32), weights (u8, for each of N columns its blocks), scales (f32, one a
    /// block), zero points or none (u8, packed a column, or f32), the group of each row of the weights or none (i32 `[K]`),
    /// bias or none (f32 `[N]`). Ints: N, K, bits, block size. Output `[.., N]`. `dims` are those of a.
    pub fn emit(
        self,
        cx: &mut Ctx,
        inputs: [Option<ValueId>; 6],
        mut dims: Vec<Dim>,
    ) -> Result<ValueId, Fail> {
        if let Some(last) = dims.last_mut() {
            *last = Dim::Const(self.n);
        }
        let ints = vec![self.n, self.k, self.bits, self.block];
        let out = LibOut::fixed(DType::F32, dims);
        first(&cx.library("matmul_nbits", ints, vec![], inputs.to_vec(), vec![out]))
    }
}

/// MatMulNBits.
pub(crate) fn matmul(cx: &mut Ctx) -> Outs {
    let (a, b, scales) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (n, k) = (cx.int_required("N")?, cx.int_required("K")?);
    let (bits, block) = (cx.int("bits", 4)?, cx.int_required("block_size")?);
    let small = |v: i64| (1..=i32::MAX as i64).contains(&v);
    if !small(n) || !small(k) {
        return Err(invalid(format!(
            "attributes 'N' {n} and 'K' {k}, expected 1 and more"
        )));
    }
    if !matches!(bits, 2 | 4 | 8) {
        return Err(unsupported(format!(
            "attribute 'bits' is {bits}, expected 2, 4 or 8"
        )));
    }
    if !matches!(block, 16 | 32 | 64 | 128 | 256) {
        return Err(invalid(format!(
            "attribute 'block_size' is {block}, expected a power of 2 from 16 to 256"
        )));
    }
    super::refuse_ints(cx, &[("weight_prepacked", 0)])?;
    let blocks = (k + block - 1) / block;
    sized(cx, 1, "B", n * blocks * (block * bits / 8))?;
    sized(cx, 2, "scales", n * blocks)?;
    let group = match cx.opt(4) {
        // Numbers behind K belong to no row.
        Some(g) if Dim::product(&cx.dims(g)?).is_const(blocks * block) => {
            let g = cx.reshape(g, vec![Dim::Const(blocks * block)])?;
            Some(cx.slice_axis(g, 0, Dim::Const(0), 1, Dim::Const(k))?)
        }
        g => {
            sized(cx, 4, "g_idx", k)?;
            g
        }
    };
    let zeros = cx.opt(3);
    let packed = zeros.is_some_and(|z| cx.dtype(z) == DType::U8);
    sized(
        cx,
        3,
        "zero_points",
        if packed {
            n * ((blocks * bits + 7) / 8)
        } else {
            n * blocks
        },
    )?;
    let t = cx.dtype(a);
    let dims = cx.dims(a)?;
    match dims.last() {
        Some(last) => same("the inner dimension of A and K", last, &Dim::Const(k))?,
        None => return Err(invalid("input 0 ('A') of rank 0, expected 1 or more")),
    }
    let wide = |cx: &mut Ctx, v| cx.cast(v, DType::F32);
    let bias = match cx.opt(5) {
        Some(b) => {
            broadcasts_to("the bias", &cx.dims(b)?, &[Dim::Const(n)])?;
            Some(wide(cx, b)?)
        }
        None => None,
    };
    let zeros = match zeros {
        Some(z) if !packed => Some(wide(cx, z)?),
        z => z,
    };
    let inputs = [
        Some(wide(cx, a)?),
        Some(b),
        Some(wide(cx, scales)?),
        zeros,
        group,
        bias,
    ];
    let y = Call { n, k, bits, block }.emit(cx, inputs, dims)?;
    one(cx.cast(y, t)?)
}
