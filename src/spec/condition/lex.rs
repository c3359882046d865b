//! An expression's text, cut into tokens.
//!
//! Invariant: every token knows where it stands, in characters, so that every later error can point at it. Nothing here
//! knows what a job is.

use super::ConditionError;

/// A stretch of the expression, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// First character.
    pub start: usize,
    /// Behind the last character.
    pub end: usize,
}

impl Span {
    /// From the start of this to the end of `other`.
    pub(super) fn to(self, other: Self) -> Self {
        Self { start: self.start, end: other.end.max(self.start) }
    }

    /// An error that points here.
    pub(super) fn error(self, message: impl Into<String>) -> ConditionError {
        ConditionError {
            offset: self.start,
            length: self.end.saturating_sub(self.start).max(1),
            message: message.into(),
            help: None,
        }
    }
}

impl ConditionError {
    /// The same, with advice.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name, `true`, `false`, `null` and `in` included.
    Name(String),
    /// A text literal, unescaped.
    Text(String),
    /// A whole number without its sign.
    Int(u64),
    /// A whole number marked with `u`.
    UInt(u64),
    /// A number with a fraction or an exponent.
    Double(f64),
    /// An operator or bracket.
    Symbol(&'static str),
    /// The end of the expression.
    End,
}

/// Longest first, so that `==` is not read as `=`.
const SYMBOLS: [&str; 25] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "(", ")", "[", "]", "{", "}", ".", ",", "?", ":", "+", "-", "*",
    "/", "%", "=",
];

/// Cuts `source` into tokens; the last is always [`Token::End`].
pub(super) fn tokens(source: &str) -> Result<Vec<(Token, Span)>, ConditionError> {
    let mut lexer = Lexer { text: source.chars().collect(), at: 0 };
    let mut found = Vec::new();
    loop {
        lexer.skip_blanks();
        let start = lexer.at;
        let token = lexer.token()?;
        let end = token == Token::End;
        found.push((token, Span { start, end: lexer.at }));
        if end {
            return Ok(found);
        }
    }
}

struct Lexer {
    text: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    fn since(&self, start: usize) -> Span {
        Span { start, end: self.at.max(start + 1) }
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let start = self.at;
        while self.peek(0).is_some_and(&keep) {
            self.at += 1;
        }
        self.text.get(start..self.at).unwrap_or_default().iter().collect()
    }

    fn skip_blanks(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\r' | '\n' | '\u{c}'));
            if self.peek(0) == Some('/') && self.peek(1) == Some('/') {
                self.take_while(|c| c != '\n');
            } else {
                return;
            }
        }
    }

    fn token(&mut self) -> Result<Token, ConditionError> {
        let Some(first) = self.peek(0) else { return Ok(Token::End) };
        let second = self.peek(1);
        if first == '"' || first == '\'' {
            return self.text(false);
        }
        if matches!(first, 'r' | 'R') && matches!(second, Some('"' | '\'')) {
            self.at += 1;
            return self.text(true);
        }
        if matches!(first, 'b' | 'B') && matches!(second, Some('"' | '\'')) {
            return Err(self.since(self.at).error("byte literals have no use in a condition"));
        }
        if first == '_' || first.is_ascii_alphabetic() {
            return Ok(Token::Name(self.take_while(|c| c == '_' || c.is_ascii_alphanumeric())));
        }
        if first.is_ascii_digit() || (first == '.' && second.is_some_and(|c| c.is_ascii_digit())) {
            return self.number();
        }
        for symbol in SYMBOLS {
            if symbol.chars().enumerate().all(|(ahead, c)| self.peek(ahead) == Some(c)) {
                self.at += symbol.len();
                return Ok(Token::Symbol(symbol));
            }
        }
        let shown = if first.is_control() { first.escape_default().to_string() } else { first.to_string() };
        let error = self.since(self.at).error(format!("`{shown}` has no meaning here"));
        Err(match first {
            '&' => error.help("write `&&`"),
            '|' => error.help("write `||`"),
            '“' | '”' | '‘' | '’' => error.help("write straight quotes, `\"…\"` or `'…'`"),
            _ => error,
        })
    }

    fn number(&mut self) -> Result<Token, ConditionError> {
        let start = self.at;
        if self.peek(0) == Some('0') && matches!(self.peek(1), Some('x' | 'X')) {
            self.at += 2;
            let digits = self.take_while(|c| c.is_ascii_hexdigit());
            let value = u64::from_str_radix(&digits, 16).ok();
            return self.whole(start, value);
        }
        let mut text = self.take_while(|c| c.is_ascii_digit());
        let mut fraction = false;
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            fraction = true;
            self.at += 1;
            text = format!("{text}.{}", self.take_while(|c| c.is_ascii_digit()));
        }
        if matches!(self.peek(0), Some('e' | 'E')) {
            let sign = matches!(self.peek(1), Some('+' | '-'));
            if self.peek(1 + usize::from(sign)).is_some_and(|c| c.is_ascii_digit()) {
                fraction = true;
                let sign = if self.peek(1) == Some('-') { "-" } else { "" };
                self.at += 1 + usize::from(matches!(self.peek(1), Some('+' | '-')));
                text = format!("{text}e{sign}{}", self.take_while(|c| c.is_ascii_digit()));
            }
        }
        if fraction {
            let value = format!("0{text}").parse::<f64>().ok().filter(|value| value.is_finite());
            return value.map(Token::Double).ok_or_else(|| self.since(start).error("this number is out of range"));
        }
        let value = text.parse().ok();
        self.whole(start, value)
    }

    fn whole(&mut self, start: usize, value: Option<u64>) -> Result<Token, ConditionError> {
        let unsigned = matches!(self.peek(0), Some('u' | 'U'));
        self.at += usize::from(unsigned);
        match value {
            Some(value) if unsigned => Ok(Token::UInt(value)),
            Some(value) => Ok(Token::Int(value)),
            None => Err(self.since(start).error("this number is out of range")),
        }
    }

    fn text(&mut self, raw: bool) -> Result<Token, ConditionError> {
        let start = self.at;
        let quote = self.peek(0).unwrap_or('"');
        let triple = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
        self.at += if triple { 3 } else { 1 };
        let mut value = String::new();
        loop {
            match self.peek(0) {
                None => return Err(Span { start, end: start + 1 }.error("this text has no closing quote")),
                Some('\n' | '\r') if !triple => {
                    return Err(Span { start, end: start + 1 }.error("this text has no closing quote on its line"));
                }
                Some(c) if c == quote && !triple => {
                    self.at += 1;
                    return Ok(Token::Text(value));
                }
                Some(c) if c == quote && self.peek(1) == Some(quote) && self.peek(2) == Some(quote) => {
                    self.at += 3;
                    return Ok(Token::Text(value));
                }
                Some('\\') if !raw => value.push(self.escape()?),
                Some(c) => {
                    value.push(c);
                    self.at += 1;
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, ConditionError> {
        let start = self.at;
        let code = self.peek(1);
        self.at += 2;
        let plain = match code {
            Some(c @ ('\\' | '"' | '\'' | '`' | '?')) => Some(c),
            Some('a') => Some('\u{7}'),
            Some('b') => Some('\u{8}'),
            Some('f') => Some('\u{c}'),
            Some('n') => Some('\n'),
            Some('r') => Some('\r'),
            Some('t') => Some('\t'),
            Some('v') => Some('\u{b}'),
            _ => None,
        };
        if let Some(c) = plain {
            return Ok(c);
        }
        let (digits, radix) = match code {
            Some('x' | 'X') => (2, 16),
            Some('u') => (4, 16),
            Some('U') => (8, 16),
            Some('0'..='3') => {
                self.at -= 1;
                (3, 8)
            }
            _ => (0, 10),
        };
        let text: String = self.text.get(self.at..self.at + digits).unwrap_or_default().iter().collect();
        self.at = (self.at + digits).min(self.text.len());
        let complete = digits > 0 && text.chars().count() == digits && text.chars().all(|c| c.is_digit(radix));
        complete
            .then(|| u32::from_str_radix(&text, radix).ok().and_then(char::from_u32))
            .flatten()
            .ok_or_else(|| self.since(start).error("unknown escape in a text").help("write `\\\\` for a backslash"))
    }
}
