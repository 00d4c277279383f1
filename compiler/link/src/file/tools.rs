//! The tools of the system, and the folder in which they work.

use super::FileOptions;
use crate::error::LinkError;
use lapidary_runtime::abi;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The runtime and the kernels in C.
const RUNTIME: &[u8] = include_bytes!(env!("LAPIDARY_ARCHIVE"));

/// A temporary folder beside the target, removed when dropped.
pub(super) struct Workplace {
    folder: PathBuf,
}

impl Workplace {
    pub fn new(target: &Path) -> Result<Self, LinkError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let parent = match target.parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        name.push(format!(".{}-{number}.tmp", std::process::id()));
        let folder = parent.join(name);
        std::fs::create_dir(&folder).map_err(|e| LinkError::file("write", target, e))?;
        // Tools run elsewhere need the whole path.
        let folder = std::fs::canonicalize(&folder).unwrap_or(folder);
        Ok(Workplace { folder })
    }
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, LinkError> {
        let path = self.file(name);
        std::fs::write(&path, bytes).map_err(|e| LinkError::file("write", &path, e))?;
        Ok(path)
    }
}

/// A finished file under its temporary name, in a folder beside its place.
pub(super) struct Finished {
    pub place: Arc<Workplace>,
    pub from: PathBuf,
    pub to: PathBuf,
}

impl Finished {
    /// Gives the file its name. What it replaces is kept, under the name that is given back.
    fn publish(&self, number: usize) -> io::Result<Option<PathBuf>> {
        let old = std::fs::symlink_metadata(&self.to).is_ok_and(|m| !m.is_dir());
        let kept = old.then(|| self.place.file(&format!("replaced-{number}")));
        if let Some(kept) = &kept {
            // A second name leaves no moment without the file; not every file system has them.
            std::fs::hard_link(&self.to, kept).or_else(|_| std::fs::rename(&self.to, kept))?;
        }
        if let Err(error) = std::fs::rename(&self.from, &self.to) {
            // The first error is the one that tells.
            if let Some(kept) = &kept {
                let _ = std::fs::rename(kept, &self.to);
            }
            return Err(error);
        }
        Ok(kept)
    }
}

/// Gives finished files their names, in this order: all or none. What they replace is kept until the last is there.
pub(super) fn publish(files: &[Finished]) -> Result<(), LinkError> {
    let mut done: Vec<(&Finished, Option<PathBuf>)> = Vec::new();
    for (number, file) in files.iter().enumerate() {
        match file.publish(number) {
            Ok(kept) => done.push((file, kept)),
            Err(error) => {
                for (file, kept) in done.into_iter().rev() {
                    // The first error is the one that tells.
                    let _ = match kept {
                        Some(kept) => std::fs::rename(kept, &file.to),
                        None => std::fs::remove_file(&file.to),
                    };
                }
                return Err(LinkError::file("write", &file.to, error));
            }
        }
    }
    Ok(())
}

impl Drop for Workplace {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The runtime's archive with the model's objects added.
pub(super) fn archive(
    place: &Workplace,
    objects: &[PathBuf],
    options: &FileOptions,
) -> Result<PathBuf, LinkError> {
    let out = place.write("out.a", RUNTIME)?;
    let mut command = Command::new(&options.archiver);
    command.arg("rcs").arg(&out).args(objects);
    run(
        command,
        "give another archiver, or write a shared library (.so)",
    )?;
    Ok(out)
}

/// A shared library of the objects and what they need of the runtime.
pub(super) fn shared(
    place: &Workplace,
    objects: &[PathBuf],
    options: &FileOptions,
    file_name: &str,
) -> Result<PathBuf, LinkError> {
    let runtime = place.write("runtime.a", RUNTIME)?;
    let script = format!(
        "{{ global: {}{}; local: *; }};\n",
        abi::symbol::MODEL_PREFIX,
        options.name
    );
    let script = place.write("exports", script.as_bytes())?;
    let out = place.file("out.so");
    let mut command = Command::new(&options.linker);
    let mut version = OsString::from("-Wl,--version-script=");
    version.push(script);
    let mut soname = OsString::from("-Wl,-soname,");
    soname.push(file_name);
    command
        .args(["-shared", "-o"])
        .arg(&out)
        .args(objects)
        .args(&options.link)
        .arg(runtime)
        .arg(version)
        .args([
            "-Wl,--gc-sections",
            "-Wl,--exclude-libs,ALL",
            "-Wl,--build-id=none",
            "-Wl,--no-undefined",
            "-Wl,-z,noexecstack,-z,relro",
        ]);
    // A comma would be read as the end of the name.
    if !file_name.contains(',') {
        command.arg(soname);
    }
    if options.strip {
        command.arg("-Wl,-s");
    }
    command.args(["-lm", "-lpthread"]);
    run(command, "install a C compiler, or name one as the linker")?;
    Ok(out)
}

fn run(mut command: Command, hint: &'static str) -> Result<(), LinkError> {
    let tool = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => LinkError::ToolMissing {
            tool: tool.clone(),
            hint,
        },
        _ => LinkError::file("run", Path::new(&tool), e),
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(LinkError::ToolFailed {
        tool,
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_cannot_be_published_leaves_the_old_weights() {
        let root = std::env::temp_dir().join(format!("lapidary-publish-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        // A folder with something inside stands where the library goes.
        let (library, weights) = (root.join("m.so"), root.join("m.weights"));
        std::fs::create_dir_all(library.join("full")).unwrap();
        fn finished(place: &Arc<Workplace>, from: PathBuf, to: &Path) -> Finished {
            let (place, to) = (place.clone(), to.to_path_buf());
            Finished { place, from, to }
        }
        for old in [Some("old"), None] {
            let place = Arc::new(Workplace::new(&library).unwrap());
            let made = place.write("made", b"library").unwrap();
            let new = place.write("new", b"new").unwrap();
            match old {
                Some(text) => std::fs::write(&weights, text).unwrap(),
                None => std::fs::remove_file(&weights).unwrap(),
            }
            assert!(
                publish(&[
                    finished(&place, new, &weights),
                    finished(&place, made, &library)
                ])
                .is_err()
            );
            assert_eq!(std::fs::read_to_string(&weights).ok().as_deref(), old);
        }
        std::fs::remove_dir(library.join("full")).unwrap();
        std::fs::remove_dir(&library).unwrap();
        std::fs::write(&weights, "old").unwrap();
        let place = Arc::new(Workplace::new(&library).unwrap());
        let made = place.write("made", b"library").unwrap();
        let new = place.write("new", b"new").unwrap();
        publish(&[
            finished(&place, new, &weights),
            finished(&place, made, &library),
        ])
        .unwrap();
        drop(place);
        assert_eq!(std::fs::read_to_string(&weights).unwrap(), "new");
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 2);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
