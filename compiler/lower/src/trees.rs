//! Ensembles of trees as the record that the library kernel reads.
use lapidary_graph::tree::TreeEnsemble;

pub(crate) fn record(t: &TreeEnsemble) -> (Vec<i64>, Vec<f64>) {
    (vec![t.targets as i64], Vec::new())
}
