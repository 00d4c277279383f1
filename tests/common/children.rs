//! Child processes that answer questions, so that one that crashes or hangs costs its question alone.
//!
//! A child reads questions from its standard input, a line each, and writes lines: `note TEXT` tells how far it is,
//! `answer TEXT` ends the question. What else it prints is passed over.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

/// How a question ended.
#[derive(Clone, Debug)]
pub enum End {
    /// With this answer.
    Answer(String),
    /// Without an answer in time.
    Hang,
    /// With the process, which left this status.
    Crash(String),
}

/// What became of a question.
#[derive(Clone, Debug)]
pub struct Reply {
    pub end: End,
    /// What the child told on the way.
    #[allow(dead_code)] // not all programs that share this read it
    pub notes: Vec<String>,
}

/// A child process.
pub struct Child {
    process: std::process::Child,
    stdin: ChildStdin,
    lines: mpsc::Receiver<String>,
}

/// The path of this program, to start it once more.
pub fn this_program() -> PathBuf {
    std::env::current_exe().expect("this program has a path")
}

impl Child {
    /// Starts a child.
    pub fn start(command: &mut Command) -> Child {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child can be started");
        let stdin = process.stdin.take().expect("stdin is a pipe");
        let stdout = process.stdout.take().expect("stdout is a pipe");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Child {
            process,
            stdin,
            lines,
        }
    }

    fn ask(&mut self, question: &str, patience: Duration) -> Reply {
        let mut notes = Vec::new();
        if writeln!(self.stdin, "{question}").is_err() {
            let end = self.crashed();
            return Reply { end, notes };
        }
        let deadline = Instant::now() + patience;
        let end = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(answer) = line.strip_prefix("answer ") {
                        break End::Answer(answer.to_string());
                    }
                    notes.extend(line.strip_prefix("note ").map(str::to_string));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => break End::Hang,
                Err(mpsc::RecvTimeoutError::Disconnected) => break self.crashed(),
            }
        };
        Reply { end, notes }
    }

    fn crashed(&mut self) -> End {
        End::Crash(
            self.process
                .wait()
                .map_or("?".to_string(), |s| s.to_string()),
        )
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks all questions, of as many children as there are processors, each of which takes the next when it is done with
/// one. The replies are in the order of the questions.
pub fn ask_all(
    questions: &[String],
    patience: Duration,
    start: &(dyn Fn() -> Child + Sync),
) -> Vec<Reply> {
    let next = AtomicUsize::new(0);
    let replies: Mutex<Vec<Option<Reply>>> = Mutex::new(vec![None; questions.len()]);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut worker = None;
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(question) = questions.get(at) else {
                        break;
                    };
                    let reply = worker.get_or_insert_with(start).ask(question, patience);
                    if !matches!(reply.end, End::Answer(_)) {
                        // The next question gets a new process.
                        worker = None;
                    }
                    let mut all = replies.lock().expect("no panic holds it");
                    if let Some(place) = all.get_mut(at) {
                        *place = Some(reply);
                    }
                }
            });
        }
    });
    let replies = replies.into_inner().expect("no panic holds it");
    replies.into_iter().flatten().collect()
}
