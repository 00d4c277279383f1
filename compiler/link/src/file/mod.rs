//! A program compiled into files: an object, an archive, a shared library.
//!
//! In: a lowered program and a path. Out: the file, whole or not at all: everything is written under
//! temporary names in a folder beside the target, which is removed whatever happens, and renamed at
//! the end. The weights are a section of their own (streamed, never held), or a file beside the
//! library. A library exports its model's symbol alone.
//!
//! Objects are written for every target of [`crate::target`]; archives and shared libraries for Linux. What needs the
//! runtime of another machine gets it from the user's C compiler and the carried sources.

mod archive;
mod elf;
mod runtime;
mod tools;
mod weights;

use crate::code::{self, Isas};
use crate::driver::WeightsAt;
use crate::error::LinkError;
use crate::plan::{Plan, PlanOptions, plan};
use crate::{CodeOptions, blob, jit, target};
use archive::{Content, Member};
use cranelift_module::{DataDescription, Linkage, Module, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use lapidary_codegen::Level;
use lapidary_lower::program::Program;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use target_lexicon::{BinaryFormat, Triple};
use tools::{Finished, Workplace};

pub use runtime::{write_runtime, write_runtime_sources};
pub(crate) use weights::Hasher;

/// Weights above this many bytes are not put into a library: code must reach past them.
const INSIDE_LIMIT: u64 = 3 << 29;
/// The same for an object, which is held in memory.
const OBJECT_LIMIT: u64 = 256 << 20;
/// The section of the weights.
const SECTION: &str = ".lapidary.weights";

/// The same as an object format names it.
fn section(target: &Triple) -> &'static str {
    match target.binary_format {
        // At most 16 bytes each of segment and section.
        BinaryFormat::Macho => "__TEXT,__lapidary",
        // At most 8 bytes.
        BinaryFormat::Coff => ".weights",
        _ => SECTION,
    }
}

/// What is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Artifact {
    /// One relocatable object; to be linked with the runtime's archive.
    Object,
    /// The objects of the model and of the runtime; for another machine without a compiler for it, of the model alone.
    Archive,
    /// A shared library with the runtime inside.
    Shared,
}

impl Artifact {
    /// By the ending of a file's name: `.o` (or `.obj`), `.a`, `.so`.
    pub fn of(path: &Path) -> Option<Artifact> {
        match path.extension()?.to_str()? {
            "o" | "obj" => Some(Artifact::Object),
            "a" => Some(Artifact::Archive),
            "so" => Some(Artifact::Shared),
            _ => None,
        }
    }
}

/// Where the weights go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WeightsIn {
    /// Inside, unless they are too big for it.
    #[default]
    Auto,
    /// Inside; refused beyond the 1.5 GiB that code reaches past.
    Inside,
    /// A file beside: the same name, ending in `.weights`, unless another is given.
    Beside,
}

/// How files are made.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// A C identifier: the library exports `lapidary_model_<name>`.
    pub name: String,
    /// The machine that the file is for; one of [`crate::target::names`].
    pub target: Triple,
    /// Kernels of every level that the target has, of which a context takes the highest that its processor allows;
    /// `CodeOptions::level` is not asked then.
    pub every_level: bool,
    /// Where the weights go.
    pub weights: WeightsIn,
    /// Where the weights file goes, if there is one; `None`: beside, ending in `.weights`. The library
    /// looks for this file name in its own folder.
    pub weights_path: Option<PathBuf>,
    /// Leave out symbols that only debuggers and profilers read.
    pub strip: bool,
    /// The C compiler for the target, which also drives the linker, perhaps with arguments behind its name; `None`: one
    /// with a usual name.
    pub compiler: Option<PathBuf>,
    /// The runtime's archive for the target; `None`: the carried one, or for another machine the carried sources,
    /// compiled where that is needed.
    pub runtime: Option<PathBuf>,
    /// Objects and archives that go into a shared library as well: the kernels of the application's operators.
    pub link: Vec<PathBuf>,
    /// An archive holds the model and not the runtime, which the program has already.
    pub alone: bool,
}

impl FileOptions {
    /// For this machine, with the tools that are found by their usual names.
    pub fn new(name: impl Into<String>) -> Self {
        FileOptions {
            name: name.into(),
            target: Triple::host(),
            every_level: false,
            weights: WeightsIn::Auto,
            weights_path: None,
            strip: false,
            compiler: None,
            runtime: None,
            link: Vec::new(),
            alone: false,
        }
    }
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The file, as it was asked for.
    pub path: PathBuf,
    /// The weights file, when there is one.
    pub weights: Option<PathBuf>,
    /// Bytes of machine code of the model.
    pub code_bytes: usize,
    /// Size of the weights blob, be it inside or beside.
    pub weight_bytes: u64,
    /// Whether the program that uses the file must be linked with the runtime as well.
    pub needs_runtime: bool,
}

/// Files that are made, and lie under temporary names until they are published. Dropped before, they are gone.
pub struct Prepared {
    /// In the order in which they get their names: what a file needs, before it.
    files: Vec<Finished>,
    written: Written,
}

impl Prepared {
    /// One more file, such as a header.
    pub fn add(&mut self, path: &Path, bytes: &[u8]) -> Result<(), LinkError> {
        let place = Arc::new(Workplace::new(path)?);
        let from = place.write("made", bytes)?;
        let to = path.to_path_buf();
        self.files.push(Finished { place, from, to });
        Ok(())
    }

    /// Where the weights will be, if they have a file of their own.
    pub fn weights(&self) -> Option<&Path> {
        self.written.weights.as_deref()
    }

    /// Gives all files their names, or none; then older files of these names are as they were.
    pub fn publish(self) -> Result<Written, LinkError> {
        tools::publish(&self.files)?;
        Ok(self.written)
    }
}

/// Compiles a program into a file.
pub fn write(
    program: &Program,
    artifact: Artifact,
    path: &Path,
    options: &FileOptions,
    code_options: &CodeOptions<'_>,
) -> Result<Written, LinkError> {
    prepare(program, artifact, path, options, code_options)?.publish()
}

/// Compiles a program into a file that is not there yet.
pub fn prepare(
    program: &Program,
    artifact: Artifact,
    path: &Path,
    options: &FileOptions,
    code_options: &CodeOptions<'_>,
) -> Result<Prepared, LinkError> {
    check(artifact, options, code_options)?;
    // What is missing is told before anything is compiled.
    let compiler = match artifact {
        Artifact::Shared => Some(tools::compiler(
            &options.target,
            options.compiler.as_deref(),
        )?),
        Artifact::Archive => match &options.compiler {
            Some(given) => Some(tools::compiler(&options.target, Some(given))?),
            None => None,
        },
        Artifact::Object => None,
    };
    let plan = plan(program, PlanOptions::FILE)?;
    jit::check_library(program, &plan, None, None)?;
    let place = Arc::new(Workplace::new(path)?);
    let limit = match artifact {
        Artifact::Object => OBJECT_LIMIT,
        _ => INSIDE_LIMIT,
    };
    let bytes = plan.weights.bytes;
    let inside = match options.weights {
        WeightsIn::Auto => bytes <= limit,
        WeightsIn::Beside => false,
        WeightsIn::Inside if bytes > INSIDE_LIMIT => {
            return Err(LinkError::Unsupported {
                what: format!("{bytes} bytes of weights inside of a library"),
                hint: "put them into a file beside it".into(),
            });
        }
        WeightsIn::Inside => true,
    };
    let symbol = format!("lapidary_weights_{}", options.name);
    let mut weights_object = None;
    let mut weights_file = None;
    let mut weights_temporary = place.file("weights");
    let mut weights_place = place.clone();
    let at = if bytes == 0 {
        WeightsAt::None
    } else if !inside {
        let file = match &options.weights_path {
            Some(file) => file.clone(),
            None => path.with_extension("weights"),
        };
        let name = file_name(&file);
        if let Some(path) = &options.weights_path {
            // Renaming works within a file system only.
            weights_place = Arc::new(Workplace::new(path)?);
            weights_temporary = weights_place.file("weights");
        }
        let hash = weights::write_file(program, &plan, code_options, &weights_temporary)?;
        weights_file = Some(file);
        WeightsAt::File { name, hash }
    } else {
        if artifact != Artifact::Object {
            let object = place.file("weights.o");
            let target = &options.target;
            elf::write_weights(program, &plan, code_options, target, &symbol, &object)?;
            weights_object = Some(object);
        }
        WeightsAt::Symbol(symbol.clone())
    };
    let own_weights = (inside && bytes > 0 && artifact == Artifact::Object).then_some(symbol);
    let (object, code_bytes) = object(program, &plan, options, code_options, at, own_weights)?;
    let first = place.file("model.o");
    std::fs::write(&first, &object).map_err(|e| LinkError::file("write", &first, e))?;
    let runtime = match artifact {
        Artifact::Object => None,
        _ => runtime(&place, options, compiler.as_deref(), code_options)?,
    };
    let made = match (artifact, &compiler, &runtime) {
        (Artifact::Object, ..) => first,
        (Artifact::Shared, Some(compiler), Some(runtime)) => {
            let objects: Vec<PathBuf> = [Some(first), weights_object]
                .into_iter()
                .flatten()
                .collect();
            let name = file_name(path);
            tools::shared(&place, &objects, options, compiler, runtime, &name)?
        }
        _ => {
            let bytes = match &runtime {
                Some(path) => std::fs::read(path).map_err(|e| LinkError::file("read", path, e))?,
                None => Vec::new(),
            };
            let mut members = match &runtime {
                Some(_) => archive::members(&bytes)?,
                None => Vec::new(),
            };
            members.push(Member::object(format!("{}.o", options.name), &object)?);
            if let Some(object) = weights_object {
                members.push(Member {
                    name: format!("{}_weights.o", options.name),
                    content: Content::File(object),
                    symbols: vec![format!("lapidary_weights_{}", options.name)],
                });
            }
            let out = place.file("out.a");
            archive::write(&out, &members)?;
            out
        }
    };
    let mut files = Vec::new();
    if let Some(file) = &weights_file {
        files.push(Finished {
            place: weights_place,
            from: weights_temporary,
            to: file.clone(),
        });
    }
    files.push(Finished {
        place,
        from: made,
        to: path.to_path_buf(),
    });
    let written = Written {
        path: path.to_path_buf(),
        weights: weights_file,
        code_bytes,
        weight_bytes: bytes,
        needs_runtime: runtime.is_none(),
    };
    Ok(Prepared { files, written })
}

/// The runtime's archive for a library, if the options lead to one.
fn runtime(
    place: &Workplace,
    options: &FileOptions,
    compiler: Option<&Path>,
    code_options: &CodeOptions<'_>,
) -> Result<Option<PathBuf>, LinkError> {
    if options.alone {
        return Ok(None);
    }
    if let Some(path) = &options.runtime {
        return Ok(Some(path.clone()));
    }
    if let Some(archive) = runtime::carried(&options.target) {
        return place.write("runtime.a", &archive).map(Some);
    }
    let compiled = compiler.map(|c| runtime::compile(place, c, code_options.threads));
    compiled.transpose()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map_or(String::new(), |n| n.to_string_lossy().into_owned())
}

fn check(
    artifact: Artifact,
    options: &FileOptions,
    code_options: &CodeOptions<'_>,
) -> Result<(), LinkError> {
    let name = &options.name;
    if name.is_empty() || code::identifier(name) != *name {
        return Err(LinkError::Name(name.clone()));
    }
    let target = &options.target;
    let unsupported = |what: String, hint: &str| {
        Err(LinkError::Unsupported {
            what,
            hint: hint.into(),
        })
    };
    if target.binary_format != BinaryFormat::Elf && artifact != Artifact::Object {
        return unsupported(
            format!("a library for `{target}`"),
            "write an object (.o), and link it there with the runtime's sources (`lapidary runtime`)",
        );
    }
    if !target::has_levels(target) && code_options.level != Level::Baseline && !options.every_level
    {
        return unsupported(
            format!("level {:?} for `{target}`", code_options.level),
            "it is a level of x86-64; use the baseline",
        );
    }
    if artifact != Artifact::Shared && !options.link.is_empty() {
        return unsupported(
            "linking other objects into an archive or an object".into(),
            "only a shared library (.so) is linked here; give them to the linker of the program",
        );
    }
    Ok(())
}

/// The object with code and table; also the weights, if a symbol for them is given.
fn object(
    program: &Program,
    plan: &Plan,
    options: &FileOptions,
    code_options: &CodeOptions<'_>,
    weights: WeightsAt,
    own_weights: Option<String>,
) -> Result<(Vec<u8>, usize), LinkError> {
    let name = &options.name;
    let failed = |e: &dyn std::fmt::Display| LinkError::code(name, e);
    let one = [code_options.level];
    let levels = match options.every_level {
        true => code::levels_of(&options.target),
        false => &one,
    };
    let isas = Isas::new(&options.target, levels, true)?;
    let builder = ObjectBuilder::new(
        isas.driver.clone(),
        name.as_bytes(),
        default_libcall_names(),
    )
    .map_err(|e| failed(&e))?;
    let mut module = ObjectModule::new(builder);
    if let Some(symbol) = own_weights {
        let id = module
            .declare_data(&symbol, Linkage::Hidden, false, false)
            .map_err(|e| failed(&e))?;
        let mut description = DataDescription::new();
        description.set_align(64);
        description.set_custom_section(section(&options.target));
        let bytes = blob::in_memory(program, Default::default(), plan, code_options)?;
        description.define(bytes.map_or_else(Box::default, |m| m.to_vec().into_boxed_slice()));
        module
            .define_data(id, &description)
            .map_err(|e| failed(&e))?;
    }
    let (mut driver, codes) = code::compile(
        &mut module,
        &isas,
        code_options,
        program,
        plan,
        name,
        weights,
    )?;
    driver.refer(&mut module, &codes)?;
    code::define(&mut module, &driver, &codes)?;
    let product = module.finish();
    let bytes = product.emit().map_err(|e| failed(&e))?;
    Ok((bytes, codes.iter().map(|c| c.bytes.len()).sum()))
}
