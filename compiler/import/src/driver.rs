//! The walk over a model: inputs, initializers, nodes, outputs.
//!
//! Every node is visited, also after an error: values that a failed node should have made are
//! marked broken, and their readers are only looked up in the table, so that one run reports every
//! unsupported operator. Model-local functions are inlined at the call, `If` at a known condition.

use std::collections::HashMap;
use std::rc::Rc;

use lapidary_graph::{Def, Dim, Graph, Sym, SymbolOrigin, TensorType, ValueId};
use lapidary_onnx::ModelFile;
use lapidary_onnx::proto::tensor_shape_proto::dimension::Value as DimValue;
use lapidary_onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, NodeProto, OperatorSetIdProto, ValueInfoProto,
    type_proto,
};
use lapidary_onnx::schema::{self, Lookup, Schema};

use crate::builder::Builder;
use crate::context::{Ctx, dtype, tensor_data};
use crate::error::{ErrorKind, Fail, ImportError, ImportErrors, invalid, unsupported};
use crate::regions::{Freed, RegionNode};
use crate::scope::{Border, Found, Scope, Slot};
use crate::{DimSetting, ImportOptions, containers, custom, declared, known, row, table};

/// Functions and branches nest no deeper.
pub(crate) const MAX_DEPTH: usize = 64;
/// Axes of a value that crosses the border or goes to a library kernel: as many as the run-time ABI describes.
pub(crate) const MAX_RANK: usize = 16;
/// Nodes that functions expand to, beyond those of the file: a chain of functions of two calls each doubles with each.
const MAX_EXPANDED: usize = 1 << 18;

pub(crate) struct Import<'m> {
    model: &'m ModelFile,
    pub options: &'m ImportOptions,
    /// The graph being made: the model's, or a body of a region in it.
    pub b: Builder,
    /// Of that body, what it has of the graph around.
    pub border: Border,
    /// The graphs around, the model's first, each with its border.
    pub around: Vec<(Builder, Border)>,
    pub errors: Vec<ImportError>,
    functions: HashMap<(&'m str, &'m str, &'m str), &'m FunctionProto>,
    /// What loops have freed in the types of their carried values, by the node's name and its body.
    pub freed: HashMap<(String, *const GraphProto), Vec<Freed>>,
    pub counts: HashMap<&'m str, usize>,
    pub depth: usize,
    /// Nodes that calls of functions may still expand to.
    room: usize,
    /// Which of the options' dimension settings some input took.
    used: Vec<bool>,
    /// Schemas looked up, by domain, operator and version.
    schemas: HashMap<(&'m str, &'m str, i64), Option<Rc<Schema>>>,
    /// Initializers that inputs of the same name take where the caller gives none.
    defaults: Vec<(&'m str, ValueId)>,
}

pub(crate) fn import(model: &ModelFile, options: &ImportOptions) -> Result<Graph, ImportErrors> {
    let proto = model.model();
    let mut im = Import {
        model,
        options,
        b: Builder::new(&model.graph().name),
        border: Border::default(),
        around: Vec::new(),
        errors: Vec::new(),
        functions: HashMap::new(),
        freed: HashMap::new(),
        counts: HashMap::new(),
        depth: 0,
        room: MAX_EXPANDED,
        used: vec![false; options.dims.len()],
        schemas: HashMap::new(),
        defaults: Vec::new(),
    };
    for f in &proto.functions {
        let key = (domain(&f.domain), f.name.as_str(), f.overload.as_str());
        im.functions.insert(key, f);
        im.room += f.node.len();
    }
    let mut scope = Scope {
        opsets: opsets(&proto.opset_import),
        ..Default::default()
    };
    // Files older than opset imports mean version 1.
    if scope.opsets.is_empty() {
        scope.opsets.insert("", 1);
    }
    let graph = model.graph();
    if options.strict {
        scope.declared = declared::inner(graph);
    }
    im.initializers(graph, &mut scope);
    im.inputs(graph, &mut scope);
    im.defaults(&scope);
    im.check_settings();
    im.nodes(&graph.node, &mut scope);
    im.outputs(graph, &scope);
    if im.errors.is_empty() {
        im.b.drop_dead();
        Ok(im.b.g)
    } else {
        Err(ImportErrors { errors: im.errors })
    }
}

/// Why a value of this rank cannot be described at run time, if so.
fn too_many_axes(rank: usize) -> Option<Fail> {
    (rank > MAX_RANK).then(|| {
        unsupported(format!(
            "a tensor of rank {rank}, at most {MAX_RANK} axes are taken"
        ))
    })
}

/// Why a size is too long a formula, if one is.
fn too_heavy(dims: &[Dim]) -> Option<Fail> {
    let axis = dims.iter().position(|d| d.weight() > Dim::MOST_WEIGHT)?;
    let found = format!(
        "the size of axis {axis} is a formula of more than {} parts",
        Dim::MOST_WEIGHT
    );
    Some(unsupported(found).hint("fix the free dims that it follows from: --dim NAME=SIZE"))
}

/// `ai.onnx` is another name of the default domain.
fn domain(d: &str) -> &str {
    if d == "ai.onnx" { "" } else { d }
}

fn opsets(list: &[OperatorSetIdProto]) -> HashMap<&str, i64> {
    std::iter::once(schema::ONNXRUNTIME)
        .chain(list.iter().map(|o| (domain(&o.domain), o.version)))
        .collect()
}

impl<'m> Import<'m> {
    pub fn fail_value(&mut self, name: &str, f: Fail) {
        self.errors.push(ImportError {
            kind: f.kind,
            node: name.to_string(),
            op: String::new(),
            domain: String::new(),
            opset: 0,
            found: f.found,
            hint: f.hint,
        });
    }

    pub fn initializers(&mut self, graph: &'m GraphProto, scope: &mut Scope<'m>) {
        for t in &graph.initializer {
            let slot = match tensor_data(self.model, t) {
                Ok(data) => Some(
                    self.b
                        .g
                        .add_const(format!("{}{}", scope.prefix, t.name), data),
                ),
                Err(f) => {
                    self.fail_value(&t.name, f);
                    None
                }
            };
            scope.values.insert(&t.name, slot);
        }
        for s in &graph.sparse_initializer {
            let name = s.values.as_ref().map_or("", |v| v.name.as_str());
            self.fail_value(name, unsupported("a sparse initializer"));
            scope.values.insert(name, None);
        }
    }

    fn inputs(&mut self, graph: &'m GraphProto, scope: &mut Scope<'m>) {
        let mut symbols: HashMap<String, Sym> = HashMap::new();
        for info in &graph.input {
            if let Some(slot) = scope.values.get(info.name.as_str()) {
                let stated = info.r#type.as_ref().filter(|_| self.options.strict);
                if let (Some(v), Some(stated)) = (*slot, stated)
                    && let Err(f) = declared::compare(&self.b.g, v, stated)
                {
                    self.fail_value(&info.name, f);
                    continue;
                }
                // An initializer of the same name.
                match slot {
                    Some(v) if !self.initializers_are_constants() => {
                        self.defaults.push((&info.name, *v));
                    }
                    _ => continue,
                }
            }
            let slot = match self.input_type(info, &mut symbols) {
                Ok(ty) => {
                    let v = self.b.g.add_input(info.name.clone(), ty);
                    let declared = info
                        .r#type
                        .as_ref()
                        .and_then(|t| containers::value_type(t).ok());
                    if let Some((_, element)) = declared {
                        self.b.containers.set_element(v, element);
                    }
                    Some(v)
                }
                Err(f) => {
                    self.fail_value(&info.name, f);
                    None
                }
            };
            scope.values.insert(&info.name, slot);
        }
    }

    /// Before version 4 of the format every initializer had to be listed as an input.
    fn initializers_are_constants(&self) -> bool {
        self.options.fix_defaults || self.model.model().ir_version < 4
    }

    /// Gives inputs their defaults.
    fn defaults(&mut self, scope: &Scope<'m>) {
        for (name, default) in std::mem::take(&mut self.defaults) {
            let Some(Some(v)) = scope.values.get(name).copied() else {
                continue;
            };
            let g = &mut self.b.g;
            let Def::Input(input) = g.values[v].def else {
                continue;
            };
            let Some(data) = g.constant(default) else {
                continue;
            };
            if g.ty(v).takes(data) {
                g.defaults.push((input, default));
                continue;
            }
            let found = format!("its initializer is {}{:?}", data.dtype, data.dims);
            let expected = lapidary_graph::verify::type_text(g, g.ty(v));
            let hint = format!("as an input it is {expected}");
            self.fail_value(name, invalid(found).hint(hint));
        }
    }

    /// A setting that no dimension takes is a slip of the pen.
    fn check_settings(&mut self) {
        let mut names: Vec<String> = self.b.g.symbols.values().map(|s| s.name.clone()).collect();
        names.sort();
        for k in 0..self.options.dims.len() {
            if !self.used[k] {
                let found = "no input has a dimension of this name".to_string();
                let f = Fail {
                    kind: ErrorKind::Setting,
                    found,
                    hint: format!("free dimensions are: {}", names.join(", ")),
                };
                let name = self.options.dims[k].0.clone();
                self.fail_value(&name, f);
            }
        }
    }

    fn input_type(
        &mut self,
        info: &'m ValueInfoProto,
        symbols: &mut HashMap<String, Sym>,
    ) -> Result<TensorType, Fail> {
        let Some(ty) = &info.r#type else {
            return Err(invalid("an input without a type"));
        };
        let tensor = match &ty.value {
            Some(type_proto::Value::TensorType(t)) => t,
            _ => return containers::value_type(ty).map(|(ty, _)| ty),
        };
        let dtype = dtype(tensor.elem_type)?;
        let Some(shape) = &tensor.shape else {
            return Ok(TensorType::unranked(dtype));
        };
        let input = self.b.g.inputs.len() as u32;
        if let Some(f) = too_many_axes(shape.dim.len()) {
            return Err(f);
        }
        let (mut dims, mut asked) = (Vec::new(), false);
        for (axis, d) in shape.dim.iter().enumerate() {
            let place = format!("{}.{axis}", info.name);
            let (named, fixed) = match &d.value {
                Some(DimValue::DimParam(p)) if !p.is_empty() => (Some(p.clone()), None),
                Some(DimValue::DimValue(v)) if *v >= 0 => (None, Some(*v)),
                _ => (None, None),
            };
            let name = named.unwrap_or_else(|| place.clone());
            let mut setting = None;
            for (k, (n, s)) in self.options.dims.iter().enumerate() {
                if *n == place || *n == name {
                    setting = Some(*s);
                    self.used[k] = true;
                }
            }
            asked |= matches!(setting, Some(DimSetting::Fixed(_)));
            let number = match setting {
                Some(DimSetting::Fixed(v)) => Some(v),
                Some(DimSetting::Free) => None,
                None if self.options.symbolic => None,
                None => fixed,
            };
            dims.push(match number {
                Some(v) if v < 0 => return Err(invalid(format!("dimension {axis} is {v}"))),
                Some(v) => Dim::Const(v),
                None => {
                    let g = &mut self.b.g;
                    let s = *symbols.entry(name.clone()).or_insert_with(|| {
                        let origin = SymbolOrigin::Input {
                            input,
                            axis: axis as u32,
                        };
                        g.add_symbol(name, origin)
                    });
                    Dim::from(s)
                }
            });
        }
        // An axis of size 0 leaves no element, however long the others are.
        let mut fixed = dims.iter().filter_map(Dim::as_const);
        let empty = dims.iter().any(|d| d.is_const(0));
        let count = fixed.try_fold(1i64, |n, d| n.checked_mul(d));
        if !empty && count.is_none_or(|n| n > i64::MAX / 16) {
            let kind = if asked {
                ErrorKind::Setting
            } else {
                ErrorKind::Invalid
            };
            return Err(Fail {
                kind,
                found: "there is no memory for a tensor of its dims".to_string(),
                hint: "give smaller dims".to_string(),
            });
        }
        Ok(TensorType::new(dtype, dims))
    }

    fn outputs(&mut self, graph: &'m GraphProto, scope: &Scope<'m>) {
        for info in &graph.output {
            match scope.values.get(info.name.as_str()) {
                Some(Some(v)) => {
                    self.b.g.outputs.push((info.name.clone(), *v));
                    let stated = info.r#type.as_ref().filter(|_| self.options.strict);
                    if let Some(stated) = stated
                        && let Err(f) = declared::compare(&self.b.g, *v, stated)
                    {
                        self.fail_value(&info.name, f);
                    }
                }
                // Reported where it broke.
                Some(None) => {}
                None => {
                    let f = invalid("a graph output that no node, input or initializer defines");
                    self.fail_value(&info.name, f);
                }
            }
        }
    }

    pub fn nodes(&mut self, nodes: &'m [NodeProto], scope: &mut Scope<'m>) {
        for node in nodes {
            let count = self.counts.entry(&node.op_type).or_default();
            let name = if node.name.is_empty() {
                format!("{}{}_{count}", scope.prefix, node.op_type)
            } else {
                format!("{}{}", scope.prefix, node.name)
            };
            *count += 1;
            let since = self.b.g.values.len();
            let result = self.node(node, &name, scope);
            let outs = match result {
                Ok(outs) => outs,
                Err(f) => {
                    let d = domain(&node.domain);
                    self.errors.push(ImportError {
                        kind: f.kind,
                        node: name,
                        op: node.op_type.clone(),
                        domain: d.to_string(),
                        opset: scope.opsets.get(d).copied().unwrap_or(0),
                        found: f.found,
                        hint: f.hint,
                    });
                    Vec::new()
                }
            };
            for (i, o) in node.output.iter().enumerate() {
                if o.is_empty() {
                    continue;
                }
                let mut slot = outs.get(i).copied().flatten();
                let shape = slot.and_then(|v| self.b.g.ty(v).shape.as_deref());
                if let Some(f) =
                    shape.and_then(|dims| too_many_axes(dims.len()).or(too_heavy(dims)))
                {
                    self.fail_value(o, f);
                    slot = None;
                }
                if let Some(v) = slot
                    && let Some(stated) = scope.declared.get(o.as_str())
                    && let Err(f) = declared::compare(&self.b.g, v, stated)
                {
                    self.fail_value(o, f);
                    slot = None;
                }
                if let Some(v) = slot {
                    self.b.rename(v, since, &format!("{}{o}", scope.prefix));
                }
                scope.values.insert(o, slot);
            }
        }
    }

    /// Imports one node. An empty result means that an input is broken already.
    fn node(
        &mut self,
        node: &'m NodeProto,
        name: &str,
        scope: &mut Scope<'m>,
    ) -> Result<Vec<Slot>, Fail> {
        let d = domain(&node.domain);
        let mut broken = false;
        let mut inputs = Vec::with_capacity(node.input.len());
        for i in &node.input {
            if i.is_empty() {
                inputs.push(None);
                continue;
            }
            match scope.find(i) {
                Some(Found::Value(Some(v), level)) => inputs.push(Some(self.capture(v, level))),
                Some(Found::Value(None, _)) => broken = true,
                Some(Found::Absent) => inputs.push(None),
                None => {
                    return Err(invalid(format!(
                        "input '{i}' is defined by no earlier node, input or initializer"
                    ))
                    .hint("nodes must stand in topological order"));
                }
            }
        }
        let attrs = resolve(node, scope);
        let key = (d, node.op_type.as_str(), node.overload.as_str());
        if let Some(f) = self.functions.get(&key).copied() {
            return self.call(f, node, name, inputs, attrs, broken);
        }
        let opset = scope.opsets.get(d).copied();
        let own = self.options.operators.iter();
        if let Some(operator) = custom::find(own, d, &node.op_type) {
            if broken {
                return Ok(Vec::new());
            }
            let stem = node.output.iter().find(|o| !o.is_empty());
            let stem = stem.map_or(name.to_string(), |o| format!("{}{o}", scope.prefix));
            self.b.start(name.to_string(), stem);
            self.tensors_only(&node.op_type, &inputs)?;
            let mut cx = Ctx {
                b: &mut self.b,
                model: self.model,
                op: &node.op_type,
                opset: opset.unwrap_or(0),
                schema: None,
                inputs,
                attrs,
                wanted: node.output.iter().map(|o| !o.is_empty()).collect(),
            };
            return custom::import(&mut cx, operator, name);
        }
        let Some(opset) = opset else {
            return Err(invalid(format!("the domain '{d}' is not imported")));
        };
        let rule = match table::is_region(d, &node.op_type, opset)? {
            true => None,
            false => Some(table::find(d, &node.op_type, opset)?),
        };
        if broken {
            return Ok(Vec::new());
        }
        if rule.is_some() {
            self.types_taken(d, &node.op_type, &inputs)?;
        }
        let stem = match node.output.iter().find(|o| !o.is_empty()) {
            Some(o) => format!("{}{o}", scope.prefix),
            None => name.to_string(),
        };
        self.b.start(name.to_string(), stem);
        let Some(rule) = rule else {
            let at = RegionNode {
                node,
                name,
                opset,
                inputs,
                attrs,
            };
            return self.region(at, scope);
        };
        let schema = self.schema(d, &node.op_type, opset);
        let mut cx = Ctx {
            b: &mut self.b,
            model: self.model,
            op: &node.op_type,
            opset,
            schema,
            inputs,
            attrs,
            wanted: node.output.iter().map(|o| !o.is_empty()).collect(),
        };
        let outs = match known::evaluate(&mut cx)? {
            Some(outs) => outs,
            None => {
                let outs = rule(&mut cx)?;
                known::attach(&mut cx, &outs);
                outs
            }
        };
        if self.options.audit || cfg!(debug_assertions) {
            row::audit(&mut cx, &outs)?;
        }
        for (i, o) in node.output.iter().enumerate() {
            if !o.is_empty() && outs.get(i).copied().flatten().is_none() {
                return Err(unsupported(format!("output {i} ('{o}')")));
            }
        }
        Ok(outs)
    }

    /// What ONNX says of an operator.
    fn schema(&mut self, domain: &'m str, op: &'m str, version: i64) -> Option<Rc<Schema>> {
        let found = self.schemas.entry((domain, op, version));
        let found = found.or_insert_with(|| match schema::look_up(domain, op, version) {
            Lookup::Found(schema) => Some(Rc::new(schema)),
            // Some that must not be used any more are taken all the same.
            Lookup::Deprecated(since) => {
                let mut versions = schema::versions(domain, op);
                versions.find(|schema| schema.since == since).map(Rc::new)
            }
            _ => None,
        });
        found.clone()
    }

    /// Inlines a model-local function.
    fn call(
        &mut self,
        f: &'m FunctionProto,
        node: &'m NodeProto,
        name: &str,
        inputs: Vec<Slot>,
        attrs: Vec<(&'m str, &'m AttributeProto)>,
        broken: bool,
    ) -> Result<Vec<Slot>, Fail> {
        if self.depth >= MAX_DEPTH {
            return Err(invalid(format!("functions nest deeper than {MAX_DEPTH}"))
                .hint("a function may not call itself"));
        }
        if node.input.len() > f.input.len() || node.output.len() > f.output.len() {
            return Err(invalid(format!(
                "{} inputs and {} outputs, but the function '{}' has {} and {}",
                node.input.len(),
                node.output.len(),
                f.name,
                f.input.len(),
                f.output.len()
            )));
        }
        let mut bound = attrs;
        for a in &f.attribute_proto {
            if !bound.iter().any(|(n, _)| *n == a.name) {
                bound.push((&a.name, a));
            }
        }
        let mut inner = Scope {
            opsets: opsets(&f.opset_import),
            prefix: format!("{name}/"),
            attrs: bound,
            in_function: true,
            level: self.around.len(),
            ..Default::default()
        };
        let mut given = inputs.into_iter();
        for formal in &f.input {
            if broken {
                inner.values.insert(formal, None);
            } else if let Some(v) = given.next().flatten() {
                inner.values.insert(formal, Some(v));
            } else {
                inner.absent.insert(formal);
            }
        }
        let Some(room) = self.room.checked_sub(f.node.len()) else {
            return Err(invalid(format!(
                "calls of functions expand to more than {MAX_EXPANDED} nodes beyond those of the file"
            ))
            .hint("functions that call others several times multiply; call fewer, or inline them with onnx.inliner"));
        };
        self.room = room;
        self.depth += 1;
        self.nodes(&f.node, &mut inner);
        self.depth -= 1;
        Ok(f.output
            .iter()
            .map(|o| inner.values.get(o.as_str()).copied().flatten())
            .collect())
    }

    /// Refuses values of types that the operator does not take. The table is asked only about what is not common.
    fn types_taken(&self, domain: &str, op: &str, inputs: &[Slot]) -> Result<(), Fail> {
        for (i, v) in inputs.iter().enumerate() {
            let Some(v) = *v else { continue };
            let ty = self.b.g.ty(v);
            if !ty.is_tensor() && !table::takes_containers(domain, op) {
                return Err(self.no_tensor(op, i, v));
            }
            if ty.dtype.is_storage() && !table::takes_storage(domain, op, ty.dtype) {
                let (name, t) = (self.b.value_name(v), ty.dtype);
                return Err(
                    unsupported(format!("{op} of {t}, the type of input {i} ('{name}')")).hint(
                        "elements of this type are moved and converted alone: cast them first",
                    ),
                );
            }
        }
        Ok(())
    }

    /// Refuses sequences, optionals and maps.
    fn tensors_only(&self, op: &str, inputs: &[Slot]) -> Result<(), Fail> {
        let mut given = inputs
            .iter()
            .enumerate()
            .filter_map(|(i, v)| Some((i, (*v)?)));
        match given.find(|(_, v)| !self.b.g.ty(*v).is_tensor()) {
            Some((i, v)) => Err(self.no_tensor(op, i, v)),
            None => Ok(()),
        }
    }

    fn no_tensor(&self, op: &str, i: usize, v: ValueId) -> Fail {
        let ty = lapidary_graph::verify::type_text(&self.b.g, self.b.g.ty(v));
        let name = self.b.value_name(v);
        invalid(format!("input {i} ('{name}') is {ty}")).hint(format!("{op} takes tensors"))
    }
}

/// A node's attributes; references to a function's attributes are replaced by what the call gave.
fn resolve<'m>(node: &'m NodeProto, scope: &Scope<'m>) -> Vec<(&'m str, &'m AttributeProto)> {
    let mut out = Vec::with_capacity(node.attribute.len());
    for a in &node.attribute {
        if scope.in_function && !a.ref_attr_name.is_empty() {
            let bound = scope.attrs.iter().find(|(n, _)| *n == a.ref_attr_name);
            if let Some((_, v)) = bound {
                out.push((a.name.as_str(), *v));
            }
        } else {
            out.push((a.name.as_str(), a));
        }
    }
    out
}
