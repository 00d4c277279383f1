//! Inputs for runs of a changed model: those of the model it was made of, as far as they still fit, and random ones.

use lapidary::random::Random;
use lapidary::{DType, Dim, Model, OwnedValue, Tensor, ValueInfo};

/// Inputs of more elements are not made.
const MOST_ELEMENTS: usize = 1 << 18;

/// Values that free dims get.
const SIZES: [usize; 8] = [0, 1, 2, 3, 5, 8, 17, 33];

/// Values by the names of inputs.
pub type Named = Vec<(String, OwnedValue)>;

/// A value for each input: `known` ones where they fit, unless `fresh`; `None` if one cannot be made.
pub fn inputs(
    random: &mut Random,
    model: &Model,
    known: &Named,
    fresh: bool,
) -> Option<Vec<OwnedValue>> {
    let mut named: Vec<(String, usize)> = Vec::new();
    let infos = model.inputs();
    if infos.len() != model.input_names().len() {
        return None;
    }
    if !fresh {
        // Free dims are first those of the values that are kept.
        for info in &infos {
            let value = known_of(known, &info.name).and_then(OwnedValue::tensor);
            for (dim, size) in info
                .dims
                .iter()
                .flatten()
                .zip(value.map_or(&[][..], Tensor::shape))
            {
                if let Some(name) = &dim.name
                    && named.iter().all(|(n, _)| n != name)
                {
                    named.push((name.clone(), *size));
                }
            }
        }
    }
    infos
        .iter()
        .map(|info| {
            let value = known_of(known, &info.name);
            match value {
                Some(value) if !info.containers.is_empty() => Some(value.clone()),
                Some(OwnedValue::Tensor(tensor)) if !fresh && fits(info, tensor, &named) => {
                    Some(OwnedValue::Tensor(tensor.clone()))
                }
                _ if !info.containers.is_empty() => None,
                value => {
                    let like = value.and_then(OwnedValue::tensor).map(Tensor::shape);
                    tensor(random, info, like.unwrap_or(&[]), &mut named).map(OwnedValue::Tensor)
                }
            }
        })
        .collect()
}

fn known_of<'k>(known: &'k Named, name: &str) -> Option<&'k OwnedValue> {
    known.iter().find(|(n, _)| n == name).map(|(_, v)| v)
}

fn fits(info: &ValueInfo, tensor: &Tensor, named: &[(String, usize)]) -> bool {
    let dim_fits = |dim: &Dim, size: usize| match (&dim.name, dim.value) {
        (_, Some(value)) => value == size,
        (Some(name), None) => named.iter().all(|(n, v)| n != name || *v == size),
        (None, None) => true,
    };
    info.dtype == tensor.dtype()
        && info.dims.as_ref().is_none_or(|dims| {
            dims.len() == tensor.shape().len()
                && dims
                    .iter()
                    .zip(tensor.shape())
                    .all(|(d, s)| dim_fits(d, *s))
        })
}

fn tensor(
    random: &mut Random,
    info: &ValueInfo,
    like: &[usize],
    named: &mut Vec<(String, usize)>,
) -> Option<Tensor> {
    let shape: Vec<usize> = match &info.dims {
        None => like.to_vec(),
        Some(dims) => dims
            .iter()
            .map(|dim| match (dim.value, &dim.name) {
                (Some(value), _) => value,
                (None, name) => {
                    let known = named.iter().find(|(n, _)| Some(n) == name.as_ref());
                    known.map(|(_, size)| *size).unwrap_or_else(|| {
                        let size = SIZES[random.below(SIZES.len() as u64) as usize];
                        named.extend(name.clone().map(|name| (name, size)));
                        size
                    })
                }
            })
            .collect(),
    };
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
    if count > MOST_ELEMENTS {
        return None;
    }
    content(random, info.dtype, &shape)
}

/// Elements of a type; now and then extreme ones.
pub fn content(random: &mut Random, dtype: DType, shape: &[usize]) -> Option<Tensor> {
    if dtype == DType::String {
        let words = ["", "a", "b", "cat", "zebra", "-1.5e3", "\u{e9}t\u{e9}", "7"];
        let count = shape.iter().product();
        let strings = (0..count).map(|_| words[random.below(words.len() as u64) as usize].into());
        return Tensor::from_strings(shape, strings.collect()).ok();
    }
    let bound = [2u8, 4, 10, 100][random.below(4) as usize];
    let mut tensor = random.tensor(dtype, shape, bound).ok()?;
    let width = dtype.bytes();
    if random.below(3) == 0 && width > 0 && dtype != DType::Bool {
        // Patterns that are extreme numbers, infinities, NaN or small in most types.
        let patterns = [0x00u8, 0x01, 0x7f, 0x80, 0xff];
        let narrow = matches!(dtype, DType::I4 | DType::U4 | DType::I2 | DType::U2);
        let most = if narrow { 1 } else { 0xff };
        for element in tensor.bytes_mut().chunks_exact_mut(width) {
            if random.below(4) == 0 {
                let low = patterns[random.below(5) as usize];
                let high = patterns[random.below(5) as usize];
                element.fill(low & most);
                if let Some(last) = element.last_mut() {
                    *last = high & most;
                }
            }
        }
    }
    Some(tensor)
}

/// Inputs of which one does not fit: another type, rank or size.
pub fn spoil(random: &mut Random, inputs: &[OwnedValue]) -> Option<Vec<OwnedValue>> {
    let mut spoiled = inputs.to_vec();
    if spoiled.is_empty() {
        return None;
    }
    let at = random.below(spoiled.len() as u64) as usize;
    let OwnedValue::Tensor(tensor) = &spoiled[at] else {
        spoiled[at] = OwnedValue::Tensor(Tensor::scalar(1.0f32));
        return Some(spoiled);
    };
    let mut shape = tensor.shape().to_vec();
    let mut dtype = tensor.dtype();
    match random.below(6) {
        0 => {
            dtype = if dtype == DType::F32 {
                DType::I64
            } else {
                DType::F32
            }
        }
        1 => dtype = DType::U8,
        2 => shape.push(1),
        3 => drop(shape.pop()),
        4 => shape.iter_mut().for_each(|d| *d = 0),
        _ => match shape.first_mut() {
            Some(first) => *first += 1,
            None => shape.push(2),
        },
    }
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
    if count > MOST_ELEMENTS {
        return None;
    }
    let new = content(random, dtype, &shape)?;
    spoiled[at] = OwnedValue::Tensor(new);
    Some(spoiled)
}
