//! An object file that holds the weights and nothing else, written as a stream.
//!
//! ELF, 64 bits, little-endian: one read-only section, aligned to 64, with one hidden symbol at its
//! start. The blob is never in memory as a whole.

use super::SECTION;
use crate::CodeOptions;
use crate::blob;
use crate::error::LinkError;
use crate::plan::Plan;
use lapidary_lower::program::Program;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use target_lexicon::{Architecture, Triple};

/// Size of the file header.
const HEADER: u64 = 64;

/// A section header.
struct Section {
    name: u32,
    kind: u32,
    flags: u64,
    offset: u64,
    size: u64,
    link: u32,
    info: u32,
    align: u64,
    entry: u64,
}

pub(crate) fn write_weights(
    program: &Program,
    plan: &Plan,
    options: &CodeOptions<'_>,
    target: &Triple,
    symbol: &str,
    path: &Path,
) -> Result<(), LinkError> {
    let failed = |e| LinkError::file("write", path, e);
    let machine: u16 = match target.architecture {
        Architecture::X86_64 => 62,
        Architecture::Aarch64(_) => 183,
        _ => {
            return Err(LinkError::Unsupported {
                what: format!("the target `{target}`"),
                hint: "object files are written for x86-64 and AArch64".into(),
            });
        }
    };
    let bytes = plan.weights.bytes;
    let strings = format!("\0{symbol}\0");
    let mut names = String::from("\0");
    let mut name = |text: &str| {
        let at = names.len() as u32;
        names.push_str(text);
        names.push('\0');
        at
    };
    let mut sections = Vec::new();
    let mut at = HEADER;
    let mut section = |text: &str, kind: u32, flags: u64, size: u64, align: u64| {
        let offset = at;
        at += size.next_multiple_of(8);
        sections.push(Section {
            name: name(text),
            kind,
            flags,
            offset,
            size,
            link: 0,
            info: 0,
            align,
            entry: 0,
        });
    };
    section(SECTION, 1, 2, bytes, 64);
    section(".symtab", 2, 0, 48, 8);
    section(".strtab", 3, 0, strings.len() as u64, 1);
    section(".note.GNU-stack", 1, 0, 0, 1);
    // Its size is known when all names are in.
    section(".shstrtab", 3, 0, 0, 1);
    if let Some(last) = sections.last_mut() {
        last.size = names.len() as u64;
        at = last.offset + last.size.next_multiple_of(8);
    }
    if let Some(symbols) = sections.get_mut(1) {
        symbols.link = 3;
        symbols.info = 1;
        symbols.entry = 24;
    }

    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
    let mut out = Vec::new();
    out.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for v in [1u16, machine] {
        out.extend_from_slice(&v.to_le_bytes());
    }
    out.extend_from_slice(&1u32.to_le_bytes());
    for v in [0u64, 0, at] {
        out.extend_from_slice(&v.to_le_bytes());
    }
    out.extend_from_slice(&0u32.to_le_bytes());
    for v in [
        64u16,
        0,
        0,
        64,
        sections.len() as u16 + 1,
        sections.len() as u16,
    ] {
        out.extend_from_slice(&v.to_le_bytes());
    }
    file.write_all(&out).map_err(failed)?;
    blob::stream(program, plan, options, |bytes| {
        file.write_all(bytes).map_err(failed)
    })?;
    // The null symbol, and: name 1, a global object, hidden, in section 1, at 0.
    let mut out = vec![0; 24];
    out.extend_from_slice(&1u32.to_le_bytes());
    out.extend_from_slice(&[0x11, 2]);
    out.extend_from_slice(&1u16.to_le_bytes());
    out.extend_from_slice(&0u64.to_le_bytes());
    out.extend_from_slice(&bytes.to_le_bytes());
    for text in [&strings, &names] {
        out.extend_from_slice(text.as_bytes());
        out.resize(out.len().next_multiple_of(8), 0);
    }
    out.resize(out.len() + 64, 0);
    for s in &sections {
        out.extend_from_slice(&s.name.to_le_bytes());
        out.extend_from_slice(&s.kind.to_le_bytes());
        for v in [s.flags, 0, s.offset, s.size] {
            out.extend_from_slice(&v.to_le_bytes());
        }
        out.extend_from_slice(&s.link.to_le_bytes());
        out.extend_from_slice(&s.info.to_le_bytes());
        out.extend_from_slice(&s.align.to_le_bytes());
        out.extend_from_slice(&s.entry.to_le_bytes());
    }
    file.write_all(&out).map_err(failed)?;
    file.flush().map_err(failed)
}
