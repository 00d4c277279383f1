//! The parser: recursive descent over the lexemes, building the graph as it goes.

use super::lexer::{Lexeme, Token, lex};
use super::{ParseError, attrs, formula, literal};
use crate::op::{Body, BodyArg};
use crate::{
    Container, DType, Def, Dim, EntityRef, Graph, NodeId, Op, Scalar, State, Store, Sym,
    SymbolOrigin, TensorData, TensorType, ValueData, ValueId,
};
use std::collections::HashMap;

/// Nesting that a reader follows before it gives up.
const DEPTH: usize = 200;
/// Constants of a text may not be larger than this many elements.
const LARGEST: usize = 1 << 28;

pub(super) struct Parser {
    lexemes: Vec<Lexeme>,
    at: usize,
    depth: usize,
    open: Open,
}

/// The graph or body being read, and the names in it.
#[derive(Default)]
struct Open {
    symbols: HashMap<String, Sym>,
    /// Symbols whose origin is not known yet.
    unbound: Vec<bool>,
    values: HashMap<(String, u32), ValueId>,
    graph: Graph,
}

/// Reads a graph; the result is not verified.
pub fn parse(text: &str) -> Result<Graph, ParseError> {
    let mut p = Parser {
        lexemes: lex(text)?,
        at: 0,
        depth: 0,
        open: Open::default(),
    };
    p.keyword("graph")?;
    p.open.graph.name = p.quoted_text()?;
    p.block()?;
    match p.peek() {
        Token::End => Ok(p.open.graph),
        _ => Err(p.expected("the end")),
    }
}

// Pieces that the readers of attributes and formulas share.
impl Parser {
    pub(super) fn peek(&self) -> &Token {
        self.ahead(0)
    }
    fn ahead(&self, n: usize) -> &Token {
        match self.lexemes.get(self.at + n) {
            Some(l) => &l.token,
            None => &Token::End,
        }
    }
    pub(super) fn bump(&mut self) {
        self.at = (self.at + 1).min(self.lexemes.len());
    }
    pub(super) fn error(&self, problem: impl Into<String>) -> ParseError {
        let at = self.lexemes.get(self.at).or(self.lexemes.last());
        ParseError {
            line: at.map_or(1, |l| l.line),
            column: at.map_or(1, |l| l.column),
            problem: problem.into(),
        }
    }
    pub(super) fn expected(&self, what: &str) -> ParseError {
        let found = match self.peek() {
            Token::Word(w) | Token::Number(w) => format!("'{w}'"),
            Token::Mark(m) => format!("'{m}'"),
            Token::Value(v, _) => format!("value '{v}'"),
            Token::Quoted(_) => "a string".into(),
            Token::Hash(_) => "'#'".into(),
            Token::Comment(_) => "a comment".into(),
            Token::End => "the end".into(),
        };
        self.error(format!("expected {what}, found {found}"))
    }
    pub(super) fn enter(&mut self) -> Result<(), ParseError> {
        self.depth += 1;
        match self.depth > DEPTH {
            true => Err(self.error("nested too deeply")),
            false => Ok(()),
        }
    }
    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }
    pub(super) fn mark_is(&self, mark: &str) -> bool {
        matches!(self.peek(), Token::Mark(m) if *m == mark)
    }
    pub(super) fn mark(&mut self, mark: &str) -> Result<(), ParseError> {
        if !self.mark_is(mark) {
            return Err(self.expected(&format!("'{mark}'")));
        }
        self.bump();
        Ok(())
    }
    pub(super) fn word_is(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Word(w) if w == word)
    }
    pub(super) fn word(&mut self) -> Result<String, ParseError> {
        match self.peek().clone() {
            Token::Word(w) => {
                self.bump();
                Ok(w)
            }
            _ => Err(self.expected("a word")),
        }
    }
    fn keyword(&mut self, word: &str) -> Result<(), ParseError> {
        if !self.word_is(word) {
            return Err(self.expected(&format!("'{word}'")));
        }
        self.bump();
        Ok(())
    }
    pub(super) fn quoted(&mut self) -> Result<Vec<u8>, ParseError> {
        match self.peek().clone() {
            Token::Quoted(s) => {
                self.bump();
                Ok(s)
            }
            _ => Err(self.expected("a string")),
        }
    }
    fn quoted_text(&mut self) -> Result<String, ParseError> {
        Ok(String::from_utf8_lossy(&self.quoted()?).into_owned())
    }
    /// Whether a list of strings comes next.
    pub(super) fn quoted_in_list(&self) -> bool {
        matches!(self.ahead(1), Token::Quoted(_))
    }
    pub(super) fn dtype(&mut self) -> Result<DType, ParseError> {
        let w = self.word()?;
        DType::from_name(&w).ok_or_else(|| self.error(format!("unknown element type '{w}'")))
    }
    pub(super) fn int(&mut self) -> Result<i64, ParseError> {
        let s = self.scalar(DType::I64)?;
        Ok(s.bits as i64)
    }
    /// A literal of a known type.
    pub(super) fn scalar(&mut self, dtype: DType) -> Result<Scalar, ParseError> {
        let mut text = String::new();
        if self.mark_is("-") {
            self.bump();
            text.push('-');
        }
        match self.peek() {
            Token::Number(w) | Token::Word(w) => text.push_str(w),
            _ => return Err(self.expected("a number")),
        }
        let Some(s) = literal::parse_scalar(&text, dtype) else {
            return Err(self.error(format!("'{text}' is no {dtype}")));
        };
        self.bump();
        Ok(s)
    }
    /// `[item, item, …]`.
    pub(super) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Parser) -> Result<T, ParseError>,
    ) -> Result<Vec<T>, ParseError> {
        self.mark("[")?;
        let mut out = Vec::new();
        while !self.mark_is("]") {
            out.push(item(self)?);
            if !self.mark_is("]") {
                self.mark(",")?;
            }
        }
        self.bump();
        Ok(out)
    }
    fn has_key(&self, key: &str) -> bool {
        self.word_is(key) && *self.ahead(1) == Token::Mark(":")
    }
    /// `key: value` and the comma behind it.
    pub(super) fn attr<T>(
        &mut self,
        key: &str,
        value: impl FnOnce(&mut Parser) -> Result<T, ParseError>,
    ) -> Result<T, ParseError> {
        if !self.has_key(key) {
            return Err(self.expected(&format!("attribute '{key}'")));
        }
        self.bump();
        self.bump();
        let v = value(self)?;
        if self.mark_is(",") {
            self.bump();
        }
        Ok(v)
    }
    /// The same for an attribute that may be left out.
    pub(super) fn attr_or<T>(
        &mut self,
        key: &str,
        value: impl FnOnce(&mut Parser) -> Result<T, ParseError>,
        default: T,
    ) -> Result<T, ParseError> {
        match self.has_key(key) {
            true => self.attr(key, value),
            false => Ok(default),
        }
    }
    pub(super) fn dims(&mut self) -> Result<Vec<Dim>, ParseError> {
        self.list(Parser::dim)
    }
    /// A sum of products.
    pub(super) fn dim(&mut self) -> Result<Dim, ParseError> {
        self.enter()?;
        let mut sum = self.product()?;
        loop {
            let minus = self.mark_is("-");
            if !minus && !self.mark_is("+") {
                break;
            }
            self.bump();
            let d = self.product()?;
            sum = if minus { sum.sub(&d) } else { sum.add(&d) };
        }
        self.leave();
        Ok(sum)
    }
    fn product(&mut self) -> Result<Dim, ParseError> {
        let mut out = self.factor()?;
        while self.mark_is("*") {
            self.bump();
            out = out.mul(&self.factor()?);
        }
        Ok(out)
    }
    fn factor(&mut self) -> Result<Dim, ParseError> {
        match self.peek().clone() {
            Token::Mark("-") => {
                self.bump();
                self.enter()?;
                let d = self.factor()?.neg();
                self.leave();
                Ok(d)
            }
            Token::Mark("(") => {
                self.bump();
                let d = self.dim()?;
                self.mark(")")?;
                Ok(d)
            }
            Token::Number(_) => Ok(Dim::Const(self.int()?)),
            Token::Quoted(_) => {
                let name = self.quoted_text()?;
                self.symbol_named(&name)
            }
            Token::Word(w) if *self.ahead(1) == Token::Mark("(") => {
                self.bump();
                self.bump();
                let a = self.dim()?;
                self.mark(",")?;
                let b = self.dim()?;
                self.mark(")")?;
                match w.as_str() {
                    "floordiv" => Ok(a.floor_div(&b)),
                    "ceildiv" => Ok(a.ceil_div(&b)),
                    "mod" => Ok(a.modulo(&b)),
                    "min" => Ok(a.minimum(&b)),
                    "max" => Ok(a.maximum(&b)),
                    "broadcast" => a
                        .broadcast(&b)
                        .ok_or_else(|| self.error(format!("{a} and {b} cannot be broadcast"))),
                    _ => Err(self.error(format!("unknown function '{w}' of dimensions"))),
                }
            }
            Token::Word(w) => {
                let d = self.symbol_named(&w)?;
                self.bump();
                Ok(d)
            }
            _ => Err(self.expected("a dimension")),
        }
    }
    fn symbol_named(&self, name: &str) -> Result<Dim, ParseError> {
        match self.open.symbols.get(name) {
            Some(s) => Ok(Dim::from(*s)),
            None => Err(self.error(format!("symbol '{name}' is not in the header"))),
        }
    }
}

impl Parser {
    /// The symbols of a graph or body and what stands in its braces.
    fn block(&mut self) -> Result<(), ParseError> {
        self.list(Parser::symbol)?;
        self.mark("{")?;
        while !self.mark_is("}") {
            self.statement()?;
        }
        self.bump();
        Ok(())
    }
    /// `{ body … }` behind the operands of a region.
    fn bodies(&mut self) -> Result<Vec<Body>, ParseError> {
        self.mark("{")?;
        let mut bodies = Vec::new();
        while !self.mark_is("}") {
            bodies.push(self.body()?);
        }
        self.bump();
        Ok(bodies)
    }
    /// `body "name" (0, own) [symbols] { … }`, with names of its own.
    fn body(&mut self) -> Result<Body, ParseError> {
        self.enter()?;
        self.keyword("body")?;
        let name = self.quoted_text()?;
        self.mark("(")?;
        let mut args = Vec::new();
        while !self.mark_is(")") {
            args.push(match self.word_is("own") {
                true => {
                    self.bump();
                    BodyArg::Own
                }
                false => {
                    let operand = self.int()?;
                    let operand = usize::try_from(operand);
                    BodyArg::Operand(operand.map_err(|_| self.error("a negative operand"))?)
                }
            });
            if !self.mark_is(")") {
                self.mark(",")?;
            }
        }
        self.bump();
        let around = std::mem::take(&mut self.open);
        self.open.graph.name = name;
        self.block()?;
        let graph = std::mem::replace(&mut self.open, around).graph;
        self.leave();
        Ok(Body { graph, args })
    }
    fn symbol(&mut self) -> Result<(), ParseError> {
        let name = match self.peek() {
            Token::Quoted(_) => self.quoted_text()?,
            _ => self.word()?,
        };
        let mut origin = SymbolOrigin::Node {
            node: NodeId(u32::MAX),
            output: 0,
            axis: 0,
        };
        let stated = self.mark_is("=");
        if stated {
            self.bump();
            let kind = self.word()?;
            let mut numbers = Vec::new();
            if self.mark_is("(") {
                self.bump();
                while !self.mark_is(")") {
                    numbers.push(self.int()? as u32);
                    if !self.mark_is(")") {
                        self.mark(",")?;
                    }
                }
                self.bump();
            }
            origin = match (kind.as_str(), numbers.as_slice()) {
                ("gone", []) => origin,
                ("input", [input, axis]) => SymbolOrigin::Input {
                    input: *input,
                    axis: *axis,
                },
                ("node", [node, output, axis]) => SymbolOrigin::Node {
                    node: NodeId(*node),
                    output: *output,
                    axis: *axis,
                },
                _ => {
                    return Err(
                        self.error("expected input(i, axis), node(i, output, axis) or gone")
                    );
                }
            };
        }
        let s = self.open.graph.add_symbol(name.clone(), origin);
        self.open.unbound.push(!stated);
        if self.open.symbols.insert(name.clone(), s).is_some() {
            return Err(self.error(format!("symbol '{name}' twice")));
        }
        Ok(())
    }
    /// Binds the symbols that are whole dimensions of `ty` and have no origin yet.
    fn bind(&mut self, ty: &TensorType, origin: impl Fn(u32) -> SymbolOrigin) {
        for (axis, d) in ty.dims().iter().enumerate() {
            if let Some(s) = d.as_sym()
                && let Some(unbound) = self.open.unbound.get_mut(s.index())
                && std::mem::take(unbound)
            {
                self.open.graph.symbols[s].origin = origin(axis as u32);
            }
        }
    }
    fn value_name(&mut self) -> Result<(String, u32), ParseError> {
        match self.peek().clone() {
            Token::Value(name, n) => {
                self.bump();
                Ok((name, n))
            }
            _ => Err(self.expected("a value")),
        }
    }
    fn value(&mut self) -> Result<ValueId, ParseError> {
        let key = self.value_name()?;
        match self.open.values.get(&key) {
            Some(v) => Ok(*v),
            None => {
                self.at -= 1;
                Err(self.error(format!("value '{}' is not defined above", key.0)))
            }
        }
    }
    fn operand(&mut self) -> Result<Option<ValueId>, ParseError> {
        if self.word_is("_") {
            self.bump();
            return Ok(None);
        }
        self.value().map(Some)
    }
    fn define(&mut self, key: (String, u32), v: ValueId) -> Result<(), ParseError> {
        let name = key.0.clone();
        match self.open.values.insert(key, v) {
            None => Ok(()),
            Some(_) => Err(self.error(format!("value '{name}' twice"))),
        }
    }
    fn typed_name(&mut self) -> Result<((String, u32), TensorType), ParseError> {
        let key = self.value_name()?;
        self.mark(":")?;
        Ok((key, self.ty()?))
    }
    /// `f32[n, 3]`, `f32[*]`, or a container of one: `seq(…)`, `opt(…)`, `map(key, …)`.
    fn ty(&mut self) -> Result<TensorType, ParseError> {
        if *self.ahead(1) == Token::Mark("(") {
            self.enter()?;
            let word = self.word()?;
            self.bump();
            let container = match word.as_str() {
                "seq" => Container::Sequence,
                "opt" => Container::Optional,
                "map" => {
                    let key = self.dtype()?;
                    self.mark(",")?;
                    Container::Map(key)
                }
                _ => return Err(self.error(format!("unknown container '{word}'"))),
            };
            let inner = self.ty()?;
            self.mark(")")?;
            self.leave();
            return Ok(inner.inside(container));
        }
        let dtype = self.dtype()?;
        let shape = if *self.ahead(1) == Token::Mark("*") {
            self.mark("[")?;
            self.bump();
            self.mark("]")?;
            None
        } else {
            Some(self.dims()?)
        };
        Ok(TensorType {
            dtype,
            shape,
            containers: Vec::new(),
        })
    }
    fn statement(&mut self) -> Result<(), ParseError> {
        if matches!(self.peek(), Token::Value(..)) {
            return self.node();
        }
        match self.word()?.as_str() {
            "input" => {
                let (key, ty) = self.typed_name()?;
                let input = self.open.graph.inputs.len() as u32;
                self.bind(&ty, |axis| SymbolOrigin::Input { input, axis });
                let v = self.open.graph.add_input(key.0.clone(), ty);
                self.define(key, v)?;
            }
            "const" => {
                let (key, ty) = self.typed_name()?;
                self.mark("=")?;
                let data = self.data(&ty)?;
                let v = self.open.graph.values.push(ValueData {
                    name: key.0.clone(),
                    ty,
                    def: Def::Const(data),
                });
                self.define(key, v)?;
            }
            "default" => {
                let input = self.value()?;
                let v = self.value()?;
                let Def::Input(input) = self.open.graph.values[input].def else {
                    return Err(self.error("only an input has a default"));
                };
                self.open.graph.defaults.push((input, v));
            }
            "output" => {
                let name = self.quoted_text()?;
                let v = self.value()?;
                self.open.graph.outputs.push((name, v));
            }
            "state" => self.state()?,
            other => {
                self.at -= 1;
                return Err(self.error(format!("unknown statement '{other}'")));
            }
        }
        self.comment();
        Ok(())
    }
    /// `state %past "present" axis 2 store %memory [batch, past + seq]`; no axis or store where there is none.
    fn state(&mut self) -> Result<(), ParseError> {
        let input = self.input_number()?;
        let name = self.quoted_text()?;
        let outputs = &self.open.graph.outputs;
        let Some(output) = outputs.iter().position(|(o, _)| *o == name) else {
            return Err(self.error(format!("there is no output '{name}' above")));
        };
        let mut state = State {
            input,
            output: output as u32,
            axis: None,
            store: None,
        };
        if self.word_is("axis") {
            self.bump();
            let axis = u32::try_from(self.int()?);
            state.axis = Some(axis.map_err(|_| self.error("an axis is not negative"))?);
        }
        if self.word_is("store") {
            self.bump();
            state.store = Some(Store {
                input: self.input_number()?,
                dims: self.dims()?,
            });
        }
        self.open.graph.states.push(state);
        Ok(())
    }
    fn input_number(&mut self) -> Result<u32, ParseError> {
        let v = self.value()?;
        match self.open.graph.values[v].def {
            Def::Input(input) => Ok(input),
            _ => Err(self.error("expected an input")),
        }
    }
    fn comment(&mut self) -> Option<String> {
        match self.peek().clone() {
            Token::Comment(c) => {
                self.bump();
                Some(c)
            }
            _ => None,
        }
    }
    fn node(&mut self) -> Result<(), ParseError> {
        let mut results = Vec::new();
        loop {
            results.push(self.typed_name()?);
            if !self.mark_is(",") {
                break;
            }
            self.bump();
        }
        self.mark("=")?;
        let name = self.word()?;
        let (op, inputs) = if name == "pointwise" {
            self.pointwise()?
        } else {
            let mut op = attrs::parse(self, &name)?;
            let inputs = self.operands()?;
            if let Op::Region(region) = &mut op {
                region.bodies = self.bodies()?;
            }
            (op, inputs)
        };
        let origin = match self.comment() {
            Some(c) => c.split(" | ").map(str::to_string).collect(),
            None => Vec::new(),
        };
        let node = NodeId(self.open.graph.nodes.len() as u32);
        for (output, (_, ty)) in results.iter().enumerate() {
            let output = output as u32;
            self.bind(ty, |axis| SymbolOrigin::Node { node, output, axis });
        }
        let (keys, types): (Vec<_>, Vec<_>) = results.into_iter().unzip();
        let names = keys.iter().map(|k| k.0.clone());
        let outputs = names.zip(types).collect();
        let id = self.open.graph.add_node(op, inputs, outputs, origin);
        let values = self.open.graph.nodes[id].outputs.clone();
        for (key, v) in keys.into_iter().zip(values) {
            self.define(key, v)?;
        }
        Ok(())
    }
    /// Inputs behind the operator; they end with the line, unless a comma is the last on it.
    fn operands(&mut self) -> Result<Vec<Option<ValueId>>, ParseError> {
        let mut inputs = Vec::new();
        let first = self.lexemes.get(self.at).is_none_or(|l| l.first);
        if first || matches!(self.peek(), Token::Comment(_) | Token::Mark(_) | Token::End) {
            return Ok(inputs);
        }
        loop {
            inputs.push(self.operand()?);
            if !self.mark_is(",") {
                return Ok(inputs);
            }
            self.bump();
        }
    }
    fn pointwise(&mut self) -> Result<(Op, Vec<Option<ValueId>>), ParseError> {
        let mut shape = None;
        if self.mark_is("{") {
            self.bump();
            shape = Some(self.attr("shape", Parser::dims)?);
            self.mark("}")?;
        }
        self.mark("(")?;
        let (mut inputs, mut types) = (Vec::new(), Vec::new());
        while !self.mark_is(")") {
            let name = self.word()?;
            if name != formula::input_name(inputs.len() as u32) {
                let expected = formula::input_name(inputs.len() as u32);
                return Err(self.error(format!("inputs are named in order: expected {expected}")));
            }
            self.mark("=")?;
            let v = self.operand()?;
            types.push(v.map_or(DType::F32, |v| self.open.graph.ty(v).dtype));
            inputs.push(v);
            if !self.mark_is(")") {
                self.mark(",")?;
            }
        }
        self.bump();
        self.mark("=>")?;
        let body = formula::parse(self, &types)?;
        Ok((Op::Pointwise { body, shape }, inputs))
    }
    fn data(&mut self, ty: &TensorType) -> Result<TensorData, ParseError> {
        let dims = ty.const_dims();
        let count = dims.as_ref().and_then(|d| {
            let size = |n: usize, d: &i64| n.checked_mul(usize::try_from(*d).ok()?);
            d.iter().try_fold(1, size)
        });
        let (Some(dims), Some(count)) = (dims, count.filter(|c| *c <= LARGEST)) else {
            return Err(self.error("a constant has numbers as dimensions, and few enough elements"));
        };
        let dtype = ty.dtype;
        match self.peek().clone() {
            Token::Hash(h) => {
                self.bump();
                let seed = u64::from_str_radix(&h, 16)
                    .map_err(|_| self.error(format!("'{h}' is no hexadecimal number")))?;
                Ok(literal::random(dtype, dims, count, seed))
            }
            Token::Word(w) if w == "splat" || w == "random" => {
                self.bump();
                self.mark("(")?;
                let data = if w == "splat" {
                    let v = self.scalar(dtype)?;
                    literal::tensor(dtype, dims, &vec![v; count])
                } else {
                    let seed = self.int()? as u64;
                    literal::random(dtype, dims, count, seed)
                };
                self.mark(")")?;
                Ok(data)
            }
            _ if dtype == DType::String => {
                let strings = self.list(|p| Ok(p.quoted()?.into()))?;
                self.counted(count, strings.len())?;
                Ok(TensorData {
                    dtype,
                    dims,
                    bytes: Default::default(),
                    strings,
                })
            }
            _ => {
                let scalars = self.list(|p| p.scalar(dtype))?;
                self.counted(count, scalars.len())?;
                Ok(literal::tensor(dtype, dims, &scalars))
            }
        }
    }
    fn counted(&self, expected: usize, found: usize) -> Result<(), ParseError> {
        match expected == found {
            true => Ok(()),
            false => Err(self.error(format!("expected {expected} elements, found {found}"))),
        }
    }
}
