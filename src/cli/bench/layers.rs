//! Where a run's time goes, by ONNX node, and what bounds each step.
//!
//! The roofline model (Williams, Waterman and Patterson 2009): a step takes at least its operations over the peak rate,
//! and at least its bytes over the memory's bandwidth; the greater of both is what bounds it.

use lapidary::pipeline::Work;

use super::bandwidth::Bandwidth;
use crate::cli::profile::Call;

/// One step of a run.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The ONNX node.
    pub node: String,
    /// Kernel or library call.
    pub library: bool,
    /// Mean of the profiled runs.
    pub ms: f64,
    /// Multiplications and additions, or scalar operations where there are none of these.
    pub operations: Option<f64>,
    /// Of all operands, each once.
    pub bytes: Option<f64>,
    pub bound: Bound,
    /// The least time of the model over the time taken.
    pub of_roof: Option<f64>,
}

/// What a step waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Compute,
    Memory,
    /// Far from both roofs: calls, synchronisation, instructions that are not counted.
    Neither,
    Unknown,
}

impl Bound {
    pub fn name(self) -> &'static str {
        match self {
            Bound::Compute => "compute",
            Bound::Memory => "memory",
            Bound::Neither => "neither",
            Bound::Unknown => "unknown",
        }
    }
}

/// Below this part of its roof a step is bound by something else.
const FAR: f64 = 0.2;

/// The steps of a profile; `peak` in GFLOP/s.
pub fn layers(
    calls: &[Call],
    runs: usize,
    work: Option<(&Work, &[&[usize]])>,
    peak: Option<f64>,
    bandwidth: Option<Bandwidth>,
) -> Vec<Layer> {
    // Steps and calls agree one to one, unless a step is a plain copy or part of a loop.
    let steps = work.map(|(work, shapes)| (work.step_operations(shapes), work.step_bytes(shapes)));
    let steps = steps.filter(|(operations, _)| operations.len() == calls.len());
    let mut all = Vec::with_capacity(calls.len());
    for (at, call) in calls.iter().enumerate() {
        let ms = call.time.as_secs_f64() * 1e3 / runs.max(1) as f64;
        let operations = steps.as_ref().and_then(|(operations, _)| operations[at]);
        let bytes = steps.as_ref().and_then(|(_, bytes)| bytes[at]);
        let mut layer = Layer {
            node: call.node.clone(),
            library: call.library,
            ms,
            operations: operations.filter(|n| *n > 0.0),
            bytes,
            bound: Bound::Unknown,
            of_roof: None,
        };
        if let (Some(operations), Some(bytes)) = (operations, bytes)
            && let (Some(peak), Some(bandwidth)) = (peak, bandwidth)
        {
            let (compute, memory) = (operations / peak / 1e6, bytes / bandwidth.memory / 1e6);
            let of_roof = compute.max(memory) / ms.max(1e-9);
            layer.of_roof = Some(of_roof);
            layer.bound = match of_roof < FAR {
                true => Bound::Neither,
                false if compute > memory => Bound::Compute,
                false => Bound::Memory,
            };
        }
        all.push(layer);
    }
    all
}

/// Time by ONNX node, the longest first.
pub fn by_node(layers: &[Layer]) -> Vec<(&str, f64)> {
    let mut all: Vec<(&str, f64)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for layer in layers {
        let at = *places.entry(layer.node.as_str()).or_insert_with(|| {
            all.push((layer.node.as_str(), 0.0));
            all.len() - 1
        });
        all[at].1 += layer.ms;
    }
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all
}
