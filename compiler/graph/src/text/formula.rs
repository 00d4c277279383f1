//! Pointwise bodies as formulas: `let t0 = a + b in t0 * sigmoid(t0)`.
//!
//! Inputs are `a`, `b`, `c`, …; a shared subexpression is a `let`. A literal with a point is f32, one
//! without is i64, `true` and `false` are bool; others carry their type: `3:i32`. A cast is a call of
//! the type's name, a cast of the bits of `bits_<type>`.

use super::ParseError;
use super::lexer::Token;
use super::literal;
use super::parse::Parser;
use crate::{DType, Graph, Pointwise, PwNode, PwOp, PwRef, Scalar};
use std::collections::HashMap;

/// Name of input `i` in formulas.
pub(super) fn input_name(i: u32) -> String {
    match i {
        0..26 => char::from(b'a' + i as u8).to_string(),
        _ => format!("in{i}"),
    }
}

/// Operators between operands, with what binds tighter later.
const INFIX: [(&str, u8, PwOp); 14] = [
    ("|", 1, PwOp::Or),
    ("^", 2, PwOp::Xor),
    ("&", 3, PwOp::And),
    ("==", 4, PwOp::Eq),
    ("<=", 4, PwOp::Le),
    (">=", 4, PwOp::Ge),
    ("<", 4, PwOp::Lt),
    (">", 4, PwOp::Gt),
    ("<<", 5, PwOp::Shl),
    (">>", 5, PwOp::Shr),
    ("+", 6, PwOp::Add),
    ("-", 6, PwOp::Sub),
    ("*", 7, PwOp::Mul),
    ("/", 7, PwOp::Div),
];
const UNARY: u8 = 8;
const LEAF: u8 = 9;

/// Operations written as calls.
const CALLS: [(&str, PwOp); 31] = [
    ("neg", PwOp::Neg),
    ("abs", PwOp::Abs),
    ("sign", PwOp::Sign),
    ("sqrt", PwOp::Sqrt),
    ("reciprocal", PwOp::Reciprocal),
    ("floor", PwOp::Floor),
    ("ceil", PwOp::Ceil),
    ("round", PwOp::Round),
    ("exp", PwOp::Exp),
    ("log", PwOp::Log),
    ("sin", PwOp::Sin),
    ("cos", PwOp::Cos),
    ("tan", PwOp::Tan),
    ("asin", PwOp::Asin),
    ("acos", PwOp::Acos),
    ("atan", PwOp::Atan),
    ("sinh", PwOp::Sinh),
    ("cosh", PwOp::Cosh),
    ("tanh", PwOp::Tanh),
    ("asinh", PwOp::Asinh),
    ("acosh", PwOp::Acosh),
    ("atanh", PwOp::Atanh),
    ("erf", PwOp::Erf),
    ("sigmoid", PwOp::Sigmoid),
    ("isnan", PwOp::IsNan),
    ("isinf", PwOp::IsInf),
    ("mod", PwOp::Mod),
    ("fmod", PwOp::Fmod),
    ("pow", PwOp::Pow),
    ("min", PwOp::Min),
    ("max", PwOp::Max),
];

struct Printer<'a> {
    graph: &'a Graph,
    body: &'a Pointwise,
    /// Names of nodes bound by `let`.
    bound: HashMap<u32, String>,
}

/// The body as text.
pub(super) fn print(graph: &Graph, body: &Pointwise) -> String {
    let n = body.nodes.len();
    let (mut uses, mut depth) = (vec![0u32; n], vec![0u32; n]);
    let mut live = vec![false; n];
    if let Some(last) = live.last_mut() {
        *last = true;
    }
    for i in (0..n).rev() {
        if live[i] {
            for a in &body.nodes[i].args {
                if let Some(u) = uses.get_mut(a.0 as usize) {
                    *u += 1;
                    live[a.0 as usize] = true;
                }
            }
        }
    }
    let mut p = Printer {
        graph,
        body,
        bound: HashMap::new(),
    };
    let mut out = String::new();
    for i in 0..n {
        let node = &body.nodes[i];
        let below = node.args.iter().filter_map(|a| depth.get(a.0 as usize));
        depth[i] = 1 + below.max().copied().unwrap_or(0);
        // Long chains are cut, so that no reader has to recurse far.
        let shared = uses[i] > 1 || depth[i] >= 48;
        if live[i] && shared && !node.args.is_empty() && i + 1 < n {
            depth[i] = 1;
            let name = format!("t{}", p.bound.len());
            out.push_str(&format!("let {name} = {} in ", p.node(i as u32).0));
            p.bound.insert(i as u32, name);
        }
    }
    if n > 0 {
        out.push_str(&p.node(n as u32 - 1).0);
    }
    out
}

impl Printer<'_> {
    fn operand(&self, r: PwRef, tightness: u8) -> String {
        let (text, own) = match self.bound.get(&r.0) {
            Some(name) => (name.clone(), LEAF),
            None => self.node(r.0),
        };
        if own < tightness {
            format!("({text})")
        } else {
            text
        }
    }
    fn node(&self, i: u32) -> (String, u8) {
        let Some(n) = self.body.nodes.get(i as usize) else {
            return ("?".into(), LEAF);
        };
        if let ([a, b], Some((mark, level, _))) =
            (n.args.as_slice(), INFIX.iter().find(|f| f.2 == n.op))
        {
            let (a, b) = (self.operand(*a, *level), self.operand(*b, level + 1));
            return (format!("{a} {mark} {b}"), *level);
        }
        let args: Vec<String> = n.args.iter().map(|a| self.operand(*a, 0)).collect();
        let call = |name: &str| (format!("{name}({})", args.join(", ")), LEAF);
        match &n.op {
            PwOp::Input(k) => (input_name(*k), LEAF),
            PwOp::Const(s) => literal_text(*s),
            PwOp::Index(axis) => (format!("index({axis})"), LEAF),
            PwOp::Dim(d) => (format!("dim({})", super::print::dim(self.graph, d)), LEAF),
            PwOp::Neg | PwOp::Not => {
                let mark = if n.op == PwOp::Neg { "-" } else { "!" };
                let text = n.args.first().map(|a| self.operand(*a, UNARY));
                match text {
                    // `-1.0` is a literal, so the operation on one is a call.
                    Some(t)
                        if mark == "!"
                            || t.starts_with(|c: char| c.is_alphabetic() || c == '(') =>
                    {
                        (format!("{mark}{t}"), UNARY)
                    }
                    _ => call("neg"),
                }
            }
            PwOp::Select => call("select"),
            PwOp::Cast => call(n.dtype.name()),
            PwOp::Bitcast => call(&format!("bits_{}", n.dtype.name())),
            op => match CALLS.iter().find(|c| c.1 == *op) {
                Some((name, _)) => call(name),
                None => ("?".into(), LEAF),
            },
        }
    }
}

fn literal_text(s: Scalar) -> (String, u8) {
    let text = literal::scalar(s);
    let plain = match s.dtype {
        DType::Bool => s.bits < 2,
        DType::I64 => true,
        DType::F32 => !text.starts_with("0x"),
        _ => false,
    };
    let level = if text.starts_with('-') { UNARY } else { LEAF };
    if plain {
        (text, level)
    } else {
        (format!("{text}:{}", s.dtype), level)
    }
}

/// A formula being read.
pub(super) struct Reader<'a> {
    nodes: Vec<PwNode>,
    names: HashMap<String, PwRef>,
    inputs: &'a [DType],
}

/// Reads a formula over inputs of these types.
pub(super) fn parse(p: &mut Parser, inputs: &[DType]) -> Result<Pointwise, ParseError> {
    let mut r = Reader {
        nodes: Vec::new(),
        names: HashMap::new(),
        inputs,
    };
    while p.word_is("let") {
        p.bump();
        let name = p.word()?;
        p.mark("=")?;
        let value = r.expression(p, 0)?;
        if !p.word_is("in") {
            return Err(p.expected("'in'"));
        }
        p.bump();
        r.names.insert(name, value);
    }
    let result = r.expression(p, 0)?;
    let builder = crate::PwBuilder { nodes: r.nodes };
    Ok(builder.finish_at(result, inputs.len() as u32))
}

impl Reader<'_> {
    fn leaf(&mut self, op: PwOp, dtype: DType) -> PwRef {
        let node = PwNode {
            op,
            args: Vec::new(),
            dtype,
        };
        match self.nodes.iter().position(|n| *n == node) {
            Some(i) => PwRef(i as u32),
            None => self.push(node),
        }
    }
    fn push(&mut self, node: PwNode) -> PwRef {
        self.nodes.push(node);
        PwRef(self.nodes.len() as u32 - 1)
    }
    fn apply(&mut self, op: PwOp, args: Vec<PwRef>) -> PwRef {
        let of = |i: usize| {
            args.get(i)
                .and_then(|a| self.nodes.get(a.0 as usize))
                .map_or(DType::F32, |n| n.dtype)
        };
        let dtype = match op {
            PwOp::Eq | PwOp::Lt | PwOp::Le | PwOp::Gt | PwOp::Ge | PwOp::IsNan | PwOp::IsInf => {
                DType::Bool
            }
            PwOp::Select => of(1),
            _ => of(0),
        };
        self.push(PwNode { op, args, dtype })
    }
    fn expression(&mut self, p: &mut Parser, least: u8) -> Result<PwRef, ParseError> {
        p.enter()?;
        let mut left = self.unary(p)?;
        while let Token::Mark(m) = p.peek() {
            let Some((_, level, op)) = INFIX.iter().find(|f| f.0 == *m && f.1 >= least) else {
                break;
            };
            p.bump();
            let right = self.expression(p, level + 1)?;
            left = self.apply(op.clone(), vec![left, right]);
        }
        p.leave();
        Ok(left)
    }
    fn unary(&mut self, p: &mut Parser) -> Result<PwRef, ParseError> {
        p.enter()?;
        let r = match p.peek().clone() {
            Token::Mark("-") => {
                p.bump();
                match p.peek().clone() {
                    Token::Number(n) => {
                        p.bump();
                        self.number(p, &format!("-{n}"))?
                    }
                    Token::Word(w) if w == "inf" => {
                        p.bump();
                        self.number(p, "-inf")?
                    }
                    _ => {
                        let a = self.unary(p)?;
                        self.apply(PwOp::Neg, vec![a])
                    }
                }
            }
            Token::Mark("!") => {
                p.bump();
                let a = self.unary(p)?;
                self.apply(PwOp::Not, vec![a])
            }
            Token::Mark("(") => {
                p.bump();
                let a = self.expression(p, 0)?;
                p.mark(")")?;
                a
            }
            Token::Number(n) => {
                p.bump();
                self.number(p, &n)?
            }
            Token::Word(w) => {
                p.bump();
                self.word(p, &w)?
            }
            _ => return Err(p.expected("an expression")),
        };
        p.leave();
        Ok(r)
    }
    fn number(&mut self, p: &mut Parser, text: &str) -> Result<PwRef, ParseError> {
        let dtype = if p.mark_is(":") {
            p.bump();
            p.dtype()?
        } else if text == "true" || text == "false" {
            DType::Bool
        } else if text.contains(['.', 'e', 'n']) && !text.starts_with("0x") {
            DType::F32
        } else {
            DType::I64
        };
        match literal::parse_scalar(text, dtype) {
            Some(s) => Ok(self.leaf(PwOp::Const(s), dtype)),
            None => Err(p.error(format!("'{text}' is no {dtype}"))),
        }
    }
    fn word(&mut self, p: &mut Parser, w: &str) -> Result<PwRef, ParseError> {
        if !p.mark_is("(") {
            if let Some(r) = self.names.get(w) {
                return Ok(*r);
            }
            if matches!(w, "true" | "false" | "inf" | "nan") {
                return self.number(p, w);
            }
            return match (0..self.inputs.len()).find(|i| input_name(*i as u32) == w) {
                Some(i) => Ok(self.leaf(PwOp::Input(i as u32), self.inputs[i])),
                None => Err(p.error(format!("unknown name '{w}'"))),
            };
        }
        p.bump();
        if w == "index" {
            let axis = p.int()?;
            p.mark(")")?;
            return Ok(self.leaf(PwOp::Index(axis as u32), DType::I64));
        }
        if w == "dim" {
            let d = p.dim()?;
            p.mark(")")?;
            return Ok(self.leaf(PwOp::Dim(d), DType::I64));
        }
        let mut args = Vec::new();
        while !p.mark_is(")") {
            args.push(self.expression(p, 0)?);
            if !p.mark_is(")") {
                p.mark(",")?;
            }
        }
        p.bump();
        let (op, to) = if w == "select" {
            (PwOp::Select, None)
        } else if let Some(t) = DType::from_name(w) {
            (PwOp::Cast, Some(t))
        } else if let Some(t) = w.strip_prefix("bits_").and_then(DType::from_name) {
            (PwOp::Bitcast, Some(t))
        } else if let Some((_, op)) = CALLS.iter().find(|c| c.0 == w) {
            (op.clone(), None)
        } else {
            return Err(p.error(format!("unknown function '{w}'")));
        };
        if args.len() != op.arity() {
            let (n, found) = (op.arity(), args.len());
            return Err(p.error(format!("{w} takes {n} operands, found {found}")));
        }
        Ok(match to {
            Some(dtype) => self.push(PwNode { op, args, dtype }),
            None => self.apply(op, args),
        })
    }
}
