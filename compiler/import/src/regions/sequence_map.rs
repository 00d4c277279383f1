//! `SequenceMap`: a Loop over the positions of a sequence.

use lapidary_graph::op::RegionKind;
use lapidary_graph::{Container, DType, ValueId};
use lapidary_onnx::proto::ValueInfoProto;

use super::{RegionNode, declared_rank, yes};
use crate::builder::{Builder, LibOut};
use crate::containers::Element;
use crate::driver::Import;
use crate::error::{Fail, invalid};
use crate::ops::sequence;
use crate::scope::{Scope, Slot};

impl<'m> Import<'m> {
    /// A Loop over the positions of the first sequence: what the body makes of the elements there is
    /// put at the end of new sequences.
    pub(super) fn sequence_map(
        &mut self,
        at: &RegionNode<'m, '_>,
        scope: &mut Scope<'m>,
    ) -> Result<Vec<Slot>, Fail> {
        let graph = at.graph("body")?;
        let n = at.inputs.len();
        let inputs: Vec<ValueId> = (0..n).map(|i| at.input(i)).collect::<Result<_, _>>()?;
        let is_sequence =
            |b: &Builder, v: ValueId| b.g.ty(v).containers.first() == Some(&Container::Sequence);
        let Some(first) = inputs.first().copied().filter(|v| is_sequence(&self.b, *v)) else {
            return Err(invalid("input 0 is no sequence"));
        };
        if graph.input.len() != n {
            return Err(invalid(format!(
                "{n} inputs, but a body of {}",
                graph.input.len()
            )));
        }
        let carried = graph.output.len();
        let length = sequence::make_length(&mut self.b, first)?;
        let level = self.around.len();
        self.open(&graph.name);
        let position = self.own_input("position", &LibOut::fixed(DType::I64, []));
        self.own_input("go", &LibOut::fixed(DType::Bool, []));
        // Of which type the sequences are is known when the body is.
        let sequences: Vec<ValueId> = (0..carried)
            .map(|o| self.own_input(&format!("mapped.{o}"), &LibOut::unranked(DType::F32)))
            .collect();
        self.b.start(at.name.to_string(), at.name.to_string());
        let mut inner = scope.subgraph(format!("{}/", at.name), level + 1);
        for (info, v) in graph.input.iter().zip(&inputs) {
            let mut v = self.capture(*v, level);
            if is_sequence(&self.b, v) {
                v = element_for(&mut self.b, info, v, position);
            }
            inner.values.insert(&info.name, Some(v));
        }
        let results = self.inside(scope, inner, |im, scope| im.subgraph(graph, scope));
        self.b.start(at.name.to_string(), at.name.to_string());
        let mut outs = vec![self.b.constant(yes(Vec::new()))];
        let mut types = Vec::new();
        for (v, s) in results.iter().flatten().zip(&sequences) {
            let inside = self.b.g.ty(*v).clone();
            let element = match inside.is_tensor() {
                true => Element::of(&inside),
                false => self.b.containers.element(*v),
            };
            let ty = inside.inside(Container::Sequence);
            self.b.g.values[*s].ty = ty.clone();
            let out = LibOut::inside(ty.dtype, ty.containers, element);
            types.push(out.clone());
            let operands = vec![Some(*s), Some(*v), None];
            let made = self
                .b
                .library("sequence_insert", vec![], vec![], operands, vec![out]);
            outs.extend(made);
        }
        let made = self.close(outs);
        if results.is_none() {
            return Ok(Vec::new());
        }
        let mut operands = vec![Some(length), None];
        for ty in &types {
            operands.push(Some(sequence::make_empty(&mut self.b, ty.dtype)?));
        }
        let mut names = vec!["go".to_string()];
        names.extend(graph.output.iter().map(|o| o.name.clone()));
        let kind = RegionKind::Loop { carried };
        let made = self.region_node(kind, vec![made], &[names], operands, types);
        Ok(made.into_iter().map(Some).collect())
    }
}

/// The element of a sequence that is an input of a body. Where nothing else tells its rank, the body's
/// own statement does; that it holds is tested when the element is read.
fn element_for(b: &mut Builder, info: &ValueInfoProto, s: ValueId, position: ValueId) -> ValueId {
    let mut element = b.containers.element(s);
    if element == Element::Any
        && let Some(rank) = declared_rank(info).filter(|r| *r > 0)
    {
        element = Element::Dims(vec![None; rank]);
    }
    let out = sequence::taken(b.g.ty(s), &element);
    let inputs = vec![Some(s), Some(position)];
    let made = b.library("sequence_at", vec![], vec![], inputs, vec![out]);
    made.first().copied().unwrap_or(s)
}
