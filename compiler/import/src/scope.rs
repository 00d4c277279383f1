//! Names in force, and the border between a graph and a body inside of it.
//!
//! A [`Scope`] has the names of a function, or of a graph with those of the graphs around it. Each
//! value lives in the graph of one level: 0 is the model's, each body of a region is one deeper. A
//! [`Border`] turns values of the level around into values of the body: constants are copied (their
//! bytes are shared), everything else becomes an input of the body, a *capture*. It translates
//! dimensions both ways. See `docs/regions.md`.

use std::collections::{BTreeSet, HashMap, HashSet};

use lapidary_graph::{DType, Dim, Sym, SymbolOrigin, TensorType, ValueId};
use lapidary_onnx::proto::AttributeProto;

use crate::builder::{Builder, LibOut, int_data};
use crate::declared::Declared;

/// A value of a scope; `None` is one that an earlier error left unmade.
pub(crate) type Slot = Option<ValueId>;

/// Names in force: those of a function body or of a graph and the graphs around it.
#[derive(Default)]
pub(crate) struct Scope<'m> {
    pub values: HashMap<&'m str, Slot>,
    pub opsets: HashMap<&'m str, i64>,
    /// Before the names of nodes and values.
    pub prefix: String,
    /// The call's attributes, which the body may refer to.
    pub attrs: Vec<(&'m str, &'m AttributeProto)>,
    /// A function's inputs that the call leaves out.
    pub absent: HashSet<&'m str>,
    pub in_function: bool,
    /// Shapes that nodes' outputs must have; empty where they are hints.
    pub declared: Declared<'m>,
    /// The level of the graph that its values live in.
    pub level: usize,
    /// What a subgraph sees besides its own names.
    pub around: Option<Box<Scope<'m>>>,
}

/// What a name stands for.
pub(crate) enum Found {
    /// A value of a level, if it was made.
    Value(Slot, usize),
    /// An input that the function's call leaves out.
    Absent,
}

impl<'m> Scope<'m> {
    /// An empty scope for a subgraph of this one, to be put inside of it.
    pub fn subgraph(&self, prefix: String, level: usize) -> Scope<'m> {
        Scope {
            opsets: self.opsets.clone(),
            prefix,
            attrs: self.attrs.clone(),
            in_function: self.in_function,
            level,
            ..Default::default()
        }
    }

    /// Looks a name up, from the inside out.
    pub fn find(&self, name: &str) -> Option<Found> {
        let mut at = Some(self);
        while let Some(scope) = at {
            if let Some(slot) = scope.values.get(name) {
                return Some(Found::Value(*slot, scope.level));
            }
            if scope.absent.contains(name) {
                return Some(Found::Absent);
            }
            at = scope.around.as_deref();
        }
        None
    }
}

/// The border of a body: what it has taken from the level around, and whose dimensions are whose.
#[derive(Default)]
pub(crate) struct Border {
    /// Values of the level around, and what they are in the body.
    values: HashMap<ValueId, ValueId>,
    /// Values that inputs of the body stand for, in the order of the inputs behind the body's own.
    pub captured: Vec<ValueId>,
    inner: HashMap<Sym, Dim>,
    /// Whole dimensions that a symbol of the body stands for.
    inner_whole: HashMap<Dim, Dim>,
    outer: HashMap<Sym, Dim>,
}

impl Border {
    /// A dimension of the level around in symbols of the body, if these are bound.
    fn to_inner(&self, d: &Dim) -> Option<Dim> {
        if let Some(whole) = self.inner_whole.get(d) {
            return Some(whole.clone());
        }
        translate(d, &self.inner)
    }

    /// A dimension of the body in symbols of the level around; `None` where it is the body's own.
    pub fn to_outer(&self, d: &Dim) -> Option<Dim> {
        translate(d, &self.outer)
    }

    /// A new input of the body with these dimensions of the level around; what is free gets a symbol
    /// of its own.
    pub fn input(
        &mut self,
        outer: &Builder,
        inner: &mut Builder,
        name: &str,
        ty: &LibOut,
    ) -> ValueId {
        let input = inner.g.inputs.len() as u32;
        let mut shape = ty.dims.as_ref().map(|_| Vec::new());
        for (axis, d) in ty.dims.iter().flatten().enumerate() {
            let origin = SymbolOrigin::Input {
                input,
                axis: axis as u32,
            };
            let dim = match d {
                Some(d) => match self.to_inner(d) {
                    Some(inside) => inside,
                    None => {
                        let s = inner.g.add_symbol(outer.g.dim_text(d), origin);
                        self.outer.insert(s, d.clone());
                        match d.as_sym() {
                            Some(whole) => self.inner.insert(whole, Dim::from(s)),
                            None => self.inner_whole.insert(d.clone(), Dim::from(s)),
                        };
                        Dim::from(s)
                    }
                },
                None => Dim::from(inner.g.add_symbol(format!("{name}.{axis}"), origin)),
            };
            shape.get_or_insert_default().push(dim);
        }
        let v = inner.g.add_input(
            name,
            TensorType {
                dtype: ty.dtype,
                shape,
                containers: ty.containers.clone(),
            },
        );
        inner.containers.set_element(v, ty.element.clone());
        v
    }

    /// What a value of the level around is in the body.
    pub fn capture(&mut self, outer: &mut Builder, inner: &mut Builder, v: ValueId) -> ValueId {
        if let Some(made) = self.values.get(&v) {
            return *made;
        }
        let name = outer.g.values[v].name.clone();
        let ty = outer.g.ty(v).clone();
        let known = outer.known(v);
        let constant = match (outer.g.constant(v), &known, ty.const_dims()) {
            (Some(data), _, _) => Some(data.clone()),
            (None, Some(known), Some(dims)) if ty.dtype.is_int() || ty.dtype == DType::Bool => {
                let numbers: Option<Vec<i64>> = known.iter().map(Dim::as_const).collect();
                numbers.map(|n| int_data(ty.dtype, dims, &n))
            }
            _ => None,
        };
        if let Some(data) = constant {
            let made = inner.g.add_const(name, data);
            self.values.insert(v, made);
            return made;
        }
        let stated = LibOut {
            dtype: ty.dtype,
            dims: ty.shape.map(|d| d.into_iter().map(Some).collect()),
            containers: ty.containers,
            element: outer.containers.element(v),
        };
        let made = self.input(outer, inner, &name, &stated);
        self.values.insert(v, made);
        self.captured.push(v);
        if let Some(known) = known
            && let Some(known) = self.knowledge(outer, inner, &known)
        {
            inner.set_known(made, known);
        }
        made
    }

    /// Dimensions that a captured value holds, in symbols of the body. What bears a symbol that the body
    /// has not met is captured for its sake.
    fn knowledge(
        &mut self,
        outer: &mut Builder,
        inner: &mut Builder,
        known: &[Dim],
    ) -> Option<Vec<Dim>> {
        let mut symbols = BTreeSet::new();
        known.iter().for_each(|d| d.collect_symbols(&mut symbols));
        for s in symbols {
            if self.inner.contains_key(&s) {
                continue;
            }
            let bearer = match outer.g.symbols.get(s)?.origin {
                SymbolOrigin::Input { input, .. } => outer.g.inputs.get(input as usize),
                SymbolOrigin::Node { node, output, .. } => {
                    let node = outer.g.nodes.get(node)?;
                    node.outputs.get(output as usize)
                }
            };
            let bearer = *bearer?;
            self.capture(outer, inner, bearer);
        }
        known.iter().map(|d| self.to_inner(d)).collect()
    }
}

/// A dimension in other symbols; `None` if one of them has no translation.
fn translate(d: &Dim, with: &HashMap<Sym, Dim>) -> Option<Dim> {
    let mut symbols = BTreeSet::new();
    d.collect_symbols(&mut symbols);
    symbols
        .iter()
        .all(|s| with.contains_key(s))
        .then(|| d.substitute(&|s| with.get(&s).cloned()))
}
