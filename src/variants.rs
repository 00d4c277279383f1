//! Which variants of the code are made beside the general one (docs/variants.md).

use std::collections::HashMap;

use bytes::Bytes;
use lapidary_graph::{Def, Graph};

use crate::{DimSetting, Error, Options};

/// The most variants beside the general one.
pub const MOST: usize = 16;

/// The options of the general variant: what has a list of values is free.
pub(crate) fn general(options: &Options) -> Options {
    let mut general = options.clone();
    for (name, _) in std::mem::take(&mut general.variants) {
        general.dims.push((name, DimSetting::Free));
    }
    general
}

/// Guards, as text, and options of the variants that are asked for, in the order in which they are tried: those that fix more come
/// first.
pub(crate) fn specialised(options: &Options) -> Result<Vec<(String, Options)>, Error> {
    let lists = &options.variants;
    let count = lists
        .iter()
        .try_fold(1usize, |n, (_, values)| n.checked_mul(values.len()));
    let mut all: Vec<Vec<(String, i64)>> = vec![Vec::new()];
    // The general variant is not counted where it is among the combinations.
    if count.is_none_or(|n| n > MOST + 1) {
        return Err(too_many(options));
    }
    for (name, values) in lists {
        let longer = |fixed: &Vec<(String, i64)>| {
            let with = |value: &Option<i64>| {
                let mut fixed = fixed.clone();
                fixed.extend(value.map(|v| (name.clone(), v)));
                fixed
            };
            values.iter().map(with).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all.retain(|fixed| !fixed.is_empty());
    let mut once: Vec<Vec<(String, i64)>> = Vec::new();
    for fixed in all {
        if !once.contains(&fixed) {
            once.push(fixed);
        }
    }
    if once.len() > MOST {
        return Err(too_many(options));
    }
    once.sort_by_key(|fixed| std::cmp::Reverse(fixed.len()));
    let variant = |fixed: Vec<(String, i64)>| {
        let texts: Vec<String> = fixed
            .iter()
            .map(|(name, v)| format!("{name}={v}"))
            .collect();
        let mut special = general(options);
        for (name, value) in fixed {
            special.dims.push((name, DimSetting::Fixed(value)));
        }
        (texts.join(" "), special)
    };
    Ok(once.into_iter().map(variant).collect())
}

fn too_many(options: &Options) -> Error {
    let lists: Vec<String> = options
        .variants
        .iter()
        .map(|(name, values)| format!("{} of '{name}'", values.len()))
        .collect();
    Error::Usage(format!(
        "more than {MOST} variants: values are combined, {} (hint: the general code takes any value; name those that matter most)",
        lists.join(" times ")
    ))
}

/// Fails if a state lies differently in a variant: its memory is shared by all.
pub(crate) fn require_same_states(
    general: &Graph,
    special: &Graph,
    guard: &str,
) -> Result<(), Error> {
    let form = |graph: &Graph| -> Vec<(u32, Option<u32>, bool)> {
        let states = graph.states.iter();
        states
            .map(|s| (s.input, s.axis, s.store.is_some()))
            .collect()
    };
    let (ours, theirs) = (form(general), form(special));
    let Some((state, _)) = ours.iter().zip(&theirs).find(|(a, b)| a != b) else {
        return Ok(());
    };
    let input = general.inputs.get(state.0 as usize);
    let name = input.map_or("", |v| general.values[*v].name.as_str());
    Err(Error::Usage(format!(
        "state '{name}' cannot be kept the same in the variant {guard} (hint: a dim that counts a state's rows cannot have variants)"
    )))
}

/// Makes constants with the same bytes the same memory, so that what is packed of them is packed once.
pub(crate) fn share_constants(general: &Graph, special: &mut [Graph]) {
    let mut known: HashMap<(usize, u64), Vec<Bytes>> = HashMap::new();
    for data in general.values.values() {
        if let Def::Const(t) = &data.def {
            known
                .entry(key(&t.bytes))
                .or_default()
                .push(t.bytes.clone());
        }
    }
    for graph in special {
        for v in graph.values.keys() {
            let Def::Const(t) = &mut graph.values[v].def else {
                continue;
            };
            let same = known.entry(key(&t.bytes)).or_default();
            let is_same = |b: &&Bytes| b.as_ptr() == t.bytes.as_ptr() || **b == t.bytes;
            match same.iter().find(is_same) {
                Some(bytes) => t.bytes = bytes.clone(),
                None => same.push(t.bytes.clone()),
            }
        }
    }
}

/// Length and a hash of the first and last bytes.
fn key(bytes: &[u8]) -> (usize, u64) {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    let end = bytes.len().min(256);
    bytes[..end].hash(&mut hasher);
    bytes[bytes.len() - end..].hash(&mut hasher);
    (bytes.len(), hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guards(dims: &[&str]) -> Vec<String> {
        let mut options = Options::default();
        for dim in dims {
            options.set_dim(dim).expect("a setting");
        }
        let all = specialised(&options).expect("few enough");
        all.into_iter().map(|(guard, _)| guard).collect()
    }

    #[test]
    fn lists_are_combined_and_free_dims_come_last() {
        let cases: [(&[&str], &[&str]); 5] = [
            (&["n=1"], &[]),
            (&["n=1,?"], &["n=1"]),
            (&["n=1,4", "s=7"], &["n=1", "n=4"]),
            (
                &["n=1,4", "s=7,8"],
                &["n=1 s=7", "n=1 s=8", "n=4 s=7", "n=4 s=8"],
            ),
            (&["n=1,?", "s=7,?"], &["n=1 s=7", "n=1", "s=7"]),
        ];
        for (dims, expected) in cases {
            assert_eq!(guards(dims), expected, "{dims:?}");
        }
    }

    #[test]
    fn too_many_variants_are_an_error_that_counts_them() {
        let mut options = Options::default();
        for dim in ["a=1,2,3,4,5", "b=1,2,3,4"] {
            options.set_dim(dim).expect("a setting");
        }
        let error = specialised(&options).expect_err("20 variants").to_string();
        assert!(error.contains("5 of 'a' times 4 of 'b'"), "{error}");
    }
}
