//! The model table: names, types, segments and buffers, as docs/abi.md lays it out.

use super::code::string_tensor;
use super::pool::Record;
use super::{Maker, SegmentFunctions, last};
use crate::error::LinkError;
use crate::plan::Place;
use cranelift_module::{DataDescription, DataId, Linkage, Module};
use lapidary_codegen::Level;
use lapidary_graph::{Container, Dim, Graph, TensorType};
use lapidary_runtime::abi;

/// Where the weights blob is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum WeightsAt {
    /// There is none.
    None,
    /// In memory.
    Address(u64),
    /// At a symbol of another object.
    Symbol(String),
    /// In a file beside the library: its name and the hash of the blob.
    File { name: String, hash: u64 },
}

impl<M: Module> Maker<'_, '_, M> {
    /// The table, under an exported symbol if it is the model's.
    pub(super) fn table(
        &mut self,
        segments: &[SegmentFunctions],
    ) -> Result<(DataId, DataDescription), LinkError> {
        let request = self.request;
        let (plan, graph) = (request.plan, &request.program.graph);
        let api = self
            .module
            .declare_data(abi::symbol::API, Linkage::Import, false, false)
            .map_err(|e| LinkError::code(abi::symbol::API, e))?;
        let inputs = self.value_infos(
            &graph
                .inputs
                .iter()
                .map(|v| (graph.values[*v].name.as_str(), graph.ty(*v), graph.dims(*v)))
                .collect::<Vec<_>>(),
        );
        let outputs = self.value_infos(
            &graph
                .outputs
                .iter()
                .enumerate()
                .map(|(i, (name, v))| (name.as_str(), graph.ty(*v), graph.output_dims(i)))
                .collect::<Vec<_>>(),
        );
        let (binds, n_binds) = self.dim_binds(graph);
        let mut record = Record::default();
        for s in segments {
            record.function(s.dims);
            record.function(s.run);
            record.i32(0);
            record.i32(0);
        }
        let segment_table = self.pool.record(record);
        let mut record = Record::default();
        for b in plan.buffers.values() {
            record.i32(b.segment as i32);
            record.i32(b.first as i32);
            record.i32(last(b.last));
            record.i32(b.output.map_or(-1, |o| o as i32));
        }
        let buffer_table = self.pool.record(record);
        let names: Vec<Option<u32>> = plan
            .nodes
            .iter()
            .map(|n| {
                let name = graph.nodes.get(*n).map_or("", |d| d.name());
                Some(self.pool.string(name))
            })
            .collect();
        let nodes = self.pool.pointers(&names);
        let name = self.pool.string(match request.body {
            true => &plan.name,
            false => request.name,
        });
        let (defaults, n_defaults) = self.defaults();
        let states = self.states(graph);
        let mut record = Record::default();
        for body in &request.program.variants {
            record.data(request.bodies.get(*body).copied());
        }
        let variants = self.pool.record(record);

        let mut t = Record::default();
        t.u32(abi::ABI_VERSION);
        t.u32(abi::MODEL_TABLE_BYTES as u32);
        t.u64(request.cpu_features);
        t.data(Some(api));
        t.pool(Some(name));
        t.i32(graph.open_inputs().len() as i32);
        t.i32(graph.outputs.len() as i32);
        t.pool(Some(inputs));
        t.pool(Some(outputs));
        t.i32(plan.slots.len() as i32);
        t.i32(n_binds);
        t.pool(Some(binds));
        t.i32(segments.len() as i32);
        t.i32(plan.buffers.len() as i32);
        t.pool(Some(segment_table));
        t.pool(Some(buffer_table));
        t.i32(plan.descs as i32);
        t.i32(plan.nodes.len() as i32);
        t.pool(Some(nodes));
        let mut hash = 0;
        match &request.weights {
            WeightsAt::None => {
                t.u64(0);
                t.u64(0);
            }
            WeightsAt::Address(at) => {
                t.u64(*at);
                t.u64(0);
            }
            WeightsAt::Symbol(symbol) => {
                let id = self
                    .module
                    .declare_data(symbol, Linkage::Import, false, false)
                    .map_err(|e| LinkError::code(symbol, e))?;
                t.data(Some(id));
                t.u64(0);
            }
            WeightsAt::File { name, hash: h } => {
                hash = *h;
                t.u64(0);
                let name = self.pool.string(name);
                t.pool(Some(name));
            }
        }
        t.i64(plan.weights.bytes as i64);
        t.u64(hash);
        t.pool(Some(defaults));
        t.i64(n_defaults);
        // `weights_offset`: offsets of bodies count from the start of the model's blob as well.
        t.i64(0);
        t.pool(Some(states));
        t.i32(graph.states.len() as i32);
        t.i32(request.program.variants.len() as i32);
        t.pool(Some(variants));
        let levels = request.levels.iter().map(|level| match level {
            Level::Baseline => 1,
            Level::V3 => 1 << 1,
            Level::V4 => 1 << 2,
        });
        t.u64(levels.sum());
        while t.len() < abi::MODEL_TABLE_BYTES {
            t.u64(0);
        }
        let (symbol, linkage) = match request.body {
            false => {
                let symbol = format!("{}{}", abi::symbol::MODEL_PREFIX, request.name);
                (symbol, Linkage::Export)
            }
            true => (format!("{}_body", request.name), Linkage::Local),
        };
        let id = self
            .module
            .declare_data(&symbol, linkage, false, false)
            .map_err(|e| LinkError::code(&symbol, e))?;
        Ok((id, t.finish(self.module, &self.pool)))
    }

    /// Names, types and dimensions of values, as callers see them.
    fn value_infos(&mut self, values: &[(&str, &TensorType, &[Dim])]) -> u32 {
        let graph = &self.request.program.graph;
        let mut record = Record::default();
        for (name, ty, dims) in values {
            let name = self.pool.string(name);
            record.pool(Some(name));
            record.i32(ty.dtype as i32);
            record.i32(ty.rank().map_or(-1, |r| r as i32));
            let sizes: Vec<i64> = dims.iter().map(|d| d.as_const().unwrap_or(-1)).collect();
            let names: Vec<Option<u32>> = dims
                .iter()
                .map(|d| {
                    d.as_const()
                        .is_none()
                        .then(|| self.pool.string(&graph.dim_text(d)))
                })
                .collect();
            let sizes = self.pool.i64s(&sizes);
            record.pool(Some(sizes));
            let names = self.pool.pointers(&names);
            record.pool(Some(names));
            match containers(ty) {
                Some(kinds) => {
                    let at = self.pool.i32s(&kinds);
                    record.pool(Some(at));
                }
                None => record.pool(None),
            }
        }
        self.pool.record(record)
    }

    /// The inputs that need not be set, and the data that they then have.
    fn defaults(&mut self) -> (u32, i64) {
        let request = self.request;
        let mut record = Record::default();
        let mut n = 0;
        for (input, v, place) in &request.plan.defaults {
            let Some(data) = request.program.graph.constant(*v) else {
                continue;
            };
            let dims = self.pool.i64s(&data.dims);
            record.i32(*input as i32);
            record.i32(data.dims.len() as i32);
            record.pool(Some(dims));
            let mut offset = 0;
            match place {
                Place::Weights(at) => {
                    record.pool(None);
                    offset = *at as i64;
                }
                Place::Pinned(i) => {
                    record.u64(request.pinned.get(*i as usize).copied().unwrap_or(0));
                }
                Place::Strings(i) => {
                    let at = string_tensor(&mut self.pool, request, *i);
                    record.pool(Some(at));
                }
                Place::Input(_) | Place::Buffer(_) => continue,
            }
            record.i64(offset);
            n += 1;
        }
        (self.pool.record(record), n)
    }

    /// What is kept from run to run, and where.
    fn states(&mut self, graph: &Graph) -> u32 {
        let mut record = Record::default();
        for state in &graph.states {
            let store = state.store.as_ref().map(|s| s.input);
            let rows = store.and_then(|s| graph.inputs.get(s as usize));
            let capacity = rows.zip(state.axis).and_then(|(v, axis)| {
                let dim = graph.dims(*v).get(axis as usize)?;
                dim.as_sym()
            });
            let number = |n: Option<u32>| n.map_or(-1, |n| n as i32);
            record.i32(state.input as i32);
            record.i32(state.output as i32);
            record.i32(number(state.axis));
            record.i32(number(store));
            record.i32(number(capacity.map(|s| s.0)));
            record.i32(0);
        }
        self.pool.record(record)
    }

    /// Which axes set which symbols. Constant axes are checked when an input is set.
    fn dim_binds(&mut self, graph: &Graph) -> (u32, i32) {
        let mut record = Record::default();
        let mut n = 0;
        for (input, v) in graph.open_inputs().iter().enumerate() {
            for (axis, d) in graph.dims(*v).iter().enumerate() {
                let Some(s) = d.as_sym() else { continue };
                record.i32(input as i32);
                record.i32(axis as i32);
                record.i64(-1);
                record.i32(s.0 as i32);
                record.i32(0);
                n += 1;
            }
        }
        (self.pool.record(record), n)
    }
}

/// The containers of a type as the table lists them: their number, their kinds, the key type of a map.
fn containers(ty: &TensorType) -> Option<Vec<i32>> {
    if ty.is_tensor() {
        return None;
    }
    let mut list = vec![ty.containers.len() as i32];
    let mut key = 0;
    for container in &ty.containers {
        list.push(match container {
            Container::Sequence => abi::kind::SEQUENCE,
            Container::Optional => abi::kind::OPTIONAL,
            Container::Map(dtype) => {
                key = *dtype as i32;
                abi::kind::MAP
            }
        });
    }
    list.push(key);
    Some(list)
}
