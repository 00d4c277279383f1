//! Building the graph: nodes with inferred types, and what is known of small integer values.
//!
//! Operator rules speak to this layer alone. It drops views that change nothing, shares constants'
//! bytes under a reshape, writes one-element constants into pointwise expressions, and keeps, for
//! small integer tensors, their elements as [`Dim`]s (see [`Builder::known`]).

use std::collections::HashMap;
use std::rc::Rc;

use lapidary_graph::interp::fold_node;
use lapidary_graph::op::{LibraryCall, ReduceKind};
use lapidary_graph::{
    Container, DType, Def, Dim, EntityRef, Graph, NodeId, Op, PwBuilder, PwOp, PwRef, Scalar,
    SymbolOrigin, TensorData, TensorType, ValueId, infer, minifloat,
};

use crate::containers::{Containers, Element};
use crate::context::same;
use crate::error::{Fail, invalid, unsupported};
use crate::ops::packed::Weights;

/// Elements up to which the contents of an integer tensor are tracked.
pub(crate) const KNOWN_LIMIT: usize = 1024;

/// Type of one output of a library call or region; `None` for a dimension that the kernel sets.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct LibOut {
    pub dtype: DType,
    pub dims: Option<Vec<Option<Dim>>>,
    /// Around the tensor, outermost first.
    pub containers: Vec<Container>,
    /// What is known of the tensors inside.
    pub element: Element,
}

impl LibOut {
    pub fn new(dtype: DType, dims: impl IntoIterator<Item = Option<Dim>>) -> Self {
        LibOut {
            dims: Some(dims.into_iter().collect()),
            ..LibOut::unranked(dtype)
        }
    }
    pub fn fixed(dtype: DType, dims: impl IntoIterator<Item = Dim>) -> Self {
        LibOut::new(dtype, dims.into_iter().map(Some))
    }
    pub fn unranked(dtype: DType) -> Self {
        LibOut {
            dtype,
            dims: None,
            containers: Vec::new(),
            element: Element::Any,
        }
    }
    /// Something in a container.
    pub fn inside(dtype: DType, containers: Vec<Container>, element: Element) -> Self {
        LibOut {
            containers,
            element,
            ..LibOut::unranked(dtype)
        }
    }
}

pub(crate) struct Builder {
    pub g: Graph,
    known: HashMap<ValueId, Option<Rc<[Dim]>>>,
    /// Vectors of which some elements are known.
    partly: HashMap<ValueId, Vec<Option<Dim>>>,
    /// Values without a known rank, that are of this rank at most.
    pub most_rank: HashMap<ValueId, usize>,
    /// Half floats that stand for an f32 which was rounded: operators that compute in f32 read that.
    unrounded: HashMap<ValueId, ValueId>,
    /// Matrices that are dequantized constants.
    pub quantized: HashMap<ValueId, Weights>,
    /// What is known of values that are no tensors.
    pub containers: Containers,
    /// Name of the ONNX node being imported.
    pub origin: String,
    /// Names of intermediate values start with this.
    pub stem: String,
    fresh: u32,
}

impl Builder {
    pub fn new(name: &str) -> Self {
        Builder {
            g: Graph::new(name),
            known: HashMap::new(),
            partly: HashMap::new(),
            most_rank: HashMap::new(),
            unrounded: HashMap::new(),
            quantized: HashMap::new(),
            containers: Containers::default(),
            origin: String::new(),
            stem: String::new(),
            fresh: 0,
        }
    }

    /// Starts a node: its name and the stem of intermediate names.
    pub fn start(&mut self, origin: String, stem: String) {
        self.origin = origin;
        self.stem = stem;
        self.fresh = 0;
    }

    fn name(&mut self) -> String {
        self.fresh += 1;
        format!("{}.{}", self.stem, self.fresh)
    }

    // Questions.

    pub fn dtype(&self, v: ValueId) -> DType {
        self.g.ty(v).dtype
    }
    /// The dimensions; an unranked value is not supported where they are asked for.
    pub fn dims(&self, v: ValueId) -> Result<Vec<Dim>, Fail> {
        match &self.g.ty(v).shape {
            Some(d) => Ok(d.clone()),
            None => Err(unsupported(format!(
                "the rank of '{}' is known at run time only",
                self.g.values[v].name
            ))),
        }
    }
    pub fn rank(&self, v: ValueId) -> Result<usize, Fail> {
        self.dims(v).map(|d| d.len())
    }
    pub fn value_name(&self, v: ValueId) -> &str {
        &self.g.values[v].name
    }
    /// The single constant dimension of a vector (1 for a scalar).
    pub fn vector_len(&self, v: ValueId) -> Option<usize> {
        match self.g.ty(v).const_dims()?.as_slice() {
            [] => Some(1),
            [n] => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    /// The elements of a small integer or bool tensor as dimension expressions (row-major).
    pub fn known(&mut self, v: ValueId) -> Option<Rc<[Dim]>> {
        if let Some(k) = self.known.get(&v) {
            return k.clone();
        }
        let k: Option<Rc<[Dim]>> = self
            .g
            .constant(v)
            .filter(|t| t.dtype != DType::String && t.len() <= KNOWN_LIMIT)
            .and_then(TensorData::to_i64s)
            .map(|e| e.into_iter().map(Dim::Const).collect());
        self.known.insert(v, k.clone());
        k
    }
    pub fn set_known(&mut self, v: ValueId, k: Vec<Dim>) {
        if k.iter().all(|d| d.weight() <= Dim::MOST_WEIGHT) {
            self.known.insert(v, Some(k.into()));
        }
    }
    /// The elements of a small integer vector, as far as they are known; `None` if not even their number is.
    pub fn partly_known(&mut self, v: ValueId) -> Option<Vec<Option<Dim>>> {
        if let Some(k) = self.known(v) {
            return Some(k.iter().cloned().map(Some).collect());
        }
        let n = self.vector_len(v).filter(|n| *n <= KNOWN_LIMIT)?;
        let some = self.partly.get(&v).filter(|p| p.len() == n);
        Some(some.cloned().unwrap_or_else(|| vec![None; n]))
    }
    /// Notes what is known of the vector that these are joined to.
    pub fn join_known(&mut self, joined: ValueId, parts: &[ValueId]) {
        if self.dtype(joined) != DType::I64 || self.g.ty(joined).rank() != Some(1) {
            return;
        }
        let parts = parts.iter().map(|v| self.partly_known(*v));
        if let Some(parts) = parts.collect::<Option<Vec<_>>>() {
            let all = parts.concat();
            if all.iter().any(Option::is_some) {
                self.partly.insert(joined, all);
            }
        }
    }
    /// The one known element.
    pub fn known_scalar(&mut self, v: ValueId) -> Option<Dim> {
        match &*self.known(v)? {
            [d] => Some(d.clone()),
            _ => None,
        }
    }
    /// Elements of a numeric constant as f64.
    pub fn const_f64s(&self, v: ValueId) -> Option<Vec<f64>> {
        f64s(self.g.constant(v)?)
    }

    // Constants.

    pub fn constant(&mut self, data: TensorData) -> ValueId {
        let name = self.name();
        self.g.add_const(name, data)
    }
    pub fn int_vector(&mut self, values: &[i64]) -> ValueId {
        self.constant(TensorData::from_i64(vec![values.len() as i64], values))
    }
    pub fn scalar(&mut self, dtype: DType, v: f64) -> ValueId {
        self.constant(data_of(dtype, vec![], &[v]))
    }
    pub fn numbers(&mut self, dtype: DType, dims: Vec<i64>, values: &[f64]) -> ValueId {
        self.constant(data_of(dtype, dims, values))
    }

    // Nodes.

    /// Appends a node with inferred output types.
    pub fn emit(&mut self, op: Op, inputs: Vec<Option<ValueId>>) -> Result<Vec<ValueId>, Fail> {
        let types: Vec<Option<&TensorType>> =
            inputs.iter().map(|i| i.map(|v| self.g.ty(v))).collect();
        let out = infer::output_types(&op, &types).map_err(|e| invalid(e.to_string()))?;
        if self.reads_strings(&op, &inputs) {
            return self.move_strings(&op, &inputs, out);
        }
        let outs = self.push(op, inputs, out);
        self.fold(&outs);
        Ok(outs)
    }

    /// Turns the results of the node just made into constants, where all is small and constant: so
    /// that, say, `sqrt(64)` is a number in the expressions that read it.
    fn fold(&mut self, outs: &[ValueId]) {
        let Some(n) = self.g.order.last().copied() else {
            return;
        };
        let node = &self.g.nodes[n];
        let small = |v: &ValueId| small_count(self.g.ty(*v)).is_some();
        let inputs = node.inputs.iter().flatten();
        if !inputs
            .clone()
            .all(|v| self.g.constant(*v).is_some() && small(v))
            || !outs.iter().all(small)
        {
            return;
        }
        let Some(results) = fold_node(&self.g, n) else {
            return;
        };
        let agree = results.len() == outs.len()
            && outs.iter().zip(&results).all(|(v, r)| {
                let t = self.g.ty(*v);
                t.dtype == r.dtype && t.const_dims().as_deref() == Some(&r.dims)
            });
        if agree {
            self.g.order.pop();
            for (v, r) in outs.iter().zip(results) {
                self.g.values[*v].def = Def::Const(r);
            }
        }
    }
    pub fn emit1(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId, Fail> {
        let out = self.emit(op, inputs.iter().map(|v| Some(*v)).collect())?;
        first(&out)
    }
    pub(crate) fn push(
        &mut self,
        op: Op,
        inputs: Vec<Option<ValueId>>,
        types: Vec<TensorType>,
    ) -> Vec<ValueId> {
        let outputs = types.into_iter().map(|t| (self.name(), t)).collect();
        let origin = vec![self.origin.clone()];
        let n = self.g.add_node(op, inputs, outputs, origin);
        self.g.nodes[n].outputs.clone()
    }

    /// A symbol born at an output axis of the next node.
    pub fn symbol(&mut self, output: usize, axis: usize) -> Dim {
        let node = NodeId::new(self.g.nodes.len());
        let origin = SymbolOrigin::Node {
            node,
            output: output as u32,
            axis: axis as u32,
        };
        let name = format!("{}.{output}.{axis}", self.origin);
        Dim::from(self.g.add_symbol(name, origin))
    }

    /// Appends a library call; unknown dimensions become symbols born at this node.
    pub fn library(
        &mut self,
        name: &str,
        ints: Vec<i64>,
        floats: Vec<f64>,
        inputs: Vec<Option<ValueId>>,
        outs: Vec<LibOut>,
    ) -> Vec<ValueId> {
        let call = LibraryCall {
            name: name.to_string(),
            ints,
            floats,
            strings: Vec::new(),
        };
        self.library_call(call, inputs, outs)
    }

    /// The same with strings or tables in the record.
    pub fn library_call(
        &mut self,
        call: LibraryCall,
        inputs: Vec<Option<ValueId>>,
        outs: Vec<LibOut>,
    ) -> Vec<ValueId> {
        self.stated(Op::Library(call), inputs, outs)
    }

    /// Appends a node whose output types are stated, not inferred.
    pub fn stated(
        &mut self,
        op: Op,
        inputs: Vec<Option<ValueId>>,
        outs: Vec<LibOut>,
    ) -> Vec<ValueId> {
        let (mut types, mut elements) = (Vec::new(), Vec::new());
        for (o, out) in outs.into_iter().enumerate() {
            let mut shape = None;
            if let Some(dims) = out.dims {
                let mut all = Vec::new();
                for (axis, d) in dims.into_iter().enumerate() {
                    all.push(match d {
                        Some(d) => d,
                        None => self.symbol(o, axis),
                    });
                }
                shape = Some(all);
            }
            types.push(TensorType {
                dtype: out.dtype,
                shape,
                containers: out.containers,
            });
            elements.push(out.element);
        }
        let made = self.push(op, inputs, types);
        for (v, element) in made.iter().zip(elements) {
            self.containers.set_element(*v, element);
        }
        made
    }

    /// A value that holds these small integers: a constant where all are, else computed from the
    /// dimensions at run time.
    pub fn materialise(
        &mut self,
        dims: Vec<Dim>,
        shape: &[i64],
        dtype: DType,
    ) -> Result<ValueId, Fail> {
        let numbers: Option<Vec<i64>> = dims.iter().map(Dim::as_const).collect();
        let v = if let Some(n) = numbers {
            self.constant(int_data(dtype, shape.to_vec(), &n))
        } else if let [d] = dims.as_slice() {
            let mut b = PwBuilder::default();
            let x = b.push(PwOp::Dim(d.clone()), Vec::new(), DType::I64);
            let x = b.cast(x, dtype);
            let op = Op::Pointwise {
                body: b.finish_at(x, 0),
                shape: Some(shape.iter().map(|d| Dim::Const(*d)).collect()),
            };
            self.emit1(op, &[])?
        } else {
            let v = if dims.iter().all(|d| d.is_ge(0) == Some(true)) {
                self.emit1(Op::Shape(dims.clone()), &[])?
            } else {
                // Not a shape: a vector whose elements are chosen by index.
                let n = Dim::from(dims.len());
                self.pw_shaped(&[], Some(vec![n]), |p, _| {
                    let i = p.push(PwOp::Index(0), Vec::new(), DType::I64);
                    let mut y = p.constant(Scalar::i64(0));
                    for (k, d) in dims.iter().enumerate().rev() {
                        let d = match d.as_const() {
                            Some(c) => p.constant(Scalar::i64(c)),
                            None => p.push(PwOp::Dim(d.clone()), Vec::new(), DType::I64),
                        };
                        let k = p.constant(Scalar::i64(k as i64));
                        let hit = p.test(PwOp::Eq, vec![i, k]);
                        y = p.select(hit, d, y);
                    }
                    y
                })?
            };
            let v = self.reshape(v, shape.iter().map(|d| Dim::Const(*d)).collect())?;
            self.cast(v, dtype)?
        };
        self.set_known(v, dims);
        Ok(v)
    }

    // Pointwise.

    /// One expression over inputs broadcast together; `f` gets a reference for each input.
    pub fn pw(
        &mut self,
        inputs: &[ValueId],
        f: impl FnOnce(&mut PwBuilder, &[PwRef]) -> PwRef,
    ) -> Result<ValueId, Fail> {
        self.pw_shaped(inputs, None, f)
    }

    /// The same with a stated shape.
    pub fn pw_shaped(
        &mut self,
        inputs: &[ValueId],
        shape: Option<Vec<Dim>>,
        f: impl FnOnce(&mut PwBuilder, &[PwRef]) -> PwRef,
    ) -> Result<ValueId, Fail> {
        for v in inputs {
            if self.dtype(*v) == DType::String {
                return Err(unsupported("string tensors"));
            }
        }
        // One-element constants go into the expression, unless they give the result its rank.
        let scalars: Vec<Option<Scalar>> = inputs
            .iter()
            .map(|v| self.g.constant(*v).and_then(scalar_of))
            .collect();
        let rank = |v: ValueId| self.g.ty(v).rank();
        let data_rank = match &shape {
            Some(s) => Some(s.len()),
            None => inputs
                .iter()
                .zip(&scalars)
                .filter(|(_, s)| s.is_none())
                .map(|(v, _)| rank(*v).unwrap_or(usize::MAX))
                .max(),
        };
        let mut b = PwBuilder::default();
        let mut used: Vec<ValueId> = Vec::new();
        let mut refs = Vec::new();
        for (v, s) in inputs.iter().zip(&scalars) {
            let inline = data_rank.is_some_and(|d| rank(*v).is_some_and(|r| r <= d));
            refs.push(match s {
                Some(s) if inline => b.constant(*s),
                _ => {
                    let at = used.iter().position(|u| u == v).unwrap_or_else(|| {
                        used.push(*v);
                        used.len() - 1
                    });
                    b.input(at as u32, self.g.ty(*v).dtype)
                }
            });
        }
        let result = f(&mut b, &refs);
        // `x` itself needs no node, if its shape stays.
        if let (PwOp::Input(i), None, [one]) =
            (&b.nodes[result.0 as usize].op, &shape, used.as_slice())
            && *i == 0
        {
            return Ok(*one);
        }
        let body = b.finish_at(result, used.len() as u32);
        if shape.is_none() && used.iter().any(|v| self.g.ty(*v).rank().is_none()) {
            return self.pointwise_unranked(body, &used);
        }
        self.emit1(Op::Pointwise { body, shape }, &used)
    }

    /// One binary operation with result of the first's type.
    pub fn bin(&mut self, op: PwOp, a: ValueId, b: ValueId) -> Result<ValueId, Fail> {
        self.pw(&[a, b], |p, r| p.bin(op, r[0], r[1]))
    }
    pub fn un(&mut self, op: PwOp, a: ValueId) -> Result<ValueId, Fail> {
        self.pw(&[a], |p, r| p.un(op, r[0]))
    }
    /// A tensor of one number.
    pub fn fill(&mut self, dims: Vec<Dim>, s: Scalar) -> Result<ValueId, Fail> {
        let ty = TensorType::new(s.dtype, dims.iter().cloned());
        if let (Some(n), Some(count)) = (ty.const_dims(), small_count(&ty))
            && count <= 64
        {
            let mut one = s.bits.to_le_bytes().to_vec();
            one.resize(s.dtype.bytes(), 0);
            return Ok(self.constant(TensorData {
                dtype: s.dtype,
                dims: n,
                bytes: one.repeat(count).into(),
                strings: Vec::new(),
            }));
        }
        self.pw_shaped(&[], Some(dims), |p, _| p.constant(s))
    }
    pub fn cast(&mut self, v: ValueId, to: DType) -> Result<ValueId, Fail> {
        let from = self.dtype(v);
        if from == to {
            return Ok(v);
        }
        // Text is made of and from what is computed with.
        let between = |t: DType, exact: DType| match t {
            t if t.is_small_int() => Some(DType::I64),
            t if t.is_minifloat() => Some(exact),
            _ => None,
        };
        if from == DType::String
            && let Some(t) = between(to, DType::F64)
        {
            let v = self.cast(v, t)?;
            return self.cast(v, to);
        }
        if to == DType::String
            && let Some(t) = between(from, DType::F32)
        {
            let v = self.cast(v, t)?;
            return self.cast(v, to);
        }
        if from == DType::String || to == DType::String {
            let name = if to == DType::String {
                "to_string"
            } else {
                "from_string"
            };
            let out = match &self.g.ty(v).shape {
                Some(dims) => LibOut::fixed(to, dims.clone()),
                None => LibOut::unranked(to),
            };
            return first(&self.library(name, vec![], vec![], vec![Some(v)], vec![out]));
        }
        if let Some(t) = self.g.constant(v)
            && t.len() <= 64
            && let Some(data) = cast_data(t, to)
        {
            return Ok(self.constant(data));
        }
        let k = self.known(v);
        let out = self.pw(&[v], |p, r| p.cast(r[0], to))?;
        if let Some(k) = k
            && to != DType::Bool
        {
            self.set_known(out, k.to_vec());
        }
        Ok(out)
    }
    /// Notes that `half` is `wide` rounded, and stands between operators that compute in f32.
    pub fn set_unrounded(&mut self, half: ValueId, wide: ValueId) {
        if half != wide {
            self.unrounded.insert(half, wide);
        }
    }
    pub fn is_rounded(&self, v: ValueId) -> bool {
        self.unrounded.contains_key(&v)
    }
    /// f16 and bf16 as f32, for operators that compute wider; others as they are.
    pub fn widen(&mut self, v: ValueId) -> Result<ValueId, Fail> {
        if let Some(wide) = self.unrounded.get(&v) {
            return Ok(*wide);
        }
        match self.dtype(v) {
            DType::F16 | DType::BF16 => self.cast(v, DType::F32),
            _ => Ok(v),
        }
    }

    // Views.

    pub fn reshape(&mut self, v: ValueId, shape: Vec<Dim>) -> Result<ValueId, Fail> {
        if self.g.ty(v).shape.as_ref() == Some(&shape) {
            return Ok(v);
        }
        let known = self.known(v);
        let numbers: Option<Vec<i64>> = shape.iter().map(Dim::as_const).collect();
        if let (Some(t), Some(n)) = (self.g.constant(v), numbers)
            && n.iter().all(|d| *d >= 0)
            && n.iter().try_fold(1i64, |a, d| a.checked_mul(*d)) == Some(t.len() as i64)
        {
            let data = TensorData {
                dims: n,
                ..t.clone()
            };
            return Ok(self.constant(data));
        }
        let out = self.emit1(Op::Reshape { shape }, &[v])?;
        if let Some(k) = known {
            self.set_known(out, k.to_vec());
        }
        Ok(out)
    }
    pub fn unsqueeze(&mut self, v: ValueId, axes: &[usize]) -> Result<ValueId, Fail> {
        let mut dims = self.dims(v)?;
        let mut axes = axes.to_vec();
        axes.sort_unstable();
        for a in axes {
            if a > dims.len() {
                return Err(invalid(format!("axis {a} is beyond rank {}", dims.len())));
            }
            dims.insert(a, Dim::Const(1));
        }
        self.reshape(v, dims)
    }
    pub fn squeeze(&mut self, v: ValueId, axes: &[usize]) -> Result<ValueId, Fail> {
        let dims = self.dims(v)?;
        let keep = dims.iter().enumerate().filter(|(i, _)| !axes.contains(i));
        let shape = keep.map(|(_, d)| d.clone()).collect();
        self.reshape(v, shape)
    }
    pub fn transpose(&mut self, v: ValueId, perm: Vec<usize>) -> Result<ValueId, Fail> {
        if perm.iter().enumerate().all(|(i, p)| i == *p) {
            return Ok(v);
        }
        self.emit1(Op::Transpose { perm }, &[v])
    }
    pub fn broadcast(&mut self, v: ValueId, shape: Vec<Dim>) -> Result<ValueId, Fail> {
        if self.g.ty(v).shape.as_ref() == Some(&shape) {
            return Ok(v);
        }
        self.emit1(Op::Broadcast { shape }, &[v])
    }
    /// `start`, `step`, `size` for one axis, all of the others.
    pub fn slice_axis(
        &mut self,
        v: ValueId,
        axis: usize,
        start: Dim,
        step: i64,
        size: Dim,
    ) -> Result<ValueId, Fail> {
        let dims = self.dims(v)?;
        let mut starts = vec![Dim::Const(0); dims.len()];
        let mut steps = vec![1; dims.len()];
        let mut sizes = dims;
        for (list, x) in [(&mut starts, start), (&mut sizes, size)] {
            if let Some(s) = list.get_mut(axis) {
                *s = x;
            }
        }
        if let Some(s) = steps.get_mut(axis) {
            *s = step;
        }
        self.slice(v, starts, steps, sizes)
    }
    pub fn slice(
        &mut self,
        v: ValueId,
        start: Vec<Dim>,
        step: Vec<i64>,
        size: Vec<Dim>,
    ) -> Result<ValueId, Fail> {
        let whole = self.g.ty(v).shape.as_ref() == Some(&size)
            && step.iter().all(|s| *s == 1)
            && start.iter().all(|s| s.is_const(0));
        if whole {
            return Ok(v);
        }
        self.emit1(Op::Slice { start, step, size }, &[v])
    }
    pub fn concat(&mut self, vs: &[ValueId], axis: usize) -> Result<ValueId, Fail> {
        match vs {
            [v] => Ok(*v),
            _ => self.emit1(Op::Concat { axis }, vs),
        }
    }

    // Others.

    /// A reduction; f16 and bf16 are summed in f32.
    pub fn reduce(
        &mut self,
        kind: ReduceKind,
        v: ValueId,
        axes: Vec<usize>,
        keep: bool,
    ) -> Result<ValueId, Fail> {
        let t = self.dtype(v);
        let x = self.widen(v)?;
        let y = self.emit1(Op::Reduce { kind, axes, keep }, &[x])?;
        self.cast(y, t)
    }
    /// A contraction; f16 and bf16 are computed in f32, the result stays f32 where `wide`.
    pub fn contract(
        &mut self,
        a: ValueId,
        b: ValueId,
        labels: (Vec<u8>, Vec<u8>, Vec<u8>),
    ) -> Result<ValueId, Fail> {
        let t = self.dtype(a);
        if t != self.dtype(b) {
            return Err(invalid(format!(
                "operands are {t} and {}, expected one type",
                self.dtype(b)
            )));
        }
        let (a, b) = (self.widen(a)?, self.widen(b)?);
        let (mut la, mut lb, mut lo) = labels;
        number_labels([&mut la, &mut lb, &mut lo]);
        let op = Op::Contract {
            a: la,
            b: lb,
            out: lo,
        };
        let y = self.emit1(op, &[a, b])?;
        self.cast(y, t)
    }
    /// `[.., m, k] x [.., k, n]`, both of rank 2 at least; batch axes broadcast.
    pub fn matmul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, Fail> {
        let (ra, rb) = (self.rank(a)?, self.rank(b)?);
        let batch = ra.max(rb).saturating_sub(2);
        if ra < 2 || rb < 2 || batch > 20 {
            return Err(invalid(format!("operands of rank {ra} and {rb}")));
        }
        let (da, db) = (self.dims(a)?, self.dims(b)?);
        same("the inner dimensions", &da[ra - 1], &db[rb - 2])?;
        let label = |i: usize| b'a' + i as u8;
        let (m, n, k) = (label(batch), label(batch + 1), label(batch + 2));
        let mut la: Vec<u8> = (batch + 2 - ra..batch).map(label).collect();
        let mut lb: Vec<u8> = (batch + 2 - rb..batch).map(label).collect();
        let mut lo: Vec<u8> = (0..batch).map(label).collect();
        la.extend([m, k]);
        lb.extend([k, n]);
        lo.extend([m, n]);
        self.contract(a, b, (la, lb, lo))
    }

    /// Drops nodes that nothing needs: whose outputs nobody reads and whose symbols nobody uses.
    pub fn drop_dead(&mut self) {
        let mut value = vec![false; self.g.values.len()];
        let mut symbol = vec![false; self.g.symbols.len()];
        let need = |g: &Graph, d: &Dim, symbol: &mut Vec<bool>| {
            let mut s = Default::default();
            d.collect_symbols(&mut s);
            for s in s {
                if s.index() < g.symbols.len() {
                    symbol[s.index()] = true;
                }
            }
        };
        for (_, v) in &self.g.outputs {
            value[v.index()] = true;
            for d in self.g.dims(*v) {
                need(&self.g, d, &mut symbol);
            }
        }
        let mut live = Vec::new();
        for n in self.g.order.iter().rev() {
            let node = &self.g.nodes[*n];
            let born = node.outputs.iter().any(|v| {
                let mut s = Default::default();
                self.g
                    .dims(*v)
                    .iter()
                    .for_each(|d| d.collect_symbols(&mut s));
                s.iter().any(|s| {
                    symbol[s.index()]
                        && matches!(self.g.symbols[*s].origin,
                            SymbolOrigin::Node { node, .. } if node == *n)
                })
            });
            if !born && !node.outputs.iter().any(|v| value[v.index()]) {
                continue;
            }
            live.push(*n);
            for v in node.inputs.iter().flatten() {
                value[v.index()] = true;
            }
            for v in node.outputs.iter().chain(node.inputs.iter().flatten()) {
                for d in self.g.dims(*v) {
                    need(&self.g, d, &mut symbol);
                }
            }
            for d in node.op.dims() {
                need(&self.g, &d, &mut symbol);
            }
        }
        live.reverse();
        self.g.order = live;
    }

    /// Renames a value if it was made by the node now being imported.
    pub fn rename(&mut self, v: ValueId, since: usize, name: &str) {
        if v.index() >= since && !matches!(self.g.values[v].def, Def::Input(_)) {
            self.g.values[v].name = name.to_string();
        }
    }
}

/// Number of elements, where it is known and small (at most [`KNOWN_LIMIT`]).
fn small_count(t: &TensorType) -> Option<usize> {
    let n = t
        .const_dims()?
        .iter()
        .try_fold(1i64, |a, d| a.checked_mul(*d))?;
    usize::try_from(n).ok().filter(|n| *n <= KNOWN_LIMIT)
}

/// Labels by order of appearance, from 0.
fn number_labels(parts: [&mut Vec<u8>; 3]) {
    let mut seen: Vec<u8> = Vec::new();
    for l in parts.into_iter().flatten() {
        let at = seen.iter().position(|s| s == l).unwrap_or_else(|| {
            seen.push(*l);
            seen.len() - 1
        });
        *l = at as u8;
    }
}

/// The first of several values.
pub(crate) fn first(v: &[ValueId]) -> Result<ValueId, Fail> {
    v.first()
        .copied()
        .ok_or_else(|| invalid("an operator without outputs"))
}

/// The element of a one-element numeric constant.
fn scalar_of(t: &TensorData) -> Option<Scalar> {
    if t.dtype == DType::String || t.dims.iter().any(|d| *d != 1) {
        return None;
    }
    let mut bits = [0u8; 8];
    let n = t.dtype.bytes();
    bits.get_mut(..n)?.copy_from_slice(t.bytes.get(..n)?);
    Some(Scalar {
        dtype: t.dtype,
        bits: u64::from_le_bytes(bits),
    })
}

/// Elements of a numeric tensor as f64.
pub(crate) fn f64s(t: &TensorData) -> Option<Vec<f64>> {
    let b = &t.bytes;
    Some(match t.dtype {
        DType::F32 => t.to_f32s()?.into_iter().map(f64::from).collect(),
        DType::F64 => {
            let (c, _) = b.as_chunks::<8>();
            c.iter().map(|c| f64::from_le_bytes(*c)).collect()
        }
        t if t.is_complex() => return None,
        dtype if dtype.is_minifloat() => {
            let codes = b.iter().map(|c| minifloat::decode(dtype, *c));
            codes.collect()
        }
        DType::F16 | DType::BF16 => {
            let (c, _) = b.as_chunks::<2>();
            let f = |c: &[u8; 2]| Scalar {
                dtype: t.dtype,
                bits: u16::from_le_bytes(*c) as u64,
            };
            c.iter().map(|c| f(c).to_f64()).collect()
        }
        DType::U64 => {
            let (c, _) = b.as_chunks::<8>();
            c.iter().map(|c| u64::from_le_bytes(*c) as f64).collect()
        }
        _ => t.to_i64s()?.into_iter().map(|v| v as f64).collect(),
    })
}

/// A tensor of numbers rounded to a type.
pub(crate) fn data_of(dtype: DType, dims: Vec<i64>, values: &[f64]) -> TensorData {
    scalars(
        dtype,
        dims,
        values.iter().map(|v| Scalar::of(dtype, *v).bits),
    )
}

/// A tensor of integers truncated to a type (any but strings).
pub(crate) fn int_data(dtype: DType, dims: Vec<i64>, values: &[i64]) -> TensorData {
    let bits = |v: &i64| match dtype {
        DType::Bool => (*v != 0) as u64,
        _ if dtype.is_int() => *v as u64,
        _ if dtype.is_small_int() => Scalar::of(dtype, (*v & 15) as f64).bits,
        _ => Scalar::of(dtype, *v as f64).bits,
    };
    scalars(dtype, dims, values.iter().map(bits))
}

/// A tensor from the low bytes of each element (with zeros behind, where an element has 16).
fn scalars(dtype: DType, dims: Vec<i64>, bits: impl ExactSizeIterator<Item = u64>) -> TensorData {
    let n = dtype.bytes();
    let mut bytes = Vec::with_capacity(bits.len() * n);
    for b in bits {
        bytes.extend(b.to_le_bytes().into_iter().chain([0; 8]).take(n));
    }
    TensorData {
        dtype,
        dims,
        bytes: bytes.into(),
        strings: Vec::new(),
    }
}

/// A constant in another type; `None` where it is left to run time (floats out of an integer's range).
fn cast_data(t: &TensorData, to: DType) -> Option<TensorData> {
    if t.dtype.is_minifloat() {
        return None;
    }
    if !t.dtype.is_float() {
        return Some(int_data(to, t.dims.clone(), &t.to_i64s()?)).filter(|_| t.dtype != DType::U64);
    }
    let values = f64s(t)?;
    let safe = to.is_float()
        || to.is_minifloat()
        || to == DType::Bool
        || values.iter().all(|v| v.abs() < 100.0);
    let safe = safe && !(to.is_int() && !to.is_signed_int() && values.iter().any(|v| *v < 0.0));
    safe.then(|| data_of(to, t.dims.clone(), &values))
}
