//! The ONNX backend suite: 1,910 small cases, each compiled and run here.
//!
//! The cases come from `tests/conformance/suite.bin` (made by `python/pack_suite.py`). Each must pass, unless its name
//! stands in a list of expected failures beside the fixture, and a case that passes must not stand there, so the lists
//! can only shrink. `LAPIDARY_BLESS=1` writes them anew.
//!
//! Cases run in child processes, so that one that crashes or hangs is a failure of its own. Without arguments all
//! modes run: code in memory, the same with every dim free, and a sample compiled to libraries. `--jit`, `--symbolic`
//! and `--aot` (all cases) choose one; other words are parts of the names of cases to run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use lapidary::case::DataSet;
use lapidary::compare::Tolerance;
use lapidary::{Compiled, Error, Model, Options};

/// A case that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of so many cases one is compiled to a library when all modes run.
const AOT_SAMPLE: usize = 40;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Jit,
    Symbolic,
    Aot,
}

impl Mode {
    const ALL: [Mode; 3] = [Mode::Jit, Mode::Symbolic, Mode::Aot];

    fn name(self) -> &'static str {
        match self {
            Mode::Jit => "jit",
            Mode::Symbolic => "symbolic",
            Mode::Aot => "aot",
        }
    }

    /// What fails in memory fails in a library.
    fn list(self) -> PathBuf {
        let name = match self {
            Mode::Jit | Mode::Aot => "expected_failures.txt",
            Mode::Symbolic => "expected_failures_symbolic.txt",
        };
        folder().join(name)
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    let mode_of = |text: &str| Mode::ALL.into_iter().find(|m| m.name() == text);
    let suite = Suite::load(&folder().join("suite.bin"));
    if let [flag, mode] = arguments.as_slice()
        && flag == "--child"
        && let Some(mode) = mode_of(mode)
    {
        return child(&suite, mode);
    }
    let chosen: Vec<Mode> = arguments
        .iter()
        .filter_map(|a| mode_of(a.strip_prefix("--")?))
        .collect();
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let mut good = true;
    for mode in if chosen.is_empty() {
        &Mode::ALL
    } else {
        chosen.as_slice()
    } {
        let sampled = *mode == Mode::Aot && chosen.is_empty() && filters.is_empty();
        let selected: Vec<usize> = (0..suite.cases.len())
            .filter(|i| !sampled || i % AOT_SAMPLE == 0)
            .filter(|i| {
                filters.is_empty() || filters.iter().any(|f| suite.cases[*i].name.contains(*f))
            })
            .collect();
        good &= run(&suite, *mode, &selected);
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs cases and compares with the list.
fn run(suite: &Suite, mode: Mode, selected: &[usize]) -> bool {
    let results = run_all(mode, selected);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let expected = read_list(&mode.list());
    let mut unexpected = Vec::new();
    for (index, result) in &results {
        let case = &suite.cases[*index];
        *counts.entry(&result.status).or_default() += 1;
        let passed = result.status == "pass";
        if passed == expected.contains(case.name.as_str()) {
            unexpected.push(match passed {
                true => format!("{}: passes, but stands in the list", case.name),
                false => format!("{}: {}: {}", case.name, result.status, result.reason),
            });
        }
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(status, n)| format!("{n} {status}"))
        .collect();
    println!(
        "conformance {} ({}): {} cases: {}",
        mode.name(),
        suite.producer,
        results.len(),
        counts.join(", ")
    );
    if std::env::var_os("LAPIDARY_BLESS").is_some() && mode != Mode::Aot {
        write_list(&mode.list(), suite, &results, &expected);
        return true;
    }
    for line in &unexpected {
        println!("  {line}");
    }
    if !unexpected.is_empty() {
        println!(
            "  {} unexpected results (LAPIDARY_BLESS=1 writes {})",
            unexpected.len(),
            mode.list().display()
        );
    }
    unexpected.is_empty()
}

fn read_list(path: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let names = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or("").trim());
    names
        .filter(|name| !name.is_empty())
        .map(str::to_string)
        .collect()
}

/// Cases that did not run keep their place in the list.
fn write_list(
    path: &Path,
    suite: &Suite,
    results: &BTreeMap<usize, Outcome>,
    before: &BTreeSet<String>,
) {
    let mut lines: BTreeMap<&str, &str> = BTreeMap::new();
    for (index, case) in suite.cases.iter().enumerate() {
        match results.get(&index) {
            Some(result) if result.status != "pass" => {
                lines.insert(&case.name, &result.status);
            }
            None if before.contains(case.name.as_str()) => {
                lines.insert(&case.name, "not run");
            }
            _ => {}
        }
    }
    let mut text = String::from("# Cases that fail, and how. The list may only shrink.\n");
    for (name, status) in lines {
        text.push_str(&format!("{name}  # {status}\n"));
    }
    std::fs::write(path, text).expect("the list can be written");
}

// ---- parent ------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
struct Outcome {
    status: String,
    reason: String,
}

impl Outcome {
    fn new(status: &str, reason: impl Into<String>) -> Outcome {
        Outcome {
            status: status.to_string(),
            reason: reason.into(),
        }
    }
}

/// Runs the cases in child processes, each of which takes the next case when it is done with one.
fn run_all(mode: Mode, selected: &[usize]) -> BTreeMap<usize, Outcome> {
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

// ---- child -------------------------------------------------------------------------------------

/// Answers each number of a case with one line.
fn child(suite: &Suite, mode: Mode) -> ExitCode {
    panic::set_hook(Box::new(|_| {}));
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let Some(case) = line.parse::<usize>().ok().and_then(|i| suite.cases.get(i)) else {
            return ExitCode::FAILURE;
        };
        let result = panic::catch_unwind(|| run_case(suite, case, mode));
        let outcome = match result {
            Ok(Ok(())) => Outcome::new("pass", "-"),
            Ok(Err(error)) => {
                let class = format!("{:?}", error.class()).to_lowercase();
                Outcome::new(&class, error.to_string())
            }
            Err(payload) => {
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.or(payload.downcast_ref::<&str>().map(|s| s.to_string()));
                Outcome::new("panic", text.unwrap_or_default())
            }
        };
        let reason: Vec<&str> = outcome.reason.split_whitespace().collect();
        println!("answer {} {}", outcome.status, reason.join(" "));
    }
    ExitCode::SUCCESS
}

fn run_case(suite: &Suite, case: &SuiteCase, mode: Mode) -> Result<(), Error> {
    let model = Model::from_bytes(suite.blob(case.model), None)?;
    let options = Options {
        threads: 2,
        symbolic: mode == Mode::Symbolic,
        ..Options::default()
    };
    let compiled = match mode {
        Mode::Jit | Mode::Symbolic => model.compile(&options)?,
        Mode::Aot => {
            let name = case.name.replace('/', "-");
            let name = format!("lapidary-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(format!("{name}.so"));
            model.compile_library(&path, None, &options)?;
            let compiled = Compiled::open_library(&path, &options);
            let _ = std::fs::remove_file(&path);
            compiled?
        }
    };
    let mut context = compiled.context()?;
    let names = model.output_names();
    for (number, (inputs, outputs)) in case.sets.iter().enumerate() {
        let files = |blobs: &[usize], stem: &str| -> Vec<(Bytes, PathBuf)> {
            let named = blobs.iter().enumerate();
            named
                .map(|(i, b)| (suite.blob(*b), format!("{stem}_{i}.pb").into()))
                .collect()
        };
        let set = DataSet::decode(
            &model,
            &number.to_string(),
            &files(inputs, "input"),
            &files(outputs, "output"),
        )?;
        let found = context.run_values(&set.inputs)?;
        if let Err(wrong) = set.judge(&found, &names, case.tolerance) {
            let lines: Vec<String> = wrong
                .iter()
                .map(|o| format!("'{}': {}", o.name, o.mismatch))
                .collect();
            return Err(Error::Wrong(lines.join("; ")));
        }
    }
    Ok(())
}

// ---- the fixture -------------------------------------------------------------------------------

struct Suite {
    producer: String,
    bytes: Bytes,
    /// Where each file stands in `bytes`.
    blobs: Vec<std::ops::Range<usize>>,
    cases: Vec<SuiteCase>,
}

struct SuiteCase {
    name: String,
    tolerance: Tolerance,
    model: usize,
    /// Numbers of the files of inputs and outputs.
    sets: Vec<(Vec<usize>, Vec<usize>)>,
}

impl Suite {
    /// Reads the fixture; see `python/pack_suite.py` for its format.
    fn load(path: &Path) -> Suite {
        let packed = std::fs::read(path).expect("the fixture is there");
        let mut archive = zip::ZipArchive::new(Cursor::new(packed)).expect("the fixture is a zip");
        let mut bytes = Vec::new();
        archive
            .by_name("suite")
            .expect("the fixture has its entry")
            .read_to_end(&mut bytes)
            .expect("the fixture can be unpacked");
        let mut reader = Reader {
            bytes: &bytes,
            at: 0,
        };
        assert_eq!(reader.take(8), b"LAPSUITE");
        assert_eq!(reader.number(), 1, "version of the fixture");
        let producer = reader.text();
        let blobs = reader.list(|r| {
            let length = r.number();
            r.take(length);
            r.at - length..r.at
        });
        let cases = reader.list(|r| {
            let kind = r.text();
            let name = r.text();
            SuiteCase {
                name: format!("{kind}/{name}"),
                tolerance: Tolerance {
                    rtol: r.real(),
                    atol: r.real(),
                },
                model: r.number(),
                sets: r.list(|r| (r.list(Reader::number), r.list(Reader::number))),
            }
        });
        assert!(!cases.is_empty(), "the suite is empty");
        Suite {
            producer,
            bytes: bytes.into(),
            blobs,
            cases,
        }
    }

    fn blob(&self, number: usize) -> Bytes {
        self.bytes.slice(self.blobs[number].clone())
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let taken = &self.bytes[self.at..self.at + length];
        self.at += length;
        taken
    }

    fn number(&mut self) -> usize {
        let bytes = self.take(4).try_into().expect("four bytes");
        u32::from_le_bytes(bytes) as usize
    }

    fn real(&mut self) -> f64 {
        let bytes = self.take(8).try_into().expect("eight bytes");
        f64::from_le_bytes(bytes)
    }

    fn text(&mut self) -> String {
        let length = self.number();
        String::from_utf8(self.take(length).to_vec()).expect("a text is UTF-8")
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.number();
        (0..count).map(|_| item(self)).collect()
    }
}
