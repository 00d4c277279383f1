//! Models, data files and value files on disk: sound ones are read without copies, all others end in an error.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lapidary_onnx::checker::check;
use lapidary_onnx::proto::tensor_proto::DataLocation;
use lapidary_onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, OptionalProto,
    SequenceProto, StringStringEntryProto, TensorProto, TypeProto, type_proto,
};
use lapidary_onnx::{
    DataType, ModelFile, OnnxError, read_optional_file, read_sequence_file, read_tensor_file,
    tensor_view, write_optional_file, write_sequence_file, write_tensor_file,
};
use prost::Message;

/// A folder of its own for a test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path =
            std::env::temp_dir().join(format!("lapidary-onnx-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn model(initializer: Vec<TensorProto>) -> ModelProto {
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 17,
        }],
        graph: Some(GraphProto {
            name: "main".into(),
            node: vec![NodeProto {
                op_type: "Identity".into(),
                input: vec!["w".into()],
                output: vec!["y".into()],
                ..NodeProto::default()
            }],
            output: vec![lapidary_onnx::proto::ValueInfoProto {
                name: "y".into(),
                ..Default::default()
            }],
            initializer,
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
}

fn raw(bytes: &[u8]) -> TensorProto {
    TensorProto {
        name: "w".into(),
        data_type: DataType::Uint8.to_wire(),
        dims: vec![bytes.len() as i64],
        raw_data: Bytes::copy_from_slice(bytes),
        ..TensorProto::default()
    }
}

/// A tensor of three bytes in a file.
fn external(entries: &[(&str, &str)]) -> TensorProto {
    TensorProto {
        name: "w".into(),
        data_type: DataType::Uint8.to_wire(),
        dims: vec![3],
        data_location: DataLocation::External as i32,
        external_data: entries
            .iter()
            .map(|(key, value)| StringStringEntryProto {
                key: (*key).into(),
                value: (*value).into(),
            })
            .collect(),
        ..TensorProto::default()
    }
}

#[test]
fn raw_data_is_a_view_of_the_file() {
    let folder = Folder::new("raw");
    let payload: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let encoded = Bytes::from(model(vec![raw(&payload)]).encode_to_vec());
    let range = encoded.as_ptr_range();

    let file = ModelFile::from_bytes(encoded.clone(), None).unwrap();
    let view = file.tensor_data(&file.graph().initializer[0]).unwrap();
    assert_eq!(&view.bytes[..], &payload[..]);
    assert!(range.contains(&view.bytes.as_ptr()));

    let file = ModelFile::open(folder.write("m.onnx", &encoded)).unwrap();
    let view = file.tensor_data(&file.graph().initializer[0]).unwrap();
    file.verify_unchanged().unwrap();
    assert_eq!(check(&file), Ok(()));
    drop(file);
    assert_eq!(&view.bytes[..], &payload[..]);
}

#[test]
fn external_data_is_mapped_once_and_sliced() {
    let folder = Folder::new("external");
    folder.write("weights.bin", &[9, 1, 2, 3, 4, 5]);
    folder.write("deep/other.bin", &[7, 8, 9]);
    let tensors = vec![
        external(&[
            ("location", "weights.bin"),
            ("offset", "1"),
            ("length", "3"),
        ]),
        external(&[
            ("location", "./weights.bin"),
            ("offset", "2"),
            ("checksum", "x"),
        ]),
        external(&[("location", "deep/other.bin")]),
    ];
    let encoded = model(tensors).encode_to_vec();
    let path = folder.write("m.onnx", &encoded);
    let in_memory = ModelFile::from_bytes(encoded.into(), Some(&folder.0)).unwrap();
    for file in [ModelFile::open(&path).unwrap(), in_memory] {
        let views: Vec<_> = file
            .graph()
            .initializer
            .iter()
            .map(|tensor| file.tensor_data(tensor).unwrap())
            .collect();
        assert_eq!(&views[0].bytes[..], [1, 2, 3]);
        assert_eq!(&views[1].bytes[..], [2, 3, 4]);
        assert_eq!(&views[2].bytes[..], [7, 8, 9]);
        assert_eq!(
            views[0].bytes.as_ptr().wrapping_add(1),
            views[1].bytes.as_ptr()
        );
        file.verify_unchanged().unwrap();
    }
}

#[test]
fn a_file_cut_short_in_use_is_noticed_and_a_replaced_one_does_no_harm() {
    let folder = Folder::new("changed");
    let data = folder.write("w.bin", &[1; 5000]);
    let path = folder.write(
        "m.onnx",
        &model(vec![external(&[("location", "w.bin")])]).encode_to_vec(),
    );
    let file = ModelFile::open(&path).unwrap();
    let view = file.tensor_data(&file.graph().initializer[0]).unwrap();

    fs::rename(folder.write("new.bin", &[2; 10]), &data).unwrap();
    file.verify_unchanged().unwrap();
    assert_eq!(&view.bytes[..], [1, 1, 1]);

    let length = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(length + 1)
        .unwrap();
    let error = file.verify_unchanged().unwrap_err();
    assert!(
        matches!(error, OnnxError::Changed { expected, found, .. } if expected == length && found == length + 1)
    );
}

#[test]
fn bad_external_data_is_refused_with_tensor_and_file() {
    let folder = Folder::new("refused");
    let outside = Folder::new("outside");
    outside.write("secret", &[1, 2, 3]);
    folder.write("w.bin", &[1, 2, 3, 4]);
    fs::create_dir_all(folder.0.join("folder")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&outside.0, folder.0.join("link")).unwrap();
    let absolute = outside.0.join("secret").display().to_string();
    let cases: Vec<(Vec<(&str, &str)>, &str)> = vec![
        (vec![], "no location is given"),
        (vec![("location", "none.bin")], "not found in"),
        (vec![("location", "folder")], "not a regular file"),
        (
            vec![("location", "../w.bin")],
            "it leaves the model's folder",
        ),
        (
            vec![("location", "folder/../w.bin")],
            "it leaves the model's folder",
        ),
        (
            vec![("location", &absolute)],
            "it leaves the model's folder",
        ),
        #[cfg(unix)]
        (
            vec![("location", "link/secret")],
            "it leaves the model's folder",
        ),
        (
            vec![("location", "w.bin"), ("offset", "-1")],
            "offset is '-1', expected a number of bytes",
        ),
        (
            vec![("location", "w.bin"), ("length", "many")],
            "length is 'many', expected a number of bytes",
        ),
        (
            vec![("location", "w.bin"), ("length", "4")],
            "length is 4 bytes, but UINT8 of dimensions [3] takes 3",
        ),
        (
            vec![("location", "w.bin"), ("offset", "2")],
            "too short: the tensor takes 3 bytes from offset 2, the file has 4 bytes",
        ),
        (
            vec![("location", "w.bin"), ("offset", "18446744073709551615")],
            "too short: the tensor takes 3 bytes from offset 18446744073709551615",
        ),
        (
            vec![("location", "w.bin"), ("location", "w.bin")],
            "the key 'location' is given twice",
        ),
        (vec![("location", "nul\0byte")], ""),
    ];
    for (entries, expected) in cases {
        let path = folder.write("m.onnx", &model(vec![external(&entries)]).encode_to_vec());
        let file = ModelFile::open(&path).unwrap();
        let error = file.tensor_data(&file.graph().initializer[0]).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("tensor 'w', external data '"), "{text}");
        assert!(text.contains(expected), "{text}");
        assert_eq!(
            check(&file).unwrap_err()[0].place,
            "graph 'main' / initializer 'w'"
        );
    }

    let alone = model(vec![external(&[("location", "w.bin")])]).encode_to_vec();
    let file = ModelFile::from_bytes(alone.into(), None).unwrap();
    let error = file.tensor_data(&file.graph().initializer[0]).unwrap_err();
    assert!(error.to_string().contains("without a folder"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_cache_of_links_is_followed() {
    // snapshots/m.onnx → ../blobs/1, snapshots/w.bin → ../blobs/2
    let folder = Folder::new("cache");
    let encoded = model(vec![external(&[("location", "w.bin")])]).encode_to_vec();
    folder.write("blobs/1", &encoded);
    folder.write("blobs/2", &[1, 2, 3]);
    fs::create_dir_all(folder.0.join("snapshots")).unwrap();
    let model = folder.0.join("snapshots/m.onnx");
    std::os::unix::fs::symlink("../blobs/1", &model).unwrap();
    std::os::unix::fs::symlink("../blobs/2", folder.0.join("snapshots/w.bin")).unwrap();
    let file = ModelFile::open(&model).unwrap();
    let view = file.tensor_data(&file.graph().initializer[0]).unwrap();
    assert_eq!(&view.bytes[..], [1, 2, 3]);
}

#[test]
fn files_that_are_no_models_are_told_apart() {
    let folder = Folder::new("nomodel");
    let open = |path: &Path| ModelFile::open(path).unwrap_err();
    let cases: Vec<(&[u8], &str)> = vec![
        (b"", "is empty (0 bytes)"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "git lfs pull",
        ),
        (b"<html>Not found</html>", "error page"),
        (b"PK\x03\x04....", "zip archive"),
        (b"\x08\x08", "holds no graph"),
        (b"\x3a\xff\xff\xff\xff\x7f", "is not an ONNX model"),
    ];
    for (bytes, expected) in cases {
        let text = open(&folder.write("m.onnx", bytes)).to_string();
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("m.onnx"), "{text}");
    }
    assert!(matches!(open(&folder.0), OnnxError::NotAFile { .. }));
    assert!(matches!(open(&folder.0.join("none")), OnnxError::Io { .. }));
}

#[test]
fn values_come_back_from_their_files() {
    let folder = Folder::new("values");
    let path = folder.0.join("v.pb");

    let tensor = raw(&[1, 2, 3]);
    write_tensor_file(&path, &tensor).unwrap();
    let found = read_tensor_file(&path).unwrap();
    assert_eq!(found, tensor);
    assert_eq!(&tensor_view(&found).unwrap().bytes[..], [1, 2, 3]);

    let sequence = SequenceProto {
        elem_type: 1,
        tensor_values: vec![tensor.clone(), raw(&[])],
        ..SequenceProto::default()
    };
    write_sequence_file(&path, &sequence).unwrap();
    assert_eq!(read_sequence_file(&path).unwrap(), sequence);

    for tensor_value in [Some(tensor), None] {
        let optional = OptionalProto {
            tensor_value,
            ..OptionalProto::default()
        };
        write_optional_file(&path, &optional).unwrap();
        assert_eq!(read_optional_file(&path).unwrap(), optional);
    }

    folder.write("v.pb", b"");
    assert!(matches!(
        read_tensor_file(&path),
        Err(OnnxError::Empty { .. })
    ));
    folder.write("v.pb", b"\xff\xff");
    assert!(matches!(
        read_tensor_file(&path),
        Err(OnnxError::Decode { .. })
    ));
}

/// A fixed sequence of numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize
    }
}

/// A model with something of everything.
fn rich_model() -> Vec<u8> {
    let inner = model(vec![raw(&[4, 5])]).graph;
    let mut model = model(vec![
        raw(&[1, 2, 3]),
        external(&[("location", "w.bin"), ("offset", "1")]),
        TensorProto {
            name: "f".into(),
            data_type: DataType::Float.to_wire(),
            dims: vec![2],
            float_data: vec![1.0, 2.0],
            ..TensorProto::default()
        },
    ]);
    if let Some(graph) = &mut model.graph {
        graph.node.push(NodeProto {
            op_type: "If".into(),
            input: vec!["y".into()],
            output: vec!["z".into()],
            attribute: vec![AttributeProto {
                name: "then_branch".into(),
                r#type: 5,
                g: inner,
                ..AttributeProto::default()
            }],
            ..NodeProto::default()
        });
    }
    model.encode_to_vec()
}

/// Reads all there is to read; whether it succeeds does not matter.
fn read_all(bytes: Vec<u8>) {
    if let Ok(file) = ModelFile::from_bytes(bytes.into(), None) {
        let _ = check(&file);
        for tensor in &file.graph().initializer {
            if let Ok(view) = file.tensor_data(tensor) {
                let bits = view.elements() * view.dtype.bits();
                assert_eq!(view.bytes.len(), bits.div_ceil(8));
            }
        }
    }
}

#[test]
fn damaged_models_never_panic() {
    let whole = rich_model();
    for end in 0..whole.len() {
        read_all(whole[..end].to_vec());
    }
    let mut numbers = Numbers(1);
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..=numbers.next() % 4 {
            let at = numbers.next() % bytes.len();
            bytes[at] = numbers.next() as u8;
        }
        read_all(bytes);
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut numbers = Numbers(2);
    for _ in 0..20_000 {
        let length = numbers.next() % 200;
        let bytes: Vec<u8> = (0..length).map(|_| numbers.next() as u8).collect();
        read_all(bytes.clone());
        // The same as the contents of a graph.
        let mut graph = vec![0x3a];
        prost::encoding::encode_varint(bytes.len() as u64, &mut graph);
        graph.extend(&bytes);
        read_all(graph);
        let _ = TensorProto::decode(&bytes[..]).map(|tensor| tensor_view(&tensor));
    }
}

#[test]
fn deep_nesting_is_an_error_not_a_stack_overflow() {
    let mut nested = TypeProto::default().encode_to_vec();
    for _ in 0..2_000 {
        // TypeProto { sequence_type (4): Sequence { elem_type (1): … } }
        let mut sequence = vec![0x0a];
        prost::encoding::encode_varint(nested.len() as u64, &mut sequence);
        sequence.extend(&nested);
        nested = vec![0x22];
        prost::encoding::encode_varint(sequence.len() as u64, &mut nested);
        nested.extend(&sequence);
    }
    let mut value = vec![0x12];
    prost::encoding::encode_varint(nested.len() as u64, &mut value);
    value.extend(&nested);
    let mut graph = vec![0x5a];
    prost::encoding::encode_varint(value.len() as u64, &mut graph);
    graph.extend(&value);
    let mut model = vec![0x3a];
    prost::encoding::encode_varint(graph.len() as u64, &mut model);
    model.extend(&graph);
    let error = ModelFile::from_bytes(model.into(), None).unwrap_err();
    assert!(matches!(error, OnnxError::Decode { .. }), "{error}");

    // As deep as the decoder goes, everything else goes too.
    let mut inner = GraphProto::default();
    for _ in 0..30 {
        inner = GraphProto {
            node: vec![NodeProto {
                attribute: vec![AttributeProto {
                    g: Some(inner),
                    r#type: 5,
                    ..AttributeProto::default()
                }],
                ..NodeProto::default()
            }],
            input: vec![lapidary_onnx::proto::ValueInfoProto {
                r#type: Some(TypeProto {
                    value: Some(type_proto::Value::OpaqueType(type_proto::Opaque::default())),
                    ..TypeProto::default()
                }),
                ..Default::default()
            }],
            ..GraphProto::default()
        };
    }
    let model = ModelProto {
        graph: Some(inner),
        ..ModelProto::default()
    };
    let file = ModelFile::from_bytes(model.encode_to_vec().into(), None).unwrap();
    assert!(check(&file).is_err());
}
