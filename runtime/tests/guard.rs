//! Guards of mapped files, among a host's own handlers of the same signal.

use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn a_guarded_file_reads_as_zeros_and_other_faults_go_to_the_host() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guard");
    std::fs::create_dir_all(&folder).unwrap();
    let program = folder.join("guard");
    let output = Command::new("cc")
        .args(["-std=c11", "-O2", "-Wall", "-Werror"])
        .args([format!("-I{ROOT}/include"), format!("-I{ROOT}/c")])
        .arg(format!("{ROOT}/tests/guard.c"))
        .arg(env!("LAPIDARY_RUNTIME_ARCHIVE"))
        .arg("-o")
        .arg(&program)
        .args(["-lm", "-lpthread", "-ldl"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let output = Command::new(&program).arg(&folder).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.trim(), "ok", "{:?}", output.status);
}
