//! Which inputs and outputs are states: patterns of names against a model's own.

use std::collections::HashSet;

use lapidary_graph::Graph;

use crate::Error;

/// Numbers of the inputs and outputs that the patterns pair. Each pattern must find something, and nothing may be found
/// twice.
pub(crate) fn pairs(
    graph: &Graph,
    patterns: &[(String, String)],
) -> Result<Vec<(usize, usize)>, Error> {
    let inputs: Vec<&str> = graph
        .inputs
        .iter()
        .map(|v| graph.values[*v].name.as_str())
        .collect();
    let outputs: Vec<&str> = graph
        .outputs
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let (mut found, mut taken) = (Vec::new(), HashSet::new());
    for (past, present) in patterns {
        let before = found.len();
        for (i, input) in inputs.iter().enumerate() {
            let Some(text) = matched(past, input) else {
                continue;
            };
            let name = present.replacen('*', text, 1);
            let Some(o) = outputs.iter().position(|output| *output == name) else {
                return Err(Error::Usage(format!(
                    "state '{past}={present}': the model has no output '{name}' for input '{input}' (hint: its outputs are {})",
                    outputs.join(", ")
                )));
            };
            let twice = if !taken.insert(format!("input {input}")) {
                Some(format!("input '{input}'"))
            } else if !taken.insert(format!("output {name}")) {
                Some(format!("output '{name}'"))
            } else {
                None
            };
            if let Some(twice) = twice {
                return Err(Error::Usage(format!("{twice} is in two states")));
            }
            found.push((i, o));
        }
        if found.len() == before {
            return Err(Error::Usage(format!(
                "state '{past}={present}': the model has no such input (hint: its inputs are {})",
                inputs.join(", ")
            )));
        }
    }
    Ok(found)
}

/// What `*` stands for, if the pattern fits; nothing where it has none.
fn matched<'n>(pattern: &str, name: &'n str) -> Option<&'n str> {
    match pattern.split_once('*') {
        None => (pattern == name).then_some(""),
        Some((before, after)) => name.strip_prefix(before)?.strip_suffix(after),
    }
}

#[cfg(test)]
mod tests {
    use super::matched;

    #[test]
    fn a_star_stands_for_any_text() {
        let cases = [
            ("past", "past", Some("")),
            ("past", "past.0", None),
            ("past_*", "past_0.key", Some("0.key")),
            ("past.*.key", "past.11.key", Some("11")),
            ("past.*.key", "past.11.value", None),
            ("aa*aa", "aaa", None),
            ("*", "x", Some("x")),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matched(pattern, name), expected, "{pattern} {name}");
        }
    }
}
