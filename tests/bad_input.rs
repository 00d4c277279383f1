//! Bad input through the command: each ends with one message that names what is wrong, the stated exit code, and no
//! file left behind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use lapidary::files::{read_npz, write_npy};
use lapidary::{Class, Error, Model, Options, Tensor};
use lapidary_onnx::proto::tensor_shape_proto::{Dimension, dimension};
use lapidary_onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use prost::Message;

const USAGE: i32 = 2;
const UNSUPPORTED: i32 = 3;
const INVALID: i32 = 4;
const OTHER: i32 = 5;

const F32: i32 = 1;
const I64: i32 = 7;

// ---- models built in code ------------------------------------------------------------------------

fn node(op: &str, name: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        name: name.into(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: outputs.iter().map(|s| s.to_string()).collect(),
        ..Default::default()
    }
}

/// An input or output; a dim is a number or a name.
fn value(name: &str, dtype: i32, dims: &[&str]) -> ValueInfoProto {
    let dim = dims.iter().map(|d| Dimension {
        value: Some(match d.parse::<i64>() {
            Ok(v) => dimension::Value::DimValue(v),
            Err(_) => dimension::Value::DimParam(d.to_string()),
        }),
        ..Default::default()
    });
    let tensor = type_proto::Tensor {
        elem_type: dtype,
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn floats(name: &str, values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: F32,
        dims: vec![values.len() as i64],
        raw_data: values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>()
            .into(),
        ..Default::default()
    }
}

fn external(name: &str, dims: &[i64], entries: &[(&str, &str)]) -> TensorProto {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
        key: key.to_string(),
        value: value.to_string(),
    };
    TensorProto {
        name: name.into(),
        data_type: F32,
        dims: dims.to_vec(),
        data_location: 1,
        external_data: entries.iter().map(entry).collect(),
        ..Default::default()
    }
}

fn model(
    inputs: Vec<ValueInfoProto>,
    initializer: Vec<TensorProto>,
    node: Vec<NodeProto>,
    outputs: Vec<ValueInfoProto>,
) -> ModelProto {
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 17,
        }],
        graph: Some(GraphProto {
            name: "test".into(),
            node,
            initializer,
            input: inputs,
            output: outputs,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// `y = x + w`, `w` given.
fn add(w: TensorProto, dims: &[&str]) -> ModelProto {
    model(
        vec![value("x", F32, dims)],
        vec![w],
        vec![node("Add", "/add", &["x", "w"], &["y"])],
        vec![value("y", F32, dims)],
    )
}

fn sound() -> ModelProto {
    add(floats("w", &[1.0, 2.0]), &["2"])
}

// ---- a folder and the command ----------------------------------------------------------------------

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("lapidary-bad-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }
    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.0.join(name), bytes).expect("a file");
        self.path(name)
    }
    fn model(&self, name: &str, model: &ModelProto) -> String {
        self.write(name, model.encode_to_vec())
    }
    /// `NAME=FILE` for a new file with this tensor.
    fn input(&self, name: &str, tensor: &Tensor) -> String {
        let file = format!("{name}-{}.npy", self.files().len());
        format!("{name}={}", self.write(&file, write_npy(tensor)))
    }
    fn files(&self) -> BTreeSet<PathBuf> {
        let entries = std::fs::read_dir(&self.0).expect("the folder");
        entries.map(|e| e.expect("an entry").path()).collect()
    }
    /// The command fails so, and leaves the folder as it was.
    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32, texts: &[&str]) {
        let before = self.files();
        let output = lapidary(arguments);
        judge(&output, arguments, code, texts);
        assert_eq!(self.files(), before, "{arguments:?} leaves files");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn lapidary(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lapidary"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the command starts")
}

#[track_caller]
fn judge(output: &Output, arguments: &[&str], code: i32, texts: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    for text in texts {
        assert!(
            message.contains(text),
            "{arguments:?}: '{text}' is not in: {message}"
        );
    }
    assert!(!message.contains("panicked"), "{arguments:?}: {message}");
    assert_eq!(
        message.matches("error: ").count(),
        1,
        "{arguments:?}: {message}"
    );
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let output = lapidary(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {message}");
    String::from_utf8(output.stdout).expect("output is text")
}

fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_slice(shape, values).expect("a tensor")
}

fn i64s(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::from_slice(shape, values).expect("a tensor")
}

// ---- files that are no models ------------------------------------------------------------------------

#[test]
fn a_file_that_is_no_model_is_invalid() {
    let f = Folder::new("files");
    let bytes = sound().encode_to_vec();
    let whole = f.write("whole.onnx", &bytes);
    assert!(succeeds(&["check", &whole]).contains("sound"));
    for end in [1, 2, 5, bytes.len() / 2, bytes.len() - 1] {
        let cut = f.write("cut.onnx", &bytes[..end]);
        f.fails(&["check", &cut], INVALID, &[]);
    }
    // The same numbers each time; some of them may decode as a message, none as a model.
    let mut state = 1u64;
    for _ in 0..50 {
        let noise: Vec<u8> = (0..300)
            .map(|_| {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                (state >> 56) as u8
            })
            .collect();
        let noise = f.write("noise.onnx", noise);
        f.fails(&["check", &noise], INVALID, &["noise.onnx"]);
    }
    let empty = f.write("empty.onnx", []);
    f.fails(&["check", &empty], INVALID, &["empty.onnx"]);
    std::fs::create_dir(f.0.join("folder.onnx")).expect("a folder");
    let folder = f.path("folder.onnx");
    f.fails(&["check", &folder], USAGE, &["folder.onnx"]);
    f.fails(&["run", &folder], USAGE, &["folder.onnx"]);
    let out = f.path("out.so");
    f.fails(&["compile", &folder, "-o", &out], USAGE, &["folder.onnx"]);
    let missing = f.path("missing.onnx");
    f.fails(&["check", &missing], USAGE, &["missing.onnx"]);
    f.fails(&["compile", &missing, "-o", &out], USAGE, &["missing.onnx"]);
    let library = f.write("noise.so", b"not a library");
    f.fails(&["run", &library], INVALID, &["noise.so"]);
}

#[test]
fn a_graph_that_breaks_rules_is_invalid_and_the_place_is_named() {
    let f = Folder::new("graphs");
    let x = || vec![value("x", F32, &["2"])];
    let y = || vec![value("y", F32, &["2"])];
    let cycle = vec![
        node("Add", "/a", &["x", "b"], &["a"]),
        node("Relu", "/b", &["a"], &["b"]),
        node("Relu", "/y", &["b"], &["y"]),
    ];
    let cases = [
        ("cycle", model(x(), vec![], cycle, y()), &["/a", "b"][..]),
        (
            "initializer",
            model(
                x(),
                vec![],
                vec![node("Add", "/add", &["x", "w"], &["y"])],
                y(),
            ),
            &["/add", "w"],
        ),
        (
            "output",
            model(
                x(),
                vec![],
                vec![node("Relu", "/relu", &["x"], &["z"])],
                y(),
            ),
            &["y"],
        ),
    ];
    for (name, bad, texts) in cases {
        let path = f.model(&format!("{name}.onnx"), &bad);
        f.fails(&["check", &path], INVALID, texts);
        f.fails(&["compile", &path, "-o", &f.path("out.so")], INVALID, texts);
    }
}

#[test]
fn external_data_that_does_not_fit_is_invalid() {
    let f = Folder::new("external");
    f.write("data.bin", [0u8; 64]);
    let outside = f.0.with_extension("outside");
    std::fs::write(&outside, [0u8; 64]).expect("a file");
    let outside_name = format!(
        "../{}",
        outside
            .file_name()
            .and_then(|n| n.to_str())
            .expect("a name")
    );
    #[cfg(unix)]
    std::os::unix::fs::symlink(&outside, f.0.join("link.bin")).expect("a link");
    let cases = [
        ("missing", vec![("location", "none.bin")], "none.bin"),
        ("no location", vec![("offset", "0")], "location"),
        (
            "offset",
            vec![("location", "data.bin"), ("offset", "60")],
            "data.bin",
        ),
        (
            "huge",
            vec![("location", "data.bin"), ("offset", "18446744073709551612")],
            "data.bin",
        ),
        (
            "negative",
            vec![("location", "data.bin"), ("offset", "-4")],
            "offset",
        ),
        (
            "word",
            vec![("location", "data.bin"), ("length", "many")],
            "length",
        ),
        (
            "length",
            vec![("location", "data.bin"), ("length", "4")],
            "data.bin",
        ),
        (
            "outside",
            vec![("location", outside_name.as_str())],
            "outside",
        ),
        (
            "absolute",
            vec![("location", "/etc/hostname")],
            "/etc/hostname",
        ),
        #[cfg(unix)]
        ("link", vec![("location", "link.bin")], "link.bin"),
    ];
    for (name, entries, text) in cases {
        let path = f.model(
            &format!("{name}.onnx"),
            &add(external("w", &[2], &entries), &["2"]),
        );
        f.fails(&["check", &path], INVALID, &["'w'", text]);
        f.fails(
            &["run", &path, "--input", "x=random"],
            INVALID,
            &["'w'", text],
        );
    }
    std::fs::remove_file(&outside).expect("the file goes");
}

#[test]
fn a_file_that_is_cut_short_after_it_was_mapped_is_an_error() {
    let f = Folder::new("shrunk");
    let count = 1 << 16;
    let n = count.to_string();
    let shrinks = |path: &str, file: &str| {
        let model = Model::load(path).expect("it loads");
        model.check(&Options::default()).expect("it is sound");
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(file)
            .expect("the file");
        file.set_len(100).expect("it is cut");
        let out = f.path("out.so");
        let compile = model.compile(&Options::default()).err();
        let check = model.check(&Options::default()).err();
        let write = model
            .compile_library(Path::new(&out), None, &Options::default())
            .err();
        for error in [compile, check, write] {
            let error: Error = error.expect("it cannot be compiled");
            assert_eq!(error.class(), Class::Invalid, "{error}");
            assert!(error.to_string().contains("100"), "{error}");
        }
        assert!(!Path::new(&out).exists());
    };
    let data = f.write("data.bin", vec![0u8; 4 * count]);
    let w = external("w", &[count as i64], &[("location", "data.bin")]);
    let path = f.model("external.onnx", &add(w, &[&n]));
    shrinks(&path, &data);
    let path = f.model("inside.onnx", &add(floats("w", &vec![1.0; count]), &[&n]));
    shrinks(&path, &path);
}

#[test]
fn what_is_not_compiled_here_is_unsupported_and_named() {
    let f = Folder::new("unsupported");
    let with = |change: &dyn Fn(&mut ModelProto)| {
        let mut model = sound();
        change(&mut model);
        model
    };
    let first =
        |m: &mut ModelProto| -> NodeProto { m.graph.as_mut().expect("a graph").node.remove(0) };
    let operator = with(&|m| {
        let node = first(m);
        let node = NodeProto {
            op_type: "Sparkle".into(),
            ..node
        };
        m.graph.as_mut().expect("a graph").node.push(node);
    });
    let domain = |imported: bool| {
        with(&|m| {
            let node = first(m);
            let node = NodeProto {
                domain: "com.acme".into(),
                ..node
            };
            m.graph.as_mut().expect("a graph").node.push(node);
            if imported {
                let version = OperatorSetIdProto {
                    domain: "com.acme".into(),
                    version: 1,
                };
                m.opset_import.push(version);
            }
        })
    };
    let opset = |v: i64| with(&|m| m.opset_import[0].version = v);
    let ir = |v: i64| with(&|m| m.ir_version = v);
    let cases = [
        ("operator", operator, INVALID, &["/add", "Sparkle"][..]),
        ("domain", domain(true), UNSUPPORTED, &["/add", "com.acme"]),
        ("no-import", domain(false), INVALID, &["/add", "com.acme"]),
        ("old", opset(3), UNSUPPORTED, &["3"]),
        ("new", opset(99), UNSUPPORTED, &["99"]),
        ("old-ir", ir(2), UNSUPPORTED, &["2"]),
        ("new-ir", ir(99), UNSUPPORTED, &["99"]),
    ];
    for (name, bad, code, texts) in cases {
        let path = f.model(&format!("{name}.onnx"), &bad);
        f.fails(&["check", &path], code, texts);
        f.fails(&["compile", &path, "-o", &f.path("out.so")], code, texts);
    }
}

#[test]
fn a_value_of_more_axes_than_can_be_described_is_unsupported_and_named() {
    let f = Folder::new("axes");
    let mut dims = vec![1i64; 17];
    dims.extend([2, 3]);
    let shape = TensorProto {
        name: "shape".into(),
        data_type: I64,
        dims: vec![19],
        int64_data: dims,
        ..Default::default()
    };
    let nodes = vec![
        node("Reshape", "/reshape", &["x", "shape"], &["a"]),
        node("Relu", "/relu", &["a"], &["y"]),
    ];
    let m = model(
        vec![value("x", F32, &["2", "3"])],
        vec![shape],
        nodes,
        vec![value("y", F32, &["1"; 19])],
    );
    let path = f.model("inside.onnx", &m);
    for command in [
        &["check", &path][..],
        &["run", &path, "--input", "x=random"],
    ] {
        f.fails(command, UNSUPPORTED, &["'a'", "rank 19", "16"]);
    }
    let relu = vec![node("Relu", "/relu", &["x"], &["y"])];
    let many = ["1"; 19];
    let m = model(
        vec![value("x", F32, &many)],
        vec![],
        relu,
        vec![value("y", F32, &many)],
    );
    let path = f.model("border.onnx", &m);
    f.fails(&["check", &path], UNSUPPORTED, &["'x'", "rank 19", "16"]);
}

// ---- runs ------------------------------------------------------------------------------------------

#[test]
fn inputs_that_do_not_fit_are_refused_in_memory_and_by_a_library() {
    let f = Folder::new("inputs");
    let inputs = vec![value("a", F32, &["n", "3"]), value("b", F32, &["n", "3"])];
    let nodes = vec![node("Add", "/add", &["a", "b"], &["y"])];
    let path = f.model(
        "m.onnx",
        &model(inputs, vec![], nodes, vec![value("y", F32, &["n", "3"])]),
    );
    let library = f.path("libm.so");
    succeeds(&["compile", &path, "-o", &library]);
    let good = f32s(&[2, 3], &[0.0; 6]);
    let a = f.input("a", &good);
    let b = f.input("b", &good);
    let dtype = f.input("b", &i64s(&[2, 3], &[0; 6]));
    let rank = f.input("b", &f32s(&[6], &[0.0; 6]));
    let dim = f.input("b", &f32s(&[2, 4], &[0.0; 8]));
    let symbol = f.input("b", &f32s(&[5, 3], &[0.0; 15]));
    let wrong = b.replacen("b=", "c=", 1);
    let none = f.path("none.npy");
    let none = format!("b={none}");
    for target in [&path, &library] {
        succeeds(&["run", target, "--input", &a, "--input", &b]);
        let run = |second: &str, code: i32, texts: &[&str]| {
            f.fails(
                &["run", target, "--input", &a, "--input", second],
                code,
                texts,
            );
        };
        run(&wrong, USAGE, &["'c'", "a, b"]);
        run(&a, USAGE, &["'a'", "twice"]);
        run(&dtype, INVALID, &["b", "f32", "i64"]);
        run(&rank, INVALID, &["b", "rank 2", "rank 1"]);
        run(&dim, INVALID, &["b", "3", "4"]);
        run(&symbol, INVALID, &["a", "b", "2", "5"]);
        run(&none, USAGE, &["none.npy"]);
        f.fails(&["run", target, "--input", &a], USAGE, &["'b'"]);
    }
    let dim = ["run", &path, "--input", &a, "--input", &b, "--dim", "q=2"];
    f.fails(
        &dim,
        USAGE,
        &["'q'", "no input", "hint: free dimensions are: n"],
    );
}

#[test]
fn an_index_out_of_range_ends_the_run_and_names_the_node() {
    let f = Folder::new("indices");
    let axis = AttributeProto {
        name: "axis".into(),
        r#type: 2,
        i: 0,
        ..Default::default()
    };
    let indexed = |op: &str, inputs: &[&str]| NodeProto {
        attribute: if op == "ScatterND" {
            vec![]
        } else {
            vec![axis.clone()]
        },
        ..node(op, "/pick", inputs, &["y"])
    };
    let data = f.input("x", &f32s(&[4], &[0.0, 1.0, 2.0, 3.0]));
    let more = f.input("u", &f32s(&[2], &[7.0, 8.0]));
    let one = |good: i64| i64s(&[2], &[0, good]);
    let column = |good: i64| i64s(&[2, 1], &[0, good]);
    for op in ["Gather", "GatherElements", "ScatterND"] {
        let scatter = op == "ScatterND";
        let mut inputs = vec![value("x", F32, &["4"])];
        let mut names = vec!["x", "i"];
        inputs.push(value("i", I64, if scatter { &["n", "1"] } else { &["n"] }));
        if scatter {
            inputs.push(value("u", F32, &["n"]));
            names.push("u");
        }
        let out = if scatter { "4" } else { "n" };
        let m = model(
            inputs,
            vec![],
            vec![indexed(op, &names)],
            vec![value("y", F32, &[out])],
        );
        let path = f.model(&format!("{op}.onnx"), &m);
        let library = f.path(&format!("lib{op}.so"));
        succeeds(&["compile", &path, "-o", &library]);
        for target in [&path, &library] {
            for (index, fits) in [
                (3, true),
                (-4, true),
                (4, false),
                (-5, false),
                (i64::MAX, false),
            ] {
                let index_tensor = if scatter { column(index) } else { one(index) };
                let i = f.input("i", &index_tensor);
                let mut arguments = vec!["run", target.as_str(), "--input", &data, "--input", &i];
                if scatter {
                    arguments.extend(["--input", more.as_str()]);
                }
                if fits {
                    succeeds(&arguments);
                } else {
                    f.fails(&arguments, INVALID, &["/pick", &index.to_string()]);
                }
            }
        }
    }
}

#[test]
fn an_index_in_a_tuple_is_reported_as_it_was_given() {
    let f = Folder::new("tuples");
    let data = f.input("x", &f32s(&[3, 4], &[0.0; 12]));
    let more = f.input("u", &f32s(&[1], &[7.0]));
    for (op, reduction) in [
        ("GatherND", None),
        ("ScatterND", None),
        ("ScatterND", Some("add")),
        ("ScatterElements", None),
    ] {
        let scatter = op.starts_with("Scatter");
        let tuple = op.ends_with("ND");
        let attribute = reduction.map(|by: &str| AttributeProto {
            name: "reduction".into(),
            r#type: 3,
            s: by.as_bytes().to_vec().into(),
            ..Default::default()
        });
        let mut names = vec!["x", "i"];
        let mut inputs = vec![
            value("x", F32, &["3", "m"]),
            value("i", I64, &["k", if tuple { "2" } else { "1" }]),
        ];
        if scatter {
            names.push("u");
            inputs.push(value("u", F32, if tuple { &["k"] } else { &["k", "1"] }));
        }
        let pick = NodeProto {
            attribute: attribute.into_iter().collect(),
            ..node(op, "/pick", &names, &["y"])
        };
        let out: &[&str] = if scatter { &["3", "m"] } else { &["k"] };
        let m = model(inputs, vec![], vec![pick], vec![value("y", F32, out)]);
        let path = f.model("m.onnx", &m);
        let library = f.path("libm.so");
        succeeds(&["compile", &path, "-o", &library, "--cpu", "baseline"]);
        let more = match tuple {
            true => more.clone(),
            false => f.input("u", &f32s(&[1, 1], &[7.0])),
        };
        for target in [&path, &library] {
            for (first, second, reported) in [
                (-3, -4, None),
                (-4, 0, Some(-4)),
                (-1000, 0, Some(-1000)),
                (3, -1, Some(3)),
                (i64::MIN, 0, Some(i64::MIN)),
                (0, -5, Some(-5)),
                (-1, i64::MIN, Some(i64::MIN)),
                (-1, 4, Some(4)),
                (-9, -77, Some(-9)),
            ] {
                if !tuple && second != 0 {
                    continue;
                }
                let i = match tuple {
                    true => i64s(&[1, 2], &[first, second]),
                    false => i64s(&[1, 1], &[first]),
                };
                let i = f.input("i", &i);
                let mut arguments = vec!["run", target.as_str(), "--input", &data, "--input", &i];
                if scatter {
                    arguments.extend(["--input", more.as_str()]);
                }
                match reported {
                    None => {
                        succeeds(&arguments);
                    }
                    Some(index) => {
                        let text = format!("index {index} in operand 1");
                        f.fails(&arguments, INVALID, &["/pick", &text]);
                    }
                }
            }
        }
    }
}

#[test]
fn an_index_of_a_slice_is_reported_as_it_was_given_even_if_it_is_a_constant() {
    let f = Folder::new("slices");
    let data = f.input("x", &f32s(&[3, 4, 5], &[0.0; 60]));
    let more = f.input("u", &f32s(&[1, 4, 5], &[7.0; 20]));
    for (index, fixed) in [(-4, false), (-4, true), (3, true), (i64::MIN, true)] {
        let i = TensorProto {
            name: "i".into(),
            data_type: I64,
            dims: vec![1, 1],
            int64_data: vec![index],
            ..Default::default()
        };
        let mut inputs = vec![
            value("x", F32, &["n", "4", "p"]),
            value("u", F32, &["1", "4", "p"]),
        ];
        if !fixed {
            inputs.push(value("i", I64, &["1", "1"]));
        }
        let path = f.model(
            "m.onnx",
            &model(
                inputs,
                if fixed { vec![i] } else { vec![] },
                vec![node("ScatterND", "/pick", &["x", "i", "u"], &["y"])],
                vec![value("y", F32, &["n", "4", "p"])],
            ),
        );
        let i = f.input("i", &i64s(&[1, 1], &[index]));
        let mut arguments = vec!["run", &path, "--input", &data, "--input", &more];
        if !fixed {
            arguments.extend(["--input", i.as_str()]);
        }
        f.fails(&arguments, INVALID, &["/pick", &format!("index {index}")]);
    }
}

#[test]
fn a_value_of_unknown_rank_is_reshaped_only_to_as_many_elements() {
    let f = Folder::new("unranked");
    let mut x = value("x", F32, &[]);
    if let Some(type_proto::Value::TensorType(tensor)) =
        x.r#type.as_mut().and_then(|t| t.value.as_mut())
    {
        tensor.shape = None;
    }
    let data = f.input("x", &f32s(&[2, 3], &[0.0; 6]));
    for (to, code, texts) in [
        (6, 0, &[][..]),
        (5, INVALID, &["/reshape", "6 elements", "5"]),
        (1000, INVALID, &["/reshape", "6 elements", "1000"]),
        (1 << 62, OTHER, &["`y`", "memory"]),
    ] {
        let shape = TensorProto {
            name: "shape".into(),
            data_type: I64,
            dims: vec![1],
            int64_data: vec![to],
            ..Default::default()
        };
        let nodes = vec![node("Reshape", "/reshape", &["x", "shape"], &["y"])];
        let m = model(
            vec![x.clone()],
            vec![shape],
            nodes,
            vec![value("y", F32, &["n"])],
        );
        let path = f.model("m.onnx", &m);
        match code {
            0 => drop(succeeds(&["run", &path, "--input", &data])),
            code => f.fails(&["run", &path, "--input", &data], code, texts),
        }
    }
}

#[test]
fn an_image_smaller_than_the_kernel_is_refused_whenever_its_size_is_known() {
    let f = Folder::new("kernel");
    let weights = TensorProto {
        name: "w".into(),
        data_type: F32,
        dims: vec![1, 1, 5, 5],
        float_data: vec![1.0; 25],
        ..Default::default()
    };
    let m = model(
        vec![value("x", F32, &["1", "1", "h", "9"])],
        vec![weights],
        vec![node("Conv", "/conv", &["x", "w"], &["y"])],
        vec![value("y", F32, &["1", "1", "p", "5"])],
    );
    let path = f.model("m.onnx", &m);
    let library = f.path("libm.so");
    succeeds(&["compile", &path, "-o", &library]);
    for (height, fits) in [(5, true), (4, false), (0, false)] {
        let x = f.input("x", &f32s(&[1, 1, height, 9], &vec![1.0; height * 9]));
        let dim = format!("h={height}");
        for run in [
            &["run", &path, "--input", &x][..],
            &["run", &library, "--input", &x],
            &["run", &path, "--input", &x, "--dim", &dim],
        ] {
            match fits {
                true => drop(succeeds(run)),
                false => f.fails(run, INVALID, &["/conv"]),
            }
        }
    }
}

#[test]
fn a_memory_limit_that_is_too_low_ends_the_run() {
    let f = Folder::new("memory");
    let nodes = vec![node("Relu", "/relu", &["x"], &["y"])];
    let path = f.model(
        "m.onnx",
        &model(
            vec![value("x", F32, &["n"])],
            vec![],
            nodes,
            vec![value("y", F32, &["n"])],
        ),
    );
    let library = f.path("libm.so");
    succeeds(&["compile", &path, "-o", &library]);
    for target in [&path, &library] {
        let run = [
            "run",
            target,
            "--input",
            "x=random",
            "--memory-limit",
            "5000",
            "--dim",
        ];
        succeeds(&[&run[..], &["n=100"]].concat());
        f.fails(&[&run[..], &["n=100000"]].concat(), OTHER, &["5000"]);
    }
}

// ---- places that cannot be written -------------------------------------------------------------------

#[test]
fn a_place_that_cannot_be_written_is_an_error_and_nothing_stays() {
    let f = Folder::new("places");
    let path = f.model("m.onnx", &sound());
    let file = f.write("file", b"no folder");
    std::fs::create_dir(f.0.join("taken.so")).expect("a folder");
    std::fs::create_dir(f.0.join("taken.npz")).expect("a folder");
    std::fs::create_dir(f.0.join("taken.h")).expect("a folder");
    let run = |to: &str, code: i32| {
        f.fails(
            &["run", &path, "--input", "x=random", "-o", to],
            code,
            &[to],
        );
    };
    run(&f.path("none/out.npz"), USAGE);
    run(&f.path("none/out.npy"), USAGE);
    run(&format!("{file}/out.npz"), OTHER);
    run(&f.path("taken.npz"), OTHER);
    let compile = |to: &str, code: i32| f.fails(&["compile", &path, "-o", to], code, &[to]);
    for kind in ["so", "a", "o"] {
        compile(&f.path(&format!("none/m.{kind}")), USAGE);
        compile(&format!("{file}/m.{kind}"), OTHER);
    }
    compile(&f.path("taken.so"), OTHER);
    let out = f.path("m.so");
    let header = f.path("taken.h");
    f.fails(
        &["compile", &path, "-o", &out, "--header", &header],
        OTHER,
        &["taken.h"],
    );
    let weights = f.path("none/m.weights");
    f.fails(
        &["compile", &path, "-o", &out, "--weights", &weights],
        USAGE,
        &["m.weights"],
    );
    // The library cannot take its place; its weights are taken back.
    let taken = f.path("taken.so");
    let weights = f.path("m.weights");
    f.fails(
        &["compile", &path, "-o", &taken, "--weights", &weights],
        OTHER,
        &["taken.so"],
    );
}

/// A limit on the size of files is met as a full disk is.
#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_and_nothing_stays() {
    let f = Folder::new("full");
    let path = f.model("m.onnx", &add(floats("w", &[1.0; 4096]), &["4096"]));
    let limited = |arguments: &[&str]| {
        let before = f.files();
        let output = Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh"])
            .arg(env!("CARGO_BIN_EXE_lapidary"))
            .args(arguments)
            .output()
            .expect("a shell");
        judge(&output, arguments, OTHER, &[]);
        assert_eq!(f.files(), before, "{arguments:?} leaves files");
    };
    limited(&[
        "run",
        &path,
        "--input",
        "x=random",
        "-o",
        &f.path("out.npz"),
    ]);
    for kind in ["so", "a", "o"] {
        limited(&["compile", &path, "-o", &f.path(&format!("m.{kind}"))]);
    }
    let full = |arguments: &[&str]| {
        let to = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("/dev/full");
        let output = Command::new(env!("CARGO_BIN_EXE_lapidary"))
            .args(arguments)
            .stdout(to)
            .output()
            .expect("the command starts");
        judge(&output, arguments, OTHER, &["standard output"]);
    };
    if Path::new("/dev/full").exists() {
        full(&["run", &path, "--input", "x=random"]);
        full(&["check", &path]);
        full(&["show", &path, "--stage", "loops"]);
    }
}

// ---- libraries ---------------------------------------------------------------------------------------

#[test]
fn a_library_that_needs_what_this_processor_lacks_is_refused_when_it_is_opened() {
    let f = Folder::new("processor");
    let path = f.model("m.onnx", &sound());
    let library = f.path("libm.so");
    succeeds(&["compile", &path, "-o", &library, "--cpu", "baseline"]);
    // The model table begins with the ABI version, its size and the features that the code needs.
    let mut bytes = std::fs::read(&library).expect("the library");
    let size = lapidary_runtime::abi::MODEL_TABLE_BYTES as u32;
    let head = [
        lapidary_runtime::abi::ABI_VERSION.to_le_bytes(),
        size.to_le_bytes(),
    ]
    .concat();
    let at = bytes
        .windows(8)
        .position(|w| w == head)
        .expect("the model table")
        + 8;
    // A feature of the other architecture.
    let bit = if cfg!(target_arch = "x86_64") { 34 } else { 2 };
    let features = 1u64 << bit;
    bytes[at..at + 8].copy_from_slice(&features.to_le_bytes());
    std::fs::write(&library, &bytes).expect("the library");
    f.fails(
        &["run", &library, "--input", "x=random"],
        UNSUPPORTED,
        &["`m`", "this processor does not have"],
    );
    // Of another version of the interface.
    bytes[at - 8] = 99;
    std::fs::write(&library, &bytes).expect("the library");
    f.fails(
        &["run", &library, "--input", "x=random"],
        UNSUPPORTED,
        &["99"],
    );
}

#[test]
fn a_weights_file_that_is_missing_or_not_its_own_is_an_error() {
    let f = Folder::new("weights");
    let path = f.model("m.onnx", &sound());
    let (library, weights) = (f.path("libm.so"), f.path("m.weights"));
    succeeds(&["compile", &path, "-o", &library, "--weights", &weights]);
    let run = ["run", &library, "--input", "x=random"];
    succeeds(&run);
    let bytes = std::fs::read(&weights).expect("the weights");
    for broken in [&bytes[..bytes.len() - 1], &bytes[..10], &[]] {
        std::fs::write(&weights, broken).expect("the weights");
        f.fails(&run, INVALID, &["m.weights"]);
    }
    std::fs::remove_file(&weights).expect("the weights");
    f.fails(&run, INVALID, &["m.weights"]);
}

// ---- defaults ----------------------------------------------------------------------------------------

#[test]
fn an_initializer_that_is_an_input_is_its_default() {
    let f = Folder::new("defaults");
    let with_ir = |version: i64| {
        let mut m = add(floats("w", &[10.0, 20.0]), &["2"]);
        m.ir_version = version;
        m.graph
            .as_mut()
            .expect("a graph")
            .input
            .push(value("w", F32, &["2"]));
        m
    };
    let path = f.model("m.onnx", &with_ir(8));
    let library = f.path("libm.so");
    succeeds(&["compile", &path, "-o", &library]);
    let header = std::fs::read_to_string(f.path("libm.h")).expect("the header");
    assert!(
        header.contains("input  w: f32[2], with a default"),
        "{header}"
    );
    let x = f.input("x", &f32s(&[2], &[1.0, 2.0]));
    let w = f.input("w", &f32s(&[2], &[0.5, 0.25]));
    let wide = f.input("w", &f32s(&[3], &[0.0; 3]));
    let out = f.path("out.npz");
    let result = |arguments: &[&str]| {
        succeeds(&[arguments, &["-o", &out]].concat());
        let (_, tensor) = read_npz(Path::new(&out)).expect("an archive").remove(0);
        tensor.as_slice::<f32>().expect("floats").to_vec()
    };
    for target in [&path, &library] {
        assert_eq!(result(&["run", target, "--input", &x]), [11.0, 22.0]);
        assert_eq!(
            result(&["run", target, "--input", &x, "--input", &w]),
            [1.5, 2.25]
        );
        f.fails(
            &["run", target, "--input", &x, "--input", &wide],
            INVALID,
            &["w", "2", "3"],
        );
    }
    // From C, through the typed function.
    let source = "#include \"libm.h\"\nint main(void) {\n    const float x[2] = {1, 2}, w[2] = {0.5f, 0.25f}, *y;\n    \
        lapidary_context *context;\n    \
        if (lapidary_context_create(&lapidary_model_m, NULL, &context)) return 1;\n    \
        if (m_run(context, x, NULL, &y) || y[0] != 11 || y[1] != 22) return 2;\n    \
        if (m_run(context, x, w, &y) || y[0] != 1.5f || y[1] != 2.25f) return 3;\n    \
        if (m_run(context, x, NULL, &y) || y[0] != 11) return 4;\n    \
        lapidary_context_destroy(context);\n    return 0;\n}\n";
    let source = f.write("use.c", source);
    let program = f.path("use");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_string());
    let arguments = [
        "-std=c11", "-Wall", "-Wextra", "-Werror", "-o", &program, &source, &library,
    ];
    let made = Command::new(compiler).args(arguments).status();
    assert!(made.expect("a C compiler").success());
    let run = Command::new(&program).env("LD_LIBRARY_PATH", &f.0).status();
    assert_eq!(run.expect("it starts").code(), Some(0));
    // One context, by turns.
    let compiled = Model::load(&path)
        .expect("it loads")
        .compile(&Options::default())
        .expect("it compiles");
    let mut context = compiled.context().expect("a context");
    let (x, w) = (f32s(&[2], &[1.0, 2.0]), f32s(&[2], &[0.5, 0.25]));
    for _ in 0..2 {
        let y = context.run([("x", &x)]).expect("a run");
        assert_eq!(y[0].tensor.as_slice::<f32>().expect("floats"), [11.0, 22.0]);
        let y = context.run([("x", &x), ("w", &w)]).expect("a run");
        assert_eq!(y[0].tensor.as_slice::<f32>().expect("floats"), [1.5, 2.25]);
    }
    // As a constant, by wish or since the version of the format has no defaults.
    let old = f.model("old.onnx", &with_ir(3));
    let x = f.input("x", &x);
    let w = f.input("w", &w);
    for run in [&["run", &path, "--fix-defaults"][..], &["run", &old]] {
        assert_eq!(result(&[run, &["--input", &x]].concat()), [11.0, 22.0]);
        let given = [run, &["--input", &x, "--input", &w]].concat();
        f.fails(&given, USAGE, &["no input 'w'"]);
    }
}
