//! A model as an image: machine code and tables at fixed distances, to be stored and put into memory again.
//!
//! In: a lowered program. Out: an [`Image`], which does not depend on where it will lie: calls between its parts
//! are resolved, whole addresses are a list of [`Fix`]es. [`Image::place`] puts one into memory and applies them; names that are
//! not its own are looked up then. The code is the code of `jit`; what differs is that all constants are in the
//! weights blob, so that the model's file is not needed.

use crate::CodeOptions;
use crate::code::{self, Isas};
use crate::driver::WeightsAt;
use crate::error::LinkError;
use crate::jit::runtime_function;
use crate::plan::Plan;
use cranelift_codegen::binemit::Reloc;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{
    DataId, FuncId, Init, Module, ModuleDeclarations, ModuleRelocTarget, default_libcall_names,
};
use lapidary_lower::program::Program;
use lapidary_runtime::{abi, ffi};
use memmap2::{Mmap, MmapMut};
use std::collections::HashMap;
use target_lexicon::Triple;

/// The name by which tables refer to the weights.
const WEIGHTS: &str = "lapidary_weights";
/// Parts start at multiples of it.
const ALIGN: usize = 64;

/// A place that holds an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fix {
    /// Offset of eight bytes in the image.
    pub at: u64,
    /// Number of the name whose address it is; `None`: the image's own start.
    pub name: Option<u32>,
    /// What is added to the address.
    pub addend: i64,
}

/// Code and tables of a model.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Image {
    pub bytes: Vec<u8>,
    pub fixes: Vec<Fix>,
    /// Functions and tables of the runtime, and the weights.
    pub names: Vec<String>,
    /// Offset of the model's table.
    pub table: u64,
}

impl Image {
    /// Compiles a program; `None` where its code has a reference of a kind that an image does not hold, as on
    /// other architectures.
    pub fn compile(
        program: &Program,
        plan: &Plan,
        options: &CodeOptions<'_>,
    ) -> Result<Option<Image>, LinkError> {
        let isas = Isas::new(&Triple::host(), &[options.level], false)?;
        // It keeps the names of functions and data; nothing is defined in it.
        let mut module = JITModule::new(JITBuilder::with_isa(
            isas.driver.clone(),
            default_libcall_names(),
        ));
        let at = match plan.weights.bytes {
            0 => WeightsAt::None,
            _ => WeightsAt::Symbol(WEIGHTS.to_string()),
        };
        let name = code::identifier(&plan.name);
        let compiled = code::compile(&mut module, &isas, options, program, plan, &name, at);
        let image =
            compiled.map(|(driver, codes)| assemble(module.declarations(), &driver, &codes));
        // SAFETY: nothing was defined in the module, so nothing refers to its memory.
        unsafe { module.free_memory() };
        image
    }

    /// Puts the image into memory, with weights at an address; `None` if a name is not known or a fix lies outside.
    pub fn place(&self, weights: *const u8) -> Option<Placed> {
        let mut names = Vec::with_capacity(self.names.len());
        for name in &self.names {
            names.push(match name.as_str() {
                WEIGHTS => weights as u64,
                abi::symbol::API => abi::api_table() as u64,
                name => abi::library_symbol(name)
                    .map(|f| f as u64)
                    .or_else(|| runtime_function(name).map(|f| f as u64))?,
            });
        }
        let mut map = MmapMut::map_anon(self.bytes.len().max(1)).ok()?;
        map.get_mut(..self.bytes.len())?
            .copy_from_slice(&self.bytes);
        let base = map.as_ptr() as u64;
        for fix in &self.fixes {
            let target = match fix.name {
                None => base,
                Some(name) => *names.get(name as usize)?,
            };
            let at = usize::try_from(fix.at).ok()?;
            let value = target.wrapping_add_signed(fix.addend);
            map.get_mut(at..at.checked_add(8)?)?
                .copy_from_slice(&value.to_le_bytes());
        }
        let table = usize::try_from(self.table).ok()?;
        let end = table.checked_add(abi::MODEL_TABLE_BYTES)?;
        (end <= self.bytes.len() && table.is_multiple_of(ALIGN)).then_some(())?;
        let map = map.make_exec().ok()?;
        Some(Placed { map, table })
    }
}

/// An image in memory, readable and executable, and no longer writable.
pub(crate) struct Placed {
    map: Mmap,
    table: usize,
}

impl Placed {
    /// The model's table.
    pub fn table(&self) -> *const ffi::ModelTable {
        self.map.as_ptr().wrapping_add(self.table).cast()
    }
}

/// Lays out code and data and resolves what can be.
fn assemble(
    declared: &ModuleDeclarations,
    driver: &code::Driver,
    codes: &[code::Code],
) -> Option<Image> {
    let mut image = Image::default();
    let mut functions: HashMap<FuncId, usize> = HashMap::new();
    let mut data: HashMap<DataId, usize> = HashMap::new();
    let start = |bytes: &mut Vec<u8>| {
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        bytes.len()
    };
    for code in codes {
        (code.align <= ALIGN as u64).then_some(())?;
        functions.insert(code.id, start(&mut image.bytes));
        image.bytes.extend_from_slice(&code.bytes);
    }
    for (id, description) in &driver.data {
        (description.align.unwrap_or(1) <= ALIGN as u64).then_some(())?;
        data.insert(*id, start(&mut image.bytes));
        match &description.init {
            Init::Bytes { contents } => image.bytes.extend_from_slice(contents),
            Init::Zeros { size } => image.bytes.resize(image.bytes.len() + size, 0),
            Init::Uninitialized => return None,
        }
    }
    let mut numbers = HashMap::new();
    let mut resolve = |target: &ModuleRelocTarget, names: &mut Vec<String>| -> Option<Target> {
        let name = match target {
            ModuleRelocTarget::User { .. } if ModuleDeclarations::is_function(target) => {
                let id = FuncId::from_name(target);
                match functions.get(&id) {
                    Some(at) => return Some(Target::Own(*at)),
                    None => declared.get_function_decl(id).linkage_name(id).into_owned(),
                }
            }
            ModuleRelocTarget::User { .. } => {
                let id = DataId::from_name(target);
                match data.get(&id) {
                    Some(at) => return Some(Target::Own(*at)),
                    None => declared.get_data_decl(id).linkage_name(id).into_owned(),
                }
            }
            ModuleRelocTarget::FunctionOffset(id, offset) => {
                return Some(Target::Own(functions.get(id)? + *offset as usize));
            }
            ModuleRelocTarget::LibCall(call) => default_libcall_names()(*call),
            ModuleRelocTarget::KnownSymbol(_) => return None,
        };
        let number = *numbers.entry(name.clone()).or_insert_with(|| {
            names.push(name);
            names.len() as u32 - 1
        });
        Some(Target::Named(number))
    };
    for code in codes {
        let base = *functions.get(&code.id)?;
        for reloc in &code.relocs {
            let at = base + reloc.offset as usize;
            let target = resolve(&reloc.name, &mut image.names)?;
            match (reloc.kind, target) {
                (Reloc::Abs8, target) => image.fixes.push(target.fix(at, reloc.addend)),
                (Reloc::X86PCRel4 | Reloc::X86CallPCRel4, Target::Own(to)) => {
                    let distance = to as i64 + reloc.addend - at as i64;
                    let distance = i32::try_from(distance).ok()?;
                    let place = image.bytes.get_mut(at..at + 4)?;
                    place.copy_from_slice(&distance.to_le_bytes());
                }
                _ => return None,
            }
        }
    }
    for (id, description) in &driver.data {
        let base = *data.get(id)?;
        for (offset, function) in &description.function_relocs {
            let target = description.function_decls.get(*function)?;
            let target = resolve(target, &mut image.names)?;
            image.fixes.push(target.fix(base + *offset as usize, 0));
        }
        for (offset, global, addend) in &description.data_relocs {
            let target = description.data_decls.get(*global)?;
            let target = resolve(target, &mut image.names)?;
            image
                .fixes
                .push(target.fix(base + *offset as usize, *addend));
        }
    }
    image.table = *data.get(&driver.table)? as u64;
    Some(image)
}

/// What a reference refers to.
#[derive(Clone, Copy)]
enum Target {
    /// An offset in the image.
    Own(usize),
    /// The number of a name.
    Named(u32),
}

impl Target {
    fn fix(self, at: usize, addend: i64) -> Fix {
        let (name, addend) = match self {
            Target::Own(to) => (None, addend + to as i64),
            Target::Named(name) => (Some(name), addend),
        };
        Fix {
            at: at as u64,
            name,
            addend,
        }
    }
}
