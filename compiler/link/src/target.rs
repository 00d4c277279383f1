//! The machines that files are made for.
//!
//! A target is a triple out of a short list: what the code generator, the object writer and the runtime's
//! sources take. This machine's own triple is always one.

use crate::error::LinkError;
use target_lexicon::{Architecture, BinaryFormat, Environment, Triple};

/// A target as users name it.
struct Known {
    triple: &'static str,
    short: &'static [&'static str],
    /// C compilers for it by their usual names, and the package of Debian that has one.
    compilers: &'static [&'static str],
    package: &'static str,
}

const KNOWN: [Known; 7] = [
    Known {
        triple: "x86_64-unknown-linux-gnu",
        short: &["x86_64-linux-gnu", "x86_64-linux", "x86_64"],
        compilers: &["x86_64-linux-gnu-gcc", "x86_64-unknown-linux-gnu-gcc"],
        package: "gcc-x86-64-linux-gnu",
    },
    Known {
        triple: "x86_64-unknown-linux-musl",
        short: &["x86_64-linux-musl", "x86_64-musl"],
        compilers: &["x86_64-linux-musl-gcc", "x86_64-unknown-linux-musl-gcc"],
        package: "musl-tools, on x86-64",
    },
    Known {
        triple: "aarch64-unknown-linux-gnu",
        short: &["aarch64-linux-gnu", "aarch64-linux", "aarch64"],
        compilers: &["aarch64-linux-gnu-gcc", "aarch64-unknown-linux-gnu-gcc"],
        package: "gcc-aarch64-linux-gnu",
    },
    Known {
        triple: "aarch64-unknown-linux-musl",
        short: &["aarch64-linux-musl", "aarch64-musl"],
        compilers: &["aarch64-linux-musl-gcc", "aarch64-unknown-linux-musl-gcc"],
        package: "musl-tools, on AArch64",
    },
    Known {
        triple: "x86_64-apple-darwin",
        short: &["x86_64-macos"],
        compilers: &[],
        package: "",
    },
    Known {
        triple: "aarch64-apple-darwin",
        short: &["aarch64-macos", "arm64-apple-darwin", "arm64-macos"],
        compilers: &[],
        package: "",
    },
    Known {
        triple: "x86_64-pc-windows-msvc",
        short: &["x86_64-windows-msvc", "x86_64-windows"],
        compilers: &[],
        package: "",
    },
];

/// The triple of a name: whole (`aarch64-unknown-linux-gnu`) or short (`aarch64-linux`).
pub fn parse(name: &str) -> Result<Triple, LinkError> {
    let named = |k: &&Known| k.triple == name || k.short.contains(&name);
    let host = Triple::host();
    if name == host.to_string() {
        return Ok(host);
    }
    let triple = KNOWN.iter().find(named).and_then(|k| k.triple.parse().ok());
    triple.ok_or_else(|| LinkError::Unsupported {
        what: format!("the target `{name}`"),
        hint: format!("targets are {}", names().join(", ")),
    })
}

/// The whole names of all targets.
pub fn names() -> Vec<&'static str> {
    KNOWN.iter().map(|k| k.triple).collect()
}

/// Whether programs of this machine and of the target are built alike: the runtime that is carried as an archive is
/// the target's.
pub fn is_host(target: &Triple) -> bool {
    let host = Triple::host();
    target.architecture == host.architecture
        && target.operating_system == host.operating_system
        && target.environment == host.environment
}

/// Whether a level above the baseline can be code of the target: the wide emitters make x86-64 of the System V ABI.
pub fn has_levels(target: &Triple) -> bool {
    target.architecture == Architecture::X86_64 && target.binary_format != BinaryFormat::Coff
}

/// Names of C compilers for a target, the likeliest first.
pub(crate) fn compilers(target: &Triple) -> Vec<&'static str> {
    if is_host(target) {
        return vec!["cc"];
    }
    let mut all: Vec<&'static str> = known(target).map_or(&[][..], |k| k.compilers).to_vec();
    let host = Triple::host();
    if target.environment == Environment::Musl && target.architecture == host.architecture {
        all.push("musl-gcc");
    }
    all
}

/// The package of Debian that has a C compiler for a target.
pub(crate) fn package(target: &Triple) -> &'static str {
    match known(target) {
        _ if is_host(target) => "gcc",
        Some(known) if !known.package.is_empty() => known.package,
        _ => "none",
    }
}

fn known(target: &Triple) -> Option<&'static Known> {
    let text = target.to_string();
    KNOWN.iter().find(|k| k.triple == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_or_short_and_each_means_one_target() {
        let mut seen = std::collections::HashSet::new();
        for known in &KNOWN {
            for name in known.short.iter().chain([&known.triple]) {
                assert_eq!(parse(name).unwrap().to_string(), known.triple);
                assert!(seen.insert(name), "{name} twice");
            }
        }
        let error = parse("riscv64-linux").unwrap_err().to_string();
        assert!(error.contains("riscv64-linux") && error.contains("aarch64-unknown-linux-musl"));
    }
}
