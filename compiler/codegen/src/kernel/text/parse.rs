//! The parser of kernels: lines into tokens, tokens into instructions.
//!
//! A line is one instruction, or opens or closes a body. What an operation's name means depends on
//! the class of the register assigned, which that register's first letter tells.

use super::{
    ARG_NAMES, GCMPS, GOPS, MATHS, MEMS, VBINS, VCMPS, VCVTS, VREDS, VUNS, class_of, value,
};
use crate::kernel::{ARGS, Addr, Class, Inst, Int, Kernel, Reg};

/// Where a text is not that of a kernel.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// What was expected and what is there.
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
