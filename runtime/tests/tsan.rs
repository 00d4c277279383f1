//! The pool has no data races, as ThreadSanitizer sees it.

use std::process::Command;

#[test]
fn the_pool_has_no_data_races() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tsan.sh");
    let output = Command::new("sh").arg(script).output().unwrap();
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
