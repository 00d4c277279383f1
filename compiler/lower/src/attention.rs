//! Attention: for each head, blocks of queries against all keys, scores kept in scratch memory.
//!
//! Scores of a block of query rows never leave the cache, so that memory grows with the number of
//! keys alone. The exponentials are normalised when the second product is stored. Keys are copied
//! to panels once a head; a few queries (a step of decoding) take dot products instead. Operands
//! and result may be views (heads inside a projection's row), since only their strides matter.

use crate::builder::Builder;
use crate::contract::to_param;
use crate::pack::PANEL;
use crate::{LowerError, Lowering};
use lapidary_codegen::expand::factor;
use lapidary_codegen::loops::*;
use lapidary_graph::{Dim, Graph, Group, Op};

type Result<T> = std::result::Result<T, LowerError>;

/// Query rows of a block: a multiple of the register tile's rows.
const BLOCK: i64 = 28;
/// Query rows up to which keys are not copied.
const FEW_QUERIES: i64 = 4;

pub(crate) fn attention(l: &mut Lowering, g: &Graph, group: &Group) -> Result<()> {
    let n = group
        .anchor
        .or(group.nodes.first().copied())
        .ok_or(LowerError::Arity)?;
    let Op::Attention(attrs) = &g.nodes[n].op else {
        return Err(LowerError::missing(g, n, 0));
    };
    let input = |i: usize| {
        g.nodes[n]
            .input(i)
            .ok_or_else(|| LowerError::missing(g, n, i))
    };
    let (q, k, v, y) = (input(0)?, input(1)?, input(2)?, g.nodes[n].outputs[0]);
    if g.ty(q).dtype != lapidary_graph::DType::F32 {
        return Err(LowerError::unsupported(
            g,
            n,
            "attention in a type other than f32",
        ));
    }
    let mut b = Builder::new(g, group, g.nodes[n].name());
    let (qs, ks, vs) = (b.shape(q)?, b.shape(k)?, b.shape(v)?);
    let (batch, heads, queries, width) =
        (qs[0].clone(), qs[1].clone(), qs[2].clone(), qs[3].clone());
    let (kv_heads, keys, out_width) = (ks[1].clone(), ks[2].clone(), vs[3].clone());

    b.kernel.tasks = to_param(&mut b, &batch.mul(&heads));
    let task = Dim::from(b.kernel.sym(SymKind::Task));
    let bi = if batch.is_const(1) {
        Dim::Const(0)
    } else {
        task.floor_div(&heads)
    };
    let h = if batch.is_const(1) {
        task.clone()
    } else {
        task.modulo(&heads)
    };
    let kh = match heads.exact_div(&kv_heads) {
        Some(Dim::Const(1)) => h.clone(),
        Some(group) => h.floor_div(&group),
        // A multiple all the same, or the run ends before this kernel.
        None => h.floor_div(&to_param(&mut b, &heads.floor_div(&kv_heads))),
    };

    // Scratch: scores of a block, the reciprocal sums of its rows, and the keys in panels.
    let line = Dim::Const(16);
    let stride = to_param(&mut b, &keys.ceil_div(&line).mul(&line).add(&line));
    let elements = to_param(&mut b, &stride.mul(&Dim::Const(BLOCK)));
    let scores = b.scratch("scores", Mem::F32, &elements);
    let sums = b.scratch("sums", Mem::F32, &Dim::Const(BLOCK));
    let panel = Dim::Const(PANEL);
    let panel_stride = to_param(&mut b, &width.mul(&panel));
    let elements = to_param(&mut b, &keys.ceil_div(&panel).mul(&panel).mul(&width));
    let packed = b.scratch("keys", Mem::F32, &elements);

    let row = b.variable(Some(&queries));
    let (rows_from, rows_to);
    // Where each operand lies, as expressions in row, key and depth variables.
    let (kv, dv) = (b.variable(Some(&keys)), b.variable(Some(&width)));
    let (q_buf, q_at) = view(
        &mut b,
        g,
        n,
        q,
        &[bi.clone(), h.clone(), Dim::from(row), Dim::from(dv)],
    )?;
    let (k_buf, k_at) = view(
        &mut b,
        g,
        n,
        k,
        &[bi.clone(), kh.clone(), Dim::from(kv), Dim::from(dv)],
    )?;
    let ev = b.variable(Some(&out_width));
    let (v_buf, v_at) = view(
        &mut b,
        g,
        n,
        v,
        &[bi.clone(), kh, Dim::from(kv), Dim::from(ev)],
    )?;
    let strides = (factor(&q_at, dv), factor(&v_at, kv), factor(&v_at, ev));
    let (Some(_), Some(v_stride), Some(Dim::Const(1))) = strides else {
        return Err(LowerError::unsupported(
            g,
            n,
            "an attention operand whose rows are not contiguous",
        ));
    };
    let few = Dim::Const(FEW_QUERIES).sub(&queries);

    // Keys to panels, unless there are few queries.
    b.begin_block();
    let j = b.open(&keys);
    let d = b.open(&width);
    let from = k_at.substitute(&|s| {
        if s == kv {
            Some(j.clone())
        } else if s == dv {
            Some(d.clone())
        } else {
            None
        }
    });
    let value = b.load(k_buf, from);
    let place = j
        .floor_div(&panel)
        .mul(&panel_stride)
        .add(&d.mul(&panel))
        .add(&j.modulo(&panel));
    b.store(packed, place, value);
    b.close();
    if !keys.is_const(1) {
        b.close();
    }
    let pack = b.end_block();
    if few.as_const().is_none_or(|f| f < 0) {
        b.push(Stmt::If {
            all: vec![few.neg().sub(&Dim::Const(1))],
            then: pack,
            otherwise: Vec::new(),
        });
    }

    let blocks = to_param(&mut b, &queries.ceil_div(&Dim::Const(BLOCK)));
    let block = b.open(&blocks);
    rows_from = block.mul(&Dim::Const(BLOCK));
    rows_to = rows_from.add(&Dim::Const(BLOCK)).minimum(&queries);

    // Scores: scaled, masked.
    let scale = b.f32(attrs.scale);
    let score = |b: &mut Builder, dot: ExprId, i: &Dim, j: &Dim| -> Result<ExprId> {
        let mut e = b.expr(Expr::Bin {
            op: BinOp::Mul,
            a: dot,
            b: scale,
        });
        if attrs.softcap != 0.0 {
            let (cap, part) = (b.f32(attrs.softcap), b.f32(1.0 / attrs.softcap));
            let y = b.expr(Expr::Bin {
                op: BinOp::Mul,
                a: e,
                b: part,
            });
            let y = b.expr(Expr::Un {
                op: UnOp::Tanh,
                a: y,
            });
            e = b.expr(Expr::Bin {
                op: BinOp::Mul,
                a: y,
                b: cap,
            });
        }
        if let Some(m) = attrs.mask() {
            let m = input(m)?;
            let dims = b.shape(m)?;
            let full = [batch.clone(), heads.clone(), queries.clone(), keys.clone()];
            let at =
                b.broadcast_index(&dims, &full, &[bi.clone(), h.clone(), i.clone(), j.clone()]);
            let mask = b.value_at(m, &at)?;
            e = b.expr(Expr::Bin {
                op: BinOp::Add,
                a: e,
                b: mask,
            });
        }
        if attrs.causal {
            let int = |b: &mut Builder, value: Dim| {
                b.expr(Expr::Int {
                    value,
                    elem: Elem::I32,
                })
            };
            // The place of the query itself among the keys.
            let own = if let Some(first) = attrs.first() {
                let first = b.value_at(input(first)?, std::slice::from_ref(&bi))?;
                let i = int(b, i.clone());
                b.expr(Expr::Bin {
                    op: BinOp::Add,
                    a: i,
                    b: first,
                })
            } else {
                int(b, i.add(&keys).sub(&queries))
            };
            let here = int(b, j.clone());
            let mut only = |b: &mut Builder, from: ExprId, to: ExprId| {
                let seen = b.expr(Expr::Cmp {
                    op: CmpOp::Le,
                    a: from,
                    b: to,
                });
                let never = b.f32(f32::NEG_INFINITY);
                e = b.expr(Expr::Select {
                    cond: seen,
                    a: e,
                    b: never,
                });
            };
            only(b, here, own);
            if let Some(window) = attrs.window {
                // own - window < here, without overflow: a window is cut to the greatest i32.
                let reach = int(b, Dim::Const((window - 1).min(i32::MAX as i64)));
                let end = b.expr(Expr::Bin {
                    op: BinOp::Sub,
                    a: own,
                    b: reach,
                });
                only(b, end, here);
            }
        }
        Ok(e)
    };
    b.begin_block();
    let acc = b.kernel.local(Ty::Num(Elem::F32));
    let dot = b.expr(Expr::Local(acc));
    let e = score(&mut b, dot, &Dim::from(row), &Dim::from(kv))?;
    b.store(
        scores,
        Dim::from(row)
            .sub(&rows_from)
            .mul(&stride)
            .add(&Dim::from(kv)),
        e,
    );
    let epilogue = b.end_block();
    let product = Stmt::Contract(Box::new(Contract {
        row,
        rows: (rows_from.clone(), rows_to.clone()),
        col: kv,
        cols: (Dim::Const(0), keys.clone()),
        k: dv,
        depth: width.clone(),
        a: q_buf,
        a_at: q_at.clone(),
        b: BOperand {
            buf: packed,
            base: Dim::Const(0),
            k_stride: panel.clone(),
            panel: Some((PANEL, panel_stride)),
        },
        acc,
        epilogue,
    }));
    b.begin_block();
    let i = Dim::from(b.open_range(&rows_from, &rows_to));
    let j = Dim::from(b.open_range(&Dim::Const(0), &keys));
    let rd = b.variable(Some(&width));
    let put = |at: &Dim| {
        at.substitute(&|s| {
            if s == row {
                Some(i.clone())
            } else if s == kv {
                Some(j.clone())
            } else if s == dv {
                Some(Dim::from(rd))
            } else {
                None
            }
        })
    };
    let (qe, ke) = (b.load(q_buf, put(&q_at)), b.load(k_buf, put(&k_at)));
    let term = b.expr(Expr::Bin {
        op: BinOp::Mul,
        a: qe,
        b: ke,
    });
    let sum = b.kernel.local(Ty::Num(Elem::F32));
    b.push(Stmt::Reduce {
        var: rd,
        from: Dim::Const(0),
        to: width.clone(),
        body: Vec::new(),
        accs: vec![Acc {
            op: RedOp::Sum,
            local: sum,
            value: term,
        }],
    });
    let dot = b.expr(Expr::Local(sum));
    let e = score(&mut b, dot, &i, &j)?;
    b.store(scores, i.sub(&rows_from).mul(&stride).add(&j), e);
    b.close();
    b.close();
    let dots = b.end_block();
    match few.as_const() {
        Some(f) if f >= 0 => dots.into_iter().for_each(|s| b.push(s)),
        Some(_) => b.push(product),
        None => b.push(Stmt::If {
            all: vec![few],
            then: dots,
            otherwise: vec![product],
        }),
    }

    // Exponentials of each row, and the reciprocal of their sum.
    let i = Dim::from(b.open_range(&Dim::Const(0), &rows_to.sub(&rows_from)));
    let at = |j: Sym| i.mul(&stride).add(&Dim::from(j));
    let (m, s) = (
        b.kernel.local(Ty::Num(Elem::F32)),
        b.kernel.local(Ty::Num(Elem::F32)),
    );
    let j = b.variable(Some(&keys));
    let value = b.load(scores, at(j));
    b.push(Stmt::Reduce {
        var: j,
        from: Dim::Const(0),
        to: keys.clone(),
        body: Vec::new(),
        accs: vec![Acc {
            op: RedOp::Max,
            local: m,
            value,
        }],
    });
    let j = b.variable(Some(&keys));
    let value = b.load(scores, at(j));
    let mut most = b.expr(Expr::Local(m));
    let sink = match attrs.sink() {
        Some(i) => Some(b.value_at(input(i)?, std::slice::from_ref(&h))?),
        None => None,
    };
    if let Some(sink) = sink {
        most = b.expr(Expr::Bin {
            op: BinOp::Max,
            a: most,
            b: sink,
        });
    }
    let moved = b.expr(Expr::Bin {
        op: BinOp::Sub,
        a: value,
        b: most,
    });
    let e = b.expr(Expr::Un {
        op: UnOp::Exp,
        a: moved,
    });
    let kept = b.kernel.local(Ty::Num(Elem::F32));
    let kept_e = b.expr(Expr::Local(kept));
    let body = vec![
        Stmt::Let {
            local: kept,
            value: e,
        },
        Stmt::Store {
            buf: scores,
            at: at(j),
            value: kept_e,
        },
    ];
    b.push(Stmt::Reduce {
        var: j,
        from: Dim::Const(0),
        to: keys.clone(),
        body,
        accs: vec![Acc {
            op: RedOp::Sum,
            local: s,
            value: kept_e,
        }],
    });
    let (one, mut total) = (b.f32(1.0), b.expr(Expr::Local(s)));
    if let Some(sink) = sink {
        let moved = b.expr(Expr::Bin {
            op: BinOp::Sub,
            a: sink,
            b: most,
        });
        let e = b.expr(Expr::Un {
            op: UnOp::Exp,
            a: moved,
        });
        total = b.expr(Expr::Bin {
            op: BinOp::Add,
            a: total,
            b: e,
        });
    }
    let inverse = b.expr(Expr::Bin {
        op: BinOp::Div,
        a: one,
        b: total,
    });
    b.store(sums, i.clone(), inverse);
    b.close();

    // The second product, normalised as it is stored.
    b.begin_block();
    let acc = b.kernel.local(Ty::Num(Elem::F32));
    let (sum, inverse) = (
        b.expr(Expr::Local(acc)),
        b.load(sums, Dim::from(row).sub(&rows_from)),
    );
    let value = b.expr(Expr::Bin {
        op: BinOp::Mul,
        a: sum,
        b: inverse,
    });
    let result = b.kernel.local(Ty::Num(Elem::F32));
    b.push(Stmt::Let {
        local: result,
        value,
    });
    b.in_local.insert(y, result);
    let index = [bi, h, Dim::from(row), Dim::from(ev)];
    for o in &group.outputs {
        // The tail is views of the result: the place of this element in the last of them.
        let place = forward(&mut b, g, group, y, *o, &index)?;
        let out = b.output(*o)?;
        let e = b.expr(Expr::Local(result));
        b.store(out, place, e);
    }
    let epilogue = b.end_block();
    let base = v_at.substitute(&|s| {
        if s == kv || s == ev {
            Some(Dim::Const(0))
        } else {
            None
        }
    });
    b.push(Stmt::Contract(Box::new(Contract {
        row,
        rows: (rows_from.clone(), rows_to),
        col: ev,
        cols: (Dim::Const(0), out_width.clone()),
        k: kv,
        depth: keys.clone(),
        a: scores,
        a_at: Dim::from(row)
            .sub(&rows_from)
            .mul(&stride)
            .add(&Dim::from(kv)),
        b: BOperand {
            buf: v_buf,
            base,
            k_stride: v_stride,
            panel: None,
        },
        acc,
        epilogue,
    })));
    let work = crate::builder::to_graph(
        &batch
            .mul(&heads)
            .mul(&queries)
            .mul(&keys)
            .mul(&width.add(&out_width)),
        &b.kernel,
        &b.dims,
    );
    let flops = work.mul(&Dim::Const(2));
    let cost = flops.mul(&Dim::Const(2));
    let (loops, step) = b.finish(group.nodes.clone(), cost, flops)?;
    l.kernel(loops, step);
    Ok(())
}

fn view(
    b: &mut Builder,
    g: &Graph,
    n: lapidary_graph::NodeId,
    v: lapidary_graph::ValueId,
    index: &[Dim],
) -> Result<(Buf, Dim)> {
    b.element_if_view(v, index)?.ok_or_else(|| {
        LowerError::unsupported(
            g,
            n,
            "an attention operand that is computed inside its group",
        )
    })
}

/// Row-major place, in `to`, of the element at `index` of `from`, through the views between them.
fn forward(
    b: &mut Builder,
    g: &Graph,
    group: &Group,
    from: lapidary_graph::ValueId,
    to: lapidary_graph::ValueId,
    index: &[Dim],
) -> Result<Dim> {
    let (mut v, mut at) = (from, index.to_vec());
    while v != to {
        let next = group
            .nodes
            .iter()
            .copied()
            .find(|n| g.nodes[*n].input(0) == Some(v));
        let Some(n) = next else {
            return Err(LowerError::Arity);
        };
        let out = g.nodes[n].outputs[0];
        at = match &g.nodes[n].op {
            Op::Transpose { perm } => perm.iter().map(|p| at[*p].clone()).collect(),
            Op::Reshape { .. } => {
                let (dims, shape) = (b.shape(v)?, b.shape(out)?);
                b.reshape_index(&shape, &dims, &at)
            }
            op => return Err(LowerError::not_a_view(g, n, op.name())),
        };
        v = out;
    }
    let shape = b.shape(to)?;
    Ok(b.linear(&shape, &at))
}
