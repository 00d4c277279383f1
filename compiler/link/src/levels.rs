//! Which kernels of a library for several levels need code of the higher ones.
//!
//! A model spends its time in few kernels. Code of a level that makes a kernel faster is worth its bytes only if the whole run
//! notices: a softmax of ten classes behind two convolutions runs from the code of the lowest level, and nobody can
//! measure it. So the kernels that gain least give up their code of a level, as long as all of them together cost a run
//! no more than a [`BUDGET`]th of its time, by the estimate that also decides what runs on several threads. The sizes of a run are
//! not known, so that this must hold at many, small ones and big ones ([`samples`]).
//!
//! In: a program and the levels. Out: for each kernel the highest level that it has code for. A region's body has no say in
//! how often it runs; all of its kernels keep their code.

use crate::driver::speed;
use lapidary_codegen::Level;
use lapidary_graph::Sym;
use lapidary_lower::program::{Program, Step};
use std::collections::{BTreeSet, HashMap};

/// What a run may take longer for all that is left out: a 64th, by an estimate that takes memory to be as fast as arithmetic.
const BUDGET: i64 = 64;
/// The sizes of free dims that are tried, each with each.
const SIZES: [i64; 2] = [1, 1024];
/// The most free dims of which all combinations are tried.
const MANY: usize = 6;

/// The highest level of each kernel, among `levels` (the lowest first).
pub(crate) fn highest(program: &Program, levels: &[Level]) -> Vec<Level> {
    let (Some(first), Some(last)) = (levels.first(), levels.last()) else {
        return Vec::new();
    };
    let mut highest = vec![*last; program.kernels.len()];
    let Some(costs) = costs(program) else {
        return highest;
    };
    // What a level's runs take longer already.
    let mut spent: HashMap<Level, Vec<i64>> = HashMap::new();
    // The most is saved by what has code of one level alone; so that is tried first.
    for lower in levels.iter().take_while(|l| *l != last) {
        let mut order: Vec<(i64, usize)> = Vec::new();
        for (kernel, cost) in costs.iter().enumerate() {
            let most = cost.iter().map(|c| c.at(*lower)).max();
            order.extend(most.map(|most| (most, kernel)));
        }
        order.sort();
        for (_, kernel) in order {
            let Some(cost) = costs.get(kernel) else {
                continue;
            };
            if highest.get(kernel).is_none_or(|h| h < last) || cost.is_empty() {
                continue;
            }
            let above = || levels.iter().filter(|l| *l > lower);
            let fits = above().all(|level| {
                let spent = spent.get(level);
                cost.iter().enumerate().all(|(sample, c)| {
                    let total = total(&costs, sample, *level);
                    let before = spent.and_then(|s| s.get(sample)).copied().unwrap_or(0);
                    let more = c.at(*lower).saturating_sub(c.at(*level));
                    before.saturating_add(more).saturating_mul(BUDGET) <= total
                })
            });
            if !fits {
                continue;
            }
            for level in above() {
                let spent = spent.entry(*level).or_insert_with(|| vec![0; cost.len()]);
                for (spent, c) in spent.iter_mut().zip(cost) {
                    *spent = spent.saturating_add(c.at(*lower).saturating_sub(c.at(*level)));
                }
            }
            if let Some(h) = highest.get_mut(kernel) {
                *h = *lower;
            }
        }
    }
    debug_assert!(highest.iter().all(|h| h >= first));
    highest
}

/// What the calls of a kernel cost in a run, in operations.
#[derive(Clone, Copy, Default)]
struct Cost {
    contraction: i64,
    other: i64,
}

impl Cost {
    /// In 1024ths of a nanosecond. What is no contraction may be bound by memory, where wider vectors gain nothing, or not: here they
    /// are taken to gain all that they can.
    fn at(&self, level: Level) -> i64 {
        let wide = i64::from(level == Level::V4);
        let time = |n: i64, shift: i64| n.saturating_mul(1024) >> shift;
        time(self.contraction, speed(level, true))
            .saturating_add(time(self.other, speed(level, false) + wide))
    }
}

fn total(costs: &[Vec<Cost>], sample: usize, level: Level) -> i64 {
    let all = costs.iter().filter_map(|c| c.get(sample));
    all.fold(0, |sum, c| sum.saturating_add(c.at(level)))
}

/// For each kernel what it costs in each sample; nothing for one that no step calls. `None`: the sizes are too many to say.
fn costs(program: &Program) -> Option<Vec<Vec<Cost>>> {
    let mut symbols = BTreeSet::new();
    for step in &program.steps {
        if let Step::Kernel { cost, .. } = step {
            cost.collect_symbols(&mut symbols);
        }
    }
    let samples = samples(&symbols)?;
    let mut costs = vec![Vec::new(); program.kernels.len()];
    for step in &program.steps {
        let Step::Kernel {
            kernel,
            cost,
            flops,
            ..
        } = step
        else {
            continue;
        };
        let of_kernel: &mut Vec<Cost> = costs.get_mut(kernel.0 as usize)?;
        of_kernel.resize(samples.len(), Cost::default());
        for (sum, sample) in of_kernel.iter_mut().zip(&samples) {
            let cost = cost.eval(&|s| sample.get(&s).copied())?.max(0);
            let sum = match flops.is_const(0) {
                true => &mut sum.other,
                false => &mut sum.contraction,
            };
            *sum = sum.saturating_add(cost);
        }
    }
    Some(costs)
}

/// Assignments of the symbols: every combination of [`SIZES`].
fn samples(symbols: &BTreeSet<Sym>) -> Option<Vec<HashMap<Sym, i64>>> {
    if symbols.len() > MANY {
        return None;
    }
    let mut samples = vec![HashMap::new()];
    for symbol in symbols {
        let each = samples.iter().flat_map(|s| {
            SIZES.map(|size| {
                let mut s = s.clone();
                s.insert(*symbol, size);
                s
            })
        });
        samples = each.collect();
    }
    Some(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapidary_graph::text;

    const LEVELS: [Level; 3] = [Level::Baseline, Level::V3, Level::V4];

    /// The highest level of each kernel of a graph, by the name of its kernel.
    fn of(source: &str) -> Vec<(String, Level)> {
        let graph = text::parse(source).expect("the graph parses");
        let (groups, _) = lapidary_passes::fuse(&graph);
        let program = lapidary_lower::lower(graph, &groups).expect("it is lowered");
        let names = program.kernels.iter().map(|(_, k)| k.loops.name.clone());
        names.zip(highest(&program, &LEVELS)).collect()
    }

    #[test]
    fn what_no_run_notices_has_code_of_the_lowest_level_alone() {
        let found = of(r#"
graph "a long product and a sum of ten" [n] {
  input %x: f32[n, 512]
  input %w: f32[512, 2048]
  input %a: f32[10]
  %y: f32[n, 2048] = contract "mk,kn->mn" %x, %w   ; /product
  %b: f32[10] = pointwise (a = %a) => a + a   ; /sum
  output "y" %y
  output "b" %b
}"#);
        let highest = |name: &str| found.iter().find(|(n, _)| n.contains(name)).map(|f| f.1);
        assert_eq!(highest("product"), Some(Level::V4), "{found:?}");
        assert_eq!(highest("sum"), Some(Level::Baseline), "{found:?}");
    }

    #[test]
    fn what_counts_at_some_size_keeps_its_code() {
        // One row of the product costs less than the sum of 1024 rows.
        let found = of(r#"
graph "two sizes" [m, n] {
  input %x: f32[m, 64]
  input %w: f32[64, 64]
  input %a: f32[n, 64]
  %y: f32[m, 64] = contract "mk,kn->mn" %x, %w   ; /product
  %b: f32[n, 64] = pointwise (a = %a) => a + a   ; /sum
  output "y" %y
  output "b" %b
}"#);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|f| f.1 == Level::V4), "{found:?}");
    }
}
