//! What the verifier refuses, and what the parser says of a bad text.

use lapidary_codegen::kernel::{text, verify};

fn refused(body: &str) -> String {
    let kernel = text::parse(&format!("kernel k lanes 8 {{\n{body}\n}}")).unwrap();
    verify::verify(&kernel).unwrap_err().what
}

#[test]
fn the_verifier_names_what_is_wrong() {
    let table = [
        ("g5 = add g6, 1", "v6 is read, and not assigned"),
        (
            "for g5 in 0..4 step 1 {\n g6 = 1\n }\n g7 = g6",
            "v6 is read, and not assigned",
        ),
        (
            "for g5 in 0..4 step 1 {\n }\n g7 = g5",
            "v5 is read, and not assigned",
        ),
        (
            "if lt begin, 0 {\n g6 = 1\n }\n g7 = g6",
            "v6 is read, and not assigned",
        ),
        ("for g5 in 0..4 step 1 {\n g5 = 1\n }", "a counter"),
        ("for g5 in 0..4 step 0 {\n }", "a step of 0"),
        (
            "for g5 in 0..4 step 1 {\n for g5 in 0..4 step 1 {\n }\n }",
            "a counter",
        ),
        ("g5 = shl begin, 64", "an immediate in 0..64"),
        ("g5 = shl begin, end", "an immediate in 0..64"),
        ("f5 = load.i32 [dims]", "v5 is Vec(F32); Vec(I32) expected"),
        ("f5 = load.f32 [dims + begin*3]", "scale 3"),
        ("f5 = const 0x0\n i6 = add f5, f5", "Vec(I32) expected"),
        ("f5 = const 0x0\n f6 = rem f5, f5", "Rem on 8 of F32"),
        ("i5 = const 0\n i6 = div i5, i5", "Div on 8 of I32"),
        ("i5 = const 0\n i6 = sqrt i5", "Sqrt on I32"),
        ("f5 = const 0x0\n d6 = bits f5", "Bits from F32 to F64"),
        ("f5 = const 0x0\n f6 = math.exp f5", "Exp on 8 of F32"),
    ];
    for (body, expected) in table {
        let found = refused(body);
        assert!(found.contains(expected), "{body}: {found}");
    }
}

#[test]
fn a_value_that_both_branches_assign_or_a_fault_excuses_is_accepted() {
    for body in [
        "if lt begin, 0 {\n g6 = 1\n } else {\n g6 = 2\n }\n g7 = g6",
        "if lt begin, 0 {\n fault 1, 0, begin, 0\n } else {\n g6 = 2\n }\n g7 = g6",
    ] {
        let kernel = text::parse(&format!("kernel k lanes 8 {{\n{body}\n}}")).unwrap();
        assert_eq!(verify::verify(&kernel), Ok(()));
    }
}

#[test]
fn the_parser_names_the_line() {
    let table = [
        ("", "line 1: the kernel has no end"),
        (
            "kernel k lanes 8 {\n f5 = frob f6\n}",
            "line 2: no operation `frob` on vectors",
        ),
        (
            "kernel k lanes 8 {\n q5 = 1\n}",
            "line 2: expected a register, found `q5`",
        ),
        (
            "kernel k lanes 8 {\n g4 = 1\n}",
            "line 2: `g4` has a number out of range",
        ),
        (
            "kernel k lanes 8 {\n g5 = 1\n f5 = const 0\n}",
            "line 3: `f5` has two classes",
        ),
        (
            "kernel k lanes 8 {\n g5 = load.i63 [dims]\n}",
            "line 2: `i63` is none of",
        ),
        ("kernel k lanes 8 {\n g5 = 1 2\n}", "line 2: unexpected `2`"),
        ("kernel k lanes 8 {\n}\nkernel", "line 3: something follows"),
        (
            "kernel k lanes 8 {\n for g5 in 0..4 step 1 {\n}",
            "line 3: the kernel has no end",
        ),
    ];
    for (input, expected) in table {
        let found = text::parse(input).unwrap_err().to_string();
        assert!(found.starts_with(expected), "{input}: {found}");
    }
}
