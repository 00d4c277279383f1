//! Archives of object files, in the form that the linkers of Linux read, without `ar`.
//!
//! GNU's variant: a symbol index, so that linkers find what they need whatever the order; a table of names of more
//! than 15 bytes; members at even offsets. Dates and owners are zero, so equal members make equal archives. A member
//! that lies in a file is copied as a stream.

use crate::error::LinkError;
use object::read::archive::ArchiveFile;
use object::{Object, ObjectSymbol};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Where a member's bytes are.
pub(super) enum Content<'a> {
    Bytes(&'a [u8]),
    File(PathBuf),
}

/// An object file of an archive.
pub(super) struct Member<'a> {
    pub name: String,
    pub content: Content<'a>,
    /// The symbols that it defines for others.
    pub symbols: Vec<String>,
}

impl<'a> Member<'a> {
    /// An object in memory.
    pub fn object(name: String, bytes: &'a [u8]) -> Result<Self, LinkError> {
        let file = object::File::parse(bytes).map_err(|e| LinkError::code(&name, e))?;
        let defined = file
            .symbols()
            .filter(|s| s.is_global() && s.is_definition());
        let symbols = defined.filter_map(|s| s.name().ok().map(str::to_string));
        Ok(Member {
            symbols: symbols.collect(),
            content: Content::Bytes(bytes),
            name,
        })
    }
    fn bytes(&self) -> io::Result<u64> {
        match &self.content {
            Content::Bytes(bytes) => Ok(bytes.len() as u64),
            Content::File(path) => Ok(path.metadata()?.len()),
        }
    }
}

/// The objects of an archive in memory.
pub(super) fn members(archive: &[u8]) -> Result<Vec<Member<'_>>, LinkError> {
    let failed = |e: object::Error| LinkError::code("the runtime's archive", e);
    let file = ArchiveFile::parse(archive).map_err(failed)?;
    let mut all = Vec::new();
    for member in file.members() {
        let member = member.map_err(failed)?;
        let name = String::from_utf8_lossy(member.name()).into_owned();
        all.push(Member::object(name, member.data(archive).map_err(failed)?)?);
    }
    Ok(all)
}

/// A member's header.
fn header(name: &str, size: u64) -> io::Result<[u8; 60]> {
    let text = format!("{name:<16}{0:<12}{0:<6}{0:<6}{1:<8}{size:<10}`\n", 0, 644);
    let bytes = text.into_bytes().try_into();
    bytes.map_err(|_| {
        io::Error::other(format!(
            "a member of {size} bytes, more than an archive takes"
        ))
    })
}

/// Writes an archive.
pub(super) fn write(path: &Path, members: &[Member<'_>]) -> Result<(), LinkError> {
    write_members(path, members).map_err(|e| LinkError::file("write", path, e))
}

fn write_members(path: &Path, members: &[Member<'_>]) -> io::Result<()> {
    let mut names = String::new();
    let mut titles = Vec::new();
    for member in members {
        if member.name.len() < 16 {
            titles.push(format!("{}/", member.name));
        } else {
            titles.push(format!("/{}", names.len()));
            names.push_str(&member.name);
            names.push_str("/\n");
        }
    }
    let sizes = members
        .iter()
        .map(Member::bytes)
        .collect::<io::Result<Vec<u64>>>()?;
    let count = members.iter().map(|m| m.symbols.len() as u64).sum::<u64>();
    let texts = members.iter().flat_map(|m| &m.symbols);
    let texts: u64 = texts.map(|s| s.len() as u64 + 1).sum();
    let padded = |n: u64| n.next_multiple_of(2);
    let total: u64 = sizes.iter().map(|n| 60 + padded(*n)).sum();
    let before = |width: u64| {
        let index = (count + 1) * width + texts;
        let table = if names.is_empty() {
            0
        } else {
            60 + padded(names.len() as u64)
        };
        (index, 8 + 60 + padded(index) + table)
    };
    // Offsets of 32 bits while they reach.
    let narrow = before(4).1 + total <= u64::from(u32::MAX);
    let width = if narrow { 4 } else { 8 };
    let (index_bytes, mut at) = before(width);
    let mut index = Vec::new();
    let mut number = |n: u64| match u32::try_from(n) {
        Ok(n) if narrow => index.extend(n.to_be_bytes()),
        _ => index.extend(n.to_be_bytes()),
    };
    number(count);
    for (member, size) in members.iter().zip(&sizes) {
        member.symbols.iter().for_each(|_| number(at));
        at += 60 + padded(*size);
    }
    for symbol in members.iter().flat_map(|m| &m.symbols) {
        index.extend(symbol.bytes());
        index.push(0);
    }

    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    out.write_all(b"!<arch>\n")?;
    out.write_all(&header(if narrow { "/" } else { "/SYM64/" }, index_bytes)?)?;
    out.write_all(&index)?;
    pad(&mut out, index_bytes)?;
    if !names.is_empty() {
        out.write_all(&header("//", names.len() as u64)?)?;
        out.write_all(names.as_bytes())?;
        pad(&mut out, names.len() as u64)?;
    }
    for ((member, title), size) in members.iter().zip(&titles).zip(&sizes) {
        out.write_all(&header(title, *size)?)?;
        match &member.content {
            Content::Bytes(bytes) => out.write_all(bytes)?,
            Content::File(path) => {
                let copied = io::copy(&mut File::open(path)?, &mut out)?;
                if copied != *size {
                    return Err(io::Error::other("a member changed while it was read"));
                }
            }
        }
        pad(&mut out, *size)?;
    }
    out.flush()
}

fn pad(out: &mut impl Write, bytes: u64) -> io::Result<()> {
    if bytes % 2 == 1 {
        out.write_all(b"\n")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let place = std::env::temp_dir().join(format!("lapidary-archive-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let (file, path) = (place.join("in-a-file"), place.join("x.a"));
        std::fs::write(&file, b"streamed!").unwrap();
        let member = |name: &str, content, symbols: &[&str]| Member {
            name: name.into(),
            content,
            symbols: symbols.iter().map(|s| s.to_string()).collect(),
        };
        let members = [
            member("short.o", Content::Bytes(b"odd"), &["a", "bc"]),
            member(
                "a_name_of_more_than_fifteen_bytes.o",
                Content::Bytes(b"even"),
                &[],
            ),
            member("another_name_that_is_long.o", Content::File(file), &["d"]),
        ];
        write(&path, &members).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let archive = ArchiveFile::parse(&bytes[..]).unwrap();
        let found: Vec<_> = archive.members().map(Result::unwrap).collect();
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|m| (text(m.name()), text(m.data(&bytes[..]).unwrap())))
            .collect();
        let expected = [
            ("short.o", "odd"),
            ("a_name_of_more_than_fifteen_bytes.o", "even"),
            ("another_name_that_is_long.o", "streamed!"),
        ];
        assert_eq!(found, expected.map(|(n, d)| (n.to_string(), d.to_string())));
        let symbols = archive.symbols().unwrap().unwrap();
        let symbols: Vec<_> = symbols
            .map(Result::unwrap)
            .map(|s| {
                let member = archive.member(s.offset()).unwrap();
                (text(s.name()), text(member.name()))
            })
            .collect();
        let expected = [
            ("a", "short.o"),
            ("bc", "short.o"),
            ("d", "another_name_that_is_long.o"),
        ];
        assert_eq!(
            symbols,
            expected.map(|(n, d)| (n.to_string(), d.to_string()))
        );
        std::fs::remove_dir_all(&place).unwrap();
    }
}
