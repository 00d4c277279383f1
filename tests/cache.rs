//! The cache of compiled models: whatever happens to its folder, results are right.

#[path = "common/cases.rs"]
mod cases;
#[path = "common/folder.rs"]
mod folder;

use cases::{all_right, digits, root, seven};
use folder::Folder;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lapidary::case::Case;
use lapidary::{Cache, Class, Model, Options, Tensor};

impl Folder {
    fn cache(&self) -> PathBuf {
        self.0.join("cache")
    }

    /// The files of a kind, with their numbers in the file system.
    fn files(&self, kind: &str) -> BTreeSet<(u64, PathBuf)> {
        use std::os::unix::fs::MetadataExt;
        let Ok(folder) = fs::read_dir(self.cache()) else {
            return BTreeSet::new();
        };
        folder
            .map(|file| file.expect("a file"))
            .filter(|file| file.path().extension().is_some_and(|e| e == kind))
            .filter_map(|file| Some((file.metadata().ok()?.ino(), file.path())))
            .collect()
    }
}

fn cached(folder: &Folder) -> Options {
    Options {
        cache: Some(Cache::new(folder.cache())),
        ..Options::default()
    }
}

fn run(options: &Options) -> Vec<Tensor> {
    let compiled = digits().compile(options).expect("it compiles");
    let mut context = compiled.context().expect("a context");
    context.run_tensors(&[seven()]).expect("it runs")
}

/// Images hold code of x86-64 alone; elsewhere nothing is stored.
fn stores() -> bool {
    cfg!(all(target_arch = "x86_64", target_os = "linux"))
}

#[test]
fn a_second_start_takes_what_the_first_has_stored() {
    let folder = Folder::new("cache-second");
    let expected = run(&Options::default());
    assert!(run(&cached(&folder)) == expected);
    let stored = folder.files("model");
    assert_eq!(stored.len(), usize::from(stores()));
    for _ in 0..3 {
        assert!(run(&cached(&folder)) == expected);
        assert_eq!(folder.files("model"), stored);
    }
    assert!(folder.files("tmp").is_empty());
}

#[test]
fn small_models_are_right_out_of_the_cache() {
    let folder = Folder::new("cache-models");
    for name in [
        "bert",
        "forest",
        "gpt2",
        "mobilenet",
        "resnet",
        "super_resolution",
    ] {
        let case = Case::open(&root().join("tests/models").join(name)).expect("the model opens");
        for _ in 0..2 {
            let compiled = case.model.compile(&cached(&folder)).expect("it compiles");
            all_right(&case, &compiled);
        }
    }
    assert_eq!(folder.files("model").len(), 6 * usize::from(stores()));
}

#[test]
fn other_options_and_other_bytes_are_other_entries() {
    let folder = Folder::new("cache-others");
    run(&cached(&folder));
    let mut fixed = cached(&folder);
    fixed.set_dim("pixels.0=1").expect("a dim");
    run(&fixed);
    let mut baseline = cached(&folder);
    baseline.cpu = lapidary::Cpu::Baseline;
    run(&baseline);
    assert_eq!(folder.files("model").len(), 3 * usize::from(stores()));
    // The same file with another weight.
    let path = folder.0.join("model.onnx");
    let mut bytes = fs::read(root().join("examples/digits/model.onnx")).expect("the model");
    fs::write(&path, &bytes).expect("a file");
    let outputs = |options: &Options| {
        let compiled = Model::load(&path).expect("it opens").compile(options);
        let mut context = compiled.expect("it compiles").context().expect("a context");
        context.run_tensors(&[seven()]).expect("it runs")
    };
    let before = outputs(&cached(&folder));
    let at = bytes.len() / 2;
    bytes[at] ^= 0x40;
    fs::write(&path, &bytes).expect("a file");
    let after = outputs(&cached(&folder));
    assert!(after == outputs(&Options::default()));
    assert!(before != after);
}

#[test]
fn damaged_entries_are_compiled_anew() {
    if !stores() {
        println!("skipped: nothing is stored on this machine");
        return;
    }
    let folder = Folder::new("cache-damaged");
    let expected = run(&cached(&folder));
    let (_, path) = folder.files("model").pop_first().expect("an entry");
    let whole = fs::read(&path).expect("an entry");
    let length = whole.len();
    let mut replaced = 0;
    let mut check = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).expect("an entry");
        assert!(run(&cached(&folder)) == expected, "{what}");
        replaced += usize::from(fs::read(&path).expect("an entry") != bytes);
    };
    let cuts = [
        0,
        1,
        7,
        8,
        100,
        4095,
        4096,
        4097,
        20_000,
        length / 2,
        length - 1,
    ];
    for cut in cuts {
        check(&whole[..cut.min(length)], &format!("cut at {cut}"));
    }
    let longer = [&whole[..], &[0]].concat();
    check(&longer, "one byte more");
    for step in 0..60 {
        let at = step * (length - 1) / 59;
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (step % 8);
        check(&flipped, &format!("bit {} of byte {at}", step % 8));
    }
    for at in (0..200).chain([4088, 4095, 4096, 5000, 6000, 65_536, length - 1]) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        check(&flipped, &format!("byte {at}"));
    }
    // Cut and headers for certain; padding may be flipped without harm.
    assert!(replaced >= cuts.len() + 150, "{replaced}");
    // Notes that are wrong say nothing.
    for kind in ["seen", "source"] {
        for (_, path) in folder.files(kind) {
            fs::write(path, "0123").expect("a note");
        }
        assert!(run(&cached(&folder)) == expected, "{kind}");
    }
}

#[test]
fn the_folder_is_kept_within_its_bound() {
    let folder = Folder::new("cache-bound");
    let mut options = cached(&folder);
    run(&options);
    let one: u64 = folder
        .files("model")
        .iter()
        .map(|(_, path)| fs::metadata(path).expect("an entry").len())
        .sum();
    let bound = one * 7 / 2;
    options.cache = Some(Cache {
        folder: folder.cache(),
        most_bytes: bound,
    });
    for batch in 1..9 {
        let mut options = options.clone();
        options
            .set_dim(&format!("pixels.0={batch}"))
            .expect("a dim");
        digits().compile(&options).expect("it compiles");
        let sizes = folder.files("model");
        let sizes = sizes
            .iter()
            .map(|(_, path)| fs::metadata(path).expect("an entry").len());
        assert!(sizes.sum::<u64>() <= bound);
    }
    assert!(folder.files("model").len() >= 2 * usize::from(stores()));
    // What is larger than the whole is not kept, and runs.
    options.cache = Some(Cache {
        folder: folder.0.join("tiny"),
        most_bytes: 1000,
    });
    assert!(run(&options) == run(&Options::default()));
    let left = fs::read_dir(folder.0.join("tiny")).expect("the folder");
    assert!(
        left.flatten()
            .all(|f| f.path().extension().is_none_or(|e| e != "model"))
    );
}

#[test]
fn a_folder_that_others_may_write_to_is_refused_and_one_that_cannot_be_made_costs_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("cache-folders");
    fs::create_dir(folder.cache()).expect("a folder");
    fs::set_permissions(folder.cache(), fs::Permissions::from_mode(0o777)).expect("a mode");
    let error = digits()
        .compile(&cached(&folder))
        .err()
        .expect("it is refused");
    assert_eq!(error.class(), Class::Usage, "{error}");
    // Only root can give a folder away.
    fs::set_permissions(folder.cache(), fs::Permissions::from_mode(0o755)).expect("a mode");
    if std::os::unix::fs::chown(folder.cache(), Some(12_345), None).is_ok() {
        let error = digits().compile(&cached(&folder)).err();
        assert_eq!(error.map(|e| e.class()), Some(Class::Usage));
    }
    let nameless = Options {
        cache: Some(Cache::new("")),
        ..Options::default()
    };
    let error = digits().compile(&nameless).err();
    assert_eq!(error.map(|e| e.class()), Some(Class::Usage));
    let file = folder.0.join("file");
    fs::write(&file, "").expect("a file");
    let options = Options {
        cache: Some(Cache::new(file.join("below"))),
        ..Options::default()
    };
    assert!(run(&options) == run(&Options::default()));
}

fn command(folder: &Folder) -> Child {
    Command::new(env!("CARGO_BIN_EXE_lapidary"))
        .arg("run")
        .arg(root().join("tests/models/mobilenet/model.onnx"))
        .args(["--input", "image=random", "--cache"])
        .arg(folder.cache())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts")
}

fn text(child: Child) -> String {
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn processes_at_once_and_processes_that_are_killed_leave_it_right() {
    let folder = Folder::new("cache-processes");
    let together: Vec<Child> = (0..4).map(|_| command(&folder)).collect();
    let texts: BTreeSet<String> = together.into_iter().map(text).collect();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert_eq!(folder.files("model").len(), usize::from(stores()));
    for round in 0..40u64 {
        if round % 4 == 0 {
            let _ = fs::remove_dir_all(folder.cache());
        }
        let mut child = command(&folder);
        std::thread::sleep(Duration::from_micros(500 + round * 1500 % 60_000));
        let _ = child.kill();
        let _ = child.wait();
        if round % 8 == 7 {
            assert_eq!(text(command(&folder)), *texts.first().expect("a text"));
        }
    }
    assert_eq!(text(command(&folder)), *texts.first().expect("a text"));
}

/// The other process is this one, which has the lock and puts the entry back while the child waits.
#[test]
fn who_finds_another_compiling_takes_what_that_has_stored() {
    if !stores() || !cfg!(target_os = "linux") {
        return;
    }
    let folder = Folder::new("turns");
    let expected = text(command(&folder));
    let (_, model) = folder.files("model").into_iter().next().expect("an entry");
    let kept = folder.cache().join("kept");
    fs::rename(&model, &kept).expect("it is moved");
    let lock = model.with_extension("lock");
    let file = fs::File::create(&lock).expect("the lock's file");
    file.lock().expect("it is free");
    let mut child = command(&folder);
    // It waits as soon as it has the file open: it found no entry before.
    let open = PathBuf::from(format!("/proc/{}/fd", child.id()));
    let waits = || {
        let fds = fs::read_dir(&open).into_iter().flatten().flatten();
        fds.filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|to| to.file_name() == lock.file_name())
    };
    while !waits() {
        assert!(
            child.try_wait().expect("the child").is_none(),
            "it did not wait"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    fs::rename(&kept, &model).expect("it is moved back");
    let before = folder.files("model");
    file.unlock().expect("it is locked");
    assert_eq!(text(child), expected);
    assert_eq!(folder.files("model"), before, "it compiled once more");
}
