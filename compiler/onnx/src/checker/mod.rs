//! Whether a model is sound: everything that is wrong with it, at once.
//!
//! In: a loaded model. Out: nothing, or the list of its faults, each with the place it was found at, in the order of
//! the file. A node is judged by its operator's schema ([`crate::schema`]): counts, types, attributes, axes, and shapes as
//! far as the file tells them. What depends on sizes that the model computes is for the importer to say, and so is
//! whether a domain without schemas is known.
//!
//! | file | what it checks |
//! |---|---|
//! | `mod` | versions, the domains and opsets that are imported |
//! | `graph` | definitions and uses of values, order and cycles of nodes, initializers, subgraphs |
//! | `operator` | whether a node has what its operator's schema asks for |
//! | `types` | types of values, from node to node |
//! | `shapes` | axes and shapes of values, from node to node |
//! | `attr` | attributes and types in themselves |
//! | `function` | model-local functions |
//! | `place` | the words for a place |
//! | `cycle` | cycles in a directed graph |

mod attr;
mod cycle;
mod function;
mod graph;
mod operator;
mod place;
mod shapes;
mod types;

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fmt;
use std::ops::RangeInclusive;
use std::rc::Rc;

use crate::ModelFile;
use crate::proto::{NodeProto, OperatorSetIdProto, SparseTensorProto, TensorProto};

use crate::schema::{self, Lookup};

use graph::Body;
use place::{Part, Place};

/// The IR versions that are read.
pub const IR_VERSIONS: RangeInclusive<i64> = 3..=14;

/// The versions of the default domain that are read. Of the oldest, the importer takes the operators whose rules are
/// those of version 6 or 7, and names the others.
pub const OPSETS: RangeInclusive<i64> = 1..=28;

/// What a fault means for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The model breaks a rule of ONNX.
    Invalid,
    /// The model may be sound, but is of a kind or version that is not read here.
    Unsupported,
}

/// One thing that is wrong with a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Broken, or beyond what is read.
    pub kind: FaultKind,
    /// Where: graph, node and value by their names, from the outside in.
    pub place: String,
    /// What was expected and what was found.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.message)?;
        if !self.hint.is_empty() {
            write!(out, " (hint: {})", self.hint)?;
        }
        Ok(())
    }
}

impl Error for Fault {}

/// How strict to be.
#[derive(Clone, Copy)]
pub struct Rules<'r> {
    /// Refuses too what ONNX's rules forbid but nothing here depends on: the model's inputs and outputs need a shape,
    /// and values must have the shapes that are stated for them, in bodies too that may never run.
    pub full: bool,
    /// The sizes that the model states for its inputs do not count: the caller gives others.
    pub freed: bool,
    /// Whether an operator (domain, name) is one that the application brings.
    pub own: &'r dyn Fn(&str, &str) -> bool,
}

impl Default for Rules<'_> {
    fn default() -> Self {
        Rules {
            full: false,
            freed: false,
            own: &|_, _| false,
        }
    }
}

/// Checks a model by the default [`Rules`], and reports every fault found.
pub fn check(file: &ModelFile) -> Result<(), Vec<Fault>> {
    check_by(file, &Rules::default())
}

/// Checks a model, and reports every fault found.
pub fn check_by<'a>(file: &'a ModelFile, rules: &'a Rules<'a>) -> Result<(), Vec<Fault>> {
    let checker = run(file, rules);
    if checker.faults.is_empty() {
        Ok(())
    } else {
        Err(checker.faults)
    }
}

/// The shapes of the values of a model's graph as far as the file tells them, by name; sizes that are not known are
/// `None`. What the model states for inner values is not read.
pub fn shapes(file: &ModelFile) -> Vec<(String, Vec<Option<i64>>)> {
    run(file, &Rules::default()).shapes
}

fn run<'a>(file: &'a ModelFile, rules: &'a Rules<'a>) -> Checker<'a> {
    let model = file.model();
    let keys = model.functions.iter().map(function::key);
    let mut checker = Checker {
        file,
        rules,
        functions: keys.collect(),
        schemas: HashMap::new(),
        ir_version: model.ir_version,
        faults: Vec::new(),
        opsets: HashMap::new(),
        parameters: None,
        shapes: Vec::new(),
    };
    let root = Place::root();
    checker.ir_version(&root);
    if model.opset_import.is_empty() {
        checker.invalid(
            &root,
            "opset_import is missing: expected the version of each operator set used",
            "the exporter must write opset_import",
        );
    }
    checker.import_opsets(&model.opset_import, &root);
    checker.metadata(&root);

    let graph = file.graph();
    let place = root.inside(Part::Graph(&graph.name));
    if graph.name.is_empty() {
        checker.invalid(&place, "the graph has no name", "name the graph");
    }
    if graph.output.is_empty() {
        checker.invalid(
            &place,
            "the graph has no outputs",
            "list the values that the model gives in the graph's outputs",
        );
    }
    graph::check_body(
        &mut checker,
        &Body::of_graph(graph, true),
        None,
        &mut Vec::new(),
        &place,
    );
    let opsets = checker.opsets.clone();
    function::check_functions(&mut checker, &model.functions, &opsets, &root);
    checker
}

/// The name under which a domain is compared: the default one has two.
pub fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

/// What all checks share.
struct Checker<'a> {
    file: &'a ModelFile,
    rules: &'a Rules<'a>,
    /// Model-local functions: calls of them have no schema.
    functions: HashSet<function::Key<'a>>,
    /// Schemas looked up, by domain, operator and version.
    schemas: HashMap<(&'a str, &'a str, i64), Rc<Lookup>>,
    ir_version: i64,
    faults: Vec<Fault>,
    /// The operator sets that the graph or function at hand imports.
    opsets: HashMap<&'a str, i64>,
    /// The attributes of the function at hand; `None` in the model's graph.
    parameters: Option<HashSet<&'a str>>,
    /// Shapes of the values of the model's graph.
    shapes: Vec<(String, Vec<Option<i64>>)>,
}

impl<'a> Checker<'a> {
    fn invalid(&mut self, place: &Place<'_>, message: impl Into<String>, hint: impl Into<String>) {
        self.fault(FaultKind::Invalid, place, message.into(), hint.into());
    }

    fn unsupported(
        &mut self,
        place: &Place<'_>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.fault(FaultKind::Unsupported, place, message.into(), hint.into());
    }

    fn fault(&mut self, kind: FaultKind, place: &Place<'_>, message: String, hint: String) {
        self.faults.push(Fault {
            kind,
            place: place.to_string(),
            message,
            hint,
        });
    }

    fn ir_version(&mut self, place: &Place<'_>) {
        let (low, high) = (IR_VERSIONS.start(), IR_VERSIONS.end());
        let found = self.ir_version;
        if found <= 0 {
            self.invalid(
                place,
                format!("ir_version is {found}, expected {low} to {high}"),
                "the file may be damaged, or written without ir_version",
            );
        } else if found < *low {
            self.unsupported(
                place,
                format!("ir_version {found} is too old, expected {low} to {high}"),
                "convert the model with onnx.version_converter",
            );
        } else if found > *high {
            self.unsupported(
                place,
                format!(
                    "ir_version {found} is newer than this compiler knows, expected {low} to {high}"
                ),
                format!("export with ir_version {high} or lower, or use a newer compiler"),
            );
        }
    }

    /// Takes over a list of imports, and checks it.
    fn import_opsets(&mut self, imports: &'a [OperatorSetIdProto], place: &Place<'_>) {
        self.opsets.clear();
        for import in imports {
            let name = domain(&import.domain);
            let shown = if name.is_empty() { "ai.onnx" } else { name };
            // Some converters write one import several times over, which tells nothing wrong.
            match self.opsets.insert(name, import.version) {
                Some(other) if other != import.version => self.invalid(
                    place,
                    format!(
                        "opset_import gives the domain '{shown}' two versions, {other} and {}",
                        import.version
                    ),
                    "import one version of each domain",
                ),
                Some(_) => continue,
                None => {}
            }
            let newest = schema::newest(name).filter(|_| !name.is_empty());
            if let Some(newest) = newest.filter(|newest| import.version > *newest) {
                let message = format!(
                    "opset {} of the domain '{shown}' is not taken, expected 1 to {newest}",
                    import.version
                );
                self.unsupported(
                    place,
                    message,
                    format!("export for opset {newest} or lower"),
                );
            }
            if name.is_empty() && !OPSETS.contains(&import.version) {
                let (low, high) = (OPSETS.start(), OPSETS.end());
                let message = format!(
                    "opset {} of the domain 'ai.onnx' is not taken, expected {low} to {high}",
                    import.version
                );
                if import.version < 1 {
                    self.invalid(place, message, "the file may be damaged");
                } else if import.version < *low {
                    self.unsupported(
                        place,
                        message,
                        "convert the model with onnx.version_converter",
                    );
                } else {
                    self.unsupported(place, message, format!("export for opset {high} or lower"));
                }
            } else if import.version < 1 {
                self.invalid(
                    place,
                    format!(
                        "opset_import gives version {} for the domain '{shown}', expected 1 or more",
                        import.version
                    ),
                    "import a version of the domain that exists",
                );
            }
        }
        if !imports.is_empty() {
            let (name, version) = schema::ONNXRUNTIME;
            self.opsets.entry(name).or_insert(version);
        }
    }

    fn metadata(&mut self, place: &Place<'_>) {
        let mut keys = HashSet::new();
        for entry in &self.file.model().metadata_props {
            if !keys.insert(entry.key.as_str()) {
                let message = format!("metadata_props gives the key '{}' twice", entry.key);
                self.invalid(place, message, "give each key once");
            }
        }
    }

    /// What the table says of an operator.
    fn schema(&mut self, domain: &'a str, name: &'a str, version: i64) -> Rc<Lookup> {
        let found = self.schemas.entry((domain, name, version));
        found
            .or_insert_with(|| Rc::new(schema::look_up(domain, name, version)))
            .clone()
    }

    /// What a node must have whatever its operator is, and its attributes.
    fn node(&mut self, node: &'a NodeProto, place: &Place<'_>) {
        if node.op_type.is_empty() {
            self.invalid(place, "the node has no op_type", "name the node's operator");
        }
        let name = domain(&node.domain);
        if !self.opsets.contains_key(name) && !self.opsets.is_empty() {
            let shown = if name.is_empty() { "ai.onnx" } else { name };
            self.invalid(
                place,
                format!("the node's domain '{shown}' is not in opset_import"),
                format!("add a version of '{shown}' to opset_import"),
            );
        }
        attr::check_attributes(self, &node.attribute, place);
    }

    fn tensor(&mut self, tensor: &TensorProto, place: &Place<'_>) {
        if let Err(error) = self.file.validate_tensor(tensor) {
            self.invalid(place, error.to_string(), error.hint());
        }
    }

    fn sparse_tensor(&mut self, sparse: &SparseTensorProto, place: &Place<'_>) {
        let (Some(values), Some(indices)) = (&sparse.values, &sparse.indices) else {
            let message = "a sparse tensor lacks its values or its indices";
            self.invalid(place, message, "give both");
            return;
        };
        self.tensor(values, place);
        let place_of_indices = &place.inside(Part::Word("indices"));
        let found = match self.file.tensor_data(indices) {
            Ok(view) => view,
            Err(error) => {
                self.invalid(
                    place_of_indices,
                    error.to_string(),
                    "export the model again",
                );
                return;
            }
        };
        let hint = "export the model again";
        let (&[count], Some(total)) = (
            values.dims.as_slice(),
            sparse
                .dims
                .iter()
                .all(|dim| *dim >= 0)
                .then(|| crate::tensor::count(&sparse.dims))
                .flatten(),
        ) else {
            let message = format!(
                "a sparse tensor has values of dimensions {:?} and dimensions {:?}, expected one dimension of values, and dimensions whose product fits",
                values.dims, sparse.dims
            );
            self.invalid(place, message, hint);
            return;
        };
        let rank = sparse.dims.len();
        let linear = match *found.dims.as_slice() {
            [n] if n == count => true,
            [n, r] if n == count && usize::try_from(r) == Ok(rank) => false,
            _ => {
                let message = format!(
                    "dimensions are {:?}, expected [{count}] or [{count}, {rank}]",
                    found.dims
                );
                self.invalid(place_of_indices, message, hint);
                return;
            }
        };
        let Some(numbers) = (found.dtype == crate::DataType::Int64)
            .then(|| found.to_i64s())
            .flatten()
        else {
            let message = format!("type is {}, expected INT64", found.dtype);
            self.invalid(place_of_indices, message, hint);
            return;
        };
        let outside = if linear {
            numbers
                .iter()
                .any(|at| usize::try_from(*at).map_or(true, |at| at >= total))
        } else {
            numbers.chunks(rank.max(1)).any(|row| {
                row.iter()
                    .zip(&sparse.dims)
                    .any(|(at, dim)| *at < 0 || at >= dim)
            })
        };
        if outside {
            let message = format!("an index lies outside the dimensions {:?}", sparse.dims);
            self.invalid(place_of_indices, message, hint);
        }
        let rows: Vec<&[i64]> = numbers
            .chunks(if linear { 1 } else { rank.max(1) })
            .collect();
        if rows.iter().zip(rows.iter().skip(1)).any(|(a, b)| a >= b) {
            let message = "indices are not in ascending order, each once";
            self.invalid(place_of_indices, message, hint);
        }
    }
}

#[cfg(test)]
mod tests;
