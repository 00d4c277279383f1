//! Random loops, compiled for every level, do what the reference interpreter does.
//!
//! Values are small whole numbers, so that sums and products are exact in every order, and results
//! must be equal; kernels without sums also meet what is not finite. Every case follows from its
//! number. `LAPIDARY_LOOPS=from..to` runs others than the first.

mod loops_support;
mod support;

use lapidary_codegen::loops::interp;
use lapidary_codegen::loops::*;
use loops_support::{Case, elem_bits, raw};
use support::{MEMS, Numbers};

/// The numbers of the cases to run.
fn cases(count: u64) -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("LAPIDARY_LOOPS") else {
        return 0..count;
    };
    let (from, to) = text.split_once("..").unwrap();
    from.parse().unwrap()..to.parse().unwrap()
}

const EXTENTS: [i64; 11] = [0, 1, 2, 3, 5, 8, 16, 17, 31, 33, 64];

struct Gen {
    r: Numbers,
    k: LoopKernel,
    dims: Vec<i64>,
    buffers: Vec<Vec<u8>>,
    /// Open loops, outermost first: variable, extent, its value.
    axes: Vec<(Dim, Dim, i64)>,
    /// Locals that may be read here.
    locals: Vec<Local>,
    /// Whether values may be anything a type holds.
    special: bool,
    /// The lane types that this kernel computes in.
    elems: Vec<Elem>,
}

impl Gen {
    fn new(seed: u64, special: bool) -> Gen {
        let mut r = Numbers(seed.wrapping_mul(0x9e37_79b9));
        let elems = match r.next() % 4 {
            0 | 1 => vec![Elem::F32, Elem::I32],
            2 => vec![Elem::F32],
            _ => vec![Elem::F32, Elem::F64, Elem::I32, Elem::I64],
        };
        Gen {
            r,
            k: LoopKernel::new(format!("random{seed}")),
            dims: Vec::new(),
            buffers: Vec::new(),
            axes: Vec::new(),
            locals: Vec::new(),
            special,
            elems,
        }
    }
    fn pick(&mut self, n: usize) -> usize {
        (self.r.next() % n.max(1) as u64) as usize
    }
    fn chance(&mut self, one_in: usize) -> bool {
        self.pick(one_in) == 0
    }
    fn elem(&mut self) -> Elem {
        let i = self.pick(self.elems.len());
        self.elems[i]
    }
    fn mem(&mut self) -> Mem {
        loop {
            let m = MEMS[self.pick(MEMS.len())];
            if self.elems.contains(&m.elem()) {
                return m;
            }
        }
    }

    /// An extent, as a number or as a parameter.
    fn extent(&mut self, value: i64) -> Dim {
        if self.chance(2) {
            return Dim::Const(value);
        }
        let entry = self.dims.len() as u32;
        self.dims.push(value);
        Dim::from(self.k.sym(SymKind::Param(entry)))
    }

    fn number(&mut self, mem: Mem) -> f64 {
        let specials = [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            -0.0,
            1e-41,
            3.0e38,
            0.1,
            -65520.0,
        ];
        if self.special && mem.elem().is_float() && self.chance(3) {
            return specials[self.pick(specials.len())];
        }
        let v = (self.r.next() % 9) as f64 - 4.0;
        if matches!(mem, Mem::U8 | Mem::U16 | Mem::U32) {
            v.abs()
        } else {
            v
        }
    }

    /// A buffer of random numbers.
    fn input(&mut self, mem: Mem, elements: i64) -> Buf {
        let n = self.buffers.len();
        let bytes = (0..elements).flat_map(|_| {
            let v = self.number(mem);
            raw(mem, v)
        });
        let bytes = bytes.collect();
        self.buffers.push(bytes);
        self.k
            .buffer(format!("in{n}"), mem, BufferKind::Input(n as u32))
    }
    fn output(&mut self, mem: Mem, elements: i64) -> Buf {
        let n = self.buffers.len();
        self.buffers
            .push(vec![0xCD; elements as usize * mem.bytes() as usize]);
        self.k
            .buffer(format!("out{n}"), mem, BufferKind::Output(n as u32))
    }

    /// A fresh input that is read at the open loops' variables: all or some of them, in order or not.
    fn load(&mut self, elem: Elem) -> ExprId {
        let mem = loop {
            let m = self.mem();
            if m.elem() == elem {
                break m;
            }
        };
        let (mut at, mut stride, mut size) = (Dim::Const(0), Dim::Const(1), 1i64);
        let mut order: Vec<usize> = (0..self.axes.len()).rev().collect();
        if self.chance(4) {
            order.reverse();
        }
        for i in order {
            // Left out: broadcast along this axis.
            if self.chance(4) {
                continue;
            }
            let (var, extent, value) = self.axes[i].clone();
            // Sometimes every second element.
            let step = if self.chance(8) { 2 } else { 1 };
            at = at.add(&var.mul(&stride).mul(&Dim::Const(step)));
            stride = stride.mul(&extent).mul(&Dim::Const(step));
            size *= value * step;
        }
        let offset = if self.chance(6) { 3 } else { 0 };
        let at = at.add(&Dim::Const(offset));
        let buf = self.input(mem, size.max(1) + offset);
        self.k.expr(Expr::Load { buf, at })
    }

    fn constant(&mut self, elem: Elem) -> ExprId {
        let v = (self.r.next() % 5) as f64 - 2.0;
        self.k.expr(Expr::Const {
            elem,
            bits: elem_bits(elem, v),
        })
    }

    fn leaf(&mut self, elem: Elem) -> ExprId {
        let fitting: Vec<Local> = self
            .locals
            .iter()
            .copied()
            .filter(|l| self.k.locals[l.0 as usize] == Ty::Num(elem))
            .collect();
        match self.pick(8) {
            0 => self.constant(elem),
            1 if !self.axes.is_empty() => {
                let i = self.pick(self.axes.len());
                let (var, ..) = self.axes[i].clone();
                let factor = self.pick(3) as i64;
                self.k.expr(Expr::Int {
                    value: var.mul(&Dim::Const(factor)).add(&Dim::Const(1)),
                    elem,
                })
            }
            2..4 if !fitting.is_empty() => {
                let l = fitting[self.pick(fitting.len())];
                self.k.expr(Expr::Local(l))
            }
            _ => self.load(elem),
        }
    }

    fn truth(&mut self, depth: u32) -> ExprId {
        if depth > 0 && self.chance(3) {
            let (a, b) = (self.truth(depth - 1), self.truth(depth - 1));
            return match self.pick(6) {
                0 => self.k.expr(Expr::Un { op: UnOp::Not, a }),
                1 => self.k.expr(Expr::Cmp {
                    op: CmpOp::Eq,
                    a,
                    b,
                }),
                2 => self.k.expr(Expr::Cmp {
                    op: CmpOp::Ne,
                    a,
                    b,
                }),
                3 => self.k.expr(Expr::Bin {
                    op: BinOp::And,
                    a,
                    b,
                }),
                4 => self.k.expr(Expr::Bin {
                    op: BinOp::Or,
                    a,
                    b,
                }),
                _ => self.k.expr(Expr::Bin {
                    op: BinOp::Xor,
                    a,
                    b,
                }),
            };
        }
        let elem = self.elem();
        let (a, b) = (self.expr(elem, depth.saturating_sub(1)), self.leaf(elem));
        let ops = [
            CmpOp::Eq,
            CmpOp::Ne,
            CmpOp::Lt,
            CmpOp::Le,
            CmpOp::Gt,
            CmpOp::Ge,
        ];
        let op = ops[self.pick(6)];
        self.k.expr(Expr::Cmp { op, a, b })
    }

    fn expr(&mut self, elem: Elem, depth: u32) -> ExprId {
        if depth == 0 {
            return self.leaf(elem);
        }
        let d = depth - 1;
        let float = elem.is_float();
        match self.pick(16) {
            0..3 => {
                let ops = if float {
                    [UnOp::Neg, UnOp::Abs, UnOp::Floor]
                } else {
                    [UnOp::Neg, UnOp::Abs, UnOp::Not]
                };
                let (op, a) = (ops[self.pick(3)], self.expr(elem, d));
                self.k.expr(Expr::Un { op, a })
            }
            3..10 => {
                let ops = match (float, self.special) {
                    (true, true) => vec![
                        BinOp::Add,
                        BinOp::Sub,
                        BinOp::Mul,
                        BinOp::Div,
                        BinOp::Min,
                        BinOp::Max,
                        BinOp::MinFast,
                        BinOp::MaxFast,
                    ],
                    (true, false) => vec![
                        BinOp::Add,
                        BinOp::Sub,
                        BinOp::Mul,
                        BinOp::Min,
                        BinOp::Max,
                        BinOp::MaxFast,
                    ],
                    (false, _) => vec![
                        BinOp::Add,
                        BinOp::Sub,
                        BinOp::Mul,
                        BinOp::Div,
                        BinOp::Rem,
                        BinOp::Min,
                        BinOp::Max,
                        BinOp::And,
                        BinOp::Or,
                        BinOp::Xor,
                        BinOp::Shl,
                        BinOp::Shr,
                        BinOp::Sar,
                    ],
                };
                let op = ops[self.pick(ops.len())];
                // Products of leaves only: values stay small enough to be exact.
                let d = if op == BinOp::Mul && float && !self.special {
                    0
                } else {
                    d
                };
                let (a, b) = (self.expr(elem, d), self.expr(elem, d));
                self.k.expr(Expr::Bin { op, a, b })
            }
            10 if float && !self.special => {
                let (a, b, c) = (self.leaf(elem), self.leaf(elem), self.expr(elem, d));
                self.k.expr(Expr::Fma { a, b, c })
            }
            11 | 12 => {
                let (cond, a, b) = (self.truth(d.min(1)), self.expr(elem, d), self.expr(elem, d));
                self.k.expr(Expr::Select { cond, a, b })
            }
            13 => {
                let from = self.elem();
                let a = if self.chance(3) {
                    self.truth(1)
                } else {
                    self.expr(from, d)
                };
                self.k.expr(Expr::Convert { a, to: elem })
            }
            14 => {
                let fits = [
                    Mem::F16,
                    Mem::BF16,
                    Mem::I8,
                    Mem::U8,
                    Mem::I16,
                    Mem::U16,
                    Mem::U32,
                ];
                let to = fits[self.pick(fits.len())];
                let a = self.expr(elem, d);
                if to.elem() != elem || (float && !self.special) {
                    return a;
                }
                self.k.expr(Expr::Narrow { a, to })
            }
            15 if self.elems.contains(&Elem::I32) && elem == Elem::F32 && self.special => {
                let a = self.load(Elem::I32);
                self.k.expr(Expr::Bits { a, to: elem })
            }
            _ => {
                let a = self.expr(elem, d);
                let twice = self.chance(2);
                let op = if float { BinOp::Max } else { BinOp::Min };
                let b = if twice { a } else { self.leaf(elem) };
                self.k.expr(Expr::Bin { op, a, b })
            }
        }
    }

    /// The place of the present element in row-major order, and how many elements there are.
    fn row_major(&self) -> (Dim, i64) {
        let (mut at, mut size) = (Dim::Const(0), 1);
        for (var, extent, value) in &self.axes {
            at = at.mul(extent).add(var);
            size *= value;
        }
        (at, size)
    }

    fn store(&mut self) -> Stmt {
        let mem = self.mem();
        let (at, size) = self.row_major();
        let buf = self.output(mem, size);
        let value = if mem.elem() == Elem::I32 && self.chance(4) {
            self.truth(2)
        } else {
            self.expr(mem.elem(), 3)
        };
        Stmt::Store { buf, at, value }
    }

    fn assign(&mut self) -> Stmt {
        let elem = self.elem();
        let value = self.expr(elem, 2);
        let local = self.k.local(Ty::Num(elem));
        self.locals.push(local);
        Stmt::Let { local, value }
    }

    /// A default, and another value under a condition on the open loops.
    fn condition(&mut self, body: &mut Vec<Stmt>) {
        let Some((var, extent, _)) = self.axes.first().cloned() else {
            return;
        };
        let first = self.assign();
        let Stmt::Let { local, .. } = first else {
            return;
        };
        let Ty::Num(elem) = self.k.locals[local.0 as usize] else {
            return;
        };
        let mut all = vec![match self.pick(2) {
            0 => var.sub(&Dim::Const(2)),
            _ => extent.sub(&var).sub(&Dim::Const(3)),
        }];
        if self.chance(2) {
            all.push(Dim::Const(9).sub(&var));
        }
        let value = self.expr(elem, 1);
        let mut then = vec![Stmt::Let { local, value }];
        if self.chance(3) {
            then.push(self.store());
        }
        body.push(first);
        body.push(Stmt::If {
            all,
            then,
            otherwise: Vec::new(),
        });
    }

    fn reduce(&mut self, body: &mut Vec<Stmt>) {
        let value = EXTENTS[self.pick(EXTENTS.len())];
        let extent = self.extent(value);
        let var = self.k.sym(SymKind::Loop);
        self.axes.push((Dim::from(var), extent.clone(), value));
        let outer = self.locals.len();
        let mut inner = Vec::new();
        if self.chance(2) {
            let s = self.assign();
            inner.push(s);
        }
        if self.chance(4) {
            let s = self.store();
            inner.push(s);
        }
        let mut accs = Vec::new();
        for _ in 0..1 + self.pick(2) {
            let elem = self.elem();
            let ops = [RedOp::Sum, RedOp::Sum, RedOp::Min, RedOp::Max, RedOp::Prod];
            let op = ops[self.pick(if elem.is_float() { 4 } else { 5 })];
            let value = self.expr(elem, 1);
            accs.push((op, elem, value));
        }
        self.axes.pop();
        self.locals.truncate(outer);
        let accs = accs.into_iter().map(|(op, elem, value)| {
            let local = self.k.local(Ty::Num(elem));
            self.locals.push(local);
            Acc { op, local, value }
        });
        let accs = accs.collect();
        body.push(Stmt::Reduce {
            var,
            from: Dim::Const(0),
            to: extent,
            body: inner,
            accs,
        });
    }

    fn body(&mut self, loops: usize) -> Vec<Stmt> {
        let mut out = Vec::new();
        let outer = self.locals.len();
        if loops > 0 {
            for _ in 0..self.pick(2) {
                let s = self.assign();
                out.push(s);
            }
            let inner = if self.chance(3) { 2 } else { 1 };
            for _ in 0..inner {
                let value = EXTENTS[self.pick(EXTENTS.len())].min(if loops > 1 { 5 } else { 64 });
                let extent = self.extent(value);
                let var = self.k.sym(SymKind::Loop);
                self.axes.push((Dim::from(var), extent.clone(), value));
                let body = self.body(loops - 1);
                self.axes.pop();
                out.push(Stmt::For {
                    var,
                    from: Dim::Const(0),
                    to: extent,
                    body,
                });
            }
        } else {
            for _ in 0..self.pick(3) {
                match self.pick(4) {
                    0 if !self.special => self.reduce(&mut out),
                    1 => self.condition(&mut out),
                    _ => {
                        let s = self.assign();
                        out.push(s);
                    }
                }
            }
            for _ in 0..1 + self.pick(2) {
                let s = self.store();
                out.push(s);
            }
        }
        self.locals.truncate(outer);
        out
    }

    fn case(self, schedule: Schedule, tasks: i64) -> Case {
        let memory = interp::Memory {
            buffers: self.buffers,
            dims: self.dims,
            scratch: Vec::new(),
        };
        Case {
            kernel: self.k,
            schedule,
            memory,
            tasks: (0, tasks),
        }
    }
}

fn nest(seed: u64, special: bool) {
    let mut g = Gen::new(seed, special);
    let tasks = if g.chance(2) {
        let n = 1 + g.pick(3) as i64;
        let t = Dim::from(g.k.sym(SymKind::Task));
        let extent = g.extent(n);
        g.k.tasks = extent.clone();
        g.axes.push((t, extent, n));
        n
    } else {
        1
    };
    let loops = 1 + g.pick(2);
    let body = g.body(loops);
    g.k.body = body;
    let automatic = schedule::automatic(&g.k);
    let case = g.case(automatic.clone(), tasks);
    case.check(0.0);
    // Each vectorised loop left out is a schedule as well.
    for out in &automatic.vector {
        let rest = automatic
            .vector
            .iter()
            .copied()
            .filter(|v| v != out)
            .collect();
        let schedule = Schedule {
            vector: rest,
            ..automatic.clone()
        };
        Case {
            schedule,
            ..case.clone()
        }
        .check(0.0);
    }
}

#[test]
fn random_nests_of_whole_numbers() {
    cases(150).for_each(|seed| nest(seed, false));
}

#[test]
fn random_nests_without_sums_meet_what_is_not_finite() {
    cases(100).for_each(|seed| nest(seed, true));
}

/// A contraction with random operands, tiles and epilogue.
fn product(seed: u64) {
    let mut g = Gen::new(seed ^ 0x5555_0000, false);
    g.elems = vec![Elem::F32];
    let (m, n, depth) = (g.pick(41) as i64, g.pick(71) as i64, g.pick(10) as i64);
    let (m, n) = (m, if g.chance(20) { 0 } else { n.max(1) });
    let (mut rows, cols, mut k) = (g.extent(m), g.extent(n), g.extent(depth));
    // Rows of some lines: a jump from the end of one to the start of the next.
    let line = g.chance(4).then(|| 1 + g.pick(18) as i64);
    let (mut m, mut lines) = (m, Dim::Const(0));
    if let Some(line) = line {
        let count = g.pick(5) as i64;
        lines = g.extent(count);
        (m, rows) = (count * line, lines.mul(&Dim::Const(line)));
        k = Dim::Const(depth);
    }
    let [row, col, kk] = [(); 3].map(|()| g.k.sym(SymKind::Loop));

    // The left operand: rows at some distance, steps of one or two, or runs with a jump between.
    let step = if g.chance(5) { 2 } else { 1 };
    let pad = g.pick(3) as i64;
    let run = 2 + g.pick(9) as i64;
    let (k, depth, jump) = if g.chance(4) {
        let depth = run * depth;
        (Dim::Const(depth), depth, g.pick(5) as i64)
    } else {
        (k, depth, 0)
    };
    let line_jump = g.pick(40) as i64;
    let lead = k.mul(&Dim::Const(step)).add(&Dim::Const(pad));
    let first = g.pick(2) as i64 * 5;
    let mut a_at = Dim::from(row)
        .mul(&lead)
        .add(&Dim::from(kk).mul(&Dim::Const(step)))
        .add(&Dim::Const(first));
    if jump > 0 {
        let jumps = Dim::from(kk).floor_div(&Dim::Const(run));
        a_at = a_at.add(&jumps.mul(&g.extent(jump)));
    }
    if let Some(line) = line {
        let lines = Dim::from(row).floor_div(&Dim::Const(line));
        a_at = a_at.add(&lines.mul(&Dim::Const(line_jump)));
    }
    let a = g.input(
        Mem::F32,
        first + m * (depth * step + pad + line_jump) + depth / run * jump + 1,
    );

    // The right operand: rows, or panels padded with zeros.
    let b_first = g.pick(2) as i64 * 7;
    let b = if g.chance(2) {
        let width = [16, 32, 32, 64][g.pick(4)];
        let buf = g.input(Mem::F32, b_first + (n + width - 1) / width * width * depth);
        let stride = Dim::Const(width).mul(&k);
        BOperand {
            buf,
            base: Dim::Const(b_first),
            k_stride: Dim::Const(width),
            panel: Some((width, stride)),
        }
    } else {
        let pad = g.pick(3) as i64;
        let buf = g.input(Mem::F32, b_first + (n + pad) * depth);
        BOperand {
            buf,
            base: Dim::Const(b_first),
            k_stride: cols.add(&Dim::Const(pad)),
            panel: None,
        }
    };

    // The epilogue: element, row and column wise operands, an index of the row, a function.
    let acc = g.k.local(Ty::Num(Elem::F32));
    let mut value = g.k.expr(Expr::Local(acc));
    let mut epilogue = Vec::new();
    let mut tolerance = 0.0;
    let at = Dim::from(row).mul(&cols).add(&Dim::from(col));
    for _ in 0..g.pick(4) {
        let other = match g.pick(5) {
            0 => {
                let buf = g.input(Mem::F32, n);
                g.k.expr(Expr::Load {
                    buf,
                    at: Dim::from(col),
                })
            }
            1 => {
                let buf = g.input(Mem::F32, m);
                g.k.expr(Expr::Load {
                    buf,
                    at: Dim::from(row),
                })
            }
            2 => {
                let mem = [Mem::F32, Mem::F16][g.pick(2)];
                let buf = g.input(mem, m * n);
                g.k.expr(Expr::Load {
                    buf,
                    at: at.clone(),
                })
            }
            3 => {
                let limit = 6;
                let index = g.buffers.len();
                let bytes = (0..m)
                    .flat_map(|_| (g.r.next() as i64 % limit).to_le_bytes())
                    .collect();
                g.buffers.push(bytes);
                let index = g.k.buffer(
                    format!("in{index}"),
                    Mem::I64,
                    BufferKind::Input(index as u32),
                );
                let table = g.input(Mem::F32, limit * 2);
                let sym = g.k.sym(SymKind::Loaded);
                epilogue.push(Stmt::Index {
                    sym,
                    buf: index,
                    at: Dim::from(row),
                    limit: Some(Dim::Const(limit)),
                    operand: 3,
                });
                let at = Dim::from(sym).mul(&Dim::Const(2));
                g.k.expr(Expr::Load { buf: table, at })
            }
            _ => g.constant(Elem::F32),
        };
        let op = [BinOp::Add, BinOp::Add, BinOp::Max, BinOp::Sub][g.pick(4)];
        value = g.k.expr(Expr::Bin {
            op,
            a: value,
            b: other,
        });
    }
    if g.chance(3) {
        let local = g.k.local(Ty::Num(Elem::F32));
        epilogue.push(Stmt::Let { local, value });
        value = g.k.expr(Expr::Local(local));
    }
    if g.chance(3) {
        let zero = g.k.expr(Expr::Const {
            elem: Elem::F32,
            bits: 0,
        });
        value = g.k.expr(Expr::Bin {
            op: BinOp::MaxFast,
            a: zero,
            b: value,
        });
    }
    if g.chance(4) {
        tolerance = 4.0;
        let op = [UnOp::Exp, UnOp::Tanh, UnOp::Sigmoid, UnOp::Erf][g.pick(4)];
        value = g.k.expr(Expr::Un { op, a: value });
    }
    let out = g.output(Mem::F32, m * n);
    epilogue.push(Stmt::Store {
        buf: out,
        at: at.clone(),
        value,
    });
    if g.chance(4) {
        let mem = [Mem::F16, Mem::BF16, Mem::F32][g.pick(3)];
        let more = g.output(mem, m * n);
        let value = g.k.expr(Expr::Local(acc));
        epilogue.push(Stmt::Store {
            buf: more,
            at,
            value,
        });
    }
    let contract = Contract {
        row,
        rows: (Dim::Const(0), rows),
        col,
        cols: (Dim::Const(0), cols),
        k: kk,
        depth: k,
        a,
        a_at,
        b,
        acc,
        epilogue,
    };
    // Blocks of rows, each a task; or all at once.
    let mut tasks = 1;
    let mut contract = contract;
    if g.chance(3) {
        let block = 1 + g.pick(20) as i64;
        let task = Dim::from(g.k.sym(SymKind::Task));
        let t = task.mul(&Dim::Const(block));
        let to = t.add(&Dim::Const(block)).minimum(&contract.rows.1);
        tasks = (m + block - 1) / block;
        contract.rows = (t.clone(), to);
        if let Some(line) = line {
            let first = t;
            let end = first.add(&Dim::Const(block)).minimum(&lines);
            tasks = (m / line + block - 1) / block;
            let width = Dim::Const(line);
            contract.rows = (first.mul(&width), end.mul(&width));
        }
    }
    g.k.body = vec![Stmt::Contract(Box::new(contract))];
    let tiles = [
        (0, 0),
        (0, 0),
        (14, 2),
        (4, 1),
        (6, 4),
        (9, 3),
        (2, 3),
        (1, 1),
    ];
    let (tile_rows, tile_vectors) = tiles[g.pick(tiles.len())];
    let schedule = Schedule {
        vector: Vec::new(),
        tile_rows,
        tile_vectors,
    };
    g.case(schedule, tasks).check(tolerance);
}

#[test]
fn random_products() {
    cases(200).for_each(product);
}
