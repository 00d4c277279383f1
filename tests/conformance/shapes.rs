//! A case at other shapes: the code that was compiled with every dim free, against the interpreter.
//!
//! All axes of one size change together, since most sizes of a case are shared; then each axis alone. The elements
//! are those of the case, repeated along an axis that grew, so that indices stay valid. The reference is the model
//! imported with the new sizes as numbers, so the importer's shape arithmetic is tested too: run by the interpreter,
//! or, where it has a library kernel, which the interpreter lacks, compiled at these sizes.
//! A shape that the reference refuses must be refused.

use lapidary::compare::Tolerance;
use lapidary::operator::Target;
use lapidary::{
    Class, Compiled, DType, DimSetting, Error, Model, Options, OwnedValue, Tensor, pipeline,
};
use lapidary_graph::{TensorData, interp};

use crate::suite::{Case, Suite};
use crate::workers::Outcome;

/// What is no failure: agreement at another shape (with the interpreter, or with code for that shape); nothing whose size
/// could change; no other shape that the model takes.
pub const PASSES: &[&str] = &["pass", "pass-by-library", "no-dims", "refused"];

/// Elements of an input that are not exceeded.
const MOST_ELEMENTS: usize = 1 << 20;
/// Changes that are tried.
const MOST_CHANGES: usize = 24;

/// The dims of each input.
type Shapes = Vec<Vec<usize>>;

pub fn run(suite: &Suite, case: &Case) -> Result<Outcome, Error> {
    let model = suite.model(case)?;
    let compiled = model.compile(&crate::options(true))?;
    let mut context = compiled.context()?;
    let Some(set) = suite.sets(case, &model)?.into_iter().next() else {
        return Ok(Outcome::new("no-dims", "no data"));
    };
    let Ok(inputs) = set.input_tensors() else {
        return Ok(Outcome::new("no-dims", "inputs that are no tensors"));
    };
    // The context has planned for this shape when the others come.
    context.run_values(&set.inputs)?;
    let shapes: Shapes = inputs.iter().map(|t| t.shape().to_vec()).collect();
    let (mut agreed, mut library, mut tried) = (0, false, 0);
    for change in changes(&shapes).into_iter().take(MOST_CHANGES) {
        tried += 1;
        let inputs = inputs
            .iter()
            .zip(&change)
            .map(|(t, shape)| repeated(t, shape));
        let inputs: Vec<OwnedValue> = inputs.collect::<Result<_, _>>()?;
        let place = || format!("at {change:?}");
        let expected = reference(&model, &inputs, &change);
        let found = context.run_values(&inputs);
        match (expected, found) {
            // Both refuse it; but a defect is no refusal.
            (Err(_), Err(found)) if found.class() == Class::Other => {
                return Ok(Outcome::new("strict", format!("{}: {found}", place())));
            }
            (Err(_), Err(_)) => {}
            (Err(expected), Ok(_)) => {
                let text = format!("{}: taken, but the reference says: {expected}", place());
                return Ok(Outcome::new("lenient", text));
            }
            (Ok(_), Err(found)) => {
                return Ok(Outcome::new("strict", format!("{}: {found}", place())));
            }
            (Ok((expected, by_library)), Ok(found)) => {
                if expected.len() != found.len() {
                    let text = format!(
                        "{}: {} outputs for {}",
                        place(),
                        found.len(),
                        expected.len()
                    );
                    return Ok(Outcome::new("strict", text));
                }
                for (expected, found) in expected.iter().zip(&found) {
                    let tolerance = tolerance(case, expected);
                    crate::expected::compare(&case.name, expected, found, tolerance)
                        .map_err(|e| crate::expected::placed(e, &place()))?;
                }
                agreed += 1;
                library |= by_library;
            }
        }
    }
    Ok(match (tried, agreed) {
        (0, _) => Outcome::new("no-dims", "-"),
        (_, 0) => Outcome::new("refused", format!("{tried} shapes")),
        _ if library => Outcome::new("pass-by-library", format!("{agreed} of {tried} shapes")),
        _ => Outcome::new("pass", format!("{agreed} of {tried} shapes")),
    })
}

/// That of the case, which speaks of its own values; half floats that are rounded at other places may be two apart.
fn tolerance(case: &Case, value: &OwnedValue) -> Tolerance {
    let half = value.tensor().is_some_and(|t| t.dtype() == DType::F16);
    Tolerance {
        rtol: case.tolerance.rtol.max(if half { 4e-3 } else { 1e-3 }),
        atol: case.tolerance.atol.max(if half { 1e-3 } else { 1e-5 }),
    }
}

/// Other shapes, the likely ones first.
fn changes(shapes: &Shapes) -> Vec<Shapes> {
    let mut sizes: Vec<usize> = shapes
        .iter()
        .flatten()
        .copied()
        .filter(|n| *n > 0)
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut all: Vec<Shapes> = Vec::new();
    let mut add = |new: Shapes| {
        let small = |shape: &Vec<usize>| shape.iter().product::<usize>() <= MOST_ELEMENTS;
        if new != *shapes && new.iter().all(small) && !all.contains(&new) {
            all.push(new);
        }
    };
    let map = |f: &dyn Fn(usize) -> usize| -> Shapes {
        let each = shapes.iter().map(|s| s.iter().map(|n| f(*n)).collect());
        each.collect()
    };
    for size in &sizes {
        add(map(&|n| if n == *size { n + 1 } else { n }));
        add(map(&|n| if n == *size { n * 2 } else { n }));
    }
    for (i, shape) in shapes.iter().enumerate() {
        for axis in (0..shape.len()).filter(|a| shape[*a] > 0) {
            let mut new = shapes.clone();
            new[i][axis] += 1;
            add(new);
        }
    }
    all
}

/// A tensor's elements under another shape of the same rank, begun anew along an axis that is longer.
fn repeated(tensor: &Tensor, shape: &[usize]) -> Result<OwnedValue, Error> {
    let old = tensor.shape();
    let count: usize = shape.iter().product();
    let from = |mut place: usize| {
        let (mut at, mut stride) = (0, 1);
        for (new, old) in shape.iter().zip(old).rev() {
            at += place % new % old * stride;
            place /= new;
            stride *= old;
        }
        at
    };
    if tensor.dtype() == DType::String {
        let strings = tensor.strings()?;
        let strings = (0..count).map(|i| strings[from(i)].clone()).collect();
        return Ok(Tensor::from_strings(shape, strings)?.into());
    }
    let width = tensor.dtype().bytes();
    let bytes = (0..count).flat_map(|i| {
        let at = from(i) * width;
        tensor.bytes()[at..at + width].iter().copied()
    });
    let bytes: Vec<u8> = bytes.collect();
    Ok(Tensor::from_bytes(tensor.dtype(), shape, &bytes)?.into())
}

/// What the model gives for inputs of these shapes, and whether library kernels took part.
fn reference(
    model: &Model,
    inputs: &[OwnedValue],
    shapes: &Shapes,
) -> Result<(Vec<OwnedValue>, bool), Error> {
    let mut options: Options = crate::options(false);
    for (name, shape) in model.input_names().iter().zip(shapes) {
        for (axis, n) in shape.iter().enumerate() {
            let size = i64::try_from(*n).unwrap_or(i64::MAX);
            let setting = DimSetting::Fixed(size);
            options.dims.push((format!("{name}.{axis}"), setting));
        }
    }
    let graph = pipeline::import(model, &options, Target::Memory)?;
    let data: Vec<interp::Value> = inputs
        .iter()
        .filter_map(OwnedValue::tensor)
        .map(|t| interp::Value::Tensor(data_of(t)))
        .collect();
    match interp::run_values(&graph, &data, &interp::Options::default()) {
        Ok(found) => {
            let found: Option<Vec<OwnedValue>> = found.iter().map(owned).collect();
            if let Some(found) = found {
                return Ok((found, false));
            }
        }
        Err(interp::InterpError::Unsupported { .. }) => {}
        Err(error) => return Err(Error::Other(error.to_string())),
    }
    let compiled: Compiled = model.compile(&options)?;
    Ok((compiled.context()?.run_values(inputs)?, true))
}

fn data_of(tensor: &Tensor) -> TensorData {
    let strings = tensor.strings().unwrap_or_default();
    TensorData {
        dtype: lapidary_graph::DType::from_onnx(tensor.dtype().onnx()).expect("a known type"),
        dims: tensor.shape().iter().map(|d| *d as i64).collect(),
        bytes: tensor.bytes().to_vec().into(),
        strings: strings.iter().map(|s| s.clone().into()).collect(),
    }
}

/// A result of the interpreter; `None` for elements that the runtime does not know.
fn owned(value: &interp::Value) -> Option<OwnedValue> {
    Some(match value {
        interp::Value::Tensor(data) => {
            let shape: Vec<usize> = data.dims.iter().map(|d| *d as usize).collect();
            let dtype = DType::from_onnx(data.dtype as i32)?;
            let tensor = if dtype == DType::String {
                let text = |s: &bytes::Bytes| String::from_utf8_lossy(s).into_owned();
                Tensor::from_strings(&shape, data.strings.iter().map(text).collect())
            } else {
                Tensor::from_bytes(dtype, &shape, &data.bytes)
            };
            tensor.ok()?.into()
        }
        interp::Value::Sequence(values) => {
            OwnedValue::Sequence(values.iter().map(owned).collect::<Option<_>>()?)
        }
        interp::Value::Optional(None) => OwnedValue::Optional(None),
        interp::Value::Optional(Some(value)) => OwnedValue::Optional(Some(Box::new(owned(value)?))),
        interp::Value::Map { keys, values } => match owned(&interp::Value::Tensor(keys.clone()))? {
            OwnedValue::Tensor(keys) => OwnedValue::Map {
                keys,
                values: Box::new(owned(values)?),
            },
            _ => return None,
        },
    })
}
