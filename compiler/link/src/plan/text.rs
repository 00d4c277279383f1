//! Prints a plan: one line a step, with operands, sizes, lives and the ONNX names.

use super::{Action, BufferId, LIVE, Place, Plan, Tensor};
use lapidary_graph::{Dim, Graph};
use lapidary_lower::program::Program;
use std::fmt::Write;

impl Plan {
    /// The text that `show --stage plan` prints.
    pub fn text(&self, program: &Program) -> String {
        let graph = &program.graph;
        let mut out = format!(
            "plan {}: {} steps, {} segments, {} buffers, {} slots, weights {} bytes in {} entries, {} pinned\n",
            self.name,
            self.steps.len(),
            self.segments.len(),
            self.buffers.len(),
            self.slots.len(),
            self.weights.bytes,
            self.weights.entries.len(),
            self.pinned.len(),
        );
        for (s, segment) in self.segments.iter().enumerate() {
            let _ = writeln!(out, "\nsegment {s}");
            for check in &segment.checks {
                let _ = writeln!(
                    out,
                    "  check {} {} {}   ; {}",
                    graph.dim_text(&check.left),
                    relation(check.kind),
                    graph.dim_text(&check.right),
                    graph.nodes.get(check.node).map_or("", |n| n.name()),
                );
            }
            for i in segment.first..segment.end {
                self.step(&mut out, program, i);
            }
        }
        for (b, (plan, body)) in self.bodies.iter().zip(&program.bodies).enumerate() {
            let args: Vec<String> = body
                .args
                .iter()
                .map(|a| match a {
                    -1 => "own".to_string(),
                    operand => operand.to_string(),
                })
                .collect();
            let _ = match program.variants.contains(&b) {
                true => write!(out, "\nvariant {}: ", plan.name),
                false => write!(out, "\nbody {b} ({}): ", args.join(", ")),
            };
            out.push_str(plan.text(&body.program).replace('\n', "\n  ").trim_end());
            out.push('\n');
        }
        out
    }

    fn step(&self, out: &mut String, program: &Program, i: u32) {
        let graph = &program.graph;
        let Some(step) = self.steps.get(i as usize) else {
            return;
        };
        let dim = |d: &Dim| graph.dim_text(d);
        let _ = write!(out, "{i:4}  ");
        match &step.action {
            Action::Kernel {
                kernel,
                operands,
                writes,
                dims,
                tasks,
                scratch_bytes,
                flops,
                ..
            } => {
                let name = program
                    .kernels
                    .get(*kernel)
                    .map_or("?", |k| k.loops.name.as_str());
                let _ = write!(out, "{kernel} {name}   tasks {}", dim(tasks));
                if !scratch_bytes.is_const(0) {
                    let _ = write!(out, "   scratch {}", dim(scratch_bytes));
                }
                if !flops.is_const(0) {
                    let _ = write!(out, "   flops {}", dim(flops));
                }
                for (n, p) in operands.iter().enumerate() {
                    let arrow = if writes.contains(&n) { "->" } else { "  " };
                    let _ = write!(out, "\n        {arrow} {}", self.place(graph, p));
                }
                if !dims.is_empty() {
                    let all: Vec<String> = dims.iter().map(dim).collect();
                    let _ = write!(out, "\n           dims {}", all.join(", "));
                }
            }
            Action::Library {
                call,
                inputs,
                outputs,
            } => {
                let _ = write!(out, "library {}", call.function);
                for body in &call.bodies {
                    let _ = write!(out, " body {body}");
                }
                for t in inputs {
                    let text = t.as_ref().map_or("-".into(), |t| self.tensor(graph, t));
                    let _ = write!(out, "\n           {text}");
                }
                for t in outputs {
                    let _ = write!(out, "\n        -> {}", self.tensor(graph, t));
                }
            }
            Action::Copy { from, to, bytes } => {
                let _ = write!(
                    out,
                    "copy {} bytes\n           {}\n        -> {}",
                    dim(bytes),
                    self.place(graph, from),
                    self.place(graph, &Place::Buffer(*to))
                );
            }
        }
        let names: Vec<&str> = step
            .nodes
            .iter()
            .filter_map(|n| graph.nodes.get(*n))
            .flat_map(|n| n.origin.iter().map(String::as_str))
            .collect();
        match names.as_slice() {
            [] => {}
            [one] => {
                let _ = write!(out, "\n           ; {one}");
            }
            [first, .., last] => {
                let _ = write!(
                    out,
                    "\n           ; {first} … {last} ({} nodes)",
                    names.len()
                );
            }
        }
        out.push('\n');
    }

    fn tensor(&self, graph: &Graph, t: &Tensor) -> String {
        let shape = match &t.shape {
            None => "[?]".to_string(),
            Some(dims) => {
                let dims: Vec<String> = dims.iter().map(|d| graph.dim_text(d)).collect();
                format!("[{}]", dims.join(", "))
            }
        };
        format!("{}{shape} {}", t.dtype, self.place(graph, &t.place))
    }

    fn place(&self, graph: &Graph, p: &Place) -> String {
        let name = |v| graph.values.get(v).map_or("", |d| d.name.as_str());
        match p {
            Place::Input(i) => {
                let v = graph.inputs.get(*i as usize);
                format!("input {i} `{}`", v.map_or("", |v| name(*v)))
            }
            Place::Buffer(b) => self.buffer(graph, *b),
            Place::Weights(at) => format!("weights+{at}"),
            Place::Pinned(i) => {
                let v = self.pinned.get(*i as usize);
                format!("constant `{}`", v.map_or("", |v| name(*v)))
            }
            Place::Strings(i) => {
                let v = self.strings.get(*i as usize);
                format!("strings `{}`", v.map_or("", |v| name(*v)))
            }
        }
    }

    fn buffer(&self, graph: &Graph, id: BufferId) -> String {
        let Some(b) = self.buffers.get(id) else {
            return format!("{id}");
        };
        let name = graph.values.get(b.value).map_or("", |d| d.name.as_str());
        let size = b
            .bytes
            .as_ref()
            .map_or("?".to_string(), |d| graph.dim_text(d));
        let live = match (b.output, b.last) {
            (Some(o), _) => format!("output {o}"),
            (_, LIVE) => format!("live {}..", b.first),
            (_, last) => format!("live {}..{last}", b.first),
        };
        format!("{id} `{name}` {size} bytes, {live}")
    }
}

fn relation(kind: lapidary_graph::infer::CheckKind) -> &'static str {
    use lapidary_graph::infer::CheckKind;
    match kind {
        CheckKind::Equal => "==",
        CheckKind::Broadcastable => "~",
        CheckKind::BroadcastsTo => "broadcasts to",
        CheckKind::AtMost => "<=",
    }
}
