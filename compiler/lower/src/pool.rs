//! Pooling: a reduction over the part of each window that lies inside the input.

use crate::builder::Builder;
use crate::contract::store_outputs;
use crate::conv::tap_range;
use crate::nest::finish_nest;
use crate::{LowerError, Lowering, scalar};
use lapidary_codegen::loops::*;
use lapidary_graph::op::{Layout, PoolKind};
use lapidary_graph::{Dim, Graph, Group, Op, Scalar};

pub(crate) fn pool(l: &mut Lowering, g: &Graph, group: &Group) -> Result<(), LowerError> {
    let n = group
        .anchor
        .or(group.nodes.first().copied())
        .ok_or(LowerError::Arity)?;
    let Op::Pool {
        kind, window: win, ..
    } = &g.nodes[n].op
    else {
        return Err(LowerError::missing(g, n, 0));
    };
    let x = g.nodes[n]
        .input(0)
        .ok_or_else(|| LowerError::missing(g, n, 0))?;
    let y = g.nodes[n].outputs[0];
    let mut b = Builder::new(g, group, g.nodes[n].name());
    let (xs, ys) = (b.shape(x)?, b.shape(y)?);
    let space = if win.layout == Layout::ChannelsFirst {
        2
    } else {
        1
    };
    let spatial = win.kernel.len();
    let index = if win.layout == Layout::ChannelsLast {
        // Lines of all images are one axis, so that there is work to divide.
        let lines = ys[0].mul(&ys[1]);
        let line = b.open(&lines);
        let (n, first) = if ys[0].is_const(1) {
            (Dim::Const(0), line)
        } else {
            (line.floor_div(&ys[1]), line.modulo(&ys[1]))
        };
        let mut i = vec![n, first];
        i.extend(b.open_all(&ys[2..]));
        i
    } else {
        b.open_all(&ys)
    };
    let (mut xi, mut vars, mut ranges) = (index.clone(), Vec::new(), Vec::new());
    let mut counted = Dim::Const(1);
    for s in 0..spatial {
        let (begin, end) = (b.dim(&win.pads_begin[s]), b.dim(&win.pads_end[s]));
        let kernel = b.dim(&win.kernel[s]);
        let o = &index[space + s];
        let range = tap_range(win, s, o, &begin, &kernel, &xs[space + s]);
        let padded = tap_range(win, s, o, &begin, &kernel, &xs[space + s].add(&end));
        counted = match kind {
            PoolKind::Average {
                count_padding: true,
            } => counted.mul(&padded.1),
            _ => counted.mul(&range.1.sub(&range.0)),
        };
        let v = b.variable(None);
        xi[space + s] = o
            .mul(&Dim::Const(win.strides[s]))
            .sub(&begin)
            .add(&Dim::from(v).mul(&Dim::Const(win.dilations[s])));
        vars.push(v);
        ranges.push(range);
    }
    let dtype = b.dtype(y);
    let elem = scalar::elem(dtype);
    let mut value = b.value_at(x, &xi)?;
    let (op, inner) = match kind {
        PoolKind::Max => (RedOp::Max, value),
        PoolKind::Average { .. } => (RedOp::Sum, value),
        PoolKind::Lp { p } => {
            let abs = b.expr(Expr::Un {
                op: UnOp::Abs,
                a: value,
            });
            let e = match p {
                1 => abs,
                2 => b.expr(Expr::Bin {
                    op: BinOp::Mul,
                    a: value,
                    b: value,
                }),
                p => {
                    let p = scalar::constant(&mut b, Scalar::of(dtype, *p as f64));
                    b.expr(Expr::Bin {
                        op: BinOp::Pow,
                        a: abs,
                        b: p,
                    })
                }
            };
            (RedOp::Sum, e)
        }
    };
    value = inner;
    let mut body = Vec::new();
    for (v, (from, to)) in vars.iter().zip(ranges).rev() {
        let local = b.kernel.local(Ty::Num(elem));
        body = vec![Stmt::Reduce {
            var: *v,
            from,
            to,
            body,
            accs: vec![Acc { op, local, value }],
        }];
        value = b.expr(Expr::Local(local));
    }
    body.into_iter().for_each(|s| b.push(s));
    let result = match kind {
        PoolKind::Max => value,
        PoolKind::Average { .. } => {
            let n = b.expr(Expr::Int {
                value: counted,
                elem,
            });
            let e = b.expr(Expr::Bin {
                op: BinOp::Div,
                a: value,
                b: n,
            });
            match scalar::mem(dtype) {
                Some(to) if to.bytes() < elem.bytes() => b.expr(Expr::Narrow { a: e, to }),
                _ => e,
            }
        }
        PoolKind::Lp { p: 1 } => value,
        PoolKind::Lp { p: 2 } => b.expr(Expr::Un {
            op: UnOp::Sqrt,
            a: value,
        }),
        PoolKind::Lp { p } => {
            let inv = scalar::constant(&mut b, Scalar::of(dtype, 1.0 / *p as f64));
            b.expr(Expr::Bin {
                op: BinOp::Pow,
                a: value,
                b: inv,
            })
        }
    };
    let sum = b.kernel.local(Ty::Num(elem));
    b.push(Stmt::Let {
        local: sum,
        value: result,
    });
    b.in_local.insert(y, sum);
    store_outputs(&mut b, group, &ys, &index)?;
    finish_nest(
        l,
        b,
        group,
        Dim::product(g.dims(y))
            .mul(&Dim::product(&win.kernel))
            .mul(&Dim::Const(2)),
    )
}
