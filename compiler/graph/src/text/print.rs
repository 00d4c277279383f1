//! The printer.

use super::lexer::{plain_name, plain_word};
use super::{attrs, formula, literal};
use crate::op::BodyArg;
use crate::{Def, Dim, Graph, NodeId, Op, Sym, SymbolOrigin, TensorType, ValueId};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;

/// A dimension with names that the parser reads.
pub(super) fn dim(graph: &Graph, d: &Dim) -> String {
    d.text(&|s| symbol(graph, s))
}

pub(super) fn dims(graph: &Graph, all: &[Dim]) -> String {
    literal::list(all.iter().map(|d| dim(graph, d)))
}

/// A symbol's name; quoted, and numbered when another has the same.
fn symbol(graph: &Graph, s: Sym) -> String {
    let Some(data) = graph.symbols.get(s) else {
        return format!("s{}", s.0);
    };
    let before = graph
        .symbols
        .iter()
        .filter(|(t, d)| *t < s && d.name == data.name)
        .count();
    let name = match before {
        0 => data.name.clone(),
        n => format!("{}'{}", data.name, n + 1),
    };
    if plain_word(&name) {
        name
    } else {
        literal::quoted(name.as_bytes())
    }
}

fn ty(graph: &Graph, t: &TensorType) -> String {
    if !t.is_tensor() {
        return crate::verify::type_text(graph, t);
    }
    match &t.shape {
        None => format!("{}[*]", t.dtype),
        Some(d) => format!("{}{}", t.dtype, dims(graph, d)),
    }
}

/// The place that binds each symbol by the rule of the text form.
fn bindings(graph: &Graph) -> HashMap<Sym, SymbolOrigin> {
    let mut found = HashMap::new();
    for (i, v) in graph.inputs.iter().enumerate() {
        for (axis, d) in graph.dims(*v).iter().enumerate() {
            if let Some(s) = d.as_sym() {
                found.entry(s).or_insert(SymbolOrigin::Input {
                    input: i as u32,
                    axis: axis as u32,
                });
            }
        }
    }
    for n in &graph.order {
        for (o, v) in graph.nodes[*n].outputs.iter().enumerate() {
            for (axis, d) in graph.dims(*v).iter().enumerate() {
                if let Some(s) = d.as_sym() {
                    found.entry(s).or_insert(SymbolOrigin::Node {
                        node: *n,
                        output: o as u32,
                        axis: axis as u32,
                    });
                }
            }
        }
    }
    found
}

struct Names<'a> {
    graph: &'a Graph,
    numbers: Vec<usize>,
}

impl<'a> Names<'a> {
    /// Numbers the printed values of equal names in the order of their definitions.
    fn new(graph: &'a Graph, printed: &[ValueId]) -> Self {
        let mut numbers = vec![1; graph.values.len()];
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for v in printed {
            let count = seen.entry(graph.values[*v].name.as_str()).or_default();
            *count += 1;
            numbers[v.0 as usize] = *count;
        }
        Names { graph, numbers }
    }
    fn value(&self, v: ValueId) -> String {
        let data = &self.graph.values[v];
        let sigil = match data.def {
            Def::Const(_) => '@',
            _ => '%',
        };
        let name = match plain_name(&data.name) {
            true => data.name.clone(),
            false => literal::quoted(data.name.as_bytes()),
        };
        match self.numbers[v.0 as usize] {
            1 => format!("{sigil}{name}"),
            n => format!("{sigil}{name}#{n}"),
        }
    }
    fn optional(&self, v: Option<ValueId>) -> String {
        v.map_or_else(|| "_".to_string(), |v| self.value(v))
    }
}

pub(super) fn graph(graph: &Graph) -> String {
    let mut out = String::new();
    let head = format!("graph {}", literal::quoted(graph.name.as_bytes()));
    block(graph, &head, "", &mut out);
    out.push('\n');
    out
}

/// A graph or body behind its head; ends with the brace.
fn block(graph: &Graph, head: &str, indent: &str, out: &mut String) {
    let bound = bindings(graph);
    let symbols = graph.symbols.iter().map(|(s, data)| {
        let name = symbol(graph, s);
        if bound.get(&s) == Some(&data.origin) {
            return name;
        }
        match data.origin {
            SymbolOrigin::Input { input, axis } => format!("{name} = input({input}, {axis})"),
            SymbolOrigin::Node { node, output, axis } => {
                match graph.order.iter().position(|n| *n == node) {
                    Some(at) => format!("{name} = node({at}, {output}, {axis})"),
                    None => format!("{name} = gone"),
                }
            }
        }
    });
    let symbols = literal::list(symbols);
    let _ = writeln!(out, "{indent}{head} {symbols} {{");
    // Constants that nobody reads stay out.
    let mut used = BTreeSet::new();
    for n in &graph.order {
        used.extend(graph.nodes[*n].inputs.iter().flatten().copied());
    }
    used.extend(graph.outputs.iter().map(|o| o.1));
    used.extend(graph.defaults.iter().map(|d| d.1));
    let constants: Vec<ValueId> = used
        .into_iter()
        .filter(|v| graph.constant(*v).is_some())
        .collect();
    let results = graph.order.iter().flat_map(|n| &graph.nodes[*n].outputs);
    let printed: Vec<ValueId> = graph
        .inputs
        .iter()
        .chain(&constants)
        .chain(results)
        .copied()
        .collect();
    let names = Names::new(graph, &printed);
    for v in &graph.inputs {
        let _ = writeln!(
            out,
            "{indent}  input {}: {}",
            names.value(*v),
            ty(graph, graph.ty(*v))
        );
    }
    for v in constants {
        if let Some(t) = graph.constant(v) {
            let t_text = ty(graph, graph.ty(v));
            let _ = writeln!(
                out,
                "{indent}  const {}: {t_text} = {}",
                names.value(v),
                literal::data(t)
            );
        }
    }
    for (input, v) in &graph.defaults {
        if let Some(input) = graph.inputs.get(*input as usize) {
            let _ = writeln!(
                out,
                "{indent}  default {} {}",
                names.value(*input),
                names.value(*v)
            );
        }
    }
    for n in &graph.order {
        node(graph, &names, *n, indent, out);
    }
    for (name, v) in &graph.outputs {
        let name = literal::quoted(name.as_bytes());
        let _ = writeln!(out, "{indent}  output {name} {}", names.value(*v));
    }
    for state in &graph.states {
        let input = graph.inputs.get(state.input as usize);
        let output = graph.outputs.get(state.output as usize);
        let (Some(input), Some((output, _))) = (input, output) else {
            continue;
        };
        let output = literal::quoted(output.as_bytes());
        let _ = write!(out, "{indent}  state {} {output}", names.value(*input));
        if let Some(axis) = state.axis {
            let _ = write!(out, " axis {axis}");
        }
        if let Some(store) = &state.store
            && let Some(v) = graph.inputs.get(store.input as usize)
        {
            let dims = dims(graph, &store.dims);
            let _ = write!(out, " store {} {dims}", names.value(*v));
        }
        out.push('\n');
    }
    let _ = write!(out, "{indent}}}");
}

fn node(graph: &Graph, names: &Names, n: NodeId, indent: &str, out: &mut String) {
    let node = &graph.nodes[n];
    let results: Vec<String> = node
        .outputs
        .iter()
        .map(|v| format!("{}: {}", names.value(*v), ty(graph, graph.ty(*v))))
        .collect();
    let _ = write!(out, "{indent}  {} = {}", results.join(", "), node.op.name());
    let attributes = attrs::print(graph, &node.op);
    if !attributes.is_empty() {
        let _ = write!(out, " {attributes}");
    }
    if let Op::Pointwise { body, .. } = &node.op {
        let inputs: Vec<String> = node
            .inputs
            .iter()
            .enumerate()
            .map(|(i, v)| format!("{} = {}", formula::input_name(i as u32), names.optional(*v)))
            .collect();
        let formula = formula::print(graph, body);
        let _ = write!(out, " ({}) => {formula}", inputs.join(", "));
    } else if !node.inputs.is_empty() {
        let inputs: Vec<String> = node.inputs.iter().map(|v| names.optional(*v)).collect();
        let _ = write!(out, " {}", inputs.join(", "));
    }
    if let Op::Region(region) = &node.op {
        out.push_str(" {\n");
        for body in &region.bodies {
            let args = body.args.iter().map(|a| match a {
                BodyArg::Operand(i) => i.to_string(),
                BodyArg::Own => "own".to_string(),
            });
            let args: Vec<String> = args.collect();
            let name = literal::quoted(body.graph.name.as_bytes());
            let head = format!("body {name} ({})", args.join(", "));
            block(&body.graph, &head, &format!("{indent}    "), out);
            out.push('\n');
        }
        let _ = write!(out, "{indent}  }}");
    }
    if !node.origin.is_empty() {
        let origin = node.origin.join(" | ").replace(['\n', '\r'], " ");
        let _ = write!(out, "   ; {origin}");
    }
    out.push('\n');
}
