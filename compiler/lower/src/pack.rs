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
    /// `[batch][n / PANEL][k][PANEL]` from strides (in elements) of batch, k and n.
    Panels {
        batch: (i64, i64),
        k: (i64, i64),
        n: (i64, i64),
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

impl Form {
    fn floats(&self) -> usize {
        let panels = |n: i64| (n + PANEL - 1) / PANEL * PANEL;
        (match self {
            Form::Panels { batch, k, n } => batch.0 * k.0 * panels(n.0),
            Form::ConvPanels { groups, n, c, taps } => groups * c * taps * panels(*n),
            Form::Taps { channels, taps } => channels * taps,
        }) as usize
    }

    /// Index of the source element behind each place, `None` for padding, in order of places.
    fn fill(&self, from: &[u8], to: &mut [u8]) {
        let source = |i: i64| from.get(i as usize * 4..i as usize * 4 + 4);
        let mut out = to.chunks_exact_mut(4);
        let mut put = |v: Option<&[u8]>| {
            if let Some(slot) = out.next() {
                match v {
                    Some(v) => slot.copy_from_slice(v),
                    None => slot.fill(0),
                }
            }
        };
        match *self {
            Form::Panels { batch, k, n } => {
                for b in 0..batch.0 {
                    for p in 0..(n.0 + PANEL - 1) / PANEL {
                        for kk in 0..k.0 {
                            let row = b * batch.1 + kk * k.1 + p * PANEL * n.1;
                            let valid = PANEL.min(n.0 - p * PANEL);
                            if n.1 == 1
                                && valid == PANEL
                                && let Some(run) =
                                    from.get(row as usize * 4..(row + PANEL) as usize * 4)
                            {
                                run.chunks_exact(4).for_each(|v| put(Some(v)));
                                continue;
                            }
                            for j in 0..PANEL {
                                put(if j < valid {
                                    source(row + j * n.1)
                                } else {
                                    None
                                });
                            }
                        }
                    }
                }
            }
            Form::ConvPanels { groups, n, c, taps } => {
                for g in 0..groups {
                    for p in 0..(n + PANEL - 1) / PANEL {
                        for t in 0..taps {
                            for ch in 0..c {
                                for j in 0..PANEL {
                                    let col = p * PANEL + j;
                                    put(if col < n {
                                        source(((g * n + col) * c + ch) * taps + t)
                                    } else {
                                        None
                                    });
                                }
                            }
                        }
                    }
                }
            }
            Form::Taps { channels, taps } => {
                for t in 0..taps {
                    for c in 0..channels {
                        put(source(c * taps + t));
                    }
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
            make: Box::new(move |out| form.fill(&bytes, out)),
        });
        self.prepared.insert(key, id);
        Ok(id)
    }
}
