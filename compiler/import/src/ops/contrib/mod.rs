//! Operators that onnxruntime defines beside ONNX: the domain `com.microsoft`, and the few of them that its exporters
//! write into the default domain. docs/contrib.md says what of each is taken.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod embed;
pub(crate) mod fused;
pub(crate) mod gather;
pub(crate) mod gqa;
pub(crate) mod heads;
pub(crate) mod nbits;
pub(crate) mod nhwc;
pub(crate) mod norm;
pub(crate) mod quant;
pub(crate) mod rotary;
pub(crate) mod views;

use crate::context::Ctx;
use crate::error::{Fail, unsupported};

/// Refuses inputs that no rule reads.
fn refuse_inputs(cx: &Ctx, inputs: &[(usize, &str)]) -> Result<(), Fail> {
    match inputs.iter().find(|(i, _)| cx.opt(*i).is_some()) {
        Some((i, name)) => Err(unsupported(format!("input {i} ('{name}')"))),
        None => Ok(()),
    }
}

/// Refuses integer attributes that are set to anything but this value.
fn refuse_ints(cx: &Ctx, attributes: &[(&str, i64)]) -> Result<(), Fail> {
    for (name, usual) in attributes {
        let found = cx.int(name, *usual)?;
        if found != *usual {
            return Err(unsupported(format!(
                "attribute '{name}' is {found}, expected {usual}"
            )));
        }
    }
    Ok(())
}
