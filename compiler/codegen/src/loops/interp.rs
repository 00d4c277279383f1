//! The reference interpreter of loops: slow, obvious, the oracle of everything below this level.
//!
//! In go a kernel and the memory of one call: buffers, dims, scratch memory, a range of tasks. Out
//! comes what the kernel left in them, or the fault that it met. One element at a time, in the order
//! of the statements; no schedule, no lanes. Every index is checked against its buffer's length.
//! Products of a contraction and functions are computed in f64 and rounded once; all else is done
//! in the lane type, as compiled code does it.

use super::*;
use lapidary_graph::Atom;
use std::ops::Range;
use thiserror::Error;

/// The memory of a call.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Memory {
    /// By entry of the kernel's `buffers` argument.
    pub buffers: Vec<Vec<u8>>,
    /// By entry of the kernel's `dims` argument.
    pub dims: Vec<i64>,
    /// That of one worker; at least [`LoopKernel::scratch_bytes`].
    pub scratch: Vec<u8>,
}

/// A loaded index that lay outside its limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// That of the [`Stmt::Index`].
    pub operand: i32,
    /// The index as it was loaded.
    pub value: i64,
    /// The extent that it indexes.
    pub limit: i64,
}

/// Why a kernel could not be interpreted: a defect of the kernel, or memory that does not fit it.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum InterpError {
    /// A load or store beside its buffer.
    #[error("`{buffer}` has {elements} elements: index {index} is outside")]
    OutOfBounds {
        /// The buffer's name.
        buffer: String,
        /// In elements.
        index: i64,
        /// How many there are.
        elements: usize,
    },
    /// A rule of [`super::verify`] that is broken, or a dim without a value.
    #[error("{0}")]
    Malformed(String),
}

type Result<T> = std::result::Result<T, InterpError>;

/// Runs some tasks of a kernel. A fault ends the run, as it ends compiled code's.
pub fn run(kernel: &LoopKernel, memory: &mut Memory, tasks: Range<i64>) -> Result<Option<Fault>> {
    let mut m = Machine {
        k: kernel,
        memory,
        syms: vec![None; kernel.syms.len()],
        locals: vec![None; kernel.locals.len()],
        values: vec![(0, 0); kernel.exprs.len()],
        now: 0,
        offsets: Vec::new(),
    };
    for (i, kind) in kernel.syms.iter().enumerate() {
        m.syms[i] = match kind {
            SymKind::Param(p) => match m.memory.dims.get(*p as usize) {
                Some(v) => Some(*v),
                None => return Err(InterpError::Malformed(format!("there is no dim {p}"))),
            },
            SymKind::TaskBegin => Some(tasks.start),
            _ => None,
        };
    }
    for b in &kernel.buffers {
        let offset = match &b.kind {
            BufferKind::Scratch { offset } => m.int(offset)?,
            _ => 0,
        };
        m.offsets.push(offset);
    }
    let task = kernel.syms.iter().position(|k| *k == SymKind::Task);
    for t in tasks {
        if let Some(s) = task {
            m.syms[s] = Some(t);
        }
        match m.block(&kernel.body) {
            Ok(()) => {}
            Err(Stop::Fault(f)) => return Ok(Some(f)),
            Err(Stop::Error(e)) => return Err(e),
        }
    }
    Ok(None)
}

/// What ends a block early.
enum Stop {
    Fault(Fault),
    Error(InterpError),
}

impl From<InterpError> for Stop {
    fn from(e: InterpError) -> Self {
        Stop::Error(e)
    }
}

struct Machine<'k> {
    k: &'k LoopKernel,
    memory: &'k mut Memory,
    syms: Vec<Option<i64>>,
    /// Bits of each local; truth values are 0 and 1.
    locals: Vec<Option<u64>>,
    /// Bits of each expression, and the evaluation that they belong to.
    values: Vec<(u64, u64)>,
    now: u64,
    /// Byte offsets of scratch buffers.
    offsets: Vec<i64>,
}

fn malformed<T>(what: impl Into<String>) -> Result<T> {
    Err(InterpError::Malformed(what.into()))
}

impl Machine<'_> {
    // Integers.

    /// The value of an integer expression; quotients by zero are 0, as in compiled code.
    fn int(&self, d: &Dim) -> Result<i64> {
        let Dim::Sum(s) = d else {
            return Ok(d.as_const().unwrap_or(0));
        };
        let mut sum = s.constant;
        for (atoms, c) in &s.terms {
            let mut term = *c;
            for a in atoms {
                term = term.wrapping_mul(self.atom(a)?);
            }
            sum = sum.wrapping_add(term);
        }
        Ok(sum)
    }
    fn atom(&self, a: &Atom) -> Result<i64> {
        let floor = |x: i64, y: i64| {
            let q = x.checked_div(y).unwrap_or(0);
            let inexact = y != 0 && x.wrapping_rem(y) != 0 && (x < 0) != (y < 0);
            q - i64::from(inexact)
        };
        let two = |x: &Dim, y: &Dim| Ok::<_, InterpError>((self.int(x)?, self.int(y)?));
        Ok(match a {
            Atom::Sym(s) => match self.syms.get(s.0 as usize) {
                Some(Some(v)) => *v,
                _ => return malformed(format!("symbol {} has no value", s.0)),
            },
            Atom::FloorDiv(x, y) => two(x, y).map(|(x, y)| floor(x, y))?,
            Atom::CeilDiv(x, y) => two(x, y).map(|(x, y)| -floor(-x, y))?,
            Atom::Mod(x, y) => {
                two(x, y).map(|(x, y)| if y == 0 { 0 } else { x - floor(x, y) * y })?
            }
            Atom::Min(x, y) => two(x, y).map(|(x, y)| x.min(y))?,
            Atom::Max(x, y) => two(x, y).map(|(x, y)| x.max(y))?,
            Atom::Broadcast(x, y) => two(x, y).map(|(x, y)| if x == 1 { y } else { x })?,
        })
    }

    // Memory.

    fn buffer(&self, buf: Buf) -> Result<&Buffer> {
        match self.k.buffers.get(buf.0 as usize) {
            Some(b) => Ok(b),
            None => malformed(format!("there is no buffer {}", buf.0)),
        }
    }
    /// The bytes that a buffer's elements lie in, and the bytes of one element at an index.
    fn place(&self, buf: Buf, at: i64) -> Result<(Option<usize>, Range<usize>)> {
        let b = self.buffer(buf)?;
        let size = b.mem.bytes() as usize;
        let (entry, length, offset) = match &b.kind {
            BufferKind::Input(n) | BufferKind::Output(n) => (
                Some(*n as usize),
                self.memory.buffers.get(*n as usize).map_or(0, Vec::len),
                0,
            ),
            BufferKind::Scratch { .. } => {
                let offset = self.offsets.get(buf.0 as usize).copied().unwrap_or(0);
                (
                    None,
                    self.memory.scratch.len(),
                    usize::try_from(offset).unwrap_or(usize::MAX),
                )
            }
        };
        let elements = length.saturating_sub(offset) / size;
        match usize::try_from(at) {
            Ok(i) if i < elements => Ok((entry, offset + i * size..offset + (i + 1) * size)),
            _ => Err(InterpError::OutOfBounds {
                buffer: b.name.clone(),
                index: at,
                elements,
            }),
        }
    }
    fn load(&self, buf: Buf, at: i64) -> Result<u64> {
        let mem = self.buffer(buf)?.mem;
        let (entry, place) = self.place(buf, at)?;
        let from = match entry {
            Some(n) => &self.memory.buffers[n],
            None => &self.memory.scratch,
        };
        let mut raw = [0u8; 8];
        raw[..mem.bytes() as usize].copy_from_slice(&from[place]);
        let raw = u64::from_le_bytes(raw);
        Ok(widen(mem, raw))
    }
    fn store(&mut self, buf: Buf, at: i64, bits: u64) -> Result<()> {
        let mem = self.buffer(buf)?.mem;
        let (entry, place) = self.place(buf, at)?;
        let raw = match mem {
            Mem::F16 => f16_bits(f32::from_bits(bits as u32)) as u64,
            Mem::BF16 => bf16_bits(f32::from_bits(bits as u32)) as u64,
            _ => bits,
        };
        let into = match entry {
            Some(n) => &mut self.memory.buffers[n],
            None => &mut self.memory.scratch,
        };
        let size = place.len();
        into[place].copy_from_slice(&raw.to_le_bytes()[..size]);
        Ok(())
    }

    // Expressions.

    /// A root expression, evaluated anew.
    fn value(&mut self, e: ExprId) -> Result<u64> {
        self.now += 1;
        self.expr(e)
    }
    fn expr(&mut self, id: ExprId) -> Result<u64> {
        let k = self.k;
        let Some(e) = k.exprs.get(id.0 as usize) else {
            return malformed(format!("there is no expression {}", id.0));
        };
        if let Some((bits, at)) = self.values.get(id.0 as usize)
            && *at == self.now
        {
            return Ok(*bits);
        }
        let bits = match e {
            Expr::Load { buf, at } => self.load(*buf, self.int(at)?)?,
            Expr::Const { elem, bits } => match elem.bytes() {
                4 => *bits as u32 as u64,
                _ => *bits,
            },
            Expr::Local(l) => match self.locals.get(l.0 as usize) {
                Some(Some(v)) => *v,
                _ => return malformed(format!("l{} is read before it is assigned", l.0)),
            },
            Expr::Int { value, elem } => {
                let v = self.int(value)?;
                match elem {
                    Elem::I64 => v as u64,
                    Elem::I32 => v as u32 as u64,
                    Elem::F64 => (v as f64).to_bits(),
                    // By way of 32 bits.
                    Elem::F32 => (v as i32 as f32).to_bits() as u64,
                }
            }
            Expr::Un { op, a } => {
                let x = self.expr(*a)?;
                match k.ty(*a) {
                    Ty::Bool => 1 - (x & 1),
                    Ty::Num(elem) => unary(*op, elem, x)?,
                }
            }
            Expr::Bin { op, a, b } => {
                let (x, y) = (self.expr(*a)?, self.expr(*b)?);
                match k.ty(*a) {
                    Ty::Bool => match op {
                        BinOp::And | BinOp::Mul | BinOp::Min => x & y,
                        BinOp::Or | BinOp::Add | BinOp::Max => x | y,
                        BinOp::Xor => x ^ y,
                        _ => return malformed(format!("{op:?} of truth values")),
                    },
                    Ty::Num(elem) => binary(*op, elem, x, y)?,
                }
            }
            Expr::Fma { a, b, c } => {
                let (x, y, z) = (self.expr(*a)?, self.expr(*b)?, self.expr(*c)?);
                match k.ty(*a) {
                    Ty::Num(Elem::F32) => {
                        let [x, y, z] = [x, y, z].map(|v| f32::from_bits(v as u32));
                        x.mul_add(y, z).to_bits() as u64
                    }
                    Ty::Num(Elem::F64) => {
                        let [x, y, z] = [x, y, z].map(f64::from_bits);
                        x.mul_add(y, z).to_bits()
                    }
                    ty => return malformed(format!("fma of {ty:?}")),
                }
            }
            Expr::Cmp { op, a, b } => {
                let (x, y) = (self.expr(*a)?, self.expr(*b)?);
                u64::from(match k.ty(*a) {
                    Ty::Bool => compare(*op, &x, &y),
                    Ty::Num(Elem::F32) => {
                        compare(*op, &f32::from_bits(x as u32), &f32::from_bits(y as u32))
                    }
                    Ty::Num(Elem::F64) => compare(*op, &f64::from_bits(x), &f64::from_bits(y)),
                    Ty::Num(e) => compare(*op, &signed(e, x), &signed(e, y)),
                })
            }
            Expr::Select { cond, a, b } => {
                // Both sides are evaluated, as in lanes.
                let (c, x, y) = (self.expr(*cond)?, self.expr(*a)?, self.expr(*b)?);
                if c != 0 { x } else { y }
            }
            Expr::Convert { a, to } => {
                let x = self.expr(*a)?;
                convert(k.ty(*a), *to, x)
            }
            Expr::Bits { a, .. } => self.expr(*a)?,
            Expr::Narrow { a, to } => {
                let x = self.expr(*a)?;
                match to {
                    Mem::F16 => widen(*to, f16_bits(f32::from_bits(x as u32)) as u64),
                    Mem::BF16 => widen(*to, bf16_bits(f32::from_bits(x as u32)) as u64),
                    _ => widen(*to, x),
                }
            }
        };
        if let Some(slot) = self.values.get_mut(id.0 as usize) {
            *slot = (bits, self.now);
        }
        Ok(bits)
    }

    // Statements.

    fn assign(&mut self, l: Local, bits: u64) -> Result<()> {
        match self.locals.get_mut(l.0 as usize) {
            Some(slot) => {
                *slot = Some(bits);
                Ok(())
            }
            None => malformed(format!("there is no local {}", l.0)),
        }
    }
    fn bind(&mut self, s: Sym, value: i64) -> Result<()> {
        match self.syms.get_mut(s.0 as usize) {
            Some(slot) => {
                *slot = Some(value);
                Ok(())
            }
            None => malformed(format!("there is no symbol {}", s.0)),
        }
    }

    fn block(&mut self, body: &[Stmt]) -> std::result::Result<(), Stop> {
        body.iter().try_for_each(|s| self.stmt(s))
    }

    fn stmt(&mut self, s: &Stmt) -> std::result::Result<(), Stop> {
        match s {
            Stmt::For {
                var,
                from,
                to,
                body,
            } => {
                for i in self.int(from)?..self.int(to)? {
                    self.bind(*var, i)?;
                    self.block(body)?;
                }
            }
            Stmt::Reduce {
                var,
                from,
                to,
                body,
                accs,
            } => {
                let mut sums = Vec::new();
                for a in accs {
                    match self.k.ty(a.value) {
                        Ty::Num(e) => sums.push((e, neutral(a.op, e))),
                        Ty::Bool => {
                            return malformed("a reduction of truth values").map_err(Stop::from);
                        }
                    }
                }
                for i in self.int(from)?..self.int(to)? {
                    self.bind(*var, i)?;
                    self.block(body)?;
                    for (a, (e, sum)) in accs.iter().zip(&mut sums) {
                        let v = self.value(a.value)?;
                        let op = match a.op {
                            RedOp::Sum => BinOp::Add,
                            RedOp::Prod => BinOp::Mul,
                            RedOp::Min => BinOp::Min,
                            RedOp::Max => BinOp::Max,
                        };
                        *sum = binary(op, *e, *sum, v)?;
                    }
                }
                for (a, (_, sum)) in accs.iter().zip(sums) {
                    self.assign(a.local, sum)?;
                }
            }
            Stmt::Let { local, value } => {
                let v = self.value(*value)?;
                self.assign(*local, v)?;
            }
            Stmt::Store { buf, at, value } => {
                let v = self.value(*value)?;
                self.store(*buf, self.int(at)?, v)?;
            }
            Stmt::If {
                all,
                then,
                otherwise,
            } => {
                let mut holds = true;
                for c in all {
                    holds = holds && self.int(c)? >= 0;
                }
                self.block(if holds { then } else { otherwise })?;
            }
            Stmt::Index {
                sym,
                buf,
                at,
                limit,
                operand,
            } => {
                let mem = self.buffer(*buf)?.mem;
                let read = signed(mem.elem(), self.load(*buf, self.int(at)?)?);
                let mut v = read;
                if let Some(limit) = limit {
                    let limit = self.int(limit)?;
                    if v < 0 {
                        v = v.wrapping_add(limit);
                    }
                    if !(0..limit).contains(&v) {
                        return Err(Stop::Fault(Fault {
                            operand: *operand,
                            value: read,
                            limit,
                        }));
                    }
                }
                self.bind(*sym, v)?;
            }
            Stmt::Contract(c) => self.contract(c)?,
        }
        Ok(())
    }

    fn contract(&mut self, c: &Contract) -> std::result::Result<(), Stop> {
        let rows = self.int(&c.rows.0)?..self.int(&c.rows.1)?;
        let cols = self.int(&c.cols.0)?..self.int(&c.cols.1)?;
        let (depth, base, stride) = (
            self.int(&c.depth)?,
            self.int(&c.b.base)?,
            self.int(&c.b.k_stride)?,
        );
        let panel = match &c.b.panel {
            Some((width, step)) => Some((*width, self.int(step)?)),
            None => None,
        };
        for i in rows {
            for j in cols.clone() {
                let column = match panel {
                    Some((w, step)) => j.div_euclid(w) * step + j.rem_euclid(w),
                    None => j,
                };
                self.bind(c.row, i)?;
                self.bind(c.col, j)?;
                let mut sum = 0f64;
                for k in 0..depth {
                    self.bind(c.k, k)?;
                    let a = self.load(c.a, self.int(&c.a_at)?)?;
                    let b = self.load(c.b.buf, base + k * stride + column)?;
                    sum += f32::from_bits(a as u32) as f64 * f32::from_bits(b as u32) as f64;
                }
                self.assign(c.acc, (sum as f32).to_bits() as u64)?;
                self.block(&c.epilogue)?;
            }
        }
        Ok(())
    }
}

fn compare<T: PartialOrd>(op: CmpOp, a: &T, b: &T) -> bool {
    match op {
        CmpOp::Eq => a == b,
        CmpOp::Ne => a != b,
        CmpOp::Lt => a < b,
        CmpOp::Le => a <= b,
        CmpOp::Gt => a > b,
        CmpOp::Ge => a >= b,
    }
}

fn signed(elem: Elem, bits: u64) -> i64 {
    match elem.bytes() {
        4 => bits as u32 as i32 as i64,
        _ => bits as i64,
    }
}

/// Bits in memory to bits of the lane type.
fn widen(mem: Mem, raw: u64) -> u64 {
    match mem {
        Mem::F32 | Mem::I32 => raw as u32 as u64,
        Mem::F64 | Mem::I64 => raw,
        Mem::I8 => raw as i8 as i32 as u32 as u64,
        Mem::U8 => raw as u8 as u64,
        Mem::I16 => raw as i16 as i32 as u32 as u64,
        Mem::U16 => raw as u16 as u64,
        Mem::U32 => raw as u32 as u64,
        Mem::BF16 => (raw as u16 as u64) << 16,
        Mem::F16 => {
            let (sign, exp, frac) = ((raw >> 15) & 1, (raw >> 10) & 31, raw & 0x3ff);
            let magnitude = match exp {
                0 => frac as f64 * 2f64.powi(-24),
                31 if frac == 0 => f64::INFINITY,
                31 => f64::NAN,
                e => (1024 + frac) as f64 * 2f64.powi(e as i32 - 25),
            };
            let v = magnitude as f32;
            (if sign == 1 { -v } else { v }).to_bits() as u64
        }
    }
}

/// The nearest half, ties to even.
fn f16_bits(v: f32) -> u16 {
    let sign = ((v.to_bits() >> 16) & 0x8000) as u16;
    let a = v.abs() as f64;
    if v.is_nan() {
        return sign | 0x7e00;
    }
    // 65504 is the greatest half; from 65520 on the nearest is infinity.
    if a >= 65520.0 {
        return sign | 0x7c00;
    }
    let exponent = if a < 2f64.powi(-14) {
        -14
    } else {
        a.log2().floor() as i32
    };
    // The logarithm may round up at a power of two's edge.
    let exponent = if a < 2f64.powi(exponent) && exponent > -14 {
        exponent - 1
    } else {
        exponent
    };
    let steps = (a * 2f64.powi(10 - exponent)).round_ties_even() as u32;
    // A subnormal has no leading one; a mantissa that overflows carries into the exponent.
    sign | (steps as i32 + ((exponent + 14) << 10)) as u16
}

/// The nearest bfloat16, ties to even.
fn bf16_bits(v: f32) -> u16 {
    let bits = v.to_bits();
    if v.is_nan() {
        return ((bits >> 16) as u16) | 0x40;
    }
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// What a reduction starts from.
fn neutral(op: RedOp, elem: Elem) -> u64 {
    let (f, i) = match op {
        RedOp::Sum => (0.0, 0),
        RedOp::Prod => (1.0, 1),
        RedOp::Min => (f64::INFINITY, i64::MAX),
        RedOp::Max => (f64::NEG_INFINITY, i64::MIN),
    };
    match elem {
        Elem::F32 => (f as f32).to_bits() as u64,
        Elem::F64 => f.to_bits(),
        Elem::I32 => i.clamp(i32::MIN as i64, i32::MAX as i64) as u32 as u64,
        Elem::I64 => i as u64,
    }
}

fn convert(from: Ty, to: Elem, x: u64) -> u64 {
    let float = |v: f64| match to {
        Elem::F32 => (v as f32).to_bits() as u64,
        Elem::F64 => v.to_bits(),
        Elem::I32 => v as i32 as u32 as u64,
        Elem::I64 => v as i64 as u64,
    };
    let int = |v: i64| match to {
        Elem::F32 => (v as f32).to_bits() as u64,
        Elem::F64 => (v as f64).to_bits(),
        Elem::I32 => v as u32 as u64,
        Elem::I64 => v as u64,
    };
    match from {
        Ty::Bool => int(x as i64),
        Ty::Num(Elem::F32) => float(f32::from_bits(x as u32) as f64),
        Ty::Num(Elem::F64) => float(f64::from_bits(x)),
        Ty::Num(e) => int(signed(e, x)),
    }
}

fn unary(op: UnOp, elem: Elem, x: u64) -> Result<u64> {
    if !elem.is_float() {
        let v = signed(elem, x);
        let r = match op {
            UnOp::Neg => v.wrapping_neg(),
            UnOp::Abs => v.wrapping_abs(),
            UnOp::Not => !v,
            _ => return malformed(format!("{op:?} of an integer")),
        };
        return Ok(if elem == Elem::I32 {
            r as u32 as u64
        } else {
            r as u64
        });
    }
    // The sign is a bit, also of a NaN.
    let top = if elem == Elem::F32 {
        1u64 << 31
    } else {
        1 << 63
    };
    match op {
        UnOp::Neg => return Ok(x ^ top),
        UnOp::Abs => return Ok(x & !top),
        _ => {}
    }
    let v = match elem {
        Elem::F32 => f32::from_bits(x as u32) as f64,
        _ => f64::from_bits(x),
    };
    let r = match op {
        // The root of an f32 taken in f64 and rounded is the rounded root.
        UnOp::Sqrt => v.sqrt(),
        UnOp::Floor => v.floor(),
        UnOp::Ceil => v.ceil(),
        UnOp::Trunc => v.trunc(),
        UnOp::Round => v.round_ties_even(),
        UnOp::Exp => v.exp(),
        UnOp::Log => v.ln(),
        UnOp::Sin => v.sin(),
        UnOp::Cos => v.cos(),
        UnOp::Tan => v.tan(),
        UnOp::Asin => v.asin(),
        UnOp::Acos => v.acos(),
        UnOp::Atan => v.atan(),
        UnOp::Sinh => v.sinh(),
        UnOp::Cosh => v.cosh(),
        UnOp::Tanh => v.tanh(),
        UnOp::Asinh => v.asinh(),
        UnOp::Acosh => v.acosh(),
        UnOp::Atanh => v.atanh(),
        UnOp::Erf => erf(v),
        UnOp::Sigmoid if v < 0.0 => v.exp() / (1.0 + v.exp()),
        UnOp::Sigmoid => 1.0 / (1.0 + (-v).exp()),
        UnOp::Neg | UnOp::Abs | UnOp::Not => return malformed(format!("{op:?} of a float")),
    };
    Ok(convert(Ty::Num(Elem::F64), elem, r.to_bits()))
}

fn binary(op: BinOp, elem: Elem, x: u64, y: u64) -> Result<u64> {
    Ok(match elem {
        Elem::F32 => {
            let (a, b) = (f32::from_bits(x as u32), f32::from_bits(y as u32));
            let r = match op {
                BinOp::Add => a + b,
                BinOp::Sub => a - b,
                BinOp::Mul => a * b,
                BinOp::Div => a / b,
                BinOp::Rem => a % b,
                BinOp::Min | BinOp::Max if a.is_nan() => a,
                BinOp::Min | BinOp::MinFast => {
                    if a < b {
                        a
                    } else {
                        b
                    }
                }
                BinOp::Max | BinOp::MaxFast => {
                    if a > b {
                        a
                    } else {
                        b
                    }
                }
                BinOp::Pow => (a as f64).powf(b as f64) as f32,
                _ => return malformed(format!("{op:?} of floats")),
            };
            r.to_bits() as u64
        }
        Elem::F64 => {
            let (a, b) = (f64::from_bits(x), f64::from_bits(y));
            let r = match op {
                BinOp::Add => a + b,
                BinOp::Sub => a - b,
                BinOp::Mul => a * b,
                BinOp::Div => a / b,
                BinOp::Rem => a % b,
                BinOp::Min | BinOp::Max if a.is_nan() => a,
                BinOp::Min | BinOp::MinFast => {
                    if a < b {
                        a
                    } else {
                        b
                    }
                }
                BinOp::Max | BinOp::MaxFast => {
                    if a > b {
                        a
                    } else {
                        b
                    }
                }
                BinOp::Pow => a.powf(b),
                _ => return malformed(format!("{op:?} of floats")),
            };
            r.to_bits()
        }
        Elem::I32 | Elem::I64 => {
            let bits = elem.bytes() as i64 * 8;
            let (a, b) = (signed(elem, x), signed(elem, y));
            let shift = (0..bits).contains(&b).then_some(b as u32);
            let r = match op {
                BinOp::Add => a.wrapping_add(b),
                BinOp::Sub => a.wrapping_sub(b),
                BinOp::Mul => a.wrapping_mul(b),
                BinOp::Div if b == 0 => 0,
                BinOp::Div => a.wrapping_div(b),
                BinOp::Rem if b == 0 => 0,
                BinOp::Rem => a.wrapping_rem(b),
                BinOp::Min | BinOp::MinFast => a.min(b),
                BinOp::Max | BinOp::MaxFast => a.max(b),
                BinOp::And => a & b,
                BinOp::Or => a | b,
                BinOp::Xor => a ^ b,
                BinOp::Shl => shift.map_or(0, |s| a << s),
                BinOp::Shr => shift.map_or(0, |s| match elem {
                    Elem::I32 => ((a as u32) >> s) as i64,
                    _ => ((a as u64) >> s) as i64,
                }),
                BinOp::Sar => a >> shift.unwrap_or(63),
                BinOp::Pow => return malformed("a power of integers"),
            };
            if elem == Elem::I32 {
                r as u32 as u64
            } else {
                r as u64
            }
        }
    })
}

/// The error function, by its series near zero and a continued fraction beyond: within some units
/// in the last place of f64.
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        return x;
    }
    if a > 6.0 {
        return x.signum();
    }
    let scale = 2.0 / std::f64::consts::PI.sqrt();
    if a < 2.5 {
        // x e^-xx times the sum of (2xx)^n / (1 * 3 * … * (2n + 1)): all terms positive.
        let (mut term, mut sum, mut n) = (1.0, 1.0, 0.0);
        while term > sum * 1e-18 {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        return x * (scale * (-x * x).exp() * sum);
    }
    let mut fraction = a;
    for n in (1..=80).rev() {
        fraction = a + n as f64 / 2.0 / fraction;
    }
    let rest = scale / 2.0 * (-a * a).exp() / fraction;
    (1.0 - rest).copysign(x)
}
