//! Cycles in a directed graph, without recursion: a chain of a million nodes must not overflow the stack.

use std::collections::VecDeque;

/// Which strongly connected component each node belongs to. Two nodes of one component lie on a common cycle.
///
/// Tarjan's algorithm with an explicit stack. An edge to a node that does not exist is passed over.
pub(super) fn components(edges: &[Vec<usize>]) -> Vec<usize> {
    const NONE: usize = usize::MAX;
    let count = edges.len();
    let mut order = vec![NONE; count];
    let mut low = vec![0; count];
    let mut component = vec![NONE; count];
    let mut open = Vec::new();
    let mut walk: Vec<(usize, usize)> = Vec::new();
    let (mut visited, mut components) = (0, 0);
    for start in 0..count {
        if order[start] != NONE {
            continue;
        }
        walk.push((start, 0));
        while let Some((node, next)) = walk.pop() {
            if next == 0 {
                order[node] = visited;
                low[node] = visited;
                visited += 1;
                open.push(node);
            }
            if let Some(&target) = edges[node].get(next) {
                walk.push((node, next + 1));
                if target >= count {
                    continue;
                }
                if order[target] == NONE {
                    walk.push((target, 0));
                } else if component[target] == NONE {
                    low[node] = low[node].min(order[target]);
                }
                continue;
            }
            if low[node] == order[node] {
                while let Some(member) = open.pop() {
                    component[member] = components;
                    if member == node {
                        break;
                    }
                }
                components += 1;
            }
            if let Some(&(parent, _)) = walk.last() {
                low[parent] = low[parent].min(low[node]);
            }
        }
    }
    component
}

/// The shortest way from one node to another, both included; `None` if there is none.
pub(super) fn path(edges: &[Vec<usize>], from: usize, to: usize) -> Option<Vec<usize>> {
    let mut before: Vec<Option<usize>> = vec![None; edges.len()];
    let mut queue = VecDeque::from([from]);
    while let Some(node) = queue.pop_front() {
        if node == to {
            let mut way = vec![node];
            let mut at = node;
            while at != from {
                at = (*before.get(at)?)?;
                way.push(at);
            }
            way.reverse();
            return Some(way);
        }
        for &target in edges.get(node)? {
            if target != from
                && let Some(slot @ None) = before.get_mut(target)
            {
                *slot = Some(node);
                queue.push_back(target);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_a_cycle_share_a_component() {
        // 0 → 1 → 2 → 1, 2 → 3, 4 → 4
        let edges = vec![vec![1], vec![2], vec![1, 3], vec![], vec![4, 9]];
        let found = components(&edges);
        assert_eq!(found[1], found[2]);
        for (a, b) in [(0, 1), (1, 3), (0, 3), (3, 4)] {
            assert_ne!(found[a], found[b]);
        }
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let count = 1_000_000;
        let mut edges: Vec<Vec<usize>> = (0..count).map(|n| vec![n + 1]).collect();
        edges[count - 1] = vec![0];
        assert!(components(&edges).iter().all(|component| *component == 0));
        assert_eq!(path(&edges, 0, count - 1).map(|way| way.len()), Some(count));
    }

    #[test]
    fn a_path_is_the_shortest() {
        let edges = vec![vec![1, 2], vec![3], vec![1], vec![]];
        assert_eq!(path(&edges, 0, 3), Some(vec![0, 1, 3]));
        assert_eq!(path(&edges, 3, 0), None);
        assert_eq!(path(&edges, 2, 2), Some(vec![2]));
    }
}
