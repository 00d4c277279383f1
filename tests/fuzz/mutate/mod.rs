//! Changes to models: one structural change of a decoded model, or of its bytes, by a table of named mutations.
//!
//! In: a model and a generator of random numbers. Out: whether the model was changed. A mutation knows the messages of
//! ONNX and the table of signatures, so that many of its results are sound models that nobody would write: extreme
//! attributes, other element types, dims of 0, values wired elsewhere.

mod attributes;
mod constants;
mod control_flow;
mod source;
mod types;
mod wiring;

use lapidary::random::Random;
use lapidary_onnx::proto::ModelProto;

pub use source::Source;

/// Changes a model, if it has what is to be changed.
type Apply = fn(&mut Source<'_>, &mut ModelProto) -> bool;

/// Each mutation: the name that reports use, how often it is chosen in relation to others, and what it does.
const MUTATIONS: &[(&str, u64, Apply)] = &[
    ("attribute-value", 12, attributes::attribute_value),
    ("attribute-list", 6, attributes::attribute_list),
    ("attribute-dropped", 4, attributes::attribute_dropped),
    ("attribute-added", 8, attributes::attribute_added),
    ("attribute-retyped", 1, attributes::attribute_retyped),
    ("attribute-copied", 1, attributes::attribute_copied),
    ("attribute-reference", 1, attributes::attribute_reference),
    ("attribute-tensor", 3, attributes::attribute_tensor),
    ("types-together", 8, types::types_together),
    ("type-of-value", 3, types::type_of_value),
    ("dim", 8, types::dim),
    ("dim-freed", 5, types::dim_freed),
    ("rank", 3, types::rank),
    ("shape-removed", 2, types::shape_removed),
    ("outputs-free", 4, types::outputs_free),
    ("dims-together", 6, types::dims_together),
    ("container", 1, types::container),
    ("value-info", 1, types::value_info),
    ("input-rewired", 8, wiring::input_rewired),
    ("input-left-out", 3, wiring::input_left_out),
    ("input-dropped", 3, wiring::input_dropped),
    ("input-added", 2, wiring::input_added),
    ("inputs-swapped", 4, wiring::inputs_swapped),
    ("output-dropped", 2, wiring::output_dropped),
    ("output-added", 2, wiring::output_added),
    ("output-twice", 1, wiring::output_twice),
    ("graph-output", 4, wiring::graph_output),
    ("cycle", 1, wiring::cycle),
    ("node-copied", 2, wiring::node_copied),
    ("node-removed", 2, wiring::node_removed),
    ("nodes-swapped", 1, wiring::nodes_swapped),
    ("node-inserted", 6, wiring::node_inserted),
    ("operator", 8, wiring::operator),
    ("opset", 4, wiring::opset),
    ("ir-version", 1, wiring::ir_version),
    ("input-to-constant", 8, constants::input_to_constant),
    ("constant-to-input", 4, constants::constant_to_input),
    ("constant-content", 8, constants::constant_content),
    ("constant-shape", 2, constants::constant_shape),
    ("constant-type", 1, constants::constant_type),
    ("in-if", 4, control_flow::in_if),
    ("in-loop", 4, control_flow::in_loop),
    ("symbolic-reshape", 3, control_flow::shape_arithmetic),
];

/// Applies one mutation that changes the model, and gives its name.
pub fn mutate(source: &mut Source<'_>, model: &mut ModelProto) -> Option<&'static str> {
    let total: u64 = MUTATIONS.iter().map(|(_, weight, _)| weight).sum();
    for _ in 0..50 {
        let mut at = source.random.below(total);
        let chosen = MUTATIONS.iter().find(|(_, weight, _)| {
            let here = at < *weight;
            at = at.wrapping_sub(*weight);
            here
        });
        if let Some((name, _, apply)) = chosen
            && apply(source, model)
        {
            return Some(name);
        }
    }
    None
}

/// Changes some bytes of an encoded model.
pub fn corrupt(random: &mut Random, bytes: &mut Vec<u8>) -> &'static str {
    let mut below = |n: usize| random.below(n.max(1) as u64) as usize;
    match below(4) {
        0 => {
            bytes.truncate(below(bytes.len()));
            "bytes-cut"
        }
        1 => {
            let (from, length) = (below(bytes.len()), 1 + below(40));
            let part: Vec<u8> = bytes.iter().skip(from).take(length).copied().collect();
            let to = below(bytes.len());
            bytes.splice(to..to, part);
            "bytes-copied"
        }
        _ => {
            for _ in 0..=below(4) {
                let at = below(bytes.len());
                let value = below(256) as u8;
                let bit = 1u8 << below(8);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = if value & 1 == 0 { value } else { *byte ^ bit };
                }
            }
            "bytes-changed"
        }
    }
}
