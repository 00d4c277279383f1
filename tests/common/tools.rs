//! Tools that a machine may lack.
//!
//! A test that needs one says `skipped: no NAME` and ends; `LAPIDARY_NEEDS_TOOLS=NAME,…` makes that a failure, for
//! machines on which these were installed so that nothing is skipped.

use std::process::{Command, Stdio};

/// Whether all tools are there.
pub fn has(tools: &[&str]) -> bool {
    tools.iter().all(|tool| {
        let answer = Command::new(tool)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if answer.is_err() {
            let needed = std::env::var("LAPIDARY_NEEDS_TOOLS").unwrap_or_default();
            assert!(
                !needed.split(',').any(|name| name == *tool),
                "no {tool}, and LAPIDARY_NEEDS_TOOLS names it"
            );
            println!("skipped: no {tool}");
        }
        answer.is_ok()
    })
}

/// Runs a tool, which must succeed without a word on stderr; what it prints.
#[track_caller]
pub fn succeeds(command: &mut Command) -> String {
    let output = command.output().expect("the tool starts");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {message}");
    assert!(message.is_empty(), "{command:?}: {message}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
