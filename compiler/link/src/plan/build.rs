//! Makes the plan of a program.
//!
//! Three passes over the steps, in order: cut into segments and assign buffers; give every output a
//! buffer of its own, with copies where the value is not free to be the output itself; lay out the
//! weights. A segment is cut as late as possible: at the first step that needs a symbol which was not
//! known when the present segment began.

use super::slots::SlotTable;
use super::weights::{Layout, Weights, operand_name};
use super::{
    Action, Buffer, BufferId, LIVE, Place, Plan, PlanOptions, PlanStep, Segment, Tensor, verify,
};
use crate::error::LinkError;
use lapidary_graph::verify::{DimCheck, run_time_checks};
use lapidary_graph::{
    DType, Def, Dim, EntityMap, Graph, NodeId, Sym, SymbolOrigin, TensorType, ValueId,
};
use lapidary_lower::program::{LibraryStep, Operand, Program, Step};
use lapidary_runtime::abi::MAX_RANK;
use std::collections::{BTreeSet, HashMap};

/// The library kernel that copies a tensor whose size is known at run time only.
const COPY: &str = "copy";

/// Plans a program and its bodies; the result is verified.
pub fn plan(program: &Program, options: PlanOptions) -> Result<Plan, LinkError> {
    let (mut layout, mut programs) = (Layout::default(), 0);
    let mut plan = of_program(program, options, &mut layout, &mut programs)?;
    let (weights, places) = layout.finish();
    plan.weights = weights;
    place_weights(&mut plan, &places);
    verify::verify(&plan, program)?;
    Ok(plan)
}

/// The plan of one program, whose places in the weights are still numbers of the layout.
fn of_program(
    program: &Program,
    options: PlanOptions,
    layout: &mut Layout,
    programs: &mut u32,
) -> Result<Plan, LinkError> {
    let mut builder = Builder::new(program, options, std::mem::take(layout), *programs);
    *programs += 1;
    for step in &program.steps {
        match step {
            Step::Kernel { .. } => builder.kernel(step)?,
            Step::Library(call) => builder.library(call)?,
        }
    }
    builder.outputs()?;
    builder.checks();
    builder.defaults()?;
    let mut plan = builder.finish(layout);
    fits_descriptors(&plan, &program.graph)?;
    for body in &program.bodies {
        let body = of_program(&body.program, options, layout, programs)?;
        plan.bodies.push(body);
    }
    Ok(plan)
}

/// Inputs, outputs and operands of library calls have descriptors, which hold so many dims and no more.
fn fits_descriptors(plan: &Plan, graph: &Graph) -> Result<(), LinkError> {
    let outputs = graph.outputs.iter().map(|(_, v)| *v);
    let border = graph.inputs.iter().copied().chain(outputs);
    let ranks = border.map(|v| (Some(v), graph.ty(v).rank()));
    let operands = plan.steps.iter().flat_map(|step| match &step.action {
        Action::Library {
            inputs, outputs, ..
        } => inputs.iter().flatten().chain(outputs).collect(),
        _ => Vec::new(),
    });
    let operands = operands.map(|t| (t.value, t.shape.as_ref().map(Vec::len)));
    for (value, rank) in ranks.chain(operands) {
        if let Some(rank) = rank
            && rank > MAX_RANK
        {
            let name = value.map_or("", |v| graph.values[v].name.as_str());
            return Err(LinkError::Unsupported {
                what: format!("value `{name}` of rank {rank}"),
                hint: format!("a value here has at most {MAX_RANK} axes"),
            });
        }
    }
    Ok(())
}

/// Turns numbers of the layout into offsets.
fn place_weights(plan: &mut Plan, places: &[Place]) {
    let fix = |p: &mut Place| {
        if let Place::Weights(i) = p
            && let Some(place) = places.get(*i as usize)
        {
            *p = *place;
        }
    };
    for step in &mut plan.steps {
        match &mut step.action {
            Action::Kernel { operands, .. } => operands.iter_mut().for_each(fix),
            Action::Library { inputs, .. } => {
                inputs.iter_mut().flatten().for_each(|t| fix(&mut t.place));
            }
            Action::Copy { from, .. } => fix(from),
        }
    }
    for (_, _, place) in &mut plan.defaults {
        fix(place);
    }
    for body in &mut plan.bodies {
        place_weights(body, places);
    }
}

struct Builder<'a> {
    program: &'a Program,
    graph: &'a Graph,
    options: PlanOptions,
    steps: Vec<PlanStep>,
    segments: Vec<Segment>,
    /// The relations to test, each with the symbols that it speaks of.
    checks: Vec<(DimCheck, Need)>,
    /// Symbols known at the start of each segment.
    known_at: Vec<BTreeSet<Sym>>,
    /// Symbols known after the last step so far.
    known: BTreeSet<Sym>,
    buffers: EntityMap<BufferId, Buffer>,
    buffer_of: HashMap<ValueId, BufferId>,
    slots: SlotTable,
    layout: Layout,
    /// The number of this program in the layout.
    number: u32,
    pinned: Vec<ValueId>,
    strings: Vec<ValueId>,
    defaults: Vec<(u32, ValueId, Place)>,
    nodes: Vec<NodeId>,
    node_index: HashMap<NodeId, u32>,
    /// Descriptors of values, by value.
    descs: HashMap<ValueId, u32>,
    n_descs: u32,
}

impl<'a> Builder<'a> {
    fn new(program: &'a Program, options: PlanOptions, layout: Layout, number: u32) -> Self {
        let graph = &program.graph;
        let known: BTreeSet<Sym> = graph
            .symbols
            .iter()
            .filter(|(_, d)| matches!(d.origin, SymbolOrigin::Input { .. }))
            .map(|(s, _)| s)
            .collect();
        Builder {
            program,
            graph,
            options,
            steps: Vec::new(),
            segments: vec![Segment::default()],
            checks: run_time_checks(graph)
                .into_iter()
                .map(|check| {
                    let mut need = Need::default();
                    need.all([&check.left, &check.right]);
                    (check, need)
                })
                .collect(),
            known_at: vec![known.clone()],
            known,
            buffers: EntityMap::new(),
            buffer_of: HashMap::new(),
            slots: SlotTable::new(graph.symbols.len()),
            layout,
            number,
            pinned: Vec::new(),
            strings: Vec::new(),
            defaults: Vec::new(),
            nodes: Vec::new(),
            node_index: HashMap::new(),
            descs: HashMap::new(),
            n_descs: 0,
        }
    }

    fn error(&self, problem: String) -> LinkError {
        LinkError::Plan {
            model: self.graph.name.clone(),
            problem,
        }
    }

    // ---- steps ---------------------------------------------------------------------------------

    fn kernel(&mut self, step: &Step) -> Result<(), LinkError> {
        let Step::Kernel {
            kernel,
            buffers,
            writes,
            dims,
            tasks,
            scratch_bytes,
            cost,
            flops,
            nodes,
        } = step
        else {
            return Ok(());
        };
        if self.program.kernels.get(*kernel).is_none() {
            return Err(self.error(format!("step {}: no kernel {kernel}", self.steps.len())));
        }
        let node = nodes.first().map(|n| self.node(*n));
        let mut need = Need::default();
        need.all(dims.iter().chain([tasks, scratch_bytes, cost]));
        for w in writes {
            match buffers.get(*w) {
                Some(Operand::Value(v)) => need.all(self.dims_of(*v)),
                _ => {
                    return Err(self.error(format!(
                        "step {}: operand {w} is written but is no value",
                        self.steps.len()
                    )));
                }
            }
        }
        self.enter(need)?;
        let mut operands = Vec::with_capacity(buffers.len());
        for (i, operand) in buffers.iter().enumerate() {
            operands.push(if writes.contains(&i) {
                self.write(operand)?
            } else {
                self.read(operand)?
            });
        }
        self.slots_for(dims, node);
        for d in [tasks, scratch_bytes, cost] {
            self.slot_for(d, node);
        }
        self.push(
            Action::Kernel {
                kernel: *kernel,
                operands,
                writes: writes.clone(),
                dims: dims.clone(),
                tasks: tasks.clone(),
                scratch_bytes: scratch_bytes.clone(),
                cost: cost.clone(),
                flops: flops.clone(),
            },
            node,
            nodes.clone(),
        );
        Ok(())
    }

    fn library(&mut self, call: &LibraryStep) -> Result<(), LinkError> {
        let fresh = self.fresh_symbols(call);
        let node = Some(self.node(call.node));
        let mut need = Need::default();
        for operand in call.inputs.iter().flatten() {
            if let Operand::Value(v) = operand {
                need.all(self.dims_of(*v).iter().filter(|d| d.as_sym().is_none()));
            }
        }
        for v in &call.outputs {
            let made = makes_itself(self.graph.ty(*v), &fresh);
            need.all(
                self.dims_of(*v)
                    .iter()
                    .filter(|d| !made || (d.as_sym().is_none() && !mentions(d, &fresh))),
            );
        }
        self.enter(need)?;
        let mut inputs = Vec::with_capacity(call.inputs.len());
        for operand in &call.inputs {
            inputs.push(match operand {
                None => None,
                Some(operand) => {
                    let place = self.read(operand)?;
                    Some(self.tensor(operand, place, node))
                }
            });
        }
        let mut outputs = Vec::with_capacity(call.outputs.len());
        for v in &call.outputs {
            let operand = Operand::Value(*v);
            let place = self.write(&operand)?;
            if makes_itself(self.graph.ty(*v), &fresh)
                && let Place::Buffer(b) = place
            {
                self.buffers[b].bytes = None;
            }
            for d in self.dims_of(*v) {
                if !mentions(d, &fresh) {
                    self.slot_for(d, node);
                }
            }
            outputs.push(self.tensor_of(*v, place));
        }
        self.known.extend(&fresh);
        self.push(
            Action::Library {
                call: call.clone(),
                inputs,
                outputs,
            },
            node,
            vec![call.node],
        );
        // What it has made is read by steps that need none of its sizes too, as under another shape: relations of these
        // sizes are tested before.
        let due = |need: &Need| !need.0.is_disjoint(&fresh) && need.0.is_subset(&self.known);
        if self.checks.iter().any(|(_, need)| due(need)) {
            self.cut();
        }
        Ok(())
    }

    fn push(&mut self, action: Action, node: Option<u32>, nodes: Vec<NodeId>) {
        self.steps.push(PlanStep {
            action,
            node,
            nodes,
        });
        let end = self.steps.len() as u32;
        if let Some(s) = self.segments.last_mut() {
            s.end = end;
        }
    }

    /// Symbols that the call sets.
    fn fresh_symbols(&self, call: &LibraryStep) -> BTreeSet<Sym> {
        let mut found = BTreeSet::new();
        for v in &call.outputs {
            for s in self.dims_of(*v).iter().filter_map(Dim::as_sym) {
                if matches!(self.graph.symbols.get(s).map(|d| &d.origin),
                    Some(SymbolOrigin::Node { node, .. }) if *node == call.node)
                    && !self.known.contains(&s)
                {
                    found.insert(s);
                }
            }
        }
        found
    }

    // ---- segments and slots --------------------------------------------------------------------

    /// The present segment if it knows what is needed, else a new one.
    fn enter(&mut self, need: Need) -> Result<(), LinkError> {
        if self.known_at.last().is_some_and(|k| need.0.is_subset(k)) {
            return Ok(());
        }
        if let Some(s) = need.0.iter().find(|s| !self.known.contains(s)) {
            let name = self.graph.dim_text(&Dim::from(*s));
            return Err(self.error(format!(
                "step {} needs the dimension `{name}`, which nothing before it defines",
                self.steps.len()
            )));
        }
        self.cut();
        Ok(())
    }

    fn cut(&mut self) {
        let at = self.steps.len() as u32;
        self.segments.push(Segment {
            first: at,
            end: at,
            ..Default::default()
        });
        self.known_at.push(self.known.clone());
    }

    fn segment(&self) -> u32 {
        self.segments.len() as u32 - 1
    }

    fn slots_for(&mut self, dims: &[Dim], node: Option<u32>) {
        let segment = self.segment();
        let new = self.slots.run(dims, segment, node);
        if let Some(s) = self.segments.last_mut() {
            s.slots.extend(new);
        }
    }

    fn slot_for(&mut self, dim: &Dim, node: Option<u32>) {
        if dim.as_const().is_none() && self.slots.slot(dim).is_none() {
            self.slots_for(std::slice::from_ref(dim), node);
        }
    }

    // ---- operands ------------------------------------------------------------------------------

    fn dims_of(&self, v: ValueId) -> &'a [Dim] {
        let graph: &'a Graph = self.graph;
        graph.values.get(v).map_or(&[], |d| d.ty.dims())
    }

    fn resolve(&self, v: ValueId) -> ValueId {
        let mut at = v;
        for _ in 0..self.program.aliases.len() {
            match self.program.aliases.get(&at) {
                Some(source) => at = *source,
                None => break,
            }
        }
        at
    }

    fn node(&mut self, n: NodeId) -> u32 {
        *self.node_index.entry(n).or_insert_with(|| {
            self.nodes.push(n);
            self.nodes.len() as u32 - 1
        })
    }

    fn write(&mut self, operand: &Operand) -> Result<Place, LinkError> {
        let Operand::Value(v) = operand else {
            return Err(self.error(format!("step {} writes a constant", self.steps.len())));
        };
        let source = self.resolve(*v);
        if let Some(store) = self.store(source) {
            return Ok(store);
        }
        let (step, segment) = (self.steps.len() as u32, self.segment());
        match self.graph.values.get(source).map(|d| &d.def) {
            Some(Def::Node(..)) => {}
            _ => {
                return Err(self.error(format!(
                    "step {step} writes {}, which is no result of a node",
                    operand_name(self.graph, operand)
                )));
            }
        }
        if let Some(b) = self.buffer_of.get(&source) {
            let b = *b;
            self.touch(b, step, segment);
            return Ok(Place::Buffer(b));
        }
        let bytes = bytes_of(self.graph.ty(source));
        let b = self.new_buffer(source, bytes);
        self.buffer_of.insert(source, b);
        Ok(Place::Buffer(b))
    }

    /// The store that a value is the next content of: it is written there.
    fn store(&self, v: ValueId) -> Option<Place> {
        let store = self.graph.store_of(v)?;
        match self.graph.values.get(store)?.def {
            Def::Input(i) => Some(Place::Input(i)),
            _ => None,
        }
    }

    fn new_buffer(&mut self, value: ValueId, bytes: Option<Dim>) -> BufferId {
        let (step, segment) = (self.steps.len() as u32, self.segment());
        let b = self.buffers.push(Buffer {
            value,
            segment,
            first: step,
            last: step,
            output: None,
            bytes,
        });
        if let Some(s) = self.segments.last_mut() {
            s.buffers.push(b);
        }
        b
    }

    fn touch(&mut self, b: BufferId, step: u32, segment: u32) {
        let buffer = &mut self.buffers[b];
        buffer.last = if buffer.segment == segment {
            buffer.last.max(step)
        } else {
            LIVE
        };
    }

    fn read(&mut self, operand: &Operand) -> Result<Place, LinkError> {
        let v = match operand {
            Operand::Const(c) => {
                if self.program.constants.get(*c).is_none() {
                    return Err(self.error(format!("no constant {c}")));
                }
                let i = self
                    .layout
                    .add_prepared(self.number, &self.program.constants, *c);
                return Ok(Place::Weights(i as u64));
            }
            Operand::Value(v) => self.resolve(*v),
        };
        let Some(data) = self.graph.values.get(v) else {
            return Err(self.error(format!("no value {v}")));
        };
        match &data.def {
            Def::Input(i) => Ok(Place::Input(*i)),
            Def::Const(t) if t.dtype == DType::String => {
                Ok(Place::Strings(number(&mut self.strings, v)))
            }
            Def::Const(t) => {
                let aligned = (t.bytes.as_ptr() as usize).is_multiple_of(t.dtype.bytes());
                if aligned && self.options.pin_from.is_some_and(|n| t.bytes.len() >= n) {
                    return Ok(Place::Pinned(number(&mut self.pinned, v)));
                }
                let i = self.layout.add_raw(self.number, v, &t.bytes);
                Ok(Place::Weights(i as u64))
            }
            Def::Node(..) if let Some(store) = self.store(v) => Ok(store),
            Def::Node(..) => match self.buffer_of.get(&v) {
                Some(b) => {
                    let b = *b;
                    self.touch(b, self.steps.len() as u32, self.segment());
                    Ok(Place::Buffer(b))
                }
                None => Err(self.error(format!(
                    "step {} reads {} before it is written",
                    self.steps.len(),
                    operand_name(self.graph, operand)
                ))),
            },
        }
    }

    fn tensor(&mut self, operand: &Operand, place: Place, node: Option<u32>) -> Tensor {
        match operand {
            Operand::Value(v) => {
                for d in self.dims_of(*v) {
                    self.slot_for(d, node);
                }
                self.tensor_of(*v, place)
            }
            Operand::Const(c) => {
                let bytes = self.program.constants.get(*c).map_or(0, |p| p.size);
                self.n_descs += 1;
                Tensor {
                    place,
                    dtype: DType::U8,
                    shape: Some(vec![Dim::from(bytes)]),
                    container: None,
                    desc: Some(self.n_descs - 1),
                    value: None,
                }
            }
        }
    }

    fn tensor_of(&mut self, v: ValueId, place: Place) -> Tensor {
        let ty = self.graph.ty(v);
        // Without a shape of its own a value shares the descriptor of its source.
        let key = if ty.shape.is_none() {
            self.resolve(v)
        } else {
            v
        };
        // An input has a descriptor already, unless it is seen through another shape.
        let own = matches!(
            self.graph.values.get(key).map(|d| &d.def),
            Some(Def::Input(_))
        );
        let desc = (!own).then(|| {
            *self.descs.entry(key).or_insert_with(|| {
                self.n_descs += 1;
                self.n_descs - 1
            })
        });
        Tensor {
            place,
            dtype: ty.dtype,
            shape: ty.shape.clone(),
            container: ty.containers.first().copied(),
            desc,
            value: Some(v),
        }
    }

    // ---- outputs and checks --------------------------------------------------------------------

    /// Gives each output its buffer.
    fn outputs(&mut self) -> Result<(), LinkError> {
        for (i, (_, v)) in self.graph.outputs.iter().enumerate() {
            if self.graph.appended(i).is_some() {
                continue;
            }
            let source = self.resolve(*v);
            if let Some(b) = self.buffer_of.get(&source).copied()
                && self.may_be_output(b, *v, source)
            {
                self.buffers[b].output = Some(i as u32);
                self.buffers[b].last = LIVE;
            } else {
                self.copy_output(i as u32, *v)?;
            }
        }
        for i in 0..self.graph.outputs.len() {
            self.announce_output(i);
        }
        Ok(())
    }

    /// Whether a buffer can itself be the output of this value.
    fn may_be_output(&self, b: BufferId, v: ValueId, source: ValueId) -> bool {
        let buffer = &self.buffers[b];
        if buffer.output.is_some() {
            return false;
        }
        if v == source {
            return true;
        }
        let mut need = Need::default();
        need.all(self.dims_of(v));
        buffer.bytes.is_some()
            && self.graph.ty(v).shape.is_some()
            && self
                .known_at
                .get(buffer.segment as usize)
                .is_some_and(|k| need.0.is_subset(k))
    }

    fn copy_output(&mut self, output: u32, v: ValueId) -> Result<(), LinkError> {
        let ty = self.graph.ty(v).clone();
        let bytes = bytes_of(&ty);
        let mut need = Need::default();
        need.all(ty.dims());
        self.enter(need)?;
        let from = self.read(&Operand::Value(v))?;
        let to = self.new_buffer(v, bytes.clone());
        self.buffers[to].output = Some(output);
        self.buffers[to].last = LIVE;
        let node = self.graph.producer(v).map(|n| self.node(n));
        let action = match bytes {
            Some(bytes) => {
                self.slot_for(&bytes, node);
                Action::Copy { from, to, bytes }
            }
            None => {
                let input = self.tensor(&Operand::Value(v), from, node);
                self.n_descs += 1;
                let made = Tensor {
                    place: Place::Buffer(to),
                    desc: Some(self.n_descs - 1),
                    ..input.clone()
                };
                let call = LibraryStep {
                    function: COPY.into(),
                    ints: Vec::new(),
                    floats: Vec::new(),
                    strings: Vec::new(),
                    inputs: vec![Some(Operand::Value(v))],
                    outputs: vec![v],
                    node: self.graph.producer(v).unwrap_or(NodeId(u32::MAX)),
                    bodies: Vec::new(),
                };
                Action::Library {
                    call,
                    inputs: vec![Some(input)],
                    outputs: vec![made],
                }
            }
        };
        self.push(action, node, self.graph.producer(v).into_iter().collect());
        Ok(())
    }

    /// Lets the first segment that knows an output's shape write it.
    fn announce_output(&mut self, output: usize) {
        let Some((_, v)) = self.graph.outputs.get(output) else {
            return;
        };
        let mut buffers = self.buffers.values();
        let sized = self.graph.appended(output).is_some()
            || buffers.any(|b| b.output == Some(output as u32) && b.bytes.is_some());
        let mut need = Need::default();
        need.all(self.graph.output_dims(output));
        if !sized || self.graph.ty(*v).shape.is_none() {
            return;
        }
        if let Some(s) = self.known_at.iter().position(|k| need.0.is_subset(k)) {
            self.segments[s].outputs.push(output as u32);
        }
    }

    /// Puts each relation at the start of the first segment that can test it.
    fn checks(&mut self) {
        for (check, need) in std::mem::take(&mut self.checks) {
            if !need.0.is_subset(&self.known) {
                continue;
            }
            let at = match self.known_at.iter().position(|k| need.0.is_subset(k)) {
                Some(at) => at,
                None => {
                    self.cut();
                    self.segments.len() - 1
                }
            };
            self.node(check.node);
            self.segments[at].checks.push(check);
        }
    }

    /// Puts the defaults of inputs where constants are.
    fn defaults(&mut self) -> Result<(), LinkError> {
        for (input, v) in &self.graph.defaults {
            let place = self.read(&Operand::Value(*v))?;
            self.defaults.push((*input, *v, place));
        }
        Ok(())
    }

    // ---- the end -------------------------------------------------------------------------------

    fn finish(self, layout: &mut Layout) -> Plan {
        *layout = self.layout;
        Plan {
            name: self.graph.name.clone(),
            steps: self.steps,
            segments: self.segments,
            buffers: self.buffers,
            slots: self.slots,
            weights: Weights::default(),
            pinned: self.pinned,
            strings: self.strings,
            defaults: self.defaults,
            nodes: self.nodes,
            descs: self.n_descs,
            bodies: Vec::new(),
        }
    }
}

/// Symbols that must be known.
#[derive(Default)]
struct Need(BTreeSet<Sym>);

impl Need {
    fn all<'d>(&mut self, dims: impl IntoIterator<Item = &'d Dim>) {
        for d in dims {
            d.collect_symbols(&mut self.0);
        }
    }
}

fn mentions(d: &Dim, symbols: &BTreeSet<Sym>) -> bool {
    let mut all = BTreeSet::new();
    d.collect_symbols(&mut all);
    !all.is_disjoint(symbols)
}

/// Whether a library kernel decides the size of this output.
fn makes_itself(ty: &TensorType, fresh: &BTreeSet<Sym>) -> bool {
    ty.dtype == DType::String
        || ty
            .shape
            .as_ref()
            .is_none_or(|dims| dims.iter().any(|d| mentions(d, fresh)))
}

/// The size of a value, where its type tells.
pub(super) fn bytes_of(ty: &TensorType) -> Option<Dim> {
    if ty.dtype == DType::String {
        return None;
    }
    let dims = ty.shape.as_ref()?;
    Some(Dim::product(dims).mul(&Dim::from(ty.dtype.bytes())))
}

/// The position of a value in a list, added if it is not there.
fn number(list: &mut Vec<ValueId>, v: ValueId) -> u32 {
    match list.iter().position(|x| *x == v) {
        Some(i) => i as u32,
        None => {
            list.push(v);
            list.len() as u32 - 1
        }
    }
}
