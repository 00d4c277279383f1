//! Builds one loop kernel from values of the graph.
//!
//! [`Builder`] owns the kernel under construction, the mapping from graph symbols to kernel
//! parameters and from values to buffers, and the stack of open loops. Its main service is
//! [`Builder::value_at`]: the scalar expression of one element of a value, with every node of the
//! group inlined (views become index arithmetic) and everything else loaded.

use crate::{LowerError, Operand, Step, scalar};
use lapidary_codegen::loops::*;
use lapidary_graph::{Atom, DType, Dim, Graph, Group, NodeId, Op, ValueId};
use std::collections::{HashMap, HashSet};

type Result<T> = std::result::Result<T, LowerError>;

/// An open loop and what has been built inside it so far.
struct Level {
    /// `None` for the body itself.
    loop_: Option<(Sym, Dim, Dim)>,
    stmts: Vec<Stmt>,
}

pub(crate) struct Builder<'g> {
    pub graph: &'g Graph,
    /// Nodes whose values are computed in place.
    pub inline: HashSet<NodeId>,
    pub kernel: LoopKernel,
    pub operands: Vec<Operand>,
    pub writes: Vec<usize>,
    pub dims: Vec<Dim>,
    /// Values that stand in a local (an accumulator, a statistic of the row).
    pub in_local: HashMap<ValueId, Local>,
    /// Values that stand in a buffer of the kernel, indexed by the function given.
    pub in_row: HashMap<ValueId, (Buf, Vec<Sym>)>,
    param_of: HashMap<Dim, Sym>,
    buf_of: HashMap<(Operand, DType), Buf>,
    out_of: HashMap<ValueId, Buf>,
    /// Loop variables run over `0..extent`.
    extents: HashMap<Sym, Dim>,
    levels: Vec<Level>,
    /// Which half of an element of 16 bytes is meant, inside the loop that [`Builder::parts`] opens.
    pub part: Dim,
    /// Buffers whose elements have 16 bytes: two of the kernel's elements each.
    halved: HashSet<Buf>,
    /// Loaded indices by place and limit, with the level that binds them.
    gathered: HashMap<(Buf, Dim, Option<Dim>), (Sym, usize)>,
    /// Elements of inlined values that the element asked for is made of, so that what is read twice is walked once.
    parts_made: HashMap<(ValueId, Vec<Dim>), ExprId>,
    /// Calls of [`Builder::value_at`] that are under way.
    asked: usize,
}

impl<'g> Builder<'g> {
    pub fn new(graph: &'g Graph, group: &Group, name: &str) -> Self {
        Builder {
            graph,
            inline: group.nodes.iter().copied().collect(),
            kernel: LoopKernel::new(identifier(name)),
            operands: Vec::new(),
            writes: Vec::new(),
            dims: Vec::new(),
            in_local: HashMap::new(),
            in_row: HashMap::new(),
            param_of: HashMap::new(),
            buf_of: HashMap::new(),
            out_of: HashMap::new(),
            extents: HashMap::new(),
            part: Dim::Const(0),
            halved: HashSet::new(),
            levels: vec![Level {
                loop_: None,
                stmts: Vec::new(),
            }],
            gathered: HashMap::new(),
            parts_made: HashMap::new(),
            asked: 0,
        }
    }

    /// A graph dimension in the kernel's symbols: plain symbols become parameters, and so do whole
    /// expressions that need a division.
    pub fn dim(&mut self, d: &Dim) -> Dim {
        let Dim::Sum(s) = d else {
            return d.clone();
        };
        let plain = s
            .terms
            .iter()
            .all(|(atoms, _)| atoms.iter().all(|a| matches!(a, Atom::Sym(_))));
        if !plain {
            return Dim::from(self.param(d));
        }
        let mut syms = Default::default();
        d.collect_symbols(&mut syms);
        let map: HashMap<_, _> = syms
            .into_iter()
            .map(|s| (s, self.param(&Dim::from(s))))
            .collect();
        d.substitute(&|s| map.get(&s).map(|p| Dim::from(*p)))
    }

    /// The parameter that holds a graph dimension.
    pub fn param(&mut self, d: &Dim) -> Sym {
        if let Some(s) = self.param_of.get(d) {
            return *s;
        }
        let s = self.kernel.sym(SymKind::Param(self.dims.len() as u32));
        self.dims.push(d.clone());
        self.param_of.insert(d.clone(), s);
        s
    }

    /// Dimensions of a value in the kernel's symbols.
    pub fn shape(&mut self, v: ValueId) -> Result<Vec<Dim>> {
        let ty = self.graph.ty(v);
        let Some(shape) = ty.shape.clone() else {
            return Err(LowerError::unranked(self.graph, v));
        };
        Ok(shape.iter().map(|d| self.dim(d)).collect())
    }

    pub fn dtype(&self, v: ValueId) -> DType {
        self.graph.ty(v).dtype
    }

    /// The buffer of a value that is read.
    pub fn input(&mut self, v: ValueId) -> Result<Buf> {
        let dtype = self.dtype(v);
        self.input_operand(Operand::Value(v), dtype)
    }

    pub fn input_operand(&mut self, op: Operand, dtype: DType) -> Result<Buf> {
        if let Some(b) = self.buf_of.get(&(op, dtype)) {
            return Ok(*b);
        }
        let mem = scalar::mem(dtype).ok_or(LowerError::Type(dtype))?;
        let n = self.operands.len() as u32;
        self.operands.push(op);
        let b = self
            .kernel
            .buffer(format!("in{n}"), mem, BufferKind::Input(n));
        if dtype == DType::C128 {
            self.halved.insert(b);
        }
        self.buf_of.insert((op, dtype), b);
        Ok(b)
    }

    /// The buffer of a value that is written.
    pub fn output(&mut self, v: ValueId) -> Result<Buf> {
        if let Some(b) = self.out_of.get(&v) {
            return Ok(*b);
        }
        let dtype = self.dtype(v);
        let mem = scalar::mem(dtype).ok_or(LowerError::Type(dtype))?;
        let n = self.operands.len();
        self.operands.push(Operand::Value(v));
        self.writes.push(n);
        let b = self
            .kernel
            .buffer(format!("out{n}"), mem, BufferKind::Output(n as u32));
        if dtype == DType::C128 {
            self.halved.insert(b);
        }
        self.out_of.insert(v, b);
        Ok(b)
    }

    /// A part of scratch memory of this many elements; gives the buffer.
    pub fn scratch(&mut self, name: &str, mem: Mem, elements: &Dim) -> Buf {
        let offset = self.kernel.scratch_bytes.clone();
        let line = Dim::Const(64);
        let bytes = elements.mul(&Dim::Const(mem.bytes() as i64));
        let rounded = bytes.ceil_div(&line).mul(&line);
        self.kernel.scratch_bytes = offset.add(&rounded);
        self.kernel
            .buffer(name, mem, BufferKind::Scratch { offset })
    }

    // Statements.

    pub fn push(&mut self, s: Stmt) {
        if let Some(l) = self.levels.last_mut() {
            l.stmts.push(s);
        }
    }
    /// Opens a loop over `0..extent`; an extent of 1 opens none and gives index 0.
    pub fn open(&mut self, extent: &Dim) -> Dim {
        if extent.is_const(1) {
            return Dim::Const(0);
        }
        let s = self.open_range(&Dim::Const(0), extent);
        Dim::from(s)
    }
    pub fn open_range(&mut self, from: &Dim, to: &Dim) -> Sym {
        let var = self.kernel.sym(SymKind::Loop);
        if from.is_const(0) {
            self.extents.insert(var, to.clone());
        }
        self.levels.push(Level {
            loop_: Some((var, from.clone(), to.clone())),
            stmts: Vec::new(),
        });
        var
    }
    /// A variable that a statement outside the stack binds (a reduction, a contraction).
    pub fn variable(&mut self, extent: Option<&Dim>) -> Sym {
        let var = self.kernel.sym(SymKind::Loop);
        if let Some(e) = extent {
            self.extents.insert(var, e.clone());
        }
        var
    }
    /// Starts a separate list of statements; [`Builder::end_block`] takes it.
    pub fn begin_block(&mut self) {
        self.levels.push(Level {
            loop_: None,
            stmts: Vec::new(),
        });
    }
    pub fn end_block(&mut self) -> Vec<Stmt> {
        if self.levels.len() <= 1 {
            return Vec::new();
        }
        let stmts = self.levels.pop().map(|l| l.stmts).unwrap_or_default();
        self.forget_closed();
        stmts
    }
    /// Indices loaded in a level that is closed are not known any more.
    fn forget_closed(&mut self) {
        let open = self.levels.len();
        self.gathered.retain(|_, (_, level)| *level < open);
    }
    /// Closes the innermost loop.
    pub fn close(&mut self) {
        if self.levels.len() > 1
            && let Some(l) = self.levels.pop()
        {
            self.forget_closed();
            match l.loop_ {
                Some((var, from, to)) => self.push(Stmt::For {
                    var,
                    from,
                    to,
                    body: l.stmts,
                }),
                None => l.stmts.into_iter().for_each(|s| self.push(s)),
            }
        }
    }
    pub fn depth(&self) -> usize {
        self.levels.len()
    }
    pub fn close_to(&mut self, depth: usize) {
        while self.levels.len() > depth {
            self.close();
        }
    }
    /// Opens loops over all dimensions; gives the index.
    pub fn open_all(&mut self, dims: &[Dim]) -> Vec<Dim> {
        dims.iter().map(|d| self.open(d)).collect()
    }

    /// Opens the loop over the halves of an element, where it has 16 bytes. No lane does; what moves such elements
    /// moves one half after the other.
    pub fn parts(&mut self, dtype: DType) {
        if dtype == DType::C128 {
            self.part = self.open(&Dim::Const(2));
        }
    }
    /// The position of an element, or of its half, in the kernel's elements.
    fn place(&self, buf: Buf, at: Dim) -> Dim {
        let at = match self.halved.contains(&buf) {
            true => at.mul(&Dim::Const(2)).add(&self.part),
            false => at,
        };
        self.simplify(&at)
    }

    // Index arithmetic.

    pub fn simplify(&self, d: &Dim) -> Dim {
        crate::index::simplify(d)
    }
    /// Row-major position.
    pub fn linear(&self, shape: &[Dim], index: &[Dim]) -> Dim {
        let mut at = Dim::Const(0);
        for (d, i) in shape.iter().zip(index) {
            at = at.mul(d).add(i);
        }
        self.simplify(&at)
    }
    /// The index of an input that is broadcast to `out`, aligned at the last axis.
    pub fn broadcast_index(&self, input: &[Dim], out: &[Dim], index: &[Dim]) -> Vec<Dim> {
        let skip = index.len().saturating_sub(input.len());
        input
            .iter()
            .zip(index[skip..].iter().zip(&out[skip..]))
            .map(|(d, (i, o))| {
                if d.is_const(1) {
                    Dim::Const(0)
                } else if d == o || o.as_const().is_some_and(|o| d.as_const() == Some(o)) {
                    i.clone()
                } else {
                    // Either equal to the output's size or 1: index 0 then.
                    i.minimum(&d.sub(&Dim::Const(1)))
                }
            })
            .collect()
    }
    /// The index into `input` of the element at `index` of `out`, the same elements reshaped.
    pub fn reshape_index(&self, input: &[Dim], out: &[Dim], index: &[Dim]) -> Vec<Dim> {
        crate::index::reshape(input, out, index, &self.extents)
    }

    // Values.

    pub fn expr(&mut self, e: Expr) -> ExprId {
        self.kernel.expr(e)
    }
    pub fn load(&mut self, buf: Buf, at: Dim) -> ExprId {
        let at = self.place(buf, at);
        self.kernel.expr(Expr::Load { buf, at })
    }
    pub fn f32(&mut self, v: f32) -> ExprId {
        self.kernel.expr(Expr::Const {
            elem: Elem::F32,
            bits: v.to_bits() as u64,
        })
    }

    fn is_inline(&self, v: ValueId) -> Option<NodeId> {
        self.graph.producer(v).filter(|n| self.inline.contains(n))
    }

    /// The element of a value at an index, as a value of its type (bool as a truth value).
    pub fn value_at(&mut self, v: ValueId, index: &[Dim]) -> Result<ExprId> {
        let once = self.asked > 0 && self.is_inline(v).is_some();
        let key = once.then(|| (v, index.to_vec()));
        if let Some(e) = key.as_ref().and_then(|k| self.parts_made.get(k)) {
            return Ok(*e);
        }
        self.asked += 1;
        let made = self.make_value(v, index);
        self.asked -= 1;
        if self.asked == 0 {
            self.parts_made.clear();
        } else if let (Some(key), Ok(e)) = (key, &made) {
            self.parts_made.insert(key, *e);
        }
        made
    }

    fn make_value(&mut self, v: ValueId, index: &[Dim]) -> Result<ExprId> {
        if let Some(l) = self.in_local.get(&v) {
            return Ok(self.kernel.expr(Expr::Local(*l)));
        }
        if let Some((buf, vars)) = self.in_row.get(&v).cloned() {
            // One row is held: the index within it is that of the row's own axes, the last ones.
            let shape = self.shape(v)?;
            let n = vars.len();
            let at = self.linear(&shape[shape.len() - n..], &index[index.len() - n..]);
            return Ok(self.load(buf, at));
        }
        let Some(node) = self.is_inline(v) else {
            let (buf, at) = self.element(v, index)?;
            let dtype = self.dtype(v);
            let e = self.load(buf, at);
            return Ok(scalar::from_memory(self, e, dtype));
        };
        let n = &self.graph.nodes[node];
        let input = |i: usize| {
            n.input(i)
                .ok_or_else(|| LowerError::missing(self.graph, node, i))
        };
        match &n.op {
            Op::Pointwise { body, .. } => {
                let out = self.shape(v)?;
                let mut args = Vec::new();
                for i in 0..n.inputs.len() {
                    let x = input(i)?;
                    let dims = self.shape(x)?;
                    let at = self.broadcast_index(&dims, &out, index);
                    args.push((x, at));
                }
                scalar::pointwise(self, node, body, &args, index)
            }
            Op::Shape(dims) => {
                // One element of a short vector: a chain of selections.
                let at = index.first().cloned().unwrap_or_default();
                let ints: Vec<ExprId> = dims
                    .iter()
                    .map(|d| {
                        let value = self.dim(d);
                        self.kernel.expr(Expr::Int {
                            value,
                            elem: Elem::I64,
                        })
                    })
                    .collect();
                let position = self.kernel.expr(Expr::Int {
                    value: at,
                    elem: Elem::I64,
                });
                let mut e = *ints
                    .last()
                    .ok_or_else(|| LowerError::missing(self.graph, node, 0))?;
                for (i, x) in ints.iter().enumerate().rev().skip(1) {
                    let k = self.kernel.expr(Expr::Const {
                        elem: Elem::I64,
                        bits: i as u64,
                    });
                    let here = self.kernel.expr(Expr::Cmp {
                        op: CmpOp::Eq,
                        a: position,
                        b: k,
                    });
                    e = self.kernel.expr(Expr::Select {
                        cond: here,
                        a: *x,
                        b: e,
                    });
                }
                Ok(e)
            }
            Op::Gather { axis } => {
                let (data, indices) = (input(0)?, input(1)?);
                let at = self.gather_index(data, indices, *axis, index)?;
                self.value_at(data, &at)
            }
            _ => {
                let (x, at) = self.view_index(node, index)?;
                self.value_at(x, &at)
            }
        }
    }

    /// For a view node: its input and the index there.
    pub fn view_index(&mut self, node: NodeId, index: &[Dim]) -> Result<(ValueId, Vec<Dim>)> {
        let n = &self.graph.nodes[node];
        let x = n
            .input(0)
            .ok_or_else(|| LowerError::missing(self.graph, node, 0))?;
        let out = n.outputs.first().copied().unwrap_or(x);
        let dims = self.shape(x)?;
        let at = match &n.op {
            Op::Reshape { .. } => {
                let shape = self.shape(out)?;
                self.reshape_index(&dims, &shape, index)
            }
            Op::Transpose { perm } => {
                let mut at = vec![Dim::Const(0); index.len()];
                for (i, p) in perm.iter().enumerate() {
                    at[*p] = index[i].clone();
                }
                at
            }
            Op::Broadcast { .. } => {
                let shape = self.shape(out)?;
                self.broadcast_index(&dims, &shape, index)
            }
            Op::Slice { start, step, .. } => {
                let mut at = Vec::new();
                for (i, ((s, k), x)) in start.iter().zip(step).zip(index).enumerate() {
                    let start = self.dim(s);
                    let start = if let Some(c) = start.as_const().filter(|c| *c < 0) {
                        dims[i].add(&Dim::Const(c))
                    } else {
                        start
                    };
                    at.push(start.add(&x.mul(&Dim::Const(*k))));
                }
                at
            }
            op => return Err(LowerError::not_a_view(self.graph, node, op.name())),
        };
        Ok((x, at.iter().map(|d| self.simplify(d)).collect()))
    }

    /// Buffer and position of one element of a value that lies in memory, seen through inline views.
    pub fn element(&mut self, v: ValueId, index: &[Dim]) -> Result<(Buf, Dim)> {
        match self.is_inline(v) {
            Some(node) => {
                let (x, at) = self.view_index(node, index)?;
                self.element(x, &at)
            }
            None => {
                let shape = self.shape(v)?;
                let at = self.linear(&shape, index);
                Ok((self.input(v)?, at))
            }
        }
    }

    fn gather_index(
        &mut self,
        data: ValueId,
        indices: ValueId,
        axis: usize,
        index: &[Dim],
    ) -> Result<Vec<Dim>> {
        let rank = self.shape(indices)?.len();
        let dims = self.shape(data)?;
        let (before, rest) = index.split_at(axis);
        let (at, after) = rest.split_at(rank);
        let picked = self.loaded_index(1, indices, at, Some(&dims[axis]))?;
        let mut full = before.to_vec();
        full.push(Dim::from(picked));
        full.extend_from_slice(after);
        Ok(full)
    }

    /// Binds a symbol to an integer element of a value in memory, in the outermost loop where the
    /// element is known; with a limit it is wrapped and checked.
    pub fn loaded_index(
        &mut self,
        operand: usize,
        v: ValueId,
        at: &[Dim],
        limit: Option<&Dim>,
    ) -> Result<Sym> {
        let (buf, at) = self.element(v, at)?;
        let key = (buf, at.clone(), limit.cloned());
        if let Some((s, _)) = self.gathered.get(&key) {
            return Ok(*s);
        }
        let sym = self.kernel.sym(SymKind::Loaded);
        if let Some(l) = limit {
            self.extents.insert(sym, l.clone());
        }
        let mut used = Default::default();
        at.collect_symbols(&mut used);
        let level = self
            .levels
            .iter()
            .rposition(|l| l.loop_.as_ref().is_none_or(|(v, ..)| used.contains(v)))
            .unwrap_or(0);
        // A plain block may hold an inner binding of a symbol; stay inside it.
        let stmt = Stmt::Index {
            sym,
            buf,
            at: at.clone(),
            limit: limit.cloned(),
            operand: operand as i32,
        };
        self.levels[level].stmts.push(stmt);
        self.gathered.insert(key, (sym, level));
        Ok(sym)
    }

    /// Stores a value of the graph's type.
    pub fn store(&mut self, buf: Buf, at: Dim, value: ExprId) {
        let at = self.place(buf, at);
        self.push(Stmt::Store { buf, at, value });
    }

    /// Ends the kernel: its outermost loop becomes the tasks.
    pub fn finish(
        mut self,
        nodes: Vec<NodeId>,
        cost: Dim,
        flops: Dim,
    ) -> Result<(LoopKernel, Step)> {
        self.close_to(1);
        if let Some(l) = self.levels.pop() {
            self.kernel.body.extend(l.stmts);
        }
        let (tasks, mut scratch) = (self.kernel.tasks.clone(), self.kernel.scratch_bytes.clone());
        if crate::collapse::has_contract(&self.kernel.body) {
            scratch = scratch.add(&Dim::Const(lapidary_codegen::expand::TILE_SCRATCH));
        }
        let tasks = self.unless_empty(to_graph(&tasks, &self.kernel, &self.dims));
        if tasks.is_const(0) {
            self.kernel.tasks = Dim::Const(0);
        }
        let step = Step::Kernel {
            kernel: crate::KernelId(0),
            buffers: self.operands,
            writes: self.writes,
            tasks,
            scratch_bytes: to_graph(&scratch, &self.kernel, &self.dims),
            dims: self.dims,
            cost,
            flops,
            nodes,
        };
        Ok((self.kernel, step))
    }
}

impl Builder<'_> {
    /// The tasks, but none where no output has an element: what writes nothing has nothing to do, however many rows of none
    /// there are. Indices that a kernel checks on its way are checked all the same, if sizes are known at run time only.
    fn unless_empty(&self, tasks: Dim) -> Dim {
        let shapes: Option<Vec<&[Dim]>> = self
            .writes
            .iter()
            .map(|i| match self.operands.get(*i) {
                Some(Operand::Value(v)) => self.graph.ty(*v).shape.as_deref(),
                _ => None,
            })
            .collect();
        let Some(shapes) = shapes.filter(|s| !s.is_empty()) else {
            return tasks;
        };
        let empty = |dims: &&[Dim]| dims.iter().any(|d| d.is_const(0));
        if shapes.iter().all(empty) {
            return Dim::Const(0);
        }
        if checks_indices(&self.kernel.body) {
            return tasks;
        }
        // Of each output 0 if it has no elements, else 1; but sizes of which there are tasks need not be asked.
        let counted = |d: &Dim| {
            let none = |sym| tasks.substitute(&|s| (s == sym).then_some(Dim::Const(0)));
            d.is_ge(1) == Some(true) || d.as_sym().is_some_and(|sym| none(sym).is_const(0))
        };
        let full = |dims: &&[Dim]| {
            let asked = dims.iter().filter(|d| !counted(d));
            asked.fold(Dim::Const(1), |least, d| least.minimum(d))
        };
        let full = shapes.iter().map(full);
        let most = full.reduce(|most, d| most.maximum(&d));
        most.map_or(tasks.clone(), |most| tasks.mul(&most))
    }
}

/// Whether statements end the run for an index out of range.
fn checks_indices(body: &[Stmt]) -> bool {
    body.iter().any(|stmt| match stmt {
        Stmt::Index { limit, .. } => limit.is_some(),
        Stmt::For { body, .. } | Stmt::Reduce { body, .. } => checks_indices(body),
        Stmt::If {
            then, otherwise, ..
        } => checks_indices(then) || checks_indices(otherwise),
        Stmt::Contract(c) => checks_indices(&c.epilogue),
        Stmt::Let { .. } | Stmt::Store { .. } => false,
    })
}

/// A dimension over kernel parameters, in the graph's symbols.
pub(crate) fn to_graph(d: &Dim, kernel: &LoopKernel, dims: &[Dim]) -> Dim {
    d.substitute(&|s| match kernel.syms.get(s.0 as usize) {
        Some(SymKind::Param(p)) => dims.get(*p as usize).cloned(),
        _ => None,
    })
}

/// A C identifier from an ONNX name.
pub(crate) fn identifier(name: &str) -> String {
    let mut s: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    s.truncate(48);
    if s.is_empty() || s.starts_with(|c: char| c.is_ascii_digit()) {
        s.insert(0, 'k');
    }
    s
}

impl Builder<'_> {
    /// Moves what has been built into the kernel's body, for rewrites of the whole nest.
    pub fn take_body(&mut self) {
        if let Some(l) = self.levels.first_mut() {
            self.kernel.body = std::mem::take(&mut l.stmts);
        }
    }
}

impl Builder<'_> {
    /// As [`Builder::element`], when nothing but views stands between the value and memory.
    pub fn element_if_view(&mut self, v: ValueId, index: &[Dim]) -> Result<Option<(Buf, Dim)>> {
        let mut at = v;
        while let Some(n) = self.is_inline(at) {
            match &self.graph.nodes[n].op {
                Op::Reshape { .. }
                | Op::Transpose { .. }
                | Op::Broadcast { .. }
                | Op::Slice { .. } => {
                    at = self.graph.nodes[n]
                        .input(0)
                        .ok_or_else(|| LowerError::missing(self.graph, n, 0))?;
                }
                _ => return Ok(None),
            }
        }
        self.element(v, index).map(Some)
    }
}
