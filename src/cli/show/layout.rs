//! Places boxes in layers: every edge leads downwards, and crosses few others.
//!
//! 1. A box's layer is the length of the longest path to it; then boxes move down as far as their readers allow, so
//!    that edges are short.
//! 2. An edge over several layers gets a point in each that it passes.
//! 3. Within layers, boxes and points are sorted by the mean place of their neighbours above and below, in turns
//!    (barycentres; Sugiyama, Tagawa and Toda 1981).
//! 4. Each moves towards the mean of its neighbours as far as those beside it leave room.
//!
//! In: sizes, and edges that lead from a lower number to a higher. Out: centres, and the points of each edge.

/// The gap between boxes of a layer.
const GAP: f64 = 18.0;
/// The gap between layers.
const LAYER_GAP: f64 = 34.0;
/// The room that an edge takes in a layer that it passes.
const PASSING: f64 = 10.0;
/// Rounds of sorting, and of moving.
const SWEEPS: usize = 12;

/// Where everything is.
pub struct Layout {
    /// The centre of each box.
    pub centres: Vec<(f64, f64)>,
    /// The points of each edge from the lower side of its first box to the upper side of its second.
    pub edges: Vec<Vec<(f64, f64)>>,
    pub width: f64,
    pub height: f64,
}

/// A box, or the point of an edge that passes.
struct Slot {
    width: f64,
    layer: usize,
    above: Vec<usize>,
    below: Vec<usize>,
    x: f64,
}

/// Places boxes of these sizes.
pub fn layout(sizes: &[(f64, f64)], edges: &[(usize, usize)]) -> Layout {
    let layers_of = layers(sizes.len(), edges);
    let mut slots: Vec<Slot> = sizes
        .iter()
        .zip(&layers_of)
        .map(|((width, _), layer)| Slot {
            width: *width,
            layer: *layer,
            above: Vec::new(),
            below: Vec::new(),
            x: 0.0,
        })
        .collect();
    let mut chains = Vec::with_capacity(edges.len());
    for &(from, to) in edges {
        let mut chain = vec![from];
        for layer in layers_of[from] + 1..layers_of[to] {
            slots.push(Slot {
                width: PASSING,
                layer,
                above: Vec::new(),
                below: Vec::new(),
                x: 0.0,
            });
            chain.push(slots.len() - 1);
        }
        chain.push(to);
        for pair in chain.windows(2) {
            slots[pair[0]].below.push(pair[1]);
            slots[pair[1]].above.push(pair[0]);
        }
        chains.push(chain);
    }
    let mut rows: Vec<Vec<usize>> = Vec::new();
    for (index, slot) in slots.iter().enumerate() {
        if rows.len() <= slot.layer {
            rows.resize_with(slot.layer + 1, Vec::new);
        }
        rows[slot.layer].push(index);
    }
    order(&mut rows, &mut slots);
    place(&rows, &mut slots);

    let left = slots
        .iter()
        .map(|s| s.x - s.width / 2.0)
        .fold(f64::INFINITY, f64::min);
    let left = if left.is_finite() { left } else { 0.0 };
    for slot in &mut slots {
        slot.x += GAP - left;
    }
    let mut tops = Vec::with_capacity(rows.len());
    let mut y = GAP;
    for row in &rows {
        let tallest = row
            .iter()
            .filter_map(|s| sizes.get(*s))
            .map(|(_, height)| *height)
            .fold(0.0, f64::max);
        tops.push((y, tallest));
        y += tallest + LAYER_GAP;
    }
    let centre = |index: usize| {
        let (top, tallest) = tops[slots[index].layer];
        (slots[index].x, top + tallest / 2.0)
    };
    let edges = chains
        .iter()
        .map(|chain| {
            let mut points = Vec::with_capacity(chain.len() + 2);
            for (at, &slot) in chain.iter().enumerate() {
                let (x, y) = centre(slot);
                let (top, tallest) = tops[slots[slot].layer];
                match sizes.get(slot) {
                    Some((_, height)) if at == 0 => points.push((x, y + height / 2.0)),
                    Some((_, height)) => points.push((x, y - height / 2.0)),
                    // Past the boxes of a layer, straight down.
                    None => points.extend([(x, top), (x, top + tallest)]),
                }
            }
            points
        })
        .collect();
    Layout {
        centres: (0..sizes.len()).map(centre).collect(),
        edges,
        width: slots
            .iter()
            .map(|s| s.x + s.width / 2.0)
            .fold(0.0, f64::max)
            + GAP,
        height: y - LAYER_GAP + GAP,
    }
}

/// The layer of each box.
fn layers(boxes: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut below = vec![Vec::new(); boxes];
    let mut above = vec![Vec::new(); boxes];
    for &(from, to) in edges {
        below[from].push(to);
        above[to].push(from);
    }
    let mut layer = vec![0; boxes];
    for index in 0..boxes {
        let longest = above[index].iter().map(|a: &usize| layer[*a] + 1).max();
        layer[index] = longest.unwrap_or(0);
    }
    for index in (0..boxes).rev() {
        // A box with one or no edge above loses nothing by standing right over its readers.
        if above[index].len() <= 1
            && let Some(first) = below[index].iter().map(|b: &usize| layer[*b]).min()
        {
            layer[index] = layer[index].max(first - 1);
        }
    }
    layer
}

fn mean(of: &[usize], value: impl Fn(usize) -> f64) -> Option<f64> {
    let sum: f64 = of.iter().map(|i| value(*i)).sum();
    (!of.is_empty()).then(|| sum / of.len() as f64)
}

/// Sorts the rows; a slot's `x` is its place meanwhile.
fn order(rows: &mut [Vec<usize>], slots: &mut [Slot]) {
    let number = |row: &[usize], slots: &mut [Slot]| {
        for (place, slot) in row.iter().enumerate() {
            // The middle of a row stands over the middle of the next.
            slots[*slot].x = place as f64 - row.len() as f64 / 2.0;
        }
    };
    for row in rows.iter() {
        number(row, slots);
    }
    for sweep in 0..SWEEPS {
        let down = sweep % 2 == 0;
        let count = rows.len();
        for at in 0..count {
            let row = &mut rows[if down { at } else { count - 1 - at }];
            let mut keyed: Vec<(f64, usize)> = row
                .iter()
                .map(|&slot| {
                    let near = if down {
                        &slots[slot].above
                    } else {
                        &slots[slot].below
                    };
                    (mean(near, |i| slots[i].x).unwrap_or(slots[slot].x), slot)
                })
                .collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            *row = keyed.into_iter().map(|(_, slot)| slot).collect();
            number(row, slots);
        }
    }
}

/// Gives each slot its x.
fn place(rows: &[Vec<usize>], slots: &mut [Slot]) {
    for row in rows {
        let total: f64 = row.iter().map(|s| slots[*s].width + GAP).sum();
        let mut x = -total / 2.0;
        for &slot in row {
            slots[slot].x = x + slots[slot].width / 2.0;
            x += slots[slot].width + GAP;
        }
    }
    for sweep in 0..SWEEPS {
        let down = sweep % 2 == 0;
        let count = rows.len();
        for at in 0..count {
            let row = &rows[if down { at } else { count - 1 - at }];
            let wish: Vec<f64> = row
                .iter()
                .map(|&slot| {
                    let near = if down {
                        &slots[slot].above
                    } else {
                        &slots[slot].below
                    };
                    mean(near, |i| slots[i].x).unwrap_or(slots[slot].x)
                })
                .collect();
            let need = |at: usize| (slots[row[at - 1]].width + slots[row[at]].width) / 2.0 + GAP;
            // The mean of the leftmost and the rightmost arrangement that keep the gaps.
            let mut right = wish.clone();
            for at in 1..row.len() {
                right[at] = right[at].max(right[at - 1] + need(at));
            }
            let mut left = wish;
            for at in (1..row.len()).rev() {
                left[at - 1] = left[at - 1].min(left[at] - need(at));
            }
            for (at, &slot) in row.iter().enumerate() {
                slots[slot].x = (left[at] + right[at]) / 2.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_lead_down_and_boxes_of_a_layer_keep_their_distance() {
        // A residual block, twice, with a box that reads across both.
        let edges = [
            (0, 1),
            (1, 2),
            (0, 3),
            (2, 3),
            (3, 4),
            (4, 5),
            (3, 6),
            (5, 6),
            (0, 7),
            (6, 7),
            (1, 7),
        ];
        let sizes = vec![(100.0, 40.0); 8];
        let layout = layout(&sizes, &edges);
        for ((from, to), points) in edges.iter().zip(&layout.edges) {
            assert!(layout.centres[*from].1 < layout.centres[*to].1);
            assert!(points.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        }
        for (a, one) in layout.centres.iter().enumerate() {
            assert!(one.0 >= 50.0 && one.0 + 50.0 <= layout.width);
            for other in &layout.centres[a + 1..] {
                assert!(one.1 != other.1 || (one.0 - other.0).abs() >= 100.0);
            }
        }
    }

    #[test]
    fn a_picture_of_nothing_is_empty() {
        let layout = layout(&[], &[]);
        assert!(layout.centres.is_empty() && layout.width.is_finite() && layout.height.is_finite());
    }
}
