//! Any program as a peer: a whole process a run, with its start and its reading of the model.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lapidary::{Error, Tensor, files};

use crate::cli::check::TemporaryFolder;

/// A command line that is run once a measurement.
pub struct Whole {
    words: Vec<String>,
    /// Keeps the inputs that `{inputs}` names.
    _folder: Option<TemporaryFolder>,
}

impl Whole {
    /// Reads a command line: words between blanks, which quotes (' or ") keep together. `{model}`, `{threads}` and
    /// `{inputs}` (a `.npz`) are replaced.
    pub fn new(
        line: &str,
        model: &Path,
        inputs: &[(&str, &Tensor)],
        threads: usize,
    ) -> Result<Whole, Error> {
        let mut words = split(line).ok_or_else(|| {
            Error::Usage(format!(
                "--against-command '{line}' names no program, or has a quote that does not end"
            ))
        })?;
        let mut folder = None;
        let mut feed = PathBuf::new();
        if line.contains("{inputs}") {
            let made = TemporaryFolder::new()?;
            feed = made.path().join("inputs.npz");
            files::write_npz(&feed, inputs.iter().copied())?;
            folder = Some(made);
        }
        for word in &mut words {
            *word = word
                .replace("{model}", &model.display().to_string())
                .replace("{threads}", &threads.to_string())
                .replace("{inputs}", &feed.display().to_string());
        }
        Ok(Whole {
            words,
            _folder: folder,
        })
    }

    /// The program's name.
    pub fn name(&self) -> String {
        let program = self.words.first().map_or("", String::as_str);
        let name = Path::new(program).file_name().and_then(|n| n.to_str());
        format!("process {}", name.unwrap_or(program))
    }

    /// Runs it so many times; what it prints is left aside.
    pub fn run(&self, times: usize) -> Result<Vec<Duration>, Error> {
        let Some((program, arguments)) = self.words.split_first() else {
            return Ok(Vec::new());
        };
        let mut all = Vec::with_capacity(times);
        for _ in 0..times {
            let begin = Instant::now();
            let output = Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .output()
                .map_err(|error| Error::Usage(format!("cannot start '{program}': {error}")))?;
            let time = begin.elapsed();
            if !output.status.success() {
                let text = String::from_utf8_lossy(&output.stderr);
                let last = text.lines().rev().find(|line| !line.trim().is_empty());
                return Err(Error::Other(format!(
                    "'{}' failed ({}): {}",
                    self.words.join(" "),
                    output.status,
                    last.unwrap_or("it says nothing")
                )));
            }
            all.push(time);
        }
        Ok(all)
    }
}

/// Words of a command line; `None` where there are none or a quote is open.
fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    (quote.is_none() && !words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together() {
        let words = split("run 'a b'  --x=\"c d\" ''").expect("a command line");
        assert_eq!(words, ["run", "a b", "--x=c d", ""]);
        assert_eq!(split("run 'a"), None);
        assert_eq!(split("  "), None);
    }
}
