//! What ONNX says of its operators: versions, inputs, outputs, types, attributes, shapes and axes.
//!
//! The facts are a table of text, one line an operator and version, carried in the binary: `operators.txt`, written by
//! `python/operator_table.py` from the schemas of the `onnx` package, and `contrib.txt`, written by
//! `python/contrib_table.py` from those of onnxruntime. The first script tells the form. A table is indexed once; a line is read when it is asked for.
//! Shapes and axes stand in a table of their own, `shapes.txt`, which is written by hand ([`shape`]).
//!
//! Everything else that has to know an operator's signature (the checker, the importer's errors, the documentation)
//! asks here. What an operator computes is not known here.

pub mod shape;
mod value_type;

use std::sync::OnceLock;

use rustc_hash::FxHashMap as HashMap;

use crate::proto::attribute_proto::AttributeType;

use shape::ShapeFacts;
pub use value_type::{TypeSet, ValueType};

static TABLES: [&str; 2] = [include_str!("operators.txt"), include_str!("contrib.txt")];
static SHAPES: &str = include_str!("shapes.txt");

/// The domain of onnxruntime's own operators and its only version. Models use it without importing it, since
/// onnxruntime imports it for them.
pub const ONNXRUNTIME: (&str, i64) = ("com.microsoft", 1);

/// An operator at one of its versions.
#[derive(Clone, Debug)]
pub struct Schema {
    /// The domain; the default one is empty.
    pub domain: &'static str,
    /// The operator's name.
    pub name: &'static str,
    /// The first version of the domain with this signature.
    pub since: i64,
    /// The operator must no longer be used.
    pub deprecated: bool,
    /// Attributes that are not listed are allowed.
    pub open: bool,
    /// Inputs in order.
    pub inputs: Vec<Parameter>,
    /// Outputs in order.
    pub outputs: Vec<Parameter>,
    /// If not empty, how many outputs a node may have.
    pub output_counts: Vec<usize>,
    /// Type variables and what they may stand for.
    pub variables: Vec<(&'static str, &'static TypeSet)>,
    /// Attributes, sorted by name.
    pub attributes: Vec<Attribute>,
    /// Shapes and axes; nothing where the table has no row.
    pub shapes: ShapeFacts,
}

/// An input or output.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name in the specification.
    pub name: &'static str,
    /// How often it is there.
    pub arity: Arity,
    /// Its type.
    pub ty: ParameterType,
}

/// How often a parameter is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Once.
    Single,
    /// Once or not at all.
    Optional,
    /// So often or more; it is the last parameter.
    Variadic {
        /// The least number.
        least: usize,
        /// All have one type.
        homogeneous: bool,
    },
}

/// The type of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParameterType {
    /// One of the schema's variables, by position.
    Variable(usize),
    /// This type.
    Fixed(ValueType),
}

/// An attribute.
#[derive(Clone, Debug)]
pub struct Attribute {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: AttributeType,
    /// A node must have it.
    pub required: bool,
    /// The value that holds where a node does not have it; numbers and plain texts, lists in brackets.
    pub default: Option<&'static str>,
}

impl Schema {
    /// The parameter of input `index`; the last, if it is variadic, takes all that follow.
    pub fn input(&self, index: usize) -> Option<&Parameter> {
        parameter(&self.inputs, index)
    }

    /// The parameter of output `index`.
    pub fn output(&self, index: usize) -> Option<&Parameter> {
        parameter(&self.outputs, index)
    }

    /// The attribute of a name.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.name == name)
    }

    /// The types that a parameter takes.
    pub fn types(&self, parameter: &Parameter) -> TypeSet {
        match &parameter.ty {
            ParameterType::Variable(index) => match self.variables.get(*index) {
                Some((_, set)) => (*set).clone(),
                None => TypeSet::default(),
            },
            ParameterType::Fixed(ty) => TypeSet::of(ty.clone()),
        }
    }
}

fn parameter(list: &[Parameter], index: usize) -> Option<&Parameter> {
    list.get(index).or_else(|| {
        list.last()
            .filter(|last| matches!(last.arity, Arity::Variadic { .. }))
    })
}

/// How few and how many values a list of parameters takes.
pub fn counts(list: &[Parameter]) -> (usize, usize) {
    let (mut least, mut most) = (0, 0usize);
    for (index, parameter) in list.iter().enumerate() {
        match parameter.arity {
            Arity::Single => (least, most) = (index + 1, index + 1),
            Arity::Optional => most = index + 1,
            Arity::Variadic { least: n, .. } => (least, most) = (index + n, usize::MAX),
        }
    }
    (least, most)
}

/// What the table knows about an operator at a version of its domain.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// It exists.
    Found(Schema),
    /// It exists, and must not be used any more since the version given.
    Deprecated(i64),
    /// It came with a later version.
    Later(i64),
    /// The domain has no operator of this name.
    NoOperator,
    /// The domain is none that the table knows, or not one whose operators are all in it.
    NoDomain,
}

/// The operator of a name at a version of a domain.
pub fn look_up(domain: &str, name: &str, version: i64) -> Lookup {
    let table = table();
    let Some((section, versions)) = find(&table.operators, domain, name) else {
        return match table.operators.iter().find(|s| s.domain == domain) {
            Some(section) if section.complete => Lookup::NoOperator,
            _ => Lookup::NoDomain,
        };
    };
    let Some(row) = versions.iter().rev().find(|row| row.since <= version) else {
        return match versions.first() {
            Some(row) => Lookup::Later(row.since),
            None => Lookup::NoOperator,
        };
    };
    match schema(table, section.domain, row.line) {
        Some(schema) if schema.deprecated => Lookup::Deprecated(row.since),
        Some(schema) => Lookup::Found(schema),
        None => Lookup::NoOperator,
    }
}

/// An operator at each of its versions, oldest first.
pub fn versions(domain: &str, name: &str) -> impl Iterator<Item = Schema> {
    let table = table();
    let found = find(&table.operators, domain, name);
    found.into_iter().flat_map(move |(section, rows)| {
        rows.iter()
            .filter_map(move |row| schema(table, section.domain, row.line))
    })
}

/// The newest version of a domain, if the table knows it.
pub fn newest(domain: &str) -> Option<i64> {
    let sections = &table().operators;
    sections
        .iter()
        .find(|s| s.domain == domain)
        .map(|s| s.newest)
}

/// Every operator at every version, in the table's order.
pub fn all() -> impl Iterator<Item = Schema> {
    let table = table();
    table.operators.iter().flat_map(move |section| {
        section
            .rows
            .iter()
            .filter_map(move |row| schema(table, section.domain, row.line))
    })
}

// ---- the table -----------------------------------------------------------------------------------

/// What a text says of a domain.
struct Section {
    domain: &'static str,
    newest: i64,
    /// What is not listed does not exist.
    complete: bool,
    /// Sorted by name, then version, as the text is.
    rows: Vec<Row>,
}

/// A line of a table.
struct Row {
    name: &'static str,
    since: i64,
    line: &'static str,
}

struct Table {
    /// The table of ONNX comes first, and knows what its domains are.
    operators: Vec<Section>,
    shapes: Vec<Section>,
    /// The types of a set as they stand in the table, by name; read when first asked for.
    sets: HashMap<&'static str, (&'static str, OnceLock<TypeSet>)>,
}

/// The rows of an operator, at least one, and their section. Searched for rather than hashed: a start reads few of a
/// thousand rows.
fn find<'t>(sections: &'t [Section], domain: &str, name: &str) -> Option<(&'t Section, &'t [Row])> {
    let of_domain = sections.iter().filter(|s| s.domain == domain);
    of_domain
        .map(|section| {
            let from = section.rows.partition_point(|row| row.name < name);
            let rows = section.rows.get(from..).unwrap_or_default();
            let to = rows.partition_point(|row| row.name == name);
            (section, rows.get(..to).unwrap_or_default())
        })
        .find(|(_, rows)| !rows.is_empty())
}

impl Table {
    /// The lines of shapes that hold for a version of an operator.
    fn shapes(&self, domain: &str, name: &str, version: i64) -> Vec<&'static str> {
        let rows = find(&self.shapes, domain, name).map_or(&[][..], |(_, rows)| rows);
        let known = rows.iter().filter(|row| row.since <= version);
        let newest = known.clone().map(|row| row.since).max();
        known
            .filter(|row| Some(row.since) == newest)
            .map(|row| row.line)
            .collect()
    }

    fn set(&self, name: &str) -> Option<&TypeSet> {
        let (line, set) = self.sets.get(name)?;
        Some(set.get_or_init(|| {
            let mut set = TypeSet::default();
            let types = line.split_ascii_whitespace().skip(2);
            types
                .filter_map(ValueType::parse)
                .for_each(|ty| set.insert(ty));
            set
        }))
    }
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut sets = HashMap::default();
        let [onnx, onnxruntime] = TABLES;
        let mut operators = sections(onnx, true, &mut sets);
        operators.extend(sections(onnxruntime, false, &mut sets));
        let shapes = sections(SHAPES, true, &mut sets);
        Table {
            operators,
            shapes,
            sets,
        }
    })
}

/// The text before the first space, and behind it.
fn word(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| b == b' ').unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.get(1..).unwrap_or_default())
}

/// Where the rows of a text are.
fn sections(
    text: &'static str,
    complete: bool,
    sets: &mut HashMap<&'static str, (&'static str, OnceLock<TypeSet>)>,
) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (first, rest) = word(line);
        let (second, rest) = word(rest);
        match first {
            "" => {}
            "set" => {
                sets.insert(second, (line, OnceLock::new()));
            }
            "domain" => sections.push(Section {
                domain: crate::checker::domain(second),
                newest: word(rest).0.parse().unwrap_or(1),
                complete,
                rows: Vec::new(),
            }),
            name => {
                let since = second.parse().unwrap_or(1);
                if let Some(section) = sections.last_mut() {
                    section.rows.push(Row { name, since, line });
                }
            }
        }
    }
    sections
}

/// Reads a line. The tables are ours, and a test reads every line.
fn schema(table: &'static Table, domain: &'static str, line: &'static str) -> Option<Schema> {
    let mut fields = line.split('|').map(str::trim);
    let mut head = fields.next()?.split_ascii_whitespace();
    let (name, since) = (head.next()?, head.next()?.parse().ok()?);
    let mut schema = Schema {
        domain,
        name,
        since,
        deprecated: false,
        open: false,
        inputs: Vec::new(),
        outputs: Vec::new(),
        output_counts: Vec::new(),
        variables: Vec::new(),
        attributes: Vec::new(),
        shapes: ShapeFacts::default(),
    };
    for flag in head {
        match flag.split_once('=') {
            None if flag == "deprecated" => schema.deprecated = true,
            None if flag == "unchecked" => schema.open = true,
            Some(("outputs", list)) => {
                schema.output_counts = list.split(',').filter_map(|n| n.parse().ok()).collect();
            }
            _ => return None,
        }
    }
    let (inputs, outputs) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
    for variable in fields.next().unwrap_or("").split_ascii_whitespace() {
        let (name, set) = variable.split_once('=')?;
        schema.variables.push((name, table.set(set)?));
    }
    schema.inputs = parameters(inputs, &schema.variables)?;
    schema.outputs = parameters(outputs, &schema.variables)?;
    for attribute in fields.next().unwrap_or("").split_ascii_whitespace() {
        schema.attributes.push(read_attribute(attribute)?);
    }
    let shapes = table.shapes(domain, name, schema.since);
    schema.shapes = shape::facts(&schema, &shapes)?;
    Some(schema)
}

fn parameters(text: &'static str, variables: &[(&str, &TypeSet)]) -> Option<Vec<Parameter>> {
    // Types of maps have commas of their own, with no space after.
    let list = text.split(", ").filter(|one| !one.is_empty());
    list.map(|one| {
        let (name, ty) = one.split_once(' ')?;
        let end = name.find(['?', '*', '~']).unwrap_or(name.len());
        let (name, mark) = name.split_at_checked(end)?;
        let arity = match mark.chars().next() {
            None => Arity::Single,
            Some('?') => Arity::Optional,
            Some(sign) => Arity::Variadic {
                least: mark.get(1..)?.parse().ok()?,
                homogeneous: sign == '*',
            },
        };
        let variable = variables.iter().position(|(name, _)| *name == ty);
        let ty = match variable {
            Some(index) => ParameterType::Variable(index),
            None => ParameterType::Fixed(ValueType::parse(ty)?),
        };
        Some(Parameter { name, arity, ty })
    })
    .collect()
}

fn read_attribute(text: &'static str) -> Option<Attribute> {
    let (name, rest) = text.split_once(':')?;
    let (kind, default) = match rest.split_once('=') {
        Some((kind, default)) => (kind, Some(default)),
        None => (rest, None),
    };
    let required = kind.ends_with('!');
    let kind = match kind.trim_end_matches('!') {
        "float" => AttributeType::Float,
        "int" => AttributeType::Int,
        "string" => AttributeType::String,
        "tensor" => AttributeType::Tensor,
        "graph" => AttributeType::Graph,
        "sparse_tensor" => AttributeType::SparseTensor,
        "type" => AttributeType::TypeProto,
        "floats" => AttributeType::Floats,
        "ints" => AttributeType::Ints,
        "strings" => AttributeType::Strings,
        "tensors" => AttributeType::Tensors,
        "graphs" => AttributeType::Graphs,
        _ => return None,
    };
    Some(Attribute {
        name,
        kind,
        required,
        default,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataType;

    #[test]
    fn every_line_of_the_tables_can_be_read() {
        let table = table();
        let mut rows = 0;
        for section in &table.operators {
            for row in &section.rows {
                let read = schema(table, section.domain, row.line);
                assert!(read.is_some(), "{}", row.line);
                rows += 1;
            }
        }
        assert_eq!(all().count(), rows);
        assert!(rows > 600);
        for section in table.operators.iter().chain(&table.shapes) {
            let key = |row: &Row| (row.name, row.since);
            assert!(
                section.rows.is_sorted_by_key(key),
                "{:?}: what is not sorted is not found",
                section.domain
            );
        }
        assert_eq!(newest(""), Some(28));
        let total: usize = TABLES.iter().map(|t| t.len()).sum();
        assert!(total < 150_000, "{total} bytes in the binary");
        // A set of one name in both tables would be their union.
        let sets = |text: &'static str| {
            let lines = text.lines().filter(|l| l.starts_with("set "));
            lines
                .filter_map(|l| l.split(' ').nth(1))
                .collect::<Vec<_>>()
        };
        let (ours, theirs) = (sets(TABLES[1]), sets(TABLES[0]));
        assert!(ours.iter().all(|name| !theirs.contains(name)));
        // No set lost a type to a slip of the pen.
        for text in TABLES {
            for line in text.lines().filter(|l| l.starts_with("set ")) {
                let mut words = line.split(' ').skip(1);
                let set = table.set(words.next().unwrap()).unwrap();
                let types: Vec<_> = words.map(|w| ValueType::parse(w).expect(w)).collect();
                assert!(types.iter().all(|ty| set.contains(ty)), "{line}");
            }
        }
    }

    #[test]
    fn a_version_is_looked_up_by_the_last_change_before_it() {
        let since = |name: &str, version| match look_up("", name, version) {
            Lookup::Found(schema) => schema.since,
            Lookup::Deprecated(since) => -since,
            Lookup::Later(since) => 1000 + since,
            Lookup::NoOperator => 0,
            Lookup::NoDomain => 1,
        };
        assert_eq!(since("Conv", 1), 1);
        assert_eq!(since("Conv", 21), 11);
        assert_eq!(since("Conv", 28), 22);
        assert_eq!(since("Upsample", 9), 9);
        assert_eq!(since("Upsample", 10), -10);
        assert_eq!(since("Scatter", 28), -11);
        assert_eq!(since("Gelu", 19), 1020);
        assert_eq!(since("Frobnicate", 19), 0);
        assert!(matches!(look_up("com.example", "Add", 1), Lookup::NoDomain));
        assert!(matches!(
            look_up("com.microsoft", "Frobnicate", 1),
            Lookup::NoDomain
        ));
    }

    #[test]
    fn a_schema_has_what_the_specification_says() {
        let Lookup::Found(clip) = look_up("", "Clip", 13) else {
            panic!("Clip exists");
        };
        let names: Vec<_> = clip.inputs.iter().map(|i| (i.name, i.arity)).collect();
        assert_eq!(
            names,
            [
                ("input", Arity::Single),
                ("min", Arity::Optional),
                ("max", Arity::Optional)
            ]
        );
        assert_eq!(counts(&clip.inputs), (1, 3));
        let float = ValueType::Tensor(DataType::Float);
        let text = ValueType::Tensor(DataType::String);
        assert!(clip.types(&clip.inputs[0]).contains(&float));
        assert!(!clip.types(&clip.inputs[0]).contains(&text));

        let Lookup::Found(conv) = look_up("", "Conv", 22) else {
            panic!("Conv exists");
        };
        let pads = conv.attribute("pads").unwrap();
        assert_eq!(pads.kind, AttributeType::Ints);
        assert_eq!(
            conv.attribute("auto_pad").unwrap().default,
            Some("\"NOTSET\"")
        );

        let Lookup::Found(scan) = look_up("", "Loop", 16) else {
            panic!("Loop exists");
        };
        assert_eq!(counts(&scan.inputs), (2, usize::MAX));
        assert!(scan.attribute("body").unwrap().required);
        assert_eq!(scan.input(9).unwrap().name, "v_initial");

        let Lookup::Found(norm) = look_up("", "BatchNormalization", 9) else {
            panic!("BatchNormalization exists");
        };
        assert_eq!(norm.output_counts, [1, 5]);
    }
}
