//! Depthwise convolutions: channels last, one filter a channel.

use crate::builder::Builder;
use crate::contract::store_outputs;
use crate::conv::{Conv, finish_nest_flops, flops, tap_range, with_bias};
use crate::pack::Form;
use crate::program::Operand;
use crate::{LowerError, Lowering};
use lapidary_codegen::loops::*;
use lapidary_graph::{DType, Dim, Graph, Group};

type Result<T> = std::result::Result<T, LowerError>;

/// Channels run over lanes, outside the positions of a line, so that a line's weights stay in
/// registers; positions whose whole window lies inside the image are a sum written out, the others
/// loop over the taps that do.
pub(crate) fn depthwise(
    l: &mut Lowering,
    g: &Graph,
    group: &Group,
    c: &Conv,
    w: &[i64],
) -> Result<()> {
    let (channels, kh, kw) = (w[0], w[2], w[3]);
    let mut b = Builder::new(g, group, g.nodes[c.node].name());
    let (xs, ys) = (b.shape(c.x)?, b.shape(c.y)?);
    let win = c.window;
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
        let (h0, h1) = tap_range(win, 0, &oh, &pads[0], &Dim::Const(kh), &xs[1]);
        let (w0, w1) = tap_range(win, 1, &ow, &pads[1], &Dim::Const(kw), &xs[2]);
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
