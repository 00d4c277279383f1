//! What is known of sequences, optionals and maps while importing.
//!
//! The graph knows no dimensions inside a container. Beside it stands here, for values of container
//! type, what the tensors inside have in common, so that what is taken out of a sequence has a rank;
//! and the elements themselves where they are known, so that a split into a sequence that is read at
//! constant positions needs no sequence at all.

use std::collections::HashMap;
use std::rc::Rc;

use lapidary_graph::{Container, DType, TensorType, ValueId};
use lapidary_onnx::proto::tensor_shape_proto::dimension::Value as DimValue;
use lapidary_onnx::proto::{TypeProto, type_proto};

use crate::context::dtype;
use crate::error::{Fail, invalid, unsupported};

/// Containers nest no deeper.
const MAX_DEPTH: usize = 8;

/// A declared type, without dimensions; and what it says of the tensor inside of all containers.
pub(crate) fn value_type(ty: &TypeProto) -> Result<(TensorType, Element), Fail> {
    let mut containers = Vec::new();
    let mut at = ty;
    loop {
        let missing = || invalid("a type without the type of its elements");
        let inner = match &at.value {
            Some(type_proto::Value::TensorType(t)) => {
                let mut ty = TensorType::unranked(dtype(t.elem_type)?);
                ty.containers = containers;
                let element = match &t.shape {
                    None => Element::Any,
                    Some(shape) => Element::Dims(
                        shape
                            .dim
                            .iter()
                            .map(|d| match d.value {
                                Some(DimValue::DimValue(n)) if n >= 0 => Some(n),
                                _ => None,
                            })
                            .collect(),
                    ),
                };
                return Ok((ty, element));
            }
            Some(type_proto::Value::SequenceType(s)) => {
                containers.push(Container::Sequence);
                &s.elem_type
            }
            Some(type_proto::Value::OptionalType(o)) => {
                containers.push(Container::Optional);
                &o.elem_type
            }
            Some(type_proto::Value::MapType(m)) => {
                let key = dtype(m.key_type)?;
                if !key.is_int() && key != DType::String {
                    return Err(invalid(format!("a map with keys of {key}")));
                }
                containers.push(Container::Map(key));
                &m.value_type
            }
            Some(_) => return Err(unsupported("a value that is no dense tensor")),
            None => return Err(invalid("a value without a type")),
        };
        if containers.len() > MAX_DEPTH {
            return Err(invalid(format!("containers nest deeper than {MAX_DEPTH}")));
        }
        at = inner.as_deref().ok_or_else(missing)?;
    }
}

/// What the tensors inside a container have in common.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) enum Element {
    /// There are none.
    Nothing,
    /// Their rank, and sizes that all of them have.
    Dims(Vec<Option<i64>>),
    /// Nothing that is known.
    #[default]
    Any,
}

impl Element {
    /// The tensors of this type.
    pub fn of(ty: &TensorType) -> Element {
        match &ty.shape {
            Some(dims) => Element::Dims(dims.iter().map(|d| d.as_const()).collect()),
            None => Element::Any,
        }
    }
    /// What is true of both.
    pub fn join(&self, other: &Element) -> Element {
        match (self, other) {
            (Element::Nothing, x) | (x, Element::Nothing) => x.clone(),
            (Element::Dims(a), Element::Dims(b)) if a.len() == b.len() => {
                let both = a.iter().zip(b);
                Element::Dims(both.map(|(a, b)| a.filter(|a| *b == Some(*a))).collect())
            }
            _ => Element::Any,
        }
    }
}

/// Knowledge by value.
#[derive(Default)]
pub(crate) struct Containers {
    elements: HashMap<ValueId, Element>,
    sequences: HashMap<ValueId, Rc<[ValueId]>>,
    optionals: HashMap<ValueId, Option<ValueId>>,
}

impl Containers {
    pub fn element(&self, v: ValueId) -> Element {
        self.elements.get(&v).cloned().unwrap_or_default()
    }
    pub fn set_element(&mut self, v: ValueId, element: Element) {
        if element != Element::Any {
            self.elements.insert(v, element);
        }
    }
    /// The elements of a sequence.
    pub fn sequence(&self, v: ValueId) -> Option<Rc<[ValueId]>> {
        self.sequences.get(&v).cloned()
    }
    pub fn set_sequence(&mut self, v: ValueId, elements: Vec<ValueId>) {
        self.sequences.insert(v, elements.into());
    }
    /// What is in an optional, if that is known.
    pub fn optional(&self, v: ValueId) -> Option<Option<ValueId>> {
        self.optionals.get(&v).copied()
    }
    pub fn set_optional(&mut self, v: ValueId, inside: Option<ValueId>) {
        self.optionals.insert(v, inside);
    }
}
