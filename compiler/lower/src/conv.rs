//! Convolutions.
//!
//! Channels-last f32 convolutions are contractions over `taps * channels`: each task packs a block of
//! output positions' windows (rows of the image are contiguous runs of `kernel width * channels`
//! elements, borders become zeros) into scratch memory and multiplies it by the packed weights; a
//! 1x1 convolution of stride 1 reads the image in place. Depthwise convolutions run over channels in
//! lanes. Everything else is a plain nest.

use crate::builder::Builder;
use crate::contract::{store_outputs, to_param};
use crate::conv_lines::{self, Lines};
use crate::nest::finish_nest;
use crate::pack::{Form, PANEL};
use crate::program::Operand;
use crate::{LowerError, Lowering, scalar};
use lapidary_codegen::loops::*;
use lapidary_graph::op::{Layout, Window};
use lapidary_graph::{DType, Dim, Graph, Group, NodeId, Op, ValueId};

type Result<T> = std::result::Result<T, LowerError>;

/// Floats of a packed block of windows: what leaves room for weights in a 1 to 2 MiB second level cache.
const BLOCK_FLOATS: i64 = 160 * 1024;
/// Floats of windows that are packed as one block, whatever their number.
const WHOLE_FLOATS: i64 = 256 * 1024;
/// Most tiles of rows in a block: 196 rows, which maps of 14, 28 and 56 lines are multiples of.
const MOST_TILES: i64 = 14;
/// Rows of register tiles divide blocks evenly.
pub(crate) const TILE_ROWS: i64 = 14;

/// One convolution and its operands.
pub(crate) struct Conv<'g> {
    pub node: NodeId,
    pub window: &'g Window,
    pub groups: Dim,
    pub x: ValueId,
    pub w: ValueId,
    pub bias: Option<ValueId>,
    pub y: ValueId,
}

pub(crate) fn conv(l: &mut Lowering, g: &Graph, group: &Group) -> Result<()> {
    let n = group
        .anchor
        .or(group.nodes.first().copied())
        .ok_or(LowerError::Arity)?;
    let Op::Conv { window, groups } = &g.nodes[n].op else {
        return Err(LowerError::missing(g, n, 0));
    };
    let input = |i: usize| {
        g.nodes[n]
            .input(i)
            .ok_or_else(|| LowerError::missing(g, n, i))
    };
    let c = Conv {
        node: n,
        window,
        groups: groups.clone(),
        x: input(0)?,
        w: input(1)?,
        bias: g.nodes[n].input(2),
        y: g.nodes[n].outputs[0],
    };
    let weights = g.constant(c.w).map(|t| t.dims.clone());
    let last = window.layout == Layout::ChannelsLast
        && window.kernel.len() == 2
        && g.ty(c.x).dtype == DType::F32;
    match (weights, groups.as_const()) {
        (Some(d), Some(n)) if last && d.len() == 4 && d[1] == 1 && d[0] == n && n > 1 => {
            crate::depthwise::depthwise(l, g, group, &c, &d)
        }
        (Some(d), Some(n)) if last && d.len() == 4 && d[0] % n == 0 => match Lines::of(g, &c, &d) {
            Some(lines) => conv_lines::lines(l, g, group, &c, &lines),
            None => tiled(l, g, group, &c, &d, n),
        },
        _ => crate::conv_plain::naive(l, g, group, &c),
    }
}

/// The range of kernel positions along an axis of a window whose input lies inside `0..size`, at output position `o`; it
/// may be empty, but never ends before it begins.
pub(crate) fn tap_range(
    win: &Window,
    axis: usize,
    o: &Dim,
    pad: &Dim,
    kernel: &Dim,
    size: &Dim,
) -> (Dim, Dim) {
    // First input position, before padding is taken off.
    let first = o.mul(&Dim::Const(win.strides[axis])).sub(pad);
    let d = Dim::Const(win.dilations[axis]);
    let from = first.neg().ceil_div(&d).maximum(&Dim::Const(0));
    let to = size.sub(&first).ceil_div(&d).minimum(kernel);
    // Where less is padded than a window covers, none lies outside as a whole.
    let reach = win.kernel[axis].sub(&Dim::Const(1)).mul(&d);
    let within = |pad: &Dim| reach.sub(pad).is_ge(0) == Some(true);
    if within(&win.pads_begin[axis]) && within(&win.pads_end[axis]) {
        return (from, to);
    }
    let to = to.maximum(&from);
    (from, to)
}

/// The bias added to the sum, in a local that stands for the convolution's value.
pub(crate) fn with_bias(b: &mut Builder, c: &Conv, sum: Local, channel: &Dim) -> Result<()> {
    let mut value = b.expr(Expr::Local(sum));
    if let Some(v) = c.bias {
        let bias = b.value_at(v, std::slice::from_ref(channel))?;
        value = b.expr(Expr::Bin {
            op: BinOp::Add,
            a: value,
            b: bias,
        });
    }
    let elem = scalar::elem(b.dtype(c.y));
    let local = b.kernel.local(Ty::Num(elem));
    b.push(Stmt::Let { local, value });
    b.in_local.insert(c.y, local);
    Ok(())
}

pub(crate) fn flops(g: &Graph, c: &Conv) -> Dim {
    let w = g.dims(c.w);
    Dim::product(g.dims(c.y))
        .mul(&Dim::product(w.get(1..).unwrap_or(&[])))
        .mul(&Dim::Const(2))
}

fn tiled(
    l: &mut Lowering,
    g: &Graph,
    group: &Group,
    c: &Conv,
    w: &[i64],
    groups: i64,
) -> Result<()> {
    let (out_c, in_c) = (w[0] / groups, w[1]);
    let (kh, kw) = (w[2], w[3]);
    let mut b = Builder::new(g, group, g.nodes[c.node].name());
    let (xs, ys) = (b.shape(c.x)?, b.shape(c.y)?);
    let (height, width, channels) = (xs[1].clone(), xs[2].clone(), in_c * groups);
    let m = ys[0].mul(&ys[1]).mul(&ys[2]);
    let depth = kh * kw * in_c;
    let win = c.window;
    let pads: Vec<Dim> = win.pads_begin.iter().map(|d| b.dim(d)).collect();
    let ends: Vec<Dim> = win.pads_end.iter().map(|d| b.dim(d)).collect();
    let unpadded = pads.iter().chain(&ends).all(|p| p.is_const(0));
    // Rows a multiple of 2 KiB apart share too few sets of a first level cache for a tile of them.
    let direct = kh * kw == 1 && win.strides == [1, 1] && unpadded && channels % 512 != 0;

    let fit = match m.as_const().and_then(|m| m.checked_mul(depth)) {
        _ if direct => MOST_TILES,
        // A second block reads all weights again, which costs more than a left operand that fills the cache.
        Some(floats) if floats <= WHOLE_FLOATS => MOST_TILES,
        _ => (BLOCK_FLOATS / depth / TILE_ROWS).clamp(2, MOST_TILES),
    };
    let block = fit * TILE_ROWS;
    let few_rows = m.as_const().is_some_and(|m| m <= block);
    let block_d = if few_rows {
        m.clone()
    } else {
        Dim::Const(block)
    };
    let blocks = if few_rows {
        Dim::Const(1)
    } else {
        m.ceil_div(&Dim::Const(block))
    };
    let blocks = to_param(&mut b, &blocks);
    let panels = (out_c + PANEL - 1) / PANEL;
    // Few blocks of rows: columns are divided as well. (A row count known at run time only: the
    // rows of one image decide.)
    let rows_known = ys[1].mul(&ys[2]).as_const().unwrap_or(1 << 20);
    let run = if rows_known >= 4 * block {
        panels
    } else {
        (panels / 4).clamp(1, 8)
    };
    let col_blocks = (panels + run - 1) / run;

    b.kernel.tasks = blocks.mul(&Dim::Const(col_blocks * groups));
    let task = Dim::from(b.kernel.sym(SymKind::Task));
    let cblock = task.modulo(&Dim::Const(col_blocks));
    let rest = task.floor_div(&Dim::Const(col_blocks));
    let grp = rest.modulo(&Dim::Const(groups));
    let blk = if few_rows {
        Dim::Const(0)
    } else {
        rest.floor_div(&Dim::Const(groups))
    };
    let r0 = blk.mul(&Dim::Const(block));
    let r1 = if few_rows {
        m.clone()
    } else {
        r0.add(&block_d).minimum(&m)
    };
    let c0 = cblock.mul(&Dim::Const(run * PANEL));
    let c1 = if out_c % (run * PANEL) == 0 {
        c0.add(&Dim::Const(run * PANEL))
    } else {
        c0.add(&Dim::Const(run * PANEL)).minimum(&Dim::Const(out_c))
    };

    let (row, col, k) = (
        b.variable(Some(&m)),
        b.variable(Some(&Dim::Const(out_c))),
        b.variable(Some(&Dim::Const(depth))),
    );
    let image = b.input(c.x)?;
    let (a, a_at) = if direct {
        (
            image,
            Dim::from(row)
                .mul(&Dim::Const(channels))
                .add(&grp.mul(&Dim::Const(in_c)))
                .add(&Dim::from(k)),
        )
    } else {
        let stride = (depth + 15) / 16 * 16 + 16;
        let elements = to_param(&mut b, &block_d.mul(&Dim::Const(stride)));
        let buf = b.scratch("windows", Mem::F32, &elements);
        b.begin_block();
        let i = b.open_range(&r0, &r1);
        let at = Dim::from(i);
        let (n, oh, ow) = {
            let hw = ys[1].mul(&ys[2]);
            let pos = at.modulo(&hw);
            let n = if ys[0].is_const(1) {
                Dim::Const(0)
            } else {
                at.floor_div(&hw)
            };
            let pos = if ys[0].is_const(1) { at.clone() } else { pos };
            (n, pos.floor_div(&ys[2]), pos.modulo(&ys[2]))
        };
        let base = at.sub(&r0).mul(&Dim::Const(stride));
        let contiguous = groups == 1 && win.dilations[1] == 1;
        let top = oh.mul(&Dim::Const(win.strides[0])).sub(&pads[0]);
        b.begin_block();
        let t = b.open(&Dim::Const(kh));
        let ih = top.add(&t.mul(&Dim::Const(win.dilations[0])));
        let into = base.add(&t.mul(&Dim::Const(kw * in_c)));
        let first = ow.mul(&Dim::Const(win.strides[1])).sub(&pads[1]);
        let line = n.mul(&height).add(&ih).mul(&width);
        let run_len = Dim::Const(kw * in_c);
        let zero = b.f32(0.0);
        let fill = |b: &mut Builder, from: &Dim, to: &Dim| {
            let e = b.open_range(from, to);
            b.store(buf, into.add(&Dim::from(e)), zero);
            b.close();
        };
        b.begin_block();
        if contiguous {
            let from_tap = first.neg().maximum(&Dim::Const(0));
            let to_tap = width.sub(&first).minimum(&Dim::Const(kw));
            let ch = Dim::Const(in_c);
            let (from, to) = if unpadded {
                (Dim::Const(0), run_len.clone())
            } else {
                // A window that lies outside altogether has an empty run.
                (
                    from_tap.minimum(&Dim::Const(kw)).mul(&ch),
                    to_tap.maximum(&Dim::Const(0)).mul(&ch),
                )
            };
            if !unpadded {
                fill(&mut b, &Dim::Const(0), &from);
            }
            let e = Dim::from(b.open_range(&from, &to));
            let value = b.load(image, line.add(&first).mul(&Dim::Const(channels)).add(&e));
            b.store(buf, into.add(&e), value);
            b.close();
            if !unpadded {
                fill(&mut b, &to.maximum(&from), &run_len);
            }
        } else {
            let t = b.open(&Dim::Const(kw));
            let iw = first.add(&t.mul(&Dim::Const(win.dilations[1])));
            let place = into.add(&t.mul(&Dim::Const(in_c)));
            b.begin_block();
            let e = b.open(&Dim::Const(in_c));
            let source = line
                .add(&iw)
                .mul(&Dim::Const(channels))
                .add(&grp.mul(&Dim::Const(in_c)))
                .add(&e);
            let value = b.load(image, source);
            b.store(buf, place.add(&e), value);
            if in_c > 1 {
                b.close();
            }
            let copy = b.end_block();
            b.begin_block();
            let e = b.open(&Dim::Const(in_c));
            b.store(buf, place.add(&e), zero);
            if in_c > 1 {
                b.close();
            }
            let clear = b.end_block();
            let inside = iw.minimum(&width.sub(&Dim::Const(1)).sub(&iw));
            b.push(Stmt::If {
                all: vec![inside],
                then: copy,
                otherwise: clear,
            });
            if kw > 1 {
                b.close();
            }
        }
        let copy = b.end_block();
        b.begin_block();
        fill(&mut b, &Dim::Const(0), &run_len);
        let clear = b.end_block();
        let inside = ih.minimum(&height.sub(&Dim::Const(1)).sub(&ih));
        if unpadded {
            copy.into_iter().for_each(|s| b.push(s));
        } else {
            b.push(Stmt::If {
                all: vec![inside],
                then: copy,
                otherwise: clear,
            });
        }
        if kh > 1 {
            b.close();
        }
        let general = b.end_block();
        if unpadded || !contiguous {
            general.into_iter().for_each(|s| b.push(s));
        } else {
            // Most windows lie inside altogether: whole runs of a known length.
            b.begin_block();
            let t = b.open(&Dim::Const(kh));
            let line = n
                .mul(&height)
                .add(&top)
                .add(&t.mul(&Dim::Const(win.dilations[0])))
                .mul(&width);
            let e = b.open(&run_len);
            let value = b.load(image, line.add(&first).mul(&Dim::Const(channels)).add(&e));
            b.store(buf, base.add(&t.mul(&run_len)).add(&e), value);
            let depth = b.depth();
            b.close_to(depth - usize::from(!run_len.is_const(1)) - usize::from(kh > 1));
            let whole = b.end_block();
            let bottom = height
                .sub(&Dim::Const((kh - 1) * win.dilations[0] + 1))
                .sub(&top);
            let right = width.sub(&Dim::Const(kw)).sub(&first);
            let within = top.minimum(&bottom).minimum(&first.minimum(&right));
            b.push(Stmt::If {
                all: vec![within],
                then: whole,
                otherwise: general,
            });
        }
        b.close();
        let pack = b.end_block();
        // Column blocks of the same rows follow each other: the first that a worker meets packs.
        let begin = Dim::from(b.kernel.sym(SymKind::TaskBegin));
        let first = cblock.minimum(&task.sub(&begin)).neg();
        b.push(Stmt::If {
            all: vec![first],
            then: pack,
            otherwise: Vec::new(),
        });
        (
            buf,
            Dim::from(row)
                .sub(&r0)
                .mul(&Dim::Const(stride))
                .add(&Dim::from(k)),
        )
    };

    let form = Form::ConvPanels {
        groups,
        n: out_c,
        c: in_c,
        taps: kh * kw,
    };
    let id = l.prepare(g, c.w, form)?;
    let weights = b.input_operand(Operand::Const(id), DType::F32)?;
    let right = BOperand {
        buf: weights,
        base: grp.mul(&Dim::Const(panels * PANEL * depth)),
        k_stride: Dim::Const(PANEL),
        panel: Some((PANEL, Dim::Const(PANEL * depth))),
    };
    let acc = b.kernel.local(Ty::Num(Elem::F32));
    b.begin_block();
    let channel = grp.mul(&Dim::Const(out_c)).add(&Dim::from(col));
    with_bias(&mut b, c, acc, &channel)?;
    // The result's positions are one flat axis here: rows times channels.
    let index = {
        let mut i = b.reshape_index(&ys[..3], std::slice::from_ref(&m), &[Dim::from(row)]);
        i.push(channel);
        i
    };
    store_outputs(&mut b, group, &ys, &index)?;
    let epilogue = b.end_block();
    b.push(Stmt::Contract(Box::new(Contract {
        row,
        rows: (r0, r1),
        col,
        cols: (c0, c1),
        k,
        depth: Dim::Const(depth),
        a,
        a_at,
        b: right,
        acc,
        epilogue,
    })));
    let flops = flops(g, c);
    let (loops, step) = b.finish(group.nodes.clone(), flops.clone(), flops)?;
    l.kernel(loops, step);
    Ok(())
}

pub(crate) fn finish_nest_flops(
    l: &mut Lowering,
    b: Builder,
    group: &Group,
    cost: Dim,
    flops: Dim,
) -> Result<()> {
    finish_nest(l, b, group, cost)?;
    if let Some(crate::Step::Kernel { flops: f, .. }) = l.steps.last_mut() {
        *f = flops;
    }
    Ok(())
}
