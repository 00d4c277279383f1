//! Products and convolutions of bytes with constants: library `matmul_bytes` and `conv_bytes` (kernels/bytes.c), exact in i32.
//! What they do not take is centred and multiplied as i32 ([`super::conv::centred`]).
//!
//! Here the constants get the kernels' form: i8, in panels of columns, with the sum and the zero point of each column.

use lapidary_graph::{DType, Dim, TensorData, ValueId};

use super::conv::{Shape, centred};
use super::matmul::product;
use crate::builder::{LibOut, first};
use crate::context::{Ctx, same};
use crate::error::Fail;

/// Most bytes of packed windows of one image; a convolution with more takes the general way.
const MOST_WINDOWS: i64 = 256 << 20;

/// Columns of a panel.
const PANEL: usize = 16;

/// `(a - za) (b - zb)` as i32: za one number, or one a row (`[M, 1]`), zb one or one a column.
pub(crate) fn matmul(
    cx: &mut Ctx,
    a: ValueId,
    b: ValueId,
    za: Option<ValueId>,
    zb: Option<ValueId>,
) -> Result<ValueId, Fail> {
    if let Some(y) = matmul_bytes(cx, (a, za), (b, zb), false)? {
        return Ok(y);
    }
    let (a, b) = (centred(cx, a, za)?, centred(cx, b, zb)?);
    product(cx, a, b)
}

/// The same by the kernel, if it takes it; `turned`: b' in place of b.
pub(crate) fn matmul_bytes(
    cx: &mut Ctx,
    (a, za): (ValueId, Option<ValueId>),
    (b, zb): (ValueId, Option<ValueId>),
    turned: bool,
) -> Result<Option<ValueId>, Fail> {
    let (Ok(rank @ 1..), true) = (cx.rank(a), zeros_fit(cx, a, za)?) else {
        return Ok(None);
    };
    let one = za.is_none_or(|z| is_one(cx, z));
    let Some(w) = cx.g.constant(b).filter(|w| w.dims.len() == 2) else {
        return Ok(None);
    };
    let inner = usize::from(turned);
    let (k, n) = (w.dims[inner], w.dims[1 - inner]);
    if !(one || rank == 2) || k < 1 || n < 1 {
        return Ok(None);
    }
    let steps = (k as usize).div_ceil(4);
    let (rows, width) = (k as usize, w.dims[1] as usize);
    let place = |column: usize, i: usize| match turned {
        _ if i >= rows => None,
        true => Some(column * width + i),
        false => Some(i * width + column),
    };
    let Some(columns) = pack(cx, b, zb, (n as usize, steps), place) else {
        return Ok(None);
    };
    let mut dims = cx.dims(a)?;
    if let Some(last) = dims.last_mut() {
        same("the inner dimensions", last, &Dim::Const(k))?;
        *last = Dim::Const(n);
    }
    let inputs = columns.operands(cx, a, za);
    let out = LibOut::fixed(DType::I32, dims);
    first(&cx.library("matmul_bytes", vec![n, k], vec![], inputs, vec![out])).map(Some)
}

/// A convolution of an image `[N, C, H, W]` with constants in one group, as i32, if the kernel takes it.
pub(crate) fn conv(
    cx: &mut Ctx,
    (x, zx): (ValueId, Option<ValueId>),
    (w, zw): (ValueId, Option<ValueId>),
) -> Result<Option<ValueId>, Fail> {
    let (true, Ok(4)) = (zeros_fit(cx, x, zx)?, cx.rank(x)) else {
        return Ok(None);
    };
    let Some(dims) = cx.g.constant(w).map(|t| t.dims.clone()) else {
        return Ok(None);
    };
    let one = zx.is_none_or(|z| is_one(cx, z));
    let [o, c, height, width] = dims[..] else {
        return Ok(None);
    };
    let stated = cx.ints("kernel_shape")?.is_none_or(|k| k == &dims[2..]);
    if !one || !stated || cx.int("group", 1)? != 1 || dims.iter().any(|d| *d < 1) {
        return Ok(None);
    }
    let image = cx.dims(x)?;
    same(
        "the channels of the image and the weights",
        &image[1],
        &Dim::Const(c),
    )?;
    let shape = Shape::read(cx, super::conv::constants(&dims[2..]))?;
    let window = shape.window(&image[2..]);
    let pads = window.pads_begin.iter().chain(&window.pads_end);
    let Some(pads) = pads.map(Dim::as_const).collect::<Option<Vec<i64>>>() else {
        return Ok(None);
    };
    let numbers = pads.iter().chain(&window.strides).chain(&window.dilations);
    if numbers
        .chain(&dims)
        .any(|p| !(0..=i32::MAX as i64).contains(p))
    {
        return Ok(None);
    }
    // The kernel packs the windows of all positions at once.
    let windows = image[2..]
        .iter()
        .zip(&window.strides)
        .zip([height, width])
        .try_fold(c, |n, ((size, stride), taps)| {
            let positions = size.as_const()? / (*stride).max(1) + 1;
            n.checked_mul(positions)?.checked_mul(taps)
        });
    if image[2..].iter().all(|d| d.as_const().is_some())
        && windows.is_none_or(|bytes| bytes > MOST_WINDOWS)
    {
        return Ok(None);
    }
    let fours = (c as usize).div_ceil(4);
    let positions = (height * width) as usize;
    let channels = c as usize;
    let place = |column: usize, i: usize| {
        let (position, channel) = (i / (4 * fours), i % (4 * fours));
        (channel < channels).then(|| (column * channels + channel) * positions + position)
    };
    // The constants of one output channel are a column.
    let Some(columns) = pack(cx, w, zw, (o as usize, positions * fours), place) else {
        return Ok(None);
    };
    let mut out = vec![image[0].clone()];
    for i in 0..2 {
        let padded = image[2 + i].add(&Dim::Const(pads[i] + pads[2 + i]));
        let room = padded.sub(&shape.reach(i));
        out.push(
            room.floor_div(&Dim::Const(shape.strides[i]))
                .add(&Dim::Const(1)),
        );
    }
    out.push(Dim::Const(o));
    let mut ints = vec![o, c, height, width];
    for list in [&shape.strides, &shape.dilations, &pads] {
        ints.extend(list);
    }
    let x = cx.transpose(x, vec![0, 2, 3, 1])?;
    let inputs = columns.operands(cx, x, zx);
    let out = LibOut::fixed(DType::I32, out);
    let y = first(&cx.library("conv_bytes", ints, vec![], inputs, vec![out]))?;
    cx.transpose(y, vec![0, 3, 1, 2]).map(Some)
}

/// Whether x is of bytes, and its zero points of the same kind.
fn zeros_fit(cx: &Ctx, x: ValueId, zero: Option<ValueId>) -> Result<bool, Fail> {
    let t = cx.dtype(x);
    Ok(matches!(t, DType::U8 | DType::I8) && zero.is_none_or(|z| cx.dtype(z) == t))
}

fn is_one(cx: &Ctx, v: ValueId) -> bool {
    cx.dims(v).is_ok_and(|d| Dim::product(&d).is_const(1))
}

/// The right operand in the kernels' form.
struct Columns {
    panels: TensorData,
    sums: TensorData,
    zeros: TensorData,
}

impl Columns {
    /// The operands of a call.
    fn operands(self, cx: &mut Ctx, x: ValueId, zero: Option<ValueId>) -> Vec<Option<ValueId>> {
        let mut all = vec![Some(x)];
        for t in [self.panels, self.sums, self.zeros] {
            all.push(Some(cx.constant(t)));
        }
        all.push(zero);
        all
    }
}

/// `n` columns of `4 * steps` constants, of which `place` says where they stand, if anywhere. `None`: these are no constant
/// bytes, or their zero points are not.
fn pack(
    cx: &Ctx,
    w: ValueId,
    zero: Option<ValueId>,
    (n, steps): (usize, usize),
    place: impl Fn(usize, usize) -> Option<usize>,
) -> Option<Columns> {
    let data = cx.g.constant(w)?;
    let flip = match data.dtype {
        DType::I8 => 0u8,
        DType::U8 => 128,
        _ => return None,
    };
    let zeros = match zero {
        None => vec![0],
        Some(z) => {
            let z = cx.g.constant(z)?;
            if z.dtype != data.dtype {
                return None;
            }
            z.bytes.to_vec()
        }
    };
    if zeros.len() != 1 && zeros.len() != n {
        return None;
    }
    let i8_of = |byte: u8| (byte ^ flip) as i8;
    let mut panels = vec![0u8; n.div_ceil(PANEL) * PANEL * steps * 4];
    let mut sums = vec![0i32; n];
    for (column, sum) in sums.iter_mut().enumerate() {
        let base = column / PANEL * steps * 4 * PANEL + column % PANEL * 4;
        for i in 0..4 * steps {
            if let Some(at) = place(column, i) {
                let v = i8_of(*data.bytes.get(at)?);
                panels[base + i / 4 * 4 * PANEL + i % 4] = v as u8;
                *sum = sum.wrapping_add(i32::from(v));
            }
        }
    }
    let zeros = (0..n).map(|c| i32::from(i8_of(zeros[c % zeros.len()])));
    let numbers = |v: Vec<i32>| TensorData {
        dtype: DType::I32,
        dims: vec![v.len() as i64],
        bytes: v
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>()
            .into(),
        strings: Vec::new(),
    };
    Some(Columns {
        zeros: numbers(zeros.collect()),
        sums: numbers(sums),
        panels: TensorData {
            dtype: DType::I8,
            dims: vec![panels.len() as i64],
            bytes: panels.into(),
            strings: Vec::new(),
        },
    })
}
