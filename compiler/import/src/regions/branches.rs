//! `If`: both branches, or the one that a known condition takes, inline.

use lapidary_graph::DType;
use lapidary_graph::op::RegionKind;
use lapidary_graph::verify::type_text;

use super::{Made, RegionNode, scalar_of};
use crate::driver::Import;
use crate::error::{Fail, invalid};
use crate::scope::{Scope, Slot};

impl<'m> Import<'m> {
    pub(super) fn branches(
        &mut self,
        at: &RegionNode<'m, '_>,
        scope: &mut Scope<'m>,
    ) -> Result<Vec<Slot>, Fail> {
        let cond = at.input(0)?;
        scalar_of(&self.b, cond, DType::Bool, "the condition")?;
        let names = ["then_branch", "else_branch"];
        if let Some(c) = self.b.known_scalar(cond).and_then(|d| d.as_const()) {
            let graph = at.graph(names[usize::from(c == 0)])?;
            let inner = scope.subgraph(format!("{}/", at.name), self.around.len());
            let outs = self.inside(scope, inner, |im, scope| im.subgraph(graph, scope));
            return Ok(outs.unwrap_or_default().into_iter().map(Some).collect());
        }
        let (mut bodies, mut out_names) = (Vec::new(), Vec::new());
        let mut broken = false;
        for name in names {
            let graph = at.graph(name)?;
            match self.body(graph, at.name, &[], scope) {
                Some(made) => bodies.push(made),
                None => broken = true,
            }
            out_names.push(graph.output.iter().map(|o| o.name.clone()).collect());
        }
        let [yes, no] = bodies.as_slice() else {
            return Ok(Vec::new());
        };
        if broken {
            return Ok(Vec::new());
        }
        if yes.outs.len() != no.outs.len() {
            let (yes, no) = (yes.outs.len(), no.outs.len());
            return Err(invalid(format!("the branches have {yes} and {no} outputs")));
        }
        let mut outs = Vec::with_capacity(yes.outs.len());
        let mut ranks = Vec::with_capacity(yes.outs.len());
        for i in 0..yes.outs.len() {
            let (mut a, b) = (yes.out(i), no.out(i));
            if a.dtype != b.dtype || a.containers != b.containers {
                let text = |m: &Made| m.ty(i).map_or(String::new(), |t| type_text(&m.b.g, t));
                return Err(invalid(format!(
                    "output {i} is {} of the one branch and {} of the other",
                    text(yes),
                    text(no)
                )));
            }
            a.element = a.element.join(&b.element);
            let rank = |dims: &Option<Vec<_>>| dims.as_ref().map(Vec::len);
            ranks.push(
                rank(&a.dims)
                    .max(rank(&b.dims))
                    .filter(|_| rank(&a.dims).is_some() && rank(&b.dims).is_some()),
            );
            match (&mut a.dims, &b.dims) {
                (Some(dims), Some(others)) if dims.len() == others.len() => {
                    for (d, other) in dims.iter_mut().zip(others) {
                        if d != other {
                            *d = None;
                        }
                    }
                }
                (dims, _) => *dims = None,
            }
            outs.push(a);
        }
        let made = self.region_node(RegionKind::If, bodies, &out_names, vec![Some(cond)], outs);
        for (v, rank) in made.iter().zip(ranks) {
            if let Some(rank) = rank.filter(|_| self.b.g.ty(*v).rank().is_none()) {
                self.b.most_rank.insert(*v, rank);
            }
        }
        Ok(made.into_iter().map(Some).collect())
    }
}
