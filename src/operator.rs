//! Operators of the application: registered by domain and name, in Rust or in C.
//!
//! In: an [`Operator`] in Rust, or a shared library of C operators (`lapidary_operator.h`). Out: what the importer
//! types nodes with, and the kernels that code in memory calls. A compiled library calls the operator's C function by
//! its link name, so that an operator in Rust alone stays in memory.

use std::any::Any;
use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lapidary_graph::Dim;
use lapidary_import::custom::{CustomNode, CustomOperator};
use lapidary_link::HostKernel;
use lapidary_runtime::ffi::LibraryFn;
use lapidary_runtime::kernel::{Kernel, RUST_KERNEL, RUST_KERNEL_FN, RustKernel};

pub use lapidary_graph::{DType as GraphDType, Dim as GraphDim, TensorType};
pub use lapidary_import::custom::{
    Attribute, CustomNode as OperatorNode, CustomOutput as OperatorOutput,
    CustomTypes as OperatorTypes,
};
pub use lapidary_runtime::kernel::Call;

use crate::Error;

/// An operator of the application.
///
/// ```
/// use lapidary::operator::{Call, Operator, OperatorNode, OperatorOutput, OperatorTypes};
///
/// /// `y = x * factor`
/// struct Scale;
///
/// impl Operator for Scale {
///     fn domain(&self) -> &str {
///         "com.example"
///     }
///     fn name(&self) -> &str {
///         "Scale"
///     }
///     fn infer(&self, node: &OperatorNode<'_>) -> Result<OperatorTypes, String> {
///         let x = node.inputs.first().copied().flatten().ok_or("input 0 is missing")?;
///         Ok(OperatorTypes {
///             outputs: vec![OperatorOutput::like(x)],
///             floats: vec![f64::from(node.float("factor", 1.0)?)],
///             ..OperatorTypes::default()
///         })
///     }
///     fn run(&self, call: &mut Call<'_>) -> Result<(), String> {
///         let factor = call.floats().first().copied().unwrap_or(1.0) as f32;
///         let (shape, x) = call.slice::<f32>(0)?;
///         if let Some(y) = call.output::<f32>(0, &shape)? {
///             y.iter_mut().zip(x).for_each(|(y, x)| *y = x * factor);
///         }
///         Ok(())
///     }
/// }
/// # let mut options = lapidary::Options::default();
/// options.operators.add(Scale);
/// ```
pub trait Operator: Send + Sync + 'static {
    /// Its domain, as nodes of a model name it.
    fn domain(&self) -> &str;
    /// Its name.
    fn name(&self) -> &str;
    /// Types a node and makes the record of numbers and strings that its kernel gets, or says why the node is
    /// refused. Output dims may be expressions of the inputs' dims, which may be symbols.
    fn infer(&self, node: &OperatorNode<'_>) -> Result<OperatorTypes, String>;
    /// Computes a node. Runs of several contexts call it concurrently.
    fn run(&self, call: &mut Call<'_>) -> Result<(), String>;
    /// The link name of a C function that computes the same (`lapidary_kernel_fn` in `lapidary_operator.h`), for
    /// compiled libraries.
    fn symbol(&self) -> Option<&str> {
        None
    }
}

/// The operators that a model may use beside ONNX's; a later one replaces an earlier one of its name.
#[derive(Clone, Default)]
pub struct Operators {
    all: Vec<Entry>,
}

#[derive(Clone)]
enum Entry {
    Rust(Arc<RustOperator>),
    C(Arc<COperator>),
}

impl fmt::Debug for Operators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// Where code goes; it decides what a node may call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Code in this process.
    Memory,
    /// A file, which other processes load.
    File,
}

impl Operators {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds an operator.
    pub fn add(&mut self, operator: impl Operator) {
        let operator = Arc::new(operator);
        let kernel = Arc::new(RustKernel(Arc::new(Shared(operator.clone()))));
        self.all
            .push(Entry::Rust(Arc::new(RustOperator { operator, kernel })));
    }

    /// Adds all operators that a shared library exports as `lapidary_operators`. It is code: load only what you trust.
    /// Gives their number.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<usize, Error> {
        let loaded = COperator::load(path.as_ref())?;
        let n = loaded.len();
        self.all
            .extend(loaded.into_iter().map(|o| Entry::C(Arc::new(o))));
        Ok(n)
    }

    /// Domain and name of each.
    pub fn names(&self) -> Vec<String> {
        let name = |e: &Entry| match e {
            Entry::Rust(o) => format!("{}.{}", o.operator.domain(), o.operator.name()),
            Entry::C(o) => format!("{}.{}", o.domain, o.name),
        };
        self.all.iter().map(name).collect()
    }

    /// Whether one has this domain and name.
    pub fn contains(&self, domain: &str, name: &str) -> bool {
        let default = |domain: &str| domain.is_empty() || domain == "ai.onnx";
        self.all.iter().any(|e| {
            let (its, called) = match e {
                Entry::Rust(o) => (o.operator.domain(), o.operator.name()),
                Entry::C(o) => (o.domain.as_str(), o.name.as_str()),
            };
            called == name && (its == domain || default(its) && default(domain))
        })
    }

    /// What the importer types nodes with.
    pub(crate) fn for_import(&self, target: Target) -> Vec<Arc<dyn CustomOperator>> {
        let entry = |(number, e): (usize, &Entry)| -> Arc<dyn CustomOperator> {
            match e {
                Entry::Rust(operator) => Arc::new(RustTyping {
                    operator: operator.clone(),
                    target,
                }),
                Entry::C(operator) => Arc::new(CTyping {
                    operator: operator.clone(),
                    symbol: match target {
                        Target::Memory => Ok(operator.memory_symbol(number)),
                        Target::File => operator.link_name(),
                    },
                }),
            }
        };
        self.all.iter().enumerate().map(entry).collect()
    }

    /// The kernels that code in memory calls.
    pub(crate) fn kernels(&self) -> Vec<HostKernel> {
        let entry = |(number, e): (usize, &Entry)| match e {
            Entry::Rust(o) => HostKernel {
                symbol: RUST_KERNEL.to_string(),
                function: RUST_KERNEL_FN,
                owner: o.kernel.clone() as Arc<dyn Any + Send + Sync>,
            },
            Entry::C(o) => HostKernel {
                symbol: o.memory_symbol(number),
                function: o.run,
                owner: o.library.clone(),
            },
        };
        self.all.iter().enumerate().map(entry).collect()
    }
}

/// An operator in Rust and the object that its calls point to.
struct RustOperator {
    operator: Arc<dyn Operator>,
    kernel: Arc<RustKernel>,
}

struct Shared<T>(Arc<T>);

impl<T: Operator> Kernel for Shared<T> {
    fn run(&self, call: &mut Call<'_>) -> Result<(), String> {
        self.0.run(call)
    }
}

struct RustTyping {
    operator: Arc<RustOperator>,
    target: Target,
}

impl CustomOperator for RustTyping {
    fn domain(&self) -> &str {
        self.operator.operator.domain()
    }
    fn name(&self) -> &str {
        self.operator.operator.name()
    }
    fn symbol(&self) -> Result<&str, String> {
        match self.target {
            Target::Memory => Ok(RUST_KERNEL),
            Target::File => match self.operator.operator.symbol() {
                Some(symbol) => linkable(symbol).map(|()| symbol),
                None => Err("the operator has no C function, which a compiled library needs (hint: give it a `symbol`)".into()),
            },
        }
    }
    fn infer(&self, node: &CustomNode<'_>) -> Result<OperatorTypes, String> {
        let mut types = self.operator.operator.infer(node)?;
        if self.target == Target::Memory {
            types.ints.insert(0, self.operator.kernel.address());
        }
        Ok(types)
    }
}

/// Whether a compiled library can refer to a function of the application by this name.
fn linkable(symbol: &str) -> Result<(), String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let identifier = symbol.chars().all(word) && !symbol.is_empty();
    if !identifier || symbol.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!(
            "the operator's `symbol` is '{symbol}', expected a C identifier"
        ));
    }
    if symbol.starts_with("lap_") || symbol.starts_with("lapidary_") {
        return Err(format!(
            "the operator's `symbol` is '{symbol}', a name of the runtime's (hint: rename the function)"
        ));
    }
    Ok(())
}

/// The structs of `lapidary_operator.h`.
mod c {
    use super::*;

    pub const VERSION: u32 = 1;
    pub const MAX_RANK: usize = 16;
    pub const NUMBERS: usize = 256;
    pub const STRINGS: usize = 64;

    #[repr(C)]
    pub struct Input {
        pub present: i32,
        pub dtype: i32,
        pub rank: i32,
        pub reserved: i32,
        pub dims: *const i64,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    pub struct Text {
        pub data: *const c_char,
        pub bytes: i64,
    }
    #[repr(C)]
    pub struct Attribute {
        pub name: *const c_char,
        pub kind: i32,
        pub reserved: i32,
        pub n: i64,
        pub ints: *const i64,
        pub floats: *const f32,
        pub strings: *const Text,
    }
    #[repr(C)]
    pub struct Node {
        pub name: *const c_char,
        pub opset: i64,
        pub inputs: *const Input,
        pub attributes: *const Attribute,
        pub n_inputs: i32,
        pub n_attributes: i32,
        pub n_outputs: i32,
        pub reserved: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    pub struct Dim {
        pub value: i64,
        pub input: i32,
        pub axis: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    pub struct Output {
        pub dtype: i32,
        pub rank: i32,
        pub dims: [Dim; MAX_RANK],
    }
    #[repr(C)]
    pub struct Types {
        pub outputs: *mut Output,
        pub ints: [i64; NUMBERS],
        pub floats: [f64; NUMBERS],
        pub strings: [Text; STRINGS],
        pub n_ints: i32,
        pub n_floats: i32,
        pub n_strings: i32,
        pub reserved: i32,
        pub error: [c_char; 256],
    }
    #[repr(C)]
    pub struct Operator {
        pub struct_bytes: u32,
        pub version: u32,
        pub domain: *const c_char,
        pub name: *const c_char,
        pub infer: Option<unsafe extern "C" fn(*const Node, *mut Types) -> i32>,
        pub run: Option<LibraryFn>,
        pub symbol: *const c_char,
    }
}

/// An operator of a loaded library.
struct COperator {
    domain: String,
    name: String,
    symbol: Option<String>,
    infer: unsafe extern "C" fn(*const c::Node, *mut c::Types) -> i32,
    run: LibraryFn,
    library: Arc<libloading::Library>,
    path: PathBuf,
}

impl COperator {
    fn load(path: &Path) -> Result<Vec<COperator>, Error> {
        let failed = |text: String| Error::Usage(format!("'{}': {text}", path.display()));
        // With a folder in it, so that the system does not search its own folders.
        let full = std::fs::canonicalize(path).map_err(|e| failed(e.to_string()))?;
        // SAFETY: the caller trusts the library and its initialisers.
        let library = unsafe { libloading::Library::new(&full) };
        let library = Arc::new(library.map_err(|e| failed(e.to_string()))?);
        // SAFETY: the symbol is data of this type by the header's contract; only its address is taken.
        let list = unsafe {
            library
                .get::<*const *const c::Operator>(b"lapidary_operators")
                .map(|found| found.try_as_raw_ptr())
        };
        let list = list
            .map_err(|_| {
                failed("it exports no `lapidary_operators` (hint: see lapidary_operator.h)".into())
            })?
            .unwrap_or(std::ptr::null_mut())
            .cast::<*const c::Operator>();
        let mut operators = Vec::new();
        let mut at = list;
        // SAFETY: the list ends with NULL, its entries and their strings are constants of the open library.
        while let Some(entry) = unsafe { at.as_ref().and_then(|p| p.as_ref()) } {
            if entry.version != c::VERSION
                || (entry.struct_bytes as usize) < size_of::<c::Operator>()
            {
                return Err(failed(format!(
                    "an operator of version {}, expected {}",
                    entry.version,
                    c::VERSION
                )));
            }
            // SAFETY: strings of the open library, NULL or ended by NUL.
            let text = |p: *const c_char| unsafe {
                (!p.is_null()).then(|| CStr::from_ptr(p).to_string_lossy().into_owned())
            };
            let (Some(name), Some(infer), Some(run)) = (text(entry.name), entry.infer, entry.run)
            else {
                return Err(failed(
                    "an operator without a name, `infer` or `run`".into(),
                ));
            };
            operators.push(COperator {
                domain: text(entry.domain).unwrap_or_default(),
                name,
                symbol: text(entry.symbol),
                infer,
                run,
                library: library.clone(),
                path: path.to_path_buf(),
            });
            at = at.wrapping_add(1);
        }
        Ok(operators)
    }

    /// A name for the function in this process. Not the link name: there may be none, and functions of two libraries
    /// may have the same one.
    fn memory_symbol(&self, number: usize) -> String {
        format!("{}.{}#{number}", self.domain, self.name)
    }

    /// The name by which a compiled library refers to the function.
    fn link_name(&self) -> Result<String, String> {
        let Some(symbol) = &self.symbol else {
            return Err(format!(
                "the operator in '{}' has no link name, which a compiled library needs (hint: set its `symbol`)",
                self.path.display()
            ));
        };
        linkable(symbol).map(|()| symbol.clone())
    }
}

struct CTyping {
    operator: Arc<COperator>,
    /// By which the code calls the kernel.
    symbol: Result<String, String>,
}

impl CustomOperator for CTyping {
    fn domain(&self) -> &str {
        &self.operator.domain
    }
    fn name(&self) -> &str {
        &self.operator.name
    }
    fn symbol(&self) -> Result<&str, String> {
        self.symbol.as_deref().map_err(String::clone)
    }
    fn infer(&self, node: &CustomNode<'_>) -> Result<OperatorTypes, String> {
        self.operator.infer(node)
    }
}

impl COperator {
    fn infer(&self, node: &CustomNode<'_>) -> Result<OperatorTypes, String> {
        // What the structs point to lives in these lists until the call is over.
        let dims: Vec<Vec<i64>> = node
            .inputs
            .iter()
            .map(|t| {
                let dims = t.and_then(|t| t.shape.as_deref()).unwrap_or(&[]);
                dims.iter().map(|d| d.as_const().unwrap_or(-1)).collect()
            })
            .collect();
        let inputs: Vec<c::Input> = node
            .inputs
            .iter()
            .zip(&dims)
            .map(|(t, dims)| c::Input {
                present: i32::from(t.is_some()),
                dtype: t.map_or(0, |t| t.dtype as i32),
                rank: t.and_then(TensorType::rank).map_or(-1, |r| r as i32),
                reserved: 0,
                dims: dims.as_ptr(),
            })
            .collect();
        let text = |b: &Bytes| c::Text {
            data: b.as_ptr().cast(),
            bytes: b.len() as i64,
        };
        let mut names = Vec::new();
        let mut strings: Vec<Vec<c::Text>> = Vec::new();
        let mut attributes = Vec::new();
        for (name, value) in &node.attributes {
            let Ok(name) = CString::new(*name) else {
                continue;
            };
            let mut a = c::Attribute {
                name: name.as_ptr(),
                kind: 0,
                reserved: 0,
                n: 1,
                ints: std::ptr::null(),
                floats: std::ptr::null(),
                strings: std::ptr::null(),
            };
            match value {
                Attribute::Int(v) => (a.kind, a.ints) = (2, v),
                Attribute::Float(v) => (a.kind, a.floats) = (1, v),
                Attribute::Ints(v) => (a.kind, a.ints, a.n) = (7, v.as_ptr(), v.len() as i64),
                Attribute::Floats(v) => (a.kind, a.floats, a.n) = (6, v.as_ptr(), v.len() as i64),
                Attribute::String(s) => {
                    let list = vec![text(s)];
                    (a.kind, a.strings) = (3, list.as_ptr());
                    strings.push(list);
                }
                Attribute::Strings(s) => {
                    let list: Vec<c::Text> = s.iter().map(text).collect();
                    (a.kind, a.strings, a.n) = (8, list.as_ptr(), list.len() as i64);
                    strings.push(list);
                }
                Attribute::Tensor(_) => continue,
            }
            names.push(name);
            attributes.push(a);
        }
        let name = CString::new(node.name).unwrap_or_default();
        let call = c::Node {
            name: name.as_ptr(),
            opset: node.opset,
            inputs: inputs.as_ptr(),
            attributes: attributes.as_ptr(),
            n_inputs: inputs.len() as i32,
            n_attributes: attributes.len() as i32,
            n_outputs: node.outputs as i32,
            reserved: 0,
        };
        let dim = c::Dim {
            value: -1,
            input: -1,
            axis: -1,
        };
        let output = c::Output {
            dtype: 0,
            rank: -1,
            dims: [dim; c::MAX_RANK],
        };
        let mut outputs = vec![output; node.outputs];
        let none = c::Text {
            data: std::ptr::null(),
            bytes: 0,
        };
        let mut types = Box::new(c::Types {
            outputs: outputs.as_mut_ptr(),
            ints: [0; c::NUMBERS],
            floats: [0.0; c::NUMBERS],
            strings: [none; c::STRINGS],
            n_ints: 0,
            n_floats: 0,
            n_strings: 0,
            reserved: 0,
            error: [0; 256],
        });
        // SAFETY: all that the structs point to is alive; the function belongs to the open library.
        let status = unsafe { (self.infer)(&call, &mut *types) };
        if status != 0 {
            let end = types.error.iter().position(|b| *b == 0);
            let end = end.unwrap_or(types.error.len());
            let text: Vec<u8> = types.error.iter().take(end).map(|b| *b as u8).collect();
            return Err(match text.is_empty() {
                true => "its operator refuses it".into(),
                false => String::from_utf8_lossy(&text).into_owned(),
            });
        }
        let count = |n: i32, most: usize, what: &str| match usize::try_from(n) {
            Ok(n) if n <= most => Ok(n),
            _ => Err(format!(
                "its operator states {n} {what}, at most {most} fit"
            )),
        };
        let mut made = OperatorTypes::default();
        for (o, output) in outputs.iter().enumerate() {
            made.outputs.push(
                self.output(node, output)
                    .map_err(|e| format!("output {o}: {e}"))?,
            );
        }
        made.ints = types.ints[..count(types.n_ints, c::NUMBERS, "integers")?].to_vec();
        made.floats = types.floats[..count(types.n_floats, c::NUMBERS, "numbers")?].to_vec();
        for s in &types.strings[..count(types.n_strings, c::STRINGS, "strings")?] {
            let bytes = count(
                s.bytes.min(i64::from(i32::MAX)) as i32,
                i32::MAX as usize,
                "bytes",
            )?;
            made.strings.push(match s.data.is_null() || bytes == 0 {
                true => Bytes::new(),
                // SAFETY: the operator states that so many bytes stand there.
                false => Bytes::copy_from_slice(unsafe {
                    std::slice::from_raw_parts(s.data.cast::<u8>(), bytes)
                }),
            });
        }
        Ok(made)
    }

    fn output(&self, node: &CustomNode<'_>, output: &c::Output) -> Result<OperatorOutput, String> {
        let dtype = GraphDType::from_onnx(output.dtype)
            .ok_or_else(|| format!("element type {} is not known", output.dtype))?;
        if output.rank < 0 {
            return Ok(OperatorOutput { dtype, dims: None });
        }
        let rank = output.rank as usize;
        if rank > c::MAX_RANK {
            return Err(format!("{rank} axes, at most {} fit", c::MAX_RANK));
        }
        let dim = |d: &c::Dim| -> Result<Option<Dim>, String> {
            if d.value >= 0 {
                return Ok(Some(Dim::Const(d.value)));
            }
            let Ok(input) = usize::try_from(d.input) else {
                return Ok(None);
            };
            let shape = node.inputs.get(input).copied().flatten();
            let shape = shape.and_then(|t| t.shape.as_deref()).unwrap_or(&[]);
            match usize::try_from(d.axis)
                .ok()
                .and_then(|axis| shape.get(axis))
            {
                Some(d) => Ok(Some(d.clone())),
                None => Err(format!("input {input} has no axis {}", d.axis)),
            }
        };
        let dims: Result<Vec<Option<Dim>>, String> = output.dims[..rank].iter().map(dim).collect();
        Ok(OperatorOutput {
            dtype,
            dims: Some(dims?),
        })
    }
}
