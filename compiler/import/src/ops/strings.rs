//! Operators over strings. Each is one call of a library kernel; what can be prepared (an automaton, a
//! sorted vocabulary) is prepared here and goes into the record.

use std::collections::BTreeMap;

use bytes::Bytes;
use lapidary_graph::op::LibraryCall;
use lapidary_graph::{DType, Dim, ValueId};

use crate::builder::{LibOut, first};
use crate::context::{Ctx, Outs, all, one};
use crate::error::{Fail, invalid, unsupported};
use crate::regex;
use crate::strings::Keys;

/// The input, which must hold strings.
pub(crate) fn text(cx: &Ctx, i: usize) -> Result<ValueId, Fail> {
    let x = cx.input(i)?;
    match cx.dtype(x) {
        DType::String => Ok(x),
        t => Err(invalid(format!("input {i} is {t}, expected strings"))),
    }
}

fn elementwise(cx: &mut Ctx, name: &str, inputs: &[ValueId], dtype: DType) -> Outs {
    let outs = cx.outputs(&[dtype])?;
    let list = inputs.iter().map(|v| Some(*v)).collect();
    all(cx.library(name, vec![], vec![], list, outs))
}

/// Library `string_concat`. Inputs: a, b, broadcast together.
pub(crate) fn concat(cx: &mut Ctx) -> Outs {
    let inputs = [text(cx, 0)?, text(cx, 1)?];
    elementwise(cx, "string_concat", &inputs, DType::String)
}

/// Library `string_equal`. Inputs: a, b, broadcast together. Output: bool.
pub(crate) fn equal(cx: &mut Ctx) -> Outs {
    let inputs = [text(cx, 0)?, text(cx, 1)?];
    elementwise(cx, "string_equal", &inputs, DType::Bool)
}

/// Library `where`. Inputs: condition, x, y (strings), broadcast together.
pub(crate) fn where_(cx: &mut Ctx) -> Outs {
    let inputs = [cx.input(0)?, text(cx, 1)?, text(cx, 2)?];
    elementwise(cx, "where", &inputs, DType::String)
}

/// Library `string_split`. Inputs: x. Ints: the most cuts, or -1. Strings: delimiter. Outputs: the
/// parts along a new axis, whose size the kernel sets; their number (i64).
pub(crate) fn split(cx: &mut Ctx) -> Outs {
    let x = text(cx, 0)?;
    cx.rank(x)?;
    let call = LibraryCall {
        name: "string_split".into(),
        ints: vec![cx.int("maxsplit", -1)?.max(-1)],
        floats: vec![],
        strings: vec![Bytes::copy_from_slice(
            cx.string("delimiter", "")?.as_bytes(),
        )],
    };
    let outs = cx.outputs(&[DType::String, DType::I64])?;
    all(cx.library_call(call, vec![Some(x)], outs))
}

/// Library `string_normalize`. Inputs: x `[C]` or `[1, C]`. Ints: change of case (0 none, 1 lower,
/// 2 upper), case_sensitive. Strings: the stop words. The kernel sets the number of strings.
pub(crate) fn normalize(cx: &mut Ctx) -> Outs {
    let x = text(cx, 0)?;
    let action = cx.choice("case_change_action", "NONE", &["NONE", "LOWER", "UPPER"])?;
    cx.rank(x)?;
    let call = LibraryCall {
        name: "string_normalize".into(),
        ints: vec![action as i64, cx.flag("is_case_sensitive", false)? as i64],
        floats: vec![],
        strings: cx.strings("stopwords")?.unwrap_or(&[]).to_vec(),
    };
    let outs = cx.outputs(&[DType::String])?;
    all(cx.library_call(call, vec![Some(x)], outs))
}

/// Library `regex_full_match`. Inputs: x. Ints: states, classes. Strings: the automaton. Output: bool.
pub(crate) fn regex_full_match(cx: &mut Ctx) -> Outs {
    let x = text(cx, 0)?;
    let (sizes, tables) = regex::compile("pattern", cx.string("pattern", "")?)?.record();
    let call = LibraryCall {
        name: "regex_full_match".into(),
        ints: sizes.to_vec(),
        floats: vec![],
        strings: tables.to_vec(),
    };
    let outs = cx.outputs(&[DType::Bool])?;
    all(cx.library_call(call, vec![Some(x)], outs))
}

/// Tokenizer of onnxruntime: matches of a pattern, or what is between separators.
///
/// Library `tokenize`. Inputs: x `[C]` or `[N, C]`. Ints: whether matches are tokens (or separate them), whether a mark
/// stands at the begin and end, least number of characters of a token, states, classes. Strings: what fills rows, the
/// automaton. Output: x's dims, then the tokens of an element; the kernel sets their number.
pub(crate) fn tokenizer(cx: &mut Ctx) -> Outs {
    let x = text(cx, 0)?;
    let rank = cx.rank(x)?;
    if !matches!(rank, 1 | 2) {
        return Err(invalid(format!("strings of rank {rank}, expected 1 or 2")));
    }
    let least = cx.int_required("mincharnum")?;
    if least < 1 {
        let found = format!("attribute 'mincharnum' is {least}, expected 1 or more");
        return Err(invalid(found));
    }
    let mark = cx.int_required("mark")? != 0;
    let pad = Bytes::copy_from_slice(cx.string("pad_value", "")?.as_bytes());
    let (tokens, separators) = (cx.string("tokenexp", "")?, cx.strings("separators")?);
    let (matches, attribute, pattern) = match (tokens, separators.unwrap_or(&[])) {
        ("", []) => {
            return Err(invalid("neither attribute 'tokenexp' nor 'separators'"));
        }
        // Characters are the tokens, line ends too.
        ("", [one]) if one.is_empty() => (true, "separators", "(?s:.)".to_string()),
        (".", []) => (true, "tokenexp", "(?s:.)".to_string()),
        ("", all) => {
            let mut patterns = Vec::new();
            for s in all {
                let s = std::str::from_utf8(s)
                    .map_err(|_| invalid("attribute 'separators' is not UTF-8"))?;
                if s.is_empty() {
                    return Err(invalid("an empty separator among others"));
                }
                patterns.push(format!("(?:{s})"));
            }
            (false, "separators", patterns.join("|"))
        }
        (pattern, []) => (true, "tokenexp", pattern.to_string()),
        _ => {
            return Err(invalid("both attributes 'tokenexp' and 'separators'"));
        }
    };
    let table = regex::compile(attribute, &pattern)?;
    if table.looks {
        return Err(unsupported(format!(
            "the pattern '{pattern}' asks what is around a token"
        )));
    }
    let (sizes, tables) = table.record();
    let call = LibraryCall {
        name: "tokenize".into(),
        ints: [&[matches as i64, mark as i64, least], &sizes[..]].concat(),
        floats: vec![],
        strings: std::iter::once(pad).chain(tables).collect(),
    };
    let outs = cx.outputs(&[DType::String])?;
    all(cx.library_call(call, vec![Some(x)], outs))
}

/// The n-grams of a pool as a tree; node 0 is the root.
#[derive(Default)]
struct Trie {
    /// (node, token) to node.
    edges: BTreeMap<(i32, i32), i32>,
    /// What a node that ends an n-gram counts for, or -1.
    outputs: Vec<i32>,
}

impl Trie {
    fn insert(&mut self, tokens: &[i32], output: i32) {
        let mut node = 0;
        for t in tokens {
            let outputs = &mut self.outputs;
            node = *self.edges.entry((node, *t)).or_insert_with(|| {
                outputs.push(-1);
                outputs.len() as i32 - 1
            });
        }
        if let Some(o) = self.outputs.get_mut(node as usize) {
            *o = output;
        }
    }

    /// Where the edges of each node begin, their tokens, their ends, the outputs: i32 each.
    fn tables(&self) -> [Bytes; 4] {
        let mut begins = vec![0i32; self.outputs.len() + 1];
        for (node, _) in self.edges.keys() {
            begins[*node as usize + 1] += 1;
        }
        for i in 1..begins.len() {
            begins[i] += begins[i - 1];
        }
        let bytes = |v: &mut dyn Iterator<Item = i32>| -> Bytes {
            v.flat_map(i32::to_le_bytes).collect::<Vec<u8>>().into()
        };
        [
            bytes(&mut begins.into_iter()),
            bytes(&mut self.edges.keys().map(|k| k.1)),
            bytes(&mut self.edges.values().copied()),
            bytes(&mut self.outputs.iter().copied()),
        ]
    }
}

/// Library `tfidf`: its record is described at the kernel.
pub(crate) fn tfidf(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let (least, most) = (
        cx.int_required("min_gram_length")?,
        cx.int_required("max_gram_length")?,
    );
    let skip = cx.int_required("max_skip_count")?;
    if least < 1 || most < least || skip < 0 {
        return Err(invalid(format!(
            "n-grams of {least} to {most} tokens with {skip} skipped"
        )));
    }
    let mode = match cx.string("mode", "")? {
        "TF" => 0,
        "IDF" => 1,
        "TFIDF" => 2,
        m => {
            return Err(invalid(format!(
                "attribute 'mode' is '{m}', expected TF, IDF or TFIDF"
            )));
        }
    };
    let counts = cx.ints("ngram_counts")?.unwrap_or(&[]);
    let indexes = cx.ints("ngram_indexes")?.unwrap_or(&[]);
    let keys = match (cx.strings("pool_strings")?, cx.ints("pool_int64s")?) {
        (Some(s), _) if !s.is_empty() => Keys::Strings(s.to_vec()),
        (_, Some(i)) => Keys::Ints(i.to_vec()),
        _ => return Err(invalid("the pool is missing")),
    };
    match (&keys, cx.dtype(x)) {
        (Keys::Strings(_), DType::String) | (Keys::Ints(_), DType::I32 | DType::I64) => {}
        (_, t) => {
            return Err(invalid(format!(
                "input 0 is {t}, the pool holds another type"
            )));
        }
    }
    let bad = |what: &str| invalid(format!("attribute '{what}' does not fit the pool"));
    let width = indexes
        .iter()
        .copied()
        .max()
        .unwrap_or(-1)
        .saturating_add(1);
    let fits = |i: &i64| (0..i32::MAX as i64).contains(i);
    if !indexes.iter().all(fits) || i32::try_from(keys.len()).is_err() {
        return Err(bad("ngram_indexes"));
    }

    // Equal tokens get one number.
    let numbers = same_numbers(&keys);
    let mut trie = Trie {
        outputs: vec![-1],
        ..Trie::default()
    };
    let mut id = 0usize;
    for (i, begin) in counts.iter().enumerate() {
        let end = counts.get(i + 1).copied().unwrap_or(keys.len() as i64);
        let range = usize::try_from(*begin).ok().zip(usize::try_from(end).ok());
        let part = range.and_then(|(b, e)| numbers.get(b..e));
        let part = part.ok_or_else(|| bad("ngram_counts"))?;
        let size = i as i64 + 1;
        if part.len() % (i + 1) != 0 {
            return Err(bad("ngram_counts"));
        }
        for gram in part.chunks_exact(i + 1) {
            let output = *indexes.get(id).ok_or_else(|| bad("ngram_indexes"))?;
            id += 1;
            if (least..=most).contains(&size) {
                let gram: Vec<i32> = gram.iter().map(|n| *n as i32).collect();
                trie.insert(&gram, output as i32);
            }
        }
    }
    let weights = cx.floats("weights")?.unwrap_or(&[]);
    let floats = match weights.len() as i64 {
        0 => vec![],
        n if n >= width => weights[..width as usize]
            .iter()
            .map(|w| *w as f64)
            .collect(),
        n => return Err(invalid(format!("{n} weights for {width} outputs"))),
    };
    let mut dims = cx.dims(x)?;
    let Some(last) = dims.last_mut().filter(|_| true) else {
        return Err(invalid("a scalar input"));
    };
    *last = Dim::Const(width);
    let (tokens, _) = keys.table(&numbers);
    let call = LibraryCall {
        name: "tfidf".into(),
        ints: vec![
            matches!(keys, Keys::Ints(_)) as i64,
            least,
            most,
            skip,
            width,
            mode,
        ],
        floats,
        strings: tokens.into_iter().chain(trie.tables()).collect(),
    };
    let out = LibOut::fixed(DType::F32, dims);
    one(first(&cx.library_call(call, vec![Some(x)], vec![out]))?)
}

/// For each key the position of the first that equals it.
fn same_numbers(keys: &Keys) -> Vec<i64> {
    fn number<K: Ord>(keys: &[K]) -> Vec<i64> {
        let mut first = BTreeMap::new();
        let it = keys.iter().enumerate();
        it.map(|(i, k)| *first.entry(k).or_insert(i as i64))
            .collect()
    }
    match keys {
        Keys::Strings(k) => number(k),
        Keys::Ints(k) => number(k),
        Keys::Floats(k) => (0..k.len() as i64).collect(),
    }
}
