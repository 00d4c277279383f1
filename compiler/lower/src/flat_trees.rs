//! The flat form of ensembles of small trees, for several rows at once, a row a lane (QuickScorer: Lucchese et al., SIGIR
//! 2015).
//!
//! Leaves are numbered from left to right, and each branch has a mask of the leaves that are left when its test fails. A
//! row's leaf is the first that no failed test of the tree has masked, so all branches are tested, in any order, with
//! neither gathers nor a chain of loads. `kernels/trees.c` does it; the record is described in `trees.rs`.

use crate::trees::{Tree, normal};
use lapidary_graph::tree::{TreeEnsemble, TreeNode};

/// Leaves of a tree: a bit each of a mask.
const LEAVES: usize = 64;

/// Rows that go through a tree at once.
const LANES: u64 = 16;

/// Bytes of a branch.
const BRANCH: usize = 16;

/// The flat form.
#[derive(Default)]
pub(crate) struct Flat {
    /// The least number of rows for which it is faster.
    pub rows: i64,
    pub trees: Vec<u8>,
    pub branches: Vec<u8>,
    pub targets: Vec<u8>,
    pub weights: Vec<u8>,
}

/// `None`: a tree is too large, a leaf votes twice for a target, or the form would not be faster.
pub(crate) fn flat(t: &TreeEnsemble, trees: &[Tree]) -> Option<Flat> {
    let mut flat = Flat::default();
    let (mut branches, mut steps, mut picks) = (0, 0, 0);
    for tree in trees {
        let leaves: Vec<usize> = tree.leaves_from_the_left();
        if leaves.len() > LEAVES {
            return None;
        }
        // Leaves below each node, as a range of their numbers; children come after their parents.
        let mut below = vec![(0, 0); tree.nodes.len()];
        for (number, leaf) in leaves.iter().enumerate() {
            below[*leaf] = (number, number + 1);
        }
        let (mut fails, mut passes) = (Vec::new(), Vec::new());
        for i in (0..tree.nodes.len()).rev() {
            let (node, left) = (tree.nodes[i].0, tree.nodes[i].1 as usize);
            if left == i {
                continue;
            }
            below[i] = (below[left].0, below[left + 1].1);
            let n = &t.nodes[node as usize];
            let TreeNode::Branch { feature, .. } = n else {
                return None;
            };
            let (threshold, _, _, missing_left) = normal(n, false)?;
            let ones = |n: usize| u64::MAX.checked_shr(64 - n as u32).unwrap_or(0);
            let mask = !(ones(below[left].1) & !ones(below[left].0));
            let to = if missing_left {
                &mut passes
            } else {
                &mut fails
            };
            to.extend((threshold as f32).to_le_bytes());
            to.extend(feature.to_le_bytes());
            to.extend(mask.to_le_bytes());
        }
        let votes: Vec<&[(u32, f64)]> = leaves
            .iter()
            .map(|l| tree.votes(t, *l))
            .collect::<Option<_>>()?;
        let mut targets: Vec<u32> = votes.iter().copied().flatten().map(|v| v.0).collect();
        targets.sort_unstable();
        targets.dedup();
        for target in &targets {
            for votes in &votes {
                let mut own = votes.iter().filter(|v| v.0 == *target);
                let weight = own.next().map_or(0.0, |v| v.1);
                if own.next().is_some() {
                    return None;
                }
                flat.weights.extend((weight as f32).to_le_bytes());
            }
            flat.targets.extend(target.to_le_bytes());
        }
        let (n, m) = (fails.len() / BRANCH, passes.len() / BRANCH);
        for v in [n, m, targets.len(), leaves.len()] {
            flat.trees.extend((v as u32).to_le_bytes());
        }
        flat.branches.extend(fails);
        flat.branches.extend(passes);
        branches += (n + m) as u64;
        steps += tree.steps;
        picks += targets.len() as u64;
    }
    // Kernels read weights by the vector.
    flat.weights.resize(flat.weights.len() + 4 * LEAVES, 0);
    // A branch of all lanes costs about half of a step of one row, and their votes for a target four steps.
    let rows = (branches / 2 + 4 * picks).div_ceil(steps.max(1)).max(2);
    flat.rows = rows as i64;
    (rows <= LANES).then_some(flat)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trees::record;
    use crate::trees::tests::stump;
    use lapidary_graph::DType;
    use lapidary_graph::tree::TreeTest;

    #[test]
    fn a_failed_test_masks_the_leaves_to_its_left() {
        // The right child of the root is a branch too; leaves from the left: 0, 1, 2.
        let mut e = stump(TreeTest::Le, 1.0);
        let TreeNode::Branch { no, .. } = &mut e.nodes[0] else {
            panic!("a branch");
        };
        *no = 3;
        e.nodes.push(TreeNode::Branch {
            feature: 1,
            test: TreeTest::Ge,
            threshold: 2.0,
            yes: 4,
            no: 2,
            missing_yes: false,
        });
        e.nodes.push(TreeNode::Leaf { first: 0, count: 1 });
        let r = record(&e, DType::F32);
        let word = |s: usize, i: usize| {
            u32::from_le_bytes(std::array::from_fn(|k| r.strings[s][4 * i + k]))
        };
        // One branch that NaN fails, one that it passes (exchanged), two targets, three leaves.
        assert_eq!([0, 1, 2, 3].map(|i| word(5, i)), [1, 1, 2, 3]);
        assert_eq!((word(6, 0), word(6, 1)), (1f32.to_bits(), 2));
        assert_eq!((word(6, 2), word(6, 3)), (!1, !0));
        assert_eq!((word(6, 5), word(6, 6)), (1, !2));
        assert_eq!([0, 1].map(|i| word(7, i)), [0, 1]);
        let weight = |i: usize| f32::from_bits(word(8, i));
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(weight),
            [0.0, 0.25, 0.0, 0.5, -1.0, 0.5]
        );
    }
}
