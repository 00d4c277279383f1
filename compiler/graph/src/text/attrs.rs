//! Attributes of operators, both ways. Keys stand in a fixed order; those at their usual value are
//! left out.

use super::literal::{self, list, quoted};
use super::parse::Parser;
use super::{ParseError, print};
use crate::op::{
    AttentionAttrs, Layout, LibraryCall, NormKind, PadMode, PoolKind, ReduceKind, Region,
    RegionKind, ScatterReduce, Window,
};
use crate::tree::{Labels, PostTransform, TreeAggregate, TreeEnsemble, TreeNode, TreeTest};
use crate::{DType, Dim, Graph, Op, Scalar};
use std::sync::Arc;

const REDUCE: [(&str, ReduceKind); 12] = [
    ("sum", ReduceKind::Sum),
    ("mean", ReduceKind::Mean),
    ("max", ReduceKind::Max),
    ("min", ReduceKind::Min),
    ("prod", ReduceKind::Prod),
    ("sum_square", ReduceKind::SumSquare),
    ("l1", ReduceKind::L1),
    ("l2", ReduceKind::L2),
    ("log_sum", ReduceKind::LogSum),
    ("log_sum_exp", ReduceKind::LogSumExp),
    ("and", ReduceKind::And),
    ("or", ReduceKind::Or),
];
const PAD: [(&str, PadMode); 4] = [
    ("constant", PadMode::Constant),
    ("edge", PadMode::Edge),
    ("reflect", PadMode::Reflect),
    ("wrap", PadMode::Wrap),
];
const SCATTER: [(&str, ScatterReduce); 5] = [
    ("set", ScatterReduce::Set),
    ("add", ScatterReduce::Add),
    ("mul", ScatterReduce::Mul),
    ("min", ScatterReduce::Min),
    ("max", ScatterReduce::Max),
];
const NORM: [(&str, NormKind); 2] = [("layer", NormKind::Layer), ("rms", NormKind::Rms)];
const LAYOUT: [(&str, Layout); 2] = [
    ("channels_first", Layout::ChannelsFirst),
    ("channels_last", Layout::ChannelsLast),
];
const TEST: [(&str, TreeTest); 6] = [
    ("le", TreeTest::Le),
    ("lt", TreeTest::Lt),
    ("ge", TreeTest::Ge),
    ("gt", TreeTest::Gt),
    ("eq", TreeTest::Eq),
    ("ne", TreeTest::Ne),
];
const AGGREGATE: [(&str, TreeAggregate); 4] = [
    ("sum", TreeAggregate::Sum),
    ("average", TreeAggregate::Average),
    ("min", TreeAggregate::Min),
    ("max", TreeAggregate::Max),
];
const POST: [(&str, PostTransform); 5] = [
    ("none", PostTransform::None),
    ("softmax", PostTransform::Softmax),
    ("logistic", PostTransform::Logistic),
    ("softmax_zero", PostTransform::SoftmaxZero),
    ("probit", PostTransform::Probit),
];

fn name_of<T: PartialEq>(table: &[(&'static str, T)], v: &T) -> &'static str {
    table.iter().find(|e| e.1 == *v).map_or("?", |e| e.0)
}

/// `{key: value, …}`; nothing when there is no key.
#[derive(Default)]
struct Record(Vec<String>);

impl Record {
    fn put(&mut self, key: &str, value: impl ToString) {
        self.0.push(format!("{key}: {}", value.to_string()));
    }
    fn flag(&mut self, key: &str, value: bool) {
        if value {
            self.put(key, value);
        }
    }
    fn window(&mut self, graph: &Graph, w: &Window) {
        self.put("kernel", print::dims(graph, &w.kernel));
        for (key, v) in [("strides", &w.strides), ("dilations", &w.dilations)] {
            if v.iter().any(|x| *x != 1) {
                self.put(key, numbers(v));
            }
        }
        for (key, v) in [("pads_begin", &w.pads_begin), ("pads_end", &w.pads_end)] {
            if v.iter().any(|x| !x.is_const(0)) {
                self.put(key, print::dims(graph, v));
            }
        }
        if w.layout != Layout::ChannelsFirst {
            self.put("layout", name_of(&LAYOUT, &w.layout));
        }
    }
    fn text(self) -> String {
        match self.0.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", self.0.join(", ")),
        }
    }
}

fn numbers<T: ToString>(v: &[T]) -> String {
    list(v.iter().map(T::to_string))
}

fn float(v: f32) -> String {
    literal::scalar(Scalar::f32(v))
}

fn double(v: f64) -> String {
    literal::scalar(Scalar::f64(v))
}

fn label(l: u8) -> String {
    match l {
        0..26 => char::from(b'a' + l).to_string(),
        26..52 => char::from(b'A' + l - 26).to_string(),
        _ => format!("<{l}>"),
    }
}

/// What stands between the operator's name and its inputs.
pub(super) fn print(graph: &Graph, op: &Op) -> String {
    let mut r = Record::default();
    let dims = |d: &[Dim]| print::dims(graph, d);
    match op {
        Op::Pointwise { shape, .. } => {
            if let Some(shape) = shape {
                r.put("shape", dims(shape));
            }
        }
        Op::Shape(d) => r.put("dims", dims(d)),
        Op::Contract { a, b, out } => {
            let [a, b, out] = [a, b, out].map(|l| l.iter().map(|l| label(*l)).collect::<String>());
            return format!("\"{a},{b}->{out}\"");
        }
        Op::Conv { window, groups } => {
            r.window(graph, window);
            if !groups.is_const(1) {
                r.put("groups", print::dim(graph, groups));
            }
        }
        Op::ConvTranspose {
            window,
            groups,
            output_padding,
        } => {
            r.window(graph, window);
            if *groups != 1 {
                r.put("groups", groups);
            }
            if output_padding.iter().any(|p| *p != 0) {
                r.put("output_padding", numbers(output_padding));
            }
        }
        Op::Pool { kind, window, out } => {
            match kind {
                PoolKind::Max => r.put("kind", "max"),
                PoolKind::Average { count_padding } => {
                    r.put("kind", "average");
                    r.flag("count_padding", *count_padding);
                }
                PoolKind::Lp { p } => {
                    r.put("kind", "lp");
                    r.put("p", p);
                }
            }
            r.window(graph, window);
            r.put("out", dims(out));
        }
        Op::Reduce { kind, axes, keep } => {
            r.put("kind", name_of(&REDUCE, kind));
            r.put("axes", numbers(axes));
            r.flag("keep", *keep);
        }
        Op::ArgReduce {
            max,
            axis,
            keep,
            last,
        } => {
            r.put("kind", if *max { "max" } else { "min" });
            r.put("axis", axis);
            r.flag("keep", *keep);
            r.flag("last", *last);
        }
        Op::CumSum {
            axis,
            exclusive,
            reverse,
        } => {
            r.put("axis", axis);
            r.flag("exclusive", *exclusive);
            r.flag("reverse", *reverse);
        }
        Op::Softmax { axis, log } => {
            r.put("axis", axis);
            r.flag("log", *log);
        }
        Op::Normalize {
            kind,
            axis,
            epsilon,
        } => {
            r.put("kind", name_of(&NORM, kind));
            r.put("axis", axis);
            r.put("epsilon", float(*epsilon));
        }
        Op::Attention(a) => {
            r.put("scale", float(a.scale));
            r.flag("causal", a.causal);
            r.flag("mask", a.has_mask);
            if a.softcap != 0.0 {
                r.put("softcap", float(a.softcap));
            }
            if let Some(w) = a.window {
                r.put("window", w);
            }
            r.flag("first", a.has_first);
            r.flag("sink", a.has_sink);
        }
        Op::Reshape { shape } | Op::Broadcast { shape } => r.put("shape", dims(shape)),
        Op::Transpose { perm } => r.put("perm", numbers(perm)),
        Op::Slice { start, step, size } => {
            r.put("start", dims(start));
            if step.iter().any(|s| *s != 1) {
                r.put("step", numbers(step));
            }
            r.put("size", dims(size));
        }
        Op::Concat { axis } | Op::Gather { axis } | Op::GatherElements { axis } => {
            r.put("axis", axis);
        }
        Op::Pad {
            before,
            after,
            mode,
        } => {
            r.put("before", dims(before));
            r.put("after", dims(after));
            if *mode != PadMode::Constant {
                r.put("mode", name_of(&PAD, mode));
            }
        }
        Op::GatherNd { batch } => {
            if *batch != 0 {
                r.put("batch", batch);
            }
        }
        Op::ScatterElements { axis, reduce } => {
            r.put("axis", axis);
            if *reduce != ScatterReduce::Set {
                r.put("reduce", name_of(&SCATTER, reduce));
            }
        }
        Op::ScatterNd { reduce } => {
            if *reduce != ScatterReduce::Set {
                r.put("reduce", name_of(&SCATTER, reduce));
            }
        }
        Op::Trees(t) => trees(&mut r, t),
        // The bodies stand behind the operands.
        Op::Region(region) => match &region.kind {
            RegionKind::If => {}
            RegionKind::Loop { carried } => r.put("carried", carried),
            RegionKind::Scan {
                states,
                inputs,
                outputs,
            } => {
                let item = |axis: String, reverse: &bool| match reverse {
                    true => format!("{axis} reverse"),
                    false => axis,
                };
                r.put("states", states);
                let walk = |(a, r): &(usize, bool)| item(a.to_string(), r);
                r.put("inputs", list(inputs.iter().map(walk)));
                let walk = |(a, r): &(i64, bool)| item(a.to_string(), r);
                r.put("outputs", list(outputs.iter().map(walk)));
            }
        },
        Op::Library(call) => {
            if !call.ints.is_empty() {
                r.put("ints", numbers(&call.ints));
            }
            if !call.floats.is_empty() {
                let text = |v: &f64| literal::scalar(Scalar::f64(*v));
                r.put("floats", list(call.floats.iter().map(text)));
            }
            if !call.strings.is_empty() {
                r.put("strings", list(call.strings.iter().map(|s| quoted(s))));
            }
            let (name, record) = (quoted(call.name.as_bytes()), r.text());
            return format!("{name} {record}").trim_end().to_string();
        }
    }
    r.text()
}

fn trees(r: &mut Record, t: &TreeEnsemble) {
    r.put("targets", t.targets);
    r.put("aggregate", name_of(&AGGREGATE, &t.aggregate));
    r.put("post", name_of(&POST, &t.post));
    match &t.labels {
        None => {}
        Some(Labels::I64(v)) => r.put("labels", numbers(v)),
        Some(Labels::Strings(v)) => r.put("labels", list(v.iter().map(|s| quoted(s)))),
    }
    if !t.base_values.is_empty() {
        r.put("base", list(t.base_values.iter().map(|v| double(*v))));
    }
    r.put("roots", numbers(&t.roots));
    r.put(
        "weights",
        list(
            t.weights
                .iter()
                .map(|(i, w)| format!("({i}, {})", double(*w))),
        ),
    );
    let node = |n: &TreeNode| match n {
        TreeNode::Branch {
            feature,
            test,
            threshold,
            yes,
            no,
            missing_yes,
        } => {
            let (test, threshold) = (name_of(&TEST, test), double(*threshold));
            let missing = if *missing_yes { ", missing" } else { "" };
            format!("branch({feature}, {test}, {threshold}, {yes}, {no}{missing})")
        }
        TreeNode::Leaf { first, count } => format!("leaf({first}, {count})"),
    };
    r.put("nodes", list(t.nodes.iter().map(node)));
}

/// Reads what [`print()`] writes, from after the operator's name. `Pointwise` is not read here.
pub(super) fn parse(p: &mut Parser, name: &str) -> Result<Op, ParseError> {
    match name {
        "contract" => return contract(p),
        "library" => return library(p),
        _ => {}
    }
    let opened = p.mark_is("{");
    if opened {
        p.bump();
    }
    let op = match name {
        "shape" => Op::Shape(p.attr("dims", Parser::dims)?),
        "conv" => Op::Conv {
            window: window(p)?,
            groups: p.attr_or("groups", Parser::dim, Dim::Const(1))?,
        },
        "conv_transpose" => {
            let window = window(p)?;
            Op::ConvTranspose {
                groups: p.attr_or("groups", Parser::int, 1)?,
                output_padding: p.attr_or("output_padding", ints, vec![0; window.kernel.len()])?,
                window,
            }
        }
        "pool" => {
            let kind = match p.attr("kind", Parser::word)?.as_str() {
                "max" => PoolKind::Max,
                "average" => PoolKind::Average {
                    count_padding: flag(p, "count_padding")?,
                },
                "lp" => PoolKind::Lp {
                    p: p.attr("p", Parser::int)?,
                },
                other => return Err(p.error(format!("unknown pool '{other}'"))),
            };
            Op::Pool {
                kind,
                window: window(p)?,
                out: p.attr("out", Parser::dims)?,
            }
        }
        "reduce" => Op::Reduce {
            kind: p.attr("kind", |p| choice(p, &REDUCE))?,
            axes: p.attr("axes", |p| p.list(index))?,
            keep: flag(p, "keep")?,
        },
        "arg_reduce" => Op::ArgReduce {
            max: p.attr("kind", |p| choice(p, &[("max", true), ("min", false)]))?,
            axis: p.attr("axis", index)?,
            keep: flag(p, "keep")?,
            last: flag(p, "last")?,
        },
        "cumsum" => Op::CumSum {
            axis: p.attr("axis", index)?,
            exclusive: flag(p, "exclusive")?,
            reverse: flag(p, "reverse")?,
        },
        "softmax" => Op::Softmax {
            axis: p.attr("axis", index)?,
            log: flag(p, "log")?,
        },
        "normalize" => Op::Normalize {
            kind: p.attr("kind", |p| choice(p, &NORM))?,
            axis: p.attr("axis", index)?,
            epsilon: p.attr("epsilon", real)?,
        },
        "attention" => Op::Attention(AttentionAttrs {
            scale: p.attr("scale", real)?,
            causal: flag(p, "causal")?,
            has_mask: flag(p, "mask")?,
            softcap: p.attr_or("softcap", real, 0.0)?,
            window: p.attr_or("window", |p| p.int().map(Some), None)?,
            has_first: flag(p, "first")?,
            has_sink: flag(p, "sink")?,
        }),
        "reshape" => Op::Reshape {
            shape: p.attr("shape", Parser::dims)?,
        },
        "broadcast" => Op::Broadcast {
            shape: p.attr("shape", Parser::dims)?,
        },
        "transpose" => Op::Transpose {
            perm: p.attr("perm", |p| p.list(index))?,
        },
        "slice" => {
            let start = p.attr("start", Parser::dims)?;
            Op::Slice {
                step: p.attr_or("step", ints, vec![1; start.len()])?,
                size: p.attr("size", Parser::dims)?,
                start,
            }
        }
        "concat" => Op::Concat {
            axis: p.attr("axis", index)?,
        },
        "gather" => Op::Gather {
            axis: p.attr("axis", index)?,
        },
        "gather_elements" => Op::GatherElements {
            axis: p.attr("axis", index)?,
        },
        "pad" => Op::Pad {
            before: p.attr("before", Parser::dims)?,
            after: p.attr("after", Parser::dims)?,
            mode: p.attr_or("mode", |p| choice(p, &PAD), PadMode::Constant)?,
        },
        "gather_nd" => Op::GatherNd {
            batch: p.attr_or("batch", index, 0)?,
        },
        "scatter_elements" => Op::ScatterElements {
            axis: p.attr("axis", index)?,
            reduce: p.attr_or("reduce", |p| choice(p, &SCATTER), ScatterReduce::Set)?,
        },
        "scatter_nd" => Op::ScatterNd {
            reduce: p.attr_or("reduce", |p| choice(p, &SCATTER), ScatterReduce::Set)?,
        },
        "if" => region(RegionKind::If),
        "loop" => region(RegionKind::Loop {
            carried: p.attr("carried", index)?,
        }),
        "scan" => region(RegionKind::Scan {
            states: p.attr("states", index)?,
            inputs: p.attr("inputs", |p| p.list(|p| Ok((index(p)?, reverse(p)))))?,
            outputs: p.attr("outputs", |p| p.list(|p| Ok((p.int()?, reverse(p)))))?,
        }),
        "trees" => Op::Trees(Arc::new(parse_trees(p)?)),
        other => return Err(p.error(format!("unknown operator '{other}'"))),
    };
    if opened {
        p.mark("}")?;
    }
    Ok(op)
}

/// A region whose bodies are read later.
fn region(kind: RegionKind) -> Op {
    Op::Region(Box::new(Region {
        kind,
        bodies: Vec::new(),
    }))
}

fn reverse(p: &mut Parser) -> bool {
    let reverse = p.word_is("reverse");
    if reverse {
        p.bump();
    }
    reverse
}

fn ints(p: &mut Parser) -> Result<Vec<i64>, ParseError> {
    p.list(Parser::int)
}

fn index(p: &mut Parser) -> Result<usize, ParseError> {
    let v = p.int()?;
    usize::try_from(v).map_err(|_| p.error(format!("{v} is negative")))
}

fn number(p: &mut Parser) -> Result<u32, ParseError> {
    let v = p.int()?;
    u32::try_from(v).map_err(|_| p.error(format!("{v} is out of range")))
}

fn real(p: &mut Parser) -> Result<f32, ParseError> {
    Ok(p.scalar(DType::F32)?.to_f64() as f32)
}

fn double_value(p: &mut Parser) -> Result<f64, ParseError> {
    Ok(p.scalar(DType::F64)?.to_f64())
}

fn flag(p: &mut Parser, key: &str) -> Result<bool, ParseError> {
    p.attr_or(
        key,
        |p| choice(p, &[("true", true), ("false", false)]),
        false,
    )
}

fn choice<T: Clone>(p: &mut Parser, table: &[(&'static str, T)]) -> Result<T, ParseError> {
    let word = p.word()?;
    match table.iter().find(|e| e.0 == word) {
        Some((_, v)) => Ok(v.clone()),
        None => {
            let known: Vec<&str> = table.iter().map(|e| e.0).collect();
            Err(p.error(format!(
                "expected one of {}, found '{word}'",
                known.join(", ")
            )))
        }
    }
}

fn window(p: &mut Parser) -> Result<Window, ParseError> {
    let kernel = p.attr("kernel", Parser::dims)?;
    let n = kernel.len();
    Ok(Window {
        kernel,
        strides: p.attr_or("strides", ints, vec![1; n])?,
        dilations: p.attr_or("dilations", ints, vec![1; n])?,
        pads_begin: p.attr_or("pads_begin", Parser::dims, vec![Dim::Const(0); n])?,
        pads_end: p.attr_or("pads_end", Parser::dims, vec![Dim::Const(0); n])?,
        layout: p.attr_or("layout", |p| choice(p, &LAYOUT), Layout::ChannelsFirst)?,
    })
}

fn contract(p: &mut Parser) -> Result<Op, ParseError> {
    let text = String::from_utf8_lossy(&p.quoted()?).into_owned();
    let parts = text.split_once("->").and_then(|(ab, out)| {
        let (a, b) = ab.split_once(',')?;
        Some([labels(a)?, labels(b)?, labels(out)?])
    });
    match parts {
        Some([a, b, out]) => Ok(Op::Contract { a, b, out }),
        None => Err(p.error(format!(
            "expected labels like \"ab,bc->ac\", found \"{text}\""
        ))),
    }
}

fn labels(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            'a'..='z' => c as u8 - b'a',
            'A'..='Z' => c as u8 - b'A' + 26,
            '<' => {
                let digits: String = chars.by_ref().take_while(|c| *c != '>').collect();
                digits.parse().ok()?
            }
            _ => return None,
        });
    }
    Some(out)
}

fn library(p: &mut Parser) -> Result<Op, ParseError> {
    let name = String::from_utf8_lossy(&p.quoted()?).into_owned();
    let mut call = LibraryCall {
        name,
        ints: Vec::new(),
        floats: Vec::new(),
        strings: Vec::new(),
    };
    if p.mark_is("{") {
        p.bump();
        call.ints = p.attr_or("ints", ints, Vec::new())?;
        let floats = |p: &mut Parser| p.list(|p| Ok(p.scalar(DType::F64)?.to_f64()));
        call.floats = p.attr_or("floats", floats, Vec::new())?;
        let strings = |p: &mut Parser| p.list(|p| Ok(p.quoted()?.into()));
        call.strings = p.attr_or("strings", strings, Vec::new())?;
        p.mark("}")?;
    }
    Ok(Op::Library(call))
}

fn parse_trees(p: &mut Parser) -> Result<TreeEnsemble, ParseError> {
    let targets = p.attr("targets", number)?;
    let aggregate = p.attr("aggregate", |p| choice(p, &AGGREGATE))?;
    let post = p.attr("post", |p| choice(p, &POST))?;
    let labels = |p: &mut Parser| {
        Ok(Some(match p.quoted_in_list() {
            true => Labels::Strings(p.list(|p| Ok(p.quoted()?.into()))?),
            false => Labels::I64(ints(p)?),
        }))
    };
    let labels = p.attr_or("labels", labels, None)?;
    let base_values = p.attr_or("base", |p| p.list(double_value), Vec::new())?;
    let roots = p.attr("roots", |p| p.list(number))?;
    let weight = |p: &mut Parser| {
        p.mark("(")?;
        let target = number(p)?;
        p.mark(",")?;
        let weight = double_value(p)?;
        p.mark(")")?;
        Ok((target, weight))
    };
    let weights = p.attr("weights", |p| p.list(weight))?;
    let nodes = p.attr("nodes", |p| p.list(tree_node))?;
    Ok(TreeEnsemble {
        nodes,
        roots,
        weights,
        targets,
        aggregate,
        base_values,
        post,
        labels,
    })
}

fn tree_node(p: &mut Parser) -> Result<TreeNode, ParseError> {
    let kind = p.word()?;
    p.mark("(")?;
    let first = number(p)?;
    p.mark(",")?;
    let node = match kind.as_str() {
        "leaf" => TreeNode::Leaf {
            first,
            count: number(p)?,
        },
        "branch" => {
            let test = choice(p, &TEST)?;
            p.mark(",")?;
            let threshold = double_value(p)?;
            p.mark(",")?;
            let yes = number(p)?;
            p.mark(",")?;
            let no = number(p)?;
            let missing_yes = p.mark_is(",");
            if missing_yes {
                p.bump();
                choice(p, &[("missing", ())])?;
            }
            TreeNode::Branch {
                feature: first,
                test,
                threshold,
                yes,
                no,
                missing_yes,
            }
        }
        other => return Err(p.error(format!("expected leaf or branch, found '{other}'"))),
    };
    p.mark(")")?;
    Ok(node)
}
