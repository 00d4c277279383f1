//! The loops level: nests over flat buffers, with their schedule beside them.
//!
//! A [`LoopKernel`] says *what* is computed by one call of the kernel ABI: loops over integer
//! variables, loads and stores at index expressions, scalar expressions, and one tile primitive,
//! [`Contract`]. Integer expressions are [`Dim`]s in normal form over the kernel's own [`Sym`]s:
//! run-time parameters, loop variables, and indices loaded from data. Which loop is vectorised and
//! how big tiles are is said by a [`Schedule`].
//!
//! Invariants ([`verify`]): a symbol is bound by one statement and used inside it; a local is
//! assigned before it is read (one may carry a value from trip to trip of a loop that is not
//! vectorised); a buffer that is written is not read at another index inside the same innermost
//! loop; every index that comes from data is bound by [`Stmt::Index`], which checks it.
//! Nothing here knows ONNX, values of the graph, or addresses.

pub mod interp;
pub mod parse;
pub mod schedule;
pub mod text;
pub mod verify;

use std::collections::HashSet;

pub use crate::kernel::{Elem, Mem};
pub use lapidary_graph::{Dim, Sym};

/// What binds a symbol of a kernel.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum SymKind {
    /// Entry of the kernel's `dims` argument.
    Param(u32),
    /// The task number.
    Task,
    /// The first task of this call (work that a worker does once hangs on it).
    TaskBegin,
    /// A loop variable.
    Loop,
    /// Bound by [`Stmt::Index`].
    Loaded,
}

/// A buffer; index expressions count elements.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Buffer {
    pub name: String,
    pub mem: Mem,
    pub kind: BufferKind,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum BufferKind {
    /// Entry of the kernel's `buffers` argument that is only read.
    Input(u32),
    /// Entry that is written (and may be read back).
    Output(u32),
    /// A part of the worker's scratch memory at this byte offset, a multiple of 64.
    Scratch { offset: Dim },
}

/// A buffer of the kernel, by position.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Buf(pub u32);

/// A scalar variable of the kernel (a vector inside a vectorised loop), by position.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Local(pub u32);

/// An expression of the kernel, by position in [`LoopKernel::exprs`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ExprId(pub u32);

/// Type of a scalar expression.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ty {
    Num(Elem),
    /// A truth value; in memory 0 or 1 in a byte.
    Bool,
}

/// One-operand primitives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UnOp {
    Neg,
    Abs,
    Sqrt,
    Floor,
    Ceil,
    Trunc,
    /// To nearest, ties to even.
    Round,
    /// Complement of an integer, or of a truth value.
    Not,
    Exp,
    Log,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    Asinh,
    Acosh,
    Atanh,
    Erf,
    Sigmoid,
}

/// Two-operand primitives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BinOp {
    Add,
    Sub,
    Mul,
    /// Integers: truncated; by zero 0.
    Div,
    /// Integers: sign of the dividend; by zero 0. Floats: C `fmod`.
    Rem,
    /// Floats: a NaN in either operand gives NaN.
    Min,
    Max,
    /// Floats: the cheap machine minimum (a NaN gives the second operand).
    MinFast,
    MaxFast,
    Pow,
    And,
    Or,
    Xor,
    Shl,
    /// Logical.
    Shr,
    /// Arithmetic.
    Sar,
}

/// Comparisons: false with a NaN, but `Ne`.
pub use crate::kernel::VCmp as CmpOp;

/// A scalar expression.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Expr {
    /// An element, widened as [`Mem::elem`] says.
    Load {
        buf: Buf,
        at: Dim,
    },
    /// The bits, zero-extended.
    Const {
        elem: Elem,
        bits: u64,
    },
    Local(Local),
    /// An integer expression's value.
    Int {
        value: Dim,
        elem: Elem,
    },
    Un {
        op: UnOp,
        a: ExprId,
    },
    Bin {
        op: BinOp,
        a: ExprId,
        b: ExprId,
    },
    /// `a * b + c`.
    Fma {
        a: ExprId,
        b: ExprId,
        c: ExprId,
    },
    Cmp {
        op: CmpOp,
        a: ExprId,
        b: ExprId,
    },
    Select {
        cond: ExprId,
        a: ExprId,
        b: ExprId,
    },
    /// To another lane type: truncates and saturates from float to integer, NaN to 0.
    Convert {
        a: ExprId,
        to: Elem,
    },
    /// The same bits in another lane type of the same width.
    Bits {
        a: ExprId,
        to: Elem,
    },
    /// Rounds to a narrower storage type and back (f16, bf16; integers wrap).
    Narrow {
        a: ExprId,
        to: Mem,
    },
}

/// How a reduction combines.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RedOp {
    Sum,
    Prod,
    /// NaN wins.
    Min,
    Max,
}

/// One accumulator of a [`Stmt::Reduce`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Acc {
    pub op: RedOp,
    /// Holds the result after the loop; starts at the neutral element.
    pub local: Local,
    pub value: ExprId,
}

/// The condition `value >= 0`, a conjunction when several are given.
pub type Conds = Vec<Dim>;

/// Right operand of a [`Contract`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BOperand {
    pub buf: Buf,
    /// Index of column 0 of row 0.
    pub base: Dim,
    /// Elements from a row (step of k) to the next.
    pub k_stride: Dim,
    /// Columns that lie side by side, and the distance from one such panel to the next; `None`
    /// when all columns are contiguous. A packed panel is padded with zeros to its full width.
    pub panel: Option<(i64, Dim)>,
}

/// `acc[i][j] = sum over k of a[i][k] * b[k][j]`, an epilogue for every `(i, j)`. f32.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Contract {
    /// Row variable and its range.
    pub row: Sym,
    pub rows: (Dim, Dim),
    /// Column variable and its range; the first column is a multiple of the panel width.
    pub col: Sym,
    pub cols: (Dim, Dim),
    /// Variable and extent of the sum.
    pub k: Sym,
    pub depth: Dim,
    pub a: Buf,
    /// Index of the left element: linear in `row`, and in `k` with a constant positive factor. It may also be linear
    /// in `floordiv(k, n)`, for one n of which `depth` is a constant multiple: runs of n steps with a jump between.
    pub a_at: Dim,
    pub b: BOperand,
    /// The sum, as the epilogue reads it.
    pub acc: Local,
    /// Run for every element; reads `acc`, `row`, `col`; stores have stride 1 in `col`.
    pub epilogue: Vec<Stmt>,
}

/// A statement.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Stmt {
    /// `for var in from..to`.
    For {
        var: Sym,
        from: Dim,
        to: Dim,
        body: Vec<Stmt>,
    },
    /// Runs `body` (locals that the values need), then accumulates, for each `var`.
    Reduce {
        var: Sym,
        from: Dim,
        to: Dim,
        body: Vec<Stmt>,
        accs: Vec<Acc>,
    },
    /// Assigns a local.
    Let {
        local: Local,
        value: ExprId,
    },
    Store {
        buf: Buf,
        at: Dim,
        value: ExprId,
    },
    If {
        all: Conds,
        then: Vec<Stmt>,
        otherwise: Vec<Stmt>,
    },
    /// Binds `sym` to an integer element. With a limit: negative values count from the limit, and
    /// what is still outside `0..limit` is a fault of this operand.
    Index {
        sym: Sym,
        buf: Buf,
        at: Dim,
        limit: Option<Dim>,
        operand: i32,
    },
    Contract(Box<Contract>),
}

/// One kernel as loops.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct LoopKernel {
    /// A C identifier; made unique when linked.
    pub name: String,
    /// Symbols by number.
    pub syms: Vec<SymKind>,
    pub buffers: Vec<Buffer>,
    pub locals: Vec<Ty>,
    pub exprs: Vec<Expr>,
    /// Number of tasks, over parameters.
    pub tasks: Dim,
    /// Bytes of scratch memory of a worker, over parameters.
    pub scratch_bytes: Dim,
    /// Run for each task.
    pub body: Vec<Stmt>,
}

/// How a kernel is cut for a machine. Text form: `vector(v3) tile(14, 2) unroll_k(4)`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Schedule {
    /// Loop (or reduce) variables that run over vector lanes.
    pub vector: Vec<Sym>,
    /// Rows of a contraction's register tile; 0: the machine's default.
    pub tile_rows: u32,
    /// Vectors of a contraction's register tile; 0: the machine's default.
    pub tile_vectors: u32,
}

impl LoopKernel {
    pub fn new(name: impl Into<String>) -> Self {
        LoopKernel {
            name: name.into(),
            tasks: Dim::Const(1),
            scratch_bytes: Dim::Const(0),
            ..Default::default()
        }
    }
    pub fn sym(&mut self, kind: SymKind) -> Sym {
        self.syms.push(kind);
        Sym(self.syms.len() as u32 - 1)
    }
    pub fn buffer(&mut self, name: impl Into<String>, mem: Mem, kind: BufferKind) -> Buf {
        self.buffers.push(Buffer {
            name: name.into(),
            mem,
            kind,
        });
        Buf(self.buffers.len() as u32 - 1)
    }
    pub fn local(&mut self, ty: Ty) -> Local {
        self.locals.push(ty);
        Local(self.locals.len() as u32 - 1)
    }
    pub fn expr(&mut self, e: Expr) -> ExprId {
        if let Some(i) = self.exprs.iter().position(|x| *x == e) {
            return ExprId(i as u32);
        }
        self.exprs.push(e);
        ExprId(self.exprs.len() as u32 - 1)
    }
    /// The operands of an expression, in the order in which they are written.
    pub fn operands(&self, of: ExprId) -> Vec<ExprId> {
        let e = self.exprs.get(of.0 as usize);
        e.map(text::operands).unwrap_or_default()
    }

    /// An expression and all that it is made of, each once: what is used twice must not be walked twice, or a chain of
    /// squares would take time that doubles with each.
    pub fn parts(&self, root: ExprId) -> Vec<&Expr> {
        let (mut seen, mut todo) = (HashSet::new(), vec![root]);
        let mut parts = Vec::new();
        while let Some(id) = todo.pop() {
            if seen.insert(id)
                && let Some(e) = self.exprs.get(id.0 as usize)
            {
                todo.extend(text::operands(e));
                parts.push(e);
            }
        }
        parts
    }
    /// Type of an expression.
    pub fn ty(&self, e: ExprId) -> Ty {
        match &self.exprs[e.0 as usize] {
            Expr::Load { buf, .. } => Ty::Num(self.buffers[buf.0 as usize].mem.elem()),
            Expr::Const { elem, .. } | Expr::Int { elem, .. } => Ty::Num(*elem),
            Expr::Local(l) => self.locals[l.0 as usize],
            Expr::Un { a, .. }
            | Expr::Bin { a, .. }
            | Expr::Fma { a, .. }
            | Expr::Narrow { a, .. } => self.ty(*a),
            Expr::Cmp { .. } => Ty::Bool,
            Expr::Select { a, .. } => self.ty(*a),
            Expr::Convert { to, .. } | Expr::Bits { to, .. } => Ty::Num(*to),
        }
    }
}
