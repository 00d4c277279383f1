//! The plan's invariants, checked after it was made.

use super::{Action, LIVE, Place, Plan};
use crate::error::LinkError;
use lapidary_graph::{Dim, Sym, SymbolOrigin};
use lapidary_lower::program::Program;
use std::collections::BTreeSet;

/// Checks that reads follow writes, that lives cover every use, that slots are computed before they
/// are used and from symbols that are known, and that each output has one buffer.
pub fn verify(plan: &Plan, program: &Program) -> Result<(), LinkError> {
    let fail = |problem: String| {
        Err(LinkError::Plan {
            model: plan.name.clone(),
            problem,
        })
    };
    let graph = &program.graph;
    let mut known: BTreeSet<Sym> = graph
        .symbols
        .iter()
        .filter(|(_, d)| matches!(d.origin, SymbolOrigin::Input { .. }))
        .map(|(s, _)| s)
        .collect();
    let computable = |d: &Dim, known: &BTreeSet<Sym>| {
        let mut s = BTreeSet::new();
        d.collect_symbols(&mut s);
        s.is_subset(known)
    };
    let mut written = vec![false; plan.buffers.len()];
    let mut computed = vec![false; plan.slots.derived.len()];
    let mut at = 0;
    for (s, segment) in plan.segments.iter().enumerate() {
        if segment.first != at || segment.end < segment.first {
            return fail(format!("segment {s} does not begin where the last ended"));
        }
        at = segment.end;
        for slot in &segment.slots {
            let i = (*slot - plan.slots.symbols) as usize;
            let Some(data) = plan.slots.derived.get(i) else {
                return fail(format!(
                    "segment {s} computes slot {slot}, which does not exist"
                ));
            };
            if !computable(&data.dim, &known) {
                return fail(format!(
                    "slot {slot} = {} is not computable in segment {s}",
                    graph.dim_text(&data.dim)
                ));
            }
            computed[i] = true;
        }
        for b in &segment.buffers {
            let buffer = &plan.buffers[*b];
            if let Some(bytes) = &buffer.bytes
                && !computable(bytes, &known)
            {
                return fail(format!(
                    "the size of {b}, {}, is not computable in segment {s}",
                    graph.dim_text(bytes)
                ));
            }
        }
        for step in segment.first..segment.end {
            let Some(data) = plan.steps.get(step as usize) else {
                return fail(format!("step {step} does not exist"));
            };
            let live = |b: super::BufferId| {
                plan.buffers.get(b).is_some_and(|x| {
                    x.first <= step && (x.last == LIVE || (x.segment == s as u32 && x.last >= step))
                })
            };
            let (reads, writes, dims) = uses(&data.action);
            for b in reads.iter().chain(&writes) {
                if !live(*b) {
                    return fail(format!("step {step} uses {b} outside of its life"));
                }
            }
            for b in reads {
                if !written[b.0 as usize] {
                    return fail(format!("step {step} reads {b} before it is written"));
                }
            }
            for b in writes {
                written[b.0 as usize] = true;
            }
            for d in dims {
                let found = match plan.slots.slot(d) {
                    _ if d.as_const().is_some() => true,
                    Some(i) if i < plan.slots.symbols => known.contains(&Sym(i)),
                    Some(i) => computed
                        .get((i - plan.slots.symbols) as usize)
                        .is_some_and(|c| *c),
                    None => false,
                };
                if !found {
                    return fail(format!(
                        "step {step} needs {}, which has no slot yet",
                        graph.dim_text(d)
                    ));
                }
            }
            if let Action::Library { outputs, .. } = &data.action {
                for d in outputs.iter().flat_map(|t| t.shape.iter().flatten()) {
                    known.extend(d.as_sym());
                }
            }
        }
    }
    if at as usize != plan.steps.len() {
        return fail("not every step is in a segment".into());
    }
    for (i, (name, _)) in graph.outputs.iter().enumerate() {
        let n = plan
            .buffers
            .values()
            .filter(|b| b.output == Some(i as u32) && b.last == LIVE)
            .count();
        let expected = usize::from(graph.appended(i).is_none());
        if n != expected {
            return fail(format!("output `{name}` has {n} buffers"));
        }
    }
    if let Some((b, _)) = plan.buffers.iter().find(|(b, _)| !written[b.0 as usize]) {
        return fail(format!("nothing writes {b}"));
    }
    let mut end = 0;
    for e in &plan.weights.entries {
        if e.offset < end || !e.offset.is_multiple_of(super::weights::ALIGN) {
            return fail(format!(
                "weights at {} overlap or are not aligned",
                e.offset
            ));
        }
        end = e.offset + e.bytes;
    }
    if end > plan.weights.bytes {
        return fail("the weights reach behind their blob".into());
    }
    if plan.bodies.len() != program.bodies.len() {
        return fail("not every body has a plan".into());
    }
    for (body, of) in plan.bodies.iter().zip(&program.bodies) {
        verify(body, &of.program)?;
    }
    Ok(())
}

/// Buffers read, buffers written, and dims needed as slots.
fn uses(action: &Action) -> (Vec<super::BufferId>, Vec<super::BufferId>, Vec<&Dim>) {
    let buffer = |p: &Place| match p {
        Place::Buffer(b) => Some(*b),
        _ => None,
    };
    match action {
        Action::Kernel {
            operands,
            writes,
            tasks,
            scratch_bytes,
            cost,
            ..
        } => {
            let (mut r, mut w) = (Vec::new(), Vec::new());
            for (i, p) in operands.iter().enumerate() {
                if writes.contains(&i) {
                    w.extend(buffer(p));
                } else {
                    r.extend(buffer(p));
                }
            }
            (r, w, vec![tasks, scratch_bytes, cost])
        }
        Action::Library {
            inputs, outputs, ..
        } => (
            inputs
                .iter()
                .flatten()
                .filter_map(|t| buffer(&t.place))
                .collect(),
            outputs.iter().filter_map(|t| buffer(&t.place)).collect(),
            inputs
                .iter()
                .flatten()
                .flat_map(|t| t.shape.iter().flatten())
                .collect(),
        ),
        Action::Copy { from, to, bytes } => {
            (buffer(from).into_iter().collect(), vec![*to], vec![bytes])
        }
    }
}
