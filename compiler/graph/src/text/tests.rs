use super::parse;

/// One line for each operator: it must come back as it was written.
#[test]
fn every_operator_is_printed_as_it_was_written() {
    let text = r#"graph "all \"kinds\"" [batch, seq, "odd name", found] {
  input %x: f32[batch, seq, 8]
  input %"spaced name": f32["odd name"]
  input %any: f32[*]
  input %ids: i64[batch, seq]
  input %img: f32[batch, 3, 32, 32]
  const @w: f32[8, 4] = splat(0.5)
  const @k: f32[6, 3, 3, 3] = splat(-0.0)
  const @i: i32[3] = [0, -1, 2]
  const @i#2: i64[1, 3] = [0, 1, -1]
  const @w#2: f32[1] = [1e30]
  const @rw: f32[8] = [0.0, -0.0, inf, -inf, nan, 0x7fc00001, 1e-45, 16777216.0]
  const @xs: f32[2, 2] = [0.0, 1.0, 2.0, 3.0]
  const @h: f16[2] = [0.5, nan]
  const @sk: f32[2] = [0.5, 1.0]
  const @s: string[2] = ["a", "b\x00\"\\"]
  const @f: bool[2] = [true, false]
  %c: f32[batch, seq, 4] = contract "abc,cd->abd" %x, @w   ; /matmul | /other
  %p: f32[batch, seq, 4] = pointwise (a = %c) => let t0 = a * 0.5 in t0 * (erf(t0 * -0.70710677) + 1.0)
  %u: f32[*] = pointwise (a = %any) => -max(a, 0.0)
  %sh: i64[2] = shape {dims: [batch*seq, floordiv(seq, 2) + 1]}
  %cv: f32[batch, 6, 16, 16] = conv {kernel: [3, 3], strides: [2, 2], pads_begin: [1, 1], pads_end: [1, 1]} %img, @k, _
  %mp: f32[batch, 6, 8, 8] = pool {kind: average, count_padding: true, kernel: [2, 2], strides: [2, 2], out: [8, 8]} %cv
  %r: f32[batch, 1, 4] = reduce {kind: log_sum_exp, axes: [1], keep: true} %p
  %a: i64[batch, seq] = arg_reduce {kind: max, axis: 2} %p
  %cs: i64[batch, seq] = cumsum {axis: 1, reverse: true} %ids
  %sm: f32[batch, seq, 4] = softmax {axis: 2, log: true} %p
  %n: f32[batch, seq, 8] = normalize {kind: layer, axis: 2, epsilon: 1e-5} %x
  %q: f32[batch, 2, seq, 4] = reshape {shape: [batch, 2, seq, 4]} %x
  %at: f32[batch, 2, seq, 4] = attention {scale: 0.5, causal: true} %q, %q, %q
  %aw: f32[batch, 2, seq, 4] = attention {scale: 0.5, causal: true, softcap: 2.0, window: 3, sink: true} %q, %q, %q, @sk
  %t: f32[batch, seq, 2, 4] = transpose {perm: [0, 2, 1, 3]} %at
  %sl: f32[batch, min(5, seq), 2, 4] = slice {start: [0, 0, 0, 3], step: [1, 1, 1, -1], size: [batch, min(5, seq), 2, 4]} %t
  %cc: f32[batch, seq + min(5, seq), 2, 4] = concat {axis: 1} %t, %sl
  %pd: f32[batch, seq + 3, 4] = pad {before: [0, 1, 0], after: [0, 2, 0], mode: edge} %p
  %ga: f32[3, seq, 4] = gather {axis: 0} %p, @i
  %sn: f32[batch, seq, 4] = scatter_nd {reduce: add} %p, @i#2, @w#2
  %ra: f32[8] = pointwise (a = @rw) => a
  %l: i64[found, 2], %l#2: f32[found] = library "non_zero" {ints: [1, -2], floats: [0.5], strings: ["x\\x00\""]} %p   ; /NonZero
  %m: bool[found] = pointwise {shape: [found]} (a = %l#2, b = @h) => select(a < 1.0, index(0) == dim(2*found), !(f32(b) >= a)) & isnan(a)
  %d: i32[2] = pointwise (a = @h, b = @f) => i32(bits_u16(a) & 15:u16) << select(b, 1:i32, -1:i32)
  %tr: i64[2], %tr#2: f32[2, 2] = trees {targets: 2, aggregate: sum, post: softmax, labels: [7, 8], roots: [0], weights: [(0, 1.5), (1, inf)], nodes: [branch(0, le, 0.5, 1, 2, missing), leaf(0, 1), leaf(1, 1)]} @xs
  output "y" %m
  output "unused string" @s
}
"#;
    let graph = parse(text).unwrap_or_else(|e| panic!("{e}"));
    let printed = graph.to_text();
    assert_eq!(printed, text);
    assert_eq!(parse(&printed).map(|g| g.to_text()), Ok(printed));
}

#[test]
fn regions_and_containers_are_printed_as_they_were_written() {
    let text = r#"graph "g" [n, got] {
  input %x: f32[n, 3]
  input %go: bool[]
  input %count: i64[]
  input %s: seq(f32[*])
  input %o: opt(seq(i64[*]))
  input %m: map(string, f32[*])
  const @w: f32[3] = [1.0, 2.0, 3.0]
  %l: i64[] = library "sequence_length" %s
  %y: f32[*] = if %go, %x, @w {
    body "then" (1) [n] {
      input %x: f32[n, 3]
      output "y" %x
    }
    body "else" (2) [] {
      input %w: f32[3]
      %y: f32[3] = pointwise (a = %w) => -a   ; /if/Neg
      output "y" %y
    }
  }   ; /if
  %a: f32[n, 3], %all: f32[got, n, 3] = loop {carried: 1} %count, _, %x, @w {
    body "step" (own, own, own, 3) [n] {
      input %i: i64[]
      input %go: bool[]
      input %x: f32[n, 3]
      input %w: f32[3]
      const @always: bool[] = [true]
      %t: bool[] = if %go {
        body "yes" () [] {
          const @f: bool[] = [false]
          output "r" @f
        }
        body "no" () [] {
          const @f: bool[] = [true]
          output "r" @f
        }
      }
      output "go" @always
      output "x" %x
      output "scan" %x
    }
  }
  %z: f32[3] = scan {states: 1, inputs: [0, 1 reverse], outputs: []} @w, %x, %x {
    body "b" (own, own, own) [k] {
      input %s: f32[3]
      input %p: f32[3]
      input %q: f32[k]
      output "s" %s
    }
  }
  output "y" %y
  output "z" %z
  output "all" %all
}
"#;
    let graph = parse(text).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(graph.to_text(), text);
    assert_eq!(crate::verify::verify(&graph), Ok(()));
}

#[test]
fn what_does_not_fit_at_the_border_of_a_region_is_told() {
    let text = r#"graph "g" [] {
  input %go: i64[]
  input %x: f32[4]
  %y: f32[4] = if %go, %x {
    body "then" (1) [] {
      input %x: f32[3]
      output "y" %x
    }
    body "else" (2) [] {
      input %x: f32[4]
      %z: i32[4] = pointwise (a = %x) => i32(a)
      output "y" %z
    }
  }
  output "y" %y
}
"#;
    let errors = crate::verify::verify(&parse(text).unwrap_or_else(|e| panic!("{e}")));
    let found: Vec<String> = errors
        .err()
        .into_iter()
        .flatten()
        .map(|e| e.problem.to_string())
        .collect();
    assert_eq!(
        found,
        [
            "operand 1 as input 0 of body 0: expected f32[3], found f32[4]",
            "operand 0 is no condition",
            "body 1, input 0: there is no operand 2",
            "output 0: f32[4], made of i32[4]",
        ]
    );
}

#[test]
fn a_large_constant_is_read_back_from_its_seed() {
    let text = "graph \"g\" [] {\n  const @w: f32[5, 5] = random(7)\n  output \"w\" @w\n}\n";
    let (a, b) = (parse(text).unwrap(), parse(text).unwrap());
    assert_eq!(a, b);
    assert!(a.to_text().contains("= #"));
    assert!(parse(&a.to_text()).is_ok());
}

#[test]
fn errors_name_the_place() {
    let cases = [
        (
            "graph",
            "line 1, column 6: expected a string, found the end",
        ),
        (
            "graph \"g\" [] {\n  %y: f32[] = softmax %x\n}",
            "line 2, column 23: expected attribute 'axis', found value 'x'",
        ),
        (
            "graph \"g\" [] {\n  output \"y\" %x\n}",
            "line 2, column 14: value 'x' is not defined above",
        ),
        (
            "graph \"g\" [] {\n  input %x: f32[n]\n}",
            "line 2, column 17: symbol 'n' is not in the header",
        ),
        (
            "graph \"g\" [] {\n  const @x: u8[2] = [1]\n}",
            "line 3, column 1: expected 2 elements, found 1",
        ),
        (
            "graph \"g\" [] {\n  input %x: f32[]\n  %y: f32[] = pointwise (a = %x) => foo(a)\n}",
            "line 4, column 1: unknown function 'foo'",
        ),
    ];
    for (text, expected) in cases {
        let found = parse(text).err().map(|e| e.to_string());
        assert_eq!(found.as_deref(), Some(expected));
    }
}
