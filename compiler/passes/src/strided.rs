//! Views as strides: what a chain of Reshape, Transpose, Slice and Broadcast makes of a dense
//! row-major source, when one stride an axis can say it.
//!
//! Fusion asks this to know which views an operand can absorb; lowering asks it for the addresses.

use lapidary_graph::{Dim, Op};

/// Element `index` lies at `offset + sum index * stride` of the source, in elements.
#[derive(Clone, PartialEq, Debug)]
pub struct Strided {
    /// Where the first element lies.
    pub offset: Dim,
    /// The sizes of the view.
    pub dims: Vec<Dim>,
    /// How far apart neighbours of each axis lie.
    pub strides: Vec<Dim>,
}

impl Strided {
    /// A dense row-major tensor.
    pub fn dense(dims: &[Dim]) -> Self {
        let mut strides = vec![Dim::Const(1); dims.len()];
        for i in (0..dims.len().saturating_sub(1)).rev() {
            strides[i] = strides[i + 1].mul(&dims[i + 1]);
        }
        Strided {
            offset: Dim::Const(0),
            dims: dims.to_vec(),
            strides,
        }
    }
    /// Whether the elements lie as those of a dense tensor of the same dimensions.
    pub fn is_dense(&self) -> bool {
        let dense = Strided::dense(&self.dims).strides;
        let same = self.strides.iter().zip(&dense).zip(&self.dims);
        self.offset.is_const(0) && { same }.all(|((s, t), d)| s == t || d.is_const(1))
    }
    /// The view after one more operator; `None` when it needs a copy (or is no view).
    pub fn then(&self, op: &Op) -> Option<Strided> {
        match op {
            // The rank may not be known.
            Op::Transpose { perm } if perm.len() == self.dims.len() => Some(Strided {
                offset: self.offset.clone(),
                dims: perm.iter().map(|p| self.dims[*p].clone()).collect(),
                strides: perm.iter().map(|p| self.strides[*p].clone()).collect(),
            }),
            Op::Slice { start, step, size } => {
                let mut offset = self.offset.clone();
                for (s, t) in start.iter().zip(&self.strides) {
                    offset = offset.add(&s.mul(t));
                }
                let steps = step.iter().map(|s| Dim::Const(*s));
                Some(Strided {
                    offset,
                    dims: size.clone(),
                    strides: self
                        .strides
                        .iter()
                        .zip(steps)
                        .map(|(s, t)| s.mul(&t))
                        .collect(),
                })
            }
            Op::Broadcast { shape } => {
                let lead = shape.len().checked_sub(self.dims.len())?;
                let mut strides = vec![Dim::Const(0); shape.len()];
                for (i, d) in self.dims.iter().enumerate() {
                    if *d == shape[lead + i] {
                        strides[lead + i] = self.strides[i].clone();
                    } else if !d.is_const(1) {
                        return None;
                    }
                }
                Some(Strided {
                    offset: self.offset.clone(),
                    dims: shape.clone(),
                    strides,
                })
            }
            Op::Reshape { shape } => self.reshape(shape),
            _ => None,
        }
    }
    /// Splits and merges axes; runs of old axes are matched with runs of new ones of equal size.
    fn reshape(&self, shape: &[Dim]) -> Option<Strided> {
        let mut strides = vec![Dim::Const(0); shape.len()];
        let old: Vec<usize> = (0..self.dims.len())
            .filter(|i| !self.dims[*i].is_const(1))
            .collect();
        let new: Vec<usize> = (0..shape.len())
            .filter(|i| !shape[*i].is_const(1))
            .collect();
        let (mut i, mut j) = (0, 0);
        while i < old.len() || j < new.len() {
            let (from_i, from_j) = (i, j);
            let mut p = self.dims.get(*old.get(i)?)?.clone();
            let mut q = shape.get(*new.get(j)?)?.clone();
            i += 1;
            j += 1;
            // Grow the side that divides the other until both runs have the same product.
            while p != q {
                if q.exact_div(&p).is_some() && i < old.len() {
                    p = p.mul(&self.dims[old[i]]);
                    i += 1;
                } else if p.exact_div(&q).is_some() && j < new.len() {
                    q = q.mul(&shape[new[j]]);
                    j += 1;
                } else if i < old.len() && j >= new.len() {
                    p = p.mul(&self.dims[old[i]]);
                    i += 1;
                } else if j < new.len() {
                    q = q.mul(&shape[new[j]]);
                    j += 1;
                } else {
                    return None;
                }
            }
            let run = &old[from_i..i];
            for w in run.windows(2) {
                if self.strides[w[0]] != self.strides[w[1]].mul(&self.dims[w[1]]) {
                    return None;
                }
            }
            let mut stride = self.strides[*run.last()?].clone();
            for k in (from_j..j).rev() {
                strides[new[k]] = stride.clone();
                stride = stride.mul(&shape[new[k]]);
            }
        }
        Some(Strided {
            offset: self.offset.clone(),
            dims: shape.to_vec(),
            strides,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapidary_graph::Sym;

    #[test]
    fn a_head_of_a_merged_projection_is_a_strided_view() {
        let (b, s) = (Dim::from(Sym(0)), Dim::from(Sym(1)));
        let n = |v: i64| Dim::Const(v);
        let view = Strided::dense(&[b.clone(), s.clone(), n(2304)])
            .then(&Op::Slice {
                start: vec![n(0), n(0), n(768)],
                step: vec![1, 1, 1],
                size: vec![b.clone(), s.clone(), n(768)],
            })
            .and_then(|v| {
                v.then(&Op::Reshape {
                    shape: vec![b.clone(), s.clone(), n(12), n(64)],
                })
            })
            .and_then(|v| {
                v.then(&Op::Transpose {
                    perm: vec![0, 2, 1, 3],
                })
            })
            .unwrap();
        assert_eq!(view.offset, n(768));
        assert_eq!(view.strides, vec![s.mul(&n(2304)), n(64), n(2304), n(1)]);
        let merge = Op::Reshape {
            shape: vec![b.clone(), s.mul(&n(768))],
        };
        assert_eq!(view.then(&merge), None);
    }

    #[test]
    fn a_dense_tensor_takes_any_split_and_merge() {
        let n = |v: i64| Dim::Const(v);
        let x = Strided::dense(&[n(4), n(6), n(5)]);
        let y = x.then(&Op::Reshape {
            shape: vec![n(8), n(1), n(3), n(5)],
        });
        let y = y.unwrap();
        assert_eq!(y.strides, vec![n(15), n(0), n(5), n(1)]);
        assert!(y.is_dense());
    }
}
