//! The parser of loops: text into tokens, tokens into a kernel and its schedule.
//!
//! The inverse of the printer ([`super::text`]); `docs/loops.md` has the grammar. Expressions are
//! entered once each, in order of appearance, and integer expressions in normal form, so what was
//! printed reads back as [`LoopKernel::canonical`]. Nothing is checked but the grammar: that is
//! [`super::verify`]'s.

use super::text::{BINOPS, COMPARE, ELEMS, INFIX, REDOPS, UNOPS, letter};
use super::*;
use crate::kernel::text::{MEMS, ParseError, value};
use std::collections::HashMap;

type Result<T> = std::result::Result<T, ParseError>;

/// Deepest nesting of statements, expressions and indices: far beyond what lowering writes.
const DEEPEST: u32 = 500;

/// Reads one kernel and its schedule. A text without a `schedule` line has an empty schedule.
pub fn parse(text: &str) -> Result<(LoopKernel, Schedule)> {
    let mut p = Parser {
        tokens: tokens(text),
        ..Parser::default()
    };
    p.kernel()?;
    let schedule = p.schedule()?;
    if !p.peek().is_empty() {
        return p.fail(format!("unexpected `{}`", p.peek()));
    }
    p.finish()?;
    Ok((p.k, schedule))
}

/// Words, numbers and signs with their lines; comments run from `;` to the end of a line.
fn tokens(text: &str) -> Vec<(usize, &str)> {
    let mut out = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let mut rest = line.split(';').next().unwrap_or_default().trim_start();
        while let Some(c) = rest.chars().next() {
            let len = match c {
                '0'..='9' => number_len(rest),
                c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                _ if ["..", ">=", "<=", "==", "!="]
                    .iter()
                    .any(|s| rest.starts_with(s)) =>
                {
                    2
                }
                c => c.len_utf8(),
            };
            let (token, after) = rest.split_at(len);
            out.push((n + 1, token));
            rest = after.trim_start();
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '#'
}

/// Length of a number: digits, a fraction, an exponent, the name of a type; or hexadecimal digits.
fn number_len(text: &str) -> usize {
    let b = text.as_bytes();
    let word = |mut at: usize| {
        while b.get(at).is_some_and(|c| is_word(*c as char)) {
            at += 1;
        }
        at
    };
    if text.starts_with("0x") {
        return word(2);
    }
    let digits = |mut at: usize| {
        while b.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let mut end = digits(0);
    if b.get(end) == Some(&b'.') && b.get(end + 1).is_some_and(u8::is_ascii_digit) {
        end = digits(end + 1);
    }
    if b.get(end) == Some(&b'e') {
        let sign = usize::from(matches!(b.get(end + 1), Some(b'+' | b'-')));
        if b.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
            end = digits(end + 1 + sign);
        }
    }
    word(end)
}

#[derive(Default)]
struct Parser<'t> {
    tokens: Vec<(usize, &'t str)>,
    next: usize,
    k: LoopKernel,
    buffers: HashMap<&'t str, Buf>,
    syms: Vec<Option<SymKind>>,
    locals: Vec<Option<Ty>>,
    known: HashMap<Expr, ExprId>,
    /// What the present statement's `with` lines name.
    named: HashMap<&'t str, ExprId>,
    depth: u32,
}

impl<'t> Parser<'t> {
    fn line(&self) -> usize {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.next.min(last)).map_or(1, |t| t.0)
    }
    fn fail<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(ParseError {
            line: self.line(),
            what: what.into(),
        })
    }
    fn peek(&self) -> &'t str {
        self.peek_at(0)
    }
    fn peek_at(&self, n: usize) -> &'t str {
        self.tokens.get(self.next + n).map_or("", |t| t.1)
    }
    fn word(&mut self) -> &'t str {
        let t = self.peek();
        self.next += 1;
        t
    }
    fn take(&mut self, sign: &str) -> bool {
        let here = self.peek() == sign;
        self.next += usize::from(here);
        here
    }
    fn expect(&mut self, sign: &str) -> Result<()> {
        if self.take(sign) {
            return Ok(());
        }
        self.fail(format!("expected `{sign}`, found `{}`", self.peek()))
    }
    fn named_in<T: Copy>(&mut self, table: &[(T, &'static str)], what: &str) -> Result<T> {
        match value(table, self.peek()) {
            Some(v) => {
                self.next += 1;
                Ok(v)
            }
            None => self.fail(format!("expected {what}, found `{}`", self.peek())),
        }
    }
    fn identifier(&mut self) -> Result<&'t str> {
        let word = self.peek();
        if word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            self.next += 1;
            return Ok(word);
        }
        self.fail(format!("expected a name, found `{word}`"))
    }
    fn number<T: TryFrom<i128>>(&mut self) -> Result<T> {
        let negative = self.take("-");
        let word = self.peek();
        let found = word.parse::<i128>().ok();
        let found = found.map(|v| if negative { -v } else { v });
        match found.and_then(|v| T::try_from(v).ok()) {
            Some(v) => {
                self.next += 1;
                Ok(v)
            }
            None => self.fail(format!("expected a whole number, found `{word}`")),
        }
    }
    /// Guards recursion.
    fn nested<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= DEEPEST {
            return self.fail("nested too deeply");
        }
        self.depth += 1;
        let done = f(self);
        self.depth -= 1;
        done
    }

    /// A symbol whose first letter is this kind's; notes its kind.
    fn sym(&mut self, kind: &SymKind) -> Result<Sym> {
        let word = self.peek();
        let number = word
            .strip_prefix(letter(kind))
            .and_then(|n| n.parse::<u16>().ok());
        let Some(n) = number else {
            return self.fail(format!(
                "expected a symbol `{}…`, found `{word}`",
                letter(kind)
            ));
        };
        let at = n as usize;
        if self.syms.len() <= at {
            self.syms.resize(at + 1, None);
        }
        match &self.syms[at] {
            Some(known) if known != kind => {
                return self.fail(format!("`{word}` has the number of another symbol"));
            }
            _ => self.syms[at] = Some(kind.clone()),
        }
        self.next += 1;
        Ok(Sym(n as u32))
    }

    /// A symbol inside an integer expression; what binds it is told where it is bound.
    fn sym_use(&mut self) -> Result<Sym> {
        let word = self.peek();
        let known = word.starts_with(['d', 't', 'b', 'v', 'x']);
        match word
            .get(1..)
            .filter(|_| known)
            .and_then(|n| n.parse::<u16>().ok())
        {
            Some(n) => {
                let fits = self
                    .syms
                    .get(n as usize)
                    .and_then(Option::as_ref)
                    .map(letter);
                if fits.is_none_or(|l| !word.starts_with(l)) {
                    return self.fail(format!("`{word}` is not bound by anything before it"));
                }
                self.next += 1;
                Ok(Sym(n as u32))
            }
            None => self.fail(format!("expected a symbol or a number, found `{word}`")),
        }
    }

    // Integer expressions.

    fn dim(&mut self) -> Result<Dim> {
        let negative = self.take("-");
        let first = self.product(negative)?;
        let mut sum = first;
        loop {
            sum = if self.take("+") {
                sum.add(&self.product(false)?)
            } else if self.take("-") {
                sum.add(&self.product(true)?)
            } else {
                return Ok(sum);
            };
        }
    }
    fn product(&mut self, negative: bool) -> Result<Dim> {
        let mut all = match negative && self.peek().starts_with(|c: char| c.is_ascii_digit()) {
            // The least number has no positive counterpart.
            true => {
                self.next -= 1;
                Dim::Const(self.number()?)
            }
            false if negative => self.atom()?.neg(),
            false => self.atom()?,
        };
        while self.take("*") {
            all = all.mul(&self.atom()?);
        }
        Ok(all)
    }
    fn atom(&mut self) -> Result<Dim> {
        if self.peek().starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(Dim::Const(self.number()?));
        }
        if self.take("(") {
            let d = self.nested(Self::dim)?;
            self.expect(")")?;
            return Ok(d);
        }
        if self.peek_at(1) != "(" {
            return Ok(Dim::from(self.sym_use()?));
        }
        let f = self.word();
        self.expect("(")?;
        let a = self.nested(Self::dim)?;
        self.expect(",")?;
        let b = self.nested(Self::dim)?;
        self.expect(")")?;
        Ok(match f {
            "floordiv" => a.floor_div(&b),
            "ceildiv" => a.ceil_div(&b),
            "mod" => a.modulo(&b),
            "min" => a.minimum(&b),
            "max" => a.maximum(&b),
            "broadcast" => match a.broadcast(&b) {
                Some(d) => d,
                None => return self.fail("sizes that do not broadcast"),
            },
            _ => return self.fail(format!("`{f}` is not a function of integers")),
        })
    }
    fn in_brackets(&mut self) -> Result<Dim> {
        self.expect("[")?;
        let d = self.dim()?;
        self.expect("]")?;
        Ok(d)
    }
    fn range(&mut self) -> Result<(Sym, Dim, Dim)> {
        // The bounds stand outside the variable's range, but its name comes first.
        let var = self.sym(&SymKind::Loop)?;
        self.expect("in")?;
        let from = self.dim()?;
        self.expect("..")?;
        Ok((var, from, self.dim()?))
    }

    // Expressions.

    fn enter(&mut self, e: Expr) -> ExprId {
        *self.known.entry(e).or_insert_with_key(|e| {
            self.k.exprs.push(e.clone());
            ExprId(self.k.exprs.len() as u32 - 1)
        })
    }

    /// The formula of a statement, with the names given before it.
    fn formula(&mut self) -> Result<ExprId> {
        let e = self.expr(1)?;
        self.named.clear();
        Ok(e)
    }

    /// An expression whose operators bind at least so tightly: 1 comparisons, 2 sums, 3 products.
    fn expr(&mut self, at_least: u8) -> Result<ExprId> {
        let mut a = self.nested(Self::primary)?;
        loop {
            let sign = self.peek();
            if let Some((op, _, binds)) = INFIX.iter().find(|i| i.1 == sign)
                && *binds >= at_least
            {
                self.next += 1;
                let b = self.nested(|p| p.expr(binds + 1))?;
                a = self.enter(Expr::Bin { op: *op, a, b });
            } else if at_least <= 1
                && let Some(op) = value(COMPARE, sign)
            {
                self.next += 1;
                let b = self.nested(|p| p.expr(2))?;
                return Ok(self.enter(Expr::Cmp { op, a, b }));
            } else {
                return Ok(a);
            }
        }
    }

    fn primary(&mut self) -> Result<ExprId> {
        let word = self.peek();
        if word == "-" || word.starts_with(|c: char| c.is_ascii_digit()) {
            return self.literal();
        }
        if self.take("(") {
            let e = self.expr(1)?;
            self.expect(")")?;
            return Ok(e);
        }
        if self.peek_at(1) == "[" {
            let buf = self.buf()?;
            let at = self.in_brackets()?;
            return Ok(self.enter(Expr::Load { buf, at }));
        }
        if !matches!(self.peek_at(1), "(" | ".") {
            if let Some(e) = self.named.get(word) {
                self.next += 1;
                return Ok(*e);
            }
            let local = self.local_number()?;
            return Ok(self.enter(Expr::Local(local)));
        }
        self.function()
    }

    fn function(&mut self) -> Result<ExprId> {
        let f = self.word();
        if self.take(".") {
            if f == "narrow" {
                let to = self.named_in(MEMS, "a type in memory")?;
                let [a] = self.arguments()?;
                return Ok(self.enter(Expr::Narrow { a, to }));
            }
            let to = self.named_in(ELEMS, "a lane type")?;
            let e = match f {
                "index" => {
                    self.expect("(")?;
                    let value = self.dim()?;
                    self.expect(")")?;
                    Expr::Int { value, elem: to }
                }
                "const" => {
                    self.expect("(")?;
                    let hex = self.peek().strip_prefix("0x");
                    let Some(bits) = hex.and_then(|h| u64::from_str_radix(h, 16).ok()) else {
                        return self.fail(format!("expected bits, `0x…`, found `{}`", self.peek()));
                    };
                    self.next += 1;
                    self.expect(")")?;
                    Expr::Const { elem: to, bits }
                }
                "to" => {
                    let [a] = self.arguments()?;
                    Expr::Convert { a, to }
                }
                "bits" => {
                    let [a] = self.arguments()?;
                    Expr::Bits { a, to }
                }
                _ => return self.fail(format!("`{f}.` is not a function")),
            };
            return Ok(self.enter(e));
        }
        let e = if let Some(op) = value(UNOPS, f) {
            let [a] = self.arguments()?;
            Expr::Un { op, a }
        } else if let Some(op) = value(BINOPS, f) {
            let [a, b] = self.arguments()?;
            Expr::Bin { op, a, b }
        } else {
            match f {
                "fma" => {
                    let [a, b, c] = self.arguments()?;
                    Expr::Fma { a, b, c }
                }
                "select" => {
                    let [cond, a, b] = self.arguments()?;
                    Expr::Select { cond, a, b }
                }
                _ => return self.fail(format!("`{f}` is not a function")),
            }
        };
        Ok(self.enter(e))
    }

    fn arguments<const N: usize>(&mut self) -> Result<[ExprId; N]> {
        self.expect("(")?;
        let mut out = [ExprId(0); N];
        for (i, slot) in out.iter_mut().enumerate() {
            if i > 0 {
                self.expect(",")?;
            }
            *slot = self.expr(1)?;
        }
        self.expect(")")?;
        Ok(out)
    }

    /// `2.5` f32, `2` i32, `2.5f64`, `2i64`, with a sign.
    fn literal(&mut self) -> Result<ExprId> {
        let negative = self.take("-");
        let word = self.peek();
        let (digits, elem) = match ELEMS.iter().find(|(_, n)| word.ends_with(n)) {
            Some((e, n)) => (word.strip_suffix(n).unwrap_or(word), *e),
            None if word.contains(['.', 'e']) => (word, Elem::F32),
            None => (word, Elem::I32),
        };
        let signed = format!("{}{digits}", if negative { "-" } else { "" });
        let bits = match elem {
            Elem::F32 => signed.parse::<f32>().ok().map(|v| v.to_bits() as u64),
            Elem::F64 => signed.parse::<f64>().ok().map(f64::to_bits),
            Elem::I32 => signed.parse::<i32>().ok().map(|v| v as u32 as u64),
            Elem::I64 => signed.parse::<i64>().ok().map(|v| v as u64),
        };
        match bits {
            Some(bits) => {
                self.next += 1;
                Ok(self.enter(Expr::Const { elem, bits }))
            }
            None => self.fail(format!("expected a number, found `{signed}`")),
        }
    }

    fn buf(&mut self) -> Result<Buf> {
        match self.buffers.get(self.peek()) {
            Some(b) => {
                self.next += 1;
                Ok(*b)
            }
            None => self.fail(format!("no buffer `{}`", self.peek())),
        }
    }
    fn local_number(&mut self) -> Result<Local> {
        let word = self.peek();
        match word.strip_prefix('l').and_then(|n| n.parse::<u16>().ok()) {
            Some(n) => {
                self.next += 1;
                Ok(Local(n as u32))
            }
            None => self.fail(format!("`{word}` is neither a local nor named by `with`")),
        }
    }
    /// `l0: f32`.
    fn local(&mut self) -> Result<Local> {
        let l = self.local_number()?;
        self.expect(":")?;
        let ty = match self.take("bool") {
            true => Ty::Bool,
            false => Ty::Num(self.named_in(ELEMS, "a type")?),
        };
        let at = l.0 as usize;
        if self.locals.len() <= at {
            self.locals.resize(at + 1, None);
        }
        match self.locals[at] {
            Some(known) if known != ty => self.fail(format!("l{at} has another type before")),
            _ => {
                self.locals[at] = Some(ty);
                Ok(l)
            }
        }
    }

    // Statements.

    /// Statements up to a closing brace, which is taken.
    fn block(&mut self) -> Result<Vec<Stmt>> {
        self.expect("{")?;
        let mut out = Vec::new();
        while !self.take("}") {
            if let Some(s) = self.stmt(&mut None)? {
                out.push(s);
            }
        }
        Ok(out)
    }

    /// A statement; `None` for an accumulation, which is appended to `accs`, and for `with`.
    fn stmt(&mut self, accs: &mut Option<Vec<Acc>>) -> Result<Option<Stmt>> {
        self.nested(|p| p.stmt_here(accs))
    }
    fn stmt_here(&mut self, accs: &mut Option<Vec<Acc>>) -> Result<Option<Stmt>> {
        let store = self.peek_at(1) == "[";
        if !store
            && let Some(accs) = accs
            && self.peek_at(1) == ":"
        {
            let local = self.local()?;
            let op = self.named_in(REDOPS, "a reduction")?;
            self.expect("=")?;
            let value = self.formula()?;
            accs.push(Acc { op, local, value });
            return Ok(None);
        }
        Ok(Some(match self.peek() {
            _ if store => {
                let buf = self.buf()?;
                let at = self.in_brackets()?;
                self.expect("=")?;
                Stmt::Store {
                    buf,
                    at,
                    value: self.formula()?,
                }
            }
            "with" => {
                self.next += 1;
                let name = self.identifier()?;
                self.expect("=")?;
                let e = self.expr(1)?;
                self.named.insert(name, e);
                return Ok(None);
            }
            "let" => {
                self.next += 1;
                let local = self.local()?;
                self.expect("=")?;
                Stmt::Let {
                    local,
                    value: self.formula()?,
                }
            }
            "for" => {
                self.next += 1;
                let (var, from, to) = self.range()?;
                Stmt::For {
                    var,
                    from,
                    to,
                    body: self.block()?,
                }
            }
            "reduce" => {
                self.next += 1;
                let (var, from, to) = self.range()?;
                self.expect("{")?;
                let (mut body, mut accs) = (Vec::new(), Some(Vec::new()));
                while !self.take("}") {
                    body.extend(self.stmt(&mut accs)?);
                }
                Stmt::Reduce {
                    var,
                    from,
                    to,
                    body,
                    accs: accs.unwrap_or_default(),
                }
            }
            "if" => {
                self.next += 1;
                let mut all = Vec::new();
                while self.peek() != "{" {
                    if !all.is_empty() {
                        self.expect("and")?;
                    }
                    all.push(self.dim()?);
                    self.expect(">=")?;
                    self.expect("0")?;
                }
                let then = self.block()?;
                let otherwise = if self.take("else") {
                    self.block()?
                } else {
                    Vec::new()
                };
                Stmt::If {
                    all,
                    then,
                    otherwise,
                }
            }
            "index" => {
                self.next += 1;
                let sym = self.sym(&SymKind::Loaded)?;
                self.expect("=")?;
                let buf = self.buf()?;
                let at = self.in_brackets()?;
                let limit = if self.take("below") {
                    Some(self.dim()?)
                } else {
                    None
                };
                self.expect("operand")?;
                Stmt::Index {
                    sym,
                    buf,
                    at,
                    limit,
                    operand: self.number()?,
                }
            }
            "contract" => self.contract()?,
            other => return self.fail(format!("expected a statement, found `{other}`")),
        }))
    }

    fn contract(&mut self) -> Result<Stmt> {
        self.expect("contract")?;
        self.expect("m")?;
        let (row, from, to) = self.range()?;
        let rows = (from, to);
        self.expect(",")?;
        self.expect("n")?;
        let (col, from, to) = self.range()?;
        let cols = (from, to);
        self.expect(",")?;
        self.expect("k")?;
        let (k, from, depth) = self.range()?;
        if !from.is_const(0) {
            return self.fail("the range of k starts at 0");
        }
        self.expect("{")?;
        self.expect("a")?;
        let a = self.buf()?;
        let a_at = self.in_brackets()?;
        self.expect("b")?;
        let buf = self.buf()?;
        let base = self.in_brackets()?;
        self.expect("row")?;
        let k_stride = self.dim()?;
        let panel = if self.take("panel") {
            let width = self.number()?;
            self.expect("step")?;
            Some((width, self.dim()?))
        } else {
            None
        };
        self.expect("epilogue")?;
        let acc = self.local()?;
        let epilogue = self.block()?;
        self.expect("}")?;
        let b = BOperand {
            buf,
            base,
            k_stride,
            panel,
        };
        Ok(Stmt::Contract(Box::new(Contract {
            row,
            rows,
            col,
            cols,
            k,
            depth,
            a,
            a_at,
            b,
            acc,
            epilogue,
        })))
    }

    // The kernel.

    fn kernel(&mut self) -> Result<()> {
        self.expect("kernel")?;
        self.k.name = self.identifier()?.to_string();
        // Offsets into scratch memory speak of parameters, which come after: read them then.
        let mut offsets = Vec::new();
        self.expect("(")?;
        while !self.take(")") {
            if !self.k.buffers.is_empty() {
                self.expect(",")?;
            }
            let name = self.identifier()?;
            self.expect(":")?;
            let mem = self.named_in(MEMS, "a type in memory")?;
            let kind = match self.word() {
                "input" => BufferKind::Input(self.number()?),
                "output" => BufferKind::Output(self.number()?),
                "scratch" => {
                    offsets.push((self.k.buffers.len(), self.next));
                    self.skip_dim();
                    BufferKind::Scratch {
                        offset: Dim::Const(0),
                    }
                }
                other => {
                    return self.fail(format!(
                        "expected input, output or scratch, found `{other}`"
                    ));
                }
            };
            let buf = Buf(self.k.buffers.len() as u32);
            if self.buffers.insert(name, buf).is_some() {
                return self.fail(format!("two buffers are named `{name}`"));
            }
            let own = name.split('#').next().unwrap_or(name).to_string();
            self.k.buffers.push(Buffer {
                name: own,
                mem,
                kind,
            });
        }
        if self.take("dims") {
            loop {
                let at = self.next;
                let number = self.tokens.get(at + 2).and_then(|t| t.1.parse().ok());
                let Some(entry) = number else {
                    return self.fail("expected a symbol and its entry, `d0 = 0`");
                };
                self.sym(&SymKind::Param(entry))?;
                self.expect("=")?;
                self.number::<u32>()?;
                if !self.take(",") {
                    break;
                }
            }
        }
        self.expect("tasks")?;
        self.k.tasks = self.dim()?;
        loop {
            if self.take("as") {
                self.sym(&SymKind::Task)?;
            } else if self.take("from") {
                self.sym(&SymKind::TaskBegin)?;
            } else {
                break;
            }
        }
        self.k.scratch_bytes = if self.take("scratch") {
            self.dim()?
        } else {
            Dim::Const(0)
        };
        if self.take("declare") {
            loop {
                match self.peek().chars().next() {
                    Some('v') => self.sym(&SymKind::Loop).map(drop)?,
                    Some('x') => self.sym(&SymKind::Loaded).map(drop)?,
                    _ => self.local().map(drop)?,
                }
                if !self.take(",") {
                    break;
                }
            }
        }
        let resume = self.next;
        for (b, at) in offsets {
            self.next = at;
            let offset = self.dim()?;
            if let Some(buffer) = self.k.buffers.get_mut(b) {
                buffer.kind = BufferKind::Scratch { offset };
            }
        }
        self.next = resume;
        self.k.body = self.block()?;
        Ok(())
    }

    /// Goes past an integer expression inside a list.
    fn skip_dim(&mut self) {
        let mut open = 0;
        loop {
            match self.peek() {
                "" => return,
                "," | ")" if open == 0 => return,
                "(" => open += 1,
                ")" => open -= 1,
                _ => {}
            }
            self.next += 1;
        }
    }

    fn schedule(&mut self) -> Result<Schedule> {
        let mut s = Schedule::default();
        if !self.take("schedule") {
            return Ok(s);
        }
        loop {
            if self.take("vector") {
                self.expect("(")?;
                loop {
                    s.vector.push(self.sym(&SymKind::Loop)?);
                    if !self.take(",") {
                        break;
                    }
                }
                self.expect(")")?;
            } else if self.take("tile") {
                self.expect("(")?;
                s.tile_rows = self.number()?;
                self.expect(",")?;
                s.tile_vectors = self.number()?;
                self.expect(")")?;
            } else {
                return Ok(s);
            }
        }
    }

    /// Numbers without gaps become the kernel's lists.
    fn finish(&mut self) -> Result<()> {
        for (i, s) in self.syms.iter().enumerate() {
            match s {
                Some(kind) => self.k.syms.push(kind.clone()),
                None => return self.fail(format!("symbol number {i} is missing: declare it")),
            }
        }
        for (i, l) in self.locals.iter().enumerate() {
            match l {
                Some(ty) => self.k.locals.push(*ty),
                None => return self.fail(format!("l{i} is never assigned: declare it")),
            }
        }
        Ok(())
    }
}
