//! Fuzzing with mutated models: each is loaded, checked, compiled and run, and must end in a result or a typed error.
//!
//! Cases are numbers; a number alone makes its mutant, options and inputs. They run in child processes of limited memory
//! and time, so that a crash, a hang or a blow-up costs its case. `LAPIDARY_FUZZ_CASES` says how many run (400 if it is
//! not set) and `LAPIDARY_FUZZ_FIRST` where they begin; `--seed N` runs one in this process, and `--keep FOLDER` also
//! writes its mutant there; `--write FOLDER` writes all mutants and runs none. Described in `docs/fuzzing.md`.

#[path = "common/children.rs"]
mod children;
mod fuzz;
#[allow(dead_code)] // what reports of the suite need is not needed here
#[path = "conformance/suite.rs"]
mod suite;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use children::{Child, End, Reply, ask_all, this_program};
use fuzz::case::{self, Mutant};
use fuzz::corpus::Corpus;

/// A case that takes longer hangs: generous, since other tests may take the processors. `LAPIDARY_FUZZ_PATIENCE` has
/// other seconds.
const PATIENCE: u64 = 60;
/// Of so many cases on, a quarter must run and a twentieth be compared: else nothing is tested.
const ENOUGH: usize = 200;
/// What comparisons are called that the model leaves to last digits: told, but no finding.
const UNDECIDED: &str = "undecided";
/// Of so many comparisons one may be undecided.
const MOST_UNDECIDED: usize = 100;
/// Kibibytes of addresses that a child may use.
const MEMORY_KIB: u64 = 2 << 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|a| a == name)?;
        arguments.get(at + 1)
    };
    if arguments.iter().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|a| a == "--child") {
        return child();
    }
    if let Some(seed) = option("--seed") {
        let number = seed.parse().expect("the number of a case");
        return single(number, option("--keep").map(Path::new));
    }
    let number = |name: &str, default: u64| {
        let text = std::env::var(name).ok();
        text.map_or(default, |t| t.parse().expect("a number"))
    };
    let first = number("LAPIDARY_FUZZ_FIRST", 0);
    let count = number("LAPIDARY_FUZZ_CASES", 400);
    match option("--write") {
        Some(folder) => write(Path::new(folder), first, count),
        None => parent(first, count),
    }
}

// ---- parent ------------------------------------------------------------------------------------

fn parent(first: u64, count: u64) -> ExitCode {
    let questions: Vec<String> = (first..first + count).map(|n| n.to_string()).collect();
    let start = || {
        let limit = format!("ulimit -v {MEMORY_KIB}; exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &limit, "sh"]).arg(this_program());
        Child::start(command.arg("--child"))
    };
    let patience = std::env::var("LAPIDARY_FUZZ_PATIENCE").ok();
    let patience = patience.map_or(PATIENCE, |t| t.parse().expect("a number of seconds"));
    let replies = ask_all(&questions, Duration::from_secs(patience), &start);
    let mut stages: BTreeMap<String, usize> = BTreeMap::new();
    let mut runs: BTreeMap<String, usize> = BTreeMap::new();
    let mut findings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (number, reply) in questions.iter().zip(&replies) {
        let mut find = |kind: &str, text: &str| {
            let about = reply.notes.first().map_or("", String::as_str);
            let line = format!("{number}: {text} [{about}]");
            findings.entry(kind.to_string()).or_default().push(line);
        };
        match &reply.end {
            End::Answer(answer) => {
                let mut parts = answer.split('\u{1f}');
                *stages
                    .entry(parts.next().unwrap_or("?").into())
                    .or_default() += 1;
                for run in parts
                    .next()
                    .unwrap_or("")
                    .split(' ')
                    .filter(|r| !r.is_empty())
                {
                    *runs.entry(run.into()).or_default() += 1;
                }
                while let (Some(kind), Some(text)) = (parts.next(), parts.next()) {
                    find(kind, text);
                }
            }
            End::Hang => {
                *stages.entry("Hang".into()).or_default() += 1;
                find("hang", &format!("in {}", last(reply)));
            }
            End::Crash(status) => {
                *stages.entry("Crash".into()).or_default() += 1;
                find("crash", &format!("{status} in {}", last(reply)));
            }
        }
    }
    let counts = |map: &BTreeMap<String, usize>| {
        let all: Vec<String> = map.iter().map(|(k, n)| format!("{n} {k}")).collect();
        all.join(", ")
    };
    println!(
        "fuzz: {} mutated models from number {first}: {}",
        replies.len(),
        counts(&stages)
    );
    println!("fuzz: runs and comparisons: {}", counts(&runs));
    let ran = stages.get("Ran").copied().unwrap_or(0);
    let compared = runs.get("compared").copied().unwrap_or(0);
    if replies.len() >= ENOUGH && (ran * 4 < replies.len() || compared * 20 < replies.len()) {
        println!("too little: {ran} ran, {compared} were compared");
        return ExitCode::FAILURE;
    }
    // The more comparisons are left to last digits, the less is tested.
    let undecided = runs.get(UNDECIDED).copied().unwrap_or(0);
    if undecided * MOST_UNDECIDED > compared {
        println!("too much is undecided: {undecided}, and {compared} were compared");
        return ExitCode::FAILURE;
    }
    let told = findings.remove_entry(UNDECIDED);
    for (kind, lines) in told.iter().map(|(k, l)| (k, l)).chain(&findings) {
        println!("{kind}: {}", lines.len());
        for line in lines {
            println!("  {line}");
        }
    }
    if findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        println!("(--seed NUMBER runs one again)");
        ExitCode::FAILURE
    }
}

/// The stage in which a case ended early.
fn last(reply: &Reply) -> &str {
    reply
        .notes
        .last()
        .map_or("making the mutant", String::as_str)
}

// ---- child -------------------------------------------------------------------------------------

/// Answers each number of a case: stage, runs, and findings as pairs of kind and text.
fn child() -> ExitCode {
    let corpus = Corpus::load();
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let Ok(number) = line.parse() else {
            return ExitCode::FAILURE;
        };
        println!("answer {}", answer(&corpus, number));
    }
    ExitCode::SUCCESS
}

fn describe(mutant: &Mutant<'_>) -> String {
    format!("{}: {}", mutant.seed.name, mutant.changes.join(", "))
}

/// One line about a case.
fn answer(corpus: &Corpus, number: u64) -> String {
    let place = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let told = place.clone();
    std::panic::set_hook(Box::new(move |info| {
        if let Ok(mut place) = told.lock() {
            *place = format!("{info}");
        }
    }));
    let result = std::panic::catch_unwind(|| {
        let mutant = case::make(corpus, number);
        println!("note {}", describe(&mutant));
        case::run(corpus, &mutant, number, &|text| println!("note {text}"))
    });
    let mut parts = Vec::new();
    match result {
        Ok(report) => {
            parts.push(format!("{:?}", report.stage));
            parts.push(report.runs.join(" "));
            let undecided = report.undecided.into_iter().map(|text| (UNDECIDED, text));
            for (kind, text) in report.findings.into_iter().chain(undecided) {
                parts.push(kind.to_string());
                parts.push(text);
            }
        }
        Err(_) => {
            let text = place.lock().map(|p| p.clone()).unwrap_or_default();
            parts.extend(["Panic".into(), String::new(), "panic".into(), text]);
        }
    }
    let flat = |part: &String| part.split_whitespace().collect::<Vec<_>>().join(" ");
    let parts: Vec<String> = parts.iter().map(flat).collect();
    parts.join("\u{1f}")
}

/// Writes mutants, named by number, seed and changes, for other programs to judge.
fn write(folder: &Path, first: u64, count: u64) -> ExitCode {
    let corpus = Corpus::load();
    for number in first..first + count {
        let mutant = case::make(&corpus, number);
        let seed = mutant.seed.name.replace('/', "-");
        let name = format!("{number}@{seed}@{}.onnx", mutant.changes.join("+"));
        std::fs::write(folder.join(name), &mutant.bytes).expect("the folder can be written");
    }
    ExitCode::SUCCESS
}

/// Runs one case here, for a debugger or a look at what it says.
fn single(number: u64, keep: Option<&Path>) -> ExitCode {
    let corpus = Corpus::load();
    let mutant = case::make(&corpus, number);
    println!("{number}: {}", describe(&mutant));
    if let Some(folder) = keep {
        let path = folder.join(format!("{number}.onnx"));
        std::fs::write(&path, &mutant.bytes).expect("the folder can be written");
        println!("written: {}", path.display());
    }
    let report = case::run(&corpus, &mutant, number, &|text| println!("{text} ..."));
    println!("{:?}, runs: {}", report.stage, report.runs.join(" "));
    for (kind, text) in &report.findings {
        println!("{kind}: {text}");
    }
    for text in &report.undecided {
        println!("{UNDECIDED}: {text}");
    }
    if report.findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
