//! Latency of a few models, by level of code and against a peer: one table and one picture.
//!
//!     cargo run --release --example compare -- [FOLDER …] [--against onnxruntime] [--python PATH]
//!
//! Each folder is measured by `lapidary bench` at each level that this machine runs; options are passed on to it. The
//! picture goes to `target/compare.svg`: bars are medians, relative to the slowest of each model.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lapidary::Cpu;

struct Bar {
    model: String,
    name: String,
    p50_ms: f64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = Vec::new();
    let mut options: Vec<String> = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument.starts_with("--") {
            options.push(argument);
            options.extend(arguments.next());
        } else {
            folders.push(argument.into());
        }
    }
    if folders.is_empty() {
        folders.push(root.join("examples/digits"));
        let small = ["resnet", "mobilenet", "super_resolution", "bert"];
        folders.extend(small.map(|name| root.join("tests/models").join(name)));
    }

    let mut bars = Vec::new();
    println!(
        "{:<20} {:<24} {:>10} {:>10} {:>8}",
        "model", "code", "p50 ms", "p99 ms", "of peak"
    );
    for folder in &folders {
        for (cpu, flag) in [
            (Cpu::Baseline, "baseline"),
            (Cpu::V3, "v3"),
            (Cpu::V4, "v4"),
        ] {
            if !cpu.runs_here() {
                continue;
            }
            let best = cpu.level() == Cpu::Native.level();
            let peer = options.iter().any(|o| o == "--against") && best;
            bars.extend(measure(folder, flag, if peer { &options } else { &[] })?);
        }
    }
    let picture = root.join("target/compare.svg");
    std::fs::write(&picture, draw(&bars))?;
    println!("{}", picture.display());
    Ok(())
}

/// Runs the command and prints a row for each of its entries.
fn measure(
    folder: &Path,
    level: &str,
    options: &[String],
) -> Result<Vec<Bar>, Box<dyn std::error::Error>> {
    let output = Command::new(command()?)
        .args(["bench", "--format", "json", "--cpu", level])
        .args(options)
        .arg(folder)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("the benchmark of '{}' failed", folder.display()).into());
    }
    let json: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let model = folder
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or("?")
        .to_string();
    let mut bars = Vec::new();
    for entry in json["entries"].as_array().into_iter().flatten() {
        let number = |key: &str| entry[key].as_f64().unwrap_or(f64::NAN);
        let name = match entry["name"].as_str() {
            Some("lapidary") => format!("lapidary {level}"),
            other => other.unwrap_or("?").to_string(),
        };
        println!(
            "{model:<20} {name:<24} {:>10.4} {:>10.4} {:>6.0} %",
            number("p50_ms"),
            number("p99_ms"),
            number("percent_of_peak")
        );
        bars.push(Bar {
            model: model.clone(),
            name,
            p50_ms: number("p50_ms"),
        });
    }
    Ok(bars)
}

/// The command stands beside the folder of this example.
fn command() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let own = std::env::current_exe()?;
    let command = own.with_file_name("lapidary");
    let built = own
        .parent()
        .and_then(Path::parent)
        .map(|p| p.join("lapidary"));
    [Some(command), built]
        .into_iter()
        .flatten()
        .find(|path| path.exists())
        .ok_or_else(|| "the command is not built (hint: cargo build --release)".into())
}

fn draw(bars: &[Bar]) -> String {
    const ROW: usize = 22;
    let mut rows = String::new();
    let mut y = 10;
    let mut last = "";
    for bar in bars {
        if bar.model != last {
            y += ROW;
            rows.push_str(&format!(
                "<text x='10' y='{y}' font-weight='bold'>{}</text>\n",
                bar.model
            ));
            y += 8;
            last = &bar.model;
        }
        let same = bars.iter().filter(|b| b.model == bar.model);
        let slowest = same.map(|b| b.p50_ms).fold(0.0, f64::max).max(1e-9);
        let width = 400.0 * bar.p50_ms / slowest;
        let colour = if bar.name.starts_with("lapidary") {
            "#3b6ea5"
        } else {
            "#b0b0b0"
        };
        rows.push_str(&format!(
            "<text x='10' y='{}'>{}</text><rect x='190' y='{y}' width='{width:.1}' height='{}' fill='{colour}'/>\
             <text x='{:.1}' y='{}'>{:.4} ms</text>\n",
            y + 14,
            bar.name,
            ROW - 5,
            196.0 + width,
            y + 14,
            bar.p50_ms
        ));
        y += ROW;
    }
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='720' height='{}' font-family='sans-serif' font-size='13'>\n\
         <rect width='100%' height='100%' fill='white'/>\n{rows}</svg>\n",
        y + 20
    )
}
