//! Reading nodes as formulas: products of several factors, numbers, and what a value is made by.

use std::collections::HashMap;

use lapidary_graph::{DType, TensorData};
use lapidary_onnx::proto::NodeProto;

use super::draft::{Draft, int, is};

/// How far a number in a model may be from the one that is meant: exporters round it to f32, some write few digits.
const CLOSE: f64 = 1e-6;

/// Nodes of a draft, to be looked up by what they make.
pub struct Nodes<'a> {
    pub draft: &'a Draft,
    producers: HashMap<String, usize>,
}

impl<'a> Nodes<'a> {
    pub fn of(draft: &'a Draft) -> Self {
        Nodes {
            draft,
            producers: draft.producers(),
        }
    }

    /// The node that makes a value, if it is this operator.
    pub fn made_by(&self, value: &str, operator: &str) -> Option<&'a NodeProto> {
        let node = self.draft.graph.node.get(*self.producers.get(value)?)?;
        is(node, operator).then_some(node)
    }

    pub fn rank(&self, value: &str) -> Option<usize> {
        Some(self.draft.facts.dims(value)?.len())
    }

    pub fn is_f32(&self, value: &str) -> bool {
        self.draft.facts.dtype(value) == Some(DType::F32)
    }

    pub fn constant(&self, value: &str) -> Option<&TensorData> {
        self.draft.facts.constant(value)
    }

    /// A constant of one element that broadcasts without adding axes.
    pub fn number(&self, value: &str) -> Option<f64> {
        let data = self.constant(value)?;
        if data.len() != 1 || data.dims.len() > 1 {
            return None;
        }
        match data.dtype {
            DType::F32 => data.to_f32s()?.first().map(|v| f64::from(*v)),
            _ => data.to_i64s()?.first().map(|v| *v as f64),
        }
    }

    pub fn is_number(&self, value: &str, wanted: f64) -> bool {
        self.number(value).is_some_and(|found| close(found, wanted))
    }

    /// Both operands of a commutative node, in either order, until `f` takes one for the first.
    pub fn either<'n, T>(
        &self,
        node: &'n NodeProto,
        f: impl Fn(&'n str, &'n str) -> Option<T>,
    ) -> Option<T> {
        let [a, b] = node.input.as_slice() else {
            return None;
        };
        f(a, b).or_else(|| f(b, a))
    }

    /// A value as a number times other values.
    pub fn product(&self, value: &str) -> Product {
        let mut product = Product {
            scale: 1.0,
            factors: Vec::new(),
        };
        self.multiply(value, &mut product, 0);
        product
    }

    fn multiply(&self, value: &str, into: &mut Product, depth: usize) {
        if let Some(number) = self.number(value) {
            into.scale *= number;
            return;
        }
        // Deep enough for every formula here.
        if depth < 6 {
            if let Some(node) = self.made_by(value, "Mul")
                && let [a, b] = node.input.as_slice()
            {
                self.multiply(a, into, depth + 1);
                self.multiply(b, into, depth + 1);
                return;
            }
            if let Some(node) = self.made_by(value, "Div")
                && let [a, b] = node.input.as_slice()
                && let Some(number) = self.number(b)
            {
                into.scale /= number;
                self.multiply(a, into, depth + 1);
                return;
            }
        }
        into.factors.push(value.to_string());
    }

    /// The axes of a reduction that keeps them, from the front.
    pub fn reduced_axes(&self, node: &NodeProto) -> Option<Vec<usize>> {
        if int(node, "keepdims", 1) != 1 {
            return None;
        }
        let rank = self.rank(node.input.first()?)?;
        let stated = match node.input.get(1) {
            Some(axes) => self.constant(axes)?.to_i64s()?,
            None => {
                let axes = node.attribute.iter().find(|a| a.name == "axes");
                axes.map_or(Vec::new(), |a| a.ints.clone())
            }
        };
        if stated.is_empty() {
            return None;
        }
        let rank = rank as i64;
        let axes = stated
            .into_iter()
            .map(|axis| if axis < 0 { axis + rank } else { axis });
        let mut axes: Vec<usize> = axes
            .map(|axis| usize::try_from(axis).ok())
            .collect::<Option<_>>()?;
        axes.sort_unstable();
        axes.dedup();
        Some(axes)
    }
}

/// A number times values.
pub struct Product {
    pub scale: f64,
    pub factors: Vec<String>,
}

pub fn close(found: f64, wanted: f64) -> bool {
    (found - wanted).abs() <= CLOSE * wanted.abs()
}
