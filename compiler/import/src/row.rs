//! What the table says of the shapes of a node: [`lapidary_onnx::schema::shape`] for sizes that are formulas.
//!
//! Rules take from here the default and the range of an axis ([`Ctx::axis`]), and the outputs of calls of library
//! kernels ([`Ctx::outputs`]). What a rule has made is held against the table by [`audit`].

use std::rc::Rc;

use lapidary_graph::{DType, Dim, ValueId};
use lapidary_onnx::proto::AttributeProto;
use lapidary_onnx::schema::Schema;
use lapidary_onnx::schema::shape::{self, Absent, Axes, Given, Node, Operation, Shape};

use crate::builder::{Builder, LibOut};
use crate::context::Ctx;
use crate::dims::dmin;
use crate::error::{ErrorKind, Fail, invalid};

/// A node, its operator's row, and what is known of its inputs.
struct Row<'c, 'm> {
    schema: Rc<Schema>,
    b: &'c Builder,
    inputs: &'c [Option<ValueId>],
    attrs: &'c [(&'m str, &'m AttributeProto)],
    outputs: usize,
    /// The elements of inputs that are short lists.
    elements: Vec<Option<Shape<Dim>>>,
}

impl<'m> Ctx<'_, 'm> {
    fn row(&mut self) -> Result<Row<'_, 'm>, Fail> {
        let Some(schema) = self.schema.clone() else {
            return Err(invalid("the table of operators has no row for it"));
        };
        let mut elements = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            elements.push(match input {
                Some(v) if is_list(self.b, *v) => self.b.partly_known(*v),
                _ => None,
            });
        }
        Ok(Row {
            schema,
            b: self.b,
            inputs: &self.inputs,
            attrs: &self.attrs,
            outputs: self.wanted.len(),
            elements,
        })
    }

    /// The axis that an attribute or input names, of a value of a rank, counted from the front.
    pub fn axis(&mut self, name: &str, rank: usize) -> Result<usize, Fail> {
        self.axis_if_known(name, rank)?
            .ok_or_else(|| invalid(format!("'{name}' is missing")))
    }

    /// The same, where nothing stands for an axis that is known at run time only.
    pub fn axis_if_known(&mut self, name: &str, rank: usize) -> Result<Option<usize>, Fail> {
        shape::axis(&self.row()?, name, rank).map_err(fail)
    }

    /// The axes that an attribute or input names; all, where it names none.
    pub fn axes(&mut self, name: &str, rank: usize) -> Result<Vec<usize>, Fail> {
        match shape::axes(&self.row()?, name, rank).map_err(fail)? {
            Axes::Known(axes) => Ok(axes),
            Axes::Absent(Absent::Reversed) => Ok((0..rank).rev().collect()),
            Axes::Absent(_) => Ok((0..rank).collect()),
            Axes::Hidden(_) => Err(invalid(format!("'{name}' is known at run time only"))),
        }
    }

    /// The outputs of a call that computes the node, by its row: one for each type given. Sizes that are not known are
    /// born at the call; outputs of one rule have one shape.
    pub fn outputs(&mut self, types: &[DType]) -> Result<Vec<LibOut>, Fail> {
        let row = self.row()?;
        let shapes = shape::infer_some(&row, types.len()).map_err(fail)?;
        let mut outs: Vec<LibOut> = Vec::with_capacity(types.len());
        for (output, (dtype, found)) in types.iter().zip(shapes).enumerate() {
            let Some((rule, found)) = found else {
                outs.push(LibOut::unranked(*dtype));
                continue;
            };
            let found = match outs.iter().zip(0..).find(|(_, other)| rule == *other) {
                Some((other, _)) => other.dims.clone().unwrap_or_default(),
                None => {
                    let sizes = found.into_iter().enumerate();
                    sizes
                        .map(|(axis, size)| size.or_else(|| Some(self.symbol(output, axis))))
                        .collect()
                }
            };
            outs.push(LibOut::new(*dtype, found));
        }
        Ok(outs)
    }
}

/// A tensor of integers of at most one axis.
fn is_list(b: &Builder, v: ValueId) -> bool {
    let ty = b.g.ty(v);
    ty.is_tensor() && ty.dtype.is_int() && ty.rank().is_some_and(|rank| rank <= 1)
}

fn fail(fault: shape::Fault) -> Fail {
    invalid(fault.to_string())
}

/// Fails if what a rule made of a node contradicts the table: one of the two is wrong.
pub(crate) fn audit(cx: &mut Ctx, outs: &[Option<ValueId>]) -> Result<(), Fail> {
    if cx.schema.is_none() {
        return Ok(());
    }
    let row = cx.row()?;
    let contradiction = |found: String| Fail {
        kind: ErrorKind::Internal,
        found,
        hint: "shapes.txt and the importer's rule disagree; please report it".to_string(),
    };
    let shapes = shape::infer(&row)
        .map_err(|fault| contradiction(format!("the table refuses what was imported: {fault}")))?;
    for (i, (v, expected)) in outs.iter().zip(shapes).enumerate() {
        let (Some(v), Some(expected)) = (v, expected) else {
            continue;
        };
        let ty = row.b.g.ty(*v);
        let Some(found) = ty.shape.as_ref().filter(|_| ty.is_tensor()) else {
            continue;
        };
        let differ = |(a, b): (&Dim, &Option<Dim>)| match b {
            Some(b) => a.equals(b) == Some(false),
            None => false,
        };
        if found.len() != expected.len() || found.iter().zip(&expected).any(differ) {
            let expected: Vec<String> = expected
                .iter()
                .map(|size| size.as_ref().map_or("?".to_string(), Dim::to_string))
                .collect();
            return Err(contradiction(format!(
                "output {i} has the shape [{}], by the table [{}]",
                crate::context::dims_text(found),
                expected.join(", ")
            )));
        }
    }
    Ok(())
}

impl Row<'_, '_> {
    fn attribute<T>(&self, name: &str, read: impl Fn(&AttributeProto) -> Option<T>) -> Given<T> {
        match self.attrs.iter().find(|(given, _)| *given == name) {
            None => Given::Absent,
            Some((_, attribute)) => match read(attribute) {
                Some(value) => Given::Known(value),
                None => Given::Hidden,
            },
        }
    }
}

impl Node for Row<'_, '_> {
    type Size = Dim;

    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn size(&self, number: i64) -> Dim {
        Dim::Const(number)
    }

    fn number(&self, size: &Dim) -> Option<i64> {
        size.as_const()
    }

    fn combine(&self, operation: Operation, a: &Dim, b: &Dim) -> Option<Dim> {
        let found = match (operation, a.as_const(), b.as_const()) {
            (Operation::Add, Some(a), Some(b)) => Dim::Const(a.checked_add(b)?),
            (Operation::Subtract, Some(a), Some(b)) => Dim::Const(a.checked_sub(b)?),
            (Operation::Multiply, Some(a), Some(b)) => Dim::Const(a.checked_mul(b)?),
            (Operation::Divide, _, Some(..=0)) => return None,
            (Operation::Add, ..) => a.add(b),
            (Operation::Subtract, ..) => a.sub(b),
            (Operation::Multiply, ..) => a.mul(b),
            (Operation::Divide, ..) => a.floor_div(b),
            (Operation::Least, ..) => dmin(a, b),
            (Operation::Broadcast, ..) => a.broadcast(b)?,
        };
        (found.weight() <= Dim::MOST_WEIGHT).then_some(found)
    }

    fn equal(&self, a: &Dim, b: &Dim) -> Option<bool> {
        a.equals(b)
    }

    fn text(&self, size: &Dim) -> String {
        size.to_string()
    }

    fn inputs(&self) -> usize {
        self.inputs.len()
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn given(&self, input: usize) -> bool {
        self.inputs.get(input).is_some_and(Option::is_some)
    }

    fn shape(&self, input: usize) -> Option<Shape<Dim>> {
        let ty = self.b.g.ty(self.inputs.get(input).copied().flatten()?);
        let shape = ty.shape.as_ref().filter(|_| ty.is_tensor())?;
        Some(shape.iter().cloned().map(Some).collect())
    }

    fn elements(&self, input: usize) -> Option<Shape<Dim>> {
        self.elements.get(input)?.clone()
    }

    fn int(&self, name: &str) -> Given<i64> {
        self.attribute(name, |a| Some(a.i))
    }

    fn ints(&self, name: &str) -> Given<Vec<i64>> {
        self.attribute(name, |a| Some(a.ints.clone()))
    }

    fn word(&self, name: &str) -> Given<String> {
        self.attribute(name, |a| String::from_utf8(a.s.to_vec()).ok())
    }
}
