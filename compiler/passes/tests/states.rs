//! What the pass `states` makes of a graph, in its text form, and that the text reads back.

use lapidary_graph::{text, verify};
use lapidary_passes::states;

/// `past` grows in place, `h` is exchanged.
const BEFORE: &str = r#"
graph "decoder" [batch, past] {
  input %past: f32[batch, past, 4]
  input %new: f32[batch, 1, 4]
  input %h: f32[batch, 4]
  %present: f32[batch, past + 1, 4] = concat {axis: 1} %past, %new   ; /Concat
  %y: f32[batch, 4] = reduce {kind: sum, axes: [1], keep: false} %present   ; /ReduceSum
  %next: f32[batch, 4] = pointwise (a = %y, b = %h) => a + b   ; /Add
  output "y" %y
  output "present" %present
  output "next" %next
}
"#;

const AFTER: &str = r#"
graph "decoder" [batch, past, past_capacity] {
  input %past: f32[batch, past, 4]
  input %new: f32[batch, 1, 4]
  input %h: f32[batch, 4]
  input %past.store: f32[batch, past_capacity, 4]
  %past.store.rows: f32[batch, past, 4] = slice {start: [0, 0, 0], size: [batch, past, 4]} %past.store   ; /Concat
  %past.store.rows#2: f32[batch, -past + past_capacity - 1, 4] = slice {start: [0, past + 1, 0], size: [batch, -past + past_capacity - 1, 4]} %past.store   ; /Concat
  %present: f32[batch, past_capacity, 4] = concat {axis: 1} %past.store.rows, %new, %past.store.rows#2   ; /Concat
  %present.rows: f32[batch, past + 1, 4] = slice {start: [0, 0, 0], size: [batch, past + 1, 4]} %present   ; /Concat
  %y: f32[batch, 4] = reduce {kind: sum, axes: [1]} %present.rows   ; /ReduceSum
  %next: f32[batch, 4] = pointwise (a = %y, b = %h) => a + b   ; /Add
  output "y" %y
  output "present" %present
  output "next" %next
  state %past "present" axis 1 store %past.store [batch, past + 1, 4]
  state %h "next"
}
"#;

#[test]
fn a_concatenation_becomes_the_next_content_of_a_store() {
    let mut graph = text::parse(BEFORE).expect("the graph parses");
    states::keep(&mut graph, &[(0, 1), (2, 2)]).expect("both can be kept");
    verify::verify(&graph).expect("the result is sound");
    let found = graph.to_text();
    assert_eq!(found.trim(), AFTER.trim());
    let again = text::parse(&found).expect("the text reads back");
    assert_eq!(again.to_text(), found);
    assert_eq!(again.states, graph.states);
}
