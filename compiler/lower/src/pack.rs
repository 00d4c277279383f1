//! Constants in the form that kernels read: packed panels, transposed weights.
//!
//! A packed right operand is cut into panels of [`PANEL`] columns, each `[k][PANEL]`, the last one
//! padded with zeros: one layout for every instruction set.

use crate::program::{ConstId, Prepared};
use crate::{LowerError, Lowering};
use lapidary_graph::{Graph, ValueId};

/// Columns of a panel of packed weights.
pub(crate) const PANEL: i64 = 32;

/// A form that a constant is prepared in; the key under which it is shared.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Form {
    /// `[n / PANEL][k][PANEL]`; k and n are each several axes (extent and stride in elements), the
    /// last running fastest.
    Panels {
        k: Vec<(i64, i64)>,
        n: Vec<(i64, i64)>,
    },
    /// Convolution weights `[groups][n / PANEL][kh*kw*c][PANEL]` from `[groups * n][c][kh*kw]`.
    ConvPanels {
        groups: i64,
        n: i64,
        c: i64,
        taps: i64,
    },
    /// Depthwise weights `[taps][channels]` from `[channels][taps]`.
    Taps { channels: i64, taps: i64 },
}

/// Number of places along several axes.
fn extent(axes: &[(i64, i64)]) -> i64 {
    axes.iter().map(|a| a.0).product()
}

/// Element of the source at a flat position along several axes.
fn place(axes: &[(i64, i64)], mut position: i64) -> i64 {
    let mut at = 0;
    for (extent, stride) in axes.iter().rev() {
        at += position % extent * stride;
        position /= extent;
    }
    at
}

impl Form {
    fn floats(&self) -> usize {
        let panels = |n: i64| (n + PANEL - 1) / PANEL * PANEL;
        (match self {
            Form::Panels { k, n } => extent(k) * panels(extent(n)),
            Form::ConvPanels { groups, n, c, taps } => groups * c * taps * panels(*n),
            Form::Taps { channels, taps } => channels * taps,
        }) as usize
    }

    /// Writes the form; elements that the source lacks are zeros.
    fn fill(&self, from: &[u8], to: &mut [u8]) {
        let (from, _) = from.as_chunks::<4>();
        let (to, _) = to.as_chunks_mut::<4>();
        let at = |i: i64| from.get(i as usize).copied().unwrap_or_default();
        let mut rows = to.chunks_exact_mut(PANEL as usize);
        match *self {
            Form::Panels { ref k, ref n } => {
                let (depth, columns) = (extent(k), extent(n));
                let contiguous =
                    n.last().is_some_and(|a| a.1 == 1) && n.iter().rev().skip(1).all(|a| a.0 == 1);
                for p in 0..(columns + PANEL - 1) / PANEL {
                    let valid = PANEL.min(columns - p * PANEL) as usize;
                    let places: Vec<i64> =
                        (0..valid as i64).map(|j| place(n, p * PANEL + j)).collect();
                    for kk in 0..depth {
                        let first = place(k, kk);
                        let Some(row) = rows.next() else {
                            return;
                        };
                        let start = (first + places.first().copied().unwrap_or_default()) as usize;
                        match from.get(start..start + valid).filter(|_| contiguous) {
                            Some(run) => row[..valid].copy_from_slice(run),
                            None => row[..valid]
                                .iter_mut()
                                .zip(&places)
                                .for_each(|(e, j)| *e = at(first + j)),
                        }
                        row[valid..].fill([0; 4]);
                    }
                }
            }
            Form::ConvPanels { groups, n, c, taps } => {
                for g in 0..groups {
                    for p in 0..(n + PANEL - 1) / PANEL {
                        let valid = PANEL.min(n - p * PANEL) as usize;
                        for t in 0..taps {
                            for ch in 0..c {
                                let Some(row) = rows.next() else {
                                    return;
                                };
                                let first = ((g * n + p * PANEL) * c + ch) * taps + t;
                                row[..valid]
                                    .iter_mut()
                                    .zip(0..)
                                    .for_each(|(e, j)| *e = at(first + j * c * taps));
                                row[valid..].fill([0; 4]);
                            }
                        }
                    }
                }
            }
            Form::Taps { channels, taps } => {
                for (i, e) in (0..).zip(to.iter_mut()) {
                    *e = at(i % channels * taps + i / channels);
                }
            }
        }
    }
}

impl Lowering {
    /// The prepared form of an f32 constant, made once.
    pub(crate) fn prepare(
        &mut self,
        g: &Graph,
        v: ValueId,
        form: Form,
    ) -> Result<ConstId, LowerError> {
        if let Some(c) = self.prepared.get(&(v, form.clone())) {
            return Ok(*c);
        }
        let data = g.constant(v).ok_or_else(|| LowerError::Unsupported {
            node: g.values[v].name.clone(),
            what: "a weight that is not constant, in packed form".into(),
        })?;
        let bytes = data.bytes.clone();
        let size = form.floats() * 4;
        let key = (v, form.clone());
        let id = self.constants.push(Prepared {
            size,
            identity: Some((bytes.as_ptr() as usize, bytes.len(), format!("{form:?}"))),
            make: Box::new(move |out| form.fill(&bytes, out)),
        });
        self.prepared.insert(key, id);
        Ok(id)
    }
}
