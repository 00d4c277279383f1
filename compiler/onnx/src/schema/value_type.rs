//! The types that ONNX values have: tensors, and containers around them. The shape is no part of it.

use std::fmt;

use crate::DataType;
use crate::proto::{TypeProto, type_proto};

/// A type without a shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// A dense tensor.
    Tensor(DataType),
    /// A sparse tensor.
    SparseTensor(DataType),
    /// Any number of values of a type.
    Sequence(Box<ValueType>),
    /// A value or none.
    Optional(Box<ValueType>),
    /// Keys of an element type, and a value for each.
    Map(DataType, Box<ValueType>),
}

/// Containers nest no deeper in a sound model; a file can nest them as deep as it is long.
const MAX_DEPTH: usize = 16;

impl ValueType {
    /// The type in a file; `None` if it is empty, incomplete, opaque, or of element types that ONNX does not have.
    pub fn of_proto(proto: &TypeProto) -> Option<ValueType> {
        of_proto(proto, MAX_DEPTH)
    }

    /// The type that a text names, as the table writes it: `float`, `tensor(float)`, `seq(float)`,
    /// `map(int64,seq(float))`.
    pub fn parse(text: &str) -> Option<ValueType> {
        parse(text.trim(), MAX_DEPTH)
    }

    /// The element type of the tensors inside of all containers.
    pub fn element(&self) -> DataType {
        match self {
            ValueType::Tensor(dtype) | ValueType::SparseTensor(dtype) => *dtype,
            ValueType::Sequence(inner) | ValueType::Optional(inner) | ValueType::Map(_, inner) => {
                inner.element()
            }
        }
    }

    /// The element type of a dense tensor.
    pub fn tensor(&self) -> Option<DataType> {
        match self {
            ValueType::Tensor(dtype) => Some(*dtype),
            _ => None,
        }
    }
}

fn of_proto(proto: &TypeProto, depth: usize) -> Option<ValueType> {
    use type_proto::Value;
    let inner = |proto: &Option<Box<TypeProto>>| {
        let inner = of_proto(proto.as_deref()?, depth.checked_sub(1)?)?;
        Some(Box::new(inner))
    };
    Some(match proto.value.as_ref()? {
        Value::TensorType(tensor) => ValueType::Tensor(DataType::from_wire(tensor.elem_type)?),
        Value::SparseTensorType(tensor) => {
            ValueType::SparseTensor(DataType::from_wire(tensor.elem_type)?)
        }
        Value::SequenceType(sequence) => ValueType::Sequence(inner(&sequence.elem_type)?),
        Value::OptionalType(optional) => ValueType::Optional(inner(&optional.elem_type)?),
        Value::MapType(map) => {
            ValueType::Map(DataType::from_wire(map.key_type)?, inner(&map.value_type)?)
        }
        Value::OpaqueType(_) => return None,
    })
}

fn parse(text: &str, depth: usize) -> Option<ValueType> {
    let Some((constructor, rest)) = text.split_once('(') else {
        return element(text).map(ValueType::Tensor);
    };
    let arguments = rest.strip_suffix(')')?;
    let inner = |text: &str| Some(Box::new(parse(text.trim(), depth.checked_sub(1)?)?));
    Some(match constructor {
        "tensor" => ValueType::Tensor(element(arguments)?),
        "sparse_tensor" => ValueType::SparseTensor(element(arguments)?),
        "seq" => ValueType::Sequence(inner(arguments)?),
        "optional" => ValueType::Optional(inner(arguments)?),
        "map" => {
            let (key, value) = arguments.split_once(',')?;
            ValueType::Map(element(key)?, inner(value)?)
        }
        _ => return None,
    })
}

/// Element types are written in lower case.
fn element(text: &str) -> Option<DataType> {
    let text = text.trim();
    DataType::ALL
        .into_iter()
        .find(|dtype| dtype.name().eq_ignore_ascii_case(text))
}

impl fmt::Display for ValueType {
    /// As ONNX writes it: `tensor(float)`, `seq(tensor(float))`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lower = |dtype: &DataType| dtype.name().to_ascii_lowercase();
        match self {
            ValueType::Tensor(dtype) => write!(out, "tensor({})", lower(dtype)),
            ValueType::SparseTensor(dtype) => write!(out, "sparse_tensor({})", lower(dtype)),
            ValueType::Sequence(inner) => write!(out, "seq({inner})"),
            ValueType::Optional(inner) => write!(out, "optional({inner})"),
            ValueType::Map(key, value) => write!(out, "map({}, {value})", lower(key)),
        }
    }
}

/// The types that a type variable may stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeSet {
    /// Dense tensors: a bit for each number on the wire.
    tensors: u32,
    others: Vec<ValueType>,
}

impl TypeSet {
    /// A set of one.
    pub fn of(one: ValueType) -> TypeSet {
        let mut set = TypeSet::default();
        set.insert(one);
        set
    }

    pub(super) fn insert(&mut self, ty: ValueType) {
        match ty {
            ValueType::Tensor(dtype) => self.tensors |= 1 << dtype.to_wire(),
            other => self.others.push(other),
        }
    }

    /// Whether a type is in it.
    pub fn contains(&self, ty: &ValueType) -> bool {
        match ty {
            ValueType::Tensor(dtype) => self.tensors & (1 << dtype.to_wire()) != 0,
            other => self.others.contains(other),
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.tensors == 0 && self.others.is_empty()
    }

    /// The element types of its dense tensors, in the order of their numbers.
    pub fn tensors(&self) -> impl Iterator<Item = DataType> + '_ {
        DataType::ALL
            .into_iter()
            .filter(|dtype| self.tensors & (1 << dtype.to_wire()) != 0)
    }

    /// The types that are no dense tensors.
    pub fn others(&self) -> &[ValueType] {
        &self.others
    }

    /// The only type, if there is one alone.
    pub fn only(&self) -> Option<ValueType> {
        match (self.tensors.count_ones(), self.others.as_slice()) {
            (1, []) => self.tensors().next().map(ValueType::Tensor),
            (0, [one]) => Some(one.clone()),
            _ => None,
        }
    }
}

impl fmt::Display for TypeSet {
    /// Its types in a row; many are shortened.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tensors: Vec<String> = self
            .tensors()
            .map(|dtype| dtype.name().to_ascii_lowercase())
            .collect();
        if !tensors.is_empty() {
            write!(out, "tensor({})", tensors.join(" | "))?;
        }
        const SHOWN: usize = 4;
        for (index, other) in self.others.iter().take(SHOWN).enumerate() {
            let gap = if index > 0 || !tensors.is_empty() {
                ", "
            } else {
                ""
            };
            write!(out, "{gap}{other}")?;
        }
        if self.others.len() > SHOWN {
            write!(out, ", … {} more", self.others.len() - SHOWN)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_they_are_written() {
        for text in [
            "tensor(float8e4m3fnuz)",
            "seq(tensor(string))",
            "optional(seq(tensor(float)))",
            "map(int64, tensor(float))",
            "sparse_tensor(bool)",
        ] {
            assert_eq!(ValueType::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            ValueType::parse("seq(float)"),
            ValueType::parse("seq(tensor(float))")
        );
        for text in ["", "flaot", "seq(", "seq()", "map(int64)", "set(float)"] {
            assert_eq!(ValueType::parse(text), None, "{text}");
        }
        assert_eq!(ValueType::parse(&"seq(".repeat(100_000)), None);
    }

    #[test]
    fn a_set_tells_what_is_in_it() {
        let mut set = TypeSet::of(ValueType::Tensor(DataType::Float6E3M2));
        assert_eq!(set.only(), Some(ValueType::Tensor(DataType::Float6E3M2)));
        let sequence = ValueType::parse("seq(float)").unwrap();
        assert!(!set.contains(&sequence));
        set.insert(sequence.clone());
        assert!(set.contains(&sequence) && set.only().is_none());
        assert_eq!(set.to_string(), "tensor(float6e3m2), seq(tensor(float))");
    }
}
