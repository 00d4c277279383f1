//! Pages that stand alone: HTML with pictures in SVG, without scripts and without anything to fetch.
//!
//! Everything is written as XML too (each tag is closed, each attribute quoted), so that it can be checked by any
//! reader of XML. Colours are variables, and follow the reader's choice of light or dark.

use std::fmt::Write;

/// Text for an element or a quoted attribute. Characters that neither HTML nor XML may hold become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{FFFE}' | '\u{FFFF}') => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

/// At most so many characters: the middle of a longer text is left out.
pub fn shorten(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most || most < 3 {
        return text.to_string();
    }
    let head = (most - 1) / 2;
    let tail = most - 1 - head;
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(length - tail).collect();
    format!("{start}…{end}")
}

const STYLE: &str = "
:root{color-scheme:light dark;--back:#fff;--text:#1c2430;--dim:#5b6675;--line:#c9d0d9;--panel:#f4f6f8;--edge:#8b97a6;
--c0:#2166ac;--c1:#c2410c;--c2:#15803d;--c3:#7e22ce;--c4:#a16207;--c5:#0e7490;--c6:#be185d;--c7:#4b5563;--heat:#e4572e}
@media(prefers-color-scheme:dark){:root{--back:#14181d;--text:#e4e8ee;--dim:#9aa6b5;--line:#3a444f;--panel:#1d232a;
--edge:#6d7a89;--c0:#6fb1f0;--c1:#fb923c;--c2:#4ade80;--c3:#c084fc;--c4:#facc15;--c5:#22d3ee;--c6:#f472b6;--c7:#b0b8c4;
--heat:#ff7a50}}
body{background:var(--back);color:var(--text);font:15px/1.45 system-ui,sans-serif;margin:1.5rem auto;max-width:1200px;
padding:0 1rem}
h1{font-size:1.5rem;overflow-wrap:anywhere}h2{font-size:1.15rem;margin-top:2rem}
p.note,.note{color:var(--dim);font-size:.9rem;max-width:75ch}
table{border-collapse:collapse;font-size:.87rem;font-variant-numeric:tabular-nums}
th,td{padding:.22rem .7rem;border-bottom:1px solid var(--line);text-align:right}
th:first-child,td:first-child,.left{text-align:left;overflow-wrap:anywhere}
th{color:var(--dim);font-weight:600}
.scroll{overflow:auto;max-width:100%;border:1px solid var(--line);border-radius:6px;background:var(--panel)}
svg{display:block}.scroll svg{margin:0 auto}svg text{fill:var(--text);font:12px system-ui,sans-serif}svg .small{font-size:11px;fill:var(--dim)}
svg .axis{stroke:var(--edge)}svg .grid{stroke:var(--line);stroke-width:.6}
a{color:var(--c0)}:target rect,tr:target td{stroke:var(--heat);stroke-width:3;background:var(--panel)}
details{margin:.6rem 0}summary{cursor:pointer}
";

/// The colours of series, in turns.
pub fn colour(index: usize) -> String {
    format!("var(--c{})", index % 8)
}

/// A page around a body; `style` is for this page alone.
pub fn page(title: &str, style: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width\"/><title>{}</title>\
         <style>{STYLE}{style}</style></head><body>\n{body}\n</body></html>\n",
        escape(title)
    )
}

/// A table; cells are text, and the first `left` columns are flush left.
pub fn table(head: &[&str], rows: &[Vec<String>], left: usize) -> String {
    let mut out = String::from("<table><thead><tr>");
    let class = |column: usize| {
        if column < left { " class=\"left\"" } else { "" }
    };
    for (column, cell) in head.iter().enumerate() {
        let _ = write!(out, "<th{}>{}</th>", class(column), escape(cell));
    }
    out.push_str("</tr></thead><tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let _ = write!(out, "<td{}>{}</td>", class(column), escape(cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table>\n");
    out
}

/// A text in a picture. `anchor` is SVG's: start, middle or end.
pub fn label(x: f64, y: f64, anchor: &str, class: &str, text: &str) -> String {
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{}</text>",
        escape(text)
    )
}

/// A line in a picture.
pub fn line(from: (f64, f64), to: (f64, f64), class: &str) -> String {
    format!(
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" class=\"{class}\"/>",
        from.0, from.1, to.0, to.1
    )
}

/// A picture of this size; `what` tells readers who do not see it.
pub fn svg(width: f64, height: f64, what: &str, inside: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" aria-label=\"{}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\">\n{inside}\n</svg>\n",
        escape(what)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_markup_or_is_no_character_of_a_page_is_escaped() {
        assert_eq!(
            escape("<b a=\"1\">'&\u{0}\u{7f}"),
            "&lt;b a=&quot;1&quot;&gt;&#39;&amp;\u{FFFD}\u{FFFD}"
        );
    }

    #[test]
    fn a_long_name_keeps_its_ends() {
        assert_eq!(shorten("/layer.10/attention/MatMul", 11), "/laye…atMul");
        assert_eq!(shorten("short", 11), "short");
    }
}
