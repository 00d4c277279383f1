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
