//! Which variants a call asks for: the product of what varies.
//!
//! Settings of one scene share inputs and threads, and so their peers.

use clap::ValueEnum;
use lapidary::Error;

use super::Bench;
use crate::cli::common::CpuChoice;

/// How code gets from the compiler to the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Compiled into memory.
    Jit,
    /// Compiled to a shared library, which is opened.
    Aot,
}

/// One way to compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub cpu: CpuChoice,
    pub mode: Mode,
    /// Passes left out.
    pub skip: Vec<String>,
    /// What tells it from the others of its scene.
    pub label: String,
}

/// What is measured side by side on the same inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    pub threads: usize,
    /// Settings of dims that vary, in the words of `--dim`.
    pub dims: Vec<String>,
    pub label: String,
    pub settings: Vec<Setting>,
}

/// The values of what varies.
struct Axes {
    cpu: Vec<CpuChoice>,
    mode: Vec<Mode>,
    skip: Vec<Vec<String>>,
    threads: Vec<usize>,
    dims: Vec<(String, Vec<String>)>,
}

/// The scenes of a call, in the order of its options.
pub fn scenes(bench: &Bench) -> Result<Vec<Scene>, Error> {
    let mut axes = Axes {
        cpu: std::iter::once(bench.compile.cpu.unwrap_or_default())
            .chain(bench.beside.iter().copied())
            .collect(),
        mode: vec![Mode::Jit],
        skip: vec![bench.skip.clone()],
        threads: bench.threads.clone(),
        dims: Vec::new(),
    };
    for text in &bench.vary {
        axes.read(text, &bench.skip)?;
    }
    if axes.threads.contains(&0) || axes.threads.is_empty() {
        return Err(Error::Usage("--threads takes numbers from 1".to_string()));
    }
    let mut settings = Vec::new();
    for cpu in &axes.cpu {
        for mode in &axes.mode {
            for skip in &axes.skip {
                let mut label = Vec::new();
                if axes.cpu.len() > 1 {
                    label.push(name_of(cpu));
                }
                if axes.mode.len() > 1 {
                    label.push(name_of(mode));
                }
                if axes.skip.len() > 1 && skip.len() > bench.skip.len() {
                    label.push(format!("without {}", skip[bench.skip.len()..].join("+")));
                }
                settings.push(Setting {
                    cpu: *cpu,
                    mode: *mode,
                    skip: skip.clone(),
                    label: label.join(" "),
                });
            }
        }
    }
    let mut scenes = Vec::new();
    for dims in product(&axes.dims) {
        let label = dims.join(" ");
        for &threads in &axes.threads {
            scenes.push(Scene {
                threads,
                dims: dims.clone(),
                label: label.clone(),
                settings: settings.clone(),
            });
        }
    }
    Ok(scenes)
}

impl Axes {
    /// Reads `KEY=VALUE,…`.
    fn read(&mut self, text: &str, skip: &[String]) -> Result<(), Error> {
        let bad = |why: &str| {
            Error::Usage(format!(
                "--vary {text}: {why} (hint: cpu=v3,v4 · threads=1,2 · mode=jit,aot · skip=PASS,… · dim.NAME=1,8)"
            ))
        };
        let (key, list) = text.split_once('=').ok_or_else(|| bad("there is no '='"))?;
        let values: Vec<&str> = list.split(',').map(str::trim).collect();
        if values.contains(&"") {
            return Err(bad("a value is empty"));
        }
        let choices = |known: &str| bad(&format!("the values are {known}"));
        match key {
            "cpu" => {
                self.cpu =
                    read_all(&values).ok_or_else(|| choices("native, baseline, v3, v4, multi"))?
            }
            "mode" => self.mode = read_all(&values).ok_or_else(|| choices("jit, aot"))?,
            "threads" => {
                let numbers: Result<Vec<usize>, _> = values.iter().map(|v| v.parse()).collect();
                self.threads = numbers.map_err(|_| choices("numbers"))?;
            }
            "skip" => {
                // With all passes first: that is what the others are compared with.
                self.skip = vec![skip.to_vec()];
                for value in values {
                    let more = value.split('+').map(str::to_string);
                    self.skip.push(skip.iter().cloned().chain(more).collect());
                }
            }
            _ => match key.strip_prefix("dim.") {
                Some(name) if !name.is_empty() => {
                    if values.iter().any(|v| v.parse::<u32>().is_err()) {
                        return Err(choices("numbers"));
                    }
                    let values = values.iter().map(|v| v.to_string()).collect();
                    self.dims.push((name.to_string(), values));
                }
                _ => return Err(bad(&format!("'{key}' does not vary"))),
            },
        }
        Ok(())
    }
}

fn read_all<T: ValueEnum>(values: &[&str]) -> Option<Vec<T>> {
    let read = |value: &&str| T::from_str(value, false).ok();
    values.iter().map(read).collect()
}

fn name_of(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or(String::new(), |v| v.get_name().to_string())
}

/// Each choice of one value a dim, as `NAME=VALUE`.
fn product(dims: &[(String, Vec<String>)]) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    for (name, values) in dims {
        let longer = |chosen: &Vec<String>| {
            let chosen = chosen.clone();
            values.iter().map(move |value| {
                let mut next = chosen.clone();
                next.push(format!("{name}={value}"));
                next
            })
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}
