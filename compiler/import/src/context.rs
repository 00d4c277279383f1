//! What a rule sees of the node it imports: inputs, attributes, opset; through [`std::ops::Deref`]
//! also the [`Builder`].

use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use bytes::Bytes;
use lapidary_graph::{DType, Dim, TensorData, ValueId};
use lapidary_onnx::proto::{AttributeProto, TensorProto, TypeProto};
use lapidary_onnx::schema::Schema;
use lapidary_onnx::{ModelFile, TensorView};

use crate::builder::Builder;
use crate::error::{Fail, invalid};

/// Outputs of a rule, in the order of the node's; absent or missing ones must not be asked for.
pub(crate) type Outs = Result<Vec<Option<ValueId>>, Fail>;

/// A rule: makes core operators of one ONNX node.
pub(crate) type Rule = fn(&mut Ctx<'_, '_>) -> Outs;

pub(crate) fn one(v: ValueId) -> Outs {
    Ok(vec![Some(v)])
}

pub(crate) fn all(v: Vec<ValueId>) -> Outs {
    Ok(v.into_iter().map(Some).collect())
}

/// One node.
pub(crate) struct Ctx<'a, 'm> {
    pub b: &'a mut Builder,
    pub model: &'m ModelFile,
    /// Operator type.
    pub op: &'m str,
    /// Version of the operator's domain.
    pub opset: i64,
    /// What ONNX says of the operator at that version, if it is one of its.
    pub schema: Option<Rc<Schema>>,
    pub inputs: Vec<Option<ValueId>>,
    /// Attributes with references to a function's resolved.
    pub attrs: Vec<(&'m str, &'m AttributeProto)>,
    /// For each output, whether the node names it.
    pub wanted: Vec<bool>,
}

impl Deref for Ctx<'_, '_> {
    type Target = Builder;
    fn deref(&self) -> &Builder {
        self.b
    }
}
impl DerefMut for Ctx<'_, '_> {
    fn deref_mut(&mut self) -> &mut Builder {
        self.b
    }
}

// The numbers of `AttributeProto.AttributeType`.
const FLOAT: i32 = 1;
const INT: i32 = 2;
const STRING: i32 = 3;
const TENSOR: i32 = 4;
const FLOATS: i32 = 6;
const INTS: i32 = 7;
const STRINGS: i32 = 8;
const TYPE: i32 = 13;

impl<'m> Ctx<'_, 'm> {
    /// A required input.
    pub fn input(&self, i: usize) -> Result<ValueId, Fail> {
        self.opt(i)
            .ok_or_else(|| invalid(format!("input {i} is missing")))
    }
    /// An optional input.
    pub fn opt(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }
    /// All inputs, none absent.
    pub fn all_inputs(&self) -> Result<Vec<ValueId>, Fail> {
        (0..self.inputs.len()).map(|i| self.input(i)).collect()
    }
    /// Whether output `i` is used.
    pub fn wants(&self, i: usize) -> bool {
        self.wanted.get(i).copied().unwrap_or(false)
    }

    fn attr(&self, name: &str, kind: i32) -> Result<Option<&'m AttributeProto>, Fail> {
        let Some((_, a)) = self.attrs.iter().find(|(n, _)| *n == name) else {
            return Ok(None);
        };
        // Old files leave the type out.
        if a.r#type != kind && a.r#type != 0 {
            return Err(invalid(format!(
                "attribute '{name}' is of type {}, expected {kind}",
                a.r#type
            )));
        }
        Ok(Some(a))
    }
    pub fn has(&self, name: &str) -> bool {
        self.attrs.iter().any(|(n, _)| *n == name)
    }
    pub fn int(&self, name: &str, default: i64) -> Result<i64, Fail> {
        Ok(self.attr(name, INT)?.map_or(default, |a| a.i))
    }
    pub fn int_required(&self, name: &str) -> Result<i64, Fail> {
        self.attr(name, INT)?
            .map(|a| a.i)
            .ok_or_else(|| invalid(format!("attribute '{name}' is missing")))
    }
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, Fail> {
        Ok(self.int(name, default as i64)? != 0)
    }
    /// A flag that ONNX compares with 1: no other number than 0 and 1 is taken for one.
    pub fn zero_or_one(&self, name: &str, default: bool) -> Result<bool, Fail> {
        match self.int(name, default as i64)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(invalid(format!(
                "attribute '{name}' is {other}, expected 0 or 1"
            ))),
        }
    }
    /// An input that is a list.
    pub fn list_input(&self, i: usize) -> Result<ValueId, Fail> {
        let v = self.input(i)?;
        match self.g.ty(v).rank() {
            None | Some(1) => Ok(v),
            Some(rank) => Err(invalid(format!("input {i} is of rank {rank}, expected 1"))),
        }
    }
    pub fn float(&self, name: &str, default: f32) -> Result<f32, Fail> {
        Ok(self.attr(name, FLOAT)?.map_or(default, |a| a.f))
    }
    pub fn ints(&self, name: &str) -> Result<Option<&'m [i64]>, Fail> {
        Ok(self.attr(name, INTS)?.map(|a| a.ints.as_slice()))
    }
    pub fn floats(&self, name: &str) -> Result<Option<&'m [f32]>, Fail> {
        Ok(self.attr(name, FLOATS)?.map(|a| a.floats.as_slice()))
    }
    pub fn strings(&self, name: &str) -> Result<Option<&'m [Bytes]>, Fail> {
        let Some(a) = self.attr(name, STRINGS)? else {
            return Ok(None);
        };
        match a
            .strings
            .iter()
            .position(|s| std::str::from_utf8(s).is_err())
        {
            Some(at) => Err(invalid(format!(
                "entry {at} of attribute '{name}' is not UTF-8"
            ))),
            None => Ok(Some(&a.strings)),
        }
    }
    pub fn string(&self, name: &str, default: &'static str) -> Result<&'m str, Fail> {
        match self.attr(name, STRING)? {
            None => Ok(default),
            Some(a) => std::str::from_utf8(&a.s)
                .map_err(|_| invalid(format!("attribute '{name}' is not UTF-8"))),
        }
    }
    pub fn tensor(&self, name: &str) -> Result<Option<TensorData>, Fail> {
        match self.attr(name, TENSOR)?.and_then(|a| a.t.as_ref()) {
            Some(t) => tensor_data(self.model, t).map(Some),
            None => Ok(None),
        }
    }
    /// An attribute that is a type.
    pub fn type_attr(&self, name: &str) -> Result<Option<&'m TypeProto>, Fail> {
        Ok(self.attr(name, TYPE)?.and_then(|a| a.tp.as_ref()))
    }
    /// The type attribute `name` names, or the default.
    pub fn dtype_attr(&self, name: &str, default: DType) -> Result<DType, Fail> {
        match self.attr(name, INT)? {
            None => Ok(default),
            Some(a) => dtype(a.i as i32),
        }
    }
    /// One of several names; the error lists them.
    pub fn choice(
        &self,
        name: &str,
        default: &'static str,
        of: &[&'static str],
    ) -> Result<usize, Fail> {
        let s = self.string(name, default)?;
        of.iter().position(|o| *o == s).ok_or_else(|| {
            invalid(format!(
                "attribute '{name}' is '{s}', expected one of {}",
                of.join(", ")
            ))
        })
    }
    /// A list that is an attribute in old opsets and input `i` in new ones: `None` when absent,
    /// `Some(None)` when it is only known at run time.
    pub fn list(&mut self, name: &str, i: usize) -> Result<Option<Option<Vec<Dim>>>, Fail> {
        if let Some(v) = self.opt(i) {
            return Ok(Some(self.known(v).map(|k| k.to_vec())));
        }
        Ok(self
            .ints(name)?
            .map(|a| Some(a.iter().map(|v| Dim::Const(*v)).collect())))
    }
    /// The same where the elements must be plain numbers.
    pub fn int_list(&mut self, name: &str, i: usize) -> Result<Option<Option<Vec<i64>>>, Fail> {
        Ok(self
            .list(name, i)?
            .map(|l| l.and_then(|l| l.iter().map(Dim::as_const).collect())))
    }
}

/// Fails if two dimensions are certain to differ.
pub(crate) fn same(what: &str, a: &Dim, b: &Dim) -> Result<(), Fail> {
    if a.equals(b) == Some(false) {
        return Err(invalid(format!(
            "{what} are {a} and {b}, expected the same"
        )));
    }
    Ok(())
}

/// Fails unless a value broadcasts to these dimensions and leaves them as they are.
pub(crate) fn broadcasts_to(what: &str, from: &[Dim], to: &[Dim]) -> Result<(), Fail> {
    let fits = from.len() <= to.len()
        && from
            .iter()
            .rev()
            .zip(to.iter().rev())
            .all(|(a, b)| a.is_const(1) || a.equals(b) != Some(false));
    if fits {
        return Ok(());
    }
    Err(invalid(format!(
        "{what} of dimensions [{}] does not broadcast to [{}]",
        dims_text(from),
        dims_text(to)
    )))
}

/// Dimensions as an error shows them.
pub(crate) fn dims_text(dims: &[Dim]) -> String {
    let dims: Vec<String> = dims.iter().map(Dim::to_string).collect();
    dims.join(", ")
}

/// An axis counted from the front.
pub(crate) fn axis(a: i64, rank: usize) -> Result<usize, Fail> {
    let r = rank as i64;
    let n = if a < 0 { a.saturating_add(r) } else { a };
    if n < 0 || n >= r {
        return Err(invalid(format!("axis {a} is out of range for rank {rank}")));
    }
    Ok(n as usize)
}

/// An element type by ONNX number.
pub(crate) fn dtype(code: i32) -> Result<DType, Fail> {
    DType::from_onnx(code)
        .ok_or_else(|| invalid(format!("element type {code} is not defined by ONNX")))
}

/// The elements of a tensor; bytes are shared with the file, but for elements of less than one.
pub(crate) fn tensor_data(model: &ModelFile, t: &TensorProto) -> Result<TensorData, Fail> {
    let dtype = dtype(t.data_type)?;
    let view = model.tensor_data(t).map_err(|e| invalid(e.to_string()))?;
    let bytes = view.unpacked();
    let TensorView { dims, strings, .. } = view;
    // Readers multiply the sizes without looking; a 0 among huge ones would hide an overflow.
    if dims
        .iter()
        .try_fold(1i64, |a, d| a.checked_mul(*d))
        .is_none()
    {
        return Err(invalid(format!("a tensor of dimensions {dims:?}")));
    }
    Ok(TensorData {
        dtype,
        dims,
        bytes,
        strings: strings.unwrap_or_default(),
    })
}
