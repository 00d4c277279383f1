//! Files that are cut short while they are mapped: an error for whoever uses them, and the process lives.

#[path = "common/folder.rs"]
mod folder;

use folder::Folder;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use lapidary::{Class, Compiled, Error, Model, Options, Tensor};
use lapidary_onnx::proto::tensor_shape_proto::{Dimension, dimension};
use lapidary_onnx::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use prost::Message;

const F32: i32 = 1;
const COUNT: usize = 1 << 18;

fn value(name: &str) -> ValueInfoProto {
    let dim = Dimension {
        value: Some(dimension::Value::DimValue(COUNT as i64)),
        ..Default::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: F32,
        shape: Some(TensorShapeProto { dim: vec![dim] }),
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

fn ones() -> Vec<u8> {
    1f32.to_le_bytes().repeat(COUNT)
}

/// `y = x + w` for a big `w` of ones, inside the file or in this one beside it.
fn model(folder: &Folder, beside: Option<&str>) -> PathBuf {
    let mut w = TensorProto {
        name: "w".into(),
        data_type: F32,
        dims: vec![COUNT as i64],
        ..Default::default()
    };
    match beside {
        None => w.raw_data = ones().into(),
        Some(name) => {
            std::fs::write(folder.file(name), ones()).expect("the data file");
            w.data_location = 1;
            w.external_data = vec![StringStringEntryProto {
                key: "location".into(),
                value: name.into(),
            }];
        }
    }
    let add = NodeProto {
        op_type: "Add".into(),
        name: "/add".into(),
        input: vec!["x".into(), "w".into()],
        output: vec!["y".into()],
        ..Default::default()
    };
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 17,
        }],
        graph: Some(GraphProto {
            name: "test".into(),
            node: vec![add],
            initializer: vec![w],
            input: vec![value("x")],
            output: vec![value("y")],
            ..Default::default()
        }),
        ..Default::default()
    };
    let path = folder.file("m.onnx");
    std::fs::write(&path, model.encode_to_vec()).expect("the model");
    path
}

fn cut(path: &Path, bytes: u64) {
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|file: File| file.set_len(bytes))
        .expect("its length is set");
}

fn x() -> Tensor {
    Tensor::zeros(lapidary::DType::F32, &[COUNT]).expect("memory")
}

fn names_the_file(error: &Error, path: &Path) {
    let text = error.to_string();
    assert_eq!(error.class(), Class::Invalid, "{text}");
    assert!(text.contains("file shrank while in use"), "{text}");
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    assert!(text.contains(&*name), "{text}");
}

/// Runs in another thread until a run fails, and cuts the file once one has succeeded.
fn runs_fail_when_cut(compiled: &Compiled, file: &Path, left: u64) {
    let (ran, has_run) = mpsc::channel();
    let mut context = compiled.context().expect("a context");
    let mut other = compiled.context().expect("another one");
    std::thread::scope(|scope| {
        let runs = scope.spawn(move || {
            loop {
                match context.run_tensors(&[x()]) {
                    Ok(outputs) => {
                        let bytes = outputs.first().map(|y| y.bytes().to_vec());
                        assert!(bytes == Some(ones()), "a result was made of zeros");
                        let _ = ran.send(());
                    }
                    Err(error) => return (error, context.run_tensors(&[x()]).err()),
                }
            }
        });
        has_run.recv().expect("a run succeeds");
        cut(file, left);
        let (first, second) = runs.join().expect("the thread lives");
        names_the_file(&first, file);
        names_the_file(&second.expect("the next run fails too"), file);
    });
    // Other contexts read the same mapping.
    let error = other.run_tensors(&[x()]).err();
    names_the_file(&error.expect("it fails elsewhere too"), file);
}

#[test]
fn a_model_that_shrinks_under_its_runs_is_an_error_of_the_runs() {
    for threads in [1, 4] {
        let folder = Folder::new(&format!("shrunk-inside-{threads}"));
        let path = model(&folder, None);
        let options = Options {
            threads,
            ..Options::default()
        };
        let compiled = Model::load(&path).and_then(|model| model.compile(&options));
        runs_fail_when_cut(&compiled.expect("it compiles"), &path, 5000);
    }
}

#[test]
fn a_data_file_that_shrinks_under_its_runs_is_an_error_of_the_runs() {
    let folder = Folder::new("shrunk-beside");
    let path = model(&folder, Some("data.bin"));
    let compiled = Model::load(&path).and_then(|model| model.compile(&Options::default()));
    let compiled = compiled.expect("it compiles");
    runs_fail_when_cut(&compiled, &folder.file("data.bin"), 0);
}

#[test]
fn a_weights_file_that_shrinks_under_its_runs_is_an_error_until_it_is_whole_again() {
    let folder = Folder::new("shrunk-weights");
    let path = model(&folder, None);
    let (library, weights) = (folder.file("libm.so"), folder.file("m.weights"));
    let model = Model::load(&path).expect("it loads");
    let made = model.compile_to(&library, Some(&weights), None, &Options::default());
    made.expect("it compiles");
    let whole = std::fs::read(&weights).expect("the weights");
    let open = || Compiled::open_library(&library, &Options::default());
    let compiled = open().expect("it opens");
    runs_fail_when_cut(&compiled, &weights, 4096);
    assert!(open().is_err(), "a file too short was taken");
    std::fs::write(&weights, whole).expect("the weights");
    let again = open().expect("it opens again");
    again.run([("x", &x())]).expect("it runs again");
}

/// Code in memory and a library have a runtime, and so a handler, each; the later one stands before the other.
#[test]
fn two_runtimes_in_one_process_guard_their_own_files() {
    for library_first in [true, false] {
        for library_dies_first in [true, false] {
            let folder = Folder::new(&format!("shrunk-two-{library_first}-{library_dies_first}"));
            let path = model(&folder, Some("data.bin"));
            let (library, weights) = (folder.file("libm.so"), folder.file("m.weights"));
            let options = Options::default();
            {
                let made = Model::load(&path).expect("it loads");
                let made = made.compile_to(&library, Some(&weights), None, &options);
                made.expect("it compiles");
            }
            let opened = || Compiled::open_library(&library, &options).expect("it opens");
            let in_memory = || {
                let compiled = Model::load(&path).and_then(|model| model.compile(&options));
                compiled.expect("it compiles")
            };
            let context = |compiled: &Compiled| compiled.context().expect("a context");
            let (from_file, from_memory) = if library_first {
                let library = opened();
                (context(&library), context(&in_memory()))
            } else {
                let memory = context(&in_memory());
                (context(&opened()), memory)
            };
            let data = folder.file("data.bin");
            let mut order = [(from_file, &weights), (from_memory, &data)];
            if !library_dies_first {
                order.reverse();
            }
            let [(mut first, first_file), (mut second, second_file)] = order;
            for context in [&mut first, &mut second] {
                context.run_tensors(&[x()]).expect("it runs");
            }
            cut(first_file, 4096);
            names_the_file(
                &first.run_tensors(&[x()]).expect_err("it is lost"),
                first_file,
            );
            drop(first);
            // The other's file is whole, and guarded still.
            second.run_tensors(&[x()]).expect("it runs");
            cut(second_file, 4096);
            names_the_file(
                &second.run_tensors(&[x()]).expect_err("it is lost"),
                second_file,
            );
        }
    }
}

#[test]
fn a_file_that_was_short_while_it_was_read_is_an_error_even_if_it_grew_again() {
    let folder = Folder::new("shrunk-grew");
    let path = model(&folder, Some("data.bin"));
    let data = folder.file("data.bin");
    let model = Model::load(&path).expect("it loads");
    model.check(&Options::default()).expect("it is sound");
    let tensor = &model.file().graph().initializer[0];
    let view = model.file().tensor_data(tensor).expect("its data");
    cut(&data, 4096);
    let tensor = lapidary::files::tensor_of_view(&view).expect("zeros are data");
    assert_eq!(tensor.bytes().last(), Some(&0));
    cut(&data, 4 * COUNT as u64);
    let error = model.compile(&Options::default()).err();
    names_the_file(&error.expect("it cannot be trusted"), &data);
    // Loaded again it is another file.
    let model = Model::load(&path).expect("it loads");
    model.compile(&Options::default()).expect("it compiles");
}

#[test]
fn a_file_that_cannot_be_written_leaves_all_older_ones() {
    let folder = Folder::new("shrunk-older");
    let path = model(&folder, None);
    let model = Model::load(&path).expect("it loads");
    let (library, weights) = (folder.file("libm.so"), folder.file("m.weights"));
    // A folder that is not there, and a folder where the header should go.
    let taken = folder.file("taken.h");
    std::fs::create_dir(&taken).expect("a folder");
    std::fs::write(taken.join("in the way"), "").expect("a file");
    for header in [folder.file("missing/m.h"), taken] {
        for older in [true, false] {
            for file in [&library, &weights] {
                let _ = std::fs::remove_file(file);
                if older {
                    std::fs::write(file, "older").expect("an older file");
                }
            }
            let options = Options::default();
            let made = model.compile_to(&library, Some(&weights), Some(&header), &options);
            let error = made.expect_err("the header cannot be written").to_string();
            assert!(error.contains(&*header.to_string_lossy()), "{error}");
            for file in [&library, &weights] {
                let text = std::fs::read_to_string(file).ok();
                assert_eq!(text.as_deref(), older.then_some("older"));
            }
            let left = std::fs::read_dir(&folder.0).expect("the folder").count();
            assert_eq!(
                left,
                2 + 2 * usize::from(older),
                "something was left behind"
            );
        }
    }
    // And the header stands with the others when the library is what cannot be replaced.
    let header = folder.file("m.h");
    std::fs::write(&header, "older").expect("an older file");
    let _ = std::fs::remove_file(&library);
    std::fs::create_dir_all(library.join("in the way")).expect("a folder");
    let made = model.compile_to(&library, Some(&weights), Some(&header), &Options::default());
    assert!(made.is_err());
    let text = std::fs::read_to_string(&header).ok();
    assert_eq!(text.as_deref(), Some("older"));
    assert!(!weights.exists());
}
