//! Tokens of the text form.

use super::ParseError;

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Token {
    /// A plain word.
    Word(String),
    /// `%name` or `@name`, with the number after `#` (1 where there is none).
    Value(String, u32),
    /// An unsigned number as written, `0x…` among them.
    Number(String),
    Quoted(Vec<u8>),
    Hash(String),
    /// Punctuation of one or two characters.
    Mark(&'static str),
    /// A comment behind other text on its line.
    Comment(String),
    End,
}

#[derive(Clone, Debug)]
pub(super) struct Lexeme {
    pub token: Token,
    pub line: usize,
    pub column: usize,
    /// Whether it is the first on its line.
    pub first: bool,
}

const MARKS: [&str; 28] = [
    "=>", "==", "<=", ">=", "<<", ">>", "->", "[", "]", "{", "}", "(", ")", ",", ":", "=", "*",
    "+", "-", "/", "<", ">", "&", "|", "^", "!", "?", ";",
];

fn word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Characters of an unquoted value name.
fn in_name(c: char) -> bool {
    word(c) || matches!(c, '.' | '/' | '-' | '$')
}

/// Whether a value name needs no quotes. A colon belongs to it when more follows.
pub(super) fn plain_name(name: &str) -> bool {
    let mut after_colon = true;
    for c in name.chars() {
        if !in_name(c) && (c != ':' || after_colon) {
            return false;
        }
        after_colon = c == ':';
    }
    !after_colon && name.starts_with(|c: char| in_name(c))
}

/// Whether a symbol's name needs no quotes.
pub(super) fn plain_word(name: &str) -> bool {
    const TAKEN: [&str; 6] = ["floordiv", "ceildiv", "mod", "min", "max", "broadcast"];
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(word)
        && !TAKEN.contains(&name)
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    line_start: usize,
}

/// Splits a text; the last lexeme is [`Token::End`].
pub(super) fn lex(text: &str) -> Result<Vec<Lexeme>, ParseError> {
    let mut l = Lexer {
        chars: text.chars().collect(),
        at: 0,
        line: 1,
        line_start: 0,
    };
    let mut out = Vec::new();
    let mut last_line = 0;
    loop {
        l.blank();
        let (line, column) = (l.line, l.at - l.line_start + 1);
        let first = line != last_line;
        let Some(token) = l.token()? else {
            out.push(Lexeme {
                token: Token::End,
                line,
                column,
                first: true,
            });
            return Ok(out);
        };
        if first && matches!(token, Token::Comment(_)) {
            continue;
        }
        last_line = line;
        out.push(Lexeme {
            token,
            line,
            column,
            first,
        });
    }
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }
    fn error(&self, problem: impl Into<String>) -> ParseError {
        ParseError {
            line: self.line,
            column: self.at - self.line_start + 1,
            problem: problem.into(),
        }
    }
    fn blank(&mut self) {
        while let Some(c) = self.peek(0).filter(|c| c.is_whitespace()) {
            self.at += 1;
            if c == '\n' {
                self.line += 1;
                self.line_start = self.at;
            }
        }
    }
    fn take(&mut self, accept: impl Fn(char) -> bool) -> String {
        let start = self.at;
        while self.peek(0).is_some_and(&accept) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }
    fn token(&mut self) -> Result<Option<Token>, ParseError> {
        let Some(c) = self.peek(0) else {
            return Ok(None);
        };
        Ok(Some(match c {
            ';' => {
                self.at += 1;
                Token::Comment(self.take(|c| c != '\n').trim().to_string())
            }
            '"' => Token::Quoted(self.quoted()?),
            '%' | '@' => {
                self.at += 1;
                self.value()?
            }
            '#' => {
                self.at += 1;
                Token::Hash(self.take(word))
            }
            c if c.is_ascii_digit() => Token::Number(self.number()),
            c if word(c) => Token::Word(self.take(word)),
            _ => {
                let found = MARKS
                    .into_iter()
                    .find(|m| m.chars().enumerate().all(|(i, c)| self.peek(i) == Some(c)));
                let Some(mark) = found else {
                    return Err(self.error(format!("unexpected character '{c}'")));
                };
                self.at += mark.len();
                Token::Mark(mark)
            }
        }))
    }
    fn value(&mut self) -> Result<Token, ParseError> {
        let name = match self.peek(0) {
            Some('"') => String::from_utf8_lossy(&self.quoted()?).into_owned(),
            _ => {
                let mut name = self.take(in_name);
                while self.peek(0) == Some(':') && self.peek(1).is_some_and(in_name) {
                    self.at += 1;
                    name.push(':');
                    name.push_str(&self.take(in_name));
                }
                name
            }
        };
        let mut count = 1;
        if self.peek(0) == Some('#') {
            self.at += 1;
            count = self
                .take(|c| c.is_ascii_digit())
                .parse()
                .map_err(|_| self.error("expected a number after '#'"))?;
        }
        Ok(Token::Value(name, count))
    }
    fn number(&mut self) -> String {
        if self.peek(0) == Some('0') && self.peek(1) == Some('x') {
            return self.take(word);
        }
        let mut text = self.take(|c| c.is_ascii_digit() || c == '.');
        if matches!(self.peek(0), Some('e' | 'E')) {
            self.at += 1;
            text.push('e');
            if let Some(sign @ ('+' | '-')) = self.peek(0) {
                self.at += 1;
                text.push(sign);
            }
            text.push_str(&self.take(|c| c.is_ascii_digit()));
        }
        text
    }
    fn quoted(&mut self) -> Result<Vec<u8>, ParseError> {
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let Some(c) = self.peek(0).filter(|c| *c != '\n') else {
                return Err(self.error("a string that does not end"));
            };
            self.at += 1;
            match c {
                '"' => return Ok(out),
                '\\' => {
                    let escape = self.peek(0);
                    self.at += 1;
                    match escape {
                        Some('n') => out.push(b'\n'),
                        Some('x') => {
                            let hex: String =
                                [self.peek(0), self.peek(1)].into_iter().flatten().collect();
                            self.at += 2;
                            let byte = u8::from_str_radix(&hex, 16)
                                .map_err(|_| self.error("expected two hex digits"))?;
                            out.push(byte);
                        }
                        Some(c @ ('"' | '\\')) => out.push(c as u8),
                        _ => return Err(self.error("unknown escape")),
                    }
                }
                c => out.extend(c.to_string().bytes()),
            }
        }
    }
}
