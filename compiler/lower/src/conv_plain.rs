//! Convolutions of any rank, layout and type, and transposed ones: plain nests.

use crate::builder::Builder;
use crate::contract::{store_outputs, to_param};
use crate::conv::{Conv, finish_nest_flops, flops, tap_range, with_bias};
use crate::{LowerError, Lowering, scalar};
use lapidary_codegen::loops::*;
use lapidary_graph::op::Layout;
use lapidary_graph::{Dim, Graph, Group, NodeId, Op, Scalar};

type Result<T> = std::result::Result<T, LowerError>;

/// Position of the spatial axes and of the channel axis.
fn axes(layout: Layout, spatial: usize) -> (usize, usize) {
    match layout {
        Layout::ChannelsFirst => (2, 1),
        Layout::ChannelsLast => (1, spatial + 1),
    }
}

/// Any rank, any layout, any type: one reduction an output element.
pub(crate) fn naive(l: &mut Lowering, g: &Graph, group: &Group, c: &Conv) -> Result<()> {
    let mut b = Builder::new(g, group, g.nodes[c.node].name());
    let win = c.window;
    let spatial = win.kernel.len();
    let (xs, ys, ws) = (b.shape(c.x)?, b.shape(c.y)?, b.shape(c.w)?);
    let kernel: Vec<Dim> = win.kernel.iter().map(|k| b.dim(k)).collect();
    let (space, channel) = axes(win.layout, spatial);
    let index = b.open_all(&ys);
    let per_group = ys[channel].floor_div(&b.dim(&c.groups));
    let per_group = to_param(&mut b, &per_group);
    let grp = if c.groups.is_const(1) {
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
        ranges.push(tap_range(win, s, o, &pad, &kernel[s], &xs[space + s]));
        let v = b.variable(Some(&kernel[s]));
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
        groups: Dim::Const(*groups),
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
    let kernel: Vec<Dim> = win.kernel.iter().map(|k| b.dim(k)).collect();
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
        let v = b.variable(Some(&kernel[s]));
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
    let taps = vars.into_iter().zip(kernel);
    for (v, extent) in std::iter::once((cv, in_group)).chain(taps).rev() {
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
