//! One data object for everything constant that generated code and the model table point to:
//! strings, arrays, attribute records. Pointers in it are relocations.

use crate::error::LinkError;
use cranelift_module::{DataDescription, DataId, FuncId, Linkage, Module};
use std::collections::HashMap;

/// The pool while it grows; offsets stay valid.
pub(super) struct Pool {
    pub id: DataId,
    bytes: Vec<u8>,
    data: Vec<(u32, DataId, i64)>,
    functions: Vec<(u32, FuncId)>,
    strings: HashMap<Vec<u8>, u32>,
}

impl Pool {
    pub fn new<M: Module>(module: &mut M, name: &str) -> Result<Pool, LinkError> {
        let id = module
            .declare_data(&format!("{name}_pool"), Linkage::Local, false, false)
            .map_err(|e| LinkError::code(name, e))?;
        Ok(Pool {
            id,
            bytes: Vec::new(),
            data: Vec::new(),
            functions: Vec::new(),
            strings: HashMap::new(),
        })
    }
    pub fn align(&mut self) -> u32 {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.bytes.len() as u32
    }
    /// A string with a NUL behind it.
    pub fn string(&mut self, text: &str) -> u32 {
        // What C would end early is cut there.
        let mut bytes: Vec<u8> = text.bytes().take_while(|b| *b != 0).collect();
        bytes.push(0);
        if let Some(at) = self.strings.get(&bytes) {
            return *at;
        }
        let at = self.raw(&bytes);
        self.strings.insert(bytes, at);
        at
    }
    pub fn raw(&mut self, bytes: &[u8]) -> u32 {
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        at
    }
    /// Bytes that a kernel may read as it likes: aligned as weights are.
    pub fn blob(&mut self, bytes: &[u8]) -> u32 {
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        self.raw(bytes)
    }
    pub fn i64s(&mut self, values: &[i64]) -> u32 {
        let at = self.align();
        for v in values {
            self.bytes.extend_from_slice(&v.to_le_bytes());
        }
        at
    }
    pub fn i32s(&mut self, values: &[i32]) -> u32 {
        let at = self.align();
        for v in values {
            self.bytes.extend_from_slice(&v.to_le_bytes());
        }
        at
    }
    /// An array of pointers into the pool; `None` is NULL.
    pub fn pointers(&mut self, to: &[Option<u32>]) -> u32 {
        let mut record = Record::default();
        for p in to {
            record.pool(*p);
        }
        self.record(record)
    }
    pub fn record(&mut self, record: Record) -> u32 {
        let at = self.align();
        self.bytes.extend_from_slice(&record.bytes);
        let own = self.id;
        for (offset, target) in record.pointers {
            match target {
                Target::Pool(to) => self.data.push((at + offset, own, i64::from(to))),
                Target::Data(id) => self.data.push((at + offset, id, 0)),
                Target::Function(id) => self.functions.push((at + offset, id)),
            }
        }
        at
    }
    pub fn finish<M: Module>(mut self, module: &mut M) -> (DataId, DataDescription) {
        self.align();
        let mut description = DataDescription::new();
        description.set_align(64);
        if self.bytes.is_empty() {
            self.bytes.resize(8, 0);
        }
        description.define(self.bytes.into_boxed_slice());
        relocate(module, &mut description, &self.data, &self.functions);
        (self.id, description)
    }
}

/// What a pointer points to.
#[derive(Clone, Copy)]
enum Target {
    Pool(u32),
    Data(DataId),
    Function(FuncId),
}

/// A C struct, field by field; the caller keeps it aligned.
#[derive(Default)]
pub(super) struct Record {
    bytes: Vec<u8>,
    pointers: Vec<(u32, Target)>,
}

impl Record {
    pub fn u32(&mut self, v: u32) {
        self.bytes.extend_from_slice(&v.to_le_bytes());
    }
    pub fn i32(&mut self, v: i32) {
        self.bytes.extend_from_slice(&v.to_le_bytes());
    }
    pub fn u64(&mut self, v: u64) {
        self.bytes.extend_from_slice(&v.to_le_bytes());
    }
    pub fn i64(&mut self, v: i64) {
        self.bytes.extend_from_slice(&v.to_le_bytes());
    }
    pub fn f64(&mut self, v: f64) {
        self.bytes.extend_from_slice(&v.to_le_bytes());
    }
    fn pointer(&mut self, target: Option<Target>) {
        if let Some(t) = target {
            self.pointers.push((self.bytes.len() as u32, t));
        }
        self.u64(0);
    }
    pub fn pool(&mut self, at: Option<u32>) {
        self.pointer(at.map(Target::Pool));
    }
    pub fn data(&mut self, id: Option<DataId>) {
        self.pointer(id.map(Target::Data));
    }
    pub fn function(&mut self, id: Option<FuncId>) {
        self.pointer(id.map(Target::Function));
    }
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
    /// A data object of its own from it.
    pub fn finish<M: Module>(self, module: &mut M, pool: &Pool) -> DataDescription {
        let (mut data, mut functions) = (Vec::new(), Vec::new());
        for (offset, target) in &self.pointers {
            match target {
                Target::Pool(to) => data.push((*offset, pool.id, i64::from(*to))),
                Target::Data(id) => data.push((*offset, *id, 0)),
                Target::Function(id) => functions.push((*offset, *id)),
            }
        }
        let mut description = DataDescription::new();
        description.set_align(64);
        description.define(self.bytes.into_boxed_slice());
        relocate(module, &mut description, &data, &functions);
        description
    }
}

fn relocate<M: Module>(
    module: &mut M,
    description: &mut DataDescription,
    data: &[(u32, DataId, i64)],
    functions: &[(u32, FuncId)],
) {
    let mut names = HashMap::new();
    for (offset, id, addend) in data {
        let target = *names
            .entry(*id)
            .or_insert_with(|| module.declare_data_in_data(*id, description));
        description.write_data_addr(*offset, target, *addend);
    }
    let mut names = HashMap::new();
    for (offset, id) in functions {
        let target = *names
            .entry(*id)
            .or_insert_with(|| module.declare_func_in_data(*id, description));
        description.write_function_addr(*offset, target);
    }
}
