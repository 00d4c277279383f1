//! Pointwise expressions: what one output element is, from the elements of broadcast inputs.
//!
//! An expression is a DAG in SSA order over typed scalars. It is the body of [`crate::Op::Pointwise`],
//! and fusion composes such bodies. Semantics are ONNX's (see `docs/semantics.md`): `Min`, `Max`
//! propagate NaN; integer division truncates; `Mod` has the sign of the divisor, `Fmod` of the
//! dividend; shifts by the width or more give 0.

use crate::{DType, Dim, minifloat};

/// A scalar constant: the value's bits, zero-extended (f32 as its 32 bits). A `C128` has those of its real part;
/// its imaginary part is 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Scalar {
    /// Any type but strings.
    pub dtype: DType,
    /// Bits beyond the type's width are 0.
    pub bits: u64,
}

impl Scalar {
    /// A constant of type `F32`.
    pub fn f32(v: f32) -> Self {
        Scalar {
            dtype: DType::F32,
            bits: v.to_bits() as u64,
        }
    }
    /// A constant of type `F64`.
    pub fn f64(v: f64) -> Self {
        Scalar {
            dtype: DType::F64,
            bits: v.to_bits(),
        }
    }
    /// A constant of type `I64`.
    pub fn i64(v: i64) -> Self {
        Scalar {
            dtype: DType::I64,
            bits: v as u64,
        }
    }
    /// A constant of type `Bool`.
    pub fn bool(v: bool) -> Self {
        Scalar {
            dtype: DType::Bool,
            bits: v as u64,
        }
    }
    /// `v` in any numeric type: rounded for floats, truncated to the width for integers (those of less than
    /// a byte keep the low bits), with an imaginary part of 0 for complex numbers.
    pub fn of(dtype: DType, v: f64) -> Self {
        let bits = match dtype {
            DType::F32 => (v as f32).to_bits() as u64,
            DType::F64 => v.to_bits(),
            DType::F16 => half::f16::from_f64(v).to_bits() as u64,
            DType::BF16 => half::bf16::from_f64(v).to_bits() as u64,
            DType::Bool => (v != 0.0) as u64,
            DType::I8 => v as i8 as u8 as u64,
            DType::I16 => v as i16 as u16 as u64,
            DType::I32 => v as i32 as u32 as u64,
            DType::I64 => v as i64 as u64,
            DType::U8 | DType::U16 | DType::U32 | DType::U64 | DType::String => v as u64,
            DType::U4 | DType::I4 | DType::U2 | DType::I2 => small_int(dtype, v as i32 as i64),
            DType::C64 => (v as f32).to_bits() as u64,
            DType::C128 => v.to_bits(),
            DType::F8E4M3FN
            | DType::F8E4M3FNUZ
            | DType::F8E5M2
            | DType::F8E5M2FNUZ
            | DType::F8E8M0
            | DType::F6E2M3
            | DType::F6E3M2
            | DType::F4E2M1 => minifloat::encode(dtype, v) as u64,
        };
        Scalar { dtype, bits }
    }
    /// The value as f64 (exact but for 64-bit integers beyond 2^53); the real part of a complex one.
    pub fn to_f64(self) -> f64 {
        match self.dtype {
            DType::F32 => f32::from_bits(self.bits as u32) as f64,
            DType::F64 => f64::from_bits(self.bits),
            DType::F16 => half::f16::from_bits(self.bits as u16).to_f64(),
            DType::BF16 => half::bf16::from_bits(self.bits as u16).to_f64(),
            DType::I8 | DType::I4 | DType::I2 => self.bits as i8 as f64,
            DType::I16 => self.bits as i16 as f64,
            DType::I32 => self.bits as i32 as f64,
            DType::I64 => self.bits as i64 as f64,
            DType::Bool | DType::U8 | DType::U16 | DType::U32 | DType::U64 | DType::String => {
                self.bits as f64
            }
            DType::U4 | DType::U2 => self.bits as f64,
            DType::C64 => f32::from_bits(self.bits as u32) as f64,
            DType::C128 => f64::from_bits(self.bits),
            DType::F8E4M3FN
            | DType::F8E4M3FNUZ
            | DType::F8E5M2
            | DType::F8E5M2FNUZ
            | DType::F8E8M0
            | DType::F6E2M3
            | DType::F6E3M2
            | DType::F4E2M1 => minifloat::decode(self.dtype, self.bits as u8),
        }
    }
}

/// The low bits of a number as an integer of less than a byte, extended to one.
pub(crate) fn small_int(dtype: DType, v: i64) -> u64 {
    let rest = 64 - dtype.bits() as u32;
    let v = match dtype {
        DType::I4 | DType::I2 => v << rest >> rest,
        _ => ((v as u64) << rest >> rest) as i64,
    };
    v as u8 as u64
}

/// One scalar operation. Operand and result types are those of the [`PwNode`]s.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum PwOp {
    /// Element of the node's input with this number, broadcast to the output shape.
    Input(u32),
    /// The same for every element.
    Const(Scalar),
    /// Index of the output element along an axis, as i64.
    Index(u32),
    /// A dimension's value, as i64.
    Dim(Dim),
    /// Integers wrap.
    Neg,
    /// Of the least integer, itself.
    Abs,
    /// -1, 0 or 1; of NaN, NaN.
    Sign,
    /// Floats; NaN below 0.
    Sqrt,
    /// `1 / x`, of floats.
    Reciprocal,
    /// Floats, towards minus infinity.
    Floor,
    /// Floats, towards plus infinity.
    Ceil,
    /// To nearest, ties to even.
    Round,
    /// Floats; base e.
    Exp,
    /// Floats; natural, NaN below 0.
    Log,
    /// Floats, in radians.
    Sin,
    /// Floats, in radians.
    Cos,
    /// Floats, in radians.
    Tan,
    /// Floats; radians from -π/2 to π/2, NaN outside of -1 to 1.
    Asin,
    /// Floats; radians from 0 to π, NaN outside of -1 to 1.
    Acos,
    /// Floats; radians from -π/2 to π/2.
    Atan,
    /// Floats; hyperbolic sine.
    Sinh,
    /// Floats; hyperbolic cosine.
    Cosh,
    /// Floats; hyperbolic tangent.
    Tanh,
    /// Floats; inverse of [`PwOp::Sinh`].
    Asinh,
    /// Floats; inverse of [`PwOp::Cosh`], NaN below 1.
    Acosh,
    /// Floats; inverse of [`PwOp::Tanh`], NaN outside of -1 to 1.
    Atanh,
    /// Floats; the error function.
    Erf,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Floats to bool.
    IsNan,
    /// Floats to bool; true for both signs.
    IsInf,
    /// Logical on bool, bitwise on integers.
    Not,
    /// Integers wrap, as in the next two.
    Add,
    /// `args[0] - args[1]`.
    Sub,
    /// The product.
    Mul,
    /// Integers: truncated; by 0, 0.
    Div,
    /// Sign of the divisor; integers by 0, 0; floats by 0, NaN.
    Mod,
    /// Sign of the dividend; integers by 0, 0; floats by 0, NaN.
    Fmod,
    /// Integers wrap; a negative exponent gives the truncated quotient.
    Pow,
    /// NaN where one operand is.
    Min,
    /// NaN where one operand is.
    Max,
    /// Logical on bool, bitwise on integers, as the next two.
    And,
    /// Inclusive.
    Or,
    /// Exclusive.
    Xor,
    /// By the width or more, 0.
    Shl,
    /// Keeps the sign of a signed value; by the width or more, 0.
    Shr,
    /// To bool, as the next four; false with a NaN.
    Eq,
    /// `args[0] < args[1]`.
    Lt,
    /// `args[0] <= args[1]`.
    Le,
    /// `args[0] > args[1]`.
    Gt,
    /// `args[0] >= args[1]`.
    Ge,
    /// `args[0] ? args[1] : args[2]`.
    Select,
    /// To the node's type: float to integer truncates (out of range: saturates), to bool is `!= 0`. Floats of a
    /// byte and less saturate ([`minifloat::encode`]); integers of less than a byte take the low bits.
    Cast,
    /// Same bits, another type of the same width in bits.
    Bitcast,
}

impl PwOp {
    /// Number of operands.
    pub fn arity(&self) -> usize {
        match self {
            PwOp::Input(_) | PwOp::Const(_) | PwOp::Index(_) | PwOp::Dim(_) => 0,
            PwOp::Add
            | PwOp::Sub
            | PwOp::Mul
            | PwOp::Div
            | PwOp::Mod
            | PwOp::Fmod
            | PwOp::Pow
            | PwOp::Min
            | PwOp::Max
            | PwOp::And
            | PwOp::Or
            | PwOp::Xor
            | PwOp::Shl
            | PwOp::Shr
            | PwOp::Eq
            | PwOp::Lt
            | PwOp::Le
            | PwOp::Gt
            | PwOp::Ge => 2,
            PwOp::Select => 3,
            _ => 1,
        }
    }

    /// Whether every machine gives the same result: the operation chooses, moves or compares, is one of integers, or IEEE 754
    /// says how it rounds. Others may differ in their last digits.
    pub fn rounds_alike(&self) -> bool {
        !matches!(
            self,
            PwOp::Reciprocal
                | PwOp::Exp
                | PwOp::Log
                | PwOp::Sin
                | PwOp::Cos
                | PwOp::Tan
                | PwOp::Asin
                | PwOp::Acos
                | PwOp::Atan
                | PwOp::Sinh
                | PwOp::Cosh
                | PwOp::Tanh
                | PwOp::Asinh
                | PwOp::Acosh
                | PwOp::Atanh
                | PwOp::Erf
                | PwOp::Sigmoid
                | PwOp::Pow
                | PwOp::Mod
                | PwOp::Fmod
        )
    }
}

/// A node of an expression, by position.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct PwRef(pub u32);

/// One operation of an expression on earlier ones.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PwNode {
    /// What is computed.
    pub op: PwOp,
    /// Earlier nodes.
    pub args: Vec<PwRef>,
    /// That of the result.
    pub dtype: DType,
}

/// An expression; the last node is the result.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Pointwise {
    /// Each after those that it reads.
    pub nodes: Vec<PwNode>,
    /// Number of inputs that `PwOp::Input` may name.
    pub inputs: u32,
}

impl Pointwise {
    /// Type of the result.
    pub fn dtype(&self) -> DType {
        self.nodes.last().map_or(DType::F32, |n| n.dtype)
    }
    /// The expression that is one operation on inputs of the given types.
    pub fn unary(op: PwOp, input: DType, result: DType) -> Self {
        let mut b = PwBuilder::default();
        let x = b.input(0, input);
        b.push(op, vec![x], result);
        b.finish(1)
    }
    /// `op(input 0, input 1)`.
    pub fn binary(op: PwOp, input: DType, result: DType) -> Self {
        let mut b = PwBuilder::default();
        let (x, y) = (b.input(0, input), b.input(1, input));
        b.push(op, vec![x, y], result);
        b.finish(2)
    }
}

/// Builds expressions; equal nodes are made once.
#[derive(Default, Clone)]
pub struct PwBuilder {
    /// Those made so far; [`PwRef`]s are positions in it.
    pub nodes: Vec<PwNode>,
}

impl PwBuilder {
    /// The node, as an earlier equal one if there is one; the types are the caller's to get right ([`crate::infer::check_body`]).
    pub fn push(&mut self, op: PwOp, args: Vec<PwRef>, dtype: DType) -> PwRef {
        let node = PwNode { op, args, dtype };
        if let Some(i) = self.nodes.iter().position(|n| *n == node) {
            return PwRef(i as u32);
        }
        self.nodes.push(node);
        PwRef(self.nodes.len() as u32 - 1)
    }
    /// The element of an input.
    pub fn input(&mut self, i: u32, dtype: DType) -> PwRef {
        self.push(PwOp::Input(i), Vec::new(), dtype)
    }
    /// A constant of its own type.
    pub fn constant(&mut self, s: Scalar) -> PwRef {
        self.push(PwOp::Const(s), Vec::new(), s.dtype)
    }
    /// `v` as a constant of the type of `like`.
    pub fn number(&mut self, v: f64, dtype: DType) -> PwRef {
        self.constant(Scalar::of(dtype, v))
    }
    /// The type of a node.
    pub fn dtype(&self, r: PwRef) -> DType {
        self.nodes[r.0 as usize].dtype
    }
    /// One operand, result of the same type.
    pub fn un(&mut self, op: PwOp, a: PwRef) -> PwRef {
        let t = self.dtype(a);
        self.push(op, vec![a], t)
    }
    /// Two operands, result of the first's type.
    pub fn bin(&mut self, op: PwOp, a: PwRef, b: PwRef) -> PwRef {
        let t = self.dtype(a);
        self.push(op, vec![a, b], t)
    }
    /// A comparison or test: result is bool.
    pub fn test(&mut self, op: PwOp, args: Vec<PwRef>) -> PwRef {
        self.push(op, args, DType::Bool)
    }
    /// `c ? a : b`, of the type of `a`.
    pub fn select(&mut self, c: PwRef, a: PwRef, b: PwRef) -> PwRef {
        let t = self.dtype(a);
        self.push(PwOp::Select, vec![c, a, b], t)
    }
    /// `a` in another type; `a` itself where it has that already.
    pub fn cast(&mut self, a: PwRef, to: DType) -> PwRef {
        if self.dtype(a) == to {
            a
        } else {
            self.push(PwOp::Cast, vec![a], to)
        }
    }
    /// Copies `body` in, with its inputs replaced; gives its result.
    pub fn inline(&mut self, body: &Pointwise, inputs: &[PwRef]) -> PwRef {
        let mut map: Vec<PwRef> = Vec::with_capacity(body.nodes.len());
        for n in &body.nodes {
            let r = match n.op {
                PwOp::Input(i) if (i as usize) < inputs.len() => inputs[i as usize],
                _ => {
                    let args = n.args.iter().map(|a| map[a.0 as usize]).collect();
                    self.push(n.op.clone(), args, n.dtype)
                }
            };
            map.push(r);
        }
        map.last().copied().unwrap_or(PwRef(0))
    }
    /// The expression whose result is the last node pushed.
    pub fn finish(self, inputs: u32) -> Pointwise {
        Pointwise {
            nodes: self.nodes,
            inputs,
        }
    }
    /// The expression whose result is `result`, unused nodes dropped.
    pub fn finish_at(self, result: PwRef, inputs: u32) -> Pointwise {
        let mut used = vec![false; self.nodes.len()];
        let mut stack = vec![result];
        while let Some(r) = stack.pop() {
            if !std::mem::replace(&mut used[r.0 as usize], true) {
                stack.extend(&self.nodes[r.0 as usize].args);
            }
        }
        let mut map = vec![PwRef(0); self.nodes.len()];
        let mut nodes = Vec::new();
        for (i, n) in self
            .nodes
            .into_iter()
            .enumerate()
            .take(result.0 as usize + 1)
        {
            if used[i] {
                map[i] = PwRef(nodes.len() as u32);
                let args = n.args.iter().map(|a| map[a.0 as usize]).collect();
                nodes.push(PwNode { args, ..n });
            }
        }
        Pointwise { nodes, inputs }
    }
}
