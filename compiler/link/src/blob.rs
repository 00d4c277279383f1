//! Fills the weights blob, in memory or as a stream.
//!
//! Prepared constants write themselves; raw ones are copied. Memory is the point: pages of a mapped
//! model that have been read are given back through the caller's `release`, so that the file and the
//! blob are not resident together. In memory the entries are filled by several threads; a stream
//! holds one entry at a time.

use crate::CodeOptions;
use crate::code::{parallel, threads};
use crate::error::LinkError;
use crate::plan::{Plan, WeightEntry, WeightSource};
use lapidary_graph::Def;
use lapidary_lower::program::Program;
use memmap2::MmapMut;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// After so many bytes, what was read of the model is given back.
const WAVE: u64 = 32 << 20;
/// Constants below this are not worth a system call.
const WORTH: usize = 256 << 10;

/// The blob in memory; page-aligned, zero between entries.
pub(crate) fn in_memory(
    program: &Program,
    plan: &Plan,
    options: &CodeOptions<'_>,
) -> Result<Option<MmapMut>, LinkError> {
    let bytes = plan.weights.bytes as usize;
    if bytes == 0 {
        return Ok(None);
    }
    let mut map = MmapMut::map_anon(bytes).map_err(|source| LinkError::Memory {
        what: "weights",
        bytes,
        source,
    })?;
    let pages = Pages::new(program, plan, options);
    let mut rest: &mut [u8] = &mut map;
    let mut at = 0;
    let mut work = Vec::with_capacity(plan.weights.entries.len());
    for entry in &plan.weights.entries {
        let tail = std::mem::take(&mut rest);
        let (Some(skip), Ok(len)) = (entry.offset.checked_sub(at), usize::try_from(entry.bytes))
        else {
            return Err(LinkError::code("weights", "entries overlap"));
        };
        let skip = skip as usize;
        if tail.len() < skip + len {
            return Err(LinkError::code("weights", "entries reach behind the blob"));
        }
        let (slice, tail) = tail.split_at_mut(skip).1.split_at_mut(len);
        rest = tail;
        at = entry.offset + entry.bytes;
        work.push(Mutex::new((entry, slice)));
    }
    parallel(&work, threads(options.threads), |job| {
        let mut job = job.lock().unwrap_or_else(PoisonError::into_inner);
        let (entry, slice) = &mut *job;
        fill(program, entry, slice);
        pages.after(entry);
        Ok(())
    })?;
    pages.all();
    Ok(Some(map))
}

/// Writes the blob piece by piece, with its padding.
pub(crate) fn stream(
    program: &Program,
    plan: &Plan,
    options: &CodeOptions<'_>,
    mut write: impl FnMut(&[u8]) -> Result<(), LinkError>,
) -> Result<(), LinkError> {
    let pages = Pages::new(program, plan, options);
    let mut at = 0;
    let padding = [0u8; 64];
    let pad = |at: &mut u64, to: u64, write: &mut dyn FnMut(&[u8]) -> Result<(), LinkError>| {
        while *at < to {
            let n = (to - *at).min(64);
            write(padding.get(..n as usize).unwrap_or_default())?;
            *at += n;
        }
        Ok::<(), LinkError>(())
    };
    for entry in &plan.weights.entries {
        pad(&mut at, entry.offset, &mut write)?;
        match raw(program, entry) {
            Some(bytes) => write(bytes)?,
            None => {
                let mut buffer = vec![0; entry.bytes as usize];
                fill(program, entry, &mut buffer);
                write(&buffer)?;
            }
        }
        at += entry.bytes;
        pages.after(entry);
    }
    pad(&mut at, plan.weights.bytes, &mut write)?;
    pages.all();
    Ok(())
}

fn raw<'a>(program: &'a Program, entry: &WeightEntry) -> Option<&'a [u8]> {
    match entry.source {
        WeightSource::Raw(v) => program.graph.constant(v).map(|t| &*t.bytes),
        WeightSource::Prepared(_) => None,
    }
}

fn fill(program: &Program, entry: &WeightEntry, to: &mut [u8]) {
    match entry.source {
        WeightSource::Raw(_) => {
            if let Some(bytes) = raw(program, entry)
                && bytes.len() == to.len()
            {
                to.copy_from_slice(bytes);
            }
        }
        WeightSource::Prepared(c) => {
            if let Some(prepared) = program.constants.get(c) {
                (prepared.make)(to);
            }
        }
    }
}

/// Bytes of the model that may be given back.
struct Pages<'a> {
    program: &'a Program,
    release: Option<&'a (dyn Fn(&[u8]) + Sync)>,
    constants: Vec<&'a [u8]>,
    done: AtomicU64,
}

impl<'a> Pages<'a> {
    fn new(program: &'a Program, plan: &Plan, options: &CodeOptions<'a>) -> Self {
        let mut constants = Vec::new();
        if options.release.is_some() {
            let pinned: HashSet<_> = plan.pinned.iter().collect();
            for (v, data) in program.graph.values.iter() {
                if let Def::Const(t) = &data.def
                    && t.bytes.len() >= WORTH
                    && !pinned.contains(&v)
                {
                    constants.push(&*t.bytes);
                }
            }
        }
        Pages {
            program,
            release: options.release,
            constants,
            done: AtomicU64::new(0),
        }
    }
    fn after(&self, entry: &WeightEntry) {
        let Some(release) = self.release else { return };
        if let Some(bytes) = raw(self.program, entry) {
            if bytes.len() >= WORTH {
                release(bytes);
            }
            return;
        }
        let before = self.done.fetch_add(entry.bytes, Ordering::Relaxed);
        if before / WAVE != (before + entry.bytes) / WAVE {
            self.all();
        }
    }
    fn all(&self) {
        if let Some(release) = self.release {
            self.constants.iter().for_each(|bytes| release(bytes));
        }
    }
}
