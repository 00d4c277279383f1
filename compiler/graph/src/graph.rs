//! The graph itself: values, nodes in topological order, symbols.
//!
//! Invariants (see [`crate::verify`]): [`Graph::order`] lists live nodes, each after those that
//! define its inputs; a value has one definition; types agree with [`crate::infer`].

use crate::entity::EntityMap;
use crate::{DType, Dim, Op, Sym, TensorData, entity_id};

entity_id!(
    /// A value of the graph.
    ValueId,
    "%"
);
entity_id!(
    /// A node of the graph.
    NodeId,
    "n"
);

/// What holds tensors (or other containers).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Container {
    /// Any number of values of one type.
    Sequence,
    /// One value or none.
    Optional,
    /// Keys of this type: i64 (any integer in ONNX) or string.
    Map(DType),
}

/// Type of a value: a tensor, or containers around one.
#[derive(Clone, PartialEq, Debug)]
pub struct TensorType {
    /// Element type of the tensor, or of the tensors inside the containers.
    pub dtype: DType,
    /// Row-major dimensions; `None` when even the rank is known at run time only, and for every container.
    pub shape: Option<Vec<Dim>>,
    /// Containers around the tensor, outermost first; empty for a tensor. Values of a map are
    /// tensors of rank 0 where nothing else is inside.
    pub containers: Vec<Container>,
}

impl TensorType {
    /// A tensor of known rank.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = Dim>) -> Self {
        TensorType {
            dtype,
            shape: Some(shape.into_iter().collect()),
            containers: Vec::new(),
        }
    }
    /// A tensor whose rank is known at run time only.
    pub fn unranked(dtype: DType) -> Self {
        TensorType {
            dtype,
            shape: None,
            containers: Vec::new(),
        }
    }
    /// Whether it is a tensor, not a sequence, optional or map.
    pub fn is_tensor(&self) -> bool {
        self.containers.is_empty()
    }
    /// What is inside the outermost container; the type itself if it is a tensor.
    pub fn element(&self) -> TensorType {
        let mut inner = self.clone();
        if !inner.containers.is_empty() {
            inner.containers.remove(0);
        }
        inner
    }
    /// The type with one more container around it; dimensions inside are not kept.
    pub fn inside(&self, container: Container) -> TensorType {
        let mut outer = TensorType::unranked(self.dtype);
        outer.containers.push(container);
        outer.containers.extend(&self.containers);
        outer
    }
    /// The dimensions; none for an unranked value.
    pub fn dims(&self) -> &[Dim] {
        self.shape.as_deref().unwrap_or(&[])
    }
    /// The number of dimensions; `None` where it is known at run time only.
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }
    /// Whether data is of this type; a dimension that is no constant takes any size.
    pub fn takes(&self, data: &TensorData) -> bool {
        let fits = |dims: &Vec<Dim>| {
            let mut pairs = dims.iter().zip(&data.dims);
            dims.len() == data.dims.len()
                && pairs.all(|(d, found)| d.as_const().is_none_or(|d| d == *found))
        };
        self.dtype == data.dtype && self.shape.as_ref().is_none_or(fits)
    }
    /// The dimensions as numbers, when all are constant.
    pub fn const_dims(&self) -> Option<Vec<i64>> {
        self.shape.as_ref()?.iter().map(Dim::as_const).collect()
    }
}

/// Where a value comes from.
#[derive(Clone, PartialEq, Debug)]
pub enum Def {
    /// A graph input with this number.
    Input(u32),
    /// A constant.
    Const(TensorData),
    /// Output `1` of node `0`.
    Node(NodeId, u32),
}

/// What the graph knows of a value.
#[derive(Clone, PartialEq, Debug)]
pub struct ValueData {
    /// The ONNX name, or one derived from it.
    pub name: String,
    /// What every run's data must be; symbols of it are bound at run time.
    pub ty: TensorType,
    /// Its one definition.
    pub def: Def,
}

/// An operator with what it reads and makes.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeData {
    /// What is computed.
    pub op: Op,
    /// `None` is an absent optional input.
    pub inputs: Vec<Option<ValueId>>,
    /// One for each type that [`crate::infer::output_types`] gives; each has this node as its [`Def`].
    pub outputs: Vec<ValueId>,
    /// Names of the ONNX nodes that this node stands for, first the most telling.
    pub origin: Vec<String>,
}

impl NodeData {
    /// The name that errors and profiles show.
    pub fn name(&self) -> &str {
        self.origin.first().map_or("", String::as_str)
    }
    /// Input `i`, when present.
    pub fn input(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }
}

/// What gives a symbol its value.
#[derive(Clone, PartialEq, Debug)]
pub enum SymbolOrigin {
    /// An axis of a graph input (the first that carries the symbol; others must agree).
    Input {
        /// The input's number.
        input: u32,
        /// The axis of that input.
        axis: u32,
    },
    /// An axis of a node's output, known after the node has run.
    Node {
        /// The node whose result carries it.
        node: NodeId,
        /// Which of the node's outputs.
        output: u32,
        /// The axis of that output.
        axis: u32,
    },
}

/// What the graph knows of a symbol.
#[derive(Clone, PartialEq, Debug)]
pub struct SymbolData {
    /// The ONNX `dim_param`, or a name made for it.
    pub name: String,
    /// What gives it its value.
    pub origin: SymbolOrigin,
}

/// A model (or the body of a region).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Graph {
    /// The ONNX graph's name.
    pub name: String,
    /// Sizes that are known at run time.
    pub symbols: EntityMap<Sym, SymbolData>,
    /// All values ever made; those that no live node reads or makes are no longer part of the graph.
    pub values: EntityMap<ValueId, ValueData>,
    /// All nodes ever made; live are those of [`Graph::order`].
    pub nodes: EntityMap<NodeId, NodeData>,
    /// Live nodes in execution order.
    pub order: Vec<NodeId>,
    /// In the order in which callers give them; stores of states come last.
    pub inputs: Vec<ValueId>,
    /// Inputs that a caller may leave out: the input's number and the constant that it then is.
    pub defaults: Vec<(u32, ValueId)>,
    /// Name and value; one value may serve several outputs, and may be an input or a constant.
    pub outputs: Vec<(String, ValueId)>,
    /// Outputs that are inputs of the next run; see [`crate::State`].
    pub states: Vec<crate::State>,
}

impl Graph {
    /// A graph without inputs, nodes and outputs.
    pub fn new(name: impl Into<String>) -> Self {
        Graph {
            name: name.into(),
            ..Default::default()
        }
    }
    /// Declares a symbol; the value that its origin names must carry it as a whole dimension.
    pub fn add_symbol(&mut self, name: impl Into<String>, origin: SymbolOrigin) -> Sym {
        self.symbols.push(SymbolData {
            name: name.into(),
            origin,
        })
    }
    /// Appends an input.
    pub fn add_input(&mut self, name: impl Into<String>, ty: TensorType) -> ValueId {
        let def = Def::Input(self.inputs.len() as u32);
        let v = self.values.push(ValueData {
            name: name.into(),
            ty,
            def,
        });
        self.inputs.push(v);
        v
    }
    /// A value with known data, for nodes to read.
    pub fn add_const(&mut self, name: impl Into<String>, data: TensorData) -> ValueId {
        let ty = TensorType::new(data.dtype, data.dims.iter().map(|d| Dim::Const(*d)));
        self.values.push(ValueData {
            name: name.into(),
            ty,
            def: Def::Const(data),
        })
    }
    /// Appends a node with outputs of the given names and types; see [`crate::infer::output_types`].
    pub fn add_node(
        &mut self,
        op: Op,
        inputs: Vec<Option<ValueId>>,
        outputs: Vec<(String, TensorType)>,
        origin: Vec<String>,
    ) -> NodeId {
        let id = self.nodes.push(NodeData {
            op,
            inputs,
            outputs: Vec::new(),
            origin,
        });
        for (i, (name, ty)) in outputs.into_iter().enumerate() {
            let v = self.values.push(ValueData {
                name,
                ty,
                def: Def::Node(id, i as u32),
            });
            self.nodes[id].outputs.push(v);
        }
        self.order.push(id);
        id
    }
    /// The type of a value of this graph.
    pub fn ty(&self, v: ValueId) -> &TensorType {
        &self.values[v].ty
    }
    /// The dimensions of a value of this graph; none for an unranked one.
    pub fn dims(&self, v: ValueId) -> &[Dim] {
        self.values[v].ty.dims()
    }
    /// The constant behind a value.
    pub fn constant(&self, v: ValueId) -> Option<&TensorData> {
        match &self.values[v].def {
            Def::Const(t) => Some(t),
            _ => None,
        }
    }
    /// The value of an input that a caller leaves out.
    pub fn default_of(&self, input: usize) -> Option<&TensorData> {
        let at = self.defaults.iter().find(|(i, _)| *i as usize == input)?;
        self.constant(at.1)
    }
    /// The node that defines a value.
    pub fn producer(&self, v: ValueId) -> Option<NodeId> {
        match self.values[v].def {
            Def::Node(n, _) => Some(n),
            _ => None,
        }
    }
    /// For each value, the live nodes that read it (once per use).
    pub fn uses(&self) -> Vec<Vec<NodeId>> {
        let mut uses = vec![Vec::new(); self.values.len()];
        for n in &self.order {
            for v in self.nodes[*n].inputs.iter().flatten() {
                uses[v.0 as usize].push(*n);
            }
        }
        uses
    }
    /// Whether callers read the value.
    pub fn is_output(&self, v: ValueId) -> bool {
        self.outputs.iter().any(|(_, o)| *o == v)
    }
    /// Makes every reader of `from` (and graph output) read `to`.
    pub fn replace_uses(&mut self, from: ValueId, to: ValueId) {
        for n in 0..self.order.len() {
            let node = &mut self.nodes[self.order[n]];
            for i in node.inputs.iter_mut().flatten() {
                if *i == from {
                    *i = to;
                }
            }
        }
        for (_, o) in &mut self.outputs {
            if *o == from {
                *o = to;
            }
        }
    }
    /// A dimension with its symbols' names.
    pub fn dim_text(&self, d: &Dim) -> String {
        d.text(&|s| {
            self.symbols
                .get(s)
                .map_or_else(|| format!("s{}", s.0), |d| d.name.clone())
        })
    }
}
