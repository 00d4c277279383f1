//! The C header of a compiled model.
//!
//! One file is enough to use a library: the runtime's public header stands in it, then the model's
//! symbol, numbers for its inputs and outputs, and one typed function that sets the inputs, runs, and
//! hands out pointers to the outputs. All functions are inline over the model's own table.

use lapidary_graph::{DType, Dim, Graph, ValueId};
use std::collections::HashSet;
use std::fmt::Write;

/// The public header of the runtime.
pub const LAPIDARY_H: &str = include_str!(env!("LAPIDARY_HEADER"));

/// The header of a model; `name` is that of the exported symbol.
pub fn header(graph: &Graph, name: &str) -> String {
    let guard = format!("LAPIDARY_MODEL_{}_H", name.to_uppercase());
    let mut out = format!(
        "/* The model `{name}`, compiled by Lapidary.\n *\n{} */\n#ifndef {guard}\n#define {guard}\n\n{LAPIDARY_H}\n",
        summary(graph)
    );
    let _ = write!(
        out,
        "#ifdef __cplusplus\nextern \"C\" {{\n#endif\n\n/* What the library exports. */\nextern const lapidary_model lapidary_model_{name};\n\n"
    );
    let mut taken = Names::default();
    let inputs: Vec<Port> = graph
        .open_inputs()
        .iter()
        .enumerate()
        .map(|(i, v)| Port {
            state: graph.states.iter().any(|s| s.input as usize == i),
            ..Port::new(
                graph,
                &graph.values[*v].name,
                *v,
                graph.dims(*v),
                &mut taken,
            )
        })
        .collect();
    let outputs: Vec<Port> = graph
        .outputs
        .iter()
        .enumerate()
        .map(|(i, (text, v))| Port {
            state: graph.states.iter().any(|s| s.output as usize == i),
            ..Port::new(graph, text, *v, graph.output_dims(i), &mut taken)
        })
        .collect();
    numbers(&mut out, name, "INPUT", &inputs);
    numbers(&mut out, name, "OUTPUT", &outputs);
    let _ = write!(
        out,
        "/* Makes a context; destroy it with lapidary_context_destroy. `options` may be NULL. */\n\
         static inline int32_t {name}_create(const lapidary_options *options, lapidary_context **context) {{\n    \
         return lapidary_context_create(&lapidary_model_{name}, options, context);\n}}\n\n"
    );
    run_function(&mut out, graph, name, &inputs, &outputs, &mut taken);
    out.push_str("#ifdef __cplusplus\n}\n#endif\n#endif\n");
    out
}

/// An input or output as C sees it.
struct Port {
    /// The ONNX name.
    text: String,
    /// A C identifier.
    id: String,
    dtype: DType,
    dims: Option<Vec<Dim>>,
    /// Whether it is a sequence, optional or map.
    container: bool,
    /// Whether the context keeps it from run to run.
    state: bool,
    shape: String,
}

impl Port {
    fn new(graph: &Graph, text: &str, v: ValueId, dims: &[Dim], taken: &mut Names) -> Port {
        let ty = graph.ty(v);
        Port {
            text: comment(text),
            id: taken.fresh(text),
            dtype: ty.dtype,
            dims: ty.shape.as_ref().map(|_| dims.to_vec()),
            container: !ty.is_tensor(),
            state: false,
            shape: comment(&shape(graph, v, dims)),
        }
    }
    /// The element type of its data; `None` where only a descriptor will do.
    fn c_type(&self) -> Option<&'static str> {
        self.dims.as_ref()?;
        Some(match self.dtype {
            DType::F32 => "float",
            DType::F64 => "double",
            DType::U8 | DType::Bool => "uint8_t",
            // A byte an element: a code, or a zero-extended integer.
            t if t.is_minifloat() => "uint8_t",
            DType::U4 | DType::U2 => "uint8_t",
            DType::I4 | DType::I2 => "int8_t",
            DType::I8 => "int8_t",
            DType::U16 | DType::F16 | DType::BF16 => "uint16_t",
            DType::I16 => "int16_t",
            DType::I32 => "int32_t",
            DType::U32 => "uint32_t",
            DType::I64 => "int64_t",
            DType::U64 => "uint64_t",
            _ => return None,
        })
    }
    /// The interface's type of a value that has no typed data.
    fn value_type(&self) -> &'static str {
        match self.container {
            true => "lapidary_value",
            false => "lapidary_tensor",
        }
    }
    /// Code and bits of a DLPack type.
    fn dlpack(&self) -> (u8, usize) {
        use lapidary_runtime::DType;
        let dlpack = DType::from_onnx(self.dtype as i32)
            .unwrap_or(DType::String)
            .dlpack();
        (dlpack.code, dlpack.bits.into())
    }
}

fn shape(graph: &Graph, v: ValueId, dims: &[Dim]) -> String {
    let ty = graph.ty(v);
    match &ty.shape {
        None if !ty.is_tensor() => lapidary_graph::verify::type_text(graph, ty),
        None => format!("{}, any rank", ty.dtype),
        Some(_) => {
            let dims: Vec<String> = dims.iter().map(|d| graph.dim_text(d)).collect();
            format!("{}[{}]", ty.dtype, dims.join(", "))
        }
    }
}

fn summary(graph: &Graph) -> String {
    let mut out = String::new();
    for (i, v) in graph.open_inputs().iter().enumerate() {
        let name = comment(&graph.values[*v].name);
        let shape = comment(&shape(graph, *v, graph.dims(*v)));
        if let Some(state) = graph.states.iter().find(|s| s.input as usize == i) {
            let output = &graph.outputs[state.output as usize].0;
            let _ = writeln!(
                out,
                " * state  {name}: {shape}, output {} of the run before",
                comment(output)
            );
            continue;
        }
        let _ = match graph.default_of(i) {
            None => writeln!(out, " * input  {name}: {shape}"),
            Some(data) => {
                let dims = data.dims.iter().map(i64::to_string).collect::<Vec<_>>();
                let dims = dims.join(", ");
                writeln!(
                    out,
                    " * input  {name}: {shape}, with a default of dims [{dims}]: need not be set"
                )
            }
        };
    }
    for (i, (name, v)) in graph.outputs.iter().enumerate() {
        let shape = comment(&shape(graph, *v, graph.output_dims(i)));
        let _ = writeln!(out, " * output {}: {shape}", comment(name));
    }
    out
}

/// Text that cannot end a comment.
fn comment(text: &str) -> String {
    text.replace("*/", "*_")
        .replace("/*", "_*")
        .replace(|c: char| c.is_control() || c == '\\', "_")
}

fn numbers(out: &mut String, name: &str, role: &str, ports: &[Port]) {
    if ports.is_empty() {
        return;
    }
    let name = name.to_uppercase();
    let _ = writeln!(out, "enum {{");
    for (i, p) in ports.iter().enumerate() {
        let _ = writeln!(
            out,
            "    {name}_{role}_{} = {i}, /* `{}`: {} */",
            p.id.to_uppercase(),
            p.text,
            p.shape
        );
    }
    let _ = writeln!(out, "    {name}_{role}_COUNT = {}\n}};\n", ports.len());
}

/// The typed run.
fn run_function(
    out: &mut String,
    graph: &Graph,
    name: &str,
    inputs: &[Port],
    outputs: &[Port],
    taken: &mut Names,
) {
    // Sizes that the caller gives: each symbol of the inputs once.
    let mut symbols: Vec<(Dim, String, String)> = Vec::new();
    for p in inputs.iter().filter(|p| p.c_type().is_some() && !p.state) {
        for d in p.dims.iter().flatten() {
            if d.as_const().is_none() && !symbols.iter().any(|(s, _, _)| s == d) {
                let text = graph.dim_text(d);
                symbols.push((d.clone(), taken.fresh(&text), comment(&text)));
            }
        }
    }
    let mut params = vec!["lapidary_context *context".to_string()];
    params.extend(symbols.iter().map(|(_, id, text)| {
        if id == text {
            format!("int64_t {id}")
        } else {
            format!("int64_t {id} /* {text} */")
        }
    }));
    for p in inputs.iter().filter(|p| !p.state) {
        params.push(match p.c_type() {
            Some(t) => format!("const {t} *{} /* {} */", p.id, p.shape),
            None => format!("const {} *{} /* {} */", p.value_type(), p.id, p.shape),
        });
    }
    for p in outputs.iter().filter(|p| !p.state) {
        params.push(match p.c_type() {
            Some(t) => format!("const {t} **{} /* {} */", p.id, p.shape),
            None => format!("const {} **{} /* {} */", p.value_type(), p.id, p.shape),
        });
    }
    let upper = name.to_uppercase();
    let states = if inputs.iter().any(|p| p.state) {
        " States are\n * the context's: lapidary_reset_states empties them, lapidary_set_input gives one a value, lapidary_output reads one."
    } else {
        ""
    };
    let _ = write!(
        out,
        "/* Runs the model on contiguous inputs; NULL gives one its default. A pointer to an output that is not NULL is set to the output's\n \
         * data, which is the context's until its next run (its shape: lapidary_output).{states} */\n\
         static inline int32_t {name}_run(\n    {}) {{\n    int32_t code;\n",
        params.join(",\n    ")
    );
    for (i, p) in inputs.iter().enumerate().filter(|(_, p)| !p.state) {
        let Some(dims) = p.dims.as_ref().filter(|_| p.c_type().is_some()) else {
            let _ = writeln!(
                out,
                "    code = lapidary_set_{}(context, {upper}_INPUT_{}, {});\n    if (code) return code;",
                if p.container { "value" } else { "input" },
                p.id.to_uppercase(),
                p.id
            );
            continue;
        };
        let values: Vec<String> = dims
            .iter()
            .map(|d| match d.as_const() {
                Some(c) => c.to_string(),
                None => symbols
                    .iter()
                    .find(|(s, _, _)| s == d)
                    .map_or("0".into(), |(_, id, _)| id.clone()),
            })
            .collect();
        let (code, bits) = p.dlpack();
        let given = match graph.default_of(i) {
            Some(_) => format!("{} ? ", p.id),
            None => String::new(),
        };
        let default = if given.is_empty() { "" } else { " : NULL" };
        let initial = if values.is_empty() {
            "0".to_string()
        } else {
            values.join(", ")
        };
        let _ = write!(
            out,
            "    {{\n        int64_t shape_[] = {{{initial}}};\n        lapidary_tensor tensor_;\n        \
             tensor_.data = (void *)(uintptr_t){};\n        tensor_.device.device_type = 1;\n        \
             tensor_.device.device_id = 0;\n        tensor_.strides = NULL;\n        tensor_.byte_offset = 0;\n        \
             tensor_.ndim = {};\n        tensor_.dtype.code = {code};\n        tensor_.dtype.bits = {bits};\n        \
             tensor_.dtype.lanes = 1;\n        tensor_.shape = shape_;\n        \
             code = lapidary_set_input(context, {upper}_INPUT_{}, {given}&tensor_{default});\n        \
             if (code) return code;\n    }}\n",
            p.id,
            dims.len(),
            p.id.to_uppercase()
        );
    }
    let _ = writeln!(
        out,
        "    code = lapidary_run(context);\n    if (code) return code;"
    );
    for p in outputs.iter().filter(|p| !p.state) {
        let number = format!("{upper}_OUTPUT_{}", p.id.to_uppercase());
        let _ = match p.c_type() {
            Some(t) => writeln!(
                out,
                "    if ({0}) *{0} = (const {t} *)lapidary_output(context, {number})->data;",
                p.id
            ),
            None => writeln!(
                out,
                "    if ({0}) *{0} = lapidary_output{1}(context, {number});",
                p.id,
                if p.container { "_value" } else { "" }
            ),
        };
    }
    let _ = write!(out, "    return LAPIDARY_OK;\n}}\n\n");
}

/// C identifiers that are all different, also in capitals.
#[derive(Default)]
struct Names(HashSet<String>);

impl Names {
    fn fresh(&mut self, text: &str) -> String {
        let mut base: String = text
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        if base.is_empty() || base.starts_with(|c: char| c.is_ascii_digit() || c == '_') {
            base.insert(0, 'v');
        }
        if RESERVED.contains(&base.as_str()) {
            base.push('_');
        }
        let mut name = base.clone();
        let mut n = 2;
        while !self.0.insert(name.to_uppercase()) {
            name = format!("{base}_{n}");
            n += 1;
        }
        name
    }
}

/// Words that C, C++ or the function itself use, and the last number of each list.
const RESERVED: &[&str] = &[
    "alignas",
    "alignof",
    "and",
    "asm",
    "auto",
    "bool",
    "break",
    "case",
    "catch",
    "char",
    "class",
    "code",
    "const",
    "context",
    "continue",
    "count",
    "COUNT",
    "default",
    "delete",
    "do",
    "double",
    "else",
    "enum",
    "explicit",
    "export",
    "extern",
    "false",
    "float",
    "for",
    "friend",
    "goto",
    "if",
    "inline",
    "int",
    "linux",
    "long",
    "mutable",
    "namespace",
    "new",
    "not",
    "NULL",
    "nullptr",
    "operator",
    "or",
    "private",
    "protected",
    "public",
    "register",
    "restrict",
    "return",
    "short",
    "signed",
    "sizeof",
    "static",
    "struct",
    "switch",
    "template",
    "this",
    "throw",
    "true",
    "try",
    "typedef",
    "typeid",
    "typename",
    "typeof",
    "union",
    "unix",
    "unsigned",
    "using",
    "virtual",
    "void",
    "volatile",
    "while",
    "xor",
];
