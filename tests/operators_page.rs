//! `docs/operators.md` says which operators are handled; this writes it (`LAPIDARY_BLESS=1`) and fails when it is out of
//! date.
//!
//! Operators and opsets come from the importer's table, element types from ONNX's schemas as far as a case with them
//! compiles and runs, and what implements an operator from what the importer makes of the cases of the fixtures that consist of
//! one node.

#[path = "conformance/suite.rs"]
#[allow(dead_code)] // other programs read all of a case
mod suite;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use lapidary::operator::Target;
use lapidary::{Model, Options, OwnedValue, Tensor, pipeline};
use lapidary_graph::{DType, Graph, Op, Scalar};
use lapidary_onnx::DataType;
use lapidary_onnx::proto::*;
use lapidary_onnx::schema::{self, Parameter, ParameterType, Schema, ValueType};
use prost::Message;
use suite::Suite;

/// Domain and name of an operator.
type Key = (String, String);

const HEAD: &str = "# Operators

Made by `tests/operators_page.rs` from the importer's table (`compiler/import/src/table.rs`), the schemas of ONNX
(`compiler/onnx/src/schema`) and the fixtures of the tests; `LAPIDARY_BLESS=1 cargo test --release --test operators_page`
writes it anew.

*Opsets*: the versions of the domain at which the operator is taken. *Element types*: those of the input that takes most
(without inputs, of the first output) with which a case compiles and runs: `float` is f16, bf16, f32 and f64, `int` the integers of 8 to 64
bits, `f8` the four 8-bit floats, `int4` and `int2` the integers of less than a byte, `complex` c64 and c128. *Made of*:
core operators of the graph level ([graph.md](graph.md)), **composites** among them in bold, *kernels* of the library
([library.md](library.md)) and regions ([regions.md](regions.md)) that the importer makes of it, over all forms in the
tests; *nothing* is a value that is known when compiling, or another name of the input. *Shapes* and *axes* are those of the
newest version, in the words of [shapes.md](shapes.md), a line for each case.
";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_page_of_operators_is_up_to_date() {
    let page = page();
    let path = root().join("docs/operators.md");
    if std::env::var_os("LAPIDARY_BLESS").is_some() {
        std::fs::write(&path, page).expect("the page can be written");
        return;
    }
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = old.lines().zip(page.lines()).find(|(a, b)| a != b);
    assert!(
        old == page,
        "docs/operators.md is out of date (LAPIDARY_BLESS=1 writes it): {differs:?}"
    );
}

fn page() -> String {
    let samples = samples();
    let mut operators: BTreeMap<Key, (i64, i64)> = BTreeMap::new();
    for o in lapidary_import::operators() {
        let range = operators
            .entry((o.domain.into(), o.name.into()))
            .or_insert((o.first, o.last));
        *range = (range.0.min(o.first), range.1.max(o.last));
    }
    let keys: Vec<&Key> = operators.keys().collect();
    let facts = in_parallel(&keys, |key| {
        let own = samples.get(*key).map_or(&[][..], Vec::as_slice);
        let made = made_of(own);
        let types = match made.contains("region ") {
            true => "of its body".to_string(),
            false => types(key, operators[*key].1, own),
        };
        (types, made)
    });
    let mut text = HEAD.to_string();
    let mut domain = None;
    for (key, (types, made)) in keys.iter().zip(&facts) {
        if domain != Some(&key.0) {
            domain = Some(&key.0);
            let name = if key.0.is_empty() { "ai.onnx" } else { &key.0 };
            let count = keys.iter().filter(|k| k.0 == key.0).count();
            let _ = write!(
                text,
                "\n## {name} ({count})\n\n| operator | opsets | element types | made of | shapes | axes |\n|---|---|---|---|---|---|\n"
            );
        }
        let (first, last) = operators[*key];
        let opsets = if first == last {
            first.to_string()
        } else {
            format!("{first} to {last}")
        };
        let (shapes, axes) = shapes(key, last);
        let _ = writeln!(
            text,
            "| {} | {opsets} | {types} | {made} | {shapes} | {axes} |",
            key.1
        );
    }
    text.push_str("\n## Not handled\n\n");
    text.push_str("Operators of ONNX that are refused, by name, with an error that says so: ");
    let missing: Vec<String> = missing(&operators);
    text.push_str(&missing.join(", "));
    text.push_str(".\n");
    text
}

/// What the table says of shapes and axes, at the newest version that is taken.
fn shapes((domain, name): &Key, last: i64) -> (String, String) {
    let newest = schema::versions(domain, name).filter(|s| s.since <= last);
    let Some(schema) = newest.last() else {
        return Default::default();
    };
    let (mut shapes, mut axes) = (Vec::new(), BTreeSet::new());
    for case in &schema.shapes.cases {
        let fields: Vec<&str> = case.text.split('|').map(str::trim).collect();
        let field = |index: usize| fields.get(index).copied().unwrap_or("");
        let condition = match field(0) {
            "" => String::new(),
            condition => format!("{condition}: "),
        };
        shapes.push(format!("{condition}`{}`", field(2)));
        axes.extend(field(3).split_ascii_whitespace().map(|a| format!("`{a}`")));
    }
    let axes: Vec<String> = axes.into_iter().collect();
    (shapes.join("<br>"), axes.join(" "))
}

/// Operators that ONNX defines and does not advise against, but that are not handled.
fn missing(operators: &BTreeMap<Key, (i64, i64)>) -> Vec<String> {
    let mut newest: BTreeMap<Key, Schema> = BTreeMap::new();
    for s in schema::all() {
        newest.insert((s.domain.into(), s.name.into()), s);
    }
    let missing = newest
        .into_iter()
        .filter(|(key, s)| !s.deprecated && !operators.contains_key(key));
    missing
        .map(|(key, _)| match key.0.as_str() {
            "" => key.1,
            domain => format!("{domain}.{}", key.1),
        })
        .collect()
}

// ---- samples -----------------------------------------------------------------------------------

/// A model of one node, and inputs for it.
struct Sample {
    model: ModelProto,
    /// None: only compiled.
    inputs: Vec<OwnedValue>,
}

/// The fixtures of all tests.
fn fixtures() -> Vec<PathBuf> {
    let inside = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = inside(root().join("tests"));
    let mut all: Vec<PathBuf> = folders
        .flat_map(|folder| inside(folder.path()))
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|e| e == "bin"))
        .collect();
    all.sort();
    all
}

/// The cases of the fixtures that are one node, by its operator, each model once.
fn samples() -> BTreeMap<Key, Vec<Sample>> {
    let mut all: BTreeMap<Key, Vec<Sample>> = BTreeMap::new();
    let fixtures = fixtures();
    assert!(fixtures.len() > 1, "{fixtures:?}");
    let suite = Suite::load(&fixtures);
    let mut seen = BTreeSet::new();
    for case in suite.cases.iter().filter(|c| seen.insert(c.model)) {
        let Ok(model) = ModelProto::decode(suite.blob(case.model)) else {
            continue;
        };
        let Some(node) = only_node(&model) else {
            continue;
        };
        let key = (domain(node).to_string(), node.op_type.clone());
        let sets = suite.model(case).and_then(|m| suite.sets(case, &m));
        let first = sets.ok().and_then(|sets| sets.into_iter().next());
        let inputs = first.map_or_else(Vec::new, |set| set.inputs);
        all.entry(key).or_default().push(Sample { model, inputs });
    }
    for (op, ranks, attributes) in UNTESTED {
        let key = (String::new(), op.to_string());
        all.entry(key)
            .or_insert_with(|| vec![from_schema(op, ranks, attributes)]);
    }
    all
}

/// Operators of which the fixtures have no case of one node: ranks of the inputs, and attributes.
type Untested = (
    &'static str,
    &'static [usize],
    &'static [(&'static str, &'static [i64])],
);
const UNTESTED: &[Untested] = &[
    ("ConcatFromSequence", &[2], &[("axis", &[0])]),
    ("GlobalLpPool", &[4], &[]),
    ("MaxRoiPool", &[4, 2], &[("pooled_shape", &[2, 2])]),
    ("Multinomial", &[2], &[]),
    ("Optional", &[2], &[]),
    ("RandomNormal", &[], &[("shape", &[2, 3])]),
    ("RandomNormalLike", &[2], &[]),
    ("RandomUniform", &[], &[("shape", &[2, 3])]),
    ("RandomUniformLike", &[2], &[]),
    ("SequenceAt", &[2, 0], &[]),
    ("SequenceConstruct", &[2, 2], &[]),
    ("SequenceEmpty", &[], &[]),
    ("SequenceErase", &[2, 0], &[]),
    ("SequenceLength", &[2], &[]),
];

/// A model of one node, at the newest version, with inputs of the first type that its schema lists.
fn from_schema(op: &str, ranks: &[usize], attributes: &[(&str, &[i64])]) -> Sample {
    let s = schema::versions("", op).last().expect("ONNX has it");
    let value = |name: String, p: &Parameter, rank: Option<usize>| {
        let set = s.types(p);
        let dim = tensor_shape_proto::Dimension::default();
        let tensor = |dtype: DataType| type_proto::Tensor {
            elem_type: dtype.to_wire(),
            shape: rank.map(|n| TensorShapeProto {
                dim: vec![dim.clone(); n],
            }),
        };
        let plain = |value| TypeProto {
            value: Some(value),
            ..Default::default()
        };
        let list = |dtype| {
            let inner = plain(type_proto::Value::TensorType(tensor(dtype)));
            type_proto::Value::SequenceType(Box::new(type_proto::Sequence {
                elem_type: Some(Box::new(inner)),
            }))
        };
        let optional = |dtype| {
            let inner = plain(type_proto::Value::TensorType(tensor(dtype)));
            type_proto::Value::OptionalType(Box::new(type_proto::Optional {
                elem_type: Some(Box::new(inner)),
            }))
        };
        let ty = match (set.tensors().next(), set.others().first()) {
            (Some(dtype), _) => type_proto::Value::TensorType(tensor(dtype)),
            (None, Some(ValueType::Optional(inner))) => optional(inner.element()),
            (None, other) => list(other.map_or(DataType::Float, |t| t.element())),
        };
        ValueInfoProto {
            name,
            r#type: Some(plain(ty)),
            ..Default::default()
        }
    };
    let attribute = attributes.iter().map(|(name, values)| AttributeProto {
        name: name.to_string(),
        r#type: if values.len() == 1 { 2 } else { 7 },
        i: if values.len() == 1 { values[0] } else { 0 },
        ints: if values.len() == 1 {
            vec![]
        } else {
            values.to_vec()
        },
        ..Default::default()
    });
    let inputs: Vec<ValueInfoProto> = ranks
        .iter()
        .enumerate()
        .filter_map(|(i, rank)| Some(value(format!("x{i}"), s.input(i)?, Some(*rank))))
        .collect();
    let output = value("y".into(), &s.outputs[0], None);
    let node = NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(|i| i.name.clone()).collect(),
        output: vec!["y".into()],
        attribute: attribute.collect(),
        ..Default::default()
    };
    let model = ModelProto {
        ir_version: 10,
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: s.since,
        }],
        graph: Some(GraphProto {
            name: "g".into(),
            node: vec![node],
            input: inputs,
            output: vec![output],
            ..Default::default()
        }),
        ..Default::default()
    };
    Sample {
        model,
        inputs: Vec::new(),
    }
}

fn domain(node: &NodeProto) -> &str {
    match node.domain.as_str() {
        "ai.onnx" => "",
        domain => domain,
    }
}

fn only_node(model: &ModelProto) -> Option<&NodeProto> {
    match model.graph.as_ref()?.node.as_slice() {
        [node] if model.functions.is_empty() => Some(node),
        _ => None,
    }
}

fn graph(sample: &Sample) -> Option<Graph> {
    let model = Model::from_bytes(sample.model.encode_to_vec(), None).ok()?;
    pipeline::import(&model, &Options::default(), Target::Memory).ok()
}

// ---- what an operator is made of ---------------------------------------------------------------

fn made_of(samples: &[Sample]) -> String {
    let (mut core, mut composites) = (BTreeSet::new(), BTreeSet::new());
    let (mut kernels, mut regions) = (BTreeSet::new(), BTreeSet::new());
    let mut imported = false;
    for graph in samples.iter().filter_map(graph) {
        imported = true;
        for n in &graph.order {
            let op = &graph.nodes[*n].op;
            match op {
                Op::Library(call) => kernels.insert(format!("*{}*", call.name)),
                Op::Region(_) => regions.insert(format!("region {}", op.name())),
                Op::Softmax { .. } | Op::Normalize { .. } | Op::Attention(_) => {
                    composites.insert(format!("**{}**", op.name()))
                }
                op => core.insert(op.name().to_string()),
            };
        }
    }
    let parts: Vec<String> = [composites, core, kernels, regions]
        .into_iter()
        .flatten()
        .collect();
    match (imported, parts.is_empty()) {
        (false, _) => "(no sample)".into(),
        (true, true) => "nothing".into(),
        _ => parts.join(", "),
    }
}

// ---- element types -----------------------------------------------------------------------------

/// The parameter that stands for an operator's types: the first of the inputs that take most, or the first output.
fn main_parameter(s: &Schema) -> Option<&Parameter> {
    let count = |p: &&Parameter| s.types(p).tensors().count() + s.types(p).others().len();
    s.inputs
        .iter()
        .rev()
        .max_by_key(count)
        .or(s.outputs.first())
}

/// The element types with which a sample compiles and, given inputs, runs.
fn types(key: &Key, last: i64, samples: &[Sample]) -> String {
    let newest = schema::versions(&key.0, &key.1).filter(|s| !s.deprecated && s.since <= last);
    let Some(s) = newest.last() else {
        return String::new();
    };
    let Some(parameter) = main_parameter(&s) else {
        return String::new();
    };
    let set = s.types(parameter);
    let listed: BTreeSet<DataType> = set
        .tensors()
        .chain(set.others().iter().map(|t| t.element()))
        .collect();
    let taken = listed.iter().filter(|dtype| {
        let dtype = DType::from_onnx(dtype.to_wire());
        dtype.is_some_and(|dtype| {
            samples
                .iter()
                .any(|sample| works(sample, &s, parameter, dtype))
        })
    });
    let taken: Vec<DType> = taken
        .filter_map(|d| DType::from_onnx(d.to_wire()))
        .collect();
    names(&taken)
}

/// Which declared types change with the one in question.
#[derive(Clone, Copy)]
enum Change {
    /// Those of its type variable.
    Variable,
    /// And those of all outputs that have a type variable: its elements, under another name.
    Outputs,
    /// All that have a type variable.
    All,
}

/// Whether the sample compiles and runs with another element type for the parameter.
fn works(sample: &Sample, s: &Schema, parameter: &Parameter, dtype: DType) -> bool {
    let changes = [Change::Variable, Change::Outputs, Change::All];
    changes
        .into_iter()
        .any(|change| works_so(sample, s, parameter, dtype, change).unwrap_or(false))
}

fn works_so(
    sample: &Sample,
    s: &Schema,
    parameter: &Parameter,
    dtype: DType,
    change: Change,
) -> Option<bool> {
    let (model, changed) = retyped(&sample.model, s, parameter, dtype, change)?;
    let model = Model::from_bytes(model.encode_to_vec(), None).ok()?;
    let compiled = model.compile(&Options::default()).ok()?;
    if sample.inputs.is_empty() {
        return Some(true);
    }
    let values = inputs(sample, &model, &changed, dtype)?;
    Some(compiled.context().ok()?.run_values(&values).is_ok())
}

/// The inputs of a sample for its retyped model.
fn inputs(
    sample: &Sample,
    model: &Model,
    changed: &[String],
    dtype: DType,
) -> Option<Vec<OwnedValue>> {
    let names = model.input_names();
    let named = names.iter().zip(&sample.inputs);
    let values = named.map(|(name, value)| match changed.iter().any(|c| c == name) {
        true => converted(value, dtype),
        false => Some(value.clone()),
    });
    values.collect()
}

/// The same numbers in another type, as far as it holds them.
fn converted(value: &OwnedValue, dtype: DType) -> Option<OwnedValue> {
    Some(match value {
        OwnedValue::Tensor(t) => {
            let to = lapidary::DType::from_onnx(dtype as i32)?;
            let from = DType::from_onnx(t.dtype().onnx())?;
            if from == dtype {
                return Some(value.clone());
            }
            let n: usize = t.shape().iter().product();
            let number = |i: usize| match t.strings() {
                Ok(_) => 1.0,
                Err(_) => {
                    let bytes = &t.bytes()[i * from.bytes()..(i + 1) * from.bytes()];
                    let mut bits = [0; 8];
                    let whole = bytes.len().min(8);
                    bits[..whole].copy_from_slice(&bytes[..whole]);
                    let bits = u64::from_le_bytes(bits);
                    Scalar { dtype: from, bits }.to_f64()
                }
            };
            OwnedValue::Tensor(match dtype {
                DType::String => {
                    let texts = (0..n).map(|i| number(i).to_string()).collect::<Vec<_>>();
                    Tensor::from_strings(t.shape(), texts).ok()?
                }
                _ => {
                    let mut bytes = Vec::new();
                    for i in 0..n {
                        let bits = Scalar::of(dtype, number(i)).bits.to_le_bytes();
                        bytes.extend(&bits[..dtype.bytes().min(8)]);
                        bytes.resize((i + 1) * dtype.bytes(), 0);
                    }
                    Tensor::from_bytes(to, t.shape(), &bytes).ok()?
                }
            })
        }
        OwnedValue::Sequence(all) => {
            let all = all.iter().map(|v| converted(v, dtype));
            OwnedValue::Sequence(all.collect::<Option<_>>()?)
        }
        OwnedValue::Optional(inside) => OwnedValue::Optional(match inside {
            Some(v) => Some(Box::new(converted(v, dtype)?)),
            None => None,
        }),
        OwnedValue::Map { keys, values } => OwnedValue::Map {
            keys: keys.clone(),
            values: Box::new(converted(values, dtype)?),
        },
    })
}

/// The model, at the schema's version or a later one, with another element type for the parameter; and the inputs that
/// this changes.
fn retyped(
    model: &ModelProto,
    s: &Schema,
    parameter: &Parameter,
    dtype: DType,
    change: Change,
) -> Option<(ModelProto, Vec<String>)> {
    let mut model = model.clone();
    let graph = model.graph.as_mut()?;
    // The schema is that of the newest version.
    for opset in &mut model.opset_import {
        let domain = match opset.domain.as_str() {
            "ai.onnx" => "",
            domain => domain,
        };
        if domain == s.domain {
            opset.version = opset.version.max(s.since);
        }
    }
    if s.inputs.is_empty() && s.attribute("dtype").is_some() {
        let node = &mut graph.node[0];
        node.attribute.retain(|a| a.name != "dtype");
        node.attribute.push(AttributeProto {
            name: "dtype".into(),
            r#type: 2,
            i: dtype as i64,
            ..Default::default()
        });
    }
    let [node] = graph.node.as_slice() else {
        return None;
    };
    let ParameterType::Variable(variable) = parameter.ty else {
        return Some((model, Vec::new()));
    };
    let of = |p: Option<&Parameter>, all: bool| {
        p.is_some_and(|p| match p.ty {
            ParameterType::Variable(own) => all || own == variable,
            ParameterType::Fixed(_) => false,
        })
    };
    let names = |names: &[String], input: bool| -> Vec<String> {
        let each = names.iter().enumerate();
        each.filter(|(i, _)| match input {
            true => of(s.input(*i), matches!(change, Change::All)),
            false => of(s.output(*i), !matches!(change, Change::Variable)),
        })
        .map(|(_, name)| name.clone())
        .collect()
    };
    let (inputs, outputs) = (names(&node.input, true), names(&node.output, false));
    let infos = graph.input.iter_mut().filter(|i| inputs.contains(&i.name));
    for info in infos {
        set_element(info.r#type.as_mut()?, dtype)?;
    }
    let infos = graph
        .output
        .iter_mut()
        .filter(|o| outputs.contains(&o.name));
    for info in infos {
        set_element(info.r#type.as_mut()?, dtype)?;
    }
    Some((model, inputs))
}

fn set_element(ty: &mut TypeProto, dtype: DType) -> Option<()> {
    use type_proto::Value;
    match ty.value.as_mut()? {
        Value::TensorType(t) => t.elem_type = dtype as i32,
        Value::SequenceType(s) => set_element(s.elem_type.as_mut()?, dtype)?,
        Value::OptionalType(o) => set_element(o.elem_type.as_mut()?, dtype)?,
        Value::MapType(m) => set_element(m.value_type.as_mut()?, dtype)?,
        _ => return None,
    }
    Some(())
}

/// A set of types in few words.
fn names(types: &[DType]) -> String {
    use DType::*;
    let groups: [(&str, &[DType]); 6] = [
        ("float", &[F16, BF16, F32, F64]),
        ("int", &[I8, I16, I32, I64, U8, U16, U32, U64]),
        ("f8", &[F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ]),
        ("int4", &[I4, U4]),
        ("int2", &[I2, U2]),
        ("complex", &[C64, C128]),
    ];
    let mut words = Vec::new();
    let mut grouped = BTreeSet::new();
    for (name, members) in groups {
        let present: Vec<&DType> = members.iter().filter(|t| types.contains(t)).collect();
        grouped.extend(members.iter().map(|t| t.name()));
        match present.len() == members.len() {
            true => words.push(name),
            false => words.extend(present.iter().map(|t| t.name())),
        }
    }
    let alone = types.iter().map(|t| t.name());
    words.extend(alone.filter(|t| !grouped.contains(t)));
    words.join(", ")
}

/// `f` of each item, in order, on all processors.
fn in_parallel<T: Sync, R: Send>(items: &[T], f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<R>>> = Mutex::new(items.iter().map(|_| None).collect());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(i) else { return };
                    let result = f(item);
                    results.lock().expect("no panic holds it")[i] = Some(result);
                }
            });
        }
    });
    let results = results.into_inner().expect("no panic holds it");
    results.into_iter().flatten().collect()
}
