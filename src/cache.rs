//! The cache of compiled models on disk, for those who compile when they start.
//!
//! In: a model and its options. Out: its code, taken from a file of the cache's folder where one was stored by this
//! build of the compiler, for this processor, the same bytes of the model and the same options; else compiled, and
//! stored. Whatever is wrong with the folder or a file of it costs a compilation and is no error; docs/cache.md has the
//! rules and what they rest on.
//!
//! | name | what |
//! |---|---|
//! | `KEY.model` | a compiled model ([`lapidary_link::stored`]) |
//! | `KEY.seen` | the stamp that this file had when all of it was hashed last; its time is that of the last use |
//! | `STAMP.source` | the hash of a model's file that had this stamp |
//! | `KEY.lock` | locked by the process that compiles it; empty |
//! | `*.tmp` | being written |

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use blake3::{Hash, Hasher};
use lapidary_link::stored::{self, Trust};
use lapidary_onnx::{Source, Stamp};
use lapidary_runtime::{ModelCode, abi};

use crate::operator::Target;
use crate::{Error, Model, Options, pipeline};

/// A stamp says nothing of writes within so much time after it: the system's clock of files has ticks.
const TICK: Duration = Duration::from_secs(2);
/// What has been written for so long was left by a process that ended.
const ABANDONED: Duration = Duration::from_secs(3600);
/// How long a process waits for another that compiles the same model, before it does so itself.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes that a folder may hold if nothing else is said.
const MOST_BYTES: u64 = 4 << 30;

/// A folder of compiled models ([`Options::cache`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// The folder. It is made if it is not there, and holds code that will run: nobody else may write to it.
    pub folder: PathBuf,
    /// Bytes that it may hold; what was not used for longest goes first.
    pub most_bytes: u64,
}

impl Cache {
    /// A cache in a folder, of 4 GiB at most.
    pub fn new(folder: impl Into<PathBuf>) -> Cache {
        Cache {
            folder: folder.into(),
            most_bytes: MOST_BYTES,
        }
    }
}

/// The code of a model, out of the cache or into it.
pub(crate) fn compile(
    model: &Model,
    options: &Options,
    cache: &Cache,
) -> Result<Arc<dyn ModelCode>, Error> {
    let entry = Entry::of(model, options, cache)?;
    if let Some(code) = entry.as_ref().and_then(Entry::load) {
        return Ok(code);
    }
    let turn = match entry.as_ref().map(|entry| entry.turn(PATIENCE)) {
        // Whoever had it has stored the entry, or could not: then nobody need wait for this process.
        Some(Turn::Later) => match entry.as_ref().and_then(Entry::load) {
            Some(code) => return Ok(code),
            None => None,
        },
        Some(Turn::Now(lock)) => Some(lock),
        Some(Turn::Unknown) | None => None,
    };
    let program = pipeline::program(model, options, Target::Memory)?;
    if let Some(entry) = &entry {
        let stored = entry.store(model, &program, options);
        drop(turn);
        // What stands in the way of storing does not stand in the way of running.
        if let Some(code) = stored {
            return Ok(code);
        }
    }
    pipeline::sound(model, pipeline::jit(program, options))
}

/// Who compiles a model that several need at once.
enum Turn {
    /// This process, until the lock is dropped.
    Now(Lock),
    /// Another did, and is done.
    Later,
    /// Nobody knows: there are no locks here, or another takes too long.
    Unknown,
}

/// A locked file. The system unlocks what a process leaves that is killed.
struct Lock {
    file: File,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Who waits has the file open; who comes later makes another, finds the entry, and has no use for the lock.
        let _ = fs::remove_file(&self.path);
        // A forked child may have the file open as well.
        let _ = self.file.unlock();
    }
}

/// A place in a cache.
struct Entry<'a> {
    cache: &'a Cache,
    key: Hash,
    sources: Vec<Source>,
}

impl<'a> Entry<'a> {
    /// The place of a model; `None` where the cache cannot be used.
    fn of(model: &Model, options: &Options, cache: &'a Cache) -> Result<Option<Entry<'a>>, Error> {
        // Operators of the application are code that no key can tell from other code.
        if !options.operators.is_empty() {
            return Ok(None);
        }
        if !usable(&cache.folder)? {
            return Ok(None);
        }
        let (Some(build), Some(sources)) = (build(), model.file().sources()) else {
            return Ok(None);
        };
        let mut key = Hasher::new();
        let mut part = |bytes: &[u8]| {
            key.update(&(bytes.len() as u64).to_le_bytes());
            key.update(bytes);
        };
        part(build.as_bytes());
        part(&abi::cpu_features().to_le_bytes());
        part(code_options(model, options).as_bytes());
        for source in &sources {
            part(source.location.as_deref().unwrap_or_default().as_bytes());
            part(cache.hash(source).as_bytes());
        }
        let key = key.finalize();
        Ok(Some(Entry {
            cache,
            key,
            sources,
        }))
    }

    fn path(&self, kind: &str) -> PathBuf {
        self.cache.folder.join(format!("{}.{kind}", self.key))
    }

    fn load(&self) -> Option<Arc<dyn ModelCode>> {
        let path = self.path("model");
        let file = File::open(&path).ok()?;
        let stamp = Stamp::of(&file.metadata().ok()?);
        let seen = self.path("seen");
        let known = fs::read_to_string(&seen).ok();
        let known = stamp.is_some() && known == stamp.as_ref().map(sealed);
        let trust = if known {
            Trust::Weights
        } else {
            Trust::Nothing
        };
        let code = stored::load(&file, &path, self.key.as_bytes(), trust);
        match (&code, stamp) {
            (Some(_), Some(stamp)) if !known && is_old(&stamp) => {
                self.cache.put(&seen, sealed(&stamp).as_bytes());
            }
            (Some(_), _) => touch(&seen),
            // What is stored after this takes its place. (It may be whole, and this process unable to map it.)
            (None, _) => {}
        }
        code
    }

    /// Waits, for so long at most, for whoever compiles this model.
    fn turn(&self, patience: Duration) -> Turn {
        let path = self.path("lock");
        let mut options = OpenOptions::new();
        let Ok(file) = options.write(true).create(true).truncate(false).open(&path) else {
            return Turn::Unknown;
        };
        let begin = Instant::now();
        let mut waited = false;
        loop {
            match file.try_lock() {
                Ok(()) if waited => return Turn::Later,
                Ok(()) => return Turn::Now(Lock { file, path }),
                Err(TryLockError::WouldBlock) if begin.elapsed() < patience => {
                    waited = true;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => return Turn::Unknown,
            }
        }
    }

    /// Compiles into the cache; `None` if something stood in the way.
    fn store(
        &self,
        model: &Model,
        program: &lapidary_lower::Program,
        options: &Options,
    ) -> Option<Arc<dyn ModelCode>> {
        let path = self.path("model");
        let temporary = Temporary::new(&self.cache.folder)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&temporary.0)
            .ok()?;
        let code = pipeline::code_options(options);
        let key = self.key.as_bytes();
        let made = stored::store(program, &mut file, &temporary.0, key, &code);
        // A fault of the compiler will be met again without the cache.
        made.ok().filter(|made| *made)?;
        // What was hashed must be what was compiled.
        model.file().verify_unchanged().ok()?;
        self.sources.iter().all(is_unchanged).then_some(())?;
        let bytes = file.metadata().ok()?.len();
        (bytes <= self.cache.most_bytes).then_some(())?;
        file.sync_all().ok()?;
        fs::rename(&temporary.0, &path).ok()?;
        if let Ok(folder) = File::open(&self.cache.folder) {
            let _ = folder.sync_all();
        }
        self.cache.shrink(&path);
        let file = File::open(&path).ok()?;
        stored::load(&file, &path, key, Trust::Weights)
    }
}

impl Cache {
    /// The hash of a model's file: looked up by its stamp, where that tells enough.
    fn hash(&self, source: &Source) -> Hash {
        let stamp = source.stamp.filter(is_old);
        let place = stamp.map(|stamp| {
            let name = blake3::hash(format!("{stamp:?}").as_bytes());
            self.folder.join(format!("{name}.source"))
        });
        let known = place.as_ref().and_then(|path| {
            let text = fs::read_to_string(path).ok()?;
            let (hash, seal) = text.split_once(' ')?;
            let hash = Hash::from_hex(hash).ok()?;
            (seal == blake3::hash(hash.as_bytes()).to_hex().as_str()).then_some(hash)
        });
        if let Some(hash) = known {
            if let Some(place) = &place {
                touch(place);
            }
            return hash;
        }
        let hash = blake3::hash(&source.bytes);
        if let Some(place) = place
            && is_unchanged(source)
        {
            let text = format!("{hash} {}", blake3::hash(hash.as_bytes()));
            self.put(&place, text.as_bytes());
        }
        hash
    }

    /// Writes a small file, whole or not at all.
    fn put(&self, path: &Path, bytes: &[u8]) {
        let write = || -> Option<()> {
            let temporary = Temporary::new(&self.folder)?;
            let mut file = File::create_new(&temporary.0).ok()?;
            file.write_all(bytes).ok()?;
            fs::rename(&temporary.0, path).ok()
        };
        // Only time is lost where it cannot be.
        let _ = write();
    }

    /// Removes what was not used for longest until the folder holds no more than it may, and what was abandoned.
    fn shrink(&self, keep: &Path) {
        let Ok(folder) = fs::read_dir(&self.folder) else {
            return;
        };
        let now = SystemTime::now();
        let mut models = Vec::new();
        let mut total = 0;
        for file in folder.flatten() {
            let path = file.path();
            let Ok(metadata) = file.metadata() else {
                continue;
            };
            let age = |time: SystemTime| now.duration_since(time).unwrap_or_default();
            let modified = metadata.modified().unwrap_or(now);
            match path.extension().and_then(|e| e.to_str()) {
                Some("tmp" | "lock") if age(modified) > ABANDONED => {
                    let _ = fs::remove_file(&path);
                }
                Some("model") => {
                    let seen = fs::metadata(path.with_extension("seen"));
                    let used = seen.and_then(|m| m.modified()).unwrap_or(modified);
                    total += metadata.len();
                    models.push((used.max(modified), metadata.len(), path));
                }
                Some("source") if age(modified) > 24 * 90 * ABANDONED => {
                    let _ = fs::remove_file(&path);
                }
                _ => {}
            }
        }
        models.sort();
        for (_, bytes, path) in models {
            if total <= self.most_bytes {
                break;
            }
            if path != keep && fs::remove_file(&path).is_ok() {
                let _ = fs::remove_file(path.with_extension("seen"));
                total -= bytes;
            }
        }
    }
}

/// A file under a name of its own, removed if it was not renamed.
struct Temporary(PathBuf);

impl Temporary {
    fn new(folder: &Path) -> Option<Temporary> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Processes of several machines, or of several namespaces, may share the folder and have one number.
        let mut random = [0; 8];
        File::open("/dev/urandom")
            .ok()?
            .read_exact(&mut random)
            .ok()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!(
            "{:016x}-{}-{number}.tmp",
            u64::from_le_bytes(random),
            std::process::id()
        );
        Some(Temporary(folder.join(name)))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether the folder is there and can be used; an error if others own it or may write to it.
fn usable(folder: &Path) -> Result<bool, Error> {
    if folder.as_os_str().is_empty() {
        return Err(Error::Usage(
            "the cache's folder has an empty name (hint: --cache DIR)".into(),
        ));
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    if builder.create(folder).is_err() {
        return Ok(false);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        // The owner of a process's own entry is its effective user.
        let (Ok(metadata), Ok(own)) = (fs::metadata(folder), fs::metadata("/proc/self")) else {
            return Ok(false);
        };
        let refuse = |what: &str, hint: &str| {
            Err(Error::Usage(format!(
                "the cache's folder '{}' {what}, who could have this process run their code (hint: {hint})",
                folder.display()
            )))
        };
        if metadata.uid() != own.uid() && metadata.uid() != 0 {
            return refuse("belongs to another user", "another folder");
        }
        if metadata.mode() & 0o022 != 0 {
            return refuse(
                "can be written to by others",
                "chmod go-w, or another folder",
            );
        }
    }
    Ok(true)
}

/// What code depends on beside the model's files. Whatever is added to [`Options`] must be thought of here.
fn code_options(model: &Model, options: &Options) -> String {
    format!(
        "{} {:?} {:?} {:?} {:?} {} {:?} {:?} {}",
        model.name(),
        options.cpu.level(),
        options.cpu,
        options.dims,
        options.variants,
        options.symbolic,
        options.states,
        options.skip_passes,
        model.has_fixed_defaults(),
    )
}

/// This build of the compiler: the file that its code was loaded from, by its stamp.
fn build() -> Option<String> {
    let own = build as fn() -> Option<String> as usize;
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| {
        let range = line.split(' ').next().and_then(|r| r.split_once('-'));
        range.is_some_and(|(from, to)| {
            let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
            (number(from)..number(to)).contains(&own)
        })
    })?;
    // Address, permissions, offset, device, inode, path.
    let mut words = line.split_ascii_whitespace();
    let inode: u64 = words.nth(4)?.parse().ok()?;
    let path = line.get(line.find('/')?..)?;
    let stamp = Stamp::of(&fs::metadata(path).ok()?)?;
    // Another file may have been put in its place since it was loaded.
    (stamp.file.1 == inode).then(|| format!("{} {stamp:?}", env!("CARGO_PKG_VERSION")))
}

/// A stamp as a file holds it, with what shows that none of it is lost.
fn sealed(stamp: &Stamp) -> String {
    let text = format!("{stamp:?}");
    format!("{} {text}", blake3::hash(text.as_bytes()))
}

/// Whether whoever writes to the file from now on gives it another stamp.
fn is_old(stamp: &Stamp) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let limit = now.map_or(0, |now| now.saturating_sub(TICK).as_nanos() as i128);
    stamp.changed < limit && stamp.modified < limit
}

/// Whether a source is what it was when it was opened.
fn is_unchanged(source: &Source) -> bool {
    let (Some(path), Some(stamp)) = (&source.path, source.stamp) else {
        return true;
    };
    let found = fs::metadata(path).ok().and_then(|m| Stamp::of(&m));
    found == Some(stamp)
}

/// Notes that a file was used.
fn touch(path: &Path) {
    if let Ok(file) = File::options().append(true).open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_ever() {
        let folder = std::env::temp_dir().join(format!("lapidary-turn-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let cache = Cache::new(&folder);
        let entry = Entry {
            cache: &cache,
            key: blake3::hash(b"a model"),
            sources: Vec::new(),
        };
        let Turn::Now(lock) = entry.turn(Duration::ZERO) else {
            panic!("nobody has it");
        };
        assert!(matches!(entry.turn(Duration::ZERO), Turn::Unknown));
        drop(lock);
        assert!(matches!(entry.turn(Duration::ZERO), Turn::Now(_)));
        assert_eq!(fs::read_dir(&folder).expect("the folder").count(), 0);
        fs::remove_dir(&folder).expect("it is empty");
    }
}
