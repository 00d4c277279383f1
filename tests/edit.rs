//! Edited models: what they are afterwards, and that they compute what they did.

#[path = "common/cases.rs"]
mod cases;
#[path = "common/folder.rs"]
mod folder;

use cases::{digits, seven};
use folder::Folder;

use lapidary::edit::{Edit, edit};
use lapidary::{Class, Error, Model, Options, Tensor};
use lapidary_onnx::proto::StringStringEntryProto;
use lapidary_onnx::proto::tensor_proto::DataLocation;
use prost::Message;

fn run(model: &Model, inputs: &[Tensor]) -> Vec<Tensor> {
    let compiled = model.compile(&Options::default()).expect("it compiles");
    let mut context = compiled.context().expect("a context");
    context.run_tensors(inputs).expect("it runs")
}

fn changes(rename: &[&str], dims: &[&str], from: &[&str], to: &[&str]) -> Edit {
    let mut changes = Edit {
        from: from.iter().map(|s| s.to_string()).collect(),
        to: to.iter().map(|s| s.to_string()).collect(),
        ..Edit::default()
    };
    rename
        .iter()
        .for_each(|s| changes.set_name(s).expect("a name"));
    dims.iter().for_each(|s| changes.set_dim(s).expect("a dim"));
    changes
}

fn usage(error: Error, part: &str) {
    assert_eq!(error.class(), Class::Usage, "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

#[test]
fn renamed_edges_compute_the_same() {
    let folder = Folder::new("edit-rename");
    let (model, path) = (digits(), folder.file("renamed.onnx"));
    let changes = changes(&["pixels=image", "probabilities=scores"], &[], &[], &[]);
    edit(&model, &changes, &path).expect("it is written");
    let edited = Model::load(&path).expect("it opens");
    assert_eq!(edited.input_names(), ["image"]);
    assert_eq!(edited.output_names(), ["scores"]);
    assert!(run(&edited, &[seven()]) == run(&model, &[seven()]));
}

#[test]
fn fixed_dims_reach_the_outputs() {
    let folder = Folder::new("edit-dims");
    let (model, fixed, freed) = (
        digits(),
        folder.file("fixed.onnx"),
        folder.file("freed.onnx"),
    );
    edit(&model, &changes(&[], &["pixels.0=3"], &[], &[]), &fixed).expect("it is written");
    let three = Model::load(&fixed).expect("it opens");
    let sizes = |model: &Model| -> Vec<Option<usize>> {
        let outputs = model.outputs();
        let dims = outputs[0].dims.as_ref().expect("a shape");
        dims.iter().map(|d| d.value).collect()
    };
    assert_eq!(sizes(&three), [Some(3), Some(10)]);
    edit(&three, &changes(&[], &["pixels.0=batch"], &[], &[]), &freed).expect("it is written");
    let free = Model::load(&freed).expect("it opens");
    assert_eq!(sizes(&free), [None, Some(10)]);
    assert_eq!(
        free.inputs()[0].dims.as_ref().expect("a shape")[0]
            .name
            .as_deref(),
        Some("batch")
    );
    assert!(run(&free, &[seven()]) == run(&model, &[seven()]));
}

#[test]
fn two_parts_one_behind_the_other_are_the_whole() {
    let folder = Folder::new("edit-cut");
    let (model, first, second) = (
        digits(),
        folder.file("first.onnx"),
        folder.file("second.onnx"),
    );
    let nodes = &model.file().graph().node;
    let middle = nodes[nodes.len() / 2].output[0].clone();
    edit(&model, &changes(&[], &[], &[], &[&middle]), &first).expect("it is written");
    edit(&model, &changes(&[], &[], &[&middle], &[]), &second).expect("it is written");
    let (first, second) = (Model::load(&first), Model::load(&second));
    let (first, second) = (first.expect("it opens"), second.expect("it opens"));
    assert!(first.output_names() == std::slice::from_ref(&middle));
    assert_eq!(second.input_names(), [middle]);
    let all = first.file().graph().node.len() + second.file().graph().node.len();
    assert_eq!(all, nodes.len());
    let between = run(&first, &[seven()]);
    let close = |a: &Tensor, b: &Tensor| {
        let (a, b) = (a.as_slice::<f32>(), b.as_slice::<f32>());
        let (a, b) = (a.expect("f32"), b.expect("f32"));
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-6)
    };
    // The parts fuse other groups than the whole.
    assert!(close(
        &run(&second, &between)[0],
        &run(&model, &[seven()])[0]
    ));
}

#[test]
fn what_cannot_be_is_refused_with_what_there_is() {
    let folder = Folder::new("edit-refused");
    let (model, path) = (digits(), folder.file("never.onnx"));
    let refused = |rename: &[&str], dims: &[&str], from: &[&str], to: &[&str], part: &str| {
        let error = edit(&model, &changes(rename, dims, from, to), &path);
        usage(error.expect_err(part), part);
        assert!(!path.exists(), "{part}");
    };
    refused(&["pixel=x"], &[], &[], &[], "pixels");
    refused(&["pixels=probabilities"], &[], &[], &[], "another value");
    refused(&[], &["pixels.9=1"], &[], &[], "pixels.0");
    refused(&[], &[], &["nowhere"], &[], "no value 'nowhere'");
    refused(&[], &[], &["probabilities"], &["probabilities"], "at once");
    refused(&[], &[], &["probabilities"], &["pixels"], "needs");
}

/// The digits model with its weights in a file beside it.
fn with_weights_outside(folder: &Folder) -> Model {
    let mut proto = digits().file().model().clone();
    let mut weights = Vec::new();
    let graph = proto.graph.as_mut().expect("a graph");
    for tensor in graph
        .initializer
        .iter_mut()
        .filter(|t| !t.raw_data.is_empty())
    {
        let entry = |key: &str, value: String| StringStringEntryProto {
            key: key.into(),
            value,
        };
        tensor.external_data = vec![
            entry("location", "weights.bin".into()),
            entry("offset", weights.len().to_string()),
            entry("length", tensor.raw_data.len().to_string()),
        ];
        tensor.data_location = DataLocation::External as i32;
        weights.extend_from_slice(&tensor.raw_data);
        tensor.raw_data.clear();
    }
    assert!(
        weights.len() > 4096,
        "the model keeps its weights as raw bytes"
    );
    std::fs::write(folder.file("weights.bin"), weights).expect("it is written");
    std::fs::write(folder.file("model.onnx"), proto.encode_to_vec()).expect("it is written");
    Model::load(folder.file("model.onnx")).expect("it opens")
}

#[test]
fn weights_outside_stay_in_their_folder_and_go_along_to_another() {
    let (folder, other) = (
        Folder::new("edit-outside"),
        Folder::new("edit-outside-other"),
    );
    let (model, changes) = (
        with_weights_outside(&folder),
        changes(&["pixels=image"], &[], &[], &[]),
    );
    let expected = run(&digits(), &[seven()]);
    let same = folder.file("edited.onnx");
    let written = edit(&model, &changes, &same).expect("it is written");
    assert!(written == std::slice::from_ref(&same));
    assert!(run(&Model::load(&same).expect("it opens"), &[seven()]) == expected);
    let moved = other.file("edited.onnx");
    let written = edit(&model, &changes, &moved).expect("it is written");
    assert_eq!(written, [moved.clone(), other.file("edited.onnx.data")]);
    drop(folder);
    assert!(run(&Model::load(&moved).expect("it opens"), &[seven()]) == expected);
}

#[test]
fn where_the_model_cannot_be_written_no_weights_are_left() {
    let (folder, other) = (
        Folder::new("edit-unwritable"),
        Folder::new("edit-unwritable-other"),
    );
    let model = with_weights_outside(&folder);
    let target = other.file("taken.onnx");
    std::fs::create_dir_all(target.join("in the way")).expect("a folder");
    let changes = changes(&["pixels=image"], &[], &[], &[]);
    edit(&model, &changes, &target).expect_err("a folder is in the way");
    let left = std::fs::read_dir(&other.0).expect("it is there").count();
    assert_eq!(left, 1, "the folder alone");
}
