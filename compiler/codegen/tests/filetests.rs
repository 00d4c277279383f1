//! Golden tests of the emitters: `tests/filetests/kernel/*.kernel`.
//!
//! A file holds a kernel, a line `; isa: avx2` or `; isa: avx512`, and below it the expected
//! disassembly, each line after a `;`. With `LAPIDARY_BLESS=1` the expectation is written anew.

use lapidary_codegen::kernel::{text, verify};
use lapidary_codegen::x64::{self, Isa};
use std::path::Path;

const MARK: &str = "; isa: ";

fn expectation(input: &str, isa: Isa) -> String {
    let kernel = text::parse(input).unwrap_or_else(|e| panic!("{e}"));
    verify::verify(&kernel).unwrap_or_else(|e| panic!("{e}"));
    let again = text::parse(&kernel.to_string()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(again, kernel, "a kernel reads back as it was printed");
    let code = x64::emit(&kernel, isa).unwrap_or_else(|e| panic!("{e}"));
    x64::disassemble(&code.bytes)
        .lines()
        .map(|l| format!("; {l}\n"))
        .collect()
}

#[test]
fn kernels_emit_what_their_files_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/filetests/kernel");
    let bless = std::env::var_os("LAPIDARY_BLESS").is_some();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "kernel") {
            continue;
        }
        seen += 1;
        let file = std::fs::read_to_string(&path).unwrap();
        let at = file
            .find(MARK)
            .unwrap_or_else(|| panic!("{}: no `{MARK}`", path.display()));
        let (input, rest) = file.split_at(at);
        let (mark, expected) = rest.split_once('\n').unwrap_or((rest, ""));
        let isa = match mark.trim_start_matches(MARK).trim() {
            "avx2" => Isa::Avx2,
            "avx512" => Isa::Avx512,
            other => panic!("{}: no instruction set {other}", path.display()),
        };
        let found = expectation(input, isa);
        if found != expected {
            if bless {
                std::fs::write(&path, format!("{input}{mark}\n{found}")).unwrap();
            } else {
                wrong.push(format!("{}:\n{found}", path.display()));
            }
        }
    }
    assert!(seen > 0);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
