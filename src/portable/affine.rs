//! What follows a convolution and is the same for all pixels of a channel goes into its weights.
//!
//! `BatchNormalization` in inference, and products and sums with a constant for each output channel. Weights are f32, and
//! multiplied in f64 and rounded once. A convolution whose result somebody else reads as well stays as it is.

use std::collections::HashMap;

use lapidary_graph::{DType, TensorData};
use lapidary_onnx::proto::NodeProto;

use super::draft::{Draft, float, int, is};

/// `y = scale * x + shift`, for each channel.
struct Affine {
    scale: Vec<f64>,
    shift: Vec<f64>,
    /// The input that is x.
    of: String,
}

pub fn into_convolutions(draft: &mut Draft) {
    let (mut producers, uses) = (draft.producers(), draft.uses());
    // From the first to the last: what has taken one in can take in another.
    for n in 0..draft.graph.node.len() {
        if let Some((output, conv)) = take_in(draft, n, &producers, &uses) {
            producers.insert(output, conv);
        }
    }
}

/// Takes node `n` into the convolution before it; the value that this makes now, and its number.
fn take_in(
    draft: &mut Draft,
    n: usize,
    producers: &HashMap<String, usize>,
    uses: &HashMap<String, usize>,
) -> Option<(String, usize)> {
    let node = draft.graph.node.get(n)?;
    let output = node.output.first()?.clone();
    let (conv, affine) = [0, 1].into_iter().find_map(|operand| {
        let of = node.input.get(operand)?;
        let conv = producers.get(of).copied()?;
        let maker = draft.graph.node.get(conv)?;
        let fits = is(maker, "Conv") || (is(maker, "ConvTranspose") && int(maker, "group", 1) == 1);
        fits.then_some(())?;
        Some((conv, affine(draft, node, operand, maker)?))
    })?;
    if uses.get(&affine.of).copied() != Some(1) {
        return None;
    }
    let maker = draft.graph.node.get(conv)?.clone();
    let channel_axis = usize::from(is(&maker, "ConvTranspose"));
    let weights = draft.facts.constant(maker.input.get(1)?)?.clone();
    let bias = match maker.input.get(2).filter(|name| !name.is_empty()) {
        Some(name) => Some(draft.facts.constant(name)?.to_f32s()?),
        None => None,
    };
    let (weights, bias) = scaled(&weights, bias, channel_axis, &affine)?;
    let weights = draft.add_constant(&format!("{}_scaled", maker.input.get(1)?), weights);
    let bias = draft.add_constant(&format!("{output}_bias"), bias);
    let unread = draft.fresh(&format!("{output}_unread"));
    *draft.graph.node.get_mut(n)?.output.first_mut()? = unread;
    let maker = draft.graph.node.get_mut(conv)?;
    let image = maker.input.first()?.clone();
    maker.input = vec![image, weights, bias];
    *maker.output.first_mut()? = output.clone();
    draft.graph.value_info.retain(|v| v.name != affine.of);
    Some((output, conv))
}

/// What a node does to its input `operand`, the result of a convolution, if that is the same for each channel.
fn affine(draft: &Draft, node: &NodeProto, operand: usize, conv: &NodeProto) -> Option<Affine> {
    let of = node.input.get(operand)?.clone();
    (draft.facts.dtype(&of)? == DType::F32).then_some(())?;
    let rank = draft.facts.dims(&of)?.len();
    let weights = draft.facts.constant(conv.input.get(1)?)?;
    let axis = usize::from(is(conv, "ConvTranspose"));
    let channels = usize::try_from(*weights.dims.get(axis)?).ok()?;
    let vector = |name: Option<&String>| -> Option<Vec<f64>> {
        let data = draft.facts.constant(name?)?;
        let values = data.to_f32s()?;
        (values.len() == channels).then(|| values.into_iter().map(f64::from).collect())
    };
    if is(node, "BatchNormalization") {
        let extra = node.output.iter().skip(1).any(|name| !name.is_empty());
        if operand != 0
            || extra
            || int(node, "training_mode", 0) != 0
            || int(node, "spatial", 1) != 1
        {
            return None;
        }
        let gamma = vector(node.input.get(1))?;
        let beta = vector(node.input.get(2))?;
        let mean = vector(node.input.get(3))?;
        let variance = vector(node.input.get(4))?;
        let epsilon = f64::from(float(node, "epsilon", 1e-5));
        let scale: Vec<f64> = gamma
            .iter()
            .zip(&variance)
            .map(|(gamma, variance)| gamma / (variance + epsilon).sqrt())
            .collect();
        let moved = beta.iter().zip(&mean).zip(&scale);
        let shift = moved.map(|((beta, mean), scale)| beta - mean * scale);
        return Some(Affine {
            shift: shift.collect(),
            scale,
            of,
        });
    }
    let (is_mul, is_add) = (is(node, "Mul"), is(node, "Add"));
    if !is_mul && !is_add {
        return None;
    }
    let other = node.input.get(1 - operand)?;
    let data = draft.facts.constant(other)?;
    // One value, or one a channel: of dims [.., channels, 1, 1].
    let per_channel = data.dims.len() + 1 >= rank
        && data.dims.len() <= rank
        && data
            .dims
            .iter()
            .rev()
            .enumerate()
            .all(|(back, size)| *size == 1 || (back + 2 == rank && *size == channels as i64));
    let values: Vec<f64> = if data.len() == 1 && data.dims.len() <= rank {
        vec![f64::from(*data.to_f32s()?.first()?); channels]
    } else if per_channel {
        vector(Some(other))?
    } else {
        return None;
    };
    Some(match is_mul {
        true => Affine {
            shift: vec![0.0; channels],
            scale: values,
            of,
        },
        false => Affine {
            scale: vec![1.0; channels],
            shift: values,
            of,
        },
    })
}

/// Weights and bias with an affine map taken in.
fn scaled(
    weights: &TensorData,
    bias: Option<Vec<f32>>,
    axis: usize,
    affine: &Affine,
) -> Option<(TensorData, TensorData)> {
    let channels = affine.scale.len();
    let behind = weights.dims.get(axis + 1..)?.iter().product::<i64>();
    let behind = usize::try_from(behind).ok()?.max(1);
    let values = weights.to_f32s()?;
    let values: Vec<f32> = values
        .iter()
        .enumerate()
        .map(|(i, value)| {
            let channel = i / behind % channels.max(1);
            let scale = affine.scale.get(channel).copied().unwrap_or(1.0);
            (f64::from(*value) * scale) as f32
        })
        .collect();
    let bias = bias.unwrap_or_else(|| vec![0.0; channels]);
    let maps = affine.scale.iter().zip(&affine.shift);
    let bias: Vec<f32> = bias
        .iter()
        .zip(maps)
        .map(|(bias, (scale, shift))| (f64::from(*bias) * scale + shift) as f32)
        .collect();
    // What overflows is left to the model's own order.
    let finite = |values: &[f32]| values.iter().all(|v| v.is_finite());
    (finite(&values) && finite(&bias)).then(|| {
        (
            TensorData::from_f32(weights.dims.clone(), &values),
            TensorData::from_f32(vec![channels as i64], &bias),
        )
    })
}
