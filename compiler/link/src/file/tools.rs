//! The tools of the system, and the folder in which they work.

use super::FileOptions;
use crate::error::LinkError;
use crate::target;
use lapidary_runtime::abi;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use target_lexicon::Triple;

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

/// The C compiler for a target: the one that is given, or one with a usual name.
pub(super) fn compiler(target: &Triple, given: Option<&Path>) -> Result<PathBuf, LinkError> {
    let names = target::compilers(target);
    let hint = || {
        format!(
            "install a C compiler for {target} (Debian's package: {}), or name one (--cc)",
            target::package(target)
        )
    };
    let Some(given) = given else {
        let found = names.iter().find(|name| is_on_path(name));
        return found
            .map(PathBuf::from)
            .ok_or_else(|| LinkError::ToolMissing {
                tool: match names.is_empty() {
                    true => format!("a C compiler for {target}"),
                    false => names.join("`, `"),
                },
                hint: hint(),
            });
    };
    let asked = command(given).arg("-dumpmachine").output();
    let asked = asked.map_err(|e| failed_to_start(given, e, &hint()))?;
    // Not every compiler answers.
    let machine = String::from_utf8_lossy(&asked.stdout).trim().to_string();
    let architecture = machine.split('-').next().unwrap_or_default();
    let same = |a: &str| match a {
        "arm64" => "aarch64" == target.architecture.into_str(),
        "amd64" => "x86_64" == target.architecture.into_str(),
        a => a == target.architecture.into_str(),
    };
    if asked.status.success() && machine.contains('-') && !same(architecture) {
        return Err(LinkError::Unsupported {
            what: format!(
                "`{}`, which makes code for {machine}, as the compiler for {target}",
                given.display()
            ),
            hint: hint(),
        });
    }
    Ok(given.to_path_buf())
}

fn is_on_path(name: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(name).is_file())
}

/// A tool; one that is no file may have arguments behind its name (`clang --target=…`).
pub(super) fn command(tool: &Path) -> Command {
    // Tools run elsewhere need the whole path.
    let whole = |p: &Path| match p.components().count() {
        1 => p.to_path_buf(),
        _ => std::fs::canonicalize(p).unwrap_or_else(|_| p.to_path_buf()),
    };
    let text = tool.to_string_lossy();
    let mut words = text.split_whitespace();
    match words.next() {
        Some(program) if !tool.is_file() => {
            let mut command = Command::new(whole(Path::new(program)));
            command.args(words);
            command
        }
        _ => Command::new(whole(tool)),
    }
}

/// A shared library of the objects and what they need of the runtime.
pub(super) fn shared(
    place: &Workplace,
    objects: &[PathBuf],
    options: &FileOptions,
    compiler: &Path,
    runtime: &Path,
    file_name: &str,
) -> Result<PathBuf, LinkError> {
    let script = format!(
        "{{ global: {}{}; local: *; }};\n",
        abi::symbol::MODEL_PREFIX,
        options.name
    );
    let script = place.write("exports", script.as_bytes())?;
    let out = place.file("out.so");
    let mut command = command(compiler);
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
            // What may be unloaded while a handler of its own is installed.
            "-Wl,--undefined=lap_pin_library",
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
    command.args(["-lm", "-lpthread", "-ldl"]);
    run(command, "install a C compiler, or name one (--cc)")?;
    Ok(out)
}

fn failed_to_start(tool: &Path, error: io::Error, hint: &str) -> LinkError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => LinkError::ToolMissing {
            tool: tool.display().to_string(),
            hint: hint.to_string(),
        },
        _ => LinkError::file("run", tool, error),
    }
}

pub(super) fn run(mut command: Command, hint: &str) -> Result<(), LinkError> {
    let tool = command.get_program().to_string_lossy().into_owned();
    let output = command.output();
    let output = output.map_err(|e| failed_to_start(Path::new(&tool), e, hint))?;
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
