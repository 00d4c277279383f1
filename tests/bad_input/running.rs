//! Inputs, indices and sizes that a run refuses; inputs that may be left out.

use std::path::Path;
use std::process::Command;

use lapidary::files::read_npz;
use lapidary::{Model, Options};
use lapidary_onnx::proto::{AttributeProto, NodeProto, TensorProto, type_proto};

use crate::build::{F32, I64};
use crate::command::*;
use crate::folder::Folder;
use crate::models::*;

#[test]
fn inputs_that_do_not_fit_are_refused_in_memory_and_by_a_library() {
    let f = Folder::new("bad-inputs");
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
    let f = Folder::new("bad-indices");
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
    let f = Folder::new("bad-tuples");
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
    let f = Folder::new("bad-slices");
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
    let f = Folder::new("bad-unranked");
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
    let f = Folder::new("bad-kernel");
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
    let f = Folder::new("bad-memory");
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

#[test]
fn an_initializer_that_is_an_input_is_its_default() {
    let f = Folder::new("bad-defaults");
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
