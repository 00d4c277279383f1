//! The text of kernels: a printer (`Display` of [`Kernel`] and [`Inst`]) and a parser, each the
//! other's inverse. `docs/kernel.md` has the grammar.
//!
//! The first letter of a register tells its class: `g` general, `f` F32, `d` F64, `i` I32, `l` I64,
//! `m` mask; the number is its index. The five arguments have names. A comment runs from `;` to the
//! end of its line. Registers that no instruction mentions are declared, so that a kernel read back
//! equals the one printed.

mod parse;

pub use parse::{ParseError, parse};

use super::{
    ARGS, Addr, Class, Elem, GCmp, GOp, Inst, Int, Kernel, MathFn, Mem, Reg, VBin, VCmp, VCvt,
    VRed, VUn,
};
use std::fmt;

const ARG_NAMES: [&str; ARGS as usize] = ["buffers", "dims", "begin", "end", "worker"];

pub(crate) const MEMS: &[(Mem, &str)] = &[
    (Mem::F32, "f32"),
    (Mem::F64, "f64"),
    (Mem::I8, "i8"),
    (Mem::U8, "u8"),
    (Mem::I16, "i16"),
    (Mem::U16, "u16"),
    (Mem::I32, "i32"),
    (Mem::U32, "u32"),
    (Mem::I64, "i64"),
    (Mem::F16, "f16"),
    (Mem::BF16, "bf16"),
];
const GOPS: &[(GOp, &str)] = &[
    (GOp::Add, "add"),
    (GOp::Sub, "sub"),
    (GOp::Mul, "mul"),
    (GOp::And, "and"),
    (GOp::Or, "or"),
    (GOp::Xor, "xor"),
    (GOp::Shl, "shl"),
    (GOp::Sar, "sar"),
    (GOp::Min, "min"),
    (GOp::Max, "max"),
    (GOp::FloorDiv, "floordiv"),
    (GOp::FloorMod, "floormod"),
];
const GCMPS: &[(GCmp, &str)] = &[
    (GCmp::Eq, "eq"),
    (GCmp::Ne, "ne"),
    (GCmp::Lt, "lt"),
    (GCmp::Le, "le"),
    (GCmp::Gt, "gt"),
    (GCmp::Ge, "ge"),
];
const VCMPS: &[(VCmp, &str)] = &[
    (VCmp::Eq, "eq"),
    (VCmp::Ne, "ne"),
    (VCmp::Lt, "lt"),
    (VCmp::Le, "le"),
    (VCmp::Gt, "gt"),
    (VCmp::Ge, "ge"),
];
const VUNS: &[(VUn, &str)] = &[
    (VUn::Neg, "neg"),
    (VUn::Abs, "abs"),
    (VUn::Sqrt, "sqrt"),
    (VUn::Floor, "floor"),
    (VUn::Ceil, "ceil"),
    (VUn::Trunc, "trunc"),
    (VUn::Round, "round"),
    (VUn::Not, "not"),
];
const VBINS: &[(VBin, &str)] = &[
    (VBin::Add, "add"),
    (VBin::Sub, "sub"),
    (VBin::Mul, "mul"),
    (VBin::Div, "div"),
    (VBin::Rem, "rem"),
    (VBin::Min, "min"),
    (VBin::Max, "max"),
    (VBin::And, "and"),
    (VBin::Or, "or"),
    (VBin::Xor, "xor"),
    (VBin::AndNot, "andnot"),
    (VBin::Shl, "shl"),
    (VBin::Shr, "shr"),
    (VBin::Sar, "sar"),
];
const VCVTS: &[(VCvt, &str)] = &[
    (VCvt::Bits, "bits"),
    (VCvt::Value, "value"),
    (VCvt::NearestInRange, "nearest"),
];
const VREDS: &[(VRed, &str)] = &[
    (VRed::Add, "add"),
    (VRed::Mul, "mul"),
    (VRed::Min, "min"),
    (VRed::Max, "max"),
];
const MATHS: &[(MathFn, &str)] = &[
    (MathFn::Exp, "exp"),
    (MathFn::Log, "log"),
    (MathFn::Pow, "pow"),
    (MathFn::Sin, "sin"),
    (MathFn::Cos, "cos"),
    (MathFn::Tan, "tan"),
    (MathFn::Asin, "asin"),
    (MathFn::Acos, "acos"),
    (MathFn::Atan, "atan"),
    (MathFn::Sinh, "sinh"),
    (MathFn::Cosh, "cosh"),
    (MathFn::Tanh, "tanh"),
    (MathFn::Asinh, "asinh"),
    (MathFn::Acosh, "acosh"),
    (MathFn::Atanh, "atanh"),
    (MathFn::Erf, "erf"),
    (MathFn::Fmod, "fmod"),
];

pub(crate) fn name<T: PartialEq>(table: &[(T, &'static str)], value: T) -> &'static str {
    table
        .iter()
        .find(|(v, _)| *v == value)
        .map_or("?", |(_, n)| n)
}
pub(crate) fn value<T: Copy>(table: &[(T, &'static str)], text: &str) -> Option<T> {
    table.iter().find(|(_, n)| *n == text).map(|(v, _)| *v)
}

fn letter(class: Class) -> char {
    match class {
        Class::Gpr => 'g',
        Class::Vec(Elem::F32) => 'f',
        Class::Vec(Elem::F64) => 'd',
        Class::Vec(Elem::I32) => 'i',
        Class::Vec(Elem::I64) => 'l',
        Class::Mask => 'm',
    }
}
fn class_of(letter: char) -> Option<Class> {
    Some(match letter {
        'g' => Class::Gpr,
        'f' => Class::Vec(Elem::F32),
        'd' => Class::Vec(Elem::F64),
        'i' => Class::Vec(Elem::I32),
        'l' => Class::Vec(Elem::I64),
        'm' => Class::Mask,
        _ => return None,
    })
}

/// Something of a kernel with the kernel that names its registers.
struct In<'k, T>(&'k Kernel, T);

impl fmt::Display for In<'_, Reg> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ARG_NAMES.get(self.1.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "{}{}", letter(self.0.class(self.1)), self.1.0),
        }
    }
}
impl fmt::Display for In<'_, Int> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Int::Reg(r) => In(self.0, r).fmt(f),
            Int::Imm(v) => v.fmt(f),
        }
    }
}
impl fmt::Display for In<'_, Addr> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}", In(self.0, self.1.base))?;
        if let Some((index, scale)) = self.1.index {
            write!(f, " + {}*{scale}", In(self.0, index))?;
        }
        match self.1.disp {
            0 => f.write_str("]"),
            d if d < 0 => write!(f, " - {}]", d.unsigned_abs()),
            d => write!(f, " + {d}]"),
        }
    }
}
impl fmt::Display for In<'_, Option<Reg>> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(mask) => write!(f, " if {}", In(self.0, mask)),
            None => Ok(()),
        }
    }
}

impl Kernel {
    /// One instruction of the kernel as text, with its bodies indented by `depth` levels.
    pub fn show(&self, inst: &Inst, depth: usize) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write_inst(&mut out, inst, depth);
        out
    }

    fn write_body(&self, f: &mut dyn fmt::Write, body: &[Inst], depth: usize) -> fmt::Result {
        for inst in body {
            write!(f, "{:1$}", "", 2 * depth)?;
            self.write_inst(f, inst, depth)?;
            f.write_char('\n')?;
        }
        Ok(())
    }

    fn write_inst(&self, f: &mut dyn fmt::Write, inst: &Inst, depth: usize) -> fmt::Result {
        let r = |r: Reg| In(self, r);
        let int = |i: Int| In(self, i);
        let at = |a: Addr| In(self, a);
        let on = |m: Option<Reg>| In(self, m);
        if let Some(dst) = inst.written()
            && !matches!(inst, Inst::Loop { .. })
        {
            write!(f, "{} = ", r(dst))?;
        }
        match *inst {
            Inst::GSet { src, .. } => write!(f, "{}", int(src)),
            Inst::GBin { op, a, b, .. } => write!(f, "{} {}, {}", name(GOPS, op), r(a), int(b)),
            Inst::GLoad { mem, addr, .. } => write!(f, "load.{} {}", name(MEMS, mem), at(addr)),
            Inst::GFromLane { src, .. } => write!(f, "lane {}", r(src)),
            Inst::VConst { bits, .. } => write!(f, "const {bits:#x}"),
            Inst::VMove { src, .. } => write!(f, "move {}", r(src)),
            Inst::VLoad {
                mem, addr, mask, ..
            } => write!(f, "load.{} {}{}", name(MEMS, mem), at(addr), on(mask)),
            Inst::VSplat { mem, addr, .. } => write!(f, "splat.{} {}", name(MEMS, mem), at(addr)),
            Inst::VGather {
                mem,
                base,
                index,
                mask,
                ..
            } => write!(
                f,
                "gather.{} {}, {}{}",
                name(MEMS, mem),
                r(base),
                r(index),
                on(mask)
            ),
            Inst::VStore {
                src,
                mem,
                addr,
                mask,
            } => write!(
                f,
                "store.{} {}, {}{}",
                name(MEMS, mem),
                at(addr),
                r(src),
                on(mask)
            ),
            Inst::VFromGpr { src, .. } => write!(f, "spread {}", r(src)),
            Inst::VIota { base, step, .. } => write!(f, "iota {}, {step}", r(base)),
            Inst::VUn { op, a, .. } => write!(f, "{} {}", name(VUNS, op), r(a)),
            Inst::VBin { op, a, b, .. } => write!(f, "{} {}, {}", name(VBINS, op), r(a), r(b)),
            Inst::VFma { a, b, c, .. } => write!(f, "fma {}, {}, {}", r(a), r(b), r(c)),
            Inst::VFnma { a, b, c, .. } => write!(f, "fnma {}, {}, {}", r(a), r(b), r(c)),
            Inst::VCmp { op, a, b, .. } => write!(f, "{} {}, {}", name(VCMPS, op), r(a), r(b)),
            Inst::VSelect { mask, a, b, .. } => {
                write!(f, "select {}, {}, {}", r(mask), r(a), r(b))
            }
            Inst::VCvt { how, src, .. } => write!(f, "{} {}", name(VCVTS, how), r(src)),
            Inst::VReduce { op, src, .. } => write!(f, "reduce.{} {}", name(VREDS, op), r(src)),
            Inst::VMath { func, a, b, .. } => {
                write!(f, "math.{} {}", name(MATHS, func), r(a))?;
                b.map_or(Ok(()), |b| write!(f, ", {}", r(b)))
            }
            Inst::MCount { count, .. } => write!(f, "count {}", r(count)),
            Inst::MAnd { a, b, .. } => write!(f, "and {}, {}", r(a), r(b)),
            Inst::MOr { a, b, .. } => write!(f, "or {}, {}", r(a), r(b)),
            Inst::MNot { a, .. } => write!(f, "not {}", r(a)),
            Inst::Loop {
                var,
                from,
                to,
                step,
                ref body,
            } => {
                let (from, to) = (int(from), int(to));
                writeln!(f, "for {} in {from}..{to} step {step} {{", r(var))?;
                self.write_body(f, body, depth + 1)?;
                write!(f, "{:1$}}}", "", 2 * depth)
            }
            Inst::If {
                cmp,
                a,
                b,
                ref then,
                ref otherwise,
            } => {
                writeln!(f, "if {} {}, {} {{", name(GCMPS, cmp), r(a), int(b))?;
                self.write_body(f, then, depth + 1)?;
                if !otherwise.is_empty() {
                    writeln!(f, "{:1$}}} else {{", "", 2 * depth)?;
                    self.write_body(f, otherwise, depth + 1)?;
                }
                write!(f, "{:1$}}}", "", 2 * depth)
            }
            Inst::Prefetch { addr, level } => write!(f, "prefetch.{level} {}", at(addr)),
            Inst::Fault {
                kind,
                operand,
                value,
                limit,
            } => write!(f, "fault {kind}, {operand}, {}, {}", r(value), int(limit)),
        }
    }

    fn mentioned(&self) -> Vec<bool> {
        fn walk(body: &[Inst], seen: &mut Vec<bool>) {
            for inst in body {
                let mut mark = |r: Reg| {
                    if let Some(s) = seen.get_mut(r.0 as usize) {
                        *s = true;
                    }
                };
                inst.for_each_read(&mut mark);
                inst.written().into_iter().for_each(&mut mark);
                inst.bodies().iter().for_each(|b| walk(b, seen));
            }
        }
        let mut seen = vec![false; self.regs.len()];
        walk(&self.body, &mut seen);
        seen
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel {} lanes {} {{", self.name, self.lanes)?;
        for (i, _) in self
            .mentioned()
            .iter()
            .enumerate()
            .skip(ARGS as usize)
            .filter(|(_, seen)| !**seen)
        {
            writeln!(f, "  declare {}", In(self, Reg(i as u32)))?;
        }
        self.write_body(f, &self.body, 1)?;
        writeln!(f, "}}")
    }
}
