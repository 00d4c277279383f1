//! Loops compiled for every level do what the reference interpreter does: written cases.

mod loops_support;
mod support;

use lapidary_codegen::Level;
use lapidary_codegen::loops::interp::{self, InterpError};
use lapidary_codegen::loops::{BufferKind, LoopKernel, Schedule, parse, schedule};
use loops_support::{Case, Target, raw};
use support::Numbers;

/// A kernel's text, its memory made for it: `sizes` are elements by buffer entry, whole numbers from
/// -4 to 4 in each; outputs are prefilled with a pattern.
fn case(text: &str, sizes: &[usize], dims: &[i64], tasks: i64) -> Case {
    let (kernel, own) = parse::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let schedule = if own == Schedule::default() {
        schedule::automatic(&kernel)
    } else {
        own
    };
    let mut numbers = Numbers(sizes.len() as u64);
    let mut buffers = vec![Vec::new(); sizes.len()];
    for b in &kernel.buffers {
        if let BufferKind::Input(n) | BufferKind::Output(n) = b.kind {
            let n = n as usize;
            for _ in 0..sizes[n] {
                let v = (numbers.next() % 9) as f64 - 4.0;
                buffers[n].extend(raw(
                    b.mem,
                    if matches!(b.kind, BufferKind::Output(_)) {
                        77.0
                    } else {
                        v
                    },
                ));
            }
        }
    }
    let mut memory = interp::Memory {
        buffers,
        dims: dims.to_vec(),
        scratch: Vec::new(),
    };
    let size = kernel
        .scratch_bytes
        .eval(&|s| match kernel.syms[s.0 as usize] {
            lapidary_codegen::loops::SymKind::Param(p) => dims.get(p as usize).copied(),
            _ => None,
        });
    memory.scratch = vec![0; size.unwrap() as usize];
    Case {
        kernel,
        schedule,
        memory,
        tasks: (0, tasks),
    }
}

fn with(mut c: Case, entry: usize, mem: lapidary_codegen::loops::Mem, values: &[f64]) -> Case {
    c.memory.buffers[entry] = values.iter().flat_map(|v| raw(mem, *v)).collect();
    c
}

const EXTENTS: [i64; 8] = [0, 1, 3, 4, 16, 17, 33, 64];

#[test]
fn pointwise_at_every_length() {
    let text = "kernel add (x: f32 input 0, y: f32 input 1, z: f32 output 2)
      dims d0 = 0
      tasks 1
    {
      for v1 in 0..d0 {
        with e0 = x[v1] + y[v1]
        z[v1] = max(e0 * e0 - 2.0, 0.5)
      }
    }";
    for n in EXTENTS {
        case(text, &[n as usize; 3], &[n], 1).check(0.0);
        let fixed = text.replace("..d0", &format!("..{n}"));
        case(&fixed, &[n as usize; 3], &[n], 1).check(0.0);
    }
}

#[test]
fn tasks_cut_the_outermost_loop() {
    let text = "kernel rows (x: f32 input 0, y: f32 input 1, z: f32 output 2)
      dims d0 = 0, d1 = 1
      tasks floordiv(d0 + 2, 3) as t2
    {
      for v3 in 3*t2..min(d0, 3*t2 + 3) {
        for v4 in 0..d1 {
          z[d1*v3 + v4] = x[d1*v3 + v4] * y[v3]
        }
      }
    }";
    for (m, n) in [(0, 5), (1, 17), (7, 33), (9, 1)] {
        case(
            text,
            &[(m * n) as usize, m as usize, (m * n) as usize],
            &[m, n],
            (m + 2) / 3,
        )
        .check(0.0);
    }
}

#[test]
fn rows_are_reduced_across_lanes() {
    let text = "kernel softmaxless (x: f32 input 0, y: f32 output 1, row: f32 scratch 0)
      dims d0 = 0, d1 = 1
      tasks d0 as t2
      scratch 64*d1
    {
      reduce v3 in 0..d1 {
        l0: f32 max= x[d1*t2 + v3]
        l3: f32 min= x[d1*t2 + v3]
      }
      reduce v4 in 0..d1 {
        let l1: f32 = x[d1*t2 + v4] - l0
        row[v4] = l1
        l2: f32 sum= l1 * l1
      }
      for v5 in 0..d1 {
        y[d1*t2 + v5] = row[v5] * l2 + l3
      }
    }
    schedule vector(v3, v4, v5)";
    for n in EXTENTS.into_iter().skip(1) {
        let c = case(text, &[3 * n as usize; 2], &[3, n], 3);
        c.check(0.0);
        Case {
            schedule: Schedule::default(),
            ..c
        }
        .check(0.0);
    }
    // No element: sums are 0, and nothing is stored.
    case(text, &[0; 2], &[3, 0], 3).check(0.0);
}

#[test]
fn an_empty_reduction_gives_the_neutral_element() {
    for (ty, op) in [
        ("f32", "sum"),
        ("f32", "max"),
        ("f64", "min"),
        ("i32", "prod"),
        ("i64", "max"),
        ("i32", "min"),
    ] {
        let text = format!(
            "kernel empty (x: {ty} input 0, y: {ty} output 1)
               dims d0 = 0
               tasks 1
             {{
               reduce v1 in 0..d0 {{
                 l0: {ty} {op}= x[v1]
               }}
               y[0] = l0
             }}
             schedule vector(v1)"
        );
        for n in [0, 1, 5, 40] {
            case(&text, &[n as usize, 1], &[n], 1).check(0.0);
        }
    }
}

#[test]
fn not_a_number_wins_in_minimum_and_maximum() {
    let text = "kernel least (x: f32 input 0, y: f32 output 1)
      tasks 1
    {
      reduce v0 in 0..21 {
        l0: f32 max= x[v0]
        l1: f32 min= x[v0]
      }
      y[0] = l0
      y[1] = l1
    }
    schedule vector(v0)";
    for at in 0..21 {
        let mut values: Vec<f64> = (0..21).map(|i| i as f64 - 7.0).collect();
        values[at] = f64::NAN;
        with(
            case(text, &[21, 2], &[], 1),
            0,
            lapidary_codegen::loops::Mem::F32,
            &values,
        )
        .check(0.0);
    }
}

#[test]
fn a_local_may_be_assigned_again() {
    // What was computed from a local before must not be used after; what is computed from it inside
    // must not be moved out.
    let text = "kernel again (x: f32 input 0, z: f32 output 1)
      dims d0 = 0
      tasks 1
    {
      let l0: f32 = 1.0
      let l1: f32 = l0 + 2.0
      if d0 - 2 >= 0 {
        let l0: f32 = 5.0
        z[0] = l0 + 2.0
      }
      z[1] = l0 + 2.0 + l1
      let l2: f32 = 0.0
      for v1 in 0..d0 {
        z[v1 + 2] = l2 * 3.0
        let l2: f32 = l2 + 1.0
        z[v1 + d0 + 2] = l2 * 3.0 + x[v1]
      }
      z[2*d0 + 2] = l2 * 3.0
    }";
    for n in [0, 1, 2, 3, 9] {
        let c = case(text, &[n as usize, 2 * n as usize + 3], &[n], 1);
        Case {
            schedule: Schedule::default(),
            ..c
        }
        .check(0.0);
    }
}

#[test]
fn indices_from_data_wrap_and_fault() {
    let text = "kernel gather (i: i64 input 0, x: f32 input 1, z: f32 output 2)
      dims d0 = 0, d1 = 1
      tasks 1
    {
      for v2 in 0..d0 {
        index x3 = i[v2] below 5 operand 1
        for v4 in 0..d1 {
          z[d1*v2 + v4] = x[d1*x3 + v4]
        }
      }
    }";
    let mem = lapidary_codegen::loops::Mem::I64;
    for n in [1, 3, 17] {
        let c = case(text, &[4, 5 * n, 4 * n], &[4, n as i64], 1);
        with(c.clone(), 0, mem, &[0.0, -5.0, 4.0, -1.0]).check(0.0);
        assert!(
            with(c.clone(), 0, mem, &[0.0, 5.0, 4.0, -9.0])
                .expected()
                .fault
                .is_some()
        );
        with(c.clone(), 0, mem, &[0.0, 5.0, 4.0, -9.0]).check(0.0);
        with(c, 0, mem, &[0.0, -6.0, 9.0, 0.0]).check(0.0);
    }
}

#[test]
fn an_epilogue_may_load_an_index_for_each_row() {
    let text = "kernel rows (a: f32 input 0, b: f32 input 1, i: i32 input 2, t: f32 input 3, z: f32 output 4)
      tasks 1
    {
      contract m v0 in 0..7, n v1 in 0..21, k v2 in 0..3 {
        a a[3*v0 + v2]
        b b[0] row 21
        epilogue l0: f32 {
          index x3 = i[v0] below 7 operand 2
          z[21*v0 + v1] = l0 + t[x3] + t[2*x3]
        }
      }
    }";
    let c = case(text, &[21, 63, 7, 21, 147], &[], 1);
    with(
        c,
        2,
        lapidary_codegen::loops::Mem::I32,
        &[3.0, 1.0, 0.0, -1.0, 5.0, 2.0, 4.0],
    )
    .check(0.0);
}

#[test]
fn an_epilogue_may_ask_for_its_column() {
    // Lanes would go different ways: one lane at a time.
    let text = "kernel corner (a: f32 input 0, b: f32 input 1, z: f32 output 2)
      tasks 1
    {
      contract m v0 in 0..5, n v1 in 0..21, k v2 in 0..3 {
        a a[3*v0 + v2]
        b b[0] row 21
        epilogue l0: f32 {
          if v0 - v1 >= 0 {
            z[21*v0 + v1] = l0
          }
        }
      }
    }";
    case(text, &[15, 63, 105], &[], 1).check(0.0);
}

#[test]
fn one_product_feeds_another_through_scratch() {
    let text = "kernel attention (q: f32 input 0, w: f32 input 1, v: f32 input 2, z: f32 output 3, s: f32 scratch 0, u: f32 scratch 4352)
      dims d0 = 0, d1 = 1
      tasks 1
      scratch 4608
    {
      contract m v2 in 0..d0, n v3 in 0..d1, k v4 in 0..5 {
        a q[5*v2 + v4]
        b w[0] row d1
        epilogue l0: f32 {
          s[32*v2 + v3] = max(l0, 0.0)
        }
      }
      for v5 in 0..d0 {
        reduce v6 in 0..d1 {
          l1: f32 max= s[32*v5 + v6]
        }
        u[v5] = l1
      }
      contract m v7 in 0..d0, n v8 in 0..17, k v9 in 0..d1 {
        a s[32*v7 + v9]
        b v[0] row 17
        epilogue l2: f32 {
          let l3: f32 = l2 + u[v7]
          z[17*v7 + v8] = l3
        }
      }
    }";
    for (m, n) in [(0, 3), (1, 1), (3, 7), (9, 31), (33, 32), (5, 0)] {
        let c = case(
            text,
            &[
                5 * m as usize,
                5 * n as usize,
                17 * n as usize,
                17 * m as usize,
            ],
            &[m, n],
            1,
        );
        c.check(0.0);
    }
}

#[test]
fn windows_meet_their_borders_under_conditions() {
    let text = "kernel pool (x: f32 input 0, z: f32 output 1)
      dims d0 = 0, d1 = 1
      tasks 1
    {
      for v2 in 0..d0 {
        for v3 in 0..d1 {
          reduce v4 in -1..2 {
            let l0: f32 = 0.0
            if v2 + v4 >= 0 and d0 - v2 - v4 - 1 >= 0 {
              let l0: f32 = x[d1*v2 + d1*v4 + v3] * 2.0
            }
            l1: f32 sum= l0
          }
          z[d1*v2 + v3] = l1
        }
      }
    }";
    for (m, n) in [(1, 1), (3, 17), (5, 64), (2, 3), (0, 4), (4, 0)] {
        let size = (m * n) as usize;
        let c = case(text, &[size; 2], &[m, n], 1);
        c.check(0.0);
        let (_, s) = parse::parse(&format!("{text}\nschedule vector(v3)")).unwrap();
        Case { schedule: s, ..c }.check(0.0);
    }
}

#[test]
fn types_convert_narrow_and_saturate() {
    let types = [
        "f32", "f64", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "f16", "bf16",
    ];
    let lane = |t: &str| match t {
        "f32" | "f16" | "bf16" => "f32",
        "f64" => "f64",
        "u32" | "i64" => "i64",
        _ => "i32",
    };
    for from in types {
        for to in types {
            let text = format!(
                "kernel cast (x: {from} input 0, z: {to} output 1)
                   dims d0 = 0
                   tasks 1
                 {{
                   for v1 in 0..d0 {{
                     z[v1] = narrow.{to}(to.{}(x[v1]))
                   }}
                 }}",
                lane(to)
            );
            for n in [1, 19] {
                case(&text, &[n; 2], &[n as i64], 1).check(0.0);
            }
        }
    }
    // Out of range, and not a number.
    let values = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        3e9,
        -3e9,
        1e19,
        -1e19,
        2147483648.0,
        -0.5,
        65519.0,
        65520.0,
        1e-8,
        3e-8,
        1e-40,
        0.1,
    ];
    for from in ["f32", "f64"] {
        for to in ["i32", "i64", "f16", "bf16", "f64", "f32"] {
            let text = format!(
                "kernel cast (x: {from} input 0, z: {to} output 1)
                   tasks 1
                 {{
                   for v0 in 0..15 {{
                     z[v0] = to.{}(x[v0])
                   }}
                 }}",
                lane(to)
            );
            let mem = if from == "f32" {
                lapidary_codegen::loops::Mem::F32
            } else {
                lapidary_codegen::loops::Mem::F64
            };
            with(case(&text, &[15; 2], &[], 1), 0, mem, &values).check(0.0);
        }
    }
}

#[test]
fn the_interpreter_reports_what_is_outside() {
    let text = "kernel out (x: f32 input 0, z: f32 output 1)
      tasks 1
    {
      for v0 in 0..9 {
        z[v0] = x[v0 - 1]
      }
    }";
    let c = case(text, &[9, 9], &[], 1);
    let mut memory = c.memory.clone();
    let found = interp::run(&c.kernel, &mut memory, 0..1);
    let expected = InterpError::OutOfBounds {
        buffer: "x".into(),
        index: -1,
        elements: 9,
    };
    assert_eq!(found, Err(expected));
    let found = interp::run(&LoopKernel::new("none"), &mut memory, 0..1);
    assert_eq!(found, Ok(None));
}

#[test]
fn products_of_every_small_size() {
    for n in 1..=70usize {
        for (packed, symbolic) in [(false, false), (true, false), (false, true), (true, true)] {
            for (rows, depth) in [(1, 3), (2, 9), (5, 4), (14, 1), (17, 8), (40, 5), (3, 0)] {
                // Not every combination with every size: each of them with some.
                if (n + rows + depth + usize::from(packed) + 2 * usize::from(symbolic)) % 3 != 0 {
                    continue;
                }
                let extents = if symbolic {
                    ["d0", "d1", "d2"].map(String::from)
                } else {
                    [rows, n, depth].map(|v| v.to_string())
                };
                let [m, w, k] = &extents;
                let b = if packed {
                    format!("row 32 panel 32 step 32*{k}")
                } else {
                    format!("row {w}")
                };
                let text = format!(
                    "kernel product (a: f32 input 0, b: f32 input 1, c: f32 input 2, z: f32 output 3)
                       dims d0 = 0, d1 = 1, d2 = 2
                       tasks 1
                     {{
                       contract m v3 in 0..{m}, n v4 in 0..{w}, k v5 in 0..{k} {{
                         a a[{k}*v3 + v5]
                         b b[0] {b}
                         epilogue l0: f32 {{
                           z[{w}*v3 + v4] = maxfast(0.0, l0 + c[v4])
                         }}
                       }}
                     }}"
                );
                let right = if packed {
                    n.div_ceil(32) * 32 * depth
                } else {
                    n * depth
                };
                let dims = [rows as i64, n as i64, depth as i64];
                let c = case(&text, &[rows * depth, right, n, rows * n], &dims, 1);
                let wide = loops_support::targets().into_iter().filter(
                    |target| matches!(target, Target::Level(level, _) if *level != Level::Baseline),
                );
                assert!(c.check(0.0) >= wide.count(), "not wide");
            }
        }
    }
}
