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
    /// For text forms; unique in the kernel.
    pub name: String,
    /// The type of its elements.
    pub mem: Mem,
    /// Where it lies.
    pub kind: BufferKind,
}

/// Where a buffer lies, and what may be done with it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum BufferKind {
    /// Entry of the kernel's `buffers` argument that is only read.
    Input(u32),
    /// Entry that is written (and may be read back).
    Output(u32),
    /// A part of the worker's scratch memory at this byte offset, a multiple of 64.
    Scratch {
        /// In bytes, over parameters.
        offset: Dim,
    },
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
    /// A number of this lane type.
    Num(Elem),
    /// A truth value; in memory 0 or 1 in a byte.
    Bool,
}

/// One-operand primitives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UnOp {
    /// Integers wrap.
    Neg,
    /// Integers: the least stays.
    Abs,
    /// Floats, as all that follows but `Not`.
    Sqrt,
    /// Towards minus infinity.
    Floor,
    /// Towards plus infinity.
    Ceil,
    /// Towards zero.
    Trunc,
    /// To nearest, ties to even.
    Round,
    /// Complement of an integer, or of a truth value.
    Not,
    /// Base e.
    Exp,
    /// Natural.
    Log,
    /// Of radians.
    Sin,
    /// Of radians.
    Cos,
    /// Of radians.
    Tan,
    /// In radians.
    Asin,
    /// In radians.
    Acos,
    /// In radians.
    Atan,
    /// Hyperbolic sine.
    Sinh,
    /// Hyperbolic cosine.
    Cosh,
    /// Hyperbolic tangent.
    Tanh,
    /// Inverse hyperbolic sine.
    Asinh,
    /// Inverse hyperbolic cosine.
    Acosh,
    /// Inverse hyperbolic tangent.
    Atanh,
    /// The error function.
    Erf,
    /// `1 / (1 + exp(-a))`.
    Sigmoid,
}

/// Two-operand primitives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BinOp {
    /// Integers wrap, as in the next two.
    Add,
    /// `a - b`.
    Sub,
    /// The product.
    Mul,
    /// Integers: truncated; by zero 0.
    Div,
    /// Integers: sign of the dividend; by zero 0. Floats: C `fmod`.
    Rem,
    /// Floats: a NaN in either operand gives NaN.
    Min,
    /// As [`BinOp::Min`].
    Max,
    /// Floats: the cheap machine minimum (a NaN gives the second operand).
    MinFast,
    /// As [`BinOp::MinFast`].
    MaxFast,
    /// Floats; C `pow`.
    Pow,
    /// Bitwise, or of truth values, as the next two.
    And,
    /// Inclusive.
    Or,
    /// Exclusive.
    Xor,
    /// Integers, as the next two; by the width or more, 0.
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
        /// Any buffer; one that is written only at the index that is stored.
        buf: Buf,
        /// In elements.
        at: Dim,
    },
    /// The bits, zero-extended.
    Const {
        /// The constant's type.
        elem: Elem,
        /// Beyond the type's width, 0.
        bits: u64,
    },
    /// What a local holds.
    Local(Local),
    /// An integer expression's value.
    Int {
        /// Over symbols that are bound here.
        value: Dim,
        /// The type that it is wanted in.
        elem: Elem,
    },
    /// `op a`.
    Un {
        /// What is computed.
        op: UnOp,
        /// The result has its type.
        a: ExprId,
    },
    /// `a op b`.
    Bin {
        /// What is computed.
        op: BinOp,
        /// The result has its type.
        a: ExprId,
        /// Of the same type.
        b: ExprId,
    },
    /// `a * b + c`.
    Fma {
        /// The result has its type.
        a: ExprId,
        /// Of the same type.
        b: ExprId,
        /// Of the same type.
        c: ExprId,
    },
    /// `a op b`, a truth value.
    Cmp {
        /// The relation.
        op: CmpOp,
        /// A number.
        a: ExprId,
        /// Of the same type.
        b: ExprId,
    },
    /// `cond ? a : b`; both are computed.
    Select {
        /// A truth value.
        cond: ExprId,
        /// The result has its type.
        a: ExprId,
        /// Of the same type.
        b: ExprId,
    },
    /// To another lane type: truncates and saturates from float to integer, NaN to 0.
    Convert {
        /// A number, or a truth value as 0 or 1.
        a: ExprId,
        /// The type of the result.
        to: Elem,
    },
    /// The same bits in another lane type of the same width.
    Bits {
        /// A number.
        a: ExprId,
        /// The type of the result.
        to: Elem,
    },
    /// Rounds to a narrower storage type and back (f16, bf16; integers wrap).
    Narrow {
        /// A number of the lane type that holds `to`.
        a: ExprId,
        /// The type that it is rounded to.
        to: Mem,
    },
}

/// How a reduction combines.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RedOp {
    /// Starts at 0.
    Sum,
    /// Starts at 1.
    Prod,
    /// NaN wins.
    Min,
    /// NaN wins.
    Max,
}

/// One accumulator of a [`Stmt::Reduce`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Acc {
    /// How values are combined.
    pub op: RedOp,
    /// Holds the result after the loop; starts at the neutral element.
    pub local: Local,
    /// Computed in each trip, behind the body.
    pub value: ExprId,
}

/// The condition `value >= 0`, a conjunction when several are given.
pub type Conds = Vec<Dim>;

/// Right operand of a [`Contract`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BOperand {
    /// Any buffer of f32.
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
    /// First and one past the last.
    pub rows: (Dim, Dim),
    /// Column variable and its range; the first column is a multiple of the panel width.
    pub col: Sym,
    /// First and one past the last.
    pub cols: (Dim, Dim),
    /// Variable and extent of the sum.
    pub k: Sym,
    /// The first k is 0.
    pub depth: Dim,
    /// The left operand, of f32.
    pub a: Buf,
    /// Index of the left element: linear in `row`, and in `k` with a constant positive factor. It may also be linear
    /// in `floordiv(k, n)`, for one n of which `depth` is a constant multiple: runs of n steps with a jump between.
    pub a_at: Dim,
    /// The right operand.
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
        /// Bound in `body`.
        var: Sym,
        /// The first value.
        from: Dim,
        /// No value reaches it.
        to: Dim,
        /// Run for each value.
        body: Vec<Stmt>,
    },
    /// Runs `body` (locals that the values need), then accumulates, for each `var`.
    Reduce {
        /// Bound in `body` and in the accumulators' values.
        var: Sym,
        /// The first value.
        from: Dim,
        /// No value reaches it.
        to: Dim,
        /// Run for each value, before the accumulators.
        body: Vec<Stmt>,
        /// All accumulators of the one loop.
        accs: Vec<Acc>,
    },
    /// Assigns a local.
    Let {
        /// Its type is that of the value.
        local: Local,
        /// Computed once, here.
        value: ExprId,
    },
    /// Writes an element, narrowed to the buffer's type.
    Store {
        /// An output or scratch memory.
        buf: Buf,
        /// In elements.
        at: Dim,
        /// Of the lane type that the buffer's elements have.
        value: ExprId,
    },
    /// One of two blocks.
    If {
        /// The condition.
        all: Conds,
        /// Run where it holds.
        then: Vec<Stmt>,
        /// Run where it does not.
        otherwise: Vec<Stmt>,
    },
    /// Binds `sym` to an integer element. With a limit: negative values count from the limit, and
    /// what is still outside `0..limit` is a fault of this operand.
    Index {
        /// Bound in what follows.
        sym: Sym,
        /// A buffer of integers.
        buf: Buf,
        /// In elements.
        at: Dim,
        /// The extent that is indexed; `None`: any number is taken.
        limit: Option<Dim>,
        /// The operand of the node that faults name.
        operand: i32,
    },
    /// A tile contraction with what becomes of its sums.
    Contract(Box<Contract>),
}

/// One kernel as loops.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct LoopKernel {
    /// A C identifier; made unique when linked.
    pub name: String,
    /// Symbols by number.
    pub syms: Vec<SymKind>,
    /// By number; [`Buf`]s are positions in it.
    pub buffers: Vec<Buffer>,
    /// Types, by number; [`Local`]s are positions in it.
    pub locals: Vec<Ty>,
    /// Each once; [`ExprId`]s are positions in it.
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
    /// One task that does nothing.
    pub fn new(name: impl Into<String>) -> Self {
        LoopKernel {
            name: name.into(),
            tasks: Dim::Const(1),
            scratch_bytes: Dim::Const(0),
            ..Default::default()
        }
    }
    /// A symbol of its own.
    pub fn sym(&mut self, kind: SymKind) -> Sym {
        self.syms.push(kind);
        Sym(self.syms.len() as u32 - 1)
    }
    /// A buffer of its own.
    pub fn buffer(&mut self, name: impl Into<String>, mem: Mem, kind: BufferKind) -> Buf {
        self.buffers.push(Buffer {
            name: name.into(),
            mem,
            kind,
        });
        Buf(self.buffers.len() as u32 - 1)
    }
    /// A local of its own.
    pub fn local(&mut self, ty: Ty) -> Local {
        self.locals.push(ty);
        Local(self.locals.len() as u32 - 1)
    }
    /// The expression, as an equal one if there is one.
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
