//! A compiled model in a file of the cache: an image and its weights, written once and mapped.
//!
//! [`store`] writes one, [`load`] takes it back. Whatever bytes a file has, loading ends in code that was stored under
//! the same key, or in `None`; lengths, offsets and hashes are looked at before anything is used. The file is code: who can
//! write to the folder can have the process run anything, which is the caller's to prevent.
//!
//! | bytes | what |
//! |---|---|
//! | 4,096 | the header: magic, version, key, where the parts are, their hashes, its own hash |
//! | | the image, its fixes (20 bytes each), its names |
//! | from a multiple of 65,536 | the weights, to the end of the file |

use crate::CodeOptions;
use crate::blob;
use crate::error::LinkError;
use crate::file::Hasher;
use crate::image::{Fix, Image, Placed};
use crate::jit;
use crate::plan::{PlanOptions, plan};
use lapidary_lower::program::Program;
use lapidary_runtime::guard::Guard;
use lapidary_runtime::{ModelCode, abi, ffi};
use memmap2::{Mmap, MmapOptions};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a file is stored under: a hash of everything that its content depends on.
pub type Key = [u8; 32];

const MAGIC: [u8; 8] = *b"LAPCACHE";
const VERSION: u32 = 1;
const HEADER: usize = 4096;
/// Weights are mapped, so they begin at a page on every machine.
const PAGE: u64 = 65_536;
/// Bytes of a fix.
const FIX: usize = 20;
/// Images and their lists are read into memory, so they are not of any size.
const MOST: u64 = 1 << 30;

/// The numbers of a header, in the order in which they are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Numbers {
    image: u64,
    fixes: u64,
    names: u64,
    table: u64,
    weights_at: u64,
    weights: u64,
    /// Hash of image, fixes and names.
    code_hash: u64,
    weights_hash: u64,
}

impl Numbers {
    fn fields(&mut self) -> [&mut u64; 8] {
        [
            &mut self.image,
            &mut self.fixes,
            &mut self.names,
            &mut self.table,
            &mut self.weights_at,
            &mut self.weights,
            &mut self.code_hash,
            &mut self.weights_hash,
        ]
    }

    fn header(mut self, key: &Key) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(key);
        for field in self.fields() {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.resize(HEADER - 8, 0);
        let hash = abi::weights_hash(&out);
        out.extend_from_slice(&hash.to_le_bytes());
        out
    }

    /// The numbers of a header that is ours, whole, and of this key.
    fn read(header: &[u8; HEADER], key: &Key) -> Option<Numbers> {
        let mut numbers = Numbers::default();
        let from = 16 + key.len();
        for (i, field) in numbers.fields().into_iter().enumerate() {
            let bytes = header.get(from + 8 * i..from + 8 * i + 8)?;
            *field = u64::from_le_bytes(bytes.try_into().ok()?);
        }
        (numbers.header(key) == header).then_some(numbers)
    }
}

/// Compiles a program into an empty file. `false` if it is not of a kind that can be stored.
pub fn store(
    program: &Program,
    file: &mut File,
    path: &Path,
    key: &Key,
    options: &CodeOptions<'_>,
) -> Result<bool, LinkError> {
    let failed = |e| LinkError::file("write", path, e);
    let plan = plan(program, PlanOptions::FILE)?;
    jit::check_library(program, &plan, None, Some(&[]))?;
    let Some(image) = Image::compile(program, &plan, options)? else {
        return Ok(false);
    };
    let code = parts(&image);
    let weights_at = (HEADER as u64 + code.len() as u64).next_multiple_of(PAGE);
    let mut out = BufWriter::with_capacity(1 << 20, &mut *file);
    out.write_all(&[0; HEADER]).map_err(failed)?;
    out.write_all(&code).map_err(failed)?;
    let padding = weights_at - HEADER as u64 - code.len() as u64;
    out.write_all(&vec![0; padding as usize]).map_err(failed)?;
    let mut hasher = Hasher::new();
    let mut weights = 0;
    if plan.weights.bytes > 0 {
        blob::stream(program, &plan, options, |bytes| {
            hasher.write(bytes);
            weights += bytes.len() as u64;
            out.write_all(bytes).map_err(failed)
        })?;
    }
    let numbers = Numbers {
        image: image.bytes.len() as u64,
        fixes: image.fixes.len() as u64,
        names: image.names.len() as u64,
        table: image.table,
        weights_at,
        weights,
        code_hash: abi::weights_hash(&code),
        weights_hash: hasher.finish(),
    };
    // Last, so that a file that was not finished has no header.
    out.seek(SeekFrom::Start(0)).map_err(failed)?;
    out.write_all(&numbers.header(key)).map_err(failed)?;
    out.flush().map_err(failed)?;
    Ok(true)
}

fn parts(image: &Image) -> Vec<u8> {
    let mut out = image.bytes.clone();
    for fix in &image.fixes {
        out.extend_from_slice(&fix.at.to_le_bytes());
        out.extend_from_slice(&fix.name.unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&fix.addend.to_le_bytes());
    }
    for name in &image.names {
        out.extend_from_slice(&(name.len() as u32).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
    }
    out
}

/// How a file is taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// All of it is hashed.
    Nothing,
    /// Its weights have been hashed before and nobody has written to it since; the rest is hashed.
    Weights,
}

/// Takes back what was stored under a key.
pub fn load(file: &File, path: &Path, key: &Key, trust: Trust) -> Option<Arc<dyn ModelCode>> {
    let whole = file.metadata().ok()?.len();
    let mut reader = file;
    let mut header = [0; HEADER];
    reader.read_exact(&mut header).ok()?;
    let numbers = Numbers::read(&header, key)?;
    let code = numbers.weights_at.checked_sub(HEADER as u64)?;
    let fits = code <= MOST
        && numbers.weights_at.is_multiple_of(PAGE)
        && numbers.weights_at.checked_add(numbers.weights)? == whole;
    fits.then_some(())?;
    let mut bytes = vec![0; usize::try_from(code).ok()?];
    reader.read_exact(&mut bytes).ok()?;
    let image = image(&numbers, &bytes)?;
    let weights = match numbers.weights {
        0 => None,
        length => {
            let mut options = MmapOptions::new();
            let length = usize::try_from(length).ok()?;
            options.offset(numbers.weights_at).len(length);
            // SAFETY: the map is read-only. Files of the cache are written under another name and then never again;
            // one that is cut short all the same gives zeros, by the guard, and a failed run.
            let map = unsafe { options.map(file) }.ok()?;
            Some(Weights {
                // SAFETY: the guard is dropped before the map.
                guard: unsafe { Guard::new(&raw const map[..], path) },
                map,
            })
        }
    };
    if let Some(weights) = &weights
        && trust == Trust::Nothing
    {
        let hash = abi::weights_hash(&weights.map);
        (hash == numbers.weights_hash && !weights.is_lost()).then_some(())?;
    }
    let base = weights
        .as_ref()
        .map_or(std::ptr::null(), |w| w.map.as_ptr());
    let placed = image.place(base)?;
    Some(Arc::new(StoredCode {
        placed,
        weights,
        path: path.to_path_buf(),
    }))
}

/// The image in the bytes behind the header.
fn image(numbers: &Numbers, bytes: &[u8]) -> Option<Image> {
    let length = usize::try_from(numbers.image).ok()?;
    let fixes_length = usize::try_from(numbers.fixes).ok()?.checked_mul(FIX)?;
    let names_at = length.checked_add(fixes_length)?;
    let fixes = bytes.get(length..names_at)?;
    let mut names = Vec::new();
    let mut at = names_at;
    for _ in 0..numbers.names {
        let size = bytes.get(at..at.checked_add(4)?)?;
        let size = u32::from_le_bytes(size.try_into().ok()?) as usize;
        let text = bytes.get(at + 4..(at + 4).checked_add(size)?)?;
        names.push(std::str::from_utf8(text).ok()?.to_string());
        at += 4 + size;
    }
    // What is behind it is padding.
    (abi::weights_hash(bytes.get(..at)?) == numbers.code_hash).then_some(())?;
    let fixes = fixes.chunks_exact(FIX).map(|fix| {
        let (at, rest) = fix.split_first_chunk::<8>()?;
        let (name, rest) = rest.split_first_chunk::<4>()?;
        let name = u32::from_le_bytes(*name);
        Some(Fix {
            at: u64::from_le_bytes(*at),
            name: (name != u32::MAX).then_some(name),
            addend: i64::from_le_bytes(*rest.first_chunk::<8>()?),
        })
    });
    Some(Image {
        fixes: fixes.collect::<Option<_>>()?,
        bytes: bytes.get(..length)?.to_vec(),
        names,
        table: numbers.table,
    })
}

/// Mapped weights.
struct Weights {
    /// Before the map, which must outlive it.
    guard: Option<Guard>,
    map: Mmap,
}

impl Weights {
    fn is_lost(&self) -> bool {
        self.guard.as_ref().is_some_and(Guard::is_lost)
    }
}

/// Owner of a model that was taken back.
struct StoredCode {
    placed: Placed,
    weights: Option<Weights>,
    path: PathBuf,
}

// SAFETY: the image's table was made by the driver as docs/abi.md says and its hash has been tested since; image and
// weights are owned by `self`.
unsafe impl ModelCode for StoredCode {
    fn table(&self) -> *const ffi::ModelTable {
        self.placed.table()
    }
    fn lost_file(&self) -> Option<String> {
        let lost = self.weights.as_ref().is_some_and(Weights::is_lost);
        lost.then(|| self.path.display().to_string())
    }
}
