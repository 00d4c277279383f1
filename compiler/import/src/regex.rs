//! Regular expressions of RE2 as tables that a kernel walks byte by byte.
//!
//! [`compile`] makes a deterministic automaton over UTF-8 that reads a text from its begin. The syntax of RE2
//! and that of `regex-syntax` are cousins; [`translate`] rewrites where they differ: RE2's classes
//! `\d`, `\w`, `\s` and its word boundaries know ASCII alone, `\Q…\E` quotes, set operations do not exist in
//! classes, and a brace that is no count is a brace.

use std::collections::HashMap;

use bytes::Bytes;
use regex_automata::dfa::{Automaton, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::{Hir, Look};

use crate::error::{Fail, invalid, unsupported};

/// Bytes that an automaton may take while it is made.
const LIMIT: usize = 32 << 20;
/// Bytes of the table that goes into the model.
const TABLE_LIMIT: usize = 4 << 20;

/// An automaton; state 0 is the start, `states` (one past the last) means no match.
pub(crate) struct Table {
    pub states: usize,
    pub classes: usize,
    /// The class of each byte.
    pub class_of: Bytes,
    /// By state and class, u32.
    pub next: Bytes,
    /// One byte a state: whether a match may end there, if the text does.
    pub ends: Bytes,
    /// The pattern asks what is around (`$`, word boundaries).
    pub looks: bool,
}

impl Table {
    /// What a kernel wants of it: states and classes, and the tables.
    pub fn record(self) -> ([i64; 2], [Bytes; 3]) {
        let numbers = [self.states as i64, self.classes as i64];
        (numbers, [self.class_of, self.next, self.ends])
    }
}

/// The automaton of the pattern in this attribute.
pub(crate) fn compile(attribute: &str, pattern: &str) -> Result<Table, Fail> {
    let text = translate(pattern);
    let wrong = |e: &dyn std::fmt::Display| {
        // The first line of a parser's message says only that there is one.
        let e = e.to_string();
        let last = e.lines().last().unwrap_or("").to_string();
        invalid(format!("attribute '{attribute}' is '{pattern}': {last}"))
            .hint("RE2 syntax is expected")
    };
    let large = |e: &dyn std::fmt::Display| {
        unsupported(format!(
            "the pattern '{pattern}' is too large for a table: {e}"
        ))
        .hint("counted repetitions and large classes of characters multiply")
    };
    let inner = regex_syntax::ParserBuilder::new()
        .utf8(false)
        .octal(true)
        .build()
        .parse(&text)
        .map_err(|e| wrong(&e))?;
    let looks = !inner.properties().look_set().is_empty();
    // A match may end anywhere; whoever wants the whole text looks where it ends.
    let anchored = Hir::concat(vec![Hir::look(Look::Start), inner]);
    let nfa = thompson::Compiler::new()
        .configure(
            thompson::Config::new()
                .utf8(false)
                .which_captures(thompson::WhichCaptures::None)
                .nfa_size_limit(Some(LIMIT)),
        )
        .build_from_hir(&anchored)
        .map_err(|e| large(&e))?;
    let config = dense::Config::new()
        .start_kind(regex_automata::dfa::StartKind::Anchored)
        .match_kind(MatchKind::All)
        .accelerate(false)
        .dfa_size_limit(Some(LIMIT))
        .determinize_size_limit(Some(LIMIT));
    let dfa = dense::Builder::new()
        .configure(config)
        .build_from_nfa(&nfa)
        .map_err(|e| large(&e))?;
    let begin = dfa
        .start_state(&start::Config::new().anchored(Anchored::Yes))
        .map_err(|e| large(&e))?;

    // The states that can be reached, and where each byte leads; dead ones are left out.
    let mut number = HashMap::new();
    let mut states = Vec::new();
    if !dfa.is_dead_state(begin) {
        number.insert(begin, 0u32);
        states.push(begin);
    }
    let mut rows: Vec<[u32; 256]> = Vec::new();
    while let Some(s) = states.get(rows.len()).copied() {
        let mut row = [u32::MAX; 256];
        for (byte, to) in (0u8..=255).zip(&mut row) {
            let next = dfa.next_state(s, byte);
            if dfa.is_dead_state(next) || dfa.is_quit_state(next) {
                continue;
            }
            *to = *number.entry(next).or_insert_with(|| {
                states.push(next);
                states.len() as u32 - 1
            });
        }
        rows.push(row);
    }
    let mut class_of = [0u8; 256];
    let mut columns: HashMap<Vec<u32>, u8> = HashMap::new();
    let mut examples = Vec::new();
    for byte in 0..256usize {
        let column: Vec<u32> = rows.iter().map(|r| r[byte]).collect();
        let count = columns.len() as u8;
        class_of[byte] = *columns.entry(column).or_insert_with(|| {
            examples.push(byte);
            count
        });
    }
    let cells = rows.len() * examples.len();
    if cells * 4 > TABLE_LIMIT {
        return Err(large(&format!(
            "{} states and {} classes of bytes",
            rows.len(),
            examples.len()
        )));
    }
    let none = rows.len() as u32;
    let next = rows
        .iter()
        .flat_map(|r| examples.iter().map(|b| r[*b].min(none)));
    Ok(Table {
        states: rows.len(),
        classes: examples.len(),
        class_of: Bytes::copy_from_slice(&class_of),
        next: next.flat_map(u32::to_le_bytes).collect::<Vec<u8>>().into(),
        ends: states
            .iter()
            .map(|s| dfa.is_match_state(dfa.next_eoi_state(*s)) as u8)
            .collect::<Vec<u8>>()
            .into(),
        looks,
    })
}

/// A pattern of RE2 in the syntax of `regex-syntax`.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    // Inside of a class: how many items it has so far.
    let mut class: Option<usize> = None;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        if c == '\\' {
            let Some(e) = after.chars().next() else {
                out.push('\\');
                break;
            };
            rest = &after[e.len_utf8()..];
            let ascii = |inside: &str| match class {
                Some(_) => inside.to_string(),
                None => format!("[{inside}]"),
            };
            match e {
                'Q' if class.is_none() => {
                    let (quoted, more) = rest.split_once("\\E").unwrap_or((rest, ""));
                    out.push_str(&regex_syntax::escape(quoted));
                    rest = more;
                }
                'E' if class.is_none() => {}
                'd' => out.push_str(&ascii("0-9")),
                'w' => out.push_str(&ascii("0-9A-Za-z_")),
                's' => out.push_str(&ascii("\\t\\n\\f\\r\\x20")),
                'D' => out.push_str("[^0-9]"),
                'W' => out.push_str("[^0-9A-Za-z_]"),
                'S' => out.push_str("[^\\t\\n\\f\\r\\x20]"),
                'b' | 'B' if class.is_none() => {
                    out.push_str("(?-u:\\");
                    out.push(e);
                    out.push(')');
                }
                '<' | '>' => out.push(e),
                // The braces of \p{..} and \x{..} are no count.
                'p' | 'P' | 'x' if rest.starts_with('{') => {
                    let end = rest.find('}').map_or(rest.len(), |i| i + 1);
                    out.push('\\');
                    out.push(e);
                    out.push_str(&rest[..end]);
                    rest = &rest[end..];
                }
                _ => {
                    out.push('\\');
                    out.push(e);
                }
            }
            class = class.map(|n| n + 1);
            continue;
        }
        rest = after;
        match (&mut class, c) {
            (None, '[') => {
                class = Some(0);
                out.push('[');
                if let Some(more) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = more;
                }
            }
            (None, '{') if !is_count(after) => out.push_str("\\{"),
            (None, _) => out.push(c),
            (Some(n), _) => {
                match c {
                    ']' if *n > 0 => {
                        class = None;
                        out.push(']');
                        continue;
                    }
                    '[' if rest.starts_with(':') => {
                        let end = rest.find(":]").map_or(rest.len(), |i| i + 2);
                        out.push('[');
                        out.push_str(&rest[..end]);
                        rest = &rest[end..];
                    }
                    '-' if *n == 0 || rest.starts_with(']') || out.ends_with('-') => {
                        out.push_str("\\-")
                    }
                    ']' | '[' | '&' | '~' => {
                        out.push('\\');
                        out.push(c);
                    }
                    _ => out.push(c),
                }
                *n += 1;
            }
        }
    }
    out
}

/// Whether what follows a brace makes it a count: `3}`, `3,}`, `3,5}`.
fn is_count(after: &str) -> bool {
    let Some((inside, _)) = after.split_once('}') else {
        return false;
    };
    let (low, high) = inside.split_once(',').unwrap_or((inside, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    !low.is_empty() && digits(low) && digits(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(t: &Table, text: &[u8]) -> bool {
        let next = t.next.as_chunks::<4>().0;
        let mut state = 0;
        for b in text {
            if state >= t.states {
                return false;
            }
            let at = state * t.classes + t.class_of[*b as usize] as usize;
            state = u32::from_le_bytes(next[at]) as usize;
        }
        t.ends.get(state) == Some(&1)
    }

    #[test]
    fn patterns_match_whole_texts_as_in_re2() {
        let table: &[(&str, &[&str], &[&str])] = &[
            ("", &[""], &["a"]),
            ("a|ab", &["a", "ab"], &["", "abb"]),
            (r"\d+", &["0", "123"], &["", "\u{663}", "12a"]),
            (r"[\w-]+", &["a-b_9"], &["\u{e9}", " "]),
            (r"[^\s]+", &["ab\u{e9}"], &["a b"]),
            (r"\Qa.b\E+", &["a.b", "a.bb"], &["axb"]),
            (r"x{,3}", &["x{,3}"], &["xx"]),
            (r"x{2,3}", &["xx", "xxx"], &["x", "xxxx"]),
            (r"[]a]", &["]", "a"], &["b"]),
            (r"[a&&b]", &["a", "&", "b"], &["c"]),
            (r"[[:alpha:][]", &["z", "["], &["1"]),
            (r"[+--]", &["+", ",", "-"], &["."]),
            (r"[a\-z]", &["a", "-", "z"], &["b"]),
            (
                r"(?i)stra\x{df}e",
                &["STRA\u{1e9e}E", "stra\u{df}e"],
                &["strasse"],
            ),
            (r"\bfoo\b.*", &["foo", "foo bar"], &["food"]),
            (r"a\B.", &["ab"], &["a "]),
            (r"^ab$", &["ab"], &["ab\n"]),
            (r"a.c", &["abc", "a\u{20ac}c"], &["a\nc", "ac"]),
            (r"(?s)a.c", &["a\nc"], &[]),
            (r"\pL\p{Nd}", &["\u{e9}\u{663}"], &["1a"]),
            (r"[\d\-\.]+", &["1-2.3"], &["a"]),
            (r"\<a\>", &["<a>"], &["a"]),
        ];
        for (pattern, yes, no) in table {
            let t = compile("pattern", pattern).unwrap_or_else(|e| panic!("{pattern}: {e:?}"));
            for s in *yes {
                assert!(matches(&t, s.as_bytes()), "{pattern} and {s}");
            }
            for s in *no {
                assert!(!matches(&t, s.as_bytes()), "{pattern} and {s}");
            }
        }
        assert!(!matches(&compile("pattern", ".").unwrap(), b"\xff"));
    }

    #[test]
    fn bad_and_large_patterns_are_refused() {
        assert!(compile("pattern", "a(b").is_err_and(|e| e.found.contains("unclosed group")));
        assert!(
            compile("pattern", r"(?:\pL{0,99}\d){99}")
                .is_err_and(|e| e.found.contains("too large"))
        );
    }
}
