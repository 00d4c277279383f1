//! GatherBlockQuantized: rows of a quantized table, such as the embeddings of a language model.

use lapidary_graph::{DType, Dim, Op, PwOp, ValueId};

use crate::context::{Ctx, Outs, one};
use crate::error::{Fail, invalid, unsupported};
use crate::ops::quant::{difference, repeat_blocks};

/// Numbers of a few bits, packed from the low bits of each byte up along the last axis, one a byte.
fn unpacked(cx: &mut Ctx, x: ValueId, bits: i64) -> Result<ValueId, Fail> {
    if bits == 8 {
        return Ok(x);
    }
    let dims = cx.dims(x)?;
    let rank = dims.len();
    let count = Dim::Const(8 / bits);
    let mut wide = dims.clone();
    wide.push(count.clone());
    let v = cx.unsqueeze(x, &[rank])?;
    let v = cx.pw_shaped(&[v], Some(wide), |p, r| {
        let field = p.push(PwOp::Index(rank as u32), vec![], DType::I64);
        let (by, mask) = (
            p.number(bits as f64, DType::I64),
            p.number(((1 << bits) - 1) as f64, DType::I32),
        );
        let by = p.bin(PwOp::Mul, field, by);
        let by = p.cast(by, DType::I32);
        let x = p.cast(r[0], DType::I32);
        let x = p.bin(PwOp::Shr, x, by);
        let x = p.bin(PwOp::And, x, mask);
        p.cast(x, DType::U8)
    })?;
    let mut flat = dims;
    if let Some(last) = flat.last_mut() {
        *last = last.mul(&count);
    }
    cx.reshape(v, flat)
}

pub(crate) fn block_quantized(cx: &mut Ctx) -> Outs {
    let (data, indices, scales) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (t, rank) = (cx.dtype(data), cx.rank(data)?);
    let (at, along) = (
        cx.axis("gather_axis", rank)?,
        cx.axis("quantize_axis", rank)?,
    );
    let block = cx.int("block_size", 128)?;
    let bits = match t {
        DType::U8 => cx.int("bits", 4)?,
        _ => 8,
    };
    if !matches!(t, DType::U8 | DType::U4 | DType::I4) {
        return Err(unsupported(format!("input 0 ('data') of type {t}")));
    }
    if !matches!(bits, 2 | 4 | 8) || block < 16 || block & (block - 1) != 0 {
        return Err(invalid(format!(
            "attributes 'bits' {bits} and 'block_size' {block}, expected 2, 4 or 8, and a power of 2 from 16 on"
        )));
    }
    if at == along || (bits < 8 && at + 1 == rank) {
        return Err(unsupported(format!(
            "attributes 'gather_axis' {at} and 'quantize_axis' {along} of an input of rank {rank}"
        )));
    }
    let pick = |cx: &mut Ctx, v| cx.emit1(Op::Gather { axis: at }, &[v, indices]);
    let rows = pick(cx, data)?;
    let rows = unpacked(cx, rows, bits)?;
    let scale = pick(cx, scales)?;
    let dims = cx.dims(rows)?;
    // The axis of blocks among those of the result.
    let axis = match along < at {
        true => along,
        false => along + cx.rank(indices)? - 1,
    };
    let size = dims[axis].clone();
    let mut inputs = vec![rows, repeat_blocks(cx, scale, axis, block, &size)?];
    if let Some(z) = cx.opt(3) {
        let z = pick(cx, z)?;
        let z = unpacked(cx, z, bits)?;
        // A row of zero points may end inside of a byte.
        let own = cx.dims(scale)?;
        let z = cx.slice(z, vec![Dim::Const(0); own.len()], vec![1; own.len()], own)?;
        inputs.push(repeat_blocks(cx, z, axis, block, &size)?);
    }
    let middle = if t == DType::U8 {
        1i64 << (bits - 1)
    } else {
        0
    };
    let to = cx.dtype(scales);
    one(cx.pw(&inputs, |p, r| {
        let zero = r
            .get(2)
            .copied()
            .unwrap_or_else(|| p.number(middle as f64, DType::I32));
        let y = difference(p, r[0], Some(zero));
        let (y, s) = (p.cast(y, DType::F32), p.cast(r[1], DType::F32));
        let y = p.bin(PwOp::Mul, y, s);
        p.cast(y, to)
    })?)
}
