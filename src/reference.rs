//! What the reference interpreter makes of a graph, in the values of the interface: the oracle of fuzzing and bisection.

use bytes::Bytes;
pub use lapidary_graph::interp::Rounding;
use lapidary_graph::interp::{self, InterpError, Value};
use lapidary_graph::{DType as GraphType, Graph, TensorData};
use lapidary_runtime::{DType, OwnedValue, Tensor};

use crate::Error;

/// How the interpreter ends.
pub enum Reference {
    /// With the outputs.
    Values(Vec<OwnedValue>),
    /// With an error of the model or its data.
    Refused(String),
    /// With nothing that could be compared: it does not know an operator or a kind of value, or has reached a limit.
    Unknown,
}

/// What an interpretation may take. Compiled code makes no value that only another step reads, and is faster.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Elements of a result.
    pub elements: usize,
    /// Iterations of a loop.
    pub iterations: i64,
    /// Scalar operations, roughly.
    pub work: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            elements: 1 << 24,
            iterations: 10_000,
            work: 1 << 29,
        }
    }
}

/// Interprets a graph.
pub fn run(graph: &Graph, inputs: &[OwnedValue]) -> Reference {
    run_with(graph, inputs, Limits::default(), Rounding::Nearest)
}

/// The same with other limits, and another rounding of what compiled code may round otherwise.
pub fn run_with(
    graph: &Graph,
    inputs: &[OwnedValue],
    limits: Limits,
    rounding: Rounding,
) -> Reference {
    let options = interp::Options {
        most_elements: limits.elements,
        most_iterations: limits.iterations,
        most_work: limits.work,
        rounding,
        ..Default::default()
    };
    let values: Option<Vec<Value>> = inputs.iter().map(value_of).collect();
    let Some(values) = values else {
        return Reference::Unknown;
    };
    match interp::run_values(graph, &values, &options) {
        Ok(outputs) => {
            let outputs: Option<Vec<OwnedValue>> = outputs.iter().map(owned_of).collect();
            outputs.map_or(Reference::Unknown, Reference::Values)
        }
        Err(
            InterpError::Unsupported { .. }
            | InterpError::Iterations { .. }
            | InterpError::Elements { .. }
            | InterpError::Work { .. },
        ) => Reference::Unknown,
        Err(error) => Reference::Refused(error.to_string()),
    }
}

fn value_of(value: &OwnedValue) -> Option<Value> {
    Some(match value {
        OwnedValue::Tensor(tensor) => Value::Tensor(data_of(tensor).ok()?),
        OwnedValue::Sequence(all) => {
            Value::Sequence(all.iter().map(value_of).collect::<Option<_>>()?)
        }
        OwnedValue::Optional(None) => Value::Optional(None),
        OwnedValue::Optional(Some(inside)) => Value::Optional(Some(Box::new(value_of(inside)?))),
        OwnedValue::Map { keys, values } => Value::Map {
            keys: data_of(keys).ok()?,
            values: Box::new(value_of(values)?),
        },
    })
}

fn owned_of(value: &Value) -> Option<OwnedValue> {
    Some(match value {
        Value::Tensor(data) => OwnedValue::Tensor(tensor_of(data).ok()?),
        Value::Sequence(all) => {
            OwnedValue::Sequence(all.iter().map(owned_of).collect::<Option<_>>()?)
        }
        Value::Optional(None) => OwnedValue::Optional(None),
        Value::Optional(Some(inside)) => OwnedValue::Optional(Some(Box::new(owned_of(inside)?))),
        Value::Map { keys, values } => OwnedValue::Map {
            keys: tensor_of(keys).ok()?,
            values: Box::new(owned_of(values)?),
        },
    })
}

pub(crate) fn data_of(tensor: &Tensor) -> Result<TensorData, Error> {
    let dtype = GraphType::from_onnx(tensor.dtype().onnx()).ok_or_else(|| {
        Error::Unsupported(format!(
            "the interpreter does not know elements of type {}",
            tensor.dtype()
        ))
    })?;
    let strings = tensor.strings().unwrap_or_default();
    Ok(TensorData {
        dtype,
        dims: tensor.shape().iter().map(|dim| *dim as i64).collect(),
        bytes: Bytes::copy_from_slice(tensor.bytes()),
        strings: strings
            .iter()
            .map(|s| Bytes::copy_from_slice(s.as_bytes()))
            .collect(),
    })
}

pub(crate) fn tensor_of(data: &TensorData) -> Result<Tensor, Error> {
    let shape: Vec<usize> = data
        .dims
        .iter()
        .map(|dim| usize::try_from(*dim).unwrap_or(0))
        .collect();
    let dtype = DType::from_onnx(data.dtype as i32).unwrap_or(DType::U8);
    if dtype == DType::String {
        let text = |s: &Bytes| String::from_utf8_lossy(s).into_owned();
        return Ok(Tensor::from_strings(
            &shape,
            data.strings.iter().map(text).collect(),
        )?);
    }
    Ok(Tensor::from_bytes(dtype, &shape, &data.bytes)?)
}
