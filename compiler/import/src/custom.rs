//! Operators of the application: typed by it, computed by a library kernel of its own.
//!
//! In: a node of a registered domain and name. Out: one call of the operator's kernel
//! ([`lapidary_graph::Op::Library`]), with the types and the attribute record that the operator states.
//! Nothing of it is believed: counts and ranks are checked here, shapes and memory when it runs.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use lapidary_graph::op::LibraryCall;
use lapidary_graph::{DType, Dim, Op, TensorData, TensorType};

use crate::context::{Ctx, Outs};
use crate::driver::MAX_RANK;
use crate::error::{invalid, unsupported};

/// Names of library calls that begin with it are symbols as they are, without the prefix of the
/// runtime's own kernels.
pub const OWN_SYMBOL: char = '$';

/// The value of an attribute.
#[derive(Clone, PartialEq, Debug)]
pub enum Attribute {
    /// An integer.
    Int(i64),
    /// A number.
    Float(f32),
    /// A text, or bytes.
    String(Bytes),
    /// A tensor.
    Tensor(TensorData),
    /// Integers.
    Ints(Vec<i64>),
    /// Numbers.
    Floats(Vec<f32>),
    /// Texts.
    Strings(Vec<Bytes>),
}

/// A node, as its operator sees it.
pub struct CustomNode<'a> {
    /// The ONNX name, or one made from the operator's.
    pub name: &'a str,
    /// Version of the operator's domain that the model imports; 0: none.
    pub opset: i64,
    /// Types of the inputs, dims as expressions over the model's symbols; `None` for an absent one.
    pub inputs: Vec<Option<&'a TensorType>>,
    /// Attributes; graphs and types are left out.
    pub attributes: Vec<(&'a str, Attribute)>,
    /// Outputs that the node lists.
    pub outputs: usize,
}

impl CustomNode<'_> {
    /// The attribute of this name.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        let found = self.attributes.iter().find(|(n, _)| *n == name);
        found.map(|(_, value)| value)
    }
    /// An integer attribute, or the default.
    pub fn int(&self, name: &str, default: i64) -> Result<i64, String> {
        match self.attribute(name) {
            None => Ok(default),
            Some(Attribute::Int(v)) => Ok(*v),
            Some(_) => Err(format!("attribute '{name}' is no integer")),
        }
    }
    /// A float attribute, or the default.
    pub fn float(&self, name: &str, default: f32) -> Result<f32, String> {
        match self.attribute(name) {
            None => Ok(default),
            Some(Attribute::Float(v)) => Ok(*v),
            Some(_) => Err(format!("attribute '{name}' is no float")),
        }
    }
}

/// The type of an output.
#[derive(Clone, PartialEq, Debug)]
pub struct CustomOutput {
    /// Its element type.
    pub dtype: DType,
    /// `None`: the rank is the kernel's to say. An axis that is `None`: its size is.
    pub dims: Option<Vec<Option<Dim>>>,
}

impl CustomOutput {
    /// The type of an input.
    pub fn like(input: &TensorType) -> Self {
        let dims = input.shape.as_ref();
        CustomOutput {
            dtype: input.dtype,
            dims: dims.map(|dims| dims.iter().map(|d| Some(d.clone())).collect()),
        }
    }
}

/// What an operator says of a node.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct CustomTypes {
    /// One for each output of the node.
    pub outputs: Vec<CustomOutput>,
    /// The attribute record that the kernel gets.
    pub ints: Vec<i64>,
    /// The numbers of that record.
    pub floats: Vec<f64>,
    /// The texts of that record.
    pub strings: Vec<Bytes>,
}

/// An operator of the application.
pub trait CustomOperator: Send + Sync {
    /// Its domain, as nodes name it.
    fn domain(&self) -> &str;
    /// Its name.
    fn name(&self) -> &str;
    /// The link name of its kernel, a function of the library kernel ABI (docs/abi.md).
    fn symbol(&self) -> Result<&str, String>;
    /// Types a node, or says why it is refused.
    fn infer(&self, node: &CustomNode<'_>) -> Result<CustomTypes, String>;
}

impl fmt::Debug for dyn CustomOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.domain(), self.name())
    }
}

/// The operator of this domain and name; of several the last.
pub(crate) fn find<'a>(
    operators: impl DoubleEndedIterator<Item = &'a Arc<dyn CustomOperator>>,
    domain: &str,
    name: &str,
) -> Option<&'a Arc<dyn CustomOperator>> {
    let same = |d: &str| d == domain || (d == "ai.onnx" && domain.is_empty());
    operators
        .rev()
        .find(|o| o.name() == name && same(o.domain()))
}

/// The rule of all such operators.
pub(crate) fn import(cx: &mut Ctx, operator: &Arc<dyn CustomOperator>, name: &str) -> Outs {
    let mut attributes = Vec::with_capacity(cx.attrs.len());
    for (name, a) in &cx.attrs {
        let value = match a.r#type {
            1 => Attribute::Float(a.f),
            2 => Attribute::Int(a.i),
            3 => Attribute::String(a.s.clone()),
            4 => match cx.tensor(name)? {
                Some(tensor) => Attribute::Tensor(tensor),
                None => continue,
            },
            6 => Attribute::Floats(a.floats.clone()),
            7 => Attribute::Ints(a.ints.clone()),
            8 => Attribute::Strings(a.strings.clone()),
            _ => continue,
        };
        attributes.push((*name, value));
    }
    let inputs = cx.inputs.iter().map(|v| v.map(|v| cx.b.g.ty(v))).collect();
    let node = CustomNode {
        name,
        opset: cx.opset,
        inputs,
        attributes,
        outputs: cx.wanted.len(),
    };
    let types = operator.infer(&node).map_err(invalid)?;
    let symbol = operator.symbol().map_err(unsupported)?;
    let wrong = |found: String| {
        invalid(format!("its operator states {found}")).hint("the operator's own `infer` is wrong")
    };
    if types.outputs.len() != cx.wanted.len() {
        let (found, expected) = (types.outputs.len(), cx.wanted.len());
        return Err(wrong(format!("{found} outputs, the node has {expected}")));
    }
    let call = LibraryCall {
        name: format!("{OWN_SYMBOL}{symbol}"),
        ints: types.ints,
        floats: types.floats,
        strings: types.strings,
    };
    let mut outputs = Vec::with_capacity(types.outputs.len());
    for (o, output) in types.outputs.into_iter().enumerate() {
        let Some(dims) = output.dims else {
            outputs.push(TensorType::unranked(output.dtype));
            continue;
        };
        if dims.len() > MAX_RANK {
            return Err(wrong(format!("output {o} with {} axes", dims.len())));
        }
        if let Some(Dim::Const(size)) = dims
            .iter()
            .flatten()
            .find(|d| d.as_const() < Some(0) && d.as_const().is_some())
        {
            return Err(wrong(format!("output {o} with an axis of {size}")));
        }
        let dims = dims.into_iter().enumerate();
        let dims: Vec<Dim> = dims
            .map(|(axis, d)| d.unwrap_or_else(|| cx.b.symbol(o, axis)))
            .collect();
        outputs.push(TensorType::new(output.dtype, dims));
    }
    let inputs = cx.inputs.clone();
    let made = cx.b.push(Op::Library(call), inputs, outputs);
    Ok(made.into_iter().map(Some).collect())
}
