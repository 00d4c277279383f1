//! Child processes that run cases, so that one that crashes or hangs is a failure of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use crate::Mode;

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
    let next = AtomicUsize::new(0);
    let results = Mutex::new(BTreeMap::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut worker = None;
                while let Some(&index) = selected.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let running = worker.get_or_insert_with(|| Worker::start(mode));
                    let outcome = running.ask(index);
                    if matches!(outcome.status.as_str(), "crash" | "hang") {
                        // The next case gets a new process.
                        worker = None;
                    }
                    results
                        .lock()
                        .expect("no panic holds it")
                        .insert(index, outcome);
                }
            });
        }
    });
    results.into_inner().expect("no panic holds it")
}

/// A child process.
struct Worker {
    process: std::process::Child,
    stdin: std::process::ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Worker {
    fn start(mode: Mode) -> Worker {
        let mut process = Command::new(std::env::current_exe().expect("this program has a path"))
            .args(["--child", mode.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("this program can be started");
        let stdin = process.stdin.take().expect("stdin is a pipe");
        let stdout = process.stdout.take().expect("stdout is a pipe");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Worker {
            process,
            stdin,
            lines,
        }
    }

    fn ask(&mut self, index: usize) -> Outcome {
        if writeln!(self.stdin, "{index}").is_err() {
            return self.crashed();
        }
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                // What a library prints is no answer.
                Ok(line) => {
                    if let Some((status, reason)) =
                        line.strip_prefix("answer ").and_then(|l| l.split_once(' '))
                    {
                        return Outcome::new(status, reason);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Outcome::new("hang", format!("no answer for {PATIENCE:?}"));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return self.crashed(),
            }
        }
    }

    fn crashed(&mut self) -> Outcome {
        let status = self
            .process
            .wait()
            .map_or("?".to_string(), |s| s.to_string());
        Outcome::new("crash", status)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
