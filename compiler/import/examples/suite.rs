//! Imports every model below a folder and counts: imported, unsupported (by operator and reason),
//! invalid; with `--run` also runs those that need no library through the interpreter and compares
//! with the test data beside them.
//!
//! `cargo run -p lapidary-import --example suite -- DIR… [-v] [--run] [--symbolic]`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lapidary_graph::interp::Value;
use lapidary_graph::{Container, DType, Graph, Op, Scalar, TensorData, TensorType, interp, verify};
use lapidary_import::{ImportOptions, import};
use lapidary_onnx::ModelFile;
use lapidary_onnx::proto::{OptionalProto, SequenceProto, TensorProto};

fn models(dir: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    let mut entries: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    entries.sort();
    for e in entries {
        if e.is_dir() {
            models(&e, into);
        } else if e.extension().is_some_and(|x| x == "onnx") {
            into.push(e);
        }
    }
}

/// The values of one data set: `input_0.pb`, `input_1.pb`, …, of the types that the graph states.
fn values(dir: &Path, stem: &str, types: &[&TensorType]) -> Result<Vec<Value>, String> {
    let mut out = Vec::new();
    for (i, ty) in types.iter().enumerate() {
        let path = dir.join(format!("{stem}_{i}.pb"));
        if !path.exists() {
            break;
        }
        let text = |e: lapidary_onnx::OnnxError| e.to_string();
        out.push(match ty.containers.first() {
            None => tensor(&lapidary_onnx::read_tensor_file(&path).map_err(text)?)?,
            Some(Container::Sequence) => {
                sequence(&lapidary_onnx::read_sequence_file(&path).map_err(text)?)?
            }
            Some(Container::Optional) => {
                // Some files of optionals have what is inside alone.
                let inside = ty.element();
                match lapidary_onnx::read_optional_file(&path) {
                    Ok(proto) => optional(&proto)?,
                    Err(_) if inside.is_tensor() => {
                        let proto = lapidary_onnx::read_tensor_file(&path).map_err(text)?;
                        Value::Optional(Some(Box::new(tensor(&proto)?)))
                    }
                    Err(e) => return Err(e.to_string()),
                }
            }
            Some(Container::Map(_)) => return Err("maps".into()),
        });
    }
    Ok(out)
}

fn tensor(proto: &TensorProto) -> Result<Value, String> {
    let view = lapidary_onnx::tensor_view(proto).map_err(|e| e.to_string())?;
    Ok(Value::Tensor(TensorData {
        dtype: DType::from_onnx(view.dtype.to_wire()).ok_or("element type")?,
        dims: view.dims,
        bytes: view.bytes,
        strings: view.strings.unwrap_or_default(),
    }))
}

fn sequence(proto: &SequenceProto) -> Result<Value, String> {
    let nested = proto.sequence_values.iter().map(sequence);
    let all: Result<Vec<Value>, String> = match proto.elem_type {
        3 => nested.collect(),
        _ => proto.tensor_values.iter().map(tensor).collect(),
    };
    all.map(Value::Sequence)
}

fn optional(proto: &OptionalProto) -> Result<Value, String> {
    let inside = match (&proto.tensor_value, &proto.sequence_value) {
        (Some(t), _) => Some(tensor(t)?),
        (None, Some(s)) => Some(sequence(s)?),
        (None, None) => None,
    };
    Ok(Value::Optional(inside.map(Box::new)))
}

fn numbers(t: &TensorData) -> Vec<f64> {
    let n = t.dtype.bytes();
    let bits = |c: &[u8]| c.iter().rev().fold(0u64, |a, b| a << 8 | *b as u64);
    t.bytes
        .chunks_exact(n)
        .map(|c| {
            let dtype = t.dtype;
            Scalar {
                dtype,
                bits: bits(c),
            }
            .to_f64()
        })
        .collect()
}

fn compare_values(found: &Value, expected: &Value, atol: f64, rtol: f64) -> Option<String> {
    match (found, expected) {
        (Value::Tensor(f), Value::Tensor(e)) => compare(f, e, atol, rtol),
        (Value::Sequence(f), Value::Sequence(e)) if f.len() == e.len() => {
            let mut pairs = f.iter().zip(e);
            pairs.find_map(|(f, e)| compare_values(f, e, atol, rtol))
        }
        (Value::Optional(Some(f)), Value::Optional(Some(e))) => compare_values(f, e, atol, rtol),
        (Value::Optional(None), Value::Optional(None)) => None,
        _ => Some(format!(
            "expected {}, found {}",
            expected.text(),
            found.text()
        )),
    }
}

fn compare(found: &TensorData, expected: &TensorData, atol: f64, rtol: f64) -> Option<String> {
    if found.dtype != expected.dtype || found.dims != expected.dims {
        return Some(format!(
            "expected {}{:?}, found {}{:?}",
            expected.dtype, expected.dims, found.dtype, found.dims
        ));
    }
    if found.dtype == DType::String {
        return (found.strings != expected.strings).then(|| "strings differ".to_string());
    }
    let (a, b) = (numbers(found), numbers(expected));
    let rtol = match found.dtype {
        DType::F16 | DType::BF16 => rtol.max(0.01),
        _ => rtol,
    };
    for (i, (x, y)) in a.iter().zip(&b).enumerate() {
        let same = x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= atol + rtol * y.abs();
        if !same {
            return Some(format!("element {i}: expected {y}, found {x}"));
        }
    }
    None
}

/// Runs the data sets beside a model; `Ok(None)` if all agree.
fn run(g: &Graph, dir: &Path) -> Result<Option<String>, String> {
    let text = std::fs::read_to_string(dir.join("data.json")).unwrap_or_default();
    let number = |key: &str, default: f64| {
        text.split_once(&format!("\"{key}\":"))
            .and_then(|(_, r)| r.split([',', '}']).next()?.trim().parse().ok())
            .unwrap_or(default)
    };
    let (atol, rtol): (f64, f64) = (number("atol", 1e-7), number("rtol", 1e-3));
    for k in 0.. {
        let set = dir.join(format!("test_data_set_{k}"));
        if !set.exists() {
            break;
        }
        let input_types: Vec<&TensorType> = g.inputs.iter().map(|v| g.ty(*v)).collect();
        let output_types: Vec<&TensorType> = g.outputs.iter().map(|(_, v)| g.ty(*v)).collect();
        let mut inputs = values(&set, "input", &input_types)?;
        let expected = values(&set, "output", &output_types)?;
        let defaults = (inputs.len()..g.inputs.len()).map_while(|i| g.default_of(i));
        inputs.extend(defaults.cloned().map(Value::Tensor));
        let found = match interp::run_values(g, &inputs, &Default::default()) {
            Ok(f) => f,
            Err(interp::InterpError::Unsupported { library, .. }) => {
                return Err(format!("library {library}"));
            }
            Err(e) => return Ok(Some(e.to_string())),
        };
        if found.len() != expected.len() {
            return Ok(Some(format!(
                "{} outputs, expected {}",
                found.len(),
                expected.len()
            )));
        }
        for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
            if let Some(m) = compare_values(f, e, atol, rtol) {
                return Ok(Some(format!("data set {k}, output {i}: {m}")));
            }
        }
    }
    Ok(None)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let flag = |f: &str| args.iter().any(|a| a == f);
    let mut paths = Vec::new();
    for dir in args.iter().filter(|a| !a.starts_with('-')) {
        match Path::new(dir) {
            p if p.is_file() => paths.push(p.to_path_buf()),
            p => models(p, &mut paths),
        }
    }
    let options = ImportOptions {
        operators: Vec::new(),
        symbolic: flag("--symbolic"),
        dims: Vec::new(),
        strict: false,
        audit: true,
        fix_defaults: false,
    };
    let (mut good, mut unsupported, mut invalid) = (0, 0, 0);
    let (mut agree, mut differ) = (0, 0);
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut library: BTreeMap<String, usize> = BTreeMap::new();
    let mut skipped: BTreeMap<String, usize> = BTreeMap::new();
    for path in &paths {
        let dir = path.parent().unwrap_or(path);
        let shown = dir.display();
        let model = match ModelFile::open(path) {
            Ok(m) => m,
            Err(e) => {
                invalid += 1;
                println!("{shown}: {e}");
                continue;
            }
        };
        let graph = match import(&model, &options) {
            Ok(g) => g,
            Err(e) => {
                if e.is_unsupported() {
                    unsupported += 1;
                } else {
                    invalid += 1;
                    println!("{shown}: {e}");
                }
                let text = |e: &lapidary_import::ImportError| {
                    format!("{} {}: {}", e.domain, e.op, e.found)
                };
                let mut own: Vec<String> = e.errors.iter().map(text).collect();
                own.sort();
                own.dedup();
                for r in own {
                    *reasons.entry(r).or_default() += 1;
                }
                continue;
            }
        };
        good += 1;
        if let Err(errors) = verify::verify(&graph) {
            for e in errors {
                println!("{shown}: not well formed: {e}");
            }
        }
        let mut calls: Vec<&str> = Vec::new();
        for n in &graph.order {
            if let Op::Library(c) = &graph.nodes[*n].op {
                calls.push(&c.name);
            }
        }
        if flag("-v") {
            println!("{shown}: {} nodes, library {calls:?}", graph.order.len());
        }
        if flag("--text") {
            println!("{}", graph.to_text());
        }
        calls.sort_unstable();
        calls.dedup();
        for c in calls {
            *library.entry(c.to_string()).or_default() += 1;
        }
        if flag("--run") {
            match run(&graph, dir) {
                Ok(None) => agree += 1,
                Ok(Some(m)) => {
                    differ += 1;
                    println!("{shown}: {m}");
                }
                Err(why) => *skipped.entry(why).or_default() += 1,
            }
        }
    }
    println!("imported {good}, unsupported {unsupported}, invalid {invalid}");
    println!("run: agree {agree}, differ {differ}");
    for (title, counts) in [
        ("unsupported", reasons),
        ("library calls", library),
        ("not run", skipped),
    ] {
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|c| std::cmp::Reverse(c.1));
        println!("-- {title} (models)");
        for (r, n) in counts {
            println!("{n:5}  {r}");
        }
    }
}
