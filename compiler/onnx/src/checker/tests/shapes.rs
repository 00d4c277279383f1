//! Shapes and axes: what follows from the rows of the table, and each kind of fault. A case is an operator, its inputs as
//! shapes (`?` for a size that is not known, `none` for a rank that is not, `=` before the elements of a list that is
//! known, `-` for an input that is absent) and its attributes.

use super::*;
use crate::proto::TensorShapeProto;
use crate::proto::tensor_shape_proto::{Dimension, dimension};

/// A model of one node at a version of ONNX's operators.
fn one_node(
    op: &str,
    version: i64,
    inputs: &[&str],
    attributes: Vec<AttributeProto>,
    outputs: usize,
) -> ModelProto {
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("x{i}")).collect();
    let made: Vec<String> = (0..outputs).map(|i| format!("y{i}")).collect();
    let mut main = graph(&[], Vec::new(), &[]);
    let mut given = Vec::new();
    for (name, text) in names.iter().zip(inputs) {
        given.push(if *text == "-" {
            String::new()
        } else {
            name.clone()
        });
        if let Some(list) = text.strip_prefix('=') {
            let elements: Vec<i64> = numbers(list).into_iter().flatten().collect();
            main.initializer.push(TensorProto {
                name: name.clone(),
                data_type: 7,
                dims: vec![elements.len() as i64],
                int64_data: elements,
                ..TensorProto::default()
            });
        } else if *text != "-" {
            main.input.push(shaped(name, text));
        }
    }
    main.output = made.iter().map(|name| value(name)).collect();
    main.node = vec![NodeProto {
        name: "n".into(),
        op_type: op.into(),
        input: given,
        output: made,
        attribute: attributes,
        ..NodeProto::default()
    }];
    ModelProto {
        opset_import: vec![opset("", version)],
        ..model(main)
    }
}

fn numbers(text: &str) -> Vec<Option<i64>> {
    text.split_ascii_whitespace()
        .map(|size| size.parse().ok())
        .collect()
}

fn shaped(name: &str, text: &str) -> ValueInfoProto {
    let mut info = value(name);
    if text != "none"
        && let Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..
        }) = &mut info.r#type
    {
        let dim = numbers(text).into_iter().map(|size| Dimension {
            value: size.map(dimension::Value::DimValue),
            ..Dimension::default()
        });
        tensor.shape = Some(TensorShapeProto { dim: dim.collect() });
    }
    info
}

fn text_attribute(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        s: Bytes::copy_from_slice(value.as_bytes()),
        ..attribute(name, AttributeType::String)
    }
}

/// The shapes of a model's outputs, and its faults about shapes.
fn inferred(model: &ModelProto) -> Result<Vec<String>, String> {
    let file = ModelFile::from_bytes(Bytes::from(model.encode_to_vec()), None).unwrap();
    // Types are not what these cases are about.
    let faults = check(&file).err().unwrap_or_default();
    let mut faults = faults.iter();
    if let Some(fault) = faults.find(|f| f.hint.ends_with("does not take that")) {
        return Err(fault.message.clone());
    }
    let shapes = super::super::shapes(&file);
    let outputs = model.graph.as_ref().unwrap().output.iter();
    Ok(outputs
        .map(
            |output| match shapes.iter().find(|(name, _)| *name == output.name) {
                None => "none".to_string(),
                Some((_, shape)) => {
                    let sizes = shape.iter().map(|size| match size {
                        Some(size) => size.to_string(),
                        None => "?".to_string(),
                    });
                    sizes.collect::<Vec<_>>().join(" ")
                }
            },
        )
        .collect())
}

/// A case with the shapes of its outputs.
type Case<'c> = (
    &'c str,
    i64,
    &'c [&'c str],
    Vec<AttributeProto>,
    &'c [&'c str],
);

#[test]
fn shapes_follow_from_the_rows() {
    let group = |n| int("group", n);
    let cases: Vec<Case<'_>> = vec![
        ("Relu", 14, &["2 ? 4"], vec![], &["2 ? 4"]),
        ("Relu", 14, &["none"], vec![], &["none"]),
        ("Add", 14, &["2 1 4", "3 1"], vec![], &["2 3 4"]),
        ("Add", 14, &["? 4", "1 ?"], vec![], &["? 4"]),
        ("Add", 14, &["none", "3"], vec![], &["none"]),
        ("Add", 6, &["2 3", "3"], vec![int("broadcast", 1)], &["2 3"]),
        ("Sum", 13, &["3 1", "1 2", "1"], vec![], &["3 2"]),
        ("MatMul", 13, &["5 1 2 3", "4 3 6"], vec![], &["5 4 2 6"]),
        ("MatMul", 13, &["3", "3"], vec![], &[""]),
        (
            "Gemm",
            13,
            &["3 2", "4 3"],
            vec![int("transA", 1), int("transB", 1)],
            &["2 4"],
        ),
        (
            "ReduceSum",
            13,
            &["2 3 4", "=-1 0"],
            vec![int("keepdims", 0)],
            &["3"],
        ),
        ("ReduceSum", 13, &["2 3"], vec![], &["1 1"]),
        (
            "ReduceSum",
            13,
            &["2 3"],
            vec![int("noop_with_empty_axes", 1)],
            &["2 3"],
        ),
        (
            "ReduceSum",
            13,
            &["2 3 4", "2"],
            vec![int("keepdims", 0)],
            &["?"],
        ),
        ("ArgMax", 13, &["2 3"], vec![int("axis", -1)], &["2 1"]),
        (
            "Concat",
            13,
            &["2 3", "2 ?", "? 4"],
            vec![int("axis", 1)],
            &["2 ?"],
        ),
        (
            "Concat",
            13,
            &["2 3", "5 3"],
            vec![int("axis", -2)],
            &["7 3"],
        ),
        (
            "Split",
            18,
            &["7 2"],
            vec![int("num_outputs", 2)],
            &["4 2", "3 2"],
        ),
        ("Split", 13, &["7 2", "=5 2"], vec![], &["5 2", "2 2"]),
        (
            "Slice",
            13,
            &["10 4", "=8", "=-11", "=0", "=-3"],
            vec![],
            &["3 4"],
        ),
        ("Slice", 13, &["10 4", "1", "1", "=1"], vec![], &["10 ?"]),
        ("Pad", 18, &["2 3", "=1 2", "-", "=-1"], vec![], &["2 6"]),
        ("Transpose", 13, &["2 3 4"], vec![], &["4 3 2"]),
        (
            "Transpose",
            13,
            &["2 3 4"],
            vec![ints("perm", &[1, 0, 2])],
            &["3 2 4"],
        ),
        ("Reshape", 14, &["2 3 4", "=0 -1"], vec![], &["2 12"]),
        ("Reshape", 14, &["2 ? 4", "=0 -1"], vec![], &["2 ?"]),
        ("Reshape", 14, &["none", "3"], vec![], &["? ? ?"]),
        ("Expand", 13, &["3 1", "=2 1 6"], vec![], &["2 3 6"]),
        ("Tile", 13, &["2 3", "=2 4"], vec![], &["4 12"]),
        ("Flatten", 13, &["2 3 4"], vec![int("axis", 3)], &["24 1"]),
        ("Squeeze", 13, &["1 3 1", "=-1"], vec![], &["1 3"]),
        ("Squeeze", 13, &["1 3 1"], vec![], &["3"]),
        ("Squeeze", 13, &["1 ? 1"], vec![], &["none"]),
        ("Unsqueeze", 13, &["3 4", "=0 -1"], vec![], &["1 3 4 1"]),
        (
            "Gather",
            13,
            &["2 3 4", "5 6"],
            vec![int("axis", 1)],
            &["2 5 6 4"],
        ),
        (
            "GatherND",
            13,
            &["2 3 4", "2 1"],
            vec![int("batch_dims", 1)],
            &["2 4"],
        ),
        (
            "OneHot",
            11,
            &["2 3", "=5", "2"],
            vec![int("axis", 0)],
            &["5 2 3"],
        ),
        ("Shape", 15, &["2 3 4"], vec![int("start", -2)], &["2"]),
        (
            "Conv",
            11,
            &["1 4 9 9", "8 2 3 3"],
            vec![group(2), ints("strides", &[2, 2])],
            &["1 8 4 4"],
        ),
        (
            "Conv",
            11,
            &["1 4 ? 9", "8 4 3 3"],
            vec![text_attribute("auto_pad", "SAME_UPPER")],
            &["1 8 ? 9"],
        ),
        (
            "MaxPool",
            12,
            &["1 2 7"],
            vec![
                ints("kernel_shape", &[2]),
                ints("strides", &[3]),
                int("ceil_mode", 1),
            ],
            &["1 2 3", "1 2 3"],
        ),
        (
            "ConvTranspose",
            11,
            &["1 4 3", "4 5 3"],
            vec![ints("strides", &[2])],
            &["1 5 7"],
        ),
        ("GlobalAveragePool", 1, &["2 3 5 6"], vec![], &["2 3 1 1"]),
        (
            "LayerNormalization",
            17,
            &["2 3 4", "3 4"],
            vec![int("axis", 1)],
            &["2 3 4", "2 1 1"],
        ),
        (
            "LSTM",
            14,
            &["5 2 3", "1 16 3", "1 16 4"],
            vec![int("hidden_size", 4)],
            &["5 1 2 4", "1 2 4", "1 2 4"],
        ),
        (
            "LSTM",
            14,
            &["2 5 3", "1 16 3", "1 16 4"],
            vec![int("layout", 1)],
            &["2 5 1 4", "2 1 4"],
        ),
        ("TopK", 11, &["2 9", "=4"], vec![], &["2 4", "2 4"]),
        ("NonZero", 13, &["2 3 4"], vec![], &["3 ?"]),
        ("Compress", 11, &["2 3", "3"], vec![], &["?"]),
        (
            "Compress",
            11,
            &["2 3", "3"],
            vec![int("axis", 1)],
            &["2 ?"],
        ),
        (
            "DepthToSpace",
            13,
            &["1 8 2 3"],
            vec![int("blocksize", 2)],
            &["1 2 4 6"],
        ),
        (
            "Einsum",
            12,
            &["2 3 4", "2 4 5"],
            vec![text_attribute("equation", "bij, bjk -> bik")],
            &["2 3 5"],
        ),
        (
            "Resize",
            18,
            &["1 3 4 5", "-", "-", "=8 10"],
            vec![ints("axes", &[2, 3])],
            &["1 3 8 10"],
        ),
        ("DFT", 17, &["2 10 1"], vec![int("onesided", 1)], &["2 6 2"]),
        (
            "STFT",
            17,
            &["1 128 1", "=8", "-", "=16"],
            vec![],
            &["1 15 9 2"],
        ),
        (
            "Attention",
            23,
            &["2 8 3 4", "2 2 6 4", "2 2 6 5"],
            vec![],
            &["2 8 3 5"],
        ),
        (
            "NegativeLogLikelihoodLoss",
            13,
            &["3 5 2", "3 2"],
            vec![text_attribute("reduction", "none")],
            &["3 2"],
        ),
    ];
    for (op, version, inputs, attributes, expected) in cases {
        let model = one_node(op, version, inputs, attributes, expected.len());
        let found = inferred(&model);
        let expected: Vec<String> = expected.iter().map(|text| (*text).to_string()).collect();
        assert_eq!(found, Ok(expected), "{op} {version} {inputs:?}");
    }
}

/// A case with what its fault says.
type FaultCase<'c> = (&'c str, i64, &'c [&'c str], Vec<AttributeProto>, &'c str);

#[test]
fn what_contradicts_a_row_is_a_fault() {
    let cases: Vec<FaultCase<'_>> = vec![
        (
            "Softmax",
            13,
            &["2 3"],
            vec![int("axis", 2)],
            "attribute 'axis' is 2, expected -2 to 1 for rank 2",
        ),
        (
            "Flatten",
            13,
            &["2 3"],
            vec![int("axis", 3)],
            "attribute 'axis' is 3, expected -2 to 2 for rank 2",
        ),
        (
            "Transpose",
            13,
            &["2 3"],
            vec![ints("perm", &[0, -1])],
            "attribute 'perm' is a list with -1, expected 0 to 1 for rank 2",
        ),
        (
            "Transpose",
            13,
            &["2 3"],
            vec![ints("perm", &[0])],
            "attribute 'perm' is a list of 1 axes, expected 2",
        ),
        (
            "Transpose",
            13,
            &["2 3"],
            vec![ints("perm", &[1, 1])],
            "attribute 'perm' is a list in which axis 1 stands twice, expected each axis once",
        ),
        (
            "Unsqueeze",
            13,
            &["2 3", "=0 -4"],
            vec![],
            "input 1 ('axes') is a list in which axis 0 stands twice, expected each axis once",
        ),
        (
            "OneHot",
            11,
            &["2 3", "=5", "2"],
            vec![int("axis", 3)],
            "attribute 'axis' is 3, expected -3 to 2 for rank 3",
        ),
        (
            "Squeeze",
            13,
            &["2 1", "=0"],
            vec![],
            "dimension 0 of input 0 ('data') is 2, expected 1, to be squeezed",
        ),
        (
            "Gather",
            13,
            &["", "2"],
            vec![],
            "attribute 'axis' is 0, expected no axis: the rank is 0",
        ),
        (
            "Add",
            14,
            &["2 3", "4"],
            vec![],
            "input 1 ('B') is of shape [4], expected one that broadcasts with [2, 3]",
        ),
        (
            "MatMul",
            13,
            &["2 3", "4 5"],
            vec![],
            "input 1 ('B') is of shape [4, 5], expected one that [2, 3] can be multiplied with",
        ),
        (
            "MatMul",
            13,
            &["", "4 5"],
            vec![],
            "input 0 ('A') is a scalar, expected rank 1 or more",
        ),
        (
            "Gemm",
            13,
            &["2 3", "4 5"],
            vec![],
            "dimension 0 of input 1 ('B') is 4, expected 3 as dimension 1 of input 0 ('A')",
        ),
        (
            "Gemm",
            13,
            &["3", "3 5"],
            vec![],
            "input 0 ('A') is of rank 1, expected rank 2",
        ),
        (
            "Conv",
            11,
            &["1 4 9 9", "8 3 3 3"],
            vec![],
            "dimension 1 of input 0 ('X') is 4, expected 3",
        ),
        (
            "Conv",
            11,
            &["1 4 9 9", "8 4 3"],
            vec![],
            "input 1 ('W') is of rank 3, expected rank 4",
        ),
        (
            "Conv",
            11,
            &["1 4 9", "8 4 3"],
            vec![ints("strides", &[1, 1])],
            "attribute 'strides' is a list of 2 numbers, expected 1",
        ),
        (
            "MaxPool",
            12,
            &["1 4 9"],
            vec![ints("kernel_shape", &[0])],
            "attribute 'kernel_shape' is a list with 0, expected 1 or more",
        ),
        (
            "MaxPool",
            12,
            &["4 9"],
            vec![ints("kernel_shape", &[2])],
            "input 0 ('X') is of rank 2, expected rank 3 or more",
        ),
        (
            "Concat",
            13,
            &["2 3", "2"],
            vec![int("axis", 0)],
            "input 1 ('inputs') is of rank 1, expected rank 2",
        ),
        (
            "Concat",
            13,
            &["2 3", "2 4"],
            vec![int("axis", 0)],
            "dimension 1 of input 1 ('inputs') is [4], expected [3]",
        ),
        (
            "Reshape",
            14,
            &["2 3", "=4 -1"],
            vec![],
            "input 1 is a shape with 4 elements beside -1, expected a divisor of 6, the number of elements",
        ),
        (
            "Reshape",
            14,
            &["2 3", "=5"],
            vec![],
            "input 1 is a shape of 5 elements, expected 6",
        ),
        (
            "Reshape",
            14,
            &["2 3", "=1 1 0"],
            vec![],
            "input 1 is a shape that copies axis 2, expected one of the 2 that are there",
        ),
        (
            "Split",
            13,
            &["7 2", "=6"],
            vec![],
            "'split' is a list with the sum 6, expected 7, the size of axis 0",
        ),
        (
            "Pad",
            13,
            &["2 3", "=1 2"],
            vec![],
            "'pads' is a list of 2 numbers, expected 4, two for each axis",
        ),
        (
            "Slice",
            13,
            &["9", "=0", "=5", "=0", "=0"],
            vec![],
            "'steps' is a list with 0, expected other numbers",
        ),
        (
            "Tile",
            13,
            &["2 3", "=2"],
            vec![],
            "input 1 ('repeats') is a list of 1 numbers, expected 2",
        ),
        (
            "GatherND",
            13,
            &["2 3", "4 3"],
            vec![],
            "input 1 ('indices') is a list of indices into 3 axes, expected at most 2 with 0 batch axes",
        ),
        (
            "LSTM",
            14,
            &["5 2 3", "1 16 3", "1 12 4"],
            vec![],
            "dimension 1 of input 2 ('R') is 12, expected 16",
        ),
        (
            "Einsum",
            12,
            &["2 3", "4"],
            vec![text_attribute("equation", "ij,jk->ik")],
            "input 1 ('Inputs') is of rank 1, expected rank 2 for 'jk'",
        ),
        (
            "Det",
            11,
            &["2 3 4"],
            vec![],
            "dimension 2 of input 0 ('X') is 4, expected 3 as dimension 1 of input 0 ('X')",
        ),
    ];
    let mut differ = Vec::new();
    for (op, version, inputs, attributes, expected) in cases {
        let found = inferred(&one_node(op, version, inputs, attributes, 1));
        if found != Err(expected.to_string()) {
            differ.push(format!(
                "{op} {version} {inputs:?}: {found:?}, expected {expected}"
            ));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn statements_about_inner_values_count_under_full_rules_alone() {
    let stated = |text: &str| {
        let mut model = one_node("Relu", 14, &["2 3"], vec![], 1);
        let graph = model.graph.as_mut().unwrap();
        graph.output = vec![shaped("y0", text)];
        model
    };
    let faults = |model: &ModelProto, full: bool, freed: bool| {
        let file = ModelFile::from_bytes(Bytes::from(model.encode_to_vec()), None).unwrap();
        let rules = super::super::Rules {
            full,
            freed,
            ..Default::default()
        };
        let faults = super::super::check_by(&file, &rules)
            .err()
            .unwrap_or_default();
        faults.into_iter().map(|f| f.message).collect::<Vec<_>>()
    };
    let stale = stated("2 4");
    assert_eq!(faults(&stale, false, false), [""; 0]);
    assert_eq!(
        faults(&stale, true, false),
        ["'y0' has the shape [2, 3], but is declared as [2, 4]"]
    );
    assert_eq!(faults(&stale, true, true), [""; 0]);
    assert_eq!(faults(&stated("2 ?"), true, false), [""; 0]);
}

#[test]
fn sizes_of_inputs_do_not_count_where_the_caller_gives_others() {
    let model = one_node("Add", 14, &["2 3", "2 4"], vec![], 1);
    let file = ModelFile::from_bytes(Bytes::from(model.encode_to_vec()), None).unwrap();
    assert!(check(&file).is_err());
    let freed = super::super::Rules {
        freed: true,
        ..Default::default()
    };
    assert_eq!(super::super::check_by(&file, &freed), Ok(()));
}

#[test]
fn a_branch_that_may_never_run_is_judged_under_full_rules_alone() {
    let bad = || {
        graph(
            &[],
            vec![NodeProto {
                attribute: vec![int("axis", 7)],
                ..node("Softmax", &["x"], &["z"])
            }],
            &["z"],
        )
    };
    let branches = NodeProto {
        attribute: vec![
            branch("then_branch", bad()),
            branch(
                "else_branch",
                graph(&[], vec![node("Neg", &["x"], &["w"])], &["w"]),
            ),
        ],
        ..node("If", &["c"], &["y"])
    };
    let mut main = graph(&[], vec![branches], &[]);
    main.input = vec![shaped("x", "2 3"), shaped("c", "")];
    main.output = vec![shaped("y", "2 3")];
    let model = model(main);
    let file = ModelFile::from_bytes(Bytes::from(model.encode_to_vec()), None).unwrap();
    assert_eq!(check(&file), Ok(()));
    let full = super::super::Rules {
        full: true,
        ..Default::default()
    };
    let faults = super::super::check_by(&file, &full).unwrap_err();
    let found: Vec<&str> = faults.iter().map(|f| f.message.as_str()).collect();
    assert_eq!(
        found,
        ["attribute 'axis' is 7, expected -2 to 1 for rank 2"]
    );
}
