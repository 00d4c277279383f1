//! The Rust binding of a model that is linked statically: a struct with typed inputs and outputs.
//!
//! In: the graph, the symbol's name, and the file of the weights if they have one. Out: the text of a Rust file that
//! `lapidary_runtime::include_model!` includes; it needs nothing but `lapidary_runtime`. Element types and ranks that are known
//! are in the types; names and dims are in the documentation.

use lapidary_graph::{DType, Dim, Graph, ValueId};
use std::collections::HashSet;
use std::fmt::Write;
use std::path::Path;

const RT: &str = "::lapidary_runtime";

/// The text of the binding.
pub fn binding(graph: &Graph, name: &str, weights: Option<&Path>) -> String {
    let mut taken = HashSet::new();
    let inputs: Vec<Port> = graph
        .open_inputs()
        .iter()
        .enumerate()
        .filter(|(i, _)| !graph.states.iter().any(|s| s.input as usize == *i))
        .map(|(i, v)| {
            let text = &graph.values[*v].name;
            Port::new(graph, i, text, *v, graph.dims(*v), &mut taken)
        })
        .collect();
    let mut taken = HashSet::new();
    let outputs: Vec<Port> = graph
        .outputs
        .iter()
        .enumerate()
        .filter(|(i, _)| !graph.states.iter().any(|s| s.output as usize == *i))
        .map(|(i, (text, v))| Port::new(graph, i, text, *v, graph.output_dims(i), &mut taken))
        .collect();
    let ty = type_name(name);
    let containers = inputs.iter().chain(&outputs).any(|p| p.container);
    let mut out = String::new();
    let _ = write!(
        out,
        "/// The model `{name}`, compiled by Lapidary.\n///\n/// | | ONNX name | type |\n/// |---|---|---|\n"
    );
    for (role, ports) in [("input", &inputs), ("output", &outputs)] {
        for port in ports {
            let _ = writeln!(out, "/// | {role} | `{}` | `{}` |", port.text, port.shape);
        }
    }
    let weights = match weights {
        Some(path) => format!("Some({:?})", path.to_string_lossy()),
        None => "None".to_string(),
    };
    let _ = write!(
        out,
        "pub struct {ty} {{\n    context: {RT}::Context,\n}}\n\n\
         /// What a run of [`{ty}`] gives.\n#[derive(Clone, Debug)]\npub struct {ty}Outputs {{\n"
    );
    for port in &outputs {
        let _ = writeln!(
            out,
            "    /// `{}`: `{}`\n    pub {}: {},",
            port.text,
            port.shape,
            port.id,
            port.output_type()
        );
    }
    let _ = write!(
        out,
        "}}\n\nimpl {ty} {{\n    \
         /// The file of the weights as it was when the application was built; `None`: they are in the program. A program that\n    \
         /// is shipped names its place in `Options::weights_path`.\n    \
         pub const WEIGHTS: Option<&'static str> = {weights};\n\n    \
         /// The model, ready to run.\n    \
         pub fn new(options: &{RT}::Options) -> Result<Self, {RT}::RuntimeError> {{\n        \
         unsafe extern \"C\" {{\n            #[link_name = \"lapidary_model_{name}\"]\n            static TABLE: {RT}::StaticTable;\n        }}\n        \
         // SAFETY: the symbol is that of the object which was written with this file.\n        \
         let model = unsafe {{ {RT}::StaticModel::new(&raw const TABLE) }}?;\n        \
         let mut options = options.clone();\n        \
         if options.weights_path.is_none() && options.weights.is_none() {{\n            \
         options.weights_path = Self::WEIGHTS.map(::std::path::PathBuf::from);\n        }}\n        \
         let context = {RT}::Context::new(::std::sync::Arc::new(model), &options)?;\n        \
         Ok(Self {{ context }})\n    }}\n\n    \
         /// The context, for all that does not depend on this model: limits, cancelling, states.\n    \
         pub fn context(&mut self) -> &mut {RT}::Context {{\n        &mut self.context\n    }}\n\n    /// Runs the model.\n    ///\n"
    );
    for port in &inputs {
        let default = if port.default && !containers {
            ", may be left out"
        } else {
            ""
        };
        let _ = writeln!(out, "    /// * `{}`: `{}`{default}", port.id, port.shape);
    }
    let parameters: Vec<String> = inputs
        .iter()
        .map(|p| format!("{}: {}", p.id, p.input_type(containers)))
        .collect();
    let _ = write!(
        out,
        "    #[allow(clippy::too_many_arguments)]\n    \
         pub fn run(&mut self{}{}) -> Result<{ty}Outputs, {RT}::RuntimeError> {{\n",
        if parameters.is_empty() { "" } else { ", " },
        parameters.join(", ")
    );
    let values = run_inputs(graph, &inputs, containers);
    let call = if containers {
        "run_values"
    } else {
        "run_given"
    };
    let _ = write!(
        out,
        "        let outputs = self.context.{call}(&[{values}])?;\n        \
         let mut outputs = outputs.into_iter();\n        \
         let mut next = || outputs.next().ok_or_else({RT}::linked::missing_output);\n        \
         Ok({ty}Outputs {{\n"
    );
    for port in &outputs {
        let _ = writeln!(out, "            {}: {},", port.id, port.take(containers));
    }
    out.push_str("        })\n    }\n}\n");
    out
}

/// The list of what a run is given, in the order of the model's inputs.
fn run_inputs(graph: &Graph, inputs: &[Port], containers: bool) -> String {
    let all = 0..graph.open_inputs().len();
    let each = all.map(|i| {
        let Some(port) = inputs.iter().find(|p| p.number == i) else {
            return "None".to_string();
        };
        let id = &port.id;
        match (containers, port.container, port.typed(), port.default) {
            (true, true, ..) => id.clone(),
            (true, false, Some(_), _) => {
                format!("{RT}::OwnedValue::Tensor({id}.view().to_tensor()?)")
            }
            (true, false, None, _) => format!("{RT}::OwnedValue::Tensor({id}.to_tensor()?)"),
            (false, _, Some(_), true) => format!("{id}.map(|value| value.view())"),
            (false, _, Some(_), false) => format!("Some({id}.view())"),
            (false, _, None, true) => id.clone(),
            (false, _, None, false) => format!("Some({id})"),
        }
    });
    each.collect::<Vec<_>>().join(", ")
}

/// An input or output as Rust sees it.
struct Port {
    number: usize,
    /// The ONNX name.
    text: String,
    id: String,
    dtype: DType,
    rank: Option<usize>,
    container: bool,
    default: bool,
    shape: String,
}

impl Port {
    fn new(
        graph: &Graph,
        number: usize,
        text: &str,
        v: ValueId,
        dims: &[Dim],
        taken: &mut HashSet<String>,
    ) -> Port {
        let ty = graph.ty(v);
        let shape = match &ty.shape {
            None if !ty.is_tensor() => lapidary_graph::verify::type_text(graph, ty),
            None => format!("{}, any rank", ty.dtype),
            Some(_) => {
                let dims: Vec<String> = dims.iter().map(|d| graph.dim_text(d)).collect();
                format!("{}[{}]", ty.dtype, dims.join(", "))
            }
        };
        Port {
            number,
            text: plain(text),
            id: field_name(text, taken),
            dtype: ty.dtype,
            rank: ty.shape.as_ref().map(Vec::len).filter(|_| ty.is_tensor()),
            container: !ty.is_tensor(),
            default: graph.default_of(number).is_some(),
            shape: plain(&shape),
        }
    }

    /// Element type and rank, where Rust has a type for them.
    fn typed(&self) -> Option<(String, usize)> {
        let rank = self.rank?;
        let element = match self.dtype {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::I8 => "i8",
            DType::I16 => "i16",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::U8 => "u8",
            DType::U16 => "u16",
            DType::U32 => "u32",
            DType::U64 => "u64",
            DType::Bool => "bool",
            DType::F16 => return Some((format!("{RT}::half::f16"), rank)),
            DType::BF16 => return Some((format!("{RT}::half::bf16"), rank)),
            _ => return None,
        };
        Some((element.to_string(), rank))
    }

    fn input_type(&self, containers: bool) -> String {
        let ty = match self.typed() {
            _ if self.container => return format!("{RT}::OwnedValue"),
            Some((element, rank)) => format!("{RT}::Input<'_, {element}, {rank}>"),
            None => format!("{RT}::TensorView<'_>"),
        };
        match self.default && !containers {
            true => format!("Option<{ty}>"),
            false => ty,
        }
    }

    fn output_type(&self) -> String {
        match self.typed() {
            _ if self.container => format!("{RT}::OwnedValue"),
            Some((element, rank)) => format!("{RT}::Output<{element}, {rank}>"),
            None => format!("{RT}::Tensor"),
        }
    }

    /// The expression that makes the next output this one.
    fn take(&self, containers: bool) -> String {
        let value = match (containers, self.container) {
            (true, true) => return "next()?".to_string(),
            (true, false) => format!("{RT}::linked::tensor_of(next()?)?"),
            (false, _) => "next()?".to_string(),
        };
        match self.typed() {
            Some(_) => format!("{RT}::Output::of({value})?"),
            None => value,
        }
    }
}

/// `resnet_50` is the type `Resnet50`.
fn type_name(name: &str) -> String {
    let words = name.split('_').filter(|w| !w.is_empty());
    let name: String = words
        .map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_uppercase() + rest
        })
        .collect();
    // A keyword, and names that every module knows and the binding itself uses.
    const WORDS: [&str; 9] = [
        "Self", "Option", "Some", "None", "Result", "Ok", "Err", "Vec", "String",
    ];
    if name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() {
        format!("Model{name}")
    } else if WORDS.contains(&name.as_str()) {
        format!("{name}Model")
    } else {
        name
    }
}

/// A name as that of a field or parameter.
fn field_name(text: &str, taken: &mut HashSet<String>) -> String {
    // Keywords that may not be names, those of the bindings among them.
    const WORDS: &str = " as async await box break const continue crate do dyn else enum extern false final fn for gen if impl in let loop \
        macro match mod move mut pub ref return self static struct super trait true try type typeof unsafe unsized use virtual where while yield \
        abstract become override priv outputs next context ";
    let mut name = String::new();
    for c in text.chars() {
        let c = if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        };
        if c != '_' || !name.ends_with('_') {
            name.push(c);
        }
    }
    let name = name.trim_matches('_');
    let mut name = match name.chars().next() {
        None => "value".to_string(),
        Some(c) if c.is_ascii_digit() => format!("value_{name}"),
        Some(_) => name.to_string(),
    };
    if WORDS.contains(&format!(" {name} ")) {
        name.push('_');
    }
    let wish = name.clone();
    let mut number = 1;
    while !taken.insert(name.clone()) {
        number += 1;
        name = format!("{wish}_{number}");
    }
    name
}

/// A text that neither ends a comment's line nor a table's cell.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() || "|`".contains(c) {
                ' '
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::type_name;

    #[test]
    fn types_have_names_that_rust_takes_and_that_hide_nothing() {
        for (name, wanted) in [
            ("bert_base", "BertBase"),
            ("3d", "Model3d"),
            ("_", "Model"),
            ("self", "SelfModel"),
            ("option", "OptionModel"),
            ("ok", "OkModel"),
        ] {
            assert_eq!(type_name(name), wanted);
        }
    }
}
