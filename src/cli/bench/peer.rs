//! A peer engine in a Python process, measured between our own runs.
//!
//! The peer stays at its defaults, and its threads spin for a while after a run; so that they do not take our
//! processors, its process is stopped while it is not asked anything.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use lapidary::{Error, Tensor, files};

use crate::cli::check::TemporaryFolder;

const SCRIPT: &str = include_str!("peer.py");

/// What a user may compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    Onnxruntime,
    Openvino,
}

impl Engine {
    /// The Python package.
    fn package(self) -> &'static str {
        match self {
            Engine::Onnxruntime => "onnxruntime",
            Engine::Openvino => "openvino",
        }
    }
}

/// A running peer.
pub struct Peer {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    folder: TemporaryFolder,
    /// Name and version.
    pub name: String,
    /// Load and first run.
    pub cold: Duration,
}

impl Peer {
    /// Starts the peer on a model; the peer is stopped when this returns.
    pub fn start(
        engine: Engine,
        python: &Path,
        model: &Path,
        inputs: &[(&str, &Tensor)],
        threads: usize,
    ) -> Result<Peer, Error> {
        let folder = TemporaryFolder::new()?;
        let feed = folder.path().join("inputs.npz");
        files::write_npz(&feed, inputs.iter().copied())?;
        let mut child = Command::new(python)
            .arg("-c")
            .arg(SCRIPT)
            .arg(engine.package())
            .arg(model)
            .arg(threads.to_string())
            .arg(&feed)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| {
                Error::Usage(format!(
                    "cannot start '{}': {error} (hint: --python PATH)",
                    python.display()
                ))
            })?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Other("the peer has no pipes".to_string()));
        };
        let mut peer = Peer {
            child,
            stdin,
            stdout: BufReader::new(stdout),
            folder,
            name: String::new(),
            cold: Duration::ZERO,
        };
        let answer = peer.read()?;
        let (first, rest) = answer.split_once(' ').unwrap_or((&answer, ""));
        let (milliseconds, name) = rest.split_once(' ').unwrap_or((rest, ""));
        match (first, milliseconds.parse::<f64>()) {
            ("ready", Ok(cold)) => {
                peer.name = name.to_string();
                peer.cold = Duration::from_secs_f64(cold.max(0.0) / 1e3);
                peer.pause(true);
                Ok(peer)
            }
            _ => Err(Error::Other(format!(
                "the peer did not start: {rest} (hint: --python PATH of a Python with {} and numpy)",
                engine.package()
            ))),
        }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Runs it so many times.
    pub fn run(&mut self, times: usize) -> Result<Vec<Duration>, Error> {
        let answer = self.ask(&format!("run {times}"))?;
        let times = answer.split_whitespace().filter_map(|t| t.parse().ok());
        Ok(times.map(Duration::from_nanos).collect())
    }

    /// The outputs of its last run, by name.
    pub fn outputs(&mut self) -> Result<Vec<(String, Tensor)>, Error> {
        let path: PathBuf = self.folder.path().join("outputs.npz");
        self.ask(&format!("save {}", path.display()))?;
        files::read_npz(&path)
    }

    /// Its peak resident set in bytes.
    pub fn peak_memory(&mut self) -> Result<u64, Error> {
        let answer = self.ask("memory")?;
        Ok(answer.trim().parse::<u64>().unwrap_or(0) * 1024)
    }

    fn ask(&mut self, command: &str) -> Result<String, Error> {
        self.pause(false);
        let sent = writeln!(self.stdin, "{command}").and_then(|()| self.stdin.flush());
        sent.map_err(|error| Error::Other(format!("the peer ended: {error}")))?;
        let answer = self.read();
        self.pause(true);
        answer
    }

    fn read(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line) {
            Ok(n) if n > 0 => Ok(line.trim_end().to_string()),
            Ok(_) => Err(Error::Other("the peer ended without an answer".to_string())),
            Err(error) => Err(Error::Other(format!("the peer: {error}"))),
        }
    }

    #[cfg(unix)]
    fn pause(&self, stop: bool) {
        unsafe extern "C" {
            fn kill(pid: i32, signal: i32) -> i32;
        }
        const SIGCONT: i32 = 18;
        const SIGSTOP: i32 = 19;
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // SAFETY: a signal to a child of ours that has not been waited for, so its number is still its own.
            unsafe {
                kill(pid, if stop { SIGSTOP } else { SIGCONT });
            }
        }
    }

    #[cfg(not(unix))]
    fn pause(&self, _stop: bool) {}
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
