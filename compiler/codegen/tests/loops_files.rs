//! Tests of the loops level in files: `tests/filetests/loops/*.loops`.
//!
//! A file holds a kernel with its schedule as the printer writes them, and below it either
//! `; automatic: ` with the schedule that [`schedule::automatic`] gives, or `; error: ` with what the
//! parser or the verifier says. A kernel without an error reads back as it was printed, and compiles
//! for every level. With `LAPIDARY_BLESS=1` the files are written anew.

use lapidary_codegen::loops::{parse, schedule, verify};
use lapidary_codegen::{Level, Size, compile};
use std::path::Path;

/// The file as it should be.
fn wanted(file: &str) -> String {
    let end = file
        .find("\n; automatic:")
        .or_else(|| file.find("\n; error:"));
    let input = file
        .get(..end.unwrap_or(file.len()))
        .unwrap_or(file)
        .trim_end();
    let error = |what: String| format!("{input}\n\n; error: {what}\n");
    let (kernel, own) = match parse::parse(input) {
        Ok(read) => read,
        Err(e) => return error(e.to_string()),
    };
    let checked = verify::verify(&kernel).and_then(|()| verify::verify_schedule(&kernel, &own));
    if let Err(e) = checked {
        return error(e.to_string());
    }
    let text = kernel.to_text(&own);
    let again = parse::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(
        again,
        (kernel.canonical(), own.clone()),
        "a kernel reads back as it was printed"
    );
    for (level, size) in [
        (Level::Baseline, Size::Fast),
        (Level::Baseline, Size::Least),
        (Level::V3, Size::Fast),
        (Level::V3, Size::Lean),
        (Level::V4, Size::Fast),
        (Level::V4, Size::Lean),
    ] {
        if let Err(e) = compile(&kernel, &own, level, size) {
            panic!("{level:?}, {size:?}: {e}\n{text}");
        }
    }
    // Comments above the kernel stay.
    let comment: String = input
        .lines()
        .take_while(|l| l.starts_with(';'))
        .flat_map(|l| [l, "\n"])
        .collect();
    format!(
        "{comment}{text}\n; automatic: {}\n",
        schedule::automatic(&kernel)
    )
}

#[test]
fn loops_are_what_their_files_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/filetests/loops");
    let bless = std::env::var_os("LAPIDARY_BLESS").is_some();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "loops") {
            continue;
        }
        seen += 1;
        let file = std::fs::read_to_string(&path).unwrap();
        let wanted = wanted(&file);
        if file == wanted {
            continue;
        }
        if bless {
            std::fs::write(&path, wanted).unwrap();
        } else {
            wrong.push(format!("{}:\n{wanted}", path.display()));
        }
    }
    assert!(seen > 0);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_text_makes_the_parser_panic() {
    // Every prefix of a kernel, and the kernel without each of its words.
    let text = include_str!("../../../tests/filetests/loops/attention.loops");
    for (end, _) in text.char_indices() {
        let _ = parse::parse(&text[..end]);
    }
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    for out in 0..words.len() {
        let less: String = words
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != out)
            .map(|(_, w)| *w)
            .collect();
        if let Ok((kernel, schedule)) = parse::parse(&less) {
            let _ =
                verify::verify(&kernel).and_then(|()| verify::verify_schedule(&kernel, &schedule));
        }
    }
    let deep = format!(
        "kernel k (x: f32 output 0) tasks 1 {{ x[0] = {} }}",
        "abs(".repeat(100_000)
    );
    assert!(parse::parse(&deep).is_err());
    let deep = format!("kernel k () tasks {} {{ }}", "(".repeat(100_000));
    assert!(parse::parse(&deep).is_err());
}
