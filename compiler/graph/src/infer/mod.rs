//! Shape and type inference: the output types of one node from those of its inputs.
//!
//! In: an [`Op`] and its inputs' types (`None` for an absent one). Out: one [`TensorType`] an
//! output, symbolic where the inputs are, and the requirements on dimensions that could be
//! neither proved nor refuted; these are accepted here and tested at run time
//! (see [`crate::verify::run_time_checks`]).
//! Rules never look at constants' values: what a rule needs is in the operator.
//! An unranked input gives an unranked output unless the operator states the shape.

mod contract;
pub(crate) use contract::axes;
mod index;
pub use index::tuple_length;
mod pointwise;
mod rows;
mod views;

use crate::{DType, Dim, Graph, Op, TensorType};
pub use pointwise::check_body;

/// Why a node has no type. The caller adds the node's name.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InferError {
    /// Too few or too many operands.
    #[error("{op}: expected {expected} inputs, found {found}")]
    InputCount {
        /// The operator's name in text forms.
        op: String,
        /// A number or a range of numbers.
        expected: String,
        /// How many there are.
        found: usize,
    },
    /// An optional operand that is needed after all.
    #[error("{op}: input {input} ({what}) is absent, but needed")]
    Absent {
        /// The operator's name in text forms.
        op: String,
        /// The operand's number.
        input: usize,
        /// What the operand is to the operator.
        what: String,
    },
    /// An element type that the operator does not take.
    #[error("{op}: {what}: expected type {expected}, found {found}")]
    DType {
        /// The operator's name in text forms.
        op: String,
        /// The operand.
        what: String,
        /// The types that it takes.
        expected: String,
        /// The operand's.
        found: DType,
    },
    /// An operand with the wrong number of dimensions.
    #[error("{op}: {what}: expected rank {expected}, found {found}")]
    Rank {
        /// The operator's name in text forms.
        op: String,
        /// The operand.
        what: String,
        /// The ranks that it takes.
        expected: String,
        /// The operand's.
        found: usize,
    },
    /// A dimension that is surely another than the one it must equal.
    #[error("{op}: {what}: expected dimension {expected}, found {found}")]
    Dim {
        /// The operator's name in text forms.
        op: String,
        /// The operand and its axis, or the parameter.
        what: String,
        /// What it must equal.
        expected: Dim,
        /// What it is.
        found: Dim,
    },
    /// Two dimensions that surely differ, neither of them 1.
    #[error("{op}: {what}: dimensions {left} and {right} cannot be broadcast to each other")]
    Broadcast {
        /// The operator's name in text forms.
        op: String,
        /// The axis.
        what: String,
        /// That of the operands before.
        left: Dim,
        /// That of this operand.
        right: Dim,
    },
    /// A static parameter out of its range.
    #[error("{op}: attribute {attribute}: expected {expected}, found {found}")]
    Attribute {
        /// The operator's name in text forms.
        op: String,
        /// The parameter, as the text form spells it.
        attribute: String,
        /// The range.
        expected: String,
        /// The parameter's value.
        found: String,
    },
    /// A pointwise expression that breaks a rule of types.
    #[error("{op}: expression node {node}: {problem}")]
    Body {
        /// The operator's name in text forms.
        op: String,
        /// Position in the expression.
        node: usize,
        /// The rule.
        problem: String,
    },
    /// There is no rule for library calls.
    #[error("library {name}: types are stated by the importer")]
    Library {
        /// The kernel's name, without `lap_lib_`.
        name: String,
    },
}

impl InferError {
    /// The message with the symbols' names.
    pub fn text(&self, graph: &Graph) -> String {
        match self {
            InferError::Dim {
                op,
                what,
                expected,
                found,
            } => format!(
                "{op}: {what}: expected dimension {}, found {}",
                graph.dim_text(expected),
                graph.dim_text(found)
            ),
            InferError::Broadcast {
                op,
                what,
                left,
                right,
            } => format!(
                "{op}: {what}: dimensions {} and {} cannot be broadcast to each other",
                graph.dim_text(left),
                graph.dim_text(right)
            ),
            other => other.to_string(),
        }
    }
}

/// What must hold between two dimensions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CheckKind {
    /// `left == right`.
    Equal,
    /// `left == right`, or one of them is 1.
    Broadcastable,
    /// `left == 1` or `left == right`.
    BroadcastsTo,
    /// `left <= right`.
    AtMost,
}

impl CheckKind {
    /// Whether two sizes satisfy the relation.
    pub fn holds(self, left: i64, right: i64) -> bool {
        match self {
            CheckKind::Equal => left == right,
            CheckKind::Broadcastable => left == right || left == 1 || right == 1,
            CheckKind::BroadcastsTo => left == right || left == 1,
            CheckKind::AtMost => left <= right,
        }
    }
}

/// A relation that a node needs and that could not be decided symbolically.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Requirement {
    /// The axis that it is about (of the output, or of the input that `what` names).
    pub(crate) axis: usize,
    pub(crate) left: Dim,
    pub(crate) right: Dim,
    pub(crate) kind: CheckKind,
}

/// The types of a node's outputs.
pub fn output_types(
    op: &Op,
    inputs: &[Option<&TensorType>],
) -> Result<Vec<TensorType>, InferError> {
    output_types_and_requirements(op, inputs).map(|r| r.0)
}

/// The types of a node's outputs, and what must hold at run time for them to be right.
pub(crate) fn output_types_and_requirements(
    op: &Op,
    inputs: &[Option<&TensorType>],
) -> Result<(Vec<TensorType>, Vec<Requirement>), InferError> {
    let mut cx = Context {
        op: op.name(),
        inputs,
        needs: Vec::new(),
    };
    let cx = &mut cx;
    let one = |t: TensorType| vec![t];
    let types = match op {
        Op::Pointwise { body, shape } => one(pointwise::pointwise(cx, body, shape.as_deref())?),
        Op::Shape(dims) => {
            cx.count(0, 0)?;
            cx.dims_valid("dims", dims)?;
            one(TensorType::new(DType::I64, [Dim::from(dims.len())]))
        }
        Op::Contract { a, b, out } => one(contract::contract(cx, a, b, out)?),
        Op::Conv { window, groups } => one(contract::conv(cx, window, groups)?),
        Op::ConvTranspose {
            window,
            groups,
            output_padding,
        } => one(contract::conv_transpose(
            cx,
            window,
            *groups,
            output_padding,
        )?),
        Op::Pool { kind, window, out } => one(contract::pool(cx, *kind, window, out)?),
        Op::Reduce { kind, axes, keep } => one(rows::reduce(cx, *kind, axes, *keep)?),
        Op::ArgReduce { axis, keep, .. } => one(rows::arg_reduce(cx, *axis, *keep)?),
        Op::CumSum { axis, .. } => one(rows::along(cx, *axis, false)?),
        Op::Softmax { axis, .. } => one(rows::along(cx, *axis, true)?),
        Op::Normalize { axis, epsilon, .. } => one(rows::normalize(cx, *axis, *epsilon)?),
        Op::Attention(attrs) => one(contract::attention(cx, attrs)?),
        Op::Reshape { shape } => one(views::reshape(cx, shape)?),
        Op::Transpose { perm } => one(views::transpose(cx, perm)?),
        Op::Broadcast { shape } => one(views::broadcast(cx, shape)?),
        Op::Slice { start, step, size } => one(views::slice(cx, start, step, size)?),
        Op::Concat { axis } => one(views::concat(cx, *axis)?),
        Op::Pad {
            before,
            after,
            mode,
        } => one(views::pad(cx, before, after, *mode)?),
        Op::Gather { axis } => one(index::gather(cx, *axis)?),
        Op::GatherElements { axis } => one(index::gather_elements(cx, *axis)?),
        Op::GatherNd { batch } => one(index::gather_nd(cx, *batch)?),
        Op::ScatterElements { axis, reduce } => one(index::scatter_elements(cx, *axis, *reduce)?),
        Op::ScatterNd { reduce } => one(index::scatter_nd(cx, *reduce)?),
        Op::Trees(trees) => rows::trees(cx, trees)?,
        Op::Library(call) => {
            return Err(InferError::Library {
                name: call.name.clone(),
            });
        }
        Op::Region(_) => {
            return Err(InferError::Library {
                name: op.name().into(),
            });
        }
    };
    Ok((types, std::mem::take(&mut cx.needs)))
}

/// One node being typed: its inputs, and the requirements met so far.
struct Context<'a> {
    op: &'a str,
    inputs: &'a [Option<&'a TensorType>],
    needs: Vec<Requirement>,
}

/// Groups of element types that rules ask for.
#[derive(Clone, Copy)]
enum Class {
    Float,
    Int,
    Numeric,
    /// `Bool` or integers.
    Bits,
    Index,
}

impl Class {
    fn has(self, t: DType) -> bool {
        match self {
            Class::Float => t.is_float(),
            Class::Int => t.is_int(),
            Class::Numeric => t.is_float() || t.is_int(),
            Class::Bits => t.is_int() || t == DType::Bool,
            Class::Index => matches!(t, DType::I32 | DType::I64),
        }
    }
    fn text(self) -> &'static str {
        match self {
            Class::Float => "float",
            Class::Int => "integer",
            Class::Numeric => "numeric",
            Class::Bits => "bool or integer",
            Class::Index => "i32 or i64",
        }
    }
}

impl<'a> Context<'a> {
    fn count(&self, min: usize, max: usize) -> Result<(), InferError> {
        let found = self.inputs.len();
        if found < min || found > max {
            let expected = if min == max {
                min.to_string()
            } else {
                format!("{min} to {max}")
            };
            return Err(InferError::InputCount {
                op: self.op.into(),
                expected,
                found,
            });
        }
        Ok(())
    }
    /// An input that must be there.
    fn input(&self, i: usize, what: &str) -> Result<&'a TensorType, InferError> {
        self.optional(i).ok_or_else(|| InferError::Absent {
            op: self.op.into(),
            input: i,
            what: what.into(),
        })
    }
    fn optional(&self, i: usize) -> Option<&'a TensorType> {
        self.inputs.get(i).copied().flatten()
    }
    fn class(&self, what: &str, t: &TensorType, class: Class) -> Result<(), InferError> {
        if class.has(t.dtype) {
            return Ok(());
        }
        Err(InferError::DType {
            op: self.op.into(),
            what: what.into(),
            expected: class.text().into(),
            found: t.dtype,
        })
    }
    fn dtype(&self, what: &str, t: &TensorType, expected: DType) -> Result<(), InferError> {
        if t.dtype == expected {
            return Ok(());
        }
        Err(InferError::DType {
            op: self.op.into(),
            what: what.into(),
            expected: expected.name().into(),
            found: t.dtype,
        })
    }
    fn rank_error(&self, what: &str, expected: impl ToString, found: usize) -> InferError {
        InferError::Rank {
            op: self.op.into(),
            what: what.into(),
            expected: expected.to_string(),
            found,
        }
    }
    fn attribute(
        &self,
        attribute: &str,
        expected: impl ToString,
        found: impl std::fmt::Debug,
    ) -> InferError {
        InferError::Attribute {
            op: self.op.into(),
            attribute: attribute.into(),
            expected: expected.to_string(),
            found: format!("{found:?}"),
        }
    }
    /// An axis attribute against a known rank.
    fn axis(&self, axis: usize, rank: usize) -> Result<(), InferError> {
        if axis < rank {
            return Ok(());
        }
        Err(self.attribute("axis", format!("less than the rank {rank}"), axis))
    }
    /// Stated sizes may not be negative.
    fn dims_valid(&mut self, attribute: &str, dims: &[Dim]) -> Result<(), InferError> {
        for (axis, d) in dims.iter().enumerate() {
            match d.is_ge(0) {
                Some(true) => {}
                Some(false) => {
                    let text = d.to_string();
                    return Err(self.attribute(attribute, "dimensions >= 0", text));
                }
                None => self.need(axis, &Dim::Const(0), d, CheckKind::AtMost),
            }
        }
        Ok(())
    }
    fn need(&mut self, axis: usize, left: &Dim, right: &Dim, kind: CheckKind) {
        let r = Requirement {
            axis,
            left: left.clone(),
            right: right.clone(),
            kind,
        };
        if !self.needs.contains(&r) {
            self.needs.push(r);
        }
    }
    /// Both are the same size; gives the more telling of the two.
    fn equal(
        &mut self,
        what: &str,
        axis: usize,
        expected: &Dim,
        found: &Dim,
    ) -> Result<Dim, InferError> {
        match expected.equals(found) {
            Some(true) => {}
            Some(false) => {
                return Err(InferError::Dim {
                    op: self.op.into(),
                    what: format!("{what}, axis {axis}"),
                    expected: expected.clone(),
                    found: found.clone(),
                });
            }
            None => self.need(axis, found, expected, CheckKind::Equal),
        }
        Ok(match (expected.as_const(), found.as_const()) {
            (None, Some(_)) => found.clone(),
            _ => expected.clone(),
        })
    }
    /// The common size of two dimensions that are broadcast to each other.
    fn broadcast(&mut self, what: &str, axis: usize, a: &Dim, b: &Dim) -> Result<Dim, InferError> {
        let Some(d) = a.broadcast(b) else {
            return Err(InferError::Broadcast {
                op: self.op.into(),
                what: format!("{what}, axis {axis}"),
                left: a.clone(),
                right: b.clone(),
            });
        };
        let settled = a.is_const(1)
            || b.is_const(1)
            || a == b
            || a.has_broadcast_operand(b)
            || b.has_broadcast_operand(a);
        if !settled {
            self.need(axis, a, b, CheckKind::Broadcastable);
        }
        Ok(d)
    }
    /// `from` is 1 or `to`.
    fn broadcasts_to(
        &mut self,
        what: &str,
        axis: usize,
        from: &Dim,
        to: &Dim,
    ) -> Result<(), InferError> {
        if from.is_const(1) || from.equals(to) == Some(true) || to.has_broadcast_operand(from) {
            return Ok(());
        }
        let refuted =
            from.equals(to) == Some(false) && (from.is_ge(2) == Some(true) || from.is_const(0));
        if refuted {
            return Err(InferError::Broadcast {
                op: self.op.into(),
                what: format!("{what}, axis {axis}"),
                left: from.clone(),
                right: to.clone(),
            });
        }
        self.need(axis, from, to, CheckKind::BroadcastsTo);
        Ok(())
    }
    /// All of `from`, aligned at the last axis, is broadcast to `to`.
    fn shape_broadcasts_to(
        &mut self,
        what: &str,
        from: &[Dim],
        to: &[Dim],
    ) -> Result<(), InferError> {
        if from.len() > to.len() {
            return Err(self.rank_error(what, format!("at most {}", to.len()), from.len()));
        }
        let lead = to.len() - from.len();
        for (i, d) in from.iter().enumerate() {
            if let Some(t) = to.get(lead + i) {
                self.broadcasts_to(what, lead + i, d, t)?;
            }
        }
        Ok(())
    }
    /// `left <= right`.
    fn at_most(
        &mut self,
        what: &str,
        axis: usize,
        left: &Dim,
        right: &Dim,
    ) -> Result<(), InferError> {
        match right.sub(left).is_ge(0) {
            Some(true) => {}
            Some(false) => {
                return Err(InferError::Attribute {
                    op: self.op.into(),
                    attribute: format!("{what}, axis {axis}"),
                    expected: format!("at most {right}"),
                    found: left.to_string(),
                });
            }
            None => self.need(axis, left, right, CheckKind::AtMost),
        }
        Ok(())
    }
}

fn unranked(dtype: DType) -> TensorType {
    TensorType::unranked(dtype)
}

/// `dims` with one axis replaced.
fn with_axis(dims: &[Dim], axis: usize, d: Dim) -> Vec<Dim> {
    let mut dims = dims.to_vec();
    if let Some(slot) = dims.get_mut(axis) {
        *slot = d;
    }
    dims
}

#[cfg(test)]
mod tests;
