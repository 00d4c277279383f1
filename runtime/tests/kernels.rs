//! Library kernels stay inside their operands whatever they are given, as the address and undefined-behaviour
//! sanitizers see it.

use std::process::Command;

#[test]
fn library_kernels_read_and_write_their_operands_alone() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernels/tests/fuzz.sh");
    let output = Command::new("sh").args([script, "150"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.trim() == "ok" || text.starts_with("skipped:"),
        "{text}"
    );
}
