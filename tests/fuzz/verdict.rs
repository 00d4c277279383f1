//! Whether compiled code did what the interpreter does, or what it may do.
//!
//! In: a graph, inputs, and what compiled code made of them. Out: a [`Verdict`]. Elements are compared where the size of
//! numbers lets the interpreter, which sums in f64, know them; kinds, types, shapes and refusals always. What differs is
//! looked at again: a model may leave a result to the last digits of a sum, when it asks for the sign of a difference
//! near 0, takes its reciprocal, or rounds halves. The interpreter then runs some more times, each with other last
//! digits wherever `docs/semantics.md` leaves them open. Only where these runs differ as much among themselves, and
//! compiled code did what one of them did or something between them, the case is undecided, which the report tells.

use lapidary::compare::{Mismatch, Tolerance, compare_values, numbers};
use lapidary::reference::{self, Limits, Reference, Rounding};
use lapidary::{DType, Error, Model, OwnedValue, Tensor};
use lapidary_graph::{Graph, Op, PwOp};
use lapidary_onnx::proto::{GraphProto, NodeProto, TensorProto};

/// Interpretations with other last digits, if some of the first differ.
const ROUNDINGS: u64 = 32;
const FIRST: u64 = 8;

/// What such a one may take: there are many of them.
const LIMITS: Limits = Limits {
    elements: 1 << 22,
    iterations: 10_000,
    work: 1 << 24,
};

/// What comparing with the interpreter says.
pub enum Verdict {
    /// The outputs are the same, or at least their kinds, types and shapes.
    Agrees {
        elements: bool,
    },
    BothRefuse,
    /// The interpreter cannot tell, or has reached a limit.
    Unknown,
    /// The outputs differ, but the model leaves them to last digits.
    Undecided(String),
    /// A kind of finding and its text.
    Differs(&'static str, String),
}

/// Compares a result with that of the interpreter.
pub fn judge(
    model: &Model,
    graph: &Graph,
    inputs: &[OwnedValue],
    tolerance: Tolerance,
    result: Result<Vec<OwnedValue>, Error>,
) -> Verdict {
    let floats = graph.values.values().any(|v| v.ty.dtype.is_float());
    let tame =
        tame_model(model) && tame_graph(graph) && inputs.iter().all(|v| tame_value(v, floats));
    let exact = exact(graph);
    let measure = Measure {
        elements: tame || exact,
        tolerance: match exact && !tame {
            true => Tolerance {
                rtol: 1e-6,
                atol: 0.0,
            },
            false => tolerance,
        },
    };
    let expected = reference::run(graph, inputs);
    let (kind, text) = match (&expected, &result) {
        (Reference::Unknown, _) => return Verdict::Unknown,
        (Reference::Refused(_), Err(_)) => return Verdict::BothRefuse,
        (Reference::Refused(why), Ok(_)) => {
            ("taken", format!("runs, but the interpreter says: {why}"))
        }
        (Reference::Values(_), Err(error)) => {
            ("refused", format!("only the interpreter runs it: {error}"))
        }
        (Reference::Values(expected), Ok(found)) => {
            let names = graph.outputs.iter().map(|(name, _)| name);
            let differs = |((name, expected), found)| {
                let mismatch = measure.differs(expected, found)?;
                Some(format!("'{name}': {mismatch}"))
            };
            match names.zip(expected).zip(found).find_map(differs) {
                Some(text) => ("wrong", text),
                None => {
                    return Verdict::Agrees {
                        elements: measure.elements,
                    };
                }
            }
        }
    };
    let beside = |number| reference::run_with(graph, inputs, LIMITS, Rounding::Beside(number));
    let mut runs: Vec<Reference> = (0..FIRST).map(beside).collect();
    // What no last digit changes is decided.
    let undecided = runs.iter().any(|run| measure.apart(run, &expected)) && {
        runs.extend((FIRST..ROUNDINGS).map(beside));
        runs.push(expected);
        measure.admits(&runs, &result)
    };
    match undecided {
        true => Verdict::Undecided(format!("{kind}: {text}")),
        false => Verdict::Differs(kind, text),
    }
}

/// What is compared, and how closely.
struct Measure {
    elements: bool,
    tolerance: Tolerance,
}

impl Measure {
    fn differs(&self, expected: &OwnedValue, found: &OwnedValue) -> Option<Mismatch> {
        let mismatch = compare_values(expected, found, self.tolerance).err()?;
        (self.elements || !elements_alone(&mismatch)).then_some(mismatch)
    }

    /// Whether two interpretations differ by more than digits.
    fn apart(&self, one: &Reference, other: &Reference) -> bool {
        match (one, other) {
            (Reference::Values(a), Reference::Values(b)) => {
                a.iter().zip(b).any(|(a, b)| self.differs(a, b).is_some())
            }
            (Reference::Values(_), Reference::Refused(_)) => true,
            (Reference::Refused(_), Reference::Values(_)) => true,
            _ => false,
        }
    }

    /// Whether a result is one that some interpretation has, or that lies between those of the same shapes.
    fn admits(&self, runs: &[Reference], result: &Result<Vec<OwnedValue>, Error>) -> bool {
        let Ok(found) = result else {
            return runs.iter().any(|r| matches!(r, Reference::Refused(_)));
        };
        let alike = |expected: &OwnedValue, found: &OwnedValue| {
            let result = compare_values(expected, found, self.tolerance);
            result
                .err()
                .is_none_or(|mismatch| elements_alone(&mismatch))
        };
        let values = runs.iter().filter_map(|run| match run {
            Reference::Values(values) => Some(values),
            _ => None,
        });
        let of_shapes: Vec<&Vec<OwnedValue>> = values
            .filter(|run| run.iter().zip(found).all(|(e, f)| alike(e, f)))
            .collect();
        let between = |(output, found): (usize, &OwnedValue)| {
            let all: Vec<&OwnedValue> = of_shapes.iter().filter_map(|r| r.get(output)).collect();
            match (found, self.elements) {
                (OwnedValue::Tensor(found), true) => self.between(&all, found),
                _ => all.iter().any(|run| self.differs(run, found).is_none()),
            }
        };
        found.iter().enumerate().all(between)
    }

    /// Whether every element lies between the least and the greatest that some run has, or near one of them.
    fn between(&self, runs: &[&OwnedValue], found: &Tensor) -> bool {
        let tensors: Vec<&Tensor> = runs.iter().filter_map(|run| run.tensor()).collect();
        if let Ok(found) = found.strings() {
            let strings: Vec<&[String]> = tensors.iter().filter_map(|t| t.strings().ok()).collect();
            let known = |(i, s)| strings.iter().any(|run| run.get(i) == Some(s));
            return found.iter().enumerate().all(known);
        }
        let numbers_of: Vec<Vec<f64>> = tensors.iter().map(|t| numbers(t)).collect();
        let known = |(i, found): (usize, f64)| {
            let runs = || numbers_of.iter().filter_map(|run| run.get(i)).copied();
            if found.is_nan() {
                return runs().any(f64::is_nan);
            }
            let (least, most) = runs()
                .filter(|n| !n.is_nan())
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), n| {
                    (least.min(n), most.max(n))
                });
            let off = |n: f64| self.tolerance.atol + self.tolerance.rtol * n.abs();
            least - off(least) <= found && found <= most + off(most)
        };
        numbers(found).into_iter().enumerate().all(known)
    }
}

/// Whether a graph moves elements and computes single ones by operations that IEEE rounds: the interpreter must agree
/// then, relative to what numbers there are, however large those are.
fn exact(graph: &Graph) -> bool {
    graph.order.iter().all(|n| match &graph.nodes[*n].op {
        Op::Pointwise { body, .. } => body.nodes.iter().all(|p| p.op.rounds_alike()),
        Op::Reshape { .. } | Op::Transpose { .. } | Op::Broadcast { .. } | Op::Slice { .. } => true,
        Op::Concat { .. } | Op::Pad { .. } | Op::Shape(_) => true,
        Op::Gather { .. } | Op::GatherElements { .. } | Op::GatherNd { .. } => true,
        _ => false,
    })
}

/// Whether a number is of a size at which sums keep their digits, so that the interpreter, which sums in f64, must agree.
fn tame(number: f64) -> bool {
    number.abs() <= 1e4
}

/// Integers count where floats are made of them.
fn tame_value(value: &OwnedValue, integers: bool) -> bool {
    match value {
        OwnedValue::Tensor(tensor) => tame_tensor(tensor, integers),
        OwnedValue::Sequence(all) => all.iter().all(|v| tame_value(v, integers)),
        OwnedValue::Optional(inside) => inside.as_deref().is_none_or(|v| tame_value(v, integers)),
        OwnedValue::Map { keys, values } => {
            tame_tensor(keys, integers) && tame_value(values, integers)
        }
    }
}

/// Whether no constant of an operator swallows digits of what it is added to, as the -10000 under a mask.
fn tame_graph(graph: &Graph) -> bool {
    let swallows = |p: &lapidary_graph::PwNode| match p.op {
        PwOp::Const(s) => s.dtype.is_float() && (1e4..1e9).contains(&s.to_f64().abs()),
        _ => false,
    };
    !graph.order.iter().any(|n| match &graph.nodes[*n].op {
        Op::Pointwise { body, .. } => body.nodes.iter().any(swallows),
        _ => false,
    })
}

fn tame_tensor(tensor: &Tensor, integers: bool) -> bool {
    let number = |bytes: &[u8]| match (tensor.dtype(), bytes) {
        (DType::F32, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
        (DType::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
        (DType::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).to_f64(),
        (DType::BF16, &[a, b]) => half::bf16::from_le_bytes([a, b]).to_f64(),
        (DType::I64, &[a, b, c, d, e, f, g, h]) if integers => {
            i64::from_le_bytes([a, b, c, d, e, f, g, h]) as f64
        }
        (DType::U64, &[a, b, c, d, e, f, g, h]) if integers => {
            u64::from_le_bytes([a, b, c, d, e, f, g, h]) as f64
        }
        (DType::I32, &[a, b, c, d]) if integers => f64::from(i32::from_le_bytes([a, b, c, d])),
        (DType::U32, &[a, b, c, d]) if integers => f64::from(u32::from_le_bytes([a, b, c, d])),
        _ => 0.0,
    };
    let width = tensor.dtype().bytes().max(1);
    let small = lapidary_graph::DType::from_onnx(tensor.dtype().onnx());
    let minifloat = small.is_some_and(|t| t.is_minifloat());
    !minifloat && tensor.bytes().chunks_exact(width).all(|b| tame(number(b)))
}

/// The same of the constants and attributes of a model.
fn tame_model(model: &Model) -> bool {
    let constant = |t: &TensorProto| {
        let raw = t.raw_data.chunks_exact(4);
        let raw = raw.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let raw = raw.filter(|_| t.data_type == 1).map(f64::from);
        let single = t.float_data.iter().copied().map(f64::from);
        single
            .chain(t.double_data.iter().copied())
            .chain(raw)
            .all(tame)
    };
    fn nodes(graph: &GraphProto) -> Vec<&NodeProto> {
        let inner = graph.node.iter().flat_map(|n| &n.attribute);
        let inner = inner.filter_map(|a| a.g.as_ref()).flat_map(nodes);
        graph.node.iter().chain(inner).collect()
    }
    let graph = model.file().graph();
    graph.initializer.iter().all(constant)
        && nodes(graph).iter().flat_map(|n| &n.attribute).all(|a| {
            let numbers = a.floats.iter().chain([&a.f]);
            numbers.copied().map(f64::from).all(tame) && a.t.iter().all(constant)
        })
}

/// Whether values differ in their elements, and not in kind, type or shape.
fn elements_alone(mismatch: &Mismatch) -> bool {
    match mismatch {
        Mismatch::Elements { .. } => true,
        Mismatch::Inside { mismatch, .. } => elements_alone(mismatch),
        _ => false,
    }
}
