//! The text of kernels: a printer (`Display` of [`Kernel`] and [`Inst`]) and a parser, each the
//! other's inverse. `docs/kernel.md` has the grammar.
//!
//! The first letter of a register tells its class: `g` general, `f` F32, `d` F64, `i` I32, `l` I64,
//! `m` mask; the number is its index. The five arguments have names. A comment runs from `;` to the
//! end of its line. Registers that no instruction mentions are declared, so that a kernel read back
//! equals the one printed.

use super::{
    ARGS, Addr, Class, Elem, GCmp, GOp, Inst, Int, Kernel, MathFn, Mem, Reg, VBin, VCmp, VCvt,
    VRed, VUn,
};
use std::fmt;

const ARG_NAMES: [&str; ARGS as usize] = ["buffers", "dims", "begin", "end", "worker"];

const MEMS: &[(Mem, &str)] = &[
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

fn name<T: PartialEq>(table: &[(T, &'static str)], value: T) -> &'static str {
    table
        .iter()
        .find(|(v, _)| *v == value)
        .map_or("?", |(_, n)| n)
}
fn value<T: Copy>(table: &[(T, &'static str)], text: &str) -> Option<T> {
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

/// Where a text is not that of a kernel.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    pub what: String,
}

/// Reads one kernel.
pub fn parse(text: &str) -> Result<Kernel, ParseError> {
    let lines: Vec<(usize, Vec<&str>)> = text
        .lines()
        .enumerate()
        .map(|(n, line)| (n + 1, tokens(line.split(';').next().unwrap_or_default())))
        .filter(|(_, t)| !t.is_empty())
        .collect();
    let mut p = Parser {
        lines: &lines,
        next: 0,
        classes: Vec::new(),
    };
    p.kernel()
}

/// Words, numbers and single signs of a line.
fn tokens(line: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = line.trim_start();
    while let Some(c) = rest.chars().next() {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let len = if rest.starts_with("..") {
            2
        } else if word(c) {
            rest.find(|c| !word(c)).unwrap_or(rest.len())
        } else {
            c.len_utf8()
        };
        let (token, after) = rest.split_at(len);
        out.push(token);
        rest = after.trim_start();
    }
    out
}

struct Parser<'t> {
    lines: &'t [(usize, Vec<&'t str>)],
    next: usize,
    classes: Vec<Option<Class>>,
}

/// The rest of one line.
struct Line<'t> {
    number: usize,
    tokens: &'t [&'t str],
}

impl<'t> Line<'t> {
    fn fail<T>(&self, what: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError {
            line: self.number,
            what: what.into(),
        })
    }
    fn peek(&self) -> &'t str {
        self.tokens.first().copied().unwrap_or("")
    }
    fn word(&mut self) -> &'t str {
        let t = self.peek();
        self.tokens = self.tokens.get(1..).unwrap_or_default();
        t
    }
    fn take(&mut self, sign: &str) -> bool {
        let here = self.peek() == sign;
        if here {
            self.word();
        }
        here
    }
    fn expect(&mut self, sign: &str) -> Result<(), ParseError> {
        if self.take(sign) {
            return Ok(());
        }
        self.fail(format!("expected `{sign}`, found `{}`", self.peek()))
    }
    fn end(&self) -> Result<(), ParseError> {
        if self.tokens.is_empty() {
            return Ok(());
        }
        self.fail(format!("unexpected `{}`", self.peek()))
    }
    fn number<T: TryFrom<i128>>(&mut self) -> Result<T, ParseError> {
        let negative = self.take("-");
        let word = self.word();
        let magnitude = match word.strip_prefix("0x") {
            Some(hex) => i128::from_str_radix(hex, 16),
            None => word.parse(),
        };
        let found = magnitude
            .ok()
            .map(|v: i128| if negative { -v } else { v })
            .and_then(|v| T::try_from(v).ok());
        match found {
            Some(v) => Ok(v),
            None => self.fail(format!("expected a number, found `{word}`")),
        }
    }
    fn named<T: Copy>(&mut self, table: &[(T, &'static str)]) -> Result<T, ParseError> {
        let word = self.word();
        match value(table, word) {
            Some(v) => Ok(v),
            None => {
                let names: Vec<&str> = table.iter().map(|(_, n)| *n).collect();
                self.fail(format!("`{word}` is none of {}", names.join(", ")))
            }
        }
    }
}

impl<'t> Parser<'t> {
    fn line(&mut self) -> Result<Line<'t>, ParseError> {
        let Some((number, tokens)) = self.lines.get(self.next) else {
            return Err(ParseError {
                line: self.lines.last().map_or(1, |l| l.0),
                what: "the kernel has no end".into(),
            });
        };
        self.next += 1;
        Ok(Line {
            number: *number,
            tokens,
        })
    }

    fn kernel(&mut self) -> Result<Kernel, ParseError> {
        let mut l = self.line()?;
        l.expect("kernel")?;
        let name = l.word();
        l.expect("lanes")?;
        let lanes = l.number()?;
        l.expect("{")?;
        l.end()?;
        let mut kernel = Kernel::new(name, lanes);
        let (body, _) = self.body()?;
        kernel.body = body;
        if let Some((number, _)) = self.lines.get(self.next) {
            return Err(ParseError {
                line: *number,
                what: "something follows the kernel".into(),
            });
        }
        let found = self.classes.iter().skip(ARGS as usize);
        kernel.regs.extend(found.map(|c| c.unwrap_or(Class::Gpr)));
        Ok(kernel)
    }

    /// Up to the closing brace; the rest of that line is returned.
    fn body(&mut self) -> Result<(Vec<Inst>, Line<'t>), ParseError> {
        let mut body = Vec::new();
        loop {
            let mut l = self.line()?;
            if l.take("}") {
                return Ok((body, l));
            }
            if l.take("declare") {
                self.reg(&mut l)?;
                l.end()?;
                continue;
            }
            body.push(self.inst(l)?);
        }
    }

    fn reg(&mut self, l: &mut Line<'t>) -> Result<Reg, ParseError> {
        let word = l.word();
        if let Some(i) = ARG_NAMES.iter().position(|n| *n == word) {
            return Ok(Reg(i as u32));
        }
        let mut chars = word.chars();
        let class = chars.next().and_then(class_of);
        let index = chars.as_str().parse::<u32>().ok();
        let (Some(class), Some(index)) = (class, index) else {
            return l.fail(format!("expected a register, found `{word}`"));
        };
        // A bound, so that a text cannot ask for gigabytes.
        if !(ARGS..1 << 20).contains(&index) {
            return l.fail(format!("`{word}` has a number out of range"));
        }
        let i = index as usize;
        if self.classes.len() <= i {
            self.classes.resize(i + 1, None);
        }
        match self.classes[i] {
            Some(c) if c != class => l.fail(format!("`{word}` has two classes")),
            _ => {
                self.classes[i] = Some(class);
                Ok(Reg(index))
            }
        }
    }
    fn class(&self, r: Reg) -> Class {
        self.classes
            .get(r.0 as usize)
            .copied()
            .flatten()
            .unwrap_or(Class::Gpr)
    }
    fn int(&mut self, l: &mut Line<'t>) -> Result<Int, ParseError> {
        let t = l.peek();
        if t == "-" || t.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(Int::Imm(l.number()?));
        }
        Ok(Int::Reg(self.reg(l)?))
    }
    fn next_reg(&mut self, l: &mut Line<'t>) -> Result<Reg, ParseError> {
        l.expect(",")?;
        self.reg(l)
    }
    fn addr(&mut self, l: &mut Line<'t>) -> Result<Addr, ParseError> {
        l.expect("[")?;
        let mut addr = Addr::base(self.reg(l)?);
        loop {
            if l.take("]") {
                return Ok(addr);
            }
            if l.peek() == "-" {
                addr.disp = l.number()?;
                continue;
            }
            l.expect("+")?;
            if l.peek().starts_with(|c: char| c.is_ascii_digit()) {
                addr.disp = l.number()?;
            } else {
                let index = self.reg(l)?;
                l.expect("*")?;
                addr.index = Some((index, l.number()?));
            }
        }
    }
    fn mask(&mut self, l: &mut Line<'t>) -> Result<Option<Reg>, ParseError> {
        if l.take("if") {
            return Ok(Some(self.reg(l)?));
        }
        Ok(None)
    }

    fn inst(&mut self, mut l: Line<'t>) -> Result<Inst, ParseError> {
        let inst = match l.peek() {
            "for" => return self.a_loop(l),
            "if" => return self.an_if(l),
            "store" => {
                l.word();
                l.expect(".")?;
                let mem = l.named(MEMS)?;
                let addr = self.addr(&mut l)?;
                let src = self.next_reg(&mut l)?;
                let mask = self.mask(&mut l)?;
                Inst::VStore {
                    src,
                    mem,
                    addr,
                    mask,
                }
            }
            "prefetch" => {
                l.word();
                l.expect(".")?;
                let level = l.number()?;
                let addr = self.addr(&mut l)?;
                Inst::Prefetch { addr, level }
            }
            "fault" => {
                l.word();
                let kind = l.number()?;
                l.expect(",")?;
                let operand = l.number()?;
                let value = self.next_reg(&mut l)?;
                l.expect(",")?;
                let limit = self.int(&mut l)?;
                Inst::Fault {
                    kind,
                    operand,
                    value,
                    limit,
                }
            }
            _ => {
                let dst = self.reg(&mut l)?;
                l.expect("=")?;
                self.assignment(dst, &mut l)?
            }
        };
        l.end()?;
        Ok(inst)
    }

    fn a_loop(&mut self, mut l: Line<'t>) -> Result<Inst, ParseError> {
        l.expect("for")?;
        let var = self.reg(&mut l)?;
        l.expect("in")?;
        let from = self.int(&mut l)?;
        l.expect("..")?;
        let to = self.int(&mut l)?;
        l.expect("step")?;
        let step = l.number()?;
        l.expect("{")?;
        l.end()?;
        let (body, l) = self.body()?;
        l.end()?;
        Ok(Inst::Loop {
            var,
            from,
            to,
            step,
            body,
        })
    }

    fn an_if(&mut self, mut l: Line<'t>) -> Result<Inst, ParseError> {
        l.expect("if")?;
        let cmp = l.named(GCMPS)?;
        let a = self.reg(&mut l)?;
        l.expect(",")?;
        let b = self.int(&mut l)?;
        l.expect("{")?;
        l.end()?;
        let (then, mut l) = self.body()?;
        let mut otherwise = Vec::new();
        if l.take("else") {
            l.expect("{")?;
            l.end()?;
            (otherwise, l) = self.body()?;
        }
        l.end()?;
        Ok(Inst::If {
            cmp,
            a,
            b,
            then,
            otherwise,
        })
    }

    fn assignment(&mut self, dst: Reg, l: &mut Line<'t>) -> Result<Inst, ParseError> {
        match self.class(dst) {
            Class::Gpr => self.general(dst, l),
            Class::Mask => self.a_mask(dst, l),
            Class::Vec(_) => self.vector(dst, l),
        }
    }

    fn general(&mut self, dst: Reg, l: &mut Line<'t>) -> Result<Inst, ParseError> {
        if let Some(op) = value(GOPS, l.peek()) {
            l.word();
            let a = self.reg(l)?;
            l.expect(",")?;
            let b = self.int(l)?;
            return Ok(Inst::GBin { op, dst, a, b });
        }
        if l.take("load") {
            l.expect(".")?;
            let mem = l.named(MEMS)?;
            let addr = self.addr(l)?;
            return Ok(Inst::GLoad { dst, mem, addr });
        }
        if l.take("lane") {
            let src = self.reg(l)?;
            return Ok(Inst::GFromLane { dst, src });
        }
        let src = self.int(l)?;
        Ok(Inst::GSet { dst, src })
    }

    fn a_mask(&mut self, dst: Reg, l: &mut Line<'t>) -> Result<Inst, ParseError> {
        if let Some(op) = value(VCMPS, l.peek()) {
            l.word();
            let a = self.reg(l)?;
            let b = self.next_reg(l)?;
            return Ok(Inst::VCmp { op, dst, a, b });
        }
        let word = l.word();
        let a = self.reg(l)?;
        match word {
            "count" => Ok(Inst::MCount { dst, count: a }),
            "move" => Ok(Inst::VMove { dst, src: a }),
            "not" => Ok(Inst::MNot { dst, a }),
            "and" => {
                let b = self.next_reg(l)?;
                Ok(Inst::MAnd { dst, a, b })
            }
            "or" => {
                let b = self.next_reg(l)?;
                Ok(Inst::MOr { dst, a, b })
            }
            _ => l.fail(format!("no operation `{word}` on masks")),
        }
    }

    fn vector(&mut self, dst: Reg, l: &mut Line<'t>) -> Result<Inst, ParseError> {
        let word = l.word();
        if let Some(op) = value(VUNS, word) {
            let a = self.reg(l)?;
            return Ok(Inst::VUn { op, dst, a });
        }
        if let Some(op) = value(VBINS, word) {
            let a = self.reg(l)?;
            let b = self.next_reg(l)?;
            return Ok(Inst::VBin { op, dst, a, b });
        }
        if let Some(how) = value(VCVTS, word) {
            let src = self.reg(l)?;
            return Ok(Inst::VCvt { how, dst, src });
        }
        Ok(match word {
            "const" => Inst::VConst {
                dst,
                bits: l.number()?,
            },
            "move" => Inst::VMove {
                dst,
                src: self.reg(l)?,
            },
            "spread" => Inst::VFromGpr {
                dst,
                src: self.reg(l)?,
            },
            "load" => {
                l.expect(".")?;
                let mem = l.named(MEMS)?;
                let addr = self.addr(l)?;
                let mask = self.mask(l)?;
                Inst::VLoad {
                    dst,
                    mem,
                    addr,
                    mask,
                }
            }
            "splat" => {
                l.expect(".")?;
                let mem = l.named(MEMS)?;
                let addr = self.addr(l)?;
                Inst::VSplat { dst, mem, addr }
            }
            "gather" => {
                l.expect(".")?;
                let mem = l.named(MEMS)?;
                let base = self.reg(l)?;
                let index = self.next_reg(l)?;
                let mask = self.mask(l)?;
                Inst::VGather {
                    dst,
                    mem,
                    base,
                    index,
                    mask,
                }
            }
            "iota" => {
                let base = self.reg(l)?;
                l.expect(",")?;
                let step = l.number()?;
                Inst::VIota { dst, base, step }
            }
            "fma" | "fnma" => {
                let a = self.reg(l)?;
                let b = self.next_reg(l)?;
                let c = self.next_reg(l)?;
                if word == "fma" {
                    Inst::VFma { dst, a, b, c }
                } else {
                    Inst::VFnma { dst, a, b, c }
                }
            }
            "select" => {
                let mask = self.reg(l)?;
                let a = self.next_reg(l)?;
                let b = self.next_reg(l)?;
                Inst::VSelect { dst, mask, a, b }
            }
            "reduce" => {
                l.expect(".")?;
                let op = l.named(VREDS)?;
                let src = self.reg(l)?;
                Inst::VReduce { op, dst, src }
            }
            "math" => {
                l.expect(".")?;
                let func = l.named(MATHS)?;
                let a = self.reg(l)?;
                let b = if l.peek() == "," {
                    Some(self.next_reg(l)?)
                } else {
                    None
                };
                Inst::VMath { func, dst, a, b }
            }
            _ => return l.fail(format!("no operation `{word}` on vectors")),
        })
    }
}
