//! Operators of the application, in Rust and in C, in memory and in compiled libraries, alone and between fused nodes.

use std::path::{Path, PathBuf};
use std::process::Command;

use lapidary::operator::{
    Call, GraphDType, Operator, OperatorNode, OperatorOutput, OperatorTypes, Operators,
};
use lapidary::{Compiled, Model, Options, Tensor};
use lapidary_onnx::proto::*;
use prost::Message;

/// A folder of its own for a test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("lapidary-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn value(name: &str, dims: &[&str]) -> ValueInfoProto {
    let dims = dims.iter().map(|d| tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimParam(
            d.to_string(),
        )),
        ..Default::default()
    });
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: 1,
                shape: Some(TensorShapeProto {
                    dim: dims.collect(),
                }),
            })),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn node(op: &str, domain: &str, input: &str, output: &str) -> NodeProto {
    NodeProto {
        name: format!("the_{op}"),
        op_type: op.into(),
        domain: domain.into(),
        input: vec![input.into()],
        output: vec![output.into()],
        ..Default::default()
    }
}

/// `x -> Abs -> Scale(factor) -> Neg -> y`, and `Positive(x) -> Exp -> p`.
fn model() -> Model {
    let mut scale = node("Scale", "com.example", "a", "s");
    scale.attribute = vec![AttributeProto {
        name: "factor".into(),
        r#type: 1,
        f: 2.5,
        ..Default::default()
    }];
    let graph = GraphProto {
        name: "own".into(),
        node: vec![
            node("Abs", "", "x", "a"),
            scale,
            node("Neg", "", "s", "y"),
            node("Positive", "com.example", "x", "q"),
            node("Exp", "", "q", "p"),
        ],
        input: vec![value("x", &["n", "m"])],
        output: vec![value("y", &["n", "m"]), value("p", &["k"])],
        ..Default::default()
    };
    let opset = |domain: &str, version| OperatorSetIdProto {
        domain: domain.into(),
        version,
    };
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![opset("", 17), opset("com.example", 1)],
        graph: Some(graph),
        ..Default::default()
    };
    Model::from_bytes(model.encode_to_vec(), None).expect("the model decodes")
}

fn input(rows: usize, columns: usize) -> Tensor {
    let values: Vec<f32> = (0..rows * columns)
        .map(|i| (i % 17) as f32 / 8.0 - 1.0)
        .collect();
    Tensor::from_slice(&[rows, columns], &values).expect("a tensor")
}

/// Several shapes through one compilation, against the formula.
fn check(compiled: &Compiled) {
    for (rows, columns) in [(3, 5), (1, 1), (0, 4), (200, 333)] {
        let x = input(rows, columns);
        let outputs = compiled.run([("x", &x)]).expect("it runs");
        let x = x.as_slice::<f32>().expect("floats");
        let y: Vec<f32> = x.iter().map(|v| -(v.abs() * 2.5)).collect();
        assert_eq!(outputs[0].tensor.shape(), &[rows, columns]);
        assert_eq!(outputs[0].tensor.as_slice::<f32>().expect("floats"), y);
        let p: Vec<f32> = x.iter().filter(|v| **v > 0.0).map(|v| v.exp()).collect();
        assert_eq!(outputs[1].tensor.shape(), &[p.len()]);
        let found = outputs[1].tensor.as_slice::<f32>().expect("floats");
        assert!(found.iter().zip(&p).all(|(a, b)| (a - b).abs() <= 1e-6 * b));
    }
}

struct Scale;
impl Operator for Scale {
    fn domain(&self) -> &str {
        "com.example"
    }
    fn name(&self) -> &str {
        "Scale"
    }
    fn infer(&self, node: &OperatorNode<'_>) -> Result<OperatorTypes, String> {
        let x = node.inputs.first().copied().flatten().ok_or("no input")?;
        Ok(OperatorTypes {
            outputs: vec![OperatorOutput::like(x)],
            floats: vec![f64::from(node.float("factor", 1.0)?)],
            ..OperatorTypes::default()
        })
    }
    fn run(&self, call: &mut Call<'_>) -> Result<(), String> {
        let factor = call.floats()[0] as f32;
        let (shape, x) = call.slice::<f32>(0)?;
        if let Some(y) = call.output::<f32>(0, &shape)? {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = x * factor);
        }
        Ok(())
    }
}

struct Positive;
impl Operator for Positive {
    fn domain(&self) -> &str {
        "com.example"
    }
    fn name(&self) -> &str {
        "Positive"
    }
    fn infer(&self, _: &OperatorNode<'_>) -> Result<OperatorTypes, String> {
        Ok(OperatorTypes {
            outputs: vec![OperatorOutput {
                dtype: GraphDType::F32,
                dims: Some(vec![None]),
            }],
            ..OperatorTypes::default()
        })
    }
    fn run(&self, call: &mut Call<'_>) -> Result<(), String> {
        let (_, x) = call.slice::<f32>(0)?;
        if x.iter().any(|v| v.is_nan()) {
            return Err("an element is not a number".into());
        }
        let found: Vec<f32> = x.iter().copied().filter(|v| *v > 0.0).collect();
        if let Some(y) = call.output::<f32>(0, &[found.len()])? {
            y.copy_from_slice(&found);
        }
        Ok(())
    }
}

fn in_rust() -> Options {
    let mut options = Options::default();
    options.operators.add(Scale);
    options.operators.add(Positive);
    options
}

#[test]
fn in_rust_and_in_memory() {
    let compiled = model().compile(&in_rust()).expect("it compiles");
    check(&compiled);
    let x = Tensor::from_slice(&[1, 1], &[f32::NAN]).expect("a tensor");
    let error = compiled
        .run([("x", &x)])
        .expect_err("not a number")
        .to_string();
    assert!(
        error.contains("the_Positive") && error.contains("not a number"),
        "{error}"
    );
    // The context is usable after an error.
    check(&compiled);
}

#[test]
fn without_it_the_node_is_unsupported() {
    let error = model()
        .compile(&Options::default())
        .err()
        .expect("no operators")
        .to_string();
    assert!(
        error.contains("the_Scale") && error.contains("com.example"),
        "{error}"
    );
}

#[test]
fn in_rust_alone_it_goes_into_no_library() {
    let folder = Folder::new("operators-rust");
    let library = folder.0.join("own.so");
    let made = model().compile_library(&library, None, &in_rust());
    let error = made.expect_err("no C function").to_string();
    assert!(
        error.contains("the_Scale") && error.contains("hint"),
        "{error}"
    );
    assert!(!library.exists());
}

/// A panic, a wrong shape and a wrong type are errors of the run.
#[test]
fn faults_of_a_kernel_are_errors() {
    struct Bad(u8);
    impl Operator for Bad {
        fn domain(&self) -> &str {
            "com.example"
        }
        fn name(&self) -> &str {
            "Scale"
        }
        fn infer(&self, node: &OperatorNode<'_>) -> Result<OperatorTypes, String> {
            Scale.infer(node)
        }
        fn run(&self, call: &mut Call<'_>) -> Result<(), String> {
            match self.0 {
                0 => panic!("a defect"),
                1 => call.output::<f32>(0, &[7, 7, 7]).map(|_| ()),
                2 => call.output::<i64>(0, &[1, 1]).map(|_| ()),
                _ => Ok(()),
            }
        }
    }
    for (kind, text) in [(0, "panicked"), (1, "the_Scale"), (2, "output 0 is f32")] {
        let mut options = in_rust();
        options.operators.add(Bad(kind));
        let compiled = model().compile(&options).expect("it compiles");
        let error = compiled
            .run([("x", &input(2, 2))])
            .expect_err("a fault")
            .to_string();
        assert!(
            error.contains("the_Scale") && error.contains(text),
            "{kind}: {error}"
        );
    }
}

#[test]
fn in_c_in_memory_and_in_a_library() {
    let folder = Folder::new("operators-c");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = root.join("examples/operator/operators.c");
    let build = |arguments: &[&str], output: &Path| {
        let status = Command::new("cc")
            .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-fPIC"])
            .args(arguments)
            .arg("-I")
            .arg(root.join("runtime/include"))
            .arg("-o")
            .arg(output)
            .arg(&source)
            .status()
            .expect("a C compiler");
        assert!(status.success());
    };
    let shared = folder.0.join("liboperators.so");
    build(&["-shared"], &shared);
    let mut operators = Operators::default();
    assert_eq!(operators.load(&shared).expect("it loads"), 2);
    let mut options = Options {
        operators,
        ..Options::default()
    };
    let compiled = model().compile(&options).expect("it compiles");
    check(&compiled);
    let x = Tensor::from_slice(&[1, 2], &[1.0, f32::NAN]).expect("a tensor");
    let error = compiled
        .run([("x", &x)])
        .expect_err("not a number")
        .to_string();
    assert!(error.contains("element 1 is not a number"), "{error}");

    // The library carries the kernels: it runs without the operators' own.
    let object = folder.0.join("operators.o");
    build(&["-c"], &object);
    options.link = vec![object];
    let library = folder.0.join("own.so");
    model()
        .compile_library(&library, None, &options)
        .expect("it links");
    options.operators = Operators::default();
    check(&Compiled::open_library(&library, &options).expect("it opens"));
}
