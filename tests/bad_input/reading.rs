//! Files that are no models, or models that break rules or are not compiled here.

use std::path::Path;

use lapidary::{Class, Error, Model, Options};
use lapidary_onnx::proto::{ModelProto, NodeProto, OperatorSetIdProto, TensorProto};
use prost::Message;

use crate::build::{F32, I64};
use crate::command::*;
use crate::folder::Folder;
use crate::models::*;

#[test]
fn a_file_that_is_no_model_is_invalid() {
    let f = Folder::new("bad-files");
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
    let f = Folder::new("bad-graphs");
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
    let f = Folder::new("bad-external");
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
    let f = Folder::new("bad-shrunk");
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
    let f = Folder::new("bad-unsupported");
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
    let f = Folder::new("bad-axes");
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
        vec![value("y", F32, &["?"; 19])],
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
