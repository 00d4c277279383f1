//! Compiled libraries, loaded and run by a C program that has no compiler in it (`loader.c`).

use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use lapidary::{Container, DType, Error, OwnedValue, Tensor, ValueInfo};

/// A machine that libraries are run on.
#[derive(Clone, Copy)]
pub struct Machine {
    /// The C compiler for it.
    pub compiler: &'static str,
    /// What runs its programs here.
    pub runner: &'static [&'static str],
}

/// This machine.
#[allow(dead_code)] // not all programs that share this need it
pub const HERE: Machine = Machine {
    compiler: "cc",
    runner: &[],
};

/// AArch64 in an emulator, with the cross compiler and the C library of Debian.
pub const AARCH64: Machine = Machine {
    compiler: "aarch64-linux-gnu-gcc",
    runner: &["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"],
};

impl Machine {
    /// A program to be run on it.
    pub fn command(&self, program: &Path) -> Command {
        match self.runner.split_first() {
            None => Command::new(program),
            Some((runner, arguments)) => {
                let mut command = Command::new(runner);
                command.args(arguments).arg(program);
                command
            }
        }
    }
}

/// A process of the C program, in a folder of its own.
pub struct Loader {
    pub folder: PathBuf,
    process: Child,
    to: BufWriter<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Loader {
    pub fn start(machine: &Machine, folder: PathBuf) -> Result<Loader, Error> {
        let failed = |what: &str, e: std::io::Error| Error::Other(format!("{what}: {e}"));
        std::fs::create_dir_all(&folder).map_err(|e| failed("a folder", e))?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let program = folder.join("loader");
        let built = Command::new(machine.compiler)
            .args(["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&program)
            .arg(root.join("tests/common/loader.c"))
            .arg("-I")
            .arg(root.join("runtime/include"))
            .arg("-ldl")
            .output()
            .map_err(|e| failed(machine.compiler, e))?;
        if !built.status.success() {
            let text = String::from_utf8_lossy(&built.stderr).into_owned();
            return Err(Error::Other(format!("loader.c: {text}")));
        }
        let mut process = machine
            .command(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| failed("the loader", e))?;
        let to = process.stdin.take().expect("stdin is a pipe");
        let from = process.stdout.take().expect("stdout is a pipe");
        Ok(Loader {
            folder,
            process,
            to: BufWriter::new(to),
            from: BufReader::new(from),
        })
    }

    /// Whether the process has crashed.
    #[allow(dead_code)] // not all programs that share this ask
    pub fn is_gone(&mut self) -> bool {
        self.process.try_wait().is_ok_and(|ended| ended.is_some())
    }

    /// Runs a library's model once.
    pub fn run(
        &mut self,
        path: &Path,
        name: &str,
        inputs: &[OwnedValue],
        outputs: &[ValueInfo],
    ) -> Result<Vec<OwnedValue>, String> {
        let mut request = Vec::new();
        put_bytes(&mut request, path.as_os_str().as_encoded_bytes());
        put_bytes(&mut request, format!("lapidary_model_{name}").as_bytes());
        put(&mut request, inputs.len());
        for input in inputs {
            put_value(&mut request, input);
        }
        let lost = |e: std::io::Error| format!("the loader is gone: {e}");
        self.to.write_all(&request).map_err(lost)?;
        self.to.flush().map_err(lost)?;
        if self.number()? != 0 {
            let text = self.bytes()?;
            return Err(String::from_utf8_lossy(&text).into_owned());
        }
        let count = self.number()?;
        if count != outputs.len() {
            return Err(format!("{count} outputs, expected {}", outputs.len()));
        }
        outputs.iter().map(|info| self.value(info)).collect()
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; length];
        let read = self.from.read_exact(&mut bytes);
        read.map_err(|e| format!("the loader is gone: {e}"))?;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<usize, String> {
        let bytes = self.take(8)?.try_into().expect("eight bytes");
        usize::try_from(i64::from_ne_bytes(bytes)).map_err(|e| e.to_string())
    }

    fn numbers(&mut self, count: usize) -> Result<Vec<usize>, String> {
        (0..count).map(|_| self.number()).collect()
    }

    fn bytes(&mut self) -> Result<Vec<u8>, String> {
        let length = self.number()?;
        self.take(length)
    }

    fn value(&mut self, info: &ValueInfo) -> Result<OwnedValue, String> {
        let kind = self.number()?;
        if kind == 0 {
            return self.tensor(info).map(OwnedValue::Tensor);
        }
        let count = self.number()?;
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.value(info)?);
        }
        Ok(match kind {
            1 => OwnedValue::Sequence(values),
            2 => OwnedValue::Optional(values.pop().map(Box::new)),
            _ => match <[OwnedValue; 2]>::try_from(values) {
                Ok([OwnedValue::Tensor(keys), values]) => OwnedValue::Map {
                    keys,
                    values: Box::new(values),
                },
                _ => return Err("a map without keys".into()),
            },
        })
    }

    fn tensor(&mut self, info: &ValueInfo) -> Result<Tensor, String> {
        let (code, bits, rank) = (self.number()?, self.number()?, self.number()?);
        let shape = self.numbers(rank)?;
        // What the model states: the elements' type, or that of a map's keys.
        let keys = info.containers.iter().filter_map(|c| match c {
            Container::Map(keys) => Some(*keys),
            _ => None,
        });
        let fits = |t: &DType| {
            let t = t.dlpack();
            (usize::from(t.code), usize::from(t.bits)) == (code, bits)
        };
        let dtype = std::iter::once(info.dtype)
            .chain(keys)
            .find(fits)
            .ok_or_else(|| format!("a tensor of DLPack code {code} and {bits} bits"))?;
        let tensor = if dtype == DType::String {
            let count = self.number()?;
            let offsets = self.numbers(count)?;
            let bytes = self.bytes()?;
            let text = |w: &[usize]| String::from_utf8_lossy(&bytes[w[0]..w[1]]).into_owned();
            Tensor::from_strings(&shape, offsets.windows(2).map(text).collect())
        } else {
            Tensor::from_bytes(dtype, &shape, &self.bytes()?)
        };
        tensor.map_err(|e| e.to_string())
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn put(to: &mut Vec<u8>, n: usize) {
    to.extend((n as i64).to_ne_bytes());
}

fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put(to, bytes.len());
    to.extend(bytes);
}

fn put_value(to: &mut Vec<u8>, value: &OwnedValue) {
    let mut list = |kind, values: &[&OwnedValue]| {
        put(to, kind);
        put(to, values.len());
        values.iter().for_each(|v| put_value(to, v));
    };
    match value {
        OwnedValue::Tensor(tensor) => put_tensor(to, tensor),
        OwnedValue::Sequence(values) => list(1, &values.iter().collect::<Vec<_>>()),
        OwnedValue::Optional(value) => list(2, &value.iter().map(|v| &**v).collect::<Vec<_>>()),
        OwnedValue::Map { keys, values } => list(3, &[&keys.clone().into(), values]),
    }
}

fn put_tensor(to: &mut Vec<u8>, tensor: &Tensor) {
    let kind = tensor.dtype().dlpack();
    put(to, 0);
    put(to, kind.code.into());
    put(to, kind.bits.into());
    put(to, tensor.shape().len());
    tensor.shape().iter().for_each(|n| put(to, *n));
    match tensor.strings() {
        Ok(strings) => {
            put(to, strings.len() + 1);
            let mut end = 0;
            put(to, end);
            for s in strings {
                end += s.len();
                put(to, end);
            }
            put_bytes(to, strings.concat().as_bytes());
        }
        Err(_) => put_bytes(to, tensor.bytes()),
    }
}
