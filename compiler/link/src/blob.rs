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
use bytes::Bytes;
use lapidary_graph::Def;
use lapidary_lower::program::{ConstId, Program};
use memmap2::MmapMut;
use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// So often, what was read of the model is given back.
const WAVE: Duration = Duration::from_millis(2);
/// Below so many bytes of weights it is not worth the trouble.
const MUCH: u64 = 16 << 20;
/// Constants below this are not worth a system call.
const WORTH: usize = 256 << 10;

/// What makes a prepared constant.
pub(crate) type Make = Box<dyn Fn(&mut [u8]) + Send + Sync>;

/// Constants that are dropped as soon as they are in the blob.
#[derive(Default)]
pub(crate) struct Taken {
    /// By program and constant.
    makes: HashMap<(u32, ConstId), Make>,
    /// Where constants of the program lie, or lay.
    addresses: Vec<(usize, usize)>,
}

/// Takes out of a program what only the blob needs: the makers of prepared constants, which then
/// own what they read alone, so that it goes with them.
pub(crate) fn take(program: &mut Program, plan: &Plan) -> Taken {
    let mut taken = Taken::default();
    addresses(program, plan, &mut taken.addresses);
    let sources: HashSet<(u32, WeightSource)> = plan
        .weights
        .entries
        .iter()
        .map(|e| (e.program, e.source))
        .collect();
    take_from(program, plan, &sources, &mut 0, &mut taken);
    taken
}

/// [`take`] for one program and its bodies, numbered as the weights' entries are.
fn take_from(
    program: &mut Program,
    plan: &Plan,
    sources: &HashSet<(u32, WeightSource)>,
    number: &mut u32,
    taken: &mut Taken,
) {
    let own = *number;
    *number += 1;
    for c in program.constants.keys() {
        let made: Make = Box::new(|_| {});
        let make = std::mem::replace(&mut program.constants[c].make, made);
        // What another body has prepared in the same way is not made again.
        if sources.contains(&(own, WeightSource::Prepared(c))) {
            taken.makes.insert((own, c), make);
        }
    }
    for v in program.graph.values.keys() {
        if let Def::Const(t) = &mut program.graph.values[v].def
            && !sources.contains(&(own, WeightSource::Raw(v)))
            && !plan.pinned.contains(&v)
        {
            t.bytes = Bytes::new();
        }
    }
    for (body, plan) in program.bodies.iter_mut().zip(&plan.bodies) {
        take_from(&mut body.program, plan, sources, number, taken);
    }
}

/// A program and its bodies, numbered as the weights' entries are.
fn programs<'a>(program: &'a Program, into: &mut Vec<&'a Program>) {
    into.push(program);
    for body in &program.bodies {
        programs(&body.program, into);
    }
}

/// Where the constants lie that are not used in place and are worth a system call.
fn addresses(program: &Program, plan: &Plan, found: &mut Vec<(usize, usize)>) {
    let pinned: HashSet<_> = plan.pinned.iter().collect();
    for (body, plan) in program.bodies.iter().zip(&plan.bodies) {
        addresses(&body.program, plan, found);
    }
    for (v, data) in program.graph.values.iter() {
        if let Def::Const(t) = &data.def
            && t.bytes.len() >= WORTH
            && !pinned.contains(&v)
        {
            found.push((t.bytes.as_ptr() as usize, t.bytes.len()));
        }
    }
}

/// The blob in memory; page-aligned, zero between entries.
pub(crate) fn in_memory(
    program: &Program,
    mut taken: Taken,
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
    if bytes as u64 >= MUCH {
        // Only speed is lost where the system has no huge pages.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
    }
    let pages = Pages::new(options, taken.addresses);
    let mut all = Vec::new();
    programs(program, &mut all);
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
        let make = match entry.source {
            WeightSource::Prepared(c) => taken.makes.remove(&(entry.program, c)),
            WeightSource::Raw(_) => None,
        };
        work.push(Mutex::new((entry, slice, make)));
    }
    pages.while_running(bytes as u64, || {
        parallel(&work, threads(options.threads), |job| {
            let mut job = job.lock().unwrap_or_else(PoisonError::into_inner);
            let (entry, slice, make) = &mut *job;
            match make.take() {
                Some(make) => make(slice),
                None => fill(&all, entry, slice),
            }
            Ok(())
        })
    })?;
    drop(work);
    Ok(Some(map))
}

/// Writes the blob piece by piece, with its padding.
pub(crate) fn stream(
    program: &Program,
    plan: &Plan,
    options: &CodeOptions<'_>,
    mut write: impl FnMut(&[u8]) -> Result<(), LinkError>,
) -> Result<(), LinkError> {
    let mut read = Vec::new();
    addresses(program, plan, &mut read);
    let pages = Pages::new(options, read);
    let mut all = Vec::new();
    programs(program, &mut all);
    pages.while_running(plan.weights.bytes, || {
        stream_entries(&all, plan, &mut write)
    })
}

fn stream_entries(
    programs: &[&Program],
    plan: &Plan,
    write: &mut dyn FnMut(&[u8]) -> Result<(), LinkError>,
) -> Result<(), LinkError> {
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
        pad(&mut at, entry.offset, write)?;
        match raw(programs, entry) {
            Some(bytes) => write(bytes)?,
            None => {
                let mut buffer = vec![0; entry.bytes as usize];
                fill(programs, entry, &mut buffer);
                write(&buffer)?;
            }
        }
        at += entry.bytes;
    }
    pad(&mut at, plan.weights.bytes, write)
}

fn raw<'a>(programs: &[&'a Program], entry: &WeightEntry) -> Option<&'a [u8]> {
    let program = programs.get(entry.program as usize)?;
    match entry.source {
        WeightSource::Raw(v) => program.graph.constant(v).map(|t| &*t.bytes),
        WeightSource::Prepared(_) => None,
    }
}

fn fill(programs: &[&Program], entry: &WeightEntry, to: &mut [u8]) {
    match entry.source {
        WeightSource::Raw(_) => {
            if let Some(bytes) = raw(programs, entry)
                && bytes.len() == to.len()
            {
                to.copy_from_slice(bytes);
            }
        }
        WeightSource::Prepared(c) => {
            let program = programs.get(entry.program as usize);
            if let Some(prepared) = program.and_then(|p| p.constants.get(c)) {
                (prepared.make)(to);
            }
        }
    }
}

/// Bytes of the model that may be given back.
struct Pages<'a> {
    release: Option<&'a (dyn Fn(*const [u8]) + Sync)>,
    addresses: Vec<(usize, usize)>,
}

impl<'a> Pages<'a> {
    fn new(options: &CodeOptions<'a>, addresses: Vec<(usize, usize)>) -> Self {
        Pages {
            release: options.release,
            addresses,
        }
    }
    /// Does the work, and beside it gives back again and again what the work has read: a constant can
    /// be as big as all others together, so the end of each is too late.
    fn while_running<R>(&self, bytes: u64, work: impl FnOnce() -> R) -> R {
        if self.release.is_none() || bytes < MUCH {
            return work();
        }
        let (done, changed) = (Mutex::new(false), Condvar::new());
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                while !*done {
                    self.all();
                    done = changed
                        .wait_timeout(done, WAVE)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
            });
            // Also when the work panics, or the scope would wait for ever.
            let _end = OnDrop(|| {
                *done.lock().unwrap_or_else(PoisonError::into_inner) = true;
                changed.notify_all();
            });
            work()
        });
        self.all();
        result
    }
    fn all(&self) {
        if let Some(release) = self.release {
            for (at, bytes) in &self.addresses {
                release(std::ptr::slice_from_raw_parts(*at as *const u8, *bytes));
            }
        }
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
