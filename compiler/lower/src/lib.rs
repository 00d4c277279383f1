//! From the graph level to loops: each fusion group becomes one kernel, a view of memory, or a call
//! of the library.
//!
//! What comes out is a [`Program`]: steps in order over the values of the graph, the loop kernels
//! (equal ones once), and the constants as kernels want them (packed, transposed). Memory, time of
//! life and machine code are the business of later stages.

#![warn(missing_docs)]

mod attention;
mod builder;
mod collapse;
mod contract;
mod conv;
mod conv_lines;
mod conv_plain;
mod depthwise;
mod error;
mod flat_trees;
mod index;
mod minifloat;
mod nest;
mod pack;
mod pool;
mod power;
pub mod program;
mod row;
mod scalar;
mod scatter;
mod single;
mod trees;
mod unsigned;

pub use error::LowerError;
pub use program::{ConstId, KernelDef, KernelId, LibraryStep, Operand, Program, RegionBody, Step};

use lapidary_codegen::loops::{LoopKernel, schedule};
use lapidary_graph::op::BodyArg;
use lapidary_graph::{EntityMap, Graph, Group, GroupKind, Groups, NodeId, Op, ValueId};
use std::collections::HashMap;

/// Lowers a graph by its groups; the groups are in execution order and partition the nodes. Bodies of
/// regions leave the graph for programs of their own.
pub fn lower(mut graph: Graph, groups: &Groups) -> Result<Program, LowerError> {
    let mut bodies = Vec::new();
    let mut bodies_of = HashMap::new();
    for (n, inside) in &groups.bodies {
        if graph.nodes.get(*n).is_none() {
            continue;
        }
        let Op::Region(region) = &mut graph.nodes[*n].op else {
            continue;
        };
        let first = bodies.len();
        for (body, groups) in region.bodies.iter_mut().zip(inside) {
            let args = body.args.iter().map(|a| match a {
                BodyArg::Operand(i) => *i as i32,
                BodyArg::Own => -1,
            });
            bodies.push(RegionBody {
                args: args.collect(),
                program: lower(std::mem::take(&mut body.graph), groups)?,
            });
        }
        bodies_of.insert(*n, (first..bodies.len()).collect());
    }
    let mut p = Lowering {
        steps: Vec::new(),
        kernels: EntityMap::new(),
        known: HashMap::new(),
        constants: EntityMap::new(),
        prepared: HashMap::new(),
        aliases: HashMap::new(),
        bodies_of,
    };
    for g in groups.iter() {
        p.group(&graph, g).map_err(|e| e.at(&graph, g))?;
    }
    Ok(Program {
        graph,
        steps: p.steps,
        kernels: p.kernels,
        constants: p.constants,
        aliases: p.aliases,
        bodies,
        variants: Vec::new(),
    })
}

/// What has been lowered so far.
pub(crate) struct Lowering {
    pub steps: Vec<Step>,
    pub kernels: EntityMap<KernelId, KernelDef>,
    /// Kernels by their loops under a neutral name, so that equal layers share code.
    known: HashMap<KernelDef, KernelId>,
    pub constants: EntityMap<ConstId, program::Prepared>,
    /// Prepared constants by the value and the form they were made from.
    pub prepared: HashMap<(ValueId, pack::Form), ConstId>,
    pub aliases: HashMap<ValueId, ValueId>,
    /// For each region the numbers of its bodies in the program.
    pub bodies_of: HashMap<NodeId, Vec<usize>>,
}

impl Lowering {
    fn group(&mut self, g: &Graph, group: &Group) -> Result<(), LowerError> {
        match group.kind {
            GroupKind::Pointwise => nest::pointwise(self, g, group),
            GroupKind::Row => row::row(self, g, group),
            GroupKind::Contract => contract::contract(self, g, group),
            GroupKind::Conv => conv::conv(self, g, group),
            GroupKind::Pool => pool::pool(self, g, group),
            GroupKind::Attention => attention::attention(self, g, group),
            GroupKind::Single => single::single(self, g, group),
        }
    }

    /// The value whose bytes a value has.
    pub fn root(&self, mut v: ValueId) -> ValueId {
        while let Some(to) = self.aliases.get(&v) {
            v = *to;
        }
        v
    }

    /// Makes a value another's bytes under another shape.
    pub fn alias(&mut self, v: ValueId, to: ValueId) {
        let to = self.root(to);
        self.aliases.insert(v, to);
    }

    /// Adds a kernel and the step that calls it.
    pub fn kernel(&mut self, loops: LoopKernel, step: Step) {
        let schedule = schedule::automatic(&loops);
        self.scheduled(loops, schedule, step);
    }

    pub fn scheduled(
        &mut self,
        loops: LoopKernel,
        schedule: lapidary_codegen::loops::Schedule,
        step: Step,
    ) {
        let neutral = KernelDef {
            loops: LoopKernel {
                name: String::new(),
                ..loops.clone()
            },
            schedule: schedule.clone(),
        };
        let id = match self.known.get(&neutral) {
            Some(id) => *id,
            None => {
                let id = self.kernels.push(KernelDef { loops, schedule });
                self.known.insert(neutral, id);
                id
            }
        };
        if let Step::Kernel {
            mut buffers,
            writes,
            dims,
            tasks,
            scratch_bytes,
            cost,
            flops,
            nodes,
            ..
        } = step
        {
            for b in &mut buffers {
                if let Operand::Value(v) = b {
                    *v = self.root(*v);
                }
            }
            self.steps.push(Step::Kernel {
                kernel: id,
                buffers,
                writes,
                dims,
                tasks,
                scratch_bytes,
                cost,
                flops,
                nodes,
            });
        }
    }

    /// Whether an operator only renames the bytes of its first input.
    pub fn is_alias(op: &Op) -> bool {
        matches!(op, Op::Reshape { .. })
    }
}
