//! The kernel level: what every emitter reads.
//!
//! A [`Kernel`] is one function of the kernel ABI,
//! `fn(buffers, dims, task_begin, task_end, worker)`, as structured code over virtual registers.
//! Registers are *mutable* variables (an accumulator is assigned in a loop), each of one [`Class`].
//! All vector registers of a kernel have the same number of lanes, [`Kernel::lanes`]; with one lane
//! they are scalars. Tails, tiles and narrow types are already settled: a narrow element exists in
//! memory only ([`Mem`]), a load widens it and a store narrows it.
//!
//! Invariants (see [`verify`]): a register is assigned before it is read on every path; operand
//! classes and element types agree; loop counters are assigned by their loop alone; 64-bit elements
//! appear only where lanes times 64 bits fit the target's widest vector.

use std::collections::BTreeSet;
use std::fmt;

pub mod eval;
pub(crate) mod operands;
pub mod text;
pub mod verify;

/// A virtual register; an index into [`Kernel::regs`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reg(pub u32);

impl fmt::Debug for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// `void *const *buffers`, the first argument of the kernel ABI.
pub const BUFFERS: Reg = Reg(0);
/// `const int64_t *dims`.
pub const DIMS: Reg = Reg(1);
/// First task to run.
pub const TASK_BEGIN: Reg = Reg(2);
/// One past the last task to run.
pub const TASK_END: Reg = Reg(3);
/// `lap_worker *worker`: scratch memory and the fault record.
pub(crate) const WORKER: Reg = Reg(4);
/// Number of registers that every kernel starts with (the five arguments).
pub(crate) const ARGS: u32 = 5;

/// Offsets into the worker record that the fifth argument points at.
/// Scratch memory of the worker.
pub const WORKER_SCRATCH: i32 = 0;
/// Bytes of that memory.
pub const WORKER_SCRATCH_BYTES: i32 = 8;
/// `i32`: what went wrong; zero while nothing has.
pub const WORKER_FAULT_KIND: i32 = 16;
/// `i32`: which operand of the node.
pub const WORKER_FAULT_OPERAND: i32 = 20;
/// `i64`: the offending value.
pub const WORKER_FAULT_VALUE: i32 = 24;
/// `i64`: the limit that it broke.
pub const WORKER_FAULT_LIMIT: i32 = 32;
/// Pointer to the table of run-time functions.
pub const WORKER_RT: i32 = 48;

/// Byte offset of a function in the run-time table: `double f(double)`, or of two for `Pow`, `Fmod`.
pub fn math_fn_offset(func: MathFn) -> i32 {
    let index = match func {
        MathFn::Exp => 0,
        MathFn::Log => 1,
        MathFn::Sin => 2,
        MathFn::Cos => 3,
        MathFn::Tan => 4,
        MathFn::Asin => 5,
        MathFn::Acos => 6,
        MathFn::Atan => 7,
        MathFn::Sinh => 8,
        MathFn::Cosh => 9,
        MathFn::Tanh => 10,
        MathFn::Asinh => 11,
        MathFn::Acosh => 12,
        MathFn::Atanh => 13,
        MathFn::Erf => 14,
        MathFn::Pow => 26,
        MathFn::Fmod => 27,
    };
    128 + 8 * index
}

/// Element type of a vector register's lanes: what arithmetic is done in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Elem {
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
    /// 32 bits; signed where it matters.
    I32,
    /// 64 bits; signed where it matters.
    I64,
}

impl Elem {
    /// Bytes of one lane.
    pub fn bytes(self) -> u32 {
        match self {
            Elem::F32 | Elem::I32 => 4,
            Elem::F64 | Elem::I64 => 8,
        }
    }
    /// Whether arithmetic on it rounds.
    pub fn is_float(self) -> bool {
        matches!(self, Elem::F32 | Elem::F64)
    }
}

/// Type of an element in memory, and the lane type it is widened to or narrowed from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Mem {
    /// Held as it is.
    F32,
    /// Held as it is.
    F64,
    /// Sign-extended to I32.
    I8,
    /// Zero-extended to I32.
    U8,
    /// Sign-extended to I32.
    I16,
    /// Zero-extended to I32.
    U16,
    /// Held as it is.
    I32,
    /// Zero-extended to I64, as I32 lacks its upper half.
    U32,
    /// Held as it is.
    I64,
    /// IEEE half; widened to F32, stored with round to nearest even.
    F16,
    /// bfloat16; widened to F32, stored with round to nearest even.
    BF16,
}

impl Mem {
    /// Bytes of one element.
    pub fn bytes(self) -> u32 {
        match self {
            Mem::I8 | Mem::U8 => 1,
            Mem::I16 | Mem::U16 | Mem::F16 | Mem::BF16 => 2,
            Mem::F32 | Mem::I32 | Mem::U32 => 4,
            Mem::F64 | Mem::I64 => 8,
        }
    }
    /// Lane type after a load, before a store. Stores to narrower integers keep the low bits
    /// (conversions that saturate are explicit operations before the store). `U32` is held in I64.
    pub fn elem(self) -> Elem {
        match self {
            Mem::F32 | Mem::F16 | Mem::BF16 => Elem::F32,
            Mem::F64 => Elem::F64,
            Mem::I8 | Mem::U8 | Mem::I16 | Mem::U16 | Mem::I32 => Elem::I32,
            Mem::U32 | Mem::I64 => Elem::I64,
        }
    }
}

/// What a register holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// A 64-bit integer or an address.
    Gpr,
    /// `lanes` elements.
    Vec(Elem),
    /// One truth value a lane.
    Mask,
}

/// A register or a constant, where an integer is read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Int {
    /// What this general register holds.
    Reg(Reg),
    /// A constant.
    Imm(i64),
}

impl From<Reg> for Int {
    fn from(r: Reg) -> Self {
        Int::Reg(r)
    }
}
impl From<i64> for Int {
    fn from(v: i64) -> Self {
        Int::Imm(v)
    }
}

/// `base + index * scale + disp`, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Addr {
    /// General.
    pub base: Reg,
    /// Scale is 1, 2, 4 or 8.
    pub index: Option<(Reg, u8)>,
    /// In bytes, of any sign.
    pub disp: i32,
}

impl Addr {
    /// The address in a register.
    pub fn base(base: Reg) -> Self {
        Addr {
            base,
            index: None,
            disp: 0,
        }
    }
    /// The same with another displacement.
    pub fn with_disp(self, disp: i32) -> Self {
        Addr { disp, ..self }
    }
}

/// Integer operations on general registers. Wrapping, 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GOp {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// The low 64 bits of the product.
    Mul,
    /// Bitwise, as the next two.
    And,
    /// Inclusive.
    Or,
    /// Exclusive.
    Xor,
    /// Shift left; the amount is an immediate in 0..64.
    Shl,
    /// Arithmetic shift right; the amount is an immediate in 0..64.
    Sar,
    /// Signed minimum.
    Min,
    /// Signed maximum.
    Max,
    /// Quotient rounded towards minus infinity; a divisor of zero gives 0 (never traps).
    FloorDiv,
    /// Remainder with the sign of the divisor; a divisor of zero gives 0 (never traps).
    FloorMod,
}

/// Signed integer comparison.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GCmp {
    /// `a == b`.
    Eq,
    /// `a != b`.
    Ne,
    /// `a < b`.
    Lt,
    /// `a <= b`.
    Le,
    /// `a > b`.
    Gt,
    /// `a >= b`.
    Ge,
}

/// One-operand lane operations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VUn {
    /// Integers wrap; floats flip the sign bit, of NaN too.
    Neg,
    /// Integers: the least stays; floats clear the sign bit.
    Abs,
    /// Floats only, as the next four.
    Sqrt,
    /// Towards minus infinity.
    Floor,
    /// Towards plus infinity.
    Ceil,
    /// Towards zero.
    Trunc,
    /// To nearest, ties to even.
    Round,
    /// Bitwise complement, integers only.
    Not,
}

/// Two-operand lane operations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VBin {
    /// Integers wrap.
    Add,
    /// `a - b`; integers wrap.
    Sub,
    /// Integers: low half.
    Mul,
    /// Floats: IEEE. Integers (one lane only): truncated; by zero gives 0, minimum by -1 wraps.
    Div,
    /// Integers (one lane only): sign of the dividend; by zero gives 0.
    Rem,
    /// Integers: signed. Floats: x86 rule `a < b ? a : b` (a NaN in either operand gives `b`).
    Min,
    /// As `Min`: floats `a > b ? a : b`.
    Max,
    /// Bitwise, on integer and on float lanes alike, as the next three.
    And,
    /// Inclusive.
    Or,
    /// Exclusive.
    Xor,
    /// `!a & b`.
    AndNot,
    /// Integers: shift by the lanes of `b`; amounts outside 0..bits give 0.
    Shl,
    /// Logical.
    Shr,
    /// Arithmetic; amounts outside 0..bits give the sign.
    Sar,
}

/// Lane comparisons. Floats: ordered (false with a NaN), but `Ne`, true with a NaN. Integers: signed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VCmp {
    /// `a == b`.
    Eq,
    /// `a != b`.
    Ne,
    /// `a < b`.
    Lt,
    /// `a <= b`.
    Le,
    /// `a > b`.
    Gt,
    /// `a >= b`.
    Ge,
}

/// Conversions between lane types.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VCvt {
    /// The same bits in another type of the same width.
    Bits,
    /// Number to number: integer to float rounds to nearest even; float to integer truncates,
    /// saturates, and takes NaN to 0; i64 to i32 keeps the low bits; i32 to i64 extends the sign.
    Value,
    /// Float to integer, to nearest even; the caller guarantees that the value fits (cheap form).
    NearestInRange,
}

/// Functions of the C library, through the run-time table; one lane only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum MathFn {
    /// C `exp`.
    Exp,
    /// C `log`, natural.
    Log,
    /// C `pow`, of two operands.
    Pow,
    /// C `sin`, of radians.
    Sin,
    /// C `cos`, of radians.
    Cos,
    /// C `tan`, of radians.
    Tan,
    /// C `asin`.
    Asin,
    /// C `acos`.
    Acos,
    /// C `atan`.
    Atan,
    /// C `sinh`.
    Sinh,
    /// C `cosh`.
    Cosh,
    /// C `tanh`.
    Tanh,
    /// C `asinh`.
    Asinh,
    /// C `acosh`.
    Acosh,
    /// C `atanh`.
    Atanh,
    /// C `erf`.
    Erf,
    /// C `fmod`.
    Fmod,
}

/// Horizontal reductions; the result is in every lane.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VRed {
    /// Integers wrap; the order of float sums is the emitter's.
    Add,
    /// The order of float products is the emitter's.
    Mul,
    /// As [`VBin::Min`].
    Min,
    /// As [`VBin::Max`].
    Max,
}

/// One operation. `dst` is assigned, the others are read.
#[derive(Clone, PartialEq, Debug)]
pub enum Inst {
    // General registers.
    /// A copy.
    GSet {
        /// General.
        dst: Reg,
        /// What is copied.
        src: Int,
    },
    /// `dst = a op b`.
    GBin {
        /// What is computed.
        op: GOp,
        /// General.
        dst: Reg,
        /// General.
        a: Reg,
        /// A shift takes an immediate.
        b: Int,
    },
    /// Loads an integer or pointer; `mem` is an integer type, widened to 64 bits.
    GLoad {
        /// General.
        dst: Reg,
        /// How wide it is in memory, and its sign.
        mem: Mem,
        /// Where it lies.
        addr: Addr,
    },
    /// Lane 0 of an integer vector, sign-extended.
    GFromLane {
        /// General.
        dst: Reg,
        /// A vector of integers.
        src: Reg,
    },
    // Vectors.
    /// One constant in every lane.
    VConst {
        /// A vector.
        dst: Reg,
        /// Those of one element, zero-extended.
        bits: u64,
    },
    /// A copy of a vector or of a mask.
    VMove {
        /// A vector or a mask.
        dst: Reg,
        /// Of the same class.
        src: Reg,
    },
    /// `lanes` consecutive elements. Lanes off in the mask are not read and become 0.
    VLoad {
        /// A vector of [`Mem::elem`].
        dst: Reg,
        /// The elements' type in memory.
        mem: Mem,
        /// Of lane 0.
        addr: Addr,
        /// `None`: all lanes are read.
        mask: Option<Reg>,
    },
    /// One element, in every lane.
    VSplat {
        /// A vector of [`Mem::elem`].
        dst: Reg,
        /// The element's type in memory.
        mem: Mem,
        /// Where it lies.
        addr: Addr,
    },
    /// Lane l from `base + index[l] * mem.bytes()`; index lanes I32 or I64. Off lanes become 0.
    VGather {
        /// A vector of [`Mem::elem`].
        dst: Reg,
        /// The elements' type in memory.
        mem: Mem,
        /// General: an address.
        base: Reg,
        /// A vector of integers, in elements.
        index: Reg,
        /// `None`: all lanes are read.
        mask: Option<Reg>,
    },
    /// `lanes` consecutive elements. Lanes off in the mask are not written.
    VStore {
        /// A vector of [`Mem::elem`].
        src: Reg,
        /// The elements' type in memory.
        mem: Mem,
        /// Of lane 0.
        addr: Addr,
        /// `None`: all lanes are written.
        mask: Option<Reg>,
    },
    /// A general register in every lane of an integer vector.
    VFromGpr {
        /// A vector of integers; I32 lanes get the low half.
        dst: Reg,
        /// General.
        src: Reg,
    },
    /// Lane l is `base + l * step` (integer lanes).
    VIota {
        /// A vector of integers.
        dst: Reg,
        /// General.
        base: Reg,
        /// What each lane is more than the one before.
        step: i64,
    },
    /// `dst = op a`, lane by lane.
    VUn {
        /// What is computed.
        op: VUn,
        /// A vector.
        dst: Reg,
        /// Of the same elements.
        a: Reg,
    },
    /// `dst = a op b`, lane by lane.
    VBin {
        /// What is computed.
        op: VBin,
        /// A vector.
        dst: Reg,
        /// Of the same elements.
        a: Reg,
        /// Of the same elements.
        b: Reg,
    },
    /// `dst = a * b + c`, fused where the target fuses.
    VFma {
        /// A vector.
        dst: Reg,
        /// Of the same elements.
        a: Reg,
        /// Of the same elements.
        b: Reg,
        /// Of the same elements.
        c: Reg,
    },
    /// `dst = c - a * b`.
    VFnma {
        /// A vector.
        dst: Reg,
        /// Of the same elements.
        a: Reg,
        /// Of the same elements.
        b: Reg,
        /// Of the same elements.
        c: Reg,
    },
    /// `dst = a op b`, lane by lane.
    VCmp {
        /// The relation.
        op: VCmp,
        /// A mask.
        dst: Reg,
        /// A vector.
        a: Reg,
        /// Of the same elements.
        b: Reg,
    },
    /// `dst = mask ? a : b`, lane by lane.
    VSelect {
        /// A vector.
        dst: Reg,
        /// Which lanes are those of `a`.
        mask: Reg,
        /// Of the same elements as `dst`.
        a: Reg,
        /// Of the same elements as `dst`.
        b: Reg,
    },
    /// Lanes in another element type.
    VCvt {
        /// What is kept: the bits or the number.
        how: VCvt,
        /// A vector of the new elements.
        dst: Reg,
        /// A vector of the old ones.
        src: Reg,
    },
    /// All lanes combined.
    VReduce {
        /// How two are combined.
        op: VRed,
        /// A vector.
        dst: Reg,
        /// Of the same elements.
        src: Reg,
    },
    /// A call; only with one lane, `dst` and operands F32 or F64 alike (F32 goes through double).
    VMath {
        /// What is called.
        func: MathFn,
        /// One float.
        dst: Reg,
        /// The first argument.
        a: Reg,
        /// The second, for those that take two.
        b: Option<Reg>,
    },
    // Masks.
    /// Lanes `l < count` (a count of at least `lanes`: all on; at most 0: all off).
    MCount {
        /// A mask.
        dst: Reg,
        /// General.
        count: Reg,
    },
    /// Lanes on in both.
    MAnd {
        /// A mask.
        dst: Reg,
        /// A mask.
        a: Reg,
        /// A mask.
        b: Reg,
    },
    /// Lanes on in either.
    MOr {
        /// A mask.
        dst: Reg,
        /// A mask.
        a: Reg,
        /// A mask.
        b: Reg,
    },
    /// Lanes that are off.
    MNot {
        /// A mask.
        dst: Reg,
        /// A mask.
        a: Reg,
    },
    // Structure.
    /// `for var = from; var < to; var += step`, with `step > 0`; `to` is read once, at the start.
    Loop {
        /// General; assigned by the loop alone.
        var: Reg,
        /// The first value.
        from: Int,
        /// No value reaches it.
        to: Int,
        /// At least 1.
        step: i64,
        /// Run for each value; registers keep what it leaves in them.
        body: Vec<Inst>,
    },
    /// One of two bodies.
    If {
        /// The condition, signed.
        cmp: GCmp,
        /// General.
        a: Reg,
        /// What `a` is compared with.
        b: Int,
        /// Run where it holds.
        then: Vec<Inst>,
        /// Run where it does not.
        otherwise: Vec<Inst>,
    },
    /// A hint for the line at the address; level 0 is L1, 1 is L2.
    Prefetch {
        /// Need not be readable.
        addr: Addr,
        /// 0 or 1.
        level: u8,
    },
    /// Writes the worker's fault record unless it holds one, and returns from the kernel.
    Fault {
        /// What went wrong, as docs/abi.md numbers it; never 0.
        kind: i32,
        /// The operand of the node that is to blame.
        operand: i32,
        /// General: the offending value.
        value: Reg,
        /// What it broke.
        limit: Int,
    },
}

/// One kernel.
#[derive(Clone, PartialEq, Debug)]
pub struct Kernel {
    /// A C identifier, unique in its module.
    pub name: String,
    /// Lanes of every vector register: 1, 4, 8 or 16.
    pub lanes: u32,
    /// Class of each register; the first five are the arguments.
    pub regs: Vec<Class>,
    /// In order; structure is nested in it.
    pub body: Vec<Inst>,
}

impl Kernel {
    /// An empty kernel with its argument registers.
    pub fn new(name: impl Into<String>, lanes: u32) -> Self {
        Kernel {
            name: name.into(),
            lanes,
            regs: vec![Class::Gpr; ARGS as usize],
            body: Vec::new(),
        }
    }
    /// The functions of the C library that it calls.
    pub fn math_functions(&self) -> BTreeSet<MathFn> {
        fn walk(body: &[Inst], found: &mut BTreeSet<MathFn>) {
            for inst in body {
                if let Inst::VMath { func, .. } = inst {
                    found.insert(*func);
                }
                inst.bodies().iter().for_each(|b| walk(b, found));
            }
        }
        let mut found = BTreeSet::new();
        walk(&self.body, &mut found);
        found
    }
    /// A new register.
    pub fn reg(&mut self, class: Class) -> Reg {
        self.regs.push(class);
        Reg(self.regs.len() as u32 - 1)
    }
    /// The class of a register.
    pub fn class(&self, r: Reg) -> Class {
        self.regs.get(r.0 as usize).copied().unwrap_or(Class::Gpr)
    }
}
