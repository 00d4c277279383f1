//! The pages that the command writes: well-formed, complete, safe for any name, and drawn by a browser.
//!
//! The test with a browser says `skipped: no chromium` where there is none; `LAPIDARY_NEEDS_CHROMIUM=1` makes that a
//! failure.

#[path = "common/folder.rs"]
mod folder;

use folder::Folder;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use lapidary_onnx::proto::*;
use prost::Message;
use serde_json::Value;

const DIGITS: &str = "examples/digits";
const QUICK: [&str; 2] = ["--seconds", "0.01"];

fn lapidary(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lapidary"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the command starts")
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let output = lapidary(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {message}");
    String::from_utf8(output.stdout).expect("output is text")
}

#[track_caller]
fn is_wrong_usage(arguments: &[&str], text: &str) {
    let output = lapidary(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    assert!(message.contains(text), "{arguments:?}: {message}");
}

/// Names that would be markup if they were not escaped.
const HOSTILE: &str = "</title><script>alert('1')</script>&\"\u{1}";

/// `y = relu(relu(x))`, with such names.
fn hostile_model() -> Vec<u8> {
    let dim = |value| tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimValue(value)),
        ..Default::default()
    };
    let info = |name: String| ValueInfoProto {
        name,
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: 1,
                shape: Some(TensorShapeProto {
                    dim: vec![dim(2), dim(3)],
                }),
            })),
            ..Default::default()
        }),
        ..Default::default()
    };
    let node = |kind: &str, input: &str, output: &str| NodeProto {
        name: format!("{kind} {HOSTILE}"),
        op_type: kind.into(),
        input: vec![input.into()],
        output: vec![output.into()],
        ..Default::default()
    };
    let (x, y) = (format!("x {HOSTILE}"), format!("y {HOSTILE}"));
    ModelProto {
        ir_version: 9,
        opset_import: vec![OperatorSetIdProto {
            version: 20,
            ..Default::default()
        }],
        graph: Some(GraphProto {
            name: HOSTILE.into(),
            node: vec![node("Softmax", &x, "m"), node("Relu", "m", &y)],
            input: vec![info(x)],
            output: vec![info(y)],
            ..Default::default()
        }),
        ..Default::default()
    }
    .encode_to_vec()
}

/// Checks that every tag is closed in order, every attribute quoted, every `&` an entity, and every anchor there;
/// and that nothing would be fetched or run.
#[track_caller]
fn is_sound(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a page");
    while let Some(at) = rest.find('<') {
        assert!(!rest[..at].contains('>'), "a bare '>' near {:.60}", rest);
        entities(&rest[..at]);
        let end = rest[at..].find('>').expect("a tag ends") + at;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closed in order");
            continue;
        }
        let empty = tag.ends_with('/');
        let tag = tag.trim_end_matches('/');
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(
            name.chars().all(|c| c.is_ascii_alphanumeric()),
            "a tag: {tag}"
        );
        assert!(
            name != "script" && name != "link" && name != "img",
            "nothing to fetch or run"
        );
        let quotes = attributes.matches('"').count();
        assert!(
            quotes % 2 == 0 && quotes / 2 >= attributes.matches("=\"").count(),
            "{tag}"
        );
        entities(attributes);
        if name == "style" {
            let end = rest.find("</style>").expect("a style ends");
            assert!(!rest[..end].contains("url(") && !rest[..end].contains("@import"));
            rest = &rest[end..];
        }
        if !empty {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
    assert!(
        !page
            .chars()
            .any(|c| c.is_control() && c != '\n' && c != '\t')
    );
    assert!(
        !page.contains("NaN") && !page.contains("inf\""),
        "numbers are numbers"
    );
    for place in page.split("href=\"#").skip(1) {
        let anchor = place.split('"').next().unwrap_or("");
        assert!(
            page.contains(&format!("id=\"{anchor}\"")),
            "#{anchor} leads nowhere"
        );
    }
}

#[track_caller]
fn entities(text: &str) {
    for after in text.split('&').skip(1) {
        let name = after.split(';').next().unwrap_or("");
        let known = ["amp", "lt", "gt", "quot", "#39"];
        assert!(known.contains(&name), "an entity: &{name:.20}");
    }
}

#[test]
fn a_graph_is_drawn_before_and_after_the_passes_with_names_and_shapes() {
    let model = format!("{DIGITS}/model.onnx");
    let page = succeeds(&["show", &model, "--format", "html", "--times"]);
    is_sound(&page);
    for part in [
        "id=\"before\"",
        "id=\"after\"",
        "/3/Conv",
        "f32[",
        "class=\"box heavy\"",
        " ms  ",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(page.matches("<svg class=\"graph\"").count(), 2);
}

#[test]
fn repeated_blocks_are_drawn_once_unless_all_are_asked_for() {
    let model = "tests/models/bert/model.onnx";
    let folded = succeeds(&["show", model, "--format", "html"]);
    let all = succeeds(&["show", model, "--format", "html", "--unfold"]);
    is_sound(&folded);
    is_sound(&all);
    assert!(folded.contains("more the same") && !all.contains("more the same"));
    let boxes = |page: &str| page.matches("class=\"box ").count();
    assert!(boxes(&folded) < boxes(&all));
}

#[test]
fn bodies_of_regions_are_drawn_too() {
    let model = "tests/control_flow/nested/model.onnx";
    let page = succeeds(&["show", model, "--format", "html"]);
    is_sound(&page);
    assert!(page.contains("Body 1 of"));
}

#[test]
fn names_that_look_like_markup_stay_text() {
    let folder = Folder::new("hostile");
    let model = folder.path("model.onnx");
    std::fs::write(&model, hostile_model()).expect("a file");
    let page = succeeds(&["show", &model, "--format", "html", "--times"]);
    is_sound(&page);
    assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;&quot;\u{FFFD}"));
    let (html, json) = (folder.path("r.html"), folder.path("r.json"));
    succeeds(
        &[
            &["bench", &model, "--report", &html, "--report", &json],
            &QUICK[..],
        ]
        .concat(),
    );
    is_sound(&std::fs::read_to_string(&html).expect("a page"));
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("data")).expect("JSON");
    let node = report["entries"][0]["layers"][0]["node"].as_str();
    assert!(node.is_some_and(|node| node.contains("<script>")));
}

#[test]
fn a_report_tells_of_variants_layers_roofs_and_the_machine() {
    let folder = Folder::new("report");
    let (html, json) = (folder.path("r.html"), folder.path("r.json"));
    let vary = [
        "--vary",
        "mode=jit,aot",
        "--vary",
        "skip=cse",
        "--vary",
        "threads=1,2",
    ];
    let call = [
        &["bench", DIGITS, "--report", &html, "--report", &json],
        &vary[..],
        &QUICK[..],
    ];
    succeeds(&call.concat());
    let page = std::fs::read_to_string(&html).expect("a page");
    is_sound(&page);
    for part in [
        "lapidary aot without cse",
        "Roofline",
        "GB/s",
        "class=\"curve\"",
        "/3/Conv",
        "while measuring",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("data")).expect("JSON");
    let entries = report["entries"].as_array().expect("entries");
    let names: Vec<&str> = entries.iter().filter_map(|e| e["name"].as_str()).collect();
    let four = [
        "lapidary jit",
        "lapidary jit without cse",
        "lapidary aot",
        "lapidary aot without cse",
    ];
    assert_eq!(names, [four, four].concat());
    for entry in entries {
        assert!(entry["max_abs_error"].as_f64().is_some_and(|e| e < 1e-5));
        assert!(entry["cold_ms"].as_f64().is_some_and(|ms| ms > 0.0));
        assert_eq!(entry["rounds_ms"].as_array().map(Vec::len), Some(12));
        let quantiles = entry["quantiles_ms"].as_array().expect("quantiles");
        let quantiles: Vec<f64> = quantiles.iter().filter_map(Value::as_f64).collect();
        assert!(quantiles.len() == 101 && quantiles.is_sorted());
    }
    // The first convolution reads 8x8 pixels and writes 16 (or 32) such: its operations and bytes are known.
    let layers = entries[0]["layers"].as_array().expect("layers");
    let conv = layers
        .iter()
        .find(|l| l["node"].as_str().is_some_and(|n| n.contains("Conv")));
    let conv = conv.expect("a convolution");
    assert!(conv["operations"].as_f64().is_some_and(|n| n > 1000.0));
    assert!(conv["bytes"].as_f64().is_some_and(|n| n > 256.0));
    assert!(
        report["peaks"][0]["memory_gb_per_s"]
            .as_f64()
            .is_some_and(|rate| rate > 0.1)
    );
    assert!(report["system"]["processors"].is_string());
}

#[test]
fn shapes_vary_within_a_call_and_programs_are_measured_as_processes() {
    let model = format!("{DIGITS}/model.onnx");
    let input = lapidary::Model::load(Path::new(env!("CARGO_MANIFEST_DIR")).join(&model));
    let input = input.expect("the model loads").inputs()[0].name.clone();
    let vary = format!("dim.{input}.0=1,3");
    let program = env!("CARGO_BIN_EXE_lapidary");
    let line = format!("'{program}' show {{model}} --stage onnx");
    let call = [
        "bench",
        DIGITS,
        "--format",
        "json",
        "--vary",
        &vary,
        "--against-command",
        &line,
    ];
    let text = succeeds(&[&call[..], &QUICK[..]].concat());
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let entries = report["entries"].as_array().expect("entries");
    let names: Vec<&str> = entries.iter().filter_map(|e| e["name"].as_str()).collect();
    let of = |n: usize| {
        [
            format!("lapidary {input}.0={n}"),
            format!("process lapidary {input}.0={n}"),
        ]
    };
    assert_eq!(names, [of(1), of(3)].concat());
    let flops = |at: usize| {
        entries[at]["gflops"]
            .as_f64()
            .zip(entries[at]["p50_ms"].as_f64())
    };
    let ratio = flops(2)
        .map(|(g, ms)| g * ms)
        .zip(flops(0).map(|(g, ms)| g * ms));
    assert!(ratio.is_some_and(|(three, one)| (three / one - 3.0).abs() < 1e-6));
    assert_eq!(entries[1]["kind"], "process");

    let failing = format!("'{program}' show no-such-file");
    let output = lapidary(&[
        "bench",
        DIGITS,
        "--seconds",
        "0.01",
        "--against-command",
        &failing,
    ]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("there is no 'no-such-file'"), "{message}");
}

#[test]
fn a_run_is_compared_with_a_saved_one() {
    let folder = Folder::new("compare");
    let json = folder.path("old.json");
    succeeds(&[&["bench", DIGITS, "--report", &json], &QUICK[..]].concat());
    let mut saved: Value =
        serde_json::from_slice(&std::fs::read(&json).expect("data")).expect("JSON");
    // A thousand times slower, with steady rounds: no noise explains that.
    let p50 = saved["entries"][0]["p50_ms"].as_f64().expect("a time") * 1000.0;
    saved["entries"][0]["p50_ms"] = p50.into();
    saved["entries"][0]["rounds_ms"] = vec![p50; 12].into();
    saved["machine"] = "another".into();
    std::fs::write(&json, saved.to_string()).expect("a file");
    let call = [
        &["bench", DIGITS, "--format", "json", "--compare", &json],
        &QUICK[..],
    ]
    .concat();
    let report: Value = serde_json::from_str(&succeeds(&call)).expect("JSON");
    let difference = &report["comparison"]["differences"][0];
    assert_eq!(difference["verdict"], "faster");
    assert!(difference["ratio"].as_f64().is_some_and(|r| r < 0.1));
    assert!(
        report["comparison"]["warnings"][0]
            .as_str()
            .is_some_and(|w| w.contains("another"))
    );
    let table = succeeds(&[&["bench", DIGITS, "--compare", &json], &QUICK[..]].concat());
    assert!(
        table.contains("new / old") && table.contains("faster"),
        "{table}"
    );

    std::fs::write(&json, "{\"entries\": 1}").expect("a file");
    let output = lapidary(&["bench", DIGITS, "--compare", &json]);
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no report"));
}

#[test]
fn wrong_words_are_named_before_anything_is_measured() {
    let model = format!("{DIGITS}/model.onnx");
    is_wrong_usage(&["bench", DIGITS, "--report", "r.pdf"], "r.pdf");
    is_wrong_usage(
        &["bench", DIGITS, "--vary", "colour=red"],
        "'colour' does not vary",
    );
    is_wrong_usage(
        &["bench", DIGITS, "--vary", "cpu=v9"],
        "native, baseline, v3, v4, multi",
    );
    is_wrong_usage(&["bench", DIGITS, "--vary", "threads"], "no '='");
    is_wrong_usage(&["bench", DIGITS, "--vary", "threads=1,0"], "--threads");
    is_wrong_usage(&["bench", DIGITS, "--vary", "dim.n=x"], "numbers");
    is_wrong_usage(&["bench", DIGITS, "--against-command", "'open"], "quote");
    is_wrong_usage(&["show", &model, "--times"], "--format html");
    is_wrong_usage(
        &["show", &model, "--format", "html", "--filter", "x"],
        "--filter",
    );
    is_wrong_usage(
        &[
            "show",
            &model,
            "--format",
            "html",
            "--times",
            "--stop-after",
            "cse",
        ],
        "--stop-after",
    );
}

/// What a browser made of a page.
struct Seen {
    /// What it printed: the DOM, if that was asked for.
    printed: String,
    /// Whether scripts or errors wrote to the console.
    console: bool,
    /// What the page asked for, beside itself. What the browser asks for by itself has no origin.
    fetched: Vec<String>,
}

/// Chromium with a profile of its own and without a network; `None` where there is no Chromium.
fn chromium(folder: &Folder, run: &str, arguments: &[String]) -> Option<Seen> {
    let log = folder.path(&format!("{run}.net.json"));
    let mut command = Command::new("chromium");
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
        "--hide-scrollbars",
        "--window-size=1300,1600",
    ]);
    command.arg(format!("--user-data-dir={}", folder.path(run)));
    command.arg(format!("--log-net-log={log}"));
    let output = command.args(arguments).stdin(Stdio::null()).output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("chromium: {error}"),
    };
    assert!(output.status.success(), "chromium: {}", output.status);
    let log = std::fs::read(&log).expect("a log of the network");
    let log: Value = serde_json::from_slice(&log).expect("a whole log");
    let events = log["events"].as_array().expect("events").iter();
    let of_page = events.filter_map(|event| {
        let parameters = &event["params"];
        let initiator = parameters["initiator"].as_str()?;
        let url = parameters["url"].as_str()?;
        (initiator != "not an origin").then(|| url.to_string())
    });
    Some(Seen {
        printed: String::from_utf8_lossy(&output.stdout).into_owned(),
        console: String::from_utf8_lossy(&output.stderr).contains("CONSOLE"),
        fetched: of_page.collect(),
    })
}

#[test]
fn a_browser_draws_the_pages_without_a_word_and_without_the_network() {
    let folder = Folder::new("browser");
    let url = |name: &str| format!("file://{}", folder.path(name));
    // A page that is none of ours, to see that a request and a word would be noticed.
    let control = "<!DOCTYPE html><img src=\"http://example.invalid/a.png\"/><script>console.error(1)</script>";
    std::fs::write(folder.path("control.html"), control).expect("a file");
    let Some(seen) = chromium(
        &folder,
        "control",
        &["--dump-dom".into(), url("control.html")],
    ) else {
        let needed = std::env::var_os("LAPIDARY_NEEDS_CHROMIUM").is_some();
        assert!(!needed, "no chromium, and LAPIDARY_NEEDS_CHROMIUM is set");
        println!("skipped: no chromium");
        return;
    };
    assert!(seen.console);
    assert_eq!(seen.fetched, ["http://example.invalid/a.png"]);

    let model = format!("{DIGITS}/model.onnx");
    let shown = succeeds(&["show", &model, "--format", "html", "--times"]);
    std::fs::write(folder.path("show.html"), shown).expect("a file");
    let bench = folder.path("bench.html");
    succeeds(&[&["bench", DIGITS, "--report", &bench], &QUICK[..]].concat());
    for (name, pictures) in [("show", 8), ("bench", 4)] {
        let url = url(&format!("{name}.html"));
        let seen = chromium(&folder, name, &["--dump-dom".into(), url.clone()]);
        let seen = seen.expect("chromium was there");
        assert_eq!(seen.printed.matches("<svg").count(), pictures, "{name}");
        assert!(seen.printed.trim_end().ends_with("</html>"));
        assert!(!seen.console, "{name}");
        assert!(seen.fetched.is_empty(), "{name}: {:?}", seen.fetched);

        let picture = folder.path(&format!("{name}.png"));
        let shot = [format!("--screenshot={picture}"), url];
        chromium(&folder, &format!("{name}-shot"), &shot).expect("chromium was there");
        let bytes = std::fs::read(&picture).expect("a picture");
        assert!(bytes.starts_with(b"\x89PNG"));
        // An empty page of this size takes less than 10 kB.
        assert!(bytes.len() > 30_000, "{name}: {} bytes", bytes.len());
    }
}
