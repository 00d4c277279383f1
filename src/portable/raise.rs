//! What exporters write with several small nodes, said with the operator that means it.
//!
//! | operator | what it stands for | since opset |
//! |---|---|---|
//! | `Gelu` | `x * 0.5 * (1 + erf(x / sqrt(2)))`, in any order of the factors | 20 |
//! | `Gelu` with `tanh` | `x * 0.5 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x^3)))` | 20 |
//! | `LayerNormalization` | `(x - mean) / sqrt(mean((x - mean)^2) + epsilon) * scale + bias` over the last axes | 17 |
//! | `Softmax` | `exp(x - max) / sum` over an axis, `sum` of the numerator | 13 |
//! | `HardSwish` | `x * clip(x + 3, 0, 6) / 6` | 14 |
//!
//! For f32 alone, whose small nodes compute as the operator does. The operator takes the place of the last of its nodes
//! and that one's name; the others go where nobody else reads them. A model of an older opset rises to the one that is
//! needed; if one of its nodes cannot, what its own opset has is raised, and a remark tells.

use lapidary_graph::TensorData;
use lapidary_onnx::proto::attribute_proto::AttributeType;
use lapidary_onnx::proto::{AttributeProto, NodeProto};

use super::draft::{Draft, is};
use super::pattern::{Nodes, close};
use super::{Opset, Outcome, Settings, upgrade};

/// An operator that can stand for nodes.
struct Raised {
    operator: &'static str,
    since: i64,
    inputs: Vec<String>,
    attributes: Vec<AttributeProto>,
}

type Matcher = fn(&Nodes<'_>, &NodeProto) -> Option<Raised>;

/// In the order in which they are tried; a longer formula before one that is a part of it.
const MATCHERS: &[Matcher] = &[layer_norm_with_bias, layer_norm, gelu, hard_swish, softmax];

pub fn raise(draft: &mut Draft, settings: &Settings, outcome: &mut Outcome) {
    for matcher in MATCHERS {
        let nodes = Nodes::of(draft);
        let found: Vec<(usize, Raised)> = draft
            .graph
            .node
            .iter()
            .enumerate()
            .filter_map(|(n, node)| {
                let raised = matcher(&nodes, node)?;
                // A number may have had more axes than the operand.
                let facts = &nodes.draft.facts;
                let same =
                    facts.dims(raised.inputs.first()?)? == facts.dims(node.output.first()?)?;
                same.then_some((n, raised))
            })
            .collect();
        let Some(needed) = found.iter().map(|(_, raised)| raised.since).max() else {
            continue;
        };
        if draft.opset < needed {
            let rises = match settings.opset == Opset::Keep {
                true => Err("the opset is to be kept".to_string()),
                false => upgrade::upgrade(draft, needed),
            };
            if let Err(reason) = rises {
                let (operator, count) = (found[0].1.operator, found.len());
                let remark = format!(
                    "{operator} could stand for nodes in {count} places, but needs opset {needed}, and {reason}"
                );
                outcome.remarks.push(remark);
                continue;
            }
        }
        for (n, raised) in found {
            put(draft, n, raised, outcome);
        }
        draft.drop_unread();
    }
}

fn put(draft: &mut Draft, n: usize, raised: Raised, outcome: &mut Outcome) {
    let Some(node) = draft.graph.node.get_mut(n) else {
        return;
    };
    let name = match node.name.is_empty() {
        true => node.output.first().cloned().unwrap_or_default(),
        false => node.name.clone(),
    };
    node.op_type = raised.operator.to_string();
    node.domain = String::new();
    node.input = raised.inputs;
    node.attribute = raised.attributes;
    outcome.raised.push((raised.operator, name));
}

fn gelu(nodes: &Nodes<'_>, node: &NodeProto) -> Option<Raised> {
    is(node, "Mul").then_some(())?;
    let output = node.output.first()?;
    nodes.is_f32(output).then_some(())?;
    let product = nodes.product(output);
    let [a, b] = product.factors.as_slice() else {
        return None;
    };
    close(product.scale, 0.5).then_some(())?;
    let exact = erf_form(nodes, a, b).or_else(|| erf_form(nodes, b, a));
    let (x, approximate) = match exact {
        Some(x) => (x, None),
        None => {
            let x = tanh_form(nodes, a, b).or_else(|| tanh_form(nodes, b, a))?;
            (x, Some(text("approximate", "tanh")))
        }
    };
    Some(Raised {
        operator: "Gelu",
        since: 20,
        inputs: vec![x],
        attributes: approximate.into_iter().collect(),
    })
}

/// The operand of an operator that one is added to: `1 + f(y)` gives y.
fn one_and(nodes: &Nodes<'_>, sum: &str, operator: &str) -> Option<String> {
    let add = nodes.made_by(sum, "Add")?;
    nodes.either(add, |one, other| {
        nodes.is_number(one, 1.0).then_some(())?;
        nodes.made_by(other, operator)?.input.first().cloned()
    })
}

/// x, where `sum` is `1 + erf(x / sqrt(2))`.
fn erf_form(nodes: &Nodes<'_>, x: &str, sum: &str) -> Option<String> {
    let inner = nodes.product(&one_and(nodes, sum, "Erf")?);
    let fits = inner.factors == [x] && close(inner.scale, std::f64::consts::FRAC_1_SQRT_2);
    fits.then(|| x.to_string())
}

/// x, where `sum` is `1 + tanh(sqrt(2/pi) * (x + 0.044715 * x^3))`.
fn tanh_form(nodes: &Nodes<'_>, x: &str, sum: &str) -> Option<String> {
    let inner = nodes.product(&one_and(nodes, sum, "Tanh")?);
    let [polynomial] = inner.factors.as_slice() else {
        return None;
    };
    close(inner.scale, (2.0 / std::f64::consts::PI).sqrt()).then_some(())?;
    let add = nodes.made_by(polynomial, "Add")?;
    nodes.either(add, |first, cubic| {
        (first == x).then_some(())?;
        let cubic = nodes.product(cubic);
        close(cubic.scale, 0.044715).then_some(())?;
        let fits = match cubic.factors.as_slice() {
            [a, b, c] => [a, b, c].iter().all(|f| *f == x),
            [power] => {
                let pow = nodes.made_by(power, "Pow")?;
                pow.input.first()? == x && nodes.is_number(pow.input.get(1)?, 3.0)
            }
            _ => false,
        };
        fits.then(|| x.to_string())
    })
}

fn hard_swish(nodes: &Nodes<'_>, node: &NodeProto) -> Option<Raised> {
    (is(node, "Mul") || is(node, "Div")).then_some(())?;
    let output = node.output.first()?;
    nodes.is_f32(output).then_some(())?;
    let product = nodes.product(output);
    let [a, b] = product.factors.as_slice() else {
        return None;
    };
    close(product.scale, 1.0 / 6.0).then_some(())?;
    let clipped = |x: &str, clip: &str| {
        let clip = nodes.made_by(clip, "Clip")?;
        let bound = |i: usize, name: &str, wanted: f64| match clip.input.get(i) {
            Some(bound) => nodes.is_number(bound, wanted),
            None => {
                let found = clip.attribute.iter().find(|a| a.name == name);
                found.is_some_and(|a| f64::from(a.f) == wanted)
            }
        };
        (bound(1, "min", 0.0) && bound(2, "max", 6.0)).then_some(())?;
        let add = nodes.made_by(clip.input.first()?, "Add")?;
        nodes.either(add, |first, three| {
            (first == x && nodes.is_number(three, 3.0)).then(|| x.to_string())
        })
    };
    let x = clipped(a, b).or_else(|| clipped(b, a))?;
    Some(Raised {
        operator: "HardSwish",
        since: 14,
        inputs: vec![x],
        attributes: Vec::new(),
    })
}

fn softmax(nodes: &Nodes<'_>, node: &NodeProto) -> Option<Raised> {
    is(node, "Div").then_some(())?;
    let [above, below] = node.input.as_slice() else {
        return None;
    };
    nodes.is_f32(above).then_some(())?;
    let exp = nodes.made_by(above, "Exp")?;
    let sum = nodes.made_by(below, "ReduceSum")?;
    (sum.input.first()? == above).then_some(())?;
    let sub = nodes.made_by(exp.input.first()?, "Sub")?;
    let [x, max] = sub.input.as_slice() else {
        return None;
    };
    let max = nodes.made_by(max, "ReduceMax")?;
    (max.input.first()? == x).then_some(())?;
    let axes = nodes.reduced_axes(sum)?;
    (nodes.reduced_axes(max)? == axes && axes.len() == 1).then_some(())?;
    Some(Raised {
        operator: "Softmax",
        since: 13,
        inputs: vec![x.clone()],
        attributes: vec![integer("axis", axes[0] as i64)],
    })
}

fn layer_norm_with_bias(nodes: &Nodes<'_>, node: &NodeProto) -> Option<Raised> {
    is(node, "Add").then_some(())?;
    nodes.either(node, |normed, bias| {
        let node = nodes.made_by(normed, "Mul")?;
        let mut raised = layer_norm(nodes, node)?;
        let scale = nodes.constant(raised.inputs.get(1)?)?;
        same_dims(scale, nodes.constant(bias)?).then_some(())?;
        raised.inputs.push(bias.to_string());
        Some(raised)
    })
}

fn layer_norm(nodes: &Nodes<'_>, node: &NodeProto) -> Option<Raised> {
    is(node, "Mul").then_some(())?;
    nodes.is_f32(node.output.first()?).then_some(())?;
    nodes.either(node, |normed, scale| {
        let div = nodes.made_by(normed, "Div")?;
        let [centred, deviation] = div.input.as_slice() else {
            return None;
        };
        let sub = nodes.made_by(centred, "Sub")?;
        let [x, mean] = sub.input.as_slice() else {
            return None;
        };
        let mean = nodes.made_by(mean, "ReduceMean")?;
        (mean.input.first()? == x).then_some(())?;
        let axes = nodes.reduced_axes(mean)?;
        let root = nodes.made_by(deviation, "Sqrt")?;
        let sum = nodes.made_by(root.input.first()?, "Add")?;
        let (variance, epsilon) = nodes.either(sum, |variance, epsilon| {
            let epsilon = nodes.number(epsilon)?;
            Some((nodes.made_by(variance, "ReduceMean")?, epsilon))
        })?;
        (nodes.reduced_axes(variance)? == axes).then_some(())?;
        let square = variance.input.first()?;
        let squared = match nodes.made_by(square, "Pow") {
            Some(pow) => pow.input.first()? == centred && nodes.is_number(pow.input.get(1)?, 2.0),
            None => {
                let mul = nodes.made_by(square, "Mul")?;
                mul.input.iter().all(|input| input == centred)
            }
        };
        squared.then_some(())?;
        // The last axes, and a scale for each element of them.
        let dims = nodes.draft.facts.dims(x)?;
        let first = *axes.first()?;
        let last = axes.iter().copied().eq(first..dims.len());
        let normal: Vec<i64> = dims
            .get(first..)?
            .iter()
            .map(|d| d.as_const())
            .collect::<Option<_>>()?;
        let fits = nodes.constant(scale)?.dims == normal;
        (last && fits && epsilon > 0.0).then(|| Raised {
            operator: "LayerNormalization",
            since: 17,
            inputs: vec![x.clone(), scale.to_string()],
            attributes: vec![
                integer("axis", first as i64 - dims.len() as i64),
                AttributeProto {
                    name: "epsilon".to_string(),
                    r#type: AttributeType::Float as i32,
                    f: epsilon as f32,
                    ..AttributeProto::default()
                },
            ],
        })
    })
}

fn same_dims(a: &TensorData, b: &TensorData) -> bool {
    a.dims == b.dims && a.dtype == b.dtype
}

pub fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_string(),
        r#type: AttributeType::Int as i32,
        i: value,
        ..AttributeProto::default()
    }
}

pub fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        name: name.to_string(),
        r#type: AttributeType::String as i32,
        s: value.as_bytes().to_vec().into(),
        ..AttributeProto::default()
    }
}
