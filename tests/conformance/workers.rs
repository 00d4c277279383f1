//! Child processes that run cases, so that one that crashes or hangs is a failure of its own.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use crate::Mode;
use crate::children::{Child, End, ask_all, this_program};

/// A case that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of a case: `pass`, or how it failed, in a word; and why.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub status: String,
    pub reason: String,
}

impl Outcome {
    pub fn new(status: &str, reason: impl Into<String>) -> Outcome {
        Outcome {
            status: status.to_string(),
            reason: reason.into(),
        }
    }
}

/// Runs the cases, a worker a processor, each of which takes the next case when it is done with one.
pub fn run_all(mode: Mode, selected: &[usize]) -> BTreeMap<usize, Outcome> {
    let questions: Vec<String> = selected.iter().map(usize::to_string).collect();
    let start = || Child::start(Command::new(this_program()).args(["--child", mode.name()]));
    let replies = ask_all(&questions, PATIENCE, &start);
    let outcomes = replies.into_iter().map(|reply| match reply.end {
        End::Answer(line) => {
            let (status, reason) = line.split_once(' ').unwrap_or((&line, ""));
            Outcome::new(status, reason)
        }
        End::Hang => Outcome::new("hang", format!("no answer for {PATIENCE:?}")),
        End::Crash(status) => Outcome::new("crash", status),
    });
    selected.iter().copied().zip(outcomes).collect()
}
