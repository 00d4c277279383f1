//! Operators of the application, in Rust and in C, in memory and in compiled libraries, alone and between fused nodes.

#[path = "common/folder.rs"]
mod folder;

use std::path::{Path, PathBuf};
use std::process::Command;

use folder::Folder;
use lapidary::operator::{
    Call, GraphDType, Operator, OperatorNode, OperatorOutput, OperatorTypes, Operators,
};
use lapidary::{Compiled, Model, Options, Tensor};
use lapidary_onnx::proto::*;
use prost::Message;

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
                3 => Ok(()),
                4 => {
                    let first = call.output::<f32>(0, &[2, 2])?;
                    let second = call.output::<f32>(0, &[2, 2])?;
                    first.zip(second).map(|_| ()).ok_or("unread".into())
                }
                // The failure is not passed on.
                _ => call.output::<f32>(0, &[3]).map(|_| ()).or(Ok(())),
            }
        }
    }
    for (kind, text) in [
        (0, "panicked"),
        (1, "the_Scale"),
        (2, "output 0 is f32"),
        (3, "output 0 was not made"),
        (4, "output 0 is made a second time"),
        (5, "not the one that was planned"),
    ] {
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

/// Compiles C operators.
fn build(source: &Path, arguments: &[&str], output: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let status = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-fPIC"])
        .args(arguments)
        .arg("-I")
        .arg(root.join("runtime/include"))
        .arg("-o")
        .arg(output)
        .arg(source)
        .status()
        .expect("a C compiler");
    assert!(status.success());
}

#[test]
fn in_c_in_memory_and_in_a_library() {
    let folder = Folder::new("operators-c");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = root.join("examples/operator/operators.c");
    let build = |arguments: &[&str], output: &Path| build(&source, arguments, output);
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
    let archive = folder.0.join("own.a");
    let made = model().compile_library(&archive, None, &options);
    let error = made.expect_err("nothing is linked there").to_string();
    assert!(error.contains(".so") && !archive.exists(), "{error}");
    let library = folder.0.join("own.so");
    model()
        .compile_library(&library, None, &options)
        .expect("it links");
    options.operators = Operators::default();
    check(&Compiled::open_library(&library, &options).expect("it opens"));
}

/// An operator `NAME`: `x + ADDED`.
const ADD: &str = r#"
#include "lapidary_operator.h"
static int32_t infer(const lapidary_operator_node *node, lapidary_operator_types *types) {
    lapidary_operator_like(node, &types->outputs[0], 0);
    return 0;
}
static int32_t run(
    lapidary_kernel_context *context, const lapidary_kernel_tensor *const *in, int32_t n_in,
    lapidary_kernel_tensor *const *out, int32_t n_out, const lapidary_kernel_attributes *attributes, int32_t node) {
    (void)n_in, (void)n_out, (void)attributes;
    int32_t code = lapidary_output_alloc(context, out[0], in[0]->rank, in[0]->dims, node);
    if (code) return code;
    float *y = out[0]->data;
    const float *x = in[0]->data;
    int64_t n = 1;
    for (int32_t i = 0; i < in[0]->rank; i++) n *= in[0]->dims[i];
    for (int64_t i = 0; i < n; i++) y[i] = x[i] + ADDED;
    return 0;
}
static const lapidary_operator own = {sizeof own, LAPIDARY_OPERATOR_VERSION, "com.example", NAME, infer, run, SYMBOL};
const lapidary_operator *const lapidary_operators[] = {&own, NULL};
"#;

#[test]
fn in_memory_operators_need_no_link_name_and_may_share_one() {
    let folder = Folder::new("operators-symbols");
    let source = folder.0.join("add.c");
    std::fs::write(&source, ADD).expect("the source");
    let built = |file: &str, name: &str, added: i32, symbol: &str| {
        let library = folder.0.join(file);
        let name = format!("-DNAME=\"{name}\"");
        let (added, symbol) = (format!("-DADDED={added}"), format!("-DSYMBOL={symbol}"));
        build(&source, &["-shared", &name, &added, &symbol], &library);
        library
    };
    let x = input(1, 3);
    let run = |libraries: &[PathBuf]| {
        let mut options = Options::default();
        for library in libraries {
            options.operators.load(library).expect("it loads");
        }
        let nodes = vec![
            node("Scale", "com.example", "x", "s"),
            node("Positive", "com.example", "s", "y"),
        ];
        let model = model_of(nodes, value("y", &["n", "m"]));
        let compiled = model.compile(&options).expect("it compiles");
        let outputs = compiled.run([("x", &x)]).expect("it runs");
        let y = outputs[0].tensor.as_slice::<f32>().expect("floats");
        let file = folder.0.join("own.so");
        let made = model.compile_library(&file, None, &options);
        (y[0], made.expect_err("nothing is linked").to_string())
    };
    for (symbol, text) in [
        ("\"compute\"", "compute"),
        ("NULL", "hint: set its `symbol`"),
        ("\"a b\"", "a C identifier"),
        ("\"lap_lib_top_k\"", "a name of the runtime's"),
    ] {
        let number = text.len();
        let first = built(&format!("first{number}.so"), "Scale", 1, symbol);
        let second = built(&format!("second{number}.so"), "Positive", 20, symbol);
        let (y, error) = run(&[first, second]);
        assert_eq!(y, -1.0 + 21.0, "{symbol}");
        assert!(error.contains(text), "{symbol}: {error}");
    }
}

/// `Repeat(none, x) -> words`: each string of `words` as often as `times` says.
const REPEAT: &str = r#"
#include "lapidary_operator.h"
static int32_t infer(const lapidary_operator_node *node, lapidary_operator_types *types) {
    if (node->n_inputs != 2 || node->inputs[0].present || node->inputs[1].rank != 2 || node->inputs[1].dims[0] != -1)
        return lapidary_operator_refuse(types, "inputs are not as the model has them");
    if (strcmp(node->name, "the_Repeat") != 0 || node->opset != 1) return lapidary_operator_refuse(types, "name, opset");
    const lapidary_operator_attribute *words = lapidary_operator_find(node, "words");
    const lapidary_operator_attribute *times = lapidary_operator_find(node, "times");
    const lapidary_operator_attribute *end = lapidary_operator_find(node, "end");
    if (!words || words->type != 8 || !times || times->type != 7 || words->n != times->n || !end || end->type != 3)
        return lapidary_operator_refuse(types, "attributes are not as the model has them");
    for (int64_t i = 0; i < words->n; i++) {
        types->strings[types->n_strings++] = words->strings[i];
        types->ints[types->n_ints++] = times->ints[i];
    }
    types->strings[types->n_strings++] = end->strings[0];
    types->outputs[0].dtype = LAPIDARY_STRING;
    types->outputs[0].rank = 1;
    types->outputs[0].dims[0].value = words->n;
    return 0;
}
LAPIDARY_EXPORT int32_t own_repeat(
    lapidary_kernel_context *context, const lapidary_kernel_tensor *const *in, int32_t n_in,
    lapidary_kernel_tensor *const *out, int32_t n_out, const lapidary_kernel_attributes *attributes, int32_t node) {
    if (n_in != 2 || in[0] || !in[1] || n_out != 1) return lapidary_kernel_fail(context, node, "operands", 0, 0);
    int64_t n = attributes->n_ints, bytes = 0, at = 0;
    const lapidary_kernel_string *end = &attributes->strings[n];
    for (int64_t i = 0; i < n; i++) bytes += attributes->ints[i] * attributes->strings[i].bytes + end->bytes;
    int32_t code = lapidary_output_alloc_strings(context, out[0], 1, &n, bytes, node);
    if (code) return code;
    lapidary_strings *made = out[0]->data;
    int64_t *offsets = (int64_t *)(void *)(uintptr_t)made->offsets;
    char *text = (char *)(uintptr_t)made->bytes;
    for (int64_t i = 0; i <= n; i++) {
        offsets[i] = at;
        if (i == n) break;
        const lapidary_kernel_string *word = &attributes->strings[i];
        for (int64_t k = 0; k < attributes->ints[i]; k++, at += word->bytes)
            memcpy(text + at, word->data, (size_t)word->bytes);
        memcpy(text + at, end->data, (size_t)end->bytes);
        at += end->bytes;
    }
    return 0;
}
static const lapidary_operator own = {
    sizeof own, LAPIDARY_OPERATOR_VERSION, "com.example", "Repeat", infer, own_repeat, "own_repeat"};
const lapidary_operator *const lapidary_operators[] = {&own, NULL};
"#;

/// `Lengths(words) -> y`: how long each string is.
struct Lengths;
impl Operator for Lengths {
    fn domain(&self) -> &str {
        "com.example"
    }
    fn name(&self) -> &str {
        "Lengths"
    }
    fn infer(&self, node: &OperatorNode<'_>) -> Result<OperatorTypes, String> {
        let words = node.inputs.first().copied().flatten().ok_or("no input")?;
        let mut output = OperatorOutput::like(words);
        output.dtype = GraphDType::I64;
        Ok(OperatorTypes {
            outputs: vec![output],
            ..OperatorTypes::default()
        })
    }
    fn run(&self, call: &mut Call<'_>) -> Result<(), String> {
        if call.slice::<f32>(0).is_ok() || call.input_strings(1).is_some() {
            return Err("strings are numbers, or an input too many".into());
        }
        let (shape, words) = call.input_strings(0).ok_or("no input")??;
        if words != ["aé!", "!", "cccc!"] {
            return Err(format!("found {words:?}"));
        }
        if let Some(y) = call.output::<i64>(0, &shape)? {
            y.iter_mut()
                .zip(words)
                .for_each(|(y, word)| *y = word.len() as i64);
        }
        Ok(())
    }
}

/// A model of one input `x` and one output.
fn model_of(node: Vec<NodeProto>, output: ValueInfoProto) -> Model {
    let graph = GraphProto {
        name: "own".into(),
        node,
        input: vec![value("x", &["n", "m"])],
        output: vec![output],
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

#[test]
fn attributes_strings_and_absent_inputs_reach_an_operator_in_c() {
    let folder = Folder::new("operators-strings");
    let (source, shared) = (folder.0.join("repeat.c"), folder.0.join("librepeat.so"));
    std::fs::write(&source, REPEAT).expect("the source");
    build(&source, &["-shared"], &shared);
    let mut repeat = node("Repeat", "com.example", "", "words");
    repeat.input = vec![String::new(), "x".into()];
    let attribute = |name: &str, r#type| AttributeProto {
        name: name.into(),
        r#type,
        ..Default::default()
    };
    repeat.attribute = vec![
        AttributeProto {
            strings: ["aé", "b", "c"]
                .map(|s| s.as_bytes().to_vec().into())
                .into(),
            ..attribute("words", 8)
        },
        AttributeProto {
            ints: vec![1, 0, 4],
            ..attribute("times", 7)
        },
        AttributeProto {
            s: b"!".to_vec().into(),
            ..attribute("end", 3)
        },
    ];
    let lengths = node("Lengths", "com.example", "words", "y");
    let mut y = value("y", &["k"]);
    if let Some(type_proto::Value::TensorType(t)) = y.r#type.as_mut().and_then(|t| t.value.as_mut())
    {
        t.elem_type = 7;
    }
    let mut options = Options::default();
    options.operators.load(&shared).expect("it loads");
    options.operators.add(Lengths);
    let compiled = model_of(vec![repeat, lengths], y).compile(&options);
    let compiled = compiled.expect("it compiles");
    let outputs = compiled.run([("x", &input(2, 2))]).expect("it runs");
    let y = outputs[0].tensor.as_slice::<i64>().expect("integers");
    assert_eq!(y, [4, 1, 5]);
}

#[test]
fn a_library_without_operators_is_refused_by_name() {
    let folder = Folder::new("operators-none");
    let (source, shared) = (folder.0.join("none.c"), folder.0.join("libnone.so"));
    std::fs::write(&source, "int nothing;\n").expect("the source");
    build(&source, &["-shared"], &shared);
    for path in [&shared, &folder.0.join("missing.so")] {
        let error = Operators::default().load(path).expect_err("no operators");
        let name = path.file_name().expect("a name").to_string_lossy();
        assert!(error.to_string().contains(&*name), "{error}");
    }
}
