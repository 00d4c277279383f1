//! Convolutions.
//!
//! Channels-last f32 convolutions are contractions over `taps * channels`: each task packs a block of
//! output positions' windows (rows of the image are contiguous runs of `kernel width * channels`
//! elements, borders become zeros) into scratch memory and multiplies it by the packed weights; a
//! 1x1 convolution of stride 1 reads the image in place. Depthwise convolutions run over channels in
//! lanes. Everything else is a plain nest.

use crate::builder::Builder;
use crate::contract::{store_outputs, to_param};
use crate::nest::finish_nest;
use crate::pack::{Form, PANEL};
use crate::program::Operand;
use crate::{LowerError, Lowering, scalar};
use lapidary_codegen::loops::*;
use lapidary_graph::op::{Layout, Window};
use lapidary_graph::{DType, Dim, Graph, Group, NodeId, Op, Scalar, ValueId};

type Result<T> = std::result::Result<T, LowerError>;

/// Floats of a packed block of windows: what leaves room for weights in a 1 to 2 MiB second level cache.
const BLOCK_FLOATS: i64 = 160 * 1024;
/// Rows of register tiles divide blocks evenly.
const TILE_ROWS: i64 = 14;

struct Conv<'g> {
    node: NodeId,
    window: &'g Window,
    groups: i64,
    x: ValueId,
    w: ValueId,
    bias: Option<ValueId>,
    y: ValueId,
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
        groups: *groups,
        x: input(0)?,
        w: input(1)?,
        bias: g.nodes[n].input(2),
        y: g.nodes[n].outputs[0],
    };
    let weights = g.constant(c.w).map(|t| t.dims.clone());
    let last = window.layout == Layout::ChannelsLast
        && window.kernel.len() == 2
        && g.ty(c.x).dtype == DType::F32;
    match weights {
        Some(d) if last && d.len() == 4 && d[1] == 1 && d[0] == c.groups && c.groups > 1 => {
            depthwise(l, g, group, &c, d[0])
        }
        Some(d) if last && d.len() == 4 && d[0] % c.groups == 0 => tiled(l, g, group, &c, &d),
        _ => naive(l, g, group, &c),
    }
}

/// Position of the spatial axes and of the channel axis.
fn axes(layout: Layout, spatial: usize) -> (usize, usize) {
    match layout {
        Layout::ChannelsFirst => (2, 1),
        Layout::ChannelsLast => (1, spatial + 1),
    }
}

/// The range of kernel positions whose input lies inside `0..size`, at output position `o`.
pub(crate) fn tap_range(
    o: &Dim,
    stride: i64,
    dilation: i64,
    pad: &Dim,
    kernel: i64,
    size: &Dim,
) -> (Dim, Dim) {
    // First input position, before padding is taken off.
    let first = o.mul(&Dim::Const(stride)).sub(pad);
    let d = Dim::Const(dilation);
    let from = first.neg().ceil_div(&d).maximum(&Dim::Const(0));
    let to = size.sub(&first).ceil_div(&d).minimum(&Dim::Const(kernel));
    (from, to)
}

/// The bias added to the sum, in a local that stands for the convolution's value.
fn with_bias(b: &mut Builder, c: &Conv, sum: Local, channel: &Dim) -> Result<()> {
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

fn flops(g: &Graph, c: &Conv) -> Dim {
    let w = g.dims(c.w);
    Dim::product(g.dims(c.y))
        .mul(&Dim::product(w.get(1..).unwrap_or(&[])))
        .mul(&Dim::Const(2))
}

fn tiled(l: &mut Lowering, g: &Graph, group: &Group, c: &Conv, w: &[i64]) -> Result<()> {
    let (groups, out_c, in_c) = (c.groups, w[0] / c.groups, w[1]);
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

    let block = if direct {
        168
    } else {
        (BLOCK_FLOATS / depth / TILE_ROWS).clamp(2, 12) * TILE_ROWS
    };
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

/// Channels run over lanes, outside the positions of a line, so that a line's weights stay in
/// registers; positions whose whole window lies inside the image are a sum written out, the others
/// loop over the taps that do.
fn depthwise(l: &mut Lowering, g: &Graph, group: &Group, c: &Conv, channels: i64) -> Result<()> {
    let mut b = Builder::new(g, group, g.nodes[c.node].name());
    let (xs, ys) = (b.shape(c.x)?, b.shape(c.y)?);
    let win = c.window;
    let (kh, kw) = (win.kernel[0], win.kernel[1]);
    let pads: Vec<Dim> = win.pads_begin.iter().map(|d| b.dim(d)).collect();
    let id = l.prepare(
        g,
        c.w,
        Form::Taps {
            channels,
            taps: kh * kw,
        },
    )?;
    let weights = b.input_operand(Operand::Const(id), DType::F32)?;
    // Lines of all images are one axis.
    let lines = ys[0].mul(&ys[1]);
    let line = b.open(&lines);
    let (n, oh) = if ys[0].is_const(1) {
        (Dim::Const(0), line)
    } else {
        (line.floor_div(&ys[1]), line.modulo(&ys[1]))
    };
    let ch = b.open(&Dim::Const(channels));
    let (sh, sw) = (Dim::Const(win.strides[0]), Dim::Const(win.strides[1]));
    let (dh, dw) = (Dim::Const(win.dilations[0]), Dim::Const(win.dilations[1]));
    let top = oh.mul(&sh).sub(&pads[0]);

    let general = |b: &mut Builder, from: &Dim, to: &Dim| -> Result<()> {
        if to.sub(from).as_const().is_some_and(|n| n <= 0) {
            return Ok(());
        }
        let ow = Dim::from(b.open_range(from, to));
        let (h0, h1) = tap_range(&oh, win.strides[0], win.dilations[0], &pads[0], kh, &xs[1]);
        let (w0, w1) = tap_range(&ow, win.strides[1], win.dilations[1], &pads[1], kw, &xs[2]);
        let (th, tw) = (b.variable(None), b.variable(None));
        let ih = top.add(&Dim::from(th).mul(&dh));
        let iw = ow.mul(&sw).sub(&pads[1]).add(&Dim::from(tw).mul(&dw));
        let value = b.value_at(c.x, &[n.clone(), ih, iw, ch.clone()])?;
        let tap = Dim::from(th).mul(&Dim::Const(kw)).add(&Dim::from(tw));
        let weight = b.load(weights, tap.mul(&Dim::Const(channels)).add(&ch));
        let product = b.expr(Expr::Bin {
            op: BinOp::Mul,
            a: value,
            b: weight,
        });
        let (inner, outer) = (
            b.kernel.local(Ty::Num(Elem::F32)),
            b.kernel.local(Ty::Num(Elem::F32)),
        );
        let inner_sum = b.expr(Expr::Local(inner));
        let accs = vec![Acc {
            op: RedOp::Sum,
            local: inner,
            value: product,
        }];
        let along = Stmt::Reduce {
            var: tw,
            from: w0,
            to: w1,
            body: Vec::new(),
            accs,
        };
        let accs = vec![Acc {
            op: RedOp::Sum,
            local: outer,
            value: inner_sum,
        }];
        b.push(Stmt::Reduce {
            var: th,
            from: h0,
            to: h1,
            body: vec![along],
            accs,
        });
        with_bias(b, c, outer, &ch)?;
        store_outputs(b, group, &ys, &[n.clone(), oh.clone(), ow, ch.clone()])?;
        b.close();
        Ok(())
    };

    // Positions with all their columns inside.
    let one = Dim::Const(1);
    let span = dw.mul(&Dim::Const(kw - 1)).add(&one);
    let from = pads[1].ceil_div(&sw).minimum(&ys[2]);
    let to = xs[2]
        .sub(&span)
        .add(&pads[1])
        .floor_div(&sw)
        .add(&one)
        .minimum(&ys[2])
        .maximum(&from);
    let (from, to) = (b.simplify(&from), b.simplify(&to));
    b.begin_block();
    general(&mut b, &Dim::Const(0), &from)?;
    let ow = Dim::from(b.open_range(&from, &to));
    let mut sum: Option<ExprId> = None;
    for t in 0..kh * kw {
        let (th, tw) = (Dim::Const(t / kw), Dim::Const(t % kw));
        let iw = ow.mul(&sw).sub(&pads[1]).add(&tw.mul(&dw));
        let value = b.value_at(c.x, &[n.clone(), top.add(&th.mul(&dh)), iw, ch.clone()])?;
        let weight = b.load(weights, Dim::Const(t * channels).add(&ch));
        sum = Some(match sum {
            None => b.expr(Expr::Bin {
                op: BinOp::Mul,
                a: value,
                b: weight,
            }),
            Some(s) => b.expr(Expr::Fma {
                a: value,
                b: weight,
                c: s,
            }),
        });
    }
    if let Some(value) = sum {
        let local = b.kernel.local(Ty::Num(Elem::F32));
        b.push(Stmt::Let { local, value });
        with_bias(&mut b, c, local, &ch)?;
    }
    store_outputs(&mut b, group, &ys, &[n.clone(), oh.clone(), ow, ch.clone()])?;
    b.close();
    general(&mut b, &to, &ys[2])?;
    let inside = b.end_block();
    b.begin_block();
    general(&mut b, &Dim::Const(0), &ys[2])?;
    let border = b.end_block();
    let bottom = xs[1].sub(&dh.mul(&Dim::Const(kh - 1))).sub(&one).sub(&top);
    b.push(Stmt::If {
        all: vec![top.minimum(&bottom)],
        then: inside,
        otherwise: border,
    });
    let f = flops(g, c);
    finish_nest_flops(l, b, group, f.mul(&Dim::Const(4)), f)
}

fn finish_nest_flops(
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

/// Any rank, any layout, any type: one reduction an output element.
fn naive(l: &mut Lowering, g: &Graph, group: &Group, c: &Conv) -> Result<()> {
    let mut b = Builder::new(g, group, g.nodes[c.node].name());
    let win = c.window;
    let spatial = win.kernel.len();
    let (xs, ys, ws) = (b.shape(c.x)?, b.shape(c.y)?, b.shape(c.w)?);
    let (space, channel) = axes(win.layout, spatial);
    let index = b.open_all(&ys);
    let per_group = ys[channel].floor_div(&Dim::Const(c.groups));
    let per_group = to_param(&mut b, &per_group);
    let grp = if c.groups == 1 {
        Dim::Const(0)
    } else {
        index[channel].floor_div(&per_group)
    };
    let mut vars = vec![b.variable(Some(&ws[1]))];
    let mut ranges = vec![(Dim::Const(0), ws[1].clone())];
    let mut xi = vec![Dim::Const(0); xs.len()];
    xi[0] = index[0].clone();
    xi[channel] = grp.mul(&ws[1]).add(&Dim::from(vars[0]));
    let mut wi = vec![index[channel].clone(), Dim::from(vars[0])];
    for s in 0..spatial {
        let pad = b.dim(&win.pads_begin[s]);
        let o = &index[space + s];
        ranges.push(tap_range(
            o,
            win.strides[s],
            win.dilations[s],
            &pad,
            win.kernel[s],
            &xs[space + s],
        ));
        let v = b.variable(Some(&Dim::Const(win.kernel[s])));
        vars.push(v);
        xi[space + s] = o
            .mul(&Dim::Const(win.strides[s]))
            .sub(&pad)
            .add(&Dim::from(v).mul(&Dim::Const(win.dilations[s])));
        wi.push(Dim::from(v));
    }
    let (p, q) = (b.value_at(c.x, &xi)?, b.value_at(c.w, &wi)?);
    let mut value = b.expr(Expr::Bin {
        op: BinOp::Mul,
        a: p,
        b: q,
    });
    let elem = scalar::elem(b.dtype(c.y));
    let mut body = Vec::new();
    let mut local = b.kernel.local(Ty::Num(elem));
    for (v, (from, to)) in vars.iter().zip(ranges).rev() {
        local = b.kernel.local(Ty::Num(elem));
        body = vec![Stmt::Reduce {
            var: *v,
            from,
            to,
            body,
            accs: vec![Acc {
                op: RedOp::Sum,
                local,
                value,
            }],
        }];
        value = b.expr(Expr::Local(local));
    }
    body.into_iter().for_each(|s| b.push(s));
    with_bias(&mut b, c, local, &index[channel])?;
    store_outputs(&mut b, group, &ys, &index)?;
    let f = flops(g, c);
    finish_nest_flops(l, b, group, f.mul(&Dim::Const(16)), f)
}

/// Transposed convolution: each output element gathers the inputs whose windows reach it.
pub(crate) fn transpose(l: &mut Lowering, g: &Graph, group: &Group, n: NodeId) -> Result<()> {
    let Op::ConvTranspose {
        window: win,
        groups,
        ..
    } = &g.nodes[n].op
    else {
        return Err(LowerError::missing(g, n, 0));
    };
    let input = |i: usize| {
        g.nodes[n]
            .input(i)
            .ok_or_else(|| LowerError::missing(g, n, i))
    };
    let c = Conv {
        node: n,
        window: win,
        groups: *groups,
        x: input(0)?,
        w: input(1)?,
        bias: g.nodes[n].input(2),
        y: g.nodes[n].outputs[0],
    };
    if win.layout != Layout::ChannelsFirst {
        return Err(LowerError::unsupported(
            g,
            n,
            "a transposed convolution with channels last",
        ));
    }
    let mut b = Builder::new(g, group, g.nodes[n].name());
    let spatial = win.kernel.len();
    let (xs, ys, ws) = (b.shape(c.x)?, b.shape(c.y)?, b.shape(c.w)?);
    let index = b.open_all(&ys);
    // Weights are [C, M / groups, k…].
    let out_group = ws[1].clone();
    let in_group = xs[1].floor_div(&Dim::Const(*groups));
    let in_group = to_param(&mut b, &in_group);
    let (grp, within) = if *groups == 1 {
        (Dim::Const(0), index[1].clone())
    } else {
        (index[1].floor_div(&out_group), index[1].modulo(&out_group))
    };
    let cv = b.variable(Some(&in_group));
    let channel = grp.mul(&in_group).add(&Dim::from(cv));
    let mut xi = vec![index[0].clone(), channel.clone()];
    let mut wi = vec![channel, within];
    let mut conds = Vec::new();
    let mut vars = Vec::new();
    for s in 0..spatial {
        let pad = b.dim(&win.pads_begin[s]);
        let v = b.variable(Some(&Dim::Const(win.kernel[s])));
        let t = index[2 + s]
            .add(&pad)
            .sub(&Dim::from(v).mul(&Dim::Const(win.dilations[s])));
        let stride = Dim::Const(win.strides[s]);
        conds.push(t.modulo(&stride).neg());
        let i = t.floor_div(&stride);
        conds.push(i.clone());
        conds.push(xs[2 + s].sub(&Dim::Const(1)).sub(&i));
        xi.push(i);
        wi.push(Dim::from(v));
        vars.push(v);
    }
    let dtype = b.dtype(c.y);
    let elem = scalar::elem(dtype);
    let (p, q) = (b.value_at(c.x, &xi)?, b.value_at(c.w, &wi)?);
    let product = b.expr(Expr::Bin {
        op: BinOp::Mul,
        a: p,
        b: q,
    });
    let term = b.kernel.local(Ty::Num(elem));
    let zero = scalar::constant(&mut b, Scalar::of(dtype, 0.0));
    let mut body = vec![
        Stmt::Let {
            local: term,
            value: zero,
        },
        Stmt::If {
            all: conds,
            then: vec![Stmt::Let {
                local: term,
                value: product,
            }],
            otherwise: Vec::new(),
        },
    ];
    let mut value = b.expr(Expr::Local(term));
    let mut local = term;
    let kernel: Vec<(Sym, Dim)> = vars
        .iter()
        .zip(&win.kernel)
        .map(|(v, k)| (*v, Dim::Const(*k)))
        .collect();
    for (v, extent) in std::iter::once((cv, in_group)).chain(kernel).rev() {
        local = b.kernel.local(Ty::Num(elem));
        body = vec![Stmt::Reduce {
            var: v,
            from: Dim::Const(0),
            to: extent,
            body,
            accs: vec![Acc {
                op: RedOp::Sum,
                local,
                value,
            }],
        }];
        value = b.expr(Expr::Local(local));
    }
    body.into_iter().for_each(|s| b.push(s));
    with_bias(&mut b, &c, local, &index[1])?;
    store_outputs(&mut b, group, &ys, &index)?;
    let f = Dim::product(g.dims(c.x))
        .mul(&Dim::product(g.dims(c.w).get(1..).unwrap_or(&[])))
        .mul(&Dim::Const(2));
    finish_nest_flops(l, b, group, f.mul(&Dim::Const(16)), f)
}
